//! A category that is switched off: nothing of it is offered, shown, renewed or sent.

use crate::run::{alone, set_up};
use crate::shop::{MERCHANT, Shop};
use crate::world::{PLATFORM_KEY, PUBLIC_URL, RETURN_URL, World};
use crossdock::api::routes::ROUTES;
use crossdock::api::{self, connect_pages, events, integrations, records};
use crossdock::ctx::Ctx;
use crossdock::engine::{outbox, push, refresh};
use crossdock::error::Code;
use crossdock::model::ids::{ConnectionId, MerchantId};
use crossdock::oauth::{connect, connection, tenant};
use crossdock::providers::{Category, PROVIDERS, provider};
use crossdock::store::{Store, Table};
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const OFF: (&str, &str) = ("ENABLE_ACCOUNTING_SYNC", "false");

/// The one operation that is left to a category which is switched off.
const GIVING_UP: &str = "/disconnect";

/// A world with a merchant that is connected to QuickBooks, and its processes with and without
/// accounting.
fn connected() -> (World, Ctx, Ctx, ConnectionId) {
    let world = World::new(1);
    let on = world.ctx();
    let off = world.ctx_with(&[OFF]);
    let connection = alone(set_up(&world, &on));
    (world, on, off, connection)
}

fn merchant() -> MerchantId {
    MERCHANT.parse().unwrap()
}

fn request(method: &str, path: String, body: &Value) -> api::Request {
    api::Request {
        method: method.to_owned(),
        path,
        query: BTreeMap::from([("merchant_id".to_owned(), MERCHANT.to_owned())]),
        bearer: Some(PLATFORM_KEY.into()),
        body: body.to_string().into_bytes(),
        ..api::Request::default()
    }
}

#[test]
fn every_operation_of_the_category_is_refused() {
    let (world, _, _, connection) = connected();
    let document = api::openapi::document();
    for category in Category::ALL {
        let off = world.ctx_with(&[(category.switch(), "false")]);
        let mut tried = 0;
        for route in ROUTES
            .iter()
            .filter(|route| route.path.contains("{category}") && !route.path.ends_with(GIVING_UP))
        {
            let of =
                |one: &&&dyn crossdock::providers::Provider| one.manifest().category == category;
            let name = PROVIDERS.iter().find(of).unwrap().manifest().name;
            let path = route.path.replace("{category}", category.as_str());
            let path = path.replace("{provider}", name);
            let path = path.replace("{connection_id}", connection.as_str());
            let path = path
                .replace("{type}", "order")
                .replace("{record_id}", "1001");
            let described = &document["paths"][route.path][route.method.to_lowercase()];
            let body = &described["requestBody"]["content"]["application/json"]["example"];
            let handle = match route.function {
                "api_records" => records::handle,
                _ => integrations::handle,
            };
            let answer = alone(handle(&off, &request(route.method, path, body)));
            let error = answer.unwrap_err();
            assert_eq!(
                error.code(),
                Code::FeatureDisabled,
                "{} {}",
                route.method,
                route.path
            );
            assert!(
                error.detail().contains(category.switch()),
                "{}",
                error.detail()
            );
            tried += 1;
        }
        assert!(tried > 8, "only {tried} were tried");
        let all = request("GET", "/api/v1/integrations".to_owned(), &json!({}));
        let list = alone(integrations::handle(&off, &all)).unwrap();
        let list: Value = serde_json::from_str(&list.body).unwrap();
        let shown = usize::from(category != Category::Accounting);
        assert_eq!(list["data"].as_array().unwrap().len(), shown, "{list}");
        let mut offers = list["providers"].as_array().unwrap().iter();
        assert!(
            offers.all(|offer| offer["category"] != category.as_str()),
            "{list}"
        );
    }
}

#[test]
fn what_it_holds_can_still_be_given_up() {
    let (world, on, off, connection) = connected();
    let path = format!("/api/v1/integrations/accounting/{connection}{GIVING_UP}");
    let body = json!({ "merchant_id": MERCHANT });
    let calls = world.state().net_calls;
    let answer = alone(integrations::handle(&off, &request("POST", path, &body))).unwrap();
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(answer["status"], "disconnected", "{answer}");
    assert!(world.state().net_calls > calls, "QuickBooks was told");
    let (_, stored) = alone(connection::load(&on, &merchant(), &connection)).unwrap();
    assert!(stored.key.is_none(), "{:?}", stored.status);
}

