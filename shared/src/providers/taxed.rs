//! Which parts of a sale bear its tax. The shop says it of goods, and not of shipping and discounts: of
//! these it is found by what makes the tax.

use rust_decimal::Decimal;

/// Whether tax is part of a line's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taxed {
    Yes,
    No,
    AsShipping,
    AsDiscount,
    /// Whatever else has to bear tax that fits nowhere.
    Never,
}

/// Says of each of `parts`, which are amounts in minor units with what is known of them, whether it bears
/// `tax`, and by how much `percent` of those that do misses it: shipping and discounts are counted as it
/// fits best. Where tax is `included`, it is part of the amounts.
pub fn base(
    parts: &[(Taxed, i64)],
    tax: i64,
    included: bool,
    percent: Decimal,
) -> (Vec<bool>, Decimal) {
    let whole = Decimal::ONE_HUNDRED + if included { percent } else { Decimal::ZERO };
    let choices = [(true, true), (true, false), (false, true), (false, false)];
    let tries = choices.map(|(discount, shipping)| {
        let bears = |(taxed, _): &(Taxed, i64)| match taxed {
            Taxed::Yes => true,
            Taxed::No | Taxed::Never => false,
            Taxed::AsDiscount => discount,
            Taxed::AsShipping => shipping,
        };
        let bearing: Vec<bool> = parts.iter().map(bears).collect();
        let bearers = parts.iter().zip(&bearing).filter(|(_, bears)| **bears);
        let sum: i64 = bearers.map(|((_, amount), _)| amount).sum();
        let off = (Decimal::from(sum) * percent / whole - Decimal::from(tax)).abs();
        (bearing, off)
    });
    let best = tries.into_iter().min_by_key(|(_, off)| *off);
    best.unwrap_or_default()
}

/// The same, where tax on nothing that is taxable stands on whatever may bear any. `None` where nothing
/// may.
pub fn bearers(
    parts: &[(Taxed, i64)],
    tax: i64,
    included: bool,
    percent: Decimal,
) -> Option<Vec<bool>> {
    let (bearing, _) = base(parts, tax, included, percent);
    if bearing.contains(&true) {
        return Some(bearing);
    }
    let may = |(taxed, _): &(Taxed, i64)| *taxed != Taxed::Never;
    let bearing: Vec<bool> = parts.iter().map(may).collect();
    bearing.contains(&true).then_some(bearing)
}

/// Which of `rates` lie together on what bears `tax`: all of them, or one that was told more than once, of
/// goods and of shipping say. `None` where they lie on different lines, and nobody says on which. The
/// parts are the sums of so many `orders`.
pub fn stacked(
    parts: &[(Taxed, i64)],
    tax: i64,
    included: bool,
    rates: &[Decimal],
    orders: u64,
) -> Option<Vec<Decimal>> {
    let fits = |percent| base(parts, tax, included, percent).1 <= tolerance(parts.len(), orders);
    if fits(rates.iter().sum()) {
        return Some(rates.to_vec());
    }
    let one = rates.first()?;
    let same = rates.iter().all(|rate| rate == one);
    (same && fits(*one)).then(|| vec![*one])
}

/// How far the tax of so many parts may be off that was rounded at each of them, in each of so many
/// orders.
pub fn tolerance(parts: usize, orders: u64) -> Decimal {
    (Decimal::ONE + Decimal::new(5, 1) * Decimal::from(parts)) * Decimal::from(orders.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_lie_together_or_are_one() {
        let parts = [(Taxed::Yes, 10_000), (Taxed::AsShipping, 500)];
        let rates = |percents: &[i64]| -> Vec<Decimal> {
            percents
                .iter()
                .map(|percent| Decimal::from(*percent))
                .collect()
        };
        let of = |tax, told: &[i64]| stacked(&parts, tax, false, &rates(told), 1);
        // GST and PST on everything, and on the goods alone.
        assert_eq!(of(1_260, &[5, 7]), Some(rates(&[5, 7])));
        assert_eq!(of(1_200, &[5, 7]), Some(rates(&[5, 7])));
        // One rate, of goods and of shipping; and twice the same tax on everything.
        assert_eq!(of(2_100, &[20, 20]), Some(rates(&[20])));
        assert_eq!(of(4_200, &[20, 20]), Some(rates(&[20, 20])));
        // Goods at one rate, shipping at another.
        assert_eq!(of(2_025, &[20, 5]), None);
        assert_eq!(of(1_000, &[20, 20]), None);
    }
}
