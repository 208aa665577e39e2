//! Records as they are now, beside what the ledger says of their documents at one connection.

use super::ledger;
use super::push::{self, Record, Target};
use crate::ctx::Ctx;
use crate::error::Result;
use crate::oauth::connection::Connection;
use crate::providers::accounting::{Accounting, Document};
use crate::store::Item;
use crate::sync::push::{Link, Open, RowRef};
use futures::future::join_all;
use std::collections::BTreeMap;

/// Records that are read side by side.
const SIDE_BY_SIDE_MAX: usize = 16;

/// One record with the rows of the documents that it needs.
pub(super) struct Known {
    pub target: Target,
    pub record: Record,
    links: BTreeMap<RowRef, Link>,
    own: Link,
}

fn row_of(document: &Document) -> RowRef {
    RowRef {
        kind: document.form().kind(),
        id: document.id(),
    }
}

impl Known {
    /// The documents that the record needs in the books, each with its row if there is one. None for
    /// what the merchant does not want to have sent.
    pub fn documents(
        &self,
        provider: &dyn Accounting,
        connection: &Connection,
    ) -> Vec<(Document<'_>, Option<&Link>)> {
        let from = connection.settings.records_from;
        if from.is_some_and(|from| self.record.at().is_some_and(|at| at < from)) {
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
            target,
            record,
        })
        .collect();
    let rows = known.iter().flat_map(|one| {
        let documents = one.record.documents(provider, connection, &one.own);
        documents.iter().map(row_of).collect::<Vec<_>>()
    });
    let more = rows.filter(|row| !own.contains_key(row)).collect();
    let mut all = own;
    all.extend(links(ctx, connection, more).await?);
    for one in &mut known {
        let documents = one.record.documents(provider, connection, &one.own);
        let rows = documents.iter().map(row_of);
        one.links = rows
            .filter_map(|row| all.get(&row).cloned().map(|link| (row, link)))
            .collect();
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
    let records = push::load(ctx, &target).await?;
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
