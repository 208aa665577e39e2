//! Bringing what was sold before into the books, and comparing the books with what the shop says: with a
//! crash at each step, and with everything that people may do over there.

use crate::judge;
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::{Shop, Size};
use crate::world::{Bad, Dice, PLATFORM_KEY, RECONCILE_QUEUE, Stand, Tamper};
use axum::http;
use chrono::NaiveDate;
use crossdock::api::{self, records};
use crossdock::engine::backfill::{self, Backfill, State};
use crossdock::engine::reconcile::{self, Cause, Decision, ReconcileNotice, Reconciliation};
use crossdock::error::Code;
use crossdock::model::notice::Notice;
use crossdock::store::{Condition, Store, Write, keys};
use crossdock::sync::reconcile::{Class, Decided, Difference, Sum};
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::{Value, json};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const SEED: u64 = 42;
const ROUNDS_MAX: usize = 2_000_000;

fn day(number: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, number).unwrap()
}

/// A shop that has sold everything before there was a connection that took it.
fn sold(books: Books, shop: impl FnOnce(&mut Dice) -> Shop) -> Run {
    let mut run = Run::of(SEED, books, shop);
    run.relay_and_push();
    let unsent = std::mem::take(&mut run.unsent);
    for index in unsent {
        run.whole(Job::Accept(vec![index]));
    }
    run.publish_all();
    run.receive_all();
    run
}

/// Does all that the queues hold, with one worker that dies at poll `dies_at`. Returns how many polls
/// that took.
pub fn work(run: &mut Run, dies_at: Option<u64>) -> u64 {
    let mut polls = 0;
    for _ in 0..ROUNDS_MAX {
        run.relay();
        let visible: Vec<Notice> = {
            let mut state = run.world.state();
            let now = state.now;
            let (visible, rest): (Vec<_>, Vec<_>) = state
                .queue
                .drain(..)
                .partition(|message| message.visible_at <= now);
            state.queue = rest;
            visible.into_iter().map(|message| message.notice).collect()
        };
        if !visible.is_empty() {
            run.start(Job::Push(visible));
            run.only_task(&mut polls, dies_at.as_slice());
            continue;
        }
        if let Some(body) = to_compare(run) {
            compare(run, &body, &mut polls, dies_at);
            continue;
        }
        if run.world.state().queue.is_empty() {
            return polls;
        }
        run.world.advance(Duration::from_secs(1));
    }
    panic!("it does not come to rest");
}

/// The next message of a reconciliation.
pub fn to_compare(run: &Run) -> Option<String> {
    let mut state = run.world.state();
    let mut sent = state.sent.iter();
    let place = sent.position(|(url, _)| url == RECONCILE_QUEUE)?;
    Some(state.sent.remove(place).1)
}

/// One message of a reconciliation; it comes again when its worker dies or fails. Returns whether it is
/// done.
pub fn compare(run: &Run, body: &str, polls: &mut u64, dies_at: Option<u64>) -> bool {
    let notice: ReconcileNotice = serde_json::from_str(body).unwrap();
    let again = || {
        run.world.advance(Duration::from_secs(90));
        let message = (RECONCILE_QUEUE.to_owned(), body.to_owned());
        run.world.state().sent.push(message);
        false
    };
    let mut future = Box::pin(reconcile::run(&run.ctx, &notice));
    loop {
        *polls += 1;
        if Some(*polls) == dies_at {
            run.world.note(|| "whoever compares dies".to_owned());
            return again();
        }
        run.world.advance(Duration::from_millis(5));
        let mut context = Context::from_waker(Waker::noop());
        match future.as_mut().poll(&mut context) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(error)) => {
                run.world
                    .note(|| format!("not compared: {}", error.chain()));
                return again();
            }
        }
    }
}

fn begin(run: &Run) -> Backfill {
    alone(backfill::start(&run.ctx, &run.connection(), day(1), day(3))).unwrap()
}

fn last(run: &Run) -> Backfill {
    alone(backfill::last(&run.ctx, &run.connection())).unwrap()
}

