//! Imports under way, by the refresh token that was brought. A refresh token may work once, and some
//! providers end the whole grant when it is used again. So one import at a time holds the row of its
//! token; what the provider gave is stored there before anything else is asked, and stays until there is
//! a connection; and which connection that is stays for a day, so that the same import sent again is told
//! of it and uses nothing.

use super::setup::Given;
use super::tokens;
use super::vault::{self, DataKey, Sealed, WrappedKey};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::{ConnectionId, MerchantId};
use crate::store::{Condition, Key, Write, WriteError, keys};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long what an import was given, and what became of it, is kept for another try.
const KEPT: TimeDelta = TimeDelta::days(1);
/// By then a function that was at work on an import has ended.
const AT_WORK: TimeDelta = TimeDelta::seconds(60);
/// How often what was given is tried to be stored, with a pause between.
const STORE_ROUNDS_MAX: u32 = 8;
const STORE_PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Brought {
    key: WrappedKey,
    /// What the provider gave; absent until it has answered, and once there is a connection.
    sealed: Option<Sealed>,
    access_expires_at: Option<DateTime<Utc>>,
    scopes: Option<Vec<String>>,
    /// Until when somebody is at work on it; absent when he has ended.
    held_until: Option<DateTime<Utc>>,
    /// What it became.
    connection: Option<ConnectionId>,
}

/// The row of one token, held by this import alone.
pub(super) struct Hold {
    row: Key,
    owner: String,
    key: DataKey,
    held: Brought,
    /// Whether this is the first import of the token.
    pub first: bool,
}

/// What stands at a token that is brought.
pub(super) enum Taken {
    Held(Box<Hold>),
    /// It was imported before.
    Became(ConnectionId),
}

/// Takes the row of a token, of which `token` is the hash. [`Code::Busy`] while somebody else has it.
pub(super) async fn take(ctx: &Ctx, merchant: &MerchantId, token: &str) -> Result<Taken> {
    let (row, owner, now) = (
        keys::import(merchant, token),
        format!("import/{token}"),
        ctx.now(),
    );
    let mut condition = Condition::Absent;
    let mut before = None;
    if let Some(item) = ctx.store.get(&row).await? {
        let held: Brought = item.read()?;
        if let Some(connection) = held.connection {
            return Ok(Taken::Became(connection));
        }
        if held.held_until.is_some_and(|until| now < until) {
            return Err(busy());
        }
        condition = Condition::Rev(item.rev);
        match vault::unwrap(ctx, &owner, &held.key).await {
            Ok(key) => before = Some((key, held)),
            // The root key that wrapped it was forgotten meanwhile, and what was given with it.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "what an import was given is lost")
            }
        }
    }
    let first = before.is_none();
    let (key, mut held) = match before {
        Some(before) => before,
        None => {
            let (key, wrapped) = vault::new_key(ctx, &owner).await?;
            let held = Brought {
                key: wrapped,
                sealed: None,
                access_expires_at: None,
                scopes: None,
                held_until: None,
                connection: None,
            };
            (key, held)
        }
    };
    held.held_until = Some(now + AT_WORK);
    let hold = Hold {
        row,
        owner,
        key,
        held,
        first,
    };
    // Whoever comes second finds the row changed.
    match ctx.store.write(hold.write(ctx, condition)?).await {
        Ok(()) => Ok(Taken::Held(Box::new(hold))),
        Err(WriteError::Condition(_)) => Err(busy()),
        Err(error) => Err(error.into()),
    }
}

/// Forgets what a token became, when that is gone.
pub(super) async fn forget(ctx: &Ctx, merchant: &MerchantId, token: &str) -> Result<()> {
    let (key, condition) = (keys::import(merchant, token), Condition::Any);
    Ok(ctx.store.write(Write::Delete { key, condition }).await?)
}

/// For whoever meets an import of the same tokens that is under way.
fn busy() -> Error {
    let detail = "these tokens are being imported at this moment; send it again in a minute";
    Error::new(Code::Busy, detail)
}

impl Hold {
    fn write(&self, ctx: &Ctx, condition: Condition) -> Result<Write> {
        let gone = (ctx.now() + KEPT).timestamp();
        Ok(Write::put(self.row.clone(), condition, &self.held)?.expiring(gone))
    }

    /// What the provider gave to an import before this one that did not end well.
    pub fn given(&self) -> Result<Option<Given>> {
        let Some(sealed) = &self.held.sealed else {
            return Ok(None);
        };
        Ok(Some(Given {
            grant: tokens::open(&self.key, &self.owner, sealed)?,
            access_expires_at: self.held.access_expires_at,
            scopes: self.held.scopes.clone(),
        }))
    }

    /// Stores what the provider gave, before it is used. Without this row the import can still succeed,
    /// so it goes on where the row cannot be written.
    pub async fn keep(&mut self, ctx: &Ctx, given: &Given) -> Result<()> {
        let sealed = tokens::seal(ctx, &self.key, &self.owner, &given.grant)?;
        self.held.sealed = Some(sealed);
        self.held.access_expires_at = given.access_expires_at;
        self.held.scopes.clone_from(&given.scopes);
        let write = self.write(ctx, Condition::Any)?;
        for _ in 0..STORE_ROUNDS_MAX {
            match ctx.store.write(write.clone()).await {
                Ok(()) => break,
                Err(error) => {
                    let error = Error::from(error);
                    tracing::warn!(error = %error.chain(), "what an import was given is not stored yet");
                    ctx.clock.sleep(STORE_PAUSE).await;
                }
            }
        }
        Ok(())
    }

    /// Lets go of the row, for the same import sent again; or says what became of it. That can fail: then
    /// the row is free again a minute later.
    pub async fn end(mut self, ctx: &Ctx, became: Option<&ConnectionId>) {
        self.held.held_until = None;
        if let Some(connection) = became {
            self.held.connection = Some(connection.clone());
            self.held.sealed = None;
        }
        let nothing = self.held.sealed.is_none() && self.held.connection.is_none();
        let write = match nothing {
            true => Ok(Write::Delete {
                key: self.row.clone(),
                condition: Condition::Any,
            }),
            false => self.write(ctx, Condition::Any),
        };
        let ended = match write {
            Ok(write) => ctx.store.write(write).await.map_err(Error::from),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(error = %error.chain(), "an import's row is not let go of yet");
        }
    }
}
