//! Records that meet a connection which cannot be used for a while: the ledger says that they wait,
//! and once the connection is live again they are pushed.
//!
//! Becoming live is told as `connection.connected`. Its notice begins a walk over the rows beside the
//! ledger that say what waits, which sends all of it to the queue again, each by itself, and ends
//! with a message that carries on. So no function works longer than one page takes, and what fails is
//! tried again alone. A mark goes away only when its record was dealt with, so a walk may be broken
//! off, doubled and repeated.

use super::again;
use super::ledger::{self, RowName};
use super::push::{Target, load};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::ConnectionId;
use crate::model::notice::Notice;
use crate::oauth::connection::{self, Connection, Status};
use crate::providers::accounting::Accounting;
use crate::store::{Item, keys};
use crate::sync::push::Open;

/// Waiting records that one message looks at.
const PAGE_ROWS_MAX: usize = 500;

/// Notes that what `wanted` brings up waits for `connection`, as far as its books are to show it.
pub(super) async fn note(
    ctx: &Ctx,
    provider: &dyn Accounting,
    connection: &Connection,
    wanted: &[Target],
) -> Result<()> {
    for asked in wanted {
        for (target, record) in load(ctx, connection, asked).await? {
            ledger::change(ctx, connection, &RowName::of(&target), |link| {
                let summed = record.summed_in(connection, link).is_some();
                let settled = record.is_settled() || link.summed.is_some();
                let alone = !record.documents(provider, connection, link).is_empty();
                let waits = (alone || summed && settled).then(|| link.wait(record.rev, ctx.now()));
                waits.flatten()
            })
            .await?;
        }
    }
    Ok(())
}

/// Sends one page of what waits, and the message that goes on after it.
pub(super) async fn take_up(ctx: &Ctx, provider: &dyn Accounting, notice: &Notice) -> Result<()> {
    let id: ConnectionId = notice.record.id.parse().map_err(Error::internal)?;
    let merchant = &notice.merchant_id;
    let connection = match connection::load(ctx, merchant, &id).await {
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let name = provider.manifest().name;
    // Once it is live again, another notice begins another walk.
    if connection.provider != name || connection.status != Status::Live {
        return Ok(());
    }
    let group = keys::waiting(merchant, &id);
    let after = notice.after.as_deref();
    let page = ctx.store.list(&group, after, PAGE_ROWS_MAX).await?;
    let rows: Vec<Open> = page.items.iter().map(Item::read).collect::<Result<_>>()?;
    let again = rows.into_iter().map(|waiting| Notice {
        record: waiting.record,
        order_id: waiting.order_id,
        after: None,
        ..notice.clone()
    });
    let mut notices: Vec<Notice> = again.collect();
    if !notices.is_empty() {
        tracing::info!(
            merchant_id = %merchant, connection_id = %id, count = notices.len(), "no longer waits"
        );
    }
    notices.extend(page.next.map(|next| Notice {
        after: Some(next),
        ..notice.clone()
    }));
    if notices.is_empty() {
        return Ok(());
    }
    again::send(ctx, name, notices).await
}
