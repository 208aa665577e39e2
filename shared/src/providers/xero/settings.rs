//! What the mapping needs to know about an organisation, and the defaults that are read from it.

use super::MANIFEST;
use super::map::refused;
use crate::model::money::Currency;
use crate::providers::Fault;
use crate::providers::accounts::{self, Chart, Choices, LedgerAccount, Role, says};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The type of what concerns no tax, in every region.
pub const NO_TAX: &str = "NONE";
/// The types of sales at no rate, which a return tells of: zero-rated where a region has that, and in
/// Australia what is free of GST ([tax types](https://developer.xero.com/documentation/api/accounting/types#taxtypes)).
const FREE: [&str; 3] = ["ZERORATEDOUTPUT", "ZERORATED", "EXEMPTOUTPUT"];

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    base_currency: String,
    /// Codes of all currencies that may stand in a document.
    currencies: BTreeSet<String>,
    /// Accounts that money comes in on and goes out from, the best first.
    money: Vec<MoneyAccount>,
    /// Rates that a sale can have, the best for each percentage first.
    rates: Vec<Rate>,
    chart: Chart,
    #[serde(default)]
    pub choices: Choices,
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

/// What an account can be used for. A line goes to an account by its code, and never to a bank account;
/// a payment is made to or from a bank account, or one that takes payments, which a gift card needs as it
/// pays.
fn roles(account: &Value) -> BTreeSet<Role> {
    let kind = text(account, "Type");
    let pays = account["EnablePaymentsToAccount"] == true;
    let system = !text(account, "SystemAccount").is_empty();
    let coded = !text(account, "Code").is_empty();
    let mut roles = BTreeSet::new();
    match kind {
        "BANK" => {
            roles.extend([Role::Money, Role::Refunds]);
            // A card is paid off, and money at PayPal is not in the bank yet.
            if !matches!(text(account, "BankAccountType"), "CREDITCARD" | "PAYPAL") {
                roles.insert(Role::Payouts);
            }
        }
        "REVENUE" | "SALES" | "OTHERINCOME" if coded => {
            roles.extend([Role::Sales, Role::Shipping, Role::Discounts]);
        }
        "EXPENSE" | "OVERHEADS" | "DIRECTCOSTS" if coded => {
            roles.extend([Role::Discounts, Role::Fees]);
        }
        "CURRLIAB" | "LIABILITY" | "TERMLIAB" if coded && !system => {
            roles.insert(Role::Tips);
            if pays {
                roles.insert(Role::GiftCards);
            }
        }
        _ => {}
    }
    if pays {
        roles.extend([Role::Money, Role::Refunds]);
    }
    roles
}

fn rules() -> BTreeMap<Role, String> {
    let income = "an account of type Revenue, Sales or Other Income";
    let money = "a bank account or another that takes payments";
    let rule = |role: Role| match role {
        Role::Sales | Role::Shipping => income,
        Role::Discounts => "an account of income or of expenses",
        Role::Money | Role::Refunds => money,
        Role::Tips => "a liability account (named Tips)",
        Role::GiftCards => {
            "a liability account (named Gift cards) with \"Enable payments to this account\""
        }
        Role::Fees => "an account of expenses (named Payment fees)",
        Role::Payouts => "a bank account that is no credit card",
    };
    Role::ALL.map(|role| (role, rule(role).to_owned())).into()
}

