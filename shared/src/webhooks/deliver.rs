//! Delivery: one signed POST to one endpoint, a log of the attempt, and when the next one is.
//!
//! A delivery without order has no row before its first attempt: until then the queue's message is all there
//! is of it, and the message stays until the outcome is written. Whose message comes again is written down
//! before it is tried again, so that what cannot be tried is seen, and does not hang on the message alone.
//!
//! What is due within a minute waits in the queue of retries; what is due later waits in the table, in the
//! minute of its next attempt, from where a schedule hands it out. A message is no more than a hint that
//! something may be due: the delivery itself says whether it is, so doubled and late messages do no harm.

use super::endpoint::{self, Endpoint, Log, OffReason};
use super::pace::{self, Course};
use super::{feed, health, order};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::EventType;
use crate::model::http::{Method, Request, Response};
use crate::model::ids::{EndpointId, EventId, MerchantId};
use crate::model::notice::{DeliveryNotice, Notice, StoredEvent};
use crate::net::{Limits, Timings, timed};
use crate::oauth::vault;
use crate::queue::Message;
use crate::store::{Condition, Item, Key, Write, WriteError, keys};
use crate::sync::delivery::{self as ladder, Admission, Answer, Verdict};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures::future::{Either, join, join_all, select};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;
use std::sync::Arc;

/// The version of the body's shape.
pub const API_VERSION: &str = "2026-11-01";
/// Most attempts whose outcome is kept.
const ATTEMPTS_KEPT_MAX: usize = 20;
/// Most bytes of the latest reply that are kept, and of those before it.
const REPLY_BYTES_MAX: usize = 16 << 10;
const OLD_REPLY_BYTES_MAX: usize = 1 << 10;
/// How long a delivery can be looked at.
pub const KEPT: TimeDelta = TimeDelta::days(30);
/// Where an endpoint's log holds failures alone, one in so many of what arrived at the first attempt stands
/// there for all of them.
pub const SAMPLED_ONE_IN: u16 = 100;
/// What is due sooner than this waits in the queue of retries.
const SOON: TimeDelta = TimeDelta::seconds(60);
/// Minutes after which the schedule comes by: by then an attempt that began is over.
const REMINDED: i64 = 2;
/// How often the outcome of an attempt is written anew when somebody else was faster.
const RACE_ROUNDS_MAX: usize = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    Pending,
    Delivered,
    /// It was tried for as long as deliveries are.
    Exhausted,
    /// It is not tried any more: the receiver did not want it, or the endpoint is off.
    Stopped,
}

impl DeliveryState {
    pub const ALL: [DeliveryState; 4] = [
        DeliveryState::Pending,
        DeliveryState::Delivered,
        DeliveryState::Exhausted,
        DeliveryState::Stopped,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            DeliveryState::Pending => "pending",
            DeliveryState::Delivered => "delivered",
            DeliveryState::Exhausted => "exhausted",
            DeliveryState::Stopped => "stopped",
        }
    }
}

/// One try: what came back, or why nothing did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: DateTime<Utc>,
    /// Where it went; endpoints move.
    #[serde(default)]
    pub url: String,
    /// What the request said in `webhook-timestamp`. Its `webhook-id` is the event's.
    #[serde(default)]
    pub webhook_timestamp: String,
    pub status: Option<u16>,
    pub error: Option<String>,
    /// From the first look-up to the last byte, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    #[serde(default)]
    pub timings: Timings,
    /// The beginning of the reply, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reply: String,
}

/// One event on its way to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub endpoint_id: EndpointId,
    pub merchant_id: MerchantId,
    pub event_id: EventId,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub state: DeliveryState,
    /// All attempts so far; the latest of them stand in `attempts`.
    pub attempts_total: u32,
    pub attempts: Vec<Attempt>,
    /// When the next attempt is due; nothing once there is none.
    #[serde(default)]
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// How many waits there were: one after each attempt, and one whenever the endpoint rested.
    #[serde(default)]
    pub step: u32,
    /// Whether the schedule brings the next attempt, and not a message that waits by itself.
    #[serde(default)]
    pub scheduled: bool,
    /// The key of its line, where the endpoint has order and it was made in its turn. Nothing is due of
    /// one that waits for another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Since when it stands here, if that is long after its event was accepted: whoever reads the log by
    /// time may be past its place already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_since: Option<DateTime<Utc>>,
    /// Whether it was taken from the feed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub taken: bool,
    /// How many this one stands for, where the log holds a sample.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stands_for: Option<u16>,
    /// The time of the event's acceptance, by which deliveries are in order.
    pub accepted_at: DateTime<Utc>,
    /// From when its life counts: since it was made, or sent again.
    pub created_at: DateTime<Utc>,
}

