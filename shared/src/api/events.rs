//! `POST /api/v1/events`: the commerce backend says what happened.
//!
//! The id of an event is its idempotency key: the same event again gets the first answer, another
//! body under the same id is refused. A 2xx means that record, event and outbox row are stored, in
//! one transaction.

use super::auth::{self, Platform};
use super::{Request, Response, problem};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::event::{Event, Payload, RecordKind};
use crate::model::goods::{Age, GoodsRecord};
use crate::model::ids::RecordId;
use crate::model::notice::{Notice, Place, RecordRef, StoredEvent};
use crate::model::order_record::{Applied, OrderRecord};
use crate::model::payout::{Payout, PayoutRecord};
use crate::store::{Condition, Item, Key, Write, WriteError, keys};
use crate::sync::push::{Open, RowKind, RowRef};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Most events of one request.
pub const BATCH_EVENTS_MAX: usize = 100;
/// Events of different orders that are stored side by side.
const SIDE_BY_SIDE_MAX: usize = 8;
/// How often an event is tried again when its order is changed by another request meanwhile.
const RACE_ROUNDS_MAX: usize = 8;

/// The answer to an accepted event, the same however often it is sent.
#[derive(Debug, Serialize)]
struct Accepted {
    id: String,
    status: &'static str,
    record: RecordRef,
    applied: bool,
    accepted_at: DateTime<Utc>,
    #[serde(skip)]
    replayed: bool,
}

impl Accepted {
    fn of(event: StoredEvent, replayed: bool) -> Accepted {
        Accepted {
            id: event.id.to_string(),
            status: "accepted",
            record: event.record,
            applied: event.applied,
            accepted_at: event.accepted_at,
            replayed,
        }
    }
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        if request.method != "POST" {
            return Err(request.unknown());
        }
        let platform = auth::platform(ctx, request).await?;
        let body = request.json()?;
        match body.get("events") {
            Some(events) => batch(ctx, &platform, request, &body, events).await,
            None => single(ctx, &platform, request, body).await,
        }
    })
}

async fn single(
    ctx: &Ctx,
    platform: &Platform,
    request: &Request,
    body: Value,
) -> Result<Response> {
    let accepted = accept(ctx, platform, request, body).await?;
    let response = Response::json(202, &accepted)?;
    Ok(if accepted.replayed {
        response.header("idempotent-replayed", "true")
    } else {
        response
    })
}

/// Takes each event by itself: a bad one is refused and the rest is taken. Events of the same order or
/// payout are taken in the order in which they stand.
async fn batch(
    ctx: &Ctx,
    platform: &Platform,
    request: &Request,
    body: &Value,
    events: &Value,
) -> Result<Response> {
    let fault =
        |detail: String| Error::invalid(vec![FieldError::new("/events", "wrong_count", detail)]);
    let mut members = body.as_object().into_iter().flatten();
    if let Some((extra, _)) = members.find(|(name, _)| *name != "events") {
        let extra: String = extra.chars().take(64).collect();
        let detail = format!("{extra:?} does not stand beside events");
        return Err(Error::invalid(vec![FieldError::new(
            "",
            "unknown_field",
            detail,
        )]));
    }
    let events = events
        .as_array()
        .ok_or_else(|| fault("events must be a list".to_owned()))?;
    if events.is_empty() || events.len() > BATCH_EVENTS_MAX {
        let count = events.len();
        return Err(fault(format!(
            "between 1 and {BATCH_EVENTS_MAX} events are taken, {count} came"
        )));
    }
    let mut groups: BTreeMap<String, Vec<(usize, Value)>> = BTreeMap::new();
    for (index, event) in events.iter().enumerate() {
        groups
            .entry(group(event))
            .or_default()
            .push((index, event.clone()));
    }
    let take = async |group: Vec<(usize, Value)>| {
        let mut outcomes = Vec::with_capacity(group.len());
        for (index, event) in group {
            let id = event["id"].as_str().map(str::to_owned);
            outcomes.push((index, id, accept(ctx, platform, request, event).await));
        }
        outcomes
    };
    let mut outcomes: Vec<_> = futures::stream::iter(groups.into_values().map(take))
        .buffer_unordered(SIDE_BY_SIDE_MAX)
        .concat()
        .await;
    outcomes.sort_by_key(|(index, ..)| *index);
    let mut counts = (0, 0);
    let data = outcomes.into_iter().map(|(_, id, outcome)| match outcome {
        Ok(accepted) => {
            counts.0 += 1;
            serde_json::to_value(accepted).map_err(Error::internal)
        }
        Err(error) => {
            counts.1 += 1;
            if error.code() == Code::Internal {
                tracing::error!(
                    request_id = %request.id, event_id = id.as_deref().unwrap_or_default(),
                    error = %error.chain(), "an event of a batch failed"
                );
            }
            let problem = problem::document(&error, &request.id);
            Ok(json!({ "id": id, "status": "refused", "problem": problem }))
        }
    });
    let data = data.collect::<Result<Vec<Value>>>()?;
    let (accepted, refused) = counts;
    Response::json(
        200,
        &json!({ "accepted": accepted, "refused": refused, "data": data }),
    )
}

