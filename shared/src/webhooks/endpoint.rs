//! Webhook endpoints: where a developer wants which events, and in what form.

use super::asymmetric::KeyPair;
use super::filter::Filter;
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{EndpointId, EventId, MerchantId};
use crate::model::notice::{Place, RecordRef, StoredEvent};
use crate::model::order_record::Sequence;
use crate::net::Guard;
use crate::oauth::vault::{self, DataKey, Sealed, WrappedKey};
use crate::store::{Condition, Write, WriteError, keys, list_all, recent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use url::Url;

/// Most endpoints of one merchant.
pub const ENDPOINTS_MAX: usize = 100;
/// Longest URL of an endpoint.
const URL_BYTES_MAX: usize = 2048;
/// Secrets are 24 to 64 random bytes (Standard Webhooks, "Signature scheme").
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// How long an old secret may go on signing beside the new one, and how many may at once.
pub const OVERLAP_DAYS_MAX: u32 = 7;
const OLDER_MAX: usize = 5;
/// Most headers of one endpoint, and the longest of them with its value.
const HEADERS_MAX: usize = 20;
const HEADER_BYTES_MAX: usize = 4096;
/// Headers that are ours, or the connection's own.
const HEADERS_TAKEN: [&str; 10] = [
    "content-length",
    "content-type",
    "connection",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];
/// The highest limit of webhooks a second.
pub const RATE_LIMIT_MAX: u32 = 1000;
const DESCRIPTION_CHARACTERS_MAX: usize = 200;
const RACE_ROUNDS_MAX: usize = 8;

/// How much of an event a webhook holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// With `data`.
    #[default]
    Full,
    /// Without it: the receiver reads what it wants to know.
    Thin,
}

/// In which order an endpoint has its webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ordering {
    /// Each as soon as it can be: one that fails keeps none back.
    #[default]
    None,
    /// Of the events with one key (`sequence.key`), the next only once the one before it has ended.
    ByKey,
}

/// Which deliveries to an endpoint its log holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Log {
    /// Each.
    #[default]
    Full,
    /// Those that did not arrive at the first attempt, and a sample of those that did.
    Failures,
}

/// Why nothing is sent to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OffReason {
    /// Somebody switched it off.
    Owner,
    /// Everything failed for days.
    Failing,
    /// The receiver itself said that it wants no more: 410, or `webhook-delivery: disable`.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    pub reason: OffReason,
    pub at: DateTime<Utc>,
}

/// A secret that was replaced and still signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Older {
    secret: Sealed,
    pair: KeyPair,
    until: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub merchant_id: MerchantId,
    pub url: Url,
    pub event_types: BTreeSet<EventType>,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub payload: Payload,
    /// A condition over the body, which what is sent fulfils.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    #[serde(default)]
    pub ordering: Ordering,
    #[serde(default)]
    pub log: Log,
    /// How much it is sent a second at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// The names of headers that are sent along. What stands in them may be a secret.
    #[serde(default)]
    pub header_names: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Sealed>,
    pub key: WrappedKey,
    pub secret: Sealed,
    pair: KeyPair,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older: Vec<Older>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub off: Option<Off>,
    /// Since when it wants what it wants now, if that changed: what it did not want before is not brought
    /// along later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wants_since: Option<DateTime<Utc>>,
    /// Since when its log is whole again, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) whole_since: Option<DateTime<Utc>>,
    /// The events about the endpoint itself.
    #[serde(default)]
    sequence: Sequence,
    pub created_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
}

impl Endpoint {
    pub fn is_thin(&self) -> bool {
        self.payload == Payload::Thin
    }

    /// Since when it wants what it wants now.
    pub(super) fn wants_since(&self) -> DateTime<Utc> {
        self.wants_since.unwrap_or(self.created_at)
    }

