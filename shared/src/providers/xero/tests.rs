//! What becomes of orders and refunds, by example and by property.

use super::map;
use super::settings::Settings;
use crate::model::order::{Order, Payment, Refund};
use crate::model::payout::Payout;
use crate::providers::Fault;
use crate::providers::accounting::{DependencyKind, Document, References};
use crate::providers::accounts::Role;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// A British organisation that knows euros and dinars.
fn settings() -> Settings {
    settings_of("ACCRUALS")
}

/// The same with this basis of its sales tax.
fn settings_of(basis: &str) -> Settings {
    let organisation =
        json!({ "Organisations": [{ "BaseCurrency": "GBP", "SalesTaxBasis": basis }] });
    let accounts = json!({ "Accounts": [
        { "AccountID": "o", "Code": "260", "Type": "REVENUE", "Status": "ACTIVE", "TaxType": "OUTPUT2" },
        { "AccountID": "s", "Code": "200", "Type": "SALES", "Status": "ACTIVE", "TaxType": "OUTPUT2" },
        { "AccountID": "x", "Code": "100", "Type": "SALES", "Status": "ARCHIVED" },
        { "AccountID": "d", "Code": "010", "Type": "CURRLIAB", "Status": "ACTIVE", "EnablePaymentsToAccount": true },
        { "AccountID": "b", "Code": "090", "Type": "BANK", "Status": "ACTIVE", "CurrencyCode": "GBP" },
        { "AccountID": "e", "Type": "BANK", "Status": "ACTIVE", "CurrencyCode": "EUR" },
        { "AccountID": "t", "Code": "850", "Name": "Staff tips", "Type": "CURRLIAB", "Status": "ACTIVE" },
        { "AccountID": "g", "Code": "851", "Name": "Gift cards", "Type": "CURRLIAB", "Status": "ACTIVE",
          "EnablePaymentsToAccount": true },
        { "AccountID": "v", "Code": "852", "Name": "Gift vouchers", "Type": "CURRLIAB", "Status": "ACTIVE" },
        { "AccountID": "c", "Code": "425", "Name": "Carriage", "Type": "REVENUE", "Status": "ACTIVE" },
    ] });
    let rate = |kind: &str, percent: f64, sales: bool| {
        json!({
            "TaxType": kind, "EffectiveRate": percent, "CanApplyToRevenue": sales, "Status": "ACTIVE",
        })
    };
    let rates = json!({ "TaxRates": [
        rate("CAPEXOUTPUT2", 20.0, true), rate("INPUT2", 20.0, false), rate("OUTPUT2", 20.0, true),
        rate("RROUTPUT", 5.0, true), rate("ZERORATEDOUTPUT", 0.0, true), rate("NONE", 0.0, true),
    ] });
    let currencies = json!({ "Currencies": [{ "Code": "EUR" }, { "Code": "KWD" }] });
    Settings::read(&organisation, &accounts, &rates, &currencies).unwrap()
}

fn order(change: Value) -> Order {
    let mut order = json!({
        "id": "1", "version": 1, "number": "S-1", "currency": "GBP",
        "placed_at": "2026-01-05T10:00:00Z", "customer": null,
        "lines": [line("2", "5.00", 1000, true)],
        "total": money(1000),
    });
    for (name, value) in change.as_object().unwrap() {
        order[name] = value.clone();
    }
    serde_json::from_value(order).unwrap()
}

fn refund(change: Value) -> Refund {
    let mut refund = json!({
        "id": "r1", "order_id": "1", "amount": money(600), "refunded_at": "2026-01-06T10:00:00Z",
    });
    for (name, value) in change.as_object().unwrap() {
        refund[name] = value.clone();
    }
    serde_json::from_value(refund).unwrap()
}

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "GBP" })
}

fn line(quantity: &str, price: &str, total: i64, taxable: bool) -> Value {
    json!({
        "sku": "mug", "name": "Mug", "quantity": quantity, "unit_price": price,
        "total": money(total), "taxable": taxable,
    })
}

