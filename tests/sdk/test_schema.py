"""The stand-in's bodies against the vendor's published schema.

The schema files are not part of this repository; `CROSSDOCK_SPECS` names the folder that holds
`quickbooks/`, which is `../shared/specs` beside the checkout by default.
"""

import json
import os
from pathlib import Path

import pytest
import requests
from conftest import ROOT
from schema import Schema
from test_quickbooks import customer, item, journal_entry, receipt, ref, refund, sales_line
from quickbooks.objects.creditmemo import CreditMemo
from quickbooks.objects.invoice import Invoice
from quickbooks.objects.payment import Payment, PaymentLine
from quickbooks.objects.vendor import Vendor

FOLDER = Path(os.environ.get("CROSSDOCK_SPECS", ROOT.parent / "shared/specs")) / "quickbooks"
ENTITIES = [
    "Customer", "Vendor", "Employee", "Item", "Account", "PaymentMethod", "TaxCode", "TaxRate",
    "SalesReceipt", "RefundReceipt", "Invoice", "CreditMemo", "Payment", "JournalEntry",
    "CompanyInfo", "Preferences",
]  # fmt: skip


@pytest.fixture(scope="module")
def schema():
    if not (FOLDER / "Finance.xsd").exists():
        pytest.skip(f"the vendor's schema is not at {FOLDER}; set CROSSDOCK_SPECS to its parent")
    return Schema.load(FOLDER)


def check(schema, control, realm, expected):
    seen = {}
    for entity in ENTITIES:
        bodies = control(f"entities/{entity}", realm=realm)
        seen[entity] = len(bodies)
        for body in bodies:
            assert schema.validate(entity, body) == [], body
    assert {name for name, count in seen.items() if count} >= set(expected)


def test_every_entity_that_the_stand_in_emits(schema, client, control, realm):
    buyer, thing = customer(client), item(client)
    customer(client, "Ada (EUR)", currency="EUR")
    vendor = Vendor()
    vendor.DisplayName = "Acme"
    vendor.save(qb=client)
    receipt(client, buyer, thing)
    refund(client, buyer, thing)
    untaxed = receipt(client, buyer, thing, "1002")
    untaxed.void(qb=client)
    bill = Invoice()
    bill.CustomerRef = ref(buyer.Id)
    bill.Line = [sales_line(thing.Id, 1, 30, 30, "TAX")]
    bill.save(qb=client)
    credit = CreditMemo()
    credit.CustomerRef = ref(buyer.Id)
    credit.Line = [sales_line(thing.Id, 1, 10, 10)]
    credit.save(qb=client)
    paid = Payment()
    paid.CustomerRef = ref(buyer.Id)
    paid.TotalAmt = 20
    line = PaymentLine()
    line.Amount = 20
    line.LinkedTxn = [bill.to_linked_txn()]
    paid.Line = [line]
    paid.save(qb=client)
    journal_entry(client).save(qb=client)
    check(schema, control, realm, set(ENTITIES) - {"Employee"})


def test_a_company_outside_the_united_states(schema, control):
    realm = "4620816365000000044"
    control("realms", {"realm": realm, "country": "GB", "home_currency": "GBP"})
    check(schema, control, realm, ["Account", "TaxCode", "TaxRate", "CompanyInfo"])


@pytest.mark.parametrize(
    ("body", "fragment"),
    [
        ({"DisplayName": "Ada", "Nickname": "A"}, "Customer.Nickname: Customer has no such element"),
        ({"DisplayName": 7}, "Customer.DisplayName: 7 is not a string"),
        ({"Balance": "7"}, "Customer.Balance: '7' is not a JSON number"),
        ({"Active": "true"}, "Customer.Active: 'true' is not a boolean"),
        ({"PrimaryEmailAddr": "a@b.co"}, "must be an object"),
        ({"PrimaryEmailAddr": [{"Address": "a@b.co"}]}, "must not be a list"),
        ({"OtherAddr": {"Line1": "x"}}, "must be a list"),
        ({"OpenBalanceDate": "2026-02-30"}, "is not a date"),
        ({"CurrencyRef": {"value": "USD", "code": "x"}}, "CurrencyRef.code"),
    ],
)
def test_the_validator_finds_what_is_wrong(schema, body, fragment):
    assert any(fragment in problem for problem in schema.validate("Customer", body))


def test_request_bodies(schema, client, control, realm):
    """What callers sent, as the stand-in remembers it: the reference's minimal bodies here, and
    whatever the integration under test wrote to the default company of a shared stand-in."""
    headers = {"Authorization": f"Bearer {client.session.access_token}"}

    def post(entity, body):
        answer = requests.post(
            f"{client.api_url}/company/{realm}/{entity.lower()}",
            json=body,
            headers=headers,
            timeout=10,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()[entity]

    buyer = post(
        "Customer",
        {"DisplayName": "Ada Byron", "PrimaryEmailAddr": {"Address": "ada@example.com"}},
    )
    thing = item(client)
    before = len(control("writes", realm=realm))
    detail = {
        "ItemRef": {"value": thing.Id},
        "Qty": 2,
        "UnitPrice": 10.0,
        "TaxCodeRef": {"value": "TAX"},
    }
    sale = {"Amount": 20.0, "DetailType": "SalesItemLineDetail", "SalesItemLineDetail": detail}
    parties = {"CustomerRef": {"value": buyer["Id"]}, "CurrencyRef": {"value": "USD"}}
    post(
        "SalesReceipt",
        {
            **parties,
            "TxnDate": "2026-05-29",
            "DocNumber": "S-1001",
            "PrivateNote": "order 1001",
            "Line": [sale],
            "TxnTaxDetail": {"TotalTax": 1.7},
        },
    )
    bill = post("Invoice", {**parties, "Line": [sale], "TxnTaxDetail": {"TotalTax": 1.7}})
    link = {"TxnId": bill["Id"], "TxnType": "Invoice"}
    post(
        "Payment",
        {
            "CustomerRef": parties["CustomerRef"],
            "TotalAmt": 21.7,
            "Line": [{"Amount": 21.7, "LinkedTxn": [link]}],
        },
    )
    account = control("entities/Account", realm=realm)[5]
    post("RefundReceipt", {**parties, "DepositToAccountRef": {"value": account["Id"]}, "Line": [sale]})
    post("Customer", {"Id": buyer["Id"], "SyncToken": "0", "sparse": True, "Active": False})
    writes = control("writes", realm=realm)[before:]
    assert len(writes) == 5
    for write in [*writes, *control("writes")]:
        assert schema.validate(write["entity"], write["body"]) == [], write


def test_the_compact_schema_of_the_stand_in_is_current(schema):
    carried = ROOT / "tests/src/standins/quickbooks/schema.json"
    assert json.loads(carried.read_text()) == schema.compact()
