//! One hostile receiver never delays another developer: fan-out and delivery over queues whose places are
//! counted, in virtual time, with receivers that are well beside some that keep places for as long as they can.
//!
//! Production code: all decisions (who gets what, when an endpoint is slow, where its messages go, who has a
//! token, when the next attempt is), over tables in memory that answer at once. Model: SQS and Lambda's
//! pollers as AWS documents them, the time that a call to them takes, receivers, and the API, whose events
//! begin in the queue of the fan-out. How many places there are is read from the template.
//!
//! - Fair queues (docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-fair-queues-detailed.html):
//!   a group is noisy with more than a tenth of what is in flight and at least 30 messages, or with more than a
//!   tenth of the recent processing time; what is quiet comes first, then the noisy one with the least in
//!   flight; it is quiet again once nothing of it waits. How long "recent" is AWS does not say: half a minute
//!   here.
//! - Pollers (docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html): five batches at a time, and "up
//!   to 300 more instances per minute" while messages are left, up to the maximum. Taken as five more each
//!   second; AWS does not say how evenly they come. They leave as fast, which is the worst for whoever comes
//!   next.

use crate::run::alone;
use crate::world::{World, hold, start};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::ctx::{Clock, Ctx};
use crossdock::error::{Code, Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::MerchantId;
use crossdock::model::notice::{DeliveryNotice, Envelope, Notice, RetryNotice};
use crossdock::net::{Limits, Net};
use crossdock::queue::{Message, Queue};
use crossdock::store::memory::Memory;
use crossdock::store::{Store, keys};
use crossdock::webhooks::deliver::{self, Arrival};
use crossdock::webhooks::endpoint::{self, Endpoint, Wish};
use crossdock::webhooks::{fanout, recover, samples, schedule};
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use serde_yaml_ng::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const FANOUT: usize = 0;
const DELIVER: usize = 1;
const RETRY: usize = 2;
const SLOW: usize = 3;
/// The queues, with the functions that read them.
const LANES: [(&str, &str); 4] = [
    ("fanout", "FunctionWebhookFanout"),
    ("deliver", "FunctionWebhookDeliver"),
    ("retry", "FunctionWebhookRetry"),
    ("slow", "FunctionWebhookSlow"),
];
const BATCH: usize = 10;
const POLLERS_FIRST: usize = 5;
const POLLERS_MORE: usize = 5;
const VISIBILITY: u64 = 360 * SECOND;
/// Microseconds.
const SECOND: u64 = 1_000_000;
const MILLI: u64 = 1000;
/// What a message takes until its function has it with the rows it reads, and what is left once it is done.
const BEFORE: u64 = 20 * MILLI;
const AFTER: u64 = 10 * MILLI;
/// How long a tenant's processing time counts as recent.
const RECENT: f64 = 30.0;

/// Developers who are well, and how many events of each come in a second.
const WELL: usize = 40;
const WELL_RATE: u64 = 2;
/// One in so many of their answers is a failure.
const WELL_FAILS: usize = 50;
const HOSTILE_RATE: u64 = 20;
/// Events come for so long, and everything is looked at until then.
const COMING: u64 = 150 * SECOND;
const END: u64 = 200 * SECOND;
/// When the burst comes, how much of it, and how much of it a second.
const BURST_AT: u64 = 30 * SECOND;
const BURST: u64 = 100_000;
const BURST_RATE: u64 = 10_000;

/// What receivers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mode {
    Well,
    /// It takes what comes, after 19 seconds.
    Slow,
    /// Its answer never ends.
    Drip,
    /// Its answer is larger than what is kept, and cut.
    Huge,
    Resets,
    /// No answer at all.
    Silent,
    /// Four times no answer, and then a success.
    Flapping,
    /// Well for a minute, and slow from then on, under load.
    Turncoat,
    /// Well, with a hundred thousand events at once.
    Burst,
    /// Well, and wants no more than [`LIMIT`] a second, of twice as many.
    Limited,
}

const LIMIT: u32 = 10;

const HOSTILE: [Mode; 8] = [
    Mode::Slow,
    Mode::Drip,
    Mode::Huge,
    Mode::Resets,
    Mode::Silent,
    Mode::Flapping,
    Mode::Turncoat,
    Mode::Burst,
];

