//! Webhooks of providers at the gateway: signatures over what really passes it, and the answers that
//! vendors want. What comes of them, `it pull` follows to its end.

use crate::world::{Reply, World};
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
}

/// The key with which a provider signs, as the functions have it.
pub async fn key(world: &World, provider: &str, member: &str) -> String {
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
