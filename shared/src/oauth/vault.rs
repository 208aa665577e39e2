//! The vault: what must stay secret is stored as ciphertext in the item that it belongs to.
//!
//! Each owner (a connection, a webhook endpoint) has a data key of its own (AES-256-GCM). The data key
//! is stored beside the ciphertext, wrapped by a root key of the ring that Secrets Manager holds. The
//! owner's id is the associated data of both, so a ciphertext moved to another item does not open.
//! Rotating the root key wraps data keys anew and touches no ciphertext; destroying a data key
//! destroys all that was sealed with it.

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// A data key at rest: base64 of nonce and ciphertext, and which root key wraps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrappedKey {
    pub root: String,
    wrapped: String,
}

/// A text at rest, sealed with its owner's data key: base64 of nonce and ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// The same text for a URL (RFC 4648 §5).
    pub fn to_url(&self) -> String {
        let text = self.0.trim_end_matches('=');
        text.replace('+', "-").replace('/', "_")
    }

    pub fn of_url(text: &str) -> Sealed {
        let padding = "=".repeat((4 - text.len() % 4) % 4);
        Sealed(text.replace('-', "+").replace('_', "/") + &padding)
    }
}

/// An owner's data key in the hand of the function that uses it.
pub struct DataKey(SecretBox<[u8; KEY_BYTES]>);

/// The root keys: every member but `current` is one, by its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ring {
    /// The name of the root key that wraps what is new.
    pub current: String,
    #[serde(flatten, serialize_with = "expose")]
    keys: BTreeMap<String, SecretString>,
}

fn expose<S: serde::Serializer>(
    keys: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(keys.iter().map(|(name, key)| (name, key.expose_secret())))
}

impl Ring {
    /// Reads the ring as the vault's secret holds it.
    pub fn read(secret: &SecretString) -> Result<Ring> {
        let ring: Ring = serde_json::from_str(secret.expose_secret())
            .map_err(|_| Error::internal("the vault's secret holds no ring of root keys"))?;
        if !ring.keys.contains_key(&ring.current) {
            return Err(Error::internal("the vault's ring lacks its current key"));
        }
        Ok(ring)
    }

    /// The text to be stored in the vault's secret.
    pub fn text(&self) -> Result<SecretString> {
        Ok(SecretString::from(
            serde_json::to_string(self).map_err(Error::internal)?,
        ))
    }

    /// Adds `key` under a new name and makes it the current one.
    pub fn turn(&mut self, key: [u8; KEY_BYTES]) {
        let numbers = self.keys.keys().filter_map(|name| name.parse::<u64>().ok());
        let name = (numbers.max().unwrap_or(0) + 1).to_string();
        self.keys
            .insert(name.clone(), SecretString::from(BASE64.encode(key)));
        self.current = name;
    }

    /// Forgets every key but the current one.
    pub fn retire(&mut self) {
        let current = self.current.clone();
        self.keys.retain(|name, _| *name == current);
    }

    /// How many root keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none, which [`Ring::read`] does not let pass.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Derives the key for one purpose from the root key `name`.
    fn derive(&self, name: &str, purpose: &str) -> Option<[u8; KEY_BYTES]> {
        let root = self.keys.get(name)?;
        let mut hash = Sha256::new_with_prefix(format!("crossdock {purpose} v1:"));
        hash.update(root.expose_secret().as_bytes());
        Some(hash.finalize().into())
    }
}

const WRAPPING: &str = "vault wrapping key";
const SIGNING: &str = "state signing key";

async fn ring(ctx: &Ctx) -> Result<Ring> {
    Ring::read(&ctx.secrets.get(ctx.config.vault_secret()?).await?)
}

/// The ring that holds the root key `name`. One that was added a moment ago may not be in memory yet.
async fn ring_with(ctx: &Ctx, name: &str) -> Result<Ring> {
    let held = ring(ctx).await?;
    if held.keys.contains_key(name) {
        return Ok(held);
    }
    Ring::read(&ctx.secrets.get_fresh(ctx.config.vault_secret()?).await?)
}

