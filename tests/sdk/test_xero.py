"""Xero's own Python library against the stand-in's accounting half, and every answer that it got
against the vendor's OpenAPI document.

The document is not part of this repository; `CROSSDOCK_SPECS` names the folder that holds `xero/`,
which is `../shared/specs` beside the checkout by default.
"""

import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import queue
import re
import subprocess
import threading
import uuid
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import requests
import yaml
from conftest import ROOT
from test_standins import Xero
from xero_python.accounting import (
    Account,
    AccountType,
    Allocation,
    Allocations,
    BankTransfer,
    BankTransfers,
    Contact,
    ContactPerson,
    Contacts,
    CreditNote,
    CreditNotes,
    CurrencyCode,
    Invoice,
    Invoices,
    Item,
    Items,
    LineAmountTypes,
    LineItem,
    Payment,
    PaymentDelete,
    Payments,
    Purchase,
)
from xero_python.exceptions import HTTPStatusException
from xero_python.rest import RESTClientObject

FOLDER = Path(os.environ.get("CROSSDOCK_SPECS", ROOT.parent / "shared/specs")) / "xero"
SCOPE = (
    "openid offline_access accounting.contacts accounting.invoices accounting.payments "
    "accounting.settings accounting.banktransactions"
)
DAY = datetime.date(2026, 5, 29)

# What the document's own examples have, or the vendor's later announcements, beside its schemas.
BESIDE = {
    "Invoice": {"DateString", "DueDateString", "RoundingAmount"},
    "CreditNote": {"ID", "DateString", "DueDateString", "RoundingAmount"},
    "BankTransaction": {"DateString"},
    "BankTransfer": {"DateString"},
    "Account": {"StatusAttributeString"},
}
ENVELOPE = {"Id", "Status", "ProviderName", "DateTimeUTC"}


class Document:
    """The vendor's OpenAPI document, without room for what it does not name."""

    def __init__(self, folder: Path):
        self.document = yaml.safe_load((folder / "xero_accounting.yaml").read_text())
        for name, schema in self.document["components"]["schemas"].items():
            properties = schema.get("properties")
            if properties is None:
                continue
            more = set(BESIDE.get(name, ()))
            if f"{name[:-1]}" in self.document["components"]["schemas"] or "pagination" in properties:
                more |= ENVELOPE
            for extra in more:
                properties.setdefault(extra, {})
            # An element of an error is whatever was sent.
            schema["additionalProperties"] = name in ("Element", "Error")
        for name in ("Currencies", "Actions"):
            for extra in ENVELOPE:
                self.document["components"]["schemas"][name]["properties"].setdefault(extra, {})

    def operation(self, method: str, path: str) -> dict:
        for template, operations in self.document["paths"].items():
            pattern = re.sub(r"\{[^}]*\}", "[^/]+", template)
            if re.fullmatch(pattern, path) and method.lower() in operations:
                return operations[method.lower()]
        raise AssertionError(f"the document has no {method} {path}")

    def problems(self, method: str, path: str, status: int, body) -> list[str]:
        responses = self.operation(method, path)["responses"]
        answer = responses.get(str(status))
        if answer is None:
            return [f"{method} {path} does not answer {status}"]
        while "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].split("/")[-1]]
        if "content" not in answer:
            return [] if body is None else [f"{method} {path} {status} has no body"]
        return self.validate(answer["content"]["application/json"]["schema"], body)

    def validate(self, schema: dict, body) -> list[str]:
        root = {**schema, "components": self.document["components"]}
        validator = jsonschema.Draft202012Validator(
            root, format_checker=jsonschema.FormatChecker(["uuid"])
        )
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(body)]


@pytest.fixture(scope="session")
def document():
    if not (FOLDER / "xero_accounting.yaml").exists():
        return None
    return Document(FOLDER)


