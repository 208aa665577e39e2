//! The rules of every vendor, driven in process. What is expected stands in tables of these tests,
//! apart from the rules that the engine follows.

mod codes;
mod control;
mod refresh;
mod vendors;

use std::time::Duration;

use axum::http::{Method, Request, Response, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;
use url::form_urlencoded::Serializer;

use super::{Clock, Options, Vendor};

const REDIRECT: &str = "http://localhost:9/callback";
const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters";
const START: i64 = 1_767_225_600;

/// How a vendor is asked.
struct Ways {
    name: &'static str,
    authorize: &'static str,
    token: &'static str,
    scope: &'static str,
    /// A call that any live access token opens.
    probe: &'static str,
}

const WAYS: [Ways; 8] = [
    Ways {
        name: "xero",
        authorize: "/identity/connect/authorize",
        token: "/connect/token",
        scope: "openid offline_access accounting.settings.read",
        probe: "/connections",
    },
    Ways {
        name: "salesforce",
        authorize: "/services/oauth2/authorize",
        token: "/services/oauth2/token",
        scope: "api refresh_token",
        probe: "/services/data/v68.0/limits",
    },
    Ways {
        name: "hubspot",
        authorize: "/oauth/authorize",
        token: "/oauth/2026-03/token",
        scope: "oauth crm.objects.contacts.read",
        probe: "/account-info/2026-03/details",
    },
    Ways {
        name: "mailchimp",
        authorize: "/oauth2/authorize",
        token: "/oauth2/token",
        scope: "",
        probe: "/3.0/ping",
    },
    Ways {
        name: "stripe",
        authorize: "/oauth/authorize",
        token: "/oauth/token",
        scope: "read_write",
        probe: "/v1/account",
    },
    Ways {
        name: "paypal",
        authorize: "/signin/authorize",
        token: "/v1/oauth2/token",
        scope: "openid profile",
        probe: "/v1/identity/openidconnect/userinfo",
    },
    Ways {
        name: "square",
        authorize: "/oauth2/authorize",
        token: "/oauth2/token",
        scope: "MERCHANT_PROFILE_READ ORDERS_READ",
        probe: "/v2/merchants/me",
    },
    Ways {
        name: "square_loyalty",
        authorize: "/oauth2/authorize",
        token: "/oauth2/token",
        scope: "MERCHANT_PROFILE_READ LOYALTY_READ LOYALTY_WRITE",
        probe: "/v2/merchants/me",
    },
];

fn vendor(name: &str) -> Vendor {
    Vendor::new(
        name,
        Options {
            clock: Clock::Fixed(DateTime::from_timestamp(START, 0).unwrap()),
            ..Options::default()
        },
    )
    .unwrap()
}

async fn send(
    vendor: &Vendor,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Vec<u8>> {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, "vendor.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.as_bytes().to_vec()).unwrap();
    vendor.handle(request).await.expect("an answer")
}

fn read(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(response.body());
        panic!("no JSON: {} {text}", response.status())
    })
}

fn form(fields: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A vendor with one app, and the ways to it.
struct App {
    ways: &'static Ways,
    vendor: Vendor,
}

/// Fields of a callback.
type Back = Vec<(String, String)>;

fn field<'a>(back: &'a Back, name: &str) -> Option<&'a str> {
    let found = back.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

impl App {
    async fn at(name: &str) -> Self {
        let ways = WAYS.iter().find(|ways| ways.name == name).unwrap();
        let app = Self {
            ways,
            vendor: vendor(name),
        };
        for (id, secret) in [("app", "secret"), ("other", "hidden")] {
            let client =
                json!({"client_id": id, "client_secret": secret, "redirect_uris": [REDIRECT]});
            app.control(Method::POST, "clients", client).await;
        }
        app
    }

    async fn control(&self, method: Method, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let target = format!("/_control/{path}");
        let answer = send(&self.vendor, method, &target, &[], &body).await;
        assert_eq!(answer.status(), 200, "{path}: {:?}", read(&answer));
        read(&answer)
    }

    fn wait(&self, seconds: i64) {
        self.vendor
            .advance(Duration::from_secs(seconds.unsigned_abs()));
    }

    fn challenged(&self) -> bool {
        self.ways.name == "salesforce"
    }

