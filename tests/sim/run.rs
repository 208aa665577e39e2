//! One run: a connected merchant, workers that take turns, and the books at the end.

use crate::shop::{GIFT_CARDS, MERCHANT, PAYOUTS, Shop, Sum, TIPS};
use crate::world::{
    Chances, Dice, Message, PLATFORM_KEY, PUBLIC_URL, PULL_QUEUE, RECONCILE_QUEUE, RETURN_URL,
    Stand, World, start,
};
use axum::http;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::api::auth::Merchant;
use crossdock::api::{self, events};
use crossdock::ctx::Ctx;
use crossdock::engine::again::{self, Wanted};
use crossdock::engine::pull::{self, PullNotice};
use crossdock::engine::reconcile::ReconcileNotice;
use crossdock::engine::{outbox, push, reconcile, resync};
use crossdock::error::Code;
use crossdock::model::event::RecordKind;
use crossdock::model::ids::{ConnectionId, MerchantId};
use crossdock::model::notice::{Notice, RecordRef};
use crossdock::oauth::connection::{self, Posting, Status};
use crossdock::oauth::{connect, manage, tenant};
use crossdock::providers::provider;
use crossdock::store::{Condition, Group, Item, Store, Table, Write, keys, list_all};
use crossdock::sync::push::{Form, Open, RowKind};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use url::Url;

#[path = "judge.rs"]
mod judge;

/// The organisation at Xero: the stand-in's first.
const TENANT: &str = "5a1e0000-0000-4000-8000-000000000001";
/// Most polls until the faults stop, and until all must be done after that.
const TROUBLED_POLLS_MAX: usize = 6_000;
const QUIET_POLLS_MAX: usize = 200_000;
const WORKERS_MAX: usize = 6;
/// Rounds of pushing a backlog, each after a minute in which the provider takes more calls.
const CARRY_ROUNDS_MAX: usize = 20;
/// Processes of which the clocks are wrong, each by itself.
const PROCESSES: usize = 3;
/// How often a merchant has what is parked sent again until it is all there.
const RETRIES_MAX: usize = 5;
/// How long a function may run: its time-out in the template.
const FUNCTION_LIFE: TimeDelta = TimeDelta::minutes(2);
/// After how long a message that failed comes again.
const VISIBILITY: TimeDelta = TimeDelta::seconds(30);

/// Runs `future` alone to its end.
pub fn alone<T>(future: impl Future<Output = T>) -> T {
    let mut future = Box::pin(future);
    loop {
        if let Poll::Ready(value) = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            return value;
        }
    }
}

pub fn merchant() -> MerchantId {
    MERCHANT.parse().unwrap()
}

/// Registers the merchant and connects it, as its browser would.
pub async fn set_up(world: &World, ctx: &Ctx) -> ConnectionId {
    register(world, ctx).await;
    connect(world, ctx).await
}

/// Connects the merchant, also when it was connected before.
async fn connect(world: &World, ctx: &Ctx) -> ConnectionId {
    let link = link(world, ctx).await;
    let callback = consent(world, ctx, &link).await;
    let cookies = cookies(&callback);
    let (id, confirmation) = finish(ctx, callback).await.unwrap();
    let url = confirm(ctx, &id, &confirmation).await.unwrap();
    prove(ctx, &url, &cookies).await.unwrap();
    id
}

/// Registers another merchant and connects it to another company.
pub async fn set_up_as(
    world: &World,
    ctx: &Ctx,
    merchant: &MerchantId,
    realm: &str,
) -> ConnectionId {
    register_as(world, ctx, merchant).await;
    let link = link_of(world, ctx, merchant).await;
    let callback = consent_to(world, ctx, &link, realm).await;
    let cookies = cookies(&callback);
    let (id, confirmation) = finish(ctx, callback).await.unwrap();
    let confirmed = connect::confirm(ctx, merchant, &id, &confirmation).await;
    let url = confirmed.unwrap().continue_url.expect("it is not live yet");
    prove(ctx, &url, &cookies).await.unwrap();
    id
}

/// What the browser that brings `callback` holds.
pub fn cookies(callback: &connect::Callback) -> BTreeMap<String, String> {
    let name = connect::cookie_name(PUBLIC_URL, &callback.parameters["state"]);
    BTreeMap::from([(name, callback.cookie.clone().unwrap())])
}

/// Where the backend sends its user after it has confirmed what that user brought.
pub async fn confirm(
    ctx: &Ctx,
    id: &ConnectionId,
    confirmation: &str,
) -> crossdock::error::Result<Url> {
    let confirmed = connect::confirm(ctx, &merchant(), id, confirmation).await?;
    Ok(confirmed.continue_url.expect("it is not live yet"))
}

/// The browser follows.
pub async fn prove(
    ctx: &Ctx,
    url: &Url,
    cookies: &BTreeMap<String, String>,
) -> crossdock::error::Result<Url> {
    let secret = url.path().rsplit('/').next().unwrap();
    let proved = connect::prove(ctx, secret, cookies).await;
    proved.map(|proved| proved.url)
}

/// Registers the merchant with us, and us with the provider.
pub async fn register(world: &World, ctx: &Ctx) {
    register_as(world, ctx, &merchant()).await;
}

pub async fn register_as(world: &World, ctx: &Ctx, merchant: &MerchantId) {
    let document = Merchant {
        id: merchant.clone(),
        name: "Demo".to_owned(),
        currency: "USD".parse().unwrap(),
        created_at: ctx.now(),
    };
    let write = Write::put(keys::merchant(merchant), Condition::Any, &document).unwrap();
    world.memory.write(write).await.unwrap();
    let redirect = crossdock::oauth::redirect_uri(PUBLIC_URL, world.vendor.name());
    let client = json!({
        "client_id": local::standins::quickbooks::DEFAULT_CLIENT_ID,
        "client_secret": local::standins::quickbooks::DEFAULT_CLIENT_SECRET,
        "redirect_uris": [redirect],
    });
    world.control("POST", "clients", &client.to_string()).await;
    if let Stand::Xero(_) = world.vendor {
        // Where sales are taxed as the shop's are.
        let organisation = json!({
            "tenant": TENANT, "country": "US", "base_currency": "USD",
            "currencies": ["EUR", "GBP", "JPY"],
        });
        let body = organisation.to_string();
        world.control("POST", "organisations", &body).await;
    }
}

