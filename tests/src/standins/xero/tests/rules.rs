//! What is refused and what is taken, a row for each rule.

use serde_json::{Value, json};

use super::{Caller, credit_note, invoice, payment, with};

fn line(changes: Value) -> Value {
    let line = json!({"Description": "Mug", "Quantity": 1, "UnitAmount": 10, "AccountCode": "200", "TaxType": "OUTPUT2"});
    json!([with(line, changes)])
}

/// What is sent to the stocked organisation, and a part of what it says; nothing where it is taken.
async fn check(rows: Vec<(&str, &str, Value, &str)>) {
    assert!(!rows.is_empty());
    for (method, path, element, refusal) in rows {
        let caller = Caller::stocked().await;
        let plural = path
            .rsplit('/')
            .find(|part| part.starts_with(char::is_uppercase) && part.ends_with('s'));
        let body = json!({plural.expect("a name"): [element]});
        let (status, answer) = caller.call(method, path, &body).await;
        let told = format!("{method} {path} {element}: {status} {answer}");
        if refusal.is_empty() {
            assert_eq!(status, 200, "{told}");
            continue;
        }
        assert_eq!(status, 400, "{told}");
        let number = answer["ErrorNumber"].as_u64();
        let found = match number {
            Some(10) => answer["Elements"][0]["ValidationErrors"].to_string(),
            Some(14) => answer["Message"].to_string(),
            _ => panic!("{told}"),
        };
        assert!(found.contains(refusal), "{refusal}: {told}");
    }
}

#[tokio::test]
async fn contacts() {
    let named = |name: &str| json!({"Name": name});
    check(vec![
        ("PUT", "Contacts", named("Alan Turing"), ""),
        ("PUT", "Contacts", named(" ada  byron "), "already assigned to another contact"),
        ("POST", "Contacts", named("Ada Byron"), ""),
        ("PUT", "Contacts", named("Charles Babbage"), ""),
        ("PUT", "Contacts", named("Ada <Byron>"), "cannot contain"),
        ("PUT", "Contacts", named("  "), "cannot be empty"),
        ("PUT", "Contacts", json!({}), "cannot be empty"),
        ("PUT", "Contacts", named(&"é".repeat(255)), ""),
        ("PUT", "Contacts", named(&"é".repeat(256)), "maximum length of 255"),
        ("PUT", "Contacts", json!({"Name": "A", "ContactNumber": "c-1"}), "contact number c-1"),
        ("PUT", "Contacts", json!({"Name": "A", "AccountNumber": "a-1"}), "Account Number already exists"),
        ("PUT", "Contacts", json!({"Name": "A", "ContactNumber": "x".repeat(51)}), "maximum length of 50"),
        ("POST", "Contacts", json!({"Name": "Grace Hopper", "ContactNumber": "c-1"}), "already assigned"),
        ("POST", "Contacts", json!({"Name": "Ada King", "ContactNumber": "c-1"}), ""),
        ("PUT", "Contacts", json!({"Name": "A", "DefaultCurrency": "USD"}), "not subscribed to currency USD"),
        ("PUT", "Contacts", json!({"Name": "A", "ContactPersons": vec![json!({}); 5]}), ""),
        ("PUT", "Contacts", json!({"Name": "A", "ContactPersons": vec![json!({}); 6]}), "at most 5"),
        ("PUT", "Contacts", json!({"Name": "A", "Phones": [{"PhoneType": "DEFAULT", "PhoneNumber": "1".repeat(51)}]}), "maximum length of 50"),
        ("PUT", "Contacts", json!({"Name": "A", "Phones": [{"PhoneType": "HOME"}]}), "Error converting value"),
        ("PUT", "Contacts", json!({"Name": "A", "Nickname": "B"}), "Could not find member 'Nickname'"),
        ("PUT", "Contacts", json!({"Name": "A", "ContactID": "c-1"}), "System.Guid"),
    ])
    .await;
}

