//! What a merchant and its backend do with connections once they are there, and what a stranger must
//! not. The strangers' requests are built from the OpenAPI document, so that an operation which is new
//! is tried without a word here, and every answer of this test is held against the document.

use crate::world::{Reply, Shop, World, event, order, payment, sale, wait};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const EVENTS: &str = "/api/v1/events";
/// Ids that could be, of things that are not there.
const NO_CONNECTION: &str = "con_01k7zzzzzzzzzzzzzzzzzzzzzz";
/// The event that the examples of the document name.
const EVENT: &str = "evt_01kawq2m6vf6t8x9h0e3j5n7pr";
const NO_ENDPOINT: &str = "ep_01k7zzzzzzzzzzzzzzzzzzzzzz";
const TOKEN_URL: &str = "oauth2/v1/tokens/bearer";

pub async fn test(world: Arc<World>) {
    let api = Api::read(&world).await;
    strangers(&api).await;
    eprintln!("  what belongs to another merchant does not exist");
    keys(&api).await;
    inputs(&api).await;
    eprintln!("  keys, bodies and queries are judged as the document says");
    healthy_and_failing(&api).await;
    waiting(&api).await;
    eprintln!("  what waits is sent once, when the connection is live again");
    settings(&api).await;
    history(&api).await;
    disconnected(&api).await;
    imports(&api).await;
    eprintln!("  connections are set, shown, given back and brought along");
}

/// One operation of the document.
#[derive(Clone)]
pub struct Operation {
    id: String,
    method: Method,
    path: String,
    parameters: Vec<Value>,
    body: Option<Value>,
    /// The reference to the body's schema.
    schema: String,
    secured: bool,
}

impl Operation {
    /// The parameters of the path whose values name something that a merchant has.
    fn ids(&self) -> Vec<&Value> {
        let in_path = |parameter: &&Value| parameter["in"] == "path";
        let of = self.parameters.iter().filter(in_path);
        of.filter(|parameter| match parameter["x-names"].as_str() {
            None | Some("merchant" | "record" | "secret" | "deployment") => false,
            Some("connection" | "endpoint") => true,
            Some(other) => panic!("{}: nobody here knows what {other} is", self.id),
        })
        .collect()
    }

    fn query(&self) -> impl Iterator<Item = &Value> {
        let parameters = self.parameters.iter();
        parameters.filter(|parameter| parameter["in"] == "query")
    }
}

/// What fills the places of a request.
#[derive(Clone)]
pub struct Values {
    pub merchant: String,
    pub connection: String,
    endpoint: String,
    return_url: String,
}

pub struct Api<'a> {
    pub world: &'a World,
    document: Value,
    operations: Vec<Operation>,
}

