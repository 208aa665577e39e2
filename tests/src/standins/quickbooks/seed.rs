//! A company as it stands on its first day.

use serde::Deserialize;
use serde_json::{Value, json};

use super::books::{Books, Options, stamp};
use super::fault::Fault;
use super::names::currency_ref;
use super::state::{Change, Settings};

pub const DEFAULT_REALM: &str = "4620816365012345678";

/// What the control port may ask of a new company. Everything has a value that makes a company
/// in the United States as most are.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NewCompany {
    pub realm: String,
    pub name: String,
    pub country: String,
    pub home_currency: String,
    pub multicurrency: bool,
    pub sales_tax: bool,
    pub automated_sales_tax: bool,
    pub automated_tax_percent: String,
    pub custom_transaction_numbers: bool,
    pub forbid_duplicate_doc_numbers: bool,
    pub shipping: bool,
    pub discounts: bool,
    /// Up to which day the books are closed, as Intuit writes it; nothing where they are open.
    pub closed_until: String,
    pub case_sensitive_queries: bool,
    /// Accounts beside the usual ones, as the vendor's address takes them, or changes to accounts of these
    /// names.
    pub accounts: Vec<Value>,
    /// Tax codes of one rate each beside those of the country.
    pub tax_codes: Vec<NewTaxCode>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewTaxCode {
    name: String,
    percent: String,
}

impl Default for NewCompany {
    fn default() -> Self {
        Self {
            realm: DEFAULT_REALM.to_owned(),
            name: "Sandbox Company US 1".to_owned(),
            country: "US".to_owned(),
            home_currency: "USD".to_owned(),
            multicurrency: true,
            sales_tax: true,
            automated_sales_tax: true,
            automated_tax_percent: "8".to_owned(),
            custom_transaction_numbers: true,
            forbid_duplicate_doc_numbers: false,
            shipping: true,
            discounts: true,
            closed_until: String::new(),
            case_sensitive_queries: false,
            accounts: Vec::new(),
            tax_codes: Vec::new(),
        }
    }
}

impl NewCompany {
    fn settings(&self) -> Settings {
        Settings {
            realm: self.realm.clone(),
            forbid_duplicate_doc_numbers: self.forbid_duplicate_doc_numbers,
            case_sensitive_queries: self.case_sensitive_queries,
            automated_tax_percent: self.automated_tax_percent.clone(),
        }
    }
}

/// Opens the books, or changes the settings of books that are open already.
pub fn open(books: &mut Books<'_>, new: &NewCompany) -> Result<(), Fault> {
    found(books, new);
    for account in &new.accounts {
        let mut account = account.clone();
        let named = |(_, one): &(u64, &Value)| one["Name"] == account["Name"];
        if let Some((_, known)) = books.company().all("Account").find(named) {
            let (id, version) = (known["Id"].clone(), known["SyncToken"].clone());
            account["Id"] = id;
            account["SyncToken"] = version;
            account["sparse"] = json!(true);
        }
        books.save("Account", &account, Options::default())?;
    }
    for code in &new.tax_codes {
        let next = |entity: &str| books.company().all(entity).count() as u64 + 1;
        let (code_id, rate_id) = (next("TaxCode"), next("TaxRate"));
        let percent = code.percent.parse().unwrap_or(0.0);
        seed(books, "TaxRate", rate_id, tax_rate(&code.name, percent));
        let code = tax_code(&code.name, true, &[rate_id.to_string()]);
        seed(books, "TaxCode", code_id, code);
    }
    Ok(())
}

fn found(books: &mut Books<'_>, new: &NewCompany) {
    let first_day = books
        .state
        .companies
        .get(books.realm)
        .is_none_or(|company| company.entities.is_empty());
    books.state.record(Change::Company(new.settings()));
    seed(books, "CompanyInfo", 1, company_info(books, new));
    seed(books, "Preferences", 1, preferences(new));
    if !first_day {
        return;
    }
    for (id, (name, kind, sub, class)) in (1..).zip(ACCOUNTS) {
        let mut account = json!({
            "Name": name,
            "SubAccount": false,
            "FullyQualifiedName": name,
            "Active": true,
            "Classification": class,
            "AccountType": kind,
            "AccountSubType": sub,
            "CurrentBalance": 0,
            "CurrentBalanceWithSubAccounts": 0,
        });
        if new.multicurrency {
            account["CurrencyRef"] = currency_ref(&new.home_currency);
        }
        seed(books, "Account", id, account);
    }
    for (id, name) in (1..).zip(["Services", "Hours"]) {
        let item = json!({
            "Name": name,
            "Active": true,
            "FullyQualifiedName": name,
            "Taxable": false,
            "UnitPrice": 0,
            "Type": "Service",
            "IncomeAccountRef": {"value": "1", "name": "Services"},
            "PurchaseCost": 0,
            "TrackQtyOnHand": false,
        });
        seed(books, "Item", id, item);
    }
    for (id, (name, kind)) in (1..).zip([
        ("Cash", "NON_CREDIT_CARD"),
        ("Check", "NON_CREDIT_CARD"),
        ("Visa", "CREDIT_CARD"),
        ("MasterCard", "CREDIT_CARD"),
    ]) {
        seed(
            books,
            "PaymentMethod",
            id,
            json!({"Name": name, "Active": true, "Type": kind}),
        );
    }
    taxes(books, new);
}

