//! A small world around the tokens of one connection: the store in memory, a vendor whose rules are a
//! table of four, and failures that are planned.

use crate::world::hold;
use crate::world::{Dice, turn};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::bus::{Bus, Entry};
use crossdock::config::Config;
use crossdock::ctx::{Clock, Ctx};
use crossdock::error::{Code, Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::{ConnectionId, MerchantId};
use crossdock::model::notice::Notice;
use crossdock::model::order_record::Sequence;
use crossdock::net::{Limits, Net};
use crossdock::oauth::connection::{self, Along, Connection, Settings, Status, Tokens};
use crossdock::oauth::setup::Setup;
use crossdock::oauth::vault;
use crossdock::providers::provider;
use crossdock::queue::{Message, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::memory::Memory;
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError, keys};
use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What a vendor does to refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Each use gives a new one; a second use of an old one takes the whole grant back.
    Strict,
    /// Each use gives a new one; the old one works for half an hour more.
    Grace,
    /// The next use is the one of the day that changes the value; then the old one is dead.
    Daily,
    /// Always the same one.
    Fixed,
}

impl Rule {
    pub const ALL: [Rule; 4] = [Rule::Strict, Rule::Grace, Rule::Daily, Rule::Fixed];

    /// A provider with this rule.
    pub fn provider(self) -> &'static str {
        match self {
            Rule::Strict => "salesforce",
            Rule::Grace => "xero",
            Rule::Daily => "quickbooks",
            Rule::Fixed => "hubspot",
        }
    }
}

/// For so long a replaced token still works under [`Rule::Grace`].
const GRACE: TimeDelta = TimeDelta::minutes(30);

/// The token endpoint of a vendor. Refresh tokens are `R0`, `R1`, ..., access tokens `A0`, `A1`, ...
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vendor {
    pub rule: Rule,
    pub newest: u64,
    replaced: BTreeMap<u64, DateTime<Utc>>,
    revoked: bool,
    accesses: u64,
    /// Token requests that arrived.
    pub requests: u64,
}

impl Vendor {
    pub fn new(rule: Rule) -> Vendor {
        Vendor {
            rule,
            newest: 0,
            replaced: BTreeMap::new(),
            revoked: false,
            accesses: 0,
            requests: 0,
        }
    }

    fn rotate(&mut self, now: DateTime<Utc>) {
        self.replaced.insert(self.newest, now);
        self.newest += 1;
    }

    /// Takes a refresh token and gives a pair, or refuses.
    pub fn refresh(&mut self, token: &str, now: DateTime<Utc>) -> Option<(String, String)> {
        self.requests += 1;
        let number: u64 = token.strip_prefix('R')?.parse().ok()?;
        if self.revoked {
            return None;
        }
        let newest = number == self.newest;
        match self.rule {
            Rule::Fixed if newest => {}
            Rule::Daily if newest && self.newest > 0 => {}
            Rule::Strict | Rule::Grace | Rule::Daily if newest => self.rotate(now),
            Rule::Grace => {
                let at = self.replaced.get(&number)?;
                if now - *at >= GRACE {
                    return None;
                }
                self.rotate(now);
            }
            Rule::Strict => {
                self.revoked = true;
                return None;
            }
            Rule::Daily | Rule::Fixed => return None,
        }
        self.accesses += 1;
        Some((format!("A{}", self.accesses), format!("R{}", self.newest)))
    }

    /// Whether a refresh token would be taken.
    pub fn accepts(&self, token: &str, now: DateTime<Utc>) -> bool {
        self.clone().refresh(token, now).is_some()
    }

    /// Whether an access token is good.
    pub fn takes(&self, token: &str) -> bool {
        let number = token.strip_prefix('A').and_then(|n| n.parse::<u64>().ok());
        !self.revoked && number.is_some_and(|number| number <= self.accesses)
    }
}

