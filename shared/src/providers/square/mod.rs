//! Square. Facts from <https://developer.squareup.com/docs/oauth-api/overview> and Square's OpenAPI
//! description. Its loyalty programme is a provider of its own, with the same OAuth.

pub(super) mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

/// Without it the application's own default would decide the shape of answers.
const VERSION: &str = "2026-09-16";

pub(super) const PRODUCTION: Hosts = Hosts {
    authorize: "https://connect.squareup.com/oauth2/authorize",
    token: "https://connect.squareup.com/oauth2/token",
    revoke: "https://connect.squareup.com/oauth2/revoke",
    api: "https://connect.squareup.com",
};

pub(super) const SANDBOX: Hosts = Hosts {
    authorize: "https://connect.squareupsandbox.com/oauth2/authorize",
    token: "https://connect.squareupsandbox.com/oauth2/token",
    revoke: "https://connect.squareupsandbox.com/oauth2/revoke",
    api: "https://connect.squareupsandbox.com",
};

/// The grant of a confidential client: Square's challenge is for clients without a secret, whose
/// refresh tokens work once; with the secret they stay as they are.
pub(super) const fn code_flow(scopes: &'static [&'static str]) -> Consent {
    Consent::Code(CodeFlow {
        scopes,
        pkce: false,
        client_auth: ClientAuth::Json,
        authorize_extra: &[("session", "false")],
        callback_parameters: &[],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: None,
        access: AccessLife::Answered(TimeDelta::days(30)),
        // Square's advice: refresh every seven days or sooner, so that a dead grant is seen early.
        refresh: Refresh::Renewing {
            idle: None,
            every: Some(TimeDelta::days(7)),
            grace: None,
        },
    })
}

pub static MANIFEST: Manifest = Manifest {
    name: "square",
    title: "Square",
    category: Category::Payments,
    production: PRODUCTION,
    sandbox: SANDBOX,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "SQUARE_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "SQUARE_CLIENT_SECRET",
            required: true,
        },
        // The application's own token, for its webhook subscriptions.
        Credential {
            member: "access_token",
            variable: "SQUARE_ACCESS_TOKEN",
            required: false,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_key",
            variable: "SQUARE_WEBHOOK_KEY",
            required: false,
        },
    ],
    consent: code_flow(&[
        "MERCHANT_PROFILE_READ",
        "PAYMENTS_READ",
        "PAYMENTS_WRITE",
        "ORDERS_READ",
        "ORDERS_WRITE",
        "CUSTOMERS_READ",
        "CUSTOMERS_WRITE",
        "ITEMS_READ",
    ]),
    api_domains: &[],
    shares_app_with: Some("square_loyalty"),
    limits: Limits::NONE,
};

pub struct Square;

pub(super) fn account_requests(site: &Site) -> Vec<Request> {
    let mut url = site.api.clone();
    url.set_path("/v2/merchants/me");
    vec![Request::new(Method::Get, url).header("square-version", VERSION)]
}

pub(super) fn read_account(title: &str, answers: &[Response]) -> Result<Account, Fault> {
    let [answer] = answers else {
        return Err(super::incomplete(title));
    };
    let body = json_answer(title, answer)?;
    let text = |name: &str| Some(body["merchant"][name].as_str()?.to_owned());
    Ok(Account {
        id: text("id").ok_or_else(|| super::incomplete(title))?,
        name: text("business_name"),
        api: None,
        reference: None,
    })
}

pub(super) fn revoke(revocation: &Revocation) -> Option<Request> {
    let secret = revocation.credentials.get("client_secret")?.expose_secret();
    let proof = SecretString::from(format!("Client {secret}"));
    let body = json!({
        "client_id": revocation.credentials.text("client_id"),
        "access_token": revocation.grant.access.expose_secret(),
        // Square takes back every token of a seller for an application, also those of another
        // connection.
        "revoke_only_access_token": revocation.shared,
    });
    let request = Request::new(Method::Post, revocation.site.revoke.clone())
        .authorized(Authorization::Headers(vec![("authorization", proof)]));
    Some(request.body("application/json", body.to_string()))
}

/// Square's word for a refused code or token is the one for a wrong client as well; only the detail
/// tells them apart. In doubt it is the client: that is the platform's own fault, and costs no merchant
/// his connection.
pub(super) fn token_error(status: u16, answer: &Value) -> Option<&'static str> {
    let error = &answer["errors"][0];
    let detail = error["detail"].as_str().or(answer["message"].as_str());
    let detail = detail.unwrap_or_default().to_ascii_lowercase();
    let of_grant = detail.contains("refresh token") || detail.contains("authorization code");
    match status {
        400 | 401 | 404 if of_grant => Some("invalid_grant"),
        401 => Some("invalid_client"),
        400..=499 => Some("invalid_request"),
        _ => None,
    }
}

impl Provider for Square {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        account_requests(site)
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        read_account(MANIFEST.title, answers)
    }

    fn token_error(&self, status: u16, answer: &Value) -> Option<&'static str> {
        token_error(status, answer)
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        revoke(revocation)
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Json,
        ))
    }
}
