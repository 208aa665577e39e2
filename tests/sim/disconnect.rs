//! Giving access back: what is told of it is what the provider did, whatever it answers, and nothing that
//! was consented to is left over there unsaid.

use crate::cell::{Cell, LIFE, ROOT, Rule, connection as made, merchant, no_answer, stored};
use crate::run::alone;
use crate::world::hold;
use async_trait::async_trait;
use crossdock::ctx::Ctx;
use crossdock::error::{Code, Error, Result};
use crossdock::model::event::EventType;
use crossdock::model::http::{Request, Response};
use crossdock::model::ids::ConnectionId;
use crossdock::net::{Limits, Net};
use crossdock::oauth::connection::{self, Along, Connection, Consent, Entry, Status, Tokens};
use crossdock::oauth::{hash, manage, vault};
use crossdock::secrets::Secrets;
use crossdock::store::{Condition, Item, Store, Write, keys, list_all};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What one call meets: a status, or no answer.
type Meets = Option<u16>;

/// Square, as far as giving back goes, and the platform's credentials there.
struct Square {
    cell: Cell,
    secrets: BTreeMap<&'static str, Value>,
    revoke: Meets,
    account: Meets,
    /// Written while the provider is asked to take the access back.
    meanwhile: Mutex<Option<Connection>>,
    calls: Mutex<Vec<Request>>,
}

#[async_trait]
impl Net for Square {
    async fn send(&self, request: Request, _: Limits) -> Result<Response> {
        let path = request.url.path().to_owned();
        hold(&self.calls).push(request);
        let (meets, body) = match path.as_str() {
            "/oauth2/revoke" => (self.revoke, json!({})),
            "/v2/merchants/me" => (self.account, json!({ "merchant": { "id": "tenant-0" } })),
            "/oauth2/token" => {
                let pair = json!({ "access_token": "A9", "refresh_token": "R9" });
                (Some(200), pair)
            }
            other => panic!("{other} is not Square's"),
        };
        let meanwhile = hold(&self.meanwhile).take();
        if let Some(connection) = meanwhile {
            let key = keys::connection(&merchant(), &connection.id);
            let write = Write::put(key, Condition::Any, &connection).unwrap();
            self.cell.memory.write(write).await.unwrap();
        }
        let status = meets.ok_or_else(no_answer)?;
        let body = match status {
            200..=299 => body,
            _ => json!({ "errors": [] }),
        };
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        Ok(Response {
            status,
            headers,
            body: body.to_string().into_bytes(),
        })
    }
}

#[async_trait]
impl Secrets for Square {
    async fn get(&self, id: &str) -> Result<SecretString> {
        let text = match self.secrets.get(id.trim_start_matches("provider-")) {
            None if id == "vault" => ROOT.to_owned(),
            None => "{}".to_owned(),
            Some(secret) => secret.to_string(),
        };
        Ok(SecretString::from(text))
    }

    async fn get_fresh(&self, id: &str) -> Result<SecretString> {
        Secrets::get(self, id).await
    }

    async fn replace(&self, _: &str, _: &SecretString, _: &SecretString) -> Result<()> {
        Err(Error::internal("no secret changes here"))
    }
}

fn app(id: &str) -> Value {
    json!({ "environment": "http://localhost:1", "client_id": id, "client_secret": "secret" })
}

impl Square {
    fn new(revoke: Meets, account: Meets) -> Square {
        Square {
            cell: Cell::new(Rule::Fixed),
            secrets: BTreeMap::from([("square", app("one"))]),
            revoke,
            account,
            meanwhile: Mutex::default(),
            calls: Mutex::default(),
        }
    }

    /// The process that is tried, and the provider that it meets.
    fn open(self) -> (Arc<Square>, Ctx) {
        let square = Arc::new(self);
        let ctx = Ctx {
            net: square.clone(),
            secrets: square.clone(),
            ..square.cell.ctx()
        };
        (square, ctx)
    }

    /// The bodies of the requests that gave something back.
    fn given_back(&self) -> Vec<Value> {
        let calls = hold(&self.calls);
        let revoked = calls
            .iter()
            .filter(|call| call.url.path() == "/oauth2/revoke");
        revoked
            .map(|call| serde_json::from_slice(&call.body).unwrap())
            .collect()
    }

    fn tokens(&self) -> Vec<String> {
        let bodies = self.given_back().into_iter();
        let token = |body: Value| body["access_token"].as_str().unwrap().to_owned();
        bodies.map(token).collect()
    }
}

