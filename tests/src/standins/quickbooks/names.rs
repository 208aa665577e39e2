//! Rules of names (customers, vendors, employees), and what all lists have in common.

use serde_json::{Map, Value, json};

use super::books::Books;
use super::fault::Fault;
use super::money::{self, number};
use super::state::{is_name, text};

pub type Fields = Map<String, Value>;

/// The string at a dotted path.
pub fn string_at<'a>(fields: &'a Fields, path: &str) -> Option<&'a str> {
    let mut parts = path.split('.');
    let mut value = fields.get(parts.next()?)?;
    for part in parts {
        value = value.get(part)?;
    }
    value.as_str()
}

pub fn lengths(fields: &Fields, limits: &[(&str, usize)]) -> Result<(), Fault> {
    for (path, max) in limits {
        if let Some(value) = string_at(fields, path) {
            let length = value.chars().count();
            if length > *max {
                return Err(Fault::length(path, *max, length));
            }
        }
    }
    Ok(())
}

pub fn addresses(fields: &Fields) -> Result<(), Fault> {
    for name in ["BillAddr", "ShipAddr", "PrimaryAddr", "ShipFromAddr"] {
        let Some(Value::Object(address)) = fields.get(name) else {
            continue;
        };
        lengths(
            address,
            &[
                ("Line1", 500),
                ("Line2", 500),
                ("Line3", 500),
                ("Line4", 500),
                ("Line5", 500),
                ("City", 255),
                ("Country", 255),
                ("CountrySubDivisionCode", 255),
                ("PostalCode", 30),
            ],
        )?;
        let together: usize = (1..=5)
            .filter_map(|line| string_at(address, &format!("Line{line}")))
            .map(|line| line.chars().count())
            .sum();
        if together > 2000 {
            return Err(Fault::length(name, 2000, together));
        }
    }
    Ok(())
}

pub fn email(fields: &Fields, name: &str) -> Result<(), Fault> {
    let Some(address) = fields.get(name).and_then(|email| text(email, "Address")) else {
        return Ok(());
    };
    let length = address.chars().count();
    if length > 100 {
        return Err(Fault::length(name, 100, length));
    }
    // The vendor takes several addresses with commas between them.
    let sound = address.split(',').all(|one| {
        one.trim().split_once('@').is_some_and(|(user, host)| {
            !user.is_empty()
                && host.contains('.')
                && !host.starts_with('.')
                && !host.contains(char::is_whitespace)
        })
    });
    if sound {
        Ok(())
    } else {
        Err(Fault::new(
            "2210",
            "Invalid Email Address format",
            format!(
                "Email Address does not conform to the RFC 822 format. Supplied value:{address}"
            ),
        )
        .at(name))
    }
}

pub fn currency_is_known(code: &str) -> Result<(), Fault> {
    if iso_currency::Currency::from_code(code).is_some() {
        Ok(())
    } else {
        Err(Fault::new(
            "2220",
            "Invalid Currency Type",
            format!("Invalid Currency Type : {code}"),
        )
        .at("CurrencyRef"))
    }
}

pub fn no_multicurrency() -> Fault {
    Fault::business("Multi Currency should be enabled to perform this operation.")
}

/// The currency of a list entry: fixed by its first version, the home currency if none was named.
pub fn currency(
    books: &Books<'_>,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let asked = fields
        .get("CurrencyRef")
        .and_then(|held| text(held, "value"))
        .map(str::to_owned);
    let fixed = before.and_then(|before| before["CurrencyRef"]["value"].as_str());
    if asked.is_some() && before.is_none() && !books.multicurrency() {
        return Err(no_multicurrency());
    }
    if let (Some(asked), Some(fixed)) = (&asked, fixed)
        && asked != fixed
    {
        return Err(Fault::business(format!(
            "You can't change the currency of this name from {fixed} to {asked}."
        )));
    }
    let code = asked.unwrap_or_else(|| fixed.map_or_else(|| books.home_currency(), str::to_owned));
    currency_is_known(&code)?;
    if books.multicurrency() {
        fields.insert("CurrencyRef".to_owned(), currency_ref(&code));
    } else {
        fields.remove("CurrencyRef");
    }
    Ok(())
}

pub fn currency_ref(code: &str) -> Value {
    let known = iso_currency::Currency::from_code(code);
    let name = known.as_ref().map_or(code, |currency| currency.name());
    json!({"value": code, "name": name})
}

pub fn plain_name(field: &str, name: &str) -> Result<(), Fault> {
    if name.contains([':', '\t', '\n', '\r']) {
        return Err(Fault::invalid_string(field, name));
    }
    Ok(())
}

