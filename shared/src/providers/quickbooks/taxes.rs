//! Taxes outside of the United States: each line names one of the company's tax codes, and the tax of
//! each rate is told with what it is reckoned on
//! (<https://developer.intuit.com/app/developer/qbo/docs/workflows/manage-sales-tax-for-non-us-locales>).
//!
//! What is sent as the tax is the shop's, to the last unit; the code is the company's own that has the
//! rates of the order. None is ever made: what a code is to the tax return is the accountant's to say.

use crate::model::allocate::allocate;
use crate::model::money::{Currency, Money};
use crate::providers::Fault;
use crate::providers::taxed::{Taxed, base, bearers, stacked, tolerance};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Words in the names of codes for what no tax is concerned with, and of those that are exempt.
const OUTSIDE: &[&str] = &["scope", "no vat", "no gst", "no tax"];
const EXEMPT: &str = "exempt";

/// One rate of a tax code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub id: String,
    /// Per cent.
    pub percent: Decimal,
}

/// A tax code that sales can have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    pub id: String,
    pub rates: Vec<Rate>,
}

/// The tax codes of a company.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Codes {
    /// Those with a tax, the best for each rate first.
    taxed: Vec<Code>,
    /// The code of goods without tax.
    untaxed: Option<String>,
    /// The code of what is no sale: tips, and what is owed on gift cards.
    outside: Option<String>,
}

fn percents(rates: &[Rate]) -> Vec<Decimal> {
    let mut percents: Vec<Decimal> = rates.iter().map(|rate| rate.percent).collect();
    percents.sort();
    percents
}

fn text<'a>(one: &'a Value, name: &str) -> &'a str {
    one[name].as_str().unwrap_or_default()
}

fn all<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    let all = answer["QueryResponse"][name].as_array();
    all.into_iter().flatten()
}

impl Codes {
    /// Reads the answers to queries for all tax codes and all tax rates.
    pub fn read(codes: &Value, rates: &Value) -> Codes {
        let rates: BTreeMap<&str, &Value> = all(rates, "TaxRate")
            .filter(|rate| rate["Active"] != false)
            .map(|rate| (text(rate, "Id"), rate))
            .collect();
        let mut taxed = Vec::new();
        let mut free = Vec::new();
        for code in all(codes, "TaxCode") {
            if code["Active"] == false || code["Hidden"] == true {
                continue;
            }
            let list = |name: &str| {
                let details = code[name]["TaxRateDetail"].as_array();
                details.cloned().unwrap_or_default()
            };
            let details = list("SalesTaxRateList");
            // What is for purchases alone.
            if details.is_empty() && !list("PurchaseTaxRateList").is_empty() {
                continue;
            }
            let rate = |detail: &Value| {
                // Tax on tax is no percentage of the sale.
                let plain = matches!(text(detail, "TaxTypeApplicable"), "" | "TaxOnAmount");
                let id = detail["TaxRateRef"]["value"].as_str().filter(|_| plain)?;
                let rate = rates.get(id)?;
                let percent: Decimal = rate["RateValue"].to_string().parse().ok()?;
                Some((
                    Rate {
                        id: id.to_owned(),
                        percent: percent.normalize(),
                    },
                    text(rate, "SpecialTaxType"),
                ))
            };
            let Some(found) = details.iter().map(rate).collect::<Option<Vec<_>>>() else {
                continue;
            };
            let zero_rated = found.iter().any(|(_, special)| *special == "ZERO_RATE");
            let special = found
                .iter()
                .any(|(_, special)| !matches!(*special, "" | "NONE" | "ZERO_RATE"));
            let own = found.into_iter().map(|(rate, _)| rate).collect();
            let own = Code {
                id: text(code, "Id").to_owned(),
                rates: own,
            };
            let number: u64 = own.id.parse().unwrap_or(u64::MAX);
            let name = text(code, "Name").to_lowercase();
            let outside = OUTSIDE.iter().any(|words| name.contains(words));
            match own.rates.iter().all(|rate| rate.percent.is_zero()) {
                true => free.push((zero_rated, outside, name.contains(EXEMPT), number, own)),
                // A reverse charge takes back what it adds.
                false => taxed.push(((special, own.rates.len(), number), own)),
            }
        }
        taxed.sort_by_key(|(rank, _)| *rank);
        // What the shop does not tax is mostly zero-rated: food and books, or exports.
        let untaxed = free
            .iter()
            .min_by_key(|(zero_rated, outside, exempt, number, _)| {
                (*outside, *exempt, Reverse(*zero_rated), *number)
            });
        let outside = free
            .iter()
            .min_by_key(|(zero_rated, outside, exempt, number, code)| {
                let bare = code.rates.is_empty();
                (!*outside, !*exempt, !bare, *zero_rated, *number)
            });
        let id = |one: &(bool, bool, bool, u64, Code)| one.4.id.clone();
        Codes {
            untaxed: untaxed.map(id),
            outside: outside.map(id),
            taxed: taxed.into_iter().map(|(_, code)| code).collect(),
        }
    }

