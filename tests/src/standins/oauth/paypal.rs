//! PayPal: Log in with PayPal tells who a merchant is, partner onboarding lets a platform act for
//! them, and an app's own token comes of its id and secret.

use axum::http::Method;
use serde_json::{Value, json};
use url::Url;

use super::flow::{Open, chosen, client, fields, form, open};
use super::rules::{
    Call, ClientAuth, DAY, Declined, HOUR, Issued, Kind, Lifetime, MINUTE, Minting, OAuth, Pkce,
    RedirectAtToken, Refusal, Rotation, Scopes, Vendor, oauth_error,
};
use super::signing::PAYPAL_CERTIFICATES;
use super::state::{Access, Grant, Store, uuid};
use crate::standins::wire::{Params, Reply, json_reply, param, params, redirect, reply};

/// What the token of an app may do. It is of no merchant.
const APP_SCOPE: &str = "https://uri.paypal.com/services/payments/payment/authcapture \
    https://uri.paypal.com/services/payments/refund \
    https://uri.paypal.com/services/applications/webhooks \
    https://uri.paypal.com/services/reporting/search/read \
    https://uri.paypal.com/services/customer/partner-referrals/readwrite openid";

const OAUTH: OAuth = OAuth {
    authorize: &["/signin/authorize", "/connect"],
    token: &[
        "/v1/oauth2/token",
        "/v1/identity/openidconnect/tokenservice",
    ],
    client_auth: ClientAuth::BasicOrForm,
    response_type: true,
    scopes: Scopes {
        known: |scope| {
            ["openid", "profile", "email", "address", "phone"].contains(&scope)
                || scope.starts_with("https://uri.paypal.com/services/")
        },
        default: None,
        usual: "openid profile email https://uri.paypal.com/services/paypalattributes",
    },
    redirect_optional: false,
    redirect_at_token: RedirectAtToken::IfSent,
    errors_go_back: true,
    denied: None,
    code_life: 3 * MINUTE,
    code_reuse_revokes: false,
    pkce: Pkce::Ignored,
    access_life: Some(8 * HOUR),
    refresh: Some(Lifetime {
        idle: Some(180 * DAY),
        rotation: Rotation::NeverRepeated,
    }),
    refresh_pkce: None,
    refresh_scopes: &[],
    grants_max: None,
    callback: |code| vec![("scope", code.scope.clone())],
    mint: |minting: &Minting<'_>| match minting.kind {
        Kind::Code => format!("C21AA{}", minting.secret),
        Kind::Access => format!("A21AA{}", minting.secret),
        Kind::Refresh => format!("R23AA{}", minting.secret),
    },
    answer: |issued: &Issued<'_>| {
        let mut body = json!({
            "scope": issued.access.scope,
            "access_token": issued.access_token,
            "token_type": "Bearer",
            "expires_in": issued.expires_in(),
            "nonce": nonce(issued.now, issued.access_token),
        });
        if let Some(token) = issued.refresh_token {
            body["refresh_token"] = json!(token);
        }
        body
    },
    refuse,
    decline: |declined| match declined {
        Declined::Client => ("invalid_client", "client_id is invalid".to_owned()),
        Declined::Redirect(_) => (
            "invalid_request",
            "redirect_uri does not match the registered return URL".to_owned(),
        ),
        Declined::Scope(scope) => ("invalid_scope", format!("Invalid scope: {scope}")),
        _ => (
            "unsupported_response_type",
            "response_type must be code".to_owned(),
        ),
    },
};

pub const VENDOR: Vendor = Vendor {
    name: "paypal",
    title: "PayPal",
    accounts: &[
        ("QYR5Z8XDVJNXQ", "Demo Shop", "olive"),
        ("ZDS7L2KQ9M4TA", "Second Shop", "peter"),
    ],
    oauth: Some(OAUTH),
    key: None,
    route,
    trouble: |status| match status {
        429 => problem(
            429,
            "RATE_LIMIT_REACHED",
            "Too many requests. Blocked due to rate limiting.",
        ),
        503 => problem(503, "SERVICE_UNAVAILABLE", "Service Unavailable."),
        _ => problem(
            status,
            "INTERNAL_SERVER_ERROR",
            "An internal server error has occurred.",
        ),
    },
    api: None,
};

fn nonce(now: i64, token: &str) -> String {
    let at = chrono::DateTime::from_timestamp(now, 0).unwrap_or_default();
    format!(
        "{}{}",
        at.format("%Y-%m-%dT%H:%M:%SZ"),
        uuid(token).replace('-', "")
    )
}

fn problem(status: u16, name: &str, message: &str) -> Reply {
    json_reply(
        status,
        &json!({"name": name, "message": message, "debug_id": &uuid(name)[24..]}),
    )
}

