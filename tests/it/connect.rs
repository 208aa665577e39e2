//! The connect flow as a merchant's browser sees it: the good way once, and every way that must not
//! end in a connection.

use crate::world::{Reply, Shop, World, query};
use reqwest::Url;
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn test(world: Arc<World>) {
    good_way(&world).await;
    eprintln!("  the good way holds, and its link, state and confirmation work once");
    without_cookie(&world).await;
    second_browser(&world).await;
    eprintln!("  a callback needs the browser that started");
    denied(&world).await;
    wrong_address(&world).await;
    wrong_confirmation(&world).await;
    eprintln!("  a refusal, a strange address and a wrong confirmation connect nothing");
    opened_twice(&world).await;
    exchange_fails(&world).await;
    links(&world).await;
}

async fn connections(world: &World, shop: &Shop) -> Vec<Value> {
    let path = format!("/api/v1/integrations?merchant_id={}", shop.merchant);
    let list = world.get(&path).await.expect(200).json();
    list["data"].as_array().expect("a list").clone()
}

async fn confirm(world: &World, shop: &Shop, id: &str, confirmation: &str) -> Reply {
    let path = format!("/api/v1/integrations/accounting/{id}/confirm");
    let body = json!({ "merchant_id": shop.merchant, "confirmation": confirmation });
    world.post(&path, &body).await
}

/// A page for people: the status, what happened, and what to do.
#[track_caller]
fn is_page(reply: &Reply, status: u16, advice: &str) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(
        reply
            .header("content-security-policy")
            .contains("default-src 'none'")
    );
    assert!(reply.body.contains("<h1>"), "{}", reply.body);
    assert!(
        reply.body.contains(advice),
        "{advice:?} is not in {}",
        reply.body
    );
}

const START_AGAIN: &str = "go back to the shop and start again";

async fn good_way(world: &World) {
    let shop = world.shop("connect").await;
    let link = world.link(&shop).await;
    let (authorize, cookie) = world.start(&link).await;
    assert_eq!(query(&authorize, "response_type"), "code");
    let callback = world.decide(&authorize, &shop.realm, "approve").await;
    assert!(connections(world, &shop).await.is_empty(), "nothing yet");
    let back = world.open(&callback, Some(&cookie)).await.expect(303);
    assert_eq!(back.header("cache-control"), "no-store");
    assert_eq!(back.header("referrer-policy"), "no-referrer");
    let (id, confirmation) = world.brought_back(&back);
    let pending = connections(world, &shop).await;
    assert_eq!(pending.len(), 1);
    assert_eq!(
        (&pending[0]["id"], &pending[0]["status"]),
        (&json!(id), &json!("pending"))
    );

    let live = confirm(world, &shop, &id, &confirmation)
        .await
        .expect(200)
        .json();
    assert_eq!(live["status"], "live");
    assert_eq!(live["tenant_id"], shop.realm);
    assert_eq!(live["tenant_name"], "Company of connect");
    let shown = connections(world, &shop).await;
    assert_eq!(shown, [live], "and no secret is shown");

    // Everything of it works once.
    is_page(
        &world.open(&callback, Some(&cookie)).await,
        410,
        START_AGAIN,
    );
    is_page(&world.open(&link, None).await, 410, START_AGAIN);
    let again = confirm(world, &shop, &id, &confirmation)
        .await
        .expect(422)
        .json();
    assert_eq!(again["errors"][0]["pointer"], "#/confirmation", "{again}");
    assert!(
        again["detail"]
            .as_str()
            .is_some_and(|text| text.contains("connect again"))
    );
    assert_eq!(connections(world, &shop).await, shown, "and it stays live");
}

