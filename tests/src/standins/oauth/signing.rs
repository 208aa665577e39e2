//! How each vendor signs the webhooks that it sends, after its own documentation and library.

use std::fmt::Write as _;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, Mac as _};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::Sha256;

// Made for the stand-ins; they open nothing.
const SENDGRID_KEY: &[u8] = include_bytes!("../keys/sendgrid.pem");
const PAYPAL_KEY: &[u8] = include_bytes!("../keys/paypal.pem");
/// PayPal's certificate here, for the name that the vendor's has, and the root behind it.
pub(super) const PAYPAL_CERTIFICATES: &str = include_str!("../keys/paypal_certificates.pem");
/// What SendGrid shows for its webhook here.
pub const SENDGRID_PUBLIC_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAELdC3wt99FunrUSRcf7Kp3BnYEw61gunEMbD21St0Non1tJq/RPSkszceSTAE0pG3IaoDPyrMVFJCNsOtgb1pfw==";

/// A webhook that is about to be sent.
pub(super) struct Sending<'a> {
    pub url: &'a str,
    pub body: &'a str,
    /// What the vendor signs with: a secret, and for PayPal the webhook's id. SendGrid has a key of its own.
    pub key: &'a str,
    pub at: DateTime<Utc>,
    /// Where the vendor is.
    pub base: &'a str,
    /// Names this one among all.
    pub number: u64,
}

/// The headers with which `vendor` sends it; none for one that signs otherwise, or nothing.
pub(super) fn headers(vendor: &str, sending: &Sending<'_>) -> Vec<(&'static str, String)> {
    let Sending { url, body, key, .. } = sending;
    let seconds = sending.at.timestamp();
    match vendor {
        // https://docs.stripe.com/webhooks
        "stripe" => {
            let signature = hex(&mac(key, &format!("{seconds}.{body}")));
            vec![("stripe-signature", format!("t={seconds},v1={signature}"))]
        }
        // https://developer.squareup.com/docs/webhooks/step3validate
        "square" | "square_loyalty" => {
            let signature = BASE64.encode(mac(key, &format!("{url}{body}")));
            vec![("x-square-hmacsha256-signature", signature)]
        }
        // https://developers.hubspot.com/docs/api/webhooks/validating-requests
        "hubspot" => {
            let millis = sending.at.timestamp_millis().to_string();
            let signature = BASE64.encode(mac(key, &format!("POST{url}{body}{millis}")));
            vec![
                ("x-hubspot-signature-v3", signature),
                ("x-hubspot-request-timestamp", millis),
            ]
        }
        // https://docs.voucherify.io/api-reference/introduction-to-webhooks
        "voucherify" => {
            let compact: Option<Box<serde_json::value::RawValue>> = serde_json::from_str(body).ok();
            let body = compact.map_or((*body).to_owned(), |json| without_blanks(json.get()));
            vec![("x-voucherify-signature", hex(&mac(key, &body)))]
        }
        // https://www.twilio.com/docs/sendgrid/for-developers/tracking-events
        "sendgrid" => vec![
            (
                "x-twilio-email-event-webhook-signature",
                BASE64.encode(ecdsa(&format!("{seconds}{body}"))),
            ),
            (
                "x-twilio-email-event-webhook-timestamp",
                seconds.to_string(),
            ),
        ],
        // https://developer.paypal.com/api/rest/webhooks/rest/
        "paypal" => {
            let id = format!("69cd13f0-d67a-11e5-baa3-{:012x}", sending.number);
            let time = sending.at.to_rfc3339_opts(SecondsFormat::Secs, true);
            let checksum = crc32fast::hash(body.as_bytes());
            let signature = rsa(&format!("{id}|{time}|{key}|{checksum}"));
            let base = sending.base;
            vec![
                ("paypal-auth-algo", "SHA256withRSA".to_owned()),
                ("paypal-auth-version", "v2".to_owned()),
                (
                    "paypal-cert-url",
                    format!("{base}/v1/notifications/certs/CERT-360caa42-fca2a594-standin"),
                ),
                ("paypal-transmission-id", id),
                ("paypal-transmission-time", time),
                ("paypal-transmission-sig", BASE64.encode(signature)),
            ]
        }
        "mailchimp" => vec![(
            "content-type",
            "application/x-www-form-urlencoded".to_owned(),
        )],
        _ => Vec::new(),
    }
}

fn mac(key: &str, message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key will do");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn key(pem: &[u8]) -> Vec<u8> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(pem).expect("a key of the stand-ins");
    key.secret_pkcs8_der().to_vec()
}

fn ecdsa(message: &str) -> Vec<u8> {
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key(SENDGRID_KEY));
    let pair = pair.expect("a key of the stand-ins");
    let signature = pair.sign(&SystemRandom::new(), message.as_bytes());
    signature.expect("a signature").as_ref().to_vec()
}

fn rsa(message: &str) -> Vec<u8> {
    let pair = RsaKeyPair::from_pkcs8(&key(PAYPAL_KEY)).expect("a key of the stand-ins");
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(
        &RSA_PKCS1_SHA256,
        &random,
        message.as_bytes(),
        &mut signature,
    )
    .expect("a signature");
    signature
}

/// JSON in which nothing stands between its parts; strings stay as they are.
fn without_blanks(json: &str) -> String {
    let mut rest = json;
    let mut compact = String::with_capacity(json.len());
    while let Some(start) = rest.find('"') {
        let (between, string) = rest.split_at(start);
        compact.extend(between.chars().filter(|c| !c.is_whitespace()));
        let mut characters = string.char_indices().skip(1);
        let mut end = string.len();
        while let Some((at, character)) = characters.next() {
            match character {
                '\\' => drop(characters.next()),
                '"' => {
                    end = at + 1;
                    break;
                }
                _ => {}
            }
        }
        compact.push_str(&string[..end]);
        rest = &string[end..];
    }
    compact.extend(rest.chars().filter(|c| !c.is_whitespace()));
    compact
}
