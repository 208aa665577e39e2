//! Webhooks of every provider at the door: each is proven by its provider's own rule, taken once, and what
//! nothing is made of yet ends in a row that says so. The stand-ins sign.

use crate::run::alone;
use crate::world::{
    HOOKS_QUEUE, PUBLIC_URL, Planned, Stand, Trouble, WEBHOOK_VERIFIER, World, start,
};
use crossdock::api::{self, Request, Response};
use crossdock::ctx::Ctx;
use crossdock::engine::hooks;
use crossdock::error::{Code, Error, Result};
use crossdock::model::notice::{HookNotice, HookReceipt, HookState};
use crossdock::oauth::tenant;
use crossdock::providers::certificate::Certificates;
use crossdock::providers::{PROVIDERS, provider};
use crossdock::store::{Store, keys};
use futures::FutureExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A provider's webhook, as its documentation has it.
struct Case {
    provider: &'static str,
    body: &'static str,
    /// The same event, sent again.
    again: &'static str,
    /// For so long a signature is good.
    seconds: Option<u64>,
}

const CASES: [Case; 8] = [
    Case {
        provider: "stripe",
        body: r#"{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"charge.refunded","account":"acct_1"}"#,
        again: r#"{"id":"evt_1NG8Du2eZvKYlo2CUI79vXWy","object":"event","type":"charge.refunded","account":"acct_1"}"#,
        seconds: Some(300),
    },
    Case {
        provider: "paypal",
        body: r#"{"id":"WH-2WR32451HC0233532-67976317FL4543714","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"4"}}"#,
        again: r#"{"id":"WH-2WR32451HC0233532-67976317FL4543714","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"4"}}"#,
        seconds: None,
    },
    Case {
        provider: "square",
        body: r#"{"merchant_id":"M1","type":"payment.updated","event_id":"6a8f5f28-54a1-4eb0-a98a-3111513fd4fc"}"#,
        again: r#"{"merchant_id":"M1","type":"payment.updated","event_id":"6a8f5f28-54a1-4eb0-a98a-3111513fd4fc","retry":1}"#,
        seconds: None,
    },
    Case {
        provider: "square_loyalty",
        body: r#"{"merchant_id":"M1","type":"loyalty.event.created","event_id":"b8ba1d22-0d1c-4d20-b0d9-b6d3e0f6f5f0"}"#,
        again: r#"{"merchant_id":"M1","type":"loyalty.event.created","event_id":"b8ba1d22-0d1c-4d20-b0d9-b6d3e0f6f5f0","retry":1}"#,
        seconds: None,
    },
    Case {
        provider: "hubspot",
        body: r#"[{"eventId":100,"subscriptionId":1,"portalId":2,"occurredAt":1731612210994,"attemptNumber":0,"objectId":123}]"#,
        again: r#"[{"eventId":100,"subscriptionId":1,"portalId":2,"occurredAt":1731612210994,"attemptNumber":1,"objectId":123}]"#,
        seconds: Some(300),
    },
    Case {
        provider: "mailchimp",
        body: "type=unsubscribe&fired_at=2026-01-01+00%3A00%3A00&data%5Bid%5D=8a25ff1d98",
        again: "type=unsubscribe&fired_at=2026-01-01+00%3A00%3A00&data%5Bid%5D=8a25ff1d98",
        seconds: None,
    },
    Case {
        provider: "sendgrid",
        body: "[{\"email\":\"ada@example.com\",\"event\":\"bounce\",\"sg_event_id\":\"ZHJvcC0x1\"}]\r\n",
        again: "[{\"event\":\"bounce\",\"email\":\"ada@example.com\",\"sg_event_id\":\"ZHJvcC0x1\"}]\r\n",
        seconds: Some(86_400),
    },
    Case {
        provider: "voucherify",
        body: r#"{"id":"event_1c9a","project_id":"proj_1","type":"redemption.succeeded","data":{"a": "b c"}}"#,
        again: r#"{"id":"event_1c9a","project_id":"proj_1","type":"redemption.succeeded","data":{"a":"b c"}}"#,
        seconds: None,
    },
];

