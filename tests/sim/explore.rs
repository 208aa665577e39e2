//! Every order in which three workers can renew the tokens of one connection, with every crash and
//! every lost answer: a depth-first search over the production code.
//!
//! A worker is the production future. All that it does follows from the answers to its calls, its
//! clock and its random numbers, and these are drawn from the answers too; so a worker is known by its
//! answers, and what it does next is found out once, by running it with them from its beginning
//! ([`Workers::after`]). A state of the world is then small enough to be copied: the store, the
//! provider, and for each worker the answers that it has had. No state is entered twice. Four
//! arguments keep the search small without leaving anything out:
//!
//! - Between two calls a worker touches only what is its own, so the calls are the only points at which
//!   the order matters, and a crash after one call is the same as a crash before the next.
//! - A worker that never wrote has done nothing that anybody could notice. Its death leaves the state
//!   in which the worker in its place has not yet begun, with one crash less to come: that state is
//!   searched already, with more to come. So only workers that wrote die here.
//! - A worker that waits and looks at an unchanged connection waits on. Such looks are left out: it
//!   wakes when something was written since its last look, or when its patience is what decides, and
//!   how long it has waited before is then no difference.
//! - Workers that have had the same answers are the same: states that differ in who is who are one.
//!
//! Patience is a statement about time: a holder that lives is done within the time that its calls take
//! at most, so others take over only from the dead. A run of its own lets them take over from the
//! living as well.

