//! The holder of the lease is killed at each of its steps: before each of its calls to AWS was passed
//! on, after each was answered, and on both sides of its token request. Others watch the lease stand
//! still and take over; what becomes of the connection is the provider's rule.

use super::{Connected, PROCESSES, VENDORS, Vendor, imported, stored, wave};
use crate::world::{World, wait};
use futures::future::join_all;
use local::stack::host::Host;
use local::stack::proxy::{Call, Proxy, Verdict};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Where the holder dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Before its call of this number is passed on.
    Asking(usize),
    /// When that call was answered and the answer has not come.
    Answered(usize),
    /// In its token request, before the provider acts.
    TokenBefore,
    /// In its token request, when the provider has acted.
    TokenAfter,
}

/// Of the requests for tokens of each provider, those that it never heard: one holder dies in
/// [`Step::TokenBefore`].
pub const UNHEARD: i64 = 1;

/// What the dead holder left behind.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Left {
    leased: bool,
    /// The provider has given new tokens.
    given: bool,
    stored: bool,
}

struct Case {
    step: Step,
    connected: Connected,
    /// How often the provider was asked with its tokens before.
    before: u64,
}

pub async fn test(world: &World, host: &Host) {
    let began = Instant::now();
    let mut cases = Vec::new();
    for vendor in VENDORS {
        for step in steps(world, vendor).await {
            let connected = imported(world, vendor).await;
            let before = connected.asked(world).await;
            cases.push(Case {
                step,
                connected,
                before,
            });
        }
    }
    join_all(cases.iter().map(|case| die(world, case))).await;
    let rows = stored(world).await;
    let mut left = Vec::new();
    for case in &cases {
        let row = &rows[&case.connected.id];
        left.push(Left {
            leased: row["lease"].is_object(),
            given: case.connected.asked(world).await > case.before,
            stored: row["tokens"]["generation"] == 2,
        });
    }
    eprintln!(
        "  {} holders killed, each at a step of its own, within {:.1} s",
        cases.len(),
        began.elapsed().as_secs_f64()
    );
    let seen: BTreeSet<Left> = left.iter().copied().collect();
    let state = |leased, given, stored| Left {
        leased,
        given,
        stored,
    };
    let all = BTreeSet::from([
        state(false, false, false),
        state(true, false, false),
        state(true, true, false),
        state(false, true, true),
    ]);
    assert_eq!(seen, all, "the steps pass through all there is");

    let began = Instant::now();
    let due = (0..PROCESSES).map(|index| cases[index % cases.len()].connected.due());
    let due: Vec<Value> = due.collect();
    assert_eq!(wave(host, due.clone()).await, 0);
    eprintln!("  taken over within {:.1} s", began.elapsed().as_secs_f64());
    // Whatever came of it stays so, however often it is told again.
    assert_eq!(wave(host, due).await, 0);
    let mut became: BTreeMap<String, usize> = BTreeMap::new();
    for (case, left) in cases.iter().zip(&left) {
        let connected = &case.connected;
        let about = format!("{}, {:?}, {left:?}", connected.vendor.name, case.step);
        let lost = left.given && !left.stored;
        let asked = connected.asked(world).await - case.before;
        assert_eq!(asked, 1 + u64::from(lost), "{about}");
        let live = !lost || connected.vendor.forgives;
        let end = if live { "live" } else { "reauth_required" };
        let end = format!("{}, {asked} token requests, {end}", connected.vendor.name);
        *became.entry(end).or_default() += 1;
        connected.check(world, live).await;
    }
    for (end, count) in became {
        eprintln!("  {end}: {count} connections");
    }
}

/// The steps of one renewal, as a process takes them that nobody kills.
async fn steps(world: &World, vendor: Vendor) -> Vec<Step> {
    let connected = imported(world, vendor).await;
    let (mut host, proxy) = behind_proxy(world, |_| Verdict::Pass).await;
    assert_eq!(wave(&host, vec![connected.due()]).await, 0);
    host.kill().await;
    let operations = proxy.operations();
    eprintln!("  {}: {}", vendor.name, operations.join(", "));
    let writes = operations.iter().filter(|operation| {
        let parts = ["UpdateItem", "TransactWriteItems"];
        parts.iter().any(|part| operation.ends_with(part))
    });
    assert_eq!(writes.count(), 2, "the lease, and the new tokens");
    let calls = (0..operations.len()).flat_map(|n| [Step::Asking(n), Step::Answered(n)]);
    let mut steps: Vec<Step> = calls.collect();
    steps.extend([Step::TokenBefore, Step::TokenAfter]);
    steps
}

/// One process whose calls to AWS go through a proxy of its own.
async fn behind_proxy(
    world: &World,
    judge: impl FnMut(&Call) -> Verdict + Send + 'static,
) -> (Host, Proxy) {
    let proxy = Proxy::new(&world.stack.urls.aws, judge).await;
    let proxy = proxy.expect("a proxy");
    let mut host = Host::new(&world.stack, "refresh_run")
        .await
        .expect("a host");
    host.set("AWS_ENDPOINT_URL", proxy.url());
    host.start(1).await.expect("the process");
    (host, proxy)
}

/// A process begins to renew and is killed at its step.
async fn die(world: &World, case: &Case) {
    let step = case.step;
    let judge = move |call: &Call| {
        let held = match step {
            Step::Asking(number) => call.number == number && call.answered.is_none(),
            Step::Answered(number) => call.number == number && call.answered.is_some(),
            Step::TokenBefore | Step::TokenAfter => false,
        };
        if held { Verdict::Hold } else { Verdict::Pass }
    };
    let kind = match step {
        Step::TokenBefore => Some("timeout_before_effect"),
        Step::TokenAfter => Some("timeout_after_effect"),
        Step::Asking(_) | Step::Answered(_) => None,
    };
    let connected = &case.connected;
    let fault = match kind {
        Some(kind) => Some(connected.lose_answer(world, kind, 600).await),
        None => None,
    };
    let (mut host, proxy) = behind_proxy(world, judge).await;
    let number = host.give(vec![connected.due()])[0];
    match fault {
        Some(token) => in_its_call(world, connected.vendor, &token).await,
        None => proxy.until_held().await,
    }
    let ended = host.outcome(number);
    assert_eq!(ended, None, "it ended before: {}", host.logged());
    host.kill().await;
}

/// Waits until the token request has met the fault that was ordered for it.
async fn in_its_call(world: &World, vendor: Vendor, token: &str) {
    let base = world.stack.urls.provider(vendor.name);
    wait("the holder is in its call", async || {
        let rules = world.control(base, "faults", None).await.json();
        let mine = |rule: &&Value| rule["match"]["body_contains"] == token;
        let rules = rules.as_array().into_iter().flatten();
        let left = rules.filter(mine).count();
        (vec!["the call".to_owned(); left], 1 - left.min(1))
    })
    .await;
}
