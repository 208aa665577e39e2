//! Stands between function processes and the local AWS. It counts their calls, refuses some as
//! DynamoDB refuses them when a table is throttled, and holds others for as long as a test wants.
//!
//! What it does with a call is decided by a closure of the test, which is asked twice: before the call
//! is passed on, and again when there is an answer. Only one thing it does unasked, because AWS does
//! and the local AWS does not: what was signed by a clock that is too far off is refused.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::any;
use chrono::{NaiveDateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::gateway::without_own;
use super::{Trouble, aws};

/// More than any request that DynamoDB takes.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How far off the time of a signature may be.
///
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const SIGNED_WITHIN: TimeDelta = TimeDelta::minutes(5);

/// One call, at one of the two moments.
pub struct Call<'a> {
    /// The first call through this proxy is 0.
    pub number: usize,
    /// As `X-Amz-Target` has it, for example `DynamoDB_20120810.GetItem`.
    pub operation: &'a str,
    /// The status of the answer, once there is one.
    pub answered: Option<u16>,
}

impl Call<'_> {
    /// Whether it is DynamoDB that is called.
    pub fn is_of_a_table(&self) -> bool {
        self.operation.starts_with("DynamoDB_")
    }

    /// Whether it changes a table.
    pub fn writes(&self) -> bool {
        let name = self.operation.rsplit('.').next().unwrap_or_default();
        ["UpdateItem", "DeleteItem", "TransactWriteItems"].contains(&name)
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Pass,
    /// Refused by a throttled table. An answer cannot be refused any more, and passes.
    Refuse,
    /// Held until [`Proxy::release`]; then it goes its way.
    Hold,
}

type Judge = dyn FnMut(&Call) -> Verdict + Send;

#[derive(Default)]
struct Seen {
    operations: Vec<String>,
    refused: BTreeMap<String, usize>,
    misdated: usize,
    held: usize,
    releases: usize,
}

#[derive(Clone)]
struct Shared {
    upstream: String,
    judge: Arc<Mutex<Box<Judge>>>,
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
}

/// A proxy on a port of its own. It ends with the program that made it.
pub struct Proxy {
    url: String,
    shared: Shared,
}

impl Proxy {
    /// A proxy before the AWS at `upstream`.
    ///
    /// # Errors
    /// Where no port is free.
    pub async fn new(
        upstream: &str,
        judge: impl FnMut(&Call) -> Verdict + Send + 'static,
    ) -> Result<Self, Trouble> {
        let shared = Shared {
            upstream: upstream.trim_end_matches('/').to_owned(),
            judge: Arc::new(Mutex::new(Box::new(judge))),
            seen: Arc::default(),
            changed: Arc::default(),
        };
        let busy = |error| Trouble::io("No free port", &error);
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = listener.await.map_err(busy)?;
        let address = listener.local_addr().map_err(busy)?;
        let router = Router::new().fallback(any(pass)).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            url: format!("http://{address}"),
            shared,
        })
    }

    /// The endpoint for an SDK.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on calls are judged by `judge`.
    pub fn judge_by(&self, judge: impl FnMut(&Call) -> Verdict + Send + 'static) {
        *lock(&self.shared.judge) = Box::new(judge);
    }

    /// The operations of all calls so far, in the order in which they came.
    pub fn operations(&self) -> Vec<String> {
        lock(&self.shared.seen).operations.clone()
    }

    /// How many calls of each operation were refused.
    pub fn refused(&self) -> BTreeMap<String, usize> {
        lock(&self.shared.seen).refused.clone()
    }

    /// How many calls were refused for the time of their signature.
    pub fn misdated(&self) -> usize {
        lock(&self.shared.seen).misdated
    }

    /// Waits until a call is held.
    pub async fn until_held(&self) {
        self.shared.until(|seen| seen.held > 0).await;
    }

    /// Waits until so many calls have come in all.
    pub async fn until_called(&self, count: usize) {
        self.shared
            .until(|seen| seen.operations.len() >= count)
            .await;
    }

    /// Lets everything go on that is held at this moment.
    pub fn release(&self) {
        let mut seen = lock(&self.shared.seen);
        seen.releases += 1;
        seen.held = 0;
        drop(seen);
        self.shared.changed.notify_waiters();
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    async fn until(&self, judge: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if judge(&lock(&self.seen)) {
                return;
            }
            changed.await;
        }
    }

    fn verdict(&self, call: &Call) -> Verdict {
        lock(&self.judge)(call)
    }

    async fn hold(&self) {
        let releases = {
            let mut seen = lock(&self.seen);
            seen.held += 1;
            seen.releases
        };
        self.changed.notify_waiters();
        // Its caller may be killed meanwhile; then this ends here.
        let _held = Held {
            shared: self,
            releases,
        };
        self.until(|seen| seen.releases > releases).await;
    }
}

