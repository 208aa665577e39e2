use std::fs;
use std::time::Duration;

use axum::http::Method;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{Caller, code, control, read};
use crate::standins::quickbooks::{Clock, DEFAULT_REALM, Lost, Options, Quickbooks};

#[tokio::test]
async fn queries() {
    let caller = Caller::new().await;
    for name in ["Ada", "Bob", "O'Neil", "Zoë"] {
        caller.customer(name).await;
    }
    for (rest, expected) in [
        ("where DisplayName = 'O\\'Neil'", vec!["O'Neil"]),
        (
            "where DisplayName IN ('ada', 'Zoë', 'nobody')",
            vec!["Ada", "Zoë"],
        ),
        ("where DisplayName LIKE '%o%'", vec!["Bob", "O'Neil", "Zoë"]),
        ("where DisplayName LIKE 'b_b'", vec![]),
        (
            "where DisplayName > 'Ada' and DisplayName <= 'Bob'",
            vec!["Bob"],
        ),
        ("where Id >= '3'", vec!["O'Neil", "Zoë"]),
        (
            "where Active = true orderby DisplayName desc startposition 2 maxresults 2",
            vec!["O'Neil", "Bob"],
        ),
        (
            "where MetaData.LastUpdatedTime > '2030-01-01T00:00:00Z'",
            vec![],
        ),
        (
            "where MetaData.CreateTime = '2026-01-01T01:00:00+01:00'",
            vec!["Ada", "Bob", "O'Neil", "Zoë"],
        ),
    ] {
        let statement = format!("SELECT * FROM Customer {rest}");
        assert_eq!(
            caller.found("Customer", &statement, "DisplayName").await,
            expected,
            "{rest}"
        );
    }
    let count = caller.query("select count(*) from customer").await;
    assert_eq!(count["QueryResponse"], json!({"totalCount": 4}));
    let none = caller.query("select * from Invoice").await;
    assert_eq!(none["QueryResponse"], json!({}));
    let some = caller
        .query("select DisplayName from Customer maxresults 1")
        .await;
    let mut one = some["QueryResponse"]["Customer"][0].clone();
    one.as_object_mut().expect("an object").remove("domain");
    assert_eq!(
        one,
        json!({"Id": "1", "sparse": true, "DisplayName": "Ada"})
    );
    let home = "select * from CompanyInfo";
    assert_eq!(caller.found("CompanyInfo", home, "Country").await, ["US"]);
}