#[tokio::test]
async fn invoices() {
    let new = |changes: Value| with(invoice("S-9", "AUTHORISED"), changes);
    let of = |number: &str, changes: Value| {
        with(json!({"Type": "ACCREC", "InvoiceNumber": number}), changes)
    };
    let modified = "not of valid status for modification";
    let allocated = "payment or credit note allocated";
    check(vec![
        ("PUT", "Invoices", new(json!({})), ""),
        ("PUT", "Invoices", invoice("S-1", "DRAFT"), "Invoice # must be unique."),
        ("PUT", "Invoices", invoice("s-1", "DRAFT"), "Invoice # must be unique."),
        ("PUT", "Invoices", invoice("S-5", "DRAFT"), "Invoice # must be unique."),
        ("POST", "Invoices", invoice("S-1", "AUTHORISED"), ""),
        ("PUT", "Invoices", new(json!({"InvoiceNumber": null})), ""),
        ("PUT", "Invoices", new(json!({"InvoiceNumber": "x".repeat(256)})), "maximum length of 255"),
        ("PUT", "Invoices", new(json!({"Type": "ACCPAY", "InvoiceNumber": "S-1", "LineItems": line(json!({"AccountCode": "404", "TaxType": "INPUT2"}))})), ""),
        ("PUT", "Invoices", new(json!({"Type": null})), "type must be specified"),
        ("PUT", "Invoices", new(json!({"Status": "PAID"})), modified),
        ("PUT", "Invoices", new(json!({"Status": "PENDING"})), "Error converting value"),
        ("PUT", "Invoices", new(json!({"Contact": null})), "A Contact must be specified"),
        ("PUT", "Invoices", new(json!({"Contact": {"ContactID": "00000000-0000-0000-0000-000000000001"}})), "No contact was found"),
        ("PUT", "Invoices", new(json!({"Contact": {"Name": "Alan Turing"}})), ""),
        ("PUT", "Invoices", new(json!({"LineItems": []})), "One or more line items"),
        ("PUT", "Invoices", new(json!({"DueDate": null})), "DueDate must be specified"),
        ("PUT", "Invoices", new(json!({"DueDate": null, "Status": "DRAFT"})), ""),
        ("PUT", "Invoices", new(json!({"Date": "2025-12-31"})), "period lock date"),
        ("PUT", "Invoices", new(json!({"Date": "2026-02-30"})), "System.DateTime"),
        ("PUT", "Invoices", new(json!({"CurrencyCode": "EUR"})), ""),
        ("PUT", "Invoices", new(json!({"CurrencyCode": "USD"})), "not subscribed to currency USD"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"AccountCode": "999"}))})), "Account code '999' is not a valid code"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"AccountCode": "299"}))})), "Account code '299' is not a valid code"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"AccountCode": "090"}))})), "Account code '090' is not a valid code"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"AccountCode": "610"}))})), "Account code '610' is not a valid code"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"AccountCode": null}))})), "Account code must be specified"),
        ("PUT", "Invoices", new(json!({"Status": "DRAFT", "LineItems": line(json!({"AccountCode": null}))})), ""),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"TaxType": "TAX9"}))})), "TaxType code 'TAX9'"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"TaxType": "INPUT2"}))})), "The TaxType code 'INPUT2' cannot be used with account code '200'."),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"Description": " "}))})), "Description must be specified"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"Description": "x".repeat(4001)}))})), "maximum length of 4000"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"LineAmount": 9.5}))})), "does not match the expected line total"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"DiscountRate": 5, "LineAmount": 9.5}))})), ""),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"DiscountAmount": 11}))})), "discount cannot be more"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"UnitAmount": 9_999_999_999.99_f64}))})), ""),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"UnitAmount": 10_000_000_000_i64}))})), "too large"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"UnitAmount": -1}))})), "must not be negative"),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"ItemCode": "CUP"}))})), "Item code 'CUP' is not valid"),
        ("PUT", "Invoices", new(json!({"LineItems": [{"ItemCode": "MUG"}]})), ""),
        ("PUT", "Invoices", new(json!({"LineItems": line(json!({"Tracking": vec![json!({}); 3]}))})), "at most 2 tracking"),
        ("PUT", "Invoices", new(json!({"Type": "ACCPAY", "LineItems": line(json!({"AccountCode": "404", "TaxType": "INPUT2", "DiscountRate": 5}))})), "only be used on sales invoices"),
        ("PUT", "Invoices", new(json!({"Total": 1.0})), ""),
        ("PUT", "Invoices", new(json!({"RoundingAmount": 0.1})), "RoundingAmount must be within 0.10"),
        ("PUT", "Invoices", new(json!({"RoundingAmount": 0.1, "SubTotal": 20, "TotalTax": 4, "Total": 24.1})), ""),
        ("PUT", "Invoices", new(json!({"RoundingAmount": 0.11, "SubTotal": 20, "TotalTax": 4, "Total": 24.11})), "RoundingAmount must be within 0.10"),
        ("PUT", "Invoices", new(json!({"InvoiceID": "00000000-0000-0000-0000-000000000001"})), "must not have the ID"),
        ("POST", "Invoices", new(json!({"InvoiceID": "00000000-0000-0000-0000-000000000001"})), "No document was found"),
        ("POST", "Invoices", of("S-2", json!({"Status": "AUTHORISED"})), ""),
        ("POST", "Invoices", of("S-2", json!({"Status": "DELETED"})), ""),
        ("POST", "Invoices", of("S-2", json!({"Status": "VOIDED"})), modified),
        ("POST", "Invoices", of("S-2", json!({"Type": "ACCREC", "InvoiceNumber": "S-2", "Date": "2025-12-31"})), "period lock date"),
        ("POST", "Invoices", of("S-1", json!({"Status": "VOIDED"})), ""),
        ("POST", "Invoices", of("S-1", json!({"Status": "DRAFT"})), modified),
        ("POST", "Invoices", of("S-1", json!({"Status": "DELETED"})), modified),
        ("POST", "Invoices", of("S-3", json!({"Status": "VOIDED"})), allocated),
        ("POST", "Invoices", of("S-3", json!({"LineItems": line(json!({}))})), allocated),
        ("POST", "Invoices", of("S-3", json!({"Reference": "later"})), ""),
        ("POST", "Invoices", of("S-4", json!({"Status": "VOIDED"})), allocated),
        ("POST", "Invoices", of("S-4", json!({"LineItems": line(json!({}))})), allocated),
        ("POST", "Invoices", of("S-4", json!({"CurrencyCode": "EUR"})), allocated),
        ("POST", "Invoices", of("S-4", json!({"DueDate": "2026-02-01"})), ""),
        ("POST", "Invoices", of("S-5", json!({"Status": "AUTHORISED"})), modified),
        ("POST", "Invoices", of("S-5", json!({"Reference": "later"})), modified),
    ])
    .await;
}