class Books:
    """The library, connected to an organisation of its own; notes every answer."""

    def __init__(self, vendor, monkeypatch, **settings):
        self.vendor = vendor("xero")
        self.tenant = str(uuid.uuid4())
        self.vendor.control(
            "organisations",
            {"tenant": self.tenant, "country": "GB", "currencies": ["EUR"], **settings},
        )
        self.answers = []
        original = RESTClientObject.request

        def noted(rest, method, url, *args, **kwargs):
            try:
                answer = original(rest, method, url, *args, **kwargs)
            except HTTPStatusException as refused:
                self.note(method, url, refused.status, refused.body)
                raise
            self.note(method, url, answer.status, answer.data)
            return answer

        monkeypatch.setattr(RESTClientObject, "request", noted)
        self.xero = Xero(self.vendor, monkeypatch, self.tenant, SCOPE)
        self.api = self.xero.accounting

    def note(self, method, url, status, data):
        path = urlsplit(url).path
        if path.startswith("/api.xro/2.0"):
            path = path.removeprefix("/api.xro/2.0")
            try:
                body = json.loads(data) if data else None
            except ValueError:
                body = data
            self.answers.append((method, path, status, body))

    def headers(self):
        return {
            "Authorization": f"Bearer {self.xero.token['access_token']}",
            "Xero-Tenant-Id": self.tenant,
        }

    def raw(self, method, path, body=None, headers=None, **params):
        url = f"{self.vendor.base}/api.xro/2.0{path}"
        answer = requests.request(
            method,
            url,
            json=body,
            params=params,
            headers={**self.headers(), **(headers or {})},
            timeout=10,
        )
        self.note(method, url, answer.status_code, answer.content)
        return answer

    def contact(self, name="Ada Byron", **more):
        made = self.api.create_contacts(self.tenant, Contacts(contacts=[Contact(name=name, **more)]))
        return made.contacts[0]

    def invoice(self, contact, number, **more):
        fields = {
            "type": "ACCREC",
            "contact": Contact(contact_id=contact.contact_id),
            "invoice_number": number,
            "date": DAY,
            "due_date": DAY,
            "status": "AUTHORISED",
            "line_amount_types": LineAmountTypes.INCLUSIVE,
            "line_items": [
                LineItem(
                    description="Mug",
                    quantity=2.0,
                    unit_amount=10.0,
                    account_code="200",
                    tax_type="OUTPUT2",
                )
            ],
        }
        return Invoice(**{**fields, **more})

    def credit(self, contact, number, **more):
        fields = {
            "type": "ACCRECCREDIT",
            "contact": Contact(contact_id=contact.contact_id),
            "credit_note_number": number,
            "date": DAY,
            "status": "AUTHORISED",
            "line_amount_types": LineAmountTypes.INCLUSIVE,
            "line_items": [
                LineItem(
                    description="Mug back", quantity=1.0, unit_amount=10.0, account_code="200"
                )
            ],
        }
        return CreditNote(**{**fields, **more})


@pytest.fixture
def books(vendor, monkeypatch, document):
    """Whatever a test does: at its end, every answer has to be one of the document's."""
    books = Books(vendor, monkeypatch)
    yield books
    assert books.answers
    if document is None:
        return
    for method, path, status, body in books.answers:
        if status in (401, 403, 404, 429) or isinstance(body, bytes):
            continue
        assert document.problems(method, path, status, body) == [], (method, path, body)


def test_the_document_is_there(document):
    if document is None:
        pytest.skip(f"the vendor's document is not at {FOLDER}; set CROSSDOCK_SPECS to its parent")


