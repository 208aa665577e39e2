//! Imports under way, by the refresh token that was brought. A refresh token may work once, and some
//! providers end the whole grant when it is used again. So one import at a time holds the row of its
//! token; what the provider gave is stored there before anything else is asked, and stays until there is
//! a connection; and which connection that is stays, so that the same import sent again is told of it and
//! uses nothing, however much later, and one for another merchant is refused.

use super::connect::step_aside;
use super::connection::{self, Connection, Status};
use super::setup::Given;
use super::tokens;
use super::vault::{self, DataKey, Sealed, WrappedKey};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::{ConnectionId, MerchantId};
use crate::providers::Manifest;
use crate::store::{Condition, Key, Write, WriteError, keys};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long what an import was given is kept for another try.
const KEPT: TimeDelta = TimeDelta::days(1);
/// How long others must have seen an import not end until it is taken for dead: longer than the function
/// lives that does it (29 seconds).
const DEAD: Duration = Duration::from_secs(35);
/// How long one request watches another import of the same token, and how often it looks.
const WATCH: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_secs(1);
/// How often a row that others change too is tried to be changed.
const ROUNDS_MAX: u32 = 8;
/// The pause between two tries to store what was given.
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// The row of one token.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Brought {
    /// Absent once there is a connection.
    pub key: Option<WrappedKey>,
    /// What the provider gave; absent until it has answered, and once there is a connection.
    sealed: Option<Sealed>,
    access_expires_at: Option<DateTime<Utc>>,
    scopes: Option<Vec<String>>,
    /// Grows with each import that takes the row, so that one that was taken for dead can tell.
    fence: u64,
    /// Whether the import of this fence is at work, as far as the row knows.
    held: bool,
    /// For how long others saw it not end, in milliseconds. No clock is asked: a clock that is fast would
    /// let two use one token.
    watched: u64,
    /// What it became.
    became: Option<Became>,
    /// When the row goes away; never once there is a connection.
    vanishes_at: Option<DateTime<Utc>>,
}

/// The connection that came of a token.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Became {
    merchant_id: MerchantId,
    connection_id: ConnectionId,
}

impl Brought {
    /// The write that stores it in its row.
    pub fn write(&self, row: &Key, condition: Condition) -> Result<Write> {
        let write = Write::put(row.clone(), condition, self)?;
        Ok(match self.vanishes_at {
            Some(at) => write.expiring(at.timestamp()),
            None => write,
        })
    }

    /// Whether somebody is at work on it who may be alive.
    fn is_busy(&self) -> bool {
        self.held && Duration::from_millis(self.watched) < DEAD
    }
}

/// The row of one token, held by this import alone.
pub(super) struct Hold {
    row: Key,
    key: DataKey,
    held: Brought,
    /// The revision of `held`.
    rev: u64,
    /// Whether this is the first import of the token.
    pub first: bool,
}

/// What stands at a token that is brought.
pub(super) enum Taken {
    Held(Box<Hold>),
    /// It was imported before.
    Became(Box<Connection>),
}

/// Another import of the same token, as it was seen first.
struct Watched {
    fence: u64,
    rev: u64,
    since: Duration,
}

