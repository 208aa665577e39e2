//! The one door out: every call to another company's server goes through here. It bounds time and
//! size, follows no redirect, and refuses addresses that are not public.

mod guard;
mod timings;

pub use guard::Guard;
pub use timings::{Timings, timed};

use crate::error::{Code, Error, Result};
use crate::model::http::{Authorization, Method, Request, Response};
use async_trait::async_trait;
use guard::{Lookup, Refused, Resolver};
use secrecy::ExposeSecret;
use std::sync::Arc;
use std::time::Duration;
use tower::layer::layer_fn;

/// What one call may use up.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first look-up to the last byte of the answer.
    pub total: Duration,
    /// Most bytes of the answer that are kept; a longer one is cut when `cut` is set, else an error.
    pub body_bytes_max: usize,
    pub cut: bool,
}

impl Limits {
    /// For a provider's API: answers are read whole.
    pub const PROVIDER: Limits = Limits {
        total: Duration::from_secs(20),
        body_bytes_max: 8 << 20,
        cut: false,
    };
    /// For the question whose an access is, while somebody waits: with a call for tokens before it, it
    /// must fit into the time of one request.
    pub const ACCOUNT: Limits = Limits {
        total: Duration::from_secs(8),
        body_bytes_max: 1 << 20,
        cut: false,
    };
    /// For a developer's endpoint: only the beginning of the answer matters.
    pub const WEBHOOK: Limits = Limits {
        total: Duration::from_secs(20),
        body_bytes_max: 16 << 10,
        cut: true,
    };
}

/// Time for DNS and the handshakes, within the total.
const CONNECT: Duration = Duration::from_secs(5);

#[async_trait]
pub trait Net: Send + Sync {
    /// Sends `request` once. An `Err` means that no whole answer came; the other side may or may not
    /// have acted.
    async fn send(&self, request: Request, limits: Limits) -> Result<Response>;
}

pub struct Client {
    client: reqwest::Client,
    guard: Guard,
}

impl Client {
    /// `allow_loopback` is for the local stack alone.
    pub fn new(allow_loopback: bool) -> Result<Self> {
        Client::with_lookup(Guard::new(allow_loopback), guard::system_lookup())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one outbound client")]
    fn with_lookup(guard: Guard, lookup: Lookup) -> Result<Self> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            // A proxy of the environment would take the resolved address out of our hands.
            .no_proxy()
            .dns_resolver(Arc::new(Resolver { guard, lookup }))
            .tls_backend_preconfigured(timings::tls().map_err(Error::internal)?)
            .connector_layer(layer_fn(timings::Connector))
            .user_agent(concat!("Crossdock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)?;
        Ok(Client { client, guard })
    }

    async fn exchange(&self, request: Request, limits: Limits) -> Result<Response> {
        self.guard.check_target(&request.url)?;
        let method = match request.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let mut call = self.client.request(method, request.url).body(request.body);
        for (name, value) in request.headers {
            call = call.header(name, value);
        }
        call = match &request.authorization {
            Authorization::None => call,
            Authorization::Bearer(token) => call.bearer_auth(token.expose_secret()),
            Authorization::Basic { user, password } => {
                call.basic_auth(user, Some(password.expose_secret()))
            }
            Authorization::Headers(headers) => {
                headers.iter().try_fold(call, |call, (name, value)| {
                    let mut value = reqwest::header::HeaderValue::from_str(value.expose_secret())
                        .map_err(|_| {
                        Error::new(
                            Code::UpstreamRefused,
                            "a key holds characters that cannot be sent",
                        )
                    })?;
                    value.set_sensitive(true);
                    Ok::<_, Error>(call.header(*name, value))
                })?
            }
        };
        let mut answer = call.send().await.map_err(failed)?;
        timings::answered();
        let status = answer.status().as_u16();
        let header =
            |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            };
        let headers = answer.headers().iter().map(header).collect();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            let room = limits.body_bytes_max - body.len();
            if chunk.len() > room {
                if limits.cut {
                    body.extend_from_slice(&chunk[..room]);
                    break;
                }
                let max = limits.body_bytes_max;
                return Err(Error::new(Code::UpstreamFailed, "the answer was too large")
                    .because(format!("more than {max} bytes came")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Response {
            status,
            headers,
            body,
        })
    }
}

#[async_trait]
impl Net for Client {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        let total = limits.total;
        tokio::time::timeout(total, self.exchange(request, limits))
            .await
            .unwrap_or_else(|_| {
                let seconds = total.as_secs();
                Err(Error::new(
                    Code::UpstreamFailed,
                    format!("no answer within {seconds} seconds"),
                ))
            })
    }
}

fn failed(error: reqwest::Error) -> Error {
    // The resolver's refusal comes back wrapped in layers of the client.
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return Error::new(Code::AddressRefused, refused.to_string());
        }
        cause = inner.source();
    }
    let detail = if error.is_builder() {
        "the request could not be built, because something in it cannot be sent"
    } else if error.is_timeout() {
        "the connection timed out"
    } else if error.is_connect() {
        "no connection could be made"
    } else {
        "the connection broke before the answer was whole"
    };
    // The URL can hold what a log must not: the chain is kept without it.
    Error::new(Code::UpstreamFailed, detail).because(error.without_url())
}

#[cfg(test)]
mod tests;
