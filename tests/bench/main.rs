//! The processor time that the engine takes for each record that it pushes, and how that grows with
//! the number of records that are there already.
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
use crossdock::engine::{outbox, push};
use crossdock::error::Result;
use crossdock::model::http::{Request, Response};
use crossdock::model::notice::Notice;
use crossdock::net::{Limits, Net};
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError};
use nix::time::{ClockId, clock_gettime};
use run::{Books, Run, alone};
use shop::Shop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::World;

/// Messages that one function takes from its queue.
const BATCH: usize = 300;
/// How often the smallest number is measured; the least counts, since others use the machine too.
const REPEATS: usize = 5;
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
}

async fn metered<T>(meter: &AtomicU64, work: impl Future<Output = T>) -> T {
    let begun = spent();
    let done = work.await;
    meter.fetch_add(spent() - begun, Ordering::Relaxed);
    done
}

#[async_trait]
impl Net for Metered {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        metered(&self.provider, self.world.send(request, limits)).await
    }
}

#[async_trait]
impl Store for Metered {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        metered(&self.store, Store::get(&self.world, key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        metered(&self.store, self.world.get_many(keys)).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        metered(&self.store, self.world.list(group, after, limit)).await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        metered(&self.store, self.world.scan(table, after, limit)).await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        metered(&self.store, self.world.write(write)).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        metered(&self.store, self.world.transact(writes)).await
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        metered(&self.store, self.world.put_many(writes)).await
    }
}

/// Microseconds for each record.
#[derive(Clone, Copy)]
struct Cost {
    engine: f64,
    store: f64,
    provider: f64,
}

/// Pushes `count` paid orders, a batch at a time, and measures the pushes alone.
fn measure(books: Books, count: usize) -> Cost {
    let mut run = Run::of(1, books, |_| Shop::backlog_of(count, SKUS, ORDERS_EACH));
    run.world.state().traced = false;
    let meter = Arc::new(Metered {
        world: run.world.clone(),
        provider: AtomicU64::new(0),
        store: AtomicU64::new(0),
    });
    let ctx = Ctx {
        net: meter.clone(),
        store: meter.clone(),
        ..run.world.ctx()
    };
    run.relay_and_push();
    let (mut all, provider) = (0, run.world.vendor.name());
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
        let begun = spent();
        let results = alone(push::push(&ctx, provider, &notices));
        all += spent() - begun;
        for result in results {
            result.unwrap();
        }
    }
    run.check().unwrap();
    let each = |nanoseconds: u64| nanoseconds as f64 / 1000.0 / count as f64;
    let provider = meter.provider.load(Ordering::Relaxed);
    let store = meter.store.load(Ordering::Relaxed);
    Cost {
        engine: each(all - provider - store),
        store: each(store),
        provider: each(provider),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it belongs to this program alone"
)]
fn largest() -> usize {
    std::env::var("CROSSDOCK_RECORDS").map_or(100_000, |text| text.parse().unwrap())
}

fn main() {
    let most = largest();
    println!(
        "Microseconds of processor time for each paid order that is pushed, {BATCH} at a time:"
    );
    println!("| books | records | engine | store in memory | stand-in | growth of the engine |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let mut worst: f64 = 0.0;
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut least: Option<f64> = None;
        for (count, repeats) in [(most / 100, REPEATS), (most / 10, 1), (most, 1)] {
            let costs: Vec<Cost> = (0..repeats).map(|_| measure(books, count)).collect();
            let cost = costs
                .into_iter()
                .min_by(|a, b| a.engine.total_cmp(&b.engine))
                .unwrap();
            let growth = cost.engine / *least.get_or_insert(cost.engine);
            worst = worst.max(growth);
            println!(
                "| {books:?} | {count} | {:.1} | {:.1} | {:.1} | {growth:.2} |",
                cost.engine, cost.store, cost.provider
            );
        }
    }
    assert!(
        worst <= GROWTH_MAX,
        "a record takes {worst:.2} times as much among many"
    );
}
