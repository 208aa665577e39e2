//! PayPal's webhooks (<https://developer.paypal.com/api/rest/webhooks/rest/>). What is signed is short:
//! two headers, the webhook's id, which stands in our configuration, and a checksum of the body. Such a
//! checksum is no digest: who knows one good delivery can make another body with the same. So nothing
//! that a body says may be believed before it is read over there. The certificate's address comes along,
//! and only one of PayPal's own is looked at.

use crate::providers::certificate::Certificates;
use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, id_of, named};
use std::borrow::Cow;
use url::Url;

pub struct Webhooks;

/// Where PayPal's certificates are, on whichever of its hosts.
const CERTIFICATES: &str = "/v1/notifications/certs/";

// Whom the certificate is for, after PayPal's own Java library (SSLUtil.validateCertificateChain). What
// the sandbox signs proves nothing of real money.
const SIGNERS: &[&str] = &["messageverificationcerts.paypal.com"];
const SANDBOX_SIGNERS: &[&str] = &[
    "messageverificationcerts.sandbox.paypal.com",
    "messageverificationcerts.paypal.com",
];

impl Hooks for Webhooks {
    /// No key, but what has to be signed along.
    fn key(&self) -> &'static str {
        "webhook_id"
    }

    fn rule(&self) -> Rule {
        Rule::Certificate
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, id: &str) -> Option<Proof<'a>> {
        if delivery.header("paypal-auth-algo") != "SHA256withRSA" {
            return None;
        }
        let certificate: Url = delivery.header("paypal-cert-url").parse().ok()?;
        let plain = certificate.query().is_none() && certificate.fragment().is_none();
        if !plain || !certificate.path().starts_with(CERTIFICATES) {
            return None;
        }
        let sent = delivery.header("paypal-transmission-id");
        let time = delivery.header("paypal-transmission-time");
        let checksum = crc32fast::hash(delivery.body);
        let signed = format!("{sent}|{time}|{id}|{checksum}");
        Some(Proof {
            signed: vec![Cow::Owned(signed.into_bytes())],
            certificate: Some(certificate),
            ..delivery.signed("paypal-transmission-sig", [])
        })
    }

    fn certificates(&self, pem: &[u8], environment: &str) -> Option<Certificates> {
        let (signers, own_root) = match environment {
            "production" => (SIGNERS, false),
            "sandbox" => (SANDBOX_SIGNERS, false),
            _ => (SIGNERS, true),
        };
        Certificates::read(pem, signers, own_root)
    }

    fn event(&self, body: &[u8]) -> Option<String> {
        named(id_of(body, "id"), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const GOOD: [(&str, &str); 5] = [
        ("paypal-auth-algo", "SHA256withRSA"),
        (
            "paypal-cert-url",
            "https://api.paypal.com/v1/notifications/certs/CERT-360caa42",
        ),
        (
            "paypal-transmission-id",
            "69cd13f0-d67a-11e5-baa3-778b53f4ae55",
        ),
        ("paypal-transmission-time", "2016-02-18T20:01:35Z"),
        ("paypal-transmission-sig", "c2ln"),
    ];

    fn proof(change: Option<(&str, &str)>) -> Option<(Vec<u8>, Url)> {
        let headers = GOOD.iter().copied().chain(change);
        let headers: BTreeMap<String, String> = headers
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let delivery = Delivery {
            method: "POST",
            url: "",
            query: &BTreeMap::new(),
            headers: &headers,
            body: br#"{"hello":"world"}"#,
        };
        let proof = Webhooks.proof(&delivery, "WH-1")?;
        Some((proof.signed.concat(), proof.certificate?))
    }

    #[test]
    fn what_is_signed_holds_the_checksum_in_decimal_digits() {
        let (signed, certificate) = proof(None).unwrap();
        assert_eq!(
            String::from_utf8(signed).unwrap(),
            "69cd13f0-d67a-11e5-baa3-778b53f4ae55|2016-02-18T20:01:35Z|WH-1|3624485329"
        );
        assert_eq!(certificate.as_str(), GOOD[1].1);
    }

    #[test]
    fn what_is_no_certificate_of_paypals_is_not_looked_at() {
        for (name, value) in [
            ("paypal-auth-algo", "SHA1withRSA"),
            ("paypal-auth-algo", ""),
            ("paypal-cert-url", ""),
            ("paypal-cert-url", "CERT-360caa42"),
            ("paypal-cert-url", "https://api.paypal.com/v1/other/CERT-1"),
            (
                "paypal-cert-url",
                "https://api.paypal.com/v1/notifications/certs/../../elsewhere",
            ),
            (
                "paypal-cert-url",
                "https://api.paypal.com/v1/notifications/certs/CERT-1?to=elsewhere",
            ),
        ] {
            assert_eq!(proof(Some((name, value))), None, "{value}");
        }
    }
}
