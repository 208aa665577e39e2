//! Orders, payments and refunds as the commerce backend sends them, and the arithmetic they keep.

use super::channel::Channel;
use super::ids::RecordId;
use super::money::{Currency, Money};
use super::people::Customer;
use super::summary::SummaryName;
use super::text::{self, check_email, check_line, check_time};
use crate::error::FieldError;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};

/// Most lines of one order: more do not fit into one stored item, nor into a provider's document.
pub const LINES_MAX: usize = 750;
/// Longest name of a discount, a tax or a way of shipping.
const NAME_CHARACTERS_MAX: usize = 200;
/// Longest telephone number, with an extension in words.
const PHONE_CHARACTERS_MAX: usize = 50;
/// Longest reason of a refund. People write it, so it may go over several lines.
const REASON_CHARACTERS_MAX: usize = 1000;
/// Longest word for how money moved.
const METHOD_CHARACTERS_MAX: usize = 64;
/// Highest tax rate in per cent: above what any duty is, and below what a missing point makes.
const TAX_RATE_MAX: i64 = 1000;
/// Most decimals of a unit price, as QuickBooks takes.
pub const UNIT_PRICE_DECIMALS_MAX: u32 = 5;

/// The method of a payment that redeems a gift card, and of a refund that goes back to one. No money moves.
pub const GIFT_CARD: &str = "gift_card";

/// One line of an order or a refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub sku: String,
    pub name: String,
    /// A rate, so a decimal string: `"2"`, `"0.75"`.
    #[serde(deserialize_with = "rate")]
    pub quantity: Decimal,
    /// Major units, a rate as well: `"10.00"`, up to five decimals.
    #[serde(deserialize_with = "rate")]
    pub unit_price: Decimal,
    /// `quantity × unit_price`, rounded half to even to the minor unit.
    pub total: Money,
    #[serde(default = "yes")]
    pub taxable: bool,
    /// Whether a gift card is sold: the shop owes what it is worth, and it is never taxed, since what is
    /// bought with it will be.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gift_card: bool,
}

/// Reads a decimal string exactly as it stands. The library's own way would round what has more
/// digits than it holds, and take `1_000`.
fn rate<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-');
    let exact = Decimal::from_str_exact(&text)
        .ok()
        .filter(|_| text.chars().all(plain));
    exact.ok_or_else(|| {
        serde::de::Error::custom(
            "a decimal number of at most 28 digits is needed, as a string such as \"0.75\"",
        )
    })
}

fn yes() -> bool {
    true
}

/// A discount on the whole order, as a positive amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Discount {
    pub name: String,
    pub amount: Money,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shipping {
    pub name: String,
    pub amount: Money,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tax {
    pub name: String,
    /// Per cent, as a decimal string: `"8.5"`.
    #[serde(deserialize_with = "rate")]
    pub rate: Decimal,
    pub amount: Money,
}

/// An order at one version. The whole order is sent each time; a higher version replaces a lower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    pub id: RecordId,
    /// Grows with every change of this order.
    pub version: u64,
    pub number: String,
    pub currency: Currency,
    pub placed_at: DateTime<Utc>,
    /// Where it was placed. Absent for a shop that has one channel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// `null` for a guest.
    pub customer: Option<Customer>,
    pub lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<Discount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Shipping>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taxes: Vec<Tax>,
    #[serde(default)]
    pub prices_include_tax: bool,
    /// What was given on top for those who served. Part of the total, and never taxed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tip: Option<Money>,
    pub total: Money,
    /// How many orders a daily summary sums. No shop sends any.
    #[serde(skip)]
    pub summed: Option<u64>,
    /// What of a daily summary is taxed otherwise than its own lines. No shop sends any.
    #[serde(skip)]
    pub sections: Vec<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentOutcome {
    Succeeded,
    Failed,
}

/// Money that was taken, or that could not be taken, for one order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payment {
    pub id: RecordId,
    pub order_id: RecordId,
    pub outcome: PaymentOutcome,
    pub amount: Money,
    pub method: String,
    pub processed_at: DateTime<Utc>,
}

