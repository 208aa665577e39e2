//! The ledger: what is written of a push, what is shown of one that fails, and sending records again
//! while others are at work on them.

use crate::judge;
use crate::run::{Job, Run, alone, merchant};
use crate::shop::{MERCHANT, Shop};
use crate::world::{Dice, PLATFORM_KEY};
use crossdock::api::{self, records};
use crossdock::engine::again::{self, Sent, Wanted};
use crossdock::engine::resync::{self, State};
use crossdock::model::event::RecordKind;
use crossdock::model::notice::RecordRef;
use crossdock::store::{Condition, Item, Key, Store, Write, keys};
use crossdock::sync::push::{Link, LinkState, Open, Problem, Remote, Standing};
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const SEED: u64 = 42;
/// A second document with one number.
const CODE: &str = "quickbooks_6140";

/// The next `times` receipts meet a failure that may pass.
fn fail_receipts(run: &Run, times: u64) {
    let rule = json!({
        "match": { "path_contains": "salesreceipt" }, "kind": "status_before_effect",
        "status": 503, "times": times,
    });
    alone(run.world.control("POST", "faults", &rule.to_string()));
}

fn item(run: &Run, key: &Key) -> Option<Item> {
    run.world.memory.get(key).now_or_never().unwrap().unwrap()
}

fn put(run: &Run, key: Key, doc: &impl serde::Serialize) {
    let write = Write::put(key, Condition::Any, doc).unwrap();
    run.world
        .memory
        .write(write)
        .now_or_never()
        .unwrap()
        .unwrap();
}

fn order_key(run: &Run) -> Key {
    keys::link(&merchant(), &run.connection().id, "order", "1001")
}

fn link(run: &Run) -> Link {
    item(run, &order_key(run)).unwrap().read().unwrap()
}

/// Accepts everything that the shop has to say, and pushes it once.
fn sell(run: &mut Run) {
    for index in std::mem::take(&mut run.unsent) {
        run.whole(Job::Accept(vec![index]));
    }
    run.relay_and_push();
}

/// What failed comes again.
fn again(run: &mut Run) {
    run.world.advance(Duration::from_secs(40));
    let notices = run.receive_all();
    run.whole(Job::Push(notices));
}

#[test]
fn a_push_that_goes_well_writes_its_row_twice() {
    let mut run = Run::new(SEED, |dice| {
        let mut shop = Shop::one_sale(dice);
        shop.events
            .retain(|event| event["type"] != "order.refunded");
        shop.expected.refunds.clear();
        shop.expected.skus.remove("REFUND");
        shop
    });
    sell(&mut run);
    // The company's settings are read once an hour; customers and items are put in bulk.
    let writes = std::mem::take(&mut run.world.state().ledger_writes);
    println!("one sale, well: {writes:?} rows of the ledger in each write, settings included");
    // Settings, intent, the call that carries it, whose the provider's id is, and what came of it.
    assert_eq!(writes, [1, 1, 1, 1, 1]);
    assert_eq!(run.check(), Ok(()));

    let mut run = Run::new(SEED, Shop::one_sale);
    fail_receipts(&run, 2);
    sell(&mut run);
    again(&mut run);
    run.world.state().ledger_writes.clear();
    again(&mut run);
    let writes = std::mem::take(&mut run.world.state().ledger_writes);
    println!("one sale, at last: {writes:?}");
    assert_eq!(
        writes,
        [1, 2],
        "the intent stands already; the row that pointed to it goes"
    );
}

#[test]
fn what_fails_is_shown_until_it_is_there() {
    let mut run = Run::new(SEED, Shop::one_sale);
    fail_receipts(&run, 3);
    sell(&mut run);
    let mut since = None;
    for attempt in 1..=3 {
        let link = link(&run);
        assert_eq!((link.state, link.attempts), (LinkState::Pending, attempt));
        assert_eq!(link.problem.as_ref().unwrap().code, "upstream_failed");
        let next = link.next_attempt_at.unwrap();
        assert_eq!((next - link.updated_at.unwrap()).num_seconds(), 720);
        assert_eq!(
            *since.get_or_insert(link.since),
            link.since,
            "it fails since then"
        );
        let errors = get(&run, "errors", &[]);
        let error = &errors["data"][0];
        assert_eq!(
            (&error["state"], &error["attempts"]),
            (&json!("pending"), &json!(attempt))
        );
        assert!(
            error["todo"].as_str().unwrap().contains("by itself"),
            "{error}"
        );
        again(&mut run);
    }
    let link = link(&run);
    assert_eq!((link.state, link.attempts), (LinkState::Synced, 0));
    assert_eq!((link.problem, link.next_attempt_at), (None, None));
    assert!(link.remote.unwrap().number.is_some(), "the number is known");
    assert_eq!(get(&run, "errors", &[])["data"], json!([]));
    run.drain();
    assert_eq!(run.check(), Ok(()));
}

