//! Reconciliation: the books of a connection beside what the shop says, a day for each message. What is
//! found stands in rows of its own, under names that are the same whoever finds it, so a day that is
//! compared twice ends as it would have once; then the reconciliation's row moves on to the next day, on
//! condition that it stood at this one.
//!
//! What is behind over there is sent again at once, since that is what a push is for. What people did
//! over there is shown, and waits for a decision.

use super::again;
use super::daily;
use super::known;
use super::ledger::{self, RowName};
use super::session::{Session, Stop};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::RecordKind;
use crate::model::ids::{ConnectionId, EventId, MerchantId, RecordId};
use crate::model::notice::{Notice, RecordRef};
use crate::model::summary::SummaryName;
use crate::oauth::connection::{self, Connection, Posting, Status};
use crate::providers::Fault;
use crate::providers::accounting::{Accounting, accounting};
use crate::queue::Message;
use crate::store::{Condition, Item, Table, Write, WriteError, keys, list_all};
use crate::sync::push::{Form, Link, LinkState, Open, Remote, RowKind, RowRef};
use crate::sync::reconcile::{
    Class, Decided, Difference, Ours, Progress, Side, Sum, Suspect, Theirs, compare,
};
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Most days of one reconciliation.
pub const DAYS_MAX: i64 = 400;
/// Days that the schedule compares, up to yesterday: the month that is being closed.
const SCHEDULE_DAYS: u64 = 35;
/// How long what was found is kept.
const FINDINGS_LIFE: TimeDelta = TimeDelta::days(400);
/// How long what was seen of single documents is kept: longer than a reconciliation of one day lasts.
const LOOKED_LIFE: TimeDelta = TimeDelta::days(7);
/// Records of a day that are read at once, and rows of a day at once.
const CHUNK_RECORDS_MAX: usize = 200;
const PAGE_ROWS_MAX: usize = 1000;
/// Pages of one list and day; a day of more documents is broken off with an error.
const PAGES_MAX: usize = 200;
/// Documents of others that are shown of one day; all of them are counted.
const NOT_OURS_MAX: usize = 100;
/// How often it is looked whether a connection that was stopped is live again.
const STOPPED_SECONDS: u16 = 900;
/// After how long without a step the next one is sent once more.
const STANDSTILL: TimeDelta = TimeDelta::seconds(60);
/// When nobody has touched what was on its way for so long, its message was given up: the queue hands it
/// out ten times, twelve minutes apart.
const LEFT_AFTER: TimeDelta = TimeDelta::hours(3);
/// Rows of one page of the table of connections.
const SCAN_ROWS_MAX: usize = 500;

/// Something to do for the books of one connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReconcileNotice {
    pub merchant_id: MerchantId,
    pub connection_id: ConnectionId,
    #[serde(flatten)]
    pub step: Step,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// This day of this reconciliation is to be compared.
    Compare {
        reconciliation_id: String,
        day: NaiveDate,
    },
    /// What the schedule does on this day is to begin.
    Begin { planned_on: NaiveDate },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    Done,
    /// The connection was given up meanwhile, or it did not get on and another one was begun.
    Stopped,
}

impl State {
    pub const ALL: [State; 3] = [State::Running, State::Done, State::Stopped];
}

/// Who asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Schedule,
    Request,
}

impl Cause {
    pub const ALL: [Cause; 2] = [Cause::Schedule, Cause::Request];
}

/// One reconciliation of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconciliation {
    /// Sorts by age.
    pub id: String,
    pub cause: Cause,
    /// The first and the last day (UTC).
    pub from: NaiveDate,
    pub to: NaiveDate,
    /// The next day to be compared.
    pub day: NaiveDate,
    pub state: State,
    /// Documents that were compared, by side.
    pub ours: u64,
    pub theirs: u64,
    /// Documents that are on their way, of which nothing is said.
    pub under_way: u64,
    /// How many differences there are of each class when they were found.
    pub found: BTreeMap<Class, u64>,
    /// Why the day could not be compared that is next, in words that the merchant understands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    pub started_at: DateTime<Utc>,
    /// When the last day was compared.
    pub updated_at: DateTime<Utc>,
}

/// One document as it was read by itself; nothing if it is no longer in the books.
#[derive(Serialize, Deserialize)]
struct Looked {
    theirs: Option<Theirs>,
}

/// Which reconciliation is the last one.
#[derive(Serialize, Deserialize)]
struct Current {
    id: String,
}

/// That somebody lets a difference stand as it is.
#[derive(Serialize, Deserialize)]
struct Accepted {
    class: Class,
    ours: Option<Side>,
    theirs: Option<Side>,
    at: DateTime<Utc>,
}

