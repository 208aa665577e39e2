//! The OAuth half of ten vendors: consent, tokens, revocation, and the few calls that tell which
//! account a token belongs to and whether a key works. A vendor whose data is stood in for as well
//! has that as its `api`, on the same address ([`rules::Api`]).
//!
//! One engine follows rules that are data ([`rules`]); each vendor has a file for its rules and for
//! what data cannot say. [`Vendor::handle`] answers one request without a socket, for simulators;
//! [`serve`] puts the same thing on an address. Ids and tokens come from a counter, so the same
//! requests in the same order get the same answers.

mod control;
pub(super) mod flow;
mod hubspot;
mod mailchimp;
mod paypal;
pub(super) mod rules;
mod salesforce;
mod sendgrid;
mod signing;
mod square;
pub(super) mod state;
mod stripe;
#[cfg(test)]
mod tests;
mod voucherify;
pub(super) mod xero;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, Response, header};
use chrono::{DateTime, TimeDelta, Utc};

pub use rules::Message;
use rules::{Api, Call, Vendor as Rules};
use state::{Access, Account, Client, Grant, Store};

pub use signing::SENDGRID_PUBLIC_KEY;

use super::faults::{Faults, Kind, Troubles, retry_after};
use super::wire::{Reply, params, reply};
use super::{Clock, Lost, Outcome, Standin, socket};

pub const DEFAULT_CLIENT_ID: &str = "standin-client";
pub const DEFAULT_CLIENT_SECRET: &str = "standin-secret";

/// In the order of their ports.
static VENDORS: [&Rules; 10] = [
    &xero::VENDOR,
    &salesforce::VENDOR,
    &hubspot::VENDOR,
    &mailchimp::VENDOR,
    &sendgrid::VENDOR,
    &stripe::VENDOR,
    &paypal::VENDOR,
    &square::VENDOR,
    &square::LOYALTY,
    &voucherify::VENDOR,
];

/// The names of the vendors, as the command line has them.
pub fn names() -> impl Iterator<Item = &'static str> {
    VENDORS.iter().map(|vendor| vendor.name)
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The folder that keeps grants across restarts; in memory only without one.
    pub state: Option<PathBuf>,
    pub clock: Clock,
    /// What tokens are made of. A server takes a random one.
    pub seed: u64,
}

struct Inner {
    vendor: &'static Rules,
    store: Store,
    api: Option<Box<dyn Api>>,
    clock: Clock,
    offset: TimeDelta,
    seed: u64,
    faults: Faults,
    /// Webhooks that somebody has ordered.
    outgoing: Vec<Message>,
    /// Requests by method and path, and by what became of them.
    counts: BTreeMap<(String, String), u64>,
}

impl Inner {
    fn now(&self) -> DateTime<Utc> {
        self.clock.now() + self.offset
    }

    fn reset(&mut self) {
        let data = &mut *self.store;
        *data = state::Data {
            seed: self.seed,
            ..state::Data::default()
        };
        let client = Client {
            client_id: DEFAULT_CLIENT_ID.to_owned(),
            client_secret: DEFAULT_CLIENT_SECRET.to_owned(),
            redirect_uris: Vec::new(),
            rotate: None,
        };
        data.clients.insert(client.client_id.clone(), client);
        let accounts = self.vendor.accounts.iter();
        data.accounts = accounts
            .map(|(id, name, user)| Account {
                id: (*id).to_owned(),
                name: (*name).to_owned(),
                user: (*user).to_owned(),
            })
            .collect();
        self.faults = Faults::default();
        self.outgoing.clear();
        self.counts.clear();
        self.offset = TimeDelta::zero();
        if let Some(api) = &mut self.api {
            api.reset();
        }
        if let (Some(key), Some((account, ..))) = (self.vendor.key, self.vendor.accounts.first()) {
            self.add_key(key, account, "");
        }
    }

