//! One organisation's books, open for one request.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::state::{Change, Fields, Kind, Organisation, Settings, Shelf, State, text};
use super::webhooks::Happened;
use crate::standins::money;
use crate::standins::oauth::state::uuid;

/// Whether an element may change one that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// `PUT`
    Create,
    /// `POST`
    Upsert,
}

/// The id of the saved element, or everything that is wrong with it.
pub type Saved = Result<String, Vec<String>>;

pub struct Books<'a> {
    pub state: &'a mut State,
    pub tenant: &'a str,
    pub now: DateTime<Utc>,
    /// The app that asks; nobody, if a bookkeeper does it by hand.
    pub app: Option<&'a str>,
    /// Decimals of unit amounts: 4 where `unitdp=4` asks for it.
    pub places: u32,
    pub happened: &'a mut Vec<Happened>,
}

impl Books<'_> {
    pub fn organisation(&self) -> &Organisation {
        // It was opened before the books were.
        &self.state.organisations[self.tenant]
    }

    pub fn settings(&self) -> Settings {
        let settings = self.organisation().settings.clone();
        settings.unwrap_or_else(|| super::seed::settings("", "US", "USD", self.now))
    }

    pub fn shelf(&self, kind: Kind) -> &Shelf {
        self.organisation().shelf(kind)
    }

    pub fn get(&self, kind: Kind, id: &str) -> Option<&Fields> {
        self.shelf(kind).get(id)
    }

    pub fn today(&self) -> NaiveDate {
        self.now.date_naive()
    }

    pub fn new_id(&mut self) -> String {
        let number = self.state.next();
        uuid(&format!("{} {number}", self.tenant))
    }

    /// Keeps an entity as it is now, and notes that it changed.
    pub fn put(&mut self, kind: Kind, mut value: Fields) {
        let id = text(&value, kind.id()).unwrap_or_default().to_owned();
        let made = self.get(kind, &id).is_none();
        value.insert("UpdatedDateUTC".into(), json!(self.now.timestamp_millis()));
        if made && let Some(app) = self.app {
            value.insert("_app".into(), json!(app));
        }
        if let Some(happened) = Happened::of(kind, &value, self.tenant, made, self.now) {
            self.happened.push(happened);
        }
        self.state.record(Change::Entity {
            tenant: self.tenant.to_owned(),
            kind,
            value,
        });
    }

    pub fn remove(&mut self, kind: Kind, id: &str) {
        self.state.record(Change::Gone {
            tenant: self.tenant.to_owned(),
            kind,
            id: id.to_owned(),
        });
    }

    /// The account of a code, if it may still be used.
    pub fn account(&self, code: &str) -> Option<&Fields> {
        let mut found = self.shelf(Kind::Account).with("Code", code);
        found.find(|account| text(account, "Status") == Some("ACTIVE"))
    }

    pub fn enabled(&self, currency: &str) -> bool {
        self.get(Kind::Currency, currency).is_some()
    }

    /// Units of `currency` for one of the organisation's own, to six decimals.
    pub fn rate(&self, currency: &str) -> Decimal {
        money::rate(&self.settings().base_currency, currency).round_dp(6)
    }

    /// What forbids entries on this day.
    pub fn locked(&self, date: NaiveDate) -> Option<String> {
        let settings = self.settings();
        let locks = [
            ("period", settings.period_lock_date),
            ("end of year", settings.end_of_year_lock_date),
        ];
        locks
            .into_iter()
            .find(|(_, lock)| lock.is_some_and(|lock| date <= lock))
            .map(|(name, _)| format!("The document date cannot be before the {name} lock date"))
    }
}

pub fn amount(fields: &Fields, name: &str) -> Option<Decimal> {
    money::decimal(fields.get(name)?)
}

pub fn date(fields: &Fields, name: &str) -> Option<NaiveDate> {
    text(fields, name)?.parse().ok()
}

pub fn list<'a>(fields: &'a Fields, name: &str) -> Option<&'a Vec<Value>> {
    fields.get(name).and_then(Value::as_array)
}

pub fn one<'a>(fields: &'a Fields, name: &str) -> Option<&'a Fields> {
    fields.get(name).and_then(Value::as_object)
}

pub fn set(fields: &mut Fields, name: &str, value: impl Into<Value>) {
    fields.insert(name.to_owned(), value.into());
}
