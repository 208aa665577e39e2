//! What the functions logged in all tests of this run: JSON lines that name the request, the
//! merchant and the event, and hold nothing that was entrusted to us. And what they stored: no token,
//! key, code, state, cookie, link or confirmation as it was given out.

use crate::providers::PROVIDERS;
use crate::world::{World, sale, wait};
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// Shorter texts are no secrets, and would be found by accident.
const SECRET_CHARS_MIN: usize = 8;
/// What only a whole body holds.
const BODY_PARTS: [&str; 5] = [
    "unit_price",
    "placed_at",
    "PrivateNote",
    "grant_type",
    "root_key",
];

pub async fn test(world: Arc<World>) {
    // A run of its own, so that this test says something also when it is the only one.
    let shop = world.connected_shop("logs").await;
    world.endpoint(&shop, &["order.created"]).await;
    let sold = sale(&shop, 0, 1000, "USD");
    let events: Vec<&Value> = sold.events.iter().collect();
    world
        .post("/api/v1/events", &json!({ "events": events }))
        .await
        .expect(200);
    let ids: Vec<&str> = events
        .iter()
        .filter_map(|event| event["id"].as_str())
        .collect();
    wait("the order", async || {
        let books = world.books(&shop, "SalesReceipt").await;
        let delivered = world.received().await.contains(ids[0]);
        let missing = [(books.is_empty(), "receipt"), (!delivered, "webhook")];
        let missing = missing.into_iter().filter(|(is, _)| *is);
        (
            missing.map(|(_, what)| what.to_owned()).collect(),
            books.len(),
        )
    })
    .await;

    for provider in PROVIDERS.iter().filter(|one| one.name != "quickbooks") {
        let shop = world.shop_at(provider, "logs").await;
        world.connect(&shop).await;
    }
    let mut secrets = secrets(&world).await;
    assert!(
        secrets.len() >= 10,
        "{} secrets are looked for",
        secrets.len()
    );
    in_no_table(&world, &secrets).await;
    // The tables are there to hold customers; logs are not.
    secrets.extend(people(&world));
    // Lines come out of a function a moment after its work.
    wait("the lines of each step", async || {
        let lines = world.stack.logs(None).await.expect("the logs");
        (steps(&lines, &shop.merchant, &ids), lines.len())
    })
    .await;
    let lines = world.stack.logs(None).await.expect("the logs");
    eprintln!(
        "  {} lines, {} secrets looked for",
        lines.len(),
        secrets.len()
    );
    let finder = Finder::of(&secrets);
    for line in &lines {
        is_a_line(line);
        let text = line.to_string();
        if let Some(start) = finder.find(&text) {
            panic!(
                "a secret that starts with {start} is in a line of {}",
                line["function"]
            );
        }
        let part = BODY_PARTS.iter().find(|part| text.contains(**part));
        assert!(part.is_none(), "{part:?} of a body is in {text}");
        assert!(
            text.split("/connect/")
                .skip(1)
                .all(|rest| rest.starts_with("{link}") || rest.starts_with('…')),
            "a link is in {text}"
        );
    }
}

/// Which of the steps has no line that names the event and its merchant.
fn steps(lines: &[Value], merchant: &str, ids: &[&str]) -> Vec<String> {
    let wanted = [
        ("api_events", "accepted", ids),
        ("outbox_relay", "published", ids),
        ("sync_quickbooks", "done", ids),
        ("webhook_fanout", "done", ids),
        ("webhook_deliver", "done", &ids[..1]),
    ];
    let mut missing = Vec::new();
    for (function, message, ids) in wanted {
        for id in ids {
            let found = lines.iter().any(|line| {
                line["function"] == function
                    && line["message"] == message
                    && names(line, "event_id").contains(id)
                    && names(line, "merchant_id").contains(&merchant)
            });
            // The sweep is the other way out of the outbox.
            if !found && function != "outbox_relay" {
                missing.push(format!("{function}: {message} {id}"));
            }
        }
    }
    missing
}

/// The ids in a line: of the one thing that it is about, or of a whole batch.
fn names<'a>(line: &'a Value, member: &str) -> Vec<&'a str> {
    let all = line[format!("{member}s")].as_str();
    let text = all.or(line[member].as_str()).unwrap_or_default();
    text.split_whitespace().collect()
}

#[track_caller]
fn is_a_line(line: &Value) {
    for member in ["level", "timestamp", "message"] {
        assert!(
            line[member].is_string(),
            "no {member}, so no JSON of ours: {line}"
        );
    }
    let is_request = matches!(line["message"].as_str(), Some("served" | "accepted"));
    if is_request {
        let id = line["request_id"].as_str().unwrap_or_default();
        assert!(id.starts_with("req_"), "no request id: {line}");
    }
    if matches!(
        line["message"].as_str(),
        Some("accepted" | "done" | "published")
    ) {
        for member in ["merchant_id", "event_id"] {
            assert!(!names(line, member).is_empty(), "no {member}: {line}");
        }
    }
}

/// Looks for thousands of secrets in one pass over a text: by the beginnings that all of them have.
struct Finder<'a> {
    by_start: HashMap<&'a [u8], Vec<&'a str>>,
}

