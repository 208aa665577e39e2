//! Money: whole minor units and an ISO 4217 currency. No floats anywhere.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest amount taken, in minor units: QuickBooks holds 15 digits, and sums of many stay in i64.
pub const AMOUNT_MAX: i64 = 999_999_999_999;

/// An ISO 4217 currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(iso_currency::Currency);

#[derive(Debug, thiserror::Error)]
pub enum MoneyError {
    #[error("{0:?} is not an ISO 4217 currency; use a code such as USD, upper case")]
    UnknownCurrency(String),
    #[error(
        "{given} has too many decimals for {currency}: an amount is a whole number of minor units \
         ({exponent} decimals), so 1 {currency} is {one}"
    )]
    TooManyDecimals {
        given: String,
        currency: Currency,
        exponent: u32,
        one: i64,
    },
    #[error(
        "{0} is to be a whole number of minor units, written without decimal point or exponent"
    )]
    NotPlain(String),
    #[error("{0} is too large: at most {AMOUNT_MAX} minor units")]
    TooLarge(String),
}

impl Currency {
    /// The three-letter code.
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// How many decimals the minor unit has: 2 for USD, 0 for JPY, 3 for KWD.
    pub fn exponent(self) -> u32 {
        u32::from(self.0.exponent().unwrap_or(0))
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(code: String) -> Result<Self, MoneyError> {
        code.parse()
    }
}

impl std::str::FromStr for Currency {
    type Err = MoneyError;
    fn from_str(code: &str) -> Result<Self, MoneyError> {
        iso_currency::Currency::from_code(code)
            // Test codes and precious metals have no minor unit and cannot pay for an order.
            .filter(|currency| currency.exponent().is_some())
            .map(Currency)
            .ok_or_else(|| MoneyError::UnknownCurrency(code.chars().take(8).collect()))
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// An amount in whole minor units: `{"amount":1299,"currency":"USD"}` is 12.99 US dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireMoney")]
pub struct Money {
    pub amount: i64,
    pub currency: Currency,
}

/// What stands in a request, before it is known to be a whole number of minor units.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireMoney {
    amount: serde_json::Number,
    currency: Currency,
}

impl TryFrom<WireMoney> for Money {
    type Error = MoneyError;
    fn try_from(wire: WireMoney) -> Result<Self, MoneyError> {
        let currency = wire.currency;
        let given = wire.amount.to_string();
        let Some(amount) = wire.amount.as_i64() else {
            // The float only chooses the words: nothing is computed with it.
            let value = wire.amount.as_f64().unwrap_or(f64::INFINITY);
            return Err(if value.abs() > AMOUNT_MAX as f64 {
                MoneyError::TooLarge(given)
            } else if value.fract() == 0.0 {
                MoneyError::NotPlain(given)
            } else {
                let exponent = currency.exponent();
                MoneyError::TooManyDecimals {
                    given,
                    currency,
                    exponent,
                    one: 10_i64.pow(exponent),
                }
            });
        };
        if amount.unsigned_abs() > AMOUNT_MAX.unsigned_abs() {
            return Err(MoneyError::TooLarge(given));
        }
        Ok(Money { amount, currency })
    }
}

impl Money {
    pub const fn new(amount: i64, currency: Currency) -> Self {
        Money { amount, currency }
    }

    /// The amount in major units, exact: 1299 USD is `12.99`.
    pub fn major(self) -> Decimal {
        Decimal::new(self.amount, self.currency.exponent())
    }

    /// Rounds `major` units half to even to the minor unit: the one rounding rule of this system.
    /// `None` when the result does not fit.
    pub fn round(major: Decimal, currency: Currency) -> Option<Money> {
        let exponent = currency.exponent();
        let rounded = major.round_dp_with_strategy(exponent, RoundingStrategy::MidpointNearestEven);
        let minor = rounded.checked_mul(Decimal::from(10_i64.pow(exponent)))?;
        let amount = i64::try_from(minor.normalize().trunc().mantissa()).ok()?;
        let scale = minor.normalize().scale();
        (scale == 0 && amount.abs() <= AMOUNT_MAX).then_some(Money { amount, currency })
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.major(), self.currency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Money, String> {
        serde_json::from_str(text).map_err(|e| e.to_string())
    }

    #[test]
    fn minor_units_follow_the_currency() {
        for (code, major) in [("USD", "12.99"), ("JPY", "1299"), ("KWD", "1.299")] {
            let money = parse(&format!(r#"{{"amount":1299,"currency":"{code}"}}"#)).unwrap();
            assert_eq!(money.major().to_string(), major);
        }
    }

    #[test]
    fn what_is_not_money_is_refused_in_words() {
        let decimals = parse(r#"{"amount":12.99,"currency":"USD"}"#).unwrap_err();
        assert!(decimals.contains("too many decimals for USD"), "{decimals}");
        assert!(decimals.contains("1 USD is 100"), "{decimals}");
        for written in ["1000.0", "1e3", "-0", "-0.0"] {
            let plain = parse(&format!(r#"{{"amount":{written},"currency":"USD"}}"#)).unwrap_err();
            assert!(plain.contains("without decimal point"), "{plain}");
        }
        let huge = parse(r#"{"amount":1e30,"currency":"USD"}"#).unwrap_err();
        assert!(huge.contains("too large"), "{huge}");
        let unknown = parse(r#"{"amount":1,"currency":"XQQ"}"#).unwrap_err();
        assert!(unknown.contains("not an ISO 4217 currency"), "{unknown}");
        for bad in ["XTS", "XAU", "usd", ""] {
            assert!(bad.parse::<Currency>().is_err(), "{bad}");
        }
        assert!(parse(r#"{"amount":1000000000000,"currency":"USD"}"#).is_err());
        assert!(parse(r#"{"amount":18446744073709551615,"currency":"USD"}"#).is_err());
    }

    proptest! {
        #[test]
        fn rounding_is_exact_on_whole_minor_units(amount in -AMOUNT_MAX..=AMOUNT_MAX) {
            for code in ["USD", "JPY", "KWD"] {
                let money = Money::new(amount, code.parse().unwrap());
                prop_assert_eq!(Money::round(money.major(), money.currency), Some(money));
            }
        }

        #[test]
        fn rounding_moves_by_half_a_unit_at_most(mantissa in -1_000_000_000_i64..1_000_000_000) {
            let usd = "USD".parse().unwrap();
            let major = Decimal::new(mantissa, 5);
            let rounded = Money::round(major, usd).unwrap().major();
            prop_assert!((rounded - major).abs() <= Decimal::new(5, 3));
        }
    }
}
