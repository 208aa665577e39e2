//! What somebody changes in QuickBooks and in Xero reaches the ledger and the developer, woken by the
//! provider's webhook and by the schedule; and where the shop wins, it stands there again as it was sold.

use crate::hooks::key;
use crate::providers::PROVIDERS;
use crate::world::{Shop, World, event, order, sale, wait};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

/// The days on which nothing was sold.
const EDITS: [&str; 2] = ["2026-02-03", "2026-02-04"];
const SLOTS: u8 = 30;

pub async fn test(world: Arc<World>) {
    for name in ["quickbooks", "xero"] {
        let provider = PROVIDERS.iter().find(|one| one.name == name);
        let shop = world.shop_at(provider.expect("a provider"), "pull").await;
        if name == "xero" {
            let organisation = json!({
                "tenant": shop.account.id, "country": "US", "base_currency": "USD",
                "currencies": ["EUR"],
            });
            world
                .at(shop.provider, "organisations", Some(organisation))
                .await;
        }
        let connection = world.connect(&shop).await;
        world.endpoint(&shop, &["record.changed"]).await;
        let id = sell(&world, &shop).await;
        let sold = document(&world, &shop, 0).await.expect("it stands there");
        let day = date(&sold).to_owned();

        tell(&world, &shop, true).await;
        edit(&world, &shop, &sold, EDITS[0]).await;
        heard(&world, &shop, &connection, &id, 1).await;
        restored(&world, &shop, &day).await;
        tell(&world, &shop, false).await;

        let there = document(&world, &shop, 0).await.expect("it stands there");
        edit(&world, &shop, &there, EDITS[1]).await;
        scheduled(&world, &connection).await;
        heard(&world, &shop, &connection, &id, 2).await;
        restored(&world, &shop, &day).await;
        is_synced(&world, &shop, &connection, &id).await;
    }
    for queue in ["DeadHooks", "DeadPull", "DeadPullPlan"] {
        assert_eq!(world.queued(queue).await, 0, "{queue}");
    }
}

/// Sells something of which the document can still be changed, and waits until it stands there.
async fn sell(world: &World, shop: &Shop) -> String {
    let (id, events) = match shop.provider.name {
        "xero" => {
            let id = format!("{}-open", shop.merchant);
            let created = order(&id, 1, 777, "USD");
            let created = event(shop, &format!("{id}-c"), "order.created", created);
            (id, vec![created])
        }
        _ => {
            let sold = sale(shop, 0, 1500, "USD");
            (sold.order.clone(), sold.events.to_vec())
        }
    };
    let body = json!({ "events": events });
    world.post("/api/v1/events", &body).await.expect(200);
    wait("what was sold", || async {
        let there = document(world, shop, 0).await;
        let missing = there.is_none().then(|| id.clone());
        (missing.into_iter().collect(), 0)
    })
    .await;
    id
}

async fn document(world: &World, shop: &Shop, index: usize) -> Option<Value> {
    let path = match shop.provider.name {
        "xero" => format!("entities/Invoices?tenant={}", shop.account.id),
        _ => format!("entities/SalesReceipt?realm={}", shop.account.id),
    };
    let all = world.at(shop.provider, &path, None).await;
    all.as_array().expect("a list").get(index).cloned()
}

fn date(document: &Value) -> &str {
    let text = document["TxnDate"].as_str();
    let text = text.or(document["DateString"].as_str()).expect("a date");
    &text[..10]
}

