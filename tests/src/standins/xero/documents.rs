//! What invoices and credit notes have in common: numbers, statuses, lock dates, currencies, lines.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, Mode, Saved, amount, date, list, one, set};
use super::contacts::{self, Party};
use super::lines::{self, Asked, Lines};
use super::state::{Fields, Kind, Organisation, text};
use super::wire::{day, moment, shown};
use crate::standins::money;

pub struct Spec {
    pub kind: Kind,
    /// As messages call it.
    pub name: &'static str,
    pub number: &'static str,
    pub prefix: &'static str,
    /// The one of a sale first, and the one of a purchase.
    pub types: [&'static str; 2],
    pub discounts: bool,
    pub due: bool,
}

pub const INVOICE: Spec = Spec {
    kind: Kind::Invoice,
    name: "Invoice",
    number: "InvoiceNumber",
    prefix: "INV-",
    types: ["ACCREC", "ACCPAY"],
    discounts: true,
    due: true,
};

pub const CREDIT_NOTE: Spec = Spec {
    kind: Kind::CreditNote,
    name: "Credit note",
    number: "CreditNoteNumber",
    prefix: "CN-",
    types: ["ACCRECCREDIT", "ACCPAYCREDIT"],
    discounts: false,
    due: false,
};

/// What may still be changed once money was allocated to a document.
const HARMLESS: [&str; 12] = [
    "InvoiceID",
    "CreditNoteID",
    "InvoiceNumber",
    "CreditNoteNumber",
    "Reference",
    "DueDate",
    "Url",
    "SentToContact",
    "BrandingThemeID",
    "ExpectedPaymentDate",
    "PlannedPaymentDate",
    "Type",
];

fn not_modifiable(spec: &Spec) -> String {
    format!("{} not of valid status for modification", spec.name)
}

const ALLOCATED: &str =
    "This document cannot be edited as it has a payment or credit note allocated to it.";

/// The other document that has this number, which only those that were deleted give free.
fn numbered<'a>(books: &'a Books<'_>, spec: &Spec, number: &str) -> Option<&'a Fields> {
    let mut found = books.shelf(spec.kind).with(spec.number, number);
    found.find(|one| {
        text(one, "Type") == Some(spec.types[0]) && text(one, "Status") != Some("DELETED")
    })
}

/// The document of this id or number.
pub fn found<'a>(organisation: &'a Organisation, spec: &Spec, name: &str) -> Option<&'a Fields> {
    let shelf = organisation.shelf(spec.kind);
    shelf.get(name).or_else(|| {
        let mut all: Vec<&Fields> = shelf.with(spec.number, name).collect();
        all.sort_by_key(|one| text(one, "Status") == Some("DELETED"));
        all.first().copied()
    })
}

/// Makes or changes one.
pub fn save(books: &mut Books<'_>, spec: &Spec, sent: &Fields, mode: Mode) -> Saved {
    let id = text(sent, spec.kind.id());
    let number = text(sent, spec.number).filter(|number| !number.is_empty());
    let sale = |one: &Fields| text(one, "Type").is_none_or(|one| one == spec.types[0]);
    let old = match (mode, id, number) {
        (Mode::Create, Some(id), _) => {
            return Err(vec![format!("A new document must not have the ID {id}")]);
        }
        (Mode::Upsert, Some(id), _) => match books.get(spec.kind, id) {
            Some(old) => Some(old.clone()),
            None => return Err(vec![format!("No document was found with the ID {id}")]),
        },
        (Mode::Upsert, None, Some(number)) if sale(sent) => numbered(books, spec, number).cloned(),
        _ => None,
    };
    match old {
        Some(old) => change(books, spec, &old, sent),
        None => create(books, spec, sent),
    }
}

