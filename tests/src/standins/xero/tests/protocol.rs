//! Tokens, keys, limits, faults, and what outlives a kill.

use std::io::Write as _;
use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::{Caller, TENANT, control, invoice, payment, read, send};
use crate::standins::oauth::{Options, Vendor};
use crate::standins::{Clock, Lost};

#[tokio::test]
async fn who_may_ask() {
    let caller = Caller::stocked().await;
    let narrow = Caller::grant(&caller.vendor, "accounting.contacts.read").await;
    let expired = Caller::grant(&caller.vendor, super::SCOPE).await;
    caller.vendor.advance(Duration::from_secs(1800));
    let fresh = Caller::grant(&caller.vendor, super::SCOPE).await;
    let narrow_late = Caller::grant(&caller.vendor, "accounting.contacts.read").await;
    let other = "5a1e0000-0000-4000-8000-000000000003";
    let rows = [
        ("GET", "Contacts", fresh.as_str(), TENANT, 200, ""),
        ("GET", "Contacts", narrow_late.as_str(), TENANT, 200, ""),
        (
            "GET",
            "Contacts",
            narrow.as_str(),
            TENANT,
            401,
            "TokenExpired",
        ),
        (
            "PUT",
            "Contacts",
            narrow_late.as_str(),
            TENANT,
            401,
            "AuthorizationUnsuccessful",
        ),
        (
            "GET",
            "Invoices",
            narrow_late.as_str(),
            TENANT,
            401,
            "AuthorizationUnsuccessful",
        ),
        (
            "GET",
            "Contacts",
            expired.as_str(),
            TENANT,
            401,
            "TokenExpired",
        ),
        (
            "GET",
            "Contacts",
            "nonsense",
            TENANT,
            401,
            "AuthenticationUnsuccessful",
        ),
        (
            "GET",
            "Contacts",
            fresh.as_str(),
            "",
            403,
            "AuthenticationUnsuccessful",
        ),
        (
            "GET",
            "Contacts",
            fresh.as_str(),
            other,
            403,
            "AuthenticationUnsuccessful",
        ),
    ];
    for (method, path, token, tenant, status, detail) in rows {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(Some(("xero-tenant-id", tenant)).filter(|_| !tenant.is_empty()));
        let target = format!("/api.xro/2.0/{path}");
        let answer = send(
            &caller.vendor,
            method.parse().unwrap(),
            &target,
            &headers,
            "{}",
        )
        .await
        .unwrap();
        let body = read(&answer);
        assert_eq!(answer.status(), status, "{method} {path} {tenant}: {body}");
        assert!(
            body["Detail"]
                .as_str()
                .unwrap_or_default()
                .starts_with(detail),
            "{body}"
        );
        assert_eq!(
            answer.headers().contains_key("www-authenticate"),
            status == 401
        );
    }
}

#[tokio::test]
async fn what_there_is_not() {
    let caller = Caller::stocked().await;
    for path in [
        "Invoices/S-99",
        "Budgets",
        "Contacts/c-99/History",
        "Nonsense",
        "Payments/x",
        "",
    ] {
        let answer = caller.call_with(Method::GET, path, &[], &Value::Null).await;
        assert_eq!(answer.status(), 404, "{path}");
        assert!(String::from_utf8_lossy(answer.body()).contains("cannot be found"));
    }
    let rows = [
        ("PUT", "Invoices", "not JSON", 14),
        ("PUT", "Invoices", "[]", 14),
        ("PUT", "Invoices", "{\"Invoices\": []}", 14),
        ("PUT", "Invoices", "{\"Invoices\": {}}", 14),
        ("PUT", "Accounts", "{\"Accounts\": [{}, {}]}", 14),
        ("GET", "Invoices?where=Status~1", "", 16),
        ("GET", "Invoices?where=Nonsense(1)", "", 16),
        ("GET", "Invoices?page=1&pageSize=1001", "", 16),
        ("GET", "Invoices?page=one", "", 16),
    ];
    for (method, path, body, number) in rows {
        let bearer = format!("Bearer {}", caller.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("xero-tenant-id", TENANT),
        ];
        let target = format!("/api.xro/2.0/{path}");
        let answer = send(
            &caller.vendor,
            method.parse().unwrap(),
            &target,
            &headers,
            body,
        )
        .await
        .unwrap();
        assert_eq!(
            (answer.status().as_u16(), &read(&answer)["ErrorNumber"]),
            (400, &json!(number)),
            "{path}"
        );
    }
    let many = vec!["5a1e0000-0000-4000-8000-000000000001"; 60].join(",");
    let answer = caller
        .call_with(
            Method::GET,
            &format!("Invoices?IDs={many}"),
            &[],
            &Value::Null,
        )
        .await;
    assert_eq!(answer.status(), 414);
}

