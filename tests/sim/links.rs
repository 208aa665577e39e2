//! Links, where they lead, and what their pages say. Links, consents and confirmations end after half
//! an hour, also while their rows still stand: the
//! table deletes what has ended some time later.

use crate::cell::connection as made;
use crate::run::{
    alone, approved, confirm, consent, cookies, finish, link, merchant, prove, register, set_up,
};
use crate::world::{PLATFORM_KEY, PUBLIC_URL, Planned, RETURN_URL, Trouble, World};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crossdock::api::{Request, Response, connect_pages, integrations, openapi};
use crossdock::ctx::Ctx;
use crossdock::engine::refresh::{self, DueNotice};
use crossdock::error::{Code, Result};
use crossdock::model::http;
use crossdock::net::{Limits, Net};
use crossdock::oauth::connect::{self, LINK_LIFE};
use crossdock::oauth::connection::{self, Along, Decision, Due, Status};
use crossdock::oauth::{manage, tenant};
use crossdock::providers::{PROVIDERS, provider};
use crossdock::store::{Condition, Item, Store, Table, Write, keys};
use local::standins::quickbooks::DEFAULT_REALM;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
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

/// The table deletes a connection that nobody confirmed, a day after its consent has ended.
#[test]
fn an_account_that_was_left_behind_is_connected_anew() {
    let (world, ctx) = fresh();
    alone(async {
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        let (left, _) = finish(&ctx, callback).await.unwrap();
        let key = keys::connection(&merchant(), &left);
        let vanished = Write::Delete {
            key,
            condition: Condition::Any,
        };
        world.memory.write(vanished).await.unwrap();
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        let cookies = cookies(&callback);
        let (id, confirmation) = finish(&ctx, callback).await.unwrap();
        assert_ne!(id, left);
        let url = confirm(&ctx, &id, &confirmation).await.unwrap();
        prove(&ctx, &url, &cookies).await.unwrap();
        let all = connection::list(&ctx, &merchant()).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].1.status, Status::Live);
    });
}

/// An address has many spellings that a parser takes for one, and was registered in one.
#[test]
fn a_return_address_is_compared_to_the_letter() {
    let (world, ctx) = fresh();
    let manifest = provider("quickbooks").unwrap().manifest();
    let owner = merchant();
    let ask = |address: &str| {
        let link = connect::create_link(&ctx, &owner, manifest, address.to_owned(), None);
        alone(link).map(drop)
    };
    ask(RETURN_URL).unwrap();
    let before = alone(stored(&world));
    for other in [
        "HTTPS://shop.example/back",
        "https://SHOP.example/back",
        "https://shop.example:443/back",
        "https://shop.example/./back",
        "https://shop.example/x/../back",
        "https://shop.example/b%61ck",
        "https:shop.example/back",
        "https://shop.example\\back",
        " https://shop.example/back",
        "https://shop.example/back\n",
        "https://shop.example/ba\tck",
        "https://shop.example/back/",
        "https://shop.example/Back",
    ] {
        let refused = ask(other).unwrap_err();
        assert_eq!(refused.code(), Code::ValidationFailed, "{other:?}");
        assert_eq!(refused.fields()[0].pointer, "#/return_url", "{other:?}");
    }
    assert_eq!(alone(stored(&world)), before);
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let mut headers = response.headers.iter().filter(|(one, _)| *one == name);
    let (_, value) = headers.next().expect(name);
    assert!(headers.next().is_none(), "{name} stands twice");
    value
}

