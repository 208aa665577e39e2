//! What the mapping needs to know about a company, and the defaults that are read from it.

use crate::providers::Fault;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the mapping needs to know about the company.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    pub company_name: String,
    pub country: String,
    pub home_currency: String,
    pub multicurrency: bool,
    pub sales_tax: bool,
    /// Account ids.
    pub income_account: String,
    pub refund_account: String,
}

impl Settings {
    /// Reads what an hour ago was made of the answers.
    pub fn of(value: &Value) -> Result<Settings, Fault> {
        serde_json::from_value(value.clone()).map_err(|_| Fault::Later {
            detail: "the company's settings have to be read again".to_owned(),
        })
    }
}

/// Reads company info, preferences and the chart of accounts.
pub fn read(company: &Value, preferences: &Value, accounts: &Value) -> Result<Value, Fault> {
    let (company, preferences) = (&company["CompanyInfo"], &preferences["Preferences"]);
    let accounts = accounts["QueryResponse"]["Account"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let account = |sub_type: &str| {
        let found = accounts
            .iter()
            .find(|account| account["AccountSubType"] == sub_type);
        found
            .and_then(|account| account["Id"].as_str())
            .map(str::to_owned)
    };
    let Some(income_account) =
        account("SalesOfProductIncome").or_else(|| account("ServiceFeeIncome"))
    else {
        return Err(Fault::Refused {
            code: "no_income_account".to_owned(),
            detail:
                "QuickBooks has no account of type Sales of Product Income; add one, then retry"
                    .to_owned(),
        });
    };
    // Where sales receipts put the money by default, so that sale and refund meet.
    let Some(refund_account) = account("UndepositedFunds").or_else(|| account("Checking")) else {
        return Err(Fault::Refused {
            code: "no_deposit_account".to_owned(),
            detail:
                "QuickBooks has neither Undeposited Funds nor a checking account; add one, then \
                     retry"
                    .to_owned(),
        });
    };
    let currency = &preferences["CurrencyPrefs"];
    let settings = Settings {
        company_name: company["CompanyName"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        country: company["Country"].as_str().unwrap_or("US").to_owned(),
        home_currency: currency["HomeCurrency"]["value"]
            .as_str()
            .unwrap_or("USD")
            .to_owned(),
        multicurrency: currency["MultiCurrencyEnabled"].as_bool().unwrap_or(false),
        sales_tax: preferences["TaxPrefs"]["UsingSalesTax"]
            .as_bool()
            .unwrap_or(false),
        income_account,
        refund_account,
    };
    serde_json::to_value(settings).map_err(|error| Fault::Later {
        detail: error.to_string(),
    })
}
