//! What a million webhook deliveries cost: the production code over tables, queues and a bus that count
//! what AWS charges for, at the prices of its public list. `make cost` prints it line by line.

use crate::run::{Books, Run, alone, merchant};
use crate::shop::Shop;
use crate::world::{PLATFORM_KEY, World, hold};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use crossdock::api::{self, events};
use crossdock::bus::{Bus, Entry};
use crossdock::ctx::{Clock, Ctx};
use crossdock::engine::outbox;
use crossdock::error::Result;
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::notice::{DeliveryNotice, Notice, RetryNotice};
use crossdock::net::{Limits, Net};
use crossdock::queue::{Message, Queue};
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError};
use crossdock::webhooks::deliver::{self, Arrival};
use crossdock::webhooks::endpoint::{self, Log, Wish};
use crossdock::webhooks::{fanout, recover, schedule};
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

/// Events, each of which one endpoint wants.
const EVENTS: usize = 2000;
/// Messages of one invocation and of one call to a queue, and rows of one batch of the stream.
const BATCH: usize = 10;
/// One first attempt in so many fails, which is three in a hundred.
const FAILS: usize = 33;
const DELIVER: &str = "deliver";
const RETRY: &str = "retry";
const SLOW: &str = "slow";

/// What AWS charges for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    /// DynamoDB, on demand: a kilobyte written, four kilobytes read.
    Write,
    Read,
    /// A gigabyte kept for a month, with its continuous backup.
    StoredMonth,
    QueueRequest,
    BusEvent,
    Invocation,
    GigabyteSecond,
    LoggedGigabyte,
    SentGigabyte,
}

/// The price of one, in dollars: us-east-1, Linux/arm64, on demand, without the free tier, as AWS lists it in
/// 2026 and as the page that is named quotes it. The last two, backup and storage are of AWS's pages from
/// memory.
const PRICES: [(Unit, f64, &str); 9] = [
    (
        Unit::Write,
        0.625e-6,
        "DynamoDB write unit (airbyte.com/data-engineering-resources/dynamodb-pricing)",
    ),
    (Unit::Read, 0.125e-6, "DynamoDB read unit (the same)"),
    (
        Unit::StoredMonth,
        0.45,
        "DynamoDB GB-month, 0.25, and its backup, 0.20 (aws.amazon.com/dynamodb/pricing)",
    ),
    (
        Unit::QueueRequest,
        0.40e-6,
        "SQS request (factualminds.com/blog/amazon-sqs-pricing-64kb-rule-fifo-vs-standard, June 2026)",
    ),
    (
        Unit::BusEvent,
        1.00e-6,
        "EventBridge event (cloudburn.io/blog/amazon-eventbridge-pricing, March 2026)",
    ),
    (
        Unit::Invocation,
        0.20e-6,
        "Lambda request (cloudchipr.com/blog/aws-lambda-pricing)",
    ),
    (
        Unit::GigabyteSecond,
        0.0000133334,
        "Lambda GB-second (the same)",
    ),
    (
        Unit::LoggedGigabyte,
        0.50,
        "CloudWatch Logs GB taken in (aws.amazon.com/cloudwatch/pricing)",
    ),
    (
        Unit::SentGigabyte,
        0.09,
        "GB out to the internet (aws.amazon.com/ec2/pricing/on-demand)",
    ),
];

/// What cannot be counted here, and is assumed. Seconds of an invocation: with the slowest receiver of ten
/// (0.6) and the processor time of ten at the share that 128 MB have of one (10 × 0.3 ms × 1769/128), and
/// without receivers.
const DELIVER_SECONDS: f64 = 0.65;
const OTHER_SECONDS: f64 = 0.05;
/// Bytes of the log for each invocation: what Lambda itself says of it, if the template lets it, and the line
/// of what is done, to which each message adds its event's id (`runtime::queue` is held to that by its own
/// test).
const INVOCATION_LOGGED: f64 = 900.0;
const DONE_LOGGED: f64 = 200.0;
const DONE_ID_LOGGED: f64 = 35.0;
/// Bytes of a line about one event alone, as the relay has them.
const EVENT_LOGGED: f64 = 250.0;
/// Bytes on the wire for each attempt.
const SENT: f64 = 4000.0;
/// Keys, revision, the end of its life and the names of all of them come on top of a document.
const ITEM_OVERHEAD: u64 = 150;

/// The most that the deliveries themselves may cost for a million: with all of them in the log, and with
/// failures alone.
const LIMITS: [(Log, &str, f64); 2] = [
    (Log::Full, "log: full", 2.10),
    (Log::Failures, "log: failures", 1.45),
];

