//! Rules of journal entries.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::books::{Books, stamp};
use super::fault::Fault;
use super::money::{self, cents, number};
use super::names::{self, lengths, reference_to};
use super::state::text;

type Fields = Map<String, Value>;

/// The vendor keeps no total of an entry in its answers, though its schema has one: it is what the debits
/// make.
pub fn journal_entry(books: &Books<'_>, fields: &mut Fields) -> Result<(), Fault> {
    lengths(fields, &[("DocNumber", 21), ("PrivateNote", 4000)])?;
    let currency = currency(books, fields)?;
    let Some(Value::Array(lines)) = fields.get_mut("Line") else {
        return Err(Fault::missing("Line"));
    };
    let mut sums = (Decimal::ZERO, Decimal::ZERO);
    let mut owed = BTreeSet::new();
    for (place, line) in lines.iter_mut().enumerate() {
        match text(line, "DetailType") {
            Some("JournalEntryLineDetail") => {}
            Some("DescriptionOnly") => continue,
            Some(other) => {
                return Err(Fault::business(format!(
                    "A line of type {other} cannot be used on this form."
                )));
            }
            None => return Err(Fault::missing("DetailType")),
        }
        let length = text(line, "Description").map_or(0, |words| words.chars().count());
        if length > 4000 {
            return Err(Fault::length("Line.Description", 4000, length));
        }
        let amount = line.get("Amount").and_then(money::decimal).map(cents);
        let amount = amount.ok_or_else(|| Fault::missing("Amount"))?;
        if amount < Decimal::ZERO {
            return Err(Fault::business("Transaction amount must be 0 or greater."));
        }
        line["Amount"] = number(amount);
        line["Id"] = json!(place.to_string());
        let detail = line
            .get_mut("JournalEntryLineDetail")
            .ok_or_else(|| Fault::missing("JournalEntryLineDetail"))?;
        match text(detail, "PostingType") {
            Some("Debit") => sums.0 += amount,
            Some("Credit") => sums.1 += amount,
            _ => return Err(Fault::missing("PostingType")),
        }
        let account = detail
            .get("AccountRef")
            .ok_or_else(|| Fault::missing("AccountRef"))?;
        let account = books.referenced("Account", account)?;
        detail["AccountRef"] = reference_to(&account, "Name");
        if let Some(kind) = named(detail, &account)? {
            owed.insert(kind);
        }
        in_currency(books, &account, &currency)?;
    }
    if owed.len() > 1 {
        return Err(Fault::business(
            "You can use only one Accounts Receivable or Accounts Payable account in a transaction.",
        ));
    }
    // In the words of the vendor's own page; the number is its catch-all for what a form must keep to.
    if sums.0 != sums.1 {
        return Err(Fault::business("Please balance debits and credits."));
    }
    if sums.0.is_zero() {
        return Err(Fault::business("You must set a transaction amount."));
    }
    let today = stamp(books.now)[..10].to_owned();
    fields.entry("TxnDate").or_insert(json!(today));
    fields.entry("Adjustment").or_insert(json!(false));
    fields.entry("TxnTaxDetail").or_insert(json!({}));
    fields.remove("TotalAmt");
    if currency != books.home_currency() {
        let given = fields.get("ExchangeRate").and_then(money::decimal);
        let rate = given.unwrap_or_else(|| money::rate(&currency, &books.home_currency()));
        fields.insert("ExchangeRate".to_owned(), number(rate));
    }
    Ok(())
}

fn currency(books: &Books<'_>, fields: &mut Fields) -> Result<String, Fault> {
    let home = books.home_currency();
    let asked = fields.get("CurrencyRef");
    let asked = asked
        .and_then(|asked| text(asked, "value"))
        .map(str::to_owned);
    if !books.multicurrency() && (asked.is_some() || fields.contains_key("ExchangeRate")) {
        return Err(names::no_multicurrency());
    }
    let currency = asked.unwrap_or(home);
    names::currency_is_known(&currency)?;
    fields.insert("CurrencyRef".to_owned(), names::currency_ref(&currency));
    Ok(currency)
}

/// Who owes or is owed what stands on an account of debts, which has to be told of each line.
fn named(detail: &Value, account: &Value) -> Result<Option<String>, Fault> {
    let (kind, who) = match text(account, "AccountType") {
        Some(kind @ "Accounts Receivable") => (kind, ("Customer", "customer")),
        Some(kind @ "Accounts Payable") => (kind, ("Vendor", "vendor")),
        _ => return Ok(None),
    };
    let entity = &detail["Entity"];
    let told = text(entity, "Type") == Some(who.0)
        && text(&entity["EntityRef"], "value").is_some_and(|id| !id.is_empty());
    match told {
        true => Ok(text(account, "Id").map(str::to_owned)),
        false => Err(Fault::business(format!(
            "When you use {kind}, you must choose a {} in the Name field.",
            who.1
        ))),
    }
}

fn in_currency(books: &Books<'_>, account: &Value, currency: &str) -> Result<(), Fault> {
    let held = account["CurrencyRef"]["value"].as_str();
    match held.is_some_and(|held| held != currency && held != books.home_currency()) {
        true => Err(Fault::business(
            "The account must be in the currency of the transaction or in the home currency.",
        )),
        false => Ok(()),
    }
}
