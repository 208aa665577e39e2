//! Both sides: what the books have to show, from what was sent and accepted, and what they do
//! show, read back from the QuickBooks stand-in and from the sample developer's receiver.

use super::Outcome;
use super::client::Server;
use super::plan::Planned;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, BTreeSet};

/// The event types that the developer's endpoint subscribes to.
pub const SUBSCRIBED: [&str; 2] = ["order.created", "payment.processed"];
/// What a document of the books is in when it does not say: the home currency of the company.
const HOME_CURRENCY: &str = "USD";
/// How a payment or a refund is made that moves no money.
const GIFT_CARD: &str = "gift_card";

/// Minor units in a currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amount {
    pub minor: i64,
    pub currency: String,
}

impl Amount {
    fn of(money: &Value) -> Amount {
        let currency = money["currency"].as_str().unwrap_or_default().to_owned();
        Amount {
            minor: money["amount"].as_i64().unwrap_or_default(),
            currency,
        }
    }
}

/// What has to be in the books, by the id of the order or of the refund.
pub type Entries = BTreeMap<String, Amount>;

/// Sums of entries in minor units, by currency.
pub fn sums<'a>(amounts: impl Iterator<Item = &'a Amount>) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for amount in amounts {
        *sums.entry(amount.currency.clone()).or_insert(0) += amount.minor;
    }
    sums
}

/// What was accepted, added up as the commerce backend would add it up.
#[derive(Debug, Default)]
pub struct Accepted {
    totals: BTreeMap<String, Amount>,
    paid: BTreeMap<String, i64>,
    /// The part of it that gift cards paid, which is no money.
    redeemed: BTreeMap<String, i64>,
    refunds: Entries,
    webhooks: BTreeSet<String>,
}

impl Accepted {
    /// Takes an event that the API accepted; `applied` is what it said of a version that was
    /// already behind another.
    pub fn take(&mut self, planned: &Planned, applied: bool) {
        let data = &planned.event["data"];
        let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
        let kind = planned.event["type"].as_str().unwrap_or_default();
        match kind {
            "order.created" | "order.updated" | "order.completed" if applied => {
                self.totals.insert(text("id"), Amount::of(&data["total"]));
            }
            "payment.processed" if applied && data["outcome"] == "succeeded" => {
                let amount = Amount::of(&data["amount"]).minor;
                *self.paid.entry(text("order_id")).or_default() += amount;
                if data["method"] == GIFT_CARD {
                    *self.redeemed.entry(text("order_id")).or_default() += amount;
                }
            }
            "order.refunded" if applied => {
                let mut amount = Amount::of(&data["amount"]);
                if data["method"] == GIFT_CARD {
                    amount.minor = 0;
                }
                self.refunds.insert(text("id"), amount);
            }
            _ => {}
        }
        if SUBSCRIBED.contains(&kind) {
            self.webhooks.insert(planned.id().to_owned());
        }
    }

    pub fn orders(&self) -> usize {
        self.totals.len()
    }

    /// A sale is booked once it is paid in full, which an order of nothing is from the start. Its receipt is
    /// over the money that came.
    pub fn receipts(&self) -> Entries {
        let paid = |id: &str| self.paid.get(id).copied().unwrap_or_default();
        let sold = self
            .totals
            .iter()
            .filter(|(id, total)| paid(id) >= total.minor);
        let money = |(id, total): (&String, &Amount)| {
            let redeemed = self.redeemed.get(id).copied().unwrap_or_default();
            let minor = total.minor - redeemed.min(total.minor);
            let currency = total.currency.clone();
            (id.clone(), Amount { minor, currency })
        };
        sold.map(money).collect()
    }

    pub fn refunds(&self) -> &Entries {
        &self.refunds
    }

    /// The ids of the events that the endpoint has to receive.
    pub fn webhooks(&self) -> &BTreeSet<String> {
        &self.webhooks
    }
}

/// One sales or refund receipt as it stands in the books.
#[derive(Debug)]
struct Document {
    /// The id of the order or refund that it says it is for.
    record: String,
    amount: Amount,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireDocument {
    id: String,
    private_note: Option<String>,
    /// The number as it is written, so that no binary fraction comes between.
    total_amt: Box<RawValue>,
    currency_ref: Option<WireReference>,
}

#[derive(Deserialize)]
struct WireReference {
    value: String,
}

impl WireDocument {
    fn read(self) -> Outcome<Document> {
        let note = self.private_note.unwrap_or_default();
        // "Crossdock order 1001": the last word of the first line is the id.
        let record = note
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().last());
        let currency = self
            .currency_ref
            .map_or(HOME_CURRENCY.to_owned(), |r| r.value);
        let minor = minor_units(self.total_amt.get(), &currency)
            .ok_or_else(|| format!("document {}: {} is no {currency}", self.id, self.total_amt))?;
        // One that names no record is kept under its own id: it belongs to nobody here.
        let record = record.map_or_else(|| format!("document {}", self.id), str::to_owned);
        Ok(Document {
            record,
            amount: Amount { minor, currency },
        })
    }
}

