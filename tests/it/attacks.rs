//! Every known attack on the connect flow, against every provider to which it applies. Each ends in a
//! page or a problem that says what to do, and changes nothing: all rows of the merchants' connections,
//! of their ledgers and of the provider's accounts are compared before and after each series of
//! attacks. Rows carry a revision that only grows, so no two changes could hide each other.
//!
//! What is wrong is collected, so that one run tells of everything; the providers are attacked side by
//! side, since each has a stand-in and merchants of its own.

use crate::browser::{Callback, Visit, page_fault};
use crate::providers::{PROVIDERS, Provider};
use crate::world::{Reply, Shop, World, query};
use crossdock::providers::provider;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Where neither came, and what to do then.
const NEITHER: &str = "neither a consent nor a refusal; nothing was connected, go back to the shop";
const ANOTHER_BROWSER: &str = "open the link again in this one";
const START_AGAIN: &str = "start again";
const TRY_AGAIN: &str = "go back";
/// Longer than the functions wait for a provider.
const HOLD_SECONDS: u64 = 25;

type Rows = BTreeMap<(String, String), Value>;

/// Whether the row is one that reading the provider's changes writes, which happens on a schedule and at
/// any moment.
fn is_of_the_schedule(pk: &str, sk: &str) -> bool {
    let ends = ["/health", "/budget"].iter().any(|end| pk.ends_with(end));
    ends || pk.starts_with("pulled") || pk.contains("/pull/") || sk == "settings/company"
}

/// What one provider's attacks came to.
#[derive(Default)]
struct Outcome {
    /// The names of the attacks that were made.
    made: BTreeSet<String>,
    count: usize,
    faults: Vec<String>,
}

pub async fn test(world: Arc<World>) {
    let tasks: Vec<_> = PROVIDERS
        .iter()
        .map(|provider| (provider, tokio::spawn(attack(world.clone(), provider))))
        .collect();
    let mut all = Outcome::default();
    for (provider, task) in tasks {
        match task.await {
            Ok(outcome) => {
                eprintln!("  {}: {} attacks", provider.name, outcome.count);
                all.count += outcome.count;
                all.made.extend(outcome.made);
                all.faults.extend(outcome.faults);
            }
            // Its message is in the output already.
            Err(_) => all.faults.push(format!("{}: it panicked", provider.name)),
        }
    }
    eprintln!(
        "  {} attacks, {} with each provider to which they apply",
        all.made.len(),
        all.count
    );
    assert!(
        all.faults.is_empty(),
        "{} attacks got somewhere:\n  {}",
        all.faults.len(),
        all.faults.join("\n  ")
    );
}

async fn attack(world: Arc<World>, provider: &'static Provider) -> Outcome {
    let mut stage = Stage {
        world,
        provider,
        before: Rows::new(),
        series: BTreeSet::new(),
        outcome: Outcome::default(),
    };
    let victim = stage.shop().await;
    browsers_and_states(&mut stage, &victim).await;
    let (id, stranger) = confirmations(&mut stage, &victim).await;
    accounts(&mut stage, &victim, &id, &stranger).await;
    one_account_for_two(&mut stage).await;
    return_addresses(&mut stage, &victim).await;
    match provider.token {
        Some(_) => tokens(&mut stage).await,
        None => keys(&mut stage).await,
    }
    answers(&mut stage).await;
    stage.outcome
}

/// One provider with its merchants.
struct Stage {
    world: Arc<World>,
    provider: &'static Provider,
    /// The rows before the attacks that are under way, and their names.
    before: Rows,
    series: BTreeSet<String>,
    outcome: Outcome,
}

impl Stage {
    async fn shop(&self) -> Shop {
        let test = format!("attack-{}", self.provider.name);
        self.world.shop_at(self.provider, &test).await
    }

    /// The same account in the hands of another merchant.
    async fn thief(&self, victim: &Shop) -> Shop {
        let other = self.shop().await;
        Shop {
            merchant: other.merchant,
            ..victim.clone()
        }
    }

    /// Everything that is stored of this provider's merchants here, and of all its accounts. Links
    /// and states are of no interest: an attack may use them up.
    async fn rows(&self) -> Rows {
        let name = self.provider.name;
        let values = json!({
            ":merchant": { "S": format!("attack-{name}-") },
            ":account": { "S": format!("account/{name}/") },
        });
        let filter =
            "begins_with(pk, :merchant) OR begins_with(pk, :account) OR begins_with(sk, :merchant)";
        let mut rows = self
            .world
            .rows("TableConnections", Some((filter, &values)))
            .await;
        rows.extend(
            self.world
                .rows("TableLedger", Some((filter, &values)))
                .await,
        );
        rows.retain(|(pk, sk), _| !is_of_the_schedule(pk, sk));
        rows
    }

    /// What stands now is what has to stand after the attacks that follow, up to `settle`.
    async fn begin(&mut self) {
        assert!(self.series.is_empty(), "{:?} is not settled", self.series);
        self.before = self.rows().await;
    }

