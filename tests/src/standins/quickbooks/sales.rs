//! Rules of sales forms: sales receipts, refund receipts, invoices, credit memos.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::books::{Books, Options, stamp};
use super::fault::Fault;
use super::money::{self, cents, number};
use super::names::{self, addresses, email, lengths, reference_to};
use super::state::text;
use super::tax;

type Fields = Map<String, Value>;

pub const SHIPPING: &str = "SHIPPING_ITEM_ID";

/// What the lines of a form come to.
#[derive(Default)]
pub struct Sums {
    pub sales: Decimal,
    pub discount: Decimal,
    pub discount_percent: Option<Decimal>,
    /// Net amount of each line that carries a tax code.
    pub taxed: Vec<(String, Decimal)>,
}

pub fn transaction(
    books: &Books<'_>,
    entity: &'static str,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
    options: Options,
) -> Result<(), Fault> {
    if fields
        .get("Line")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        return Err(Fault::missing("Line"));
    }
    let reference_length = if entity == "RefundReceipt" { 100 } else { 21 };
    lengths(
        fields,
        &[
            ("DocNumber", 21),
            ("PrivateNote", 4000),
            ("CustomerMemo.value", 1000),
            ("PaymentRefNum", reference_length),
        ],
    )?;
    addresses(fields)?;
    email(fields, "BillEmail")?;
    let currency = parties(books, entity, fields)?;
    let mut sums = lines(books, fields)?;
    if let Some(percent) = sums.discount_percent {
        sums.discount = cents(sums.sales * percent / Decimal::ONE_HUNDRED);
    }
    finish_lines(books, fields, &sums);
    let total_tax = tax::apply(books, fields, &sums)?;
    let total = sums.sales - sums.discount + total_tax;
    if total < Decimal::ZERO {
        return Err(Fault::business("Transaction amount must be 0 or greater."));
    }
    fields.insert("TotalAmt".to_owned(), number(total));
    home_amount(books, fields, &currency, total);
    deposit(books, entity, fields, &currency)?;
    if let Some(reference) = fields.get("PaymentMethodRef") {
        let method = books.referenced("PaymentMethod", reference)?;
        fields.insert("PaymentMethodRef".to_owned(), reference_to(&method, "Name"));
    }
    document_number(books, entity, id, fields, before, options)?;
    let today = stamp(books.now)[..10].to_owned();
    fields.entry("TxnDate").or_insert(json!(today));
    fields.entry("PrintStatus").or_insert(json!("NotSet"));
    fields.entry("EmailStatus").or_insert(json!("NotSet"));
    fields
        .entry("ApplyTaxAfterDiscount")
        .or_insert(json!(false));
    fields.entry("CustomField").or_insert(json!([]));
    if matches!(entity, "SalesReceipt" | "RefundReceipt") {
        fields.insert("Balance".to_owned(), number(Decimal::ZERO));
    }
    if entity == "Invoice" {
        let due = fields["TxnDate"].clone();
        fields.entry("DueDate").or_insert(due);
    }
    if entity == "RefundReceipt"
        && text_of(fields, "PrintStatus") == Some("PrintComplete")
        && !fields.contains_key("PaymentRefNum")
    {
        return Err(Fault::missing("PaymentRefNum"));
    }
    Ok(())
}