fn create(books: &mut Books<'_>, spec: &Spec, sent: &Fields) -> Saved {
    let mut value = sent.clone();
    let mut wrong = Vec::new();
    let kind = text(sent, "Type").unwrap_or_default().to_owned();
    if !spec.types.contains(&kind.as_str()) {
        wrong.push(format!("{} type must be specified", spec.name));
    }
    if !value.contains_key("Status") {
        set(&mut value, "Status", "DRAFT");
    }
    let status = text(&value, "Status").unwrap_or_default();
    if !matches!(status, "DRAFT" | "SUBMITTED" | "AUTHORISED") {
        wrong.push(not_modifiable(spec));
    }
    if !value.contains_key("Date") {
        set(&mut value, "Date", books.today().to_string());
    }
    if !value.contains_key("CurrencyCode") {
        set(&mut value, "CurrencyCode", books.settings().base_currency);
    }
    value
        .entry("LineAmountTypes")
        .or_insert_with(|| json!("Exclusive"));
    if !value.contains_key("Contact") {
        wrong.push("A Contact must be specified for this type of transaction".to_owned());
    }
    if list(&value, "LineItems").is_none_or(Vec::is_empty) {
        wrong.push("One or more line items must be specified".to_owned());
    }
    finish(books, spec, None, value, wrong)
}

fn change(books: &mut Books<'_>, spec: &Spec, old: &Fields, sent: &Fields) -> Saved {
    let status = text(old, "Status").unwrap_or_default();
    let wanted = text(sent, "Status").unwrap_or(status);
    let allowed = match status {
        "DRAFT" => matches!(wanted, "DRAFT" | "SUBMITTED" | "AUTHORISED" | "DELETED"),
        "SUBMITTED" => matches!(wanted, "DRAFT" | "SUBMITTED" | "AUTHORISED" | "DELETED"),
        "AUTHORISED" => matches!(wanted, "AUTHORISED" | "VOIDED"),
        "PAID" => wanted == "PAID",
        _ => false,
    };
    let mut wrong = Vec::new();
    if !allowed {
        wrong.push(not_modifiable(spec));
    }
    if text(sent, "Type").is_some_and(|kind| Some(kind) != text(old, "Type")) {
        wrong.push("The type of a document cannot be changed".to_owned());
    }
    let id = text(old, spec.kind.id()).unwrap_or_default();
    let allocated = allocated(books, id);
    if allocated || status == "PAID" {
        let financial = sent.iter().any(|(name, value)| match name.as_str() {
            "Status" => wanted != status,
            "Contact" => !is_same_contact(old, value),
            name => !HARMLESS.contains(&name),
        });
        if financial {
            wrong.push(not_modifiable(spec));
            if allocated {
                wrong.push(ALLOCATED.to_owned());
            }
        }
    }
    if let Some(date) = date(old, "Date")
        && let Some(locked) = books.locked(date)
    {
        wrong.push(locked);
    }
    wrong.dedup();
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut value = old.clone();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    if sent.contains_key("CurrencyCode") && !sent.contains_key("CurrencyRate") {
        value.remove("CurrencyRate");
    }
    finish(books, spec, Some(old), value, wrong)
}

fn is_same_contact(old: &Fields, sent: &Value) -> bool {
    let only = sent.as_object().is_some_and(|sent| sent.len() == 1);
    only && sent["ContactID"].as_str().is_some()
        && sent["ContactID"].as_str() == text(old, "_contact")
}

