//! Events of the commerce backend: the envelope, the catalogue of types, and the body of each.

use super::goods::{InventoryLevel, LowStock, Product};
use super::ids::{EventId, MerchantId, RecordId};
use super::order::{Order, Payment, Refund};
use super::payout::Payout;
use super::people::User;
use super::text::check_time;
use super::wire;
use crate::error::{Error, FieldError, Result};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Every type of event: what the commerce backend sends, and what begins here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EventType {
    #[serde(rename = "order.created")]
    OrderCreated,
    #[serde(rename = "order.updated")]
    OrderUpdated,
    #[serde(rename = "order.completed")]
    OrderCompleted,
    #[serde(rename = "order.refunded")]
    OrderRefunded,
    #[serde(rename = "payment.processed")]
    PaymentProcessed,
    #[serde(rename = "payout.paid")]
    PayoutPaid,
    #[serde(rename = "product.updated")]
    ProductUpdated,
    #[serde(rename = "inventory.updated")]
    InventoryUpdated,
    #[serde(rename = "inventory.low_stock")]
    InventoryLowStock,
    #[serde(rename = "user.created")]
    UserCreated,
    #[serde(rename = "connection.connected")]
    ConnectionConnected,
    #[serde(rename = "connection.reauth_required")]
    ConnectionReauthRequired,
    #[serde(rename = "connection.disconnected")]
    ConnectionDisconnected,
    #[serde(rename = "record.changed")]
    RecordChanged,
    #[serde(rename = "endpoint.failing")]
    EndpointFailing,
    #[serde(rename = "endpoint.disabled")]
    EndpointDisabled,
}

impl EventType {
    pub const ALL: [EventType; 16] = [
        EventType::OrderCreated,
        EventType::OrderUpdated,
        EventType::OrderCompleted,
        EventType::OrderRefunded,
        EventType::PaymentProcessed,
        EventType::PayoutPaid,
        EventType::ProductUpdated,
        EventType::InventoryUpdated,
        EventType::InventoryLowStock,
        EventType::UserCreated,
        EventType::ConnectionConnected,
        EventType::ConnectionReauthRequired,
        EventType::ConnectionDisconnected,
        EventType::RecordChanged,
        EventType::EndpointFailing,
        EventType::EndpointDisabled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            EventType::OrderCreated => "order.created",
            EventType::OrderUpdated => "order.updated",
            EventType::OrderCompleted => "order.completed",
            EventType::OrderRefunded => "order.refunded",
            EventType::PaymentProcessed => "payment.processed",
            EventType::PayoutPaid => "payout.paid",
            EventType::ProductUpdated => "product.updated",
            EventType::InventoryUpdated => "inventory.updated",
            EventType::InventoryLowStock => "inventory.low_stock",
            EventType::UserCreated => "user.created",
            EventType::ConnectionConnected => "connection.connected",
            EventType::ConnectionReauthRequired => "connection.reauth_required",
            EventType::ConnectionDisconnected => "connection.disconnected",
            EventType::RecordChanged => "record.changed",
            EventType::EndpointFailing => "endpoint.failing",
            EventType::EndpointDisabled => "endpoint.disabled",
        }
    }

    /// Whether events of this type begin here, so that nobody may send one.
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            EventType::ConnectionConnected
                | EventType::ConnectionReauthRequired
                | EventType::ConnectionDisconnected
                | EventType::RecordChanged
                | EventType::EndpointFailing
                | EventType::EndpointDisabled
        )
    }

    pub fn parse(text: &str) -> Option<EventType> {
        EventType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }

    /// The names of all types, for messages.
    pub fn names() -> String {
        EventType::ALL.map(EventType::as_str).join(", ")
    }

    /// The names of the types that the commerce backend may send.
    pub fn names_taken() -> String {
        let taken = EventType::ALL.into_iter().filter(|kind| !kind.is_ours());
        taken.map(EventType::as_str).collect::<Vec<_>>().join(", ")
    }
}

/// The body of an event, by type.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    Order(Order),
    Payment(Payment),
    Refund(Refund),
    Payout(Payout),
    Product(Product),
    Level(InventoryLevel),
    LowStock(LowStock),
    User(User),
}

/// The kind of record that an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    Order,
    Refund,
    Payout,
    Product,
    Stock,
    User,
    Connection,
    Endpoint,
}

impl RecordKind {
    pub const ALL: [RecordKind; 8] = [
        RecordKind::Order,
        RecordKind::Refund,
        RecordKind::Payout,
        RecordKind::Product,
        RecordKind::Stock,
        RecordKind::User,
        RecordKind::Connection,
        RecordKind::Endpoint,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            RecordKind::Order => "order",
            RecordKind::Refund => "refund",
            RecordKind::Payout => "payout",
            RecordKind::Product => "product",
            RecordKind::Stock => "stock",
            RecordKind::User => "user",
            RecordKind::Connection => "connection",
            RecordKind::Endpoint => "endpoint",
        }
    }
}