/// What carries a secret is kept by nobody, and what the browser may do on a page is written on it.
#[test]
fn links_and_pages_are_for_one_pair_of_eyes() {
    let (_, ctx) = fresh();
    let body = json!({ "merchant_id": merchant(), "return_url": RETURN_URL });
    let path = "/api/v1/integrations/email-marketing/sendgrid/connect";
    let request = Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        bearer: Some(PLATFORM_KEY.into()),
        body: body.to_string().into_bytes(),
        ..Request::default()
    };
    let made = alone(integrations::handle(&ctx, &request)).unwrap();
    assert_eq!(header(&made, "cache-control"), "no-store");

    let link: Value = serde_json::from_str(&made.body).unwrap();
    let path = link["url"].as_str().unwrap().strip_prefix(PUBLIC_URL);
    let open = Request {
        method: "GET".to_owned(),
        path: path.unwrap().to_owned(),
        ..Request::default()
    };
    let form = alone(connect_pages::start(&ctx, &open)).unwrap();
    assert_eq!(header(&form, "cache-control"), "no-store");
    assert_eq!(header(&form, "referrer-policy"), "no-referrer");
    let policy: Vec<&str> = header(&form, "content-security-policy")
        .split("; ")
        .collect();
    assert!(policy.contains(&"default-src 'none'"), "{policy:?}");
    // Some browsers judge where a posted form is sent on to as well.
    assert!(
        policy.contains(&"form-action 'self' https://shop.example"),
        "{policy:?}"
    );

    let part = |before: &str| {
        let rest = form.body.split_once(before).expect(before).1;
        rest.split('"').next().unwrap().to_owned()
    };
    let state = part("name=\"state\" value=\"");
    let cookie = header(&form, "set-cookie").split(';').next().unwrap();
    let (name, value) = cookie.split_once('=').unwrap();
    let mut sent = url::form_urlencoded::Serializer::new(String::new());
    sent.append_pair("state", &state)
        .append_pair("api_key", "a b");
    let callback = Request {
        method: "POST".to_owned(),
        path: format!("/oauth/cb/sendgrid/{}", tenant(PUBLIC_URL)),
        cookies: BTreeMap::from([(name.to_owned(), value.to_owned())]),
        body: sent.finish().into_bytes(),
        ..Request::default()
    };
    let page = alone(connect_pages::callback(&ctx, &callback)).unwrap();
    assert_eq!(page.status, 422);
    assert_documented("post", "/oauth/cb/{provider}/{tenant}", &page);
    assert!(page.body.contains("<h1>Nothing was connected</h1>"));
    assert_eq!(header(&page, "referrer-policy"), "no-referrer");
    for words in [
        "API key is missing or is not one",
        "go back and send the form again",
    ] {
        assert!(page.body.contains(words), "{}", page.body);
    }
}

/// Whoever opens a link over and over has never more cookies than a request has room for.
#[test]
fn a_browser_keeps_a_few_starts() {
    let (world, ctx) = fresh();
    let link = alone(link(&world, &ctx));
    let mut browser: BTreeMap<String, String> = BTreeMap::new();
    browser.insert("theirs".to_owned(), "1".to_owned());
    let mut most = 0;
    for _ in 0..60 {
        let open = Request {
            method: "GET".to_owned(),
            path: format!("/connect/{link}"),
            cookies: browser.clone(),
            ..Request::default()
        };
        let started = alone(connect_pages::start(&ctx, &open)).unwrap();
        assert_eq!(started.status, 303);
        for (_, cookie) in started.headers.iter().filter(|one| one.0 == "set-cookie") {
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            // What a browser asks of a name like this.
            assert!(name.starts_with("__Host-"), "{name}");
            assert!(attributes.starts_with("Path=/; "), "{cookie}");
            assert!(attributes.ends_with("; Secure"), "{cookie}");
            match attributes.contains("Max-Age=0") {
                true => browser.remove(name),
                false => browser.insert(name.to_owned(), value.to_owned()),
            };
        }
        most = most.max(browser.len());
    }
    assert_eq!(browser.get("theirs").map(String::as_str), Some("1"));
    assert!((5..=12).contains(&most), "{most} cookies");
}

#[test]
fn a_browser_that_brings_nothing_is_told_what_to_do() {
    let (world, ctx) = fresh();
    let callback = alone(async {
        let mut callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        callback.parameters.remove("code");
        callback
    });
    let refused = alone(finish(&ctx, callback)).unwrap_err();
    assert_eq!(refused.code(), Code::AuthorizationRefused);
    for words in [
        "neither a consent nor a refusal",
        "go back to the shop and start again",
    ] {
        assert!(refused.detail().contains(words), "{refused}");
    }
}

