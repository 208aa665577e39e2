//! Lines of documents, and what they add up to.

use std::collections::HashMap;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, amount, list, one, set};
use super::settings::{applies, tax_percent};
use super::state::{Fields, Kind, text};
use crate::standins::money::{self, cents};

/// What a document asks of its lines.
pub struct Asked<'a> {
    /// `Exclusive`, `Inclusive` or `NoTax`.
    pub types: &'a str,
    /// Whether the document counts: lines of drafts may lack an account.
    pub counts: bool,
    /// Whether a line may have a discount.
    pub discounts: bool,
    /// Whether prices of items are those of sales.
    pub sale: bool,
}

#[derive(Debug)]
pub struct Lines {
    pub lines: Vec<Value>,
    pub sub_total: Decimal,
    pub total_tax: Decimal,
    pub discount: Decimal,
}

impl Lines {
    pub fn total(&self) -> Decimal {
        self.sub_total + self.total_tax
    }
}

/// 9,999,999,999.99.
const LARGEST: Decimal = Decimal::from_parts(0xd4a5_0fff, 0xe8, 0, false, 2);

/// Reads the lines of a document. One that comes with the id of a line that is there changes it; any
/// other is a new line, and those that do not come go.
pub fn read(
    books: &mut Books<'_>,
    sent: &[Value],
    old: &[Value],
    asked: &Asked<'_>,
) -> Result<Lines, Vec<String>> {
    let mut wrong = Vec::new();
    let known: HashMap<&str, &Fields> = old
        .iter()
        .filter_map(|line| Some((line["LineItemID"].as_str()?, line.as_object()?)))
        .collect();
    let mut all = Lines {
        lines: Vec::new(),
        sub_total: Decimal::ZERO,
        total_tax: Decimal::ZERO,
        discount: Decimal::ZERO,
    };
    for line in sent.iter().filter_map(Value::as_object) {
        let base = text(line, "LineItemID").and_then(|id| known.get(id).copied());
        let mut merged = line.clone();
        if let Some(base) = base {
            inherit(&mut merged, base);
        } else {
            merged.remove("LineItemID");
        }
        let Some(line) = line_of(books, merged, asked, &mut all, &mut wrong) else {
            continue;
        };
        all.lines.push(Value::Object(line));
    }
    if asked.types == "Inclusive" {
        all.sub_total -= all.total_tax;
    }
    match wrong.is_empty() {
        true => Ok(all),
        false => Err(wrong),
    }
}

/// What a changed line keeps of the line before. Amounts that follow from what was sent do not.
fn inherit(line: &mut Fields, base: &Fields) {
    let priced = ["Quantity", "UnitAmount", "DiscountRate", "DiscountAmount"]
        .iter()
        .any(|name| line.contains_key(*name));
    let taxed = priced || line.contains_key("TaxType") || line.contains_key("LineAmount");
    for (name, value) in base {
        let follows = name == "LineAmount" && priced || name == "TaxAmount" && taxed;
        if !follows && !line.contains_key(name) {
            line.insert(name.clone(), value.clone());
        }
    }
}

fn line_of(
    books: &mut Books<'_>,
    mut line: Fields,
    asked: &Asked<'_>,
    all: &mut Lines,
    wrong: &mut Vec<String>,
) -> Option<Fields> {
    let before = wrong.len();
    if let Some(code) = text(&line, "ItemCode").map(str::to_owned) {
        let item = books.shelf(Kind::Item).with("Code", &code).next().cloned();
        match item {
            Some(item) => of_item(&mut line, &item, asked.sale),
            None => wrong.push(format!("Item code '{code}' is not valid")),
        }
    }
    if text(&line, "Description").is_none_or(|words| words.trim().is_empty()) {
        wrong.push("Description must be specified for each line item".to_owned());
    }
    let discounted = line.contains_key("DiscountRate") || line.contains_key("DiscountAmount");
    if discounted && !asked.discounts {
        wrong.push("Discounts can only be used on sales invoices".to_owned());
    }
    let places = books.places;
    if let Some(price) = amount(&line, "UnitAmount") {
        let price = price
            .round_dp_with_strategy(places, rust_decimal::RoundingStrategy::MidpointAwayFromZero);
        set(&mut line, "UnitAmount", money::number(price));
    }
    let net = net(&mut line, all, wrong);
    let rate = coded(books, &mut line, asked, wrong);
    if net.abs() > LARGEST {
        wrong.push("The line amount is too large".to_owned());
    }
    let tax = match (asked.types, amount(&line, "TaxAmount")) {
        ("NoTax", _) => Decimal::ZERO,
        (_, Some(given)) => cents(given),
        ("Inclusive", None) => cents(net * rate / (Decimal::ONE_HUNDRED + rate)),
        (_, None) => cents(net * rate / Decimal::ONE_HUNDRED),
    };
    if wrong.len() > before {
        return None;
    }
    set(&mut line, "LineAmount", money::number(net));
    set(&mut line, "TaxAmount", money::number(tax));
    if !line.contains_key("LineItemID") {
        let id = books.new_id();
        set(&mut line, "LineItemID", id);
    }
    line.entry("Tracking").or_insert_with(|| json!([]));
    if list(&line, "Tracking").is_some_and(|all| all.len() > 2) {
        wrong.push("A line item can have at most 2 tracking categories".to_owned());
    }
    all.sub_total += net;
    all.total_tax += tax;
    Some(line)
}

