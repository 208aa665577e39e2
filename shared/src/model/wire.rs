//! Reading JSON from outside: every failure names the place and what to do.

use crate::error::{Code, Error, FieldError, Result};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{
    self, Deserialize, DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Map, Value};
use std::fmt;

/// Longest description of one fault.
const DETAIL_CHARACTERS_MAX: usize = 400;

/// Parses a body. Only the syntax is judged here, and that no object has a key twice: of two values
/// under one key one would be lost, and nobody could say which one was meant.
pub fn parse(body: &[u8]) -> Result<Value> {
    // A gateway may put U+FFFD in the place of bytes that are no UTF-8: what stood there is lost.
    let replacement = "\u{fffd}".as_bytes();
    if body
        .windows(replacement.len())
        .any(|part| part == replacement)
    {
        return Err(Error::new(
            Code::MalformedJson,
            "the body was not encoded in UTF-8: U+FFFD stands in it, which takes the place of bytes \
             that are none; if that character itself is meant, write it as \\ufffd",
        ));
    }
    serde_json::from_slice(body)
        .map(|Unique(value)| value)
        .map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            let detail = if error.is_data() {
                // The only such error is that of a key that stands twice, and it names its place.
                format!("the body is not taken: {error}")
            } else if std::str::from_utf8(body).is_err() {
                "the body is not JSON: it is not encoded in UTF-8".to_owned()
            } else {
                format!("the body is not JSON: it breaks at {place}")
            };
            Error::new(Code::MalformedJson, detail).because(error)
        })
}

/// JSON in which no object has a key twice.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unique, D::Error> {
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((key, Unique(value))) = members.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                let key: String = key.chars().take(64).collect();
                let detail = format!("the key {key:?} stands twice in one object");
                return Err(de::Error::custom(detail));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads `value` as a `T`, or says which field does not fit. `T` refuses unknown fields, so that a
