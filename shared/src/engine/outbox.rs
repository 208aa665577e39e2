//! From the outbox to the bus. The table's stream calls [`publish`] within moments of an acceptance;
//! the sweeper repeats it for what was left behind.

use crate::bus::Entry;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::notice::Notice;
use crate::store::{Condition, Table, Write, keys};
use chrono::TimeDelta;

/// A row younger than this is still in the hands of the stream.
const SWEEP_AGE_MIN: TimeDelta = TimeDelta::seconds(60);
/// Most rows of one sweep: the next sweep is a minute away.
const SWEEP_ROWS_MAX: usize = 1000;
const SWEEP_PAGE_ROWS: usize = 200;

/// Puts every notice on the bus and deletes its row. Each result stands where its notice stands; a
/// failed one is to be published again, and doubles do no harm.
pub async fn publish(ctx: &Ctx, notices: &[Notice]) -> Vec<Result<()>> {
    let bus = match ctx.config.bus_name() {
        Ok(bus) => bus,
        Err(error) => {
            let line = error.chain();
            return notices
                .iter()
                .map(|_| Err(Error::internal(line.clone())))
                .collect();
        }
    };
    let entries = notices.iter().map(|notice| Entry {
        detail_type: notice.kind.as_str().to_owned(),
        detail: serde_json::to_string(notice).unwrap_or_default(),
    });
    let taken = ctx.bus.put(bus, entries.collect()).await;
    let deletions = notices.iter().zip(taken).map(async |(notice, taken)| {
        taken?;
        let key = keys::outbox(&notice.merchant_id, &notice.event_id);
        Ok(ctx
            .store
            .write(Write::Delete {
                key,
                condition: Condition::Any,
            })
            .await?)
    });
    futures::future::join_all(deletions).await
}

/// Publishes what the stream left behind. Returns how many rows were published.
pub async fn sweep(ctx: &Ctx) -> Result<usize> {
    let (mut after, mut seen, mut published) = (None, 0, 0);
    while seen < SWEEP_ROWS_MAX {
        let page = ctx
            .store
            .scan(Table::Outbox, after.as_deref(), SWEEP_PAGE_ROWS)
            .await?;
        seen += page.items.len();
        let limit = ctx.now() - SWEEP_AGE_MIN;
        let mut late = Vec::new();
        for item in &page.items {
            let notice: Notice = item.read()?;
            if notice.accepted_at < limit {
                late.push(notice);
            }
        }
        for result in publish(ctx, &late).await {
            result?;
            published += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(published)
}
