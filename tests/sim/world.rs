//! Everything outside of the production code, in one place and under one seed: time, randomness, the
//! store, the provider, the bus and its queue. Each call out is a point at which another worker may
//! go on, at which the process may die, and at which something may fail.

use async_trait::async_trait;
use axum::http;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::bus::{Bus, Entry};
use crossdock::config::Config;
use crossdock::ctx::{Clock, Ctx};
use crossdock::error::{Code, Error, Result};
use crossdock::model::http::{Authorization, Request, Response};
use crossdock::model::notice::{Envelope, Notice};
use crossdock::net::{Limits, Net};
use crossdock::providers::provider;
use crossdock::queue::{self, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::memory::Memory;
use crossdock::store::{Condition, Group, Item, Key, Page, Store, Table, Write, WriteError};
use local::standins::oauth::{self, Vendor};
use local::standins::quickbooks::{self, Quickbooks};
use local::standins::{Clock as Standing, Lost};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::task::{Context, Poll};
use std::time::Duration;

pub const PUBLIC_URL: &str = "https://crossdock.example";
pub const RETURN_URL: &str = "https://shop.example/back";
/// The name of the queue under which both providers' notices go.
pub const SYNC_QUEUE: &str = "sync_quickbooks";
/// How often others may go on while somebody sleeps.
const SLEEP_TURNS: usize = 4;
pub const HOOKS_QUEUE: &str = "hooks";
pub const PULL_QUEUE: &str = "pull";
pub const RECONCILE_QUEUE: &str = "reconcile";
pub const WEBHOOK_VERIFIER: &str = "the-verifier";
/// How long a request is on its way at most, where the provider's memory is short: Xero remembers an
/// answer for six minutes, and the engine counts on a minute for the way.
const LATE_MAX: TimeDelta = TimeDelta::minutes(1);
pub const PLATFORM_KEY: &str = "the-platform-key";

/// Random numbers that are the same for the same seed, today and with any later library
/// (splitmix64, Steele et al. 2014).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    pub fn per_mille(&mut self, chance: u64) -> bool {
        self.next() % 1000 < chance
    }

    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// What may go wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing happens there, and the caller hears of a failure.
    Before,
    /// It happens, and the caller hears of a failure.
    After,
    /// The store alone: another transaction holds the key.
    Contended,
    /// The provider alone, from here on: answers that are not what was asked for.
    StatusBefore,
    StatusAfter,
    Throttled,
    /// Half of the body comes under a status of 200.
    HalfBody,
    /// The caller gives up, and the request arrives all the same, at some later time.
    Late,
    /// Every access token ends before its time.
    TokensExpire,
    /// A page of some gateway with this status, before or after the effect.
    PageBefore(u16),
    PageAfter(u16),
}

/// What gateways answer in place of the provider. Some say that nothing happened and are right; the
/// others may come when all of it has happened.
const PAGES_BEFORE: [u16; 9] = [400, 403, 404, 408, 409, 413, 500, 502, 504];
const PAGES_AFTER: [u16; 5] = [200, 408, 500, 502, 504];

/// The provider's stand-in.
#[derive(Clone)]
pub enum Stand {
    Quickbooks(Quickbooks),
    Xero(Vendor),
    /// Another provider, of which the OAuth half stands in.
    OAuth(&'static str, Vendor),
}

impl Stand {
    pub fn name(&self) -> &'static str {
        match self {
            Stand::Quickbooks(_) => "quickbooks",
            Stand::Xero(_) => "xero",
            Stand::OAuth(name, _) => name,
        }
    }

    pub async fn handle(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<http::Response<Vec<u8>>, Lost> {
        match self {
            Stand::Quickbooks(vendor) => vendor.handle(request).await,
            Stand::Xero(vendor) | Stand::OAuth(_, vendor) => vendor.handle(request).await,
        }
    }

    fn advance(&self, by: Duration) {
        match self {
            Stand::Quickbooks(vendor) => vendor.advance(by),
            Stand::Xero(vendor) | Stand::OAuth(_, vendor) => vendor.advance(by),
        }
    }
}

/// How often things go wrong, in thousandths of the calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chances {
    pub store: u64,
    pub net: u64,
    pub bus: u64,
}

