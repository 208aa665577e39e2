//! Stripe Connect, standard accounts. Facts from <https://docs.stripe.com/connect/oauth-reference>.

mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;

/// Without it each account would answer in the shape of its own age.
const VERSION: &str = "2026-10-28.endive";

const HOSTS: Hosts = Hosts {
    authorize: "https://connect.stripe.com/oauth/authorize",
    token: "https://connect.stripe.com/oauth/token",
    revoke: "https://connect.stripe.com/oauth/deauthorize",
    api: "https://api.stripe.com",
};

pub static MANIFEST: Manifest = Manifest {
    name: "stripe",
    title: "Stripe",
    category: Category::Payments,
    production: HOSTS,
    // The key tells the mode, not the host.
    sandbox: HOSTS,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "STRIPE_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "STRIPE_SECRET_KEY",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_secret",
            variable: "STRIPE_WEBHOOK_SECRET",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &["read_write"],
        pkce: false,
        client_auth: ClientAuth::Bearer,
        authorize_extra: &[],
        callback_parameters: &[],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: None,
        access: AccessLife::Endless,
        // A refresh only narrows the scope or changes the mode.
        refresh: Refresh::None,
    }),
    api_domains: &[],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct Stripe;

fn account(site: &Site) -> Request {
    let mut url = site.api.clone();
    url.set_path("/v1/account");
    Request::new(Method::Get, url).header("stripe-version", VERSION)
}

impl Provider for Stripe {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        vec![account(site)]
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let names = [
            &body["settings"]["dashboard"]["display_name"],
            &body["business_profile"]["name"],
            &body["email"],
        ];
        Ok(Account {
            id: body["id"]
                .as_str()
                .ok_or_else(|| super::incomplete(MANIFEST.title))?
                .to_owned(),
            name: names
                .into_iter()
                .find_map(|name| Some(name.as_str()?.to_owned())),
            api: None,
            reference: None,
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        // Stripe takes the whole account away from the platform.
        if revocation.shared {
            return None;
        }
        let key = revocation.credentials.get("client_secret")?.clone();
        let request = Request::new(Method::Post, revocation.site.revoke.clone());
        let request = request.authorized(Authorization::Bearer(key));
        Some(request.form(&[
            ("client_id", revocation.credentials.text("client_id")),
            ("stripe_user_id", &revocation.account.id),
        ]))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        let key = credentials.get("client_secret")?.clone();
        Some(account(site).authorized(Authorization::Bearer(key)))
    }
}
