//! What the mapping needs to know about a company, and the defaults that are read from it.

use super::MANIFEST;
use super::taxes::Codes;
use crate::model::money::Currency;
use crate::providers::Fault;
use crate::providers::accounts::{self, Chart, Choices, LedgerAccount, Role, says};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What the mapping needs to know about the company.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    pub company_name: String,
    pub country: String,
    pub home_currency: String,
    pub multicurrency: bool,
    pub sales_tax: bool,
    /// Whether QuickBooks finds the tax by the addresses, in the United States.
    #[serde(default)]
    pub automated_tax: bool,
    /// Those of companies outside of the United States.
    #[serde(default)]
    pub taxes: Codes,
    pub chart: Chart,
    #[serde(default)]
    pub choices: Choices,
}

impl Settings {
    /// Reads what an hour ago was made of the answers.
    pub fn of(value: &Value) -> Result<Settings, Fault> {
        serde_json::from_value(value.clone()).map_err(|_| Fault::Later {
            detail: "the company's settings have to be read again".to_owned(),
        })
    }

    /// The account of `role`.
    pub fn account(&self, role: Role) -> Result<&LedgerAccount, Fault> {
        Ok(self.chart.used(role, &self.choices, MANIFEST.title)?)
    }

    /// The account of `role` if the merchant chose one, where QuickBooks has a default of its own.
    pub fn chosen(&self, role: Role) -> Result<Option<&LedgerAccount>, Fault> {
        Ok(self.chart.chosen(role, &self.choices, MANIFEST.title)?)
    }

    /// The same of an account that holds money of `currency`: one in another is not used, because
    /// QuickBooks takes the currency of the transaction or the home currency alone.
    pub fn chosen_money(
        &self,
        role: Role,
        currency: Currency,
    ) -> Result<Option<&LedgerAccount>, Fault> {
        let holds = |account: &&LedgerAccount| {
            let own = account.currency.as_ref();
            own.is_none_or(|own| own == currency.code() || *own == self.home_currency)
        };
        Ok(self.chosen(role)?.filter(holds))
    }

    /// The account that money of `currency` lies on until it is paid out.
    fn clearing(&self, currency: Currency) -> Result<&LedgerAccount, Fault> {
        if let Some(account) = self.chosen_money(Role::Money, currency)? {
            return Ok(account);
        }
        let usual = Choices::default();
        Ok(self.chart.used(Role::Money, &usual, MANIFEST.title)?)
    }

    /// The account of `role` in a payout in `currency`.
    pub fn payout_account(&self, role: Role, currency: Currency) -> Result<&LedgerAccount, Fault> {
        match role {
            Role::Money => self.clearing(currency),
            Role::Refunds => self.refund_account(currency),
            Role::Payouts => {
                let (clearing, code) = (self.clearing(currency)?, currency.code());
                let choices = &self.choices;
                let title = MANIFEST.title;
                Ok(self.chart.payouts(clearing, code, choices, title)?)
            }
            _ => self.account(role),
        }
    }

    /// The account that a refund in `currency` is paid from.
    pub fn refund_account(&self, currency: Currency) -> Result<&LedgerAccount, Fault> {
        if let Some(account) = self.chosen_money(Role::Refunds, currency)? {
            return Ok(account);
        }
        let usual = Choices::default();
        Ok(self.chart.used(Role::Refunds, &usual, MANIFEST.title)?)
    }
}

/// Subtypes that are kept for something else, whatever their type would allow.
const RESERVED: &[&str] = &[
    "Inventory",
    "GlobalTaxPayable",
    "GlobalTaxSuspense",
    "SalesTaxPayable",
    "PayrollTaxPayable",
    "PayrollClearing",
];

/// What an account can be used for. Money lies on bank accounts and other current assets; what an item
/// sells for is income, or a liability where it is a gift card
/// (<https://quickbooks.intuit.com/learn-support/en-us/gift-card-payments/sell-and-redeem-gift-cards-or-certificates-in-quickbooks-online/00/190607>).
fn roles(kind: &str, sub_type: &str) -> BTreeSet<Role> {
    if RESERVED.contains(&sub_type) {
        return BTreeSet::new();
    }
    let roles: &[Role] = match kind {
        "Income" | "Other Income" => &[Role::Sales, Role::Shipping, Role::Discounts],
        "Bank" => &[Role::Money, Role::Refunds, Role::Payouts],
        "Other Current Asset" => &[Role::Money, Role::Refunds],
        "Expense" | "Other Expense" | "Cost of Goods Sold" => &[Role::Fees],
        "Other Current Liability" => &[Role::Tips, Role::GiftCards],
        _ => &[],
    };
    roles.iter().copied().collect()
}

