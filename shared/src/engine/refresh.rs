//! The schedule of renewals: every minute, what is due goes to a queue, and from there each connection
//! is renewed by itself.
//!
//! Each connection with tokens to renew has a row in the minute in which it is due; the change that
//! moves the time moves the row. So a minute is read with as many pages as it has connections, and
//! nothing else is read at all.

use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::oauth::connection::{self, Along, Decision, Due, minute_of};
use crate::oauth::tokens::{self, Need, Setup};
use crate::queue::Message;
use crate::store::{Condition, Item, Write, WriteError, keys};
use chrono::TimeDelta;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

/// Rows of one page of a minute.
const PAGE_ROWS_MAX: usize = 500;
/// Connections of one message, which are renewed side by side.
const MESSAGE_CONNECTIONS_MAX: usize = 10;
/// Minutes that one run hands out at most; after a long pause the next run goes on.
const RUN_MINUTES_MAX: i64 = 240;
/// Where the very first run begins, in minutes before now.
const FIRST_MINUTES: i64 = 60;
/// A category that is switched off is looked at again after this.
const SWITCHED_OFF: TimeDelta = TimeDelta::days(1);

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
    for minute in from..until {
        count += hand_out(ctx, minute).await?;
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
            put_off(ctx, &due).await?;
        }
        count += on.len();
        let messages = on.chunks(MESSAGE_CONNECTIONS_MAX).map(|due| {
            let notice = DueNotice { due: due.to_vec() };
            Ok(Message {
                body: serde_json::to_string(&notice).map_err(Error::internal)?,
                // Spread over the minute, so that a provider does not meet all at once.
                delay_seconds: u16::from(ctx.random::<1>()[0]) * 60 / 256,
            })
        });
        let messages = messages.collect::<Result<Vec<Message>>>()?;
        if !messages.is_empty() {
            ctx.queue
                .send_later(ctx.config.refresh_queue()?, messages)
                .await?;
        }
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

async fn put_off(ctx: &Ctx, due: &Due) -> Result<()> {
    let later = ctx.now() + SWITCHED_OFF;
    let moved = connection::change(ctx, &due.merchant_id, &due.connection_id, |current| {
        current.next_refresh_at = Some(later);
        Ok(Decision::Store(Along::default(), ()))
    });
    match moved.await {
        Err(error) if error.code() != Code::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Renews the connections of one message side by side. What fails is noted at its connection and comes
/// due again soon, so the message is done in any case.
pub async fn renew(ctx: &Ctx, notice: &DueNotice) {
    join_all(notice.due.iter().map(|due| async move {
        match renew_one(ctx, due).await {
            Ok(()) => {
                tracing::info!(
                    merchant_id = %due.merchant_id, connection_id = %due.connection_id, "renewed"
                );
            }
            Err(error) => {
                tracing::warn!(
                    merchant_id = %due.merchant_id, connection_id = %due.connection_id,
                    error = %error.chain(), "not renewed"
                );
            }
        }
    }))
    .await;
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
    tokens::access(ctx, &setup, merchant, id, Need::Newer(due.generation))
        .await
        .map(|_| ())
}
