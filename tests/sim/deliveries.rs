//! Outbound webhooks over weeks: receivers that fail in every way there is, functions that die, queues that
//! double and reorder, tables that are throttled. Whatever happens, each event reaches each endpoint that
//! wants it or ends visibly without having done so.

use crate::number;
use crate::run::{alone, merchant};
use crate::seeds::on_all_cores;
use crate::world::{Chances, World, hold, start, turn};
use async_trait::async_trait;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::ctx::Ctx;
use crossdock::error::{Code, Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::{EndpointId, EventId};
use crossdock::model::notice::{DeliveryNotice, Envelope, Notice, Place, RetryNotice, StoredEvent};
use crossdock::net::{Limits, Net};
use crossdock::queue::{Message, Queue};
use crossdock::store::{Condition, Store, Write, keys};
use crossdock::sync::delivery::LIFE;
use crossdock::webhooks::deliver::{self, Arrival, Delivery, DeliveryState};
use crossdock::webhooks::endpoint::{self, Endpoint, Log, OffReason, Ordering, Payload, Wish};
use crossdock::webhooks::{fanout, feed, recover, samples, schedule, stats};
use futures::FutureExt;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use standardwebhooks::Webhook;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const FANOUT: &str = "fanout";
const DELIVER: &str = "deliver";
const RETRY: &str = "retry";
const SLOW: &str = "slow";
/// Messages of one invocation, as in the template.
const BATCH: usize = 10;
/// After how long a message that failed comes again.
const VISIBILITY: TimeDelta = TimeDelta::seconds(360);
/// Events of one story, and how long they keep coming.
const EVENTS: usize = 20;
const COMING: TimeDelta = TimeDelta::days(2);
const TASKS_MAX: usize = 4;
const DAY_MINUTES: i64 = 1440;
const STORIES: u64 = 150;
/// How long a busy receiver asks to be left alone.
const QUIET: TimeDelta = TimeDelta::seconds(100);

/// How a receiver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well,
    /// One request in so many is answered with one of these.
    Flaky(usize),
    /// It takes what comes, and its answer is lost one time in so many.
    Mute(usize),
    /// It is down from hour to hour of the story, and well before and after.
    Down(i64, i64),
    /// It never answers well.
    Dead,
    /// It says so, and means it.
    Busy,
    /// It wants no more after so many.
    Leaves(usize),
}

struct Receiver {
    mode: Mode,
    secret: SecretString,
    public_key: Vec<u8>,
    seen: usize,
    /// How often each event was taken with a success, and how often it came in all.
    taken: BTreeMap<String, usize>,
    /// The places of what was taken, by key, in the order in which it came for the first time.
    order: BTreeMap<String, Vec<u64>>,
    /// Until when it has asked not to be sent which event.
    quiet: BTreeMap<String, DateTime<Utc>>,
}

struct Waiting {
    lane: &'static str,
    body: String,
    /// Whether it was taken before.
    again: bool,
    visible_at: DateTime<Utc>,
}

/// The queues and receivers around the production code.
struct Town {
    world: World,
    receivers: Mutex<BTreeMap<String, Receiver>>,
    waiting: Mutex<Vec<Waiting>>,
}

#[async_trait]
impl Queue for Town {
    async fn send_later(&self, url: &str, messages: Vec<Message>) -> Result<()> {
        turn().await;
        let lane = [DELIVER, RETRY, SLOW].into_iter().find(|lane| *lane == url);
        let lane = lane.unwrap_or_else(|| panic!("no queue is named {url}"));
        for message in messages {
            assert!(message.delay_seconds <= 900, "a queue keeps nothing longer");
            let mut state = self.world.state();
            // A queue delivers at least once, in no order; a call that fails may have sent some of them.
            let chance = state.chances.bus;
            let copies = 1 + usize::from(state.dice.per_mille(chance));
            let late = TimeDelta::milliseconds(state.dice.below(2000) as i64);
            let delay = TimeDelta::seconds(i64::from(message.delay_seconds));
            let visible_at = state.now + delay + late;
            let lost = state.dice.per_mille(chance);
            drop(state);
            if lost {
                return Err(Error::internal("simulated: a call to the queue failed"));
            }
            for _ in 0..copies {
                hold(&self.waiting).push(Waiting {
                    lane,
                    body: message.body.clone(),
                    again: false,
                    visible_at,
                });
            }
        }
        turn().await;
        Ok(())
    }
}

/// What a receiver does with a request: nothing that can be read, or an answer.
enum Reply {
    Nothing,
    /// It took it, and nobody hears of it.
    Unheard,
    Answer(Response),
}

impl Town {
    /// A process that has just begun.
    fn process(self: &Arc<Self>) -> Arc<Ctx> {
        self.process_with("true")
    }

    /// The same, with the switch of webhooks as it says.
    fn process_with(self: &Arc<Self>, switch: &str) -> Arc<Ctx> {
        Arc::new(Ctx {
            net: self.clone(),
            queue: self.clone(),
            ..self.world.ctx_with(&[
                ("QUEUE_WEBHOOK_DELIVER_URL", DELIVER),
                ("QUEUE_WEBHOOK_RETRY_URL", RETRY),
                ("QUEUE_WEBHOOK_SLOW_URL", SLOW),
                ("ENABLE_WEBHOOKS", switch),
            ])
        })
    }

