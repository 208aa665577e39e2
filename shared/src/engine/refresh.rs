//! The schedule of renewals: every minute, what is due goes to a queue, and from there each connection
//! is renewed by itself.
//!
//! Each connection with tokens to renew has a row in the minute in which it is due; the change that
//! moves the time moves the row. So a minute is read with as many pages as it has connections, and
//! nothing else is read at all.

use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connection::{self, Along, Decision, Due, minute_of};
use crate::oauth::give_back::give_back_stale;
use crate::oauth::setup::Setup;
use crate::oauth::tokens::{self, Need};
use crate::queue::Message;
use crate::store::{Condition, Item, Write, WriteError, keys, list_all};
use chrono::TimeDelta;
use futures::future::{FutureExt, join_all};
use serde::{Deserialize, Serialize};
use std::panic::AssertUnwindSafe;

/// Rows of one page of a minute.
const PAGE_ROWS_MAX: usize = 500;
/// Connections of one message, which are renewed side by side.
const MESSAGE_CONNECTIONS_MAX: usize = 10;
/// Minutes that one run hands out at most; after a long pause the next run goes on. So few that none of
/// them is taken for long over in the same run.
const RUN_MINUTES_MAX: i64 = LOST_MINUTES - AGAIN_MINUTES;
/// Where the very first run begins, in minutes before now.
const FIRST_MINUTES: i64 = RUN_MINUTES_MAX;
/// So many minutes are read again in each run. A row stands in its minute until its connection is
/// renewed, so what is found there was lost on its way, or was put there by a function whose clock is
/// slow.
const AGAIN_MINUTES: i64 = 15;
/// By then the message of a renewal has ended in the dead-letter queue, if it has not ended well: it is
/// received five times, nine minutes apart.
const LOST_MINUTES: i64 = 60;
/// A category that is switched off is looked at again after this.
const SWITCHED_OFF: TimeDelta = TimeDelta::days(1);
/// A connection whose renewal failed before the provider was asked is looked at again after this.
const SOON: TimeDelta = TimeDelta::minutes(5);

/// "These connections are due."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueNotice {
    pub due: Vec<Due>,
}

/// The first minute that was not yet handed out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cursor {
    minute: i64,
}

/// Hands out everything that was due in minutes that are over, and returns how many connections that
/// were. Two runs at once hand out the same twice, which does no harm: the second renewal finds newer
/// tokens.
pub async fn plan(ctx: &Ctx) -> Result<usize> {
    let now = minute_of(ctx.now());
    let key = keys::due_cursor();
    let held = ctx.store.get(&key).await?;
    let (condition, from) = match &held {
        None => (Condition::Absent, now - FIRST_MINUTES),
        Some(item) => (Condition::Rev(item.rev), item.read::<Cursor>()?.minute),
    };
    let until = now.min(from + RUN_MINUTES_MAX);
    let mut count = 0;
    for minute in from.min(until) - AGAIN_MINUTES..until {
        count += hand_out(ctx, minute).await?;
    }
    // Each minute is read once more when all that was handed out for it must have come to an end.
    for minute in from.min(until) - LOST_MINUTES..until - LOST_MINUTES {
        take_up(ctx, minute).await?;
    }
    let next = Cursor { minute: until };
    match ctx.store.write(Write::put(key, condition, &next)?).await {
        Ok(()) | Err(WriteError::Condition(_)) => Ok(count),
        Err(error) => Err(error.into()),
    }
}