    /// The code of these percentages: one with the same rates, else one that comes to their sum.
    fn find(&self, wanted: &[Decimal]) -> Option<&Code> {
        let mut wanted = wanted.to_vec();
        wanted.sort();
        let sum: Decimal = wanted.iter().sum();
        let comes_to = |code: &&Code| code.rates.iter().map(|rate| rate.percent).sum::<Decimal>();
        let same = |code: &&Code| percents(&code.rates) == wanted;
        let mut codes = self.taxed.iter();
        let found = codes.find(same);
        found.or_else(|| self.taxed.iter().find(|code| comes_to(code) == sum))
    }

    /// What lines of that kind without tax name.
    fn free(&self, taxed: Taxed) -> Option<&String> {
        match taxed {
            Taxed::Never => self.outside.as_ref(),
            _ => self.untaxed.as_ref(),
        }
    }
}

/// What a form is made of, as far as its tax is concerned.
pub struct Form<'a> {
    pub currency: Currency,
    /// The amount of each line with what is known of its tax.
    pub lines: Vec<(Taxed, i64)>,
    /// What is taken off, as a positive amount.
    pub discount: i64,
    pub tax: i64,
    /// Whether the tax is part of the amounts above.
    pub included: bool,
    /// The rate of each tax with what it makes. Of a refund only the rates are known, those of its order.
    pub taxes: &'a [(Decimal, i64)],
    /// Whether other parts stand on the same form, taxed otherwise.
    pub of_several: bool,
    /// Of how many orders the amounts are the sums, each with a tax that was rounded by itself.
    pub orders: u64,
}

/// What a form says of its tax.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// `GlobalTaxCalculation`.
    pub how: &'static str,
    /// The tax code of each line.
    pub codes: Vec<Option<String>>,
    /// What each line and the discount come to without tax.
    pub nets: Vec<i64>,
    pub discount: i64,
    /// `TxnTaxDetail`.
    pub detail: Option<Value>,
}

fn refused<T>(code: &str, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused {
        code: code.to_owned(),
        detail: detail.into(),
    })
}

/// Refuses what has lines without tax where there is no code for them.
pub fn no_free_code<T>() -> Result<T, Fault> {
    refused(
        "no_tax_rate",
        "QuickBooks has no active tax code of 0 % for sales, and parts of this bear no tax; add one \
         (Taxes), then retry",
    )
}

/// Refuses what has several taxes where they would have to be told apart.
pub fn several<T>() -> Result<T, Fault> {
    refused(
        "several_taxes",
        "this has several taxes on different lines, and the shop does not say which line has which, or \
         QuickBooks takes one of them for a document; post it by hand",
    )
}