/// Those that were given up stay for their history, and hide none of those that are in use.
#[test]
fn a_merchant_sees_every_connection_however_many_were_given_up() {
    let (world, ctx) = fresh();
    let count = 250;
    alone(async {
        for number in 0..count {
            world.advance(Duration::from_millis(1));
            let mut one = made(&ctx, "quickbooks", number).await;
            one.merchant_id = merchant();
            one.status = match number + 1 == count {
                true => Status::Live,
                false => Status::Disconnected,
            };
            let stored = connection::store(&ctx, &mut one, None, Along::default()).await;
            assert!(stored.unwrap());
        }
        let all = connection::list(&ctx, &merchant()).await.unwrap();
        assert_eq!(all.len(), count);
        let (_, last) = all.last().unwrap();
        assert_eq!(last.status, Status::Live, "ids sort by age");
        // And another one may still be connected.
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        finish(&ctx, callback).await.unwrap();
    });
    let request = Request {
        method: "GET".to_owned(),
        path: "/api/v1/integrations".to_owned(),
        query: BTreeMap::from([("merchant_id".to_owned(), merchant().to_string())]),
        bearer: Some(PLATFORM_KEY.into()),
        ..Request::default()
    };
    let shown = alone(integrations::handle(&ctx, &request)).unwrap();
    let shown: Value = serde_json::from_str(&shown.body).unwrap();
    let shown = shown["data"].as_array().unwrap();
    let live = shown.iter().filter(|one| one["status"] == "live");
    assert_eq!((shown.len(), live.count()), (count + 1, 1));
}

/// What the browser that consented brings, as a request.
fn brought(callback: &connect::Callback) -> Request {
    Request {
        method: "GET".to_owned(),
        path: format!("/oauth/cb/{}/{}", callback.provider, callback.tenant),
        query: callback.parameters.clone(),
        cookies: cookies(callback),
        ..Request::default()
    }
}

/// The table lets nobody else at a row while a transaction holds it, and a call to it may fail; neither
/// makes a link expire, and a person is told on a page.
#[test]
fn a_table_in_trouble_expires_no_link_and_shows_a_page() {
    for trouble in [Trouble::Contended, Trouble::Before, Trouble::After] {
        let (mut good, mut bad) = (0, 0);
        for at in 1.. {
            let (world, ctx) = fresh();
            let callback = alone(async { consent(&world, &ctx, &link(&world, &ctx).await).await });
            {
                let mut state = world.state();
                state.store_calls = 0;
                state.store_plan = Some(Planned { at, trouble });
            }
            let page = alone(connect_pages::callback(&ctx, &brought(&callback))).unwrap();
            if world.state().store_calls < at {
                break;
            }
            let case = format!("{trouble:?} at {at}: {} {}", page.status, page.body);
            match page.status {
                303 => good += 1,
                status => {
                    bad += 1;
                    assert!([500, 503, 409].contains(&status), "{case}");
                    assert_documented("get", "/oauth/cb/{provider}/{tenant}", &page);
                    assert_eq!(header(&page, "content-type"), "text/html; charset=utf-8");
                    assert!(page.body.contains("start again"), "{case}");
                    assert!(!page.body.contains("expired"), "{case}");
                }
            }
        }
        assert!(good + bad > 5, "{trouble:?} {good} {bad}");
        // Somebody else's transaction is over in a moment; what it holds up are the two writes.
        let contended = trouble == Trouble::Contended;
        assert_eq!(good >= 2, contended, "{trouble:?} {good} {bad}");
    }
}

