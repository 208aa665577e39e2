//! Xero: refresh tokens turn over at each refresh with half an hour of grace; one person's consents
//! share their connections, and a claim of the access token tells which of them are new.

use std::collections::BTreeMap;

use axum::http::Method;
use chrono::DateTime;
use serde_json::{Value, json};

use super::flow::{Dead, Open, bearer, client, fields};
use super::rules::{
    Call, ClientAuth, DAY, Declined, HOUR, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Rotation, Scopes, Vendor, oauth_error,
};
use super::state::{Grant, Store, uuid};
use crate::standins::wire::{Reply, json_reply, jwt, param, reply};

const OAUTH: OAuth = OAuth {
    authorize: &["/identity/connect/authorize"],
    token: &["/connect/token"],
    client_auth: ClientAuth::BasicOrForm,
    response_type: true,
    scopes: Scopes {
        known: |scope| {
            let families = [
                "accounting.",
                "payroll.",
                "files",
                "assets",
                "projects",
                "app.",
            ];
            ["openid", "profile", "email", "offline_access"].contains(&scope)
                || families.iter().any(|family| scope.starts_with(family))
        },
        default: None,
        usual: "openid profile email offline_access accounting.contacts accounting.invoices accounting.payments accounting.banktransactions accounting.settings.read",
    },
    redirect_optional: false,
    redirect_at_token: RedirectAtToken::Required,
    errors_go_back: false,
    denied: None,
    code_life: 5 * MINUTE,
    code_reuse_revokes: false,
    pkce: Pkce::Optional,
    access_life: Some(HOUR / 2),
    refresh: Some(Lifetime {
        idle: Some(60 * DAY),
        rotation: Rotation::Each {
            grace: 30 * MINUTE,
            reuse_revokes: false,
        },
    }),
    refresh_pkce: None,
    refresh_scopes: &["offline_access"],
    grants_max: None,
    callback: |code| vec![("scope", code.scope.clone())],
    mint,
    answer,
    refuse: |refusal, _| {
        // Xero names the client's fault with 400 as well, and never explains.
        let (_, code) = refusal.standard();
        oauth_error(400, code, None)
    },
    decline: |declined| match declined {
        Declined::Client => ("unauthorized_client", "Unknown client".to_owned()),
        Declined::Redirect(_) => ("invalid_request", "Invalid redirect_uri".to_owned()),
        Declined::ResponseType => ("unsupported_response_type", "Use code".to_owned()),
        Declined::Scope(_) => ("invalid_scope", "Invalid scope".to_owned()),
        Declined::ChallengeMissing | Declined::ChallengeMethod => (
            "invalid_request",
            "Transform algorithm not supported".to_owned(),
        ),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "xero",
    title: "Xero",
    accounts: &[
        ("5a1e0000-0000-4000-8000-000000000001", "Demo Shop", "olive"),
        (
            "5a1e0000-0000-4000-8000-000000000002",
            "Second Shop",
            "olive",
        ),
        (
            "5a1e0000-0000-4000-8000-000000000003",
            "Another's Shop",
            "peter",
        ),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        429 => {
            let mut answer = reply(429, "text/plain", "");
            let value = axum::http::HeaderValue::from_static("minute");
            answer.headers_mut().insert("x-rate-limit-problem", value);
            answer
        }
        _ => reply(status, "text/plain", "The service is unavailable."),
    },
    api: Some(crate::standins::xero::open),
};

fn mint(minting: &Minting<'_>) -> String {
    match minting.kind {
        Kind::Code | Kind::Refresh => minting.secret.to_owned(),
        Kind::Access => {
            let words: Vec<&str> = minting.scope.split(' ').collect();
            jwt(
                "at+jwt",
                &json!({
                    "nbf": minting.now,
                    "exp": minting.expires,
                    "iss": "https://identity.xero.com",
                    "aud": "https://identity.xero.com/resources",
                    "client_id": minting.client.client_id,
                    "sub": person(&minting.account.user),
                    "auth_time": minting.now,
                    "xero_userid": uuid(&minting.account.user),
                    "global_session_id": minting.event.replace('-', ""),
                    "jti": minting.secret,
                    "authentication_event_id": minting.event,
                    "scope": words,
                    "amr": ["pwd"],
                }),
                minting.secret,
            )
        }
    }
}

fn person(user: &str) -> String {
    uuid(user).replace('-', "")
}

fn answer(issued: &Issued<'_>) -> Value {
    let mut body = json!({
        "access_token": issued.access_token,
        "expires_in": issued.expires_in(),
        "token_type": "Bearer",
        "scope": issued.access.scope,
    });
    if issued.access.scope.split(' ').any(|one| one == "openid") {
        let user = &issued.grant.user;
        let claims = json!({
            "nbf": issued.now,
            "exp": issued.now + 5 * MINUTE,
            "iss": "https://identity.xero.com",
            "aud": issued.client.client_id,
            "iat": issued.now,
            "sub": person(user),
            "auth_time": issued.grant.consented,
            "xero_userid": uuid(user),
            "preferred_username": format!("{user}@example.com"),
            "email": format!("{user}@example.com"),
            "given_name": user,
            "family_name": "Owner",
        });
        body["id_token"] = json!(jwt("JWT", &claims, "standin"));
    }
    if let Some(token) = issued.refresh_token {
        body["refresh_token"] = json!(token);
    }
    body
}

/// A refusal in the shape that everything behind a token shares.
pub fn problem(status: u16, title: &str, detail: &str) -> Reply {
    let mut answer = json_reply(
        status,
        &json!({
            "Type": null,
            "Title": title,
            "Status": status,
            "Detail": detail,
            "Instance": uuid(&format!("{status} {detail}")),
            "Extensions": {},
        }),
    );
    if status == 401 {
        let value = axum::http::HeaderValue::from_static("Bearer error=\"invalid_token\"");
        answer.headers_mut().insert("www-authenticate", value);
    }
    answer
}

pub fn dead(why: Dead) -> Reply {
    let detail = match why {
        Dead::Expired(at) => format!("TokenExpired: token expired at {}", time(at)),
        _ => "AuthenticationUnsuccessful".to_owned(),
    };
    problem(401, "Unauthorized", &detail)
}

fn time(at: i64) -> String {
    DateTime::from_timestamp(at, 0)
        .unwrap_or_default()
        .format("%Y-%m-%dT%H:%M:%S.0000000")
        .to_string()
}

/// One organisation that a person connected to an app.
struct Connection<'a> {
    id: String,
    tenant: &'a str,
    event: &'a str,
    created: i64,
    updated: i64,
}