/// Takes the row of a token, of which `token` is the hash.
///
/// # Errors
/// [`Code::Busy`] while somebody else has it, and [`Code::Conflict`] when a connection of another merchant
/// came of it.
pub(super) async fn take(
    ctx: &Ctx,
    manifest: &Manifest,
    merchant: &MerchantId,
    token: &str,
) -> Result<Taken> {
    let row = keys::import(manifest.name, token);
    let mut waited = Duration::ZERO;
    let mut watched: Option<Watched> = None;
    for _ in 0..ROUNDS_MAX {
        let (condition, before) = loop {
            let Some(item) = ctx.store.get(&row).await? else {
                break (Condition::Absent, Brought::default());
            };
            let held: Brought = item.read()?;
            if let Some(became) = &held.became {
                match alive(ctx, became).await? {
                    None => break (Condition::Rev(item.rev), Brought::default()),
                    Some(connection) if connection.merchant_id == *merchant => {
                        return Ok(Taken::Became(Box::new(connection)));
                    }
                    Some(_) => return Err(used_elsewhere(manifest)),
                }
            }
            if !held.is_busy() {
                break (Condition::Rev(item.rev), held);
            }
            let since = match &watched {
                Some(watched) if watched.fence == held.fence => watched.since,
                _ => {
                    watched = Some(Watched {
                        fence: held.fence,
                        rev: item.rev,
                        since: waited,
                    });
                    waited
                }
            };
            if waited >= WATCH {
                let rev = watched.as_ref().map_or(item.rev, |watched| watched.rev);
                note(ctx, &row, held, rev, waited - since).await?;
                return Err(busy());
            }
            ctx.clock.sleep(LOOK).await;
            waited += LOOK;
        };
        if let Some(hold) = try_take(ctx, &row, condition, before).await? {
            return Ok(Taken::Held(Box::new(hold)));
        }
        step_aside(ctx).await;
    }
    Err(busy())
}

