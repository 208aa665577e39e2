//! The rules, driven in process.

mod books;
mod money;
mod protocol;
mod rules;
mod webhooks;

use axum::http::{Method, Request, Response};
use chrono::DateTime;
use serde_json::{Value, json};

use crate::standins::oauth::{Options, Vendor};
use crate::standins::{Clock, Lost};

const TENANT: &str = "5a1e0000-0000-4000-8000-0000000000aa";
const SCOPE: &str = "offline_access accounting.contacts accounting.invoices accounting.payments accounting.settings accounting.banktransactions";

/// A connected caller with a clock that stands still at 2026-01-01.
struct Caller {
    vendor: Vendor,
    token: String,
}

fn vendor() -> Vendor {
    let at = DateTime::from_timestamp(1_767_225_600, 0).expect("a time");
    let options = Options {
        clock: Clock::Fixed(at),
        ..Options::default()
    };
    Vendor::new("xero", options).expect("a vendor")
}

async fn send(
    vendor: &Vendor,
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
    serde_json::from_slice(response.body()).unwrap_or(Value::Null)
}

async fn control(vendor: &Vendor, method: Method, path: &str, body: Value) -> Value {
    let target = format!("/_control/{path}");
    let text = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let answer = send(vendor, method, &target, &[], &text)
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200, "{path} {body}: {}", read(&answer));
    read(&answer)
}

impl Caller {
    /// A caller of a British organisation with pounds and euros, and books closed until yesterday.
    async fn new() -> Self {
        let settings = json!({
            "tenant": TENANT,
            "country": "GB",
            "currencies": ["EUR"],
            "period_lock_date": "2025-12-31",
        });
        Self::of(vendor(), settings).await
    }

    async fn of(vendor: Vendor, settings: Value) -> Self {
        control(&vendor, Method::POST, "organisations", settings).await;
        let token = Self::grant(&vendor, SCOPE).await;
        Self { vendor, token }
    }

    async fn grant(vendor: &Vendor, scope: &str) -> String {
        let grant = json!({"account": TENANT, "scope": scope});
        let grant = control(vendor, Method::POST, "grants", grant).await;
        grant["access_token"].as_str().expect("a token").to_owned()
    }

    async fn call_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Response<Vec<u8>> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![
            ("authorization", bearer.as_str()),
            ("xero-tenant-id", TENANT),
        ];
        all.extend(headers);
        let target = format!("/api.xro/2.0/{path}");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        send(&self.vendor, method, &target, &all, &body)
            .await
            .expect("an answer")
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let answer = self.call_with(method, path, &[], body).await;
        (answer.status().as_u16(), read(&answer))
    }

    /// Makes or changes one element, which has to be good.
    async fn save(&self, path: &str, element: Value) -> Value {
        let plural = path.split(['/', '?']).next().unwrap_or_default();
        let (status, mut answer) = self.call("POST", path, &json!({plural: [element]})).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer[plural][0].take()
    }

    async fn get(&self, path: &str) -> Value {
        let plural = path.split(['/', '?']).next().unwrap_or_default().to_owned();
        let (status, mut answer) = self.call("GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer[plural].take()
    }

    /// What every test may find: contacts `c-1` and, archived, `c-2`; item MUG; invoices S-1
    /// (approved, 24.00), S-2 (draft), S-3 (paid), S-4 (partly paid), S-5 (void); credit notes CN-1
    /// (approved, 12.00) and CN-2 (draft); an archived account 299.
    async fn stocked() -> Self {
        let caller = Self::new().await;
        caller
            .save(
                "Contacts",
                json!({"Name": "Ada Byron", "ContactNumber": "c-1", "AccountNumber": "a-1"}),
            )
            .await;
        caller
            .save(
                "Contacts",
                json!({"Name": "Charles Babbage", "ContactNumber": "c-2"}),
            )
            .await;
        caller
            .save(
                "Contacts",
                json!({"Name": "Grace Hopper", "ContactNumber": "c-3"}),
            )
            .await;
        control(
            &caller.vendor,
            Method::DELETE,
            &format!("entities/Contacts/c-2?tenant={TENANT}"),
            Value::Null,
        )
        .await;
        let sales = json!({"UnitPrice": 10.0, "AccountCode": "200", "TaxType": "OUTPUT2"});
        caller
            .save(
                "Items",
                json!({"Code": "MUG", "Name": "Mug", "SalesDetails": sales}),
            )
            .await;
        for (number, status) in [
            ("S-1", "AUTHORISED"),
            ("S-2", "DRAFT"),
            ("S-3", "AUTHORISED"),
            ("S-4", "AUTHORISED"),
            ("S-5", "AUTHORISED"),
        ] {
            caller.save("Invoices", invoice(number, status)).await;
        }
        for (number, paid) in [("S-3", 24.0), ("S-4", 4.0)] {
            caller.save("Payments", payment(number, paid)).await;
        }
        caller
            .save(
                "Invoices",
                json!({"InvoiceNumber": "S-5", "Type": "ACCREC", "Status": "VOIDED"}),
            )
            .await;
        for (number, status) in [("CN-1", "AUTHORISED"), ("CN-2", "DRAFT")] {
            caller
                .save("CreditNotes", credit_note(number, status))
                .await;
        }
        let old = json!({"Code": "299", "Name": "Old sales", "Type": "REVENUE"});
        let (status, made) = caller.call("PUT", "Accounts", &old).await;
        assert_eq!(status, 200, "{made}");
        let id = made["Accounts"][0]["AccountID"]
            .as_str()
            .expect("an id")
            .to_owned();
        caller
            .save(&format!("Accounts/{id}"), json!({"Status": "ARCHIVED"}))
            .await;
        caller
    }
}

/// Two mugs at 10.00 and VAT of 20 %.
fn invoice(number: &str, status: &str) -> Value {
    json!({
        "Type": "ACCREC",
        "Contact": {"ContactNumber": "c-1"},
        "Date": "2026-01-01",
        "DueDate": "2026-01-01",
        "InvoiceNumber": number,
        "Status": status,
        "LineItems": [{"Description": "Mug", "Quantity": 2, "UnitAmount": 10, "AccountCode": "200", "TaxType": "OUTPUT2"}],
    })
}

/// One mug back.
fn credit_note(number: &str, status: &str) -> Value {
    json!({
        "Type": "ACCRECCREDIT",
        "Contact": {"ContactNumber": "c-1"},
        "Date": "2026-01-01",
        "CreditNoteNumber": number,
        "Status": status,
        "LineItems": [{"Description": "Mug", "Quantity": 1, "UnitAmount": 10, "AccountCode": "200", "TaxType": "OUTPUT2"}],
    })
}

fn payment(invoice: &str, amount: f64) -> Value {
    json!({
        "Invoice": {"InvoiceNumber": invoice},
        "Account": {"Code": "090"},
        "Date": "2026-01-01",
        "Amount": amount,
    })
}

/// `base` with other fields.
fn with(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().expect("fields") {
        if value.is_null() {
            base.as_object_mut().expect("fields").remove(name);
        } else {
            base[name] = value.clone();
        }
    }
    base
}
