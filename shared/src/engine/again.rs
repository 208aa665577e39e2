//! Sending records to the queue of their provider once more. A message carries ids and not the truth,
//! so one that was not needed has no effect.

use super::{ledger, session};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::event::{EventType, RecordKind};
use crate::model::ids::EventId;
use crate::model::notice::{Envelope, Notice, RecordRef};
use crate::model::order::Refund;
use crate::model::summary::SummaryName;
use crate::oauth::connection::{Connection, Status};
use crate::providers::accounting::accounting;
use crate::queue::Message;
use crate::store::{Item, keys};
use crate::sync::push::{Open, RowRef};
use std::collections::BTreeSet;

/// Most records of one retry.
pub const RETRY_RECORDS_MAX: usize = 100;
/// Most rows of what is troubled that one retry looks at.
const ROWS_MAX: usize = 1000;

/// What a retry is to send.
#[derive(Debug)]
pub enum Wanted {
    /// These, which the ledger knows; at most [`RETRY_RECORDS_MAX`].
    Records(Vec<RowRef>),
    /// What is troubled with this code, after this place.
    Code(String, Option<String>),
}

/// What a retry sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    pub count: usize,
    /// The place after which another retry goes on; nothing when all was looked at.
    pub next: Option<String>,
}

/// Fails unless records can be sent to `connection`: one that is live, or will be again, whose provider
/// takes any.
pub fn check(connection: &Connection) -> Result<()> {
    if accounting(&connection.provider).is_none() {
        return Err(Error::new(
            Code::Conflict,
            format!("no records are sent to {}", connection.manifest()?.title),
        ));
    }
    match connection.status {
        Status::Live | Status::Paused | Status::ReauthRequired => Ok(()),
        Status::Pending | Status::Disconnected => Err(Error::new(
            Code::Conflict,
            "nothing is sent to this connection any more, or not yet; connect it first",
        )),
    }
}

/// Sends what is `wanted` of `connection` again, at once. Sending it twice changes nothing more.
pub async fn retry(ctx: &Ctx, connection: &Connection, wanted: Wanted) -> Result<Sent> {
    check(connection)?;
    let (records, next) = match wanted {
        Wanted::Records(records) => {
            let rows = ctx
                .store
                .get_many(&ledger::rows(connection, &records))
                .await?;
            let unknown = rows.iter().enumerate().filter(|(_, row)| row.is_none());
            let faults: Vec<FieldError> = unknown
                .map(|(index, _)| {
                    let place = format!("/records/{index}");
                    let detail = "nothing of this record was ever to stand at this connection";
                    FieldError::new(&place, "unknown_record", detail)
                })
                .collect();
            if !faults.is_empty() {
                return Err(Error::invalid(faults));
            }
            (with_orders(ctx, connection, records).await?, None)
        }
        Wanted::Code(code, after) => {
            let group = keys::troubled(&connection.merchant_id, &connection.id);
            let kinds = &ledger::KINDS;
            let (mut found, mut looked, mut after) = (Vec::new(), 0, after);
            loop {
                let left = ROWS_MAX - looked;
                let page = ledger::page(ctx, &group, kinds, after.as_deref(), left).await?;
                looked += page.0.len();
                for item in &page.0 {
                    found.extend(
                        Some(item.read()?)
                            .filter(|open: &Open| open.code.as_deref() == Some(code.as_str())),
                    );
                }
                after = page.1;
                if after.is_none() || looked >= ROWS_MAX {
                    break;
                }
            }
            (found, after)
        }
    };
    if !records.is_empty() {
        session::forget_settings(ctx, connection).await?;
    }
    let now = ctx.now();
    let event_id = EventId::ours(ctx.uuid());
    let notices = records
        .into_iter()
        .map(|open| notice(connection, &event_id, open, now));
    let notices: Vec<Notice> = notices.collect();
    let count = notices.len();
    send(ctx, &connection.provider, notices).await?;
    tracing::info!(
        merchant_id = %connection.merchant_id, connection_id = %connection.id, count, "sent again"
    );
    Ok(Sent { count, next })
}

/// A notice that brings up a record of `connection`, as if `event_id` had changed it.
pub(super) fn notice(
    connection: &Connection,
    event_id: &EventId,
    open: Open,
    now: chrono::DateTime<chrono::Utc>,
) -> Notice {
    Notice {
        merchant_id: connection.merchant_id.clone(),
        event_id: event_id.clone(),
        kind: match open.record.kind {
            RecordKind::Refund => EventType::OrderRefunded,
            RecordKind::Payout => EventType::PayoutPaid,
            _ => EventType::OrderUpdated,
        },
        record: open.record,
        order_id: open.order_id,
        accepted_at: now,
        after: None,
        resync: None,
        backfill: None,
        summing: None,
    }
}

/// The records that `rows` belong to, each once and with its order: an order itself, and the one of a
/// refund.
async fn with_orders(ctx: &Ctx, connection: &Connection, rows: Vec<RowRef>) -> Result<Vec<Open>> {
    let records: BTreeSet<RecordRef> = rows.iter().map(RowRef::owner).collect();
    let documents = records.iter().map(|record| {
        let (merchant, id) = (&connection.merchant_id, &connection.id);
        keys::posted(merchant, id, record.kind, &record.id)
    });
    let documents = ctx.store.get_many(&documents.collect::<Vec<_>>()).await?;
    let pairs = records.into_iter().zip(documents);
    pairs
        .map(|(record, document)| with_order(record, document.as_ref()))
        .collect()
}

/// `record`, of which `document` is what the shop says, with the order that it belongs to.
pub(super) fn with_order(record: RecordRef, document: Option<&Item>) -> Result<Open> {
    let order_id = match (record.kind, document) {
        (RecordKind::Refund, _) if SummaryName::parse(&record.id).is_some() => None,
        (RecordKind::Refund, Some(item)) => item.read::<Refund>()?.order_id,
        (RecordKind::Order, _) => Some(record.id.parse().map_err(Error::internal)?),
        _ => None,
    };
    let code = None;
    Ok(Open {
        record,
        order_id,
        code,
    })
}

/// Sends `notices` to the queue of `provider`.
pub(super) async fn send(ctx: &Ctx, provider: &str, notices: Vec<Notice>) -> Result<()> {
    send_later(ctx, provider, notices, 0).await
}

/// The same, to be received after `delay_seconds`.
pub(super) async fn send_later(
    ctx: &Ctx,
    provider: &str,
    notices: Vec<Notice>,
    delay_seconds: u16,
) -> Result<()> {
    let messages = notices.into_iter().map(|detail| {
        let body = serde_json::to_string(&Envelope { detail }).map_err(Error::internal)?;
        Ok(Message {
            body,
            delay_seconds,
            group: None,
        })
    });
    let messages = messages.collect::<Result<Vec<_>>>()?;
    let queue = ctx.config.sync_queue(provider)?;
    ctx.queue.send_later(queue, messages).await
}
