//! The schedule of renewals over hours: how even it is, and what it costs. `CROSSDOCK_HOURLY` lets
//! another number of renewals come due in an hour; fewer are less even, by chance alone.

use crate::cell::{CREDENTIALS, LIFE, ROOT, config, connection as made, start};
use crate::number;
use crate::run::alone;
use crate::world::Dice;
use crate::world::hold;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::bus::{Bus, Entry};
use crossdock::ctx::{Clock, Ctx};
use crossdock::engine::refresh::{self, DueNotice};
use crossdock::error::{Error, Result};
use crossdock::model::http::{Request, Response};
use crossdock::net::{Limits, Net};
use crossdock::oauth::connection::{self, Along};
use crossdock::queue::{Message, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::memory::Memory;
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Renewals of an hour.
const HOURLY: u64 = 10_000;
/// Whose books all connections reach: the provider of this file does not know one token from another.
const ORGANISATION: &str = "organisation";
/// The same where every byte is weighed.
const WEIGHED_HOURLY: u64 = 400;

/// On-demand prices of us-east-1 in US dollars for a million, as the price pages of Amazon DynamoDB
/// and Amazon SQS list them: a read unit is 4 KB read consistently, a write unit is 1 KB, both twice in
/// a transaction; SQS counts calls, of up to 64 KB each.
const READ_UNITS: f64 = 0.125;
const WRITE_UNITS: f64 = 0.625;
const SQS_CALLS: f64 = 0.40;

#[derive(Debug, Clone, Default)]
struct Counts {
    gets: u64,
    queries: u64,
    largest_page: usize,
    scans: u64,
    writes: u64,
    transactions: u64,
    read_units: u64,
    write_units: u64,
    messages: u64,
    sends: u64,
}

struct State {
    now: DateTime<Utc>,
    dice: Dice,
    counts: Counts,
    queue: Vec<Message>,
    tokens: u64,
}

#[derive(Clone)]
struct Fleet {
    state: Arc<Mutex<State>>,
    memory: Arc<Memory>,
    life: TimeDelta,
    /// Whether units are counted, which takes longer than all the rest.
    weighs: bool,
}

fn bytes(item: &Item) -> u64 {
    // Keys, revision and the names of the attributes come on top.
    item.doc.to_string().len() as u64 + 150
}

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }

    fn ctx(&self) -> Ctx {
        let fleet = Arc::new(self.clone());
        Ctx {
            config: config(),
            clock: fleet.clone(),
            store: fleet.clone(),
            secrets: fleet.clone(),
            net: fleet.clone(),
            queue: fleet.clone(),
            bus: fleet,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        }
    }

    /// What a write costs: by the larger of what stood there and what stands there then.
    async fn units(&self, write: &Write) -> u64 {
        if !self.weighs {
            return 0;
        }
        let before = self.memory.get(write.key()).await;
        let before = before.ok().flatten().map_or(0, |item| bytes(&item));
        let after = match write {
            Write::Put { doc, .. } => doc.to_string().len() as u64 + 150,
            _ => 0,
        };
        before.max(after).div_ceil(1024).max(1)
    }
}

#[async_trait]
impl Clock for Fleet {
    fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    async fn sleep(&self, duration: Duration) {
        panic!("nobody has to wait {duration:?} for anybody here");
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.state();
        for byte in bytes {
            *byte = state.dice.next() as u8;
        }
    }
}

#[async_trait]
impl Store for Fleet {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let found = self.memory.get(key).await?;
        let mut state = self.state();
        state.counts.gets += 1;
        if self.weighs {
            let read = found.as_ref().map_or(1, |item| bytes(item).div_ceil(4096));
            state.counts.read_units += read;
        }
        Ok(found)
    }

    async fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Item>>> {
        panic!("a renewal reads one document")
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        let page = self.memory.list(group, after, limit).await?;
        let mut state = self.state();
        let counts = &mut state.counts;
        counts.queries += 1;
        counts.largest_page = counts.largest_page.max(page.items.len());
        if self.weighs {
            let read: u64 = page.items.iter().map(bytes).sum();
            counts.read_units += read.div_ceil(4096).max(1);
        }
        Ok(page)
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        self.state().counts.scans += 1;
        self.memory.scan(table, after, limit).await
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        let units = self.units(&write).await;
        {
            let mut state = self.state();
            state.counts.writes += 1;
            state.counts.write_units += units;
        }
        self.memory.write(write).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let mut units = 0;
        for write in &writes {
            units += 2 * self.units(write).await;
        }
        {
            let mut state = self.state();
            state.counts.transactions += 1;
            state.counts.write_units += units;
        }
        self.memory.transact(writes).await
    }

    async fn put_many(&self, _: Vec<Write>) -> Result<()> {
        panic!("a renewal writes under conditions")
    }
}

#[async_trait]
impl Net for Fleet {
    async fn send(&self, request: Request, _: Limits) -> Result<Response> {
        let answer = |body: Value| Response {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        };
        // Whether the organisation still belongs to the grant.
        if request.url.path() == "/connections" {
            return Ok(answer(json!([{ "id": "1", "tenantId": ORGANISATION }])));
        }
        let mut state = self.state();
        state.tokens += 1;
        let number = state.tokens;
        let body = json!({
            // As long as the providers' own are.
            "access_token": format!("{number:0>1000}"),
            "refresh_token": format!("{number:0>60}"),
            "token_type": "bearer",
            "expires_in": self.life.num_seconds(),
        });
        Ok(answer(body))
    }
}

