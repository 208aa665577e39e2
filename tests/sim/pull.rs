//! What somebody changes at the provider meets the ledger once and is decided as the merchant set it,
//! whoever dies meanwhile; and what we wrote ourselves comes back without an echo.

use crate::accounts;
use crate::books;
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::{Shop, Size};
use crate::world::{Bad, Chances, PUBLIC_URL, PULL_QUEUE, Planned, Stand, Tamper, Trouble};
use crate::world::{WEBHOOK_VERIFIER, World};
use axum::http;
use crossdock::engine::hooks;
use crossdock::engine::pull::{self, Pull, PullNotice};
use crossdock::engine::reconcile::{Decision, Reconciliation};
use crossdock::error::Code;
use crossdock::model::event::EventType;
use crossdock::model::ids::ConnectionId;
use crossdock::model::notice::{HookNotice, StoredEvent};
use crossdock::oauth::connection::{Connection, Entry, Happened, Health};
use crossdock::oauth::manage;
use crossdock::store::{Condition, Store, Table, Write, keys};
use crossdock::sync::changed::Changed;
use crossdock::sync::conflict::{Conflicts, Winner};
use crossdock::sync::push::{Link, LinkState};
use crossdock::sync::reconcile::{Class, Decided, Difference};
use futures::FutureExt;
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const BOOKS: [Books; 3] = [Books::Receipts, Books::Invoices, Books::Xero];

/// Which group of fields somebody changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edit {
    Amounts,
    Words,
}

const NOTE: &str = "Ring the bell twice";
const DAY: &str = "2026-01-03";

/// A merchant whose orders stand in the books.
pub fn sold(books: Books, seed: u64) -> Run {
    let mut run = Run::of(seed, books, |dice| Shop::sized(dice, Size::Large, books));
    for index in std::mem::take(&mut run.unsent) {
        run.whole(Job::Accept(vec![index]));
    }
    run.drain();
    assert_eq!(run.check(), Ok(()));
    run
}

fn set(run: &Run, books: Books, conflicts: Conflicts) {
    let invoices = (books == Books::Invoices).then_some("invoice");
    let settings = json!({ "orders_as": invoices, "conflicts": conflicts });
    let shown = accounts::set(run, settings).unwrap();
    assert_eq!(shown["settings"]["conflicts"], json!(conflicts));
    // One word of it that is wrong changes nothing.
    let wrong = json!({ "amounts": conflicts.amounts, "words": "nobody_wins" });
    let refusal = accounts::set(run, json!({ "conflicts": wrong })).unwrap_err();
    assert_eq!(refusal.code(), Code::ValidationFailed);
}

/// Read past the troubles of the store.
fn id(run: &Run) -> ConnectionId {
    let group = keys::connections(&merchant());
    let page = run.world.memory.list(&group, None, 1).now_or_never();
    let connection: Connection = page.unwrap().unwrap().items[0].read().unwrap();
    connection.id
}

pub fn notice(run: &Run) -> PullNotice {
    PullNotice {
        merchant_id: merchant(),
        connection_id: id(run),
        at: run.world.state().now,
        noted: false,
    }
}

/// What is on its way in the queue of pulls.
pub fn pulls(run: &Run) -> Vec<PullNotice> {
    let mut state = run.world.state();
    let (ours, rest) = std::mem::take(&mut state.sent)
        .into_iter()
        .partition(|(url, _)| url == PULL_QUEUE);
    state.sent = rest;
    let ours: Vec<(String, String)> = ours;
    let read = |(_, body): (String, String)| serde_json::from_str(&body).unwrap();
    ours.into_iter().map(read).collect()
}

/// Lets the schedule come once, and every message that follows of it.
pub fn pulled(run: &Run) {
    run.world.advance(Duration::from_secs(60));
    let mut open = vec![notice(run)];
    for _ in 0..200 {
        let Some(next) = open.pop() else {
            return;
        };
        match alone(pull::run(&run.ctx, &next)) {
            Ok(()) => run.world.advance(Duration::from_secs(2)),
            // What is sent away comes again when its time has come.
            Err(error) => {
                let wait = error.retry_after().expect("what failed for good");
                run.world.advance(wait + Duration::from_secs(1));
                open.push(next);
            }
        }
        open.extend(pulls(run));
    }
    panic!("it does not end");
}

/// Everything that was ever told of changes over there, in order of the rows.
pub fn told(run: &Run) -> Vec<Value> {
    let memory = &run.world.memory;
    let page = memory.scan(Table::Records, None, 10_000);
    let items = page.now_or_never().unwrap().unwrap().items;
    let events = items
        .iter()
        .filter_map(|item| item.read::<StoredEvent>().ok());
    let changes = events.filter(|event| event.kind == EventType::RecordChanged);
    changes.map(|event| event.data).collect()
}

fn link(run: &Run, kind: &str, row: &str) -> Link {
    let key = keys::link(&merchant(), &id(run), kind, row);
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.expect("a row").read().unwrap()
}

fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    all.as_array().unwrap().clone()
}