/// An answer of the token endpoint that is not the vendor's own.
#[derive(Debug, Clone)]
pub enum Canned {
    /// This status and body; the vendor has not seen the request.
    Reply(u16, &'static str, String),
    /// No answer comes. `acted` says whether the request arrived.
    Hang { acted: bool },
    /// The vendor's own answer without one member.
    Without(&'static str),
    /// The vendor's own answer.
    Own,
}

pub fn digest(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// A time in which the table takes nothing.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// Store calls after the vendor's first answer until it begins; 1 is the next.
    pub at: u32,
    pub lasts: TimeDelta,
    /// The first write within it happens, and only its answer is lost.
    pub acts: bool,
}

pub struct State {
    pub vendor: Vendor,
    /// Pauses move it.
    pub now: DateTime<Utc>,
    /// What the workers' clocks show beside the true time.
    pub offset: TimeDelta,
    pub canned: VecDeque<Canned>,
    pub outage: Option<Outage>,
    down_until: Option<DateTime<Utc>>,
    /// Store calls since the vendor's first answer.
    after_answer: Option<u32>,
    /// When the function that is at work is ended.
    pub deadline: Option<DateTime<Utc>>,
    /// The vault's secret cannot be read once the vendor has answered.
    pub vault_fails: bool,
    pub queue: Vec<Message>,
    dice: Dice,
}

#[derive(Clone)]
pub struct Cell {
    state: Arc<Mutex<State>>,
    pub memory: Arc<Memory>,
}

pub fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_767_225_600, 0).unwrap()
}

/// How long an access token is good.
pub const LIFE: TimeDelta = TimeDelta::minutes(30);

pub fn merchant() -> MerchantId {
    "m_1".parse().unwrap()
}

pub fn config() -> Config {
    Config::of(&[
        ("PUBLIC_URL", "https://crossdock.example"),
        ("SECRET_VAULT", "vault"),
        ("SECRET_PROVIDER_PREFIX", "provider-"),
        ("QUEUE_REFRESH_URL", "refresh"),
        ("QUEUE_VAULT_ROTATE_URL", "rotation"),
    ])
}

pub const CREDENTIALS: &str =
    "{\"environment\":\"http://localhost:1\",\"client_id\":\"id\",\"client_secret\":\"secret\"}";

/// A live connection of `name`, as the connect flow leaves it.
pub async fn connection(ctx: &Ctx, name: &str, number: usize) -> Connection {
    let manifest = provider(name).unwrap().manifest();
    let id = ConnectionId::new(ctx.uuid());
    let (key, wrapped) = vault::new_key(ctx, id.as_str()).await.unwrap();
    let held = json!({"access": "A0", "refresh": "R0"}).to_string();
    let sealed = vault::seal(ctx, &key, id.as_str(), &SecretString::from(held)).unwrap();
    let now = ctx.now();
    Connection {
        id,
        merchant_id: merchant(),
        provider: name.to_owned(),
        category: manifest.category,
        status: Status::Live,
        tenant_id: format!("tenant-{number}"),
        tenant_name: None,
        api: None,
        reference: None,
        scopes: Vec::new(),
        key: Some(wrapped),
        tokens: Some(Tokens {
            sealed,
            generation: 1,
            issued_at: now,
            access_expires_at: Some(now + LIFE),
        }),
        previous: None,
        consent: None,
        confirmed: None,
        paused: false,
        lease: None,
        fence: 0,
        next_refresh_at: Some(now),
        trouble: None,
        settings: Settings::default(),
        guests: Vec::new(),
        daily_customers: Vec::new(),
        postings: Vec::new(),
        sequence: Sequence::default(),
        created_at: now,
        updated_at: now,
    }
}

