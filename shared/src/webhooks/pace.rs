//! Who may send to an endpoint now, and where: the attempts of one that is slow go out in a lane of their
//! own, and whoever finds no token in its bucket waits in a queue until there is one. To wait is no attempt,
//! and moves no delivery up its ladder.

use super::deliver::{self, Arrival, AtHand, Delivery};
use super::endpoint::Endpoint;
use super::health;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::notice::{DeliveryNotice, Pace};
use crate::queue::Message;
use crate::store::{Condition, Key, Write, WriteError, keys};
use crate::sync::delivery::{Admission, Bucket, Health, LIFE};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use std::collections::BTreeMap;

/// How often a token is asked for anew when somebody else was faster.
const RACE_ROUNDS_MAX: usize = 5;
/// When whoever took no token asks again, by up to four minutes later: where all tokens are taken that can be
/// waited for, and where too many others asked.
const FULL_SECONDS: u16 = 600;
const CROWD_SECONDS: u16 = 5;
/// Seconds for which the row of a bucket is kept once nobody takes from it; it is full long before.
const KEPT_SECONDS: i64 = 86_400;

/// What becomes of a message.
#[derive(Debug)]
pub(super) enum Course {
    Attempt,
    /// It has waited for as long as deliveries are tried.
    Over,
    /// It waits, as another message, unless that failed.
    Waits(Result<()>),
}

/// How fast an endpoint may be sent to, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limit {
    pace: Pace,
    rate: u32,
}

/// Nothing for an endpoint that is quick and without limit, which is what most are.
fn limit(endpoint: &Endpoint, health: &Health, now: DateTime<Utc>) -> Option<Limit> {
    let rate = endpoint.rate_limit;
    match health.slow_rate(now) {
        Some(slow) => Some(Limit {
            pace: Pace::Slow,
            rate: rate.map_or(slow, |rate| rate.min(slow)),
        }),
        None => rate.map(|rate| Limit {
            pace: Pace::Limited,
            rate,
        }),
    }
}

/// Which of `arrivals` may be attempted here and now, one answer for each, in order. Nothing is read or written
/// for an endpoint without limit.
pub(super) async fn courses(ctx: &Ctx, at_hand: &AtHand, arrivals: &[&Arrival]) -> Vec<Course> {
    let now = ctx.now();
    let mut courses: Vec<Course> = arrivals.iter().map(|_| Course::Attempt).collect();
    let mut asking: BTreeMap<Key, (Limit, Vec<usize>)> = BTreeMap::new();
    for (number, arrival) in arrivals.iter().enumerate() {
        let Some(limit) = limit_of(at_hand, &arrival.notice, now) else {
            continue;
        };
        if is_over(at_hand, &arrival.notice, now) {
            courses[number] = Course::Over;
            continue;
        }
        let bucket =
            keys::endpoint_bucket(&arrival.notice.merchant_id, &arrival.notice.endpoint_id);
        let (_, who) = asking.entry(bucket).or_insert((limit, Vec::new()));
        who.push(number);
    }
    let taken = asking.iter().map(async |(bucket, (limit, who))| {
        let turns = take(ctx, bucket, *limit, who.len()).await;
        (*limit, who, turns)
    });
    let mut waiting: BTreeMap<&str, Vec<(usize, Message)>> = BTreeMap::new();
    for (limit, who, turns) in join_all(taken).await {
        for (number, turn) in who.iter().zip(turns) {
            match waits(ctx, at_hand, &arrivals[*number].notice, limit, turn) {
                Ok(None) => {}
                Ok(Some((queue, message))) => {
                    waiting.entry(queue).or_default().push((*number, message));
                }
                Err(error) => courses[*number] = Course::Waits(Err(error)),
            }
        }
    }
    let sent = waiting.into_iter().map(async |(queue, messages)| {
        let (who, messages): (Vec<usize>, Vec<Message>) = messages.into_iter().unzip();
        (who, ctx.queue.send_later(queue, messages).await)
    });
    for (who, sent) in join_all(sent).await {
        let failed = sent.err().map(|error| error.chain());
        for number in who {
            courses[number] = Course::Waits(match &failed {
                None => Ok(()),
                Some(line) => Err(Error::internal(line.clone())),
            });
        }
    }
    courses
}

