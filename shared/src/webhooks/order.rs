//! Order by key, for endpoints that ask for it: of the events with one key, such as those of one order, the
//! next is not sent before the one before it has ended. What is stuck keeps nothing back but its own key.
//!
//! One row for each endpoint and key holds what waits, the one whose turn it is first. It changes in the
//! transaction that makes or ends a delivery, so the two never differ. The bus may bring events in any
//! order: whoever brings one also brings those before it that were not brought yet, which the events' own
//! chain (`previous_id`) names.

use super::deliver::{Delivery, DeliveryState, KEPT, reminder};
use super::endpoint::Endpoint;
use super::fanout::wants;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::EventId;
use crate::model::notice::{DeliveryNotice, StoredEvent};
use crate::store::{Condition, Write, WriteError, keys};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Most deliveries of one key that wait for each other. What comes then ends at once, visibly; it can be
/// sent again.
const WAITING_MAX: usize = 500;
/// How far back events are looked for that were not brought yet: much longer than the bus is ever late,
/// and shorter than a row is kept.
const BEFORE_MAX: TimeDelta = TimeDelta::days(3);
/// Events that one message brings along: with the row, a transaction takes 100 writes.
const ALONG_MAX: usize = 40;
const RACE_ROUNDS_MAX: usize = 8;

/// What waits at one endpoint with one key.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Line {
    /// Everything up to this place in the sequence was brought.
    seen: u64,
    /// Whose turn it is, and what waits behind it.
    waiting: Vec<Waiting>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Waiting {
    event_id: EventId,
    accepted_at: DateTime<Utc>,
    /// Whether another's message brought it along.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    brought: bool,
}

impl Line {
    fn notice(&self, endpoint: &Endpoint) -> Option<DeliveryNotice> {
        let first = self.waiting.first()?;
        Some(DeliveryNotice {
            merchant_id: endpoint.merchant_id.clone(),
            endpoint_id: endpoint.id.clone(),
            event_id: first.event_id.clone(),
            accepted_at: first.accepted_at,
            paced: None,
        })
    }
}