fn tax(rate: &str, amount: i64) -> Value {
    json!({ "name": "VAT", "rate": rate, "amount": money(amount) })
}

fn body(document: Document) -> Result<Value, Fault> {
    body_with(document, json!({}))
}

/// The same with accounts that the merchant chose.
fn body_with(document: Document, accounts: Value) -> Result<Value, Fault> {
    let key = (DependencyKind::Customer, "guest".to_owned());
    let references = References::from([(key, "contact".to_owned())]);
    let mut settings = serde_json::to_value(settings()).unwrap();
    settings["choices"] = json!({ "accounts": accounts, "guests": [] });
    let settings = Settings::of(&settings).unwrap();
    map::body(document, &references, Some("on"), &settings)
}

/// What Xero makes of a body by its published rules: line by line, the tax as it is given.
fn total(body: &Value) -> Decimal {
    let number = |value: &Value| value.to_string().parse::<Decimal>().unwrap();
    let lines = body["LineItems"].as_array().unwrap().iter();
    lines
        .map(|line| {
            let net = (number(&line["Quantity"]) * number(&line["UnitAmount"])).round_dp(2);
            match body["LineAmountTypes"] == "Exclusive" {
                true => net + number(&line["TaxAmount"]),
                false => net,
            }
        })
        .sum()
}

fn code(outcome: Result<Value, Fault>) -> String {
    match outcome {
        Err(Fault::Refused { code, .. }) => code,
        other => format!("{other:?}"),
    }
}

#[test]
fn defaults_are_read_from_the_organisation() {
    let settings = settings();
    for (role, expected) in [
        // Active, of sales, lowest code.
        (Role::Sales, Ok("200")),
        (Role::Shipping, Ok("200")),
        (Role::Discounts, Ok("200")),
        (Role::Tips, Ok("850")),
        // The other one takes no payments.
        (Role::GiftCards, Ok("851")),
    ] {
        assert_eq!(settings.code(role), expected, "{role:?}");
    }
    let percent = |text: &str| settings.tax_type(text.parse().unwrap());
    assert_eq!(
        percent("20"),
        Some("OUTPUT2"),
        "that of the account, and of sales"
    );
    assert_eq!(
        (percent("0"), percent("7.5")),
        (Some("ZERORATEDOUTPUT"), None)
    );
    for (currency, account) in [("GBP", "b"), ("EUR", "e"), ("KWD", "b")] {
        let account_of = settings.money_account(Role::Money, currency.parse().unwrap());
        assert_eq!(account_of, Ok(account), "{currency}");
    }
    assert!(settings.check("KWD".parse().unwrap()).is_ok());
    let off = settings.check("USD".parse().unwrap());
    assert_eq!(code(off.map(|()| Value::Null)), "currency_off");
}

#[test]
fn an_invoice_is_as_xero_takes_it() {
    let order = order(json!({
        "lines": [line("2", "5.00", 1000, true), line("1", "3.00", 300, false)],
        "discounts": [{ "name": "Sale", "amount": money(100) }],
        "shipping": { "name": "", "amount": money(250) },
        "taxes": [tax("20", 230)],
        "total": money(1680),
    }));
    let body = body(Document::Invoice(&order, 0)).unwrap();
    assert_eq!(
        body,
        json!({
            "Type": "ACCREC", "Status": "AUTHORISED", "LineAmountTypes": "Exclusive",
            "InvoiceNumber": "S-1", "Reference": "Crossdock order 1", "CurrencyCode": "GBP",
            "Contact": { "ContactID": "contact" }, "Date": "2026-01-05", "DueDate": "2026-01-05",
            "LineItems": [
                { "Description": "Mug", "Quantity": 2, "UnitAmount": 5, "AccountCode": "200",
                  "ItemCode": "MUG", "TaxType": "OUTPUT2", "TaxAmount": 2 },
                { "Description": "Mug", "Quantity": 1, "UnitAmount": 3, "AccountCode": "200",
                  "ItemCode": "MUG", "TaxType": "ZERORATEDOUTPUT", "TaxAmount": 0 },
                // 20 % of 1150 is 230: discount and shipping bear tax.
                { "Description": "Sale", "Quantity": 1, "UnitAmount": -1, "AccountCode": "200",
                  "TaxType": "OUTPUT2", "TaxAmount": -0.2 },
                { "Description": "Shipping", "Quantity": 1, "UnitAmount": 2.5, "AccountCode": "200",
                  "TaxType": "OUTPUT2", "TaxAmount": 0.5 },
            ],
        })
    );
    assert_eq!(total(&body), Decimal::new(1680, 2));
}

