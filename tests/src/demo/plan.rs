//! What will be sent, in which order, and what each event should be answered with.

use super::Outcome;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// One line each: what the event shows, what is expected of the API, and the event itself.
const SAMPLES: &str = include_str!("../../samples/orders.jsonl");

/// The API's own limits are 100 events and 256 KiB; a margin is left for the envelope.
const BATCH_EVENTS_MAX: usize = 100;
const BATCH_BYTES_MAX: usize = 200 * 1024;

/// The merchant in whose name everything is sent.
pub const MERCHANT: &str = "demo";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expect {
    Accepted,
    /// Accepted, and changes nothing: a later version was there before.
    Superseded,
    Refused,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Planned {
    pub about: String,
    pub expect: Expect,
    pub event: Value,
}

/// Everything that will be sent, and what cannot be: by reason, the numbers of the invoices.
#[derive(Debug, Default)]
pub struct Plan {
    pub title: String,
    pub events: Vec<Planned>,
    pub left_out: BTreeMap<String, Vec<String>>,
}

impl Planned {
    pub fn id(&self) -> &str {
        self.event["id"].as_str().unwrap_or_default()
    }
}

/// The samples of this repository.
pub fn samples() -> Outcome<Plan> {
    let mut events: Vec<Planned> = Vec::new();
    for (index, line) in SAMPLES.lines().enumerate() {
        let planned = serde_json::from_str(line);
        events.push(planned.map_err(|error| format!("sample line {}: {error}", index + 1))?);
    }
    let title = "the samples of this repository".to_owned();
    Ok(Plan {
        title,
        events,
        left_out: BTreeMap::new(),
    })
}

/// Cuts `events` into batches that the API takes, in the same order.
pub fn batches(events: &[Planned]) -> Vec<&[Planned]> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, planned) in events.iter().enumerate() {
        let size = planned.event.to_string().len() + 1;
        if index > start && (index - start == BATCH_EVENTS_MAX || bytes + size > BATCH_BYTES_MAX) {
            batches.push(&events[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < events.len() {
        batches.push(&events[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossdock::model::event::Event;
    use serde_json::json;
    use std::collections::BTreeSet;

    #[test]
    fn batches_keep_order_and_limits() {
        let planned = |size: usize| Planned {
            about: String::new(),
            expect: Expect::Accepted,
            event: json!({ "id": "x".repeat(size) }),
        };
        let counts = |sizes: &[usize]| -> Vec<usize> {
            let events: Vec<Planned> = sizes.iter().map(|size| planned(*size)).collect();
            batches(&events).iter().map(|batch| batch.len()).collect()
        };
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&[1; 250]), [100, 100, 50]);
        assert_eq!(counts(&[90_000, 90_000, 90_000]), [2, 1]);
        // What is too large for any batch still goes alone, and the API says why not.
        assert_eq!(counts(&[1, 300_000, 1]), [1, 1, 1]);
    }

    #[test]
    fn the_samples_show_what_they_promise() {
        let plan = samples().unwrap();
        let mut ids = BTreeSet::new();
        let mut orders = BTreeSet::new();
        let mut currencies = BTreeSet::new();
        let mut counts = BTreeMap::new();
        for planned in &plan.events {
            let data = &planned.event["data"];
            assert!(
                ids.insert(planned.id().to_owned()),
                "{} stands twice",
                planned.id()
            );
            assert!(!planned.about.is_empty(), "{} says nothing", planned.id());
            // What the common crate says without its store: a refund beyond what was paid passes.
            let read = Event::read(planned.event.clone());
            match planned.expect {
                Expect::Refused if planned.about == "more than was paid" => assert!(read.is_ok()),
                Expect::Refused => assert!(read.is_err(), "{} should be refused", planned.id()),
                _ => assert!(read.is_ok(), "{}: {read:?}", planned.id()),
            }
            if planned.expect == Expect::Refused {
                *counts.entry("refused").or_insert(0) += 1;
                continue;
            }
            let kind = planned.event["type"].as_str().unwrap();
            *counts.entry(kind).or_insert(0) += 1;
            if kind == "order.created" {
                orders.insert(data["id"].as_str().unwrap());
                currencies.insert(data["currency"].as_str().unwrap());
                let mut count =
                    |what, shown: bool| *counts.entry(what).or_insert(0) += usize::from(shown);
                count("guests", data["customer"].is_null());
                count("taxes", !data["taxes"].is_null());
                count("tax inside", data["prices_include_tax"] == true);
                count("discounts", !data["discounts"].is_null());
                count("shipping", !data["shipping"].is_null());
                count("nothing to pay", data["total"]["amount"] == 0);
            }
            if kind == "order.refunded" && data["order_id"].is_null() {
                *counts.entry("unlinked").or_insert(0) += 1;
            }
        }
        assert!(orders.len() >= 60, "{} orders", orders.len());
        assert!(currencies.len() >= 5, "{currencies:?}");
        for (what, least) in [
            ("order.refunded", 10),
            ("order.updated", 3),
            ("order.completed", 1),
            ("guests", 4),
            ("taxes", 5),
            ("tax inside", 2),
            ("discounts", 4),
            ("shipping", 4),
            ("nothing to pay", 2),
            ("unlinked", 3),
            ("refused", 5),
        ] {
            assert!(
                counts.get(what) >= Some(&least),
                "{what}: {:?}",
                counts.get(what)
            );
        }
    }
}
