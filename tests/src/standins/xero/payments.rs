//! Money that came in for an invoice or went back for a credit note.

use rust_decimal::Decimal;
use serde_json::json;

use super::books::{Books, Saved, amount, date, one, set};
use super::documents::{self, CREDIT_NOTE, INVOICE, Spec};
use super::state::{Fields, Kind, Organisation, text};
use super::wire::shown;
use crate::standins::money::{self, cents};

/// The document that a payment is for.
fn document<'a>(books: &'a Books<'_>, sent: &Fields) -> Option<(&'static Spec, &'a Fields)> {
    let named = |spec: &'static Spec, object: &str| {
        let inside = one(sent, object);
        let name = inside
            .and_then(|inside| text(inside, spec.kind.id()))
            .or_else(|| inside.and_then(|inside| text(inside, spec.number)))
            .or_else(|| text(sent, spec.number))?;
        Some((spec, documents::found(books.organisation(), spec, name)?))
    };
    // A credit note may stand in the place of an invoice here, as it does in answers.
    let disguised = || {
        let id = one(sent, "Invoice").and_then(|invoice| text(invoice, "InvoiceID"))?;
        Some((&CREDIT_NOTE, books.get(Kind::CreditNote, id)?))
    };
    named(&INVOICE, "Invoice")
        .or_else(|| named(&CREDIT_NOTE, "CreditNote"))
        .or_else(disguised)
}

fn account<'a>(books: &'a Books<'_>, sent: &Fields) -> Option<&'a Fields> {
    let inside = one(sent, "Account");
    let by_id = inside.and_then(|inside| text(inside, "AccountID"));
    if let Some(id) = by_id {
        let found = books.get(Kind::Account, id);
        return found.filter(|account| text(account, "Status") == Some("ACTIVE"));
    }
    let code = inside
        .and_then(|inside| text(inside, "Code"))
        .or_else(|| text(sent, "Code"))?;
    books.account(code)
}

/// Makes a payment. There is nothing that a second one could overwrite.
pub fn create(books: &mut Books<'_>, sent: &Fields) -> Saved {
    let Some((spec, document)) = document(books, sent) else {
        return Err(vec!["No document was found to apply the payment to".into()]);
    };
    let mut wrong = Vec::new();
    let kind = spec.kind;
    let id = text(document, kind.id()).unwrap_or_default().to_owned();
    let currency = text(document, "CurrencyCode").unwrap_or_default();
    let base = books.settings().base_currency;
    if text(document, "Status") != Some("AUTHORISED") {
        wrong.push("Payments can only be made against Authorised documents".to_owned());
    }
    let open = match kind {
        Kind::Invoice => amount(document, "AmountDue"),
        _ => amount(document, "RemainingCredit"),
    };
    let given = cents(amount(sent, "Amount").unwrap_or_default());
    if given <= Decimal::ZERO {
        wrong.push("The payment amount must be greater than zero".to_owned());
    } else if given > open.unwrap_or_default() {
        wrong.push("Payment amount exceeds the amount outstanding on this document".to_owned());
    }
    let account = account(books, sent);
    match account {
        None => wrong.push("The account to pay into or from was not found".to_owned()),
        Some(account) if text(account, "Type") == Some("BANK") => {
            let own = text(account, "CurrencyCode").unwrap_or(&base);
            if own != currency && own != base {
                wrong.push(format!(
                    "A payment in {currency} cannot be made to or from an account in {own}"
                ));
            }
        }
        Some(account) if account.get("EnablePaymentsToAccount") == Some(&json!(true)) => {}
        Some(_) => wrong.push("Account type is invalid for making a payment to/from".to_owned()),
    }
    let on = date(sent, "Date").unwrap_or(books.today());
    wrong.extend(books.locked(on));
    let rate = amount(sent, "CurrencyRate").filter(|_| currency != base);
    let rate = rate.or(amount(document, "CurrencyRate"));
    let sale = text(document, "Type") == Some(spec.types[0]);
    let Some(account) = account.filter(|_| wrong.is_empty()) else {
        return Err(wrong);
    };
    let mut value = Fields::new();
    set(&mut value, "Date", on.to_string());
    set(&mut value, "Amount", money::number(given));
    let rate = rate.filter(|rate| !rate.is_zero()).unwrap_or(Decimal::ONE);
    // The bank sees the organisation's own money, if the account is in that.
    let own = text(account, "CurrencyCode").unwrap_or(&base);
    let seen = if own == currency {
        given
    } else {
        cents(given / rate)
    };
    set(&mut value, "BankAmount", money::number(seen));
    set(&mut value, "CurrencyRate", money::number(rate.round_dp(6)));
    set(&mut value, "PaymentType", payment_type(kind, sale));
    set(&mut value, "Status", "AUTHORISED");
    let reconciled = sent.get("IsReconciled").cloned();
    set(
        &mut value,
        "IsReconciled",
        reconciled.unwrap_or(json!(false)),
    );
    if let Some(reference) = text(sent, "Reference") {
        set(&mut value, "Reference", reference);
    }
    value.insert("_account".into(), account["AccountID"].clone());
    set(&mut value, "_document", id.as_str());
    let payment = books.new_id();
    set(&mut value, "PaymentID", payment.as_str());
    books.put(Kind::Payment, value);
    documents::settle(books, kind, &id);
    Ok(payment)
}