fn seed(books: &mut Books<'_>, entity: &str, id: u64, mut value: Value) {
    let now = stamp(books.now);
    let version = books
        .company()
        .get(entity, id)
        .and_then(|before| before["SyncToken"].as_str()?.parse::<u64>().ok())
        .map_or(0, |token| token + 1);
    value["domain"] = json!("QBO");
    value["sparse"] = json!(false);
    value["Id"] = json!(id.to_string());
    value["SyncToken"] = json!(version.to_string());
    value["MetaData"] = json!({"CreateTime": now, "LastUpdatedTime": now});
    books.put(entity, id, value);
}

/// Name, type, subtype, classification.
const ACCOUNTS: [(&str, &str, &str, &str); 14] = [
    ("Services", "Income", "ServiceFeeIncome", "Revenue"),
    (
        "Sales of Product Income",
        "Income",
        "SalesOfProductIncome",
        "Revenue",
    ),
    (
        "Discounts given",
        "Income",
        "DiscountsRefundsGiven",
        "Revenue",
    ),
    ("Shipping Income", "Income", "OtherPrimaryIncome", "Revenue"),
    (
        "Undeposited Funds",
        "Other Current Asset",
        "UndepositedFunds",
        "Asset",
    ),
    ("Checking", "Bank", "Checking", "Asset"),
    ("Savings", "Bank", "Savings", "Asset"),
    (
        "Accounts Receivable (A/R)",
        "Accounts Receivable",
        "AccountsReceivable",
        "Asset",
    ),
    (
        "Accounts Payable (A/P)",
        "Accounts Payable",
        "AccountsPayable",
        "Liability",
    ),
    (
        "Inventory Asset",
        "Other Current Asset",
        "Inventory",
        "Asset",
    ),
    (
        "Cost of Goods Sold",
        "Cost of Goods Sold",
        "SuppliesMaterialsCogs",
        "Expense",
    ),
    (
        "Sales Tax Payable",
        "Other Current Liability",
        "GlobalTaxPayable",
        "Liability",
    ),
    (
        "Opening Balance Equity",
        "Equity",
        "OpeningBalanceEquity",
        "Equity",
    ),
    (
        "Uncategorized Expense",
        "Expense",
        "OtherMiscellaneousServiceCost",
        "Expense",
    ),
];

fn company_info(books: &Books<'_>, new: &NewCompany) -> Value {
    let address = if new.country == "US" {
        json!({"Id": "1", "Line1": "123 Sierra Way", "City": "San Pablo", "Country": "USA", "CountrySubDivisionCode": "CA", "PostalCode": "94806"})
    } else {
        json!({"Id": "1", "Line1": "1 High Street", "City": "London", "Country": new.country, "PostalCode": "N1 9GU"})
    };
    json!({
        "CompanyName": new.name,
        "LegalName": new.name,
        "CompanyAddr": address,
        "LegalAddr": address,
        "PrimaryPhone": {},
        "CompanyStartDate": stamp(books.now)[..10],
        "FiscalYearStartMonth": "January",
        "Country": new.country,
        "Email": {"Address": "owner@example.com"},
        "WebAddr": {},
        "SupportedLanguages": "en",
        "NameValue": [
            {"Name": "NeoEnabled", "Value": "true"},
            {"Name": "SubscriptionStatus", "Value": "SUBSCRIBED"},
            {"Name": "OfferingSku", "Value": "QuickBooks Online Plus"},
        ],
    })
}

