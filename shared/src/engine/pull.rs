//! Reading what changed at a provider. A schedule wakes each live connection now and then, and the
//! provider's webhooks wake it in between: both lead to the same stream of changes. Its cursor is
//! inclusive, stands some minutes behind the provider's clock, and moves only after everything of a page
//! has met the ledger, so whatever is interrupted is read again. What the provider can no longer tell is
//! found by reading everything that the ledger knows, and the connection's history says so.

use super::again;
use super::ledger::{self, Row, RowName};
use super::session::{Session, Stop};
use super::two_ways::{Meeting, Met, Theirs};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::{ConnectionId, MerchantId};
use crate::oauth::connection::{
    self, Along, Connection, Decision, Happened, PULL_SLOTS, Pulled, Status, minute_of,
};
use crate::providers::accounting::{DependencyKind, accounting, marked};
use crate::providers::changes::{Changes, Next, Page};
use crate::providers::{Category, Fault};
use crate::queue::Message;
use crate::store::{Condition, Item, Key, Table, Write, WriteError, keys, list_all};
use crate::sync::changed::{Changed, Operation};
use crate::sync::conflict::Seen;
use crate::sync::push::Link;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So much of what was read is read again: what a provider stores late, or stamps with another of its
/// clocks, is found then. What is known already costs nothing but the reading.
const OVERLAP: TimeDelta = TimeDelta::minutes(5);
/// How far the clock of a provider may be ahead of ours.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(1);
/// Pages of one message; another message goes on.
const RUN_PAGES_MAX: usize = 10;
/// Most often that a full compare is made because more changed than is told: while thousands of things
/// are written, the changes wait for the next one.
const COMPARE_EVERY: TimeDelta = TimeDelta::hours(1);
/// Rows of the ledger that one step of a full compare looks at.
const COMPARE_ROWS_MAX: usize = 100;
/// Notes of webhooks that one message looks at.
const NOTES_MAX: usize = 500;
/// How long a thing with our mark is looked at again while the ledger does not know it: longer than a
/// push stays open. A copy that somebody made there carries the mark too.
const NOTE_LIFE: TimeDelta = TimeDelta::days(2);
/// Rows of one page of the walk that finds connections of before there was a schedule.
const FIND_ROWS_MAX: usize = 200;
/// Rows of one page of the schedule.
const PLAN_ROWS_MAX: usize = 500;
/// Webhooks come in swarms; the first wakes the connection after this, and those behind it find all
/// read.
const HOOK_DELAY_SECONDS: u16 = 3;
/// Whoever meets another at the same cursor comes back after this.
const BUSY: Duration = Duration::from_secs(20);

/// "Changes of this connection are to be read."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullNotice {
    pub merchant_id: MerchantId,
    pub connection_id: ConnectionId,
    /// What is read up to here needs not be read again.
    pub at: DateTime<Utc>,
    /// Whether a webhook woke it: then only what its notes name is read.
    #[serde(default)]
    pub noted: bool,
}

/// How far one stream is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// By the provider's clock; what changed at this moment is read again.
    pub since: DateTime<Utc>,
    /// When the last reading began that came to the end, by our clock.
    pub read_at: Option<DateTime<Utc>>,
    /// How many things of the last page were none of ours.
    pub not_ours: u64,
}

/// A full compare under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The place in the ledger after which it goes on.
    pub after: Option<String>,
    pub started_at: DateTime<Utc>,
    pub looked: u64,
}

/// How far one connection's changes are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pull {
    #[serde(default)]
    pub streams: BTreeMap<String, Stream>,
    #[serde(default)]
    pub compare: Option<Compare>,
    /// When the last full compare was done.
    #[serde(default)]
    pub compared_at: Option<DateTime<Utc>>,
    /// How many milliseconds the provider's clock was ahead of ours.
    #[serde(default)]
    pub ahead: i64,
}

/// How far the walk over all connections has come.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Walk {
    after: Option<String>,
    done: bool,
}

/// Gives rows in the schedule to connections that were live before there was one, and of which nothing
/// else would say so until their status changes. A page of them at a time, and once over all.
async fn find(ctx: &Ctx) -> Result<()> {
    let key = keys::pulled_walk();
    let (condition, walk) = match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), item.read()?),
        None => (Condition::Absent, Walk::default()),
    };
    if walk.done {
        return Ok(());
    }
    let after = walk.after.as_deref();
    let page = ctx
        .store
        .scan(Table::Connections, after, FIND_ROWS_MAX)
        .await?;
    for item in page
        .items
        .iter()
        .filter(|item| keys::is_connection(&item.key))
    {
        connection::schedule_pulls(ctx, item).await?;
    }
    let walk = Walk {
        done: page.next.is_none(),
        after: page.next,
    };
    let write = Write::put(key, condition, &walk)?;
    Ok(ctx.store.write(write).await?)
}