/// One call that is held since there were so many releases.
struct Held<'a> {
    shared: &'a Shared,
    releases: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut seen = lock(&self.shared.seen);
        // A release has counted it out already.
        if seen.releases == self.releases {
            seen.held -= 1;
        }
    }
}

async fn pass(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES_MAX).await else {
        return answer(StatusCode::PAYLOAD_TOO_LARGE, Body::empty());
    };
    let target = parts.headers.get("x-amz-target");
    let operation = target.and_then(|value| value.to_str().ok());
    let operation = operation.unwrap_or_default();
    let number = {
        let mut seen = lock(&shared.seen);
        seen.operations.push(operation.to_owned());
        seen.operations.len() - 1
    };
    shared.changed.notify_waiters();
    if let Some(refused) = misdated(&parts.headers) {
        lock(&shared.seen).misdated += 1;
        return bad_request(&refused);
    }
    let mut call = Call {
        number,
        operation,
        answered: None,
    };
    match shared.verdict(&call) {
        Verdict::Pass => {}
        Verdict::Hold => shared.hold().await,
        Verdict::Refuse => {
            let refused = refusal(&call, &body);
            *lock(&shared.seen)
                .refused
                .entry(operation.to_owned())
                .or_default() += 1;
            return bad_request(&refused);
        }
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let sent = aws::http()
        .request(parts.method, format!("{}{path}", shared.upstream))
        .headers(without_own(&parts.headers))
        .body(body)
        .send()
        .await;
    let Ok(sent) = sent else {
        return answer(StatusCode::BAD_GATEWAY, Body::empty());
    };
    let (status, headers) = (sent.status(), without_own(sent.headers()));
    let Ok(bytes) = sent.bytes().await else {
        return answer(StatusCode::BAD_GATEWAY, Body::empty());
    };
    call.answered = Some(status.as_u16());
    if shared.verdict(&call) == Verdict::Hold {
        shared.hold().await;
    }
    let mut response = answer(status, Body::from(bytes));
    *response.headers_mut() = headers;
    response
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

fn bad_request(body: &Value) -> Response<Body> {
    let mut response = answer(StatusCode::BAD_REQUEST, Body::from(body.to_string()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/x-amz-json-1.0"),
    );
    response
}

/// What AWS answers to a signature of another time; nothing for one of now.
#[expect(
    clippy::disallowed_methods,
    reason = "The times of signatures are compared with the machine's clock."
)]
fn misdated(headers: &HeaderMap) -> Option<Value> {
    const FORMAT: &str = "%Y%m%dT%H%M%SZ";
    let signed = headers.get("x-amz-date")?.to_str().ok()?;
    let signed_at = NaiveDateTime::parse_from_str(signed, FORMAT).ok()?;
    let now = Utc::now().naive_utc();
    let text = |at: NaiveDateTime| at.format(FORMAT).to_string();
    let (now_text, first, last) = (text(now), now - SIGNED_WITHIN, now + SIGNED_WITHIN);
    let message = if signed_at < first {
        let first = text(first);
        format!("Signature expired: {signed} is now earlier than {first} ({now_text} - 5 min.)")
    } else if signed_at > last {
        let last = text(last);
        format!(
            "Signature not yet current: {signed} is still later than {last} ({now_text} + 5 min.)"
        )
    } else {
        return None;
    };
    Some(json!({
        "__type": "com.amazon.coral.service#InvalidSignatureException",
        "message": message,
    }))
}

/// What a throttled table answers: a transaction is cancelled with a reason for each of its items,
/// and any other call is refused by the table, or every other time by what stands before it.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>,
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_TransactWriteItems.html>
fn refusal(call: &Call, body: &[u8]) -> Value {
    const MODEL: &str = "com.amazonaws.dynamodb.v20120810";
    if call.operation.ends_with(".TransactWriteItems") {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let items = body["TransactItems"].as_array().map_or(1, Vec::len);
        let reason = |index| match index {
            0 => json!({
                "Code": "ThrottlingError",
                "Message": "Throughput exceeds the current capacity of your table or index.",
            }),
            _ => json!({ "Code": "None" }),
        };
        let reasons: Vec<Value> = (0..items).map(reason).collect();
        let codes: Vec<&str> = reasons
            .iter()
            .filter_map(|reason| reason["Code"].as_str())
            .collect();
        return json!({
            "__type": format!("{MODEL}#TransactionCanceledException"),
            "Message": format!(
                "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
                codes.join(", ")
            ),
            "CancellationReasons": reasons,
        });
    }
    if call.number.is_multiple_of(2) {
        json!({
            "__type": format!("{MODEL}#ProvisionedThroughputExceededException"),
            "message": "The level of configured provisioned throughput for the table was exceeded.",
        })
    } else {
        json!({
            "__type": "com.amazon.coral.availability#ThrottlingException",
            "message": "Rate of requests exceeds the allowed throughput.",
        })
    }
}
