//! One merchant's connection to one tenant of one provider.

use super::vault::Sealed;
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::ids::{ConnectionId, MerchantId};
use crate::providers::Category;
use crate::store::{Condition, Write, keys, list_all};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Most connections of one merchant.
pub const CONNECTIONS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Consent was given, but the backend has not yet confirmed that the right person gave it.
    Pending,
    Live,
    /// The provider no longer takes our tokens; somebody has to connect again.
    ReauthRequired,
}

/// The sealed pair of tokens and when the access token ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    pub sealed: Sealed,
    pub access_expires_at: DateTime<Utc>,
}

/// A consent that waits for its confirmation. What was live before stays in use until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    pub tokens: Tokens,
    pub confirmation_hash: String,
    pub expires_at: DateTime<Utc>,
}

/// Who is refreshing the tokens, and until when others wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub owner: String,
    pub until: DateTime<Utc>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    pub id: ConnectionId,
    pub merchant_id: MerchantId,
    pub provider: String,
    pub category: Category,
    pub status: Status,
    /// The provider's id of the company: QuickBooks' `realmId`.
    pub tenant_id: String,
    pub tenant_name: Option<String>,
    pub scopes: Vec<String>,
    pub tokens: Option<Tokens>,
    pub consent: Option<Consent>,
    pub lease: Option<Lease>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Connection {
    /// The associated data of this connection's secrets.
    pub fn vault_owner(&self) -> &str {
        self.id.as_str()
    }

    /// Stores this connection in place of revision `rev`, or as a new one.
    pub fn write(&self, rev: Option<u64>) -> Result<Write> {
        let key = keys::connection(&self.merchant_id, &self.id);
        Write::put(key, rev.map_or(Condition::Absent, Condition::Rev), self)
    }
}

/// Reads one connection with its revision.
pub async fn load(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
) -> Result<(u64, Connection)> {
    let item = ctx.store.get(&keys::connection(merchant, id)).await?;
    let item = item.ok_or_else(|| Error::not_found(format!("connection {id}")))?;
    Ok((item.rev, item.read()?))
}

/// Reads all connections of a merchant.
pub async fn list(ctx: &Ctx, merchant: &MerchantId) -> Result<Vec<(u64, Connection)>> {
    list_all(&*ctx.store, &keys::connections(merchant), CONNECTIONS_MAX)
        .await?
        .iter()
        .map(|item| Ok((item.rev, item.read()?)))
        .collect()
}
