//! The documents of one day, as queries show them.

use super::{
    QuickBooks, answer, form_entity, incomplete, query, remote, settings::Settings, total,
};
use crate::model::http::{Request, Response};
use crate::providers::accounting::{ByDay, DayPage};
use crate::providers::{Fault, Tenant};
use crate::sync::push::Form;
use crate::sync::reconcile::Theirs;
use chrono::NaiveDate;
use serde_json::Value;

/// The most that a query answers at once.
const PAGE_MAX: usize = 1000;
/// The code of a thing that is not there, or no longer.
pub const NOT_FOUND: &str = "quickbooks_610";

impl ByDay for QuickBooks {
    fn forms(&self) -> &'static [Form] {
        &[
            Form::SalesReceipt,
            Form::Invoice,
            Form::Payment,
            Form::RefundReceipt,
            Form::JournalEntry,
        ]
    }

    fn list(&self, tenant: &Tenant, form: Form, day: NaiveDate, page: usize) -> Request {
        let (entity, start) = (form_entity(form), page * PAGE_MAX + 1);
        query(
            tenant,
            &format!(
                "select * from {entity} where TxnDate = '{day}' orderby Id startposition {start} \
                 maxresults {PAGE_MAX}"
            ),
        )
    }

    fn read_list(
        &self,
        form: Form,
        response: &Response,
        settings: &Value,
    ) -> Result<DayPage, Fault> {
        let body = answer(response)?;
        let settings = Settings::of(settings)?;
        let found = &body["QueryResponse"];
        if !found.is_object() {
            return Err(incomplete());
        }
        let all = found[form_entity(form)].as_array();
        let documents = all.into_iter().flatten();
        let documents = documents.map(|one| document(form, one, &settings));
        let documents: Vec<Theirs> = documents.collect::<Result<_, _>>()?;
        Ok(DayPage {
            more: documents.len() == PAGE_MAX,
            documents,
        })
    }

    fn read_one(
        &self,
        form: Form,
        response: &Response,
        settings: &Value,
    ) -> Result<Option<Theirs>, Fault> {
        let body = match answer(response) {
            Err(Fault::Refused { code, .. }) if code == NOT_FOUND => return Ok(None),
            body => body?,
        };
        document(form, &body[form_entity(form)], &Settings::of(settings)?).map(Some)
    }
}

fn document(form: Form, one: &Value, settings: &Settings) -> Result<Theirs, Fault> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Ok(Theirs {
        form,
        remote: remote(one).ok_or_else(incomplete)?,
        mark: text(&one["PrivateNote"]),
        day: one["TxnDate"]
            .as_str()
            .and_then(|day| day.parse().ok())
            .ok_or_else(incomplete)?,
        total: total(one).ok_or_else(incomplete)?,
        // A company with one currency does not name it.
        currency: text(&one["CurrencyRef"]["value"]).unwrap_or(settings.home_currency.clone()),
    })
}