use crate::cell::{
    CREDENTIALS, Cell, ROOT, Rule, Vendor, brought, config, digest, merchant, no_answer, rows,
    start, stored, stored_refresh, token_answer, told,
};
use crate::run::alone;
use crate::world::Dice;
use crate::world::hold;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::bus::{Bus, Entry};
use crossdock::ctx::{Clock, Ctx};
use crossdock::error::{Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::ConnectionId;
use crossdock::net::{Limits, Net};
use crossdock::oauth::connection::Status;
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::queue::{Message, Queue};
use crossdock::secrets::Secrets;
use crossdock::store::memory::Memory;
use crossdock::store::{Group, Item, Key, Page, Store, Table, Write, WriteError};
use futures::FutureExt;
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A call of a worker that waits for its answer.
#[derive(Debug, Clone)]
enum Call {
    Get(Key),
    Write(Vec<Write>),
    /// A token request with this refresh token.
    Net(String),
    /// A pause after a look; other pauses are over at once.
    Wait,
    /// An access token, or the code of an error.
    Done(Result<String, &'static str>),
}

/// The answer to a call.
#[derive(Debug, Clone)]
enum Answer {
    Found(Option<Item>),
    /// Done, or the condition at this index did not hold.
    Written(Option<usize>),
    Given(Option<(String, String)>),
    Lost,
    Slept,
}

impl Answer {
    fn digest(&self) -> u64 {
        match self {
            Answer::Found(item) => {
                let item = item.as_ref();
                digest(("found", item.map(|item| (item.rev, item.doc.to_string()))))
            }
            Answer::Written(failed) => digest(("written", failed)),
            Answer::Given(given) => digest(("given", given)),
            Answer::Lost => digest("lost"),
            Answer::Slept => digest("slept"),
        }
    }
}

/// A run of one worker with answers that are known.
#[derive(Default)]
struct Script {
    answers: Vec<Answer>,
    next: usize,
    /// Whether it goes on waiting, and finds what it found last, when the answers are used up.
    patient: bool,
    offset: TimeDelta,
    /// A digest of the answers, as far as they matter for what comes.
    history: u64,
    read: u64,
    looked: bool,
    draws: u64,
    call: Option<Call>,
}

#[derive(Clone)]
struct Port(Arc<Mutex<Script>>);

impl Port {
    fn script(&self) -> MutexGuard<'_, Script> {
        hold(&self.0)
    }

    /// The answer to `call`, or no end of waiting for it.
    async fn ask(&self, call: Call) -> Answer {
        let answer = {
            let mut script = self.script();
            if matches!(call, Call::Wait) {
                script.history = script.read;
            }
            let known = script.answers.get(script.next).cloned();
            let known = known.or_else(|| {
                if !script.patient {
                    return None;
                }
                assert!(script.next < 1_000, "it waits for ever");
                let same = match call {
                    Call::Wait => Answer::Slept,
                    Call::Get(_) => {
                        let mut found = script.answers.iter().rev();
                        let last = found.find(|answer| matches!(answer, Answer::Found(_)));
                        last.cloned().expect("it has looked before")
                    }
                    _ => return None,
                };
                script.answers.push(same.clone());
                Some(same)
            });
            match &known {
                None => script.call = Some(call),
                Some(answer) => {
                    let learnt = answer.digest();
                    script.next += 1;
                    script.history = digest((script.history, learnt));
                    script.draws = 0;
                    script.looked = matches!(call, Call::Get(_));
                    if script.looked {
                        script.read = learnt;
                    }
                }
            }
            known
        };
        match answer {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Clock for Port {
    fn now(&self) -> DateTime<Utc> {
        start() + self.script().offset
    }

    async fn sleep(&self, _: Duration) {
        // A pause after a write that failed is for others; whoever comes in between does so before
        // the look that follows.
        if self.script().looked {
            self.ask(Call::Wait).await;
        }
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut script = self.script();
        script.draws += 1;
        let mut dice = Dice::new(digest((script.history, script.draws)));
        for byte in bytes {
            *byte = dice.next() as u8;
        }
    }
}

#[async_trait]
impl Store for Port {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        match self.ask(Call::Get(key.clone())).await {
            Answer::Found(item) => Ok(item),
            other => panic!("{other:?} is no item"),
        }
    }

    async fn get_many(&self, _: &[Key]) -> Result<Vec<Option<Item>>> {
        panic!("a renewal reads one document")
    }

    async fn list(&self, _: &Group, _: Option<&str>, _: usize) -> Result<Page> {
        panic!("a renewal reads one document")
    }

    async fn scan(&self, _: Table, _: Option<&str>, _: usize) -> Result<Page> {
        panic!("a renewal reads one document")
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        match self.ask(Call::Write(writes)).await {
            Answer::Written(None) => Ok(()),
            Answer::Written(Some(index)) => Err(WriteError::Condition(index)),
            other => panic!("{other:?} is no answer to a write"),
        }
    }

    async fn put_many(&self, _: Vec<Write>) -> Result<()> {
        panic!("a renewal writes under conditions")
    }
}

#[async_trait]
impl Net for Port {
    async fn send(&self, request: Request, _: Limits) -> Result<Response> {
        match self.ask(Call::Net(brought(&request))).await {
            Answer::Given(given) => Ok(token_answer(given.as_ref(), None)),
            Answer::Lost => Err(no_answer()),
            other => panic!("{other:?} is no answer of a provider"),
        }
    }
}

#[async_trait]
impl Secrets for Port {
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
impl Queue for Port {
    async fn send_later(&self, _: &str, _: Vec<Message>) -> Result<()> {
        Err(Error::internal("a renewal sends no message"))
    }
}

#[async_trait]
impl Bus for Port {
    async fn put(&self, _: &str, _: Vec<Entry>) -> Vec<Result<()>> {
        panic!("a renewal tells the bus through the outbox")
    }
}

/// A worker that has had some answers, and stands at its next call.
struct Node {
    offset: TimeDelta,
    answers: Vec<Answer>,
    call: Call,
    /// Two nodes with the same go on in the same way.
    identity: u64,
}

impl Node {
    fn is_done(&self) -> bool {
        matches!(self.call, Call::Done(_))
    }

    fn waits(&self) -> bool {
        matches!(self.call, Call::Wait)
    }
}

/// Every worker that was met, each of them run once.
struct Workers {
    nodes: Vec<Node>,
    after: HashMap<(usize, Option<u64>), usize>,
    setup: Setup,
    id: ConnectionId,
}

impl Workers {
    /// Runs a worker from its beginning through `answers` to its next call.
    fn run(&mut self, offset: TimeDelta, answers: Vec<Answer>, patient: bool) -> usize {
        let port = Port(Arc::new(Mutex::new(Script {
            answers,
            patient,
            offset,
            ..Script::default()
        })));
        let shared = Arc::new(port.clone());
        let ctx = Ctx {
            config: config(),
            clock: shared.clone(),
            store: shared.clone(),
            secrets: shared.clone(),
            net: shared.clone(),
            queue: shared.clone(),
            bus: shared,
            budgets: Default::default(),
            certificates: Default::default(),
            recent: Default::default(),
        };
        let merchant = merchant();
        let access = tokens::access(&ctx, &self.setup, &merchant, &self.id, Need::Newer(1));
        let outcome = access.now_or_never();
        let mut script = port.script();
        let call = match outcome {
            Some(Ok((_, grant))) => Call::Done(Ok(grant.access.expose_secret().to_owned())),
            Some(Err(error)) => Call::Done(Err(error.code().as_str())),
            None => script.call.take().expect("it stands at a call"),
        };
        let identity = match &call {
            Call::Done(outcome) => digest(("done", outcome)),
            call => digest((
                offset.num_seconds(),
                matches!(call, Call::Wait),
                script.history,
            )),
        };
        self.nodes.push(Node {
            offset,
            answers: std::mem::take(&mut script.answers),
            call,
            identity,
        });
        self.nodes.len() - 1
    }

    /// The worker that `node` becomes by one answer more.
    fn after(&mut self, node: usize, answers: &[Answer]) -> usize {
        let learnt = digest(answers.iter().map(Answer::digest).collect::<Vec<_>>());
        if let Some(known) = self.after.get(&(node, Some(learnt))) {
            return *known;
        }
        let offset = self.nodes[node].offset;
        let answers = [&self.nodes[node].answers, answers].concat();
        let next = self.run(offset, answers, false);
        self.after.insert((node, Some(learnt)), next);
        next
    }

    /// The worker that `node` becomes when nothing happens for as long as it waits.
    fn patient(&mut self, node: usize) -> usize {
        if let Some(known) = self.after.get(&(node, None)) {
            return *known;
        }
        let (offset, answers) = (self.nodes[node].offset, self.nodes[node].answers.clone());
        let next = self.run(offset, answers, true);
        self.after.insert((node, None), next);
        next
    }
}

/// What is tried.
#[derive(Debug, Clone)]
struct Scenario {
    rule: Rule,
    offsets: Vec<TimeDelta>,
    crashes: usize,
    losses: usize,
    /// Whether somebody may take over from a holder that lives.
    stalls: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Step(usize),
    /// A step whose answer is lost.
    Lose(usize),
    /// The worker dies, and another begins in its place.
    Crash(usize),
}

#[derive(Clone)]
struct Worker {
    node: usize,
    /// How many writes the store had taken when it looked last.
    seen: u64,
    wrote: bool,
    /// It was given a pair that it has not stored.
    holds: bool,
    /// How many workers came before it in its place.
    life: u32,
}

/// A state of the world.
#[derive(Clone)]
struct State {
    memory: Arc<Memory>,
    rows: u64,
    vendor: Vendor,
    workers: Vec<Worker>,
    writes: u64,
    /// Who took the lease of each fence.
    owners: BTreeMap<u64, (usize, u32)>,
    /// Pairs that the vendor gave and nobody holds.
    gone: u64,
    crashes: usize,
    losses: usize,
}

fn content(memory: &Memory) -> u64 {
    let tables = [Table::Connections, Table::Records, Table::Outbox].into_iter();
    let all = tables.flat_map(|table| rows(memory, table));
    let all = all.map(|row| digest((&row.key, row.rev, row.doc.to_string())));
    digest(all.collect::<Vec<_>>())
}

struct Search {
    scenario: Scenario,
    workers: Workers,
    begin: Vec<usize>,
}

impl Search {
    fn new(scenario: Scenario) -> (Search, State) {
        let cell = Cell::new(scenario.rule);
        let ctx = cell.ctx();
        let id = alone(cell.connect(&ctx));
        let mut workers = Workers {
            nodes: Vec::new(),
            after: HashMap::new(),
            setup: alone(cell.setup(&ctx)),
            id,
        };
        let offsets = scenario.offsets.iter();
        let begin: Vec<usize> = offsets
            .map(|offset| workers.run(*offset, Vec::new(), false))
            .collect();
        let worker = |node: &usize| Worker {
            node: *node,
            seen: 0,
            wrote: false,
            holds: false,
            life: 0,
        };
        let state = State {
            rows: content(&cell.memory),
            memory: Arc::clone(&cell.memory),
            vendor: Vendor::new(scenario.rule),
            workers: begin.iter().map(worker).collect(),
            writes: 0,
            owners: BTreeMap::new(),
            gone: 0,
            crashes: scenario.crashes,
            losses: scenario.losses,
        };
        let search = Search {
            scenario,
            workers,
            begin,
        };
        (search, state)
    }

    fn node(&self, worker: &Worker) -> &Node {
        &self.workers.nodes[worker.node]
    }

    /// Whether somebody who waits would see the lease stand still for as long as it takes.
    fn patience_decides(&self, state: &State) -> bool {
        if self.scenario.stalls {
            return true;
        }
        let Some(lease) = stored(&state.memory, &self.workers.id).lease else {
            return false;
        };
        let (place, life) = state.owners[&lease.fence];
        let owner = &state.workers[place];
        owner.life != life || self.node(owner).is_done()
    }

    fn choices(&self, state: &State) -> Vec<Choice> {
        let patience = self.patience_decides(state);
        let mut choices = Vec::new();
        for (place, worker) in state.workers.iter().enumerate() {
            let node = self.node(worker);
            let sees_nothing_new = node.waits() && worker.seen == state.writes && !patience;
            if node.is_done() || sees_nothing_new {
                continue;
            }
            choices.push(Choice::Step(place));
            if matches!(node.call, Call::Net(_)) && state.losses > 0 {
                choices.push(Choice::Lose(place));
            }
            if worker.wrote && state.crashes > 0 {
                choices.push(Choice::Crash(place));
            }
        }
        choices
    }

    fn apply(&mut self, state: &mut State, choice: Choice) {
        match choice {
            Choice::Crash(place) => {
                state.crashes -= 1;
                state.gone += u64::from(state.workers[place].holds);
                self.begin_again(state, place);
            }
            Choice::Lose(place) => {
                state.losses -= 1;
                self.step(state, place, true);
            }
            Choice::Step(place) => self.step(state, place, false),
        }
    }

    fn begin_again(&self, state: &mut State, place: usize) {
        let worker = &mut state.workers[place];
        *worker = Worker {
            node: self.begin[place],
            seen: 0,
            wrote: false,
            holds: false,
            life: worker.life + 1,
        };
    }

    /// Lets one worker's call happen.
    fn step(&mut self, state: &mut State, place: usize, lose: bool) {
        let patience = self.patience_decides(state);
        let now = start();
        let worker = &mut state.workers[place];
        let call = self.workers.nodes[worker.node].call.clone();
        let look = |key: &Key| state.memory.get(key).now_or_never().unwrap().unwrap();
        worker.node = match call {
            Call::Get(key) => {
                worker.seen = state.writes;
                let found = Answer::Found(look(&key));
                self.workers.after(worker.node, &[found])
            }
            Call::Wait if worker.seen == state.writes && patience => {
                self.workers.patient(worker.node)
            }
            Call::Wait => {
                // To wake and to look is one step.
                let woken = self.workers.after(worker.node, &[Answer::Slept]);
                let Call::Get(key) = &self.workers.nodes[woken].call else {
                    panic!("whoever wakes looks")
                };
                worker.seen = state.writes;
                let found = Answer::Found(look(key));
                self.workers.after(woken, &[found])
            }
            Call::Write(writes) => {
                let lease = writes.iter().find_map(|write| match write {
                    Write::Put { doc, .. } => doc["lease"]["fence"].as_u64(),
                    _ => None,
                });
                let memory = Memory::clone(&state.memory);
                let written = match memory.transact(writes).now_or_never().unwrap() {
                    Ok(()) => None,
                    Err(WriteError::Condition(index)) => Some(index),
                    Err(other) => panic!("{other:?}"),
                };
                if written.is_none() {
                    state.rows = content(&memory);
                    state.memory = Arc::new(memory);
                    state.writes += 1;
                    worker.wrote = true;
                    worker.holds = false;
                    if let Some(fence) = lease {
                        state.owners.entry(fence).or_insert((place, worker.life));
                    }
                }
                self.workers.after(worker.node, &[Answer::Written(written)])
            }
            Call::Net(token) => {
                let before = state.vendor.newest;
                let given = state.vendor.refresh(&token, now);
                let rotated = state.vendor.newest != before;
                let answer = if lose {
                    state.gone += u64::from(rotated);
                    Answer::Lost
                } else {
                    worker.holds = rotated;
                    Answer::Given(given)
                };
                self.workers.after(worker.node, &[answer])
            }
            Call::Done(_) => panic!("it is done"),
        };
        if let Call::Done(Ok(access)) = &self.workers.nodes[worker.node].call {
            // Where the living are overtaken, a second use may have ended the grant meanwhile.
            let ended = self.scenario.stalls && self.scenario.rule == Rule::Strict;
            assert!(
                ended || state.vendor.takes(access),
                "{access} was handed out, and the provider would refuse it"
            );
        }
    }

    fn digest(&self, state: &State) -> u64 {
        let workers = state.workers.iter();
        let mut workers: Vec<u64> = workers
            .map(|worker| {
                let node = self.node(worker);
                let stale = node.waits() && worker.seen != state.writes;
                digest((node.identity, worker.wrote, worker.holds, stale))
            })
            .collect();
        workers.sort_unstable();
        let patience = self.patience_decides(state);
        let left = (state.crashes, state.losses);
        digest((
            state.rows,
            workers,
            &state.vendor,
            state.gone,
            patience,
            left,
        ))
    }

    /// Judges a state in which everybody is done.
    fn judge(&mut self, mut state: State) -> &'static str {
        let scenario = self.scenario.clone();
        // What the workers left unfinished, the next try of the schedule finishes at once.
        if stored(&state.memory, &self.workers.id).generation() == 1 {
            self.begin_again(&mut state, 0);
            for steps in 0.. {
                if self.node(&state.workers[0]).is_done() {
                    break;
                }
                assert!(steps < 50, "it does not come to an end");
                self.step(&mut state, 0, false);
            }
        }
        let crashes = scenario.crashes - state.crashes;
        let losses = scenario.losses - state.losses;
        let connection = stored(&state.memory, &self.workers.id);
        let ended = told(&state.memory, EventType::ConnectionReauthRequired);
        let ctx = Cell::new(scenario.rule).ctx();
        let refresh = alone(stored_refresh(&ctx, &connection));
        let accepted = state.vendor.accepts(&refresh, start());
        if !scenario.stalls {
            let grace = usize::from(scenario.rule == Rule::Grace);
            let most = 1 + crashes + losses + grace;
            let requests = state.vendor.requests as usize;
            assert!(requests <= most, "{requests} token requests, not {most}");
        }
        let keeps = matches!(scenario.rule, Rule::Grace | Rule::Fixed);
        match connection.status {
            Status::Live => {
                assert!(connection.generation() > 1, "it was not renewed");
                assert_eq!(connection.lease, None);
                if scenario.stalls && scenario.rule == Rule::Strict && !accepted {
                    return "live here, ended there";
                }
                assert!(accepted, "{refresh} is stored, and the provider refuses it");
                assert!(scenario.stalls || ended == 0, "nobody has to connect again");
                "live"
            }
            Status::ReauthRequired => {
                assert!(!keeps, "the provider's rules let it be kept");
                assert!(!accepted, "{refresh} is good, and the connection was ended");
                assert!(scenario.stalls || state.gone > 0, "no pair was lost");
                assert!(scenario.stalls || ended == 1, "{ended} events for one end");
                assert_eq!(connection.next_refresh_at, None);
                "to be connected again"
            }
            other => panic!("the connection is {other:?}"),
        }
    }
}

struct Frame {
    state: State,
    digest: u64,
    choices: Vec<Choice>,
    next: usize,
}

/// What a search found: how many states there are, how many workers that differ, and how many ends of
/// each kind.
struct Found {
    states: usize,
    workers: usize,
    ends: BTreeMap<&'static str, usize>,
}

/// Visits every state.
fn explore(scenario: Scenario) -> Found {
    let (mut search, state) = Search::new(scenario);
    let first = search.digest(&state);
    let (mut seen, mut on_path) = (HashSet::from([first]), HashSet::from([first]));
    let mut ends = BTreeMap::new();
    let mut path: Vec<Choice> = Vec::new();
    let mut frames = vec![Frame {
        choices: search.choices(&state),
        state,
        digest: first,
        next: 0,
    }];
    while let Some(frame) = frames.last_mut() {
        let Some(choice) = frame.choices.get(frame.next).copied() else {
            on_path.remove(&frame.digest);
            frames.pop();
            path.pop();
            continue;
        };
        frame.next += 1;
        let mut state = frame.state.clone();
        path.push(choice);
        let entered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            search.apply(&mut state, choice);
            let digest = search.digest(&state);
            assert!(!on_path.contains(&digest), "they go around in circles");
            if !seen.insert(digest) {
                return None;
            }
            let choices = search.choices(&state);
            if !choices.is_empty() {
                return Some((digest, choices));
            }
            let done = |worker: &Worker| search.node(worker).is_done();
            assert!(state.workers.iter().all(done), "somebody waits for nobody");
            *ends.entry(search.judge(state.clone())).or_default() += 1;
            None
        }));
        match entered {
            Err(_) => panic!("{:?}: {path:?}", search.scenario),
            Ok(None) => {
                path.pop();
            }
            Ok(Some((digest, choices))) => {
                on_path.insert(digest);
                frames.push(Frame {
                    state,
                    digest,
                    choices,
                    next: 0,
                });
            }
        }
    }
    Found {
        states: seen.len(),
        workers: search.workers.nodes.len(),
        ends,
    }
}

