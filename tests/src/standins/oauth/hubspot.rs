//! HubSpot: one refresh token for ever, under three generations of the same paths.

use axum::http::Method;
use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use super::flow::{Dead, Open, bearer, client, fields, open};
use super::rules::{
    Call, ClientAuth, Declined, HOUR, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Refusal, Rotation, Scopes, Vendor,
};
use super::state::{Grant, Store, uuid};
use crate::standins::wire::{Reply, json_reply, param, reply};

const APP: u64 = 4_210_286;

const OAUTH: OAuth = OAuth {
    authorize: &["/oauth/authorize"],
    token: &[
        "/oauth/v1/token",
        "/oauth/v3/token",
        "/oauth/2026-03/token",
        "/oauth/2026-09/token",
    ],
    client_auth: ClientAuth::Form,
    response_type: false,
    scopes: Scopes {
        known: |scope| {
            let plain = [
                "oauth",
                "content",
                "automation",
                "forms",
                "files",
                "tickets",
                "e-commerce",
                "timeline",
                "transactional-email",
            ];
            plain.contains(&scope) || scope.split('.').count() > 1
        },
        default: None,
        usual: "oauth crm.objects.contacts.read crm.objects.contacts.write crm.objects.orders.read crm.objects.orders.write",
    },
    redirect_optional: false,
    redirect_at_token: RedirectAtToken::Required,
    errors_go_back: false,
    denied: None,
    code_life: MINUTE,
    code_reuse_revokes: false,
    pkce: Pkce::Optional,
    access_life: Some(HOUR / 2),
    refresh: Some(Lifetime {
        idle: None,
        rotation: Rotation::Never,
    }),
    refresh_pkce: None,
    refresh_scopes: &[],
    grants_max: None,
    callback: |_| Vec::new(),
    mint: |minting: &Minting<'_>| match minting.kind {
        Kind::Code => format!("na1-{}", minting.secret),
        // Longer than most columns that were made for tokens.
        Kind::Access => format!("C{}", [minting.secret; 6].join("")),
        Kind::Refresh => format!("na1-refresh-{}", minting.secret),
    },
    answer,
    refuse,
    decline: |declined| {
        match declined {
        Declined::Client => (
            "BAD_CLIENT_ID",
            "missing or invalid client id".to_owned(),
        ),
        Declined::Redirect(_) => (
            "BAD_REDIRECT_URI",
            "Authorization failed because the redirect URL does not match a registered redirect URL"
                .to_owned(),
        ),
        Declined::Scope(scope) => (
            "insufficient scopes",
            format!("Authorization failed because one or more scopes are missing or invalid: {scope}"),
        ),
        Declined::ResponseType => ("BAD_RESPONSE_TYPE", "response_type must be code".to_owned()),
        Declined::ChallengeMissing | Declined::ChallengeMethod => {
            ("BAD_CODE_CHALLENGE", "code_challenge_method must be S256".to_owned())
        }
    }
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "hubspot",
    title: "HubSpot",
    accounts: &[
        ("44237313", "Demo Shop", "1001"),
        ("44237314", "Second Shop", "1002"),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        429 => json_reply(
            429,
            &json!({
                "status": "error",
                "message": "You have reached your ten_secondly_rolling limit.",
                "errorType": "RATE_LIMIT",
                "correlationId": uuid("limit"),
                "policyName": "TEN_SECONDLY_ROLLING",
                "requestId": uuid("request"),
            }),
        ),
        _ => json_reply(
            status,
            &json!({
                "status": "error",
                "message": "internal error",
                "correlationId": uuid("trouble"),
            }),
        ),
    },
    api: None,
};

/// An account is a portal, whose id is a number.
fn number(id: &str) -> Value {
    id.parse::<u64>().map_or(json!(id), |number| json!(number))
}

fn words(scope: &str) -> Vec<&str> {
    scope.split(' ').collect()
}

fn answer(issued: &Issued<'_>) -> Value {
    let mut body = json!({
        "token_type": "bearer",
        "refresh_token": issued.refresh_token,
        "access_token": issued.access_token,
        "expires_in": issued.expires_in(),
    });
    if !issued.path.starts_with("/oauth/v1/") {
        body["hub_id"] = number(&issued.account.id);
        body["user_id"] = number(&issued.account.user);
        body["scopes"] = json!(words(&issued.access.scope));
        body["token_use"] = json!("access_token");
    }
    body
}

