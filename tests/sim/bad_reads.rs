//! Bad input from the provider where it is read: every kind of bad answer to every call that reads what
//! changed there or compares both sides, once and for good. It ends; nothing is written over, made anew
//! or given up because of it; and once the provider is itself again, what changed there is found, then
//! and later.

use crate::bad_input::end_well;
use crate::books;
use crate::pull::{self, Edit};
use crate::run::{Books, Run, alone};
use crate::world::{Bad, Tamper};
use chrono::NaiveDate;
use crossdock::engine::pull::PullNotice;
use crossdock::engine::reconcile::{self, Cause};
use crossdock::sync::reconcile::Decided;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often a queue brings a message before it is put aside with an alarm.
const RECEIVES_MAX: usize = 10;
/// No reading of these stories has reason to call more often, all its messages together.
const CALLS_MAX: u64 = 150;
/// How often a bookkeeper decides what is open before that is no longer work but a loop.
const DECISIONS_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// The schedule's, of what changed.
    Changes,
    /// The same, with everything that is known read by its id.
    All,
    /// The nightly one, of both sides.
    Both,
}

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
}

/// Has everything read, each message as often as a queue brings it.
fn read(run: &mut Run, reader: Reader) {
    let before = run.world.state().net_calls;
    match reader {
        Reader::Changes | Reader::All => {
            if reader == Reader::All {
                // Longer than QuickBooks tells of; Xero has no such end, and is read as ever.
                run.world.advance(Duration::from_secs(31 * 86_400));
            }
            let mut open: Vec<(PullNotice, usize)> = vec![(pull::notice(run), 0)];
            while let Some((notice, tries)) = open.pop() {
                let read = alone(crossdock::engine::pull::run(&run.ctx, &notice));
                let wait = match &read {
                    Ok(()) => Duration::from_secs(2),
                    Err(error) => error.retry_after().unwrap_or(Duration::from_secs(720)),
                };
                run.world.advance(wait + Duration::from_secs(1));
                if read.is_err() && tries + 1 < RECEIVES_MAX {
                    open.push((notice, tries + 1));
                }
                open.extend(pull::pulls(run).into_iter().map(|notice| (notice, 0)));
                let calls = run.world.state().net_calls - before;
                assert!(calls <= CALLS_MAX, "{calls} calls: a loop");
            }
        }
        Reader::Both => {
            let connection = run.connection();
            let begun = reconcile::start(&run.ctx, &connection, day(1), day(3), Cause::Request);
            alone(begun).unwrap();
            let (mut tries, mut polls) = (0, 0);
            while let Some(body) = books::to_compare(run) {
                if !books::compare(run, &body, &mut polls, None) {
                    tries += 1;
                    if tries == RECEIVES_MAX {
                        books::to_compare(run);
                    }
                }
                let calls = run.world.state().net_calls - before;
                assert!(calls <= CALLS_MAX, "{calls} calls: a loop");
            }
        }
    }
    // What the shop is to write again meets the same answers.
    run.relay_and_push();
}

/// Reads what changed, and has the shop write what it is to write again.
fn settle(run: &mut Run) {
    for _ in 0..2 {
        pull::pulled(run);
        run.drain();
    }
}

fn attempt(books: Books, seed: u64, reader: Reader, tamper: Option<&Tamper>) -> Result<(), String> {
    let mut run = pull::sold(books, seed);
    settle(&mut run);
    let (number, one) = pull::document(&run, books).expect("an order that can be changed there");
    pull::edit(&run, books, &one, Edit::Amounts);
    run.world.state().calls.clear();
    run.world.state().tamper = tamper.cloned();
    read(&mut run, reader);
    run.check_open()?;

    run.world.state().tamper = None;
    // Past what a reconciliation may stand still for, and what a queue keeps a message away.
    run.world.advance(Duration::from_secs(90_000));
    settle(&mut run);
    // Another change later is found like any other.
    let again = pull::stands(&run, books, &number);
    pull::edit(&run, books, &again, Edit::Amounts);
    settle(&mut run);
    run.retry_parked();
    let there = pull::stands(&run, books, &number);
    if pull::has(&there, books, Edit::Amounts) {
        return Err(format!("a later change was not found: {there}"));
    }
    // An answer that lies in its right shape can be believed until somebody decides.
    for _ in 0..DECISIONS_MAX {
        let (at, _, found) = books::compare_all(&mut run, day(1), day(3));
        if found.iter().all(|one| one.decided != Decided::Open) {
            return run.check();
        }
        books::decide_all(&run, books, &at, &found);
        books::work(&mut run, None);
        settle(&mut run);
    }
    Err("what is open does not come to an end".to_owned())
}

/// A seed of which an order can be changed there, and the calls of `reader` when all is well.
fn calls(books: Books, reader: Reader) -> (u64, BTreeSet<String>) {
    let fits = |seed: &u64| pull::document(&pull::sold(books, *seed), books).is_some();
    let seed = (1..60).find(fits).expect("a seed");
    let mut run = pull::sold(books, seed);
    settle(&mut run);
    run.world.state().calls.clear();
    read(&mut run, reader);
    let calls = std::mem::take(&mut run.world.state().calls);
    assert!(!calls.is_empty());
    (seed, calls)
}

fn every_bad_answer(books: Books) {
    let mut cases = Vec::new();
    for reader in [Reader::Changes, Reader::All, Reader::Both] {
        let (seed, calls) = calls(books, reader);
        assert_eq!(
            attempt(books, seed, reader, None),
            Ok(()),
            "{books:?} {reader:?}"
        );
        for call in calls {
            for bad in Bad::ALL {
                for times in [1, u64::MAX] {
                    let call = call.clone();
                    cases.push((seed, reader, Tamper { call, bad, times }));
                }
            }
        }
    }
    end_well(books, &cases, |(seed, reader, tamper)| {
        attempt(books, *seed, *reader, Some(tamper))
    });
}

#[test]
fn bad_readings_end_well_in_receipts() {
    every_bad_answer(Books::Receipts);
}

#[test]
fn bad_readings_end_well_in_invoices() {
    every_bad_answer(Books::Invoices);
}

#[test]
fn bad_readings_end_well_in_xero() {
    every_bad_answer(Books::Xero);
}
