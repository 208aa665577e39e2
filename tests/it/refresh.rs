//! Tokens are renewed by one function at a time, over processes of their own: the real binary of
//! `refresh_run`, many times at once, on one connection; when all goes well, when the holder of the
//! lease dies at any of its steps, when the provider's answer is lost, when the table is throttled,
//! and when clocks are wrong and jump.

mod lost;
mod steps;
mod trouble;

use crate::world::{World, wait};
use local::stack::host::Host;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROCESSES: usize = 200;
/// A renewal that has not ended by then never will: a lease is taken over after half a minute.
const ENDS_WITHIN: Duration = Duration::from_secs(150);
/// How often a message may go back to its queue, as the queue of the renewals has it.
const ROUNDS_MAX: usize = 5;

/// What becomes of a connection when the provider rotated its tokens and the new ones were lost.
#[derive(Clone, Copy)]
struct Vendor {
    name: &'static str,
    category: &'static str,
    forgives: bool,
}

const VENDORS: [Vendor; 3] = [
    // The refresh token stays the same.
    Vendor {
        name: "hubspot",
        category: "crm",
        forgives: true,
    },
    // The token before still works for half an hour.
    Vendor {
        name: "xero",
        category: "accounting",
        forgives: true,
    },
    // The token before is dead at once, and using it ends the grant.
    Vendor {
        name: "salesforce",
        category: "crm",
        forgives: false,
    },
];
const STRICT: Vendor = VENDORS[2];
const SHORT_LIVED: Vendor = VENDORS[1];

