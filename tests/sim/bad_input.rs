//! Bad input from the provider: every kind of bad answer to every call of a push, once and for good.
//! Each ends with the record in the books, parked with a reason, or tried again as often as the queue
//! does and shown meanwhile; and it is in the books once the provider is itself again.

use crate::run::{Books, Job, Run, alone, merchant};
use crate::seeds::on_all_cores;
use crate::shop::Shop;
use crate::world::{Bad, Tamper};
use crossdock::engine::again::{self, Wanted};
use crossdock::store::{Item, Store, keys};
use crossdock::sync::push::{Link, LinkState, RowKind, RowRef};
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

const SEED: u64 = 42;
/// How often the queue brings a message, as the template says, before it is put aside with an alarm.
const RECEIVES_MAX: usize = 10;
/// No push of one batch of these stories has reason to call more often.
const CALLS_MAX: u64 = 40;
/// For how long a message that failed stays away, in seconds.
const AWAY: u64 = 720;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Story {
    /// An order that changes and goes back in part: each document in a call of its own.
    One,
    /// Three orders of three customers at once.
    Three,
    /// A payout that changes, and another.
    PaidOut,
}

fn shop(story: Story, books: Books, dice: &mut crate::world::Dice) -> Shop {
    match (story, books) {
        (Story::Three, _) => Shop::backlog(3, 2),
        (Story::PaidOut, _) => Shop::paid_out(dice, books),
        (Story::One, Books::Receipts) => Shop::one_order(dice),
        (Story::One, _) => Shop::changed_and_paid(dice),
    }
}

/// Carries what the queue holds as often as the queue does, and puts the rest aside.
fn carry(run: &mut Run) {
    run.publish_all();
    for _ in 0..RECEIVES_MAX {
        let notices = run.receive_all();
        if notices.is_empty() {
            return;
        }
        let before = run.world.state().net_calls;
        run.whole(Job::Push(notices));
        let calls = run.world.state().net_calls - before;
        assert!(calls <= CALLS_MAX, "{calls} calls for one batch: a loop");
        run.world.advance(Duration::from_secs(AWAY));
    }
    run.receive_all();
}

fn tell(run: &mut Run, story: Story) {
    let unsent = std::mem::take(&mut run.unsent);
    match story {
        Story::One | Story::PaidOut => {
            for index in unsent {
                run.whole(Job::Accept(vec![index]));
                carry(run);
            }
        }
        Story::Three => {
            run.whole(Job::Accept(unsent));
            carry(run);
        }
    }
}

/// Every row of a record, by its place.
fn rows(run: &Run) -> Vec<(String, Link)> {
    let group = keys::ledger(&merchant(), &run.connection().id);
    let page = run.world.memory.list(&group, None, 1000);
    let items: Vec<Item> = page.now_or_never().unwrap().unwrap().items;
    let place = |item: &Item| keys::place(&item.key).to_owned();
    let of_record = |item: &&Item| crossdock::engine::ledger::row_at(&place(item)).is_some();
    let read = |item: &Item| (place(item), item.read().unwrap());
    items.iter().filter(of_record).map(read).collect()
}

/// What every record must be by now, whatever the provider said.
fn is_told(run: &Run) -> Result<(), String> {
    run.check_open()?;
    let rows = rows(run);
    for (place, link) in &rows {
        let told = match link.state {
            LinkState::Synced => link.problem.is_none(),
            LinkState::Parked | LinkState::Pending => {
                let reason = link.problem.as_ref();
                let reason = reason.is_some_and(|problem| problem.detail.len() > 10);
                reason || link.waiting.is_some()
            }
            LinkState::LeftOut => false,
        };
        if !told {
            return Err(format!("{place} is silent: {link:?}"));
        }
    }
    for (kind, ids) in run.sold() {
        for id in ids {
            let place = format!("{}/{id}", kind.as_str());
            if !rows.iter().any(|(found, _)| *found == place) {
                return Err(format!("nobody knows of {place}: {rows:?}"));
            }
        }
    }
    Ok(())
}

/// The provider is itself again, and the merchant has everything sent once more.
fn heal(run: &mut Run) {
    run.world.state().tamper = None;
    run.world.advance(Duration::from_secs(90_000));
    run.drain();
    let wanted = run
        .sold()
        .into_iter()
        .flat_map(|(kind, ids)| ids.into_iter().map(move |id| RowRef { kind, id }));
    let wanted = Wanted::Records(wanted.collect());
    alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
    run.drain();
    run.retry_parked();
}