/// What is wrong with an answer that comes with a status of success. All has happened by then, but what
/// is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    OtherShape,
    Truncated,
    Empty,
    Html,
    /// The provider's refusal of the whole.
    Refused,
    /// The same under a status of success.
    FaultInside,
    /// Its refusal of each element.
    ElementFaults,
    /// Elements are missing, or answer for others than were asked for.
    OtherElements,
    /// Ids that nobody ever saw.
    UnknownId,
    /// Amounts that do not add up.
    OtherTotal,
    /// Numbers as text.
    Quoted,
    /// Every day in it is far ahead.
    FarFuture,
    /// Names of a thousand characters that are pictures.
    LongNames,
}

impl Bad {
    pub const ALL: [Bad; 13] = [
        Bad::OtherShape,
        Bad::Truncated,
        Bad::Empty,
        Bad::Html,
        Bad::Refused,
        Bad::FaultInside,
        Bad::ElementFaults,
        Bad::OtherElements,
        Bad::UnknownId,
        Bad::OtherTotal,
        Bad::Quoted,
        Bad::FarFuture,
        Bad::LongNames,
    ];

    /// Makes `answer` bad.
    fn spoil(self, answer: &mut Response) {
        let words = |answer: &mut Response, body: &str| answer.body = body.as_bytes().to_vec();
        match self {
            Bad::OtherShape => words(answer, "[\"another\",{\"shape\":[]}]"),
            Bad::Truncated => answer.body.truncate(answer.body.len() * 2 / 3),
            Bad::Empty => answer.body.clear(),
            Bad::Html => *answer = page(200),
            _ => {
                let Ok(mut body) = serde_json::from_slice::<Value>(&answer.body) else {
                    return;
                };
                self.walk(&mut body);
                answer.body = body.to_string().into_bytes();
                if self == Bad::FarFuture {
                    let date = "Sat, 31 Dec 2199 23:00:00 GMT".to_owned();
                    answer.headers.push(("date".to_owned(), date));
                }
            }
        }
    }

    fn walk(self, value: &mut Value) {
        if let (Bad::Quoted, Value::Number(number)) = (self, &*value) {
            *value = Value::String(number.to_string());
        }
        match value {
            Value::Array(all) => {
                if self == Bad::OtherElements {
                    all.pop();
                }
                all.iter_mut().for_each(|one| self.walk(one));
            }
            Value::Object(members) => {
                for (name, member) in members.iter_mut() {
                    self.change(name, member);
                    self.walk(member);
                }
            }
            _ => {}
        }
    }

    fn change(self, name: &str, member: &mut Value) {
        let ids = [
            "Id",
            "InvoiceID",
            "CreditNoteID",
            "PaymentID",
            "ContactID",
            "ItemID",
        ];
        let totals = ["TotalAmt", "Total", "Amount"];
        let names = [
            "DisplayName",
            "Name",
            "Code",
            "CompanyName",
            "DocNumber",
            "InvoiceNumber",
        ];
        match (self, &*member) {
            (Bad::UnknownId, Value::String(id)) if ids.contains(&name) => {
                let unknown = match id.contains('-') {
                    true => "00000000-0000-4000-8000-00000000dead",
                    false => "987654321",
                };
                *member = Value::from(unknown);
            }
            (Bad::OtherElements, Value::String(_)) if name == "bId" => *member = Value::from("999"),
            (Bad::OtherTotal, Value::Number(total)) if totals.contains(&name) => {
                *member = json!(total.as_f64().unwrap_or_default() + 1.0);
            }
            (Bad::LongNames, Value::String(_)) if names.contains(&name) => {
                *member = Value::from("\u{1f600}".repeat(1000));
            }
            (Bad::FarFuture, Value::String(text)) => {
                let far = match text.as_bytes() {
                    [b'/', b'D', b'a', b't', b'e', b'(', ..] => "/Date(7258114800000+0000)/",
                    [_, _, _, _, b'-', _, _, b'-', _, _] => "2199-12-31",
                    [_, _, _, _, b'-', _, _, b'-', _, _, b'T', ..] => "2199-12-31T23:00:00Z",
                    _ => return,
                };
                *member = Value::from(far);
            }
            _ => {}
        }
    }

