//! The ledger: a row for each record at each provider. Everything that changes a row goes through
//! here, so that what hangs on a row changes with it: for what is troubled and for what waits a second
//! row stands in a group of its own, and is written and deleted in one transaction with the first. So
//! what is open is found without a walk over everything, and a push that goes well costs nothing more.

use super::push::Target;
use super::two_ways::Theirs;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::RecordId;
use crate::oauth::connection::Connection;
use crate::providers::accounting::accounting;
use crate::store::{Condition, Group, Item, Key, Write, keys};
use crate::sync::push::{Link, LinkState, Open, Problem, RowKind, RowRef};
use chrono::TimeDelta;

/// How often a record is taken up again at once when another function was writing its ledger row.
pub(super) const RACE_ROUNDS_MAX: usize = 4;

/// How long the queue keeps a message that failed before it comes again: the queues' visibility
/// timeout in the template, in seconds.
pub const RETRY_AFTER: TimeDelta = TimeDelta::seconds(720);

/// The kinds of rows that documents have, in the order in which the ledger lists them.
pub const KINDS: [RowKind; 6] = RowKind::ALL;

/// Those of them that stand for a record of the shop; the others belong to one of these.
pub const RECORDS: [RowKind; 3] = [RowKind::Order, RowKind::Refund, RowKind::Payout];

/// Which row of a connection, with what it takes to come back to its record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowName {
    pub row: RowRef,
    /// The order that the record belongs to, if any.
    pub order_id: Option<RecordId>,
}

impl RowName {
    /// The row of a record itself, where also stands that it waits.
    pub(super) fn of(target: &Target) -> RowName {
        RowName {
            row: RowRef::of(&target.record),
            order_id: target.order_id.clone(),
        }
    }

    pub(super) fn theirs(&self) -> Theirs {
        Theirs {
            kind: self.row.kind.as_str().to_owned(),
            id: self.row.id.clone(),
            order_id: self.order_id.clone(),
        }
    }

    fn key(&self, connection: &Connection) -> Key {
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        keys::link(merchant, id, self.row.kind.as_str(), &self.row.id)
    }
}

/// A row as it was read, with what must still hold when it is written.
pub(super) struct Row<'a> {
    connection: &'a Connection,
    name: RowName,
    key: Key,
    condition: Condition,
    pub link: Link,
}