/// Checks what a new and a changed document have to keep to alike, and keeps it.
fn finish(
    books: &mut Books<'_>,
    spec: &Spec,
    old: Option<&Fields>,
    mut value: Fields,
    mut wrong: Vec<String>,
) -> Saved {
    let id = old
        .and_then(|old| text(old, spec.kind.id()))
        .map(str::to_owned);
    let sale = text(&value, "Type") == Some(spec.types[0]);
    let status = text(&value, "Status").unwrap_or_default().to_owned();
    let ends = matches!(status.as_str(), "VOIDED" | "DELETED");
    let counts = matches!(status.as_str(), "SUBMITTED" | "AUTHORISED");
    if let Some(number) = text(&value, spec.number).filter(|number| sale && !number.is_empty())
        && let Some(other) = numbered(books, spec, number)
        && text(other, spec.kind.id()) != id.as_deref()
    {
        wrong.push(format!("{} # must be unique.", spec.name));
    }
    if let Some(date) = date(&value, "Date")
        && let Some(locked) = books.locked(date)
    {
        wrong.push(locked);
    }
    if spec.due && counts && !value.contains_key("DueDate") {
        wrong.push("The DueDate must be specified for an approved invoice".to_owned());
    }
    currency(books, &mut value, &mut wrong);
    let party = match one(&value, "Contact") {
        Some(sent) => contacts::party(books, sent).map(Some),
        None => Ok(None),
    };
    let party = party.unwrap_or_else(|problems| {
        wrong.extend(problems);
        None
    });
    let asked = Asked {
        types: text(&value, "LineAmountTypes").unwrap_or("Exclusive"),
        counts,
        discounts: spec.discounts && sale,
        sale,
    };
    let empty = Vec::new();
    let before = old.and_then(|old| list(old, "LineItems")).unwrap_or(&empty);
    let sent = list(&value, "LineItems").unwrap_or(&empty);
    // A document that ends keeps its lines as they are, whatever became of their accounts.
    let untouched = old.is_some() && (ends || sent == before && !recount(old, &value));
    let lines = match untouched {
        true => None,
        false => match lines::read(books, sent, before, &asked) {
            Ok(lines) => Some(lines),
            Err(problems) => {
                wrong.extend(problems);
                None
            }
        },
    };
    if let Some(lines) = lines {
        totals(spec, &mut value, lines, &mut wrong);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    keep(books, spec, id, value, party)
}

/// Whether lines that did not change have to be added up all the same.
fn recount(old: Option<&Fields>, value: &Fields) -> bool {
    let changed = |name| old.and_then(|old| old.get(name)) != value.get(name);
    changed("LineAmountTypes") || changed("Status") || changed("RoundingAmount")
}

fn currency(books: &Books<'_>, value: &mut Fields, wrong: &mut Vec<String>) {
    let settings = books.settings();
    let code = text(value, "CurrencyCode")
        .unwrap_or_default()
        .to_uppercase();
    if !books.enabled(&code) {
        wrong.push(format!("Organisation is not subscribed to currency {code}"));
    }
    let given = amount(value, "CurrencyRate").filter(|rate| *rate > Decimal::ZERO);
    let rate = match given {
        _ if code == settings.base_currency => Decimal::ONE,
        Some(rate) => rate.round_dp(6),
        None => books.rate(&code),
    };
    set(value, "CurrencyRate", money::number(rate));
    set(value, "CurrencyCode", code);
}

fn totals(spec: &Spec, value: &mut Fields, lines: Lines, wrong: &mut Vec<String>) {
    let mut total = lines.total();
    if let Some(rounding) = amount(value, "RoundingAmount").filter(|one| !one.is_zero()) {
        let given = ["SubTotal", "TotalTax", "Total"].map(|name| amount(value, name));
        let expected = [lines.sub_total, lines.total_tax, lines.total() + rounding];
        if rounding.abs() > Decimal::new(10, 2) || given != expected.map(Some) {
            wrong.push("The RoundingAmount must be within 0.10, and SubTotal, TotalTax and Total must be specified and add up with it".to_owned());
        }
        total += rounding;
    }
    if total < Decimal::ZERO {
        wrong.push("The document total must not be negative".to_owned());
    }
    set(value, "SubTotal", money::number(lines.sub_total));
    set(value, "TotalTax", money::number(lines.total_tax));
    set(value, "Total", money::number(total));
    if spec.kind == Kind::Invoice {
        set(value, "IsDiscounted", !lines.discount.is_zero());
        value.remove("TotalDiscount");
        if !lines.discount.is_zero() {
            set(value, "TotalDiscount", money::number(lines.discount));
        }
    }
    set(value, "LineItems", lines.lines);
}

fn keep(
    books: &mut Books<'_>,
    spec: &Spec,
    id: Option<String>,
    mut value: Fields,
    party: Option<Party>,
) -> Saved {
    value.remove("Contact");
    if let Some(party) = party {
        let contact = party.keep(books);
        set(&mut value, "_contact", contact);
    }
    let id = id.unwrap_or_else(|| books.new_id());
    set(&mut value, spec.kind.id(), id.as_str());
    let sale = text(&value, "Type") == Some(spec.types[0]);
    if text(&value, spec.number).is_none_or(str::is_empty) && sale {
        let number = next_number(books, spec);
        set(&mut value, spec.number, number);
    }
    value = settled(books, spec.kind, value);
    books.put(spec.kind, value);
    Ok(id)
}

/// The next number of the organisation's own sequence that nobody took.
fn next_number(books: &Books<'_>, spec: &Spec) -> String {
    let made = books.shelf(spec.kind).all().count();
    (made + 1..)
        .map(|number| format!("{}{number:04}", spec.prefix))
        .find(|number| numbered(books, spec, number).is_none())
        .unwrap_or_default()
}

/// Payments and allocations that stand.
fn settlements<'a>(books: &'a Books<'_>, id: &str) -> (Vec<&'a Fields>, Vec<&'a Fields>) {
    let payments = books.shelf(Kind::Payment).with("_document", id);
    let payments = payments.filter(|one| text(one, "Status") == Some("AUTHORISED"));
    let allocations = ["_note", "_invoice"].into_iter().flat_map(|key| {
        let all = books.shelf(Kind::Allocation).with(key, id);
        all.filter(|one| one.get("IsDeleted") != Some(&json!(true)))
    });
    (payments.collect(), allocations.collect())
}

