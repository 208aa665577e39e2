//! The query language: one table, conditions joined by AND, order, a page.

use std::cmp::Ordering;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime};
use serde_json::{Map, Value, json};

use super::books::Books;
use super::fault::Fault;
use super::money;
use super::statement::{Condition, Query, Test, invalid, parse};

/// Whether the vendor lets a query name the field.
fn filterable(entity: &str, field: &str) -> bool {
    if matches!(
        field,
        "Id" | "MetaData.CreateTime" | "MetaData.LastUpdatedTime"
    ) {
        return true;
    }
    let own: &[&str] = match entity {
        "Customer" | "Vendor" | "Employee" => &[
            "DisplayName",
            "GivenName",
            "MiddleName",
            "FamilyName",
            "Suffix",
            "CompanyName",
            "FullyQualifiedName",
            "PrintOnCheckName",
            "PrimaryEmailAddr",
            "PrimaryPhone",
            "Active",
            "Balance",
            "Job",
            "Taxable",
        ],
        "Item" => &[
            "Name",
            "FullyQualifiedName",
            "Sku",
            "Type",
            "Active",
            "Description",
            "UnitPrice",
            "Taxable",
        ],
        "Account" => &[
            "Name",
            "FullyQualifiedName",
            "AccountType",
            "AccountSubType",
            "Classification",
            "Active",
            "CurrentBalance",
            "SubAccount",
        ],
        "PaymentMethod" => &["Name", "Active", "Type"],
        "TaxCode" | "TaxRate" => &["Name", "Active", "Description"],
        "Payment" => &[
            "TxnDate",
            "CustomerRef",
            "TotalAmt",
            "PaymentRefNum",
            "PaymentMethodRef",
            "DepositToAccountRef",
        ],
        "JournalEntry" => &["DocNumber", "TxnDate"],
        "SalesReceipt" | "RefundReceipt" | "Invoice" | "CreditMemo" => &[
            "DocNumber",
            "TxnDate",
            "CustomerRef",
            "TotalAmt",
            "Balance",
            "DueDate",
            "PaymentRefNum",
            "PaymentMethodRef",
            "DepositToAccountRef",
        ],
        _ => &[],
    };
    own.contains(&field)
}

/// The plain value that a field stands for: an address's text, a reference's id.
fn field_of<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    let found = field
        .split('.')
        .try_fold(value, |value, part| value.get(part))?;
    match found {
        Value::Object(inner) => inner
            .get("value")
            .or_else(|| inner.get("Address"))
            .or_else(|| inner.get("FreeFormNumber")),
        plain => Some(plain),
    }
}

fn moment(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc3339(text)
        .ok()
        .or_else(|| {
            let bare = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok()?;
            Some(bare.and_utc().fixed_offset())
        })
        .or_else(|| {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
            Some(day.and_hms_opt(0, 0, 0)?.and_utc().fixed_offset())
        })
}

fn compare(held: &Value, wanted: &str, field: &str, exact_case: bool) -> Option<Ordering> {
    match held {
        Value::Number(_) => Some(money::decimal(held)?.cmp(&wanted.parse().ok()?)),
        Value::Bool(held) => Some(held.cmp(&wanted.to_ascii_lowercase().parse().ok()?)),
        Value::String(held) if field.starts_with("MetaData.") => {
            Some(moment(held)?.cmp(&moment(wanted)?))
        }
        Value::String(held) if field == "Id" => {
            Some(held.parse::<u64>().ok()?.cmp(&wanted.parse().ok()?))
        }
        Value::String(held) if exact_case => Some(held.as_str().cmp(wanted)),
        Value::String(held) => Some(held.to_lowercase().cmp(&wanted.to_lowercase())),
        _ => None,
    }
}