/// Compares the three days and returns what was found.
fn reconciled(run: &mut Run, dies_at: Option<u64>) -> (Reconciliation, Vec<Difference>, u64) {
    let (found, sums, differences, polls) = compared(run, day(1), day(3), dies_at);
    assert!(!sums.is_empty());
    (found, differences, polls)
}

fn compared(
    run: &mut Run,
    from: NaiveDate,
    to: NaiveDate,
    dies_at: Option<u64>,
) -> (Reconciliation, Vec<Sum>, Vec<Difference>, u64) {
    let connection = run.connection();
    let begun = reconcile::start(&run.ctx, &connection, from, to, Cause::Request);
    let begun = alone(begun).unwrap();
    let polls = work(run, dies_at);
    let found = alone(reconcile::get(&run.ctx, &connection, &begun.id)).unwrap();
    assert_eq!(found.state, reconcile::State::Done, "{found:?}");
    let findings = reconcile::findings(&run.ctx, &connection, &begun.id, 100_000);
    let (sums, differences, more) = alone(findings).unwrap();
    assert!(!more);
    (found, sums, differences, polls)
}

/// Compares the days from `from` to `to`.
pub fn compare_all(
    run: &mut Run,
    from: NaiveDate,
    to: NaiveDate,
) -> (Reconciliation, Vec<Sum>, Vec<Difference>) {
    let (found, sums, differences, _) = compared(run, from, to, None);
    (found, sums, differences)
}

/// The ids of the documents that people change over there: receipts, and in Xero, where nobody changes
/// what is paid, payments.
pub fn documents(run: &Run, books: Books) -> Vec<String> {
    let (entity, id) = match books {
        Books::Xero => ("Payments", "PaymentID"),
        _ => ("SalesReceipt", "Id"),
    };
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    let all = all.as_array().unwrap().iter();
    all.map(|one| one[id].as_str().unwrap().to_owned())
        .collect()
}

/// Somebody changes, deletes or copies one of `ids` over there, and takes it off the list.
pub fn meddle(run: &Run, books: Books, ids: &mut Vec<String>) -> bool {
    let (place, what) = {
        let dice = &mut run.world.state().dice;
        (dice.below(ids.len()), dice.below(3))
    };
    if ids.is_empty() {
        return false;
    }
    let id = ids.swap_remove(place);
    if books == Books::Xero {
        let path = format!("entities/Payments/{id}");
        alone(run.world.control("DELETE", &path, ""));
        return true;
    }
    let receipt = read(run, "SalesReceipt", &id);
    match what {
        0 => delete(run, "SalesReceipt", &receipt),
        1 => add_line(run, receipt),
        _ => {
            copy(run, &receipt);
        }
    }
    true
}

/// Decides all that is open as a shop's bookkeeper would. Returns how much that was.
pub fn decide_all(
    run: &Run,
    books: Books,
    at: &Reconciliation,
    differences: &[Difference],
) -> usize {
    let open = differences
        .iter()
        .filter(|one| one.decided == Decided::Open);
    let open: Vec<&Difference> = open.collect();
    for one in &open {
        if one.class == Class::Doubled && books != Books::Xero {
            let id = &one.remote.as_ref().unwrap().id;
            delete(run, "SalesReceipt", &read(run, "SalesReceipt", id));
            continue;
        }
        // What the provider does not take can only stand as it is.
        let parked = one.detail.contains("does not take");
        let decision = if parked {
            Decision::Accept
        } else {
            Decision::Repair
        };
        decide(run, at, one, decision);
    }
    open.len()
}

fn classes(differences: &[Difference]) -> Vec<(Class, Decided)> {
    differences
        .iter()
        .map(|one| (one.class, one.decided))
        .collect()
}

/// Decides one difference.
pub fn decide(run: &Run, at: &Reconciliation, one: &Difference, decision: Decision) -> Difference {
    let connection = run.connection();
    let decided = reconcile::decide(&run.ctx, &connection, &at.id, &one.id, decision);
    alone(decided).unwrap()
}