/// Money that went back. With an order it is bounded by what was paid; without one it stands alone
/// (a return of goods whose sale lies before this system, say).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refund {
    pub id: RecordId,
    pub order_id: Option<RecordId>,
    /// Who gets the money when there is no order to tell it; `null` for a guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<Customer>,
    /// What went back, all in all, as a positive amount.
    pub amount: Money,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<Line>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shipping: Option<Money>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<Money>,
    /// Whether the lines and the shipping hold the tax.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prices_include_tax: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tip: Option<Money>,
    /// How it went back, where the shop says so: [`GIFT_CARD`] for what is owed on a gift card again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub refunded_at: DateTime<Utc>,
    /// The taxes of what goes back, where no order tells them: those of a daily summary. No shop sends any.
    #[serde(skip)]
    pub taxes: Vec<Tax>,
    /// As with orders.
    #[serde(skip)]
    pub summed: Option<u64>,
    #[serde(skip)]
    pub sections: Vec<Refund>,
}

impl Line {
    /// A line over what the shop owes to the customer because more came in than the order costs.
    pub(super) fn owed(total: Money) -> Line {
        Line {
            sku: "OVERPAYMENT".to_owned(),
            name: "Paid beyond the order".to_owned(),
            quantity: Decimal::ONE,
            unit_price: total.major(),
            total,
            taxable: false,
            gift_card: true,
        }
    }

    /// Whether tax is reckoned on it.
    pub fn bears_tax(&self) -> bool {
        self.taxable && !self.gift_card
    }
}

impl Order {
    /// Itself, and what of it is taxed otherwise.
    pub fn parts(&self) -> impl Iterator<Item = &Order> {
        std::iter::once(self).chain(&self.sections)
    }

    pub fn tip_amount(&self) -> i64 {
        self.tip.map_or(0, |tip| tip.amount)
    }

    pub fn shipping_amount(&self) -> i64 {
        self.shipping.as_ref().map_or(0, |s| s.amount.amount)
    }

    pub fn discount_amount(&self) -> i64 {
        self.discounts.iter().map(|d| d.amount.amount).sum()
    }

    pub fn tax_amount(&self) -> i64 {
        self.taxes.iter().map(|t| t.amount.amount).sum()
    }

    pub fn lines_amount(&self) -> i64 {
        self.lines.iter().map(|l| l.total.amount).sum()
    }

    /// Every field of this order that does not fit; empty when all is well.
    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        if self.version == 0 {
            faults.push(FieldError::new(
                "/version",
                "must_be_positive",
                "version starts at 1",
            ));
        }
        check_unreserved(&mut faults, "/id", &self.id);
        check_line(&mut faults, "/number", &self.number, 1, 64);
        check_time(&mut faults, "/placed_at", self.placed_at);
        check_customer(&mut faults, self.customer.as_ref());
        check_lines(&mut faults, &self.lines, self.currency, Sign::Any);
        for (index, discount) in self.discounts.iter().enumerate() {
            let at = |field: &str| format!("/discounts/{index}/{field}");
            check_line(
                &mut faults,
                &at("name"),
                &discount.name,
                0,
                NAME_CHARACTERS_MAX,
            );
            check_amount(&mut faults, &at("amount"), discount.amount, self.currency);
        }
        if let Some(shipping) = &self.shipping {
            check_line(
                &mut faults,
                "/shipping/name",
                &shipping.name,
                0,
                NAME_CHARACTERS_MAX,
            );
            check_amount(
                &mut faults,
                "/shipping/amount",
                shipping.amount,
                self.currency,
            );
        }
        for (index, tax) in self.taxes.iter().enumerate() {
            let at = |field: &str| format!("/taxes/{index}/{field}");
            check_line(&mut faults, &at("name"), &tax.name, 0, NAME_CHARACTERS_MAX);
            if !(Decimal::ZERO..=Decimal::from(TAX_RATE_MAX)).contains(&tax.rate) {
                let detail = format!("a rate from 0 to {TAX_RATE_MAX} per cent is needed");
                faults.push(FieldError::new(&at("rate"), "out_of_range", detail));
            }
            check_amount(&mut faults, &at("amount"), tax.amount, self.currency);
        }
        if let Some(tip) = self.tip {
            check_amount(&mut faults, "/tip", tip, self.currency);
        }
        check_amount(&mut faults, "/total", self.total, self.currency);
        if faults.is_empty() {
            let tax_on_top = if self.prices_include_tax {
                0
            } else {
                self.tax_amount()
            };
            let sum = self.lines_amount() - self.discount_amount()
                + self.shipping_amount()
                + tax_on_top
                + self.tip_amount();
            if sum != self.total.amount {
                faults.push(FieldError::new(
                    "/total",
                    "total_mismatch",
                    format!(
                        "lines less discounts plus shipping, taxes and tip make {}, but total says {}",
                        Money::new(sum, self.currency),
                        self.total
                    ),
                ));
            }
            let without_tip = self.total.amount - self.tip_amount();
            if self.prices_include_tax && self.tax_amount() > without_tip {
                faults.push(FieldError::new(
                    "/taxes",
                    "tax_too_large",
                    "prices include tax, so the taxes cannot be more than the total without the tip",
                ));
            }
            let only_gift_cards =
                self.lines.iter().all(|line| line.gift_card) && self.shipping_amount() == 0;
            if only_gift_cards && self.tax_amount() != 0 {
                faults.push(FieldError::new(
                    "/taxes",
                    "tax_on_gift_cards",
                    "a gift card is not taxed; what is bought with it will be",
                ));
            }
        }
        faults
    }
}

