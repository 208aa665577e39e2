//! One entry a day: what is posted when, what of it is shown, and what is refused.

use crate::books::{compare_all, decide, delete, work};
use crate::run::{Books, Job, Run, alone};
use crate::shop::{MERCHANT, Shop};
use crate::world::{PLATFORM_KEY, start};
use chrono::{NaiveDate, TimeDelta};
use crossdock::api::{self, integrations, records};
use crossdock::engine::backfill;
use crossdock::engine::reconcile::Decision;
use crossdock::error::Error;
use crossdock::sync::reconcile::{Class, Decided};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use std::time::Duration;

const SEED: u64 = 42;
const WEB: &str = "daily-2026-01-01-web-usd";

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
}

fn call(
    run: &Run,
    method: &str,
    what: &str,
    query: &[(&str, &str)],
    body: Option<Value>,
) -> Result<Value, Error> {
    let id = run.connection().id;
    let query = query.iter().chain(&[("merchant_id", MERCHANT)]);
    let request = api::Request {
        method: method.to_owned(),
        path: format!("/api/v1/integrations/accounting/{id}/{what}"),
        bearer: Some(PLATFORM_KEY.into()),
        query: query
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        body: body.map_or_else(Vec::new, |body| body.to_string().into_bytes()),
        ..api::Request::default()
    };
    let answer = match what {
        "settings" => alone(integrations::handle(&run.ctx, &request))?,
        _ => alone(records::handle(&run.ctx, &request))?,
    };
    Ok(serde_json::from_str(&answer.body).unwrap())
}

fn set(run: &Run, settings: Value) -> Result<Value, Error> {
    let body = json!({ "merchant_id": MERCHANT, "settings": settings });
    call(run, "PUT", "settings", &[], Some(body))
}

fn get(run: &Run, what: &str) -> Value {
    call(run, "GET", what, &[], None).unwrap()
}

fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    all.as_array().unwrap().clone()
}

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

fn event(id: String, kind: &str, data: Value) -> Value {
    json!({
        "id": id, "type": kind, "merchant_id": MERCHANT,
        "occurred_at": "2026-01-01T09:00:00Z", "data": data,
    })
}

/// An order of so many cents at one version, of that day, with its tax.
fn order(id: &str, version: u64, day: u32, cents: i64, tax: (&str, i64)) -> Value {
    let data = json!({
        "id": id, "version": version, "number": id, "currency": "USD", "channel": "web",
        "placed_at": format!("2026-01-{day:02}T09:00:00Z"), "customer": null,
        "total": money(cents + tax.1),
        "taxes": [{ "name": "Tax", "rate": tax.0, "amount": money(tax.1) }],
        "lines": [{
            "sku": "MUG", "name": "Mug", "quantity": "1",
            "unit_price": format!("{}.{:02}", cents / 100, cents % 100), "total": money(cents),
        }],
    });
    event(format!("{id}-v{version}"), "order.updated", data)
}

fn paid(id: &str, name: &str, cents: i64) -> Value {
    let data = json!({
        "id": format!("p-{name}"), "order_id": id, "outcome": "succeeded", "method": "card",
        "amount": money(cents), "processed_at": "2026-01-01T09:05:00Z",
    });
    event(format!("{id}-{name}"), "payment.processed", data)
}

/// A shop with one entry a day from its first day on, that has sold nothing yet.
fn shop(books: Books) -> Run {
    let mut run = Run::of(SEED, books, |_| Shop::default());
    run.relay_and_push();
    let mut settings = json!({ "posting": "daily", "posting_from": "2026-01-01" });
    if books == Books::Invoices {
        settings["orders_as"] = json!("invoice");
    }
    set(&run, settings).unwrap();
    run
}

fn sell(run: &mut Run, id: &str, day: u32, cents: i64, tax: (&str, i64)) {
    run.tell(order(id, 1, day, cents, tax));
    run.tell(paid(id, "a", cents + tax.1));
    run.relay_and_push();
}

/// Lets time go by until that night, and does what is done then.
fn night(run: &mut Run, after: i64) {
    let at = start() + TimeDelta::days(after) + TimeDelta::minutes(140);
    let left = at - run.world.state().now;
    run.world.advance(left.to_std().unwrap());
    run.whole(Job::Plan);
    work(run, None);
}