    fn take(&self, request: &Request, now: DateTime<Utc>) -> Reply {
        let host = request.url.host_str().unwrap().to_owned();
        let header = |name: &str| {
            let mut found = request.headers.iter().filter(|(one, _)| one == name);
            found.next().map(|(_, value)| value.clone()).unwrap()
        };
        let id = header("webhook-id");
        let mut receivers = hold(&self.receivers);
        let receiver = receivers.get_mut(&host).unwrap();
        let time: i64 = header("webhook-timestamp").parse().unwrap();
        // Others may have waited for answers meanwhile.
        assert!((now.timestamp() - time).abs() <= 120, "signed as of now");
        let webhook = Webhook::new(receiver.secret.expose_secret()).unwrap();
        let signature = webhook.sign(&id, time, &request.body).unwrap();
        let signatures = header("webhook-signature");
        let (ours, public) = signatures.split_once(' ').unwrap();
        assert_eq!(ours, signature, "{host} believes it");
        let key = UnparsedPublicKey::new(&ED25519, &receiver.public_key);
        let public = STANDARD.decode(public.strip_prefix("v1a,").unwrap());
        let signed = [format!("{id}.{time}.").as_bytes(), &request.body].concat();
        let verified = key.verify(&signed, &public.unwrap());
        assert!(verified.is_ok(), "{host} believes it by the public key");
        receiver.seen += 1;
        let answer = |status: u16, headers: &[(&str, &str)]| {
            let headers = headers.iter();
            Reply::Answer(Response {
                status,
                headers: headers
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                body: vec![b'x'; 100],
            })
        };
        let seen = receiver.seen;
        let broken = || match seen % 5 {
            0 => Reply::Nothing,
            1 => answer(500, &[]),
            2 => answer(302, &[("location", "https://elsewhere.example/")]),
            3 => answer(404, &[]),
            _ => answer(400, &[("retry-after", "never")]),
        };
        let hours = (now - start()).num_hours();
        let well = match receiver.mode {
            Mode::Flaky(of) => !seen.is_multiple_of(of),
            Mode::Down(from, until) => !(from..until).contains(&hours),
            Mode::Dead => false,
            Mode::Busy if seen.is_multiple_of(3) => {
                receiver.quiet.insert(id, now + QUIET);
                let seconds = QUIET.num_seconds().to_string();
                return answer(429, &[("retry-after", seconds.as_str())]);
            }
            Mode::Leaves(after) if seen > after => return answer(410, &[]),
            Mode::Well | Mode::Mute(_) | Mode::Busy | Mode::Leaves(_) => true,
        };
        if !well {
            return broken();
        }
        // A function that dies takes what it was asked along.
        let quiet = receiver
            .quiet
            .get(&id)
            .filter(|_| self.world.state().chances.bus == 0);
        assert!(
            quiet.is_none_or(|until| *until <= now),
            "{host} asked for quiet"
        );
        let times = receiver.taken.entry(id).or_default();
        *times += 1;
        if *times == 1 {
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let key = body["sequence"]["key"].as_str().unwrap().to_owned();
            let n = body["sequence"]["n"].as_u64().unwrap();
            receiver.order.entry(key).or_default().push(n);
        }
        match receiver.mode {
            Mode::Mute(of) if seen.is_multiple_of(of) => Reply::Unheard,
            _ => answer(204, &[]),
        }
    }
}

#[async_trait]
impl Net for Town {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        turn().await;
        let now = self.world.state().now;
        let reply = self.take(&request, now);
        turn().await;
        match reply {
            Reply::Answer(answer) => Ok(answer),
            Reply::Nothing => Err(Error::new(
                Code::UpstreamFailed,
                "no connection could be made",
            )),
            Reply::Unheard => {
                self.world.advance(limits.total);
                Err(Error::new(
                    Code::UpstreamFailed,
                    "no answer within 20 seconds",
                ))
            }
        }
    }
}

type Outcome = Vec<(String, Result<()>)>;

struct Task {
    process: usize,
    lane: &'static str,
    bodies: Vec<String>,
    future: BoxFuture<'static, Outcome>,
}

struct Story {
    town: Arc<Town>,
    /// What is asked of the API.
    ctx: Arc<Ctx>,
    /// Functions, each with what it remembers, until it dies.
    processes: Vec<Arc<Ctx>>,
    endpoints: Vec<EndpointId>,
    /// The latest event of each key, with its place.
    latest: BTreeMap<String, (u64, EventId)>,
    notices: Vec<Notice>,
    tasks: Vec<Task>,
    planned: i64,
    deaths: usize,
}

fn read<T: DeserializeOwned>(bodies: &[String]) -> Vec<T> {
    let read = bodies.iter().map(|body| serde_json::from_str(body));
    read.collect::<Result<_, _>>().unwrap()
}

