//! Companies outside of the United States in QuickBooks: which of their tax codes a sale names, and that
//! the books show the shop's tax to the last unit.

use crate::books::work;
use crate::run::{Job, Run, alone, merchant, set_up_as};
use crate::shop::{MERCHANT, Shop};
use crate::world::{Dice, start};
use chrono::TimeDelta;
use crossdock::engine::again::{self, Wanted};
use crossdock::oauth::connection::{Posting, Settings};
use crossdock::oauth::manage;
use crossdock::store::{Condition, Store, Write, keys};
use crossdock::sync::push::{Link, LinkState};
use futures::FutureExt;
use rust_decimal::Decimal;
use serde_json::{Value, json};

const SEED: u64 = 7;
const DAY: &str = "2026-01-01T09:00:00Z";

fn abroad(country: &str, currency: &str) -> Run {
    let company = json!({ "country": country, "home_currency": currency });
    Run::abroad(SEED, company)
}

/// Entities of the company, by the vendor's own query.
fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let path = format!("entities/{entity}?realm=44");
    let all = alone(run.world.control("GET", &path, ""));
    all.as_array().unwrap().clone()
}

fn accept(run: &mut Run, kind: &str, id: &str, data: Value) {
    let shop: &mut Shop = run.shop();
    shop.events.push(json!({
        "id": id, "type": kind, "merchant_id": MERCHANT, "occurred_at": DAY, "data": data,
    }));
    let index = shop.events.len() - 1;
    run.whole(Job::Accept(vec![index]));
}

fn money(amount: i64, currency: &str) -> Value {
    json!({ "amount": amount, "currency": currency })
}

/// Sells and pays what `order` says beside the usual, and pushes it.
fn sell(run: &mut Run, id: &str, currency: &str, mut order: Value) {
    let total = order["total"].as_i64().unwrap();
    order["total"] = money(total, currency);
    order["id"] = json!(id);
    order["number"] = json!(id);
    order["version"] = json!(1);
    order["currency"] = json!(currency);
    order["placed_at"] = json!(DAY);
    order["customer"] = Value::Null;
    accept(run, "order.created", &format!("{id}-order"), order);
    let payment = json!({
        "id": "p", "order_id": id, "outcome": "succeeded", "amount": money(total, currency),
        "method": "card", "processed_at": DAY,
    });
    accept(run, "payment.processed", &format!("{id}-paid"), payment);
    run.relay_and_push();
}

fn line(sku: &str, amount: i64, currency: &str, taxable: bool) -> Value {
    json!({
        "sku": sku, "name": sku, "quantity": "1", "taxable": taxable,
        "unit_price": Decimal::new(amount, 2).to_string(), "total": money(amount, currency),
    })
}

fn tax(rate: &str, amount: i64, currency: &str) -> Value {
    json!({ "name": "Tax", "rate": rate, "amount": money(amount, currency) })
}

fn link(run: &Run, kind: &str, id: &str) -> Link {
    let key = keys::link(&merchant(), &run.connection().id, kind, id);
    let item = run.world.memory.get(&key).now_or_never().unwrap().unwrap();
    item.unwrap().read().unwrap()
}

fn stands(run: &Run, kind: &str, id: &str) {
    let link = link(run, kind, id);
    assert_eq!(link.state, LinkState::Synced, "{:?}", link.problem);
}

fn receipt(run: &Run, entity: &str, id: &str) -> Value {
    let mut all = entities(run, entity).into_iter();
    all.find(|one| one["DocNumber"] == id).unwrap()
}

/// A number without what says nothing.
fn plain(number: &Value) -> String {
    let number: Decimal = number.to_string().parse().unwrap();
    number.normalize().to_string()
}

/// The name of each line's tax code, and the net amount of the line.
fn coded(run: &Run, receipt: &Value) -> Vec<(String, String)> {
    let codes = entities(run, "TaxCode");
    let lines = receipt["Line"].as_array().unwrap().iter();
    let sold = lines.filter_map(|line| Some((line.get("SalesItemLineDetail")?, line)));
    sold.map(|(sold, line)| {
        let code = codes
            .iter()
            .find(|code| code["Id"] == sold["TaxCodeRef"]["value"]);
        let name = code.map_or("", |code| code["Name"].as_str().unwrap());
        (name.to_owned(), plain(&line["Amount"]))
    })
    .collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(one, other): &(&str, &str)| ((*one).to_owned(), (*other).to_owned());
    expected.iter().map(owned).collect()
}