/// Whether the books can be right in the end without a hand of the merchant's.
fn heals(bad: Bad, books: Books, call: &str) -> bool {
    match bad {
        // Documents and customers are known under ids that nobody has.
        Bad::UnknownId => false,
        // What is to be written again, because its total seems wrong, cannot change there any more once
        // money came in for it: it stays parked until somebody looks.
        Bad::OtherTotal | Bad::Quoted => books != Books::Xero,
        // Nor can an invoice that could not be changed before.
        _ => books != Books::Xero || !call.starts_with("POST api.xro/Invoices"),
    }
}

fn attempt(books: Books, story: Story, tamper: &Tamper) -> Result<(), String> {
    let mut run = Run::of(SEED, books, |dice| shop(story, books, dice));
    run.world.state().tamper = Some(tamper.clone());
    tell(&mut run, story);
    is_told(&run)?;
    heal(&mut run);
    is_told(&run)?;
    match heals(tamper.bad, books, &tamper.call) {
        true => run.check(),
        false => Ok(()),
    }
}

/// The calls that the story makes when all is well, by name.
fn calls(books: Books, story: Story) -> BTreeSet<String> {
    let mut run = Run::of(SEED, books, |dice| shop(story, books, dice));
    run.world.state().calls.clear();
    tell(&mut run, story);
    let calls = std::mem::take(&mut run.world.state().calls);
    assert_eq!(run.check(), Ok(()), "{books:?} {story:?}");
    calls
}

fn every_bad_answer(books: Books) {
    let mut cases = Vec::new();
    for story in [Story::One, Story::Three, Story::PaidOut] {
        for call in calls(books, story) {
            for bad in Bad::ALL {
                for times in [1, u64::MAX] {
                    let call = call.clone();
                    cases.push((story, Tamper { call, bad, times }));
                }
            }
        }
    }
    end_well(books, &cases, |(story, tamper)| {
        attempt(books, *story, tamper)
    });
}

