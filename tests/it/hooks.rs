//! Webhooks of providers, from the stand-in or the vector to the row: signatures over what really passes
//! the gateway, the answers that vendors want, and what is noted for the connection.

use crate::world::{Reply, World, wait};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What Intuit waits for; Xero waits for five seconds.
const ANSWER_MAX: Duration = Duration::from_secs(3);

pub async fn test(world: Arc<World>) {
    handshake(&world).await;
    what_changes_there_is_noted(&world).await;
}

/// The key with which a provider signs, as the functions have it.
async fn key(world: &World, provider: &str, member: &str) -> String {
    let prefix = world
        .stack
        .output("SecretProviderPrefix")
        .expect("an output");
    let id = json!({ "SecretId": format!("{prefix}{provider}") });
    let secret = world
        .aws("secretsmanager", "secretsmanager.GetSecretValue", id)
        .await;
    let secret = secret["SecretString"].as_str().expect("a text");
    let secret: Value = serde_json::from_str(secret).expect("an object");
    secret[member].as_str().expect("a key").to_owned()
}

fn signature(key: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any key will do");
    mac.update(body.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn is_bare(reply: &Reply, status: u16) {
    assert_eq!((reply.status, reply.body.as_str()), (status, ""));
    assert!(
        reply.headers.get("set-cookie").is_none(),
        "{:?}",
        reply.headers
    );
}

/// Xero's intent to receive: good signatures and wrong ones, over a body with blanks of its own.
async fn handshake(world: &World) {
    let key = key(world, "xero", "webhook_key").await;
    let url = world.stack.hooks_url("xero");
    let body =
        "{\"events\":[],\"firstEventSequence\": 0,\"lastEventSequence\": 0, \"entropy\": \"Zoë\"}";
    let good = signature(&key, body);
    let wrong = signature("another", body);
    // The first call starts the function, which a deployed one has behind it.
    for (signature, status) in [
        (&good, 200),
        (&good, 200),
        (&wrong, 401),
        (&String::new(), 401),
    ] {
        let headers = [
            ("content-type", "application/json"),
            ("x-xero-signature", signature.as_str()),
        ];
        let reply = world
            .send(Method::POST, &url, &headers, Some(body.to_owned()))
            .await;
        is_bare(&reply, status);
    }
    let began = Instant::now();
    let headers = [("x-xero-signature", good.as_str())];
    let reply = world
        .send(Method::POST, &url, &headers, Some(body.to_owned()))
        .await;
    assert!(began.elapsed() < ANSWER_MAX, "{:?}", began.elapsed());
    is_bare(&reply, 200);
    let elsewhere = url.replace("/hooks/xero/", "/hooks/xero/x");
    let reply = world
        .send(Method::POST, &elsewhere, &headers, Some(body.to_owned()))
        .await;
    assert_eq!(reply.status, 404, "{}", reply.body);
}

async fn what_changes_there_is_noted(world: &World) {
    let shop = world.connected_shop("hooks").await;
    let realm = &shop.account.id;
    let target = json!({
        "url": world.stack.hooks_url("quickbooks"),
        "verifier": key(world, "quickbooks", "webhook_verifier").await,
        "cloud_events": true,
        "doubled": true,
        "reversed": true,
    });
    world.quickbooks("webhooks", Some(target)).await;
    let grant = world
        .quickbooks("grants", Some(json!({ "realm": realm })))
        .await;
    let bearer = format!(
        "Bearer {}",
        grant["access_token"].as_str().expect("a token")
    );
    let base = world.stack.urls.provider("quickbooks");
    let url = format!("{base}/v3/company/{realm}/customer?minorversion=75");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/json"),
        ("accept", "application/json"),
    ];
    let mut ids = Vec::new();
    for name in ["Ada", "Zoë"] {
        let body = json!({ "DisplayName": name }).to_string();
        let made = world
            .send(Method::POST, &url, &headers, Some(body))
            .await
            .expect(200)
            .json();
        ids.push(made["Customer"]["Id"].as_str().expect("an id").to_owned());
    }
    let values = json!({ ":own": { "S": format!("{}/", shop.merchant) } });
    wait("changes that were told", || async {
        let rows = world
            .rows("TableLedger", Some(("begins_with(pk, :own)", &values)))
            .await;
        let noted: Vec<&String> = rows
            .keys()
            .filter(|(pk, _)| pk.ends_with("/changed"))
            .map(|(_, sk)| sk)
            .collect();
        let missing = ids.iter().map(|id| format!("customer/{id}"));
        let missing: Vec<String> = missing.filter(|row| !noted.contains(&row)).collect();
        (missing, noted.len())
    })
    .await;
    let target = format!("{base}/_control/webhooks");
    world
        .send(Method::DELETE, &target, &[], None)
        .await
        .expect(200);
    wait("webhooks in the queue", || async {
        let queued = world.queued("QueueHooks").await;
        let waiting = (queued > 0).then(|| format!("{queued} messages"));
        (
            waiting.into_iter().collect(),
            usize::try_from(queued).expect("few"),
        )
    })
    .await;
    assert_eq!(world.queued("DeadHooks").await, 0, "each could be read");
}
