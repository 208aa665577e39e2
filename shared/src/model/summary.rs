//! Daily summaries: what a shop sold and gave back on one day, through one channel and in one currency,
//! as one order and one refund that are pushed like any other. Sums are of minor units, so what stands
//! in a summary is what its orders say, to the last of them.

use super::allocate::allocate;
use super::channel::Channel;
use super::ids::RecordId;
use super::money::{Currency, Money};
use super::order::{
    Discount, GIFT_CARD, Line, Order, Payment, PaymentOutcome, Refund, Shipping, Tax,
};
use super::order_record::OrderRecord;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the lines of a summary sell.
const SKU: &str = "DAILY-SALES";
/// The payments of a summary: what came in as money, and what gift cards paid.
const MONEY: &str = "money";
/// Longest number of a document, in characters, as QuickBooks takes.
const NUMBER_CHARACTERS_MAX: usize = 21;
/// Ends the id of a summary of what went back to gift cards. No channel and no currency holds it.
const CARDS: &str = ".cards";

/// Which day, channel and currency a summary is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryName {
    /// In UTC.
    pub day: NaiveDate,
    pub channel: Channel,
    pub currency: Currency,
    /// Whether it is of refunds that went back to gift cards, so that no money moved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cards: bool,
}

impl SummaryName {
    /// The id of its record, such as `daily-2026-11-30-web-usd`: it sorts by day.
    pub fn id(&self) -> String {
        let (day, channel) = (self.day.format("%Y-%m-%d"), &self.channel);
        let currency = self.currency.code().to_lowercase();
        let cards = if self.cards { CARDS } else { "" };
        format!("daily-{day}-{channel}-{currency}{cards}")
    }

    /// The summary of this id; `None` for the id of anything else.
    pub fn parse(id: &str) -> Option<SummaryName> {
        let (rest, cards) = match id.strip_suffix(CARDS) {
            Some(rest) => (rest, true),
            None => (id, false),
        };
        let rest = rest.strip_prefix("daily-")?;
        let (day, rest) = rest.split_at_checked(10)?;
        let (channel, currency) = rest.strip_prefix('-')?.rsplit_once('-')?;
        let name = SummaryName {
            day: NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?,
            channel: channel.parse().ok()?,
            currency: currency.to_uppercase().parse().ok()?,
            cards,
        };
        (name.id() == id).then_some(name)
    }

    /// The first moment of its day, which is when its documents are dated.
    pub fn at(&self) -> DateTime<Utc> {
        self.day.and_time(NaiveTime::MIN).and_utc()
    }

    /// The first moment after its day.
    pub fn ends(&self) -> DateTime<Utc> {
        ends(self.day)
    }

    fn record_id(&self) -> RecordId {
        let id = self.id().parse();
        id.expect("a channel and a currency hold nothing that an id may not")
    }

    /// What people call its document, such as `web-USD-20261130`. The end of a number, which is what
    /// QuickBooks gets of a long one, tells the day.
    fn number(&self) -> String {
        let end = format!("-{}-{}", self.currency, self.day.format("%Y%m%d"));
        let room = NUMBER_CHARACTERS_MAX - end.len();
        let channel = self.channel.as_str();
        match channel.len() <= room {
            true => format!("{channel}{end}"),
            // Its two ends: `market-us` and `market-uk` are two.
            false => format!(
                "{}{}{end}",
                &channel[..room / 2],
                &channel[channel.len() - (room - room / 2)..]
            ),
        }
    }
}

/// The first moment after `day`.
pub fn ends(day: NaiveDate) -> DateTime<Utc> {
    let next = day.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX);
    next.and_time(NaiveTime::MIN).and_utc()
}

/// One tax with what it makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Rate {
    name: String,
    percent: Decimal,
    amount: i64,
}

/// What orders that are taxed alike come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    rates: Vec<Rate>,
    /// Whether the tax is part of the amounts below.
    included: bool,
    tax: i64,
    /// How many orders or refunds these are.
    count: u64,
    taxable: i64,
    untaxed: i64,
    discounts: i64,
    shipping: i64,
}

/// What a day came to: either of orders or of refunds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    #[serde(flatten)]
    pub name: SummaryName,
    /// How many orders or refunds stand behind it.
    pub count: u64,
    groups: Vec<Group>,
    gift_cards: i64,
    tips: i64,
    /// How much of it gift cards paid.
    redeemed: i64,
}

