use std::time::Duration;

use axum::http::{Method, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::Serializer;

use super::{Caller, control, read, send, vendor};
use crate::standins::quickbooks::{DEFAULT_REALM, Quickbooks};

const REDIRECT: &str = "http://localhost:9/callback";

async fn app() -> Quickbooks {
    let vendor = vendor();
    let client =
        json!({"client_id": "app", "client_secret": "secret", "redirect_uris": [REDIRECT]});
    control(&vendor, Method::POST, "clients", client).await;
    vendor
}

fn form(fields: &[(&str, &str)]) -> String {
    Serializer::new(String::new()).extend_pairs(fields).finish()
}

async fn decide(vendor: &Quickbooks, redirect: &str, decision: &str) -> Response<Vec<u8>> {
    let body = form(&[
        ("client_id", "app"),
        ("redirect_uri", redirect),
        ("scope", "com.intuit.quickbooks.accounting"),
        ("state", "st"),
        ("realm_id", DEFAULT_REALM),
        ("decision", decision),
    ]);
    send(vendor, Method::POST, "/connect/oauth2/decision", &[], &body)
        .await
        .expect("an answer")
}

async fn code(vendor: &Quickbooks) -> String {
    let answer = decide(vendor, REDIRECT, "approve").await;
    assert_eq!(answer.status(), 302);
    let target = answer.headers()["location"].to_str().expect("text");
    let target = Url::parse(target).expect("an address");
    let names: Vec<_> = target
        .query_pairs()
        .map(|(name, _)| name.into_owned())
        .collect();
    assert_eq!(names, ["code", "state", "realmId"]);
    target.query_pairs().next().expect("a code").1.into_owned()
}

async fn token(vendor: &Quickbooks, fields: &[(&str, &str)]) -> (u16, Value) {
    let basic = format!("Basic {}", STANDARD.encode("app:secret"));
    let answer = send(
        vendor,
        Method::POST,
        "/oauth2/v1/tokens/bearer",
        &[("authorization", &basic)],
        &form(fields),
    )
    .await
    .expect("an answer");
    assert!(answer.headers().contains_key("intuit_tid"));
    (answer.status().as_u16(), read(&answer))
}

async fn exchange(vendor: &Quickbooks, code: &str) -> (u16, Value) {
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT),
    ];
    token(vendor, &fields).await
}

async fn refresh(vendor: &Quickbooks, value: &Value) -> (u16, Value) {
    let value = value.as_str().expect("a token");
    token(
        vendor,
        &[("grant_type", "refresh_token"), ("refresh_token", value)],
    )
    .await
}

#[tokio::test]
async fn a_code_dies_after_ten_minutes() {
    let vendor = app().await;
    let code = code(&vendor).await;
    vendor.advance(Duration::from_secs(600));
    let (status, body) = exchange(&vendor, &code).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
}

#[tokio::test]
async fn a_code_used_twice_takes_its_tokens_with_it() {
    let vendor = app().await;
    let code = code(&vendor).await;
    let (status, first) = exchange(&vendor, &code).await;
    assert_eq!(status, 200);
    assert_eq!(exchange(&vendor, &code).await.0, 400);
    assert_eq!(refresh(&vendor, &first["refresh_token"]).await.0, 400);
}

#[tokio::test]
async fn a_code_belongs_to_its_redirect() {
    let vendor = app().await;
    let code = code(&vendor).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", "http://localhost:9/other"),
    ];
    assert_eq!(token(&vendor, &fields).await.0, 400);
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered() {
    let vendor = app().await;
    let answer = decide(&vendor, "http://localhost:9/callback/", "approve").await;
    assert_eq!(answer.status(), 400);
    assert!(!answer.headers().contains_key("location"));
}

#[tokio::test]
async fn a_refusal_names_its_reason() {
    let vendor = app().await;
    let answer = decide(&vendor, REDIRECT, "deny").await;
    assert_eq!(
        answer.headers()["location"],
        "http://localhost:9/callback?error=access_denied&state=st"
    );
}

#[tokio::test]
async fn the_refresh_token_turns_over_once_a_day() {
    let vendor = app().await;
    let code = code(&vendor).await;
    let (_, first) = exchange(&vendor, &code).await;
    let old = first["refresh_token"].clone();
    assert_eq!(refresh(&vendor, &old).await.1["refresh_token"], old);
    vendor.advance(Duration::from_secs(24 * 3600));
    let (_, turned) = refresh(&vendor, &old).await;
    assert_ne!(turned["refresh_token"], old);
    assert_eq!(refresh(&vendor, &old).await.0, 400);
    assert_eq!(refresh(&vendor, &turned["refresh_token"]).await.0, 200);
}