    /// The secrets that sign at `now`, the newest first.
    pub(super) fn secrets(&self, now: DateTime<Utc>) -> impl Iterator<Item = &Sealed> {
        let older = self.older.iter().filter(move |older| now < older.until);
        std::iter::once(&self.secret).chain(older.map(|older| &older.secret))
    }

    /// The key pairs that sign at `now`, the newest first.
    pub(super) fn pairs(&self, now: DateTime<Utc>) -> impl Iterator<Item = &KeyPair> {
        let older = self.older.iter().filter(move |older| now < older.until);
        std::iter::once(&self.pair).chain(older.map(|older| &older.pair))
    }

    /// The public keys, as a JWK Set.
    pub fn public_keys(&self, now: DateTime<Utc>) -> Value {
        json!({ "keys": self.pairs(now).map(KeyPair::jwk).collect::<Vec<_>>() })
    }

    /// Until when secrets that were replaced still sign.
    pub fn older_secrets_until(&self, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let older = self.older.iter().filter(|older| now < older.until);
        older.map(|older| older.until).collect()
    }

    /// The headers that are sent along.
    pub(super) fn headers(&self, key: &DataKey) -> Result<BTreeMap<String, SecretString>> {
        let Some(sealed) = &self.headers else {
            return Ok(BTreeMap::new());
        };
        let text = vault::open(key, self.id.as_str(), sealed)?;
        serde_json::from_str(text.expose_secret()).map_err(Error::internal)
    }
}

/// What a developer asks for, of a new endpoint or in place of what there is.
#[derive(Debug, Default)]
pub struct Wish {
    pub url: Option<Url>,
    pub event_types: Option<BTreeSet<EventType>>,
    pub description: Option<String>,
    pub payload: Option<Payload>,
    /// An empty one takes it away.
    pub filter: Option<String>,
    pub ordering: Option<Ordering>,
    pub log: Option<Log>,
    /// Nothing a second takes it away.
    pub rate_limit: Option<u32>,
    pub headers: Option<BTreeMap<String, SecretString>>,
}

impl Wish {
    fn check(&self, ctx: &Ctx) -> Result<()> {
        let mut faults = Vec::new();
        let mut fault = |path: &str, code, detail: String| {
            faults.push(FieldError::new(path, code, detail));
        };
        if self.event_types.as_ref().is_some_and(BTreeSet::is_empty) {
            let detail = "name at least one event type".to_owned();
            fault("/event_types", "wrong_count", detail);
        }
        if let Some(url) = &self.url {
            // A literal bad address is refused now; a name is judged at each delivery, when it resolves.
            let judged = Guard::new(ctx.config.allow_loopback()).check_target(url);
            if url.as_str().len() > URL_BYTES_MAX {
                let detail = format!("a URL has at most {URL_BYTES_MAX} bytes");
                fault("/url", "wrong_length", detail);
            } else if let Err(error) = judged {
                fault("/url", "address_refused", error.detail().to_owned());
            }
        }
        let description = self.description.as_deref().unwrap_or_default();
        if description.chars().count() > DESCRIPTION_CHARACTERS_MAX {
            let detail =
                format!("a description has at most {DESCRIPTION_CHARACTERS_MAX} characters");
            fault("/description", "wrong_length", detail);
        }
        let filter = self.filter.as_deref().filter(|text| !text.is_empty());
        if let Some(Err(detail)) = filter.map(Filter::parse) {
            fault("/filter", "invalid_value", detail);
        }
        if self.rate_limit.is_some_and(|rate| rate > RATE_LIMIT_MAX) {
            let detail =
                format!("a limit is 1 to {RATE_LIMIT_MAX} webhooks a second, or 0 to have none");
            fault("/rate_limit", "invalid_value", detail);
        }
        let headers = self.headers.iter().flatten();
        for (name, value) in headers.clone() {
            let path = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            if let Some(detail) = header_fault(name, value.expose_secret()) {
                fault(&path, "invalid_value", detail);
            }
        }
        if headers.count() > HEADERS_MAX {
            let detail = format!("an endpoint has at most {HEADERS_MAX} headers of its own");
            fault("/headers", "wrong_count", detail);
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(faults)),
        }
    }
}

