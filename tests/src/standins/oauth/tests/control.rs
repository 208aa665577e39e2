//! The control port, faults, and what survives a restart.

use std::path::PathBuf;

use axum::http::{Method, Request};
use serde_json::{Value, json};

use super::{App, field, read, send};
use crate::standins::Lost;
use crate::standins::oauth::{Clock, Options, Vendor, names};

async fn raw(vendor: &Vendor, target: &str) -> Result<(u16, String), Lost> {
    let request = Request::builder().uri(target).body(Vec::new()).unwrap();
    let answer = vendor.handle(request).await?;
    let text = String::from_utf8(answer.body().clone()).unwrap();
    Ok((answer.status().as_u16(), text))
}

#[tokio::test]
async fn a_refresh_whose_answer_is_lost_has_turned_the_token() {
    for (kind, effect) in [
        ("status_before_effect", false),
        ("reset_before_effect", false),
        ("timeout_before_effect", false),
        ("throttle", false),
        ("status_after_effect", true),
        ("reset_after_effect", true),
        ("timeout_after_effect", true),
        ("truncated_body", true),
        ("empty_body", true),
        ("html_body", true),
    ] {
        let app = App::at("salesforce").await;
        let issued = app.connect().await;
        let rule = json!({"kind": kind, "match": {"path_contains": "/services/oauth2/token"}});
        app.control(Method::POST, "faults", rule).await;
        let body = super::form(&[
            ("grant_type", "refresh_token"),
            ("refresh_token", issued["refresh_token"].as_str().unwrap()),
            ("client_id", "app"),
            ("client_secret", "secret"),
        ]);
        let request = Request::builder()
            .method(Method::POST)
            .uri(app.ways.token)
            .body(body.into_bytes())
            .unwrap();
        let met = match app.vendor.handle(request).await {
            Ok(answer) => answer.status().as_u16().to_string(),
            Err(Lost::TimedOut) => "timeout".to_owned(),
            Err(Lost::Reset) => "reset".to_owned(),
            Err(Lost::Truncated { status, body }) => {
                assert!(serde_json::from_slice::<Value>(&body).is_err());
                format!("truncated {status}")
            }
        };
        let expected = match kind {
            "status_before_effect" | "status_after_effect" => "503",
            // Salesforce knows no 429.
            "throttle" => "403",
            "reset_before_effect" | "reset_after_effect" => "reset",
            "timeout_before_effect" | "timeout_after_effect" => "timeout",
            "truncated_body" => "truncated 200",
            _ => "200",
        };
        assert_eq!(met, expected, "{kind}");
        let (status, _) = app.refresh(&issued["refresh_token"]).await;
        assert_eq!(status == 400, effect, "{kind}");
    }
}

#[tokio::test]
async fn answers_with_another_field_without_one_or_without_a_body() {
    let app = App::at("xero").await;
    let first = app.connect().await;
    for (kind, missing) in [
        ("without_field", "expires_in"),
        ("without_field", "refresh_token"),
    ] {
        let rule = json!({"kind": kind, "field": missing, "match": {"path_contains": "token"}});
        app.control(Method::POST, "faults", rule).await;
        let (status, body) = app.refresh(&first["refresh_token"]).await;
        assert_eq!((status, body.get(missing)), (200, None));
        assert!(body.get("access_token").is_some());
    }
    let rule = json!({
        "kind": "with_field", "field": "expires_in", "value": 7, "match": {"path_contains": "token"},
    });
    app.control(Method::POST, "faults", rule).await;
    let (status, body) = app.refresh(&first["refresh_token"]).await;
    assert_eq!((status, &body["expires_in"]), (200, &json!(7)));
    for (rule, expected) in [
        (json!({"kind": "empty_body"}), (200, "")),
        (
            json!({"kind": "html_body", "status": 502}),
            (502, "<!doctype html>"),
        ),
        (json!({"kind": "throttle", "retry_after": 7}), (429, "")),
    ] {
        app.control(Method::POST, "faults", rule).await;
        let path = "/.well-known/openid-configuration";
        let (status, text) = raw(&app.vendor, path).await.unwrap();
        assert_eq!(status, expected.0);
        assert!(text.starts_with(expected.1));
    }
}

#[tokio::test]
async fn every_vendor_has_its_own_words_for_too_many_calls_and_for_trouble() {
    for vendor in names() {
        let vendor = super::vendor(vendor);
        for (rule, expected) in [
            (json!({"kind": "throttle", "retry_after": 3}), [429, 403]),
            (
                json!({"kind": "status_before_effect", "status": 500}),
                [500, 500],
            ),
        ] {
            let body = rule.to_string();
            send(&vendor, Method::POST, "/_control/faults", &[], &body).await;
            let answer = send(&vendor, Method::GET, "/", &[], "").await;
            assert!(expected.contains(&answer.status().as_u16()));
            assert_eq!(
                answer.headers().contains_key("retry-after"),
                expected[0] == 429
            );
        }
        let answer = send(&vendor, Method::GET, "/", &[], "").await;
        assert_eq!(answer.status(), 404);
    }
}

