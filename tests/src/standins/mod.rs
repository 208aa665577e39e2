//! Provider stand-ins: QuickBooks and Xero whole, and the OAuth half of all others.

mod faults;
mod money;
pub mod oauth;
pub mod quickbooks;
mod socket;
mod wire;
mod xero;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::Request;
use chrono::{DateTime, Utc};
use futures::future::try_join_all;

use wire::Reply;

/// Where the time comes from. A fixed clock moves only when it is told to.
#[derive(Clone, Copy, Debug, Default)]
pub enum Clock {
    #[default]
    System,
    Fixed(DateTime<Utc>),
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "This is the clock that a stand-in on an address runs by."
    )]
    fn now(self) -> DateTime<Utc> {
        match self {
            Self::System => Utc::now(),
            Self::Fixed(at) => at,
        }
    }
}

/// Why a caller never sees the answer to a request.
#[derive(Debug)]
pub enum Lost {
    TimedOut,
    Reset,
    /// The status line and the first half of the body came.
    Truncated {
        status: u16,
        body: Vec<u8>,
    },
}

/// A reply, or its loss and how long a server holds the connection before it lets go.
struct Outcome {
    reply: Result<Reply, Lost>,
    hold: Duration,
}

impl Outcome {
    fn at_once(reply: Reply) -> Self {
        Self {
            reply: Ok(reply),
            hold: Duration::ZERO,
        }
    }

    /// What became of the request, as the counts name it.
    fn became(&self) -> String {
        match &self.reply {
            Ok(reply) => reply.status().as_u16().to_string(),
            Err(Lost::TimedOut) => "timeout".to_owned(),
            Err(Lost::Reset) => "reset".to_owned(),
            Err(Lost::Truncated { .. }) => "truncated".to_owned(),
        }
    }
}

/// What can be served on an address.
trait Standin: Clone + Send + Sync + 'static {
    fn outcome(&self, request: &Request<Vec<u8>>) -> Outcome;
}

/// Why a file of an earlier process's state cannot be read, and what to do.
fn damaged(file: &Path, error: &serde_json::Error) -> io::Error {
    let file = file.display();
    io::Error::other(format!(
        "{file} is damaged ({error}): begin anew with `make down` and `make up`"
    ))
}

/// The names of all providers, in the order of their ports.
pub fn names() -> impl Iterator<Item = &'static str> {
    std::iter::once("quickbooks").chain(oauth::names())
}

/// Serves several providers in one process until it ends, or until one of them fails.
pub async fn serve(providers: Vec<(String, SocketAddr)>, state: Option<PathBuf>) -> io::Result<()> {
    let servers = providers.into_iter().map(|(name, address)| {
        let state = state.clone();
        async move {
            match name.as_str() {
                "quickbooks" => quickbooks::serve(address, state).await,
                name => oauth::serve(name, address, state).await,
            }
        }
    });
    try_join_all(servers).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_damaged_file_is_named_with_what_to_do() {
        let folder = std::env::temp_dir().join(format!("damaged-{}", std::process::id()));
        for (file, name) in [
            ("hubspot.json", "hubspot"),
            ("xero.json", "xero"),
            ("xero.jsonl", "xero"),
            ("quickbooks.jsonl", "quickbooks"),
        ] {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(file), "[{\"cut\n").unwrap();
            let state = Some(folder.clone());
            let opened = match name {
                "quickbooks" => quickbooks::Quickbooks::new(quickbooks::Options {
                    state,
                    ..quickbooks::Options::default()
                })
                .map(drop),
                name => oauth::Vendor::new(
                    name,
                    oauth::Options {
                        state,
                        ..oauth::Options::default()
                    },
                )
                .map(drop),
            };
            fs::remove_dir_all(&folder).unwrap();
            let told = opened.expect_err(file).to_string();
            let path = folder.join(file).display().to_string();
            assert!(
                told.contains(&path) && told.contains("`make down`"),
                "{told}"
            );
        }
    }
}