/// Refuses order without a whole log: the next is sent once the log says that the one before it has ended.
fn check_log(ordering: Ordering, log: Log) -> Result<()> {
    match (ordering, log) {
        (Ordering::ByKey, Log::Failures) => Err(Error::invalid(vec![FieldError::new(
            "/log",
            "invalid_value",
            "an endpoint with ordering by_key needs log full; choose ordering none to keep failures alone",
        )])),
        _ => Ok(()),
    }
}

fn header_fault(name: &str, value: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("webhook-") || HEADERS_TAKEN.contains(&lower.as_str()) {
        return Some("this header is set by Crossdock; choose another name".to_owned());
    }
    // RFC 9110 §5.1 and §5.5.
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Some("a header's name has letters, digits and - alone".to_owned());
    }
    if !value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Some("a header's value has printable ASCII characters alone".to_owned());
    }
    (name.len() + value.len() > HEADER_BYTES_MAX)
        .then(|| format!("a header has at most {HEADER_BYTES_MAX} bytes with its name"))
}

/// Whether `secret` is `whsec_` and base64 of 24 to 64 bytes.
fn is_secret(secret: &str) -> bool {
    let bytes = secret
        .strip_prefix(SECRET_PREFIX)
        .and_then(|text| BASE64.decode(text).ok());
    bytes.is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len()))
}

/// The secret that was chosen, or one that is made here.
fn secret_of(ctx: &Ctx, chosen: Option<SecretString>) -> Result<SecretString> {
    match chosen {
        Some(secret) if is_secret(secret.expose_secret()) => Ok(secret),
        Some(_) => Err(Error::invalid(vec![FieldError::new(
            "/secret",
            "invalid_value",
            "a secret is whsec_ followed by base64 of 24 to 64 random bytes; leave it out to get one",
        )])),
        None => {
            let bytes: [u8; 32] = ctx.random();
            let text = format!("{SECRET_PREFIX}{}", BASE64.encode(bytes));
            Ok(SecretString::from(text))
        }
    }
}

fn seal_headers(
    ctx: &Ctx,
    key: &DataKey,
    id: &EndpointId,
    headers: &BTreeMap<String, SecretString>,
) -> Result<Option<Sealed>> {
    if headers.is_empty() {
        return Ok(None);
    }
    let exposed: BTreeMap<&String, &str> = headers
        .iter()
        .map(|(name, value)| (name, value.expose_secret()))
        .collect();
    let text = serde_json::to_string(&exposed).map_err(Error::internal)?;
    vault::seal(ctx, key, id.as_str(), &SecretString::from(text)).map(Some)
}