#[tokio::test]
async fn queries_that_cannot_be() {
    let caller = Caller::new().await;
    for (statement, expected) in [
        ("select", "4000"),
        ("update Customer set x = 1", "4000"),
        (
            "select * from Customer where DisplayName = 'a' or Id = '1'",
            "4000",
        ),
        ("select * from Customer where DisplayName = 'a", "4000"),
        ("select * from Customer where DisplayName = Ada", "4000"),
        ("select * from Customer limit 1", "4000"),
        ("select * from Nothing", "4001"),
        ("select * from Customer where Notes = 'a'", "4001"),
        ("select * from Payment where DocNumber = 'a'", "4001"),
        ("select * from Customer maxresults 1001", "4001"),
        ("select * from Customer startposition 0", "4001"),
        ("select * from SalesReceipt where TxnDate > 'soon'", "4001"),
    ] {
        assert_eq!(
            code(&caller.query(statement).await),
            expected,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn a_page_holds_a_hundred_unless_more_is_asked() {
    let caller = Caller::new().await;
    for number in 0..120 {
        caller.customer(&format!("c{number}")).await;
    }
    assert_eq!(
        caller
            .found("Customer", "select * from Customer", "Id")
            .await
            .len(),
        100
    );
    let all = "select * from Customer maxresults 1000";
    assert_eq!(caller.found("Customer", all, "Id").await.len(), 120);
}

#[tokio::test]
async fn batch_items_stand_alone() {
    let caller = Caller::new().await;
    let item = |number: usize, name: &str| json!({"bId": number.to_string(), "operation": "create", "Customer": {"DisplayName": name}});
    let answer = caller
        .post(
            "batch",
            json!({"BatchItemRequest": [
                item(1, "Ada"),
                item(2, "ada"),
                {"bId": "3", "Query": "select count(*) from Customer"},
                {"bId": "4", "operation": "update", "Customer": {"DisplayName": "x"}},
                {"bId": "5", "operation": "create", "Nothing": {}},
            ]}),
        )
        .await;
    let answers = answer["BatchItemResponse"].as_array().expect("a list");
    assert_eq!(answers[0]["Customer"]["DisplayName"], "Ada");
    assert_eq!(code(&answers[1]), "6240");
    assert_eq!(answers[2]["QueryResponse"]["totalCount"], 1);
    assert_eq!(code(&answers[3]), "2020");
    assert_eq!(code(&answers[4]), "2000");
    assert_eq!(answers[4]["bId"], "5");
    let many: Vec<Value> = (0..31).map(|number| item(number, "x")).collect();
    assert_eq!(
        caller
            .refused("batch", json!({"BatchItemRequest": many}))
            .await,
        "1040"
    );
}

#[tokio::test]
async fn a_request_id_replays_the_first_answer_of_its_company() {
    let caller = Caller::new().await;
    let first = caller
        .post("customer?requestid=r1", json!({"DisplayName": "Ada"}))
        .await;
    let again = caller
        .post("customer?requestid=r1", json!({"DisplayName": "another"}))
        .await;
    assert_eq!(first, again);
    let refused = caller
        .post("customer?requestid=r2", json!({"DisplayName": "Ada"}))
        .await;
    assert_eq!(code(&refused), "6240");
    assert_eq!(
        caller
            .post("customer?requestid=r2", json!({"DisplayName": "Eve"}))
            .await,
        refused
    );
    let long = format!("customer?requestid={}", "x".repeat(51));
    assert_eq!(
        caller.refused(&long, json!({"DisplayName": "x"})).await,
        "2130"
    );
    control(
        &caller.vendor,
        Method::POST,
        "realms",
        json!({"realm": "7"}),
    )
    .await;
    let other = Caller::of(caller.vendor.clone(), "7").await;
    let there = other
        .post("customer?requestid=r1", json!({"DisplayName": "there"}))
        .await;
    assert_eq!(there["Customer"]["DisplayName"], "there");
}

#[tokio::test]
async fn changes_name_what_was_deleted() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let sold = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    caller.vendor.advance(Duration::from_secs(60));
    caller
        .post(
            "salesreceipt?operation=delete",
            json!({"Id": sold["Id"], "SyncToken": "0"}),
        )
        .await;
    let since = "cdc?entities=Customer,SalesReceipt&changedSince=2026-01-01T00:00:30Z";
    let answer = read(
        &caller
            .call(Method::GET, since, "")
            .await
            .expect("an answer"),
    );
    let lists = &answer["CDCResponse"][0]["QueryResponse"];
    assert_eq!(lists[0], json!({}));
    assert_eq!(lists[1]["SalesReceipt"][0]["status"], "Deleted");
    assert_eq!(lists[1]["SalesReceipt"][0]["Id"], sold["Id"]);
    let old = "cdc?entities=Customer&changedSince=2025-11-01";
    let answer = caller.call(Method::GET, old, "").await.expect("an answer");
    assert_eq!(code(&read(&answer)), "2190");
}

#[tokio::test]
async fn limits_are_off_until_asked_for() {
    let caller = Caller::new().await;
    for _ in 0..20 {
        assert!(
            caller
                .call(Method::GET, "preferences", "")
                .await
                .expect("an answer")
                .status()
                == 200
        );
    }
    control(
        &caller.vendor,
        Method::POST,
        "limits",
        json!({"enabled": true}),
    )
    .await;
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let answer = caller
            .call(Method::GET, "preferences", "")
            .await
            .expect("an answer");
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            let body = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(
                body.contains("type=\"SERVICE\"") && body.contains("errorCode=003001"),
                "{body}"
            );
            assert!(!answer.headers().contains_key("retry-after"));
        }
    }
    assert_eq!(statuses[9..], [200, 429]);
    let mut batches = 0;
    for _ in 0..60 {
        caller.vendor.advance(Duration::from_millis(500));
        let answer = caller
            .call(Method::POST, "batch", "{\"BatchItemRequest\":[]}")
            .await
            .expect("an answer");
        batches += u32::from(answer.status() == 200);
    }
    assert_eq!(batches, 40);
}

