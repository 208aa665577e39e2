"""Running stand-ins. QuickBooks has a company of its own for each test session, and all others are
one process that serves a vendor on each of its addresses.

`STANDIN_QUICKBOOKS` names one that runs already; without it a fresh one is started from the
binary that `LOCAL_BIN` names (`target/debug/local` of this checkout by default).
"""

import itertools
import os
import socket
import subprocess
import time
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urljoin, urlsplit

# The SDK's OAuth session refuses plain HTTP otherwise; the stand-in listens on loopback only.
os.environ.setdefault("OAUTHLIB_INSECURE_TRANSPORT", "1")

import pytest
import requests
from intuitlib.client import AuthClient
from intuitlib.enums import Scopes
from quickbooks import QuickBooks

ROOT = Path(__file__).resolve().parents[2]
REDIRECT = "http://localhost:9/oauth/cb/quickbooks"
_numbers = itertools.count(1)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def standin(tmp_path_factory):
    given = os.environ.get("STANDIN_QUICKBOOKS")
    if given:
        yield given.rstrip("/")
        return
    address = f"127.0.0.1:{_free_port()}"
    state = tmp_path_factory.mktemp("state")
    with _running(tmp_path_factory, ["quickbooks", "--address", address, "--state", str(state)]):
        _wait(f"http://{address}")
        yield f"http://{address}"


@contextmanager
def _running(tmp_path_factory, arguments: list[str]):
    """The stand-ins that the arguments name, until the tests are over."""
    binary = Path(os.environ.get("LOCAL_BIN", ROOT / "target/debug/local"))
    if not binary.exists():
        pytest.fail(f"{binary} is not built: cargo build -p tests --bin local")
    log = tmp_path_factory.mktemp("standin") / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(binary), "standin", *arguments], stdout=output, stderr=output
        )
        try:
            yield
        except NotUp as trouble:
            pytest.fail(f"the stand-in does not answer: {trouble}\n{log.read_text()}")
        finally:
            process.terminate()
            process.wait(timeout=10)


class NotUp(Exception):
    """A stand-in that was started and is not there."""


def _wait(base: str) -> None:
    for _ in range(100):
        try:
            requests.get(f"{base}/_control/health", timeout=1).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.1)
    raise NotUp(base)


@pytest.fixture
def control(standin):
    """Calls the control port: control("limits", {...}) posts, control("books", realm=…) reads."""

    def call(path, body=None, method=None, **params):
        method = method or ("GET" if body is None else "POST")
        answer = requests.request(
            method, f"{standin}/_control/{path}", json=body, params=params, timeout=10
        )
        answer.raise_for_status()
        return answer.json()

    return call


@pytest.fixture
def realm(control):
    name = f"46208163650{os.getpid() % 10**4:04d}{next(_numbers):04d}"
    control("realms", {"realm": name})
    return name


@pytest.fixture
def app(control):
    """An app of its own, registered as one is in the vendor's developer portal."""
    app = {"client_id": f"app-{os.getpid()}-{next(_numbers)}", "client_secret": "s3cret"}
    control("clients", {**app, "redirect_uris": [REDIRECT]})
    return app


class Form(HTMLParser):
    """The fields and buttons of the consent page."""

    def __init__(self, html: str):
        super().__init__()
        self.action = None
        self.fields = {}
        self.buttons = []
        self.choices = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "form":
            assert attrs["method"].lower() == "post"
            self.action = attrs["action"]
        elif tag == "input":
            self.fields[attrs["name"]] = attrs["value"]
        elif tag == "button":
            self.buttons.append((attrs["name"], attrs["value"]))
        elif tag == "option":
            self.choices.append(attrs["value"])


def decide(auth: AuthClient, realm: str, decision: str, state: str = "st-1") -> dict:
    """Opens the consent page as a browser does, presses a button, and follows to the callback."""
    address = auth.get_authorization_url([Scopes.ACCOUNTING], state_token=state)
    page = requests.get(address, timeout=10)
    assert page.status_code == 200, page.text
    form = Form(page.text)
    assert realm in form.choices
    assert ("decision", decision) in form.buttons
    sent = {**form.fields, "realm_id": realm, "decision": decision}
    answer = requests.post(
        urljoin(address, form.action), data=sent, allow_redirects=False, timeout=10
    )
    assert answer.status_code == 302, answer.text
    target = urlsplit(answer.headers["location"])
    assert f"{target.scheme}://{target.netloc}{target.path}" == REDIRECT
    return {name: values[0] for name, values in parse_qs(target.query).items()}


