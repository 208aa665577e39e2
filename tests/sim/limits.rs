//! Many processes at a provider that counts: the budgets keep them just within its limits, whatever
//! becomes of a process or of its clock, and a merchant with much to do delays nobody else.
//!
//! Time is the test's own. A call takes from 150 to 350 ms, an operation of the store 5, and starting a
//! function on a batch 40.

use crate::run::{alone, indebted, merchant, set_up, set_up_as};
use crate::shop::{MERCHANT, Shop};
use crate::world::hold;
use crate::world::{Message, PLATFORM_KEY, SYNC_QUEUE, World};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::api::{self, events};
use crossdock::bus::{Bus, Entry};
use crossdock::ctx::{Clock, Ctx};
use crossdock::engine::{budget, push};
use crossdock::error::Result;
use crossdock::model::event::RecordKind;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::MerchantId;
use crossdock::model::notice::{Envelope, Notice, RecordRef};
use crossdock::net::{Limits, Net};
use crossdock::queue::{self, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::{Condition, Group, Item, Key, Page, Store, Table, Write, WriteError, keys};
use futures::FutureExt;
use futures::future::BoxFuture;
use local::standins::quickbooks::DEFAULT_REALM;
use secrecy::SecretString;
use serde_json::json;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const PROCESSES: usize = 10;
const STORE: Duration = Duration::from_millis(5);
const START: Duration = Duration::from_millis(40);
const VISIBILITY: TimeDelta = TimeDelta::seconds(720);
/// Documents go in batches, and of these QuickBooks takes least.
const PER_MINUTE: usize = 40;
/// Calls that Xero takes of one organisation in a minute.
const PER_MINUTE_XERO: usize = 60;
/// Orders that QuickBooks takes with one call.
const ORDERS_OF_CALL: usize = 30;
/// Messages that one function takes from its queue, as the template says.
const BATCH_SIZE: usize = 300;
const QUIET: &str = "quiet";
const QUIET_REALM: &str = "4620816365000000002";

/// What was counted, and who sleeps until when.
#[derive(Default)]
struct Tally {
    wakes: Vec<DateTime<Utc>>,
    skews: Vec<TimeDelta>,
    /// Calls to the accounting API: when they arrived, and whether they were refused for their number.
    calls: Vec<(DateTime<Utc>, bool)>,
    /// When those with documents were taken.
    batches: Vec<DateTime<Utc>>,
    budget_operations: usize,
    /// Whether answers carry the provider's time.
    dated: bool,
}

/// What one process reaches.
#[derive(Clone)]
struct Port {
    world: World,
    tally: Arc<Mutex<Tally>>,
    process: usize,
}

struct Sleep {
    port: Port,
    until: DateTime<Utc>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let now = self.port.world.state().now;
        if now >= self.until {
            return Poll::Ready(());
        }
        let mut tally = self.port.tally();
        let wake = &mut tally.wakes[self.port.process];
        *wake = if *wake > now {
            (*wake).min(self.until)
        } else {
            self.until
        };
        Poll::Pending
    }
}

impl Port {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        hold(&self.tally)
    }

    fn pass(&self, time: Duration) -> Sleep {
        let until = self.world.state().now + TimeDelta::from_std(time).unwrap();
        Sleep {
            port: self.clone(),
            until,
        }
    }

    async fn operation(&self, key: Option<&Key>) {
        if key.is_some_and(|key| format!("{key:?}").contains("budget")) {
            self.tally().budget_operations += 1;
        }
        self.pass(STORE).await;
    }

    fn ctx(&self) -> Ctx {
        let port = Arc::new(self.clone());
        Ctx {
            config: self.world.ctx().config,
            clock: port.clone(),
            store: port.clone(),
            secrets: port.clone(),
            net: port.clone(),
            queue: port.clone(),
            bus: port,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        }
    }
}

