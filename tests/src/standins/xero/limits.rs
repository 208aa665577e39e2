//! The vendor's limits: per organisation a minute, a day and at once; per app a minute.

use std::collections::{BTreeMap, VecDeque};

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::standins::faults::retry_after;
use crate::standins::wire::{Reply, reply};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub enabled: bool,
    pub per_minute: usize,
    pub concurrent: usize,
    pub per_day: usize,
    pub app_per_minute: usize,
    /// How long a call is under way, by which calls at the same time are told: a server on a socket
    /// holds its answer for so long.
    pub latency_ms: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: false,
            per_minute: 60,
            concurrent: 5,
            per_day: 5000,
            app_per_minute: 10_000,
            latency_ms: 0,
        }
    }
}

/// Calls of one organisation, or of one app, as times in milliseconds.
#[derive(Default)]
struct Calls {
    recent: VecDeque<i64>,
    /// When the day began, and how many there were in it.
    day: (i64, usize),
}

impl Calls {
    fn forget(&mut self, now: i64) {
        while self.recent.front().is_some_and(|at| *at <= now - MINUTE) {
            self.recent.pop_front();
        }
        if now >= self.day.0 + DAY {
            self.day = (now, 0);
        }
    }
}

#[derive(Default)]
pub struct Traffic {
    tenants: BTreeMap<String, Calls>,
    apps: BTreeMap<String, Calls>,
}

/// What is left after a call that was let in.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    day: usize,
    minute: usize,
    app: usize,
}

impl Left {
    pub fn mark(self, answer: &mut Reply) {
        for (name, left) in [
            ("x-daylimit-remaining", self.day),
            ("x-minlimit-remaining", self.minute),
            ("x-appminlimit-remaining", self.app),
        ] {
            let name = HeaderName::from_static(name);
            answer.headers_mut().insert(name, HeaderValue::from(left));
        }
    }
}

impl Traffic {
    /// Lets one more call in, or answers how it is turned away. Only calls that are let in count.
    pub fn admit(
        &mut self,
        limits: &Limits,
        tenant: &str,
        app: &str,
        now: i64,
    ) -> Result<Left, Box<Reply>> {
        let by_tenant = self.tenants.entry(tenant.to_owned()).or_default();
        let by_app = self.apps.entry(app.to_owned()).or_default();
        by_tenant.forget(now);
        by_app.forget(now);
        let under_way = by_tenant.recent.iter().rev();
        let under_way = under_way
            .take_while(|at| **at + limits.latency_ms > now)
            .count();
        let left = |tenant: &Calls, app: &Calls| Left {
            day: limits.per_day.saturating_sub(tenant.day.1),
            minute: limits.per_minute.saturating_sub(tenant.recent.len()),
            app: limits.app_per_minute.saturating_sub(app.recent.len()),
        };
        let remaining = left(by_tenant, by_app);
        let oldest = |calls: &Calls| calls.recent.front().map_or(0, |at| at + MINUTE - now);
        let problem = if under_way >= limits.concurrent {
            Some(("concurrent", None))
        } else if remaining.day == 0 {
            Some(("day", Some(by_tenant.day.0 + DAY - now)))
        } else if remaining.minute == 0 {
            Some(("minute", Some(oldest(by_tenant))))
        } else if remaining.app == 0 {
            Some(("appminute", Some(oldest(by_app))))
        } else {
            None
        };
        if let Some((name, wait)) = problem {
            let seconds = wait.map(|wait| wait.max(0).unsigned_abs().div_ceil(1000));
            let mut answer = retry_after(reply(429, "text/plain", ""), seconds);
            let value = HeaderValue::from_static(name);
            answer.headers_mut().insert("x-rate-limit-problem", value);
            remaining.mark(&mut answer);
            return Err(Box::new(answer));
        }
        by_tenant.recent.push_back(now);
        by_tenant.day.1 += 1;
        by_app.recent.push_back(now);
        Ok(left(by_tenant, by_app))
    }
}