/// One provider's stand-in and the process that it calls.
struct Door {
    world: World,
    ctx: Ctx,
    provider: &'static str,
}

impl Door {
    fn of(provider: &'static str) -> Door {
        let world = World::with_oauth(1, provider);
        let ctx = world.ctx();
        Door {
            world,
            ctx,
            provider,
        }
    }

    fn path(&self) -> String {
        format!("/hooks/{}/{}", self.provider, tenant(PUBLIC_URL))
    }

    /// What the function is called with when the provider sends `body` now.
    fn sends(&self, body: &str) -> Request {
        let key = match self.provider {
            "hubspot" => local::standins::oauth::DEFAULT_CLIENT_SECRET,
            _ => WEBHOOK_VERIFIER,
        };
        let order = json!({
            "url": format!("{PUBLIC_URL}{}", self.path()),
            "body": body,
            "key": key,
            "base": "http://localhost:1",
        });
        alone(self.world.control("POST", "webhooks", &order.to_string()));
        let Stand::OAuth(_, vendor) = &self.world.vendor else {
            panic!("it stands in for another");
        };
        let sent = vendor.due();
        let [message] = &sent[..] else {
            panic!("{sent:?}");
        };
        let headers = message.headers.iter();
        let secret = (self.provider == "mailchimp").then_some(WEBHOOK_VERIFIER);
        Request {
            method: "POST".to_owned(),
            path: self.path(),
            query: secret
                .map(|secret| ("secret".to_owned(), secret.to_owned()))
                .into_iter()
                .collect(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            body: message.body.clone().into_bytes(),
            ..Request::default()
        }
    }

    fn takes(&self, request: &Request) -> Result<Response> {
        alone(api::hooks::handle(&self.ctx, request))
    }

    /// It is taken, without a word.
    fn accepts(&self, request: &Request) {
        let answer = self.takes(request).unwrap_or_else(|error| {
            panic!("{} is refused: {}", self.provider, error.chain());
        });
        assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    }

    fn refuses(&self, request: &Request, what: &str) -> Error {
        let provider = self.provider;
        let error = self
            .takes(request)
            .err()
            .unwrap_or_else(|| panic!("{provider} is taken with {what}"));
        assert!(self.queued().is_empty(), "{provider}: {what}");
        error
    }

    fn queued(&self) -> Vec<HookNotice> {
        let sent = std::mem::take(&mut self.world.state().sent);
        let ours = sent.into_iter().filter(|(url, _)| url == HOOKS_QUEUE);
        ours.map(|(_, body)| serde_json::from_str(&body).unwrap())
            .collect()
    }

    fn receipt(&self, notice: &HookNotice) -> Option<HookReceipt> {
        let key = keys::hook(self.provider, notice.event.as_ref().unwrap());
        let item = self.world.memory.get(&key).now_or_never().unwrap();
        Some(item.unwrap()?.read().unwrap())
    }
}

#[test]
fn every_provider_that_sends_has_a_case() {
    let sending = PROVIDERS.iter().filter(|provider| {
        let hooks = provider.hooks();
        hooks.is_some_and(|hooks| hooks.reader().is_none())
    });
    let mut sending: Vec<&str> = sending.map(|one| one.manifest().name).collect();
    let mut cases: Vec<&str> = CASES.iter().map(|case| case.provider).collect();
    sending.sort_unstable();
    cases.sort_unstable();
    assert_eq!(sending, cases);
}

#[test]
fn an_event_is_taken_once_and_its_end_is_recorded() {
    for case in &CASES {
        let door = Door::of(case.provider);
        let first = door.sends(case.body);
        door.accepts(&first);
        let notices = door.queued();
        let [notice] = &notices[..] else {
            panic!("{}: {notices:?}", case.provider);
        };
        assert_eq!(
            (notice.provider.as_str(), notice.body.as_str()),
            (case.provider, case.body)
        );
        let receipt = door.receipt(notice).unwrap();
        assert_eq!(
            (receipt.state, receipt.received_at),
            (HookState::Queued, start())
        );
        // The same bytes, and the same event with a new signature.
        door.accepts(&first);
        door.world.advance(Duration::from_secs(120));
        door.accepts(&door.sends(case.again));
        assert!(door.queued().is_empty(), "{} is taken twice", case.provider);
        for _ in 0..2 {
            alone(hooks::apply(&door.ctx, notice)).unwrap();
            let receipt = door.receipt(notice).unwrap();
            assert_eq!(receipt.state, HookState::NothingToApply);
            assert_eq!(receipt.received_at, start());
        }
        door.accepts(&first);
        assert!(door.queued().is_empty(), "{} is taken twice", case.provider);
        assert!(door.world.state().sent.is_empty());
        // Another event is another.
        let other = case.body.replace('1', "2");
        door.accepts(&door.sends(&other));
        assert_eq!(door.queued().len(), 1, "{}", case.provider);
    }
}

#[test]
fn whatever_byte_changes_it_is_refused() {
    for case in &CASES {
        let door = Door::of(case.provider);
        let good = || door.sends(case.body);
        let mut wrong: Vec<(String, Request)> = Vec::new();
        for at in 0..case.body.len() {
            // Nothing says whose words Mailchimp's are but the address.
            if case.provider != "mailchimp" {
                let mut request = good();
                request.body[at] ^= 1;
                wrong.push((format!("byte {at}"), request));
            }
        }
        // What is not signed, and where a certificate stands, which has a test of its own.
        let beside = ["paypal-auth-version", "paypal-cert-url", "content-type"];
        let sent = good();
        for name in sent
            .headers
            .keys()
            .filter(|name| !beside.contains(&name.as_str()))
        {
            for at in 0..sent.headers[name].len() {
                let mut request = good();
                let value = request.headers.get_mut(name).unwrap();
                let mut bytes = value.clone().into_bytes();
                bytes[at] ^= 1;
                *value = String::from_utf8(bytes).unwrap();
                wrong.push((format!("{name} {at}"), request));
            }
            let mut request = good();
            request.headers.remove(name);
            wrong.push((format!("no {name}"), request));
        }
        for at in 0..sent.query.get("secret").map_or(0, String::len) {
            let mut request = good();
            let secret = request.query.get_mut("secret").unwrap();
            let mut bytes = secret.clone().into_bytes();
            bytes[at] ^= 1;
            *secret = String::from_utf8(bytes).unwrap();
            wrong.push((format!("secret {at}"), request));
        }
        assert!(wrong.len() > 10, "{}", case.provider);
        for (what, request) in &wrong {
            let error = door.refuses(request, what);
            assert_eq!(
                error.code(),
                Code::SignatureRefused,
                "{}: {what}",
                case.provider
            );
            assert_eq!(error.code().status(), 401);
        }
        // Another's key, and a signature over another address.
        let mut request = good();
        let other = World::with_oauth(1, case.provider)
            .ctx_with(&[("PUBLIC_URL", "https://other.example")]);
        request.path = format!(
            "/hooks/{}/{}",
            case.provider,
            tenant("https://other.example")
        );
        let taken = alone(api::hooks::handle(&other, &request));
        let addressed = ["square", "square_loyalty", "hubspot"].contains(&case.provider);
        assert_eq!(taken.is_err(), addressed, "{}", case.provider);
        door.accepts(&good());
    }
}

/// An old signature is refused where a time is signed; without one, an event that came is known.
#[test]
fn a_stale_signature_is_refused() {
    for case in &CASES {
        let door = Door::of(case.provider);
        let request = door.sends(case.body);
        let Some(seconds) = case.seconds else {
            door.world.advance(Duration::from_secs(3 * 86_400));
            door.accepts(&request);
            continue;
        };
        door.world.advance(Duration::from_secs(seconds + 1));
        let error = door.refuses(&request, "an old signature");
        assert_eq!(error.code(), Code::SignatureRefused);
        // The vendor's clock is ahead of ours by more than is allowed.
        let door = Door::of(case.provider);
        let clock = json!({"advance_seconds": 301}).to_string();
        alone(door.world.control("POST", "clock", &clock));
        door.refuses(&door.sends(case.body), "a signature of the future");
        let door = Door::of(case.provider);
        let request = door.sends(case.body);
        door.world.advance(Duration::from_secs(seconds));
        door.accepts(&request);
    }
}

#[test]
fn an_address_is_one_to_the_letter() {
    for case in &CASES {
        let door = Door::of(case.provider);
        let mut elsewhere = Vec::new();
        for path in ["x".to_owned(), format!("{}x", tenant(PUBLIC_URL))] {
            let mut request = door.sends(case.body);
            request.path = format!("/hooks/{}/{path}", case.provider);
            elsewhere.push(request);
        }
        if case.provider != "mailchimp" {
            let mut request = door.sends(case.body);
            request.query.insert("a".to_owned(), "b".to_owned());
            elsewhere.push(request);
            let mut request = door.sends(case.body);
            request.method = "GET".to_owned();
            elsewhere.push(request);
        }
        for request in &elsewhere {
            let error = door.refuses(request, "another address");
            assert_eq!(error.code(), Code::NotFound, "{}", case.provider);
        }
    }
}

#[test]
fn what_is_too_large_is_said_to_be() {
    for case in &CASES {
        let door = Door::of(case.provider);
        // The second one is larger once it stands in a message.
        for body in ["x".repeat(api::BODY_BYTES_MAX + 1), "\"".repeat(200_000)] {
            let error = door.refuses(&door.sends(&body), "too much");
            assert_eq!(error.code(), Code::PayloadTooLarge, "{}", case.provider);
        }
    }
}

/// Mailchimp asks whether anybody is there before it saves an address.
#[test]
fn who_asks_with_the_secret_is_answered() {
    let door = Door::of("mailchimp");
    for (method, body) in [("GET", ""), ("POST", "")] {
        let mut request = door.sends(body);
        request.method = method.to_owned();
        door.accepts(&request);
        assert!(door.queued().is_empty());
        request.query.clear();
        let error = door.refuses(&request, "no secret");
        assert_eq!(error.code(), Code::SignatureRefused);
    }
}

#[test]
fn xero_hears_no_word() {
    let world = World::with_xero(1);
    let request = Request {
        method: "POST".to_owned(),
        path: format!("/hooks/xero/{}", tenant(PUBLIC_URL)),
        headers: BTreeMap::from([("x-xero-signature".to_owned(), "AAAA".to_owned())]),
        body: b"{}".to_vec(),
        ..Request::default()
    };
    let answer = alone(api::hooks::handle(&world.ctx(), &request)).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (401, ""));
    assert!(answer.headers.is_empty());
}