fn payment_type(kind: Kind, sale: bool) -> &'static str {
    match (kind, sale) {
        (Kind::Invoice, true) => "ACCRECPAYMENT",
        (Kind::Invoice, false) => "ACCPAYPAYMENT",
        (_, true) => "ARCREDITPAYMENT",
        (_, false) => "APCREDITPAYMENT",
    }
}

fn of(payment: &Fields) -> Kind {
    match text(payment, "PaymentType") {
        Some("ACCRECPAYMENT" | "ACCPAYPAYMENT") => Kind::Invoice,
        _ => Kind::CreditNote,
    }
}

/// The one change that a payment takes: it can be deleted. `by_hand` is a bookkeeper, who may
/// delete a reconciled one too.
pub fn change(books: &mut Books<'_>, id: &str, sent: &Fields, by_hand: bool) -> Saved {
    let Some(mut value) = books.get(Kind::Payment, id).cloned() else {
        return Err(vec![format!(
            "No payment was found with the PaymentID {id}"
        )]);
    };
    if text(sent, "Status") != Some("DELETED") {
        return Err(vec!["A payment cannot be changed, only deleted".into()]);
    }
    let mut wrong = Vec::new();
    if text(&value, "Status") != Some("AUTHORISED") {
        wrong.push("Payment not of valid status for modification".to_owned());
    }
    if value.get("IsReconciled") == Some(&json!(true)) && !by_hand {
        wrong.push("A payment that has been reconciled cannot be deleted".to_owned());
    }
    wrong.extend(date(&value, "Date").and_then(|on| books.locked(on)));
    if !wrong.is_empty() {
        return Err(wrong);
    }
    set(&mut value, "Status", "DELETED");
    let (kind, document) = (of(&value), value["_document"].clone());
    books.put(Kind::Payment, value);
    documents::settle(books, kind, document.as_str().unwrap_or_default());
    Ok(id.to_owned())
}

/// One payment; `whole` where it is asked for by its id.
pub fn render(organisation: &Organisation, payment: &Fields, whole: bool) -> Fields {
    let mut out = shown(payment);
    out.remove("DateString");
    let account =
        text(payment, "_account").and_then(|id| organisation.shelf(Kind::Account).get(id));
    if let Some(account) = account {
        let mut shown = json!({"AccountID": account["AccountID"], "Code": account["Code"]});
        if whole {
            shown["Name"] = account["Name"].clone();
        }
        set(&mut out, "Account", shown);
    }
    let document = text(payment, "_document").unwrap_or_default();
    let document = documents::within(organisation, of(payment), document, whole);
    set(&mut out, "Invoice", document);
    set(&mut out, "HasAccount", account.is_some());
    set(&mut out, "HasValidationErrors", false);
    out
}