/// Fans out one event by itself.
fn fan_out(ctx: &Ctx, notice: &Notice) {
    let made = alone(fanout::fan_out(ctx, std::slice::from_ref(notice)));
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// Lets a function have the message of one delivery for the first time.
fn deliver(ctx: &Ctx, endpoint: &EndpointId, notice: &Notice) {
    let arrival = Arrival {
        notice: DeliveryNotice::new(notice, endpoint.clone()),
        again: false,
    };
    let done = alone(deliver::deliver(ctx, &[arrival]));
    assert!(done[0].is_ok(), "{done:?}");
}

fn host(number: usize) -> String {
    format!("{number}.example")
}

/// The newest, of those that everybody can read.
fn public_key(ctx: &Ctx, endpoint: &Endpoint) -> Vec<u8> {
    let keys = endpoint.public_keys(ctx.now());
    let x = keys["keys"][0]["x"].as_str().unwrap();
    URL_SAFE_NO_PAD.decode(x).unwrap()
}

impl Story {
    fn new(seed: u64, modes: &[Mode]) -> Story {
        Story::with_log(seed, modes, Log::Full)
    }

    /// The same where endpoints without order have such a log.
    fn with_log(seed: u64, modes: &[Mode], log: Log) -> Story {
        let world = World::new(seed);
        world.state().traced = false;
        let town = Arc::new(Town {
            world: world.clone(),
            receivers: Mutex::default(),
            waiting: Mutex::default(),
        });
        let ctx = town.process();
        let mut endpoints = Vec::new();
        for (number, mode) in modes.iter().enumerate() {
            let ordering = match (seed as usize + number) % 2 {
                0 => Ordering::ByKey,
                _ => Ordering::None,
            };
            let wish = Wish {
                url: Some(format!("https://{}/hook", host(number)).parse().unwrap()),
                event_types: Some(EventType::ALL.into_iter().collect()),
                payload: Some(match number % 2 {
                    0 => Payload::Full,
                    _ => Payload::Thin,
                }),
                ordering: Some(ordering),
                log: Some(match ordering {
                    Ordering::ByKey => Log::Full,
                    Ordering::None => log,
                }),
                ..Wish::default()
            };
            let (made, secret) = alone(endpoint::register(&ctx, &merchant(), wish, None)).unwrap();
            let receiver = Receiver {
                mode: *mode,
                secret,
                public_key: public_key(&ctx, &made),
                seen: 0,
                taken: BTreeMap::new(),
                order: BTreeMap::new(),
                quiet: BTreeMap::new(),
            };
            hold(&town.receivers).insert(host(number), receiver);
            endpoints.push(made.id);
        }
        Story {
            processes: (0..TASKS_MAX).map(|_| town.process()).collect(),
            town,
            ctx,
            endpoints,
            latest: BTreeMap::new(),
            notices: Vec::new(),
            tasks: Vec::new(),
            planned: 0,
            deaths: 0,
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.town.world.state().now
    }

    fn below(&self, end: usize) -> usize {
        self.town.world.state().dice.below(end)
    }

    /// Something happens in the shop.
    fn happen(&mut self) {
        let kind = EventType::ALL[self.below(EventType::ALL.len())];
        let (_, any) = alone(endpoint::load(&self.ctx, &merchant(), &self.endpoints[0])).unwrap();
        let notice = alone(samples::store(&self.ctx, &any, kind)).unwrap();
        self.chain(&notice.event_id);
        let body = serde_json::to_string(&Envelope {
            detail: notice.clone(),
        });
        let waiting = Waiting {
            lane: FANOUT,
            body: body.unwrap(),
            again: false,
            visible_at: self.now(),
        };
        hold(&self.town.waiting).push(waiting);
        self.notices.push(notice);
    }

    /// Makes a sample the next event of one of three records.
    fn chain(&mut self, id: &EventId) {
        let memory = &self.town.world.memory;
        let key = keys::event(&merchant(), id);
        let item = alone(memory.get(&key)).unwrap().unwrap();
        let mut event: StoredEvent = item.read().unwrap();
        let name = format!("order/{}", self.below(3));
        let before = self.latest.get(&name).cloned();
        let n = before.as_ref().map_or(1, |(n, _)| n + 1);
        event.place = Place {
            key: name.clone(),
            n,
            previous_id: before.map(|(_, id)| id),
        };
        let write = Write::put(key, Condition::Rev(item.rev), &event).unwrap();
        alone(memory.write(write)).unwrap();
        self.latest.insert(name, (n, id.clone()));
    }

    /// A function takes what is visible in one of the queues.
    fn employ(&mut self) -> bool {
        let now = self.now();
        let lanes: Vec<&'static str> = {
            let waiting = hold(&self.town.waiting);
            let visible = waiting.iter().filter(|one| one.visible_at <= now);
            let lanes: BTreeSet<&'static str> = visible.map(|one| one.lane).collect();
            lanes.into_iter().collect()
        };
        if lanes.is_empty() {
            return false;
        }
        let lane = lanes[self.below(lanes.len())];
        let (mut bodies, mut again) = (Vec::new(), Vec::new());
        for _ in 0..BATCH {
            let mut waiting = hold(&self.town.waiting);
            let visible: Vec<usize> = (0..waiting.len())
                .filter(|at| waiting[*at].lane == lane && waiting[*at].visible_at <= now)
                .collect();
            if visible.is_empty() {
                break;
            }
            let at = visible[self.town.world.state().dice.below(visible.len())];
            let taken = waiting.swap_remove(at);
            bodies.push(taken.body);
            again.push(taken.again);
        }
        // A process does one thing at a time.
        let idle: Vec<usize> = (0..self.processes.len())
            .filter(|process| self.tasks.iter().all(|task| task.process != *process))
            .collect();
        let process = idle[self.below(idle.len())];
        let (ctx, all) = (self.processes[process].clone(), bodies.clone());
        let future = async move {
            let done = match lane {
                FANOUT => {
                    let all = read::<Envelope>(&all).into_iter();
                    let notices: Vec<Notice> = all.map(|envelope| envelope.detail).collect();
                    fanout::fan_out(&ctx, &notices).await
                }
                DELIVER => {
                    let notices = read::<DeliveryNotice>(&all).into_iter().zip(again);
                    let arrivals = notices.map(|(notice, again)| Arrival { notice, again });
                    deliver::deliver(&ctx, &arrivals.collect::<Vec<_>>()).await
                }
                _ => recover::retry(&ctx, &read::<RetryNotice>(&all)).await,
            };
            assert_eq!(done.len(), all.len());
            all.into_iter().zip(done).collect()
        };
        self.tasks.push(Task {
            process,
            lane,
            bodies,
            future: future.boxed(),
        });
        true
    }

    fn back(&self, lane: &'static str, bodies: Vec<String>) {
        let visible_at = self.now() + VISIBILITY;
        hold(&self.town.waiting).extend(bodies.into_iter().map(|body| Waiting {
            lane,
            body,
            again: true,
            visible_at,
        }));
    }

    /// One step of the story; `false` when nothing is left that moves by itself before `until`.
    fn turn(&mut self, until: DateTime<Utc>, deaths: u64) -> bool {
        let minute = deliver::minute_of(self.now());
        if minute > self.planned {
            // As often as the schedule would have called, as far as that can make a difference.
            for _ in 0..=(minute - self.planned).min(DAY_MINUTES) / 10 {
                // What it could not hand out, it hands out a minute later.
                let _ = alone(schedule::plan(&self.ctx));
            }
            self.planned = minute;
        }
        if self.tasks.len() < TASKS_MAX && (self.tasks.is_empty() || self.below(3) == 0) {
            self.employ();
        }
        if self.tasks.is_empty() {
            return self.pass(until);
        }
        let at = self.below(self.tasks.len());
        if self.town.world.state().dice.per_mille(deaths) {
            let dead = self.tasks.swap_remove(at);
            self.deaths += 1;
            self.processes[dead.process] = self.town.process();
            self.back(dead.lane, dead.bodies);
            return true;
        }
        self.town.world.advance(Duration::from_millis(3));
        let polled = self.tasks[at]
            .future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(outcomes) = polled {
            let done = self.tasks.swap_remove(at);
            let failed = outcomes.into_iter().filter(|(_, outcome)| outcome.is_err());
            self.back(done.lane, failed.map(|(body, _)| body).collect());
        }
        true
    }

    /// Lets time pass until something is to be done.
    fn pass(&mut self, until: DateTime<Utc>) -> bool {
        let now = self.now();
        let next = hold(&self.town.waiting)
            .iter()
            .map(|one| one.visible_at)
            .min();
        let due = self.next_due();
        let Some(at) = next.into_iter().chain(due).min().filter(|at| *at < until) else {
            return false;
        };
        let by = (at - now).max(TimeDelta::milliseconds(1));
        self.town.world.advance(by.to_std().unwrap());
        true
    }

    /// When the schedule next finds something that waits in the table: once its minute is over, and not
    /// twice in one minute.
    fn next_due(&self) -> Option<DateTime<Utc>> {
        let memory = &self.town.world.memory;
        let waits = |minute: &i64| {
            let page = alone(memory.list(&keys::webhook_due(*minute), None, 1)).unwrap();
            !page.items.is_empty()
        };
        let minute = (self.planned - 120..self.planned + DAY_MINUTES + 180).find(waits)?;
        DateTime::from_timestamp((minute.max(self.planned) + 1) * 60, 0)
    }

    fn run(&mut self, until: DateTime<Utc>, deaths: u64) {
        for _ in 0..2_000_000 {
            if !self.turn(until, deaths) {
                let left = until - self.now();
                self.town.world.advance(left.to_std().unwrap_or_default());
                return;
            }
            if self.now() >= until {
                return;
            }
        }
        panic!("it does not come to an end");
    }

    fn delivery(&self, endpoint: &EndpointId, notice: &Notice) -> Option<Delivery> {
        let key = keys::delivery(&merchant(), endpoint, notice.accepted_at, &notice.event_id);
        let item = alone(self.town.world.memory.get(&key)).unwrap();
        item.map(|item| item.read().unwrap())
    }

    fn calm(&self) {
        self.town.world.state().chances = Chances::default();
    }

    /// What became of everything, once nothing moves any more.
    fn check(&self, modes: &[Mode]) -> Result<Counts, String> {
        let mut counts = Counts::default();
        for (number, id) in self.endpoints.iter().enumerate() {
            let receivers = hold(&self.town.receivers);
            let receiver = &receivers[&host(number)];
            let (_, endpoint) = alone(endpoint::load(&self.ctx, &merchant(), id)).unwrap();
            let reason = endpoint.off.as_ref().map(|off| off.reason);
            let expected = match modes[number] {
                Mode::Dead => Some(OffReason::Failing),
                Mode::Leaves(_) => Some(OffReason::Gone),
                _ => None,
            };
            if reason != expected {
                return Err(format!("{:?} is off for {reason:?}", modes[number]));
            }
            for notice in &self.notices {
                let told = notice.kind.as_str();
                let taken = receiver.taken.get(notice.event_id.as_str()).copied();
                let mut count = || {
                    counts.deliveries += 1;
                    counts.taken += usize::from(taken.is_some());
                    // Whoever hides his answer asks for a double.
                    if !matches!(modes[number], Mode::Mute(_)) {
                        counts.doubled += taken.unwrap_or(0).saturating_sub(1);
                    }
                };
                let Some(delivery) = self.delivery(id, notice) else {
                    // Of what arrives at once a log of failures says nothing.
                    if endpoint.log == Log::Failures && taken.is_some() {
                        count();
                        continue;
                    }
                    let off = endpoint.off.as_ref();
                    if off.is_none_or(|off| off.at >= notice.accepted_at) {
                        return Err(format!("{told} {} has no delivery", notice.event_id));
                    }
                    continue;
                };
                let good = match delivery.state {
                    DeliveryState::Delivered => taken.is_some(),
                    DeliveryState::Pending => false,
                    // It ends without success only where the receiver never was well for long.
                    DeliveryState::Exhausted | DeliveryState::Stopped => expected.is_some(),
                };
                if !good {
                    return Err(format!(
                        "{:?}: {} of {told} was taken {taken:?} times: {delivery:?}",
                        modes[number],
                        delivery.state.as_str()
                    ));
                }
                count();
            }
            let in_order = |places: &Vec<u64>| places.is_sorted();
            if endpoint.ordering == Ordering::ByKey && !receiver.order.values().all(in_order) {
                return Err(format!(
                    "{:?} asked for order and had {:?}",
                    modes[number], receiver.order
                ));
            }
            counts.attempts += receiver.seen;
        }
        counts.deaths = self.deaths;
        Ok(counts)
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    deliveries: usize,
    taken: usize,
    doubled: usize,
    attempts: usize,
    deaths: usize,
}

const MODES: [Mode; 8] = [
    Mode::Well,
    Mode::Flaky(4),
    Mode::Mute(5),
    Mode::Down(3, 40),
    Mode::Down(20, 110),
    Mode::Dead,
    Mode::Busy,
    Mode::Leaves(12),
];

fn tell(seed: u64, log: Log, chances: Chances, deaths: u64) -> Result<Counts, String> {
    let mut story = Story::with_log(seed, &MODES, log);
    story.town.world.state().chances = chances;
    let began = story.now();
    for number in 0..EVENTS {
        // What stores an event is not what is tried here.
        story.calm();
        story.happen();
        story.town.world.state().chances = chances;
        let share = i32::try_from(number).unwrap() + 1;
        // Mostly more happens while the bus still brings what happened before.
        let until = match story.below(3) {
            0 => began + COMING * share / i32::try_from(EVENTS).unwrap(),
            _ => story.now() + TimeDelta::milliseconds(story.below(50) as i64),
        };
        story.run(until, deaths);
    }
    // The end is quiet, but for the receivers.
    story.run(began + TimeDelta::days(5), deaths);
    story.calm();
    for receiver in hold(&story.town.receivers).values_mut() {
        receiver.quiet.clear();
    }
    story.run(began + COMING + LIFE + LIFE, 0);
    story.check(&MODES)
}

fn tell_all(log: Log, what: &str, stories: u64, chances: Chances, deaths: u64) -> Counts {
    let first = number("CROSSDOCK_SEED", 1);
    let (mut all, mut wrong) = (Counts::default(), Vec::new());
    on_all_cores(
        first..first + stories,
        |seed| tell(seed, log, chances, deaths),
        |told| {
            match told {
                Some((_, Ok(one))) => {
                    all.deliveries += one.deliveries;
                    all.taken += one.taken;
                    all.doubled += one.doubled;
                    all.attempts += one.attempts;
                    all.deaths += one.deaths;
                }
                Some((seed, Err(reason))) => wrong.push(format!("seed {seed}: {reason}")),
                None => {}
            }
            wrong.len() < 3
        },
    );
    assert!(wrong.is_empty(), "{log:?}, {what}:\n{}", wrong.join("\n"));
    let share = all.doubled as f64 / all.taken as f64 * 100.0;
    println!(
        "log {log:?}, {what}: {} deliveries, 0 lost, {} doubled ({share:.4} %), {} attempts, {} functions died",
        all.deliveries, all.doubled, all.attempts, all.deaths
    );
    all
}

#[test]
fn every_event_arrives_or_ends_visibly() {
    let all = number("CROSSDOCK_RUNS", STORIES);
    let rough = Chances {
        store: 10,
        net: 0,
        bus: 10,
    };
    for (log, stories) in [(Log::Full, all), (Log::Failures, all.div_ceil(2))] {
        let healthy = all.div_ceil(3);
        let healthy = tell_all(log, "healthy", healthy, Chances::default(), 0);
        assert_eq!(healthy.doubled, 0, "nothing doubles by itself");
        tell_all(log, "killed, throttled, doubled", stories, rough, 3);
    }
}

/// A crash at every step of one delivery that fails twice and then arrives.
#[test]
fn a_death_at_any_step_loses_nothing() {
    for (seed, log) in [(7, Log::Full), (7, Log::Failures), (8, Log::Failures)] {
        dies_at_any_step(seed, log);
    }
}

fn dies_at_any_step(seed: u64, log: Log) {
    let modes = [Mode::Flaky(2), Mode::Down(0, 1)];
    for dies_at in 0.. {
        let mut story = Story::with_log(seed, &modes, log);
        story.happen();
        let until = story.now() + TimeDelta::days(1);
        let (mut polls, mut died) = (0, false);
        while story.turn(until, 0) {
            polls += 1;
            if polls == dies_at
                && let Some(dead) = story.tasks.pop()
            {
                died = true;
                story.processes[dead.process] = story.town.process();
                story.back(dead.lane, dead.bodies);
            }
        }
        story
            .check(&modes)
            .unwrap_or_else(|wrong| panic!("{log:?}, death at step {dies_at}: {wrong}"));
        if !died && dies_at > polls {
            assert!(dies_at > 30, "there is nothing to die at");
            return;
        }
    }
}

/// Whoever reads the feed instead of being called: how far he is, and what he has.
#[derive(Default)]
struct Reader {
    cursor: Option<String>,
    read: Vec<String>,
}

impl Reader {
    /// Asks once; a call that fails is made again some time.
    fn read(&mut self, story: &Story, endpoint: &EndpointId, limit: usize) {
        let loaded = alone(endpoint::load(&story.ctx, &merchant(), endpoint));
        let Ok((_, endpoint)) = loaded else { return };
        let page = alone(feed::read(
            &story.ctx,
            &endpoint,
            self.cursor.as_deref(),
            limit,
        ));
        let Ok(page) = page else { return };
        let ids = page
            .events
            .iter()
            .map(|event| event["id"].as_str().unwrap());
        self.read.extend(ids.map(str::to_owned));
        self.cursor = Some(page.next);
    }
}

/// Two endpoints, one that is down all the time and one that fails now and then, are read as well. Fan-out
/// brings some events hours late, functions die, and calls of the reader fail in the middle.
fn read_along(seed: u64, chances: Chances, deaths: u64) -> Result<Counts, String> {
    let modes = [Mode::Down(0, 1000), Mode::Flaky(3)];
    let mut story = Story::new(seed, &modes);
    let mut readers = [Reader::default(), Reader::default()];
    let began = story.now();
    for number in 0..EVENTS {
        story.calm();
        story.happen();
        if story.below(4) == 0 {
            let late = TimeDelta::minutes(story.below(180) as i64);
            let mut waiting = hold(&story.town.waiting);
            let last = waiting.iter_mut().rfind(|one| one.lane == FANOUT);
            last.unwrap().visible_at += late;
        }
        story.town.world.state().chances = chances;
        // Some come together, so that a reader meets what is only just being made.
        let share = i32::try_from(number / 4).unwrap() + 1;
        let until = began + COMING * share / i32::try_from(EVENTS / 4).unwrap();
        for _ in 0..story.below(60) {
            if !story.turn(until, deaths) {
                break;
            }
            let limit = 1 + story.below(4);
            let which = story.below(6);
            if let Some(reader) = readers.get_mut(which) {
                reader.read(&story, &story.endpoints[which].clone(), limit);
            }
        }
        if number % 4 == 3 {
            story.run(until, deaths);
        }
    }
    story.run(began + TimeDelta::days(3), deaths);
    story.calm();
    let mut counts = Counts::default();
    for (number, reader) in readers.iter_mut().enumerate() {
        let endpoint = story.endpoints[number].clone();
        let mut quiet = 0;
        while quiet < 2 {
            let had = reader.read.len();
            reader.read(&story, &endpoint, 3);
            quiet = if reader.read.len() == had {
                quiet + 1
            } else {
                0
            };
        }
        let all: BTreeSet<&str> = story
            .notices
            .iter()
            .map(|one| one.event_id.as_str())
            .collect();
        let once: BTreeSet<&str> = reader.read.iter().map(String::as_str).collect();
        if once != all || once.len() != reader.read.len() {
            let (read, all) = (&reader.read, all.len());
            return Err(format!(
                "endpoint {number} read {} of {all}: {read:?}",
                once.len()
            ));
        }
        for notice in &story.notices {
            let delivery = story.delivery(&endpoint, notice).unwrap();
            if delivery.state != DeliveryState::Delivered {
                return Err(format!("was read and is not taken: {delivery:?}"));
            }
            counts.taken += usize::from(delivery.taken);
            counts.deliveries += 1;
        }
    }
    Ok(counts)
}

#[test]
fn the_feed_hands_out_everything_once_and_takes_it() {
    let stories = number("CROSSDOCK_RUNS", STORIES);
    let rough = Chances {
        store: 10,
        net: 0,
        bus: 10,
    };
    let (mut all, mut taken) = (0, 0);
    for seed in 1..=stories {
        let (chances, deaths) = match seed % 3 {
            0 => (Chances::default(), 0),
            _ => (rough, 3),
        };
        let counts = read_along(seed, chances, deaths)
            .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        all += counts.deliveries;
        taken += counts.taken;
    }
    assert!(taken * 2 > all, "most of it is taken by reading");
    println!("feed: {all} deliveries, each read once; {taken} of them were not called out");
}

/// A delivery without order is no more than its message until it was tried. Whoever has the message dies,
/// and in the end it goes to where dead letters go: by then the delivery stands in the log, and the schedule
/// has it tried.
#[test]
fn what_dies_again_and_again_is_found_by_the_schedule() {
    let mut story = Story::new(3, &[Mode::Well]);
    let id = story.endpoints[0].clone();
    story.calm();
    story.happen();
    let notice = story.notices[0].clone();
    fan_out(&story.ctx, &notice);
    assert_eq!(story.delivery(&id, &notice), None, "there is its message");
    assert_eq!(hold(&story.town.waiting).len(), 2);
    hold(&story.town.waiting).clear();
    let dies = |again| {
        let arrival = Arrival {
            notice: DeliveryNotice::new(&notice, id.clone()),
            again,
        };
        let arrivals = [arrival];
        let mut future = deliver::deliver(&story.ctx, &arrivals).boxed();
        for _ in 0..20 {
            let polled = future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()));
            if story.delivery(&id, &notice).is_some() {
                assert!(polled.is_pending());
                return true;
            }
            if hold(&story.town.receivers)[&host(0)].seen > 0 {
                panic!("it was tried before it was written down");
            }
            if !again {
                return false;
            }
        }
        panic!("it is not written down")
    };
    assert!(!dies(false));
    assert!(dies(true));
    let state = |story: &Story| story.delivery(&id, &notice).unwrap().state;
    assert_eq!(state(&story), DeliveryState::Pending, "everybody sees it");
    story.run(story.now() + TimeDelta::minutes(5), 0);
    assert_eq!(state(&story), DeliveryState::Delivered);
    // What comes of the message after all finds that there is nothing to do.
    deliver(&story.ctx, &id, &notice);
    assert_eq!(hold(&story.town.receivers)[&host(0)].seen, 1);
}

