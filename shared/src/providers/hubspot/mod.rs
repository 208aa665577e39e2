//! HubSpot, with the dated OAuth API (the first version ends in February 2027). Facts from
//! <https://developers.hubspot.com/docs/api/working-with-oauth> and HubSpot's OpenAPI description.

mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, json_answer,
};
use crate::model::http::{Method, Request, Response};
use crate::sync::budget::Limits;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use serde_json::Value;

const HOSTS: Hosts = Hosts {
    authorize: "https://app.hubspot.com/oauth/authorize",
    token: "https://api.hubapi.com/oauth/2026-03/token",
    revoke: "https://api.hubapi.com/oauth/2026-03/token/revoke",
    api: "https://api.hubapi.com",
};

pub static MANIFEST: Manifest = Manifest {
    name: "hubspot",
    title: "HubSpot",
    category: Category::Crm,
    production: HOSTS,
    // Developer test accounts live on the same hosts.
    sandbox: HOSTS,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "HUBSPOT_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "HUBSPOT_CLIENT_SECRET",
            required: true,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &[
            "oauth",
            "crm.objects.contacts.read",
            "crm.objects.contacts.write",
            "crm.objects.companies.read",
            "crm.objects.companies.write",
            "crm.objects.deals.read",
            "crm.objects.deals.write",
            "crm.objects.orders.read",
            "crm.objects.orders.write",
            "crm.objects.line_items.read",
            "crm.objects.line_items.write",
            "crm.objects.products.read",
            "crm.objects.products.write",
            "crm.schemas.contacts.write",
            "crm.schemas.deals.write",
            "crm.schemas.orders.write",
            "crm.pipelines.orders.read",
            "crm.pipelines.orders.write",
        ],
        // HubSpot's description of the token request has the verifier, beside the secret.
        pkce: true,
        client_auth: ClientAuth::Form,
        authorize_extra: &[],
        callback_parameters: &[],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: None,
        access: AccessLife::Answered(TimeDelta::minutes(30)),
        refresh: Refresh::Renewing {
            idle: None,
            every: None,
            grace: None,
        },
    }),
    api_domains: &[],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct HubSpot;

impl Provider for HubSpot {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        let mut url = site.api.clone();
        url.set_path("/account-info/2026-03/details");
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let id = body["portalId"]
            .as_u64()
            .ok_or_else(|| super::incomplete(MANIFEST.title))?;
        Ok(Account {
            id: id.to_string(),
            // An account has no name here; its number is what its users see.
            name: Some(format!("HubSpot account {id}")),
            api: None,
            reference: None,
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        let refresh = revocation.grant.refresh.as_ref()?;
        let request = Request::new(Method::Post, revocation.site.revoke.clone());
        Some(request.form(&[
            ("client_id", revocation.credentials.text("client_id")),
            (
                "client_secret",
                revocation.credentials.text("client_secret"),
            ),
            ("token", refresh.expose_secret()),
            ("token_type_hint", "refresh_token"),
        ]))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Form,
        ))
    }

    /// HubSpot's own word stands in `status`. It is older than the `error` beside it, and tells the
    /// client's id from its secret and both from the grant.
    fn read_credentials(&self, answer: &Response) -> Result<(), Fault> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let word = match body["status"].as_str() {
            Some("BAD_REFRESH_TOKEN") => Some("invalid_grant"),
            Some(own) if own.starts_with("BAD_") => Some(own),
            _ => body["error"].as_str(),
        };
        super::judge_credentials(MANIFEST.title, answer, word)
    }
}