impl Payment {
    /// Whether it redeems a gift card and brings no money.
    pub fn redeems(&self) -> bool {
        self.method == GIFT_CARD
    }

    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        check_unreserved(&mut faults, "/order_id", &self.order_id);
        check_line(
            &mut faults,
            "/method",
            &self.method,
            1,
            METHOD_CHARACTERS_MAX,
        );
        check_time(&mut faults, "/processed_at", self.processed_at);
        check_amount(&mut faults, "/amount", self.amount, self.amount.currency);
        faults
    }
}

impl Refund {
    /// Itself, and what of it is taxed otherwise.
    pub fn parts(&self) -> impl Iterator<Item = &Refund> {
        std::iter::once(self).chain(&self.sections)
    }

    /// Whether it goes back to a gift card, so that no money moves.
    pub fn to_gift_card(&self) -> bool {
        self.method.as_deref() == Some(GIFT_CARD)
    }

    pub fn tax_amount(&self) -> i64 {
        self.tax.map_or(0, |tax| tax.amount)
    }

    /// What of it is for goods, in minor units, with or without tax as its lines are.
    pub fn goods_amount(&self) -> i64 {
        let rest = [self.shipping, self.tip].into_iter().flatten();
        let rest: i64 = rest.map(|money| money.amount).sum();
        let on_top = if self.prices_include_tax {
            0
        } else {
            self.tax_amount()
        };
        self.amount.amount - rest - on_top
    }

    pub fn faults(&self) -> Vec<FieldError> {
        let mut faults = Vec::new();
        let currency = self.amount.currency;
        check_unreserved(&mut faults, "/id", &self.id);
        check_time(&mut faults, "/refunded_at", self.refunded_at);
        if let Some(reason) = &self.reason {
            text::check_lines(&mut faults, "/reason", reason, 0, REASON_CHARACTERS_MAX);
        }
        check_customer(&mut faults, self.customer.as_ref());
        check_amount(&mut faults, "/amount", self.amount, currency);
        if self.amount.amount == 0 {
            faults.push(FieldError::new(
                "/amount",
                "must_be_positive",
                "a refund gives back more than nothing",
            ));
        }
        if !self.lines.is_empty() {
            check_lines(&mut faults, &self.lines, currency, Sign::NotNegative);
        }
        if let Some(method) = &self.method {
            check_line(&mut faults, "/method", method, 1, METHOD_CHARACTERS_MAX);
        }
        for (path, amount) in [
            ("/shipping", self.shipping),
            ("/tax", self.tax),
            ("/tip", self.tip),
        ] {
            if let Some(amount) = amount {
                check_amount(&mut faults, path, amount, currency);
            }
        }
        let lines: i64 = self.lines.iter().map(|l| l.total.amount).sum();
        let goods = self.goods_amount();
        let fits = match self.lines.is_empty() {
            true => goods >= 0,
            false => goods == lines,
        };
        let tip = self.tip.map_or(0, |tip| tip.amount);
        if faults.is_empty()
            && self.prices_include_tax
            && self.tax_amount() > self.amount.amount - tip
        {
            faults.push(FieldError::new(
                "/tax",
                "tax_too_large",
                "prices include tax, so the tax cannot be more than the amount without the tip",
            ));
        }
        if faults.is_empty() && !fits {
            faults.push(FieldError::new(
                "/amount",
                "total_mismatch",
                format!(
                    "lines, shipping, {}tip make {}, but amount says {}",
                    if self.prices_include_tax {
                        ""
                    } else {
                        "tax and "
                    },
                    Money::new(self.amount.amount - goods + lines, currency),
                    self.amount
                ),
            ));
        }
        faults
    }
}