#[test]
fn the_pages_of_a_connect_say_so_in_words() {
    let (world, on, off, _) = connected();
    let manifest = provider("quickbooks").unwrap().manifest();
    let back = RETURN_URL.to_owned();
    let link = alone(connect::create_link(&on, &merchant(), manifest, back, None)).unwrap();
    let path = link.url.strip_prefix(PUBLIC_URL).unwrap().to_owned();
    let open = |ctx: &Ctx| {
        alone(connect_pages::start(
            ctx,
            &request("GET", path.clone(), &json!({})),
        ))
        .unwrap()
    };
    let page = open(&off);
    assert_eq!(page.status, 403);
    assert!(page.body.contains("switched off"), "{}", page.body);
    // Switched off between the start and the answer of the provider.
    let started = open(&on);
    assert_eq!(started.status, 303, "the link is not used up");
    let header = |name: &str| {
        let found = started.headers.iter().find(|(one, _)| *one == name);
        found.unwrap().1.clone()
    };
    let consent: url::Url = header("location").parse().unwrap();
    let cookie = header("set-cookie");
    let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
    let parameter = |name: &str| {
        let found = consent.query_pairs().find(|(one, _)| one == name);
        found.unwrap().1.into_owned()
    };
    let callback = api::Request {
        method: "GET".to_owned(),
        path: format!("/oauth/cb/quickbooks/{}", tenant(PUBLIC_URL)),
        query: BTreeMap::from([
            ("state".to_owned(), parameter("state")),
            ("code".to_owned(), "any".to_owned()),
        ]),
        cookies: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        ..api::Request::default()
    };
    let calls = world.state().net_calls;
    let page = alone(connect_pages::callback(&off, &callback)).unwrap();
    assert_eq!(page.status, 403);
    assert!(page.body.contains("switched off"), "{}", page.body);
    assert_eq!(world.state().net_calls, calls, "the provider was asked");
}

#[test]
fn no_tokens_are_renewed() {
    let (world, on, off, _) = connected();
    alone(refresh::plan(&on)).unwrap();
    world.advance(Duration::from_secs(3600));
    assert_eq!(alone(refresh::plan(&off)).unwrap(), 0);
    assert!(world.state().sent.is_empty());
    // It comes due again another day, and is handed out if it is switched on by then.
    let mut minutes = 0;
    while world.state().sent.is_empty() {
        assert!(minutes < 26 * 60, "it never came due again");
        world.advance(Duration::from_secs(60));
        alone(refresh::plan(&on)).unwrap();
        minutes += 1;
    }
    assert!(
        minutes > 22 * 60,
        "it was due again after {minutes} minutes"
    );
    assert_eq!(world.state().sent.len(), 1);
}

#[test]
fn what_is_queued_is_dropped_without_effect() {
    let (world, on, off, _) = connected();
    let shop = Shop::one_sale(&mut world.state().dice);
    for event in &shop.events {
        let request = request("POST", "/api/v1/events".to_owned(), event);
        assert_eq!(alone(events::handle(&on, &request)).unwrap().status, 202);
    }
    let rows = world.memory.scan(Table::Outbox, None, 100).now_or_never();
    let rows = rows.unwrap().unwrap().items;
    let notices: Vec<_> = rows.iter().map(|row| row.read().unwrap()).collect();
    for published in alone(outbox::publish(&on, &notices)) {
        published.unwrap();
    }
    let (calls, stored) = (world.state().net_calls, ledger(&world));
    let results = alone(push::push(&off, "quickbooks", &notices));
    assert_eq!(results.len(), notices.len());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert_eq!((world.state().net_calls, ledger(&world)), (calls, stored));
    let results = alone(push::push(&on, "quickbooks", &notices));
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(
        ledger(&world) > stored,
        "what was dropped is no news to anybody"
    );
}

/// Rows of the ledger.
fn ledger(world: &World) -> usize {
    let page = world.memory.scan(Table::Ledger, None, 1000).now_or_never();
    page.unwrap().unwrap().items.len()
}