/// `12.99` of a currency with two decimals is 1299; nothing when it is not a whole number of them.
fn minor_units(number: &str, currency: &str) -> Option<i64> {
    let exponent = iso_currency::Currency::from_code(currency)?.exponent()?;
    let major = number
        .parse()
        .or_else(|_| Decimal::from_scientific(number))
        .ok()?;
    let minor = major.checked_mul(Decimal::from(10_i64.pow(u32::from(exponent))))?;
    minor.fract().is_zero().then(|| minor.to_i64()).flatten()
}

/// How the documents of one kind compare with what they have to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Documents for the expected records, doubled ones counted as often as they are there.
    pub found: usize,
    pub sums: BTreeMap<String, i64>,
    pub missing: Vec<String>,
    pub doubled: Vec<String>,
    /// The amount or the currency is another.
    pub different: Vec<String>,
    /// Documents of records that this run did not send: another run's, or nobody's.
    pub others: usize,
}

impl Comparison {
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.doubled.is_empty() && self.different.is_empty()
    }

    fn of(expected: &Entries, documents: &[Document]) -> Comparison {
        let mut comparison = Comparison::default();
        let mut by_record: BTreeMap<&str, Vec<&Amount>> = BTreeMap::new();
        for document in documents {
            by_record
                .entry(&document.record)
                .or_default()
                .push(&document.amount);
        }
        for (record, amounts) in &by_record {
            // A double is a fault whoever sent it, so it is looked for in the whole of the books.
            if amounts.len() > 1 {
                comparison.doubled.push((*record).to_owned());
            }
            match expected.get(*record) {
                None => comparison.others += amounts.len(),
                Some(amount) if amounts.iter().any(|found| *found != amount) => {
                    comparison.different.push((*record).to_owned());
                }
                Some(_) => {}
            }
        }
        let found: Vec<&Amount> = by_record
            .iter()
            .filter(|(record, _)| expected.contains_key(**record))
            .flat_map(|(_, amounts)| amounts.iter().copied())
            .collect();
        let is_missing = |record: &&String| !by_record.contains_key(record.as_str());
        comparison.missing = expected.keys().filter(is_missing).cloned().collect();
        comparison.found = found.len();
        comparison.sums = sums(found.into_iter());
        comparison
    }
}

/// What the developer's receiver says of the deliveries, and which of the expected are not there.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Deliveries {
    pub delivered: u64,
    pub refused: u64,
    pub duplicates: u64,
    /// Expected events that were delivered, with a signature that holds.
    pub verified: usize,
    pub missing: Vec<String>,
}

impl Deliveries {
    pub fn holds(&self) -> bool {
        self.missing.is_empty() && self.refused == 0
    }
}

/// The other side, as it is now.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub receipts: Comparison,
    pub refunds: Comparison,
    pub deliveries: Deliveries,
}

impl Found {
    pub fn holds(&self) -> bool {
        self.receipts.holds() && self.refunds.holds() && self.deliveries.holds()
    }
}

/// Where the other side is read.
pub struct Readers {
    pub quickbooks: Server,
    pub receiver: Server,
    pub realm: String,
}

impl Readers {
    pub async fn read(&self, accepted: &Accepted) -> Outcome<Found> {
        let receipts = self.documents("SalesReceipt").await?;
        let refunds = self.documents("RefundReceipt").await?;
        Ok(Found {
            receipts: Comparison::of(&accepted.receipts(), &receipts),
            refunds: Comparison::of(accepted.refunds(), &refunds),
            deliveries: self.deliveries(accepted.webhooks()).await?,
        })
    }

    async fn documents(&self, entity: &str) -> Outcome<Vec<Document>> {
        let path = format!("/_control/entities/{entity}?realm={}", self.realm);
        let reply = self.quickbooks.get(&path).await?;
        if reply.status != 200 {
            return Err(format!("the books were answered with {}", reply.status).into());
        }
        let documents: Vec<WireDocument> = serde_json::from_str(&reply.body)
            .map_err(|error| format!("the books cannot be read: {error}"))?;
        documents.into_iter().map(WireDocument::read).collect()
    }

