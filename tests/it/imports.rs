//! Imports that fail half way. A refresh token may work once, so what it gave must not be lost with
//! whatever came to grief afterwards: the same import, sent again, goes on from there.

use crate::world::{Reply, World};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn test(world: Arc<World>) {
    an_account_that_was_not_told(&world).await;
    a_wrong_organisation(&world).await;
    two_at_once(&world).await;
    the_same_once_more(&world).await;
    an_id_that_is_none(&world).await;
    an_account_of_another(&world).await;
}

/// An account at a provider with a grant that is used elsewhere, and a merchant.
struct Elsewhere {
    provider: &'static str,
    path: String,
    merchant: String,
    account: String,
    tokens: Value,
}

async fn elsewhere(world: &World, provider: &'static str, category: &str) -> Elsewhere {
    let shop = world.shop("imports").await;
    let base = world.stack.urls.provider(provider);
    let number = world.number();
    let account = match provider {
        "xero" => format!("00000000-0000-4000-8000-{number:012}"),
        _ => format!("00D{number:012}"),
    };
    let new = json!({ "id": account, "name": shop.merchant, "user": shop.merchant });
    world.control(base, "accounts", Some(new)).await;
    let grant = world
        .control(base, "grants", Some(json!({ "account": account })))
        .await;
    let refresh = grant.json()["refresh_token"].clone();
    world.secret(refresh.as_str().expect("a token"));
    Elsewhere {
        provider,
        path: format!("/api/v1/integrations/{category}/{provider}/import"),
        merchant: shop.merchant,
        account,
        tokens: json!({ "refresh_token": refresh }),
    }
}

impl Elsewhere {
    async fn import(&self, world: &World) -> Reply {
        let body = json!({ "merchant_id": self.merchant, "tokens": self.tokens });
        world.post(&self.path, &body).await
    }

    async fn fault(&self, world: &World, rule: Value) {
        let base = world.stack.urls.provider(self.provider);
        world.control(base, "faults", Some(rule)).await;
    }

    async fn is_live(&self, world: &World, reply: Reply) {
        let connection = reply.expect(201).json();
        assert_eq!(connection["status"], "live", "{connection}");
        assert_eq!(connection["tenant_id"], *self.account, "{connection}");
        let id = connection["id"].as_str().expect("an id");
        let path = self
            .path
            .replace(&format!("{}/import", self.provider), &format!("{id}/check"));
        let body = json!({ "merchant_id": self.merchant });
        let checked = world.post(&path, &body).await.expect(200).json();
        assert_eq!(checked["health"], "healthy", "{checked}");
    }
}

/// Salesforce kills a grant whose refresh token is used a second time.
async fn an_account_that_was_not_told(world: &World) {
    let one = elsewhere(world, "salesforce", "crm").await;
    let fault = json!({
        "match": { "path_contains": "userinfo" }, "kind": "status_before_effect", "status": 503,
        "times": 1,
    });
    one.fault(world, fault).await;
    let failed = one.import(world).await.expect(424).json();
    assert_eq!(failed["retryable"], true, "{failed}");
    let again = one.import(world).await;
    one.is_live(world, again).await;
}

async fn a_wrong_organisation(world: &World) {
    let mut one = elsewhere(world, "xero", "accounting").await;
    one.tokens["tenant_id"] = json!("00000000-0000-4000-8000-00000000ffff");
    one.import(world).await.expect(424);
    // Long after the token before has died over there.
    let base = world.stack.urls.provider("xero");
    let hour = json!({ "advance_seconds": 3600 });
    let clock = format!("{base}/_control/clock");
    let moved = world
        .send(Method::POST, &clock, &[], Some(hour.to_string()))
        .await;
    moved.expect(200);
    one.tokens["tenant_id"] = json!(one.account);
    let again = one.import(world).await;
    one.is_live(world, again).await;
}

async fn two_at_once(world: &World) {
    let one = elsewhere(world, "salesforce", "crm").await;
    let (first, second) = tokio::join!(one.import(world), one.import(world));
    let (good, other) = match first.status {
        201 => (first, second),
        _ => (second, first),
    };
    assert!([201, 409, 503].contains(&other.status), "{other:?}");
    one.is_live(world, good).await;
}

/// Whoever never heard that an import was done sends it again. Using its token again would kill the grant.
async fn the_same_once_more(world: &World) {
    let one = elsewhere(world, "salesforce", "crm").await;
    let first = one.import(world).await.expect(201).json();
    let again = one.import(world).await;
    assert_eq!(again.json()["id"], first["id"], "{again:?}");
    one.is_live(world, again).await;
}

async fn an_id_that_is_none(world: &World) {
    let shop = world.shop("imports").await;
    for id in ["abc", "../1", "1 2"] {
        let body = json!({
            "merchant_id": shop.merchant, "tokens": { "refresh_token": "made-up", "tenant_id": id },
        });
        let path = "/api/v1/integrations/accounting/quickbooks/import";
        let refused = world.post(path, &body).await.expect(422).json();
        assert_eq!(
            refused["errors"][0]["pointer"], "#/tokens/tenant_id",
            "{refused}"
        );
    }
}

/// What the refused import was given is still good for the merchant it belongs to.
async fn an_account_of_another(world: &World) {
    let owner = elsewhere(world, "salesforce", "crm").await;
    let first = owner.import(world).await;
    owner.is_live(world, first).await;
    let base = world.stack.urls.provider("salesforce");
    let grant = json!({ "account": owner.account });
    let grant = world.control(base, "grants", Some(grant)).await.json();
    world.secret(grant["refresh_token"].as_str().expect("a token"));
    let thief = Elsewhere {
        merchant: world.shop("imports").await.merchant,
        path: owner.path.clone(),
        account: owner.account.clone(),
        provider: owner.provider,
        tokens: json!({ "refresh_token": grant["refresh_token"] }),
    };
    for _ in 0..2 {
        let refused = thief.import(world).await.expect(409).json();
        let words = refused["detail"].as_str().unwrap_or_default();
        assert!(words.contains("disconnect it there first"), "{words}");
    }
    let body = json!({ "merchant_id": owner.merchant });
    let path = format!("/api/v1/integrations?merchant_id={}", owner.merchant);
    let list = world.get(&path).await.expect(200).json();
    let id = list["data"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/api/v1/integrations/crm/{id}/disconnect");
    world.post(&path, &body).await.expect(200);
    let taken = thief.import(world).await;
    thief.is_live(world, taken).await;
}
