//! Sending again: one delivery, or all of an endpoint that ended without success since a moment. The second
//! is a walk, a page for each message, with pauses between them that leave room for what happens meanwhile.

use super::deliver::{self, Arrival, Delivery, DeliveryState};
use super::endpoint::{self, Endpoint};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::ids::EventId;
use crate::model::notice::{DeliveryNotice, RecoveryNotice, RetryNotice, StoredEvent};
use crate::queue::Message;
use crate::store::{Condition, Item, Write, keys};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};

/// Deliveries of one page, and how long until the next.
const PAGE_ROWS_MAX: usize = 100;
const PAGE_DELAY_SECONDS: u16 = 5;
/// How far back a recovery may begin.
pub const SINCE_MAX: TimeDelta = TimeDelta::days(14);
/// How long the row of a recovery is kept once nobody touches it.
const KEPT: TimeDelta = TimeDelta::days(30);
/// Recoveries that make no progress for so long have lost their message, and another may begin.
const STALE: TimeDelta = TimeDelta::minutes(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecoveryState {
    Running,
    Done,
}

/// The one recovery of an endpoint, and how far it has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recovery {
    pub state: RecoveryState,
    pub since: DateTime<Utc>,
    /// What was accepted later than this is none of its business: it is on its way by itself.
    pub until: DateTime<Utc>,
    /// Deliveries that were looked at, and those of them that are sent again.
    pub looked_at: u64,
    pub sent_again: u64,
    pub started_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    /// Pages that are done.
    pub page: u64,
    after: String,
}

/// Refuses an endpoint that is off: what was sent again would stop at once.
pub fn check_on(endpoint: &Endpoint) -> Result<()> {
    match endpoint.off {
        None => Ok(()),
        Some(_) => Err(Error::new(
            Code::Conflict,
            "this endpoint is disabled; enable it first",
        )),
    }
}

/// Sends one event to an endpoint again, whatever became of it, or for the first time if it was never
/// meant for it: an endpoint that was made later, or did not ask for its type.
pub async fn resend(ctx: &Ctx, endpoint: &Endpoint, event_id: &EventId) -> Result<Delivery> {
    check_on(endpoint)?;
    let merchant = &endpoint.merchant_id;
    let event = ctx.store.get(&keys::event(merchant, event_id)).await?;
    let event: StoredEvent = event
        .ok_or_else(|| Error::not_found(format!("event {event_id}")))?
        .read()?;
    let key = keys::delivery(merchant, &endpoint.id, event.accepted_at, event_id);
    let held = ctx.store.get(&key).await?;
    let now = ctx.now();
    let (condition, delivery) = match held {
        Some(item) => {
            let held: Delivery = item.read()?;
            let is_pending = held.state == DeliveryState::Pending;
            if is_pending && held.next_attempt_at.is_none() {
                return Err(Error::new(
                    Code::Conflict,
                    "this one waits until the one before it with the same key has ended; then it is sent",
                ));
            }
            // Whose turn it is keeps its place.
            let again = match is_pending {
                true => held.called(now),
                false => held.again(now),
            };
            (Condition::Rev(item.rev), again)
        }
        None => {
            let new = Delivery::new(endpoint.id.clone(), &event.notice(), now);
            (Condition::Absent, new)
        }
    };
    if !deliver::store(ctx, &delivery, condition).await? {
        return Err(Error::new(
            Code::Busy,
            "this delivery is being changed; send it again",
        ));
    }
    deliver::call(ctx, &[delivery.notice()]).await?;
    Ok(delivery)
}

/// Begins to send again everything that ended without success, of what was accepted at `since` or later.
pub async fn begin(ctx: &Ctx, endpoint: &Endpoint, since: DateTime<Utc>) -> Result<Recovery> {
    check_on(endpoint)?;
    let now = ctx.now();
    if since > now || now - since > SINCE_MAX {
        return Err(Error::invalid(vec![FieldError::new(
            "/since",
            "invalid_value",
            format!(
                "since is a moment of the last {} days",
                SINCE_MAX.num_days()
            ),
        )]));
    }
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    let key = keys::recovery(merchant, id);
    let held = ctx.store.get(&key).await?;
    let condition = match &held {
        None => Condition::Absent,
        Some(item) => {
            let running: Recovery = item.read()?;
            if running.state == RecoveryState::Running && now - running.updated_at < STALE {
                return Err(Error::new(
                    Code::Conflict,
                    "a recovery of this endpoint is running; wait until it is done",
                ));
            }
            Condition::Rev(item.rev)
        }
    };
    let recovery = Recovery {
        state: RecoveryState::Running,
        since,
        until: now,
        looked_at: 0,
        sent_again: 0,
        started_at: now,
        updated_at: now,
        page: 0,
        after: keys::deliveries_from(merchant, id, since),
    };
    store(ctx, endpoint, condition, &recovery).await?;
    tell(ctx, endpoint, &recovery, 0).await?;
    Ok(recovery)
}