#[derive(PartialEq)]
enum Sign {
    Any,
    NotNegative,
}

fn check_lines(faults: &mut Vec<FieldError>, lines: &[Line], currency: Currency, sign: Sign) {
    if lines.is_empty() || lines.len() > LINES_MAX {
        let detail = format!(
            "between 1 and {LINES_MAX} lines are needed, {} came",
            lines.len()
        );
        faults.push(FieldError::new("/lines", "wrong_count", detail));
        return;
    }
    for (index, line) in lines.iter().enumerate() {
        let at = |field: &str| format!("/lines/{index}/{field}");
        check_line(faults, &at("sku"), &line.sku, 1, 100);
        check_line(faults, &at("name"), &line.name, 0, 4000);
        if line.quantity <= Decimal::ZERO {
            faults.push(FieldError::new(
                &at("quantity"),
                "must_be_positive",
                "quantity must be more than 0; a return is an order.refunded event",
            ));
        }
        if line.unit_price.normalize().scale() > UNIT_PRICE_DECIMALS_MAX {
            faults.push(FieldError::new(
                &at("unit_price"),
                "too_many_decimals",
                format!("unit_price takes at most {UNIT_PRICE_DECIMALS_MAX} decimals"),
            ));
        }
        if line.total.currency != currency {
            faults.push(other_currency(
                &at("total/currency"),
                line.total.currency,
                currency,
            ));
            continue;
        }
        if sign == Sign::NotNegative && line.total.amount < 0 {
            faults.push(negative(&at("total/amount")));
        }
        let product = line.quantity.checked_mul(line.unit_price);
        let expected = product.and_then(|major| Money::round(major, currency));
        if expected != Some(line.total) {
            let detail = match expected {
                Some(money) => format!(
                    "quantity × unit_price makes {money}, but total says {}",
                    line.total
                ),
                None => "quantity × unit_price is too large".to_owned(),
            };
            faults.push(FieldError::new(&at("total"), "total_mismatch", detail));
        }
    }
}

/// Refuses the ids of daily summaries, which stand beside the shop's own in the books.
pub(super) fn check_unreserved(faults: &mut Vec<FieldError>, path: &str, id: &RecordId) {
    if SummaryName::parse(id.as_str()).is_some() {
        let detail = "ids of this form are those of daily summaries; give this another id";
        faults.push(FieldError::new(path, "reserved_id", detail));
    }
}

fn check_customer(faults: &mut Vec<FieldError>, customer: Option<&Customer>) {
    let Some(customer) = customer else { return };
    check_line(faults, "/customer/name", &customer.name, 1, 400);
    check_email(faults, "/customer/email", customer.email.as_ref());
    if let Some(phone) = &customer.phone {
        check_line(faults, "/customer/phone", phone, 0, PHONE_CHARACTERS_MAX);
    }
}

