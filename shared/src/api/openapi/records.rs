//! What the document says of `api::records`.

use super::{
    Answer, Code, MERCHANT, Operation, Route, TIME, answer, list, merchant_id, nullable, object,
    page, reference, text, time, words,
};
use crate::engine::again::RETRY_RECORDS_MAX;
use crate::engine::count::{OPEN_MAX, ROWS_MAX};
use crate::engine::ledger::KINDS;
use crate::engine::resync::State;
use crate::sync::push::Standing;
use serde_json::{Value, json};

/// The operation at `route`, if it is one of these.
pub(super) fn about(route: &Route) -> Option<Operation> {
    let reading = |id, summary, query, schema| Operation {
        id,
        tag: "Records",
        summary,
        query,
        body: None,
        answers: vec![(200, "What was asked for.", Answer::Json(schema))],
        refuses: &[],
    };
    let sending = |id, summary, body, schema| Operation {
        id,
        tag: "Records",
        summary,
        query: &[],
        body: Some(body),
        answers: vec![(202, "It was handed to the queue.", Answer::Json(schema))],
        refuses: &[Code::Conflict, Code::Busy],
    };
    let path = route.path.strip_prefix("/api/v1/integrations/")?;
    let path = path.trim_start_matches("{category}/{connection_id}/");
    Some(match (route.method, path) {
        ("GET", "summary") if route.path == "/api/v1/integrations/summary" => reading(
            "getMerchantSummary",
            "How many of a merchant's records stand where they should, over all connections and for each.",
            &["merchant_id"],
            "MerchantSummary",
        ),
        ("GET", "summary") => reading(
            "getSummary",
            "How many of the records of a connection stand there as they should.",
            &["merchant_id"],
            "Summary",
        ),
        ("GET", "records") => reading(
            "listRecords",
            "The records of a connection by type and id, and how each stands there. With a filter a page may hold fewer than were asked for, and none, though more follow.",
            &["merchant_id", "state", "type", "limit", "cursor"],
            "RecordPage",
        ),
        ("GET", "records/{type}/{record_id}") => reading(
            "getRecord",
            "How one record stands at a connection, with its documents there. Of a daily summary also the records behind it, a page at a time.",
            &["merchant_id", "limit", "cursor"],
            "Record",
        ),
        ("GET", "errors") => reading(
            "listErrors",
            "The records that are parked or failing, by type and id, with what to do about each.",
            &["merchant_id", "code", "type", "limit", "cursor"],
            "RecordErrorPage",
        ),
        ("POST", "retry") => sending(
            "retry",
            "Sends records again: those that are named, or all with one error. Doing it twice changes nothing more.",
            (
                "RetryRequest",
                json!({ "merchant_id": MERCHANT, "code": "quickbooks_6210" }),
            ),
            "Sent",
        ),
        ("POST", "resync") => sending(
            "resync",
            "Reads the records of a window again, or all that the connection knows, and sends what differs. One of the same window that is under way is carried on.",
            (
                "ResyncRequest",
                json!({ "merchant_id": MERCHANT, "from": TIME, "until": null }),
            ),
            "Resync",
        ),
        ("GET", "resync") => reading(
            "getResync",
            "How far the last resync of a connection is.",
            &["merchant_id"],
            "Resync",
        ),
        _ => return None,
    })
}

/// Parameters of these operations alone.
pub(super) fn parameters() -> Value {
    let optional = |name: &str, schema: Value, description: &str| {
        json!({
            "name": name, "in": "query", "required": false, "schema": schema,
            "description": description,
        })
    };
    json!({
        "path_type": {
            "name": "type", "in": "path", "required": true, "schema": words(KINDS),
            "example": "order",
        },
        "path_record_id": {
            "name": "record_id", "in": "path", "required": true, "schema": reference("Id"),
            "example": "1001", "x-names": "record",
        },
        "query_state": optional(
            "state", words(Standing::ALL), "Only records that stand like this.",
        ),
        "query_type": optional("type", words(KINDS), "Only records of this type."),
        "query_code": optional(
            "code", json!({ "type": "string" }), "Only records with this error.",
        ),
    })
}

