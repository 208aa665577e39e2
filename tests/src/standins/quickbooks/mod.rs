//! QuickBooks Online, as an integrator meets it: OAuth with a consent page, the accounting API
//! with its rules and refusals, rate limits, and faults on demand under `/_control/`.
//!
//! [`Quickbooks::handle`] answers one request without a socket, for the simulator; [`serve`] puts
//! the same thing on an address. Ids and tokens come from counters, so the same requests in the
//! same order get the same answers; only a clock can differ, and a simulator brings its own.

mod api;
mod books;
mod control;
mod entries;
mod fault;
mod hooks;
mod journal;
mod limits;
mod lists;

mod names;
mod oauth;
mod payments;
mod query;
mod sales;
mod schema;
mod seed;
mod state;
mod statement;
mod tax;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{HeaderValue, Method, Request, Response, header};
use chrono::{DateTime, TimeDelta, Utc};

use fault::{broken, throttled};
use journal::Journal;
use limits::{Limits, Traffic};
use state::{Change, Client, State};

use super::faults::{Faults, Rule, Troubles};
use super::money;
use super::wire::{Reply, json_reply, params, reply};
use super::{Outcome, Standin, socket};

pub use super::{Clock, Lost};
pub use seed::{DEFAULT_REALM, NewCompany};

pub const DEFAULT_CLIENT_ID: &str = "standin-client";
pub const DEFAULT_CLIENT_SECRET: &str = "standin-secret";

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder that keeps the books across restarts; in memory only without one.
    pub state: Option<PathBuf>,
    pub clock: Clock,
    /// What tokens are made of. A server takes a random one.
    pub seed: u64,
}

pub(crate) struct Inner {
    state: State,
    journal: Option<Journal>,
    clock: Clock,
    offset: TimeDelta,
    seed: u64,
    faults: Faults,
    limits: Limits,
    traffic: Traffic,
    /// Where webhooks go, and how many changes were told.
    hooks: Option<hooks::Target>,
    told: u64,
    /// Requests by method and path, and by what became of them.
    counts: BTreeMap<(String, String), u64>,
    transactions: u64,
}

impl Inner {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now() + self.offset
    }

    fn advance(&mut self, by: TimeDelta) {
        self.offset += by;
    }

    fn reset(&mut self) {
        self.state.record(Change::Reset { seed: self.seed });
        self.state.record(Change::Client(Client {
            client_id: DEFAULT_CLIENT_ID.to_owned(),
            client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
            redirect_uris: Vec::new(),
            rotate_each_refresh: false,
        }));
        let _ = self.open_company(&NewCompany::default());
        self.faults = Faults::default();
        self.limits = Limits::default();
        self.traffic = Traffic::default();
        self.hooks = None;
        self.counts.clear();
        self.offset = TimeDelta::zero();
    }

    /// Writes what changed before the answer leaves.
    fn settle(&mut self) -> io::Result<()> {
        let line = self.state.take_line();
        match &mut self.journal {
            Some(journal) => journal.write(&line),
            None => Ok(()),
        }
    }

    fn outcome(&mut self, request: &Request<Vec<u8>>) -> Outcome {
        let path = request.uri().path();
        if let Some(control) = path.strip_prefix("/_control") {
            let asked = params(request.uri().query().unwrap_or_default().as_bytes());
            let answer = control::serve(self, request.method(), control, &asked, request.body());
            return self.kept(Outcome::at_once(answer));
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or(path, |target| target.as_str());
        let rule = self
            .faults
            .next(request.method().as_str(), target, request.body());
        let outcome = match rule {
            None => Outcome::at_once(self.route(request)),
            Some(rule) => self.faulty(request, &rule),
        };
        let key = (format!("{} {path}", request.method()), outcome.became());
        *self.counts.entry(key).or_default() += 1;
        self.kept(outcome)
    }

    fn kept(&mut self, mut outcome: Outcome) -> Outcome {
        if let Err(error) = self.settle() {
            let message = format!("the journal cannot be written: {error}\n");
            outcome.reply = Ok(reply(500, "text/plain", message));
        }
        self.transactions += 1;
        if let Ok(reply) = &mut outcome.reply
            && let Ok(value) =
                HeaderValue::from_str(&format!("1-standin-{:08x}", self.transactions))
        {
            reply.headers_mut().insert("intuit_tid", value);
        }
        outcome
    }

    fn faulty(&mut self, request: &Request<Vec<u8>>, rule: &Rule) -> Outcome {
        let time = books::stamp_millis(self.now());
        let troubles = Troubles {
            broken: &|status| broken(status, &time),
            throttled: &|wait| throttled(wait, &time),
        };
        rule.play(&troubles, || self.route(request))
    }

    fn route(&mut self, request: &Request<Vec<u8>>) -> Reply {
        let now = self.now();
        let seconds = now.timestamp();
        let headers = request.headers();
        let asked = params(request.uri().query().unwrap_or_default().as_bytes());
        let path = request.uri().path();
        if let Some(path) = path.strip_prefix("/v3/company/") {
            let call = api::Call {
                method: request.method(),
                path,
                params: &asked,
                headers,
                body: request.body(),
                now,
            };
            return api::serve(&mut self.state, &self.limits, &mut self.traffic, &call);
        }
        let form = || params(request.body());
        match (request.method(), path) {
            (&Method::GET, "/connect/oauth2") => oauth::consent(&self.state, &asked),
            (&Method::POST, "/connect/oauth2/decision") => {
                oauth::decision(&mut self.state, &form(), seconds)
            }
            (&Method::POST, "/oauth2/v1/tokens/bearer") => {
                oauth::tokens(&mut self.state, headers, &form(), seconds)
            }
            (&Method::POST, "/v2/oauth2/tokens/revoke") => {
                oauth::revoke(&mut self.state, headers, request.body())
            }
            (
                &Method::GET,
                "/openid_configuration"
                | "/.well-known/openid_configuration"
                | "/.well-known/openid_sandbox_configuration",
            ) => {
                let host = headers
                    .get(header::HOST)
                    .and_then(|host| host.to_str().ok())
                    .unwrap_or("localhost");
                oauth::discovery(&format!("http://{host}"))
            }
            (&Method::GET, "/v1/openid_connect/userinfo") => {
                oauth::user_info(&self.state, headers, seconds)
            }
            (&Method::GET, "/op/v1/jwks") => json_reply(200, &serde_json::json!({"keys": []})),
            _ => reply(404, "text/plain", "not found\n"),
        }
    }
}

