//! Twilio SendGrid. It has no OAuth for others: the merchant pastes an API key. Facts from SendGrid's
//! OpenAPI descriptions (`tsg_scopes_v3`, `tsg_user_v3`).

mod webhook;

use super::hooks::Hooks;
use super::{
    Account, Category, Consent, Credential, Credentials, Fault, Grant, Hosts, KeyField, Manifest,
    Provider, Site, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
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
    credentials: &[
        Credential {
            member: "api_key",
            variable: "SENDGRID_API_KEY",
            required: false,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_key",
            variable: "SENDGRID_WEBHOOK_KEY",
            required: false,
        },
    ],
    consent: Consent::Keys(&[KeyField {
        name: "api_key",
        label: "API key",
        hint: "In SendGrid: Settings, API Keys, Create API Key. With Restricted Access, User Account has \
               to be ticked for reading (user.username.read): it tells whose key this is. The key is \
               shown once and begins with SG.",
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

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn authorize(&self, request: Request, grant: &Grant) -> Request {
        request.authorized(Authorization::Bearer(grant.key("api_key")))
    }

    fn account_requests(&self, site: &Site, _: &Grant) -> Vec<Request> {
        vec![get(site, "/v3/scopes"), get(site, "/v3/user/username")]
    }

    fn read_account(&self, _: &Site, _: &Grant, answers: &[Response]) -> Result<Account, Fault> {
        let [scopes, user] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        json_answer(MANIFEST.title, scopes)?;
        // Nothing else tells whose key it is: without the account one merchant could connect it beside
        // another, and a new key of the same account would be taken for another account.
        if user.status == 403 {
            return Err(Fault::Refused {
                code: "missing_permission".to_owned(),
                detail:
                    "SendGrid does not let this key tell whose it is; edit the key there, tick \
                         User Account for reading (user.username.read), or use one with full access"
                        .to_owned(),
            });
        }
        let user = json_answer(MANIFEST.title, user)?;
        let Value::Number(id) = &user["user_id"] else {
            return Err(super::incomplete(MANIFEST.title));
        };
        Ok(Account {
            id: id.to_string(),
            name: user["username"].as_str().map(str::to_owned),
            api: None,
            reference: None,
        })
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        let key = credentials.get("api_key")?.clone();
        Some(get(site, "/v3/scopes").authorized(Authorization::Bearer(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(key: &str, scopes: u16, user: u16, body: &Value) -> Result<Account, Fault> {
        let site = MANIFEST.site("production").unwrap();
        let grant = Grant {
            access: "".into(),
            refresh: None,
            keys: [("api_key".to_owned(), key.into())].into(),
            facts: [].into(),
        };
        let answer = |status, body: &Value| Response {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        };
        let scopes = answer(scopes, &json!({ "scopes": ["mail.send"] }));
        SendGrid.read_account(&site, &grant, &[scopes, answer(user, body)])
    }

    #[test]
    fn an_account_has_one_id_whatever_its_key() {
        let user = json!({ "username": "shop", "user_id": 7 });
        for key in ["SG.a.b", "SG.c.d"] {
            let account = read(key, 200, 200, &user).unwrap();
            assert_eq!(
                (account.id.as_str(), account.name.as_deref()),
                ("7", Some("shop"))
            );
        }
        // A key that may not tell it is refused with what to do, and named after nothing else.
        let refused = read("SG.a.b", 200, 403, &json!({ "errors": [] })).unwrap_err();
        let Fault::Refused { detail, .. } = refused else {
            panic!("{refused:?}");
        };
        assert!(detail.contains("user.username.read"), "{detail}");
        let Consent::Keys([field]) = &MANIFEST.consent else {
            panic!("one key");
        };
        assert!(
            field.hint.contains("user.username.read"),
            "said beforehand too"
        );
        for body in [
            json!({}),
            json!({ "user_id": "" }),
            json!({ "username": "shop" }),
        ] {
            assert!(
                matches!(read("SG.a.b", 200, 200, &body), Err(Fault::Later { .. })),
                "{body}"
            );
        }
        assert_eq!(read("SG.a.b", 401, 403, &user), Err(Fault::Unauthorized));
        assert_eq!(read("SG.a.b", 200, 401, &user), Err(Fault::Unauthorized));
    }
}