impl Delivery {
    pub fn new(endpoint_id: EndpointId, notice: &Notice, now: DateTime<Utc>) -> Delivery {
        Delivery {
            endpoint_id,
            merchant_id: notice.merchant_id.clone(),
            event_id: notice.event_id.clone(),
            kind: notice.kind,
            state: DeliveryState::Pending,
            attempts_total: 0,
            attempts: Vec::new(),
            next_attempt_at: Some(now),
            step: 0,
            scheduled: false,
            line: None,
            late_since: Some(now).filter(|now| *now - notice.accepted_at > feed::LATE),
            taken: false,
            stands_for: None,
            accepted_at: notice.accepted_at,
            created_at: now,
        }
    }

    pub(super) fn key(&self) -> Key {
        let (merchant, endpoint) = (&self.merchant_id, &self.endpoint_id);
        keys::delivery(merchant, endpoint, self.accepted_at, &self.event_id)
    }

    pub fn notice(&self) -> DeliveryNotice {
        DeliveryNotice {
            merchant_id: self.merchant_id.clone(),
            endpoint_id: self.endpoint_id.clone(),
            event_id: self.event_id.clone(),
            accepted_at: self.accepted_at,
            paced: None,
        }
    }

    /// The delivery after a wait was decided by whoever saw it at `step`, or its end. What a twin has
    /// decided meanwhile stays as it is, but that a success counts whoever has it.
    fn then(mut self, step: u32, verdict: Verdict, now: DateTime<Utc>) -> Delivery {
        let is_late = self.step != step && verdict != Verdict::Delivered;
        if self.state == DeliveryState::Delivered || is_late {
            return self;
        }
        self.step += 1;
        self.scheduled = matches!(verdict, Verdict::Again(at) if at - now > SOON);
        (self.state, self.next_attempt_at) = match verdict {
            Verdict::Delivered => (DeliveryState::Delivered, None),
            Verdict::Again(at) => (DeliveryState::Pending, Some(at)),
            Verdict::Exhausted => (DeliveryState::Exhausted, None),
            Verdict::Aborted => (DeliveryState::Stopped, None),
        };
        self
    }

    fn tried(mut self, attempt: Attempt) -> Delivery {
        for old in &mut self.attempts {
            cut(&mut old.reply, OLD_REPLY_BYTES_MAX);
        }
        self.attempts.push(attempt);
        self.attempts_total += 1;
        if self.attempts.len() > ATTEMPTS_KEPT_MAX {
            self.attempts.remove(0);
        }
        self
    }

    /// The delivery to be tried anew from now on, as when it was made, and by itself.
    pub fn again(self, now: DateTime<Utc>) -> Delivery {
        Delivery {
            line: None,
            ..self.called(now)
        }
    }

    /// The delivery once its turn has come: its life begins now.
    pub(super) fn called(mut self, now: DateTime<Utc>) -> Delivery {
        self.state = DeliveryState::Pending;
        self.next_attempt_at = Some(now);
        self.step = 0;
        self.scheduled = false;
        self.created_at = now;
        // Its state is its own from now on, and not that of others.
        self.stands_for = None;
        self
    }

    /// The writes that store it, with the row by which the schedule finds it if it waits for long.
    pub fn writes(&self, condition: Condition) -> Result<Vec<Write>> {
        let gone = (self.created_at + KEPT).timestamp();
        let is_new = condition == Condition::Absent;
        // What waits for its turn is kept for as long as that takes.
        let waits = self.state == DeliveryState::Pending && self.next_attempt_at.is_none();
        let write = Write::put(self.key(), condition, self)?;
        let mut writes = vec![match waits {
            true => write,
            false => write.expiring(gone),
        }];
        if let Some(since) = self.late_since.filter(|_| is_new) {
            let delivery = self.notice();
            let key = keys::late_delivery(since, &delivery);
            let late = feed::Late { since, delivery };
            writes.push(Write::put(key, Condition::Any, &late)?.expiring(gone));
        }
        if let Some(at) = self.next_attempt_at.filter(|_| self.scheduled) {
            let key = keys::webhook_due_delivery(minute_of(at), &self.notice());
            writes.push(Write::put(key, Condition::Any, &self.notice())?);
        }
        Ok(writes)
    }
}