/// The secret of a new connect link.
pub async fn link(world: &World, ctx: &Ctx) -> String {
    link_of(world, ctx, &merchant()).await
}

async fn link_of(world: &World, ctx: &Ctx, merchant: &MerchantId) -> String {
    let back = RETURN_URL.to_owned();
    let manifest = provider(world.vendor.name()).unwrap().manifest();
    let link = connect::create_link(ctx, merchant, manifest, back, None)
        .await
        .unwrap();
    link.url.rsplit('/').next().unwrap().to_owned()
}

/// What a browser that opens the link and consents brings back.
pub async fn consent(world: &World, ctx: &Ctx, link: &str) -> connect::Callback {
    consent_to(world, ctx, link, local::standins::quickbooks::DEFAULT_REALM).await
}

async fn consent_to(world: &World, ctx: &Ctx, link: &str, realm: &str) -> connect::Callback {
    let started = connect::start(ctx, link).await.unwrap();
    let connect::Next::Consent(consent) = started.next else {
        panic!("it has a consent page");
    };
    connect::Callback {
        provider: world.vendor.name().to_owned(),
        tenant: tenant(PUBLIC_URL),
        cookie: Some(started.cookie),
        parameters: approved(world, &consent, realm).await,
        posted: false,
    }
}

/// What the provider sends a person back with who approves on the page at `consent`.
pub async fn approved(world: &World, consent: &Url, realm: &str) -> BTreeMap<String, String> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(consent.query_pairs());
    form.append_pair("realm_id", realm);
    form.append_pair("decision", "approve");
    let decision = http::Request::builder()
        .method("POST")
        .uri(format!("{}/decision", consent.path()))
        .body(form.finish().into_bytes())
        .unwrap();
    let answer = world.vendor.handle(decision).await.unwrap();
    let location = answer.headers()["location"].to_str().unwrap();
    let target: Url = location.parse().unwrap();
    target.query_pairs().into_owned().collect()
}

/// The pending connection and its confirmation.
pub async fn finish(
    ctx: &Ctx,
    callback: connect::Callback,
) -> crossdock::error::Result<(ConnectionId, String)> {
    let back = connect::finish(ctx, callback).await.outcome?;
    let query: BTreeMap<String, String> = back.query_pairs().into_owned().collect();
    let id: ConnectionId = query["connection_id"].parse().unwrap();
    Ok((id, query["confirmation"].clone()))
}

/// Sends events as the shop does, and returns those that have to be sent again.
async fn accept(ctx: Arc<Ctx>, world: World, events: Vec<(usize, Value)>) -> Vec<usize> {
    let single = events.len() == 1;
    let bodies: Vec<Value> = events.iter().map(|(_, event)| event.clone()).collect();
    let body = if single {
        bodies[0].clone()
    } else {
        json!({ "events": bodies })
    };
    let request = api::Request {
        method: "POST".to_owned(),
        path: "/api/v1/events".to_owned(),
        bearer: Some(PLATFORM_KEY.into()),
        body: body.to_string().into_bytes(),
        ..api::Request::default()
    };
    let all = || events.iter().map(|(index, _)| *index).collect();
    match events::handle(&ctx, &request).await {
        Ok(response) if single => {
            assert_eq!(response.status, 202);
            Vec::new()
        }
        Ok(response) => {
            let answer: Value = serde_json::from_str(&response.body).unwrap();
            let outcomes = answer["data"].as_array().unwrap().iter().zip(&events);
            let refused = outcomes.filter(|(outcome, _)| outcome["status"] != "accepted");
            refused.map(|(_, (index, _))| *index).collect()
        }
        Err(error) => {
            world.note(|| format!("not accepted: {}", error.chain()));
            // A refund that overtook its order or its payment is the one refusal that such events
            // can meet.
            let early = error.code() == Code::ValidationFailed
                && error
                    .fields()
                    .iter()
                    .all(|field| matches!(field.code, "refund_exceeds_payment" | "order_unknown"));
            assert!(error.code().retryable() || early, "{}", error.chain());
            all()
        }
    }
}

/// Pushes notices and returns those that go back to the queue.
async fn push_batch(ctx: Arc<Ctx>, world: World, notices: Vec<Notice>) -> Vec<Notice> {
    let results = push::push(&ctx, world.vendor.name(), &notices).await;
    let mut again = Vec::new();
    for (notice, result) in notices.into_iter().zip(results) {
        if let Err(error) = result {
            world.note(|| format!("push of {} failed: {}", notice.event_id, error.chain()));
            again.push(notice);
        }
    }
    again
}

/// Everything of a group, which may be more than one page.
fn whole(world: &World, group: &Group) -> Vec<Item> {
    let all = list_all(&*world.memory, group, usize::MAX);
    all.now_or_never().unwrap().unwrap()
}

pub fn outbox_rows(world: &World) -> Vec<Notice> {
    let page = world
        .memory
        .scan(Table::Outbox, None, usize::MAX)
        .now_or_never()
        .unwrap()
        .unwrap();
    page.items.iter().map(|item| item.read().unwrap()).collect()
}

pub enum Job {
    Accept(Vec<usize>),
    Relay,
    /// Somebody asks for everything to be read again.
    Resync,
    Push(Vec<Notice>),
    /// What changed over there is read.
    Pull(PullNotice),
    /// What is done once every day.
    Plan,
}

enum Done {
    Accepted(Vec<usize>),
    Relayed,
    Asked,
    Pushed(Vec<Notice>),
    /// Whether it has to come again.
    Pulled(bool),
    Planned(bool),
}