def test_a_sale_from_contact_to_payment(books):
    ada = books.contact(
        contact_number="shop-1",
        email_address="ada@example.com",
        contact_persons=[ContactPerson(first_name="Annabella")],
    )
    item = Item(
        code="MUG", name="Mug", sales_details=Purchase(unit_price=10.0, account_code="200")
    )
    made = books.api.create_items(books.tenant, Items(items=[item])).items[0]
    assert (made.code, made.sales_details.unit_price) == ("MUG", 10.0)
    sent = Invoices(invoices=[books.invoice(ada, "S-1"), books.invoice(ada, "S-2")])
    first, second = books.api.create_invoices(books.tenant, sent).invoices
    assert (first.status, first.sub_total, first.total_tax, first.total) == (
        "AUTHORISED",
        Decimal("16.67"),
        Decimal("3.33"),
        Decimal("20"),
    )
    assert first.date == DAY and first.currency_code == CurrencyCode.GBP
    paid = Payments(payments=[
            Payment(
                invoice=Invoice(invoice_id=one.invoice_id),
                account=Account(code="090"),
                date=DAY,
                amount=amount,
            )
            for one, amount in ((first, 20.0), (second, 5.0))
        ]
    )
    payments = books.api.create_payments(books.tenant, paid).payments
    assert [one.payment_type for one in payments] == ["ACCRECPAYMENT"] * 2
    first = books.api.get_invoice(books.tenant, first.invoice_id).invoices[0]
    assert (first.status, first.amount_due, first.amount_paid) == ("PAID", 0.0, 20.0)
    assert first.fully_paid_on_date == DAY
    assert first.contact.contact_persons[0].first_name == "Annabella"
    seen = books.api.get_contact(books.tenant, ada.contact_id).contacts[0]
    assert seen.is_customer and seen.balances.accounts_receivable.outstanding == 15.0

    gone = PaymentDelete(status="DELETED")
    deleted = books.api.delete_payment(books.tenant, payments[0].payment_id, gone).payments[0]
    assert deleted.status == "DELETED"
    first = books.api.get_invoice(books.tenant, "S-1").invoices[0]
    assert (first.status, first.amount_due, first.payments) == ("AUTHORISED", 20.0, [])
    void = Invoices(invoices=[Invoice(status="VOIDED")])
    assert books.api.update_invoice(books.tenant, first.invoice_id, void).invoices[0].status == "VOIDED"


def test_credit_is_set_off_and_paid_back(books):
    ada = books.contact()
    invoice = books.api.create_invoices(books.tenant, Invoices(invoices=[books.invoice(ada, "S-1")]))
    invoice = invoice.invoices[0]
    note = books.api.create_credit_notes(books.tenant, CreditNotes(credit_notes=[books.credit(ada, "C-1")]))
    note = note.credit_notes[0]
    assert (note.remaining_credit, note.total_tax) == (10, Decimal("1.67"))
    allocation = Allocation(
        amount=4.0, date=DAY, invoice=Invoice(invoice_id=invoice.invoice_id)
    )
    books.api.create_credit_note_allocation(
        books.tenant, note.credit_note_id, Allocations(allocations=[allocation])
    )
    seen = books.api.get_invoice(books.tenant, "S-1").invoices[0]
    assert (seen.amount_due, seen.amount_credited) == (16.0, 4.0)
    refund = Payment(
        credit_note=CreditNote(credit_note_id=note.credit_note_id),
        account=Account(code="090"),
        date=DAY,
        amount=6.0,
    )
    paid = books.api.create_payment(books.tenant, refund).payments[0]
    assert (paid.payment_type, paid.invoice.type) == ("ARCREDITPAYMENT", "ACCRECCREDIT")
    note = books.api.get_credit_note(books.tenant, note.credit_note_id).credit_notes[0]
    assert (note.status, note.remaining_credit) == ("PAID", 0.0)
    [applied] = note.allocations
    assert applied.amount == 4.0 and applied.invoice.invoice_id == invoice.invoice_id


