//! Reading a connection's records again, those of a window or all that its ledger knows, and pushing
//! what differs from what is known to stand at the provider.
//!
//! It is a walk over the ledger, a page for each message. A page's records go to the queue, each by
//! itself; then the walk's own row moves on, on condition that it stood where this message begins; then
//! the next message is sent. So the row counts each page once, however often a message comes, and a
//! walk that came twice ends where the other has passed.

use super::again;
use super::ledger;
use super::push::Target;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind};
use crate::model::ids::{ConnectionId, EventId};
use crate::model::notice::{Notice, RecordRef};
use crate::model::order::Refund;
use crate::model::order_record::OrderRecord;
use crate::model::payout::PayoutRecord;
use crate::model::summary::SummaryName;
use crate::oauth::connection::{self, Connection};
use crate::providers::accounting::Accounting;
use crate::store::{Condition, Item, Write, WriteError, keys};
use crate::sync::push::Link;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Rows of the ledger that one message looks at, and the seconds until the next one looks at more: a
/// long walk leaves room for what happens meanwhile.
const PAGE_ROWS_MAX: usize = 200;
const PAUSE_SECONDS: u16 = 5;
/// After how long without a step the next step is sent once more: longer than the time from moving the
/// row on to sending the message, and than [`PAUSE_SECONDS`].
const STANDSTILL: TimeDelta = TimeDelta::seconds(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// Every record of the window was sent.
    Done,
    /// The connection was given up meanwhile.
    Stopped,
}

/// The last resync of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resync {
    pub id: EventId,
    /// Orders placed, refunds made and payouts paid from this time on.
    pub from: Option<DateTime<Utc>>,
    /// And before this time.
    pub until: Option<DateTime<Utc>>,
    pub state: State,
    /// Records of the ledger that were looked at, and those of them that were sent.
    pub looked: u64,
    pub sent: u64,
    /// The place in the ledger after which it goes on.
    pub after: Option<String>,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// The last resync of `connection`, with the condition on which it is replaced.
async fn held(ctx: &Ctx, connection: &Connection) -> Result<(Condition, Option<Resync>)> {
    let key = keys::resync(&connection.merchant_id, &connection.id);
    Ok(match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), Some(item.read()?)),
        None => (Condition::Absent, None),
    })
}

/// The last resync of `connection`.
pub async fn last(ctx: &Ctx, connection: &Connection) -> Result<Resync> {
    let (_, held) = held(ctx, connection).await?;
    held.ok_or_else(|| Error::not_found(format!("a resync of connection {}", connection.id)))
}

