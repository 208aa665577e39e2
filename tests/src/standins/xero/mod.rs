//! Xero's accounting API, beside its OAuth half (`oauth/xero.rs`) and on the same address: an
//! organisation for each account, with its rules and refusals, limits that can be switched on,
//! answers that are kept under idempotency keys, and webhooks.
//!
//! It holds no clock and opens no socket: `oauth::Vendor::new("xero", …)` is the whole vendor, for
//! simulators as well as for servers. Where the vendor's own words for a refusal are not published,
//! those here are the stand-in's; callers must not tell refusals apart by them.

mod api;
mod bank;
mod books;
mod contacts;
mod control;
mod credit_notes;
mod documents;
mod filter;
mod items;
mod limits;
mod lines;
mod payments;
mod schema;
mod seed;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod transfers;
mod webhooks;
mod wire;

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::http::Request;
use chrono::{DateTime, Utc};

use books::Books;
use limits::{Limits, Traffic};
use seed::NewOrganisation;
use state::{Change, State};
use webhooks::{Happened, Webhooks};

use super::oauth::flow::bearer;
use super::oauth::rules::{Api, Call, Message};
use super::oauth::state::{Account, Store};
use super::oauth::xero::{dead, problem, reached};
use super::wire::{Reply, param};

const PREFIX: &str = "/api.xro/2.0/";

pub struct Xero {
    state: State,
    limits: Limits,
    traffic: Traffic,
    webhooks: Webhooks,
}

/// Reads what an earlier process left in `folder`.
pub fn open(folder: Option<&Path>) -> io::Result<Box<dyn Api>> {
    Ok(Box::new(Xero {
        state: State::open(folder)?,
        limits: Limits::default(),
        traffic: Traffic::default(),
        webhooks: Webhooks::default(),
    }))
}

impl Xero {
    /// Does something with the books of a tenant, which are opened if they never were, and tells
    /// what changed in them.
    fn with_books<T>(
        &mut self,
        account: &Account,
        now: DateTime<Utc>,
        app: Option<&str>,
        act: impl FnOnce(&mut Books<'_>) -> T,
    ) -> T {
        let mut happened: Vec<Happened> = Vec::new();
        let fresh = !self.state.organisations.contains_key(&account.id);
        let mut books = Books {
            state: &mut self.state,
            tenant: &account.id,
            now,
            app,
            places: 2,
            happened: &mut happened,
        };
        if fresh {
            let new = NewOrganisation {
                name: Some(account.name.clone()),
                ..NewOrganisation::default()
            };
            // What a country has on its first day is always good.
            let _ = seed::open(&mut books, &new);
        }
        let result = act(&mut books);
        self.webhooks.note(&happened, now);
        result
    }
}

impl Api for Xero {
    fn route(&mut self, store: &mut Store, call: &Call<'_>) -> Option<Reply> {
        let path = call.path.strip_prefix(PREFIX)?;
        let open = match bearer(store, call) {
            Ok(open) => open,
            Err(why) => return Some(dead(why)),
        };
        let resource = path.split('/').next().unwrap_or_default();
        if !api::may(&open, call.method, resource) {
            return Some(problem(401, "Unauthorized", "AuthorizationUnsuccessful"));
        }
        let wanted = call.header("xero-tenant-id").unwrap_or_default();
        let account = store
            .account(wanted)
            .filter(|_| reached(store, &open, wanted));
        let Some(account) = account.cloned() else {
            return Some(problem(403, "Forbidden", "AuthenticationUnsuccessful"));
        };
        let app = open.grant.client_id.as_str();
        let mut left = None;
        if self.limits.enabled {
            let now = call.at.timestamp_millis();
            match self.traffic.admit(&self.limits, &account.id, app, now) {
                Ok(remaining) => left = Some(remaining),
                Err(refused) => return Some(*refused),
            }
        }
        let mut answer = self.with_books(&account, call.at, Some(app), |books| {
            if param(&call.query, "unitdp") == Some("4") {
                books.places = 4;
            }
            api::serve(books, call, path)
        });
        if let Some(left) = left {
            left.mark(&mut answer);
        }
        Some(answer)
    }

    fn control(
        &mut self,
        store: &mut Store,
        request: &Request<Vec<u8>>,
        path: &str,
        now: DateTime<Utc>,
    ) -> Option<Reply> {
        control::serve(self, store, request, path, now)
    }

    fn failed(&mut self, store: &mut Store, call: &Call<'_>, answer: &Reply) {
        let Ok(open) = bearer(store, call) else {
            return;
        };
        let wanted = call.header("xero-tenant-id").unwrap_or_default();
        if let Some(account) = store.account(wanted).cloned()
            && call.path.starts_with(PREFIX)
        {
            let app = open.grant.client_id.clone();
            self.with_books(&account, call.at, Some(&app), |books| {
                api::remember_failure(books, call, answer);
            });
        }
    }

    fn latency(&self, path: &str) -> Duration {
        let held = self.limits.enabled && path.starts_with(PREFIX);
        let millis = if held { self.limits.latency_ms } else { 0 };
        Duration::from_millis(millis.unsigned_abs())
    }

    fn reset(&mut self) {
        self.state.record(Change::Reset);
        self.limits = Limits::default();
        self.traffic = Traffic::default();
        self.webhooks = Webhooks::default();
    }

    fn settle(&mut self) -> io::Result<()> {
        self.state.settle()
    }

    fn due(&mut self, now: DateTime<Utc>) -> Vec<Message> {
        let due = self.webhooks.due(now).into_iter();
        due.map(|one| Message {
            id: one.id,
            url: one.url,
            headers: vec![("x-xero-signature", one.signature)],
            body: one.body,
        })
        .collect()
    }

    fn told(&mut self, id: u64, status: Option<u16>, body: &[u8], now: DateTime<Utc>) {
        // Only an empty body counts as an answer.
        let answer = status.filter(|_| body.is_empty());
        self.webhooks.told(id, answer, now);
    }
}