@pytest.fixture
def auth(standin, app):
    return AuthClient(
        app["client_id"],
        app["client_secret"],
        REDIRECT,
        environment=f"{standin}/.well-known/openid_configuration",
    )


@pytest.fixture
def connected(auth, realm):
    back = decide(auth, realm, "approve")
    auth.get_bearer_token(back["code"], realm_id=back["realmId"])
    return auth


@pytest.fixture
def client(standin, connected, realm, monkeypatch):
    monkeypatch.setattr(QuickBooks, "sandbox_api_url_v3", f"{standin}/v3")
    monkeypatch.setattr(QuickBooks, "api_url_v3", f"{standin}/v3")
    return QuickBooks(
        auth_client=connected,
        refresh_token=connected.refresh_token,
        company_id=realm,
        minorversion=75,
    )


VENDORS = (
    "xero",
    "salesforce",
    "hubspot",
    "mailchimp",
    "sendgrid",
    "stripe",
    "paypal",
    "square",
    "square_loyalty",
    "voucherify",
)


class Vendor:
    """A stand-in with an app of its own, and a browser in front of its consent page."""

    redirect = "http://localhost:9/oauth/cb"

    def __init__(self, base: str):
        self.base = base
        self.client_id = f"app-{os.getpid()}-{next(_numbers)}"
        self.client_secret = f"s3cret-{next(_numbers)}"
        self.register()

    def register(self, **more) -> None:
        app = {
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "redirect_uris": [self.redirect],
        }
        self.control("clients", {**app, **more})

    def control(self, path: str, body=None, method=None):
        method = method or ("GET" if body is None else "POST")
        answer = requests.request(method, f"{self.base}/_control/{path}", json=body, timeout=10)
        answer.raise_for_status()
        return answer.json()

    def here(self, address: str) -> str:
        """The path and query of one of the vendor's own addresses, at the stand-in."""
        parts = urlsplit(address)
        return f"{self.base}{parts.path}?{parts.query}"

    def decide(self, address: str, account=None, decision="approve") -> dict:
        """Opens the consent page, presses a button, and follows to the callback."""
        page = requests.get(self.here(address), timeout=10)
        assert page.status_code == 200, page.text
        form = Form(page.text)
        assert ("decision", decision) in form.buttons
        sent = {**form.fields, "account": account or form.choices[0], "decision": decision}
        action = urljoin(self.base, form.action)
        answer = requests.post(action, data=sent, allow_redirects=False, timeout=10)
        assert answer.status_code == 302, answer.text
        target = urlsplit(answer.headers["location"])
        assert f"{target.scheme}://{target.netloc}{target.path}" == self.redirect
        return {name: values[0] for name, values in parse_qs(target.query).items()}

    def code(self, address: str, account=None) -> str:
        return self.decide(address, account)["code"]

    def accounts(self) -> list[str]:
        return [account["id"] for account in self.control("accounts")]

    def disconnect(self, account: str) -> None:
        """What a user does who takes their consent back at the vendor."""
        done = self.control("revoke", {"account": account, "client_id": self.client_id})
        assert done["revoked"] > 0

    def wait(self, seconds: int) -> None:
        self.control("clock", {"advance_seconds": seconds})


@pytest.fixture(scope="session")
def addresses(tmp_path_factory):
    """Where each vendor's stand-in is."""
    found = {name: f"127.0.0.1:{_free_port()}" for name in VENDORS}
    serve = [f"--serve={name}={address}" for name, address in found.items()]
    with _running(tmp_path_factory, serve):
        bases = {name: f"http://{address}" for name, address in found.items()}
        for base in bases.values():
            _wait(base)
        yield bases


@pytest.fixture
def vendor(addresses):
    """vendor("xero") is that stand-in with a fresh app."""
    return lambda name: Vendor(addresses[name])