impl Api<'_> {
    pub async fn read(world: &World) -> Api<'_> {
        let url = format!("{}/api/v1/openapi.json", world.stack.urls.api);
        let reply = world.send(Method::GET, &url, &[], None).await.expect(200);
        let document = reply.json();
        let mut operations = Vec::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let parameters = operation["parameters"].as_array().expect("parameters");
                let resolved = parameters.iter().map(|parameter| {
                    let place = parameter["$ref"].as_str().expect("a reference");
                    document.pointer(&place[1..]).expect("it is there").clone()
                });
                let content = &operation["requestBody"]["content"]["application/json"];
                operations.push(Operation {
                    id: operation["operationId"].as_str().expect("an id").to_owned(),
                    method: method.to_uppercase().parse().expect("a method"),
                    path: path.clone(),
                    parameters: resolved.collect(),
                    body: content.get("example").cloned(),
                    schema: content["schema"]["$ref"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned(),
                    secured: operation["security"].is_null(),
                });
            }
        }
        assert!(operations.len() > 20, "the document was not read");
        Api {
            world,
            document,
            operations,
        }
    }

    pub fn operation(&self, id: &str) -> &Operation {
        let found = self.operations.iter().find(|operation| operation.id == id);
        found.unwrap_or_else(|| panic!("there is no operation {id}"))
    }

    /// The address of an operation, with its required parameters filled in.
    pub fn address(&self, operation: &Operation, values: &Values) -> String {
        let (mut path, mut query) = (operation.path.clone(), Vec::new());
        for parameter in &operation.parameters {
            let name = parameter["name"].as_str().expect("a name");
            let value = match parameter["x-names"].as_str() {
                Some("merchant") => &values.merchant,
                Some("connection") => &values.connection,
                Some("endpoint") => &values.endpoint,
                _ => parameter["example"].as_str().unwrap_or_default(),
            };
            if parameter["in"] == "path" {
                path = path.replace(&format!("{{{name}}}"), value);
            } else if parameter["required"] == true {
                query.push(format!("{name}={value}"));
            }
        }
        match query.is_empty() {
            true => path,
            false => format!("{path}?{}", query.join("&")),
        }
    }

    /// The example of the body, with the values in place.
    fn body(&self, operation: &Operation, values: &Values) -> Option<Value> {
        let mut body = operation.body.clone()?;
        if body.get("merchant_id").is_some() {
            body["merchant_id"] = json!(values.merchant);
        }
        if body.get("return_url").is_some() {
            body["return_url"] = json!(values.return_url);
        }
        Some(body)
    }

    pub async fn send(&self, operation: &Operation, address: &str, body: Option<&Value>) -> Reply {
        let body = body.map(Value::to_string);
        let reply = self
            .world
            .api(operation.method.clone(), address, body)
            .await;
        self.conforms(operation, &reply);
        reply
    }

    pub async fn call(&self, id: &str, values: &Values) -> Reply {
        let operation = self.operation(id);
        let body = self.body(operation, values);
        let address = self.address(operation, values);
        self.send(operation, &address, body.as_ref()).await
    }

    /// The same with another body.
    pub async fn call_with(&self, id: &str, values: &Values, body: &Value) -> Reply {
        let operation = self.operation(id);
        let address = self.address(operation, values);
        self.send(operation, &address, Some(body)).await
    }

    /// Holds an answer against what the document says of its status.
    #[track_caller]
    fn conforms(&self, operation: &Operation, reply: &Reply) {
        let (id, status) = (&operation.id, reply.status);
        let described = &self.document["paths"][&operation.path]
            [operation.method.as_str().to_lowercase()]["responses"][status.to_string()];
        assert!(
            !described.is_null(),
            "{id} does not know {status}: {}",
            reply.body
        );
        let Some(content) = described["content"].as_object() else {
            return;
        };
        let (kind, described) = content.iter().next().expect("one kind");
        assert!(
            reply.header("content-type").starts_with(kind),
            "{id}: {status} is no {kind}"
        );
        if kind.contains("json") {
            let faults = self.faults(&described["schema"], &reply.json());
            assert!(
                faults.is_empty(),
                "{id}, {status}: {faults:?} in {}",
                reply.body
            );
        }
    }

    fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "allOf": [schema], "components": self.document["components"],
        });
        let validator = jsonschema::options()
            .should_validate_formats(true)
            .build(&schema);
        let validator = validator.expect("the document's schemas are schemas");
        let fault =
            |error: jsonschema::ValidationError| format!("{}: {error}", error.instance_path());
        validator.iter_errors(value).map(fault).collect()
    }

    pub fn values(&self, shop: &Shop, connection: &str) -> Values {
        Values {
            merchant: shop.merchant.clone(),
            connection: connection.to_owned(),
            endpoint: NO_ENDPOINT.to_owned(),
            return_url: format!("{}/connected", self.world.stack.urls.receiver),
        }
    }

    /// A merchant with a connection to its company, whose grant the test knows.
    pub async fn connected(&self) -> (Shop, Values) {
        let shop = self.world.shop("manage").await;
        let connection = self.connect(&shop, &shop.account.id).await;
        let id = connection["id"].as_str().expect("an id");
        let values = self.values(&shop, id);
        (shop, values)
    }

    /// A connection of `shop` to a company, of tokens brought along.
    async fn connect(&self, shop: &Shop, realm: &str) -> Value {
        let grant = json!({ "realm": realm });
        let grant = self.world.quickbooks("grants", Some(grant)).await;
        let refresh = grant["refresh_token"].as_str().expect("a token");
        self.world.secret(refresh);
        self.world
            .secret(grant["access_token"].as_str().expect("a token"));
        let tokens = json!({ "refresh_token": refresh, "tenant_id": realm });
        self.import(shop, "accounting/quickbooks", tokens).await
    }

    async fn import(&self, shop: &Shop, provider: &str, tokens: Value) -> Value {
        let path = format!("/api/v1/integrations/{provider}/import");
        let body = json!({ "merchant_id": shop.merchant, "tokens": tokens });
        let reply = self.world.post(&path, &body).await.expect(201);
        self.conforms(self.operation("importConnection"), &reply);
        reply.json()
    }

    pub async fn show(&self, values: &Values) -> Value {
        self.call("getConnection", values).await.expect(200).json()
    }

    async fn connections(&self, values: &Values) -> Vec<Value> {
        let list = self
            .call("listConnections", values)
            .await
            .expect(200)
            .json();
        list["data"].as_array().expect("a list").clone()
    }

    /// The whole history, in one page.
    async fn history(&self, values: &Values) -> Vec<Value> {
        let operation = self.operation("getHistory");
        let address = format!("{}&limit=200", self.address(operation, values));
        let page = self
            .send(operation, &address, None)
            .await
            .expect(200)
            .json();
        assert_eq!(page["has_more"], false);
        page["data"].as_array().expect("a list").clone()
    }

    /// What happened, in the words of the history.
    async fn happened(&self, values: &Values) -> Vec<String> {
        let history = self.history(values).await;
        let what = history
            .iter()
            .map(|entry| entry["what"].as_str().expect("a word").to_owned());
        what.collect()
    }

    /// A row of a table, as it is stored.
    async fn row(&self, table: &str, pk: String, sk: &str) -> Option<Value> {
        let name = self.world.stack.output(table).expect("an output");
        let key = json!({ "pk": { "S": pk }, "sk": { "S": sk } });
        let body = json!({ "TableName": name, "Key": key, "ConsistentRead": true });
        let answer = self
            .world
            .aws("dynamodb", "DynamoDB_20120810.GetItem", body)
            .await;
        let document = answer["Item"]["doc"]["S"].as_str()?;
        Some(serde_json::from_str(document).expect("a document"))
    }

    /// The row of an order in the ledger.
    pub async fn ledger(&self, values: &Values, order: &str) -> Option<Value> {
        let pk = format!("{}/{}", values.merchant, values.connection);
        self.row("TableLedger", pk, &format!("order/{order}")).await
    }

    /// Sends a sale of `minor` US cents; returns the order's id.
    pub async fn sell(&self, shop: &Shop, number: usize, minor: i64) -> String {
        let sale = sale(shop, number, minor, "USD");
        for event in &sale.events {
            self.world.post(EVENTS, event).await.expect(202);
        }
        sale.order
    }

    /// Waits until `holds` of an order's row in the ledger.
    async fn until_row(
        &self,
        what: &str,
        values: &Values,
        order: &str,
        holds: impl Fn(&Value) -> bool,
    ) {
        wait(what, async || {
            let row = self.ledger(values, order).await.unwrap_or_default();
            match holds(&row) {
                true => (Vec::new(), 0),
                false => (vec![format!("{order}: {row}")], 0),
            }
        })
        .await;
    }

    async fn until_shown(&self, what: &str, values: &Values, member: &str, word: &str) -> Value {
        wait(what, async || {
            let shown = self.show(values).await;
            match shown[member] == word {
                true => (Vec::new(), 0),
                false => (vec![format!("{member} is {}", shown[member])], 0),
            }
        })
        .await;
        self.show(values).await
    }

    pub async fn until_synced(&self, values: &Values, order: &str) {
        let done = |row: &Value| row["state"] == "synced" && row["waiting"].is_null();
        self.until_row("an order is in the books", values, order, done)
            .await;
    }

    async fn until_waiting(&self, values: &Values, order: &str) {
        let waits = |row: &Value| !row["waiting"].is_null();
        self.until_row("an order waits", values, order, waits).await;
    }

    /// The receipts of `realm` for `order`.
    pub async fn receipts(&self, shop: &Shop, realm: &str, order: &str) -> usize {
        let mut of = shop.clone();
        realm.clone_into(&mut of.account.id);
        let books = self.world.books(&of, "SalesReceipt").await;
        books.get(order).map_or(0, Vec::len)
    }

    /// Lets the next calls of the company whose path holds `part` fail.
    pub async fn fail(&self, part: &str, times: u64) {
        let rule = json!({
            "match": { "path_contains": part }, "kind": "status_before_effect", "status": 503,
            "times": times,
        });
        self.world.quickbooks("faults", Some(rule)).await;
    }

    /// Ends all failures.
    pub async fn mend(&self) {
        let base = self.world.stack.urls.provider("quickbooks");
        let url = format!("{base}/_control/faults");
        let reply = self.world.send(Method::DELETE, &url, &[], None).await;
        reply.expect(200);
    }
}