struct Task {
    id: usize,
    job: Job,
    future: BoxFuture<'static, Done>,
    started_at: DateTime<Utc>,
}

/// What the merchant's books are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    /// QuickBooks, with a receipt for each order.
    Receipts,
    /// QuickBooks, with an invoice for each order and a payment for each that came in.
    Invoices,
    Xero,
}

pub struct Run {
    pub world: World,
    pub ctx: Arc<Ctx>,
    /// The processes that work, with what their clocks are off by in milliseconds. None where `ctx` does
    /// it all.
    processes: Vec<(Arc<Ctx>, Arc<AtomicI64>)>,
    connection: ConnectionId,
    books: Books,
    /// How what is sold is posted.
    sold: Posting,
    shop: Shop,
    /// Events that are still to be sent.
    pub unsent: Vec<usize>,
    /// Whether it is not looked after each step what points to the rows of the ledger: there are some from
    /// before anything did, or too many.
    pub rows_unchecked: bool,
    /// How often what is done every day is still to be done.
    plans: usize,
    /// How much goes wrong while it does.
    chances: Chances,
    accepted: BTreeSet<String>,
    tasks: Vec<Task>,
    started: usize,
}

/// A company in QuickBooks with accounts for what a shop owes and for what processors keep, of which it
/// has none on its first day, and with one account that payouts reach.
pub fn indebted(realm: &str) -> String {
    let [tips, cards] = [TIPS, GIFT_CARDS]
        .map(|name| json!({ "Name": name, "AccountType": "Other Current Liability" }));
    let accounts = [
        tips,
        cards,
        json!({ "Name": PAYOUTS[2].1, "AccountType": "Expense" }),
        json!({ "Name": "Savings", "AccountType": "Bank", "Active": false }),
    ];
    json!({ "realm": realm, "accounts": accounts }).to_string()
}

/// Accounts for what a shop owes, and for its payouts.
async fn add_accounts(world: &World, books: Books) {
    match books {
        Books::Xero => {
            let owed = |code: &str, name: &str, pays: bool| {
                json!({
                    "Code": code, "Name": name, "Type": "CURRLIAB", "EnablePaymentsToAccount": pays,
                })
            };
            let accounts = [
                owed("850", TIPS, false),
                owed("851", GIFT_CARDS, true),
                json!({
                    "Code": "095", "Name": PAYOUTS[1].2, "Type": "BANK",
                    "BankAccountNumber": "121-12-1234568",
                }),
            ];
            for account in accounts {
                let body = account.to_string();
                world.control("POST", "entities/Accounts", &body).await;
            }
        }
        _ => {
            world
                .control(
                    "POST",
                    "realms",
                    &indebted(local::standins::quickbooks::DEFAULT_REALM),
                )
                .await;
        }
    }
}

/// The messages by which the schedule lets the books of a connection have what is done every day.
fn begun(world: &World) -> Vec<String> {
    let state = world.state();
    let sent = state.sent.iter();
    let ours = sent.filter(|(url, body)| url == RECONCILE_QUEUE && body.contains("planned_on"));
    ours.map(|(_, body)| body.clone()).collect()
}

impl Run {
    pub fn new(seed: u64, shop: impl FnOnce(&mut Dice) -> Shop) -> Run {
        Run::of(seed, Books::Receipts, shop)
    }

    pub fn of(seed: u64, books: Books, shop: impl FnOnce(&mut Dice) -> Shop) -> Run {
        let world = match books {
            Books::Receipts | Books::Invoices => World::new(seed),
            Books::Xero => World::with_xero(seed),
        };
        let ctx = Arc::new(world.ctx());
        let connection = alone(set_up(&world, &ctx));
        alone(add_accounts(&world, books));
        if books == Books::Invoices {
            let settings = connection::Settings {
                orders_as: Some(Form::Invoice),
                ..connection::Settings::default()
            };
            alone(manage::set(&ctx, &merchant(), &connection, settings)).unwrap();
        }
        let shop = shop(&mut world.state().dice);
        Run {
            unsent: (0..shop.events.len()).collect(),
            rows_unchecked: false,
            plans: 0,
            chances: Chances::default(),
            world,
            ctx,
            processes: Vec::new(),
            connection,
            books,
            sold: Posting::Each,
            shop,
            accepted: BTreeSet::new(),
            tasks: Vec::new(),
            started: 0,
        }
    }

    /// A merchant with books in QuickBooks in another country than the United States, who has sold
    /// nothing yet. `company` is what the stand-in is told of it.
    pub fn abroad(seed: u64, mut company: Value) -> Run {
        let mut run = Run::of(seed, Books::Receipts, |_| Shop::default());
        let world = World::new(seed);
        company["realm"] = json!("44");
        let owed: Value = serde_json::from_str(&indebted("44")).unwrap();
        company["accounts"] = owed["accounts"].clone();
        alone(world.control("POST", "realms", &company.to_string()));
        run.ctx = Arc::new(world.ctx());
        run.connection = alone(set_up_as(&world, &run.ctx, &merchant(), "44"));
        run.world = world;
        run
    }

    /// From here on the work is that of several processes whose clocks are wrong.
    pub fn employ(&mut self) {
        let process = || {
            let off = Arc::default();
            (Arc::new(self.world.process(Arc::clone(&off))), off)
        };
        self.processes = (0..PROCESSES).map(|_| process()).collect();
        (0..PROCESSES).for_each(|index| self.set_clock(index));
    }

    /// The clock of a process jumps. What Xero remembers is counted in minutes, with one for clocks that
    /// differ; nothing else hangs on them.
    fn set_clock(&self, process: usize) {
        let most = match self.books {
            Books::Xero => 25_000,
            Books::Receipts | Books::Invoices => 600_000,
        };
        let off = self.below(2 * most) as i64 - most as i64;
        let (_, clock) = &self.processes[process];
        clock.store(off, Ordering::Relaxed);
        self.world
            .note(|| format!("the clock of process {process} is off by {off} ms"));
    }

