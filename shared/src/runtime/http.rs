//! The entry of a function behind API Gateway (HTTP API, payload format 2.0).

use super::{begin, context};
use crate::api::{Handler, Request, Response, problem, routes};
use crate::ctx::Ctx;
use crate::error::Code;
use lambda_http::http::HeaderMap;
use lambda_http::request::RequestContext;
use lambda_http::{Body, RequestExt};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::time::Instant;

/// Serves `handler` until Lambda ends the process.
pub async fn http(handler: Handler) -> Result<(), lambda_runtime::Error> {
    let ctx = context().await?;
    let ctx = &ctx;
    lambda_http::run(lambda_http::service_fn(
        move |request: lambda_http::Request| async move {
            let started = Instant::now();
            if let Some(call) = request.lambda_context_ref() {
                begin(ctx, call);
            }
            let request = request_of(request);
            let reply = serve(ctx, handler, &request).await;
            let route = routes::label(&request.method, &request.path);
            tracing::info!(
                request_id = %request.id, method = %request.method, %route,
                status = reply.status, milliseconds = started.elapsed().as_millis() as u64, "served"
            );
            response_of(reply, &request.id)
        },
    ))
    .await
}

async fn serve(ctx: &Ctx, handler: Handler, request: &Request) -> Response {
    let answer = match request.check_path().and_then(|()| request.check_query()) {
        Ok(()) => handler(ctx, request).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => response,
        Err(error) => {
            if error.code() == Code::Internal {
                tracing::error!(request_id = %request.id, error = %error.chain(), "failed");
            }
            problem::response(&error, request)
        }
    }
}

fn cookies(headers: &HeaderMap) -> BTreeMap<String, String> {
    let lines = headers
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok());
    let pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

fn request_of(request: lambda_http::Request) -> Request {
    let id = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.request_id.clone(),
        _ => None,
    };
    let bearer = request
        .headers()
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| SecretString::from(token.trim()))
    });
    let headers = request.headers().iter().filter(|(name, _)| {
        // These two are members of their own, or hold secrets that nobody else has to see.
        *name != "authorization" && *name != "cookie"
    });
    let headers = headers
        .filter_map(|(name, value)| {
            Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
        })
        .collect();
    let query = request.query_string_parameters();
    Request {
        method: request.method().as_str().to_owned(),
        path: request.uri().path().to_owned(),
        query: query
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        cookies: cookies(request.headers()),
        headers,
        bearer,
        id: format!(
            "req_{}",
            id.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string())
        ),
        body: match request.into_body() {
            Body::Text(text) => text.into_bytes(),
            Body::Binary(bytes) => bytes,
            _ => Vec::new(),
        },
    }
}

fn response_of(
    reply: Response,
    request_id: &str,
) -> Result<lambda_http::Response<Body>, lambda_runtime::Error> {
    let mut response = lambda_http::Response::builder()
        .status(reply.status)
        .header("request-id", request_id)
        .header("x-content-type-options", "nosniff");
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Body::Text(reply.body))?)
}
