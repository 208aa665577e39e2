//! Two deaths in one small story, at every pair of steps: whoever takes up what the first one left dies
//! as well. `CROSSDOCK_EACH=1` tries all pairs; a run of all tests tries each eighth.

use crate::number;
use crate::run::{Books, Run};
use crate::seeds::on_all_cores;
use crate::shop::Shop;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The seed of the story; any would do.
const SEED: u64 = 42;
/// Of so many pairs one is tried.
const EACH: u64 = 8;

fn run(books: Books) -> Run {
    Run::of(SEED, books, Shop::one_payment)
}

/// Tries all second deaths after the first one at `first`. Returns how many there are, or what went
/// wrong.
fn after(books: Books, first: u64, each: u64) -> Result<u64, String> {
    let mut tried = 0;
    for second in (first + 1..).filter(|second| (first + second).is_multiple_of(each)) {
        let mut run = run(books);
        run.world.state().traced = false;
        let told = catch_unwind(AssertUnwindSafe(|| {
            let steps = run.scripted(&[first, second], true);
            run.drain();
            run.check().map(|()| steps)
        }));
        let told = told.unwrap_or_else(|_| Err("it panicked; the message is above".to_owned()));
        match told {
            Ok(steps) if steps < second => return Ok(tried),
            Ok(_) => tried += 1,
            Err(wrong) => return Err(format!("deaths at {first} and {second}: {wrong}")),
        }
    }
    unreachable!("a story has an end")
}

fn every_pair(books: Books) {
    let steps = run(books).scripted(&[], true);
    let each = number("CROSSDOCK_EACH", EACH);
    let (mut pairs, mut wrong) = (0, Vec::new());
    on_all_cores(
        1..steps + 1,
        |first| after(books, first, each),
        |given| {
            match given {
                Some((_, Ok(tried))) => pairs += tried,
                Some((_, Err(told))) => wrong.push(told),
                None => {}
            }
            wrong.is_empty()
        },
    );
    println!("{books:?}: {pairs} pairs of deaths in a story of {steps} steps");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(pairs > steps, "the second death has nothing to interrupt");
}

#[test]
fn two_crashes_at_any_steps_are_made_good_in_receipts() {
    every_pair(Books::Receipts);
}

#[test]
fn two_crashes_at_any_steps_are_made_good_in_invoices() {
    every_pair(Books::Invoices);
}

#[test]
fn two_crashes_at_any_steps_are_made_good_in_xero() {
    every_pair(Books::Xero);
}
