//! The entries of functions that read SQS queues. Each message is judged by itself: what failed goes
//! back to the queue, what is done or parked does not.

use super::{begin, context};
use crate::ctx::Ctx;
use crate::engine;
use crate::error::{Disposition, Error, Result};
use crate::model::notice::{Envelope, HookNotice, Notice, RetryNotice};
use crate::providers::accounting::accounting;
use crate::webhooks::{self, deliver::Arrival};
use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use futures::future::{BoxFuture, join_all};
use lambda_runtime::LambdaEvent;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// The `sync_<provider>` functions: pushes what the notices are about.
pub async fn push(provider: &'static str) -> Result<(), lambda_runtime::Error> {
    if accounting(provider).is_none() {
        return Err(format!("nothing is carried to a provider named {provider}").into());
    }
    run(move |ctx, bodies| Box::pin(push_batch(ctx, provider, bodies))).await
}

async fn push_batch(ctx: &Ctx, provider: &str, bodies: Vec<String>) -> Vec<Result<()>> {
    let work = async |envelopes: Vec<Envelope>| {
        let notices: Vec<Notice> = envelopes.into_iter().map(|one| one.detail).collect();
        engine::push::push(ctx, provider, &notices).await
    };
    let results = readable(bodies.iter().map(|body| parse(body)), work).await;
    let queue = ctx.config.sync_queue(provider);
    engine::budget::postpone(ctx, queue, &bodies, results).await
}

/// `webhook_fanout`: makes the deliveries of a batch of events.
pub async fn fanout() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let work = async |envelopes: Vec<Envelope>| {
                let notices: Vec<Notice> = envelopes.into_iter().map(|one| one.detail).collect();
                webhooks::fanout::fan_out(ctx, &notices).await
            };
            readable(bodies.iter().map(|body| parse(body)), work).await
        })
    }
    run(handle).await
}

/// `webhook_deliver`: makes the deliveries of a batch side by side.
pub async fn deliver() -> Result<(), lambda_runtime::Error> {
    fn handle<'a>(ctx: &'a Ctx, messages: &'a [SqsMessage]) -> BoxFuture<'a, Vec<Result<()>>> {
        Box::pin(async move {
            let work =
                async |arrivals: Vec<Arrival>| webhooks::deliver::deliver(ctx, &arrivals).await;
            readable(messages.iter().map(arrival), work).await
        })
    }
    run_messages(handle).await
}

fn arrival(message: &SqsMessage) -> Result<Arrival> {
    let count = message.attributes.get("ApproximateReceiveCount");
    let count = count.and_then(|count| count.parse::<u32>().ok());
    Ok(Arrival {
        notice: parse(message.body.as_deref().unwrap_or_default())?,
        again: count.is_some_and(|count| count > 1),
    })
}

/// `webhook_retry`: the attempts after the first, and what is sent again. It is apart from the first
/// attempts, so that what fails never stands in the way of what is new.
pub async fn retry() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let work =
                async |notices: Vec<RetryNotice>| webhooks::recover::retry(ctx, &notices).await;
            readable(bodies.iter().map(|body| parse(body)), work).await
        })
    }
    run(handle).await
}

/// `webhook_plan`: hands out the attempts that are due, however many times the schedule has called.
pub async fn webhook_plan() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let planned = webhooks::schedule::plan(ctx).await;
            if let Ok(due @ 1..) = planned {
                tracing::info!(due, "handed out");
            }
            each(&bodies, &planned)
        })
    }
    run(handle).await
}

/// `outbox_sweep`: one sweep, however many times the schedule has called meanwhile.
pub async fn sweep() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let swept = engine::outbox::sweep(ctx).await;
            if let Ok(published @ 1..) = swept {
                tracing::warn!(published, "the stream had left events behind");
            }
            each(&bodies, &swept)
        })
    }
    run(handle).await
}

/// `refresh_plan`: hands out what is due, however many times the schedule has called meanwhile.
pub async fn refresh_plan() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let planned = engine::refresh::plan(ctx).await;
            if let Ok(due @ 1..) = planned {
                tracing::info!(due, "handed out");
            }
            each(&bodies, &planned)
        })
    }
    run(handle).await
}

