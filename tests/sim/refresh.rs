//! One thing at a time that goes wrong while tokens are renewed.

use crate::cell::token_answer;
use crate::cell::{Canned, Cell, LIFE, Outage, Rule, connection as made, merchant, stored_refresh};
use crate::run::alone;
use async_trait::async_trait;
use chrono::TimeDelta;
use crossdock::ctx::Ctx;
use crossdock::engine::refresh::{self, DueNotice};
use crossdock::engine::session::Session;
use crossdock::error::{Code, Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Method, Request, Response};
use crossdock::model::ids::{ConnectionId, MerchantId};
use crossdock::net::{Limits, Net};
use crossdock::oauth::connection::{
    self, Along, Connection, Decision, Due, Status, Tokens, change, minute_of,
};
use crossdock::oauth::setup::Setup;
use crossdock::oauth::tokens::{self, Need};
use crossdock::oauth::vault;
use crossdock::providers::accounting::accounting;
use crossdock::store::{Condition, Item, Store, Write, keys};
use futures::future::join_all;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::sync::Arc;
use std::task::{Context, Waker};

/// How long a lease has to stand still: the answer to the write that took it, the call to the provider,
/// and the storing of what that gave, of which the last try may begin at the end of its time.
const TAKEOVER: TimeDelta = TimeDelta::seconds(8 + 20 + 8 + 2 * 8 + 2);

struct One {
    cell: Cell,
    ctx: Ctx,
    setup: Setup,
    owner: MerchantId,
    id: ConnectionId,
}

impl One {
    fn new(rule: Rule) -> One {
        let cell = Cell::new(rule);
        let ctx = cell.ctx();
        let setup = alone(cell.setup(&ctx));
        let id = alone(cell.connect(&ctx));
        One {
            cell,
            ctx,
            setup,
            owner: merchant(),
            id,
        }
    }

    async fn access(&self, than: u64) -> Result<(Connection, String)> {
        let need = Need::Newer(than);
        let given = tokens::access(&self.ctx, &self.setup, &merchant(), &self.id, need).await;
        given.map(|(connection, grant)| (connection, grant.access.expose_secret().to_owned()))
    }

    fn renew(&self, than: u64) -> Result<(Connection, String), Code> {
        alone(self.access(than)).map_err(|error| error.code())
    }

    fn stored(&self) -> Connection {
        self.cell.stored(&self.id)
    }

    fn requests(&self) -> u64 {
        self.cell.state().vendor.requests
    }

    fn canned(&self, answers: &[Canned]) {
        self.cell.state().canned.extend(answers.iter().cloned());
    }

    fn pass(&self, by: TimeDelta) {
        self.cell.state().now += by;
    }

    /// The connection is live, unlocked, and what it holds is good.
    fn lives(&self) {
        let connection = self.stored();
        assert_eq!(connection.status, Status::Live);
        assert_eq!(connection.lease, None);
        let refresh = alone(stored_refresh(&self.ctx, &connection));
        let state = self.cell.state();
        assert!(state.vendor.accepts(&refresh, state.now), "{refresh}");
    }

    /// The connection ended, and that was told once.
    fn ended(&self) {
        let connection = self.stored();
        assert_eq!(connection.status, Status::ReauthRequired);
        assert_eq!(connection.next_refresh_at, None);
        assert_eq!(self.cell.told(EventType::ConnectionReauthRequired), 1);
        assert_eq!(self.renew(1).unwrap_err(), Code::ConnectionReauthRequired);
    }

    /// The failure was noted, and the schedule tries again soon.
    fn tries_again(&self, code: Code) {
        let connection = self.stored();
        assert_eq!(connection.status, Status::Live);
        assert_eq!(connection.lease, None);
        let trouble = connection.trouble.expect("the trouble is noted");
        assert_eq!(trouble.code, code.as_str());
        let soon = self.ctx.now() + TimeDelta::minutes(5);
        assert_eq!(connection.next_refresh_at, Some(soon));
        assert_eq!(self.cell.told(EventType::ConnectionReauthRequired), 0);
    }
}

