//! One merchant's connection to one account of one provider: what is stored of it, and the one way to
//! change it.

use super::vault::{Sealed, WrappedKey};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{ConnectionId, EventId, MerchantId};
use crate::model::notice::{Notice, Place, RecordRef, StoredEvent};
use crate::model::order_record::Sequence;
use crate::providers::{Category, Manifest, Provider, provider};
use crate::store::{Condition, Write, WriteError, keys, list_all};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use url::Url;

/// Most connections of one merchant.
pub const CONNECTIONS_MAX: usize = 100;
/// How long an entry of the history is kept.
const HISTORY_LIFE: TimeDelta = TimeDelta::days(400);
/// How long a connection that nobody confirmed is still shown.
const PENDING_LIFE: TimeDelta = TimeDelta::days(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Consent was given, but the backend has not yet confirmed that the right person gave it.
    Pending,
    Live,
    /// Somebody stopped it for a while: nothing is sent, but its tokens are kept alive.
    Paused,
    /// The provider no longer takes our tokens; somebody has to connect again.
    ReauthRequired,
    /// Given up for good. What it did stays in the ledger.
    Disconnected,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Pending => "pending",
            Status::Live => "live",
            Status::Paused => "paused",
            Status::ReauthRequired => "reauth_required",
            Status::Disconnected => "disconnected",
        }
    }

    /// Whether its tokens are in use, or kept for use.
    pub const fn holds_tokens(self) -> bool {
        matches!(self, Status::Live | Status::Paused)
    }
}

/// What a consent gave, sealed. Each renewal has the next generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub sealed: Sealed,
    pub generation: u64,
    pub issued_at: DateTime<Utc>,
    /// `None` when the access token does not end by itself.
    pub access_expires_at: Option<DateTime<Utc>>,
}

/// A consent that waits for its confirmation. What was live before stays in use until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub sealed: Sealed,
    pub issued_at: DateTime<Utc>,
    pub access_expires_at: Option<DateTime<Utc>>,
    pub tenant_name: Option<String>,
    pub api: Option<Url>,
    pub reference: Option<String>,
    pub scopes: Vec<String>,
    pub confirmation_hash: String,
    pub expires_at: DateTime<Utc>,
}

/// Who is renewing the tokens. A lease has no time of its own: whoever wants to take it over has to
/// watch it stand still for longer than any renewal takes, by his own patience and not by a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Grows with each lease of this connection, so that a holder who was overtaken can tell.
    pub fence: u64,
}

/// Why a connection does not work, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub code: String,
    pub detail: String,
    pub at: DateTime<Utc>,
}

/// What a merchant may set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// A name for people, where a merchant has several connections.
    #[serde(default)]
    pub label: Option<String>,
    /// Orders placed and refunds made before are not sent: their books are closed, say.
    #[serde(default)]
    pub records_from: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub merchant_id: MerchantId,
    pub provider: String,
    pub category: Category,
    pub status: Status,
    /// The provider's id of the account: QuickBooks' `realmId`, say.
    pub tenant_id: String,
    pub tenant_name: Option<String>,
    /// Where the account's API is, if that differs from account to account.
    pub api: Option<Url>,
    /// What giving the grant back needs beside the tokens.
    pub reference: Option<String>,
    pub scopes: Vec<String>,
    /// Absent once it is destroyed.
    pub key: Option<WrappedKey>,
    pub tokens: Option<Tokens>,
    /// The tokens before, until the first success with the new ones.
    pub previous: Option<Tokens>,
    pub consent: Option<Consent>,
    pub lease: Option<Lease>,
    /// The fence of the latest lease.
    pub fence: u64,
    pub next_refresh_at: Option<DateTime<Utc>>,
    pub trouble: Option<Trouble>,
    pub settings: Settings,
    pub sequence: Sequence,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// What happened, as the history shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happened {
    ConsentGiven,
    Connected,
    Reconnected,
    Imported,
    RefreshFailed,
    ReauthRequired,
    Recovered,
    Paused,
    Resumed,
    SettingsChanged,
    Disconnected,
}

/// One entry of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// A UUIDv7, so that entries sort by age.
    pub id: String,
    pub at: DateTime<Utc>,
    pub what: Happened,
    /// In words for people.
    pub detail: String,
}

impl Connection {
    /// The associated data of this connection's secrets.
    pub fn vault_owner(&self) -> &str {
        self.id.as_str()
    }

    /// A name for people.
    pub fn label(&self) -> &str {
        let label = self.settings.label.as_deref();
        label
            .or(self.tenant_name.as_deref())
            .unwrap_or(&self.tenant_id)
    }

