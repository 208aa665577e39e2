//! One merchant with two sets of books: what it sells stands in QuickBooks and in Xero, equal to the
//! penny, and what Xero cannot take is said in the ledger.

use crate::providers::PROVIDERS;
use crate::world::{Sale, Shop, World, decimals, event, order, refund, sale, wait};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const ORDERS: usize = 45;
const REFUNDS: usize = 10;
const CURRENCIES: [&str; 3] = ["USD", "EUR", "JPY"];

/// By record, the currency and the minor units of its documents.
type Books = BTreeMap<String, Vec<(String, i64)>>;

pub async fn test(world: Arc<World>) {
    let xero = PROVIDERS.iter().find(|one| one.name == "xero");
    let shop = world.shop_at(xero.expect("Xero"), "xero").await;
    let organisation = json!({
        "tenant": shop.account.id, "country": "US", "base_currency": "USD",
        "currencies": ["EUR", "JPY"],
    });
    world
        .at(shop.provider, "organisations", Some(organisation))
        .await;
    let connection = world.connect(&shop).await;
    let other = world.shop("xero-beside").await;
    let beside = Shop {
        merchant: shop.merchant.clone(),
        ..other
    };
    let in_quickbooks = world.connect(&beside).await;

    let sales: Vec<Sale> = (0..ORDERS)
        .map(|number| {
            let minor = 1000 + 137 * number as i64;
            sale(&shop, number, minor, CURRENCIES[number % 3])
        })
        .collect();
    let mut events: Vec<Value> = sales.iter().flat_map(|one| one.events.clone()).collect();
    // Nobody has paid for this one, and Xero does not know the currency of the next.
    let open = format!("{}-open", shop.merchant);
    let created = order(&open, 1, 777, "USD");
    events.push(event(&shop, &format!("{open}-c"), "order.created", created));
    let strange = format!("{}-strange", shop.merchant);
    let created = order(&strange, 1, 888, "CHF");
    let id = format!("{strange}-c");
    events.push(event(&shop, &id, "order.created", created));
    for events in events.chunks(100) {
        let answer = world
            .post("/api/v1/events", &json!({ "events": events }))
            .await;
        answer.expect(200);
    }
    let mut refunds = Books::new();
    let back: Vec<Value> = sales[..REFUNDS]
        .iter()
        .map(|one| {
            let id = format!("{}-r", one.order);
            refunds.insert(id.clone(), vec![(one.currency.to_owned(), 300)]);
            let data = refund(&id, &one.order, 300, one.currency);
            event(&shop, &format!("{id}-e"), "order.refunded", data)
        })
        .collect();
    let answer = world
        .post("/api/v1/events", &json!({ "events": back }))
        .await;
    answer.expect(200);

    let amount = |one: &Sale| vec![(one.currency.to_owned(), one.minor)];
    let receipts: Books = sales
        .iter()
        .map(|one| (one.order.clone(), amount(one)))
        .collect();
    let paid: Books = sales
        .iter()
        .map(|one| {
            let payment = format!("{0}/{0}-p", one.order);
            (payment, amount(one))
        })
        .collect();
    let mut invoices = receipts.clone();
    invoices.insert(open, vec![("USD".to_owned(), 777)]);
    let mut money = paid;
    money.extend(refunds.clone());
    wait("the books of two providers", || async {
        let found = [
            (
                "receipts",
                &receipts,
                world.books(&beside, "SalesReceipt").await,
            ),
            (
                "refund receipts",
                &refunds,
                world.books(&beside, "RefundReceipt").await,
            ),
            (
                "invoices",
                &invoices,
                books(&world, &shop, "Invoices", "Total").await,
            ),
            (
                "credit notes",
                &refunds,
                books(&world, &shop, "CreditNotes", "Total").await,
            ),
            (
                "payments",
                &money,
                books(&world, &shop, "Payments", "Amount").await,
            ),
        ];
        let progress = found.iter().map(|(_, _, found)| found.len()).sum();
        let missing = found
            .iter()
            .filter(|(_, expected, found)| *expected != found);
        let missing = missing.map(|(what, expected, found)| {
            format!("{what}: {} of {}", found.len(), expected.len())
        });
        (missing.collect(), progress)
    })
    .await;

    let values = json!({ ":pk": { "S": format!("{}/{connection}", shop.merchant) } });
    let strange = format!("order/{strange}");
    wait("what Xero cannot take", || async {
        let rows = world.rows("TableLedger", Some(("pk = :pk", &values))).await;
        let row = rows.iter().find(|((_, sk), _)| *sk == strange);
        let row = row.map(|(_, row)| row.to_string()).unwrap_or_default();
        let told = row.contains("currency_off") && row.contains("parked");
        (if told { Vec::new() } else { vec![row] }, 0)
    })
    .await;

    // What stands there already is not sent again, and both books are what the shop says.
    for (connection, refused) in [(connection.to_string(), 1), (in_quickbooks.to_string(), 0)] {
        let done = over(&world, &shop, &connection, "backfill").await;
        assert_eq!(
            (&done["sent"], &done["failed"]),
            (&json!(0), &json!(refused)),
            "{done}"
        );
        let found = over(&world, &shop, &connection, "reconcile").await;
        assert_eq!(found["found"]["missing"], json!(refused), "{found}");
        for class in ["doubled", "changed_there", "changed_here"] {
            assert_eq!(found["found"][class], json!(0), "{found}");
        }
        let documents = &found["documents"];
        let ours = documents["ours"].as_u64().expect("a number");
        assert_eq!(documents["theirs"], json!(ours - refused), "{found}");
    }
}

/// Asks for one of the two over the days of this test, and waits until it is over.
async fn over(world: &World, shop: &Shop, connection: &str, what: &str) -> Value {
    let base = format!("/api/v1/integrations/accounting/{connection}");
    let window = json!({ "merchant_id": shop.merchant, "from": "2026-02-01", "to": "2026-02-02" });
    let begun = world.post(&format!("{base}/{what}"), &window).await;
    let begun = begun.expect(202).json();
    let place = match what {
        "backfill" => "backfill".to_owned(),
        _ => format!("reconciliations/{}", begun["id"].as_str().expect("an id")),
    };
    let address = format!("{base}/{place}?merchant_id={}", shop.merchant);
    wait(what, async || {
        let now = world.get(&address).await.expect(200).json();
        match now["state"] == "done" {
            true => (Vec::new(), 0),
            false => (vec![now.to_string()], 0),
        }
    })
    .await;
    world.get(&address).await.expect(200).json()
}

/// What Xero holds of one kind. A payment has the currency of what it settles.
async fn books(world: &World, shop: &Shop, entity: &str, total: &str) -> Books {
    let path = format!("entities/{entity}?tenant={}", shop.account.id);
    let all = world.at(shop.provider, &path, None).await;
    let mut books = Books::new();
    for document in all.as_array().expect("a list") {
        let reference = document["Reference"].as_str().unwrap_or_default();
        let record = reference.split_whitespace().last().unwrap_or("nobody's");
        let own = document["CurrencyCode"].as_str();
        let currency = own.or(document["Invoice"]["CurrencyCode"].as_str());
        let currency = currency.expect("a currency");
        let total: Decimal = document[total].to_string().parse().expect("an amount");
        let minor = total * Decimal::from(10_i64.pow(decimals(currency)));
        let amount = (currency.to_owned(), minor.to_i64().expect("not that rich"));
        books.entry(record.to_owned()).or_default().push(amount);
    }
    books
}