#[test]
fn a_table_that_takes_nothing_for_five_seconds_loses_no_pair() {
    for rule in Rule::ALL {
        for (at, acts) in (1..=2).flat_map(|at| [(at, false), (at, true)]) {
            let one = One::new(rule);
            one.cell.state().outage = Some(Outage {
                at,
                lasts: TimeDelta::seconds(5),
                acts,
            });
            let (connection, _) = one.renew(1).unwrap();
            assert_eq!(connection.generation(), 2, "{rule:?} {at} {acts}");
            assert_eq!(one.requests(), 1);
            one.lives();
        }
    }
}

/// A function that has the time goes on until shortly before its end, and no longer.
#[test]
fn a_pair_is_tried_to_be_stored_for_as_long_as_the_function_lives() {
    let life = TimeDelta::seconds(90);
    for rule in Rule::ALL {
        for (lasts, kept) in [(80, true), (3600, false)] {
            let one = One::new(rule);
            let begun = one.ctx.now();
            one.cell.state().deadline = Some(begun + life);
            one.cell.state().outage = Some(Outage {
                at: 1,
                lasts: TimeDelta::seconds(lasts),
                acts: false,
            });
            let renewed = one.renew(1);
            let took = one.ctx.now() - begun;
            assert!(took < life, "{rule:?} {took}");
            match kept {
                true => {
                    assert_eq!(renewed.unwrap().0.generation(), 2, "{rule:?}");
                    one.lives();
                }
                false => {
                    assert_eq!(renewed.unwrap_err(), Code::Internal, "{rule:?}");
                    assert!(life - took < TimeDelta::seconds(5), "{rule:?} {took}");
                }
            }
            assert_eq!(one.requests(), 1, "{rule:?}");
        }
    }
}

#[test]
fn a_vault_that_cannot_be_read_after_the_answer_loses_no_pair() {
    for rule in Rule::ALL {
        let one = One::new(rule);
        one.cell.state().vault_fails = true;
        assert_eq!(one.renew(1).unwrap().0.generation(), 2);
        one.cell.state().vault_fails = false;
        one.lives();
    }
}

#[test]
fn an_answer_that_is_none_ends_nothing() {
    let html = || "<html>bad gateway</html>".to_owned();
    let word = |word: &str| json!({ "error": word }).to_string();
    let failures = [
        (
            Canned::Reply(500, "text/html", html()),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(503, "application/json", "{}".to_owned()),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(200, "text/html", html()),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(200, "application/json", String::new()),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(400, "application/json", String::new()),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(429, "text/plain", "slow down".to_owned()),
            Code::UpstreamFailed,
        ),
        // Words of a refusal, where nothing was refused.
        (
            Canned::Reply(429, "application/json", word("invalid_grant")),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(500, "application/json", word("invalid_grant")),
            Code::UpstreamFailed,
        ),
        (
            Canned::Reply(503, "application/json", word("temporarily_unavailable")),
            Code::UpstreamFailed,
        ),
        (Canned::Hang { acted: false }, Code::UpstreamFailed),
        (
            Canned::Reply(401, "application/json", word("invalid_client")),
            Code::UpstreamRefused,
        ),
    ];
    for rule in Rule::ALL {
        for (answer, code) in &failures {
            let one = One::new(rule);
            one.canned(&[answer.clone(), answer.clone()]);
            assert_eq!(one.renew(1).unwrap_err(), *code, "{answer:?}");
            one.tries_again(*code);
            one.pass(TimeDelta::minutes(5));
            assert_eq!(one.renew(1).unwrap_err(), *code, "{answer:?}");
            one.tries_again(*code);
            // Once the provider is well again, so is the connection.
            one.pass(TimeDelta::minutes(5));
            assert_eq!(one.renew(1).unwrap().0.trouble, None);
            one.lives();
        }
    }
}

