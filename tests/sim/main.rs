//! The production code against a world in which everything fails that can: a seed decides who goes
//! on, who dies, and what is lost, so that a run that fails can be repeated.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what is missing here is a failed test, and a failed test tells its story"
)]

mod accounts;
mod bad_input;
mod bad_reads;
mod books;
mod calls;
mod cell;
mod closed;
mod cost;
mod crashes;
mod daily;
mod deliveries;
mod disconnect;
mod explore;
mod fair;
mod health;
mod hooks;
mod imports;
mod intake;
mod ledger;
mod limits;
mod links;
mod payments;
mod payouts;
mod pull;
mod refresh;
mod requests;
mod retail;
mod rotation;
mod run;
mod schedule;
mod seeds;
mod shop;
mod switch;
mod taxes;
mod world;

use run::{Books, Run};
use shop::Shop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::{Planned, Trouble};

#[expect(
    clippy::disallowed_methods,
    reason = "these two belong to this test alone"
)]
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a whole number"))
}

/// Runs `act` and checks the books. Panics with the whole story when something is wrong.
fn judge(name: &str, run: &mut Run, act: impl FnOnce(&mut Run)) {
    let outcome = catch_unwind(AssertUnwindSafe(|| act(run)));
    let wrong = match outcome {
        Ok(()) => run.check().err(),
        Err(_) => Some("it panicked; the message is above".to_owned()),
    };
    if let Some(wrong) = wrong {
        println!("{}", run.story());
        panic!("{name}: {wrong}");
    }
}

/// The seed of the one order below; any would do.
const ONE: u64 = 42;

#[test]
fn a_crash_at_any_step_is_made_good() {
    let steps = Run::new(ONE, Shop::one_order).scripted(&[], true);
    for eager in [true, false] {
        for step in 1..=steps {
            let mut run = Run::new(ONE, Shop::one_order);
            judge(
                &format!("death at step {step} of {steps}, eager: {eager}"),
                &mut run,
                |run| {
                    run.scripted(&[step], eager);
                    run.drain();
                },
            );
        }
    }
}

#[test]
fn a_worker_that_is_overtaken_at_any_step_does_no_harm() {
    for polls in 0.. {
        let mut run = Run::new(ONE, Shop::one_order);
        let mut unfinished = true;
        judge(&format!("overtaken after {polls} polls"), &mut run, |run| {
            unfinished = run.overtaken(polls);
        });
        if !unfinished {
            assert!(polls > 10, "the worker has nothing to do");
            break;
        }
    }
}

#[test]
fn what_waits_is_sent_once_whoever_is_faster() {
    for paused in [true, false] {
        for polls in 0.. {
            let mut run = Run::new(ONE, Shop::one_sale);
            let mut unfinished = true;
            let name = format!("live again after {polls} polls, paused: {paused}");
            judge(&name, &mut run, |run| {
                unfinished = run.live_again_meanwhile(polls, paused);
            });
            if !unfinished {
                assert!(polls > 10, "the worker has nothing to do");
                break;
            }
        }
    }
}

/// Two orders are written in one call, of whose answer nobody knows; then both wait for the connection to be
/// live again. Whoever then comes with one of them settles what that call made of both.
#[test]
fn what_waits_is_not_forgotten_when_another_record_settles_its_document() {
    let mut known = std::collections::BTreeSet::new();
    for polls in 0.. {
        let mut run = Run::of(ONE, Books::Invoices, |_| Shop::backlog(2, 1));
        let mut unfinished = true;
        let name = format!("the first worker dies after {polls} polls");
        judge(&name, &mut run, |run| {
            unfinished = run.settled_by_another(polls);
        });
        known.insert(run.world.state().net_calls);
        if !unfinished {
            assert!(known.len() > 3, "the worker has nothing to do: {known:?}");
            break;
        }
    }
}

#[test]
fn a_long_ledger_is_walked_a_page_for_each_message() {
    const WAITING: usize = 1200;
    let mut run = Run::new(ONE, Shop::one_sale);
    let (sizes, orders) = run.walk(WAITING);
    assert!(sizes.len() > 2, "one message did too much: {sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 501), "{sizes:?}");
    let each: std::collections::BTreeSet<&String> = orders.iter().collect();
    assert_eq!((orders.len(), each.len()), (WAITING, WAITING));
}

#[test]
fn a_failed_call_at_any_point_is_made_good() {
    let counted = {
        let mut run = Run::new(ONE, Shop::one_order);
        reset(&run);
        run.scripted(&[], true);
        let state = run.world.state();
        (state.store_calls, state.net_calls)
    };
    let net = [
        Trouble::After,
        Trouble::Before,
        Trouble::Late,
        Trouble::HalfBody,
        Trouble::StatusAfter,
        Trouble::StatusBefore,
        Trouble::Throttled,
        Trouble::TokensExpire,
    ];
    let store = [Trouble::Before, Trouble::After];
    let net = net.iter().map(|trouble| (false, *trouble, counted.1));
    let store = store.iter().map(|trouble| (true, *trouble, counted.0));
    for (in_store, trouble, calls) in net.chain(store) {
        for (at, eager) in (1..=calls).flat_map(|at| [(at, true), (at, false)]) {
            let mut run = Run::new(ONE, Shop::one_order);
            reset(&run);
            let planned = Some(Planned { at, trouble });
            match in_store {
                true => run.world.state().store_plan = planned,
                false => run.world.state().net_plan = planned,
            }
            let name =
                format!("{trouble:?} at call {at} of {calls}, store: {in_store}, eager: {eager}");
            judge(&name, &mut run, |run| {
                run.scripted(&[], eager);
                run.drain();
            });
        }
    }
}

/// Connecting the merchant has made calls too, which are not what is tried here.
fn reset(run: &Run) {
    let mut state = run.world.state();
    state.store_calls = 0;
    state.net_calls = 0;
}
