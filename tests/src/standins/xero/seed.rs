//! What an organisation has on its first day. Charts and rates are this stand-in's own, after the
//! names and codes that the vendor gives to the organisations of each country.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::books::{Books, Mode, set};
use super::schema;
use super::settings;
use super::state::{Change, Fields, Kind, Settings};

/// An organisation as a test asks for it; or, of one that is there, what changes in it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewOrganisation {
    #[serde(alias = "account", alias = "id")]
    pub tenant: String,
    pub name: Option<String>,
    pub user: Option<String>,
    pub country: Option<String>,
    pub base_currency: Option<String>,
    /// Enabled beside the base currency.
    pub currencies: Vec<String>,
    pub period_lock_date: Option<Lock>,
    pub end_of_year_lock_date: Option<Lock>,
    pub approves: Option<bool>,
    pub multicurrency: Option<bool>,
    /// Beside those of the country, as the vendor's address takes them.
    pub accounts: Vec<Value>,
    pub tax_rates: Vec<Value>,
}

/// A lock date, or an empty text for none.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Lock(Option<NaiveDate>);

impl TryFrom<String> for Lock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let date = text.parse().map_err(|_| format!("{text} is not a date"))?;
        Ok(Self(Some(date)))
    }
}

pub fn settings(name: &str, country: &str, currency: &str, now: DateTime<Utc>) -> Settings {
    Settings {
        name: name.to_owned(),
        country: country.to_owned(),
        base_currency: currency.to_owned(),
        period_lock_date: None,
        end_of_year_lock_date: None,
        created: now.timestamp_millis(),
        approves: true,
        multicurrency: true,
    }
}

fn home(country: &str) -> &'static str {
    match country {
        "GB" => "GBP",
        "AU" => "AUD",
        "NZ" => "NZD",
        "CA" => "CAD",
        "CH" => "CHF",
        "JP" => "JPY",
        "US" => "USD",
        _ => "EUR",
    }
}

/// Tax type, name, percent, and whether it is of sales, of purchases or of both.
type Rate = (&'static str, &'static str, &'static str, &'static str);

fn rates(country: &str) -> &'static [Rate] {
    match country {
        "GB" => &[
            ("OUTPUT2", "20% (VAT on Income)", "20", "sale"),
            ("RROUTPUT", "5% (VAT on Income)", "5", "sale"),
            ("ZERORATEDOUTPUT", "Zero Rated Income", "0", "sale"),
            ("EXEMPTOUTPUT", "Exempt Income", "0", "sale"),
            ("INPUT2", "20% (VAT on Expenses)", "20", "purchase"),
            ("ZERORATEDINPUT", "Zero Rated Expenses", "0", "purchase"),
            ("NONE", "No VAT", "0", "both"),
        ],
        "AU" => &[
            ("OUTPUT", "GST on Income", "10", "sale"),
            ("EXEMPTOUTPUT", "GST Free Income", "0", "sale"),
            ("INPUT", "GST on Expenses", "10", "purchase"),
            ("EXEMPTEXPENSES", "GST Free Expenses", "0", "purchase"),
            ("BASEXCLUDED", "BAS Excluded", "0", "both"),
            ("NONE", "No GST", "0", "both"),
        ],
        "NZ" => &[
            ("OUTPUT2", "15% GST on Income", "15", "sale"),
            ("ZERORATED", "Zero Rated", "0", "sale"),
            ("INPUT2", "15% GST on Expenses", "15", "purchase"),
            ("NONE", "No GST", "0", "both"),
        ],
        "US" => &[
            ("OUTPUT", "Tax on Sales", "8.25", "sale"),
            ("INPUT", "Tax on Purchases", "8.25", "purchase"),
            ("NONE", "Tax Exempt", "0", "both"),
        ],
        _ => &[
            ("OUTPUT", "Tax on Sales", "20", "sale"),
            ("INPUT", "Tax on Purchases", "20", "purchase"),
            ("NONE", "Tax Exempt", "0", "both"),
        ],
    }
}

/// Code, name, type, and the system account that it is.
const CHART: [(&str, &str, &str, &str); 13] = [
    ("090", "Business Bank Account", "BANK", ""),
    ("200", "Sales", "REVENUE", ""),
    ("260", "Other Revenue", "REVENUE", ""),
    ("310", "Cost of Goods Sold", "DIRECTCOSTS", ""),
    ("404", "Bank Fees", "EXPENSE", ""),
    ("425", "Freight & Courier", "EXPENSE", ""),
    ("610", "Accounts Receivable", "CURRENT", "DEBTORS"),
    ("800", "Accounts Payable", "CURRLIAB", "CREDITORS"),
    ("820", "Sales Tax", "CURRLIAB", "GST"),
    ("835", "Deferred Income", "CURRLIAB", ""),
    ("860", "Rounding", "CURRLIAB", "ROUNDING"),
    ("960", "Retained Earnings", "EQUITY", "RETAINEDEARNINGS"),
    ("970", "Owner A Funds Introduced", "EQUITY", ""),
];

