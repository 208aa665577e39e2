//! What the vendor sends by itself.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::super::webhooks::sign;
use super::{Caller, control, credit_note, invoice, payment, with};
use crate::standins::oauth::Message;

const KEY: &str = "test-signing-key";

async fn listening(changes: Value) -> Caller {
    let caller = Caller::stocked().await;
    let usual = json!({"url": "http://127.0.0.1:9/xero", "key": KEY});
    control(
        &caller.vendor,
        Method::POST,
        "webhooks",
        with(usual, changes),
    )
    .await;
    caller
}

fn told(messages: &[Message]) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for message in messages {
        let body: Value = serde_json::from_str(&message.body).expect("JSON");
        for event in body["events"].as_array().expect("events") {
            let word = |name: &str| event[name].as_str().expect("a word").to_owned();
            all.push((word("eventCategory"), word("eventType")));
        }
    }
    all
}

/// The vector was computed apart from this code, with openssl.
#[test]
fn the_signature_is_that_of_the_documentation() {
    let body = r#"{"events":[],"firstEventSequence": 0,"lastEventSequence": 0, "entropy": "ABCDEFGHIJKLMNOPQRST"}"#;
    assert_eq!(
        sign(KEY, body),
        "8aAuTTG2dlWTTMTsWCJXpDSx8dPrwLCgWOFdyHIZ6SI="
    );
}

#[tokio::test]
async fn what_is_told() {
    let rows = [
        (
            "Contacts",
            json!({"Name": "Alan Turing"}),
            vec![("CONTACT", "CREATE")],
        ),
        (
            "Contacts",
            json!({"Name": "Ada Byron", "FirstName": "Ada"}),
            vec![("CONTACT", "UPDATE")],
        ),
        (
            "Invoices",
            invoice("S-9", "DRAFT"),
            vec![("INVOICE", "CREATE")],
        ),
        (
            "Invoices",
            with(
                invoice("S-9", "DRAFT"),
                json!({"Contact": {"Name": "Alan Turing"}}),
            ),
            vec![("CONTACT", "CREATE"), ("INVOICE", "CREATE")],
        ),
        (
            "CreditNotes",
            credit_note("CN-9", "DRAFT"),
            vec![("CREDITNOTE", "CREATE")],
        ),
        ("Payments", payment("S-1", 1.0), vec![("INVOICE", "UPDATE")]),
        ("Items", json!({"Code": "CUP"}), vec![]),
    ];
    for (path, element, expected) in rows {
        let caller = listening(json!({})).await;
        caller.save(path, element).await;
        let due = caller.vendor.due();
        let expected: Vec<(String, String)> = expected
            .into_iter()
            .map(|(one, other)| (one.into(), other.into()))
            .collect();
        assert_eq!(told(&due), expected, "{path}");
        for message in due {
            assert_eq!(
                message.headers,
                [("x-xero-signature", sign(KEY, &message.body))]
            );
        }
    }
    let caller = listening(json!({"categories": ["INVOICE"]})).await;
    caller
        .save("Contacts", json!({"Name": "Alan Turing"}))
        .await;
    caller.save("Invoices", invoice("S-9", "DRAFT")).await;
    assert_eq!(told(&caller.vendor.due()).len(), 1);
    // A refused write tells nothing.
    let (status, _) = caller
        .call(
            "PUT",
            "Invoices",
            &json!({"Invoices": [invoice("S-1", "DRAFT")]}),
        )
        .await;
    assert_eq!(status, 400);
    assert!(caller.vendor.due().is_empty());
}

#[tokio::test]
async fn sequences_and_data() {
    let caller = listening(json!({})).await;
    let notes =
        json!({"CreditNotes": [credit_note("CN-8", "DRAFT"), credit_note("CN-9", "AUTHORISED")]});
    assert_eq!(caller.call("PUT", "CreditNotes", &notes).await.0, 200);
    caller
        .save("Contacts", json!({"Name": "Alan Turing"}))
        .await;
    let bodies: Vec<Value> = caller
        .vendor
        .due()
        .iter()
        .map(|one| serde_json::from_str(&one.body).unwrap())
        .collect();
    let sequence = |body: &Value| {
        (
            body["firstEventSequence"].as_u64(),
            body["lastEventSequence"].as_u64(),
        )
    };
    assert_eq!(
        bodies.iter().map(sequence).collect::<Vec<_>>(),
        [(Some(1), Some(2)), (Some(3), Some(3))]
    );
    assert_eq!(
        bodies[0]["events"][1]["data"],
        json!({"Type": "ACCRECCREDIT", "Status": "AUTHORISED"})
    );
    assert_eq!(
        bodies[0]["events"][1]["eventDateUtc"],
        "2026-01-01T00:00:00.000"
    );
}

