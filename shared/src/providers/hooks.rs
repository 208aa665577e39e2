//! Webhooks that providers send: who may have sent one, and what it says. How a provider signs is data
//! where data can say it ([`Rule`]); what of a delivery is signed, each provider's `webhook.rs` reads.

use super::certificate::Certificates;
use crate::sync::changed::Change;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::borrow::Cow;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq;
use url::Url;
use webpki::RawPublicKeyEntity;
use webpki::aws_lc_rs::ECDSA_P256_SHA256;

/// One request of a provider's, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Delivery<'a> {
    pub method: &'a str,
    /// The address as it is registered with the provider. It is made of our configuration: what a
    /// request says of its own address, anybody on the way may have written.
    pub url: &'a str,
    pub query: &'a BTreeMap<String, String>,
    /// By their names in lower case.
    pub headers: &'a BTreeMap<String, String>,
    pub body: &'a [u8],
}

impl<'a> Delivery<'a> {
    /// A header; empty when it is absent.
    pub fn header(&self, name: &str) -> &'a str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// A proof of the one signature in the header `name`, over `parts` one after the other.
    pub fn signed(&self, name: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Proof<'a> {
        Proof {
            signatures: vec![self.header(name)],
            signed: parts.into_iter().map(Cow::Borrowed).collect(),
            at: None,
            certificate: None,
        }
    }
}

/// What a delivery offers as proof.
#[derive(Debug)]
pub struct Proof<'a> {
    /// One good one is enough: some providers sign with the old key and the new one for a while.
    pub signatures: Vec<&'a str>,
    /// What is signed, in parts that follow on each other without anything between.
    pub signed: Vec<Cow<'a, [u8]>>,
    /// When it was signed, where that is signed too.
    pub at: Option<DateTime<Utc>>,
    /// Where the certificate is said to be.
    pub certificate: Option<Url>,
}

/// How a provider signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The base64 of an HMAC-SHA256 (RFC 2104). The key is the text that the provider shows.
    HmacBase64,
    /// The same in hexadecimal digits.
    HmacHex,
    /// The base64 of an ECDSA signature over P-256 with SHA-256, in DER. The key is public: the base64 of
    /// its DER (RFC 5480).
    Ecdsa,
    /// The base64 of an RSA signature (PKCS #1 v1.5, SHA-256) by the key of a certificate that the
    /// delivery names. What stands in our configuration is no key, and is signed along.
    Certificate,
    /// Nothing is signed; the key itself comes along.
    Bearer,
}

/// How far the time that is signed may be from the clock here.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    pub past: TimeDelta,
    pub future: TimeDelta,
}

impl Tolerance {
    /// What most vendors' libraries allow. A time to come is no better than one that has passed.
    pub const USUAL: Tolerance = Tolerance {
        past: TimeDelta::seconds(300),
        future: TimeDelta::seconds(300),
    };

    fn allows(&self, at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        (-self.future..=self.past).contains(&(now - at))
    }
}

/// What is made of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Good,
    Wrong,
    /// The signature is good, but its time is not: so many seconds behind the clock here, or ahead of it.
    Untimely(i64),
}

/// Reads what a body tells. `None` for one that is of no shape that we know.
pub type Reader = fn(&[u8]) -> Option<Vec<Change>>;

/// A provider's webhooks, as its `webhook.rs` reads them.
pub trait Hooks: Send + Sync {
    /// The member of the provider's secret that holds the key of signatures: several, with a comma
    /// between, while one is being replaced.
    fn key(&self) -> &'static str;

    fn rule(&self) -> Rule {
        Rule::HmacBase64
    }

    /// What a delivery offers as proof, `key` being one of the keys. `None` when it lacks something.
    fn proof<'a>(&self, delivery: &Delivery<'a>, key: &str) -> Option<Proof<'a>>;

    /// Whose time is signed: how far it may be off.
    fn tolerance(&self) -> Option<Tolerance> {
        None
    }

    /// Reads the certificates that stood where a proof says, `environment` being the platform's there.
    /// `None` when they are none, or the provider has none.
    fn certificates(&self, pem: &[u8], environment: &str) -> Option<Certificates> {
        let _ = (pem, environment);
        None
    }

    /// What names the event of a body whose signature is good, so that it is taken once. `None` where
    /// taking it twice does nothing: what such a provider tells is read over there again.
    fn event(&self, body: &[u8]) -> Option<String> {
        let _ = body;
        None
    }

    /// Whether the provider asks with a `GET`, or with an empty body, if anybody is there.
    fn probes(&self) -> bool {
        false
    }

    /// Whether the provider wants its refusals without a body.
    fn bare(&self) -> bool {
        false
    }

    /// What reads a body whose signature is good. `None` while nothing is made of what the provider tells.
    fn reader(&self) -> Option<Reader> {
        None
    }
}

/// Judges `proof` by one of the keys of `hooks`. `certificates` are those behind the address that the
/// proof names.
pub fn judge(
    hooks: &dyn Hooks,
    proof: &Proof<'_>,
    key: &SecretString,
    certificates: Option<&Certificates>,
    now: DateTime<Utc>,
) -> Verdict {
    let mut signatures = proof.signatures.iter();
    if !signatures.any(|given| is_signed(hooks.rule(), proof, key, certificates, given, now)) {
        return Verdict::Wrong;
    }
    match (hooks.tolerance(), proof.at) {
        (None, _) => Verdict::Good,
        (Some(tolerance), Some(at)) if tolerance.allows(at, now) => Verdict::Good,
        (Some(_), Some(at)) => Verdict::Untimely((now - at).num_seconds()),
        (Some(_), None) => Verdict::Wrong,
    }
}

