//! Credit that is set off against invoices.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, amount, date, one, set};
use super::documents::{self, CREDIT_NOTE, INVOICE};
use super::state::{Fields, Kind, Organisation, text};
use super::wire::day;
use crate::standins::money::{self, cents};

/// Sets credit off against an invoice and answers the id of the allocation.
pub fn allocate(books: &mut Books<'_>, note: &str, sent: &Fields) -> Result<String, Vec<String>> {
    let mut wrong = Vec::new();
    let note = books
        .get(Kind::CreditNote, note)
        .cloned()
        .unwrap_or_default();
    let wanted = one(sent, "Invoice")
        .and_then(|invoice| text(invoice, "InvoiceID").or_else(|| text(invoice, "InvoiceNumber")));
    let invoice = wanted.and_then(|one| documents::found(books.organisation(), &INVOICE, one));
    let Some(invoice) = invoice.cloned() else {
        return Err(vec!["The invoice to allocate to was not found".into()]);
    };
    let given = cents(amount(sent, "Amount").unwrap_or_default());
    let on = date(sent, "Date").unwrap_or(books.today());
    if given <= Decimal::ZERO {
        wrong.push("The amount to allocate must be greater than zero".to_owned());
    }
    let authorised = |one: &Fields| text(one, "Status") == Some("AUTHORISED");
    if !authorised(&note) || !authorised(&invoice) {
        wrong.push("Credit can only be allocated between Authorised documents".to_owned());
    }
    if note.get("_contact") != invoice.get("_contact") {
        wrong.push("Credit can only be allocated to an invoice of the same contact".to_owned());
    }
    if note.get("CurrencyCode") != invoice.get("CurrencyCode") {
        wrong.push("Credit can only be allocated to an invoice of the same currency".to_owned());
    }
    let same_side = text(&note, "Type").map(|one| one.replace("CREDIT", ""));
    if same_side.as_deref() != text(&invoice, "Type") {
        wrong.push("Credit can only be allocated to an invoice of the same type".to_owned());
    }
    if given > amount(&note, "RemainingCredit").unwrap_or_default() {
        wrong.push("The amount exceeds the remaining credit".to_owned());
    }
    if given > amount(&invoice, "AmountDue").unwrap_or_default() {
        wrong.push("The amount exceeds the amount outstanding on this document".to_owned());
    }
    wrong.extend(books.locked(on));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let id = books.new_id();
    let mut value = Fields::new();
    set(&mut value, "AllocationID", id.as_str());
    set(&mut value, "Amount", money::number(given));
    set(&mut value, "Date", on.to_string());
    value.insert("_note".into(), note["CreditNoteID"].clone());
    value.insert("_invoice".into(), invoice["InvoiceID"].clone());
    books.put(Kind::Allocation, value.clone());
    settle(books, &value);
    Ok(id)
}

fn settle(books: &mut Books<'_>, allocation: &Fields) {
    documents::settle(
        books,
        Kind::CreditNote,
        text(allocation, "_note").unwrap_or_default(),
    );
    documents::settle(
        books,
        Kind::Invoice,
        text(allocation, "_invoice").unwrap_or_default(),
    );
}

/// Takes an allocation back, or says why not.
pub fn release(books: &mut Books<'_>, id: &str) -> Result<(), String> {
    let Some(mut value) = books.get(Kind::Allocation, id).cloned() else {
        return Ok(());
    };
    if let Some(locked) = date(&value, "Date").and_then(|on| books.locked(on)) {
        return Err(locked);
    }
    set(&mut value, "IsDeleted", true);
    books.put(Kind::Allocation, value.clone());
    settle(books, &value);
    Ok(())
}

/// An allocation as it stands in its credit note.
pub fn shown_allocation(organisation: &Organisation, one: &Fields) -> Value {
    let invoice = text(one, "_invoice").unwrap_or_default();
    let number = organisation
        .shelf(Kind::Invoice)
        .get(invoice)
        .and_then(|invoice| invoice.get("InvoiceNumber"));
    json!({
        "AllocationID": one["AllocationID"],
        "Amount": one["Amount"],
        "Date": date(one, "Date").map(day),
        "Invoice": {"InvoiceID": invoice, "InvoiceNumber": number},
        "IsDeleted": one.get("IsDeleted").unwrap_or(&json!(false)),
    })
}

/// Whether the credit note is one of the books.
pub fn known<'a>(books: &'a Books<'_>, name: &str) -> Option<&'a str> {
    let note = documents::found(books.organisation(), &CREDIT_NOTE, name)?;
    text(note, "CreditNoteID")
}
