//! Between the canonical model and QuickBooks' bodies.
//!
//! A receipt's total is lines − discount + shipping + `TxnTaxDetail.TotalTax`. In a company of the
//! United States a given total tax is honoured and spread by QuickBooks, and a line only says
//! whether it is taxable (`TAX` or `NON`), so the shop's own tax is what the books show.

use super::settings::Settings;
use crate::model::allocate::allocate;
use crate::model::money::{Currency, Money};
use crate::model::order::{Line, Order, Payment, Refund};
use crate::model::people::Customer;
use crate::providers::Fault;
use crate::providers::accounting::{Dependency, DependencyKind, Document, References};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Longest values that QuickBooks takes, in characters (entity reference).
const DISPLAY_NAME_MAX: usize = 500;
const ITEM_NAME_MAX: usize = 100;
const DESCRIPTION_MAX: usize = 4000;
const DOC_NUMBER_MAX: usize = 21;
const PHONE_MAX: usize = 30;
/// The item that stands for shipping; QuickBooks makes it when shipping is switched on.
const SHIPPING_ITEM: &str = "SHIPPING_ITEM_ID";
/// The customer of every guest, and the item of a refund that names no goods.
const GUEST: &str = "Guest";
const REFUND_ITEM: &str = "REFUND";

fn refused<T>(code: &str, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused {
        code: code.to_owned(),
        detail: detail.into(),
    })
}

/// The parts that a sale and a refund share.
struct Parts<'a> {
    currency: Currency,
    customer: Option<&'a Customer>,
    lines: Vec<Part>,
    shipping: i64,
    discount: i64,
    tax: i64,
    total: i64,
}

/// One line with the amount that the books get.
struct Part {
    sku: String,
    name: String,
    amount: Money,
    /// Quantity and unit price, where their product is the amount to the last digit.
    priced: Option<(Decimal, Decimal)>,
    /// Said in words where it is not.
    note: Option<String>,
    taxable: bool,
}

fn part(line: &Line, net: i64) -> Part {
    let amount = Money::new(net, line.total.currency);
    // QuickBooks refuses a line whose amount is not quantity × price (fault 6070), and rounds its
    // own way, so both are named only where there is nothing to round.
    let exact = line.quantity.checked_mul(line.unit_price) == Some(amount.major());
    let (quantity, price) = (line.quantity.normalize(), line.unit_price.normalize());
    Part {
        sku: line.sku.clone(),
        name: line.name.clone(),
        amount,
        priced: exact.then_some((quantity, price)),
        note: (!exact).then(|| format!("{quantity} × {price}")),
        taxable: line.taxable,
    }
}

fn sale(order: &Order) -> Parts<'_> {
    let mut weights: Vec<i64> = order.lines.iter().map(|line| line.total.amount).collect();
    weights.push(order.shipping_amount());
    // Where prices include tax, the books get them without: the tax is taken out of every part in
    // proportion, to the last unit.
    let included = if order.prices_include_tax {
        order.tax_amount()
    } else {
        0
    };
    let taxes = allocate(included, &weights);
    let lines = order.lines.iter().zip(&taxes);
    Parts {
        currency: order.currency,
        customer: order.customer.as_ref(),
        lines: lines
            .map(|(line, tax)| part(line, line.total.amount - tax))
            .collect(),
        shipping: order.shipping_amount() - taxes.last().copied().unwrap_or(0),
        discount: order.discount_amount(),
        tax: order.tax_amount(),
        total: order.total.amount,
    }
}

fn refund<'a>(refund: &'a Refund, order: Option<&'a Order>) -> Parts<'a> {
    let currency = refund.amount.currency;
    let shipping = refund.shipping.map_or(0, |money| money.amount);
    let tax = refund.tax.map_or(0, |money| money.amount);
    let mut lines: Vec<Part> = refund
        .lines
        .iter()
        .map(|line| part(line, line.total.amount))
        .collect();
    let goods = refund.amount.amount - shipping - tax;
    if lines.is_empty() && goods != 0 {
        let name = refund.reason.clone().unwrap_or_else(|| "Refund".to_owned());
        lines.push(Part {
            sku: REFUND_ITEM.to_owned(),
            name,
            amount: Money::new(goods, currency),
            priced: None,
            note: None,
            taxable: tax != 0,
        });
    }
    Parts {
        currency,
        customer: order.map_or(refund.customer.as_ref(), |order| order.customer.as_ref()),
        lines,
        shipping,
        discount: 0,
        tax,
        total: refund.amount.amount,
    }
}

/// The parts of `document`; `None` for a payment, which has none.
fn parts<'a>(document: Document<'a>) -> Option<Parts<'a>> {
    match document {
        Document::SalesReceipt(order) | Document::Invoice(order) => Some(sale(order)),
        Document::RefundReceipt(of, order)
        | Document::CreditNote(of, order)
        | Document::RefundPayment(of, order) => Some(refund(of, order)),
        Document::Payment { .. } => None,
    }
}