fn report(scenario: Scenario) -> BTreeMap<&'static str, usize> {
    let rule = scenario.rule;
    let Found {
        states,
        workers,
        ends,
    } = explore(scenario);
    let all: usize = ends.values().sum();
    println!("{rule:?}: {states} states of {workers} workers, {all} ends: {ends:?}");
    ends
}

#[test]
fn every_order_of_three_workers_keeps_what_can_be_kept() {
    for rule in Rule::ALL {
        let ends = report(Scenario {
            rule,
            offsets: vec![TimeDelta::zero(); 3],
            crashes: 2,
            losses: 1,
            stalls: false,
        });
        let kinds: Vec<&str> = ends.into_keys().collect();
        match rule {
            Rule::Grace | Rule::Fixed => assert_eq!(kinds, ["live"]),
            Rule::Strict | Rule::Daily => assert_eq!(kinds, ["live", "to be connected again"]),
        }
    }
}

#[test]
fn clocks_that_jump_change_nothing() {
    for rule in Rule::ALL {
        let jump = TimeDelta::minutes(10);
        let ends = report(Scenario {
            rule,
            offsets: vec![TimeDelta::zero(), jump, -jump],
            crashes: 1,
            losses: 0,
            stalls: false,
        });
        assert!(ends.contains_key("live"));
    }
}

/// Here nothing is certain about time, as when a process is stopped for a minute amid its work. Whoever
/// was given a pair stores it all the same, so the connection lives; only a provider that takes the
/// grant back when an old token is used has ended it, which the next renewal finds.
#[test]
fn a_holder_that_is_overtaken_alive_does_no_harm() {
    for rule in Rule::ALL {
        let ends = report(Scenario {
            rule,
            offsets: vec![TimeDelta::zero(); 3],
            crashes: 0,
            losses: 0,
            stalls: true,
        });
        assert!(ends.contains_key("live"), "{rule:?}");
        assert!(!ends.contains_key("to be connected again"), "{rule:?}");
    }
}