    /// Whether the attacks since `begin` have changed nothing.
    async fn settle(&mut self) {
        let after = self.rows().await;
        let series = std::mem::take(&mut self.series);
        let changed: Vec<&(String, String)> = after
            .iter()
            .filter(|(key, row)| self.before.get(*key) != Some(*row))
            .map(|(key, _)| key)
            .chain(self.before.keys().filter(|key| !after.contains_key(*key)))
            .collect();
        if !changed.is_empty() {
            self.fault(format!("one of {series:?} changed {changed:?}"));
        }
    }

    fn judge(&mut self, name: &str, fault: Option<String>) {
        self.outcome.count += 1;
        self.outcome.made.insert(name.to_owned());
        self.series.insert(name.to_owned());
        if let Some(fault) = fault {
            self.fault(format!("{name}: {fault}"));
        }
    }

    fn fault(&mut self, fault: String) {
        let fault = format!("{}: {fault}", self.provider.name);
        eprintln!("  {fault}");
        self.outcome.faults.push(fault);
    }

    /// The attack ended on a page with this status and advice.
    fn page(&mut self, name: &str, reply: Reply, status: u16, advice: &str) {
        self.judge(name, page_fault(&reply, status, advice));
    }

    /// A callback that ends on a page.
    async fn callback(
        &mut self,
        name: &str,
        callback: &Callback,
        cookie: Option<&str>,
        (status, advice): (u16, &str),
    ) {
        let reply = self.world.bring(callback, cookie).await;
        self.page(name, reply, status, advice);
    }

    /// The attack ended in a problem with this status and the words of `part` in it.
    fn problem(&mut self, name: &str, reply: Reply, status: u16, part: &str) {
        let is_problem = reply.header("content-type") == "application/problem+json";
        let fits = is_problem && reply.status == status && reply.body.contains(part);
        let fault = (!fits).then(|| {
            format!(
                "not {status} with {part:?}: {} {}",
                reply.status, reply.body
            )
        });
        self.judge(name, fault);
    }

    /// A step that has to succeed, or what follows proves nothing.
    fn holds(&mut self, name: &str, is: bool, what: impl FnOnce() -> String) {
        if !is {
            self.fault(format!("{name}: {}", what()));
        }
    }

    /// A connection that attacks were about still works, as the provider says: what ends a grant over there
    /// changes no row here.
    async fn lives(&mut self, name: &str, shop: &Shop, id: &str) {
        let Provider { category, .. } = self.provider;
        let path = format!("/api/v1/integrations/{category}/{id}/check");
        let body = json!({ "merchant_id": shop.merchant });
        let checked = self.world.post(&path, &body).await.expect(200).json();
        let alive = checked["status"] == "live" && checked["health"] == "healthy";
        self.holds(name, alive, || checked.to_string());
    }

    /// A request that something will go wrong with at the provider.
    async fn trouble(&self, path: &str, body: &str, kind: Value) {
        let mut rule = json!({ "match": { "path_contains": path, "body_contains": body } });
        for (name, value) in kind.as_object().expect("an object") {
            rule[name] = value.clone();
        }
        self.world.at(self.provider, "faults", Some(rule)).await;
    }
}

/// Puts a state into the table that was not signed here, as one who can write there would.
async fn plant(world: &World, state: &str, forged: &str) {
    let key = |state: &str| {
        let hash: String = Sha256::digest(state)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("state/{hash}")
    };
    let values = json!({ ":pk": { "S": key(state) } });
    let rows = world
        .rows("TableConnections", Some(("pk = :pk", &values)))
        .await;
    let mut row = rows.into_values().next().expect("the state stands there");
    row["pk"] = json!({ "S": key(forged) });
    let table = world.stack.output("TableConnections").expect("an output");
    let put = json!({ "TableName": table, "Item": row });
    world
        .aws("dynamodb", "DynamoDB_20120810.PutItem", put)
        .await;
}

