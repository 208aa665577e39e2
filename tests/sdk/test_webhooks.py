#!/usr/bin/env python3
"""Verifies recorded webhook deliveries with the published `standardwebhooks` package for Python.

Reads JSON lines {"headers":{...},"body":"<base64>","secret":"whsec_..."} from standard input, as
the sample receiver's GET /_control/deliveries gives them. Each delivery has to verify as it came,
and has to be refused when its body, its id or its secret is another, or when it is late.
The last line says how many were verified; the exit code is 0 only if all held.
"""

import base64
import json
import sys
from datetime import datetime, timedelta, timezone

from standardwebhooks import Webhook, WebhookVerificationError

LATE = timedelta(minutes=5, seconds=5)


def refused(name: str, webhook: Webhook, body: bytes, headers: dict[str, str]) -> None:
    try:
        webhook.verify(body, headers, json_parse=False)
    except WebhookVerificationError:
        return
    raise AssertionError(f"{name} was not refused")


def check(headers: dict[str, str], body: bytes, secret: str) -> None:
    webhook = Webhook(secret)
    webhook.verify(body, headers)

    # A space after the JSON leaves its meaning and its encoding whole, and still is another body.
    refused("a tampered body", webhook, body + b" ", headers)
    refused("another id", webhook, body, {**headers, "webhook-id": headers["webhook-id"] + "x"})
    refused("another secret", Webhook(b"\x07" * 24), body, headers)

    late = datetime.now(tz=timezone.utc) - LATE
    signed_late = {
        **headers,
        "webhook-timestamp": str(int(late.timestamp())),
        "webhook-signature": webhook.sign(headers["webhook-id"], late, body.decode()),
    }
    refused("a late delivery", webhook, body, signed_late)


def main() -> int:
    passed = failed = 0
    for line in sys.stdin:
        delivery = json.loads(line)
        try:
            check(delivery["headers"], base64.b64decode(delivery["body"]), delivery["secret"])
            passed += 1
        except (AssertionError, WebhookVerificationError) as error:
            failed += 1
            print(f"{delivery['headers'].get('webhook-id')}: {error}", file=sys.stderr)
    print(json.dumps({"verified": passed, "failed": failed}))
    # No delivery at all proves nothing, so it is a failure too.
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