    /// A key that an account made by itself, without any app.
    fn add_key(&mut self, key: &str, account: &str, scope: &str) {
        let now = self.now().timestamp();
        let id = self.store.next();
        let grant = Grant {
            id,
            client_id: String::new(),
            account: account.to_owned(),
            user: String::new(),
            scope: scope.to_owned(),
            consented: now,
            event: String::new(),
            pkce: false,
            revoked: false,
            detached: false,
        };
        self.store.grants.insert(id, grant);
        let access = Access {
            grant: id,
            scope: scope.to_owned(),
            issued: now,
            expires: None,
            short_lived: false,
            revoked: false,
        };
        self.store.access.insert(key.to_owned(), access);
    }

    fn outcome(&mut self, request: &Request<Vec<u8>>) -> Outcome {
        let path = request.uri().path();
        if let Some(control) = path.strip_prefix("/_control") {
            let now = self.now();
            let own = self.api.as_mut();
            let own = own.and_then(|api| api.control(&mut self.store, request, control, now));
            let answer = own.unwrap_or_else(|| control::serve(self, request, control));
            return self.kept(Outcome::at_once(answer));
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or(path, |target| target.as_str());
        let method = request.method().as_str();
        let mut outcome = match self.faults.next(method, target, request.body()) {
            None => Outcome::at_once(self.route(request)),
            Some(rule) => {
                let trouble = self.vendor.trouble;
                let troubles = Troubles {
                    broken: &trouble,
                    throttled: &|wait| retry_after(trouble(429), wait),
                };
                let outcome = rule.play(&troubles, || self.route(request));
                // Of all failures this one alone is said to be one of the service itself, and not
                // of a gateway in front of it.
                if let (Kind::StatusBeforeEffect, Ok(answer)) = (rule.kind, &outcome.reply)
                    && answer.status() == 500
                    && let Some(api) = &mut self.api
                {
                    let call = call(request, self.clock.now() + self.offset);
                    api.failed(&mut self.store, &call, answer);
                }
                outcome
            }
        };
        if let Some(api) = &self.api {
            outcome.hold = outcome.hold.max(api.latency(path));
        }
        let key = (format!("{method} {path}"), outcome.became());
        *self.counts.entry(key).or_default() += 1;
        self.kept(outcome)
    }

    fn kept(&mut self, outcome: Outcome) -> Outcome {
        let api = self.api.as_mut().map_or(Ok(()), |api| api.settle());
        match api.and_then(|()| self.store.settle()) {
            Ok(()) => outcome,
            Err(error) => {
                let message = format!("the state cannot be written: {error}\n");
                Outcome::at_once(reply(500, "text/plain", message))
            }
        }
    }

    fn call<'a>(&self, request: &'a Request<Vec<u8>>) -> Call<'a> {
        call(request, self.now())
    }

    fn route(&mut self, request: &Request<Vec<u8>>) -> Reply {
        let call = self.call(request);
        let (vendor, store) = (self.vendor, &mut self.store);
        if let Some(answer) = self.api.as_mut().and_then(|api| api.route(store, &call)) {
            return answer;
        }
        if let Some(answer) = (vendor.route)(store, &call) {
            return answer;
        }
        if let Some(oauth) = &vendor.oauth {
            let page = call.path.strip_suffix("/decision");
            match *call.method {
                Method::GET if oauth.authorize.contains(&call.path) => {
                    return flow::consent(store, vendor, oauth, &call);
                }
                Method::POST if page.is_some_and(|page| oauth.authorize.contains(&page)) => {
                    return flow::decision(store, oauth, &call);
                }
                Method::POST if oauth.token.contains(&call.path) => {
                    return flow::tokens(store, oauth, &call);
                }
                _ => {}
            }
        }
        reply(404, "text/plain", "not found\n")
    }
}

/// One request, as vendors read it.
fn call(request: &Request<Vec<u8>>, at: DateTime<Utc>) -> Call<'_> {
    let uri = request.uri();
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let base = match (uri.scheme_str(), uri.authority(), host) {
        (Some(scheme), Some(authority), _) => format!("{scheme}://{authority}"),
        (_, _, Some(host)) => format!("http://{host}"),
        _ => "http://localhost".to_owned(),
    };
    Call {
        method: request.method(),
        path: uri.path(),
        query: params(uri.query().unwrap_or_default().as_bytes()),
        headers: request.headers(),
        body: request.body(),
        base,
        now: at.timestamp(),
        at,
    }
}

