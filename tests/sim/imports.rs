//! Imports beside each other. One that died is taken up by two at once: whatever it had come to, the
//! tokens are used by one, and what the provider gave is lost only if nobody ever stored it. And two that
//! come with one account make one connection.

use crate::run::{alone, merchant, register};
use crate::world::World;
use crossdock::ctx::Ctx;
use crossdock::error::{Code, Result};
use crossdock::oauth::connection::{self, Connection, Status};
use crossdock::oauth::import::{self, Import};
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::providers::provider;
use futures::FutureExt;
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::json;
use std::collections::BTreeSet;
use std::task::{Context, Waker};
use std::time::Duration;

/// After this long whoever was at work on an import is taken for dead.
const AT_WORK: Duration = Duration::from_secs(61);
/// No import takes as many turns.
const TURNS_MAX: usize = 500;

async fn import(ctx: &Ctx, token: &str) -> Result<Connection> {
    let import: Import = serde_json::from_value(json!({
        "refresh_token": token, "tenant_id": DEFAULT_REALM,
    }))
    .unwrap();
    import::import(ctx, &merchant(), provider("quickbooks").unwrap(), import).await
}

/// How many requests for tokens the provider answered, and how many of them with tokens.
async fn token_requests(world: &World) -> (u64, u64) {
    let requests = world.control("GET", "requests", "").await;
    let paths = requests["paths"].as_object().unwrap();
    let (mut all, mut good) = (0, 0);
    for (path, statuses) in paths
        .iter()
        .filter(|(path, _)| path.contains("tokens/bearer"))
    {
        for (status, count) in statuses.as_object().unwrap() {
            let count = count.as_u64().unwrap();
            all += count;
            good += if status == "200" { count } else { 0 };
            assert!(["200", "400"].contains(&status.as_str()), "{path} {status}");
        }
    }
    (all, good)
}

enum Outcome {
    /// The import had ended before it could die.
    Survived,
    Dead {
        /// The first of the two had ended before the second began.
        led: bool,
        /// What the provider gave died with the import.
        lost: bool,
    },
}

/// Lets an import die after `dies_at` turns, and two take it up of which the first is `lead` turns ahead.
fn taken_over(dies_at: usize, lead: usize) -> Outcome {
    let world = World::new(1);
    let ctx = world.ctx();
    alone(register(&world, &ctx));
    let grant = alone(world.control("POST", "grants", "{}"));
    let token = grant["refresh_token"].as_str().unwrap();
    let mut turns = Context::from_waker(Waker::noop());
    {
        let mut dead = Box::pin(import(&ctx, token));
        for _ in 0..dies_at {
            if dead.poll_unpin(&mut turns).is_ready() {
                return Outcome::Survived;
            }
        }
    }
    let (_, given_before) = alone(token_requests(&world));
    world.advance(AT_WORK);

    let mut two = [Box::pin(import(&ctx, token)), Box::pin(import(&ctx, token))];
    let mut ended = [None, None];
    let mut led = false;
    for turn in 0..TURNS_MAX {
        for (index, import) in two.iter_mut().enumerate() {
            let waits = index == 1 && turn < lead;
            if !waits && ended[index].is_none() {
                let polled = import.poll_unpin(&mut turns);
                ended[index] = polled.is_ready().then_some(polled);
            }
        }
        led |= turn + 1 == lead && ended[0].is_some();
    }
    let case = format!("death after {dies_at} turns, {lead} turns ahead");
    let ended: Vec<Result<Connection>> = ended
        .into_iter()
        .map(|polled| match polled {
            Some(std::task::Poll::Ready(result)) => result,
            _ => panic!("{case}: it does not end"),
        })
        .collect();
    for error in ended.iter().filter_map(|result| result.as_ref().err()) {
        let told = error.code().retryable() || error.code() == Code::UpstreamFailed;
        assert!(told, "{case}: {}", error.chain());
    }
    // Whoever was told to come again does, and so does whoever never heard that it was done.
    for _ in 0..2 {
        world.advance(AT_WORK);
        let again = alone(import(&ctx, token));
        let done = ended.iter().flatten().next();
        if let Some(done) = done {
            assert_eq!(again.unwrap().id, done.id, "{case}: it is the same");
        }
    }

    let (_, given) = alone(token_requests(&world));
    let all = alone(connection::list(&ctx, &merchant())).unwrap();
    let live: Vec<&Connection> = all
        .iter()
        .map(|(_, connection)| connection)
        .filter(|connection| connection.status == Status::Live)
        .collect();
    // Where they work again for a while, as at QuickBooks, what died with its process is asked for again.
    let lost = given_before == 1 && given == 2;
    assert!(
        lost || given == 1,
        "{case}: the tokens were used {given} times"
    );
    match live[..] {
        // What is alive can be renewed, so these are the tokens that the provider gave last.
        [connection] => alone(async {
            let setup = Setup::of(&ctx, provider("quickbooks").unwrap());
            let setup = setup.await.unwrap();
            let (owner, id) = (merchant(), &connection.id);
            let held = tokens::access(&ctx, &setup, &owner, id, Need::Good).await;
            let (_, grant) = held.unwrap_or_else(|error| panic!("{case}: {}", error.chain()));
            let renewed =
                tokens::access(&ctx, &setup, &owner, id, Need::Other(&grant.access)).await;
            renewed.unwrap_or_else(|error| panic!("{case}: {}", error.chain()));
        }),
        // The provider's answer died with the process that waited for it.
        [] => assert_eq!(
            given_before, 1,
            "{case}: nothing was lost, yet nothing lives"
        ),
        _ => panic!("{case}: {} connections of one account", live.len()),
    }
    Outcome::Dead { led, lost }
}

