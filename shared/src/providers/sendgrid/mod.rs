//! Twilio SendGrid. It has no OAuth for others: the merchant pastes an API key. Facts from SendGrid's
//! OpenAPI descriptions (`tsg_scopes_v3`, `tsg_user_v3`).

use super::{
    Account, Category, Consent, Credential, Credentials, Fault, Grant, Hosts, KeyField, Manifest,
    Provider, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
use secrecy::ExposeSecret;
use serde_json::Value;

const HOSTS: Hosts = Hosts {
    authorize: "",
    token: "",
    revoke: "",
    api: "https://api.sendgrid.com",
};

pub static MANIFEST: Manifest = Manifest {
    name: "sendgrid",
    title: "SendGrid",
    category: Category::EmailMarketing,
    production: HOSTS,
    // There is none; a request can be sent in sandbox mode.
    sandbox: HOSTS,
    credentials: &[Credential {
        member: "api_key",
        variable: "SENDGRID_API_KEY",
        required: false,
    }],
    consent: Consent::Keys(&[KeyField {
        name: "api_key",
        label: "API key",
        hint: "In SendGrid: Settings, API Keys, Create API Key. It is shown once and begins with SG.",
        choices: &[],
        secret: true,
    }]),
    api_domains: &[],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct SendGrid;

fn get(site: &Site, path: &str) -> Request {
    let mut url = site.api.clone();
    url.set_path(path);
    Request::new(Method::Get, url).header("accept", "application/json")
}

impl Provider for SendGrid {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn authorize(&self, request: Request, grant: &Grant) -> Request {
        request.authorized(Authorization::Bearer(grant.key("api_key")))
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        vec![get(site, "/v3/scopes"), get(site, "/v3/user/username")]
    }

    fn read_account(
        &self,
        _: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault> {
        let [scopes, user] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        json_answer(MANIFEST.title, scopes)?;
        let key = grant.key("api_key");
        let half = key.expose_secret().split('.').nth(1).unwrap_or_default();
        let user = match json_answer(MANIFEST.title, user) {
            // A key may lack the right to read its own user; then its public half names the account.
            Err(Fault::Refused { .. }) => Value::Null,
            // Any other failure must not give the account a second name.
            other => other?,
        };
        let id = match &user["user_id"] {
            Value::Number(number) => number.to_string(),
            _ => half.to_owned(),
        };
        if id.is_empty() {
            return Err(super::incomplete(MANIFEST.title));
        }
        let name = user["username"].as_str().map(str::to_owned);
        Ok(Account {
            id,
            name,
            api: None,
            reference: None,
        })
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        let key = credentials.get("api_key")?.clone();
        Some(get(site, "/v3/scopes").authorized(Authorization::Bearer(key)))
    }
}
