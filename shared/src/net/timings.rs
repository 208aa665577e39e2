//! How long the parts of a call took. The client does its work in the task of the call, so what it
//! reaches is noted in a task-local.

use futures::future::BoxFuture;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tower::Service;

/// How far a call came, and how fast, in milliseconds. A part that was not reached, or not needed since
/// a connection was open already, is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// The look-up of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ms: Option<u64>,
    /// The TCP connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// The TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ms: Option<u64>,
    /// From the beginning of the call to the head of the reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
}

struct Noted {
    began: Instant,
    /// When the part began that is on its way.
    part: Instant,
    timings: Timings,
}

tokio::task_local! {
    static NOTED: RefCell<Noted>;
}

/// Does `call`, and says what was noted of what it sent.
pub async fn timed<F: Future>(call: F) -> (F::Output, Timings) {
    let now = Instant::now();
    let noted = Noted {
        began: now,
        part: now,
        timings: Timings::default(),
    };
    let done = async {
        let output = call.await;
        (output, NOTED.with(|noted| noted.borrow().timings))
    };
    NOTED.scope(RefCell::new(noted), done).await
}

/// Notes something, if the call is timed.
fn note(change: impl FnOnce(&mut Noted)) {
    // Nothing is lost: a call that nobody times has no place for it.
    let _ = NOTED.try_with(|noted| change(&mut noted.borrow_mut()));
}

fn since(begin: Instant) -> Option<u64> {
    u64::try_from(begin.elapsed().as_millis()).ok()
}

/// Times a look-up.
pub(super) async fn resolving<T, E>(lookup: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    note(|noted| noted.part = Instant::now());
    let found = lookup.await?;
    note(|noted| {
        noted.timings.dns_ms = since(noted.part);
        noted.part = Instant::now();
    });
    Ok(found)
}

/// The head of the reply is there.
pub(super) fn answered() {
    note(|noted| noted.timings.first_byte_ms = since(noted.began));
}

/// Times connecting, whole: the look-up and the beginning of TLS part it.
#[derive(Debug, Clone)]
pub(super) struct Connector<S>(pub S);

impl<S, R> Service<R> for Connector<S>
where
    S: Service<R>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: R) -> Self::Future {
        let connecting = self.0.call(target);
        Box::pin(async move {
            note(|noted| noted.part = Instant::now());
            let connection = connecting.await?;
            note(|noted| match noted.timings.connect_ms {
                Some(_) => noted.timings.tls_ms = since(noted.part),
                // Without TLS, which the local stack alone may do.
                None => noted.timings.connect_ms = since(noted.part),
            });
            Ok(connection)
        })
    }
}

/// The sessions that TLS may take up again. A handshake begins with a question to it: what came before
/// was TCP.
#[derive(Debug)]
struct Sessions(ClientSessionMemoryCache);

/// Most servers whose sessions are remembered; the default of rustls.
const SESSIONS_MAX: usize = 256;

impl ClientSessionStore for Sessions {
    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        note(|noted| {
            if noted.timings.connect_ms.is_none() {
                noted.timings.connect_ms = since(noted.part);
                noted.part = Instant::now();
            }
        });
        self.0.kx_hint(server)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server, group);
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.0.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server, ticket);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(server)
    }
}

/// TLS as the client would set it up by itself, with sessions that tell the time.
pub(super) fn tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let sessions = Sessions(ClientSessionMemoryCache::new(SESSIONS_MAX));
    config.resumption = Resumption::store(Arc::new(sessions));
    Ok(config)
}