/// misspelt name is an error and not a silent loss.
pub fn read<T: DeserializeOwned>(value: Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(Strict(value)).map_err(|error| {
        let path = pointer(error.path());
        let detail = error.inner().to_string();
        let code = if detail.starts_with("unknown field") {
            "unknown_field"
        } else if detail.starts_with("missing field") {
            "missing_field"
        } else {
            "invalid_value"
        };
        // Serde repeats what it does not know, however long that is.
        let detail: String = detail.chars().take(DETAIL_CHARACTERS_MAX).collect();
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

/// JSON that is read to the letter. Serde takes a list for a struct, its fields by position; here
/// only an object is one, or what was meant would hang on an order that is written nowhere. And what
/// was expected is said in words of JSON and not in those of this program.
struct Strict(Value);

impl Strict {
    /// The refusal of this value where `expected` was to stand. Texts are not repeated: they may be
    /// long, or secret.
    fn refuse<T>(&self, expected: &str) -> Result<T, serde_json::Error> {
        let found = match &self.0 {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(_) => "a string".to_owned(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        let detail = format!("{found} stands here, but {expected} is needed");
        Err(de::Error::custom(detail))
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Strict {
    type Deserializer = Strict;

    fn into_deserializer(self) -> Strict {
        self
    }
}

const WHOLE: &str = "a whole number, written without decimal point or exponent";
const WHOLE_FROM_0: &str = "a whole number from 0, written without decimal point or exponent";

const NO_TIME: &str = "this is no time; write it whole and with its zone, as 2026-01-31T10:00:00Z";

/// A method that takes one kind of JSON and hands it on; the rest is refused in words.
macro_rules! only {
    ($($method:ident: $kind:pat $(if $fits:expr)? => $expected:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            match &self.0 {
                $kind $(if $fits)? => self.deserialize_any(visitor),
                _ => self.refuse($expected),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Strict {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => {
                let mut items = SeqDeserializer::new(items.into_iter().map(Strict));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Value::Object(members) => {
                let members = members.into_iter().map(|(key, value)| (key, Strict(value)));
                visitor.visit_map(MapDeserializer::new(members))
            }
            simple => simple.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.deserialize_map(visitor)
    }

    /// Enumerations are words here; none holds more.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match &self.0 {
            Value::String(_) => self.0.deserialize_enum(name, variants, visitor),
            _ => self.refuse("a string"),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        if !matches!(self.0, Value::String(_)) {
            return self.refuse("a string");
        }
        // Of a time, the words of its reader tell only where it gave up.
        let expected: &dyn de::Expected = &visitor;
        let is_time = expected.to_string().contains("date and time");
        let read = self.deserialize_any(visitor);
        match is_time {
            true => read.map_err(|_| de::Error::custom(NO_TIME)),
            false => read,
        }
    }

    only! {
        deserialize_bool: Value::Bool(_) => "true or false",
        deserialize_i64: Value::Number(n) if n.is_i64() => WHOLE,
        deserialize_u64: Value::Number(n) if n.is_u64() => WHOLE_FROM_0,
        deserialize_string: Value::String(_) => "a string",
        deserialize_seq: Value::Array(_) => "a list",
        deserialize_map: Value::Object(_) => "an object",
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        id: u64,
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        data: Value,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    struct Inner {
        a: String,
    }

    fn refused(body: &[u8]) -> String {
        let error = parse(body).unwrap_err();
        assert_eq!(error.code(), Code::MalformedJson);
        error.detail().to_owned()
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_by_name_wherever_it_stands() {
        for body in [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"\u0061":3}}]"#] {
            let detail = refused(body.as_bytes());
            assert!(detail.contains("\"a\" stands twice"), "{detail}");
        }
        let same = json!({"a": [1, -1, 1.5, "x", true, null, {"a": {}}]});
        assert_eq!(parse(same.to_string().as_bytes()).unwrap(), same);
    }

    #[test]
    fn what_is_no_json_says_where() {
        let detail = refused(b"{\"name\":\"a\xffb\"}");
        assert!(detail.contains("UTF-8"), "{detail}");
        let detail = refused("{\"name\":\"a\u{fffd}b\"}".as_bytes());
        assert!(detail.contains("U+FFFD"), "{detail}");
        assert_eq!(parse(br#""\ufffd""#).unwrap(), json!("\u{fffd}"));
        let detail = refused(b"{\n\"a\": ]");
        assert!(detail.contains("line 2"), "{detail}");
    }

    #[test]
    fn a_time_is_asked_for_in_its_form() {
        type Time = chrono::DateTime<chrono::Utc>;
        for wrong in [
            "2020-01-01",
            "2020-01-01T00:00:00",
            "yesterday",
            "",
            "2026-02-30T00:00:00Z",
        ] {
            for fault in [
                super::read::<Time>(json!(wrong)).unwrap_err(),
                super::read::<Option<Time>>(json!(wrong)).unwrap_err(),
            ] {
                assert!(
                    fault.detail.contains("2026-01-31T10:00:00Z"),
                    "{wrong}: {fault:?}"
                );
            }
        }
        assert!(
            super::read::<Time>(json!(7))
                .unwrap_err()
                .detail
                .contains("a string is needed")
        );
        for good in ["2026-01-31T10:00:00Z", "2026-01-31T11:00:00.5+01:00"] {
            super::read::<Time>(json!(good)).unwrap();
        }
    }

    #[test]
    fn only_an_object_is_an_object() {
        let good = json!({"id": 1, "inner": {"a": "x"}, "list": [{"a": "y"}], "data": [1, {}]});
        let read: Outer = super::read(good).unwrap();
        assert_eq!((read.id, read.list[0].a.as_str()), (1, "y"));
        assert_eq!(read.data, json!([1, {}]));
        let cases = [
            (json!([1, {"a": "x"}]), "#", "an object is needed"),
            (json!({"id": 1, "inner": ["x"]}), "#/inner", "a list stands"),
            (
                json!({"id": 1, "list": [["x"]]}),
                "#/list/0",
                "a list stands",
            ),
            (
                json!({"id": 1, "list": {"a": 1}}),
                "#/list",
                "a list is needed",
            ),
            (json!({"id": 1.0}), "#/id", "without decimal point"),
            (json!({"id": -1}), "#/id", "from 0"),
            (
                json!({"id": 1, "inner": {"a": 7}}),
                "#/inner/a",
                "a string is",
            ),
        ];
        for (value, pointer, words) in cases {
            let fault = super::read::<Outer>(value.clone()).unwrap_err();
            assert_eq!(fault.pointer, pointer, "{value}: {fault:?}");
            assert!(fault.detail.contains(words), "{value}: {fault:?}");
            for name in ["struct", "Outer", "Inner", "u64"] {
                assert!(!fault.detail.contains(name), "{fault:?}");
            }
        }
    }
}
