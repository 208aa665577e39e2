//! The ledger: a row for each record at each provider. Everything that changes a row goes through
//! here, so that what hangs on a row changes with it: for what is troubled and for what waits a second
//! row stands in a group of its own, and is written and deleted in one transaction with the first. So
//! what is open is found without a walk over everything, and a push that goes well costs nothing more.

use super::push::Target;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::RecordKind;
use crate::model::notice::RecordRef;
use crate::oauth::connection::Connection;
use crate::store::{Condition, Group, Item, Key, Write, keys};
use crate::sync::push::{Link, LinkState, Open, Problem};
use chrono::TimeDelta;

/// How often a record is taken up again at once when another function was writing its ledger row.
pub(super) const RACE_ROUNDS_MAX: usize = 4;

/// How long the queue keeps a message that failed before it comes again: the queues' visibility
/// timeout in the template, in seconds.
pub const RETRY_AFTER: TimeDelta = TimeDelta::seconds(720);

/// The kinds of records that are pushed one by one, in the order in which the ledger lists them.
pub const KINDS: [RecordKind; 2] = [RecordKind::Order, RecordKind::Refund];

/// A row as it was read, with what must still hold when it is written.
pub(super) struct Row<'a> {
    connection: &'a Connection,
    target: &'a Target,
    key: Key,
    condition: Condition,
    pub link: Link,
}

impl Row<'_> {
    /// Reads what `connection` knows of the record of `target`.
    pub(super) async fn load<'a>(
        ctx: &Ctx,
        connection: &'a Connection,
        target: &'a Target,
    ) -> Result<Row<'a>> {
        let (merchant, kind) = (&connection.merchant_id, target.record.kind.as_str());
        let key = keys::link(merchant, &connection.id, kind, &target.record.id);
        let (condition, link) = match ctx.store.get(&key).await? {
            Some(item) => (Condition::Rev(item.rev), item.read()?),
            None => (Condition::Absent, Link::default()),
        };
        Ok(Row {
            connection,
            target,
            key,
            condition,
            link,
        })
    }

    /// Writes `link` in place of what was read. Whoever comes second meets [`Code::Busy`] and starts
    /// again from what the first one wrote.
    pub(super) async fn store(&mut self, ctx: &Ctx, link: Link) -> Result<()> {
        let mut writes = vec![Write::put(self.key.clone(), self.condition, &link)?];
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let (kind, record) = (self.target.record.kind.as_str(), &self.target.record.id);
        let place = |group| keys::open(group, kind, record);
        writes.extend(turned(
            place(keys::troubled(merchant, id)),
            self.troubled(&self.link),
            self.troubled(&link),
        )?);
        writes.extend(turned(
            place(keys::waiting(merchant, id)),
            self.waiting(&self.link),
            self.waiting(&link),
        )?);
        // A single write costs half of a transaction of one, and a push that goes well has no other.
        match <[Write; 1]>::try_from(writes) {
            Ok([alone]) => ctx.store.write(alone).await?,
            Err(writes) => ctx.store.transact(writes).await?,
        }
        self.condition = match self.condition {
            Condition::Rev(rev) => Condition::Rev(rev + 1),
            _ => Condition::Rev(1),
        };
        self.link = link;
        if let (LinkState::Parked, Some(problem)) = (self.link.state, &self.link.problem) {
            tracing::warn!(
                merchant_id = %self.connection.merchant_id, connection_id = %self.connection.id,
                record = %self.target.record.id, code = %problem.code, "parked"
            );
        }
        Ok(())
    }

    /// What points to this row while something is wrong with `link`.
    fn troubled(&self, link: &Link) -> Option<Open> {
        let code = link.problem.as_ref()?.code.clone();
        Some(self.open(Some(code)))
    }

    /// What points to this row while `link` waits.
    fn waiting(&self, link: &Link) -> Option<Open> {
        link.waiting.as_ref().map(|_| self.open(None))
    }

    fn open(&self, code: Option<String>) -> Open {
        Open {
            record: self.target.record.clone(),
            order_id: self.target.order_id.clone(),
            code,
        }
    }
}

/// One page of the records of `group`, which is a connection's ledger or a group beside it, in the order
/// of `kind/id`: those of `kinds`, after the place `after`, at most `limit` of them. Returns them with the
/// place after which the next page begins; `None` when there is none. A page may be empty before the
/// end. What else the ledger holds, such as customers, is not read.
pub async fn page(
    ctx: &Ctx,
    group: &Group,
    kinds: &[RecordKind],
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Item>, Option<String>)> {
    let start = |kind: &RecordKind| format!("{}/", kind.as_str());
    let Some(after) = after.map(str::to_owned).or(kinds.first().map(start)) else {
        return Ok((Vec::new(), None));
    };
    let at = kinds
        .iter()
        .position(|kind| after.starts_with(&start(kind)));
    let at = at.ok_or_else(|| Error::internal("a page begins after a record of no kind"))?;
    let prefix = start(&kinds[at]);
    let cursor = keys::after_row(group, &after);
    let page = ctx.store.list(group, Some(&cursor), limit).await?;
    let mut items = page.items;
    let read = items.len();
    items.retain(|item| keys::place(&item.key).starts_with(&prefix));
    let ended = items.len() < read || page.next.is_none();
    let next = match (ended, items.last()) {
        (false, Some(last)) => Some(keys::place(&last.key).to_owned()),
        _ => kinds.get(at + 1).map(start),
    };
    Ok((items, next))
}