/// Xero shows payments one by one, and leaves what works in the background 45 calls a minute.
#[test]
fn a_day_with_more_to_look_at_than_there_are_calls_comes_to_its_end() {
    const PAYMENTS: usize = 100;
    let mut run = Run::of(SEED, Books::Xero, |_| Shop::backlog(PAYMENTS, 3));
    for events in std::mem::take(&mut run.unsent).chunks(100) {
        run.whole(Job::Accept(events.to_vec()));
    }
    run.drain();
    let paid = documents(&run, Books::Xero);
    assert_eq!(paid.len(), PAYMENTS);
    for id in paid {
        let path = format!("entities/Payments/{id}");
        alone(run.world.control("DELETE", &path, ""));
    }
    let before = run.world.state().net_calls;
    let connection = run.connection();
    let begun = reconcile::start(&run.ctx, &connection, day(1), day(1), Cause::Request);
    let begun = alone(begun).unwrap();
    for _ in 0..5 {
        if let Some(body) = to_compare(&run) {
            compare(&run, &body, &mut 0, None);
        }
    }
    let found = alone(reconcile::get(&run.ctx, &connection, &begun.id)).unwrap();
    assert_eq!(found.state, reconcile::State::Done, "{found:?}");
    let missing = found.found[&Class::Missing];
    assert_eq!(missing, PAYMENTS as u64, "{found:?}");
    let calls = run.world.state().net_calls - before;
    assert!(calls < PAYMENTS as u64 + 40, "{calls} calls");
}

const ALL: [Books; 3] = [Books::Receipts, Books::Invoices, Books::Xero];

fn large(books: Books) -> impl Fn(&mut Dice) -> Shop {
    move |dice| Shop::sized(dice, Size::Large, books)
}

#[test]
fn what_was_sold_before_is_brought_into_the_books_once() {
    for books in ALL {
        let mut run = sold(books, large(books));
        judge(&format!("{books:?}"), &mut run, |run| {
            let begun = begin(run);
            assert_eq!((begun.state, begun.sent), (State::Counting, 0));
            work(run, None);
            let done = last(run);
            assert_eq!(done.state, State::Done, "{done:?}");
            assert_eq!((done.done, done.failed), (done.total, 0), "{done:?}");
            assert!(done.sent > 0 && done.total >= done.sent, "{done:?}");
            let again = begin(run);
            assert_ne!(again.id, done.id);
            work(run, None);
            assert_eq!((last(run).sent, last(run).done), (0, done.total));
            let (found, differences, _) = reconciled(run, None);
            assert_eq!(differences, []);
            assert!(found.ours > 0 && found.ours == found.theirs, "{found:?}");
        });
    }
}

#[test]
fn a_backfill_survives_a_crash_at_any_step() {
    let steps = {
        let mut run = sold(Books::Receipts, Shop::one_order);
        begin(&run);
        work(&mut run, None)
    };
    for step in 1..=steps {
        let mut run = sold(Books::Receipts, Shop::one_order);
        judge(
            &format!("death at step {step} of {steps}"),
            &mut run,
            |run| {
                begin(run);
                work(run, Some(step));
                let done = last(run);
                assert_eq!(
                    (done.state, done.done),
                    (State::Done, done.total),
                    "{done:?}"
                );
            },
        );
    }
}

#[test]
fn a_backfill_that_is_stopped_sends_no_more() {
    let mut run = sold(Books::Receipts, |_| Shop::backlog(450, 5));
    begin(&run);
    let mut polls = 0;
    while last(&run).sent == 0 {
        let notices = run.receive_all();
        run.start(Job::Push(notices));
        run.only_task(&mut polls, &[]);
    }
    let connection = run.connection();
    let conflict = backfill::start(&run.ctx, &connection, day(2), day(3));
    assert!(alone(conflict).is_err(), "one at a time");
    let stopped = alone(backfill::stop(&run.ctx, &run.connection())).unwrap();
    assert_eq!((stopped.state, stopped.sent), (State::Stopped, 200));
    work(&mut run, None);
    assert_eq!(last(&run).sent, 200);
    begin(&run);
    work(&mut run, None);
    let done = last(&run);
    assert_eq!((done.state, done.sent, done.done), (State::Done, 250, 450));
    assert_eq!(run.check(), Ok(()));
}

