//! Stories by the number: a seed decides the books, what is sold, who goes on, who dies, and what is
//! lost. Most stories are small, because small ones find most for their time; each twentieth is as
//! large as stories get.
//!
//! `make sim SEEDS=1000000` tells that many, `make sim` goes on until it is stopped, and
//! `make sim SEED=7` tells one of them in words. `CROSSDOCK_SEED` is the first of `CROSSDOCK_RUNS`,
//! where 0 is no end, and `CROSSDOCK_FAILURES` end it before.

use crate::number;
use crate::run::{Books, Run};
use crate::shop::{Shop, Size};
use crate::world::Dice;
use crossdock::oauth::connection::Posting;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

const FIRST: u64 = 1;
/// How many a run of all tests tells: what two cores tell in a few minutes.
const RUNS: u64 = 20_000;
/// After so many failures a run is over: those that follow would tell no more.
const FAILURES_MAX: u64 = 5;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

/// What a seed is before anything happens.
struct Plan {
    seed: u64,
    books: Books,
    size: Size,
    /// How what is sold and what goes back, each on a day of its own, are posted.
    postings: (Posting, Posting),
}

impl Plan {
    fn of(seed: u64) -> Plan {
        // Not the dice of the story, which would begin with the same numbers.
        let mut dice = Dice::new(!seed);
        let books = *dice.pick(&[Books::Receipts, Books::Invoices, Books::Xero]);
        let size = match dice.below(20) {
            0 => Size::Large,
            1..5 => Size::Middle,
            _ => Size::Small,
        };
        let each = (Posting::Each, Posting::Each);
        let postings = match dice.below(4) {
            0 => *dice.pick(&[
                (Posting::Daily, Posting::Daily),
                (Posting::Daily, Posting::Daily),
                (Posting::Each, Posting::Daily),
                (Posting::Daily, Posting::Each),
            ]),
            _ => each,
        };
        Plan {
            seed,
            books,
            size,
            postings,
        }
    }

    fn run(&self, traced: bool) -> Run {
        let (books, size) = (self.books, self.size);
        let channels = self.is_summed();
        let mut run = Run::of(self.seed, books, |dice| {
            Shop::with_channels(dice, size, books, channels)
        });
        run.world.state().traced = traced;
        if channels {
            run.post(self.postings.0, self.postings.1);
        }
        run.employ();
        run
    }

    fn is_summed(&self) -> bool {
        self.postings != (Posting::Each, Posting::Each)
    }

    /// Runs the story to its end and compares the books. A panic on the way is a failure too.
    fn tell(&self, run: &mut Run) -> Result<(), String> {
        let told = catch_unwind(AssertUnwindSafe(|| {
            match self.is_summed() {
                true => run.random_days(),
                false => run.random(),
            }
            run.check()
        }));
        told.unwrap_or_else(|_| Err("it panicked; the message is above".to_owned()))
    }
}

/// Does `act` with each of `jobs` on all cores. `take` gets what each gives, in no order, and nothing
/// now and then while there is nothing; it says whether to go on.
pub fn on_all_cores<T: Send>(
    jobs: Range<u64>,
    act: impl Fn(u64) -> T + Sync,
    mut take: impl FnMut(Option<(u64, T)>) -> bool,
) {
    let (next, stopped) = (AtomicU64::new(jobs.start), AtomicBool::new(false));
    let draw = || {
        let job = next.fetch_add(1, Ordering::Relaxed);
        (job < jobs.end && !stopped.load(Ordering::Relaxed)).then_some(job)
    };
    let (results, taken) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let (results, draw, act) = (results.clone(), &draw, &act);
            scope.spawn(move || {
                while let Some(job) = draw() {
                    results.send((job, act(job))).unwrap();
                }
            });
        }
        drop(results);
        loop {
            let given = match taken.recv_timeout(PROGRESS_EVERY) {
                Ok(given) => Some(given),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !take(given) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// A number as people read it.
fn readable(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<&str> = groups.map(|it| std::str::from_utf8(it).unwrap()).collect();
    groups.join(",")
}

/// Tells stories until there are no more, or too many failed. Panics with how to repeat those.
fn tell_all(seeds: Range<u64>) {
    let begun = Instant::now();
    let (mut told, mut shown) = (0, begun);
    let mut failures: Vec<String> = Vec::new();
    let most = number("CROSSDOCK_FAILURES", FAILURES_MAX);
    let of = match seeds.end {
        u64::MAX => String::new(),
        end => format!(" of {}", readable(end - seeds.start)),
    };
    let progress = |told: u64, failures: usize| {
        let rate = told as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{}{of} seeds, {rate:.0} a second, {failures} failed",
            readable(told)
        );
    };
    let act = |seed| {
        let plan = Plan::of(seed);
        plan.tell(&mut plan.run(false))
    };
    on_all_cores(seeds, act, |given| {
        if let Some((seed, outcome)) = given {
            told += 1;
            if let Err(wrong) = outcome {
                let failure = format!("seed {seed}: {wrong}\n    make sim SEED={seed}");
                println!("{failure}");
                failures.push(failure);
            }
        }
        if shown.elapsed() >= PROGRESS_EVERY {
            shown = Instant::now();
            progress(told, failures.len());
        }
        (failures.len() as u64) < most
    });
    progress(told, failures.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn whatever_happens_the_books_are_right() {
    let (first, runs) = (
        number("CROSSDOCK_SEED", FIRST),
        number("CROSSDOCK_RUNS", RUNS),
    );
    if runs != 1 {
        let end = if runs == 0 { u64::MAX } else { first + runs };
        return tell_all(first..end);
    }
    let plan = Plan::of(first);
    let mut run = plan.run(true);
    let outcome = plan.tell(&mut run);
    println!("{}", run.story());
    println!(
        "seed {first}: {:?}, {:?}, {:?}",
        plan.books, plan.size, plan.postings
    );
    if let Err(wrong) = outcome {
        panic!("seed {first}: {wrong}");
    }
    println!("the books are right");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let story = || {
        let plan = Plan::of(7);
        let mut run = plan.run(true);
        assert_eq!(plan.tell(&mut run), Ok(()));
        run.story()
    };
    assert!(
        story() == story(),
        "something reads a clock or a random number of its own"
    );
}
