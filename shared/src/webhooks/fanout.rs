//! Fan-out: one accepted event becomes one delivery for each endpoint that wants it. What has no order is
//! no more than a message until its first attempt; what has order is written into its line.

use super::deliver;
use super::endpoint::{self, Endpoint, Ordering};
use super::filter::Filter;
use super::order;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::ids::MerchantId;
use crate::model::notice::{DeliveryNotice, Notice, StoredEvent};
use crate::queue::Message;
use crate::store::keys;
use chrono::{DateTime, Utc};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Why an endpoint does not get an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeptBack {
    /// It was off when the event was accepted. What comes when it is off by then ends visibly.
    Disabled,
    EventType,
    /// It was accepted before the endpoint was there.
    BeforeEndpoint,
    Filter,
}

impl KeptBack {
    pub const ALL: [KeptBack; 4] = [
        KeptBack::Disabled,
        KeptBack::EventType,
        KeptBack::BeforeEndpoint,
        KeptBack::Filter,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            KeptBack::Disabled => "disabled",
            KeptBack::EventType => "event_type",
            KeptBack::BeforeEndpoint => "before_endpoint",
            KeptBack::Filter => "filter",
        }
    }
}

/// Everything for which `endpoint` does not get `event`. `filter` is the one that is asked.
pub fn kept_back(
    endpoint: &Endpoint,
    event: &StoredEvent,
    filter: Option<&Filter>,
) -> Vec<KeptBack> {
    let mut found = Vec::new();
    if is_off(endpoint, event.accepted_at) {
        found.push(KeptBack::Disabled);
    }
    if !endpoint.event_types.contains(&event.kind) {
        found.push(KeptBack::EventType);
    }
    if endpoint.created_at > event.accepted_at {
        found.push(KeptBack::BeforeEndpoint);
    }
    if filter.is_some_and(|filter| !filter.takes(&deliver::told(event, false))) {
        found.push(KeptBack::Filter);
    }
    found
}

fn is_off(endpoint: &Endpoint, at: DateTime<Utc>) -> bool {
    endpoint.off.as_ref().is_some_and(|off| off.at <= at)
}

/// Whether `endpoint` gets `event`.
pub(super) fn wants(endpoint: &Endpoint, event: &StoredEvent) -> bool {
    // One that is stored was understood. If it is not any more, more is sent rather than less.
    let filter = endpoint.filter.as_deref().map(Filter::parse);
    let filter = filter.and_then(|filter| {
        filter
            .inspect_err(|detail| tracing::error!(endpoint = %endpoint.id, detail, "a filter is not understood"))
            .ok()
    });
    kept_back(endpoint, event, filter.as_ref()).is_empty()
}

/// Puts a notice of each delivery of a batch of events into the delivery queue: one result for each event, in
/// order.
///
/// A doubled notice makes no second delivery: its key is the endpoint and the event. The queue is
/// told again all the same, since the first time may have ended before it was.
pub async fn fan_out(ctx: &Ctx, notices: &[Notice]) -> Vec<Result<()>> {
    if ctx.config.webhooks_enabled().is_err() {
        return notices.iter().map(|_| Ok(())).collect();
    }
    // All of them were accepted before this, so whoever wants one of them stands there.
    let merchants: BTreeSet<&MerchantId> = notices.iter().map(|one| &one.merchant_id).collect();
    let lists = merchants
        .iter()
        .map(|merchant| endpoint::list(ctx, merchant));
    let lists = join_all(lists).await;
    let endpoints: BTreeMap<&MerchantId, Result<Vec<Endpoint>>> =
        merchants.into_iter().zip(lists).collect();
    let made = notices
        .iter()
        .map(async |notice| match &endpoints[&notice.merchant_id] {
            Ok(endpoints) => make(ctx, endpoints, notice).await,
            Err(error) => (Vec::new(), Err(Error::internal(error.chain()))),
        });
    let mut made = join_all(made).await;
    // A doubled notice that comes in one batch with its twin has nothing to add.
    let (mut seen, mut messages) = (BTreeSet::new(), Vec::new());
    for (deliveries, result) in &mut made {
        for delivery in deliveries {
            match deliver::message(delivery, 0) {
                Ok(message) => {
                    messages.extend(seen.insert(message.body.clone()).then_some(message))
                }
                Err(error) => *result = Err(error),
            }
        }
    }
    let sent = send(ctx, messages).await.map_err(|error| error.chain());
    let result = |(deliveries, result): (Vec<_>, Result<()>)| match &sent {
        Err(line) if !deliveries.is_empty() => Err(Error::internal(line.clone())),
        _ => result,
    };
    made.into_iter().map(result).collect()
}

async fn send(ctx: &Ctx, messages: Vec<Message>) -> Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    let queue = ctx.config.webhook_deliver_queue()?;
    ctx.queue.send_later(queue, messages).await
}

/// Makes the deliveries of one event to those of its merchant's `endpoints` that want it. Returns what is
/// to be tried, also where something failed.
async fn make(
    ctx: &Ctx,
    endpoints: &[Endpoint],
    notice: &Notice,
) -> (Vec<DeliveryNotice>, Result<()>) {
    let mut told = Vec::new();
    let result = make_all(ctx, endpoints, notice, &mut told).await;
    (told, result)
}

async fn make_all(
    ctx: &Ctx,
    endpoints: &[Endpoint],
    notice: &Notice,
    told: &mut Vec<DeliveryNotice>,
) -> Result<()> {
    let mut endpoints: Vec<&Endpoint> = endpoints
        .iter()
        .filter(|endpoint| !is_off(endpoint, notice.accepted_at))
        .filter(|endpoint| endpoint.event_types.contains(&notice.kind))
        .filter(|endpoint| endpoint.created_at <= notice.accepted_at)
        .collect();
    let reads =
        |endpoint: &&Endpoint| endpoint.filter.is_some() || endpoint.ordering == Ordering::ByKey;
    let mut in_order = None;
    if endpoints.iter().any(reads) {
        let key = keys::event(&notice.merchant_id, &notice.event_id);
        let event = ctx.store.get(&key).await?;
        let event: StoredEvent = event
            .ok_or_else(|| Error::not_found(format!("event {}", notice.event_id)))?
            .read()?;
        endpoints.retain(|endpoint| wants(endpoint, &event));
        let by_key = |endpoint: &&Endpoint| endpoint.ordering == Ordering::ByKey;
        let (with, without): (Vec<_>, Vec<_>) = endpoints.into_iter().partition(by_key);
        endpoints = without;
        in_order = Some((event, with));
    }
    // The first attempt makes the row: a row before it would be a write more for each delivery.
    let plain = endpoints.into_iter();
    told.extend(plain.map(|endpoint| DeliveryNotice::new(notice, endpoint.id.clone())));
    // What has order comes last, and what fails of it keeps nothing else back.
    let mut failed = Ok(());
    if let Some((event, with)) = &in_order {
        for endpoint in with {
            match order::line_up(ctx, endpoint, event).await {
                Ok(first) => told.extend(first),
                Err(error) => failed = Err(error),
            }
        }
    }
    failed
}
