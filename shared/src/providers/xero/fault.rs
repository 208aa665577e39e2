//! The shapes in which Xero says no: an exception in JSON, a problem of the gateway in JSON, errors at
//! one element of an answer that is otherwise a success, plain text, and HTML.

use crate::model::http::Response;
use crate::providers::{Fault, NO_ACCOUNT};
use serde_json::Value;

fn later(detail: impl Into<String>) -> Fault {
    Fault::Later {
        detail: detail.into(),
    }
}

fn refused(code: &str, detail: impl Into<String>) -> Fault {
    Fault::Refused {
        code: code.to_owned(),
        detail: detail.into(),
    }
}

/// The code of a thing that is not there, or no longer.
pub const NOT_FOUND: &str = "xero_not_found";

/// Whether Xero says that what a request names is not there. It says so in plain text
/// ("The resource you're looking for cannot be found"); whatever else has that status is of something that
/// stands between us, which knows nothing of the books.
pub fn is_gone(answer: &Response) -> bool {
    let said = String::from_utf8_lossy(&answer.body);
    let page = said.trim_start().starts_with('<');
    answer.status == 404 && !page && said.to_lowercase().contains("cannot be found")
}

/// Reads a refusal of a whole call.
pub fn read(answer: &Response) -> Fault {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    // The gateway's problems come with keys in either case.
    let text = |upper: &str, lower: &str| {
        let value = body.get(upper).or_else(|| body.get(lower));
        value.and_then(Value::as_str).unwrap_or_default()
    };
    let detail = text("Detail", "detail");
    match answer.status {
        401 if detail.contains("AuthorizationUnsuccessful") => refused(
            "xero_scope",
            "Xero did not give Crossdock the permission for this; connect it again and grant all of it",
        ),
        401 => Fault::Unauthorized,
        // Xero's own word on a request is an object; a page of these statuses stands between us.
        403 if body.is_object() => refused(
            NO_ACCOUNT,
            "Xero no longer lets Crossdock work in this organisation; connect it again",
        ),
        400 if body.is_object() => exception(&body, detail),
        404 if is_gone(answer) => refused(
            NOT_FOUND,
            "Xero no longer has what this names; if it was deleted there, post it by hand",
        ),
        429 => throttled(answer.header("x-rate-limit-problem").unwrap_or_default()),
        status => later(format!("Xero answered with status {status}")),
    }
}

/// The values of the header differ from place to place, so they are compared loosely.
fn throttled(problem: &str) -> Fault {
    let problem = problem.to_lowercase();
    later(if problem.contains("day") || problem.contains("daily") {
        "Xero takes no more requests for this organisation today"
    } else if problem.contains("concurrent") {
        "Xero is busy with other requests for this organisation"
    } else {
        "Xero takes no more requests for a minute"
    })
}

fn exception(body: &Value, detail: &str) -> Fault {
    let elements = body["Elements"].as_array().into_iter().flatten();
    let messages: Vec<&str> = elements.flat_map(messages).collect();
    if !messages.is_empty() {
        return judge(&messages.join(" "));
    }
    let said = body["Message"].as_str().unwrap_or(detail);
    match body["Type"].as_str() {
        Some(kind) => refused(&format!("xero_{}", word(kind)), said),
        None => refused("xero_400", said),
    }
}

