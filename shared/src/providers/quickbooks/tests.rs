//! What becomes of orders and refunds, by example and by property.

use super::map;
use super::settings::{self, Settings};
use crate::model::order::{Order, Payment, Refund};
use crate::model::payout::Payout;
use crate::providers::Fault;
use crate::providers::accounting::{DependencyKind, Document, References};
use crate::providers::accounts::Role;
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// A company in the United States; `more` are accounts beside the usual ones.
fn company(more: Value) -> Value {
    company_with_tax(
        more,
        json!({ "UsingSalesTax": true, "PartnerTaxEnabled": true }),
    )
}

/// The same with other settings of its sales tax: three groups of taxes.
fn company_with_tax(more: Value, sales_tax: Value) -> Value {
    let account = |id: &str, name: &str, kind: &str, sub_type: &str, active: bool| {
        json!({
            "Id": id, "Name": name, "AccountType": kind, "AccountSubType": sub_type, "Active": active,
        })
    };
    let mut accounts = vec![
        account("1", "Old sales", "Income", "SalesOfProductIncome", false),
        account("2", "Sales", "Income", "SalesOfProductIncome", true),
        account("3", "Discounts", "Income", "DiscountsRefundsGiven", true),
        account("4", "Shipping", "Income", "OtherPrimaryIncome", true),
        account(
            "5",
            "Undeposited Funds",
            "Other Current Asset",
            "UndepositedFunds",
            true,
        ),
        account("6", "Checking", "Bank", "Checking", true),
        account(
            "7",
            "Sales tax",
            "Other Current Liability",
            "GlobalTaxPayable",
            true,
        ),
        account("8", "Stock", "Other Current Asset", "Inventory", true),
    ];
    accounts.extend(more.as_array().unwrap().iter().cloned());
    let company = json!({ "CompanyInfo": { "CompanyName": "Demo", "Country": "US" } });
    let preferences = json!({ "Preferences": {
        "SalesFormsPrefs": { "DefaultDiscountAccount": "3", "DefaultShippingAccount": "4" },
        "TaxPrefs": sales_tax,
        "CurrencyPrefs": { "HomeCurrency": { "value": "USD" } },
    } });
    let accounts = json!({ "QueryResponse": { "Account": accounts } });
    let rate = |id: &str, percent: f64| json!({ "Id": id, "RateValue": percent, "Active": true });
    let rates =
        json!({ "QueryResponse": { "TaxRate": [rate("1", 5.0), rate("2", 3.0), rate("3", 7.0)] } });
    let group = |id: &str, rates: &[&str]| {
        let rates = rates.iter();
        let rates = rates.map(|id| json!({ "TaxRateRef": { "value": id } }));
        let rates: Vec<Value> = rates.collect();
        json!({ "Id": id, "Name": id, "Active": true, "SalesTaxRateList": { "TaxRateDetail": rates } })
    };
    let codes = json!({ "QueryResponse": { "TaxCode": [
        { "Id": "TAX", "Name": "TAX", "Active": true }, { "Id": "NON", "Name": "NON", "Active": true },
        group("10", &["1", "2"]), group("11", &["3"]), group("12", &["1"]),
    ] } });
    settings::read(&company, &preferences, &accounts, &codes, &rates).unwrap()
}

fn liabilities() -> Value {
    json!([
        { "Id": "20", "Name": "Staff", "AccountType": "Other Current Liability",
          "AccountSubType": "UndistributedTips" },
        { "Id": "21", "Name": "Gift cards", "AccountType": "Other Current Liability",
          "AccountSubType": "OtherCurrentLiabilities" },
        { "Id": "22", "Name": "Second till", "AccountType": "Bank", "AccountSubType": "CashOnHand",
          "CurrencyRef": { "value": "EUR" } },
    ])
}

/// The company's settings with accounts that the merchant chose.
fn chosen(company: &Value, accounts: Value) -> Settings {
    let mut company = company.clone();
    company["choices"] = json!({ "accounts": accounts, "guests": [] });
    Settings::of(&company).unwrap()
}

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