/// What differs between two refusals of the same kind: the request's own id, and the id asked for.
fn alike(reply: &Reply, id: &str) -> Value {
    let mut body: Value = serde_json::from_str(&reply.body.replace(id, "ID")).expect("JSON");
    body["request_id"] = json!("REQUEST");
    body
}

/// Everything that can be seen of a merchant.
async fn all_of(api: &Api<'_>, values: &Values) -> Value {
    json!({
        "connections": api.connections(values).await,
        "history": api.history(values).await,
        "endpoints": api.call("listEndpoints", values).await.expect(200).json(),
        "attempts": api.call("listAttempts", values).await.expect(200).json(),
    })
}

/// Lets there be what the examples of the document name: a record that stands at the connection, and a
/// resync.
async fn known(api: &Api<'_>, shop: &Shop, values: &Values) {
    let (created, paid) = (
        order("1001", 1, 100, "USD"),
        payment("p-1001", "1001", 100, "USD"),
    );
    for (id, kind, data) in [
        ("1001-created", "order.created", created),
        ("1001-paid", "payment.processed", paid),
        (EVENT, "order.created", order("1002", 1, 100, "USD")),
    ] {
        let event = event(shop, id, kind, data);
        api.world.post(EVENTS, &event).await.expect(202);
    }
    api.until_synced(values, "1001").await;
    api.call("resync", values).await.expect(202);
}

async fn strangers(api: &Api<'_>) {
    let (shop, mut owner) = api.connected().await;
    owner.endpoint = api.world.endpoint(&shop, &["order.created"]).await;
    known(api, &shop, &owner).await;
    let (_, own) = api.connected().await;
    let before = all_of(api, &owner).await;
    let mut tried = BTreeSet::new();
    for operation in api.operations.iter().filter(|one| !one.ids().is_empty()) {
        let id = &operation.id;
        let stranger = Values {
            merchant: own.merchant.clone(),
            ..owner.clone()
        };
        let nowhere = Values {
            connection: NO_CONNECTION.to_owned(),
            endpoint: NO_ENDPOINT.to_owned(),
            ..stranger.clone()
        };
        let nobody = Values {
            merchant: "manage-nobody".to_owned(),
            ..owner.clone()
        };
        let mut refusals = Vec::new();
        for values in [&stranger, &nowhere, &nobody] {
            let reply = api.call(id, values).await;
            assert_eq!(reply.status, 404, "{id}: {}", reply.body);
            assert_eq!(reply.json()["code"], "not_found", "{id}");
            refusals.push(reply);
        }
        let named = match operation.ids()[0]["x-names"].as_str() {
            Some("connection") => [&stranger.connection, &nowhere.connection],
            _ => [&stranger.endpoint, &nowhere.endpoint],
        };
        assert_eq!(
            alike(&refusals[0], named[0]),
            alike(&refusals[1], named[1]),
            "{id}: somebody else's id tells that it is one"
        );
        let names = |reply: &Reply| -> BTreeSet<String> {
            reply
                .headers
                .keys()
                .map(|name| name.as_str().to_owned())
                .collect()
        };
        assert_eq!(names(&refusals[0]), names(&refusals[1]), "{id}");
        tried.insert(id.clone());
    }
    assert!(tried.len() >= 10, "only {tried:?} were tried");
    assert_eq!(
        all_of(api, &owner).await,
        before,
        "a stranger changed something"
    );
    // The same requests reach what they name when its owner sends them. A reconciliation, a backfill and
    // a recovery are made by a run, and are found in the test of those.
    let of_run = |id: &&String| {
        let path = &api.operation(id).path;
        path.contains("reconciliations/{") || path.contains("/backfill") || *id == "getRecovery"
    };
    // What removes the endpoint comes last.
    let (removing, others): (Vec<&String>, Vec<&String>) = tried
        .iter()
        .filter(|id| !of_run(id))
        .partition(|id| *id == "deleteEndpoint");
    for id in others {
        let reply = api.call(id, &owner).await;
        assert_ne!(reply.status, 404, "{id}: {}", reply.body);
    }
    assert_ne!(
        all_of(api, &owner).await,
        before,
        "the owner changed nothing"
    );
    for id in removing {
        api.call(id, &owner).await.expect(200);
        api.call(id, &owner).await.expect(404);
    }
}

