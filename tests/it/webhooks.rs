//! What a developer's endpoint gets: signatures that the published libraries accept, and a second
//! try with the same id when it was not well.

use crate::world::{World, sale, wait};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;

pub async fn test(world: Arc<World>) {
    let shop = world.shop("webhooks").await;
    let endpoint = world
        .endpoint(&shop, &["order.created", "payment.processed"])
        .await;
    // The default wait of the local queue makes each retry slow.
    world.stack.redeliver_after(2).await.expect("the queues");

    // Not well for two requests, of whichever deliveries they are.
    let before = world.receiver("received", None).await.json();
    let mode = json!({ "requests": 2, "status": 503 });
    world.receiver("mode", Some(mode)).await;
    let failing = sale(&shop, 0, 1000, "USD");
    let [first, _] = &failing.events;
    world.post("/api/v1/events", first).await.expect(202);
    all_arrive(&world, &[first]).await;
    let after = world.receiver("received", None).await.json();
    let faulted = |counts: &Value| counts["faulted"].as_u64().expect("a count");
    assert_eq!(faulted(&after) - faulted(&before), 2, "two tries failed");
    let id = first["id"].as_str().expect("an id");
    let tries: Vec<(String, String)> = deliveries(&world)
        .await
        .iter()
        .filter(|delivery| delivery["headers"]["webhook-id"] == id)
        .map(|delivery| {
            let attempt = delivery["headers"]["webhook-attempt"].as_str();
            let body = delivery["body"].as_str();
            (
                attempt.unwrap_or_default().to_owned(),
                body.unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let attempts: Vec<&str> = tries.iter().map(|(attempt, _)| attempt.as_str()).collect();
    assert_eq!(attempts, ["1", "2", "3"], "the same id at every attempt");
    let bodies: BTreeSet<&str> = tries.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies.len(), 1, "the same bytes at every attempt");
    let path = format!(
        "/api/v1/webhooks/{endpoint}/attempts?merchant_id={}",
        shop.merchant
    );
    let log = world.get(&path).await.expect(200).json();
    let statuses: Vec<&Value> = log["data"][0]["attempts"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|attempt| &attempt["status"])
        .collect();
    assert_eq!(
        statuses,
        [503, 503, 204],
        "the log shows what came back: {log}"
    );

    let sales: Vec<_> = (1..=5)
        .map(|number| sale(&shop, number, 1000, "USD"))
        .collect();
    let events: Vec<&Value> = sales.iter().flat_map(|sale| &sale.events).collect();
    let body = json!({ "events": events });
    let answer = world.post("/api/v1/events", &body).await.expect(200).json();
    assert_eq!(answer["accepted"], events.len());
    all_arrive(&world, &events).await;
    world.stack.redeliver_after(20).await.expect("the queues");

    is_read_as_well(&world, &shop.merchant, &endpoint, &events).await;

    // The public key, which anybody may ask for.
    let path = format!(
        "{}/.well-known/webhooks/{}/{endpoint}/jwks.json",
        world.stack.urls.api, shop.merchant
    );
    let keys = world.send(Method::GET, &path, &[], None).await.expect(200);
    let keys = keys.json();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(1), "{keys}");

    // Every delivery of this endpoint, also the tries that were answered with an error.
    let recorded: String = deliveries(&world)
        .await
        .iter()
        .filter(|delivery| {
            let id = delivery["headers"]["webhook-id"].as_str();
            id.is_some_and(|id| id.starts_with(&shop.merchant))
        })
        .map(|delivery| {
            let mut delivery = delivery.clone();
            delivery["jwk"] = keys["keys"][0].clone();
            format!("{delivery}\n")
        })
        .collect();
    let count = recorded.lines().count();
    assert!(count >= events.len() + 3, "{count} deliveries");
    let root = &world.stack.config.root;
    let python = root.join(".local/venv-sdk/bin/python");
    let sdk = root.join("tests/sdk");
    for (program, script) in [
        (python.as_path(), sdk.join("test_webhooks.py")),
        (Path::new("node"), sdk.join("verify.mjs")),
    ] {
        let said = verified_by(program, &script, &recorded).await;
        assert_eq!(
            said,
            json!({ "verified": count, "failed": 0 }),
            "{}",
            script.display()
        );
        // What was not signed by us is not verified, or the check above proves nothing.
        let forged = recorded.replacen("\"v1,", "\"v1,AAAA", 1);
        let said = verified_by(program, &script, &forged).await;
        assert_eq!(said["failed"], 1, "{}", script.display());
        let forged = recorded.replacen(" v1a,", " v1a,AAAA", 1);
        let said = verified_by(program, &script, &forged).await;
        assert_eq!(said["failed"], 1, "by the public key: {}", script.display());
    }
}

/// The feed holds what was pushed, and nothing behind its end. What a filter would keep back can be seen.
async fn is_read_as_well(world: &World, merchant: &str, endpoint: &str, events: &[&Value]) {
    let feed = format!("/api/v1/webhooks/{endpoint}/feed?merchant_id={merchant}");
    let first = world.get(&format!("{feed}&limit=3")).await.expect(200);
    let first = first.json();
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let rest = world
        .get(&format!("{feed}&limit=100&after={cursor}"))
        .await
        .expect(200)
        .json();
    let pages = [&first, &rest].map(|page| page["data"].as_array().expect("a list").clone());
    let read: Vec<Value> = pages.concat();
    let ids: BTreeSet<&str> = read
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect();
    assert_eq!(ids.len(), read.len(), "nothing twice");
    for event in events {
        let id = event["id"].as_str().expect("an id");
        assert!(ids.contains(id), "{id} stands in the feed");
    }
    let last = rest["next_cursor"].as_str().expect("a cursor");
    let end = world
        .get(&format!("{feed}&after={last}"))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&end["data"], &end["has_more"]),
        (&json!([]), &json!(false)),
        "{end}"
    );
    let (begin, end) = last.split_at(1);
    let other = if begin == "A" { "B" } else { "A" };
    let tampered = format!("{feed}&after={other}{end}");
    world.get(&tampered).await.expect(422);

    let stats = format!("/api/v1/webhooks/{endpoint}/stats?merchant_id={merchant}");
    let stats = world.get(&stats).await.expect(200).json();
    assert_eq!(
        (&stats["deliveries"], &stats["states"]["delivered"]),
        (&json!(ids.len()), &json!(ids.len())),
        "{stats}"
    );
    // The first was answered with an error twice, or two were once.
    assert_eq!(stats["attempts"], ids.len() + 2, "{stats}");

    let dry_run = format!("/api/v1/webhooks/{endpoint}/dry-run");
    for (filter, kept_back) in [
        (
            "@.type == 'order.created' || @.type == 'payment.processed'",
            json!([]),
        ),
        ("@.type == 'customer.created'", json!(["filter"])),
    ] {
        let wish = json!({
            "merchant_id": merchant, "event_id": events[0]["id"], "filter": filter,
        });
        let shown = world.post(&dry_run, &wish).await.expect(200).json();
        assert_eq!(shown["kept_back_by"], kept_back, "{filter}");
    }
    let wish = json!({
        "merchant_id": merchant, "event_id": events[0]["id"], "filter": "@.data.total >",
    });
    world.post(&dry_run, &wish).await.expect(422);

    // A log of failures alone is no feed, and order needs the whole.
    let path = format!("/api/v1/webhooks/{endpoint}");
    let change = async |log: &str, ordering: &str| {
        let wish = json!({ "merchant_id": merchant, "log": log, "ordering": ordering });
        world
            .api(Method::PATCH, &path, Some(wish.to_string()))
            .await
    };
    change("failures", "by_key").await.expect(422);
    let changed = change("failures", "none").await.expect(200).json();
    assert_eq!(changed["log"], "failures", "{changed}");
    world.get(&feed).await.expect(409);
    change("full", "none").await.expect(200);
    world.get(&feed).await.expect(200);
}

async fn all_arrive(world: &World, events: &[&Value]) {
    let ids: Vec<&str> = events
        .iter()
        .map(|event| event["id"].as_str().expect("an id"))
        .collect();
    wait("webhooks", async || {
        let seen = world.received().await;
        let missing = ids.iter().filter(|id| !seen.contains(**id));
        (missing.map(|id| (*id).to_owned()).collect(), seen.len())
    })
    .await;
}

async fn deliveries(world: &World) -> Vec<Value> {
    let lines = world.receiver("deliveries", None).await.body;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a delivery"))
        .collect()
}

/// Hands deliveries to a program and returns what its last line says.
async fn verified_by(program: &Path, script: &Path, deliveries: &str) -> Value {
    let mut child = tokio::process::Command::new(program)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("piped");
    stdin
        .write_all(deliveries.as_bytes())
        .await
        .expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    serde_json::from_str(last).unwrap_or_else(|error| {
        let errors = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: {} said {said} {errors}", script.display())
    })
}