pub fn allocated(books: &Books<'_>, id: &str) -> bool {
    let (payments, allocations) = settlements(books, id);
    !payments.is_empty() || !allocations.is_empty()
}

/// A document with what is paid, credited and open on it, and the status that follows.
fn settled(books: &Books<'_>, kind: Kind, mut value: Fields) -> Fields {
    let id = text(&value, kind.id()).unwrap_or_default();
    let (payments, allocations) = settlements(books, id);
    let sum = |all: &[&Fields]| -> Decimal {
        all.iter()
            .map(|one| amount(one, "Amount").unwrap_or_default())
            .sum()
    };
    let (paid, credited) = (sum(&payments), sum(&allocations));
    let last = payments
        .iter()
        .chain(&allocations)
        .filter_map(|one| date(one, "Date"))
        .chain(date(&value, "Date"))
        .max();
    let status = text(&value, "Status").unwrap_or_default();
    let ended = matches!(status, "VOIDED" | "DELETED");
    let total = amount(&value, "Total").unwrap_or_default();
    let open = if ended {
        Decimal::ZERO
    } else {
        total - paid - credited
    };
    if matches!(status, "AUTHORISED" | "PAID") {
        let status = if open.is_zero() { "PAID" } else { "AUTHORISED" };
        set(&mut value, "Status", status);
        value.remove("FullyPaidOnDate");
        if let Some(last) = last.filter(|_| open.is_zero()) {
            set(&mut value, "FullyPaidOnDate", last.to_string());
        }
    }
    if kind == Kind::Invoice {
        set(&mut value, "AmountDue", money::number(open));
        set(&mut value, "AmountPaid", money::number(paid));
        set(&mut value, "AmountCredited", money::number(credited));
    } else {
        set(&mut value, "RemainingCredit", money::number(open));
    }
    value
}

/// Adds up a document again after a payment or an allocation of it came or went.
pub fn settle(books: &mut Books<'_>, kind: Kind, id: &str) {
    if let Some(value) = books.get(kind, id).cloned() {
        let value = settled(books, kind, value);
        books.put(kind, value);
    }
}

/// How much of a document an answer has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Detail {
    /// Asked for by its id or number, or written.
    Whole,
    /// On a page: with its lines.
    Paged,
    /// In a list that is not paged: without them.
    Listed,
    /// In a list with `summaryOnly`.
    Summary,
}

