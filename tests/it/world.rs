//! What the tests share: the stack, a plain HTTP client, and a backend, a merchant and a developer
//! to play with it. No code is shared with what is tested.

use crate::providers::{Account, Provider};
use local::stack::{Stack, aws};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION};
use reqwest::{Method, Url};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long nothing may move before what is missing counts as lost. The sweep takes up what the
/// relay lost after a minute, at the next full minute.
const STANDSTILL_MAX: Duration = Duration::from_secs(150);

pub struct World {
    pub stack: Stack,
    pub http: reqwest::Client,
    /// What must never be in a log: filled by the tests as they learn it.
    pub secrets: Mutex<BTreeSet<String>>,
    /// The cookie of the browser that brought each confirmation.
    browsers: Mutex<BTreeMap<String, String>>,
    next: AtomicU64,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Where a redirect leads.
    pub fn location(&self) -> Url {
        let target = self.header(LOCATION.as_str());
        target
            .parse()
            .unwrap_or_else(|error| panic!("{error}: no redirect but {self:?}"))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

/// A merchant with an account of its own at one provider.
#[derive(Debug, Clone)]
pub struct Shop {
    pub merchant: String,
    pub provider: &'static Provider,
    pub account: Account,
}

/// One order, paid, as two events.
pub struct Sale {
    pub order: String,
    pub currency: &'static str,
    pub minor: i64,
    pub events: [Value; 2],
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "The tests are strangers to the functions' client."
    )]
    pub fn new(stack: Stack) -> World {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(40))
            .build()
            .expect("a client");
        World {
            stack,
            http,
            secrets: Mutex::default(),
            browsers: Mutex::default(),
            next: AtomicU64::new(1),
        }
    }

    /// Notes a text that no log may hold.
    pub fn secret(&self, text: &str) {
        let mut secrets = self.secrets.lock().expect("no test panics with the lock");
        secrets.insert(text.to_owned());
    }

    /// Sends one request and returns whatever is answered.
    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Reply {
        let mut request = self.http.request(method.clone(), url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let answer = request.send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{method} {url}: {error:?}"));
        Reply {
            status: answer.status().as_u16(),
            headers: answer.headers().clone(),
            body: answer.text().await.expect("the body arrives"),
        }
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.stack.platform_key)
    }

    /// The commerce backend calls the API.
    pub async fn api(&self, method: Method, path: &str, body: Option<String>) -> Reply {
        let url = format!("{}{path}", self.stack.urls.api);
        let bearer = self.bearer();
        let headers = [
            (AUTHORIZATION.as_str(), bearer.as_str()),
            (CONTENT_TYPE.as_str(), "application/json"),
        ];
        self.send(method, &url, &headers, body).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.api(Method::POST, path, Some(body.to_string())).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.api(Method::GET, path, None).await
    }

    /// A control port: posts `body`, or reads.
    pub async fn control(&self, base: &str, path: &str, body: Option<Value>) -> Reply {
        let url = format!("{base}/_control/{path}");
        match body {
            Some(body) => {
                let headers = [(CONTENT_TYPE.as_str(), "application/json")];
                self.send(Method::POST, &url, &headers, Some(body.to_string()))
                    .await
            }
            None => self.send(Method::GET, &url, &[], None).await,
        }
        .expect(200)
    }

    pub async fn quickbooks(&self, path: &str, body: Option<Value>) -> Value {
        self.control(self.stack.urls.provider("quickbooks"), path, body)
            .await
            .json()
    }

    pub async fn receiver(&self, path: &str, body: Option<Value>) -> Reply {
        self.control(&self.stack.urls.receiver, path, body).await
    }

    /// A call to the emulated AWS in the protocol of its JSON services.
    pub async fn aws(&self, service: &str, target: &str, body: Value) -> Value {
        let credential = format!(
            "AWS4-HMAC-SHA256 Credential={}/20260101/{}/{service}/aws4_request, SignedHeaders=host, Signature=0",
            aws::ACCESS_KEY,
            aws::REGION
        );
        let headers = [
            (AUTHORIZATION.as_str(), credential.as_str()),
            (CONTENT_TYPE.as_str(), "application/x-amz-json-1.0"),
            ("x-amz-target", target),
        ];
        let url = &self.stack.urls.aws;
        let reply = self
            .send(Method::POST, url, &headers, Some(body.to_string()))
            .await;
        reply.expect(200).json()
    }

    /// Messages in a queue, those in somebody's hands included.
    pub async fn queued(&self, output: &str) -> u64 {
        let url = self.stack.output(output).expect("an output");
        let body = json!({ "QueueUrl": url, "AttributeNames": ["All"] });
        let answer = self.aws("sqs", "AmazonSQS.GetQueueAttributes", body).await;
        let count = |name: &str| -> u64 {
            let text = answer["Attributes"][name].as_str().unwrap_or("0");
            text.parse().expect("a number")
        };
        count("ApproximateNumberOfMessages") + count("ApproximateNumberOfMessagesNotVisible")
    }

    /// Sends a message to a queue.
    pub async fn enqueue(&self, output: &str, message: &Value) {
        let url = self.stack.output(output).expect("an output");
        let body = json!({ "QueueUrl": url, "MessageBody": message.to_string() });
        self.aws("sqs", "AmazonSQS.SendMessage", body).await;
    }

    /// The rows of a table that `filter` lets pass (DynamoDB's filter expression with its values), by
    /// their keys; all of them without a filter.
    pub async fn rows(
        &self,
        output: &str,
        filter: Option<(&str, &Value)>,
    ) -> BTreeMap<(String, String), Value> {
        let table = self.stack.output(output).expect("an output");
        let mut request = json!({ "TableName": table, "ConsistentRead": true });
        if let Some((expression, values)) = filter {
            request["FilterExpression"] = json!(expression);
            request["ExpressionAttributeValues"] = values.clone();
        }
        let mut rows = BTreeMap::new();
        loop {
            let page = self
                .aws("dynamodb", "DynamoDB_20120810.Scan", request.clone())
                .await;
            for row in page["Items"].as_array().expect("a list") {
                let part = |name: &str| row[name]["S"].as_str().expect("a key").to_owned();
                rows.insert((part("pk"), part("sk")), row.clone());
            }
            match page.get("LastEvaluatedKey") {
                Some(key) if key.is_object() => request["ExclusiveStartKey"] = key.clone(),
                _ => return rows,
            }
        }
    }

    /// Rows of the outbox.
    pub async fn outbox(&self) -> u64 {
        let table = self.stack.output("TableOutbox").expect("an output");
        let body = json!({ "TableName": table, "Select": "COUNT", "ConsistentRead": true });
        let answer = self.aws("dynamodb", "DynamoDB_20120810.Scan", body).await;
        answer["Count"].as_u64().expect("a count")
    }

    /// The dead-letter queues that hold something.
    pub async fn dead_letters(&self) -> Vec<(String, u64)> {
        let mut found = Vec::new();
        for name in self.stack.outputs.keys() {
            if name.starts_with("Dead") {
                let count = self.queued(name).await;
                if count > 0 {
                    found.push((name.clone(), count));
                }
            }
        }
        found
    }

    /// Notes with which cookie a confirmation was brought back.
    pub fn remember_browser(&self, confirmation: &str, cookie: &str) {
        let mut browsers = self.browsers.lock().expect("no test panics here");
        browsers.insert(confirmation.to_owned(), cookie.to_owned());
    }

    pub fn browser_of(&self, confirmation: &str) -> Option<String> {
        let browsers = self.browsers.lock().expect("no test panics here");
        browsers.get(confirmation).cloned()
    }

    /// A number that no other test has.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives the receiver a secret of the developer's own, and registers an endpoint with it.
    pub async fn endpoint(&self, shop: &Shop, event_types: &[&str]) -> String {
        let secret = self.receiver_secret().await;
        self.endpoint_with(shop, event_types, &secret).await
    }

    /// Gives the receiver a secret of the developer's own.
    pub async fn receiver_secret(&self) -> String {
        use base64::Engine as _;
        let bytes: [u8; 32] = rand::random();
        let secret = format!(
            "whsec_{}",
            base64::engine::general_purpose::STANDARD.encode(bytes)
        );
        self.secret(&secret);
        self.receiver("secret", Some(json!({ "secret": secret })))
            .await;
        secret
    }

    /// Registers an endpoint with the secret that the receiver has.
    pub async fn endpoint_with(&self, shop: &Shop, event_types: &[&str], secret: &str) -> String {
        let url = format!("{}/hook", self.stack.urls.receiver);
        let wish = json!({
            "merchant_id": shop.merchant, "url": url, "event_types": event_types, "secret": secret,
        });
        let endpoint = self
            .post("/api/v1/webhooks/register", &wish)
            .await
            .expect(201);
        endpoint.json()["id"].as_str().expect("an id").to_owned()
    }

    /// The webhook-ids that the receiver verified.
    pub async fn received(&self) -> BTreeSet<String> {
        let received = self.receiver("received", None).await.json();
        let ids = received["ids"].as_array().expect("a list");
        ids.iter()
            .map(|id| id.as_str().expect("an id").to_owned())
            .collect()
    }

    /// What the books hold of one kind: for each record its documents, as currency and minor units.
    pub async fn books(&self, shop: &Shop, entity: &str) -> BTreeMap<String, Vec<(String, i64)>> {
        let path = format!("entities/{entity}?realm={}", shop.account.id);
        let all = self.quickbooks(&path, None).await;
        let mut books: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
        for document in all.as_array().expect("a list") {
            // It ends with the id of its record.
            let note = document["PrivateNote"].as_str().unwrap_or_default();
            let record = note.split_whitespace().last().unwrap_or("nobody's");
            let currency = document["CurrencyRef"]["value"].as_str().unwrap_or("USD");
            let total: Decimal = document["TotalAmt"].to_string().parse().expect("an amount");
            let minor = total * Decimal::from(10_i64.pow(decimals(currency)));
            assert!(minor.fract().is_zero(), "{total} is no {currency}");
            let amount = (currency.to_owned(), minor.to_i64().expect("not that rich"));
            books.entry(record.to_owned()).or_default().push(amount);
        }
        books
    }
}