#[async_trait]
impl Clock for Port {
    fn now(&self) -> DateTime<Utc> {
        let skew = self.tally().skews[self.process];
        self.world.state().now + skew
    }

    async fn sleep(&self, duration: Duration) {
        self.pass(duration).await;
    }

    fn random(&self, bytes: &mut [u8]) {
        self.world.random(bytes);
    }
}

#[async_trait]
impl Store for Port {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.operation(Some(key)).await;
        self.world.memory.get(key).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.operation(None).await;
        self.world.memory.get_many(keys).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        self.operation(None).await;
        self.world.memory.list(group, after, limit).await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        self.operation(None).await;
        self.world.memory.scan(table, after, limit).await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.operation(Some(write.key())).await;
        self.world.memory.write(write).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        self.operation(None).await;
        self.world.memory.transact(writes).await
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        self.operation(None).await;
        self.world.memory.put_many(writes).await
    }
}

#[async_trait]
impl Net for Port {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        let lasts = {
            let mut state = self.world.state();
            75 + state.dice.below(100) as u64
        };
        self.pass(Duration::from_millis(lasts)).await;
        let path = request.url.path();
        let xero = path.starts_with("/api.xro/");
        let batch = xero || path.ends_with("/batch");
        let counts = xero || path.starts_with("/v3/company/");
        let noisy = xero || path.contains(DEFAULT_REALM);
        let arrived = self.world.state().now;
        let mut answer = Net::send(&self.world, request, limits).await?;
        if counts && noisy {
            let refused = answer.status == 429;
            let mut tally = self.tally();
            tally.calls.push((arrived, refused));
            if batch && !refused {
                tally.batches.push(arrived);
            }
        }
        if self.tally().dated {
            let date = arrived.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
            answer.headers.push(("date".to_owned(), date));
        }
        self.pass(Duration::from_millis(lasts)).await;
        Ok(answer)
    }
}

#[async_trait]
impl Secrets for Port {
    async fn get(&self, id: &str) -> Result<SecretString> {
        Secrets::get(&self.world, id).await
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(&self.world, id).await
    }

    async fn replace(&self, id: &str, old: &SecretString, new: &SecretString) -> Result<()> {
        self.world.replace(id, old, new).await
    }
}

#[async_trait]
impl Bus for Port {
    async fn put(&self, bus: &str, entries: Vec<Entry>) -> Vec<Result<()>> {
        self.world.put(bus, entries).await
    }
}

#[async_trait]
impl Queue for Port {
    async fn send_later(&self, url: &str, messages: Vec<queue::Message>) -> Result<()> {
        self.pass(STORE).await;
        self.world.send_later(url, messages).await
    }
}

/// Notes that a task is to be polled again at once.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The queue, the message first that has been visible longest.
#[derive(Default)]
struct Line {
    most: usize,
    messages: BTreeMap<(DateTime<Utc>, usize), Notice>,
    sent: usize,
}

impl Line {
    /// Takes over what was sent since.
    fn collect(&mut self, world: &World) {
        for message in world.state().queue.drain(..) {
            self.sent += 1;
            self.messages
                .insert((message.visible_at, self.sent), message.notice);
        }
    }

    /// As many messages as a function takes; with none, the time at which to look again.
    fn receive(&mut self, world: &World) -> Result<Vec<Notice>, DateTime<Utc>> {
        self.collect(world);
        let now = world.state().now;
        let mut batch = Vec::new();
        while batch.len() < self.most
            && let Some(first) = self.messages.first_entry()
            && first.key().0 <= now
        {
            batch.push(first.remove());
        }
        if !batch.is_empty() {
            return Ok(batch);
        }
        let next = self.messages.first_key_value().map(|((at, _), _)| *at);
        let later = now + TimeDelta::milliseconds(500);
        Err(next.map_or(later, |next| next.min(later)))
    }
}

