//! Webhooks, as Intuit sends them: what changed, by id, signed over the body with the verifier token.

use std::collections::BTreeMap;

use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

/// Where they go, and in which shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub url: String,
    pub verifier: String,
    /// CloudEvents instead of the older shape.
    #[serde(default)]
    pub cloud_events: bool,
    /// Each is sent twice.
    #[serde(default)]
    pub doubled: bool,
    /// The last change comes first, each by itself.
    #[serde(default)]
    pub reversed: bool,
}

/// One change that was not told yet.
#[derive(Clone, Debug)]
pub struct Touch {
    pub realm: String,
    pub entity: String,
    pub id: u64,
    pub operation: &'static str,
}

/// The requests that tell `touched`.
pub fn requests(
    target: &Target,
    touched: &[Touch],
    time: &str,
    first: u64,
) -> Vec<Request<Vec<u8>>> {
    let mut groups: Vec<Vec<(u64, &Touch)>> = Vec::new();
    let numbered = (first..).zip(touched);
    if target.reversed {
        groups.extend(numbered.map(|one| vec![one]));
        groups.reverse();
    } else {
        // A notification is about one company.
        let mut by_realm: BTreeMap<&str, Vec<(u64, &Touch)>> = BTreeMap::new();
        for (number, touch) in numbered {
            by_realm
                .entry(&touch.realm)
                .or_default()
                .push((number, touch));
        }
        groups.extend(by_realm.into_values());
    }
    let mut requests = Vec::new();
    for group in groups {
        let (kind, body) = match target.cloud_events {
            true => (
                "application/cloudevents-batch+json",
                cloud_events(&group, time),
            ),
            false => ("application/json", notifications(&group, time)),
        };
        for _ in 0..=usize::from(target.doubled) {
            requests.extend(signed(target, kind, body.to_string()));
        }
    }
    requests
}

fn notifications(group: &[(u64, &Touch)], time: &str) -> Value {
    let entities = group.iter().map(|(_, touch)| {
        json!({
            "name": touch.entity, "id": touch.id.to_string(),
            "operation": touch.operation, "lastUpdated": time,
        })
    });
    let entities: Vec<Value> = entities.collect();
    let realm = group.first().map(|(_, touch)| &touch.realm);
    json!({"eventNotifications": [{"realmId": realm, "dataChangeEvent": {"entities": entities}}]})
}

fn cloud_events(group: &[(u64, &Touch)], time: &str) -> Value {
    let event = |(number, touch): &(u64, &Touch)| {
        let kind = touch.entity.to_lowercase();
        let operation = touch.operation.to_lowercase();
        json!({
            "specversion": "1.0", "id": format!("00000000-0000-4000-8000-{number:012}"),
            "source": "intuit.standin", "type": format!("qbo.{kind}.{operation}d.v1"),
            "datacontenttype": "application/json", "time": time,
            "intuitentityid": touch.id.to_string(), "intuitaccountid": touch.realm, "data": {},
        })
    };
    group.iter().map(event).collect()
}

fn signed(target: &Target, kind: &str, body: String) -> Option<Request<Vec<u8>>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(target.verifier.as_bytes()).ok()?;
    mac.update(body.as_bytes());
    Request::post(&target.url)
        .header("content-type", kind)
        .header(
            "intuit-signature",
            STANDARD.encode(mac.finalize().into_bytes()),
        )
        .body(body.into_bytes())
        .ok()
}