fn expiring(write: Write, now: DateTime<Utc>) -> Write {
    write.expiring((now + FINDINGS_LIFE).timestamp())
}

/// The write of a reconciliation's own row.
fn row(connection: &Connection, on: Condition, reconciliation: &Reconciliation) -> Result<Write> {
    let key = keys::reconciliation(&connection.merchant_id, &connection.id, &reconciliation.id);
    let write = Write::put(key, on, reconciliation)?;
    Ok(expiring(write, reconciliation.started_at))
}

/// Sends a message for every connection with books: what the schedule does for one is its own, so none
/// waits for another, or ends with it. Returns how many those are.
pub async fn plan(ctx: &Ctx) -> Result<usize> {
    let planned_on = ctx.now().date_naive();
    let (mut after, mut count) = (None, 0);
    loop {
        let page = ctx
            .store
            .scan(Table::Connections, after.as_deref(), SCAN_ROWS_MAX)
            .await?;
        let mut messages = Vec::new();
        for item in &page.items {
            if !keys::is_connection(&item.key) {
                continue;
            }
            let connection: Connection = match item.read() {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::error!(key = ?item.key, error = %error.chain(), "this connection cannot be read");
                    continue;
                }
            };
            let of_books = accounting(&connection.provider).is_some();
            if !of_books || ctx.config.enabled(connection.category).is_err() {
                continue;
            }
            messages.push(message(&connection, Step::Begin { planned_on }, 0)?);
        }
        count += messages.len();
        let queue = ctx.config.reconcile_queue()?;
        ctx.queue.send_later(queue, messages).await?;
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

/// Asks for the daily summaries of the day before `planned_on`, and begins what the schedule compares.
async fn begin(ctx: &Ctx, connection: &Connection, planned_on: NaiveDate) -> Result<()> {
    if ctx.config.enabled(connection.category).is_err() {
        return Ok(());
    }
    let to = planned_on.pred_opt().unwrap_or(planned_on);
    // Where the connection is stopped, they wait for it like everything else.
    daily::plan(ctx, connection, to).await?;
    if connection.status != Status::Live {
        return Ok(());
    }
    let from = to
        .checked_sub_days(Days::new(SCHEDULE_DAYS - 1))
        .unwrap_or(to);
    match start(ctx, connection, from, to, Cause::Schedule).await {
        Ok(_) => Ok(()),
        // One that somebody asked for is under way, or that of yesterday is not given up yet.
        Err(error) if error.code() == Code::Conflict => {
            tracing::warn!(connection_id = %connection.id, error = %error.chain(), "nothing is compared");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Begins a reconciliation of the days from `from` to `to`. One of the same days that is under way is
/// carried on instead; of other days it is refused while that gets on, and takes the place of one that
/// does not.
pub async fn start(
    ctx: &Ctx,
    connection: &Connection,
    from: NaiveDate,
    to: NaiveDate,
    cause: Cause,
) -> Result<Reconciliation> {
    again::check(connection)?;
    let now = ctx.now();
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let key = keys::reconciling(merchant, id);
    let (condition, current) = match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), Some(item.read::<Current>()?)),
        None => (Condition::Absent, None),
    };
    let last = match current {
        Some(current) => held(ctx, connection, &current.id).await?,
        None => None,
    };
    let mut given_up = None;
    if let Some((held, last)) = last {
        let days = (last.from, last.to) == (from, to);
        let running = last.state == State::Running;
        if running && !days && now - last.updated_at >= LEFT_AFTER {
            let stopped = Reconciliation {
                state: State::Stopped,
                ..last.clone()
            };
            given_up = Some(row(connection, held, &stopped)?);
        } else if running && !days {
            return Err(Error::new(
                Code::Conflict,
                "a reconciliation of other days is under way; wait until it is done",
            ));
        }
        if running && days && now - last.updated_at >= STANDSTILL {
            go_on(ctx, connection, &last, 0).await?;
        }
        // The schedule's message may come twice.
        let repeated = cause == Cause::Schedule && last.cause == cause;
        if days && (running || repeated) {
            return Ok(last);
        }
    }
    let reconciliation = Reconciliation {
        id: EventId::ours(ctx.uuid()).as_str().replacen("evt", "rec", 1),
        cause,
        from,
        to,
        day: from,
        state: State::Running,
        ours: 0,
        theirs: 0,
        under_way: 0,
        found: BTreeMap::new(),
        problem: None,
        started_at: now,
        updated_at: now,
    };
    let current = Current {
        id: reconciliation.id.clone(),
    };
    let mut writes = vec![
        Write::put(key, condition, &current)?,
        row(connection, Condition::Absent, &reconciliation)?,
    ];
    writes.extend(given_up);
    ctx.store.transact(writes).await?;
    go_on(ctx, connection, &reconciliation, 0).await?;
    Ok(reconciliation)
}

async fn held(
    ctx: &Ctx,
    connection: &Connection,
    id: &str,
) -> Result<Option<(Condition, Reconciliation)>> {
    let key = keys::reconciliation(&connection.merchant_id, &connection.id, id);
    match ctx.store.get(&key).await? {
        Some(item) => Ok(Some((Condition::Rev(item.rev), item.read()?))),
        None => Ok(None),
    }
}

/// One reconciliation of `connection`.
pub async fn get(ctx: &Ctx, connection: &Connection, id: &str) -> Result<Reconciliation> {
    let held = held(ctx, connection, id).await?;
    let (_, found) = held.ok_or_else(|| Error::not_found(format!("a reconciliation {id}")))?;
    Ok(found)
}

/// The reconciliations of `connection`, the last one first, at most `limit`.
pub async fn list(ctx: &Ctx, connection: &Connection, limit: usize) -> Result<Vec<Reconciliation>> {
    const ALL_MAX: usize = 5000;
    let group = keys::reconciliations(&connection.merchant_id, &connection.id);
    let items = list_all(&*ctx.store, &group, ALL_MAX).await?;
    items.iter().rev().take(limit).map(Item::read).collect()
}

/// Everything that a reconciliation found: sums in the order of days, which come first, and differences;
/// at most `limit` in all, and whether there is more.
pub async fn findings(
    ctx: &Ctx,
    connection: &Connection,
    id: &str,
    limit: usize,
) -> Result<(Vec<Sum>, Vec<Difference>, bool)> {
    let group = keys::findings(&connection.merchant_id, &connection.id, id);
    let items = list_all(&*ctx.store, &group, limit + 1).await?;
    let more = items.len() > limit;
    let (mut sums, mut differences) = (Vec::new(), Vec::new());
    for item in items.iter().take(limit) {
        match keys::place(&item.key).starts_with("day/") {
            true => sums.push(item.read()?),
            false => differences.push(item.read()?),
        }
    }
    Ok((sums, differences, more))
}

async fn go_on(
    ctx: &Ctx,
    connection: &Connection,
    reconciliation: &Reconciliation,
    delay_seconds: u16,
) -> Result<()> {
    let step = Step::Compare {
        reconciliation_id: reconciliation.id.clone(),
        day: reconciliation.day,
    };
    let queue = ctx.config.reconcile_queue()?;
    let message = message(connection, step, delay_seconds)?;
    ctx.queue.send_later(queue, vec![message]).await
}

fn message(connection: &Connection, step: Step, delay_seconds: u16) -> Result<Message> {
    let notice = ReconcileNotice {
        merchant_id: connection.merchant_id.clone(),
        connection_id: connection.id.clone(),
        step,
    };
    let body = serde_json::to_string(&notice).map_err(Error::internal)?;
    Ok(Message {
        body,
        delay_seconds,
        group: None,
    })
}

/// Compares one day, or begins what the schedule does.
pub async fn run(ctx: &Ctx, notice: &ReconcileNotice) -> Result<()> {
    let loaded = connection::load(ctx, &notice.merchant_id, &notice.connection_id).await;
    let connection = match loaded {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(provider) = accounting(&connection.provider) else {
        return Ok(());
    };
    let (reconciliation_id, day_asked) = match &notice.step {
        Step::Begin { planned_on } => return begin(ctx, &connection, *planned_on).await,
        Step::Compare {
            reconciliation_id,
            day,
        } => (reconciliation_id, *day),
    };
    let held = held(ctx, &connection, reconciliation_id).await?;
    let running = held.filter(|(_, one)| one.state == State::Running);
    let Some((condition, mut reconciliation)) = running else {
        return Ok(());
    };
    let now = ctx.now();
    if reconciliation.day != day_asked {
        // Whoever compared it may have died before it sent the next message, and is then the one who is
        // here again.
        let before = day_asked.succ_opt() == Some(reconciliation.day);
        if before && now - reconciliation.updated_at >= STANDSTILL {
            return go_on(ctx, &connection, &reconciliation, 0).await;
        }
        return Ok(());
    }
    if again::check(&connection).is_err() || ctx.config.enabled(connection.category).is_err() {
        reconciliation.state = State::Stopped;
    } else if connection.status != Status::Live {
        return go_on(ctx, &connection, &reconciliation, STOPPED_SECONDS).await;
    } else {
        match day(ctx, provider, &connection, &reconciliation).await {
            Ok(compared) => {
                compared
                    .store(ctx, &connection, &mut reconciliation)
                    .await?
            }
            Err(stop) => {
                let (code, detail) = stop.into_error()?;
                let detail = format!("the books could not be read: {code}: {detail}");
                // The message comes again, and is given up in the end.
                reconciliation.problem = Some(detail.clone());
                let write = row(&connection, condition, &reconciliation)?;
                if let Err(error) = ctx.store.write(write).await {
                    tracing::warn!(error = %Error::from(error).chain(), "what is wrong could not be noted");
                }
                return Err(Error::new(Code::UpstreamFailed, detail));
            }
        }
        reconciliation.problem = None;
        reconciliation.day = day_asked.succ_opt().unwrap_or(NaiveDate::MAX);
        if reconciliation.day > reconciliation.to {
            reconciliation.state = State::Done;
        }
    }
    reconciliation.updated_at = ctx.now();
    let write = row(&connection, condition, &reconciliation)?;
    match ctx.store.write(write).await {
        Ok(()) => {}
        // The same message is at work elsewhere.
        Err(WriteError::Condition(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match reconciliation.state {
        State::Running => go_on(ctx, &connection, &reconciliation, 0).await,
        State::Done | State::Stopped => Ok(()),
    }
}

/// What one day came to.
struct Compared {
    sums: Vec<Sum>,
    differences: Vec<Difference>,
    /// Documents of others that are not shown.
    not_ours: u64,
    under_way: u64,
    /// What nobody works at any more, and is sent again.
    left: Vec<Open>,
}

impl Compared {
    /// Stores what was found, and sends what is behind.
    async fn store(
        self,
        ctx: &Ctx,
        connection: &Connection,
        reconciliation: &mut Reconciliation,
    ) -> Result<()> {
        let now = ctx.now();
        let group = keys::findings(&connection.merchant_id, &connection.id, &reconciliation.id);
        let mut writes = Vec::new();
        for sum in &self.sums {
            reconciliation.ours += sum.ours.count;
            reconciliation.theirs += sum.theirs.count;
            let place = format!("day/{}/{}/{}", sum.day, sum.currency, sum.kind.as_str());
            writes.push(Write::put(
                keys::finding(&group, &place),
                Condition::Any,
                sum,
            )?);
        }
        let event_id = EventId::ours(ctx.uuid());
        let left = self.left.into_iter();
        let mut notices: Vec<Notice> = left
            .map(|open| again::notice(connection, &event_id, open, now))
            .collect();
        for difference in &self.differences {
            *reconciliation.found.entry(difference.class).or_default() += 1;
            if let (Decided::Sent, Some(row)) = (difference.decided, &difference.record) {
                let open = opened(row, difference);
                notices.push(again::notice(connection, &event_id, open, now));
            }
            let key = keys::finding(&group, &format!("difference/{}", difference.id));
            writes.push(Write::put(key, Condition::Any, difference)?);
        }
        if self.not_ours > 0 {
            *reconciliation.found.entry(Class::NotOurs).or_default() += self.not_ours;
        }
        reconciliation.under_way += self.under_way;
        let writes = writes.into_iter();
        let writes = writes.map(|write| expiring(write, reconciliation.started_at));
        ctx.store.put_many(writes.collect()).await?;
        again::send(ctx, &connection.provider, notices).await
    }
}

fn opened(row: &RowRef, difference: &Difference) -> Open {
    Open {
        record: row.owner(),
        order_id: difference.order_id.clone(),
        code: None,
    }
}

/// Reads both sides of a day and tells what does not meet.
async fn day(
    ctx: &Ctx,
    provider: &'static dyn Accounting,
    connection: &Connection,
    reconciliation: &Reconciliation,
) -> Result<Compared, Stop> {
    let session = Session::new(ctx, provider, connection, 1, true).await?;
    let settings = session.settings().await?;
    let day = reconciliation.day;
    let mut theirs = Vec::new();
    let changes = provider.changes();
    let open = |form: &&Form| connection.holds(changes.needs(changes.kind_of(**form)));
    for form in provider.forms().iter().filter(open) {
        for page in 0.. {
            if page == PAGES_MAX {
                return Err(Stop::Theirs(Fault::Refused {
                    code: "too_many_documents".to_owned(),
                    detail: format!("{day} has more documents than can be compared"),
                }));
            }
            let request = provider.list(&session.tenant, *form, day, page);
            let read = |answer: &_| provider.read_list(*form, answer, &settings);
            let (found, _) = session.call(request, read).await?;
            // Whatever the provider thinks of a filter.
            theirs.extend(found.documents.into_iter().filter(|one| one.day == day));
            if !found.more {
                break;
            }
        }
    }
    if connection.posting(day) == Posting::Daily {
        // A record of which no message came gets into its summary by this.
        daily::ask_now(ctx, connection, day).await?;
    }
    // After theirs, so that what came to the books meanwhile is in the ledger.
    let ours = ours(&session, &settings, day).await?;
    let (sums, suspects) = compare(day, &ours, &theirs);
    let left = ours.iter().filter(|one| one.progress == Progress::Left);
    let left: BTreeMap<RecordRef, Option<RecordId>> = left
        .map(|one| (one.row.owner(), one.order_id.clone()))
        .collect();
    let mut judge = Judge {
        session: &session,
        settings: &settings,
        id: &reconciliation.id,
        day,
        not_ours_shown: 0,
        compared: Compared {
            sums,
            differences: Vec::new(),
            not_ours: 0,
            under_way: 0,
            left: left
                .into_iter()
                .map(|(record, order_id)| Open {
                    record,
                    order_id,
                    code: None,
                })
                .collect(),
        },
    };
    for suspect in suspects {
        judge.hear(suspect).await?;
    }
    Ok(judge.compared)
}

/// The documents that the books are to show on `day`.
async fn ours(
    session: &Session<'_>,
    settings: &serde_json::Value,
    day: NaiveDate,
) -> Result<Vec<Ours>> {
    let (ctx, provider, connection) = (session.ctx, session.provider, session.connection);
    let group = keys::day(&connection.merchant_id, day);
    let mut wanted: BTreeMap<RecordRef, Open> = BTreeMap::new();
    let mut after = None;
    loop {
        let page = ctx
            .store
            .list(&group, after.as_deref(), PAGE_ROWS_MAX)
            .await?;
        for item in &page.items {
            let open: Open = item.read()?;
            wanted.insert(open.record.clone(), open);
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for (row, _) in daily::stored(ctx, connection, day).await? {
        let open = again::with_order(row.owner(), None)?;
        wanted.insert(open.record.clone(), open);
    }
    let wanted: Vec<Open> = wanted.into_values().collect();
    let mut ours = Vec::new();
    for chunk in wanted.chunks(CHUNK_RECORDS_MAX) {
        for known in known::load(ctx, provider, connection, chunk).await? {
            for (document, link) in known.documents(provider, connection) {
                if document.at().date_naive() != day {
                    continue;
                }
                let stands = link.is_some_and(|link| link.remote.is_some() && link.gone.is_none());
                // Where it cannot be told, what keeps it from the books is shown instead.
                let posts = provider.posts(document, settings).unwrap_or(true);
                if !stands && (!posts || link.is_some_and(Link::is_nothing)) {
                    continue;
                }
                ours.push(Ours {
                    row: RowRef {
                        kind: document.form().kind(),
                        id: document.id(),
                    },
                    order_id: known.target.order_id.clone(),
                    form: document.form(),
                    day,
                    total: document.total(),
                    mark: document.mark(),
                    remote: link.and_then(|link| link.remote.clone()),
                    progress: progress(link, known.record.rev, ctx.now()),
                    behind: document.behind(),
                });
            }
        }
    }
    Ok(ours)
}

fn progress(link: Option<&Link>, rev: u64, now: DateTime<Utc>) -> Progress {
    let Some(link) = link else {
        return Progress::Settled;
    };
    let touched = link.next_attempt_at.max(link.updated_at);
    let left = touched.is_some_and(|touched| now - touched >= LEFT_AFTER);
    match (link.state, &link.problem) {
        _ if link.waiting.is_some() => Progress::UnderWay,
        (LinkState::Pending, Some(_)) if left => Progress::Left,
        _ if link.intent.is_some() && left => Progress::Left,
        _ if link.intent.is_some() => Progress::UnderWay,
        (LinkState::Parked, Some(problem)) => Progress::Parked(problem.clone()),
        (LinkState::Pending, Some(_)) => Progress::UnderWay,
        // The shop has a newer one, of which nobody has set out to push anything.
        _ if link.record_rev < rev && link.content.is_none() => Progress::UnderWay,
        _ if link.record_rev < rev => Progress::Newer,
        _ => Progress::Settled,
    }
}

struct Judge<'a> {
    session: &'a Session<'a>,
    settings: &'a serde_json::Value,
    /// The reconciliation's.
    id: &'a str,
    day: NaiveDate,
    not_ours_shown: usize,
    compared: Compared,
}

impl Judge<'_> {
    async fn hear(&mut self, suspect: Suspect<'_>) -> Result<(), Stop> {
        match suspect {
            Suspect::Absent(ours) | Suspect::Differs(ours, _)
                if matches!(ours.progress, Progress::UnderWay | Progress::Left) =>
            {
                self.compared.under_way += 1;
                Ok(())
            }
            Suspect::Absent(ours) => match &ours.remote {
                None => self.never_made(ours).await,
                Some(remote) => {
                    // A page may have moved under the reader, or the document to another day.
                    match self.look(ours.form, remote).await? {
                        Some(theirs) if ours.agrees(&theirs) => Ok(()),
                        Some(theirs) => self.differs(ours, &theirs).await,
                        None => self.deleted(ours).await,
                    }
                }
            },
            Suspect::Differs(ours, theirs) if ours.remote.is_none() => {
                let detail = format!(
                    "{} shows this {} and Crossdock does not know how it came there; remove one of \
                     the two, if there are two",
                    self.title(),
                    ours.form.title()
                );
                self.note(
                    Class::Doubled,
                    Some(ours),
                    Some(theirs),
                    detail,
                    Decided::Open,
                )
                .await
            }
            Suspect::Differs(ours, theirs) => self.differs(ours, theirs).await,
            Suspect::Stray(theirs, row) => self.stray(theirs, row).await,
            Suspect::NotOurs(theirs) => {
                if self.not_ours_shown == NOT_OURS_MAX {
                    self.compared.not_ours += 1;
                    return Ok(());
                }
                self.not_ours_shown += 1;
                let detail = format!("{} has this by another hand than ours", self.title());
                self.note(
                    Class::NotOurs,
                    None,
                    Some(theirs),
                    detail,
                    Decided::Accepted,
                )
                .await
            }
        }
    }

    fn title(&self) -> &'static str {
        self.session.provider.manifest().title
    }

    /// Reads one document by itself, once in this reconciliation as long as its version is known as it
    /// was. A day may want more of these than calls are left, and is then begun anew when there are
    /// more: without what was seen before it would come no further than the first time.
    async fn look(&self, form: Form, remote: &Remote) -> Result<Option<Theirs>, Stop> {
        let (ctx, connection) = (self.session.ctx, self.session.connection);
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        let key = keys::looked(merchant, id, self.id, &remote.id, &remote.version);
        if let Some(item) = ctx.store.get(&key).await? {
            return Ok(item.read::<Looked>()?.theirs);
        }
        let provider = self.session.provider;
        let request = provider.read(&self.session.tenant, form, remote);
        let read = |answer: &_| provider.read_one(form, answer, self.settings);
        let (theirs, _) = self.session.call(request, read).await?;
        let looked = Looked { theirs };
        let write = Write::put(key, Condition::Any, &looked)?;
        let gone = (ctx.now() + LOOKED_LIFE).timestamp();
        let written = ctx.store.write(write.expiring(gone)).await;
        written.map_err(Error::from)?;
        Ok(looked.theirs)
    }

    /// What the ledger says of a row now.
    async fn link(&self, row: &RowRef) -> Result<Option<Link>> {
        let (ctx, connection) = (self.session.ctx, self.session.connection);
        let links = known::links(ctx, connection, vec![row.clone()]).await?;
        Ok(links.into_values().next())
    }

    async fn never_made(&mut self, ours: &Ours) -> Result<(), Stop> {
        let link = self.link(&ours.row).await?;
        if link.is_some_and(|link| link.remote.is_some() || link.intent.is_some()) {
            // Somebody made it since, or is about to.
            self.compared.under_way += 1;
            return Ok(());
        }
        let (title, what) = (self.title(), ours.form.title());
        let (detail, decided) = match &ours.progress {
            Progress::Parked(problem) => (
                format!("{title} does not take this {what}: {}", problem.detail),
                Decided::Open,
            ),
            _ => (
                format!("this {what} never reached {title}; it was sent again"),
                Decided::Sent,
            ),
        };
        self.note(Class::Missing, Some(ours), None, detail, decided)
            .await
    }

    async fn deleted(&mut self, ours: &Ours) -> Result<(), Stop> {
        let detail = format!(
            "somebody deleted or voided this {} in {}; repair makes it anew, accept lets it be gone",
            ours.form.title(),
            self.title()
        );
        self.note(Class::Missing, Some(ours), None, detail, Decided::Open)
            .await
    }

    async fn differs(&mut self, ours: &Ours, theirs: &Theirs) -> Result<(), Stop> {
        // What stood in a page may be older than what was pushed meanwhile.
        let now = self.look(ours.form, &theirs.remote).await?;
        let Some(theirs) = now else {
            return self.deleted(ours).await;
        };
        let link = self.link(&ours.row).await?;
        if ours.agrees(&theirs) {
            return Ok(());
        }
        let Some(link) = link.filter(|link| link.intent.is_none()) else {
            self.compared.under_way += 1;
            return Ok(());
        };
        // What is void stays in some lists, over nothing.
        if link.gone.is_some() {
            return self.deleted(ours).await;
        }
        let (title, what) = (self.title(), ours.form.title());
        // The ledger knows what was pushed last by a fingerprint alone: where the version over there is
        // the one that we made, nobody changed it there.
        let same_version = link
            .remote
            .as_ref()
            .is_some_and(|remote| remote.version == theirs.remote.version);
        let (class, detail, decided) = match &ours.progress {
            Progress::Parked(problem) => (
                Class::ChangedHere,
                format!(
                    "this {what} changed in the shop, and {title} does not take that: {}",
                    problem.detail
                ),
                Decided::Open,
            ),
            progress if same_version || *progress == Progress::Newer => {
                match self.session.provider.is_fixed(ours.form) {
                    false => (
                        Class::ChangedHere,
                        format!(
                            "this {what} changed in the shop after it was sent; it was sent again"
                        ),
                        Decided::Sent,
                    ),
                    // The money of a daily summary, which an order came to later.
                    true => (
                        Class::ChangedHere,
                        format!(
                            "this {what} is of another amount in the shop by now, and {title} changes \
                             none; post the difference by hand and accept this, or remove it there, \
                             reconcile again and repair what is missing"
                        ),
                        Decided::Open,
                    ),
                }
            }
            _ => (
                Class::ChangedThere,
                format!(
                    "somebody changed this {what} in {title}; repair writes what the shop says over \
                     it, accept lets it stand"
                ),
                Decided::Open,
            ),
        };
        self.note(class, Some(ours), Some(&theirs), detail, decided)
            .await
    }

    async fn stray(&mut self, theirs: &Theirs, row: RowRef) -> Result<(), Stop> {
        let link = self.link(&row).await?;
        let what = theirs.form.title();
        match link {
            Some(link)
                if link
                    .remote
                    .as_ref()
                    .is_some_and(|remote| remote.id == theirs.remote.id) =>
            {
                // It is the right one on another day, which is found when its own day is compared; the
                // ledger may also have learned of it since.
                Ok(())
            }
            Some(link) if link.intent.is_some() || link.remote.is_none() => {
                self.compared.under_way += 1;
                Ok(())
            }
            Some(_) => {
                let detail = format!(
                    "{} has a second {what} of this; delete it there, or accept it",
                    self.title()
                );
                let mut difference = self.difference(Class::Doubled, None, Some(theirs), detail);
                difference.record = Some(row);
                self.push(difference, Decided::Open).await
            }
            None => {
                let detail = format!(
                    "this {what} bears a mark of Crossdock and belongs to nothing that this \
                     connection knows"
                );
                self.note(
                    Class::NotOurs,
                    None,
                    Some(theirs),
                    detail,
                    Decided::Accepted,
                )
                .await
            }
        }
    }

    fn difference(
        &self,
        class: Class,
        ours: Option<&Ours>,
        theirs: Option<&Theirs>,
        detail: String,
    ) -> Difference {
        let kind = ours.map(|ours| ours.row.kind);
        let kind = kind.or(theirs.map(|theirs| theirs.form.kind()));
        let kind = kind.unwrap_or(RowKind::Order);
        // A double and what is not ours are known by their own id.
        let id = match (ours, theirs) {
            (Some(ours), _) => format!("{}:{}", kind.as_str(), ours.row.id),
            (None, Some(theirs)) => format!("{}:there:{}", kind.as_str(), theirs.remote.id),
            (None, None) => String::new(),
        };
        Difference {
            id: format!("{}:{id}", class.as_str()),
            class,
            day: self.day,
            kind,
            record: ours.map(|ours| ours.row.clone()),
            order_id: ours.and_then(|ours| ours.order_id.clone()),
            behind: ours.and_then(|ours| ours.behind),
            ours: ours.map(Ours::side),
            theirs: theirs.map(Theirs::side),
            remote: theirs
                .map(|theirs| theirs.remote.clone())
                .or_else(|| ours.and_then(|ours| ours.remote.clone())),
            detail,
            decided: Decided::Open,
            decided_at: None,
        }
    }

    async fn note(
        &mut self,
        class: Class,
        ours: Option<&Ours>,
        theirs: Option<&Theirs>,
        detail: String,
        decided: Decided,
    ) -> Result<(), Stop> {
        let difference = self.difference(class, ours, theirs, detail);
        self.push(difference, decided).await
    }

    async fn push(&mut self, mut difference: Difference, decided: Decided) -> Result<(), Stop> {
        let (ctx, connection) = (self.session.ctx, self.session.connection);
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        difference.decided = decided;
        if decided == Decided::Open {
            let key = keys::accepted(merchant, id, &difference.id);
            if let Some(item) = ctx.store.get(&key).await? {
                let accepted: Accepted = item.read()?;
                if (accepted.ours, accepted.theirs)
                    == (difference.ours.clone(), difference.theirs.clone())
                {
                    difference.decided = Decided::Accepted;
                    difference.decided_at = Some(accepted.at);
                }
            }
        }
        self.compared.differences.push(difference);
        Ok(())
    }
}

/// What somebody decides of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    Repair,
    Accept,
}

impl Decision {
    pub const ALL: [Decision; 2] = [Decision::Repair, Decision::Accept];
}

/// Carries a decision out. Deciding the same twice changes nothing more.
pub async fn decide(
    ctx: &Ctx,
    connection: &Connection,
    reconciliation: &str,
    difference: &str,
    decision: Decision,
) -> Result<Difference> {
    again::check(connection)?;
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let group = keys::findings(merchant, id, reconciliation);
    let key = keys::finding(&group, &format!("difference/{difference}"));
    let item = ctx.store.get(&key).await?;
    let item = item.ok_or_else(|| Error::not_found(format!("a difference {difference}")))?;
    let mut found: Difference = item.read()?;
    let now = ctx.now();
    let refused = |detail: &str| Err(Error::new(Code::Conflict, detail));
    if found.class == Class::NotOurs {
        return refused("this is not ours, so there is nothing to decide");
    }
    match decision {
        Decision::Accept => {
            let accepted = Accepted {
                class: found.class,
                ours: found.ours.clone(),
                theirs: found.theirs.clone(),
                at: now,
            };
            let key = keys::accepted(merchant, id, difference);
            let write = Write::put(key, Condition::Any, &accepted)?;
            ctx.store.write(write).await?;
            found.decided = Decided::Accepted;
        }
        Decision::Repair => {
            repair(ctx, connection, &found).await?;
            found.decided = Decided::Sent;
        }
    }
    found.decided_at = Some(now);
    let write = Write::put(key, Condition::Rev(item.rev), &found)?;
    match ctx.store.write(expiring(write, now)).await {
        // Whoever was faster decided too.
        Ok(()) | Err(WriteError::Condition(_)) => Ok(found),
        Err(error) => Err(error.into()),
    }
}

async fn repair(ctx: &Ctx, connection: &Connection, found: &Difference) -> Result<()> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let Some(row) = &found.record else {
        return Err(Error::new(Code::Conflict, "this belongs to no record"));
    };
    let provider = accounting(&connection.provider);
    let provider = provider.ok_or_else(|| Error::internal("no such provider"))?;
    if found.class == Class::Doubled {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "which of the two is right, a person has to see: delete the other one in {}; the \
                 next reconciliation shows whether it is gone",
                provider.manifest().title
            ),
        ));
    }
    let name = RowName {
        row: row.clone(),
        order_id: found.order_id.clone(),
    };
    let links = known::links(ctx, connection, vec![row.clone()]).await?;
    let fixed = links
        .values()
        .find_map(|link| link.form)
        .is_some_and(|form| provider.is_fixed(form));
    if found.class == Class::ChangedThere && fixed {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "{} cannot change this once it is there: delete it there, reconcile again, and then \
                 repair what is missing",
                provider.manifest().title
            ),
        ));
    }
    let now = ctx.now();
    match (found.class, &found.remote) {
        // What the ledger knows is gone: it is made anew.
        (Class::Missing, Some(gone)) => {
            ledger::change(ctx, connection, &name, |link| {
                let same = link.remote.as_ref().is_some_and(|held| held.id == gone.id);
                let open = link.intent.is_some();
                (same && !open).then(|| link.lose(now))
            })
            .await?;
        }
        (Class::ChangedThere, Some(there)) => {
            ledger::change(ctx, connection, &name, |link| {
                let same = link.remote.as_ref().is_some_and(|held| held.id == there.id);
                let open = link.intent.is_some();
                (same && !open).then(|| link.reread(there.clone(), now))
            })
            .await?;
        }
        _ => {}
    }
    if let Some(name) = SummaryName::parse(&row.owner().id) {
        daily::ask_now(ctx, connection, name.day).await?;
    }
    let event_id = EventId::ours(ctx.uuid());
    let order_id = match (&found.order_id, row.owner().kind) {
        (None, RecordKind::Order) => Some(row.owner().id.parse().map_err(Error::internal)?),
        (order_id, _) => order_id.clone(),
    };
    let open = Open {
        record: row.owner(),
        order_id,
        code: None,
    };
    let _ = (merchant, id);
    let notice = again::notice(connection, &event_id, open, now);
    again::send(ctx, &connection.provider, vec![notice]).await
}

/// The classes of `differences` that still wait for a decision.
pub fn open_classes(differences: &[Difference]) -> BTreeSet<Class> {
    let open = differences
        .iter()
        .filter(|one| one.decided == Decided::Open);
    open.map(|one| one.class).collect()
}
