//! Rules of items, accounts and payment methods.

use serde_json::{Value, json};

use super::books::Books;
use super::fault::Fault;
use super::money;
use super::names::{Fields, currency, lengths, owner, plain_name, reference_to, retire, string_at};
use super::state::text;

pub fn item(
    books: &Books<'_>,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let name = string_at(fields, "Name")
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .ok_or_else(|| Fault::missing("Name"))?
        .to_owned();
    plain_name("Name", &name)?;
    fields.insert("Name".to_owned(), json!(name));
    lengths(
        fields,
        &[
            ("Name", 100),
            ("Sku", 100),
            ("Description", 4000),
            ("PurchaseDesc", 4000),
        ],
    )?;
    let kind = string_at(fields, "Type")
        .or_else(|| before.and_then(|before| text(before, "Type")))
        .ok_or_else(|| Fault::missing("Type"))?
        .to_owned();
    if !matches!(
        kind.as_str(),
        "Service" | "NonInventory" | "Inventory" | "Group" | "Category"
    ) {
        return Err(Fault::new(
            "2120",
            "Invalid Type",
            format!("Type {kind} is not supported"),
        )
        .at("Type"));
    }
    fields.insert("Type".to_owned(), json!(kind));
    if let Some(price) = fields.get("UnitPrice").and_then(money::decimal)
        && price.abs() > 99_999_999_999_i64.into()
    {
        return Err(
            Fault::new("2110", "Invalid Decimal", format!("Supplied value:{price}"))
                .at("UnitPrice"),
        );
    }
    item_accounts(books, &kind, fields)?;
    retire(books, "Item", id, fields, before, "Name");
    let name = string_at(fields, "Name").unwrap_or_default().to_owned();
    let full = match fields.get("ParentRef") {
        Some(parent) => {
            let parent = books.referenced("Item", parent)?;
            fields.insert("SubItem".to_owned(), json!(true));
            format!(
                "{}:{name}",
                text(&parent, "FullyQualifiedName").unwrap_or_default()
            )
        }
        None => name,
    };
    if owner(books, "Item", &full).is_some_and(|found| found != id) {
        return Err(Fault::duplicate_name());
    }
    fields.insert("FullyQualifiedName".to_owned(), json!(full));
    fields.entry("Active").or_insert(json!(true));
    if kind != "Category" {
        fields.entry("Taxable").or_insert(json!(false));
        fields.entry("UnitPrice").or_insert(json!(0));
        fields.entry("PurchaseCost").or_insert(json!(0));
        fields.entry("TrackQtyOnHand").or_insert(json!(false));
    }
    Ok(())
}

fn item_accounts(books: &Books<'_>, kind: &str, fields: &mut Fields) -> Result<(), Fault> {
    if matches!(kind, "Group" | "Category") {
        return Ok(());
    }
    let stock = kind == "Inventory";
    let mut needed = vec!["IncomeAccountRef"];
    if stock {
        needed.extend(["ExpenseAccountRef", "AssetAccountRef"]);
        for field in ["QtyOnHand", "InvStartDate"] {
            if !fields.contains_key(field) {
                return Err(Fault::missing(field));
            }
        }
        if fields.get("TrackQtyOnHand") != Some(&json!(true)) {
            return Err(Fault::missing("TrackQtyOnHand"));
        }
    }
    for field in ["IncomeAccountRef", "ExpenseAccountRef", "AssetAccountRef"] {
        let Some(reference) = fields.get(field) else {
            if needed.contains(&field) {
                return Err(Fault::missing(field));
            }
            continue;
        };
        let account = books.referenced("Account", reference)?;
        let fits = match field {
            "IncomeAccountRef" if stock => {
                text(&account, "AccountSubType") == Some("SalesOfProductIncome")
            }
            // Intuit's help has items of gift cards post to a liability account ("Sell and redeem gift
            // cards or certificates in QuickBooks Online").
            "IncomeAccountRef" => {
                matches!(
                    text(&account, "AccountType"),
                    Some("Income" | "Other Income" | "Other Current Liability")
                )
            }
            "AssetAccountRef" => text(&account, "AccountType") == Some("Other Current Asset"),
            _ if stock => text(&account, "AccountType") == Some("Cost of Goods Sold"),
            _ => true,
        };
        if !fits {
            return Err(Fault::business(format!(
                "The account chosen in {field} is of a type that this kind of item cannot use."
            )));
        }
        fields.insert(
            field.to_owned(),
            reference_to(&account, "FullyQualifiedName"),
        );
    }
    Ok(())
}

