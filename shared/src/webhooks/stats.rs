//! How an endpoint does: what became of the deliveries of the last day, and whether it is left in peace.

use super::deliver::{Delivery, DeliveryState};
use super::endpoint::Endpoint;
use super::health;
use crate::ctx::Ctx;
use crate::error::Result;
use crate::store::{Item, keys};
use crate::sync::delivery::Health;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use std::collections::BTreeMap;

/// How far back deliveries are counted.
const SPAN: TimeDelta = TimeDelta::hours(24);
/// Deliveries that are counted: more take longer than a caller waits.
const COUNTED_MAX: usize = 5000;
const PAGE_ROWS_MAX: usize = 500;

#[derive(Debug, Serialize)]
pub struct Stats {
    /// Of events that were accepted from then
    pub since: DateTime<Utc>,
    /// until then: before now where there were too many.
    pub until: DateTime<Utc>,
    pub deliveries: u64,
    /// Whether some of those that are counted stand for others, which the log leaves out.
    pub estimated: bool,
    /// How many are in which state.
    pub states: BTreeMap<&'static str, u64>,
    /// How many were taken at the first attempt.
    pub delivered_at_first: u64,
    pub attempts: u64,
    /// Of the latest attempts, in milliseconds: how long half of them took, and 95 of 100.
    pub duration_ms_p50: Option<u64>,
    pub duration_ms_p95: Option<u64>,
    /// Since when the oldest of those waits that are still to be delivered.
    pub oldest_pending_at: Option<DateTime<Utc>>,
    pub failing_since: Option<DateTime<Utc>>,
    pub failures_in_a_row: u32,
    /// Until then nothing is sent, and then one attempt decides.
    pub rests_until: Option<DateTime<Utc>>,
}

/// Counts what became of the deliveries to `endpoint`.
pub async fn count(ctx: &Ctx, endpoint: &Endpoint) -> Result<Stats> {
    let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
    let now = ctx.now();
    let health: Health = health::of(ctx, endpoint).await?;
    let mut stats = Stats {
        since: now - SPAN,
        until: now,
        deliveries: 0,
        estimated: false,
        states: DeliveryState::ALL.map(|state| (state.as_str(), 0)).into(),
        delivered_at_first: 0,
        attempts: 0,
        duration_ms_p50: None,
        duration_ms_p95: None,
        oldest_pending_at: None,
        failing_since: health.failing_since,
        failures_in_a_row: health.failures,
        rests_until: health.rests_until,
    };
    let group = keys::deliveries(merchant, id);
    let mut after = Some(keys::deliveries_from(merchant, id, stats.since));
    let (mut durations, mut rows) = (Vec::new(), 0);
    'pages: while let Some(from) = after {
        let page = ctx.store.list(&group, Some(&from), PAGE_ROWS_MAX).await?;
        for delivery in page.items.iter().map(Item::read::<Delivery>) {
            let delivery = delivery?;
            let weight = delivery.stands_for.map_or(1, u64::from);
            rows += 1;
            stats.deliveries += weight;
            stats.estimated |= delivery.stands_for.is_some();
            *stats.states.entry(delivery.state.as_str()).or_default() += weight;
            stats.attempts += u64::from(delivery.attempts_total) * weight;
            let at_first =
                delivery.state == DeliveryState::Delivered && delivery.attempts_total == 1;
            stats.delivered_at_first += u64::from(at_first) * weight;
            let latest = delivery.attempts.last();
            durations.extend(latest.map(|attempt| (attempt.duration_ms, weight)));
            if delivery.state == DeliveryState::Pending {
                stats.oldest_pending_at.get_or_insert(delivery.accepted_at);
            }
            if rows == COUNTED_MAX {
                stats.until = delivery.accepted_at;
                break 'pages;
            }
        }
        after = page.next;
    }
    durations.sort_unstable();
    stats.duration_ms_p50 = share_of(&durations, 50);
    stats.duration_ms_p95 = share_of(&durations, 95);
    Ok(stats)
}

/// The value that `percent` of 100 of those in order do not exceed. Each stands there with how many it is.
fn share_of(sorted: &[(u64, u64)], percent: u64) -> Option<u64> {
    let all: u64 = sorted.iter().map(|(_, weight)| weight).sum();
    let rank = (all * percent).div_ceil(100);
    let mut passed = 0;
    let found = sorted.iter().find(|(_, weight)| {
        passed += weight;
        passed >= rank
    });
    found.map(|(value, _)| *value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_smallest_value_that_covers_it() {
        let all: Vec<(u64, u64)> = (1..=100).map(|value| (value, 1)).collect();
        assert_eq!(
            (share_of(&all, 50), share_of(&all, 95)),
            (Some(50), Some(95))
        );
        let one = [(7, 1)];
        assert_eq!((share_of(&one, 50), share_of(&one, 95)), (Some(7), Some(7)));
        assert_eq!(share_of(&[(1, 1), (9, 1)], 95), Some(9));
        assert_eq!(share_of(&[(1, 100), (9, 5)], 95), Some(1));
        assert_eq!(share_of(&[], 50), None);
    }
}