/// A delivery as it stands, and what holds while it does; or as it is to be made.
struct Held {
    delivery: Delivery,
    condition: Condition,
}

impl Held {
    fn of(item: &Item) -> Result<Held> {
        Ok(Held {
            delivery: item.read()?,
            condition: Condition::Rev(item.rev),
        })
    }
}

/// A message about a delivery, as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub notice: DeliveryNotice,
    /// Whether it came before, and nobody could do what it says.
    pub again: bool,
}

/// The minute (Unix time in minutes) of a moment.
pub fn minute_of(at: DateTime<Utc>) -> i64 {
    at.timestamp().div_euclid(60)
}

/// Shortens `text` to at most `bytes`, between two characters.
fn cut(text: &mut String, bytes: usize) {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

/// The body of a webhook, the same bytes at every attempt. `thin` leaves out what happened and says
/// where to read it.
pub fn body(event: &StoredEvent, thin: bool) -> Vec<u8> {
    told(event, thin).to_string().into_bytes()
}

/// The same, to be looked at.
pub(super) fn told(event: &StoredEvent, thin: bool) -> Value {
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Millis, true);
    let mut body = json!({
        "id": event.id,
        "type": event.kind,
        "timestamp": time(event.occurred_at),
        "api_version": API_VERSION,
        "merchant_id": event.merchant_id,
        "sequence": event.place,
        "related_object": event.record,
    });
    if !thin {
        body["data"] = event.data.clone();
    }
    body
}

/// The signed request that carries `event` to `endpoint`.
pub async fn request(
    ctx: &Ctx,
    endpoint: &Endpoint,
    event: &StoredEvent,
    attempt: u32,
) -> Result<Request> {
    let now = ctx.now();
    let body = body(event, endpoint.is_thin());
    let data_key = vault::unwrap(ctx, endpoint.id.as_str(), &endpoint.key).await?;
    let mut signatures = Vec::new();
    for secret in endpoint.secrets(now) {
        let secret = vault::open(&data_key, endpoint.id.as_str(), secret)?;
        let signature = Webhook::new(secret.expose_secret())
            .and_then(|webhook| webhook.sign(event.id.as_str(), now.timestamp(), &body))
            .map_err(Error::internal)?;
        signatures.push(signature);
    }
    for pair in endpoint.pairs(now) {
        signatures.push(pair.sign(&data_key, endpoint.id.as_str(), &event.id, now, &body)?);
    }
    let mut request = Request::new(Method::Post, endpoint.url.clone());
    for (name, value) in endpoint.headers(&data_key)? {
        request = request.header(&name, value.expose_secret());
    }
    Ok(request
        .header("webhook-id", event.id.as_str())
        .header("webhook-timestamp", now.timestamp().to_string())
        .header("webhook-signature", signatures.join(" "))
        .header("webhook-attempt", attempt.to_string())
        .body("application/json", body))
}

/// What an answer asks of us.
fn asked<'a>(answer: Option<&'a Response>, now: DateTime<Utc>) -> Answer<'a> {
    let header = |name| answer.and_then(|answer| answer.header(name));
    let after = header("retry-after").map(str::trim);
    // In seconds or as a date (RFC 9110 §10.2.3).
    let seconds = after.and_then(|text| text.parse::<u32>().ok());
    let date = after.and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    Answer {
        status: answer.map(|answer| answer.status),
        retry_after: seconds
            .map(|seconds| TimeDelta::seconds(i64::from(seconds)))
            .or(date.map(|date| date.to_utc() - now)),
        control: header("webhook-delivery").map(str::trim),
    }
}

/// The rows that the attempts of a batch are made by, all read at once.
pub(super) struct AtHand {
    rows: HashMap<Key, Arc<Item>>,
}

