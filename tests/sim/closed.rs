//! Books that are closed after something was posted in them: what changes then is shown with what to do,
//! is not tried again by itself, and follows once they are open.

use crate::books::compare_all;
use crate::run::{Books, Job, Run, alone, indebted, merchant};
use crate::shop::{MERCHANT, Shop};
use chrono::NaiveDate;
use crossdock::engine::again::{self, Wanted};
use crossdock::store::{Store, keys};
use crossdock::sync::push::{Link, LinkState};
use crossdock::sync::reconcile::{Class, Decided};
use futures::FutureExt;
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::{Value, json};
use std::time::Duration;

const SEED: u64 = 42;
const SOLD: &str = "2025-12-01T09:00:00Z";
/// Before and after the day up to which the books are closed.
const CLOSED: &str = "2025-12-03T09:00:00Z";
const OPEN: &str = "2025-12-20T09:00:00Z";

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

fn tell(run: &mut Run, kind: &str, id: &str, data: Value) {
    run.shop().events.push(json!({
        "id": id, "type": kind, "merchant_id": MERCHANT, "occurred_at": SOLD, "data": data,
    }));
    let index = run.shop().events.len() - 1;
    run.whole(Job::Accept(vec![index]));
    run.relay_and_push();
}

fn order(run: &mut Run, id: &str, version: u64, amount: i64) {
    let data = json!({
        "id": id, "version": version, "number": id, "currency": "USD", "placed_at": SOLD,
        "customer": null, "total": money(amount),
        "lines": [{
            "sku": "MUG", "name": "Mug", "quantity": "1", "total": money(amount),
            "unit_price": format!("{}.00", amount / 100),
        }],
    });
    tell(run, "order.updated", &format!("{id}-v{version}"), data);
}

fn pay(run: &mut Run, id: &str, amount: i64) {
    let data = json!({
        "id": "p", "order_id": id, "outcome": "succeeded", "amount": money(amount),
        "method": "card", "processed_at": SOLD,
    });
    tell(run, "payment.processed", &format!("{id}-p"), data);
}

fn refund(run: &mut Run, id: &str, order: &str, at: &str) {
    let data = json!({ "id": id, "order_id": order, "amount": money(300), "refunded_at": at });
    tell(run, "order.refunded", id, data);
}

fn link(run: &Run, kind: &str, id: &str) -> Link {
    let key = keys::link(&merchant(), &run.connection().id, kind, id);
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

/// Closes the books up to `day`, or opens them.
fn close(run: &Run, books: Books, day: &str) {
    let (path, body) = match books {
        Books::Xero => {
            let tenant = &run.connection().tenant_id;
            (
                "organisations",
                json!({ "tenant": tenant, "period_lock_date": day }),
            )
        }
        _ => {
            let mut company: Value = serde_json::from_str(&indebted(DEFAULT_REALM)).unwrap();
            company["closed_until"] = json!(day);
            ("realms", company)
        }
    };
    alone(run.world.control("POST", path, &body.to_string()));
}

/// The total of an order's document and how often it changed.
fn there(run: &Run, books: Books, id: &str) -> (f64, String) {
    let (entity, number, total, version) = match books {
        Books::Receipts => ("SalesReceipt", "DocNumber", "TotalAmt", "SyncToken"),
        Books::Invoices => ("Invoice", "DocNumber", "TotalAmt", "SyncToken"),
        Books::Xero => ("Invoices", "InvoiceNumber", "Total", "UpdatedDateUTC"),
    };
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    let mut all = all.as_array().unwrap().iter();
    let one = all.find(|one| one[number] == id).unwrap();
    (one[total].as_f64().unwrap(), one[version].to_string())
}

#[test]
fn what_changes_after_the_books_were_closed_follows_once_they_are_open() {
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut run = Run::of(SEED, books, |_| Shop::default());
        order(&mut run, "A", 1, 1000);
        if books == Books::Receipts {
            pay(&mut run, "A", 1000);
        }
        order(&mut run, "B", 1, 2000);
        pay(&mut run, "B", 2000);
        let posted = there(&run, books, "A");
        assert_eq!((posted.0, there(&run, books, "B").0), (10.0, 20.0));
        close(&run, books, "2025-12-05");
        order(&mut run, "A", 2, 800);
        refund(&mut run, "early", "B", CLOSED);
        refund(&mut run, "late", "B", OPEN);
        let code = match books {
            Books::Xero => "xero_period_locked",
            _ => "quickbooks_6200",
        };
        let parked = |run: &Run, kind: &str, id: &str| {
            let link = link(run, kind, id);
            assert_eq!(link.state, LinkState::Parked, "{books:?} {kind} {id}");
            let problem = link.problem.unwrap();
            assert_eq!(problem.code, code, "{books:?} {kind} {id}");
            let words = ["reopen them", "unlock them"];
            let told = words.iter().any(|words| problem.detail.contains(words));
            assert!(told, "{}", problem.detail);
        };
        parked(&run, "order", "A");
        parked(&run, "refund", "early");
        assert_eq!(link(&run, "refund", "late").state, LinkState::Synced);
        assert_eq!(there(&run, books, "A"), posted);

        // It rests until somebody does something, and a reconciliation does not try it either.
        let calls = run.world.state().net_calls;
        run.world.advance(Duration::from_secs(7200));
        run.drain();
        assert_eq!(run.world.state().net_calls, calls, "{books:?}");
        let day = |number| NaiveDate::from_ymd_opt(2025, 12, number).unwrap();
        let (_, _, differences) = compare_all(&mut run, day(1), day(3));
        let open: Vec<(Class, Decided)> = differences
            .iter()
            .filter(|one| one.record.as_ref().is_some_and(|row| row.id != "B~p"))
            .map(|one| (one.class, one.decided))
            .collect();
        // A receipt still shows all that came in, so its sum is the same.
        let sums_differ = open.contains(&(Class::ChangedHere, Decided::Open));
        assert_eq!(sums_differ, books != Books::Receipts, "{open:?}");
        assert!(open.contains(&(Class::Missing, Decided::Open)), "{open:?}");
        assert!(open.iter().all(|(_, decided)| *decided == Decided::Open));

        // What is taken back needs nothing of the books.
        order(&mut run, "A", 3, 1000);
        assert_eq!(
            link(&run, "order", "A").state,
            LinkState::Synced,
            "{books:?}"
        );
        assert_eq!(there(&run, books, "A"), posted);
        order(&mut run, "A", 4, 800);
        parked(&run, "order", "A");

        close(&run, books, "");
        let wanted = Wanted::Code(code.to_owned(), None);
        let sent = alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
        assert_eq!(sent.count, 2, "{books:?}");
        let notices = run.receive_all();
        run.whole(Job::Push(notices));
        for (kind, id) in [("order", "A"), ("refund", "early")] {
            let link = link(&run, kind, id);
            assert_eq!(link.state, LinkState::Synced, "{books:?}: {link:?}");
        }
        let total = if books == Books::Receipts { 10.0 } else { 8.0 };
        assert_eq!(there(&run, books, "A").0, total, "{books:?}");
        let (_, _, differences) = compare_all(&mut run, day(1), day(20));
        assert_eq!(differences, [], "{books:?}");
    }
}