/// A call of somebody else at QuickBooks.
fn at_quickbooks(run: &Run, path: &str, body: &Value) -> Value {
    let token = alone(run.world.control("POST", "grants", "{}"))["access_token"].clone();
    let request = http::Request::post(format!("/v3/company/{DEFAULT_REALM}/{path}"))
        .header(
            "authorization",
            format!("Bearer {}", token.as_str().unwrap()),
        )
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    let answer = alone(run.world.vendor.handle(request)).unwrap();
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(answer.status(), 200, "{path}: {body}");
    body
}

const fn order_entity(books: Books) -> &'static str {
    match books {
        Books::Receipts => "SalesReceipt",
        Books::Invoices => "Invoice",
        Books::Xero => "Invoices",
    }
}

/// An order that stands in the books and can still be changed there, with its document.
pub fn document(run: &Run, books: Books) -> Option<(String, Value)> {
    let all = entities(run, order_entity(books)).into_iter();
    let mut open = all.filter(|one| books != Books::Xero || one["Status"] == "AUTHORISED");
    let one = open.find(|one| {
        let paid = one["Payments"].as_array();
        paid.is_none_or(Vec::is_empty)
    })?;
    let number = one["DocNumber"].as_str().or(one["InvoiceNumber"].as_str());
    Some((number.unwrap().to_owned(), one))
}

/// Somebody changes a document there.
pub fn edit(run: &Run, books: Books, one: &Value, edit: Edit) {
    run.world.advance(Duration::from_secs(30));
    match books {
        Books::Xero => {
            let change = match edit {
                Edit::Amounts => json!({ "Date": DAY }),
                Edit::Words => json!({ "Reference": NOTE }),
            };
            let mut body = change;
            body["InvoiceID"] = one["InvoiceID"].clone();
            let body = body.to_string();
            let answer = run.world.control("POST", "entities/Invoices", &body);
            alone(answer);
        }
        Books::Receipts | Books::Invoices => {
            let mut body = one.clone();
            match edit {
                Edit::Amounts => body["TxnDate"] = json!(DAY),
                Edit::Words => body["PrivateNote"] = json!(NOTE),
            }
            at_quickbooks(run, &order_entity(books).to_lowercase(), &body);
        }
    }
}

/// What stands there of the order with this number.
pub fn stands(run: &Run, books: Books, number: &str) -> Value {
    let mut all = entities(run, order_entity(books)).into_iter();
    let numbered = |one: &Value| one["DocNumber"] == number || one["InvoiceNumber"] == number;
    all.find(numbered).expect("it stands there")
}

pub fn has(one: &Value, books: Books, edit: Edit) -> bool {
    match (books, edit) {
        (Books::Xero, Edit::Amounts) => one["DateString"].as_str().unwrap().starts_with(DAY),
        (Books::Xero, Edit::Words) => one["Reference"] == NOTE,
        (_, Edit::Amounts) => one["TxnDate"] == DAY,
        (_, Edit::Words) => one["PrivateNote"] == NOTE,
    }
}

/// A seed whose shop has an order that can be changed there.
fn seeds(books: Books) -> impl Iterator<Item = (Run, String, Value)> {
    (1..60).filter_map(move |seed| {
        let run = sold(books, seed);
        let (number, one) = document(&run, books)?;
        Some((run, number, one))
    })
}

#[test]
fn our_own_writes_come_back_without_an_echo() {
    for books in BOOKS {
        let mut run = sold(books, 5);
        for _ in 0..3 {
            let calls = run.world.state().net_calls;
            pulled(&run);
            assert_eq!(told(&run), Vec::<Value>::new(), "{books:?}");
            let calls = run.world.state().net_calls - calls;
            let most = if books == Books::Xero { 7 } else { 1 };
            assert!(calls <= most, "{books:?}: {calls} calls");
            run.drain();
            assert_eq!(run.check(), Ok(()), "{books:?}");
        }
    }
}

#[test]
fn a_change_there_is_decided_as_the_merchant_set_it() {
    for books in BOOKS {
        for winner in Winner::ALL {
            for change in [Edit::Amounts, Edit::Words] {
                let (mut run, number, one) = seeds(books).next().expect("a seed");
                pulled(&run);
                let conflicts = Conflicts {
                    amounts: winner,
                    words: winner,
                };
                set(&run, books, conflicts);
                edit(&run, books, &one, change);
                for _ in 0..3 {
                    pulled(&run);
                    run.drain();
                }
                let what = format!("{books:?} {winner:?} {change:?}");
                let told = told(&run);
                assert_eq!(told.len(), 1, "{what}: {told:?}");
                // Nothing of the shop is on its way, so that the provider's is newer.
                let theirs = winner != Winner::ShopWins;
                let outcome = if theirs { "provider_wins" } else { "shop_wins" };
                assert_eq!(told[0]["outcome"], outcome, "{what}: {told:?}");
                let group = match change {
                    Edit::Amounts => "amounts",
                    Edit::Words => "words",
                };
                assert_eq!(told[0]["fields"], json!([group]), "{what}");
                assert_eq!(told[0]["record"]["type"], "order", "{what}");
                let there = stands(&run, books, &number);
                assert_eq!(has(&there, books, change), theirs, "{what}: {there}");
                let id = told[0]["record"]["id"].as_str().unwrap();
                assert_eq!(link(&run, "order", id).state, LinkState::Synced, "{what}");
                if !theirs {
                    assert_eq!(run.check(), Ok(()), "{what}");
                }
                // It is quiet from here on.
                let calls = run.world.state().net_calls;
                pulled(&run);
                run.drain();
                let calls = run.world.state().net_calls - calls;
                let most = if books == Books::Xero { 7 } else { 1 };
                assert!(calls <= most, "{what}: {calls} calls at rest");
            }
        }
    }
}

