//! What the shop sells, and how much of it is there.

use super::ids::{EventId, RecordId};
use super::money::Money;
use super::order::check_amount;
use super::order_record::{Applied, Sequence};
use super::text::{check_line, check_lines, check_time};
use crate::error::FieldError;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Most variants of one product.
pub const VARIANTS_MAX: usize = 100;
pub const NAME_CHARACTERS_MAX: usize = 500;
pub const DESCRIPTION_CHARACTERS_MAX: usize = 10_000;
pub const BARCODE_CHARACTERS_MAX: usize = 50;

/// One product at one version (`product.updated`). The whole product is sent each time; a higher version
/// replaces a lower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub id: RecordId,
    /// Grows with every change of this product.
    pub version: u64,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is for sale.
    #[serde(default = "yes")]
    pub active: bool,
    pub variants: Vec<Variant>,
}

/// One way in which a product is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// What lines of orders name.
    pub sku: String,
    /// What tells it from the others, such as a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub price: Money,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub barcode: Option<String>,
    #[serde(default = "yes")]
    pub taxable: bool,
}

/// How much of something is at a place (`inventory.updated`). A later one replaces an earlier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InventoryLevel {
    pub sku: String,
    pub location: String,
    /// Below zero what was sold and is not there.
    pub level: i64,
    pub at: DateTime<Utc>,
}

/// A stock level that fell to its threshold (`inventory.low_stock`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LowStock {
    pub sku: String,
    pub location: String,
    pub level: i64,
    pub threshold: i64,
    pub at: DateTime<Utc>,
}

fn yes() -> bool {
    true
}

impl Product {
    /// Every field of this product that does not fit; empty when all is well.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        if self.version == 0 {
            let detail = "version starts at 1";
            faults.push(FieldError::new("/version", "must_be_positive", detail));
        }
        check_line(&mut faults, "/name", &self.name, 1, NAME_CHARACTERS_MAX);
        if let Some(text) = &self.description {
            check_lines(
                &mut faults,
                "/description",
                text,
                0,
                DESCRIPTION_CHARACTERS_MAX,
            );
        }
        if !(1..=VARIANTS_MAX).contains(&self.variants.len()) {
            let count = self.variants.len();
            let detail = format!(
                "between 1 and {VARIANTS_MAX} variants are needed, {count} came; what is sold in one way \
                 has one"
            );
            faults.push(FieldError::new("/variants", "wrong_count", detail));
        }
        let mut skus = BTreeSet::new();
        for (index, one) in self.variants.iter().enumerate().take(VARIANTS_MAX) {
            let at = |field: &str| format!("/variants/{index}/{field}");
            check_line(&mut faults, &at("sku"), &one.sku, 1, 100);
            if !skus.insert(&one.sku) {
                let detail = "another variant has this number; each needs one of its own";
                faults.push(FieldError::new(&at("sku"), "already_used", detail));
            }
            if let Some(name) = &one.name {
                check_line(&mut faults, &at("name"), name, 1, NAME_CHARACTERS_MAX);
            }
            if let Some(barcode) = &one.barcode {
                check_line(
                    &mut faults,
                    &at("barcode"),
                    barcode,
                    1,
                    BARCODE_CHARACTERS_MAX,
                );
            }
            check_amount(&mut faults, &at("price"), one.price, one.price.currency);
        }
        faults
    }
}

fn check_place(faults: &mut Vec<FieldError>, sku: &str, location: &str, at: DateTime<Utc>) {
    check_line(faults, "/sku", sku, 1, 100);
    check_line(faults, "/location", location, 1, 100);
    check_time(faults, "/at", at);
}

impl InventoryLevel {
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        check_place(&mut faults, &self.sku, &self.location, self.at);
        faults
    }
}

impl LowStock {
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        check_place(&mut faults, &self.sku, &self.location, self.at);
        faults
    }
}

/// What is stored of a product, or of a level. What tells of it may arrive late, twice or out of order; the
/// record ends the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodsRecord {
    /// As it came.
    pub data: Value,
    /// Every event that touched it, so that a receiver can see a gap.
    #[serde(default)]
    pub sequence: Sequence,
}

/// What decides which of two is the later one.
pub enum Age {
    Version(u64),
    At(DateTime<Utc>),
}

impl GoodsRecord {
    /// Takes `data` of this age, unless what is held is as late or later, and gives the event its place.
    pub fn apply(
        &mut self,
        data: &Value,
        age: &Age,
        event: &EventId,
    ) -> (Applied, u64, Option<EventId>) {
        let newer = match age {
            Age::Version(version) => self.data["version"].as_u64() < Some(*version),
            Age::At(at) => {
                let held = self.data["at"].as_str().and_then(|at| at.parse().ok());
                held < Some(*at)
            }
        };
        let (n, previous_id) = self.sequence.advance(event);
        if !newer {
            return (Applied::Superseded, n, previous_id);
        }
        self.data = data.clone();
        (Applied::Changed, n, previous_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn product() -> Value {
        json!({
            "id": "mug", "version": 1, "name": "Mug", "description": "Of clay.\nBlue.",
            "variants": [
                { "sku": "MUG-S", "name": "small", "price": { "amount": 900, "currency": "USD" } },
                { "sku": "MUG-L", "name": "large", "price": { "amount": 1200, "currency": "USD" },
                  "barcode": "4006381333931", "taxable": false },
            ],
        })
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let read = |value: Value| serde_json::from_value::<Product>(value).unwrap();
        assert_eq!(read(product()).faults(), []);
        for (pointer, value, code) in [
            ("/version", json!(0), "must_be_positive"),
            ("/name", json!(""), "wrong_length"),
            ("/variants", json!([]), "wrong_count"),
            ("/variants/1/sku", json!("MUG-S"), "already_used"),
            (
                "/variants/0/price/amount",
                json!(-1),
                "must_not_be_negative",
            ),
        ] {
            let mut wrong = product();
            *wrong.pointer_mut(pointer).unwrap() = value;
            let faults = read(wrong).faults();
            assert_eq!(faults.len(), 1, "{pointer}: {faults:?}");
            assert!(
                faults[0]
                    .pointer
                    .contains(pointer.split('/').nth(1).unwrap())
            );
            assert_eq!(faults[0].code, code, "{pointer}");
        }
    }

    /// In whatever order they come, the latest stands, and each is counted.
    #[test]
    fn the_latest_stands_in_every_order() {
        let events: Vec<EventId> = (1..=3).map(|n| format!("e{n}").parse().unwrap()).collect();
        for order in [
            [1, 2, 3],
            [1, 3, 2],
            [2, 1, 3],
            [2, 3, 1],
            [3, 1, 2],
            [3, 2, 1],
        ] {
            let mut record = GoodsRecord::default();
            let mut last = None;
            for (place, version) in order.into_iter().enumerate() {
                let data = json!({ "version": version });
                let event = &events[place];
                let (_, n, previous) = record.apply(&data, &Age::Version(version), event);
                assert_eq!((n, previous), (place as u64 + 1, last.clone()));
                last = Some(event.clone());
            }
            assert_eq!(record.data["version"], 3, "{order:?}");
        }
        let mut record = GoodsRecord::default();
        for (at, stands) in [
            ("2026-01-02T00:00:00Z", true),
            ("2026-01-01T00:00:00Z", false),
        ] {
            let data = json!({ "at": at });
            let (applied, ..) = record.apply(&data, &Age::At(at.parse().unwrap()), &events[0]);
            assert_eq!(applied == Applied::Changed, stands);
        }
    }
}
