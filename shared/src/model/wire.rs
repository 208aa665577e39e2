//! Reading JSON from outside: every failure names the place and what to do.

use crate::error::{Code, Error, FieldError, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Parses a body. Only the syntax is judged here.
pub fn parse(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        Error::new(
            Code::MalformedJson,
            format!("the body is not JSON: it breaks at {place}"),
        )
        .because(error)
    })
}

/// Reads `value` as a `T`, or says which field does not fit. `T` refuses unknown fields, so that a
/// misspelt name is an error and not a silent loss.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = pointer(error.path());
        let detail = error.inner().to_string();
        let code = if detail.starts_with("unknown field") {
            "unknown_field"
        } else if detail.starts_with("missing field") {
            "missing_field"
        } else {
            "invalid_value"
        };
        FieldError::new(&path, code, detail)
    })
}

/// RFC 6901 pointer to the place that serde had reached.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut pointer = String::new();
    for segment in path {
        pointer.push('/');
        match segment {
            Segment::Seq { index } => pointer.push_str(&index.to_string()),
            Segment::Map { key } => pointer.push_str(&key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => pointer.push_str(variant),
            Segment::Unknown => pointer.push('?'),
        }
    }
    pointer
}
