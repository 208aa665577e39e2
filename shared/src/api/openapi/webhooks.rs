//! What the document says of `api::webhooks`, and of what is told to endpoints.

use super::{
    Answer, Code, EVENT, MERCHANT, Operation, Route, TIME, answer, list, merchant_id, nullable,
    object, page, reference, text, time, words,
};
use crate::model::event::{EventType, RecordKind};
use crate::sync::conflict::{Outcome, What};
use crate::webhooks::deliver::{DeliveryState, SAMPLED_ONE_IN};
use crate::webhooks::endpoint::{
    Log, OVERLAP_DAYS_MAX, OffReason, Ordering, Payload, RATE_LIMIT_MAX,
};
use crate::webhooks::fanout::KeptBack;
use crate::webhooks::filter;
use crate::webhooks::recover::RecoveryState;
use serde_json::{Value, json};

/// A part of an attempt's time.
fn milliseconds(what: &str) -> Value {
    let absent = "Absent if the attempt did not come so far, or had a connection already.";
    json!({ "type": "integer", "minimum": 0, "description": format!("{what} {absent}") })
}

/// The operation at `route`, if it is one of these.
pub(super) fn about(route: &Route) -> Option<Operation> {
    let operation = |id, summary, query, body, status, told, schema, refuses| Operation {
        id,
        tag: "Webhooks",
        summary,
        query,
        body,
        answers: vec![(status, told, Answer::Json(schema))],
        refuses,
    };
    let reading = |id, summary, query, schema| {
        operation(
            id,
            summary,
            query,
            None,
            200,
            "What was asked for.",
            schema,
            &[],
        )
    };
    let changing = |id, summary, schema: &'static str, mut example: Value| {
        example["merchant_id"] = json!(MERCHANT);
        let body = Some((schema, example));
        let told = "The endpoint as it is now.";
        operation(id, summary, &[], body, 200, told, "Endpoint", &[Code::Busy])
    };
    let sending = |id, summary, body: &'static str, mut example: Value, schema| {
        example["merchant_id"] = json!(MERCHANT);
        let body = Some((body, example));
        let told = "It was handed to the queue.";
        operation(
            id,
            summary,
            &[],
            body,
            202,
            told,
            schema,
            &[Code::Conflict, Code::Busy],
        )
    };
    if route.path.starts_with("/.well-known/webhooks/") {
        return Some(operation(
            "getPublicKeys",
            "The keys with which anybody can verify what an endpoint is sent (Ed25519, `v1a` of Standard Webhooks), as a JWK Set. During a rotation there are several.",
            &[],
            None,
            200,
            "The public keys.",
            "PublicKeys",
            &[Code::NotFound, Code::Internal],
        ));
    }
    let path = route.path.strip_prefix("/api/v1/webhooks")?;
    let path = path.trim_start_matches("/{endpoint_id}");
    let alone = route.path == "/api/v1/webhooks";
    Some(match (route.method, path) {
        ("POST", "/register") => {
            let example = json!({
                "merchant_id": MERCHANT,
                "url": "https://developer.example/hook",
                "event_types": [EventType::OrderCreated],
            });
            let body = Some(("NewEndpoint", example));
            let summary = "Registers an endpoint. Its secret is shown this once.";
            let schema = "EndpointWithSecret";
            operation(
                "registerEndpoint",
                summary,
                &[],
                body,
                201,
                "The endpoint.",
                schema,
                &[],
            )
        }
        ("GET", "") if alone => reading(
            "listEndpoints",
            "A merchant's endpoints.",
            &["merchant_id"],
            "EndpointList",
        ),
        ("GET", "") => reading("getEndpoint", "One endpoint.", &["merchant_id"], "Endpoint"),
        ("PATCH", "") => changing(
            "updateEndpoint",
            "Puts what is named in place of what there is. `headers` are replaced as a whole.",
            "ChangedEndpoint",
            json!({ "description": "orders to the warehouse" }),
        ),
        ("DELETE", "") => operation(
            "deleteEndpoint",
            "Removes an endpoint; what is pending for it ends.",
            &[],
            Some(("PlainRequest", json!({ "merchant_id": MERCHANT }))),
            200,
            "It is gone.",
            "DeletedEndpoint",
            &[],
        ),
        ("POST", "/enable") => changing(
            "enableEndpoint",
            "Lets an endpoint have events again, from now on. What it missed is sent by `recover`.",
            "PlainRequest",
            json!({}),
        ),
        ("POST", "/disable") => changing(
            "disableEndpoint",
            "Sends nothing to an endpoint until it is enabled; what is pending for it ends.",
            "PlainRequest",
            json!({}),
        ),
        ("POST", "/rotate-secret") => operation(
            "rotateSecret",
            "Gives an endpoint a new secret, shown this once. The old one signs beside it for as long as is asked.",
            &[],
            Some((
                "NewSecret",
                json!({ "merchant_id": MERCHANT, "overlap_days": 1 }),
            )),
            200,
            "The endpoint with its new secret.",
            "EndpointWithSecret",
            &[Code::Conflict, Code::Busy],
        ),
        ("POST", "/test") => sending(
            "testEndpoint",
            "Sends a sample event. What the endpoint answers stands among its attempts.",
            "TestRequest",
            json!({ "event_type": EventType::OrderCreated }),
            "Delivery",
        ),
        ("POST", "/dry-run") => operation(
            "dryRun",
            "Shows what an endpoint gets of an event, and whether it does, with its own filter or another. Nothing is sent.",
            &[],
            Some((
                "DryRunRequest",
                json!({ "merchant_id": MERCHANT, "event_id": EVENT }),
            )),
            200,
            "The request, signed as of now.",
            "DryRun",
            &[],
        ),
        ("GET", "/attempts") => reading(
            "listAttempts",
            "The deliveries to an endpoint with their attempts, in the order in which their events were accepted: each once it was tried, or waits for its turn. With a filter a page may hold fewer than were asked for, and none, though more follow.",
            &["merchant_id", "delivery_state", "limit", "cursor"],
            "DeliveryPage",
        ),
        ("GET", "/stats") => reading(
            "getEndpointStats",
            "What became of the deliveries of the last 24 hours that were tried or wait for their turn, and how the endpoint answers. Of more than 5,000 in the log the earliest are counted, up to `until`.",
            &["merchant_id"],
            "EndpointStats",
        ),
        ("GET", "/feed") => operation(
            "readFeed",
            "The same webhooks, to be read instead of awaited, in the order in which they were accepted as far as they were known. Who asks for what follows `next_cursor` has taken what came before it: that is not pushed any more. Ask again with the same cursor where nothing came. An endpoint whose log holds failures alone has none.",
            &["merchant_id", "after", "limit"],
            None,
            200,
            "What was asked for.",
            "FeedPage",
            &[Code::Conflict],
        ),
        ("POST", "/resend") => sending(
            "resendEvent",
            "Sends one event to an endpoint again, or for the first time if it was not meant for it.",
            "OfEvent",
            json!({ "event_id": EVENT }),
            "Delivery",
        ),
        ("POST", "/recover") => sending(
            "recoverEndpoint",
            "Sends everything again that ended without success, of what was accepted since a moment of the last 14 days.",
            "RecoverRequest",
            json!({ "since": TIME }),
            "Recovery",
        ),
        ("GET", "/recover") => reading(
            "getRecovery",
            "How far the latest recovery of an endpoint has come.",
            &["merchant_id"],
            "Recovery",
        ),
        _ => return None,
    })
}