/// Stores a new endpoint and returns it with its secret, which is shown this once.
pub async fn register(
    ctx: &Ctx,
    merchant: &MerchantId,
    wish: Wish,
    secret: Option<SecretString>,
) -> Result<(Endpoint, SecretString)> {
    wish.check(ctx)?;
    let missing =
        |path, detail: &str| Error::invalid(vec![FieldError::new(path, "missing_field", detail)]);
    let url = wish.url.ok_or_else(|| missing("/url", "name the URL"))?;
    let event_types = wish
        .event_types
        .ok_or_else(|| missing("/event_types", "name at least one event type"))?;
    let (ordering, log) = (
        wish.ordering.unwrap_or_default(),
        wish.log.unwrap_or_default(),
    );
    check_log(ordering, log)?;
    let secret = secret_of(ctx, secret)?;
    if list(ctx, merchant).await?.len() >= ENDPOINTS_MAX {
        let detail = format!("a merchant has at most {ENDPOINTS_MAX} endpoints");
        return Err(Error::invalid(vec![FieldError::new(
            "/url", "too_many", detail,
        )]));
    }
    let id = EndpointId::new(ctx.uuid());
    let (key, wrapped) = vault::new_key(ctx, id.as_str()).await?;
    let headers = wish.headers.unwrap_or_default();
    let endpoint = Endpoint {
        secret: vault::seal(ctx, &key, id.as_str(), &secret)?,
        pair: KeyPair::new(ctx, &key, id.as_str())?,
        header_names: headers.keys().cloned().collect(),
        headers: seal_headers(ctx, &key, &id, &headers)?,
        key: wrapped,
        id,
        merchant_id: merchant.clone(),
        url,
        event_types,
        description: wish.description.unwrap_or_default(),
        payload: wish.payload.unwrap_or_default(),
        filter: wish.filter.filter(|text| !text.is_empty()),
        ordering,
        log,
        rate_limit: wish.rate_limit.filter(|rate| *rate > 0),
        older: Vec::new(),
        off: None,
        wants_since: None,
        whole_since: None,
        sequence: Sequence::default(),
        created_at: ctx.now(),
        updated_at: None,
    };
    let key = keys::endpoint(merchant, &endpoint.id);
    ctx.store
        .write(Write::put(key, Condition::Absent, &endpoint)?)
        .await?;
    Ok((endpoint, secret))
}

/// Puts what `wish` names in place of what there is.
pub async fn update(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &EndpointId,
    wish: Wish,
) -> Result<Endpoint> {
    wish.check(ctx)?;
    // The key never changes but for its wrapping, so what is sealed now can be opened later.
    let (_, held) = load(ctx, merchant, id).await?;
    let sealed = match &wish.headers {
        None => None,
        Some(headers) => {
            let key = vault::unwrap(ctx, id.as_str(), &held.key).await?;
            Some(seal_headers(ctx, &key, id, headers)?)
        }
    };
    let now = ctx.now();
    change(ctx, merchant, id, |endpoint| {
        let wanted = |endpoint: &Endpoint| {
            let types = endpoint.event_types.clone();
            (types, endpoint.filter.clone(), endpoint.ordering)
        };
        let before = wanted(endpoint);
        if let Some(url) = &wish.url {
            endpoint.url = url.clone();
        }
        if let Some(types) = &wish.event_types {
            endpoint.event_types = types.clone();
        }
        if let Some(description) = &wish.description {
            endpoint.description.clone_from(description);
        }
        if let Some(payload) = wish.payload {
            endpoint.payload = payload;
        }
        if let Some(filter) = &wish.filter {
            endpoint.filter = Some(filter.clone()).filter(|text| !text.is_empty());
        }
        if let Some(ordering) = wish.ordering {
            endpoint.ordering = ordering;
        }
        if let Some(log) = wish.log {
            if (endpoint.log, log) == (Log::Failures, Log::Full) {
                // By then no function remembers it as it was.
                endpoint.whole_since = Some(now + recent::AGE_MAX);
            }
            endpoint.log = log;
        }
        if let Some(rate) = wish.rate_limit {
            endpoint.rate_limit = Some(rate).filter(|rate| *rate > 0);
        }
        check_log(endpoint.ordering, endpoint.log)?;
        if wanted(endpoint) != before {
            endpoint.wants_since = Some(now);
        }
        if let (Some(headers), Some(sealed)) = (&wish.headers, &sealed) {
            endpoint.header_names = headers.keys().cloned().collect();
            endpoint.headers = sealed.clone();
        }
        Ok(None)
    })
    .await
}

