//! Xero's webhooks (<https://developer.xero.com/documentation/guides/webhooks/overview/>): ids of what
//! changed. When they are set up, Xero sends bodies without events, some of them with a wrong signature
//! on purpose, and wants 401 for those.

use crate::providers::hooks::{Delivery, Hooks, Proof, Reader, word};
use crate::sync::changed::{Change, Operation};
use chrono::NaiveDateTime;
use serde_json::Value;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_key"
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        Some(delivery.signed("x-xero-signature", [delivery.body]))
    }

    /// Xero wants no body in any answer.
    fn bare(&self) -> bool {
        true
    }

    fn reader(&self) -> Option<Reader> {
        Some(read)
    }
}

fn read(body: &[u8]) -> Option<Vec<Change>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let events = body["events"].as_array()?;
    // The application's own subscription is of no organisation.
    let of_organisations = events
        .iter()
        .filter(|event| event["tenantType"] == "ORGANISATION");
    of_organisations.map(change).collect()
}

fn change(event: &Value) -> Option<Change> {
    let operation = match event["eventType"].as_str()? {
        "CREATE" => Operation::Created,
        "DELETE" => Operation::Deleted,
        _ => Operation::Updated,
    };
    // Without a zone, and in UTC.
    let at = event["eventDateUtc"].as_str().and_then(|text| {
        let text = text.trim_end_matches('Z');
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()
    });
    Some(Change {
        tenant: word(event["tenantId"].as_str()?)?,
        kind: word(&event["eventCategory"].as_str()?.to_ascii_lowercase())?,
        id: word(event["resourceId"].as_str()?)?,
        operation,
        at: at.map(|at| at.and_utc()),
        event: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};
    use chrono::DateTime;

    /// With the blanks that Xero writes.
    const HANDSHAKE: &str = r#"{"events":[],"firstEventSequence": 0,"lastEventSequence": 0, "entropy": "ABCDEFGHIJKLMNOPQRST"}"#;

    #[test]
    fn the_intent_to_receive_is_understood() {
        let is_signed = |body: &[u8], signature: &str| {
            let (key, headers) = ("test-signing-key", [("x-xero-signature", signature)]);
            let now = DateTime::UNIX_EPOCH;
            verdict(&Webhooks, key, &headers, "", body, now) == Verdict::Good
        };
        let signature = "8aAuTTG2dlWTTMTsWCJXpDSx8dPrwLCgWOFdyHIZ6SI=";
        assert!(is_signed(HANDSHAKE.as_bytes(), signature));
        let compact = HANDSHAKE.replace(": ", ":").replace(", ", ",");
        assert!(!is_signed(compact.as_bytes(), signature));
        assert_eq!(read(HANDSHAKE.as_bytes()), Some(Vec::new()));
    }

    #[test]
    fn events_are_read() {
        let body = br#"{"events":[{"resourceUrl":"https://api.xero.com/api.xro/2.0/Invoices/44aa0707-f718-4f1c-8d53-f2da9ca59533","resourceId":"44aa0707-f718-4f1c-8d53-f2da9ca59533","eventDateUtc":"2025-12-02T00:44:09.923","eventType":"UPDATE","eventCategory":"INVOICE","tenantId":"e629a03c-7ec0-4913-bf94-ae18f59e14c6","tenantType":"ORGANISATION"},{"eventCategory":"SUBSCRIPTION","tenantType":"APPLICATION"}],"firstEventSequence":76,"lastEventSequence":76,"entropy":"x"}"#;
        let changes = read(body).unwrap();
        let [change] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(
            (change.kind.as_str(), change.operation),
            ("invoice", Operation::Updated)
        );
        assert_eq!(change.id, "44aa0707-f718-4f1c-8d53-f2da9ca59533");
        assert_eq!(change.tenant, "e629a03c-7ec0-4913-bf94-ae18f59e14c6");
        assert_eq!(
            change.at.unwrap().to_rfc3339(),
            "2025-12-02T00:44:09.923+00:00"
        );
    }

    #[test]
    fn what_is_of_another_shape_is_not_read() {
        for body in [
            &b"{}"[..],
            b"[]",
            b"<html>",
            br#"{"events":[{"tenantType":"ORGANISATION","eventType":"UPDATE"}]}"#,
        ] {
            assert_eq!(read(body), None, "{}", String::from_utf8_lossy(body));
        }
    }
}
