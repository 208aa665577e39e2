//! What a provider's webhooks tell reaches the connection once, whatever is lost on the way, and however
//! often and in whatever order it comes.

use crate::run::{alone, merchant, set_up};
use crate::world::{HOOKS_QUEUE, PUBLIC_URL, Planned, Stand, Trouble, WEBHOOK_VERIFIER, World};
use axum::http;
use crossdock::api;
use crossdock::ctx::Ctx;
use crossdock::engine::hooks;
use crossdock::error::Code;
use crossdock::model::ids::ConnectionId;
use crossdock::model::notice::HookNotice;
use crossdock::oauth::tenant;
use crossdock::store::{Store, keys};
use crossdock::sync::changed::{Changed, Operation};
use futures::FutureExt;
use local::standins::quickbooks::{DEFAULT_REALM, Quickbooks};
use serde_json::{Value, json};
use std::time::Duration;

fn connected() -> (World, Ctx, ConnectionId) {
    let world = World::new(1);
    let ctx = world.ctx();
    let connection = alone(set_up(&world, &ctx));
    (world, ctx, connection)
}

fn quickbooks(world: &World) -> &Quickbooks {
    match &world.vendor {
        Stand::Quickbooks(vendor) => vendor,
        Stand::Xero(_) | Stand::OAuth(..) => panic!("this is about QuickBooks"),
    }
}

/// What the function is called with when the provider sends `request`.
fn arrives(request: &http::Request<Vec<u8>>) -> api::Request {
    let headers = request.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    api::Request {
        method: "POST".to_owned(),
        path: request.uri().path().to_owned(),
        headers: headers.collect(),
        body: request.body().clone(),
        ..api::Request::default()
    }
}

/// Lets the provider tell of a customer that is made, changed and deactivated there.
fn told(world: &World, options: &Value) -> (String, Vec<http::Request<Vec<u8>>>) {
    let mut target = json!({
        "url": format!("{PUBLIC_URL}/hooks/quickbooks/{}", tenant(PUBLIC_URL)),
        "verifier": WEBHOOK_VERIFIER,
    });
    for (name, value) in options.as_object().unwrap() {
        target[name] = value.clone();
    }
    alone(world.control("POST", "webhooks", &target.to_string()));
    let token = alone(world.control("POST", "grants", "{}"))["access_token"].clone();
    let write = |body: Value| {
        let request = http::Request::post(format!(
            "/v3/company/{DEFAULT_REALM}/customer?minorversion=75"
        ))
        .header(
            "authorization",
            format!("Bearer {}", token.as_str().unwrap()),
        )
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
        let answer = alone(world.vendor.handle(request)).unwrap();
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(answer.status(), 200, "{body}");
        body["Customer"].clone()
    };
    let mut requests = Vec::new();
    let mut made = write(json!({"DisplayName": "Ada"}));
    requests.extend(quickbooks(world).webhooks());
    for active in [true, false] {
        world.advance(Duration::from_secs(2));
        made["Active"] = json!(active);
        made["GivenName"] = json!(format!("{active}"));
        made = write(made);
        requests.extend(quickbooks(world).webhooks());
    }
    (made["Id"].as_str().unwrap().to_owned(), requests)
}

/// Sends `request` as the provider does: until it is answered with 200.
fn sent(ctx: &Ctx, request: &http::Request<Vec<u8>>) {
    for _ in 0..3 {
        match alone(api::hooks::handle(ctx, &arrives(request))) {
            Ok(answer) => {
                assert_eq!((answer.status, answer.body.as_str()), (200, ""));
                assert!(answer.headers.is_empty(), "{:?}", answer.headers);
                return;
            }
            Err(error) => assert!(error.code().retryable(), "{}", error.chain()),
        }
    }
    panic!("it is refused for good");
}

fn queued(world: &World) -> Vec<HookNotice> {
    let sent = std::mem::take(&mut world.state().sent);
    let ours = sent.into_iter().filter(|(url, _)| url == HOOKS_QUEUE);
    ours.map(|(_, body)| serde_json::from_str(&body).unwrap())
        .collect()
}

fn row(world: &World, connection: &ConnectionId, id: &str) -> Option<(u64, Changed)> {
    let key = keys::changed(&merchant(), connection, "customer", id);
    let item = world.memory.get(&key).now_or_never().unwrap().unwrap()?;
    Some((item.rev, item.read().unwrap()))
}

