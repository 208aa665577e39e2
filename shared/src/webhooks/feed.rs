//! The feed: what is pushed to an endpoint can be read as well, a page at a time, from the same log.
//!
//! Deliveries stand in the order in which their events were accepted. Fan-out takes a moment, so one may
//! come to stand before the place to which a reader has come. Therefore a cursor names a place before which
//! nothing new can appear, and what was handed out behind it; and what fan-out brings much too late stands
//! in a list of its own, which is read beside. So each delivery is handed out once, and none is passed over.
//!
//! Who asks for what follows a cursor has what came before it: that much is taken, and is not pushed any
//! more. A cursor is sealed with the endpoint's data key, so only cursors that were given out count.

use super::deliver::{self, Delivery};
use super::endpoint::{Endpoint, Log};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::notice::{DeliveryNotice, StoredEvent};
use crate::oauth::vault::{self, DataKey, Sealed};
use crate::store::{Condition, Write, WriteError, keys};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// What is made longer than this after its event was accepted stands in the list of what is late.
pub(super) const LATE: TimeDelta = TimeDelta::seconds(60);
/// A function writes within its time, two clocks differ by less than this, and both together are less.
const WRITTEN: TimeDelta = TimeDelta::seconds(120);
/// Places that a cursor names behind the one before which nothing new can appear. Where there are more in
/// so short a time, the feed waits until that place moves on: a cursor has to fit into a URL.
const YOUNG_MAX: usize = 300;
/// Bytes of a hash, and characters of its text, that tell one of them from the others.
const NAME_BYTES: usize = 6;
const NAME_CHARACTERS: usize = 8;
/// Deliveries that are looked at for one page, and those taken with one call.
const ROWS_MAX: usize = 1000;
const PAGE_ROWS: usize = 100;
const TAKEN_MAX: usize = 1000;
const SIDE_BY_SIDE_MAX: usize = 16;
/// A page ends once it is as large as this: a function answers with at most 6 MB, in which the body is
/// written as a text once more.
const PAGE_BYTES_MAX: usize = 3 << 20;
/// How long the row of a reader is kept once nobody reads.
const KEPT: TimeDelta = TimeDelta::days(60);

/// How far a reader has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Everything up to this place was handed out, but for what was late.
    #[serde(rename = "p")]
    place: String,
    /// Names of what was handed out behind it, one after the other.
    #[serde(rename = "y")]
    young: String,
    /// Everything up to this place of what was late was handed out.
    #[serde(rename = "l")]
    late: String,
}

impl Position {
    fn names(&self) -> BTreeSet<&str> {
        let names = self.young.as_bytes().chunks(NAME_CHARACTERS);
        names.filter_map(|name| str::from_utf8(name).ok()).collect()
    }
}

fn name(place: &str) -> String {
    BASE64.encode(&Sha256::digest(place)[..NAME_BYTES])
}

fn place_of(delivery: &Delivery) -> String {
    keys::delivery_place(delivery.accepted_at, &delivery.event_id)
}

/// A delivery that came late, as its list holds it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Late {
    pub since: DateTime<Utc>,
    pub delivery: DeliveryNotice,
}

/// One page of a feed.
#[derive(Debug)]
pub struct Page {
    /// The bodies of the webhooks.
    pub events: Vec<Value>,
    /// Whether more stands there already.
    pub has_more: bool,
    /// What to ask for next: it takes what this page holds.
    pub next: String,
}

