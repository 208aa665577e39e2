//! Square Loyalty: Square's OAuth with the scopes of its loyalty programme. An application of its own
//! is best, since Square takes back all grants of a seller for an application at once.

mod webhook;

use super::hooks::Hooks;
use super::{
    Account, Category, ClientAuth, Credential, Credentials, Fault, Grant, Manifest, Provider,
    Revocation, Site, square,
};
use crate::model::http::{Request, Response};
use crate::sync::budget::Limits;
use serde_json::Value;

pub static MANIFEST: Manifest = Manifest {
    name: "square_loyalty",
    title: "Square Loyalty",
    category: Category::Loyalty,
    production: square::PRODUCTION,
    sandbox: square::SANDBOX,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "SQUARE_LOYALTY_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "SQUARE_LOYALTY_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_key",
            variable: "SQUARE_LOYALTY_WEBHOOK_KEY",
            required: false,
        },
    ],
    consent: square::code_flow(&[
        "MERCHANT_PROFILE_READ",
        "CUSTOMERS_READ",
        "CUSTOMERS_WRITE",
        "ORDERS_READ",
        "LOYALTY_READ",
        "LOYALTY_WRITE",
    ]),
    api_domains: &[],
    shares_app_with: Some("square"),
    limits: Limits::NONE,
};

pub struct SquareLoyalty;

impl Provider for SquareLoyalty {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        square::account_requests(site)
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        square::read_account(MANIFEST.title, answers)
    }

    fn token_error(&self, status: u16, answer: &Value) -> Option<&'static str> {
        square::token_error(status, answer)
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        square::revoke(revocation)
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Json,
        ))
    }
}
