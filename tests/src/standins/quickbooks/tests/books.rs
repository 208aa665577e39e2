use axum::http::Method;
use serde_json::{Value, json};

use super::{Caller, code, control, line};
use crate::standins::quickbooks::DEFAULT_REALM;

#[tokio::test]
async fn names_are_one_space() {
    let caller = Caller::new().await;
    caller.customer("Ada").await;
    for list in ["customer", "vendor", "employee"] {
        let refused = caller.refused(list, json!({"DisplayName": " aDA "})).await;
        assert_eq!(refused, "6240", "{list}");
    }
    caller.item("Ada").await;
}

#[tokio::test]
async fn names_have_rules() {
    let caller = Caller::new().await;
    let long = "x".repeat(501);
    for (body, expected) in [
        (json!({"DisplayName": "a:b"}), "2040"),
        (json!({"DisplayName": "a\tb"}), "2040"),
        (json!({"DisplayName": long}), "2050"),
        (json!({"CompanyName": "none"}), "6080"),
        (json!({"DisplayName": "a", "Nick": "b"}), "2010"),
        (
            json!({"DisplayName": "a", "PrimaryEmailAddr": {"Address": "nowhere"}}),
            "2210",
        ),
        (
            json!({"DisplayName": "a", "CurrencyRef": {"value": "XYZ"}}),
            "2220",
        ),
        (json!({"DisplayName": "a", "Active": "maybe"}), "2230"),
        (
            json!({"DisplayName": "a", "OpenBalanceDate": "1.1.2026"}),
            "2060",
        ),
        (
            json!({"DisplayName": "a", "OpenBalanceDate": "2026-02-30"}),
            "2070",
        ),
        (json!({"DisplayName": "a", "Balance": "lots"}), "2100"),
        (
            json!({"DisplayName": "a", "BillAddr": {"Line1": long}}),
            "2050",
        ),
    ] {
        assert_eq!(
            caller.refused("customer", body.clone()).await,
            expected,
            "{body}"
        );
    }
    let made = caller
        .save(
            "Customer",
            json!({"GivenName": "Ada", "FamilyName": "Byron"}),
        )
        .await;
    assert_eq!(made["DisplayName"], "Ada Byron");
}

#[tokio::test]
async fn an_inactive_name_is_free_again_and_of_no_use() {
    let caller = Caller::new().await;
    let old = caller.customer("Ada").await;
    let item = caller.item("MUG").await;
    let body = json!({"Id": old["Id"], "SyncToken": "0", "sparse": true, "Active": false});
    assert_eq!(
        caller.save("Customer", body).await["DisplayName"],
        "Ada (deleted)"
    );
    assert_ne!(caller.customer("Ada").await["Id"], old["Id"]);
    assert_eq!(
        caller
            .refused("salesreceipt", Caller::receipt(&old, &item))
            .await,
        "610"
    );
    let every = "select * from Customer where Active in (true, false)";
    assert_eq!(
        caller.found("Customer", every, "DisplayName").await,
        ["Ada (deleted)", "Ada"]
    );
    assert_eq!(
        caller
            .found("Customer", "select * from Customer", "DisplayName")
            .await,
        ["Ada"]
    );
    let delete = json!({"Id": old["Id"], "SyncToken": "1"});
    assert_eq!(
        caller.refused("customer?operation=delete", delete).await,
        "500"
    );
}