#[test]
fn a_dead_import_is_taken_up_by_one_of_two() {
    let mut cases = 0;
    let mut deaths_that_lose = BTreeSet::new();
    'deaths: for dies_at in 0.. {
        for lead in 0.. {
            let Outcome::Dead { led, lost } = taken_over(dies_at, lead) else {
                break 'deaths;
            };
            cases += 1;
            if lost {
                deaths_that_lose.insert(dies_at);
            }
            if led {
                break;
            }
        }
    }
    println!("{cases} cases of a death and two that take over");
    assert!(cases > 100, "{cases}: an import makes more steps than this");
    // On the way from the provider to us, and from us to the table.
    assert_eq!(deaths_that_lose.len(), 2, "{deaths_that_lose:?}");
}

/// Two imports with grants of their own, of one account, of which the second begins `lead` turns later.
/// Returns whether the first had ended by then.
fn beside(lead: usize) -> bool {
    let world = World::new(1);
    let ctx = world.ctx();
    alone(register(&world, &ctx));
    let token = || {
        let grant = alone(world.control("POST", "grants", "{}"));
        grant["refresh_token"].as_str().unwrap().to_owned()
    };
    let (first, second) = (token(), token());
    let mut two = [
        Box::pin(import(&ctx, &first)),
        Box::pin(import(&ctx, &second)),
    ];
    let mut ended = [None, None];
    let mut led = false;
    for turn in 0..TURNS_MAX {
        for (index, import) in two.iter_mut().enumerate() {
            let waits = index == 1 && turn < lead;
            if !waits && ended[index].is_none() {
                let polled = import.poll_unpin(&mut Context::from_waker(Waker::noop()));
                ended[index] = polled.is_ready().then_some(polled);
            }
        }
        led |= turn + 1 == lead && ended[0].is_some();
        // Where one waits for the other, time has to pass.
        world.advance(Duration::from_millis(5));
    }
    let ids: BTreeSet<String> = ended
        .into_iter()
        .map(|polled| match polled {
            Some(std::task::Poll::Ready(result)) => result.unwrap().id.to_string(),
            _ => panic!("{lead} turns ahead: it does not end"),
        })
        .collect();
    let all = alone(connection::list(&ctx, &merchant())).unwrap();
    assert_eq!((ids.len(), all.len()), (1, 1), "{lead} turns ahead");
    assert_eq!(all[0].1.status, Status::Live, "{lead} turns ahead");
    led
}

#[test]
fn two_grants_of_one_account_make_one_connection() {
    let cases = (0..).take_while(|lead| !beside(*lead)).count();
    assert!(cases > 10, "{cases}");
}
