//! How an endpoint answers: whoever fails again and again is left in peace, tried by one attempt now and
//! then, and switched off in the end. The row is apart from the endpoint, since it is written by many.

use super::endpoint::{self, Endpoint, OffReason};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::model::event::EventType;
use crate::store::{Condition, Item, Write, WriteError, keys};
use crate::sync::delivery::{Admission, Health};
use chrono::{DateTime, Utc};

/// How often a change is tried anew when somebody else was faster. One that is lost counts a failure less.
const RACE_ROUNDS_MAX: usize = 3;

/// The health of an endpoint as its row says, if it has one.
fn read(item: Option<&Item>) -> Result<(Condition, Health)> {
    Ok(match item {
        None => (Condition::Absent, Health::default()),
        Some(item) => (Condition::Rev(item.rev), item.read()?),
    })
}

/// How an endpoint answers by now.
pub(super) async fn of(ctx: &Ctx, endpoint: &Endpoint) -> Result<Health> {
    let key = keys::endpoint_health(&endpoint.merchant_id, &endpoint.id);
    Ok(read(ctx.store.get(&key).await?.as_ref())?.1)
}

/// Whether the endpoint of this row, if there is one, is well.
pub(super) fn is_well(item: Option<&Item>, now: DateTime<Utc>) -> bool {
    read(item).is_ok_and(|(_, health)| health.is_well(now))
}

/// How the endpoint of this row, if there is one, answers.
pub(super) fn at_hand(item: Option<&Item>) -> Result<Health> {
    Ok(read(item)?.1)
}

async fn store(
    ctx: &Ctx,
    endpoint: &Endpoint,
    condition: Condition,
    health: &Health,
) -> Result<bool> {
    let key = keys::endpoint_health(&endpoint.merchant_id, &endpoint.id);
    ctx.recent
        .forget(&keys::endpoint(&endpoint.merchant_id, &endpoint.id));
    match ctx.store.write(Write::put(key, condition, health)?).await {
        Ok(()) => Ok(true),
        Err(WriteError::Condition(_) | WriteError::Contended) => Ok(false),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// Whether an attempt may be made now, after the row `item`. Of those who would find out whether the endpoint is well again,
/// one is let through.
pub(super) async fn admit(
    ctx: &Ctx,
    endpoint: &Endpoint,
    item: Option<&Item>,
) -> Result<Admission> {
    let now = ctx.now();
    let (condition, health) = read(item)?;
    Ok(match health.admit(now) {
        Admission::Probe(probing) => match store(ctx, endpoint, condition, &probing).await? {
            true => Admission::Probe(probing),
            false => Admission::No(probing.rests_until.unwrap_or(now)),
        },
        other => other,
    })
}

/// Notes how an attempt went and how many milliseconds it took. Nothing is written of one that is well and stays
/// so, and nothing read while it is held: it is held only while it is well.
pub(super) async fn note(
    ctx: &Ctx,
    endpoint: &Endpoint,
    well: bool,
    probed: bool,
    took_ms: u64,
) -> Result<()> {
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    let held = ctx.recent.get(&keys::endpoint(merchant, id), ctx.now());
    if well && held.is_some() {
        return Ok(());
    }
    let key = keys::endpoint_health(merchant, id);
    for _ in 0..RACE_ROUNDS_MAX {
        let (condition, health) = read(ctx.store.get(&key).await?.as_ref())?;
        let now = ctx.now();
        let changed = match well {
            true => health.succeeded(),
            false => health.failed(probed, now),
        };
        let changed = changed.took(took_ms, now);
        if changed == health {
            return Ok(());
        }
        if !store(ctx, endpoint, condition, &changed).await? {
            continue;
        }
        if !well && changed.is_hopeless(now) {
            return endpoint::switch_off(ctx, endpoint, OffReason::Failing).await;
        }
        if !well && changed.is_noticeable() {
            return endpoint::tell(ctx, endpoint, EventType::EndpointFailing).await;
        }
        return Ok(());
    }
    Ok(())
}

/// Notes that an attempt takes long, while it does: who waits for its end would send many more meanwhile.
pub(super) async fn note_long(ctx: &Ctx, endpoint: &Endpoint) -> Result<()> {
    let key = keys::endpoint_health(&endpoint.merchant_id, &endpoint.id);
    for _ in 0..RACE_ROUNDS_MAX {
        let (condition, health) = read(ctx.store.get(&key).await?.as_ref())?;
        let changed = health.took_long(ctx.now());
        if changed == health || store(ctx, endpoint, condition, &changed).await? {
            return Ok(());
        }
    }
    Ok(())
}
