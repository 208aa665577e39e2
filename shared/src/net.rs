//! The one door out: every call to another company's server goes through here. It bounds time and
//! size, follows no redirect, and refuses addresses that are not public.

use crate::error::{Code, Error, Result};
use crate::model::http::{Authorization, Method, Request, Response};
use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secrecy::ExposeSecret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
    #[expect(clippy::disallowed_methods, reason = "this is the one outbound client")]
    pub fn new(allow_loopback: bool) -> Result<Self> {
        let guard = Guard { allow_loopback };
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            // A proxy of the environment would take the resolved address out of our hands.
            .no_proxy()
            .dns_resolver(Arc::new(guard))
            .user_agent(concat!("Crossdock/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::internal)?;
        Ok(Client { client, guard })
    }

    async fn exchange(&self, request: Request, limits: Limits) -> Result<Response> {
        self.guard.check_url(&request.url)?;
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

/// Judges where a call may go, at the moment of connecting, so that a name cannot change its meaning
/// in between.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    allow_loopback: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address; use a host that the internet can reach")]
struct Refused(IpAddr);

impl Guard {
    pub fn new(allow_loopback: bool) -> Guard {
        Guard { allow_loopback }
    }

    fn allows(self, address: IpAddr) -> bool {
        (self.allow_loopback && address.is_loopback()) || is_global(address)
    }

    /// Judges what can be known without resolving: scheme, user info, and a literal address.
    pub fn check_url(self, url: &url::Url) -> Result<()> {
        let refuse = |why: &str| Err(Error::new(Code::AddressRefused, why));
        if !url.username().is_empty() || url.password().is_some() {
            return refuse("a URL with a user name or password in it is not taken");
        }
        let address = match url.host() {
            None => return refuse("the URL names no host"),
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(url::Host::Domain(_)) => None,
        };
        let local = address.is_some_and(|address| address.is_loopback())
            || url.host_str() == Some("localhost");
        let plain = url.scheme() == "http" && self.allow_loopback && local;
        if url.scheme() != "https" && !plain {
            return refuse("only https URLs are taken");
        }
        match address {
            Some(address) if !self.allows(address) => Err(Error::new(
                Code::AddressRefused,
                Refused(address).to_string(),
            )),
            _ => Ok(()),
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = *self;
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad address among good ones is an attack, not an accident.
            if let Some(bad) = found.iter().find(|address| !guard.allows(address.ip())) {
                return Err(Refused(bad.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is reachable by everybody, after the IANA special-purpose registries
/// (RFC 6890 and its updates). What embeds an IPv4 address is refused whole: nobody needs it here.
fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_global_v4(address),
        IpAddr::V6(address) => is_global_v6(address),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 31 && c == 196)
        || (a == 192 && b == 52 && c == 193)
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 168)
        || (a == 192 && b == 175 && c == 48)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // 2000::/3 is all that is given out; within it, some blocks are special.
    let given_out = (0x2000..0x4000).contains(&a);
    let special = match a {
        // IETF protocol assignments with Teredo and ORCHID, and documentation.
        0x2001 => b < 0x0200 || b == 0x0db8,
        // 6to4.
        0x2002 => true,
        // AS112.
        0x2620 => b == 0x004f,
        // Documentation.
        0x3fff => b < 0x1000,
        _ => false,
    };
    given_out && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_allowed() {
        let refused = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.19.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:808:808::1",
            "fc00::1",
            "fe80::1",
            "ff02::1",
            "3fff::1",
            "5f00::1",
        ];
        for text in refused {
            assert!(!Guard::new(false).allows(text.parse().unwrap()), "{text}");
        }
        for text in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.255.255",
            "172.32.0.1",
            "2606:4700::1111",
        ] {
            assert!(Guard::new(false).allows(text.parse().unwrap()), "{text}");
        }
        assert!(Guard::new(true).allows("127.0.0.1".parse().unwrap()));
        assert!(!Guard::new(true).allows("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_url_is_judged_before_it_is_resolved() {
        let judge = |text: &str, loopback| {
            Guard::new(loopback)
                .check_url(&text.parse().unwrap())
                .is_ok()
        };
        assert!(judge("https://example.com/hook", false));
        for bad in [
            "http://example.com/hook",
            "https://user:word@example.com/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://0x7f000001/",
            "ftp://example.com/",
        ] {
            assert!(!judge(bad, false), "{bad}");
        }
        assert!(judge("http://localhost:8799/hook", true));
        assert!(!judge("http://localhost:8799/hook", false));
        assert!(!judge("http://example.com/hook", true));
    }
}
