//! Exact amounts in and out of JSON numbers.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Number, Value};

/// A JSON number (or a number written as a string) as an exact decimal. `serde_json` keeps a
/// number with a fraction as a double, whose shortest notation is what was written for anything
/// of up to 15 digits, the most that the vendor takes.
pub fn decimal(value: &Value) -> Option<Decimal> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return None,
    };
    text.parse()
        .ok()
        .or_else(|| Decimal::from_scientific(&text).ok())
}

/// A decimal as a JSON number with a fraction: 20 is written 20.0, as the vendor does.
pub fn number(amount: Decimal) -> Value {
    amount
        .normalize()
        .to_string()
        .parse::<f64>()
        .ok()
        .and_then(Number::from_f64)
        .map_or(Value::Null, Value::Number)
}

pub fn cents(amount: Decimal) -> Decimal {
    amount.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

/// Whole minor units of the currency, for comparing books across systems.
pub fn minor_units(amount: Decimal, currency: &str) -> Decimal {
    let digits = iso_currency::Currency::from_code(currency)
        .and_then(|currency| currency.exponent())
        .unwrap_or(2);
    (amount * Decimal::from(10_u64.pow(u32::from(digits)))).normalize()
}

/// Home units for one foreign unit, fixed so that runs agree.
pub fn rate(currency: &str, home: &str) -> Decimal {
    let in_dollars = |code: &str| match code {
        "EUR" => Decimal::new(110, 2),
        "GBP" => Decimal::new(130, 2),
        "CHF" => Decimal::new(112, 2),
        "CAD" => Decimal::new(73, 2),
        "AUD" => Decimal::new(65, 2),
        "JPY" => Decimal::new(67, 4),
        _ => Decimal::ONE,
    };
    (in_dollars(currency) / in_dollars(home)).round_dp(7)
}
