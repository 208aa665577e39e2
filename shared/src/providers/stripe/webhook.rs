//! Stripe's webhooks (<https://docs.stripe.com/webhooks>). The header holds the time and, while a secret
//! is being replaced, a signature with each of the two. Each attempt is signed anew.

use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, Tolerance, id_of, named, seconds};
use std::borrow::Cow;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_secret"
    }

    fn rule(&self) -> Rule {
        Rule::HmacHex
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        let header = delivery.header("stripe-signature");
        let pairs = header
            .split(',')
            .filter_map(|pair| pair.trim().split_once('='));
        let (mut time, mut signatures) = (None, Vec::new());
        for (name, value) in pairs {
            match name {
                "t" => time = Some(value),
                "v1" => signatures.push(value),
                // Of a scheme for tests, or one to come.
                _ => {}
            }
        }
        let time = time?;
        let signed = [time.as_bytes(), b".", delivery.body];
        Some(Proof {
            signatures,
            signed: signed.map(Cow::Borrowed).to_vec(),
            at: seconds(time),
            certificate: None,
        })
    }

    fn tolerance(&self) -> Option<Tolerance> {
        Some(Tolerance::USUAL)
    }

    fn event(&self, body: &[u8]) -> Option<String> {
        named(id_of(body, "id"), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};

    const BODY: &[u8] = br#"{"id":"evt_1","object":"event"}"#;
    /// Made by the library `stripe` of npm, 23.1.0, with the secret `whsec_x`.
    const SIGNATURE: &str = "c9bcc97a8a4ff4bae104ef32dcacf8b24b4c3cf0512aef639b8502673db15436";

    fn judged(key: &str, header: &str, body: &[u8], now: i64) -> Verdict {
        let now = seconds(&now.to_string()).unwrap();
        verdict(
            &Webhooks,
            key,
            &[("stripe-signature", header)],
            "",
            body,
            now,
        )
    }

    #[test]
    fn the_vendors_own_signature_is_good() {
        let other = "0".repeat(64);
        for header in [
            format!("t=1700000000,v1={SIGNATURE}"),
            format!("t=1700000000, v1={other}, v1={SIGNATURE}"),
            format!("t=1700000000,v1={SIGNATURE},v0={other}"),
            format!("v1={SIGNATURE},t=1700000000"),
        ] {
            let verdict = judged("whsec_x", &header, BODY, 1_700_000_000);
            assert_eq!(verdict, Verdict::Good, "{header}");
        }
        for header in [
            String::new(),
            "t=1700000000".to_owned(),
            format!("v1={SIGNATURE}"),
            format!("t=1700000001,v1={SIGNATURE}"),
            format!("t=1700000000,v0={SIGNATURE}"),
            format!("t=1700000000,v1={other}"),
            format!("t=1700000000,v1={}", &SIGNATURE[2..]),
        ] {
            let verdict = judged("whsec_x", &header, BODY, 1_700_000_000);
            assert_eq!(verdict, Verdict::Wrong, "{header}");
        }
        let header = format!("t=1700000000,v1={SIGNATURE}");
        // The prefix belongs to the key.
        assert_eq!(judged("x", &header, BODY, 1_700_000_000), Verdict::Wrong);
    }

    #[test]
    fn a_clock_that_is_off_is_no_wrong_key() {
        let header = format!("t=1700000000,v1={SIGNATURE}");
        for (now, expected) in [
            (1_700_000_300, Verdict::Good),
            (1_700_000_301, Verdict::Untimely(301)),
            (1_699_999_700, Verdict::Good),
            (1_699_999_699, Verdict::Untimely(-301)),
        ] {
            assert_eq!(judged("whsec_x", &header, BODY, now), expected);
            assert_eq!(judged("whsec_y", &header, BODY, now), Verdict::Wrong);
        }
    }

    #[test]
    fn an_event_has_a_name() {
        assert_eq!(Webhooks.event(BODY).as_deref(), Some("evt_1"));
        assert_eq!(Webhooks.event(b"[]").as_deref(), Some("[]"));
    }
}
