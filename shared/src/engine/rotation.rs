//! Rotation of the vault's root key. A new root key is made; once every function knows it, all data
//! keys are wrapped anew with it, a page at a time; then the old one is forgotten. No token is opened
//! and none is written.

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::oauth::brought::Brought;
use crate::oauth::connect::LINK_LIFE;
use crate::oauth::connection::Connection;
use crate::oauth::vault::{self, Rewrapped, Ring, WrappedKey};
use crate::queue::Message;
use crate::secrets::SECRET_AGE_MAX;
use crate::store::{Condition, Item, Table, Write, WriteError, keys};
use crate::webhooks::endpoint::Endpoint;
use serde::{Deserialize, Serialize};

/// Rows of one page.
const PAGE_ROWS_MAX: usize = 200;
/// How often a row that somebody else is changing is read again.
const RACE_ROUNDS_MAX: usize = 8;
/// By then no function holds a ring without the new key.
const SETTLED: u64 = SECRET_AGE_MAX.as_secs() + 60;
/// The longest that a queue holds a message back.
const PAUSE_SECONDS: u16 = 900;
/// A root key signs the links of consents too, so it is kept until the last of those has expired.
const RETIRE_PAUSES: u32 = (LINK_LIFE.num_seconds() as u32).div_ceil(PAUSE_SECONDS as u32);

/// One step of a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Rotation {
    /// Make a new root key.
    Turn,
    /// Wrap the data keys of one page with the root key `root`.
    Rewrap {
        root: String,
        webhooks: bool,
        after: Option<String>,
    },
    /// Forget every root key but `root`, after so many more pauses.
    Retire {
        root: String,
        #[serde(default)]
        pauses: u32,
    },
}

/// Does one step and sends the next one to the queue.
pub async fn step(ctx: &Ctx, rotation: Rotation) -> Result<()> {
    let Some((next, delay_seconds)) = take(ctx, rotation).await? else {
        return Ok(());
    };
    let message = Message {
        body: serde_json::to_string(&next).map_err(Error::internal)?,
        delay_seconds,
        group: None,
    };
    ctx.queue
        .send_later(ctx.config.vault_queue()?, vec![message])
        .await
}

async fn take(ctx: &Ctx, rotation: Rotation) -> Result<Option<(Rotation, u16)>> {
    let secret = ctx.config.vault_secret()?;
    let held = ctx.secrets.get_fresh(secret).await?;
    let mut ring = Ring::read(&held)?;
    match rotation {
        Rotation::Turn => {
            // A rotation that is under way is carried on instead of beginning a second one.
            if ring.len() == 1 {
                ring.turn(ctx.random());
                // Of two that turn at once one fails and carries on: what was wrapped with the other's
                // key could never be opened again.
                ctx.secrets.replace(secret, &held, &ring.text()?).await?;
                tracing::info!(root = %ring.current, "a new root key");
            }
            let next = Rotation::Rewrap {
                root: ring.current,
                webhooks: false,
                after: None,
            };
            Ok(Some((next, u16::try_from(SETTLED).unwrap_or(900))))
        }
        Rotation::Rewrap {
            root,
            webhooks,
            after,
        } => {
            if ring.current != root {
                return Ok(None);
            }
            let after = rewrap_page(ctx, &root, webhooks, after.as_deref()).await?;
            let next = match (after, webhooks) {
                (after @ Some(_), webhooks) => Rotation::Rewrap {
                    root,
                    webhooks,
                    after,
                },
                (None, false) => Rotation::Rewrap {
                    root,
                    webhooks: true,
                    after: None,
                },
                (None, true) => {
                    let pauses = RETIRE_PAUSES - 1;
                    return Ok(Some((Rotation::Retire { root, pauses }, PAUSE_SECONDS)));
                }
            };
            Ok(Some((next, 0)))
        }
        Rotation::Retire { root, pauses } => {
            if ring.current == root && pauses > 0 {
                let pauses = pauses - 1;
                return Ok(Some((Rotation::Retire { root, pauses }, PAUSE_SECONDS)));
            }
            if ring.current == root && ring.len() > 1 {
                ring.retire();
                ctx.secrets.replace(secret, &held, &ring.text()?).await?;
                tracing::info!(%root, "the root keys before are forgotten");
            }
            Ok(None)
        }
    }
}

