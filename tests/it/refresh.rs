//! Tokens are renewed by one function at a time, over processes of their own: the real binary of
//! `refresh_run`, many times at once, on one connection.

use crate::world::{World, wait};
use local::stack::host::Host;
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

const PROCESSES: usize = 200;
/// How many come after one that was killed in the middle.
const FOLLOWERS: usize = 12;

pub async fn test(world: Arc<World>) {
    at_once(&world).await;
    // Both wait for the same lease to stand still, so they wait side by side.
    tokio::join!(
        killed(&world, "hubspot", "crm", Kill::BeforeTheEffect, "live"),
        // The token before still works for half an hour there, so nothing is lost.
        killed(&world, "xero", "accounting", Kill::AfterTheEffect, "live"),
        // The only good token went with the process, and the provider knows no grace.
        killed(
            &world,
            "salesforce",
            "crm",
            Kill::AfterTheEffect,
            "reauth_required"
        ),
    );
}

/// A connection that was imported, and how often its provider was asked for tokens since.
struct Connected {
    merchant: String,
    provider: &'static str,
    id: String,
    category: &'static str,
    path: String,
    account: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kill {
    BeforeTheEffect,
    AfterTheEffect,
}

/// A merchant with one connection, by tokens that it brings along.
async fn imported(world: &World, provider: &'static str, category: &'static str) -> Connected {
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
        provider,
        category,
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
            "merchant_id": self.merchant, "connection_id": self.id, "category": self.category,
            "generation": 1,
        }] });
        json!({ "Records": [{
            "messageId": "m", "receiptHandle": "r", "body": notice.to_string(), "attributes": {},
            "messageAttributes": {}, "eventSource": "aws:sqs", "awsRegion": "us-east-1",
            "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:refresh",
        }] })
    }

    /// How often this provider was asked for tokens: no other test is at work meanwhile.
    async fn asked(&self, world: &World) -> u64 {
        let base = world.stack.urls.provider(self.provider);
        let requests = world.control(base, "requests", None).await.json();
        let paths = requests["paths"].as_object().into_iter().flatten();
        let tokens = paths.filter(|(path, _)| path.ends_with("/token"));
        let by_outcome = tokens.filter_map(|(_, by_outcome)| by_outcome.as_object());
        by_outcome
            .flat_map(|by_outcome| by_outcome.values())
            .filter_map(Value::as_u64)
            .sum()
    }

    /// The refresh token that is alive at the provider.
    async fn token(&self, world: &World) -> String {
        let base = world.stack.urls.provider(self.provider);
        let grants = world.control(base, "grants", None).await.json();
        let mut grants = grants.as_array().into_iter().flatten();
        let grant = grants.find(|grant| grant["account"] == self.account.as_str());
        let grant = grant.expect("the grant is known");
        let token = grant["refresh_tokens"][0]
            .as_str()
            .expect("a refresh token");
        world.secret(token);
        token.to_owned()
    }
}

async fn at_once(world: &World) {
    let connected = imported(world, "salesforce", "crm").await;
    // The import itself used the refresh token, so that it is ours alone.
    let before = connected.asked(world).await;
    let mut host = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    let began = Instant::now();
    host.start(PROCESSES).await.expect("the processes");
    eprintln!(
        "  {PROCESSES} processes wait after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let began = Instant::now();
    let numbers = host.give(vec![connected.due(); PROCESSES]);
    for outcome in host.ended(&numbers).await {
        let answer = outcome.expect("the function answers");
        assert_eq!(answer["batchItemFailures"], json!([]), "{answer}");
    }
    host.kill().await;
    let asked = connected.asked(world).await - before;
    eprintln!(
        "  {PROCESSES} renewals of one connection within {:.1} s: {asked} token request",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(asked, 1, "one token request reaches the provider");
    assert_eq!(connected.show(world).await["status"], "live");
    check(world, &connected, "live").await;
}

/// The access works, or the connection says what is wrong.
async fn check(world: &World, connected: &Connected, status: &str) {
    let body = json!({ "merchant_id": connected.merchant });
    let path = format!("{}/check", connected.path);
    if status == "live" {
        let checked = world.post(&path, &body).await.expect(200).json();
        assert_eq!(checked["status"], "live", "{checked}");
        assert_eq!(checked["health"], "healthy", "{checked}");
    } else {
        assert_eq!(connected.show(world).await["status"], status);
        world.post(&path, &body).await.expect(409);
    }
}

/// The holder of the lease dies in its call. Others watch its lease stand still and take over; what
/// becomes of the connection is the provider's rule.
async fn killed(
    world: &World,
    provider: &'static str,
    category: &'static str,
    kill: Kill,
    expected: &str,
) {
    let connected = imported(world, provider, category).await;
    let before = connected.asked(world).await;
    let token = connected.token(world).await;
    let encoded: String = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
    let kind = match kill {
        Kill::BeforeTheEffect => "timeout_before_effect",
        Kill::AfterTheEffect => "timeout_after_effect",
    };
    let fault = json!({
        "match": { "path_contains": "token", "body_contains": encoded },
        "kind": kind, "hold_seconds": 600, "times": 1,
    });
    let base = world.stack.urls.provider(provider);
    // What an earlier test ordered and never met would meet this call instead.
    let all = format!("{base}/_control/faults");
    world
        .send(Method::DELETE, &all, &[], None)
        .await
        .expect(200);
    world.control(base, "faults", Some(fault)).await;

    let mut holder = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    holder.start(1).await.expect("the process");
    let number = holder.give(vec![connected.due()])[0];
    wait("the holder is in its call", async || {
        if let Some(outcome) = holder.outcome(number) {
            panic!(
                "{provider}: it ended before: {outcome:?}\n{}",
                holder.logged()
            );
        }
        let rules = world.control(base, "faults", None).await.json();
        let mine = |rule: &&Value| rule["match"]["body_contains"] == encoded.as_str();
        let rules = rules.as_array().into_iter().flatten();
        let left = rules.filter(mine).count();
        (vec!["the call".to_owned(); left], 1 - left.min(1))
    })
    .await;
    holder.kill().await;

    let mut host = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    host.start(FOLLOWERS).await.expect("the processes");
    let began = Instant::now();
    let numbers = host.give(vec![connected.due(); FOLLOWERS]);
    for outcome in host.ended(&numbers).await {
        outcome.expect("the function answers");
    }
    host.kill().await;
    let asked = connected.asked(world).await - before;
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "  {provider}, the holder killed ({kind}): taken over within {seconds:.1} s, \
         {asked} token requests, {expected}"
    );
    assert_eq!(asked, 2, "the one that was killed, and one more");
    check(world, &connected, expected).await;
}