    /// The refusal that comes in place of the effect.
    fn refusal(self, request: &http::Request<Vec<u8>>) -> Option<Response> {
        const WORDS: &str = "something is wrong with this";
        let error = json!({ "Message": WORDS, "Detail": WORDS, "code": "6000", "element": "" });
        let fault = json!({ "Error": [error], "type": "ValidationFault" });
        let errors = json!([{ "Message": WORDS }]);
        let body = match self {
            // QuickBooks' and Xero's in one: each is looked for by the one it belongs to.
            Bad::Refused | Bad::FaultInside => json!({
                "Fault": fault, "ErrorNumber": 10, "Type": "ValidationException",
                "Message": "A validation exception occurred",
                "Elements": [{ "ValidationErrors": errors }],
            }),
            Bad::ElementFaults => {
                let asked: Value = serde_json::from_slice(request.body()).ok()?;
                let (name, all) = asked.as_object()?.iter().find(|(_, all)| all.is_array())?;
                let refused = all.as_array()?.iter().map(|one| match one.get("bId") {
                    Some(id) => json!({ "bId": id, "Fault": fault }),
                    None => {
                        let mut one = one.clone();
                        one["StatusAttributeString"] = json!("ERROR");
                        one["ValidationErrors"] = errors.clone();
                        one
                    }
                });
                json!({ name.replace("Request", "Response"): refused.collect::<Vec<_>>() })
            }
            _ => return None,
        };
        let status = if self == Bad::Refused { 400 } else { 200 };
        Some(answered(status, "application/json", &body.to_string()))
    }
}

/// Spoils the next so many answers to calls of this name.
#[derive(Debug, Clone)]
pub struct Tamper {
    pub call: String,
    pub bad: Bad,
    pub times: u64,
}

/// What a request is for, without the ids in it.
fn call_name(request: &http::Request<Vec<u8>>) -> String {
    let is_word = |part: &&str| {
        let first = part.bytes().next().unwrap_or(b'0');
        first.is_ascii_alphabetic() && !part.contains('-') && *part != "v3" && *part != "company"
    };
    let path: Vec<&str> = request.uri().path().split('/').filter(is_word).collect();
    let body = String::from_utf8_lossy(request.body());
    let things = [
        "Customer",
        "Item",
        "Account",
        "SalesReceipt",
        "RefundReceipt",
        "Invoice",
    ];
    let of = |mark: fn(&str) -> String| things.iter().find(|thing| body.contains(&mark(thing)));
    let thing = match path.last() {
        Some(&"query") => of(|thing| format!(" from {thing} ")),
        Some(&"batch") => of(|thing| format!("\"{thing}\":")),
        _ => None,
    };
    let what = thing.copied().unwrap_or_default();
    format!("{} {} {what}", request.method(), path.join("/"))
}

/// One fault at one call, for runs that try them all.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub at: u64,
    pub trouble: Trouble,
}

pub struct Message {
    pub notice: Notice,
    pub visible_at: DateTime<Utc>,
}

pub struct State {
    pub dice: Dice,
    pub now: DateTime<Utc>,
    pub chances: Chances,
    pub store_calls: u64,
    pub net_calls: u64,
    /// How many rows of the ledger each write of it wrote.
    pub ledger_writes: Vec<usize>,
    /// Whether anything was written to the ledger since somebody looked at all of it.
    pub ledger_changed: bool,
    pub store_plan: Option<Planned>,
    pub net_plan: Option<Planned>,
    pub tamper: Option<Tamper>,
    /// The names of the calls to the provider so far.
    pub calls: BTreeSet<String>,
    /// The calls themselves, where somebody wants them.
    pub requests: Option<Vec<http::Request<Vec<u8>>>>,
    /// When they were sent, too.
    pub late: Vec<(DateTime<Utc>, http::Request<Vec<u8>>)>,
    pub queue: Vec<Message>,
    /// What was sent to other queues than the one above, by queue.
    pub sent: Vec<(String, String)>,
    /// Ids of events that the bus took.
    pub on_bus: BTreeSet<String>,
    /// When the function that is at work is ended.
    pub deadline: Option<DateTime<Utc>>,
    /// Whether every answer comes at the very end of the time that its call has.
    pub slow: bool,
    /// When a row is to vanish.
    pub vanishing: BTreeMap<Key, i64>,
    /// What happened, to be shown when a run fails.
    pub trace: Vec<String>,
    /// Whether that is kept: to write it costs more than all the rest.
    pub traced: bool,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    pub vendor: Stand,
    pub memory: Arc<Memory>,
}

