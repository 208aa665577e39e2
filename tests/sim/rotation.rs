//! The vault's root key changes while tokens are renewed, and the process dies at any step.

use crate::cell::{CREDENTIALS, ROOT, Rule, Vendor, brought, config, connection as made, merchant};
use crate::cell::{rows, start, stored, stored_refresh, token_answer};
use crate::run::alone;
use crate::world::hold;
use crate::world::{Dice, turn};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::bus::{Bus, Entry};
use crossdock::ctx::{Clock, Ctx};
use crossdock::engine::rotation::{self, Rotation};
use crossdock::error::{Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::{ConnectionId, MerchantId};
use crossdock::net::{Limits, Net};
use crossdock::oauth::brought::Brought;
use crossdock::oauth::connection::{self, Along, Connection};
use crossdock::oauth::hash;
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::oauth::vault;
use crossdock::providers::provider;
use crossdock::queue::{Message, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::memory::Memory;
use crossdock::store::{Condition, Group, Item, Key, Page, Store, Table, Write, WriteError, keys};
use crossdock::webhooks::endpoint::{self, Endpoint, Wish};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

const CONNECTIONS: usize = 6;
const ENDPOINTS: usize = 3;
/// Rows of other kinds, so that there are several pages.
const OTHERS: usize = 420;

struct State {
    ring: String,
    queue: VecDeque<Message>,
    dice: Dice,
    /// Calls of the rotation so far, and the one that fails: before it acts or after.
    calls: u32,
    fails: Option<(u32, bool)>,
}

struct World {
    state: Mutex<State>,
    memory: Memory,
}

impl World {
    fn state(&self) -> MutexGuard<'_, State> {
        hold(&self.state)
    }
}

/// A process: it keeps the ring that it has read.
struct Process {
    world: Arc<World>,
    ring: Mutex<String>,
    /// Whether it is the one whose calls fail.
    rotates: bool,
}

impl Process {
    fn ctx(world: &Arc<World>, ring: &str, rotates: bool) -> Ctx {
        let process = Arc::new(Process {
            world: Arc::clone(world),
            ring: Mutex::new(ring.to_owned()),
            rotates,
        });
        Ctx {
            config: config(),
            clock: process.clone(),
            store: process.clone(),
            secrets: process.clone(),
            net: process.clone(),
            queue: process.clone(),
            bus: process,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        }
    }

    /// Whether this call fails, and whether it acts all the same.
    async fn fails(&self) -> Option<bool> {
        turn().await;
        if !self.rotates {
            return None;
        }
        let mut state = self.world.state();
        state.calls += 1;
        let (at, acts) = state.fails?;
        (state.calls == at).then_some(acts)
    }
}

fn crash() -> Error {
    Error::internal("simulated: the process died")
}

#[async_trait]
impl Clock for Process {
    fn now(&self) -> DateTime<Utc> {
        start()
    }

    async fn sleep(&self, _: Duration) {
        turn().await;
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut state = self.world.state();
        for byte in bytes {
            *byte = state.dice.next() as u8;
        }
    }
}

#[async_trait]
impl Store for Process {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        match self.fails().await {
            Some(_) => Err(crash()),
            None => self.world.memory.get(key).await,
        }
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.world.memory.get_many(keys).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        self.world.memory.list(group, after, limit).await
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        match self.fails().await {
            Some(_) => Err(crash()),
            None => self.world.memory.scan(table, after, limit).await,
        }
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let fails = self.fails().await;
        if fails == Some(false) {
            return Err(WriteError::Failed(crash()));
        }
        let done = self.world.memory.transact(writes).await;
        match fails {
            Some(_) => Err(WriteError::Failed(crash())),
            None => done,
        }
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        self.world.memory.put_many(writes).await
    }
}