/// Where the log holds failures alone, what arrives at once leaves a sample, and the rest is as ever.
#[test]
fn a_log_of_failures_holds_what_did_not_arrive_at_once() {
    let modes = [Mode::Flaky(4)];
    let mut story = Story::with_log(3, &modes, Log::Failures);
    let id = story.endpoints[0].clone();
    let wish = |log, ordering| Wish {
        log,
        ordering,
        ..Wish::default()
    };
    let change = |story: &Story, wish| alone(endpoint::update(&story.ctx, &merchant(), &id, wish));
    story.calm();
    for _ in 0..800 {
        story.happen();
    }
    // Less than the day of which `stats` tells.
    story.run(story.now() + TimeDelta::hours(20), 0);
    let counts = story.check(&modes).unwrap();
    assert_eq!((counts.taken, counts.doubled), (800, 0));
    let (sampled, others): (Vec<Delivery>, Vec<Delivery>) = story
        .notices
        .iter()
        .filter_map(|notice| story.delivery(&id, notice))
        .partition(|delivery| delivery.stands_for.is_some());
    assert!((1..=20).contains(&sampled.len()), "{}", sampled.len());
    assert!(sampled.iter().all(|one| one.attempts_total == 1));
    assert!(others.len() >= 100, "{}", others.len());
    assert!(
        others.iter().all(|one| one.step > 1),
        "none arrived at once"
    );
    let (_, endpoint) = alone(endpoint::load(&story.ctx, &merchant(), &id)).unwrap();
    let stats = alone(stats::count(&story.ctx, &endpoint)).unwrap();
    let estimate = sampled.len() * 100 + others.len();
    assert_eq!((stats.estimated, stats.deliveries), (true, estimate as u64));
    // Some were put off while the endpoint rested, and arrived at the first attempt that was made.
    let rested = others.iter().filter(|one| one.attempts_total == 1).count();
    let at_first = sampled.len() * 100 + rested;
    assert_eq!(stats.delivered_at_first, at_first as u64);
    // What needs a whole log is refused.
    let refused = alone(feed::read(&story.ctx, &endpoint, None, 10)).unwrap_err();
    assert_eq!(refused.code(), Code::Conflict);
    let refused = change(&story, wish(None, Some(Ordering::ByKey))).unwrap_err();
    assert_eq!(refused.code(), Code::ValidationFailed);
    let ordered = wish(Some(Log::Full), Some(Ordering::ByKey));
    change(&story, ordered).unwrap();
    let refused = change(&story, wish(Some(Log::Failures), None)).unwrap_err();
    assert_eq!(refused.code(), Code::ValidationFailed);
    change(&story, wish(None, Some(Ordering::None))).unwrap();
    story.town.world.advance(Duration::from_secs(5));
    story.happen();
    story.run(story.now() + TimeDelta::hours(1), 0);
    let last = story.notices.last().unwrap();
    assert!(story.delivery(&id, last).is_some(), "a whole log again");
    // A feed begins where it is, and no reader goes over what is not there.
    let endpoint = |story: &Story| {
        alone(endpoint::load(&story.ctx, &merchant(), &id))
            .unwrap()
            .1
    };
    let page = alone(feed::read(&story.ctx, &endpoint(&story), None, 100)).unwrap();
    let handed: Vec<&str> = page
        .events
        .iter()
        .filter_map(|one| one["id"].as_str())
        .collect();
    assert_eq!(handed, [last.event_id.as_str()]);
    change(&story, wish(Some(Log::Failures), None)).unwrap();
    change(&story, wish(Some(Log::Full), None)).unwrap();
    let now = endpoint(&story);
    let old = alone(feed::read(&story.ctx, &now, Some(&page.next), 100));
    assert_eq!(old.unwrap_err().code(), Code::Conflict);
}

