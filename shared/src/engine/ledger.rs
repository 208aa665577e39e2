//! The ledger: a row for each record at each provider. Everything that changes a row goes through
//! here, so that what hangs on a row changes with it.

use super::push::Target;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connection::Connection;
use crate::store::{Condition, Item, Key, Write, keys};
use crate::sync::push::{Link, LinkState, Problem};
use chrono::TimeDelta;

/// How often a record is taken up again at once when another function was writing its ledger row.
pub(super) const RACE_ROUNDS_MAX: usize = 4;

/// How long the queue keeps a message that failed before it comes again: the queues' visibility
/// timeout in the template, in seconds.
pub const RETRY_AFTER: TimeDelta = TimeDelta::seconds(720);

/// Which row of a connection: a kind (see [`Form::kind`](crate::sync::push::Form::kind)) and an id
/// within it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RowName {
    pub kind: &'static str,
    pub id: String,
}

impl RowName {
    /// The row of a record itself, where also stands that it waits.
    pub(super) fn of(target: &Target) -> RowName {
        RowName {
            kind: target.record.kind.as_str(),
            id: target.record.id.clone(),
        }
    }

    fn key(&self, connection: &Connection) -> Key {
        keys::link(&connection.merchant_id, &connection.id, self.kind, &self.id)
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

    /// Reads the row again, after somebody else was faster.
    pub(super) async fn reload(&mut self, ctx: &Ctx) -> Result<()> {
        *self = Row::load(ctx, self.connection, &self.name).await?;
        Ok(())
    }

    /// Writes `link` in place of what was read. Whoever comes second meets [`Code::Busy`] and starts
    /// again from what the first one wrote.
    pub(super) async fn store(&mut self, ctx: &Ctx, link: Link) -> Result<()> {
        let write = Write::put(self.key.clone(), self.condition, &link)?;
        ctx.store.write(write).await?;
        self.condition = match self.condition {
            Condition::Rev(rev) => Condition::Rev(rev + 1),
            _ => Condition::Rev(1),
        };
        self.link = link;
        if let (LinkState::Parked, Some(problem)) = (self.link.state, &self.link.problem) {
            tracing::warn!(
                merchant_id = %self.connection.merchant_id, connection_id = %self.connection.id,
                kind = self.name.kind, record = %self.name.id, code = %problem.code, "parked"
            );
        }
        Ok(())
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
    name: &RowName,
    rev: u64,
    error: &Error,
) {
    // Neither says anything about the record: another function is at work on it, or all of the
    // connection waits.
    if matches!(error.code(), Code::Busy | Code::ConnectionReauthRequired) {
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
            kind = name.kind, record = %name.id, error = %error.chain(), "the failure is not noted"
        );
    }
}