impl AtHand {
    /// Reads what `arrivals` are about. An endpoint that was on and well a moment ago counts as being so
    /// still, and is not read; every other answer than that is the store's own.
    async fn read(ctx: &Ctx, arrivals: &[Arrival]) -> Result<AtHand> {
        let now = ctx.now();
        let mut rows = HashMap::new();
        let (mut wanted, mut events) = (BTreeSet::new(), BTreeSet::new());
        let mut endpoints = BTreeSet::new();
        for Arrival { notice, .. } in arrivals {
            let (merchant, id) = (&notice.merchant_id, &notice.endpoint_id);
            wanted.insert(delivery_key(notice));
            events.insert(keys::event(merchant, &notice.event_id));
            let endpoint = keys::endpoint(merchant, id);
            match ctx.recent.get(&endpoint, now) {
                Some(item) => {
                    rows.insert(endpoint, item);
                }
                None => {
                    let health = keys::endpoint_health(merchant, id);
                    wanted.extend([endpoint.clone(), health.clone()]);
                    endpoints.insert((endpoint, health));
                }
            }
        }
        let wanted: Vec<Key> = wanted.into_iter().collect();
        let (found, events) = join(ctx.store.get_many(&wanted), read_events(ctx, events)).await;
        let found = found?.into_iter().flatten().chain(events?);
        rows.extend(found.map(|item| (item.key.clone(), Arc::new(item))));
        let at_hand = AtHand { rows };
        for (endpoint, health) in endpoints {
            let Some(item) = at_hand.rows.get(&endpoint) else {
                continue;
            };
            let on = item
                .read()
                .is_ok_and(|endpoint: Endpoint| endpoint.off.is_none());
            if on && health::is_well(at_hand.row(&health), now) {
                ctx.recent.hold(item.clone(), now);
            }
        }
        Ok(at_hand)
    }

    pub(super) fn row(&self, key: &Key) -> Option<&Item> {
        self.rows.get(key).map(|item| &**item)
    }

    fn event(&self, notice: &DeliveryNotice) -> Result<StoredEvent> {
        let event = self.row(&keys::event(&notice.merchant_id, &notice.event_id));
        event
            .ok_or_else(|| Error::not_found(format!("event {}", notice.event_id)))?
            .read()
    }

    /// The delivery that a message is about.
    async fn delivery(&self, ctx: &Ctx, arrival: &Arrival) -> Result<Held> {
        let notice = &arrival.notice;
        if let Some(item) = self.row(&delivery_key(notice)) {
            return Held::of(item);
        }
        let event = self.event(notice)?.notice();
        let delivery = Delivery::new(notice.endpoint_id.clone(), &event, ctx.now());
        let mut condition = Condition::Absent;
        if arrival.again {
            let mut writes = delivery.writes(condition)?;
            writes.push(reminder(ctx, notice)?);
            match ctx.store.transact(writes).await {
                Ok(()) => condition = Condition::Rev(1),
                // Another has made it: what comes of this attempt is added to that.
                Err(WriteError::Condition(_) | WriteError::Contended) => {}
                Err(WriteError::Failed(error)) => return Err(error),
            }
        }
        Ok(Held {
            delivery,
            condition,
        })
    }
}

/// Reads events, which never change once they stand there. One that was accepted a moment ago may seem to be
/// missing, and is read once more.
async fn read_events(ctx: &Ctx, events: BTreeSet<Key>) -> Result<Vec<Item>> {
    let events: Vec<Key> = events.into_iter().collect();
    let found = ctx.store.get_many_settled(&events).await?;
    let missing = events.iter().zip(&found).filter(|(_, item)| item.is_none());
    let missing: Vec<Key> = missing.map(|(key, _)| key.clone()).collect();
    let young = match missing.is_empty() {
        true => Vec::new(),
        false => ctx.store.get_many(&missing).await?,
    };
    Ok(found.into_iter().chain(young).flatten().collect())
}

pub(super) fn delivery_key(notice: &DeliveryNotice) -> Key {
    keys::delivery(
        &notice.merchant_id,
        &notice.endpoint_id,
        notice.accepted_at,
        &notice.event_id,
    )
}

/// The write by which the schedule comes by in a while, for whoever dies before he has told.
pub(super) fn reminder(ctx: &Ctx, notice: &DeliveryNotice) -> Result<Write> {
    let key = keys::webhook_due_delivery(minute_of(ctx.now()) + REMINDED, notice);
    Write::put(key, Condition::Any, notice)
}