/// The callback in another browser, of another merchant, at another address, or with a state of
/// somebody's own making. The merchant's own finish works after all of that.
async fn browsers_and_states(stage: &mut Stage, victim: &Shop) {
    let world = stage.world.clone();
    let provider = stage.provider;
    let Visit {
        link,
        callback,
        cookie,
    } = world.visit(victim).await;
    let (own_name, _) = cookie.split_once('=').expect("a pair");
    // Each start has a cookie of its own, so what another browser holds is tried under this name too.
    let renamed = |other: &str| {
        let (_, value) = other.split_once('=').expect("a pair");
        format!("{own_name}={value}")
    };
    let cookie = Some(cookie.as_str());
    let second = world.visit_by(victim, link.clone()).await;
    let stranger = stage.shop().await;
    let other = world.visit(&stranger).await;
    let next = PROVIDERS.iter().position(|one| one.name == provider.name);
    let elsewhere = Shop {
        merchant: victim.merchant.clone(),
        ..world
            .shop_at(
                &PROVIDERS[(next.expect("it is one of them") + 1) % PROVIDERS.len()],
                "attack-elsewhere",
            )
            .await
    };
    let elsewhere_link = world.link(&elsewhere).await;
    let (elsewhere_at, elsewhere_cookie) = world.start(&elsewhere_link).await;
    stage.begin().await;

    let refused = (403, ANOTHER_BROWSER);
    for (name, cookie) in [
        ("a callback without a cookie", None),
        ("a callback with an empty cookie", Some(renamed("="))),
        ("a callback with a made-up cookie", Some(renamed("=AAAA"))),
        (
            "a callback in another browser with the same link",
            Some(second.cookie.clone()),
        ),
        (
            "the same under this start's name",
            Some(renamed(&second.cookie)),
        ),
        (
            "a callback in another merchant's browser",
            Some(other.cookie.clone()),
        ),
        (
            "the same under this start's name",
            Some(renamed(&other.cookie)),
        ),
        (
            "a callback in the browser of another provider's consent",
            Some(elsewhere_cookie.clone()),
        ),
        (
            "the same under this start's name",
            Some(renamed(&elsewhere_cookie)),
        ),
    ] {
        stage
            .callback(name, &callback, cookie.as_deref(), refused)
            .await;
    }
    stage
        .callback(
            "another's callback planted",
            &other.callback,
            cookie,
            refused,
        )
        .await;
    let swapped = callback.with("state", &other.callback.get("state"));
    stage
        .callback("the state of another merchant", &swapped, cookie, refused)
        .await;

    let refused = (410, START_AGAIN);
    let foreign = callback.with("state", &query(&elsewhere_at, "state"));
    for cookie in [cookie, Some(elsewhere_cookie.as_str())] {
        let name = "the state of another provider";
        stage.callback(name, &foreign, cookie, refused).await;
    }
    for provider in PROVIDERS.iter().filter(|one| one.name != provider.name) {
        let moved = callback.to(provider.name, &callback.tenant());
        let name = "a callback at another provider's address";
        stage.callback(name, &moved, cookie, refused).await;
    }
    let tenant = callback.tenant();
    for tenant in ["0123456789abcdef", &format!("{tenant}0"), &tenant[1..]] {
        let moved = callback.to(provider.name, tenant);
        let name = "a callback at another tenant's address";
        stage.callback(name, &moved, cookie, refused).await;
    }
    let nowhere = callback.to("nothing", &tenant);
    let answer = (404, "no provider is named nothing");
    stage
        .callback("a callback at nobody's address", &nowhere, cookie, answer)
        .await;

    forged_states(stage, &callback, &second.callback, cookie).await;

    let issuers = PROVIDERS.iter().filter_map(|one| one.issuer);
    let foreign = issuers.filter(|issuer| Some(*issuer) != provider.issuer);
    for issuer in foreign.chain(["https://attacker.example", ""]) {
        let mixed = callback.with("iss", issuer);
        let answer = (403, START_AGAIN);
        stage
            .callback("the issuer of another", &mixed, cookie, answer)
            .await;
    }
    // Parameters of a consent that are posted, and keys that stand in an address.
    let answer = match provider.token {
        Some(_) => (403, NEITHER),
        None => (410, START_AGAIN),
    };
    stage
        .callback("the other method", &callback.turned(), cookie, answer)
        .await;
    let large = match provider.token {
        Some(_) => callback.turned(),
        None => callback.clone(),
    };
    let large = large.with("more", &"x".repeat(8 * 1024));
    stage
        .callback("a form that is too large", &large, cookie, (413, TRY_AGAIN))
        .await;
    if provider.token.is_some() {
        let name = "neither a code nor a refusal";
        let answer = (403, NEITHER);
        for empty in [callback.without("code"), callback.with("code", "")] {
            stage.callback(name, &empty, cookie, answer).await;
        }
    }

    stage.settle().await;
    // A provider that names its issuer is let through with that.
    let honest = match provider.issuer {
        Some(issuer) => callback.with("iss", issuer),
        None => callback.clone(),
    };
    let back = world.bring(&honest, cookie).await;
    stage.holds("the merchant's own callback", back.status == 303, || {
        format!("{}: {}", back.status, back.body)
    });
    stage.begin().await;
    let refused = (410, START_AGAIN);
    stage
        .callback("a replayed callback", &callback, cookie, refused)
        .await;
    let late = Some(second.cookie.as_str());
    stage
        .callback(
            "a link used by two browsers",
            &second.callback,
            late,
            refused,
        )
        .await;
    let again = world.open(&link, None).await;
    stage.page("a used link", again, 410, START_AGAIN);
    let nothing = format!("{}/connect/nothing", world.stack.urls.api);
    let unknown = world.open(&nothing.parse().expect("a URL"), None).await;
    stage.page("a made-up link", unknown, 410, START_AGAIN);
    if provider.token.is_some() {
        let mut replayed = other.callback.with("code", &callback.get("code"));
        if !callback.get("realmId").is_empty() {
            replayed = replayed.with("realmId", &callback.get("realmId"));
        }
        let cookie = Some(other.cookie.as_str());
        stage
            .callback("a replayed code", &replayed, cookie, (424, START_AGAIN))
            .await;
    }
    stage.settle().await;
}