async fn hand_out(ctx: &Ctx, minute: i64) -> Result<usize> {
    let group = keys::due(minute);
    let mut after = None;
    let mut count = 0;
    loop {
        let page = ctx
            .store
            .list(&group, after.as_deref(), PAGE_ROWS_MAX)
            .await?;
        let rows: Vec<Due> = page.items.iter().map(Item::read).collect::<Result<_>>()?;
        let (on, off): (Vec<Due>, Vec<Due>) = rows
            .into_iter()
            .partition(|due| ctx.config.enabled(due.category).is_ok());
        for due in off {
            put_off(ctx, &due, SWITCHED_OFF).await?;
        }
        count += on.len();
        let notices: Vec<DueNotice> = on
            .chunks(MESSAGE_CONNECTIONS_MAX)
            .map(|due| DueNotice { due: due.to_vec() })
            .collect();
        send(ctx, &notices).await?;
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

/// Lets what still stands in a minute that is long over come due again: its message was lost. Otherwise
/// nobody would look at that minute again, and the connection would end.
async fn take_up(ctx: &Ctx, minute: i64) -> Result<()> {
    let rows = list_all(&*ctx.store, &keys::due(minute), usize::MAX).await?;
    for row in rows {
        let due: Due = row.read()?;
        tracing::warn!(
            merchant_id = %due.merchant_id, connection_id = %due.connection_id,
            "a renewal was lost on its way"
        );
        // What stands in the way of one must not stop the schedule of all.
        if let Err(error) = put_off(ctx, &due, SOON).await {
            tracing::error!(
                merchant_id = %due.merchant_id, connection_id = %due.connection_id,
                error = %error.chain(), "handed out again"
            );
            let notice = DueNotice { due: vec![due] };
            send(ctx, &[notice]).await?;
        }
    }
    Ok(())
}

/// Sends each notice to the queue, spread over the minute, so that a provider does not meet all at once.
async fn send(ctx: &Ctx, notices: &[DueNotice]) -> Result<()> {
    if notices.is_empty() {
        return Ok(());
    }
    let messages = notices.iter().map(|notice| {
        Ok(Message {
            body: serde_json::to_string(notice).map_err(Error::internal)?,
            delay_seconds: u16::from(ctx.random::<1>()[0]) * 60 / 256,
            group: None,
        })
    });
    let messages = messages.collect::<Result<Vec<Message>>>()?;
    ctx.queue
        .send_later(ctx.config.refresh_queue()?, messages)
        .await
}

/// Lets a connection that is still due come due again later; one that was noted already is left alone.
async fn put_off(ctx: &Ctx, due: &Due, by: TimeDelta) -> Result<()> {
    let now = ctx.now();
    let moved = connection::change(ctx, &due.merchant_id, &due.connection_id, |current| {
        let same = current.generation() == due.generation && current.status.holds_tokens();
        if !same || current.next_refresh_at.is_none_or(|at| at > now) {
            return Ok(Decision::Leave(()));
        }
        current.next_refresh_at = Some(now + by);
        Ok(Decision::Store(Along::default(), ()))
    });
    match moved.await {
        Err(error) if error.code() != Code::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renews the connections of one message side by side. What fails is noted at its connection, which
/// comes due again soon, so the message is done; only what could not even be noted goes back to the
/// queue.
pub async fn renew(ctx: &Ctx, notice: &DueNotice) -> Result<()> {
    let renewals = notice.due.iter().map(|due| async move {
        // Whatever one provider answers, the others of this message must not pay for it.
        let renewed = AssertUnwindSafe(renew_one(ctx, due)).catch_unwind().await;
        let renewed = renewed.unwrap_or_else(|_| Err(Error::internal("the renewal panicked")));
        let Err(error) = renewed else {
            tracing::info!(
                merchant_id = %due.merchant_id, connection_id = %due.connection_id, "renewed"
            );
            return Ok(());
        };
        tracing::warn!(
            merchant_id = %due.merchant_id, connection_id = %due.connection_id,
            error = %error.chain(), "not renewed"
        );
        put_off(ctx, due, SOON).await
    });
    join_all(renewals).await.into_iter().collect()
}

async fn renew_one(ctx: &Ctx, due: &Due) -> Result<()> {
    let (merchant, id) = (&due.merchant_id, &due.connection_id);
    let connection = match connection::load(ctx, merchant, id).await {
        Ok((_, connection)) => connection,
        // It went away since.
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if connection.generation() != due.generation || !connection.status.holds_tokens() {
        return Ok(());
    }
    ctx.config.enabled(connection.category)?;
    let setup = Setup::of(ctx, connection.provider()?).await?;
    give_back_stale(ctx, &setup, &connection).await?;
    let need = Need::Newer(due.generation);
    let (connection, grant) = tokens::access(ctx, &setup, merchant, id, need).await?;
    tokens::still_reaches(ctx, &setup, &connection, &grant).await
}
