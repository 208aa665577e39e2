//! Mailchimp: tokens that live until the user takes them back, and a call that tells in which data
//! centre the account lives.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::flow::{Dead, Open, open};
use super::rules::{
    Call, ClientAuth, Declined, Issued, Kind, MINUTE, Minting, OAuth, Pkce, RedirectAtToken,
    Refusal, Scopes, Vendor, oauth_error,
};
use super::state::{Store, hex, uuid};
use crate::standins::wire::{Reply, json_reply, param, params, reply};

const DATA_CENTRE: &str = "us6";

const OAUTH: OAuth = OAuth {
    authorize: &["/oauth2/authorize"],
    token: &["/oauth2/token"],
    client_auth: ClientAuth::Form,
    response_type: true,
    // There are none: a token may do everything.
    scopes: Scopes {
        known: |_| true,
        default: Some(""),
        usual: "",
    },
    redirect_optional: false,
    redirect_at_token: RedirectAtToken::Required,
    errors_go_back: false,
    denied: None,
    code_life: 10 * MINUTE,
    code_reuse_revokes: false,
    pkce: Pkce::Ignored,
    access_life: None,
    refresh: None,
    refresh_pkce: None,
    refresh_scopes: &[],
    grants_max: None,
    callback: |_| Vec::new(),
    mint: |minting: &Minting<'_>| match minting.kind {
        Kind::Code | Kind::Access | Kind::Refresh => hex(minting.secret)[..32].to_owned(),
    },
    answer: |issued: &Issued<'_>| {
        // Zero seconds stand for no end.
        json!({"access_token": issued.access_token, "expires_in": 0, "scope": null})
    },
    refuse,
    decline: |declined| match declined {
        Declined::Client => ("invalid_client", "Unknown client".to_owned()),
        Declined::Redirect(_) => (
            "redirect_uri_mismatch",
            "The redirect URI does not match the registered one".to_owned(),
        ),
        _ => ("invalid_request", "The request is invalid".to_owned()),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "mailchimp",
    title: "Mailchimp",
    accounts: &[
        ("5f0c1e2d3b4a59687706f5e4d", "Demo Shop", "100001"),
        ("6a1b2c3d4e5f60718293a4b5c", "Second Shop", "100002"),
    ],
    oauth: Some(OAUTH),
    key: Some("0123456789abcdef0123456789abcdef-us6"),
    route,
    trouble: |status| match status {
        429 => problem(
            429,
            "Too Many Requests",
            "You have exceeded the limit of 10 simultaneous connections.",
        ),
        _ => problem(
            status,
            "Internal Server Error",
            "An unexpected internal error has occurred.",
        ),
    },
    api: None,
};

fn refuse(refusal: &Refusal<'_>, _: &Call<'_>) -> Reply {
    let (status, code) = refusal.standard();
    let words = match refusal {
        Refusal::ClientMissing | Refusal::ClientUnknown | Refusal::SecretWrong => {
            "Client credentials are invalid"
        }
        Refusal::CodeUsed(_) | Refusal::CodeUnknown(_) => "Invalid authorization code",
        Refusal::CodeExpired(_) => "Authorization code has expired",
        Refusal::Redirect | Refusal::CodeOfAnother => {
            "The redirect URI is missing or does not match"
        }
        _ => "The request is invalid",
    };
    oauth_error(status, code, Some(words))
}

fn problem(status: u16, title: &str, detail: &str) -> Reply {
    let body = json!({
        "type": "https://mailchimp.com/developer/marketing/docs/errors/",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": uuid(title),
    });
    reply(
        status,
        "application/problem+json; charset=utf-8",
        body.to_string(),
    )
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    match (call.method, call.path.trim_end_matches('/')) {
        (&Method::GET | &Method::POST, "/oauth2/metadata") => Some(metadata(store, call)),
        (&Method::GET, "/3.0/ping") => Some(api(
            store,
            call,
            |_| json!({"health_status": "Everything's Chimpy!"}),
        )),
        (&Method::GET, "/3.0") => Some(api(store, call, |open| {
            json!({
                "account_id": open.account.id,
                "login_id": open.account.user,
                "account_name": open.account.name,
                "email": "owner@example.com",
                "first_name": "Olive",
                "last_name": "Owner",
                "username": "owner",
                "role": "owner",
                "account_timezone": "US/Eastern",
                "pricing_plan_type": "monthly",
                "total_subscribers": 0,
                "_links": [],
            })
        })),
        _ => None,
    }
}

fn token(call: &Call<'_>) -> Option<String> {
    let bearer = call.authorization("oauth").or(call.authorization("bearer"));
    bearer
        .map(str::to_owned)
        .or_else(|| param(&params(call.body), "oauth_token").map(str::to_owned))
}

fn metadata(store: &Store, call: &Call<'_>) -> Reply {
    match open(store, token(call).as_deref(), call.now) {
        Ok(open) => json_reply(
            200,
            &json!({
                "dc": DATA_CENTRE,
                "role": "owner",
                "accountname": open.account.name,
                "user_id": open.account.id,
                "login": {
                    "email": "owner@example.com",
                    "avatar": null,
                    "login_id": open.account.user,
                    "login_name": "owner",
                    "login_email": "owner@example.com",
                },
                "login_url": "https://login.mailchimp.com",
                "api_endpoint": call.base,
            }),
        ),
        Err(_) => oauth_error(401, "invalid_token", None),
    }
}

/// The API takes tokens as bearers, and keys as the password of any user.
fn api(store: &Store, call: &Call<'_>, answer: fn(&Open) -> Value) -> Reply {
    let key = || {
        let decoded = STANDARD.decode(call.authorization("basic")?).ok()?;
        let (_, key) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(key.to_owned())
    };
    let shown = token(call).or_else(key);
    match open(store, shown.as_deref(), call.now) {
        Ok(open) => json_reply(200, &answer(&open)),
        Err(Dead::Missing) => problem(
            401,
            "API Key Missing",
            "Your request did not include an API key.",
        ),
        Err(_) => problem(
            401,
            "API Key Invalid",
            "Your API key may be invalid, or you've attempted to access the wrong datacenter.",
        ),
    }
}
