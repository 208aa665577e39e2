//! Payments of one order whose price goes up and down: what each settles of the invoice changes with it.

use crate::run::{Books, Job, Run, merchant};
use crate::shop::{MERCHANT, Shop};
use crossdock::store::{Store, keys};
use crossdock::sync::push::{Link, LinkState};
use futures::FutureExt;
use serde_json::{Value, json};

const SEED: u64 = 42;
/// What the payments bring, in the order in which they came.
const PAID: [i64; 3] = [3000, 4000, 5000];

fn money(amount: i64) -> Value {
    json!({ "amount": amount, "currency": "USD" })
}

fn event(id: String, kind: &str, data: &Value) -> Value {
    json!({
        "id": id, "type": kind, "merchant_id": MERCHANT,
        "occurred_at": "2026-01-01T10:00:00Z", "data": data,
    })
}

fn order(version: usize, total: i64) -> Value {
    let kind = if version == 1 {
        "order.created"
    } else {
        "order.updated"
    };
    let price = format!("{}.{:02}", total / 100, total % 100);
    let data = json!({
        "id": "1001", "version": version, "number": "1001", "currency": "USD",
        "placed_at": "2026-01-01T09:00:00Z", "customer": null, "total": money(total),
        "lines": [{
            "sku": "MUG", "name": "Mug", "quantity": "1", "unit_price": price, "total": money(total),
        }],
    });
    event(format!("v{version}"), kind, &data)
}

fn payment(number: usize) -> Value {
    let data = json!({
        "id": format!("p{number}"), "order_id": "1001", "outcome": "succeeded",
        "amount": money(PAID[number]), "method": "card",
        "processed_at": format!("2026-01-01T09:0{number}:00Z"),
    });
    event(format!("paid-{number}"), "payment.processed", &data)
}

fn tell(run: &mut Run, events: impl IntoIterator<Item = Value>) {
    let begin = run.shop().events.len();
    run.shop().events.extend(events);
    let end = run.shop().events.len();
    run.whole(Job::Accept((begin..end).collect()));
    run.relay_and_push();
}

fn entities(run: &Run, entity: &str) -> Vec<Value> {
    let path = format!("entities/{entity}");
    let all = crate::run::alone(run.world.control("GET", &path, ""));
    all.as_array().unwrap().clone()
}

/// What each payment settles there, in whole minor units.
fn settled(run: &Run) -> [i64; 3] {
    let all = entities(run, "Payment");
    [0, 1, 2].map(|number| {
        let name = format!("p{number}");
        let one = all.iter().find(|one| one["PaymentRefNum"] == name.as_str());
        let lines = one.unwrap()["Line"].as_array().cloned().unwrap_or_default();
        let amounts = lines.iter().map(|line| line["Amount"].as_f64().unwrap());
        (amounts.sum::<f64>() * 100.0).round() as i64
    })
}

/// Every way from one price to another: wherever one payment is to settle less so that another can settle
/// what is left, no order of the two ends with one of them parked.
#[test]
fn whatever_an_order_comes_to_cost_its_payments_settle_it() {
    let prices = [1000, 3000, 5000, 7000, 9000, 12_000, 15_000];
    for (from, to) in prices.iter().flat_map(|from| prices.map(|to| (*from, to))) {
        let mut run = Run::of(SEED, Books::Invoices, |_| Shop::default());
        tell(&mut run, [order(1, from)]);
        tell(&mut run, (0..PAID.len()).map(payment));
        for (version, price) in [(1, from), (2, to), (3, from)] {
            if version > 1 {
                tell(&mut run, [order(version, price)]);
            }
            let mut open = price;
            let expected = PAID.map(|paid| {
                let settles = paid.min(open);
                open -= settles;
                settles
            });
            let what = format!("from {from} to {to}, version {version}");
            assert_eq!(settled(&run), expected, "{what}");
            for number in 0..PAID.len() {
                let (id, row) = (run.connection().id, format!("1001~p{number}"));
                let key = keys::link(&merchant(), &id, "payment", &row);
                let item = run.world.memory.get(&key).now_or_never().unwrap();
                let link: Link = item.unwrap().unwrap().read().unwrap();
                assert_eq!(link.state, LinkState::Synced, "{what}: {:?}", link.problem);
            }
        }
    }
}