#[tokio::test]
async fn doubled_reversed_paused_and_lost() {
    let three = |caller: Caller| async move {
        for name in ["A", "B", "C"] {
            caller.save("Contacts", json!({"Name": name})).await;
        }
        caller
    };
    let ids = |caller: &Caller| {
        caller
            .vendor
            .due()
            .iter()
            .map(|one| one.id)
            .collect::<Vec<_>>()
    };
    let caller = three(listening(json!({"duplicate": true})).await).await;
    let due = caller.vendor.due();
    assert_eq!(due.len(), 6);
    assert_eq!(due[0].body, due[1].body);
    let caller = three(listening(json!({"reverse": true})).await).await;
    assert_eq!(ids(&caller), [3, 2, 1]);
    let caller = three(listening(json!({"paused": true})).await).await;
    assert!(ids(&caller).is_empty());
    control(
        &caller.vendor,
        Method::POST,
        "webhooks",
        json!({"url": "http://127.0.0.1:9/", "key": KEY}),
    )
    .await;
    assert_eq!(ids(&caller), [1, 2, 3]);
    let caller = three(listening(json!({"lose": true})).await).await;
    assert!(ids(&caller).is_empty());
}

#[tokio::test]
async fn tried_again_for_a_day() {
    let caller = listening(json!({})).await;
    caller
        .save("Contacts", json!({"Name": "Alan Turing"}))
        .await;
    let minute = Duration::from_secs(60);
    let mut tried = 0;
    for _ in 0..(25 * 60) {
        for message in caller.vendor.due() {
            tried += 1;
            // Neither a refusal nor an answer with words in it counts, nor none at all.
            let answer = [Some((500, &b""[..])), Some((200, &b"ok"[..])), None][tried % 3];
            caller.vendor.told(message.id, answer);
        }
        caller.vendor.advance(minute);
    }
    // At once, once more at the next look, and every 15 minutes until a day is over.
    assert_eq!(tried, 98);
    let seen = control(&caller.vendor, Method::GET, "webhooks", Value::Null).await;
    let answers = &seen["deliveries"][0]["answers"];
    assert_eq!(
        answers.as_array().map(|all| &all[..3]),
        Some(&[Value::Null, Value::Null, json!(500)][..])
    );
}

#[tokio::test]
async fn accepted_once() {
    let caller = listening(json!({})).await;
    caller
        .save("Contacts", json!({"Name": "Alan Turing"}))
        .await;
    let due = caller.vendor.due();
    assert!(caller.vendor.due().is_empty(), "it is under way");
    caller.vendor.told(due[0].id, Some((200, b"")));
    caller.vendor.advance(Duration::from_secs(86_400));
    assert!(caller.vendor.due().is_empty());
}

#[tokio::test]
async fn the_handshake_has_good_and_bad_signatures() {
    let caller = listening(json!({})).await;
    control(
        &caller.vendor,
        Method::POST,
        "webhooks/handshake",
        json!({}),
    )
    .await;
    let due = caller.vendor.due();
    for message in &due {
        let good = message.headers[0].1 == sign(KEY, &message.body);
        caller
            .vendor
            .told(message.id, Some((if good { 200 } else { 401 }, b"")));
    }
    let seen = control(&caller.vendor, Method::GET, "webhooks", Value::Null).await;
    let seen = seen["deliveries"].as_array().expect("a list");
    let expected: Vec<&Value> = seen.iter().map(|one| &one["expected"]).collect();
    assert!(expected.contains(&&json!(200)) && expected.contains(&&json!(401)));
    for one in seen {
        assert_eq!(one["answers"], json!([one["expected"]]));
    }
    assert!(caller.vendor.due().is_empty());
}