#[test]
fn what_bears_the_tax_is_what_makes_it() {
    // Ten pounds of goods, one of discount, two of shipping, at 20 %.
    for (amount, discount, shipping) in [
        (220, true, true),
        (180, true, false),
        (240, false, true),
        (200, false, false),
    ] {
        let order = order(json!({
            "discounts": [{ "name": "Sale", "amount": money(100) }],
            "shipping": { "name": "Post", "amount": money(200) },
            "taxes": [tax("20", amount)],
            "total": money(1100 + amount),
        }));
        let body = body(Document::Invoice(&order, 0)).unwrap();
        let bears = |index: usize| body["LineItems"][index]["TaxType"] == "OUTPUT2";
        assert_eq!((bears(1), bears(2)), (discount, shipping), "{amount}");
    }
}

#[test]
fn amounts_that_xero_would_round_are_said_in_words() {
    let order = order(json!({
        "lines": [line("0.75", "9.99", 749, true)], "total": money(749),
    }));
    let body = body(Document::Invoice(&order, 0)).unwrap();
    let line = &body["LineItems"][0];
    assert_eq!(
        (&line["Quantity"], &line["UnitAmount"]),
        (&json!(1), &json!(7.49))
    );
    assert_eq!(line["Description"], "Mug (0.75 × 9.99)");
}

/// A bookshop's return tells of its sales although they bear no tax; that of a shop that is not registered
/// does not exist.
#[test]
fn what_is_sold_without_tax_is_sold_at_no_rate() {
    let sold = order(json!({ "tip": money(150), "total": money(1150) }));
    let invoice = body(Document::Invoice(&sold, 0)).unwrap();
    let types = |body: &Value| {
        let lines = body["LineItems"].as_array().unwrap().iter();
        let types = lines.map(|line| line["TaxType"].as_str().unwrap_or_default().to_owned());
        (body["LineAmountTypes"].clone(), types.collect::<Vec<_>>())
    };
    let expected = ["ZERORATEDOUTPUT".to_owned(), "NONE".to_owned()];
    assert_eq!(types(&invoice), (json!("Exclusive"), expected.to_vec()));

    let percent = |settings: &Settings| settings.tax_type(Decimal::ZERO).map(str::to_owned);
    assert_eq!(percent(&settings_of("NONE")).as_deref(), Some("NONE"));
}

#[test]
fn what_cannot_be_right_is_parked_with_a_reason() {
    let taxed =
        |taxes: Value, sum: i64| order(json!({ "taxes": taxes, "total": money(1000 + sum) }));
    let unknown = taxed(json!([tax("7.5", 75)]), 75);
    assert_eq!(code(body(Document::Invoice(&unknown, 0))), "no_tax_rate");
    // Fifteen and five per cent of everything are twenty; of different lines they are not.
    let stacked = taxed(json!([tax("15", 150), tax("5", 50)]), 200);
    let body_of_it = body(Document::Invoice(&stacked, 0)).unwrap();
    assert_eq!(body_of_it["LineItems"][0]["TaxType"], "OUTPUT2");
    let apart = taxed(json!([tax("20", 120), tax("5", 20)]), 140);
    assert_eq!(code(body(Document::Invoice(&apart, 0))), "several_taxes");
    let dinars = |amount: i64| json!({ "amount": amount, "currency": "KWD" });
    let fine = order(json!({
        "currency": "KWD", "total": dinars(1295),
        "lines": [{ "sku": "m", "name": "M", "quantity": "1", "unit_price": "1.295", "total": dinars(1295) }],
    }));
    assert_eq!(code(body(Document::Invoice(&fine, 0))), "too_many_decimals");
}