/// Events that must be taken one after the other have the same group.
fn group(event: &Value) -> String {
    let data = &event["data"];
    let kind = event["type"].as_str().unwrap_or_default();
    let named = match data["order_id"].as_str() {
        Some(order) => Some(("order", order)),
        None if kind.starts_with("order.") => data["id"].as_str().map(|id| ("order", id)),
        None if kind.starts_with("payout.") => data["id"].as_str().map(|id| ("payout", id)),
        None => None,
    };
    let own = event["id"].as_str().unwrap_or_default();
    let (kind, id) = named.unwrap_or(("event", own));
    format!(
        "{}/{kind}/{id}",
        event["merchant_id"].as_str().unwrap_or_default()
    )
}

/// Checks one event and stores it with all that it changes.
async fn accept(
    ctx: &Ctx,
    platform: &Platform,
    request: &Request,
    body: Value,
) -> Result<Accepted> {
    let event = Event::read(body)?;
    platform.merchant(ctx, &event.merchant_id).await?;
    for _ in 0..RACE_ROUNDS_MAX {
        match try_accept(ctx, &event).await? {
            Some(accepted) => {
                tracing::info!(
                    request_id = %request.id, merchant_id = %event.merchant_id,
                    event_id = %event.id, applied = accepted.applied,
                    replayed = accepted.replayed, "accepted"
                );
                return Ok(accepted);
            }
            None => continue,
        }
    }
    Err(Error::new(
        Code::Busy,
        "this record is being changed by many requests; send it again",
    ))
}

