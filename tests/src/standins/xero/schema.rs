//! The elements that each type has, what they hold and how long they may be, after the vendor's
//! OpenAPI document (XeroAPI/Xero-OpenAPI, `xero_accounting.yaml`).

use chrono::{DateTime, NaiveDate};
use serde_json::{Map, Value};

use super::state::Fields;
use crate::standins::money;

enum Holds {
    Text(usize),
    Id,
    Date,
    Number,
    Flag,
    Word(&'static [&'static str]),
    One(&'static Type),
    Many(&'static Type),
    /// Taken without a look and not kept: what only the vendor sets, and what no rule here needs.
    Ignored,
}

use Holds::{Date, Flag, Id, Ignored, Many, Number, One, Text, Word};

pub struct Type {
    name: &'static str,
    fields: &'static [(&'static str, Holds)],
}

const ANY: usize = usize::MAX;

static ADDRESS: Type = Type {
    name: "Address",
    fields: &[
        ("AddressType", Word(&["POBOX", "STREET"])),
        ("AddressLine1", Text(500)),
        ("AddressLine2", Text(500)),
        ("AddressLine3", Text(500)),
        ("AddressLine4", Text(500)),
        ("City", Text(255)),
        ("Region", Text(255)),
        ("PostalCode", Text(50)),
        ("Country", Text(50)),
        ("AttentionTo", Text(255)),
    ],
};

static PHONE: Type = Type {
    name: "Phone",
    fields: &[
        (
            "PhoneType",
            Word(&["DEFAULT", "DDI", "MOBILE", "FAX", "OFFICE"]),
        ),
        ("PhoneNumber", Text(50)),
        ("PhoneAreaCode", Text(10)),
        ("PhoneCountryCode", Text(20)),
    ],
};

static PERSON: Type = Type {
    name: "ContactPerson",
    fields: &[
        ("FirstName", Text(255)),
        ("LastName", Text(255)),
        ("EmailAddress", Text(255)),
        ("IncludeInEmails", Flag),
    ],
};

