//! What documents add up to.

use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::super::books::Books;
use super::super::lines::{self, Asked, Lines};
use super::super::seed::{self, NewOrganisation};
use super::super::state::State;
use super::{Caller, invoice, with};

/// `LineAmountTypes` and lines, and subtotal, tax and total.
#[tokio::test]
async fn totals() {
    let line = |changes: Value| {
        with(
            json!({"Description": "x", "AccountCode": "200", "TaxType": "OUTPUT2"}),
            changes,
        )
    };
    let price = |price: f64| line(json!({"Quantity": 1, "UnitAmount": price}));
    let rows = [
        ("Exclusive", vec![price(10.0)], [10.0, 2.0, 12.0]),
        ("Inclusive", vec![price(10.0)], [8.33, 1.67, 10.0]),
        ("NoTax", vec![price(10.0)], [10.0, 0.0, 10.0]),
        // Three times a third of a penny is nothing if each line is rounded by itself.
        ("Exclusive", vec![price(0.02); 3], [0.06, 0.0, 0.06]),
        ("Exclusive", vec![price(0.03); 3], [0.09, 0.03, 0.12]),
        ("Inclusive", vec![price(0.03); 3], [0.06, 0.03, 0.09]),
        // Half a penny goes up.
        (
            "Exclusive",
            vec![line(
                json!({"Quantity": 1, "UnitAmount": 0.1, "TaxType": "RROUTPUT"}),
            )],
            [0.1, 0.01, 0.11],
        ),
        (
            "Exclusive",
            vec![line(json!({"Quantity": 3, "UnitAmount": 9.99}))],
            [29.97, 5.99, 35.96],
        ),
        (
            "Exclusive",
            vec![line(json!({"LineAmount": 10}))],
            [10.0, 2.0, 12.0],
        ),
        (
            "Exclusive",
            vec![line(
                json!({"Quantity": 1, "UnitAmount": 10, "TaxAmount": 1.99}),
            )],
            [10.0, 1.99, 11.99],
        ),
        (
            "Inclusive",
            vec![line(
                json!({"Quantity": 1, "UnitAmount": 10, "TaxAmount": 1.6}),
            )],
            [8.4, 1.6, 10.0],
        ),
        (
            "Exclusive",
            vec![line(
                json!({"Quantity": 2, "UnitAmount": 10, "DiscountRate": 15}),
            )],
            [17.0, 3.4, 20.4],
        ),
        (
            "Exclusive",
            vec![line(
                json!({"Quantity": 2, "UnitAmount": 10, "DiscountAmount": 0.5}),
            )],
            [19.5, 3.9, 23.4],
        ),
        ("Exclusive", vec![price(10.0), price(-4.0)], [6.0, 1.2, 7.2]),
        (
            "Exclusive",
            vec![
                price(10.0),
                line(json!({"Quantity": 1, "UnitAmount": 5, "TaxType": "ZERORATEDOUTPUT"})),
            ],
            [15.0, 2.0, 17.0],
        ),
        // Two decimals, unless four are asked for.
        (
            "Exclusive",
            vec![line(json!({"Quantity": 100, "UnitAmount": 0.125}))],
            [13.0, 2.6, 15.6],
        ),
        (
            "Exclusive",
            vec![json!({"ItemCode": "MUG", "Quantity": 2})],
            [20.0, 4.0, 24.0],
        ),
        (
            "Exclusive",
            vec![json!({"Description": "a remark"}), price(10.0)],
            [10.0, 2.0, 12.0],
        ),
    ];
    for (types, lines, expected) in rows {
        let caller = Caller::stocked().await;
        let changes = json!({"LineAmountTypes": types, "LineItems": lines, "Total": 1});
        let told = changes.to_string();
        let made = caller
            .save("Invoices", with(invoice("S-9", "AUTHORISED"), changes))
            .await;
        let found = ["SubTotal", "TotalTax", "Total"].map(|name| made[name].as_f64());
        assert_eq!(found, expected.map(Some), "{told}");
        assert_eq!(made["AmountDue"], made["Total"]);
    }
    let caller = Caller::stocked().await;
    let fine = line(json!({"Quantity": 100, "UnitAmount": 0.125}));
    let fine = with(invoice("S-9", "AUTHORISED"), json!({"LineItems": [fine]}));
    let made = caller.save("Invoices?unitdp=4", fine).await;
    assert_eq!(
        (&made["SubTotal"], &made["LineItems"][0]["UnitAmount"]),
        (&json!(12.5), &json!(0.125))
    );
    let coarse = caller.get("Invoices/S-9").await;
    assert_eq!(coarse[0]["LineItems"][0]["UnitAmount"], json!(0.13));
}

fn read(types: &str, sent: &[(u32, i64, usize)]) -> Lines {
    let mut state = State::default();
    let mut happened = Vec::new();
    let now = chrono::DateTime::from_timestamp(1_767_225_600, 0).expect("a time");
    let mut books = Books {
        state: &mut state,
        tenant: "t",
        now,
        app: None,
        places: 2,
        happened: &mut happened,
    };
    let new = NewOrganisation {
        country: Some("GB".into()),
        ..NewOrganisation::default()
    };
    seed::open(&mut books, &new).expect("an organisation");
    let sent: Vec<Value> = sent
        .iter()
        .map(|(quantity, pence, rate)| {
            let price = Decimal::new(*pence, 2).to_string().parse::<f64>().expect("a number");
            json!({"Description": "x", "Quantity": quantity, "UnitAmount": price, "AccountCode": "200", "TaxType": RATES[*rate].0})
        })
        .collect();
    let asked = Asked {
        types,
        counts: true,
        discounts: true,
        sale: true,
    };
    lines::read(&mut books, &sent, &[], &asked).expect("good lines")
}