/// One try; `None` when somebody else changed what it had read.
async fn try_accept(ctx: &Ctx, event: &Event) -> Result<Option<Accepted>> {
    let merchant = &event.merchant_id;
    let event_key = keys::event(merchant, &event.id);
    let (kind, id) = event.payload.record();
    let record_key = keys::record(merchant, kind, &id);
    let order_key = event
        .payload
        .order_id()
        .map(|order| keys::order(merchant, order));
    let mut wanted = vec![event_key.clone(), record_key.clone()];
    wanted.extend(order_key.clone());
    let found = ctx.store.get_many(&wanted).await?;
    if let Some(item) = &found[0] {
        let stored: StoredEvent = item.read()?;
        if stored.fingerprint == event.fingerprint {
            return Ok(Some(Accepted::of(stored, true)));
        }
        return Err(Error::new(
            Code::IdempotencyKeyReused,
            format!(
                "event {} was accepted with another body; give a new event a new id",
                event.id
            ),
        ));
    }
    // A refund's id is its own: under one that is taken, another would be counted and never booked.
    if kind == RecordKind::Refund && found[1].as_ref().is_some_and(|item| item.doc != event.data) {
        let detail = format!("refund {id} is known with other content; give a new refund a new id");
        return Err(Error::invalid(vec![FieldError::new(
            "/data/id",
            "already_used",
            detail,
        )]));
    }
    let accepted_at = ctx.now();
    let mut writes = Vec::new();
    let mut place = Place {
        key: id.clone(),
        n: 1,
        previous_id: None,
    };
    let mut applied = Applied::Changed;
    if let Some(order_key) = order_key {
        let item = found.get(2).and_then(Option::as_ref);
        let mut order: OrderRecord = item.map(Item::read).transpose()?.unwrap_or_default();
        applied = apply(&mut order, event)?;
        if applied == Applied::Changed {
            order.changed_at = order.changed_at.max(Some(event.occurred_at));
        }
        let order_id = event.payload.order_id().map_or("", RecordId::as_str);
        let (n, previous_id) = order.sequence.advance(&event.id);
        place = Place {
            key: order_id.to_owned(),
            n,
            previous_id,
        };
        let condition = item.map_or(Condition::Absent, |item| Condition::Rev(item.rev));
        writes.push(Write::put(order_key, condition, &order)?);
    }
    if let Payload::Payout(payout) = &event.payload {
        let (write, took, at) = take_payout(event, payout, record_key, found[1].as_ref())?;
        writes.push(write);
        (applied, place) = (took, at);
    } else if let Some(age) = age(&event.payload) {
        let (write, took, at) = take_goods(event, &age, record_key, found[1].as_ref())?;
        writes.push(write);
        (applied, place) = (took, at);
    } else if kind != RecordKind::Order {
        // A refund or a user is a document of its own.
        match &found[1] {
            None => writes.push(Write::put(record_key, Condition::Absent, &event.data)?),
            Some(_) => applied = Applied::Superseded,
        }
    }
    if let Some((kind, id, at, order_id)) = dated(event)
        && applied == Applied::Changed
    {
        // Where a record was on another day before, the row there is passed over: it is read beside the
        // record.
        let group = keys::day(merchant, at.date_naive());
        let row = RowRef { kind, id };
        let key = keys::open(group, kind.as_str(), &row.id);
        let open = Open {
            record: row.owner(),
            order_id: order_id.cloned(),
            code: None,
        };
        writes.push(Write::put(key, Condition::Any, &open)?);
    }
    let notice = Notice::of(event, accepted_at);
    let stored = StoredEvent {
        id: event.id.clone(),
        kind: event.kind,
        merchant_id: merchant.clone(),
        occurred_at: event.occurred_at,
        accepted_at,
        data: event.data.clone(),
        fingerprint: event.fingerprint.clone(),
        record: notice.record.clone(),
        applied: applied == Applied::Changed,
        place,
    };
    writes.push(Write::put(event_key, Condition::Absent, &stored)?);
    writes.push(Write::put(
        keys::outbox(merchant, &event.id),
        Condition::Any,
        &notice,
    )?);
    match ctx.store.transact(writes).await {
        Ok(()) => Ok(Some(Accepted::of(stored, false))),
        Err(WriteError::Condition(_) | WriteError::Contended) => Ok(None),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// What of an event belongs to a day: the kind and id of its row there, the moment, and the order.
fn dated(event: &Event) -> Option<(RowKind, String, DateTime<Utc>, Option<&RecordId>)> {
    match &event.payload {
        Payload::Order(order) => {
            let id = order.id.to_string();
            Some((RowKind::Order, id, order.placed_at, Some(&order.id)))
        }
        Payload::Payment(payment) => {
            let (order, id) = (
                &payment.order_id,
                format!("{}~{}", payment.order_id, payment.id),
            );
            Some((RowKind::Payment, id, payment.processed_at, Some(order)))
        }
        Payload::Refund(refund) => {
            let id = refund.id.to_string();
            Some((
                RowKind::Refund,
                id,
                refund.refunded_at,
                refund.order_id.as_ref(),
            ))
        }
        Payload::Payout(payout) => {
            let id = payout.id.to_string();
            Some((RowKind::Payout, id, payout.paid_at, None))
        }
        Payload::Product(_) | Payload::Level(_) | Payload::LowStock(_) | Payload::User(_) => None,
    }
}

/// What tells of goods and stock which of two is the later one.
fn age(payload: &Payload) -> Option<Age> {
    match payload {
        Payload::Product(product) => Some(Age::Version(product.version)),
        Payload::Level(level) => Some(Age::At(level.at)),
        Payload::LowStock(level) => Some(Age::At(level.at)),
        _ => None,
    }
}

/// The write of a product or of a stock level after `event`, of which `held` is what stands there, with
/// whether it changed and the event's place.
fn take_goods(
    event: &Event,
    age: &Age,
    key: Key,
    held: Option<&Item>,
) -> Result<(Write, Applied, Place)> {
    let mut record: GoodsRecord = held.map(Item::read).transpose()?.unwrap_or_default();
    let (applied, n, previous_id) = record.apply(&event.data, age, &event.id);
    let condition = held.map_or(Condition::Absent, |item| Condition::Rev(item.rev));
    let (kind, id) = event.payload.record();
    let place = Place {
        key: format!("{}/{id}", kind.as_str()),
        n,
        previous_id,
    };
    Ok((Write::put(key, condition, &record)?, applied, place))
}

/// The write of a payout after `event`, of which `held` is what stands there, with whether it changed and
/// the event's place.
fn take_payout(
    event: &Event,
    payout: &Payout,
    key: Key,
    held: Option<&Item>,
) -> Result<(Write, Applied, Place)> {
    let mut record: PayoutRecord = held.map(Item::read).transpose()?.unwrap_or_default();
    let applied = record.apply(payout, event.occurred_at);
    let applied = applied.map_err(|fault| Error::invalid(vec![fault.under("/data")]))?;
    let (n, previous_id) = record.sequence.advance(&event.id);
    let condition = held.map_or(Condition::Absent, |item| Condition::Rev(item.rev));
    let place = Place {
        // Orders are counted under their bare ids.
        key: format!("payout/{}", payout.id),
        n,
        previous_id,
    };
    Ok((Write::put(key, condition, &record)?, applied, place))
}

fn apply(order: &mut OrderRecord, event: &Event) -> Result<Applied> {
    let applied = match &event.payload {
        Payload::Order(new) => order.apply_order(new.clone()),
        Payload::Payment(payment) => order.apply_payment(payment.clone()),
        Payload::Refund(refund) => order.apply_refund(refund),
        Payload::Payout(_)
        | Payload::Product(_)
        | Payload::Level(_)
        | Payload::LowStock(_)
        | Payload::User(_) => Ok(Applied::Changed),
    };
    applied.map_err(|fault| Error::invalid(vec![fault.under("/data")]))
}