#[tokio::test]
async fn items_have_rules() {
    let caller = Caller::new().await;
    let income = caller.account("Sales of Product Income").await;
    let checking = caller.account("Checking").await;
    caller.item("MUG").await;
    for (body, expected) in [
        (
            json!({"Name": "mug", "Type": "Service", "IncomeAccountRef": income}),
            "6240",
        ),
        (
            json!({"Name": "x".repeat(101), "Type": "Service", "IncomeAccountRef": income}),
            "2050",
        ),
        (json!({"Name": "a", "IncomeAccountRef": income}), "2020"),
        (json!({"Name": "a", "Type": "Service"}), "2020"),
        (
            json!({"Name": "a", "Type": "Stuff", "IncomeAccountRef": income}),
            "2170",
        ),
        (
            json!({"Name": "a", "Type": "Service", "IncomeAccountRef": {"value": "999"}}),
            "2500",
        ),
        (
            json!({"Name": "a", "Type": "Service", "IncomeAccountRef": checking}),
            "6000",
        ),
        (
            json!({"Name": "a", "Type": "Inventory", "IncomeAccountRef": income}),
            "2020",
        ),
    ] {
        assert_eq!(
            caller.refused("item", body.clone()).await,
            expected,
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_receipt_adds_up_exactly() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = Caller::receipt(&customer, &item);
    body["Line"] = json!([
        line(&item["Id"], "3", "0.1", "0.3", "TAX"),
        line(&item["Id"], "1", "-0.05", "-0.05", "NON"),
        line(&json!("SHIPPING_ITEM_ID"), "1", "4.5", "4.5", "NON"),
        {"Amount": 0.25, "DetailType": "DiscountLineDetail", "DiscountLineDetail": {"PercentBased": false}},
    ]);
    body["TxnTaxDetail"] = json!({"TotalTax": 0.07});
    let made = caller.save("SalesReceipt", body).await;
    assert_eq!(made["TotalAmt"], json!(4.57));
    assert_eq!(made["Line"][4]["DetailType"], "SubTotalLineDetail");
    assert_eq!(made["Line"][4]["Amount"], json!(4.75));
    assert_eq!(made["DepositToAccountRef"]["name"], "Undeposited Funds");
    assert_eq!(
        (&made["SyncToken"], &made["domain"], &made["Balance"]),
        (&json!("0"), &json!("QBO"), &json!(0.0))
    );
}

#[tokio::test]
async fn a_receipt_has_rules() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let good = Caller::receipt(&customer, &item);
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).expect("a place") = value;
        body
    };
    let detail = "/Line/0/SalesItemLineDetail";
    for (body, expected) in [
        (with("/Line", json!([])), "2020"),
        (with("/Line/0/Amount", json!(20.57)), "6070"),
        (with("/Line/0/DetailType", Value::Null), "2020"),
        (
            with(&format!("{detail}/TaxCodeRef/value"), json!("1")),
            "6100",
        ),
        (
            with(&format!("{detail}/ItemRef/value"), json!("404")),
            "2500",
        ),
        (with("/CustomerRef/value", json!("404")), "2500"),
        (with("/CustomerRef", Value::Null), "2020"),
        (with("/CurrencyRef", Value::Null), "2020"),
        (with("/CurrencyRef/value", json!("EUR")), "6000"),
        (with("/DocNumber", json!("x".repeat(22))), "2050"),
        (
            with("/Line/0", line(&item["Id"], "1", "-5", "-5", "TAX")),
            "6000",
        ),
        (
            with(
                detail,
                json!({"ItemRef": {"value": item["Id"]}, "Quantity": 2}),
            ),
            "2010",
        ),
        (
            with("/Line/0", line(&item["Id"], "2", "10.29", "20.58", "NON")),
            "6000",
        ),
    ] {
        assert_eq!(
            caller.refused("salesreceipt", body.clone()).await,
            expected,
            "{body}"
        );
    }
    let mut half_cent = good.clone();
    half_cent["Line"][0] = line(&item["Id"], "0.5", "0.25", "0.12", "TAX");
    caller.save("SalesReceipt", half_cent).await;
}

#[tokio::test]
async fn a_refund_names_the_account_that_pays() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = Caller::receipt(&customer, &item);
    assert_eq!(caller.refused("refundreceipt", body.clone()).await, "2020");
    body["DepositToAccountRef"] = caller.account("Services").await;
    assert_eq!(caller.refused("refundreceipt", body.clone()).await, "6000");
    body["DepositToAccountRef"] = caller.account("Checking").await;
    assert_eq!(
        caller.save("RefundReceipt", body).await["TotalAmt"],
        json!(22.28)
    );
}

