//! What processors keep and pay out, in the books: with a crash at each step, with what people do over
//! there, and with companies whose accounts do not fit.

use crate::books::{compare_all, decide, quickbooks, work};
use crate::judge;
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::{MERCHANT, Moved, Shop};
use chrono::NaiveDate;
use crossdock::engine::again::{self, Wanted};
use crossdock::engine::pull::PullNotice;
use crossdock::engine::reconcile::Decision;
use crossdock::oauth::connection::{self, Along, Happened, Settings};
use crossdock::oauth::manage;
use crossdock::providers::accounts::Role;
use crossdock::store::{Store, keys};
use crossdock::sync::push::{Link, LinkState, RowKind, RowRef};
use crossdock::sync::reconcile::{Class, Decided};
use futures::FutureExt;
use serde_json::{Value, json};

const SEED: u64 = 42;
const BOOKS: [Books; 2] = [Books::Receipts, Books::Xero];

fn day() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 1, 3).unwrap()
}

fn told(version: u64, charges: i64, fees: i64) -> Value {
    let money = |amount: i64| json!({ "amount": amount, "currency": "USD" });
    let data = json!({
        "id": "po", "version": version, "currency": "USD", "paid_at": "2026-01-03T23:00:00Z",
        "processor": "stripe", "charges": money(charges), "refunds": money(0), "fees": money(fees),
        "amount": money(charges - fees),
    });
    json!({
        "id": format!("po-{version}"), "type": "payout.paid", "merchant_id": MERCHANT,
        "occurred_at": "2026-01-03T23:00:00Z", "data": data,
    })
}

/// The shop tells of a payout, and it is pushed.
fn pay(run: &mut Run, version: u64, charges: i64, fees: i64) {
    run.tell(told(version, charges, fees));
    run.relay_and_push();
}

/// A shop with one payout of 100.00 with 3.00 of fees, which stands in its books.
fn paid(books: Books) -> Run {
    let mut run = Run::of(SEED, books, |_| Shop::default());
    run.relay_and_push();
    pay(&mut run, 1, 10_000, 300);
    run
}

fn link(run: &Run, kind: RowKind) -> Link {
    let key = keys::link(&merchant(), &run.connection().id, kind.as_str(), "po");
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

fn problem(run: &Run, kind: RowKind) -> String {
    let link = link(run, kind);
    assert_eq!(link.state, LinkState::Parked, "{link:?}");
    link.problem.unwrap().code
}

fn choose(run: &Run, accounts: &[(Role, &str)]) {
    let accounts = accounts.iter();
    let settings = Settings {
        accounts: accounts
            .map(|(role, id)| (*role, (*id).to_owned()))
            .collect(),
        ..Settings::default()
    };
    let id = run.connection().id;
    alone(manage::set(&run.ctx, &merchant(), &id, settings)).unwrap();
}

fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    all.as_array().unwrap().clone()
}

/// The id of an account by its name.
fn account(run: &Run, books: Books, name: &str) -> String {
    let (entity, id) = match books {
        Books::Xero => ("Accounts", "AccountID"),
        _ => ("Account", "Id"),
    };
    let all = entities(run, entity);
    let found = all.iter().find(|one| one["Name"] == name);
    found.unwrap()[id].as_str().unwrap().to_owned()
}

/// The totals of the documents of the payout and of its fees, and what they move.
fn expect(run: &mut Run, totals: [i64; 2], moved: &[(Moved, i64)]) {
    let expected = &mut run.shop().expected;
    let rows = totals.map(|total| {
        let rows = [("po".to_owned(), ("USD", total))].into_iter();
        rows.filter(|(_, (_, total))| *total != 0).collect()
    });
    [expected.payouts, expected.payout_fees] = rows;
    let moved = moved
        .iter()
        .map(|(account, amount)| ((*account, "USD"), *amount));
    expected.moved = moved.collect();
}

/// What the books show of a payout with these charges and fees, where the bank is another account.
fn expect_whole(run: &mut Run, books: Books, charges: i64, fees: i64) {
    let totals = match books {
        Books::Xero => [charges - fees, fees],
        _ => [charges, 0],
    };
    let moved = [
        (Moved::Bank, charges - fees),
        (Moved::Fees, fees),
        (Moved::Clearing, -charges),
    ];
    expect(run, totals, &moved);
}