def test_pages_and_filters(books):
    ada, grace = books.contact(), books.contact("Grace Hopper")
    sent = [books.invoice(ada if number % 2 else grace, f"S-{number}") for number in range(25)]
    sent[3].status = "DRAFT"
    books.api.create_invoices(books.tenant, Invoices(invoices=sent))
    seen, page = [], 1
    while True:
        found = books.api.get_invoices(books.tenant, page=page, page_size=10)
        if not found.invoices:
            break
        assert (found.pagination.page, found.pagination.page_count) == (page, 3)
        assert found.pagination.item_count == 25
        assert all(one.line_items for one in found.invoices)
        seen += [one.invoice_number for one in found.invoices]
        page += 1
    assert sorted(seen) == sorted(f"S-{number}" for number in range(25))

    def numbers(**asked):
        found = books.api.get_invoices(books.tenant, **asked).invoices
        return sorted(one.invoice_number for one in found)

    assert numbers(invoice_numbers=["S-1", "S-2", "S-99"]) == ["S-1", "S-2"]
    assert numbers(statuses=["DRAFT"]) == ["S-3"]
    assert len(numbers(contact_i_ds=[ada.contact_id])) == 12
    assert numbers(where='Status=="DRAFT" AND Total>=20') == ["S-3"]
    assert numbers(where=f'Contact.ContactID==guid("{ada.contact_id}") && Total<1') == []
    assert len(numbers(search_term="s-1")) == 11
    assert len(numbers(created_by_my_app=True)) == 25
    assert numbers(if_modified_since=datetime.datetime(2000, 1, 1), statuses=["DRAFT"]) == ["S-3"]
    assert numbers(if_modified_since=datetime.datetime(2999, 1, 1)) == []
    unpaged = books.api.get_invoices(books.tenant, statuses=["DRAFT"]).invoices[0]
    assert unpaged.line_items == []
    with pytest.raises(HTTPStatusException) as refused:
        numbers(where="Status=~1")
    assert refused.value.status == 400 and b"QueryParseException" in refused.value.body
    # The document says nothing of refused reads.
    books.answers.pop()
    found = books.api.get_contacts(books.tenant, where='Name=="ada byron"').contacts
    assert [one.contact_id for one in found] == [ada.contact_id]
    books.api.get_contacts(books.tenant, summary_only=True, page=1)
    books.api.get_invoices(books.tenant, summary_only=True, page=1)


def test_some_are_good_and_some_are_not(books):
    ada = books.contact()
    good = books.invoice(ada, "S-1")
    bad = books.invoice(ada, "S-2", line_items=[LineItem(description="x", account_code="999", unit_amount=1.0)])
    with pytest.raises(HTTPStatusException) as refused:
        books.api.create_invoices(books.tenant, Invoices(invoices=[good, bad]))
    assert refused.value.status == 400
    told = json.loads(refused.value.body)
    assert (told["ErrorNumber"], told["Type"]) == (10, "ValidationException")
    [element] = told["Elements"]
    assert element["ValidationErrors"] == [
        {"Message": "Account code '999' is not a valid code for this document."}
    ]
    # The good one was saved all the same.
    with pytest.raises(HTTPStatusException, match="Invoice # must be unique"):
        books.api.create_invoices(books.tenant, Invoices(invoices=[good]))
    sent = Invoices(invoices=[books.invoice(ada, "S-3"), bad])
    made = books.api.create_invoices(books.tenant, sent, summarize_errors=False).invoices
    assert [one.status_attribute_string for one in made] == ["OK", "ERROR"]
    assert made[1].has_errors and "999" in made[1].validation_errors[0].message
    changed = books.invoice(ada, "S-1", reference="again")
    again = books.api.update_or_create_invoices(books.tenant, Invoices(invoices=[changed])).invoices[0]
    assert again.reference == "again"


def transfer_body(source: str, target: str) -> dict:
    return {"FromBankAccount": {"Code": source}, "ToBankAccount": {"Code": target}}