/// What the item says where the line says nothing.
fn of_item(line: &mut Fields, item: &Fields, sale: bool) {
    let (words, details) = match sale {
        true => ("Description", "SalesDetails"),
        false => ("PurchaseDescription", "PurchaseDetails"),
    };
    let words = item.get(words).or_else(|| item.get("Name"));
    if let Some(words) = words
        && !line.contains_key("Description")
    {
        line.insert("Description".into(), words.clone());
    }
    let details = one(item, details);
    for (to, from) in [
        ("UnitAmount", "UnitPrice"),
        ("AccountCode", "AccountCode"),
        ("TaxType", "TaxType"),
    ] {
        let priced = to == "UnitAmount" && line.contains_key("LineAmount");
        if let Some(value) = details.and_then(|details| details.get(from))
            && !line.contains_key(to)
            && !priced
        {
            line.insert(to.into(), value.clone());
        }
    }
    if let Some(id) = item.get("ItemID") {
        let shown = json!({"ItemID": id, "Code": item["Code"], "Name": item.get("Name")});
        line.insert("Item".into(), shown);
    }
}

/// The amount of the line, after its discount.
fn net(line: &mut Fields, all: &mut Lines, wrong: &mut Vec<String>) -> Decimal {
    let given = amount(line, "LineAmount");
    let price = amount(line, "UnitAmount");
    if given.is_some() || price.is_some() {
        line.entry("Quantity").or_insert_with(|| json!(1.0));
    }
    let quantity = amount(line, "Quantity").unwrap_or_default();
    let Some(price) = price else {
        let net = cents(given.unwrap_or_default());
        if !quantity.is_zero() && given.is_some() {
            set(
                line,
                "UnitAmount",
                money::number((net / quantity).round_dp(4)),
            );
        }
        return net;
    };
    let gross = quantity * price;
    let off = match (amount(line, "DiscountRate"), amount(line, "DiscountAmount")) {
        (Some(rate), _) => gross * rate / Decimal::ONE_HUNDRED,
        (None, off) => off.unwrap_or_default(),
    };
    if off.abs() > gross.abs() {
        wrong.push("The discount cannot be more than the line amount".to_owned());
    }
    let net = cents(gross - off);
    all.discount += cents(gross) - net;
    if let Some(given) = given.map(cents)
        && given != net
    {
        wrong.push(format!(
            "The line total {given} does not match the expected line total {net}"
        ));
    }
    net
}

/// Checks account and tax of a line and answers the percentage of its tax.
fn coded(
    books: &Books<'_>,
    line: &mut Fields,
    asked: &Asked<'_>,
    wrong: &mut Vec<String>,
) -> Decimal {
    let by_id = text(line, "AccountID").and_then(|id| books.get(Kind::Account, id));
    if let Some(code) = by_id.and_then(|account| account.get("Code")).cloned() {
        line.entry("AccountCode").or_insert(code);
    }
    let code = text(line, "AccountCode").map(str::to_owned);
    let account = code.as_deref().and_then(|code| books.account(code));
    match (&code, account) {
        (Some(code), None) => wrong.push(format!(
            "Account code '{code}' is not a valid code for this document."
        )),
        (Some(code), Some(account))
            if text(account, "Type") == Some("BANK")
                || matches!(
                    text(account, "SystemAccount"),
                    Some("DEBTORS" | "CREDITORS")
                ) =>
        {
            wrong.push(format!(
                "Account code '{code}' is not a valid code for this document."
            ));
        }
        (None, _) if asked.counts && line.contains_key("LineAmount") => {
            wrong.push("Account code must be specified for each line item".to_owned());
        }
        (None, _) if asked.counts && line.contains_key("UnitAmount") => {
            wrong.push("Account code must be specified for each line item".to_owned());
        }
        _ => {}
    }
    let account = account.cloned();
    if asked.types == "NoTax" {
        set(line, "TaxType", "NONE");
        return Decimal::ZERO;
    }
    let usual = account
        .as_ref()
        .and_then(|account| account.get("TaxType"))
        .cloned();
    let tax = line
        .entry("TaxType")
        .or_insert_with(|| usual.unwrap_or_else(|| json!("NONE")))
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let rate = books.get(Kind::TaxRate, &tax);
    let Some(rate) = rate.filter(|rate| text(rate, "Status") == Some("ACTIVE")) else {
        wrong.push(format!(
            "The TaxType code '{tax}' does not exist or cannot be used"
        ));
        return Decimal::ZERO;
    };
    if let Some(account) = &account
        && !applies(rate, account)
    {
        let code = code.unwrap_or_default();
        wrong.push(format!(
            "The TaxType code '{tax}' cannot be used with account code '{code}'."
        ));
    }
    tax_percent(rate)
}
