//! Function processes are killed at random while 200 orders and more go through: nothing is lost,
//! nothing is done twice, and both sides agree to the penny.
//!
//! The seed of the choices is printed, and `KILL_SEED` gives it back. Where in its work a process is
//! hit depends on the machine all the same; each single point between two writes is the simulator's.

use crate::world::{Sale, Shop, World, event, refund, sale, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At least; orders go on for as long as the killing does, since a process that has died comes back
/// for work only, and a fast machine is done with these before the last of the kills.
const ORDERS: usize = 200;
/// Together in one request, with their payments and refunds.
const BATCH_ORDERS: usize = 10;
/// Messages that keep every function at work; more of them would only take longer.
const ENOUGH_WAITING: u64 = 60;
/// Every fifth order is refunded in part.
const REFUND_EVERY: usize = 5;
const KILLS: usize = 60;
const KILL_PAUSE: Duration = Duration::from_millis(150);
/// Long enough for any batch, so that a message is not handed out while it is worked on.
const REDELIVER_SECONDS: u32 = 10;
const CURRENCIES: [&str; 4] = ["USD", "EUR", "GBP", "JPY"];
const FUNCTIONS: [&str; 5] = [
    "sync_quickbooks",
    "webhook_fanout",
    "webhook_deliver",
    "outbox_relay",
    "api_events",
];

pub async fn test(world: Arc<World>) {
    let seed = seed();
    eprintln!("  seed: KILL_SEED={seed}");
    let shop = world.connected_shop("kill").await;
    world
        .endpoint(&shop, &["order.created", "payment.processed"])
        .await;
    world
        .stack
        .redeliver_after(REDELIVER_SECONDS)
        .await
        .expect("the queues");

    let killer = tokio::spawn(kill_at_random(world.clone(), seed));
    let began = Instant::now();
    let mut sales: Vec<Sale> = Vec::new();
    let (mut resent, mut most) = (0, 0);
    while sales.len() < ORDERS || !killer.is_finished() {
        let first = sales.len();
        sales.extend((first..first + BATCH_ORDERS).map(|n| {
            let minor = 1000 + i64::try_from(n * 7).expect("small");
            sale(&shop, n, minor, CURRENCIES[n % CURRENCIES.len()])
        }));
        resent += send(&world, &shop, &sales, first).await;
        let mut waiting = world.queued("QueueSyncQuickbooks").await;
        most = most.max(waiting);
        while sales.len() >= ORDERS && waiting > ENOUGH_WAITING && !killer.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
            waiting = world.queued("QueueSyncQuickbooks").await;
        }
    }
    eprintln!(
        "  {} orders accepted after {:.1} s, {resent} requests sent again, at most {most} messages waited",
        sales.len(),
        began.elapsed().as_secs_f64()
    );
    assert!(resent > 0, "no request met a killed process");
    assert!(
        most > 0,
        "queues that always look empty prove nothing at the end"
    );
    let killed = killer.await.expect("the killer ends by itself");
    eprintln!(
        "  {killed:?} killed within {:.1} s",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(killed.values().sum::<usize>(), KILLS);
    assert!(
        killed.len() >= 4,
        "the kills hit all kinds of functions: {killed:?}"
    );

    arrived(&world, &shop, &sales).await;
    eprintln!(
        "  all in the books and delivered after {:.1} s",
        began.elapsed().as_secs_f64()
    );
    agree(&world, &shop, &sales).await;
    at_rest(&world).await;
    // Doubles would come from messages that were handled again, so the books are read once more
    // when nothing is left that could be.
    agree(&world, &shop, &sales).await;
    assert_eq!(world.dead_letters().await, []);
    world.stack.redeliver_after(20).await.expect("the queues");
}

#[expect(
    clippy::disallowed_methods,
    reason = "The variable belongs to this test; functions never see it."
)]
fn seed() -> u64 {
    let given = std::env::var("KILL_SEED").ok();
    given.map_or_else(rand::random, |seed| seed.parse().expect("a number"))
}

/// Kills until the number is reached; returns how often each function was hit.
async fn kill_at_random(world: Arc<World>, seed: u64) -> BTreeMap<&'static str, usize> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut killed = BTreeMap::new();
    let mut count = 0;
    let began = Instant::now();
    while count < KILLS {
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "too few processes to kill: {killed:?}"
        );
        tokio::time::sleep(KILL_PAUSE + Duration::from_millis(random.random_range(0..50))).await;
        let function = *FUNCTIONS.choose(&mut random).expect("not empty");
        let pids = world.stack.function_pids(function);
        let Some(pid) = pids.choose(&mut random) else {
            continue;
        };
        if kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok() {
            count += 1;
            *killed.entry(function).or_default() += 1;
        }
    }
    killed
}

