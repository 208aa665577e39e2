//! A stable address for the API.
//!
//! The emulated AWS finds an API by its id, which changes with every stack. The gateway listens at a
//! fixed address and passes everything on, unchanged: cookies, redirects, binary bodies. It names
//! the API by a path and not by a host name, because under the host name the emulator answers some
//! paths itself, `/health` among them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::{Router, routing::any};

use super::{Trouble, aws};

/// The most that Amazon's API Gateway takes.
const BODY_BYTES_MAX: usize = 10 * 1024 * 1024;
/// The longest that Amazon's HTTP APIs wait for a function.
const ANSWER_SECONDS_MAX: u64 = 30;

/// Headers that belong to one connection, and those that each connection writes for itself.
const OWN_HEADERS: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::CONTENT_LENGTH,
];

#[derive(Clone)]
struct Upstream {
    url: String,
    port: HeaderValue,
}

/// Serves until the process is ended.
pub async fn serve(address: SocketAddr, api_id: &str, upstream: &str) -> Result<(), Trouble> {
    let state = Upstream {
        url: format!(
            "{}/_aws/execute-api/{api_id}/$default",
            upstream.trim_end_matches('/')
        ),
        port: HeaderValue::from(address.port()),
    };
    let router = Router::new().fallback(any(pass)).with_state(state);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|error| Trouble::io(format!("Cannot listen at {address}"), &error))?;
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await
    .map_err(|error| Trouble::io("The gateway stopped", &error))
}

async fn pass(
    State(upstream): State<Upstream>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            "The body is larger than 10 MiB.",
        );
    };
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = without_own(&parts.headers);
    forwarded(&mut headers, client, &upstream.port);
    let sent = aws::http()
        .request(parts.method, format!("{}{path}", upstream.url))
        .headers(headers)
        .body(body)
        .timeout(Duration::from_secs(ANSWER_SECONDS_MAX))
        .send()
        .await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => return unreachable(&error),
    };
    let status = answer.status();
    let headers = without_own(answer.headers());
    let mut response = match answer.bytes().await {
        Ok(bytes) => Response::new(Body::from(bytes)),
        Err(error) => return unreachable(&error),
    };
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

pub(super) fn without_own(headers: &HeaderMap) -> HeaderMap {
    // Appended one by one, because several cookies are several headers of one name.
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !OWN_HEADERS.contains(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

/// Who called, as Amazon's API Gateway says it: the client's address goes behind what the client
/// itself claims.
fn forwarded(headers: &mut HeaderMap, client: SocketAddr, port: &HeaderValue) {
    let claimed: Vec<&str> = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let address = client.ip().to_string();
    let chain = claimed
        .iter()
        .copied()
        .chain([address.as_str()])
        .collect::<Vec<_>>()
        .join(", ");
    if let Ok(value) = HeaderValue::try_from(chain) {
        headers.insert("x-forwarded-for", value);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    headers.insert("x-forwarded-port", port.clone());
}

fn unreachable(error: &reqwest::Error) -> Response<Body> {
    if error.is_connect() {
        problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The local AWS is not running. Start it with `make up`.",
        )
    } else if error.is_timeout() {
        problem(
            StatusCode::GATEWAY_TIMEOUT,
            "timeout",
            "The function did not answer within 30 s.",
        )
    } else {
        problem(
            StatusCode::BAD_GATEWAY,
            "bad_gateway",
            "The local AWS broke off its answer.",
        )
    }
}

fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Body> {
    let body = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason(),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "retryable": status.is_server_error(),
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}