/// Gives an endpoint a new secret, which is shown this once, and a new key pair; the old ones sign beside them for
/// `overlap_days`.
pub async fn rotate_secret(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &EndpointId,
    secret: Option<SecretString>,
    overlap_days: u32,
) -> Result<(Endpoint, SecretString)> {
    if overlap_days > OVERLAP_DAYS_MAX {
        return Err(Error::invalid(vec![FieldError::new(
            "/overlap_days",
            "invalid_value",
            format!("the old secret goes on for 0 to {OVERLAP_DAYS_MAX} days"),
        )]));
    }
    let secret = secret_of(ctx, secret)?;
    let (_, held) = load(ctx, merchant, id).await?;
    let key = vault::unwrap(ctx, id.as_str(), &held.key).await?;
    let sealed = vault::seal(ctx, &key, id.as_str(), &secret)?;
    let pair = KeyPair::new(ctx, &key, id.as_str())?;
    let now = ctx.now();
    let until = now + TimeDelta::days(i64::from(overlap_days));
    let changed = change(ctx, merchant, id, |endpoint| {
        let old = std::mem::replace(&mut endpoint.secret, sealed.clone());
        let old_pair = std::mem::replace(&mut endpoint.pair, pair.clone());
        // Who wants the old one to end at once means all that are older, too.
        endpoint
            .older
            .retain(|older| now < older.until && overlap_days > 0);
        if overlap_days > 0 {
            let older = Older {
                secret: old,
                pair: old_pair,
                until,
            };
            endpoint.older.insert(0, older);
        }
        if endpoint.older.len() > OLDER_MAX {
            return Err(Error::new(
                Code::Conflict,
                format!("{OLDER_MAX} secrets sign already; rotate with overlap_days 0, or wait"),
            ));
        }
        Ok(None)
    });
    Ok((changed.await?, secret))
}

/// Lets an endpoint have events again, from now on.
pub async fn enable(ctx: &Ctx, merchant: &MerchantId, id: &EndpointId) -> Result<Endpoint> {
    let now = ctx.now();
    let enabled = change(ctx, merchant, id, |endpoint| {
        if endpoint.off.take().is_some() {
            endpoint.wants_since = Some(now);
        }
        Ok(None)
    })
    .await?;
    // What it did before says nothing any more.
    let key = keys::endpoint_health(merchant, id);
    let condition = Condition::Any;
    ctx.store.write(Write::Delete { key, condition }).await?;
    Ok(enabled)
}

/// Sends nothing to an endpoint any more until somebody enables it.
pub async fn disable(ctx: &Ctx, merchant: &MerchantId, id: &EndpointId) -> Result<Endpoint> {
    let now = ctx.now();
    change(ctx, merchant, id, |endpoint| {
        endpoint.off.get_or_insert(Off {
            reason: OffReason::Owner,
            at: now,
        });
        Ok(None)
    })
    .await
}

