//! The vendor's OAuth hosts: consent, tokens, revocation, discovery.

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::seed::DEFAULT_REALM;
use super::state::{Access, Change, Client, Code, Grant, State};
use crate::standins::wire::{
    Params, Reply, escape, json_reply, jwt, page, param, params, redirect, reply,
};

const ACCESS_LIFE: i64 = 3600;
const CODE_LIFE: i64 = 600;
const REFRESH_LIFE: i64 = 8_726_400;
const HARD_LIFE: i64 = 5 * 365 * 24 * 3600;
const ROTATION: i64 = 24 * 3600;
/// The person who consents, whatever the company.
const USER: &str = "00000000-0000-0000-0000-000000000001";
const SCOPES: [&str; 6] = [
    "com.intuit.quickbooks.accounting",
    "openid",
    "profile",
    "email",
    "phone",
    "address",
];

/// A value that nobody outside can guess and that the same run makes again.
pub fn token(state: &mut State, kind: &str) -> String {
    let number = state.next();
    let digest = Sha256::digest(format!("{} {kind} {number}", state.seed));
    format!("{kind}-{}", URL_SAFE_NO_PAD.encode(digest))
}

/// What is wrong with an authorization request, if anything. Nothing is sent to an address that
/// is not registered, so every refusal is a page.
fn refused(state: &State, asked: &Params) -> Option<&'static str> {
    let Some(client) = param(asked, "client_id").and_then(|id| state.clients.get(id)) else {
        return Some("The client_id query parameter is invalid.");
    };
    let redirect = param(asked, "redirect_uri").unwrap_or_default();
    if !client.redirect_uris.iter().any(|known| known == redirect) {
        return Some(
            "The redirect_uri query parameter value is invalid. Make sure it is listed in the Redirect URIs section on your app's keys tab and matches it exactly.",
        );
    }
    if param(asked, "response_type").is_some_and(|kind| kind != "code") {
        return Some("The response_type query parameter is invalid.");
    }
    let scope = param(asked, "scope").unwrap_or_default();
    if scope.is_empty() || scope.split(' ').any(|one| !SCOPES.contains(&one)) {
        return Some("Invalid permissions requested.");
    }
    if param(asked, "state").is_none_or(str::is_empty) {
        return Some("The state query parameter is missing.");
    }
    None
}

pub fn consent(state: &State, asked: &Params) -> Reply {
    if param(asked, "response_type").is_none() {
        return page(
            400,
            "Sorry, but this did not work",
            "<p>The response_type query parameter is missing.</p>",
        );
    }
    if let Some(reason) = refused(state, asked) {
        return page(
            400,
            "Sorry, but this did not work",
            &format!("<p>{reason}</p>"),
        );
    }
    let hidden: String = ["client_id", "redirect_uri", "scope", "state"]
        .iter()
        .map(|name| {
            let value = escape(param(asked, name).unwrap_or_default());
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
        })
        .collect();
    let companies: String = state
        .companies_by_choice()
        .map(|(realm, name)| {
            let (realm, name) = (escape(realm), escape(name));
            format!("<option value=\"{realm}\">{name}</option>\n")
        })
        .collect();
    let body = format!(
        "<p>An app asks to use your company's accounting data.</p>\n<form method=\"post\" action=\"/connect/oauth2/decision\">\n{hidden}<label>Company <select name=\"realm_id\">\n{companies}</select></label>\n<button type=\"submit\" name=\"decision\" value=\"approve\">Approve</button>\n<button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button>\n</form>"
    );
    page(200, "Connect your company (stand-in)", &body)
}

pub fn decision(state: &mut State, form: &Params, now: i64) -> Reply {
    if let Some(reason) = refused(state, form) {
        return page(
            400,
            "Sorry, but this did not work",
            &format!("<p>{reason}</p>"),
        );
    }
    let value = |name: &str| param(form, name).unwrap_or_default().to_owned();
    let Ok(mut target) = Url::parse(&value("redirect_uri")) else {
        return page(
            400,
            "Sorry, but this did not work",
            "<p>The redirect_uri is no address.</p>",
        );
    };
    match param(form, "decision") {
        Some("approve") => {}
        Some("deny") => {
            target
                .query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair("state", &value("state"));
            return redirect(&target);
        }
        _ => {
            return page(
                400,
                "Sorry, but this did not work",
                "<p>Approve or deny?</p>",
            );
        }
    }
    let realm = match param(form, "realm_id").or(param(form, "account")) {
        Some(realm) => Some(realm.to_owned()),
        None => Some(DEFAULT_REALM.to_owned()),
    };
    let Some(realm) = realm.filter(|realm| state.companies.contains_key(realm)) else {
        return page(
            400,
            "Sorry, but this did not work",
            "<p>There is no such company.</p>",
        );
    };
    let code = token(state, "code");
    state.record(Change::Code(Code {
        code: code.clone(),
        client_id: value("client_id"),
        redirect_uri: value("redirect_uri"),
        realm: realm.clone(),
        scope: value("scope"),
        issued: now,
        grant: None,
    }));
    target
        .query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", &value("state"))
        .append_pair("realmId", &realm);
    redirect(&target)
}

