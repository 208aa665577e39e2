//! What is shown of a connection's health follows the renewals as well as the calls to the API.

use crate::run::{alone, consent, finish, link, set_up};
use crate::shop::MERCHANT;
use crate::world::{PLATFORM_KEY, Planned, Trouble, World};
use axum::http;
use crossdock::api::{Request, integrations};
use crossdock::ctx::Ctx;
use crossdock::engine::refresh::{self, DueNotice};
use crossdock::oauth::connection::{Due, Status};
use crossdock::oauth::manage;
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::providers::provider;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

fn shown(ctx: &Ctx) -> Value {
    let request = Request {
        method: "GET".to_owned(),
        path: "/api/v1/integrations".to_owned(),
        query: BTreeMap::from([("merchant_id".to_owned(), MERCHANT.to_owned())]),
        bearer: Some(PLATFORM_KEY.into()),
        ..Request::default()
    };
    let answer = alone(integrations::handle(ctx, &request)).unwrap();
    let list: Value = serde_json::from_str(&answer.body).unwrap();
    list["data"][0].clone()
}

#[test]
fn a_renewal_that_fails_is_seen_and_one_that_succeeds_heals() {
    let world = World::new(1);
    let ctx = world.ctx();
    let id = alone(set_up(&world, &ctx));
    let quickbooks = alone(Setup::of(&ctx, provider("quickbooks").unwrap())).unwrap();
    let merchant = MERCHANT.parse().unwrap();
    let renew = || {
        alone(tokens::access(
            &ctx,
            &quickbooks,
            &merchant,
            &id,
            Need::Good,
        ))
    };

    let fresh = shown(&ctx);
    assert_eq!(fresh["health"], "healthy", "the provider gave tokens");
    assert!(fresh["last_success_at"].is_string() && fresh["last_failure"].is_null());

    world.advance(Duration::from_secs(3600));
    {
        let mut state = world.state();
        state.net_calls = 0;
        state.net_plan = Some(Planned {
            at: 1,
            trouble: Trouble::StatusBefore,
        });
    }
    renew().unwrap_err();
    let failing = shown(&ctx);
    assert_eq!(
        (&failing["status"], &failing["health"]),
        (&"live".into(), &"failing".into())
    );
    assert_eq!(failing["last_failure"], failing["trouble"]);
    assert_eq!(
        failing["last_failure"]["code"], "upstream_failed",
        "{failing}"
    );
    assert_eq!(failing["last_success_at"], fresh["last_success_at"]);

    world.advance(Duration::from_secs(60));
    renew().unwrap();
    let healed = shown(&ctx);
    assert_eq!(healed["health"], "healthy", "{healed}");
    assert_ne!(healed["last_success_at"], fresh["last_success_at"]);
}

/// What takes an organisation away from the application at Xero: the merchant does it in Xero's list of
/// connected apps, and it is the same call.
fn taken_away(world: &World) {
    let grants = alone(world.control("GET", "grants", ""));
    let token = grants[0]["access_tokens"].as_array().unwrap().last();
    let token = token.unwrap().as_str().unwrap().to_owned();
    let call = |method: &str, path: &str| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .body(Vec::new())
            .unwrap();
        alone(world.vendor.handle(request)).unwrap()
    };
    let listed = call("GET", "/connections");
    let organisations: Value = serde_json::from_slice(listed.body()).unwrap();
    let id = organisations[0]["id"].as_str().unwrap();
    assert_eq!(call("DELETE", &format!("/connections/{id}")).status(), 204);
}

/// Xero counts a person's consents to one organisation together, and names the newest.
#[test]
fn a_consent_that_nobody_finishes_leaves_what_is_live() {
    let world = World::with_xero(1);
    let ctx = world.ctx();
    let id = alone(set_up(&world, &ctx));
    alone(async {
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        finish(&ctx, callback).await.unwrap();
        let merchant = MERCHANT.parse().unwrap();
        let checked = manage::check(&ctx, &merchant, &id).await.unwrap();
        assert_eq!(checked.status, Status::Live);
        assert!(checked.trouble.is_none());
    });
}

/// The grant lives on, so its renewals say nothing.
#[test]
fn an_organisation_that_is_taken_away_is_noticed_by_whoever_comes_first() {
    for first in ["check", "renewal"] {
        let world = World::with_xero(1);
        let ctx = world.ctx();
        let id = alone(set_up(&world, &ctx));
        let merchant = MERCHANT.parse().unwrap();
        taken_away(&world);
        match first {
            "check" => {
                let checked = alone(manage::check(&ctx, &merchant, &id)).unwrap();
                assert_eq!(checked.status, Status::ReauthRequired, "{first}");
            }
            _ => {
                let due = Due {
                    merchant_id: merchant,
                    connection_id: id,
                    category: provider("xero").unwrap().manifest().category,
                    generation: 1,
                };
                alone(refresh::renew(&ctx, &DueNotice { due: vec![due] })).unwrap();
            }
        }
        let now = shown(&ctx);
        assert_eq!(now["status"], "reauth_required", "{first}: {now}");
        assert_eq!(now["trouble"]["code"], "invalid_grant", "{first}: {now}");
    }
}
