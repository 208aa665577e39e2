"""The stand-in through the vendor's OAuth client and the SDK that most Python callers use."""

from datetime import datetime, timedelta, timezone

import pytest
import requests
from conftest import REDIRECT, decide
from intuitlib.exceptions import AuthClientError
from quickbooks import exceptions
from quickbooks.batch import batch_create
from quickbooks.cdc import change_data_capture
from quickbooks.objects.account import Account
from quickbooks.objects.base import Ref
from quickbooks.objects.company_info import CompanyInfo
from quickbooks.objects.creditmemo import CreditMemo
from quickbooks.objects.customer import Customer
from quickbooks.objects.detailline import (
    DiscountLine,
    DiscountLineDetail,
    SalesItemLine,
    SalesItemLineDetail,
)
from quickbooks.objects.invoice import Invoice
from quickbooks.objects.item import Item
from quickbooks.objects.journalentry import (
    JournalEntry,
    JournalEntryLine,
    JournalEntryLineDetail,
)
from quickbooks.objects.payment import Payment, PaymentLine
from quickbooks.objects.preferences import Preferences
from quickbooks.objects.refundreceipt import RefundReceipt
from quickbooks.objects.salesreceipt import SalesReceipt
from quickbooks.objects.tax import TxnTaxDetail
from quickbooks.objects.vendor import Vendor


def ref(value) -> Ref:
    made = Ref()
    made.value = str(value)
    return made


def account(client, subtype: str) -> Account:
    return Account.filter(AccountSubType=subtype, qb=client)[0]


def customer(client, name="Ada Byron", currency=None) -> Customer:
    made = Customer()
    made.DisplayName = name
    if currency:
        made.CurrencyRef = ref(currency)
    return made.save(qb=client)


def item(client, name="MUG-1") -> Item:
    made = Item()
    made.Name = made.Sku = name
    made.Type = "NonInventory"
    made.IncomeAccountRef = account(client, "SalesOfProductIncome").to_ref()
    return made.save(qb=client)


def sales_line(thing, quantity, price, amount, tax="NON") -> SalesItemLine:
    line = SalesItemLine()
    line.Amount = amount
    line.SalesItemLineDetail = SalesItemLineDetail()
    line.SalesItemLineDetail.ItemRef = ref(thing)
    line.SalesItemLineDetail.Qty = quantity
    line.SalesItemLineDetail.UnitPrice = price
    line.SalesItemLineDetail.TaxCodeRef = ref(tax)
    return line


def discount_line(amount) -> DiscountLine:
    line = DiscountLine()
    line.Amount = amount
    line.DiscountLineDetail = DiscountLineDetail()
    line.DiscountLineDetail.PercentBased = False
    return line


def receipt(client, buyer, thing, number="1001") -> SalesReceipt:
    made = SalesReceipt()
    made.DocNumber = number
    made.CustomerRef = ref(buyer.Id)
    made.CurrencyRef = ref("USD")
    made.Line = [
        sales_line(thing.Id, 2, 10.29, 20.58, "TAX"),
        sales_line("SHIPPING_ITEM_ID", 1, 4.5, 4.5),
        discount_line(1.08),
    ]
    made.TxnTaxDetail = TxnTaxDetail()
    made.TxnTaxDetail.TotalTax = 1.66
    return made.save(qb=client)


def refund(client, buyer, thing) -> RefundReceipt:
    made = RefundReceipt()
    made.CustomerRef = ref(buyer.Id)
    made.CurrencyRef = ref("USD")
    made.DepositToAccountRef = account(client, "Checking").to_ref()
    made.Line = [sales_line(thing.Id, 1, 10.29, 10.29)]
    return made.save(qb=client)


def entry_line(account, side, amount) -> JournalEntryLine:
    line = JournalEntryLine()
    line.Amount = amount
    line.JournalEntryLineDetail = JournalEntryLineDetail()
    line.JournalEntryLineDetail.PostingType = side
    line.JournalEntryLineDetail.AccountRef = account.to_ref()
    return line


def journal_entry(client, number="po-1", fees=3) -> JournalEntry:
    made = JournalEntry()
    made.DocNumber = number
    made.PrivateNote = "Crossdock payout po-1"
    made.TxnDate = "2026-05-29"
    made.Line = [
        entry_line(account(client, "Checking"), "Debit", 97),
        entry_line(account(client, "OtherMiscellaneousServiceCost"), "Debit", fees),
        entry_line(account(client, "UndepositedFunds"), "Credit", 100),
    ]
    return made