/// With the switch off nothing is made, and what was pending ends without a call.
#[test]
fn what_is_switched_off_sends_nothing() {
    let mut story = Story::new(4, &[Mode::Well, Mode::Well]);
    story.calm();
    story.happen();
    let before = story.notices[0].clone();
    fan_out(&story.ctx, &before);
    let off = story.town.process_with("false");
    story.happen();
    let meanwhile = story.notices[1].clone();
    fan_out(&off, &meanwhile);
    for endpoint in &story.endpoints {
        assert_eq!(story.delivery(endpoint, &meanwhile), None);
        deliver(&off, endpoint, &before);
        let state = story.delivery(endpoint, &before).unwrap().state;
        assert_eq!(state, DeliveryState::Stopped);
    }
    let seen: usize = hold(&story.town.receivers)
        .values()
        .map(|one| one.seen)
        .sum();
    assert_eq!(seen, 0);
}

/// Many events of one key at once, at endpoints that have order: each goes out once, and one that fails comes
/// to its turn no later for those that wait behind it.
#[test]
fn a_burst_on_one_key_doubles_nothing() {
    for seed in 0..40 {
        // Every endpoint whose number is as even as the seed has order.
        let modes = [Mode::Well, Mode::Well, Mode::Flaky(3), Mode::Flaky(3)];
        let mut story = Story::new(seed, &modes);
        story.calm();
        for _ in 0..12 {
            story.happen();
        }
        let soon = story.now() + TimeDelta::hours(2);
        story.run(soon, 0);
        let counts = story
            .check(&modes)
            .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        assert_eq!((counts.doubled, counts.taken), (0, 48), "seed {seed}");
        for endpoint in &story.endpoints {
            for notice in &story.notices {
                let delivery = story.delivery(endpoint, notice).unwrap();
                // One that fails now and then is tried again after seconds, and after half a minute.
                assert!(delivery.step <= 4, "seed {seed}: {delivery:?}");
            }
        }
    }
}