/// An amount of at least nothing, in `currency`.
pub(super) fn check_amount(
    faults: &mut Vec<FieldError>,
    path: &str,
    money: Money,
    currency: Currency,
) {
    if check_currency(faults, path, money, currency) && money.amount < 0 {
        faults.push(negative(&format!("{path}/amount")));
    }
}

/// An amount in `currency`. Returns whether it is.
pub(super) fn check_currency(
    faults: &mut Vec<FieldError>,
    path: &str,
    money: Money,
    currency: Currency,
) -> bool {
    let same = money.currency == currency;
    if !same {
        faults.push(other_currency(
            &format!("{path}/currency"),
            money.currency,
            currency,
        ));
    }
    same
}

fn other_currency(path: &str, given: Currency, expected: Currency) -> FieldError {
    let detail = format!("{given} stands here, but everything else is in {expected}");
    FieldError::new(path, "currency_mismatch", detail)
}

fn negative(path: &str) -> FieldError {
    FieldError::new(
        path,
        "must_not_be_negative",
        "this amount cannot be below 0",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn money(amount: i64) -> Value {
        json!({ "amount": amount, "currency": "USD" })
    }

    fn codes(faults: &[FieldError]) -> Vec<(&str, &str)> {
        faults
            .iter()
            .map(|fault| (&fault.pointer[..], fault.code))
            .collect()
    }

    /// An order of goods for 10.00 and, maybe, a gift card for 25.00.
    fn order(card: bool, tip: i64, tax: i64, included: bool, total: i64) -> Order {
        let mut lines = vec![json!({
            "sku": "mug", "name": "Mug", "quantity": "1", "unit_price": "10.00", "total": money(1000),
        })];
        if card {
            lines[0] = json!({
                "sku": "card", "name": "Card", "quantity": "1", "unit_price": "25.00",
                "total": money(2500), "gift_card": true,
            });
        }
        serde_json::from_value(json!({
            "id": "1", "version": 1, "number": "1", "currency": "USD",
            "placed_at": "2026-01-05T10:00:00Z", "customer": null, "lines": lines,
            "taxes": [{ "name": "Tax", "rate": "8", "amount": money(tax) }],
            "prices_include_tax": included, "tip": money(tip), "total": money(total),
        }))
        .unwrap()
    }

    #[test]
    fn a_tip_is_part_of_the_total_and_a_gift_card_bears_no_tax() {
        for (order, expected) in [
            (order(false, 150, 80, false, 1230), vec![]),
            (
                order(false, 150, 80, false, 1080),
                vec![("#/total", "total_mismatch")],
            ),
            (
                order(false, -1, 0, false, 999),
                vec![("#/tip/amount", "must_not_be_negative")],
            ),
            // The tip holds no tax.
            (order(false, 500, 1000, true, 1500), vec![]),
            (
                order(false, 500, 1001, true, 1500),
                vec![("#/taxes", "tax_too_large")],
            ),
            (order(true, 0, 0, false, 2500), vec![]),
            (
                order(true, 0, 80, false, 2580),
                vec![("#/taxes", "tax_on_gift_cards")],
            ),
        ] {
            assert_eq!(codes(&order.faults()), expected, "{order:?}");
        }
    }

    #[test]
    fn a_refund_counts_its_tip() {
        let refund = |tip: i64| -> Refund {
            serde_json::from_value(json!({
                "id": "r", "order_id": "1", "amount": money(600), "tax": money(100),
                "tip": money(tip), "method": GIFT_CARD, "refunded_at": "2026-01-06T10:00:00Z",
            }))
            .unwrap()
        };
        assert_eq!(codes(&refund(500).faults()), []);
        let more = refund(501);
        assert_eq!(codes(&more.faults()), [("#/amount", "total_mismatch")]);
        assert!(more.to_gift_card());
        let included = |tip: i64| Refund {
            prices_include_tax: true,
            ..refund(tip)
        };
        // Its tax is part of the rest, so there must be as much.
        assert_eq!(codes(&included(500).faults()), []);
        assert_eq!(codes(&included(501).faults()), [("#/tax", "tax_too_large")]);
        assert_eq!(
            (refund(100).goods_amount(), included(100).goods_amount()),
            (400, 500)
        );
    }
}