    /// The provider that it belongs to.
    pub fn provider(&self) -> Result<&'static dyn Provider> {
        provider(&self.provider)
            .ok_or_else(|| Error::internal(format!("no provider is named {}", self.provider)))
    }

    pub fn manifest(&self) -> Result<&'static Manifest> {
        Ok(self.provider()?.manifest())
    }

    /// The generation of the tokens in use; 0 before there were any.
    pub fn generation(&self) -> u64 {
        self.tokens.as_ref().map_or(0, |tokens| tokens.generation)
    }

    /// When a connection goes away by itself, because nobody confirmed it.
    pub fn vanishes_at(&self) -> Option<DateTime<Utc>> {
        let consent = self.consent.as_ref()?;
        (self.status == Status::Pending).then(|| consent.expires_at + PENDING_LIFE)
    }

    fn due_minute(&self) -> Option<i64> {
        let at = self
            .next_refresh_at
            .filter(|_| self.status.holds_tokens())?;
        Some(minute_of(at))
    }

    /// The writes that store this connection in place of `before`, or as a new one.
    fn writes(&self, before: Option<(u64, &Connection)>) -> Result<Vec<Write>> {
        let key = keys::connection(&self.merchant_id, &self.id);
        let condition = before.map_or(Condition::Absent, |(rev, _)| Condition::Rev(rev));
        let mut main = Write::put(key, condition, self)?;
        if let Some(at) = self.vanishes_at() {
            main = main.expiring(at.timestamp());
        }
        let mut writes = vec![main];
        let due = |minute| keys::due_connection(minute, &self.merchant_id, &self.id);
        let old = before.and_then(|(_, before)| before.due_minute());
        let new = self.due_minute();
        if old != new {
            if let Some(minute) = old {
                writes.push(Write::Delete {
                    key: due(minute),
                    condition: Condition::Any,
                });
            }
            if let Some(minute) = new {
                let document = Due::of(self);
                writes.push(Write::put(due(minute), Condition::Any, &document)?);
            }
        }
        Ok(writes)
    }

    /// The writes that tell the platform and its developers of `kind`. They change the sequence, so
    /// they come before the connection itself is written.
    fn announce(&mut self, ctx: &Ctx, kind: EventType) -> Result<Vec<Write>> {
        let now = ctx.now();
        let id = EventId::ours(ctx.uuid());
        let previous_id = self.sequence.last.replace(id.clone());
        self.sequence.n += 1;
        let data = json!({
            "id": self.id,
            "provider": self.provider,
            "category": self.category,
            "status": self.status,
            "tenant_id": self.tenant_id,
            "tenant_name": self.tenant_name,
            "trouble": self.trouble,
        });
        let record = RecordRef {
            kind: RecordKind::Connection,
            id: self.id.to_string(),
        };
        let stored = StoredEvent {
            id: id.clone(),
            kind,
            merchant_id: self.merchant_id.clone(),
            occurred_at: now,
            accepted_at: now,
            fingerprint: fingerprint(&data),
            data,
            record: record.clone(),
            applied: true,
            place: Place {
                key: self.id.to_string(),
                n: self.sequence.n,
                previous_id,
            },
        };
        let notice = Notice {
            merchant_id: self.merchant_id.clone(),
            event_id: id.clone(),
            kind,
            record,
            order_id: None,
            accepted_at: now,
            after: None,
        };
        let merchant = &self.merchant_id;
        Ok(vec![
            Write::put(keys::event(merchant, &id), Condition::Absent, &stored)?,
            Write::put(keys::outbox(merchant, &id), Condition::Any, &notice)?,
        ])
    }

    fn entry(&self, ctx: &Ctx, what: Happened, detail: String) -> Result<Write> {
        let at = ctx.now();
        let entry = Entry {
            id: ctx.uuid().to_string(),
            at,
            what,
            detail,
        };
        let key = keys::connection_entry(&self.merchant_id, &self.id, &entry.id);
        let write = Write::put(key, Condition::Absent, &entry)?;
        Ok(write.expiring((at + HISTORY_LIFE).timestamp()))
    }
}

/// A connection that is due for renewal, as the schedule finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    pub merchant_id: MerchantId,
    pub connection_id: ConnectionId,
    pub category: Category,
    /// The tokens that are due; when others are in use, somebody was faster.
    pub generation: u64,
}

impl Due {
    fn of(connection: &Connection) -> Due {
        Due {
            merchant_id: connection.merchant_id.clone(),
            connection_id: connection.id.clone(),
            category: connection.category,
            generation: connection.generation(),
        }
    }
}

