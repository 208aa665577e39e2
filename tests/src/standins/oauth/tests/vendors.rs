//! What each vendor has that no other has: answer shapes, tenants, revocation, keys.

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{App, form, name, read, send, vendor};

fn keys(body: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn the_fields_of_token_answers() {
    for (vendor, expected) in [
        (
            "xero",
            "access_token expires_in id_token refresh_token scope token_type",
        ),
        (
            "salesforce",
            "access_token id instance_url issued_at refresh_token scope signature token_type",
        ),
        (
            "hubspot",
            "access_token expires_in hub_id refresh_token scopes token_type token_use user_id",
        ),
        ("mailchimp", "access_token expires_in scope"),
        (
            "stripe",
            "access_token livemode refresh_token scope stripe_publishable_key stripe_user_id token_type",
        ),
        (
            "paypal",
            "access_token expires_in nonce refresh_token scope token_type",
        ),
        (
            "square",
            "access_token expires_at merchant_id refresh_token short_lived token_type",
        ),
    ] {
        let app = App::at(vendor).await;
        let body = app.connect().await;
        assert_eq!(keys(&body).join(" "), expected, "{vendor}");
    }
}

#[tokio::test]
async fn the_values_of_token_answers() {
    for (vendor, place, expected) in [
        ("xero", "/expires_in", json!(1800)),
        ("xero", "/token_type", json!("Bearer")),
        ("salesforce", "/instance_url", json!("http://vendor.test")),
        ("salesforce", "/issued_at", json!("1767225600000")),
        (
            "salesforce",
            "/id",
            json!("http://vendor.test/id/00D5e000000ShopEAE/0055e000001OlivAAE"),
        ),
        ("hubspot", "/hub_id", json!(44_237_313)),
        ("hubspot", "/expires_in", json!(1800)),
        ("mailchimp", "/expires_in", json!(0)),
        ("mailchimp", "/scope", json!(null)),
        ("stripe", "/stripe_user_id", json!("acct_1StandinDemo0001")),
        ("stripe", "/livemode", json!(false)),
        ("paypal", "/expires_in", json!(28800)),
        ("square", "/expires_at", json!("2026-01-31T00:00:00Z")),
        ("square", "/merchant_id", json!("MLSTANDINDEMO")),
        ("square", "/short_lived", json!(false)),
    ] {
        let app = App::at(vendor).await;
        let body = app.connect().await;
        assert_eq!(body.pointer(place), Some(&expected), "{vendor}");
    }
}

/// The claims of a token of three parts.
fn claims(token: &Value) -> Value {
    let middle = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(middle).unwrap()).unwrap()
}

const FIRST: &str = "5a1e0000-0000-4000-8000-000000000001";
const SECOND: &str = "5a1e0000-0000-4000-8000-000000000002";
const THIRD: &str = "5a1e0000-0000-4000-8000-000000000003";

async fn tenants(app: &App, issued: &Value, query: &str) -> Vec<Value> {
    let path = format!("/connections{query}");
    let (status, body) = app.get(&path, &issued["access_token"]).await;
    assert_eq!(status, 200);
    body.as_array().unwrap().clone()
}

#[tokio::test]
async fn xeros_tenants_are_those_of_the_person_and_the_claim_tells_the_new_ones() {
    let app = App::at("xero").await;
    let first = app.connect_as(&[("account", FIRST)]).await;
    app.wait(60);
    let second = app.connect_as(&[("account", SECOND)]).await;
    let third = app.connect_as(&[("account", THIRD)]).await;
    assert_eq!(tenants(&app, &first, "").await.len(), 2);
    let claims = claims(&second["access_token"]);
    assert_eq!(claims["exp"].as_i64(), Some(super::START + 60 + 1800));
    let event = claims["authentication_event_id"].as_str().unwrap();
    let new = tenants(&app, &second, &format!("?authEventId={event}")).await;
    assert_eq!(new.len(), 1);
    assert_eq!(new[0]["tenantId"], json!(SECOND));
    assert_eq!(
        new[0]["createdDateUtc"],
        json!("2026-01-01T00:01:00.0000000")
    );
    assert_eq!(tenants(&app, &third, "").await.len(), 1);
    // The refreshed token is of the same consent.
    let (_, again) = app.refresh(&second["refresh_token"]).await;
    let claim = self::claims(&again["access_token"])["authentication_event_id"].clone();
    assert_eq!(claim.as_str(), Some(event));
}