#[tokio::test]
async fn a_refresh_token_that_is_not_used_dies() {
    let vendor = app().await;
    let code = code(&vendor).await;
    let (_, first) = exchange(&vendor, &code).await;
    vendor.advance(Duration::from_secs(8_726_400));
    assert_eq!(refresh(&vendor, &first["refresh_token"]).await.0, 400);
}

#[tokio::test]
async fn tokens_are_refused_in_the_gateways_shapes() {
    let caller = Caller::new().await;
    let path = format!("/v3/company/{DEFAULT_REALM}/preferences");
    let missing = send(
        &caller.vendor,
        Method::GET,
        &path,
        &[("accept", "application/json")],
        "",
    )
    .await
    .expect("an answer");
    assert_eq!(missing.status(), 401);
    assert!(missing.body().starts_with(b"<?xml"));

    caller.vendor.advance(Duration::from_secs(3600));
    let expired = caller
        .call(Method::GET, "preferences", "")
        .await
        .expect("an answer");
    assert_eq!(expired.status(), 401);
    let body = read(&expired);
    assert_eq!(body["fault"]["error"][0]["code"], "3200");
    assert_eq!(
        body["fault"]["error"][0]["message"],
        "message=AuthenticationFailed; errorCode=003200; statusCode=401"
    );

    let caller = Caller::of(caller.vendor, DEFAULT_REALM).await;
    control(
        &caller.vendor,
        Method::POST,
        "revoke",
        json!({"realm": DEFAULT_REALM}),
    )
    .await;
    let revoked = caller
        .call(Method::GET, "preferences", "")
        .await
        .expect("an answer");
    assert_eq!(revoked.status(), 401);
    assert!(String::from_utf8_lossy(revoked.body()).contains("code=\"3200\""));
}

#[tokio::test]
async fn a_token_opens_one_company() {
    let mut caller = Caller::new().await;
    control(
        &caller.vendor,
        Method::POST,
        "realms",
        json!({"realm": "77"}),
    )
    .await;
    caller.realm = "77".to_owned();
    let answer = caller
        .call(Method::GET, "preferences", "")
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 403);
    assert_eq!(read(&answer)["fault"]["error"][0]["code"], "3100");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_tokens() {
    assert_eq!(Caller::new().await.token, Caller::new().await.token);
}

#[tokio::test]
async fn who_consented_is_told_to_apps_that_asked_for_it() {
    let vendor = app().await;
    for (scope, told) in [
        ("com.intuit.quickbooks.accounting", false),
        ("com.intuit.quickbooks.accounting openid", true),
    ] {
        let body = form(&[
            ("client_id", "app"),
            ("redirect_uri", REDIRECT),
            ("scope", scope),
            ("state", "st"),
            ("decision", "approve"),
        ]);
        let answer = send(
            &vendor,
            Method::POST,
            "/connect/oauth2/decision",
            &[],
            &body,
        )
        .await;
        let answer = answer.expect("an answer");
        let target = answer.headers()["location"].to_str().expect("text");
        let target = Url::parse(target).expect("an address");
        let code = target.query_pairs().next().expect("a code").1.into_owned();
        let (status, body) = exchange(&vendor, &code).await;
        assert_eq!((status, body.get("id_token").is_some()), (200, told));
    }
}

#[tokio::test]
async fn an_account_is_a_realm_to_whoever_knows_the_other_vendors() {
    let vendor = app().await;
    let other = json!({"realm": "4620816365000000002"});
    control(&vendor, Method::POST, "realms", other).await;
    let accounts = control(&vendor, Method::GET, "accounts", Value::Null).await;
    assert_eq!(accounts[0]["id"], json!(DEFAULT_REALM));
    let account = accounts[1]["id"].as_str().expect("an id");
    let body = form(&[
        ("client_id", "app"),
        ("redirect_uri", REDIRECT),
        ("scope", "com.intuit.quickbooks.accounting"),
        ("state", "st"),
        ("account", account),
        ("decision", "approve"),
    ]);
    let answer = send(
        &vendor,
        Method::POST,
        "/connect/oauth2/decision",
        &[],
        &body,
    )
    .await;
    let answer = answer.expect("an answer");
    let target = answer.headers()["location"].to_str().expect("text");
    assert!(target.ends_with("realmId=4620816365000000002"), "{target}");
    let grant = json!({"account": account, "client_id": "app"});
    let issued = control(&vendor, Method::POST, "grants", grant).await;
    for (taken_back, status) in [(DEFAULT_REALM, 200), (account, 400)] {
        let which = json!({"account": taken_back});
        control(&vendor, Method::POST, "revoke", which).await;
        let answer = refresh(&vendor, &issued["refresh_token"]).await;
        assert_eq!(answer.0, status, "{taken_back}");
    }
}
