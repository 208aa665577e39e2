//! The OAuth half of ten vendors: consent, tokens, revocation, and the few calls that tell which
//! account a token belongs to and whether a key works.
//!
//! One engine follows rules that are data ([`rules`]); each vendor has a file for its rules and for
//! what data cannot say. [`Vendor::handle`] answers one request without a socket, for simulators;
//! [`serve`] puts the same thing on an address. Ids and tokens come from a counter, so the same
//! requests in the same order get the same answers.

mod control;
mod flow;
mod hubspot;
mod mailchimp;
mod paypal;
mod rules;
mod salesforce;
mod sendgrid;
mod square;
mod state;
mod stripe;
#[cfg(test)]
mod tests;
mod voucherify;
mod xero;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::{Method, Request, Response, header};
use chrono::{DateTime, TimeDelta, Utc};

use rules::{Call, Vendor as Rules};
use state::{Access, Account, Client, Grant, Store};

use super::faults::{Faults, Troubles, retry_after};
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
    clock: Clock,
    offset: TimeDelta,
    seed: u64,
    faults: Faults,
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
        self.counts.clear();
        self.offset = TimeDelta::zero();
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
            let answer = control::serve(self, request, control);
            return self.kept(Outcome::at_once(answer));
        }
        let target = request
            .uri()
            .path_and_query()
            .map_or(path, |target| target.as_str());
        let method = request.method().as_str();
        let outcome = match self.faults.next(method, target, request.body()) {
            None => Outcome::at_once(self.route(request)),
            Some(rule) => {
                let trouble = self.vendor.trouble;
                let troubles = Troubles {
                    broken: &trouble,
                    throttled: &|wait| retry_after(trouble(429), wait),
                };
                rule.play(&troubles, || self.route(request))
            }
        };
        let key = (format!("{method} {path}"), outcome.became());
        *self.counts.entry(key).or_default() += 1;
        self.kept(outcome)
    }

    fn kept(&mut self, outcome: Outcome) -> Outcome {
        match self.store.settle() {
            Ok(()) => outcome,
            Err(error) => {
                let message = format!("the state cannot be written: {error}\n");
                Outcome::at_once(reply(500, "text/plain", message))
            }
        }
    }

    fn call<'a>(&self, request: &'a Request<Vec<u8>>) -> Call<'a> {
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
            now: self.now().timestamp(),
        }
    }

    fn route(&mut self, request: &Request<Vec<u8>>) -> Reply {
        let call = self.call(request);
        let (vendor, store) = (self.vendor, &mut self.store);
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
        let fresh = store.accounts.is_empty();
        let mut inner = Inner {
            vendor,
            store,
            clock: options.clock,
            offset: TimeDelta::zero(),
            seed: options.seed,
            faults: Faults::default(),
            counts: BTreeMap::new(),
        };
        if fresh {
            inner.reset();
            inner.store.settle()?;
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
    socket::serve(address, vendor).await
}