#[tokio::test]
async fn a_tenant_that_is_disconnected_is_out_of_reach_and_its_siblings_are_not() {
    let app = App::at("xero").await;
    let first = app.connect_as(&[("account", FIRST)]).await;
    let second = app.connect_as(&[("account", SECOND)]).await;
    let bearer = format!("Bearer {}", first["access_token"].as_str().unwrap());
    let reach = async |tenant: &str| {
        let headers = [
            ("authorization", bearer.as_str()),
            ("xero-tenant-id", tenant),
        ];
        let path = "/api.xro/2.0/Organisation";
        send(&app.vendor, Method::GET, path, &headers, "")
            .await
            .status()
            .as_u16()
    };
    assert_eq!(
        [reach(FIRST).await, reach(SECOND).await, reach(THIRD).await],
        [200, 200, 403]
    );
    let all = tenants(&app, &first, "").await;
    let gone = all
        .iter()
        .find(|one| one["tenantId"] == json!(FIRST))
        .unwrap();
    let path = format!("/Connections/{}", gone["id"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    for status in [204, 404] {
        let answer = send(&app.vendor, Method::DELETE, &path, &headers, "").await;
        assert_eq!(answer.status().as_u16(), status);
    }
    assert_eq!([reach(FIRST).await, reach(SECOND).await], [403, 200]);
    assert_eq!(app.refresh(&first["refresh_token"]).await.0, 200);
    assert_eq!(tenants(&app, &second, "").await.len(), 1);
}

#[tokio::test]
async fn xeros_revocation_takes_every_connection_of_the_person() {
    let app = App::at("xero").await;
    let first = app.connect_as(&[("account", FIRST)]).await;
    let second = app.connect_as(&[("account", SECOND)]).await;
    let third = app.connect_as(&[("account", THIRD)]).await;
    let token = first["refresh_token"].as_str().unwrap();
    let fields = [
        ("token", token),
        ("client_id", "app"),
        ("client_secret", "secret"),
    ];
    let path = "/connect/revocation";
    let answer = send(&app.vendor, Method::POST, path, &[], &form(&fields)).await;
    assert_eq!((answer.status().as_u16(), answer.body().len()), (200, 0));
    assert_eq!(app.refresh(&second["refresh_token"]).await.0, 400);
    assert_eq!(app.probe(&second).await, 401);
    assert_eq!(app.refresh(&third["refresh_token"]).await.0, 200);
}

#[tokio::test]
async fn a_sixth_grant_at_salesforce_ends_the_first() {
    let app = App::at("salesforce").await;
    let mut grants = Vec::new();
    for _ in 0..6 {
        grants.push(app.connect().await);
    }
    assert_eq!(app.refresh(&grants[0]["refresh_token"]).await.0, 400);
    assert_eq!(app.refresh(&grants[1]["refresh_token"]).await.0, 200);
}

#[tokio::test]
async fn salesforces_revocation_ends_a_token_or_with_a_refresh_token_the_grant() {
    let app = App::at("salesforce").await;
    let issued = app.connect().await;
    let (_, next) = app.refresh(&issued["refresh_token"]).await;
    let revoke = async |token: &Value| {
        let body = form(&[("token", token.as_str().unwrap())]);
        let path = "/services/oauth2/revoke";
        let answer = send(&app.vendor, Method::POST, path, &[], &body).await;
        answer.status().as_u16()
    };
    assert_eq!(revoke(&issued["access_token"]).await, 200);
    assert_eq!(
        [app.probe(&issued).await, app.probe(&next).await],
        [401, 200]
    );
    assert_eq!(revoke(&next["refresh_token"]).await, 200);
    assert_eq!(app.probe(&next).await, 401);
    assert_eq!(revoke(&next["refresh_token"]).await, 400);
}

#[tokio::test]
async fn who_a_salesforce_token_is_of() {
    let app = App::at("salesforce").await;
    let issued = app.connect().await;
    let id = issued["id"]
        .as_str()
        .unwrap()
        .replace("http://vendor.test", "");
    for path in [id.as_str(), "/services/oauth2/userinfo"] {
        let (status, body) = app.get(path, &issued["access_token"]).await;
        let org = json!("00D5e000000ShopEAE");
        assert_eq!((status, &body["organization_id"]), (200, &org));
    }
    let fields = [
        ("token", issued["access_token"].as_str().unwrap()),
        ("client_id", "app"),
        ("client_secret", "secret"),
    ];
    let path = "/services/oauth2/introspect";
    let answer = send(&app.vendor, Method::POST, path, &[], &form(&fields)).await;
    assert_eq!(read(&answer)["exp"], json!(super::START + 7200));
    let answer = send(
        &app.vendor,
        Method::GET,
        "/services/oauth2/userinfo",
        &[],
        "",
    )
    .await;
    assert_eq!(answer.status(), 403);
    let answer = send(&app.vendor, Method::GET, "/services/data/", &[], "").await;
    assert_eq!(read(&answer)[1]["version"], json!("68.0"));
}

#[tokio::test]
async fn hubspots_generations_of_paths() {
    let app = App::at("hubspot").await;
    let code = app.code().await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", super::REDIRECT),
        ("client_id", "app"),
        ("client_secret", "secret"),
    ];
    // In the query nothing is read.
    let target = format!("/oauth/2026-03/token?{}", form(&fields));
    let answer = send(&app.vendor, Method::POST, &target, &[], "").await;
    assert_eq!(answer.status(), 400);
    let body = form(&fields);
    let answer = send(&app.vendor, Method::POST, "/oauth/v1/token", &[], &body).await;
    let issued = read(&answer);
    assert_eq!(
        keys(&issued),
        ["access_token", "expires_in", "refresh_token", "token_type"]
    );
    assert!(issued["access_token"].as_str().unwrap().len() > 255);
    let answer = send(&app.vendor, Method::POST, "/oauth/v1/token", &[], &body).await;
    let refused = read(&answer);
    assert_eq!(keys(&refused), ["correlationId", "message", "status"]);
    assert_eq!(refused["status"], json!("BAD_AUTH_CODE"));
    for path in [
        "/oauth/2026-03/token/introspect",
        "/oauth/v3/token/introspect",
    ] {
        for token in ["access_token", "refresh_token"] {
            let fields = [
                ("token", issued[token].as_str().unwrap()),
                ("client_id", "app"),
                ("client_secret", "secret"),
            ];
            let answer = send(&app.vendor, Method::POST, path, &[], &form(&fields)).await;
            let body = read(&answer);
            assert_eq!(body["token_use"], json!(token));
            assert_eq!(body["hub_id"], json!(44_237_313));
        }
    }
    let path = format!(
        "/oauth/v1/access-tokens/{}",
        issued["access_token"].as_str().unwrap()
    );
    let answer = send(&app.vendor, Method::GET, &path, &[], "").await;
    assert_eq!(read(&answer)["hub_id"], json!(44_237_313));
}

#[tokio::test]
async fn hubspots_revocation_leaves_access_tokens_alive_and_its_uninstallation_does_not() {
    let app = App::at("hubspot").await;
    let issued = app.connect().await;
    let token = issued["refresh_token"].as_str().unwrap();
    let path = format!("/oauth/v1/refresh-tokens/{token}");
    for status in [204, 404] {
        let answer = send(&app.vendor, Method::DELETE, &path, &[], "").await;
        assert_eq!(answer.status().as_u16(), status);
    }
    let (status, body) = app.refresh(&issued["refresh_token"]).await;
    assert_eq!(
        (status, &body["status"]),
        (400, &json!("BAD_REFRESH_TOKEN"))
    );
    assert_eq!(name(&body), "invalid_grant");
    assert_eq!(app.probe(&issued).await, 200);
    let bearer = format!("Bearer {}", issued["access_token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let path = "/appinstalls/v3/external-install";
    let answer = send(&app.vendor, Method::DELETE, path, &headers, "").await;
    assert_eq!(answer.status(), 204);
    let (status, body) = app.get(app.ways.probe, &issued["access_token"]).await;
    assert_eq!(status, 401);
    let message = body["message"].as_str().unwrap();
    assert!(message.ends_with("expired 20454 day(s) ago."), "{message}");
}

#[tokio::test]
async fn mailchimp_tells_where_an_account_lives_to_whoever_shows_its_token() {
    let app = App::at("mailchimp").await;
    let issued = app.connect().await;
    let token = issued["access_token"].as_str().unwrap();
    let path = "/oauth2/metadata";
    for scheme in ["OAuth", "Bearer"] {
        let shown = format!("{scheme} {token}");
        let headers = [("authorization", shown.as_str())];
        let answer = send(&app.vendor, Method::GET, path, &headers, "").await;
        let body = read(&answer);
        assert_eq!(body["dc"], json!("us6"));
        assert_eq!(body["api_endpoint"], json!("http://vendor.test"));
    }
    let body = form(&[("oauth_token", token)]);
    let answer = send(&app.vendor, Method::POST, path, &[], &body).await;
    assert_eq!(answer.status(), 200);
    let answer = send(
        &app.vendor,
        Method::GET,
        path,
        &[("authorization", "OAuth x")],
        "",
    )
    .await;
    assert_eq!(
        (answer.status().as_u16(), name(&read(&answer))),
        (401, "invalid_token")
    );
    for (key, status) in [
        ("0123456789abcdef0123456789abcdef-us6", 200),
        ("wrong-us6", 401),
    ] {
        let basic = format!("Basic {}", STANDARD.encode(format!("user:{key}")));
        let headers = [("authorization", basic.as_str())];
        let answer = send(&app.vendor, Method::GET, "/3.0/ping", &headers, "").await;
        assert_eq!(answer.status().as_u16(), status);
    }
}

#[tokio::test]
async fn stripes_deauthorization_is_of_an_account_and_not_of_a_token() {
    let app = App::at("stripe").await;
    let issued = app.connect().await;
    let deauthorize = async |account: &str, key: &str| {
        let body = form(&[("client_id", "app"), ("stripe_user_id", account)]);
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let answer = send(
            &app.vendor,
            Method::POST,
            "/oauth/deauthorize",
            &headers,
            &body,
        )
        .await;
        (answer.status().as_u16(), read(&answer))
    };
    let account = "acct_1StandinDemo0001";
    assert_eq!(deauthorize("acct_1StandinDemo0002", "secret").await.0, 401);
    assert_eq!(deauthorize(account, "hidden").await.0, 401);
    // The platform reads the account in its own name while the grant stands.
    let of_platform = async || {
        let headers = [
            ("authorization", "Bearer secret"),
            ("stripe-account", account),
        ];
        let answer = send(&app.vendor, Method::GET, "/v1/account", &headers, "").await;
        answer.status().as_u16()
    };
    assert_eq!(of_platform().await, 200);
    let done = deauthorize(account, "secret").await;
    assert_eq!(done, (200, json!({"stripe_user_id": account})));
    assert_eq!(app.probe(&issued).await, 401);
    assert_eq!(of_platform().await, 403);
    assert_eq!(deauthorize(account, "secret").await.0, 401);
}

#[tokio::test]
async fn squares_revocation_is_of_a_seller_unless_only_a_token_is_meant() {
    let app = App::at("square").await;
    let first = app.connect().await;
    let second = app.connect().await;
    let revoke = async |header: &str, body: Value| {
        let headers = [("authorization", header)];
        let body = body.to_string();
        let answer = send(&app.vendor, Method::POST, "/oauth2/revoke", &headers, &body).await;
        (answer.status().as_u16(), read(&answer))
    };
    let one = json!({
        "client_id": "app",
        "access_token": first["access_token"],
        "revoke_only_access_token": true,
    });
    assert_eq!(revoke("Bearer secret", one.clone()).await.0, 401);
    assert_eq!(
        revoke("Client secret", one).await,
        (200, json!({"success": true}))
    );
    let (status, body) = app.get(app.ways.probe, &first["access_token"]).await;
    assert_eq!((status, name(&body)), (401, "ACCESS_TOKEN_REVOKED"));
    assert_eq!(app.refresh(&first["refresh_token"]).await.0, 200);
    let all = json!({"client_id": "app", "merchant_id": "MLSTANDINDEMO"});
    assert_eq!(revoke("Client secret", all.clone()).await.0, 200);
    assert_eq!(app.probe(&second).await, 401);
    assert_eq!(app.refresh(&first["refresh_token"]).await.0, 401);
    assert_eq!(revoke("Client secret", all).await.0, 404);
}

#[tokio::test]
async fn the_state_of_a_square_token() {
    let app = App::at("square").await;
    let code = app.code().await;
    let (_, issued) = app.exchange(&code, &[("short_lived", "true")]).await;
    assert_eq!(issued["expires_at"], json!("2026-01-02T00:00:00Z"));
    let status = async |token: &Value| {
        let bearer = format!("Bearer {}", token.as_str().unwrap());
        let headers = [("authorization", bearer.as_str())];
        let path = "/oauth2/token/status";
        let answer = send(&app.vendor, Method::POST, path, &headers, "").await;
        (answer.status().as_u16(), read(&answer))
    };
    let expected = json!({
        "scopes": ["MERCHANT_PROFILE_READ", "ORDERS_READ"],
        "expires_at": "2026-01-02T00:00:00Z",
        "client_id": "app",
        "merchant_id": "MLSTANDINDEMO",
    });
    assert_eq!(status(&issued["access_token"]).await, (200, expected));
    app.wait(24 * 3600);
    let (got, body) = status(&issued["access_token"]).await;
    assert_eq!((got, name(&body)), (401, "UNAUTHORIZED"));
    let narrow = app.connect_as(&[("scope", "ORDERS_READ")]).await;
    let (got, body) = app.get("/v2/merchants/me", &narrow["access_token"]).await;
    assert_eq!((got, name(&body)), (403, "INSUFFICIENT_SCOPES"));
}

#[tokio::test]
async fn paypal_tells_who_a_merchant_is() {
    let app = App::at("paypal").await;
    let scope = "openid email https://uri.paypal.com/services/paypalattributes";
    let issued = app.connect_as(&[("scope", scope)]).await;
    let path = "/v1/identity/openidconnect/userinfo?schema=openid";
    let (status, body) = app.get(path, &issued["access_token"]).await;
    assert_eq!((status, &body["payer_id"]), (200, &json!("QYR5Z8XDVJNXQ")));
    assert_eq!(body.get("name"), None);
    let (status, body) = app.get(path, &json!("nothing")).await;
    assert_eq!((status, name(&body)), (401, "invalid_token"));
}

#[tokio::test]
async fn paypals_partners_are_let_in_and_out_by_sellers() {
    let app = App::at("paypal").await;
    let own = [("grant_type", "client_credentials")];
    let (status, token) = app.token(&own, &[]).await;
    assert_eq!((status, &token["expires_in"]), (200, &json!(32400)));
    let bearer = format!("Bearer {}", token["access_token"].as_str().unwrap());
    let headers = [("authorization", bearer.as_str())];
    let path = "/v2/customer/partner-referrals";
    let body = json!({
        "tracking_id": "merchant-7",
        "partner_config_override": {"return_url": super::REDIRECT},
        "operations": [{"operation": "API_INTEGRATION"}],
        "legal_consents": [{"type": "SHARE_DATA_CONSENT", "granted": true}],
    });
    let answer = send(&app.vendor, Method::POST, path, &headers, "{}").await;
    assert_eq!(answer.status(), 400);
    let answer = send(&app.vendor, Method::POST, path, &[], &body.to_string()).await;
    assert_eq!(answer.status(), 401);
    let answer = send(&app.vendor, Method::POST, path, &headers, &body.to_string()).await;
    assert_eq!(answer.status(), 201);
    let link = read(&answer)["links"][1]["href"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = send(&app.vendor, Method::GET, &link, &[], "").await;
    assert_eq!(page.status(), 200);
    let referral = link.split_once('=').unwrap().1;

    let status_path = "/v1/customer/partners/PARTNER/merchant-integrations/ZDS7L2KQ9M4TA";
    assert_eq!(app.get(status_path, &token["access_token"]).await.0, 404);
    let fields = [
        ("referralToken", referral),
        ("account", "ZDS7L2KQ9M4TA"),
        ("decision", "approve"),
    ];
    let path = "/bizsignup/partner/entry/decision";
    let answer = send(&app.vendor, Method::POST, path, &[], &form(&fields)).await;
    let target = answer.headers()["location"].to_str().unwrap();
    assert!(target.contains("merchantId=merchant-7"), "{target}");
    assert!(
        target.contains("merchantIdInPayPal=ZDS7L2KQ9M4TA"),
        "{target}"
    );
    assert!(target.contains("permissionsGranted=true"), "{target}");
    let (status, body) = app.get(status_path, &token["access_token"]).await;
    assert_eq!((status, &body["payments_receivable"]), (200, &json!(true)));
    let which = json!({"account": "ZDS7L2KQ9M4TA"});
    app.control(Method::POST, "revoke", which).await;
    assert_eq!(app.get(status_path, &token["access_token"]).await.0, 404);
}

#[tokio::test]
async fn keys_of_vendors_without_oauth() {
    let key = "SG.standin-key-000000000.standin-secret-0000000000000000000000000000";
    let sendgrid = vendor("sendgrid");
    let get = async |path: &str, key: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str())];
        let answer = send(&sendgrid, Method::GET, path, &headers, "").await;
        (answer.status().as_u16(), read(&answer))
    };
    let (status, body) = get("/v3/scopes", key).await;
    assert_eq!(status, 200);
    assert!(
        body["scopes"]
            .as_array()
            .unwrap()
            .contains(&json!("mail.send"))
    );
    assert_eq!(get("/v3/user/account", key).await.1["type"], json!("paid"));
    let narrow = json!({"key": "SG.a.b", "account": "2", "scope": "mail.send"}).to_string();
    send(&sendgrid, Method::POST, "/_control/keys", &[], &narrow).await;
    assert_eq!(
        get("/v3/scopes", "SG.a.b").await.1,
        json!({"scopes": ["mail.send"]})
    );
    assert_eq!(get("/v3/user/username", "SG.a.b").await.0, 403);
    let which = json!({"account": "2"}).to_string();
    send(&sendgrid, Method::POST, "/_control/revoke", &[], &which).await;
    let (status, body) = get("/v3/scopes", "SG.a.b").await;
    let message = "The provided authorization grant is invalid, expired, or revoked";
    assert_eq!(
        (status, &body["errors"][0]["message"]),
        (401, &json!(message))
    );
    assert_eq!(get("/v3/scopes", key).await.0, 200);

    let voucherify = vendor("voucherify");
    for (id, token, status) in [
        ("standin-app", "standin-token", 200),
        ("standin-app", "wrong", 401),
        ("", "", 401),
    ] {
        let headers = [("x-app-id", id), ("x-app-token", token)];
        let path = "/v1/customers?limit=1";
        let answer = send(&voucherify, Method::GET, path, &headers, "").await;
        assert_eq!(answer.status().as_u16(), status);
        if status == 401 {
            assert_eq!(read(&answer)["key"], json!("unauthorized"));
        }
    }
}
