//! The report: a table for a person, and one line of JSON for a program.

use super::books::{Accepted, Comparison, Deliveries, Found, sums};
use super::connections::Connected;
use super::say;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many names of a list are shown before the rest is only counted.
const NAMES_SHOWN_MAX: usize = 5;

/// What sending came to.
#[derive(Debug, Default)]
pub struct Sent {
    pub accepted: Accepted,
    pub events_accepted: usize,
    /// Answered as before, of those sent one by one: a batch does not say.
    pub replayed: usize,
    /// By reason, what was left out or refused.
    pub refused: BTreeMap<String, Vec<String>>,
    /// Answers that were not the expected ones.
    pub surprises: Vec<String>,
}

/// Shows the report and says whether all of it holds.
pub fn show(sent: &Sent, found: &Found, connected: &Connected, elapsed: Duration) -> bool {
    let receipts = sent.accepted.receipts();
    let refunds = sent.accepted.refunds();
    let sales_sent = sums(receipts.values());
    let refunds_sent = sums(refunds.values());

    say(&row(
        "",
        &[&"expected", &"found", &"missing", &"doubled", &"different"],
    ));
    show_counts("sales receipts", receipts.len(), &found.receipts);
    show_counts("refund receipts", refunds.len(), &found.refunds);
    let webhooks = sent.accepted.webhooks().len();
    let deliveries = &found.deliveries;
    say(&row(
        "webhooks verified",
        &[
            &webhooks,
            &deliveries.verified,
            &deliveries.missing.len(),
            &"-",
            &deliveries.refused,
        ],
    ));
    say("");
    say(&row(
        "minor units",
        &[&"sent", &"in the books", &"difference"],
    ));
    show_sums("sales", &sales_sent, &found.receipts.sums);
    show_sums("refunds", &refunds_sent, &found.refunds.sums);
    say("");
    let yes = |is: bool| if is { "yes" } else { "NO" };
    say(&format!(
        "  {} of {} providers connected; the one that lost its access repaired: {}, told by webhook: {}",
        connected.live.len(),
        connected.offered,
        yes(connected.repaired),
        yes(connected.told)
    ));
    let orders = sent.accepted.orders();
    say(&format!(
        "  {orders} orders accepted, {} events",
        sent.events_accepted
    ));
    for (reason, names) in &sent.refused {
        say(&format!("  refused, {reason}: {}", list(names)));
    }
    let again = deliveries.duplicates;
    say(&format!(
        "  {} deliveries, {again} of them again",
        deliveries.delivered
    ));
    if found.receipts.others + found.refunds.others > 0 {
        let others = found.receipts.others + found.refunds.others;
        say(&format!(
            "  {others} more documents in the books are of other runs"
        ));
    }
    for (what, names) in faults(sent, found) {
        say(&format!("  WRONG, {what}: {}", list(names)));
    }
    if deliveries.refused > 0 {
        say(&format!(
            "  WRONG, deliveries whose signature did not hold: {}",
            deliveries.refused
        ));
    }
    let holds = sent.surprises.is_empty() && found.holds() && connected.holds();
    let verdict = if holds {
        "All of it holds."
    } else {
        "It does not hold."
    };
    say(&format!("  {verdict} {:.1} s\n", elapsed.as_secs_f64()));

    let refused: BTreeMap<&String, usize> = sent
        .refused
        .iter()
        .map(|(reason, names)| (reason, names.len()))
        .collect();
    let line = json!({
        "ok": holds,
        "orders_accepted": orders,
        "events_accepted": sent.events_accepted,
        "replayed": sent.replayed,
        "refused": refused,
        "surprises": sent.surprises.len(),
        "receipts": counts(receipts.len(), &found.receipts),
        "refunds": counts(refunds.len(), &found.refunds),
        "minor_units": both(
            [("sales", &sales_sent), ("refunds", &refunds_sent)],
            [("sales", &found.receipts.sums), ("refunds", &found.refunds.sums)],
        ),
        "webhooks": webhook_counts(webhooks, deliveries),
        "connections": {
            "offered": connected.offered,
            "live": connected.live,
            "repaired": connected.repaired,
            "told": connected.told,
        },
        "seconds": (elapsed.as_secs_f64() * 10.0).round() / 10.0,
    });
    say(&line.to_string());
    holds
}