/// Takes a document away.
fn take_away(run: &Run, entity: &str, one: &Value, void: bool) {
    run.world.advance(Duration::from_secs(30));
    if entity == "Invoices" {
        let path = format!("entities/{entity}/{}", one["InvoiceID"].as_str().unwrap());
        alone(run.world.control("DELETE", &path, ""));
        return;
    }
    let how = match void {
        false => "operation=delete",
        true => "operation=update&include=void",
    };
    let body = json!({ "Id": one["Id"], "SyncToken": one["SyncToken"] });
    at_quickbooks(run, &format!("{}?{how}", entity.to_lowercase()), &body);
}

/// The differences of the days on which anything was sold that wait for a decision.
pub fn open_differences(run: &mut Run) -> (Reconciliation, Vec<Difference>) {
    let day = |number| chrono::NaiveDate::from_ymd_opt(2026, 1, number).unwrap();
    let (at, _, differences) = books::compare_all(run, day(1), day(3));
    let open = |one: &Difference| one.decided == Decided::Open;
    (at, differences.into_iter().filter(open).collect())
}

/// Somebody decides that what was taken away is to stand there: it is made anew, and known from then on.
/// What is void is still shown, so the check of all books is for what was deleted.
fn made_anew(run: &mut Run, kind: &str, record: &str, what: &str) {
    let before = link(run, kind, record).remote.unwrap();
    let (at, differences) = open_differences(run);
    let of_it = |one: &&Difference| one.record.as_ref().unwrap().id == record;
    let lost = differences.iter().find(of_it).expect("it is missing");
    assert_eq!(lost.class, Class::Missing, "{what}: {lost:?}");
    books::decide(run, &at, lost, Decision::Repair);
    books::work(run, None);
    let row = link(run, kind, record);
    assert_eq!(row.state, LinkState::Synced, "{what}: {row:?}");
    assert_eq!(row.gone, None, "{what}");
    let after = row.remote.unwrap();
    assert_ne!(after.id, before.id, "{what}");
    // What hung on it, such as the payments of an invoice, follows when it is decided as well.
    let (at, rest) = open_differences(run);
    for one in &rest {
        books::decide(run, &at, one, Decision::Repair);
    }
    books::work(run, None);
    pulled(run);
    run.drain();
    assert_eq!(link(run, kind, record).remote.unwrap().id, after.id);
    if !what.ends_with("true") {
        assert_eq!(run.check(), Ok(()), "{what}");
    }
    let (_, rest) = open_differences(run);
    assert_eq!(rest, [], "{what}");
}

#[test]
fn what_is_taken_away_there_is_shown_and_never_made_again() {
    for (books, entity, kind, void) in [
        (Books::Receipts, "SalesReceipt", "order", false),
        (Books::Receipts, "SalesReceipt", "order", true),
        (Books::Receipts, "RefundReceipt", "refund", false),
        (Books::Invoices, "Payment", "payment", false),
        (Books::Invoices, "Payment", "payment", true),
        (Books::Xero, "Invoices", "order", true),
    ] {
        let what = format!("{books:?}, {entity}, void: {void}");
        let mut found = (1..60).filter_map(|seed| {
            let run = sold(books, seed);
            let one = match books {
                Books::Xero => document(&run, books)?.1,
                _ => entities(&run, entity).pop()?,
            };
            Some((run, one))
        });
        let (mut run, one) = found.next().expect("a seed");
        pulled(&run);
        take_away(&run, entity, &one, void);
        let before = entities(&run, entity).len();
        pulled(&run);
        let told = told(&run);
        assert_eq!(told.len(), 1, "{what}: {told:?}");
        let word = if void { "voided" } else { "deleted" };
        assert_eq!(
            (&told[0]["what"], &told[0]["outcome"]),
            (&json!(word), &json!("parked")),
            "{what}"
        );
        assert_eq!(told[0]["record"]["type"], kind, "{what}");
        let record = told[0]["record"]["id"].as_str().unwrap().to_owned();
        let code = format!("{word}_there");
        let is_parked = |run: &Run| {
            let row = link(run, kind, &record);
            assert_eq!(row.state, LinkState::Parked, "{what}: {row:?}");
            assert_eq!(row.problem.unwrap().code, code, "{what}");
        };
        is_parked(&run);
        // The event itself, a doubled message and a resync bring the record up again.
        for _ in 0..3 {
            run.drain();
            run.whole(Job::Resync);
            run.drain();
            pulled(&run);
            is_parked(&run);
        }
        assert_eq!(entities(&run, entity).len(), before, "{what}");
        assert_eq!(self::told(&run).len(), 1, "{what}: it is told once");
        made_anew(&mut run, kind, &record, &what);
    }
}

