//! The three shapes in which Intuit says no: `Fault` in JSON, the gateway's JSON with lower-case
//! keys, and XML even where JSON was asked for.

use crate::providers::{Fault, NO_ACCOUNT};
use serde_json::Value;

/// Reads a refusal of any shape. `status` decides where the body does not.
pub fn read(status: u16, body: &[u8]) -> Fault {
    if let Ok(json) = serde_json::from_slice::<Value>(body)
        && (json.get("Fault").is_some() || json.get("fault").is_some())
    {
        return with_status(status, from_json(&json));
    }
    let text = String::from_utf8_lossy(body);
    if let Some(fault) = from_xml(&text) {
        return with_status(status, fault);
    }
    match status {
        401 => Fault::Unauthorized,
        429 => throttled(),
        // Whatever stands between us and QuickBooks said this; only QuickBooks' own word is final.
        _ => Fault::Later {
            detail: format!("QuickBooks answered with status {status}"),
        },
    }
}

/// A status that says more than the code in the body.
fn with_status(status: u16, fault: Fault) -> Fault {
    match (status, &fault) {
        (401, _) => Fault::Unauthorized,
        (429, _) => throttled(),
        (500..=599, Fault::Refused { detail, .. }) => Fault::Later {
            detail: detail.clone(),
        },
        _ => fault,
    }
}

fn throttled() -> Fault {
    Fault::Later {
        detail: "QuickBooks takes no more requests for a minute".to_owned(),
    }
}

/// Reads `{"Fault":{"Error":[…]}}` or its lower-case twin.
pub fn from_json(json: &Value) -> Fault {
    let fault = json
        .get("Fault")
        .or_else(|| json.get("fault"))
        .unwrap_or(&Value::Null);
    let errors = fault.get("Error").or_else(|| fault.get("error"));
    let error = errors
        .and_then(|errors| errors.get(0))
        .unwrap_or(&Value::Null);
    let text = |upper: &str, lower: &str| {
        let value = error.get(upper).or_else(|| error.get(lower));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    judge(
        &text("code", "code"),
        &text("Message", "message"),
        &text("Detail", "detail"),
    )
}

/// Reads `<Error code="…"><Message>…</Message><Detail>…</Detail></Error>`.
fn from_xml(text: &str) -> Option<Fault> {
    let error = text.split_once("<Error")?.1;
    let code = error.split_once("code=\"")?.1.split_once('"')?.0;
    let element = |name: &str| {
        let after = error.split_once(&format!("<{name}>"))?.1;
        Some(after.split_once(&format!("</{name}>"))?.0.to_owned())
    };
    let message = element("Message").unwrap_or_default();
    Some(judge(
        code,
        &message,
        &element("Detail").unwrap_or_default(),
    ))
}

/// What a fault code asks of us.
fn judge(code: &str, message: &str, detail: &str) -> Fault {
    let said = if detail.is_empty() { message } else { detail };
    let number: u32 = code.trim_start_matches('0').parse().unwrap_or(0);
    match number {
        // 100 is the XML form of a refused token.
        3200 | 100 => Fault::Unauthorized,
        3001 => throttled(),
        // Wrong cluster, company locked, maintenance, and the intermittent 120.
        120 => Fault::Later {
            detail: format!(
                "QuickBooks says that whoever connected it may not do this; if it stays so, have an \
                 administrator of the company connect it again: {said}"
            ),
        },
        130 | 140 | 150 => Fault::Later {
            detail: said.to_owned(),
        },
        // An earlier copy of the same request is still at work, or was just done: asked again with the same
        // id, it says which.
        600 => Fault::Later {
            detail: format!("QuickBooks has this request already: {said}"),
        },
        5010 => Fault::Stale,
        6240 => Fault::NameTaken,
        // Nothing of any record will be taken until somebody acts, so the connection stops.
        3100 | 6190 => Fault::Refused {
            code: NO_ACCOUNT.to_owned(),
            detail: match number {
                3100 => {
                    "QuickBooks no longer lets Crossdock work in this company; connect it again"
                }
                _ => "The QuickBooks subscription has ended; renew it, then connect it again",
            }
            .to_owned(),
        },
        _ => {
            let hint = match number {
                610 | 2500 => {
                    "Something that the receipt names was deleted or made inactive in QuickBooks: "
                }
                6140 => {
                    "QuickBooks holds another document with this number; give that one another number \
                     there, then retry: "
                }
                6200 | 6210 => {
                    "The books are closed for this date; reopen them or post it by hand: "
                }
                _ => "",
            };
            let code = if code.is_empty() { "unknown" } else { code };
            Fault::Refused {
                code: format!("quickbooks_{code}"),
                detail: format!("{hint}{said}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_a_refusal_is_understood() {
        let stale = br#"{"Fault":{"Error":[{"Message":"Stale Object Error","Detail":"x","code":"5010","element":""}],"type":"ValidationFault"}}"#;
        assert_eq!(read(400, stale), Fault::Stale);
        let token = br#"{"warnings":null,"fault":{"error":[{"message":"message=AuthenticationFailed; errorCode=003200; statusCode=401","detail":"Malformed bearer token","code":"3200","element":null}],"type":"AUTHENTICATION"}}"#;
        assert_eq!(read(401, token), Fault::Unauthorized);
        let xml = br#"<?xml version="1.0"?><IntuitResponse time="t"><Fault type="SERVICE"><Error code="3001"><Message>message=ThrottleExceeded; errorCode=003001; statusCode=429</Message></Error></Fault></IntuitResponse>"#;
        assert_eq!(read(429, xml), throttled());
        let taken = br#"{"Fault":{"Error":[{"Message":"Duplicate Name Exists Error","Detail":"The name supplied already exists. : null","code":"6240"}]}}"#;
        assert_eq!(read(400, taken), Fault::NameTaken);
        assert!(matches!(
            read(502, b"<html>bad gateway</html>"),
            Fault::Later { .. }
        ));
        let twice =
            br#"{"Fault":{"Error":[{"Message":"Duplicate Request","Detail":"d","code":"600"}]}}"#;
        assert!(matches!(read(400, twice), Fault::Later { .. }));
        for (code, status) in [("3100", 403), ("6190", 400)] {
            let stopped = format!(
                r#"{{"Fault":{{"Error":[{{"Message":"m","Detail":"d","code":"{code}"}}]}}}}"#
            );
            match read(status, stopped.as_bytes()) {
                Fault::Refused { code, detail } => {
                    assert_eq!(code, NO_ACCOUNT);
                    assert!(detail.contains("connect it again"), "{detail}");
                }
                other => panic!("{other:?}"),
            }
        }
        let closed = br#"{"Fault":{"Error":[{"Message":"m","Detail":"closed","code":"6200"}]}}"#;
        match read(400, closed) {
            Fault::Refused { code, detail } => {
                assert_eq!(code, "quickbooks_6200");
                assert!(detail.contains("books are closed"), "{detail}");
            }
            other => panic!("{other:?}"),
        }
    }
}
