//! The vendor's rate limits.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    pub enabled: bool,
    pub per_second: usize,
    pub per_minute: usize,
    pub batches_per_minute: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            enabled: false,
            per_second: 10,
            per_minute: 500,
            batches_per_minute: 40,
            retry_after: None,
        }
    }
}

/// Recent calls of each company and app, as times in milliseconds.
#[derive(Default)]
pub struct Traffic {
    calls: BTreeMap<String, VecDeque<i64>>,
    batches: BTreeMap<String, VecDeque<i64>>,
}

fn within(times: &VecDeque<i64>, since: i64) -> usize {
    times.iter().rev().take_while(|time| **time > since).count()
}

impl Traffic {
    /// Whether one more call is within the limits; only a call that is let in counts.
    pub fn admit(
        &mut self,
        limits: &Limits,
        company: &str,
        client: &str,
        batch: bool,
        now: i64,
    ) -> bool {
        if !limits.enabled {
            return true;
        }
        let app = format!("{company} {client}");
        let minute = now - 60_000;
        for times in self.calls.values_mut().chain(self.batches.values_mut()) {
            while times.front().is_some_and(|time| *time <= minute) {
                times.pop_front();
            }
        }
        let by_app = self.calls.entry(app.clone()).or_default();
        if within(by_app, now - 1000) >= limits.per_second {
            return false;
        }
        let by_company = self.calls.entry(company.to_owned()).or_default();
        if by_company.len() >= limits.per_minute {
            return false;
        }
        let batches = self.batches.entry(app.clone()).or_default();
        if batch {
            if batches.len() >= limits.batches_per_minute {
                return false;
            }
            batches.push_back(now);
        }
        for key in [app, company.to_owned()] {
            self.calls.entry(key).or_default().push_back(now);
        }
        true
    }
}
