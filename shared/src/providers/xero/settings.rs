//! What the mapping needs to know about an organisation, and the defaults that are read from it.

use crate::model::money::Currency;
use crate::providers::Fault;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    base_currency: String,
    /// Codes of all currencies that may stand in a document.
    currencies: BTreeSet<String>,
    /// The code of the account that sales go to.
    pub sales_account: String,
    /// Accounts that money comes in on and goes out from, the best first.
    money: Vec<MoneyAccount>,
    /// Rates that a sale can have, the best for each percentage first.
    rates: Vec<Rate>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct MoneyAccount {
    id: String,
    currency: String,
    bank: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rate {
    tax_type: String,
    /// Per cent.
    percent: Decimal,
}

fn text<'a>(one: &'a Value, name: &str) -> &'a str {
    one[name].as_str().unwrap_or_default()
}

fn all<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().into_iter().flatten()
}

impl Settings {
    /// Reads what an hour ago was made of the answers.
    pub fn of(value: &Value) -> Result<Settings, Fault> {
        serde_json::from_value(value.clone()).map_err(|_| Fault::Later {
            detail: "the organisation's settings have to be read again".to_owned(),
        })
    }

    /// Reads organisation, accounts, tax rates and currencies. Sales go to the revenue account with the
    /// lowest code, which in Xero's charts of accounts is "Sales".
    pub fn read(
        organisation: &Value,
        accounts: &Value,
        rates: &Value,
        currencies: &Value,
    ) -> Result<Settings, Fault> {
        let organisation = &organisation["Organisations"][0];
        let Some(base_currency) = organisation["BaseCurrency"].as_str() else {
            return Err(super::incomplete());
        };
        let mut accounts: Vec<&Value> = all(accounts, "Accounts")
            .filter(|account| account["Status"] == "ACTIVE")
            .collect();
        accounts.sort_by_key(|account| (text(account, "Code"), text(account, "AccountID")));
        let sales = accounts.iter().find(|account| {
            let of_sales = matches!(text(account, "Type"), "REVENUE" | "SALES");
            of_sales && !text(account, "Code").is_empty()
        });
        let Some(sales) = sales else {
            return Err(Fault::Refused {
                code: "no_sales_account".to_owned(),
                detail: "Xero has no active account of type Revenue or Sales; add one, then retry"
                    .to_owned(),
            });
        };
        let mut money: Vec<MoneyAccount> = accounts
            .iter()
            .filter(|one| one["Type"] == "BANK" || one["EnablePaymentsToAccount"] == true)
            .map(|one| MoneyAccount {
                id: text(one, "AccountID").to_owned(),
                currency: one["CurrencyCode"]
                    .as_str()
                    .unwrap_or(base_currency)
                    .to_owned(),
                bank: one["Type"] == "BANK",
            })
            .collect();
        // A director's loan account takes payments as well, but sales are banked.
        money.sort_by_key(|account| Reverse(account.bank));
        let usual = text(sales, "TaxType");
        let mut rates: Vec<(_, Rate)> = all(rates, "TaxRates")
            .filter(|rate| rate["Status"] == "ACTIVE" && rate["CanApplyToRevenue"] == true)
            .filter_map(|rate| {
                let tax_type = text(rate, "TaxType").to_owned();
                let percent: Decimal = rate["EffectiveRate"].to_string().parse().ok()?;
                let output = rate["ReportTaxType"] == "OUTPUT" || tax_type.starts_with("OUTPUT");
                // Nothing to report is the plainest of all that are nothing.
                let plain = tax_type == "NONE";
                let rank = (
                    Reverse(percent.is_zero() && plain),
                    Reverse(tax_type == usual),
                    Reverse(output),
                    tax_type.clone(),
                );
                Some((rank, Rate { tax_type, percent }))
            })
            .collect();
        rates.sort_by(|one, other| one.0.cmp(&other.0));
        let codes = all(currencies, "Currencies").map(|one| text(one, "Code").to_owned());
        Ok(Settings {
            base_currency: base_currency.to_owned(),
            currencies: codes.chain([base_currency.to_owned()]).collect(),
            sales_account: text(sales, "Code").to_owned(),
            money,
            rates: rates.into_iter().map(|(_, rate)| rate).collect(),
        })
    }

    /// Refuses a currency in which the organisation keeps no books.
    pub fn check(&self, currency: Currency) -> Result<(), Fault> {
        if self.currencies.contains(currency.code()) {
            return Ok(());
        }
        Err(Fault::Refused {
            code: "currency_off".to_owned(),
            detail: format!(
                "this is in {currency}, which Xero does not use in this organisation; add the \
                 currency in Xero (Settings, Currencies), then retry"
            ),
        })
    }

    /// The tax type of a percentage.
    pub fn tax_type(&self, percent: Decimal) -> Option<&str> {
        let rate = self.rates.iter().find(|rate| rate.percent == percent)?;
        Some(&rate.tax_type)
    }

    /// All percentages above nothing.
    pub fn percentages(&self) -> impl Iterator<Item = Decimal> {
        let percentages: BTreeSet<Decimal> = self.rates.iter().map(|rate| rate.percent).collect();
        percentages.into_iter().filter(|percent| !percent.is_zero())
    }

    /// The account that money of `currency` comes in on: one in that currency, else the usual one, of
    /// which Xero converts.
    pub fn money_account(&self, currency: Currency) -> Result<&str, Fault> {
        let of = |code: &str| self.money.iter().find(|account| account.currency == code);
        match of(currency.code()).or_else(|| of(&self.base_currency)) {
            Some(account) => Ok(&account.id),
            None => Err(Fault::Refused {
                code: "no_money_account".to_owned(),
                detail:
                    "Xero has neither a bank account nor another that takes payments; add one, \
                         then retry"
                        .to_owned(),
            }),
        }
    }
}
