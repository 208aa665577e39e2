//! Links, consents and confirmations end after half an hour, also while their rows still stand: the
//! table deletes what has ended some time later.

use crate::run::{alone, confirm, consent, cookies, finish, link, prove, register};
use crate::world::World;
use crossdock::ctx::Ctx;
use crossdock::error::{Code, Result};
use crossdock::oauth::connect::{self, LINK_LIFE};
use crossdock::store::{Item, Store, Table};
use std::time::Duration;

const LIFE: Duration = Duration::from_secs(LINK_LIFE.num_seconds().unsigned_abs());
const SECOND: Duration = Duration::from_secs(1);

/// A merchant without a connection, and the process that serves it.
fn fresh() -> (World, Ctx) {
    let world = World::new(1);
    let ctx = world.ctx();
    alone(register(&world, &ctx));
    (world, ctx)
}

async fn stored(world: &World) -> Vec<Item> {
    let page = world.memory.scan(Table::Connections, None, 1000).await;
    page.unwrap().items
}

/// Lets `act` happen just before the end, where it works, and at the end, where it is refused with
/// `code`, calls nobody and changes nothing.
fn ends<P>(
    prepare: impl AsyncFn(&World, &Ctx) -> P,
    act: impl AsyncFn(&Ctx, P) -> Result<()>,
    code: Code,
) {
    let (world, ctx) = fresh();
    alone(async {
        let prepared = prepare(&world, &ctx).await;
        world.advance(LIFE - SECOND);
        act(&ctx, prepared).await.unwrap();
    });
    let (world, ctx) = fresh();
    alone(async {
        let prepared = prepare(&world, &ctx).await;
        world.advance(LIFE);
        let before = stored(&world).await;
        let calls = world.state().net_calls;
        let refused = act(&ctx, prepared).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.detail().contains("30 minutes"), "{refused}");
        assert_eq!(world.state().net_calls, calls, "nobody was called");
        assert_eq!(stored(&world).await, before, "nothing was changed");
    });
}

#[test]
fn a_link_ends() {
    ends(
        async |world, ctx| link(world, ctx).await,
        async |ctx, link| connect::start(ctx, &link).await.map(drop),
        Code::LinkExpired,
    );
}

/// The provider's own codes live for ten minutes, so the consent itself is given late.
#[test]
fn a_consent_ends_with_its_link() {
    let (world, ctx) = fresh();
    alone(async {
        let link = link(&world, &ctx).await;
        world.advance(LIFE - SECOND);
        let callback = consent(&world, &ctx, &link).await;
        world.advance(SECOND);
        let before = stored(&world).await;
        let calls = world.state().net_calls;
        let refused = finish(&ctx, callback).await.unwrap_err();
        assert_eq!(refused.code(), Code::LinkExpired, "{refused}");
        assert_eq!(world.state().net_calls, calls, "nobody was called");
        assert_eq!(stored(&world).await, before, "nothing was changed");
    });
}

#[test]
fn a_confirmation_ends() {
    ends(
        async |world, ctx| {
            let callback = consent(world, ctx, &link(world, ctx).await).await;
            finish(ctx, callback).await.unwrap()
        },
        async |ctx, (id, confirmation)| confirm(ctx, &id, &confirmation).await.map(drop),
        Code::ValidationFailed,
    );
}

#[test]
fn a_proof_ends_with_its_confirmation() {
    ends(
        async |world, ctx| {
            let callback = consent(world, ctx, &link(world, ctx).await).await;
            let cookies = cookies(&callback);
            let (id, confirmation) = finish(ctx, callback).await.unwrap();
            (confirm(ctx, &id, &confirmation).await.unwrap(), cookies)
        },
        async |ctx, (url, cookies)| prove(ctx, &url, &cookies).await.map(drop),
        Code::LinkExpired,
    );
}