/// What the function does with one batch, as the runtime has it.
async fn serve(port: Port, ctx: Arc<Ctx>, notices: Vec<Notice>) {
    port.pass(START).await;
    let results = push::push(&ctx, port.world.vendor.name(), &notices).await;
    let bodies = notices.iter().map(|detail| {
        let envelope = Envelope {
            detail: detail.clone(),
        };
        serde_json::to_string(&envelope).unwrap()
    });
    let bodies: Vec<String> = bodies.collect();
    let results = budget::postpone(&ctx, Ok(SYNC_QUEUE), &bodies, results).await;
    for (notice, result) in notices.into_iter().zip(results) {
        if let Err(error) = result {
            port.world.note(|| format!("failed: {}", error.chain()));
            back(&port.world, notice);
        }
    }
}

fn back(world: &World, notice: Notice) {
    let mut state = world.state();
    let visible_at = state.now + VISIBILITY;
    state.queue.push(Message { notice, visible_at });
}

struct Process {
    port: Port,
    ctx: Arc<Ctx>,
    at: Option<(BoxFuture<'static, ()>, Vec<Notice>)>,
}

struct Town {
    world: World,
    /// Calls with documents that the provider takes in a minute.
    per_minute: usize,
    tally: Arc<Mutex<Tally>>,
    processes: Vec<Process>,
    line: Line,
    began: DateTime<Utc>,
}

fn paid(world: &World, ctx: &Ctx, merchant: &MerchantId) -> (Item, Notice) {
    let shop = Shop::one_sale(&mut world.state().dice);
    for event in &shop.events {
        let mut event = event.clone();
        event["merchant_id"] = json!(merchant);
        let request = api::Request {
            method: "POST".to_owned(),
            path: "/api/v1/events".to_owned(),
            bearer: Some(PLATFORM_KEY.into()),
            body: event.to_string().into_bytes(),
            ..api::Request::default()
        };
        // A refund changes nothing in how the order is pushed, and would be a record more.
        if event["type"] != "order.refunded" {
            assert_eq!(alone(events::handle(ctx, &request)).unwrap().status, 202);
        }
    }
    let key = keys::order(merchant, &"1001".parse().unwrap());
    let item = world
        .memory
        .get(&key)
        .now_or_never()
        .unwrap()
        .unwrap()
        .unwrap();
    let rows = world.memory.scan(Table::Outbox, None, 100).now_or_never();
    let rows = rows.unwrap().unwrap().items;
    let notices = rows.iter().map(|row| row.read::<Notice>().unwrap());
    let mut notices = notices.filter(|notice| notice.merchant_id == *merchant);
    let order = notices.find(|notice| notice.record.kind == RecordKind::Order);
    (item, order.unwrap())
}

impl Town {
    /// A merchant with `waiting` paid orders in the queue, and one with none.
    fn new(seed: u64, waiting: usize, dated: bool) -> (Town, Notice) {
        let world = World::new(seed);
        let ctx = world.ctx();
        alone(set_up(&world, &ctx));
        for realm in [DEFAULT_REALM, QUIET_REALM] {
            alone(world.control("POST", "realms", &indebted(realm)));
        }
        let quiet: MerchantId = QUIET.parse().unwrap();
        alone(set_up_as(&world, &ctx, &quiet, QUIET_REALM));
        let (_, quiet) = paid(&world, &ctx, &quiet);
        (Town::of(world, &ctx, PER_MINUTE, waiting, dated), quiet)
    }

    /// One merchant with Xero.
    fn with_xero(seed: u64, waiting: usize) -> Town {
        let world = World::with_xero(seed);
        let ctx = world.ctx();
        alone(set_up(&world, &ctx));
        Town::of(world, &ctx, PER_MINUTE_XERO, waiting, true)
    }