/// The first of a line is read from the feed, and nobody is told of the one behind it, since the queue takes
/// nothing just then and the reader does not ask again. Its turn has come all the same.
#[test]
fn whose_turn_it_is_is_found_although_nobody_told() {
    let mut story = Story::new(2, &[Mode::Well]);
    let id = story.endpoints[0].clone();
    story.calm();
    let mut key = None;
    while key.as_ref().is_none_or(|key| story.latest[key].0 < 2) {
        story.town.world.advance(Duration::from_secs(1));
        story.happen();
        let notice = story.notices.last().unwrap();
        fan_out(&story.ctx, notice);
        key.get_or_insert_with(|| story.latest.keys().next().unwrap().clone());
    }
    hold(&story.town.waiting).clear();
    let behind = story.notices.last().unwrap().clone();
    let due = story.delivery(&id, &behind).unwrap().next_attempt_at;
    assert_eq!(due, None, "it waits");
    let mut reader = Reader::default();
    reader.read(&story, &id, 1);
    story.town.world.state().chances.bus = 1000;
    reader.read(&story, &id, 1);
    story.calm();
    let first = story.delivery(&id, &story.notices[0]).unwrap();
    assert_eq!((first.taken, reader.read.len()), (true, 1));
    story.run(story.now() + TimeDelta::hours(1), 0);
    let state = story.delivery(&id, &behind).unwrap().state;
    assert_eq!(state, DeliveryState::Delivered);
}