/// What this person has connected to this app, whichever of the consents it came by.
fn connections<'a>(store: &'a Store, open: &Open) -> Vec<Connection<'a>> {
    let mut found: BTreeMap<&str, Connection<'a>> = BTreeMap::new();
    for grant in store.grants.values().filter(|grant| same(grant, open)) {
        let fresh = || Connection {
            id: uuid(&format!(
                "{} {} {}",
                grant.client_id, grant.account, grant.id
            )),
            tenant: &grant.account,
            event: "",
            created: grant.consented,
            updated: 0,
        };
        let known = found.entry(&grant.account).or_insert_with(fresh);
        known.event = &grant.event;
        known.updated = grant.consented;
    }
    found.into_values().collect()
}

/// Whether the token opens this organisation, whichever of the consents it came by.
pub fn reached(store: &Store, open: &Open, tenant: &str) -> bool {
    let connections = connections(store, open);
    connections.iter().any(|one| one.tenant == tenant)
}

fn same(grant: &Grant, open: &Open) -> bool {
    !grant.revoked
        && !grant.detached
        && grant.client_id == open.grant.client_id
        && grant.user == open.grant.user
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    // The vendor's own library writes it with a capital letter.
    let path = call.path.replacen("/Connections", "/connections", 1);
    match (call.method, path.as_str()) {
        (&Method::POST, "/connect/revocation") => Some(revoke(store, call)),
        (&Method::GET, "/.well-known/openid-configuration") => Some(discovery(&call.base)),
        (&Method::GET, "/.well-known/openid-configuration/jwks") => {
            Some(json_reply(200, &json!({"keys": []})))
        }
        (&Method::GET, "/connections") => Some(list(store, call)),
        (&Method::DELETE, path) => {
            let id = path.strip_prefix("/connections/")?.to_owned();
            Some(disconnect(store, call, &id))
        }
        _ => None,
    }
}

/// Takes away whatever the person of the token gave the app.
fn revoke(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = fields(&OAUTH, call);
    let client = match client(store, &OAUTH, call, &form) {
        Ok(client) => client,
        Err(refusal) => return (OAUTH.refuse)(&refusal, call),
    };
    let token = param(&form, "token").and_then(|token| store.refresh.get(token));
    let grant = token
        .and_then(|token| store.grants.get(&token.grant))
        .cloned();
    if let Some(grant) = grant.filter(|grant| grant.client_id == client.client_id) {
        store.revoke(|one| one.client_id == grant.client_id && one.user == grant.user);
    }
    // A token that is unknown is as good as revoked (RFC 7009 section 2.2).
    reply(200, "text/plain", "")
}

fn discovery(base: &str) -> Reply {
    json_reply(
        200,
        &json!({
            "issuer": "https://identity.xero.com",
            "jwks_uri": format!("{base}/.well-known/openid-configuration/jwks"),
            "authorization_endpoint": format!("{base}/identity/connect/authorize"),
            "token_endpoint": format!("{base}/connect/token"),
            "userinfo_endpoint": format!("{base}/connect/userinfo"),
            "revocation_endpoint": format!("{base}/connect/revocation"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        }),
    )
}

fn list(store: &Store, call: &Call<'_>) -> Reply {
    let open = match bearer(store, call) {
        Ok(open) => open,
        Err(why) => return dead(why),
    };
    let event = param(&call.query, "authEventId");
    let found = connections(store, &open);
    let shown = found
        .iter()
        .filter(|one| event.is_none_or(|event| event == one.event))
        .map(|one| {
            json!({
                "id": one.id,
                "authEventId": one.event,
                "tenantId": one.tenant,
                "tenantType": "ORGANISATION",
                "tenantName": store.account(one.tenant).map(|account| account.name.as_str()),
                "createdDateUtc": time(one.created),
                "updatedDateUtc": time(one.updated),
            })
        });
    json_reply(200, &shown.collect())
}

fn disconnect(store: &mut Store, call: &Call<'_>, id: &str) -> Reply {
    let open = match bearer(store, call) {
        Ok(open) => open,
        Err(why) => return dead(why),
    };
    let found = connections(store, &open);
    let Some(tenant) = found
        .iter()
        .find(|one| one.id == id)
        .map(|one| one.tenant.to_owned())
    else {
        return problem(404, "Not Found", "The connection does not exist");
    };
    for grant in store.grants.values_mut() {
        grant.detached |= same(grant, &open) && grant.account == tenant;
    }
    reply(204, "text/plain", "")
}
