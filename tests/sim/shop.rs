//! A shop that sells: the events that it sends, and what the books must show once all have arrived.

use crate::run::Books;
use crate::world::Dice;
use crossdock::oauth::connection::Posting;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub const MERCHANT: &str = "demo";

/// An amount in minor units with its currency.
pub type Sum = (&'static str, i64);

/// What must stand at the provider in the end.
#[derive(Debug, Default)]
pub struct Expected {
    /// By order, a `/` and the payment's id.
    pub payments: BTreeMap<String, Sum>,
    /// By order: the total of its latest version.
    pub sales: BTreeMap<String, Sum>,
    pub refunds: BTreeMap<String, Sum>,
    /// Upper-cased SKUs of the latest versions.
    pub skus: BTreeSet<String>,
    /// The marks of customers with their currencies.
    pub customers: BTreeSet<(String, &'static str)>,
    /// What is owed to those who were tipped and to those who hold gift cards, by account and currency.
    pub owed: BTreeMap<(&'static str, &'static str), i64>,
    /// By payout: what its document makes, and in Xero that of its fees.
    pub payouts: BTreeMap<String, Sum>,
    pub payout_fees: BTreeMap<String, Sum>,
    /// What payouts put on accounts; below zero what they took from them.
    pub moved: BTreeMap<(Moved, &'static str), i64>,
}

/// The accounts that payouts touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moved {
    /// Where the money of customers lies until it is paid out.
    Clearing,
    Bank,
    Fees,
}

/// The names of the accounts of what is owed.
pub const TIPS: &str = "Tips";
pub const GIFT_CARDS: &str = "Gift cards";
/// The names of the accounts of payouts in QuickBooks, and in Xero.
pub const PAYOUTS: [(Moved, &str, &str); 3] = [
    (
        Moved::Clearing,
        "Undeposited Funds",
        "Business Bank Account",
    ),
    (Moved::Bank, "Checking", "Current account"),
    (Moved::Fees, "Payment fees", "Bank Fees"),
];

/// How much a shop sells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Small,
    Middle,
    Large,
}

impl Size {
    /// Most orders, and most versions of each.
    const fn most(self) -> (usize, usize) {
        match self {
            Size::Small => (1, 3),
            Size::Middle => (2, 4),
            Size::Large => (4, 7),
        }
    }
}

#[derive(Default)]
pub struct Shop {
    /// Orders are in the books from the start, and not only once they are paid.
    invoices: bool,
    /// What is paid does not change any more.
    fixed: bool,
    pub events: Vec<Value>,
    pub expected: Expected,
    /// What was sold and paid in full, and what went back of that.
    settled: Vec<Settled>,
    returned: Vec<Settled>,
    /// What went back to gift cards of orders that are not paid in full.
    unsettled_cards: Vec<Sum>,
    /// Whether any refund is of what was sold, where what is sold is summed.
    goods_came_back: bool,
}

const DAILY_MARK: &str = "Crossdock daily sales";
const DAILY_SKU: &str = "DAILY-SALES";

/// The id of a summary of that day.
fn summary(day: u32, channel: &str, currency: &str) -> String {
    let currency = currency.to_lowercase();
    format!("daily-2026-01-{day:02}-{channel}-{currency}")
}

/// One order or refund, as far as a daily summary is concerned.
struct Settled {
    channel: &'static str,
    sum: Sum,
    tip: i64,
    gift_cards: i64,
    /// How much gift cards paid, or what went back to them.
    redeemed: i64,
}

/// The channels of orders; one that says none is of the first.
const CHANNELS: [&str; 3] = ["shop", "web", "pos"];

/// Two have one name, and a third differs from them in case alone, which is no difference there.
const CUSTOMERS: [(&str, &str); 4] = [
    ("c-1", "Ada Byron"),
    ("c-2", "Ada Byron"),
    ("c-3", "ada byron"),
    ("c-4", "Zoë O'Neil: Ltd"),
];
const SKUS: [&str; 6] = ["mug", "MUG", "Mug", "lamp-1", "LAMP-1", "Tee"];

pub fn exponent(currency: &str) -> u32 {
    if currency == "JPY" { 0 } else { 2 }
}

fn money((currency, amount): Sum) -> Value {
    json!({ "amount": amount, "currency": currency })
}

fn major(currency: &str, amount: i64) -> String {
    match exponent(currency) {
        0 => amount.to_string(),
        _ => format!("{}.{:02}", amount / 100, amount % 100),
    }
}

fn event(kind: &str, id: String, data: Value) -> Value {
    json!({
        "id": id, "type": kind, "merchant_id": MERCHANT,
        "occurred_at": "2026-01-01T10:00:00Z", "data": data,
    })
}

/// What an order says at some version, apart from the version.
#[derive(Clone)]
struct Content {
    fields: Value,
    total: i64,
    skus: BTreeSet<String>,
    tip: i64,
    gift_cards: i64,
}

fn content(dice: &mut Dice, currency: &'static str) -> Content {
    let mut skus = BTreeSet::new();
    let mut lines = Vec::new();
    let mut total = 0;
    for _ in 0..=dice.below(3) {
        let sku = *dice.pick(&SKUS);
        let (quantity, price) = (1 + dice.below(3) as i64, 500 + dice.below(5000) as i64);
        total += quantity * price;
        skus.insert(sku.to_uppercase());
        lines.push(json!({
            "sku": sku, "name": format!("A {sku}"), "quantity": quantity.to_string(),
            "unit_price": major(currency, price), "total": money((currency, quantity * price)),
        }));
    }
    let (mut tip, mut gift_cards) = (0, 0);
    if dice.per_mille(150) {
        gift_cards = 1000 + dice.below(4000) as i64;
        total += gift_cards;
        lines.push(json!({
            "sku": "CARD", "name": "Gift card", "quantity": "1", "gift_card": true,
            "unit_price": major(currency, gift_cards), "total": money((currency, gift_cards)),
        }));
    }
    let mut fields = json!({ "lines": lines });
    if dice.per_mille(200) {
        tip = 1 + dice.below(700) as i64;
        total += tip;
        fields["tip"] = money((currency, tip));
    }
    if dice.per_mille(300) {
        let amount = 1 + dice.below(400) as i64;
        total -= amount;
        fields["discounts"] = json!([{ "name": "Sale", "amount": money((currency, amount)) }]);
    }
    if dice.per_mille(300) {
        let amount = 1 + dice.below(900) as i64;
        total += amount;
        fields["shipping"] = json!({ "name": "Post", "amount": money((currency, amount)) });
    }
    if dice.per_mille(300) {
        let amount = 1 + dice.below(500) as i64;
        total += amount;
        let tax = json!({ "name": "Tax", "rate": "8.25", "amount": money((currency, amount)) });
        fields["taxes"] = json!([tax]);
    }
    fields["total"] = money((currency, total));
    Content {
        fields,
        total,
        skus,
        tip,
        gift_cards,
    }
}

impl Shop {
    /// A shop that sells what `books` can hold: Xero keeps a paid invoice as it is, so what changes there
    /// is not paid for.
    pub fn sized(dice: &mut Dice, size: Size, books: Books) -> Shop {
        Shop::with_channels(dice, size, books, false)
    }

    /// The same, whose orders come through several `channels` if there are such.
    pub fn with_channels(dice: &mut Dice, size: Size, books: Books, channels: bool) -> Shop {
        let mut shop = Shop {
            invoices: books != Books::Receipts,
            fixed: books == Books::Xero,
            ..Shop::default()
        };
        let (orders, versions) = size.most();
        for n in 0..1 + dice.below(orders) {
            let currency = *dice.pick(&["USD", "USD", "EUR", "JPY"]);
            let customer = dice.per_mille(750).then(|| *dice.pick(&CUSTOMERS));
            // Few contents for many versions, so that a change is often taken back again.
            let mut contents = [content(dice, currency), content(dice, currency)];
            if channels {
                let channel = *dice.pick(&CHANNELS);
                for content in contents.iter_mut().filter(|_| channel != CHANNELS[0]) {
                    content.fields["channel"] = json!(channel);
                }
            }
            let versions = 1 + dice.below(versions);
            let changes = !shop.fixed || dice.per_mille(400);
            let history: Vec<Content> = (0..versions)
                .map(|_| match changes {
                    true => dice.pick(&contents).clone(),
                    false => contents[0].clone(),
                })
                .collect();
            let paid_in_full = dice.per_mille(880);
            let refunds = dice.below(3);
            shop.order(
                dice,
                &format!("{}", 1001 + n),
                currency,
                customer,
                &history,
                paid_in_full,
                refunds,
            );
        }
        if dice.per_mille(300) {
            let amount = ("USD", 1 + dice.below(3000) as i64);
            shop.refund("r-alone".to_owned(), None, amount);
            shop.returned.push(Settled {
                channel: CHANNELS[0],
                sum: amount,
                tip: 0,
                gift_cards: 0,
                redeemed: 0,
            });
            shop.expected.skus.insert("REFUND".to_owned());
            shop.goods_came_back = true;
        }
        let payouts = match size {
            Size::Small => usize::from(dice.per_mille(250)),
            Size::Middle => dice.below(3),
            Size::Large => 1 + dice.below(3),
        };
        for n in 0..payouts {
            shop.payout(dice, &format!("po-{n}"));
        }
        shop
    }

    /// A payout that is told twice, with other fees the second time, and one that took money from the bank.
    pub fn paid_out(dice: &mut Dice, books: Books) -> Shop {
        let mut shop = Shop {
            fixed: books == Books::Xero,
            ..Shop::default()
        };
        while shop.events.len() < 2 {
            shop = Shop {
                fixed: shop.fixed,
                ..Shop::default()
            };
            shop.payout(dice, "po-0");
        }
        shop.payout(dice, "po-1");
        shop
    }

    /// A payout in one version or several. In Xero a transfer cannot change any more, nor can what is
    /// spent be received instead.
    fn payout(&mut self, dice: &mut Dice, id: &str) {
        let currency = match self.fixed {
            true => "USD",
            false => *dice.pick(&["USD", "USD", "EUR", "JPY"]),
        };
        let (charges, refunds) = (dice.below(90_000) as i64, dice.below(20_000) as i64);
        let refunds = if dice.per_mille(500) { refunds } else { 0 };
        let versions = 1 + dice.below(3);
        // Without fees there is nothing of them to post, and with an adjustment they may be given back.
        let free = dice.per_mille(200);
        let adjusted = match dice.per_mille(300) {
            true => dice.below(4_000) as i64 - 2_000,
            false => 0,
        };
        for version in 1..=versions {
            let more = dice.below(500) as i64;
            let last = version == versions;
            let (charges, fees) = match (free, self.fixed) {
                (true, _) => (charges, 0),
                (_, true) => (charges + more, 3_000 + more),
                (_, false) => (charges + dice.below(500) as i64, 300 + more),
            };
            let amount = charges - refunds - fees + adjusted;
            let money = |amount: i64| money((currency, amount));
            let data = json!({
                "id": id, "version": version, "currency": currency,
                "paid_at": "2026-01-03T08:00:00Z", "processor": "stripe",
                "charges": money(charges), "refunds": money(refunds), "fees": money(fees),
                "adjustments": [{ "name": "Dispute", "amount": money(adjusted) }],
                "amount": money(amount),
            });
            self.events
                .push(event("payout.paid", format!("{id}-{version}"), data));
            if last {
                let parts = [amount, fees, -adjusted, refunds, -charges];
                self.expect_payout(id, currency, parts);
            }
        }
    }

    /// What the books show of a payout that puts these `parts` on accounts: what reached the bank, fees,
    /// adjustments, refunds and charges.
    fn expect_payout(&mut self, id: &str, currency: &'static str, parts: [i64; 5]) {
        let [amount, fees, adjusted, refunds, charges] = parts;
        let expected = &mut self.expected;
        let debits: i64 = parts.iter().map(|part| (*part).max(0)).sum();
        let whole = if self.fixed { amount.abs() } else { debits };
        let kept = (fees + adjusted).abs();
        for (rows, total) in [
            (&mut expected.payouts, whole),
            (&mut expected.payout_fees, if self.fixed { kept } else { 0 }),
        ] {
            if total != 0 {
                rows.insert(id.to_owned(), (currency, total));
            }
        }
        for (account, moved) in [
            (Moved::Bank, amount),
            (Moved::Fees, fees + adjusted),
            (Moved::Clearing, refunds + charges),
        ] {
            *expected.moved.entry((account, currency)).or_default() += moved;
        }
    }

    /// Paid orders of a customer each, of one kind of goods each.
    pub fn backlog(orders: usize, skus: usize) -> Shop {
        Shop::backlog_of(orders, skus, 1)
    }

    /// The same with so many orders of each customer.
    pub fn backlog_of(orders: usize, skus: usize, orders_each: usize) -> Shop {
        let mut shop = Shop::default();
        for number in 0..orders {
            let (id, sku) = (format!("{number:05}"), format!("SKU-{}", number % skus));
            let who = format!("{:05}", number / orders_each);
            let total = ("USD", 1000 + number as i64);
            let data = json!({
                "id": id, "version": 1, "number": id, "currency": "USD",
                "placed_at": "2026-01-01T09:00:00Z",
                "customer": { "id": format!("c-{who}"), "name": format!("Customer {who}") },
                "lines": [{
                    "sku": sku, "name": sku, "quantity": "1",
                    "unit_price": major("USD", total.1), "total": money(total),
                }],
                "total": money(total),
            });
            shop.events
                .push(event("order.created", format!("{id}-v1"), data));
            let data = json!({
                "id": "p", "order_id": id, "outcome": "succeeded", "amount": money(total),
                "method": "card", "processed_at": "2026-01-01T09:05:00Z",
            });
            let paid = event("payment.processed", format!("{id}-p"), data);
            shop.events.push(paid);
            let expected = &mut shop.expected;
            expected.payments.insert(format!("{id}/p"), total);
            let mark = format!("Crossdock customer c-{who}");
            expected.customers.insert((mark, "USD"));
            expected.skus.insert(sku);
            expected.sales.insert(id, total);
        }
        shop
    }

    /// One order that is paid, changed, changed back and refunded in part: in this order,
    /// `[v1, payment, v2, v3, refund]`.
    pub fn one_order(dice: &mut Dice) -> Shop {
        let mut shop = Shop::default();
        // In one payment: a second one would have no place in the order below.
        while shop.expected.payments.len() != 1 {
            shop = Shop::default();
            let (first, second) = (content(dice, "EUR"), content(dice, "EUR"));
            let history = [first.clone(), second, first];
            shop.order(dice, "1001", "EUR", Some(CUSTOMERS[0]), &history, true, 1);
        }
        let at = |shop: &Shop, part: &str| {
            shop.events
                .iter()
                .position(|event| event["id"].as_str().unwrap().contains(part))
                .unwrap()
        };
        let order = ["-v1", "-p0", "-v2", "-v3", "-r0"].map(|part| at(&shop, part));
        shop.events = order.map(|index| shop.events[index].clone()).to_vec();
        shop
    }

    /// One order that changes before it is paid, and goes back in part.
    pub fn changed_and_paid(dice: &mut Dice) -> Shop {
        let mut shop = Shop::default();
        let first = content(dice, "EUR");
        let mut second = first.clone();
        second.fields["lines"][0]["name"] = json!("Another name");
        let history = [first, second];
        shop.order(dice, "1001", "EUR", Some(CUSTOMERS[0]), &history, true, 1);
        let when = |event: &Value| {
            let id = event["id"].as_str().unwrap();
            ["-v", "-done", "-p", "-r"]
                .iter()
                .position(|part| id.contains(part))
        };
        shop.events.sort_by_key(when);
        shop
    }

    /// One order that is paid in a currency.
    pub fn in_currency(dice: &mut Dice, currency: &'static str) -> Shop {
        let mut shop = Shop::default();
        let history = [content(dice, currency)];
        shop.order(
            dice,
            "1001",
            currency,
            Some(CUSTOMERS[0]),
            &history,
            true,
            0,
        );
        shop
    }

    /// One order that is paid, and nothing else.
    pub fn one_payment(dice: &mut Dice) -> Shop {
        Shop::in_currency(dice, "EUR")
    }

    /// One order that is paid and then never heard of again, so that nothing makes good later what was
    /// missed.
    pub fn one_sale(dice: &mut Dice) -> Shop {
        let mut shop = Shop::default();
        let history = [content(dice, "EUR")];
        shop.order(dice, "1001", "EUR", Some(CUSTOMERS[0]), &history, true, 1);
        shop
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "each is one fact about one order"
    )]
    fn order(
        &mut self,
        dice: &mut Dice,
        id: &str,
        currency: &'static str,
        customer: Option<(&str, &str)>,
        history: &[Content],
        paid_in_full: bool,
        refunds: usize,
    ) {
        let who = customer.map_or(Value::Null, |(id, name)| json!({ "id": id, "name": name }));
        let mut versions = Vec::new();
        for (index, content) in history.iter().enumerate() {
            let version = index + 1;
            let mut data = content.fields.clone();
            data["id"] = json!(id);
            data["version"] = json!(version);
            data["number"] = json!(id);
            data["currency"] = json!(currency);
            data["placed_at"] = json!("2026-01-01T09:00:00Z");
            data["customer"] = who.clone();
            let kind = if index == 0 {
                "order.created"
            } else {
                "order.updated"
            };
            versions.push(event(kind, format!("{id}-v{version}"), data.clone()));
            if version == history.len() && dice.per_mille(300) {
                versions.push(event("order.completed", format!("{id}-done"), data));
            }
        }
        let largest = history.iter().map(|content| content.total).max().unwrap();
        let smallest = history.iter().map(|content| content.total).min().unwrap();
        // Most of the time the changes come after the payment, when there is something to change.
        let mut versions = versions.into_iter();
        self.events.extend(versions.next());
        // What is paid covers every version or none, so that what is expected does not hang on who
        // was faster.
        let paid = if paid_in_full { largest } else { smallest / 2 };
        let same = largest == smallest && history.iter().all(|one| one.fields == history[0].fields);
        let parts = if self.fixed && !same {
            Vec::new()
        } else if dice.per_mille(300) {
            vec![paid / 3, paid - paid / 3]
        } else {
            vec![paid]
        };
        let refunds = if parts.is_empty() { 0 } else { refunds };
        let mut redeemed = 0;
        for (index, amount) in parts.into_iter().enumerate() {
            let method = *dice.pick(&["card", "card", "card", "gift_card"]);
            let data = json!({
                "id": format!("p-{id}-{index}"), "order_id": id, "outcome": "succeeded",
                "amount": money((currency, amount)), "method": method,
                "processed_at": "2026-01-01T09:05:00Z",
            });
            self.events
                .push(event("payment.processed", format!("{id}-p{index}"), data));
            let payment = format!("{id}/p-{id}-{index}");
            if method == "gift_card" {
                redeemed += amount;
            }
            // QuickBooks shows gift cards on the document that they pay.
            if self.fixed || method != "gift_card" {
                self.expected.payments.insert(payment, (currency, amount));
            }
        }
        self.events.extend(versions);
        let channel = history[0].fields["channel"].as_str();
        let channel = CHANNELS
            .into_iter()
            .find(|known| Some(*known) == channel)
            .unwrap_or(CHANNELS[0]);
        let settled = paid_in_full && (!self.fixed || same);
        // What came in beyond the latest total is owed. A summary says so and a receipt; on an invoice it
        // is the customer's credit.
        let received = history.last().unwrap().total;
        let excess = paid - redeemed - (received - redeemed.min(received));
        let excess = if settled { excess.max(0) } else { 0 };
        let shown_excess = if self.invoices { 0 } else { excess };
        if settled {
            let last = history.last().unwrap();
            self.settled.push(Settled {
                channel,
                sum: (currency, last.total + excess),
                tip: last.tip,
                gift_cards: last.gift_cards + excess,
                redeemed: redeemed.min(last.total),
            });
        }
        let booked = paid_in_full || self.invoices;
        if booked {
            let last = history.last().unwrap();
            let redeemed = redeemed.min(last.total);
            let shown = if self.fixed { 0 } else { redeemed };
            self.expected
                .sales
                .insert(id.to_owned(), (currency, last.total + shown_excess - shown));
            self.owe(TIPS, (currency, last.tip));
            let cards = last.gift_cards + shown_excess - redeemed;
            self.owe(GIFT_CARDS, (currency, cards));
            self.expected.skus.extend(last.skus.iter().cloned());
            let mark = customer.map_or_else(
                || "Crossdock guests".to_owned(),
                |(id, _)| format!("Crossdock customer {id}"),
            );
            self.expected.customers.insert((mark, currency));
        }
        // Gift cards hold still what the order did not take of them.
        let mut left = if settled { (paid - received).max(0) } else { 0 };
        for index in 0..refunds {
            let amount = (currency, 1 + dice.below((paid / 3) as usize) as i64);
            let method = dice.per_mille(200).then_some("gift_card");
            // Paid back is first what came in beyond the total, by refunds that fit in.
            let paid_back = if amount.1 <= left { amount.1 } else { 0 };
            left -= paid_back;
            if booked {
                let shown = if self.invoices { 0 } else { paid_back };
                if shown == 0 {
                    self.expected.skus.insert("REFUND".to_owned());
                }
                self.goods_came_back |= paid_back == 0;
                self.owe(GIFT_CARDS, (currency, -shown));
            }
            if settled {
                self.returned.push(Settled {
                    channel,
                    sum: amount,
                    tip: 0,
                    gift_cards: paid_back,
                    redeemed: method.map_or(0, |_| amount.1),
                });
            }
            self.refund_by(format!("r-{id}-{index}"), Some(id), amount, method);
            // A refund is booked with its order, and this order is not.
            if !booked {
                self.expected.refunds.remove(&format!("r-{id}-{index}"));
            } else if method.is_some() {
                self.owe(GIFT_CARDS, amount);
                if !settled {
                    self.unsettled_cards.push(amount);
                }
            }
        }
    }

    /// Expects what is posted `daily` in summaries: what was sold, on the first day, and what went back, on
    /// the second.
    pub fn sum_up(&mut self, sold: Posting, returned: Posting) {
        if sold == Posting::Daily {
            self.sum_up_sales();
        }
        if returned == Posting::Daily {
            self.sum_up_refunds();
        }
    }

    fn sum_up_sales(&mut self) {
        let expected = &mut self.expected;
        expected.sales.clear();
        expected.payments.clear();
        expected.customers.clear();
        let came_back = self.goods_came_back;
        expected.skus.retain(|sku| sku == "REFUND" && came_back);
        // What went back to gift cards stays owed.
        expected.owed.clear();
        let mut sums: BTreeMap<(&str, &'static str), (i64, i64)> = BTreeMap::new();
        for one in &self.settled {
            let (currency, total) = one.sum;
            let sum = sums.entry((one.channel, currency)).or_default();
            sum.0 += total;
            sum.1 += one.redeemed;
            *expected.owed.entry((TIPS, currency)).or_default() += one.tip;
            let owed = expected.owed.entry((GIFT_CARDS, currency)).or_default();
            *owed += one.gift_cards - one.redeemed;
        }
        for ((channel, currency), (total, redeemed)) in sums {
            let id = summary(1, channel, currency);
            let shown = if self.fixed { 0 } else { redeemed };
            let money = total - redeemed;
            if money != 0 {
                expected
                    .payments
                    .insert(format!("{id}/money"), (currency, money));
            }
            if self.fixed && redeemed != 0 {
                expected
                    .payments
                    .insert(format!("{id}/gift_card"), (currency, redeemed));
            }
            expected.sales.insert(id, (currency, total - shown));
            expected.customers.insert((DAILY_MARK.to_owned(), currency));
            expected.skus.insert(DAILY_SKU.to_owned());
        }
        let back = self.returned.iter();
        for one in back {
            let owed = expected.owed.entry((GIFT_CARDS, one.sum.0)).or_default();
            *owed += one.redeemed - one.gift_cards;
        }
        // Those of orders that are in the books by themselves on other conditions.
        for one in &self.unsettled_cards {
            *expected.owed.entry((GIFT_CARDS, one.0)).or_default() += one.1;
        }
    }

    fn sum_up_refunds(&mut self) {
        let expected = &mut self.expected;
        expected.refunds.clear();
        expected.skus.remove("REFUND");
        for (currency, amount) in std::mem::take(&mut self.unsettled_cards) {
            *expected.owed.entry((GIFT_CARDS, currency)).or_default() -= amount;
        }
        let mut sums: BTreeMap<(&str, &'static str, bool), (i64, i64)> = BTreeMap::new();
        for one in &self.returned {
            let to_cards = one.redeemed != 0;
            let sum = sums.entry((one.channel, one.sum.0, to_cards)).or_default();
            sum.0 += one.sum.1;
            sum.1 += one.gift_cards;
        }
        for ((channel, currency, to_cards), (total, paid_back)) in sums {
            let cards = if to_cards { ".cards" } else { "" };
            let id = format!("{}{cards}", summary(2, channel, currency));
            let shown = if to_cards && !self.fixed { 0 } else { total };
            expected.refunds.insert(id, (currency, shown));
            expected.customers.insert((DAILY_MARK.to_owned(), currency));
            if total != paid_back {
                expected.skus.insert(DAILY_SKU.to_owned());
            }
        }
    }

    fn owe(&mut self, account: &'static str, (currency, amount): Sum) {
        *self.expected.owed.entry((account, currency)).or_default() += amount;
    }

    fn refund(&mut self, id: String, order: Option<&str>, amount: Sum) {
        self.refund_by(id, order, amount, None);
    }

    fn refund_by(
        &mut self,
        id: String,
        order: Option<&str>,
        amount: Sum,
        method: Option<&'static str>,
    ) {
        let index = id.rsplit('-').next().unwrap();
        let of = order.unwrap_or("none");
        let name = format!("{of}-r{index}");
        let data = json!({
            "id": id, "order_id": order, "amount": money(amount), "method": method,
            "refunded_at": "2026-01-02T09:00:00Z",
        });
        self.events.push(event("order.refunded", name, data));
        // QuickBooks shows on the receipt that no money goes out.
        let money = method.is_none() || self.fixed;
        let shown = if money { amount } else { (amount.0, 0) };
        self.expected.refunds.insert(id, shown);
    }
}