fn refund_of(shop: &Shop, index: usize, sale: &Sale) -> Option<(String, i64, Value)> {
    if !index.is_multiple_of(REFUND_EVERY) {
        return None;
    }
    let id = format!("{}-r", sale.order);
    let minor = sale.minor / 2;
    let body = refund(&id, &sale.order, minor, sale.currency);
    let event = event(shop, &format!("{id}-event"), "order.refunded", body);
    Some((id, minor, event))
}

/// Sends what belongs to the sales from this one on, and again what was not accepted, with the same
/// ids. Returns how often again.
async fn send(world: &World, shop: &Shop, sales: &[Sale], first: usize) -> usize {
    let mut events: Vec<Value> = Vec::new();
    for (index, sale) in sales.iter().enumerate().skip(first) {
        events.extend(sale.events.iter().cloned());
        events.extend(refund_of(shop, index, sale).map(|(_, _, event)| event));
    }
    let body = json!({ "events": events });
    let mut resent = 0;
    let began = Instant::now();
    loop {
        let reply = world.post("/api/v1/events", &body).await;
        if reply.status == 200 && reply.json()["accepted"] == events.len() {
            return resent;
        }
        // A process that dies in a request is a 502; an item may meet a dying one's traces.
        let again = reply.status >= 500
            || reply.status == 200
                && reply.json()["data"].as_array().is_some_and(|items| {
                    let refused = items.iter().filter(|item| item["status"] == "refused");
                    refused.clone().count() > 0
                        && refused
                            .clone()
                            .all(|item| item["problem"]["retryable"] == true)
                });
        assert!(again, "{}: {}", reply.status, reply.body);
        assert!(began.elapsed() < Duration::from_secs(60), "{}", reply.body);
        resent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

type Entries = BTreeMap<String, Vec<(String, i64)>>;

fn expected(shop: &Shop, sales: &[Sale]) -> (Entries, Entries) {
    let entry =
        |id: &str, sale: &Sale, minor| (id.to_owned(), vec![(sale.currency.to_owned(), minor)]);
    let receipts = sales
        .iter()
        .map(|sale| entry(&sale.order, sale, sale.minor));
    let refunds = sales.iter().enumerate().filter_map(|(index, sale)| {
        let (id, minor, _) = refund_of(shop, index, sale)?;
        Some(entry(&id, sale, minor))
    });
    (receipts.collect(), refunds.collect())
}

/// Waits until everything is there at least once.
async fn arrived(world: &World, shop: &Shop, sales: &[Sale]) {
    let (receipts, refunds) = expected(shop, sales);
    let webhooks: Vec<&str> = sales
        .iter()
        .flat_map(|sale| &sale.events)
        .map(|event| event["id"].as_str().expect("an id"))
        .collect();
    wait("documents and webhooks", async || {
        let sold = world.books(shop, "SalesReceipt").await;
        let back = world.books(shop, "RefundReceipt").await;
        let seen = world.received().await;
        let mut missing: Vec<String> = Vec::new();
        missing.extend(
            receipts
                .keys()
                .filter(|id| !sold.contains_key(*id))
                .cloned(),
        );
        missing.extend(refunds.keys().filter(|id| !back.contains_key(*id)).cloned());
        let undelivered = webhooks.iter().filter(|id| !seen.contains(**id));
        missing.extend(undelivered.map(|id| format!("webhook {id}")));
        (missing, sold.len() + back.len() + seen.len())
    })
    .await;
}

/// One document for each record, of its amount; and so the sums by currency.
async fn agree(world: &World, shop: &Shop, sales: &[Sale]) {
    let (receipts, refunds) = expected(shop, sales);
    for (entity, expected) in [("SalesReceipt", receipts), ("RefundReceipt", refunds)] {
        let found = world.books(shop, entity).await;
        let wrong: Vec<_> = found
            .iter()
            .filter(|(id, amounts)| expected.get(*id) != Some(*amounts))
            .collect();
        assert!(wrong.is_empty(), "{entity}: {wrong:?}");
        assert_eq!(sums(&found), sums(&expected), "{entity}");
        eprintln!("  {entity}: {} agree, {:?}", found.len(), sums(&found));
    }
}

fn sums(entries: &Entries) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::new();
    for (currency, minor) in entries.values().flatten() {
        *sums.entry(currency.as_str()).or_default() += minor;
    }
    sums
}

/// Waits until nothing is left that could still be worked on.
async fn at_rest(world: &World) {
    wait("what is still in hand", async || {
        let mut left = Vec::new();
        let mut total = 0;
        for name in [
            "QueueSyncQuickbooks",
            "QueueWebhookFanout",
            "QueueWebhookDeliver",
            "QueueWebhookRetry",
            "QueueWebhookSlow",
        ] {
            let count = world.queued(name).await;
            total += count;
            if count > 0 {
                left.push(format!("{count} in {name}"));
            }
        }
        let rows = world.outbox().await;
        if rows > 0 {
            left.push(format!("{rows} rows of the outbox"));
        }
        (
            left,
            usize::MAX - 1 - usize::try_from(total + rows).expect("small"),
        )
    })
    .await;
}