#[tokio::test]
async fn requests_are_counted_by_path_and_outcome() {
    let app = App::at("hubspot").await;
    let issued = app.connect().await;
    app.refresh(&issued["refresh_token"]).await;
    app.refresh(&json!("nothing")).await;
    let counts = app.control(Method::GET, "requests", Value::Null).await;
    let expected = json!({
        "POST /oauth/authorize/decision": {"302": 1},
        "POST /oauth/2026-03/token": {"200": 2, "400": 1},
    });
    assert_eq!(counts, json!({"total": 4, "paths": expected}));
    app.control(Method::DELETE, "requests", Value::Null).await;
    let counts = app.control(Method::GET, "requests", Value::Null).await;
    assert_eq!(counts["total"], json!(0));
}

#[tokio::test]
async fn grants_show_what_of_them_is_alive() {
    let app = App::at("xero").await;
    let first = app.connect().await;
    let (_, second) = app.refresh(&first["refresh_token"]).await;
    let grants = app.control(Method::GET, "grants", Value::Null).await;
    assert_eq!(grants.as_array().unwrap().len(), 1);
    assert_eq!(
        grants[0]["refresh_tokens"],
        json!([second["refresh_token"]])
    );
    assert_eq!(grants[0]["access_tokens"].as_array().unwrap().len(), 2);
    let none = json!({});
    app.control(Method::POST, "expire_access_tokens", none.clone())
        .await;
    assert_eq!(app.probe(&second).await, 401);
    app.control(Method::POST, "revoke", none).await;
    let grants = app.control(Method::GET, "grants", Value::Null).await;
    assert_eq!(grants[0]["refresh_tokens"], json!([]));
    assert_eq!(grants[0]["revoked"], json!(true));
}

#[tokio::test]
async fn accounts_and_connections_can_be_made_without_a_page() {
    let app = App::at("square").await;
    let account = json!({"id": "ML7", "name": "Third Shop", "user": "ann"});
    app.control(Method::POST, "accounts", account).await;
    let grant = json!({"account": "ML7", "client_id": "app"});
    let issued = app.control(Method::POST, "grants", grant).await;
    assert_eq!(issued["merchant_id"], json!("ML7"));
    assert_eq!(app.probe(&issued).await, 200);
    let back = app
        .back(&[("decision", "approve"), ("account", "ML7")])
        .await;
    let (_, issued) = app.exchange(field(&back, "code").unwrap(), &[]).await;
    assert_eq!(issued["merchant_id"], json!("ML7"));
    let answer = app
        .decide(&[("decision", "approve"), ("account", "nobody")])
        .await;
    assert_eq!(answer.status(), 400);
}

#[tokio::test]
async fn the_app_that_is_always_there_may_go_anywhere_until_it_registers_an_address() {
    let app = App::at("stripe").await;
    let fields = |redirect: &'static str| {
        [
            ("decision", "approve"),
            ("client_id", "standin-client"),
            ("redirect_uri", redirect),
        ]
    };
    let answer = app.decide(&fields("http://localhost:1/x")).await;
    assert_eq!(answer.status(), 302);
    let client = json!({
        "client_id": "standin-client",
        "client_secret": "standin-secret",
        "redirect_uris": ["http://localhost:1/y"],
    });
    app.control(Method::POST, "clients", client).await;
    assert_eq!(
        app.decide(&fields("http://localhost:1/x")).await.status(),
        400
    );
    assert_eq!(
        app.decide(&fields("http://localhost:1/y")).await.status(),
        302
    );
}

#[tokio::test]
async fn the_clock_moves_by_the_control_port_too() {
    let app = App::at("xero").await;
    let before = app.control(Method::GET, "clock", Value::Null).await["now"].clone();
    app.control(Method::POST, "clock", json!({"advance_seconds": 90}))
        .await;
    let after = app.control(Method::GET, "clock", Value::Null).await["now"].clone();
    assert_eq!(after.as_i64().unwrap() - before.as_i64().unwrap(), 90);
}

/// A folder of a test's own that goes with it.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn grants_survive_a_restart() {
    let name = format!("crossdock-standins-{}", std::process::id());
    let folder = Folder(std::env::temp_dir().join(name));
    let options = || Options {
        state: Some(folder.0.clone()),
        clock: Clock::System,
        seed: 7,
    };
    let mut issued = Value::Null;
    for round in 0..2 {
        let vendor = Vendor::new("hubspot", options()).unwrap();
        if round == 0 {
            let answer = send(&vendor, Method::POST, "/_control/grants", &[], "").await;
            issued = read(&answer);
        }
        let bearer = format!("Bearer {}", issued["access_token"].as_str().unwrap());
        let headers = [("authorization", bearer.as_str())];
        let path = "/account-info/v3/details";
        let answer = send(&vendor, Method::GET, path, &headers, "").await;
        assert_eq!(answer.status(), 200);
    }
}

#[test]
fn a_vendor_that_is_not_there() {
    let error = Vendor::new("acme", Options::default()).err().unwrap();
    assert!(
        error.to_string().contains("quickbooks, xero, salesforce"),
        "{error}"
    );
}
