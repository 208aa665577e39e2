//! Bringing what the shop sold before into the books of a connection: the records of a window of days
//! that are not there yet.
//!
//! A resync walks over what a connection knows; this walks over what the shop has told, day by day, and
//! so finds what was sold before there was a connection. It is a walk of one message, with a row that
//! says where it stands. First the records of the window are counted, then they are sent to the queue, a
//! page at a time, and the next page goes only when those of the last one are in the books or parked. So
//! never more than a page of them stands in the queue before what happens meanwhile, the provider's
//! speed is the speed of the walk, and what is told of its progress was seen in the ledger. The calls
//! for them are taken in the background (`engine::budget`).

use super::again;
use super::daily;
use super::known::{self, Known};
use super::ledger;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind};
use crate::model::ids::{ConnectionId, EventId};
use crate::model::notice::{Notice, RecordRef};
use crate::oauth::connection::{self, Connection, Posting, Status};
use crate::providers::accounting::Accounting;
use crate::store::{Condition, Item, Write, WriteError, keys};
use crate::sync::push::{LinkState, Open, Standing};
use chrono::{DateTime, Days, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Most days of a window.
pub const DAYS_MAX: i64 = 3660;
/// Records that are on their way at a time.
const PAGE_RECORDS_MAX: usize = 200;
/// Rows that are counted at once.
const COUNT_ROWS_MAX: usize = 1000;
/// Pages that one message looks at, most of them of days on which nothing happened.
const MESSAGE_PAGES_MAX: usize = 60;
/// How often it is looked whether the records of a page are there.
const LOOK_SECONDS: u16 = 3;
/// How long the records of one page are waited for: by then their messages were given up, since the queue
/// hands one out ten times, twelve minutes apart.
const FLIGHT_MAX: TimeDelta = TimeDelta::hours(3);
/// How often it is looked whether a connection that was stopped is live again.
const STOPPED_SECONDS: u16 = 300;
/// After how long without a step the next one is sent once more.
const STANDSTILL: TimeDelta = TimeDelta::seconds(15);
/// How long records were sent before their speed says when all are.
const ESTIMATE_AFTER: TimeDelta = TimeDelta::seconds(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The records of the window are counted.
    Counting,
    Running,
    /// Every record of the window was dealt with.
    Done,
    /// Somebody stopped it, or gave the connection up.
    Stopped,
}

impl State {
    pub const ALL: [State; 4] = [State::Counting, State::Running, State::Done, State::Stopped];

    pub const fn is_over(self) -> bool {
        matches!(self, State::Done | State::Stopped)
    }
}

/// The last backfill of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backfill {
    pub id: EventId,
    /// The first and the last day (UTC) of the window.
    pub from: NaiveDate,
    pub to: NaiveDate,
    pub state: State,
    /// Records of the window.
    pub total: u64,
    /// Those that were dealt with: in the books or not to be there.
    pub done: u64,
    /// Those that did not get there; the errors of the connection say why.
    pub failed: u64,
    /// Those that were handed to the queue.
    pub sent: u64,
    /// Grows with each step, so that a message that comes twice is known.
    step: u64,
    day: NaiveDate,
    /// The place within the day after which it goes on.
    after: Option<String>,
    /// The records that are on their way, and since when.
    flight: Vec<Open>,
    flight_at: Option<DateTime<Utc>>,
    pub sending_since: Option<DateTime<Utc>>,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// When a backfill is expected to end, or why that cannot be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Estimate {
    At(DateTime<Utc>),
    Unknown(&'static str),
}

impl Backfill {
    /// Records for each minute since the first was sent, in thousandths; nothing before that can be said.
    pub fn rate_per_minute(&self) -> Option<u64> {
        let since = self.sending_since?;
        let took = (self.updated_at - since).num_milliseconds();
        let dealt = self.done + self.failed;
        (took >= ESTIMATE_AFTER.num_milliseconds() && dealt > 0)
            .then(|| dealt.saturating_mul(60_000_000) / took.unsigned_abs())
    }

    /// When it ends if it goes on as it went so far.
    pub fn estimate(&self, status: Status, now: DateTime<Utc>) -> Estimate {
        match self.state {
            State::Counting => {
                return Estimate::Unknown("the records of the window are still being counted");
            }
            State::Done => return Estimate::Unknown("it is done"),
            State::Stopped => return Estimate::Unknown("it was stopped"),
            State::Running => {}
        }
        if status != Status::Live {
            return Estimate::Unknown(
                "the connection is stopped; it goes on when that is live again",
            );
        }
        let Some(rate) = self.rate_per_minute().filter(|rate| *rate > 0) else {
            return Estimate::Unknown("too little was sent so far to tell the speed");
        };
        let left = self.total.saturating_sub(self.done + self.failed);
        let milliseconds = left.saturating_mul(60_000_000) / rate;
        let left = i64::try_from(milliseconds)
            .ok()
            .and_then(TimeDelta::try_milliseconds);
        match left.and_then(|left| now.checked_add_signed(left)) {
            Some(at) => Estimate::At(at),
            None => Estimate::Unknown("it is too slow to tell"),
        }
    }
}

/// Whether a notice is a step of a backfill, and not a record that one brought up.
pub(super) fn is_step(notice: &Notice) -> bool {
    notice.backfill.is_some() && notice.record.kind == RecordKind::Connection
}

async fn held(ctx: &Ctx, connection: &Connection) -> Result<(Condition, Option<Backfill>)> {
    let key = keys::backfill(&connection.merchant_id, &connection.id);
    Ok(match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), Some(item.read()?)),
        None => (Condition::Absent, None),
    })
}