#[async_trait]
impl Secrets for Process {
    async fn get(&self, id: &str) -> Result<SecretString> {
        if id != "vault" {
            return Ok(SecretString::from(CREDENTIALS));
        }
        let held = hold(&self.ring);
        Ok(SecretString::from(held.as_str()))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        if self.fails().await.is_some() {
            return Err(crash());
        }
        let ring = self.world.state().ring.clone();
        *hold(&self.ring) = ring;
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, old: &SecretString, new: &SecretString) -> Result<()> {
        let fails = self.fails().await;
        if fails == Some(false) {
            return Err(crash());
        }
        let mut state = self.world.state();
        if state.ring != old.expose_secret() {
            return Err(Error::internal("simulated: this value has a successor"));
        }
        state.ring = new.expose_secret().to_owned();
        match fails {
            Some(_) => Err(crash()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Queue for Process {
    async fn send_later(&self, _: &str, messages: Vec<Message>) -> Result<()> {
        let fails = self.fails().await;
        if fails == Some(false) {
            return Err(crash());
        }
        self.world.state().queue.extend(messages);
        match fails {
            Some(_) => Err(crash()),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Net for Process {
    async fn send(&self, request: Request, _: Limits) -> Result<Response> {
        turn().await;
        let given = Vendor::new(Rule::Fixed).refresh(&brought(&request), start());
        Ok(token_answer(given.as_ref(), None))
    }
}

#[async_trait]
impl Bus for Process {
    async fn put(&self, _: &str, _: Vec<Entry>) -> Vec<Result<()>> {
        Vec::new()
    }
}

/// A table with connections, endpoints and much else.
async fn beginning() -> (Memory, Vec<ConnectionId>) {
    let world = Arc::new(World {
        state: Mutex::new(State {
            ring: ROOT.to_owned(),
            queue: VecDeque::new(),
            dice: Dice::new(3),
            calls: 0,
            fails: None,
        }),
        memory: Memory::default(),
    });
    let ctx = Process::ctx(&world, ROOT, false);
    let mut ids = Vec::new();
    for number in 0..CONNECTIONS {
        let mut one = made(&ctx, "hubspot", number).await;
        let stored = connection::store(&ctx, &mut one, None, Along::default()).await;
        assert!(stored.unwrap());
        ids.push(one.id);
    }
    for number in 0..ENDPOINTS {
        let wish = Wish {
            url: Some(format!("https://shop.example/{number}").parse().unwrap()),
            event_types: Some(BTreeSet::from([EventType::ConnectionConnected])),
            ..Wish::default()
        };
        endpoint::register(&ctx, &merchant(), wish, None)
            .await
            .unwrap();
    }
    for number in 0..OTHERS {
        let key = keys::account("xero", &number.to_string());
        let other = Write::put(key, Condition::Absent, &json!({})).unwrap();
        world.memory.write(other).await.unwrap();
    }
    import(&ctx).await;
    // One whose key was made under a root key that nobody has: it must not keep the others.
    let mut lost = made(&ctx, "hubspot", CONNECTIONS).await;
    lost.key.as_mut().unwrap().root = "0".to_owned();
    let stored = connection::store(&ctx, &mut lost, None, Along::default()).await;
    assert!(stored.unwrap());
    (world.memory.clone(), ids)
}

/// The row of an import that did not end well.
fn import_row() -> Key {
    keys::import("hubspot", &hash("the token"))
}

/// What it was given, for the same import sent again.
const GIVEN: &str = "what the provider gave";

async fn import(ctx: &Ctx) {
    let row = import_row();
    let owner = keys::import_owner(&row);
    let (key, wrapped) = vault::new_key(ctx, owner).await.unwrap();
    let sealed = vault::seal(ctx, &key, owner, &SecretString::from(GIVEN)).unwrap();
    let vanishes_at = start() + TimeDelta::days(1);
    let brought = json!({
        "key": wrapped, "sealed": sealed, "fence": 1, "held": false, "watched": 0,
        "vanishes_at": vanishes_at,
    });
    let brought: Brought = serde_json::from_value(brought).unwrap();
    let write = brought.write(&row, Condition::Absent).unwrap();
    assert!(format!("{write:?}").contains(&vanishes_at.timestamp().to_string()));
    ctx.store.write(write).await.unwrap();
}

/// What the import was given still opens, with the new root key alone.
async fn import_opens(world: &World, ctx: &Ctx) {
    let row = world.memory.get(&import_row()).await.unwrap().unwrap();
    let brought: Brought = row.read().unwrap();
    let key = brought.key.unwrap();
    assert_eq!(key.root, "2");
    let row = import_row();
    let owner = keys::import_owner(&row);
    let key = vault::unwrap(ctx, owner, &key).await.unwrap();
    let item = world.memory.get(&row).await.unwrap().unwrap();
    let sealed = serde_json::from_value(item.doc["sealed"].clone()).unwrap();
    assert_eq!(
        vault::open(&key, owner, &sealed).unwrap().expose_secret(),
        GIVEN
    );
    assert!(item.doc["vanishes_at"].is_string(), "it still goes away");
}

/// A merchant may be named like anything.
#[test]
fn the_row_of_an_import_is_told_from_every_other() {
    let word = hash("import");
    let mut others = Vec::new();
    for name in ["import", "m_1", &word] {
        let merchant: MerchantId = name.parse().unwrap();
        let id: ConnectionId = "con_00000000000000000000000000".parse().unwrap();
        others.extend([
            keys::connection(&merchant, &id),
            keys::connection_health(&merchant, &id),
            keys::connection_entry(&merchant, &id, &word),
            keys::placed(&merchant, "xero", &word),
            keys::due_connection(1, &merchant, &id),
            keys::pulled_connection(1, &merchant, &id),
        ]);
    }
    others.extend([
        keys::account("xero", &word),
        keys::connect_link(&word),
        keys::connect_state(&word),
        keys::connect_proof(&word),
        keys::due_cursor(),
    ]);
    assert!(!others.iter().any(keys::is_import));
    assert!(keys::is_import(&keys::import("xero", &word)));
}

fn ciphertexts(memory: &Memory, ids: &[ConnectionId]) -> BTreeMap<ConnectionId, String> {
    let sealed = |id: &ConnectionId| {
        let tokens = stored(memory, id).tokens.unwrap();
        serde_json::to_string(&tokens.sealed).unwrap()
    };
    ids.iter().map(|id| (id.clone(), sealed(id))).collect()
}

async fn renew(ctx: &Ctx, connection: &Connection) {
    let setup = Setup::of(ctx, provider("hubspot").unwrap()).await.unwrap();
    let need = Need::Newer(connection.generation());
    tokens::access(ctx, &setup, &merchant(), &connection.id, need)
        .await
        .unwrap();
}

/// One rotation from its first message to its last, with a failure at one call; returns how many calls
/// there were.
fn rotate(memory: &Memory, ids: &[ConnectionId], fails: Option<(u32, bool)>) -> u32 {
    let first = |rotation: &Rotation| Message {
        body: serde_json::to_string(rotation).unwrap(),
        delay_seconds: 0,
        group: None,
    };
    let world = Arc::new(World {
        state: Mutex::new(State {
            ring: ROOT.to_owned(),
            queue: VecDeque::from([first(&Rotation::Turn)]),
            dice: Dice::new(9),
            calls: 0,
            fails,
        }),
        memory: memory.clone(),
    });
    let before = ciphertexts(memory, ids);
    let (rotating, old) = (
        Process::ctx(&world, ROOT, true),
        Process::ctx(&world, ROOT, false),
    );
    let mut renewed = BTreeSet::new();
    let mut pause = 0;
    for steps in 0.. {
        assert!(steps < 60, "the rotation does not come to an end");
        let next = world.state().queue.pop_front();
        let Some(message) = next else { break };
        if message.body.contains("retire") {
            pause += i64::from(message.delay_seconds);
        }
        // A renewal by a process that knows the old ring alone falls between the calls of each step.
        let id = &ids[steps % (ids.len() - 1)];
        let connection = stored(&world.memory, id);
        renewed.insert(id.clone());
        let step = rotation::step(&rotating, serde_json::from_str(&message.body).unwrap());
        let done = alone(async { futures::join!(step, renew(&old, &connection)).0 });
        if done.is_err() {
            // A message that failed comes again.
            world.state().queue.push_back(message);
        }
    }
    let ring: Value = serde_json::from_str(&world.state().ring).unwrap();
    assert_eq!(ring["current"], "2");
    assert_eq!(ring.get("1"), None, "the old root key is forgotten");
    // A consent that was begun under the old one has ended by then.
    let life = crossdock::oauth::connect::LINK_LIFE;
    assert!(TimeDelta::seconds(pause) >= life, "{pause} s");
    let fresh = Process::ctx(&world, &world.state().ring.clone(), false);
    let after = ciphertexts(&world.memory, ids);
    for id in ids {
        let connection = stored(&world.memory, id);
        assert_eq!(connection.key.as_ref().unwrap().root, "2");
        assert_eq!(connection.lease, None);
        assert_eq!(renewed.contains(id), before[id] != after[id], "{id}");
        for ctx in [&fresh, &old] {
            assert_eq!(alone(stored_refresh(ctx, &connection)), "R0");
        }
        // Who kept the old ring through it all can renew, too.
        alone(renew(&Process::ctx(&world, ROOT, false), &connection));
    }
    alone(import_opens(&world, &fresh));
    for row in rows(&world.memory, Table::Webhooks) {
        let one: Endpoint = row.read().unwrap();
        let owner = one.id.as_str();
        let key = alone(vault::unwrap(&fresh, owner, &one.key)).unwrap();
        let secret = vault::open(&key, owner, &one.secret).unwrap();
        assert!(secret.expose_secret().starts_with("whsec_"));
        assert_eq!(one.key.root, "2");
    }
    world.state().calls
}

#[test]
fn a_rotation_that_dies_at_any_step_loses_nothing() {
    let (memory, ids) = alone(beginning());
    let calls = rotate(&memory, &ids, None);
    println!("a rotation has {calls} calls");
    assert!(calls > 25);
    for at in 1..=calls {
        for acts in [false, true] {
            rotate(&memory, &ids, Some((at, acts)));
        }
    }
}

#[test]
fn two_that_turn_the_ring_at_once_make_one_key() {
    let (memory, ids) = alone(beginning());
    let world = Arc::new(World {
        state: Mutex::new(State {
            ring: ROOT.to_owned(),
            queue: VecDeque::new(),
            dice: Dice::new(5),
            calls: 0,
            fails: None,
        }),
        memory,
    });
    let (one, other) = (
        Process::ctx(&world, ROOT, false),
        Process::ctx(&world, ROOT, false),
    );
    let turns = async {
        futures::join!(
            rotation::step(&one, Rotation::Turn),
            rotation::step(&other, Rotation::Turn)
        )
    };
    let (first, second) = alone(turns);
    assert!(
        first.is_ok() != second.is_ok(),
        "one of them has to read again"
    );
    // Whatever ring is in somebody's memory, it knows no key that is lost.
    let connection = stored(&world.memory, &ids[0]);
    for ctx in [&one, &other] {
        let (_, wrapped) = alone(vault::new_key(ctx, "con_new")).unwrap();
        let fresh = Process::ctx(&world, &world.state().ring.clone(), false);
        assert!(alone(vault::unwrap(&fresh, "con_new", &wrapped)).is_ok());
        assert_eq!(alone(stored_refresh(ctx, &connection)), "R0");
    }
}