/// What must hold at rest after one edit of an order's document.
fn settled(run: &mut Run, books: Books, number: &str, change: Edit, winner: Winner) {
    for _ in 0..3 {
        pulled(run);
        run.drain();
    }
    let told = told(run);
    assert_eq!(told.len(), 1, "{told:?}");
    let there = stands(run, books, number);
    let theirs = winner == Winner::ProviderWins;
    assert_eq!(has(&there, books, change), theirs, "{there}");
    if !theirs {
        assert_eq!(run.check(), Ok(()));
    }
    let key = keys::all_changed(&merchant(), &id(run));
    let notes = run.world.memory.list(&key, None, 10).now_or_never();
    assert!(notes.unwrap().unwrap().items.is_empty(), "a note is left");
}

fn explained(run: &mut Run, name: &str, act: impl FnOnce(&mut Run)) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(run))) {
        println!("{}", run.story());
        println!("{name}");
        std::panic::resume_unwind(panic);
    }
}

/// Polls a pull at most `polls` times; whether it ended.
fn pulled_for(run: &Run, polls: usize) -> bool {
    let notice = notice(run);
    let mut future = Box::pin(pull::run(&run.ctx, &notice));
    for _ in 0..polls {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(_done) = future.as_mut().poll(&mut context) {
            return true;
        }
    }
    false
}

fn health(run: &Run) -> Health {
    let key = keys::connection_health(&merchant(), &run.connection().id);
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

/// A consent that does not reach as far, say: what else changed is read all the same.
#[test]
fn a_stream_that_is_refused_stops_no_other_and_is_shown() {
    for books in [Books::Invoices, Books::Xero] {
        let (run, _, _) = seeds(books).next().expect("a seed");
        pulled(&run);
        run.world.state().calls.clear();
        pulled(&run);
        let calls = std::mem::take(&mut run.world.state().calls);
        let calls: Vec<String> = calls
            .into_iter()
            .filter(|one| one.starts_with("GET"))
            .collect();
        let read = || {
            let key = keys::pull(&merchant(), &run.connection().id);
            let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
            let pull: Pull = item.unwrap().read().unwrap();
            pull.streams
        };
        assert_eq!(calls.len(), read().len(), "{calls:?}");
        for call in calls {
            run.world.advance(Duration::from_secs(60));
            let before = read();
            run.world.state().tamper = Some(Tamper {
                call: call.clone(),
                bad: Bad::Refused,
                times: u64::MAX,
            });
            let refused = alone(pull::run(&run.ctx, &notice(&run)));
            run.world.state().tamper = None;
            assert!(refused.is_err(), "{call}");
            let after = read();
            let still = before
                .iter()
                .filter(|(name, stream)| after[*name].read_at == stream.read_at);
            assert_eq!(still.count(), 1, "{call}");
            let failure = health(&run).last_failure.expect("it is shown");
            assert_eq!(failure.at, run.world.state().now, "{call}: {failure:?}");
        }
    }
}

#[test]
fn a_reader_that_dies_at_any_step_loses_nothing_and_doubles_nothing() {
    for (books, change, winner) in [
        (Books::Receipts, Edit::Amounts, Winner::ShopWins),
        (Books::Receipts, Edit::Words, Winner::ProviderWins),
        (Books::Xero, Edit::Amounts, Winner::ProviderWins),
    ] {
        for polls in 0.. {
            let (mut run, number, one) = seeds(books).next().expect("a seed");
            pulled(&run);
            let conflicts = Conflicts {
                amounts: winner,
                words: winner,
            };
            set(&run, books, conflicts);
            edit(&run, books, &one, change);
            let ended = pulled_for(&run, polls);
            let name = format!("{books:?} {change:?} {winner:?}: death after {polls} polls");
            explained(&mut run, &name, |run| {
                settled(run, books, &number, change, winner)
            });
            if ended {
                assert!(polls > 10, "there is nothing to die in");
                break;
            }
        }
    }
}

#[test]
fn a_call_of_the_reader_that_fails_is_made_good() {
    let (books, change, winner) = (Books::Invoices, Edit::Amounts, Winner::ShopWins);
    let troubles = [
        (true, Trouble::Before),
        (true, Trouble::After),
        (true, Trouble::Contended),
        (false, Trouble::Before),
        (false, Trouble::After),
        (false, Trouble::HalfBody),
        (false, Trouble::StatusAfter),
        (false, Trouble::Throttled),
        (false, Trouble::TokensExpire),
    ];
    for (in_store, trouble) in troubles {
        for at in 1.. {
            let (mut run, number, one) = seeds(books).next().expect("a seed");
            pulled(&run);
            let conflicts = Conflicts {
                amounts: winner,
                words: winner,
            };
            set(&run, books, conflicts);
            edit(&run, books, &one, change);
            {
                let mut state = run.world.state();
                (state.store_calls, state.net_calls) = (0, 0);
                let planned = Some(Planned { at, trouble });
                match in_store {
                    true => state.store_plan = planned,
                    false => state.net_plan = planned,
                }
            }
            let notice = notice(&run);
            let _ = alone(pull::run(&run.ctx, &notice));
            let made = {
                let mut state = run.world.state();
                (state.store_plan, state.net_plan) = (None, None);
                if in_store {
                    state.store_calls
                } else {
                    state.net_calls
                }
            };
            let name = format!("{trouble:?} at call {at}, store: {in_store}");
            explained(&mut run, &name, |run| {
                settled(run, books, &number, change, winner)
            });
            if made < at {
                break;
            }
        }
    }
}

/// A second worker reads while the first stands still after any step.
#[test]
fn two_readers_at_once_tell_it_once() {
    let (books, change, winner) = (Books::Receipts, Edit::Amounts, Winner::ShopWins);
    for polls in 0.. {
        let (mut run, number, one) = seeds(books).next().expect("a seed");
        pulled(&run);
        edit(&run, books, &one, change);
        let first = notice(&run);
        let ended = {
            let ctx = run.ctx.clone();
            let mut slow = Box::pin(pull::run(&ctx, &first));
            let mut ended = false;
            for _ in 0..polls {
                let mut context = Context::from_waker(Waker::noop());
                ended = slow.as_mut().poll(&mut context).is_ready();
                if ended {
                    break;
                }
            }
            pulled(&run);
            run.drain();
            if !ended {
                let _ = alone(slow);
            }
            ended
        };
        let name = format!("the other after {polls} polls");
        explained(&mut run, &name, |run| {
            settled(run, books, &number, change, winner)
        });
        if ended {
            assert!(polls > 10, "there is nothing to stop in");
            break;
        }
    }
}

fn history(run: &Run) -> Vec<String> {
    let group = keys::connection_history(&merchant(), &id(run));
    let page = run.world.memory.list(&group, None, 1000).now_or_never();
    let entries = page.unwrap().unwrap().items;
    let entries = entries.iter().map(|item| item.read::<Entry>().unwrap());
    let compares = entries.filter(|entry| entry.what == Happened::FullCompare);
    compares.map(|entry| entry.detail).collect()
}

fn cursor(run: &Run) -> Pull {
    let key = keys::pull(&merchant(), &id(run));
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.expect("it was read").read().unwrap()
}

#[test]
fn what_the_provider_no_longer_tells_of_is_compared() {
    let books = Books::Receipts;
    let (mut run, number, one) = seeds(books).next().expect("a seed");
    pulled(&run);
    assert_eq!(history(&run), Vec::<String>::new());
    edit(&run, books, &one, Edit::Amounts);
    run.world.advance(Duration::from_secs(40 * 24 * 3600));
    settled(&mut run, books, &number, Edit::Amounts, Winner::ShopWins);
    let said = history(&run);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("longer than the provider"), "{said:?}");
    assert!(said[1].contains("were read and compared"), "{said:?}");
    assert!(cursor(&run).compared_at.is_some());
}