/// A name that QuickBooks takes: no colon, tab or line break, no space at the ends, not too long.
fn clean(name: &str, max: usize) -> String {
    let replaced: String = name
        .chars()
        .map(|c| if c == ':' || c.is_control() { ' ' } else { c })
        .collect();
    let words: Vec<&str> = replaced.split_whitespace().collect();
    let cut: String = words.join(" ").chars().take(max).collect();
    cut.trim_end().to_owned()
}

fn item_name(sku: &str) -> String {
    // Names are equal without regard to case, so one spelling is used for all.
    clean(&sku.to_uppercase(), ITEM_NAME_MAX)
}

fn customer_key(customer: Option<&Customer>, currency: Currency) -> String {
    match customer {
        // An id holds no `/`, so a guest's key is nobody else's.
        Some(customer) => format!("id/{}/{currency}", customer.id),
        None => format!("guest/{currency}"),
    }
}

pub fn dependencies(document: Document, settings: &Settings) -> Result<Vec<Dependency>, Fault> {
    let parts = parts(document);
    let currency = document.total().currency;
    let customer = match document {
        Document::Payment { order, .. } => order.customer.as_ref(),
        _ => parts.as_ref().and_then(|parts| parts.customer),
    };
    let foreign = currency.code() != settings.home_currency;
    if foreign && !settings.multicurrency {
        return refused(
            "currency_off",
            format!(
                "this is in {}, and QuickBooks keeps books in {} only; switch on multicurrency \
                 in QuickBooks (Account and settings, Advanced), then retry",
                currency, settings.home_currency
            ),
        );
    }
    let mut dependencies = vec![customer_dependency(customer, currency, foreign)];
    if settings.multicurrency {
        dependencies[0].body["CurrencyRef"] = json!({ "value": currency.code() });
    }
    for part in parts.iter().flat_map(|parts| &parts.lines) {
        let name = item_name(&part.sku);
        if dependencies
            .iter()
            .any(|d| d.kind == DependencyKind::Item && d.key == name)
        {
            continue;
        }
        let description: String = part.name.chars().take(DESCRIPTION_MAX).collect();
        dependencies.push(Dependency {
            kind: DependencyKind::Item,
            key: name.clone(),
            names: vec![name.clone()],
            mark: None,
            body: json!({
                "Type": "NonInventory",
                "Sku": name,
                "Description": description,
                "IncomeAccountRef": { "value": settings.income_account },
            }),
        });
    }
    Ok(dependencies)
}

fn customer_dependency(
    customer: Option<&Customer>,
    currency: Currency,
    foreign: bool,
) -> Dependency {
    // A customer has one currency for life, so there is one customer for each.
    let suffix = if foreign {
        format!(" ({currency})")
    } else {
        String::new()
    };
    let named = |name: &str| {
        let room = DISPLAY_NAME_MAX - suffix.chars().count();
        format!("{}{suffix}", clean(name, room))
    };
    let key = customer_key(customer, currency);
    let Some(customer) = customer else {
        return Dependency {
            kind: DependencyKind::Customer,
            key,
            names: vec![named(GUEST), named("Guest (shop)")],
            mark: Some("Crossdock guests".to_owned()),
            body: json!({ "Notes": "Crossdock guests" }),
        };
    };
    let mark = format!("Crossdock customer {}", customer.id);
    let mut body = json!({ "Notes": mark });
    if let Some(email) = &customer.email {
        body["PrimaryEmailAddr"] = json!({ "Address": email });
    }
    if let Some(phone) = &customer.phone {
        let phone: String = phone.chars().take(PHONE_MAX).collect();
        body["PrimaryPhone"] = json!({ "FreeFormNumber": phone });
    }
    let cut: String = customer.name.chars().take(DISPLAY_NAME_MAX / 2).collect();
    Dependency {
        kind: DependencyKind::Customer,
        key,
        // The plain name first; if it belongs to somebody else, the shop's id tells them apart.
        names: vec![named(&cut), named(&format!("{cut} [{}]", customer.id))],
        mark: Some(mark),
        body,
    }
}

fn reference(references: &References, kind: DependencyKind, key: String) -> Result<Value, Fault> {
    match references.get(&(kind, key)) {
        Some(id) => Ok(json!({ "value": id })),
        None => Err(Fault::Later {
            detail: "a customer or item is not there yet".to_owned(),
        }),
    }
}

/// The body of `document`; `on` is the id of the invoice that a payment settles.
pub fn body(
    document: Document,
    references: &References,
    on: Option<&str>,
    settings: &Settings,
) -> Result<Value, Fault> {
    let mut body = match (document, parts(document)) {
        (
            Document::Payment {
                payment,
                order,
                applied,
            },
            _,
        ) => settlement(payment, order, applied, references, on)?,
        (_, Some(parts)) => sales_form(document, &parts, references, settings)?,
        (_, None) => return refused("no_parts", "there is nothing to post of this document"),
    };
    body["TxnDate"] = json!(document.at().format("%Y-%m-%d").to_string());
    body["PrivateNote"] = json!(document.mark());
    if settings.multicurrency {
        body["CurrencyRef"] = json!({ "value": document.total().currency.code() });
    }
    Ok(body)
}