/// What is switched on.
#[derive(Debug, Clone, Copy)]
struct Switches {
    /// Queues look at whose a message is.
    fair: bool,
    /// It is noticed that an attempt takes long.
    watched: bool,
    /// Places of each function, if not those of the template.
    places: Option<usize>,
}

const ALL_ON: Switches = Switches {
    fair: true,
    watched: true,
    places: None,
};

struct Sent {
    body: String,
    group: String,
    sent_at: u64,
    again: bool,
}

/// One queue and the pollers of its function.
#[derive(Default)]
struct Lane {
    waiting: BTreeMap<String, VecDeque<Sent>>,
    /// By when they are seen, and the order in which they came.
    later: BTreeMap<(u64, u64), Sent>,
    in_flight: BTreeMap<String, usize>,
    bodies_in_flight: HashMap<u64, Vec<String>>,
    spent: BTreeMap<String, f64>,
    noisy: BTreeSet<String>,
    places: usize,
    places_max: usize,
    busy: usize,
    was_idle: bool,
    busiest: usize,
}

impl Lane {
    fn see(&mut self, now: u64) {
        while let Some(first) = self.later.first_entry() {
            if first.key().0 > now {
                break;
            }
            let sent = first.remove();
            let group = self.waiting.entry(sent.group.clone()).or_default();
            group.push_back(sent);
        }
    }

    fn judge(&mut self) {
        let total: usize = self.in_flight.values().sum();
        let spent: f64 = self.spent.values().sum();
        for (group, count) in &self.in_flight {
            if *count >= 30 && *count * 10 > total {
                self.noisy.insert(group.clone());
            }
        }
        for (group, of) in &self.spent {
            if *of > spent / 10.0 {
                self.noisy.insert(group.clone());
            }
        }
        let waiting = &self.waiting;
        self.noisy.retain(|group| waiting.contains_key(group));
    }

    /// A batch, of those that are quiet first.
    fn receive(&mut self, fair: bool) -> Vec<Sent> {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            if fair {
                self.judge();
            }
            let place = |(group, sent): (&String, &VecDeque<Sent>)| {
                let first = sent.front().map(|sent| sent.sent_at);
                match fair && self.noisy.contains(group) {
                    false => (0, first, group.clone()),
                    true => {
                        let count = self.in_flight.get(group).copied().unwrap_or_default();
                        (1 + count, first, group.clone())
                    }
                }
            };
            let Some((_, _, group)) = self.waiting.iter().map(place).min() else {
                break;
            };
            let of = self.waiting.get_mut(&group).unwrap();
            batch.extend(of.pop_front());
            if of.is_empty() {
                self.waiting.remove(&group);
            }
            *self.in_flight.entry(group).or_default() += 1;
        }
        batch
    }

    fn left(&mut self, batch: &[Sent], took: u64) {
        for sent in batch {
            *self.in_flight.get_mut(&sent.group).unwrap() -= 1;
            *self.spent.entry(sent.group.clone()).or_default() += took as f64;
        }
    }

    /// Once a second.
    fn scale(&mut self) {
        let idle = self.busy < self.places;
        if !idle && !self.waiting.is_empty() {
            self.places = (self.places + POLLERS_MORE).min(self.places_max);
        } else if idle && self.was_idle {
            let fewer = self.places.saturating_sub(POLLERS_MORE);
            self.places = fewer.max(self.busy).max(POLLERS_FIRST.min(self.places_max));
        }
        self.was_idle = idle;
        for of in self.spent.values_mut() {
            *of *= (-1.0 / RECENT).exp();
        }
    }
}

struct Receiver {
    mode: Mode,
    seen: usize,
    side_by_side: usize,
    most_side_by_side: usize,
}

#[derive(Default)]
struct Now {
    at: u64,
    number: u64,
    timers: BinaryHeap<Reverse<(u64, u64)>>,
    wakers: HashMap<u64, Waker>,
    lanes: [Lane; 4],
    receivers: BTreeMap<String, Receiver>,
    /// When each event was sent, by its id.
    attempts: HashMap<String, Vec<u64>>,
}