# OAuth


def test_connects_through_the_consent_page(auth, realm):
    back = decide(auth, realm, "approve", state="csrf-7")
    assert back["state"] == "csrf-7"
    assert back["realmId"] == realm
    auth.get_bearer_token(back["code"], realm_id=realm)
    assert auth.access_token and auth.refresh_token
    assert auth.expires_in == 3600
    assert auth.x_refresh_token_expires_in == 8726400


def test_a_denied_consent_carries_no_code(auth, realm):
    assert decide(auth, realm, "deny") == {"error": "access_denied", "state": "st-1"}


def test_a_code_is_good_once(auth, realm):
    back = decide(auth, realm, "approve")
    auth.get_bearer_token(back["code"])
    with pytest.raises(AuthClientError) as refused:
        auth.get_bearer_token(back["code"])
    assert refused.value.status_code == 400
    assert b"invalid_grant" in refused.value.content
    assert refused.value.intuit_tid


def test_an_unregistered_redirect_gets_a_page_and_no_redirect(auth):
    auth.redirect_uri = f"{REDIRECT}/other"
    page = requests.get(auth.get_authorization_url([]), allow_redirects=False, timeout=10)
    assert page.status_code == 400
    assert "location" not in page.headers


def test_a_wrong_secret_is_an_invalid_client(auth, realm):
    back = decide(auth, realm, "approve")
    auth.client_secret = "wrong"
    with pytest.raises(AuthClientError) as refused:
        auth.get_bearer_token(back["code"])
    assert refused.value.status_code == 401
    assert b"invalid_client" in refused.value.content


def test_refresh_keeps_the_value_for_a_day(connected):
    refresh, access = connected.refresh_token, connected.access_token
    connected.refresh()
    assert connected.refresh_token == refresh
    assert connected.access_token != access


def test_a_rotated_refresh_token_is_superseded(connected, app, control):
    control("clients", {**app, "redirect_uris": [REDIRECT], "rotate_each_refresh": True})
    first = connected.refresh_token
    connected.refresh()
    assert connected.refresh_token != first
    with pytest.raises(AuthClientError) as refused:
        connected.refresh(refresh_token=first)
    assert b"invalid_grant" in refused.value.content
    connected.refresh()


def test_revoking_ends_the_connection(client, connected):
    assert connected.revoke(token=connected.refresh_token)
    with pytest.raises(AuthClientError):
        connected.refresh()
    with pytest.raises(exceptions.AuthorizationException):
        Customer.all(qb=client)


def test_an_expired_access_token_is_refreshed_and_works_again(client, connected, control, realm):
    control("expire_access_tokens", {"realm": realm})
    with pytest.raises(exceptions.AuthorizationException) as refused:
        Customer.all(qb=client)
    assert "003200" in refused.value.detail
    connected.refresh()
    client.session.access_token = connected.access_token
    assert Customer.all(qb=client) == []


# The books


def test_company_and_preferences(client, realm):
    assert CompanyInfo.get(int(realm), qb=client).Country == "US"
    preferences = Preferences.get(qb=client)
    assert preferences.SalesFormsPrefs.CustomTxnNumbers is True
    assert preferences.TaxPrefs.UsingSalesTax is True
    assert preferences.CurrencyPrefs.MultiCurrencyEnabled is True
    assert preferences.CurrencyPrefs.HomeCurrency.value == "USD"


def test_a_sale_and_its_refund(client, control, realm):
    buyer, thing = customer(client), item(client)
    sold = receipt(client, buyer, thing)
    assert sold.TotalAmt == 25.66
    assert sold.Balance == 0
    assert sold.SyncToken == "0"
    assert sold.DepositToAccountRef.name == "Undeposited Funds"
    back = refund(client, buyer, thing)
    assert back.TotalAmt == 10.29
    books = control("books", realm=realm)
    assert books["sums"] == {"SalesReceipt": {"USD": 2566}, "RefundReceipt": {"USD": 1029}}
    assert (books["receipts"], books["refunds"], books["duplicates"]) == (1, 1, [])