/// What makes orders be taxed alike: the names and rates of their taxes, and whether prices hold them.
type Profile = (Vec<(String, Decimal)>, bool);

/// A summary while it is added up.
#[derive(Debug)]
pub struct Sums {
    summary: Summary,
    groups: BTreeMap<Profile, Group>,
}

/// The taxes of an order that make anything.
fn rates(order: &Order) -> Vec<Rate> {
    let taxes = order.taxes.iter().filter(|tax| tax.amount.amount != 0);
    let mut rates: Vec<Rate> = taxes
        .map(|tax| Rate {
            name: tax.name.clone(),
            percent: tax.rate.normalize(),
            amount: tax.amount.amount,
        })
        .collect();
    rates.sort();
    rates
}

impl Sums {
    /// Of nothing yet.
    pub fn new(name: SummaryName) -> Sums {
        Sums {
            summary: Summary {
                name,
                count: 0,
                groups: Vec::new(),
                gift_cards: 0,
                tips: 0,
                redeemed: 0,
            },
            groups: BTreeMap::new(),
        }
    }

    fn group(&mut self, rates: Vec<Rate>, included: bool) -> &mut Group {
        let names = rates.iter().map(|rate| (rate.name.clone(), rate.percent));
        let group = self.groups.entry((names.collect(), included));
        let group = group.or_insert_with(|| Group {
            rates: rates
                .iter()
                .map(|rate| Rate {
                    amount: 0,
                    ..rate.clone()
                })
                .collect(),
            included,
            ..Group::default()
        });
        for (sum, rate) in group.rates.iter_mut().zip(&rates) {
            sum.amount += rate.amount;
        }
        group.count += 1;
        group
    }

    /// Adds an order that is paid in full, and how a receipt shows it where that is otherwise.
    pub fn add_order(&mut self, record: &OrderRecord, received: Option<&Order>) {
        let Some(order) = &record.order else { return };
        let redeemed = record.redeemed(order);
        let order = received.unwrap_or(order);
        let rates = rates(order);
        // Where there is no tax, prices hold none.
        let included = order.prices_include_tax && !rates.is_empty();
        let group = self.group(rates, included);
        group.tax += order.tax_amount();
        group.discounts += order.discount_amount();
        group.shipping += order.shipping_amount();
        group.add_goods(&order.lines);
        self.summary.gift_cards += gift_cards(&order.lines);
        self.summary.tips += order.tip_amount();
        self.summary.redeemed += redeemed;
        self.summary.count += 1;
    }

    /// Adds a refund, with the order that it belongs to, if any.
    pub fn add_refund(&mut self, refund: &Refund, order: Option<&Order>) {
        let amount = |money: Option<Money>| money.map_or(0, |money| money.amount);
        let (shipping, tax) = (amount(refund.shipping), refund.tax_amount());
        let mut taxes = match tax {
            0 => Vec::new(),
            _ => order.map(rates).unwrap_or_default(),
        };
        let weight = |rate: &Rate| (rate.percent * Decimal::from(100_000)).to_i64();
        let weights: Vec<i64> = taxes.iter().map(|rate| weight(rate).unwrap_or(0)).collect();
        for (rate, share) in taxes.iter_mut().zip(allocate(tax, &weights)) {
            rate.amount = share;
        }
        let group = self.group(taxes, refund.prices_include_tax && tax != 0);
        group.tax += tax;
        group.shipping += shipping;
        group.add_goods(&refund.lines);
        if refund.lines.is_empty() {
            let goods = refund.goods_amount();
            let sum = match tax {
                0 => &mut group.untaxed,
                _ => &mut group.taxable,
            };
            *sum += goods;
        }
        self.summary.gift_cards += gift_cards(&refund.lines);
        self.summary.tips += amount(refund.tip);
        self.summary.count += 1;
    }

    /// The sum of what was added.
    pub fn summary(self) -> Summary {
        Summary {
            groups: self.groups.into_values().collect(),
            ..self.summary
        }
    }
}

fn gift_cards(lines: &[Line]) -> i64 {
    let cards = lines.iter().filter(|line| line.gift_card);
    cards.map(|line| line.total.amount).sum()
}

impl Group {
    fn add_goods(&mut self, lines: &[Line]) {
        for line in lines.iter().filter(|line| !line.gift_card) {
            let sum = match line.bears_tax() {
                true => &mut self.taxable,
                false => &mut self.untaxed,
            };
            *sum += line.total.amount;
        }
    }