/// What the goods of a summary come to; what was paid beyond them stands beside.
fn goods(one: &Value) -> Decimal {
    let lines = one["Line"].as_array().unwrap().iter();
    let goods = lines.filter(|line| {
        let name = line["Description"].as_str().unwrap_or_default();
        name.starts_with("Sales")
    });
    goods
        .map(|line| line["Amount"].to_string().parse::<Decimal>().unwrap())
        .sum()
}

fn total(document: &Value, field: &str) -> String {
    document[field].to_string()
}

/// Also where orders by themselves are invoices.
#[test]
fn a_day_is_one_receipt_that_follows_its_orders() {
    for books in [Books::Receipts, Books::Invoices] {
        a_day_is_one_receipt(books);
    }
}

fn a_day_is_one_receipt(books: Books) {
    let mut run = shop(books);
    for (id, cents) in [("1", 1000), ("2", 2500), ("3", 399)] {
        sell(&mut run, id, 1, cents, ("8.25", 83));
    }
    run.tell(order("4", 1, 1, 9999, ("8.25", 0)));
    run.relay_and_push();
    assert_eq!(
        entities(&run, "SalesReceipt").len(),
        0,
        "the day is not over"
    );
    let early = get(&run, "records/order/1");
    assert_eq!(
        (&early["state"], &early["summary"]),
        (&json!("pending"), &json!({ "id": WEB, "held": false }))
    );
    night(&mut run, 1);
    let receipts = entities(&run, "SalesReceipt");
    let [receipt] = receipts.as_slice() else {
        panic!("{receipts:?}")
    };
    assert_eq!(total(receipt, "TotalAmt"), "41.48");
    assert_eq!(receipt["TxnTaxDetail"]["TotalTax"].to_string(), "2.49");
    assert_eq!(receipt["TxnDate"], "2026-01-01");
    assert_eq!(receipt["DocNumber"], "web-USD-20260101");
    let one = get(&run, "records/order/1");
    assert_eq!(
        (&one["state"], &one["summary"]),
        (&json!("synced"), &json!({ "id": WEB, "held": true }))
    );
    assert_eq!(get(&run, "summary")["accuracy"], "1.000000");
    let page = |query: &[(&str, &str)]| {
        let shown = call(&run, "GET", &format!("records/order/{WEB}"), query, None).unwrap();
        let ids = shown["behind"]["data"].as_array().unwrap().iter();
        let ids: Vec<String> = ids
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        (ids, shown["behind"]["next_cursor"].clone())
    };
    let (first, cursor) = page(&[("limit", "2")]);
    assert_eq!(first, ["1", "2"]);
    let cursor = cursor.as_str().unwrap();
    assert_eq!(page(&[("limit", "2"), ("cursor", cursor)]).0, ["3"]);
    // What is paid later belongs to the day on which it was ordered.
    run.tell(paid("4", "late", 9999));
    run.relay_and_push();
    let waits = get(&run, "records/order/4");
    assert_eq!(waits["summary"], json!({ "id": WEB, "held": false }));
    work(&mut run, None);
    let receipts = entities(&run, "SalesReceipt");
    assert_eq!(receipts.len(), 1);
    assert_eq!(total(&receipts[0], "TotalAmt"), "141.47");
    assert_eq!(get(&run, "records/order/4")["state"], "synced");
    // A count is good for a while.
    run.world.advance(Duration::from_secs(60));
    let counts = get(&run, "summary");
    assert_eq!(counts["counts"]["synced"], 4, "{counts}");
}

#[test]
fn a_burst_of_changes_is_one_making() {
    let mut run = shop(Books::Receipts);
    sell(&mut run, "1", 1, 1000, ("8.25", 83));
    night(&mut run, 1);
    for id in ["2", "3", "4", "5"] {
        run.tell(order(id, 1, 1, 1000, ("8.25", 83)));
        run.tell(paid(id, "a", 1083));
        // What is held back stays where it is.
        let held_back = std::mem::take(&mut run.world.state().queue);
        run.relay_and_push();
        run.world.state().queue.extend(held_back);
    }
    let asked = run.world.state().queue.len();
    assert!(asked >= 4, "each asked by itself: {asked}");
    work(&mut run, None);
    let receipt = &entities(&run, "SalesReceipt")[0];
    assert_eq!(total(receipt, "TotalAmt"), "54.15");
    assert_eq!(receipt["SyncToken"], "1", "it was written twice in all");
}

