//! Square, also for Square Loyalty: tokens with a date and no count of seconds, JSON bodies, and two
//! flows. With a secret the refresh token stays for ever; with a challenge it is used once.

use axum::http::Method;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::flow::{Dead, Open, bearer, fields, open};
use super::rules::{
    Call, ClientAuth, DAY, Declined, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Refusal, Rotation, Scopes, Vendor,
};
use super::state::{Account, Store};
use crate::standins::wire::{Reply, json_reply, param};

const OAUTH: OAuth = OAuth {
    authorize: &["/oauth2/authorize"],
    token: &["/oauth2/token"],
    client_auth: ClientAuth::Json,
    response_type: false,
    scopes: Scopes {
        known: |scope| {
            scope
                .chars()
                .all(|one| one.is_ascii_uppercase() || one == '_')
        },
        default: Some("MERCHANT_PROFILE_READ PAYMENTS_READ SETTLEMENTS_READ BANK_ACCOUNTS_READ"),
        usual: "MERCHANT_PROFILE_READ PAYMENTS_READ PAYMENTS_WRITE ORDERS_READ ORDERS_WRITE CUSTOMERS_READ CUSTOMERS_WRITE ITEMS_READ LOYALTY_READ LOYALTY_WRITE",
    },
    redirect_optional: true,
    redirect_at_token: RedirectAtToken::IfSent,
    errors_go_back: false,
    denied: Some("user_denied"),
    code_life: 5 * MINUTE,
    code_reuse_revokes: false,
    pkce: Pkce::Optional,
    access_life: Some(30 * DAY),
    refresh: Some(Lifetime {
        idle: None,
        rotation: Rotation::Never,
    }),
    refresh_pkce: Some(Lifetime {
        idle: Some(90 * DAY),
        rotation: Rotation::Each {
            grace: 0,
            reuse_revokes: false,
        },
    }),
    refresh_scopes: &[],
    grants_max: None,
    callback: |_| vec![("response_type", "code".to_owned())],
    mint: |minting: &Minting<'_>| match minting.kind {
        Kind::Code => format!("sq0cgp-{}", minting.secret),
        Kind::Access => format!("EAAA{}", minting.secret),
        Kind::Refresh => format!("EQAA{}", minting.secret),
    },
    answer,
    refuse,
    decline: |declined| match declined {
        Declined::Client => ("invalid_client", "Unknown client_id".to_owned()),
        Declined::Redirect(_) => (
            "invalid_request",
            "The redirect_uri does not match the one of the application".to_owned(),
        ),
        Declined::Scope(scope) => ("invalid_scope", format!("Unknown permission: {scope}")),
        _ => ("invalid_request", "The request is invalid".to_owned()),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "square",
    title: "Square",
    accounts: &[
        ("MLSTANDINDEMO", "Demo Shop", "olive"),
        ("MLSTANDINSECOND", "Second Shop", "peter"),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        429 => errors(
            429,
            "RATE_LIMIT_ERROR",
            "RATE_LIMITED",
            "Too many requests.",
        ),
        503 => errors(
            503,
            "API_ERROR",
            "SERVICE_UNAVAILABLE",
            "Service unavailable.",
        ),
        _ => errors(
            status,
            "API_ERROR",
            "INTERNAL_SERVER_ERROR",
            "An internal error has occurred.",
        ),
    },
    api: None,
};

/// The same vendor, asked for other permissions, with an address of its own.
pub const LOYALTY: Vendor = Vendor {
    name: "square_loyalty",
    title: "Square Loyalty",
    ..VENDOR
};