/// A document as it stands there.
fn read(run: &Run, entity: &str, id: &str) -> Value {
    let statement = json!(format!("select * from {entity} where Id = '{id}'"));
    quickbooks(run, "query", &statement)["QueryResponse"][entity][0].clone()
}

/// A copy of a receipt under another number.
fn copy(run: &Run, receipt: &Value) -> Value {
    let mut copy = receipt.clone();
    for name in ["Id", "SyncToken", "MetaData", "TotalAmt", "DocNumber"] {
        copy.as_object_mut().unwrap().remove(name);
    }
    quickbooks(run, "salesreceipt?minorversion=75", &copy)
}

/// A call of the accounting API by somebody else. A text is the statement of a query.
pub fn quickbooks(run: &Run, path: &str, body: &Value) -> Value {
    assert!(matches!(run.world.vendor, Stand::Quickbooks(_)));
    let token = alone(run.world.control("POST", "grants", "{}"))["access_token"].clone();
    let bearer = format!("Bearer {}", token.as_str().unwrap());
    let request = http::Request::post(format!("/v3/company/{DEFAULT_REALM}/{path}"))
        .header("authorization", bearer)
        .header(
            "content-type",
            if body.is_string() {
                "application/text"
            } else {
                "application/json"
            },
        )
        .header("accept", "application/json")
        .body(match body.as_str() {
            Some(statement) => statement.as_bytes().to_vec(),
            None => body.to_string().into_bytes(),
        })
        .unwrap();
    let answer = alone(run.world.vendor.handle(request)).unwrap();
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer.status(), 200, "{body}");
    body
}

fn only(run: &Run, entity: &str) -> Value {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    let [one] = all.as_array().unwrap().as_slice() else {
        panic!("{all}")
    };
    one.clone()
}

/// The books of one order with its refund in QuickBooks.
fn kept() -> Run {
    let mut run = sold(Books::Receipts, Shop::one_order);
    begin(&run);
    work(&mut run, None);
    assert_eq!(run.check(), Ok(()));
    run
}

/// Somebody adds a line over there.
fn change(run: &Run) {
    add_line(run, only(run, "SalesReceipt"));
}

fn add_line(run: &Run, mut receipt: Value) {
    let mut line = receipt["Line"][0].clone();
    line.as_object_mut().unwrap().remove("Id");
    line.as_object_mut().unwrap().remove("LineNum");
    receipt["Line"].as_array_mut().unwrap().push(line);
    receipt.as_object_mut().unwrap().remove("TotalAmt");
    quickbooks(run, "salesreceipt?minorversion=75", &receipt);
}

/// Somebody deletes a document over there.
pub fn delete(run: &Run, entity: &str, one: &Value) {
    let path = format!("{}?operation=delete&minorversion=75", entity.to_lowercase());
    let body = json!({ "Id": one["Id"], "SyncToken": one["SyncToken"] });
    quickbooks(run, &path, &body);
}

#[test]
fn what_was_changed_there_waits_and_is_written_over_on_demand() {
    let mut run = kept();
    change(&run);
    let (at, differences, _) = reconciled(&mut run, None);
    assert_eq!(
        classes(&differences),
        [(Class::ChangedThere, Decided::Open)]
    );
    assert_eq!(at.found[&Class::ChangedThere], 1);
    let decided = decide(&run, &at, &differences[0], Decision::Repair);
    assert_eq!(decided.decided, Decided::Sent);
    work(&mut run, None);
    assert_eq!(run.check(), Ok(()));
    assert_eq!(reconciled(&mut run, None).1, []);
}