/// Parameters of these operations alone.
pub(super) fn parameters() -> Value {
    json!({
        "query_delivery_state": {
            "name": "delivery_state", "in": "query", "required": false,
            "schema": words(DeliveryState::ALL),
            "description": "Only deliveries in this state.",
        },
        "query_after": {
            "name": "after", "in": "query", "required": false,
            "schema": { "type": "string", "minLength": 1 },
            "description": "The `next_cursor` of the page before; nothing to begin with the oldest that is kept.",
        },
    })
}

pub(super) fn schemas() -> Value {
    let number = || json!({ "type": "integer", "minimum": 0 });
    let url = || json!({ "type": "string", "format": "uri", "maxLength": 2048 });
    let types = || json!({ "type": "array", "items": reference("EventType"), "minItems": 1 });
    let payload = || words([Payload::Full, Payload::Thin]);
    let ordering = || words([Ordering::None, Ordering::ByKey]);
    let log = || {
        let mut log = words([Log::Full, Log::Failures]);
        log["description"] = json!(format!(
            "Which deliveries the log holds. `failures` costs about half: of what arrives at the first attempt one in {SAMPLED_ONE_IN} is kept, for `stats`, which then estimates. There is no feed then and no `ordering` `by_key`, and what the queue doubles after it arrived is sent once more. Whatever did not arrive at once is kept, tried, and can be sent again as ever."
        ));
        log
    };
    let filter = || {
        json!({
            "type": ["string", "null"], "maxLength": filter::CHARACTERS_MAX,
            "description": "A condition over the body, as filters of JSONPath have it (RFC 9535 §2.3.5), where `@` is the body: `@.data.total.amount >= 10000`. What does not fulfil it is not sent. An empty text takes it away.",
        })
    };
    let headers = || {
        json!({
            "type": "object", "writeOnly": true, "maxProperties": 20,
            "additionalProperties": { "type": "string" },
            "description": "Headers that are sent along. They are kept like secrets and never shown.",
        })
    };
    let rate_limit = |least: u32| {
        json!({
            "type": "integer", "minimum": least, "maximum": RATE_LIMIT_MAX,
            "description": "The most webhooks a second; what is more waits its turn, which is no attempt. 0 takes the limit away, and without one as much is sent as there is. An endpoint that takes longer than two seconds to answer again and again is sent two a second at most until it is quick again.",
        })
    };
    let secret = || {
        json!({
            "type": ["string", "null"], "writeOnly": true,
            "description": "`whsec_` and base64 of 24 to 64 bytes; made here when it is left out.",
        })
    };
    let off = json!({
        "reason": words([OffReason::Owner, OffReason::Failing, OffReason::Gone]),
        "at": time(),
    });
    let endpoint = json!({
        "id": { "allOf": [reference("Id")], "x-names": "endpoint" },
        "merchant_id": merchant_id(),
        "url": url(),
        "event_types": types(),
        "description": { "type": "string" },
        "payload": payload(),
        "filter": filter(),
        "ordering": ordering(),
        "log": log(),
        "rate_limit": nullable(rate_limit(1)),
        "header_names": { "type": "array", "items": { "type": "string" } },
        "jwks_path": {
            "type": "string",
            "description": "Where the public keys stand, for who verifies by these.",
        },
        "older_secrets_until": { "type": "array", "items": time() },
        "disabled": nullable(answer(off.clone(), &[])),
        "created_at": time(),
        "updated_at": nullable(time()),
    });
    let mut with_secret = endpoint.clone();
    with_secret["secret"] = json!({ "type": "string", "pattern": "^whsec_" });
    json!({
        "NewEndpoint": object(json!({
            "merchant_id": merchant_id(),
            "url": url(),
            "event_types": types(),
            "description": text(0, 200),
            "payload": payload(),
            "filter": filter(),
            "ordering": ordering(),
            "log": log(),
            "rate_limit": rate_limit(0),
            "headers": headers(),
            "secret": secret(),
        }), &["description", "payload", "filter", "ordering", "log", "rate_limit", "headers", "secret"]),
        "ChangedEndpoint": object(json!({
            "merchant_id": merchant_id(),
            "url": url(),
            "event_types": types(),
            "description": text(0, 200),
            "payload": payload(),
            "filter": filter(),
            "ordering": ordering(),
            "log": log(),
            "rate_limit": rate_limit(0),
            "headers": headers(),
        }), &["url", "event_types", "description", "payload", "filter", "ordering", "log", "rate_limit", "headers"]),
        "NewSecret": object(json!({
            "merchant_id": merchant_id(),
            "secret": secret(),
            "overlap_days": {
                "type": "integer", "minimum": 0, "maximum": OVERLAP_DAYS_MAX, "default": 1,
                "description": "How long the old secret signs beside the new one.",
            },
        }), &["secret", "overlap_days"]),
        "TestRequest": object(json!({
            "merchant_id": merchant_id(), "event_type": reference("EventType"),
        }), &[]),
        "OfEvent": object(json!({
            "merchant_id": merchant_id(), "event_id": reference("Id"),
        }), &[]),
        "DryRunRequest": object(json!({
            "merchant_id": merchant_id(), "event_id": reference("Id"), "filter": filter(),
        }), &["filter"]),
        "RecoverRequest": object(json!({
            "merchant_id": merchant_id(), "since": time(),
        }), &[]),
        "Endpoint": answer(endpoint, &[]),
        "EndpointWithSecret": answer(with_secret, &[]),
        "EndpointList": page("Endpoint"),
        "DeletedEndpoint": answer(json!({
            "id": reference("Id"), "deleted": { "const": true },
        }), &[]),
        "Timings": answer(json!({
            "dns_ms": milliseconds("The look-up of the host's name."),
            "connect_ms": milliseconds("The TCP connection."),
            "tls_ms": milliseconds("The TLS handshake."),
            "first_byte_ms": milliseconds("From the beginning of the attempt to the head of the reply."),
        }), &["dns_ms", "connect_ms", "tls_ms", "first_byte_ms"]),
        "Attempt": answer(json!({
            "at": time(),
            "url": { "type": "string", "description": "Where the attempt went." },
            "webhook_timestamp": {
                "type": "string",
                "description": "What the request said in `webhook-timestamp`. Its `webhook-id` is the event's id.",
            },
            "status": { "type": ["integer", "null"] },
            "error": { "type": ["string", "null"] },
            "duration_ms": number(),
            "timings": reference("Timings"),
            "reply": {
                "type": "string",
                "description": "The beginning of the reply: 16 KiB of the latest, 1 KiB of those before it.",
            },
        }), &["reply"]),
        "Delivery": answer(json!({
            "endpoint_id": { "allOf": [reference("Id")], "x-names": "endpoint" },
            "merchant_id": merchant_id(),
            "event_id": reference("Id"),
            "type": reference("EventType"),
            "state": words(DeliveryState::ALL),
            "attempts_total": number(),
            "attempts": list("Attempt"),
            "next_attempt_at": nullable(time()),
            "step": number(),
            "scheduled": { "type": "boolean" },
            "line": {
                "type": "string",
                "description": "The key by which it is in order: it is sent once those before it have ended.",
            },
            "late_since": time(),
            "taken": { "type": "boolean", "description": "It was read from the feed." },
            "stands_for": {
                "type": "integer", "minimum": 1,
                "description": "How many deliveries this one stands for, where the log holds a sample.",
            },
            "accepted_at": time(),
            "created_at": time(),
        }), &["line", "late_since", "taken", "stands_for"]),
        "DeliveryPage": page("Delivery"),
        "DryRun": answer(json!({
            "delivered": { "type": "boolean" },
            "kept_back_by": {
                "type": "array",
                "items": { "enum": KeptBack::ALL.map(KeptBack::as_str) },
            },
            "url": url(),
            "headers": { "type": "object", "additionalProperties": { "type": "string" } },
            "body": { "type": "string" },
        }), &[]),
        "Recovery": answer(json!({
            "state": words([RecoveryState::Running, RecoveryState::Done]),
            "since": time(),
            "until": time(),
            "looked_at": number(),
            "sent_again": number(),
            "started_at": time(),
            "updated_at": time(),
        }), &[]),
        "PublicKeys": answer(json!({
            "keys": { "type": "array", "minItems": 1, "items": answer(json!({
                "kty": { "const": "OKP" },
                "crv": { "const": "Ed25519" },
                "x": { "type": "string" },
                "kid": { "type": "string" },
                "alg": { "const": "EdDSA" },
                "use": { "const": "sig" },
            }), &[]) },
        }), &[]),
        "ToldConnection": answer(json!({
            "id": reference("Id"),
            "provider": { "type": "string" },
            "category": reference("Category"),
            "status": { "type": "string" },
            "tenant_id": { "type": "string" },
            "tenant_name": { "type": ["string", "null"] },
            "trouble": nullable(reference("Trouble")),
        }), &[]),
        "ToldEndpoint": answer(json!({
            "id": reference("Id"),
            "url": url(),
            "description": { "type": "string" },
            "disabled": nullable(answer(off, &[])),
        }), &[]),
        "ToldChange": answer(json!({
            "connection_id": reference("Id"),
            "provider": { "type": "string" },
            "record": reference("RecordRef"),
            "what": words([What::Changed, What::Deleted, What::Voided]),
            "fields": { "type": "array", "items": { "type": "string" } },
            "outcome": words([Outcome::ShopWins, Outcome::ProviderWins, Outcome::Parked]),
            "there": answer(json!({
                "type": { "type": "string" },
                "id": { "type": "string" },
                "number": { "type": ["string", "null"] },
                "shown": nullable(shown()),
            }), &[]),
            "changed_at": nullable(time()),
        }), &[]),
        "EndpointStats": answer(json!({
            "since": time(),
            "until": time(),
            "deliveries": number(),
            "estimated": {
                "type": "boolean",
                "description": "Some of those that are counted stand for others, which the log leaves out.",
            },
            "states": answer(
                Value::Object(DeliveryState::ALL.map(|state| (state.as_str().to_owned(), number())).into_iter().collect()),
                &[],
            ),
            "delivered_at_first": number(),
            "attempts": number(),
            "duration_ms_p50": { "type": ["integer", "null"] },
            "duration_ms_p95": { "type": ["integer", "null"] },
            "oldest_pending_at": nullable(time()),
            "failing_since": nullable(time()),
            "failures_in_a_row": number(),
            "rests_until": nullable(time()),
        }), &[]),
        "FeedPage": page("WebhookBody"),
        "WebhookBody": answer(json!({
            "id": reference("Id"),
            "type": reference("EventType"),
            "timestamp": time(),
            "api_version": { "type": "string" },
            "merchant_id": merchant_id(),
            "sequence": answer(json!({
                "key": { "type": "string" },
                "n": { "type": "integer", "minimum": 1 },
                "previous_id": { "type": ["string", "null"] },
            }), &[]),
            "related_object": answer(json!({
                "type": words(RecordKind::ALL),
                "id": { "type": "string" },
            }), &[]),
            "data": {
                "type": "object",
                "description": "What happened; absent where the endpoint asked for thin payloads.",
            },
        }), &["data"]),
    })
}