#[test]
fn members_that_an_answer_leaves_out_have_a_meaning() {
    let one = One::new(Rule::Fixed);
    one.canned(&[Canned::Without("refresh_token")]);
    let (connection, _) = one.renew(1).unwrap();
    let kept = alone(stored_refresh(&one.ctx, &connection));
    assert_eq!(kept, "R0", "the old one stays");
    one.canned(&[Canned::Without("expires_in")]);
    let (connection, _) = one.renew(2).unwrap();
    let ends = connection.tokens.unwrap().access_expires_at;
    assert_eq!(ends, Some(one.ctx.now() + LIFE), "as the manifest says");
    one.lives();
    let of_no_use =
        json!({ "access_token": "a\r\nb: c", "token_type": "bearer", "expires_in": 3600 });
    let reply = Canned::Reply(200, "application/json", of_no_use.to_string());
    one.canned(&[reply]);
    let (connection, _) = one.renew(3).unwrap();
    let ends = connection.tokens.unwrap().access_expires_at;
    assert_eq!(ends, Some(one.ctx.now()), "no header can hold it");
    one.lives();
}

#[test]
fn an_answer_that_is_lost_after_the_provider_acted_is_made_good_where_that_can_be() {
    for rule in Rule::ALL {
        let one = One::new(rule);
        one.canned(&[Canned::Hang { acted: true }]);
        assert_eq!(one.renew(1).unwrap_err(), Code::UpstreamFailed);
        one.tries_again(Code::UpstreamFailed);
        one.pass(TimeDelta::minutes(5));
        let again = one.renew(1);
        assert_eq!(one.requests(), 2);
        match rule {
            Rule::Grace | Rule::Fixed => {
                assert_eq!(again.unwrap().0.generation(), 2);
                one.lives();
            }
            Rule::Strict | Rule::Daily => {
                assert_eq!(again.unwrap_err(), Code::ConnectionReauthRequired);
                one.ended();
                assert_eq!(one.requests(), 2, "an end is an end");
            }
        }
    }
}

#[test]
fn whoever_comes_after_a_dead_holder_takes_over() {
    for rule in Rule::ALL {
        for polls in 0.. {
            let one = One::new(rule);
            let mut holder = Box::pin(one.access(1));
            let mut context = Context::from_waker(Waker::noop());
            let done = (0..polls).any(|_| holder.as_mut().poll(&mut context).is_ready());
            drop(holder);
            if done {
                assert!(polls > 4, "a renewal has more calls than that");
                break;
            }
            let leased = one.stored().lease.is_some();
            let (asked, rotated) = {
                let state = one.cell.state();
                (state.vendor.requests, state.vendor.newest > 0)
            };
            let before = one.ctx.now();
            let after = one.renew(1);
            let waited = one.ctx.now() - before;
            assert_eq!(leased, waited >= TAKEOVER, "{waited}");
            assert!(one.requests() <= asked + 1);
            let stored = one.stored();
            if stored.status == Status::Live {
                assert_eq!(after.unwrap().0.generation(), 2);
                one.lives();
            } else {
                let punishes = matches!(rule, Rule::Strict | Rule::Daily);
                assert!(punishes && rotated, "{rule:?} after {polls} polls");
                one.ended();
            }
        }
    }
}

fn refusal() -> Canned {
    let body = json!({"error": "invalid_grant"}).to_string();
    Canned::Reply(400, "application/json", body)
}

#[test]
fn the_tokens_before_are_tried_once_and_a_failure_then_is_no_refusal() {
    let one = One::new(Rule::Grace);
    one.renew(1).unwrap();
    // Nearly the whole time of grace is over, and our clock believes that all of it is.
    one.pass(TimeDelta::minutes(25));
    one.cell.state().offset = TimeDelta::minutes(10);
    one.canned(&[refusal(), Canned::Hang { acted: false }]);
    assert_eq!(one.renew(2).unwrap_err(), Code::UpstreamFailed);
    one.tries_again(Code::UpstreamFailed);
    one.canned(&[refusal()]);
    assert_eq!(one.renew(2).unwrap().0.generation(), 3);
    one.lives();
    // And when they are refused as well, that is the end at once.
    let asked = one.requests();
    one.canned(&[refusal(), refusal()]);
    assert_eq!(one.renew(3).unwrap_err(), Code::ConnectionReauthRequired);
    assert_eq!(one.requests(), asked + 2);
    one.ended();
}

#[test]
fn a_refusal_is_the_end_at_once_where_there_is_no_grace() {
    for rule in [Rule::Strict, Rule::Daily, Rule::Fixed] {
        let one = One::new(rule);
        one.renew(1).unwrap();
        one.canned(&[refusal()]);
        assert_eq!(one.renew(2).unwrap_err(), Code::ConnectionReauthRequired);
        one.ended();
        assert_eq!(one.requests(), 2);
    }
}