/// Lets the scheduler choose who goes on.
pub struct Turn(bool);

impl Future for Turn {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        // A future inside of a set is polled again only when it asks for it.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

pub fn turn() -> Turn {
    Turn(false)
}

pub fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

fn failed(what: &str) -> Error {
    Error::internal(format!("simulated: {what}"))
}

/// Takes a lock that only one thread ever wants. A statement that takes it twice would wait for itself
/// for ever; it fails instead.
pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => panic!("one statement holds this twice"),
    }
}

impl World {
    pub fn new(seed: u64) -> World {
        let options = quickbooks::Options {
            clock: Standing::Fixed(start()),
            ..quickbooks::Options::default()
        };
        World::of(seed, Stand::Quickbooks(Quickbooks::new(options).unwrap()))
    }

    pub fn with_xero(seed: u64) -> World {
        World::of(seed, Stand::Xero(World::standing_in("xero")))
    }

    /// A world with the OAuth half of this provider.
    pub fn with_oauth(seed: u64, name: &'static str) -> World {
        World::of(seed, Stand::OAuth(name, World::standing_in(name)))
    }

    fn standing_in(name: &str) -> Vendor {
        let options = oauth::Options {
            clock: Standing::Fixed(start()),
            ..oauth::Options::default()
        };
        Vendor::new(name, options).unwrap()
    }

