//! How an organisation is set up: its accounts, tax rates and currencies, and itself.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, Mode, Saved, amount, list, set};
use super::state::{Fields, Kind, Settings, text};
use super::wire::{day, moment, shown};
use crate::standins::money;

pub const ACCOUNT_TYPES: [&str; 18] = [
    "BANK",
    "CURRENT",
    "CURRLIAB",
    "DEPRECIATN",
    "DIRECTCOSTS",
    "EQUITY",
    "EXPENSE",
    "FIXED",
    "INVENTORY",
    "LIABILITY",
    "NONCURRENT",
    "OTHERINCOME",
    "OVERHEADS",
    "PREPAYMENT",
    "REVENUE",
    "SALES",
    "TERMLIAB",
    "PAYG",
];

/// The side of the books that an account of this type is on.
pub fn class(kind: &str) -> &'static str {
    match kind {
        "BANK" | "CURRENT" | "FIXED" | "INVENTORY" | "NONCURRENT" | "PREPAYMENT" => "ASSET",
        "EQUITY" => "EQUITY",
        "DEPRECIATN" | "DIRECTCOSTS" | "EXPENSE" | "OVERHEADS" => "EXPENSE",
        "OTHERINCOME" | "REVENUE" | "SALES" => "REVENUE",
        _ => "LIABILITY",
    }
}

/// Whether lines on this account may have this tax.
pub fn applies(rate: &Fields, account: &Fields) -> bool {
    let to = match text(account, "Class") {
        Some("ASSET") => "CanApplyToAssets",
        Some("EQUITY") => "CanApplyToEquity",
        Some("EXPENSE") => "CanApplyToExpenses",
        Some("REVENUE") => "CanApplyToRevenue",
        _ => "CanApplyToLiabilities",
    };
    rate.get(to) == Some(&json!(true))
}

pub fn tax_percent(rate: &Fields) -> Decimal {
    amount(rate, "EffectiveRate").unwrap_or_default()
}

/// Makes or changes an account.
pub fn account(books: &mut Books<'_>, sent: &Fields, mode: Mode) -> Saved {
    let old = match (mode, text(sent, "AccountID")) {
        (Mode::Upsert, Some(id)) => match books.get(Kind::Account, id) {
            Some(old) => Some(old.clone()),
            None => {
                return Err(vec![format!(
                    "No account was found with the AccountID {id}"
                )]);
            }
        },
        _ => None,
    };
    let mut wrong = Vec::new();
    let mut value = old.clone().unwrap_or_default();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    if !value.contains_key("Status") {
        set(&mut value, "Status", "ACTIVE");
    }
    let bank = text(&value, "Type") == Some("BANK");
    for (name, needed) in [("Name", true), ("Type", true), ("Code", !bank)] {
        if needed && text(&value, name).is_none_or(str::is_empty) {
            wrong.push(format!("The account {name} must be specified"));
        }
    }
    if bank && text(&value, "BankAccountNumber").is_none_or(str::is_empty) {
        wrong.push("The bank account number must be specified".to_owned());
    }
    let taken = |key: &'static str| {
        let code = text(&value, key).unwrap_or_default();
        let mut others = books.shelf(Kind::Account).with(key, code);
        others.any(|other| other.get("AccountID") != value.get("AccountID"))
    };
    if taken("Code") {
        wrong.push("Please enter a unique Code.".to_owned());
    }
    let system = old
        .as_ref()
        .is_some_and(|old| old.contains_key("SystemAccount"));
    if system && text(&value, "Status") != Some("ACTIVE") {
        wrong.push("A system account cannot be archived or deleted".to_owned());
    }
    if let Some(tax) = text(&value, "TaxType")
        && books.get(Kind::TaxRate, tax).is_none()
    {
        wrong.push(format!(
            "The TaxType code '{tax}' does not exist or cannot be used"
        ));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let class = class(text(&value, "Type").unwrap_or_default());
    set(&mut value, "Class", class);
    value.entry("TaxType").or_insert_with(|| json!("NONE"));
    value
        .entry("EnablePaymentsToAccount")
        .or_insert_with(|| json!(false));
    if bank {
        value
            .entry("BankAccountType")
            .or_insert_with(|| json!("BANK"));
        let base = books.settings().base_currency;
        value.entry("CurrencyCode").or_insert_with(|| json!(base));
    }
    if !value.contains_key("AccountID") {
        set(&mut value, "AccountID", books.new_id());
    }
    let id = text(&value, "AccountID").unwrap_or_default().to_owned();
    books.put(Kind::Account, value);
    Ok(id)
}

pub fn render_account(account: &Fields) -> Fields {
    let mut out = shown(account);
    for (name, usual) in [
        ("ShowInExpenseClaims", json!(false)),
        ("HasAttachments", json!(false)),
        ("AddToWatchlist", json!(false)),
    ] {
        out.entry(name).or_insert(usual);
    }
    out
}

