//! Connecting as a merchant sees it, with every provider: from the link to a live connection, a consent
//! that was denied, a key that was mistyped, and access that was lost and is given again. What must not
//! end in a connection is in `attacks`.

use crate::browser::is_page;
use crate::providers::{PROVIDERS, Provider};
use crate::world::{Shop, World, query, wait};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const START_AGAIN: &str = "go back to the shop and start again";
const LOST: &str = "connection.reauth_required";

pub async fn test(world: Arc<World>) {
    let secret = world.receiver_secret().await;
    // Side by side: each provider has a stand-in and merchants of its own.
    let tasks: Vec<_> = PROVIDERS
        .iter()
        .map(|provider| tokio::spawn(of_one(world.clone(), provider, secret.clone())))
        .collect();
    let mut lost = Vec::new();
    for (provider, task) in PROVIDERS.iter().zip(tasks) {
        match task.await {
            Ok(connection) => lost.push(connection),
            Err(_) => panic!("{}: the message is above", provider.name),
        }
    }
    eprintln!(
        "  {} providers were connected, lost and repaired",
        lost.len()
    );
    told_once(&world, &lost).await;
}

async fn of_one(world: Arc<World>, provider: &'static Provider, secret: String) -> String {
    let (shop, id) = good_way(&world, provider).await;
    match provider.token {
        Some(_) => denied(&world, provider).await,
        None => mistyped(&world, provider).await,
    }
    connected_twice(&world, &shop, &id).await;
    side_by_side(&world, provider).await;
    repaired(&world, &shop, &id, &secret).await;
    if provider.name == "salesforce" {
        replaced(&world, &shop, &id).await;
    }
    id
}

/// One browser that has begun two connections finishes the one and the other.
async fn side_by_side(world: &World, provider: &'static Provider) {
    let mut begun = Vec::new();
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let shop = world.shop_at(provider, "side-by-side").await;
        let link = world.link(&shop).await;
        let (at, cookie) = world.start(&link).await;
        begun.push((shop, at));
        cookies.push(cookie);
    }
    let cookies = cookies.join("; ");
    for (shop, at) in begun {
        let callback = world.approve(&shop, &at).await;
        let back = world.bring(&callback, Some(&cookies)).await.expect(303);
        let (id, confirmation) = world.brought_back(&back);
        world.confirm(&shop, &id, &confirmation).await.expect(200);
    }
}

