//! The ledger: a row for each record at each provider. Everything that changes a row goes through
//! here, so that what hangs on a row changes with it: for what is troubled and for what waits a second
//! row stands in a group of its own, and is written and deleted in one transaction with the first. So
//! what is open is found without a walk over everything, and a push that goes well costs nothing more.

use super::push::Target;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connection::Connection;
use crate::store::{Condition, Key, Write, keys};
use crate::sync::push::{Link, LinkState, Open, Problem};
use chrono::TimeDelta;

/// How often a record is taken up again at once when another function was writing its ledger row.
pub(super) const RACE_ROUNDS_MAX: usize = 4;

/// How long the queue keeps a message that failed before it comes again: the queues' visibility
/// timeout in the template, in seconds.
pub const RETRY_AFTER: TimeDelta = TimeDelta::seconds(720);

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
    // Neither says anything about the record: another function is at work on it, or all of the
    // connection waits.
    if matches!(error.code(), Code::Busy | Code::ConnectionReauthRequired) {
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