/// The record that stands at a place of the ledger, if it is one of [`KINDS`].
pub fn record_at(place: &str) -> Option<RecordRef> {
    let (name, id) = place.split_once('/')?;
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == name)?;
    let id = id.to_owned();
    Some(RecordRef { kind, id })
}

/// The keys of the rows of `records` at `connection`.
pub fn rows(connection: &Connection, records: &[RecordRef]) -> Vec<Key> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let row = |record: &RecordRef| keys::link(merchant, id, record.kind.as_str(), &record.id);
    records.iter().map(row).collect()
}

/// Writes what should point to the rows of `targets` and does not: rows that are older than what points
/// to them have nothing that does.
pub(super) async fn mend(ctx: &Ctx, connection: &Connection, targets: &[Target]) -> Result<()> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let mut places = Vec::new();
    for Target { record, .. } in targets {
        for group in [keys::troubled(merchant, id), keys::waiting(merchant, id)] {
            places.push(keys::open(group, record.kind.as_str(), &record.id));
        }
    }
    let found = ctx.store.get_many(&places).await?;
    for (target, found) in targets.iter().zip(found.chunks(2)) {
        let row = Row::load(ctx, connection, target).await?;
        let open = [row.troubled(&row.link), row.waiting(&row.link)];
        let mut writes = vec![Write::put(row.key.clone(), row.condition, &row.link)?];
        for ((group, open), found) in [keys::troubled(merchant, id), keys::waiting(merchant, id)]
            .into_iter()
            .zip(open)
            .zip(found)
        {
            let key = keys::open(group, target.record.kind.as_str(), &target.record.id);
            if found.is_none() {
                writes.extend(turned(key, None, open)?);
            }
        }
        if writes.len() > 1 {
            ctx.store.transact(writes).await?;
        }
    }
    Ok(())
}

/// What becomes of the row at `key` that points to a row of the ledger. It is written whatever stands
/// there: that the ledger's own row is as it was read guards both.
fn turned(key: Key, before: Option<Open>, after: Option<Open>) -> Result<Option<Write>> {
    let condition = Condition::Any;
    match (before, after) {
        (before, after) if before == after => Ok(None),
        (_, Some(open)) => Write::put(key, condition, &open).map(Some),
        (_, None) => Ok(Some(Write::Delete { key, condition })),
    }
}

/// Changes a row without a call to the provider; `None` leaves it as it is. When somebody else was
/// faster, it is read and decided again.
pub(super) async fn change(
    ctx: &Ctx,
    connection: &Connection,
    target: &Target,
    decide: impl Fn(&Link) -> Option<Link>,
) -> Result<()> {
    let mut busy = None;
    for _ in 0..RACE_ROUNDS_MAX {
        let mut row = Row::load(ctx, connection, target).await?;
        let Some(changed) = decide(&row.link) else {
            return Ok(());
        };
        match row.store(ctx, changed).await {
            Err(error) if error.code() == Code::Busy => busy = Some(error),
            outcome => return outcome,
        }
    }
    busy.map_or(Ok(()), Err)
}

/// Shows a refusal of revision `rev` of the record. The message is then done: trying again would
/// change nothing.
pub(super) async fn park(
    ctx: &Ctx,
    connection: &Connection,
    target: &Target,
    rev: u64,
    problem: Problem,
) -> Result<()> {
    change(ctx, connection, target, |link| {
        // Somebody with a newer record is at work, and what is wrong with the older one is of no matter.
        (link.record_rev <= rev).then(|| link.park(problem.clone(), rev, ctx.now()))
    })
    .await
}

/// Shows that a try to push revision `rev` of the record ended with `error`, after which the queue
/// brings it again. The message goes back in any case, so a note that cannot be written is only logged.
pub(super) async fn fail(
    ctx: &Ctx,
    connection: &Connection,
    target: &Target,
    rev: u64,
    error: &Error,
) {
    // Neither says anything about the record: another function is at work on it, all of the connection
    // waits, or the provider takes no more calls for now.
    let postponed = error.retry_after().is_some();
    if postponed || matches!(error.code(), Code::Busy | Code::ConnectionReauthRequired) {
        return;
    }
    let problem = Problem {
        code: error.code().as_str().to_owned(),
        detail: error.detail().to_owned(),
    };
    let noted = change(ctx, connection, target, |link| {
        let now = ctx.now();
        link.fail(problem.clone(), rev, now + RETRY_AFTER, now)
    });
    if let Err(error) = noted.await {
        tracing::warn!(
            merchant_id = %connection.merchant_id, connection_id = %connection.id,
            record = %target.record.id, error = %error.chain(), "the failure is not noted"
        );
    }
}