/// Makes the delivery of `event` to an endpoint that has order, behind what waits with the same key. Returns
/// the notice of the one whose turn it is, if that is to be told: new, or by the event's own message, which may
/// have come before. Of one that another's message brought along, its own tells nothing more: the two would
/// make the same attempt side by side. Should the other die before it has told, the schedule comes by.
pub(super) async fn line_up(
    ctx: &Ctx,
    endpoint: &Endpoint,
    event: &StoredEvent,
) -> Result<Option<DeliveryNotice>> {
    let key = keys::line(&endpoint.merchant_id, &endpoint.id, &event.place.key);
    let own = &event.id;
    for _ in 0..RACE_ROUNDS_MAX {
        let held = ctx.store.get(&key).await?;
        let (condition, mut line) = match &held {
            None => (Condition::Absent, Line::default()),
            Some(item) => (Condition::Rev(item.rev), item.read::<Line>()?),
        };
        let was_empty = line.waiting.is_empty();
        let mut writes = Vec::new();
        // One before those that were seen is a twin, or was too far back for them to bring it along.
        for event in up_to(ctx, endpoint, event, line.seen).await? {
            let brought = event.id != *own;
            writes.extend(append(ctx, endpoint, &event, brought, &mut line).await?);
            line.seen = line.seen.max(event.place.n);
        }
        let brought = line.waiting.first().is_some_and(|first| first.brought);
        let first = line.notice(endpoint);
        let first = first.filter(|first| was_empty || first.event_id == *own && !brought);
        if writes.is_empty() {
            return Ok(first);
        }
        if let Some(first) = first.as_ref().filter(|_| brought) {
            writes.push(reminder(ctx, first)?);
        }
        let gone = (ctx.now() + KEPT).timestamp();
        writes.push(Write::put(key.clone(), condition, &line)?.expiring(gone));
        match ctx.store.transact(writes).await {
            Ok(()) => return Ok(first),
            Err(WriteError::Condition(_) | WriteError::Contended) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(busy())
}

fn busy() -> Error {
    Error::new(
        Code::Busy,
        "several events of one key at once; it is tried again",
    )
}

/// `event` and those before it that the endpoint wants and that were not brought yet, the oldest first.
async fn up_to(
    ctx: &Ctx,
    endpoint: &Endpoint,
    event: &StoredEvent,
    seen: u64,
) -> Result<Vec<StoredEvent>> {
    let mut found = vec![event.clone()];
    let mut previous = event.place.previous_id.clone();
    while let Some(id) = previous.filter(|_| found.len() < ALONG_MAX) {
        let key = keys::event(&endpoint.merchant_id, &id);
        let Some(item) = ctx.store.get(&key).await? else {
            break;
        };
        let before: StoredEvent = item.read()?;
        let is_new = before.place.n > seen
            && before.accepted_at >= endpoint.wants_since()
            && event.accepted_at - before.accepted_at <= BEFORE_MAX;
        if !is_new {
            break;
        }
        previous = before.place.previous_id.clone();
        if wants(endpoint, &before) {
            found.push(before);
        }
    }
    found.reverse();
    Ok(found)
}

/// Puts one event into the line; returns the writes of its delivery.
async fn append(
    ctx: &Ctx,
    endpoint: &Endpoint,
    event: &StoredEvent,
    brought: bool,
    line: &mut Line,
) -> Result<Vec<Write>> {
    let mut delivery = Delivery::new(endpoint.id.clone(), &event.notice(), ctx.now());
    let key = delivery.key();
    // Somebody asked for it by its id before the bus brought it.
    if ctx.store.get(&key).await?.is_some() {
        return Ok(Vec::new());
    }
    if line.waiting.len() >= WAITING_MAX {
        delivery.state = DeliveryState::Stopped;
        delivery.next_attempt_at = None;
        return delivery.writes(Condition::Absent);
    }
    delivery.line = Some(event.place.key.clone());
    if !line.waiting.is_empty() {
        delivery.next_attempt_at = None;
    }
    line.waiting.push(Waiting {
        event_id: event.id.clone(),
        accepted_at: event.accepted_at,
        brought,
    });
    delivery.writes(Condition::Absent)
}

/// Adds to `writes`, which end `delivery`, that it leaves its line. Returns the one whose turn comes.
pub(super) async fn leave(
    ctx: &Ctx,
    delivery: &Delivery,
    key: &str,
    writes: &mut Vec<Write>,
) -> Result<Option<Delivery>> {
    let (merchant, endpoint) = (&delivery.merchant_id, &delivery.endpoint_id);
    let line_key = keys::line(merchant, endpoint, key);
    let Some(item) = ctx.store.get(&line_key).await? else {
        return Ok(None);
    };
    let mut line: Line = item.read()?;
    let was_first = line.waiting.first().map(|one| one.event_id.clone());
    line.waiting.retain(|one| one.event_id != delivery.event_id);
    let mut called = None;
    while let Some(first) = line.waiting.first().cloned() {
        if Some(&first.event_id) == was_first.as_ref() {
            break;
        }
        let key = keys::delivery(merchant, endpoint, first.accepted_at, &first.event_id);
        let held = ctx.store.get(&key).await?;
        let pending = held
            .map(|item| Ok::<_, Error>((item.rev, item.read::<Delivery>()?)))
            .transpose()?
            .filter(|(_, delivery)| delivery.state == DeliveryState::Pending);
        if let Some((rev, delivery)) = pending {
            // Its life begins when its turn comes.
            let delivery = delivery.called(ctx.now());
            writes.extend(delivery.writes(Condition::Rev(rev))?);
            // The schedule comes by as well: whoever ends the one before may be a reader's request, which
            // nobody repeats if it dies before it has told.
            writes.push(reminder(ctx, &delivery.notice())?);
            called = Some(delivery);
            break;
        }
        line.waiting.remove(0);
    }
    let gone = (ctx.now() + KEPT).timestamp();
    writes.push(Write::put(line_key, Condition::Rev(item.rev), &line)?.expiring(gone));
    Ok(called)
}

/// Whose turn it is in the line of a delivery that has ended: whoever ended it may have ended himself
/// before he told.
pub(super) async fn first(
    ctx: &Ctx,
    delivery: &Delivery,
    key: &str,
) -> Result<Option<DeliveryNotice>> {
    let (merchant, endpoint) = (&delivery.merchant_id, &delivery.endpoint_id);
    let Some(item) = ctx.store.get(&keys::line(merchant, endpoint, key)).await? else {
        return Ok(None);
    };
    let line: Line = item.read()?;
    Ok(line.waiting.into_iter().next().map(|first| DeliveryNotice {
        merchant_id: merchant.clone(),
        endpoint_id: endpoint.clone(),
        event_id: first.event_id,
        accepted_at: first.accepted_at,
        paced: None,
    }))
}
