//! Voucherify: no OAuth; a project's pair of keys goes with each call.

use axum::http::Method;
use serde_json::json;

use super::flow::{Dead, open};
use super::rules::{Call, Vendor};
use super::state::{Store, uuid};
use crate::standins::wire::{Reply, json_reply};

pub const VENDOR: Vendor = Vendor {
    name: "voucherify",
    title: "Voucherify",
    accounts: &[
        ("proj_standin0000000001", "Demo Shop", ""),
        ("proj_standin0000000002", "Second Shop", ""),
    ],
    oauth: None,
    // Id and token of one pair, with a colon between them.
    key: Some("standin-app:standin-token"),
    route,
    trouble: |status| match status {
        429 => refused(
            429,
            "too_many_requests",
            "Too many requests",
            "Rate limit exceeded",
        ),
        _ => refused(
            status,
            "internal_error",
            "Internal error",
            "Something went wrong",
        ),
    },
    api: None,
};

fn refused(status: u16, key: &str, message: &str, details: &str) -> Reply {
    json_reply(
        status,
        &json!({
            "code": status,
            "key": key,
            "message": message,
            "details": details,
            "request_id": format!("v-{}", &uuid(key)[..8]),
        }),
    )
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let list = match (call.method, call.path.trim_end_matches('/')) {
        (&Method::GET, "/v1/customers") => "customers",
        (&Method::GET, "/v1/campaigns") => "campaigns",
        (&Method::GET, "/v1/orders") => "orders",
        _ => return None,
    };
    let pair = call
        .header("x-app-id")
        .zip(call.header("x-app-token"))
        .map(|(id, token)| format!("{id}:{token}"));
    Some(match open(store, pair.as_deref(), call.now) {
        Ok(_) => json_reply(
            200,
            &json!({"object": "list", "data_ref": list, list: [], "total": 0, "has_more": false}),
        ),
        Err(Dead::Missing) => refused(
            401,
            "unauthorized",
            "Unauthorized",
            "X-App-Id or X-App-Token header is missing",
        ),
        Err(_) => refused(
            401,
            "unauthorized",
            "Unauthorized",
            "Couldn't find app with the given id and token",
        ),
    })
}
