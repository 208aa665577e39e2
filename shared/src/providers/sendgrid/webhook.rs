//! SendGrid's event webhook, signed
//! (<https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features>).
//! What we hold is the public key. The body ends in CR LF, which is signed too.

use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, Tolerance, named, seconds};
use chrono::TimeDelta;
use serde_json::Value;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_key"
    }

    fn rule(&self) -> Rule {
        Rule::Ecdsa
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        let time = delivery.header("x-twilio-email-event-webhook-timestamp");
        let signed = [time.as_bytes(), delivery.body];
        Some(Proof {
            at: seconds(time),
            ..delivery.signed("x-twilio-email-event-webhook-signature", signed)
        })
    }

    /// SendGrid sends again for 24 hours, and does not say that it signs each attempt anew. Within that
    /// time what comes again is known by the ids of its events.
    fn tolerance(&self) -> Option<Tolerance> {
        Some(Tolerance {
            past: TimeDelta::hours(24),
            ..Tolerance::USUAL
        })
    }

    fn event(&self, body: &[u8]) -> Option<String> {
        let events: Option<Vec<Value>> = serde_json::from_slice(body).ok();
        let ids: Option<Vec<&str>> = events.as_ref().and_then(|events| {
            let ids = events.iter().map(|event| event["sg_event_id"].as_str());
            ids.collect()
        });
        let ids = ids.filter(|ids| !ids.is_empty());
        named(ids.map(|ids| ids.join("\n")), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};

    // From the tests of SendGrid's own library `@sendgrid/eventwebhook` of npm, 8.0.0.
    const KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==";
    const OTHER_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+w==";
    const TIME: &str = "1600112502";
    const SIGNATURE: &str = "MEUCIGHQVtGj+Y3LkG9fLcxf3qfI10QysgDWmMOVmxG0u6ZUAiEAyBiXDWzM+uOe5W0JuG+luQAbPIqHh89M15TluLtEZtM=";
    const BODY: &str = concat!(
        r#"[{"email":"hello@world.com","event":"dropped","reason":"Bounced Address","#,
        r#""sg_event_id":"ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA","#,
        r#""sg_message_id":"LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0","#,
        r#""smtp-id":"<LRzXl_NHStOGhQ4kofSm_A@ismtpd0039p1iad1.sendgrid.net>","timestamp":1600112492}]"#,
        "\r\n"
    );

    fn judged(key: &str, time: &str, signature: &str, body: &str, now: i64) -> Verdict {
        let headers = [
            ("x-twilio-email-event-webhook-timestamp", time),
            ("x-twilio-email-event-webhook-signature", signature),
        ];
        let now = seconds(&now.to_string()).unwrap();
        verdict(&Webhooks, key, &headers, "", body.as_bytes(), now)
    }

    #[test]
    fn the_vendors_own_signature_is_good() {
        let now = 1_600_112_502;
        assert_eq!(judged(KEY, TIME, SIGNATURE, BODY, now), Verdict::Good);
        let day = now + 86_400;
        assert_eq!(judged(KEY, TIME, SIGNATURE, BODY, day), Verdict::Good);
        assert_eq!(
            judged(KEY, TIME, SIGNATURE, BODY, day + 1),
            Verdict::Untimely(86_401)
        );
        assert_eq!(
            judged(KEY, TIME, SIGNATURE, BODY, now - 301),
            Verdict::Untimely(-301)
        );
        for wrong in [
            judged(KEY, TIME, SIGNATURE, BODY.trim_end(), now),
            judged(KEY, "1600112503", SIGNATURE, BODY, now),
            judged(KEY, "", SIGNATURE, BODY, now),
            judged(KEY, TIME, "", BODY, now),
            judged(KEY, TIME, &SIGNATURE.replacen("MEUC", "MEUD", 1), BODY, now),
            judged(OTHER_KEY, TIME, SIGNATURE, BODY, now),
            judged("no key", TIME, SIGNATURE, BODY, now),
        ] {
            assert_eq!(wrong, Verdict::Wrong);
        }
    }

    #[test]
    fn a_batch_is_named_by_its_events() {
        let name = |body: &str| Webhooks.event(body.as_bytes()).unwrap();
        assert_eq!(
            name(BODY),
            "ZHJvcC0xMDk5NDkxOS1MUnpYbF9OSFN0T0doUTRrb2ZTbV9BLTA"
        );
        assert_eq!(name(r#"[{"sg_event_id":"a"},{"sg_event_id":"b"}]"#), "a\nb");
        for other in ["[]", "{}", r#"[{"sg_event_id":"a"},{}]"#] {
            assert_eq!(name(other), other);
        }
    }
}