pub static CONTACT: Type = Type {
    name: "Contact",
    fields: &[
        ("ContactID", Id),
        ("ContactNumber", Text(50)),
        ("AccountNumber", Text(50)),
        (
            "ContactStatus",
            Word(&["ACTIVE", "ARCHIVED", "GDPRREQUEST"]),
        ),
        ("Name", Text(255)),
        ("FirstName", Text(255)),
        ("LastName", Text(255)),
        ("CompanyNumber", Text(50)),
        ("EmailAddress", Text(255)),
        ("ContactPersons", Many(&PERSON)),
        ("BankAccountDetails", Text(ANY)),
        ("TaxNumber", Text(50)),
        ("TaxNumberType", Ignored),
        ("AccountsReceivableTaxType", Text(ANY)),
        ("AccountsPayableTaxType", Text(ANY)),
        ("Addresses", Many(&ADDRESS)),
        ("Phones", Many(&PHONE)),
        ("DefaultCurrency", Text(3)),
        ("SalesDefaultAccountCode", Text(ANY)),
        ("PurchasesDefaultAccountCode", Text(ANY)),
        ("SalesDefaultLineAmountType", Ignored),
        ("PurchasesDefaultLineAmountType", Ignored),
        ("SalesTrackingCategories", Ignored),
        ("PurchasesTrackingCategories", Ignored),
        ("TrackingCategoryName", Ignored),
        ("TrackingCategoryOption", Ignored),
        ("PaymentTerms", Ignored),
        ("XeroNetworkKey", Ignored),
        ("MergedToContactID", Ignored),
        ("IsSupplier", Ignored),
        ("IsCustomer", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("ContactGroups", Ignored),
        ("Website", Ignored),
        ("BrandingTheme", Ignored),
        ("BatchPayments", Ignored),
        ("Discount", Ignored),
        ("Balances", Ignored),
        ("Attachments", Ignored),
        ("HasAttachments", Ignored),
        ("ValidationErrors", Ignored),
        ("HasValidationErrors", Ignored),
        ("StatusAttributeString", Ignored),
    ],
};

static TRACKING: Type = Type {
    name: "LineItemTracking",
    fields: &[
        ("TrackingCategoryID", Id),
        ("TrackingOptionID", Id),
        ("Name", Text(100)),
        ("Option", Text(100)),
    ],
};

static LINE: Type = Type {
    name: "LineItem",
    fields: &[
        ("LineItemID", Id),
        ("Description", Text(4000)),
        ("Quantity", Number),
        ("UnitAmount", Number),
        ("ItemCode", Text(30)),
        ("AccountCode", Text(10)),
        ("AccountID", Id),
        ("TaxType", Text(ANY)),
        ("TaxAmount", Number),
        ("LineAmount", Number),
        ("Tracking", Many(&TRACKING)),
        ("DiscountRate", Number),
        ("DiscountAmount", Number),
        ("Item", Ignored),
        ("RepeatingInvoiceID", Ignored),
        ("Taxability", Ignored),
        ("SalesTaxCodeId", Ignored),
        ("TaxBreakdown", Ignored),
        ("ValidationErrors", Ignored),
    ],
};

const AMOUNT_TYPES: Holds = Word(&["Exclusive", "Inclusive", "NoTax"]);
const STATUSES: Holds = Word(&[
    "DRAFT",
    "SUBMITTED",
    "DELETED",
    "AUTHORISED",
    "PAID",
    "VOIDED",
]);

pub static INVOICE: Type = Type {
    name: "Invoice",
    fields: &[
        (
            "Type",
            Word(&[
                "ACCREC",
                "ACCPAY",
                "ACCRECCREDIT",
                "ACCPAYCREDIT",
                "AROVERPAYMENT",
                "ARPREPAYMENT",
                "APOVERPAYMENT",
                "APPREPAYMENT",
            ]),
        ),
        ("Contact", One(&CONTACT)),
        ("LineItems", Many(&LINE)),
        ("Date", Date),
        ("DueDate", Date),
        ("LineAmountTypes", AMOUNT_TYPES),
        ("InvoiceNumber", Text(255)),
        ("Reference", Text(255)),
        ("BrandingThemeID", Id),
        ("Url", Text(ANY)),
        ("CurrencyCode", Text(3)),
        ("CurrencyRate", Number),
        ("Status", STATUSES),
        ("SentToContact", Flag),
        ("ExpectedPaymentDate", Date),
        ("PlannedPaymentDate", Date),
        ("SubTotal", Number),
        ("TotalTax", Number),
        ("Total", Number),
        ("RoundingAmount", Number),
        ("InvoiceID", Id),
        ("RepeatingInvoiceID", Ignored),
        ("DateString", Ignored),
        ("DueDateString", Ignored),
        ("CISDeduction", Ignored),
        ("CISRate", Ignored),
        ("TotalDiscount", Ignored),
        ("HasAttachments", Ignored),
        ("IsDiscounted", Ignored),
        ("Payments", Ignored),
        ("Prepayments", Ignored),
        ("Overpayments", Ignored),
        ("AmountDue", Ignored),
        ("AmountPaid", Ignored),
        ("FullyPaidOnDate", Ignored),
        ("AmountCredited", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("UpdatedDateUTCString", Ignored),
        ("CreditNotes", Ignored),
        ("Attachments", Ignored),
        ("HasErrors", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
        ("Warnings", Ignored),
        ("InvoiceAddresses", Ignored),
    ],
};

pub static CREDIT_NOTE: Type = Type {
    name: "CreditNote",
    fields: &[
        ("Type", Word(&["ACCRECCREDIT", "ACCPAYCREDIT"])),
        ("Contact", One(&CONTACT)),
        ("LineItems", Many(&LINE)),
        ("Date", Date),
        ("DueDate", Date),
        ("LineAmountTypes", AMOUNT_TYPES),
        ("CreditNoteNumber", Text(255)),
        ("Reference", Text(255)),
        ("BrandingThemeID", Id),
        ("CurrencyCode", Text(3)),
        ("CurrencyRate", Number),
        ("Status", STATUSES),
        ("SentToContact", Flag),
        ("SubTotal", Number),
        ("TotalTax", Number),
        ("Total", Number),
        ("RoundingAmount", Number),
        ("CreditNoteID", Id),
        ("ID", Ignored),
        ("DateString", Ignored),
        ("DueDateString", Ignored),
        ("CISDeduction", Ignored),
        ("CISRate", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("UpdatedDateUTCString", Ignored),
        ("FullyPaidOnDate", Ignored),
        ("RemainingCredit", Ignored),
        ("Allocations", Ignored),
        ("AppliedAmount", Ignored),
        ("Payments", Ignored),
        ("HasAttachments", Ignored),
        ("HasErrors", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
        ("Warnings", Ignored),
        ("InvoiceAddresses", Ignored),
    ],
};

pub static ALLOCATION: Type = Type {
    name: "Allocation",
    fields: &[
        ("AllocationID", Id),
        ("Invoice", One(&INVOICE)),
        ("Amount", Number),
        ("Date", Date),
        ("CreditNote", Ignored),
        ("Overpayment", Ignored),
        ("Prepayment", Ignored),
        ("IsDeleted", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
    ],
};

pub static PAYMENT: Type = Type {
    name: "Payment",
    fields: &[
        ("Invoice", One(&INVOICE)),
        ("CreditNote", One(&CREDIT_NOTE)),
        ("InvoiceNumber", Text(255)),
        ("CreditNoteNumber", Text(255)),
        ("Account", One(&ACCOUNT)),
        ("Code", Text(10)),
        ("Date", Date),
        ("CurrencyRate", Number),
        ("Amount", Number),
        ("Reference", Text(255)),
        ("IsReconciled", Flag),
        ("Status", Word(&["AUTHORISED", "DELETED"])),
        ("PaymentID", Id),
        ("Prepayment", Ignored),
        ("Overpayment", Ignored),
        ("BatchPayment", Ignored),
        ("BankAmount", Ignored),
        ("PaymentType", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("UpdatedDateUTCString", Ignored),
        ("BatchPaymentID", Ignored),
        ("BankAccountNumber", Ignored),
        ("Particulars", Ignored),
        ("Details", Ignored),
        ("HasAccount", Ignored),
        ("HasValidationErrors", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
        ("Warnings", Ignored),
    ],
};

pub static BANK_TRANSACTION: Type = Type {
    name: "BankTransaction",
    fields: &[
        ("Type", Word(&["RECEIVE", "SPEND"])),
        ("Contact", One(&CONTACT)),
        ("LineItems", Many(&LINE)),
        ("BankAccount", One(&ACCOUNT)),
        ("IsReconciled", Flag),
        ("Date", Date),
        ("Reference", Text(255)),
        ("CurrencyCode", Text(3)),
        ("CurrencyRate", Number),
        ("Url", Text(ANY)),
        ("Status", Word(&["AUTHORISED", "DELETED", "VOIDED"])),
        ("LineAmountTypes", AMOUNT_TYPES),
        ("SubTotal", Number),
        ("TotalTax", Number),
        ("Total", Number),
        ("BankTransactionID", Id),
        ("DateString", Ignored),
        ("PrepaymentID", Ignored),
        ("OverpaymentID", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("HasAttachments", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
    ],
};

pub static BANK_TRANSFER: Type = Type {
    name: "BankTransfer",
    fields: &[
        ("FromBankAccount", One(&ACCOUNT)),
        ("ToBankAccount", One(&ACCOUNT)),
        ("Amount", Number),
        ("Date", Date),
        ("BankTransferID", Id),
        ("FromIsReconciled", Flag),
        ("ToIsReconciled", Flag),
        ("Reference", Text(255)),
        ("Status", Word(&["AUTHORISED", "DELETED"])),
        ("DateString", Ignored),
        ("CurrencyRate", Ignored),
        ("FromBankTransactionID", Ignored),
        ("ToBankTransactionID", Ignored),
        ("HasAttachments", Ignored),
        ("CreatedDateUTC", Ignored),
        ("CreatedDateUTCString", Ignored),
        ("FromTracking", Many(&TRACKING)),
        ("ToTracking", Many(&TRACKING)),
        ("ValidationErrors", Ignored),
    ],
};

static PRICE: Type = Type {
    name: "Purchase",
    fields: &[
        ("UnitPrice", Number),
        ("AccountCode", Text(10)),
        ("COGSAccountCode", Text(10)),
        ("TaxType", Text(ANY)),
    ],
};

pub static ITEM: Type = Type {
    name: "Item",
    fields: &[
        ("Code", Text(30)),
        ("InventoryAssetAccountCode", Text(10)),
        ("Name", Text(50)),
        ("IsSold", Flag),
        ("IsPurchased", Flag),
        ("Description", Text(4000)),
        ("PurchaseDescription", Text(4000)),
        ("PurchaseDetails", One(&PRICE)),
        ("SalesDetails", One(&PRICE)),
        ("ItemID", Id),
        ("IsTrackedAsInventory", Ignored),
        ("TotalCostPool", Ignored),
        ("QuantityOnHand", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("StatusAttributeString", Ignored),
        ("ValidationErrors", Ignored),
    ],
};

pub static ACCOUNT: Type = Type {
    name: "Account",
    fields: &[
        ("Code", Text(10)),
        ("Name", Text(150)),
        ("AccountID", Id),
        ("Type", Word(&super::settings::ACCOUNT_TYPES)),
        ("BankAccountNumber", Text(ANY)),
        ("Status", Word(&["ACTIVE", "ARCHIVED", "DELETED"])),
        ("Description", Text(4000)),
        (
            "BankAccountType",
            Word(&["BANK", "CREDITCARD", "PAYPAL", "NONE", ""]),
        ),
        ("CurrencyCode", Text(3)),
        ("TaxType", Text(ANY)),
        ("EnablePaymentsToAccount", Flag),
        ("ShowInExpenseClaims", Flag),
        ("AddToWatchlist", Ignored),
        ("Class", Ignored),
        ("SystemAccount", Ignored),
        ("ReportingCode", Ignored),
        ("ReportingCodeName", Ignored),
        ("HasAttachments", Ignored),
        ("UpdatedDateUTC", Ignored),
        ("ValidationErrors", Ignored),
    ],
};

static COMPONENT: Type = Type {
    name: "TaxComponent",
    fields: &[
        ("Name", Text(ANY)),
        ("Rate", Number),
        ("IsCompound", Flag),
        ("IsNonRecoverable", Flag),
    ],
};

pub static TAX_RATE: Type = Type {
    name: "TaxRate",
    fields: &[
        ("Name", Text(50)),
        ("TaxType", Text(ANY)),
        ("TaxComponents", Many(&COMPONENT)),
        (
            "Status",
            Word(&["ACTIVE", "DELETED", "ARCHIVED", "PENDING"]),
        ),
        ("ReportTaxType", Text(ANY)),
        ("CanApplyToAssets", Ignored),
        ("CanApplyToEquity", Ignored),
        ("CanApplyToExpenses", Ignored),
        ("CanApplyToLiabilities", Ignored),
        ("CanApplyToRevenue", Ignored),
        ("DisplayTaxRate", Ignored),
        ("EffectiveRate", Ignored),
    ],
};

pub static CURRENCY: Type = Type {
    name: "Currency",
    fields: &[("Code", Text(3)), ("Description", Text(ANY))],
};

/// Reads one element. What is not of its type is an `Err` that ends the whole request; what is too
/// long is told with the others things that are wrong with this one element.
pub fn admit(
    kind: &'static Type,
    value: &Value,
    path: &str,
    wrong: &mut Vec<String>,
) -> Result<Fields, String> {
    let Value::Object(fields) = value else {
        return Err(format!(
            "Error converting value {value} to type '{}'. Path '{path}'.",
            kind.name
        ));
    };
    let mut kept = Map::new();
    for (name, value) in fields {
        let known = kind.fields.iter().find(|(known, _)| known == name);
        let path = format!("{path}.{name}");
        let Some((name, holds)) = known else {
            return Err(format!(
                "Could not find member '{name}' on object of type '{}'. Path '{path}'.",
                kind.name
            ));
        };
        if value.is_null() || matches!(holds, Ignored) {
            continue;
        }
        let value = held(kind, name, holds, value, &path, wrong)?;
        kept.insert((*name).to_owned(), value);
    }
    Ok(kept)
}

fn held(
    kind: &'static Type,
    name: &str,
    holds: &'static Holds,
    value: &Value,
    path: &str,
    wrong: &mut Vec<String>,
) -> Result<Value, String> {
    let bad = |what: &str| {
        Err(format!(
            "Error converting value {value} to type '{what}'. Path '{path}'."
        ))
    };
    let plain = match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    Ok(match (holds, plain) {
        (Text(most), Some(text)) => {
            let length = text.chars().count();
            if length > *most {
                wrong.push(format!(
                    "The {} {name} exceeds the maximum length of {most}",
                    kind.name
                ));
            }
            Value::String(text)
        }
        (Id, Some(text)) => {
            let digits = text.replace('-', "");
            if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return bad("System.Guid");
            }
            Value::String(text.to_lowercase())
        }
        (Word(words), Some(text)) => {
            let word = words.iter().find(|word| word.eq_ignore_ascii_case(&text));
            match word {
                Some(word) => Value::from(*word),
                None => return bad(name),
            }
        }
        (Date, Some(text)) => match date(&text) {
            Some(date) => Value::String(date.to_string()),
            None => return bad("System.DateTime"),
        },
        (Number, Some(_)) => match money::decimal(value) {
            Some(amount) => money::number(amount),
            None => return bad("System.Decimal"),
        },
        (Flag, Some(text)) => match text.to_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            _ => return bad("System.Boolean"),
        },
        (One(kind), None) => Value::Object(admit(kind, value, path, wrong)?),
        (Many(kind), None) => {
            let Value::Array(values) = value else {
                return bad(name);
            };
            let mut all = Vec::new();
            for (place, value) in values.iter().enumerate() {
                let path = format!("{path}[{place}]");
                all.push(Value::Object(admit(kind, value, &path, wrong)?));
            }
            Value::Array(all)
        }
        _ => return bad(name),
    })
}

/// A day as callers write it: ISO 8601 with or without a time, or the `/Date(…)/` that they get.
pub fn date(text: &str) -> Option<NaiveDate> {
    if let Some(inside) = text
        .strip_prefix("/Date(")
        .and_then(|rest| rest.strip_suffix(")/"))
    {
        // An offset may follow, and a sign stand in front.
        let end = inside.rfind(['+', '-']).filter(|place| *place > 0);
        let millis: i64 = inside[..end.unwrap_or(inside.len())].parse().ok()?;
        return Some(DateTime::from_timestamp_millis(millis)?.date_naive());
    }
    let day = text.get(..10)?;
    let time = &text[10..];
    (time.is_empty() || time.starts_with(['T', ' '])).then_some(())?;
    NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()
}
