//! Mailchimp Marketing. Facts from
//! <https://mailchimp.com/developer/marketing/guides/access-user-data-oauth-2/>.

mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Site, json_answer,
};
use crate::model::http::{Method, Request, Response};
use crate::sync::budget::Limits;

const HOSTS: Hosts = Hosts {
    authorize: "https://login.mailchimp.com/oauth2/authorize",
    token: "https://login.mailchimp.com/oauth2/token",
    // Only the user can take the grant back, among the connected apps.
    revoke: "",
    api: "https://login.mailchimp.com",
};

pub static MANIFEST: Manifest = Manifest {
    name: "mailchimp",
    title: "Mailchimp",
    category: Category::EmailMarketing,
    production: HOSTS,
    // There is none: a free account serves.
    sandbox: HOSTS,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "MAILCHIMP_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "MAILCHIMP_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_secret",
            variable: "MAILCHIMP_WEBHOOK_SECRET",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        // A grant covers the whole account.
        scopes: &[],
        pkce: false,
        client_auth: ClientAuth::Form,
        authorize_extra: &[],
        callback_parameters: &[],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: None,
        access: AccessLife::Endless,
        refresh: Refresh::None,
    }),
    // Each account lives in a data centre: `us6.api.mailchimp.com`.
    api_domains: &["api.mailchimp.com"],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct Mailchimp;

impl Provider for Mailchimp {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        let mut url = site.token.clone();
        url.set_path("/oauth2/metadata");
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let id = match &body["user_id"] {
            serde_json::Value::Number(number) => number.to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        let api = body["api_endpoint"]
            .as_str()
            .and_then(|url| url.parse().ok());
        if id.is_empty() || api.is_none() {
            return Err(super::incomplete(MANIFEST.title));
        }
        let name = body["accountname"].as_str().map(str::to_owned);
        Ok(Account {
            id,
            name,
            api,
            reference: None,
        })
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_code(site, credentials))
    }
}