def test_settings_and_everything_else(books):
    organisation = books.api.get_organisations(books.tenant).organisations[0]
    assert (organisation.base_currency.value, organisation.version) == ("GBP", "UK")
    actions = books.api.get_organisation_actions(books.tenant).actions
    assert {"CreateApprovedInvoice", "UseMulticurrency"} <= {one.name for one in actions}
    accounts = books.api.get_accounts(books.tenant, where='Type=="BANK"').accounts
    assert [one.code for one in accounts] == ["090"]
    books.api.get_account(books.tenant, accounts[0].account_id)
    new = Account(code="201", name="Shop sales", type=AccountType.REVENUE, tax_type="OUTPUT2")
    made = books.api.create_account(books.tenant, new).accounts[0]
    assert made._class == "REVENUE"
    rates = {one.tax_type: one for one in books.api.get_tax_rates(books.tenant).tax_rates}
    assert rates["OUTPUT2"].effective_rate == 20.0
    currencies = books.api.get_currencies(books.tenant).currencies
    assert {one.code for one in currencies} == {CurrencyCode.GBP, CurrencyCode.EUR}
    euros = books.invoice(books.contact(), "S-1", currency_code=CurrencyCode.EUR)
    made = books.api.create_invoices(books.tenant, Invoices(invoices=[euros])).invoices[0]
    assert made.currency_rate != 1.0
    taken = {
        "Type": "RECEIVE",
        "Contact": {"ContactID": made.contact.contact_id},
        "BankAccount": {"Code": "090"},
        "LineItems": [{"Description": "Tip", "Quantity": 1, "UnitAmount": 2, "AccountCode": "260"}],
    }
    answer = books.raw("PUT", "/BankTransactions", {"BankTransactions": [taken]})
    assert answer.json()["BankTransactions"][0]["Total"] == 2.4
    found = books.api.get_bank_transactions(books.tenant, page=1).bank_transactions
    assert found[0].bank_account.code == "090"
    bank = {"Code": "091", "Name": "Current", "Type": "BANK", "BankAccountNumber": "1"}
    assert books.raw("PUT", "/Accounts", bank).status_code == 200
    transfer = BankTransfer(
        from_bank_account=Account(code="090"), to_bank_account=Account(code="091"),
        amount=97.5, date=DAY, reference="payout 1",
    )  # fmt: skip
    moved = books.api.create_bank_transfer(books.tenant, BankTransfers(bank_transfers=[transfer]))
    [moved] = moved.bank_transfers
    assert (moved.amount, moved.reference, moved.to_bank_account.code) == (97.5, "payout 1", "091")
    assert books.api.get_bank_transfer(books.tenant, moved.bank_transfer_id).bank_transfers
    ends = books.api.get_bank_transactions(books.tenant, page=1).bank_transactions
    assert {one.type for one in ends} == {"RECEIVE", "SPEND-TRANSFER", "RECEIVE-TRANSFER"}
    same = {**transfer_body("090", "090"), "Amount": 1}
    assert books.raw("PUT", "/BankTransfers", {"BankTransfers": [same]}).status_code == 400
    gone = {"BankTransferID": moved.bank_transfer_id, "Status": "DELETED"}
    answer = books.raw("POST", "/BankTransfers", {"BankTransfers": [gone]})
    assert answer.json()["BankTransfers"][0]["Status"] == "DELETED"
    assert books.api.get_bank_transfers(books.tenant).bank_transfers == []
    items = Items(items=[Item(code="CUP")])
    cup = books.api.create_items(books.tenant, items).items[0]
    books.api.get_item(books.tenant, "CUP")
    books.api.get_items(books.tenant)
    books.api.delete_item(books.tenant, cup.item_id)
    assert books.raw("GET", f"/Items/{cup.item_id}").status_code == 404
    books.api.get_payments(books.tenant, page=1)
    books.api.get_credit_notes(books.tenant, page=1)