fn error(status: u16, code: &str, description: Option<&str>) -> Reply {
    let mut body = json!({"error": code});
    if let Some(description) = description {
        body["error_description"] = json!(description);
    }
    json_reply(status, &body)
}

fn client(state: &State, headers: &HeaderMap) -> Option<Client> {
    let header = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (kind, encoded) = header.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    state
        .clients
        .get(id)
        .filter(|client| kind.eq_ignore_ascii_case("basic") && client.client_secret == secret)
        .cloned()
}

pub fn tokens(state: &mut State, headers: &HeaderMap, form: &Params, now: i64) -> Reply {
    let Some(client) = client(state, headers) else {
        return error(401, "invalid_client", None);
    };
    let hard = headers
        .get("x-include-refresh-token-hard-expires-in")
        .is_some_and(|value| value == "true");
    match param(form, "grant_type") {
        Some("authorization_code") => exchange(state, &client, form, now, hard),
        Some("refresh_token") => refresh(state, &client, form, now, hard),
        Some(_) => error(400, "unsupported_grant_type", None),
        None => error(400, "invalid_request", Some("grant_type is missing")),
    }
}

fn exchange(state: &mut State, client: &Client, form: &Params, now: i64, hard: bool) -> Reply {
    let (Some(code), Some(redirect)) = (param(form, "code"), param(form, "redirect_uri")) else {
        return error(
            400,
            "invalid_request",
            Some("code or redirect_uri is missing"),
        );
    };
    let Some(mut code) = state.codes.get(code).cloned() else {
        return error(400, "invalid_grant", Some("Invalid authorization code"));
    };
    if let Some(grant) = code.grant {
        // A code that comes back was seen by two parties; neither is trusted any longer.
        revoke_grant(state, grant);
        return error(
            400,
            "invalid_grant",
            Some("Authorization code has been used"),
        );
    }
    let stale = now >= code.issued + CODE_LIFE;
    if stale || code.client_id != client.client_id || code.redirect_uri != redirect {
        return error(400, "invalid_grant", Some("Invalid authorization code"));
    }
    let grant = consented(state, &client.client_id, &code.realm, &code.scope, now);
    code.grant = Some(grant.id);
    state.record(Change::Code(code));
    answer(state, &grant, now, hard)
}

/// A new connection of a company to an app.
pub fn consented(state: &mut State, client_id: &str, realm: &str, scope: &str, now: i64) -> Grant {
    let id = state.next();
    let grant = Grant {
        id,
        client_id: client_id.to_owned(),
        realm: realm.to_owned(),
        scope: scope.to_owned(),
        consented: now,
        refresh_token: token(state, "refresh"),
        rotated: now,
        refreshed: now,
        revoked: false,
    };
    state.record(Change::Grant(grant.clone()));
    grant
}

fn refresh(state: &mut State, client: &Client, form: &Params, now: i64, hard: bool) -> Reply {
    let Some(presented) = param(form, "refresh_token") else {
        return error(400, "invalid_request", Some("refresh_token is missing"));
    };
    let found = state.grants.values().find(|grant| {
        grant.refresh_token == presented && grant.client_id == client.client_id && !grant.revoked
    });
    let alive =
        |grant: &Grant| now < grant.refreshed + REFRESH_LIFE && now < grant.consented + HARD_LIFE;
    let Some(mut grant) = found.filter(|grant| alive(grant)).cloned() else {
        return error(
            400,
            "invalid_grant",
            Some("Incorrect or invalid refresh token"),
        );
    };
    if client.rotate_each_refresh || now >= grant.rotated + ROTATION {
        grant.refresh_token = token(state, "refresh");
        grant.rotated = now;
    }
    grant.refreshed = now;
    state.record(Change::Grant(grant.clone()));
    answer(state, &grant, now, hard)
}

