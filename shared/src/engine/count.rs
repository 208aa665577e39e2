//! How many of a connection's records stand at its provider. The ledger has no counter: one would be
//! a second write for each push, to one row that all pushes of a connection share. It is counted when
//! somebody asks and kept for a while, and what is too long for one look goes on at the next.

use super::{daily, ledger};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::model::summary::SummaryName;
use crate::oauth::connection::Connection;
use crate::store::{Condition, Write, WriteError, keys, list_all};
use crate::sync::push::{Link, RowKind, Standing};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Rows of one page of a count.
const PAGE_ROWS_MAX: usize = 1000;
/// Rows that one look counts at most.
pub const ROWS_MAX: usize = 20_000;
/// A count is good for this long, and for so much longer for each row that it took: who watches a large
/// ledger does not pay for counting it without pause.
const GOOD_FOR: TimeDelta = TimeDelta::seconds(30);
const GOOD_FOR_EACH_ROW: TimeDelta = TimeDelta::milliseconds(10);
/// A count that took longer from its first row to its last says nothing about any moment, and begins
/// anew.
const TAKES_MAX: TimeDelta = TimeDelta::minutes(10);
/// Most open rows that are counted at each look.
pub const OPEN_MAX: usize = 1000;

/// Records by how they stand at the provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub synced: u64,
    pub pending: u64,
    pub parked: u64,
    pub waiting: u64,
    pub left_out: u64,
}

impl Counts {
    fn add(&mut self, standing: Standing) {
        let one = match standing {
            Standing::Synced => &mut self.synced,
            Standing::Pending => &mut self.pending,
            Standing::Parked => &mut self.parked,
            Standing::Waiting => &mut self.waiting,
            Standing::LeftOut => &mut self.left_out,
        };
        *one += 1;
    }

    /// The counts of both.
    pub fn plus(self, other: Counts) -> Counts {
        Counts {
            synced: self.synced + other.synced,
            pending: self.pending + other.pending,
            parked: self.parked + other.parked,
            waiting: self.waiting + other.waiting,
            left_out: self.left_out + other.left_out,
        }
    }

    /// Those that should stand at the provider: all but what the merchant left out.
    pub fn wanted(self) -> u64 {
        self.synced + self.pending + self.parked + self.waiting
    }

    fn all(self) -> u64 {
        self.wanted() + self.left_out
    }

    /// The share of those that should stand there and do, from 0 to 1 with six decimals, rounded down
    /// so that 1 means all; nothing where none should.
    pub fn accuracy(self) -> Option<String> {
        let millionths = (u128::from(self.synced) * 1_000_000).checked_div(self.wanted().into())?;
        Some(format!(
            "{}.{:06}",
            millionths / 1_000_000,
            millionths % 1_000_000
        ))
    }
}

/// A count that is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub counts: Counts,
    /// What was written after this time may be counted or not.
    pub as_of: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Under {
    counts: Counts,
    began_at: DateTime<Utc>,
    /// The place in the ledger after which it goes on.
    after: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Held {
    last: Option<Count>,
    under_way: Option<Under>,
}

/// What is known of a connection's records as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The last count; nothing while the first one is under way.
    pub count: Option<Count>,
    /// How many records the count that is under way has seen; asking again carries it on.
    pub counting: Option<u64>,
    /// Records with a problem, parked or failing, and records that wait: as of now, each at most
    /// [`OPEN_MAX`].
    pub troubled: usize,
    pub waiting: usize,
}

/// Counts the records of `connection`, or returns what was counted a short while ago. Looks at no more
/// than `rows_max` rows, and takes from it what it looked at.
pub async fn summary(ctx: &Ctx, connection: &Connection, rows_max: &mut usize) -> Result<Summary> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let now = ctx.now();
    let open = async |group| list_all(&*ctx.store, &group, OPEN_MAX).await;
    let troubled = open(keys::troubled(merchant, id)).await?.len();
    let waiting = open(keys::waiting(merchant, id)).await?.len();
    let key = keys::count(merchant, id);
    let (condition, mut held): (_, Held) = match ctx.store.get(&key).await? {
        Some(item) => (Condition::Rev(item.rev), item.read()?),
        None => (Condition::Absent, Held::default()),
    };
    let good = held.last.as_ref().is_some_and(|last| {
        let rows = i32::try_from(last.counts.all()).unwrap_or(i32::MAX);
        now - last.as_of < GOOD_FOR + GOOD_FOR_EACH_ROW * rows
    });
    if !good && *rows_max > 0 {
        let under_way = held.under_way.take();
        let mut under = under_way
            .filter(|under| now - under.began_at < TAKES_MAX)
            .unwrap_or(Under {
                counts: Counts::default(),
                began_at: now,
                after: None,
            });
        let ended = go_on(ctx, connection, &mut under, rows_max).await?;
        if ended {
            held.last = Some(Count {
                counts: under.counts,
                as_of: under.began_at,
            });
        } else {
            held.under_way = Some(under);
        }
        match ctx.store.write(Write::put(key, condition, &held)?).await {
            // Somebody who counts at the same time keeps what he counted.
            Ok(()) | Err(WriteError::Condition(_) | WriteError::Contended) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Ok(Summary {
        count: held.last,
        counting: held.under_way.map(|under| under.counts.all()),
        troubled,
        waiting,
    })
}

/// Counts further; returns whether it came to the end.
async fn go_on(
    ctx: &Ctx,
    connection: &Connection,
    under: &mut Under,
    rows_max: &mut usize,
) -> Result<bool> {
    let group = keys::ledger(&connection.merchant_id, &connection.id);
    while *rows_max > 0 {
        let limit = PAGE_ROWS_MAX.min(*rows_max);
        let after = under.after.as_deref();
        let page = ledger::page(ctx, &group, &ledger::KINDS, after, limit);
        let (items, next) = page.await?;
        *rows_max -= items.len().max(1);
        let mut rows = Vec::with_capacity(items.len());
        for item in &items {
            let row = ledger::row_at(keys::place(&item.key));
            // A summary is counted by the records behind it.
            let row = row.filter(|row| SummaryName::parse(&row.id).is_none());
            rows.extend(row.map(|row| item.read().map(|link: Link| (row.kind, link))));
        }
        let rows: Vec<(RowKind, Link)> = rows.into_iter().collect::<Result<_>>()?;
        let links = rows.iter().map(|(kind, link)| (*kind, link));
        let summaries = daily::rows_of(ctx, connection, links).await?;
        for (kind, link) in &rows {
            let summary = link.summary(*kind).and_then(|row| summaries.get(&row));
            under.counts.add(link.standing_in(summary));
        }
        under.after = next;
        if under.after.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn one_means_all() {
        let counts = |synced, parked| Counts {
            synced,
            parked,
            left_out: 5,
            ..Counts::default()
        };
        for (synced, parked, expected) in [
            (0, 0, None),
            (0, 3, Some("0.000000")),
            (2, 1, Some("0.666666")),
            (3, 0, Some("1.000000")),
            (u64::MAX / 2, 1, Some("0.999999")),
        ] {
            assert_eq!(counts(synced, parked).accuracy().as_deref(), expected);
        }
    }
}
