//! Sales tax: automated in the United States, by named codes elsewhere.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use super::books::Books;
use super::fault::Fault;
use super::money::{self, cents, number};
use super::sales::{SHIPPING, Sums};
use super::state::text;

type Fields = Map<String, Value>;

/// The tax code that a sales line carries; empty where the company has no sales tax.
///
/// `out_of_scope` is whether the form says that no tax is concerned with it.
pub fn line_code(books: &Books<'_>, detail: &Value, out_of_scope: bool) -> Result<String, Fault> {
    let asked = detail
        .get("TaxCodeRef")
        .and_then(|reference| text(reference, "value"));
    if books.in_us() {
        return match asked {
            None => Ok("NON".to_owned()),
            Some("TAX" | "NON") => Ok(asked.unwrap_or_default().to_owned()),
            Some(other) => Err(Fault::new(
                "6100",
                "Invalid Line TaxCode in the request",
                format!("For US, TaxCode should be TAX or NON. Supplied value:{other}"),
            )
            .at("TaxCodeRef")),
        };
    }
    if !books.sales_tax() {
        return Ok(String::new());
    }
    if out_of_scope && asked.is_none() {
        return Ok(String::new());
    }
    let reference = detail.get("TaxCodeRef").ok_or_else(|| {
        Fault::business("Make sure all your transactions have a tax rate before you save.")
    })?;
    let code = books.referenced("TaxCode", reference)?;
    let listed = |name: &str| {
        let details = code[name]["TaxRateDetail"].as_array();
        details.is_some_and(|details| !details.is_empty())
    };
    if listed("PurchaseTaxRateList") && !listed("SalesTaxRateList") {
        return Err(Fault::business(
            "Invalid tax code: a tax code for purchases cannot be used on a sales transaction.",
        ));
    }
    Ok(text(&code, "Id").unwrap_or_default().to_owned())
}

/// Writes the tax detail and answers the tax in total.
pub fn apply(books: &Books<'_>, fields: &mut Fields, sums: &Sums) -> Result<Decimal, Fault> {
    let sent = fields.remove("TxnTaxDetail");
    if !books.sales_tax() {
        return Ok(Decimal::ZERO);
    }
    let wanted = sent
        .as_ref()
        .and_then(|detail| detail.get("TotalTax"))
        .and_then(money::decimal)
        .map(cents);
    let detail = if books.in_us() {
        fields.remove("GlobalTaxCalculation");
        let group = sent.as_ref().and_then(|detail| detail.get("TxnTaxCodeRef"));
        in_us(books, fields, sums, wanted, group)?
    } else {
        let how = fields
            .entry("GlobalTaxCalculation")
            .or_insert(json!("TaxExcluded"));
        if how == "NotApplicable" {
            if sent.is_some() {
                return Err(Fault::new(
                    "6170",
                    "Invalid TxnTaxDetail Error",
                    "TxnTaxDetail is not allowed when GlobalTaxCalculation is NotApplicable",
                ));
            }
            return Ok(Decimal::ZERO);
        }
        by_code(books, sums, wanted, sent.as_ref())?
    };
    let total = detail
        .get("TotalTax")
        .and_then(money::decimal)
        .unwrap_or_default();
    fields.insert("TxnTaxDetail".to_owned(), detail);
    Ok(total)
}

/// What is charged for shipping that is taxable.
fn shipped(fields: &Fields) -> Decimal {
    let lines = fields.get("Line").and_then(Value::as_array);
    let lines = lines.into_iter().flatten();
    lines
        .filter(|line| {
            let sold = &line["SalesItemLineDetail"];
            sold["ItemRef"]["value"] == SHIPPING && sold["TaxCodeRef"]["value"] == "TAX"
        })
        .filter_map(|line| money::decimal(&line["Amount"]))
        .sum()
}

