//! What the document says of `api::books`.

use super::{
    Answer, Code, MERCHANT, Operation, Route, answer, list, merchant_id, nullable, object, page,
    reference, text, time, words,
};
use crate::engine::{backfill, reconcile};
use crate::sync::push::RowKind;
use crate::sync::reconcile::{Class, Decided};
use serde_json::{Value, json};

/// The operation at `route`, if it is one of these.
pub(super) fn about(route: &Route) -> Option<Operation> {
    let reading = |id, summary, query, shown| Operation {
        id,
        tag: "Records",
        summary,
        query,
        body: None,
        answers: vec![(200, "What was asked for.", shown)],
        refuses: &[],
    };
    let doing = |id, summary, body, status, schema| Operation {
        id,
        tag: "Records",
        summary,
        query: &[],
        body: Some(body),
        answers: vec![(status, "How it stands now.", Answer::Json(schema))],
        refuses: &[Code::Conflict, Code::Busy],
    };
    let window = || json!({ "merchant_id": MERCHANT, "from": "2026-01-01", "to": "2026-01-31" });
    let plain = || ("PlainRequest", json!({ "merchant_id": MERCHANT }));
    let path = route
        .path
        .strip_prefix("/api/v1/integrations/{category}/{connection_id}/")?;
    Some(match (route.method, path) {
        ("POST", "backfill") => doing(
            "startBackfill",
            "Brings the records of a window of days into the books that are not there yet, in the background. One of the same window that is under way is carried on.",
            ("WindowRequest", window()),
            202,
            "Backfill",
        ),
        ("GET", "backfill") => reading(
            "getBackfill",
            "How far the last backfill of a connection is, and when it is expected to end.",
            &["merchant_id"],
            Answer::Json("Backfill"),
        ),
        ("DELETE", "backfill") => doing(
            "stopBackfill",
            "Stops the backfill of a connection. What is on its way arrives all the same.",
            plain(),
            200,
            "Backfill",
        ),
        ("POST", "reconcile") => doing(
            "reconcile",
            "Compares the books of a connection with what the shop says, day by day. What is behind is sent again; what people did over there waits for a decision.",
            ("WindowRequest", window()),
            202,
            "Reconciliation",
        ),
        ("GET", "reconciliations") => reading(
            "listReconciliations",
            "The reconciliations of a connection, the last one first.",
            &["merchant_id", "limit"],
            Answer::Json("ReconciliationPage"),
        ),
        ("GET", "reconciliations/{reconciliation_id}") => reading(
            "getReconciliation",
            "What a reconciliation found.",
            &["merchant_id"],
            Answer::Json("Findings"),
        ),
        ("GET", "reconciliations/{reconciliation_id}/report.csv") => reading(
            "getReportTable",
            "A reconciliation as a table for a spreadsheet.",
            &["merchant_id"],
            Answer::Table,
        ),
        ("GET", "reconciliations/{reconciliation_id}/report.html") => reading(
            "getReportPage",
            "A reconciliation as a page for people.",
            &["merchant_id"],
            Answer::Page,
        ),
        ("POST", "reconciliations/{reconciliation_id}/differences/{difference_id}/{decision}") => {
            doing(
                "decideDifference",
                "Decides a difference: writes what the shop says over it, or lets it stand from now on.",
                plain(),
                200,
                "Difference",
            )
        }
        _ => return None,
    })
}

/// Parameters of these operations alone.
pub(super) fn parameters() -> Value {
    json!({
        "path_reconciliation_id": {
            "name": "reconciliation_id", "in": "path", "required": true,
            "schema": reference("Id"), "example": "rec_01kawq2m6vf6t8x9h0e3j5n7pr",
            "x-names": "record",
        },
        "path_difference_id": {
            "name": "difference_id", "in": "path", "required": true,
            "schema": text(1, 300), "example": "missing:order:1001", "x-names": "record",
        },
        "path_decision": {
            "name": "decision", "in": "path", "required": true,
            "schema": words(reconcile::Decision::ALL), "example": "repair",
        },
    })
}

