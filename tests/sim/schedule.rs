//! The schedule of renewals over hours, with as many connections as come due ten thousand times in an
//! hour: how even it is, and what it costs.

use crate::cell::{CREDENTIALS, LIFE, ROOT, config, connection as made, start};
use crate::run::alone;
use crate::world::Dice;
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
use serde_json::json;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Renewals of an hour, once the schedule has settled.
const HOURLY: usize = 10_000;

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
}

fn bytes(item: &Item) -> u64 {
    // Keys, revision and the names of the attributes come on top.
    item.doc.to_string().len() as u64 + 150
}

impl Fleet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        }
    }

    /// What a write costs: by the larger of what stood there and what stands there then.
    async fn units(&self, write: &Write) -> u64 {
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
        state.counts.read_units += found.as_ref().map_or(1, |item| bytes(item).div_ceil(4096));
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
        let read: u64 = page.items.iter().map(bytes).sum();
        counts.read_units += read.div_ceil(4096).max(1);
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
    async fn send(&self, _: Request, _: Limits) -> Result<Response> {
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
        Ok(Response {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string().into_bytes(),
        })
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

/// Connects as many at one instant as come due [`HOURLY`] times in an hour, and lets the schedule run.
fn run(name: &str, life: TimeDelta) {
    let began = std::time::Instant::now();
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
    };
    let ctx = fleet.ctx();
    // Half of the life, on the average, is between two renewals.
    let connections = HOURLY * life.num_seconds() as usize / 7_200;
    for number in 0..connections {
        alone(async {
            let mut one = made(&ctx, name, number).await;
            // As a consent leaves it: from a quarter to three quarters of the token's life.
            let share = i32::from(u16::from_le_bytes(ctx.random()));
            let quarter = life / 4;
            let more = (quarter * 2).num_milliseconds() * i64::from(share) / 65_536;
            one.next_refresh_at = Some(ctx.now() + quarter + TimeDelta::milliseconds(more));
            let stored = connection::store(&ctx, &mut one, None, Along::default()).await;
            assert!(stored.unwrap());
        });
    }
    fleet.state().counts = Counts::default();
    // The second of the hours that are looked at begins once three lives are over.
    let settled = (life.num_minutes() * 3 / 2) as usize;
    let mut minutes = Vec::new();
    for _ in 0..settled + 60 {
        fleet.state().now += TimeDelta::minutes(1);
        let count = alone(refresh::plan(&ctx)).unwrap();
        let messages = std::mem::take(&mut fleet.state().queue);
        for message in messages {
            let notice: DueNotice = serde_json::from_str(&message.body).unwrap();
            alone(refresh::renew(&ctx, &notice)).unwrap();
        }
        minutes.push(count);
    }
    let describe = |hour: &[usize]| {
        let total: usize = hour.iter().sum();
        let busiest = hour.iter().max().copied().unwrap_or_default();
        let mean = total as f64 / hour.len() as f64;
        (total, mean, busiest as f64 / mean)
    };
    let first = describe(&minutes[..60]);
    let later = describe(&minutes[settled..]);
    for (what, (total, mean, peak)) in [("first hour", first), ("a later hour", later)] {
        println!("{name}, {what}: {total} renewals, {mean:.0} a minute, busiest {peak:.2} of that");
    }
    let counts = fleet.state().counts.clone();
    let renewals = minutes.iter().sum::<usize>() as f64;
    assert_eq!(fleet.state().tokens as usize, minutes.iter().sum::<usize>());
    let each = |count: u64| count as f64 / renewals;
    println!(
        "{name}, for each renewal: {:.2} GetItem, {:.3} Query, {:.2} UpdateItem, {:.2} \
         TransactWriteItems, {:.3} messages; {:.2} read units, {:.2} write units",
        each(counts.gets),
        each(counts.queries),
        each(counts.writes),
        each(counts.transactions),
        each(counts.messages),
        each(counts.read_units),
        each(counts.write_units),
    );
    // Each message is sent with nine others, received and deleted.
    let calls = each(counts.sends) + 2.0 * each(counts.messages);
    let (reads, writes) = (each(counts.read_units), each(counts.write_units));
    let cost = reads * READ_UNITS + writes * WRITE_UNITS + calls * SQS_CALLS;
    println!(
        "{name}: {cost:.2} dollars for a million renewals, {:?}",
        began.elapsed()
    );
    assert!(
        later.2 <= 1.5,
        "the busiest minute is {:.2} of the mean",
        later.2
    );
    assert_eq!(counts.scans, 0, "nothing reads a whole table");
    assert!(counts.largest_page <= 500);
    // Each run reads its minute and those again that it looks back on, and one page more for each
    // 500 rows.
    let pages = minutes.iter().map(|rows| rows / 500 + 16).sum::<usize>() as u64 + 61;
    assert!(
        counts.queries <= pages,
        "{} pages, not {pages}",
        counts.queries
    );
    assert!(cost < 12.0, "{cost:.2}");
}

#[test]
fn an_hour_of_tokens_that_live_for_an_hour_is_even() {
    run("quickbooks", TimeDelta::hours(1));
}

#[test]
fn an_hour_of_tokens_that_live_for_half_an_hour_is_even() {
    run("xero", LIFE);
}