#[tokio::test]
async fn tax_that_is_not_sent_is_found_and_tax_that_is_off_is_dropped() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = Caller::receipt(&customer, &item);
    body.as_object_mut()
        .expect("an object")
        .remove("TxnTaxDetail");
    assert_eq!(
        caller.save("SalesReceipt", body).await["TotalAmt"],
        json!(22.23)
    );

    let caller = Caller::with(json!({"realm": "5", "sales_tax": false})).await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let made = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    assert_eq!(made["TotalAmt"], json!(20.58));
    assert!(made.get("TxnTaxDetail").is_none());
}

#[tokio::test]
async fn outside_the_us_each_line_names_a_tax_code() {
    let caller =
        Caller::with(json!({"realm": "44", "country": "GB", "home_currency": "GBP"})).await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = json!({
        "CustomerRef": {"value": customer["Id"]},
        "CurrencyRef": {"value": "GBP"},
        "Line": [line(&item["Id"], "2", "10.29", "20.58", "1"), line(&item["Id"], "1", "1", "1", "3")],
    });
    let made = caller.save("SalesReceipt", body.clone()).await;
    assert_eq!(made["TxnTaxDetail"]["TotalTax"], json!(4.12));
    assert_eq!(made["TotalAmt"], json!(25.7));
    // Tax that is sent is of rates in the lines, and adds up.
    let taxed = |rate: &str, amount: f64, total: f64| {
        let detail = json!({"TaxRateRef": {"value": rate}, "PercentBased": true, "TaxPercent": 20, "NetAmountTaxable": 20.58});
        let line =
            json!({"Amount": amount, "DetailType": "TaxLineDetail", "TaxLineDetail": detail});
        json!({"TotalTax": total, "TaxLine": [line]})
    };
    for (rate, amount, total, code) in [("3", 4.11, 4.11, "6170"), ("1", 4.11, 4.12, "6170")] {
        body["TxnTaxDetail"] = taxed(rate, amount, total);
        assert_eq!(caller.refused("salesreceipt", body.clone()).await, code);
    }
    body["TxnTaxDetail"] = taxed("1", 4.11, 4.11);
    let made = caller.save("SalesReceipt", body.clone()).await;
    assert_eq!(made["TotalAmt"], json!(25.69));
    // Out of its scope, nothing names a code.
    body["TxnTaxDetail"] = Value::Null;
    let mut outside = body.clone();
    outside["GlobalTaxCalculation"] = json!("NotApplicable");
    for line in outside["Line"].as_array_mut().expect("lines") {
        line["SalesItemLineDetail"]["TaxCodeRef"] = Value::Null;
    }
    let made = caller.save("SalesReceipt", outside).await;
    assert_eq!(made["TotalAmt"], json!(21.58));
    body["Line"][0]["SalesItemLineDetail"]["TaxCodeRef"]["value"] = json!("TAX");
    assert_eq!(caller.refused("salesreceipt", body.clone()).await, "2500");
    body["Line"][0]["SalesItemLineDetail"]["TaxCodeRef"] = Value::Null;
    assert_eq!(caller.refused("salesreceipt", body).await, "6000");
}

#[tokio::test]
async fn closed_books_are_neither_added_to_nor_changed() {
    let caller = Caller::with(json!({"realm": "6", "closed_until": "2026-01-02"})).await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = Caller::receipt(&customer, &item);
    body["TxnDate"] = json!("2026-01-02");
    assert_eq!(caller.refused("salesreceipt", body.clone()).await, "6200");
    body["TxnDate"] = json!("2026-01-03");
    let made = caller.save("SalesReceipt", body).await;
    // Nor is anything moved to a closed day.
    let moved = json!({
        "Id": made["Id"], "SyncToken": "0", "sparse": true, "TxnDate": "2026-01-01",
    });
    assert_eq!(caller.refused("salesreceipt", moved).await, "6200");
}

