//! A real shop's invoices in both books: brought there by a backfill, compared to the penny on three
//! sides, changed at random on either side while things go wrong, and reconciled until nothing is open.
//!
//! `make books DATA=…` runs it over a file; without one it says so and does nothing. `LIMIT` takes the
//! first invoices alone and `EDITS` another number of changes.

use crate::books::{compare_all, decide_all, documents, meddle, work};
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::Shop;
use crate::world::Chances;
use chrono::{DateTime, NaiveDate, Utc};
use crossdock::engine::{backfill, count};
use crossdock::model::money::{Currency, Money};
use local::demo::plan::{Plan, batches};
use local::demo::retail;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

#[expect(
    clippy::disallowed_methods,
    reason = "these belong to this test alone, which a person asks for"
)]
fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// By day, currency and kind, how many documents and what they make.
type Sums = BTreeMap<(NaiveDate, String, &'static str), (u64, Decimal)>;

fn add(sums: &mut Sums, day: NaiveDate, currency: &str, kind: &'static str, total: Decimal) {
    let sum = sums.entry((day, currency.to_owned(), kind)).or_default();
    sum.0 += 1;
    sum.1 += total;
}

fn at(text: &Value) -> NaiveDate {
    let at: DateTime<Utc> = text.as_str().unwrap().parse().unwrap();
    at.date_naive()
}

/// What the file says, as the books of this form show it.
fn input(plan: &Plan, books: Books, refused: &BTreeSet<usize>) -> Sums {
    let mut sums = Sums::new();
    let accepted = plan.events.iter().enumerate();
    let accepted = accepted.filter(|(index, _)| !refused.contains(index));
    for (_, planned) in accepted {
        let data = &planned.event["data"];
        let money = |value: &Value| -> (Decimal, String) {
            let currency: Currency = value["currency"].as_str().unwrap().parse().unwrap();
            let money = Money::new(value["amount"].as_i64().unwrap(), currency);
            (money.major(), currency.code().to_owned())
        };
        let kind = planned.event["type"].as_str().unwrap();
        match (kind, books) {
            ("order.created", _) => {
                let (total, currency) = money(&data["total"]);
                add(&mut sums, at(&data["placed_at"]), &currency, "order", total);
            }
            ("payment.processed", Books::Xero | Books::Invoices) => {
                let (total, currency) = money(&data["amount"]);
                add(
                    &mut sums,
                    at(&data["processed_at"]),
                    &currency,
                    "payment",
                    total,
                );
            }
            ("order.refunded", _) => {
                let (total, currency) = money(&data["amount"]);
                let day = at(&data["refunded_at"]);
                add(&mut sums, day, &currency, "refund", total);
                if books == Books::Xero {
                    add(&mut sums, day, &currency, "refund_payment", total);
                }
            }
            _ => {}
        }
    }
    sums
}

/// What the provider's books show, read past everything of ours.
fn provider(run: &Run, books: Books) -> Sums {
    let mut sums = Sums::new();
    let all = |entity: &str| -> Vec<Value> {
        let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
        all.as_array().unwrap().clone()
    };
    let number = |value: &Value| -> Decimal { value.to_string().parse().unwrap() };
    if books != Books::Xero {
        for (entity, kind) in [
            ("SalesReceipt", "order"),
            ("Invoice", "order"),
            ("Payment", "payment"),
            ("RefundReceipt", "refund"),
        ] {
            for one in all(entity) {
                let day = one["TxnDate"].as_str().unwrap().parse().unwrap();
                let currency = one["CurrencyRef"]["value"].as_str().unwrap_or("USD");
                add(&mut sums, day, currency, kind, number(&one["TotalAmt"]));
            }
        }
        return sums;
    }
    let date = |one: &Value| {
        let text = one["Date"].as_str().unwrap();
        let millis: String = text
            .chars()
            .filter(|c| c.is_ascii_digit() || *c == '-')
            .collect();
        // `/Date(1291161600000+0000)/`: the offset is the last four digits.
        let millis: i64 = millis[..millis.len() - 4].parse().unwrap();
        DateTime::from_timestamp_millis(millis)
            .unwrap()
            .date_naive()
    };
    for (entity, kind, total) in [
        ("Invoices", "order", "Total"),
        ("CreditNotes", "refund", "Total"),
        ("Payments", "payment", "Amount"),
    ] {
        for one in all(entity) {
            if matches!(one["Status"].as_str(), Some("DELETED" | "VOIDED")) {
                continue;
            }
            let of_credit = one["PaymentType"] == "ARCREDITPAYMENT";
            let kind = if of_credit { "refund_payment" } else { kind };
            let currency = one["CurrencyCode"]
                .as_str()
                .or(one["Invoice"]["CurrencyCode"].as_str());
            add(
                &mut sums,
                date(&one),
                currency.unwrap(),
                kind,
                number(&one[total]),
            );
        }
    }
    sums
}

fn total(sums: &Sums) -> BTreeMap<(String, &'static str), (u64, Decimal)> {
    let mut all: BTreeMap<_, (u64, Decimal)> = BTreeMap::new();
    for ((_, currency, kind), (count, sum)) in sums {
        let one = all.entry((currency.clone(), *kind)).or_default();
        one.0 += count;
        one.1 += sum;
    }
    all
}

#[test]
fn a_real_shop_in_both_books() {
    let Some(path) = asked("CROSSDOCK_BOOKS").map(PathBuf::from) else {
        println!("no file of invoices was named (CROSSDOCK_BOOKS), so none were compared");
        return;
    };
    let limit = asked("LIMIT").map(|text| text.parse().expect("LIMIT is a number"));
    let edits = asked("EDITS").map_or(2000, |text| text.parse().expect("EDITS is a number"));
    let plan = retail::read(&path, limit).unwrap();
    println!("{}", plan.title);
    for (reason, numbers) in &plan.left_out {
        println!(
            "left out, {reason}: {} ({})",
            numbers.len(),
            numbers.join(" ")
        );
    }
    for books in [Books::Receipts, Books::Xero] {
        one(&plan, books, edits);
    }
}

fn one(plan: &Plan, books: Books, edits: usize) {
    let began = Instant::now();
    let mut shop = Shop::default();
    shop.events = plan.events.iter().map(|one| one.event.clone()).collect();
    let mut run = Run::of(1, books, |_| shop);
    run.relay_and_push();
    run.unsent.clear();
    let mut first = 0;
    for batch in batches(&plan.events) {
        run.whole(Job::Accept((first..first + batch.len()).collect()));
        first += batch.len();
    }
    // What is refused among others is sent alone once more, to hear why.
    let mut refused = BTreeSet::new();
    for index in std::mem::take(&mut run.unsent) {
        if let Err(reason) = run.offer(index) {
            println!("not accepted: {}: {reason}", plan.events[index].about);
            refused.insert(index);
        }
    }
    let expected = input(plan, books, &refused);
    run.publish_all();
    run.receive_all();
    let (from, to) = (
        expected.keys().next().expect("some day").0,
        expected.keys().next_back().expect("some day").0,
    );
    alone(backfill::start(&run.ctx, &run.connection(), from, to)).unwrap();
    work(&mut run, None);
    let done = alone(backfill::last(&run.ctx, &run.connection())).unwrap();
    println!(
        "{books:?}: backfill {:?}, {} of {} there, {} not, in {:.0?}",
        done.state,
        done.done,
        done.total,
        done.failed,
        began.elapsed()
    );
    let mut rows = usize::MAX;
    let summary = alone(count::summary(&run.ctx, &run.connection(), &mut rows)).unwrap();
    println!(
        "{books:?}: ledger {:?}",
        summary.count.map(|count| count.counts)
    );
    let (found, sums, differences) = compare_all(&mut run, from, to);
    let mut ledger = Sums::new();
    for sum in &sums {
        if sum.ours.count > 0 {
            let key = (sum.day, sum.currency.clone(), sum.kind.as_str());
            ledger.insert(key, (sum.ours.count, sum.ours.total));
        }
    }
    for one in &differences {
        println!("refused: {} {}: {}", one.kind.as_str(), one.id, one.detail);
    }
    let mut there = provider(&run, books);
    println!("{books:?}: by currency and kind, input / ledger / provider");
    for (key, sum) in total(&expected) {
        let of = |sums: &Sums| total(sums).get(&key).copied().unwrap_or_default();
        let (ledger, there) = (of(&ledger), of(&there));
        println!(
            "  {} {:<14} {:>6} {:>14} / {:>6} {:>14} / {:>6} {:>14}",
            key.0, key.1, sum.0, sum.1, ledger.0, ledger.1, there.0, there.1
        );
    }
    assert_eq!(done.total, done.done + done.failed);
    assert_eq!(expected, ledger, "{books:?}: input and ledger, by day");
    // What was refused is in the ledger, and not over there.
    for one in &differences {
        let ours = one.ours.as_ref().filter(|_| one.theirs.is_none());
        let side = ours.unwrap_or_else(|| panic!("{one:?} is in the books"));
        let key = (side.day, side.currency.clone(), one.kind.as_str());
        let (count, total) = there.entry(key).or_default();
        *count += 1;
        *total += side.total;
    }
    assert_eq!(ledger, there, "{books:?}: ledger and provider, by day");
    println!(
        "{books:?}: {} days × currency × kind are equal on three sides ({} documents), {} refused",
        ledger.len(),
        found.ours,
        differences.len()
    );
    edit(&mut run, plan, books, edits, from, to);
    println!("{books:?}: all in {:.0?}", began.elapsed());
}

/// Changes at random on either side while calls fail, then rest, then decisions by policy.
fn edit(run: &mut Run, plan: &Plan, books: Books, edits: usize, from: NaiveDate, to: NaiveDate) {
    run.world.state().chances = Chances {
        store: 5,
        net: 60,
        bus: 20,
    };
    let orders: Vec<&Value> = plan
        .events
        .iter()
        .map(|one| &one.event)
        .filter(|event| event["type"] == "order.created")
        .filter(|event| event["data"]["total"]["amount"].as_i64().unwrap_or(0) > 0)
        .collect();
    let mut versions: BTreeMap<usize, u64> = BTreeMap::new();
    let mut ids = documents(run, books);
    let (mut here, mut over_there) = (0, 0);
    for number in 0..edits {
        let index = run.world.state().dice.below(orders.len());
        if run.world.state().dice.per_mille(500) {
            let version = versions.entry(index).or_insert(1);
            *version += 1;
            let mut event = orders[index].clone();
            event["id"] = json!(format!("edit-{number}"));
            event["type"] = json!("order.updated");
            event["data"]["version"] = json!(version);
            // One more of nothing in particular, for as much as the version says; it is discounted again,
            // so that what was paid still pays for it.
            let currency = event["data"]["currency"].clone();
            let extra = i64::try_from(*version).unwrap();
            let money = json!({ "amount": extra, "currency": currency });
            event["data"]["discounts"] = json!([{ "name": "Edit", "amount": money }]);
            let total = event["data"]["total"]["amount"].as_i64().unwrap();
            if total <= extra {
                continue;
            }
            event["data"]["total"]["amount"] = json!(total - extra);
            run.tell(event);
            here += 1;
        } else if meddle(run, books, &mut ids) {
            over_there += 1;
        }
    }
    work(run, None);
    run.calm();
    work(run, None);
    println!("{books:?}: {here} changes here, {over_there} there");
    let mut left = Vec::new();
    for round in 1..=4 {
        let (found, _, differences) = compare_all(run, from, to);
        left = differences;
        let classes: BTreeMap<&str, u64> = found
            .found
            .iter()
            .map(|(class, count)| (class.as_str(), *count))
            .collect();
        println!("{books:?}: reconciliation {round} found {classes:?}");
        if decide_all(run, books, &found, &left) == 0 {
            break;
        }
        work(run, None);
    }
    let open: Vec<_> = left
        .iter()
        .filter(|one| one.decided == crossdock::sync::reconcile::Decided::Open)
        .collect();
    assert!(open.is_empty(), "{books:?}: {open:?} of {}", merchant());
}