pub(super) fn schemas() -> Value {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let day = || json!({ "type": "string", "format": "date" });
    let amount = || {
        json!({
            "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?$",
            "description": "Major units, as a decimal number.",
        })
    };
    let part = || answer(json!({ "count": number(), "total": amount() }), &[]);
    let side = || {
        nullable(answer(
            json!({ "day": day(), "currency": { "type": "string" }, "total": amount() }),
            &[],
        ))
    };
    let found: serde_json::Map<String, Value> = Class::ALL
        .map(|class| (class.as_str().to_owned(), number()))
        .into_iter()
        .collect();
    let reconciliation = json!({
        "id": reference("Id"),
        "cause": words(reconcile::Cause::ALL),
        "state": words(reconcile::State::ALL),
        "from": day(),
        "to": day(),
        "next_day": nullable(day()),
        "documents": answer(json!({ "ours": number(), "theirs": number() }), &[]),
        "under_way": {
            "type": "integer", "minimum": 0,
            "description": "Documents that were on their way, of which nothing is said.",
        },
        "problem": {
            "type": ["string", "null"],
            "description": "Why the next day cannot be compared. It is tried again; once nothing was \
                            compared for three hours another reconciliation can be begun, which stops \
                            this one.",
        },
        "found": answer(Value::Object(found), &[]),
        "started_at": time(),
        "updated_at": time(),
    });
    let mut findings = reconciliation.clone();
    findings["sums"] = list("ReconciledSum");
    findings["differences"] = list("Difference");
    findings["has_more"] = json!({
        "type": "boolean", "description": "There is more than is shown here; see the report.",
    });
    json!({
        "WindowRequest": object(json!({
            "merchant_id": merchant_id(),
            "from": day(),
            "to": { "type": "string", "format": "date", "description": "The last day (UTC)." },
        }), &[]),
        "Backfill": answer(json!({
            "id": reference("Id"),
            "state": words(backfill::State::ALL),
            "from": day(),
            "to": day(),
            "total": {
                "type": ["integer", "null"], "minimum": 0,
                "description": "Orders and refunds of the window; null while they are counted.",
            },
            "done": {
                "type": "integer", "minimum": 0,
                "description": "Those that stand in the books, or are not to stand there.",
            },
            "failed": {
                "type": "integer", "minimum": 0,
                "description": "Those that do not get there; the errors of the connection say why.",
            },
            "sent": number(),
            "rate_per_minute": nullable(amount()),
            "ends_at": {
                "oneOf": [time(), { "type": "null" }],
                "description": "When it ends if it goes on as it went so far.",
            },
            "ends_at_unknown": {
                "type": ["string", "null"], "description": "Why the end cannot be told.",
            },
            "started_at": time(),
            "updated_at": time(),
        }), &[]),
        "Reconciliation": answer(reconciliation, &[]),
        "ReconciliationPage": page("Reconciliation"),
        "Findings": answer(findings, &[]),
        "ReconciledSum": answer(json!({
            "day": day(),
            "currency": { "type": "string" },
            "kind": words(RowKind::ALL),
            "ours": part(),
            "theirs": part(),
            "not_ours": part(),
            "behind": {
                "type": "integer", "minimum": 0,
                "description": "How many orders or refunds stand behind those of ours that are daily \
                    summaries.",
            },
        }), &[]),
        "Difference": answer(json!({
            "id": { "type": "string" },
            "class": {
                "allOf": [words(Class::ALL)],
                "description":
                    "`missing`: the books do not show it. `doubled`: they show it twice. \
                     `changed_there`: somebody changed it over there. `changed_here`: it changed in \
                     the shop, and the books do not show that yet. `not_ours`: it is nothing of ours, \
                     which is no fault.",
            },
            "day": day(),
            "type": words(RowKind::ALL),
            "record": nullable(answer(json!({
                "type": words(RowKind::ALL), "id": reference("Id"),
            }), &[])),
            "behind": {
                "type": ["integer", "null"], "minimum": 0,
                "description": "How many orders or refunds stand behind a daily summary.",
            },
            "ours": side(),
            "theirs": side(),
            "document": nullable(answer(json!({
                "id": { "type": "string" }, "version": { "type": "string" },
                "number": { "type": ["string", "null"] },
            }), &[])),
            "detail": { "type": "string" },
            "todo": { "type": "string", "description": "What to do about it, in a sentence." },
            "decided": words([Decided::Open, Decided::Sent, Decided::Accepted]),
            "decided_at": nullable(time()),
        }), &[]),
    })
}