/// A total that was sent is honoured, except for what is due on shipping (`Finance.xsd`,
/// `ShippingTaxIncludedInTotalTax`); otherwise the rate of the address is found. Where tax is not
/// automated, a form names the group of its taxes, and without one it has none.
fn in_us(
    books: &Books<'_>,
    fields: &Fields,
    sums: &Sums,
    wanted: Option<Decimal>,
    group: Option<&Value>,
) -> Result<Value, Fault> {
    let taxable: Decimal = sums
        .taxed
        .iter()
        .filter(|(code, _)| code == "TAX")
        .map(|(_, amount)| *amount)
        .sum();
    let any = sums.taxed.iter().any(|(code, _)| code == "TAX");
    let named = group.map(|group| books.referenced("TaxCode", group));
    let named = named.transpose()?;
    let named = named.filter(|_| !books.automated_tax());
    if !books.automated_tax() && named.is_none() {
        return Ok(json!({"TotalTax": number(Decimal::ZERO)}));
    }
    let shown = |mut detail: Value| {
        if let Some(code) = &named {
            detail["TxnTaxCodeRef"] = json!({"value": text(code, "Id")});
        }
        detail
    };
    let percent: Decimal = match &named {
        Some(code) => rates(books, text(code, "Id").unwrap_or_default())
            .iter()
            .map(|(_, percent)| *percent)
            .sum(),
        None => books
            .settings()
            .automated_tax_percent
            .parse()
            .unwrap_or_default(),
    };
    if let Some(total) = wanted {
        if !total.is_zero() && !any {
            return Err(Fault::business(
                "A tax amount was given, but no line of the transaction is taxable.",
            ));
        }
        let included = fields.get("ShippingTaxIncludedInTotalTax") == Some(&json!(true));
        let shipping = match books.automated_tax() && !included && !total.is_zero() {
            true => shipped(fields),
            false => Decimal::ZERO,
        };
        let total = total + cents(shipping * percent / Decimal::ONE_HUNDRED);
        return Ok(shown(json!({"TotalTax": number(total)})));
    }
    let after_discount = fields.get("ApplyTaxAfterDiscount") == Some(&json!(true));
    let base = if after_discount {
        less_discount(taxable, sums)
    } else {
        taxable
    };
    let total = cents(base * percent / Decimal::ONE_HUNDRED);
    if total.is_zero() {
        return Ok(json!({"TotalTax": number(Decimal::ZERO)}));
    }
    Ok(shown(json!({
        "TotalTax": number(total),
        "TaxLine": [{
            "Amount": number(total),
            "DetailType": "TaxLineDetail",
            "TaxLineDetail": {
                "TaxRateRef": {"value": "1"},
                "PercentBased": true,
                "TaxPercent": number(percent),
                "NetAmountTaxable": number(base),
            },
        }],
    })))
}

/// The part of a form's discount that falls on `amount`, taken off it.
fn less_discount(amount: Decimal, sums: &Sums) -> Decimal {
    if sums.sales.is_zero() {
        amount
    } else {
        cents(amount - sums.discount * amount / sums.sales)
    }
}

/// Reckons the tax of each code; where tax lines were sent, what they say takes the place of that. Each
/// must be of a rate of some code in the lines (schema, `TaxLineDetail.TaxRateRef`), and their sum is
/// the total.
fn by_code(
    books: &Books<'_>,
    sums: &Sums,
    wanted: Option<Decimal>,
    sent: Option<&Value>,
) -> Result<Value, Fault> {
    let invalid = |detail: String| Fault::new("6170", "Invalid TxnTaxDetail Error", detail);
    let lines = sent.and_then(|sent| sent.get("TaxLine")?.as_array());
    if let Some(lines) = lines.filter(|lines| !lines.is_empty()) {
        let mut total = Decimal::ZERO;
        for line in lines {
            let rate = &line["TaxLineDetail"]["TaxRateRef"]["value"];
            let of_line = |(code, _): &(String, Decimal)| {
                let rates = rates(books, code);
                rates.iter().any(|(known, _)| rate == known.as_str())
            };
            if !sums.taxed.iter().any(of_line) {
                return Err(invalid(format!(
                    "The tax rate {rate} belongs to no tax code of the lines"
                )));
            }
            total += line
                .get("Amount")
                .and_then(money::decimal)
                .unwrap_or_default();
        }
        if wanted.is_some_and(|wanted| wanted != cents(total)) {
            return Err(invalid(
                "TotalTax is not the sum of the tax lines".to_owned(),
            ));
        }
        return Ok(json!({"TotalTax": number(cents(total)), "TaxLine": lines}));
    }
    let mut nets: Vec<(String, Decimal)> = Vec::new();
    for (code, amount) in &sums.taxed {
        let net = less_discount(*amount, sums);
        match nets.iter_mut().find(|(known, _)| known == code) {
            Some((_, held)) => *held += net,
            None => nets.push((code.clone(), net)),
        }
    }
    let mut total = Decimal::ZERO;
    let mut lines = Vec::new();
    for (code, net) in nets {
        for (rate, percent) in rates(books, &code) {
            let amount = cents(net * percent / Decimal::ONE_HUNDRED);
            total += amount;
            lines.push(json!({
                "Amount": number(amount),
                "DetailType": "TaxLineDetail",
                "TaxLineDetail": {
                    "TaxRateRef": {"value": rate},
                    "PercentBased": true,
                    "TaxPercent": number(percent),
                    "NetAmountTaxable": number(net),
                },
            }));
        }
    }
    Ok(json!({"TotalTax": number(total), "TaxLine": lines}))
}

/// The rates of a tax code, as the company's lists have them.
fn rates(books: &Books<'_>, code: &str) -> Vec<(String, Decimal)> {
    let found = code
        .parse()
        .ok()
        .and_then(|id| books.company().get("TaxCode", id));
    found
        .and_then(|code| code["SalesTaxRateList"]["TaxRateDetail"].as_array())
        .into_iter()
        .flatten()
        .filter_map(|detail| {
            let id = detail["TaxRateRef"]["value"].as_str()?;
            let rate = books.company().get("TaxRate", id.parse().ok()?)?;
            Some((id.to_owned(), money::decimal(&rate["RateValue"])?))
        })
        .collect()
}
