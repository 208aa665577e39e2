//! Money on its way from one bank account to another. Each end of it also stands among the bank
//! transactions, as the vendor says on its page about them
//! (<https://developer.xero.com/documentation/api/accounting/banktransfers>).

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, Saved, amount, date, one, set};
use super::state::{Fields, Kind, Organisation, text};
use super::wire::{moment, shown};
use crate::standins::money::{self, cents};

const ENDS: [(&str, &str, &str, &str); 2] = [
    (
        "FromBankAccount",
        "_from",
        "SPEND-TRANSFER",
        "FromBankTransactionID",
    ),
    (
        "ToBankAccount",
        "_to",
        "RECEIVE-TRANSFER",
        "ToBankTransactionID",
    ),
];

/// Whether a bank transaction is an end of a transfer, which only the transfer changes.
pub fn is_end(transaction: &Fields) -> bool {
    ENDS.iter()
        .any(|(_, _, kind, _)| text(transaction, "Type") == Some(kind))
}

fn account<'a>(books: &'a Books<'_>, sent: &Fields, name: &str) -> Option<&'a Fields> {
    let inside = one(sent, name)?;
    let by_code = || text(inside, "Code").and_then(|code| books.account(code));
    let found = match text(inside, "AccountID") {
        Some(id) => books.get(Kind::Account, id),
        None => by_code(),
    };
    found.filter(|one| text(one, "Type") == Some("BANK") && text(one, "Status") == Some("ACTIVE"))
}

/// Makes a transfer; one that is named by its id can only be deleted.
pub fn save(books: &mut Books<'_>, sent: &Fields) -> Saved {
    match text(sent, "BankTransferID") {
        Some(id) => delete(books, id, sent),
        None => create(books, sent),
    }
}

fn create(books: &mut Books<'_>, sent: &Fields) -> Saved {
    let mut wrong = Vec::new();
    let base = books.settings().base_currency;
    let [from, to] = ENDS.map(|(name, ..)| {
        let found = account(books, sent, name);
        let found = found.map(|one| {
            let currency = text(one, "CurrencyCode").unwrap_or(&base);
            (
                text(one, "AccountID").unwrap_or_default().to_owned(),
                currency.to_owned(),
            )
        });
        (name, found)
    });
    for (name, found) in [&from, &to] {
        if found.is_none() {
            wrong.push(format!("A {name} of the type BANK must be specified"));
        }
    }
    let given = cents(amount(sent, "Amount").unwrap_or_default());
    if given <= Decimal::ZERO {
        wrong.push("The transfer amount must be greater than zero".to_owned());
    }
    let on = date(sent, "Date").unwrap_or(books.today());
    wrong.extend(books.locked(on));
    let (Some(from), Some(to)) = (from.1, to.1) else {
        return Err(wrong);
    };
    if from.0 == to.0 {
        wrong.push("Money cannot be transferred to the account that it comes from".to_owned());
    }
    if from.1 != to.1 {
        wrong.push("Transfers between accounts in different currencies are not supported".into());
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut value = Fields::new();
    set(&mut value, "Date", on.to_string());
    set(&mut value, "Amount", money::number(given));
    set(&mut value, "Status", "AUTHORISED");
    let rate = match from.1 == base {
        true => Decimal::ONE,
        false => books.rate(&from.1),
    };
    set(&mut value, "CurrencyRate", money::number(rate));
    set(&mut value, "_made", books.now.timestamp_millis());
    let reference = text(sent, "Reference").unwrap_or_default();
    set(&mut value, "Reference", reference);
    for ((_, own, kind, id), account) in ENDS.into_iter().zip([&from.0, &to.0]) {
        let flag = match own {
            "_from" => "FromIsReconciled",
            _ => "ToIsReconciled",
        };
        let reconciled = sent.get(flag).cloned().unwrap_or(json!(false));
        let mut end = Fields::new();
        let transaction = books.new_id();
        set(&mut end, "BankTransactionID", transaction.as_str());
        set(&mut end, "Type", kind);
        set(&mut end, "Status", "AUTHORISED");
        set(&mut end, "Date", on.to_string());
        set(&mut end, "CurrencyCode", from.1.as_str());
        set(&mut end, "Reference", reference);
        set(&mut end, "LineAmountTypes", "NoTax");
        set(&mut end, "LineItems", json!([]));
        set(&mut end, "IsReconciled", reconciled.clone());
        for (name, amount) in [
            ("SubTotal", given),
            ("TotalTax", Decimal::ZERO),
            ("Total", given),
        ] {
            set(&mut end, name, money::number(amount));
        }
        set(&mut end, "_account", account.as_str());
        books.put(Kind::BankTransaction, end);
        set(&mut value, id, transaction);
        set(&mut value, own, account.as_str());
        set(&mut value, flag, reconciled);
    }
    let id = books.new_id();
    set(&mut value, "BankTransferID", id.as_str());
    books.put(Kind::BankTransfer, value);
    Ok(id)
}

fn delete(books: &mut Books<'_>, id: &str, sent: &Fields) -> Saved {
    let Some(mut value) = books.get(Kind::BankTransfer, id).cloned() else {
        return Err(vec![format!(
            "No bank transfer was found with the BankTransferID {id}"
        )]);
    };
    if text(sent, "Status") != Some("DELETED") {
        return Err(vec![
            "A bank transfer cannot be changed, only deleted".into(),
        ]);
    }
    let mut wrong = Vec::new();
    if text(&value, "Status") != Some("AUTHORISED") {
        wrong.push("Bank transfer not of valid status for modification".to_owned());
    }
    wrong.extend(date(&value, "Date").and_then(|on| books.locked(on)));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    for (.., end) in ENDS {
        let end = text(&value, end).unwrap_or_default();
        if let Some(mut end) = books.get(Kind::BankTransaction, end).cloned() {
            set(&mut end, "Status", "DELETED");
            books.put(Kind::BankTransaction, end);
        }
    }
    set(&mut value, "Status", "DELETED");
    books.put(Kind::BankTransfer, value);
    Ok(id.to_owned())
}

/// A transfer shows when it was made, and not when it changed.
pub fn render(organisation: &Organisation, value: &Fields) -> Fields {
    let mut out = shown(value);
    out.remove("UpdatedDateUTC");
    let made = value["_made"].as_i64().unwrap_or_default();
    set(&mut out, "CreatedDateUTC", moment(made));
    for (name, own, ..) in ENDS {
        let found = text(value, own).and_then(|id| organisation.shelf(Kind::Account).get(id));
        if let Some(account) = found {
            let shown: Value = json!({
                "AccountID": account["AccountID"],
                "Code": account["Code"],
                "Name": account["Name"],
            });
            set(&mut out, name, shown);
        }
    }
    set(&mut out, "HasAttachments", false);
    out
}