/// The last backfill of `connection`.
pub async fn last(ctx: &Ctx, connection: &Connection) -> Result<Backfill> {
    let (_, held) = held(ctx, connection).await?;
    held.ok_or_else(|| Error::not_found(format!("a backfill of connection {}", connection.id)))
}

/// Begins a backfill of the days from `from` to `to`. One of the same window that is under way is
/// carried on instead; another one is refused while it is.
pub async fn start(
    ctx: &Ctx,
    connection: &Connection,
    from: NaiveDate,
    to: NaiveDate,
) -> Result<Backfill> {
    again::check(connection)?;
    let now = ctx.now();
    let (condition, held) = held(ctx, connection).await?;
    if let Some(running) = held.filter(|held| !held.state.is_over()) {
        if (running.from, running.to) != (from, to) {
            return Err(Error::new(
                Code::Conflict,
                "a backfill of another window is under way; wait until it is done, or stop it",
            ));
        }
        if now - running.updated_at >= STANDSTILL {
            go_on(ctx, connection, &running, 0).await?;
        }
        return Ok(running);
    }
    let backfill = Backfill {
        id: EventId::ours(ctx.uuid()),
        from,
        to,
        state: State::Counting,
        total: 0,
        done: 0,
        failed: 0,
        sent: 0,
        step: 0,
        day: from,
        after: None,
        flight: Vec::new(),
        flight_at: None,
        sending_since: None,
        started_at: now,
        updated_at: now,
    };
    put(ctx, connection, condition, &backfill).await?;
    go_on(ctx, connection, &backfill, 0).await?;
    Ok(backfill)
}