fn refuse(refusal: &Refusal<'_>, _: &Call<'_>) -> Reply {
    let (status, code) = refusal.standard();
    let words = match refusal {
        Refusal::ClientMissing | Refusal::ClientUnknown | Refusal::SecretWrong => {
            "Client Authentication failed".to_owned()
        }
        Refusal::Missing("client_secret") => {
            return oauth_error(401, "invalid_client", Some("Client Authentication failed"));
        }
        Refusal::GrantTypeMissing => "Grant Type is NULL".to_owned(),
        Refusal::GrantTypeUnknown(_) => "Unsupported grant_type".to_owned(),
        Refusal::Missing(name) => format!("{name} is missing"),
        Refusal::Redirect => "Redirect uri does not match".to_owned(),
        Refusal::RefreshInvalid(_) | Refusal::RefreshExpired | Refusal::RefreshReused => {
            "Invalid refresh token".to_owned()
        }
        Refusal::Scope => "The requested scope was not granted".to_owned(),
        _ => "Invalid authorization code".to_owned(),
    };
    oauth_error(status, code, Some(&words))
}

fn invalid_token() -> Reply {
    oauth_error(
        401,
        "invalid_token",
        Some("The token passed in was not found in the system"),
    )
}

fn unauthorized() -> Reply {
    problem(
        401,
        "AUTHENTICATION_FAILURE",
        "Authentication failed due to invalid authentication credentials or a missing Authorization header.",
    )
}

fn route(store: &mut Store, call: &Call<'_>) -> Option<Reply> {
    let parts: Vec<&str> = call.path.split('/').skip(1).collect();
    match (call.method, parts.as_slice()) {
        (&Method::POST, ["v1", "oauth2", "token"]) => {
            let form = fields(&OAUTH, call);
            (param(&form, "grant_type") == Some("client_credentials"))
                .then(|| own_token(store, call))
        }
        (
            &Method::GET | &Method::POST,
            ["v1", "identity", "openidconnect" | "oauth2", "userinfo"],
        ) => Some(user_info(store, call)),
        (&Method::GET, ["v1", "notifications", "certs", _]) => {
            Some(reply(200, "application/x-pem-file", PAYPAL_CERTIFICATES))
        }
        (&Method::POST, ["v2", "customer", "partner-referrals"]) => Some(refer(store, call)),
        (&Method::GET, ["bizsignup", "partner", "entry"]) => Some(sign_up(store, call)),
        (&Method::POST, ["bizsignup", "partner", "entry", "decision"]) => {
            Some(signed_up(store, call))
        }
        (
            &Method::GET,
            [
                "v1",
                "customer",
                "partners",
                _,
                "merchant-integrations",
                merchant,
            ],
        ) => Some(integration(store, call, merchant)),
        _ => None,
    }
}

/// A token for the app itself. It is kept as a grant of no account, so it opens nothing that
/// belongs to one.
fn own_token(store: &mut Store, call: &Call<'_>) -> Reply {
    const LIFE: i64 = 9 * HOUR;
    let form = fields(&OAUTH, call);
    let app = match client(store, &OAUTH, call, &form) {
        Ok(app) => app,
        Err(refusal) => return refuse(&refusal, call),
    };
    let id = store.next();
    let token = format!("A21AA{}", store.secret());
    let grant = Grant {
        id,
        client_id: app.client_id.clone(),
        account: String::new(),
        user: String::new(),
        scope: APP_SCOPE.to_owned(),
        consented: call.now,
        event: String::new(),
        pkce: false,
        revoked: false,
        detached: false,
    };
    store.grants.insert(id, grant);
    let access = Access {
        grant: id,
        scope: APP_SCOPE.to_owned(),
        issued: call.now,
        expires: Some(call.now + LIFE),
        short_lived: false,
        revoked: false,
    };
    store.access.insert(token.clone(), access);
    json_reply(
        200,
        &json!({
            "scope": APP_SCOPE,
            "access_token": token,
            "token_type": "Bearer",
            "app_id": "APP-80W284485P519543T",
            "expires_in": LIFE,
            "nonce": nonce(call.now, &token),
        }),
    )
}

/// The app that a token of its own names.
fn app(store: &Store, call: &Call<'_>) -> Option<String> {
    let access = store.access.get(call.authorization("bearer")?)?;
    let grant = store.grants.get(&access.grant)?;
    let alive = !grant.revoked && access.expires.is_none_or(|at| call.now < at);
    (alive && grant.account.is_empty()).then(|| grant.client_id.clone())
}

fn user_info(store: &Store, call: &Call<'_>) -> Reply {
    let form = params(call.body);
    let token = call
        .authorization("bearer")
        .or(param(&form, "access_token"));
    match open(store, token, call.now) {
        Ok(open) => json_reply(200, &person(&open)),
        Err(_) => invalid_token(),
    }
}

fn person(open: &Open) -> Value {
    let id = format!(
        "https://www.paypal.com/webapps/auth/identity/user/{}",
        open.account.id
    );
    let mut body = json!({"user_id": id, "sub": id});
    if open.may("profile") {
        body["name"] = json!("Olive Owner");
        body["given_name"] = json!("Olive");
        body["family_name"] = json!("Owner");
    }
    if open.may("email") {
        body["email"] = json!("owner@example.com");
        body["email_verified"] = json!(true);
    }
    if open.may("https://uri.paypal.com/services/paypalattributes") {
        body["payer_id"] = json!(open.account.id);
        body["verified_account"] = json!("true");
    }
    body
}

