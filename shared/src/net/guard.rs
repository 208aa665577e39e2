//! Where a call may go.

use super::timings;
use crate::error::{Code, Error, Result};
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Where HTTPS is served: the port of the scheme, and its alternative.
const PORTS: [u16; 2] = [443, 8443];

/// Judges where a call may go, at the moment of connecting, so that a name cannot change its meaning
/// in between.
#[derive(Debug, Clone, Copy)]
pub struct Guard {
    allow_loopback: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address; use a host that the internet can reach")]
pub(super) struct Refused(IpAddr);

impl Guard {
    pub fn new(allow_loopback: bool) -> Guard {
        Guard { allow_loopback }
    }

    pub(super) fn allows(self, address: IpAddr) -> bool {
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
        let plain = url.scheme() == "http" && self.allow_loopback && is_local(url);
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

    /// Judges what is to be called: as [`Guard::check_url`], and by its port. The local stack may
    /// call every port of its own machine.
    pub fn check_target(self, url: &url::Url) -> Result<()> {
        self.check_url(url)?;
        let port = url.port_or_known_default();
        if self.allow_loopback && is_local(url) || port.is_some_and(|port| PORTS.contains(&port)) {
            return Ok(());
        }
        let [usual, alternative] = PORTS;
        Err(Error::new(
            Code::AddressRefused,
            format!(
                "only the ports {usual} and {alternative} are called; serve the URL at one of them"
            ),
        ))
    }
}

fn is_local(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Finds the addresses of a name.
pub(super) type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The lookup of the operating system.
pub(super) fn system_lookup() -> Lookup {
    Arc::new(|name| {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
    })
}

/// Gives the client the addresses that the guard allows; it connects to these and asks no second time.
pub(super) struct Resolver {
    pub guard: Guard,
    pub lookup: Lookup,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, found) = (self.guard, (self.lookup)(name.as_str().to_owned()));
        Box::pin(async move {
            let found = timings::resolving(found).await?;
            // One bad address among good ones is an attack, not an accident.
            if let Some(bad) = found.iter().find(|address| !guard.allows(address.ip())) {
                return Err(Refused(bad.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is reachable by everybody, after the IANA special-purpose registries
/// (RFC 6890 and its updates), and stricter than they are in two ways. What embeds an IPv4 address is
/// refused whole: a gateway would carry the call to that address, private ones too, and nobody needs
/// it here. And so is what is reachable but serves no web pages: AS112, AMT, the anycast of PCP and
/// TURN, and all of the IETF's protocol assignments, where the registry makes exceptions.
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
        // Multicast, and what is reserved.
        || a >= 224;
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, _, e, f, ..] = address.segments();
    // 2000::/3 is all that is global unicast; within it, some blocks are special.
    let unicast = (0x2000..0x4000).contains(&a);
    let special = match a {
        // IETF protocol assignments with Teredo and ORCHID, and documentation.
        0x2001 => b < 0x0200 || b == 0x0db8,
        // 6to4.
        0x2002 => true,
        // AS112.
        0x2620 => b == 0x004f && c == 0x8000,
        // Documentation.
        0x3fff => b < 0x1000,
        _ => false,
    };
    // ISATAP (RFC 5214) puts an IPv4 address behind any prefix.
    let isatap = matches!(e, 0 | 0x0200) && f == 0x5efe;
    unicast && !special && !isatap
}