struct Town {
    world: World,
    switches: Switches,
    now: Mutex<Now>,
}

impl Town {
    async fn until(&self, at: u64) {
        let mut number = None;
        poll_fn(|cx| {
            let mut now = hold(&self.now);
            if now.at >= at {
                return Poll::Ready(());
            }
            let number = *number.get_or_insert_with(|| {
                now.number += 1;
                let number = now.number;
                now.timers.push(Reverse((at, number)));
                number
            });
            now.wakers.insert(number, cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    async fn pass(&self, micros: u64) {
        let at = hold(&self.now).at + micros;
        self.until(at).await;
    }

    fn below(&self, end: usize) -> usize {
        self.world.state().dice.below(end)
    }

    fn send(&self, lane: usize, body: String, group: String, delay: u64, again: bool) {
        let mut now = hold(&self.now);
        now.number += 1;
        let (number, sent_at) = (now.number, now.at);
        let sent = Sent {
            body,
            group,
            sent_at,
            again,
        };
        now.lanes[lane]
            .later
            .insert((sent_at + delay, number), sent);
    }
}

#[async_trait]
impl Clock for Town {
    fn now(&self) -> DateTime<Utc> {
        start() + TimeDelta::microseconds(hold(&self.now).at as i64)
    }

    async fn sleep(&self, duration: Duration) {
        self.pass(duration.as_micros() as u64).await;
    }

    async fn alarm(&self, duration: Duration) {
        match self.switches.watched {
            true => self.sleep(duration).await,
            false => std::future::pending().await,
        }
    }

    fn passed(&self) -> Duration {
        Duration::from_micros(hold(&self.now).at)
    }

    fn random(&self, bytes: &mut [u8]) {
        self.world.random(bytes);
    }
}

#[async_trait]
impl Queue for Town {
    async fn send_later(&self, url: &str, messages: Vec<Message>) -> Result<()> {
        let lane = LANES.iter().position(|(name, _)| *name == url).unwrap();
        for message in messages {
            let group = message.group.expect("whose it is");
            let delay = u64::from(message.delay_seconds);
            assert!(delay <= 900, "a queue keeps nothing longer");
            self.send(lane, message.body, group, delay * SECOND, false);
        }
        Ok(())
    }
}

#[async_trait]
impl Net for Town {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        let host = request.url.host_str().unwrap().to_owned();
        let mut headers = request.headers.iter();
        let (_, id) = headers.find(|(name, _)| name == "webhook-id").unwrap();
        let (mode, seen, at) = {
            let mut now = hold(&self.now);
            let at = now.at;
            now.attempts.entry(id.clone()).or_default().push(at);
            let receiver = now.receivers.get_mut(&host).unwrap();
            receiver.seen += 1;
            receiver.side_by_side += 1;
            receiver.most_side_by_side = receiver.most_side_by_side.max(receiver.side_by_side);
            (receiver.mode, receiver.seen, at)
        };
        let quick = (50 + self.below(150)) as u64 * MILLI;
        let total = limits.total.as_micros() as u64;
        let (takes, status, bytes) = match mode {
            Mode::Well if seen.is_multiple_of(WELL_FAILS) => (quick, Some(500), 100),
            Mode::Well | Mode::Burst | Mode::Limited => (quick, Some(200), 100),
            Mode::Turncoat if at < 60 * SECOND => (quick, Some(200), 100),
            Mode::Slow | Mode::Turncoat => (19 * SECOND, Some(200), 100),
            Mode::Drip | Mode::Silent => (total, None, 0),
            Mode::Huge => (quick, Some(200), limits.body_bytes_max),
            Mode::Resets => (quick / 10, None, 0),
            Mode::Flapping if seen.is_multiple_of(5) => (quick, Some(200), 100),
            Mode::Flapping => (total, None, 0),
        };
        self.pass(takes).await;
        let mut now = hold(&self.now);
        now.receivers.get_mut(&host).unwrap().side_by_side -= 1;
        match status {
            Some(status) => Ok(Response {
                status,
                headers: Vec::new(),
                body: vec![b'x'; bytes],
            }),
            None => Err(Error::new(Code::UpstreamFailed, "no answer")),
        }
    }
}

/// The most invocations of a function at the same time, in a real account.
fn places(function: &str) -> usize {
    let template: Value =
        serde_yaml_ng::from_str(include_str!("../../infra/template.yaml")).unwrap();
    let queue = &template["Resources"][function]["Properties"]["Events"]["Queue"]["Properties"];
    let number = match &queue["ScalingConfig"]["MaximumConcurrency"] {
        Value::Tagged(either) => either.value[2].as_u64(),
        number => number.as_u64(),
    };
    usize::try_from(number.unwrap()).unwrap()
}

struct Done {
    lane: usize,
    number: u64,
    ctx: Arc<Ctx>,
    batch: Vec<Sent>,
    results: Vec<Result<()>>,
    began: u64,
}

/// What is measured of the developers that are well, in microseconds.
struct Measured {
    first_byte: Vec<u64>,
    second: Vec<u64>,
    /// When the last of all endpoints was sent to.
    last: Vec<u64>,
}

fn percentile(sorted: &[u64], of: f64) -> f64 {
    let place = ((sorted.len() as f64 * of).ceil() as usize).clamp(1, sorted.len());
    sorted[place - 1] as f64 / SECOND as f64
}

async fn invoke(
    town: Arc<Town>,
    ctx: Arc<Ctx>,
    lane: usize,
    number: u64,
    batch: Vec<Sent>,
) -> Done {
    let began = hold(&town.now).at;
    town.pass(BEFORE).await;
    let bodies = batch.iter().map(|sent| sent.body.as_str());
    let results = match lane {
        FANOUT => {
            let notices = bodies.map(|body| serde_json::from_str::<Envelope>(body).unwrap().detail);
            let notices: Vec<Notice> = notices.collect();
            fanout::fan_out(&ctx, &notices).await
        }
        RETRY => {
            let notices = bodies.map(|body| serde_json::from_str(body).unwrap());
            let notices: Vec<RetryNotice> = notices.collect();
            recover::retry(&ctx, &notices).await
        }
        _ => {
            let arrivals = batch.iter().map(|sent| Arrival {
                notice: serde_json::from_str(&sent.body).unwrap(),
                again: sent.again,
            });
            let arrivals: Vec<Arrival> = arrivals.collect();
            deliver::deliver(&ctx, &arrivals).await
        }
    };
    town.pass(AFTER).await;
    Done {
        lane,
        number,
        ctx,
        batch,
        results,
        began,
    }
}

fn process(town: &Arc<Town>, memory: &Arc<Memory>) -> Arc<Ctx> {
    let queues = [
        ("QUEUE_WEBHOOK_DELIVER_URL", LANES[DELIVER].0),
        ("QUEUE_WEBHOOK_RETRY_URL", LANES[RETRY].0),
        ("QUEUE_WEBHOOK_SLOW_URL", LANES[SLOW].0),
    ];
    Arc::new(Ctx {
        clock: town.clone(),
        store: memory.clone(),
        net: town.clone(),
        queue: town.clone(),
        ..town.world.ctx_with(&queues)
    })
}

/// Lets time pass over developers that are well and these that are not.
fn run(hostile: &[Mode], switches: Switches) -> Measured {
    let world = World::new(1);
    world.state().traced = false;
    let town = Arc::new(Town {
        world,
        switches,
        now: Mutex::default(),
    });
    let memory = Arc::new(Memory::default());
    let ctx = process(&town, &memory);
    for (lane, (_, function)) in hold(&town.now).lanes.iter_mut().zip(LANES) {
        lane.places_max = switches.places.unwrap_or_else(|| places(function));
        lane.places = POLLERS_FIRST.min(lane.places_max);
    }
    let modes = std::iter::repeat_n(Mode::Well, WELL).chain(hostile.iter().copied());
    // When something happens at whose endpoint.
    let mut coming: Vec<(u64, usize)> = Vec::new();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (number, mode) in modes.enumerate() {
        let merchant: MerchantId = format!("m_{number}").parse().unwrap();
        let wish = Wish {
            url: Some(format!("https://{number}.example/hook").parse().unwrap()),
            event_types: Some(EventType::ALL.into_iter().collect()),
            rate_limit: (mode == Mode::Limited).then_some(LIMIT),
            ..Wish::default()
        };
        let (made, _) = alone(endpoint::register(&ctx, &merchant, wish, None)).unwrap();
        endpoints.push(made);
        let receiver = Receiver {
            mode,
            seen: 0,
            side_by_side: 0,
            most_side_by_side: 0,
        };
        hold(&town.now)
            .receivers
            .insert(format!("{number}.example"), receiver);
        let rate = match mode {
            Mode::Well => WELL_RATE,
            _ => HOSTILE_RATE,
        };
        match mode {
            Mode::Burst => {
                let at = |of: u64| BURST_AT + of * SECOND / BURST_RATE;
                coming.extend((0..BURST).map(|of| (at(of), number)));
            }
            _ => {
                let count = COMING / SECOND * rate;
                let at = |_| town.below(COMING as usize) as u64;
                coming.extend((0..count).map(at).map(|at| (at, number)));
            }
        }
    }
    coming.sort_unstable();
    let mut coming = coming.into_iter().peekable();
    let mut accepted: HashMap<String, (u64, usize)> = HashMap::new();
    let mut tasks: FuturesUnordered<LocalBoxFuture<'static, Done>> = FuturesUnordered::new();
    let mut idle: [Vec<Arc<Ctx>>; 4] = Default::default();
    let mut cx = Context::from_waker(Waker::noop());
    let (mut tick, mut number) = (SECOND, 0);
    loop {
        while let Poll::Ready(Some(done)) = tasks.poll_next_unpin(&mut cx) {
            let mut now = hold(&town.now);
            let at = now.at;
            let lane = &mut now.lanes[done.lane];
            lane.busy -= 1;
            lane.bodies_in_flight.remove(&done.number);
            lane.left(&done.batch, at - done.began);
            drop(now);
            idle[done.lane].push(done.ctx);
            for (sent, result) in done.batch.into_iter().zip(done.results) {
                if result.is_err() {
                    let delay = VISIBILITY - (at - done.began);
                    town.send(done.lane, sent.body, sent.group, delay, true);
                }
            }
        }
        let mut spawned = false;
        for (lane, idle) in idle.iter_mut().enumerate() {
            let mut now = hold(&town.now);
            let at = now.at;
            let of = &mut now.lanes[lane];
            of.see(at);
            while of.busy < of.places && !of.waiting.is_empty() {
                let batch = of.receive(switches.fair);
                of.busy += 1;
                of.busiest = of.busiest.max(of.busy);
                number += 1;
                let bodies = batch.iter().map(|sent| sent.body.clone()).collect();
                of.bodies_in_flight.insert(number, bodies);
                let ctx = idle.pop().unwrap_or_else(|| process(&town, &memory));
                tasks.push(Box::pin(invoke(town.clone(), ctx, lane, number, batch)));
                spawned = true;
            }
        }
        if spawned {
            continue;
        }
        // Nothing happens any more before the next of these.
        let mut now = hold(&town.now);
        let timer = now.timers.peek().map(|Reverse((at, _))| *at);
        let seen = now.lanes.iter().filter_map(|lane| {
            let ((at, _), _) = lane.later.first_key_value()?;
            Some(*at)
        });
        let next = seen.chain(timer).chain(coming.peek().map(|(at, _)| *at));
        now.at = next.chain([tick]).min().unwrap();
        if now.at >= END {
            break;
        }
        let at = now.at;
        while let Some(Reverse((due, _))) = now.timers.peek() {
            if *due > at {
                break;
            }
            let Reverse((_, number)) = now.timers.pop().unwrap();
            if let Some(waker) = now.wakers.remove(&number) {
                waker.wake();
            }
        }
        if at == tick {
            now.lanes.iter_mut().for_each(Lane::scale);
            tick += SECOND;
        }
        drop(now);
        if at.is_multiple_of(60 * SECOND) && at > 0 {
            alone(schedule::plan(&ctx)).unwrap();
        }
        while let Some((_, whose)) = coming.next_if(|(due, _)| *due <= at) {
            let endpoint = &endpoints[whose];
            let notice = alone(samples::store(&ctx, endpoint, EventType::OrderCreated)).unwrap();
            accepted.insert(notice.event_id.to_string(), (at, whose));
            let group = notice.merchant_id.to_string();
            let body = serde_json::to_string(&Envelope { detail: notice }).unwrap();
            town.send(FANOUT, body, group, 0, false);
        }
    }
    let now = hold(&town.now);
    tell(&now, hostile, &accepted);
    nothing_is_lost(&now, &memory, &endpoints, &accepted);
    let (mut first_byte, mut second) = (Vec::new(), Vec::new());
    for (id, (at, whose)) in &accepted {
        if *whose >= WELL {
            continue;
        }
        let attempts = now.attempts.get(id).map_or(&[][..], Vec::as_slice);
        // What was never sent has waited at least until the end.
        first_byte.push(attempts.first().copied().unwrap_or(END) - at);
        if let [first, again, ..] = attempts {
            second.push(again - first);
        }
    }
    let last = accepted
        .iter()
        .filter(|(_, (_, whose))| *whose + 1 == endpoints.len());
    let last = last.filter_map(|(id, _)| now.attempts.get(id)).flatten();
    let mut last: Vec<u64> = last.copied().collect();
    last.sort_unstable();
    first_byte.sort_unstable();
    second.sort_unstable();
    Measured {
        first_byte,
        second,
        last,
    }
}

/// Prints what became of each hostile receiver.
fn tell(now: &Now, hostile: &[Mode], accepted: &HashMap<String, (u64, usize)>) {
    for (number, mode) in hostile.iter().enumerate() {
        let number = WELL + number;
        let came = accepted.values().filter(|(_, whose)| *whose == number);
        let receiver = &now.receivers[&format!("{number}.example")];
        println!(
            "  {:<9} {:>6} events, {:>6} attempts, at most {:>4} side by side",
            format!("{mode:?}").to_lowercase(),
            came.count(),
            receiver.seen,
            receiver.most_side_by_side
        );
    }
    let busiest = now.lanes.iter().zip(LANES);
    let busiest = busiest.map(|(lane, (name, _))| format!("{name} {}", lane.busiest));
    let busiest: Vec<String> = busiest.collect();
    println!("  most places at once: {}", busiest.join(", "));
}

/// Each event was tried, stands in a queue, or in the table with what it waits for.
fn nothing_is_lost(
    now: &Now,
    memory: &Memory,
    endpoints: &[Endpoint],
    accepted: &HashMap<String, (u64, usize)>,
) {
    let mut queued: HashSet<String> = HashSet::new();
    for (number, lane) in now.lanes.iter().enumerate() {
        let waiting = lane.waiting.values().flatten().chain(lane.later.values());
        let waiting = waiting.map(|sent| &sent.body);
        for body in waiting.chain(lane.bodies_in_flight.values().flatten()) {
            queued.insert(match number {
                FANOUT => {
                    let envelope: Envelope = serde_json::from_str(body).unwrap();
                    envelope.detail.event_id.to_string()
                }
                _ => {
                    let notice: DeliveryNotice = serde_json::from_str(body).unwrap();
                    notice.event_id.to_string()
                }
            });
        }
    }
    for (id, (at, whose)) in accepted {
        let is_logged = || {
            let Endpoint {
                merchant_id,
                id: endpoint,
                ..
            } = &endpoints[*whose];
            let at = start() + TimeDelta::microseconds(*at as i64);
            let key = keys::delivery(merchant_id, endpoint, at, &id.parse().unwrap());
            alone(memory.get(&key)).unwrap().is_some()
        };
        let found = now.attempts.contains_key(id) || queued.contains(id) || is_logged();
        assert!(found, "{id} was neither tried nor is it on its way");
    }
}

fn print(name: &str, measured: &Measured) -> (f64, f64) {
    let of = |of| percentile(&measured.first_byte, of);
    let second = match measured.second.as_slice() {
        [] => f64::INFINITY,
        second => percentile(second, 0.99),
    };
    println!(
        "{name}: accept to first byte p50 {:.3} s, p99 {:.3} s, worst {:.3} s of {}; second attempt after p99 {second:.3} s\n",
        of(0.5),
        of(0.99),
        of(1.0),
        measured.first_byte.len()
    );
    (of(0.99), second)
}

#[test]
fn one_hostile_receiver_delays_nobody_else() {
    let (alone_first, alone_second) = print("well alone", &run(&[], ALL_ON));
    for hostile in HOSTILE {
        let name = format!("beside {hostile:?}").to_lowercase();
        let (first, second) = print(&name, &run(&[hostile], ALL_ON));
        assert!(first - alone_first <= 1.0, "{name}: {first}");
        assert!(second - alone_second <= 1.0, "{name}: {second}");
    }
    // What is promised is of one. Seven that come at the same moment to five pollers take all of them until
    // others come; the burst, which takes none for long, is left out for its time.
    let all: Vec<Mode> = HOSTILE
        .into_iter()
        .filter(|mode| *mode != Mode::Burst)
        .collect();
    let (first, second) = print("beside seven of them", &run(&all, ALL_ON));
    assert!(first - alone_first <= 2.0, "beside seven of them: {first}");
    assert!(
        second - alone_second <= 1.0,
        "beside seven of them: {second}"
    );
}

#[test]
fn who_has_a_limit_is_sent_that_much_and_no_more() {
    let measured = run(&[Mode::Limited], ALL_ON);
    let (first, _) = print("beside one with a limit", &measured);
    assert!(first < 1.0);
    let seconds = measured.last.last().unwrap().div_ceil(SECOND);
    let in_all = seconds * u64::from(LIMIT);
    let range = in_all * 9 / 10..=in_all + u64::from(LIMIT);
    assert!(
        range.contains(&(measured.last.len() as u64)),
        "{} in {seconds} s",
        measured.last.len()
    );
    for at in &measured.last {
        let within = measured
            .last
            .iter()
            .filter(|other| (*at..at + SECOND).contains(other));
        assert!(within.count() <= 2 * LIMIT as usize, "from {at} on");
    }
}

#[test]
fn a_limit_is_up_to_a_thousand_a_second_or_none() {
    let world = World::new(1);
    let ctx = world.ctx();
    let merchant: MerchantId = "m_1".parse().unwrap();
    let limit = |rate_limit| Wish {
        url: Some("https://one.example/hook".parse().unwrap()),
        event_types: Some(EventType::ALL.into_iter().collect()),
        rate_limit: Some(rate_limit),
        ..Wish::default()
    };
    let (made, _) = alone(endpoint::register(&ctx, &merchant, limit(1000), None)).unwrap();
    assert_eq!(made.rate_limit, Some(1000));
    for rate in [1001, u32::MAX] {
        let refused = alone(endpoint::register(&ctx, &merchant, limit(rate), None)).unwrap_err();
        let refused = [
            refused,
            alone(endpoint::update(&ctx, &merchant, &made.id, limit(rate))).unwrap_err(),
        ];
        for refused in refused {
            assert_eq!(refused.code(), Code::ValidationFailed);
            assert!(
                refused.chain().contains("1 to 1000 webhooks a second"),
                "{}",
                refused.chain()
            );
        }
    }
    let changed = |rate| alone(endpoint::update(&ctx, &merchant, &made.id, limit(rate))).unwrap();
    assert_eq!(changed(1).rate_limit, Some(1));
    assert_eq!(changed(0).rate_limit, None);
}

/// What it is all for: without it, one receiver is enough.
#[test]
fn without_lanes_and_groups_one_receiver_delays_everybody() {
    for (name, hostile, switches) in [
        (
            "as it was",
            Mode::Slow,
            Switches {
                fair: false,
                watched: false,
                places: Some(10),
            },
        ),
        (
            "places alone",
            Mode::Slow,
            Switches {
                fair: false,
                watched: false,
                places: None,
            },
        ),
        (
            "no groups",
            Mode::Burst,
            Switches {
                fair: false,
                ..ALL_ON
            },
        ),
        (
            "ten places",
            Mode::Slow,
            Switches {
                places: Some(10),
                ..ALL_ON
            },
        ),
    ] {
        let (first, _) = print(name, &run(&[hostile], switches));
        assert!(first > 1.0, "{name}: {first}");
    }
}
