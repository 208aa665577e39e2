//! Putting events on the EventBridge bus.

use crate::error::{Error, Result};
use async_trait::async_trait;
use aws_sdk_eventbridge::types::PutEventsRequestEntry;

/// Most entries of one PutEvents.
const BATCH_ENTRIES_MAX: usize = 10;

/// The `source` of everything that this system puts on the bus; the rules match it.
pub const SOURCE: &str = "crossdock";

/// One entry: the event's type and the detail, as JSON.
#[derive(Debug, Clone)]
pub struct Entry {
    pub detail_type: String,
    pub detail: String,
}

#[async_trait]
pub trait Bus: Send + Sync {
    /// Puts every entry and tells for each, in order, whether the bus took it.
    async fn put(&self, bus: &str, entries: Vec<Entry>) -> Vec<Result<()>>;
}

pub struct EventBridge {
    client: aws_sdk_eventbridge::Client,
}

impl EventBridge {
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        EventBridge {
            client: aws_sdk_eventbridge::Client::new(config),
        }
    }

    async fn put_chunk(&self, bus: &str, chunk: &[Entry]) -> Result<Vec<Result<()>>> {
        let mut call = self.client.put_events();
        for entry in chunk {
            let entry = PutEventsRequestEntry::builder()
                .event_bus_name(bus)
                .source(SOURCE)
                .detail_type(&entry.detail_type)
                .detail(&entry.detail)
                .build();
            call = call.entries(entry);
        }
        let answer = call.send().await.map_err(Error::internal)?;
        let taken =
            answer
                .entries
                .unwrap_or_default()
                .into_iter()
                .map(|entry| match entry.error_code {
                    None => Ok(()),
                    Some(code) => {
                        let reason = entry.error_message.unwrap_or_default();
                        Err(Error::internal(format!("{code}: {reason}")))
                    }
                });
        Ok(taken.collect())
    }
}

#[async_trait]
impl Bus for EventBridge {
    async fn put(&self, bus: &str, entries: Vec<Entry>) -> Vec<Result<()>> {
        let mut results = Vec::with_capacity(entries.len());
        for chunk in entries.chunks(BATCH_ENTRIES_MAX) {
            match self.put_chunk(bus, chunk).await {
                Ok(taken) if taken.len() == chunk.len() => results.extend(taken),
                Ok(_) => results.extend(
                    chunk
                        .iter()
                        .map(|_| Err(Error::internal("the bus lost count of its answer"))),
                ),
                Err(error) => {
                    let line = error.chain();
                    results.extend(chunk.iter().map(|_| Err(Error::internal(line.clone()))));
                }
            }
        }
        results
    }
}