pub fn render(organisation: &Organisation, spec: &Spec, value: &Fields, detail: Detail) -> Fields {
    let mut out = shown(value);
    let id = text(value, spec.kind.id()).unwrap_or_default();
    let contact = text(value, "_contact").unwrap_or_default();
    let contact = contacts::within(organisation, contact, detail == Detail::Whole);
    set(&mut out, "Contact", contact);
    if !matches!(detail, Detail::Whole | Detail::Paged) {
        set(&mut out, "LineItems", json!([]));
    }
    let millis = value["UpdatedDateUTC"].as_i64().unwrap_or_default();
    if let Some(at) = chrono::DateTime::from_timestamp_millis(millis) {
        let text = at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string();
        set(&mut out, "UpdatedDateUTCString", text);
    }
    for (name, usual) in [
        ("Reference", json!("")),
        ("SentToContact", json!(false)),
        ("HasAttachments", json!(false)),
        ("HasErrors", json!(false)),
    ] {
        out.entry(name).or_insert(usual);
    }
    let payments = organisation.shelf(Kind::Payment).with("_document", id);
    let payments: Value = payments
        .filter(|one| text(one, "Status") == Some("AUTHORISED"))
        .map(|one| {
            json!({
                "PaymentID": one["PaymentID"],
                "Date": date(one, "Date").map(day),
                "Amount": one["Amount"],
                "Reference": one.get("Reference").unwrap_or(&json!("")),
                "CurrencyRate": one["CurrencyRate"],
                "HasAccount": false,
                "HasValidationErrors": false,
            })
        })
        .collect();
    let standing = |key| {
        let all = organisation.shelf(Kind::Allocation).with(key, id);
        all.filter(|one| one.get("IsDeleted") != Some(&json!(true)))
    };
    if detail == Detail::Summary {
        for name in [
            "LineItems",
            "Reference",
            "UpdatedDateUTCString",
            "HasErrors",
        ] {
            if name != "Reference" {
                out.remove(name);
            }
        }
        return out;
    }
    set(&mut out, "Payments", payments);
    if spec.kind == Kind::Invoice {
        let credits: Value = standing("_invoice")
            .map(|one| {
                let note = text(one, "_note").unwrap_or_default();
                let number = organisation
                    .shelf(Kind::CreditNote)
                    .get(note)
                    .and_then(|note| note.get("CreditNoteNumber"));
                json!({
                    "CreditNoteID": note,
                    "CreditNoteNumber": number,
                    "ID": note,
                    "AppliedAmount": one["Amount"],
                    "Date": date(one, "Date").map(day),
                    "HasErrors": false,
                    "LineItems": [],
                })
            })
            .collect();
        set(&mut out, "CreditNotes", credits);
        set(&mut out, "Prepayments", json!([]));
        set(&mut out, "Overpayments", json!([]));
    } else {
        set(&mut out, "ID", id);
        let allocations: Value = standing("_note")
            .map(|one| super::credit_notes::shown_allocation(organisation, one))
            .collect();
        set(&mut out, "Allocations", allocations);
    }
    out
}

/// A document as it stands in a payment. One of a credit note looks like an invoice there too.
pub fn within(organisation: &Organisation, kind: Kind, id: &str, whole: bool) -> Value {
    let spec = if kind == Kind::Invoice {
        &INVOICE
    } else {
        &CREDIT_NOTE
    };
    let Some(value) = organisation.shelf(kind).get(id) else {
        return Value::Null;
    };
    let contact = text(value, "_contact").unwrap_or_default();
    let mut out = json!({
        "Type": value["Type"],
        "InvoiceID": id,
        "InvoiceNumber": value.get(spec.number).unwrap_or(&json!("")),
        "Payments": [],
        "CreditNotes": [],
        "Prepayments": [],
        "Overpayments": [],
        "HasErrors": false,
        "IsDiscounted": false,
        "Contact": contacts::within(organisation, contact, false),
        "LineItems": [],
        "CurrencyCode": value["CurrencyCode"],
    });
    if whole {
        for name in [
            "Status",
            "Total",
            "AmountDue",
            "AmountPaid",
            "SubTotal",
            "TotalTax",
        ] {
            if let Some(value) = value.get(name) {
                out[name] = value.clone();
            }
        }
        out["UpdatedDateUTC"] = json!(moment(value["UpdatedDateUTC"].as_i64().unwrap_or(0)));
    }
    out
}