fn text_of<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// The customer and the currency, which must be the customer's.
pub fn parties(books: &Books<'_>, entity: &str, fields: &mut Fields) -> Result<String, Fault> {
    let customer = match fields.get("CustomerRef") {
        Some(reference) => Some(books.referenced("Customer", reference)?),
        None if entity == "RefundReceipt" => None,
        None => return Err(Fault::missing("CustomerRef")),
    };
    if let Some(customer) = &customer {
        fields.insert(
            "CustomerRef".to_owned(),
            reference_to(customer, "DisplayName"),
        );
    }
    let asked = fields
        .get("CurrencyRef")
        .and_then(|reference| text(reference, "value"))
        .map(str::to_owned);
    let home = books.home_currency();
    if !books.multicurrency() {
        if asked.is_some() || fields.contains_key("ExchangeRate") {
            return Err(names::no_multicurrency());
        }
        fields.insert("CurrencyRef".to_owned(), names::currency_ref(&home));
        return Ok(home);
    }
    if asked.is_none() && entity == "SalesReceipt" {
        return Err(Fault::missing("CurrencyRef"));
    }
    let theirs = customer
        .as_ref()
        .and_then(|customer| customer["CurrencyRef"]["value"].as_str())
        .unwrap_or(&home)
        .to_owned();
    let currency = asked.unwrap_or_else(|| theirs.clone());
    names::currency_is_known(&currency)?;
    if customer.is_some() && currency != theirs {
        return Err(Fault::business(format!(
            "The currency of the transaction ({currency}) must be the currency of the customer ({theirs})."
        )));
    }
    fields.insert("CurrencyRef".to_owned(), names::currency_ref(&currency));
    Ok(currency)
}

pub fn home_amount(books: &Books<'_>, fields: &mut Fields, currency: &str, total: Decimal) {
    let home = books.home_currency();
    if currency == home {
        fields.remove("ExchangeRate");
        fields.remove("HomeTotalAmt");
        return;
    }
    let rate = fields
        .get("ExchangeRate")
        .and_then(money::decimal)
        .unwrap_or_else(|| money::rate(currency, &home));
    fields.insert("ExchangeRate".to_owned(), number(rate));
    fields.insert("HomeTotalAmt".to_owned(), number(cents(total * rate)));
}

fn lines(books: &Books<'_>, fields: &mut Fields) -> Result<Sums, Fault> {
    let how = text_of(fields, "GlobalTaxCalculation").map(str::to_owned);
    let Some(Value::Array(all)) = fields.get_mut("Line") else {
        return Err(Fault::missing("Line"));
    };
    // The subtotal is the service's own line; one that comes in is written anew.
    all.retain(|line| text(line, "DetailType") != Some("SubTotalLineDetail"));
    let mut sums = Sums::default();
    for line in all.iter_mut() {
        let kind = text(line, "DetailType")
            .ok_or_else(|| Fault::missing("DetailType"))?
            .to_owned();
        if let Some(description) = text(line, "Description") {
            let length = description.chars().count();
            if length > 4000 {
                return Err(Fault::length("Line.Description", 4000, length));
            }
        }
        match kind.as_str() {
            "SalesItemLineDetail" => sales_line(books, line, how.as_deref(), &mut sums)?,
            "DiscountLineDetail" => discount_line(books, line, &mut sums)?,
            "DescriptionOnly" => {}
            other => {
                return Err(Fault::business(format!(
                    "A line of type {other} cannot be used on this form."
                )));
            }
        }
    }
    if all.is_empty() {
        return Err(Fault::missing("Line"));
    }
    Ok(sums)
}

fn sales_line(
    books: &Books<'_>,
    line: &mut Value,
    how: Option<&str>,
    sums: &mut Sums,
) -> Result<(), Fault> {
    let amount = line
        .get("Amount")
        .and_then(money::decimal)
        .ok_or_else(|| Fault::missing("Amount"))?;
    let detail = line
        .get("SalesItemLineDetail")
        .ok_or_else(|| Fault::missing("SalesItemLineDetail"))?;
    let quantity = detail.get("Qty").and_then(money::decimal);
    let price = detail.get("UnitPrice").and_then(money::decimal);
    if let (Some(quantity), Some(price)) = (quantity, price) {
        // Either way of rounding the half cent is taken.
        let apart = quantity
            .checked_mul(price)
            .map_or(Decimal::MAX, |exact| (exact - amount).abs());
        if apart > Decimal::new(5, 3) {
            return Err(Fault::new(
                "6070",
                "Amount calculation incorrect in the request",
                format!("Amount is not equal to UnitPrice * Qty. Supplied value:{amount}"),
            )
            .at("Line.Amount"));
        }
    }
    let item = item_of(books, detail)?;
    let code = tax::line_code(books, detail, how == Some("NotApplicable"))?;
    let amount = cents(amount);
    sums.sales += amount;
    sums.taxed.push((code.clone(), amount));
    line["Amount"] = number(amount);
    let detail = &mut line["SalesItemLineDetail"];
    detail["ItemRef"] = item;
    if !code.is_empty() {
        detail["TaxCodeRef"] = json!({"value": code});
    }
    Ok(())
}