    /// What an app sends a browser with, and what the form adds to it.
    fn asked<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let mut fields = vec![
            ("client_id", "app"),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", self.ways.scope),
            ("state", "st"),
        ];
        for (name, value) in more {
            fields.retain(|(one, _)| one != name);
            fields.push((name, value));
        }
        fields
    }

    async fn decide(&self, more: &[(&str, &str)]) -> Response<Vec<u8>> {
        let challenge = challenge();
        let mut fields = self.asked(more);
        if self.challenged() && !fields.iter().any(|(name, _)| *name == "code_challenge") {
            fields.push(("code_challenge", &challenge));
        }
        let target = format!("{}/decision", self.ways.authorize);
        send(&self.vendor, Method::POST, &target, &[], &form(&fields)).await
    }

    async fn back(&self, more: &[(&str, &str)]) -> Back {
        let answer = self.decide(more).await;
        assert_eq!(answer.status(), 302, "{}", self.ways.name);
        let target = answer.headers()["location"].to_str().unwrap();
        assert!(target.starts_with(REDIRECT), "{target}");
        Url::parse(target)
            .unwrap()
            .query_pairs()
            .into_owned()
            .collect()
    }

    async fn code(&self) -> String {
        let back = self.back(&[("decision", "approve")]).await;
        assert_eq!(field(&back, "state"), Some("st"));
        field(&back, "code").expect("a code").to_owned()
    }

    /// A token request of the app, or of whomever `more` names.
    async fn token(&self, fields: &[(&str, &str)], more: &[(&str, &str)]) -> (u16, Value) {
        let mut all = vec![("client_id", "app"), ("client_secret", "secret")];
        for (name, value) in fields.iter().chain(more) {
            all.retain(|(one, _)| one != name);
            // An empty value takes a field away.
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        let body = if self.ways.name.starts_with("square") {
            let body: serde_json::Map<String, Value> = all
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            Value::Object(body).to_string()
        } else {
            form(&all)
        };
        let answer = send(&self.vendor, Method::POST, self.ways.token, &[], &body).await;
        (answer.status().as_u16(), read(&answer))
    }

    async fn exchange(&self, code: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let verifier = if self.challenged() { VERIFIER } else { "" };
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", verifier),
        ];
        self.token(&fields, more).await
    }

    async fn refresh(&self, token: &Value) -> (u16, Value) {
        let token = token.as_str().expect("a refresh token");
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        self.token(&fields, &[]).await
    }

    /// A connection, as its token answer.
    async fn connect(&self) -> Value {
        self.connect_as(&[]).await
    }

    async fn connect_as(&self, more: &[(&str, &str)]) -> Value {
        let mut fields = vec![("decision", "approve")];
        fields.extend(more);
        let back = self.back(&fields).await;
        let code = field(&back, "code").expect("a code");
        let (status, body) = self.exchange(code, &[]).await;
        assert_eq!(status, 200, "{}: {body}", self.ways.name);
        body
    }

    async fn get(&self, path: &str, token: &Value) -> (u16, Value) {
        let bearer = format!("Bearer {}", token.as_str().expect("an access token"));
        let headers = [("authorization", bearer.as_str())];
        let answer = send(&self.vendor, Method::GET, path, &headers, "").await;
        (answer.status().as_u16(), read(&answer))
    }

    /// The status that the access token of this answer gets.
    async fn probe(&self, issued: &Value) -> u16 {
        self.get(self.ways.probe, &issued["access_token"]).await.0
    }
}

fn challenge() -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))
}

/// The name of an error, wherever the vendor puts it.
fn name(body: &Value) -> &str {
    body["error"]
        .as_str()
        .or(body["errors"][0]["code"].as_str())
        .unwrap_or_else(|| panic!("no error in {body}"))
}

#[test]
fn the_order_of_the_vendors_is_the_order_of_their_ports() {
    let names: Vec<&str> = crate::standins::names().collect();
    assert_eq!(
        names,
        [
            "quickbooks",
            "xero",
            "salesforce",
            "hubspot",
            "mailchimp",
            "sendgrid",
            "stripe",
            "paypal",
            "square",
            "square_loyalty",
            "voucherify",
        ]
    );
}
