//! Fan-out: one accepted event becomes one delivery for each endpoint that wants its type.

use super::deliver::Delivery;
use super::endpoint;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::notice::{DeliveryNotice, Notice};
use crate::store::{Condition, Write, WriteError, keys};

/// Makes the deliveries of one event and puts a notice of each into the delivery queue.
///
/// A doubled notice makes no second delivery: its key is the endpoint and the event. The queue is
/// told again all the same, since the first time may have ended between the two.
pub async fn fan_out(ctx: &Ctx, notice: &Notice) -> Result<()> {
    let mut messages = Vec::new();
    for endpoint in endpoint::list(ctx, &notice.merchant_id).await? {
        // An endpoint gets what happens after it was registered.
        if !endpoint.event_types.contains(&notice.kind) || endpoint.created_at > notice.accepted_at
        {
            continue;
        }
        let delivery = Delivery::new(endpoint.id.clone(), notice, ctx.now());
        let key = keys::delivery(&notice.merchant_id, &endpoint.id, &notice.event_id);
        match ctx
            .store
            .write(Write::put(key, Condition::Absent, &delivery)?)
            .await
        {
            Ok(()) | Err(WriteError::Condition(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let message = DeliveryNotice {
            merchant_id: notice.merchant_id.clone(),
            endpoint_id: endpoint.id,
            event_id: notice.event_id.clone(),
        };
        messages.push(serde_json::to_string(&message).map_err(Error::internal)?);
    }
    if messages.is_empty() {
        return Ok(());
    }
    ctx.queue
        .send(ctx.config.webhook_deliver_queue()?, messages)
        .await
}