    fn of(world: World, ctx: &Ctx, per_minute: usize, waiting: usize, dated: bool) -> Town {
        let (item, notice) = paid(&world, ctx, &merchant());
        let text = item.doc.to_string();
        let now = world.state().now;
        for number in 0..waiting {
            let id = format!("n{number}");
            let doc: serde_json::Value =
                serde_json::from_str(&text.replace("\"1001\"", &format!("\"{id}\""))).unwrap();
            let key = keys::order(&merchant(), &id.parse().unwrap());
            let write = Write::put(key, Condition::Absent, &doc).unwrap();
            world.memory.write(write).now_or_never().unwrap().unwrap();
            let record = RecordRef {
                kind: RecordKind::Order,
                id: id.clone(),
            };
            let notice = Notice {
                record,
                order_id: Some(id.parse().unwrap()),
                ..notice.clone()
            };
            world.state().queue.push(Message {
                notice,
                visible_at: now,
            });
        }
        alone(world.control("POST", "limits", &json!({"enabled": true}).to_string()));
        let tally = Arc::new(Mutex::new(Tally {
            wakes: vec![now; PROCESSES],
            skews: vec![TimeDelta::zero(); PROCESSES],
            dated,
            ..Tally::default()
        }));
        let mut town = Town {
            world,
            per_minute,
            tally,
            processes: Vec::new(),
            line: Line {
                most: BATCH_SIZE,
                ..Line::default()
            },
            began: now,
        };
        town.processes = (0..PROCESSES).map(|index| town.process(index)).collect();
        town
    }

    fn process(&self, index: usize) -> Process {
        let port = Port {
            world: self.world.clone(),
            tally: self.tally.clone(),
            process: index,
        };
        let ctx = Arc::new(port.ctx());
        Process {
            port,
            ctx,
            at: None,
        }
    }

    fn tell(&self, notice: &Notice) {
        let mut state = self.world.state();
        let message = Message {
            notice: notice.clone(),
            visible_at: state.now,
        };
        state.queue.push(message);
    }

    fn seconds(&self) -> i64 {
        (self.world.state().now - self.began).num_seconds()
    }

    /// Lets a process end in the midst of whatever it does, and another take its place.
    fn kill(&mut self, index: usize) {
        let fresh = self.process(index);
        let dead = std::mem::replace(&mut self.processes[index], fresh);
        for notice in dead.at.into_iter().flat_map(|(_, notices)| notices) {
            back(&self.world, notice);
        }
    }

    /// Lets everything happen until `seconds` after the beginning, or until `done`.
    fn run(&mut self, seconds: i64, done: impl Fn(&Town) -> bool) {
        let end = self.began + TimeDelta::seconds(seconds);
        while self.world.state().now < end && !done(self) {
            let now = self.world.state().now;
            for process in &mut self.processes {
                let index = process.port.process;
                if hold(&self.tally).wakes[index] > now {
                    continue;
                }
                if process.at.is_none() {
                    let notices = match self.line.receive(&self.world) {
                        Ok(notices) => notices,
                        Err(next) => {
                            hold(&self.tally).wakes[index] = next;
                            continue;
                        }
                    };
                    let work = serve(process.port.clone(), process.ctx.clone(), notices.clone());
                    process.at = Some((work.boxed(), notices));
                }
                let again = Arc::new(Again(AtomicBool::new(true)));
                let waker = Waker::from(again.clone());
                while again.0.swap(false, Ordering::Relaxed) {
                    let Some((work, _)) = &mut process.at else {
                        break;
                    };
                    if work
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_ready()
                    {
                        process.at = None;
                        hold(&self.tally).wakes[index] = now + TimeDelta::milliseconds(1);
                    }
                }
            }
            self.world.state().trace.clear();
            let next = *hold(&self.tally)
                .wakes
                .iter()
                .filter(|at| **at > now)
                .min()
                .unwrap();
            self.world.advance((next - now).to_std().unwrap());
        }
    }