async fn forged_states(
    stage: &mut Stage,
    callback: &Callback,
    second: &Callback,
    cookie: Option<&str>,
) {
    let state = callback.get("state");
    let (nonce, signature) = state.split_once('.').expect("a signed state");
    let other = second.get("state");
    let (other_nonce, _) = other.split_once('.').expect("a signed state");
    let turned = |text: &str| {
        let (first, rest) = text.split_at(1);
        format!("{}{rest}", if first == "A" { "B" } else { "A" })
    };
    let forged = [
        ("a state with a bad signature", {
            format!("{nonce}.{}", turned(signature))
        }),
        ("another state's signature", {
            format!("{other_nonce}.{signature}")
        }),
        ("a state with another nonce", {
            format!("{}.{signature}", turned(nonce))
        }),
        ("a state without a signature", nonce.to_owned()),
        ("a state with an empty signature", format!("{nonce}.")),
        ("an empty state", String::new()),
        (
            "a very long state",
            format!("{}.{signature}", "A".repeat(4000)),
        ),
    ];
    let refused = (410, START_AGAIN);
    for (name, forged) in &forged {
        let forged = callback.with("state", forged);
        stage.callback(name, &forged, cookie, refused).await;
    }
    let none = callback.without("state");
    stage
        .callback("no state at all", &none, cookie, refused)
        .await;
    let unsigned = format!("{nonce}.{}", turned(signature));
    plant(&stage.world, &state, &unsigned).await;
    let planted = callback.with("state", &unsigned);
    stage
        .callback("a planted state", &planted, cookie, refused)
        .await;
}

/// Confirmations in the wrong hands. The victim is live afterwards, and so is another merchant.
async fn confirmations(stage: &mut Stage, victim: &Shop) -> (String, Shop) {
    let world = stage.world.clone();
    let stranger = stage.shop().await;
    // The first consent of the victim is still unconfirmed; the second one takes its place.
    let (id, confirmation) = world.pending(victim).await;
    let (other_id, other_confirmation) = world.pending(&stranger).await;
    stage.begin().await;
    let pointer = "#/confirmation";
    for (name, wrong) in [
        ("a confirmation of another connection", &*other_confirmation),
        ("an empty confirmation", ""),
        ("a made-up confirmation", "AAAA"),
        ("a part of a confirmation", &confirmation[1..]),
    ] {
        let reply = world.confirm(victim, &id, wrong).await;
        stage.problem(name, reply, 422, pointer);
    }
    let name = "a confirmation by another merchant";
    let reply = world.confirm(&stranger, &id, &confirmation).await;
    stage.problem(name, reply, 404, "not_found");
    let reply = world.confirm(&stranger, &other_id, &confirmation).await;
    stage.problem(name, reply, 422, pointer);
    let elsewhere = PROVIDERS
        .iter()
        .find(|one| one.category != stage.provider.category);
    let moved = Shop {
        provider: elsewhere.expect("there are several categories"),
        ..victim.clone()
    };
    let reply = world.confirm(&moved, &id, &confirmation).await;
    let name = "a confirmation in another category";
    stage.problem(name, reply, 404, "not_found");

    stage.settle().await;
    let live = world.confirm(victim, &id, &confirmation).await;
    stage.holds(
        "the merchant's own confirmation",
        live.status == 200,
        || live.body.clone(),
    );
    let live = world
        .confirm(&stranger, &other_id, &other_confirmation)
        .await;
    stage.holds("the other's own confirmation", live.status == 200, || {
        live.body.clone()
    });
    stage.begin().await;
    // It may be sent again, in case the answer was lost, and changes nothing.
    let reply = world.ask_to_confirm(victim, &id, &confirmation).await;
    let done = reply.status == 200 && reply.json()["continue_url"].is_null();
    stage.holds("a replayed confirmation", done, || reply.body.clone());
    stage.settle().await;
    (id, stranger)
}

