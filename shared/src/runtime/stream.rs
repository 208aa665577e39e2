//! The entry of the relay: the outbox table's stream.

use super::{begin, context};
use crate::engine::outbox;
use crate::error::{Error, Result};
use crate::model::notice::Notice;
use crate::store::dynamo::stream_document;
use lambda_runtime::LambdaEvent;
use serde_json::{Value, json};

/// `outbox_relay`: publishes each new row. The first failure ends the batch, since a stream goes on
/// from the first failed record; what is published again does no harm.
pub async fn relay() -> Result<(), lambda_runtime::Error> {
    let ctx = context().await?;
    let ctx = &ctx;
    let serve = move |event: LambdaEvent<Value>| async move {
        begin(ctx, &event.context);
        let records = event.payload["Records"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut notices = Vec::new();
        let mut numbers = Vec::new();
        for record in &records {
            // Deletions are our own.
            let image = &record["dynamodb"]["NewImage"];
            let Some(document) = stream_document(image) else {
                continue;
            };
            let notice: Notice = serde_json::from_value(document).map_err(Error::internal)?;
            notices.push(notice);
            numbers.push(record["dynamodb"]["SequenceNumber"].clone());
        }
        let results = outbox::publish(ctx, &notices).await;
        for (notice, _) in notices
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
        {
            tracing::info!(
                merchant_id = %notice.merchant_id, event_id = %notice.event_id, "published"
            );
        }
        let failed = results.iter().position(Result::is_err);
        let failures: Vec<Value> = failed
            .iter()
            .map(|index| {
                if let Err(error) = &results[*index] {
                    let notice = &notices[*index];
                    tracing::warn!(
                        merchant_id = %notice.merchant_id, event_id = %notice.event_id,
                        error = %error.chain(), "not published; the stream repeats it"
                    );
                }
                json!({ "itemIdentifier": numbers[*index] })
            })
            .collect();
        Ok::<Value, lambda_runtime::Error>(json!({ "batchItemFailures": failures }))
    };
    lambda_runtime::run(lambda_runtime::service_fn(serve)).await
}