#[test]
fn a_certificate_is_asked_for_once_and_of_the_vendor_alone() {
    let case = &CASES[1];
    let door = Door::of("paypal");
    let calls = || door.world.state().net_calls;
    for url in [
        "https://api.paypal.com/v1/notifications/certs/CERT-1",
        "https://paypal.com.example/v1/notifications/certs/CERT-1",
        "http://localhost:2/v1/notifications/certs/CERT-1",
        "http://localhost:1/elsewhere/CERT-1",
        "",
    ] {
        let mut request = door.sends(case.body);
        let header = "paypal-cert-url".to_owned();
        request.headers.insert(header, url.to_owned());
        let error = door.refuses(&request, url);
        assert_eq!(error.code(), Code::SignatureRefused, "{url}");
    }
    assert_eq!(calls(), 0, "a stranger was called");
    // What cannot be had now may be had later: the vendor sends again.
    door.world.state().net_plan = Some(Planned {
        at: 1,
        trouble: Trouble::StatusBefore,
    });
    let error = door.refuses(&door.sends(case.body), "no certificate");
    assert!(error.code().retryable(), "{}", error.chain());
    door.accepts(&door.sends(case.body));
    assert_eq!(calls(), 2);
    door.accepts(&door.sends(&case.body.replace('1', "2")));
    assert_eq!(calls(), 2, "the certificate was not kept");
    assert_eq!(door.queued().len(), 2);
}