/// The tax of each rate with what it is reckoned on.
fn taxed(receipt: &Value) -> Vec<(String, String)> {
    let lines = receipt["TxnTaxDetail"]["TaxLine"].as_array();
    let one = |line: &Value| {
        let net = &line["TaxLineDetail"]["NetAmountTaxable"];
        (plain(&line["Amount"]), plain(net))
    };
    lines.into_iter().flatten().map(one).collect()
}

#[test]
fn britain_names_a_code_for_each_line_and_shows_prices_with_their_tax() {
    let mut run = abroad("GB", "GBP");
    let sold = json!({
        "lines": [line("A", 12000, "GBP", true), line("BOOK", 1000, "GBP", false)],
        "shipping": { "name": "Post", "amount": money(600, "GBP") },
        "tip": money(300, "GBP"), "prices_include_tax": true,
        "taxes": [tax("20", 2100, "GBP")], "total": 13900,
    });
    sell(&mut run, "S-1", "GBP", sold);
    stands(&run, "order", "S-1");
    let made = receipt(&run, "SalesReceipt", "S-1");
    assert_eq!(made["GlobalTaxCalculation"], "TaxInclusive");
    assert_eq!(
        coded(&run, &made),
        pairs(&[
            ("20.0% S", "100"),
            ("0% Z", "10"),
            ("20.0% S", "5"),
            ("No VAT", "3")
        ])
    );
    let gross = &made["Line"][0]["SalesItemLineDetail"]["TaxInclusiveAmt"];
    assert_eq!(gross.as_f64(), Some(120.0));
    assert_eq!(taxed(&made), pairs(&[("21", "105")]));
    assert_eq!(made["TotalAmt"].as_f64(), Some(139.0));

    // With a discount, amounts go without their tax, the discount as well.
    let sold = json!({
        "lines": [line("A", 12000, "GBP", true)], "prices_include_tax": true,
        "discounts": [{ "name": "Sale", "amount": money(1200, "GBP") }],
        "taxes": [tax("20", 1800, "GBP")], "total": 10800,
    });
    sell(&mut run, "S-2", "GBP", sold);
    stands(&run, "order", "S-2");
    let made = receipt(&run, "SalesReceipt", "S-2");
    assert_eq!(made["GlobalTaxCalculation"], "TaxExcluded");
    assert_eq!(made["Line"][1]["Amount"].as_f64(), Some(10.0));
    assert_eq!(taxed(&made), pairs(&[("18", "90")]));
    assert_eq!(made["TotalAmt"].as_f64(), Some(108.0));

    // Nothing is taxed: codes all the same, since the return counts these sales too.
    let sold = json!({ "lines": [line("BOOK", 1000, "GBP", false)], "total": 1000 });
    sell(&mut run, "S-3", "GBP", sold);
    stands(&run, "order", "S-3");
    let made = receipt(&run, "SalesReceipt", "S-3");
    assert_eq!(coded(&run, &made), pairs(&[("0% Z", "10")]));
    // Part of the first goes back, with the rate of its order.
    let refund = json!({
        "id": "r-1", "order_id": "S-1", "amount": money(6000, "GBP"), "tax": money(1000, "GBP"),
        "refunded_at": DAY,
    });
    accept(&mut run, "order.refunded", "r-1", refund);
    run.relay_and_push();
    stands(&run, "refund", "r-1");
    let made = receipt(&run, "RefundReceipt", "r-1");
    assert_eq!(coded(&run, &made), pairs(&[("20.0% S", "50")]));
    assert_eq!(taxed(&made), pairs(&[("10", "50")]));
    // The same, told as it was sold.
    let refund = json!({
        "id": "r-2", "order_id": "S-1", "amount": money(6000, "GBP"), "tax": money(1000, "GBP"),
        "lines": [line("A", 6000, "GBP", true)], "prices_include_tax": true, "refunded_at": DAY,
    });
    accept(&mut run, "order.refunded", "r-2", refund);
    run.relay_and_push();
    stands(&run, "refund", "r-2");
    let made = receipt(&run, "RefundReceipt", "r-2");
    assert_eq!(made["GlobalTaxCalculation"], "TaxInclusive");
    assert_eq!(coded(&run, &made), pairs(&[("20.0% S", "50")]));
    assert_eq!(taxed(&made), pairs(&[("10", "50")]));
    assert_eq!(made["TotalAmt"].as_f64(), Some(60.0));
}

