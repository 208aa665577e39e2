//! What somebody changes at the provider meets the ledger once and is decided as the merchant set it,
//! whoever dies meanwhile; and what we wrote ourselves comes back without an echo.

use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::Shop;
use crate::world::{Dice, HOOKS_QUEUE, PULL_QUEUE, Planned, Stand, Trouble, WEBHOOK_VERIFIER};
use axum::http;
use chrono::{DateTime, TimeDelta, Utc};
use crossdock::engine::pull::{self, PullNotice};
use crossdock::engine::{hooks, outbox, push};
use crossdock::model::event::EventType;
use crossdock::model::notice::{HookNotice, Notice, StoredEvent};
use crossdock::oauth::connection::{self, Happened, Settings};
use crossdock::oauth::manage;
use crossdock::store::{Condition, Store, Table, Write, keys, list_all};
use crossdock::sync::conflict::{Conflicts, Winner};
use crossdock::sync::push::{Form, Link, LinkState};
use futures::FutureExt;
use futures::future::BoxFuture;
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::{Value, json};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const BOOKS: [Books; 3] = [Books::Receipts, Books::Invoices, Books::Xero];

/// Which group of fields somebody changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edit {
    Amounts,
    Words,
}

const NOTE: &str = "Ring the bell twice";
const DAY: &str = "2026-01-03";

fn shop_of(books: Books) -> fn(&mut Dice) -> Shop {
    match books {
        Books::Receipts => Shop::random,
        Books::Invoices => Shop::of_invoices,
        Books::Xero => Shop::of_fixed_invoices,
    }
}

/// A merchant whose orders stand in the books.
fn sold(books: Books, seed: u64) -> Run {
    let mut run = Run::of(seed, books, shop_of(books));
    for index in std::mem::take(&mut run.unsent) {
        run.whole(Job::Accept(vec![index]));
    }
    run.drain();
    assert_eq!(run.check(), Ok(()));
    run
}

fn set(run: &Run, books: Books, conflicts: Conflicts) {
    let settings = Settings {
        orders_as: (books == Books::Invoices).then_some(Form::Invoice),
        conflicts,
        ..Settings::default()
    };
    let id = run.connection().id;
    alone(manage::set(&run.ctx, &merchant(), &id, settings)).unwrap();
}

fn notice(run: &Run) -> PullNotice {
    PullNotice {
        merchant_id: merchant(),
        connection_id: run.connection().id,
        at: run.world.state().now,
        noted: false,
    }
}

/// What is on its way in the queue of pulls.
fn pulls(run: &Run) -> Vec<PullNotice> {
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
fn pulled(run: &Run) {
    run.world.advance(Duration::from_secs(60));
    let mut open = vec![notice(run)];
    for _ in 0..200 {
        let Some(next) = open.pop() else {
            return;
        };
        alone(pull::run(&run.ctx, &next)).unwrap();
        run.world.advance(Duration::from_secs(2));
        open.extend(pulls(run));
    }
    panic!("it does not end");
}

/// Everything that was ever told of changes over there, in order of the rows.
fn told(run: &Run) -> Vec<Value> {
    let memory = &run.world.memory;
    let page = memory.scan(Table::Records, None, 10_000);
    let items = page.now_or_never().unwrap().unwrap().items;
    let events = items
        .iter()
        .filter_map(|item| item.read::<StoredEvent>().ok());
    let changes = events.filter(|event| event.kind == EventType::RecordChanged);
    changes.map(|event| event.data).collect()
}

fn link(run: &Run, kind: &str, id: &str) -> Link {
    let key = keys::link(&merchant(), &run.connection().id, kind, id);
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
        .header("authorization", format!("Bearer {}", token.as_str().unwrap()))
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
fn document(run: &Run, books: Books) -> Option<(String, Value)> {
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
fn edit(run: &Run, books: Books, one: &Value, edit: Edit) {
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
fn stands(run: &Run, books: Books, number: &str) -> Value {
    let mut all = entities(run, order_entity(books)).into_iter();
    let numbered = |one: &Value| one["DocNumber"] == number || one["InvoiceNumber"] == number;
    all.find(numbered).expect("it stands there")
}

fn has(one: &Value, books: Books, edit: Edit) -> bool {
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
            let most = if books == Books::Xero { 5 } else { 1 };
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
                let most = if books == Books::Xero { 5 } else { 1 };
                assert!(calls <= most, "{what}: {calls} calls at rest");
            }
        }
    }
}