/// `PostDataInvalidException` is `postdatainvalid`.
fn word(kind: &str) -> String {
    let kind = kind.strip_suffix("Exception").unwrap_or(kind);
    let letters = kind.chars().filter(char::is_ascii_alphanumeric).take(40);
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

fn messages(element: &Value) -> impl Iterator<Item = &str> {
    let errors = element["ValidationErrors"].as_array().into_iter().flatten();
    errors.filter_map(|error| error["Message"].as_str())
}

/// What is wrong with one element of an answer that is otherwise a success, if anything.
pub fn of_element(element: &Value) -> Option<Fault> {
    let messages: Vec<&str> = messages(element).collect();
    let marked = element["StatusAttributeString"] == "ERROR"
        || element["HasErrors"] == true
        || element["HasValidationErrors"] == true;
    match (messages.is_empty(), marked) {
        (false, _) => Some(judge(&messages.join(" "))),
        (true, true) => Some(refused(
            "xero_validation",
            "Xero refused this and did not say why",
        )),
        (true, false) => None,
    }
}

/// What Xero's words ask of us. Its validation errors have no codes, so the words have to do.
fn judge(said: &str) -> Fault {
    let lower = said.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["must be unique", "already assigned", "already exists"]) {
        return Fault::NameTaken;
    }
    let (code, hint) = if has(&["lock date"]) {
        (
            "xero_period_locked",
            "The books are locked for this date; unlock them in Xero (Advanced settings, Financial \
             settings), or post it by hand: ",
        )
    } else if has(&["has been reconciled"]) {
        (
            "xero_reconciled",
            "This was matched with the bank's statement in Xero, which keeps it as it is; undo that \
             there (Remove & Redo), then retry, or post the difference by hand: ",
        )
    } else if has(&["cannot be edited", "valid status for modification"]) {
        (
            "xero_paid_document",
            "The order changed after money was recorded for its invoice, and Xero keeps such an \
             invoice as it is. Post the difference as an invoice or credit note of its own, or remove \
             the payment in Xero and retry: ",
        )
    } else if has(&["exceeds the amount outstanding"]) {
        (
            "xero_overpaid",
            "More came in than is open in Xero; record the rest there as an overpayment: ",
        )
    } else if has(&["not subscribed to currency"]) {
        (
            "currency_off",
            "Add the currency in Xero (Settings, Currencies), then retry: ",
        )
    } else if has(&["account code"]) && has(&["not a valid code"]) {
        (
            "xero_account",
            "An account that this names is archived in Xero or gone; restore it or choose another, then \
             retry: ",
        )
    } else if has(&["archived"]) {
        (
            "xero_archived",
            "Something that this names was archived in Xero; restore it, then retry: ",
        )
    } else if has(&["against authorised documents"]) {
        (
            "xero_document_closed",
            "What this settles is voided or already settled in Xero: ",
        )
    } else {
        ("xero_validation", "")
    };
    refused(code, format!("{hint}{said}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: &str) -> Response {
        Response {
            status,
            headers: vec![("x-rate-limit-problem".to_owned(), "Daily".to_owned())],
            body: body.as_bytes().to_vec(),
        }
    }

    fn code(fault: Fault) -> String {
        match fault {
            Fault::Refused { code, .. } => code,
            other => format!("{other:?}"),
        }
    }

    fn invalid(message: &str) -> String {
        json!({
            "ErrorNumber": 10, "Type": "ValidationException",
            "Message": "A validation exception occurred",
            "Elements": [{ "ValidationErrors": [{ "Message": message }] }],
        })
        .to_string()
    }

    #[test]
    fn every_shape_of_a_refusal_is_understood() {
        let expired = r#"{"Type":null,"Title":"Unauthorized","Status":401,"Detail":"TokenExpired: token expired at 1","Instance":"i","Extensions":{}}"#;
        assert_eq!(read(&answer(401, expired)), Fault::Unauthorized);
        let scope = r#"{"title":"Unauthorized","status":401,"detail":"AuthorizationUnsuccessful"}"#;
        assert_eq!(code(read(&answer(401, scope))), "xero_scope");
        let tenant = r#"{"Title":"Forbidden","Status":403,"Detail":"AuthenticationUnsuccessful"}"#;
        assert_eq!(code(read(&answer(403, tenant))), NO_ACCOUNT);
        let gone = "The resource you're looking for cannot be found";
        assert_eq!(code(read(&answer(404, gone))), "xero_not_found");
        let unknown = r#"{"ErrorNumber":14,"Type":"PostDataInvalidException","Message":"x"}"#;
        assert_eq!(code(read(&answer(400, unknown))), "xero_postdatainvalid");
        for (status, body) in [
            (500, "<html>"),
            (503, "x"),
            (502, ""),
            (400, "<html>no</html>"),
            (403, "<html>no</html>"),
            (404, "\r\n<html>no</html>"),
        ] {
            assert!(matches!(read(&answer(status, body)), Fault::Later { .. }));
        }
        match read(&answer(429, "")) {
            Fault::Later { detail } => assert!(detail.contains("today"), "{detail}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_words_of_a_validation_decide() {
        let lines = [
            ("Invoice # must be unique.", "NameTaken"),
            (
                "The document date cannot be before the end of year lock date, currently 31 Dec 2025",
                "xero_period_locked",
            ),
            (
                "This document cannot be edited as it has a payment or credit note allocated to it.",
                "xero_paid_document",
            ),
            (
                "This Bank Transaction cannot be edited as it has been reconciled with a Bank Statement.",
                "xero_reconciled",
            ),
            (
                "Payment amount exceeds the amount outstanding on this document",
                "xero_overpaid",
            ),
            (
                "Organisation is not subscribed to currency EUR",
                "currency_off",
            ),
            (
                "Account code '999' is not a valid code for this document.",
                "xero_account",
            ),
        ];
        for (message, expected) in lines {
            let fault = read(&answer(400, &invalid(message)));
            if let Fault::Refused { detail, .. } = &fault {
                assert!(detail.ends_with(message), "{detail}");
            }
            assert_eq!(code(fault), expected, "{message}");
            let element = json!({ "StatusAttributeString": "ERROR", "ValidationErrors": [{ "Message": message }] });
            assert_eq!(of_element(&element).map(code).unwrap(), expected);
        }
        let good = json!({ "StatusAttributeString": "OK", "HasErrors": false });
        assert_eq!(of_element(&good), None);
        let silent = json!({ "StatusAttributeString": "ERROR" });
        assert!(of_element(&silent).is_some());
    }
}