#[test]
fn several_rates_of_one_day_stand_on_lines_of_their_own() {
    let mut run = shop(Books::Xero);
    let rates = json!({
        "tenant": run.connection().tenant_id,
        "tax_rates": [{ "Name": "City tax", "TaxComponents": [{ "Name": "City", "Rate": 5 }] }],
    });
    alone(
        run.world
            .control("POST", "organisations", &rates.to_string()),
    );
    sell(&mut run, "1", 1, 1000, ("8.25", 83));
    sell(&mut run, "2", 1, 2000, ("5", 100));
    // Prices that hold their tax, on a day with others that do not.
    let mut included = order("3", 1, 1, 1000, ("8.25", 76));
    included["data"]["prices_include_tax"] = json!(true);
    included["data"]["total"] = money(1000);
    run.tell(included);
    run.tell(paid("3", "a", 1000));
    run.relay_and_push();
    night(&mut run, 1);
    let invoices = entities(&run, "Invoices");
    let shown = get(&run, &format!("records/order/{WEB}"));
    assert_eq!(invoices.len(), 1, "{shown}");
    assert_eq!(total(&invoices[0], "Total"), "41.83", "{shown}");
    let lines = invoices[0]["LineItems"].as_array().unwrap();
    let mut taxes: Vec<String> = lines
        .iter()
        .map(|line| line["TaxAmount"].to_string())
        .collect();
    taxes.sort();
    assert_eq!(taxes, ["0.76", "0.83", "1.0"], "{lines:?}");
    assert_eq!(invoices[0]["Status"], "PAID");
}

#[test]
fn what_changes_after_xero_was_paid_is_parked_with_words() {
    let mut run = shop(Books::Xero);
    sell(&mut run, "1", 1, 1000, ("8.25", 83));
    night(&mut run, 1);
    assert_eq!(get(&run, "records/order/1")["state"], "synced");
    sell(&mut run, "2", 1, 2000, ("8.25", 165));
    work(&mut run, None);
    assert_eq!(entities(&run, "Invoices").len(), 1);
    let shown = get(&run, &format!("records/order/{WEB}"));
    assert_eq!(shown["state"], "parked");
    for id in ["1", "2"] {
        let behind = get(&run, &format!("records/order/{id}"));
        assert_eq!(behind["state"], "parked");
        assert_eq!(behind["error"], shown["error"], "it says why");
    }
    let tries = shown["attempts"].clone();
    night(&mut run, 2);
    let later = get(&run, &format!("records/order/{WEB}"));
    assert_eq!(later["attempts"], tries, "it is not tried again by itself");
}

#[test]
fn a_switch_counts_from_the_next_day_and_leaves_what_was_posted() {
    let mut run = Run::of(SEED, Books::Receipts, |_| Shop::default());
    run.relay_and_push();
    sell(&mut run, "1", 1, 1000, ("8.25", 83));
    let shown = set(&run, json!({ "posting": "daily" })).unwrap();
    assert_eq!(
        shown["postings"],
        json!([{ "posting": "daily", "from": "2026-01-02" }])
    );
    sell(&mut run, "2", 1, 1000, ("8.25", 83));
    assert_eq!(
        entities(&run, "SalesReceipt").len(),
        2,
        "today is as it was"
    );
    // Placed tomorrow by the clock of the shop.
    sell(&mut run, "3", 2, 5000, ("8.25", 413));
    assert_eq!(entities(&run, "SalesReceipt").len(), 2);
    let waits = get(&run, "records/order/3");
    assert_eq!(
        (&waits["state"], &waits["next_attempt_at"]),
        (&json!("pending"), &json!("2026-01-03T00:00:00Z")),
        "{waits}"
    );
    night(&mut run, 2);
    assert_eq!(entities(&run, "SalesReceipt").len(), 3);
    let back = set(&run, json!({ "posting": "each" })).unwrap();
    assert_eq!(back["postings"][1]["from"], "2026-01-04");
    // A late version of the day that is summed changes its summary, and nothing else.
    run.tell(order("3", 2, 2, 4000, ("8.25", 413)));
    run.relay_and_push();
    work(&mut run, None);
    let receipts = entities(&run, "SalesReceipt");
    let mut totals: Vec<String> = receipts.iter().map(|one| total(one, "TotalAmt")).collect();
    totals.sort();
    assert_eq!(totals, ["10.83", "10.83", "54.13"]);
    let goods: Vec<Decimal> = receipts.iter().map(goods).collect();
    assert!(goods.contains(&Decimal::from(40)), "{goods:?}");
    // One that says another day stays where it was.
    run.tell(order("3", 3, 1, 4100, ("8.25", 413)));
    run.relay_and_push();
    work(&mut run, None);
    assert_eq!(entities(&run, "SalesReceipt").len(), 3);
    let undone = set(&run, json!({ "posting": "daily" })).unwrap();
    assert_eq!(undone["postings"].as_array().unwrap().len(), 1, "{undone}");
}