/// What the stand-in shows is good in its own world, and nowhere else.
#[test]
fn a_certificate_has_to_be_trusted() {
    let world = World::with_oauth(1, "paypal");
    let certificates = alone(certificates(&world));
    let hooks = provider("paypal").unwrap().hooks().unwrap();
    let (message, signature) = alone(signed(&world));
    let year = |year: i32| {
        let date = chrono::NaiveDate::from_ymd_opt(year, 6, 1).unwrap();
        date.and_hms_opt(0, 0, 0).unwrap().and_utc()
    };
    let is_good = |held: Option<Certificates>, at: i32| {
        held.is_some_and(|held| held.signed(&message, &signature, year(at)))
    };
    let read = |pem: &str, environment: &str| hooks.certificates(pem.as_bytes(), environment);
    let stand_in = "http://localhost:1";
    assert!(is_good(read(&certificates, stand_in), 2026));
    // Too early, too late, and known to nobody in the world.
    assert!(!is_good(read(&certificates, stand_in), 2024));
    assert!(!is_good(read(&certificates, stand_in), 2126));
    for environment in ["production", "sandbox"] {
        assert!(!is_good(read(&certificates, environment), 2026));
    }
    // The root is missing, comes first, or another stands there.
    let end = "-----END CERTIFICATE-----\n";
    let (leaf, root) = certificates.split_once(end).unwrap();
    let leaf = format!("{leaf}{end}");
    for chain in [
        leaf.clone(),
        root.to_owned(),
        format!("{root}{leaf}"),
        format!("{leaf}{leaf}"),
        leaf.replacen("MII", "MIJ", 1) + root,
    ] {
        assert!(!is_good(read(&chain, stand_in), 2026), "{chain}");
    }
    for none in ["", "no certificate", &leaf[..200], &leaf.repeat(9)] {
        assert!(read(none, stand_in).is_none(), "{none}");
    }
    // For another name.
    let other = Certificates::read(certificates.as_bytes(), &["other.paypal.com"], true);
    assert!(!is_good(other, 2026));
    let own = &["messageverificationcerts.paypal.com"];
    let own = || Certificates::read(certificates.as_bytes(), own, true);
    assert!(is_good(own(), 2026));
    let mut other = message.clone();
    other[0] ^= 1;
    assert!(!own().unwrap().signed(&other, &signature, year(2026)));
}

