//! The vault: what must stay secret is stored as ciphertext in the item that it belongs to.
//!
//! Each secret has a data key of its own (AES-256-GCM), wrapped by the root key, which Secrets
//! Manager holds. The owner's id is the associated data of both, so a ciphertext moved to another
//! item does not open.

use crate::ctx::Ctx;
use crate::error::{Error, Result};
use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// A secret at rest. Both fields are base64 of nonce and ciphertext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    key: String,
    text: String,
}

#[derive(Deserialize)]
struct RootSecret {
    root_key: SecretString,
}

async fn root_key(ctx: &Ctx) -> Result<[u8; KEY_BYTES]> {
    let secret = ctx.secrets.get(ctx.config.vault_secret()?).await?;
    let root: RootSecret = serde_json::from_str(secret.expose_secret())
        .map_err(|_| Error::internal("the vault's secret holds no root_key"))?;
    let mut hash = Sha256::new_with_prefix(b"crossdock vault root key v1:");
    hash.update(root.root_key.expose_secret().as_bytes());
    Ok(hash.finalize().into())
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
    let broken = || Error::internal("a sealed secret does not open: wrong root key or wrong owner");
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

/// Seals `text` for `owner`.
pub async fn seal(ctx: &Ctx, owner: &str, text: &SecretString) -> Result<Sealed> {
    let data_key: [u8; KEY_BYTES] = ctx.random();
    Ok(Sealed {
        key: encrypt(&root_key(ctx).await?, ctx.random(), owner, &data_key)?,
        text: encrypt(
            &data_key,
            ctx.random(),
            owner,
            text.expose_secret().as_bytes(),
        )?,
    })
}

/// Opens what was sealed for `owner`.
pub async fn open(ctx: &Ctx, owner: &str, sealed: &Sealed) -> Result<SecretString> {
    let data_key = decrypt(&root_key(ctx).await?, owner, &sealed.key)?;
    let data_key: [u8; KEY_BYTES] = data_key
        .try_into()
        .map_err(|_| Error::internal("a data key has the wrong length"))?;
    let text = String::from_utf8(decrypt(&data_key, owner, &sealed.text)?);
    Ok(SecretString::from(text.map_err(|_| {
        Error::internal("a sealed secret is no text")
    })?))
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
}