#[test]
fn what_does_not_fit_in_the_settings_is_refused_with_its_place() {
    let run = shop(Books::Receipts);
    for (name, value) in [
        ("posting", json!("weekly")),
        ("posting_from", json!("yesterday")),
        ("posting_from", json!("2026-02-30")),
        ("posting_from", json!("1026-01-01")),
        ("daily_customer", json!("")),
        ("daily_customer", json!("a\u{202e}b")),
        ("daily_customer", json!("x".repeat(101))),
    ] {
        let error = set(&run, json!({ name: value })).unwrap_err();
        let fields = error.fields();
        assert_eq!(fields[0].pointer, format!("#/settings/{name}"), "{value}");
    }
    // While nothing is posted any day may be the first.
    set(
        &run,
        json!({ "posting": "each", "posting_from": "2025-12-01" }),
    )
    .unwrap();
    set(
        &run,
        json!({ "posting": "daily", "posting_from": "2025-12-24" }),
    )
    .unwrap();
    let mut run = run;
    sell(&mut run, "1", 1, 1000, ("8.25", 83));
    let late = json!({ "posting": "each", "posting_from": "2026-01-01" });
    let error = set(&run, late).unwrap_err();
    assert_eq!(error.fields()[0].code, "already_posted", "{error:?}");
    set(
        &run,
        json!({ "posting": "each", "posting_from": "2026-01-05" }),
    )
    .unwrap();
}

#[test]
fn ids_of_summaries_and_channels_that_are_none_are_refused() {
    let mut run = shop(Books::Receipts);
    let mut named = order("1", 1, 1, 1000, ("8.25", 83));
    named["data"]["id"] = json!(WEB);
    let mut channel = order("2", 1, 1, 1000, ("8.25", 83));
    channel["data"]["channel"] = json!("Web shop");
    let mut sections = order("3", 1, 1, 1000, ("8.25", 83));
    sections["data"]["sections"] = json!([]);
    for (event, code) in [
        (named, "reserved_id"),
        (channel, "invalid_value"),
        (sections, "unknown_field"),
        (paid(WEB, "a", 100), "reserved_id"),
    ] {
        run.shop().events = vec![event];
        let refused = run.offer(0).unwrap_err();
        assert!(refused.contains(code), "{refused}");
    }
}

#[test]
fn a_backfill_sums_each_day_at_once() {
    let mut run = Run::of(SEED, Books::Receipts, |_| Shop::default());
    run.relay_and_push();
    for number in 0..5 {
        sell_untold(&mut run, &format!("{number}"), 1 + number % 2);
    }
    set(
        &run,
        json!({ "posting": "daily", "posting_from": "2025-01-01" }),
    )
    .unwrap();
    let at = start() + TimeDelta::days(3);
    let left = at - run.world.state().now;
    run.world.advance(left.to_std().unwrap());
    alone(backfill::start(&run.ctx, &run.connection(), day(1), day(3))).unwrap();
    work(&mut run, None);
    let last = alone(backfill::last(&run.ctx, &run.connection())).unwrap();
    assert_eq!(last.state, backfill::State::Done, "{last:?}");
    assert_eq!((last.total, last.done, last.failed), (5, 5, 0), "{last:?}");
    let receipts = entities(&run, "SalesReceipt");
    let mut totals: Vec<String> = receipts.iter().map(|one| total(one, "TotalAmt")).collect();
    totals.sort();
    assert_eq!(totals, ["21.66", "32.49"]);
    assert!(receipts.iter().all(|one| one["SyncToken"] == "0"));
}

/// Sells what nobody hears of.
fn sell_untold(run: &mut Run, id: &str, day: u32) {
    run.tell(order(id, 1, day, 1000, ("8.25", 83)));
    run.tell(paid(id, "a", 1083));
    run.publish_all();
    run.receive_all();
}