fn item_of(books: &Books<'_>, detail: &Value) -> Result<Value, Fault> {
    let default = json!({"value": "1"});
    let reference = detail.get("ItemRef").unwrap_or(&default);
    if text(reference, "value") == Some(SHIPPING) {
        if !books.sales_form("AllowShipping") {
            return Err(Fault::business("Shipping is turned off for this company."));
        }
        return Ok(json!({"value": SHIPPING}));
    }
    let item = books.referenced("Item", reference)?;
    if text(&item, "Type") == Some("Category") {
        return Err(Fault::business("A category cannot be sold."));
    }
    Ok(reference_to(&item, "Name"))
}

fn discount_line(books: &Books<'_>, line: &mut Value, sums: &mut Sums) -> Result<(), Fault> {
    if !books.sales_form("AllowDiscount") {
        return Err(Fault::business(
            "Discounts are turned off for this company.",
        ));
    }
    let detail = line
        .get("DiscountLineDetail")
        .ok_or_else(|| Fault::missing("DiscountLineDetail"))?;
    let percent = detail.get("DiscountPercent").and_then(money::decimal);
    let by_percent = detail["PercentBased"].as_bool().unwrap_or(false);
    if sums.discount_percent.is_some() || !sums.discount.is_zero() {
        return Err(Fault::business("A form can have one discount line only."));
    }
    match (
        by_percent,
        percent,
        line.get("Amount").and_then(money::decimal),
    ) {
        (true, Some(percent), _) => sums.discount_percent = Some(percent),
        (false, _, Some(amount)) => sums.discount = cents(amount),
        _ => {
            return Err(Fault::new(
                "6090",
                "Discount Line missing required info",
                "A discount amount or percent is required",
            ));
        }
    }
    let account = match detail.get("DiscountAccountRef") {
        Some(reference) => books.referenced("Account", reference)?,
        None => account_of_subtype(books, "DiscountsRefundsGiven")?,
    };
    if !matches!(
        text(&account, "AccountType"),
        Some("Income" | "Other Income")
    ) {
        return Err(Fault::business(
            "The account for discounts must be an income account.",
        ));
    }
    line["DiscountLineDetail"]["PercentBased"] = json!(by_percent);
    line["DiscountLineDetail"]["DiscountAccountRef"] = reference_to(&account, "Name");
    Ok(())
}

pub fn account_of_subtype(books: &Books<'_>, subtype: &str) -> Result<Value, Fault> {
    books
        .company()
        .all("Account")
        .map(|(_, account)| account)
        .find(|account| text(account, "AccountSubType") == Some(subtype))
        .cloned()
        .ok_or_else(|| Fault::reference("Accounts", subtype))
}

/// Numbers the lines, writes the discount that came of a percentage, adds the subtotal.
fn finish_lines(_books: &Books<'_>, fields: &mut Fields, sums: &Sums) {
    let Some(Value::Array(all)) = fields.get_mut("Line") else {
        return;
    };
    let taken = |line: &Value| text(line, "Id").and_then(|id| id.parse::<u64>().ok());
    let mut next = all.iter().filter_map(taken).max().unwrap_or(0) + 1;
    for (place, line) in all.iter_mut().enumerate() {
        if text(line, "DetailType") == Some("DiscountLineDetail") {
            line["Amount"] = number(sums.discount);
        } else {
            line["LineNum"] = json!(place + 1);
        }
        if line.get("Id").is_none() {
            line["Id"] = json!(next.to_string());
            next += 1;
        }
    }
    all.push(json!({
        "Amount": number(sums.sales),
        "DetailType": "SubTotalLineDetail",
        "SubTotalLineDetail": {},
    }));
}