/// Wraps the keys of one page, and returns where the next one begins.
async fn rewrap_page(
    ctx: &Ctx,
    root: &str,
    webhooks: bool,
    after: Option<&str>,
) -> Result<Option<String>> {
    let table = if webhooks {
        Table::Webhooks
    } else {
        Table::Connections
    };
    let page = ctx.store.scan(table, after, PAGE_ROWS_MAX).await?;
    for item in page.items {
        let key = &item.key;
        if keys::is_connection(key) || keys::is_import(key) || keys::is_endpoint(key) {
            rewrap(ctx, root, item).await?;
        }
    }
    Ok(page.next)
}

async fn rewrap(ctx: &Ctx, root: &str, mut item: Item) -> Result<()> {
    for _ in 0..RACE_ROUNDS_MAX {
        let Some(write) = rewrapped(ctx, root, &item).await? else {
            return Ok(());
        };
        match ctx.store.write(write).await {
            Ok(()) => return Ok(()),
            Err(WriteError::Failed(error)) => return Err(error),
            Err(WriteError::Condition(_) | WriteError::Contended) => {
                match ctx.store.get(&item.key).await? {
                    Some(newer) => item = newer,
                    None => return Ok(()),
                }
            }
        }
    }
    Err(Error::internal("a row keeps changing"))
}

/// The same document with its key wrapped by `root`; `None` when it is so already, or holds none.
async fn rewrapped(ctx: &Ctx, root: &str, item: &Item) -> Result<Option<Write>> {
    if item.doc["key"].is_null() {
        return Ok(None);
    }
    let condition = Condition::Rev(item.rev);
    if keys::is_connection(&item.key) {
        let mut connection: Connection = item.read()?;
        let Some(key) = &connection.key else {
            return Ok(None);
        };
        let Some(key) = turned(ctx, connection.vault_owner(), key, root).await? else {
            return Ok(None);
        };
        connection.key = Some(key);
        let write = Write::put(item.key.clone(), condition, &connection)?;
        return Ok(Some(match connection.vanishes_at() {
            Some(at) => write.expiring(at.timestamp()),
            None => write,
        }));
    }
    if keys::is_import(&item.key) {
        let mut brought: Brought = item.read()?;
        let Some(key) = &brought.key else {
            return Ok(None);
        };
        let Some(key) = turned(ctx, keys::import_owner(&item.key), key, root).await? else {
            return Ok(None);
        };
        brought.key = Some(key);
        return brought.write(&item.key, condition).map(Some);
    }
    let mut endpoint: Endpoint = item.read()?;
    let key = turned(ctx, endpoint.id.as_str(), &endpoint.key, root).await?;
    let Some(key) = key else { return Ok(None) };
    endpoint.key = key;
    Write::put(item.key.clone(), condition, &endpoint).map(Some)
}

/// The key of `owner`, wrapped by `root`; `None` when there is nothing to do, or nothing that can be
/// done: what no root key of the ring opens is lost already, and must not keep the rest from turning.
async fn turned(
    ctx: &Ctx,
    owner: &str,
    key: &WrappedKey,
    root: &str,
) -> Result<Option<WrappedKey>> {
    match vault::rewrap(ctx, owner, key, root).await? {
        Rewrapped::Anew(key) => Ok(Some(key)),
        Rewrapped::Already => Ok(None),
        Rewrapped::Lost(error) => {
            tracing::error!(%owner, error = %error.chain(), "a data key cannot be opened");
            Ok(None)
        }
    }
}