#[test]
fn a_payout_survives_a_crash_at_any_step() {
    for books in BOOKS {
        let begun = || Run::of(SEED, books, |dice| Shop::paid_out(dice, books));
        let steps = begun().scripted(&[], true);
        for step in 1..=steps {
            let title = format!("{books:?}, death at step {step} of {steps}");
            judge(&title, &mut begun(), |run| {
                run.scripted(&[step], true);
                run.drain();
            });
        }
    }
}

#[test]
fn what_is_in_the_bank_at_once_leaves_the_fees_alone() {
    for books in BOOKS {
        let mut run = Run::of(SEED, books, |_| Shop::default());
        run.relay_and_push();
        let bank = match books {
            Books::Xero => "Business Bank Account",
            _ => "Checking",
        };
        let bank = account(&run, books, bank);
        choose(&run, &[(Role::Money, &bank), (Role::Payouts, &bank)]);
        pay(&mut run, 1, 10_000, 300);
        let (totals, on) = match books {
            Books::Xero => ([0, 300], Moved::Clearing),
            _ => ([10_000, 0], Moved::Bank),
        };
        expect(&mut run, totals, &[(on, -300), (Moved::Fees, 300)]);
        assert_eq!(run.check(), Ok(()), "{books:?}");
        let (_, sums, differences) = compare_all(&mut run, day(), day());
        assert_eq!((sums.len(), differences), (1, Vec::new()), "{books:?}");
        // Another account counts for what comes, and moves nothing of the past.
        choose(&run, &[]);
        let row = RowRef {
            kind: RowKind::Payout,
            id: "po".to_owned(),
        };
        let wanted = Wanted::Records(vec![row]);
        alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
        run.drain();
        assert_eq!(run.check(), Ok(()), "{books:?}");
        let (_, _, differences) = compare_all(&mut run, day(), day());
        assert_eq!(differences, [], "{books:?}");
    }
}

#[test]
fn a_transfer_that_is_no_longer_right_waits_for_a_hand_in_xero() {
    let mut run = paid(Books::Xero);
    pay(&mut run, 2, 12_000, 400);
    // The fees followed, and the transfer cannot.
    assert_eq!(problem(&run, RowKind::Payout), "fixed_there");
    assert_eq!(link(&run, RowKind::PayoutFees).state, LinkState::Synced);
    let (_, _, differences) = compare_all(&mut run, day(), day());
    let classes: Vec<_> = differences
        .iter()
        .map(|one| (one.class, one.decided))
        .collect();
    assert_eq!(classes, [(Class::ChangedHere, Decided::Open)]);
    // Taken back, it is right again.
    pay(&mut run, 3, 10_000, 300);
    expect_whole(&mut run, Books::Xero, 10_000, 300);
    assert_eq!(run.check(), Ok(()));
    pay(&mut run, 4, 12_000, 400);
    assert_eq!(problem(&run, RowKind::Payout), "fixed_there");
    // Somebody deletes it there, and has what is missing made anew.
    let transfers = entities(&run, "BankTransfers");
    let id = transfers[0]["BankTransferID"].as_str().unwrap();
    alone(
        run.world
            .control("DELETE", &format!("entities/BankTransfers/{id}"), ""),
    );
    pull(&mut run);
    assert_eq!(problem(&run, RowKind::Payout), "deleted_there");
    let (at, _, differences) = compare_all(&mut run, day(), day());
    let classes: Vec<_> = differences
        .iter()
        .map(|one| (one.class, one.decided))
        .collect();
    assert_eq!(classes, [(Class::Missing, Decided::Open)]);
    decide(&run, &at, &differences[0], Decision::Repair);
    work(&mut run, None);
    let (_, _, differences) = compare_all(&mut run, day(), day());
    assert_eq!(differences, []);
    let transfers = entities(&run, "BankTransfers");
    let stands = transfers.iter().filter(|one| one["Status"] == "AUTHORISED");
    let amounts: Vec<String> = stands.map(|one| one["Amount"].to_string()).collect();
    assert_eq!(amounts, ["116.0"]);
}

#[test]
fn fees_of_which_nothing_is_left_wait_for_a_hand_in_xero() {
    let mut run = paid(Books::Xero);
    pay(&mut run, 2, 9_700, 0);
    assert_eq!(problem(&run, RowKind::PayoutFees), "fixed_there");
    let detail = link(&run, RowKind::PayoutFees).problem.unwrap().detail;
    assert!(detail.contains("nothing left"), "{detail}");
    let spent = entities(&run, "BankTransactions");
    let spent = spent.iter().find(|one| one["Type"] == "SPEND").unwrap();
    let path = format!(
        "entities/BankTransactions/{}",
        spent["BankTransactionID"].as_str().unwrap()
    );
    alone(run.world.control("DELETE", &path, ""));
    pull(&mut run);
    let (_, _, differences) = compare_all(&mut run, day(), day());
    assert_eq!(differences, []);
}