/// Stops the backfill of `connection`. What is on its way arrives all the same.
pub async fn stop(ctx: &Ctx, connection: &Connection) -> Result<Backfill> {
    const ROUNDS_MAX: usize = 4;
    let mut busy = None;
    for _ in 0..ROUNDS_MAX {
        let (condition, held) = held(ctx, connection).await?;
        let Some(mut backfill) = held else {
            break;
        };
        if backfill.state.is_over() {
            return Ok(backfill);
        }
        backfill.state = State::Stopped;
        backfill.updated_at = ctx.now();
        match put(ctx, connection, condition, &backfill).await {
            Ok(()) => return Ok(backfill),
            Err(error @ (WriteError::Condition(_) | WriteError::Contended)) => busy = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match busy {
        Some(busy) => Err(busy.into()),
        None => last(ctx, connection).await,
    }
}

async fn put(
    ctx: &Ctx,
    connection: &Connection,
    condition: Condition,
    backfill: &Backfill,
) -> Result<(), WriteError> {
    let key = keys::backfill(&connection.merchant_id, &connection.id);
    let write = Write::put(key, condition, backfill).map_err(WriteError::Failed)?;
    ctx.store.write(write).await
}

/// Sends the message with which `backfill` goes on.
async fn go_on(
    ctx: &Ctx,
    connection: &Connection,
    backfill: &Backfill,
    delay_seconds: u16,
) -> Result<()> {
    let notice = Notice {
        merchant_id: connection.merchant_id.clone(),
        event_id: backfill.id.clone(),
        kind: EventType::ConnectionConnected,
        record: RecordRef {
            kind: RecordKind::Connection,
            id: connection.id.to_string(),
        },
        order_id: None,
        accepted_at: backfill.started_at,
        after: None,
        resync: None,
        backfill: Some(backfill.step.to_string()),
        summing: None,
    };
    again::send_later(ctx, &connection.provider, vec![notice], delay_seconds).await
}

/// One step of a backfill.
pub(super) async fn step(ctx: &Ctx, provider: &dyn Accounting, notice: &Notice) -> Result<()> {
    let id: ConnectionId = notice.record.id.parse().map_err(Error::internal)?;
    let connection = match connection::load(ctx, &notice.merchant_id, &id).await {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (condition, held) = held(ctx, &connection).await?;
    let running = held.filter(|held| held.id == notice.event_id && !held.state.is_over());
    let Some(mut backfill) = running.filter(|_| connection.provider == provider.manifest().name)
    else {
        return Ok(());
    };
    let now = ctx.now();
    let step = notice
        .backfill
        .as_deref()
        .and_then(|step| step.parse().ok());
    if step != Some(backfill.step) {
        // This step was done. Whoever did it may have died before it sent the next message, and is
        // then the one who is here again.
        let before = step == backfill.step.checked_sub(1);
        if before && now - backfill.updated_at >= STANDSTILL {
            return go_on(ctx, &connection, &backfill, 0).await;
        }
        return Ok(());
    }
    // While the connection was stopped nothing could come of it.
    let idle = now - backfill.updated_at;
    if idle >= TimeDelta::seconds(i64::from(STOPPED_SECONDS)) {
        for since in [&mut backfill.sending_since, &mut backfill.flight_at] {
            *since = since.map(|at| at + idle);
        }
    }
    let mut delay = 0;
    if again::check(&connection).is_err() {
        backfill.state = State::Stopped;
    } else if connection.status != Status::Live {
        return go_on(ctx, &connection, &backfill, STOPPED_SECONDS).await;
    } else if backfill.state == State::Counting {
        count(ctx, &connection, &mut backfill).await?;
    } else {
        let waits = send(ctx, provider, &connection, &mut backfill).await?;
        delay = if waits { LOOK_SECONDS } else { 0 };
    }
    backfill.step += 1;
    backfill.updated_at = now;
    match put(ctx, &connection, condition, &backfill).await {
        Ok(()) => {}
        // The same message is at work elsewhere, or somebody stopped it.
        Err(WriteError::Condition(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match backfill.state.is_over() {
        true => Ok(()),
        false => go_on(ctx, &connection, &backfill, delay).await,
    }
}

impl Backfill {
    /// The next page of the window; nothing at its end.
    async fn page(
        &mut self,
        ctx: &Ctx,
        connection: &Connection,
        limit: usize,
    ) -> Result<Option<Vec<Item>>> {
        if self.day > self.to {
            return Ok(None);
        }
        let group = keys::day(&connection.merchant_id, self.day);
        let after = self.after.as_deref();
        let (items, next) = ledger::page(ctx, &group, &ledger::RECORDS, after, limit).await?;
        self.after = next;
        if self.after.is_none() {
            self.day = self
                .day
                .checked_add_days(Days::new(1))
                .unwrap_or(NaiveDate::MAX);
        }
        Ok(Some(items))
    }

    fn begin_again(&mut self) {
        (self.day, self.after) = (self.from, None);
    }
}

async fn count(ctx: &Ctx, connection: &Connection, backfill: &mut Backfill) -> Result<()> {
    for _ in 0..MESSAGE_PAGES_MAX {
        let Some(items) = backfill.page(ctx, connection, COUNT_ROWS_MAX).await? else {
            backfill.begin_again();
            backfill.state = State::Running;
            return Ok(());
        };
        backfill.total += items.len() as u64;
    }
    Ok(())
}

/// How a record of the window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// It is in the books, or nothing of it is to be there.
    There,
    /// It is not, and does not get there by itself.
    Not,
    Open,
}

fn stands(known: &Known, provider: &dyn Accounting, connection: &Connection) -> Stands {
    if let Some(standing) = known.standing_in_summary(connection) {
        return match standing {
            Standing::Synced | Standing::LeftOut => Stands::There,
            Standing::Parked => Stands::Not,
            Standing::Pending | Standing::Waiting => Stands::Open,
        };
    }
    let documents = known.documents(provider, connection);
    let states = documents.iter().map(|(_, link)| match link {
        Some(link) if link.waiting.is_some() => Stands::Open,
        Some(link) => match link.state {
            LinkState::Synced => Stands::There,
            LinkState::Parked => Stands::Not,
            LinkState::Pending | LinkState::LeftOut => Stands::Open,
        },
        None => Stands::Open,
    });
    let states: Vec<Stands> = states.collect();
    [Stands::Open, Stands::Not]
        .into_iter()
        .find(|one| states.contains(one))
        .unwrap_or(Stands::There)
}

/// Looks what became of the page that is on its way, and sends the next one if it arrived. Returns
/// whether something is on its way.
async fn send(
    ctx: &Ctx,
    provider: &dyn Accounting,
    connection: &Connection,
    backfill: &mut Backfill,
) -> Result<bool> {
    let now = ctx.now();
    if !backfill.flight.is_empty() {
        let flight = std::mem::take(&mut backfill.flight);
        let open = judge(ctx, provider, connection, backfill, &flight, None).await?;
        let since = backfill.flight_at.unwrap_or(now);
        if !open.is_empty() && now - since < FLIGHT_MAX {
            backfill.flight = open;
            return Ok(true);
        }
        backfill.failed += open.len() as u64;
    }
    for _ in 0..MESSAGE_PAGES_MAX {
        let day = backfill.day;
        let Some(items) = backfill.page(ctx, connection, PAGE_RECORDS_MAX).await? else {
            backfill.state = State::Done;
            return Ok(false);
        };
        let rows: Vec<Open> = items.iter().map(Item::read).collect::<Result<_>>()?;
        let open = judge(ctx, provider, connection, backfill, &rows, Some(day)).await?;
        if open.is_empty() {
            continue;
        }
        // What is summed is summed with all of its day, and not a page after the other.
        if connection.posting(day) == Posting::Daily {
            daily::ask_now(ctx, connection, day).await?;
        }
        let notices = open.iter().map(|open| Notice {
            backfill: Some(backfill.id.to_string()),
            ..again::notice(connection, &backfill.id, open.clone(), now)
        });
        again::send(ctx, &connection.provider, notices.collect()).await?;
        backfill.sent += open.len() as u64;
        backfill.sending_since.get_or_insert(now);
        backfill.flight = open;
        backfill.flight_at = Some(now);
        return Ok(true);
    }
    Ok(false)
}

/// Counts what of `rows` is dealt with, and returns the rest. With a `day`, what is no longer on that
/// day is passed over: it has a row on its own.
async fn judge(
    ctx: &Ctx,
    provider: &dyn Accounting,
    connection: &Connection,
    backfill: &mut Backfill,
    rows: &[Open],
    day: Option<NaiveDate>,
) -> Result<Vec<Open>> {
    let known = known::load(ctx, provider, connection, rows).await?;
    // What is gone counts as dealt with.
    backfill.done += (rows.len() - known.len()) as u64;
    let mut open = Vec::new();
    for one in known {
        let elsewhere = match (day, one.record.at()) {
            (Some(day), Some(at)) => at.date_naive() != day,
            _ => false,
        };
        if elsewhere {
            backfill.total = backfill.total.saturating_sub(1);
            continue;
        }
        match stands(&one, provider, connection) {
            Stands::There => backfill.done += 1,
            Stands::Not => backfill.failed += 1,
            Stands::Open => open.push(Open {
                record: one.target.record,
                order_id: one.target.order_id,
                code: None,
            }),
        }
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backfill(done: u64, failed: u64, seconds: i64) -> Backfill {
        let start = DateTime::UNIX_EPOCH;
        let day = start.date_naive();
        Backfill {
            id: EventId::ours(uuid::Uuid::nil()),
            from: day,
            to: day,
            state: State::Running,
            total: 1000,
            done,
            failed,
            sent: 0,
            step: 3,
            day,
            after: None,
            flight: Vec::new(),
            flight_at: None,
            sending_since: Some(start),
            started_at: start,
            updated_at: start + TimeDelta::seconds(seconds),
        }
    }

    #[test]
    fn the_end_is_told_only_where_it_is_known() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::seconds(60);
        let of = |one: &Backfill| one.estimate(Status::Live, now);
        // 100 in a minute, 900 left.
        let end = now + TimeDelta::minutes(9);
        assert_eq!(of(&backfill(90, 10, 60)), Estimate::At(end));
        assert_eq!(backfill(90, 10, 60).rate_per_minute(), Some(100_000));
        for unknown in [
            backfill(0, 0, 60),
            backfill(90, 10, 9),
            Backfill {
                state: State::Counting,
                ..backfill(90, 10, 60)
            },
            Backfill {
                state: State::Done,
                ..backfill(90, 10, 60)
            },
            Backfill {
                state: State::Stopped,
                ..backfill(90, 10, 60)
            },
            Backfill {
                sending_since: None,
                ..backfill(90, 10, 60)
            },
        ] {
            assert!(matches!(of(&unknown), Estimate::Unknown(_)), "{unknown:?}");
        }
        let paused = backfill(90, 10, 60).estimate(Status::Paused, now);
        assert!(matches!(paused, Estimate::Unknown(_)));
    }
}
