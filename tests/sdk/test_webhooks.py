#!/usr/bin/env python3
"""Verifies recorded webhook deliveries with the published `standardwebhooks` package for Python.

Reads JSON lines {"headers":{...},"body":"<base64>","secret":"whsec_..."} from standard input, as
the sample receiver's GET /_control/deliveries gives them. Each delivery has to verify as it came,
and has to be refused when its body, its id or its secret is another, or when it is late. Where a line
has a public key ("jwk"), the asymmetric signature is verified with it, by the `cryptography` package.
The last line says how many were verified; the exit code is 0 only if all held.
"""

import base64
import json
import sys
from datetime import datetime, timedelta, timezone

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
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


def check_public(headers: dict[str, str], body: bytes, jwk: dict[str, str]) -> None:
    key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(jwk["x"] + "="))
    signatures = [one[4:] for one in headers["webhook-signature"].split(" ") if one.startswith("v1a,")]
    assert signatures, "no asymmetric signature"
    head = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode()
    for signature in signatures:
        key.verify(base64.b64decode(signature), head + body)
        try:
            key.verify(base64.b64decode(signature), head + body + b" ")
        except InvalidSignature:
            continue
        raise AssertionError("a tampered body was not refused by the public key")


def main() -> int:
    passed = failed = 0
    for line in sys.stdin:
        delivery = json.loads(line)
        try:
            headers, body = delivery["headers"], base64.b64decode(delivery["body"])
            check(headers, body, delivery["secret"])
            if "jwk" in delivery:
                check_public(headers, body, delivery["jwk"])
            passed += 1
        except (AssertionError, InvalidSignature, ValueError, WebhookVerificationError) as error:
            failed += 1
            print(f"{delivery['headers'].get('webhook-id')}: {error!r}", file=sys.stderr)
    print(json.dumps({"verified": passed, "failed": failed}))
    # No delivery at all proves nothing, so it is a failure too.
    return 0 if failed == 0 and passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