/// Comparisons that integrations make, and the numbers of invoices that they find.
#[tokio::test]
async fn filters() {
    let caller = Caller::stocked().await;
    let rows = [
        ("where=Status==\"PAID\"", vec!["S-3"]),
        (
            "where=Status=\"PAID\" OR Status=\"DRAFT\"",
            vec!["S-2", "S-3"],
        ),
        (
            "where=(Status==\"PAID\" OR Status==\"DRAFT\") AND AmountDue>0",
            vec!["S-2"],
        ),
        (
            "where=Type==\"ACCREC\" %26%26 AmountDue < 20.01 %26%26 AmountDue != 0",
            vec!["S-4"],
        ),
        (
            "where=InvoiceNumber.StartsWith(\"s-\") AND InvoiceNumber.EndsWith(\"1\")",
            vec!["S-1"],
        ),
        (
            "where=Contact.Name.Contains(\"byron\") AND Status==\"VOIDED\"",
            vec!["S-5"],
        ),
        (
            "where=Date>=DateTime(2026,1,1) AND Status==\"DRAFT\"",
            vec!["S-2"],
        ),
        ("where=Date<DateTime(2026,1,1)", vec![]),
        ("where=FullyPaidOnDate!=null", vec!["S-3"]),
        ("Statuses=PAID,VOIDED", vec!["S-3", "S-5"]),
        ("InvoiceNumbers=S-1,S-4,S-9", vec!["S-1", "S-4"]),
        ("searchTerm=s-4", vec!["S-4"]),
        (
            "order=AmountDue DESC&Statuses=AUTHORISED,PAID",
            vec!["S-1", "S-4", "S-3"],
        ),
        ("createdByMyApp=true&Statuses=PAID", vec!["S-3"]),
    ];
    for (query, expected) in rows {
        let query = query
            .replace(' ', "%20")
            .replace('"', "%22")
            .replace('<', "%3C")
            .replace('>', "%3E");
        let found = caller.get(&format!("Invoices?{query}")).await;
        let mut found: Vec<&str> = found
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["InvoiceNumber"].as_str().unwrap())
            .collect();
        if !query.starts_with("order") {
            found.sort_unstable();
        }
        assert_eq!(found, expected, "{query}");
    }
}

async fn keyed(
    caller: &Caller,
    method: Method,
    path: &str,
    key: &str,
    body: &Value,
) -> (u16, String) {
    let answer = caller
        .call_with(method, path, &[("idempotency-key", key)], body)
        .await;
    (
        answer.status().as_u16(),
        String::from_utf8_lossy(answer.body()).into_owned(),
    )
}

#[tokio::test]
async fn idempotency_keys() {
    let caller = Caller::stocked().await;
    let body = json!({"Payments": [payment("S-1", 4.0)]});
    let first = keyed(&caller, Method::PUT, "Payments", "k", &body).await;
    assert_eq!(first.0, 200);
    caller.vendor.advance(Duration::from_secs(359));
    assert_eq!(
        keyed(&caller, Method::PUT, "Payments", "k", &body).await,
        first
    );
    assert_eq!(caller.get("Invoices/S-1").await[0]["AmountPaid"], 4.0);
    let other = json!({"Payments": [payment("S-1", 5.0)]});
    for (method, path, body) in [
        (Method::PUT, "Payments", &other),
        (Method::POST, "Payments", &body),
        (Method::PUT, "Payments?summarizeErrors=false", &body),
    ] {
        let (status, told) = keyed(&caller, method, path, "k", body).await;
        assert!(
            status == 400 && told.contains("used with a different request"),
            "{told}"
        );
    }
    // The answer was kept for six minutes, counted from the first.
    caller.vendor.advance(Duration::from_secs(1));
    let late = keyed(&caller, Method::PUT, "Payments", "k", &body).await;
    assert!(late.0 == 200 && late.1 != first.1);
    assert_eq!(caller.get("Invoices/S-1").await[0]["AmountPaid"], 8.0);
    // A refusal is repeated as well, whatever has changed meanwhile.
    let much = json!({"Payments": [payment("S-2", 1.0)]});
    let refused = keyed(&caller, Method::PUT, "Payments", "k2", &much).await;
    assert_eq!(refused.0, 400);
    caller
        .save(
            "Invoices",
            json!({"Type": "ACCREC", "InvoiceNumber": "S-2", "Status": "AUTHORISED"}),
        )
        .await;
    assert_eq!(
        keyed(&caller, Method::PUT, "Payments", "k2", &much).await,
        refused
    );
    assert_eq!(
        keyed(&caller, Method::PUT, "Payments", "k3", &much).await.0,
        200
    );
    let name = |name: &str| json!({"Contacts": [{"Name": name}]});
    assert_eq!(
        keyed(
            &caller,
            Method::PUT,
            "Contacts",
            &"x".repeat(128),
            &name("a")
        )
        .await
        .0,
        200
    );
    assert_eq!(
        keyed(
            &caller,
            Method::PUT,
            "Contacts",
            &"x".repeat(129),
            &name("b")
        )
        .await
        .0,
        400
    );
}