/// One event, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: EventId,
    pub kind: EventType,
    pub merchant_id: MerchantId,
    pub occurred_at: DateTime<Utc>,
    pub payload: Payload,
    /// `data` as it came, which is what a webhook shows.
    pub data: Value,
    /// SHA-256 over the canonical JSON of the whole event.
    pub fingerprint: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireEvent {
    id: EventId,
    #[serde(rename = "type")]
    kind: String,
    merchant_id: MerchantId,
    occurred_at: DateTime<Utc>,
    data: Value,
}

impl Event {
    /// Reads and checks one event. Every field that does not fit is named.
    pub fn read(value: Value) -> Result<Event> {
        let fingerprint = fingerprint(&value);
        let wire: WireEvent = wire::read(value).map_err(|fault| Error::invalid(vec![fault]))?;
        let kind = EventType::parse(&wire.kind).filter(|kind| !kind.is_ours());
        let Some(kind) = kind else {
            let known = EventType::names_taken();
            return Err(Error::invalid(vec![FieldError::new(
                "/type",
                "unknown_event_type",
                format!(
                    "{:?} is not an event type; known are {known}",
                    shorten(&wire.kind)
                ),
            )]));
        };
        let mut faults = Vec::new();
        check_time(&mut faults, "/occurred_at", wire.occurred_at);
        let payload = match Payload::read(kind, wire.data.clone()) {
            Ok(payload) if faults.is_empty() => payload,
            outcome => {
                let inside = outcome.err().unwrap_or_default();
                faults.extend(inside.into_iter().map(|fault| fault.under("/data")));
                return Err(Error::invalid(faults));
            }
        };
        Ok(Event {
            id: wire.id,
            kind,
            merchant_id: wire.merchant_id,
            occurred_at: wire.occurred_at,
            payload,
            data: wire.data,
            fingerprint,
        })
    }
}

impl Payload {
    fn read(kind: EventType, data: Value) -> Result<Payload, Vec<FieldError>> {
        let (payload, faults) = match kind {
            EventType::OrderCreated | EventType::OrderUpdated | EventType::OrderCompleted => {
                let order: Order = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = order.faults();
                (Payload::Order(order), faults)
            }
            EventType::PaymentProcessed => {
                let payment: Payment = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = payment.faults();
                (Payload::Payment(payment), faults)
            }
            EventType::OrderRefunded => {
                let refund: Refund = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = refund.faults();
                (Payload::Refund(refund), faults)
            }
            EventType::PayoutPaid => {
                let payout: Payout = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = payout.faults();
                (Payload::Payout(payout), faults)
            }
            EventType::ProductUpdated => {
                let product: Product = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = product.faults();
                (Payload::Product(product), faults)
            }
            EventType::InventoryUpdated => {
                let level: InventoryLevel = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = level.faults();
                (Payload::Level(level), faults)
            }
            EventType::InventoryLowStock => {
                let level: LowStock = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = level.faults();
                (Payload::LowStock(level), faults)
            }
            EventType::UserCreated => {
                let user: User = wire::read(data).map_err(|fault| vec![fault])?;
                let faults = user.faults();
                (Payload::User(user), faults)
            }
            EventType::ConnectionConnected
            | EventType::ConnectionReauthRequired
            | EventType::ConnectionDisconnected
            | EventType::RecordChanged
            | EventType::EndpointFailing
            | EventType::EndpointDisabled => {
                let detail = format!("{} begins here and is not taken", kind.as_str());
                return Err(vec![FieldError::new("", "unknown_event_type", detail)]);
            }
        };
        if faults.is_empty() {
            Ok(payload)
        } else {
            Err(faults)
        }
    }

    /// The record that this event is about, as its kind and its id.
    pub fn record(&self) -> (RecordKind, String) {
        match self {
            Payload::Order(order) => (RecordKind::Order, order.id.to_string()),
            Payload::Payment(payment) => (RecordKind::Order, payment.order_id.to_string()),
            Payload::Refund(refund) => (RecordKind::Refund, refund.id.to_string()),
            Payload::Payout(payout) => (RecordKind::Payout, payout.id.to_string()),
            Payload::Product(product) => (RecordKind::Product, product.id.to_string()),
            Payload::Level(level) => (RecordKind::Stock, stock(&level.sku, &level.location)),
            Payload::LowStock(level) => (RecordKind::Stock, stock(&level.sku, &level.location)),
            Payload::User(user) => (RecordKind::User, user.id.to_string()),
        }
    }