#[test]
fn every_shape_and_order_notes_the_last_change() {
    for cloud_events in [false, true] {
        for doubled in [false, true] {
            for backwards in [false, true] {
                let (world, ctx, connection) = connected();
                let options = json!({"cloud_events": cloud_events, "doubled": doubled});
                let (id, mut requests) = told(&world, &options);
                assert_eq!(requests.len(), if doubled { 6 } else { 3 });
                if backwards {
                    requests.reverse();
                }
                for request in &requests {
                    sent(&ctx, request);
                }
                let notices = queued(&world);
                assert_eq!(notices.len(), requests.len());
                for notice in &notices {
                    alone(hooks::apply(&ctx, notice)).unwrap();
                }
                let (rev, changed) = row(&world, &connection, &id).unwrap();
                assert_eq!(changed.operation, Operation::Updated);
                let last = changed.at.unwrap();
                assert_eq!((world.state().now - last).num_seconds(), 0);
                // What comes twice or too late writes nothing.
                assert_eq!(rev, if backwards { 1 } else { 3 });
            }
        }
    }
}

/// Each call to the store fails in turn, before or after it acted, and each time the queue brings the
/// message again.
#[test]
fn nothing_is_lost_on_the_way() {
    for trouble in [Trouble::Before, Trouble::After] {
        for at in 1.. {
            let (world, ctx, connection) = connected();
            let (id, requests) = told(&world, &json!({}));
            {
                let mut state = world.state();
                state.store_calls = 0;
                state.store_plan = Some(Planned { at, trouble });
            }
            requests.iter().for_each(|request| sent(&ctx, request));
            for notice in queued(&world) {
                for _ in 0..2 {
                    if alone(hooks::apply(&ctx, &notice)).is_ok() {
                        break;
                    }
                }
            }
            let (_, changed) = row(&world, &connection, &id).unwrap();
            assert_eq!((world.state().now - changed.at.unwrap()).num_seconds(), 0);
            if world.state().store_calls < at {
                assert!(at > 10, "only {at} calls were made");
                break;
            }
        }
    }
}

#[test]
fn a_wrong_signature_is_refused() {
    let (world, ctx, _) = connected();
    let (_, requests) = told(&world, &json!({}));
    let good = arrives(&requests[0]);
    let signature = good.headers["intuit-signature"].clone();
    let mut wrong = Vec::new();
    for header in ["", "x", "AAAA", &signature[1..], &signature.to_uppercase()] {
        let mut request = arrives(&requests[0]);
        request
            .headers
            .insert("intuit-signature".to_owned(), header.to_owned());
        wrong.push(request);
    }
    let mut request = arrives(&requests[0]);
    request.headers.clear();
    wrong.push(request);
    // One byte more, less, or another.
    for change in [
        |body: &mut Vec<u8>| body.push(b' '),
        |body: &mut Vec<u8>| body.truncate(body.len() - 1),
        |body: &mut Vec<u8>| body[5] ^= 1,
    ] {
        let mut request = arrives(&requests[0]);
        change(&mut request.body);
        wrong.push(request);
    }
    for request in &wrong {
        let error = alone(api::hooks::handle(&ctx, request)).unwrap_err();
        assert_eq!(error.code(), Code::SignatureRefused);
    }
    assert!(
        queued(&world).is_empty(),
        "something was queued all the same"
    );
    for path in [
        "/hooks/quickbooks/another",
        "/hooks/stripe/x",
        "/hooks/none/x",
        "/hooks/quickbooks",
    ] {
        let mut request = arrives(&requests[0]);
        request.path = path.to_owned();
        let error = alone(api::hooks::handle(&ctx, &request)).unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{path}");
    }
}

#[test]
fn what_is_about_nobody_is_dropped_and_what_nobody_can_read_is_not() {
    let (world, ctx, connection) = connected();
    let notice = |body: String| HookNotice {
        provider: "quickbooks".to_owned(),
        received_at: world.state().now,
        event: None,
        body,
    };
    let body = |realm: &str| {
        json!({"eventNotifications": [{"realmId": realm, "dataChangeEvent": {"entities": [
            {"name": "Customer", "id": "77", "operation": "Update"}]}}]})
        .to_string()
    };
    alone(hooks::apply(&ctx, &notice(body("1")))).unwrap();
    assert_eq!(row(&world, &connection, "77"), None);
    alone(hooks::apply(&ctx, &notice(body(DEFAULT_REALM)))).unwrap();
    assert!(row(&world, &connection, "77").is_some());
    let error = alone(hooks::apply(&ctx, &notice("{}".to_owned()))).unwrap_err();
    assert!(
        error.code().retryable(),
        "it would not reach the dead-letter queue"
    );
}
