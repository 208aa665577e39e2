//! PayPal, by Log in with PayPal: it proves which account the merchant has. What may be done there
//! comes from PayPal's onboarding of sellers, with the platform's own token. Facts from
//! <https://developer.paypal.com/docs/log-in-with-paypal/integrate/>.

mod webhook;

use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
use chrono::TimeDelta;

pub static MANIFEST: Manifest = Manifest {
    name: "paypal",
    title: "PayPal",
    category: Category::Payments,
    production: Hosts {
        authorize: "https://www.paypal.com/signin/authorize",
        token: "https://api-m.paypal.com/v1/oauth2/token",
        revoke: "",
        api: "https://api-m.paypal.com",
    },
    sandbox: Hosts {
        authorize: "https://www.sandbox.paypal.com/signin/authorize",
        token: "https://api-m.sandbox.paypal.com/v1/oauth2/token",
        revoke: "",
        api: "https://api-m.sandbox.paypal.com",
    },
    credentials: &[
        Credential {
            member: "client_id",
            variable: "PAYPAL_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "PAYPAL_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_id",
            variable: "PAYPAL_WEBHOOK_ID",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &[
            "openid",
            "profile",
            "email",
            "https://uri.paypal.com/services/paypalattributes",
        ],
        pkce: false,
        client_auth: ClientAuth::Basic,
        authorize_extra: &[],
        callback_parameters: &[],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: None,
        access: AccessLife::Answered(TimeDelta::hours(8)),
        refresh: Refresh::Renewing {
            idle: Some(TimeDelta::days(180)),
            every: None,
            grace: None,
        },
    }),
    api_domains: &["paypal.com"],
    shares_app_with: None,
    limits: Limits::NONE,
};

pub struct PayPal;

impl Provider for PayPal {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        let mut url = site.api.clone();
        url.set_path("/v1/identity/openidconnect/userinfo");
        url.set_query(Some("schema=openid"));
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let id = body["payer_id"]
            .as_str()
            .or_else(|| body["user_id"].as_str());
        // A user's id is an address whose last part tells users apart.
        let id = id.and_then(|id| id.rsplit('/').next()).unwrap_or_default();
        if id.is_empty() {
            return Err(super::incomplete(MANIFEST.title));
        }
        Ok(Account {
            id: id.to_owned(),
            name: body["name"].as_str().map(str::to_owned),
            api: None,
            reference: None,
        })
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        let authorization = Authorization::Basic {
            user: credentials.text("client_id").to_owned(),
            password: credentials.get("client_secret")?.clone(),
        };
        let request = Request::new(Method::Post, site.token.clone()).authorized(authorization);
        Some(request.form(&[("grant_type", "client_credentials")]))
    }
}
