//! Square's webhooks (<https://developer.squareup.com/docs/webhooks/step3validate>). The address is
//! signed along, as it is registered, and no time is: what comes again is known by its id. An older
//! header with HMAC-SHA1 comes beside and proves nothing.

use crate::providers::hooks::{Delivery, Hooks, Proof, id_of, named};

/// Of Square and of Square Loyalty, each with the key of its own subscription.
pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_key"
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        let signed = [delivery.url.as_bytes(), delivery.body];
        Some(delivery.signed("x-square-hmacsha256-signature", signed))
    }

    fn event(&self, body: &[u8]) -> Option<String> {
        named(id_of(body, "event_id"), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};
    use chrono::DateTime;

    const URL: &str = "https://example.com/webhook";
    const BODY: &[u8] = br#"{"hello":"world"}"#;
    /// From the tests of Square's own libraries, with the key `asdf1234`.
    const SIGNATURE: &str = "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=";

    fn judged(header: &str, key: &str, signature: &str, url: &str, body: &[u8]) -> Verdict {
        let headers = [(header, signature)];
        verdict(&Webhooks, key, &headers, url, body, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn the_vendors_own_signature_is_good() {
        let header = "x-square-hmacsha256-signature";
        let key = "asdf1234";
        assert_eq!(judged(header, key, SIGNATURE, URL, BODY), Verdict::Good);
        for wrong in [
            judged(header, key, SIGNATURE, "http://example.com/webhook", BODY),
            judged(header, key, SIGNATURE, "https://example.com/webhook/", BODY),
            judged(header, key, SIGNATURE, URL, br#"{"hello": "world"}"#),
            judged(header, key, SIGNATURE, URL, b""),
            judged(header, "asdf1235", SIGNATURE, URL, BODY),
            judged(header, key, "", URL, BODY),
            judged("x-square-signature", key, SIGNATURE, URL, BODY),
        ] {
            assert_eq!(wrong, Verdict::Wrong);
        }
    }

    #[test]
    fn an_event_has_a_name() {
        let body = br#"{"merchant_id":"M","type":"payment.updated","event_id":"6a8f5f28"}"#;
        assert_eq!(Webhooks.event(body).as_deref(), Some("6a8f5f28"));
    }
}