/// A made-inactive entry gives its name free, as "<name> (deleted)".
pub fn retire(
    books: &Books<'_>,
    entity: &str,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
    key: &str,
) {
    let active = |value: Option<&Value>| value.is_none_or(|value| value != &json!(false));
    let was_active = active(before.and_then(|before| before.get("Active")));
    if before.is_none() || !was_active || active(fields.get("Active")) {
        return;
    }
    let Some(name) = fields.get(key).and_then(Value::as_str).map(str::to_owned) else {
        return;
    };
    let free = (1..)
        .map(|turn| match turn {
            1 => format!("{name} (deleted)"),
            turn => format!("{name} (deleted-{turn})"),
        })
        .find(|candidate| owner(books, entity, candidate).is_none_or(|found| found == id));
    if let Some(free) = free {
        fields.insert(key.to_owned(), json!(free));
    }
}

pub fn owner(books: &Books<'_>, entity: &str, name: &str) -> Option<u64> {
    let key = name.to_lowercase();
    if is_name(entity) {
        books.company().names.get(&key).map(|(_, id)| *id)
    } else {
        books
            .company()
            .lists
            .get(&(entity.to_owned(), key))
            .copied()
    }
}

pub fn name(
    books: &Books<'_>,
    entity: &'static str,
    id: u64,
    fields: &mut Fields,
    before: Option<&Value>,
) -> Result<(), Fault> {
    let parts = ["Title", "GivenName", "MiddleName", "FamilyName", "Suffix"];
    let trimmed = |fields: &Fields, name: &str| {
        string_at(fields, name)
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
    };
    let display = trimmed(fields, "DisplayName").or_else(|| {
        let joined: Vec<_> = parts
            .iter()
            .filter_map(|part| trimmed(fields, part))
            .collect();
        (!joined.is_empty()).then(|| joined.join(" "))
    });
    let Some(display) = display else {
        return Err(Fault::new(
            "6080",
            "No name provided",
            "At least one of the following must be provided: Title, GivenName, MiddleName, FamilyName, DisplayName, Suffix",
        ));
    };
    plain_name("DisplayName", &display)?;
    fields.insert("DisplayName".to_owned(), json!(display));
    lengths(
        fields,
        &[
            ("DisplayName", 500),
            ("Title", 16),
            ("Suffix", 16),
            ("GivenName", 100),
            ("MiddleName", 100),
            ("FamilyName", 100),
            ("CompanyName", 100),
            ("PrintOnCheckName", 110),
            ("PrimaryPhone.FreeFormNumber", 30),
            ("AlternatePhone.FreeFormNumber", 30),
            ("Mobile.FreeFormNumber", 30),
            ("Fax.FreeFormNumber", 30),
            ("WebAddr.URI", 1000),
            ("Notes", 2000),
            ("ResaleNum", 16),
        ],
    )?;
    addresses(fields)?;
    email(fields, "PrimaryEmailAddr")?;
    if entity == "Customer" {
        customer(fields)?;
    }
    retire(books, entity, id, fields, before, "DisplayName");
    let display = string_at(fields, "DisplayName")
        .unwrap_or_default()
        .to_owned();
    if owner(books, entity, &display).is_some_and(|found| found != id) {
        return Err(Fault::duplicate_name());
    }
    fields
        .entry("PrintOnCheckName")
        .or_insert_with(|| json!(display));
    fields.entry("Active").or_insert(json!(true));
    if entity == "Employee" {
        return Ok(());
    }
    fields.insert("Balance".to_owned(), opening_balance(fields, before));
    if entity == "Customer" {
        fields.insert("FullyQualifiedName".to_owned(), json!(display));
        fields.insert("BalanceWithJobs".to_owned(), fields["Balance"].clone());
        fields.entry("Job").or_insert(json!(false));
        fields.entry("BillWithParent").or_insert(json!(false));
        fields.entry("Taxable").or_insert(json!(true));
        fields
            .entry("PreferredDeliveryMethod")
            .or_insert(json!("Print"));
    }
    currency(books, fields, before)
}

fn customer(fields: &Fields) -> Result<(), Fault> {
    if let Some(method) = string_at(fields, "PreferredDeliveryMethod")
        && !matches!(method, "Print" | "Email" | "None")
    {
        return Err(Fault::new(
            "2170",
            "Invalid Enumeration",
            format!("Invalid Enumeration : {method}"),
        )
        .at("PreferredDeliveryMethod"));
    }
    if let Some(reason) = string_at(fields, "TaxExemptionReasonId")
        && !reason
            .parse()
            .is_ok_and(|reason: u8| (1..=15).contains(&reason))
    {
        return Err(Fault::new(
            "2240",
            "Invalid Number Range",
            format!("Supplied value:{reason}"),
        )
        .at("TaxExemptionReasonId"));
    }
    Ok(())
}

/// A balance is taken at creation and computed ever after.
fn opening_balance(fields: &Fields, before: Option<&Value>) -> Value {
    match before {
        Some(before) => before.get("Balance").cloned().unwrap_or(json!(0)),
        None => fields
            .get("Balance")
            .and_then(money::decimal)
            .map_or(json!(0), number),
    }
}

pub fn reference_to(target: &Value, name_field: &str) -> Value {
    json!({"value": target["Id"], "name": target[name_field]})
}