#[tokio::test]
async fn a_failure_inside_the_vendor_is_kept_under_its_key() {
    for (status, kept) in [(500, true), (503, false)] {
        let caller = Caller::stocked().await;
        let rule = json!({"kind": "status_before_effect", "status": status});
        control(&caller.vendor, Method::POST, "faults", rule).await;
        let body = json!({"Contacts": [{"Name": "Alan Turing"}]});
        assert_eq!(
            keyed(&caller, Method::PUT, "Contacts", "k", &body).await.0,
            status
        );
        let again = keyed(&caller, Method::PUT, "Contacts", "k", &body).await.0;
        assert_eq!(again == 500, kept, "{status}: {again}");
        caller.vendor.advance(Duration::from_secs(360));
        let late = keyed(&caller, Method::PUT, "Contacts", "k", &body).await.0;
        assert_eq!(late, if kept { 200 } else { 400 });
    }
}

#[tokio::test]
async fn faults_before_and_after_the_effect() {
    for (kind, effect) in [
        ("status_before_effect", false),
        ("status_after_effect", true),
        ("timeout_before_effect", false),
        ("timeout_after_effect", true),
        ("reset_after_effect", true),
        ("reset_before_effect", false),
        ("truncated_body", true),
        ("html_body", true),
        ("empty_body", true),
        ("throttle", false),
    ] {
        let caller = Caller::stocked().await;
        let rule = json!({"kind": kind, "match": {"path_contains": "/Payments"}});
        control(&caller.vendor, Method::POST, "faults", rule).await;
        let bearer = format!("Bearer {}", caller.token);
        let headers = [
            ("authorization", bearer.as_str()),
            ("xero-tenant-id", TENANT),
        ];
        let body = json!({"Payments": [payment("S-1", 24.0)]}).to_string();
        let met = send(
            &caller.vendor,
            Method::PUT,
            "/api.xro/2.0/Payments",
            &headers,
            &body,
        )
        .await;
        match (&met, kind) {
            (Err(Lost::TimedOut | Lost::Reset | Lost::Truncated { .. }), _) => {}
            (Ok(answer), "html_body" | "empty_body") => assert_eq!(answer.status(), 200),
            (Ok(answer), "throttle") => {
                assert_eq!(answer.headers()["x-rate-limit-problem"], "minute")
            }
            (Ok(answer), _) => assert_eq!(answer.status(), 503),
        }
        let paid = caller.get("Invoices/S-1").await[0]["Status"] == "PAID";
        assert_eq!(paid, effect, "{kind}");
    }
}

async fn limited(settings: Value) -> Caller {
    let caller = Caller::stocked().await;
    control(&caller.vendor, Method::POST, "limits", settings).await;
    caller
}

async fn ask(caller: &Caller) -> (u16, Option<String>, Option<u64>) {
    let answer = caller
        .call_with(Method::GET, "Organisation", &[], &Value::Null)
        .await;
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
    let wait = header("retry-after").map(|wait| wait.parse().unwrap());
    (
        answer.status().as_u16(),
        header("x-rate-limit-problem"),
        wait,
    )
}

