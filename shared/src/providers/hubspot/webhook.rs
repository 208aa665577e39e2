//! HubSpot's webhooks, signed after version 3
//! (<https://developers.hubspot.com/docs/api/webhooks/validating-requests>): method, address, body and
//! time, by the application's own secret. The signatures of version 1, which come beside, cover no time
//! and prove nothing here. HubSpot decodes some characters of the address first; ours holds none of them.

use crate::providers::hooks::{Delivery, Hooks, Proof, Tolerance, named};
use chrono::DateTime;
use serde_json::Value;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "client_secret"
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        let time = delivery.header("x-hubspot-request-timestamp");
        let signed = [
            delivery.method.as_bytes(),
            delivery.url.as_bytes(),
            delivery.body,
            time.as_bytes(),
        ];
        Some(Proof {
            at: DateTime::from_timestamp_millis(time.parse().ok()?),
            ..delivery.signed("x-hubspot-signature-v3", signed)
        })
    }

    fn tolerance(&self) -> Option<Tolerance> {
        Some(Tolerance::USUAL)
    }

    /// The ids of a body's events are not unique, says HubSpot, and a further attempt counts itself.
    fn event(&self, body: &[u8]) -> Option<String> {
        let events: Option<Vec<Value>> = serde_json::from_slice(body).ok();
        let events = events.filter(|events| !events.is_empty()).map(|events| {
            let bare = events.into_iter().map(|mut event| {
                if let Some(members) = event.as_object_mut() {
                    members.remove("attemptNumber");
                    members.remove("eventId");
                }
                event
            });
            Value::from_iter(bare).to_string()
        });
        named(events, body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};

    const URL: &str = "https://hooks.example.com/hubspot";
    const BODY: &str = r#"[{"eventId":100,"subscriptionId":1,"portalId":2,"appId":3,"occurredAt":1731612210994,"subscriptionType":"contact.creation","attemptNumber":0,"objectId":123,"changeSource":"CRM","changeFlag":"NEW"}]"#;
    /// The library `hubspot-api-client` of PyPI, 12.0.0, takes it for good.
    const SIGNATURE: &str = "08yrnxwr2i06mgby+7ZRYJXwWppFGvXnthLDVMqb1iI=";
    const TIME: &str = "1731612211000";

    fn judged(key: &str, url: &str, time: &str, now: i64) -> Verdict {
        let headers = [
            ("x-hubspot-signature-v3", SIGNATURE),
            ("x-hubspot-request-timestamp", time),
        ];
        let now = DateTime::from_timestamp_millis(now).unwrap();
        verdict(&Webhooks, key, &headers, url, BODY.as_bytes(), now)
    }

    #[test]
    fn the_vendors_own_signature_is_good() {
        let (key, now) = ("test-client-secret", 1_731_612_211_000);
        assert_eq!(judged(key, URL, TIME, now), Verdict::Good);
        assert_eq!(judged(key, URL, TIME, now + 300_000), Verdict::Good);
        assert_eq!(
            judged(key, URL, TIME, now + 301_000),
            Verdict::Untimely(301)
        );
        for wrong in [
            judged("test-client-secrets", URL, TIME, now),
            judged(key, "https://hooks.example.com/hubspot/", TIME, now),
            judged(key, URL, "1731612211001", now),
            judged(key, URL, "", now),
        ] {
            assert_eq!(wrong, Verdict::Wrong);
        }
    }

    #[test]
    fn a_further_attempt_is_the_same_event() {
        let again = BODY.replace("\"attemptNumber\":0", "\"attemptNumber\":1");
        let other = BODY.replace("\"objectId\":123", "\"objectId\":124");
        let name = |body: &str| Webhooks.event(body.as_bytes());
        assert_eq!(name(BODY), name(&again));
        assert_ne!(name(BODY), name(&other));
        assert_ne!(name("[]"), name("{}"));
    }
}
