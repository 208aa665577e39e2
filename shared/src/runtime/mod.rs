//! The only place that knows Lambda: three entry points, one for each kind of trigger.

mod http;
mod queue;
mod stream;

pub use http::http;
pub use queue::{
    deliver, fanout, hooks, pull, pull_plan, push, reconcile, reconcile_plan, refresh,
    refresh_plan, rotate, sweep,
};
pub use stream::relay;

use crate::bus::EventBridge;
use crate::config::Config;
use crate::ctx::{Ctx, SystemClock};
use crate::error::Error;
use crate::net::Client;
use crate::queue::Sqs;
use crate::secrets::SecretsManager;
use crate::store::dynamo::Dynamo;
use crate::store::{ATTEMPT_MAX, CALL_MAX};
use aws_config::timeout::TimeoutConfig;
use chrono::DateTime;
use lambda_runtime::Context;
use std::sync::{Arc, Mutex};

/// How long a call to AWS may take: without this a call that hangs lasts as long as the function.
fn time_outs() -> TimeoutConfig {
    TimeoutConfig::builder()
        .operation_timeout(CALL_MAX)
        .operation_attempt_timeout(ATTEMPT_MAX)
        .build()
}

/// Tells the clock until when the function may be at work on what it was just called with.
fn begin(ctx: &Ctx, call: &Context) {
    let deadline = i64::try_from(call.deadline).ok();
    if let Some(deadline) = deadline.and_then(DateTime::from_timestamp_millis) {
        ctx.clock.begin(deadline);
    }
}

/// Everything that a function reaches, made once per process. Nothing connects before it is used.
async fn context() -> Result<Ctx, Error> {
    let level = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .with_env_var("AWS_LAMBDA_LOG_LEVEL")
        .from_env_lossy();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(level)
        .init();
    let config = Config::from_environment();
    let sdk = aws_config::defaults(aws_config::BehaviorVersion::latest())
        .timeout_config(time_outs())
        .load()
        .await;
    Ok(Ctx {
        store: Arc::new(Dynamo::new(&sdk, config.tables())),
        secrets: Arc::new(SecretsManager::new(&sdk)),
        net: Arc::new(Client::new(config.allow_loopback())?),
        queue: Arc::new(Sqs::new(&sdk)),
        bus: Arc::new(EventBridge::new(&sdk)),
        clock: Arc::new(SystemClock::default()),
        budgets: Mutex::default(),
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What waits for others counts on it ([`crate::oauth::tokens`]).
    #[test]
    fn a_call_to_aws_ends() {
        let time_outs = time_outs();
        assert_eq!(time_outs.operation_timeout(), Some(CALL_MAX));
        let attempt = time_outs.operation_attempt_timeout().expect("a time-out");
        assert!(2 * attempt <= CALL_MAX, "one that hangs is tried again");
    }
}
