//! What becomes of entities that are made, changed, paid, deleted and found again.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};

use super::{Caller, TENANT, control, credit_note, invoice, payment, with};

async fn delete(caller: &Caller, what: &str) {
    let path = format!("entities/{what}?tenant={TENANT}");
    control(&caller.vendor, Method::DELETE, &path, Value::Null).await;
}

fn amounts(value: &Value) -> [&Value; 4] {
    ["Status", "AmountDue", "AmountPaid", "AmountCredited"].map(|name| &value[name])
}

#[tokio::test]
async fn a_payment_closes_an_invoice_and_its_deletion_opens_it_again() {
    let caller = Caller::stocked().await;
    let paid = caller.save("Payments", payment("S-1", 24.0)).await;
    let seen = caller.get("Invoices/S-1").await;
    assert_eq!(
        amounts(&seen[0]),
        [&json!("PAID"), &json!(0.0), &json!(24.0), &json!(0.0)]
    );
    assert_eq!(seen[0]["FullyPaidOnDate"], "/Date(1767225600000+0000)/");
    assert_eq!(seen[0]["Payments"][0]["PaymentID"], paid["PaymentID"]);
    let id = paid["PaymentID"].as_str().expect("an id");
    let path = format!("Payments/{id}");
    // A single object, as the vendor's own libraries send it.
    let (status, gone) = caller
        .call("POST", &path, &json!({"Status": "DELETED"}))
        .await;
    assert_eq!(
        (status, &gone["Payments"][0]["Status"]),
        (200, &json!("DELETED"))
    );
    let seen = caller.get("Invoices/S-1").await;
    assert_eq!(
        amounts(&seen[0]),
        [&json!("AUTHORISED"), &json!(24.0), &json!(0.0), &json!(0.0)]
    );
    assert!(seen[0].get("FullyPaidOnDate").is_none());
    let (status, _) = caller
        .call("POST", &path, &json!({"Status": "DELETED"}))
        .await;
    assert_eq!(status, 400);
    assert_eq!(caller.get(&path).await[0]["Status"], "DELETED");
}

#[tokio::test]
async fn a_reconciled_payment_stays() {
    let caller = Caller::stocked().await;
    let paid = caller.save("Payments", payment("S-1", 24.0)).await;
    let path = format!("entities/Payments?tenant={TENANT}");
    let flag = json!({"PaymentID": paid["PaymentID"], "IsReconciled": true});
    control(&caller.vendor, Method::POST, &path, flag).await;
    let id = paid["PaymentID"].as_str().expect("an id");
    let gone = json!({"Status": "DELETED"});
    let (status, _) = caller.call("POST", &format!("Payments/{id}"), &gone).await;
    assert_eq!(status, 400);
    delete(&caller, &format!("Payments/{id}")).await;
    assert_eq!(caller.get("Invoices/S-1").await[0]["Status"], "AUTHORISED");
}

#[tokio::test]
async fn credit_is_set_off_released_and_paid_back() {
    let caller = Caller::stocked().await;
    let credit = json!({"Allocations": [{"Invoice": {"InvoiceNumber": "S-1"}, "Amount": 5, "Date": "2026-01-01"}]});
    let (status, made) = caller
        .call("PUT", "CreditNotes/CN-1/Allocations", &credit)
        .await;
    assert_eq!(status, 200, "{made}");
    let seen = caller.get("Invoices/S-1").await;
    assert_eq!(
        amounts(&seen[0]),
        [&json!("AUTHORISED"), &json!(19.0), &json!(0.0), &json!(5.0)]
    );
    assert_eq!(seen[0]["CreditNotes"][0]["AppliedAmount"], 5.0);
    assert_eq!(
        caller.get("CreditNotes/CN-1").await[0]["RemainingCredit"],
        7.0
    );
    let id = made["Allocations"][0]["AllocationID"]
        .as_str()
        .expect("an id");
    let path = format!("CreditNotes/CN-1/Allocations/{id}");
    let (status, gone) = caller.call("DELETE", &path, &Value::Null).await;
    assert_eq!((status, &gone["IsDeleted"]), (200, &json!(true)));
    assert_eq!(
        caller.get("CreditNotes/CN-1").await[0]["RemainingCredit"],
        12.0
    );
    assert_eq!(caller.get("Invoices/S-1").await[0]["AmountDue"], 24.0);
    let refund = json!({"CreditNote": {"CreditNoteNumber": "CN-1"}, "Account": {"Code": "090"}, "Amount": 12});
    let paid = caller.save("Payments", refund).await;
    assert_eq!(paid["PaymentType"], "ARCREDITPAYMENT");
    assert_eq!(paid["Invoice"]["Type"], "ACCRECCREDIT");
    let note = caller.get("CreditNotes/CN-1").await;
    assert_eq!(
        (&note[0]["Status"], &note[0]["RemainingCredit"]),
        (&json!("PAID"), &json!(0.0))
    );
}