#[derive(Default)]
struct Counts {
    stage: &'static str,
    units: BTreeMap<(&'static str, Unit), f64>,
    /// Deliveries' rows, in bytes.
    kept: u64,
    attempts: usize,
    sent: BTreeMap<String, Vec<String>>,
    on_bus: Vec<String>,
}

struct Meter {
    world: World,
    counts: Mutex<Counts>,
}

static TEMPLATE: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../infra/template.yaml");
    serde_yaml_ng::from_str(text).unwrap()
});

/// What the template says of a function.
fn properties(function: &str) -> &'static Value {
    let properties = &TEMPLATE["Resources"][function]["Properties"];
    assert!(properties.is_mapping(), "no function is named {function}");
    properties
}

/// The memory of a function in gigabytes.
fn memory(function: &str) -> f64 {
    let of_all = &TEMPLATE["Globals"]["Function"]["MemorySize"];
    let own = &properties(function)["MemorySize"];
    own.as_f64().or(of_all.as_f64()).unwrap() / 1024.0
}

fn size(doc: &serde_json::Value) -> u64 {
    doc.to_string().len() as u64 + ITEM_OVERHEAD
}

impl Meter {
    fn count(&self, unit: Unit, number: f64) {
        let mut counts = hold(&self.counts);
        let stage = counts.stage;
        *counts.units.entry((stage, unit)).or_default() += number;
    }

    fn stage(&self, stage: &'static str) {
        hold(&self.counts).stage = stage;
    }

    /// Each item by itself; `share` is what it costs of a read that sees every write.
    fn read<'a>(&self, items: impl Iterator<Item = Option<&'a Item>>, share: f64) {
        for item in items {
            let bytes = item.map_or(0, |item| size(&item.doc));
            self.count(Unit::Read, bytes.div_ceil(4096).max(1) as f64 * share);
        }
    }

    /// By the larger of what stood there and what stands there then; twice that in a transaction.
    async fn written(&self, writes: &[Write]) {
        for write in writes {
            let before = self.world.memory.get(write.key()).await.ok().flatten();
            let before = before.map_or(0, |item| size(&item.doc));
            let after = match write {
                Write::Put { doc, .. } => size(doc),
                Write::Delete { .. } | Write::Check { .. } => 0,
            };
            let units = before.max(after).div_ceil(1024).max(1);
            let times = if writes.len() > 1 { 2 } else { 1 };
            self.count(Unit::Write, (units * times) as f64);
            let mut counts = hold(&self.counts);
            if OURS.contains(&counts.stage) {
                counts.kept = (counts.kept + after).saturating_sub(before);
            }
        }
    }

    /// One invocation over so many messages of a queue: they are received and deleted in one call each.
    fn invoked(&self, function: &str, messages: usize, seconds: f64) {
        self.count(Unit::QueueRequest, 2.0);
        let logged = DONE_LOGGED + messages as f64 * DONE_ID_LOGGED;
        self.ran(function, logged, seconds);
    }

    fn ran(&self, function: &str, logged: f64, seconds: f64) {
        self.count(Unit::Invocation, 1.0);
        self.count(Unit::GigabyteSecond, seconds * memory(function));
        let quiet = properties(function)["LoggingConfig"]["SystemLogLevel"] == "WARN";
        let own = if quiet { 0.0 } else { INVOCATION_LOGGED };
        self.count(Unit::LoggedGigabyte, (own + logged) / 1e9);
        self.world.advance(Duration::from_secs_f64(seconds));
    }

    /// What was sent to a queue and not yet taken from it, as batches.
    fn batches<T: DeserializeOwned>(&self, queue: &str) -> Vec<Vec<T>> {
        let sent = hold(&self.counts).sent.remove(queue).unwrap_or_default();
        let read = |bodies: &[String]| {
            let read = bodies.iter().map(|body| serde_json::from_str(body));
            read.collect::<Result<Vec<T>, _>>().unwrap()
        };
        sent.chunks(BATCH).map(read).collect()
    }
}

