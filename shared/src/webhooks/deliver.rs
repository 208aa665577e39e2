//! Delivery: one signed POST to one endpoint, and a log of the attempt.

use super::endpoint;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::EventType;
use crate::model::http::{Method, Request};
use crate::model::ids::{EndpointId, EventId, MerchantId};
use crate::model::notice::{DeliveryNotice, Notice, StoredEvent};
use crate::net::Limits;
use crate::oauth::vault;
use crate::store::{Condition, Write, keys};
use chrono::{DateTime, SecondsFormat, Utc};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::json;
use standardwebhooks::Webhook;

/// The version of the body's shape.
const API_VERSION: &str = "2026-11-01";
/// Most attempts whose outcome is kept.
const ATTEMPTS_KEPT_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Pending,
    Delivered,
}

/// One try: what came back, or why nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: DateTime<Utc>,
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// One event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub endpoint_id: EndpointId,
    pub merchant_id: MerchantId,
    pub event_id: EventId,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub state: DeliveryState,
    /// All attempts so far; the latest of them stand in `attempts`.
    pub attempts_total: u32,
    pub attempts: Vec<Attempt>,
    pub created_at: DateTime<Utc>,
}

impl Delivery {
    pub fn new(endpoint_id: EndpointId, notice: &Notice, now: DateTime<Utc>) -> Delivery {
        Delivery {
            endpoint_id,
            merchant_id: notice.merchant_id.clone(),
            event_id: notice.event_id.clone(),
            kind: notice.kind,
            state: DeliveryState::Pending,
            attempts_total: 0,
            attempts: Vec::new(),
            created_at: now,
        }
    }
}

/// The body of a webhook, the same bytes at every attempt.
pub fn body(event: &StoredEvent) -> Vec<u8> {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let body = json!({
        "id": event.id,
        "type": event.kind,
        "timestamp": time(event.occurred_at),
        "api_version": API_VERSION,
        "merchant_id": event.merchant_id,
        "sequence": event.place,
        "data": event.data,
    });
    body.to_string().into_bytes()
}

/// Makes one attempt. An error means that the message stays in the queue, or that it never can be
/// delivered.
pub async fn deliver(ctx: &Ctx, notice: &DeliveryNotice) -> Result<()> {
    let DeliveryNotice {
        merchant_id,
        endpoint_id,
        event_id,
    } = notice;
    let key = keys::delivery(merchant_id, endpoint_id, event_id);
    let Some(item) = ctx.store.get(&key).await? else {
        return Err(Error::not_found(format!(
            "the delivery of event {event_id}"
        )));
    };
    let mut delivery: Delivery = item.read()?;
    if delivery.state == DeliveryState::Delivered {
        return Ok(());
    }
    let endpoint = endpoint::load(ctx, merchant_id, endpoint_id).await?;
    let event = ctx.store.get(&keys::event(merchant_id, event_id)).await?;
    let event: StoredEvent = event
        .ok_or_else(|| Error::not_found(format!("event {event_id}")))?
        .read()?;
    let body = body(&event);
    let data_key = vault::unwrap(ctx, endpoint.id.as_str(), &endpoint.key).await?;
    let secret = vault::open(&data_key, endpoint.id.as_str(), &endpoint.secret)?;
    let now = ctx.now();
    let signature = Webhook::new(secret.expose_secret())
        .and_then(|webhook| webhook.sign(event_id.as_str(), now.timestamp(), &body))
        .map_err(Error::internal)?;
    let attempt = delivery.attempts_total + 1;
    let request = Request::new(Method::Post, endpoint.url)
        .header("webhook-id", event_id.as_str())
        .header("webhook-timestamp", now.timestamp().to_string())
        .header("webhook-signature", signature)
        .header("webhook-attempt", attempt.to_string())
        .body("application/json", body);
    let outcome = ctx.net.send(request, Limits::WEBHOOK).await;
    let (status, error) = match &outcome {
        Ok(answer) if answer.is_success() => (Some(answer.status), None),
        Ok(answer) => (
            Some(answer.status),
            Some(format!("status {} is no success", answer.status)),
        ),
        Err(error) => (None, Some(error.detail().to_owned())),
    };
    if error.is_none() {
        delivery.state = DeliveryState::Delivered;
    }
    delivery.attempts_total = attempt;
    delivery.attempts.push(Attempt {
        at: now,
        status,
        error: error.clone(),
    });
    if delivery.attempts.len() > ATTEMPTS_KEPT_MAX {
        delivery.attempts.remove(0);
    }
    // A twin of this message may have written its attempt in between; then this log entry is lost,
    // and nothing else.
    ctx.store
        .write(Write::put(key, Condition::Rev(item.rev), &delivery)?)
        .await?;
    match error {
        None => Ok(()),
        Some(error) => Err(Error::new(
            Code::UpstreamFailed,
            format!("attempt {attempt} failed: {error}"),
        )),
    }
}
