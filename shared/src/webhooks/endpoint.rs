//! Webhook endpoints: where a developer wants which events.

use crate::ctx::Ctx;
use crate::error::{Error, FieldError, Result};
use crate::model::event::EventType;
use crate::model::ids::{EndpointId, MerchantId};
use crate::net::Guard;
use crate::oauth::vault::{self, Sealed, WrappedKey};
use crate::store::{Condition, Write, keys, list_all};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use url::Url;

/// Most endpoints of one merchant.
pub const ENDPOINTS_MAX: usize = 100;
/// Longest URL of an endpoint.
const URL_BYTES_MAX: usize = 2048;
/// Secrets are 24 to 64 random bytes (Standard Webhooks, "Signature scheme").
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub id: EndpointId,
    pub merchant_id: MerchantId,
    pub url: Url,
    pub event_types: BTreeSet<EventType>,
    pub key: WrappedKey,
    pub secret: Sealed,
    pub created_at: DateTime<Utc>,
}

/// What a developer asks for.
#[derive(Debug)]
pub struct Registration {
    pub url: Url,
    pub event_types: BTreeSet<EventType>,
    /// Chosen by the developer, or made here.
    pub secret: Option<SecretString>,
}

/// Whether `secret` is `whsec_` and base64 of 24 to 64 bytes.
fn is_secret(secret: &str) -> bool {
    let bytes = secret
        .strip_prefix(SECRET_PREFIX)
        .and_then(|text| BASE64.decode(text).ok());
    bytes.is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len()))
}

/// Stores a new endpoint and returns it with its secret, which is shown this once.
pub async fn register(
    ctx: &Ctx,
    merchant: &MerchantId,
    registration: Registration,
) -> Result<(Endpoint, SecretString)> {
    let fault =
        |path, code, detail: &str| Error::invalid(vec![FieldError::new(path, code, detail)]);
    if registration.event_types.is_empty() {
        return Err(fault(
            "/event_types",
            "wrong_count",
            "name at least one event type",
        ));
    }
    if registration.url.as_str().len() > URL_BYTES_MAX {
        let detail = format!("a URL has at most {URL_BYTES_MAX} bytes");
        return Err(fault("/url", "wrong_length", &detail));
    }
    // A literal bad address is refused now; a name is judged at each delivery, when it resolves.
    Guard::new(ctx.config.allow_loopback())
        .check_url(&registration.url)
        .map_err(|error| fault("/url", "address_refused", error.detail()))?;
    let secret = match registration.secret {
        Some(secret) if is_secret(secret.expose_secret()) => secret,
        Some(_) => {
            return Err(fault(
                "/secret",
                "invalid_value",
                "a secret is whsec_ followed by base64 of 24 to 64 random bytes; leave it out to \
                 get one",
            ));
        }
        None => {
            let bytes: [u8; 32] = ctx.random();
            SecretString::from(format!("{SECRET_PREFIX}{}", BASE64.encode(bytes)))
        }
    };
    if list(ctx, merchant).await?.len() >= ENDPOINTS_MAX {
        let detail = format!("a merchant has at most {ENDPOINTS_MAX} endpoints");
        return Err(fault("/url", "too_many", &detail));
    }
    let id = EndpointId::new(ctx.uuid());
    let (key, wrapped) = vault::new_key(ctx, id.as_str()).await?;
    let endpoint = Endpoint {
        secret: vault::seal(ctx, &key, id.as_str(), &secret)?,
        key: wrapped,
        id,
        merchant_id: merchant.clone(),
        url: registration.url,
        event_types: registration.event_types,
        created_at: ctx.now(),
    };
    let key = keys::endpoint(merchant, &endpoint.id);
    ctx.store
        .write(Write::put(key, Condition::Absent, &endpoint)?)
        .await?;
    Ok((endpoint, secret))
}

pub async fn load(ctx: &Ctx, merchant: &MerchantId, id: &EndpointId) -> Result<Endpoint> {
    let item = ctx.store.get(&keys::endpoint(merchant, id)).await?;
    item.ok_or_else(|| Error::not_found(format!("endpoint {id}")))?
        .read()
}

pub async fn list(ctx: &Ctx, merchant: &MerchantId) -> Result<Vec<Endpoint>> {
    list_all(&*ctx.store, &keys::endpoints(merchant), ENDPOINTS_MAX)
        .await?
        .iter()
        .map(crate::store::Item::read)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let secret = |bytes: usize| format!("whsec_{}", BASE64.encode(vec![1; bytes]));
        for (bytes, good) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(is_secret(&secret(bytes)), good, "{bytes}");
        }
        assert!(!is_secret(&BASE64.encode([1; 32])));
    }
}
