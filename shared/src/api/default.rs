//! `$default`: the health check, the page that explains errors, the OpenAPI document, and a problem
//! document for every path or method that nothing serves.

use super::{Request, Response};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::portal;
use futures::future::BoxFuture;
use serde_json::json;

/// Where the `type` of every problem leads.
const ERRORS: &str = include_str!("../../../docs/errors.md");
/// What `openapi` builds; a test compares the two.
const OPENAPI: &str = include_str!("../../../docs/openapi.json");

pub fn handle<'a>(_: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("GET", ["health"]) => Response::json(200, &json!({ "status": "ok" })),
            ("GET", ["docs", "errors"]) => {
                let page = Response::html(200, portal::document(ERRORS));
                Ok(page.header("cache-control", "max-age=3600"))
            }
            ("GET", ["api", "v1", "openapi.json"]) => Ok(Response {
                status: 200,
                headers: vec![
                    ("content-type", "application/json".to_owned()),
                    ("cache-control", "max-age=3600".to_owned()),
                ],
                body: OPENAPI.to_owned(),
            }),
            _ => Err(request.unknown()),
        }
    })
}
