//! Refresh tokens and the ends of tokens.

use axum::http::Method;
use serde_json::{Value, json};

use super::{App, VERIFIER, WAYS, challenge, field, name};

const DAY: i64 = 24 * 3600;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turns {
    Never,
    /// Never, and the answer to a refresh leaves it out.
    NeverRepeated,
    /// With seconds of grace for the value before.
    Each(i64),
}

#[tokio::test]
async fn how_refresh_tokens_turn() {
    use Turns::{Each, Never, NeverRepeated};
    for (vendor, turns) in [
        ("xero", Each(1800)),
        ("salesforce", Each(0)),
        ("hubspot", Never),
        ("stripe", Never),
        ("paypal", NeverRepeated),
        ("square", Never),
        ("square_loyalty", Never),
    ] {
        let app = App::at(vendor).await;
        let first = app.connect().await;
        let (status, second) = app.refresh(&first["refresh_token"]).await;
        assert_eq!(status, 200, "{vendor}: {second}");
        assert_ne!(first["access_token"], second["access_token"], "{vendor}");
        match turns {
            Never => assert_eq!(first["refresh_token"], second["refresh_token"], "{vendor}"),
            NeverRepeated => assert_eq!(second.get("refresh_token"), None, "{vendor}"),
            Each(grace) => {
                assert_ne!(first["refresh_token"], second["refresh_token"], "{vendor}");
                if grace > 0 {
                    app.wait(grace - 1);
                    assert_eq!(
                        app.refresh(&first["refresh_token"]).await.0,
                        200,
                        "{vendor}"
                    );
                    app.wait(1);
                }
                let (status, body) = app.refresh(&first["refresh_token"]).await;
                assert_eq!((status, name(&body)), (400, "invalid_grant"), "{vendor}");
            }
        }
        if !matches!(turns, Each(_)) {
            app.wait(100);
            assert_eq!(
                app.refresh(&first["refresh_token"]).await.0,
                200,
                "{vendor}"
            );
        }
    }
}

#[tokio::test]
async fn the_grace_of_xero_does_not_begin_again() {
    let app = App::at("xero").await;
    let first = app.connect().await;
    app.refresh(&first["refresh_token"]).await;
    app.wait(1000);
    let (status, third) = app.refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200);
    app.wait(1000);
    assert_eq!(app.refresh(&first["refresh_token"]).await.0, 400);
    assert_eq!(app.refresh(&third["refresh_token"]).await.0, 200);
}

#[tokio::test]
async fn reuse_at_salesforce_ends_the_grant_and_at_xero_only_itself() {
    for (vendor, survives) in [("salesforce", false), ("xero", true)] {
        let app = App::at(vendor).await;
        let first = app.connect().await;
        let (_, second) = app.refresh(&first["refresh_token"]).await;
        app.wait(1800);
        let (_, third) = app.refresh(&second["refresh_token"]).await;
        assert_eq!(app.refresh(&first["refresh_token"]).await.0, 400);
        assert_eq!(app.probe(&third).await == 200, survives, "{vendor}");
        let last = app.refresh(&third["refresh_token"]).await.0;
        assert_eq!(last == 200, survives, "{vendor}");
    }
}

#[tokio::test]
async fn salesforce_without_rotation_gives_out_no_second_refresh_token() {
    let app = App::at("salesforce").await;
    let client = json!({
        "client_id": "app",
        "client_secret": "secret",
        "redirect_uris": [super::REDIRECT],
        "rotate": false,
    });
    app.control(Method::POST, "clients", client).await;
    let first = app.connect().await;
    for _ in 0..2 {
        let (status, next) = app.refresh(&first["refresh_token"]).await;
        assert_eq!(status, 200);
        assert_eq!(next.get("refresh_token"), None);
        assert_eq!(next["instance_url"], json!("http://vendor.test"));
    }
}

#[tokio::test]
async fn idle_refresh_tokens() {
    for (vendor, idle) in [
        ("xero", Some(60 * DAY)),
        ("salesforce", Some(30 * DAY)),
        ("hubspot", None),
        ("stripe", None),
        ("paypal", Some(180 * DAY)),
        ("square", None),
        ("square_loyalty", None),
    ] {
        let app = App::at(vendor).await;
        let Some(idle) = idle else {
            let token = app.connect().await["refresh_token"].clone();
            app.wait(1000 * DAY);
            assert_eq!(app.refresh(&token).await.0, 200, "{vendor}");
            continue;
        };
        let mut token = app.connect().await["refresh_token"].clone();
        // Use begins the time anew.
        for _ in 0..2 {
            app.wait(idle - 1);
            let (status, body) = app.refresh(&token).await;
            assert_eq!(status, 200, "{vendor}: {body}");
            if let Some(next) = body.get("refresh_token") {
                token = next.clone();
            }
        }
        app.wait(idle);
        let (status, body) = app.refresh(&token).await;
        assert_eq!((status, name(&body)), (400, "invalid_grant"), "{vendor}");
    }
}

