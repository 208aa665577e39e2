//! Fan-out: one accepted event becomes one delivery for each endpoint that wants its type.

use super::deliver::Delivery;
use super::endpoint;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::notice::Notice;
use crate::store::{Condition, WriteError};
use futures::future::join_all;

/// Deliveries that are stored side by side.
const SIDE_BY_SIDE_MAX: usize = 16;

/// Makes the deliveries of one event and puts a notice of each into the delivery queue.
///
/// A doubled notice makes no second delivery: its key is the endpoint and the event. The queue is
/// told again all the same, since the first time may have ended between the two.
pub async fn fan_out(ctx: &Ctx, notice: &Notice) -> Result<()> {
    let endpoints = endpoint::list(ctx, &notice.merchant_id).await?;
    // An endpoint gets what happens after it was registered, and while it is on.
    let wanted = endpoints.iter().filter(|endpoint| {
        endpoint.off.is_none()
            && endpoint.event_types.contains(&notice.kind)
            && endpoint.created_at <= notice.accepted_at
    });
    let deliveries: Vec<Delivery> = wanted
        .map(|endpoint| Delivery::new(endpoint.id.clone(), notice, ctx.now()))
        .collect();
    for chunk in deliveries.chunks(SIDE_BY_SIDE_MAX) {
        let stored = chunk.iter().map(|delivery| store(ctx, delivery));
        join_all(stored).await.into_iter().collect::<Result<()>>()?;
    }
    let messages = deliveries
        .iter()
        .map(|delivery| serde_json::to_string(&delivery.notice()).map_err(Error::internal));
    let messages = messages.collect::<Result<Vec<_>>>()?;
    if messages.is_empty() {
        return Ok(());
    }
    ctx.queue
        .send(ctx.config.webhook_deliver_queue()?, messages)
        .await
}

async fn store(ctx: &Ctx, delivery: &Delivery) -> Result<()> {
    for write in delivery.writes(Condition::Absent)? {
        match ctx.store.write(write).await {
            Ok(()) | Err(WriteError::Condition(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