#[test]
fn a_total_that_differs_is_tried_anew() {
    let mut run = Run::new(SEED, Shop::one_sale);
    sell(&mut run);
    // As it is after QuickBooks made something else of it: what it holds is not what we meant.
    let before = link(&run);
    assert!(before.content.is_some());
    let problem = Problem {
        code: "total_differs".to_owned(),
        detail: "compare the two".to_owned(),
    };
    let parked = Link {
        content: None,
        ..before.park(problem, before.record_rev, run.ctx.now())
    };
    put(&run, order_key(&run), &parked);
    let open = Open {
        record: order(),
        order_id: Some("1001".parse().unwrap()),
        code: Some("total_differs".to_owned()),
    };
    let group = keys::troubled(&merchant(), &run.connection().id);
    put(&run, keys::open(group, "order", "1001"), &open);
    retry(&run, "total_differs");
    let calls = run.world.state().net_calls;
    again(&mut run);
    assert!(
        run.world.state().net_calls > calls,
        "the provider was not asked"
    );
    assert_eq!(link(&run).state, LinkState::Synced);
    assert_eq!(run.check(), Ok(()));
}

fn order() -> RecordRef {
    RecordRef {
        kind: RecordKind::Order,
        id: "1001".to_owned(),
    }
}

fn retry(run: &Run, code: &str) -> Sent {
    let wanted = Wanted::Code(code.to_owned(), None);
    alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap()
}

/// Two sales whose orders have one number.
fn alike(dice: &mut Dice) -> Shop {
    let mut shop = Shop::one_sale(dice);
    let other = |id: &str| id.replace("1001", "1002");
    let copies = shop.events.iter().map(|event| {
        let mut copy: Value = serde_json::from_str(&other(&event.to_string())).unwrap();
        if let Some(number) = copy["data"].get_mut("number") {
            *number = json!("1001");
        }
        copy
    });
    let copies: Vec<Value> = copies.collect();
    shop.events.extend(copies);
    for sums in [&mut shop.expected.sales, &mut shop.expected.refunds] {
        let copies = sums.iter().map(|(id, sum)| (other(id), *sum));
        *sums = copies.chain(sums.clone()).collect();
    }
    shop.expected
        .owed
        .values_mut()
        .for_each(|amount| *amount *= 2);
    shop
}

/// Whether the company refuses a second document with a number. Such a refusal stays, and the stand-in
/// repeats it for the same request as it repeats a success.
fn forbid(run: &Run, forbids: bool) {
    let company = json!({
        "realm": local::standins::quickbooks::DEFAULT_REALM,
        "forbid_duplicate_doc_numbers": forbids,
    });
    alone(run.world.control("POST", "realms", &company.to_string()));
}

/// A worker that stops at any step of a push while somebody retries the record and another worker
/// pushes it; then the first one goes on, or is dead. What was refused is allowed before, or meanwhile.
#[test]
fn a_retry_meets_a_push_at_any_step() {
    for (late, dies) in [(false, false), (false, true), (true, false), (true, true)] {
        for polls in 0.. {
            let mut run = Run::new(SEED, alike);
            forbid(&run, true);
            let mut over = false;
            let name = format!("{polls} polls, dies: {dies}, allowed meanwhile: {late}");
            judge(&name, &mut run, |run| {
                sell(run);
                let errors = get(run, "errors", &[]);
                assert_eq!(errors["data"][0]["code"], CODE, "{errors}");
                assert_eq!(errors["data"][0]["state"], "parked");
                assert_eq!(retry(run, "another_code").count, 0);
                assert_eq!(retry(run, CODE).count, 1);
                let notices = run.receive_all();
                forbid(run, late);
                over = run.begin(Job::Push(notices), polls);
                forbid(run, false);
                retry(run, CODE);
                let notices = run.receive_all();
                if !notices.is_empty() {
                    run.beside(Job::Push(notices));
                }
                if dies && !over {
                    run.crash(0);
                }
                run.drain();
                // What was refused once more is sent once more.
                retry(run, CODE);
                run.drain();
            });
            if over {
                assert!(polls > 10, "the worker has nothing to do");
                break;
            }
        }
    }
}

