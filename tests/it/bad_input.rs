//! Bad input is refused in one shape, which says where and why, and loses nothing that was good.

use crate::providers::{PROVIDERS, Provider};
use crate::world::{Reply, Shop, World, event, order, payment, refund, sale, wait};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const EVENTS: &str = "/api/v1/events";

/// A request and how it is refused.
struct Case {
    about: &'static str,
    method: Method,
    path: String,
    body: Option<String>,
    status: u16,
    code: &'static str,
    /// Where the first fault is, if the refusal is about a field.
    pointer: Option<&'static str>,
    /// The code of that fault.
    fault: Option<&'static str>,
}

impl Case {
    fn new(
        about: &'static str,
        method: Method,
        path: &str,
        status: u16,
        code: &'static str,
    ) -> Case {
        Case {
            about,
            method,
            path: path.to_owned(),
            body: None,
            status,
            code,
            pointer: None,
            fault: None,
        }
    }

    fn post(about: &'static str, body: impl ToString, status: u16, code: &'static str) -> Case {
        Case {
            body: Some(body.to_string()),
            ..Case::new(about, Method::POST, EVENTS, status, code)
        }
    }

    fn at(self, pointer: &'static str, fault: &'static str) -> Case {
        Case {
            pointer: Some(pointer),
            fault: Some(fault),
            ..self
        }
    }

    fn to(self, path: &str) -> Case {
        Case {
            path: path.to_owned(),
            ..self
        }
    }
}

pub async fn test(world: Arc<World>) {
    let shop = world.connected_shop("bad").await;
    let other = world.connected_shop("bad").await;
    let sold = sale(&shop, 0, 1000, "USD");
    for event in &sold.events {
        world.post(EVENTS, event).await.expect(202);
    }
    let foreign = foreign_things(&world, &other).await;
    for case in cases(&shop, &sold.order)
        .into_iter()
        .chain(of_another_merchant(&shop, &foreign))
        .chain(of_endpoints(&world, &shop).await)
    {
        let reply = world
            .api(case.method.clone(), &case.path, case.body.clone())
            .await;
        check(&case, &reply);
    }
    connecting(&world).await;
    methods(&world).await;
    not_utf8(&world, &sold.events[0]).await;
    explained(&world).await;
    movements(&world).await;
    keys(&world, &sold.events[0]).await;
    sent_again(&world, &shop, &sold.events[0]).await;
    let mut expected = BTreeMap::from([(sold.order.clone(), 1000)]);
    expected.extend(out_of_order(&world, &shop).await);
    expected.extend(in_a_batch(&world, &shop).await);
    in_the_books(&world, &shop, expected).await;
    assert!(
        world.books(&other, "SalesReceipt").await.is_empty(),
        "another merchant's books are untouched"
    );
}

#[track_caller]
fn check(case: &Case, reply: &Reply) {
    let about = case.about;
    assert_eq!(reply.status, case.status, "{about}: {}", reply.body);
    is_problem(about, reply, case.code);
    let problem = reply.json();
    assert_eq!(problem["retryable"], false, "{about}");
    let first = &problem["errors"][0];
    let pointer = case.pointer.map(|pointer| format!("#{pointer}"));
    assert_eq!(
        first["pointer"].as_str(),
        pointer.as_deref(),
        "{about}: {problem}"
    );
    assert_eq!(first["code"].as_str(), case.fault, "{about}: {problem}");
}

/// The members that every problem has.
#[track_caller]
fn is_problem(about: &str, reply: &Reply, code: &str) {
    assert_eq!(
        reply.header("content-type"),
        "application/problem+json",
        "{about}"
    );
    let problem = reply.json();
    assert_eq!(problem["code"], code, "{about}: {problem}");
    assert_eq!(problem["status"], reply.status, "{about}");
    assert_eq!(problem["type"], format!("/docs/errors#{code}"), "{about}");
    for member in ["title", "detail"] {
        assert!(
            problem[member].as_str().is_some_and(|text| text.len() > 5),
            "{about}: {problem}"
        );
    }
    let id = problem["request_id"].as_str().unwrap_or_default();
    assert!(id.starts_with("req_"), "{about}: {problem}");
    assert_eq!(reply.header("request-id"), id, "{about}");
}

fn with(mut event: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    event.pointer_mut(parent).expect("a parent")[key] = value;
    event
}