#[test]
fn any_number_of_callers_ask_once() {
    for (answer, good) in [(Canned::Own, true), (Canned::Hang { acted: false }, false)] {
        for rule in Rule::ALL {
            let one = One::new(rule);
            let also = Canned::Reply(500, "text/html", String::new());
            let asked = u64::from(good);
            one.canned(&[answer.clone(), also]);
            let all = alone(join_all((0..20).map(|_| one.access(1))));
            for given in all {
                let code = given.map(|_| ()).map_err(|error| error.code());
                let failed = Err(Code::UpstreamFailed);
                assert_eq!(code, if good { Ok(()) } else { failed });
            }
            assert_eq!(one.requests(), asked, "{rule:?}");
            assert_eq!(one.stored().lease, None);
        }
    }
}

/// A token may live for less than the time that is left of others when they are renewed, or for no time.
#[test]
fn tokens_that_live_for_a_moment_are_asked_for_once() {
    for seconds in [0, 1, 60, 120] {
        let one = One::new(Rule::Fixed);
        let given = |number: u64| {
            let body = json!({
                "access_token": format!("B{number}"), "token_type": "bearer", "expires_in": seconds,
            });
            // Mailchimp says 0 for a token that does not end; nothing can be done with this one.
            let mut body = body;
            if seconds == 0 {
                body["access_token"] = json!("a b");
            }
            Canned::Reply(200, "application/json", body.to_string())
        };
        one.canned(&(0..40).map(given).collect::<Vec<_>>());
        let good = |_| tokens::access(&one.ctx, &one.setup, &one.owner, &one.id, Need::Good);
        one.pass(LIFE);
        let all = alone(join_all((0..20).map(good)));
        assert!(all.iter().all(Result::is_ok), "{seconds} s");
        assert_eq!(one.requests(), 1, "{seconds} s");
        if seconds < 60 {
            continue;
        }
        // And whoever comes a moment later has it, too.
        one.pass(TimeDelta::seconds(seconds / 2));
        for number in 0..5 {
            alone(good(number)).unwrap();
        }
        assert_eq!(one.requests(), 1, "{seconds} s");
        one.pass(TimeDelta::seconds(seconds / 2));
        alone(good(0)).unwrap();
        assert_eq!(one.requests(), 2, "{seconds} s");
    }
}

/// The provider, which answers a call while others renew.
struct Renewing {
    one: One,
    /// Whether they do.
    renews: bool,
}

#[async_trait]
impl Net for Renewing {
    async fn send(&self, request: Request, limits: Limits) -> Result<Response> {
        if request.url.path().contains("tokens") {
            return self.one.cell.send(request, limits).await;
        }
        if self.renews {
            self.one.access(2).await?;
        }
        Ok(token_answer(Some(&Default::default()), None))
    }
}

#[test]
fn a_call_with_older_tokens_settles_no_newer_ones() {
    for renews in [false, true] {
        let one = One::new(Rule::Daily);
        one.renew(1).unwrap();
        let connection = one.stored();
        assert!(connection.previous.is_some());
        let net = Arc::new(Renewing { one, renews });
        let one = &net.one;
        let ctx = Ctx {
            net: net.clone(),
            ..one.cell.ctx()
        };
        let books = accounting("quickbooks").unwrap();
        alone(async {
            let session = Session::new(&ctx, books, &connection, 1, false)
                .await
                .unwrap();
            let url = "http://localhost:1/v3/company".parse().unwrap();
            let request = Request::new(Method::Get, url);
            session.call(request, |_| Ok(())).await.unwrap();
        });
        let now = one.stored();
        assert_eq!(now.generation(), if renews { 3 } else { 2 });
        assert_eq!(now.previous.is_some(), renews);
    }
}