/// What two details of one form say together: each rate once, over both.
pub fn both(mut one: Value, other: &Value) -> Value {
    let add = |sum: &mut Value, more: &Value| {
        let amount = |value: &Value| value.to_string().parse::<Decimal>().unwrap_or_default();
        *sum = super::map::number(amount(sum) + amount(more));
    };
    add(&mut one["TotalTax"], &other["TotalTax"]);
    let Some(lines) = one.get_mut("TaxLine").and_then(Value::as_array_mut) else {
        return one;
    };
    for line in other["TaxLine"].as_array().into_iter().flatten() {
        let rate = |line: &Value| line["TaxLineDetail"]["TaxRateRef"]["value"].clone();
        match lines.iter_mut().find(|held| rate(held) == rate(line)) {
            Some(held) => {
                add(&mut held["Amount"], &line["Amount"]);
                let taxable = &line["TaxLineDetail"]["NetAmountTaxable"];
                add(&mut held["TaxLineDetail"]["NetAmountTaxable"], taxable);
            }
            None => lines.push(line.clone()),
        }
    }
    one
}

/// Finds how the books say the tax of `form`.
pub fn say(form: &Form, codes: &Codes) -> Result<Said, Fault> {
    let mut parts = parts_of(form);
    let untouched = || form.lines.iter().map(|(_, amount)| *amount).collect();
    if form.tax == 0 {
        let codes = form.lines.iter().map(|(taxed, _)| codes.free(*taxed));
        let codes: Vec<Option<String>> = codes.map(|code| code.cloned()).collect();
        let known = codes.iter().all(Option::is_some);
        return Ok(Said {
            how: if known {
                "TaxExcluded"
            } else {
                "NotApplicable"
            },
            codes: if known {
                codes
            } else {
                vec![None; form.lines.len()]
            },
            nets: untouched(),
            discount: form.discount,
            detail: None,
        });
    }
    let code = code_of(form, &parts, codes)?;
    let percent = code.rates.iter().map(|rate| rate.percent).sum();
    let Some(bearing) = bearers(&parts, form.tax, form.included, percent) else {
        return refused(
            "tax_on_nothing",
            "this has tax, and nothing in it that can be taxed; post it by hand",
        );
    };
    if form.included {
        let weight =
            |((_, amount), bears): (&(Taxed, i64), &bool)| if *bears { *amount } else { 0 };
        let weights: Vec<i64> = parts.iter().zip(&bearing).map(weight).collect();
        let shares = allocate(form.tax, &weights);
        for (part, share) in parts.iter_mut().zip(shares) {
            part.1 -= share;
        }
    }
    let bear = parts.iter().zip(&bearing).filter(|(_, bears)| **bears);
    let taxable: i64 = bear.map(|((_, net), _)| net).sum();
    let discount = match form.discount {
        0 => 0,
        _ => parts.pop().map_or(0, |(_, amount)| -amount),
    };
    let name = |((taxed, _), bears): (&(Taxed, i64), &bool)| match bears {
        true => Ok(Some(code.id.clone())),
        false => match codes.free(*taxed) {
            Some(free) => Ok(Some(free.clone())),
            None => no_free_code(),
        },
    };
    let names = parts.iter().zip(&bearing).map(name);
    Ok(Said {
        // A discount in prices with tax is not documented, so those go without.
        how: match form.included && form.discount == 0 && !form.of_several {
            true => "TaxInclusive",
            false => "TaxExcluded",
        },
        codes: names.collect::<Result<_, _>>()?,
        nets: parts.iter().map(|(_, net)| *net).collect(),
        discount,
        detail: Some(detail(form, code, taxable)),
    })
}

/// The parts of a form, with what is taken off as one of them.
fn parts_of(form: &Form) -> Vec<(Taxed, i64)> {
    let mut parts = form.lines.clone();
    if form.discount != 0 {
        parts.push((Taxed::AsDiscount, -form.discount));
    }
    parts
}

/// Which lines of a form bear its tax.
pub fn bearing(form: &Form) -> Vec<bool> {
    let told = form.taxes.iter().filter(|(_, amount)| *amount != 0);
    let percent = told.map(|(rate, _)| *rate).sum();
    let bearing = bearers(&parts_of(form), form.tax, form.included, percent);
    let mut bearing = bearing.unwrap_or_else(|| vec![true; form.lines.len()]);
    bearing.truncate(form.lines.len());
    bearing
}