/// Asks until `done` answers with nothing missing; what moves resets the patience. `look` returns
/// what is still missing, in words, and a number that grows with progress.
pub async fn wait<F>(what: &str, mut look: impl FnMut() -> F)
where
    F: Future<Output = (Vec<String>, usize)>,
{
    let (mut seen, mut moved) = (usize::MAX, Instant::now());
    loop {
        let (missing, progress) = look().await;
        if missing.is_empty() {
            return;
        }
        if progress != seen {
            (seen, moved) = (progress, Instant::now());
            eprintln!("  {what}: {progress} so far, {} missing", missing.len());
        }
        assert!(
            moved.elapsed() < STANDSTILL_MAX,
            "{what}: nothing moved for {STANDSTILL_MAX:?}; missing: {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

pub fn query(url: &Url, name: &str) -> String {
    let found = url.query_pairs().find(|(key, _)| key == name);
    found
        .unwrap_or_else(|| panic!("{name} is not in {url}"))
        .1
        .into_owned()
}

pub fn decimals(currency: &str) -> u32 {
    if currency == "JPY" { 0 } else { 2 }
}

/// The body of an order of one line.
pub fn order(id: &str, version: u64, minor: i64, currency: &str) -> Value {
    let money = json!({ "amount": minor, "currency": currency });
    let price = Decimal::new(minor, decimals(currency)).to_string();
    json!({
        "id": id, "version": version, "number": id, "currency": currency,
        "placed_at": "2026-02-01T10:00:00Z",
        "customer": {
            "id": format!("c-{id}"), "name": format!("Customer of {id}"),
            "email": format!("{id}@example.org"),
        },
        "lines": [{
            "sku": "LAMP-01", "name": "Desk lamp", "quantity": "1", "unit_price": price,
            "total": money,
        }],
        "total": money,
    })
}

pub fn event(shop: &Shop, id: &str, kind: &str, data: Value) -> Value {
    json!({
        "id": id, "type": kind, "merchant_id": shop.merchant,
        "occurred_at": "2026-02-01T10:00:00Z", "data": data,
    })
}

pub fn payment(id: &str, order: &str, minor: i64, currency: &str) -> Value {
    json!({
        "id": id, "order_id": order, "outcome": "succeeded", "method": "card",
        "amount": { "amount": minor, "currency": currency },
        "processed_at": "2026-02-01T10:01:00Z",
    })
}

pub fn refund(id: &str, order: &str, minor: i64, currency: &str) -> Value {
    json!({
        "id": id, "order_id": order, "refunded_at": "2026-02-02T10:00:00Z",
        "amount": { "amount": minor, "currency": currency },
    })
}

/// An order and its payment; its ids begin with the merchant's, which no other test has.
pub fn sale(shop: &Shop, number: usize, minor: i64, currency: &'static str) -> Sale {
    let order_id = format!("{}-o{number}", shop.merchant);
    let created = event(
        shop,
        &format!("{order_id}-created"),
        "order.created",
        order(&order_id, 1, minor, currency),
    );
    let paid = event(
        shop,
        &format!("{order_id}-paid"),
        "payment.processed",
        payment(&format!("{order_id}-p"), &order_id, minor, currency),
    );
    Sale {
        order: order_id,
        currency,
        minor,
        events: [created, paid],
    }
}
