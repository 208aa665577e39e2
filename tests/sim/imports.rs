//! Imports beside each other. One that died is taken up by two at once: whatever it had come to, the
//! tokens are used by one, and what the provider gave is lost only if nobody ever stored it. And two that
//! come with one account make one connection.

use crate::cell::{rows, told};
use crate::run::{alone, merchant, register, register_as};
use crate::world::{Planned, Trouble, World};
use chrono::TimeDelta;
use crossdock::ctx::Ctx;
use crossdock::error::{Code, Result};
use crossdock::model::event::EventType;
use crossdock::model::ids::MerchantId;
use crossdock::oauth::connection::{self, Along, Connection, Decision, Lease, Status};
use crossdock::oauth::import::{self, Import};
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::oauth::{hash, manage};
use crossdock::providers::{Consent, PROVIDERS, Refresh, provider};
use crossdock::store::{Store, Table, keys};
use futures::FutureExt;
use local::standins::quickbooks::{DEFAULT_CLIENT_ID, DEFAULT_REALM};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// So many requests have to see an import not end until it is taken for dead.
const WATCHES: usize = 3;
/// No import takes as many turns.
const TURNS_MAX: usize = 500;

async fn import(ctx: &Ctx, token: &str) -> Result<Connection> {
    let tokens = json!({ "refresh_token": token, "tenant_id": DEFAULT_REALM });
    import_at(ctx, "quickbooks", &merchant(), tokens).await
}

async fn import_at(
    ctx: &Ctx,
    name: &str,
    merchant: &MerchantId,
    tokens: Value,
) -> Result<Connection> {
    let import: Import = serde_json::from_value(tokens).unwrap();
    import::import(ctx, merchant, provider(name).unwrap(), import).await
}

/// Whether somebody is at work on the import of a token, as far as its row knows.
fn is_held(world: &World, token: &str) -> bool {
    let row = keys::import("quickbooks", &hash(token));
    let item = alone(world.memory.get(&row)).unwrap();
    item.is_some_and(|item| item.doc["held"] == true)
}