#[test]
fn more_changes_than_an_answer_holds_are_compared() {
    let books = Books::Receipts;
    let (mut run, number, one) = seeds(books).next().expect("a seed");
    pulled(&run);
    for number in 0..1001 {
        let name = format!("Somebody {number}");
        let body = json!({ "DisplayName": name, "Notes": name });
        at_quickbooks(&run, "customer", &body);
    }
    run.world.advance(Duration::from_secs(600));
    edit(&run, books, &one, Edit::Amounts);
    run.world.advance(Duration::from_secs(600));
    settled(&mut run, books, &number, Edit::Amounts, Winner::ShopWins);
    let said = history(&run);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("more changed than"), "{said:?}");
}

/// The second page begins with a contact of ours; while the first is read, one of it changes and moves to
/// the end. Had the pages been counted, ours would have moved to the first one unseen.
#[test]
fn pages_that_change_under_the_reader_leave_nothing_out() {
    let contacts = |run: &Run| entities(run, "Contacts");
    let ours = |run: &Run| {
        let mut all = contacts(run).into_iter();
        all.find(|one| {
            one["ContactNumber"]
                .as_str()
                .is_some_and(|id| id.starts_with("c-"))
        })
    };
    let mut found = (1..60).map(|seed| sold(Books::Xero, seed));
    let run = found.find(|run| ours(run).is_some()).expect("a seed");
    run.world.advance(Duration::from_secs(3600));
    pulled(&run);
    let keep = |run: &Run, body: &Value| {
        run.world.advance(Duration::from_secs(2));
        let body = body.to_string();
        alone(run.world.control("POST", "entities/Contacts", &body))
    };
    let mut others = Vec::new();
    for number in 0..200 {
        others.push(keep(&run, &json!({ "Name": format!("Somebody {number}") })));
    }
    let id = ours(&run).unwrap()["ContactID"].clone();
    keep(&run, &json!({ "ContactID": id, "Name": "Another name" }));
    for number in 200..350 {
        keep(&run, &json!({ "Name": format!("Somebody {number}") }));
    }
    run.world.advance(Duration::from_secs(60));
    let notice = notice(&run);
    let mut reading = Box::pin(pull::run(&run.ctx, &notice));
    let at = |run: &Run| cursor(run).streams["contact"].since;
    let before = at(&run);
    loop {
        let mut context = Context::from_waker(Waker::noop());
        match reading.as_mut().poll(&mut context) {
            Poll::Ready(done) => panic!("there was one page: {done:?}"),
            Poll::Pending if at(&run) != before => break,
            Poll::Pending => {}
        }
    }
    let first = json!({ "ContactID": others[0]["ContactID"], "Name": "Moved to the end" });
    keep(&run, &first);
    alone(reading).unwrap();
    let told = told(&run);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["record"]["type"], "customer");
    assert_eq!(told[0]["outcome"], "provider_wins");
    assert_eq!(cursor(&run).compare, None);
}

