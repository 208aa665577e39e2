//! What is shown of a connection's health follows the renewals as well as the calls to the API.

use crate::cell::told;
use crate::run::{Books, Job, Run, alone, consent, finish, link, merchant, set_up};
use crate::shop::{MERCHANT, Shop};
use crate::world::{PLATFORM_KEY, Planned, Trouble, World};
use async_trait::async_trait;
use axum::http;
use crossdock::api::{Request, integrations};
use crossdock::ctx::Ctx;
use crossdock::engine::refresh::{self, DueNotice};
use crossdock::error::{Code, Result};
use crossdock::model::event::EventType;
use crossdock::oauth::connection::{self, Along, Decision, Due, Lease, Status};
use crossdock::oauth::manage;
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::providers::provider;
use crossdock::secrets::Secrets;
use crossdock::store::{keys, list_all};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
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

    alone(manage::disconnect(&ctx, &merchant, &id, true)).unwrap();
    let ended = shown(&ctx);
    assert_eq!(
        (&ended["status"], &ended["health"]),
        (&json!("disconnected"), &Value::Null)
    );
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
                    connection_id: id.clone(),
                    category: provider("xero").unwrap().manifest().category,
                    generation: 1,
                };
                alone(refresh::renew(&ctx, &DueNotice { due: vec![due] })).unwrap();
            }
        }
        let now = shown(&ctx);
        assert_eq!(now["status"], "reauth_required", "{first}: {now}");
        assert_eq!(now["trouble"]["code"], "invalid_grant", "{first}: {now}");
        // A check later renews the tokens, and still nothing is connected.
        let merchant = MERCHANT.parse().unwrap();
        for _ in 0..3 {
            world.advance(Duration::from_secs(3600));
            let checked = alone(manage::check(&ctx, &merchant, &id)).unwrap();
            assert_eq!(checked.status, Status::ReauthRequired, "{first}");
        }
        let told = |kind| told(&world.memory, kind);
        assert_eq!(told(EventType::ConnectionReauthRequired), 1, "{first}");
        assert_eq!(told(EventType::ConnectionConnected), 1, "{first}");
    }
}

/// A push that comes before any check finds it while it reads how the organisation is set up.
#[test]
fn an_organisation_that_is_taken_away_parks_no_record() {
    let mut run = Run::of(1, Books::Xero, Shop::one_payment);
    let all = std::mem::take(&mut run.unsent);
    run.whole(Job::Accept(vec![all[0]]));
    run.relay_and_push();
    taken_away(&run.world);
    // How it is set up is known for an hour.
    run.world.advance(Duration::from_secs(7200));
    run.whole(Job::Accept(all[1..].to_vec()));
    run.relay_and_push();
    assert_eq!(run.connection().status, Status::ReauthRequired);
    let group = keys::troubled(&merchant(), &run.connection().id);
    let troubled = alone(list_all(&*run.world.memory, &group, 10)).unwrap();
    assert!(troubled.is_empty(), "{troubled:?}");
}

/// Nobody but a check comes to such a connection, and each has little time.
#[test]
fn a_lease_that_a_dead_check_left_is_taken_over_by_checks() {
    let world = World::new(1);
    let ctx = world.ctx();
    let id = alone(set_up(&world, &ctx));
    let merchant = MERCHANT.parse().unwrap();
    world.advance(Duration::from_secs(3600));
    let left = connection::change(&ctx, &merchant, &id, |current| {
        current.status = Status::ReauthRequired;
        current.next_refresh_at = None;
        current.fence += 1;
        current.lease = Some(Lease {
            fence: current.fence,
            watched: 0,
        });
        Ok(Decision::Store(Along::default(), ()))
    });
    alone(left).unwrap();
    let mut busy = 0;
    let checked = loop {
        match alone(manage::check(&ctx, &merchant, &id)) {
            Ok(checked) => break checked,
            Err(error) => assert_eq!(error.code(), Code::Busy),
        }
        busy += 1;
        assert!(busy < 15, "it is busy for ever");
    };
    assert!(busy > 3, "it was taken over from one who may be alive");
    assert_eq!((checked.status, checked.lease), (Status::Live, None));
}

/// What the platform is at the providers, after somebody has configured another application.
struct Reconfigured(World);

const OTHER_APPLICATION: &str = "another-application";

#[async_trait]
impl Secrets for Reconfigured {
    async fn get(&self, id: &str) -> Result<SecretString> {
        let held = Secrets::get(&self.0, id).await?;
        if !id.starts_with("provider-") {
            return Ok(held);
        }
        let mut credentials: Value = serde_json::from_str(held.expose_secret()).unwrap();
        credentials["client_id"] = OTHER_APPLICATION.into();
        Ok(SecretString::from(credentials.to_string()))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
        panic!("nobody replaces a secret here")
    }
}

/// Another application ends the connections of the one before; once that is put right, a check finds that
/// what is held is good, and until then it changes nothing.
#[test]
fn what_a_wrong_configuration_ended_is_found_again_by_a_check() {
    for world in [World::new(1), World::with_xero(1)] {
        let ctx = world.ctx();
        let id = alone(set_up(&world, &ctx));
        let other = json!({
            "client_id": OTHER_APPLICATION,
            "client_secret": local::standins::quickbooks::DEFAULT_CLIENT_SECRET,
            "redirect_uris": [],
        });
        alone(world.control("POST", "clients", &other.to_string()));
        let wrong = Ctx {
            secrets: Arc::new(Reconfigured(world.clone())),
            ..world.ctx()
        };
        let merchant = MERCHANT.parse().unwrap();
        let check = |ctx: &Ctx| alone(manage::check(ctx, &merchant, &id)).unwrap();
        world.advance(Duration::from_secs(3600));
        for _ in 0..3 {
            assert_eq!(check(&wrong).status, Status::ReauthRequired);
        }
        let told = |kind| told(&world.memory, kind);
        assert_eq!(told(EventType::ConnectionReauthRequired), 1);
        let connected = told(EventType::ConnectionConnected);
        assert_eq!(shown(&ctx)["lease"], Value::Null);

        let checked = check(&ctx);
        assert_eq!(checked.status, Status::Live);
        assert_eq!((checked.lease, checked.trouble), (None, None));
        assert!(
            checked.next_refresh_at.is_some(),
            "the schedule has it again"
        );
        assert_eq!(told(EventType::ConnectionConnected), connected + 1);
        assert_eq!(shown(&ctx)["health"], "healthy");
        check(&ctx);
        assert_eq!(told(EventType::ConnectionConnected), connected + 1);

        // Also while the access token is good, which the provider refused for a while.
        let name = world.vendor.name();
        let setup = alone(Setup::of(&ctx, provider(name).unwrap())).unwrap();
        let ended = connection::change(&ctx, &merchant, &id, |current| {
            current.status = Status::ReauthRequired;
            current.next_refresh_at = None;
            Ok(Decision::Store(Along::default(), ()))
        });
        alone(ended).unwrap();
        let used = alone(tokens::access(&ctx, &setup, &merchant, &id, Need::Good));
        assert_eq!(used.unwrap_err().code(), Code::ConnectionReauthRequired);
        assert_eq!(check(&ctx).status, Status::Live);
    }
}
