//! Daily summaries of one connection: made of the records of a day once it is over, and again when one
//! of those changes. A summary is a record like any other from then on: it has a revision that grows with
//! its content, rows in the ledger, and is pushed by the same code.
//!
//! What makes summaries is a message of the provider's queue. It stores them and then sends each that is
//! new to the same queue; if it dies in between, it comes again and finds what is still to be sent.
//!
//! Whoever puts a record into a summary writes its row in the ledger first, on condition that nobody set
//! out to post it by itself, as who posts it by itself does the other way round. So at one connection a
//! record is posted in one way, whatever clocks and settings said meanwhile.

use super::again;
use super::ledger::{self, RACE_ROUNDS_MAX, Row, RowName};
use super::push::{Kind, Record, Target};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::{EventType, RecordKind};
use crate::model::ids::{ConnectionId, EventId};
use crate::model::notice::{Notice, RecordRef, Summing};
use crate::model::order::Refund;
use crate::model::order_record::OrderRecord;
use crate::model::summary::{Summary, SummaryName, Sums, ends};
use crate::oauth::connection::{self, Connection, Posting};
use crate::providers::accounting::{Accounting, accounting};
use crate::store::{Condition, Item, Key, Write, keys, list_all};
use crate::sync::push::{Held, Link, Open, RowKind, RowRef};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How long after the end of a day its summaries are made: what was ordered before midnight is mostly
/// paid by then, and what cannot change once it is paid in the books need not.
pub const SETTLES_IN: TimeDelta = TimeDelta::hours(2);
/// How long changes are gathered before summaries are made anew.
const GATHER_SECONDS: u16 = 60;
/// The longest that a message can be held back, in seconds.
const DELAY_SECONDS_MAX: i64 = 900;
/// Records of a day that are read at once, and rows that are written side by side.
const CHUNK_RECORDS_MAX: usize = 200;
const SIDE_BY_SIDE_MAX: usize = 16;
/// Rows of a day that are listed at once.
const PAGE_ROWS_MAX: usize = 1000;
/// Most summaries of one day: a shop has a few channels and currencies.
const SUMMARIES_MAX: usize = 1000;

/// A summary as it is stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Made {
    pub summary: Summary,
    pub made_at: DateTime<Utc>,
}

/// How far the summaries of a day follow the changes of its records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Follows {
    /// Changes that asked for them to be made.
    changes: u64,
    /// How many of those had happened before they were made last.
    made: u64,
}

/// Reads the summary of `connection` that `record` names.
pub(super) async fn load(
    ctx: &Ctx,
    connection: &Connection,
    record: &RecordRef,
) -> Result<Option<Record>> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let key = keys::posted(merchant, id, record.kind, &record.id);
    let Some(item) = ctx.store.get(&key).await? else {
        return Ok(None);
    };
    let summary = item.read::<Made>()?.summary;
    let kind = match record.kind {
        RecordKind::Refund => Kind::refund(summary.refund(), None),
        _ => Kind::order(summary.order_record(item.rev)),
    };
    Ok(Some(Record {
        rev: item.rev,
        kind,
        summary: Some(Box::new(summary)),
    }))
}

/// Notes on its `row` that `record` belongs into the summary of this name. Returns whether that summary has
/// to be made anew, since it does not hold the record as it is now.
pub(super) async fn note(
    ctx: &Ctx,
    mut row: Row<'_>,
    name: &SummaryName,
    record: &Record,
    paid_back: bool,
) -> Result<bool> {
    let id = name.id();
    let mut busy = None;
    for _ in 0..RACE_ROUNDS_MAX {
        let noted = match row.link.sum_up(&id, record.rev, ctx.now()) {
            Some(link) => row.store(ctx, link).await,
            None => Ok(()),
        };
        match noted {
            Ok(()) => {
                // Without one, somebody set out to post it by itself, and goes on with that.
                let summed = row.link.summed.as_ref();
                let within =
                    |held: Held| held.record_rev >= record.rev && held.paid_back == paid_back;
                return Ok(summed
                    .is_some_and(|summed| summed.held.is_some_and(within) != record.is_settled()));
            }
            Err(error) if error.code() == Code::Busy => busy = Some(error),
            Err(error) => return Err(error),
        }
        row.reload(ctx).await?;
    }
    busy.map_or(Ok(false), Err)
}

/// Asks for the summaries of `day` to be made, since a record of it changed. Before the day is over
/// nothing has to be asked for: then they are made in any case.
pub(super) async fn ask(ctx: &Ctx, connection: &Connection, day: NaiveDate) -> Result<()> {
    if ctx.now() < ends(day) {
        return Ok(());
    }
    let changed = |follows: &Follows| Follows {
        changes: follows.changes + 1,
        ..*follows
    };
    let follows = follow(ctx, connection, day, changed).await?;
    send(ctx, connection, day, Some(follows.changes), GATHER_SECONDS).await
}

