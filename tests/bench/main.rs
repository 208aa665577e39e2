//! The processor time that the engine takes for each record that it pushes, and for each that it reads
//! again from the provider's list of changes, and how both grow with the number of records that are
//! there already.
//!
//! The whole engine runs in one thread over the store in memory and the providers' stand-ins. The time
//! of the thread is read around every call out, so that what the stand-in takes, and what the store
//! takes, is shown apart and counts for nothing here: in production they are other machines.
//!
//! `CROSSDOCK_RECORDS` is the largest number; the smallest is a hundredth of it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails here ends the program, and what it prints is its result"
)]
#![expect(dead_code, reason = "the simulation uses all of what it shares")]

#[path = "../sim/run.rs"]
mod run;
#[path = "../sim/shop.rs"]
mod shop;
#[path = "../sim/world.rs"]
mod world;

use async_trait::async_trait;
use crossdock::ctx::Ctx;
use crossdock::engine::pull::{self, PullNotice};
use crossdock::engine::{outbox, push};
use crossdock::error::Result;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::ConnectionId;
use crossdock::model::notice::Notice;
use crossdock::net::{Limits, Net};
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError};
use nix::time::{ClockId, clock_gettime};
use run::{Books, Run, alone};
use shop::Shop;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{PULL_QUEUE, World};

/// Messages that one function takes from its queue.
const BATCH: usize = 300;
/// How often the smallest number is measured.
const REPEATS: usize = 7;
/// Batches at the end of a run of which the cheapest says what a record takes among so many: others use the
/// machine too. As many of each number as the smallest has in all.
const SAMPLES: usize = 14;
/// How much more a record may take among a hundred times as many.
const GROWTH_MAX: f64 = 1.1;
const SKUS: usize = 60;
const ORDERS_EACH: usize = 10;

/// Nanoseconds that this thread has had a processor for.
fn spent() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    let part = |value: i64| u64::try_from(value).unwrap();
    part(time.tv_sec()) * 1_000_000_000 + part(time.tv_nsec())
}

/// The world, with what it takes counted.
struct Metered {
    world: World,
    provider: AtomicU64,
    store: AtomicU64,
    /// What else the processor does meanwhile.
    meanwhile: AtomicU64,
    ballast: Mutex<(Vec<u64>, usize)>,
}

/// Memory that is touched around each call, and in all: what a small world leaves in the caches of the
/// processor would count for the engine, and in production nothing of the last call is there.
const TOUCHED: usize = 2 << 20;
const BALLAST: usize = 64 << 20;
const LINE: usize = 64;

impl Metered {
    async fn metered<T>(&self, meter: &AtomicU64, work: impl Future<Output = T>) -> T {
        let begun = spent();
        let done = work.await;
        let worked = spent();
        meter.fetch_add(worked - begun, Ordering::Relaxed);
        let mut ballast = self.ballast.lock().unwrap();
        let (lines, next) = &mut *ballast;
        let word = size_of::<u64>();
        for _ in 0..TOUCHED / LINE {
            lines[*next] = lines[*next].wrapping_add(1);
            *next = (*next + LINE / word) % lines.len();
        }
        black_box(&lines);
        self.meanwhile
            .fetch_add(spent() - worked, Ordering::Relaxed);
        done
    }
}

#[async_trait]
impl Net for Metered {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        self.metered(&self.provider, self.world.send(request, limits))
            .await
    }
}

#[async_trait]
impl Store for Metered {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.metered(&self.store, Store::get(&self.world, key))
            .await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.metered(&self.store, self.world.get_many(keys)).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        self.metered(&self.store, self.world.list(group, after, limit))
            .await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        self.metered(&self.store, self.world.scan(table, after, limit))
            .await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.metered(&self.store, self.world.write(write)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.metered(&self.store, self.world.transact(writes)).await
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        self.metered(&self.store, self.world.put_many(writes)).await
    }
}

/// Microseconds for each order.
struct Cost {
    /// Of the engine alone, for each full batch, the last one first.
    push: Vec<f64>,
    pull: Vec<f64>,
    /// Of what stands around it here, for both.
    store: f64,
    provider: f64,
}

impl Metered {
    fn of(world: &World) -> Metered {
        Metered {
            world: world.clone(),
            provider: AtomicU64::new(0),
            store: AtomicU64::new(0),
            meanwhile: AtomicU64::new(0),
            ballast: Mutex::new((vec![0; BALLAST / size_of::<u64>()], 0)),
        }
    }

    fn around(&self) -> u64 {
        let meters = [&self.provider, &self.store, &self.meanwhile];
        meters
            .iter()
            .map(|meter| meter.load(Ordering::Relaxed))
            .sum()
    }
}

/// What `work` takes of the engine's own time, in nanoseconds.
fn engine<T>(meter: &Metered, work: impl Future<Output = T>) -> (T, u64) {
    let (begun, around) = (spent(), meter.around());
    let done = alone(work);
    (done, spent() - begun - (meter.around() - around))
}