#[tokio::test]
async fn payments_and_credit() {
    let pay = |changes: Value| with(payment("S-1", 24.0), changes);
    let refund = |changes: Value| {
        let base = json!({"CreditNote": {"CreditNoteNumber": "CN-1"}, "Account": {"Code": "090"}, "Date": "2026-01-01", "Amount": 12});
        with(base, changes)
    };
    let credit = |changes: Value| with(credit_note("CN-9", "AUTHORISED"), changes);
    let allocate = |changes: Value| {
        with(
            json!({"Invoice": {"InvoiceNumber": "S-1"}, "Amount": 12, "Date": "2026-01-01"}),
            changes,
        )
    };
    check(vec![
        ("PUT", "Payments", pay(json!({})), ""),
        ("POST", "Payments", pay(json!({"Amount": 0.01})), ""),
        (
            "PUT",
            "Payments",
            pay(json!({"Amount": 24.01})),
            "exceeds the amount outstanding",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Amount": 0})),
            "greater than zero",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Amount": -1})),
            "greater than zero",
        ),
        ("PUT", "Payments", payment("S-4", 20.0), ""),
        (
            "PUT",
            "Payments",
            payment("S-4", 20.01),
            "exceeds the amount outstanding",
        ),
        (
            "PUT",
            "Payments",
            payment("S-2", 1.0),
            "only be made against Authorised documents",
        ),
        (
            "PUT",
            "Payments",
            payment("S-3", 1.0),
            "only be made against Authorised documents",
        ),
        (
            "PUT",
            "Payments",
            payment("S-5", 1.0),
            "only be made against Authorised documents",
        ),
        (
            "PUT",
            "Payments",
            payment("S-9", 1.0),
            "No document was found",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Account": {"Code": "970"}})),
            "",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Account": {"Code": "200"}})),
            "Account type is invalid",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Account": {"Code": "999"}})),
            "account to pay into or from was not found",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Account": null})),
            "account to pay into or from was not found",
        ),
        (
            "PUT",
            "Payments",
            pay(json!({"Date": "2025-12-31"})),
            "period lock date",
        ),
        ("PUT", "Payments", refund(json!({})), ""),
        (
            "PUT",
            "Payments",
            refund(json!({"Amount": 12.01})),
            "exceeds the amount outstanding",
        ),
        (
            "PUT",
            "Payments",
            refund(json!({"CreditNote": {"CreditNoteNumber": "CN-2"}})),
            "only be made against Authorised documents",
        ),
        ("PUT", "CreditNotes", credit(json!({})), ""),
        (
            "PUT",
            "CreditNotes",
            credit(json!({"CreditNoteNumber": "CN-1"})),
            "# must be unique",
        ),
        (
            "PUT",
            "CreditNotes",
            credit(json!({"Type": "ACCREC"})),
            "Error converting value",
        ),
        (
            "PUT",
            "CreditNotes",
            credit(json!({"LineItems": line(json!({"DiscountRate": 5}))})),
            "only be used on sales invoices",
        ),
        (
            "PUT",
            "CreditNotes",
            credit(json!({"Date": "2025-12-31"})),
            "period lock date",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({})),
            "",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({"Amount": 12.01})),
            "exceeds the remaining credit",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({"Amount": 0})),
            "greater than zero",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({"Date": "2025-12-31"})),
            "period lock date",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({"Invoice": {"InvoiceNumber": "S-3"}, "Amount": 1})),
            "between Authorised documents",
        ),
        (
            "PUT",
            "CreditNotes/CN-2/Allocations",
            allocate(json!({"Amount": 1})),
            "between Authorised documents",
        ),
        (
            "PUT",
            "CreditNotes/CN-1/Allocations",
            allocate(json!({"Invoice": {"InvoiceNumber": "S-9"}})),
            "was not found",
        ),
    ])
    .await;
}