/// Accounts in the wrong hands: an account belongs to one merchant, and a connection to one account.
async fn accounts(stage: &mut Stage, victim: &Shop, id: &str, stranger: &Shop) {
    let world = stage.world.clone();
    let thief = stage.thief(victim).await;
    let visit = world.visit(&thief).await;
    let reconnect = world.reconnect(victim, id).await;
    let nobody = stage.shop().await;
    let with_other = Shop {
        account: nobody.account.clone(),
        ..victim.clone()
    };
    let with_strangers = Shop {
        account: stranger.account.clone(),
        ..victim.clone()
    };
    let other_account = world.visit_by(&with_other, reconnect).await;
    let reconnect = world.reconnect(victim, id).await;
    let strangers_account = world.visit_by(&with_strangers, reconnect).await;
    stage.begin().await;
    let taken = (409, "disconnect it there first");
    let cookie = Some(visit.cookie.as_str());
    stage
        .callback("another merchant's account", &visit.callback, cookie, taken)
        .await;
    let cookie = Some(other_account.cookie.as_str());
    let name = "a reconnect with another account";
    stage
        .callback(name, &other_account.callback, cookie, (403, START_AGAIN))
        .await;
    let cookie = Some(strangers_account.cookie.as_str());
    let name = "a reconnect with another merchant's account";
    stage
        .callback(name, &strangers_account.callback, cookie, taken)
        .await;

    // Tokens or keys of the account that somebody else has got hold of.
    let tokens = match stage.provider.token {
        None => json!({ "keys": victim.account.keys.iter().cloned().collect::<BTreeMap<_, _>>() }),
        Some(_) => {
            let account = json!({ "account": victim.account.id });
            let given = world.at(stage.provider, "grants", Some(account)).await;
            stage.remember(&given);
            json!({
                "access_token": given["access_token"],
                "refresh_token": given["refresh_token"],
                "tenant_id": victim.account.id,
            })
        }
    };
    let Provider { category, name, .. } = stage.provider;
    let path = format!("/api/v1/integrations/{category}/{name}/import");
    let body = json!({ "merchant_id": thief.merchant, "tokens": tokens });
    let reply = world.post(&path, &body).await;
    let name = "an import of another merchant's account";
    stage.problem(name, reply, 409, "disconnect it there first");
    // QuickBooks' stand-in does not show its tokens, and Salesforce tells where an account is only
    // along with renewed ones.
    if let Some(refresh) = tokens["refresh_token"].as_str()
        && !["quickbooks", "salesforce"].contains(&stage.provider.name)
    {
        let grants = world.at(stage.provider, "grants", None).await;
        let mut grants = grants.as_array().into_iter().flatten();
        let unspent = grants.any(|grant| {
            let alive = grant["refresh_tokens"].as_array().into_iter().flatten();
            alive.into_iter().any(|token| token == refresh)
        });
        stage.holds("a refresh token that was not used up", unspent, || {
            "a refused import has used the refresh token".to_owned()
        });
    }

    stage.settle().await;
    let name = "what lived through refused consents and an import";
    stage.lives(name, victim, id).await;
    if stage.provider.token.is_some() {
        injected_code(stage, victim, &thief).await;
        let name = "what lived through an injected code";
        stage.lives(name, victim, id).await;
    }
    stolen_link(stage).await;
}

impl Stage {
    fn remember(&self, given: &Value) {
        for name in ["access_token", "refresh_token"] {
            if let Some(token) = given[name].as_str() {
                self.world.secret(token);
            }
        }
    }
}

/// A code that was meant for the victim's browser, in the flow of somebody else.
async fn injected_code(stage: &mut Stage, victim: &Shop, thief: &Shop) {
    let world = stage.world.clone();
    let stolen = world.visit(victim).await.callback;
    let nobody = stage.shop().await;
    let own = world
        .visit(&Shop {
            account: nobody.account.clone(),
            ..thief.clone()
        })
        .await;
    let mut injected = own.callback.with("code", &stolen.get("code"));
    if !stolen.get("realmId").is_empty() {
        injected = injected.with("realmId", &stolen.get("realmId"));
    }
    // The challenge of another start does not fit; elsewhere the account gives it away.
    let manifest = provider(stage.provider.name).map(|provider| provider.manifest());
    let flow = manifest.and_then(|manifest| manifest.code_flow());
    let answer = match flow.is_some_and(|flow| flow.pkce) {
        true => (424, START_AGAIN),
        false => (409, "disconnect it there first"),
    };
    stage.begin().await;
    let cookie = Some(own.cookie.as_str());
    stage
        .callback("another's code injected", &injected, cookie, answer)
        .await;
    stage.settle().await;
}

/// A link that reached the wrong person, who walks it to the end with an account of his own: nothing
/// becomes live, because he has no session with the merchant's backend.
async fn stolen_link(stage: &mut Stage) {
    let world = stage.world.clone();
    let victim = stage.shop().await;
    let thief = stage.shop().await;
    let link = world.link(&victim).await;
    let own = world.visit_by(&victim, link.clone()).await;
    let visit = world.visit_by(&thief, link).await;
    let back = world.bring(&visit.callback, Some(&visit.cookie)).await;
    if back.status != 303 {
        stage.holds("a stolen link", false, || back.body);
        return;
    }
    let (id, confirmation) = world.brought_back(&back);
    stage.begin().await;
    let reply = world.confirm(&thief, &id, &confirmation).await;
    let name = "a stolen link, confirmed by its thief";
    stage.problem(name, reply, 404, "not_found");
    let shown = world.connections(&victim).await;
    let pending = shown.len() == 1 && shown[0]["status"] == "pending";
    stage.holds(name, pending, || format!("{shown:?}"));
    let shown = world.connections(&thief).await;
    stage.holds(name, shown.is_empty(), || format!("{shown:?}"));
    stage.settle().await;

    // He passes the address on to the victim, whose own session then confirms it.
    let url = world.continue_url(&victim, &id, &confirmation).await;
    stage.begin().await;
    let name = "a stolen link, passed on to its owner";
    let (own_name, _) = visit.cookie.split_once('=').expect("a pair");
    let (_, own_value) = own.cookie.split_once('=').expect("a pair");
    let renamed = format!("{own_name}={own_value}");
    for cookie in [None, Some(&*own.cookie), Some(&*renamed)] {
        let reply = world.prove(&url, cookie).await;
        stage.page(name, reply, 403, "in another browser");
    }
    let nothing = format!("{}/oauth/proof/nothing", world.stack.urls.api);
    let reply = world
        .open(&nothing.parse().expect("a URL"), Some(&own.cookie))
        .await;
    stage.page("a made-up proof", reply, 410, START_AGAIN);
    let shown = world.connections(&victim).await;
    let pending = shown.len() == 1 && shown[0]["status"] == "pending";
    stage.holds(name, pending, || format!("{shown:?}"));
    stage.settle().await;
}