#[async_trait]
impl Store for Meter {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let found = self.world.memory.get(key).await?;
        self.read([found.as_ref()].into_iter(), 1.0);
        Ok(found)
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let found = self.world.memory.get_many(keys).await?;
        self.read(found.iter().map(Option::as_ref), 1.0);
        Ok(found)
    }

    async fn get_many_settled(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let found = self.world.memory.get_many(keys).await?;
        self.read(found.iter().map(Option::as_ref), 0.5);
        Ok(found)
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        let page = self.world.memory.list(group, after, limit).await?;
        let bytes: u64 = page.items.iter().map(|item| size(&item.doc)).sum();
        self.count(Unit::Read, bytes.div_ceil(4096).max(1) as f64);
        Ok(page)
    }

    async fn scan(&self, _: Table, _: Option<&str>, _: usize) -> Result<Page> {
        panic!("nothing of this reads a whole table")
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.written(&writes).await;
        self.world.memory.transact(writes).await
    }

    async fn put_many(&self, _: Vec<Write>) -> Result<()> {
        panic!("nothing of this writes without a condition in bulk")
    }
}

#[async_trait]
impl Queue for Meter {
    async fn send_later(&self, url: &str, messages: Vec<Message>) -> Result<()> {
        self.count(Unit::QueueRequest, messages.len().div_ceil(BATCH) as f64);
        let mut counts = hold(&self.counts);
        let bodies = messages.into_iter().map(|message| message.body);
        counts
            .sent
            .entry(url.to_owned())
            .or_default()
            .extend(bodies);
        Ok(())
    }
}

#[async_trait]
impl Bus for Meter {
    async fn put(&self, _: &str, entries: Vec<Entry>) -> Vec<Result<()>> {
        self.count(Unit::BusEvent, entries.len() as f64);
        // The rule sends each event to the queue of the fan-out by itself.
        self.count(Unit::QueueRequest, entries.len() as f64);
        let taken = entries.iter().map(|_| Ok(())).collect();
        let details = entries.into_iter().map(|entry| entry.detail);
        hold(&self.counts).on_bus.extend(details);
        taken
    }
}

#[async_trait]
impl Net for Meter {
    async fn send(&self, _: Request, _: Limits) -> Result<Response> {
        self.count(Unit::SentGigabyte, SENT / 1e9);
        let mut counts = hold(&self.counts);
        counts.attempts += 1;
        let fails = counts.stage == FIRST && counts.attempts.is_multiple_of(FAILS);
        Ok(Response {
            status: if fails { 500 } else { 200 },
            headers: Vec::new(),
            body: br#"{"received":true}"#.to_vec(),
        })
    }
}

#[async_trait]
impl Clock for Meter {
    fn now(&self) -> DateTime<Utc> {
        self.world.now()
    }

    async fn sleep(&self, duration: Duration) {
        self.world.sleep(duration).await;
    }

    fn random(&self, bytes: &mut [u8]) {
        self.world.random(bytes);
    }
}

const ACCEPT: &str = "the event is accepted";
const RELAY: &str = "it is put on the bus";
const FAN_OUT: &str = "fan-out";
const FIRST: &str = "first attempts";
const AGAIN: &str = "attempts after the first";
const KEPT: &str = "the rows of 30 days";
/// What is there for deliveries alone; the rest is there for whoever wants the event.
const OURS: [&str; 4] = [FAN_OUT, FIRST, AGAIN, KEPT];

fn accept(ctx: &Ctx, event: &serde_json::Value) {
    let request = api::Request {
        method: "POST".to_owned(),
        path: "/api/v1/events".to_owned(),
        bearer: Some(PLATFORM_KEY.into()),
        body: event.to_string().into_bytes(),
        ..api::Request::default()
    };
    assert_eq!(alone(events::handle(ctx, &request)).unwrap().status, 202);
}

/// The process of a function, warm for the whole run.
fn process(meter: &Arc<Meter>) -> Ctx {
    let queues = [
        ("QUEUE_WEBHOOK_DELIVER_URL", DELIVER),
        ("QUEUE_WEBHOOK_RETRY_URL", RETRY),
        ("QUEUE_WEBHOOK_SLOW_URL", SLOW),
    ];
    Ctx {
        clock: meter.clone(),
        store: meter.clone(),
        net: meter.clone(),
        queue: meter.clone(),
        bus: meter.clone(),
        ..meter.world.ctx_with(&queues)
    }
}

#[test]
fn a_million_deliveries() {
    for (log, name, limit) in LIMITS {
        let cost = deliveries(log, name);
        println!("a million deliveries, {name:<18} ${cost:.2}, of ${limit:.2} at most\n");
        assert!(cost <= limit, "{name}: {cost:.3}");
    }
}

