//! `$default`: the health check, and a problem document for every path that nothing serves.

use super::{Request, Response};
use crate::ctx::Ctx;
use crate::error::Result;
use futures::future::BoxFuture;
use serde_json::json;

pub fn handle<'a>(_: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("GET", ["health"]) => Response::json(200, &json!({ "status": "ok" })),
            _ => Err(request.unknown()),
        }
    })
}