/// A person changes what a push has just made and not yet written down.
#[test]
fn an_edit_of_what_is_not_concluded_is_found_later() {
    for polls in 1.. {
        let mut run = Run::new(3, Shop::one_sale);
        for index in std::mem::take(&mut run.unsent) {
            run.whole(Job::Accept(vec![index]));
        }
        run.publish_all();
        let notices = run.receive_all();
        let ended = run.begin(Job::Push(notices), polls);
        let made = entities(&run, "SalesReceipt").pop();
        let Some(one) = made else {
            assert!(!ended, "nothing was ever made");
            continue;
        };
        if ended {
            assert!(polls > 10);
            break;
        }
        edit(&run, Books::Receipts, &one, Edit::Amounts);
        pulled(&run);
        // The worker is dead, and the message comes again.
        run.crash(0);
        let name = format!("an edit after {polls} polls of a push");
        explained(&mut run, &name, |run| {
            run.drain();
            for _ in 0..3 {
                pulled(run);
                run.drain();
            }
            assert_eq!(told(run).len(), 1, "{:?}", told(run));
            assert_eq!(run.check(), Ok(()));
            let there = entities(run, "SalesReceipt").pop().unwrap();
            assert!(!has(&there, Books::Receipts, Edit::Amounts), "{there}");
        });
    }
}

/// The shop changes an order while somebody else does the same over there, at any step of the push.
#[test]
fn an_edit_meets_a_push_at_any_step() {
    for (winner, polls) in [Winner::ShopWins, Winner::ProviderWins]
        .into_iter()
        .flat_map(|winner| (0..60).map(move |polls| (winner, polls)))
    {
        let mut run = Run::new(42, Shop::one_order);
        for index in [0, 1] {
            run.unsent.retain(|one| *one != index);
            run.whole(Job::Accept(vec![index]));
        }
        run.relay_and_push();
        pulled(&run);
        let conflicts = Conflicts {
            amounts: winner,
            words: winner,
        };
        set(&run, Books::Receipts, conflicts);
        run.unsent.retain(|one| *one != 2);
        run.whole(Job::Accept(vec![2]));
        run.publish_all();
        let notices = run.receive_all();
        let ended = run.begin(Job::Push(notices), polls);
        let one = entities(&run, "SalesReceipt").pop().unwrap();
        edit(&run, Books::Receipts, &one, Edit::Amounts);
        pulled(&run);
        let name = format!("{winner:?}: an edit after {polls} polls of an update");
        explained(&mut run, &name, |run| {
            for index in [3, 4] {
                run.unsent.retain(|one| *one != index);
                run.beside(Job::Accept(vec![index]));
            }
            run.drain();
            for _ in 0..3 {
                pulled(run);
                run.drain();
            }
            let told = told(run);
            assert_eq!(told.len(), 1, "{told:?}");
            let there = entities(run, "SalesReceipt").pop().unwrap();
            let theirs = winner == Winner::ProviderWins;
            assert_eq!(
                has(&there, Books::Receipts, Edit::Amounts),
                theirs,
                "{there}"
            );
            match theirs {
                false => assert_eq!(run.check(), Ok(())),
                true => {
                    let row = link(run, "order", "1001");
                    let code = row.problem.map(|problem| problem.code);
                    let same = row.state == LinkState::Synced;
                    let parked = code.as_deref() == Some("kept_as_there");
                    assert!(same || parked, "{code:?}");
                }
            }
        });
        if ended && polls > 0 {
            break;
        }
    }
}

/// The shop says that it changed the order at ten; somebody did the same over there before or after that.
#[test]
fn the_newest_wins_when_both_changed() {
    for hours in [1, 12] {
        let mut run = Run::new(42, Shop::one_order);
        for index in [0, 1] {
            run.unsent.retain(|one| *one != index);
            run.whole(Job::Accept(vec![index]));
        }
        run.relay_and_push();
        pulled(&run);
        let conflicts = Conflicts {
            amounts: Winner::NewestWins,
            words: Winner::NewestWins,
        };
        set(&run, Books::Receipts, conflicts);
        run.world.advance(Duration::from_secs(hours * 3600));
        let one = entities(&run, "SalesReceipt").pop().unwrap();
        edit(&run, Books::Receipts, &one, Edit::Amounts);
        run.unsent.retain(|one| *one != 2);
        run.whole(Job::Accept(vec![2]));
        run.relay_and_push();
        let theirs = hours == 12;
        explained(&mut run, &format!("{hours} o'clock"), |run| {
            for _ in 0..2 {
                let told = told(run);
                assert_eq!(told.len(), 1, "{told:?}");
                let outcome = if theirs { "provider_wins" } else { "shop_wins" };
                assert_eq!(told[0]["outcome"], outcome);
                let there = entities(run, "SalesReceipt").pop().unwrap();
                assert_eq!(
                    has(&there, Books::Receipts, Edit::Amounts),
                    theirs,
                    "{there}"
                );
                assert_eq!(link(run, "order", "1001").state, LinkState::Synced);
                pulled(run);
                run.relay_and_push();
            }
        });
    }
}