#[test]
fn canada_finds_the_code_of_both_taxes_and_australia_its_one() {
    let mut run = abroad("CA", "CAD");
    let sold = |taxes: Value, total: i64| json!({ "lines": [line("A", 10001, "CAD", true)], "taxes": taxes, "total": total });
    let both = json!([tax("5", 500, "CAD"), tax("7", 700, "CAD")]);
    sell(&mut run, "bc", "CAD", sold(both, 11201));
    let both = json!([tax("9.975", 998, "CAD"), tax("5", 500, "CAD")]);
    sell(&mut run, "qc", "CAD", sold(both, 11499));
    let one = json!([tax("13", 1300, "CAD")]);
    sell(&mut run, "on", "CAD", sold(one, 11301));
    // The shop tells both taxes as one: the code that comes to it, and the tax in its parts.
    let one = json!([tax("12", 1200, "CAD")]);
    sell(&mut run, "bc-2", "CAD", sold(one, 11201));
    for (id, code, taxes) in [
        (
            "bc",
            "GST/PST BC",
            pairs(&[("5", "100.01"), ("7", "100.01")]),
        ),
        (
            "qc",
            "GST/QST QC - 9.975",
            pairs(&[("5", "100.01"), ("9.98", "100.01")]),
        ),
        ("on", "HST ON", pairs(&[("13", "100.01")])),
        (
            "bc-2",
            "GST/PST BC",
            pairs(&[("5", "100.01"), ("7", "100.01")]),
        ),
    ] {
        stands(&run, "order", id);
        let made = receipt(&run, "SalesReceipt", id);
        assert_eq!(coded(&run, &made), pairs(&[(code, "100.01")]), "{id}");
        assert_eq!(taxed(&made), taxes, "{id}");
    }

    let mut run = abroad("AU", "AUD");
    let sold = json!({
        "lines": [line("A", 10000, "AUD", true), line("MILK", 500, "AUD", false)],
        "taxes": [tax("10", 1000, "AUD")], "total": 11500,
    });
    sell(&mut run, "S-1", "AUD", sold);
    stands(&run, "order", "S-1");
    let made = receipt(&run, "SalesReceipt", "S-1");
    assert_eq!(
        coded(&run, &made),
        pairs(&[("GST", "100"), ("GST free", "5")])
    );
}

#[test]
fn a_rate_that_the_company_lacks_is_named_and_taken_up_once_it_is_there() {
    let mut run = abroad("GB", "GBP");
    let sold = json!({
        "lines": [line("A", 10000, "GBP", true)], "taxes": [tax("12.5", 1250, "GBP")],
        "total": 11250,
    });
    sell(&mut run, "S-1", "GBP", sold);
    let parked = link(&run, "order", "S-1");
    assert_eq!(parked.state, LinkState::Parked);
    let problem = parked.problem.unwrap();
    assert_eq!(problem.code, "no_tax_rate");
    assert!(problem.detail.contains("12.5 %"), "{}", problem.detail);
    assert!(entities(&run, "SalesReceipt").is_empty());
    let more = json!({
        "realm": "44", "country": "GB", "home_currency": "GBP",
        "tax_codes": [{ "name": "12.5%", "percent": "12.5" }],
    });
    alone(run.world.control("POST", "realms", &more.to_string()));
    let wanted = Wanted::Code(problem.code, None);
    alone(again::retry(&run.ctx, &run.connection(), wanted)).unwrap();
    let notices = run.receive_all();
    run.whole(Job::Push(notices));
    stands(&run, "order", "S-1");

    // Two taxes on different lines cannot be told apart.
    let sold = json!({
        "lines": [line("A", 10000, "GBP", true), line("B", 10000, "GBP", true)],
        "taxes": [tax("20", 2000, "GBP"), tax("5", 500, "GBP")], "total": 22500,
    });
    sell(&mut run, "S-2", "GBP", sold);
    let problem = link(&run, "order", "S-2").problem.unwrap();
    assert_eq!(problem.code, "several_taxes");

    // Where no tax is kept at all, a sale without tax is posted, and one with it is not.
    let company = json!({ "country": "GB", "home_currency": "GBP", "sales_tax": false });
    let mut run = Run::abroad(SEED, company);
    let sold = json!({ "lines": [line("A", 1000, "GBP", true)], "total": 1000 });
    sell(&mut run, "S-1", "GBP", sold);
    stands(&run, "order", "S-1");
    let sold = json!({
        "lines": [line("A", 1000, "GBP", true)], "taxes": [tax("20", 200, "GBP")], "total": 1200,
    });
    sell(&mut run, "S-2", "GBP", sold);
    let problem = link(&run, "order", "S-2").problem.unwrap();
    assert_eq!(problem.code, "sales_tax_off");
}