    fn of(seed: u64, vendor: Stand) -> World {
        let start = start();
        World {
            state: Arc::new(Mutex::new(State {
                dice: Dice::new(seed),
                now: start,
                chances: Chances::default(),
                store_calls: 0,
                net_calls: 0,
                ledger_writes: Vec::new(),
                ledger_changed: true,
                store_plan: None,
                net_plan: None,
                tamper: None,
                requests: None,
                calls: BTreeSet::new(),
                late: Vec::new(),
                queue: Vec::new(),
                sent: Vec::new(),
                on_bus: BTreeSet::new(),
                deadline: None,
                slow: false,
                vanishing: BTreeMap::new(),
                trace: Vec::new(),
                traced: true,
            })),
            vendor,
            memory: Arc::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }

    pub fn advance(&self, by: Duration) {
        self.state().now += TimeDelta::from_std(by).unwrap();
        self.vendor.advance(by);
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        let mut state = self.state();
        if !state.traced {
            return;
        }
        let at = state.now.format("%H:%M:%S%.3f");
        let line = format!("{at} {}", line());
        state.trace.push(line);
    }

    /// The context of one process. Every process has the same world around it.
    pub fn ctx(&self) -> Ctx {
        self.ctx_with(&[])
    }

    /// The same with more variables.
    pub fn ctx_with(&self, more: &[(&str, &str)]) -> Ctx {
        let world = Arc::new(self.clone());
        let usual = [
            ("PUBLIC_URL", PUBLIC_URL),
            ("BUS_NAME", "bus"),
            ("QUEUE_SYNC_QUICKBOOKS_URL", SYNC_QUEUE),
            ("QUEUE_SYNC_XERO_URL", SYNC_QUEUE),
            ("QUEUE_REFRESH_URL", "refresh"),
            ("QUEUE_HOOKS_URL", HOOKS_QUEUE),
            ("QUEUE_PULL_URL", PULL_QUEUE),
            ("QUEUE_RECONCILE_URL", RECONCILE_QUEUE),
            ("SECRET_PLATFORM", "platform"),
            ("SECRET_VAULT", "vault"),
            ("SECRET_PROVIDER_PREFIX", "provider-"),
            ("RETURN_URLS", RETURN_URL),
        ];
        Ctx {
            config: Config::of(&[&usual, more].concat()),
            clock: world.clone(),
            store: world.clone(),
            secrets: world.clone(),
            net: world.clone(),
            queue: world.clone(),
            bus: world,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        }
    }

    /// The same for a process whose clock is off by so many milliseconds, as long as they say so.
    pub fn process(&self, off: Arc<AtomicI64>) -> Ctx {
        let world = self.clone();
        Ctx {
            clock: Arc::new(Wrong { world, off }),
            ..self.ctx()
        }
    }

    fn store_trouble(&self, write: bool) -> Option<Trouble> {
        let mut state = self.state();
        state.store_calls += 1;
        if let Some(plan) = state.store_plan
            && plan.at == state.store_calls
        {
            return Some(plan.trouble);
        }
        let chance = state.chances.store;
        if !state.dice.per_mille(chance) {
            return None;
        }
        let kinds: &[Trouble] = match write {
            true => &[Trouble::Before, Trouble::After, Trouble::Contended],
            false => &[Trouble::Before],
        };
        Some(*state.dice.pick(kinds))
    }

    fn queue_trouble(&self) -> Option<Trouble> {
        let mut state = self.state();
        let chance = state.chances.bus;
        if !state.dice.per_mille(chance) {
            return None;
        }
        Some(*state.dice.pick(&[Trouble::Before, Trouble::After]))
    }

    fn net_trouble(&self) -> Option<Trouble> {
        let mut state = self.state();
        state.net_calls += 1;
        if let Some(plan) = state.net_plan
            && plan.at == state.net_calls
        {
            return Some(plan.trouble);
        }
        let chance = state.chances.net;
        if !state.dice.per_mille(chance) {
            return None;
        }
        let kinds = [
            Trouble::Before,
            Trouble::After,
            Trouble::After,
            Trouble::StatusBefore,
            Trouble::StatusAfter,
            Trouble::Throttled,
            Trouble::HalfBody,
            Trouble::Late,
            Trouble::TokensExpire,
            Trouble::PageBefore(*state.dice.pick(&PAGES_BEFORE)),
            Trouble::PageAfter(*state.dice.pick(&PAGES_AFTER)),
        ];
        Some(*state.dice.pick(&kinds))
    }

    /// What is to be wrong with the answer to `request`.
    fn badness(&self, request: &http::Request<Vec<u8>>) -> Option<Bad> {
        let mut state = self.state();
        if !state.traced {
            return None;
        }
        if let Some(requests) = &mut state.requests {
            requests.push(request.clone());
        }
        let name = call_name(request);
        let tamper = state.tamper.as_mut().filter(|tamper| tamper.call == name);
        let bad = tamper.filter(|tamper| tamper.times > 0).map(|tamper| {
            tamper.times -= 1;
            tamper.bad
        });
        state.calls.insert(name);
        bad
    }

    async fn read<T>(&self, read: impl Future<Output = Result<T>> + Send) -> Result<T> {
        turn().await;
        if let Some(trouble) = self.store_trouble(false) {
            self.note(|| format!("  store: a read meets {trouble:?}"));
            return Err(failed("a read was throttled"));
        }
        let found = read.await;
        turn().await;
        found
    }

    /// A refusal for the number of calls, which may tell when to come again.
    fn throttled(&self) -> Response {
        let mut answer = match self.vendor {
            Stand::Xero(_) | Stand::OAuth(..) => answered(429, "text/plain", ""),
            Stand::Quickbooks(_) => {
                let body = "<IntuitResponse><Fault type=\"SERVICE\"><Error code=\"3001\"><Message>\
                            ThrottleExceeded</Message></Error></Fault></IntuitResponse>";
                answered(429, "text/xml", body)
            }
        };
        let mut state = self.state();
        if state.dice.per_mille(500) {
            let wait = state.dice.below(90).to_string();
            answer.headers.push(("retry-after".to_owned(), wait));
        }
        answer
    }

    /// A control call to the stand-in, which nothing disturbs.
    pub async fn control(&self, method: &str, path: &str, body: &str) -> serde_json::Value {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("/_control/{path}"))
            .body(body.as_bytes().to_vec())
            .unwrap();
        let answer = self
            .vendor
            .handle(request)
            .await
            .expect("a control call is answered");
        assert_eq!(answer.status(), 200, "{path}");
        serde_json::from_slice(answer.body()).expect("control calls answer JSON")
    }

    fn note_vanishing(&self, writes: &[Write]) {
        let mut state = self.state();
        for write in writes {
            match write {
                Write::Put {
                    key,
                    expires_at: Some(at),
                    ..
                } => state.vanishing.insert(key.clone(), *at),
                Write::Put { key, .. } | Write::Delete { key, .. } => state.vanishing.remove(key),
                Write::Check { .. } => None,
            };
        }
    }