fn is_signed(
    rule: Rule,
    proof: &Proof<'_>,
    key: &SecretString,
    certificates: Option<&Certificates>,
    given: &str,
    now: DateTime<Utc>,
) -> bool {
    let key = key.expose_secret();
    match rule {
        Rule::HmacBase64 => decoded(given).is_some_and(|given| is_mac(proof, key, &given)),
        Rule::HmacHex => digits(given).is_some_and(|given| is_mac(proof, key, &given)),
        Rule::Ecdsa => decoded(given)
            .zip(decoded(key))
            .is_some_and(|(given, key)| {
                let key = SubjectPublicKeyInfoDer::from(key);
                let key = RawPublicKeyEntity::try_from(&key);
                let signed = proof.signed.concat();
                key.is_ok_and(|key| {
                    key.verify_signature(ECDSA_P256_SHA256, &signed, &given)
                        .is_ok()
                })
            }),
        Rule::Certificate => certificates
            .zip(decoded(given))
            .is_some_and(|(held, given)| held.signed(&proof.signed.concat(), &given, now)),
        Rule::Bearer => !key.is_empty() && bool::from(given.as_bytes().ct_eq(key.as_bytes())),
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.trim()).ok()
}

/// Reads hexadecimal digits in lower case, as every vendor writes them.
fn digits(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let pairs = pairs.iter();
    let bytes: Option<Vec<u8>> = pairs
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    bytes.filter(|_| rest.is_empty())
}

/// Compares in constant time.
fn is_mac(proof: &Proof<'_>, key: &str, given: &[u8]) -> bool {
    // Everybody can sign with no key.
    let Some(mut mac) = (!key.is_empty())
        .then(|| Hmac::<Sha256>::new_from_slice(key.as_bytes()).ok())
        .flatten()
    else {
        return false;
    };
    proof.signed.iter().for_each(|part| mac.update(part));
    mac.verify_slice(given).is_ok()
}

/// The keys of a member: usually one.
pub fn keys(member: &SecretString) -> Vec<SecretString> {
    let keys = member.expose_secret().split(',').map(str::trim);
    keys.filter(|key| !key.is_empty())
        .map(SecretString::from)
        .collect()
}

/// What names an event: `id`, or the whole body where it has none. A provider that signs what we do not
/// know has still sent the same thing when it sends the same bytes.
pub(super) fn named(id: Option<String>, body: &[u8]) -> Option<String> {
    Some(id.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()))
}

/// The member `name` of a body that is a JSON object, which is its event's id.
pub(super) fn id_of(body: &[u8], name: &str) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body[name].as_str().map(str::to_owned)
}

/// A time in Unix seconds.
pub(super) fn seconds(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(text.parse().ok()?, 0)
}

/// A part of a key of ours: what a provider names its things is letters and digits.
pub(super) fn word(text: &str) -> Option<String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
    (!text.is_empty() && text.len() <= 100 && text.chars().all(fits)).then(|| text.to_owned())
}

/// Judges a delivery for the tests of the providers' folders: header, body and key are what varies there.
#[cfg(test)]
pub(super) fn verdict(
    hooks: &dyn Hooks,
    key: &str,
    headers: &[(&str, &str)],
    url: &str,
    body: &[u8],
    now: DateTime<Utc>,
) -> Verdict {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let (headers, query) = (headers.collect(), BTreeMap::new());
    let delivery = Delivery {
        method: "POST",
        url,
        query: &query,
        headers: &headers,
        body,
    };
    hooks.proof(&delivery, key).map_or(Verdict::Wrong, |proof| {
        judge(hooks, &proof, &SecretString::from(key), None, now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_stand_beside_each_other_while_one_is_replaced() {
        let read = |text: &str| {
            let keys = keys(&SecretString::from(text)).into_iter();
            keys.map(|key| key.expose_secret().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(read("one"), ["one"]);
        assert_eq!(read("one,two"), ["one", "two"]);
        assert_eq!(read(" one , two ,"), ["one", "two"]);
        assert!(read("").is_empty() && read(" , ").is_empty());
    }

    #[test]
    fn a_time_is_off_in_both_directions() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        for (seconds, allowed) in [
            (0, true),
            (300, true),
            (301, false),
            (-300, true),
            (-301, false),
        ] {
            let at = now - TimeDelta::seconds(seconds);
            assert_eq!(Tolerance::USUAL.allows(at, now), allowed, "{seconds}");
        }
    }

    proptest! {
        #[test]
        fn digits_are_those_of_bytes(bytes: Vec<u8>, other in "[0-9a-fA-Fg ]{0,8}") {
            let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(digits(&text), Some(bytes));
            prop_assert_eq!(digits(&format!("{text}0")), None);
            let even = other.len() % 2 == 0;
            let lower = other.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            prop_assert_eq!(digits(&other).is_some(), even && lower);
        }
    }

    /// Without a key everybody could sign.
    #[test]
    fn an_empty_key_proves_nothing() {
        let mac = Hmac::<Sha256>::new_from_slice(b"").unwrap();
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let proof = Proof {
            signatures: vec![&signature],
            signed: Vec::new(),
            at: None,
            certificate: None,
        };
        let now = DateTime::UNIX_EPOCH;
        let key = SecretString::from("");
        for rule in [
            Rule::HmacBase64,
            Rule::HmacHex,
            Rule::Ecdsa,
            Rule::Certificate,
            Rule::Bearer,
        ] {
            for given in [signature.as_str(), ""] {
                assert!(!is_signed(rule, &proof, &key, None, given, now), "{rule:?}");
            }
        }
    }
}