/// Gives out an access token beside the grant's refresh token.
pub fn answer(state: &mut State, grant: &Grant, now: i64, hard: bool) -> Reply {
    let access = Access {
        token: token(state, "access"),
        grant: grant.id,
        expires: now + ACCESS_LIFE,
    };
    let mut body = json!({
        "token_type": "bearer",
        "expires_in": ACCESS_LIFE,
        "refresh_token": grant.refresh_token,
        "x_refresh_token_expires_in": REFRESH_LIFE.min(grant.consented + HARD_LIFE - now),
        "access_token": access.token,
    });
    if hard {
        body["x_refresh_token_hard_expires_in"] = json!(grant.consented + HARD_LIFE - now);
    }
    if grant.scope.split(' ').any(|scope| scope == "openid") {
        let claims = json!({
            "sub": USER,
            "aud": [grant.client_id],
            "realmid": grant.realm,
            "auth_time": grant.consented,
            "iss": "https://oauth.platform.intuit.com/op/v1",
            "exp": now + ACCESS_LIFE,
            "iat": now,
        });
        body["id_token"] = json!(jwt("JWT", &claims, "standin"));
    }
    state.record(Change::Access(access));
    let mut sent = json_reply(200, &body);
    sent.headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    sent
}

pub fn revoke_grant(state: &mut State, id: u64) {
    if let Some(mut grant) = state.grants.get(&id).cloned() {
        grant.revoked = true;
        state.record(Change::Grant(grant));
    }
}

pub fn revoke(state: &mut State, headers: &HeaderMap, body: &[u8]) -> Reply {
    let Some(client) = client(state, headers) else {
        return error(401, "invalid_client", None);
    };
    let presented = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|body| body["token"].as_str().map(str::to_owned))
        .or_else(|| param(&params(body), "token").map(str::to_owned));
    let Some(presented) = presented else {
        return error(400, "invalid_request", Some("token is missing"));
    };
    let by_access = state.access.get(&presented).map(|access| access.grant);
    let found = state
        .grants
        .values()
        .find(|grant| grant.refresh_token == presented || Some(grant.id) == by_access)
        .filter(|grant| grant.client_id == client.client_id && !grant.revoked)
        .map(|grant| grant.id);
    match found {
        Some(id) => {
            revoke_grant(state, id);
            reply(200, "application/json;charset=UTF-8", "")
        }
        None => error(400, "invalid_grant", Some("Token invalid")),
    }
}

pub fn discovery(base: &str) -> Reply {
    json_reply(
        200,
        &json!({
            "issuer": format!("{base}/op/v1"),
            "authorization_endpoint": format!("{base}/connect/oauth2"),
            "token_endpoint": format!("{base}/oauth2/v1/tokens/bearer"),
            "userinfo_endpoint": format!("{base}/v1/openid_connect/userinfo"),
            "revocation_endpoint": format!("{base}/v2/oauth2/tokens/revoke"),
            "jwks_uri": format!("{base}/op/v1/jwks"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": SCOPES,
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }),
    )
}

/// Why a bearer token does not open a door.
pub enum Refusal {
    Missing,
    Malformed,
    Expired,
    Revoked,
}

pub fn bearer<'a>(state: &'a State, headers: &HeaderMap, now: i64) -> Result<&'a Grant, Refusal> {
    let presented = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or(Refusal::Missing)?;
    let access = state.access.get(presented).ok_or(Refusal::Malformed)?;
    let grant = state.grants.get(&access.grant).ok_or(Refusal::Malformed)?;
    if grant.revoked {
        return Err(Refusal::Revoked);
    }
    if now >= access.expires {
        return Err(Refusal::Expired);
    }
    Ok(grant)
}

pub fn user_info(state: &State, headers: &HeaderMap, now: i64) -> Reply {
    match bearer(state, headers, now) {
        Ok(grant) if grant.scope.split(' ').any(|scope| scope == "openid") => json_reply(
            200,
            &json!({
                "sub": USER,
                "email": "owner@example.com",
                "emailVerified": true,
                "givenName": "Olive",
                "familyName": "Owner",
            }),
        ),
        _ => error(401, "invalid_token", None),
    }
}
