//! Payments, what they settle, and the balances that follow from them.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::books::{Books, stamp};
use super::fault::Fault;
use super::money::{self, cents, number};
use super::names::{lengths, reference_to};
use super::sales::{deposit, home_amount, parties};
use super::state::text;

type Fields = Map<String, Value>;

/// Documents that a payment may name, by the type that it gives them.
const SETTLED: [&str; 2] = ["Invoice", "CreditMemo"];

pub fn payment(
    books: &Books<'_>,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let total = fields
        .get("TotalAmt")
        .and_then(money::decimal)
        .map(cents)
        .ok_or_else(|| Fault::missing("TotalAmt"))?;
    if total < Decimal::ZERO {
        return Err(Fault::business("Transaction amount must be 0 or greater."));
    }
    lengths(fields, &[("PaymentRefNum", 21), ("PrivateNote", 4000)])?;
    let currency = parties(books, "Payment", fields)?;
    let customer = fields["CustomerRef"]["value"].clone();
    let mut applied = Decimal::ZERO;
    for line in fields
        .get("Line")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let amount = line
            .get("Amount")
            .and_then(money::decimal)
            .ok_or_else(|| Fault::missing("Line.Amount"))?;
        let links = line.get("LinkedTxn").and_then(Value::as_array);
        let Some([link]) = links.map(Vec::as_slice) else {
            return Err(Fault::missing("LinkedTxn"));
        };
        let document = linked(books, link)?;
        if document["CustomerRef"]["value"] != customer {
            return Err(Fault::business(
                "A payment can settle documents of its own customer only.",
            ));
        }
        if document["CurrencyRef"]["value"] != json!(currency) {
            return Err(Fault::business(
                "A payment must be in the currency of what it settles.",
            ));
        }
        let open = open_amount(books, link, before);
        if amount > open {
            return Err(Fault::business(format!(
                "The amount applied ({amount}) is more than what is open ({open})."
            )));
        }
        match text(link, "TxnType") {
            Some("CreditMemo") => applied -= amount,
            _ => applied += amount,
        }
    }
    if applied > total {
        return Err(Fault::business(
            "The amounts applied are more than the payment.",
        ));
    }
    fields.insert("TotalAmt".to_owned(), number(total));
    fields.insert("UnappliedAmt".to_owned(), number(total - applied));
    fields.entry("ProcessPayment").or_insert(json!(false));
    home_amount(books, fields, &currency, total);
    deposit(books, "Payment", fields, &currency)?;
    if let Some(reference) = fields.get("PaymentMethodRef") {
        let method = books.referenced("PaymentMethod", reference)?;
        fields.insert("PaymentMethodRef".to_owned(), reference_to(&method, "Name"));
    }
    let today = stamp(books.now)[..10].to_owned();
    fields.entry("TxnDate").or_insert(json!(today));
    Ok(())
}

fn linked(books: &Books<'_>, link: &Value) -> Result<Value, Fault> {
    let kind = text(link, "TxnType").unwrap_or_default();
    let id = text(link, "TxnId").unwrap_or_default();
    SETTLED
        .into_iter()
        .find(|known| *known == kind)
        .and_then(|kind| books.company().get(kind, id.parse().ok()?))
        .cloned()
        .ok_or_else(|| {
            Fault::new(
                "620",
                "Txn ID Cannot Be Linked",
                format!("The Txn ID {id} cannot be linked"),
            )
        })
}

/// What is open on a document, leaving out what the payment's earlier version took.
fn open_amount(books: &Books<'_>, link: &Value, before: Option<&Value>) -> Decimal {
    let kind = text(link, "TxnType").unwrap_or_default();
    let id = text(link, "TxnId").unwrap_or_default();
    let balance = linked(books, link)
        .ok()
        .and_then(|document| money::decimal(&document["Balance"]))
        .unwrap_or_default();
    balance
        + before
            .map(|before| taken(before, kind, id))
            .unwrap_or_default()
}

/// What one payment applies to one document.
fn taken(payment: &Value, kind: &str, id: &str) -> Decimal {
    payment["Line"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|line| {
            let link = &line["LinkedTxn"][0];
            text(link, "TxnType") == Some(kind) && text(link, "TxnId") == Some(id)
        })
        .filter_map(|line| money::decimal(&line["Amount"]))
        .sum()
}

/// A document that a payment settles cannot go before the payment does.
pub fn may_leave(books: &Books<'_>, entity: &str, id: u64) -> Result<(), Fault> {
    let key = id.to_string();
    let held = SETTLED.contains(&entity)
        && books
            .company()
            .payments_of(entity, id)
            .any(|(_, payment)| !taken(payment, entity, &key).is_zero());
    if held {
        return Err(Fault::new(
            "800",
            "Cannot delete object",
            "The object can't be deleted due to existing dependencies. Delete those dependencies first.",
        ));
    }
    Ok(())
}

/// Works out again every balance that a change of this document touches.
pub fn settle(books: &mut Books<'_>, entity: &str, id: u64, before: Option<&Value>) {
    if entity != "Payment" && !SETTLED.contains(&entity) {
        return;
    }
    let after = books.company().get(entity, id).cloned();
    let versions: Vec<&Value> = before.into_iter().chain(after.as_ref()).collect();
    let mut documents = BTreeSet::new();
    if entity != "Payment" && after.is_some() {
        documents.insert((entity.to_owned(), id));
    }
    for line in versions
        .iter()
        .flat_map(|version| version["Line"].as_array())
        .flatten()
    {
        let link = &line["LinkedTxn"][0];
        if let (Some(kind), Some(Ok(id))) =
            (text(link, "TxnType"), text(link, "TxnId").map(str::parse))
        {
            documents.insert((kind.to_owned(), id));
        }
    }
    for (kind, id) in documents {
        settle_document(books, &kind, id);
    }
    let customers: BTreeSet<u64> = versions
        .iter()
        .filter_map(|version| version["CustomerRef"]["value"].as_str()?.parse().ok())
        .collect();
    for customer in customers {
        settle_customer(books, customer);
    }
}

fn settle_document(books: &mut Books<'_>, kind: &str, id: u64) {
    let Some(mut document) = books.company().get(kind, id).cloned() else {
        return;
    };
    let key = id.to_string();
    let mut applied = Decimal::ZERO;
    let mut links = Vec::new();
    for (payment_id, payment) in books.company().payments_of(kind, id) {
        let part = taken(payment, kind, &key);
        if !part.is_zero() {
            applied += part;
            links.push(json!({"TxnId": payment_id.to_string(), "TxnType": "Payment"}));
        }
    }
    let total = money::decimal(&document["TotalAmt"]).unwrap_or_default();
    document["Balance"] = number(total - applied);
    if kind == "CreditMemo" {
        document["RemainingCredit"] = number(total - applied);
    }
    document["LinkedTxn"] = Value::Array(links);
    books.put(kind, id, document);
}

fn settle_customer(books: &mut Books<'_>, id: u64) {
    let Some(mut customer) = books.company().get("Customer", id).cloned() else {
        return;
    };
    let balance = books.company().balance(id);
    customer["Balance"] = number(balance);
    customer["BalanceWithJobs"] = number(balance);
    books.put("Customer", id, customer);
}
