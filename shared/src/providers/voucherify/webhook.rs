//! Voucherify's webhooks (<https://docs.voucherify.io/api-reference/introduction-to-webhooks>). What is
//! signed is the body without the blanks between its parts, which Voucherify may still send, and no time:
//! what comes again is known by its id. Each project has a secret of its own.

use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, id_of, named};
use std::borrow::Cow;

pub struct Webhooks;

impl Hooks for Webhooks {
    fn key(&self) -> &'static str {
        "webhook_secret"
    }

    fn rule(&self) -> Rule {
        Rule::HmacHex
    }

    fn proof<'a>(&self, delivery: &Delivery<'a>, _: &str) -> Option<Proof<'a>> {
        Some(Proof {
            signed: vec![Cow::Owned(compact(delivery.body))],
            ..delivery.signed("x-voucherify-signature", [])
        })
    }

    fn event(&self, body: &[u8]) -> Option<String> {
        named(id_of(body, "id"), body)
    }
}

/// JSON without the blanks outside its strings (RFC 8259, §2). To write it anew would change numbers,
/// escapes and the order of members.
fn compact(json: &[u8]) -> Vec<u8> {
    let (mut inside, mut escaped) = (false, false);
    let mut compact = Vec::with_capacity(json.len());
    for byte in json {
        if inside {
            inside = escaped || *byte != b'"';
            escaped = !escaped && *byte == b'\\';
        } else if matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            continue;
        } else {
            inside = *byte == b'"';
        }
        compact.push(*byte);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::hooks::{Verdict, verdict};
    use chrono::DateTime;
    use serde_json::Value;

    /// Voucherify's own example, with the secret `secretKey`.
    const SIGNATURE: &str = "a17d2ac229d1ebbb5f10e839c7985c4818e5986eab297f7e5979196d4d7d3ed2";

    #[test]
    fn the_vendors_own_signature_is_good() {
        let judged = |key: &str, signature: &str, body: &str| {
            let headers = [("x-voucherify-signature", signature)];
            let (body, now) = (body.as_bytes(), DateTime::UNIX_EPOCH);
            verdict(&Webhooks, key, &headers, "", body, now)
        };
        for body in [r#"{"a":1}"#, r#"{ "a": 1 }"#, "{\r\n\t\"a\": 1\r\n}"] {
            assert_eq!(judged("secretKey", SIGNATURE, body), Verdict::Good);
            assert_eq!(judged("secretkey", SIGNATURE, body), Verdict::Wrong);
            assert_eq!(judged("secretKey", "", body), Verdict::Wrong);
            let upper = SIGNATURE.to_uppercase();
            assert_eq!(judged("secretKey", &upper, body), Verdict::Wrong);
        }
        for body in [r#"{"a":2}"#, r#"{"a ":1}"#, r#"{"a":1.0}"#, ""] {
            assert_eq!(judged("secretKey", SIGNATURE, body), Verdict::Wrong);
        }
    }

    #[test]
    fn blanks_go_and_nothing_else() {
        for (json, expected) in [
            (
                r#"{ "a b" : "c \" d" , "e" : 1.50 }"#,
                r#"{"a b":"c \" d","e":1.50}"#,
            ),
            (
                r#"[ "\\" , " \\\" " , "é\u00e9 " ]"#,
                r#"["\\"," \\\" ","é\u00e9 "]"#,
            ),
        ] {
            let compact = compact(json.as_bytes());
            assert_eq!(String::from_utf8(compact).unwrap(), expected);
            let values = [json, expected].map(|json| serde_json::from_str::<Value>(json).unwrap());
            assert_eq!(values[0], values[1]);
        }
    }
}
