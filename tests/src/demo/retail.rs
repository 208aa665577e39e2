//! The invoices of a real shop, read from a CSV file, as the events that its backend would send.
//!
//! Columns: InvoiceNo, StockCode, Description, Quantity, InvoiceDate (local time in London),
//! UnitPrice (GBP), CustomerID (empty for a guest), Country. A sale becomes an order and a payment
//! of the whole; an invoice whose number begins with `C` becomes a refund. What cannot be either is
//! left out with a reason. Country is not sent, since a customer of the API has none.

use super::Outcome;
use super::plan::{Expect, MERCHANT, Plan, Planned};
use chrono::{DateTime, NaiveDateTime, SecondsFormat, TimeZone, Utc};
use rust_decimal::prelude::ToPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

const CURRENCY: &str = "GBP";
const MINOR_DIGITS: u32 = 2;
/// The columns that are read.
const COLUMNS: [&str; 7] = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    #[serde(rename = "InvoiceNo")]
    invoice: String,
    #[serde(rename = "StockCode")]
    sku: String,
    description: String,
    quantity: Decimal,
    #[serde(rename = "InvoiceDate")]
    date: NaiveDateTime,
    unit_price: Decimal,
    #[serde(rename = "CustomerID")]
    customer: String,
}

/// The rows of one invoice, in the order of the file.
#[derive(Debug)]
struct Invoice {
    number: String,
    rows: Vec<Row>,
    at: DateTime<Utc>,
}

/// Reads the first `limit` invoices of `path` and plans what to send for each.
///
/// # Errors
/// With what to do, when the file is none of the form above, or nothing is to be sent.
pub fn read(path: &Path, limit: Option<usize>) -> Outcome<Plan> {
    let invoices = invoices(path, limit)?;
    let mut planner = Planner::default();
    for invoice in &invoices {
        planner.take(invoice);
    }
    if planner.events.is_empty() {
        let (path, count) = (path.display(), invoices.len());
        let why = format!(
            "{path}: of {count} invoices that were read none is a sale or a refund, so there is nothing to \
             show; take another file or a higher LIMIT"
        );
        return Err(why.into());
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let title = format!("{} invoices of {name}", invoices.len());
    Ok(Plan {
        title,
        events: planner.events,
        left_out: planner.left_out,
    })
}

fn invoices(path: &Path, limit: Option<usize>) -> Outcome<Vec<Invoice>> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut reader = csv::Reader::from_reader(flate2::read::GzDecoder::new(file));
    // The rows are read on without names when these cannot be, and then there is no row either.
    let header = reader.headers().map_err(|error| {
        let path = path.display();
        format!("{path} cannot be read as CSV; pack the file with gzip: {error}")
    })?;
    let missing: Vec<&str> = COLUMNS
        .into_iter()
        .filter(|column| !header.iter().any(|name| name == *column))
        .collect();
    if !missing.is_empty() {
        let (path, missing, all) = (path.display(), missing.join(", "), COLUMNS.join(", "));
        let why = format!("{path} lacks the columns {missing}; its first line has to name {all}");
        return Err(why.into());
    }
    let mut invoices: Vec<Invoice> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for row in reader.deserialize() {
        let row: Row = row.map_err(|error| format!("{}: {error}", path.display()))?;
        // The rows of an invoice do not always follow each other, so an invoice is complete only
        // at the end of the file; one past the limit is passed over here.
        if let Some(place) = places.get(&row.invoice) {
            invoices[*place].rows.push(row);
            continue;
        }
        if limit.is_some_and(|limit| invoices.len() >= limit) {
            continue;
        }
        let at = chrono_tz::Europe::London
            .from_local_datetime(&row.date)
            // In the hour that a clock shows twice, the first is as good as the second.
            .earliest()
            .ok_or_else(|| format!("invoice {}: no clock showed {}", row.invoice, row.date))?
            .with_timezone(&Utc);
        places.insert(row.invoice.clone(), invoices.len());
        invoices.push(Invoice {
            number: row.invoice.clone(),
            rows: vec![row],
            at,
        });
    }
    Ok(invoices)
}

impl Invoice {
    fn is_credit(&self) -> bool {
        self.number.starts_with('C')
    }

