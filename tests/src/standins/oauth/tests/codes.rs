//! Consent and codes.

use axum::http::Method;

use super::{App, REDIRECT, VERIFIER, WAYS, challenge, field, form, name, send};

#[tokio::test]
async fn the_page_shows_every_account_and_two_buttons() {
    for ways in &WAYS {
        let app = App::at(ways.name).await;
        let challenge = challenge();
        let mut fields = app.asked(&[]);
        if app.challenged() {
            fields.push(("code_challenge", &challenge));
        }
        let target = format!("{}?{}", ways.authorize, form(&fields));
        let page = send(&app.vendor, Method::GET, &target, &[], "").await;
        assert_eq!(page.status(), 200, "{}", ways.name);
        let text = String::from_utf8(page.into_body()).unwrap();
        for part in [
            &format!("action=\"{}/decision\"", ways.authorize),
            "<select name=\"account\">",
            "name=\"decision\" value=\"approve\"",
            "name=\"decision\" value=\"deny\"",
            "name=\"state\" value=\"st\"",
        ] {
            assert!(text.contains(part), "{}: {part} in {text}", ways.name);
        }
        assert!(text.matches("<option").count() >= 2);
    }
}

#[tokio::test]
async fn what_comes_back() {
    for (vendor, approved, denied) in [
        (
            "xero",
            vec!["code", "scope", "state"],
            vec!["error", "state"],
        ),
        (
            "salesforce",
            vec!["code", "state"],
            vec!["error", "error_description", "state"],
        ),
        ("hubspot", vec!["code", "state"], vec!["error", "state"]),
        ("mailchimp", vec!["code", "state"], vec!["error", "state"]),
        (
            "stripe",
            vec!["code", "scope", "state"],
            vec!["error", "error_description", "state"],
        ),
        (
            "paypal",
            vec!["code", "scope", "state"],
            vec!["error", "state"],
        ),
        (
            "square",
            vec!["code", "response_type", "state"],
            vec!["error", "error_description", "state"],
        ),
    ] {
        let app = App::at(vendor).await;
        for (decision, expected) in [("approve", approved), ("deny", denied)] {
            let back = app.back(&[("decision", decision)]).await;
            let names: Vec<&str> = back.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, expected, "{vendor} {decision}");
            if decision == "deny" {
                assert_eq!(field(&back, "error"), Some("access_denied"));
            }
        }
    }
}

#[tokio::test]
async fn nobody_is_sent_to_an_address_that_is_not_registered_to_the_letter() {
    for ways in &WAYS {
        let app = App::at(ways.name).await;
        for more in [
            ("redirect_uri", "http://localhost:9/callback/"),
            ("redirect_uri", "http://LOCALHOST:9/callback"),
            ("client_id", "nobody"),
        ] {
            let answer = app.decide(&[("decision", "approve"), more]).await;
            assert_eq!(answer.status(), 400, "{} {more:?}", ways.name);
        }
    }
}

#[tokio::test]
async fn a_scope_that_nobody_knows() {
    for (vendor, goes_back) in [
        ("xero", false),
        ("salesforce", true),
        ("hubspot", false),
        ("stripe", true),
        ("paypal", true),
        ("square", false),
    ] {
        let app = App::at(vendor).await;
        let answer = app
            .decide(&[("decision", "approve"), ("scope", "world-peace")])
            .await;
        assert_eq!(answer.status() == 302, goes_back, "{vendor}");
        if goes_back {
            let target = answer.headers()["location"].to_str().unwrap();
            assert!(target.contains("error=invalid_scope"), "{target}");
        }
    }
}

#[tokio::test]
async fn scope_and_redirect_uri_may_be_left_out_of_the_request_where_the_vendor_says_so() {
    for (vendor, without_scope, without_redirect) in [
        ("xero", false, false),
        ("salesforce", true, false),
        ("hubspot", false, false),
        ("mailchimp", true, false),
        ("stripe", true, true),
        ("paypal", false, false),
        ("square", true, true),
    ] {
        let app = App::at(vendor).await;
        for (missing, allowed) in [("scope", without_scope), ("redirect_uri", without_redirect)] {
            let answer = app.decide(&[("decision", "approve"), (missing, "")]).await;
            let location = answer.headers().get("location");
            let came = location.is_some_and(|target| {
                let target = target.to_str().unwrap();
                target.starts_with(REDIRECT) && target.contains("code=")
            });
            assert_eq!(came, allowed, "{vendor} without {missing}");
        }
    }
}