fn refuse(refusal: &Refusal<'_>, call: &Call<'_>) -> Reply {
    let (status, message) = match refusal {
        Refusal::ClientMissing | Refusal::ClientUnknown => {
            ("BAD_CLIENT_ID", "missing or invalid client id".to_owned())
        }
        Refusal::SecretWrong | Refusal::Missing("client_secret") => (
            "BAD_CLIENT_SECRET",
            "missing or invalid client secret".to_owned(),
        ),
        Refusal::GrantTypeMissing | Refusal::GrantTypeUnknown(_) => {
            ("BAD_GRANT_TYPE", "missing or unknown grant type".to_owned())
        }
        Refusal::Redirect | Refusal::Missing("redirect_uri") => (
            "BAD_REDIRECT_URI",
            "missing or invalid redirect uri".to_owned(),
        ),
        Refusal::Missing("refresh_token") => (
            "BAD_REFRESH_TOKEN",
            "missing or invalid refresh token".to_owned(),
        ),
        Refusal::RefreshInvalid(_) | Refusal::RefreshExpired | Refusal::RefreshReused => (
            "BAD_REFRESH_TOKEN",
            "refresh token is invalid, expired or revoked".to_owned(),
        ),
        Refusal::VerifierMissing | Refusal::VerifierWrong => (
            "BAD_CODE_VERIFIER",
            "missing or invalid code verifier".to_owned(),
        ),
        Refusal::Scope => ("BAD_SCOPE", "scope is not granted".to_owned()),
        Refusal::Missing(_)
        | Refusal::CodeUnknown(_)
        | Refusal::CodeUsed(_)
        | Refusal::CodeExpired(_)
        | Refusal::CodeOfAnother => ("BAD_AUTH_CODE", "missing or unknown auth code".to_owned()),
    };
    let mut body = json!({
        "status": status,
        "message": message,
        "correlationId": uuid(&format!("{} {}", call.path, call.now)),
    });
    if !call.path.starts_with("/oauth/v1/") {
        body["error"] = json!(refusal.standard().1);
        body["error_description"] = json!(message);
    }
    json_reply(400, &body)
}

fn error(call: &Call<'_>, status: u16, category: &str, message: &str, context: &Value) -> Reply {
    json_reply(
        status,
        &json!({
            "status": "error",
            "message": message,
            "correlationId": uuid(&format!("{} {}", call.path, call.now)),
            "category": category,
            "context": context,
        }),
    )
}

fn dead(call: &Call<'_>, why: Dead) -> Reply {
    let expired = |at: i64| {
        let since = call.now - at;
        // What HubSpot does not know it takes for expired since 1970.
        let message = match since {
            ..86_400 => format!("{since} second(s)"),
            _ => format!("{} day(s)", since / 86_400),
        };
        let at = DateTime::from_timestamp(at, 0).unwrap_or_default();
        error(
            call,
            401,
            "EXPIRED_AUTHENTICATION",
            &format!("The OAuth token used to make this call expired {message} ago."),
            &json!({"expire time": [at.to_rfc3339_opts(SecondsFormat::Millis, true)]}),
        )
    };
    match why {
        Dead::Missing => error(
            call,
            401,
            "INVALID_AUTHENTICATION",
            "Authentication credentials not found. This API supports OAuth 2.0 authentication and you can find more details at https://developers.hubspot.com/docs/methods/auth/oauth-overview",
            &json!({}),
        ),
        Dead::Expired(at) => expired(at),
        Dead::Unknown | Dead::Revoked => expired(0),
    }
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let parts: Vec<&str> = call.path.split('/').skip(1).collect();
    match (call.method, parts.as_slice()) {
        (&Method::POST, ["oauth", _, "token", "introspect"]) => Some(introspect(store, call)),
        (&Method::POST, ["oauth", _, "token", "revoke"]) => Some(revoke(store, call)),
        (&Method::GET, ["oauth", "v1", "access-tokens", token]) => {
            Some(match open(store, Some(token), call.now) {
                Ok(open) => json_reply(200, &access_info(call, &open)),
                Err(_) => unknown(call),
            })
        }
        (&Method::GET, ["oauth", "v1", "refresh-tokens", token]) => {
            Some(match refreshable(store, token) {
                Some(grant) => json_reply(200, &refresh_info(token, grant)),
                None => unknown(call),
            })
        }
        (&Method::DELETE, ["oauth", "v1", "refresh-tokens", token]) => {
            Some(match forget(store, token, None) {
                true => reply(204, "text/plain", ""),
                false => unknown(call),
            })
        }
        (&Method::DELETE, ["appinstalls", "v3", "external-install"]) => {
            Some(match bearer(store, call) {
                Ok(open) => {
                    let (client, account) = (&open.grant.client_id, &open.account.id);
                    store.revoke(|one| one.client_id == *client && one.account == *account);
                    reply(204, "text/plain", "")
                }
                Err(why) => dead(call, why),
            })
        }
        (&Method::GET, ["account-info", "v3" | "2026-03" | "2026-09", "details"]) => {
            Some(match bearer(store, call) {
                Ok(open) if open.may("oauth") => json_reply(200, &details(&open)),
                Ok(_) => error(
                    call,
                    403,
                    "MISSING_SCOPES",
                    "This app hasn't been granted all required scopes to make this call.",
                    &json!({}),
                ),
                Err(why) => dead(call, why),
            })
        }
        // The install page of one account.
        (&Method::GET, ["oauth", account, "authorize"]) => {
            store.account(account)?;
            let query = url::form_urlencoded::Serializer::new(String::new())
                .extend_pairs(&call.query)
                .finish();
            let target = format!("{}/oauth/authorize?{query}", call.base);
            Some(crate::standins::wire::redirect(
                &url::Url::parse(&target).ok()?,
            ))
        }
        _ => None,
    }
}