pub(super) fn schemas() -> Value {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let optional_number = || json!({ "type": ["integer", "null"], "minimum": 0 });
    let kind = || words(KINDS);
    let state = || words(Standing::ALL);
    let accuracy = || {
        json!({
            "oneOf": [reference("Rate"), { "type": "null" }],
            "description":
                "The share of the records that should stand at the provider and do: `synced` of \
                 `synced`, `pending`, `parked` and `waiting`, from 0 to 1, rounded down, so that 1 \
                 means all. Null before it was counted, and where none should.",
        })
    };
    let counts = || nullable(reference("Counts"));
    let named = object(json!({ "type": kind(), "id": reference("Id") }), &[]);
    json!({
        "Record": answer(json!({
            "type": kind(),
            "id": reference("Id"),
            "state": {
                "allOf": [state()],
                "description":
                    "`pending`: a push is under way or is tried again, `error` says why. `synced`: the \
                     provider took what we sent. `parked`: it does not, until somebody changes what \
                     `error` names. `left_out`: older than the merchant wants to have sent. `waiting`: \
                     for the connection to be usable again.",
            },
            "since": nullable(time()),
            "revision": { "type": "integer", "description": "Ours, the newest that was to be sent." },
            "shop": answer(json!({
                "revision": optional_number(),
                "version": {
                    "type": ["integer", "null"],
                    "description": "The version that the shop gave its order.",
                },
            }), &[]),
            "documents": {
                "type": "array",
                "items": answer(json!({
                    "id": { "type": "string" }, "version": { "type": "string" },
                    "number": { "type": ["string", "null"] },
                }), &[]),
                "description": "What stands at the provider, by its ids, and the number it is known by.",
            },
            "summary": nullable(answer(json!({
                "id": {
                    "type": "string",
                    "description": "The daily summary in which it is posted, or will be: a record of the \
                        same type.",
                },
                "held": {
                    "type": "boolean",
                    "description": "Whether the summary holds it as it is now. Where it does, the record \
                        stands in the books as the summary does.",
                },
            }), &[])),
            "behind": {
                "allOf": [page("RecordBehind")],
                "description": "The records that a daily summary holds, or is to hold; absent for others.",
            },
            "attempts": {
                "type": "integer", "minimum": 0,
                "description": "Tries in a row that ended with an error.",
            },
            "error": nullable(reference("RecordProblem")),
            "next_attempt_at": {
                "oneOf": [time(), { "type": "null" }],
                "description": "By when it is tried again by itself.",
            },
            "updated_at": nullable(time()),
        }), &["behind"]),
        "RecordBehind": answer(json!({
            "type": kind(),
            "id": reference("Id"),
            "state": state(),
            "revision": { "type": "integer" },
            "held": { "type": "boolean" },
        }), &[]),
        "RecordProblem": answer(json!({
            "code": { "type": "string" }, "detail": { "type": "string" },
        }), &[]),
        "RecordPage": page("Record"),
        "RecordError": answer(json!({
            "type": kind(),
            "id": reference("Id"),
            "state": state(),
            "since": nullable(time()),
            "code": { "type": "string" },
            "detail": { "type": "string" },
            "todo": { "type": "string", "description": "What to do about it, in a sentence." },
            "attempts": number(),
            "next_attempt_at": nullable(time()),
            "retry": answer(json!({
                "path": { "type": "string" }, "body": reference("RetryRequest"),
            }), &[]),
        }), &[]),
        "RecordErrorPage": page("RecordError"),
        "RetryRequest": object(json!({
            "merchant_id": merchant_id(),
            "records": {
                "type": ["array", "null"], "items": named,
                "minItems": 1, "maxItems": RETRY_RECORDS_MAX,
            },
            "code": {
                "oneOf": [text(1, 200), { "type": "null" }],
                "description": "Everything with this error, instead of `records`.",
            },
            "cursor": {
                "type": ["string", "null"],
                "description": "With a code: the `next_cursor` of the answer before.",
            },
        }), &["records", "code", "cursor"]),
        "Sent": answer(json!({
            "sent": number(),
            "has_more": { "type": "boolean" },
            "next_cursor": { "type": ["string", "null"] },
        }), &[]),
        "ResyncRequest": object(json!({
            "merchant_id": merchant_id(),
            "from": {
                "oneOf": [time(), { "type": "null" }],
                "description": "Orders placed and refunds made from this time on.",
            },
            "until": {
                "oneOf": [time(), { "type": "null" }], "description": "And before this time.",
            },
        }), &["from", "until"]),
        "Resync": answer(json!({
            "id": reference("Id"),
            "state": words([State::Running, State::Done, State::Stopped]),
            "from": nullable(time()),
            "until": nullable(time()),
            "looked": {
                "type": "integer", "minimum": 0,
                "description": "Records that the connection knows and that were looked at.",
            },
            "sent": {
                "type": "integer", "minimum": 0,
                "description": "Those of them in the window, which were handed to the queue.",
            },
            "started_at": time(),
            "updated_at": time(),
        }), &[]),
        "Counts": answer(json!({
            "synced": number(), "pending": number(), "parked": number(), "waiting": number(),
            "left_out": number(),
        }), &[]),
        "Summary": answer(json!({
            "connection_id": { "allOf": [reference("Id")], "x-names": "connection" },
            "accuracy": accuracy(),
            "counts": counts(),
            "as_of": {
                "oneOf": [time(), { "type": "null" }],
                "description": "When the count began; what changed since may be in it or not.",
            },
            "counting": {
                "type": ["integer", "null"],
                "description": format!(
                    "Records that a count which is under way has seen. Each request carries it on by \
                     {ROWS_MAX}."
                ),
            },
            "open": answer(json!({
                "errors": { "type": "integer", "minimum": 0, "maximum": OPEN_MAX },
                "waiting": { "type": "integer", "minimum": 0, "maximum": OPEN_MAX },
                "at_least": {
                    "type": "boolean", "description": "There may be more; see the lists.",
                },
            }), &[]),
        }), &[]),
        "MerchantSummary": answer(json!({
            "merchant_id": merchant_id(),
            "accuracy": accuracy(),
            "counts": counts(),
            "as_of": {
                "oneOf": [time(), { "type": "null" }],
                "description": "When the oldest of the counts began.",
            },
            "connections": list("Summary"),
        }), &[]),
    })
}
