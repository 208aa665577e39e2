//! One merchant's connection to one account of one provider: what is stored of it, and the one way to
//! change it.

use super::vault::{Sealed, WrappedKey};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::{ConnectionId, EventId, MerchantId};
use crate::model::notice::{Place, RecordRef, StoredEvent};
use crate::model::order_record::Sequence;
use crate::providers::accounting::accounting;
use crate::providers::accounts::{Choices, Guest, Role};
use crate::providers::{Category, Manifest, Provider, provider};
use crate::store::{Condition, Item, Write, WriteError, keys, list_all};
use crate::sync::conflict::Conflicts;
use crate::sync::push::Form;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use url::Url;

/// Most connections of one merchant, those aside that were given up.
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
    /// The browser that gave it; absent for what the backend itself brought along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub browser: Option<Browser>,
    pub expires_at: DateTime<Utc>,
}

/// The browser in which a connection was begun, by the cookie that it was given then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Browser {
    pub cookie_name: String,
    pub cookie_hash: String,
    /// Where it goes when all is done.
    pub return_url: Url,
}

/// Who is renewing the tokens. A lease has no time of its own: whoever wants to take it over has to
/// watch it stand still for longer than any renewal takes, by his own patience and not by a clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Grows with each lease of this connection, so that a holder who was overtaken can tell.
    pub fence: u64,
    /// For how many milliseconds others saw it stand still who could not wait for its end. Only noted
    /// where nobody else may come who has the time.
    #[serde(default)]
    pub watched: u64,
}

/// Why a connection does not work, in words for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub code: String,
    pub detail: String,
    pub at: DateTime<Utc>,
}

/// How orders and refunds get into the books.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Posting {
    /// Each by itself.
    #[default]
    Each,
    /// Those of one day, channel and currency in one.
    Daily,
}

impl Posting {
    pub const ALL: [Posting; 2] = [Posting::Each, Posting::Daily];
}