/// What a connection is before somebody disconnects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Live,
    LiveWithConsent,
    Pending,
    DisconnectedWithConsent,
}

const SHAPES: [Shape; 4] = [
    Shape::Live,
    Shape::LiveWithConsent,
    Shape::Pending,
    Shape::DisconnectedWithConsent,
];

/// A consent that waits, with the access token `C0`.
async fn consent(ctx: &Ctx, connection: &Connection) -> Consent {
    let owner = connection.id.as_str();
    let key = connection.key.as_ref().unwrap();
    let key = vault::unwrap(ctx, owner, key).await.unwrap();
    let held = json!({ "access": "C0", "refresh": "S0" }).to_string();
    let now = ctx.now();
    Consent {
        sealed: vault::seal(ctx, &key, owner, &SecretString::from(held)).unwrap(),
        issued_at: now,
        access_expires_at: Some(now + LIFE),
        tenant_name: None,
        api: None,
        reference: None,
        scopes: Vec::new(),
        confirmation_hash: hash("confirmation"),
        browser: None,
        expires_at: now + LIFE,
    }
}

async fn shaped(ctx: &Ctx, shape: Shape) -> Connection {
    let mut one = made(ctx, "square", 0).await;
    if shape != Shape::Live {
        one.consent = Some(consent(ctx, &one).await);
    }
    match shape {
        Shape::Live | Shape::LiveWithConsent => {}
        Shape::Pending | Shape::DisconnectedWithConsent => {
            one.tokens = None;
            one.next_refresh_at = None;
            one.status = match shape {
                Shape::Pending => Status::Pending,
                _ => Status::Disconnected,
            };
        }
    }
    let stored = connection::store(ctx, &mut one, None, Along::default()).await;
    assert!(stored.unwrap());
    claim(ctx, "square", &one, merchant().as_str()).await;
    one
}

async fn claim(ctx: &Ctx, provider: &str, connection: &Connection, merchant: &str) {
    let owner = json!({ "merchant_id": merchant, "connection_id": connection.id });
    let key = keys::account(provider, &hash(&connection.tenant_id));
    let write = Write::put(key, Condition::Any, &owner).unwrap();
    ctx.store.write(write).await.unwrap();
}

async fn claimed(ctx: &Ctx) -> bool {
    let key = keys::account("square", &hash("tenant-0"));
    ctx.store.get(&key).await.unwrap().is_some()
}

async fn last_words(ctx: &Ctx, id: &ConnectionId) -> String {
    let history = keys::connection_history(&merchant(), id);
    let entries = list_all(&*ctx.store, &history, 99).await.unwrap();
    let entries = entries.iter().map(Item::read::<Entry>);
    let last = entries.map(Result::unwrap).max_by(|a, b| a.id.cmp(&b.id));
    last.unwrap().detail
}

/// Whether it is disconnected, and nothing of it can be opened any more.
#[track_caller]
fn assert_gone(square: &Square, ctx: &Ctx, id: &ConnectionId, told: usize) {
    let now = stored(&square.cell.memory, id);
    assert_eq!(now.status, Status::Disconnected);
    assert!(now.key.is_none() && now.tokens.is_none() && now.consent.is_none());
    assert!(!alone(claimed(ctx)), "the account is free again");
    assert_eq!(square.cell.told(EventType::ConnectionDisconnected), told);
}

