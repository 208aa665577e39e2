//! What is shown of a connection's health follows the renewals as well as the calls to the API.

use crate::run::{alone, set_up};
use crate::shop::MERCHANT;
use crate::world::{PLATFORM_KEY, Planned, Trouble, World};
use crossdock::api::{Request, integrations};
use crossdock::ctx::Ctx;
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
