//! Problems: every refusal in one shape (RFC 9457).

use super::{Request, Response, routes};
use crate::error::{Code, Error};
use serde_json::json;

/// Where the types are explained, relative to the API.
const TYPE_BASE: &str = "/docs/errors#";

/// The problem document's members.
pub fn document(error: &Error, request_id: &str) -> serde_json::Value {
    let code = error.code();
    let mut problem = json!({
        "type": format!("{TYPE_BASE}{}", code.as_str()),
        "title": code.title(),
        "status": code.status(),
        "detail": error.detail(),
        "code": code.as_str(),
        "request_id": request_id,
        "retryable": code.retryable(),
    });
    if !error.fields().is_empty() {
        problem["errors"] = json!(error.fields());
    }
    problem
}

/// The reply to a request that failed.
pub fn response(error: &Error, request: &Request) -> Response {
    let mut response = Response {
        status: error.code().status(),
        headers: vec![("content-type", "application/problem+json".to_owned())],
        body: document(error, &request.id).to_string(),
    };
    if error.code() == Code::Unauthenticated {
        response = response.header("www-authenticate", "Bearer realm=\"crossdock\"");
    }
    if error.code() == Code::MethodNotAllowed {
        response = response.header("allow", routes::methods(&request.path).join(", "));
    }
    if error.code() == Code::Busy {
        response = response.header("retry-after", "1");
    }
    response
}