async fn keys(api: &Api<'_>) {
    let values = Values {
        merchant: "manage-nobody".to_owned(),
        connection: NO_CONNECTION.to_owned(),
        endpoint: NO_ENDPOINT.to_owned(),
        return_url: "https://shop.example/connected".to_owned(),
    };
    let mut secured = 0;
    for operation in &api.operations {
        let id = &operation.id;
        let url = format!(
            "{}{}",
            api.world.stack.urls.api,
            api.address(operation, &values)
        );
        let body = api.body(operation, &values).map(|body| body.to_string());
        for key in [
            None,
            Some("Bearer wrong"),
            Some("Bearer "),
            Some("Basic d3Jvbmc6d3Jvbmc="),
        ] {
            let mut headers = vec![(CONTENT_TYPE.as_str(), "application/json")];
            headers.extend(key.map(|key| (AUTHORIZATION.as_str(), key)));
            let method = operation.method.clone();
            let reply = api.world.send(method, &url, &headers, body.clone()).await;
            assert_eq!(
                reply.status == 401,
                operation.secured,
                "{id}, {key:?}: {}",
                reply.body
            );
            if operation.secured {
                api.conforms(operation, &reply);
                assert!(
                    reply.header("www-authenticate").starts_with("Bearer"),
                    "{id}"
                );
                secured += 1;
            }
        }
    }
    assert!(secured > 60, "only {secured} requests without a key");
}

/// Expects a refusal that names `pointer`.
#[track_caller]
fn refused_at(about: &str, reply: &Reply, pointer: &str) {
    assert_eq!(reply.status, 422, "{about}: {}", reply.body);
    let first = reply.json()["errors"][0]["pointer"].clone();
    let first = first.as_str().unwrap_or_default();
    assert!(first.starts_with(pointer), "{about}: {}", reply.body);
}

/// Every member of every body, and every parameter of every query, as the document has them.
async fn inputs(api: &Api<'_>) {
    let (shop, mut values) = api.connected().await;
    values.endpoint = api.world.endpoint(&shop, &["order.created"]).await;
    known(api, &shop, &values).await;
    let mut tried = 0;
    for operation in api.operations.iter().filter(|one| one.secured) {
        let id = &operation.id;
        let address = api.address(operation, &values);
        if let Some(body) = api.body(operation, &values) {
            let place = match operation.schema.as_str() {
                "#/components/schemas/EventOrBatch" => "#/components/schemas/Event",
                other => other,
            };
            let schema = api.document.pointer(&place[1..]).expect("a schema");
            let send = async |body: &Value| api.send(operation, &address, Some(body)).await;
            for name in schema["properties"].as_object().expect("members").keys() {
                let mut wrong = body.clone();
                wrong[name] = match body[name] {
                    Value::Array(_) => json!(7),
                    _ => json!([]),
                };
                let pointer = format!("#/{name}");
                refused_at(&format!("{id}, {name}"), &send(&wrong).await, &pointer);
                tried += 1;
            }
            for name in schema["required"].as_array().expect("names") {
                let mut less = body.clone();
                less.as_object_mut()
                    .expect("an object")
                    .remove(name.as_str().expect("a name"));
                refused_at(&format!("{id} without {name}"), &send(&less).await, "#");
                tried += 1;
            }
            let mut more = body.clone();
            more["colour"] = json!("red");
            refused_at(&format!("{id}, colour"), &send(&more).await, "#/colour");
        }
        for parameter in operation.query() {
            let name = parameter["name"].as_str().expect("a name");
            let (bare, _) = address.split_once('?').expect("a query");
            let merchant = format!("merchant_id={}", values.merchant);
            let wrong: &[&str] = match name {
                "merchant_id" => &["", "merchant_id=", "merchant_id=a%20b", "merchant_id=a/b"],
                "limit" => &["limit=0", "limit=x", "limit=-1", "limit=201", "limit=1.5"],
                "cursor" => &["cursor=", "cursor=a%20b", "cursor=a%0Ab"],
                "after" => &["after=", "after=a%20b", "after=AAAA"],
                "state" => &["state=", "state=Synced", "state=failed"],
                "type" => &["type=", "type=stock", "type=order/"],
                "delivery_state" => &["delivery_state=", "delivery_state=failed"],
                // Any text may be the code of an error.
                "code" => &[],
                other => panic!("{id}: nobody here knows what {other} is"),
            };
            for wrong in wrong {
                let address = match name {
                    "merchant_id" => format!("{bare}?{wrong}"),
                    _ => format!("{bare}?{merchant}&{wrong}"),
                };
                let reply = api.send(operation, &address, None).await;
                refused_at(&format!("{id}, {wrong}"), &reply, &format!("#/{name}"));
                tried += 1;
            }
        }
        let more = if address.contains('?') { "&" } else { "?" };
        let address = format!("{address}{more}colour=red");
        let body = api.body(operation, &values);
        let reply = api.send(operation, &address, body.as_ref()).await;
        refused_at(&format!("{id}, ?colour"), &reply, "#/colour");
        let known: Vec<&str> = operation
            .query()
            .filter_map(|one| one["name"].as_str())
            .collect();
        assert!(
            reply.body.contains(&known.join(", ")),
            "{id}: {}",
            reply.body
        );
    }
    assert!(tried > 60, "only {tried} were tried");
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().expect("a time")
}