pub async fn test(world: Arc<World>) {
    for vendor in VENDORS {
        // What an earlier test ordered and never met would meet these calls instead.
        let base = world.stack.urls.provider(vendor.name);
        let all = format!("{base}/_control/faults");
        let forgotten = world.send(Method::DELETE, &all, &[], None).await;
        forgotten.expect(200);
    }
    let mut before = Vec::new();
    for vendor in VENDORS {
        before.push(strangers(&world, vendor).await);
    }
    let mut host = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    let began = Instant::now();
    host.start(PROCESSES).await.expect("the processes");
    eprintln!(
        "  {PROCESSES} processes wait after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    at_once(&world, &host).await;
    lost::test(&world, &host).await;
    steps::test(&world, &host).await;
    host.kill().await;
    trouble::test(&world).await;
    // Connections of earlier tests may be renewed at any moment, between one question and the next.
    for (vendor, before) in VENDORS.into_iter().zip(before) {
        let what = format!("{}: no other request for tokens came", vendor.name);
        wait(&what, async || {
            let more = strangers(&world, vendor).await - before - steps::UNHEARD;
            (
                vec!["a request".to_owned(); more.unsigned_abs() as usize],
                0,
            )
        })
        .await;
    }
}

/// A connection that was imported.
struct Connected {
    merchant: String,
    vendor: Vendor,
    id: String,
    path: String,
    account: String,
}

/// A merchant with one connection, by tokens that it brings along.
async fn imported(world: &World, vendor: Vendor) -> Connected {
    let (provider, category) = (vendor.name, vendor.category);
    let shop = world.shop("refresh").await;
    let base = world.stack.urls.provider(provider);
    let account = format!(
        "{}{}",
        if provider == "hubspot" { "99" } else { "00D" },
        number(&shop.merchant)
    );
    let new = json!({ "id": account, "name": shop.merchant, "user": shop.merchant });
    world.control(base, "accounts", Some(new)).await;
    let grant = json!({ "account": account, "client_id": "standin-client" });
    let grant = world.control(base, "grants", Some(grant)).await.json();
    let refresh = grant["refresh_token"].as_str().expect("a refresh token");
    world.secret(refresh);
    let body = json!({
        "merchant_id": shop.merchant, "tokens": { "refresh_token": refresh },
    });
    let path = format!("/api/v1/integrations/{category}/{provider}/import");
    let connection = world.post(&path, &body).await.expect(201).json();
    assert_eq!(connection["status"], "live", "{connection}");
    let id = connection["id"].as_str().expect("an id").to_owned();
    Connected {
        path: format!("/api/v1/integrations/{category}/{id}"),
        merchant: shop.merchant,
        vendor,
        id,
        account,
    }
}

fn number(merchant: &str) -> String {
    let digits: String = merchant.chars().filter(char::is_ascii_digit).collect();
    format!("{digits:0>12}")
}

impl Connected {
    async fn show(&self, world: &World) -> Value {
        let path = format!("{}?merchant_id={}", self.path, self.merchant);
        world.get(&path).await.expect(200).json()
    }

    /// What the schedule sends when the first tokens are due.
    fn due(&self) -> Value {
        let notice = json!({ "due": [{
            "merchant_id": self.merchant, "connection_id": self.id, "category": self.vendor.category,
            "generation": 1,
        }] });
        json!({ "Records": [{
            "messageId": "m", "receiptHandle": "r", "body": notice.to_string(), "attributes": {},
            "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:refresh",
        }] })
    }

    async fn grant(&self, world: &World) -> Value {
        let base = world.stack.urls.provider(self.vendor.name);
        let grants = world.control(base, "grants", None).await.json();
        let mut grants = grants.as_array().into_iter().flatten();
        let grant = grants.find(|grant| grant["account"] == self.account.as_str());
        grant.expect("the grant is known").clone()
    }

    /// How often the provider was asked for tokens with those of this connection.
    async fn asked(&self, world: &World) -> u64 {
        let grant = self.grant(world).await;
        grant["asked"].as_u64().expect("a count")
    }

    /// The refresh token that is alive at the provider.
    async fn token(&self, world: &World) -> String {
        let grant = self.grant(world).await;
        let token = grant["refresh_tokens"][0].as_str();
        let token = token.expect("a refresh token");
        world.secret(token);
        token.to_owned()
    }

    /// Orders that the next token request with this connection's token never sees its answer.
    async fn lose_answer(&self, world: &World, kind: &str, hold_seconds: u64) -> String {
        let token = self.token(world).await;
        let encoded: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let fault = json!({
            "match": { "path_contains": "token", "body_contains": encoded },
            "kind": kind, "hold_seconds": hold_seconds, "times": 1,
        });
        let base = world.stack.urls.provider(self.vendor.name);
        world.control(base, "faults", Some(fault)).await;
        encoded
    }

    /// The access works, or the connection says what is wrong; as the provider's rule has it.
    async fn check(&self, world: &World, live: bool) {
        let body = json!({ "merchant_id": self.merchant });
        let path = format!("{}/check", self.path);
        if live {
            let checked = world.post(&path, &body).await.expect(200).json();
            assert_eq!(checked["status"], "live", "{checked}");
            assert_eq!(checked["health"], "healthy", "{checked}");
        } else {
            assert_eq!(self.show(world).await["status"], "reauth_required");
            // It is tried once more, and nothing comes of it.
            let checked = world.post(&path, &body).await.expect(200).json();
            assert_eq!(checked["status"], "reauth_required", "{checked}");
        }
    }
}

/// How often the provider was asked for tokens with such as no grant ever had, by whomever.
async fn strangers(world: &World, vendor: Vendor) -> i64 {
    let base = world.stack.urls.provider(vendor.name);
    let grants = world.control(base, "grants", None).await.json();
    let grants = grants.as_array().into_iter().flatten();
    let known: i64 = grants.filter_map(|grant| grant["asked"].as_i64()).sum();
    let requests = world.control(base, "requests", None).await.json();
    let paths = requests["paths"].as_object().into_iter().flatten();
    let tokens = paths.filter(|(path, _)| path.ends_with("/token"));
    let by_outcome = tokens.filter_map(|(_, by_outcome)| by_outcome.as_object());
    let all: i64 = by_outcome
        .flat_map(|by_outcome| by_outcome.values())
        .filter_map(Value::as_i64)
        .sum();
    all - known
}

/// The connections as they are stored, by their ids.
async fn stored(world: &World) -> BTreeMap<String, Value> {
    let rows = world.rows("TableConnections", None).await;
    let documents = rows.into_values().filter_map(|row| {
        let document: Value = serde_json::from_str(row["doc"]["S"].as_str()?).ok()?;
        Some((document["id"].as_str()?.to_owned(), document))
    });
    documents.collect()
}

/// Gives all `payloads` out at once, and those again that go back to the queue, until none is left.
/// Returns how many went back.
async fn wave(host: &Host, payloads: Vec<Value>) -> usize {
    let mut returned = 0;
    let mut left = payloads;
    for _ in 0..ROUNDS_MAX {
        let numbers = host.give(left.clone());
        let ended = tokio::time::timeout(ENDS_WITHIN, host.ended(&numbers)).await;
        let ended = ended.expect("every renewal ends");
        let both = left.into_iter().zip(ended);
        let back = both.filter(|(_, outcome)| {
            let answer = outcome.as_ref().expect("the function answers");
            answer["batchItemFailures"] != json!([])
        });
        left = back.map(|(payload, _)| payload).collect();
        returned += left.len();
        if left.is_empty() {
            return returned;
        }
    }
    panic!("{} messages went back {ROUNDS_MAX} times", left.len());
}

async fn at_once(world: &World, host: &Host) {
    let connected = imported(world, STRICT).await;
    // The import itself used the refresh token, so that it is ours alone.
    let before = connected.asked(world).await;
    let began = Instant::now();
    let returned = wave(host, vec![connected.due(); PROCESSES]).await;
    let asked = connected.asked(world).await - before;
    eprintln!(
        "  {PROCESSES} renewals of one connection within {:.1} s: {asked} token request",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(asked, 1, "one token request reaches the provider");
    assert_eq!(returned, 0, "nothing goes back to the queue");
    connected.check(world, true).await;
}