/// Somebody who lets a merchant's browser open a callback gets nowhere.
async fn without_cookie(world: &World) {
    let shop = world.shop("connect").await;
    let (authorize, cookie) = world.start(&world.link(&shop).await).await;
    let callback = world.decide(&authorize, &shop.realm, "approve").await;
    let advice = "open the link again in this one";
    is_page(&world.open(&callback, None).await, 403, advice);
    is_page(
        &world.open(&callback, Some("crossdock_connect=")).await,
        403,
        advice,
    );
    is_page(
        &world.open(&callback, Some("crossdock_connect=AAAA")).await,
        403,
        advice,
    );
    assert!(
        connections(world, &shop).await.is_empty(),
        "nothing is connected"
    );
    // A stranger's attempts did not use up the merchant's own.
    let back = world.open(&callback, Some(&cookie)).await.expect(303);
    let (id, _) = world.brought_back(&back);
    let shown = connections(world, &shop).await;
    assert_eq!(
        shown[0]["status"], "pending",
        "{id} waits for its confirmation"
    );
}

/// Two browsers have opened the same link: each finishes its own consent only, and the first wins.
async fn second_browser(world: &World) {
    let shop = world.shop("connect").await;
    let link = world.link(&shop).await;
    let (one, one_cookie) = world.start(&link).await;
    let (two, two_cookie) = world.start(&link).await;
    assert_ne!(query(&one, "state"), query(&two, "state"));
    let one = world.decide(&one, &shop.realm, "approve").await;
    let two = world.decide(&two, &shop.realm, "approve").await;
    is_page(
        &world.open(&one, Some(&two_cookie)).await,
        403,
        "another browser",
    );
    world.open(&two, Some(&two_cookie)).await.expect(303);
    is_page(&world.open(&one, Some(&one_cookie)).await, 410, START_AGAIN);
    assert_eq!(connections(world, &shop).await.len(), 1);
}

async fn denied(world: &World) {
    let shop = world.shop("connect").await;
    let link = world.link(&shop).await;
    let (authorize, cookie) = world.start(&link).await;
    let callback = world.decide(&authorize, &shop.realm, "deny").await;
    assert_eq!(query(&callback, "error"), "access_denied");
    let page = world.open(&callback, Some(&cookie)).await;
    is_page(&page, 403, "go back to the shop to try again");
    assert!(page.body.contains("QuickBooks") && page.body.contains("access_denied"));
    is_page(
        &world.open(&callback, Some(&cookie)).await,
        410,
        START_AGAIN,
    );
    assert!(connections(world, &shop).await.is_empty());
    // The link was not used up by a refusal.
    world.start(&link).await;
}

/// The callback's address is part of what was agreed on.
async fn wrong_address(world: &World) {
    let shop = world.shop("connect").await;
    let (authorize, cookie) = world.start(&world.link(&shop).await).await;
    let callback = world.decide(&authorize, &shop.realm, "approve").await;
    let moved = |from: &str, to: &str| -> Url {
        let mut url = callback.clone();
        let path = url.path().replace(from, to);
        assert_ne!(path, url.path());
        url.set_path(&path);
        url
    };
    let tenant = callback
        .path()
        .rsplit('/')
        .next()
        .expect("a tenant")
        .to_owned();
    is_page(
        &world.open(&moved(&tenant, "someone"), Some(&cookie)).await,
        410,
        START_AGAIN,
    );
    let page = world
        .open(&moved("quickbooks", "nothing"), Some(&cookie))
        .await;
    is_page(&page, 404, "no provider is named nothing");
    let with_query = |query: &str| -> Url {
        let mut url = callback.clone();
        url.set_query(Some(query));
        url
    };
    is_page(
        &world
            .open(&with_query("code=x&realmId=1"), Some(&cookie))
            .await,
        410,
        START_AGAIN,
    );
    is_page(
        &world
            .open(&with_query("state=x&code=x&realmId=1"), Some(&cookie))
            .await,
        410,
        START_AGAIN,
    );
    // With neither a code nor an error the provider has said nothing, and the state stays.
    let state = format!("state={}", query(&callback, "state"));
    is_page(
        &world.open(&with_query(&state), Some(&cookie)).await,
        403,
        "neither a consent nor a refusal",
    );
    assert!(connections(world, &shop).await.is_empty());
    world.open(&callback, Some(&cookie)).await.expect(303);
}

