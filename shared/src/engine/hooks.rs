//! Webhooks of providers, once they are in our queue: whose they are, and what is to be pulled.

use super::pull;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::notice::{HookNotice, HookReceipt, HookState};
use crate::oauth::connect;
use crate::oauth::connection::{self, Connection, Status};
use crate::providers::provider;
use crate::store::{Condition, Write, WriteError, keys};
use crate::sync::changed::{Change, Changed};
use std::collections::BTreeMap;

/// How often a row is read again that another process has just written.
const RACE_ROUNDS_MAX: usize = 4;

/// Notes on its connection every change that one webhook tells. A body that cannot be read, though its
/// signature was good, is an error: it ends in the dead-letter queue, where somebody looks at it.
pub async fn apply(ctx: &Ctx, notice: &HookNotice) -> Result<()> {
    let hooks = provider(&notice.provider).and_then(|provider| provider.hooks());
    let hooks = hooks.ok_or_else(|| Error::internal("this provider sends no webhooks"))?;
    let Some(read) = hooks.reader() else {
        return nothing_to_apply(ctx, notice).await;
    };
    let changes = read(notice.body.as_bytes()).ok_or_else(|| {
        Error::internal(format!(
            "{} sent a webhook of another shape",
            notice.provider
        ))
    })?;
    let mut touched = BTreeMap::new();
    for change in &changes {
        if let Some(connection) = note(ctx, &notice.provider, change).await? {
            touched.insert(connection.id.clone(), connection);
        }
    }
    for connection in touched.values() {
        pull::wake(ctx, connection).await?;
    }
    Ok(())
}

/// Records that a webhook came of which nothing is made yet.
async fn nothing_to_apply(ctx: &Ctx, notice: &HookNotice) -> Result<()> {
    let provider = &notice.provider;
    tracing::info!(provider, "a webhook of which nothing is to be applied yet");
    let Some(event) = &notice.event else {
        return Ok(());
    };
    let receipt = HookReceipt {
        received_at: notice.received_at,
        state: HookState::NothingToApply,
    };
    let write = Write::put(keys::hook(provider, event), Condition::Any, &receipt)?;
    Ok(ctx.store.write(write.expiring(receipt.ends())).await?)
}

/// Returns the connection that `change` is about, if there is one.
async fn note(ctx: &Ctx, provider: &str, change: &Change) -> Result<Option<Connection>> {
    let Some((merchant, id)) = connect::owner(ctx, provider, &change.tenant).await? else {
        tracing::info!(provider, "a webhook for an account that is not connected");
        return Ok(None);
    };
    let connection = match connection::load(ctx, &merchant, &id).await {
        Ok((_, connection)) if connection.status == Status::Disconnected => return Ok(None),
        Ok((_, connection)) => connection,
        Err(error) if error.code() == Code::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let key = keys::changed(&merchant, &id, &change.kind, &change.id);
    for _ in 0..RACE_ROUNDS_MAX {
        let held = ctx.store.get(&key).await?;
        let condition = held
            .as_ref()
            .map_or(Condition::Absent, |item| Condition::Rev(item.rev));
        let held: Option<Changed> = held.map(|item| item.read()).transpose()?;
        let Some(changed) = change.note(held.as_ref(), ctx.now()) else {
            return Ok(Some(connection));
        };
        let write = Write::put(key.clone(), condition, &changed)?;
        match ctx.store.write(write).await {
            Ok(()) => return Ok(Some(connection)),
            Err(WriteError::Condition(_) | WriteError::Contended) => {}
            Err(WriteError::Failed(error)) => return Err(error),
        }
    }
    Err(Error::new(
        Code::Busy,
        "this row is being changed; it is tried again",
    ))
}