/// Two merchants come with one account, and the one that began first is slow: an account is live at one
/// of them at most, and waits for nobody.
async fn one_account_for_two(stage: &mut Stage) {
    let world = stage.world.clone();
    let slow = stage.shop().await;
    let quick = Shop {
        account: slow.account.clone(),
        ..stage.shop().await
    };
    // Once as a new connection, once as one that was given up and is taken up again.
    for round in ["a slow confirmation", "a slow confirmation of a reconnect"] {
        let (id, confirmation) = world.pending(&slow).await;
        let other = world.connect(&quick).await;
        let url = world.continue_url(&slow, &id, &confirmation).await;
        let cookie = world
            .browser_of(&confirmation)
            .expect("a browser brought it");
        stage.begin().await;
        let reply = world.prove(&url, Some(&cookie)).await;
        stage.page(round, reply, 409, "disconnect it there first");
        stage.settle().await;
        stage.lives("what came first", &quick, &other).await;
        // What the quick one gives up is free for the slow one, and then for nobody else.
        world.disconnect(&quick, &other).await;
        let reply = world.prove(&url, Some(&cookie)).await;
        stage.holds("an account that is free again", reply.status == 303, || {
            reply.body
        });
        let visit = world.visit(&quick).await;
        stage.begin().await;
        let taken = (409, "disconnect it there first");
        let cookie = Some(visit.cookie.as_str());
        stage.callback(round, &visit.callback, cookie, taken).await;
        stage.settle().await;
        world.disconnect(&slow, &id).await;
    }
    // A consent that never came to life is given up, and the connection that did goes on.
    let (id, _) = world.pending(&slow).await;
    let other = world.connect(&quick).await;
    world.disconnect(&slow, &id).await;
    let name = "a rival who gives up a consent for the same account";
    stage.lives(name, &quick, &other).await;
    world.disconnect(&quick, &other).await;

    // Two tabs of one browser make one connection. Xero tells of an organisation by the consent that was
    // given last, so there the other tab finds none, and says so.
    let twins = stage.shop().await;
    let (one, two) = tokio::join!(world.visit(&twins), world.visit(&twins));
    let (one, two) = tokio::join!(
        world.bring(&one.callback, Some(&one.cookie)),
        world.bring(&two.callback, Some(&two.cookie))
    );
    let backs = [one, two].into_iter().filter(|back| back.status == 303);
    let ids: Vec<String> = backs.map(|back| world.brought_back(&back).0).collect();
    let least = if stage.provider.name == "xero" { 1 } else { 2 };
    let listed = world.connections(&twins).await;
    let same = ids.len() >= least && ids.iter().all(|id| *id == ids[0]) && listed.len() == 1;
    stage.holds("two tabs with one account", same, || {
        json!([ids, listed]).to_string()
    });
}