def test_reading_back_what_was_saved(client):
    buyer, thing = customer(client), item(client)
    sold = receipt(client, buyer, thing)
    read = SalesReceipt.get(sold.Id, qb=client)
    assert read.to_json() == sold.to_json()
    found = SalesReceipt.filter(DocNumber="1001", qb=client)
    assert [one.Id for one in found] == [sold.Id]
    assert SalesReceipt.count("DocNumber = '1001'", qb=client) == 1


def test_querying_names_with_quotes_and_pages(client):
    for name in ["O'Neil", "Zoë", "Ada", "Bob"]:
        customer(client, name)
    assert [one.DisplayName for one in Customer.filter(DisplayName="O'Neil", qb=client)] == [
        "O'Neil"
    ]
    assert len(Customer.choose(["O'Neil", "Zoë", "nobody"], field="DisplayName", qb=client)) == 2
    page = Customer.all(order_by="DisplayName DESC", start_position=2, max_results=2, qb=client)
    assert [one.DisplayName for one in page] == ["O'Neil", "Bob"]
    liked = Customer.where("DisplayName LIKE 'O%'", qb=client)
    assert len(liked) == 1


def test_updating_and_a_stale_update(client):
    made = customer(client)
    stale = Customer.get(made.Id, qb=client)
    made.GivenName = "Augusta"
    made = made.save(qb=client)
    assert made.SyncToken == "1"
    stale.GivenName = "Ada"
    with pytest.raises(exceptions.QuickbooksException) as refused:
        stale.save(qb=client)
    assert refused.value.error_code == 5010


def test_names_are_unique_across_customers_and_vendors(client):
    vendor = Vendor()
    vendor.DisplayName = "Acme"
    vendor.save(qb=client)
    with pytest.raises(exceptions.QuickbooksException) as refused:
        customer(client, "ACME")
    assert refused.value.error_code == 6240


def test_a_missing_object(client):
    with pytest.raises(exceptions.ObjectNotFoundException):
        Customer.get(999999, qb=client)


def test_amounts_must_agree(client):
    buyer, thing = customer(client), item(client)
    wrong = SalesReceipt()
    wrong.CustomerRef = ref(buyer.Id)
    wrong.CurrencyRef = ref("USD")
    wrong.Line = [sales_line(thing.Id, 2, 10.29, 20.57)]
    with pytest.raises(exceptions.QuickbooksException) as refused:
        wrong.save(qb=client)
    assert refused.value.error_code == 6070


def test_a_request_id_counts_in_the_query_only(client):
    made = Customer()
    made.DisplayName = "Once"
    first = client.create_object("Customer", made.to_json(), request_id="once-1")
    again = client.create_object("Customer", made.to_json(), request_id="once-1")
    assert first == again
    headers = {"Authorization": f"Bearer {client.session.access_token}", "Request-Id": "once-1"}
    answer = requests.post(
        f"{client.api_url}/company/{client.company_id}/customer",
        data=made.to_json(),
        headers=headers,
        timeout=10,
    )
    assert answer.json()["Fault"]["Error"][0]["code"] == "6240"


def test_a_batch_takes_the_good_and_names_the_bad(client):
    customers = []
    for name in ["One", "Two", "one"]:
        made = Customer()
        made.DisplayName = name
        customers.append(made)
    result = batch_create(customers, qb=client)
    assert len(result.successes) == 2
    [fault] = result.faults
    assert fault.Error[0].code == "6240"


def test_changes_since(client):
    since = datetime.now(timezone.utc) - timedelta(minutes=5)
    buyer, thing = customer(client), item(client)
    sold = receipt(client, buyer, thing)
    sold.delete(qb=client)
    kept = receipt(client, buyer, thing, "1002")
    changed = change_data_capture([Customer, SalesReceipt], since.isoformat(), qb=client)
    assert [one.DisplayName for one in changed.Customer] == ["Ada Byron"]
    seen = {one.Id: getattr(one, "status", None) for one in changed.SalesReceipt}
    assert seen[sold.Id] == "Deleted"
    assert kept.Id in seen