/// Rows of the ledger for orders of which the shop knows nothing: more than one step looks at.
fn many(run: &Run, count: usize) {
    let connection = run.connection();
    for number in 0..count {
        let key = keys::link(
            &merchant(),
            &connection.id,
            "order",
            &format!("x{number:05}"),
        );
        put(
            run,
            key,
            &Link {
                state: LinkState::Synced,
                ..Link::default()
            },
        );
    }
}

#[test]
fn a_resync_sends_what_differs_once_and_counts_each_page_once() {
    const ROWS: usize = 450;
    for dies_at in 1.. {
        let mut run = Run::new(SEED, Shop::one_sale);
        sell(&mut run);
        many(&run, ROWS);
        // What is known to stand there is not what stands there; and a row from before its pointer.
        let mut differs = link(&run);
        differs.content = Some("something else".to_owned());
        differs.problem = Some(Problem {
            code: "old".to_owned(),
            detail: "from before".to_owned(),
        });
        put(&run, order_key(&run), &differs);
        run.rows_unchecked = true;
        run.whole(Job::Resync);
        let mut died = false;
        for _ in 0..20 {
            let notices = run.receive_all();
            if notices.is_empty() {
                break;
            }
            let steps = notices
                .iter()
                .filter(|notice| notice.resync.is_some())
                .count();
            if steps > 0 && !died {
                // The first step dies, and its message comes again when others have gone on.
                let over = run.begin(Job::Push(notices), dies_at);
                if !over {
                    died = true;
                    run.crash(0);
                }
            } else {
                run.beside(Job::Push(notices));
            }
            run.world.advance(Duration::from_secs(31));
        }
        run.drain();
        run.finish_resync();
        let last = alone(resync::last(&run.ctx, &run.connection())).unwrap();
        assert_eq!(last.state, State::Done, "death at {dies_at}: {last:?}");
        // The order, its refund and the rest.
        assert_eq!(
            (last.looked, last.sent),
            (ROWS as u64 + 2, 2),
            "death at {dies_at}"
        );
        assert_ne!(link(&run).content.as_deref(), Some("something else"));
        assert_eq!(link(&run).problem, None);
        run.rows_unchecked = false;
        assert_eq!(run.check_open(), Ok(()));
        if !died {
            assert!(dies_at > 10, "a step has nothing to do");
            break;
        }
    }
}

#[test]
fn a_resync_keeps_to_its_window() {
    let mut run = Run::new(SEED, Shop::one_sale);
    sell(&mut run);
    let connection = run.connection();
    // The order is of the first of January, 9 o'clock, and its refund of the day after.
    for (from, until, sent) in [
        (None, None, 2),
        (
            Some("2026-01-01T09:00:00Z"),
            Some("2026-01-02T09:00:00Z"),
            1,
        ),
        (Some("2026-01-01T09:00:01Z"), None, 1),
        (None, Some("2026-01-01T09:00:00Z"), 0),
    ] {
        let time = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        let (from, until) = (time(from), time(until));
        let begun = alone(resync::start(&run.ctx, &connection, from, until)).unwrap();
        let same = alone(resync::start(&run.ctx, &connection, from, until)).unwrap();
        assert_eq!(begun.id, same.id, "it is carried on");
        let other = resync::start(&run.ctx, &connection, until, Some(run.ctx.now()));
        assert!(alone(other).is_err(), "two at once");
        run.drain();
        let last = alone(resync::last(&run.ctx, &connection)).unwrap();
        assert_eq!((last.state, last.looked, last.sent), (State::Done, 2, sent));
    }
}

