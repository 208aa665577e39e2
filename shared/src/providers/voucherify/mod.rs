//! Voucherify. Its keys are a project's: the merchant pastes both and says in which cluster the
//! project lives. Facts from <https://docs.voucherify.io/guides/authentication>.

mod webhook;

use super::hooks::Hooks;
use super::{
    Account, Category, Consent, Credential, Credentials, Fault, Grant, Hosts, KeyField, Manifest,
    Provider, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
use secrecy::ExposeSecret;
use url::Url;

const HOSTS: Hosts = Hosts {
    authorize: "",
    token: "",
    revoke: "",
    api: "https://api.voucherify.io",
};

pub static MANIFEST: Manifest = Manifest {
    name: "voucherify",
    title: "Voucherify",
    category: Category::Loyalty,
    production: HOSTS,
    // A sandbox is a project with keys of its own.
    sandbox: HOSTS,
    credentials: &[
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_secret",
            variable: "VOUCHERIFY_WEBHOOK_SECRET",
            required: false,
        },
    ],
    consent: Consent::Keys(&[
        KeyField {
            name: "region",
            label: "Region",
            hint: "The region of your project, as Voucherify's address shows it.",
            choices: &["eu", "us1", "as1"],
            secret: false,
        },
        KeyField {
            name: "app_id",
            label: "Application ID",
            hint: "In Voucherify: Project settings, Server-side keys.",
            choices: &[],
            secret: false,
        },
        KeyField {
            name: "app_token",
            label: "Secret key",
            hint: "It stands beside the application ID.",
            choices: &[],
            secret: true,
        },
    ]),
    api_domains: &["voucherify.io"],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct Voucherify;

/// Where the project's cluster is.
fn cluster(site: &Site, grant: &Grant) -> Url {
    let region = grant.key("region");
    let url = match region.expose_secret() {
        "us1" => "https://us1.api.voucherify.io",
        "as1" => "https://as1.api.voucherify.io",
        _ => HOSTS.api,
    };
    site.at(url).unwrap_or_else(|| site.api.clone())
}

impl Provider for Voucherify {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn authorize(&self, request: Request, grant: &Grant) -> Request {
        request.authorized(Authorization::Headers(vec![
            ("x-app-id", grant.key("app_id")),
            ("x-app-token", grant.key("app_token")),
        ]))
    }

    fn account_requests(&self, site: &Site, grant: &Grant) -> Vec<Request> {
        let mut url = cluster(site, grant);
        url.set_path("/v1/campaigns");
        url.set_query(Some("limit=1"));
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(
        &self,
        site: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        json_answer(MANIFEST.title, answer)?;
        // Nothing that a pair of keys opens names its project: only the management API does, which has
        // keys of its own. So a pair stands for the project, although a project may have several
        // (<https://docs.voucherify.io/docs/authentication>), and two of one project are two accounts.
        let id = grant.key("app_id").expose_secret().to_owned();
        Ok(Account {
            name: None,
            api: Some(cluster(site, grant)),
            reference: None,
            id,
        })
    }

    fn credentials_request(&self, _: &Site, _: &Credentials) -> Option<Request> {
        None
    }
}
