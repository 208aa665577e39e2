//! Stripe Connect with Standard accounts: the platform proves itself by its secret key alone, and
//! tokens live until the account takes them back.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::flow::{client, fields, open};
use super::rules::{
    Call, ClientAuth, Declined, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Refusal, Rotation, Scopes, Vendor, oauth_error,
};
use super::state::{Account, Store};
use crate::standins::wire::{Reply, json_reply, param};

const OAUTH: OAuth = OAuth {
    authorize: &["/oauth/authorize", "/express/oauth/authorize"],
    token: &["/oauth/token"],
    client_auth: ClientAuth::Secret,
    response_type: true,
    scopes: Scopes {
        known: |scope| matches!(scope, "read_only" | "read_write"),
        default: Some("read_only"),
        usual: "read_write",
    },
    redirect_optional: true,
    redirect_at_token: RedirectAtToken::Ignored,
    errors_go_back: true,
    denied: Some("The user denied your request"),
    code_life: 5 * MINUTE,
    code_reuse_revokes: true,
    pkce: Pkce::Ignored,
    access_life: None,
    refresh: Some(Lifetime {
        idle: None,
        rotation: Rotation::Never,
    }),
    refresh_pkce: None,
    refresh_scopes: &[],
    grants_max: None,
    callback: |code| vec![("scope", code.scope.clone())],
    mint: |minting: &Minting<'_>| match minting.kind {
        Kind::Code => format!("ac_{}", minting.secret),
        Kind::Access => format!(
            "sk_{}_{}",
            mode(live(&minting.client.client_secret)),
            minting.secret
        ),
        Kind::Refresh => format!("rt_{}", minting.secret),
    },
    answer: |issued: &Issued<'_>| {
        let live = live(&issued.client.client_secret);
        json!({
            "access_token": issued.access_token,
            "livemode": live,
            "refresh_token": issued.refresh_token,
            "token_type": "bearer",
            "stripe_publishable_key": format!("pk_{}_{}", mode(live), issued.account.id),
            "stripe_user_id": issued.account.id,
            "scope": issued.access.scope,
        })
    },
    refuse,
    decline: |declined| match declined {
        Declined::Client => (
            "invalid_client",
            "No application matches the supplied client identifier".to_owned(),
        ),
        Declined::Redirect(given) => (
            "invalid_redirect_uri",
            format!(
                "Invalid redirect URI '{given}'. Ensure this uri exactly matches one of the uris specified in your application settings."
            ),
        ),
        Declined::Scope(scope) => ("invalid_scope", format!("Invalid scope: {scope}")),
        _ => (
            "unsupported_response_type",
            "The authorization server does not support the given response type".to_owned(),
        ),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "stripe",
    title: "Stripe",
    accounts: &[
        ("acct_1StandinDemo0001", "Demo Shop", "olive"),
        ("acct_1StandinDemo0002", "Second Shop", "peter"),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        429 => error(
            429,
            &json!({
                "message": "Request rate limit exceeded.",
                "type": "invalid_request_error",
                "code": "rate_limit",
            }),
        ),
        _ => error(
            status,
            &json!({"message": "An unknown error occurred", "type": "api_error"}),
        ),
    },
    api: None,
};

/// The mode of a key is written in it.
fn live(secret: &str) -> bool {
    secret.starts_with("sk_live_") || secret.starts_with("rk_live_")
}

fn mode(live: bool) -> &'static str {
    if live { "live" } else { "test" }
}

fn refuse(refusal: &Refusal<'_>, _: &Call<'_>) -> Reply {
    let (status, code) = refusal.standard();
    let words = match refusal {
        Refusal::ClientMissing => "No API key provided.".to_owned(),
        Refusal::ClientUnknown | Refusal::SecretWrong => "Invalid API Key provided.".to_owned(),
        Refusal::GrantTypeMissing => "No grant type specified".to_owned(),
        Refusal::GrantTypeUnknown(kind) => format!("Unsupported grant type: {kind}"),
        Refusal::Missing(name) => format!("No {name} provided"),
        Refusal::CodeUnknown(code) => format!("Authorization code does not exist: {code}"),
        Refusal::CodeUsed(code) => format!(
            "This authorization code has already been used. All tokens issued with this code have been revoked: {code}"
        ),
        Refusal::CodeExpired(code) => format!("Authorization code expired: {code}"),
        Refusal::CodeOfAnother => "Authorization code provided does not belong to you".to_owned(),
        Refusal::RefreshInvalid(token) => format!("Refresh token does not exist: {token}"),
        Refusal::RefreshExpired | Refusal::RefreshReused => "Refresh token is expired".to_owned(),
        Refusal::Scope => {
            "Requested scope exceeds the scope that the user granted to your application".to_owned()
        }
        Refusal::Redirect | Refusal::VerifierMissing | Refusal::VerifierWrong => {
            "Invalid request".to_owned()
        }
    };
    oauth_error(status, code, Some(&words))
}