fn pull(run: &mut Run) {
    run.world.advance(std::time::Duration::from_secs(400));
    let notice = PullNotice {
        merchant_id: merchant(),
        connection_id: run.connection().id,
        at: run.world.state().now,
        noted: false,
    };
    run.whole(Job::Pull(notice));
    run.drain();
}

#[test]
fn what_somebody_changes_there_is_written_again() {
    let mut run = paid(Books::Receipts);
    let mut entry = entities(&run, "JournalEntry").remove(0);
    for line in entry["Line"].as_array_mut().unwrap() {
        let detail = &line["JournalEntryLineDetail"];
        if detail["PostingType"] == "Credit" || detail["AccountRef"]["name"] == "Checking" {
            line["Amount"] = json!(line["Amount"].as_f64().unwrap() + 1.0);
        }
    }
    run.world.advance(std::time::Duration::from_secs(5));
    quickbooks(&run, "journalentry?minorversion=75", &entry);
    expect_whole(&mut run, Books::Receipts, 10_000, 300);
    assert!(run.check().is_err(), "it was changed");
    pull(&mut run);
    assert_eq!(run.check(), Ok(()));

    let mut run = paid(Books::Xero);
    let spent = entities(&run, "BankTransactions");
    let spent = spent.iter().find(|one| one["Type"] == "SPEND").unwrap();
    let line = json!({ "Description": "x", "UnitAmount": 7, "AccountCode": "404" });
    let change = json!({
        "BankTransactionID": spent["BankTransactionID"], "Type": "SPEND", "LineItems": [line],
    });
    run.world.advance(std::time::Duration::from_secs(5));
    alone(
        run.world
            .control("POST", "entities/BankTransactions", &change.to_string()),
    );
    expect_whole(&mut run, Books::Xero, 10_000, 300);
    assert!(run.check().is_err(), "it was changed");
    pull(&mut run);
    assert_eq!(run.check(), Ok(()));
}

#[test]
fn a_payout_without_accounts_is_parked_until_there_are_some() {
    for books in BOOKS {
        let mut run = Run::of(SEED, books, |_| Shop::default());
        run.relay_and_push();
        // A second account that payouts might reach.
        match books {
            Books::Xero => {
                let bank = json!({
                    "Code": "096", "Name": "Second", "Type": "BANK", "BankAccountNumber": "1",
                });
                alone(
                    run.world
                        .control("POST", "entities/Accounts", &bank.to_string()),
                );
            }
            _ => {
                let savings = json!({ "Name": "Savings", "AccountType": "Bank", "Active": true });
                let body = json!({ "accounts": [savings] }).to_string();
                alone(run.world.control("POST", "realms", &body));
            }
        }
        pay(&mut run, 1, 10_000, 300);
        assert_eq!(problem(&run, RowKind::Payout), "no_account", "{books:?}");
        let (_, _, differences) = compare_all(&mut run, day(), day());
        let open = differences
            .iter()
            .filter(|one| one.decided == Decided::Open);
        assert_eq!(open.count(), 1, "{differences:?}");
        let bank = match books {
            Books::Xero => "Current account",
            _ => "Checking",
        };
        let bank = account(&run, books, bank);
        choose(&run, &[(Role::Payouts, &bank)]);
        run.retry_parked();
        expect_whole(&mut run, books, 10_000, 300);
        assert_eq!(run.check(), Ok(()), "{books:?}");
    }
}

/// A consent of before there were payouts does not reach the bank, and everything else goes on.
#[test]
fn an_older_consent_is_no_reason_to_stop_reading() {
    let mut run = Run::of(SEED, Books::Xero, |_| Shop::default());
    run.relay_and_push();
    let id = run.connection().id;
    alone(connection::change(
        &run.ctx,
        &merchant(),
        &id,
        |connection| {
            let scopes = &mut connection.scopes;
            scopes.retain(|scope| scope != "accounting.banktransactions");
            let along = Along::entry(Happened::SettingsChanged, "an older consent");
            Ok(connection::Decision::Store(along, ()))
        },
    ))
    .unwrap();
    let before = run.world.state().calls.clone();
    pull(&mut run);
    compare_all(&mut run, day(), day());
    let called = run.world.state().calls.clone();
    let bank = called
        .difference(&before)
        .find(|call| call.contains("Bank"));
    assert_eq!(bank, None);
}