#[async_trait]
impl Secrets for Fleet {
    async fn get(&self, id: &str) -> Result<SecretString> {
        let secret = if id == "vault" { ROOT } else { CREDENTIALS };
        Ok(SecretString::from(secret))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
        Err(Error::internal("no secret changes here"))
    }
}

#[async_trait]
impl Queue for Fleet {
    async fn send_later(&self, _: &str, messages: Vec<Message>) -> Result<()> {
        let mut state = self.state();
        state.counts.messages += messages.len() as u64;
        state.counts.sends += messages.len().div_ceil(10) as u64;
        state.queue.extend(messages);
        Ok(())
    }
}

#[async_trait]
impl Bus for Fleet {
    async fn put(&self, _: &str, _: Vec<Entry>) -> Vec<Result<()>> {
        Vec::new()
    }
}

/// Gives tokens at one instant to as many connections as come due `hourly` times in an hour, as when
/// all of them were connected just then, lets the schedule run, and returns the renewals of each minute,
/// of which the first is that instant.
fn run(name: &str, life: TimeDelta, hourly: u64, weighs: bool) -> (Vec<usize>, Counts) {
    let fleet = Fleet {
        state: Arc::new(Mutex::new(State {
            now: start(),
            dice: Dice::new(7),
            counts: Counts::default(),
            queue: Vec::new(),
            tokens: 0,
        })),
        memory: Arc::default(),
        life,
        weighs,
    };
    let ctx = fleet.ctx();
    // Half of the life, on the average, is between two renewals.
    let connections = hourly as usize * life.num_seconds() as usize / 7_200;
    for number in 0..connections {
        alone(async {
            // All are due at once, so that nothing but the schedule itself spreads them.
            let mut one = made(&ctx, name, number).await;
            one.tenant_id = ORGANISATION.to_owned();
            let stored = connection::store(&ctx, &mut one, None, Along::default()).await;
            assert!(stored.unwrap());
        });
    }
    fleet.state().counts = Counts::default();
    let mut minutes = Vec::new();
    for _ in 0..1 + HOURS * 60 {
        fleet.state().now += TimeDelta::minutes(1);
        let count = alone(refresh::plan(&ctx)).unwrap();
        let messages = std::mem::take(&mut fleet.state().queue);
        for message in messages {
            let notice: DueNotice = serde_json::from_str(&message.body).unwrap();
            alone(refresh::renew(&ctx, &notice)).unwrap();
        }
        minutes.push(count);
    }
    let state = fleet.state();
    assert_eq!(state.tokens as usize, minutes.iter().sum::<usize>());
    (minutes, state.counts.clone())
}

/// The hours that are looked at after all connections came due at one instant.
const HOURS: usize = 2;

fn even(name: &str, life: TimeDelta) {
    let hourly = number("CROSSDOCK_HOURLY", HOURLY);
    let (minutes, counts) = run(name, life, hourly, false);
    let minutes = &minutes[1..];
    for (hour, minutes) in minutes.chunks(60).enumerate() {
        let total: usize = minutes.iter().sum();
        let mean = total as f64 / minutes.len() as f64;
        let peak = minutes.iter().max().copied().unwrap_or_default() as f64 / mean;
        println!(
            "{name}, hour {}: {total} renewals, {mean:.0} a minute, busiest {peak:.2} of that",
            hour + 1
        );
        assert!(peak <= 1.5, "the busiest minute is {peak:.2} of the mean");
    }
    assert_eq!(counts.scans, 0, "nothing reads a whole table");
    assert!(counts.largest_page <= 500);
    // Each run reads its minute, those that it looks back on and the one of an hour ago, and one page more
    // for each 500 rows; the first one begins an hour back, and has all connections at once.
    let pages = minutes.iter().map(|rows| rows / 500 + 17).sum::<usize>() as u64;
    let pages = pages + 92 + 60;
    let queries = counts.queries;
    assert!(queries <= pages, "{queries} pages, not {pages}");
}

#[test]
fn an_hour_of_tokens_that_live_for_an_hour_is_even() {
    even("quickbooks", TimeDelta::hours(1));
}

#[test]
fn an_hour_of_tokens_that_live_for_half_an_hour_is_even() {
    even("xero", LIFE);
}

#[test]
fn a_renewal_costs_what_it_must() {
    let (minutes, counts) = run("quickbooks", TimeDelta::hours(1), WEIGHED_HOURLY, true);
    let renewals = minutes.iter().sum::<usize>() as f64;
    // What the schedule reads and writes in any case is nothing for each of many renewals.
    let runs = minutes.len() as u64;
    let each = |count: u64| count as f64 / renewals;
    let (gets, writes) = (counts.gets - runs, counts.writes - runs);
    println!(
        "for each renewal: {:.2} GetItem, {:.2} UpdateItem, {:.2} TransactWriteItems; \
         {runs} runs read {} pages",
        each(gets),
        each(writes),
        each(counts.transactions),
        counts.queries,
    );
    // Each message of ten renewals is sent with nine others, received and deleted.
    let calls = 0.1 * 0.1 + 0.1 + 0.1;
    let (reads, writes) = (
        each(counts.read_units - runs - counts.queries) + 0.1,
        each(counts.write_units - runs),
    );
    let cost = reads * READ_UNITS + writes * WRITE_UNITS + calls * SQS_CALLS;
    println!("{reads:.2} read units, {writes:.2} write units, {calls:.2} calls of SQS");
    println!("{cost:.2} dollars for a million renewals");
    assert_eq!(
        (counts.gets - runs, counts.transactions),
        (3 * counts.transactions, renewals as u64)
    );
    assert!(cost < 12.0, "{cost:.2}");
}
