//! Who may do what. A handler that needs the commerce backend has [`Platform`] in its hands, and a
//! merchant's data is reached only through a [`Merchant`], which exists.

use super::Request;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::MerchantId;
use crate::model::money::Currency;
use crate::oauth::hash;
use crate::store::keys;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

/// A merchant, as the commerce backend registered it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merchant {
    pub id: MerchantId,
    pub name: String,
    pub currency: Currency,
    pub created_at: DateTime<Utc>,
}

/// Proof that the request carries the platform key.
#[derive(Debug)]
pub struct Platform(());

#[derive(Deserialize)]
struct PlatformSecret {
    platform_key: SecretString,
}

/// Admits the commerce backend, and nobody else.
pub async fn platform(ctx: &Ctx, request: &Request) -> Result<Platform> {
    let refused = |why| Err(Error::new(Code::Unauthenticated, why));
    let Some(given) = &request.bearer else {
        return refused("send the platform key: Authorization: Bearer …");
    };
    let secret = ctx.secrets.get(ctx.config.platform_secret()?).await?;
    let secret: PlatformSecret = serde_json::from_str(secret.expose_secret())
        .map_err(|_| Error::internal("the platform's secret holds no platform_key"))?;
    // Hashes of equal length, so that neither content nor length can be timed.
    let given = hash(given.expose_secret());
    let expected = hash(secret.platform_key.expose_secret());
    if bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
        return Ok(Platform(()));
    }
    refused("this key is not known; check that it is the platform key of this deployment")
}

impl Platform {
    /// Finds a merchant.
    pub async fn merchant(&self, ctx: &Ctx, id: &MerchantId) -> Result<Merchant> {
        let item = ctx.store.get(&keys::merchant(id)).await?;
        item.ok_or_else(|| Error::new(Code::NotFound, format!("merchant {id} is not registered")))?
            .read()
    }
}
