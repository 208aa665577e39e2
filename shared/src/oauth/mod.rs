//! Connections to providers: the connect flow, the vault, and tokens that stay fresh.

pub mod brought;
pub mod connect;
pub mod connection;
pub mod give_back;
pub mod import;
pub mod manage;
pub mod setup;
pub mod tokens;
pub mod vault;

use sha2::{Digest, Sha256};

/// SHA-256 of a secret, in hexadecimal: what is stored of a secret that only has to be recognised.
/// The secrets here are 256 random bits, so a plain hash is enough.
pub fn hash(secret: &str) -> String {
    Sha256::digest(secret.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The part of a redirect URI that names the deployment, so that no two share one.
pub fn tenant(public_url: &str) -> String {
    hash(public_url.trim_end_matches('/'))[..16].to_owned()
}

/// The redirect URI of one provider, which its app registration must hold to the letter.
pub fn redirect_uri(public_url: &str, provider: &str) -> String {
    let base = public_url.trim_end_matches('/');
    format!("{base}/oauth/cb/{provider}/{}", tenant(public_url))
}
