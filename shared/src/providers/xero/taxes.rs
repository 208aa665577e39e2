//! The tax of a document's lines: which of the organisation's rates it is, and what of it stands on which
//! line.

use super::map::{Lines, Part, Unit, refused};
use super::settings::{NO_TAX, Settings};
use crate::model::allocate::allocate;
use crate::providers::taxed::{Taxed, bearers};
use crate::providers::{self, Fault};
use rust_decimal::Decimal;

/// The amounts of `parts` with what is known of their tax.
pub fn amounts(parts: &[Part]) -> Vec<(Taxed, i64)> {
    parts.iter().map(|part| (part.taxed, part.amount)).collect()
}

/// Several taxes of one order, or of each of so many `orders`, lie on the same goods, or the shop would
/// have to say which lies where.
pub fn stacked(
    parts: &[Part],
    tax: i64,
    included: bool,
    percentages: &[Decimal],
    orders: u64,
) -> Result<Decimal, Fault> {
    let amounts = amounts(parts);
    if let Some(rates) = providers::taxed::stacked(&amounts, tax, included, percentages, orders) {
        return Ok(rates.iter().sum());
    }
    refused(
        "several_taxes",
        "this has several taxes on different lines, and the shop does not say which line has which; \
         post it by hand",
    )
}

/// The tax type of so much per cent.
pub fn kind(percent: Decimal, settings: &Settings) -> Result<String, Fault> {
    match settings.tax_type(percent) {
        Some(kind) => Ok(kind.to_owned()),
        None => refused(
            "no_tax_rate",
            format!(
                "Xero has no active tax rate of {percent} % for sales; add it (Accounting, Advanced, \
                 Tax rates), then retry"
            ),
        ),
    }
}

/// The tax type of a part that bears no tax: what is sold is sold at no rate, as `free` says, and what is only
/// owed concerns no tax.
pub fn untaxed(part: &Part, free: &str) -> String {
    match part.taxed {
        Taxed::Never => NO_TAX.to_owned(),
        _ => free.to_owned(),
    }
}

/// Puts `tax` of so much per cent on the lines that bear it.
pub fn taxed(
    unit: Unit,
    parts: Vec<Part>,
    tax: i64,
    included: bool,
    percent: Option<Decimal>,
    settings: &Settings,
) -> Result<Lines, Fault> {
    let how = if included { "Inclusive" } else { "Exclusive" };
    let Some(percent) = percent.filter(|_| tax != 0) else {
        let free = settings.tax_type(Decimal::ZERO);
        let free = free.filter(|free| *free != NO_TAX);
        let taxes = free.map(|free| parts.iter().map(|part| (untaxed(part, free), 0)).collect());
        return Ok(Lines {
            unit,
            types: free.map_or("NoTax", |_| how),
            taxes: taxes.unwrap_or_default(),
            parts,
        });
    };
    let Some(bearing) = bearers(&amounts(&parts), tax, included, percent) else {
        return refused(
            "tax_on_nothing",
            "this has tax, and nothing in it that can be taxed; post it by hand",
        );
    };
    let (bearer, other) = (kind(percent, settings)?, bearing.contains(&false));
    let other = if other {
        kind(Decimal::ZERO, settings)?
    } else {
        String::new()
    };
    let bear = parts.iter().zip(&bearing).filter(|(_, bears)| **bears);
    let weights: Vec<i64> = bear.map(|(part, _)| part.amount).collect();
    let mut shares = allocate(tax, &weights).into_iter();
    let taxes = bearing.iter().zip(&parts).map(|(bears, part)| match bears {
        true => (bearer.clone(), shares.next().unwrap_or_default()),
        false => (untaxed(part, &other), 0),
    });
    Ok(Lines {
        unit,
        types: how,
        taxes: taxes.collect(),
        parts,
    })
}
