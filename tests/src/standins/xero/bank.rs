//! Money that came in or went out without an invoice.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, Mode, Saved, date, list, one, set};
use super::contacts;
use super::documents::Detail;
use super::lines::{self, Asked};
use super::state::{Fields, Kind, Organisation, text};
use super::transfers;
use super::wire::shown;
use crate::standins::money;

pub fn save(books: &mut Books<'_>, sent: &Fields, mode: Mode) -> Saved {
    let old = match (mode, text(sent, "BankTransactionID")) {
        (Mode::Upsert, Some(id)) => match books.get(Kind::BankTransaction, id) {
            Some(old) => Some(old.clone()),
            None => {
                return Err(vec![format!(
                    "No bank transaction was found with the BankTransactionID {id}"
                )]);
            }
        },
        _ => None,
    };
    let mut wrong = Vec::new();
    let mut value = old.clone().unwrap_or_default();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    let base = books.settings().base_currency;
    for (name, usual) in [
        ("Status", "AUTHORISED"),
        ("LineAmountTypes", "Exclusive"),
        ("CurrencyCode", base.as_str()),
        ("Date", &books.today().to_string()),
    ] {
        value.entry(name).or_insert_with(|| json!(usual));
    }
    if old.as_ref().is_some_and(transfers::is_end) {
        return Err(vec![
            "This Bank Transaction belongs to a bank transfer and cannot be edited".into(),
        ]);
    }
    let stands = |one: &Fields| text(one, "Status") == Some("AUTHORISED");
    if old.as_ref().is_some_and(|old| !stands(old)) {
        wrong.push("Bank transaction not of valid status for modification".to_owned());
    }
    if old.as_ref().and_then(|old| old.get("IsReconciled")) == Some(&json!(true)) {
        wrong.push("This Bank Transaction cannot be edited as it has been reconciled with a Bank Statement.".to_owned());
    }
    let kind = text(&value, "Type").unwrap_or_default().to_owned();
    if kind.is_empty() {
        wrong.push("The bank transaction Type must be specified".to_owned());
    }
    let currency = text(&value, "CurrencyCode").unwrap_or_default();
    if !books.enabled(currency) {
        wrong.push(format!(
            "Organisation is not subscribed to currency {currency}"
        ));
    }
    let rate = match currency == base {
        true => Decimal::ONE,
        false => books.rate(currency),
    };
    for fields in old.iter().chain([&value]) {
        wrong.extend(date(fields, "Date").and_then(|on| books.locked(on)));
    }
    let account = one(&value, "BankAccount").and_then(|account| {
        let by_id = text(account, "AccountID").and_then(|id| books.get(Kind::Account, id));
        by_id.or_else(|| text(account, "Code").and_then(|code| books.account(code)))
    });
    let account = account.filter(|account| text(account, "Type") == Some("BANK"));
    let account = account.and_then(|account| text(account, "AccountID"));
    let account = account
        .or_else(|| text(&value, "_account"))
        .map(str::to_owned);
    if account.is_none() {
        wrong.push("A BankAccount of the type BANK must be specified".to_owned());
    }
    let party = match one(&value, "Contact") {
        Some(sent) => contacts::party(books, sent).map(Some),
        None if old.is_some() => Ok(None),
        None => Err(vec![
            "A Contact must be specified for this type of transaction".into(),
        ]),
    };
    let asked = Asked {
        types: text(&value, "LineAmountTypes").unwrap_or("Exclusive"),
        counts: true,
        discounts: false,
        sale: kind == "RECEIVE",
    };
    let empty = Vec::new();
    let before = old.as_ref().and_then(|old| list(old, "LineItems"));
    let given = list(&value, "LineItems").unwrap_or(&empty);
    if given.is_empty() {
        wrong.push("One or more line items must be specified".to_owned());
    }
    let read = lines::read(books, given, before.unwrap_or(&empty), &asked);
    wrong.extend(read.as_ref().err().into_iter().flatten().cloned());
    wrong.extend(party.as_ref().err().into_iter().flatten().cloned());
    wrong.dedup();
    let (Ok(read), Ok(party), true) = (read, party, wrong.is_empty()) else {
        return Err(wrong);
    };
    set(&mut value, "CurrencyRate", money::number(rate));
    set(&mut value, "SubTotal", money::number(read.sub_total));
    set(&mut value, "TotalTax", money::number(read.total_tax));
    set(&mut value, "Total", money::number(read.total()));
    set(&mut value, "LineItems", read.lines);
    set(&mut value, "_account", account);
    value.remove("Contact");
    value.remove("BankAccount");
    if let Some(party) = party {
        set(&mut value, "_contact", party.keep(books));
    }
    if !value.contains_key("BankTransactionID") {
        set(&mut value, "BankTransactionID", books.new_id());
    }
    let id = text(&value, "BankTransactionID")
        .unwrap_or_default()
        .to_owned();
    books.put(Kind::BankTransaction, value);
    Ok(id)
}

pub fn render(organisation: &Organisation, value: &Fields, detail: Detail) -> Fields {
    let mut out = shown(value);
    // An end of a transfer has none.
    if let Some(contact) = text(value, "_contact") {
        let contact = contacts::within(organisation, contact, detail == Detail::Whole);
        set(&mut out, "Contact", contact);
    }
    let account = text(value, "_account").and_then(|id| organisation.shelf(Kind::Account).get(id));
    if let Some(account) = account {
        let shown = json!({
            "AccountID": account["AccountID"],
            "Code": account["Code"],
            "Name": account["Name"],
        });
        set(&mut out, "BankAccount", shown);
    }
    if !matches!(detail, Detail::Whole | Detail::Paged) {
        set(&mut out, "LineItems", Value::Array(Vec::new()));
    }
    for (name, usual) in [("IsReconciled", false), ("HasAttachments", false)] {
        out.entry(name).or_insert(json!(usual));
    }
    out
}