fn date(at: i64) -> String {
    let at = DateTime::from_timestamp(at, 0).unwrap_or_default();
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn answer(issued: &Issued<'_>) -> Value {
    let mut body = json!({
        "access_token": issued.access_token,
        "token_type": "bearer",
        "expires_at": issued.access.expires.map(date),
        "merchant_id": issued.account.id,
        "refresh_token": issued.refresh_token,
        "short_lived": issued.access.short_lived,
    });
    if let Some(at) = issued.refresh_expires {
        body["refresh_token_expires_at"] = json!(date(at));
    }
    body
}

fn errors(status: u16, category: &str, code: &str, detail: &str) -> Reply {
    json_reply(
        status,
        &json!({"errors": [{"category": category, "code": code, "detail": detail}]}),
    )
}

fn unauthorized(code: &str, detail: &str) -> Reply {
    errors(401, "AUTHENTICATION_ERROR", code, detail)
}

fn refuse(refusal: &Refusal<'_>, _: &Call<'_>) -> Reply {
    let bad = |code, detail: &str| errors(400, "INVALID_REQUEST_ERROR", code, detail);
    match refusal {
        Refusal::ClientMissing => bad(
            "MISSING_REQUIRED_PARAMETER",
            "Missing required parameter: client_id",
        ),
        Refusal::Missing(name) => bad(
            "MISSING_REQUIRED_PARAMETER",
            &format!("Missing required parameter: {name}"),
        ),
        Refusal::GrantTypeMissing => bad(
            "MISSING_REQUIRED_PARAMETER",
            "Missing required parameter: grant_type",
        ),
        Refusal::GrantTypeUnknown(_) => bad("INVALID_VALUE", "Unknown grant_type"),
        Refusal::Redirect => bad("BAD_REQUEST", "The redirect_uri does not match"),
        Refusal::VerifierMissing => bad(
            "MISSING_REQUIRED_PARAMETER",
            "Missing required parameter: code_verifier",
        ),
        Refusal::ClientUnknown | Refusal::SecretWrong => unauthorized(
            "UNAUTHORIZED",
            "Not authorized: the client credentials are invalid",
        ),
        Refusal::VerifierWrong => unauthorized("UNAUTHORIZED", "The code_verifier does not match"),
        Refusal::CodeUsed(_) => {
            unauthorized("UNAUTHORIZED", "Authorization code is already claimed")
        }
        Refusal::CodeExpired(_) => unauthorized("UNAUTHORIZED", "Authorization code is expired"),
        Refusal::CodeUnknown(_) | Refusal::CodeOfAnother => {
            unauthorized("UNAUTHORIZED", "Authorization code not found")
        }
        Refusal::RefreshInvalid(_) | Refusal::RefreshExpired | Refusal::RefreshReused => {
            unauthorized("UNAUTHORIZED", "Invalid refresh token")
        }
        Refusal::Scope => errors(
            403,
            "AUTHENTICATION_ERROR",
            "INSUFFICIENT_SCOPES",
            "The requested scopes were not granted",
        ),
    }
}

fn dead(why: Dead) -> Reply {
    match why {
        Dead::Missing | Dead::Unknown => {
            unauthorized("UNAUTHORIZED", "This request could not be authorized.")
        }
        Dead::Expired(_) => unauthorized("ACCESS_TOKEN_EXPIRED", "The access token has expired."),
        Dead::Revoked => unauthorized("ACCESS_TOKEN_REVOKED", "The access token was revoked."),
    }
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let answer: fn(&Open) -> Reply = match (call.method, call.path) {
        (&Method::POST, "/oauth2/revoke") => return Some(revoke(store, call)),
        (&Method::POST, "/oauth2/token/status") => {
            return Some(match bearer(store, call) {
                Ok(open) => status(&open),
                // Whatever is wrong with the token, this call says the same.
                Err(_) => dead(Dead::Unknown),
            });
        }
        (&Method::GET, "/v2/merchants/me") => {
            |open| json_reply(200, &json!({"merchant": merchant(&open.account)}))
        }
        (&Method::GET, "/v2/merchants") => {
            |open| json_reply(200, &json!({"merchant": [merchant(&open.account)]}))
        }
        (&Method::GET, "/v2/locations") => {
            |open| json_reply(200, &json!({"locations": [location(&open.account)]}))
        }
        (&Method::GET, path) => {
            let id = path.strip_prefix("/v2/merchants/")?;
            return Some(match bearer(store, call) {
                Ok(open) if open.account.id == id => {
                    json_reply(200, &json!({"merchant": merchant(&open.account)}))
                }
                Ok(_) => errors(
                    404,
                    "INVALID_REQUEST_ERROR",
                    "NOT_FOUND",
                    "Merchant not found.",
                ),
                Err(why) => dead(why),
            });
        }
        _ => return None,
    };
    Some(match bearer(store, call) {
        Ok(open) if open.may("MERCHANT_PROFILE_READ") => answer(&open),
        Ok(_) => errors(
            403,
            "AUTHENTICATION_ERROR",
            "INSUFFICIENT_SCOPES",
            "The merchant has not given your application sufficient permissions to do that.",
        ),
        Err(why) => dead(why),
    })
}

/// The app proves itself in a header of this vendor's own.
fn revoke(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let value = |name| param(&form, name).unwrap_or_default();
    let client = store
        .clients
        .get(value("client_id"))
        .filter(|client| call.authorization("client") == Some(client.client_secret.as_str()))
        .map(|client| client.client_id.clone());
    let Some(client) = client else {
        return dead(Dead::Unknown);
    };
    let token = param(&form, "access_token");
    let account = match token {
        Some(token) => open(store, Some(token), call.now)
            .ok()
            .filter(|open| open.grant.client_id == client)
            .map(|open| open.account.id),
        None => store
            .grants
            .values()
            .find(|one| {
                !one.revoked && one.client_id == client && one.account == value("merchant_id")
            })
            .map(|one| one.account.clone()),
    };
    let Some(account) = account else {
        return errors(
            404,
            "INVALID_REQUEST_ERROR",
            "NOT_FOUND",
            "The token was not found.",
        );
    };
    match token.and_then(|token| store.access.get_mut(token)) {
        Some(access) if value("revoke_only_access_token") == "true" => access.revoked = true,
        _ => {
            store.revoke(|one| one.client_id == client && one.account == account);
        }
    }
    json_reply(200, &json!({"success": true}))
}

fn status(open: &Open) -> Reply {
    let scopes: Vec<&str> = open.access.scope.split(' ').collect();
    json_reply(
        200,
        &json!({
            "scopes": scopes,
            "expires_at": open.access.expires.map_or(String::new(), date),
            "client_id": open.grant.client_id,
            "merchant_id": open.account.id,
        }),
    )
}

fn main_location(account: &Account) -> String {
    format!("L{}", &account.id)
}

fn merchant(account: &Account) -> Value {
    json!({
        "id": account.id,
        "business_name": account.name,
        "country": "US",
        "language_code": "en-US",
        "currency": "USD",
        "status": "ACTIVE",
        "main_location_id": main_location(account),
        "created_at": "2026-01-01T00:00:00Z",
    })
}

fn location(account: &Account) -> Value {
    json!({
        "id": main_location(account),
        "name": account.name,
        "merchant_id": account.id,
        "status": "ACTIVE",
        "country": "US",
        "currency": "USD",
        "timezone": "America/New_York",
        "created_at": "2026-01-01T00:00:00Z",
    })
}