/// Reads what changed at the provider, with every message that follows of it, and returns the engine's
/// own time.
fn read_again(run: &Run, ctx: &Ctx, meter: &Metered, connection: &ConnectionId) -> u64 {
    let at = run.world.state().now;
    let notice = PullNotice {
        merchant_id: run::merchant(),
        connection_id: connection.clone(),
        at,
        noted: false,
    };
    let (mut all, mut open) = (0, vec![notice]);
    while let Some(next) = open.pop() {
        let (read, taken) = engine(meter, pull::run(ctx, &next));
        all += taken;
        if let Err(error) = read {
            // It comes again when the provider takes calls again.
            let wait = error.retry_after().expect("it failed for good");
            run.world.advance(wait + Duration::from_secs(1));
            open.push(next);
        }
        let sent = std::mem::take(&mut run.world.state().sent);
        let ours = sent.into_iter().filter(|(url, _)| url == PULL_QUEUE);
        open.extend(ours.map(|(_, body)| serde_json::from_str(&body).unwrap()));
    }
    all
}

/// Pushes `count` paid orders, a batch at a time, and reads each batch again as the provider lists it.
fn measure(books: Books, count: usize) -> Cost {
    let mut run = Run::of(1, books, |_| Shop::backlog_of(count, SKUS, ORDERS_EACH));
    run.world.state().traced = false;
    let meter = Arc::new(Metered::of(&run.world));
    let ctx = Ctx {
        net: meter.clone(),
        store: meter.clone(),
        ..run.world.ctx()
    };
    run.relay_and_push();
    let (mut pushes, mut pulls) = (Vec::new(), Vec::new());
    let provider = run.world.vendor.name();
    let connection = run.connection().id;
    // From here on the list of changes is read.
    read_again(&run, &ctx, &meter, &connection);
    // Each order has two events.
    for indexes in std::mem::take(&mut run.unsent).chunks(2 * BATCH) {
        for some in indexes.chunks(100) {
            run.whole(run::Job::Accept(some.to_vec()));
        }
        let rows = run::outbox_rows(&run.world);
        alone(outbox::publish(&run.ctx, &rows))
            .into_iter()
            .collect::<Result<()>>()
            .unwrap();
        let mut notices: Vec<Notice> = run.receive_all();
        // One message for each order, as when nothing else happens to it.
        notices.sort_by(|a, b| a.record.cmp(&b.record));
        notices.dedup_by(|a, b| a.record == b.record);
        // Until the provider takes calls again.
        run.world.advance(Duration::from_secs(600));
        let (results, taken) = engine(&meter, push::push(&ctx, provider, &notices));
        pushes.push((taken, notices.len()));
        for result in results {
            result.unwrap();
        }
        run.world.advance(Duration::from_secs(60));
        pulls.push((read_again(&run, &ctx, &meter, &connection), notices.len()));
    }
    run.check().unwrap();
    let each = |nanoseconds: u64| nanoseconds as f64 / 1000.0 / count as f64;
    Cost {
        push: full(&pushes),
        pull: full(&pulls),
        store: each(meter.store.load(Ordering::Relaxed)),
        provider: each(meter.provider.load(Ordering::Relaxed)),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it belongs to this program alone"
)]
fn largest() -> usize {
    std::env::var("CROSSDOCK_RECORDS").map_or(100_000, |text| text.parse().unwrap())
}

/// What each record took in the full batches, in microseconds, the last one first. The very first batch
/// makes what the others find.
fn full(batches: &[(u64, usize)]) -> Vec<f64> {
    let full = batches.iter().skip(1).rev();
    let full = full.filter(|(_, records)| *records == BATCH);
    full.map(|(taken, records)| *taken as f64 / 1000.0 / *records as f64)
        .collect()
}

/// The cheapest of the last batches of all `runs`.
fn least<'c>(runs: impl Iterator<Item = &'c Vec<f64>>) -> f64 {
    let last = runs.flatten().take(SAMPLES);
    last.copied().fold(f64::MAX, f64::min)
}

fn main() {
    let most = largest();
    println!(
        "Microseconds of processor time for each paid order that is pushed, {BATCH} at a time, and read again, the cheapest of the last {SAMPLES} batches:"
    );
    println!("| books | records | push | growth | pull | growth | store in memory | stand-in |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut worst: f64 = 0.0;
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut first: Option<(f64, f64)> = None;
        for (count, repeats) in [(most / 100, REPEATS), (most / 10, 1), (most, 1)] {
            let costs: Vec<Cost> = (0..repeats).map(|_| measure(books, count)).collect();
            let least_of = |part: fn(&Cost) -> f64| costs.iter().map(part).fold(f64::MAX, f64::min);
            let push = least(costs.iter().map(|cost| &cost.push));
            let pull = least(costs.iter().map(|cost| &cost.pull));
            let (first_push, first_pull) = *first.get_or_insert((push, pull));
            let (of_push, of_pull) = (push / first_push, pull / first_pull);
            worst = worst.max(of_push).max(of_pull);
            println!(
                "| {books:?} | {count} | {push:.1} | {of_push:.2} | {pull:.1} | {of_pull:.2} | {:.1} | {:.1} |",
                least_of(|cost| cost.store),
                least_of(|cost| cost.provider)
            );
        }
    }
    assert!(
        worst <= GROWTH_MAX,
        "a record takes {worst:.2} times as much among many"
    );
}