/// A handle on one vendor. Clones are the same vendor.
#[derive(Clone)]
pub struct Quickbooks {
    inner: Arc<Mutex<Inner>>,
}

impl Quickbooks {
    pub fn new(options: Options) -> io::Result<Self> {
        let (state, journal) = match &options.state {
            Some(folder) => {
                let (state, journal) = Journal::open(folder)?;
                (state, Some(journal))
            }
            None => (State::default(), None),
        };
        let fresh = state.companies.is_empty();
        let mut inner = Inner {
            state,
            journal,
            clock: options.clock,
            offset: TimeDelta::zero(),
            seed: options.seed,
            faults: Faults::default(),
            limits: Limits::default(),
            traffic: Traffic::default(),
            hooks: None,
            told: 0,
            counts: BTreeMap::new(),
            transactions: 0,
        };
        if fresh {
            inner.reset();
            inner.settle()?;
        }
        Ok(Self {
            inner: Arc::new(Mutex::new(inner)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while a request was served leaves the state as its last whole change left it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one request; an error is a reply that the caller never got.
    pub async fn handle(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, Lost> {
        self.lock().outcome(&request).reply
    }

    /// The webhooks about what changed since the last call.
    pub fn webhooks(&self) -> Vec<Request<Vec<u8>>> {
        let mut inner = self.lock();
        let time = books::stamp_millis(inner.now());
        let (Some(target), Some(touched)) = (inner.hooks.clone(), &mut inner.state.touched) else {
            return Vec::new();
        };
        let touched = std::mem::take(touched);
        let requests = hooks::requests(&target, &touched, &time, inner.told);
        inner.told += touched.len() as u64;
        requests
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        self.lock().advance(by);
    }
}

impl Standin for Quickbooks {
    fn outcome(&self, request: &Request<Vec<u8>>) -> Outcome {
        self.lock().outcome(request)
    }
}

/// Serves until the process ends. Every change is on disk before its answer leaves, so the
/// process may be killed at any moment.
pub async fn serve(address: SocketAddr, state: Option<PathBuf>) -> io::Result<()> {
    let quickbooks = Quickbooks::new(Options {
        state,
        clock: Clock::System,
        seed: rand::random(),
    })?;
    tokio::spawn(deliver(quickbooks.clone()));
    socket::serve(address, quickbooks).await
}

/// Sends webhooks until they are taken, as the vendor does, if faster.
#[expect(
    clippy::disallowed_methods,
    reason = "The stand-in is a stranger to the functions' client."
)]
async fn deliver(quickbooks: Quickbooks) {
    const EVERY: Duration = Duration::from_millis(500);
    // The vendor gives up after three seconds.
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(3));
    let Ok(client) = client.build() else {
        return;
    };
    let mut waiting = Vec::new();
    loop {
        tokio::time::sleep(EVERY).await;
        waiting.extend(quickbooks.webhooks());
        let mut refused = Vec::new();
        for request in waiting {
            let (parts, body) = Request::into_parts(request);
            let call = client
                .post(parts.uri.to_string())
                .headers(parts.headers.clone());
            let taken = call.body(body.clone()).send().await;
            if !taken.is_ok_and(|answer| answer.status().as_u16() == 200) {
                refused.push(Request::from_parts(parts, body));
            }
        }
        waiting = refused;
    }
}
