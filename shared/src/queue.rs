//! Sending to SQS queues.

use crate::error::{Error, Result};
use async_trait::async_trait;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;

/// Most messages of one SendMessageBatch.
const BATCH_MESSAGES_MAX: usize = 10;

/// One message and how long the queue keeps it to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub body: String,
    /// At most 900, as SQS allows.
    pub delay_seconds: u16,
    /// Whose it is, where no one's messages may keep those of others waiting (SQS fair queues). Without it, it
    /// is nobody else's.
    pub group: Option<String>,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends every message, or fails: then some may have been sent, and sending all again is right.
    async fn send(&self, queue_url: &str, messages: Vec<String>) -> Result<()> {
        let at_once = messages.into_iter().map(|body| Message {
            body,
            delay_seconds: 0,
            group: None,
        });
        self.send_later(queue_url, at_once.collect()).await
    }

    /// The same, each message after its own delay.
    async fn send_later(&self, queue_url: &str, messages: Vec<Message>) -> Result<()>;
}

pub struct Sqs {
    client: aws_sdk_sqs::Client,
}

impl Sqs {
    pub fn new(config: &aws_config::SdkConfig) -> Self {
        Sqs {
            client: aws_sdk_sqs::Client::new(config),
        }
    }
}

#[async_trait]
impl Queue for Sqs {
    async fn send_later(&self, queue_url: &str, messages: Vec<Message>) -> Result<()> {
        for chunk in messages.chunks(BATCH_MESSAGES_MAX) {
            let mut call = self.client.send_message_batch().queue_url(queue_url);
            for (index, message) in chunk.iter().enumerate() {
                let entry = SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(&message.body)
                    .delay_seconds(i32::from(message.delay_seconds))
                    .set_message_group_id(message.group.clone())
                    .build()
                    .map_err(Error::internal)?;
                call = call.entries(entry);
            }
            let answer = call.send().await.map_err(Error::internal)?;
            if let Some(failed) = answer.failed.first() {
                let reason = failed.message.as_deref().unwrap_or("no reason given");
                return Err(Error::internal(format!("{}: {reason}", failed.code)));
            }
        }
        Ok(())
    }
}
