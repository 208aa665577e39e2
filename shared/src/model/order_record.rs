//! What is stored of one order: its latest version, what was paid and what went back. Events may
//! arrive late, twice or out of order; the record ends the same.

use super::channel::Channel;
use super::ids::{EventId, RecordId};
use super::money::{Currency, Money};
use super::order::{Line, Order, Payment, PaymentOutcome, Refund};
use crate::error::FieldError;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most payments and refunds of one order.
pub const MOVEMENTS_MAX: usize = 200;

/// One order with the money that moved for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Absent while only payments have arrived.
    pub order: Option<Order>,
    #[serde(default)]
    pub payments: BTreeMap<RecordId, Payment>,
    #[serde(default)]
    pub refunds: BTreeMap<RecordId, Money>,
    /// Every event that touched this order, so that a receiver can see a gap.
    #[serde(default)]
    pub sequence: Sequence,
    /// When the latest change of it happened in the shop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
    /// Where the first version that was accepted put it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filed: Option<Filed>,
}

/// Under which day (UTC) and channel an order is summed where the books have one entry a day. It stays
/// what it was at first, whatever later versions say: so no order is ever in two entries.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Filed {
    pub day: NaiveDate,
    pub channel: Channel,
}

impl Filed {
    fn of(order: &Order) -> Filed {
        Filed {
            day: order.placed_at.date_naive(),
            channel: order.channel.clone().unwrap_or_default(),
        }
    }
}

/// The position of the latest event on one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    pub n: u64,
    pub last: Option<EventId>,
}

impl Sequence {
    /// Counts `event` and returns its place: its number and the event before it.
    pub fn advance(&mut self, event: &EventId) -> (u64, Option<EventId>) {
        let previous = self.last.replace(event.clone());
        self.n += 1;
        (self.n, previous)
    }
}

/// Whether an event changed the record or came too late to matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Changed,
    /// The record already holds this version or a later one.
    Superseded,
}

impl OrderRecord {
    /// The sum of all payments that succeeded, in minor units.
    pub fn paid(&self) -> i64 {
        let succeeded = self
            .payments
            .values()
            .filter(|p| p.outcome == PaymentOutcome::Succeeded);
        succeeded.map(|p| p.amount.amount).sum()
    }

    /// The sum of all refunds, in minor units.
    pub fn refunded(&self) -> i64 {
        self.refunds.values().map(|m| m.amount).sum()
    }

    /// Whether the books may show this order as sold: known, and paid in full.
    pub fn is_paid(&self) -> bool {
        self.order
            .as_ref()
            .is_some_and(|order| self.paid() >= order.total.amount)
    }

    /// How much of the order gift cards pay. What was redeemed beyond it is owed still.
    pub fn redeemed(&self, order: &Order) -> i64 {
        let gift_cards = self.came().filter(|payment| payment.redeems());
        let sum: i64 = gift_cards.map(|payment| payment.amount.amount).sum();
        sum.min(order.total.amount)
    }

    /// The money that came in beyond what the order costs, in minor units: the shop owes it to the
    /// customer.
    fn excess(&self) -> i64 {
        let Some(order) = &self.order else { return 0 };
        let money = self.came().filter(|payment| !payment.redeems());
        let money: i64 = money.map(|payment| payment.amount.amount).sum();
        let asked = order.total.amount - self.redeemed(order);
        (money - asked).max(0)
    }

    /// The order as a receipt shows it, where more came in than it costs: with a line over what is owed to
    /// the customer, which is what a gift card is as well. `None` where it is as the shop told it.
    pub fn as_received(&self) -> Option<Order> {
        let excess = self.excess();
        let order = self.order.as_ref().filter(|_| excess > 0)?;
        let mut order = order.clone();
        order
            .lines
            .push(Line::owed(Money::new(excess, order.currency)));
        order.total.amount += excess;
        Some(order)
    }