/// Asks for the summaries of `day` to be made at once, if it is over.
pub(super) async fn ask_now(ctx: &Ctx, connection: &Connection, day: NaiveDate) -> Result<()> {
    match ctx.now() < ends(day) {
        true => Ok(()),
        false => send(ctx, connection, day, None, 0).await,
    }
}

/// Asks for the summaries of `day`, if `connection` has any. Its schedule calls it once a day.
pub(super) async fn plan(ctx: &Ctx, connection: &Connection, day: NaiveDate) -> Result<()> {
    let summed = connection.posting(day) == Posting::Daily;
    match summed && again::check(connection).is_ok() {
        true => ask_now(ctx, connection, day).await,
        false => Ok(()),
    }
}

async fn send(
    ctx: &Ctx,
    connection: &Connection,
    day: NaiveDate,
    change: Option<u64>,
    delay_seconds: u16,
) -> Result<()> {
    let notice = Notice {
        merchant_id: connection.merchant_id.clone(),
        event_id: EventId::ours(ctx.uuid()),
        kind: EventType::ConnectionConnected,
        record: RecordRef {
            kind: RecordKind::Connection,
            id: connection.id.to_string(),
        },
        order_id: None,
        accepted_at: ctx.now(),
        after: None,
        resync: None,
        backfill: None,
        summing: Some(Summing { day, change }),
    };
    again::send_later(ctx, &connection.provider, vec![notice], delay_seconds).await
}