    fn customer(&self) -> Option<Value> {
        let id = &self.rows[0].customer;
        (!id.is_empty()).then(|| json!({ "id": id, "name": format!("Customer {id}") }))
    }

    /// Why this invoice is neither a sale nor a refund, if it is neither.
    fn obstacle(&self) -> Option<&'static str> {
        let any = |test: fn(&Row) -> bool| self.rows.iter().any(test);
        if self.number.starts_with('A') || any(|row| row.unit_price < Decimal::ZERO) {
            return Some("bad_debt");
        }
        if self.is_credit() {
            if any(|row| row.quantity > Decimal::ZERO) {
                return Some("mixed_signs");
            }
            return (self.amount() == 0).then_some("zero_refund");
        }
        let without_price = self.rows.iter().all(|row| row.unit_price.is_zero());
        let stock_correction = any(|row| row.quantity < Decimal::ZERO)
            || (without_price && self.rows[0].customer.is_empty());
        stock_correction.then_some("stock_correction")
    }

    /// The sum of the lines in pence, without their sign.
    fn amount(&self) -> i64 {
        self.rows
            .iter()
            .map(|row| line_amount(row.quantity.abs(), row.unit_price))
            .sum()
    }

    fn lines(&self) -> Vec<Value> {
        let line = |row: &Row| {
            let quantity = row.quantity.abs();
            json!({
                "sku": row.sku,
                // A row without a description still sold something: its code names it.
                "name": if row.description.is_empty() { &row.sku } else { &row.description },
                "quantity": quantity.to_string(),
                "unit_price": row.unit_price.to_string(),
                "total": money(line_amount(quantity, row.unit_price)),
            })
        };
        self.rows.iter().map(line).collect()
    }
}

/// Quantity times price in pence, rounded half to even.
fn line_amount(quantity: Decimal, unit_price: Decimal) -> i64 {
    let pence = quantity * unit_price * Decimal::from(10_i64.pow(MINOR_DIGITS));
    pence
        .round_dp_with_strategy(0, RoundingStrategy::MidpointNearestEven)
        .to_i64()
        .unwrap_or(i64::MAX)
}

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": CURRENCY })
}

/// A product at a price. Codes that differ only in case are one product in this shop.
type Article = (String, Decimal);

/// What of an order has not gone back yet.
struct Unrefunded {
    order_id: String,
    quantities: BTreeMap<Article, Decimal>,
    amount: i64,
}

#[derive(Default)]
struct Planner {
    events: Vec<Planned>,
    left_out: BTreeMap<String, Vec<String>>,
    /// By customer, the orders so far, oldest first.
    orders: BTreeMap<String, Vec<Unrefunded>>,
}

impl Planner {
    fn take(&mut self, invoice: &Invoice) {
        if let Some(reason) = invoice.obstacle() {
            self.left_out
                .entry(reason.to_owned())
                .or_default()
                .push(invoice.number.clone());
        } else if invoice.is_credit() {
            self.refund(invoice);
        } else {
            self.sale(invoice);
        }
    }

    fn sale(&mut self, invoice: &Invoice) {
        let (number, amount) = (&invoice.number, invoice.amount());
        let at = time(invoice.at);
        let order = json!({
            "id": number, "version": 1, "number": number, "currency": CURRENCY, "placed_at": at,
            "customer": invoice.customer(), "lines": invoice.lines(), "total": money(amount),
        });
        self.event(
            "order.created",
            format!("retail-{number}-order"),
            &at,
            order,
        );
        // Nobody pays nothing: an order without a price is sold when it is placed.
        if amount > 0 {
            let payment = json!({
                "id": format!("pay-{number}"), "order_id": number, "outcome": "succeeded",
                "amount": money(amount), "method": "card", "processed_at": at,
            });
            self.event(
                "payment.processed",
                format!("retail-{number}-payment"),
                &at,
                payment,
            );
        }
        let customer = &invoice.rows[0].customer;
        if !customer.is_empty() {
            self.orders
                .entry(customer.clone())
                .or_default()
                .push(Unrefunded {
                    order_id: number.clone(),
                    quantities: quantities(invoice),
                    amount,
                });
        }
    }