/// `refresh_run`: renews the tokens of connections that are due.
pub async fn refresh() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let one = async |body: String| engine::refresh::renew(ctx, &parse(&body)?).await;
            join_all(bodies.into_iter().map(one)).await
        })
    }
    run(handle).await
}

/// `reconcile_plan`: begins the reconciliations of the day, however many times the schedule has called.
pub async fn reconcile_plan() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let planned = engine::reconcile::plan(ctx).await;
            if let Ok(begun @ 1..) = planned {
                tracing::info!(begun, "reconciliations begin");
            }
            each(&bodies, &planned)
        })
    }
    run(handle).await
}

/// `reconcile_run`: compares a day for each message, one after the other.
pub async fn reconcile() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let mut results = Vec::new();
            for body in &bodies {
                results.push(match parse(body) {
                    Ok(notice) => engine::reconcile::run(ctx, &notice).await,
                    Err(error) => Err(error),
                });
            }
            engine::budget::postpone(ctx, ctx.config.reconcile_queue(), &bodies, results).await
        })
    }
    run(handle).await
}

/// `hooks_apply`: notes what providers say has changed.
pub async fn hooks() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let one =
                async |body: String| engine::hooks::apply(ctx, &parse::<HookNotice>(&body)?).await;
            join_all(bodies.into_iter().map(one)).await
        })
    }
    run(handle).await
}

/// `pull_plan`: hands out the connections whose changes are to be read.
pub async fn pull_plan() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let planned = engine::pull::plan(ctx).await;
            if let Ok(count @ 1..) = planned {
                tracing::info!(count, "handed out");
            }
            each(&bodies, &planned)
        })
    }
    run(handle).await
}

/// `pull_run`: reads what changed at providers.
pub async fn pull() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let mut results = Vec::with_capacity(bodies.len());
            for body in &bodies {
                results.push(match parse(body) {
                    Ok(notice) => engine::pull::run(ctx, &notice).await,
                    Err(error) => Err(error),
                });
            }
            let queue = ctx.config.pull_queue();
            engine::budget::postpone(ctx, queue, &bodies, results).await
        })
    }
    run(handle).await
}

/// `vault_rotate`: one step of a rotation of the vault's root key for each message.
pub async fn rotate() -> Result<(), lambda_runtime::Error> {
    fn handle(ctx: &Ctx, bodies: Vec<String>) -> BoxFuture<'_, Vec<Result<()>>> {
        Box::pin(async move {
            let mut results = Vec::new();
            for body in bodies {
                results.push(match parse(&body) {
                    Ok(rotation) => engine::rotation::step(ctx, rotation).await,
                    Err(error) => Err(error),
                });
            }
            results
        })
    }
    run(handle).await
}

/// One outcome for each of the messages that asked for the same.
fn each<T>(bodies: &[String], outcome: &Result<T>) -> Vec<Result<()>> {
    let line = outcome.as_ref().err().map(Error::chain);
    let result = |_| match &line {
        None => Ok(()),
        Some(line) => Err(Error::internal(line.clone())),
    };
    bodies.iter().map(result).collect()
}

/// Lets `work` do all that can be read of a batch at once, and returns one result for each message.
async fn readable<T>(
    read: impl Iterator<Item = Result<T>>,
    work: impl AsyncFnOnce(Vec<T>) -> Vec<Result<()>>,
) -> Vec<Result<()>> {
    let (mut notices, mut unread) = (Vec::new(), Vec::new());
    for one in read {
        match one {
            Ok(notice) => {
                notices.push(notice);
                unread.push(None);
            }
            Err(error) => unread.push(Some(Err(error))),
        }
    }
    let mut done = work(notices).await.into_iter();
    let result = |unread: Option<Result<()>>| unread.or_else(|| done.next()).unwrap_or(Ok(()));
    unread.into_iter().map(result).collect()
}

/// A message that we wrote and cannot read is a defect: it ends in the dead-letter queue.
fn parse<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(Error::internal)
}

async fn run<H>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: for<'a> Fn(&'a Ctx, Vec<String>) -> BoxFuture<'a, Vec<Result<()>>>,
{
    let body = |message: &SqsMessage| message.body.clone().unwrap_or_default();
    run_messages(move |ctx, messages| handler(ctx, messages.iter().map(body).collect())).await
}