#[tokio::test]
async fn a_line_without_its_id_is_made_again() {
    let caller = Caller::stocked().await;
    let before = caller.get("Invoices/S-1").await[0]["LineItems"][0].clone();
    let id = &before["LineItemID"];
    let same = json!({"InvoiceNumber": "S-1", "Type": "ACCREC", "LineItems": [{"LineItemID": id, "Quantity": 3}]});
    let made = caller.save("Invoices", same).await;
    assert_eq!(
        (&made["LineItems"][0]["LineItemID"], &made["Total"]),
        (id, &json!(36.0))
    );
    assert_eq!(made["LineItems"][0]["Description"], "Mug");
    let made = caller.save("Invoices", invoice("S-1", "AUTHORISED")).await;
    assert_ne!(&made["LineItems"][0]["LineItemID"], id);
    assert_eq!(made["LineItems"].as_array().map(Vec::len), Some(1));
    // An id that no line of it has is none.
    let mut strange = invoice("S-1", "AUTHORISED");
    strange["LineItems"][0]["LineItemID"] = id.clone();
    let made = caller.save("Invoices", strange).await;
    assert_ne!(&made["LineItems"][0]["LineItemID"], id);
    // What is not sent at all stays.
    let made = caller
        .save(
            "Invoices",
            json!({"InvoiceNumber": "S-1", "Type": "ACCREC", "Reference": "r"}),
        )
        .await;
    assert_eq!(
        (&made["Total"], &made["Reference"]),
        (&json!(24.0), &json!("r"))
    );
}

#[tokio::test]
async fn a_contact_in_an_invoice_is_changed_by_it() {
    let caller = Caller::stocked().await;
    let persons = json!({"ContactNumber": "c-1", "Name": "Ada Byron", "ContactPersons": [{"FirstName": "Annabella"}]});
    let ada = caller.save("Contacts", persons).await;
    let only = json!({"Contact": {"ContactID": ada["ContactID"]}});
    caller
        .save("Invoices", with(invoice("S-8", "DRAFT"), only))
        .await;
    let kept = caller.get("Contacts/c-1").await;
    assert_eq!(kept[0]["ContactPersons"].as_array().map(Vec::len), Some(1));
    let more =
        json!({"Contact": {"ContactID": ada["ContactID"], "EmailAddress": "ada@example.com"}});
    caller
        .save("Invoices", with(invoice("S-9", "DRAFT"), more))
        .await;
    let lost = caller.get("Contacts/c-1").await;
    assert_eq!(
        (&lost[0]["EmailAddress"], &lost[0]["ContactPersons"]),
        (&json!("ada@example.com"), &json!([]))
    );
}

#[tokio::test]
async fn post_by_name_overwrites_and_archived_names_are_free() {
    let caller = Caller::stocked().await;
    let ada = caller.get("Contacts/c-1").await[0]["ContactID"].clone();
    let same = caller
        .save(
            "Contacts",
            json!({"Name": "ada byron", "EmailAddress": "x@example.com"}),
        )
        .await;
    assert_eq!(same["ContactID"], ada);
    let charles = caller
        .save("Contacts", json!({"Name": "Charles Babbage"}))
        .await;
    assert_ne!(
        charles["ContactID"],
        caller.get("Contacts/c-2").await[0]["ContactID"]
    );
    let names = |found: Value| -> Vec<String> {
        let all = found.as_array().expect("a list").iter();
        all.map(|one| one["Name"].as_str().expect("a name").to_owned())
            .collect()
    };
    assert_eq!(names(caller.get("Contacts").await).len(), 3);
    assert_eq!(
        names(caller.get("Contacts?includeArchived=true").await).len(),
        4
    );
    let archived = with(
        invoice("S-9", "DRAFT"),
        json!({"Contact": {"ContactID": caller.get("Contacts/c-2").await[0]["ContactID"]}}),
    );
    let (status, told) = caller.call("PUT", "Invoices", &archived).await;
    assert_eq!(status, 400);
    assert!(told.to_string().contains("is archived"), "{told}");
}

/// What a bookkeeper takes away, and how it is seen afterwards.
#[tokio::test]
async fn deletions_are_seen_as_statuses() {
    let rows = [
        ("Contacts", "c-1", "ContactStatus", "ARCHIVED"),
        ("Invoices", "S-1", "Status", "VOIDED"),
        ("Invoices", "S-2", "Status", "DELETED"),
        ("CreditNotes", "CN-1", "Status", "VOIDED"),
        ("CreditNotes", "CN-2", "Status", "DELETED"),
    ];
    for (plural, name, field, status) in rows {
        let caller = Caller::stocked().await;
        caller.vendor.advance(Duration::from_secs(60));
        delete(&caller, &format!("{plural}/{name}")).await;
        let seen = caller.get(&format!("{plural}/{name}")).await;
        assert_eq!(seen[0][field], status, "{plural}/{name}");
        assert_eq!(seen[0]["UpdatedDateUTC"], "/Date(1767225660000+0000)/");
    }
    let caller = Caller::stocked().await;
    delete(&caller, "Items/MUG").await;
    let (status, _) = caller.call("GET", "Items/MUG", &Value::Null).await;
    assert_eq!(status, 404);
    // A number is free again after a deletion, and not after a voiding.
    delete(&caller, "Invoices/S-2").await;
    let (status, _) = caller
        .call(
            "PUT",
            "Invoices",
            &json!({"Invoices": [invoice("S-2", "DRAFT")]}),
        )
        .await;
    assert_eq!(status, 200);
}

