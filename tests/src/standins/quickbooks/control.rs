//! The control port: everything that the vendor has no address for.

use std::collections::BTreeMap;

use axum::http::Method;
use chrono::TimeDelta;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Inner;
use super::books::{Books, entity_named};
use super::fault::Fault;
use super::limits::Limits;
use super::money;
use super::oauth;
use super::seed::{self, DEFAULT_REALM, NewCompany};
use super::state::{Change, Client, Company, text};
use crate::standins::faults::Rule;
use crate::standins::wire::{Params, Reply, json_reply, param};

// What is a realm here is an account at all other vendors; either word will do, so that a test of
// all of them needs to know one.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    #[serde(alias = "account")]
    realm: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    #[serde(default = "default_realm", alias = "account")]
    realm: String,
    #[serde(default = "default_client")]
    client_id: String,
}

fn default_realm() -> String {
    DEFAULT_REALM.to_owned()
}

pub fn default_client() -> String {
    "standin-client".to_owned()
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
}

/// Why a control call is not carried out.
enum Refusal {
    Unreadable(serde_json::Error),
    NoSuch(&'static str),
    Wrong(Fault),
}

impl Refusal {
    fn reply(self) -> Reply {
        match self {
            Self::Unreadable(error) => json_reply(400, &json!({"error": error.to_string()})),
            Self::Wrong(fault) => json_reply(400, &fault.body()),
            Self::NoSuch(what) => json_reply(404, &json!({"error": format!("no such {what}")})),
        }
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(Refusal::Unreadable)
}

pub fn serve(
    inner: &mut Inner,
    method: &Method,
    path: &str,
    params: &Params,
    body: &[u8],
) -> Reply {
    answer(inner, method, path, params, body).unwrap_or_else(Refusal::reply)
}

fn answer(
    inner: &mut Inner,
    method: &Method,
    path: &str,
    params: &Params,
    body: &[u8],
) -> Result<Reply, Refusal> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let done = || Ok(json_reply(200, &json!({"ok": true})));
    match (method.as_str(), parts.as_slice()) {
        ("GET", ["health"]) => done(),
        ("POST", ["reset"]) => {
            inner.reset();
            done()
        }
        ("POST", ["clients"]) => {
            let client: Client = read(body)?;
            inner.state.record(Change::Client(client));
            done()
        }
        ("GET", ["clients"]) => {
            let ids: Vec<_> = inner
                .state
                .clients
                .values()
                .map(|client| json!({"client_id": client.client_id, "redirect_uris": client.redirect_uris}))
                .collect();
            Ok(json_reply(200, &Value::Array(ids)))
        }
        ("POST", ["realms"]) => {
            let new: NewCompany = read(body)?;
            inner.open_company(&new).map_err(Refusal::Wrong)?;
            done()
        }
        ("GET", ["realms"]) => {
            let realms: Vec<_> = inner.state.companies.keys().collect();
            Ok(json_reply(200, &json!(realms)))
        }
        ("GET", ["accounts"]) => {
            let accounts = inner.state.companies_by_choice();
            let accounts = accounts.map(|(realm, name)| json!({"id": realm, "name": name}));
            Ok(json_reply(200, &accounts.collect()))
        }
        ("POST", ["grants"]) => {
            let new: NewGrant = read(body)?;
            Ok(grant(inner, &new))
        }
        ("POST", ["revoke"]) => {
            let which: Which = read(body)?;
            revoke(inner, &which);
            done()
        }
        ("POST", ["expire_access_tokens"]) => {
            let which: Which = read(body)?;
            expire(inner, &which);
            done()
        }
        ("POST", ["clock"]) => {
            let by: Advance = read(body)?;
            inner.advance(TimeDelta::seconds(by.advance_seconds));
            done()
        }
        ("GET", ["clock"]) => Ok(json_reply(200, &json!({"now": inner.now().timestamp()}))),
        ("POST", ["limits"]) => {
            inner.limits = read::<Limits>(body)?;
            done()
        }
        ("GET", ["limits"]) => Ok(json_reply(200, &json!(inner.limits))),
        ("POST", ["webhooks"]) => {
            inner.hooks = Some(read(body)?);
            inner.state.touched = Some(Vec::new());
            done()
        }
        ("DELETE", ["webhooks"]) => {
            inner.hooks = None;
            inner.state.touched = None;
            done()
        }
        ("POST", ["faults"]) => {
            match read::<OneOrMany<Rule>>(body)? {
                OneOrMany::One(rule) => inner.faults.rules.push(rule),
                OneOrMany::Many(rules) => inner.faults.rules.extend(rules),
            }
            done()
        }
        ("GET", ["faults"]) => Ok(json_reply(200, &json!(inner.faults.rules))),
        ("DELETE", ["faults"]) => {
            inner.faults.rules.clear();
            done()
        }
        ("GET", ["requests"]) => Ok(json_reply(200, &requests(inner))),
        ("DELETE", ["requests"]) => {
            inner.counts.clear();
            done()
        }
        ("GET", ["books"]) => {
            let realm = param(params, "realm").unwrap_or(DEFAULT_REALM);
            Ok(json_reply(200, &summary(company(inner, realm)?, realm)))
        }
        ("GET", ["writes"]) => {
            let realm = param(params, "realm").unwrap_or(DEFAULT_REALM);
            let writes = inner
                .state
                .writes
                .iter()
                .filter(|write| write.realm == realm);
            Ok(json_reply(200, &json!(writes.collect::<Vec<_>>())))
        }
        ("GET", ["entities", name]) => {
            let realm = param(params, "realm").unwrap_or(DEFAULT_REALM);
            let entity = entity_named(name).ok_or(Refusal::NoSuch("entity"))?;
            let all = company(inner, realm)?.all(entity).map(|(_, value)| value);
            Ok(json_reply(200, &json!(all.collect::<Vec<_>>())))
        }
        _ => Err(Refusal::NoSuch("control")),
    }
}

fn company<'a>(inner: &'a Inner, realm: &str) -> Result<&'a Company, Refusal> {
    inner
        .state
        .companies
        .get(realm)
        .ok_or(Refusal::NoSuch("realm"))
}