#[tokio::test]
async fn a_code_dies_at_its_time() {
    for (vendor, life, error) in [
        ("xero", 300, "invalid_grant"),
        ("salesforce", 900, "invalid_grant"),
        ("hubspot", 60, "invalid_grant"),
        ("mailchimp", 600, "invalid_grant"),
        ("stripe", 300, "invalid_grant"),
        ("paypal", 180, "invalid_grant"),
        ("square", 300, "UNAUTHORIZED"),
        ("square_loyalty", 300, "UNAUTHORIZED"),
    ] {
        let app = App::at(vendor).await;
        let (early, late) = (app.code().await, app.code().await);
        app.wait(life - 1);
        assert_eq!(app.exchange(&early, &[]).await.0, 200, "{vendor}");
        app.wait(1);
        let (status, body) = app.exchange(&late, &[]).await;
        assert!(status == 400 || status == 401, "{vendor}: {status}");
        assert_eq!(name(&body), error, "{vendor}");
    }
}

#[tokio::test]
async fn a_code_works_once() {
    for (vendor, takes_its_tokens) in [
        ("xero", false),
        ("salesforce", false),
        ("hubspot", false),
        ("mailchimp", false),
        ("stripe", true),
        ("paypal", false),
        ("square", false),
        ("square_loyalty", false),
    ] {
        let app = App::at(vendor).await;
        let code = app.code().await;
        let (status, first) = app.exchange(&code, &[]).await;
        assert_eq!(status, 200, "{vendor}: {first}");
        assert_ne!(app.exchange(&code, &[]).await.0, 200, "{vendor}");
        let alive = app.probe(&first).await == 200;
        assert_eq!(alive, !takes_its_tokens, "{vendor}");
    }
}

#[tokio::test]
async fn a_code_belongs_to_its_app_and_its_redirect_uri() {
    for (vendor, checks_redirect) in [
        ("xero", true),
        ("salesforce", true),
        ("hubspot", true),
        ("mailchimp", true),
        // The token endpoint of Stripe knows no such parameter.
        ("stripe", false),
        ("paypal", true),
        ("square", true),
        ("square_loyalty", true),
    ] {
        let app = App::at(vendor).await;
        let code = app.code().await;
        let other = [("client_id", "other"), ("client_secret", "hidden")];
        assert_ne!(app.exchange(&code, &other).await.0, 200, "{vendor}");
        let elsewhere = [("redirect_uri", "http://localhost:9/elsewhere")];
        let refused = app.exchange(&code, &elsewhere).await.0 != 200;
        assert_eq!(refused, checks_redirect, "{vendor}");
        if refused {
            // A request that was refused has not used the code up.
            assert_eq!(app.exchange(&code, &[]).await.0, 200, "{vendor}");
        }
    }
}