/// The same where nobody asked for it, which its owner is told.
pub(super) async fn switch_off(ctx: &Ctx, endpoint: &Endpoint, reason: OffReason) -> Result<()> {
    let off = Off {
        reason,
        at: ctx.now(),
    };
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    let switched = change(ctx, merchant, id, |endpoint| {
        let on = endpoint.off.is_none();
        endpoint.off.get_or_insert(off.clone());
        Ok(on.then_some(EventType::EndpointDisabled))
    })
    .await;
    match switched {
        Err(error) if error.code() != Code::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Tells the owner of an endpoint something about it.
pub(super) async fn tell(ctx: &Ctx, endpoint: &Endpoint, kind: EventType) -> Result<()> {
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    match change(ctx, merchant, id, |_| Ok(Some(kind))).await {
        Err(error) if error.code() != Code::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes an endpoint; with it its secret is gone, and what is pending for it ends.
pub async fn delete(ctx: &Ctx, merchant: &MerchantId, id: &EndpointId) -> Result<()> {
    load(ctx, merchant, id).await?;
    for key in [
        keys::endpoint(merchant, id),
        keys::endpoint_health(merchant, id),
    ] {
        let condition = Condition::Any;
        ctx.recent.forget(&key);
        ctx.store.write(Write::Delete { key, condition }).await?;
    }
    Ok(())
}

/// Changes one endpoint: `decide` changes it and names the event that tells of it, if any. When somebody
/// else was faster, it is read and decided again.
async fn change(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &EndpointId,
    mut decide: impl FnMut(&mut Endpoint) -> Result<Option<EventType>>,
) -> Result<Endpoint> {
    for _ in 0..RACE_ROUNDS_MAX {
        let (rev, mut endpoint) = load(ctx, merchant, id).await?;
        let before = endpoint.clone();
        let event = decide(&mut endpoint)?;
        if event.is_none() && endpoint == before {
            return Ok(endpoint);
        }
        endpoint.updated_at = Some(ctx.now());
        let mut writes = match event {
            None => Vec::new(),
            Some(kind) => endpoint.announce(ctx, kind)?,
        };
        let key = keys::endpoint(merchant, id);
        writes.push(Write::put(key, Condition::Rev(rev), &endpoint)?);
        let written = match writes.len() {
            1 => ctx.store.write(writes.remove(0)).await,
            _ => ctx.store.transact(writes).await,
        };
        ctx.recent.forget(&keys::endpoint(merchant, id));
        match written {
            Ok(()) => return Ok(endpoint),
            Err(WriteError::Condition(_) | WriteError::Contended) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(Error::new(
        Code::Busy,
        "this endpoint is being changed; send it again",
    ))
}

impl Endpoint {
    /// The writes that tell the platform and its developers of `kind`.
    fn announce(&mut self, ctx: &Ctx, kind: EventType) -> Result<Vec<Write>> {
        let now = ctx.now();
        let id = EventId::ours(ctx.uuid());
        let (n, previous_id) = self.sequence.advance(&id);
        let data = json!({
            "id": self.id,
            "url": self.url,
            "description": self.description,
            "disabled": self.off,
        });
        let record = RecordRef {
            kind: RecordKind::Endpoint,
            id: self.id.to_string(),
        };
        let merchant = &self.merchant_id;
        let stored = StoredEvent {
            id: id.clone(),
            kind,
            merchant_id: merchant.clone(),
            occurred_at: now,
            accepted_at: now,
            fingerprint: fingerprint(&data),
            data,
            record,
            applied: true,
            place: Place {
                key: self.id.to_string(),
                n,
                previous_id,
            },
        };
        let notice = stored.notice();
        Ok(vec![
            Write::put(keys::event(merchant, &id), Condition::Absent, &stored)?,
            Write::put(keys::outbox(merchant, &id), Condition::Absent, &notice)?,
        ])
    }
}

/// Reads one endpoint with its revision.
pub async fn load(ctx: &Ctx, merchant: &MerchantId, id: &EndpointId) -> Result<(u64, Endpoint)> {
    let item = ctx.store.get(&keys::endpoint(merchant, id)).await?;
    let item = item.ok_or_else(|| Error::not_found(format!("endpoint {id}")))?;
    Ok((item.rev, item.read()?))
}

pub async fn list(ctx: &Ctx, merchant: &MerchantId) -> Result<Vec<Endpoint>> {
    list_all(&*ctx.store, &keys::endpoints(merchant), ENDPOINTS_MAX)
        .await?
        .iter()
        .map(crate::store::Item::read)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let secret = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![1; bytes]));
        for (bytes, good) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(is_secret(&secret(bytes)), good, "{bytes}");
        }
        assert!(!is_secret(&BASE64.encode([1; 32])));
    }

    #[test]
    fn a_header_can_be_sent_and_is_not_one_of_ours() {
        for (name, value) in [("Authorization", "Bearer x"), ("X-Shop", "")] {
            assert_eq!(header_fault(name, value), None, "{name}");
        }
        let long = "x".repeat(HEADER_BYTES_MAX);
        for (name, value) in [
            ("Webhook-Id", "1"),
            ("HOST", "example.com"),
            ("content-length", "0"),
            ("", "x"),
            ("a b", "x"),
            ("a:b", "x"),
            ("x", "a\r\nb: c"),
            ("x", "ä"),
            ("x", long.as_str()),
        ] {
            assert!(header_fault(name, value).is_some(), "{name}: {value}");
        }
    }
}