/// A company in the United States of before tax was automated names a group of taxes, or QuickBooks would
/// drop the tax.
#[test]
fn where_tax_is_not_automated_its_group_is_named() {
    let company = json!({
        "country": "US", "home_currency": "USD", "automated_sales_tax": false,
        "automated_tax_percent": "8",
    });
    let mut run = Run::abroad(SEED, company);
    let sold = |rate: &str, amount: i64| {
        json!({
            "lines": [line("A", 1000, "USD", true), line("B", 500, "USD", false)],
            "taxes": [tax(rate, amount, "USD")], "total": 1500 + amount,
        })
    };
    // The shop's tax is what counts, whatever the rate comes to.
    sell(&mut run, "S-1", "USD", sold("8", 81));
    stands(&run, "order", "S-1");
    let made = receipt(&run, "SalesReceipt", "S-1");
    assert_eq!(plain(&made["TotalAmt"]), "15.81", "{made}");
    assert_eq!(made["TxnTaxDetail"]["TxnTaxCodeRef"]["value"], "1");
    sell(&mut run, "S-2", "USD", sold("9", 90));
    let problem = link(&run, "order", "S-2").problem.unwrap();
    assert_eq!(problem.code, "no_tax_rate");
}

/// Whatever is sold, the vendor's rules make the shop's total of it.
#[test]
fn any_sale_is_worth_there_what_it_was_here() {
    for (country, currency, rates) in [
        ("GB", "GBP", &["20", "5"][..]),
        ("AU", "AUD", &["10"]),
        ("CA", "CAD", &["5", "13", "12", "14.975"]),
        ("US", "USD", &["8"]),
    ] {
        let mut run = Run::abroad(
            SEED,
            json!({
                "country": country, "home_currency": currency, "automated_sales_tax": false,
                "automated_tax_percent": "8",
            }),
        );
        let mut dice = Dice::new(SEED);
        let mut totals = Vec::new();
        for number in 0..40 {
            let included = dice.per_mille(500);
            let rate = *dice.pick(rates);
            let percent: Decimal = rate.parse().unwrap();
            let (mut lines, mut bears, mut total) = (Vec::new(), 0, 0);
            for index in 0..=dice.below(4) {
                let amount = 1 + dice.below(9_999) as i64;
                let taxable = index == 0 || dice.per_mille(700);
                lines.push(line(&format!("SKU-{index}"), amount, currency, taxable));
                bears += if taxable { amount } else { 0 };
                total += amount;
            }
            let mut order = json!({ "lines": lines, "prices_include_tax": included });
            if dice.per_mille(400) {
                let amount = 1 + dice.below(900) as i64;
                order["shipping"] = json!({ "name": "", "amount": money(amount, currency) });
                bears += if dice.per_mille(500) { amount } else { 0 };
                total += amount;
            }
            if dice.per_mille(400) {
                let amount = 1 + dice.below(bears as usize) as i64;
                let amount = amount.min(total);
                order["discounts"] = json!([{ "name": "", "amount": money(amount, currency) }]);
                bears -= if dice.per_mille(700) { amount } else { 0 };
                total -= amount;
            }
            let whole = Decimal::ONE_HUNDRED + if included { percent } else { Decimal::ZERO };
            let amount = (Decimal::from(bears.max(0)) * percent / whole).round();
            let amount: i64 = amount.to_string().parse().unwrap();
            if amount > 0 && (!included || amount <= total) {
                order["taxes"] = json!([tax(rate, amount, currency)]);
                total += if included { 0 } else { amount };
            }
            order["total"] = json!(total);
            let id = format!("S-{number}");
            sell(&mut run, &id, currency, order);
            stands(&run, "order", &id);
            totals.push((id, total));
        }
        for (id, total) in totals {
            let made = receipt(&run, "SalesReceipt", &id);
            let there: Decimal = made["TotalAmt"].to_string().parse().unwrap();
            assert_eq!(there, Decimal::new(total, 2), "{country} {id}: {made}");
        }
    }
}