/// A handle on one vendor. Clones are the same vendor.
#[derive(Clone)]
pub struct Vendor {
    inner: Arc<Mutex<Inner>>,
}

impl Vendor {
    pub fn new(name: &str, options: Options) -> io::Result<Self> {
        let found = VENDORS.iter().find(|vendor| vendor.name == name);
        let vendor = found.ok_or_else(|| {
            let known: Vec<&str> = super::names().collect();
            let message = format!("there is no stand-in {name}, but: {}", known.join(", "));
            io::Error::new(io::ErrorKind::NotFound, message)
        })?;
        let store = Store::open(options.state.as_deref(), name)?;
        let api = vendor.api.map(|open| open(options.state.as_deref()));
        let fresh = store.accounts.is_empty();
        let mut inner = Inner {
            vendor,
            store,
            api: api.transpose()?,
            clock: options.clock,
            offset: TimeDelta::zero(),
            seed: options.seed,
            faults: Faults::default(),
            outgoing: Vec::new(),
            counts: BTreeMap::new(),
        };
        if fresh {
            inner.reset();
            inner.store.settle()?;
            if let Some(api) = &mut inner.api {
                api.settle()?;
            }
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

    /// Takes what the vendor has to send by itself now: webhooks.
    pub fn due(&self) -> Vec<Message> {
        let mut inner = self.lock();
        let now = inner.now();
        let mut due = std::mem::take(&mut inner.outgoing);
        due.extend(
            inner
                .api
                .as_mut()
                .map(|api| api.due(now))
                .unwrap_or_default(),
        );
        due
    }

    /// Tells what came of one of those: status and body of the answer, or that there was none.
    pub fn told(&self, id: u64, answer: Option<(u16, &[u8])>) {
        let mut inner = self.lock();
        let now = inner.now();
        let (status, body) = answer.map_or((None, &[][..]), |(status, body)| (Some(status), body));
        if let Some(api) = &mut inner.api {
            api.told(id, status, body, now);
        }
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        let by = TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
        self.lock().offset += by;
    }
}

impl Standin for Vendor {
    fn outcome(&self, request: &Request<Vec<u8>>) -> Outcome {
        self.lock().outcome(request)
    }
}

/// How long an address has to answer what a vendor sends it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Sends what the vendor has to send, for as long as the process lives.
#[expect(
    clippy::disallowed_methods,
    reason = "A vendor's own calls to us are not outbound calls of ours."
)]
async fn tell(vendor: Vendor) -> io::Result<()> {
    let client = reqwest::Client::builder()
        .timeout(ANSWER_WITHIN)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(io::Error::other)?;
    loop {
        for message in vendor.due() {
            let mut request = client.post(&message.url);
            let content_type = header::CONTENT_TYPE.as_str();
            if message
                .headers
                .iter()
                .all(|(name, _)| *name != content_type)
            {
                request = request.header(content_type, "application/json");
            }
            for (name, value) in &message.headers {
                request = request.header(*name, value);
            }
            let answer = async {
                let answer = request.body(message.body).send().await?;
                Ok::<_, reqwest::Error>((answer.status().as_u16(), answer.bytes().await?))
            };
            let answer = answer.await.ok();
            let answer = answer.as_ref().map(|(status, body)| (*status, &body[..]));
            vendor.told(message.id, answer);
        }
        // Due is what the vendor's clock says, which somebody else may move at any time.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Serves one vendor until the process ends. Every change is on disk before its answer leaves, if
/// there is a folder for it, so the process may be killed at any moment.
pub async fn serve(name: &str, address: SocketAddr, state: Option<PathBuf>) -> io::Result<()> {
    let vendor = Vendor::new(
        name,
        Options {
            state,
            clock: Clock::System,
            seed: rand::random(),
        },
    )?;
    let teller = vendor.clone();
    tokio::try_join!(socket::serve(address, vendor), tell(teller)).map(|_| ())
}
