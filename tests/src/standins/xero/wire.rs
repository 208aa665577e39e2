//! Answers in the vendor's shapes.

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};

use super::state::Fields;
use crate::standins::oauth::xero::problem;
use crate::standins::wire::{Reply, json_reply, reply};

/// Fields that hold a day: `2026-05-29` where it is kept, and `/Date(…)/` where it is shown.
const DAYS: [&str; 5] = [
    "Date",
    "DueDate",
    "FullyPaidOnDate",
    "ExpectedPaymentDate",
    "PlannedPaymentDate",
];

pub fn moment(millis: i64) -> String {
    format!("/Date({millis}+0000)/")
}

pub fn day(date: NaiveDate) -> String {
    moment(
        date.and_time(chrono::NaiveTime::MIN)
            .and_utc()
            .timestamp_millis(),
    )
}

/// Whatever of an entity is kept in the form in which it is shown: without the stand-in's own
/// notes, with days and moments as the vendor writes them.
pub fn shown(fields: &Fields) -> Fields {
    let mut out = Fields::new();
    for (name, value) in fields {
        if name.starts_with('_') {
            continue;
        }
        let date = value
            .as_str()
            .filter(|_| DAYS.contains(&name.as_str()))
            .and_then(|text| text.parse::<NaiveDate>().ok());
        if let Some(date) = date {
            if matches!(name.as_str(), "Date" | "DueDate") {
                let time = date.and_time(chrono::NaiveTime::MIN);
                let text = time.format("%Y-%m-%dT%H:%M:%S").to_string();
                out.insert(format!("{name}String"), json!(text));
            }
            out.insert(name.clone(), json!(day(date)));
        } else if let ("UpdatedDateUTC", Some(millis)) = (name.as_str(), value.as_i64()) {
            out.insert(name.clone(), json!(moment(millis)));
        } else {
            out.insert(name.clone(), value.clone());
        }
    }
    out
}

/// Which page of how many.
pub struct Page {
    pub page: usize,
    pub size: usize,
    pub items: usize,
}

pub fn envelope(
    now: DateTime<Utc>,
    id: &str,
    name: &str,
    all: Vec<Value>,
    page: Option<Page>,
) -> Reply {
    let mut body = json!({
        "Id": id,
        "Status": "OK",
        "ProviderName": "Crossdock",
        "DateTimeUTC": format!("/Date({})/", now.timestamp_millis()),
    });
    if let Some(page) = page {
        body["pagination"] = json!({
            "page": page.page,
            "pageSize": page.size,
            "pageCount": page.items.div_ceil(page.size),
            "itemCount": page.items,
        });
    }
    body[name] = Value::Array(all);
    json_reply(200, &body)
}

pub fn messages(wrong: &[String]) -> Value {
    wrong
        .iter()
        .map(|message| json!({"Message": message}))
        .collect()
}

fn exception(number: u16, kind: &str, message: &str) -> Value {
    json!({"ErrorNumber": number, "Type": kind, "Message": message})
}

/// Some elements were refused; only those are shown.
pub fn invalid(elements: Vec<Value>) -> Reply {
    let mut body = exception(10, "ValidationException", "A validation exception occurred");
    body["Elements"] = Value::Array(elements);
    json_reply(400, &body)
}

/// The body is not what the address takes.
pub fn unreadable(message: &str) -> Reply {
    json_reply(400, &exception(14, "PostDataInvalidException", message))
}

/// A `where` or `order` that cannot be read, or that names what there is not.
pub fn bad_query(message: &str) -> Reply {
    json_reply(400, &exception(16, "QueryParseException", message))
}

pub fn not_found() -> Reply {
    reply(
        404,
        "text/html; charset=utf-8",
        "The resource you're looking for cannot be found",
    )
}

/// The same key with another request, or one that is too long.
pub fn bad_key(detail: &str) -> Reply {
    problem(400, "Bad Request", detail)
}