impl Row<'_> {
    fn read<'a>(connection: &'a Connection, name: &RowName, item: Option<Item>) -> Result<Row<'a>> {
        let (condition, link) = match item {
            Some(item) => (Condition::Rev(item.rev), item.read()?),
            None => (Condition::Absent, Link::default()),
        };
        Ok(Row {
            connection,
            name: name.clone(),
            key: name.key(connection),
            condition,
            link,
        })
    }

    /// Reads what `connection` knows under `name`.
    pub(super) async fn load<'a>(
        ctx: &Ctx,
        connection: &'a Connection,
        name: &RowName,
    ) -> Result<Row<'a>> {
        let item = ctx.store.get(&name.key(connection)).await?;
        Row::read(connection, name, item)
    }

    /// Reads many rows, in the order of `names`.
    pub(super) async fn load_many<'a>(
        ctx: &Ctx,
        connection: &'a Connection,
        names: &[RowName],
    ) -> Result<Vec<Row<'a>>> {
        let keys: Vec<Key> = names.iter().map(|name| name.key(connection)).collect();
        let items = ctx.store.get_many(&keys).await?;
        let rows = names.iter().zip(items);
        rows.map(|(name, item)| Row::read(connection, name, item))
            .collect()
    }

    pub(super) fn name(&self) -> &RowName {
        &self.name
    }

    /// Reads the row again, after somebody else was faster.
    pub(super) async fn reload(&mut self, ctx: &Ctx) -> Result<()> {
        *self = Row::load(ctx, self.connection, &self.name).await?;
        Ok(())
    }

    /// Writes `link` in place of what was read. Whoever comes second meets [`Code::Busy`] and starts
    /// again from what the first one wrote.
    pub(super) async fn store(&mut self, ctx: &Ctx, link: Link) -> Result<()> {
        self.store_with(ctx, link, Vec::new()).await
    }

    /// The same, with `more` in the same transaction.
    pub(super) async fn store_with(
        &mut self,
        ctx: &Ctx,
        link: Link,
        more: Vec<Write>,
    ) -> Result<()> {
        self.name_theirs(ctx, &link).await?;
        let mut writes = vec![Write::put(self.key.clone(), self.condition, &link)?];
        writes.extend(more);
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let RowRef { kind, id: row } = &self.name.row;
        let place = |group| keys::open(group, kind.as_str(), row);
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
                kind = self.name.row.kind.as_str(), record = %self.name.row.id, code = %problem.code, "parked"
            );
        }
        Ok(())
    }

    /// Writes down which row the provider's id in `link` belongs to, before the row itself, so that no
    /// id of ours is ever taken for a stranger's. That it stands there and the row does not does no harm.
    async fn name_theirs(&self, ctx: &Ctx, link: &Link) -> Result<()> {
        let (Some(remote), Some(form)) = (&link.remote, link.form) else {
            return Ok(());
        };
        let held = self.link.remote.as_ref();
        if held.is_some_and(|held| held.id == remote.id) {
            return Ok(());
        }
        let Some(provider) = accounting(&self.connection.provider) else {
            return Ok(());
        };
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let key = keys::theirs(merchant, id, provider.changes().kind_of(form), &remote.id);
        let theirs = self.name.theirs();
        let write = Write::put(key, Condition::Any, &theirs)?;
        ctx.store.write(write).await.map_err(Error::from)
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
            record: self.name.row.owner(),
            order_id: self.name.order_id.clone(),
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
    kinds: &[RowKind],
    after: Option<&str>,
    limit: usize,
) -> Result<(Vec<Item>, Option<String>)> {
    let start = |kind: &RowKind| format!("{}/", kind.as_str());
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

/// The row that stands at a place of the ledger, if it is of one of [`KINDS`].
pub fn row_at(place: &str) -> Option<RowRef> {
    let (name, id) = place.split_once('/')?;
    let kind = KINDS.into_iter().find(|kind| kind.as_str() == name)?;
    let id = id.to_owned();
    Some(RowRef { kind, id })
}

/// The keys of `rows` at `connection`.
pub fn rows(connection: &Connection, rows: &[RowRef]) -> Vec<Key> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let key = |row: &RowRef| keys::link(merchant, id, row.kind.as_str(), &row.id);
    rows.iter().map(key).collect()
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
        let row = Row::load(ctx, connection, &RowName::of(target)).await?;
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
    name: &RowName,
    decide: impl Fn(&Link) -> Option<Link>,
) -> Result<()> {
    let mut busy = None;
    for _ in 0..RACE_ROUNDS_MAX {
        let mut row = Row::load(ctx, connection, name).await?;
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
    name: &RowName,
    rev: u64,
    problem: Problem,
) -> Result<()> {
    change(ctx, connection, name, |link| {
        // Somebody with a newer record is at work, and what is wrong with the older one is of no matter;
        // and what was taken away at the provider has a reason already.
        let gone = link.gone.is_some();
        (link.record_rev <= rev && !gone).then(|| link.park(problem.clone(), rev, ctx.now()))
    })
    .await
}

/// Shows that a try to push revision `rev` of the record ended with `error`, after which the queue
/// brings it again. The message goes back in any case, so a note that cannot be written is only logged.
pub(super) async fn fail(
    ctx: &Ctx,
    connection: &Connection,
    name: &RowName,
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
    let noted = change(ctx, connection, name, |link| {
        let now = ctx.now();
        link.fail(problem.clone(), rev, now + RETRY_AFTER, now)
    });
    if let Err(error) = noted.await {
        tracing::warn!(
            merchant_id = %connection.merchant_id, connection_id = %connection.id,
            kind = name.row.kind.as_str(), record = %name.row.id, error = %error.chain(), "the failure is not noted"
        );
    }
}