fn rules() -> BTreeMap<Role, String> {
    let income = "an account of type Income or Other Income";
    let money = "an account of type Bank or Other Current Asset";
    let rule = |role: Role| match role {
        Role::Sales => "an account of type Income (Sales of Product Income) or Other Income",
        Role::Shipping | Role::Discounts => income,
        Role::Money | Role::Refunds => money,
        Role::Tips => "an account of type Other Current Liability (detail type Undistributed Tips)",
        Role::GiftCards => "an account of type Other Current Liability (named Gift cards)",
        Role::Fees => "an account of type Expense (named Payment fees)",
        Role::Payouts => "an account of type Bank",
    };
    Role::ALL.map(|role| (role, rule(role).to_owned())).into()
}

/// Reads the accounts, of which `preferences` name some.
fn chart(accounts: &Value, preferences: &Value, home_currency: &str) -> Chart {
    let all = accounts["QueryResponse"]["Account"].as_array();
    let all: &[Value] = all.map_or(&[], Vec::as_slice);
    let text = |one: &Value, name: &str| one[name].as_str().map(str::to_owned);
    let read = |one: &Value| {
        let kind = text(one, "AccountType").unwrap_or_default();
        Some(LedgerAccount {
            id: text(one, "Id")?,
            code: text(one, "AcctNum"),
            name: text(one, "FullyQualifiedName").or_else(|| text(one, "Name"))?,
            roles: roles(&kind, one["AccountSubType"].as_str().unwrap_or_default()),
            kind,
            active: one["Active"] != false,
            currency: text(&one["CurrencyRef"], "value"),
        })
    };
    let mut chart = Chart {
        accounts: all.iter().filter_map(read).collect(),
        defaults: BTreeMap::new(),
        currency: home_currency.to_owned(),
        rules: rules(),
    };
    let of = |sub_type: &str| {
        let mut found = all.iter().filter(|one| one["AccountSubType"] == sub_type);
        let active = found.find(|one| one["Active"] != false)?;
        text(active, "Id")
    };
    let forms = &preferences["SalesFormsPrefs"];
    // `Undeposited Funds` is where sales receipts put the money by themselves, so sale and refund meet.
    let money = of("UndepositedFunds");
    let defaults = [
        (
            Role::Sales,
            of("SalesOfProductIncome").or_else(|| of("ServiceFeeIncome")),
        ),
        // What QuickBooks uses by itself; shown, not sent.
        (
            Role::Shipping,
            text(forms, "DefaultShippingAccount").or_else(|| of("ShippingFreightDelivery")),
        ),
        (
            Role::Discounts,
            text(forms, "DefaultDiscountAccount").or_else(|| of("DiscountsRefundsGiven")),
        ),
        (Role::Money, money.clone()),
        (Role::Refunds, money.or_else(|| of("Checking"))),
    ];
    let known = |id: &String| chart.accounts.iter().any(|one| one.id == *id);
    let defaults = defaults
        .into_iter()
        .filter_map(|(role, id)| Some((role, id.filter(known)?)));
    chart.defaults = defaults.collect();
    let named = |words: &'static [&str]| move |one: &LedgerAccount| says(&one.name, words);
    let ids = |sub_type: &str| -> Vec<String> {
        let found = all.iter().filter(|one| one["AccountSubType"] == sub_type);
        found.filter_map(|one| text(one, "Id")).collect()
    };
    let tips = ids("UndistributedTips");
    chart.default_only(Role::Tips, |one| tips.contains(&one.id));
    chart.default_only(Role::Tips, named(accounts::TIPS));
    chart.default_only(Role::GiftCards, named(accounts::GIFT_CARDS));
    chart.default_only(Role::Fees, |one| accounts::says_fees(&one.name));
    chart
}

/// Reads company info, preferences, the chart of accounts, and the tax codes with their rates.
pub fn read(
    company: &Value,
    preferences: &Value,
    accounts: &Value,
    codes: &Value,
    rates: &Value,
) -> Result<Value, Fault> {
    let (company, preferences) = (&company["CompanyInfo"], &preferences["Preferences"]);
    let currency = &preferences["CurrencyPrefs"];
    let home_currency = currency["HomeCurrency"]["value"].as_str().unwrap_or("USD");
    let settings = Settings {
        company_name: company["CompanyName"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        country: company["Country"].as_str().unwrap_or("US").to_owned(),
        home_currency: home_currency.to_owned(),
        multicurrency: currency["MultiCurrencyEnabled"].as_bool().unwrap_or(false),
        sales_tax: preferences["TaxPrefs"]["UsingSalesTax"]
            .as_bool()
            .unwrap_or(false),
        automated_tax: preferences["TaxPrefs"]["PartnerTaxEnabled"] == true,
        taxes: Codes::read(codes, rates),
        chart: chart(accounts, preferences, home_currency),
        choices: Choices::default(),
    };
    serde_json::to_value(settings).map_err(|error| Fault::Later {
        detail: error.to_string(),
    })
}