fn line(sku: &str, amount: i64, gift_card: bool) -> Value {
    let price = Decimal::new(amount, 2).to_string();
    json!({
        "sku": sku, "name": sku, "quantity": "1", "unit_price": price, "total": money(amount),
        "gift_card": gift_card,
    })
}

fn order(change: Value) -> Order {
    let mut order = json!({
        "id": "1", "version": 1, "number": "S-1", "currency": "USD",
        "placed_at": "2026-01-05T10:00:00Z", "customer": null,
        "lines": [line("mug", 1000, false)], "total": money(1000),
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

/// The body with every dependency there under its own key.
fn body(document: Document, settings: &Settings) -> Result<(Value, References), Fault> {
    let needed = map::dependencies(document, settings)?;
    let references: References = needed
        .iter()
        .map(|one| ((one.kind, one.key.clone()), one.key.clone()))
        .collect();
    let body = map::body(document, &references, Some("on"), settings)?;
    Ok((body, references))
}

fn code<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> String {
    match outcome {
        Err(Fault::Refused { code, .. }) => code,
        other => format!("{other:?}"),
    }
}

/// The item and the amount of each line that sells something.
fn lines(body: &Value) -> Vec<(String, String)> {
    let lines = body["Line"].as_array().unwrap().iter();
    let sold = lines.filter_map(|line| Some((line.get("SalesItemLineDetail")?, line)));
    sold.map(|(detail, line)| {
        let item = detail["ItemRef"]["value"].as_str().unwrap().to_owned();
        (item, line["Amount"].to_string())
    })
    .collect()
}

/// What QuickBooks makes of a body: lines less discount plus tax.
fn total(body: &Value) -> Decimal {
    let number = |value: &Value| value.to_string().parse::<Decimal>().unwrap_or_default();
    let lines = body["Line"].as_array().unwrap().iter();
    let sum: Decimal = lines
        .map(|line| match line["DetailType"] == "DiscountLineDetail" {
            true => -number(&line["Amount"]),
            false => number(&line["Amount"]),
        })
        .sum();
    sum + number(&body["TxnTaxDetail"]["TotalTax"])
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(item, amount): &(&str, &str)| ((*item).to_owned(), (*amount).to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn defaults_are_read_from_the_company() {
    let settings = chosen(&company(liabilities()), json!({}));
    for (role, expected) in [
        (Role::Sales, "2"),
        (Role::Shipping, "4"),
        (Role::Discounts, "3"),
        (Role::Money, "5"),
        (Role::Refunds, "5"),
        (Role::Tips, "20"),
        (Role::GiftCards, "21"),
    ] {
        assert_eq!(settings.account(role).unwrap().id, expected, "{role:?}");
    }
    // A tax payable is a liability too, and nothing is owed on it but tax.
    let bare = chosen(&company(json!([])), json!({}));
    assert_eq!(code(bare.account(Role::Tips)), "no_account");
    assert_eq!(
        code(chosen(&company(json!([])), json!({ "tips": "7" })).account(Role::Tips)),
        "wrong_account"
    );
}

#[test]
fn what_is_not_chosen_is_left_to_quickbooks() {
    let settings = chosen(&company(liabilities()), json!({}));
    let sold = order(json!({
        "discounts": [{ "name": "Sale", "amount": money(100) }],
        "shipping": { "name": "Post", "amount": money(250) }, "total": money(1150),
    }));
    let (receipt, _) = body(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    assert_eq!(
        lines(&receipt),
        pairs(&[("MUG", "10"), ("SHIPPING_ITEM_ID", "2.5")])
    );
    assert_eq!(receipt.get("DepositToAccountRef"), None);
    let discount = &receipt["Line"][2]["DiscountLineDetail"];
    assert_eq!(*discount, json!({ "PercentBased": false }));
    let back = refund(json!({}));
    let (receipt, _) = body(Document::RefundReceipt(&back, None), &settings).unwrap();
    assert_eq!(receipt["DepositToAccountRef"]["value"], "5");
}

#[test]
fn every_role_goes_to_the_account_that_is_chosen() {
    let company = company(liabilities());
    let accounts = json!({ "shipping": "2", "discounts": "4", "money": "6", "tips": "21" });
    let settings = chosen(&company, accounts);
    let sold = order(json!({
        "discounts": [{ "name": "Sale", "amount": money(100) }],
        "shipping": { "name": "Post", "amount": money(250) },
        "tip": money(50), "total": money(1200),
    }));
    let document = Document::SalesReceipt(&sold, 0);
    let (receipt, references) = body(document, &settings).unwrap();
    assert_eq!(
        lines(&receipt),
        pairs(&[
            ("MUG", "10"),
            ("role/shipping/2", "2.5"),
            ("role/tips/21", "0.5")
        ])
    );
    assert_eq!(receipt["DepositToAccountRef"]["value"], "6");
    let discount = &receipt["Line"][3]["DiscountLineDetail"];
    assert_eq!(discount["DiscountAccountRef"]["value"], "4");
    let items = map::dependencies(document, &settings).unwrap();
    let tips = items.iter().find(|one| one.key == "role/tips/21").unwrap();
    assert_eq!(tips.kind, DependencyKind::Item);
    assert_eq!(tips.body["IncomeAccountRef"]["value"], "21");
    // An item of that name which posts elsewhere is not taken.
    assert_eq!(tips.mark.as_deref(), Some("21"));
    // Money goes back from where it came, and euros do not go to an account that holds none.
    let back = refund(json!({}));
    let (back, _) = body(Document::RefundReceipt(&back, None), &settings).unwrap();
    assert_eq!(back["DepositToAccountRef"]["value"], "6");
    let euros = chosen(&company, json!({ "money": "22" }));
    let (receipt, _) = body(Document::SalesReceipt(&order(json!({})), 0), &euros).unwrap();
    assert_eq!(receipt.get("DepositToAccountRef"), None);
    // Another choice is no change of what stands there.
    let other = chosen(&company, json!({}));
    let (usual, usual_references) = body(document, &other).unwrap();
    assert_ne!(receipt, usual);
    let (receipt, _) = body(document, &settings).unwrap();
    assert_eq!(
        map::essence(&receipt, &references),
        map::essence(&usual, &usual_references)
    );
    let mut changed = usual.clone();
    changed["Line"][2]["Amount"] = json!(0.6);
    assert_ne!(
        map::essence(&changed, &usual_references),
        map::essence(&usual, &usual_references)
    );
}

#[test]
fn an_account_that_cannot_be_used_parks_what_needs_it_alone() {
    let company = company(liabilities());
    let tipped = order(json!({ "tip": money(50), "total": money(1050) }));
    let plain = order(json!({}));
    for (accounts, expected) in [
        (json!({ "tips": "99" }), "unknown_account"),
        (json!({ "tips": "2" }), "wrong_account"),
        (json!({ "sales": "1" }), "inactive_account"),
    ] {
        let settings = chosen(&company, accounts.clone());
        let outcome = body(Document::SalesReceipt(&tipped, 0), &settings);
        assert_eq!(code(outcome), expected);
        let outcome = body(Document::SalesReceipt(&plain, 0), &settings);
        assert_eq!(outcome.is_ok(), accounts.get("sales").is_none());
    }
}

#[test]
fn a_gift_card_is_owed_until_it_pays() {
    let settings = chosen(&company(liabilities()), json!({}));
    let sold = order(json!({
        "lines": [line("mug", 1000, false), line("card", 2500, true)],
        "taxes": [{ "name": "Tax", "rate": "8", "amount": money(80) }], "total": money(3580),
    }));
    let (receipt, _) = body(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    let owed = "role/gift_cards/21";
    assert_eq!(lines(&receipt), pairs(&[("MUG", "10"), (owed, "25")]));
    let codes =
        |index: usize| &receipt["Line"][index]["SalesItemLineDetail"]["TaxCodeRef"]["value"];
    assert_eq!((codes(0), codes(1)), (&json!("TAX"), &json!("NON")));
    // Redeemed in part, and in full: the receipt is over the money that came.
    for (redeemed, left) in [(600, "4"), (1000, "0")] {
        let paid = order(json!({}));
        for document in [
            Document::SalesReceipt(&paid, redeemed),
            Document::Invoice(&paid, redeemed),
        ] {
            let (body, _) = body(document, &settings).unwrap();
            assert_eq!(total(&body), document.total().major());
            assert_eq!(total(&body).normalize().to_string(), left);
            let below = Decimal::new(-redeemed, 2).normalize().to_string();
            assert_eq!(lines(&body), pairs(&[("MUG", "10"), (owed, &below)]));
        }
    }
    // Back to a card: owed again, and no money goes out.
    let back = refund(json!({ "method": "gift_card" }));
    let document = Document::RefundReceipt(&back, None);
    let (receipt, _) = body(document, &settings).unwrap();
    assert_eq!(lines(&receipt), pairs(&[("REFUND", "6"), (owed, "-6")]));
    assert_eq!(document.total().amount, 0);
    assert_eq!(total(&receipt), Decimal::ZERO);
}

#[test]
fn tax_that_is_included_is_taken_out_of_what_bears_it() {
    let settings = chosen(&company(liabilities()), json!({}));
    let sold = order(json!({
        "lines": [line("mug", 1080, false), line("card", 2500, true)], "prices_include_tax": true,
        "taxes": [{ "name": "Tax", "rate": "8", "amount": money(80) }], "tip": money(100),
        "total": money(3680),
    }));
    let (receipt, _) = body(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    assert_eq!(
        lines(&receipt),
        pairs(&[
            ("MUG", "10"),
            ("role/gift_cards/21", "25"),
            ("role/tips/20", "1")
        ])
    );
    assert_eq!(total(&receipt).normalize().to_string(), "36.8");
}

/// A book that bears no tax keeps its price.
#[test]
fn tax_that_is_included_is_not_taken_out_of_what_bears_none() {
    let settings = chosen(&company(liabilities()), json!({}));
    let mut book = line("book", 1000, false);
    book["taxable"] = json!(false);
    let sold = order(json!({
        "lines": [book, line("mug", 1080, false)], "prices_include_tax": true,
        "taxes": [{ "name": "Tax", "rate": "8", "amount": money(80) }], "total": money(2080),
    }));
    let (receipt, _) = body(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    assert_eq!(lines(&receipt), pairs(&[("BOOK", "10"), ("MUG", "10")]));
}

/// Where tax is not automated a document names the group of its taxes.
#[test]
fn tax_that_is_not_automated_names_its_group() {
    let company = company_with_tax(liabilities(), json!({ "UsingSalesTax": true }));
    let settings = chosen(&company, json!({}));
    let sold = |rates: &[(&str, i64)]| {
        let tax = |(rate, amount): &(&str, i64)| json!({ "name": "Tax", "rate": rate, "amount": money(*amount) });
        let taxes: Vec<Value> = rates.iter().map(tax).collect();
        let sum: i64 = rates.iter().map(|(_, amount)| amount).sum();
        let sold = order(json!({ "taxes": taxes, "total": money(1000 + sum) }));
        body(Document::SalesReceipt(&sold, 0), &settings)
            .map(|(body, _)| body["TxnTaxDetail"].clone())
    };
    let named = |group: &str, total: &str| {
        let total: Value = total.parse().unwrap();
        json!({ "TotalTax": total, "TxnTaxCodeRef": { "value": group } })
    };
    assert_eq!(sold(&[("5", 50), ("3", 30)]).unwrap(), named("10", "0.8"));
    assert_eq!(sold(&[("8", 80)]).unwrap(), named("10", "0.8"));
    assert_eq!(sold(&[("7", 70)]).unwrap(), named("11", "0.7"));
    assert_eq!(sold(&[]).unwrap(), Value::Null);
    assert_eq!(code(sold(&[("9", 90)])), "no_tax_rate");
}

/// Of a name or a number of goods that QuickBooks takes nothing of, something is left to call them by.
#[test]
fn nothing_is_without_a_name() {
    let settings = chosen(&company(json!([])), json!({}));
    let sold = order(json!({
        "customer": { "id": "c1", "name": " : ", "email": null }, "lines": [line(":", 1000, false)],
    }));
    let needed = map::dependencies(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    let names: Vec<&str> = needed.iter().map(|one| one.names[0].as_str()).collect();
    assert!(names.contains(&"c1") && names.contains(&"-"), "{names:?}");
}

#[test]
fn guests_are_booked_on_whom_the_merchant_names_from_then_on() {
    let mut company = company(json!([]));
    company["choices"] = json!({ "accounts": {}, "guests": [
        { "name": "Web shop", "from": "2026-01-05T12:00:00Z" },
    ] });
    let settings = Settings::of(&company).unwrap();
    let who = |placed_at: &str| {
        let sold = order(json!({ "placed_at": placed_at }));
        let needed = map::dependencies(Document::Invoice(&sold, 0), &settings).unwrap();
        // A payment that came later names the customer of its invoice all the same.
        let payment: Payment = serde_json::from_value(json!({
            "id": "p", "order_id": "1", "outcome": "succeeded", "method": "card",
            "amount": money(1000), "processed_at": "2026-03-01T00:00:00Z",
        }))
        .unwrap();
        let of_it = Document::Payment {
            payment: &payment,
            order: &sold,
            applied: 1000,
        };
        assert_eq!(map::dependencies(of_it, &settings).unwrap()[0], needed[0]);
        needed[0].clone()
    };
    let before = who("2026-01-05T11:59:59Z");
    assert_eq!(
        (&before.key[..], &before.names[0][..]),
        ("guest/USD", "Guest")
    );
    assert_eq!(before.mark.as_deref(), Some("Crossdock guests"));
    let after = who("2026-01-05T12:00:00Z");
    assert_eq!(
        (&after.key[..], &after.names[0][..]),
        ("guest/USD/Web shop", "Web shop")
    );
    assert_eq!(after.mark, None, "he may stand there already");
}

/// Charges, refunds, fees and an adjustment, with what they make.
fn payout(charges: i64, refunds: i64, fees: i64, adjusted: i64) -> Payout {
    let payout: Payout = serde_json::from_value(json!({
        "id": "po_1234567890123456789012", "version": 1, "currency": "USD",
        "paid_at": "2026-01-07T23:59:59Z", "processor": "stripe", "charges": money(charges),
        "refunds": money(refunds), "fees": money(fees),
        "amount": money(charges - refunds - fees + adjusted),
        "adjustments": [{ "name": "Dispute", "amount": money(adjusted) }],
    }))
    .unwrap();
    assert_eq!(payout.faults(), []);
    payout
}

fn with_fees() -> Value {
    json!([
        { "Id": "30", "Name": "Bank Charges & Fees", "AccountType": "Expense" },
        { "Id": "31", "Name": "Legal fees", "AccountType": "Expense" },
        { "Id": "32", "Name": "Processor", "AccountType": "Bank", "AccountSubType": "Checking" },
    ])
}

/// What each line of a journal entry puts on its account; below zero what it takes.
fn posted(entry: &Value) -> Vec<(String, Decimal)> {
    let lines = entry["Line"].as_array().unwrap().iter();
    lines
        .map(|line| {
            let detail = &line["JournalEntryLineDetail"];
            let amount: Decimal = line["Amount"].to_string().parse().unwrap();
            assert!(amount > Decimal::ZERO, "{line}");
            let account = detail["AccountRef"]["value"].as_str().unwrap().to_owned();
            let debit = detail["PostingType"] == "Debit";
            (account, if debit { amount } else { -amount })
        })
        .collect()
}

#[test]
fn a_payout_is_one_journal_entry() {
    // Its bank account stands beside the processor's, where the money lies until then.
    let settings = chosen(&company(with_fees()), json!({ "money": "32" }));
    let usual = payout(10_000, 1_000, 290, 115);
    let document = Document::JournalEntry(&usual);
    assert_eq!(map::dependencies(document, &settings), Ok(Vec::new()));
    let (entry, references) = body(document, &settings).unwrap();
    assert_eq!(
        (
            &entry["DocNumber"],
            &entry["TxnDate"],
            &entry["PrivateNote"]
        ),
        (
            &json!("234567890123456789012"),
            &json!("2026-01-07"),
            &json!("Crossdock payout po_1234567890123456789012")
        )
    );
    let line = |account: &str, amount: i64| (account.to_owned(), Decimal::new(amount, 2));
    let expected = [
        line("6", 8_825),
        line("30", 290),
        line("30", -115),
        line("32", 1_000),
        line("32", -10_000),
    ];
    assert_eq!(posted(&entry), expected);
    assert_eq!(entry["Line"][2]["Description"], "stripe Dispute");
    assert_eq!(super::total(&entry), Some(document.total().major()));
    // Below zero the sides are turned.
    let back = payout(0, 1_000, 290, 0);
    let (entry, _) = body(Document::JournalEntry(&back), &settings).unwrap();
    let expected = [line("6", -1_290), line("30", 290), line("32", 1_000)];
    assert_eq!(posted(&entry), expected);
    // Another account is no change of what stands there, and another amount is.
    let other = chosen(&company(with_fees()), json!({ "payouts": "32" }));
    let (first, _) = body(document, &settings).unwrap();
    let (moved, _) = body(document, &other).unwrap();
    assert_ne!(first, moved);
    let essence = |entry: &Value| map::essence(entry, &references);
    assert_eq!(essence(&first), essence(&moved));
    let (more, _) = body(Document::JournalEntry(&back), &settings).unwrap();
    assert_ne!(essence(&first), essence(&more));
}

#[test]
fn a_payout_of_nothing_or_without_its_accounts_is_not_posted() {
    assert!(Document::JournalEntry(&payout(0, 0, 0, 0)).is_nothing());
    let usual = payout(1_000, 0, 100, 0);
    let refused = |more: Value, accounts: Value| {
        let settings = chosen(&company(more), accounts);
        code(
            body(Document::JournalEntry(&usual), &settings)
                .map(|(body, _)| (body, References::new())),
        )
    };
    // No account of fees; then two bank accounts that might be meant; then none that is one.
    assert_eq!(refused(json!([]), json!({})), "no_account");
    assert_eq!(refused(with_fees(), json!({})), "no_account");
    assert_eq!(
        refused(with_fees(), json!({ "payouts": "5" })),
        "wrong_account"
    );
    assert_eq!(
        refused(with_fees(), json!({ "fees": "2", "payouts": "6" })),
        "wrong_account"
    );
    let mut two = with_fees();
    two.as_array_mut()
        .unwrap()
        .push(json!({ "Id": "33", "Name": "Merchant fees", "AccountType": "Expense" }));
    assert_eq!(refused(two, json!({ "payouts": "6" })), "no_account");
    // Where money is in the bank at once, what is left of it all are the fees.
    let settings = chosen(
        &company(with_fees()),
        json!({ "money": "6", "payouts": "6" }),
    );
    let (entry, _) = body(Document::JournalEntry(&usual), &settings).unwrap();
    let bank = posted(&entry)
        .into_iter()
        .filter(|(account, _)| account == "6");
    let moved: Decimal = bank.map(|(_, amount)| amount).sum();
    assert_eq!(moved, Decimal::new(-100, 2));
}

proptest! {
    #[test]
    fn a_journal_entry_takes_what_came_through_the_processor_from_the_clearing_account(
        charges in 0_i64..99_999,
        refunds in 0_i64..99_999,
        fees in 0_i64..9_999,
        adjusted in -9_999_i64..9_999,
    ) {
        let settings = chosen(&company(with_fees()), json!({ "payouts": "6" }));
        let one = payout(charges, refunds, fees, adjusted);
        let document = Document::JournalEntry(&one);
        let (entry, _) = body(document, &settings).unwrap();
        let on = |account: &str| -> Decimal {
            let lines = posted(&entry).into_iter().filter(|(own, _)| own == account);
            lines.map(|(_, amount)| amount).sum()
        };
        prop_assert_eq!(on("6"), one.amount.major());
        prop_assert_eq!(on("30"), Decimal::new(fees - adjusted, 2));
        prop_assert_eq!(on("5"), Decimal::new(refunds - charges, 2));
        let all: Decimal = posted(&entry).into_iter().map(|(_, amount)| amount).sum();
        prop_assert_eq!(all, Decimal::ZERO);
        if !document.is_nothing() {
            prop_assert_eq!(super::total(&entry), Some(document.total().major()));
        }
    }
}

proptest! {
    #[test]
    fn the_total_is_what_came_in(
        prices in prop::collection::vec((1_i64..99_999, any::<bool>()), 1..12),
        shipping in 0_i64..5_000,
        tip in 0_i64..2_000,
        tax in 0_i64..3_000,
        share in 0_i64..=100,
        included in any::<bool>(),
    ) {
        let settings = chosen(&company(liabilities()), json!({}));
        let lines: Vec<Value> = prices.iter().map(|(price, card)| line("x", *price, *card)).collect();
        let taxed: i64 = prices.iter().filter(|(_, card)| !card).map(|(price, _)| price).sum();
        let tax = if taxed + shipping == 0 { 0 } else { tax.min(taxed + shipping) };
        let goods: i64 = prices.iter().map(|(price, _)| price).sum();
        let whole = goods + shipping + tip + if included { 0 } else { tax };
        let sold = order(json!({
            "lines": lines, "shipping": { "name": "", "amount": money(shipping) },
            "taxes": [{ "name": "Tax", "rate": "8", "amount": money(tax) }],
            "prices_include_tax": included, "tip": money(tip), "total": money(whole),
        }));
        prop_assert!(sold.faults().is_empty(), "{:?}", sold.faults());
        let redeemed = whole * share / 100;
        let document = Document::SalesReceipt(&sold, redeemed);
        let (body, _) = body(document, &settings).unwrap();
        prop_assert_eq!(total(&body), Decimal::new(whole - redeemed, 2));
        prop_assert_eq!(document.total().amount, whole - redeemed);
    }
}

/// QuickBooks would round it, and what stands there would not be what was paid.
#[test]
fn what_has_three_decimals_is_refused_before_anything_is_made() {
    let dinars = |amount: i64| json!({ "amount": amount, "currency": "KWD" });
    let sold = |amount: i64, price: &str| {
        order(json!({
            "currency": "KWD", "total": dinars(amount),
            "lines": [{
                "sku": "m", "name": "M", "quantity": "1", "unit_price": price, "total": dinars(amount),
            }],
        }))
    };
    let mut settings = Settings::of(&company(json!([]))).unwrap();
    settings.multicurrency = true;
    let fine = sold(1295, "1.295");
    for document in [
        Document::SalesReceipt(&fine, 0),
        Document::Invoice(&fine, 0),
    ] {
        assert_eq!(
            code(map::dependencies(document, &settings)),
            "too_many_decimals"
        );
    }
    let whole = sold(1290, "1.290");
    let (body, _) = body(Document::SalesReceipt(&whole, 0), &settings).unwrap();
    assert_eq!(body["Line"][0]["Amount"], json!(1.29));
}

/// QuickBooks refuses a tax of a form on which nothing is taxable.
#[test]
fn tax_on_shipping_alone_has_a_line_that_bears_it() {
    let settings = Settings::of(&company(json!([]))).unwrap();
    let mut books = line("book", 1000, false);
    books["taxable"] = json!(false);
    let sold = order(json!({
        "lines": [books], "shipping": { "name": "Post", "amount": money(500) }, "total": money(1540),
        "taxes": [{ "name": "State", "rate": "8", "amount": money(40) }],
    }));
    let (body, _) = body(Document::SalesReceipt(&sold, 0), &settings).unwrap();
    let codes: Vec<&Value> = body["Line"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| &line["SalesItemLineDetail"]["TaxCodeRef"]["value"])
        .collect();
    assert_eq!(codes, [&json!("NON"), &json!("TAX")]);
    assert_eq!(body["ShippingTaxIncludedInTotalTax"], json!(true));
}