#[test]
fn reconciliation_compares_summaries_and_repairs_them() {
    let mut run = shop(Books::Receipts);
    for id in ["1", "2"] {
        sell(&mut run, id, 1, 1000, ("8.25", 83));
    }
    night(&mut run, 1);
    let (_, sums, differences) = compare_all(&mut run, day(1), day(1));
    assert_eq!(differences, []);
    assert_eq!(
        (sums[0].ours.count, sums[0].theirs.count, sums[0].behind),
        (1, 1, 2)
    );
    // A sale of which no message came gets into its summary by the reconciliation alone.
    sell_untold(&mut run, "3", 1);
    compare_all(&mut run, day(1), day(1));
    let receipt = entities(&run, "SalesReceipt")[0].clone();
    assert_eq!(total(&receipt, "TotalAmt"), "32.49");
    delete(&run, "SalesReceipt", &receipt);
    let (found, _, differences) = compare_all(&mut run, day(1), day(1));
    let [gone] = differences.as_slice() else {
        panic!("{differences:?}")
    };
    assert_eq!((gone.class, gone.decided), (Class::Missing, Decided::Open));
    assert_eq!(gone.record.as_ref().unwrap().id, WEB);
    assert_eq!(gone.behind, Some(3));
    decide(&run, &found, gone, Decision::Repair);
    work(&mut run, None);
    let receipts = entities(&run, "SalesReceipt");
    assert_eq!(receipts.len(), 1);
    assert_eq!(total(&receipts[0], "TotalAmt"), "32.49");
    let (_, _, differences) = compare_all(&mut run, day(1), day(1));
    assert_eq!(differences, []);
}

/// Whoever makes summaries stops after so many polls. Meanwhile an order changes and somebody else makes
/// them; then the first goes on.
#[test]
fn a_maker_that_is_overtaken_does_no_harm() {
    for polls in 0.. {
        let mut run = shop(Books::Receipts);
        sell(&mut run, "1", 1, 1000, ("8.25", 83));
        night(&mut run, 1);
        sell(&mut run, "2", 1, 1000, ("8.25", 83));
        let asked = run.receive_all();
        let over = run.begin(Job::Push(asked), polls);
        run.shop().events.push(order("1", 2, 1, 700, ("8.25", 58)));
        let index = run.shop().events.len() - 1;
        run.beside(Job::Accept(vec![index]));
        // The order, what it asks for, and the summary.
        for _ in 0..3 {
            run.publish_all();
            let notices = run.receive_all();
            run.beside(Job::Push(notices));
        }
        run.drain();
        // What is stored says what the books say.
        let records = json!([{ "type": "order", "id": WEB }]);
        let body = json!({ "merchant_id": MERCHANT, "records": records });
        call(&run, "POST", "retry", &[], Some(body)).unwrap();
        run.drain();
        let receipts = entities(&run, "SalesReceipt");
        assert_eq!(receipts.len(), 1, "after {polls} polls");
        assert_eq!(
            goods(&receipts[0]),
            Decimal::from(17),
            "after {polls} polls"
        );
        if over {
            assert!(polls > 10, "there is nothing to do");
            break;
        }
    }
}

/// A price that is cut after the refund for it was summed makes of that refund what pays back, and the
/// other way round, though the refund itself is as it was.
#[test]
fn a_refund_is_summed_anew_when_its_order_makes_something_else_of_it() {
    for books in [Books::Receipts, Books::Invoices] {
        let mut run = shop(books);
        sell(&mut run, "1", 1, 1000, ("8.25", 83));
        night(&mut run, 1);
        let refund = json!({
            "id": "r-1", "order_id": "1", "amount": money(300), "refunded_at": "2026-01-02T09:00:00Z",
        });
        run.tell(event("r-1".to_owned(), "order.refunded", refund));
        run.relay_and_push();
        night(&mut run, 2);
        let shown = |run: &Run| {
            let receipts = entities(run, "RefundReceipt");
            assert_eq!(receipts.len(), 1, "{books:?}: {receipts:?}");
            let lines = receipts[0]["Line"].as_array().unwrap().iter();
            let named = lines.filter_map(|line| line["Description"].as_str());
            named.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(shown(&run), ["Refunds without tax"], "{books:?}");
        for (version, cents, tax, said) in [
            (2, 700, 58, "Gift cards"),
            (3, 1000, 83, "Refunds without tax"),
        ] {
            run.tell(order("1", version, 1, cents, ("8.25", tax)));
            run.relay_and_push();
            work(&mut run, None);
            assert_eq!(shown(&run), [said], "{books:?} {version}");
        }
    }
}