/// Tries every case, and fails with all that end badly.
pub fn end_well<T: Debug + Sync>(
    books: Books,
    cases: &[T],
    attempt: impl Fn(&T) -> Result<(), String> + Sync,
) {
    let mut wrong = Vec::new();
    let act = |index: u64| {
        let case = &cases[usize::try_from(index).unwrap()];
        catch_unwind(AssertUnwindSafe(|| attempt(case)))
            .unwrap_or_else(|_| Err("it panicked; the message is above".to_owned()))
            .map_err(|wrong| format!("{books:?} {case:?}: {wrong}"))
    };
    on_all_cores(0..cases.len() as u64, act, |given| {
        if let Some((_, Err(told))) = given {
            wrong.push(told);
        }
        true
    });
    println!(
        "{books:?}: {} bad answers, {} end badly",
        cases.len(),
        wrong.len()
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_answers_end_well_in_receipts() {
    every_bad_answer(Books::Receipts);
}

#[test]
fn bad_answers_end_well_in_invoices() {
    every_bad_answer(Books::Invoices);
}

#[test]
fn bad_answers_end_well_in_xero() {
    every_bad_answer(Books::Xero);
}

/// A bookkeeper's own request to QuickBooks.
fn by_hand(run: &Run, path: &str, body: &Value) {
    let grant = alone(run.world.control("POST", "grants", "{}"));
    let token = grant["access_token"].as_str().unwrap();
    let realm = local::standins::quickbooks::DEFAULT_REALM;
    let request = axum::http::Request::builder()
        .method("POST")
        .uri(format!("/v3/company/{realm}/{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    let answer = alone(run.world.vendor.handle(request)).unwrap();
    let said = String::from_utf8_lossy(answer.body()).into_owned();
    assert_eq!(answer.status(), 200, "{said}");
}

fn only(run: &Run, entity: &str) -> Value {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    all.as_array().unwrap().last().unwrap().clone()
}

fn code_of(run: &Run, kind: RowKind) -> Option<String> {
    let start = format!("{}/", kind.as_str());
    let rows = rows(run);
    let (_, link) = rows.iter().find(|(place, _)| place.starts_with(&start))?;
    assert_eq!(link.state, LinkState::Parked, "{link:?}");
    link.problem.as_ref().map(|problem| problem.code.clone())
}

/// Accepts the next `count` events and carries them.
fn go_on(run: &mut Run, count: usize) {
    for index in run.unsent.drain(..count).collect::<Vec<_>>() {
        run.whole(Job::Accept(vec![index]));
        carry(run);
    }
}

#[test]
fn what_somebody_changed_there_is_read_again() {
    let mut run = Run::new(SEED, Shop::one_order);
    go_on(&mut run, 2);
    let receipt = only(&run, "SalesReceipt");
    let touched = json!({
        "Id": receipt["Id"], "SyncToken": receipt["SyncToken"], "sparse": true,
        "CustomerMemo": { "value": "thank you" },
    });
    by_hand(&run, "salesreceipt", &touched);
    go_on(&mut run, 3);
    assert_eq!(is_told(&run), Ok(()));
    run.drain();
    assert_eq!(run.check(), Ok(()), "the next version took its place");
}

#[test]
fn what_was_deleted_there_is_parked_when_it_changes() {
    let mut run = Run::new(SEED, Shop::one_order);
    go_on(&mut run, 2);
    let receipt = only(&run, "SalesReceipt");
    let gone = json!({ "Id": receipt["Id"], "SyncToken": receipt["SyncToken"] });
    by_hand(&run, "salesreceipt?operation=delete", &gone);
    go_on(&mut run, 3);
    assert_eq!(is_told(&run), Ok(()));
    assert_eq!(
        code_of(&run, RowKind::Order).as_deref(),
        Some("quickbooks_610")
    );

    let mut run = Run::of(SEED, Books::Xero, Shop::changed_and_paid);
    go_on(&mut run, 1);
    let invoice = only(&run, "Invoices");
    let path = format!(
        "entities/Invoices/{}",
        invoice["InvoiceID"].as_str().unwrap()
    );
    alone(run.world.control("DELETE", &path, ""));
    let left = run.unsent.len();
    go_on(&mut run, left);
    assert_eq!(is_told(&run), Ok(()));
    assert!(code_of(&run, RowKind::Order).is_some());
}

#[test]
fn a_currency_that_is_not_switched_on_parks_the_record() {
    let company = json!({ "multicurrency": false }).to_string();
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut run = Run::of(SEED, books, |dice| Shop::in_currency(dice, "SEK"));
        if books != Books::Xero {
            alone(run.world.control("POST", "realms", &company));
        }
        let left = run.unsent.len();
        go_on(&mut run, left);
        assert_eq!(is_told(&run), Ok(()));
        let code = code_of(&run, RowKind::Order);
        assert_eq!(code.as_deref(), Some("currency_off"), "{books:?}");
    }
}

#[test]
fn long_names_and_pictures_and_far_days_stand_in_the_books() {
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut run = Run::of(SEED, books, |dice| {
            let mut shop = Shop::one_payment(dice);
            for event in &mut shop.events {
                let data = &mut event["data"];
                if data["lines"].is_array() {
                    data["customer"]["name"] = json!("😀".repeat(200));
                    data["lines"][0]["name"] = json!("😀".repeat(200));
                    data["placed_at"] = json!("2099-12-30T23:00:00Z");
                }
            }
            shop
        });
        let left = run.unsent.len();
        go_on(&mut run, left);
        assert_eq!(is_told(&run), Ok(()));
        run.drain();
        assert_eq!(run.check(), Ok(()), "{books:?}");
    }
}

/// Where a provider makes another total of a document than was meant, that is said of its record.
#[test]
fn a_document_of_another_total_is_told_of() {
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let is_told_after = |call: &String| {
            let mut run = Run::of(SEED, books, |dice| shop(Story::One, books, dice));
            run.world.state().tamper = Some(Tamper {
                call: call.clone(),
                bad: Bad::OtherTotal,
                times: u64::MAX,
            });
            tell(&mut run, Story::One);
            let problems = rows(&run).into_iter().filter_map(|(_, link)| link.problem);
            problems
                .map(|problem| problem.code)
                .any(|code| code == "total_differs")
        };
        let calls = calls(books, Story::One);
        assert!(calls.iter().any(is_told_after), "{books:?}: {calls:?}");
    }
}

/// What several look-ups in one call are refused for is the fault of one of them, or of none.
#[test]
fn a_look_up_that_is_refused_as_a_whole_is_made_in_parts() {
    for books in [Books::Receipts, Books::Xero] {
        let looked_up = |call: &String| {
            let names = [
                "query Customer",
                "query Item",
                "GET api.xro/Contacts",
                "GET api.xro/Items",
            ];
            names.iter().any(|name| call.contains(name))
        };
        let calls = calls(books, Story::Three);
        let calls: Vec<String> = calls.into_iter().filter(looked_up).collect();
        assert_eq!(calls.len(), 2, "{calls:?}");
        for call in calls {
            let mut run = Run::of(SEED, books, |dice| shop(Story::Three, books, dice));
            run.world.state().tamper = Some(Tamper {
                call,
                bad: Bad::Refused,
                times: 1,
            });
            let unsent = std::mem::take(&mut run.unsent);
            run.whole(Job::Accept(unsent));
            run.relay_and_push();
            assert_eq!(run.check(), Ok(()), "{books:?}");
        }
    }
}
