//! Webhooks that providers send: who may have sent one, and what it says.

use crate::sync::changed::Change;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// A provider's webhooks, as its `webhook.rs` reads them.
pub trait Hooks: Send + Sync {
    /// The member of the provider's secret that holds the key of signatures.
    fn key(&self) -> &'static str;

    /// The header that carries the signature, in lower case.
    fn header(&self) -> &'static str;

    /// Reads a body whose signature is good. `None` for one that is of no shape that we know.
    fn read(&self, body: &[u8]) -> Option<Vec<Change>>;
}

/// Whether `signature` is the base64 of the HMAC-SHA256 (RFC 2104) of `body` as it came, byte for byte.
/// The key is used as the text that the provider shows.
pub fn is_signed(key: &SecretString, body: &[u8], signature: &str) -> bool {
    let Ok(given) = BASE64.decode(signature.trim()) else {
        return false;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose_secret().as_bytes()) else {
        return false;
    };
    mac.update(body);
    mac.verify_slice(&given).is_ok()
}

/// A part of a key of ours: what a provider names its things is letters and digits.
pub(super) fn word(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
    (!text.is_empty() && text.len() <= 100 && text.chars().all(fits)).then(|| text.to_owned())
}