#[tokio::test]
async fn items_and_settings() {
    let mug = |changes: Value| with(json!({"Code": "CUP", "Name": "Cup"}), changes);
    let account = |changes: Value| {
        with(
            json!({"Code": "201", "Name": "Shop sales", "Type": "REVENUE"}),
            changes,
        )
    };
    check(vec![
        ("PUT", "Items", mug(json!({})), ""),
        (
            "PUT",
            "Items",
            mug(json!({"Code": "mug"})),
            "already exists",
        ),
        ("POST", "Items", mug(json!({"Code": "MUG"})), ""),
        (
            "PUT",
            "Items",
            mug(json!({"Code": null})),
            "Code must be supplied",
        ),
        ("PUT", "Items", mug(json!({"Code": "x".repeat(30)})), ""),
        (
            "PUT",
            "Items",
            mug(json!({"Code": "x".repeat(31)})),
            "maximum length of 30",
        ),
        (
            "PUT",
            "Items",
            mug(json!({"Name": "x".repeat(51)})),
            "maximum length of 50",
        ),
        (
            "PUT",
            "Items",
            mug(json!({"Description": "x".repeat(4001)})),
            "maximum length of 4000",
        ),
        (
            "PUT",
            "Items",
            mug(json!({"SalesDetails": {"AccountCode": "999"}})),
            "Account code '999'",
        ),
        (
            "PUT",
            "Items",
            mug(json!({"SalesDetails": {"TaxType": "TAX9"}})),
            "TaxType code 'TAX9'",
        ),
        (
            "PUT",
            "Items",
            mug(json!({"InventoryAssetAccountCode": "310"})),
            "Tracked inventory",
        ),
        ("PUT", "Accounts", account(json!({})), ""),
        (
            "PUT",
            "Accounts",
            account(json!({"Code": "200"})),
            "unique Code",
        ),
        (
            "PUT",
            "Accounts",
            account(json!({"Code": "x".repeat(11)})),
            "maximum length of 10",
        ),
        (
            "PUT",
            "Accounts",
            account(json!({"Name": "x".repeat(151)})),
            "maximum length of 150",
        ),
        (
            "PUT",
            "Accounts",
            account(json!({"Type": "MONEY"})),
            "Error converting value",
        ),
        (
            "PUT",
            "Accounts",
            account(json!({"Type": "BANK"})),
            "bank account number",
        ),
        (
            "PUT",
            "TaxRates",
            json!({"Name": "City tax", "TaxComponents": [{"Name": "City", "Rate": 3.5}]}),
            "",
        ),
        (
            "PUT",
            "TaxRates",
            json!({"Name": "No VAT", "TaxComponents": [{"Name": "x", "Rate": 1}]}),
            "already exists",
        ),
        (
            "PUT",
            "TaxRates",
            json!({"Name": "City tax"}),
            "tax component",
        ),
    ])
    .await;
}