/// Changes how far the summaries of `day` follow.
async fn follow(
    ctx: &Ctx,
    connection: &Connection,
    day: NaiveDate,
    decide: impl Fn(&Follows) -> Follows,
) -> Result<Follows> {
    let key = keys::summing(&connection.merchant_id, &connection.id, day);
    let mut busy = None;
    for _ in 0..RACE_ROUNDS_MAX {
        let item = ctx.store.get(&key).await?;
        let condition = item
            .as_ref()
            .map_or(Condition::Absent, |item| Condition::Rev(item.rev));
        let held: Follows = item
            .map(|item| item.read())
            .transpose()?
            .unwrap_or_default();
        let decided = decide(&held);
        if decided == held {
            return Ok(held);
        }
        let write = Write::put(key.clone(), condition, &decided)?;
        match ctx.store.write(write).await.map_err(Error::from) {
            Ok(()) => return Ok(decided),
            Err(error) if error.code() == Code::Busy => busy = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(busy.unwrap_or_else(|| Error::internal("no round was tried")))
}

/// Makes the summaries that a message asks for.
pub(super) async fn step(ctx: &Ctx, provider: &dyn Accounting, notice: &Notice) -> Result<()> {
    let Some(Summing { day, change }) = notice.summing else {
        return Ok(());
    };
    let id: ConnectionId = notice.record.id.parse().map_err(Error::internal)?;
    let connection = match connection::load(ctx, &notice.merchant_id, &id).await {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if connection.provider != provider.manifest().name || again::check(&connection).is_err() {
        return Ok(());
    }
    let left = ends(day) + SETTLES_IN - ctx.now();
    if left > TimeDelta::zero() {
        let seconds = (left.num_seconds() + 1).min(DELAY_SECONDS_MAX);
        let delay = u16::try_from(seconds).unwrap_or(GATHER_SECONDS);
        return send(ctx, &connection, day, change, delay).await;
    }
    let follows = follow(ctx, &connection, day, |held| *held).await?;
    if change.is_some_and(|change| change <= follows.made) {
        return Ok(());
    }
    make(ctx, &connection, day).await?;
    follow(ctx, &connection, day, |held| Follows {
        made: held.made.max(follows.changes),
        ..*held
    })
    .await?;
    Ok(())
}

/// Makes the summaries of `day`, and sends those that are new.
async fn make(ctx: &Ctx, connection: &Connection, day: NaiveDate) -> Result<()> {
    let from = connection.settings.records_from;
    // The books of such a day are closed, and stay as they are.
    if from.is_some_and(|from| ends(day) <= from) {
        return Ok(());
    }
    let mut busy = None;
    for _ in 0..RACE_ROUNDS_MAX {
        match try_make(ctx, connection, day).await {
            Err(error) if error.code() == Code::Busy => busy = Some(error),
            outcome => return outcome,
        }
    }
    busy.map_or(Ok(()), Err)
}

/// One record of the day, with its row.
struct Found<'a> {
    row: Row<'a>,
    rev: u64,
    paid_back: bool,
    summary: RowRef,
    /// Whether the summary is to hold it.
    wanted: bool,
}

/// One summary as it is to be.
struct Wanted {
    summary: Summary,
    rev: u64,
    /// What has to hold when it is written; nothing where it stands there as it is to be.
    condition: Option<Condition>,
}

/// Fails with [`Code::Busy`] when somebody else was faster with any of it.
async fn try_make(ctx: &Ctx, connection: &Connection, day: NaiveDate) -> Result<()> {
    // Before the records: what is stored meanwhile was made of newer ones, and must not be written over.
    let stored = stored(ctx, connection, day).await?;
    let (found, sums) = add_up(ctx, connection, day).await?;
    let wanted = compare(stored, sums)?;
    let now = ctx.now();
    let changed = found.into_iter().filter_map(|one| {
        let rev = wanted.get(&one.summary).filter(|_| one.wanted);
        let rev = rev.map(|summary| summary.rev);
        let link = one
            .row
            .link
            .put_into(&one.summary.id, (one.rev, one.paid_back), rev, now)?;
        Some((one.row, link))
    });
    let mut changed: Vec<(Row, Link)> = changed.collect();
    for chunk in changed.chunks_mut(SIDE_BY_SIDE_MAX) {
        let written = chunk.iter_mut();
        let written: Vec<_> = written
            .map(|(row, link)| row.store(ctx, link.clone()))
            .collect();
        for stored in join_all(written).await {
            stored?;
        }
    }
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    for (row, wanted) in &wanted {
        let Some(condition) = wanted.condition else {
            continue;
        };
        let made = Made {
            summary: wanted.summary.clone(),
            made_at: now,
        };
        let key = keys::posted(merchant, id, row.owner().kind, &row.id);
        ctx.store.write(Write::put(key, condition, &made)?).await?;
        tracing::info!(
            merchant_id = %merchant, connection_id = %id, summary = %row.id,
            kind = row.kind.as_str(), orders = wanted.summary.count, "summed up"
        );
    }
    let rows: Vec<RowRef> = wanted.keys().cloned().collect();
    let links = super::known::links(ctx, connection, rows).await?;
    let event_id = EventId::ours(ctx.uuid());
    let behind = wanted.iter().filter(|(row, wanted)| {
        let link = links.get(row);
        link.is_none_or(|link| link.record_rev < wanted.rev)
    });
    let notices = behind.map(|(row, _)| {
        let open = again::with_order(row.owner(), None)?;
        Ok(again::notice(connection, &event_id, open, now))
    });
    let notices = notices.collect::<Result<Vec<_>>>()?;
    again::send(ctx, &connection.provider, notices).await
}

/// Everything that a shop told of a day, as far as it belongs into summaries of `connection`, and its sums.
async fn add_up<'a>(
    ctx: &Ctx,
    connection: &'a Connection,
    day: NaiveDate,
) -> Result<(Vec<Found<'a>>, BTreeMap<RowRef, Sums>)> {
    let mut found = Vec::new();
    let mut sums: BTreeMap<RowRef, Sums> = BTreeMap::new();
    let Some(provider) = accounting(&connection.provider) else {
        return Ok((found, sums));
    };
    let group = keys::day(&connection.merchant_id, day);
    let mut after = None;
    loop {
        let page = ledger::page(
            ctx,
            &group,
            &ledger::RECORDS,
            after.as_deref(),
            PAGE_ROWS_MAX,
        );
        let (items, next) = page.await?;
        let rows: Vec<Open> = items.iter().map(Item::read).collect::<Result<_>>()?;
        for chunk in rows.chunks(CHUNK_RECORDS_MAX) {
            for (row, record) in read(ctx, connection, chunk).await? {
                let Some(name) = record.summed_in(connection, &row.link) else {
                    continue;
                };
                if name.day != day {
                    continue;
                }
                let paid_back = record.paid_back(provider, connection);
                let wanted = record.is_settled() && !record.is_early(connection, &row.link);
                let summary = RowRef {
                    kind: row.name().row.kind,
                    id: name.id(),
                };
                if wanted {
                    let sums = sums
                        .entry(summary.clone())
                        .or_insert_with(|| Sums::new(name));
                    match &record.kind {
                        Kind::Order { record, received } => {
                            sums.add_order(record, received.as_deref());
                        }
                        Kind::Refund {
                            refund, record: of, ..
                        } => {
                            let order = of.as_ref().and_then(|of| of.order.as_ref());
                            sums.add_refund(paid_back.unwrap_or(refund), order);
                        }
                        // It is in no summary.
                        Kind::Payout(_) => {}
                    }
                }
                if wanted || row.link.summed.is_some() {
                    found.push(Found {
                        row,
                        rev: record.rev,
                        paid_back: paid_back.is_some(),
                        summary,
                        wanted,
                    });
                }
            }
        }
        after = next;
        if after.is_none() {
            return Ok((found, sums));
        }
    }
}

/// Reads the records that `chunk` names, with their rows.
async fn read<'a>(
    ctx: &Ctx,
    connection: &'a Connection,
    chunk: &[Open],
) -> Result<Vec<(Row<'a>, Record)>> {
    let merchant = &connection.merchant_id;
    let keys: Vec<Key> = chunk
        .iter()
        .map(|open| keys::record(merchant, open.record.kind, &open.record.id))
        .collect();
    let records = ctx.store.get_many(&keys).await?;
    // A refund with the order that it belongs to.
    let of_refunds = chunk
        .iter()
        .filter(|open| open.record.kind == RecordKind::Refund);
    let orders: Vec<_> = of_refunds
        .filter_map(|open| open.order_id.clone())
        .collect();
    let keys: Vec<Key> = orders.iter().map(|id| keys::order(merchant, id)).collect();
    let items = ctx.store.get_many(&keys).await?;
    let orders: BTreeMap<_, _> = orders.into_iter().zip(items).collect();
    let names: Vec<RowName> = chunk
        .iter()
        .map(|open| {
            RowName::of(&Target {
                merchant_id: merchant.clone(),
                record: open.record.clone(),
                order_id: open.order_id.clone(),
            })
        })
        .collect();
    let rows = Row::load_many(ctx, connection, &names).await?;
    let mut found = Vec::new();
    for ((open, item), row) in chunk.iter().zip(records).zip(rows) {
        let Some(item) = item else { continue };
        let kind = match open.record.kind {
            RecordKind::Refund => {
                let order = open.order_id.as_ref().and_then(|id| orders.get(id));
                let order = order
                    .and_then(Option::as_ref)
                    .map(Item::read::<OrderRecord>);
                Kind::refund(item.read::<Refund>()?, order.transpose()?)
            }
            _ => Kind::order(item.read()?),
        };
        let record = Record {
            rev: item.rev,
            kind,
            summary: None,
        };
        found.push((row, record));
    }
    Ok(found)
}