/// A link for a seller who shall let the partner act for them.
fn refer(store: &mut Store, call: &Call<'_>) -> Reply {
    let Some(partner) = app(store, call) else {
        return unauthorized();
    };
    let body: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let filled = |name: &str| body[name].as_array().is_some_and(|list| !list.is_empty());
    if !filled("operations") || !filled("legal_consents") {
        return problem(
            400,
            "INVALID_REQUEST",
            "Request is not well-formed, syntactically incorrect, or violates schema.",
        );
    }
    let token = store.secret();
    let referral = json!({
        "partner": partner,
        "tracking_id": body["tracking_id"],
        "return_url": body["partner_config_override"]["return_url"],
        "features": body["operations"][0]["api_integration_preference"]["rest_api_integration"]["third_party_details"]["features"],
    });
    store.own.insert(format!("referral {token}"), referral);
    let base = &call.base;
    json_reply(
        201,
        &json!({"links": [
            {
                "href": format!("{base}/v2/customer/partner-referrals/{token}"),
                "rel": "self",
                "method": "GET",
                "description": "Read Referral Data shared by the Caller.",
            },
            {
                "href": format!("{base}/bizsignup/partner/entry?referralToken={token}"),
                "rel": "action_url",
                "method": "GET",
                "description": "Target WEB REDIRECT URL for the next action. Customer should be redirected to this URL in the browser.",
            },
        ]}),
    )
}

fn referral(store: &Store, form: &Params) -> Option<Value> {
    let token = param(form, "referralToken")?;
    store.own.get(&format!("referral {token}")).cloned()
}

fn sign_up(store: &Store, call: &Call<'_>) -> Reply {
    match referral(store, &call.query) {
        Some(_) => form(
            store,
            &VENDOR,
            "/bizsignup/partner/entry/decision",
            &call.query,
        ),
        None => reply(404, "text/plain", "This link has expired.\n"),
    }
}

/// Sends the seller back to the partner, with or without their consent.
fn signed_up(store: &mut Store, call: &Call<'_>) -> Reply {
    let form = params(call.body);
    let Some(referral) = referral(store, &form) else {
        return reply(404, "text/plain", "This link has expired.\n");
    };
    let account = match chosen(store, &form) {
        Ok(account) => account,
        Err(refused) => return *refused,
    };
    let text = |name: &str| referral[name].as_str().unwrap_or_default().to_owned();
    let Ok(mut back) = Url::parse(&text("return_url")) else {
        return reply(200, "text/plain", "Thank you. You may close this page.\n");
    };
    let granted = param(&form, "decision") == Some("approve");
    if granted {
        let id = store.next();
        let grant = Grant {
            id,
            client_id: text("partner"),
            account: account.id.clone(),
            user: account.user.clone(),
            scope: referral["features"].to_string(),
            consented: call.now,
            event: text("tracking_id"),
            pkce: false,
            revoked: false,
            detached: false,
        };
        store.grants.insert(id, grant);
    }
    let said = if granted { "true" } else { "false" };
    back.query_pairs_mut()
        .append_pair("merchantId", &text("tracking_id"))
        .append_pair("merchantIdInPayPal", &account.id)
        .append_pair("permissionsGranted", said)
        .append_pair("consentStatus", said)
        .append_pair("productIntentId", "addipmt")
        .append_pair("isEmailConfirmed", "true")
        .append_pair("accountStatus", "BUSINESS_ACCOUNT");
    redirect(&back)
}

/// What a seller has let the partner do, which is what a connection is alive by.
fn integration(store: &Store, call: &Call<'_>, merchant: &str) -> Reply {
    let Some(partner) = app(store, call) else {
        return unauthorized();
    };
    let grant = store
        .grants
        .values()
        .filter(|one| one.client_id == partner && one.account == merchant && !one.revoked)
        .max_by_key(|one| one.id);
    match grant {
        None => problem(
            404,
            "RESOURCE_NOT_FOUND",
            "The specified resource does not exist.",
        ),
        Some(grant) => json_reply(
            200,
            &json!({
                "merchant_id": merchant,
                "tracking_id": grant.event,
                "products": [{"name": "EXPRESS_CHECKOUT", "status": "ACTIVE"}],
                "payments_receivable": true,
                "primary_email_confirmed": true,
                "primary_email": "owner@example.com",
                "oauth_integrations": [{
                    "integration_type": "OAUTH_THIRD_PARTY",
                    "integration_method": "PAYPAL",
                    "oauth_third_party": [{
                        "partner_client_id": partner,
                        "merchant_client_id": partner,
                        "scopes": APP_SCOPE.split_whitespace().collect::<Vec<_>>(),
                    }],
                }],
            }),
        ),
    }
}