/// Takes the row as it was read; `None` when somebody else was faster.
async fn try_take(
    ctx: &Ctx,
    row: &Key,
    condition: Condition,
    before: Brought,
) -> Result<Option<Hold>> {
    let owner = keys::import_owner(row);
    let known = match &before.key {
        None => None,
        // Without it the root key that wrapped it was forgotten meanwhile, and what was given with it.
        // When the vault cannot be asked, what was given waits: it may be all there is.
        Some(key) => vault::unwrap_if_kept(ctx, owner, key).await?,
    };
    let fence = before.fence + 1;
    let first = known.is_none();
    let (key, before) = match known {
        Some(key) => (key, before),
        None => {
            let (key, wrapped) = vault::new_key(ctx, owner).await?;
            let new = Brought {
                key: Some(wrapped),
                ..Brought::default()
            };
            (key, new)
        }
    };
    let held = Brought {
        fence,
        held: true,
        watched: 0,
        vanishes_at: Some(ctx.now() + KEPT),
        ..before
    };
    match ctx.store.write(held.write(row, condition)?).await {
        Ok(()) => Ok(Some(Hold {
            row: row.clone(),
            key,
            held,
            rev: match condition {
                Condition::Rev(rev) => rev + 1,
                _ => 1,
            },
            first,
        })),
        Err(WriteError::Condition(_) | WriteError::Contended) => Ok(None),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// Notes for how long the import of `held` was seen not to end, beginning with revision `rev`: if somebody
/// noted the same time meanwhile, it is not counted twice.
async fn note(ctx: &Ctx, row: &Key, held: Brought, rev: u64, seen: Duration) -> Result<()> {
    let seen = u64::try_from(seen.as_millis()).unwrap_or(0);
    let noted = Brought {
        watched: held.watched + seen,
        ..held
    };
    match ctx
        .store
        .write(noted.write(row, Condition::Rev(rev))?)
        .await
    {
        Ok(()) | Err(WriteError::Condition(_) | WriteError::Contended) => Ok(()),
        Err(WriteError::Failed(error)) => Err(error),
    }
}

/// The connection that came of a token, unless it was given up: whether the token outlived that is for the
/// provider to say.
async fn alive(ctx: &Ctx, became: &Became) -> Result<Option<Connection>> {
    match connection::load(ctx, &became.merchant_id, &became.connection_id).await {
        Ok((_, connection)) if connection.status != Status::Disconnected => Ok(Some(connection)),
        Ok(_) => Ok(None),
        Err(error) if error.code() == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// For whoever meets an import of the same tokens that is under way.
fn busy() -> Error {
    let detail = "these tokens are being imported at this moment; send it again in a minute";
    Error::new(Code::Busy, detail)
}

fn used_elsewhere(manifest: &Manifest) -> Error {
    let title = manifest.title;
    let detail = format!(
        "this refresh token was used already, when it was imported for another shop; used again it could \
         end that shop's access to {title}. Disconnect it there first, or connect this shop with a \
         consent of its own"
    );
    Error::new(Code::Conflict, detail)
}

impl Hold {
    /// What the provider gave to an import before this one that did not end well.
    pub fn given(&self) -> Result<Option<Given>> {
        let Some(sealed) = &self.held.sealed else {
            return Ok(None);
        };
        Ok(Some(Given {
            grant: tokens::open(&self.key, keys::import_owner(&self.row), sealed)?,
            access_expires_at: self.held.access_expires_at,
            scopes: self.held.scopes.clone(),
        }))
    }

    /// The row as it stands, with its revision.
    ///
    /// # Errors
    /// [`Code::Busy`] when this import was taken for dead, and somebody else goes on with the token.
    async fn ours(&self, ctx: &Ctx) -> Result<(u64, Brought)> {
        let item = ctx.store.get(&self.row).await?.ok_or_else(busy)?;
        let held: Brought = item.read()?;
        match held.fence == self.held.fence {
            true => Ok((item.rev, held)),
            false => Err(busy()),
        }
    }

    /// Stores what the provider gave, before it is used. Without this row the import can still succeed,
    /// so it goes on where the row cannot be written.
    pub async fn keep(&mut self, ctx: &Ctx, given: &Given) -> Result<()> {
        let owner = keys::import_owner(&self.row);
        let sealed = tokens::seal(ctx, &self.key, owner, &given.grant)?;
        for _ in 0..ROUNDS_MAX {
            self.held.sealed = Some(sealed.clone());
            self.held.access_expires_at = given.access_expires_at;
            self.held.scopes.clone_from(&given.scopes);
            // No look before the write: nothing that can fail stands between the two.
            let write = self.held.write(&self.row, Condition::Rev(self.rev))?;
            let error = match ctx.store.write(write).await {
                Ok(()) => return Ok(()),
                // Others noted something there, or it was stored and the answer was lost.
                Err(WriteError::Condition(_) | WriteError::Contended) => {
                    match self.ours(ctx).await {
                        Ok(stands) => {
                            (self.rev, self.held) = stands;
                            continue;
                        }
                        Err(error) if error.code() == Code::Busy => return Err(error),
                        Err(error) => error,
                    }
                }
                Err(WriteError::Failed(error)) => error,
            };
            tracing::warn!(error = %error.chain(), "what an import was given is not stored yet");
            ctx.clock.sleep(STORE_PAUSE).await;
        }
        Ok(())
    }

    /// The write that says which connection came of the token. It belongs into the transaction that makes
    /// that connection live: otherwise what was given could be used once more, by the connection and by
    /// the next import.
    pub async fn became(
        &self,
        ctx: &Ctx,
        merchant: &MerchantId,
        connection: &ConnectionId,
    ) -> Result<Write> {
        let (rev, held) = self.ours(ctx).await?;
        let became = Brought {
            became: Some(Became {
                merchant_id: merchant.clone(),
                connection_id: connection.clone(),
            }),
            fence: held.fence,
            ..Brought::default()
        };
        became.write(&self.row, Condition::Rev(rev))
    }

    /// Lets go of the row, for the same import sent again. That can fail: then others wait until they have
    /// seen for long enough that nobody is at work.
    pub async fn let_go(self, ctx: &Ctx) {
        for _ in 0..ROUNDS_MAX {
            match self.try_let_go(ctx).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "an import's row is not let go of");
                    return;
                }
            }
        }
    }

    async fn try_let_go(&self, ctx: &Ctx) -> Result<bool> {
        let (rev, held) = self.ours(ctx).await?;
        let condition = Condition::Rev(rev);
        let write = match (&held.became, &held.sealed) {
            (Some(_), _) => return Ok(true),
            (None, Some(_)) => Brought {
                held: false,
                ..held
            }
            .write(&self.row, condition)?,
            (None, None) => Write::Delete {
                key: self.row.clone(),
                condition,
            },
        };
        match ctx.store.write(write).await {
            Ok(()) => Ok(true),
            Err(WriteError::Condition(_) | WriteError::Contended) => Ok(false),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }
}