/// The schema of `data`, by type of event.
fn data(kind: EventType) -> &'static str {
    match kind {
        EventType::OrderCreated | EventType::OrderUpdated | EventType::OrderCompleted => "Order",
        EventType::OrderRefunded => "Refund",
        EventType::PaymentProcessed => "Payment",
        EventType::PayoutPaid => "Payout",
        EventType::ProductUpdated => "Product",
        EventType::InventoryUpdated => "InventoryLevel",
        EventType::InventoryLowStock => "LowStock",
        EventType::UserCreated => "User",
        EventType::ConnectionConnected
        | EventType::ConnectionReauthRequired
        | EventType::ConnectionDisconnected => "ToldConnection",
        EventType::RecordChanged => "ToldChange",
        EventType::EndpointFailing | EventType::EndpointDisabled => "ToldEndpoint",
    }
}

/// The catalogue: the schema of each type's webhooks stands under the name of the type.
pub(super) fn catalogue() -> Value {
    let all = EventType::ALL.into_iter().map(|kind| {
        let one = json!({
            "properties": { "type": { "const": kind }, "data": reference(data(kind)) },
        });
        let schema = json!({ "allOf": [reference("WebhookBody"), one] });
        (kind.as_str().to_owned(), schema)
    });
    Value::Object(all.collect())
}

/// What is told to endpoints, by type of event.
pub(super) fn told() -> Value {
    let told = EventType::ALL.into_iter().map(|kind| {
        let post = json!({
            "operationId": format!("told.{}", kind.as_str()),
            "tags": ["Webhooks"],
            "summary": "Signed as Standard Webhooks has it: `webhook-id`, `webhook-timestamp`, `webhook-signature`.",
            "security": [],
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": reference(kind.as_str()) } },
            },
            "responses": { "2XX": { "description": "It was delivered." } },
        });
        (kind.as_str().to_owned(), json!({ "post": post }))
    });
    Value::Object(told.collect())
}

/// What people see of a thing at the provider.
fn shown() -> Value {
    let text =
        |description: &str| json!({ "type": ["string", "null"], "description": description });
    answer(
        json!({
            "day": nullable(json!({ "type": "string", "format": "date" })),
            "total": text("In major units, such as `25.50`."),
            "currency": text("Absent where the company keeps its books in one."),
            "name": text("Of customers and items."),
            "note": text("Of documents."),
        }),
        &[],
    )
}