    fn total(&self) -> i64 {
        let on_top = if self.included { 0 } else { self.tax };
        self.taxable + self.untaxed + self.shipping - self.discounts + on_top
    }

    /// In words for people.
    fn taxes(&self) -> String {
        let words = self.rates.iter();
        let words: Vec<String> = words
            .map(|rate| {
                format!("{} {} %", rate.name, rate.percent)
                    .trim()
                    .to_owned()
            })
            .collect();
        words.join(", ")
    }

    fn lines(&self, what: &str, currency: Currency) -> Vec<Line> {
        let taxes = match self.taxes() {
            taxes if taxes.is_empty() => String::new(),
            taxes => format!(" ({taxes})"),
        };
        let taxed = line(&format!("{what}{taxes}"), self.taxable, true, currency);
        let untaxed = line(
            &format!("{what} without tax"),
            self.untaxed,
            false,
            currency,
        );
        [taxed, untaxed].into_iter().flatten().collect()
    }

    fn shown_taxes(&self, currency: Currency) -> Vec<Tax> {
        let tax = |rate: &Rate| Tax {
            name: rate.name.clone(),
            rate: rate.percent,
            amount: Money::new(rate.amount, currency),
        };
        self.rates.iter().map(tax).collect()
    }
}

/// A line over `amount`, unless that is nothing.
fn line(name: &str, amount: i64, taxable: bool, currency: Currency) -> Option<Line> {
    let total = Money::new(amount, currency);
    (amount != 0).then(|| Line {
        sku: SKU.to_owned(),
        name: name.to_owned(),
        quantity: Decimal::ONE,
        unit_price: total.major(),
        total,
        taxable,
        gift_card: false,
    })
}

