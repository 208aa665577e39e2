#!/usr/bin/env python3
"""The webhook receiver that a developer who builds on the platform might write.

It verifies every delivery with the published `standardwebhooks` package and shares no code with
the platform, so what it counts as verified is an outside opinion. It also serves the page on
which a merchant lands after connecting a tool. Everything under /_control/ is for tests and for
the demonstration; a developer would not have it.

    receiver.py --address 127.0.0.1:8799 --state DIR

    POST /hook                 a delivery: 204, or 401 when the signature does not hold
    GET  /connected            where the connect flow returns to
    GET  /_control/health      {"ok":true,"secret":true|false}
    POST /_control/secret      {"secret":"whsec_..."}: what deliveries are verified with from now on
    POST /_control/mode        a fault for the next requests to /hook; see `Fault`
    GET  /_control/received    what was received, counted
    GET  /_control/deliveries  every delivery as it came: JSON lines of headers, body (base64) and secret
    GET  /_control/connected   the query with which /connected was last opened

The state is a directory of append-only JSON lines, so a restart forgets nothing.
"""

import argparse
import base64
import dataclasses
import html
import ipaddress
import json
import sys
import threading
import time
import urllib.parse
from collections import Counter
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook

# A delivery carries one event, and an event is accepted up to 256 KiB; the envelope adds little.
BODY_BYTES_MAX = 1024 * 1024
IDLE_SECONDS_MAX = 60


@dataclasses.dataclass
class Fault:
    """How the next `requests` deliveries go wrong.

    Without `handled` the fault comes before the delivery is handled, so the sender's next try is
    the first one that counts; with it the delivery is handled and only the answer goes wrong, so
    the next try is a duplicate.
    """

    requests: int = 1
    status: int | None = None  # answered instead of 204
    headers: dict[str, str] = dataclasses.field(default_factory=dict)  # sent with `status`
    delay_ms: int = 0  # waited before the answer
    close: bool = False  # the connection is closed without an answer
    handled: bool = False


class State:
    """What the receiver remembers: one object, one lock, one file for each kind of thing."""

    def __init__(self, directory: Path):
        directory.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.secrets = directory / "secrets.jsonl"
        self.connected = directory / "connected.jsonl"
        self.deliveries = directory / "deliveries.jsonl"
        self.secret: str | None = None
        self.last_connected: dict[str, str] | None = None
        self.fault = Fault(requests=0)
        self.delivered = self.verified = self.refused = self.duplicates = self.faulted = 0
        # By webhook-id, the type of the event.
        self.unique: dict[str, str | None] = {}
        for row in read_lines(self.secrets):
            self.secret = row["secret"]
        for row in read_lines(self.connected):
            self.last_connected = row["query"]
        for row in read_lines(self.deliveries):
            self.count(row)

    def count(self, row: dict) -> None:
        self.delivered += 1
        if not row["handled"]:
            self.faulted += 1
        elif not row["verified"]:
            self.refused += 1
        else:
            self.verified += 1
            if row["id"] in self.unique:
                self.duplicates += 1
            else:
                self.unique[row["id"]] = row["type"]

    def record(self, row: dict) -> None:
        with self.lock:
            append_line(self.deliveries, row)
            self.count(row)

    def keep_secret(self, secret: str) -> None:
        if not secret.startswith("whsec_"):
            raise ValueError("a secret starts with whsec_")
        Webhook(secret)  # Refuses what is not a secret before it is kept.
        with self.lock:
            append_line(self.secrets, {"secret": secret})
            self.secret = secret

    def keep_connected(self, query: dict[str, str]) -> None:
        with self.lock:
            append_line(self.connected, {"at": now(), "query": query})
            self.last_connected = query

    def take_fault(self) -> Fault | None:
        with self.lock:
            if self.fault.requests <= 0:
                return None
            self.fault.requests -= 1
            return self.fault

    def received(self) -> dict:
        with self.lock:
            return {
                "deliveries": self.delivered,
                "unique": len(self.unique),
                "verified": self.verified,
                "refused": self.refused,
                "faulted": self.faulted,
                "duplicates": self.duplicates,
                "by_type": dict(Counter(kind or "" for kind in self.unique.values())),
                "ids": list(self.unique),
            }


def now() -> str:
    return datetime.now(tz=timezone.utc).isoformat(timespec="milliseconds")