/// Sends what QuickBooks tells by webhook, some of it twice and in another order.
fn hooked(run: &Run) {
    let Stand::Quickbooks(vendor) = &run.world.vendor else {
        return;
    };
    let mut requests = vendor.webhooks();
    if run.per_mille(500) {
        requests.reverse();
    }
    let copies = 1 + run.below(2);
    let chances = std::mem::take(&mut run.world.state().chances);
    for request in requests
        .iter()
        .flat_map(|one| std::iter::repeat_n(one, copies))
    {
        let notice = HookNotice {
            provider: "quickbooks".to_owned(),
            received_at: run.world.state().now,
            event: None,
            body: String::from_utf8(request.body().clone()).unwrap(),
        };
        alone(hooks::apply(&run.ctx, &notice)).unwrap();
    }
    run.world.state().chances = chances;
}

fn listen(world: &World) {
    let target = json!({
        "url": format!("{PUBLIC_URL}/hooks/quickbooks/x"), "verifier": WEBHOOK_VERIFIER,
    });
    if let Stand::Quickbooks(_) = world.vendor {
        alone(world.control("POST", "webhooks", &target.to_string()));
    }
}

/// Orders change here and there at once while everything fails that can.
fn random(seed: u64, books: Books, winner: Winner) {
    let mut run = Run::of(seed, books, |dice| Shop::sized(dice, Size::Large, books));
    let conflicts = Conflicts {
        amounts: winner,
        words: winner,
    };
    set(&run, books, conflicts);
    listen(&run.world);
    let name = format!("CROSSDOCK_SEED={seed} CROSSDOCK_RUNS=1 {books:?} {winner:?}");
    let mut edits = 0;
    explained(&mut run, &name, |run| {
        let dice = |most: u64| run.below(usize::try_from(most).unwrap()) as u64;
        let chances = Chances {
            store: dice(40),
            net: dice(200),
            bus: dice(150),
        };
        let crashes = dice(20);
        run.world.state().chances = chances;
        for _ in 0..1500 {
            run.turn(crashes, true);
            if run.per_mille(15)
                && let Some((_, one)) = document(run, books)
            {
                let words = books != Books::Xero && run.per_mille(400);
                let change = if words { Edit::Words } else { Edit::Amounts };
                if !has(&one, books, change) {
                    edits += 1;
                    edit(run, books, &one, change);
                }
            }
            if run.per_mille(30) {
                hooked(run);
            }
            if run.per_mille(10) {
                // Two workers now and then.
                for _ in 0..=run.below(2) {
                    run.pull_later(&notice(run));
                }
            }
        }
        run.drain();
        hooked(run);
        for _ in 0..4 {
            run.drain();
            pulled(run);
        }
        run.drain();
        let told = told(run);
        assert!(told.len() <= edits, "{} edits, and told {told:?}", edits);
        let calls = run.world.state().net_calls;
        pulled(run);
        run.drain();
        let calls = run.world.state().net_calls - calls;
        // The lists, and now and then a token.
        assert!(calls <= 8, "{calls} calls at rest");
        assert!(self::told(run).len() == told.len(), "it is not at rest");
        for one in entities(run, order_entity(books)) {
            let edited = has(&one, books, Edit::Amounts) || has(&one, books, Edit::Words);
            assert!(winner != Winner::ShopWins || !edited, "{one}");
        }
        if winner == Winner::ShopWins {
            assert_eq!(run.check(), Ok(()));
        }
    });
    assert!(edits < 1000, "{edits}");
}

#[test]
fn whatever_happens_both_sides_agree_in_the_end() {
    let (first, runs) = (
        crate::number("CROSSDOCK_SEED", 1),
        crate::number("CROSSDOCK_RUNS", 40),
    );
    for seed in first..first + runs {
        random(seed, Books::Receipts, Winner::ShopWins);
        random(seed, Books::Invoices, Winner::ShopWins);
        random(seed, Books::Receipts, Winner::ProviderWins);
        random(seed, Books::Xero, Winner::ProviderWins);
    }
}

#[test]
fn a_webhook_wakes_the_reader_and_its_note_goes_away() {
    let books = Books::Receipts;
    let (mut run, number, one) = seeds(books).next().expect("a seed");
    pulled(&run);
    listen(&run.world);
    edit(&run, books, &one, Edit::Amounts);
    hooked(&run);
    let notes = |run: &Run| {
        let group = keys::all_changed(&merchant(), &id(run));
        let page = run.world.memory.list(&group, None, 10).now_or_never();
        let items = page.unwrap().unwrap().items;
        let notes = items.iter().map(|item| item.read::<Changed>().unwrap().id);
        notes.collect::<Vec<_>>()
    };
    assert_eq!(notes(&run).len(), 1);
    let woken = pulls(&run);
    assert!(!woken.is_empty() && woken.iter().all(|one| one.noted));
    run.world.advance(Duration::from_secs(5));
    for notice in &woken {
        alone(pull::run(&run.ctx, notice)).unwrap();
    }
    assert_eq!(notes(&run), Vec::<String>::new());
    assert_eq!(told(&run).len(), 1);
    // Those behind it find all read.
    let calls = run.world.state().net_calls;
    alone(pull::run(&run.ctx, &woken[0])).unwrap();
    assert_eq!(run.world.state().net_calls, calls);
    run.drain();
    settled(&mut run, books, &number, Edit::Amounts, Winner::ShopWins);
}