#[test]
fn what_is_accepted_is_not_asked_again_until_it_changes() {
    let mut run = kept();
    change(&run);
    let (at, differences, _) = reconciled(&mut run, None);
    decide(&run, &at, &differences[0], Decision::Accept);
    let (_, again, _) = reconciled(&mut run, None);
    assert_eq!(classes(&again), [(Class::ChangedThere, Decided::Accepted)]);
    change(&run);
    let (_, once_more, _) = reconciled(&mut run, None);
    assert_eq!(classes(&once_more), [(Class::ChangedThere, Decided::Open)]);
}

#[test]
fn what_was_deleted_there_is_made_anew_on_demand_only() {
    let mut run = kept();
    let refund = only(&run, "RefundReceipt");
    delete(&run, "RefundReceipt", &refund);
    let (at, differences, _) = reconciled(&mut run, None);
    assert_eq!(classes(&differences), [(Class::Missing, Decided::Open)]);
    assert!(run.check().is_err(), "nobody decided yet");
    decide(&run, &at, &differences[0], Decision::Repair);
    work(&mut run, None);
    assert_eq!(run.check(), Ok(()));
    assert_eq!(reconciled(&mut run, None).1, []);
}

#[test]
fn a_double_and_what_is_not_ours_are_told_apart() {
    let mut run = kept();
    let mut receipt = only(&run, "SalesReceipt");
    let double = copy(&run, &receipt);
    receipt["PrivateNote"] = json!("over the counter");
    copy(&run, &receipt);
    let (at, differences, _) = reconciled(&mut run, None);
    assert_eq!(
        classes(&differences),
        [
            (Class::Doubled, Decided::Open),
            (Class::NotOurs, Decided::Accepted)
        ]
    );
    let connection = run.connection();
    let repair = reconcile::decide(
        &run.ctx,
        &connection,
        &at.id,
        &differences[0].id,
        Decision::Repair,
    );
    assert!(alone(repair).is_err(), "which one is right, a person sees");
    delete(&run, "SalesReceipt", &double["SalesReceipt"]);
    let (_, differences, _) = reconciled(&mut run, None);
    assert_eq!(classes(&differences), [(Class::NotOurs, Decided::Accepted)]);

    // A company with many of its own: all are counted, some are shown, and the sums are never cut off.
    for _ in 0..104 {
        copy(&run, &receipt);
    }
    let (at, differences, _) = reconciled(&mut run, None);
    assert_eq!(at.found[&Class::NotOurs], 105);
    assert_eq!(differences.len(), 100);
    let found = |limit| {
        let connection = run.connection();
        alone(reconcile::findings(&run.ctx, &connection, &at.id, limit)).unwrap()
    };
    let (sums, _, more) = found(20);
    assert_eq!((sums, more), (found(1000).0, true));
}

/// The provider was away for hours, or refuses a day for good, and the queue gave its message up.
#[test]
fn a_reconciliation_that_does_not_get_on_makes_room_for_the_next() {
    let mut run = kept();
    run.world.state().calls.clear();
    reconciled(&mut run, None);
    let lists = run.world.state().calls.last().unwrap().clone();
    alone(reconcile::plan(&run.ctx)).unwrap();
    let begin = to_compare(&run).unwrap();
    compare(&run, &begin, &mut 0, None);
    let message = to_compare(&run).unwrap();
    run.world.state().tamper = Some(Tamper {
        call: lists.clone(),
        bad: Bad::Refused,
        times: u64::MAX,
    });
    compare(&run, &message, &mut 0, None);
    run.world.state().tamper = None;
    assert!(to_compare(&run).is_some(), "it failed and is lost here");
    let list = |run: &Run| alone(reconcile::list(&run.ctx, &run.connection(), 10)).unwrap();
    let problem = list(&run)[0].problem.clone();
    assert!(problem.is_some(), "{lists}");

    let others = |run: &Run| {
        let (from, to) = (day(1), day(2));
        alone(reconcile::start(
            &run.ctx,
            &run.connection(),
            from,
            to,
            Cause::Request,
        ))
    };
    let refused = others(&run).unwrap_err();
    assert_eq!(refused.code(), Code::Conflict, "it may get on yet");
    run.world.advance(Duration::from_secs(86_400));
    alone(reconcile::plan(&run.ctx)).unwrap();
    work(&mut run, None);
    let states: Vec<_> = list(&run).iter().map(|one| one.state).collect();
    assert_eq!(
        states[..2],
        [reconcile::State::Done, reconcile::State::Stopped]
    );
    others(&run).unwrap();
}

