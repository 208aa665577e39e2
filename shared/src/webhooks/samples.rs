//! Events as they look, for a developer who tries an endpoint.

use super::endpoint::Endpoint;
use crate::ctx::Ctx;
use crate::error::Result;
use crate::model::event::{EventType, RecordKind, fingerprint};
use crate::model::ids::EventId;
use crate::model::notice::{Notice, Place, RecordRef, StoredEvent};
use crate::store::{Condition, Write, keys};
use serde_json::{Value, json};

/// What happened in a sample of `kind`, and to which record.
pub fn data(kind: EventType) -> (RecordKind, &'static str, Value) {
    let money = |amount: i64| json!({ "amount": amount, "currency": "USD" });
    let time = "2026-11-30T12:00:00Z";
    let order = |version: u64| {
        json!({
            "id": "sample-1001", "version": version, "number": "1001", "currency": "USD",
            "placed_at": time,
            "customer": { "id": "sample-c-1", "name": "Ada Byron", "email": "ada@example.org" },
            "lines": [{
                "sku": "LAMP-01", "name": "Desk lamp", "quantity": "2", "unit_price": "10.00",
                "total": money(2000),
            }],
            "total": money(2000),
        })
    };
    let connection = |status: &str| {
        json!({
            "id": "con_00000000000000000000000000", "provider": "quickbooks", "category": "accounting",
            "status": status, "tenant_id": "4620816365000000000", "tenant_name": "Sample Ltd",
            "trouble": null,
        })
    };
    let endpoint = |disabled: Value| {
        json!({
            "id": "ep_00000000000000000000000000", "url": "https://developer.example/hook",
            "description": "", "disabled": disabled,
        })
    };
    let (connection_id, endpoint_id) = (
        "con_00000000000000000000000000",
        "ep_00000000000000000000000000",
    );
    let (record, id, data) = match kind {
        EventType::OrderCreated => (RecordKind::Order, "sample-1001", order(1)),
        EventType::OrderUpdated => (RecordKind::Order, "sample-1001", order(2)),
        EventType::OrderCompleted => (RecordKind::Order, "sample-1001", order(3)),
        EventType::OrderRefunded => {
            let refund = json!({
                "id": "sample-r-1", "order_id": "sample-1001", "amount": money(1000),
                "refunded_at": time,
            });
            (RecordKind::Refund, "sample-r-1", refund)
        }
        EventType::PaymentProcessed => {
            let payment = json!({
                "id": "sample-p-1", "order_id": "sample-1001", "outcome": "succeeded",
                "amount": money(2000), "method": "card", "processed_at": time,
            });
            (RecordKind::Order, "sample-1001", payment)
        }
        EventType::PayoutPaid => {
            let payout = json!({
                "id": "sample-po-1", "version": 1, "currency": "USD", "processor": "stripe",
                "amount": money(1930), "paid_at": time,
                "charges": money(2000), "refunds": money(0), "fees": money(70),
            });
            (RecordKind::Payout, "sample-po-1", payout)
        }
        EventType::ProductUpdated => {
            let product = json!({
                "id": "sample-lamp", "version": 1, "name": "Lamp", "description": "For a desk.",
                "active": true,
                "variants": [{ "sku": "LAMP-01", "name": "black", "price": money(1000), "taxable": true }],
            });
            (RecordKind::Product, "sample-lamp", product)
        }
        EventType::InventoryUpdated => {
            let level = json!({ "sku": "LAMP-01", "location": "main", "level": 12, "at": time });
            (RecordKind::Stock, "LAMP-01@main", level)
        }
        EventType::InventoryLowStock => {
            let stock = json!({
                "sku": "LAMP-01", "location": "main", "level": 2, "threshold": 5, "at": time,
            });
            (RecordKind::Stock, "LAMP-01@main", stock)
        }
        EventType::UserCreated => {
            let user =
                json!({ "id": "sample-u-1", "email": "ada@example.org", "created_at": time });
            (RecordKind::User, "sample-u-1", user)
        }
        EventType::ConnectionConnected => {
            (RecordKind::Connection, connection_id, connection("live"))
        }
        EventType::ConnectionReauthRequired => {
            let connection = connection("reauth_required");
            (RecordKind::Connection, connection_id, connection)
        }
        EventType::ConnectionDisconnected => {
            let connection = connection("disconnected");
            (RecordKind::Connection, connection_id, connection)
        }
        EventType::RecordChanged => {
            let change = json!({
                "connection_id": connection_id, "provider": "quickbooks",
                "record": { "type": "order", "id": "sample-1001" }, "what": "changed",
                "fields": ["words"], "outcome": "provider_wins",
                "there": {
                    "type": "salesreceipt", "id": "145", "number": "1001",
                    "shown": {
                        "day": "2026-11-27", "total": "25.50", "currency": "USD", "name": null,
                        "note": "Crossdock order sample-1001, paid at the counter",
                    },
                },
                "changed_at": time,
            });
            (RecordKind::Order, "sample-1001", change)
        }
        EventType::EndpointFailing => (RecordKind::Endpoint, endpoint_id, endpoint(Value::Null)),
        EventType::EndpointDisabled => {
            let disabled = json!({ "reason": "failing", "at": time });
            (RecordKind::Endpoint, endpoint_id, endpoint(disabled))
        }
    };
    (record, id, data)
}

/// Stores a sample event that nobody is told of, so that it can be delivered to `endpoint` alone.
pub async fn store(ctx: &Ctx, endpoint: &Endpoint, kind: EventType) -> Result<Notice> {
    let now = ctx.now();
    let id = EventId::ours(ctx.uuid());
    let (record, of, data) = data(kind);
    let record = RecordRef {
        kind: record,
        id: of.to_owned(),
    };
    let merchant = &endpoint.merchant_id;
    let stored = StoredEvent {
        id: id.clone(),
        kind,
        merchant_id: merchant.clone(),
        occurred_at: now,
        accepted_at: now,
        fingerprint: fingerprint(&data),
        data,
        record,
        // It changed nothing.
        applied: false,
        place: Place {
            key: format!("sample/{of}"),
            n: 1,
            previous_id: None,
        },
    };
    let write = Write::put(keys::event(merchant, &id), Condition::Absent, &stored)?;
    ctx.store.write(write).await?;
    Ok(stored.notice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::Event;

    #[test]
    fn what_the_shop_may_send_is_a_true_sample() {
        for kind in EventType::ALL.into_iter().filter(|kind| !kind.is_ours()) {
            let event = json!({
                "id": "e-1", "type": kind, "merchant_id": "demo",
                "occurred_at": "2026-11-30T12:00:00Z", "data": data(kind).2,
            });
            let read = Event::read(event);
            let faults = read.as_ref().err().map(|error| error.fields().to_vec());
            let (record, id) = read
                .map(|event| event.payload.record())
                .unwrap_or_else(|_| {
                    panic!("{}: {faults:?}", kind.as_str());
                });
            assert_eq!((record, id.as_str()), (data(kind).0, data(kind).1));
        }
    }
}
