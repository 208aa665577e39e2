//! The schedule of attempts that wait for longer than a queue keeps a message: every minute, what is due
//! goes to the queue of retries.

use super::deliver::{self, minute_of};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::model::notice::DeliveryNotice;
use crate::queue::Message;
use crate::store::{Condition, Item, Key, Write, WriteError, keys};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

/// Rows of one page of a minute, and deletions side by side.
const PAGE_ROWS_MAX: usize = 500;
const SIDE_BY_SIDE_MAX: usize = 25;
/// Minutes that one run hands out at most; after a long pause the next run goes on.
const RUN_MINUTES_MAX: i64 = 30;
/// So many minutes are read again in each run: what stands in them still was put there by a function whose
/// clock is slow.
const AGAIN_MINUTES: i64 = 15;

/// The first minute that was not yet handed out.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cursor {
    minute: i64,
}

/// Hands out everything that was due in minutes that are over, and returns how many deliveries that were.
/// Two runs at once hand out the same twice, which does no harm: a delivery that is not due is not tried.
pub async fn plan(ctx: &Ctx) -> Result<usize> {
    let now = minute_of(ctx.now());
    let key = keys::webhook_due_cursor();
    let held = ctx.store.get(&key).await?;
    let (condition, from) = match &held {
        None => (Condition::Absent, now - RUN_MINUTES_MAX),
        Some(item) => (Condition::Rev(item.rev), item.read::<Cursor>()?.minute),
    };
    let until = now.min(from + RUN_MINUTES_MAX);
    let mut count = 0;
    for minute in from.min(until) - AGAIN_MINUTES..until {
        count += hand_out(ctx, minute).await?;
    }
    let next = Cursor { minute: until };
    match ctx.store.write(Write::put(key, condition, &next)?).await {
        Ok(()) | Err(WriteError::Condition(_)) => Ok(count),
        Err(error) => Err(error.into()),
    }
}

async fn hand_out(ctx: &Ctx, minute: i64) -> Result<usize> {
    let group = keys::webhook_due(minute);
    let mut count = 0;
    loop {
        // From the beginning each time: what was handed out is gone.
        let page = ctx.store.list(&group, None, PAGE_ROWS_MAX).await?;
        if page.items.is_empty() {
            return Ok(count);
        }
        count += page.items.len();
        let messages = page.items.iter().map(|item| message(ctx, item));
        let messages = messages.collect::<Result<Vec<_>>>()?;
        // Sent before it is deleted: what is sent twice is tried once, and what is lost is never tried.
        ctx.queue
            .send_later(ctx.config.webhook_retry_queue()?, messages)
            .await?;
        let keys: Vec<Key> = page.items.into_iter().map(|item| item.key).collect();
        for chunk in keys.chunks(SIDE_BY_SIDE_MAX) {
            let deletions = chunk.iter().map(|key| {
                ctx.store.write(Write::Delete {
                    key: key.clone(),
                    condition: Condition::Any,
                })
            });
            for deleted in join_all(deletions).await {
                deleted?;
            }
        }
    }
}

/// Spread over the minute, so that receivers do not meet all at once.
fn message(ctx: &Ctx, item: &Item) -> Result<Message> {
    let notice: DeliveryNotice = item.read()?;
    let delay = u16::from(ctx.random::<1>()[0]) * 60 / 256;
    deliver::message(&notice, delay)
}