/// For each limit: how many calls are let in at once, what the next is told, and that it is let in
/// after exactly the time that it was told.
#[tokio::test]
async fn limits() {
    let rows = [
        (json!({"enabled": true}), 60, "minute", Some(60)),
        (
            json!({"enabled": true, "per_minute": 3}),
            3,
            "minute",
            Some(60),
        ),
        (
            json!({"enabled": true, "per_day": 7}),
            7,
            "day",
            Some(86_400),
        ),
        (
            json!({"enabled": true, "app_per_minute": 9}),
            9,
            "appminute",
            Some(60),
        ),
        (
            json!({"enabled": true, "latency_ms": 1000}),
            5,
            "concurrent",
            None,
        ),
    ];
    for (settings, let_in, problem, wait) in rows {
        let caller = limited(settings.clone()).await;
        for _ in 0..let_in {
            assert_eq!(ask(&caller).await, (200, None, None), "{settings}");
        }
        assert_eq!(
            ask(&caller).await,
            (429, Some(problem.to_owned()), wait),
            "{settings}"
        );
        let wait = Duration::from_secs(wait.unwrap_or(1));
        caller.vendor.advance(wait - Duration::from_secs(1));
        // The token may have died meanwhile.
        let token = Caller::grant(&caller.vendor, super::SCOPE).await;
        let vendor = caller.vendor;
        let caller = Caller { vendor, token };
        assert_eq!(ask(&caller).await.0, 429, "{settings}");
        caller.vendor.advance(Duration::from_secs(1));
        assert_eq!(ask(&caller).await.0, 200, "{settings}");
    }
    let caller = limited(json!({"enabled": true})).await;
    let answer = caller
        .call_with(Method::GET, "Organisation", &[], &Value::Null)
        .await;
    for (name, left) in [
        ("x-minlimit-remaining", "59"),
        ("x-daylimit-remaining", "4999"),
        ("x-appminlimit-remaining", "9999"),
    ] {
        assert_eq!(answer.headers()[name], left);
    }
    let caller = limited(json!({})).await;
    for _ in 0..70 {
        assert_eq!(ask(&caller).await.0, 200);
    }
}

#[tokio::test]
async fn books_outlive_a_kill() {
    let folder = std::env::temp_dir().join(format!("xero-{}", rand::random::<u64>()));
    let open = || {
        let at = chrono::DateTime::from_timestamp(1_767_225_600, 0).unwrap();
        let options = Options {
            state: Some(folder.clone()),
            clock: Clock::Fixed(at),
            seed: 0,
        };
        Vendor::new("xero", options).unwrap()
    };
    let settings = json!({"tenant": TENANT, "country": "GB"});
    let caller = Caller::of(open(), settings).await;
    caller
        .save(
            "Contacts",
            json!({"Name": "Ada Byron", "ContactNumber": "c-1"}),
        )
        .await;
    caller.save("Items", json!({"Code": "A"})).await;
    caller.save("Items", json!({"Code": "B"})).await;
    let body = json!({"Invoices": [invoice("S-1", "AUTHORISED")]});
    let first = keyed(&caller, Method::PUT, "Invoices", "k", &body).await;
    caller.save("Payments", payment("S-1", 24.0)).await;
    caller.call("DELETE", "Items/A", &Value::Null).await;
    let before = caller.get("Invoices/S-1").await;
    let token = caller.token.clone();
    drop(caller);
    let mut journal = std::fs::OpenOptions::new()
        .append(true)
        .open(folder.join("xero.jsonl"))
        .unwrap();
    journal.write_all(b"[{\"change\":\"reset\"}").unwrap();
    for _ in 0..2 {
        let caller = Caller {
            vendor: open(),
            token: token.clone(),
        };
        assert_eq!(caller.get("Invoices/S-1").await, before);
        assert_eq!(
            keyed(&caller, Method::PUT, "Invoices", "k", &body).await,
            first
        );
        assert_eq!(caller.get("Items").await.as_array().map(Vec::len), Some(1));
    }
    // What was deleted gives its id to nobody else.
    let caller = Caller {
        vendor: open(),
        token,
    };
    let kept = caller.get("Items/B").await[0]["ItemID"].clone();
    let made = caller.save("Items", json!({"Code": "C"})).await;
    assert_ne!(made["ItemID"], kept);
    let accounts = caller.get("Accounts").await;
    let mut accounts = accounts.as_array().unwrap().iter();
    assert!(accounts.all(|one| one["AccountID"] != made["ItemID"]));
    std::fs::remove_dir_all(folder).unwrap();
}
