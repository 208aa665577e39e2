//! What travels over the bus and the queues: ids, not the truth. Whoever receives a notice reads the
//! record again, so late, doubled and reordered notices do no harm.

use super::event::{Event, EventType, RecordKind};
use super::ids::{EndpointId, EventId, MerchantId, RecordId};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An event as it is stored, with what its acceptance was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub id: EventId,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub merchant_id: MerchantId,
    pub occurred_at: DateTime<Utc>,
    pub accepted_at: DateTime<Utc>,
    pub data: Value,
    pub fingerprint: String,
    pub record: RecordRef,
    /// Whether the event changed its record, or came too late to matter.
    pub applied: bool,
    pub place: Place,
}

impl StoredEvent {
    /// The notice that tells of it.
    pub fn notice(&self) -> Notice {
        Notice {
            merchant_id: self.merchant_id.clone(),
            event_id: self.id.clone(),
            kind: self.kind,
            record: self.record.clone(),
            order_id: None,
            accepted_at: self.accepted_at,
            after: None,
            resync: None,
            backfill: None,
            summing: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordRef {
    #[serde(rename = "type")]
    pub kind: RecordKind,
    pub id: String,
}

/// An event's place among those with the same key, so that a receiver can see a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub key: String,
    pub n: u64,
    pub previous_id: Option<EventId>,
}

/// "This event was accepted."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub merchant_id: MerchantId,
    pub event_id: EventId,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub record: RecordRef,
    /// The order whose money the event moved, if any.
    pub order_id: Option<RecordId>,
    pub accepted_at: DateTime<Utc>,
    /// Where a walk over many records, which this event began, goes on. Nothing at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The resync of the connection that the record names, of which this is the next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync: Option<String>,
    /// The step of a backfill that this is, where the record is a connection; else the backfill that
    /// brought the record up: what it brings gives way to everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backfill: Option<String>,
    /// The day of which the summaries of the connection that the record names are to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summing: Option<Summing>,
}

/// That the summaries of a day are to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summing {
    /// In UTC.
    pub day: NaiveDate,
    /// The change for which it is: once they are made after it, nothing is left to do. `None` to make them
    /// in any case.
    pub change: Option<u64>,
}

/// What stands around a notice in a queue: EventBridge writes more beside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    pub detail: Notice,
}

impl Notice {
    pub fn of(event: &Event, accepted_at: DateTime<Utc>) -> Notice {
        let (kind, id) = event.payload.record();
        Notice {
            merchant_id: event.merchant_id.clone(),
            event_id: event.id.clone(),
            kind: event.kind,
            record: RecordRef { kind, id },
            order_id: event.payload.order_id().cloned(),
            accepted_at,
            after: None,
            resync: None,
            backfill: None,
            summing: None,
        }
    }
}

/// "This webhook of a provider came, and its signature is good."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookNotice {
    pub provider: String,
    pub received_at: DateTime<Utc>,
    /// A hash of what names its event, where the provider's are taken once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// As it came.
    pub body: String,
}

/// "The next page of a recovery is to be looked at."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryNotice {
    pub merchant_id: MerchantId,
    /// The endpoint.
    pub recover: EndpointId,
    /// Which recovery of the endpoint it is.
    pub started_at: DateTime<Utc>,
    /// Pages that were done before.
    pub page: u64,
}

/// What stands in the queue of retries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RetryNotice {
    Recovery(RecoveryNotice),
    Delivery(DeliveryNotice),
}

/// How long it is known that an event of a provider came. The longest that one is sent again by itself
/// is three days.
const RECEIPT_LIFE: TimeDelta = TimeDelta::days(7);

/// "This event of a provider came."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookReceipt {
    pub received_at: DateTime<Utc>,
    pub state: HookState,
}

impl HookReceipt {
    /// When it may be forgotten, in Unix seconds.
    pub fn ends(&self) -> i64 {
        (self.received_at + RECEIPT_LIFE).timestamp()
    }
}

/// How far an event of a provider has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    Queued,
    /// Nothing is made of what this provider tells yet.
    NothingToApply,
}

/// Why a delivery has waited for its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Its endpoint is sent so much a second and no more.
    Limited,
    /// Its endpoint is slow.
    Slow,
}

/// "This event is to be delivered to this endpoint."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryNotice {
    pub merchant_id: MerchantId,
    pub endpoint_id: EndpointId,
    pub event_id: EventId,
    /// When the event was accepted, by which deliveries are found.
    pub accepted_at: DateTime<Utc>,
    /// What it has waited for: it is its turn when it comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paced: Option<Pace>,
}

impl DeliveryNotice {
    pub fn new(notice: &Notice, endpoint_id: EndpointId) -> DeliveryNotice {
        DeliveryNotice {
            merchant_id: notice.merchant_id.clone(),
            endpoint_id,
            event_id: notice.event_id.clone(),
            accepted_at: notice.accepted_at,
            paced: None,
        }
    }
}