/// Everything that does not hold, with the names it is about.
fn faults<'a>(sent: &'a Sent, found: &'a Found) -> Vec<(&'static str, &'a [String])> {
    let all: [(&'static str, &[String]); 8] = [
        ("other answers than expected", &sent.surprises),
        ("sales receipts that are missing", &found.receipts.missing),
        ("sales receipts that are doubled", &found.receipts.doubled),
        (
            "sales receipts of another amount",
            &found.receipts.different,
        ),
        ("refund receipts that are missing", &found.refunds.missing),
        ("refund receipts that are doubled", &found.refunds.doubled),
        (
            "refund receipts of another amount",
            &found.refunds.different,
        ),
        ("webhooks that are missing", &found.deliveries.missing),
    ];
    all.into_iter()
        .filter(|(_, names)| !names.is_empty())
        .collect()
}

fn row(name: &str, cells: &[&dyn std::fmt::Display]) -> String {
    let cells: String = cells
        .iter()
        .map(|cell| format!("{:>14}", cell.to_string()))
        .collect();
    format!("  {name:<18}{cells}")
}

fn show_counts(name: &str, expected: usize, found: &Comparison) {
    let (missing, doubled) = (found.missing.len(), found.doubled.len());
    say(&row(
        name,
        &[
            &expected,
            &found.found,
            &missing,
            &doubled,
            &found.different.len(),
        ],
    ));
}

fn show_sums(name: &str, sent: &BTreeMap<String, i64>, found: &BTreeMap<String, i64>) {
    for currency in currencies(&[sent, found]) {
        let of = |sums: &BTreeMap<String, i64>| sums.get(currency).copied().unwrap_or_default();
        let (ours, theirs) = (of(sent), of(found));
        say(&row(
            &format!("{name} {currency}"),
            &[&ours, &theirs, &(theirs - ours)],
        ));
    }
}

fn currencies<'a>(sums: &[&'a BTreeMap<String, i64>]) -> BTreeSet<&'a String> {
    sums.iter().flat_map(|sums| sums.keys()).collect()
}

fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(NAMES_SHOWN_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    match names.len().saturating_sub(NAMES_SHOWN_MAX) {
        0 => format!("{} ({shown})", names.len()),
        _ => format!("{} ({shown}, …)", names.len()),
    }
}

fn counts(expected: usize, found: &Comparison) -> Value {
    json!({
        "expected": expected,
        "in_quickbooks": found.found,
        "missing": found.missing.len(),
        "doubled": found.doubled.len(),
        "different": found.different.len(),
    })
}

fn webhook_counts(expected: usize, deliveries: &Deliveries) -> Value {
    json!({
        "expected": expected,
        "verified": deliveries.verified,
        "delivered": deliveries.delivered,
        "refused": deliveries.refused,
        "duplicates": deliveries.duplicates,
    })
}

/// `{"USD":{"sales":{"sent":1,"in_quickbooks":1},"refunds":{…}}}`
fn both(
    sent: [(&str, &BTreeMap<String, i64>); 2],
    found: [(&str, &BTreeMap<String, i64>); 2],
) -> Value {
    let mut all = json!({});
    for (side, kinds) in [("sent", sent), ("in_quickbooks", found)] {
        for currency in currencies(&[sent[0].1, sent[1].1, found[0].1, found[1].1]) {
            for (kind, sums) in kinds {
                let minor = sums.get(currency).copied().unwrap_or_default();
                all[currency][kind][side] = minor.into();
            }
        }
    }
    all
}
