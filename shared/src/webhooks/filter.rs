//! What an endpoint wants of the types that it has: a condition over the body of the webhook.
//!
//! The language is that of filters in JSONPath (RFC 9535 §2.3.5), where `@` is the body:
//! `@.data.total.amount >= 10000 && @.data.currency == "USD"`.

use serde_json::Value;
use serde_json_path::JsonPath;

/// Longest condition, in characters.
pub const CHARACTERS_MAX: usize = 1000;
/// How deep brackets may stand in each other: the parser calls itself for each.
const DEPTH_MAX: usize = 16;
/// How many wildcards, slices and inner filters a condition may have: each multiplies the work by the
/// members of the body. What could multiply it without naming anything is refused whole.
const WILDCARDS_MAX: usize = 2;

/// A condition that was understood.
#[derive(Debug)]
pub struct Filter(JsonPath);

impl Filter {
    /// Reads a condition; an error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Filter, String> {
        if text.trim().is_empty() {
            return Err("a filter is a condition; leave it out to have everything".to_owned());
        }
        if text.chars().count() > CHARACTERS_MAX {
            return Err(format!("a filter has at most {CHARACTERS_MAX} characters"));
        }
        check_work(text)?;
        // In brackets, so that nothing in it can end the filter and go on with another.
        JsonPath::parse(&format!("$[?({text})]"))
            .map(Filter)
            .map_err(|error| {
                format!(
                    "this is no filter as in RFC 9535, such as @.data.total.amount >= 10000: {}",
                    error.message()
                )
            })
    }

    /// Whether a webhook with this body is wanted.
    pub fn takes(&self, body: &Value) -> bool {
        // A filter is applied to the members of something: here to the one member of a list.
        let list = Value::Array(vec![body.clone()]);
        !self.0.query(&list).is_empty()
    }
}

/// Refuses what would take a receiver's events too long to judge, or the parser too deep.
fn check_work(text: &str) -> Result<(), String> {
    let (mut negations, mut wildcards, mut dots) = (0, 0, 0);
    let mut quoted = None;
    let mut open = Vec::new();
    let mut escaped = false;
    for character in text.chars() {
        if let Some(quote) = quoted {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                _ if character == quote => quoted = None,
                _ => {}
            }
            continue;
        }
        dots = if character == '.' { dots + 1 } else { 0 };
        if dots > 1 {
            return Err("a filter names what it looks at; .. is not taken".to_owned());
        }
        match character {
            '"' | '\'' => quoted = Some(character),
            '(' | '[' => open.push(character),
            ')' | ']' => {
                // It would end the brackets in which the condition stands.
                open.pop()
                    .ok_or("a bracket is closed that was not opened")?;
            }
            '$' => return Err("a filter begins at @, which is the body".to_owned()),
            ',' if open.last() == Some(&'[') => {
                return Err("a filter names one member at a time".to_owned());
            }
            '!' => negations += 1,
            '*' | '?' | ':' => wildcards += 1,
            _ => {}
        }
        if open.len() > DEPTH_MAX || negations > DEPTH_MAX {
            return Err(format!(
                "brackets stand at most {DEPTH_MAX} deep, and ! at most as often"
            ));
        }
        if wildcards > WILDCARDS_MAX {
            return Err(format!(
                "a filter has at most {WILDCARDS_MAX} of *, ? and : in all"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn takes(filter: &str) -> bool {
        let body = json!({
            "type": "order.created",
            "sequence": { "key": "order/1", "n": 2, "previous_id": null },
            "data": {
                "currency": "USD",
                "total": { "amount": 10_000, "currency": "USD" },
                "note": "a ? * .. (",
                "lines": [{ "sku": "A-1" }, { "sku": "B-2" }],
            },
        });
        let filter = Filter::parse(filter).unwrap_or_else(|detail| panic!("{filter}: {detail}"));
        filter.takes(&body)
    }

    #[test]
    fn the_condition_is_about_the_body() {
        for (filter, taken) in [
            ("@.type == 'order.created'", true),
            ("@.data.total.amount >= 10000", true),
            ("@.data.total.amount > 10000", false),
            (
                "@.data.total.amount > 1 && @.data.currency == \"EUR\"",
                false,
            ),
            (
                "@.data.total.amount > 1 || @.data.currency == \"EUR\"",
                true,
            ),
            ("!(@.data.currency == 'USD')", false),
            ("@.data.note == 'a ? * .. ('", true),
            ("@.data.lines[?@.sku == 'B-2']", true),
            ("@.data.lines[?@.sku == 'C-3']", false),
            ("count(@.data.lines[*]) == 2", true),
            ("@.data.nothing", false),
            ("@.sequence.previous_id == null", true),
        ] {
            assert_eq!(takes(filter), taken, "{filter}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_a_reason() {
        for bad in [
            "",
            "  ",
            "@.a ==",
            "@.a == 1] , $[?(@.b",
            "@.a)][?(@.b",
            "@.a), ?(@.b",
            "data.total > 1",
            "@..amount > 1",
            "@.a[*].b[*].c[*]",
            "nothing(@.a)",
            "match(@.a, 'a')",
            "count($[0].a) > 1",
            "count(@['a','a']) > 1",
            "count(@.a[0,0]) > 1",
            "count(@.a[:].b[:].c[:]) > 1",
            &"(".repeat(900),
            &format!("{}@.a{}", "(".repeat(40), ")".repeat(40)),
            &"!".repeat(900),
            &format!("@.a == '{}'", "x".repeat(CHARACTERS_MAX)),
        ] {
            let detail = Filter::parse(bad).expect_err(bad);
            assert!(!detail.is_empty(), "{bad}");
        }
    }

    proptest! {
        /// Whatever is written, it is read or refused, and what is read can be asked.
        #[test]
        fn nothing_that_is_written_ends_the_process(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    "@", ".", "a", "[", "]", "?", "*", "(", ")", "'", "\"", "\\", "!", "&&", "||", "==",
                    "<", "1", "-", "$", "length(", "match(", ",", ":", "null", "é", " ",
                ]),
                0..60,
            ),
        ) {
            let text = parts.concat();
            if let Ok(filter) = Filter::parse(&text) {
                filter.takes(&json!({ "a": [{ "a": "1" }, 2, null] }));
            }
        }
    }
}