#[test]
fn a_resync_mends_what_is_older_than_its_pointers() {
    let mut run = Run::new(SEED, Shop::one_sale);
    sell(&mut run);
    let problem = Problem {
        code: "old".to_owned(),
        detail: "from before".to_owned(),
    };
    let parked = link(&run).park(problem, 1, run.ctx.now());
    let old = parked.wait(9, run.ctx.now()).unwrap();
    put(&run, order_key(&run), &old);
    run.rows_unchecked = true;
    assert_eq!(get(&run, "errors", &[])["data"], json!([]));
    // A window in which nothing lies, so that nothing is pushed.
    let from = Some("2027-01-01T00:00:00Z".parse().unwrap());
    let connection = run.connection();
    let start = resync::start(&run.ctx, &connection, from, None);
    alone(start).unwrap();
    run.drain();
    run.rows_unchecked = false;
    assert_eq!(run.check_open(), Ok(()));
    assert_eq!(get(&run, "errors", &[])["data"][0]["code"], "old");
    let waiting = get(&run, "records", &[("state", "waiting")]);
    assert_eq!(waiting["data"][0]["id"], "1001");
    assert_eq!(link(&run), old);
}

fn request(run: &Run, path: &str, query: &[(&str, &str)]) -> api::Request {
    let query = query.iter().chain(&[("merchant_id", MERCHANT)]);
    let id = run.connection().id;
    api::Request {
        method: "GET".to_owned(),
        path: format!("/api/v1/integrations/accounting/{id}/{path}"),
        query: query
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        bearer: Some(PLATFORM_KEY.into()),
        ..api::Request::default()
    }
}

fn get(run: &Run, path: &str, query: &[(&str, &str)]) -> Value {
    let answer = alone(records::handle(&run.ctx, &request(run, path, query))).unwrap();
    assert_eq!(answer.status, 200);
    serde_json::from_str(&answer.body).unwrap()
}

/// All pages of a list, as `type/id` with the state.
fn walk(run: &Run, path: &str, query: &[(&str, &str)], limit: usize) -> Vec<(String, String)> {
    let limit = limit.to_string();
    let mut cursor: Option<String> = None;
    let mut all = Vec::new();
    loop {
        let mut query = query.to_vec();
        query.push(("limit", &limit));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page = get(run, path, &query);
        for row in page["data"].as_array().unwrap() {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            all.push((format!("{}/{}", text("type"), text("id")), text("state")));
        }
        assert_eq!(page["has_more"], !page["next_cursor"].is_null());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return all,
        }
    }
}