    /// A refund of this order as a receipt shows it, where it pays back what came in beyond the order's
    /// total: nothing that was sold comes back then. The refunds take of that in the order of their ids,
    /// each all of its amount or nothing. `None` where it is as the shop told it.
    pub fn as_paid_back(&self, refund: &Refund) -> Option<Refund> {
        // With what gift cards hold still, of which the order took no more than it costs.
        let total = self.order.as_ref()?.total.amount;
        let mut left = (self.paid() - total).max(0);
        for (id, amount) in &self.refunds {
            let pays_back = amount.amount <= left;
            if pays_back {
                left -= amount.amount;
            }
            if *id == refund.id {
                return pays_back.then(|| Refund {
                    lines: vec![Line::owed(refund.amount)],
                    shipping: None,
                    tax: None,
                    taxes: Vec::new(),
                    prices_include_tax: false,
                    tip: None,
                    ..refund.clone()
                });
            }
        }
        None
    }

    /// What came in for the order, be it money or not.
    pub fn came(&self) -> impl Iterator<Item = &Payment> {
        let came = |payment: &&Payment| {
            payment.outcome == PaymentOutcome::Succeeded && payment.amount.amount > 0
        };
        self.payments.values().filter(came)
    }

    /// Where it is summed; `None` while only payments have arrived. What is older than this member was
    /// never moved.
    pub fn filed(&self) -> Option<Filed> {
        let own = || self.order.as_ref().map(Filed::of);
        self.filed.clone().or_else(own)
    }

    /// The one currency of the order and of all money that moved for it, once anything is known.
    fn currency(&self) -> Option<Currency> {
        let order = self.order.as_ref().map(|order| order.currency);
        order.or_else(|| Some(self.payments.values().next()?.amount.currency))
    }

    /// Takes `order` when it is newer than what is held.
    pub fn apply_order(&mut self, order: Order) -> Result<Applied, FieldError> {
        if let Some(held) = &self.order
            && held.version >= order.version
        {
            return Ok(Applied::Superseded);
        }
        if let Some(currency) = self.currency()
            && currency != order.currency
        {
            return Err(FieldError::new(
                "/currency",
                "currency_mismatch",
                format!("this order is known in {currency}; its currency cannot change"),
            ));
        }
        self.filed = self.filed().or_else(|| Some(Filed::of(&order)));
        self.order = Some(order);
        Ok(Applied::Changed)
    }

    /// Takes a payment. It may arrive before its order.
    pub fn apply_payment(&mut self, payment: Payment) -> Result<Applied, FieldError> {
        if let Some(held) = self.payments.get(&payment.id) {
            // A failed attempt that later succeeds keeps its id with some payment services.
            let completes = held.outcome == PaymentOutcome::Failed
                && payment.outcome == PaymentOutcome::Succeeded;
            if !completes {
                return Ok(Applied::Superseded);
            }
        }
        if let Some(currency) = self.currency()
            && currency != payment.amount.currency
        {
            return Err(FieldError::new(
                "/amount/currency",
                "currency_mismatch",
                format!("this order is known in {currency}"),
            ));
        }
        if self.payments.len() >= MOVEMENTS_MAX {
            return Err(too_many("/id", "payments"));
        }
        self.payments.insert(payment.id.clone(), payment);
        Ok(Applied::Changed)
    }

    /// Takes a refund, if its order is known and no more goes back than was paid. The order says who
    /// gets the money, so the books could not show a refund without it.
    pub fn apply_refund(&mut self, refund: &Refund) -> Result<Applied, FieldError> {
        if self.refunds.contains_key(&refund.id) {
            return Ok(Applied::Superseded);
        }
        if self.order.is_none() {
            return Err(FieldError::new(
                "/order_id",
                "order_unknown",
                "this order has not arrived; send its order.created event, then this again",
            ));
        }
        if let Some(currency) = self.currency()
            && currency != refund.amount.currency
        {
            return Err(FieldError::new(
                "/amount/currency",
                "currency_mismatch",
                format!("this order is in {currency}"),
            ));
        }
        let left = self.paid() - self.refunded();
        if refund.amount.amount > left {
            let left = Money::new(left.max(0), refund.amount.currency);
            return Err(FieldError::new(
                "/amount",
                "refund_exceeds_payment",
                format!(
                    "{} would go back, but only {left} of this order is paid and not yet refunded; \
                     if a payment.processed event is still on its way, send this again after it",
                    refund.amount
                ),
            ));
        }
        if self.refunds.len() >= MOVEMENTS_MAX {
            return Err(too_many("/id", "refunds"));
        }
        self.refunds.insert(refund.id.clone(), refund.amount);
        Ok(Applied::Changed)
    }
}