#[tokio::test]
async fn a_lock_date_freezes_what_is_before_it() {
    let caller = Caller::stocked().await;
    let lock =
        json!({"tenant": TENANT, "period_lock_date": "", "end_of_year_lock_date": "2026-01-01"});
    control(&caller.vendor, Method::POST, "organisations", lock).await;
    for (path, element) in [
        (
            "Invoices",
            json!({"Type": "ACCREC", "InvoiceNumber": "S-1", "Status": "VOIDED"}),
        ),
        (
            "Invoices",
            json!({"Type": "ACCREC", "InvoiceNumber": "S-2", "Date": "2026-02-01"}),
        ),
        ("Payments", payment("S-1", 1.0)),
        ("CreditNotes", credit_note("CN-9", "DRAFT")),
    ] {
        let (status, told) = caller.call("POST", path, &json!({path: [element]})).await;
        assert_eq!(status, 400, "{path} {told}");
        assert!(told.to_string().contains("end of year lock date"), "{told}");
    }
    let later = with(payment("S-1", 1.0), json!({"Date": "2026-01-02"}));
    caller.save("Payments", later).await;
    let shown = caller.call("GET", "Organisation", &Value::Null).await.1;
    let shown = &shown["Organisations"][0];
    assert_eq!(shown["EndOfYearLockDate"], "/Date(1767225600000+0000)/");
    assert!(shown.get("PeriodLockDate").is_none());
}

#[tokio::test]
async fn changes_since_and_pages() {
    let caller = Caller::stocked().await;
    caller.vendor.advance(Duration::from_secs(90));
    caller
        .save(
            "Invoices",
            json!({"Type": "ACCREC", "InvoiceNumber": "S-2", "Reference": "r"}),
        )
        .await;
    let since = |text: &'static str| {
        let caller = &caller;
        async move {
            let headers = [("if-modified-since", text)];
            let answer = caller
                .call_with(Method::GET, "Invoices", &headers, &Value::Null)
                .await;
            let body = super::read(&answer);
            let all = body["Invoices"].as_array().expect("a list").iter();
            all.map(|one| one["InvoiceNumber"].as_str().expect("a number").to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(since("2026-01-01T00:00:00").await, ["S-2"]);
    assert_eq!(since("Thu, 01 Jan 2026 00:01:29 GMT").await, ["S-2"]);
    assert!(since("2026-01-01T00:01:30").await.is_empty());
    assert_eq!(since("2025-12-31T23:59:59").await.len(), 5);
    // What changes goes to the end, so that a page loses a row to the one before.
    let page = |number: u32| format!("Invoices?page={number}&pageSize=2");
    let numbers = |found: &Value| -> Vec<String> {
        let all = found.as_array().expect("a list").iter();
        all.map(|one| one["InvoiceNumber"].as_str().expect("a number").to_owned())
            .collect()
    };
    let first = numbers(&caller.get(&page(1)).await);
    caller
        .save(
            "Invoices",
            json!({"Type": "ACCREC", "InvoiceNumber": first[0], "Reference": "r"}),
        )
        .await;
    let mut seen = first.clone();
    for number in 2..=3 {
        seen.extend(numbers(&caller.get(&page(number)).await));
    }
    assert!(
        seen.len() == 5 && (0..5).any(|n| !seen.contains(&format!("S-{}", n + 1))),
        "{seen:?}"
    );
    assert!(
        caller
            .get(&page(4))
            .await
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

/// A currency of its own, and the bank's side of a payment.
#[tokio::test]
async fn euros_in_a_british_organisation() {
    let caller = Caller::stocked().await;
    let euros = with(
        invoice("S-9", "AUTHORISED"),
        json!({"CurrencyCode": "EUR", "CurrencyRate": 1.25}),
    );
    let made = caller.save("Invoices", euros).await;
    assert_eq!(
        (&made["CurrencyRate"], &made["Total"]),
        (&json!(1.25), &json!(24.0))
    );
    let paid = caller.save("Payments", payment("S-9", 24.0)).await;
    assert_eq!(
        (&paid["Amount"], &paid["BankAmount"]),
        (&json!(24.0), &json!(19.2))
    );
    let rated = caller
        .save(
            "Invoices",
            with(invoice("S-10", "DRAFT"), json!({"CurrencyCode": "EUR"})),
        )
        .await;
    assert!(
        rated["CurrencyRate"]
            .as_f64()
            .is_some_and(|rate| rate > 1.0),
        "euros for a pound"
    );
}