/// A day with prices that hold their tax and prices that do not, and with two rates.
#[test]
fn a_daily_summary_names_the_code_of_each_of_its_orders() {
    let mut run = abroad("GB", "GBP");
    run.relay_and_push();
    let settings = Settings {
        posting: Posting::Daily,
        posting_from: Some(start().date_naive()),
        ..Settings::default()
    };
    let (merchant, id) = (merchant(), run.connection().id);
    alone(manage::set(&run.ctx, &merchant, &id, settings)).unwrap();
    let goods = |amount: i64, taxable: bool| line("mug", amount, "GBP", taxable);
    let included = json!({
        "lines": [goods(12_000, true)], "prices_include_tax": true, "total": 12_000,
        "taxes": [tax("20", 2_000, "GBP")],
    });
    let reduced = json!({
        "lines": [goods(10_000, true), goods(5_000, false)], "total": 15_000,
        "discounts": [{ "name": "Sale", "amount": money(500, "GBP") }],
        "taxes": [tax("5", 500, "GBP")],
    });
    let plain_one = json!({
        "lines": [goods(1_000, true)], "total": 1_250, "tip": money(50, "GBP"),
        "taxes": [tax("20", 200, "GBP")],
    });
    for (id, order) in [("1", included), ("2", reduced), ("3", plain_one)] {
        sell(&mut run, id, "GBP", order);
    }
    let night = start() + TimeDelta::days(1) + TimeDelta::minutes(140);
    let left = night - run.world.state().now;
    run.world.advance(left.to_std().unwrap());
    run.whole(Job::Plan);
    work(&mut run, None);
    stands(&run, "order", "daily-2026-01-01-shop-gbp");
    let receipts = entities(&run, "SalesReceipt");
    let [receipt] = receipts.as_slice() else {
        panic!("{receipts:?}")
    };
    assert_eq!(plain(&receipt["TotalAmt"]), "282.5");
    let mut codes = coded(&run, receipt);
    codes.sort();
    assert_eq!(
        codes,
        pairs(&[
            ("0% Z", "50"),
            ("20.0% S", "10"),
            ("20.0% S", "100"),
            ("5.0% R", "100"),
            ("No VAT", "0.5"),
        ])
    );
    let mut taxes = taxed(receipt);
    taxes.sort();
    assert_eq!(taxes, pairs(&[("22", "110"), ("5", "100")]));
}

/// A merchant with two companies: what keeps one of them from being written to does not keep the other.
#[test]
fn the_books_of_one_company_do_not_wait_for_those_of_another() {
    let mut run = abroad("GB", "GBP");
    let another = json!({ "country": "GB", "home_currency": "GBP", "realm": "45" });
    alone(run.world.control("POST", "realms", &another.to_string()));
    let second = alone(set_up_as(&run.world, &run.ctx, &merchant(), "45"));
    let first = run.connection().id;
    for (spoilt, well) in [(&first, "45"), (&second, "44")] {
        // How many calls are left of this one, nobody can read.
        let write = Write::put(
            keys::budget(&merchant(), spoilt),
            Condition::Any,
            &json!([]),
        )
        .unwrap();
        alone(run.world.memory.write(write)).unwrap();
        let id = format!("S-{well}");
        let sold = json!({ "lines": [line("A", 1000, "GBP", true)], "total": 1000 });
        sell(&mut run, &id, "GBP", sold);
        let path = format!("entities/SalesReceipt?realm={well}");
        let all = alone(run.world.control("GET", &path, ""));
        let numbers = all.as_array().unwrap().iter();
        assert!(numbers.clone().any(|one| one["DocNumber"] == id), "{all}");
        let write = Write::Delete {
            key: keys::budget(&merchant(), spoilt),
            condition: Condition::Any,
        };
        alone(run.world.memory.write(write)).unwrap();
    }
}
