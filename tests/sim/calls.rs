//! How many calls a backlog of orders takes, beside the fewest that the provider's batch sizes allow.

use crate::run::{Books, Run};
use crate::shop::Shop;
use crossdock::providers::Tenant;
use crossdock::providers::accounting::accounting;
use crossdock::sync::push::Form;

const ORDERS: usize = 1000;
/// Messages that one function takes from its queue, as the template says.
const BATCH_SIZE: usize = 300;
const SKUS: usize = 60;

fn carry(books: Books) {
    let mut run = Run::of(1, books, |_| Shop::backlog(ORDERS, SKUS));
    let calls = run.carry_all(BATCH_SIZE);
    let provider = accounting(run.world.vendor.name()).unwrap();
    let (find, create) = (provider.find_max(), provider.create_max());
    let named = |count: usize| count.div_ceil(find) + count.div_ceil(create);
    let documents = ORDERS.div_ceil(provider.write_max(Form::Invoice));
    let payments = if books == Books::Receipts {
        0
    } else {
        documents
    };
    let tenant = Tenant {
        api: "https://provider.example".parse().unwrap(),
        id: "1".to_owned(),
    };
    let settings = provider.settings_requests(&tenant).len();
    // Each order is of another customer.
    let least = settings + named(ORDERS) + named(SKUS) + documents + payments;
    let ratio = calls as f64 / least as f64;
    println!("{books:?}: {calls} calls for {ORDERS} paid orders, {ratio:.3} of the least, {least}");
    run.check().unwrap();
    assert!(ratio <= 1.1, "{calls} calls, where {least} would do");
}

#[test]
fn receipts_take_few_calls() {
    carry(Books::Receipts);
}

#[test]
fn invoices_take_few_calls() {
    carry(Books::Invoices);
}

#[test]
fn xero_takes_few_calls() {
    carry(Books::Xero);
}