/// Hands out the connections whose slot it is, and returns how many those were. A minute that is left
/// out is no loss: the cursor of each connection knows where it stands.
pub async fn plan(ctx: &Ctx) -> Result<usize> {
    if ctx.config.enabled(Category::Accounting).is_err() {
        return Ok(0);
    }
    // What is not found now is found in the next minute.
    if let Err(error) = find(ctx).await {
        tracing::warn!(error = %error.chain(), "connections are looked for again");
    }
    let slot = minute_of(ctx.now()).rem_euclid(i64::from(PULL_SLOTS));
    let group = keys::pulled(u8::try_from(slot).map_err(Error::internal)?);
    let (mut after, mut count) = (None, 0);
    loop {
        let page = ctx
            .store
            .list(&group, after.as_deref(), PLAN_ROWS_MAX)
            .await?;
        let rows: Vec<Pulled> = page.items.iter().map(Item::read).collect::<Result<_>>()?;
        count += rows.len();
        let messages = rows.into_iter().map(|row| {
            let notice = PullNotice {
                merchant_id: row.merchant_id,
                connection_id: row.connection_id,
                at: ctx.now(),
                noted: false,
            };
            // Spread over the minute, so that a provider does not meet all at once.
            message(&notice, u16::from(ctx.random::<1>()[0]) * 60 / 256)
        });
        let messages = messages.collect::<Result<Vec<_>>>()?;
        if !messages.is_empty() {
            ctx.queue
                .send_later(ctx.config.pull_queue()?, messages)
                .await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

fn message(notice: &PullNotice, delay_seconds: u16) -> Result<Message> {
    Ok(Message {
        body: serde_json::to_string(notice).map_err(Error::internal)?,
        delay_seconds,
        group: None,
    })
}

/// Wakes a connection after a webhook.
pub(super) async fn wake(ctx: &Ctx, connection: &Connection) -> Result<()> {
    if accounting(&connection.provider).is_none() || connection.status != Status::Live {
        return Ok(());
    }
    let notice = PullNotice {
        merchant_id: connection.merchant_id.clone(),
        connection_id: connection.id.clone(),
        at: ctx.now(),
        noted: true,
    };
    let message = message(&notice, HOOK_DELAY_SECONDS)?;
    ctx.queue
        .send_later(ctx.config.pull_queue()?, vec![message])
        .await
}

/// How far the changes of a connection are read, with the condition on which that is replaced.
async fn held(ctx: &Ctx, connection: &Connection) -> Result<(Condition, Pull)> {
    let key = keys::pull(&connection.merchant_id, &connection.id);
    Ok(match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), item.read()?),
        None => (Condition::Absent, Pull::default()),
    })
}

/// How far the provider's clock was ahead of ours when it was last asked for changes.
pub(super) async fn skew(ctx: &Ctx, connection: &Connection) -> Result<TimeDelta> {
    let (_, pull) = held(ctx, connection).await?;
    Ok(TimeDelta::milliseconds(pull.ahead))
}

/// Reads what changed at one connection.
pub async fn run(ctx: &Ctx, notice: &PullNotice) -> Result<()> {
    let loaded = connection::load(ctx, &notice.merchant_id, &notice.connection_id).await;
    let connection = match loaded {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(provider) = accounting(&connection.provider) else {
        return Ok(());
    };
    // Once it is live again, the schedule comes to it.
    if connection.status != Status::Live || ctx.config.enabled(connection.category).is_err() {
        return Ok(());
    }
    // What a webhook wakes leaves calls to what is pushed: our own writes come back as webhooks too.
    let session = match Session::new(ctx, provider, &connection, 1, notice.noted).await {
        Err(error) if error.code() == Code::ConnectionReauthRequired => return Ok(()),
        session => session?,
    };
    let (condition, pull) = held(ctx, &connection).await?;
    let mut puller = Puller {
        ctx,
        session: &session,
        connection: &connection,
        changes: provider.changes(),
        condition,
        pull,
        met: BTreeMap::new(),
    };
    match puller.run(notice).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = message(notice, 1)?;
            ctx.queue
                .send_later(ctx.config.pull_queue()?, vec![message])
                .await
        }
        Err(Stop::Ours(error)) if error.code() == Code::ConnectionReauthRequired => Ok(()),
        Err(Stop::Ours(error)) if error.code() == Code::Busy => Err(error.later(BUSY)),
        Err(Stop::Ours(error)) => Err(error),
        Err(Stop::Theirs(fault)) => {
            // Last, since what went well before says nothing against it.
            session.note_refusal(&fault).await;
            Err(refused(fault))
        }
    }
}

