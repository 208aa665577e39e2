//! A plain HTTP client of the public API and of the control ports, as a backend would write one:
//! it sends JSON, and sends it again when the answer says that this may help.

use super::{Outcome, chain};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use serde_json::Value;
use std::time::Duration;

const TRIES_MAX: u32 = 8;
const FIRST_DELAY: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(8);
/// Longer than the API's own limit of 30 s, so that its answer is what is seen.
const TIMEOUT: Duration = Duration::from_secs(40);

/// One HTTP client for everything, which follows no redirect by itself: the story shows each.
#[expect(
    clippy::disallowed_methods,
    reason = "The demonstration is a stranger to the functions' client."
)]
pub fn http() -> Outcome<reqwest::Client> {
    // Everything is on this machine, so a proxy of the environment has no part in it.
    let builder = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    Ok(builder
        .redirect(reqwest::redirect::Policy::none())
        .build()?)
}

/// A server that is spoken to in JSON.
#[derive(Clone)]
pub struct Server {
    http: reqwest::Client,
    base: String,
    key: Option<String>,
}

/// An answer, read whole.
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Server {
    pub fn new(http: &reqwest::Client, base: &str, key: Option<&str>) -> Server {
        Server {
            http: http.clone(),
            base: base.to_owned(),
            key: key.map(str::to_owned),
        }
    }

    pub async fn get(&self, path: &str) -> Outcome<Reply> {
        self.send(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Outcome<Reply> {
        self.send(Method::POST, path, Some(body.to_string())).await
    }

    /// Sends until there is an answer that another try would not change. Every write of the story
    /// carries an id of its own, so a repeated one is answered as before and does nothing twice.
    async fn send(&self, method: Method, path: &str, body: Option<String>) -> Outcome<Reply> {
        let mut delay = FIRST_DELAY;
        let mut tries = 1;
        loop {
            let outcome = self.send_once(method.clone(), path, body.clone()).await;
            let hint = match &outcome {
                Ok(reply) if !reply.is_transient() => return outcome,
                Ok(reply) => reply.retry_after(),
                Err(_) => None,
            };
            if tries == TRIES_MAX {
                return outcome.map_err(|error| {
                    let what = format!("{method} {}{path} has no answer", self.base);
                    format!("{what} after {tries} tries: {}", chain(&*error)).into()
                });
            }
            tokio::time::sleep(hint.unwrap_or(delay).min(DELAY_MAX)).await;
            delay = (delay * 2).min(DELAY_MAX);
            tries += 1;
        }
    }

    async fn send_once(&self, method: Method, path: &str, body: Option<String>) -> Outcome<Reply> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(key) = &self.key {
            request = request.header(AUTHORIZATION, format!("Bearer {key}"));
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply {
            status,
            headers,
            body: response.text().await?,
        })
    }
}

impl Reply {
    pub fn json(&self) -> Outcome<Value> {
        serde_json::from_str(&self.body)
            .map_err(|error| format!("answer {} is not JSON: {error}", self.status).into())
    }

    /// The JSON of an answer that has to be a success; a problem becomes an error in words.
    pub fn success(&self, what: &str) -> Outcome<Value> {
        if (200..300).contains(&self.status) {
            return self.json();
        }
        let problem = self.json().unwrap_or_default();
        let code = problem["code"].as_str().unwrap_or("no code");
        let detail = problem["detail"].as_str().unwrap_or("no detail");
        Err(format!(
            "{what} was answered with {} ({code}): {detail}",
            self.status
        )
        .into())
    }

    pub fn is_replayed(&self) -> bool {
        self.headers
            .get("idempotent-replayed")
            .is_some_and(|value| value == "true")
    }

    fn is_transient(&self) -> bool {
        matches!(self.status, 429 | 500 | 502 | 503 | 504)
    }

    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}