async fn good_way(world: &World, provider: &'static Provider) -> (Shop, String) {
    let shop = world.shop_at(provider, "connect").await;
    let name = provider.name;
    let link = world.link(&shop).await;
    let (at, cookie) = world.start(&link).await;
    if provider.token.is_some() {
        assert_eq!(query(&at, "response_type"), "code", "{name}");
    }
    let callback = world.approve(&shop, &at).await;
    assert!(world.connections(&shop).await.is_empty(), "nothing yet");
    let back = world.bring(&callback, Some(&cookie)).await.expect(303);
    assert_eq!(back.header("cache-control"), "no-store");
    assert_eq!(back.header("referrer-policy"), "no-referrer");
    let (id, confirmation) = world.brought_back(&back);
    let pending = world.connections(&shop).await;
    assert_eq!(pending.len(), 1, "{name}");
    assert_eq!(
        (&pending[0]["id"], &pending[0]["status"]),
        (&json!(id), &json!("pending"))
    );

    let live = world.confirm(&shop, &id, &confirmation).await;
    let live = live.expect(200).json();
    for (member, expected) in [
        ("status", json!("live")),
        ("provider", json!(name)),
        ("category", json!(provider.category)),
        ("merchant_id", json!(shop.merchant)),
        ("tenant_id", json!(shop.account.tenant_id)),
        ("tenant_name", json!(shop.account.tenant_name)),
        ("trouble", json!(null)),
    ] {
        assert_eq!(live[member], expected, "{name}: {member} of {live}");
    }
    let scopes: BTreeSet<&str> = live["scopes"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let asked: BTreeSet<&str> = provider.scopes.iter().copied().collect();
    assert_eq!(scopes, asked, "{name}");
    assert_eq!(
        live["next_refresh_at"].is_string(),
        provider.renews,
        "{name}: {live}"
    );
    let shown = world.connections(&shop).await;
    assert_eq!(shown, [live], "{name}");
    for secret in world.secrets.lock().expect("not poisoned").iter() {
        let text = shown[0].to_string();
        assert!(!text.contains(&**secret), "{name} shows a secret: {text}");
    }
    (shop, id)
}

async fn denied(world: &World, provider: &'static Provider) {
    let shop = world.shop_at(provider, "connect").await;
    let link = world.link(&shop).await;
    let (at, cookie) = world.start(&link).await;
    let callback = world.decide(&at, &shop.account, "deny").await;
    assert_eq!(callback.get("error"), "access_denied");
    let page = world.bring(&callback, Some(&cookie)).await;
    is_page(&page, 403, "go back to the shop to try again");
    assert!(page.body.contains(provider.title) && page.body.contains("access_denied"));
    let again = world.bring(&callback, Some(&cookie)).await;
    is_page(&again, 410, START_AGAIN);
    assert!(world.connections(&shop).await.is_empty());
    // The link was not used up by a refusal.
    let visit = world.visit_by(&shop, link).await;
    let back = world.bring(&visit.callback, Some(&visit.cookie)).await;
    world.brought_back(&back);
}

/// The same form is sent again with the key as it should have been.
async fn mistyped(world: &World, provider: &'static Provider) {
    let shop = world.shop_at(provider, "connect").await;
    let visit = world.visit(&shop).await;
    let cookie = Some(visit.cookie.as_str());
    let member = provider.secret_key();
    let right = visit.callback.get(member);
    let wrong = visit
        .callback
        .with(member, &right.to_lowercase().replace('0', "O"));
    let page = world.bring(&wrong, cookie).await;
    is_page(&page, 424, "check what was entered");
    assert!(!page.body.contains(&right[8..]), "no key is shown");
    assert!(world.connections(&shop).await.is_empty());
    // Blanks around a key come along when it is copied.
    let right = visit.callback.with(member, &format!(" {right}\n"));
    let back = world.bring(&right, cookie).await.expect(303);
    let (id, confirmation) = world.brought_back(&back);
    let live = world.confirm(&shop, &id, &confirmation).await;
    live.expect(200);
}

/// Where each consent leaves a grant of its own, a consent that replaces another, one that is refused
/// and a disconnect leave none behind.
async fn replaced(world: &World, shop: &Shop, id: &str) {
    let alive = async || {
        let grants = world.at(shop.provider, "grants", None).await;
        let grants = grants.as_array().expect("a list").iter();
        let of_account = grants.filter(|grant| grant["account"] == shop.account.id.as_str());
        of_account.filter(|grant| grant["revoked"] == false).count()
    };
    for _ in 0..2 {
        let (_, confirmation) = world.pending(shop).await;
        world.confirm(shop, id, &confirmation).await.expect(200);
        assert_eq!(alive().await, 1, "what was replaced is given back");
    }
    let thief = Shop {
        merchant: world.shop("connect-thief").await.merchant,
        ..shop.clone()
    };
    let visit = world.visit(&thief).await;
    let refused = world.bring(&visit.callback, Some(&visit.cookie)).await;
    refused.expect(409);
    assert_eq!(alive().await, 1, "what was refused is given back");
    world.disconnect(shop, id).await;
    assert_eq!(alive().await, 0);
}

/// Connecting the same account again renews the connection, and the old access works until then.
async fn connected_twice(world: &World, shop: &Shop, id: &str) {
    let (again, confirmation) = world.pending(shop).await;
    assert_eq!(again, id, "the same connection");
    let shown = world.connections(shop).await;
    assert_eq!(shown[0]["status"], "live", "until it is confirmed too");
    world.confirm(shop, id, &confirmation).await.expect(200);
    assert_eq!(world.connections(shop).await.len(), 1);
}

/// Access is taken away at the provider; the next use finds that out, the developer is told, and a
/// reconnect repairs the connection under its id.
async fn repaired(world: &World, shop: &Shop, id: &str, secret: &str) {
    let (name, category) = (shop.provider.name, shop.provider.category);
    world.endpoint_with(shop, &[LOST], secret).await;
    let at = async |last: &str| {
        let path = format!("/api/v1/integrations/{category}/{id}/{last}");
        let body = json!({ "merchant_id": shop.merchant });
        world.post(&path, &body).await.expect(200).json()
    };
    // What the merchant stopped stays stopped through it all.
    assert_eq!(at("pause").await["status"], "paused");
    let account = json!({ "account": shop.account.id });
    world.at(shop.provider, "revoke", Some(account)).await;
    // The second set of tokens is in use.
    let due = json!({ "due": [{
        "merchant_id": shop.merchant, "connection_id": id, "category": category, "generation": 2,
    }] });
    // A message may come twice.
    world.enqueue("QueueRefresh", &due).await;
    world.enqueue("QueueRefresh", &due).await;
    wait(&format!("the loss of {name}"), async || {
        let shown = world.connections(shop).await;
        let lost = shown[0]["status"] == "reauth_required";
        let missing = (!lost).then(|| shown[0].to_string());
        (missing.into_iter().collect(), usize::from(lost))
    })
    .await;
    let shown = world.connections(shop).await;
    assert_eq!(shown[0]["trouble"]["code"], "invalid_grant", "{name}");
    let words = shown[0]["trouble"]["detail"].as_str().unwrap_or_default();
    assert!(words.contains("connect it again"), "{name}: {words}");
    assert_eq!(shown[0]["next_refresh_at"], json!(null), "{name}");

    let mut shop = shop.clone();
    shop.account.keys = shop.provider.new_keys(&shop.account, world.number());
    world.make_keys(&shop).await;
    let link = world.reconnect(&shop, id).await;
    let visit = world.visit_by(&shop, link).await;
    let back = world.bring(&visit.callback, Some(&visit.cookie)).await;
    let (same, confirmation) = world.brought_back(&back.expect(303));
    assert_eq!(same, id, "{name}");
    let still = world.connections(&shop).await;
    assert_eq!(
        still[0]["status"], "reauth_required",
        "until it is confirmed"
    );
    let again = world.confirm(&shop, id, &confirmation).await;
    let again = again.expect(200).json();
    assert_eq!(again["status"], "paused", "{name}: nobody has resumed it");
    assert_eq!(again["trouble"], json!(null), "{name}");
    let live = at("resume").await;
    assert_eq!(live["status"], "live", "{name}");
    if shop.provider.renews {
        // A token that ended before its time is renewed at its next use, and nobody is called.
        let account = json!({ "account": shop.account.id });
        world
            .at(shop.provider, "expire_access_tokens", Some(account))
            .await;
    }
    let path = format!("/api/v1/integrations/{category}/{id}/check");
    let body = json!({ "merchant_id": shop.merchant });
    let checked = world.post(&path, &body).await.expect(200).json();
    assert_eq!(
        (&checked["status"], &checked["health"]),
        (&json!("live"), &json!("healthy")),
        "{name}: {checked}"
    );
    assert_eq!(world.connections(&shop).await.len(), 1, "{name}");
}

/// Each loss is told exactly once: one event, which the receiver took once.
async fn told_once(world: &World, lost: &[String]) {
    wait("the news of each loss", async || {
        let told = told(world).await;
        let missing = lost.iter().filter(|id| !told.contains(id));
        (missing.cloned().collect(), told.len())
    })
    .await;
    wait("what is still to be told", async || {
        let mut left = world.outbox().await;
        for queue in [
            "QueueRefresh",
            "QueueWebhookFanout",
            "QueueWebhookDeliver",
            "QueueWebhookRetry",
            "QueueWebhookSlow",
        ] {
            left += world.queued(queue).await;
        }
        let missing = (left > 0).then(|| format!("{left} messages"));
        let progress = usize::MAX - 1 - usize::try_from(left).expect("small");
        (missing.into_iter().collect(), progress)
    })
    .await;
    let told = told(world).await;
    let unique: BTreeSet<&String> = told.iter().collect();
    assert_eq!(unique.len(), told.len(), "told twice: {told:?}");
}

/// The connections of which the receiver was told that they are lost, once for each delivery.
async fn told(world: &World) -> Vec<String> {
    let lines = world.receiver("deliveries", None).await.body;
    lines
        .lines()
        .filter_map(|line| {
            let delivery: Value = serde_json::from_str(line).expect("a delivery");
            let body = STANDARD.decode(delivery["body"].as_str()?).ok()?;
            let body: Value = serde_json::from_slice(&body).ok()?;
            (body["type"] == LOST).then(|| body["data"]["id"].as_str().map(str::to_owned))?
        })
        .collect()
}