/// Addresses to which a confirmation must not travel.
async fn return_addresses(stage: &mut Stage, victim: &Shop) {
    let world = stage.world.clone();
    let receiver = world.stack.urls.receiver.clone();
    let host = receiver.trim_start_matches("http://").to_owned();
    let port = receiver.rsplit(':').next().expect("a port").to_owned();
    let bad = [
        "https://attacker.example/connected".to_owned(),
        format!("https://attacker.example/{host}/connected"),
        format!("{receiver}.attacker.example/connected"),
        format!("http://localhost.attacker.example:{port}/connected"),
        format!("http://localhost@attacker.example:{port}/connected"),
        format!("http://user@{host}/connected"),
        format!("http://user:word@{host}/connected"),
        format!("http://127.0.0.1:{port}/connected"),
        format!("https://{host}/connected"),
        format!("{receiver}/"),
        format!("{receiver}/connected/"),
        format!("{receiver}/Connected"),
        format!("{receiver}/connected/more"),
        format!("{receiver}/connected/../other"),
        format!("{receiver}/connected%2f..%2fother"),
        format!("{receiver}/connected;x=1"),
        format!("{receiver}/connected?next=https://attacker.example"),
        format!("{receiver}/connected#https://attacker.example"),
        format!("{receiver}/connected?"),
        format!("{receiver}/connected#"),
        // The same place, written otherwise than it was registered.
        format!("{receiver}/connected")
            .to_uppercase()
            .replace("/CONNECTED", "/connected"),
        format!("{receiver}/./connected"),
        format!(" {receiver}/connected"),
        "http://example.com/x".to_owned(),
        "https://10.0.0.1/x".to_owned(),
        "https://169.254.169.254/x".to_owned(),
        "https://[fd00::1]/x".to_owned(),
        "javascript:alert(1)".to_owned(),
        "//attacker.example/connected".to_owned(),
        String::new(),
    ];
    let Provider { category, name, .. } = stage.provider;
    let path = format!("/api/v1/integrations/{category}/{name}/connect");
    stage.begin().await;
    for bad in bad {
        let wish = json!({ "merchant_id": victim.merchant, "return_url": bad });
        let reply = world.post(&path, &wish).await;
        let name = format!("the return address {}", bad.replace(&port, "…"));
        stage.problem(&name, reply, 422, "#/return_url");
    }
    stage.settle().await;
}

/// What only a consent page has: an answer that names a place of the attacker's, and another company.
async fn tokens(stage: &mut Stage) {
    let world = stage.world.clone();
    let shop = stage.shop().await;
    let answer = (424, START_AGAIN);
    let name = "a made-up code";
    // A visit that is not brought back changes no row that is looked at.
    stage.begin().await;
    let visit = world.visit(&shop).await;
    let made_up = visit.callback.with("code", "made-up");
    stage
        .callback(name, &made_up, Some(&visit.cookie), answer)
        .await;

    stage.settle().await;
    if stage.provider.name == "quickbooks" {
        let other = stage.shop().await;
        world.connect(&other).await;
        stage.begin().await;
        for realm in [
            other.account.id.as_str(),
            "",
            "../../v3/company/1",
            "1/../2",
            "1?x=y",
            "%31",
        ] {
            let visit = world.visit(&shop).await;
            let swapped = visit.callback.with("realmId", realm);
            let name = "another company in the callback";
            stage
                .callback(name, &swapped, Some(&visit.cookie), answer)
                .await;
        }
        let visit = world.visit(&shop).await;
        let without = visit.callback.without("realmId");
        let name = "no company in the callback";
        stage
            .callback(name, &without, Some(&visit.cookie), answer)
            .await;
        stage.settle().await;
    }

    let place = match stage.provider.name {
        "salesforce" => Some(("instance_url", stage.provider.token.expect("it has one"))),
        "mailchimp" => Some(("api_endpoint", stage.provider.account)),
        _ => None,
    };
    if let Some((field, path)) = place {
        foreign_places(stage, &shop, field, path).await;
    }
    unusual_tokens(stage, &shop).await;
}

/// The provider's answer names a place where the tokens must not go. One of them is a server that
/// would see them: another stand-in, of which all else that is asked comes from its own attacks.
async fn foreign_places(stage: &mut Stage, shop: &Shop, field: &str, path: &str) {
    let world = stage.world.clone();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let called = tokio::spawn(async move { listener.accept().await.is_ok() });
    let own = world.stack.urls.provider(stage.provider.name).to_owned();
    let own_port = own.rsplit(':').next().expect("a port");
    stage.begin().await;
    for place in [
        format!("http://localhost:{port}"),
        "https://attacker.example".to_owned(),
        format!("https://localhost:{own_port}"),
        format!("http://127.0.0.1:{own_port}"),
        format!("http://localhost.attacker.example:{own_port}"),
        format!("http://localhost:{own_port}@attacker.example"),
        "file:///etc/passwd".to_owned(),
        "nonsense".to_owned(),
        String::new(),
    ] {
        let visit = world.visit(shop).await;
        let changed = json!({ "kind": "with_field", "field": field, "value": place });
        stage.trouble(path, "", changed).await;
        let name = "a foreign place for the tokens";
        stage
            .callback(
                name,
                &visit.callback,
                Some(&visit.cookie),
                (424, START_AGAIN),
            )
            .await;
        let name = "the tokens stay away from a foreign place";
        stage.holds(name, !called.is_finished(), || {
            format!("{place} was called")
        });
    }
    stage.settle().await;
    called.abort();
}