const RATES: [(&str, i64); 3] = [("OUTPUT2", 20), ("RROUTPUT", 5), ("ZERORATEDOUTPUT", 0)];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// The same in whole pence, without the decimals that the rules are written in.
    #[test]
    fn lines_in_pence(all in proptest::collection::vec((1..50_u32, 0..100_000_i64, 0..3_usize), 1..12)) {
        let net: Vec<i64> = all.iter().map(|(quantity, pence, _)| i64::from(*quantity) * pence).collect();
        let sum: i64 = net.iter().sum();
        let halves_up = |above: i64, below: i64| (2 * above + below) / (2 * below);
        let tax = |of: &dyn Fn(i64, i64) -> i64| -> i64 {
            net.iter().zip(&all).map(|(net, (.., rate))| of(*net, RATES[*rate].1)).sum()
        };
        let exclusive = tax(&|net, rate| halves_up(net * rate, 100));
        let inclusive = tax(&|net, rate| halves_up(net * rate, 100 + rate));
        for (types, tax, total) in [("Exclusive", exclusive, sum + exclusive), ("Inclusive", inclusive, sum), ("NoTax", 0, sum)] {
            let found = read(types, &all);
            prop_assert_eq!(found.total_tax, Decimal::new(tax, 2));
            prop_assert_eq!(found.total(), Decimal::new(total, 2));
            prop_assert_eq!(found.sub_total, Decimal::new(total - tax, 2));
        }
    }
}

fn transfer(from: &str, to: &str, amount: f64) -> Value {
    json!({
        "FromBankAccount": {"Code": from}, "ToBankAccount": {"Code": to}, "Amount": amount,
        "Date": "2026-01-01", "Reference": "payout 1",
    })
}

/// A caller of an organisation with three bank accounts, one of them in euros.
async fn with_banks() -> Caller {
    let caller = Caller::new().await;
    for (code, currency) in [("091", "GBP"), ("092", "EUR")] {
        let bank = json!({
            "Code": code, "Name": format!("Bank {code}"), "Type": "BANK",
            "BankAccountNumber": code, "CurrencyCode": currency,
        });
        let (status, made) = caller.call("PUT", "Accounts", &bank).await;
        assert_eq!(status, 200, "{made}");
    }
    caller
}

#[tokio::test]
async fn a_transfer_is_made_and_deleted_and_never_changed() {
    let caller = with_banks().await;
    for (sent, refusal) in [
        (transfer("090", "090", 1.0), "comes from"),
        (transfer("090", "092", 1.0), "different currencies"),
        (transfer("090", "200", 1.0), "ToBankAccount"),
        (transfer("090", "091", 0.0), "greater than zero"),
        (transfer("090", "091", -1.0), "greater than zero"),
    ] {
        let (status, answer) = caller.call("PUT", "BankTransfers", &sent).await;
        let told = answer["Elements"][0]["ValidationErrors"].to_string();
        assert!(status == 400 && told.contains(refusal), "{sent}: {answer}");
    }
    let mut closed = transfer("090", "091", 1.0);
    closed["Date"] = json!("2025-12-31");
    let (status, answer) = caller.call("PUT", "BankTransfers", &closed).await;
    assert!(
        status == 400 && answer.to_string().contains("lock date"),
        "{answer}"
    );
    let sent = json!({"BankTransfers": [transfer("090", "091", 97.5)]});
    let (status, made) = caller.call("PUT", "BankTransfers", &sent).await;
    assert_eq!(status, 200, "{made}");
    let made = &made["BankTransfers"][0];
    assert_eq!(
        (
            &made["Amount"],
            &made["Status"],
            &made["FromBankAccount"]["Code"]
        ),
        (&json!(97.5), &json!("AUTHORISED"), &json!("090"))
    );
    assert!(made.get("UpdatedDateUTC").is_none() && made["CreatedDateUTC"].is_string());
    // Both ends stand among the bank transactions, and only the transfer changes them.
    let ends = caller.get("BankTransactions?page=1").await;
    let kinds: Vec<&Value> = ends
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["Type"])
        .collect();
    assert_eq!(kinds, ["SPEND-TRANSFER", "RECEIVE-TRANSFER"]);
    assert_eq!(ends[0]["Reference"], "payout 1");
    let end = json!({"BankTransactionID": ends[0]["BankTransactionID"], "Status": "DELETED"});
    let (status, answer) = caller.call("POST", "BankTransactions", &end).await;
    assert_eq!(status, 400, "{answer}");
    let id = made["BankTransferID"].as_str().unwrap();
    let path = format!("BankTransfers/{id}");
    let (status, _) = caller.call("POST", &path, &json!({"Amount": 1})).await;
    assert_eq!(status, 400);
    let gone = json!({"BankTransfers": [{"BankTransferID": id, "Status": "DELETED"}]});
    let (status, answer) = caller.call("POST", "BankTransfers", &gone).await;
    assert_eq!(
        (status, &answer["BankTransfers"][0]["Status"]),
        (200, &json!("DELETED"))
    );
    assert_eq!(caller.get("BankTransfers").await, json!([]));
    let all = caller.get("BankTransfers?includeDeleted=true").await;
    assert_eq!(all[0]["Status"], "DELETED");
    let ends = caller.get("BankTransactions?page=1").await;
    assert_eq!(
        (&ends[0]["Status"], &ends[1]["Status"]),
        (&json!("DELETED"), &json!("DELETED"))
    );
}