    /// Whether the provider holds a receipt of the quiet merchant.
    fn quiet_is_done(&self) -> bool {
        let path = format!("books?realm={QUIET_REALM}");
        alone(self.world.control("GET", &path, ""))["receipts"] == 1
    }

    fn posted(&self) -> usize {
        let books = alone(self.world.control("GET", "books", ""));
        usize::try_from(books["receipts"].as_u64().unwrap()).unwrap()
    }

    fn refused(&self) -> usize {
        let tally = hold(&self.tally);
        tally.calls.iter().filter(|(_, refused)| *refused).count()
    }

    /// Batches that were let in from second to second after the beginning, and the share of all until then
    /// that were refused for their number.
    fn told(&self, name: &str, from: i64, to: i64) -> (f64, f64) {
        let tally = hold(&self.tally);
        let within = |at: &DateTime<Utc>| (from..to).contains(&(*at - self.began).num_seconds());
        let taken = tally.batches.iter().filter(|at| within(at)).count();
        let refused = tally.calls.iter().filter(|(_, refused)| *refused).count();
        let minutes = (to - from) as f64 / 60.0;
        let rate = taken as f64 / minutes;
        let share = refused as f64 / tally.calls.len() as f64;
        println!(
            "{name}: {rate:.1} calls with documents a minute of {} ({:.1} %), {refused} of {} calls answered \
             429 ({:.2} %), {:.3} operations of the store for a call",
            self.per_minute,
            rate * 100.0 / self.per_minute as f64,
            tally.calls.len(),
            share * 100.0,
            tally.budget_operations as f64 / tally.calls.len() as f64,
        );
        (rate / self.per_minute as f64, share)
    }
}

/// Lets 10,000 orders wait where a function takes up to `most` at a time, and returns how many are
/// posted in a minute, and the share of the batches that is used.
fn at_the_limit(most: usize) -> (f64, f64) {
    const WAITING: usize = 10_000;
    let (mut town, quiet) = Town::new(1, WAITING, true);
    town.line.most = most;
    // The one record comes behind all others.
    town.tell(&quiet);
    town.run(60, Town::quiet_is_done);
    let behind = town.seconds();
    println!("one record behind {WAITING} of another merchant was done after {behind} s");
    assert!(town.quiet_is_done() && behind < 30, "after {behind} s");
    town.run(60, |_| false);
    let before = town.posted();
    town.run(420, |_| false);
    let posted = town.posted();
    let each = (posted - before) as f64 / 6.0;
    let (rate, refused) = town.told(&format!("at the limit, {most} at a time"), 60, 420);
    println!("{each:.0} orders posted in a minute");
    assert!(refused < 0.005, "{refused}");
    let ours = |notice: &Notice| notice.merchant_id.as_str() == MERCHANT;
    town.line.collect(&town.world);
    let queued = town
        .line
        .messages
        .values()
        .filter(|notice| ours(notice))
        .count();
    let in_hand = town
        .processes
        .iter()
        .filter_map(|process| process.at.as_ref());
    let in_hand = in_hand
        .flat_map(|(_, notices)| notices)
        .filter(|notice| ours(notice))
        .count();
    println!("{posted} posted, {queued} in the queue, {in_hand} in hand");
    let books = alone(town.world.control("GET", "books", ""));
    assert_eq!(books["duplicates"], json!([]));
    assert!(posted + queued + in_hand >= WAITING, "a message is lost");
    (each, rate)
}

#[test]
fn at_the_limit_the_limit_is_reached_and_kept_and_nobody_else_waits() {
    let (each, rate) = at_the_limit(BATCH_SIZE);
    assert!(rate >= 0.95, "{rate}");
    let most = (PER_MINUTE * ORDERS_OF_CALL) as f64;
    assert!(each >= 0.95 * most, "{each} of {most}");
}

/// Xero counts every call alike: 60 a minute and five at once.
#[test]
fn xero_is_used_to_its_limit() {
    let mut town = Town::with_xero(6, 20_000);
    town.run(240, |_| false);
    let (rate, refused) = town.told("at Xero's limit", 60, 240);
    assert!(rate >= 0.95, "{rate}");
    assert!(refused < 0.005, "{refused}");
}

/// A few orders at a time leave calls with several almost empty; then those that carry one help out.
#[test]
fn few_orders_at_a_time_do_not_wait_for_calls_with_several() {
    let (each, _) = at_the_limit(10);
    assert!(each >= 1.7 * (PER_MINUTE * 10) as f64, "{each}");
}

#[test]
fn processes_that_die_take_nothing_along_for_long() {
    let (mut town, _) = Town::new(2, 10_000, true);
    for (ended, second) in (0..360).step_by(30).enumerate() {
        town.run(second + 30, |_| false);
        // With calls in its hands.
        town.kill(ended % PROCESSES);
    }
    let (rate, refused) = town.told("with a death every half minute", 60, 360);
    assert!(rate >= 0.9, "{rate}");
    assert!(refused < 0.005, "{refused}");
}

/// Ten seconds are asked for. Calls that others hold by then are made, within three seconds.
#[test]
fn a_refusal_that_one_process_meets_stops_all() {
    let (mut town, _) = Town::new(5, 2_000, true);
    // Before the batches of the first minute are used up.
    town.run(5, |_| false);
    let fault = json!({
        "kind": "throttle", "retry_after": 10, "match": {"path_contains": "/batch"},
    });
    alone(town.world.control("POST", "faults", &fault.to_string()));
    town.run(60, |_| false);
    let tally = hold(&town.tally);
    let refused: Vec<_> = tally.calls.iter().filter(|(_, refused)| *refused).collect();
    let [(refused, _)] = refused[..] else {
        panic!("{} were refused", refused.len());
    };
    let after = |from: i64, to: i64| {
        let passed = tally
            .calls
            .iter()
            .map(|(at, _)| (*at - *refused).num_milliseconds());
        passed.filter(|passed| (from..to).contains(passed)).count()
    };
    assert_eq!(after(3500, 10_000), 0, "the pause is kept");
    assert!(
        after(10_000, 14_000) > 2,
        "and ends: {}",
        after(10_000, 14_000)
    );
}

/// A process whose clock jumps learns the right time with its next call, to about half a second. A call
/// of it may be one too many for a second, and then the provider's refusal is a pause for all. So a jump
/// costs about one refusal; with six of them in three minutes, little more is to be seen than pauses.
#[test]
fn a_clock_that_jumps_costs_a_refusal_or_two() {
    let (mut town, _) = Town::new(4, 10_000, true);
    let jumps = [(90, 600), (180, -600), (270, 45)];
    for (second, skew) in jumps {
        town.run(second, |_| false);
        let mut tally = hold(&town.tally);
        tally.skews[1] = TimeDelta::seconds(skew);
        tally.skews[2] = TimeDelta::seconds(-skew);
    }
    town.run(360, |_| false);
    let (rate, _) = town.told("with two clocks that jump three times", 60, 360);
    // One for each jump of a process.
    assert!(town.refused() <= 2 * jumps.len(), "{}", town.refused());
    assert!(rate >= 0.2, "{rate}");
}

/// Where answers carry no time, a process believes its own clock. Then it is the provider that teaches:
/// who is refused calls no more for a minute, and the others go on.
#[test]
fn where_no_clock_can_be_compared_the_provider_teaches() {
    let (mut town, _) = Town::new(3, 10_000, false);
    hold(&town.tally).skews[3] = TimeDelta::minutes(10);
    hold(&town.tally).skews[4] = TimeDelta::minutes(-10);
    town.run(360, |_| false);
    let (rate, refused) = town.told("with clocks of their own", 60, 360);
    assert!(refused < 0.2, "{refused}");
    assert!(rate > 0.05, "{rate}");
}