#[tokio::test]
async fn currencies_are_for_life_and_for_those_who_turned_them_on() {
    let caller = Caller::new().await;
    let euro = json!({"DisplayName": "Ada (EUR)", "CurrencyRef": {"value": "EUR"}});
    let made = caller.save("Customer", euro.clone()).await;
    let change = json!({"Id": made["Id"], "SyncToken": "0", "sparse": true, "CurrencyRef": {"value": "USD"}});
    assert_eq!(caller.refused("customer", change).await, "6000");
    let full = json!({"Id": made["Id"], "SyncToken": "0", "DisplayName": "Ada (EUR)"});
    assert_eq!(
        caller.save("Customer", full).await["CurrencyRef"]["value"],
        "EUR"
    );

    let caller = Caller::with(json!({"realm": "5", "multicurrency": false})).await;
    assert_eq!(caller.refused("customer", euro).await, "6000");
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let mut body = Caller::receipt(&customer, &item);
    assert_eq!(caller.refused("salesreceipt", body.clone()).await, "6000");
    body["CurrencyRef"] = Value::Null;
    caller.save("SalesReceipt", body).await;
}

#[tokio::test]
async fn a_full_update_clears_and_a_sparse_one_keeps() {
    let caller = Caller::new().await;
    let made = caller
        .save(
            "Customer",
            json!({"DisplayName": "Ada", "Notes": "n", "CompanyName": "c"}),
        )
        .await;
    let sparse = json!({"Id": made["Id"], "SyncToken": "0", "sparse": true, "Notes": "m"});
    let kept = caller.save("Customer", sparse.clone()).await;
    assert_eq!(
        (&kept["CompanyName"], &kept["Notes"], &kept["SyncToken"]),
        (&json!("c"), &json!("m"), &json!("1"))
    );
    assert_eq!(caller.refused("customer", sparse).await, "5010");
    let full = json!({"Id": made["Id"], "SyncToken": "1", "DisplayName": "Ada"});
    let cleared = caller.save("Customer", full).await;
    assert!(cleared.get("Notes").is_none() && cleared.get("CompanyName").is_none());
    let absent = json!({"Id": made["Id"], "DisplayName": "Ada"});
    assert_eq!(caller.refused("customer", absent).await, "2020");
    let nobody = json!({"Id": "999", "SyncToken": "0", "DisplayName": "x"});
    assert_eq!(caller.refused("customer", nobody).await, "610");
}

#[tokio::test]
async fn a_sparse_update_of_a_receipt_keeps_its_old_tax() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let made = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    let update = json!({
        "Id": made["Id"], "SyncToken": "0", "sparse": true,
        "Line": [line(&item["Id"], "1", "10", "10", "TAX")],
    });
    let updated = caller.save("SalesReceipt", update).await;
    assert_eq!(updated["TotalAmt"], json!(11.7));
    assert_eq!(updated["Line"].as_array().map(Vec::len), Some(2));
    assert_eq!(updated["DocNumber"], "1001");
}

#[tokio::test]
async fn document_numbers_follow_the_company() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let body = Caller::receipt(&customer, &item);
    caller.save("SalesReceipt", body.clone()).await;
    caller.save("SalesReceipt", body.clone()).await;
    let books = control(&caller.vendor, Method::GET, "books", Value::Null).await;
    assert_eq!(
        books["duplicates"],
        json!([{"entity": "SalesReceipt", "doc_number": "1001", "count": 2}])
    );
    assert_eq!(books["sums"]["SalesReceipt"]["USD"], 4456);

    let forbids = json!({"realm": DEFAULT_REALM, "forbid_duplicate_doc_numbers": true});
    control(&caller.vendor, Method::POST, "realms", forbids).await;
    let refused = caller.post("salesreceipt", body.clone()).await;
    assert_eq!(code(&refused), "6140");
    let detail = refused["Fault"]["Error"][0]["Detail"]
        .as_str()
        .expect("a detail");
    assert!(
        detail.ends_with("DocNumber=1001 is assigned to TxnType=Sales Receipt with TxnId=1"),
        "{detail}"
    );
    caller
        .post("salesreceipt?include=allowduplicatedocnum", body.clone())
        .await;

    let numbers = json!({"realm": DEFAULT_REALM, "custom_transaction_numbers": false});
    control(&caller.vendor, Method::POST, "realms", numbers).await;
    assert_eq!(caller.save("SalesReceipt", body).await["DocNumber"], "1004");
}