async fn healthy_and_failing(api: &Api<'_>) {
    let shop = api.world.shop("manage").await;
    let fresh = api.connect(&shop, &shop.account.id).await;
    let values = api.values(&shop, fresh["id"].as_str().expect("an id"));
    assert_eq!(fresh["status"], "live");
    // The provider gave tokens, and told whose they are.
    assert_eq!(fresh["health"], "healthy");
    assert!(time(&fresh["last_success_at"]) <= time(&fresh["updated_at"]));
    assert_eq!(fresh["tenant_id"], shop.account.id);
    assert_eq!(fresh["tenant_name"], "Company of manage");
    assert_eq!(fresh["label"], "Company of manage");
    assert_eq!(fresh["scopes"], json!(["com.intuit.quickbooks.accounting"]));
    // An access token lives for an hour, and is renewed between an eighth and five eighths of it.
    let ahead = time(&fresh["next_refresh_at"]) - time(&fresh["created_at"]);
    assert!(
        ahead > TimeDelta::minutes(7) && ahead < TimeDelta::minutes(38),
        "{ahead}"
    );
    assert_eq!(api.connections(&values).await, std::slice::from_ref(&fresh));

    for category in [
        "accounting",
        "crm",
        "email-marketing",
        "payments",
        "loyalty",
    ] {
        let path = format!(
            "/api/v1/integrations/{category}?merchant_id={}",
            shop.merchant
        );
        let reply = api.world.get(&path).await.expect(200);
        api.conforms(api.operation("listConnectionsOfCategory"), &reply);
        let list = reply.json();
        let count = usize::from(category == "accounting");
        assert_eq!(
            list["data"].as_array().expect("a list").len(),
            count,
            "{category}"
        );
        let offered = list["providers"].as_array().expect("a list");
        assert!(!offered.is_empty(), "{category}");
        assert!(
            offered.iter().all(|offer| offer["category"] == category),
            "{list}"
        );
        if count == 0 {
            let path = format!(
                "/api/v1/integrations/{category}/{}?merchant_id={}",
                values.connection, shop.merchant
            );
            let elsewhere = api.world.get(&path).await.expect(404).json();
            assert_eq!(elsewhere["code"], "not_found", "it is no {category}");
        }
    }

    let first = api.sell(&shop, 1, 1000).await;
    api.until_synced(&values, &first).await;
    let shown = api
        .until_shown("a success is shown", &values, "health", "healthy")
        .await;
    let success = time(&shown["last_success_at"]);
    assert!(success >= time(&fresh["last_success_at"]));

    // Several messages are about one sale, so that all of them have to fail until it is seen.
    api.fail(&format!("{}/salesreceipt", shop.account.id), 1000)
        .await;
    let second = api.sell(&shop, 2, 2000).await;
    let shown = api
        .until_shown("a failure is shown", &values, "health", "failing")
        .await;
    assert_eq!(shown["status"], "live", "it may work again by itself");
    assert_eq!(shown["last_failure"]["code"], "upstream_failed", "{shown}");
    api.mend().await;
    api.until_synced(&values, &second).await;
    let shown = api
        .until_shown("it is well again", &values, "health", "healthy")
        .await;
    assert!(time(&shown["last_success_at"]) > time(&shown["last_failure"]["at"]));
    assert_eq!(api.receipts(&shop, &shop.account.id, &second).await, 1);
}

/// Expects a refusal because of the status, in words.
async fn conflict(api: &Api<'_>, id: &str, values: &Values, words: &str) {
    let problem = api.call(id, values).await.expect(409).json();
    assert_eq!(problem["code"], "conflict");
    let detail = problem["detail"].as_str().expect("words");
    assert!(
        detail.contains(words),
        "{id}: {words:?} is not in {detail:?}"
    );
}