    /// The order whose money this event moves, if any.
    pub fn order_id(&self) -> Option<&RecordId> {
        match self {
            Payload::Order(order) => Some(&order.id),
            Payload::Payment(payment) => Some(&payment.order_id),
            Payload::Refund(refund) => refund.order_id.as_ref(),
            Payload::Payout(_)
            | Payload::Product(_)
            | Payload::Level(_)
            | Payload::LowStock(_)
            | Payload::User(_) => None,
        }
    }
}

/// The id of a stock record.
fn stock(sku: &str, location: &str) -> String {
    format!("{sku}@{location}")
}

/// SHA-256 over the canonical form of `value` (keys sorted, no spaces), in hexadecimal.
pub fn fingerprint(value: &Value) -> String {
    // serde_json keeps objects as sorted maps, so its text is canonical; a test holds it to that.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order_event() -> Value {
        json!({
            "id": "evt-1", "type": "order.created", "merchant_id": "demo",
            "occurred_at": "2026-01-01T10:00:00Z",
            "data": {
                "id": "1001", "version": 1, "number": "1001", "currency": "USD",
                "placed_at": "2026-01-01T10:00:00Z", "customer": null,
                "lines": [{
                    "sku": "A-1", "name": "Lamp", "quantity": "2", "unit_price": "10.00",
                    "total": {"amount": 2000, "currency": "USD"}
                }],
                "total": {"amount": 2000, "currency": "USD"}
            }
        })
    }

    /// Sets the value at `pointer` and returns the code and the pointer of the first fault.
    fn fault(pointer: &str, value: Value) -> (String, &'static str) {
        let mut event = order_event();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match event.pointer_mut(parent).unwrap() {
            Value::Object(map) => map.insert(key.to_owned(), value),
            other => panic!("{other} is no object"),
        };
        let error = Event::read(event).unwrap_err();
        let first = error.fields()[0].clone();
        (first.pointer, first.code)
    }

    #[test]
    fn the_fingerprint_does_not_depend_on_the_order_of_keys() {
        let one: Value = serde_json::from_str(r#"{"b":1,"a":{"d":2,"c":3}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"a":{"c":3,"d":2},"b":1}"#).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&two));
    }

    #[test]
    fn a_good_event_is_read() {
        let event = Event::read(order_event()).unwrap();
        assert_eq!(
            event.payload.record(),
            (RecordKind::Order, "1001".to_owned())
        );
    }

    #[test]
    fn each_fault_names_its_place() {
        let cases = [
            (
                "/type",
                json!("order.exploded"),
                "#/type",
                "unknown_event_type",
            ),
            ("/extra", json!(1), "#/extra", "unknown_field"),
            ("/data/extra", json!(1), "#/data/extra", "unknown_field"),
            (
                "/data/currency",
                json!("XQQ"),
                "#/data/currency",
                "invalid_value",
            ),
            (
                "/data/total",
                json!({"amount": 10.5, "currency": "USD"}),
                "#/data/total",
                "invalid_value",
            ),
            (
                "/data/total",
                json!({"amount": 2001, "currency": "USD"}),
                "#/data/total",
                "total_mismatch",
            ),
            (
                "/data/total",
                json!({"amount": 2000, "currency": "EUR"}),
                "#/data/total/currency",
                "currency_mismatch",
            ),
            ("/data/lines", json!([]), "#/data/lines", "wrong_count"),
            (
                "/data/version",
                json!(0),
                "#/data/version",
                "must_be_positive",
            ),
            ("/id", json!("a b"), "#/id", "invalid_value"),
            (
                "/occurred_at",
                json!("0020-01-01T10:00:00Z"),
                "#/occurred_at",
                "out_of_range",
            ),
            (
                "/data/placed_at",
                json!("2126-01-01T10:00:00Z"),
                "#/data/placed_at",
                "out_of_range",
            ),
            (
                "/data/taxes",
                json!([{"name": "VAT", "rate": "1000.1",
                        "amount": {"amount": 0, "currency": "USD"}}]),
                "#/data/taxes/0/rate",
                "out_of_range",
            ),
            (
                "/data/shipping",
                json!({"name": "x".repeat(201), "amount": {"amount": 0, "currency": "USD"}}),
                "#/data/shipping/name",
                "wrong_length",
            ),
            (
                "/data/customer",
                json!({"id": "c", "name": "n", "phone": "1".repeat(51)}),
                "#/data/customer/phone",
                "wrong_length",
            ),
            // More digits than a decimal holds would be rounded away.
            (
                "/data/lines",
                json!([{"sku": "A", "name": "", "unit_price": "10",
                        "quantity": "2.00000000000000000000000000001",
                        "total": {"amount": 2000, "currency": "USD"}}]),
                "#/data/lines/0/quantity",
                "invalid_value",
            ),
        ];
        for (pointer, value, at, code) in cases {
            assert_eq!(fault(pointer, value), (at.to_owned(), code), "{pointer}");
        }
    }
}
