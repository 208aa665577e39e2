//! Faults on demand.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::wire::{Reply, reply};
use super::{Lost, Outcome};

/// How long a vendor's own gateway lets a caller wait before it gives up.
const VENDOR_TIMEOUT: u64 = 120;

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
    /// The effect happens and a page of some gateway comes in place of the answer.
    HtmlBody,
    /// The effect happens and the answer has its status but no body.
    EmptyBody,
    /// The effect happens and the JSON answer lacks the field that `field` names.
    WithoutField,
    /// The effect happens and the JSON answer has `value` in the field that `field` names.
    WithField,
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
    /// What `without_field` leaves out and `with_field` puts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
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

/// How a vendor words its own failures.
pub struct Troubles<'a> {
    pub broken: &'a dyn Fn(u16) -> Reply,
    pub throttled: &'a dyn Fn(Option<u64>) -> Reply,
}

impl Rule {
    /// What the caller meets in place of what `route` answers.
    pub fn play(&self, troubles: &Troubles<'_>, route: impl FnOnce() -> Reply) -> Outcome {
        let mut hold = Duration::ZERO;
        let reply = match self.kind {
            Kind::StatusBeforeEffect => Ok((troubles.broken)(self.status.unwrap_or(503))),
            Kind::StatusAfterEffect => {
                route();
                Ok((troubles.broken)(self.status.unwrap_or(503)))
            }
            Kind::Throttle => Ok((troubles.throttled)(self.retry_after)),
            Kind::TimeoutBeforeEffect | Kind::TimeoutAfterEffect => {
                if self.kind == Kind::TimeoutAfterEffect {
                    route();
                }
                hold = Duration::from_secs(self.hold_seconds.unwrap_or(VENDOR_TIMEOUT));
                Err(Lost::TimedOut)
            }
            Kind::TruncatedBody => {
                let whole = route();
                let half = whole.body().len() / 2;
                Err(Lost::Truncated {
                    status: whole.status().as_u16(),
                    body: whole.body()[..half].to_vec(),
                })
            }
            Kind::ResetAfterEffect => {
                route();
                Err(Lost::Reset)
            }
            Kind::ResetBeforeEffect => Err(Lost::Reset),
            Kind::HtmlBody => {
                let status = self.status.unwrap_or(route().status().as_u16());
                let page = "<!doctype html>\n<html><head><title>Just a moment</title></head><body><h1>Please wait</h1></body></html>\n";
                Ok(reply(status, "text/html; charset=UTF-8", page))
            }
            Kind::EmptyBody => {
                let mut answer = route();
                answer.body_mut().clear();
                Ok(answer)
            }
            Kind::WithoutField | Kind::WithField => Ok(self.changed(route())),
        };
        Outcome { reply, hold }
    }

    /// The answer with another value in one field, or without it.
    fn changed(&self, mut answer: Reply) -> Reply {
        if let Some(field) = &self.field
            && let Ok(mut body) = serde_json::from_slice::<Value>(answer.body())
            && let Some(fields) = body.as_object_mut()
        {
            match (&self.value, self.kind) {
                (Some(value), Kind::WithField) => fields.insert(field.clone(), value.clone()),
                _ => fields.remove(field),
            };
            *answer.body_mut() = body.to_string().into_bytes();
        }
        answer
    }
}

/// Tells how long to wait, where a rule asks for it.
pub fn retry_after(mut answer: Reply, seconds: Option<u64>) -> Reply {
    if let Some(seconds) = seconds {
        let value = HeaderValue::from(seconds);
        answer.headers_mut().insert(header::RETRY_AFTER, value);
    }
    answer
}