/// Makes the attempts of a batch that are due, side by side: one result for each message, in order. An
/// error means that the message stays in the queue.
pub async fn deliver(ctx: &Ctx, arrivals: &[Arrival]) -> Vec<Result<()>> {
    match AtHand::read(ctx, arrivals).await {
        Ok(at_hand) => {
            // A doubled message that comes in one batch with its twin has nothing to do.
            let mut seen = HashSet::new();
            let firsts: Vec<bool> = arrivals
                .iter()
                .map(|arrival| seen.insert(delivery_key(&arrival.notice)))
                .collect();
            let asking: Vec<&Arrival> = arrivals
                .iter()
                .zip(&firsts)
                .filter_map(|(arrival, is_first)| is_first.then_some(arrival))
                .collect();
            let mut courses = pace::courses(ctx, &at_hand, &asking).await.into_iter();
            let courses = firsts
                .iter()
                .map(|is_first| is_first.then(|| courses.next()).flatten());
            let attempts =
                arrivals
                    .iter()
                    .zip(courses)
                    .map(async |(arrival, course)| match course {
                        Some(Course::Attempt) => attempt(ctx, &at_hand, arrival).await,
                        Some(Course::Over) => give_up(ctx, &at_hand, arrival).await,
                        Some(Course::Waits(sent)) => sent,
                        None => Ok(()),
                    });
            join_all(attempts).await
        }
        Err(error) => {
            let line = error.chain();
            let failed = |_| Err(Error::internal(line.clone()));
            arrivals.iter().map(failed).collect()
        }
    }
}

/// Ends a delivery whose turn never came.
async fn give_up(ctx: &Ctx, at_hand: &AtHand, arrival: &Arrival) -> Result<()> {
    let held = at_hand.delivery(ctx, arrival).await?;
    let (step, now) = (held.delivery.step, ctx.now());
    decide(ctx, held, |delivery| {
        delivery.then(step, Verdict::Exhausted, now)
    })
    .await
}

/// Does `sending`, and notes while it is under way that it takes long, if it does.
async fn watched<T>(ctx: &Ctx, endpoint: &Endpoint, sending: impl Future<Output = T>) -> T {
    let sending = pin!(sending);
    match select(sending, ctx.clock.alarm(ladder::LONG)).await {
        Either::Left((done, _)) => done,
        Either::Right(((), sending)) => {
            let (done, noted) = join(sending, health::note_long(ctx, endpoint)).await;
            if let Err(error) = noted {
                tracing::warn!(endpoint_id = %endpoint.id, error = %error.chain(), "that it is slow is not noted");
            }
            done
        }
    }
}