/// What a warm function remembers of an endpoint: for five seconds, that it is on and well, and how it is
/// reached. So an attempt reads the delivery and the event alone.
#[test]
fn what_is_remembered_of_an_endpoint_is_young_and_good() {
    let mut story = Story::new(3, &[Mode::Well]);
    let warm = story.town.process();
    let id = story.endpoints[0].clone();
    story.calm();
    let mut notices = Vec::new();
    for _ in 0..19 {
        story.happen();
        let notice = story.notices.last().unwrap();
        fan_out(&story.ctx, notice);
        notices.push(notice.clone());
    }
    let mut notices = notices.into_iter();
    let mut deliver = || {
        let notice = notices.next().unwrap();
        let before = story.town.world.state().store_calls;
        deliver(&warm, &id, &notice);
        let calls = story.town.world.state().store_calls - before;
        (story.delivery(&id, &notice).unwrap().state, calls)
    };
    let later = || story.town.world.advance(Duration::from_secs(5));
    let seen = || hold(&story.town.receivers)[&host(0)].seen;
    for _ in 0..2 {
        // One read of deliveries, one of events, or two where one seems to be missing, and one write.
        let (state, calls) = deliver();
        assert_eq!(state, DeliveryState::Delivered);
        assert!((3..=4).contains(&calls), "{calls}");
    }
    alone(endpoint::disable(&story.ctx, &merchant(), &id)).unwrap();
    assert_eq!(deliver().0, DeliveryState::Delivered, "not heard of yet");
    later();
    assert_eq!(deliver().0, DeliveryState::Stopped);
    alone(endpoint::enable(&story.ctx, &merchant(), &id)).unwrap();
    assert_eq!(
        deliver().0,
        DeliveryState::Delivered,
        "off is not remembered"
    );
    let merchant = merchant();
    let rotated = endpoint::rotate_secret(&story.ctx, &merchant, &id, None, 0);
    let (rotated, secret) = alone(rotated).unwrap();
    later();
    if let Some(receiver) = hold(&story.town.receivers).get_mut(&host(0)) {
        receiver.secret = secret;
        receiver.public_key = public_key(&story.ctx, &rotated);
    }
    assert_eq!(deliver().0, DeliveryState::Delivered, "signed anew");
    let answers = |mode| {
        let mut receivers = hold(&story.town.receivers);
        receivers.get_mut(&host(0)).unwrap().mode = mode;
    };
    answers(Mode::Dead);
    for _ in 0..4 {
        assert_eq!(deliver().0, DeliveryState::Pending);
    }
    answers(Mode::Well);
    assert_eq!(deliver().0, DeliveryState::Delivered, "and ends the row");
    answers(Mode::Dead);
    let tried = seen() + 5;
    for _ in 0..5 {
        assert_eq!(deliver().0, DeliveryState::Pending);
    }
    assert_eq!(deliver().0, DeliveryState::Pending);
    assert_eq!(seen(), tried, "five in a row, and it rests");
    answers(Mode::Well);
    story.town.world.advance(Duration::from_secs(30));
    assert_eq!(deliver().0, DeliveryState::Delivered, "it is tried by one");
    assert_eq!(deliver().0, DeliveryState::Delivered, "and is well");
}