async fn waiting(api: &Api<'_>) {
    let (shop, values) = api.connected().await;
    // A second company of the same merchant goes on all the time.
    let other =
        json!({ "realm": format!("{}7", shop.account.id), "name": "Company of manage, Oslo" });
    api.world.quickbooks("realms", Some(other.clone())).await;
    let other = other["realm"].as_str().expect("a realm").to_owned();
    let second = api.connect(&shop, &other).await;
    let second = api.values(&shop, second["id"].as_str().expect("an id"));
    assert_ne!(second.connection, values.connection);
    assert_eq!(api.connections(&values).await.len(), 2);

    for _ in 0..2 {
        let paused = api.call("pause", &values).await.expect(200).json();
        assert_eq!(paused["status"], "paused");
        assert!(
            paused["next_refresh_at"].is_string(),
            "its tokens are kept alive: {paused}"
        );
    }
    let order = api.sell(&shop, 1, 1000).await;
    api.until_waiting(&values, &order).await;
    api.until_synced(&second, &order).await;
    assert_eq!(
        api.receipts(&shop, &shop.account.id, &order).await,
        0,
        "it was sent all the same"
    );
    for _ in 0..2 {
        let live = api.call("resume", &values).await.expect(200).json();
        assert_eq!(live["status"], "live");
    }
    api.until_synced(&values, &order).await;
    let happened = api.happened(&values).await;
    assert_eq!(
        happened[happened.len() - 2..],
        ["paused", "resumed"],
        "each once"
    );

    // The company takes its consent back, and nobody here knows until the next call.
    let which = json!({ "realm": shop.account.id });
    api.world.quickbooks("revoke", Some(which.clone())).await;
    api.world
        .quickbooks("expire_access_tokens", Some(which))
        .await;
    let late = api.sell(&shop, 2, 2000).await;
    let shown = api
        .until_shown(
            "the refusal is noticed",
            &values,
            "status",
            "reauth_required",
        )
        .await;
    assert_eq!(shown["trouble"]["code"], "invalid_grant", "{shown}");
    api.until_waiting(&values, &late).await;
    conflict(api, "pause", &values, "reauth_required").await;
    conflict(api, "resume", &values, "reauth_required").await;
    let link = api.call("reconnect", &values).await.expect(201).json();
    let link = link["url"].as_str().expect("a link");
    api.world
        .secret(link.rsplit('/').next().expect("a last segment"));
    let again = api.connect(&shop, &shop.account.id).await;
    assert_eq!(again["id"], values.connection, "it keeps its id");
    assert_eq!(
        (&again["status"], &again["trouble"]),
        (&json!("live"), &Value::Null)
    );
    api.until_synced(&values, &late).await;
    api.until_synced(&second, &late).await;
    for realm in [&shop.account.id, &other] {
        for order in [&order, &late] {
            assert_eq!(
                api.receipts(&shop, realm, order).await,
                1,
                "{order} in {realm}"
            );
        }
    }
}

async fn settings(api: &Api<'_>) {
    let (shop, values) = api.connected().await;
    let set = async |settings: Value| {
        let body = json!({ "merchant_id": shop.merchant, "settings": settings });
        api.call_with("setSettings", &values, &body).await
    };
    let long = "x".repeat(101);
    for (member, wrong) in [
        ("label", json!("")),
        ("label", json!("  ")),
        ("label", json!("a\nb")),
        ("label", json!("a\u{0}b")),
        ("label", json!("a\u{202e}b")),
        ("label", json!(long)),
        ("label", json!(7)),
        ("records_from", json!("0001-01-01T00:00:00Z")),
        ("records_from", json!("2100-01-01T00:00:00Z")),
        ("records_from", json!("2020-01-01")),
        ("records_from", json!("yesterday")),
        ("records_from", json!("2026-02-30T00:00:00Z")),
        ("orders_as", json!("cash_book")),
        // A form, but none of an order.
        ("orders_as", json!("payment")),
        ("guest_customer", json!("")),
        ("guest_customer", json!("a\u{202e}b")),
        ("posting", json!("weekly")),
        ("posting_from", json!("2026-02-30")),
        ("daily_customer", json!("")),
        ("colour", json!("red")),
    ] {
        let reply = set(json!({ member: wrong })).await;
        refused_at(
            &format!("{member} {wrong}"),
            &reply,
            &format!("#/settings/{member}"),
        );
    }
    assert_eq!(
        api.show(&values).await["settings"],
        json!({
            "label": null, "records_from": null, "orders_as": null, "accounts": {},
            "guest_customer": null, "posting": "each", "posting_from": null, "daily_customer": null,
            "conflicts": { "amounts": "shop_wins", "words": "provider_wins" },
        })
    );

    // The orders of these tests are placed in February.
    let wish = json!({ "label": "Zoë's books", "records_from": "2026-02-01T10:00:01Z" });
    for _ in 0..2 {
        let shown = set(wish.clone()).await.expect(200).json();
        assert_eq!(shown["label"], "Zoë's books");
        assert_eq!(
            time(&shown["settings"]["records_from"]),
            time(&wish["records_from"])
        );
    }
    let changes = api.happened(&values).await;
    assert_eq!(
        changes
            .iter()
            .filter(|what| *what == "settings_changed")
            .count(),
        1
    );
    let old = api.sell(&shop, 1, 1000).await;
    let left_out = |row: &Value| row["state"] == "left_out";
    api.until_row("an old order is left out", &values, &old, left_out)
        .await;
    let shown = set(json!({ "records_from": "2026-02-01T10:00:00Z" }))
        .await
        .expect(200)
        .json();
    assert_eq!(
        shown["label"], "Company of manage",
        "the label was taken back"
    );
    let changed = event(
        &shop,
        &format!("{old}-updated"),
        "order.updated",
        order(&old, 2, 1000, "USD"),
    );
    assert_eq!(api.receipts(&shop, &shop.account.id, &old).await, 0);
    api.world.post(EVENTS, &changed).await.expect(202);
    api.until_synced(&values, &old).await;
    assert_eq!(api.receipts(&shop, &shop.account.id, &old).await, 1);
}

