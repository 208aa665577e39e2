//! Salesforce: a session that lives on while it is used and never says how long, a refresh token
//! that turns over and takes the grant with it when an old value comes back, and five grants a
//! person and app.

use axum::http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::flow::{Dead, Open, client, fields, open};
use super::rules::{
    Call, ClientAuth, DAY, Declined, HOUR, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Refusal, Rotation, Scopes, Vendor, oauth_error,
};
use super::state::{Account, Store, hex};
use crate::standins::wire::{Reply, json_reply, param, reply};

const SESSION: i64 = 2 * HOUR;
const VERSIONS: [(&str, &str); 2] = [("67.0", "Summer '26"), ("68.0", "Winter '27")];
const SCOPES: &str = "api refresh_token id openid";

const OAUTH: OAuth = OAuth {
    authorize: &["/services/oauth2/authorize"],
    token: &["/services/oauth2/token"],
    client_auth: ClientAuth::BasicOrForm,
    response_type: true,
    scopes: Scopes {
        known: |scope| {
            [
                "api",
                "refresh_token",
                "offline_access",
                "id",
                "openid",
                "profile",
                "email",
                "address",
                "phone",
                "full",
                "web",
                "chatter_api",
                "visualforce",
                "custom_permissions",
            ]
            .contains(&scope)
        },
        // What the app is set up for.
        default: Some(SCOPES),
        usual: SCOPES,
    },
    redirect_optional: false,
    redirect_at_token: RedirectAtToken::Required,
    errors_go_back: true,
    denied: Some("end-user denied authorization"),
    code_life: 15 * MINUTE,
    code_reuse_revokes: false,
    // Partner apps must use it since 2026.
    pkce: Pkce::Required,
    access_life: Some(SESSION),
    refresh: Some(Lifetime {
        idle: Some(30 * DAY),
        rotation: Rotation::Each {
            grace: 0,
            reuse_revokes: true,
        },
    }),
    refresh_pkce: None,
    refresh_scopes: &["refresh_token", "offline_access"],
    grants_max: Some(5),
    callback: |_| Vec::new(),
    mint,
    answer,
    refuse,
    decline: |declined| match declined {
        Declined::Client => ("invalid_client_id", "client identifier invalid".to_owned()),
        Declined::Redirect(_) => (
            "redirect_uri_mismatch",
            "redirect_uri must match configuration".to_owned(),
        ),
        Declined::ResponseType => (
            "unsupported_response_type",
            "response type not supported".to_owned(),
        ),
        Declined::Scope(_) => (
            "invalid_scope",
            "the requested scope is not allowed".to_owned(),
        ),
        Declined::ChallengeMissing => (
            "invalid_request",
            "missing required code challenge".to_owned(),
        ),
        Declined::ChallengeMethod => (
            "invalid_request",
            "code challenge method must be S256".to_owned(),
        ),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "salesforce",
    title: "Salesforce",
    accounts: &[
        ("00D5e000000ShopEAE", "Demo Shop", "0055e000001OlivAAE"),
        ("00D5e000000ScndEAE", "Second Shop", "0055e000001PetrAAE"),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        // Too many calls are no 429 here.
        429 => problem(
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "TotalRequests Limit exceeded.",
        ),
        503 => problem(503, "SERVER_UNAVAILABLE", "Server is unavailable"),
        _ => problem(status, "UNKNOWN_EXCEPTION", "An unexpected error occurred"),
    },
    api: None,
};

fn problem(status: u16, code: &str, message: &str) -> Reply {
    json_reply(status, &json!([{"message": message, "errorCode": code}]))
}

fn mint(minting: &Minting<'_>) -> String {
    match minting.kind {
        Kind::Code => format!("aPrx{}==", minting.secret),
        Kind::Access => format!("{}!AQEA{}", &minting.account.id, minting.secret),
        Kind::Refresh => format!("5Aep861{}", minting.secret),
    }
}

fn identity(base: &str, account: &Account) -> String {
    format!("{base}/id/{}/{}", account.id, account.user)
}

fn answer(issued: &Issued<'_>) -> Value {
    let mut body = json!({
        "access_token": issued.access_token,
        "signature": hex(issued.access_token),
        "scope": issued.access.scope,
        "instance_url": issued.base,
        "id": identity(issued.base, issued.account),
        "token_type": "Bearer",
        "issued_at": format!("{}000", issued.now),
    });
    if let Some(token) = issued.refresh_token {
        body["refresh_token"] = json!(token);
    }
    body
}

fn refuse(refusal: &Refusal<'_>, _: &Call<'_>) -> Reply {
    let (code, words) = match refusal {
        Refusal::ClientMissing | Refusal::ClientUnknown => {
            ("invalid_client_id", "client identifier invalid".to_owned())
        }
        Refusal::SecretWrong => ("invalid_client", "invalid client credentials".to_owned()),
        Refusal::GrantTypeMissing => ("invalid_request", "must provide grant type".to_owned()),
        Refusal::GrantTypeUnknown(_) => (
            "unsupported_grant_type",
            "grant type not supported".to_owned(),
        ),
        Refusal::Missing(name) => (
            "invalid_request",
            format!("missing required parameter: {name}"),
        ),
        Refusal::CodeExpired(_) | Refusal::CodeUsed(_) => {
            ("invalid_grant", "expired authorization code".to_owned())
        }
        Refusal::CodeUnknown(_) | Refusal::CodeOfAnother => {
            ("invalid_grant", "invalid authorization code".to_owned())
        }
        Refusal::Redirect => (
            "redirect_uri_mismatch",
            "redirect_uri must match configuration".to_owned(),
        ),
        Refusal::VerifierMissing => ("invalid_grant", "invalid code verifier".to_owned()),
        Refusal::VerifierWrong => ("invalid_request", "invalid code verifier".to_owned()),
        Refusal::RefreshInvalid(_) | Refusal::RefreshExpired | Refusal::RefreshReused => {
            ("invalid_grant", "expired access/refresh token".to_owned())
        }
        Refusal::Scope => (
            "invalid_scope",
            "the requested scope is not allowed".to_owned(),
        ),
    };
    // Salesforce answers 400 to everything that is wrong with a token request.
    oauth_error(400, code, Some(&words))
}

/// What the session opens; its use prolongs it.
fn session(store: &mut Store, token: Option<&str>, now: i64) -> Result<Open, Dead> {
    let open = open(store, token, now)?;
    if let Some(access) = store.access.get_mut(&open.token) {
        access.expires = Some(now + SESSION);
    }
    Ok(open)
}

fn no_session() -> Reply {
    let mut answer = problem(401, "INVALID_SESSION_ID", "Session expired or invalid");
    let value = HeaderValue::from_static("Token");
    answer.headers_mut().insert("www-authenticate", value);
    answer
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let bearer = call.authorization("bearer").or(call.authorization("oauth"));
    match (call.method, call.path) {
        (&Method::GET | &Method::POST, "/services/oauth2/revoke") => Some(revoke(store, call)),
        (&Method::POST, "/services/oauth2/introspect") => Some(introspect(store, call)),
        (&Method::GET | &Method::POST, "/services/oauth2/userinfo") => {
            Some(match session(store, bearer, call.now) {
                Ok(open) => json_reply(200, &user_info(call, &open.account)),
                Err(Dead::Missing) => reply(403, "text/html", "Missing_OAuth_Token"),
                Err(_) => reply(403, "text/html", "Bad_OAuth_Token"),
            })
        }
        (&Method::GET, "/.well-known/openid-configuration") => Some(discovery(&call.base)),
        (&Method::GET, path) if path.starts_with("/id/") => {
            Some(match session(store, bearer, call.now) {
                Ok(open) if identity("", &open.account) == path => {
                    json_reply(200, &who(call, &open.account))
                }
                Ok(_) => reply(403, "text/html", "Wrong_Org"),
                Err(Dead::Missing) => reply(403, "text/html", "Missing_OAuth_Token"),
                Err(_) => reply(403, "text/html", "Bad_OAuth_Token"),
            })
        }
        // The list of versions needs no session.
        (&Method::GET, "/services/data" | "/services/data/") => Some(versions()),
        (&Method::GET, path) => {
            let rest = path.strip_prefix("/services/data/v")?;
            let (version, rest) = rest.split_once('/').unwrap_or((rest, ""));
            if session(store, bearer, call.now).is_err() {
                return Some(no_session());
            }
            let known = VERSIONS.iter().any(|(one, _)| *one == version);
            Some(match rest {
                "" if known => json_reply(
                    200,
                    &json!({
                        "sobjects": format!("/services/data/v{version}/sobjects"),
                        "limits": format!("/services/data/v{version}/limits"),
                        "query": format!("/services/data/v{version}/query"),
                        "identity": identity(&call.base, store.account(&bearer_org(bearer))?),
                    }),
                ),
                "limits" | "limits/" if known => json_reply(
                    200,
                    &json!({"DailyApiRequests": {"Max": 100_000, "Remaining": 99_999}}),
                ),
                _ => problem(404, "NOT_FOUND", "The requested resource does not exist"),
            })
        }
        _ => None,
    }
}

/// A session id begins with the org that it is of.
fn bearer_org(token: Option<&str>) -> String {
    let token = token.unwrap_or_default();
    token.split('!').next().unwrap_or_default().to_owned()
}

fn versions() -> Reply {
    let versions = VERSIONS.iter().map(|(version, label)| {
        json!({"label": label, "url": format!("/services/data/v{version}"), "version": version})
    });
    json_reply(200, &versions.collect())
}

/// A refresh token takes its grant with it, an access token only itself. No app has to prove
/// itself: who holds the token may end it.
fn revoke(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let token = param(&form, "token").or(param(&call.query, "token"));
    let Some(token) = token else {
        return oauth_error(
            400,
            "invalid_request",
            Some("missing required parameter: token"),
        );
    };
    let grant = store.refresh.get(token).map(|refresh| refresh.grant);
    let done = match grant {
        Some(grant) => store.revoke(|one| one.id == grant) == 1,
        None => match open(store, Some(token), call.now) {
            Ok(_) => {
                if let Some(access) = store.access.get_mut(token) {
                    access.revoked = true;
                }
                true
            }
            Err(_) => false,
        },
    };
    match done {
        true => reply(200, "text/html;charset=UTF-8", ""),
        false => oauth_error(400, "invalid_token", Some("invalid token")),
    }
}

fn introspect(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let client = match client(store, &OAUTH, call, &form) {
        Ok(client) => client,
        Err(refusal) => return refuse(&refusal, call),
    };
    let dead = json!({"active": false});
    let Some(token) = param(&form, "token") else {
        return refuse(&Refusal::Missing("token"), call);
    };
    let found = open(store, Some(token), call.now).ok();
    let found = found.filter(|open| open.grant.client_id == client.client_id);
    let body = found.map_or(dead, |open| {
        json!({
            "active": true,
            "scope": open.access.scope,
            "client_id": client.client_id,
            "username": format!("owner@{}.example", open.account.id.to_lowercase()),
            "sub": identity(&call.base, &open.account),
            "token_type": "access_token",
            "exp": open.access.expires,
            "iat": open.access.issued,
            "nbf": open.access.issued,
        })
    });
    json_reply(200, &body)
}

fn user_info(call: &Call<'_>, account: &Account) -> Value {
    json!({
        "sub": identity(&call.base, account),
        "user_id": account.user,
        "organization_id": account.id,
        "preferred_username": format!("owner@{}.example", account.id.to_lowercase()),
        "nickname": "owner",
        "name": "Olive Owner",
        "email": "owner@example.com",
        "email_verified": true,
        "given_name": "Olive",
        "family_name": "Owner",
        "zoneinfo": "America/New_York",
        "user_type": "STANDARD",
        "urls": urls(call, account),
        "active": true,
    })
}

fn who(call: &Call<'_>, account: &Account) -> Value {
    json!({
        "id": identity(&call.base, account),
        "asserted_user": true,
        "user_id": account.user,
        "organization_id": account.id,
        "username": format!("owner@{}.example", account.id.to_lowercase()),
        "nick_name": "owner",
        "display_name": "Olive Owner",
        "email": "owner@example.com",
        "email_verified": true,
        "first_name": "Olive",
        "last_name": "Owner",
        "timezone": "America/New_York",
        "active": true,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
        "urls": urls(call, account),
    })
}

/// The version stands in them as a placeholder.
fn urls(call: &Call<'_>, account: &Account) -> Value {
    let base = &call.base;
    json!({
        "rest": format!("{base}/services/data/v{{version}}/"),
        "sobjects": format!("{base}/services/data/v{{version}}/sobjects/"),
        "query": format!("{base}/services/data/v{{version}}/query/"),
        "users": format!("{base}/services/data/v{{version}}/chatter/users"),
        "profile": format!("{base}/{}", account.user),
    })
}

fn discovery(base: &str) -> Reply {
    json_reply(
        200,
        &json!({
            "issuer": base,
            "authorization_endpoint": format!("{base}/services/oauth2/authorize"),
            "token_endpoint": format!("{base}/services/oauth2/token"),
            "revocation_endpoint": format!("{base}/services/oauth2/revoke"),
            "introspection_endpoint": format!("{base}/services/oauth2/introspect"),
            "userinfo_endpoint": format!("{base}/services/oauth2/userinfo"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "code_challenge_methods_supported": ["S256"],
        }),
    )
}
