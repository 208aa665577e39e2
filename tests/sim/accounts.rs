//! The accounts of a company: shown, chosen, refused, and used for what is sold from then on.

use crate::books;
use crate::cell;
use crate::pull;
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::{GIFT_CARDS, MERCHANT, PAYOUTS, Shop, Size, TIPS};
use crate::world::{PLATFORM_KEY, World};
use crossdock::api::{self, integrations};
use crossdock::engine::again::{self, Wanted};
use crossdock::error::Error;
use crossdock::oauth::connection::{self, Along, Settings};
use crossdock::oauth::manage;
use crossdock::store::{Store, keys};
use crossdock::sync::push::{Link, LinkState, RowKind, RowRef};
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const SEED: u64 = 42;

fn call(run: &Run, method: &str, what: &str, body: Option<Value>) -> Result<Value, Error> {
    let id = run.connection().id;
    let mut request = api::Request {
        method: method.to_owned(),
        path: format!("/api/v1/integrations/accounting/{id}/{what}"),
        bearer: Some(PLATFORM_KEY.into()),
        ..api::Request::default()
    };
    match body {
        Some(body) => request.body = body.to_string().into_bytes(),
        None => {
            let (name, value) = ("merchant_id".to_owned(), MERCHANT.to_owned());
            request.query.insert(name, value);
        }
    }
    let answer = alone(integrations::handle(&run.ctx, &request))?;
    Ok(serde_json::from_str(&answer.body).unwrap())
}

pub fn set(run: &Run, settings: Value) -> Result<Value, Error> {
    let body = json!({ "merchant_id": MERCHANT, "settings": settings });
    call(run, "PUT", "settings", Some(body))
}

fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let all = alone(run.world.control("GET", &format!("entities/{entity}"), ""));
    all.as_array().unwrap().clone()
}

fn events(id: &str, placed_at: &str, tip: i64) -> [Value; 2] {
    let money = |amount: i64| json!({ "amount": amount, "currency": "USD" });
    let event = |name: &str, kind: &str, data: Value| {
        json!({
            "id": format!("{id}-{name}"), "type": kind, "merchant_id": MERCHANT,
            "occurred_at": placed_at, "data": data,
        })
    };
    let order = json!({
        "id": id, "version": 1, "number": id, "currency": "USD", "placed_at": placed_at,
        "customer": null, "tip": money(tip), "total": money(1000 + tip),
        "lines": [{
            "sku": "MUG", "name": "Mug", "quantity": "1", "unit_price": "10.00", "total": money(1000),
        }],
    });
    let payment = json!({
        "id": "p", "order_id": id, "outcome": "succeeded", "amount": money(1000 + tip),
        "method": "card", "processed_at": placed_at,
    });
    [
        event("order", "order.created", order),
        event("payment", "payment.processed", payment),
    ]
}

/// Sells one more order, and pushes it.
fn sell(run: &mut Run, id: &str, placed_at: &str, tip: i64) {
    run.shop().events.extend(events(id, placed_at, tip));
    let end = run.shop().events.len();
    for index in [end - 2, end - 1] {
        run.whole(Job::Accept(vec![index]));
    }
    run.relay_and_push();
}