/// The same for whoever wants to know more of a message than its body.
async fn run_messages<H>(handler: H) -> Result<(), lambda_runtime::Error>
where
    H: for<'a> Fn(&'a Ctx, &'a [SqsMessage]) -> BoxFuture<'a, Vec<Result<()>>>,
{
    let ctx = context().await?;
    let (ctx, handler) = (&ctx, &handler);
    let serve = move |event: LambdaEvent<SqsEvent>| async move {
        begin(ctx, &event.context);
        let messages = event.payload.records;
        let results = handler(ctx, &messages).await;
        Ok::<_, lambda_runtime::Error>(answer(&messages, results))
    };
    lambda_runtime::run(lambda_runtime::service_fn(serve)).await
}

/// Whom and what a message is about, for the log.
fn about(message: &SqsMessage) -> (String, String) {
    let body = message.body.as_deref().unwrap_or_default();
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let notice = body.get("detail").unwrap_or(&body);
    let text = |field: &str| notice[field].as_str().unwrap_or_default().to_owned();
    (text("merchant_id"), text("event_id"))
}

/// Reports the messages that go back to the queue. The log has one line for all that is done, since lines
/// are paid for, and one for each that is not.
fn answer(messages: &[SqsMessage], results: Vec<Result<()>>) -> SqsBatchResponse {
    let mut failures = Vec::new();
    let (mut merchants, mut events) = (BTreeSet::new(), Vec::new());
    for (message, result) in messages.iter().zip(results) {
        let id = message.message_id.clone().unwrap_or_default();
        let (merchant, event) = about(message);
        let Err(error) = result else {
            // The schedule's messages are about no event.
            if !event.is_empty() {
                merchants.insert(merchant);
                events.push(event);
            }
            continue;
        };
        match error.disposition() {
            Disposition::Retry => {
                tracing::warn!(
                    message_id = %id, merchant_id = %merchant, event_id = %event,
                    error = %error.chain(), "goes back to the queue"
                );
                let mut failure = BatchItemFailure::default();
                failure.item_identifier = id;
                failures.push(failure);
            }
            Disposition::Park => {
                tracing::error!(
                    message_id = %id, merchant_id = %merchant, event_id = %event,
                    error = %error.chain(), "cannot be done"
                );
            }
        }
    }
    if !events.is_empty() {
        // No id has a space in it.
        let merchants: Vec<String> = merchants.into_iter().collect();
        tracing::info!(
            merchant_ids = merchants.join(" "),
            event_ids = events.join(" "),
            "done"
        );
    }
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Lines, log};
    use serde_json::json;
    use tracing_subscriber::filter::EnvFilter;

    /// What a million deliveries cost counts with lines of this length (`tests/sim/cost.rs`).
    #[test]
    fn what_is_done_of_a_batch_is_one_line_of_the_log() {
        let messages: Vec<SqsMessage> = (0..10)
            .map(|number| {
                let mut message = SqsMessage::default();
                let event = format!("evt_{number:026}");
                let body = json!({ "merchant_id": "m_0123456789", "event_id": event });
                message.body = Some(body.to_string());
                message.message_id = Some(number.to_string());
                message
            })
            .collect();
        let mut results: Vec<Result<()>> = messages.iter().map(|_| Ok(())).collect();
        let said = |results| {
            let lines = Lines::default();
            let writer = lines.clone();
            let log = log(EnvFilter::new("info"), move || writer.clone());
            let answer = tracing::subscriber::with_default(log, || answer(&messages, results));
            let failed = answer.batch_item_failures.into_iter();
            let failed: Vec<String> = failed.map(|one| one.item_identifier).collect();
            (lines.text(), failed)
        };
        let (line, failed) = said(messages.iter().map(|_| Ok(())).collect());
        assert_eq!((line.lines().count(), failed.len()), (1, 0), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["merchant_ids"], "m_0123456789");
        let events: Vec<&str> = read["event_ids"].as_str().unwrap().split(' ').collect();
        assert_eq!(events.len(), 10, "{line}");
        assert!(line.len() <= 200 + 10 * 35, "{}: {line}", line.len());

        results[3] = Err(Error::internal("simulated"));
        let (lines, failed) = said(results);
        assert_eq!((lines.lines().count(), failed), (2, vec!["3".to_owned()]));
        let events = |line: &str| line.matches("evt_").count();
        assert_eq!(lines.lines().map(events).collect::<Vec<_>>(), [1, 9]);
    }
}