def append_line(path: Path, row: dict) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict]:
    """The rows of a file. A last line that a kill cut short is removed: its sender had no answer."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]


def verify(secret: str | None, body: bytes, headers: dict[str, str]) -> str | None:
    """Why a delivery is refused, or nothing when its signature holds."""
    if secret is None:
        return "no secret was given to this receiver"
    try:
        Webhook(secret).verify(body, headers)
    except Exception as error:  # The library lets errors of parsing through as they are.
        return f"{type(error).__name__}: {error}"
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS_MAX
    state: State

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        match url.path:
            case "/connected":
                self.show_connected(dict(urllib.parse.parse_qsl(url.query)))
            case "/_control/health":
                self.answer_json(200, {"ok": True, "secret": self.state.secret is not None})
            case "/_control/received":
                self.answer_json(200, self.state.received())
            case "/_control/connected":
                self.answer_json(200, self.state.last_connected)
            case "/_control/deliveries":
                self.show_deliveries()
            case _:
                self.answer_json(404, {"error": "no such page"})

    def do_POST(self) -> None:
        body = self.read_body()
        if body is None:
            return
        match urllib.parse.urlsplit(self.path).path:
            case "/hook":
                self.take_delivery(body)
            case "/_control/secret":
                self.control(body, lambda given: self.state.keep_secret(given["secret"]))
            case "/_control/mode":
                self.control(body, self.set_fault)
            case _:
                self.answer_json(404, {"error": "no such page"})

    def take_delivery(self, body: bytes) -> None:
        fault = self.state.take_fault()
        headers = {name.lower(): value for name, value in self.headers.items()}
        refusal = verify(self.state.secret, body, headers)
        handled = fault is None or fault.handled
        self.state.record(
            {
                "at": now(),
                "id": headers.get("webhook-id"),
                "type": event_type(body),
                "verified": refusal is None,
                "refusal": refusal,
                "handled": handled,
                "headers": headers,
                "body": base64.b64encode(body).decode(),
                "secret": self.state.secret,
            }
        )
        status, extra = (204 if refusal is None else 401), {}
        if fault is not None:
            time.sleep(fault.delay_ms / 1000)
            if fault.close:
                self.close_connection = True
                return
            if fault.status is not None:
                status, extra = fault.status, fault.headers
        self.answer(status, b"", extra)

    def set_fault(self, given: dict) -> None:
        fault = Fault(**given)
        with self.state.lock:
            self.state.fault = fault

    def control(self, body: bytes, act) -> None:
        try:
            act(json.loads(body))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            self.answer_json(400, {"error": f"{type(error).__name__}: {error}"})
        else:
            self.answer_json(200, {"ok": True})

    def show_connected(self, query: dict[str, str]) -> None:
        self.state.keep_connected(query)
        if query.get("status") == "pending" and "confirmation" in query:
            title = "Connected"
            text = (
                "The tool is connected and waits for one thing: the commerce backend of the session that"
                " started this has to confirm it with"
            )
            path = f"/api/v1/integrations/{query.get('category', '')}/{query.get('connection_id', '')}/confirm"
            code = f"POST {path}\n" + json.dumps(
                {"merchant_id": query.get("merchant_id"), "confirmation": query["confirmation"]}
            )
        else:
            title, text, code = "Not connected", "The connect flow came back with", json.dumps(query, indent=2)
        page = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<h1>{title}</h1><p>{text}</p><pre>{html.escape(code)}</pre></html>"
        )
        self.answer(200, page.encode(), {"Content-Type": "text/html; charset=utf-8", "Referrer-Policy": "no-referrer"})

    def show_deliveries(self) -> None:
        with self.state.lock:
            rows = read_lines(self.state.deliveries)
        lines = (json.dumps({key: row[key] for key in ("headers", "body", "secret")}) + "\n" for row in rows)
        self.answer(200, "".join(lines).encode(), {"Content-Type": "application/jsonl"})

    def read_body(self) -> bytes | None:
        """The raw body, which is what the signature is over; an answer is sent when there is none."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            self.close_connection = True
            self.answer_json(411, {"error": "a length is required"})
            return None
        if int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            self.answer_json(413, {"error": f"more than {BODY_BYTES_MAX} bytes"})
            return None
        return self.rfile.read(int(length))

    def answer_json(self, status: int, body: object) -> None:
        self.answer(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        # An answer 204 has no body, and so no length either.
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments) -> None:
        # The path is logged without its query, which holds the confirmation code of a connection.
        path = urllib.parse.urlsplit(getattr(self, "path", "")).path
        status = arguments[1] if len(arguments) > 1 else ""
        print(f"{now()} {self.command} {path} {status}", file=sys.stderr, flush=True)


def event_type(body: bytes) -> str | None:
    """What the event says it is; a body that cannot be read has no type."""
    try:
        event = json.loads(body)
    except ValueError:
        return None
    kind = event.get("type") if isinstance(event, dict) else None
    return kind if isinstance(kind, str) else None


def loopback_address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not ipaddress.ip_address("127.0.0.1" if host == "localhost" else host).is_loopback:
        raise argparse.ArgumentTypeError(f"{host} is not a loopback address")
    return host, int(port)


def main() -> None:
    parser = argparse.ArgumentParser(description="A sample developer's webhook receiver.")
    parser.add_argument("--address", type=loopback_address, default="127.0.0.1:8799", metavar="HOST:PORT")
    parser.add_argument("--state", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args()
    Handler.state = State(arguments.state)
    server = ThreadingHTTPServer(arguments.address, Handler)
    host, port = server.server_address[:2]
    print(f"{now()} listening on http://{host}:{port}", file=sys.stderr, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    main()
