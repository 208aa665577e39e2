//! A stand-in on an address, with connections that can be broken off.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, State};
use axum::http::{Request, Response, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::serve::{IncomingStream, Listener};
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::wire::reply;
use super::{Lost, Outcome, Standin};

const LARGEST_BODY: usize = 16 * 1024 * 1024;

/// Serves until the process ends.
pub(super) async fn serve(address: SocketAddr, standin: impl Standin) -> io::Result<()> {
    let listener = Breakable(TcpListener::bind(address).await?);
    let service = router(standin).into_make_service_with_connect_info::<Break>();
    axum::serve(listener, service).await
}

/// Tells a connection's stream to fail.
#[derive(Clone, Default)]
struct Break(Arc<AtomicBool>);

struct Breakable(TcpListener);

struct Connection {
    stream: TcpStream,
    broken: Break,
}

impl Listener for Breakable {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Small answers must not wait for the caller's acknowledgement of the last one.
        let _ = stream.set_nodelay(true);
        (
            Connection {
                stream,
                broken: Break::default(),
            },
            address,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, Breakable>> for Break {
    fn connect_info(stream: IncomingStream<'_, Breakable>) -> Self {
        stream.io().broken.clone()
    }
}

impl Connection {
    fn failure(&self) -> Option<io::Error> {
        self.broken.0.load(Ordering::Relaxed).then(|| {
            // Without lingering the close goes out as a reset.
            let _ = self.stream.set_zero_linger();
            io::Error::from(io::ErrorKind::ConnectionReset)
        })
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.failure() {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Every path on one handler: the vendor's addresses are decided by what is asked of them.
fn router<S: Standin>(standin: S) -> Router {
    Router::new().fallback(answer::<S>).with_state(standin)
}

async fn answer<S: Standin>(State(standin): State<S>, request: Request<Body>) -> Response<Body> {
    let connection = request
        .extensions()
        .get::<ConnectInfo<Break>>()
        .map(|ConnectInfo(connection)| connection.clone());
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LARGEST_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = Request::from_parts(parts, body.to_vec());
    let Outcome {
        reply: outcome,
        hold,
    } = standin.outcome(&request);
    match outcome {
        Ok(reply) => {
            tokio::time::sleep(hold).await;
            reply.map(Body::from)
        }
        Err(Lost::Truncated { status, body }) => truncated(status, body),
        Err(Lost::TimedOut | Lost::Reset) => {
            tokio::time::sleep(hold).await;
            if let Some(connection) = connection {
                connection.0.store(true, Ordering::Relaxed);
            }
            reply(504, "text/plain", "").map(Body::from)
        }
    }
}

/// Promises the whole body, sends the half, and breaks off.
fn truncated(status: u16, body: Vec<u8>) -> Response<Body> {
    let promised = body.len() * 2 + 1;
    let parts = stream::unfold(Some(Bytes::from(body)), |half| async move {
        match half {
            Some(half) => Some((Ok(half), None)),
            None => {
                // Gives the first half time to leave, so that the caller meets a broken body and
                // not a broken connection.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((Err(io::Error::from(io::ErrorKind::ConnectionReset)), None))
            }
        }
    });
    let mut response = Response::new(Body::from_stream(parts));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, promised.into());
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("application/json;charset=UTF-8"),
    );
    response
}
