//! The control port: everything that the vendor has no address for.

use std::collections::BTreeMap;

use axum::http::Request;
use chrono::TimeDelta;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::flow::{consented, issue};
use super::rules::Message;
use super::signing::{self, SENDGRID_PUBLIC_KEY, Sending};
use super::state::{Account, Client, Grant};
use super::{DEFAULT_CLIENT_ID, Inner};
use crate::standins::faults::Rule;
use crate::standins::wire::{Reply, json_reply};

/// Which grants; all of them, if nothing is said.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Which {
    account: Option<String>,
    client_id: Option<String>,
    grant: Option<u64>,
}

impl Which {
    fn is(&self, grant: &Grant) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|one| one == is);
        same(&self.account, &grant.account)
            && same(&self.client_id, &grant.client_id)
            && self.grant.is_none_or(|id| id == grant.id)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advance {
    advance_seconds: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewGrant {
    account: Option<String>,
    #[serde(default = "default_client")]
    client_id: String,
    #[serde(default)]
    scope: String,
}

fn default_client() -> String {
    DEFAULT_CLIENT_ID.to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewKey {
    key: String,
    account: Option<String>,
    #[serde(default)]
    scope: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    /// Where to, as it is registered.
    url: String,
    body: String,
    /// What is signed with.
    #[serde(default)]
    key: String,
    /// Where the vendor says that it is, if not where it was asked.
    base: Option<String>,
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
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(Refusal::Unreadable)
}

pub fn serve(inner: &mut Inner, request: &Request<Vec<u8>>, path: &str) -> Reply {
    match answer(inner, request, path) {
        Ok(body) => json_reply(200, &body),
        Err(Refusal::Unreadable(error)) => json_reply(400, &json!({"error": error.to_string()})),
        Err(Refusal::NoSuch(what)) => json_reply(404, &json!({"error": format!("no such {what}")})),
    }
}

fn answer(inner: &mut Inner, request: &Request<Vec<u8>>, path: &str) -> Result<Value, Refusal> {
    let body = request.body();
    match (request.method().as_str(), path) {
        ("GET", "/health") => {}
        ("POST", "/reset") => inner.reset(),
        ("POST", "/clients") => {
            let client: Client = read(body)?;
            inner.store.clients.insert(client.client_id.clone(), client);
        }
        ("GET", "/clients") => {
            let clients = inner.store.clients.values().map(|client| {
                json!({
                    "client_id": client.client_id,
                    "redirect_uris": client.redirect_uris,
                    "rotate": client.rotate,
                })
            });
            return Ok(clients.collect());
        }
        ("POST", "/accounts") => {
            let account: Account = read(body)?;
            inner.store.accounts.retain(|one| one.id != account.id);
            inner.store.accounts.push(account);
        }
        ("GET", "/accounts") => return Ok(json!(inner.store.accounts)),
        ("POST", "/keys") => {
            let key: NewKey = read(body)?;
            let account = known(inner, key.account)?;
            inner.add_key(&key.key, &account.id, &key.scope);
        }
        ("GET", "/keys") => {
            let store = &inner.store;
            let keys = store.access.iter().filter_map(|(key, access)| {
                let grant = store.grants.get(&access.grant)?;
                grant.client_id.is_empty().then(|| {
                    json!({
                        "key": key,
                        "account": grant.account,
                        "scope": access.scope,
                        "revoked": grant.revoked,
                    })
                })
            });
            return Ok(keys.collect());
        }
        ("POST", "/grants") => return grant(inner, request),
        ("GET", "/grants") => return Ok(grants(inner)),
        ("POST", "/webhooks") => return webhook(inner, request),
        ("POST", "/revoke") => {
            let which: Which = read(body)?;
            let count = inner.store.revoke(|grant| which.is(grant));
            return Ok(json!({"ok": true, "revoked": count}));
        }
        ("POST", "/expire_access_tokens") => {
            let which: Which = read(body)?;
            let now = inner.now().timestamp();
            let store = &mut *inner.store;
            for access in store.access.values_mut() {
                if store
                    .grants
                    .get(&access.grant)
                    .is_some_and(|one| which.is(one))
                {
                    access.expires = Some(access.expires.map_or(now, |at| at.min(now)));
                }
            }
        }
        ("POST", "/clock") => {
            let by: Advance = read(body)?;
            inner.offset += TimeDelta::seconds(by.advance_seconds);
        }
        ("GET", "/clock") => return Ok(json!({"now": inner.now().timestamp()})),
        ("POST", "/faults") => match read::<OneOrMany<Rule>>(body)? {
            OneOrMany::One(rule) => inner.faults.rules.push(rule),
            OneOrMany::Many(rules) => inner.faults.rules.extend(rules),
        },
        ("GET", "/faults") => return Ok(json!(inner.faults.rules)),
        ("DELETE", "/faults") => inner.faults.rules.clear(),
        ("GET", "/requests") => return Ok(requests(inner)),
        ("DELETE", "/requests") => inner.counts.clear(),
        _ => return Err(Refusal::NoSuch("control")),
    }
    Ok(json!({"ok": true}))
}

/// Sends a webhook as the vendor does, and shows its headers.
fn webhook(inner: &mut Inner, request: &Request<Vec<u8>>) -> Result<Value, Refusal> {
    let new: NewWebhook = read(request.body())?;
    let id = inner.store.next();
    let base = new.base.unwrap_or_else(|| inner.call(request).base);
    let sending = Sending {
        url: &new.url,
        body: &new.body,
        key: &new.key,
        at: inner.now(),
        base: &base,
        number: id,
    };
    let headers = signing::headers(inner.vendor.name, &sending);
    let shown: BTreeMap<&str, &String> = headers.iter().map(|(name, text)| (*name, text)).collect();
    let shown = json!({"headers": shown, "public_key": SENDGRID_PUBLIC_KEY});
    inner.outgoing.push(Message {
        id,
        url: new.url,
        headers,
        body: new.body,
    });
    Ok(shown)
}

/// The account of this id, the first one without an id.
fn known(inner: &Inner, id: Option<String>) -> Result<Account, Refusal> {
    let found = match &id {
        Some(id) => inner.store.account(id),
        None => inner.store.accounts.first(),
    };
    found.cloned().ok_or(Refusal::NoSuch("account"))
}

/// A connection without the consent page, for callers that test something else.
fn grant(inner: &mut Inner, request: &Request<Vec<u8>>) -> Result<Value, Refusal> {
    let new: NewGrant = read(request.body())?;
    let account = known(inner, new.account)?;
    let client = inner.store.clients.get(&new.client_id).cloned();
    let client = client.ok_or(Refusal::NoSuch("client"))?;
    let oauth = inner.vendor.oauth.as_ref();
    let oauth = oauth.ok_or(Refusal::NoSuch("grant: this vendor has keys only"))?;
    let call = inner.call(request);
    let store = &mut inner.store;
    let scope = match new.scope.as_str() {
        "" => oauth.scopes.usual,
        given => given,
    };
    let id = consented(store, oauth, &client, &account, scope, call.now);
    issue(store, oauth, &call, id, scope, false, None)
        .and_then(|answer| serde_json::from_slice(answer.body()).ok())
        .ok_or(Refusal::NoSuch("grant"))
}

/// Every grant, with what of it is alive. Tokens are shown whole: they open nothing but this.
fn grants(inner: &Inner) -> Value {
    let now = inner.now().timestamp();
    let store = &inner.store;
    let grants = store.grants.values().map(|grant| {
        let access: Vec<&String> = store
            .access
            .iter()
            .filter(|(_, one)| one.grant == grant.id && !one.revoked && !grant.revoked)
            .filter(|(_, one)| one.expires.is_none_or(|at| now < at))
            .map(|(token, _)| token)
            .collect();
        let refresh: Vec<&String> = store
            .refresh
            .iter()
            .filter(|(_, one)| one.grant == grant.id && !one.revoked && !grant.revoked)
            .filter(|(_, one)| one.superseded.is_none())
            .map(|(token, _)| token)
            .collect();
        json!({
            "grant": grant.id,
            "client_id": grant.client_id,
            "account": grant.account,
            "user": grant.user,
            "scope": grant.scope,
            "consented": grant.consented,
            "revoked": grant.revoked,
            "detached": grant.detached,
            "access_tokens": access,
            "refresh_tokens": refresh,
            "asked": store.asked.get(&grant.id).unwrap_or(&0),
        })
    });
    grants.collect()
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
