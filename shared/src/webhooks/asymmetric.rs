//! Signatures that anybody can verify and nobody else can make: Ed25519, `v1a` of Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>, "Signature
//! scheme"). The public keys stand at an address of each endpoint, as a JWK Set (RFC 7517, RFC 8037).
//!
//! Each endpoint has a key pair of its own: with one for all, what one receiver was sent could be shown to
//! another as meant for him.

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::ids::EventId;
use crate::oauth::vault::{self, DataKey, Sealed};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// A key pair of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// The public key: base64 for URLs, as a JWK has it.
    x: String,
    seed: Sealed,
}

impl KeyPair {
    /// Makes a pair whose private half is sealed for `owner`.
    pub(super) fn new(ctx: &Ctx, key: &DataKey, owner: &str) -> Result<KeyPair> {
        let seed: [u8; 32] = ctx.random();
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(Error::internal)?;
        let seed = SecretString::from(STANDARD.encode(seed));
        Ok(KeyPair {
            x: URL_SAFE_NO_PAD.encode(pair.public_key()),
            seed: vault::seal(ctx, key, owner, &seed)?,
        })
    }

    /// The signature of one webhook, as it stands in the header.
    pub(super) fn sign(
        &self,
        key: &DataKey,
        owner: &str,
        id: &EventId,
        at: DateTime<Utc>,
        body: &[u8],
    ) -> Result<String> {
        let seed = vault::open(key, owner, &self.seed)?;
        let seed = STANDARD
            .decode(seed.expose_secret())
            .map_err(Error::internal)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(Error::internal)?;
        let head = format!("{id}.{}.", at.timestamp());
        let signed = pair.sign(&[head.as_bytes(), body].concat());
        Ok(format!("v1a,{}", STANDARD.encode(signed)))
    }

    /// The public key as a JWK, named by its thumbprint (RFC 7638).
    pub fn jwk(&self) -> Value {
        let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, self.x);
        json!({
            "kty": "OKP",
            "crv": "Ed25519",
            "x": self.x,
            "kid": URL_SAFE_NO_PAD.encode(Sha256::digest(members)),
            "alg": "EdDSA",
            "use": "sig",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037, appendix A.3.
    #[test]
    fn a_key_is_named_by_its_thumbprint() {
        let pair = KeyPair {
            x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo".to_owned(),
            seed: Sealed::of_url(""),
        };
        assert_eq!(
            pair.jwk()["kid"],
            "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
        );
    }
}
