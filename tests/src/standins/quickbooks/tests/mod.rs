//! The rules, driven in process.

mod books;
mod oauth;
mod wire;

use axum::http::{Method, Request, Response};
use chrono::DateTime;
use serde_json::{Value, json};

use super::{Clock, DEFAULT_REALM, Lost, Options, Quickbooks};

/// A connected caller with a clock that stands still.
struct Caller {
    vendor: Quickbooks,
    realm: String,
    token: String,
}

fn vendor() -> Quickbooks {
    let at = DateTime::from_timestamp(1_767_225_600, 0).expect("a time");
    Quickbooks::new(Options {
        clock: Clock::Fixed(at),
        ..Options::default()
    })
    .expect("a vendor")
}

async fn send(
    vendor: &Quickbooks,
    method: Method,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response<Vec<u8>>, Lost> {
    let mut request = Request::builder().method(method).uri(target);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(body.as_bytes().to_vec()).expect("a request");
    vendor.handle(request).await
}

fn read(response: &Response<Vec<u8>>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

async fn control(vendor: &Quickbooks, method: Method, path: &str, body: Value) -> Value {
    let target = format!("/_control/{path}");
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = send(vendor, method, &target, &[], &body)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200, "{path}: {:?}", read(&answer));
    read(&answer)
}

impl Caller {
    async fn new() -> Self {
        Self::of(vendor(), DEFAULT_REALM).await
    }

    /// A caller of a company that is made with these settings.
    async fn with(settings: Value) -> Self {
        let vendor = vendor();
        let realm = settings["realm"]
            .as_str()
            .unwrap_or(DEFAULT_REALM)
            .to_owned();
        control(&vendor, Method::POST, "realms", settings).await;
        Self::of(vendor, &realm).await
    }

    async fn of(vendor: Quickbooks, realm: &str) -> Self {
        let answer = control(&vendor, Method::POST, "grants", json!({"realm": realm})).await;
        let token = answer["access_token"].as_str().expect("a token").to_owned();
        Self {
            vendor,
            realm: realm.to_owned(),
            token,
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: &str,
    ) -> Result<Response<Vec<u8>>, Lost> {
        let target = format!("/v3/company/{}/{path}", self.realm);
        let bearer = format!("Bearer {}", self.token);
        send(
            &self.vendor,
            method,
            &target,
            &[("authorization", &bearer)],
            body,
        )
        .await
    }

    /// Posts and answers the body, whatever its status.
    async fn post(&self, path: &str, body: Value) -> Value {
        read(
            &self
                .call(Method::POST, path, &body.to_string())
                .await
                .expect("an answer"),
        )
    }

    /// Creates or updates and answers the entity.
    async fn save(&self, entity: &str, body: Value) -> Value {
        let mut answer = self.post(&entity.to_lowercase(), body).await;
        assert!(answer.get("Fault").is_none(), "{entity}: {answer}");
        answer[entity].take()
    }

    /// The number of the fault that a write meets.
    async fn refused(&self, path: &str, body: Value) -> String {
        let answer = self
            .call(Method::POST, path, &body.to_string())
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 400, "{:?}", read(&answer));
        code(&read(&answer))
    }

    async fn query(&self, statement: &str) -> Value {
        read(
            &self
                .call(Method::POST, "query", statement)
                .await
                .expect("an answer"),
        )
    }

    async fn found(&self, entity: &str, statement: &str, field: &str) -> Vec<String> {
        let answer = self.query(statement).await;
        assert!(answer.get("Fault").is_none(), "{answer}");
        answer["QueryResponse"][entity]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one[field].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    async fn account(&self, name: &str) -> Value {
        let statement = format!("select * from Account where Name = '{name}'");
        let answer = self.query(&statement).await;
        json!({"value": answer["QueryResponse"]["Account"][0]["Id"]})
    }

    async fn item(&self, name: &str) -> Value {
        let income = self.account("Sales of Product Income").await;
        let item = json!({"Name": name, "Type": "NonInventory", "IncomeAccountRef": income});
        self.save("Item", item).await
    }

    async fn customer(&self, name: &str) -> Value {
        self.save("Customer", json!({"DisplayName": name})).await
    }

    /// A receipt over 2 × 10.29 for customer and item of these ids.
    fn receipt(customer: &Value, item: &Value) -> Value {
        json!({
            "CustomerRef": {"value": customer["Id"]},
            "CurrencyRef": {"value": "USD"},
            "DocNumber": "1001",
            "Line": [line(&item["Id"], "2", "10.29", "20.58", "TAX")],
            "TxnTaxDetail": {"TotalTax": 1.7},
        })
    }
}

fn line(item: &Value, quantity: &str, price: &str, amount: &str, tax: &str) -> Value {
    let number = |text: &str| text.parse::<serde_json::Number>().expect("a number");
    json!({
        "Amount": number(amount),
        "DetailType": "SalesItemLineDetail",
        "SalesItemLineDetail": {
            "ItemRef": {"value": item},
            "Qty": number(quantity),
            "UnitPrice": number(price),
            "TaxCodeRef": {"value": tax},
        },
    })
}

fn code(answer: &Value) -> String {
    answer["Fault"]["Error"][0]["code"]
        .as_str()
        .unwrap_or_else(|| panic!("no fault in {answer}"))
        .to_owned()
}
