//! Xero. Facts from <https://developer.xero.com/documentation/guides/oauth2/auth-flow>, its FAQ, and
//! `xero-identity.yaml` of Xero's OpenAPI description.

mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::{Limits, Scope, Window};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use serde_json::Value;

const HOSTS: Hosts = Hosts {
    authorize: "https://login.xero.com/identity/connect/authorize",
    token: "https://identity.xero.com/connect/token",
    // Giving back the token would end every connection of that user with the app, so one connection
    // is deleted instead.
    revoke: "https://api.xero.com/connections",
    api: "https://api.xero.com",
};

/// <https://developer.xero.com/faq/limits>: for each organisation 60 calls in a minute, 5,000 in a day and
/// 5 at once; for the application 10,000 in a minute. The starter tier has 1,000 in a day, which the
/// header tells.
const LIMITS: Limits = Limits {
    connection: Scope {
        windows: &[
            Window {
                calls: 60,
                span: TimeDelta::minutes(1),
                only: None,
                left: Some("x-minlimit-remaining"),
            },
            Window {
                calls: 5000,
                span: TimeDelta::days(1),
                only: None,
                left: Some("x-daylimit-remaining"),
            },
        ],
        seats: Some(5),
        pace: None,
    },
    app: Scope {
        windows: &[Window {
            calls: 10_000,
            span: TimeDelta::minutes(1),
            only: None,
            left: Some("x-appminlimit-remaining"),
        }],
        seats: None,
        pace: None,
    },
    pause: TimeDelta::minutes(1),
    problem: Some("x-rate-limit-problem"),
};

pub static MANIFEST: Manifest = Manifest {
    name: "xero",
    title: "Xero",
    category: Category::Accounting,
    production: HOSTS,
    // There is no other host: the user chooses a demo company.
    sandbox: HOSTS,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "XERO_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "XERO_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_key",
            variable: "XERO_WEBHOOK_KEY",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &[
            "offline_access",
            "accounting.contacts",
            "accounting.invoices",
            "accounting.payments",
            "accounting.settings.read",
        ],
        // For apps without a secret only; Xero's own words on both together differ.
        pkce: false,
        client_auth: ClientAuth::Basic,
        // One organisation for each consent, so that a connection is one organisation.
        authorize_extra: &[("acr_values", "bulk_connect:false")],
        callback_parameters: &[],
        answer_members: &[],
        issuer: Some("https://identity.xero.com"),
        access: AccessLife::Answered(TimeDelta::minutes(30)),
        refresh: Refresh::Renewing {
            idle: Some(TimeDelta::days(60)),
            every: None,
            grace: Some(TimeDelta::minutes(30)),
        },
    }),
    api_domains: &[],
    shares_app_with: None,
    limits: LIMITS,
};

pub struct Xero;

/// The claim of the access token that names this consent among all of this user.
fn consent_event(grant: &Grant) -> Option<String> {
    // The token came from Xero over TLS, so its signature need not be checked to read a claim.
    let claims = grant.access.expose_secret().split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    Some(claims["authentication_event_id"].as_str()?.to_owned())
}

impl Provider for Xero {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, grant: &Grant) -> Vec<Request> {
        let mut url = site.api.clone();
        url.set_path("/connections");
        if let Some(event) = consent_event(grant) {
            url.query_pairs_mut().append_pair("authEventId", &event);
        }
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(
        &self,
        _: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let wanted = grant.fact("tenant_id");
        let mut organisations = body
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| wanted.is_empty() || one["tenantId"] == wanted.as_str());
        let refused = |code: &str, detail: &str| {
            Err(Fault::Refused {
                code: code.to_owned(),
                detail: detail.to_owned(),
            })
        };
        let Some(one) = organisations.next() else {
            return refused(
                super::NO_ACCOUNT,
                "Xero gave access to no organisation; choose one",
            );
        };
        if organisations.next().is_some() {
            return refused(
                "several_organisations",
                "Xero gave access to several organisations at once; connect them one by one",
            );
        }
        let text = |name: &str| Some(one[name].as_str()?.to_owned());
        Ok(Account {
            id: text("tenantId").ok_or_else(|| super::incomplete(MANIFEST.title))?,
            name: text("tenantName"),
            api: None,
            reference: text("id"),
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        let reference = revocation.account.reference.as_ref()?;
        let mut url = revocation.site.revoke.clone();
        url.path_segments_mut().ok()?.push(reference);
        let authorization = Authorization::Bearer(revocation.grant.access.clone());
        Some(Request::new(Method::Delete, url).authorized(authorization))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Basic,
        ))
    }
}