    pub fn below(&self, end: usize) -> usize {
        self.world.state().dice.below(end)
    }

    pub fn per_mille(&self, chance: u64) -> bool {
        self.world.state().dice.per_mille(chance)
    }

    pub fn start(&mut self, job: Job) {
        let ctx = match self.processes.len() {
            0 => self.ctx.clone(),
            all => self.processes[self.below(all)].0.clone(),
        };
        let world = self.world.clone();
        self.started += 1;
        let id = self.started;
        let future: BoxFuture<'static, Done> = match &job {
            Job::Accept(indexes) => {
                let events: Vec<(usize, Value)> = indexes
                    .iter()
                    .map(|index| (*index, self.shop.events[*index].clone()))
                    .collect();
                world.note(|| {
                    let ids: Vec<_> = events
                        .iter()
                        .map(|(_, event)| event["id"].clone())
                        .collect();
                    format!("#{id} accept {ids:?}")
                });
                async move { Done::Accepted(accept(ctx, world, events).await) }.boxed()
            }
            Job::Relay => {
                let mut rows = outbox_rows(&world);
                let sweep = self.per_mille(300);
                if !sweep && !rows.is_empty() {
                    let keep = 1 + self.below(rows.len().min(5));
                    let first = self.below(rows.len());
                    rows.rotate_left(first);
                    rows.truncate(keep);
                }
                world.note(|| format!("#{id} relay of {} rows (sweep: {sweep})", rows.len()));
                async move {
                    if sweep {
                        let _ = outbox::sweep(&ctx).await;
                    } else {
                        let _ = outbox::publish(&ctx, &rows).await;
                    }
                    Done::Relayed
                }
                .boxed()
            }
            Job::Resync => {
                world.note(|| format!("#{id} asks for a resync"));
                let connection = self.connection.clone();
                async move {
                    if let Ok((_, connection)) =
                        connection::load(&ctx, &merchant(), &connection).await
                    {
                        let _ = resync::start(&ctx, &connection, None, None).await;
                    }
                    Done::Asked
                }
                .boxed()
            }
            Job::Push(notices) => {
                let notices = notices.clone();
                world.note(|| {
                    let ids: Vec<_> = notices.iter().map(|n| n.event_id.as_str()).collect();
                    format!("#{id} push {ids:?}")
                });
                async move { Done::Pushed(push_batch(ctx, world, notices).await) }.boxed()
            }
            Job::Pull(notice) => {
                let notice = notice.clone();
                world.note(|| format!("#{id} pull"));
                async move {
                    let read = pull::run(&ctx, &notice).await;
                    if let Err(error) = &read {
                        world.note(|| format!("pull failed: {}", error.chain()));
                    }
                    Done::Pulled(read.is_err())
                }
                .boxed()
            }
            Job::Plan => {
                world.note(|| format!("#{id} does what is done every day"));
                async move {
                    let planned = reconcile::plan(&ctx).await;
                    if let Err(error) = &planned {
                        world.note(|| format!("not planned: {}", error.chain()));
                    }
                    let mut again = planned.is_err();
                    // A message for each connection, which stays until it is done.
                    for body in begun(&world) {
                        let notice: ReconcileNotice = serde_json::from_str(&body).unwrap();
                        match reconcile::run(&ctx, &notice).await {
                            Ok(()) => world.state().sent.retain(|(_, one)| *one != body),
                            Err(error) => {
                                world.note(|| format!("not begun: {}", error.chain()));
                                again = true;
                            }
                        }
                    }
                    Done::Planned(again)
                }
                .boxed()
            }
        };
        let started_at = self.world.state().now;
        self.tasks.push(Task {
            id,
            job,
            future,
            started_at,
        });
    }

    fn back_to_queue(&self, notices: Vec<Notice>, delay: TimeDelta) {
        let mut state = self.world.state();
        let visible_at = state.now + delay;
        state.queue.extend(
            notices
                .into_iter()
                .map(|notice| Message { notice, visible_at }),
        );
    }

    /// A process dies: its future is gone, and what it held comes again.
    pub fn crash(&mut self, position: usize) {
        let task = self.tasks.swap_remove(position);
        self.world.note(|| format!("#{} dies", task.id));
        self.check_open().unwrap();
        match task.job {
            Job::Accept(indexes) => self.unsent.extend(indexes),
            Job::Relay | Job::Resync => {}
            Job::Push(notices) => self.back_to_queue(notices, VISIBILITY),
            Job::Pull(notice) => self.pull_later(&notice),
            Job::Plan => self.plans += 1,
        }
    }

    /// Sends a message that somebody reads sooner or later.
    pub fn pull_later(&self, notice: &PullNotice) {
        let body = serde_json::to_string(notice).unwrap();
        self.world.state().sent.push((PULL_QUEUE.to_owned(), body));
    }

    /// One message about changes over there, if there is any.
    fn receive_pull(&self) -> Option<PullNotice> {
        let mut state = self.world.state();
        let ours = |(url, _): &(String, String)| url == PULL_QUEUE;
        let position = state.sent.iter().position(ours)?;
        let (_, body) = state.sent.swap_remove(position);
        Some(serde_json::from_str(&body).unwrap())
    }

    fn finish(&mut self, task: Task, done: Done, troubled: bool) {
        self.check_open().unwrap();
        self.world.note(|| format!("#{} is done", task.id));
        match (task.job, done) {
            (Job::Accept(indexes), Done::Accepted(again)) => {
                for index in indexes {
                    if again.contains(&index) {
                        self.unsent.push(index);
                        continue;
                    }
                    let id = self.shop.events[index]["id"].as_str().unwrap();
                    self.accepted.insert(id.to_owned());
                    if troubled && self.per_mille(150) {
                        self.unsent.push(index);
                    }
                }
            }
            (Job::Push(notices), Done::Pushed(again)) => {
                for notice in notices {
                    if again.contains(&notice) {
                        self.back_to_queue(vec![notice], VISIBILITY);
                    } else if troubled && self.per_mille(80) {
                        // A deletion from the queue that got lost.
                        let delay = TimeDelta::seconds(self.below(60) as i64);
                        self.back_to_queue(vec![notice], delay);
                    }
                }
            }
            (Job::Pull(notice), Done::Pulled(again)) if again || troubled && self.per_mille(80) => {
                self.pull_later(&notice);
            }
            (Job::Plan, Done::Planned(again)) if again || troubled && self.per_mille(80) => {
                self.plans += 1;
            }
            _ => {}
        }
    }

    /// Takes up to ten messages that are visible, in no order.
    fn receive(&self) -> Vec<Notice> {
        let mut state = self.world.state();
        let mut batch = Vec::new();
        let most = 1 + state.dice.below(10);
        while batch.len() < most {
            let now = state.now;
            let visible: Vec<usize> = (0..state.queue.len())
                .filter(|i| state.queue[*i].visible_at <= now)
                .collect();
            if visible.is_empty() {
                break;
            }
            let index = *state.dice.pick(&visible);
            batch.push(state.queue.swap_remove(index).notice);
        }
        batch
    }

    /// Starts one more worker, if there is something to do.
    fn hire(&mut self) {
        // Slowly accepted events meet a provider that holds something already.
        match self.below(20) {
            0 if !self.unsent.is_empty() => {
                let mut indexes = Vec::new();
                self.unsent.sort_unstable();
                for _ in 0..1 + self.below(3).min(self.unsent.len() - 1) {
                    let in_order = self.per_mille(700);
                    let position = if in_order {
                        0
                    } else {
                        self.below(self.unsent.len())
                    };
                    let index = self.unsent.remove(position);
                    if !indexes.contains(&index) {
                        indexes.push(index);
                    }
                }
                self.start(Job::Accept(indexes));
            }
            1..7 if !outbox_rows(&self.world).is_empty() => self.start(Job::Relay),
            7 | 8 => {
                if let Some(notice) = self.receive_pull() {
                    self.start(Job::Pull(notice));
                } else if self.plans > 0 {
                    self.plans -= 1;
                    self.start(Job::Plan);
                }
            }
            9.. => {
                let batch = self.receive();
                if !batch.is_empty() {
                    self.start(Job::Push(batch));
                }
            }
            _ => {}
        }
    }

    fn idle(&self) -> bool {
        let state = self.world.state();
        let pulls = state.sent.iter().any(|(url, _)| url == PULL_QUEUE);
        let done = self.tasks.is_empty() && self.unsent.is_empty() && self.plans == 0;
        done && state.queue.is_empty() && !pulls
    }

    /// One turn of one worker, chosen by chance.
    pub fn turn(&mut self, crashes: u64, troubled: bool) {
        if self.tasks.len() < WORKERS_MAX && (self.tasks.is_empty() || self.per_mille(100)) {
            self.hire();
        }
        if self.per_mille(5) {
            alone(self.world.deliver_late());
        }
        self.age(troubled);
        let pause = if self.tasks.is_empty() || self.per_mille(2) {
            20_000
        } else {
            20
        };
        let pause = self.below(pause) as u64;
        self.world.advance(Duration::from_millis(pause));
        if self.tasks.is_empty() {
            return;
        }
        let position = self.below(self.tasks.len());
        if self.per_mille(crashes) {
            self.crash(position);
            return;
        }
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = self.tasks[position].future.as_mut().poll(&mut context) {
            let task = self.tasks.swap_remove(position);
            self.finish(task, done, troubled);
        }
    }

    /// Ends what has run for longer than a function may, and now and then lets so much time go by that
    /// the provider forgets its answers.
    fn age(&mut self, troubled: bool) {
        let now = self.world.state().now;
        let old = |task: &Task| now - task.started_at > FUNCTION_LIFE;
        while let Some(position) = self.tasks.iter().position(old) {
            self.crash(position);
        }
        if troubled && self.per_mille(4) {
            self.world.note(|| "all stop for a while".to_owned());
            while !self.tasks.is_empty() {
                self.crash(0);
            }
            let seconds = self.below(900) as u64;
            self.world.advance(Duration::from_secs(seconds));
        }
    }

    fn status(&self) -> Status {
        let key = keys::connection(&merchant(), &self.connection);
        let item = self.world.memory.get(&key).now_or_never().unwrap();
        let connection: connection::Connection = item.unwrap().unwrap().read().unwrap();
        connection.status
    }

    /// Does what a merchant does: pauses what is live, resumes what is paused, connects again what the
    /// provider no longer takes, or takes the access back over there. Nothing fails meanwhile, since
    /// people try until it is done; what the workers are in the midst of stays as it is.
    fn meddle(&mut self) {
        let chances = std::mem::take(&mut self.world.state().chances);
        let (id, ctx) = (self.connection.clone(), self.ctx.clone());
        let status = self.status();
        match status {
            Status::Live if self.per_mille(500) => {
                self.world.note(|| "the access is taken back".to_owned());
                alone(self.world.control("POST", "revoke", ""));
            }
            Status::Live => {
                self.world.note(|| "paused".to_owned());
                alone(manage::pause(&ctx, &merchant(), &id)).unwrap();
            }
            _ => self.make_live(status),
        }
        self.world.state().chances = chances;
    }

    /// Makes the connection live again, if it is not.
    fn make_live(&mut self, status: Status) {
        match status {
            Status::Live => {}
            Status::Paused => {
                self.world.note(|| "resumed".to_owned());
                let merchant = merchant();
                alone(manage::resume(&self.ctx, &merchant, &self.connection)).unwrap();
            }
            _ => {
                self.world.note(|| "connected again".to_owned());
                let again = alone(connect(&self.world, &self.ctx));
                assert_eq!(again, self.connection, "it keeps its id");
            }
        }
    }

    /// Sends everything while things go wrong and the merchant meddles, then lets it come to rest.
    pub fn random(&mut self) {
        let (meddling, crashes) = self.trouble();
        self.turn_about(meddling, crashes);
        self.drain();
        self.finish_resync();
        self.retry_parked();
    }

    /// What is sold is posted as `sold`, and what goes back, a day later, as `returned`: on the first day the
    /// merchant says so, since nothing was posted yet.
    pub fn post(&mut self, sold: Posting, returned: Posting) {
        let invoices = (self.books == Books::Invoices).then_some(Form::Invoice);
        let first = self.ctx.now().date_naive();
        // A change counts from tomorrow on, unless another day is named.
        for (posting, from) in [(sold, Some(first)), (returned, None)] {
            let settings = connection::Settings {
                orders_as: invoices,
                posting,
                posting_from: from,
                ..connection::Settings::default()
            };
            let merchant = merchant();
            let set = manage::set(&self.ctx, &merchant, &self.connection, settings);
            alone(set).unwrap();
        }
        self.sold = sold;
        self.shop.sum_up(sold, returned);
    }

    /// The same over three days, with what is done every night. Xero's paid invoices do not change, so there
    /// everything is told before the first night.
    pub fn random_days(&mut self) {
        let (meddling, crashes) = self.trouble();
        let late = match self.books {
            Books::Xero => self.unsent.len(),
            _ => self.below(self.unsent.len() + 1),
        };
        let late = self.unsent.split_off(late);
        self.turn_about(meddling, crashes);
        if self.books == Books::Xero {
            self.drain();
        }
        for (night, unsent) in [(1, late), (2, Vec::new())] {
            let at = start() + TimeDelta::days(night) + TimeDelta::minutes(140);
            let left = at - self.world.state().now;
            self.world.advance(left.to_std().unwrap_or_default());
            self.plans += 1;
            self.unsent.extend(unsent);
            self.world.state().chances = self.chances;
            (0..self.processes.len()).for_each(|index| self.set_clock(index));
            self.turn_about(meddling, crashes);
            // Whoever is called every day is called until it is done.
            self.drain();
        }
        self.finish_resync();
        self.retry_parked();
    }

    /// How much goes wrong in this story: how often the merchant meddles, and workers crash.
    fn trouble(&mut self) -> (u64, u64) {
        // In half of the runs nobody touches the connection.
        let meddling = [0, self.below(20) as u64][self.below(2)];
        let (chances, crashes) = {
            let mut state = self.world.state();
            let dice = &mut state.dice;
            // Where everything fails, little happens; where little fails, one failure has its effect.
            let calm = *dice.pick(&[1, 2, 4, 8]);
            let chances = Chances {
                store: dice.next() % 60 / calm,
                net: dice.next() % 300 / calm,
                bus: dice.next() % 250 / calm,
            };
            state.chances = chances;
            (chances, state.dice.next() % 25 / calm)
        };
        self.chances = chances;
        self.world
            .note(|| format!("{chances:?}, crashes: {crashes}, meddling: {meddling}"));
        (meddling, crashes)
    }

    /// Lets workers work until all is done, or too much of it is not.
    fn turn_about(&mut self, meddling: u64, crashes: u64) {
        for _ in 0..TROUBLED_POLLS_MAX {
            if self.idle() && outbox_rows(&self.world).is_empty() {
                break;
            }
            self.turn(crashes, true);
            if self.per_mille(meddling) {
                self.meddle();
            }
            if self.per_mille(3) {
                self.start(Job::Resync);
            }
            if self.per_mille(3) && !self.processes.is_empty() {
                self.set_clock(self.below(PROCESSES));
            }
        }
    }

    /// The records of which the ledger must have rows once all was accepted.
    pub fn sold(&self) -> Vec<(RowKind, Vec<String>)> {
        let expected = &self.shop.expected;
        let ids = |sums: &BTreeMap<String, Sum>| sums.keys().cloned().collect();
        vec![
            (RowKind::Order, ids(&expected.sales)),
            (RowKind::Refund, ids(&expected.refunds)),
            (RowKind::Payout, ids(&expected.payouts)),
            (RowKind::PayoutFees, ids(&expected.payout_fees)),
        ]
    }

    /// What is parked in the end, and with what code.
    pub fn parked(&self) -> BTreeSet<String> {
        let group = keys::ledger(&merchant(), &self.connection);
        let mut codes = BTreeSet::new();
        for item in whole(&self.world, &group) {
            if item.doc["state"] == "parked" {
                codes.insert(item.doc["problem"]["code"].as_str().unwrap().to_owned());
            }
        }
        codes
    }

    /// The merchant reads what is wrong, which was a gateway's doing, and has it sent again.
    pub fn retry_parked(&mut self) {
        for _ in 0..RETRIES_MAX {
            let codes = self.parked();
            if codes.is_empty() {
                return;
            }
            let connection = self.connection();
            for code in codes {
                self.world
                    .note(|| format!("what is parked for {code} is sent again"));
                let wanted = Wanted::Code(code, None);
                alone(again::retry(&self.ctx, &connection, wanted)).unwrap();
            }
            self.drain();
        }
    }

    /// Whoever asked for a resync and heard of a failure asks again; then it comes to its end.
    pub fn finish_resync(&mut self) {
        let connection = self.connection();
        if let Ok(last) = alone(resync::last(&self.ctx, &connection))
            && last.state == resync::State::Running
        {
            // By then it stands still also for the one clock that was ahead of all.
            self.world.advance(Duration::from_secs(1300));
            self.whole(Job::Resync);
            self.drain();
            let last = alone(resync::last(&self.ctx, &connection)).unwrap();
            assert_eq!(last.state, resync::State::Done, "{last:?}");
        }
    }

    pub fn shop(&mut self) -> &mut Shop {
        &mut self.shop
    }

    pub fn connection(&self) -> connection::Connection {
        alone(connection::load(&self.ctx, &merchant(), &self.connection))
            .unwrap()
            .1
    }

    pub fn drain(&mut self) {
        self.world.note(|| "the troubles end".to_owned());
        {
            let mut state = self.world.state();
            state.chances = Chances::default();
            state.store_plan = None;
            state.net_plan = None;
        }
        for (_, clock) in &self.processes {
            clock.store(0, Ordering::Relaxed);
        }
        for _ in 0..QUIET_POLLS_MAX {
            let late = self.world.state().late.len();
            if self.idle() && outbox_rows(&self.world).is_empty() && late == 0 {
                let status = self.status();
                if status == Status::Live {
                    return;
                }
                self.make_live(status);
            }
            self.turn(0, false);
        }
        panic!("it does not come to rest");
    }

    /// Runs the events in their order with one worker, which dies at each of the polls `deaths`. `eager`
    /// takes up at once what was interrupted; otherwise it waits until the rest has happened. Returns
    /// how many polls it took.
    pub fn scripted(&mut self, deaths: &[u64], eager: bool) -> u64 {
        let mut polls = 0;
        for index in 0..self.shop.events.len() {
            self.unsent.retain(|other| *other != index);
            self.start(Job::Accept(vec![index]));
            self.only_task(&mut polls, deaths);
            while eager && let Some(index) = self.unsent.pop_if(|last| *last == index) {
                self.start(Job::Accept(vec![index]));
                self.only_task(&mut polls, deaths);
            }
            // The first payment makes the order pushable; then each change is pushed by itself.
            if index == 0 {
                continue;
            }
            loop {
                let rows = outbox_rows(&self.world);
                if rows.is_empty() {
                    break;
                }
                let ctx = self.ctx.clone();
                let future = async move {
                    let _ = outbox::publish(&ctx, &rows).await;
                    Done::Relayed
                };
                self.tasks.push(Task {
                    id: 0,
                    job: Job::Relay,
                    future: future.boxed(),
                    started_at: self.world.state().now,
                });
                self.only_task(&mut polls, deaths);
                if !eager {
                    break;
                }
            }
            loop {
                let notices: Vec<Notice> = {
                    let mut state = self.world.state();
                    let now = state.now;
                    let (visible, rest) = state
                        .queue
                        .drain(..)
                        .partition(|message| message.visible_at <= now);
                    state.queue = rest;
                    let visible: Vec<Message> = visible;
                    visible.into_iter().map(|message| message.notice).collect()
                };
                if notices.is_empty() {
                    break;
                }
                self.start(Job::Push(notices));
                self.only_task(&mut polls, deaths);
                if !eager {
                    break;
                }
                self.world.advance(Duration::from_secs(50));
            }
        }
        polls
    }

    /// A worker sets out to push the second version and stops after `polls` polls. Meanwhile the
    /// third version is accepted and pushed; then the first worker goes on. Returns whether it had
    /// anything left to do.
    pub fn overtaken(&mut self, polls: usize) -> bool {
        for index in [0, 1] {
            self.whole(Job::Accept(vec![index]));
        }
        self.relay_and_push();
        self.whole(Job::Accept(vec![2]));
        self.publish_all();
        let notices = self.receive_all();
        self.start(Job::Push(notices));
        let mut slow = self.tasks.pop().unwrap();
        let mut left = None;
        for _ in 0..polls {
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = slow.future.as_mut().poll(&mut context) {
                left = Some(done);
                break;
            }
        }
        for index in [3, 4] {
            self.whole(Job::Accept(vec![index]));
        }
        self.relay_and_push();
        self.unsent.clear();
        let unfinished = left.is_none();
        match left {
            Some(done) => self.finish(slow, done, false),
            None => self.tasks.push(slow),
        }
        self.drain();
        unfinished
    }

    /// A worker sets out to push a sale to a connection that was paused, or whose access was taken back,
    /// and stops after `polls` polls. Meanwhile the connection is made live again and what waits for it
    /// is taken up; then the worker goes on. Returns whether it had anything left to do.
    pub fn live_again_meanwhile(&mut self, polls: usize, paused: bool) -> bool {
        // The notice of the first connect would make the worker look through the ledger by itself.
        self.relay_and_push();
        for index in std::mem::take(&mut self.unsent) {
            self.whole(Job::Accept(vec![index]));
        }
        self.publish_all();
        let notices = self.receive_all();
        if paused {
            alone(manage::pause(&self.ctx, &merchant(), &self.connection)).unwrap();
        } else {
            alone(self.world.control("POST", "revoke", ""));
        }
        self.start(Job::Push(notices));
        let mut slow = self.tasks.pop().unwrap();
        let mut left = None;
        for _ in 0..polls {
            self.world.advance(Duration::from_millis(5));
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = slow.future.as_mut().poll(&mut context) {
                left = Some(done);
                break;
            }
        }
        let status = self.status();
        self.make_live(match (status, paused) {
            // Nobody has noticed yet, and the merchant connects again all the same.
            (Status::Live, false) => Status::ReauthRequired,
            (status, _) => status,
        });
        // The walk, and then what it found.
        self.relay_and_push();
        self.relay_and_push();
        let unfinished = left.is_none();
        match left {
            Some(done) => self.finish(slow, done, false),
            None => self.tasks.push(slow),
        }
        self.drain();
        unfinished
    }

    /// A worker dies over everything that was sold, `polls` polls after it set out. What it leaves waits
    /// for a connection that is paused, and once that is live again the first record is pushed before
    /// what waits is looked for. Returns whether the worker died before its end.
    pub fn settled_by_another(&mut self, polls: usize) -> bool {
        self.relay_and_push();
        let all = std::mem::take(&mut self.unsent);
        self.whole(Job::Accept(all));
        self.publish_all();
        let notices = self.receive_all();
        let unfinished = !self.begin(Job::Push(notices.clone()), polls);
        if unfinished {
            self.crash(self.tasks.len() - 1);
            self.receive_all();
            alone(manage::pause(&self.ctx, &merchant(), &self.connection)).unwrap();
            self.whole(Job::Push(notices.clone()));
            self.make_live(Status::Paused);
            self.whole(Job::Push(vec![notices[0].clone()]));
        }
        self.drain();
        unfinished
    }

    /// Lets `count` orders wait in the ledger and walks over it, message by message. Returns how much each
    /// message sent, and the orders that were sent.
    pub fn walk(&mut self, count: usize) -> (Vec<usize>, Vec<String>) {
        for number in 0..count {
            let id = format!("{number:05}");
            let record = RecordRef {
                kind: RecordKind::Order,
                id: id.clone(),
            };
            let group = keys::waiting(&merchant(), &self.connection);
            let open = Open {
                record,
                order_id: None,
                code: None,
            };
            let key = keys::open(group, "order", &id);
            let write = Write::put(key, Condition::Absent, &open).unwrap();
            self.world
                .memory
                .write(write)
                .now_or_never()
                .unwrap()
                .unwrap();
        }
        self.publish_all();
        let (mut sizes, mut orders) = (Vec::new(), Vec::new());
        loop {
            let (walks, sent): (Vec<Notice>, Vec<Notice>) = self
                .receive_all()
                .into_iter()
                .partition(|notice| notice.record.kind == RecordKind::Connection);
            orders.extend(sent.into_iter().map(|notice| notice.record.id));
            if walks.is_empty() {
                return (sizes, orders);
            }
            assert_eq!(walks.len(), 1, "one message carries on");
            let done = alone(push::push(&self.ctx, self.world.vendor.name(), &walks));
            assert!(done.iter().all(Result::is_ok), "{done:?}");
            sizes.push(self.world.state().queue.len());
            assert!(sizes.len() < 20, "the walk does not end: {sizes:?}");
        }
    }

    /// Accepts everything and then pushes it, `size` messages at a time. Returns how many calls of the
    /// provider that took.
    pub fn carry_all(&mut self, size: usize) -> u64 {
        self.relay_and_push();
        let unsent = std::mem::take(&mut self.unsent);
        for indexes in unsent.chunks(100) {
            self.whole(Job::Accept(indexes.to_vec()));
        }
        self.publish_all();
        let before = self.world.state().net_calls;
        for _ in 0..CARRY_ROUNDS_MAX {
            let notices = self.receive_all();
            if notices.is_empty() {
                return self.world.state().net_calls - before;
            }
            for notices in notices.chunks(size) {
                self.whole(Job::Push(notices.to_vec()));
            }
            // What was sent away for want of calls comes again when there are some.
            self.world.advance(Duration::from_secs(60));
        }
        panic!("it does not come to an end");
    }

    pub fn whole(&mut self, job: Job) {
        self.start(job);
        self.only_task(&mut 0, &[]);
    }

    pub fn publish_all(&mut self) {
        let rows = outbox_rows(&self.world);
        for result in alone(outbox::publish(&self.ctx, &rows)) {
            result.unwrap();
        }
    }

    /// The same where calls fail: what stays behind is relayed again.
    pub fn relay(&mut self) {
        let rows = outbox_rows(&self.world);
        let _ = alone(outbox::publish(&self.ctx, &rows));
    }

    /// Sends one event alone; an error says why it was refused.
    pub fn offer(&mut self, index: usize) -> Result<(), String> {
        let request = api::Request {
            method: "POST".to_owned(),
            path: "/api/v1/events".to_owned(),
            bearer: Some(PLATFORM_KEY.into()),
            body: self.shop.events[index].to_string().into_bytes(),
            ..api::Request::default()
        };
        alone(events::handle(&self.ctx, &request))
            .map(drop)
            .map_err(|error| format!("{} {:?}", error.chain(), error.fields()))
    }

    /// The shop says one thing more, until it is accepted.
    pub fn tell(&mut self, event: Value) {
        self.shop.events.push(event);
        self.whole(Job::Accept(vec![self.shop.events.len() - 1]));
        while let Some(index) = self.unsent.pop() {
            self.whole(Job::Accept(vec![index]));
        }
    }

    /// Nothing fails any more, and what was on its way has arrived.
    pub fn calm(&mut self) {
        self.world.state().chances = Chances::default();
        while alone(self.world.deliver_late()) {}
    }

    pub fn receive_all(&mut self) -> Vec<Notice> {
        let messages = std::mem::take(&mut self.world.state().queue);
        messages.into_iter().map(|message| message.notice).collect()
    }

    pub fn relay_and_push(&mut self) {
        self.publish_all();
        let notices = self.receive_all();
        self.whole(Job::Push(notices));
    }

    /// Starts a job and polls it at most `polls` times. Returns whether it is over by then; else it stands
    /// still until the rest is drained.
    pub fn begin(&mut self, job: Job, polls: usize) -> bool {
        self.start(job);
        for _ in 0..polls {
            self.world.advance(Duration::from_millis(5));
            let last = self.tasks.len() - 1;
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = self.tasks[last].future.as_mut().poll(&mut context) {
                let task = self.tasks.swap_remove(last);
                self.finish(task, done, false);
                return true;
            }
        }
        false
    }

    /// Does a job to its end beside what stands still.
    pub fn beside(&mut self, job: Job) {
        assert!(self.begin(job, 100_000), "it does not end");
    }

    pub fn only_task(&mut self, polls: &mut u64, deaths: &[u64]) {
        for own in 0.. {
            *polls += 1;
            assert!(own < QUIET_POLLS_MAX, "it does not end");
            if deaths.contains(polls) {
                self.crash(0);
                return;
            }
            self.world.advance(Duration::from_millis(5));
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(done) = self.tasks[0].future.as_mut().poll(&mut context) {
                let task = self.tasks.swap_remove(0);
                self.finish(task, done, false);
                return;
            }
        }
    }

    /// Everything that happened, and the ledger as it is.
    pub fn story(&self) -> String {
        let group = keys::ledger(&merchant(), &self.connection);
        let rows = whole(&self.world, &group);
        let rows = rows
            .iter()
            .map(|row| format!("{}: {}", keys::place(&row.key), row.doc));
        let mut lines = self.world.state().trace.clone();
        lines.push("the ledger:".to_owned());
        lines.extend(rows);
        lines.join("\n")
    }
}