/// The limit of what `notice` is about, if an attempt would be made of it that has had no turn yet.
fn limit_of(at_hand: &AtHand, notice: &DeliveryNotice, now: DateTime<Utc>) -> Option<Limit> {
    let (merchant, id) = (&notice.merchant_id, &notice.endpoint_id);
    let endpoint = at_hand.row(&keys::endpoint(merchant, id))?;
    // What cannot be read, is off or rests is not sent, and whoever would send it says so.
    let endpoint: Endpoint = endpoint.read().ok()?;
    let health = health::at_hand(at_hand.row(&keys::endpoint_health(merchant, id))).ok()?;
    let rests = matches!(health.admit(now), Admission::No(_));
    if endpoint.off.is_some() || rests {
        return None;
    }
    let due = held(at_hand, notice).map_or(Some(now), |held| held.next_attempt_at);
    let limit = limit(&endpoint, &health, now).filter(|_| due.is_some_and(|due| due <= now))?;
    // Whose turn it is of one that has become slow meanwhile stands in the wrong lane.
    match (notice.paced, limit.pace) {
        (None, _) | (Some(Pace::Limited), Pace::Slow) => Some(limit),
        (Some(_), _) => None,
    }
}

fn held(at_hand: &AtHand, notice: &DeliveryNotice) -> Option<Delivery> {
    let row = at_hand.row(&deliver::delivery_key(notice))?;
    row.read().ok()
}

/// Whether its time is over, before it could be tried.
fn is_over(at_hand: &AtHand, notice: &DeliveryNotice, now: DateTime<Utc>) -> bool {
    let began = held(at_hand, notice).map_or(notice.accepted_at, |held| held.created_at);
    now - began > LIFE
}

/// The message by which `notice` waits for its turn, with the queue it waits in; nothing where it is its turn
/// here. Without a turn it asks again later.
fn waits<'a>(
    ctx: &'a Ctx,
    at_hand: &AtHand,
    notice: &DeliveryNotice,
    limit: Limit,
    turn: Turn,
) -> Result<Option<(&'a str, Message)>> {
    let late = u16::from(ctx.random::<1>()[0]);
    let (paced, delay) = match turn {
        Turn::At(at) => {
            // Rounded up, so that it is its turn when it comes.
            let left = (at - ctx.now()).num_milliseconds().max(0);
            let seconds = u16::try_from((left + 999) / 1000).unwrap_or(u16::MAX);
            (Some(limit.pace), seconds)
        }
        Turn::Full => (None, FULL_SECONDS + late),
        Turn::Crowd => (None, CROWD_SECONDS + late / 8),
    };
    let queue = match limit.pace {
        Pace::Limited if paced.is_some() && delay == 0 => return Ok(None),
        Pace::Slow => ctx.config.webhook_slow_queue()?,
        // What was tried before does not stand beside what is new.
        Pace::Limited => match held(at_hand, notice) {
            None => ctx.config.webhook_deliver_queue()?,
            Some(_) => ctx.config.webhook_retry_queue()?,
        },
    };
    let notice = DeliveryNotice {
        paced,
        ..notice.clone()
    };
    Ok(Some((queue, deliver::message(&notice, delay)?)))
}

/// What asking for a token led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    At(DateTime<Utc>),
    /// None that can be waited for is left.
    Full,
    /// Too many others asked at the same time.
    Crowd,
}

/// Takes `count` tokens from one bucket. What cannot be read or written is a crowd: nobody is kept from an
/// attempt for good by it.
async fn take(ctx: &Ctx, key: &Key, limit: Limit, count: usize) -> Vec<Turn> {
    for _ in 0..RACE_ROUNDS_MAX {
        match take_once(ctx, key, limit, count).await {
            Ok(Some(turns)) => return turns,
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %error.chain(), "no token could be taken");
                break;
            }
        }
    }
    vec![Turn::Crowd; count]
}

/// Nothing if somebody else was faster.
async fn take_once(ctx: &Ctx, key: &Key, limit: Limit, count: usize) -> Result<Option<Vec<Turn>>> {
    let held = ctx.store.get(key).await?;
    let now = ctx.now();
    let (condition, before) = match &held {
        None => (Condition::Absent, Bucket { full_at: now }),
        Some(item) => (Condition::Rev(item.rev), item.read()?),
    };
    let mut bucket = before.clone();
    let turns = (0..count).map(|_| bucket.take(limit.rate, now));
    let turns = turns
        .map(|turn| turn.map_or(Turn::Full, Turn::At))
        .collect();
    if bucket == before {
        return Ok(Some(turns));
    }
    let gone = now.timestamp() + KEPT_SECONDS;
    let write = Write::put(key.clone(), condition, &bucket)?.expiring(gone);
    match ctx.store.write(write).await {
        Ok(()) => Ok(Some(turns)),
        Err(WriteError::Condition(_) | WriteError::Contended) => Ok(None),
        Err(WriteError::Failed(error)) => Err(error),
    }
}