    /// The table deletes what was to vanish by now.
    pub async fn vanish(&self) {
        let now = self.state().now.timestamp();
        let gone: Vec<Key> = {
            let state = self.state();
            let over = state.vanishing.iter().filter(|(_, at)| **at <= now);
            over.map(|(key, _)| key.clone()).collect()
        };
        for key in gone {
            self.state().vanishing.remove(&key);
            let condition = Condition::Any;
            let deleted = self.memory.write(Write::Delete { key, condition });
            deleted.await.expect("memory takes every deletion");
        }
    }

    /// Lets one of the requests arrive whose callers have long given up.
    pub async fn deliver_late(&self) -> bool {
        let request = {
            let mut state = self.state();
            let count = state.late.len();
            if count == 0 {
                return false;
            }
            let index = state.dice.below(count);
            let (sent_at, request) = state.late.swap_remove(index);
            let lost = matches!(self.vendor, Stand::Xero(_)) && state.now - sent_at > LATE_MAX;
            (!lost).then_some(request)
        };
        let Some(request) = request else {
            return true;
        };
        self.note(|| format!("late arrival: {}", request.uri()));
        let _ = self.vendor.handle(request).await;
        true
    }
}

/// A clock that is wrong.
struct Wrong {
    world: World,
    off: Arc<AtomicI64>,
}

#[async_trait]
impl Clock for Wrong {
    fn now(&self) -> DateTime<Utc> {
        self.world.now() + TimeDelta::milliseconds(self.off.load(Ordering::Relaxed))
    }

    async fn sleep(&self, duration: Duration) {
        self.world.sleep(duration).await;
    }

    fn random(&self, bytes: &mut [u8]) {
        self.world.random(bytes);
    }
}

#[async_trait]
impl Clock for World {
    fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    async fn sleep(&self, duration: Duration) {
        let until = self.state().now + TimeDelta::from_std(duration).unwrap();
        for _ in 0..SLEEP_TURNS {
            turn().await;
        }
        // Where nobody else lets time pass, whoever sleeps does.
        let left = until - self.state().now;
        if let Ok(left) = left.to_std() {
            self.advance(left);
        }
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for byte in bytes {
            *byte = state.dice.next() as u8;
        }
    }

    fn passed(&self) -> Duration {
        (self.state().now - start()).to_std().unwrap_or_default()
    }

    fn left(&self) -> Option<Duration> {
        let state = self.state();
        Some((state.deadline? - state.now).to_std().unwrap_or_default())
    }
}

#[async_trait]
impl Store for World {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        self.read(self.memory.get(key)).await
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.read(self.memory.get_many(keys)).await
    }

    /// One document in five was written so short a time ago that it seems to be missing.
    async fn get_many_settled(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let found = self.get_many(keys).await?;
        let mut state = self.state();
        let seen = |item: Option<Item>| item.filter(|_| state.dice.below(5) > 0);
        Ok(found.into_iter().map(seen).collect())
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        self.read(self.memory.list(group, after, limit)).await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        self.read(self.memory.scan(table, after, limit)).await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        turn().await;
        let trouble = self.store_trouble(true);
        if let Some(trouble) = trouble {
            self.note(|| {
                format!(
                    "  store: a write of {:?} meets {trouble:?}",
                    writes[0].key()
                )
            });
        }
        match trouble {
            None => {}
            Some(Trouble::Contended) => return Err(WriteError::Contended),
            Some(Trouble::After) => {
                self.state().ledger_changed = true;
                self.memory.transact(writes).await?;
                turn().await;
                return Err(WriteError::Failed(failed("the answer of a write was lost")));
            }
            Some(_) => return Err(WriteError::Failed(failed("a write was throttled"))),
        }
        let keys: Vec<Key> = writes.iter().map(|write| write.key().clone()).collect();
        // The budgets stand in the same table and are no rows of the ledger.
        let budget = |key: &Key| format!("{key:?}").contains("budget");
        if keys[0].table() == Table::Ledger && !budget(&keys[0]) {
            let mut state = self.state();
            state.ledger_changed = true;
            state.ledger_writes.push(keys.len());
        }
        self.note_vanishing(&writes);
        let done = self.memory.transact(writes).await;
        if let Err(WriteError::Condition(index)) = &done {
            self.note(|| format!("  store: the condition on {:?} does not hold", keys[*index]));
        }
        turn().await;
        done
    }

    async fn put_many(&self, mut writes: Vec<Write>) -> Result<()> {
        turn().await;
        if self.store_trouble(true).is_some() {
            // The puts are not one: any of them may have happened.
            writes.retain(|_| self.state().dice.per_mille(500));
            self.note(|| format!("  store: only {} of a batch are put", writes.len()));
            self.memory.put_many(writes).await?;
            return Err(failed("a batch was left unfinished"));
        }
        let done = self.memory.put_many(writes).await;
        turn().await;
        done
    }
}