fn link(run: &Run, id: &str) -> Link {
    let key = keys::link(&merchant(), &run.connection().id, "order", id);
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

/// The receipt of an order.
fn receipt(run: &Run, id: &str) -> Value {
    let all = entities(run, "SalesReceipt");
    let mut all = all.into_iter();
    all.find(|one| one["DocNumber"] == id).unwrap()
}

/// The names of the accounts that the lines of a receipt post to.
fn posted_to(run: &Run, receipt: &Value) -> Vec<String> {
    let items = entities(run, "Item");
    let lines = receipt["Line"].as_array().unwrap().iter();
    let sold = lines.filter_map(|line| line.get("SalesItemLineDetail"));
    sold.map(|sold| {
        let item = items
            .iter()
            .find(|item| item["Id"] == sold["ItemRef"]["value"]);
        let account = &item.unwrap()["IncomeAccountRef"]["name"];
        account.as_str().unwrap().to_owned()
    })
    .collect()
}

fn account(run: &Run, name: &str, active: bool) {
    let account = json!({
        "Name": name, "AccountType": "Other Current Liability", "Active": active,
    });
    let body = json!({ "accounts": [account] }).to_string();
    alone(run.world.control("POST", "realms", &body));
}

fn id_of(run: &Run, name: &str) -> String {
    let listed = call(run, "GET", "accounts", None).unwrap();
    let all = listed["data"].as_array().unwrap();
    let found = all.iter().find(|one| one["name"] == name);
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

#[test]
fn the_accounts_of_a_company_are_shown_with_what_they_are_used_for() {
    for (books, expected) in [
        (
            Books::Receipts,
            [
                ("sales", "Sales of Product Income"),
                ("shipping", "Shipping Income"),
                ("discounts", "Discounts given"),
                ("money", "Undeposited Funds"),
                ("refunds", "Undeposited Funds"),
                ("tips", TIPS),
                ("gift_cards", GIFT_CARDS),
                ("fees", PAYOUTS[2].1),
                ("payouts", PAYOUTS[1].1),
            ],
        ),
        (
            Books::Xero,
            [
                ("sales", "Sales"),
                ("shipping", "Sales"),
                ("discounts", "Sales"),
                ("money", "Business Bank Account"),
                ("refunds", "Business Bank Account"),
                ("tips", TIPS),
                ("gift_cards", GIFT_CARDS),
                ("fees", PAYOUTS[2].2),
                ("payouts", PAYOUTS[1].2),
            ],
        ),
    ] {
        let run = Run::of(SEED, books, |_| Shop::default());
        let listed = call(&run, "GET", "accounts", None).unwrap();
        let all = listed["data"].as_array().unwrap();
        let used: Vec<(&str, &str)> = listed["used"]
            .as_array()
            .unwrap()
            .iter()
            .map(|used| {
                assert_eq!(
                    (&used["chosen"], &used["problem"]),
                    (&json!(false), &json!(null))
                );
                let account = all.iter().find(|one| one["id"] == used["account_id"]);
                let role = used["role"].as_str().unwrap();
                (role, account.unwrap()["name"].as_str().unwrap())
            })
            .collect();
        assert_eq!(used, expected, "{books:?}");
        // What cannot be used is refused, each with its place.
        let sales = listed["used"][0]["account_id"].clone();
        let refused = set(
            &run,
            json!({ "accounts": { "tips": sales, "money": "nowhere" } }),
        );
        let refused = refused.unwrap_err();
        let faults: Vec<(&str, &str)> = refused
            .fields()
            .iter()
            .map(|fault| (&fault.pointer[..], fault.code))
            .collect();
        assert_eq!(
            faults,
            [
                ("#/settings/accounts/money", "unknown_account"),
                ("#/settings/accounts/tips", "wrong_account"),
            ],
            "{books:?}"
        );
        // What can be used is shown as chosen.
        let tips = listed["used"][5]["account_id"].clone();
        set(&run, json!({ "accounts": { "gift_cards": "", } })).unwrap_err();
        set(&run, json!({ "accounts": { "tips": tips } })).unwrap();
        let listed = call(&run, "GET", "accounts", None).unwrap();
        assert_eq!(listed["used"][5]["chosen"], true);
    }
}

#[test]
fn a_choice_counts_from_then_on_and_an_inactive_account_parks() {
    let day = "2026-01-01T09:00:00Z";
    let mut run = Run::of(SEED, Books::Receipts, |_| Shop::default());
    sell(&mut run, "A", day, 200);
    let income = "Sales of Product Income";
    assert_eq!(posted_to(&run, &receipt(&run, "A")), [income, TIPS]);
    account(&run, "Waiters", true);
    let waiters = id_of(&run, "Waiters");
    set(&run, json!({ "accounts": { "tips": waiters } })).unwrap();
    sell(&mut run, "B", day, 300);
    assert_eq!(posted_to(&run, &receipt(&run, "B")), [income, "Waiters"]);
    // What stands in the books stays as it is.
    let row = |id: &str| RowRef {
        kind: RowKind::Order,
        id: id.to_owned(),
    };
    let all = Wanted::Records(vec![row("A"), row("B")]);
    alone(again::retry(&run.ctx, &run.connection(), all)).unwrap();
    let notices = run.receive_all();
    run.whole(Job::Push(notices));
    assert_eq!(receipt(&run, "A")["SyncToken"], "0");
    assert_eq!(posted_to(&run, &receipt(&run, "A")), [income, TIPS]);

    account(&run, "Waiters", false);
    run.world.advance(Duration::from_secs(3601));
    sell(&mut run, "C", day, 100);
    let parked = link(&run, "C");
    assert_eq!(parked.state, LinkState::Parked);
    let problem = parked.problem.unwrap();
    assert_eq!(problem.code, "inactive_account");
    assert!(problem.detail.contains("Waiters"), "{}", problem.detail);
    // An order without a tip has nothing to do with it.
    sell(&mut run, "D", day, 0);
    assert_eq!(link(&run, "D").state, LinkState::Synced);
    // Put right there and sent again, it is read anew, though the hour is not over.
    account(&run, "Waiters (deleted)", true);
    let wanted = Wanted::Code("inactive_account".to_owned(), None);
    let sent = alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
    assert_eq!(sent.count, 1);
    let notices = run.receive_all();
    run.whole(Job::Push(notices));
    assert_eq!(link(&run, "C").state, LinkState::Synced);
}

#[test]
fn a_company_without_an_account_for_tips_is_told_which_to_add() {
    let mut run = Run::of(SEED, Books::Receipts, |_| Shop::default());
    account(&run, "More tips", true);
    // Of two, neither is taken unasked.
    sell(&mut run, "A", "2026-01-01T09:00:00Z", 200);
    let problem = link(&run, "A").problem.unwrap();
    assert_eq!(problem.code, "no_account");
    assert!(
        problem.detail.contains("accounts.tips"),
        "{}",
        problem.detail
    );
    assert!(entities(&run, "SalesReceipt").is_empty());
    let wanted = Wanted::Code(problem.code, None);
    set(&run, json!({ "accounts": { "tips": id_of(&run, TIPS) } })).unwrap();
    alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
    let notices = run.receive_all();
    run.whole(Job::Push(notices));
    assert_eq!(link(&run, "A").state, LinkState::Synced);
}

/// Every role at once, so that the vendor's rules judge what each choice makes of a document.
#[test]
fn each_provider_takes_what_is_chosen() {
    for books in [Books::Receipts, Books::Invoices, Books::Xero] {
        let mut run = Run::of(SEED, books, |_| Shop::default());
        let chosen = match books {
            Books::Xero => [
                ("sales", "Other Revenue"),
                ("shipping", "Other Revenue"),
                ("discounts", "Freight & Courier"),
                ("money", "Owner A Funds Introduced"),
            ],
            _ => [
                ("sales", "Services"),
                ("shipping", "Services"),
                ("discounts", "Shipping Income"),
                ("money", "Checking"),
            ],
        };
        let chosen = chosen.map(|(role, name)| (role.to_owned(), json!(id_of(&run, name))));
        let mut accounts = Value::Object(chosen.into_iter().collect());
        accounts["tips"] = json!(id_of(&run, TIPS));
        let invoices = (books != Books::Receipts).then_some("invoice");
        set(&run, json!({ "accounts": accounts, "orders_as": invoices })).unwrap();
        let money = |amount: i64| json!({ "amount": amount, "currency": "USD" });
        let [mut order, payment] = events("A", "2026-01-01T09:00:00Z", 200);
        let card = json!({
            "sku": "CARD", "name": "Card", "quantity": "1", "unit_price": "25.00",
            "total": money(2500), "gift_card": true,
        });
        order["data"]["lines"].as_array_mut().unwrap().push(card);
        order["data"]["shipping"] = json!({ "name": "Post", "amount": money(400) });
        order["data"]["discounts"] = json!([{ "name": "Sale", "amount": money(100) }]);
        order["data"]["total"] = money(4000);
        let mut rest = payment.clone();
        rest["id"] = json!("A-rest");
        rest["data"]["id"] = json!("q");
        rest["data"]["amount"] = money(2800);
        rest["data"]["method"] = json!("gift_card");
        let refund = json!({
            "id": "A-refund", "type": "order.refunded", "merchant_id": MERCHANT,
            "occurred_at": "2026-01-02T09:00:00Z",
            "data": {
                "id": "r", "order_id": "A", "amount": money(700), "shipping": money(400),
                "tip": money(200), "refunded_at": "2026-01-02T09:00:00Z",
            },
        });
        for event in [order, payment, rest, refund] {
            run.shop().events.push(event);
            let index = run.shop().events.len() - 1;
            run.whole(Job::Accept(vec![index]));
            run.relay_and_push();
        }
        let group = keys::troubled(&merchant(), &run.connection().id);
        let listed = run.world.memory.list(&group, None, 10);
        let open = listed.now_or_never().unwrap().unwrap().items;
        assert!(open.is_empty(), "{books:?}: {open:?}");
        let bank = &accounts["money"];
        let on_bank = |entity: &str, place: [&str; 2]| -> Vec<String> {
            let all = entities(&run, entity);
            let ours = all.iter().filter(|one| one[place[0]][place[1]] == *bank);
            let amount = |one: &Value| one.get("TotalAmt").unwrap_or(&one["Amount"]).to_string();
            ours.map(amount)
                .map(|text| text.trim_end_matches(".0").to_owned())
                .collect()
        };
        // Of forty, twelve came in as money and twenty-eight were owed; seven of money went back.
        let quickbooks = ["DepositToAccountRef", "value"];
        match books {
            Books::Receipts => {
                assert_eq!(on_bank("SalesReceipt", quickbooks), ["12"]);
                assert_eq!(on_bank("RefundReceipt", quickbooks), ["7"]);
                let receipt = &entities(&run, "SalesReceipt")[0];
                assert_eq!(
                    posted_to(&run, receipt),
                    ["Services", GIFT_CARDS, "Services", TIPS, GIFT_CARDS]
                );
            }
            Books::Invoices => {
                assert_eq!(on_bank("Payment", quickbooks), ["12"]);
                assert_eq!(on_bank("RefundReceipt", quickbooks), ["7"]);
                assert_eq!(entities(&run, "Invoice")[0]["Balance"].as_f64(), Some(0.0));
            }
            Books::Xero => {
                assert_eq!(on_bank("Payments", ["Account", "AccountID"]), ["12", "7"]);
                let invoice = &entities(&run, "Invoices")[0];
                assert_eq!(invoice["Status"], "PAID");
            }
        }
    }
}

#[test]
fn guests_are_booked_on_the_customer_that_is_named() {
    for books in [Books::Receipts, Books::Xero] {
        let mut run = Run::of(SEED, books, |_| Shop::default());
        let names = |run: &Run| -> Vec<String> {
            let (entity, name) = match books {
                Books::Xero => ("Contacts", "Name"),
                _ => ("Customer", "DisplayName"),
            };
            let all = entities(run, entity);
            let mut names: Vec<String> = all
                .iter()
                .map(|one| one[name].as_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        let now = |run: &Run| run.ctx.now().format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let before = now(&run);
        // Nobody was booked yet, so the name is for all that ever was.
        set(&run, json!({ "guest_customer": "Web shop" })).unwrap();
        sell(&mut run, "A", &before, 0);
        assert_eq!(names(&run), ["Web shop"], "{books:?}");
        run.world.advance(Duration::from_secs(60));
        set(&run, json!({ "guest_customer": "Till" })).unwrap();
        sell(&mut run, "B", &before, 0);
        assert_eq!(names(&run), ["Web shop"], "B was ordered before");
        run.world.advance(Duration::from_secs(60));
        let after = now(&run);
        sell(&mut run, "C", &after, 0);
        assert_eq!(names(&run), ["Till", "Web shop"], "{books:?}");
    }
}

/// Where nothing is booked, there is nobody to book on.
#[test]
fn customers_are_named_only_where_orders_are_booked() {
    let world = World::new(SEED);
    let ctx = world.ctx();
    let connected = |name: &str| {
        alone(async {
            let mut one = cell::connection(&ctx, name, 1).await;
            let stored = connection::store(&ctx, &mut one, None, Along::default()).await;
            assert!(stored.unwrap());
            one
        })
    };
    for name in ["hubspot", "quickbooks"] {
        let one = connected(name);
        let set = |settings: Value| {
            let settings: Settings = serde_json::from_value(settings).unwrap();
            let done = alone(manage::set(&ctx, &one.merchant_id, &one.id, settings));
            done.map(|one| one.settings)
                .map_err(|error| error.fields()[0].pointer.clone())
        };
        for member in ["guest_customer", "daily_customer"] {
            let asked = set(json!({ member: "Web shop" }));
            match name {
                "hubspot" => assert_eq!(asked, Err(format!("#/settings/{member}"))),
                _ => assert!(asked.is_ok(), "{asked:?}"),
            }
        }
        set(json!({ "label": "Ours", "guest_customer": null })).unwrap();
    }
}

/// A category takes up the name of an item, and cannot be sold.
#[test]
fn goods_that_are_named_like_a_category_have_an_item_beside_it() {
    for kind in ["Category", "Group"] {
        let mut run = Run::new(SEED, Shop::one_order);
        let goods: Vec<String> = run.shop().expected.skus.iter().cloned().collect();
        for name in goods.iter().filter(|name| *name != "REFUND") {
            let item = json!({ "Name": name, "Type": kind });
            books::quickbooks(&run, "item", &item);
        }
        let unsent = std::mem::take(&mut run.unsent);
        run.whole(Job::Accept(unsent));
        run.drain();
        let receipts = entities(&run, "SalesReceipt");
        let lines = receipts.iter().filter_map(|one| one["Line"].as_array());
        let named = lines.flatten().filter_map(|line| {
            let item = &line["SalesItemLineDetail"]["ItemRef"];
            item["name"].as_str().map(str::to_owned)
        });
        let beside: Vec<String> = named.filter(|name| name.ends_with(" (shop)")).collect();
        assert!(!beside.is_empty(), "{kind}: {receipts:?}");
        assert_eq!(run.parked(), BTreeSet::new(), "{kind}");
    }
}

/// A company that numbers its forms itself passes over our numbers; nothing else is different.
#[test]
fn a_company_that_numbers_its_forms_itself_has_the_same_books() {
    for books in [Books::Receipts, Books::Invoices] {
        let mut run = Run::of(SEED, books, |dice| Shop::sized(dice, Size::Large, books));
        let company = json!({ "custom_transaction_numbers": false }).to_string();
        alone(run.world.control("POST", "realms", &company));
        for index in std::mem::take(&mut run.unsent) {
            run.whole(Job::Accept(vec![index]));
        }
        run.drain();
        assert_eq!(run.check(), Ok(()), "{books:?}");
        for _ in 0..2 {
            pull::pulled(&run);
            run.drain();
        }
        assert_eq!(pull::told(&run), Vec::<Value>::new(), "{books:?}: an echo");
        let (_, differences) = pull::open_differences(&mut run);
        assert_eq!(differences, [], "{books:?}");
        assert_eq!(run.check(), Ok(()), "{books:?}");
    }
}