/// The group of taxes that a form of a company in the United States names whose tax is not automated: one
/// for all of it (<https://developer.intuit.com/app/developer/qbo/docs/workflows/manage-sales-tax-for-us-locales>,
/// and for the total that takes the place of what it would come to
/// <https://github.com/intuit/QuickBooks-V3-PHP-SDK/issues/199>).
pub fn group(form: &Form, codes: &Codes) -> Result<String, Fault> {
    code_of(form, &parts_of(form), codes).map(|code| code.id.clone())
}

/// The code with the rates of `form`.
fn code_of<'c>(form: &Form, parts: &[(Taxed, i64)], codes: &'c Codes) -> Result<&'c Code, Fault> {
    let off = |percent: Decimal| base(parts, form.tax, form.included, percent).1;
    let rates: Vec<Decimal> = form
        .taxes
        .iter()
        .map(|(rate, _)| rate.normalize())
        .collect();
    let mut rates: Vec<Decimal> = rates.into_iter().filter(|rate| !rate.is_zero()).collect();
    if rates.is_empty() {
        // A refund of a sale that nobody knows: the rate that comes nearest.
        let sum = |code: &&Code| code.rates.iter().map(|rate| rate.percent).sum::<Decimal>();
        let nearest = codes.taxed.iter().min_by_key(|code| off(sum(code)));
        let fits = nearest.filter(|code| off(sum(code)) <= tolerance(parts.len(), form.orders));
        return match fits {
            Some(code) => Ok(code),
            None => refused(
                "no_tax_rate",
                "no sales tax code of this company makes the tax of this; post it by hand",
            ),
        };
    }
    if rates.len() > 1 {
        let Some(stack) = stacked(parts, form.tax, form.included, &rates, form.orders) else {
            return several();
        };
        rates = stack;
    }
    let words: Vec<String> = rates.iter().map(|rate| format!("{rate} %")).collect();
    match codes.find(&rates) {
        Some(code) => Ok(code),
        None => refused(
            "no_tax_rate",
            format!(
                "QuickBooks has no active tax code of {} for sales; add it (Taxes), then retry",
                words.join(" + ")
            ),
        ),
    }
}

/// The tax of each rate of `code`, as the shop says it where it has the same rates.
fn detail(form: &Form, code: &Code, taxable: i64) -> Value {
    let mut told: Vec<(Decimal, i64)> = form.taxes.to_vec();
    let mut take = |rate: &Rate| {
        let place = told
            .iter()
            .position(|(percent, _)| *percent == rate.percent)?;
        Some(told.remove(place).1)
    };
    let exact: Option<Vec<i64>> = code.rates.iter().map(&mut take).collect();
    let exact = exact.filter(|amounts| amounts.iter().sum::<i64>() == form.tax);
    let amounts = exact.unwrap_or_else(|| {
        let weight = |rate: &Rate| (rate.percent * Decimal::from(100_000)).to_i64();
        let weights = code
            .rates
            .iter()
            .map(|rate| weight(rate).unwrap_or_default());
        allocate(form.tax, &weights.collect::<Vec<_>>())
    });
    let money = |amount: i64| super::map::number(Money::new(amount, form.currency).major());
    let line = |(rate, amount): (&Rate, i64)| {
        json!({
            "Amount": money(amount),
            "DetailType": "TaxLineDetail",
            "TaxLineDetail": {
                "TaxRateRef": { "value": rate.id },
                "PercentBased": true,
                "TaxPercent": super::map::number(rate.percent),
                "NetAmountTaxable": money(taxable),
            },
        })
    };
    let lines: Vec<Value> = code.rates.iter().zip(amounts).map(line).collect();
    json!({ "TotalTax": money(form.tax), "TaxLine": lines })
}