pub fn account(
    books: &Books<'_>,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let name = string_at(fields, "Name")
        .ok_or_else(|| Fault::missing("Name"))?
        .to_owned();
    if name.contains([':', '"']) {
        return Err(Fault::invalid_string("Name", &name));
    }
    lengths(fields, &[("Name", 100), ("Description", 100)])?;
    let kind = match (
        string_at(fields, "AccountType"),
        string_at(fields, "AccountSubType"),
    ) {
        (Some(kind), _) => kind.to_owned(),
        (None, Some(sub)) => type_of_subtype(sub)
            .ok_or_else(|| {
                Fault::new(
                    "2170",
                    "Invalid Enumeration",
                    format!("Invalid Enumeration : {sub}"),
                )
                .at("AccountSubType")
            })?
            .to_owned(),
        (None, None) => {
            return Err(Fault::new(
                "6010",
                "Invalid Account.AccountType && Account.SubType",
                "Either Account.AccountType or Account.AccountSubType must be specified",
            ));
        }
    };
    retire(books, "Account", id, fields, before, "Name");
    let name = string_at(fields, "Name").unwrap_or_default().to_owned();
    if owner(books, "Account", &name).is_some_and(|found| found != id) {
        return Err(Fault::duplicate_name());
    }
    let (class, sub) = class_of(&kind);
    fields.insert("AccountType".to_owned(), json!(kind));
    fields.entry("AccountSubType").or_insert(json!(sub));
    fields.insert("Classification".to_owned(), json!(class));
    fields.insert("FullyQualifiedName".to_owned(), json!(name));
    fields.entry("SubAccount").or_insert(json!(false));
    fields.entry("Active").or_insert(json!(true));
    fields.entry("CurrentBalance").or_insert(json!(0));
    fields
        .entry("CurrentBalanceWithSubAccounts")
        .or_insert(json!(0));
    currency(books, fields, before)
}

fn type_of_subtype(sub: &str) -> Option<&'static str> {
    Some(match sub {
        "SalesOfProductIncome"
        | "ServiceFeeIncome"
        | "DiscountsRefundsGiven"
        | "OtherPrimaryIncome" => "Income",
        "Checking" | "Savings" | "CashOnHand" | "MoneyMarket" => "Bank",
        "UndepositedFunds" | "Inventory" => "Other Current Asset",
        "SuppliesMaterialsCogs" => "Cost of Goods Sold",
        "AccountsReceivable" => "Accounts Receivable",
        "AccountsPayable" => "Accounts Payable",
        "OtherCurrentLiabilities"
        | "UndistributedTips"
        | "DeferredRevenue"
        | "TrustAccountsLiabilities" => "Other Current Liability",
        _ => return None,
    })
}

/// The classification of an account type and its usual subtype.
fn class_of(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "Bank" => ("Asset", "CashOnHand"),
        "Accounts Receivable" => ("Asset", "AccountsReceivable"),
        "Other Current Asset" => ("Asset", "OtherCurrentAssets"),
        "Fixed Asset" => ("Asset", "OtherFixedAssets"),
        "Other Asset" => ("Asset", "OtherAsset"),
        "Accounts Payable" => ("Liability", "AccountsPayable"),
        "Credit Card" => ("Liability", "CreditCard"),
        "Other Current Liability" => ("Liability", "OtherCurrentLiabilities"),
        "Long Term Liability" => ("Liability", "OtherLongTermLiabilities"),
        "Equity" => ("Equity", "OwnersEquity"),
        "Income" => ("Revenue", "OtherPrimaryIncome"),
        "Other Income" => ("Revenue", "OtherMiscellaneousIncome"),
        "Cost of Goods Sold" => ("Expense", "SuppliesMaterialsCogs"),
        _ => ("Expense", "OtherMiscellaneousServiceCost"),
    }
}

pub fn payment_method(
    books: &Books<'_>,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let name = string_at(fields, "Name")
        .ok_or_else(|| Fault::missing("Name"))?
        .to_owned();
    lengths(fields, &[("Name", 31)])?;
    let kind = string_at(fields, "Type")
        .unwrap_or("NON_CREDIT_CARD")
        .to_owned();
    if !matches!(kind.as_str(), "CREDIT_CARD" | "NON_CREDIT_CARD") {
        return Err(Fault::new(
            "2170",
            "Invalid Enumeration",
            format!("Invalid Enumeration : {kind}"),
        )
        .at("Type"));
    }
    fields.insert("Type".to_owned(), json!(kind));
    retire(books, "PaymentMethod", id, fields, before, "Name");
    let now = string_at(fields, "Name").unwrap_or(&name);
    if owner(books, "PaymentMethod", now).is_some_and(|found| found != id) {
        return Err(Fault::duplicate_name());
    }
    fields.entry("Active").or_insert(json!(true));
    Ok(())
}