/// Opens an organisation, or changes how one is set up. Errors say what of it cannot be.
pub fn open(books: &mut Books<'_>, new: &NewOrganisation) -> Result<(), String> {
    let old = books.state.organisations.get(books.tenant);
    let old = old.and_then(|one| one.settings.clone());
    let fresh = old.is_none();
    let country = new.country.as_deref().unwrap_or("US");
    let currency = new.base_currency.as_deref().unwrap_or(home(country));
    let mut settings = old.unwrap_or_else(|| settings(books.tenant, country, currency, books.now));
    if let Some(name) = &new.name {
        settings.name.clone_from(name);
    }
    if let Some(Lock(date)) = new.period_lock_date {
        settings.period_lock_date = date;
    }
    if let Some(Lock(date)) = new.end_of_year_lock_date {
        settings.end_of_year_lock_date = date;
    }
    settings.approves = new.approves.unwrap_or(settings.approves);
    settings.multicurrency = new.multicurrency.unwrap_or(settings.multicurrency);
    let base = settings.base_currency.clone();
    books.state.record(Change::Organisation {
        tenant: books.tenant.to_owned(),
        settings,
    });
    let mut currencies: BTreeSet<&str> = new.currencies.iter().map(String::as_str).collect();
    if fresh {
        currencies.insert(&base);
        chart(books, country);
    }
    for code in currencies {
        let code = Fields::from_iter([("Code".to_owned(), json!(code))]);
        settings::currency(books, &code).map_err(|wrong| wrong.join("; "))?;
    }
    for sent in &new.tax_rates {
        let sent = admitted(&schema::TAX_RATE, sent)?;
        settings::tax_rate(books, &sent, Mode::Create).map_err(|wrong| wrong.join("; "))?;
    }
    for sent in &new.accounts {
        let sent = admitted(&schema::ACCOUNT, sent)?;
        settings::account(books, &sent, Mode::Create).map_err(|wrong| wrong.join("; "))?;
    }
    Ok(())
}

pub fn admitted(kind: &'static schema::Type, sent: &Value) -> Result<Fields, String> {
    let mut wrong = Vec::new();
    let fields = schema::admit(kind, sent, "control", &mut wrong)?;
    match wrong.is_empty() {
        true => Ok(fields),
        false => Err(wrong.join("; ")),
    }
}

fn chart(books: &mut Books<'_>, country: &str) {
    let rates = rates(country);
    for (tax, name, percent, of) in rates {
        let percent: f64 = percent.parse().unwrap_or_default();
        let value = json!({
            "TaxType": tax,
            "Name": name,
            "TaxComponents": [{"Name": name, "Rate": percent, "IsCompound": false, "IsNonRecoverable": false}],
            "Status": "ACTIVE",
            "ReportTaxType": if *of == "purchase" { "INPUT" } else if *of == "sale" { "OUTPUT" } else { "NONE" },
            "CanApplyToAssets": true,
            "CanApplyToEquity": true,
            "CanApplyToExpenses": *of != "sale",
            "CanApplyToLiabilities": true,
            "CanApplyToRevenue": *of != "purchase",
            "DisplayTaxRate": percent,
            "EffectiveRate": percent,
        });
        if let Value::Object(value) = value {
            books.put(Kind::TaxRate, value);
        }
    }
    let usual = |of: &str| {
        let found = rates.iter().find(|(.., one)| *one == of);
        found.map_or("NONE", |(tax, ..)| *tax)
    };
    for (code, name, kind, system) in CHART {
        let class = settings::class(kind);
        let tax = match class {
            "REVENUE" => usual("sale"),
            "EXPENSE" => usual("purchase"),
            _ => "NONE",
        };
        let mut value = Fields::new();
        set(&mut value, "AccountID", books.new_id());
        for (name, text) in [
            ("Code", code),
            ("Name", name),
            ("Type", kind),
            ("Class", class),
            ("TaxType", tax),
            ("Status", "ACTIVE"),
        ] {
            set(&mut value, name, text);
        }
        set(&mut value, "EnablePaymentsToAccount", code == "970");
        if !system.is_empty() {
            set(&mut value, "SystemAccount", system);
        }
        if kind == "BANK" {
            set(&mut value, "BankAccountNumber", "0200123456");
            set(&mut value, "BankAccountType", "BANK");
            set(&mut value, "CurrencyCode", books.settings().base_currency);
        }
        books.put(Kind::Account, value);
    }
}