/// Somebody else moves the document to another day.
async fn edit(world: &World, shop: &Shop, document: &Value, day: &str) {
    if shop.provider.name == "xero" {
        let body = json!({ "InvoiceID": document["InvoiceID"], "Date": day });
        let path = format!("entities/Invoices?tenant={}", shop.account.id);
        world.at(shop.provider, &path, Some(body)).await;
        return;
    }
    let realm = &shop.account.id;
    let grant = json!({ "realm": realm });
    let grant = world.quickbooks("grants", Some(grant)).await;
    let token = grant["access_token"].as_str().expect("a token");
    world.secret(token);
    let bearer = format!("Bearer {token}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ];
    let mut body = document.clone();
    body["TxnDate"] = json!(day);
    let base = world.stack.urls.provider("quickbooks");
    let url = format!("{base}/v3/company/{realm}/salesreceipt?minorversion=75");
    let sent = world.send(Method::POST, &url, &headers, Some(body.to_string()));
    sent.await.expect(200);
}

/// Lets the provider send webhooks, or no more.
async fn tell(world: &World, shop: &Shop, on: bool) {
    let name = shop.provider.name;
    let (url, base) = (world.stack.hooks_url(name), world.stack.urls.provider(name));
    match (name, on) {
        ("xero", _) => {
            let key = key(world, name, "webhook_key").await;
            let target = json!({ "url": url, "key": key, "duplicate": true, "lose": !on });
            world.at(shop.provider, "webhooks", Some(target)).await;
        }
        (_, true) => {
            let verifier = key(world, name, "webhook_verifier").await;
            let target = json!({
                "url": url, "verifier": verifier, "cloud_events": true, "doubled": true,
                "reversed": true,
            });
            world.quickbooks("webhooks", Some(target)).await;
        }
        (_, false) => {
            let target = format!("{base}/_control/webhooks");
            let gone = world.send(Method::DELETE, &target, &[], None).await;
            gone.expect(200);
        }
    }
}

/// Lets the schedule come now, and not in half an hour: the connection gets a row in every slot.
async fn scheduled(world: &World, connection: &str) {
    let values = json!({ ":slots": { "S": "pulled/" }, ":own": { "S": connection } });
    let filter = "begins_with(pk, :slots) and contains(sk, :own)";
    let rows = world
        .rows("TableConnections", Some((filter, &values)))
        .await;
    let (_, row) = rows.into_iter().next().expect("it is in the schedule");
    let table = world.stack.output("TableConnections").expect("an output");
    for slot in 0..SLOTS {
        let mut row = row.clone();
        row["pk"] = json!({ "S": format!("pulled/{slot}") });
        let put = json!({ "TableName": table, "Item": row });
        world
            .aws("dynamodb", "DynamoDB_20120810.PutItem", put)
            .await;
    }
    world.enqueue("QueuePullPlan", &json!({})).await;
}

/// Waits until the developer has heard of `count` changes of this record.
async fn heard(world: &World, shop: &Shop, connection: &str, id: &str, count: usize) {
    wait("webhooks of changes", || async {
        let lines = world.receiver("deliveries", None).await.body;
        let bodies = lines.lines().filter_map(|line| {
            let delivery: Value = serde_json::from_str(line).expect("a delivery");
            let body = STANDARD.decode(delivery["body"].as_str()?).ok()?;
            serde_json::from_slice::<Value>(&body).ok()
        });
        let ours = |body: &Value| {
            let data = &body["data"];
            body["type"] == "record.changed"
                && data["connection_id"] == connection
                && data["record"] == json!({ "type": "order", "id": id })
                && data["what"] == "changed"
                && data["fields"] == json!(["amounts"])
                && data["outcome"] == "shop_wins"
        };
        let ours = bodies.filter(ours).count();
        assert!(ours <= count, "a change is told twice");
        let missing = (ours < count).then(|| format!("{} {}", shop.provider.name, count - ours));
        (missing.into_iter().collect(), ours)
    })
    .await;
}

async fn restored(world: &World, shop: &Shop, day: &str) {
    wait("the shop's date in the books", || async {
        let there = document(world, shop, 0).await.expect("it stands there");
        let wrong = (date(&there) != day).then(|| there.to_string());
        (wrong.into_iter().collect(), 0)
    })
    .await;
}

async fn is_synced(world: &World, shop: &Shop, connection: &str, id: &str) {
    let path = format!(
        "/api/v1/integrations/accounting/{connection}/records/order/{id}?merchant_id={}",
        shop.merchant
    );
    wait("the row of the ledger", || async {
        let record = world.get(&path).await.expect(200).json();
        let wrong = (record["state"] != "synced").then(|| record.to_string());
        (wrong.into_iter().collect(), 0)
    })
    .await;
}