/// A consent that nobody confirmed is neither kept here nor left behind where each leaves a grant.
#[test]
fn a_consent_that_ended_is_dropped_and_given_back() {
    let world = World::with_oauth(1, "salesforce");
    let ctx = world.ctx();
    let id = alone(set_up(&world, &ctx));
    let alive = || {
        let grants = alone(world.control("GET", "grants", ""));
        let grants = grants.as_array().unwrap().iter();
        grants.filter(|grant| grant["revoked"] == false).count()
    };
    let renew = || {
        let due = Due {
            merchant_id: merchant(),
            connection_id: id.clone(),
            category: provider("salesforce").unwrap().manifest().category,
            generation: alone(connection::load(&ctx, &merchant(), &id))
                .unwrap()
                .1
                .generation(),
        };
        alone(refresh::renew(&ctx, &DueNotice { due: vec![due] })).unwrap();
        alone(connection::load(&ctx, &merchant(), &id)).unwrap().1
    };
    alone(async {
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        finish(&ctx, callback).await.unwrap();
    });
    assert_eq!(alive(), 2);
    world.advance(LIFE - SECOND);
    assert!(renew().consent.is_some(), "it may still be confirmed");
    assert_eq!(alive(), 2);
    world.advance(SECOND);
    // Whatever else is stored of the connection keeps what is still to be given back.
    alone(connection::change(&ctx, &merchant(), &id, |_| {
        Ok(Decision::Store(Along::default(), ()))
    }))
    .unwrap();
    let stored = alone(connection::load(&ctx, &merchant(), &id)).unwrap().1;
    assert!(stored.consent.is_some());
    let now = renew();
    assert_eq!((now.generation(), alive()), (3, 1));
    assert_eq!((now.consent, now.status), (None, Status::Live));
}

/// A network that keeps what was sent.
struct Kept {
    net: Arc<dyn Net>,
    sent: Arc<Mutex<Vec<http::Request>>>,
}

#[async_trait]
impl Net for Kept {
    async fn send(&self, request: http::Request, limits: Limits) -> Result<http::Response> {
        self.sent.lock().unwrap().push(request.clone());
        self.net.send(request, limits).await
    }
}

/// The members of a form or of a JSON object.
fn members(body: &[u8]) -> BTreeMap<String, String> {
    let json: Result<BTreeMap<String, String>, _> = serde_json::from_slice(body);
    json.unwrap_or_else(|_| url::form_urlencoded::parse(body).into_owned().collect())
}

/// What goes to a consent page has a challenge, and what fetches the tokens has its verifier, at the
/// providers of this list; elsewhere neither is sent (RFC 7636 §4).
#[test]
fn a_challenge_goes_out_where_it_is_taken_and_its_verifier_after_it() {
    const CHALLENGED: [&str; 3] = ["xero", "salesforce", "hubspot"];
    let mut asked = Vec::new();
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let Some(flow) = manifest.code_flow() else {
            continue;
        };
        let name = manifest.name;
        let world = match name {
            "quickbooks" => World::new(1),
            _ => World::with_oauth(1, name),
        };
        let sent = Arc::new(Mutex::new(Vec::new()));
        let mut ctx = world.ctx();
        ctx.net = Arc::new(Kept {
            net: ctx.net.clone(),
            sent: sent.clone(),
        });
        alone(register(&world, &ctx));
        let query = alone(async {
            let link = link(&world, &ctx).await;
            let started = connect::start(&ctx, &link).await.unwrap();
            let connect::Next::Consent(url) = started.next else {
                panic!("{name} has a consent page");
            };
            let callback = connect::Callback {
                provider: name.to_owned(),
                tenant: tenant(PUBLIC_URL),
                cookie: Some(started.cookie),
                parameters: approved(&world, &url, DEFAULT_REALM).await,
                posted: false,
            };
            finish(&ctx, callback).await.unwrap();
            url.query_pairs().into_owned().collect::<BTreeMap<_, _>>()
        });
        // The first call is the one for tokens.
        let tokens = members(&sent.lock().unwrap()[0].body);
        assert_eq!(tokens["grant_type"], "authorization_code", "{name}");
        let verifier = tokens.get("code_verifier");
        let challenge = verifier.map(|word| URL_SAFE_NO_PAD.encode(Sha256::digest(word)));
        assert_eq!(query.get("code_challenge"), challenge.as_ref(), "{name}");
        let method = query.get("code_challenge_method").map(String::as_str);
        assert_eq!(method, challenge.as_ref().map(|_| "S256"), "{name}");
        assert_eq!(challenge.is_some(), flow.pkce, "{name}");
        if challenge.is_some() {
            asked.push(name);
        }
    }
    assert_eq!(asked, CHALLENGED);
}

