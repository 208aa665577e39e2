//! What a payment processor kept and paid out, as the commerce backend tells it.

use super::ids::RecordId;
use super::money::{Currency, Money};
use super::order::{check_amount, check_currency, check_unreserved};
use super::order_record::{Applied, Sequence};
use super::text::{check_line, check_time};
use crate::error::FieldError;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Longest word for a processor, and longest name of an adjustment.
const PROCESSOR_CHARACTERS_MAX: usize = 50;
const NAME_CHARACTERS_MAX: usize = 200;
/// Most adjustments of one payout: a processor names some kinds, and not each single one.
pub const ADJUSTMENTS_MAX: usize = 100;

/// Something that is neither a charge, nor a refund, nor a fee: a fee that is given back, a dispute that
/// was lost, a reserve that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adjustment {
    pub name: String,
    /// Above zero what the processor gives, below what it takes.
    pub amount: Money,
}

/// One payout at one version. The whole payout is sent each time; a higher version replaces a lower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    pub id: RecordId,
    /// Grows with every change of this payout.
    pub version: u64,
    pub currency: Currency,
    pub paid_at: DateTime<Utc>,
    /// A word such as `stripe`.
    pub processor: String,
    /// What came in through the processor, as a positive amount.
    pub charges: Money,
    /// What went back through it, as a positive amount.
    pub refunds: Money,
    /// What it kept, as a positive amount. A fee that is given back is an adjustment.
    pub fees: Money,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adjustments: Vec<Adjustment>,
    /// What reached the bank; below zero what the processor took from it.
    pub amount: Money,
}

impl Payout {
    /// What is paid out by this: what came in less what went back.
    fn cleared(&self) -> i64 {
        self.charges.amount - self.refunds.amount
    }

    /// What the processor kept all in all; below zero where it gave more than it kept.
    pub fn kept(&self) -> i64 {
        self.fees.amount - self.adjusted()
    }

    fn adjusted(&self) -> i64 {
        self.adjustments.iter().map(|one| one.amount.amount).sum()
    }

    /// Every field of this payout that does not fit; empty when all is well.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        if self.version == 0 {
            faults.push(FieldError::new(
                "/version",
                "must_be_positive",
                "version starts at 1",
            ));
        }
        check_time(&mut faults, "/paid_at", self.paid_at);
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        check_unreserved(&mut faults, "/id", &self.id);
        check_line(
            &mut faults,
            "/processor",
            &self.processor,
            1,
            PROCESSOR_CHARACTERS_MAX,
        );
        if !self.processor.chars().all(word) {
            let detail = "one word of A-Z a-z 0-9 . _ - is needed, such as stripe";
            faults.push(FieldError::new("/processor", "invalid_value", detail));
        }
        for (path, amount) in [
            ("/charges", self.charges),
            ("/refunds", self.refunds),
            ("/fees", self.fees),
        ] {
            check_amount(&mut faults, path, amount, self.currency);
        }
        if self.adjustments.len() > ADJUSTMENTS_MAX {
            let detail = format!(
                "at most {ADJUSTMENTS_MAX} adjustments are taken, {} came; add up those of one kind",
                self.adjustments.len()
            );
            faults.push(FieldError::new("/adjustments", "wrong_count", detail));
        }
        for (index, one) in self.adjustments.iter().enumerate() {
            let at = |field: &str| format!("/adjustments/{index}/{field}");
            check_line(&mut faults, &at("name"), &one.name, 1, NAME_CHARACTERS_MAX);
            check_currency(&mut faults, &at("amount"), one.amount, self.currency);
        }
        check_currency(&mut faults, "/amount", self.amount, self.currency);
        let sum = self.cleared() - self.kept();
        if faults.is_empty() && sum != self.amount.amount {
            faults.push(FieldError::new(
                "/amount",
                "total_mismatch",
                format!(
                    "charges less refunds and fees plus adjustments make {}, but amount says {}",
                    Money::new(sum, self.currency),
                    self.amount
                ),
            ));
        }
        faults
    }
}

/// What is stored of one payout. Its versions may arrive late, twice or out of order; the record ends the
/// same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayoutRecord {
    pub payout: Option<Payout>,
    /// Every event that touched this payout, so that a receiver can see a gap.
    #[serde(default)]
    pub sequence: Sequence,
    /// When the latest change of it happened in the shop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
}