async fn certificates(world: &World) -> String {
    let request = axum::http::Request::get("/v1/notifications/certs/CERT-1");
    let answer = world.vendor.handle(request.body(Vec::new()).unwrap()).await;
    String::from_utf8(answer.unwrap().into_body()).unwrap()
}

/// Something that PayPal signed.
async fn signed(world: &World) -> (Vec<u8>, Vec<u8>) {
    use base64::Engine as _;
    let order = json!({"url": "", "body": "{}", "key": "WH-1"}).to_string();
    let sent: Value = world.control("POST", "webhooks", &order).await;
    let header = |name: &str| sent["headers"][name].as_str().unwrap().to_owned();
    let (id, time) = (
        header("paypal-transmission-id"),
        header("paypal-transmission-time"),
    );
    let checksum = crc32fast::hash(b"{}");
    let message = format!("{id}|{time}|WH-1|{checksum}").into_bytes();
    let signature = header("paypal-transmission-sig");
    let signature = base64::engine::general_purpose::STANDARD.decode(signature);
    (message, signature.unwrap())
}

/// Each call to the store fails in turn, before or after it acted: the provider sends again, and what it
/// was told is taken is in the queue.
#[test]
fn nothing_is_lost_at_the_door() {
    for case in &CASES {
        for trouble in [Trouble::Before, Trouble::After] {
            for at in 1..=2 {
                let door = Door::of(case.provider);
                {
                    let mut state = door.world.state();
                    state.store_calls = 0;
                    state.store_plan = Some(Planned { at, trouble });
                }
                let request = door.sends(case.body);
                if let Err(error) = door.takes(&request) {
                    assert!(error.code().retryable(), "{}", error.chain());
                    door.accepts(&request);
                }
                assert_eq!(door.queued().len(), 1, "{} {at}", case.provider);
                assert!(door.world.state().store_calls >= at);
            }
        }
    }
}
