//! A small Runtime API host: it drives real function binaries as processes of their own, without the
//! emulated Lambda between, so that a test can say how many there are and when each one begins.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path as Parameters, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use super::{Stack, Trouble};

/// How long an invocation may take, as the function is told.
const DEADLINE: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Desk {
    /// Invocations that nobody has taken yet.
    waiting: VecDeque<(usize, Value)>,
    /// How many processes ask for work at this moment.
    idle: usize,
    next: usize,
    /// What came of each invocation that ended.
    ended: BTreeMap<usize, Result<Value, String>>,
}

#[derive(Clone, Default)]
struct Shared {
    desk: Arc<Mutex<Desk>>,
    changed: Arc<Notify>,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `judge` has an answer.
    async fn until<T>(&self, mut judge: impl FnMut(&mut Desk) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = judge(&mut self.desk()) {
                return found;
            }
            changed.await;
        }
    }
}

/// Processes of one function, waiting for invocations.
pub struct Host {
    shared: Shared,
    address: SocketAddr,
    program: PathBuf,
    variables: BTreeMap<String, String>,
    root: PathBuf,
    /// Where the processes write their logs, one after the other.
    log: PathBuf,
    processes: Vec<Child>,
}

impl Host {
    /// A host for `function` with the environment that it has on `stack`.
    pub async fn new(stack: &Stack, function: &str) -> Result<Self, Trouble> {
        let folder = stack.config.program.parent().unwrap_or(Path::new("."));
        Self::of(
            folder.join(function),
            stack.environment().await?,
            &stack.config.root,
            &stack.config.directory,
        )
        .await
    }

    /// A host for `program`, which runs in `root` with these variables and logs into the folder `logs`.
    pub async fn of(
        program: PathBuf,
        variables: BTreeMap<String, String>,
        root: &Path,
        logs: &Path,
    ) -> Result<Self, Trouble> {
        let shared = Shared::default();
        let router = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route(
                "/2018-06-01/runtime/invocation/{id}/response",
                post(response),
            )
            .route("/2018-06-01/runtime/invocation/{id}/error", post(failure))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|error| Trouble::io("No free port", &error))?;
        let address = listener
            .local_addr()
            .map_err(|error| Trouble::io("No free port", &error))?;
        // It ends with the program that drives it.
        tokio::spawn(async move { axum::serve(listener, router).await });
        let function = program.file_name().unwrap_or_default().to_string_lossy();
        let log = logs.join(format!("{function}.{}.log", address.port()));
        Ok(Self {
            shared,
            address,
            program,
            variables,
            root: root.to_owned(),
            log,
            processes: Vec::new(),
        })
    }

    /// Sets a variable of the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.insert(name.to_owned(), value.into());
    }

    /// Starts `count` more processes and waits until all of them ask for work.
    pub async fn start(&mut self, count: usize) -> Result<(), Trouble> {
        let before = self.shared.desk().idle;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log);
        let log = log.map_err(|error| Trouble::io("No log can be written", &error))?;
        for _ in 0..count {
            let log = log.try_clone();
            let log = log.map_err(|error| Trouble::io("No log can be written", &error))?;
            let child = Command::new(&self.program)
                .current_dir(&self.root)
                .env_clear()
                .envs(&self.variables)
                .env("AWS_LAMBDA_RUNTIME_API", self.address.to_string())
                .env("AWS_LAMBDA_FUNCTION_NAME", "function")
                .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
                .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
                .env("AWS_LAMBDA_LOG_GROUP_NAME", "group")
                .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|error| {
                    Trouble::new(
                        format!("Cannot start {}: {error}", self.program.display()),
                        "Build it with `cargo build --workspace --bins`.",
                    )
                })?;
            self.processes.push(child);
        }
        let wanted = before + count;
        self.shared
            .until(|desk| (desk.idle >= wanted).then_some(()))
            .await;
        Ok(())
    }

    /// Gives all `payloads` out at once, and returns the numbers of the invocations.
    pub fn give(&self, payloads: Vec<Value>) -> Vec<usize> {
        let mut desk = self.shared.desk();
        let mut numbers = Vec::new();
        for payload in payloads {
            let number = desk.next;
            desk.next += 1;
            desk.waiting.push_back((number, payload));
            numbers.push(number);
        }
        drop(desk);
        self.shared.changed.notify_waiters();
        numbers
    }

    /// What came of an invocation, if it has ended.
    pub fn outcome(&self, number: usize) -> Option<Result<Value, String>> {
        self.shared.desk().ended.get(&number).cloned()
    }

    /// The ids of the processes that were started and not killed.
    pub fn processes(&self) -> impl Iterator<Item = u32> {
        self.processes.iter().filter_map(Child::id)
    }

    /// What the processes have logged.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until all of these invocations have ended, and returns what came of each.
    pub async fn ended(&self, numbers: &[usize]) -> Vec<Result<Value, String>> {
        let all = |desk: &mut Desk| {
            let ended = numbers.iter().map(|number| desk.ended.get(number).cloned());
            ended.collect::<Option<Vec<_>>>()
        };
        self.shared.until(all).await
    }

    /// Kills every process as a crash would.
    pub async fn kill(&mut self) {
        for child in &mut self.processes {
            // One that has ended already is as dead as it can be.
            let _ = child.kill().await;
        }
        self.processes.clear();
        let mut desk = self.shared.desk();
        desk.idle = 0;
        desk.waiting.clear();
    }
}

async fn next(State(shared): State<Shared>) -> Response {
    shared.desk().idle += 1;
    shared.changed.notify_waiters();
    let (number, payload) = shared.until(|desk| desk.waiting.pop_front()).await;
    let mut desk = shared.desk();
    desk.idle = desk.idle.saturating_sub(1);
    drop(desk);
    (
        [
            (
                "lambda-runtime-aws-request-id",
                format!("00000000-0000-4000-8000-{number:012}"),
            ),
            ("lambda-runtime-deadline-ms", deadline().to_string()),
            (
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:us-east-1:000000000000:function:function".to_owned(),
            ),
            (
                "lambda-runtime-trace-id",
                "Root=1-00000000-000000000000000000000000".to_owned(),
            ),
            (header::CONTENT_TYPE.as_str(), "application/json".to_owned()),
        ],
        payload.to_string(),
    )
        .into_response()
}

#[expect(
    clippy::disallowed_methods,
    reason = "The function compares the deadline with the system's clock."
)]
fn deadline() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    (now.unwrap_or_default() + DEADLINE).as_millis()
}

fn number(id: &str) -> Option<usize> {
    id.rsplit('-').next()?.parse().ok()
}

fn end(shared: &Shared, id: &str, outcome: Result<Value, String>) -> StatusCode {
    let Some(number) = number(id) else {
        return StatusCode::BAD_REQUEST;
    };
    shared.desk().ended.insert(number, outcome);
    shared.changed.notify_waiters();
    StatusCode::ACCEPTED
}

async fn response(
    State(shared): State<Shared>,
    Parameters(id): Parameters<String>,
    body: Bytes,
) -> StatusCode {
    let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    end(&shared, &id, Ok(value))
}

async fn failure(
    State(shared): State<Shared>,
    Parameters(id): Parameters<String>,
    body: Bytes,
) -> StatusCode {
    let text = String::from_utf8_lossy(&body).into_owned();
    end(&shared, &id, Err(text))
}