#[test]
fn a_refund_is_a_credit_note_and_money_on_it() {
    let order_of = order;
    let order = order(json!({ "taxes": [tax("20", 200)], "total": money(1200) }));
    let refund_of_it = refund(json!({ "tax": money(100), "reason": "Broken\non arrival" }));
    let note = body(Document::CreditNote(&refund_of_it, Some(&order))).unwrap();
    assert_eq!(
        (&note["Type"], &note["CreditNoteNumber"], &note["Reference"]),
        (
            &json!("ACCRECCREDIT"),
            &json!("r1"),
            &json!("Crossdock refund r1")
        )
    );
    assert_eq!(note["LineItems"][0]["TaxType"], "OUTPUT2");
    assert_eq!(total(&note).to_string(), "6");
    let paid = body(Document::RefundPayment(&refund_of_it, Some(&order))).unwrap();
    let expected = json!({
        "CreditNote": { "CreditNoteID": "on" }, "Account": { "AccountID": "b" },
        "Date": "2026-01-06", "Amount": 6, "Reference": "Crossdock refund payment r1",
    });
    assert_eq!(paid, expected);
    // Without its order the rate is the one that makes the tax.
    let alone = refund(json!({ "order_id": null, "amount": money(630), "tax": money(30) }));
    let note = body(Document::CreditNote(&alone, None)).unwrap();
    assert_eq!(note["LineItems"][0]["TaxType"], "RROUTPUT");
    // A rate that was told of goods and of shipping is one, and a tax of nothing is none.
    for taxes in [
        json!([tax("20", 200), tax("20", 20)]),
        json!([tax("20", 200), tax("7", 0)]),
    ] {
        let order = order_of(json!({ "taxes": taxes }));
        let note = body(Document::CreditNote(&refund_of_it, Some(&order))).unwrap();
        assert_eq!(note["LineItems"][0]["TaxType"], "OUTPUT2", "{taxes}");
    }
    // The same with prices that hold the tax.
    let whole = refund(json!({
        "tax": money(100), "prices_include_tax": true, "lines": [line("1", "6.00", 600, true)],
    }));
    let note = body(Document::CreditNote(&whole, Some(&order))).unwrap();
    assert_eq!(note["LineAmountTypes"], "Inclusive");
    assert_eq!(note["LineItems"][0]["TaxType"], "OUTPUT2");
    assert_eq!(note["LineItems"][0]["TaxAmount"].to_string(), "1");
    assert_eq!(total(&note).to_string(), "6");
    let odd = refund(json!({ "order_id": null, "tax": money(77) }));
    assert_eq!(code(body(Document::CreditNote(&odd, None))), "no_tax_rate");
}

#[test]
fn a_chosen_account_is_no_change_of_a_document() {
    let order = order(json!({}));
    let first = body(Document::Invoice(&order, 0)).unwrap();
    let mut other = first.clone();
    other["LineItems"][0]["AccountCode"] = json!("260");
    let essence = |body: &Value| map::essence(Document::Invoice(&order, 0), body);
    assert_eq!(essence(&first), essence(&other));
    other["LineItems"][0]["UnitAmount"] = json!(6);
    assert_ne!(essence(&first), essence(&other));
}