/// Begins a resync of what lies between `from` and `until`. One of the same window that is under way is
/// carried on instead.
pub async fn start(
    ctx: &Ctx,
    connection: &Connection,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Result<Resync> {
    again::check(connection)?;
    let now = ctx.now();
    let (condition, held) = held(ctx, connection).await?;
    let running = held.filter(|resync| resync.state == State::Running);
    if let Some(running) = running {
        if (running.from, running.until) != (from, until) {
            return Err(Error::new(
                Code::Conflict,
                "a resync of another window is under way; wait until it is done",
            ));
        }
        if now - running.updated_at >= STANDSTILL {
            go_on(ctx, connection, &running, 0).await?;
        }
        return Ok(running);
    }
    let resync = Resync {
        id: EventId::ours(ctx.uuid()),
        from,
        until,
        state: State::Running,
        looked: 0,
        sent: 0,
        after: None,
        started_at: now,
        updated_at: now,
    };
    let key = keys::resync(&connection.merchant_id, &connection.id);
    ctx.store
        .write(Write::put(key, condition, &resync)?)
        .await?;
    go_on(ctx, connection, &resync, 0).await?;
    Ok(resync)
}

/// Sends the message with which `resync` goes on.
async fn go_on(
    ctx: &Ctx,
    connection: &Connection,
    resync: &Resync,
    delay_seconds: u16,
) -> Result<()> {
    let notice = Notice {
        merchant_id: connection.merchant_id.clone(),
        event_id: resync.id.clone(),
        kind: EventType::ConnectionConnected,
        record: RecordRef {
            kind: RecordKind::Connection,
            id: connection.id.to_string(),
        },
        order_id: None,
        accepted_at: resync.started_at,
        after: resync.after.clone(),
        resync: Some(resync.id.to_string()),
        backfill: None,
        summing: None,
    };
    again::send_later(ctx, &connection.provider, vec![notice], delay_seconds).await
}

/// One page of a resync.
pub(super) async fn step(ctx: &Ctx, provider: &dyn Accounting, notice: &Notice) -> Result<()> {
    let id: ConnectionId = notice.record.id.parse().map_err(Error::internal)?;
    let connection = match connection::load(ctx, &notice.merchant_id, &id).await {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (condition, held) = held(ctx, &connection).await?;
    let named = |resync: &Resync| Some(resync.id.as_str()) == notice.resync.as_deref();
    let running = held.filter(|resync| named(resync) && resync.state == State::Running);
    let Some(mut resync) = running.filter(|_| connection.provider == provider.manifest().name)
    else {
        return Ok(());
    };
    let now = ctx.now();
    let group = keys::ledger(&connection.merchant_id, &id);
    let after = notice.after.as_deref();
    let page = ledger::page(ctx, &group, &ledger::RECORDS, after, PAGE_ROWS_MAX);
    let (items, next) = page.await?;
    if resync.after != notice.after {
        // This page was counted. Whoever did may have died before it sent the next message, and is
        // then the one who is here again.
        if resync.after == next && now - resync.updated_at >= STANDSTILL {
            return go_on(ctx, &connection, &resync, 0).await;
        }
        return Ok(());
    }
    if again::check(&connection).is_err() {
        resync.state = State::Stopped;
    } else {
        resync.looked += items.len() as u64;
        resync.sent += send_page(ctx, &connection, &resync, &items).await?;
        if next.is_none() {
            resync.state = State::Done;
        }
        resync.after = next;
    }
    resync.updated_at = now;
    let key = keys::resync(&connection.merchant_id, &id);
    match ctx.store.write(Write::put(key, condition, &resync)?).await {
        Ok(()) => {}
        // The same message is at work elsewhere.
        Err(WriteError::Condition(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match resync.state {
        State::Running => go_on(ctx, &connection, &resync, PAUSE_SECONDS).await,
        State::Done | State::Stopped => Ok(()),
    }
}

/// Sends those of a page's records that lie in the window, and mends what points to them. Returns how
/// many were sent.
async fn send_page(
    ctx: &Ctx,
    connection: &Connection,
    resync: &Resync,
    items: &[Item],
) -> Result<u64> {
    let mut records = Vec::new();
    let mut open = Vec::new();
    for item in items {
        let Some(row) = ledger::row_at(keys::place(&item.key)) else {
            continue;
        };
        let link: Link = item.read()?;
        open.push(link.problem.is_some() || link.waiting.is_some());
        records.push(row.owner());
    }
    let documents = records.iter().map(|record| {
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        keys::posted(merchant, id, record.kind, &record.id)
    });
    let documents = ctx.store.get_many(&documents.collect::<Vec<_>>()).await?;
    let (mut notices, mut troubled) = (Vec::new(), Vec::new());
    for ((record, document), open) in records.into_iter().zip(&documents).zip(open) {
        let Some(document) = document else {
            continue;
        };
        let summary = SummaryName::parse(&record.id);
        let at = match record.kind {
            _ if summary.is_some() => summary.map(|name| name.at()),
            RecordKind::Refund => Some(document.read::<Refund>()?.refunded_at),
            RecordKind::Payout => {
                let payout = document.read::<PayoutRecord>()?.payout;
                payout.map(|payout| payout.paid_at)
            }
            _ => document
                .read::<OrderRecord>()?
                .order
                .map(|order| order.placed_at),
        };
        let brought = again::with_order(record, Some(document))?;
        if open {
            troubled.push(Target {
                merchant_id: connection.merchant_id.clone(),
                record: brought.record.clone(),
                order_id: brought.order_id.clone(),
            });
        }
        let late = resync
            .from
            .is_none_or(|from| at.is_some_and(|at| at >= from));
        let early = resync
            .until
            .is_none_or(|until| at.is_some_and(|at| at < until));
        if late && early {
            notices.push(again::notice(connection, &resync.id, brought, ctx.now()));
        }
    }
    ledger::mend(ctx, connection, &troubled).await?;
    let sent = notices.len() as u64;
    again::send(ctx, &connection.provider, notices).await?;
    Ok(sent)
}