impl PayoutRecord {
    /// Takes `payout`, of which the shop says `at`, when it is newer than what is held.
    pub fn apply(&mut self, payout: &Payout, at: DateTime<Utc>) -> Result<Applied, FieldError> {
        if let Some(held) = &self.payout {
            if held.version >= payout.version {
                return Ok(Applied::Superseded);
            }
            if held.currency != payout.currency {
                return Err(FieldError::new(
                    "/currency",
                    "currency_mismatch",
                    format!(
                        "this payout is known in {}; its currency cannot change",
                        held.currency
                    ),
                ));
            }
        }
        self.payout = Some(payout.clone());
        self.changed_at = self.changed_at.max(Some(at));
        Ok(Applied::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn money(amount: i64) -> Value {
        json!({ "amount": amount, "currency": "USD" })
    }

    /// One that adds up: 100.00 less 10.00 and 2.90, with 1.15 given back.
    fn payout() -> Value {
        json!({
            "id": "po-1", "version": 1, "currency": "USD", "paid_at": "2026-01-05T10:00:00Z",
            "processor": "stripe", "charges": money(10_000), "refunds": money(1_000),
            "fees": money(290), "adjustments": [{ "name": "Fee given back", "amount": money(115) }],
            "amount": money(8_825),
        })
    }

    fn with(pointer: &str, value: Value) -> Payout {
        let mut payout = payout();
        *payout.pointer_mut(pointer).unwrap() = value;
        serde_json::from_value(payout).unwrap()
    }

    #[test]
    fn the_parts_of_a_payout_make_what_reached_the_bank() {
        let payout: Payout = serde_json::from_value(payout()).unwrap();
        assert_eq!(payout.faults(), []);
        assert_eq!(payout.kept(), 175);
        // The processor took more than came in.
        let mut taken = payout.clone();
        taken.charges.amount = 0;
        taken.amount.amount = -1_175;
        assert_eq!(taken.faults(), []);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_field() {
        let euros = json!({ "amount": 290, "currency": "EUR" });
        let many = |count: usize| {
            let one = json!({ "name": "x", "amount": money(0) });
            Value::from(vec![one; count])
        };
        for (pointer, value, at, code) in [
            (
                "/id",
                json!("daily-2026-01-05-web-usd"),
                "#/id",
                "reserved_id",
            ),
            ("/version", json!(0), "#/version", "must_be_positive"),
            ("/amount", money(8_826), "#/amount", "total_mismatch"),
            ("/fees", money(-1), "#/fees/amount", "must_not_be_negative"),
            (
                "/charges",
                money(-1),
                "#/charges/amount",
                "must_not_be_negative",
            ),
            (
                "/refunds",
                money(-1),
                "#/refunds/amount",
                "must_not_be_negative",
            ),
            (
                "/fees",
                euros.clone(),
                "#/fees/currency",
                "currency_mismatch",
            ),
            (
                "/amount",
                euros.clone(),
                "#/amount/currency",
                "currency_mismatch",
            ),
            (
                "/adjustments/0/amount",
                euros,
                "#/adjustments/0/amount/currency",
                "currency_mismatch",
            ),
            (
                "/adjustments/0/name",
                json!(""),
                "#/adjustments/0/name",
                "wrong_length",
            ),
            ("/adjustments", many(101), "#/adjustments", "wrong_count"),
            (
                "/processor",
                json!("my bank"),
                "#/processor",
                "invalid_value",
            ),
            ("/processor", json!(""), "#/processor", "wrong_length"),
            (
                "/paid_at",
                json!("2126-01-01T00:00:00Z"),
                "#/paid_at",
                "out_of_range",
            ),
        ] {
            let faults = with(pointer, value).faults();
            let found: Vec<(&str, &str)> = faults
                .iter()
                .map(|fault| (&fault.pointer[..], fault.code))
                .collect();
            assert_eq!(found, [(at, code)], "{pointer}");
        }
    }

    #[test]
    fn the_highest_version_stays_in_whatever_order_they_come() {
        let (first, second) = (with("/version", json!(1)), with("/version", json!(2)));
        let at = |text: &str| text.parse().unwrap();
        let (early, late) = (at("2026-01-05T10:00:00Z"), at("2026-01-06T10:00:00Z"));
        let mut record = PayoutRecord::default();
        assert_eq!(record.apply(&second, late), Ok(Applied::Changed));
        assert_eq!(record.apply(&first, early), Ok(Applied::Superseded));
        assert_eq!(record.apply(&second, late), Ok(Applied::Superseded));
        assert_eq!(
            (&record.payout, record.changed_at),
            (&Some(second), Some(late))
        );
        let mut third = with("/version", json!(3));
        third.currency = "EUR".parse().unwrap();
        assert_eq!(
            record.apply(&third, late).unwrap_err().code,
            "currency_mismatch"
        );
    }
}