/// Takes what was handed out up to `after` and hands out up to `limit` more; from the beginning if there is
/// no `after`.
pub async fn read(
    ctx: &Ctx,
    endpoint: &Endpoint,
    after: Option<&str>,
    limit: usize,
) -> Result<Page> {
    if endpoint.log == Log::Failures {
        return Err(Error::new(
            Code::Conflict,
            "the log of this endpoint holds failures alone, so it is no feed; set log to full to read what comes then",
        ));
    }
    let key = vault::unwrap(ctx, endpoint.id.as_str(), &endpoint.key).await?;
    let whole_from = endpoint
        .whole_since
        .map_or(String::new(), keys::deliveries_place);
    let begin = match after {
        None => Position {
            place: whole_from,
            ..Position::default()
        },
        Some(cursor) => {
            let position = open(&key, endpoint, cursor)?;
            if position.place < whole_from {
                return Err(Error::new(
                    Code::Conflict,
                    "the log of this endpoint held failures alone for a while after this place; leave after \
                     out to begin where it is whole again",
                ));
            }
            take(ctx, endpoint, &position).await?;
            position
        }
    };
    let mut limit = limit;
    loop {
        let mut position = begin.clone();
        let (mut notices, more_late) = late(ctx, endpoint, &mut position, limit).await?;
        let left = limit - notices.len();
        let (found, more) = on_time(ctx, endpoint, &mut position, left).await?;
        notices.extend(found);
        let events = bodies(ctx, endpoint, &notices).await?;
        let bytes: usize = events.iter().map(|event| event.to_string().len()).sum();
        if bytes > PAGE_BYTES_MAX && limit > 1 {
            limit /= 2;
            continue;
        }
        return Ok(Page {
            // A reader that is held up by what is too young asks again later, not at once.
            has_more: (more || more_late) && !events.is_empty(),
            next: seal(ctx, &key, endpoint, &position)?,
            events,
        });
    }
}

/// Another use of the data key than sealing secrets: what is sealed for one cannot be opened for the other.
fn owner(endpoint: &Endpoint) -> String {
    format!("feed/{}", endpoint.id)
}

fn seal(ctx: &Ctx, key: &DataKey, endpoint: &Endpoint, position: &Position) -> Result<String> {
    let text = serde_json::to_string(position).map_err(Error::internal)?;
    let sealed = vault::seal(ctx, key, &owner(endpoint), &SecretString::from(text))?;
    Ok(sealed.to_url())
}

fn open(key: &DataKey, endpoint: &Endpoint, cursor: &str) -> Result<Position> {
    let position = || {
        let sealed = Sealed::of_url(cursor);
        let text = vault::open(key, &owner(endpoint), &sealed).ok()?;
        serde_json::from_str(text.expose_secret()).ok()
    };
    position().ok_or_else(|| {
        let detail = "this is no next_cursor of this endpoint's feed; leave it out to begin anew";
        Error::invalid(vec![FieldError::new("/after", "invalid_cursor", detail)])
    })
}

/// Up to `limit` of what stands there behind `position`, which is moved on.
async fn on_time(
    ctx: &Ctx,
    endpoint: &Endpoint,
    position: &mut Position,
    limit: usize,
) -> Result<(Vec<DeliveryNotice>, bool)> {
    let settled = ctx.now() - LATE - WRITTEN;
    let group = keys::deliveries(&endpoint.merchant_id, &endpoint.id);
    let before = position.clone();
    let mut names = before
        .names()
        .into_iter()
        .map(str::to_owned)
        .collect::<BTreeSet<_>>();
    let mut found = Vec::new();
    let mut after = keys::after(&group, &position.place);
    let mut more = false;
    'pages: for _ in 0..ROWS_MAX / PAGE_ROWS {
        let page = ctx.store.list(&group, after.as_deref(), PAGE_ROWS).await?;
        for item in &page.items {
            let delivery: Delivery = item.read()?;
            let place = place_of(&delivery);
            let name = name(&place);
            let is_old = delivery.accepted_at <= settled;
            let is_new = delivery.late_since.is_none() && !names.contains(&name);
            let is_full = found.len() == limit || !is_old && names.len() == YOUNG_MAX;
            if is_new && is_full {
                more = true;
                break 'pages;
            }
            if is_new {
                found.push(delivery.notice());
            }
            if is_old {
                names.remove(&name);
                position.place = place;
            } else if is_new {
                names.insert(name);
            }
        }
        after = page.next;
        more = after.is_some();
        if !more {
            break;
        }
    }
    position.young = names.into_iter().collect();
    Ok((found, more))
}