/// The latest recovery of an endpoint.
pub async fn load(ctx: &Ctx, endpoint: &Endpoint) -> Result<Recovery> {
    let key = keys::recovery(&endpoint.merchant_id, &endpoint.id);
    let item = ctx.store.get(&key).await?;
    item.ok_or_else(|| Error::not_found("a recovery of this endpoint"))?
        .read()
}

async fn store(
    ctx: &Ctx,
    endpoint: &Endpoint,
    condition: Condition,
    recovery: &Recovery,
) -> Result<()> {
    let key = keys::recovery(&endpoint.merchant_id, &endpoint.id);
    let gone = (ctx.now() + KEPT).timestamp();
    let write = Write::put(key, condition, recovery)?.expiring(gone);
    Ok(ctx.store.write(write).await?)
}

async fn tell(ctx: &Ctx, endpoint: &Endpoint, recovery: &Recovery, delay: u16) -> Result<()> {
    let notice = RecoveryNotice {
        merchant_id: endpoint.merchant_id.clone(),
        recover: endpoint.id.clone(),
        started_at: recovery.started_at,
        page: recovery.page,
    };
    let message = Message {
        body: serde_json::to_string(&notice).map_err(Error::internal)?,
        delay_seconds: delay,
        group: Some(endpoint.merchant_id.to_string()),
    };
    let queue = ctx.config.webhook_retry_queue()?;
    ctx.queue.send_later(queue, vec![message]).await
}

/// Does what a batch of the queue of retries asks for, side by side: one result for each notice, in order.
pub async fn retry(ctx: &Ctx, notices: &[RetryNotice]) -> Vec<Result<()>> {
    let (mut deliveries, mut steps) = (Vec::new(), Vec::new());
    for notice in notices {
        match notice {
            RetryNotice::Delivery(notice) => deliveries.push(Arrival {
                notice: notice.clone(),
                // Whatever comes by this lane came by another before.
                again: true,
            }),
            RetryNotice::Recovery(notice) => steps.push(step(ctx, notice)),
        }
    }
    let done = join(deliver::deliver(ctx, &deliveries), join_all(steps)).await;
    let (mut delivered, mut stepped) = (done.0.into_iter(), done.1.into_iter());
    let result = |notice: &RetryNotice| match notice {
        RetryNotice::Delivery(_) => delivered.next(),
        RetryNotice::Recovery(_) => stepped.next(),
    };
    notices.iter().filter_map(result).collect()
}

/// Looks at one page of deliveries.
async fn step(ctx: &Ctx, notice: &RecoveryNotice) -> Result<()> {
    let (merchant, id) = (&notice.merchant_id, &notice.recover);
    let endpoint = match endpoint::load(ctx, merchant, id).await {
        Ok((_, endpoint)) => endpoint,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(item) = ctx.store.get(&keys::recovery(merchant, id)).await? else {
        return Ok(());
    };
    let mut recovery: Recovery = item.read()?;
    let over = recovery.state == RecoveryState::Done || endpoint.off.is_some();
    if over || recovery.started_at != notice.started_at {
        return Ok(());
    }
    if recovery.page != notice.page {
        // Whoever did this page may have ended before he told of the next.
        return tell(ctx, &endpoint, &recovery, PAGE_DELAY_SECONDS).await;
    }
    let group = keys::deliveries(merchant, id);
    let page = ctx
        .store
        .list(&group, Some(&recovery.after), PAGE_ROWS_MAX)
        .await?;
    let mut again = Vec::new();
    let mut passed = false;
    for item in &page.items {
        let delivery: Delivery = item.read()?;
        passed |= delivery.accepted_at > recovery.until;
        if passed {
            break;
        }
        recovery.looked_at += 1;
        recovery.after =
            keys::after_delivery(merchant, id, delivery.accepted_at, &delivery.event_id);
        match delivery.state {
            DeliveryState::Pending | DeliveryState::Delivered => {}
            DeliveryState::Exhausted | DeliveryState::Stopped => {
                again.extend(revive(ctx, item, delivery).await?);
            }
        }
    }
    deliver::call(ctx, &again).await?;
    let count = u64::try_from(again.len()).unwrap_or(u64::MAX);
    recovery.sent_again += count;
    recovery.page += 1;
    recovery.updated_at = ctx.now();
    if passed || page.next.is_none() {
        recovery.state = RecoveryState::Done;
    }
    match store(ctx, &endpoint, Condition::Rev(item.rev), &recovery).await {
        // A twin of this message has done the same page.
        Err(error) if error.code() == Code::Busy => return Ok(()),
        stored => stored?,
    }
    match recovery.state {
        RecoveryState::Done => Ok(()),
        RecoveryState::Running => tell(ctx, &endpoint, &recovery, PAGE_DELAY_SECONDS).await,
    }
}

/// Lets a delivery that ended be tried again. Nothing when somebody else has changed it meanwhile.
async fn revive(ctx: &Ctx, item: &Item, delivery: Delivery) -> Result<Option<DeliveryNotice>> {
    let delivery = delivery.again(ctx.now());
    let stored = deliver::store(ctx, &delivery, Condition::Rev(item.rev)).await?;
    Ok(stored.then(|| delivery.notice()))
}