fn cases(shop: &Shop, sold: &str) -> Vec<Case> {
    let good = event(
        shop,
        "bad-1",
        "order.created",
        order("bad-o1", 1, 2000, "USD"),
    );
    let bad = |pointer: &str, value: Value| with(good.clone(), pointer, value);
    let invalid = |about, body: Value| Case::post(about, body, 422, "validation_failed");
    let money = |amount: Value, currency: &str| json!({ "amount": amount, "currency": currency });
    let yen = with(
        event(
            shop,
            "bad-2",
            "order.created",
            order("bad-o2", 1, 2000, "JPY"),
        ),
        "/data/lines/0/total",
        money(json!(2000.5), "JPY"),
    );
    let too_long = format!("{}{}", good, " ".repeat(256 * 1024));
    let no_events = json!({ "events": [] });
    let many = json!({ "events": vec![json!({}); 101] });
    let unknown = refund("bad-r1", "bad-o-unknown", 1, "USD");
    vec![
        Case::post("malformed JSON", "{\"id\": ", 400, "malformed_json"),
        Case::post("no body", "", 400, "malformed_json"),
        Case::post("past 256 KiB", too_long, 413, "payload_too_large"),
        invalid("no object", json!([])).at("", "invalid_value"),
        invalid("unknown event type", bad("/type", json!("order.exploded")))
            .at("/type", "unknown_event_type"),
        invalid("unknown field", bad("/colour", json!("red"))).at("/colour", "unknown_field"),
        invalid(
            "unknown field of the order",
            bad("/data/colour", json!("red")),
        )
        .at("/data/colour", "unknown_field"),
        invalid(
            "unknown field of a line",
            bad("/data/lines/0/colour", json!("red")),
        )
        .at("/data/lines/0/colour", "unknown_field"),
        invalid(
            "a fraction of a minor unit",
            bad("/data/total", money(json!(20.5), "USD")),
        )
        .at("/data/total", "invalid_value"),
        invalid("more decimals than yen have", yen).at("/data/lines/0/total", "invalid_value"),
        invalid(
            "more decimals than a price may have",
            bad("/data/lines/0/unit_price", json!("20.000001")),
        )
        .at("/data/lines/0/unit_price", "too_many_decimals"),
        invalid(
            "a currency that does not exist",
            bad("/data/currency", json!("XQQ")),
        )
        .at("/data/currency", "invalid_value"),
        invalid(
            "a sum that is not the lines'",
            bad("/data/total", money(json!(2001), "USD")),
        )
        .at("/data/total", "total_mismatch"),
        invalid("no lines", bad("/data/lines", json!([]))).at("/data/lines", "wrong_count"),
        invalid("an id that is none", bad("/id", json!("a b"))).at("/id", "invalid_value"),
        invalid(
            "a refund beyond what was paid",
            event(
                shop,
                "bad-3",
                "order.refunded",
                refund("bad-r2", sold, 1001, "USD"),
            ),
        )
        .at("/data/amount", "refund_exceeds_payment"),
        invalid(
            "a refund of what was never paid",
            event(shop, "bad-4", "order.refunded", unknown),
        )
        .at("/data/order_id", "order_unknown"),
        invalid(
            "a payment in another currency",
            event(
                shop,
                "bad-5",
                "payment.processed",
                payment("bad-p1", sold, 5, "EUR"),
            ),
        )
        .at("/data/amount/currency", "currency_mismatch"),
        invalid("a batch of none", no_events).at("/events", "wrong_count"),
        invalid("a batch of too many", many).at("/events", "wrong_count"),
        invalid(
            "a merchant's currency that does not exist",
            json!({"id": "bad-m", "name": "x", "currency": "XQQ"}),
        )
        .to("/api/v1/merchants")
        .at("/currency", "invalid_value"),
        Case::new(
            "no merchant named",
            Method::GET,
            "/api/v1/integrations",
            422,
            "validation_failed",
        )
        .at("/merchant_id", "missing_field"),
        Case::new(
            "unknown path",
            Method::GET,
            "/api/v1/nothing",
            404,
            "not_found",
        ),
        Case::new(
            "unknown path outside the API",
            Method::POST,
            "/",
            404,
            "not_found",
        ),
        Case::new(
            "an id that is none in a path",
            Method::GET,
            "/api/v1/merchants/%F0%9F%98%80",
            404,
            "not_found",
        ),
        Case::post(
            "a key that stands twice",
            good.to_string().replacen('{', r#"{"id":"bad-0","#, 1),
            400,
            "malformed_json",
        ),
        invalid("an event as a list", json!(["a", "b", "c", "d", {}])).at("", "invalid_value"),
        invalid("money as a list", bad("/data/total", json!([2000, "USD"])))
            .at("/data/total", "invalid_value"),
        invalid("a line as a list", bad("/data/lines", json!([["SKU"]])))
            .at("/data/lines/0", "invalid_value"),
        invalid("a merchant as a list", json!(["bad-list", "A name", "USD"]))
            .to("/api/v1/merchants")
            .at("", "invalid_value"),
        invalid(
            "an amount with a point",
            bad("/data/total", money(json!(2000.0), "USD")),
        )
        .at("/data/total", "invalid_value"),
        invalid("a version with a point", bad("/data/version", json!(1.0)))
            .at("/data/version", "invalid_value"),
        invalid(
            "a quantity that would be rounded",
            bad(
                "/data/lines/0/quantity",
                json!("1.00000000000000000000000000001"),
            ),
        )
        .at("/data/lines/0/quantity", "invalid_value"),
        invalid(
            "a merchant's name with a line break",
            json!({"id": "bad-m", "name": "a\nb", "currency": "USD"}),
        )
        .to("/api/v1/merchants")
        .at("/name", "invalid_characters"),
        invalid(
            "something beside events",
            json!({ "events": [good], "merchant_id": "x" }),
        )
        .at("", "unknown_field"),
    ]
    .into_iter()
    .chain(of_texts(&good))
    .chain(of_times(shop, &good))
    .collect()
}

/// Texts that a provider would refuse later.
fn of_texts(good: &Value) -> Vec<Case> {
    let zero = json!({ "amount": 0, "currency": "USD" });
    let named = |name: &str| json!([{ "name": name, "amount": zero, "rate": "0" }]);
    let discount = |name: &str| json!([{ "name": name, "amount": zero }]);
    let shipping = |name: &str| json!({ "name": name, "amount": zero });
    let person = |email: &str, phone: &str| json!({ "id": "c", "name": "n", "email": email, "phone": phone });
    let ok = "a@b.example";
    let long = "x".repeat(201);
    let characters = "invalid_characters";
    [
        ("/data/number", json!("1\u{0}"), "/data/number", characters),
        (
            "/data/customer/name",
            json!("a\tb"),
            "/data/customer/name",
            characters,
        ),
        (
            "/data/customer/name",
            json!("a\u{7f}"),
            "/data/customer/name",
            characters,
        ),
        (
            "/data/lines/0/sku",
            json!("a\nb"),
            "/data/lines/0/sku",
            characters,
        ),
        (
            "/data/lines/0/name",
            json!("a\u{85}b"),
            "/data/lines/0/name",
            characters,
        ),
        (
            "/data/discounts",
            discount("a\u{ffff}"),
            "/data/discounts/0/name",
            characters,
        ),
        (
            "/data/discounts",
            discount(&long),
            "/data/discounts/0/name",
            "wrong_length",
        ),
        (
            "/data/taxes",
            named("a\rb"),
            "/data/taxes/0/name",
            characters,
        ),
        (
            "/data/taxes",
            named(&long),
            "/data/taxes/0/name",
            "wrong_length",
        ),
        (
            "/data/shipping",
            shipping("a\u{fffe}"),
            "/data/shipping/name",
            characters,
        ),
        (
            "/data/shipping",
            shipping(&long),
            "/data/shipping/name",
            "wrong_length",
        ),
        (
            "/data/customer",
            person(ok, "1\n2"),
            "/data/customer/phone",
            characters,
        ),
        (
            "/data/customer",
            person(ok, &"1".repeat(51)),
            "/data/customer/phone",
            "wrong_length",
        ),
        (
            "/data/customer",
            person("a@@b.example", "1"),
            "/data/customer/email",
            "invalid_email",
        ),
        (
            "/data/customer",
            person("a@b..example", "1"),
            "/data/customer/email",
            "invalid_email",
        ),
        (
            "/data/customer",
            person("a b@c.example", "1"),
            "/data/customer/email",
            "invalid_email",
        ),
    ]
    .map(|(pointer, value, at, fault)| {
        let body = with(good.clone(), pointer, value);
        Case::post("a text that does not fit", body, 422, "validation_failed").at(at, fault)
    })
    .into()
}

/// Times that are somebody's mistake, and the texts of what is no order.
fn of_times(shop: &Shop, good: &Value) -> Vec<Case> {
    let paid = event(
        shop,
        "bad-6",
        "payment.processed",
        payment("bad-p2", "bad-o1", 5, "USD"),
    );
    let back = event(
        shop,
        "bad-7",
        "order.refunded",
        refund("bad-r3", "bad-o1", 5, "USD"),
    );
    let user = json!({ "id": "u", "email": "a@b.example", "created_at": "2026-02-01T10:00:00Z" });
    let user = event(shop, "bad-8", "user.created", user);
    let level = json!({
        "sku": "s", "location": "l", "level": 1, "threshold": 2, "at": "2026-02-01T10:00:00Z",
    });
    let level = event(shop, "bad-9", "inventory.low_stock", level);
    let product = json!({
        "id": "bad-pr", "version": 1, "name": "Mug",
        "variants": [{ "sku": "s", "price": { "amount": 1, "currency": "USD" } }],
    });
    let product = event(shop, "bad-11", "product.updated", product);
    let money = |amount: i64| json!({ "amount": amount, "currency": "USD" });
    let payout = json!({
        "id": "bad-po", "version": 1, "currency": "USD", "paid_at": "2026-02-01T10:00:00Z",
        "processor": "stripe", "charges": money(100), "refunds": money(0), "fees": money(3),
        "adjustments": [{ "name": "Dispute", "amount": money(-7) }], "amount": money(90),
    });
    let payout = event(shop, "bad-10", "payout.paid", payout);
    let less = with(payout.clone(), "/data/amount", money(91));
    let far = "9999-12-31T23:59:59Z";
    let early = "1969-12-31T23:59:59Z";
    let (range, characters) = ("out_of_range", "invalid_characters");
    let tax =
        json!([{ "name": "x", "rate": "1001", "amount": { "amount": 0, "currency": "USD" } }]);
    let rate = with(good.clone(), "/data/taxes", tax);
    [
        (&product, "/data/name", "a\u{0}b", characters),
        (good, "/occurred_at", far, range),
        (good, "/data/placed_at", early, range),
        (&paid, "/data/processed_at", far, range),
        (&paid, "/data/method", "a\tb", characters),
        (&back, "/data/refunded_at", early, range),
        // A reason may go over several lines, but holds nothing else that cannot be seen.
        (&back, "/data/reason", "a\nb\u{0}", characters),
        (&user, "/data/created_at", far, range),
        (&user, "/data/email", "a@b", "invalid_email"),
        (&level, "/data/at", early, range),
        (&level, "/data/location", "a\nb", characters),
        (&payout, "/data/paid_at", far, range),
        (&payout, "/data/processor", "my bank", "invalid_value"),
        (&payout, "/data/adjustments/0/name", "a\tb", characters),
        (&payout, "/data/currency", "XQQ", "invalid_value"),
        (&rate, "/data/taxes/0/rate", "-1", range),
        (&rate, "/data/taxes/0/rate", "1001", range),
    ]
    .map(|(event, pointer, value, fault)| {
        let body = with(event.clone(), pointer, json!(value));
        Case::post("a value that does not fit", body, 422, "validation_failed").at(pointer, fault)
    })
    .into_iter()
    .chain([Case::post(
        "a payout that does not add up",
        less,
        422,
        "validation_failed",
    )
    .at("/data/amount", "total_mismatch")])
    .collect()
}

/// A path that is served takes the methods of its routes, and says which.
/// What a backend may get wrong when it connects a provider or brings tokens along.
async fn connecting(world: &World) {
    for provider in &PROVIDERS {
        let shop = world.shop_at(provider, "bad").await;
        for case in of_links(&shop).into_iter().chain(of_imports(&shop)) {
            let reply = world
                .api(case.method.clone(), &case.path, case.body.clone())
                .await;
            check(&case, &reply);
            if case.about == IN_ANOTHER_CATEGORY {
                let problem = reply.json();
                let detail = problem["detail"].as_str().unwrap_or_default();
                let right = format!("but of {}", provider.category);
                assert!(detail.ends_with(&right), "{}: {detail}", case.path);
            }
        }
        let connections = world.connections(&shop).await;
        assert!(connections.is_empty(), "{connections:?}");
        let values = json!({ ":merchant": { "S": format!("{}/", shop.merchant) } });
        let filter = "begins_with(pk, :merchant)";
        for table in ["TableConnections", "TableLedger"] {
            let rows = world.rows(table, Some((filter, &values))).await;
            assert!(rows.is_empty(), "{}: {:?}", provider.name, rows.keys());
        }
    }
}

const IN_ANOTHER_CATEGORY: &str = "a provider in another category";

fn of_links(shop: &Shop) -> Vec<Case> {
    let Provider { name, category, .. } = shop.provider;
    let root = "/api/v1/integrations";
    let wish = |url: &str| json!({ "merchant_id": shop.merchant, "return_url": url });
    let good = wish("https://example.com/connected");
    let missing =
        |about, body: &Value, path: String| Case::post(about, body, 404, "not_found").to(&path);
    let bad = |about, body: Value| {
        Case::post(about, body, 422, "validation_failed")
            .to(&format!("{root}/{category}/{name}/connect"))
    };
    let categories: BTreeSet<&str> = PROVIDERS.iter().map(|one| one.category).collect();
    let import = json!({ "merchant_id": shop.merchant, "tokens": {} });
    let mut cases = vec![
        missing(
            "a provider that is none",
            &good,
            format!("{root}/{category}/nothing/connect"),
        ),
        missing(
            "an import to a provider that is none",
            &import,
            format!("{root}/{category}/nothing/import"),
        ),
        missing(
            "a category that is none",
            &good,
            format!("{root}/nothing/{name}/connect"),
        ),
        missing(
            "a merchant that is not registered",
            &json!({ "merchant_id": "nobody", "return_url": "https://example.com/connected" }),
            format!("{root}/{category}/{name}/connect"),
        ),
        bad(
            "an address that is not registered",
            wish("https://example.com/connected"),
        )
        .at("/return_url", "not_registered"),
        bad(
            "an address that is too long",
            wish(&format!("https://example.com/{}", "x".repeat(10_000))),
        )
        .at("/return_url", "not_registered"),
        bad("no address", json!({ "merchant_id": shop.merchant })).at("", "missing_field"),
        bad(
            "no merchant",
            json!({ "return_url": "https://example.com" }),
        )
        .at("", "missing_field"),
    ];
    for other in categories.into_iter().filter(|other| other != category) {
        for (last, body) in [("connect", &good), ("import", &import)] {
            let path = format!("{root}/{other}/{name}/{last}");
            cases.push(missing(IN_ANOTHER_CATEGORY, body, path));
        }
    }
    cases
}

fn of_imports(shop: &Shop) -> Vec<Case> {
    let Provider { name, category, .. } = shop.provider;
    let case = |about, tokens: Value, status, code| {
        let body = json!({ "merchant_id": shop.merchant, "tokens": tokens });
        let path = format!("/api/v1/integrations/{category}/{name}/import");
        Case::post(about, body, status, code).to(&path)
    };
    let bad = |about, tokens: Value| case(about, tokens, 422, "validation_failed");
    let mut cases = vec![
        bad("an unknown member", json!({ "token": "x" })).at("/tokens/token", "unknown_field"),
        bad("tokens that are none", json!("x")).at("/tokens", "invalid_value"),
    ];
    if shop.provider.token.is_none() {
        let (member, pointer) = match shop.provider.secret_key() {
            "api_key" => ("api_key", "/tokens/keys/api_key"),
            other => (other, "/tokens/keys/app_token"),
        };
        let keys = |value: &str| {
            let mut keys: BTreeMap<&str, String> = shop.account.keys.iter().cloned().collect();
            keys.insert(member, value.to_owned());
            json!({ "keys": keys })
        };
        for value in ["", "two words", "a\nb", &"x".repeat(501)] {
            cases.push(bad("a key that is none", keys(value)).at(pointer, "invalid_value"));
        }
        let refused = keys("SG.nobodys.key");
        cases.push(case(
            "a key that is refused",
            refused,
            424,
            "upstream_refused",
        ));
        return cases;
    }
    let id = &shop.account.id;
    let (member, pointer) = match shop.provider.renews {
        true => ("refresh_token", "/tokens/refresh_token"),
        false => ("access_token", "/tokens/access_token"),
    };
    let long = "x".repeat(8 * 1024 + 1);
    for value in ["", "two words", "a\nb", "schlüssel", &long] {
        let wrong = json!({ "tenant_id": id, member: value });
        cases.push(bad("a token that is none", wrong).at(pointer, "invalid_value"));
    }
    for value in ["", "two words", &long] {
        let wrong = json!({ "tenant_id": value, member: "x" });
        cases.push(bad("an account that is none", wrong).at("/tokens/tenant_id", "invalid_value"));
    }
    cases.push(bad("no token", json!({ "tenant_id": id })).at(pointer, "missing_field"));
    if shop.provider.renews {
        let ends_soon = json!({ "tenant_id": id, "access_token": "x" });
        cases.push(bad("no refresh token", ends_soon).at(pointer, "missing_field"));
    }
    if *name == "quickbooks" {
        let nobodys = json!({ member: "x" });
        cases.push(bad("no company", nobodys).at("/tokens/tenant_id", "missing_field"));
    }
    let refused = json!({ "tenant_id": id, member: "a-token-of-nobody" });
    cases.push(case(
        "a token that is refused",
        refused,
        424,
        "upstream_refused",
    ));
    cases
}

async fn methods(world: &World) {
    for (method, path, allow) in [
        (Method::GET, EVENTS, "POST"),
        (Method::PUT, EVENTS, "POST"),
        (Method::DELETE, "/api/v1/merchants/x", "GET"),
        (
            Method::PUT,
            "/api/v1/webhooks/register",
            "DELETE, GET, PATCH, POST",
        ),
        (Method::POST, "/docs/errors", "GET"),
        (Method::POST, "/connect/x", "GET"),
    ] {
        let about = format!("{method} {path}");
        let reply = world.api(method, path, None).await.expect(405);
        is_problem(&about, &reply, "method_not_allowed");
        assert_eq!(reply.header("allow"), allow, "{about}");
    }
    let reply = world.api(Method::HEAD, "/health", None).await.expect(405);
    assert_eq!(reply.header("allow"), "GET");
}

/// Text in another encoding is refused, and not stored with holes in it.
async fn not_utf8(world: &World, event: &Value) {
    let mut body = with(event.clone(), "/data/number", json!("caf?"))
        .to_string()
        .into_bytes();
    let place = body.iter().position(|byte| *byte == b'?');
    body[place.expect("it stands there")] = 0xe9;
    for content_type in ["application/json", "application/octet-stream"] {
        let request = world
            .http
            .post(format!("{}{EVENTS}", world.stack.urls.api))
            .header("authorization", world.bearer())
            .header("content-type", content_type)
            .body(body.clone());
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 400, "{content_type}");
        let problem: Value =
            serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
        assert_eq!(problem["code"], "malformed_json", "{problem}");
    }
}

