//! The only place that knows Lambda: three entry points, one for each kind of trigger.

mod http;
mod queue;
mod stream;

pub use http::http;
pub use queue::{
    deliver, fanout, hooks, pull, pull_plan, push, reconcile, reconcile_plan, refresh,
    refresh_plan, retry, rotate, sweep, webhook_plan,
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
use crate::store::recent::Recent;
use crate::store::{ATTEMPT_MAX, CALL_MAX};
use aws_config::timeout::TimeoutConfig;
use chrono::DateTime;
use lambda_runtime::Context;
use std::sync::{Arc, Mutex};
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The name under which this crate writes to the log.
const OURS: &str = env!("CARGO_CRATE_NAME");

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

/// What writes the log as JSON lines to `lines`, as detailed as `level` says. Other people's code is heard
/// from [`LevelFilter::INFO`] on alone: clients of HTTP and of AWS print whole requests below that, bodies
/// and headers, with the tokens in them.
fn log<W>(level: EnvFilter, lines: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let loud = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(OURS, LevelFilter::TRACE);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(level)
        .with_writer(lines)
        .finish()
        .with(loud)
}

/// Everything that a function reaches, made once per process. Nothing connects before it is used.
async fn context() -> Result<Ctx, Error> {
    let level = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .with_env_var("AWS_LAMBDA_LOG_LEVEL")
        .from_env_lossy();
    log(level, std::io::stdout).init();
    let config = Config::from_environment()?;
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
        certificates: Mutex::default(),
        recent: Recent::default(),
        config,
    })
}

/// The lines of a log.
#[cfg(test)]
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

    #[test]
    fn no_level_lets_other_peoples_code_print_requests() {
        for level in ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"] {
            let lines = Lines::default();
            let writer = lines.clone();
            let filter = EnvFilter::builder().parse_lossy(level);
            tracing::subscriber::with_default(log(filter, move || writer.clone()), || {
                tracing::trace!(target: "hyper_util::client", "their-token");
                tracing::trace!(target: "h2::codec", "their-token");
                tracing::debug!(target: "rustls::client", "their-token");
                tracing::debug!(target: "aws_smithy_runtime::client", "their-token");
                tracing::trace!(target: "reqwest::connect", "their-token");
                tracing::trace!(target: "lambda_runtime::layers", "their-token");
                tracing::error!(target: "hyper_util::client", "their-failure");
                tracing::trace!("our-trace");
                tracing::error!("our-failure");
            });
            let said = lines.text();
            assert!(!said.contains("their-token"), "{level}: {said}");
            assert!(
                said.contains("their-failure") && said.contains("our-failure"),
                "{said}"
            );
            assert_eq!(said.contains("our-trace"), level == "TRACE", "{said}");
        }
    }
}