/// `%` stands for any run of characters, at either end or within.
fn like(held: &str, pattern: &str, exact_case: bool) -> bool {
    let (held, pattern) = if exact_case {
        (held.to_owned(), pattern.to_owned())
    } else {
        (held.to_lowercase(), pattern.to_lowercase())
    };
    let parts: Vec<&str> = pattern.split('%').collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return held == pattern;
    };
    let Some(mut rest) = held.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(place) => rest = &rest[place + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

fn holds(value: &Value, condition: &Condition, exact_case: bool) -> bool {
    let Some(held) = field_of(value, &condition.field) else {
        return false;
    };
    let ordered = |wanted: &str| compare(held, wanted, &condition.field, exact_case);
    match &condition.test {
        Test::Compare(operator, wanted) => ordered(wanted).is_some_and(|order| match *operator {
            "=" => order.is_eq(),
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        }),
        Test::In(values) => values
            .iter()
            .any(|wanted| ordered(wanted).is_some_and(Ordering::is_eq)),
        Test::Like(pattern) => held
            .as_str()
            .is_some_and(|held| like(held, pattern, exact_case)),
    }
}

fn check(query: &Query) -> Result<(), Fault> {
    let named = query.conditions.iter().map(|condition| &condition.field);
    for field in named.chain(query.order.iter().map(|(field, _)| field)) {
        if !filterable(query.entity, field) {
            return Err(invalid(format!(
                "Property {field} not found for Entity {}, or it is not queryable",
                query.entity
            )));
        }
    }
    for column in query.columns.iter().flatten() {
        let top = column.split('.').next().unwrap_or(column);
        if !super::schema::has(query.entity, top) {
            return Err(invalid(format!(
                "Property {column} not found for Entity {}",
                query.entity
            )));
        }
    }
    for condition in &query.conditions {
        let values = match &condition.test {
            Test::Compare(_, value) => std::slice::from_ref(value),
            Test::In(values) => values,
            Test::Like(_) => &[],
        };
        let sound = |value: &String| match condition.field.as_str() {
            field if field.starts_with("MetaData.") => moment(value).is_some(),
            "TxnDate" | "DueDate" => NaiveDate::parse_from_str(value, "%Y-%m-%d").is_ok(),
            "Active" => matches!(value.to_ascii_lowercase().as_str(), "true" | "false"),
            _ => true,
        };
        if let Some(bad) = values.iter().find(|value| !sound(value)) {
            return Err(invalid(format!(
                "value {bad} of {} cannot be read",
                condition.field
            )));
        }
    }
    Ok(())
}

fn project(value: &Value, columns: Option<&[String]>) -> Value {
    let Some(columns) = columns else {
        return value.clone();
    };
    let mut kept = Map::new();
    for field in ["domain", "Id"] {
        kept.insert(field.to_owned(), value[field].clone());
    }
    kept.insert("sparse".to_owned(), json!(true));
    for column in columns {
        let top = column.split('.').next().unwrap_or(column);
        if let Some(found) = value.get(top) {
            kept.insert(top.to_owned(), found.clone());
        }
    }
    Value::Object(kept)
}

/// Answers the `QueryResponse` object of a statement.
pub fn run(books: &Books<'_>, statement: &str) -> Result<Value, Fault> {
    let query = parse(statement)?;
    check(&query)?;
    let exact_case = books.settings().case_sensitive_queries;
    let asks_active = query
        .conditions
        .iter()
        .any(|condition| condition.field == "Active");
    let mut found: Vec<&Value> = books
        .company()
        .all(query.entity)
        .map(|(_, value)| value)
        .filter(|value| asks_active || value.get("Active") != Some(&json!(false)))
        .filter(|value| {
            query
                .conditions
                .iter()
                .all(|condition| holds(value, condition, exact_case))
        })
        .collect();
    if query.columns.as_ref().is_some_and(Vec::is_empty) {
        return Ok(json!({"totalCount": found.len()}));
    }
    found.sort_by(|left, right| {
        query
            .order
            .iter()
            .fold(Ordering::Equal, |order, (field, down)| {
                order.then_with(|| {
                    let order = by_field(left, right, field, exact_case);
                    if *down { order.reverse() } else { order }
                })
            })
    });
    let total = found.len();
    let page: Vec<Value> = found
        .into_iter()
        .skip(query.start - 1)
        .take(query.page)
        .map(|value| project(value, query.columns.as_deref()))
        .collect();
    if page.is_empty() {
        return Ok(json!({}));
    }
    let mut answer = Map::new();
    let length = page.len();
    answer.insert(query.entity.to_owned(), Value::Array(page));
    answer.insert("startPosition".to_owned(), json!(query.start));
    answer.insert("maxResults".to_owned(), json!(length));
    answer.insert("totalCount".to_owned(), json!(total));
    Ok(Value::Object(answer))
}

fn by_field(left: &Value, right: &Value, field: &str, exact_case: bool) -> Ordering {
    match (field_of(left, field), field_of(right, field)) {
        (Some(left), Some(right)) => {
            let right = right
                .as_str()
                .map_or_else(|| right.to_string(), str::to_owned);
            compare(left, &right, field, exact_case).unwrap_or(Ordering::Equal)
        }
        (left, right) => left.is_some().cmp(&right.is_some()),
    }
}