#[tokio::test]
async fn deleting_and_voiding() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let first = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    let gone = json!({"Id": first["Id"], "SyncToken": "0"});
    let answer = caller
        .post("salesreceipt?operation=delete", gone.clone())
        .await;
    assert_eq!(
        answer["SalesReceipt"],
        json!({"status": "Deleted", "domain": "QBO", "Id": first["Id"]})
    );
    assert_eq!(
        caller.refused("salesreceipt?operation=delete", gone).await,
        "610"
    );
    let second = caller
        .save("SalesReceipt", Caller::receipt(&customer, &item))
        .await;
    assert_ne!(second["Id"], first["Id"]);
    let void = json!({"Id": second["Id"], "SyncToken": "0", "sparse": true});
    let answer = caller
        .post("salesreceipt?operation=update&include=void", void)
        .await;
    assert_eq!(answer["SalesReceipt"]["TotalAmt"], json!(0));
    assert_eq!(answer["SalesReceipt"]["PrivateNote"], "Voided");
}

#[tokio::test]
async fn payments_settle_invoices_and_no_more_than_is_open() {
    let caller = Caller::new().await;
    let (customer, item) = (caller.customer("Ada").await, caller.item("MUG").await);
    let bill = json!({"CustomerRef": {"value": customer["Id"]}, "Line": [line(&item["Id"], "1", "30", "30", "NON")]});
    let bill = caller.save("Invoice", bill).await;
    assert_eq!(bill["Balance"], json!(30.0));
    let pay = |amount: f64, applied: f64| {
        json!({
            "CustomerRef": {"value": customer["Id"]},
            "TotalAmt": amount,
            "Line": [{"Amount": applied, "LinkedTxn": [{"TxnId": bill["Id"], "TxnType": "Invoice"}]}],
        })
    };
    assert_eq!(caller.refused("payment", pay(40.0, 31.0)).await, "6000");
    assert_eq!(caller.refused("payment", pay(10.0, 11.0)).await, "6000");
    let paid = caller.save("Payment", pay(25.0, 20.0)).await;
    assert_eq!(paid["UnappliedAmt"], json!(5.0));
    let path = format!("invoice/{}", bill["Id"].as_str().expect("an id"));
    let read = super::read(
        &caller
            .call(Method::GET, &path, "")
            .await
            .expect("an answer"),
    );
    assert_eq!(read["Invoice"]["Balance"], json!(10.0));
    assert_eq!(
        read["Invoice"]["LinkedTxn"],
        json!([{"TxnId": paid["Id"], "TxnType": "Payment"}])
    );
    let delete = json!({"Id": bill["Id"], "SyncToken": "0"});
    assert_eq!(
        caller.refused("invoice?operation=delete", delete).await,
        "800"
    );
    caller
        .post(
            "payment?operation=delete",
            json!({"Id": paid["Id"], "SyncToken": "0"}),
        )
        .await;
    let read = super::read(
        &caller
            .call(Method::GET, &path, "")
            .await
            .expect("an answer"),
    );
    assert_eq!(read["Invoice"]["Balance"], json!(30.0));
}