/// The minute in which `at` falls, counted from 1970.
pub fn minute_of(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

/// What goes with a change of a connection.
#[derive(Debug, Default)]
pub struct Along {
    pub history: Vec<(Happened, String)>,
    pub event: Option<EventType>,
    /// Further writes of the same transaction.
    pub writes: Vec<Write>,
}

impl Along {
    /// An entry of the history and nothing else.
    pub fn entry(what: Happened, detail: impl Into<String>) -> Along {
        Along {
            history: vec![(what, detail.into())],
            ..Along::default()
        }
    }

    pub fn event(mut self, kind: EventType) -> Along {
        self.event = Some(kind);
        self
    }
}

/// What a change came to.
pub enum Decision<T> {
    /// Store the connection as it is now, with what goes along.
    Store(Along, T),
    /// Leave everything as it stands.
    Leave(T),
}

/// Stores a connection in place of `before`, or as a new one, with all that goes along, in one
/// transaction. `false` when somebody else was faster; then nothing is stored.
pub async fn store(
    ctx: &Ctx,
    connection: &mut Connection,
    before: Option<(u64, &Connection)>,
    along: Along,
) -> Result<bool> {
    connection.updated_at = ctx.now();
    let mut writes = Vec::new();
    if let Some(kind) = along.event {
        writes.extend(connection.announce(ctx, kind)?);
    }
    for (what, detail) in along.history {
        writes.push(connection.entry(ctx, what, detail)?);
    }
    writes.extend(along.writes);
    writes.extend(connection.writes(before)?);
    let outcome = match writes.pop() {
        // A transaction costs twice as much.
        Some(only) if writes.is_empty() => ctx.store.write(only).await,
        last => {
            writes.extend(last);
            ctx.store.transact(writes).await
        }
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(WriteError::Condition(_) | WriteError::Contended) => Ok(false),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// How long a change is tried again, and how often it is looked at within that time.
const PATIENCE: Duration = Duration::from_secs(3);
/// For changes that must not be lost, such as tokens that were just given: a table that is throttled
/// for a moment takes them later.
pub const PATIENCE_LONG: Duration = Duration::from_secs(8);

/// Changes one connection: reads it, lets `decide` change it, stores it with what goes along. When
/// somebody else was faster, it is read and decided again.
pub async fn change<T>(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    decide: impl FnMut(&mut Connection) -> Result<Decision<T>>,
) -> Result<(Connection, T)> {
    change_within(ctx, PATIENCE, merchant, id, decide).await
}

/// The same, tried for at least `patience`; a failure of the store within it is tried again too.
pub async fn change_within<T>(
    ctx: &Ctx,
    patience: Duration,
    merchant: &MerchantId,
    id: &ConnectionId,
    mut decide: impl FnMut(&mut Connection) -> Result<Decision<T>>,
) -> Result<(Connection, T)> {
    let mut waited = Duration::ZERO;
    let mut pause = Duration::from_millis(20);
    loop {
        let failed = match try_change(ctx, merchant, id, &mut decide).await {
            Ok(Some(changed)) => return Ok(changed),
            Ok(None) => Error::new(
                Code::Busy,
                "this connection is being changed; send it again",
            ),
            Err(error) if error.code() == Code::Internal && patience > PATIENCE => error,
            Err(error) => return Err(error),
        };
        if waited >= patience {
            return Err(failed);
        }
        // Between half and all of the pause, so that two do not meet again.
        let part = u64::from(ctx.random::<1>()[0]) + 256;
        let wait = pause * u32::try_from(part).unwrap_or(512) / 512;
        ctx.clock.sleep(wait).await;
        waited += wait;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

async fn try_change<T>(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    decide: &mut impl FnMut(&mut Connection) -> Result<Decision<T>>,
) -> Result<Option<(Connection, T)>> {
    let (rev, before) = load(ctx, merchant, id).await?;
    let mut connection = before.clone();
    match decide(&mut connection)? {
        Decision::Leave(value) => Ok(Some((before, value))),
        Decision::Store(along, value) => {
            let stored = store(ctx, &mut connection, Some((rev, &before)), along).await?;
            Ok(stored.then_some((connection, value)))
        }
    }
}

/// Reads one connection with its revision.
pub async fn load(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
) -> Result<(u64, Connection)> {
    let item = ctx.store.get(&keys::connection(merchant, id)).await?;
    let item = item.ok_or_else(|| Error::not_found(format!("connection {id}")))?;
    Ok((item.rev, item.read()?))
}

/// Reads all connections of a merchant.
pub async fn list(ctx: &Ctx, merchant: &MerchantId) -> Result<Vec<(u64, Connection)>> {
    list_all(&*ctx.store, &keys::connections(merchant), CONNECTIONS_MAX)
        .await?
        .iter()
        .map(|item| Ok((item.rev, item.read()?)))
        .collect()
}

/// How calls to the provider went last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_failure: Option<Trouble>,
}

impl Health {
    /// `healthy`, `failing`, or `unknown` before the first call.
    pub fn word(&self) -> &'static str {
        match (&self.last_success_at, &self.last_failure) {
            (None, None) => "unknown",
            (Some(success), Some(failure)) if failure.at > *success => "failing",
            (None, Some(_)) => "failing",
            _ => "healthy",
        }
    }
}

/// Notes that the provider answered a call, or why it did not. What cannot be noted is only missing
/// from a page.
pub async fn note_health(ctx: &Ctx, connection: &Connection, trouble: Option<Trouble>) {
    let key = keys::connection_health(&connection.merchant_id, &connection.id);
    let noted = async {
        let held = ctx.store.get(&key).await?;
        let mut health: Health = held
            .map(|item| item.read())
            .transpose()?
            .unwrap_or_default();
        match trouble {
            None => health.last_success_at = Some(ctx.now()),
            Some(trouble) => health.last_failure = Some(trouble),
        }
        let write = Write::put(key.clone(), Condition::Any, &health)?;
        ctx.store.write(write).await.map_err(Error::from)
    };
    if let Err(error) = noted.await {
        tracing::warn!(connection_id = %connection.id, error = %error.chain(), "health not noted");
    }
}