#[test]
fn what_never_arrived_is_sent_again_by_itself() {
    for books in ALL {
        let mut run = sold(books, large(books));
        judge(&format!("{books:?}"), &mut run, |run| {
            let (_, differences, _) = reconciled(run, None);
            assert!(!differences.is_empty());
            let missing = (Class::Missing, Decided::Sent);
            assert!(classes(&differences).iter().all(|one| *one == missing));
            assert_eq!(reconciled(run, None).1, []);
        });
    }
}

/// An outage that is longer than the queue hands a message out: each ends in the dead-letter queue, some
/// with an open intent. (Here it gives up after two, so that Xero's tokens outlive it.)
#[test]
fn what_the_queue_gave_up_is_sent_again_by_itself() {
    for books in ALL {
        for net in [300, 1000] {
            let mut run = sold(books, large(books));
            judge(&format!("{books:?}, {net} of 1000"), &mut run, |run| {
                begin(run);
                run.world.state().chances.net = net;
                for _ in 0..2 {
                    let notices = run.receive_all();
                    run.whole(Job::Push(notices));
                    run.world.advance(Duration::from_secs(720));
                }
                let given_up = run.receive_all();
                assert!(!given_up.is_empty());
                run.calm();
                let (_, early, _) = reconciled(run, None);
                assert!(
                    early.iter().all(|one| one.decided != Decided::Open),
                    "somebody may still be at work: {early:?}"
                );
                run.world.advance(Duration::from_secs(4 * 3600));
                reconciled(run, None);
                let (found, differences, _) = reconciled(run, None);
                assert_eq!((differences, found.under_way), (vec![], 0));
            });
        }
    }
}

#[test]
fn a_reconciliation_survives_a_crash_at_any_step() {
    let begun = || {
        let run = kept();
        change(&run);
        delete(&run, "RefundReceipt", &only(&run, "RefundReceipt"));
        run
    };
    let (usual, expected, steps) = reconciled(&mut begun(), None);
    assert_eq!(expected.len(), 2);
    for step in 1..=steps {
        let (at, differences, _) = reconciled(&mut begun(), Some(step));
        assert_eq!(
            (classes(&differences), at.found, at.ours),
            (classes(&expected), usual.found.clone(), usual.ours),
            "death at step {step} of {steps}"
        );
    }
}

#[test]
fn a_payment_that_was_deleted_in_xero_is_made_anew() {
    let mut run = sold(Books::Xero, large(Books::Xero));
    begin(&run);
    work(&mut run, None);
    assert_eq!(run.check(), Ok(()));
    let payments = alone(run.world.control("GET", "entities/Payments", ""));
    let id = payments[0]["PaymentID"].as_str().unwrap();
    let path = format!("entities/Payments/{id}");
    alone(run.world.control("DELETE", &path, ""));
    let (at, differences, _) = reconciled(&mut run, None);
    assert_eq!(classes(&differences), [(Class::Missing, Decided::Open)]);
    decide(&run, &at, &differences[0], Decision::Repair);
    work(&mut run, None);
    assert_eq!(reconciled(&mut run, None).1, []);
}

/// A request of the API, and its answer as text.
fn ask(run: &Run, method: &str, path: &str, body: &Value) -> (u16, String) {
    let base = format!("/api/v1/integrations/accounting/{}", run.connection().id);
    let mut request = api::Request {
        method: method.to_owned(),
        path: format!("{base}/{path}"),
        bearer: Some(PLATFORM_KEY.into()),
        ..api::Request::default()
    };
    match body {
        Value::Null => {
            let merchant = merchant().to_string();
            request.query.insert("merchant_id".to_owned(), merchant);
        }
        body => request.body = body.to_string().into_bytes(),
    }
    match alone(records::handle(&run.ctx, &request)) {
        Ok(response) => (response.status, response.body),
        Err(error) => (error.code().status(), error.chain()),
    }
}