#[test]
fn the_schedule_comes_to_each_live_connection_once_in_its_time() {
    let run = sold(Books::Receipts, 5);
    let round = |run: &Run| {
        let mut woken = 0;
        for _ in 0..connection_slots() {
            alone(pull::plan(&run.ctx)).unwrap();
            woken += pulls(run).len();
            run.world.advance(Duration::from_secs(60));
        }
        woken
    };
    assert_eq!((round(&run), round(&run)), (1, 1));
    let id = id(&run);
    alone(manage::pause(&run.ctx, &merchant(), &id)).unwrap();
    assert_eq!(round(&run), 0, "it is paused");
    alone(manage::resume(&run.ctx, &merchant(), &id)).unwrap();
    assert_eq!(round(&run), 1);
    let off = run.world.ctx_with(&[("ENABLE_ACCOUNTING_SYNC", "false")]);
    assert_eq!(alone(pull::plan(&off)).unwrap(), 0);
}

/// Before there was a schedule, nothing was written when a connection went live.
#[test]
fn a_connection_of_before_there_was_a_schedule_is_found() {
    let run = sold(Books::Receipts, 5);
    let rows = |run: &Run| {
        let group = |slot| keys::pulled(slot);
        let list = |slot| run.world.memory.list(&group(slot), None, 10).now_or_never();
        let each = (0..connection_slots()).flat_map(|slot| list(slot).unwrap().unwrap().items);
        each.collect::<Vec<_>>()
    };
    let forget = |run: &Run| {
        for item in rows(run) {
            let (key, condition) = (item.key, Condition::Any);
            let gone = run.world.memory.write(Write::Delete { key, condition });
            gone.now_or_never().unwrap().unwrap();
        }
    };
    forget(&run);
    // A table with much else in it is walked in several pages.
    for number in 0..1000 {
        let key = keys::due_connection(number, &merchant(), &id(&run));
        let other = Write::put(key, Condition::Any, &json!({})).unwrap();
        run.world
            .memory
            .write(other)
            .now_or_never()
            .unwrap()
            .unwrap();
    }
    let mut minutes = 0;
    while rows(&run).is_empty() {
        alone(pull::plan(&run.ctx)).unwrap();
        minutes += 1;
        assert!(minutes <= 10, "it is not found");
    }
    let mut woken = 0;
    for _ in 0..connection_slots() {
        run.world.advance(Duration::from_secs(60));
        alone(pull::plan(&run.ctx)).unwrap();
        woken += pulls(&run).len();
    }
    assert_eq!(woken, 1);
    // Once all were looked at, the walk is over.
    forget(&run);
    alone(pull::plan(&run.ctx)).unwrap();
    assert_eq!(rows(&run), []);
    // One that is paused is none of these.
    let key = keys::pulled_walk();
    let condition = Condition::Any;
    alone(manage::pause(&run.ctx, &merchant(), &id(&run))).unwrap();
    let gone = run.world.memory.write(Write::Delete { key, condition });
    gone.now_or_never().unwrap().unwrap();
    for _ in 0..10 {
        alone(pull::plan(&run.ctx)).unwrap();
    }
    assert_eq!(rows(&run), []);
}

fn connection_slots() -> u8 {
    crossdock::oauth::connection::PULL_SLOTS
}

/// Somebody takes a customer out of use, or merges it into another: who buys again is a customer again.
/// (Xero's archived contacts are not made a second time, since they can be restored.)
#[test]
fn a_customer_that_was_taken_out_of_use_is_made_anew_when_it_buys() {
    let named = |event: &Value| {
        event["type"] == "order.created" && event["data"]["customer"]["id"].is_string()
    };
    let (mut run, event) = seeds(Books::Receipts)
        .find_map(|(mut run, _, _)| {
            let event = run.shop().events.iter().find(|event| named(event))?.clone();
            Some((run, event))
        })
        .expect("a seed");
    let buys = |run: &mut Run, id: &str| {
        let mut order = event.clone();
        order["id"] = json!(format!("{id}-order"));
        order["data"]["id"] = json!(id);
        order["data"]["number"] = json!(id);
        let mut payment = order.clone();
        payment["id"] = json!(format!("{id}-paid"));
        payment["type"] = json!("payment.processed");
        payment["data"] = json!({
            "id": "p-again", "order_id": id, "outcome": "succeeded", "method": "card",
            "amount": order["data"]["total"], "processed_at": order["data"]["placed_at"],
        });
        run.tell(order);
        run.tell(payment);
        run.drain();
        let all = entities(run, "SalesReceipt");
        let made = all.iter().find(|one| one["DocNumber"] == id);
        made.unwrap_or_else(|| panic!("no receipt of {id}"))["CustomerRef"]["value"].clone()
    };
    let before = buys(&mut run, "again-1");
    assert_eq!(buys(&mut run, "again-2"), before);
    run.world.advance(Duration::from_secs(60));
    let all = entities(&run, "Customer");
    let mut gone = all.into_iter().find(|one| one["Id"] == before).unwrap();
    gone["Active"] = json!(false);
    at_quickbooks(&run, "customer", &gone);
    pulled(&run);
    let after = buys(&mut run, "again-3");
    assert_ne!(after, before);
    assert_eq!(buys(&mut run, "again-4"), after);
}