/// The type of every problem leads to a page that explains it.
async fn explained(world: &World) {
    let refused = world.api(Method::GET, EVENTS, None).await.json();
    let (path, anchor) = refused["type"]
        .as_str()
        .and_then(|kind| kind.split_once('#'))
        .expect("an address with an anchor");
    let url = format!("{}{path}", world.stack.urls.api);
    let page = world.send(Method::GET, &url, &[], None).await.expect(200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(
        page.header("content-security-policy")
            .starts_with("default-src 'none'")
    );
    for anchor in [anchor, "internal"] {
        assert!(page.body.contains(&format!("<tr id=\"{anchor}\">")));
    }
}

/// What is paid and goes back for one order: in one currency, each refund once, and in the books only
/// with the sale.
async fn movements(world: &World) {
    let shop = world.connected_shop("bad").await;
    let id = format!("{}-moved", shop.merchant);
    let send = async |name: &str, kind: &str, data: Value| {
        let event = event(&shop, &format!("{id}-{name}"), kind, data);
        world.post(EVENTS, &event).await
    };
    let pay = |name: &str, minor: i64, currency: &str| {
        payment(&format!("{id}-{name}"), &id, minor, currency)
    };
    let back = |minor: i64| refund(&format!("{id}-r"), &id, minor, "USD");
    let fault = |reply: Reply| {
        let problem = reply.expect(422).json();
        let first = &problem["errors"][0];
        (first["pointer"].clone(), first["code"].clone())
    };
    // Before the order, its currency is that of the first payment.
    send("p1", "payment.processed", pay("p1", 400, "USD"))
        .await
        .expect(202);
    let second = send("p2", "payment.processed", pay("p2", 400, "EUR")).await;
    let mismatch = json!("currency_mismatch");
    assert_eq!(
        fault(second),
        (json!("#/data/amount/currency"), mismatch.clone())
    );
    let euros = send("v0", "order.created", order(&id, 1, 1000, "EUR")).await;
    assert_eq!(fault(euros), (json!("#/data/currency"), mismatch));
    send("v1", "order.created", order(&id, 1, 1000, "USD"))
        .await
        .expect(202);
    // A part-paid order is not in the books, so what goes back of it is not either.
    send("r1", "order.refunded", back(100)).await.expect(202);
    let reused = send("r2", "order.refunded", back(101)).await;
    assert_eq!(fault(reused), (json!("#/data/id"), json!("already_used")));
    let later = sale(&shop, 0, 700, "USD");
    for event in &later.events {
        world.post(EVENTS, event).await.expect(202);
    }
    let in_books = async |entity: &str, record: &str, minor: i64| {
        wait(entity, async || {
            let books = world.books(&shop, entity).await;
            let there = books.get(record) == Some(&vec![("USD".to_owned(), minor)]);
            let missing = (!there).then(|| format!("{record} with {minor}, but {books:?}"));
            (missing.into_iter().collect(), usize::from(there))
        })
        .await;
    };
    in_books("SalesReceipt", &later.order, 700).await;
    assert!(world.books(&shop, "RefundReceipt").await.is_empty());
    assert!(!world.books(&shop, "SalesReceipt").await.contains_key(&id));
    send("p3", "payment.processed", pay("p3", 600, "USD"))
        .await
        .expect(202);
    in_books("SalesReceipt", &id, 1000).await;
    in_books("RefundReceipt", &format!("{id}-r"), 100).await;
    // More is sold than was paid: the receipt shows what was received until the rest is.
    send("v2", "order.updated", order(&id, 2, 1500, "USD"))
        .await
        .expect(202);
    let marker = sale(&shop, 1, 800, "USD");
    for event in &marker.events {
        world.post(EVENTS, event).await.expect(202);
    }
    in_books("SalesReceipt", &marker.order, 800).await;
    assert_eq!(
        world.books(&shop, "SalesReceipt").await[&id],
        [("USD".to_owned(), 1000)]
    );
    send("p4", "payment.processed", pay("p4", 500, "USD"))
        .await
        .expect(202);
    in_books("SalesReceipt", &id, 1500).await;
}

/// What another merchant has.
struct Foreign {
    connection: String,
    endpoint: String,
}

async fn foreign_things(world: &World, other: &Shop) -> Foreign {
    let merchant = &other.merchant;
    let id = |list: Value| list["data"][0]["id"].as_str().expect("an id").to_owned();
    world.endpoint(other, &["user.created"]).await;
    let path = format!("/api/v1/integrations?merchant_id={merchant}");
    let connections = world.get(&path).await.expect(200).json();
    let path = format!("/api/v1/webhooks?merchant_id={merchant}");
    let endpoints = world.get(&path).await.expect(200).json();
    Foreign {
        connection: id(connections),
        endpoint: id(endpoints),
    }
}

fn of_another_merchant(shop: &Shop, foreign: &Foreign) -> Vec<Case> {
    let merchant = &shop.merchant;
    let Foreign {
        connection,
        endpoint,
    } = foreign;
    let get = |about, path: String| Case::new(about, Method::GET, &path, 404, "not_found");
    let stranger = Shop {
        merchant: "bad-stranger".to_owned(),
        ..shop.clone()
    };
    let [of_stranger, _] = sale(&stranger, 1, 1000, "USD").events;
    let confirm = json!({ "merchant_id": merchant, "confirmation": "x" });
    let confirm_path = format!("/api/v1/integrations/accounting/{connection}/confirm");
    vec![
        Case::post(
            "a merchant that is not registered",
            of_stranger,
            404,
            "not_found",
        ),
        get(
            "an unknown merchant",
            "/api/v1/merchants/bad-stranger".to_owned(),
        ),
        get(
            "connections of an unknown merchant",
            "/api/v1/integrations?merchant_id=bad-stranger".to_owned(),
        ),
        get(
            "another's connection",
            format!("/api/v1/integrations/accounting/{connection}?merchant_id={merchant}"),
        ),
        get(
            "another's endpoint",
            format!("/api/v1/webhooks/{endpoint}?merchant_id={merchant}"),
        ),
        get(
            "another's deliveries",
            format!("/api/v1/webhooks/{endpoint}/attempts?merchant_id={merchant}"),
        ),
        Case::post("confirming another's connection", confirm, 404, "not_found").to(&confirm_path),
    ]
}

/// An endpoint's address and the cursors of its deliveries.
async fn of_endpoints(world: &World, shop: &Shop) -> Vec<Case> {
    let id = world.endpoint(shop, &["user.created"]).await;
    let merchant = &shop.merchant;
    let long = format!("https://example.com/{}", "x".repeat(2049));
    let long = json!({ "merchant_id": merchant, "url": long, "event_types": ["user.created"] });
    let fast = json!({
        "merchant_id": merchant, "url": "https://example.com/hook", "event_types": ["user.created"],
        "rate_limit": 1001,
    });
    let cursor = |cursor: &str| {
        let path = format!("/api/v1/webhooks/{id}/attempts?merchant_id={merchant}&cursor={cursor}");
        Case::new("a cursor", Method::GET, &path, 422, "validation_failed")
            .at("/cursor", "invalid_cursor")
    };
    vec![
        Case::post("an endless URL", long, 422, "validation_failed")
            .to("/api/v1/webhooks/register")
            .at("/url", "wrong_length"),
        Case::post("a limit that is none", fast, 422, "validation_failed")
            .to("/api/v1/webhooks/register")
            .at("/rate_limit", "invalid_value"),
        cursor(""),
        cursor("%00%23"),
        cursor("a/b"),
    ]
}

/// Without the platform key nothing is answered, and nothing is said about what there is.
async fn keys(world: &World, event: &Value) {
    let url = format!("{}{EVENTS}", world.stack.urls.api);
    let wrong = format!("{}x", world.bearer());
    let basic = world.bearer().replace("Bearer", "Basic");
    for key in [
        None,
        Some("Bearer "),
        Some("Bearer x"),
        Some(&*wrong),
        Some(&*basic),
    ] {
        let headers: Vec<(&str, &str)> = key.iter().map(|key| ("authorization", *key)).collect();
        let body = Some(event.to_string());
        let reply = world
            .send(Method::POST, &url, &headers, body)
            .await
            .expect(401);
        is_problem("a wrong key", &reply, "unauthenticated");
        assert!(reply.header("www-authenticate").starts_with("Bearer"));
    }
}

/// The same event again gets the first answer, also with its keys in another order; another body
/// under the same id is refused and changes nothing.
async fn sent_again(world: &World, shop: &Shop, event: &Value) {
    let first = world.post(EVENTS, event).await.expect(202);
    assert_eq!(first.header("idempotent-replayed"), "true");
    let spaced = serde_json::to_string_pretty(event).expect("JSON");
    let again = world
        .api(Method::POST, EVENTS, Some(spaced))
        .await
        .expect(202);
    assert_eq!(again.json(), first.json());
    assert_eq!(first.json()["applied"], true, "as it was at first");
    let other = with(event.clone(), "/data/number", json!("other"));
    let reply = world.post(EVENTS, &other).await.expect(409);
    is_problem("another body", &reply, "idempotency_key_reused");
    assert_eq!(
        world.post(EVENTS, event).await.expect(202).json(),
        first.json()
    );
    // The id belongs to its merchant: another one may use the same.
    let stranger = with(event.clone(), "/merchant_id", json!("bad-stranger"));
    assert_eq!(world.post(EVENTS, &stranger).await.status, 404);
    assert_eq!(event["merchant_id"], shop.merchant);
}

/// An older version that comes late is accepted, and changes nothing.
async fn out_of_order(world: &World, shop: &Shop) -> BTreeMap<String, i64> {
    let id = format!("{}-late", shop.merchant);
    let send = async |name: &str, kind: &str, data: Value| {
        let event = event(shop, &format!("{id}-{name}"), kind, data);
        world.post(EVENTS, &event).await.expect(202).json()["applied"].clone()
    };
    assert_eq!(
        send("v1", "order.created", order(&id, 1, 1000, "USD")).await,
        true
    );
    assert_eq!(
        send("v3", "order.updated", order(&id, 3, 3000, "USD")).await,
        true
    );
    assert_eq!(
        send("v2", "order.updated", order(&id, 2, 2000, "USD")).await,
        false
    );
    let paid = payment(&format!("{id}-p"), &id, 3000, "USD");
    assert_eq!(send("paid", "payment.processed", paid).await, true);
    BTreeMap::from([(id, 3000)])
}

/// One bad item is refused by itself; what stands before and behind it is taken.
async fn in_a_batch(world: &World, shop: &Shop) -> BTreeMap<String, i64> {
    let (one, two) = (sale(shop, 1, 1100, "USD"), sale(shop, 2, 1200, "USD"));
    let broken = with(
        sale(shop, 3, 1300, "USD").events[0].clone(),
        "/data/currency",
        json!("XQQ"),
    );
    let mut events = one.events.to_vec();
    events.push(broken);
    events.push(json!("no event at all"));
    events.extend(two.events);
    let reply = world
        .post(EVENTS, &json!({ "events": events }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&reply["accepted"], &reply["refused"]),
        (&json!(4), &json!(2)),
        "{reply}"
    );
    let items = reply["data"].as_array().expect("a list");
    let statuses: Vec<&str> = items
        .iter()
        .filter_map(|item| item["status"].as_str())
        .collect();
    assert_eq!(
        statuses,
        [
            "accepted", "accepted", "refused", "refused", "accepted", "accepted"
        ]
    );
    let problem = &items[2]["problem"];
    assert_eq!(
        problem["errors"][0]["pointer"], "#/data/currency",
        "{problem}"
    );
    assert_eq!(problem["code"], "validation_failed");
    assert!(
        problem["request_id"]
            .as_str()
            .is_some_and(|id| id.starts_with("req_"))
    );
    assert_eq!(items[2]["id"], events[2]["id"]);
    BTreeMap::from([(one.order, 1100), (two.order, 1200)])
}

/// Everything that was accepted is in the books, once, and nothing else is.
async fn in_the_books(world: &World, shop: &Shop, expected: BTreeMap<String, i64>) {
    wait("receipts", async || {
        let books = world.books(shop, "SalesReceipt").await;
        let has = |(id, minor): &(&String, &i64)| {
            books
                .get(*id)
                .is_some_and(|all| all.contains(&("USD".to_owned(), **minor)))
        };
        let missing = expected
            .iter()
            .filter(|entry| !has(entry))
            .map(|(id, _)| id.clone());
        (missing.collect(), books.len())
    })
    .await;
    let books = world.books(shop, "SalesReceipt").await;
    let expected: BTreeMap<String, Vec<(String, i64)>> = expected
        .into_iter()
        .map(|(id, minor)| (id, vec![("USD".to_owned(), minor)]))
        .collect();
    assert_eq!(books, expected);
    assert!(
        world.books(shop, "RefundReceipt").await.is_empty(),
        "no refund was accepted"
    );
}
