//! Two hundred processes on one connection while the table is throttled, while their clocks are ten
//! minutes ahead and behind, and while those jump.

use super::{Connected, PROCESSES, SHORT_LIVED, STRICT, imported, stored, wave};
use crate::world::World;
use chrono::{DateTime, TimeDelta, Utc};
use local::stack::clock::Clock;
use local::stack::host::Host;
use local::stack::proxy::{Call, Proxy, Verdict};
use serde_json::Value;
use std::time::{Duration, Instant};

/// One in so many calls of a table is refused.
const REFUSED_EVERY: usize = 3;
/// And for so long every one, from the moment at which somebody holds the lease.
const OUTAGE: Duration = Duration::from_secs(4);
/// By how many seconds clocks are wrong.
const WRONG: i64 = 600;

pub async fn test(world: &World) {
    let proxy = Proxy::new(&world.stack.urls.aws, |_| Verdict::Pass).await;
    let proxy = proxy.expect("a proxy");
    let mut host = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    host.set("AWS_ENDPOINT_URL", proxy.url());
    let mut clocks = Vec::new();
    for (name, count) in [("first", 67), ("second", 67), ("third", 66)] {
        let clock = Clock::new(&world.stack, name, 0).await.expect("a clock");
        clock.give(&mut host);
        host.start(count).await.expect("the processes");
        clocks.push(clock);
    }
    throttled(world, &host, &proxy).await;
    wrong_clocks(world, &host, &proxy, &clocks).await;
    jumps(world, &host, &proxy, &clocks).await;
    host.kill().await;
}

fn set(clocks: &[Clock], seconds: [i64; 3]) {
    for (clock, seconds) in clocks.iter().zip(seconds) {
        clock.set(seconds).expect("the clock is set");
    }
}

/// All processes renew one connection. What the queue gets back it hands out again.
async fn renewed_once(world: &World, host: &Host, connected: &Connected, what: &str) {
    let before = connected.asked(world).await;
    let began = Instant::now();
    let returned = wave(host, vec![connected.due(); PROCESSES]).await;
    let asked = connected.asked(world).await - before;
    eprintln!(
        "  {what}: {PROCESSES} renewals within {:.1} s, {asked} token request, {returned} messages \
         went back to the queue",
        began.elapsed().as_secs_f64()
    );
    assert_eq!(asked, 1, "{what}: one token request reaches the provider");
    let row = &stored(world).await[&connected.id];
    assert_eq!(row["tokens"]["generation"], 2, "{what}");
    assert!(row["lease"].is_null(), "{what}");
    connected.check(world, true).await;
}

async fn throttled(world: &World, host: &Host, proxy: &Proxy) {
    let connected = imported(world, STRICT).await;
    let mut count = 0;
    let mut outage: Option<Instant> = None;
    let mut transaction = false;
    proxy.judge_by(move |call: &Call| {
        if !call.is_of_a_table() {
            return Verdict::Pass;
        }
        if let Some(status) = call.answered {
            // The first write that is done is that of the lease.
            if call.writes() && status == 200 {
                outage.get_or_insert_with(Instant::now);
            }
            return Verdict::Pass;
        }
        count += 1;
        let mut refused = count % REFUSED_EVERY == 0;
        refused |= outage.is_some_and(|began| began.elapsed() < OUTAGE);
        if call.operation.ends_with(".TransactWriteItems") {
            // The one that stores the tokens is there once only, so chance might spare it.
            refused |= !transaction;
            transaction = true;
        }
        if refused {
            Verdict::Refuse
        } else {
            Verdict::Pass
        }
    });
    renewed_once(world, host, &connected, "a throttled table").await;
    proxy.judge_by(|_| Verdict::Pass);
    let refused = proxy.refused();
    eprintln!("  refused: {refused:?}");
    for operation in ["GetItem", "UpdateItem", "TransactWriteItems"] {
        let name = format!("DynamoDB_20120810.{operation}");
        assert!(refused.contains_key(&name), "{operation} met no refusal");
    }
}

async fn wrong_clocks(world: &World, host: &Host, proxy: &Proxy, clocks: &[Clock]) {
    // Its tokens live for half an hour, so that ten minutes are a large part of it.
    let connected = imported(world, SHORT_LIVED).await;
    let known = host.logged().len();
    let misdated = proxy.misdated();
    set(clocks, [WRONG, -WRONG, 0]);
    renewed_once(
        world,
        host,
        &connected,
        "clocks of ten minutes more and less",
    )
    .await;
    // AWS takes no signature of such a clock; the SDK learns from the refusal what time it is.
    let misdated = proxy.misdated() - misdated;
    eprintln!("  refused for the time of their signature: {misdated} calls");
    assert!(
        misdated >= 120,
        "{misdated} calls were signed by a wrong clock"
    );
    // The lines that they logged show what time it was for them.
    let wrong = skews(&host.logged()[known..]);
    let ahead = wrong.iter().filter(|seconds| **seconds > WRONG / 2).count();
    let behind = wrong
        .iter()
        .filter(|seconds| **seconds < -WRONG / 2)
        .count();
    assert!(
        ahead >= 60 && behind >= 60,
        "{ahead} ahead, {behind} behind"
    );
}

#[expect(
    clippy::disallowed_methods,
    reason = "The times in the logs are compared with the machine's."
)]
fn skews(lines: &str) -> Vec<i64> {
    let now = Utc::now();
    let times = lines.lines().filter_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        line["timestamp"].as_str()?.parse::<DateTime<Utc>>().ok()
    });
    times
        .map(|at| TimeDelta::num_seconds(&(at - now)))
        .collect()
}

/// The clocks of all jump when one holds the lease and the others watch it, and jump again when the
/// new tokens are about to be stored.
async fn jumps(world: &World, host: &Host, proxy: &Proxy, clocks: &[Clock]) {
    let connected = imported(world, STRICT).await;
    set(clocks, [0, 0, 0]);
    let mut writes = 0;
    proxy.judge_by(move |call: &Call| {
        let lease = call.answered == Some(200) && call.operation.ends_with(".UpdateItem");
        let tokens = call.answered.is_none() && call.operation.ends_with(".TransactWriteItems");
        let held = (lease && writes == 0) || (tokens && writes == 1);
        writes += usize::from(held);
        if held { Verdict::Hold } else { Verdict::Pass }
    });
    let misdated = proxy.misdated();
    let called = proxy.operations().len();
    let jumping = async {
        proxy.until_held().await;
        // Five calls each are more than it takes to see the lease.
        proxy.until_called(called + 5 * PROCESSES).await;
        set(clocks, [WRONG, -WRONG, WRONG]);
        let called = proxy.operations().len();
        proxy.release();
        proxy.until_held().await;
        // The others look at what the lease has become, at another time.
        proxy.until_called(called + PROCESSES).await;
        set(clocks, [-WRONG, WRONG, 0]);
        proxy.release();
    };
    tokio::join!(
        renewed_once(world, host, &connected, "clocks that jump"),
        jumping
    );
    let misdated = proxy.misdated() - misdated;
    eprintln!("  refused for the time of their signature: {misdated} calls");
    assert!(
        misdated >= 120,
        "{misdated} calls were signed by a wrong clock"
    );
    proxy.judge_by(|_| Verdict::Pass);
    set(clocks, [0, 0, 0]);
}