fn preferences(new: &NewCompany) -> Value {
    let mut preferences = json!({
        "AccountingInfoPrefs": {"UseAccountNumbers": false, "TrackDepartments": false, "ClassTrackingPerTxn": false, "ClassTrackingPerTxnLine": false, "CustomerTerminology": "Customers"},
        "ProductAndServicesPrefs": {"ForSales": true, "ForPurchase": true, "QuantityWithPriceAndRate": true, "QuantityOnHand": true},
        "SalesFormsPrefs": {
            "CustomTxnNumbers": new.custom_transaction_numbers,
            "AllowDeposit": true,
            "AllowDiscount": new.discounts,
            "DefaultDiscountAccount": "3",
            "AllowEstimates": true,
            "AllowServiceDate": false,
            "AllowShipping": new.shipping,
            "DefaultShippingAccount": "4",
            "AutoApplyCredit": false,
        },
        "TaxPrefs": {"UsingSalesTax": new.sales_tax, "PartnerTaxEnabled": new.sales_tax && new.automated_sales_tax && new.country == "US"},
        "CurrencyPrefs": {"MultiCurrencyEnabled": new.multicurrency, "HomeCurrency": {"value": new.home_currency}},
    });
    if !new.closed_until.is_empty() {
        preferences["AccountingInfoPrefs"]["BookCloseDate"] = json!(new.closed_until);
    }
    preferences
}

/// A tax code: its name, whether it is taxed, and the names and percentages of its rates.
type TaxCode = (&'static str, bool, &'static [(&'static str, f64)]);

/// The codes for sales of a country. Names as Intuit's own companies of that country have them; the first
/// of Britain are older than the others here, and keep their ids.
fn tax_codes(country: &str) -> &'static [TaxCode] {
    match country {
        "AU" => &[
            ("GST", true, &[("GST (sales)", 10.0)]),
            ("GST free", true, &[("GST-free sales", 0.0)]),
            ("Input tax", true, &[("Input taxed sales", 0.0)]),
            ("Out of scope", false, &[]),
        ],
        "CA" => &[
            ("Exempt", false, &[]),
            ("Zero-rated", true, &[("Zero-rated", 0.0)]),
            ("Out of Scope", false, &[]),
            ("GST", true, &[("GST", 5.0)]),
            ("HST ON", true, &[("HST ON", 13.0)]),
            ("GST/PST BC", true, &[("GST", 5.0), ("PST BC", 7.0)]),
            ("GST/QST QC - 9.975", true, &[("GST", 5.0), ("QST", 9.975)]),
        ],
        _ => &[
            ("20.0% S", true, &[("Standard 20%", 20.0)]),
            ("0% Z", true, &[("Zero 0%", 0.0)]),
            ("Exempt", false, &[]),
            ("5.0% R", true, &[("Reduced 5%", 5.0)]),
            ("No VAT", false, &[]),
        ],
    }
}

fn tax_rate(name: &str, percent: f64) -> Value {
    let special = if percent == 0.0 { "ZERO_RATE" } else { "NONE" };
    json!({"Name": name, "Description": name, "Active": true, "RateValue": percent, "SpecialTaxType": special, "DisplayType": "ReadOnly"})
}

fn tax_code(name: &str, taxable: bool, rates: &[String]) -> Value {
    let list: Vec<_> = rates
        .iter()
        .map(|id| json!({"TaxRateRef": {"value": id}, "TaxTypeApplicable": "TaxOnAmount", "TaxOrder": 0}))
        .collect();
    json!({"Name": name, "Description": name, "Active": true, "Hidden": false, "Taxable": taxable, "TaxGroup": true, "SalesTaxRateList": {"TaxRateDetail": list}})
}

fn taxes(books: &mut Books<'_>, new: &NewCompany) {
    if new.country == "US" {
        let percent = new.automated_tax_percent.parse().unwrap_or(0.0);
        seed(books, "TaxRate", 1, tax_rate("California", percent));
        let code = tax_code("California", true, &["1".to_owned()]);
        seed(books, "TaxCode", 1, code);
        return;
    }
    let mut known: Vec<&str> = Vec::new();
    for (id, (name, taxable, rates)) in (1..).zip(tax_codes(&new.country)) {
        let mut ids = Vec::new();
        for (rate, percent) in *rates {
            let place = known.iter().position(|one| one == rate);
            let place = place.unwrap_or_else(|| {
                known.push(rate);
                let number = known.len() as u64;
                seed(books, "TaxRate", number, tax_rate(rate, *percent));
                known.len() - 1
            });
            ids.push((place + 1).to_string());
        }
        seed(books, "TaxCode", id, tax_code(name, *taxable, &ids));
    }
}