/// A request as it goes out.
///
/// # Errors
/// That of [`crossdock::net::Client`] for one that holds what cannot be sent.
fn outbound(request: Request) -> Result<http::Request<Vec<u8>>> {
    let mut target = request.url.path().to_owned();
    if let Some(query) = request.url.query() {
        target = format!("{target}?{query}");
    }
    let mut built = http::Request::builder()
        .method(request.method.as_str())
        .uri(target);
    if let (Some(host), Some(port)) = (request.url.host_str(), request.url.port()) {
        built = built.header("host", format!("{host}:{port}"));
    }
    for (name, value) in &request.headers {
        built = built.header(name, value);
    }
    built = match &request.authorization {
        Authorization::None => built,
        Authorization::Bearer(token) => {
            built.header("authorization", format!("Bearer {}", token.expose_secret()))
        }
        Authorization::Basic { user, password } => {
            let pair = format!("{user}:{}", password.expose_secret());
            built.header("authorization", format!("Basic {}", STANDARD.encode(pair)))
        }
        Authorization::Headers(headers) => headers.iter().fold(built, |built, (name, value)| {
            built.header(*name, value.expose_secret())
        }),
    };
    let built = built.body(request.body);
    built.map_err(|error| Error::new(Code::UpstreamFailed, "it cannot be sent").because(error))
}

fn answered(status: u16, content_type: &str, body: &str) -> Response {
    Response {
        status,
        headers: vec![("content-type".to_owned(), content_type.to_owned())],
        body: body.as_bytes().to_vec(),
    }
}

/// What a gateway says in place of the provider.
fn page(status: u16) -> Response {
    answered(status, "text/html", "<html>the gateway speaks</html>")
}

#[async_trait]
impl Net for World {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        turn().await;
        if self.state().slow {
            self.advance(limits.total);
        }
        let request = outbound(request)?;
        let trouble = self.net_trouble();
        let bad = self.badness(&request);
        self.note(|| {
            let body = String::from_utf8_lossy(request.body());
            let body: String = body.chars().take(300).collect();
            let met = trouble.map_or_else(String::new, |trouble| format!(" meets {trouble:?}"));
            format!("  {} {}{met} {body}", request.method(), request.uri())
        });
        let lost = || Error::new(Code::UpstreamFailed, "simulated: the answer was lost");
        match trouble {
            Some(Trouble::Before) => return Err(lost()),
            Some(Trouble::Late) => {
                let mut state = self.state();
                let now = state.now;
                state.late.push((now, request));
                return Err(lost());
            }
            Some(Trouble::StatusBefore) => {
                return Ok(page(503));
            }
            Some(Trouble::PageBefore(status)) => return Ok(page(status)),
            Some(Trouble::Throttled) => return Ok(self.throttled()),
            Some(Trouble::TokensExpire) => {
                self.control("POST", "expire_access_tokens", "").await;
            }
            _ => {}
        }
        if let Some(refusal) = bad.and_then(|bad| bad.refusal(&request)) {
            return Ok(refusal);
        }
        let whole = self
            .vendor
            .handle(request)
            .await
            .expect("the stand-in has no orders to fail");
        turn().await;
        match trouble {
            Some(Trouble::After) => return Err(lost()),
            Some(Trouble::StatusAfter) => return Ok(page(500)),
            Some(Trouble::PageAfter(status)) => return Ok(page(status)),
            _ => {}
        }
        let text =
            |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = whole.headers().iter();
        let headers = headers
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect();
        let status = whole.status().as_u16();
        let mut body = whole.into_body();
        if trouble == Some(Trouble::HalfBody) {
            body.truncate(body.len() / 2);
        }
        if status != 200 {
            self.note(|| format!("  -> {status} {}", String::from_utf8_lossy(&body)));
        }
        let mut answer = Response {
            status,
            headers,
            body,
        };
        if let Some(bad) = bad.filter(|_| status == 200) {
            bad.spoil(&mut answer);
            self.note(|| format!("  -> {bad:?} {}", String::from_utf8_lossy(&answer.body)));
        }
        Ok(answer)
    }
}