fn error(status: u16, error: &Value) -> Reply {
    json_reply(status, &json!({"error": error}))
}

fn bad_key(key: &str) -> Reply {
    let end: String = key
        .chars()
        .skip(key.chars().count().saturating_sub(4))
        .collect();
    let message = match key {
        "" => "You did not provide an API key.".to_owned(),
        _ => format!("Invalid API Key provided: sk_test_*********{end}"),
    };
    error(
        401,
        &json!({"message": message, "type": "invalid_request_error"}),
    )
}

fn no_access(account: &str) -> Reply {
    let message = format!(
        "The provided key does not have access to account '{account}' (or that account does not exist). Application access may have been revoked."
    );
    error(
        403,
        &json!({"message": message, "type": "invalid_request_error", "code": "account_invalid"}),
    )
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    match (call.method, call.path) {
        (&Method::POST, "/oauth/deauthorize") => Some(deauthorize(store, call)),
        (&Method::GET, "/v1/account") => Some(account(store, call, None)),
        (&Method::GET, path) => {
            let id = path.strip_prefix("/v1/accounts/")?;
            Some(account(store, call, Some(id)))
        }
        _ => None,
    }
}

/// Whether the account has a grant to this app that is alive.
fn connected(store: &Store, client: &str, account: &str) -> bool {
    store
        .grants
        .values()
        .any(|one| one.client_id == client && one.account == account && !one.revoked)
}

fn deauthorize(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let platform = match client(store, &OAUTH, call, &form) {
        Ok(platform) => platform,
        Err(refusal) => return refuse(&refusal, call),
    };
    let id = param(&form, "client_id").unwrap_or_default();
    let account = param(&form, "stripe_user_id").unwrap_or_default();
    let own = store
        .clients
        .get(id)
        .is_some_and(|client| client.client_secret == platform.client_secret);
    if !own || !connected(store, id, account) {
        let words = format!(
            "This application is not connected to stripe account {account}, or that account does not exist."
        );
        return oauth_error(401, "invalid_client", Some(&words));
    }
    store.revoke(|one| one.client_id == id && one.account == account);
    json_reply(200, &json!({"stripe_user_id": account}))
}

/// The account of a token, or with the platform's key the connected account that is named.
fn account(store: &Store, call: &Call<'_>, named: Option<&str>) -> Reply {
    let user = call
        .authorization("basic")
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .and_then(|decoded| String::from_utf8(decoded).ok())
        .and_then(|pair| pair.split(':').next().map(str::to_owned));
    let key = call
        .authorization("bearer")
        .or(user.as_deref())
        .unwrap_or_default();
    let named = named.or(call.header("stripe-account"));
    if let Ok(open) = open(store, Some(key), call.now) {
        return match named {
            Some(other) if other != open.account.id => no_access(other),
            _ => json_reply(200, &shown(&open.account)),
        };
    }
    let mut platforms = store
        .clients
        .values()
        .filter(|one| one.client_secret == key)
        .peekable();
    if platforms.peek().is_none() {
        return bad_key(key);
    }
    let Some(named) = named else {
        let platform = Account {
            id: "acct_1StandinPlatform".to_owned(),
            name: "Platform".to_owned(),
            user: String::new(),
        };
        return json_reply(200, &shown(&platform));
    };
    let reached = platforms.any(|one| connected(store, &one.client_id, named));
    match store.account(named).filter(|_| reached) {
        Some(account) => json_reply(200, &shown(account)),
        None => no_access(named),
    }
}

fn shown(account: &Account) -> Value {
    json!({
        "id": account.id,
        "object": "account",
        "business_profile": {"name": account.name},
        "capabilities": {"card_payments": "active", "transfers": "active"},
        "charges_enabled": true,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": true,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": true,
        "type": "standard",
    })
}