#[tokio::test]
async fn the_redirect_uri_of_the_token_request() {
    for (vendor, needed) in [
        ("xero", true),
        ("salesforce", true),
        ("hubspot", true),
        ("mailchimp", true),
        ("stripe", false),
        ("paypal", false),
        ("square", false),
    ] {
        let app = App::at(vendor).await;
        let code = app.code().await;
        let (status, _) = app.exchange(&code, &[("redirect_uri", "")]).await;
        assert_eq!(status != 200, needed, "{vendor}");
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Challenge {
    MeansNothing,
    MayBeSent,
    MustBeSent,
}

#[tokio::test]
async fn challenges() {
    use Challenge::{MayBeSent, MeansNothing, MustBeSent};
    for (vendor, rule) in [
        ("xero", MayBeSent),
        ("salesforce", MustBeSent),
        ("hubspot", MayBeSent),
        ("mailchimp", MeansNothing),
        ("stripe", MeansNothing),
        ("paypal", MeansNothing),
        ("square", MayBeSent),
        ("square_loyalty", MayBeSent),
    ] {
        let app = App::at(vendor).await;
        let challenge = challenge();
        let none = [("decision", "approve"), ("code_challenge", "")];
        let location = app.decide(&none).await.headers().get("location").cloned();
        let came = location.is_some_and(|target| target.to_str().unwrap().contains("code="));
        assert_eq!(came, rule != MustBeSent, "{vendor}");

        let plain = [
            ("decision", "approve"),
            ("code_challenge", VERIFIER),
            ("code_challenge_method", "plain"),
        ];
        let location = app.decide(&plain).await.headers().get("location").cloned();
        let came = location.is_some_and(|target| target.to_str().unwrap().contains("code="));
        assert_eq!(came, rule == MeansNothing, "{vendor}: only S256");

        let sent = [
            ("decision", "approve"),
            ("code_challenge", challenge.as_str()),
            ("code_challenge_method", "S256"),
        ];
        for (verifier, right) in [("", false), ("another", false), (VERIFIER, true)] {
            let back = app.back(&sent).await;
            let code = field(&back, "code").unwrap();
            let (status, _) = app.exchange(code, &[("code_verifier", verifier)]).await;
            let expected = right || rule == MeansNothing;
            assert_eq!(status == 200, expected, "{vendor} {verifier}");
        }

        // A challenge that was taken away on its way to the vendor (RFC 9700 §2.1.1).
        if rule != MustBeSent {
            let back = app.back(&none).await;
            let code = field(&back, "code").unwrap();
            let (status, _) = app.exchange(code, &[("code_verifier", VERIFIER)]).await;
            assert_eq!(status == 200, rule == MeansNothing, "{vendor}: downgraded");
        }
    }
}

#[tokio::test]
async fn what_salesforce_calls_a_bad_verifier() {
    let app = App::at("salesforce").await;
    let code = app.code().await;
    for (verifier, error) in [("", "invalid_grant"), ("another", "invalid_request")] {
        let (status, body) = app.exchange(&code, &[("code_verifier", verifier)]).await;
        assert_eq!((status, name(&body)), (400, error));
    }
}

#[tokio::test]
async fn apps_that_do_not_prove_themselves() {
    for (vendor, status, error) in [
        ("xero", 400, "invalid_client"),
        ("salesforce", 400, "invalid_client"),
        ("hubspot", 400, "invalid_client"),
        ("mailchimp", 401, "invalid_client"),
        ("stripe", 401, "invalid_client"),
        ("paypal", 401, "invalid_client"),
        ("square", 401, "UNAUTHORIZED"),
        ("square_loyalty", 401, "UNAUTHORIZED"),
    ] {
        let app = App::at(vendor).await;
        let code = app.code().await;
        let (got, body) = app.exchange(&code, &[("client_secret", "wrong")]).await;
        assert_eq!((got, name(&body)), (status, error), "{vendor}: {body}");
        let nothing = [("client_id", ""), ("client_secret", "")];
        assert_ne!(app.exchange(&code, &nothing).await.0, 200, "{vendor}");
        assert_eq!(app.exchange(&code, &[]).await.0, 200, "{vendor}");
    }
}

#[tokio::test]
async fn where_the_secret_may_stand() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let basic = format!("Basic {}", STANDARD.encode("app:secret"));
    for (vendor, header, taken) in [
        ("xero", basic.as_str(), true),
        ("salesforce", &basic, true),
        ("hubspot", &basic, false),
        ("mailchimp", &basic, false),
        ("stripe", "Bearer secret", true),
        ("paypal", &basic, true),
    ] {
        let app = App::at(vendor).await;
        let code = app.code().await;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", REDIRECT),
        ];
        if app.challenged() {
            fields.push(("code_verifier", VERIFIER));
        }
        let body = form(&fields);
        let headers = [("authorization", header)];
        let answer = send(&app.vendor, Method::POST, app.ways.token, &headers, &body).await;
        assert_eq!(answer.status() == 200, taken, "{vendor}");
    }
}

#[tokio::test]
async fn grant_types_that_nobody_knows() {
    for ways in &WAYS {
        let app = App::at(ways.name).await;
        for kind in ["password", ""] {
            let (status, _) = app.token(&[("grant_type", kind)], &[]).await;
            assert_eq!(status, 400, "{} {kind}", ways.name);
        }
    }
}