#[async_trait]
impl Secrets for World {
    async fn get(&self, id: &str) -> Result<SecretString> {
        let secret = match id {
            "platform" => format!("{{\"platform_key\":\"{PLATFORM_KEY}\"}}"),
            "vault" => "{\"current\":\"1\",\"1\":\"root\"}".to_owned(),
            // The platform needs none there; each of these has two keys, of which one is being replaced.
            "provider-sendgrid" => {
                format!(
                    "{{\"webhook_key\":\"another,{}\"}}",
                    oauth::SENDGRID_PUBLIC_KEY
                )
            }
            other => {
                let name = other.strip_prefix("provider-").unwrap_or_default();
                if provider(name).is_none() {
                    return Err(failed(&format!("no secret is named {other}")));
                }
                json!({
                    "environment": "http://localhost:1",
                    "client_id": quickbooks::DEFAULT_CLIENT_ID,
                    "client_secret": quickbooks::DEFAULT_CLIENT_SECRET,
                    "webhook_verifier": WEBHOOK_VERIFIER,
                    "webhook_id": format!("another,{WEBHOOK_VERIFIER}"),
                    "webhook_key": format!("another,{WEBHOOK_VERIFIER}"),
                    "webhook_secret": format!("another,{WEBHOOK_VERIFIER}"),
                })
                .to_string()
            }
        };
        Ok(SecretString::from(secret))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
        Err(failed("no secret changes here"))
    }
}

#[async_trait]
impl Bus for World {
    async fn put(&self, _: &str, entries: Vec<Entry>) -> Vec<Result<()>> {
        turn().await;
        let mut results = Vec::new();
        for entry in entries {
            let notice: Notice = serde_json::from_str(&entry.detail).unwrap();
            let mut state = self.state();
            let chance = state.chances.bus;
            if state.dice.per_mille(chance) {
                results.push(Err(failed("the bus was throttled")));
                continue;
            }
            state.on_bus.insert(notice.event_id.to_string());
            // A queue delivers at least once, and in no order.
            let copies = if state.dice.per_mille(chance) { 2 } else { 1 };
            for _ in 0..copies {
                let delay = if chance > 0 {
                    state.dice.below(5000)
                } else {
                    0
                };
                let visible_at = state.now + TimeDelta::milliseconds(delay as i64);
                state.queue.push(Message {
                    notice: notice.clone(),
                    visible_at,
                });
            }
            results.push(if state.dice.per_mille(chance) {
                Err(failed("the answer of the bus was lost"))
            } else {
                Ok(())
            });
        }
        turn().await;
        results
    }
}

#[async_trait]
impl Queue for World {
    async fn send_later(&self, url: &str, messages: Vec<queue::Message>) -> Result<()> {
        turn().await;
        if url != SYNC_QUEUE {
            let sent = messages
                .into_iter()
                .map(|message| (url.to_owned(), message.body));
            self.state().sent.extend(sent);
            return Ok(());
        }
        let trouble = self.queue_trouble();
        // A call that fails may have sent some of them.
        let sent = match trouble {
            Some(Trouble::Before) => 0,
            Some(_) => messages.len().div_ceil(2),
            None => messages.len(),
        };
        for message in &messages[..sent] {
            let Envelope { detail: notice } = serde_json::from_str(&message.body).unwrap();
            self.note(|| format!("  queue: {:?} again", notice.record));
            let mut state = self.state();
            let visible_at = state.now + TimeDelta::seconds(i64::from(message.delay_seconds));
            state.queue.push(Message { notice, visible_at });
        }
        turn().await;
        match trouble {
            Some(_) => Err(failed("a call to the queue failed")),
            None => Ok(()),
        }
    }
}
