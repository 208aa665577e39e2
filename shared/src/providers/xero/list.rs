//! The documents of one day, as lists show them.

use super::changes::is_end_of_transfer;
use super::settings::Settings;
use super::{Xero, answer, elements, fault, incomplete, place, remote, request};
use crate::model::http::{Method, Request, Response};
use crate::providers::accounting::{ByDay, DayPage};
use crate::providers::{Fault, Tenant};
use crate::sync::push::Form;
use crate::sync::reconcile::Theirs;
use chrono::{DateTime, Datelike, NaiveDate};
use serde_json::Value;

/// The largest page.
const PAGE_MAX: usize = 1000;

impl ByDay for Xero {
    /// Payments of invoices and those of credit notes stand in one list.
    fn forms(&self) -> &'static [Form] {
        &[
            Form::Invoice,
            Form::CreditNote,
            Form::Payment,
            Form::BankTransfer,
            Form::BankTransaction,
        ]
    }

    fn list(&self, tenant: &Tenant, form: Form, day: NaiveDate, page: usize) -> Request {
        let (path, id) = place(form);
        let date = |day: NaiveDate| {
            format!(
                "DateTime({},{:02},{:02})",
                day.year(),
                day.month(),
                day.day()
            )
        };
        let next = day.succ_opt().unwrap_or(day);
        let mut filter = format!("Date>={} AND Date<{}", date(day), date(next));
        match form {
            Form::Invoice => filter.push_str(" AND Type==\"ACCREC\""),
            Form::CreditNote => filter.push_str(" AND Type==\"ACCRECCREDIT\""),
            _ => {}
        }
        // Transfers come all at once.
        if form == Form::BankTransfer {
            return request(Method::Get, tenant, path, &[("where", &filter[..])]);
        }
        let (page, size) = ((page + 1).to_string(), PAGE_MAX.to_string());
        let query = [
            ("where", &filter[..]),
            // By what does not change while pages are read.
            ("order", id),
            ("page", &page),
            ("pageSize", &size),
        ];
        request(Method::Get, tenant, path, &query)
    }

    fn read_list(
        &self,
        form: Form,
        response: &Response,
        settings: &Value,
    ) -> Result<DayPage, Fault> {
        let body = answer(response)?;
        let settings = Settings::of(settings)?;
        let all = elements(&body, place(form).0)?;
        let documents = all
            .iter()
            .filter_map(|one| document(form, one, &settings).transpose());
        Ok(DayPage {
            documents: documents.collect::<Result<_, _>>()?,
            more: all.len() == PAGE_MAX && form != Form::BankTransfer,
        })
    }

    fn read_one(
        &self,
        form: Form,
        response: &Response,
        settings: &Value,
    ) -> Result<Option<Theirs>, Fault> {
        if fault::is_gone(response) {
            return Ok(None);
        }
        let body = answer(response)?;
        let one = elements(&body, place(form).0)?.first();
        document(form, one.ok_or_else(incomplete)?, &Settings::of(settings)?)
    }
}

/// Nothing for what is not in the books: drafts, what is void or deleted, and the payments of bills; nor
/// for the two ends of a transfer, which stand among the bank transactions as well.
fn document(form: Form, one: &Value, settings: &Settings) -> Result<Option<Theirs>, Fault> {
    let text = |name: &str| one[name].as_str();
    // Transfers say it since 2026 alone, when they could first be deleted.
    let status = text("Status").or((form == Form::BankTransfer).then_some("AUTHORISED"));
    if !matches!(status, Some("AUTHORISED" | "PAID")) || is_end_of_transfer(one) {
        return Ok(None);
    }
    let payment = matches!(form, Form::Payment | Form::RefundPayment);
    let form = match (payment, text("PaymentType")) {
        (false, _) => form,
        (true, Some("ACCRECPAYMENT")) => Form::Payment,
        (true, Some("ARCREDITPAYMENT")) => Form::RefundPayment,
        (true, _) => return Ok(None),
    };
    let (total, currency) = match form {
        // Its currency is that of the document which it settles.
        Form::Payment | Form::RefundPayment => (
            &one["Amount"],
            one["Invoice"]["CurrencyCode"]
                .as_str()
                .or(one["CreditNote"]["CurrencyCode"].as_str()),
        ),
        // And this is in that of its accounts.
        Form::BankTransfer => (
            &one["Amount"],
            one["FromBankAccount"]["AccountID"]
                .as_str()
                .map(|id| settings.currency_of(id)),
        ),
        _ => (&one["Total"], text("CurrencyCode")),
    };
    Ok(Some(Theirs {
        form,
        remote: remote(one, place(form).1).ok_or_else(incomplete)?,
        mark: text("Reference").map(str::to_owned),
        day: text("Date").and_then(day).ok_or_else(incomplete)?,
        total: total.to_string().parse().map_err(|_| incomplete())?,
        currency: currency.ok_or_else(incomplete)?.to_owned(),
    }))
}

/// `/Date(1551398400000+0000)/`, of which the time of day means nothing.
fn day(text: &str) -> Option<NaiveDate> {
    let inside = text.strip_prefix("/Date(")?.strip_suffix(")/")?;
    let millis = inside.split_once('+').map_or(inside, |(millis, _)| millis);
    let at = DateTime::from_timestamp_millis(millis.parse().ok()?)?;
    Some(at.date_naive())
}
