//! The shape of each entity, from the vendor's published XSD (see `schema.json` for its source).

use std::collections::HashMap;
use std::sync::LazyLock;

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::fault::Fault;
use super::money;

#[derive(Deserialize)]
struct Schema {
    enums: HashMap<String, Vec<String>>,
    types: HashMap<String, HashMap<String, String>>,
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    serde_json::from_str(include_str!("schema.json")).unwrap_or_else(|error| {
        // The file is part of the program, so a fault in it is a fault of the build.
        panic!("schema.json is not readable: {error}")
    })
});

/// Whether the entity has such a property of its own.
pub fn has(entity: &str, property: &str) -> bool {
    SCHEMA
        .types
        .get(entity)
        .is_some_and(|fields| fields.contains_key(property))
}

/// Checks a request body against the entity's type and answers it in the form that is kept:
/// numbers and booleans written as strings become what they are, nulls below the top level go.
/// Nulls at the top stay, because a sparse update clears a field with one; an empty string is as
/// good as null, since SDKs send one for whatever was never set.
pub fn admit(entity: &str, body: &Value) -> Result<Map<String, Value>, Fault> {
    let Value::Object(fields) = body else {
        return Err(Fault::unknown_property(entity));
    };
    let mut kept = Map::new();
    for (name, value) in fields {
        let kind = kind_of(entity, name)?;
        let value = if is_nothing(value) {
            Value::Null
        } else {
            admit_field(kind, name, value)?
        };
        kept.insert(name.clone(), value);
    }
    Ok(kept)
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(str::is_empty)
}

fn kind_of(entity: &str, name: &str) -> Result<&'static str, Fault> {
    SCHEMA
        .types
        .get(entity)
        .and_then(|fields| fields.get(name))
        .map(String::as_str)
        .ok_or_else(|| Fault::unknown_property(name))
}

fn admit_field(kind: &str, name: &str, value: &Value) -> Result<Value, Fault> {
    match kind.strip_suffix('*') {
        Some(kind) => match value {
            Value::Array(items) => items
                .iter()
                .filter(|item| !item.is_null())
                .map(|item| admit_value(kind, name, item))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            // The vendor's reader takes a single value where a list is meant.
            one => Ok(Value::Array(vec![admit_value(kind, name, one)?])),
        },
        None if value.is_array() => Err(Fault::unknown_property(name)),
        None => admit_value(kind, name, value),
    }
}

fn admit_value(kind: &str, name: &str, value: &Value) -> Result<Value, Fault> {
    if kind == "any" {
        return Ok(value.clone());
    }
    if SCHEMA.types.contains_key(kind) {
        let Value::Object(fields) = value else {
            return Err(Fault::unknown_property(name));
        };
        let mut kept = Map::new();
        for (inner, value) in fields {
            let inner_kind = kind_of(kind, inner)?;
            if !is_nothing(value) {
                kept.insert(inner.clone(), admit_field(inner_kind, inner, value)?);
            }
        }
        return Ok(Value::Object(kept));
    }
    match (kind, value) {
        (_, Value::Object(_) | Value::Array(_) | Value::Null) => Err(Fault::unknown_property(name)),
        ("boolean", value) => boolean(name, value),
        ("decimal", value) => decimal(name, value),
        ("integer", value) => integer(name, value),
        (_, value) => text(kind, name, value),
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn boolean(name: &str, value: &Value) -> Result<Value, Fault> {
    match plain(value).as_str() {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        other => Err(Fault::new(
            "2230",
            "Invalid Boolean",
            format!("Invalid Boolean. Supplied value:{other}"),
        )
        .at(name)),
    }
}

fn decimal(name: &str, value: &Value) -> Result<Value, Fault> {
    let supplied = plain(value);
    let refused = |code, message| {
        Err(Fault::new(code, message, format!("Supplied value:{supplied}")).at(name))
    };
    let Some(amount) = money::decimal(value).filter(|_| !value.is_boolean()) else {
        return refused("2100", "Invalid Decimal Format");
    };
    let digits = amount.trunc().abs().normalize().to_string().len();
    if digits > 15 {
        return refused("2110", "Invalid Decimal");
    }
    match value {
        Value::Number(number) => Ok(Value::Number(number.clone())),
        _ => Ok(money::number(amount)),
    }
}

fn integer(name: &str, value: &Value) -> Result<Value, Fault> {
    let supplied = plain(value);
    money::decimal(value)
        .filter(|amount| amount.fract().is_zero())
        .and_then(|amount| amount.trunc().normalize().to_string().parse::<i64>().ok())
        .map(|whole| Value::Number(Number::from(whole)))
        .ok_or_else(|| {
            Fault::new(
                "2080",
                "Invalid Number Format",
                format!("Supplied value:{supplied}"),
            )
            .at(name)
        })
}

fn text(kind: &str, name: &str, value: &Value) -> Result<Value, Fault> {
    let text = plain(value);
    if text
        .chars()
        .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
    {
        return Err(Fault::invalid_string(
            name,
            &text.escape_default().to_string(),
        ));
    }
    match kind {
        "date" => date(name, &text)?,
        "dateTime" if !is_moment(&text) => {
            return Err(bad_date("2060", "Invalid Date Format", name, &text));
        }
        _ => {}
    }
    if let Some(values) = SCHEMA.enums.get(kind)
        && !values.contains(&text)
    {
        return Err(Fault::new(
            "2170",
            "Invalid Enumeration",
            format!("Invalid Enumeration : {text}"),
        )
        .at(name));
    }
    Ok(Value::String(text))
}

fn is_moment(text: &str) -> bool {
    DateTime::parse_from_rfc3339(text).is_ok()
        || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").is_ok()
}

fn date(name: &str, text: &str) -> Result<(), Fault> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shape {
        return Err(bad_date("2060", "Invalid Date Format", name, text));
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .map(|_| ())
        .map_err(|_| bad_date("2070", "Invalid Date", name, text))
}

fn bad_date(code: &'static str, message: &'static str, name: &str, text: &str) -> Fault {
    Fault::new(code, message, format!("{message} : Supplied value:{text}")).at(name)
}
