//! Faults on demand and the vendor's rate limits.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    StatusBeforeEffect,
    StatusAfterEffect,
    TimeoutBeforeEffect,
    TimeoutAfterEffect,
    /// The effect happens and the answer breaks off in its middle.
    TruncatedBody,
    Throttle,
    /// The connection is reset after the effect, the harder of the two for a caller.
    #[serde(alias = "reset")]
    ResetAfterEffect,
    ResetBeforeEffect,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Looked for in the path and the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_contains: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_contains: Option<String>,
}

fn one() -> u64 {
    1
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, rename = "match")]
    pub matching: Match,
    pub kind: Kind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// How long a time-out holds the connection, for a server on a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u64>,
    /// How often the rule still fires.
    #[serde(default = "one")]
    pub times: u64,
    /// Matching requests to let pass first.
    #[serde(default)]
    pub after: u64,
    /// Of those that follow, only each n-th.
    #[serde(default = "one")]
    pub every: u64,
    /// Matching requests so far.
    #[serde(default)]
    pub seen: u64,
}

impl Rule {
    fn fires(&mut self, method: &str, target: &str, body: &[u8]) -> bool {
        let matching = &self.matching;
        let held = matching
            .method
            .as_ref()
            .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method))
            && matching
                .path_contains
                .as_ref()
                .is_none_or(|part| target.contains(part.as_str()))
            && matching
                .body_contains
                .as_ref()
                .is_none_or(|part| String::from_utf8_lossy(body).contains(part.as_str()));
        if !held || self.times == 0 {
            return false;
        }
        self.seen += 1;
        let due =
            self.seen > self.after && (self.seen - self.after).is_multiple_of(self.every.max(1));
        if due {
            self.times -= 1;
        }
        due
    }
}

#[derive(Default)]
pub struct Faults {
    pub rules: Vec<Rule>,
}

impl Faults {
    /// The first rule that fires on this request. Rules that are used up go.
    pub fn next(&mut self, method: &str, target: &str, body: &[u8]) -> Option<Rule> {
        let fired = self
            .rules
            .iter_mut()
            .find_map(|rule| rule.fires(method, target, body).then(|| rule.clone()));
        self.rules.retain(|rule| rule.times > 0);
        fired
    }
}

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
