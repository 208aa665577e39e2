//! Records as they are now, beside what the ledger says of their documents at one connection.

use super::ledger;
use super::push::{self, Record, Target};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::oauth::connection::Connection;
use crate::providers::accounting::{Accounting, Document};
use crate::store::Item;
use crate::sync::push::{Link, Open, RowRef, Standing};
use futures::future::join_all;
use std::collections::{BTreeMap, BTreeSet};

/// Records that are read side by side.
const SIDE_BY_SIDE_MAX: usize = 16;

/// One record with the rows of the documents that it needs.
pub(super) struct Known {
    pub target: Target,
    pub record: Record,
    links: BTreeMap<RowRef, Link>,
    own: Link,
    /// The row of the summary in which it is posted.
    summary: Option<Link>,
}

fn row_of(document: &Document) -> RowRef {
    RowRef {
        kind: document.form().kind(),
        id: document.id(),
    }
}

/// The row of the summary in which `one` is posted.
fn summary_row(connection: &Connection, one: &Known) -> Option<RowRef> {
    let name = one.record.summed_in(connection, &one.own)?;
    let kind = RowRef::of(&one.target.record).kind;
    let id = name.id();
    Some(RowRef { kind, id })
}

impl Known {
    /// The documents that the record needs in the books, each with its row if there is one. None for
    /// what the merchant does not want to have sent.
    pub fn documents(
        &self,
        provider: &dyn Accounting,
        connection: &Connection,
    ) -> Vec<(Document<'_>, Option<&Link>)> {
        if self.record.is_early(connection, &self.own) {
            return Vec::new();
        }
        let documents = self.record.documents(provider, connection, &self.own);
        documents
            .into_iter()
            .map(|document| {
                let link = self.links.get(&row_of(&document));
                (document, link)
            })
            .collect()
    }
}

impl Known {
    /// How it stands in the summary in which it is posted; `None` for what is posted by itself, and for
    /// what no summary is to hold.
    pub fn standing_in_summary(&self, connection: &Connection) -> Option<Standing> {
        self.record.summed_in(connection, &self.own)?;
        let wanted = self.record.is_settled() && !self.record.is_early(connection, &self.own);
        wanted.then(|| match self.own.record_rev < self.record.rev {
            true => Standing::Pending,
            false => self.own.standing_in(self.summary.as_ref()),
        })
    }
}

/// Reads what `wanted` names; what has not arrived is left out.
pub(super) async fn load(
    ctx: &Ctx,
    provider: &dyn Accounting,
    connection: &Connection,
    wanted: &[Open],
) -> Result<Vec<Known>> {
    let mut found: Vec<(Target, Record)> = Vec::new();
    for chunk in wanted.chunks(SIDE_BY_SIDE_MAX) {
        let reads: Vec<_> = chunk
            .iter()
            .map(|open| one(ctx, connection, open))
            .collect();
        for read in join_all(reads).await {
            found.extend(read?);
        }
    }
    let own: Vec<RowRef> = found
        .iter()
        .map(|(target, _)| RowRef::of(&target.record))
        .collect();
    let own = links(ctx, connection, own).await?;
    let mut known: Vec<Known> = found
        .into_iter()
        .map(|(target, record)| Known {
            own: own
                .get(&RowRef::of(&target.record))
                .cloned()
                .unwrap_or_default(),
            links: BTreeMap::new(),
            summary: None,
            target,
            record,
        })
        .collect();
    let rows = known.iter().flat_map(|one| {
        let documents = one.record.documents(provider, connection, &one.own);
        let documents = documents.iter().map(row_of);
        documents
            .chain(summary_row(connection, one))
            .collect::<Vec<_>>()
    });
    let more: BTreeSet<RowRef> = rows.filter(|row| !own.contains_key(row)).collect();
    let more = more.into_iter().collect();
    let mut all = own;
    all.extend(links(ctx, connection, more).await?);
    for one in &mut known {
        let documents = one.record.documents(provider, connection, &one.own);
        let rows = documents.iter().map(row_of);
        one.links = rows
            .filter_map(|row| all.get(&row).cloned().map(|link| (row, link)))
            .collect();
        one.summary = summary_row(connection, one).and_then(|row| all.get(&row).cloned());
    }
    Ok(known)
}

/// The record that `open` names as it is now.
async fn one(ctx: &Ctx, connection: &Connection, open: &Open) -> Result<Option<(Target, Record)>> {
    let target = Target {
        merchant_id: connection.merchant_id.clone(),
        record: open.record.clone(),
        order_id: open.order_id.clone(),
    };
    // An order brings its refunds along, behind itself.
    let records = push::load(ctx, connection, &target).await?;
    Ok(records.into_iter().next())
}

/// The rows of `wanted` that there are.
pub(super) async fn links(
    ctx: &Ctx,
    connection: &Connection,
    wanted: Vec<RowRef>,
) -> Result<BTreeMap<RowRef, Link>> {
    let items = ctx
        .store
        .get_many(&ledger::rows(connection, &wanted))
        .await?;
    let mut found = BTreeMap::new();
    for (row, item) in wanted.into_iter().zip(items) {
        if let Some(link) = item.as_ref().map(Item::read::<Link>).transpose()? {
            found.insert(row, link);
        }
    }
    Ok(found)
}