/// A connection that is given up and connected anew while its tokens are being renewed has another
/// data key, and its generations begin again.
#[test]
fn tokens_of_a_consent_that_was_given_up_replace_nothing() {
    for status in [200, 400] {
        let one = One::new(Rule::Grace);
        if status == 400 {
            one.canned(&[refusal()]);
        }
        let anew = alone(made(&one.ctx, "xero", 0));
        let mut renewal = Box::pin(one.access(1));
        let mut context = Context::from_waker(Waker::noop());
        while one.requests() == 0 {
            assert!(renewal.as_mut().poll(&mut context).is_pending());
        }
        // The new secrets are bound to the connection that they were made for, so it lends its id.
        let given = alone(async {
            let owner = one.id.as_str();
            let (key, wrapped) = crossdock::oauth::vault::new_key(&one.ctx, owner).await?;
            let text = json!({"access": "A9", "refresh": "R9"}).to_string();
            let sealed = crossdock::oauth::vault::seal(&one.ctx, &key, owner, &text.into())?;
            Ok::<_, Error>((wrapped, sealed))
        });
        let (key, sealed) = given.unwrap();
        let tokens = Tokens {
            sealed,
            ..anew.tokens.unwrap()
        };
        let merchant = merchant();
        let connected = change(&one.ctx, &merchant, &one.id, |current| {
            current.key = Some(key.clone());
            current.tokens = Some(tokens.clone());
            current.lease = None;
            Ok(Decision::Store(Along::default(), ()))
        });
        let held = tokens.clone();
        alone(connected).unwrap();
        let _ = alone(renewal);
        let stored = one.stored();
        assert_eq!(stored.status, Status::Live);
        assert_eq!(stored.tokens, Some(held));
        assert_eq!(stored.previous, None);
        assert_eq!(alone(stored_refresh(&one.ctx, &stored)), "R9");
    }
}

fn due_rows(one: &One, minute: i64) -> Vec<Due> {
    let page = alone(one.cell.memory.list(&keys::due(minute), None, 100)).unwrap();
    page.items
        .iter()
        .map(|item| Item::read(item).unwrap())
        .collect()
}

#[test]
fn a_row_of_the_schedule_always_names_the_tokens_in_use() {
    let one = One::new(Rule::Fixed);
    let at = one.stored().next_refresh_at.unwrap();
    let merchant = merchant();
    let renewed = change(&one.ctx, &merchant, &one.id, |current| {
        if let Some(tokens) = &mut current.tokens {
            tokens.generation += 1;
        }
        // It happens to come due in the same minute as before.
        current.next_refresh_at = Some(at + TimeDelta::seconds(1));
        Ok(Decision::Store(Along::default(), ()))
    });
    alone(renewed).unwrap();
    let rows = due_rows(&one, minute_of(at));
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].generation, 2);
}

fn notice(one: &One) -> DueNotice {
    let minute = minute_of(one.stored().next_refresh_at.unwrap());
    DueNotice {
        due: due_rows(one, minute),
    }
}

#[test]
fn what_could_not_even_be_tried_comes_due_again() {
    let one = One::new(Rule::Strict);
    let due = notice(&one);
    one.pass(TimeDelta::minutes(1));
    one.cell.break_vault();
    alone(refresh::renew(&one.ctx, &due)).unwrap();
    let soon = one.ctx.now() + TimeDelta::minutes(5);
    assert_eq!(one.stored().next_refresh_at, Some(soon));
    // A table that takes nothing leaves it to the queue.
    let one = One::new(Rule::Strict);
    let due = notice(&one);
    one.pass(TimeDelta::minutes(1));
    one.cell.break_vault();
    one.cell.state().outage = Some(Outage {
        at: 1,
        lasts: TimeDelta::hours(1),
        acts: false,
    });
    alone(refresh::renew(&one.ctx, &due)).unwrap_err();
}

#[test]
fn a_row_behind_the_schedule_is_found() {
    let one = One::new(Rule::Strict);
    one.pass(TimeDelta::minutes(30));
    assert_eq!(alone(refresh::plan(&one.ctx)).unwrap(), 1);
    // A function whose clock is ten minutes slow puts a row where the schedule has been.
    let late = one.ctx.now() - TimeDelta::minutes(10);
    let merchant = merchant();
    let moved = change(&one.ctx, &merchant, &one.id, |current| {
        current.next_refresh_at = Some(late);
        Ok(Decision::Store(Along::default(), ()))
    });
    alone(moved).unwrap();
    one.pass(TimeDelta::minutes(1));
    assert_eq!(alone(refresh::plan(&one.ctx)).unwrap(), 1);
    let message = one.cell.state().queue.pop().unwrap();
    let notice: DueNotice = serde_json::from_str(&message.body).unwrap();
    alone(refresh::renew(&one.ctx, &notice)).unwrap();
    assert_eq!(one.stored().generation(), 2);
    assert_eq!(alone(refresh::plan(&one.ctx)).unwrap(), 0);
}