/// The same of what came late.
async fn late(
    ctx: &Ctx,
    endpoint: &Endpoint,
    position: &mut Position,
    limit: usize,
) -> Result<(Vec<DeliveryNotice>, bool)> {
    let group = keys::late_deliveries(&endpoint.merchant_id, &endpoint.id);
    let after = keys::after(&group, &position.late);
    let page = ctx.store.list(&group, after.as_deref(), limit).await?;
    let mut found = Vec::new();
    for item in &page.items {
        let late: Late = item.read()?;
        if late.since > ctx.now() - WRITTEN {
            return Ok((found, false));
        }
        position.late = keys::delivery_place(late.since, &late.delivery.event_id);
        found.push(late.delivery);
    }
    Ok((found, page.next.is_some()))
}

async fn bodies(ctx: &Ctx, endpoint: &Endpoint, notices: &[DeliveryNotice]) -> Result<Vec<Value>> {
    let mut bodies = Vec::new();
    for chunk in notices.chunks(SIDE_BY_SIDE_MAX) {
        let keys = chunk
            .iter()
            .map(|notice| keys::event(&notice.merchant_id, &notice.event_id));
        let keys: Vec<_> = keys.collect();
        for item in join_all(keys.iter().map(|key| ctx.store.get(key))).await {
            if let Some(item) = item? {
                let event: StoredEvent = item.read()?;
                bodies.push(deliver::told(&event, endpoint.is_thin()));
            }
        }
    }
    Ok(bodies)
}

/// Notes that a reader has everything up to `position`, and lets nothing of it be sent any more.
async fn take(ctx: &Ctx, endpoint: &Endpoint, position: &Position) -> Result<()> {
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    let key = keys::feed(merchant, id);
    let held = ctx.store.get(&key).await?;
    let (condition, mut taken) = match &held {
        None => (Condition::Absent, Position::default()),
        Some(item) => (Condition::Rev(item.rev), item.read::<Position>()?),
    };
    if taken == *position {
        return Ok(());
    }
    let group = keys::deliveries(merchant, id);
    let names = position.names();
    let mut after = keys::after(&group, &taken.place);
    let mut rows = 0;
    'pages: loop {
        let page = ctx.store.list(&group, after.as_deref(), PAGE_ROWS).await?;
        for item in page.items {
            let delivery: Delivery = item.read()?;
            let place = place_of(&delivery);
            let is_young = place > position.place;
            if is_young && names.is_empty() || rows == TAKEN_MAX {
                break 'pages;
            }
            rows += 1;
            let is_taken = !is_young || names.contains(name(&place).as_str());
            if is_taken && delivery.late_since.is_none() {
                deliver::take(ctx, item).await?;
            }
            if !is_young {
                taken.place = place;
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let group = keys::late_deliveries(merchant, id);
    let mut after = keys::after(&group, &taken.late);
    'late: loop {
        let page = ctx.store.list(&group, after.as_deref(), PAGE_ROWS).await?;
        for item in page.items {
            let late: Late = item.read()?;
            let place = keys::delivery_place(late.since, &late.delivery.event_id);
            if place > position.late || rows == TAKEN_MAX {
                break 'late;
            }
            rows += 1;
            let notice = &late.delivery;
            let key = keys::delivery(merchant, id, notice.accepted_at, &notice.event_id);
            if let Some(item) = ctx.store.get(&key).await? {
                deliver::take(ctx, item).await?;
            }
            taken.late = place;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let gone = (ctx.now() + KEPT).timestamp();
    let write = Write::put(key, condition, &taken)?.expiring(gone);
    match ctx.store.write(write).await {
        // Another reader has moved it on; what is taken is taken.
        Ok(()) | Err(WriteError::Condition(_) | WriteError::Contended) => Ok(()),
        Err(WriteError::Failed(error)) => Err(error),
    }
}