/// The refresh token that is stored, as whoever has the vault's key reads it.
pub async fn stored_refresh(ctx: &Ctx, connection: &Connection) -> String {
    let owner = connection.id.as_str();
    let key = connection.key.as_ref().unwrap();
    let key = vault::unwrap(ctx, owner, key).await.unwrap();
    let sealed = &connection.tokens.as_ref().unwrap().sealed;
    let text = vault::open(&key, owner, sealed).unwrap();
    let held: Value = serde_json::from_str(text.expose_secret()).unwrap();
    held["refresh"].as_str().unwrap().to_owned()
}

impl Cell {
    pub fn new(rule: Rule) -> Cell {
        let state = State {
            vendor: Vendor::new(rule),
            now: start(),
            offset: TimeDelta::zero(),
            canned: VecDeque::new(),
            outage: None,
            down_until: None,
            after_answer: None,
            deadline: None,
            vault_fails: false,
            queue: Vec::new(),
            dice: Dice::new(1),
        };
        Cell {
            state: Arc::new(Mutex::new(state)),
            memory: Arc::default(),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }

    pub fn ctx(&self) -> Ctx {
        let cell = Arc::new(self.clone());
        Ctx {
            config: config(),
            clock: cell.clone(),
            store: cell.clone(),
            secrets: cell.clone(),
            net: cell.clone(),
            queue: cell.clone(),
            bus: cell,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        }
    }

    pub async fn setup(&self, ctx: &Ctx) -> Setup {
        let name = self.state().vendor.rule.provider();
        Setup::of(ctx, provider(name).unwrap()).await.unwrap()
    }

    /// Stores a live connection.
    pub async fn connect(&self, ctx: &Ctx) -> ConnectionId {
        let name = self.state().vendor.rule.provider();
        let mut made = connection(ctx, name, 0).await;
        let stored = connection::store(ctx, &mut made, None, Along::default()).await;
        assert!(stored.unwrap(), "nothing was there before");
        made.id
    }

    pub fn told(&self, kind: EventType) -> usize {
        told(&self.memory, kind)
    }

    pub fn stored(&self, id: &ConnectionId) -> Connection {
        stored(&self.memory, id)
    }
}

/// Everything in one table.
pub fn rows(memory: &Memory, table: Table) -> Vec<Item> {
    let page = memory.scan(table, None, 10_000);
    page.now_or_never().unwrap().unwrap().items
}

/// How many events of this kind were told.
pub fn told(memory: &Memory, kind: EventType) -> usize {
    let notices = rows(memory, Table::Outbox).into_iter();
    let notices = notices.map(|item| item.read::<Notice>().unwrap());
    notices.filter(|notice| notice.kind == kind).count()
}

pub fn stored(memory: &Memory, id: &ConnectionId) -> Connection {
    let key = keys::connection(&merchant(), id);
    let item = memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

/// The answer of the token endpoint that gives a pair, or refuses.
pub fn token_answer(given: Option<&(String, String)>, without: Option<&str>) -> Response {
    let reply = |status, body: Value| Response {
        status,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: body.to_string().into_bytes(),
    };
    let Some((access, refresh)) = given else {
        return reply(400, json!({"error": "invalid_grant"}));
    };
    let mut body = json!({
        "access_token": access,
        "refresh_token": refresh,
        "token_type": "bearer",
        "expires_in": LIFE.num_seconds(),
    });
    if let (Some(member), Some(members)) = (without, body.as_object_mut()) {
        members.remove(member);
    }
    reply(200, body)
}

/// The refresh token that a request to the token endpoint brings.
pub fn brought(request: &Request) -> String {
    let mut form = url::form_urlencoded::parse(&request.body).into_owned();
    let found = form.find(|(name, _)| name == "refresh_token");
    found.map(|(_, token)| token).unwrap_or_default()
}

pub fn no_answer() -> Error {
    Error::new(Code::UpstreamFailed, "no answer within 20 seconds")
}

pub const ROOT: &str = "{\"current\":\"1\",\"1\":\"root\"}";

impl Cell {
    /// From now on the vault's secret cannot be read.
    pub fn break_vault(&self) {
        let mut state = self.state();
        state.after_answer = Some(0);
        state.vault_fails = true;
    }

    /// Whether the table takes nothing now, and whether this write happens all the same.
    fn trouble(&self, write: bool) -> Option<bool> {
        let mut state = self.state();
        let calls = state.after_answer.as_mut()?;
        *calls += 1;
        let calls = *calls;
        let outage = state.outage?;
        if calls == outage.at {
            state.down_until = Some(state.now + outage.lasts);
            return Some(outage.acts && write);
        }
        let down = state.down_until.is_some_and(|until| state.now < until);
        down.then_some(false)
    }
}

fn throttled() -> Error {
    Error::internal("simulated: the table is throttled")
}

#[async_trait]
impl Clock for Cell {
    fn now(&self) -> DateTime<Utc> {
        let state = self.state();
        state.now + state.offset
    }

    async fn sleep(&self, duration: Duration) {
        self.state().now += TimeDelta::from_std(duration).unwrap();
        turn().await;
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for byte in bytes {
            *byte = state.dice.next() as u8;
        }
    }

    fn passed(&self) -> Duration {
        let passed = self.state().now - start();
        passed.to_std().unwrap_or_default()
    }

    fn left(&self) -> Option<Duration> {
        let state = self.state();
        Some((state.deadline? - state.now).to_std().unwrap_or_default())
    }
}

#[async_trait]
impl Store for Cell {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        turn().await;
        match self.trouble(false) {
            Some(_) => Err(throttled()),
            None => self.memory.get(key).await,
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.memory.get_many(keys).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        self.memory.list(group, after, limit).await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        self.memory.scan(table, after, limit).await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        turn().await;
        let trouble = self.trouble(true);
        if trouble == Some(false) {
            return Err(WriteError::Failed(throttled()));
        }
        let done = self.memory.transact(writes).await;
        match trouble {
            Some(_) => Err(WriteError::Failed(throttled())),
            None => done,
        }
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        self.memory.put_many(writes).await
    }
}

#[async_trait]
impl Net for Cell {
    async fn send(&self, request: Request, _: Limits) -> Result<Response> {
        turn().await;
        let mut state = self.state();
        state.after_answer.get_or_insert(0);
        let (acts, without) = match state.canned.pop_front().unwrap_or(Canned::Own) {
            Canned::Reply(status, content_type, body) => {
                state.vendor.requests += 1;
                return Ok(Response {
                    status,
                    headers: vec![("content-type".to_owned(), content_type.to_owned())],
                    body: body.into_bytes(),
                });
            }
            Canned::Hang { acted: false } => return Err(no_answer()),
            Canned::Hang { acted: true } => (false, None),
            Canned::Without(member) => (true, Some(member)),
            Canned::Own => (true, None),
        };
        let now = state.now;
        let given = state.vendor.refresh(&brought(&request), now);
        match acts {
            true => Ok(token_answer(given.as_ref(), without)),
            false => Err(no_answer()),
        }
    }
}

#[async_trait]
impl Secrets for Cell {
    async fn get(&self, id: &str) -> Result<SecretString> {
        let state = self.state();
        if id != "vault" {
            return Ok(SecretString::from(CREDENTIALS));
        }
        if state.vault_fails && state.after_answer.is_some() {
            return Err(Error::internal("simulated: the secret is throttled"));
        }
        Ok(SecretString::from(ROOT))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
        Err(Error::internal("no secret changes here"))
    }
}

#[async_trait]
impl Queue for Cell {
    async fn send_later(&self, _: &str, messages: Vec<Message>) -> Result<()> {
        self.state().queue.extend(messages);
        Ok(())
    }
}

#[async_trait]
impl Bus for Cell {
    async fn put(&self, _: &str, _: Vec<Entry>) -> Vec<Result<()>> {
        Vec::new()
    }
}