#[tokio::test]
async fn access_tokens_end_with_the_answer_of_their_vendor() {
    for (vendor, life, status, place, says) in [
        (
            "xero",
            1800,
            401,
            "/Detail",
            "TokenExpired: token expired at 2026-01-01T00:30:00.0000000",
        ),
        (
            "salesforce",
            7200,
            401,
            "/0/errorCode",
            "INVALID_SESSION_ID",
        ),
        ("hubspot", 1800, 401, "/category", "EXPIRED_AUTHENTICATION"),
        ("paypal", 28800, 401, "/error", "invalid_token"),
        (
            "square",
            30 * DAY,
            401,
            "/errors/0/code",
            "ACCESS_TOKEN_EXPIRED",
        ),
        (
            "square_loyalty",
            30 * DAY,
            401,
            "/errors/0/code",
            "ACCESS_TOKEN_EXPIRED",
        ),
    ] {
        let app = App::at(vendor).await;
        let issued = app.connect().await;
        app.wait(life - 1);
        if vendor != "salesforce" {
            assert_eq!(app.probe(&issued).await, 200, "{vendor}");
        }
        app.wait(1);
        let (got, body) = app.get(app.ways.probe, &issued["access_token"]).await;
        assert_eq!(got, status, "{vendor}");
        assert_eq!(body.pointer(place), Some(&json!(says)), "{vendor}: {body}");
    }
    for vendor in ["mailchimp", "stripe"] {
        let app = App::at(vendor).await;
        let issued = app.connect().await;
        app.wait(1000 * DAY);
        assert_eq!(app.probe(&issued).await, 200, "{vendor}");
    }
}

#[tokio::test]
async fn a_session_of_salesforce_lives_while_it_is_used() {
    let app = App::at("salesforce").await;
    let issued = app.connect().await;
    for _ in 0..5 {
        app.wait(7199);
        assert_eq!(app.probe(&issued).await, 200);
    }
    app.wait(7200);
    assert_eq!(app.probe(&issued).await, 401);
}

#[tokio::test]
async fn a_user_who_disconnects_ends_everything() {
    for (ways, status) in WAYS.iter().zip([401, 401, 401, 401, 401, 401, 401, 401]) {
        let app = App::at(ways.name).await;
        let issued = app.connect().await;
        let account = app.control(Method::GET, "accounts", Value::Null).await[1]["id"].clone();
        let other = app
            .connect_as(&[("account", account.as_str().unwrap())])
            .await;
        let which = json!({"account": account});
        let done = app.control(Method::POST, "revoke", which).await;
        assert_eq!(done["revoked"], json!(1), "{}", ways.name);
        assert_eq!(app.probe(&other).await, status, "{}", ways.name);
        assert_eq!(app.probe(&issued).await, 200, "{}", ways.name);
        if let Some(token) = other.get("refresh_token") {
            assert_ne!(app.refresh(token).await.0, 200, "{}", ways.name);
        }
    }
}

#[tokio::test]
async fn a_refresh_token_belongs_to_its_app() {
    for ways in &WAYS {
        let app = App::at(ways.name).await;
        let issued = app.connect().await;
        let Some(token) = issued["refresh_token"].as_str() else {
            assert_eq!(ways.name, "mailchimp");
            let fields = [("grant_type", "refresh_token"), ("refresh_token", "x")];
            let (status, body) = app.token(&fields, &[]).await;
            assert_eq!((status, name(&body)), (400, "unsupported_grant_type"));
            continue;
        };
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let other = [("client_id", "other"), ("client_secret", "hidden")];
        assert_ne!(app.token(&fields, &other).await.0, 200, "{}", ways.name);
    }
}

#[tokio::test]
async fn a_refresh_may_ask_for_less_and_not_for_more() {
    for (vendor, less, more) in [
        (
            "xero",
            "offline_access",
            "offline_access accounting.contacts",
        ),
        ("salesforce", "api", "api full"),
        ("stripe", "read_only", "read_write read_only admin"),
        ("paypal", "openid", "openid email"),
    ] {
        let app = App::at(vendor).await;
        let token = app.connect().await["refresh_token"].clone();
        let token = token.as_str().unwrap();
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        let (status, body) = app.token(&fields, &[("scope", more)]).await;
        assert_eq!((status, name(&body)), (400, "invalid_scope"), "{vendor}");
        let (status, body) = app.token(&fields, &[("scope", less)]).await;
        assert_eq!((status, &body["scope"]), (200, &json!(less)), "{vendor}");
    }
}

#[tokio::test]
async fn without_the_scope_for_it_no_refresh_token_is_given_out() {
    for (vendor, scope) in [("xero", "openid"), ("salesforce", "api")] {
        let app = App::at(vendor).await;
        let issued = app.connect_as(&[("scope", scope)]).await;
        assert_eq!(issued.get("refresh_token"), None, "{vendor}");
    }
}

#[tokio::test]
async fn squares_flow_without_a_secret_uses_a_refresh_token_once() {
    let app = App::at("square").await;
    let challenge = challenge();
    let sent = [
        ("decision", "approve"),
        ("code_challenge", challenge.as_str()),
    ];
    let back = app.back(&sent).await;
    let code = field(&back, "code").unwrap();
    let open = [("client_secret", ""), ("code_verifier", VERIFIER)];
    let (status, first) = app.exchange(code, &open).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(
        first["refresh_token_expires_at"],
        json!("2026-04-01T00:00:00Z")
    );
    let refresh = async |token: &Value| {
        let token = token.as_str().unwrap();
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token)];
        app.token(&fields, &[("client_secret", "")]).await
    };
    let (status, second) = refresh(&first["refresh_token"]).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    assert_eq!(refresh(&first["refresh_token"]).await.0, 401);
    app.wait(90 * DAY);
    assert_eq!(refresh(&second["refresh_token"]).await.0, 401);
    // With a secret the value stays, and its refresh needs the secret.
    let token = app.connect().await["refresh_token"].clone();
    assert_eq!(refresh(&token).await.0, 400);
}