fn chart(accounts: &[&Value], base_currency: &str) -> Chart {
    let some = |one: &Value, name: &str| {
        let text = text(one, name);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let read = |one: &&Value| LedgerAccount {
        id: text(one, "AccountID").to_owned(),
        code: some(one, "Code"),
        name: text(one, "Name").to_owned(),
        kind: text(one, "Type").to_owned(),
        active: one["Status"] == "ACTIVE",
        currency: some(one, "CurrencyCode"),
        roles: roles(one),
    };
    let mut chart = Chart {
        accounts: accounts.iter().map(read).collect(),
        defaults: BTreeMap::new(),
        currency: base_currency.to_owned(),
        rules: rules(),
    };
    // Sales go to the revenue account with the lowest code, which in Xero's charts of accounts is "Sales".
    let of_sales = |one: &&LedgerAccount| {
        let sells = matches!(&one.kind[..], "REVENUE" | "SALES");
        one.active && sells && one.code.is_some()
    };
    if let Some(sales) = chart.accounts.iter().find(of_sales) {
        let id = sales.id.clone();
        for role in [Role::Sales, Role::Shipping, Role::Discounts] {
            chart.defaults.insert(role, id.clone());
        }
    }
    let named = |words: &'static [&str]| move |one: &LedgerAccount| says(&one.name, words);
    chart.default_only(Role::Tips, named(accounts::TIPS));
    chart.default_only(Role::GiftCards, named(accounts::GIFT_CARDS));
    chart.default_only(Role::Fees, |one| accounts::says_fees(&one.name));
    chart
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

    /// Reads organisation, accounts, tax rates and currencies.
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
        let registered = organisation["SalesTaxBasis"] != "NONE";
        let mut accounts: Vec<&Value> = all(accounts, "Accounts").collect();
        accounts.sort_by_key(|account| (text(account, "Code"), text(account, "AccountID")));
        let mut chart = chart(&accounts, base_currency);
        accounts.retain(|account| account["Status"] == "ACTIVE");
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
        if let Some(first) = money.iter().find(|one| one.currency == base_currency) {
            for role in [Role::Money, Role::Refunds] {
                chart.defaults.insert(role, first.id.clone());
            }
        }
        let sales = chart.defaults.get(&Role::Sales);
        let sales = accounts
            .iter()
            .find(|one| sales.is_some_and(|id| text(one, "AccountID") == id));
        let usual = sales.map_or("", |sales| text(sales, "TaxType"));
        let mut rates: Vec<(_, Rate)> = all(rates, "TaxRates")
            .filter(|rate| rate["Status"] == "ACTIVE" && rate["CanApplyToRevenue"] == true)
            .filter_map(|rate| {
                let tax_type = text(rate, "TaxType").to_owned();
                let percent: Decimal = rate["EffectiveRate"].to_string().parse().ok()?;
                let output = rate["ReportTaxType"] == "OUTPUT" || tax_type.starts_with("OUTPUT");
                let free = FREE.iter().position(|free| tax_type == *free);
                let rank = (
                    // Whoever is not registered reports nothing.
                    Reverse(!registered && tax_type == NO_TAX),
                    Reverse(tax_type == usual),
                    free.filter(|_| percent.is_zero()).unwrap_or(FREE.len()),
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
            money,
            rates: rates.into_iter().map(|(_, rate)| rate).collect(),
            chart,
            choices: Choices::default(),
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

    /// The account that lines of `role` go to.
    pub fn account(&self, role: Role) -> Result<&LedgerAccount, Fault> {
        Ok(self.chart.used(role, &self.choices, MANIFEST.title)?)
    }

    /// The same by its code, as a line names it.
    pub fn code(&self, role: Role) -> Result<&str, Fault> {
        Ok(self.account(role)?.code.as_deref().unwrap_or_default())
    }

    /// The account that a payout in `currency` clears: a bank account in that currency, since Xero moves
    /// money between no others.
    pub fn clearing(&self, currency: Currency) -> Result<&LedgerAccount, Fault> {
        let id = self.money_account(Role::Money, currency)?;
        let account = self.chart.accounts.iter().find(|one| one.id == id);
        let account = account.ok_or_else(super::incomplete)?;
        if account.kind != "BANK" {
            return refused(
                "wrong_account",
                format!(
                    "the money of customers lies on {}, which is no bank account, and Xero moves money \
                     between bank accounts only; choose one for it in the settings of the connection \
                     (accounts.money), then retry",
                    account.name
                ),
            );
        }
        self.in_currency(account, currency)
    }

    /// The account that a payout in `currency` reaches.
    pub fn payouts(&self, currency: Currency) -> Result<&LedgerAccount, Fault> {
        let (clearing, code) = (self.clearing(currency)?, currency.code());
        let (chart, choices) = (&self.chart, &self.choices);
        self.in_currency(
            chart.payouts(clearing, code, choices, MANIFEST.title)?,
            currency,
        )
    }

    /// The currency of the account with this id.
    pub fn currency_of(&self, id: &str) -> &str {
        let account = self.chart.accounts.iter().find(|one| one.id == id);
        account.map_or(&self.base_currency, |one| self.chart.currency_of(one))
    }

    /// `account`, if a payout in `currency` can be posted on it: Xero takes the currency of a bank
    /// transaction or transfer from its account.
    fn in_currency<'a>(
        &'a self,
        account: &'a LedgerAccount,
        currency: Currency,
    ) -> Result<&'a LedgerAccount, Fault> {
        let own = self.chart.currency_of(account);
        if own == currency.code() {
            return Ok(account);
        }
        refused(
            "account_currency",
            format!(
                "this payout is in {currency} and {} is in {own}, and Xero moves no money between \
                 currencies by itself; add a bank account in {currency} in Xero, then retry, or post it \
                 by hand",
                account.name
            ),
        )
    }

    /// The id of the account that money of `currency` comes in on or goes out from: the chosen one, unless
    /// it holds a currency that Xero does not take there; else one in that currency, else the usual one, of
    /// which Xero converts.
    pub fn money_account(&self, role: Role, currency: Currency) -> Result<&str, Fault> {
        let chosen = self.chart.chosen(role, &self.choices, MANIFEST.title)?;
        let holds = |account: &&LedgerAccount| {
            let own = account.currency.as_ref();
            own.is_none_or(|own| own == currency.code() || *own == self.base_currency)
        };
        if let Some(account) = chosen.filter(holds) {
            return Ok(&account.id);
        }
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
