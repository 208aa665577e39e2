//! Intuit's webhooks
//! (<https://developer.intuit.com/app/developer/qbo/docs/develop/webhooks>): ids of what changed, in the
//! older shape with `eventNotifications`, and as CloudEvents. Production groups them over some minutes,
//! and sends them again, in any order.

use crate::providers::hooks::{Delivery, Hooks, Proof, Reader, word};
use crate::sync::changed::{Change, Operation};
use chrono::{DateTime, Utc};
use serde_json::Value;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_verifier"
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        Some(delivery.signed("intuit-signature", [delivery.body]))
    }

    fn reader(&self) -> Option<Reader> {
        Some(read)
    }
}

fn read(body: &[u8]) -> Option<Vec<Change>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    if let Some(notifications) = body.get("eventNotifications") {
        let mut changes = Vec::new();
        for notification in notifications.as_array()? {
            let tenant = word(notification["realmId"].as_str()?)?;
            for entity in notification["dataChangeEvent"]["entities"].as_array()? {
                changes.extend(entity_changes(&tenant, entity)?);
            }
        }
        return Some(changes);
    }
    // One alone, or a batch of them.
    match &body {
        Value::Array(events) => events.iter().map(cloud_event).collect(),
        event => Some(vec![cloud_event(event)?]),
    }
}

fn operation(word: &str) -> Operation {
    match word.to_ascii_lowercase().as_str() {
        "create" | "created" => Operation::Created,
        "delete" | "deleted" => Operation::Deleted,
        // Update, Merge, Void, Emailed, and what is to come: it is read again in any case.
        _ => Operation::Updated,
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z"));
    Some(time.ok()?.to_utc())
}

fn entity_changes(tenant: &str, entity: &Value) -> Option<Vec<Change>> {
    let change = |id: &str, operation: Operation| {
        Some(Change {
            tenant: tenant.to_owned(),
            kind: word(&entity["name"].as_str()?.to_ascii_lowercase())?,
            id: word(id)?,
            operation,
            at: entity["lastUpdated"].as_str().and_then(time),
            event: None,
        })
    };
    let said = operation(entity["operation"].as_str()?);
    let mut changes = vec![change(entity["id"].as_str()?, said)?];
    // A merge leaves one of two things.
    if let Some(gone) = entity["deletedId"].as_str() {
        changes.push(change(gone, Operation::Deleted)?);
    }
    Some(changes)
}

/// Reads one CloudEvent: `"type": "qbo.invoice.created.v1"`.
fn cloud_event(event: &Value) -> Option<Change> {
    let mut parts = event["type"].as_str()?.strip_prefix("qbo.")?.split('.');
    let (kind, said) = (parts.next()?, parts.next()?);
    Some(Change {
        tenant: word(event["intuitaccountid"].as_str()?)?,
        kind: word(&kind.to_ascii_lowercase())?,
        id: word(event["intuitentityid"].as_str()?)?,
        operation: operation(said),
        at: event["time"].as_str().and_then(time),
        event: event["id"].as_str().map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};

    const BODY: &str = r#"{"eventNotifications":[{"realmId":"1185883450","dataChangeEvent":{"entities":[{"name":"Customer","id":"1","operation":"Create","lastUpdated":"2026-01-01T00:00:00.000Z"}]}}]}"#;

    #[test]
    fn a_signature_is_of_the_raw_bytes() {
        let is_signed = |key: &str, body: &[u8], signature: &str| {
            let headers = [("intuit-signature", signature)];
            let now = DateTime::UNIX_EPOCH;
            verdict(&Webhooks, key, &headers, "", body, now) == Verdict::Good
        };
        let key = "test-verifier-token";
        let signature = "NJOnGi+pPgRRnzZr1QXdnWaTI5L8JMNQRl6FydYfEII=";
        assert!(is_signed(key, BODY.as_bytes(), signature));
        let again: Value = serde_json::from_str(BODY).unwrap();
        let again = serde_json::to_string_pretty(&again).unwrap();
        assert!(!is_signed(key, again.as_bytes(), signature));
        assert!(!is_signed(
            "test-verifier-tokens",
            BODY.as_bytes(),
            signature
        ));
        for wrong in ["", "x", "NJOnGi+pPgRRnzZr1QXdnWaTI5L8JMNQRl6FydYfEI="] {
            assert!(!is_signed(key, BODY.as_bytes(), wrong), "{wrong}");
        }
    }

    #[test]
    fn both_shapes_say_the_same() {
        let old = read(BODY.as_bytes()).unwrap();
        let new = br#"[{"specversion":"1.0","id":"e-1","source":"intuit.x","type":"qbo.customer.created.v1","datacontenttype":"application/json","time":"2026-01-01T00:00:00Z","intuitentityid":"1","intuitaccountid":"1185883450","data":{}}]"#;
        let new = read(new).unwrap();
        let [old, new] = [&old[..], &new[..]].map(|changes| match changes {
            [one] => one.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(new.event.as_deref(), Some("e-1"));
        assert_eq!(Change { event: None, ..new }, old);
        assert_eq!(
            (old.kind.as_str(), old.operation),
            ("customer", Operation::Created)
        );
        assert_eq!(old.at.unwrap().to_rfc3339(), "2026-01-01T00:00:00+00:00");
    }

    #[test]
    fn a_merge_is_an_update_and_a_deletion() {
        let body = br#"{"eventNotifications":[{"realmId":"1","dataChangeEvent":{"entities":[{"name":"Customer","id":"5","deletedId":"6","operation":"Merge","lastUpdated":"2026-01-01T07:00:00-0700"}]}}]}"#;
        let changes = read(body).unwrap();
        let short = changes
            .iter()
            .map(|change| (change.id.as_str(), change.operation));
        let expected = [("5", Operation::Updated), ("6", Operation::Deleted)];
        assert!(short.eq(expected), "{changes:?}");
        assert_eq!(
            changes[0].at.unwrap().to_rfc3339(),
            "2026-01-01T14:00:00+00:00"
        );
    }

    #[test]
    fn what_is_of_another_shape_is_not_read() {
        for body in [
            &b"{}"[..],
            b"[{}]",
            b"<html>",
            br#"{"eventNotifications":[{"realmId":"1/2","dataChangeEvent":{"entities":[]}}]}"#,
            br#"{"eventNotifications":[{"realmId":"1","dataChangeEvent":{"entities":[{"name":"Customer"}]}}]}"#,
        ] {
            assert_eq!(read(body), None, "{}", String::from_utf8_lossy(body));
        }
    }
}