/// Makes or changes a tax rate. New ones are named `TAX001` and on.
pub fn tax_rate(books: &mut Books<'_>, sent: &Fields, mode: Mode) -> Saved {
    let old = match (mode, text(sent, "TaxType")) {
        (Mode::Upsert, Some(tax)) => match books.get(Kind::TaxRate, tax) {
            Some(old) => Some(old.clone()),
            None => {
                return Err(vec![format!(
                    "No tax rate was found with the TaxType {tax}"
                )]);
            }
        },
        _ => None,
    };
    let mut wrong = Vec::new();
    let mut value = old.clone().unwrap_or_default();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    let name = text(&value, "Name").unwrap_or_default().to_owned();
    if name.is_empty() {
        wrong.push("The tax rate Name must be specified".to_owned());
    }
    let taken = books
        .shelf(Kind::TaxRate)
        .with("Name", &name)
        .any(|one| old.is_none() || one.get("TaxType") != value.get("TaxType"));
    if taken {
        wrong.push(format!("A tax rate with the name '{name}' already exists"));
    }
    let components = list(&value, "TaxComponents").cloned().unwrap_or_default();
    let rate: Decimal = components
        .iter()
        .filter_map(|one| money::decimal(&one["Rate"]))
        .sum();
    if components.is_empty() {
        wrong.push("At least one tax component must be specified".to_owned());
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    if old.is_none() {
        let made = (1..)
            .map(|number| format!("TAX{number:03}"))
            .find(|tax| books.get(Kind::TaxRate, tax).is_none());
        set(&mut value, "TaxType", made);
        for to in ["Assets", "Equity", "Expenses", "Liabilities", "Revenue"] {
            set(&mut value, &format!("CanApplyTo{to}"), true);
        }
    }
    value.entry("Status").or_insert_with(|| json!("ACTIVE"));
    set(&mut value, "DisplayTaxRate", money::number(rate));
    set(&mut value, "EffectiveRate", money::number(rate));
    let tax = text(&value, "TaxType").unwrap_or_default().to_owned();
    books.put(Kind::TaxRate, value);
    Ok(tax)
}

/// A tax rate or a currency: neither shows when it changed.
pub fn render_undated(value: &Fields) -> Fields {
    let mut out = shown(value);
    out.remove("UpdatedDateUTC");
    out
}

/// Enables a currency. One cannot be disabled again.
pub fn currency(books: &mut Books<'_>, sent: &Fields) -> Saved {
    let code = text(sent, "Code").unwrap_or_default().to_uppercase();
    let Some(known) = iso_currency::Currency::from_code(&code) else {
        return Err(vec![format!("{code} is not a currency code")]);
    };
    let mut value = Fields::new();
    set(&mut value, "Code", code.as_str());
    set(&mut value, "Description", known.name());
    books.put(Kind::Currency, value);
    Ok(code)
}

/// The organisation itself.
pub fn organisation(settings: &Settings, id: &str) -> Value {
    let version = match settings.country.as_str() {
        "AU" | "NZ" | "US" => settings.country.as_str(),
        "GB" => "UK",
        _ => "GLOBAL",
    };
    let lock = |date: Option<chrono::NaiveDate>| date.map(day);
    let mut out = json!({
        "OrganisationID": id,
        "Name": settings.name,
        "LegalName": settings.name,
        "PaysTax": true,
        "Version": version,
        "OrganisationType": "COMPANY",
        "BaseCurrency": settings.base_currency,
        "CountryCode": settings.country,
        "IsDemoCompany": false,
        "OrganisationStatus": "ACTIVE",
        "FinancialYearEndDay": 31,
        "FinancialYearEndMonth": 12,
        "SalesTaxBasis": "ACCRUALS",
        "SalesTaxPeriod": "MONTHLY",
        "DefaultSalesTax": "Tax Exclusive",
        "DefaultPurchasesTax": "Tax Exclusive",
        "CreatedDateUTC": moment(settings.created),
        "OrganisationEntityType": "COMPANY",
        "Timezone": "GMTSTANDARDTIME",
        "ShortCode": "!stand",
        "Class": "PREMIUM",
        "Edition": "BUSINESS",
        "Addresses": [],
        "Phones": [],
        "ExternalLinks": [],
        "PaymentTerms": {},
    });
    for (name, date) in [
        ("PeriodLockDate", settings.period_lock_date),
        ("EndOfYearLockDate", settings.end_of_year_lock_date),
    ] {
        if let Some(date) = lock(date) {
            out[name] = json!(date);
        }
    }
    out
}

/// What the organisation's plan and the person who connected it allow.
pub fn actions(settings: &Settings) -> Vec<Value> {
    let all = [
        ("CreateApprovedInvoice", settings.approves),
        ("CreateApprovedBill", settings.approves),
        ("CreateDraftInvoice", true),
        ("CreateDraftBill", true),
        ("CreateInvoicePayment", settings.approves),
        ("UseMulticurrency", settings.multicurrency),
    ];
    all.into_iter()
        .map(|(name, allowed)| {
            let status = if allowed { "ALLOWED" } else { "NOT-ALLOWED" };
            json!({"Name": name, "Status": status})
        })
        .collect()
}