/// What a response lets the browser drop.
fn dropped(response: &Response) -> Vec<&str> {
    let headers = response.headers.iter();
    let cookies = headers.filter(|(name, value)| {
        *name == "set-cookie" && value.contains("; Max-Age=0;") && value.contains("=; Path=/;")
    });
    cookies
        .map(|(_, value)| value.split('=').next().unwrap())
        .collect()
}

/// The stop of a browser on its way back to the shop.
fn proof(url: &url::Url, cookies: &BTreeMap<String, String>) -> Request {
    Request {
        method: "GET".to_owned(),
        path: url.path().to_owned(),
        cookies: cookies.clone(),
        ..Request::default()
    }
}

/// A start that has come to its end, good or bad, takes up no room among the browser's cookies; one that
/// can still be finished does.
#[test]
fn a_start_that_is_over_gives_its_cookie_back() {
    let (world, ctx) = fresh();
    alone(async {
        let mut refused = consent(&world, &ctx, &link(&world, &ctx).await).await;
        refused.parameters.remove("code");
        let neither = connect_pages::callback(&ctx, &brought(&refused))
            .await
            .unwrap();
        assert_eq!((neither.status, dropped(&neither).len()), (403, 0));
        refused
            .parameters
            .insert("error".to_owned(), "access_denied".to_owned());
        let page = connect_pages::callback(&ctx, &brought(&refused))
            .await
            .unwrap();
        let held = cookies(&refused);
        assert_eq!(page.status, 403);
        assert_eq!(dropped(&page), held.keys().collect::<Vec<_>>());

        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        let held = cookies(&callback);
        let back = connect_pages::callback(&ctx, &brought(&callback))
            .await
            .unwrap();
        assert_eq!((back.status, dropped(&back).len()), (303, 0));
        // A page that is loaded again takes nothing away from the one before.
        let again = connect_pages::callback(&ctx, &brought(&callback))
            .await
            .unwrap();
        assert_eq!((again.status, dropped(&again).len()), (410, 0));

        let back: url::Url = header(&back, "location").parse().unwrap();
        let query: BTreeMap<String, String> = back.query_pairs().into_owned().collect();
        let id = query["connection_id"].parse().unwrap();
        let url = confirm(&ctx, &id, &query["confirmation"]).await.unwrap();
        let stranger = proof(&url, &BTreeMap::new());
        let page = connect_pages::callback(&ctx, &stranger).await.unwrap();
        assert_eq!((page.status, dropped(&page).len()), (403, 0));
        // An answer that was lost leaves the cookie where it is.
        for _ in 0..2 {
            let back = connect_pages::callback(&ctx, &proof(&url, &held))
                .await
                .unwrap();
            assert_eq!(back.status, 303);
            assert_eq!(dropped(&back), held.keys().collect::<Vec<_>>());
        }
        let page = connect_pages::callback(&ctx, &stranger).await.unwrap();
        assert_eq!(page.status, 410);
        assert!(page.body.contains("was used already"), "{}", page.body);
        assert!(
            !page.body.contains("nothing was connected"),
            "{}",
            page.body
        );
    });
}