/// A line of a journal entry on an account, by its place in the chart.
fn entry_line(account: &str, side: &str, amount: f64) -> Value {
    json!({
        "DetailType": "JournalEntryLineDetail", "Amount": amount,
        "JournalEntryLineDetail": {"PostingType": side, "AccountRef": {"value": account}},
    })
}

fn entry(lines: &[Value]) -> Value {
    json!({"DocNumber": "po-1", "PrivateNote": "payout", "TxnDate": "2026-01-01", "Line": lines})
}

#[tokio::test]
async fn a_journal_entry_balances() {
    let caller = Caller::new().await;
    let (bank, fees, receivable, payable) = ("6", "14", "8", "9");
    let pair = |debit: Value, credit: Value| entry(&[debit, credit]);
    let line = entry_line;
    for (body, expected) in [
        (
            pair(line(bank, "Debit", 97.0), line("5", "Credit", 100.0)),
            "6000",
        ),
        (
            pair(line(bank, "Debit", 0.0), line("5", "Credit", 0.0)),
            "6000",
        ),
        (
            pair(line(bank, "Debit", -1.0), line("5", "Credit", -1.0)),
            "6000",
        ),
        (
            pair(line("999", "Debit", 1.0), line("5", "Credit", 1.0)),
            "2500",
        ),
        (
            pair(line(receivable, "Debit", 1.0), line("5", "Credit", 1.0)),
            "6000",
        ),
        (
            pair(line(payable, "Debit", 1.0), line("5", "Credit", 1.0)),
            "6000",
        ),
        (
            pair(line(bank, "Sideways", 1.0), line("5", "Credit", 1.0)),
            "2170",
        ),
        (json!({"DocNumber": "po-1"}), "2020"),
        (json!({"DocNumber": "x".repeat(22), "Line": []}), "2050"),
    ] {
        let refused = caller.refused("journalentry", body.clone()).await;
        assert_eq!(refused, expected, "{body}");
    }
    let good = entry(&[
        line(bank, "Debit", 97.0),
        line(fees, "Debit", 3.0),
        line("5", "Credit", 100.0),
    ]);
    let made = caller.save("JournalEntry", good).await;
    assert_eq!(
        (&made["Id"], &made["Line"][0]["Id"]),
        (&json!("1"), &json!("0"))
    );
    assert!(made.get("TotalAmt").is_none(), "{made}");
    let account = &made["Line"][0]["JournalEntryLineDetail"]["AccountRef"];
    assert_eq!(account["name"], "Checking");
    // Whose debt it is has to be told.
    let ada = caller.customer("Ada").await;
    let mut owed = line(receivable, "Debit", 1.0);
    owed["JournalEntryLineDetail"]["Entity"] =
        json!({"Type": "Customer", "EntityRef": {"value": ada["Id"]}});
    caller
        .save("JournalEntry", entry(&[owed, line("5", "Credit", 1.0)]))
        .await;
    let found = caller
        .query("select * from JournalEntry where TxnDate = '2026-01-01'")
        .await;
    let found = &found["QueryResponse"]["JournalEntry"];
    assert_eq!(found.as_array().map(Vec::len), Some(2), "{found}");
    // It is changed as a whole, deleted, and seen among the changes.
    let mut changed = made.clone();
    changed["Line"][0]["Amount"] = json!(96.0);
    changed["Line"][1]["Amount"] = json!(4.0);
    let changed = caller.save("JournalEntry", changed).await;
    assert_eq!(changed["SyncToken"], "1");
    assert_eq!(caller.refused("journalentry", made).await, "5010");
    let gone = json!({"Id": "1", "SyncToken": "1"});
    caller.post("journalentry?operation=delete", gone).await;
    let path = "cdc?entities=JournalEntry&changedSince=2026-01-01T00:00:00Z";
    let answer = caller.call(Method::GET, path, "").await.expect("an answer");
    let seen = &super::read(&answer)["CDCResponse"][0]["QueryResponse"][0]["JournalEntry"];
    assert_eq!(seen[1]["status"], "Deleted", "{seen}");
}