/// An answer that cannot be true. It is asked for again, and the health of the connection says so.
fn untrue(detail: &str) -> Stop {
    Stop::Theirs(Fault::Refused {
        code: "answer_not_true".to_owned(),
        detail: format!("the accounting system gave an answer that cannot be true: {detail}"),
    })
}

/// A refusal to tell what changed is no reason to stop asking.
fn refused(fault: Fault) -> Error {
    match Stop::Theirs(fault).into_error() {
        Ok((code, detail)) => Error::new(Code::UpstreamFailed, format!("{code}: {detail}")),
        Err(error) => error,
    }
}

struct Puller<'a> {
    ctx: &'a Ctx,
    session: &'a Session<'a>,
    connection: &'a Connection,
    changes: &'static dyn Changes,
    condition: Condition,
    pull: Pull,
    /// What this message has met, by kind and id, with the time of the change; nothing for what could
    /// not be told yet.
    met: BTreeMap<(String, String), Option<Option<DateTime<Utc>>>>,
}

/// A note of a webhook, with what must still hold when it is deleted.
struct Note {
    key: Key,
    rev: u64,
    changed: Changed,
}

impl Puller<'_> {
    /// Returns whether all is read.
    async fn run(&mut self, notice: &PullNotice) -> Result<bool, Stop> {
        let notes = self.notes().await?;
        let now = self.ctx.now();
        let start = self.connection.created_at - OVERLAP;
        for stream in self.changes.streams() {
            let stream = self.pull.streams.entry((*stream).to_owned());
            stream.or_insert(Stream {
                since: start,
                read_at: None,
                not_ours: 0,
            });
        }
        let oldest = self.changes.look_back().map(|back| now - back);
        let aged = |stream: &Stream| oldest.is_some_and(|oldest| stream.since < oldest);
        if self.pull.compare.is_none() && self.pull.streams.values().any(aged) {
            self.compare("nothing was read for longer than the provider tells of")
                .await?;
        }
        if self.pull.compare.is_some() {
            self.compare_page().await?;
            return Ok(false);
        }
        let mut pages = 0;
        let mut refusal = None;
        for stream in self.wanted(notice, &notes) {
            loop {
                if pages == RUN_PAGES_MAX {
                    return Ok(false);
                }
                pages += 1;
                let next = match self.page(stream, now).await {
                    // The others may be told of all the same.
                    Err(Stop::Theirs(fault @ Fault::Refused { .. })) => {
                        refusal.get_or_insert(fault);
                        break;
                    }
                    next => next?,
                };
                match next {
                    Next::From(_) => {}
                    Next::Until(_) => break,
                    Next::TooMany if self.compared_lately() => {
                        tracing::warn!(
                            connection_id = %self.connection.id, stream,
                            "more changed than the provider tells of; it is compared later"
                        );
                        break;
                    }
                    Next::TooMany => {
                        self.compare("more changed than the provider tells of")
                            .await?;
                        return Ok(false);
                    }
                }
            }
        }
        let all = notes.len() < NOTES_MAX;
        let taken = self.take_notes(notes).await?;
        if let Some(fault) = refusal {
            return Err(Stop::Theirs(fault));
        }
        // What cannot be told yet is left for another time.
        Ok(all || taken == 0)
    }

    fn compared_lately(&self) -> bool {
        let at = self.pull.compared_at;
        at.is_some_and(|at| self.ctx.now() - at < COMPARE_EVERY)
    }

    /// The streams to be read, as far as the consent reaches: all that the schedule has not read since it
    /// sent the message, or those of what the webhooks noted.
    fn wanted(&self, notice: &PullNotice, notes: &[Note]) -> Vec<&'static str> {
        let noted: BTreeSet<&str> = notes
            .iter()
            .filter_map(|note| Some(self.changes.kind(&note.changed.kind)?.1))
            .collect();
        let wanted = |stream: &&&str| {
            let read_at = self.pull.streams.get(**stream).and_then(|one| one.read_at);
            let read = read_at.is_some_and(|read_at| read_at > notice.at);
            let open = self.connection.holds(self.changes.needs(stream));
            open && !read && (!notice.noted || noted.contains(**stream))
        };
        self.changes
            .streams()
            .iter()
            .filter(wanted)
            .copied()
            .collect()
    }

    async fn notes(&self) -> Result<Vec<Note>> {
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let group = keys::all_changed(merchant, id);
        let items = list_all(&*self.ctx.store, &group, NOTES_MAX).await?;
        let notes = items.into_iter().map(|item| {
            Ok(Note {
                changed: item.read()?,
                key: item.key,
                rev: item.rev,
            })
        });
        notes.collect()
    }

    /// Reads one page of a stream, lets it meet the ledger, and moves the cursor.
    async fn page(&mut self, stream: &'static str, began: DateTime<Utc>) -> Result<Next, Stop> {
        let (changes, tenant) = (self.changes, &self.session.tenant);
        let since = self.pull.streams[stream].since;
        let request = changes.changes(tenant, stream, since);
        let read = |answer: &_| changes.read_changes(stream, since, answer);
        let (Page { seen, next, clock }, _) = self.session.call(request, read).await?;
        let reached = match next {
            Next::From(at) | Next::Until(at) => Some(at),
            Next::TooMany => None,
        };
        self.check_times(&seen, reached.into_iter().chain(clock))?;
        if let Some(clock) = clock {
            self.pull.ahead = (clock - self.ctx.now()).num_milliseconds();
        }
        let not_ours = self.meet(&seen).await?;
        let after = match next {
            Next::From(from) => from,
            Next::Until(until) => since.max(until - OVERLAP),
            Next::TooMany => since,
        };
        if let Some(held) = self.pull.streams.get_mut(stream) {
            held.since = after;
            held.not_ours = not_ours;
            if matches!(next, Next::Until(_)) {
                held.read_at = Some(began);
            }
        }
        self.commit().await?;
        if not_ours > 0 {
            tracing::info!(
                connection_id = %self.connection.id, stream, not_ours, "changes of what is not ours"
            );
        }
        Ok(next)
    }

    async fn commit(&mut self) -> Result<()> {
        let key = keys::pull(&self.connection.merchant_id, &self.connection.id);
        let write = Write::put(key, self.condition, &self.pull)?;
        self.ctx.store.write(write).await.map_err(Error::from)?;
        self.condition = match self.condition {
            Condition::Rev(rev) => Condition::Rev(rev + 1),
            _ => Condition::Rev(1),
        };
        Ok(())
    }

    /// Lets everything in `all` meet the ledger. Returns how many things were none of ours.
    async fn meet(&mut self, all: &[Seen]) -> Result<u64> {
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let meeting = Meeting {
            ctx: self.ctx,
            provider: self.session.provider,
            connection: self.connection,
            skew: TimeDelta::milliseconds(self.pull.ahead),
        };
        let key = |seen: &Seen| keys::theirs(merchant, id, seen.kind, &seen.id);
        let places: Vec<Key> = all.iter().map(key).collect();
        let rows = self.ctx.store.get_many(&places).await?;
        let mut strangers = 0;
        for (seen, row) in all.iter().zip(rows) {
            let met = match row.map(|item| item.read::<Theirs>()).transpose()? {
                Some(theirs) => meeting.meet(&theirs, seen).await?,
                None => self.unknown(seen).await?,
            };
            let place = (seen.kind.to_owned(), seen.id.clone());
            match met {
                Met::Stranger => strangers += 1,
                Met::Known => {}
                Met::Open => self.hold(seen).await?,
            }
            let told = (met != Met::Open).then_some(seen.at);
            self.met.insert(place, told);
        }
        Ok(strangers)
    }

    /// Whether something of which the ledger does not know the id may be ours all the same: its creation
    /// is not concluded yet.
    async fn unknown(&self, seen: &Seen) -> Result<Met> {
        let Some(row) = seen.mark.as_deref().and_then(marked) else {
            return Ok(Met::Stranger);
        };
        let name = RowName {
            row,
            order_id: None,
        };
        let row = Row::load(self.ctx, self.connection, &name).await?;
        Ok(match row.link.intent {
            Some(_) => Met::Open,
            None => Met::Stranger,
        })
    }

    /// Leaves a note, so that something is looked at again when more can be told.
    async fn hold(&self, seen: &Seen) -> Result<()> {
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let key = keys::changed(merchant, id, seen.kind, &seen.id);
        let (condition, held) = match self.ctx.store.get(&key).await? {
            Some(item) => (Condition::Rev(item.rev), Some(item.read::<Changed>()?)),
            None => (Condition::Absent, None),
        };
        if held.as_ref().is_some_and(|held| held.held) {
            return Ok(());
        }
        let changed = Changed {
            kind: seen.kind.to_owned(),
            id: seen.id.clone(),
            operation: Operation::Updated,
            at: seen.at,
            event: None,
            noted_at: self.ctx.now(),
            held: true,
        };
        let write = Write::put(key, condition, &changed)?;
        self.ctx.store.write(write).await.map_err(Error::from)
    }

    /// Takes away the notes of what was read, and reads by itself what the streams did not tell of:
    /// not every change moves the time of the last one, and some were held. Returns how many notes were
    /// taken away.
    async fn take_notes(&mut self, notes: Vec<Note>) -> Result<usize, Stop> {
        let mut taken = 0;
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let mut left: BTreeMap<&'static str, Vec<Note>> = BTreeMap::new();
        for note in notes {
            let Some((kind, _)) = self.changes.kind(&note.changed.kind) else {
                taken += self.drop_note(&note).await?;
                continue;
            };
            let place = (kind.to_owned(), note.changed.id.clone());
            match self.met.get(&place) {
                Some(None) => {}
                Some(Some(at)) if note.changed.at.is_none_or(|told| *at >= Some(told)) => {
                    taken += self.drop_note(&note).await?;
                }
                _ => left.entry(kind).or_default().push(note),
            }
        }
        for (kind, notes) in left {
            let key = |note: &Note| keys::theirs(merchant, id, kind, &note.changed.id);
            let places: Vec<Key> = notes.iter().map(key).collect();
            let rows = self.ctx.store.get_many(&places).await?;
            let mut known = Vec::new();
            for (note, row) in notes.into_iter().zip(rows) {
                let old = self.ctx.now() - note.changed.noted_at > NOTE_LIFE;
                match row {
                    Some(_) => known.push(note),
                    None if note.changed.held && !old => {}
                    None => taken += self.drop_note(&note).await?,
                }
            }
            for chunk in known.chunks(self.changes.read_max(kind)) {
                let ids: Vec<&str> = chunk.iter().map(|note| &note.changed.id[..]).collect();
                self.read(kind, &ids).await?;
                for note in chunk {
                    let place = (kind.to_owned(), note.changed.id.clone());
                    if matches!(self.met.get(&place), Some(Some(_))) {
                        taken += self.drop_note(note).await?;
                    }
                }
            }
        }
        Ok(taken)
    }

    /// Deletes a note, unless another webhook has written over it.
    async fn drop_note(&self, note: &Note) -> Result<usize> {
        let delete = Write::Delete {
            key: note.key.clone(),
            condition: Condition::Rev(note.rev),
        };
        match self.ctx.store.write(delete).await {
            Ok(()) => Ok(1),
            Err(WriteError::Condition(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads things by their ids, and lets them meet the ledger. A list that leaves one out may be an
    /// incomplete one, so each of those is asked for by itself before it counts as deleted.
    async fn read(&mut self, kind: &'static str, ids: &[&str]) -> Result<(), Stop> {
        let (changes, tenant) = (self.changes, &self.session.tenant);
        let request = changes.by_id(tenant, kind, ids);
        let read = |answer: &_| changes.read_by_id(kind, answer);
        let (mut all, _) = self.session.call(request, read).await?;
        let told: BTreeSet<String> = all.iter().map(|one| one.id.clone()).collect();
        for id in ids.iter().filter(|id| !told.contains(**id)) {
            let read = |answer: &_| changes.read_one(kind, answer);
            let request = changes.one(tenant, kind, id);
            let (one, _) = self.session.call(request, read).await?;
            all.push(one.unwrap_or_else(|| Seen::deleted(kind, id)));
        }
        if all.iter().any(|one| !ids.contains(&&one.id[..])) {
            return Err(untrue("it answers with things that were not asked for"));
        }
        self.check_times(&all, [])?;
        self.meet(&all).await?;
        Ok(())
    }

    /// Fails for times that are still to come: a cursor that believed them would pass over all that
    /// changes until then, and so would a row.
    fn check_times(
        &self,
        all: &[Seen],
        besides: impl IntoIterator<Item = DateTime<Utc>>,
    ) -> Result<(), Stop> {
        let last = self.ctx.now() + AHEAD_MAX;
        let told = all.iter().filter_map(|one| one.at).chain(besides);
        match told.max().filter(|at| *at > last) {
            Some(at) => Err(untrue(&format!("it tells of {at}, which is still to come"))),
            None => Ok(()),
        }
    }

    /// Begins to read everything that the ledger knows.
    async fn compare(&mut self, why: &str) -> Result<()> {
        self.pull.compare = Some(Compare {
            after: None,
            started_at: self.ctx.now(),
            looked: 0,
        });
        let detail = format!(
            "{why}: everything that stands there is read and compared, which takes a while; what was \
             made there by others meanwhile is none of ours"
        );
        self.say(&detail).await?;
        self.commit().await
    }

    async fn say(&self, detail: &str) -> Result<()> {
        let connection = self.connection;
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        connection::change(self.ctx, merchant, id, |_| {
            let along = Along::entry(Happened::FullCompare, detail);
            Ok(Decision::Store(along, ()))
        })
        .await?;
        Ok(())
    }

    /// One page of a full compare.
    async fn compare_page(&mut self) -> Result<(), Stop> {
        let Some(mut compare) = self.pull.compare.clone() else {
            return Ok(());
        };
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let group = keys::ledger(merchant, id);
        let after = compare.after.as_deref();
        let store = &self.ctx.store;
        let page = store.list(&group, after, COMPARE_ROWS_MAX).await?;
        let mut known: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
        for item in &page.items {
            if let Some((kind, id)) = self.stands(item).await? {
                known.entry(kind).or_default().push(id);
            }
        }
        for (kind, ids) in known {
            for chunk in ids.chunks(self.changes.read_max(kind)) {
                let ids: Vec<&str> = chunk.iter().map(String::as_str).collect();
                self.read(kind, &ids).await?;
                compare.looked += ids.len() as u64;
            }
        }
        compare.after = page.next;
        if compare.after.is_some() {
            self.pull.compare = Some(compare);
            return Ok(self.commit().await?);
        }
        // What changed while it was read is told by the streams, from a while before on.
        let since = compare.started_at + TimeDelta::milliseconds(self.pull.ahead) - OVERLAP;
        for stream in self.pull.streams.values_mut() {
            stream.since = since;
            stream.read_at = None;
        }
        self.pull.compare = None;
        self.pull.compared_at = Some(self.ctx.now());
        let count = compare.looked;
        self.say(&format!(
            "{count} things that stand there were read and compared"
        ))
        .await?;
        Ok(self.commit().await?)
    }

    /// The provider's kind and id of what a row of the ledger names, if it stands there.
    async fn stands(&self, item: &Item) -> Result<Option<(&'static str, String)>> {
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let Some((name, row_id)) = keys::place(&item.key).split_once('/') else {
            return Ok(None);
        };
        let dependency = [DependencyKind::Customer, DependencyKind::Item]
            .into_iter()
            .find(|kind| kind.as_str() == name);
        let row = ledger::row_at(keys::place(&item.key));
        if dependency.is_none() && row.is_none() {
            return Ok(None);
        }
        let link: Link = item.read()?;
        let Some(remote) = link.remote.filter(|_| link.gone.is_none()) else {
            return Ok(None);
        };
        let kind = match (dependency, link.form) {
            (Some(kind), _) => self.changes.kind_of_dependency(kind),
            (None, Some(form)) => self.changes.kind_of(form),
            (None, None) => return Ok(None),
        };
        // A row that is older than the names of the provider's things has none.
        let place = keys::theirs(merchant, id, kind, &remote.id);
        if self.ctx.store.get(&place).await?.is_none() {
            let order_id = match row {
                Some(row) => {
                    let owner = row.owner();
                    let key = keys::record(merchant, owner.kind, &owner.id);
                    let document = self.ctx.store.get(&key).await?;
                    again::with_order(owner, document.as_ref())?.order_id
                }
                None => None,
            };
            let theirs = Theirs {
                kind: name.to_owned(),
                id: row_id.to_owned(),
                order_id,
            };
            let write = Write::put(place, Condition::Any, &theirs)?;
            self.ctx.store.write(write).await.map_err(Error::from)?;
        }
        Ok(Some((kind, remote.id)))
    }
}