/// No address to go on to means that the connection is live, so it is not said of one that was given up.
#[test]
fn a_confirmation_says_nothing_good_of_what_was_disconnected() {
    let (world, ctx) = fresh();
    alone(async {
        let callback = consent(&world, &ctx, &link(&world, &ctx).await).await;
        let cookies = cookies(&callback);
        let (id, confirmation) = finish(&ctx, callback).await.unwrap();
        let url = confirm(&ctx, &id, &confirmation).await.unwrap();
        prove(&ctx, &url, &cookies).await.unwrap();
        let again = connect::confirm(&ctx, &merchant(), &id, &confirmation).await;
        assert!(again.unwrap().continue_url.is_none());
        manage::disconnect(&ctx, &merchant(), &id, true)
            .await
            .unwrap();
        let refused = confirm(&ctx, &id, &confirmation).await.unwrap_err();
        assert_eq!(refused.code(), Code::Conflict, "{refused}");
        assert!(refused.detail().contains("ask for a new link"), "{refused}");
    });
}

/// The document says that this answer can come.
#[track_caller]
fn assert_documented(method: &str, path: &str, response: &Response) {
    let document = openapi::document();
    let responses = &document["paths"][path][method]["responses"];
    let status = response.status.to_string();
    assert!(responses[&status].is_object(), "{method} {path}: {status}");
}

/// The person before a page did nothing wrong with a request, and is told what to do.
#[test]
fn a_page_speaks_to_a_person_and_the_document_knows_it() {
    let assert_told = |page: &Response, title: &str, words: &str| {
        assert!(
            page.body.contains(&format!("<h1>{title}</h1>")),
            "{}",
            page.body
        );
        assert!(page.body.contains(words), "{}", page.body);
        assert!(!page.body.contains("request"), "{}", page.body);
    };
    let waiting = |ctx: &Ctx, world: &World| {
        alone(async {
            let callback = consent(world, ctx, &link(world, ctx).await).await;
            let cookies = cookies(&callback);
            let (id, confirmation) = finish(ctx, callback).await.unwrap();
            let url = confirm(ctx, &id, &confirmation).await.unwrap();
            (id, proof(&url, &cookies))
        })
    };
    let proven = |ctx: &Ctx, request: &Request| {
        let page = alone(connect_pages::callback(ctx, request)).unwrap();
        assert_documented("get", "/oauth/proof/{secret}", &page);
        page
    };
    let words = "go back to the shop, which shows how it is now";
    let (world, ctx) = fresh();
    let (id, request) = waiting(&ctx, &world);
    let checked = Request {
        method: "POST".to_owned(),
        path: format!("/api/v1/integrations/accounting/{id}/check"),
        bearer: Some(PLATFORM_KEY.into()),
        body: json!({ "merchant_id": merchant() })
            .to_string()
            .into_bytes(),
        ..Request::default()
    };
    let check = |ctx: &Ctx| {
        let refused = alone(integrations::handle(ctx, &checked)).unwrap_err();
        assert_eq!(refused.code(), Code::Conflict, "{refused}");
        let path = "/api/v1/integrations/{category}/{connection_id}/check";
        let response = Response::json(refused.code().status(), &json!({})).unwrap();
        assert_documented("post", path, &response);
    };
    check(&ctx);
    alone(manage::disconnect(&ctx, &merchant(), &id, true)).unwrap();
    check(&ctx);
    let page = proven(&ctx, &request);
    assert_eq!(page.status, 422);
    assert_told(&page, "Nothing was connected", words);

    // The consent of one is overtaken by another.
    let (world, ctx) = fresh();
    let (_, first) = waiting(&ctx, &world);
    let (_, second) = waiting(&ctx, &world);
    let page = proven(&ctx, &first);
    assert_eq!(page.status, 422);
    assert_told(&page, "Nothing was connected", words);
    assert_eq!(proven(&ctx, &second).status, 303);

    let posted = |body: Vec<u8>| Request {
        method: "POST".to_owned(),
        path: format!("/oauth/cb/sendgrid/{}", tenant(PUBLIC_URL)),
        body,
        ..Request::default()
    };
    let long = alone(connect_pages::callback(&ctx, &posted(vec![b'a'; 9000]))).unwrap();
    assert_eq!(long.status, 413);
    assert_told(
        &long,
        "What was entered is too long",
        "enter the keys alone",
    );
    assert_documented("post", "/oauth/cb/{provider}/{tenant}", &long);
}
