//! What an accounting system says has changed: a page of changes since a moment, and single things.

use super::accounting::DependencyKind;
use super::{Fault, Tenant};
use crate::model::event::fingerprint;
use crate::model::http::{Request, Response};
use crate::sync::conflict::{Content, Seen};
use crate::sync::push::Form;
use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::{Map, Value};

/// Where a stream of changes goes on after a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more: read again from this moment on, which is later than the one before.
    From(DateTime<Utc>),
    /// This was all up to this moment of the provider's clock.
    Until(DateTime<Utc>),
    /// More changed than the provider can tell.
    TooMany,
}

/// One page of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub seen: Vec<Seen>,
    pub next: Next,
    /// What the provider's clock showed, where it says so.
    pub clock: Option<DateTime<Utc>>,
}

/// A provider's changes.
pub trait Changes: Send + Sync {
    /// What is read by one request after the other, each by itself.
    fn streams(&self) -> &'static [&'static str];

    /// The kind that a word of the provider's webhooks stands for, and the stream that tells of it;
    /// `None` for what is nothing to us.
    fn kind(&self, word: &str) -> Option<(&'static str, &'static str)>;

    fn kind_of(&self, form: Form) -> &'static str;

    /// The permissions of which one is needed to read things of `kind`, where not every consent that was
    /// ever given has one.
    fn needs(&self, kind: &str) -> &'static [&'static str] {
        let _ = kind;
        &[]
    }

    fn kind_of_dependency(&self, kind: DependencyKind) -> &'static str;

    /// How far back the provider tells of changes; `None` for ever.
    fn look_back(&self) -> Option<TimeDelta>;

    /// What changed in `stream` at `since` or later.
    fn changes(&self, tenant: &Tenant, stream: &str, since: DateTime<Utc>) -> Request;

    fn read_changes(
        &self,
        stream: &str,
        since: DateTime<Utc>,
        answer: &Response,
    ) -> Result<Page, Fault>;

    /// Most things of one kind that one request reads.
    fn read_max(&self, kind: &str) -> usize;

    /// Things of one kind by their ids, at most [`Changes::read_max`].
    fn by_id(&self, tenant: &Tenant, kind: &str, ids: &[&str]) -> Request;

    /// Reads the answer: those that stand in it. That one is left out says nothing yet.
    fn read_by_id(&self, kind: &'static str, answer: &Response) -> Result<Vec<Seen>, Fault>;

    /// One thing at its own address.
    fn one(&self, tenant: &Tenant, kind: &str, id: &str) -> Request;

    /// Reads the answer; `None` where the provider says that there is no such thing.
    fn read_one(&self, kind: &'static str, answer: &Response) -> Result<Option<Seen>, Fault>;
}

/// A member of `value` by its path, such as `CurrencyRef.value`.
fn member<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    parts.try_fold(value, |value, part| value.get(part))
}

/// The members of `value` at `paths`, by path, without those that are absent or empty.
pub(super) fn members(value: &Value, paths: &[&str]) -> Value {
    let found = paths.iter().filter_map(|path| {
        let found = member(value, path).filter(|found| !found.is_null() && *found != "")?;
        Some(((*path).to_owned(), found.clone()))
    });
    Value::Object(found.collect::<Map<_, _>>())
}

/// The same value however its numbers are written, so that `10`, `10.0` and `10.00` are one.
fn plain(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.to_string().parse::<Decimal>() {
            Ok(decimal) => Value::String(decimal.normalize().to_string()),
            Err(_) => value.clone(),
        },
        Value::Array(all) => Value::Array(all.iter().map(plain).collect()),
        Value::Object(all) => {
            let all = all.iter().filter(|(_, one)| !one.is_null());
            Value::Object(all.map(|(name, one)| (name.clone(), plain(one))).collect())
        }
        other => other.clone(),
    }
}

/// The fingerprints of two groups of members. Sixteen digits are enough to see that something differs.
pub(super) fn content(amounts: &Value, words: &Value) -> Content {
    let print = |value: &Value| fingerprint(&plain(value)).chars().take(16).collect();
    Content {
        amounts: print(amounts),
        words: print(words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_the_same_however_they_are_written() {
        let one: Value = serde_json::from_str(r#"{"a":[10,{"b":1.50}],"c":null}"#).unwrap();
        let other: Value = serde_json::from_str(r#"{"a":[10.00,{"b":1.5}]}"#).unwrap();
        assert_eq!(content(&one, &json!({})), content(&other, &json!({})));
        let changed = json!({"a": [10, {"b": 1.51}]});
        assert_ne!(content(&one, &json!({})), content(&changed, &json!({})));
    }

    #[test]
    fn members_are_found_by_their_paths() {
        let value = json!({"A": {"value": "1", "name": "x"}, "B": "", "C": null, "D": 0});
        let found = members(&value, &["A.value", "B", "C", "D", "E.x"]);
        assert_eq!(found, json!({"A.value": "1", "D": 0}));
    }
}