/// Where the money lies: undeposited funds unless a bank account is named.
pub fn deposit(
    books: &Books<'_>,
    entity: &str,
    fields: &mut Fields,
    currency: &str,
) -> Result<(), Fault> {
    let account = match (fields.get("DepositToAccountRef"), entity) {
        (Some(reference), _) => books.referenced("Account", reference)?,
        (None, "SalesReceipt" | "Payment") => account_of_subtype(books, "UndepositedFunds")?,
        (None, "RefundReceipt") => return Err(Fault::missing("DepositToAccountRef")),
        (None, _) => return Ok(()),
    };
    if !matches!(
        text(&account, "AccountType"),
        Some("Bank" | "Other Current Asset")
    ) {
        return Err(Fault::business(
            "The account for the money must be a bank account or another current asset.",
        ));
    }
    let held = account["CurrencyRef"]["value"].as_str();
    if held.is_some_and(|held| held != currency && held != books.home_currency()) {
        return Err(Fault::business(
            "The account for the money must be in the currency of the transaction or in the home currency.",
        ));
    }
    fields.insert(
        "DepositToAccountRef".to_owned(),
        reference_to(&account, "Name"),
    );
    Ok(())
}

fn document_number(
    books: &Books<'_>,
    entity: &str,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
    options: Options,
) -> Result<(), Fault> {
    if !books.sales_form("CustomTxnNumbers") {
        // The company numbers its forms itself and passes over what is sent.
        let given = before
            .and_then(|before| text(before, "DocNumber"))
            .map_or_else(|| (1000 + id).to_string(), str::to_owned);
        fields.insert("DocNumber".to_owned(), json!(given));
        return Ok(());
    }
    let Some(wanted) = text_of(fields, "DocNumber").map(str::to_owned) else {
        return Ok(());
    };
    if !books.settings().forbid_duplicate_doc_numbers || options.allow_duplicate_doc_number {
        return Ok(());
    }
    let other = books
        .company()
        .documents
        .get(&(entity.to_owned(), wanted.clone()))
        .and_then(|ids| ids.iter().find(|other| **other != id));
    match other {
        None => Ok(()),
        Some(other) => Err(Fault::new(
            "6140",
            "Duplicate Document Number Error",
            format!(
                "Duplicate Document Number Error : You must specify a different number. This number has already been used. DocNumber={wanted} is assigned to TxnType={} with TxnId={other}",
                spoken(entity)
            ),
        )),
    }
}

fn spoken(entity: &str) -> &str {
    match entity {
        "SalesReceipt" => "Sales Receipt",
        "RefundReceipt" => "Refund Receipt",
        "CreditMemo" => "Credit Memo",
        other => other,
    }
}

/// Takes the amounts out of a document.
pub fn void(value: &mut Value, entity: &str) {
    value["TotalAmt"] = json!(0);
    value["PrivateNote"] = json!("Voided");
    if value.get("HomeTotalAmt").is_some() {
        value["HomeTotalAmt"] = json!(0);
    }
    if entity == "Payment" {
        value["UnappliedAmt"] = json!(0);
        value["Line"] = json!([]);
        return;
    }
    if let Some(tax) = value.get_mut("TxnTaxDetail") {
        *tax = json!({"TotalTax": 0});
    }
    if let Some(lines) = value.get_mut("Line").and_then(Value::as_array_mut) {
        for line in lines {
            line["Amount"] = json!(0);
            if let Some(detail) = line.get_mut("SalesItemLineDetail") {
                detail["Qty"] = json!(0);
            }
        }
    }
}