/// Only the session that started can make a connection live.
async fn wrong_confirmation(world: &World) {
    let (shop, other) = (world.shop("connect").await, world.shop("connect").await);
    let (authorize, cookie) = world.start(&world.link(&shop).await).await;
    let callback = world.decide(&authorize, &shop.realm, "approve").await;
    let back = world.open(&callback, Some(&cookie)).await.expect(303);
    let (id, confirmation) = world.brought_back(&back);
    for wrong in ["", "x", &confirmation[1..]] {
        let refused = confirm(world, &shop, &id, wrong).await.expect(422).json();
        assert_eq!(
            refused["errors"][0]["pointer"], "#/confirmation",
            "{refused}"
        );
        assert_eq!(connections(world, &shop).await[0]["status"], "pending");
    }
    let refused = confirm(world, &other, &id, &confirmation)
        .await
        .expect(404)
        .json();
    assert_eq!(
        refused["code"], "not_found",
        "another merchant has no such connection"
    );
    let live = confirm(world, &shop, &id, &confirmation)
        .await
        .expect(200)
        .json();
    assert_eq!(live["status"], "live", "wrong tries did not use it up");
}

/// Connecting the same company again renews the connection, and the old one works until then.
async fn opened_twice(world: &World) {
    let shop = world.connected_shop("connect").await;
    let before = connections(world, &shop).await;
    let (authorize, cookie) = world.start(&world.link(&shop).await).await;
    let callback = world.decide(&authorize, &shop.realm, "approve").await;
    let back = world.open(&callback, Some(&cookie)).await.expect(303);
    let (id, confirmation) = world.brought_back(&back);
    assert_eq!(before[0]["id"], id, "the same connection");
    assert_eq!(
        connections(world, &shop).await[0]["status"],
        "live",
        "until it is confirmed too"
    );
    confirm(world, &shop, &id, &confirmation).await.expect(200);
    assert_eq!(connections(world, &shop).await.len(), 1);
}

/// A code that QuickBooks did not give out ends on a page that says what to do.
async fn exchange_fails(world: &World) {
    let shop = world.shop("connect").await;
    let (authorize, cookie) = world.start(&world.link(&shop).await).await;
    let mut callback = world.decide(&authorize, &shop.realm, "approve").await;
    let state = query(&callback, "state");
    callback.set_query(Some(&format!(
        "state={state}&code=made-up&realmId={}",
        shop.realm
    )));
    let page = world.open(&callback, Some(&cookie)).await;
    assert!((400..500).contains(&page.status), "{page:?}");
    is_page(&page, page.status, "<p>");
    assert!(
        connections(world, &shop).await.is_empty(),
        "nothing is connected"
    );
}

async fn links(world: &World) {
    let shop = world.shop("connect").await;
    let unknown: Url = format!("{}/connect/nothing", world.stack.urls.api)
        .parse()
        .expect("a URL");
    is_page(&world.open(&unknown, None).await, 410, START_AGAIN);
    let path = "/api/v1/integrations/accounting/quickbooks/connect";
    // The confirmation goes there, so it must be an address that only its owner can read.
    for bad in [
        "http://example.com/x",
        "https://user@example.com/x",
        "https://user:word@example.com/x",
        "https://10.0.0.1/x",
        "https://169.254.169.254/x",
        "https://[fd00::1]/x",
        "https://example.com/x?y=1",
        "https://example.com/x#y",
        "javascript:alert(1)",
    ] {
        let wish = json!({ "merchant_id": shop.merchant, "return_url": bad });
        let refused = world.post(path, &wish).await.expect(422).json();
        let pointer = &refused["errors"][0]["pointer"];
        assert_eq!(pointer, "#/return_url", "{bad}: {refused}");
    }
    let wish = json!({ "merchant_id": shop.merchant, "return_url": "https://example.com/x" });
    let unknown = path.replace("quickbooks", "nothing");
    assert_eq!(
        world.post(&unknown, &wish).await.expect(404).json()["code"],
        "not_found"
    );
    let elsewhere = path.replace("accounting", "inventory");
    assert_eq!(
        world.post(&elsewhere, &wish).await.expect(404).json()["code"],
        "not_found"
    );
}