/// A message that ends in the dead-letter queue leaves its row in a minute that is over.
#[test]
fn a_renewal_whose_messages_die_is_planned_again_every_hour() {
    let one = One::new(Rule::Strict);
    let mut handed_out = Vec::new();
    let mut last = None;
    for minute in 1..=200 {
        one.pass(TimeDelta::minutes(1));
        if alone(refresh::plan(&one.ctx)).unwrap() > 0 {
            handed_out.push(minute);
        }
        // Nobody ever gets it.
        last = one.cell.state().queue.drain(..).next_back().or(last);
        assert_eq!(
            due_rows(&one, minute_of(one.stored().next_refresh_at.unwrap())).len(),
            1
        );
    }
    for hour in [0..60, 60..125, 125..190] {
        assert!(
            handed_out.iter().any(|minute| hour.contains(minute)),
            "{handed_out:?}"
        );
    }
    // Each time for a quarter of an hour, as it always was.
    assert!(handed_out.len() <= 3 * 17, "{handed_out:?}");
    let notice: DueNotice = serde_json::from_str(&last.unwrap().body).unwrap();
    alone(refresh::renew(&one.ctx, &notice)).unwrap();
    assert_eq!(one.stored().generation(), 2);
    one.lives();
}

/// What cannot even be put off is handed out again when its hour is over, and the schedule goes on.
#[test]
fn one_that_cannot_be_read_does_not_stop_the_schedule() {
    let one = One::new(Rule::Strict);
    let row = Write::put(
        keys::connection(&merchant(), &one.id),
        Condition::Any,
        &json!({}),
    );
    alone(one.cell.memory.write(row.unwrap())).unwrap();
    let mut handed_out = Vec::new();
    for minute in 1..=300 {
        one.pass(TimeDelta::minutes(1));
        alone(refresh::plan(&one.ctx)).unwrap();
        if one.cell.state().queue.drain(..).count() > 0 {
            handed_out.push(minute);
        }
    }
    let read = alone(one.cell.memory.get(&keys::due_cursor())).unwrap();
    let cursor: Value = read.unwrap().read().unwrap();
    assert_eq!(cursor["minute"], minute_of(one.ctx.now()));
    assert!(
        handed_out.iter().any(|minute| *minute > 59),
        "{handed_out:?}"
    );
}

/// What a key opens that the vault has forgotten is lost; what one opens that cannot be had now is not.
#[test]
fn a_vault_that_cannot_be_asked_has_forgotten_nothing() {
    let one = One::new(Rule::Strict);
    let key = serde_json::from_value(json!({ "root": "forgotten", "wrapped": "" })).unwrap();
    let opened = || alone(vault::unwrap_if_kept(&one.ctx, "owner", &key));
    assert!(opened().unwrap().is_none());
    one.cell.break_vault();
    assert!(opened().is_err());
}

/// Two that ended, recovered or renewed it at once still leave one row in the schedule.
#[test]
fn a_connection_has_one_row_in_the_schedule() {
    let one = One::new(Rule::Grace);
    for than in 1..5 {
        one.renew(than).unwrap();
        one.pass(TimeDelta::minutes(5));
    }
    let all = crate::cell::rows(&one.cell.memory, crossdock::store::Table::Connections);
    let due = all.iter().filter(|row| {
        row.read::<Due>()
            .is_ok_and(|due| due.connection_id == one.id)
    });
    assert_eq!(due.filter(|row| !keys::is_connection(&row.key)).count(), 1);
    // A write that is not ours changes nothing of that.
    let stray = Write::put(keys::due_cursor(), Condition::Any, &json!({"minute": 0})).unwrap();
    alone(one.cell.memory.write(stray)).unwrap();
    assert!(alone(connection::load(&one.ctx, &merchant(), &one.id)).is_ok());
}