#[test]
fn the_api_tells_of_both() {
    let mut run = sold(Books::Receipts, Shop::one_order);
    let window = json!({ "merchant_id": merchant(), "from": "2026-01-01", "to": "2026-01-03" });
    let read = |text: &str| -> Value { serde_json::from_str(text).unwrap() };
    assert_eq!(ask(&run, "GET", "backfill", &Value::Null).0, 404);
    let (status, begun) = ask(&run, "POST", "backfill", &window);
    assert_eq!((status, &read(&begun)["total"]), (202, &Value::Null));
    assert!(read(&begun)["ends_at_unknown"].is_string());
    let other = json!({ "merchant_id": merchant(), "from": "2026-01-02", "to": "2026-01-03" });
    assert_eq!(ask(&run, "POST", "backfill", &other).0, 409);
    let backwards = json!({ "merchant_id": merchant(), "from": "2026-01-02", "to": "2026-01-01" });
    assert_eq!(ask(&run, "POST", "backfill", &backwards).0, 422);
    work(&mut run, None);
    let (_, done) = ask(&run, "GET", "backfill", &Value::Null);
    assert_eq!(read(&done)["state"], "done");
    assert_eq!(
        (&read(&done)["done"], &read(&done)["total"]),
        (&json!(2), &json!(2))
    );
    change(&run);
    let (status, begun) = ask(&run, "POST", "reconcile", &window);
    assert_eq!(status, 202);
    let id = read(&begun)["id"].as_str().unwrap().to_owned();
    work(&mut run, None);
    let place = format!("reconciliations/{id}");
    let (_, found) = ask(&run, "GET", &place, &Value::Null);
    let found = read(&found);
    assert_eq!(found["found"]["changed_there"], 1, "{found}");
    let difference = found["differences"][0]["id"].as_str().unwrap().to_owned();
    let (_, csv) = ask(&run, "GET", &format!("{place}/report.csv"), &Value::Null);
    assert!(
        csv.lines().count() > 2 && csv.contains("changed_there"),
        "{csv}"
    );
    let (_, html) = ask(&run, "GET", &format!("{place}/report.html"), &Value::Null);
    assert!(
        html.contains("changed there") && !html.contains("<script"),
        "{html}"
    );
    let plain = json!({ "merchant_id": merchant() });
    let path = format!("{place}/differences/{difference}/accept");
    let (status, decided) = ask(&run, "POST", &path, &plain);
    assert_eq!(
        (status, &read(&decided)["decided"]),
        (200, &json!("accepted"))
    );
    let (_, all) = ask(&run, "GET", "reconciliations", &Value::Null);
    assert_eq!(read(&all)["data"][0]["id"], json!(id));
    assert_eq!(ask(&run, "DELETE", "backfill", &plain).0, 200);
}

/// What one connection does to the schedule is its own, and a message that comes twice begins one.
#[test]
fn the_schedule_begins_one_for_each_live_connection() {
    let mut run = kept();
    let unreadable = keys::connection(&merchant(), &"con_unreadable".parse().unwrap());
    let write = Write::put(unreadable, Condition::Absent, &json!({})).unwrap();
    alone(run.world.memory.write(write)).unwrap();
    for _ in 0..2 {
        assert_eq!(alone(reconcile::plan(&run.ctx)).unwrap(), 1);
        work(&mut run, None);
        let all = alone(reconcile::list(&run.ctx, &run.connection(), 10)).unwrap();
        assert_eq!((all.len(), all[0].cause), (1, Cause::Schedule));
        assert_eq!(all[0].state, reconcile::State::Done);
    }
    run.world.advance(Duration::from_secs(86_400));
    alone(reconcile::plan(&run.ctx)).unwrap();
    work(&mut run, None);
    let all = alone(reconcile::list(&run.ctx, &run.connection(), 10)).unwrap();
    assert_eq!(all.len(), 2, "the next day");
}