impl<'a> Finder<'a> {
    fn of(secrets: &'a BTreeSet<String>) -> Finder<'a> {
        let mut by_start: HashMap<&[u8], Vec<&str>> = HashMap::new();
        for secret in secrets {
            let start = &secret.as_bytes()[..SECRET_CHARS_MIN];
            by_start.entry(start).or_default().push(secret);
        }
        Finder { by_start }
    }

    /// How a secret begins that is in `text`. Not even the message of a failed test may show all.
    fn find(&self, text: &str) -> Option<&'a str> {
        let bytes = text.as_bytes();
        let found = bytes
            .windows(SECRET_CHARS_MIN)
            .enumerate()
            .find_map(|(at, start)| {
                let secrets = self.by_start.get(start)?;
                let whole = |secret: &&&str| bytes[at..].starts_with(secret.as_bytes());
                secrets.iter().find(whole).copied()
            })?;
        Some(found.get(..6).unwrap_or_default())
    }
}

/// No row of any table holds a secret as it was given out.
async fn in_no_table(world: &World, secrets: &BTreeSet<String>) {
    let tables: Vec<&String> = world
        .stack
        .outputs
        .keys()
        .filter(|name| name.starts_with("Table"))
        .collect();
    assert!(tables.len() >= 5, "{tables:?}");
    let finder = Finder::of(secrets);
    let mut count = 0;
    for table in tables {
        let rows = world.rows(table, None).await;
        count += rows.len();
        for (key, row) in rows {
            if let Some(start) = finder.find(&row.to_string()) {
                panic!("a secret that starts with {start} is in {table}, {key:?}");
            }
        }
    }
    eprintln!("  {count} rows, {} secrets looked for", secrets.len());
}

/// Everything that must not be seen, from where it was given out.
async fn secrets(world: &World) -> BTreeSet<String> {
    let mut secrets = world.secrets.lock().expect("not poisoned").clone();
    secrets.insert(world.stack.platform_key.clone());
    // The secrets of the deployment: platform key, root key of the vault, the QuickBooks app's.
    let list = world
        .aws("secretsmanager", "secretsmanager.ListSecrets", json!({}))
        .await;
    let list = list["SecretList"].as_array().expect("a list").clone();
    assert!(list.len() >= 3, "{list:?}");
    for secret in list {
        let body = json!({ "SecretId": secret["Name"] });
        let held = world
            .aws("secretsmanager", "secretsmanager.GetSecretValue", body)
            .await;
        let held: Value = serde_json::from_str(held["SecretString"].as_str().expect("a text"))
            .expect("secrets are JSON");
        for (name, value) in held.as_object().expect("an object") {
            // The id of the app is shown to every browser, and where the provider is, to anybody.
            if name != "client_id" && name != "environment" {
                secrets.insert(value.as_str().expect("a text").to_owned());
            }
        }
    }
    let state = world.stack.config.directory.join("state");
    // What the stand-in gave out: codes, access tokens and refresh tokens.
    let issued = texts(
        &state.join("standins/quickbooks.jsonl"),
        &["token", "refresh_token", "code"],
    );
    for kind in ["access-", "refresh-", "code-"] {
        assert!(
            issued.iter().any(|text| text.starts_with(kind)),
            "no {kind} was issued"
        );
    }
    secrets.extend(issued.into_iter().filter(|text| {
        ["access-", "refresh-", "code-"]
            .iter()
            .any(|kind| text.starts_with(kind))
    }));
    secrets.extend(texts(&state.join("receiver/secrets.jsonl"), &["secret"]));
    secrets.extend(texts(
        &state.join("receiver/connected.jsonl"),
        &["confirmation"],
    ));
    // The other stand-ins show what of theirs is alive; what the tests saw themselves is noted.
    for provider in PROVIDERS.iter().filter(|one| one.name != "quickbooks") {
        let grants = world.at(provider, "grants", None).await;
        let mut alive = 0;
        for grant in grants.as_array().expect("a list") {
            for kind in ["access_tokens", "refresh_tokens"] {
                let tokens = grant[kind].as_array().expect("a list");
                let tokens = tokens.iter().filter_map(Value::as_str);
                alive += tokens.clone().count();
                // The first half of such a pair is the account's name.
                secrets.extend(tokens.map(|token| match provider.name {
                    "voucherify" => token.rsplit(':').next().unwrap_or(token).to_owned(),
                    _ => token.to_owned(),
                }));
            }
        }
        assert!(alive > 0, "{} has given out nothing", provider.name);
    }
    secrets.retain(|secret| secret.len() >= SECRET_CHARS_MIN);
    secrets
}

/// The customers of the samples, and those that the tests have made up.
fn people(world: &World) -> BTreeSet<String> {
    let samples = world.stack.config.root.join("tests/samples/orders.jsonl");
    let mut people = texts(&samples, &["email", "phone"]);
    assert!(people.len() >= 5, "{} e-mails and telephones", people.len());
    people.insert("@example.".to_owned());
    people.retain(|text| text.len() >= SECRET_CHARS_MIN);
    people
}

/// The texts under these names, anywhere in a file of JSON lines.
fn texts(path: &std::path::Path, names: &[&str]) -> BTreeSet<String> {
    fn collect(value: &Value, names: &[&str], into: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if names.contains(&name.as_str()) => {
                            into.insert(text.clone());
                        }
                        other => collect(other, names, into),
                    }
                }
            }
            Value::Array(values) => {
                for value in values {
                    collect(value, names, into);
                }
            }
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    let text =
        std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for line in text.lines() {
        // The last line may still be on its way into the file.
        if let Ok(value) = serde_json::from_str::<Value>(line) {
            collect(&value, names, &mut found);
        }
    }
    found
}