/// A payment, applied to its invoice as far as that goes. What is more stays with the customer.
fn settlement(
    payment: &Payment,
    order: &Order,
    applied: i64,
    references: &References,
    invoice: Option<&str>,
) -> Result<Value, Fault> {
    let money = |amount: i64| number(Money::new(amount, payment.amount.currency).major());
    let key = customer_key(order.customer.as_ref(), order.currency);
    let mut body = json!({
        "CustomerRef": reference(references, DependencyKind::Customer, key)?,
        "TotalAmt": money(payment.amount.amount),
        "PaymentRefNum": doc_number(payment.id.as_str()),
    });
    if applied != 0 {
        let link = json!([{ "TxnId": invoice, "TxnType": "Invoice" }]);
        body["Line"] = json!([{ "Amount": money(applied), "LinkedTxn": link }]);
    }
    Ok(body)
}

/// A receipt, an invoice or a refund receipt.
fn sales_form(
    document: Document,
    parts: &Parts,
    references: &References,
    settings: &Settings,
) -> Result<Value, Fault> {
    if parts.tax != 0 && settings.country != "US" {
        return refused(
            "tax_outside_us",
            "sales tax of companies outside the United States is not mapped yet; post this by hand",
        );
    }
    if parts.tax != 0 && !settings.sales_tax {
        // QuickBooks would drop the tax in silence, and the total would be wrong.
        return refused(
            "sales_tax_off",
            "this has sales tax, and sales tax is off in QuickBooks; set it up under Taxes, then retry",
        );
    }
    let code =
        |taxable: bool| json!({ "value": if taxable && parts.tax != 0 { "TAX" } else { "NON" } });
    let money = |amount: i64| number(Money::new(amount, parts.currency).major());
    let mut lines = Vec::with_capacity(parts.lines.len() + 2);
    for part in &parts.lines {
        let mut detail = json!({
            "ItemRef": reference(references, DependencyKind::Item, item_name(&part.sku))?,
            "TaxCodeRef": code(part.taxable),
        });
        if let Some((quantity, price)) = part.priced {
            detail["Qty"] = number(quantity);
            detail["UnitPrice"] = number(price);
        }
        let described = match &part.note {
            Some(note) => format!("{} ({note})", part.name),
            None => part.name.clone(),
        };
        let described: String = described.chars().take(DESCRIPTION_MAX).collect();
        lines.push(json!({
            "DetailType": "SalesItemLineDetail",
            "Amount": money(part.amount.amount),
            "Description": described,
            "SalesItemLineDetail": detail,
        }));
    }
    if parts.shipping != 0 {
        lines.push(json!({
            "DetailType": "SalesItemLineDetail",
            "Amount": money(parts.shipping),
            "SalesItemLineDetail": {
                "ItemRef": { "value": SHIPPING_ITEM },
                "TaxCodeRef": code(false),
            },
        }));
    }
    if parts.discount != 0 {
        lines.push(json!({
            "DetailType": "DiscountLineDetail",
            "Amount": money(parts.discount),
            "DiscountLineDetail": { "PercentBased": false },
        }));
    }
    let customer = customer_key(parts.customer, parts.currency);
    let number_text = match document {
        Document::SalesReceipt(order) | Document::Invoice(order) => order.number.clone(),
        _ => document.id(),
    };
    let mut body = json!({
        "CustomerRef": reference(references, DependencyKind::Customer, customer)?,
        "DocNumber": doc_number(&number_text),
        "Line": lines,
    });
    if parts.tax != 0 {
        body["TxnTaxDetail"] = json!({ "TotalTax": money(parts.tax) });
    }
    if let Document::RefundReceipt(..) = document {
        body["DepositToAccountRef"] = json!({ "value": settings.refund_account });
    }
    let sum = parts
        .lines
        .iter()
        .map(|part| part.amount.amount)
        .sum::<i64>()
        + parts.shipping
        - parts.discount
        + parts.tax;
    // The model's own checks make this true; books that are off by a cent must never be written.
    if sum != parts.total {
        return refused(
            "does_not_add_up",
            "the parts of this document do not make its total",
        );
    }
    Ok(body)
}

/// The end of a number tells documents apart better than its beginning.
fn doc_number(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(DOC_NUMBER_MAX);
    text.chars().skip(skip).collect()
}

/// A JSON number with exactly these digits. QuickBooks holds 15 of them, as a double does.
fn number(decimal: Decimal) -> Value {
    let text = decimal.normalize().to_string();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