async fn attempt(ctx: &Ctx, at_hand: &AtHand, arrival: &Arrival) -> Result<()> {
    let notice = &arrival.notice;
    let mut held = at_hand.delivery(ctx, arrival).await?;
    let delivery = &held.delivery;
    let Some(due) = delivery.next_attempt_at else {
        let first = match &delivery.line {
            Some(line) if delivery.state != DeliveryState::Pending => {
                order::first(ctx, delivery, line).await?
            }
            _ => None,
        };
        return call(ctx, first.as_slice()).await;
    };
    if due > ctx.now() {
        return remind(ctx, delivery).await;
    }
    let step = delivery.step;
    let (merchant, id) = (&notice.merchant_id, &notice.endpoint_id);
    let endpoint = at_hand.row(&keys::endpoint(merchant, id));
    let endpoint = endpoint.map(Item::read::<Endpoint>).transpose()?;
    let endpoint =
        endpoint.filter(|endpoint| endpoint.off.is_none() && ctx.config.webhooks_enabled().is_ok());
    let now = ctx.now();
    let Some(endpoint) = endpoint else {
        return decide(ctx, held, |delivery| {
            delivery.then(step, Verdict::Aborted, now)
        })
        .await;
    };
    let jitter = ctx.random::<1>()[0];
    let health = at_hand.row(&keys::endpoint_health(merchant, id));
    let probes = match health::admit(ctx, &endpoint, health).await? {
        Admission::Yes => false,
        Admission::Probe(_) => true,
        Admission::No(until) => {
            return decide(ctx, held, |delivery| {
                let began = delivery.created_at;
                let verdict = ladder::put_off(step + 1, began, until, now, jitter);
                delivery.then(step, verdict, now)
            })
            .await;
        }
    };
    let event = at_hand.event(notice)?;
    let request = request(ctx, &endpoint, &event, delivery.attempts_total + 1).await?;
    let url = request.url.to_string();
    let mut sent = request.headers.iter();
    let webhook_timestamp = sent.find(|(name, _)| name == "webhook-timestamp");
    let webhook_timestamp = webhook_timestamp.map_or(String::new(), |(_, value)| value.clone());
    let (at, begun) = (ctx.now(), ctx.clock.passed());
    let (outcome, timings) = watched(
        ctx,
        &endpoint,
        timed(ctx.net.send(request, Limits::WEBHOOK)),
    )
    .await;
    let duration = ctx.clock.passed().saturating_sub(begun);
    let answer = asked(outcome.as_ref().ok(), ctx.now());
    let error = match &outcome {
        Ok(answer) if answer.is_success() => None,
        Ok(answer) => Some(format!("status {} is no success", answer.status)),
        Err(error) => Some(error.detail().to_owned()),
    };
    let mut reply = outcome.as_ref().map_or(String::new(), |answer| {
        String::from_utf8_lossy(&answer.body).into_owned()
    });
    cut(&mut reply, REPLY_BYTES_MAX);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let attempt = Attempt {
        at,
        url,
        webhook_timestamp,
        status: answer.status,
        error,
        duration_ms,
        timings,
        reply,
    };
    let now = ctx.now();
    // A message that came again has a row, whoever made it.
    let is_left_out = answer.is_success()
        && held.condition == Condition::Absent
        && !arrival.again
        && endpoint.log == Log::Failures;
    let is_sampled = || u16::from_be_bytes(ctx.random()).is_multiple_of(SAMPLED_ONE_IN);
    let decided = match is_left_out && !is_sampled() {
        true => Ok(()),
        false => {
            held.delivery.stands_for = is_left_out.then_some(SAMPLED_ONE_IN);
            decide(ctx, held, |delivery| {
                let verdict = ladder::judge(answer, step + 1, delivery.created_at, now, jitter);
                delivery.tried(attempt.clone()).then(step, verdict, now)
            })
            .await
        }
    };
    match health::note(ctx, &endpoint, answer.is_success(), probes, duration_ms).await {
        // No row says that it arrived, so its message would send it once more.
        Err(error) if is_left_out => {
            tracing::warn!(endpoint_id = %id, error = %error.chain(), "how it does is not noted");
        }
        noted => noted?,
    }
    if answer.ends_endpoint() {
        endpoint::switch_off(ctx, &endpoint, OffReason::Gone).await?;
    }
    decided
}

