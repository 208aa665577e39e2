//! SendGrid: no OAuth; a merchant pastes a key, and one call tells what the key may do.

use axum::http::Method;
use serde_json::json;

use super::flow::{Dead, bearer};
use super::rules::{Call, Vendor};
use super::state::Store;
use crate::standins::wire::{Reply, json_reply};

/// What a key with full access may do, as far as a shop cares.
const SCOPES: &str = "mail.send marketing.read marketing.automation.read user.account.read \
    user.username.read user.webhooks.event.settings.create user.webhooks.event.settings.read \
    user.webhooks.event.settings.update user.webhooks.event.settings.delete \
    asm.groups.read suppression.read";

pub const VENDOR: Vendor = Vendor {
    name: "sendgrid",
    title: "SendGrid",
    accounts: &[("1", "demo-shop", "1"), ("2", "second-shop", "2")],
    oauth: None,
    key: Some("SG.standin-key-000000000.standin-secret-0000000000000000000000000000"),
    route,
    trouble: |status| match status {
        429 => errors(429, "too many requests"),
        _ => errors(status, "internal server error"),
    },
    api: None,
};

fn errors(status: u16, message: &str) -> Reply {
    json_reply(
        status,
        &json!({"errors": [{"message": message, "field": null, "help": null}]}),
    )
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let (right, path) = match (call.method, call.path) {
        (&Method::GET, path @ "/v3/scopes") => ("", path),
        (&Method::GET, path @ "/v3/user/account") => ("user.account.read", path),
        (&Method::GET, path @ "/v3/user/username") => ("user.username.read", path),
        _ => return None,
    };
    let open = match bearer(store, call) {
        Ok(open) => open,
        Err(Dead::Missing) => return Some(errors(401, "authorization required")),
        Err(_) => {
            let message = "The provided authorization grant is invalid, expired, or revoked";
            return Some(errors(401, message));
        }
    };
    let granted = match open.access.scope.as_str() {
        "" => SCOPES,
        given => given,
    };
    let scopes: Vec<&str> = granted.split_whitespace().collect();
    if !right.is_empty() && !scopes.contains(&right) {
        return Some(errors(403, "access forbidden"));
    }
    Some(match path {
        "/v3/scopes" => json_reply(200, &json!({"scopes": scopes})),
        "/v3/user/account" => json_reply(200, &json!({"type": "paid", "reputation": 100})),
        _ => {
            let id = open.account.id.parse::<u64>().unwrap_or_default();
            json_reply(200, &json!({"username": open.account.name, "user_id": id}))
        }
    })
}