/// From which day (UTC) on records are posted in a way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posted {
    pub posting: Posting,
    pub from: NaiveDate,
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
    /// What an order becomes in the books, where the provider leaves the choice; `None` for its usual
    /// form.
    #[serde(default)]
    pub orders_as: Option<Form>,
    /// Who wins when the shop and the provider say different things.
    #[serde(default)]
    pub conflicts: Conflicts,
    /// Accounts that are used in the place of the defaults that are read from the company: a provider's id
    /// or code for each role.
    #[serde(default)]
    pub accounts: BTreeMap<Role, String>,
    /// The name of the customer or contact that guests are booked on; `None` for the usual one.
    #[serde(default)]
    pub guest_customer: Option<String>,
    /// How orders and refunds get into the books.
    #[serde(default)]
    pub posting: Posting,
    /// The first day (UTC) for which `posting` counts; `None` for the day after it was set.
    #[serde(default)]
    pub posting_from: Option<NaiveDate>,
    /// The name of the customer or contact of daily summaries; `None` for the usual one.
    #[serde(default)]
    pub daily_customer: Option<String>,
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
    /// The hash of the confirmation that was used last, so that using it again is no fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<String>,
    /// Whether somebody stopped it. It is kept while the access is lost, so that giving the access
    /// again does not begin what was stopped.
    #[serde(default)]
    pub paused: bool,
    pub lease: Option<Lease>,
    /// The fence of the latest lease.
    pub fence: u64,
    pub next_refresh_at: Option<DateTime<Utc>>,
    pub trouble: Option<Trouble>,
    pub settings: Settings,
    /// Whom guests were booked on, and from when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guests: Vec<Guest>,
    /// On whom daily summaries were booked, and from when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub daily_customers: Vec<Guest>,
    /// How records were posted from which day on, the earliest first. Before the first, each by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub postings: Vec<Posted>,
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
    /// The provider could not tell what changed, so everything that stands there was read.
    FullCompare,
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
    /// What its merchant chose about the books.
    pub fn choices(&self) -> Choices {
        Choices {
            accounts: self.settings.accounts.clone(),
            guests: self.guests.clone(),
            daily: self.daily_customers.clone(),
        }
    }

    /// How records of `day` (UTC) are posted.
    pub fn posting(&self, day: NaiveDate) -> Posting {
        let mut latest_first = self.postings.iter().rev();
        let posted = latest_first.find(|posted| posted.from <= day);
        posted.map_or_else(Posting::default, |posted| posted.posting)
    }

    /// Posts records of `from` and later days as `posting` says. What was to count from then on no longer
    /// does.
    pub fn post(&mut self, posting: Posting, from: NaiveDate) {
        self.postings.retain(|posted| posted.from < from);
        let before = self.postings.last().map(|posted| posted.posting);
        if before.unwrap_or_default() != posting {
            self.postings.push(Posted { posting, from });
        }
    }

    /// Whether its consent holds one of `scopes`, as far as is known.
    pub fn holds(&self, scopes: &[&str]) -> bool {
        let held = |scope: &&str| self.scopes.iter().any(|own| own == scope);
        scopes.is_empty() || self.scopes.is_empty() || scopes.iter().any(held)
    }

    /// The associated data of this connection's secrets.
    pub fn vault_owner(&self) -> &str {
        self.id.as_str()
    }

    /// What it is when its tokens are good.
    pub fn at_work(&self) -> Status {
        if self.paused {
            Status::Paused
        } else {
            Status::Live
        }
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

    /// Whether a consent waits that can no longer be confirmed.
    pub fn has_stale_consent(&self, now: DateTime<Utc>) -> bool {
        let consent = self.consent.as_ref();
        consent.is_some_and(|consent| consent.expires_at <= now)
    }

    /// When a connection goes away by itself, because nobody confirmed it.
    pub fn vanishes_at(&self) -> Option<DateTime<Utc>> {
        let consent = self.consent.as_ref()?;
        (self.status == Status::Pending).then(|| consent.expires_at + PENDING_LIFE)
    }

    /// The minute in which it is due, and its row there.
    fn due(&self) -> Option<(i64, Due)> {
        let at = self
            .next_refresh_at
            .filter(|_| self.status.holds_tokens())?;
        Some((minute_of(at), Due::of(self)))
    }

    /// Its row in the schedule that reads what changed over there.
    fn pulled(&self) -> Option<Pulled> {
        let read = self.status == Status::Live && accounting(&self.provider).is_some();
        read.then(|| Pulled {
            merchant_id: self.merchant_id.clone(),
            connection_id: self.id.clone(),
        })
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
        let old_due = before.and_then(|(_, before)| before.due());
        let new = self.due();
        if let Some((minute, _)) = old_due.as_ref()
            && new.as_ref().is_none_or(|(other, _)| other != minute)
        {
            writes.push(Write::Delete {
                key: due(*minute),
                condition: Condition::Any,
            });
        }
        let old = before.and_then(|(_, before)| before.pulled());
        let pulled = self.pulled();
        if pulled != old {
            let slot = Pulled::slot(&self.id);
            let key = keys::pulled_connection(slot, &self.merchant_id, &self.id);
            let condition = Condition::Any;
            writes.push(match &pulled {
                Some(pulled) => Write::put(key, condition, pulled)?,
                None => Write::Delete { key, condition },
            });
        }
        // Other tokens that happen to be due in the same minute have a row of their own too: nobody
        // renews by a row that names older ones.
        if let Some((minute, document)) = &new
            && new != old_due
        {
            writes.push(Write::put(due(*minute), Condition::Any, document)?);
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
            record,
            applied: true,
            place: Place {
                key: self.id.to_string(),
                n: self.sequence.n,
                previous_id,
            },
        };
        let notice = stored.notice();
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

/// How many slots the schedule of pulls has, one for each minute: each connection is read once in so
/// many minutes, and the connections are spread over them.
pub const PULL_SLOTS: u8 = 30;

/// A live connection of which changes are read, as the schedule finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulled {
    pub merchant_id: MerchantId,
    pub connection_id: ConnectionId,
}

impl Pulled {
    fn slot(id: &ConnectionId) -> u8 {
        // The end of such an id is random.
        let bytes = id.as_str().bytes().rev().take(8);
        let sum = bytes.fold(0_u32, |sum, byte| sum.wrapping_mul(31) + u32::from(byte));
        u8::try_from(sum % u32::from(PULL_SLOTS)).unwrap_or(0)
    }
}

/// Gives the connection in `item` its row in the schedule of pulls, if it is one of which changes are
/// read. Fails, for now, if the connection was changed since it was read.
pub async fn schedule_pulls(ctx: &Ctx, item: &Item) -> Result<()> {
    let connection: Connection = item.read()?;
    let Some(pulled) = connection.pulled() else {
        return Ok(());
    };
    let slot = Pulled::slot(&connection.id);
    let row = keys::pulled_connection(slot, &connection.merchant_id, &connection.id);
    let unchanged = Write::Check {
        key: item.key.clone(),
        condition: Condition::Rev(item.rev),
    };
    let writes = vec![unchanged, Write::put(row, Condition::Any, &pulled)?];
    Ok(ctx.store.transact(writes).await?)
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
/// For changes that must not be lost: a table that is throttled for a moment takes them later.
pub const PATIENCE_LONG: Duration = Duration::from_secs(8);
/// A try to store what was given that begins later than this before the function's end would be cut off.
const LAST_TRY: Duration = Duration::from_secs(2);

/// How long tokens that were just given are tried to be stored: for as long as the function lives, except
/// for `after`. They are the only ones that work from then on, so what is dropped with them is the
/// connection.
pub(super) fn patience_for_tokens(ctx: &Ctx, after: Duration) -> Duration {
    let left = ctx.clock.left().unwrap_or_default();
    left.saturating_sub(LAST_TRY + after).max(PATIENCE_LONG)
}

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
    let begun = ctx.clock.passed();
    let mut paused = Duration::ZERO;
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
        // A call that fails may have taken long, too.
        let passed = ctx.clock.passed().saturating_sub(begun);
        if passed.max(paused) >= patience {
            return Err(failed);
        }
        // Between half and all of the pause, so that two do not meet again.
        let part = u64::from(ctx.random::<1>()[0]) + 256;
        let wait = pause * u32::try_from(part).unwrap_or(512) / 512;
        ctx.clock.sleep(wait).await;
        paused += wait;
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

/// Reads all connections of a merchant, also those that were given up, of which there may be any number.
pub async fn list(ctx: &Ctx, merchant: &MerchantId) -> Result<Vec<(u64, Connection)>> {
    list_all(&*ctx.store, &keys::connections(merchant), usize::MAX)
        .await?
        .iter()
        .map(|item| Ok((item.rev, item.read()?)))
        .collect()
}

/// How calls to the provider went last: as it is stored, those for the API alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub last_success_at: Option<DateTime<Utc>>,
    pub last_failure: Option<Trouble>,
}

impl Health {
    /// What is known beside the calls that were noted: tokens that the provider gave are a success, and
    /// a renewal that failed is a failure.
    pub fn with(self, connection: &Connection) -> Health {
        let given = connection.tokens.as_ref().map(|tokens| tokens.issued_at);
        let failures = [self.last_failure, connection.trouble.clone()];
        Health {
            last_success_at: self.last_success_at.max(given),
            last_failure: failures.into_iter().flatten().max_by_key(|one| one.at),
        }
    }

    /// How the latest call went: `healthy`, `failing`, or `unknown` before the first.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::{Bus, Entry as BusEntry};
    use crate::config::Config;
    use crate::ctx::Clock;
    use crate::model::http::{Request, Response};
    use crate::net::{Limits, Net};
    use crate::queue::{Message, Queue};
    use crate::secrets::Secrets;
    use crate::store::memory::Memory;
    use crate::store::{Group, Item, Key, Page, Store, Table};
    use async_trait::async_trait;
    use proptest::prelude::*;
    use secrecy::SecretString;
    use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
    use std::sync::{Arc, Mutex};

    /// What the next writes meet.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Meets {
        /// Somebody else changed the connection since it was read.
        Race,
        Contended,
        Failure,
    }

    /// A store in memory whose writes meet something, and a clock that only pauses move.
    #[derive(Default)]
    struct World {
        memory: Memory,
        millis: AtomicI64,
        draws: AtomicU64,
        writes: AtomicU64,
        /// How long each write takes, in milliseconds.
        slow: AtomicI64,
        meets: Mutex<Vec<Meets>>,
    }

    #[async_trait]
    impl Clock for World {
        fn now(&self) -> DateTime<Utc> {
            DateTime::from_timestamp_millis(self.millis.load(Relaxed)).unwrap()
        }

        async fn sleep(&self, duration: Duration) {
            let millis = i64::try_from(duration.as_millis()).unwrap();
            self.millis.fetch_add(millis, Relaxed);
        }

        fn random(&self, bytes: &mut [u8]) {
            for byte in bytes {
                *byte = self.draws.fetch_add(1, Relaxed) as u8;
            }
        }

        fn passed(&self) -> Duration {
            Duration::from_millis(self.millis.load(Relaxed).unsigned_abs())
        }
    }

    #[async_trait]
    impl Store for World {
        async fn get(&self, key: &Key) -> Result<Option<Item>> {
            self.memory.get(key).await
        }

        async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
            self.memory.get_many(keys).await
        }

        async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
            self.memory.list(group, after, limit).await
        }

        async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
            self.memory.scan(table, after, limit).await
        }

        async fn write(&self, write: Write) -> Result<(), WriteError> {
            self.transact(vec![write]).await
        }

        async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
            self.writes.fetch_add(1, Relaxed);
            self.millis.fetch_add(self.slow.load(Relaxed), Relaxed);
            let meets = self.meets.lock().unwrap().pop();
            match meets {
                None => {}
                Some(Meets::Race) => {
                    let key = keys::connection(&merchant(), &id());
                    let item = self.memory.get(&key).await.unwrap().unwrap();
                    let mut other: Connection = item.read().unwrap();
                    other.fence += 100;
                    let write = Write::put(key, Condition::Any, &other).unwrap();
                    self.memory.write(write).await.unwrap();
                }
                Some(Meets::Contended) => return Err(WriteError::Contended),
                Some(Meets::Failure) => return Err(WriteError::Failed(Error::internal("down"))),
            }
            self.memory.transact(writes).await
        }

        async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
            self.memory.put_many(writes).await
        }
    }

    #[async_trait]
    impl Net for World {
        async fn send(&self, _: Request, _: Limits) -> Result<Response> {
            panic!("nothing is sent")
        }
    }

    #[async_trait]
    impl Secrets for World {
        async fn get(&self, _: &str) -> Result<SecretString> {
            panic!("no secret is read")
        }

        async fn get_fresh(&self, _: &str) -> Result<SecretString> {
            panic!("no secret is read")
        }

        async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
            panic!("no secret is changed")
        }
    }

    #[async_trait]
    impl Queue for World {
        async fn send_later(&self, _: &str, _: Vec<Message>) -> Result<()> {
            panic!("no message is sent")
        }
    }

    #[async_trait]
    impl Bus for World {
        async fn put(&self, _: &str, _: Vec<BusEntry>) -> Vec<Result<()>> {
            panic!("nothing goes to the bus")
        }
    }

    fn merchant() -> MerchantId {
        "m_1".parse().unwrap()
    }

    fn id() -> ConnectionId {
        ConnectionId::new(uuid::Uuid::nil())
    }

    fn live(now: DateTime<Utc>) -> Connection {
        Connection {
            id: id(),
            merchant_id: merchant(),
            provider: "xero".to_owned(),
            category: Category::Accounting,
            status: Status::Live,
            tenant_id: "t".to_owned(),
            tenant_name: None,
            api: None,
            reference: None,
            scopes: Vec::new(),
            key: None,
            tokens: None,
            previous: None,
            consent: None,
            confirmed: None,
            paused: false,
            lease: None,
            fence: 0,
            next_refresh_at: None,
            trouble: None,
            settings: Settings::default(),
            guests: Vec::new(),
            daily_customers: Vec::new(),
            postings: Vec::new(),
            sequence: Sequence::default(),
            created_at: now,
            updated_at: now,
        }
    }

    async fn world() -> (Arc<World>, Ctx) {
        let world = Arc::new(World::default());
        let ctx = Ctx {
            config: Config::default(),
            clock: world.clone(),
            store: world.clone(),
            secrets: world.clone(),
            net: world.clone(),
            queue: world.clone(),
            bus: world.clone(),
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        };
        let mut connection = live(ctx.now());
        let stored = store(&ctx, &mut connection, None, Along::default()).await;
        assert!(stored.unwrap());
        world.writes.store(0, Relaxed);
        (world, ctx)
    }

    fn count(current: &mut Connection) -> Result<Decision<u64>> {
        current.fence += 1;
        Ok(Decision::Store(Along::default(), current.fence))
    }

    async fn stored(ctx: &Ctx) -> Connection {
        load(ctx, &merchant(), &id()).await.unwrap().1
    }

    #[tokio::test]
    async fn a_change_is_decided_again_on_what_stands_there_by_then() {
        let (world, ctx) = world().await;
        *world.meets.lock().unwrap() = vec![Meets::Contended, Meets::Race, Meets::Race];
        let (connection, told) = change(&ctx, &merchant(), &id(), count).await.unwrap();
        assert_eq!(
            (connection.fence, told),
            (201, 201),
            "nobody's change is lost"
        );
        assert_eq!(stored(&ctx).await, connection);
    }

    #[tokio::test]
    async fn a_change_that_leaves_all_as_it_is_writes_nothing() {
        let (world, ctx) = world().await;
        let (merchant, id) = (merchant(), id());
        let left = change(&ctx, &merchant, &id, |current| {
            current.fence = 9;
            Ok(Decision::Leave("left"))
        });
        let (connection, told) = left.await.unwrap();
        assert_eq!((connection.fence, told), (0, "left"), "as it is stored");
        assert_eq!(world.writes.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn whoever_is_always_late_hears_so_after_a_while() {
        let (world, ctx) = world().await;
        *world.meets.lock().unwrap() = vec![Meets::Race; 1_000];
        let error = change(&ctx, &merchant(), &id(), count).await.unwrap_err();
        assert_eq!(error.code(), Code::Busy);
        let waited = world.millis.load(Relaxed);
        assert!((3_000..4_500).contains(&waited), "{waited}");
        assert!(world.writes.load(Relaxed) < 20, "the pauses grow");
    }

    #[tokio::test]
    async fn only_what_must_not_be_lost_outlasts_a_failing_table() {
        let (world, ctx) = world().await;
        *world.meets.lock().unwrap() = vec![Meets::Failure; 8];
        let error = change(&ctx, &merchant(), &id(), count).await.unwrap_err();
        assert_eq!(
            (error.code(), world.millis.load(Relaxed)),
            (Code::Internal, 0)
        );
        let kept = change_within(&ctx, PATIENCE_LONG, &merchant(), &id(), count).await;
        assert_eq!(kept.unwrap().1, 1);
        *world.meets.lock().unwrap() = vec![Meets::Failure; 100];
        let lost = change_within(&ctx, PATIENCE_LONG, &merchant(), &id(), count).await;
        assert_eq!(lost.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn what_failed_calls_took_counts_as_waiting() {
        let (world, ctx) = world().await;
        world.slow.store(7_000, Relaxed);
        *world.meets.lock().unwrap() = vec![Meets::Failure; 100];
        let lost = change_within(&ctx, PATIENCE_LONG, &merchant(), &id(), count).await;
        assert_eq!(lost.unwrap_err().code(), Code::Internal);
        assert_eq!(world.writes.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn what_goes_along_is_stored_with_it_or_not_at_all() {
        let (world, ctx) = world().await;
        *world.meets.lock().unwrap() = vec![Meets::Race];
        let (merchant, id) = (merchant(), id());
        let paused = change(&ctx, &merchant, &id, |current| {
            current.status = Status::ReauthRequired;
            let along = Along::entry(Happened::ReauthRequired, "over")
                .event(EventType::ConnectionReauthRequired);
            Ok(Decision::Store(along, ()))
        });
        paused.await.unwrap();
        let rows = async |table| {
            world
                .memory
                .scan(table, None, 100)
                .await
                .unwrap()
                .items
                .len()
        };
        assert_eq!(
            rows(Table::Outbox).await,
            1,
            "one event, though it was decided twice"
        );
        assert_eq!(rows(Table::Records).await, 1);
        let history = keys::connection_history(&merchant, &id);
        assert_eq!(list_all(&world.memory, &history, 9).await.unwrap().len(), 1);
        let connection = stored(&ctx).await;
        assert_eq!((connection.sequence.n, connection.fence), (1, 100));
    }

    proptest! {
        #[test]
        fn a_renewal_is_a_call_too(
            success in proptest::option::of(0_i64..100),
            failure in proptest::option::of(0_i64..100),
            given in proptest::option::of(0_i64..100),
            trouble in proptest::option::of(0_i64..100),
        ) {
            let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
            let failed = |seconds| Trouble {
                code: "upstream_failed".to_owned(),
                detail: "it did not answer".to_owned(),
                at: at(seconds),
            };
            let mut connection = live(at(0));
            connection.trouble = trouble.map(failed);
            connection.tokens = given.map(|seconds| Tokens {
                sealed: serde_json::from_value(json!("sealed")).unwrap(),
                generation: 1,
                issued_at: at(seconds),
                access_expires_at: None,
            });
            let health = Health {
                last_success_at: success.map(at),
                last_failure: failure.map(failed),
            };
            let health = health.with(&connection);
            let (success, failure) = (success.max(given), failure.max(trouble));
            prop_assert_eq!(health.last_success_at, success.map(at));
            prop_assert_eq!(&health.last_failure, &failure.map(failed));
            let word = match (success, failure) {
                (None, None) => "unknown",
                (success, failure) if failure > success => "failing",
                _ => "healthy",
            };
            prop_assert_eq!(health.word(), word);
        }

        #[test]
        fn the_latest_call_makes_the_word(
            success in proptest::option::of(0_i64..100),
            failure in proptest::option::of(0_i64..100),
        ) {
            let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
            let health = Health {
                last_success_at: success.map(at),
                last_failure: failure.map(|seconds| Trouble {
                    code: "upstream_failed".to_owned(),
                    detail: "it did not answer".to_owned(),
                    at: at(seconds),
                }),
            };
            let word = match (success, failure) {
                (None, None) => "unknown",
                (success, failure) if failure > success => "failing",
                _ => "healthy",
            };
            prop_assert_eq!(health.word(), word);
        }
    }
}
