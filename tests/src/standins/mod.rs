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
use std::path::PathBuf;
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
