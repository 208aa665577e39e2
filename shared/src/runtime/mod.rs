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
use std::sync::{Arc, Mutex};

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
        .load()
        .await;
    Ok(Ctx {
        store: Arc::new(Dynamo::new(&sdk, config.tables())),
        secrets: Arc::new(SecretsManager::new(&sdk)),
        net: Arc::new(Client::new(config.allow_loopback())?),
        queue: Arc::new(Sqs::new(&sdk)),
        bus: Arc::new(EventBridge::new(&sdk)),
        clock: Arc::new(SystemClock),
        budgets: Mutex::default(),
        config,
    })
}