#[test]
fn what_is_told_is_what_the_provider_did() {
    let answers = [
        Some(200),
        Some(204),
        Some(400),
        Some(401),
        Some(403),
        Some(404),
        Some(429),
        Some(503),
        None,
    ];
    let accounts = [Some(200), Some(401), Some(403), Some(429), Some(500), None];
    let mut seen = BTreeMap::new();
    for (revoke, account) in answers
        .into_iter()
        .flat_map(|revoke| accounts.map(|account| (revoke, account)))
    {
        let case = format!("revocation {revoke:?}, account {account:?}");
        let (square, ctx) = Square::new(revoke, account).open();
        let before = alone(shaped(&ctx, Shape::Live));
        let id = before.id.clone();
        let done = alone(manage::disconnect(&ctx, &merchant(), &id, false));
        let expected = match (revoke, account) {
            (Some(200..=299), _) => "the access was given back at Square",
            (Some(_), Some(401)) => "Square had ended this access already",
            _ => "",
        };
        *seen.entry(expected).or_insert(0) += 1;
        if !expected.is_empty() {
            assert!(done.is_ok(), "{case}: {done:?}");
            assert_eq!(alone(last_words(&ctx, &id)), expected, "{case}");
            assert_gone(&square, &ctx, &id, 1);
            continue;
        }
        let refused = done.unwrap_err();
        assert_eq!(refused.code(), Code::UpstreamFailed, "{case}");
        assert!(refused.detail().contains("force"), "{case}: {refused}");
        assert_eq!(
            refused.detail().contains("the access still stands there;"),
            revoke.is_some() && account == Some(200),
            "{case}: {refused}"
        );
        assert_eq!(stored(&square.cell.memory, &id), before, "{case}");
        assert!(alone(claimed(&ctx)), "{case}");
        let done = alone(manage::disconnect(&ctx, &merchant(), &id, true));
        assert!(done.is_ok(), "{case}: {done:?}");
        let words = alone(last_words(&ctx, &id));
        for part in [
            "was not given back",
            "still stands at Square",
            "connected apps",
        ] {
            assert!(words.contains(part), "{case}: {words}");
        }
        assert_gone(&square, &ctx, &id, 1);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn every_consent_is_given_back() {
    for shape in SHAPES {
        let (square, ctx) = Square::new(Some(200), Some(401)).open();
        let one = alone(shaped(&ctx, shape));
        let told = usize::from(shape != Shape::DisconnectedWithConsent);
        for _ in 0..2 {
            alone(manage::disconnect(&ctx, &merchant(), &one.id, false)).unwrap();
            let expected: &[&str] = match shape {
                Shape::Live => &["A0"],
                Shape::LiveWithConsent => &["C0", "A0"],
                Shape::Pending | Shape::DisconnectedWithConsent => &["C0"],
            };
            assert_eq!(square.tokens(), expected, "{shape:?}");
            assert_gone(&square, &ctx, &one.id, told);
        }
        assert_eq!(
            alone(last_words(&ctx, &one.id)),
            "the access was given back at Square",
            "{shape:?}"
        );
    }
}

#[test]
fn a_consent_that_stays_with_the_provider_stays_here_too() {
    for shape in SHAPES {
        let (square, ctx) = Square::new(Some(401), Some(200)).open();
        let one = alone(shaped(&ctx, shape));
        let refused = alone(manage::disconnect(&ctx, &merchant(), &one.id, false)).unwrap_err();
        assert_eq!(refused.code(), Code::UpstreamFailed, "{shape:?}");
        assert_eq!(stored(&square.cell.memory, &one.id), one, "{shape:?}");
    }
}

/// Its access token ends before a pending connection goes away by itself.
#[test]
fn a_consent_whose_access_token_has_ended_is_renewed_first() {
    for (revoke, ok) in [(Some(200), true), (Some(503), false)] {
        let (square, ctx) = Square::new(revoke, Some(200)).open();
        let one = alone(shaped(&ctx, Shape::Pending));
        square.cell.state().now += LIFE;
        let done = alone(manage::disconnect(&ctx, &merchant(), &one.id, false));
        assert_eq!(done.is_ok(), ok);
        assert_eq!(square.tokens(), ["A9"]);
        let now = stored(&square.cell.memory, &one.id);
        if !ok {
            // The token before may be dead by now, so the next try needs the new one.
            let key = now.key.as_ref().unwrap();
            let key = alone(vault::unwrap(&ctx, now.id.as_str(), key)).unwrap();
            let sealed = &now.consent.as_ref().unwrap().sealed;
            let held = vault::open(&key, now.id.as_str(), sealed).unwrap();
            assert!(held.expose_secret().contains("R9"));
        }
    }
}

#[test]
fn a_consent_that_comes_meanwhile_is_not_dropped_unsaid() {
    let (square, ctx) = Square::new(Some(200), Some(401)).open();
    let one = alone(shaped(&ctx, Shape::Live));
    let mut later = one.clone();
    later.consent = Some(alone(consent(&ctx, &one)));
    *hold(&square.meanwhile) = Some(later.clone());
    let refused = alone(manage::disconnect(&ctx, &merchant(), &one.id, true)).unwrap_err();
    assert_eq!(refused.code(), Code::Busy, "{refused}");
    assert_eq!(stored(&square.cell.memory, &one.id), later);
    alone(manage::disconnect(&ctx, &merchant(), &one.id, false)).unwrap();
    assert_eq!(square.tokens(), ["A0", "C0", "A0"]);
    assert_gone(&square, &ctx, &one.id, 1);
}

/// The consent that came meanwhile may be in use already.
#[test]
fn a_consent_that_is_proved_meanwhile_is_not_dropped_unsaid() {
    for shape in [Shape::Live, Shape::LiveWithConsent] {
        for own in [false, true] {
            let (square, ctx) = Square::new(Some(200), Some(401)).open();
            let one = alone(shaped(&ctx, shape));
            let given = alone(consent(&ctx, &one));
            let mut later = one.clone();
            later.consent = None;
            later.confirmed = Some(match own {
                true => given.confirmation_hash,
                false => hash("another confirmation"),
            });
            later.tokens = one.tokens.clone().map(|tokens| Tokens {
                sealed: given.sealed,
                generation: tokens.generation + 1,
                ..tokens
            });
            *hold(&square.meanwhile) = Some(later.clone());
            let done = alone(manage::disconnect(&ctx, &merchant(), &one.id, true));
            // What waited was given back before somebody put it into use.
            if own && shape == Shape::LiveWithConsent {
                done.unwrap();
                assert_eq!(square.tokens(), ["C0", "C0"]);
            } else {
                let refused = done.unwrap_err();
                assert_eq!(refused.code(), Code::Busy, "{shape:?} {own}: {refused}");
                assert_eq!(stored(&square.cell.memory, &one.id), later);
                alone(manage::disconnect(&ctx, &merchant(), &one.id, false)).unwrap();
                assert_eq!(square.tokens().last().unwrap(), "C0", "{shape:?} {own}");
            }
            assert_gone(&square, &ctx, &one.id, 1);
        }
    }
}

/// What was taken are the tokens that were in use when the check began, and others stand there by now: of
/// these nobody knows yet.
#[test]
fn a_success_with_older_tokens_says_nothing_about_newer_ones() {
    for renewed in [false, true] {
        let (square, ctx) = Square::new(None, Some(200)).open();
        let mut one = alone(shaped(&ctx, Shape::Live));
        one.previous = one.tokens.clone();
        let mut later = one.clone();
        if renewed && let Some(tokens) = &mut later.tokens {
            tokens.generation += 1;
        }
        let key = keys::connection(&merchant(), &one.id);
        let write = Write::put(key, Condition::Any, &one).unwrap();
        alone(square.cell.memory.write(write)).unwrap();
        *hold(&square.meanwhile) = Some(later);
        alone(manage::check(&ctx, &merchant(), &one.id)).unwrap();
        let now = stored(&square.cell.memory, &one.id);
        assert_eq!(now.previous.is_some(), renewed);
    }
}

/// Square takes every token of a seller for an application back at once. That spares the other
/// connection where there is one on the same application, and nothing where there is none.
#[test]
fn only_what_is_shared_is_spared() {
    let mut spared = 0;
    for (other, status, owner) in ["one", "two", ""].into_iter().flat_map(|other| {
        let shapes = [
            (None, "m_1"),
            (Some(Status::Live), "m_1"),
            (Some(Status::Live), "m_2"),
            (Some(Status::Pending), "m_2"),
            (Some(Status::Disconnected), "m_1"),
        ];
        shapes.map(|(status, owner)| (other, status, owner))
    }) {
        let mut square = Square::new(Some(200), Some(401));
        if !other.is_empty() {
            square.secrets.insert("square_loyalty", app(other));
        }
        let (square, ctx) = square.open();
        let one = alone(shaped(&ctx, Shape::Live));
        if let Some(status) = status {
            let mut theirs = alone(made(&ctx, "square_loyalty", 0));
            theirs.status = status;
            theirs.merchant_id = owner.parse().unwrap();
            let stored = connection::store(&ctx, &mut theirs, None, Along::default());
            assert!(alone(stored).unwrap());
            alone(claim(&ctx, "square_loyalty", &theirs, owner));
        }
        alone(manage::disconnect(&ctx, &merchant(), &one.id, false)).unwrap();
        let shared = other == "one" && status.is_some_and(|one| one != Status::Disconnected);
        spared += usize::from(shared);
        let asked = square.given_back();
        let case = format!("application {other:?}, {status:?} of {owner}");
        assert_eq!(asked[0]["revoke_only_access_token"], shared, "{case}");
        let words = alone(last_words(&ctx, &one.id));
        assert_eq!(words.contains("same application stays"), shared, "{words}");
    }
    assert_eq!(spared, 3);
}