impl Summary {
    /// What it comes to with tips and taxes, in minor units.
    pub fn total(&self) -> i64 {
        let groups: i64 = self.groups.iter().map(Group::total).sum();
        groups + self.gift_cards + self.tips
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn money(&self, amount: i64) -> Money {
        Money::new(amount, self.name.currency)
    }

    /// Its groups, of which the first is the one without taxes, be there any in it or not.
    fn all_groups(&self) -> impl Iterator<Item = Group> {
        let plain = |group: &&Group| group.rates.is_empty() && group.tax == 0;
        let mut first = Group::default();
        for group in self.groups.iter().filter(plain) {
            first = group.clone();
        }
        let rest = self.groups.iter().filter(move |group| !plain(group));
        std::iter::once(first).chain(rest.cloned())
    }

    /// What has to stand on its first lines beside goods: gift cards, and something in any case, since no
    /// document is without lines.
    fn first_lines(&self, mut lines: Vec<Line>, others: bool) -> Vec<Line> {
        let currency = self.name.currency;
        let cards = line("Gift cards", self.gift_cards, false, currency);
        lines.extend(cards.map(|line| Line {
            gift_card: true,
            ..line
        }));
        if lines.is_empty() && !others {
            let nothing = line("Nothing", 1, false, currency);
            lines.extend(nothing.map(|line| Line {
                unit_price: Decimal::ZERO,
                total: self.money(0),
                ..line
            }));
        }
        lines
    }

    /// The order that it is in the books, with its payments.
    pub fn order_record(&self, version: u64) -> OrderRecord {
        let (name, currency) = (&self.name, self.name.currency);
        let order = |group: &Group| Order {
            id: name.record_id(),
            version,
            number: name.number(),
            currency,
            placed_at: name.at(),
            channel: Some(name.channel.clone()),
            customer: None,
            lines: group.lines("Sales", currency),
            discounts: (group.discounts != 0)
                .then(|| Discount {
                    name: "Discounts".to_owned(),
                    amount: self.money(group.discounts),
                })
                .into_iter()
                .collect(),
            shipping: (group.shipping != 0).then(|| Shipping {
                name: "Shipping".to_owned(),
                amount: self.money(group.shipping),
            }),
            taxes: group.shown_taxes(currency),
            prices_include_tax: group.included,
            tip: None,
            total: self.money(group.total()),
            summed: Some(group.count),
            sections: Vec::new(),
        };
        let mut parts: Vec<Order> = self.all_groups().map(|group| order(&group)).collect();
        let mut whole = parts.remove(0);
        let others = !parts.is_empty() || whole.shipping.is_some();
        whole.lines = self.first_lines(whole.lines, others || self.tips != 0);
        whole.tip = (self.tips != 0).then(|| self.money(self.tips));
        whole.total = self.money(self.total());
        whole.summed = Some(self.count);
        whole.sections = parts;
        let payment = |id: &str, amount: i64| Payment {
            id: id.parse().expect("this is an id"),
            order_id: name.record_id(),
            outcome: PaymentOutcome::Succeeded,
            amount: self.money(amount),
            method: id.to_owned(),
            processed_at: name.at(),
        };
        let payments = [
            payment(GIFT_CARD, self.redeemed),
            payment(MONEY, self.total() - self.redeemed),
        ];
        let paid = payments.into_iter().filter(|one| one.amount.amount != 0);
        OrderRecord {
            order: Some(whole),
            payments: paid.map(|one| (one.id.clone(), one)).collect(),
            ..OrderRecord::default()
        }
    }

    /// The refund that it is in the books.
    pub fn refund(&self) -> Refund {
        let (name, currency) = (&self.name, self.name.currency);
        let some = |amount: i64| (amount != 0).then(|| self.money(amount));
        let refund = |group: &Group| Refund {
            id: name.record_id(),
            order_id: None,
            customer: None,
            amount: self.money(group.total()),
            lines: group.lines("Refunds", currency),
            shipping: some(group.shipping),
            tax: some(group.tax),
            prices_include_tax: group.included,
            tip: None,
            method: name.cards.then(|| GIFT_CARD.to_owned()),
            reason: None,
            refunded_at: name.at(),
            taxes: group.shown_taxes(currency),
            summed: Some(group.count),
            sections: Vec::new(),
        };
        let mut parts: Vec<Refund> = self.all_groups().map(|group| refund(&group)).collect();
        let mut whole = parts.remove(0);
        let others = !parts.is_empty() || whole.shipping.is_some();
        whole.lines = self.first_lines(whole.lines, others || self.tips != 0);
        whole.tip = some(self.tips);
        whole.amount = self.money(self.total());
        whole.summed = Some(self.count);
        whole.sections = parts;
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn name(currency: &str) -> SummaryName {
        SummaryName {
            day: NaiveDate::from_ymd_opt(2026, 11, 30).unwrap(),
            channel: "web".parse().unwrap(),
            currency: currency.parse().unwrap(),
            cards: false,
        }
    }

    #[test]
    fn ids_are_read_as_they_are_written_and_others_are_not() {
        for (channel, cards) in [("web", false), ("pos-2", true), ("a", false), ("-", true)] {
            let name = SummaryName {
                channel: channel.parse().unwrap(),
                cards,
                ..name("USD")
            };
            assert_eq!(SummaryName::parse(&name.id()), Some(name));
        }
        assert_eq!(name("USD").id(), "daily-2026-11-30-web-usd");
        for other in [
            "1001",
            "daily-2026-11-30-web-xqq",
            "daily-2026-11-30-usd",
            "daily-2026-1-30-web-usd",
            "daily-2026-02-30-web-usd",
            "daily-2026-11-30-Web-usd",
            "daily-2026-11-30-web-USD",
            "daily-2026-11-30-web-usd.card",
            "daily-20é6-11-30-web-usd",
        ] {
            assert_eq!(SummaryName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn numbers_fit_and_tell_channels_and_days_apart() {
        let number = |channel: &str| {
            let channel = channel.parse().unwrap();
            let name = name("USD");
            SummaryName { channel, ..name }.number()
        };
        assert_eq!(number("web"), "web-USD-20261130");
        assert_eq!(number("marketplace-us"), "marke-us-USD-20261130");
        assert_ne!(number("marketplace-us"), number("marketplace-uk"));
        assert!(number(&"x".repeat(20)).len() <= NUMBER_CHARACTERS_MAX);
    }

    const CURRENCIES: [&str; 3] = ["JPY", "USD", "KWD"];

    /// What an order is made of, in minor units; the taxes are of one of a few sets.
    type Made = (
        Vec<(i64, bool, bool)>,
        i64,
        i64,
        i64,
        usize,
        bool,
        Vec<i64>,
        i64,
    );

    fn made() -> impl Strategy<Value = Made> {
        let line = (0_i64..1_000_000, any::<bool>(), prop::bool::weighted(0.2));
        (
            prop::collection::vec(line, 1..5),
            0_i64..5000,
            0_i64..3000,
            0_i64..500,
            0_usize..4,
            any::<bool>(),
            prop::collection::vec(0_i64..4000, 3),
            0_i64..3_000_000,
        )
    }

    const TAXES: [&[(&str, &str)]; 4] = [
        &[],
        &[("VAT", "20")],
        &[("GST", "5"), ("PST", "7.0")],
        &[("VAT", "5")],
    ];

    /// A record of an order that is paid in full, as a shop could send it.
    fn record(made: &Made, currency: &str) -> OrderRecord {
        let (lines, shipping, discount, tip, set, included, taxes, redeemed) = made;
        let money = |amount: i64| json!({ "amount": amount, "currency": currency });
        let major = |amount: i64| {
            Money::new(amount, currency.parse().unwrap())
                .major()
                .to_string()
        };
        let shown: Vec<Value> = lines
            .iter()
            .map(|(amount, taxable, card)| {
                json!({
                    "sku": "a", "name": "A", "quantity": "1", "unit_price": major(*amount),
                    "total": money(*amount), "taxable": taxable, "gift_card": card,
                })
            })
            .collect();
        let goods: i64 = lines.iter().map(|(amount, ..)| amount).sum();
        let discount = (*discount).min(goods);
        // At most what the prices can hold.
        let room = (goods - discount + shipping) / 4;
        let only_cards = lines.iter().all(|(_, _, card)| *card) && *shipping == 0;
        let taxes: Vec<(&str, &str, i64)> = TAXES[*set]
            .iter()
            .zip(taxes)
            .filter(|_| !only_cards)
            .map(|((name, rate), amount)| (*name, *rate, (*amount).min(room)))
            .collect();
        let tax: i64 = taxes.iter().map(|(_, _, amount)| amount).sum();
        let on_top = if *included { 0 } else { tax };
        let total = goods - discount + shipping + on_top + tip;
        let taxes: Vec<Value> = taxes
            .iter()
            .map(|(name, rate, amount)| {
                json!({ "name": name, "rate": rate, "amount": money(*amount) })
            })
            .collect();
        let order: Order = serde_json::from_value(json!({
            "id": "1", "version": 1, "number": "1", "currency": currency, "channel": "web",
            "placed_at": "2026-11-30T10:00:00Z", "customer": null, "lines": shown,
            "discounts": [{ "name": "Sale", "amount": money(discount) }],
            "shipping": { "name": "Post", "amount": money(*shipping) },
            "taxes": taxes, "prices_include_tax": included, "tip": money(*tip), "total": money(total),
        }))
        .unwrap();
        assert_eq!(order.faults(), []);
        let mut record = OrderRecord::default();
        for (id, method, amount) in [("g", GIFT_CARD, *redeemed), ("m", "card", total)] {
            let payment = serde_json::from_value(json!({
                "id": id, "order_id": "1", "outcome": "succeeded", "amount": money(amount),
                "method": method, "processed_at": "2026-11-30T10:00:00Z",
            }));
            record.apply_payment(payment.unwrap()).unwrap();
        }
        record.apply_order(order).unwrap();
        assert!(record.is_paid());
        record
    }

    /// What all parts of an order come to.
    fn parts(order: &Order) -> i64 {
        let part = |part: &Order| {
            let on_top = match part.prices_include_tax {
                true => 0,
                false => part.tax_amount(),
            };
            part.lines_amount() - part.discount_amount() + part.shipping_amount() + on_top
        };
        order.tip_amount() + order.parts().map(part).sum::<i64>()
    }

    /// What each tax makes, by name and rate.
    fn by_tax<'a>(orders: impl Iterator<Item = &'a Order>) -> BTreeMap<(String, Decimal), i64> {
        let mut sums = BTreeMap::new();
        for tax in orders.flat_map(|order| &order.taxes) {
            let sum: &mut i64 = sums
                .entry((tax.name.clone(), tax.rate.normalize()))
                .or_default();
            *sum += tax.amount.amount;
        }
        sums.retain(|_, sum| *sum != 0);
        sums
    }

    fn refund(made: &Made, currency: &str, detailed: bool) -> Refund {
        let record = record(made, currency);
        let order = record.order.unwrap();
        let tax = order
            .tax_amount()
            .min(order.total.amount - order.tip_amount());
        let mut refund = json!({
            "id": "r", "order_id": "1", "amount": order.total, "tax": Money::new(tax, order.currency),
            "tip": order.tip, "refunded_at": "2026-11-30T10:00:00Z",
        });
        if detailed {
            let (shipping, included) = (order.shipping_amount(), order.prices_include_tax);
            let on_top = if included { 0 } else { tax };
            let amount = order.lines_amount() + shipping + on_top + order.tip_amount();
            refund["prices_include_tax"] = json!(included);
            refund["amount"] = json!(Money::new(amount, order.currency));
            refund["lines"] = json!(order.lines);
            refund["shipping"] = json!(Money::new(shipping, order.currency));
        }
        serde_json::from_value(refund).unwrap()
    }

    proptest! {
        #[test]
        fn a_summary_is_what_its_orders_are_to_the_last_unit(
            all in prop::collection::vec(made(), 0..12), which in 0_usize..3,
        ) {
            let currency = CURRENCIES[which];
            let records: Vec<OrderRecord> = all.iter().map(|made| record(made, currency)).collect();
            let mut sums = Sums::new(name(currency));
            let mut backwards = Sums::new(name(currency));
            records.iter().for_each(|record| sums.add_order(record, None));
            records.iter().rev().for_each(|record| backwards.add_order(record, None));
            let summary = sums.summary();
            prop_assert_eq!(&summary, &backwards.summary(), "the order of orders does not matter");
            let stored = serde_json::to_string(&summary).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Summary>(&stored).unwrap(), &summary);
            let orders: Vec<&Order> = records.iter().flat_map(|record| &record.order).collect();
            let total: i64 = orders.iter().map(|order| order.total.amount).sum();
            let redeemed: i64 = records
                .iter()
                .map(|record| record.redeemed(record.order.as_ref().unwrap()))
                .sum();
            let made = summary.order_record(7);
            let order = made.order.as_ref().unwrap();
            prop_assert_eq!((summary.total(), order.total.amount, parts(order)), (total, total, total));
            prop_assert_eq!(order.summed, Some(records.len() as u64));
            prop_assert_eq!(by_tax(order.parts()), by_tax(orders.iter().copied()));
            prop_assert_eq!((made.paid(), made.redeemed(order)), (total, redeemed));
            prop_assert!(made.is_paid());
            prop_assert!(order.parts().any(|part| !part.lines.is_empty() || part.shipping.is_some())
                || order.tip.is_some());
            let cards = |order: &Order| gift_cards(&order.lines);
            prop_assert_eq!(
                order.parts().map(cards).sum::<i64>(),
                orders.iter().map(|order| cards(order)).sum::<i64>()
            );
            prop_assert_eq!(order.tip_amount(), orders.iter().map(|order| order.tip_amount()).sum::<i64>());
            prop_assert_eq!(
                order.parts().map(Order::shipping_amount).sum::<i64>(),
                orders.iter().map(|order| order.shipping_amount()).sum::<i64>()
            );
            for line in order.parts().flat_map(|part| &part.lines) {
                let product = Money::round(line.quantity * line.unit_price, line.total.currency);
                prop_assert_eq!(product, Some(line.total));
            }
        }

        #[test]
        fn so_are_refunds(
            all in prop::collection::vec((made(), any::<bool>(), any::<bool>()), 0..12),
            which in 0_usize..3,
        ) {
            let currency = CURRENCIES[which];
            let mut sums = Sums::new(name(currency));
            let mut total = 0;
            let mut taxes = 0;
            for (made, detailed, known) in &all {
                let refund = refund(made, currency, *detailed);
                prop_assert_eq!(refund.faults().len(), 0);
                let order = record(made, currency).order;
                sums.add_refund(&refund, order.as_ref().filter(|_| *known));
                total += refund.amount.amount;
                taxes += refund.tax.map_or(0, |tax| tax.amount);
            }
            let summary = sums.summary();
            let refund = summary.refund();
            let part = |part: &Refund| {
                let amount = |money: Option<Money>| money.map_or(0, |money| money.amount);
                let lines: i64 = part.lines.iter().map(|line| line.total.amount).sum();
                let on_top = if part.prices_include_tax { None } else { part.tax };
                lines + amount(part.shipping) + amount(on_top) + amount(part.tip)
            };
            let parts: i64 = refund.parts().map(part).sum();
            prop_assert_eq!((summary.total(), refund.amount.amount, parts), (total, total, total));
            let tax = |part: &Refund| part.tax.map_or(0, |tax| tax.amount);
            prop_assert_eq!(refund.parts().map(tax).sum::<i64>(), taxes);
            for part in refund.parts().filter(|part| !part.taxes.is_empty()) {
                let told: i64 = part.taxes.iter().map(|tax| tax.amount.amount).sum();
                prop_assert_eq!(told, tax(part), "what each rate makes is all of it");
            }
        }
    }
}