fn unknown(call: &Call<'_>) -> Reply {
    error(call, 404, "OBJECT_NOT_FOUND", "token not found", &json!({}))
}

/// The grant of a refresh token that is alive.
fn refreshable<'a>(store: &'a Store, token: &str) -> Option<&'a Grant> {
    let refresh = store.refresh.get(token).filter(|one| !one.revoked)?;
    let grant = store.grants.get(&refresh.grant)?;
    (!grant.revoked).then_some(grant)
}

/// Ends a refresh token. Access tokens that are out live until they expire.
fn forget(store: &mut Store, token: &str, client: Option<&str>) -> bool {
    let owned = refreshable(store, token)
        .is_some_and(|grant| client.is_none_or(|client| client == grant.client_id));
    if let Some(refresh) = store.refresh.get_mut(token).filter(|_| owned) {
        refresh.revoked = true;
    }
    owned
}

fn revoke(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let client = match client(store, &OAUTH, call, &form) {
        Ok(client) => client,
        Err(refusal) => return refuse(&refusal, call),
    };
    let token = param(&form, "token").unwrap_or_default();
    forget(store, token, Some(&client.client_id));
    json_reply(200, &json!({}))
}

fn introspect(store: &Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let client = match client(store, &OAUTH, call, &form) {
        Ok(client) => client,
        Err(refusal) => return refuse(&refusal, call),
    };
    let token = param(&form, "token").unwrap_or_default();
    let body = match (
        open(store, Some(token), call.now),
        refreshable(store, token),
    ) {
        (Ok(open), _) if open.grant.client_id == client.client_id => {
            let mut body = grant_info(&open.grant);
            body["active"] = json!(true);
            body["token_use"] = json!("access_token");
            body["token_type"] = json!("bearer");
            body["expires_in"] = json!(open.access.expires.map(|at| at - call.now));
            body["token"] = json!(token);
            body
        }
        (_, Some(grant)) if grant.client_id == client.client_id => {
            let mut body = grant_info(grant);
            body["active"] = json!(true);
            body["token_use"] = json!("refresh_token");
            body["token_type"] = json!("bearer");
            body["token"] = json!(token);
            body
        }
        _ => json!({"active": false}),
    };
    json_reply(200, &body)
}

fn grant_info(grant: &Grant) -> Value {
    json!({
        "client_id": grant.client_id,
        "app_id": APP,
        "hub_id": number(&grant.account),
        "hub_domain": format!("shop-{}.example.com", grant.account),
        "user_id": number(&grant.user),
        "user": "owner@example.com",
        "scopes": words(&grant.scope),
    })
}

fn access_info(call: &Call<'_>, open: &Open) -> Value {
    let mut body = grant_info(&open.grant);
    if let Some(fields) = body.as_object_mut() {
        fields.remove("client_id");
    }
    body["token"] = json!(open.token);
    body["token_type"] = json!("access");
    body["expires_in"] = json!(open.access.expires.map(|at| at - call.now));
    body
}

fn refresh_info(token: &str, grant: &Grant) -> Value {
    let mut body = grant_info(grant);
    if let Some(fields) = body.as_object_mut() {
        fields.remove("app_id");
    }
    body["token"] = json!(token);
    body["token_type"] = json!("refresh");
    body
}

fn details(open: &Open) -> Value {
    json!({
        "portalId": number(&open.account.id),
        "accountType": "DEVELOPER_TEST",
        "timeZone": "US/Eastern",
        "companyCurrency": "USD",
        "additionalCurrencies": [],
        "utcOffset": "-05:00",
        "utcOffsetMilliseconds": -18_000_000,
        "uiDomain": "app.hubspot.com",
        "dataHostingLocation": "na1",
    })
}