/// Lists and counts against a ledger that is known row by row, whatever the page.
#[test]
fn every_page_and_filter_shows_what_is_there() {
    let mut run = Run::new(SEED, Shop::one_sale);
    let connection = run.connection();
    let (now, id) = (run.ctx.now(), connection.id.clone());
    let problem = |code: &str| Problem {
        code: code.to_owned(),
        detail: "d".to_owned(),
    };
    let blank = Link::default();
    let synced = Link {
        state: LinkState::Synced,
        ..Link::default()
    };
    let kinds = [
        blank.clone(),
        synced.clone(),
        synced.clone(),
        blank.park(problem("a"), 1, now),
        blank.fail(problem("b"), 1, now, now).unwrap(),
        blank.leave_out(1, now).unwrap(),
        synced.wait(2, now).unwrap(),
        blank.park(problem("b"), 1, now).wait(2, now).unwrap(),
    ];
    let mut expected = BTreeMap::new();
    for kind in [RecordKind::Order, RecordKind::Refund] {
        for number in 0..23 {
            let link = run.world.state().dice.pick(&kinds).clone();
            let record = RecordRef {
                kind,
                id: format!("n{number:02}"),
            };
            let name = kind.as_str();
            put(&run, keys::link(&merchant(), &id, name, &record.id), &link);
            let open = |code| Open {
                record: record.clone(),
                order_id: None,
                code,
            };
            if let Some(problem) = &link.problem {
                let key = keys::open(keys::troubled(&merchant(), &id), name, &record.id);
                put(&run, key, &open(Some(problem.code.clone())));
            }
            if link.waiting.is_some() {
                let key = keys::open(keys::waiting(&merchant(), &id), name, &record.id);
                put(&run, key, &open(None));
            }
            expected.insert(format!("{name}/{}", record.id), link);
        }
    }
    // What else the ledger holds is no record of the shop.
    let remote = Some(Remote {
        id: "1".to_owned(),
        version: "0".to_owned(),
        number: None,
        content: None,
    });
    for kind in ["customer", "item", "product"] {
        put(
            &run,
            keys::link(&merchant(), &id, kind, "x"),
            &Link {
                remote: remote.clone(),
                ..synced.clone()
            },
        );
    }
    let word = |standing: Standing| json!(standing).as_str().unwrap().to_owned();
    let shown = |wanted: &dyn Fn(&str, &Link) -> bool| -> Vec<(String, String)> {
        let rows = expected.iter().filter(|(place, link)| wanted(place, link));
        rows.map(|(place, link)| (place.clone(), word(link.standing())))
            .collect()
    };
    for limit in [1, 2, 3, 7, 22, 23, 24, 46, 200] {
        assert_eq!(
            walk(&run, "records", &[], limit),
            shown(&|_, _| true),
            "{limit}"
        );
        for kind in ["order", "refund"] {
            let found = walk(&run, "records", &[("type", kind)], limit);
            assert_eq!(
                found,
                shown(&|place, _| place.starts_with(kind)),
                "{limit} {kind}"
            );
        }
        for state in Standing::ALL {
            let found = walk(&run, "records", &[("state", &word(state))], limit);
            assert_eq!(
                found,
                shown(&|_, link| link.standing() == state),
                "{limit} {state:?}"
            );
        }
        let found = walk(&run, "errors", &[], limit);
        assert_eq!(found, shown(&|_, link| link.problem.is_some()), "{limit}");
        let found = walk(&run, "errors", &[("code", "b")], limit);
        let with_b =
            |_: &str, link: &Link| link.problem.as_ref().is_some_and(|one| one.code == "b");
        assert_eq!(found, shown(&with_b), "{limit}");
    }
    let summary = get(&run, "summary", &[]);
    let mut sum = 0;
    for state in Standing::ALL {
        let count = expected
            .values()
            .filter(|link| link.standing() == state)
            .count();
        assert_eq!(summary["counts"][word(state)], count, "{state:?}");
        sum += count;
    }
    assert_eq!(sum, 46);
    let troubled = expected
        .values()
        .filter(|link| link.problem.is_some())
        .count();
    assert_eq!(summary["open"]["errors"], troubled);
    // It is kept for a while, and counted anew after that.
    let place = expected.keys().next().unwrap().clone();
    let key = keys::link(
        &merchant(),
        &id,
        "order",
        place.strip_prefix("order/").unwrap(),
    );
    put(
        &run,
        key,
        &expected.values().find(|link| **link == synced).unwrap(),
    );
    let synced_now = u64::from(expected[&place].standing() != Standing::Synced);
    assert_eq!(get(&run, "summary", &[])["counts"], summary["counts"]);
    run.world.advance(Duration::from_secs(31));
    let later = get(&run, "summary", &[]);
    let before = summary["counts"]["synced"].as_u64().unwrap();
    assert_eq!(later["counts"]["synced"], before + synced_now);
    let states: BTreeSet<_> = expected.values().map(Link::standing).collect();
    assert_eq!(states.len(), 5, "the dice left one out");
    run.unsent.clear();
}

/// A ledger that is too long for one look is counted in several, from one moment on.
#[test]
fn a_long_ledger_is_counted_in_several_looks() {
    let run = Run::new(SEED, Shop::one_sale);
    many(&run, 45_000);
    let first = get(&run, "summary", &[]);
    assert_eq!(
        (&first["counts"], &first["counting"]),
        (&Value::Null, &json!(20_000))
    );
    assert_eq!(get(&run, "summary", &[])["counting"], 40_000);
    let done = get(&run, "summary", &[]);
    assert_eq!(done["counts"]["synced"], 45_000);
    assert_eq!(
        (&done["accuracy"], &done["counting"]),
        (&json!("1.000000"), &Value::Null)
    );
    // It is good for so long as it took some effort, and one that lies about begins anew.
    run.world.advance(Duration::from_secs(400));
    assert_eq!(get(&run, "summary", &[])["as_of"], done["as_of"]);
    run.world.advance(Duration::from_secs(100));
    assert_eq!(get(&run, "summary", &[])["counting"], 20_000);
    run.world.advance(Duration::from_secs(601));
    assert_eq!(
        get(&run, "summary", &[])["counting"],
        20_000,
        "it began anew"
    );
}