/// The summaries of a day as they are to be, beside what is stored of them. One of which nothing is left
/// is a summary of nothing.
fn compare(
    stored: Vec<(RowRef, Item)>,
    mut sums: BTreeMap<RowRef, Sums>,
) -> Result<BTreeMap<RowRef, Wanted>> {
    let mut wanted = BTreeMap::new();
    for (row, item) in stored {
        let held = item.read::<Made>()?.summary;
        let summary = sums
            .remove(&row)
            .unwrap_or_else(|| Sums::new(held.name.clone()))
            .summary();
        let same = summary == held;
        wanted.insert(
            row,
            Wanted {
                summary,
                rev: if same { item.rev } else { item.rev + 1 },
                condition: (!same).then_some(Condition::Rev(item.rev)),
            },
        );
    }
    let new = sums.into_iter().map(|(row, sums)| {
        let new = Wanted {
            summary: sums.summary(),
            rev: 1,
            condition: Some(Condition::Absent),
        };
        (row, new)
    });
    wanted.extend(new);
    Ok(wanted)
}

/// The summaries of `connection` that are stored of `day`, each with its row in the ledger.
pub(super) async fn stored(
    ctx: &Ctx,
    connection: &Connection,
    day: NaiveDate,
) -> Result<Vec<(RowRef, Item)>> {
    let group = keys::summaries(&connection.merchant_id, &connection.id, day);
    let items = list_all(&*ctx.store, &group, SUMMARIES_MAX).await?;
    let rows = items.into_iter().map(|item| {
        let row = ledger::row_at(keys::place(&item.key));
        let row = row.ok_or_else(|| Error::internal("a summary of no kind is stored"))?;
        Ok((row, item))
    });
    rows.collect()
}

/// The rows of the summaries in which records of `links` are posted, so that it can be told how those stand.
pub async fn rows_of<'l>(
    ctx: &Ctx,
    connection: &Connection,
    links: impl Iterator<Item = (RowKind, &'l Link)>,
) -> Result<BTreeMap<RowRef, Link>> {
    let rows = links.filter_map(|(kind, link)| link.summary(kind));
    let rows: BTreeSet<RowRef> = rows.collect();
    super::known::links(ctx, connection, rows.into_iter().collect()).await
}