async fn history(api: &Api<'_>) {
    let (_, values) = api.connected().await;
    for id in ["pause", "resume", "pause", "resume"] {
        api.call(id, &values).await.expect(200);
    }
    let whole = api.history(&values).await;
    let happened = api.happened(&values).await;
    let expected = ["imported", "paused", "resumed", "paused", "resumed"];
    assert_eq!(happened, expected);
    let times: Vec<DateTime<Utc>> = whole.iter().map(|entry| time(&entry["at"])).collect();
    assert!(times.is_sorted(), "oldest first");
    let operation = api.operation("getHistory");
    let first = format!("{}&limit=4", api.address(operation, &values));
    let (mut pages, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let address = match cursor.as_str() {
            Some(cursor) => format!("{first}&cursor={cursor}"),
            None => first.clone(),
        };
        let page = api.send(operation, &address, None).await.expect(200).json();
        pages.push(page["data"].as_array().expect("a list").clone());
        cursor = page["next_cursor"].clone();
        assert_eq!(page["has_more"], cursor.is_string(), "{page}");
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(pages.concat(), whole);
    let shouted = whole[3]["id"].as_str().expect("an id").to_uppercase();
    let reply = api
        .send(operation, &format!("{first}&cursor={shouted}"), None)
        .await;
    refused_at("a cursor in capitals", &reply, "#/cursor");
    // A cursor reaches nothing but the connection that stands in the path.
    let (_, other) = api.connected().await;
    let last = whole[3]["id"].as_str().expect("an id");
    let address = format!("{}&cursor={last}", api.address(operation, &other));
    let page = api.send(operation, &address, None).await.expect(200).json();
    let own = api.history(&other).await;
    for entry in page["data"].as_array().expect("a list") {
        assert!(own.contains(entry), "{entry} is not of this connection");
    }
}

/// Whether QuickBooks still takes a refresh token.
async fn is_taken(api: &Api<'_>, refresh: &str) -> bool {
    let url = format!(
        "{}/{TOKEN_URL}",
        api.world.stack.urls.provider("quickbooks")
    );
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", refresh)
        .finish();
    use base64::Engine as _;
    let pair = base64::engine::general_purpose::STANDARD.encode("standin-client:standin-secret");
    let basic = format!("Basic {pair}");
    let headers = [
        (AUTHORIZATION.as_str(), basic.as_str()),
        (CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded"),
    ];
    let reply = api
        .world
        .send(Method::POST, &url, &headers, Some(form))
        .await;
    reply.status == 200
}

async fn disconnected(api: &Api<'_>) {
    let shop = api.world.shop("manage").await;
    let grant = api
        .world
        .quickbooks("grants", Some(json!({ "realm": shop.account.id })))
        .await;
    let refresh = grant["refresh_token"].as_str().expect("a token").to_owned();
    api.world.secret(&refresh);
    let tokens = json!({ "refresh_token": refresh, "tenant_id": shop.account.id });
    let connection = api.import(&shop, "accounting/quickbooks", tokens).await;
    let values = api.values(&shop, connection["id"].as_str().expect("an id"));
    let order = api.sell(&shop, 1, 1000).await;
    api.until_synced(&values, &order).await;
    let row = async || {
        let pk = format!("{}/connections", shop.merchant);
        api.row("TableConnections", pk, &values.connection)
            .await
            .expect("a connection")
    };
    assert!(row().await["key"].is_object() && row().await["tokens"].is_object());

    // Where the provider fails, nothing changes.
    let (before, entries) = (api.show(&values).await, api.history(&values).await);
    api.fail("tokens/revoke", 1).await;
    let refused = api.call("disconnect", &values).await.expect(424).json();
    assert_eq!(
        (&refused["code"], &refused["retryable"]),
        (&json!("upstream_failed"), &json!(true))
    );
    assert!(
        refused["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("force")),
        "{refused}"
    );
    assert_eq!(api.show(&values).await, before);
    assert_eq!(api.history(&values).await, entries);
    assert!(is_taken(api, &refresh).await, "the grant is still good");

    let mut sequence = Value::Null;
    for _ in 0..2 {
        let gone = api.call("disconnect", &values).await.expect(200).json();
        assert_eq!(gone["status"], "disconnected");
        assert_eq!(gone["next_refresh_at"], Value::Null);
        let row = row().await;
        for secret in ["key", "tokens", "previous", "consent"] {
            assert_eq!(row[secret], Value::Null, "{secret} is still there");
        }
        assert!(
            sequence.is_null() || sequence == row["sequence"],
            "it is told once"
        );
        sequence = row["sequence"].clone();
    }
    assert!(
        !is_taken(api, &refresh).await,
        "the grant was not given back"
    );
    let ledger = api.ledger(&values, &order).await.expect("the ledger stays");
    assert_eq!(ledger["state"], "synced");
    let happened = api.happened(&values).await;
    assert_eq!(happened, ["imported", "disconnected"], "the history stays");
    conflict(api, "pause", &values, "disconnected").await;
    conflict(api, "resume", &values, "disconnected").await;
    conflict(api, "setSettings", &values, "disconnected").await;

    // The same account connected again is the same connection, and what it held is known.
    let again = api.connect(&shop, &shop.account.id).await;
    assert_eq!(
        (&again["id"], &again["status"]),
        (&json!(values.connection), &json!("live"))
    );
    let next = api.sell(&shop, 2, 2000).await;
    api.until_synced(&values, &next).await;
    assert_eq!(api.receipts(&shop, &shop.account.id, &order).await, 1);

    api.fail("tokens/revoke", 1).await;
    let body = json!({ "merchant_id": shop.merchant, "force": true });
    let gone = api
        .call_with("disconnect", &values, &body)
        .await
        .expect(200)
        .json();
    assert_eq!(gone["status"], "disconnected");
    assert_eq!(row().await["key"], Value::Null);
    let last = api.history(&values).await.pop().expect("an entry");
    let detail = last["detail"].as_str().expect("words");
    assert!(detail.contains("still stands at QuickBooks"), "{detail}");
    let happened = api.happened(&values).await;
    let imported = happened.iter().filter(|what| *what == "imported");
    assert_eq!(imported.count(), 2, "{happened:?}");
}

/// Tokens and keys of other categories, brought along.
async fn imports(api: &Api<'_>) {
    let shop = api.world.shop("manage").await;
    let control = async |provider: &str, path: &str, body: Option<Value>| {
        let base = api.world.stack.urls.provider(provider).to_owned();
        api.world.control(&base, path, body).await.json()
    };
    // Accounts of this test's own, since an account belongs to one merchant.
    let accounts = [
        ("hubspot", "99000001"),
        ("stripe", "acct_1ManageTest0001"),
        ("sendgrid", "99000003"),
    ];
    for (provider, id) in accounts {
        let account = json!({ "id": id, "name": "Shop of manage", "user": id });
        control(provider, "accounts", Some(account)).await;
    }
    let granted = async |provider: &str, account: &str, member: &str| {
        let grant = control(provider, "grants", Some(json!({ "account": account }))).await;
        let token = grant[member].as_str().expect("a token").to_owned();
        api.world.secret(&token);
        token
    };
    let hubspot = granted("hubspot", accounts[0].1, "refresh_token").await;
    let stripe = granted("stripe", accounts[1].1, "access_token").await;
    let key = "SG.manage-key-0000000000.manage-secret-00000000000000000000000000000";
    api.world.secret(key);
    let new = json!({ "key": key, "account": accounts[2].1 });
    control("sendgrid", "keys", Some(new)).await;
    let mut ids = BTreeMap::new();
    for (path, account, tokens) in [
        (
            "crm/hubspot",
            accounts[0].1,
            json!({ "refresh_token": hubspot }),
        ),
        (
            "payments/stripe",
            accounts[1].1,
            json!({ "access_token": stripe }),
        ),
        (
            "email-marketing/sendgrid",
            accounts[2].1,
            json!({ "keys": { "api_key": key } }),
        ),
    ] {
        let connection = api.import(&shop, path, tokens).await;
        assert_eq!(connection["status"], "live", "{path}");
        assert_eq!(connection["tenant_id"], account, "{path}");
        let category = path.split('/').next().expect("a category");
        assert_eq!(connection["category"], category);
        ids.insert(
            category,
            connection["id"].as_str().expect("an id").to_owned(),
        );
    }
    let values = api.values(&shop, "");
    assert_eq!(api.connections(&values).await.len(), 3);

    for (path, tokens, pointer) in [
        ("accounting/quickbooks", json!({}), "#/tokens/tenant_id"),
        (
            "accounting/quickbooks",
            json!({ "tenant_id": "1" }),
            "#/tokens/refresh_token",
        ),
        ("payments/stripe", json!({}), "#/tokens/access_token"),
        (
            "email-marketing/sendgrid",
            json!({}),
            "#/tokens/keys/api_key",
        ),
        (
            "email-marketing/sendgrid",
            json!({ "keys": { "api_key": "a b" } }),
            "#/tokens/keys/api_key",
        ),
        ("crm/hubspot", json!({ "colour": "red" }), "#/tokens/colour"),
    ] {
        let address = format!("/api/v1/integrations/{path}/import");
        let body = json!({ "merchant_id": shop.merchant, "tokens": tokens });
        let reply = api.world.post(&address, &body).await;
        api.conforms(api.operation("importConnection"), &reply);
        refused_at(&format!("{path} {tokens}"), &reply, pointer);
    }
    // What the provider does not take is not ours to keep.
    let address = "/api/v1/integrations/crm/hubspot/import";
    let body = json!({ "merchant_id": shop.merchant, "tokens": { "refresh_token": "made-up" } });
    let refused = api.world.post(address, &body).await.expect(424).json();
    assert_eq!(refused["code"], "upstream_refused", "{refused}");
    assert_eq!(api.connections(&values).await.len(), 3);

    // Giving it back is seen at the provider.
    let address = format!("/api/v1/integrations/crm/{}/disconnect", ids["crm"]);
    let body = json!({ "merchant_id": shop.merchant });
    api.world.post(&address, &body).await.expect(200);
    let grants = control("hubspot", "grants", None).await;
    let grants = grants.as_array().expect("a list");
    let of_ours = grants
        .iter()
        .filter(|grant| grant["account"] == accounts[0].1);
    let alive: Vec<&Value> = of_ours
        .filter(|grant| grant["refresh_tokens"] != json!([]))
        .collect();
    assert!(alive.is_empty(), "{alive:?}");
}