/// Lets as many requests as it takes see that the import of a token does not end.
fn watch(world: &World, ctx: &Ctx, token: &str) {
    for _ in 0..WATCHES {
        if !is_held(world, token) {
            return;
        }
        let asked = alone(token_requests(world));
        let told = alone(import(ctx, token)).unwrap_err();
        assert_eq!(told.code(), Code::Busy, "{}", told.chain());
        assert_eq!(
            alone(token_requests(world)),
            asked,
            "nobody uses it meanwhile"
        );
    }
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
    watch(&world, &ctx, token);

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
        watch(&world, &ctx, token);
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

/// A grant at Salesforce, which ends when a used refresh token comes back.
fn salesforce() -> (World, Ctx, String) {
    brought("salesforce")
}

/// A world with a provider that gave a refresh token to a merchant.
fn brought(name: &'static str) -> (World, Ctx, String) {
    let (world, ctx, grant) = granted(name);
    let token = grant["refresh_token"].as_str().unwrap().to_owned();
    (world, ctx, token)
}

/// A world with a provider to which a merchant's consent was given elsewhere, and what that gave.
fn granted(name: &'static str) -> (World, Ctx, Value) {
    let world = World::with_oauth(1, name);
    let ctx = world.ctx();
    alone(register(&world, &ctx));
    let client = json!({ "client_id": DEFAULT_CLIENT_ID });
    let grant = alone(world.control("POST", "grants", &client.to_string()));
    (world, ctx, grant)
}

/// The provider still gives tokens for what the connection holds.
#[track_caller]
fn assert_lives(ctx: &Ctx, name: &str, owner: &MerchantId, connection: &Connection) {
    alone(async {
        let setup = Setup::of(ctx, provider(name).unwrap()).await.unwrap();
        let (_, held) = connection::load(ctx, owner, &connection.id).await.unwrap();
        let need = Need::Newer(held.generation());
        let renewed = tokens::access(ctx, &setup, owner, &connection.id, need).await;
        renewed.unwrap_or_else(|error| panic!("{}", error.chain()));
    });
}

#[test]
fn a_token_that_was_imported_is_never_used_again_while_its_connection_lives() {
    let (world, ctx, token) = salesforce();
    let other: MerchantId = "m_other".parse().unwrap();
    alone(register_as(&world, &ctx, &other));
    let bring = |owner: &MerchantId| {
        let tokens = json!({ "refresh_token": token });
        alone(import_at(&ctx, "salesforce", owner, tokens))
    };
    let first = bring(&merchant()).unwrap();
    for days in [0, 2, 400] {
        world.advance(Duration::from_secs(days * 86_400));
        // The table has deleted by then what was to vanish.
        alone(world.vanish());
        let told = bring(&other).unwrap_err();
        assert_eq!(told.code(), Code::Conflict, "{}", told.chain());
        for words in [
            "another shop",
            "Disconnect it there first",
            "consent of its own",
        ] {
            assert!(told.detail().contains(words), "{told}");
        }
        assert_eq!(
            bring(&merchant()).unwrap().id,
            first.id,
            "{days} days later"
        );
        if days < 30 {
            assert_lives(&ctx, "salesforce", &merchant(), &first);
        }
    }
    // Once it is given up, whether the token is good is for the provider to say.
    alone(manage::disconnect(&ctx, &merchant(), &first.id, true)).unwrap();
    let told = bring(&other).unwrap_err();
    assert_eq!(told.code(), Code::UpstreamRefused, "{}", told.chain());
}

/// What makes the connection live says at the token what became of it: whoever hears of a failure all the
/// same, and sends the import again, uses nothing twice.
#[test]
fn an_import_whose_end_is_lost_is_known_to_be_done() {
    let mut lost = 0;
    for at in 1.. {
        let (world, ctx, token) = salesforce();
        world.state().store_calls = 0;
        world.state().store_plan = Some(Planned {
            at,
            trouble: Trouble::After,
        });
        let bring = || {
            alone(import_at(
                &ctx,
                "salesforce",
                &merchant(),
                json!({ "refresh_token": token }),
            ))
        };
        let first = bring();
        if world.state().store_calls < at {
            assert!(first.is_ok());
            break;
        }
        world.state().store_plan = None;
        if first.is_ok() {
            continue;
        }
        let live = |all: Vec<(u64, Connection)>| {
            all.into_iter().find(|(_, one)| one.status == Status::Live)
        };
        let Some((_, alive)) = live(alone(connection::list(&ctx, &merchant())).unwrap()) else {
            continue;
        };
        lost += 1;
        // The connection goes on by itself, so what the import was given is dead by now.
        assert_lives(&ctx, "salesforce", &merchant(), &alive);
        world.advance(Duration::from_secs(7200));
        assert_eq!(bring().unwrap().id, alive.id, "call {at}");
        assert_lives(&ctx, "salesforce", &merchant(), &alive);
    }
    assert_eq!(lost, 1, "the transaction that makes it live is one call");
}

/// Two imports of one token, of which the second begins `lead` turns later in a process whose clock is ten
/// minutes fast. Returns whether the first had ended by then.
fn with_a_fast_clock(lead: usize) -> bool {
    let (world, ctx, token) = salesforce();
    let fast = world.process(Arc::new(AtomicI64::new(600_000)));
    let owner = merchant();
    let tokens = || json!({ "refresh_token": token });
    let mut one = Box::pin(import_at(&ctx, "salesforce", &owner, tokens()));
    let mut other = Box::pin(import_at(&fast, "salesforce", &owner, tokens()));
    let mut context = Context::from_waker(Waker::noop());
    let mut ended = [None, None];
    let mut led = false;
    for turn in 0..TURNS_MAX {
        if turn >= lead
            && ended[1].is_none()
            && let Poll::Ready(result) = other.poll_unpin(&mut context)
        {
            ended[1] = Some(result);
        }
        if ended[0].is_none()
            && let Poll::Ready(result) = one.poll_unpin(&mut context)
        {
            ended[0] = Some(result);
        }
        led |= turn + 1 == lead && ended[0].is_some();
    }
    let [first, second] = ended.map(|ended| ended.expect("it ends").unwrap());
    assert_eq!(first.id, second.id, "{lead} turns ahead");
    assert_lives(&ctx, "salesforce", &owner, &first);
    led
}

#[test]
fn an_import_under_way_is_not_taken_over_by_a_clock() {
    let cases = (0..).take_while(|lead| !with_a_fast_clock(*lead)).count();
    assert!(cases > 10, "{cases}");
}

/// How long the function lives that answers the API.
const LIFE: TimeDelta = TimeDelta::seconds(29);

/// Does something within a function's life, at a provider that takes all the time that each call has.
fn within_a_life<T>(world: &World, ctx: &Ctx, act: impl Future<Output = T>) -> T {
    let begun = ctx.now();
    {
        let mut state = world.state();
        state.slow = true;
        state.deadline = Some(begun + LIFE);
    }
    let done = alone(act);
    let took = ctx.now() - begun;
    assert!(took < LIFE, "{took}");
    let mut state = world.state();
    state.slow = false;
    state.deadline = None;
    done
}

#[test]
fn what_a_request_asks_of_a_slow_provider_fits_into_its_time() {
    let (world, ctx, token) = salesforce();
    let grants = alone(world.control("GET", "grants", ""));
    let access = grants[0]["access_tokens"][0].clone();
    let owner = merchant();
    let bring = |tokens: Value| import_at(&ctx, "salesforce", &owner, tokens);
    let whole = json!({ "refresh_token": token, "access_token": access });
    let mut tries = 0;
    let connection = loop {
        tries += 1;
        assert!(tries < 4, "it gets no further");
        match within_a_life(&world, &ctx, bring(whole.clone())) {
            Ok(connection) => break connection,
            Err(error) => {
                let again = error.code().retryable() || error.code() == Code::UpstreamFailed;
                assert!(again, "{}", error.chain());
            }
        }
    };
    assert_lives(&ctx, "salesforce", &owner, &connection);

    // Once its access token has ended, a check and a disconnect have to renew it first.
    world.advance(Duration::from_secs(7200));
    let checked = within_a_life(&world, &ctx, manage::check(&ctx, &owner, &connection.id));
    assert!(checked.is_ok_and(|checked| checked.status == Status::Live));
    assert_lives(&ctx, "salesforce", &owner, &connection);
    // Another process has died while it renewed.
    world.advance(Duration::from_secs(7200));
    let leased = connection::change(&ctx, &owner, &connection.id, |current| {
        current.fence += 1;
        current.lease = Some(Lease {
            fence: current.fence,
            watched: 0,
        });
        Ok(Decision::Store(Along::default(), ()))
    });
    alone(leased).unwrap();
    let refused = within_a_life(
        &world,
        &ctx,
        manage::disconnect(&ctx, &owner, &connection.id, false),
    );
    assert_eq!(refused.unwrap_err().code(), Code::UpstreamFailed);
    let free = connection::change(&ctx, &owner, &connection.id, |current| {
        current.lease = None;
        Ok(Decision::Store(Along::default(), ()))
    });
    alone(free).unwrap();
    let gone = within_a_life(
        &world,
        &ctx,
        manage::disconnect(&ctx, &owner, &connection.id, false),
    );
    assert_eq!(gone.unwrap().status, Status::Disconnected);
}

/// A refresh token is not used by whoever could not store what it gives.
#[test]
fn whoever_has_too_little_time_uses_no_token() {
    for seconds in 0..29 {
        let (world, ctx, token) = salesforce();
        let begun = ctx.now();
        world.state().deadline = Some(begun + TimeDelta::seconds(seconds));
        world.state().slow = true;
        let owner = merchant();
        let tokens = json!({ "refresh_token": token });
        let told = alone(import_at(&ctx, "salesforce", &owner, tokens.clone()));
        assert!(
            ctx.now() - begun <= TimeDelta::seconds(seconds),
            "{seconds}"
        );
        world.state().deadline = None;
        world.state().slow = false;
        if let Err(error) = told {
            assert_eq!(error.code(), Code::Busy, "{seconds}: {}", error.chain());
        }
        let done = alone(import_at(&ctx, "salesforce", &owner, tokens)).unwrap();
        assert_lives(&ctx, "salesforce", &owner, &done);
    }
}

/// A fault at the token endpoint of the world's provider, once.
fn fault(world: &World, mut rule: Value) {
    rule["match"] = json!({ "path_contains": "token" });
    alone(world.control("POST", "faults", &rule.to_string()));
}

/// The refresh token beside an access token that cannot be sent is as good as any: it is used by the same
/// import sent again, however long the access token is said to live.
#[test]
fn an_access_token_that_no_header_can_hold_costs_one_more_import() {
    let (world, ctx, token) = salesforce();
    let bring = || {
        let tokens = json!({ "refresh_token": token });
        alone(import_at(&ctx, "salesforce", &merchant(), tokens))
    };
    fault(
        &world,
        json!({ "kind": "with_field", "field": "access_token", "value": "a\nb" }),
    );
    let told = bring().unwrap_err();
    assert_eq!(told.code(), Code::UpstreamFailed, "{}", told.chain());
    let connection = bring().unwrap();
    assert_lives(&ctx, "salesforce", &merchant(), &connection);
}

/// Whoever is asked too often, or is in trouble, has refused nothing: the same import sent again goes on.
#[test]
fn a_provider_that_is_asked_too_often_has_refused_no_token() {
    for name in [
        "square",
        "square_loyalty",
        "hubspot",
        "xero",
        "paypal",
        "salesforce",
    ] {
        for rule in [
            json!({ "kind": "throttle" }),
            json!({ "kind": "status_before_effect", "status": 500 }),
        ] {
            let (world, ctx, token) = brought(name);
            fault(&world, rule.clone());
            let bring = || {
                let tokens = json!({ "refresh_token": token });
                alone(import_at(&ctx, name, &merchant(), tokens))
            };
            let told = bring().unwrap_err();
            let said = format!("{name} {rule}: {}", told.chain());
            assert_eq!(told.code(), Code::UpstreamFailed, "{said}");
            assert!(told.code().retryable(), "{said}");
            bring().unwrap_or_else(|error| panic!("{name} {rule}: {}", error.chain()));
        }
    }
}

fn pointers(error: &crossdock::error::Error) -> Vec<&str> {
    let fields = error.fields().iter();
    fields.map(|field| field.pointer.as_str()).collect()
}

/// Whoever names an account means that one, and not the one whose tokens came along.
#[test]
fn an_account_that_is_named_is_the_one_that_is_connected() {
    // QuickBooks' tokens do not tell it, so there one is named always.
    let others = PROVIDERS
        .iter()
        .map(|provider| provider.manifest())
        .filter(|manifest| manifest.name != "quickbooks");
    for manifest in others {
        let Some(flow) = manifest.code_flow() else {
            continue;
        };
        let name = manifest.name;
        let world = World::with_oauth(1, name);
        let ctx = world.ctx();
        alone(register(&world, &ctx));
        let client = json!({ "client_id": DEFAULT_CLIENT_ID });
        let renews = flow.refresh != Refresh::None;
        let brought = |with_access: bool| {
            let grant = alone(world.control("POST", "grants", &client.to_string()));
            let mut tokens = json!({});
            if renews {
                tokens["refresh_token"] = grant["refresh_token"].clone();
            }
            if with_access || !renews {
                tokens["access_token"] = grant["access_token"].clone();
            }
            tokens
        };
        let bring = |tokens: &Value, named: Option<&str>| {
            let mut tokens = tokens.clone();
            if let Some(named) = named {
                tokens["tenant_id"] = json!(named);
            }
            alone(import_at(&ctx, name, &merchant(), tokens))
        };
        let refused = |tokens: &Value| {
            let told = bring(tokens, Some("999")).unwrap_err();
            match name {
                // They ask for the account that was named.
                "xero" => assert_eq!(told.code(), Code::UpstreamRefused, "{name}: {told}"),
                _ => assert_eq!(pointers(&told), ["#/tokens/tenant_id"], "{name}: {told}"),
            }
            let all = alone(connection::list(&ctx, &merchant())).unwrap();
            let live = all.iter().filter(|(_, one)| one.status == Status::Live);
            live.count()
        };
        let calls = || {
            let requests = alone(world.control("GET", "requests", ""));
            let paths = requests["paths"].as_object().unwrap().iter();
            paths.filter(|(path, _)| path.contains("token")).count()
        };
        let whole = brought(true);
        assert_eq!(refused(&whole), 0, "{name}");
        // An access token of Salesforce's tells where its account is only together with a renewed one.
        if renews && name != "salesforce" {
            assert_eq!(calls(), 0, "{name}: the refresh token was not used");
        }
        let tokens = brought(false);
        assert_eq!(refused(&tokens), 0, "{name}");
        // What the provider gave is not lost with a wrong name, also where the next one names none.
        let connected = bring(&tokens, None).unwrap_or_else(|told| panic!("{name}: {told}"));
        let same = bring(&tokens, Some(&connected.tenant_id)).unwrap();
        assert_eq!(same.id, connected.id, "{name}");
        // Nor is the same import told of a connection to another account than it names.
        let told = bring(&tokens, Some("999")).unwrap_err();
        assert_eq!(pointers(&told), ["#/tokens/tenant_id"], "{name}: {told}");
        if renews {
            assert_lives(&ctx, name, &merchant(), &connected);
        }
    }
}

#[test]
fn an_import_that_is_done_is_not_done_for_another_company() {
    let world = World::new(1);
    let ctx = world.ctx();
    alone(register(&world, &ctx));
    let grant = alone(world.control("POST", "grants", "{}"));
    let bring = |realm: &str| {
        let tokens = json!({ "refresh_token": grant["refresh_token"], "tenant_id": realm });
        alone(import_at(&ctx, "quickbooks", &merchant(), tokens))
    };
    let done = bring(DEFAULT_REALM).unwrap();
    let told = bring("123").unwrap_err();
    assert_eq!(pointers(&told), ["#/tokens/tenant_id"], "{told}");
    assert_eq!(bring(DEFAULT_REALM).unwrap().id, done.id);
}

/// Keys at a provider of tokens, tokens at one of keys, and keys that nobody knows are refused before
/// anybody is asked.
#[test]
fn what_belongs_to_another_kind_of_provider_is_not_ignored() {
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let name = manifest.name;
        let world = match name {
            "quickbooks" => World::new(1),
            _ => World::with_oauth(1, name),
        };
        let ctx = world.ctx();
        let cases = match &manifest.consent {
            Consent::Code(_) => vec![(
                json!({ "refresh_token": "a", "access_token": "a", "tenant_id": "1", "keys": { "api_key": "a" } }),
                vec!["#/tokens/keys"],
            )],
            Consent::Keys(fields) => {
                let keys = fields.iter().map(|field| {
                    let value = field.choices.first().copied().unwrap_or("a");
                    (field.name.to_owned(), json!(value))
                });
                let keys: serde_json::Map<String, Value> = keys.collect();
                let mut more = keys.clone();
                more.insert("bo/gus".to_owned(), json!("a"));
                vec![
                    (json!({ "keys": more }), vec!["#/tokens/keys/bo~1gus"]),
                    (
                        json!({ "keys": keys, "refresh_token": "a", "access_token": "a" }),
                        vec!["#/tokens/access_token", "#/tokens/refresh_token"],
                    ),
                ]
            }
        };
        for (tokens, expected) in cases {
            let told = alone(import_at(&ctx, name, &merchant(), tokens)).unwrap_err();
            assert_eq!(told.code(), Code::ValidationFailed, "{name}: {told}");
            assert_eq!(pointers(&told), expected, "{name}: {told}");
        }
        assert_eq!(world.state().net_calls, 0, "{name}: nobody was asked");
    }
}