/// A connection without the consent page, for callers that test something else.
fn grant(inner: &mut Inner, new: &NewGrant) -> Reply {
    if !inner.state.clients.contains_key(&new.client_id)
        || !inner.state.companies.contains_key(&new.realm)
    {
        return json_reply(404, &json!({"error": "no such client or realm"}));
    }
    let now = inner.now().timestamp();
    let scope = "com.intuit.quickbooks.accounting";
    let grant = oauth::consented(&mut inner.state, &new.client_id, &new.realm, scope, now);
    oauth::answer(&mut inner.state, &grant, now, false)
}

fn revoke(inner: &mut Inner, which: &Which) {
    let ids: Vec<u64> = inner
        .state
        .grants
        .values()
        .filter(|grant| {
            which
                .realm
                .as_ref()
                .is_none_or(|realm| *realm == grant.realm)
        })
        .map(|grant| grant.id)
        .collect();
    for id in ids {
        oauth::revoke_grant(&mut inner.state, id);
    }
}

fn expire(inner: &mut Inner, which: &Which) {
    let state = &inner.state;
    let mut all: Vec<_> = state
        .access
        .values()
        .filter(|access| {
            let realm = state.grants.get(&access.grant).map(|grant| &grant.realm);
            which.realm.is_none() || which.realm.as_ref() == realm
        })
        .cloned()
        .collect();
    for access in &mut all {
        access.expires = 0;
        inner.state.record(Change::Access(access.clone()));
    }
}

fn requests(inner: &Inner) -> Value {
    let mut by_path: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    let mut total = 0;
    for ((path, status), count) in &inner.counts {
        by_path.entry(path).or_default().insert(status, *count);
        total += count;
    }
    json!({"total": total, "paths": by_path})
}

fn summary(company: &Company, realm: &str) -> Value {
    let count = |entity: &str| company.all(entity).count();
    let mut sums = json!({});
    let mut duplicates = Vec::new();
    for entity in ["SalesReceipt", "RefundReceipt"] {
        let mut by_currency: BTreeMap<&str, Decimal> = BTreeMap::new();
        let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
        for (_, value) in company.all(entity) {
            let currency = value["CurrencyRef"]["value"].as_str().unwrap_or("USD");
            let total = money::decimal(&value["TotalAmt"]).unwrap_or_default();
            *by_currency.entry(currency).or_default() += money::minor_units(total, currency);
            if let Some(number) = text(value, "DocNumber") {
                *numbers.entry(number).or_default() += 1;
            }
        }
        sums[entity] = by_currency
            .into_iter()
            .map(|(currency, sum)| (currency.to_owned(), whole(sum)))
            .collect();
        duplicates.extend(numbers.into_iter().filter(|(_, count)| *count > 1).map(
            |(number, count)| json!({"entity": entity, "doc_number": number, "count": count}),
        ));
    }
    json!({
        "realm": realm,
        "receipts": count("SalesReceipt"),
        "refunds": count("RefundReceipt"),
        "customers": count("Customer"),
        "items": count("Item"),
        "sums": sums,
        "duplicates": duplicates,
    })
}

/// Minor units are whole; a sum that is not shows its fraction instead of losing it.
fn whole(sum: Decimal) -> Value {
    match sum.to_i64() {
        Some(units) if sum.fract().is_zero() => json!(units),
        _ => money::number(sum),
    }
}

impl Inner {
    pub(super) fn open_company(&mut self, new: &NewCompany) -> Result<(), Fault> {
        let now = self.now();
        let mut books = Books {
            state: &mut self.state,
            realm: &new.realm,
            now,
        };
        seed::open(&mut books, new)
    }
}