#[tokio::test]
async fn faults_come_when_they_are_ordered() {
    let caller = Caller::new().await;
    let create = async |name: &str| {
        let path = format!("customer?requestid={name}");
        let body = json!({"DisplayName": name}).to_string();
        caller.call(Method::POST, &path, &body).await
    };
    let there = async |name: &str| {
        let statement = format!("select * from Customer where DisplayName = '{name}'");
        caller.found("Customer", &statement, "Id").await.len() == 1
    };
    for (kind, effect) in [
        ("status_before_effect", false),
        ("status_after_effect", true),
        ("timeout_before_effect", false),
        ("timeout_after_effect", true),
        ("reset_before_effect", false),
        ("reset", true),
        ("truncated_body", true),
        ("throttle", false),
    ] {
        let rule = json!([{"match": {"method": "POST", "path_contains": "/customer"}, "kind": kind, "status": 500, "retry_after": 7}]);
        control(&caller.vendor, Method::POST, "faults", rule).await;
        let met = create(kind).await;
        match (kind, &met) {
            ("throttle", Ok(answer)) => {
                assert_eq!(answer.status(), 429);
                assert_eq!(answer.headers()["retry-after"], "7");
            }
            (kind, Ok(answer)) if kind.starts_with("status") => assert_eq!(answer.status(), 500),
            ("truncated_body", Err(Lost::Truncated { status: 200, body })) => {
                assert!(!body.is_empty())
            }
            (kind, Err(Lost::TimedOut)) if kind.starts_with("timeout") => {}
            (kind, Err(Lost::Reset)) if kind.starts_with("reset") => {}
            _ => panic!("{kind}: {met:?}"),
        }
        assert_eq!(there(kind).await, effect, "{kind}");
        assert_eq!(
            create(kind).await.expect("an answer").status(),
            200,
            "{kind}"
        );
    }
    let rule = json!({"kind": "status_before_effect", "after": 1, "every": 2, "times": 2});
    control(&caller.vendor, Method::POST, "faults", rule).await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(
            caller
                .call(Method::GET, "preferences", "")
                .await
                .expect("an answer")
                .status()
                .as_u16(),
        );
    }
    assert_eq!(statuses, [200, 200, 503, 200, 503, 200]);
    assert_eq!(
        control(&caller.vendor, Method::GET, "faults", Value::Null).await,
        json!([])
    );
}

#[tokio::test]
async fn one_of_many_wins_a_name() {
    let caller = Caller::new().await;
    let all =
        join_all((0..50).map(|_| caller.post("customer", json!({"DisplayName": "Ada"})))).await;
    let won = all
        .iter()
        .filter(|answer| answer.get("Customer").is_some())
        .count();
    assert_eq!(won, 1);
}

#[tokio::test]
async fn books_outlive_the_process_and_a_torn_write() {
    let folder = std::env::temp_dir().join(format!(
        "quickbooks-{}-{:x}",
        std::process::id(),
        rand::random::<u64>()
    ));
    let open = || {
        Quickbooks::new(Options {
            state: Some(folder.clone()),
            clock: Clock::System,
            seed: 3,
        })
        .expect("a vendor")
    };
    let caller = Caller::of(open(), DEFAULT_REALM).await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let sold = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    let first = caller
        .post("customer?requestid=r1", json!({"DisplayName": "Bob"}))
        .await;
    caller
        .post(
            "salesreceipt?operation=delete",
            json!({"Id": sold["Id"], "SyncToken": "0"}),
        )
        .await;
    let file = folder.join("quickbooks.jsonl");
    let mut bytes = fs::read(&file).expect("a journal");
    bytes.extend_from_slice(br#"[{"change":"entity","realm":"4620816365012345678","ent"#);
    fs::write(&file, bytes).expect("a journal");

    // Twice, since the first opening writes the journal anew.
    for _ in 0..2 {
        let token = caller.token.clone();
        let again = Caller {
            vendor: open(),
            realm: DEFAULT_REALM.to_owned(),
            token,
        };
        assert_eq!(
            again
                .post("customer?requestid=r1", json!({"DisplayName": "x"}))
                .await,
            first
        );
        assert_eq!(
            again
                .refused("customer", json!({"DisplayName": "ADA"}))
                .await,
            "6240"
        );
        assert_eq!(
            again
                .found("Customer", "select * from Customer", "DisplayName")
                .await,
            ["Ada", "Bob"]
        );
    }
    let token = caller.token.clone();
    let last = Caller {
        vendor: open(),
        realm: DEFAULT_REALM.to_owned(),
        token,
    };
    let next = last
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    assert_eq!(next["Id"], "2", "an id is never given twice");
    fs::remove_dir_all(&folder).expect("a folder");
}