    async fn deliveries(&self, expected: &BTreeSet<String>) -> Outcome<Deliveries> {
        let received = self
            .receiver
            .get("/_control/received")
            .await?
            .success("the receiver")?;
        let count = |field: &str| received[field].as_u64().unwrap_or_default();
        // The webhook-id of a delivery is the id of its event, at every attempt.
        let ids = received["ids"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let seen: BTreeSet<&str> = ids.iter().filter_map(Value::as_str).collect();
        let missing: Vec<String> = expected
            .iter()
            .filter(|id| !seen.contains(id.as_str()))
            .cloned()
            .collect();
        Ok(Deliveries {
            delivered: count("deliveries"),
            refused: count("refused"),
            duplicates: count("duplicates"),
            verified: expected.len() - missing.len(),
            missing,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::samples;
    use super::*;

    fn amount(minor: i64, currency: &str) -> Amount {
        Amount {
            minor,
            currency: currency.to_owned(),
        }
    }

    #[test]
    fn numbers_of_the_books_are_exact_or_nothing() {
        for (number, currency, minor) in [
            ("12.99", "USD", Some(1299)),
            ("90071992547409.93", "USD", Some(9_007_199_254_740_993)),
            ("20", "EUR", Some(2000)),
            ("1e3", "JPY", Some(1000)),
            ("1080.0", "JPY", Some(1080)),
            ("12.34", "KWD", Some(12_340)),
            ("12.345", "USD", None),
            ("0.5", "JPY", None),
            ("\"12\"", "USD", None),
            ("12", "XQQ", None),
        ] {
            assert_eq!(minor_units(number, currency), minor, "{number} {currency}");
        }
    }

    #[test]
    fn a_document_is_found_by_its_note_and_read_as_written() {
        let text = r#"[{"Id":"7","PrivateNote":"Crossdock order 1001","TotalAmt":12.30,
            "CurrencyRef":{"value":"EUR","name":"Euro"}},{"Id":"8","TotalAmt":1}]"#;
        let documents: Vec<WireDocument> = serde_json::from_str(text).unwrap();
        let read: Vec<Document> = documents.into_iter().map(|d| d.read().unwrap()).collect();
        assert_eq!(
            (read[0].record.as_str(), &read[0].amount),
            ("1001", &amount(1230, "EUR"))
        );
        assert_eq!(
            (read[1].record.as_str(), &read[1].amount),
            ("document 8", &amount(100, "USD"))
        );
    }

    #[test]
    fn the_comparison_sees_every_kind_of_difference() {
        let expected: Entries = [("1", 100), ("2", 200), ("3", 300), ("4", 400)]
            .map(|(id, minor)| (id.to_owned(), amount(minor, "USD")))
            .into();
        let document = |record: &str, minor, currency| Document {
            record: record.to_owned(),
            amount: amount(minor, currency),
        };
        let books = [
            document("1", 100, "USD"),
            document("2", 200, "EUR"),
            document("3", 300, "USD"),
            document("3", 300, "USD"),
            document("9", 900, "USD"),
            document("9", 900, "USD"),
        ];
        let comparison = Comparison::of(&expected, &books);
        let expected_sums = [("EUR".to_owned(), 200), ("USD".to_owned(), 700)].into();
        assert_eq!(
            comparison,
            Comparison {
                found: 4,
                sums: expected_sums,
                missing: vec!["4".to_owned()],
                doubled: vec!["3".to_owned(), "9".to_owned()],
                different: vec!["2".to_owned()],
                others: 2,
            }
        );
        assert!(!comparison.holds());
        assert!(Comparison::of(&expected, &books[..0]).missing.len() == 4);
    }

    /// What the samples come to when all goes as they say.
    #[test]
    fn the_samples_add_up() {
        use super::super::plan::Expect;
        let plan = samples().unwrap();
        let mut accepted = Accepted::default();
        for planned in &plan.events {
            if planned.expect != Expect::Refused {
                accepted.take(planned, planned.expect == Expect::Accepted);
            }
        }
        let receipts = accepted.receipts();
        // Never paid, or in part only.
        let unpaid: Vec<&String> = accepted
            .totals
            .keys()
            .filter(|id| !receipts.contains_key(*id))
            .collect();
        assert_eq!(unpaid.len(), 3, "{unpaid:?}");
        assert_eq!(receipts.len() + unpaid.len(), accepted.orders());
        assert_eq!(accepted.refunds().len(), 13);
        // 24.90 of which a gift card paid 20.00, and 5.00 of that went back to it.
        assert_eq!(receipts["1065"].minor, 490);
        assert_eq!(accepted.refunds()["ref-1065-1"].minor, 0);
        assert!(receipts.values().any(|total| total.minor == 0));
    }
}