fn encrypt(
    key: &[u8; KEY_BYTES],
    nonce: [u8; NONCE_BYTES],
    owner: &str,
    text: &[u8],
) -> Result<String> {
    let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key));
    let payload = Payload {
        msg: text,
        aad: owner.as_bytes(),
    };
    let sealed = cipher
        .encrypt(Nonce::from_slice(&nonce), payload)
        .map_err(|_| Error::internal("a secret could not be sealed"))?;
    Ok(BASE64.encode([&nonce[..], &sealed].concat()))
}

fn decrypt(key: &[u8; KEY_BYTES], owner: &str, sealed: &str) -> Result<Vec<u8>> {
    let broken = || Error::internal("a sealed secret does not open: wrong key or wrong owner");
    let bytes = BASE64.decode(sealed).map_err(|_| broken())?;
    let (nonce, text) = bytes.split_at_checked(NONCE_BYTES).ok_or_else(broken)?;
    let cipher = Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key));
    let payload = Payload {
        msg: text,
        aad: owner.as_bytes(),
    };
    cipher
        .decrypt(Nonce::from_slice(nonce), payload)
        .map_err(|_| broken())
}

fn wrap(ctx: &Ctx, ring: &Ring, owner: &str, key: &DataKey) -> Result<WrappedKey> {
    let root = ring.current.clone();
    let wrapping = ring
        .derive(&root, WRAPPING)
        .ok_or_else(|| Error::internal("the vault's ring lacks its current key"))?;
    let wrapped = encrypt(&wrapping, ctx.random(), owner, key.0.expose_secret())?;
    Ok(WrappedKey { root, wrapped })
}

/// Makes a data key for `owner`.
pub async fn new_key(ctx: &Ctx, owner: &str) -> Result<(DataKey, WrappedKey)> {
    let key = DataKey(SecretBox::new(Box::new(ctx.random())));
    let wrapped = wrap(ctx, &ring(ctx).await?, owner, &key)?;
    Ok((key, wrapped))
}

/// Opens the data key of `owner`.
pub async fn unwrap(ctx: &Ctx, owner: &str, key: &WrappedKey) -> Result<DataKey> {
    unwrap_with(&ring_with(ctx, &key.root).await?, owner, key)
}

/// The same, with `None` when the vault was asked and none of its keys opens it, which no later try mends.
pub async fn unwrap_if_kept(ctx: &Ctx, owner: &str, key: &WrappedKey) -> Result<Option<DataKey>> {
    let ring = ring_with(ctx, &key.root).await?;
    let opened = unwrap_with(&ring, owner, key);
    Ok(opened
        .inspect_err(|error| tracing::warn!(error = %error.chain(), "a data key is lost"))
        .ok())
}

fn unwrap_with(ring: &Ring, owner: &str, key: &WrappedKey) -> Result<DataKey> {
    let wrapping = ring
        .derive(&key.root, WRAPPING)
        .ok_or_else(|| Error::internal(format!("the vault has no root key {:?}", key.root)))?;
    let bytes: [u8; KEY_BYTES] = decrypt(&wrapping, owner, &key.wrapped)?
        .try_into()
        .map_err(|_| Error::internal("a data key has the wrong length"))?;
    Ok(DataKey(SecretBox::new(Box::new(bytes))))
}

/// What came of wrapping a data key anew.
pub enum Rewrapped {
    Anew(WrappedKey),
    /// It was wrapped so before.
    Already,
    /// No root key of the ring opens it.
    Lost(Error),
}

/// Wraps the data key of `owner` with the root key `root`, which must be the current one.
pub async fn rewrap(ctx: &Ctx, owner: &str, key: &WrappedKey, root: &str) -> Result<Rewrapped> {
    if key.root == root {
        return Ok(Rewrapped::Already);
    }
    let ring = ring_with(ctx, root).await?;
    if ring.current != root {
        return Err(Error::internal(format!(
            "{root:?} is no longer the current root key"
        )));
    }
    match unwrap_with(&ring, owner, key) {
        Ok(data_key) => wrap(ctx, &ring, owner, &data_key).map(Rewrapped::Anew),
        Err(error) => Ok(Rewrapped::Lost(error)),
    }
}