/// Makes the deliveries to an endpoint with such a log, and returns what they cost for a million.
fn deliveries(log: Log, name: &str) -> f64 {
    let mut run = Run::of(1, Books::Receipts, |_| Shop::backlog(EVENTS / 2, 60));
    let meter = Arc::new(Meter {
        world: run.world.clone(),
        counts: Mutex::default(),
    });
    let ctx = process(&meter);
    let wish = Wish {
        url: Some("https://receiver.example/hook".parse().unwrap()),
        event_types: Some(EventType::ALL.into_iter().collect()),
        log: Some(log),
        ..Wish::default()
    };
    alone(endpoint::register(&run.ctx, &merchant(), wish, None)).unwrap();

    let (fan, first) = (process(&meter), process(&meter));
    let events = run.shop().events.clone();
    assert_eq!(events.len(), EVENTS);
    // Ten after the other, as in a steady stream of them.
    for events in events.chunks(BATCH) {
        meter.stage(ACCEPT);
        for event in events {
            // The API's own invocation is shared by what it does besides.
            accept(&ctx, event);
        }
        let notices = alone(meter.world.memory.scan(Table::Outbox, None, BATCH)).unwrap();
        let notices = notices.items.iter().map(|item| item.read::<Notice>());
        let notices: Vec<Notice> = notices.collect::<Result<_>>().unwrap();
        assert_eq!(notices.len(), events.len());
        meter.stage(RELAY);
        let done = alone(outbox::publish(&ctx, &notices));
        assert!(done.iter().all(Result::is_ok));
        let logged = notices.len() as f64 * EVENT_LOGGED;
        meter.ran("FunctionOutboxRelay", logged, OTHER_SECONDS);
        meter.stage(FAN_OUT);
        let on_bus = std::mem::take(&mut hold(&meter.counts).on_bus);
        let notices = on_bus.iter().map(|detail| serde_json::from_str(detail));
        let notices: Vec<Notice> = notices.collect::<Result<_, _>>().unwrap();
        let made = alone(fanout::fan_out(&fan, &notices));
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        meter.invoked("FunctionWebhookFanout", notices.len(), OTHER_SECONDS);
        meter.stage(FIRST);
        for batch in meter.batches::<DeliveryNotice>(DELIVER) {
            let arrivals = batch.into_iter().map(|notice| Arrival {
                notice,
                again: false,
            });
            let arrivals: Vec<Arrival> = arrivals.collect();
            let done = alone(deliver::deliver(&first, &arrivals));
            assert!(done.iter().all(Result::is_ok), "{done:?}");
            meter.invoked("FunctionWebhookDeliver", arrivals.len(), DELIVER_SECONDS);
        }
    }
    meter.stage(AGAIN);
    meter.world.advance(Duration::from_secs(60));
    for batch in meter.batches::<RetryNotice>(RETRY) {
        let done = alone(recover::retry(&first, &batch));
        assert!(done.iter().all(Result::is_ok), "{done:?}");
        meter.invoked("FunctionWebhookRetry", batch.len(), DELIVER_SECONDS);
    }
    assert_eq!(alone(schedule::plan(&process(&meter))).unwrap(), 0);
    meter.stage(KEPT);
    let kept = hold(&meter.counts).kept;
    meter.count(Unit::StoredMonth, kept as f64 / 1e9);

    let attempts = hold(&meter.counts).attempts;
    assert_eq!(attempts, EVENTS + EVENTS / FAILS, "each arrived");
    tell(&meter, name)
}

/// Prints the list, and returns what the deliveries themselves cost for a million.
fn tell(meter: &Meter, name: &str) -> f64 {
    let counts = hold(&meter.counts);
    let million = 1e6 / EVENTS as f64;
    println!(
        "{name}: {EVENTS} deliveries, fan-out 1, batches of {BATCH}, one in {FAILS} tried twice; for a million:\n"
    );
    let (mut ours, mut stages) = (0.0, BTreeMap::new());
    for (unit, price, name) in PRICES {
        println!("{name}: ${price}");
        for ((stage, _), number) in counts.units.iter().filter(|((_, of), _)| *of == unit) {
            let (number, cost) = (number * million, number * million * price);
            println!("  {stage:<26} {number:>16.3}  ${cost:.3}");
            *stages.entry(*stage).or_insert(0.0) += cost;
            ours += if OURS.contains(stage) { cost } else { 0.0 };
        }
    }
    println!();
    for stage in [ACCEPT, RELAY].iter().chain(&OURS) {
        println!("{stage:<28} ${:.3}", stages[stage]);
    }
    let before: f64 = [ACCEPT, RELAY].iter().map(|stage| stages[stage]).sum();
    println!("\na million events before any delivery     ${before:.2}");
    ours
}