/// What the history of a merchant's only connection tells, and how often its developers were told that it
/// is connected.
fn told_of(world: &World) -> (Vec<(String, String)>, usize) {
    let rows = rows(&world.memory, Table::Connections);
    let entries = rows.iter().filter(|row| row.doc["what"].is_string());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entries = entries.map(|row| (text(&row.doc["what"]), text(&row.doc["detail"])));
    let told = told(&world.memory, EventType::ConnectionConnected);
    (entries.collect(), told)
}

/// The history says that tokens were imported, and not that somebody consented; what changes nothing is
/// told to nobody.
#[test]
fn an_import_is_told_once_and_as_what_it_was() {
    for name in ["salesforce", "stripe", "mailchimp"] {
        let (world, ctx, grant) = granted(name);
        let mut tokens = json!({ "access_token": grant["access_token"] });
        if name == "salesforce" {
            tokens = json!({ "refresh_token": grant["refresh_token"] });
        }
        let bring = || alone(import_at(&ctx, name, &merchant(), tokens.clone())).unwrap();
        let first = bring();
        let title = provider(name).unwrap().manifest().title;
        let detail = format!(
            "tokens were imported; {} is connected to {title}",
            first.label()
        );
        let once = (vec![("imported".to_owned(), detail)], 1);
        assert_eq!(told_of(&world), once, "{name}");
        let stored = rows(&world.memory, Table::Connections);
        let held = alone(connection::load(&ctx, &merchant(), &first.id)).unwrap();
        assert_eq!(bring().id, first.id);
        assert_eq!(told_of(&world), once, "{name}: the same again");
        let now = alone(connection::load(&ctx, &merchant(), &first.id)).unwrap();
        assert_eq!(now, held, "{name}");
        assert_eq!(rows(&world.memory, Table::Connections).len(), stored.len());

        // Other tokens of the same account are another matter.
        if name != "salesforce" {
            let client = json!({ "client_id": DEFAULT_CLIENT_ID });
            let other = alone(world.control("POST", "grants", &client.to_string()));
            let tokens = json!({ "access_token": other["access_token"] });
            let again = alone(import_at(&ctx, name, &merchant(), tokens)).unwrap();
            assert_eq!((again.id, again.tokens.unwrap().generation), (first.id, 2));
            assert_eq!(told_of(&world).1, 2, "{name}");
        }
    }
}