def test_a_journal_entry_is_made_changed_and_deleted(client):
    with pytest.raises(exceptions.QuickbooksException) as unbalanced:
        journal_entry(client, fees=4).save(qb=client)
    assert unbalanced.value.error_code == 6000
    made = journal_entry(client).save(qb=client)
    assert [line.JournalEntryLineDetail.PostingType for line in made.Line] == ["Debit", "Debit", "Credit"]
    made.Line[0].Amount, made.Line[1].Amount = 96, 4
    made = made.save(qb=client)
    assert made.SyncToken == "1"
    found = JournalEntry.filter(DocNumber="po-1", qb=client)
    assert [one.Id for one in found] == [made.Id]
    result = batch_create([journal_entry(client, "po-2"), journal_entry(client, "po-3", 4)], qb=client)
    assert (len(result.successes), len(result.faults)) == (1, 1)
    since = datetime.now(timezone.utc) - timedelta(minutes=5)
    made.delete(qb=client)
    changed = change_data_capture([JournalEntry], since.isoformat(), qb=client)
    seen = {one.Id: getattr(one, "status", None) for one in changed.JournalEntry}
    assert seen[made.Id] == "Deleted" and len(seen) == 2


def test_voiding_a_receipt(client):
    buyer, thing = customer(client), item(client)
    sold = receipt(client, buyer, thing)
    sold.void(qb=client)
    assert SalesReceipt.get(sold.Id, qb=client).TotalAmt == 0


def test_an_invoice_is_paid_with_a_payment_and_a_credit(client):
    buyer, thing = customer(client), item(client)
    bill = Invoice()
    bill.CustomerRef = ref(buyer.Id)
    bill.Line = [sales_line(thing.Id, 1, 30, 30)]
    bill = bill.save(qb=client)
    assert bill.Balance == 30
    credit = CreditMemo()
    credit.CustomerRef = ref(buyer.Id)
    credit.Line = [sales_line(thing.Id, 1, 10, 10)]
    credit = credit.save(qb=client)
    paid = Payment()
    paid.CustomerRef = ref(buyer.Id)
    paid.TotalAmt = 20
    for document, amount in [(bill, 30), (credit, 10)]:
        line = PaymentLine()
        line.Amount = amount
        line.LinkedTxn = [document.to_linked_txn()]
        paid.Line.append(line)
    paid = paid.save(qb=client)
    assert paid.UnappliedAmt == 0
    assert Invoice.get(bill.Id, qb=client).Balance == 0
    assert CreditMemo.get(credit.Id, qb=client).RemainingCredit == 0
    assert Customer.get(buyer.Id, qb=client).Balance == 0


def test_a_foreign_customer_is_billed_in_their_currency(client):
    buyer, thing = customer(client, "Ada (EUR)", currency="EUR"), item(client)
    sold = SalesReceipt()
    sold.CustomerRef = ref(buyer.Id)
    sold.CurrencyRef = ref("USD")
    sold.Line = [sales_line(thing.Id, 1, 10, 10)]
    with pytest.raises(exceptions.QuickbooksException) as refused:
        sold.save(qb=client)
    assert refused.value.error_code == 6000
    sold.CurrencyRef = ref("EUR")
    sold.ExchangeRate = None
    sold = sold.save(qb=client)
    assert sold.ExchangeRate == 1.1
    assert sold.HomeTotalAmt == 11


# Faults and limits


def test_limits_answer_in_xml(client, control):
    control("limits", {"enabled": True, "per_second": 1, "per_minute": 500})
    try:
        with pytest.raises(exceptions.QuickbooksException) as refused:
            for _ in range(5):
                Customer.all(qb=client)
        assert "errorCode=003001" in refused.value.message
    finally:
        control("limits", {"enabled": False})


def test_a_lost_answer_is_found_again_with_its_request_id(client, control, realm):
    rule = {"match": {"path_contains": f"{realm}/customer"}, "kind": "reset", "times": 1}
    control("faults", [rule])
    made = Customer()
    made.DisplayName = "Lost"
    with pytest.raises(requests.ConnectionError):
        client.create_object("Customer", made.to_json(), request_id="lost-1")
    answer = client.create_object("Customer", made.to_json(), request_id="lost-1")
    assert answer["Customer"]["DisplayName"] == "Lost"
    assert len(control("entities/Customer", realm=realm)) == 1
    assert control("faults") == []


def test_a_body_that_breaks_off(client, control, realm):
    rule = {"match": {"path_contains": f"{realm}/query"}, "kind": "truncated_body"}
    control("faults", [rule])
    with pytest.raises(requests.RequestException):
        Customer.all(qb=client)
    assert Customer.all(qb=client) == []
