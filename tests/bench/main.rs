//! The processor time that the engine takes for each record that it pushes, and for each that it reads
//! again from the provider's list of changes, and how both grow with the number of records that are
//! there already.
//!
//! The whole engine runs in one thread over the store in memory and the providers' stand-ins. The time
//! of the thread is read around every call out, so that what the stand-in takes, and what the store
//! takes, is shown apart and counts for nothing here: in production they are other machines.
//!
//! `CROSSDOCK_RECORDS` is the largest number; the smallest is a hundredth of it, which has to be 700 or more.

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
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::{PULL_QUEUE, World};

/// Messages that one function takes from its queue.
const BATCH: usize = 300;
/// Batches at the end of the larger number that are measured, each right after one among the smallest,
/// so that whatever else the machine does in these moments meets both.
const SAMPLES: usize = 24;
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
    /// Whether memory is touched around calls; not while a shop only grows.
    touching: AtomicBool,
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
        if !self.touching.load(Ordering::Relaxed) {
            return done;
        }
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

/// What one batch took, in microseconds for each order.
#[derive(Clone, Copy)]
struct Cost {
    /// Of the engine alone.
    push: f64,
    pull: f64,
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
            touching: AtomicBool::new(false),
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

/// A shop with its books, and the paid orders that are not pushed yet, a batch at a time.
struct Series {
    run: Run,
    meter: Arc<Metered>,
    ctx: Ctx,
    connection: ConnectionId,
    batches: VecDeque<Vec<usize>>,
}

impl Series {
    fn of(books: Books, count: usize) -> Series {
        let mut run = Run::of(1, books, |_| Shop::backlog_of(count, SKUS, ORDERS_EACH));
        run.world.state().traced = false;
        run.rows_unchecked = true;
        let meter = Arc::new(Metered::of(&run.world));
        let ctx = Ctx {
            net: meter.clone(),
            store: meter.clone(),
            ..run.world.ctx()
        };
        run.relay_and_push();
        let connection = run.connection().id;
        // From here on the list of changes is read.
        read_again(&run, &ctx, &meter, &connection);
        // Each order has two events.
        let unsent = std::mem::take(&mut run.unsent);
        // The very first is what is left over, and makes what the others find.
        let (first, rest) = unsent.split_at(unsent.len() % (2 * BATCH));
        let batches = std::iter::once(first).chain(rest.chunks(2 * BATCH));
        let batches = batches.map(<[usize]>::to_vec).collect();
        let mut series = Series {
            run,
            meter,
            ctx,
            connection,
            batches,
        };
        series.step();
        series
    }

    /// Pushes a batch and reads it again as the provider lists it.
    fn step(&mut self) -> Cost {
        let Series {
            run, meter, ctx, ..
        } = self;
        let indexes = self.batches.pop_front().unwrap();
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
        assert_eq!(2 * notices.len(), indexes.len());
        // Until the provider takes calls again.
        run.world.advance(Duration::from_secs(600));
        let of = |meter: &AtomicU64| meter.load(Ordering::Relaxed);
        let around = (of(&meter.store), of(&meter.provider));
        let provider = run.world.vendor.name();
        let (results, pushed) = engine(meter, push::push(ctx, provider, &notices));
        for result in results {
            result.unwrap();
        }
        // Past the overlap of two readings, so that each batch is read once: two of invoices with their
        // payments are more than an answer holds, and then everything that stands there is compared.
        run.world.advance(Duration::from_secs(400));
        let pulled = read_again(run, ctx, meter, &self.connection);
        let each = |nanoseconds: u64| nanoseconds as f64 / 1000.0 / notices.len() as f64;
        Cost {
            push: each(pushed),
            pull: each(pulled),
            store: each(of(&meter.store) - around.0),
            provider: each(of(&meter.provider) - around.1),
        }
    }

    /// What the last batches took, each beside one in a shop of the smallest number.
    fn measure(mut self, books: Books, smallest: usize) -> Vec<(Cost, Cost)> {
        while self.batches.len() > SAMPLES {
            self.step();
        }
        self.meter.touching.store(true, Ordering::Relaxed);
        let mut small: Option<Series> = None;
        let pairs = std::iter::from_fn(|| {
            (!self.batches.is_empty()).then(|| {
                let among_few = small
                    .take_if(|series| !series.batches.is_empty())
                    .unwrap_or_else(|| Series::of(books, smallest));
                among_few.meter.touching.store(true, Ordering::Relaxed);
                let few = small.insert(among_few).step();
                (few, self.step())
            })
        });
        let pairs = pairs.collect();
        let mut small = small.unwrap();
        while !small.batches.is_empty() {
            small.step();
        }
        for series in [&mut self, &mut small] {
            series.run.rows_unchecked = false;
            series.run.check().unwrap();
        }
        pairs
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "it belongs to this program alone"
)]
fn largest() -> usize {
    std::env::var("CROSSDOCK_RECORDS").map_or(100_000, |text| text.parse().unwrap())
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let most = largest();
    let smallest = most / 100;
    println!(
        "Microseconds of processor time for each paid order that is pushed, {BATCH} at a time, and read again, among so many; medians of {SAMPLES} batches, each beside one among {smallest}, and of how much more it took than that:"
    );
    println!("| books | records | push | growth | pull | growth | store in memory | stand-in |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut worst: f64 = 0.0;
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        for count in [most / 10, most] {
            let pairs = Series::of(books, count).measure(books, smallest);
            let of = |part: fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(part));
            if count < most {
                println!(
                    "| {books:?} | {smallest} | {:.1} | 1 | {:.1} | 1 | {:.1} | {:.1} |",
                    of(|(few, _)| few.push),
                    of(|(few, _)| few.pull),
                    of(|(few, _)| few.store),
                    of(|(few, _)| few.provider)
                );
            }
            let push = of(|(few, many)| many.push / few.push);
            let pull = of(|(few, many)| many.pull / few.pull);
            worst = worst.max(push).max(pull);
            println!(
                "| {books:?} | {count} | {:.1} | {push:.2} | {:.1} | {pull:.2} | {:.1} | {:.1} |",
                of(|(_, many)| many.push),
                of(|(_, many)| many.pull),
                of(|(_, many)| many.store),
                of(|(_, many)| many.provider)
            );
        }
    }
    assert!(
        worst <= GROWTH_MAX,
        "a record takes {worst:.2} times as much among many"
    );
}
