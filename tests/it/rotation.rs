//! The vault's root key is rotated under connections and endpoints that are in use: every data key is
//! wrapped anew, no ciphertext changes, and everything goes on.

use crate::world::{World, sale, wait};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn test(world: Arc<World>) {
    let shop = world.connected_shop("rotation").await;
    world.endpoint(&shop, &["order.created"]).await;
    let before = sealed(&world).await;
    assert!(before.len() >= 2, "a connection and an endpoint");
    let first = ring(&world).await;
    let old = first["current"].as_str().expect("a current key").to_owned();

    world
        .enqueue("QueueVaultRotate", &json!({ "step": "turn" }))
        .await;
    wait("a second root key", async || {
        let ring = ring(&world).await;
        let is_there = ring["current"] != old.as_str();
        (missing(is_there, "key"), usize::from(is_there))
    })
    .await;
    let turned = ring(&world).await;
    let new = turned["current"]
        .as_str()
        .expect("a current key")
        .to_owned();
    assert_eq!(turned[&old], first[&old], "the old one is kept for now");
    for key in [&turned[&old], &turned[&new]] {
        world.secret(key.as_str().expect("a key"));
    }
    // What was wrapped with the old key opens meanwhile.
    is_well(&world, &shop.merchant).await;

    // The queue holds the next message back until every function knows the new key. A test need not
    // wait: processes that start now know it.
    world.stack.kill_functions(None);
    let rewrap = json!({ "step": "rewrap", "root": new, "webhooks": false, "after": null });
    world.enqueue("QueueVaultRotate", &rewrap).await;
    let others_of = |rows: BTreeMap<String, Sealed>| {
        let others = rows.into_iter().filter(|(_, row)| row.root != new);
        others.map(|(id, _)| id).collect::<Vec<String>>()
    };
    wait("every data key is wrapped anew", async || {
        let left = others_of(sealed(&world).await);
        let done = before.len() - left.len().min(before.len());
        (left, done)
    })
    .await;
    // And the old one is kept until the last consent that was begun under it has ended.
    assert_eq!(ring(&world).await[&old], first[&old]);
    let retire = json!({ "step": "retire", "root": new });
    world.enqueue("QueueVaultRotate", &retire).await;
    wait("the old root key is forgotten", async || {
        let gone = ring(&world).await.get(&old).is_none();
        (missing(gone, "ring"), usize::from(gone))
    })
    .await;
    let after = sealed(&world).await;
    let mut same = 0;
    for (id, was) in &before {
        let now = &after[id];
        assert_eq!(now.root, new, "{id} was wrapped with {}", was.root);
        // The schedules go on meanwhile, and tokens that came due are others now.
        if now.fence == was.fence && !was.renews {
            assert_eq!(now.texts, was.texts, "{id} was wrapped with {}", was.root);
            same += 1;
        }
    }
    assert!(same >= 2, "a connection and an endpoint");
    is_well(&world, &shop.merchant).await;
    // The endpoint's secret still signs what its receiver verifies.
    let [created, _] = sale(&shop, 1, 1000, "USD").events;
    world.post("/api/v1/events", &created).await.expect(202);
    let id = created["id"].as_str().expect("an id").to_owned();
    wait("a signed webhook", async || {
        let received = world.receiver("received", None).await.json();
        let ids = received["ids"].as_array().cloned().unwrap_or_default();
        let came = ids.iter().any(|one| one == id.as_str());
        (missing(came, &id), usize::from(came))
    })
    .await;
    let count = after.len();
    eprintln!(
        "  {count} data keys are wrapped anew; no sealed text of {same} has changed, the others were renewed"
    );
}

fn missing(is_there: bool, what: &str) -> Vec<String> {
    if is_there {
        Vec::new()
    } else {
        vec![what.to_owned()]
    }
}

/// The ring of root keys, as the vault's secret holds it.
async fn ring(world: &World) -> Value {
    let id = world.stack.output("SecretVault").expect("an output");
    let body = json!({ "SecretId": id });
    let target = "secretsmanager.GetSecretValue";
    let answer = world.aws("secretsmanager", target, body).await;
    let text = answer["SecretString"].as_str().expect("a text");
    serde_json::from_str(text).expect("a ring")
}

/// A row that has a data key.
struct Sealed {
    /// The root key that wraps the data key.
    root: String,
    /// Everything that is sealed with the data key.
    texts: Vec<Value>,
    /// The latest lease to renew the tokens: null at an endpoint.
    fence: Value,
    renews: bool,
}

/// By id, every row that has a data key.
async fn sealed(world: &World) -> BTreeMap<String, Sealed> {
    let mut found = BTreeMap::new();
    for table in ["TableConnections", "TableWebhooks"] {
        for row in world.rows(table, None).await.into_values() {
            let text = row["doc"]["S"].as_str().expect("a document");
            let row: Value = serde_json::from_str(text).expect("JSON");
            // An import that failed half way has a key too, for a day, and no id.
            let (Some(root), Some(id)) = (row["key"]["root"].as_str(), row["id"].as_str()) else {
                continue;
            };
            let id = id.to_owned();
            let parts = ["tokens", "previous", "consent"];
            let mut texts: Vec<Value> = parts
                .iter()
                .map(|part| row[*part]["sealed"].clone())
                .collect();
            texts.push(row["secret"].clone());
            let sealed = Sealed {
                root: root.to_owned(),
                texts,
                fence: row["fence"].clone(),
                renews: row["lease"].is_object(),
            };
            found.insert(id, sealed);
        }
    }
    found
}

/// The connection's tokens open, and the provider takes them.
async fn is_well(world: &World, merchant: &str) {
    let path = format!("/api/v1/integrations?merchant_id={merchant}");
    let list = world.get(&path).await.expect(200).json();
    let id = list["data"][0]["id"].as_str().expect("a connection");
    let path = format!("/api/v1/integrations/accounting/{id}/check");
    let body = json!({ "merchant_id": merchant });
    let checked = world.post(&path, &body).await.expect(200).json();
    assert_eq!(
        (&checked["status"], &checked["health"]),
        (&json!("live"), &json!("healthy")),
        "{checked}"
    );
}