/// Stores a delivery, with what belongs to it. Returns whether it was stored: `false` where `condition` does
/// not hold.
pub(super) async fn store(ctx: &Ctx, delivery: &Delivery, condition: Condition) -> Result<bool> {
    match write_all(ctx, delivery.writes(condition)?).await {
        Ok(()) => Ok(true),
        Err(WriteError::Condition(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn write_all(ctx: &Ctx, mut writes: Vec<Write>) -> Result<(), WriteError> {
    match writes.len() {
        1 => ctx.store.write(writes.remove(0)).await,
        _ => ctx.store.transact(writes).await,
    }
}

/// Ends a delivery that its receiver has read from the feed.
pub(super) async fn take(ctx: &Ctx, item: Item) -> Result<()> {
    let now = ctx.now();
    let held = Held::of(&item)?;
    let step = held.delivery.step;
    decide(ctx, held, |delivery| match delivery.state {
        DeliveryState::Pending => Delivery {
            taken: true,
            ..delivery.then(step, Verdict::Delivered, now)
        },
        _ => delivery,
    })
    .await
}

/// Stores what `change` makes of a delivery, and lets it come again when it is due. Where it ends in a
/// line, the turn of the next comes with it.
async fn decide(ctx: &Ctx, mut held: Held, change: impl Fn(Delivery) -> Delivery) -> Result<()> {
    for _ in 0..RACE_ROUNDS_MAX {
        let before = held.delivery.clone();
        let delivery = change(before.clone());
        if delivery == before {
            return Ok(());
        }
        let mut writes = delivery.writes(held.condition)?;
        let called = match &delivery.line {
            Some(line) if delivery.state != DeliveryState::Pending => {
                order::leave(ctx, &delivery, line, &mut writes).await?
            }
            _ => None,
        };
        match write_all(ctx, writes).await {
            Ok(()) => {
                // Who changed nothing of when it is due has nobody to tell.
                if delivery.step != before.step {
                    remind(ctx, &delivery).await?;
                }
                let called = called.as_ref().map(Delivery::notice);
                return call(ctx, called.as_slice()).await;
            }
            Err(WriteError::Condition(_) | WriteError::Contended) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
        match ctx.store.get(&before.key()).await? {
            Some(newer) => held = Held::of(&newer)?,
            None if held.condition == Condition::Absent => {}
            // It was kept for as long as it is.
            None => return Ok(()),
        }
    }
    Err(Error::new(
        Code::Busy,
        "several attempts of one delivery at once; it is tried again",
    ))
}

/// Lets deliveries come whose time it is, beside those that are tried for the first time.
pub(super) async fn call(ctx: &Ctx, notices: &[DeliveryNotice]) -> Result<()> {
    let messages = notices.iter().map(|notice| message(notice, 0));
    let messages = messages.collect::<Result<Vec<_>>>()?;
    match messages.is_empty() {
        true => Ok(()),
        false => {
            let queue = ctx.config.webhook_retry_queue()?;
            ctx.queue.send_later(queue, messages).await
        }
    }
}

/// The message that brings a delivery after `delay_seconds`, beside those of other merchants.
pub(super) fn message(notice: &DeliveryNotice, delay_seconds: u16) -> Result<Message> {
    Ok(Message {
        body: serde_json::to_string(notice).map_err(Error::internal)?,
        delay_seconds,
        group: Some(notice.merchant_id.to_string()),
    })
}

/// Sends the message that brings a delivery again, if the table does not.
async fn remind(ctx: &Ctx, delivery: &Delivery) -> Result<()> {
    let Some(due) = delivery.next_attempt_at else {
        return Ok(());
    };
    if delivery.scheduled {
        return Ok(());
    }
    // Rounded up, so that it is due when it comes.
    let left = (due - ctx.now()).max(TimeDelta::zero());
    let seconds = (left.num_milliseconds() + 999) / 1000;
    let delay = u16::try_from(seconds.clamp(0, SOON.num_seconds())).unwrap_or(0);
    let message = message(&delivery.notice(), delay)?;
    ctx.queue
        .send_later(ctx.config.webhook_retry_queue()?, vec![message])
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::event::RecordKind;
    use crate::model::notice::RecordRef;

    #[test]
    fn what_is_delivered_stays_delivered_until_it_is_sent_again() {
        let now = DateTime::UNIX_EPOCH;
        let notice = Notice {
            merchant_id: "m_1".parse().unwrap(),
            event_id: "e_1".parse().unwrap(),
            kind: EventType::OrderCreated,
            record: RecordRef {
                kind: RecordKind::Order,
                id: "1001".to_owned(),
            },
            order_id: None,
            accepted_at: now,
            after: None,
            resync: None,
            backfill: None,
            summing: None,
        };
        let new = Delivery::new(EndpointId::new(uuid::Uuid::nil()), &notice, now);
        let delivered = new.then(0, Verdict::Delivered, now);
        for late in [
            Verdict::Again(now + LATER),
            Verdict::Exhausted,
            Verdict::Aborted,
        ] {
            assert_eq!(delivered.clone().then(1, late, now), delivered);
        }
        let again = delivered.again(now);
        // Whoever saw it at another step decides nothing, but a success.
        let late = again.clone().then(3, Verdict::Exhausted, now);
        assert_eq!(late, again);
        let done = again.clone().then(3, Verdict::Delivered, now);
        assert_eq!(done.state, DeliveryState::Delivered);
        let again = again.then(0, Verdict::Again(now + LATER), now);
        assert_eq!(
            (again.state, again.scheduled),
            (DeliveryState::Pending, true)
        );
    }

    const LATER: TimeDelta = TimeDelta::hours(1);
}