def test_keys_limits_and_refusals(books):
    ada = books.contact()
    sent = Invoices(invoices=[books.invoice(ada, "S-1")])
    first = books.api.create_invoices(books.tenant, sent, idempotency_key="k-1").invoices[0]
    again = books.api.create_invoices(books.tenant, sent, idempotency_key="k-1").invoices[0]
    assert first.invoice_id == again.invoice_id
    with pytest.raises(HTTPStatusException, match="different request"):
        other = Invoices(invoices=[books.invoice(ada, "S-2")])
        books.api.create_invoices(books.tenant, other, idempotency_key="k-1")
    # Problems with a key have no schema of their own.
    books.answers.pop()
    unknown = books.raw("PUT", "/Contacts", {"Contacts": [{"Name": "A", "Nickname": "B"}]})
    assert (unknown.status_code, unknown.json()["ErrorNumber"]) == (400, 14)
    missing = books.raw("GET", f"/Invoices/{uuid.uuid4()}")
    assert missing.status_code == 404 and "cannot be found" in missing.text
    elsewhere = books.raw("GET", "/Organisation", headers={"Xero-Tenant-Id": str(uuid.uuid4())})
    assert (elsewhere.status_code, elsewhere.json()["Detail"]) == (403, "AuthenticationUnsuccessful")
    books.vendor.control("limits", {"enabled": True, "per_minute": 2})
    try:
        allowed = books.raw("GET", "/Organisation")
        assert allowed.headers["X-MinLimit-Remaining"] == "1"
        assert books.raw("GET", "/Organisation").status_code == 200
        late = books.raw("GET", "/Organisation")
        assert (late.status_code, late.headers["X-Rate-Limit-Problem"]) == (429, "minute")
        assert 0 < int(late.headers["Retry-After"]) <= 60
    finally:
        books.vendor.control("limits", {})


class Receiver(http.server.BaseHTTPRequestHandler):
    """An address that checks signatures as the vendor documents them."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        digest = hmac.new(self.server.key, body, hashlib.sha256).digest()
        good = hmac.compare_digest(
            base64.b64encode(digest).decode(), self.headers["x-xero-signature"]
        )
        self.server.got.put((good, body))
        self.send_response(200 if good else 401)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.key, server.got = b"the-signing-key", queue.Queue()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_webhooks(books, receiver):
    url = f"http://127.0.0.1:{receiver.server_port}/"
    key = receiver.key.decode()
    books.vendor.control("webhooks", {"url": url, "key": key})
    try:
        books.vendor.control("webhooks/handshake", {})
        tests = [receiver.got.get(timeout=10) for _ in range(4)]
        assert sorted(good for good, _ in tests) == [False, False, True, True]
        assert all(json.loads(body)["events"] == [] for _, body in tests)
        ada = books.contact()
        good, body = receiver.got.get(timeout=10)
        [event] = json.loads(body)["events"]
        assert good and (event["eventCategory"], event["eventType"]) == ("CONTACT", "CREATE")
        assert (event["resourceId"], event["tenantId"]) == (ada.contact_id, books.tenant)
        # Blanks after some of the colons: what was parsed and written again has another digest.
        assert json.dumps(json.loads(body), separators=(",", ":")).encode() != body
    finally:
        books.vendor.control("webhooks", {})
    if (FOLDER / "xero-webhooks.yaml").exists():
        shapes = yaml.safe_load((FOLDER / "xero-webhooks.yaml").read_text())
        root = {"$ref": "#/components/schemas/WebhookEvent", "components": shapes["components"]}
        jsonschema.Draft202012Validator(root).validate(json.loads(body))


def test_the_package_for_javascript(books):
    asked = {
        "base": books.vendor.base,
        "tenant": books.tenant,
        "token": books.xero.token["access_token"],
    }
    done = subprocess.run(
        ["node", Path(__file__).parent / "xero.mjs"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    midnight = f"{DAY}T00:00:00.000Z"
    assert told == {
        "paid": ["PAID", 20, 3.33, 0, midnight, midnight],
        "refund": "ARCREDITPAYMENT",
        "page": [1, 1],
        "refusal": "Invoice # must be unique.",
    }
    # The fixture holds what the other library was told against the document.
    assert books.api.get_invoice(books.tenant, "S-1").invoices[0].status == "PAID"