/// Seals `text` for `owner`.
pub fn seal(ctx: &Ctx, key: &DataKey, owner: &str, text: &SecretString) -> Result<Sealed> {
    let bytes = text.expose_secret().as_bytes();
    encrypt(key.0.expose_secret(), ctx.random(), owner, bytes).map(Sealed)
}

/// Opens what was sealed for `owner`.
pub fn open(key: &DataKey, owner: &str, sealed: &Sealed) -> Result<SecretString> {
    let text = decrypt(key.0.expose_secret(), owner, &sealed.0)?;
    let text =
        String::from_utf8(text).map_err(|_| Error::internal("a sealed secret is no text"))?;
    Ok(SecretString::from(text))
}

fn signature(key: &[u8; KEY_BYTES], text: &str) -> Result<Hmac<Sha256>> {
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(Error::internal)?;
    mac.update(text.as_bytes());
    Ok(mac)
}

/// Signs `text`: base64 (URL alphabet) of HMAC-SHA256 with a key derived from the current root key.
pub async fn sign(ctx: &Ctx, text: &str) -> Result<String> {
    let ring = ring(ctx).await?;
    let key = ring
        .derive(&ring.current, SIGNING)
        .ok_or_else(|| Error::internal("the vault's ring lacks its current key"))?;
    let mac = signature(&key, text)?.finalize().into_bytes();
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac))
}

/// Whether `text` was signed here, with any root key of the ring.
pub async fn is_signed(ctx: &Ctx, text: &str, signed: &str) -> Result<bool> {
    let Ok(given) = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signed) else {
        return Ok(false);
    };
    // The ring may have turned since, in this process or in the one that signed.
    for ring in [
        ring(ctx).await?,
        Ring::read(&ctx.secrets.get_fresh(ctx.config.vault_secret()?).await?)?,
    ] {
        for name in ring.keys.keys() {
            let Some(key) = ring.derive(name, SIGNING) else {
                continue;
            };
            if signature(&key, text)?.verify_slice(&given).is_ok() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ciphertext_opens_only_for_its_owner_and_unchanged() {
        let key = [7; KEY_BYTES];
        let sealed = encrypt(&key, [1; NONCE_BYTES], "con_a", b"token").unwrap();
        assert_eq!(decrypt(&key, "con_a", &sealed).unwrap(), b"token");
        assert!(decrypt(&key, "con_b", &sealed).is_err());
        assert!(decrypt(&[8; KEY_BYTES], "con_a", &sealed).is_err());
        let mut bytes = BASE64.decode(&sealed).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        assert!(decrypt(&key, "con_a", &BASE64.encode(bytes)).is_err());
        assert!(!sealed.contains("token"));
    }

    #[test]
    fn a_ring_turns_and_forgets() {
        let secret = SecretString::from(r#"{"current":"1","1":"old"}"#);
        let mut ring = Ring::read(&secret).unwrap();
        let old = ring.derive("1", WRAPPING).unwrap();
        ring.turn([9; KEY_BYTES]);
        assert_eq!(ring.current, "2");
        let ring = Ring::read(&ring.text().unwrap()).unwrap();
        assert_eq!(ring.derive("1", WRAPPING).unwrap(), old);
        assert_ne!(ring.derive("2", WRAPPING).unwrap(), old);
        assert_ne!(
            ring.derive("1", SIGNING).unwrap(),
            old,
            "one key, one purpose"
        );
        let mut ring = ring;
        ring.retire();
        assert!(ring.derive("1", WRAPPING).is_none());
        assert_eq!(ring.len(), 1);
        assert!(Ring::read(&SecretString::from(r#"{"current":"1"}"#)).is_err());
        assert!(!format!("{ring:?}").contains("old"));
    }
}