/// Token answers that lack something.
async fn unusual_tokens(stage: &mut Stage, shop: &Shop) {
    let world = stage.world.clone();
    let path = stage.provider.token.expect("it has one");
    let needed = ["access_token", "refresh_token"];
    let needed = &needed[..if stage.provider.renews { 2 } else { 1 }];
    stage.begin().await;
    for field in needed {
        let visit = world.visit(shop).await;
        let lacking = json!({ "kind": "without_field", "field": field });
        stage.trouble(path, "", lacking).await;
        let name = format!("tokens without {field}");
        stage
            .callback(
                &name,
                &visit.callback,
                Some(&visit.cookie),
                (424, START_AGAIN),
            )
            .await;
    }
    stage.settle().await;
    // How long an access token is good need not be said.
    let visit = world.visit(shop).await;
    let lacking = ["expires_in", "expires_at"]
        .map(|field| json!({ "kind": "without_field", "field": field }));
    let field = match stage.provider.name {
        "square" | "square_loyalty" => 1,
        _ => 0,
    };
    stage.trouble(path, "", lacking[field].clone()).await;
    let back = world.bring(&visit.callback, Some(&visit.cookie)).await;
    let (id, confirmation) = world.brought_back(&back);
    let live = world.confirm(shop, &id, &confirmation).await.json();
    let fits =
        live["status"] == "live" && live["next_refresh_at"].is_string() == stage.provider.renews;
    stage.holds("tokens without an end", fits, || live.to_string());
}

/// Keys that cannot be one; after all of them the form still works.
async fn keys(stage: &mut Stage) {
    let world = stage.world.clone();
    let shop = stage.shop().await;
    let visit = world.visit(&shop).await;
    let cookie = Some(visit.cookie.as_str());
    let secret = stage.provider.secret_key();
    stage.begin().await;
    for (name, value) in [
        ("no key", String::new()),
        ("a key of spaces", "   ".to_owned()),
        ("a key with a line break", "SG.a\r\nx-evil: 1".to_owned()),
        ("a key with a control character", "SG.a\u{0}b".to_owned()),
        (
            "a key with a letter that no key has",
            "SG.schlüssel".to_owned(),
        ),
        ("a key that is too long", "x".repeat(501)),
    ] {
        let wrong = visit.callback.with(secret, &value);
        stage
            .callback(name, &wrong, cookie, (422, "is not one. "))
            .await;
    }
    if stage.provider.name == "voucherify" {
        let wrong = visit.callback.with("region", "attacker.example");
        stage
            .callback("a region that is none", &wrong, cookie, (422, "region"))
            .await;
    }
    let wrong = visit.callback.with(secret, "SG.nobodys.key");
    let advice = (424, "check what was entered");
    stage.callback("a wrong key", &wrong, cookie, advice).await;
    stage.settle().await;
    let back = world.bring(&visit.callback, cookie).await;
    stage.holds("the right key in the same form", back.status == 303, || {
        back.body
    });
}

/// Answers of the provider that cannot be used, while a consent is finished.
async fn answers(stage: &mut Stage) {
    let world = stage.world.clone();
    let shop = stage.shop().await;
    let kinds = [
        json!({ "kind": "html_body", "status": 200 }),
        json!({ "kind": "html_body", "status": 503 }),
        json!({ "kind": "empty_body" }),
        json!({ "kind": "status_before_effect", "status": 500 }),
        json!({ "kind": "status_after_effect", "status": 503 }),
        json!({ "kind": "throttle" }),
        json!({ "kind": "truncated_body" }),
        json!({ "kind": "reset_before_effect" }),
        json!({ "kind": "reset_after_effect" }),
    ];
    let account = stage.provider.account;
    let mut places: Vec<&str> = stage.provider.token.into_iter().chain([account]).collect();
    if stage.provider.name == "sendgrid" {
        places.push("/v3/user/username");
    }
    stage.begin().await;
    for place in &places {
        for kind in &kinds {
            let visit = world.visit(&shop).await;
            stage.trouble(place, "", kind.clone()).await;
            let name = format!("{} from {place}", kind["kind"]);
            stage
                .callback(
                    &name,
                    &visit.callback,
                    Some(&visit.cookie),
                    (424, TRY_AGAIN),
                )
                .await;
            let left = world.at(stage.provider, "faults", None).await;
            stage.holds(&name, left == json!([]), || format!("{left} did not fire"));
        }
    }
    // No answer at all takes as long as the functions wait, so all places are silent at once.
    let hang = json!({ "kind": "timeout_before_effect", "hold_seconds": HOLD_SECONDS });
    let mut visits = Vec::new();
    for place in &places {
        visits.push((world.visit(&shop).await, *place));
    }
    let mut waiting = Vec::new();
    for (visit, place) in visits {
        // Only the exchange of this one code hangs; the account's call has no body.
        let body = match stage.provider.token == Some(place) {
            true => visit.callback.get("code"),
            false => String::new(),
        };
        stage.trouble(place, &encoded(&body), hang.clone()).await;
        let world = world.clone();
        waiting.push(tokio::spawn(async move {
            world.bring(&visit.callback, Some(&visit.cookie)).await
        }));
    }
    for (task, place) in waiting.into_iter().zip(&places) {
        let reply = task.await.expect("an answer comes");
        let name = format!("silence from {place}");
        stage.page(&name, reply, 424, TRY_AGAIN);
    }
    stage.settle().await;
}

/// A text as it stands in a form: what codes hold beside letters is escaped there.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