    fn refund(&mut self, invoice: &Invoice) {
        let (number, amount) = (&invoice.number, invoice.amount());
        let at = time(invoice.at);
        let mut refund = json!({
            "id": number, "order_id": self.link(invoice), "amount": money(amount),
            "lines": invoice.lines(), "refunded_at": at,
        });
        if refund["order_id"].is_null() {
            refund["customer"] = invoice.customer().into();
        }
        self.event(
            "order.refunded",
            format!("retail-{number}-refund"),
            &at,
            refund,
        );
    }

    /// The latest order of the same customer of which everything on this credit is still there, at
    /// the same prices. The file does not say which sale a credit belongs to; where no order fits,
    /// the sale lies before the file, or goods of several sales went back at once.
    fn link(&mut self, invoice: &Invoice) -> Option<String> {
        let (wanted, amount) = (quantities(invoice), invoice.amount());
        let orders = self.orders.get_mut(&invoice.rows[0].customer)?;
        let order = orders.iter_mut().rev().find(|order| {
            let covers = wanted.iter().all(|(article, quantity)| {
                order
                    .quantities
                    .get(article)
                    .is_some_and(|left| left >= quantity)
            });
            covers && order.amount >= amount
        })?;
        for (article, quantity) in wanted {
            *order.quantities.entry(article).or_default() -= quantity;
        }
        order.amount -= amount;
        Some(order.order_id.clone())
    }

    fn event(&mut self, kind: &str, id: String, at: &str, data: Value) {
        let about = format!("invoice {}", data["order_id"].as_str().unwrap_or(&id));
        let event = json!({
            "id": id, "type": kind, "merchant_id": MERCHANT, "occurred_at": at, "data": data,
        });
        self.events.push(Planned {
            about,
            expect: Expect::Accepted,
            event,
        });
    }
}

fn quantities(invoice: &Invoice) -> BTreeMap<Article, Decimal> {
    let mut quantities = BTreeMap::new();
    for row in &invoice.rows {
        let article = (row.sku.to_uppercase(), row.unit_price.normalize());
        *quantities.entry(article).or_default() += row.quantity.abs();
    }
    quantities
}

fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossdock::model::event::Event;
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::path::PathBuf;

    const HEADER: &str =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    /// Plans rows written as the file has them, from a file of their own.
    fn plan(name: &str, rows: &str, limit: Option<usize>) -> Plan {
        read_packed(name, &format!("{HEADER}{rows}"), limit).unwrap()
    }

    fn read_packed(name: &str, text: &str, limit: Option<usize>) -> Outcome<Plan> {
        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        file.write_all(text.as_bytes()).unwrap();
        read_bytes(name, &file.finish().unwrap(), limit)
    }

    fn read_bytes(name: &str, bytes: &[u8], limit: Option<usize>) -> Outcome<Plan> {
        let path =
            std::env::temp_dir().join(format!("retail-{}-{name}.csv.gz", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let plan = read(&path, limit);
        std::fs::remove_file(&path).unwrap();
        plan
    }

    fn data<'a>(plan: &'a Plan, id: &str) -> &'a Value {
        &plan
            .events
            .iter()
            .find(|planned| planned.id() == id)
            .unwrap()
            .event["data"]
    }

    #[test]
    fn a_credit_is_linked_to_the_latest_order_that_still_covers_it() {
        let plan = plan(
            "link",
            "1,A1a,Lamp,3,2011-01-05T10:00:00,2.50,7,UK\n\
             2,A1A,Lamp,2,2011-07-05T10:00:00,2.5,7,UK\n\
             3,A1A,Lamp,9,2011-07-05T11:00:00,2.5,8,UK\n\
             C4,a1a,Lamp,-2,2011-07-06T10:00:00,2.50,7,UK\n\
             C5,A1A,Lamp,-2,2011-07-06T10:00:00,2.50,7,UK\n\
             C6,A1A,Lamp,-2,2011-07-06T10:00:00,2.50,7,UK\n\
             C7,A1A,Lamp,-1,2011-07-06T10:00:00,2.49,7,UK\n\
             C8,A1A,Lamp,-1,2011-07-06T10:00:00,2.50,,UK\n",
            None,
        );
        let linked =
            |number: &str| data(&plan, &format!("retail-{number}-refund"))["order_id"].clone();
        assert_eq!(linked("C4"), "2");
        assert_eq!(linked("C5"), "1");
        for unlinked in ["C6", "C7", "C8"] {
            assert!(linked(unlinked).is_null(), "{unlinked}");
        }
        assert_eq!(data(&plan, "retail-C6-refund")["customer"]["id"], "7");
        assert!(data(&plan, "retail-C8-refund")["customer"].is_null());
        assert!(data(&plan, "retail-C4-refund").get("customer").is_none());
        // London is an hour ahead of UTC in July, and not in January.
        assert_eq!(
            data(&plan, "retail-1-order")["placed_at"],
            "2011-01-05T10:00:00Z"
        );
        assert_eq!(
            data(&plan, "retail-2-order")["placed_at"],
            "2011-07-05T09:00:00Z"
        );
    }

    #[test]
    fn what_cannot_be_an_order_has_a_reason() {
        let plan = plan(
            "reasons",
            "1,A,Lamp,3,2011-01-05T10:00:00,0,,UK\n\
             2,A,damages,-3,2011-01-05T10:00:00,0,,UK\n\
             A3,B,Adjust bad debt,1,2011-01-05T10:00:00,11062.06,,UK\n\
             4,B,Adjust,1,2011-01-05T10:00:00,-5,,UK\n\
             C5,A,Lamp,-3,2011-01-05T10:00:00,0,7,UK\n\
             C6,A,Lamp,-3,2011-01-05T10:00:00,1,7,UK\n\
             C6,A,Lamp,1,2011-01-05T10:00:00,1,7,UK\n\
             7,PADS,,1,2011-01-05T10:00:00,0.005,7,UK\n\
             8,PADS,,3,2011-01-05T10:00:00,0.005,7,UK\n\
             7,A,Lamp,1,2011-01-05T10:00:00,0,7,UK\n",
            None,
        );
        let reason = |name: &str| plan.left_out.get(name).cloned().unwrap_or_default();
        assert_eq!(reason("stock_correction"), ["1", "2"]);
        assert_eq!(reason("bad_debt"), ["A3", "4"]);
        assert_eq!(reason("zero_refund"), ["C5"]);
        assert_eq!(reason("mixed_signs"), ["C6"]);
        // Half a penny goes to the even penny; an order of nothing has no payment.
        let ids: Vec<&str> = plan.events.iter().map(Planned::id).collect();
        assert_eq!(
            ids,
            ["retail-7-order", "retail-8-order", "retail-8-payment"]
        );
        assert_eq!(data(&plan, "retail-7-order")["total"]["amount"], 0);
        assert_eq!(data(&plan, "retail-7-order")["lines"][1]["name"], "Lamp");
        assert_eq!(data(&plan, "retail-8-payment")["amount"]["amount"], 2);
        assert_eq!(data(&plan, "retail-8-order")["lines"][0]["name"], "PADS");
    }

    #[test]
    fn the_limit_counts_invoices_and_keeps_them_whole() {
        let rows = "1,A,Lamp,1,2011-01-05T10:00:00,1,,UK\n\
                    2,A,Lamp,1,2011-01-05T10:00:00,1,,UK\n\
                    1,B,Mug,1,2011-01-05T10:01:00,1,,UK\n";
        let plan = plan("limit", rows, Some(1));
        let ids: Vec<&str> = plan.events.iter().map(Planned::id).collect();
        assert_eq!(ids, ["retail-1-order", "retail-1-payment"]);
        assert_eq!(
            data(&plan, "retail-1-order")["lines"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
    }

    #[test]
    fn a_file_of_which_nothing_can_be_told_is_refused_with_what_to_do() {
        let row = "1,A,Lamp,1,2011-01-05T10:00:00,1,,UK\n";
        let plain = format!("{HEADER}{row}");
        let renamed = plain
            .replace("StockCode", "SKU")
            .replace("UnitPrice", "Price");
        let nothing = format!("{HEADER}1,A,Lamp,-1,2011-01-05T10:00:00,1,,UK\n");
        for (read, words) in [
            (
                read_bytes("plain", plain.as_bytes(), None),
                "pack the file with gzip",
            ),
            (read_bytes("empty", b"", None), "pack the file with gzip"),
            (
                read_packed("renamed", &renamed, None),
                "lacks the columns StockCode, UnitPrice;",
            ),
            (
                read_packed("headless", row, None),
                "lacks the columns InvoiceNo, ",
            ),
            (read_packed("bare", HEADER, None), "of 0 invoices"),
            (read_packed("limited", &plain, Some(0)), "a higher LIMIT"),
            (read_packed("nothing", &nothing, None), "of 1 invoices"),
        ] {
            let told = read.expect_err(words).to_string();
            assert!(told.contains(words), "{told}");
        }
        // A file that is cut short is no smaller shop.
        let mut file = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        file.write_all(plain.as_bytes()).unwrap();
        let packed = file.finish().unwrap();
        let cut = read_bytes("cut", &packed[..packed.len() - 9], None);
        assert!(cut.is_err());
    }

    fn data_folder() -> PathBuf {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
        std::env::var_os("CROSSDOCK_DATA").map_or(beside, PathBuf::from)
    }

    /// Over the whole file: every invoice ends as an order, a refund or a reason, no event is one
    /// that the common crate would refuse, and not a penny differs from the CSV.
    #[test]
    fn the_whole_file_adds_up() {
        let path = data_folder().join("online-retail/invoices-2010-12-to-2011-05.csv.gz");
        if !path.exists() {
            eprintln!("skipped: {} is not here", path.display());
            return;
        }
        let plan = read(&path, None).unwrap();

        // Counted again from the text of the file, in tenths of a penny and without the loader.
        let file = flate2::read::GzDecoder::new(File::open(&path).unwrap());
        let mut in_file: BTreeMap<String, i64> = BTreeMap::new();
        for row in csv::Reader::from_reader(file).records() {
            let row = row.unwrap();
            let (whole, fraction) = row[5].split_once('.').unwrap_or((&row[5], ""));
            let price: i64 = format!("{whole}{fraction:0<3}").parse().unwrap();
            let tenths = row[3].parse::<i64>().unwrap().abs() * price;
            let (pence, rest) = (tenths / 10, tenths % 10);
            let up = rest > 5 || (rest == 5 && pence % 2 == 1);
            *in_file.entry(row[0].to_owned()).or_default() += pence + i64::from(up);
        }

        let mut ends: BTreeSet<String> = BTreeSet::new();
        let mut linked = 0;
        let mut paid: BTreeMap<String, i64> = BTreeMap::new();
        for planned in &plan.events {
            let event = Event::read(planned.event.clone());
            assert!(event.is_ok(), "{}: {event:?}", planned.id());
            let data = &planned.event["data"];
            let id = data["id"].as_str().unwrap().to_owned();
            let amount = |field: &str| data[field]["amount"].as_i64().unwrap();
            match planned.event["type"].as_str().unwrap() {
                "order.created" => {
                    assert_eq!(amount("total"), in_file[&id], "{id}");
                    assert!(ends.insert(id));
                }
                "payment.processed" => {
                    let order = data["order_id"].as_str().unwrap().to_owned();
                    assert_eq!(amount("amount"), in_file[&order], "{order}");
                    paid.insert(order, amount("amount"));
                }
                "order.refunded" => {
                    assert_eq!(amount("amount"), in_file[&id], "{id}");
                    if let Some(order) = data["order_id"].as_str() {
                        linked += 1;
                        let left = paid.get_mut(order).unwrap();
                        *left -= amount("amount");
                        assert!(*left >= 0, "{id} gives back more than {order} was paid");
                    }
                    assert!(ends.insert(id));
                }
                other => panic!("{other} is not planned"),
            }
        }
        for number in plan.left_out.values().flatten() {
            assert!(ends.insert(number.clone()), "{number} ends twice");
        }
        assert!(
            ends.iter().eq(in_file.keys()),
            "an invoice was dropped in silence"
        );

        // What the file is known to hold. Most credits find their order, or linking is broken.
        let left_out: Vec<(&str, usize)> = plan
            .left_out
            .iter()
            .map(|(reason, numbers)| (reason.as_str(), numbers.len()))
            .collect();
        assert_eq!(
            (in_file.len(), left_out),
            (10_783, vec![("stock_correction", 979)])
        );
        let refunds = ends.iter().filter(|id| id.starts_with('C')).count();
        assert_eq!(refunds, 1_677);
        assert!(
            linked * 2 > refunds,
            "only {linked} of {refunds} refunds found their order"
        );
    }
}