fn too_many(path: &str, what: &str) -> FieldError {
    FieldError::new(
        path,
        "too_many",
        format!("an order holds at most {MOVEMENTS_MAX} {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn payment(id: &str, amount: i64, currency: &str) -> Payment {
        serde_json::from_value(json!({
            "id": id, "order_id": "1", "outcome": "succeeded", "method": "card",
            "amount": { "amount": amount, "currency": currency },
            "processed_at": "2026-01-01T10:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn money_of_two_currencies_is_never_added() {
        let mut record = OrderRecord::default();
        record.apply_payment(payment("a", 1000, "USD")).unwrap();
        let fault = record.apply_payment(payment("b", 1000, "JPY")).unwrap_err();
        assert_eq!(fault.code, "currency_mismatch");
        assert_eq!(record.paid(), 1000);
    }

    fn order(version: u64, total: i64) -> Order {
        let money = json!({ "amount": total, "currency": "USD" });
        serde_json::from_value(json!({
            "id": "1", "version": version, "number": "1", "currency": "USD",
            "placed_at": "2026-01-01T09:00:00Z", "customer": null, "total": money,
            "lines": [{
                "sku": "mug", "name": "Mug", "quantity": "1", "total": money,
                "unit_price": Money::new(total, "USD".parse().unwrap()).major().to_string(),
            }],
        }))
        .unwrap()
    }

    fn refund(id: &str, amount: i64) -> Refund {
        serde_json::from_value(json!({
            "id": id, "order_id": "1", "amount": { "amount": amount, "currency": "USD" },
            "tax": { "amount": 1, "currency": "USD" }, "refunded_at": "2026-01-02T10:00:00Z",
        }))
        .unwrap()
    }

    /// A price that was cut after it was paid, and money that went back for it.
    #[test]
    fn what_came_in_beyond_an_order_is_owed_until_it_is_paid_back() {
        let mut record = OrderRecord::default();
        record.apply_order(order(1, 1000)).unwrap();
        record.apply_payment(payment("a", 1000, "USD")).unwrap();
        let first = refund("r1", 300);
        record.apply_refund(&first).unwrap();
        assert_eq!(record.as_received(), None, "as much came as was asked for");
        assert_eq!(record.as_paid_back(&first), None, "something came back");

        record.apply_order(order(2, 600)).unwrap();
        let received = record.as_received().unwrap();
        assert_eq!(received.total.amount, 1000, "what came in");
        assert_eq!(received.faults(), []);
        let owed = received.lines.last().unwrap();
        assert_eq!((owed.total.amount, owed.gift_card), (400, true));
        let back = record.as_paid_back(&first).unwrap();
        assert_eq!(
            (back.amount.amount, back.tax, back.faults()),
            (300, None, vec![])
        );
        assert!(back.lines.iter().all(|line| line.gift_card));
        // A hundred is left, which is less than this one.
        let (second, third) = (refund("r2", 101), refund("r3", 100));
        record.apply_refund(&second).unwrap();
        record.apply_refund(&third).unwrap();
        assert_eq!(record.as_paid_back(&second), None);
        assert!(record.as_paid_back(&third).is_some());
    }

    #[test]
    fn gift_cards_beyond_an_order_keep_what_they_are_worth() {
        let mut record = OrderRecord::default();
        record.apply_order(order(1, 600)).unwrap();
        let mut card = payment("card", 1000, "USD");
        card.method = super::super::order::GIFT_CARD.to_owned();
        record.apply_payment(card).unwrap();
        assert_eq!(record.redeemed(&order(1, 600)), 600);
        assert_eq!(record.as_received(), None);
        record.apply_payment(payment("a", 50, "USD")).unwrap();
        assert_eq!(record.as_received().unwrap().total.amount, 650);
        // What goes back of the card takes from what it holds still, and nothing that was sold comes back.
        let back = refund("r", 450);
        record.apply_refund(&back).unwrap();
        assert!(record.as_paid_back(&back).is_some());
    }
}