#[test]
fn every_role_goes_to_the_account_that_is_chosen() {
    let sold = order(json!({
        "lines": [line("2", "5.00", 1000, true)],
        "discounts": [{ "name": "Sale", "amount": money(100) }],
        "shipping": { "name": "Post", "amount": money(250) },
        "tip": money(50), "total": money(1200),
    }));
    let accounts = json!({
        "sales": "260", "shipping": "c", "discounts": "425", "money": "d", "tips": "852",
    });
    let invoice = body_with(Document::Invoice(&sold, 0), accounts.clone()).unwrap();
    let codes = invoice["LineItems"].as_array().unwrap().iter();
    let codes: Vec<&str> = codes
        .map(|line| line["AccountCode"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["260", "425", "425", "852"]);
    // Money goes back from where it came, unless it is chosen otherwise.
    let back = refund(json!({}));
    for (more, expected) in [(json!(null), "d"), (json!("090"), "b")] {
        let mut accounts = accounts.clone();
        if more.is_string() {
            accounts["refunds"] = more;
        }
        let paid = body_with(Document::RefundPayment(&back, None), accounts).unwrap();
        assert_eq!(paid["Account"]["AccountID"], expected);
    }
    // An account in euros takes no pounds, and those go to the usual one.
    let paid = body_with(
        Document::RefundPayment(&back, None),
        json!({ "money": "e" }),
    )
    .unwrap();
    assert_eq!(paid["Account"]["AccountID"], "b");
    for (role, account, expected) in [
        ("sales", "100", "inactive_account"),
        ("tips", "200", "wrong_account"),
        ("tips", "999", "unknown_account"),
    ] {
        let outcome = body_with(Document::Invoice(&sold, 0), json!({ role: account }));
        assert_eq!(code(outcome), expected, "{role} {account}");
    }
    // What is chosen for something else stands in nobody's way.
    let outcome = body_with(Document::Invoice(&sold, 0), json!({ "gift_cards": "999" }));
    assert!(outcome.is_ok());
}

#[test]
fn a_tip_is_owed_and_bears_no_tax() {
    let tipped = order(json!({
        "taxes": [tax("20", 200)], "tip": money(150), "total": money(1350),
    }));
    let invoice = body(Document::Invoice(&tipped, 0)).unwrap();
    let line = &invoice["LineItems"][1];
    let expected = json!({
        "Description": "Tip", "Quantity": 1, "UnitAmount": 1.5, "AccountCode": "850",
        "TaxType": "NONE", "TaxAmount": 0,
    });
    assert_eq!(
        (line, total(&invoice).to_string()),
        (&expected, "13.5".to_owned())
    );
    let back = refund(json!({ "amount": money(270), "tax": money(20), "tip": money(150) }));
    let note = body(Document::CreditNote(&back, Some(&tipped))).unwrap();
    assert_eq!(note["LineItems"][1]["AccountCode"], "850");
    assert_eq!(note["LineItems"][1]["TaxAmount"], 0);
    assert_eq!(total(&note).to_string(), "2.7");
    // Tax on nothing that is taxable lies on the rest, and never on the tip.
    let odd = order(json!({
        "lines": [line_of_gift_card()], "taxes": [tax("20", 30)], "tip": money(150),
        "total": money(2680),
    }));
    assert_eq!(code(body(Document::Invoice(&odd, 0))), "tax_on_nothing");
}

fn line_of_gift_card() -> Value {
    let mut line = line("1", "25.00", 2500, true);
    line["gift_card"] = json!(true);
    line
}

#[test]
fn a_gift_card_is_owed_until_it_pays() {
    let sold = order(json!({
        "lines": [line("2", "5.00", 1000, true), line_of_gift_card()],
        "taxes": [tax("20", 200)], "total": money(3700),
    }));
    let invoice = Document::Invoice(&sold, 0);
    let settings = settings();
    let items = map::dependencies(invoice, &settings).unwrap();
    assert_eq!(items.len(), 2, "the contact and the mug: {items:?}");
    let body_of_it = body(invoice).unwrap();
    let card = &body_of_it["LineItems"][1];
    assert_eq!(
        (&card["AccountCode"], &card["TaxAmount"]),
        (&json!("851"), &json!(0))
    );
    assert_eq!(card.get("ItemCode"), None);
    let pay = |method: &str| -> Payment {
        serde_json::from_value(json!({
            "id": "p", "order_id": "1", "outcome": "succeeded", "method": method,
            "amount": money(700), "processed_at": "2026-01-05T11:00:00Z",
        }))
        .unwrap()
    };
    for (method, account) in [("card", "b"), ("gift_card", "g")] {
        let payment = pay(method);
        let document = Document::Payment {
            payment: &payment,
            order: &sold,
            applied: 700,
        };
        let paid = body(document).unwrap();
        assert_eq!(paid["Account"]["AccountID"], account, "{method}");
        assert_eq!(paid["Amount"], 7);
    }
    let back = refund(json!({ "method": "gift_card" }));
    let paid = body(Document::RefundPayment(&back, None)).unwrap();
    assert_eq!(paid["Account"]["AccountID"], "g");
    // One that takes no payments could not pay.
    let outcome = body_with(
        Document::RefundPayment(&back, None),
        json!({ "gift_cards": "852" }),
    );
    assert_eq!(code(outcome), "wrong_account");
}

/// The books of a shop whose customers' money lies on an account of its own until it is paid out.
fn clearing(more: Value) -> Settings {
    let organisation = json!({ "Organisations": [{ "BaseCurrency": "GBP" }] });
    let bank = |id: &str, currency: &str, kind: &str| {
        json!({
            "AccountID": id, "Code": id, "Name": format!("Bank {id}"), "Type": "BANK",
            "Status": "ACTIVE", "CurrencyCode": currency, "BankAccountType": kind,
        })
    };
    let accounts = json!({ "Accounts": [
        bank("090", "GBP", "BANK"), bank("091", "GBP", "PAYPAL"), bank("092", "GBP", "CREDITCARD"),
        bank("093", "EUR", "BANK"),
        { "AccountID": "f", "Code": "404", "Name": "Bank fees", "Type": "EXPENSE", "Status": "ACTIVE" },
        { "AccountID": "l", "Code": "441", "Name": "Legal fees", "Type": "EXPENSE", "Status": "ACTIVE" },
        { "AccountID": "p", "Code": "630", "Name": "On its way", "Type": "CURRENT", "Status": "ACTIVE",
          "EnablePaymentsToAccount": true },
    ] });
    let none = json!({});
    let currencies = json!({ "Currencies": [{ "Code": "EUR" }] });
    let settings = Settings::read(&organisation, &accounts, &none, &currencies).unwrap();
    let mut settings = serde_json::to_value(settings).unwrap();
    settings["choices"] = json!({ "accounts": { "money": "091" }, "guests": [] });
    for (role, account) in more.as_object().unwrap() {
        settings["choices"]["accounts"][role] = account.clone();
    }
    Settings::of(&settings).unwrap()
}

/// Charges, refunds, fees and an adjustment, with what they make.
fn payout(charges: i64, refunds: i64, fees: i64, adjusted: i64) -> Payout {
    let payout: Payout = serde_json::from_value(json!({
        "id": "po-1", "version": 1, "currency": "GBP", "paid_at": "2026-01-07T23:59:59Z",
        "processor": "stripe", "charges": money(charges), "refunds": money(refunds),
        "fees": money(fees), "amount": money(charges - refunds - fees + adjusted),
        "adjustments": [{ "name": "Dispute", "amount": money(adjusted) }],
    }))
    .unwrap();
    assert_eq!(payout.faults(), []);
    payout
}

/// The body of a document of a payout; nothing where nothing is to be posted.
fn paid_out(document: Document, settings: &Settings) -> Result<Option<Value>, Fault> {
    let needed = map::dependencies(document, settings)?;
    let named = needed
        .iter()
        .map(|one| ((one.kind, one.key.clone()), one.names[0].clone()));
    let references: References = named.collect();
    match map::posts(document, settings)? {
        true => map::body(document, &references, None, settings).map(Some),
        false => Ok(None),
    }
}

#[test]
fn a_payout_is_a_transfer_and_fees_that_are_spent() {
    let settings = clearing(json!({}));
    let usual = payout(10_000, 1_000, 290, 115);
    let transfer = paid_out(Document::BankTransfer(&usual), &settings).unwrap();
    let expected = json!({
        "FromBankAccount": { "AccountID": "091" }, "ToBankAccount": { "AccountID": "090" },
        "Amount": 88.25, "Date": "2026-01-07", "Reference": "Crossdock payout po-1",
    });
    assert_eq!(transfer, Some(expected));
    let fees = paid_out(Document::BankTransaction(&usual), &settings).unwrap();
    let line = |what: &str, amount: Value| {
        json!({
            "Description": format!("stripe {what}"), "Quantity": 1, "UnitAmount": amount,
            "AccountCode": "404",
        })
    };
    let mut expected = json!({
        "Type": "SPEND", "BankAccount": { "AccountID": "091" }, "Contact": { "ContactID": "Stripe" },
        "Date": "2026-01-07", "Reference": "Crossdock payout fees po-1", "LineAmountTypes": "NoTax",
        "LineItems": [line("fees", json!(2.9)), line("Dispute", json!(-1.15))],
    });
    assert_eq!(fees, Some(expected.clone()));
    // The processor took money from the bank, and gave back more than it kept.
    let back = payout(0, 1_000, 290, 400);
    let transfer = paid_out(Document::BankTransfer(&back), &settings).unwrap();
    let transfer = transfer.unwrap();
    assert_eq!(transfer["FromBankAccount"]["AccountID"], "090");
    assert_eq!(transfer["ToBankAccount"]["AccountID"], "091");
    assert_eq!(transfer["Amount"], 8.9);
    expected["Type"] = json!("RECEIVE");
    expected["LineItems"] = json!([line("fees", json!(-2.9)), line("Dispute", json!(4))]);
    let fees = paid_out(Document::BankTransaction(&back), &settings).unwrap();
    assert_eq!(fees, Some(expected));
    // Which way it goes is part of what it is, and which accounts there are is not.
    let there = Document::BankTransfer(&usual);
    let one = paid_out(there, &settings).unwrap().unwrap();
    let mut other = one.clone();
    other["ToBankAccount"]["AccountID"] = json!("another");
    assert_eq!(map::essence(there, &one), map::essence(there, &other));
    let reversed = map::essence(Document::BankTransfer(&back), &one);
    assert_ne!(map::essence(there, &one), reversed);
}

#[test]
fn of_a_payout_nothing_is_posted_that_moves_nothing() {
    let settings = clearing(json!({}));
    let none = payout(1_000, 0, 1_000, 0);
    assert_eq!(paid_out(Document::BankTransfer(&none), &settings), Ok(None));
    let free = payout(1_000, 0, 0, 0);
    let fees = Document::BankTransaction(&free);
    assert_eq!(paid_out(fees, &settings), Ok(None));
    assert_eq!(map::dependencies(fees, &settings), Ok(Vec::new()));
    // Money that is in the bank at once is not moved; its fees are.
    let same = clearing(json!({ "money": "090", "payouts": "090" }));
    let usual = payout(1_000, 0, 100, 0);
    assert_eq!(paid_out(Document::BankTransfer(&usual), &same), Ok(None));
    let fees = paid_out(Document::BankTransaction(&usual), &same).unwrap();
    assert_eq!(fees.unwrap()["BankAccount"]["AccountID"], "090");
}

#[test]
fn a_payout_that_the_accounts_cannot_hold_is_parked_with_words() {
    let usual = payout(1_000, 100, 100, 0);
    let refused = |payout: &Payout, choices: Value| {
        let outcome = paid_out(Document::BankTransfer(payout), &clearing(choices));
        code(outcome.map(Option::unwrap_or_default))
    };
    // Neither a card nor PayPal is what payouts reach, so nothing is beside this one.
    assert_eq!(refused(&usual, json!({ "money": "090" })), "no_account");
    assert_eq!(
        refused(&usual, json!({ "payouts": "092" })),
        "wrong_account"
    );
    assert_eq!(refused(&usual, json!({ "money": "p" })), "wrong_account");
    assert_eq!(refused(&usual, json!({ "refunds": "090" })), "two_accounts");
    let mut euros = usual.clone();
    for money in [
        &mut euros.charges,
        &mut euros.refunds,
        &mut euros.fees,
        &mut euros.amount,
    ] {
        money.currency = "EUR".parse().unwrap();
    }
    euros.adjustments.clear();
    euros.currency = euros.amount.currency;
    assert_eq!(euros.faults(), []);
    assert_eq!(refused(&euros, json!({})), "account_currency");
    let fees = Document::BankTransaction(&usual);
    let outcome = paid_out(fees, &clearing(json!({ "fees": "091" })));
    assert_eq!(
        code(outcome.map(Option::unwrap_or_default)),
        "wrong_account"
    );
}

proptest! {
    #[test]
    fn what_a_payout_takes_from_the_clearing_account_is_what_came_through_the_processor(
        charges in 0_i64..99_999,
        refunds in 0_i64..99_999,
        fees in 0_i64..9_999,
        adjusted in -9_999_i64..9_999,
    ) {
        let (settings, one) = (clearing(json!({})), payout(charges, refunds, fees, adjusted));
        let number = |value: &Value| value.to_string().parse::<Decimal>().unwrap();
        let mut taken = Decimal::ZERO;
        if let Some(body) = paid_out(Document::BankTransfer(&one), &settings).unwrap() {
            let amount = number(&body["Amount"]);
            prop_assert!(amount > Decimal::ZERO);
            taken += if body["FromBankAccount"]["AccountID"] == "091" { amount } else { -amount };
        }
        if let Some(body) = paid_out(Document::BankTransaction(&one), &settings).unwrap() {
            let amount = total(&body);
            prop_assert!(amount > Decimal::ZERO);
            taken += if body["Type"] == "SPEND" { amount } else { -amount };
        }
        prop_assert_eq!(taken, Decimal::new(charges - refunds, 2));
    }
}

proptest! {
    #[test]
    fn the_total_is_that_of_the_shop(
        prices in prop::collection::vec((1_i64..50, 1_i64..99_999, any::<bool>()), 1..12),
        discount in 0_i64..50,
        shipping in 0_i64..5_000,
        tax_off in -40_i64..40,
        included in any::<bool>(),
        tip in 0_i64..2_000,
    ) {
        let sums: Vec<i64> = prices.iter().map(|(quantity, price, _)| quantity * price).collect();
        let goods = sums.iter().sum::<i64>() - discount + shipping;
        let amount = (goods / 6 + tax_off).clamp(1, goods.max(1));
        let lines: Vec<Value> = prices
            .iter()
            .zip(&sums)
            .map(|((quantity, price, taxable), sum)| {
                let price = Decimal::new(*price, 2).to_string();
                line(&quantity.to_string(), &price, *sum, *taxable)
            })
            .collect();
        let whole = goods + if included { 0 } else { amount };
        prop_assume!(whole >= 0);
        let order = order(json!({
            "lines": lines, "prices_include_tax": included,
            "discounts": [{ "name": "Sale", "amount": money(discount) }],
            "shipping": { "name": "Post", "amount": money(shipping) },
            "taxes": [tax("20", amount)], "tip": money(tip), "total": money(whole + tip),
        }));
        let body = body(Document::Invoice(&order, 0)).unwrap();
        prop_assert_eq!(total(&body), Decimal::new(whole + tip, 2));
        let taxes = body["LineItems"].as_array().unwrap().iter();
        let taxes = taxes.map(|line| line["TaxAmount"].to_string().parse::<Decimal>().unwrap());
        prop_assert_eq!(taxes.sum::<Decimal>(), Decimal::new(amount, 2));
    }
}
