//! Salesforce. Facts from Salesforce's help on external client apps and the OAuth web server flow
//! (<https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_web_server_flow.htm>).

use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, json_answer,
};
use crate::model::http::{Method, Request, Response};
use crate::sync::budget::Limits;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use url::Url;

pub static MANIFEST: Manifest = Manifest {
    name: "salesforce",
    title: "Salesforce",
    category: Category::Crm,
    production: Hosts {
        authorize: "https://login.salesforce.com/services/oauth2/authorize",
        token: "https://login.salesforce.com/services/oauth2/token",
        revoke: "https://login.salesforce.com/services/oauth2/revoke",
        api: "https://login.salesforce.com",
    },
    sandbox: Hosts {
        authorize: "https://test.salesforce.com/services/oauth2/authorize",
        token: "https://test.salesforce.com/services/oauth2/token",
        revoke: "https://test.salesforce.com/services/oauth2/revoke",
        api: "https://test.salesforce.com",
    },
    credentials: &[
        Credential {
            member: "client_id",
            variable: "SALESFORCE_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "SALESFORCE_CLIENT_SECRET",
            required: true,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &["api", "refresh_token", "id"],
        // Asked of every partner's app since 2026.
        pkce: true,
        client_auth: ClientAuth::Form,
        authorize_extra: &[],
        callback_parameters: &[],
        account_can_leave: false,
        // A user has at most five for one application; the sixth ends the oldest without a word.
        grants_add_up: true,
        answer_members: &["instance_url"],
        issuer: None,
        // No answer says it; two hours are the default of an organisation's session.
        access: AccessLife::Answered(TimeDelta::hours(2)),
        // Using a token a second time takes the whole grant back, so there is no grace.
        refresh: Refresh::Renewing {
            idle: Some(TimeDelta::days(30)),
            every: None,
            grace: None,
        },
    }),
    // An organisation has a host of its own, and may move to another.
    api_domains: &["salesforce.com", "force.com", "cloudforce.com"],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct Salesforce;

impl Provider for Salesforce {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        let mut url = site.token.clone();
        url.set_path("/services/oauth2/userinfo");
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
        // The one place of Salesforce's that refuses a dead token so, and not with 401.
        if answer.status == 403 && answer.body.ends_with(b"_OAuth_Token") {
            return Err(Fault::Unauthorized);
        }
        let body = json_answer(MANIFEST.title, answer)?;
        let api: Option<Url> = grant.fact("instance_url").parse().ok();
        match (body["organization_id"].as_str(), api) {
            (Some(id), Some(api)) => Ok(Account {
                id: id.to_owned(),
                name: api.host_str().map(str::to_owned),
                api: Some(api),
                reference: None,
            }),
            _ => Err(super::incomplete(MANIFEST.title)),
        }
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        let grant = revocation.grant;
        // The refresh token takes its access tokens along.
        let token = grant.refresh.as_ref().unwrap_or(&grant.access);
        let request = Request::new(Method::Post, revocation.site.revoke.clone());
        Some(request.form(&[("token", token.expose_secret())]))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Form,
        ))
    }
}
