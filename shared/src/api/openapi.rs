//! The OpenAPI 3.1 document of the whole API. It is built here, beside the table of addresses, and kept
//! as `docs/openapi.json`, which the API serves; tests compare the two, hold the document against the
//! routes, and hold real answers against the document.
//!
//! Two marks go beyond the standard. `x-names` says of a parameter or a member what its value names:
//! a `merchant`, or a `connection` or an `endpoint` of one, which nobody else may reach. What names a
//! `secret` or the `deployment` belongs to no merchant, and a `record` is named by the merchant itself.

mod books;
mod records;
mod webhooks;

use super::routes::{ROUTES, Route};
use super::{BODY_BYTES_MAX, events, integrations, merchants};
use crate::error::Code;
use crate::model::event::{EventType, RecordKind};
use crate::model::goods;
use crate::model::ids::EXTERNAL_ID_BYTES_MAX;
use crate::model::money::AMOUNT_MAX;
use crate::model::order::{LINES_MAX, PaymentOutcome};
use crate::model::payout::ADJUSTMENTS_MAX;
use crate::oauth::connection::{Happened, Posting, Status};
use crate::providers::accounts::Role;
use crate::providers::{Category, PROVIDERS};
use crate::sync::conflict::Winner;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// The tag of a browser's stops.
const BROWSER: &str = "Browser";
/// The tag of what providers send.
const PROVIDERS_TAG: &str = "Providers";
/// Any key will do to try an example; no merchant has this id.
const MERCHANT: &str = "demo";
const CONNECTION: &str = "con_01kawq2m6vf6t8x9h0e3j5n7pr";
const ENDPOINT: &str = "ep_01kawq2m6vf6t8x9h0e3j5n7pr";
const EVENT: &str = "evt_01kawq2m6vf6t8x9h0e3j5n7pr";
const TIME: &str = "2026-01-31T10:00:00Z";

/// How an operation refuses that reads from the connected company while it is asked.
const ASKS_THE_COMPANY: &[Code] = &[
    Code::Conflict,
    Code::Busy,
    Code::FeatureDisabled,
    Code::ConnectionReauthRequired,
    Code::UpstreamFailed,
    Code::UpstreamRefused,
];

/// What one operation is.
struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    /// Names of `components/parameters`; those of the path come from the path.
    query: &'static [&'static str],
    /// The schema of the body and an example of it.
    body: Option<(&'static str, Value)>,
    /// The statuses of success, with the schema of the answer.
    answers: Vec<(u16, &'static str, Answer)>,
    /// What it may refuse beside what follows from the rest.
    refuses: &'static [Code],
}

enum Answer {
    Json(&'static str),
    Page,
    /// Text for a spreadsheet.
    Table,
    /// A redirect.
    Elsewhere,
    /// Nothing but the status.
    Empty,
    /// This document.
    OpenApi,
}

/// The document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Crossdock",
            "version": "2026-11-01",
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
            "description":
                "The integration platform of a commerce system. Every refusal is a problem document \
                 (RFC 9457). Members of a body and parameters of a query that are not listed are \
                 refused, but for those of a browser's stops. Answers may gain members.",
        },
        "servers": [{ "url": "/", "description": "The deployment that serves this document." }],
        "tags": [
            { "name": "Events", "description": "What happened in the shop." },
            { "name": "Merchants", "description": "Whose shop it is." },
            { "name": "Integrations", "description": "A merchant's connections to providers." },
            { "name": "Records", "description": "What of a merchant's records stands at a connection." },
            { "name": "Webhooks", "description": "A developer's endpoints." },
            { "name": BROWSER, "description": "Stops of a merchant's browser; not for programs." },
            { "name": PROVIDERS_TAG, "description": "What providers tell us; not for programs of yours." },
            { "name": "Service", "description": "The service itself." },
        ],
        "security": [{ "platform_key": [] }],
        "paths": paths,
        "webhooks": webhooks::told(),
        "components": {
            "securitySchemes": {
                "platform_key": {
                    "type": "http", "scheme": "bearer",
                    "description": "The platform key of this deployment.",
                },
            },
            "parameters": parameters(),
            "schemas": schemas(),
        },
    })
}

/// The parameters that the query of an operation takes; `None` for the stops of a browser, which brings
/// along what others gave it, and for what providers send.
pub fn query(route: &Route) -> Option<&'static [&'static str]> {
    let is = about(route);
    (!matches!(is.tag, BROWSER | PROVIDERS_TAG)).then_some(is.query)
}

fn operation(route: &Route) -> Value {
    let is = about(route);
    let public = matches!(is.tag, BROWSER | PROVIDERS_TAG | "Service")
        || route.path.starts_with("/.well-known/");
    let names: Vec<&str> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .collect();
    let of_path = names.iter().map(|name| format!("path_{name}"));
    let of_query = is.query.iter().map(|name| format!("query_{name}"));
    let parameters: Vec<Value> = of_path
        .chain(of_query)
        .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
        .collect();
    let mut responses = Map::new();
    for (status, description, answer) in &is.answers {
        responses.insert(status.to_string(), success(description, answer));
    }
    let mut codes = is.refuses.to_vec();
    if !public {
        codes.extend([Code::Unauthenticated, Code::Internal]);
    }
    match is.id {
        // Of a consent that something else has overtaken, and of a form.
        "proveBrowser" => codes.push(Code::ValidationFailed),
        "postKeys" => codes.extend([Code::ValidationFailed, Code::PayloadTooLarge]),
        _ => {}
    }
    if is.body.is_some() {
        let body = [
            Code::MalformedJson,
            Code::PayloadTooLarge,
            Code::ValidationFailed,
        ];
        codes.extend(body);
    }
    if query(route).is_some() {
        // Of a parameter of the query, be it only one that is not listed.
        codes.push(Code::ValidationFailed);
    }
    // A merchant, and whatever is named beside it, may not exist.
    let named = is
        .body
        .as_ref()
        .is_some_and(|(schema, _)| *schema != "NewMerchant");
    if !public && (named || !names.is_empty() || !is.query.is_empty()) {
        codes.push(Code::NotFound);
    }
    if names.contains(&"category") || is.tag == "Webhooks" && !public {
        codes.push(Code::FeatureDisabled);
    }
    for code in Code::ALL.into_iter().filter(|code| codes.contains(code)) {
        let said = format!("`{}`: {}.", code.as_str(), code.title());
        let refusal = responses
            .entry(code.status().to_string())
            .or_insert_with(|| refused(is.tag));
        let line = match refusal["description"].as_str() {
            Some(before) => format!("{before} {said}"),
            None => said,
        };
        refusal["description"] = json!(line);
    }
    let mut operation = json!({
        "operationId": is.id,
        "tags": [is.tag],
        "summary": is.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if public {
        operation["security"] = json!([]);
    }
    if let Some((schema, example)) = is.body {
        operation["requestBody"] = json!({
            "required": true,
            "description": format!("At most {BODY_BYTES_MAX} bytes."),
            "content": { "application/json": { "schema": reference(schema), "example": example } },
        });
    }
    if is.id == "takeWebhook" {
        operation["requestBody"] = json!({
            "required": true,
            "description": "In the provider's own words, with the signature in the provider's own header.",
            "content": {
                "application/json": { "schema": {} },
                "application/cloudevents+json": { "schema": {} },
                "application/cloudevents-batch+json": { "schema": {} },
                "application/x-www-form-urlencoded": { "schema": {} },
            },
        });
    }
    if is.id == "postKeys" {
        operation["requestBody"] = json!({
            "required": true,
            "description": "The form with the merchant's keys, as our own page sends it.",
            "content": { "application/x-www-form-urlencoded": { "schema": { "type": "object" } } },
        });
    }
    operation
}

fn success(description: &str, answer: &Answer) -> Value {
    let html = json!({ "text/html": { "schema": { "type": "string" } } });
    match answer {
        Answer::Json(schema) => json!({
            "description": description,
            "content": { "application/json": { "schema": reference(schema) } },
        }),
        Answer::Page => json!({ "description": description, "content": html }),
        Answer::Table => json!({
            "description": description,
            "content": { "text/csv": { "schema": { "type": "string" } } },
        }),
        Answer::OpenApi => json!({
            "description": description,
            "content": { "application/json": { "schema": { "type": "object" } } },
        }),
        Answer::Empty => json!({ "description": description }),
        Answer::Elsewhere => json!({
            "description": description,
            "headers": { "Location": { "schema": { "type": "string", "format": "uri" } } },
        }),
    }
}

/// A refusal that has no words yet. A browser gets a page, and everybody else a problem.
fn refused(tag: &str) -> Value {
    match tag {
        BROWSER => json!({ "content": { "text/html": { "schema": { "type": "string" } } } }),
        _ => json!({
            "content": { "application/problem+json": { "schema": reference("Problem") } },
        }),
    }
}

fn about(route: &Route) -> Operation {
    let others = [records::about, books::about, webhooks::about];
    if let Some(operation) = others.iter().find_map(|about| about(route)) {
        return operation;
    }
    let connection = |id, summary, body| Operation {
        id,
        tag: "Integrations",
        summary,
        query: &[],
        body: Some(body),
        answers: vec![(
            200,
            "The connection as it is now.",
            Answer::Json("Connection"),
        )],
        refuses: &[Code::Conflict, Code::Busy],
    };
    let reading = |id, tag, summary, query, schema| Operation {
        id,
        tag,
        summary,
        query,
        body: None,
        answers: vec![(200, "What was asked for.", Answer::Json(schema))],
        refuses: &[],
    };
    let plain = json!({ "merchant_id": MERCHANT });
    let connect =
        json!({ "merchant_id": MERCHANT, "return_url": "https://shop.example/connected" });
    let link = |id, summary| Operation {
        id,
        tag: "Integrations",
        summary,
        query: &[],
        body: Some(("ConnectRequest", connect.clone())),
        answers: vec![(
            201,
            "A link for the merchant's browser.",
            Answer::Json("ConnectLink"),
        )],
        refuses: &[Code::Conflict, Code::FeatureDisabled],
    };
    let browser = |id, summary| Operation {
        id,
        tag: BROWSER,
        summary,
        query: &[],
        body: None,
        answers: vec![(303, "Where the browser goes next.", Answer::Elsewhere)],
        refuses: &[
            Code::NotFound,
            Code::LinkExpired,
            Code::AuthorizationRefused,
            Code::SessionMismatch,
            Code::Conflict,
            Code::FeatureDisabled,
            Code::UpstreamFailed,
            Code::UpstreamRefused,
            Code::Busy,
            Code::Internal,
        ],
    };
    match (route.method, route.path) {
        ("GET", "/health") => reading(
            "getHealth",
            "Service",
            "Whether the service answers.",
            &[],
            "Health",
        ),
        ("GET", "/docs/errors") => Operation {
            id: "getErrors",
            tag: "Service",
            summary: "The page to which the `type` of every problem leads.",
            query: &[],
            body: None,
            answers: vec![(200, "A page.", Answer::Page)],
            refuses: &[],
        },
        ("GET", "/api/v1/openapi.json") => Operation {
            id: "getOpenApi",
            tag: "Service",
            summary: "This document.",
            query: &[],
            body: None,
            answers: vec![(200, "This document.", Answer::OpenApi)],
            refuses: &[],
        },
        ("POST", "/api/v1/events") => Operation {
            id: "sendEvents",
            tag: "Events",
            summary: "Sends one event, or up to 100 of them. The id of an event is its idempotency key.",
            query: &[],
            body: Some(("EventOrBatch", event_example())),
            answers: vec![
                (
                    200,
                    "Each event of a batch by itself.",
                    Answer::Json("BatchOutcome"),
                ),
                (202, "The event is stored.", Answer::Json("Accepted")),
            ],
            refuses: &[Code::IdempotencyKeyReused, Code::Busy],
        },
        ("POST", "/api/v1/merchants") => Operation {
            id: "registerMerchant",
            tag: "Merchants",
            summary: "Registers a merchant.",
            query: &[],
            body: Some((
                "NewMerchant",
                json!({ "id": MERCHANT, "name": "Demo shop", "currency": "USD" }),
            )),
            answers: vec![
                (
                    200,
                    "It was registered like this before.",
                    Answer::Json("Merchant"),
                ),
                (201, "It is registered.", Answer::Json("Merchant")),
            ],
            refuses: &[Code::Conflict],
        },
        ("GET", "/api/v1/merchants/{merchant_id}") => {
            reading("getMerchant", "Merchants", "One merchant.", &[], "Merchant")
        }
        ("GET", "/api/v1/integrations") => reading(
            "listConnections",
            "Integrations",
            "A merchant's connections of all categories, and the providers that are offered.",
            &["merchant_id"],
            "ConnectionList",
        ),
        ("GET", "/api/v1/integrations/{category}") => reading(
            "listConnectionsOfCategory",
            "Integrations",
            "A merchant's connections of one category, and the providers that are offered.",
            &["merchant_id"],
            "ConnectionList",
        ),
        ("POST", "/api/v1/integrations/{category}/{provider}/connect") => link(
            "connect",
            "Makes a link that lets one browser connect the merchant to a provider.",
        ),
        ("POST", "/api/v1/integrations/{category}/{provider}/import") => Operation {
            id: "importConnection",
            tag: "Integrations",
            summary: "Makes a live connection of tokens or keys that the merchant brings along.",
            query: &[],
            body: Some((
                "ImportRequest",
                json!({
                    "merchant_id": MERCHANT,
                    "tokens": { "refresh_token": "placeholder", "tenant_id": "9341453908059321" },
                }),
            )),
            answers: vec![(201, "The connection.", Answer::Json("Connection"))],
            refuses: &[
                Code::Conflict,
                Code::Busy,
                Code::UpstreamFailed,
                Code::UpstreamRefused,
            ],
        },
        ("GET", "/api/v1/integrations/{category}/{connection_id}") => reading(
            "getConnection",
            "Integrations",
            "One connection.",
            &["merchant_id"],
            "Connection",
        ),
        ("GET", "/api/v1/integrations/{category}/{connection_id}/history") => reading(
            "getHistory",
            "Integrations",
            "What happened to a connection, oldest first.",
            &["merchant_id", "limit", "cursor"],
            "HistoryPage",
        ),
        ("GET", "/api/v1/integrations/{category}/{connection_id}/accounts") => Operation {
            refuses: ASKS_THE_COMPANY,
            ..reading(
                "getAccounts",
                "Integrations",
                "The accounts of the company, read at this moment, and which one is used for what.",
                &["merchant_id"],
                "Accounts",
            )
        },
        ("POST", "/api/v1/integrations/{category}/{connection_id}/confirm") => Operation {
            answers: vec![(
                200,
                "The connection, and where to send the user's browser to make it live.",
                Answer::Json("Confirmed"),
            )],
            ..connection(
                "confirm",
                "Confirms for a user of the backend's what that user's browser brought back. It may \
                 be sent again.",
                (
                    "ConfirmRequest",
                    json!({ "merchant_id": MERCHANT, "confirmation": "placeholder" }),
                ),
            )
        },
        ("POST", "/api/v1/integrations/{category}/{connection_id}/reconnect") => link(
            "reconnect",
            "Makes a link that repairs this connection; it keeps its id.",
        ),
        ("POST", "/api/v1/integrations/{category}/{connection_id}/check") => Operation {
            refuses: &[Code::Conflict, Code::Busy, Code::FeatureDisabled],
            ..connection(
                "check",
                "Asks the provider whether the access still works, and shows the connection as it is then. One that has to be connected again is tried too, and lives again if its tokens are taken.",
                ("PlainRequest", plain.clone()),
            )
        },
        ("POST", "/api/v1/integrations/{category}/{connection_id}/pause") => connection(
            "pause",
            "Stops sending. What happens meanwhile is sent once it is resumed.",
            ("PlainRequest", plain),
        ),
        ("POST", "/api/v1/integrations/{category}/{connection_id}/resume") => connection(
            "resume",
            "Takes a paused connection up again.",
            ("PlainRequest", plain),
        ),
        ("POST", "/api/v1/integrations/{category}/{connection_id}/disconnect") => Operation {
            refuses: &[
                Code::Busy,
                Code::UpstreamFailed,
                Code::UpstreamRefused,
                Code::FeatureDisabled,
            ],
            ..connection(
                "disconnect",
                "Gives the access back at the provider and destroys the tokens.",
                (
                    "DisconnectRequest",
                    json!({ "merchant_id": MERCHANT, "force": false }),
                ),
            )
        },
        ("PUT", "/api/v1/integrations/{category}/{connection_id}/settings") => Operation {
            // Accounts that are chosen are looked up.
            refuses: ASKS_THE_COMPANY,
            ..connection(
                "setSettings",
                "Replaces the settings of a connection.",
                (
                    "SettingsRequest",
                    json!({
                        "merchant_id": MERCHANT,
                        "settings": {
                            "label": "Books of the shop in Oslo", "records_from": TIME,
                            "conflicts": { "amounts": "shop_wins", "words": "provider_wins" },
                        },
                    }),
                ),
            )
        },
        ("GET", "/connect/{link}") => Operation {
            answers: vec![
                (
                    200,
                    "A form for the keys of a provider without consent page.",
                    Answer::Page,
                ),
                (303, "The provider's consent page.", Answer::Elsewhere),
            ],
            ..browser("openLink", "Opens a connect link.")
        },
        ("GET", "/oauth/proof/{secret}") => browser(
            "proveBrowser",
            "Takes the browser of a user whose backend has confirmed a connection, makes the \
             connection live if the consent was given in it, and sends it back to the shop.",
        ),
        ("GET", "/oauth/cb/{provider}/{tenant}") => browser(
            "takeBack",
            "Takes the browser back from the provider's consent.",
        ),
        ("POST", "/oauth/cb/{provider}/{tenant}") => browser(
            "postKeys",
            "Takes the form with the keys of a provider without consent page.",
        ),
        ("GET", "/hooks/{provider}/{tenant}") => Operation {
            id: "askForWebhooks",
            tag: PROVIDERS_TAG,
            summary: "Tells a provider that asks before it sends webhooks (Mailchimp) that they are taken here.",
            query: &[],
            body: None,
            answers: vec![(200, "They are taken here.", Answer::Empty)],
            refuses: &[Code::SignatureRefused, Code::NotFound, Code::Internal],
        },
        ("POST", "/hooks/{provider}/{tenant}") => Operation {
            id: "takeWebhook",
            tag: PROVIDERS_TAG,
            summary: "Takes a webhook of a provider, whose signature over the raw body is the proof; for Mailchimp it is `secret` in the query.",
            query: &[],
            body: None,
            answers: vec![(200, "It is in our queue, or was before.", Answer::Empty)],
            refuses: &[
                Code::SignatureRefused,
                Code::NotFound,
                Code::PayloadTooLarge,
                Code::UpstreamFailed,
                Code::Internal,
            ],
        },
        (method, path) => unreachable!("{method} {path} is a route and is not described here"),
    }
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn parameters() -> Value {
    let path = |name: &str, names: Option<&str>, schema: Value, example: &str| {
        let mut parameter = json!({
            "name": name, "in": "path", "required": true, "schema": schema, "example": example,
        });
        if let Some(names) = names {
            parameter["x-names"] = json!(names);
        }
        parameter
    };
    let providers: Vec<&str> = PROVIDERS.iter().map(|one| one.manifest().name).collect();
    let id = reference("Id");
    let text = json!({ "type": "string", "minLength": 1 });
    let longest = integrations::ENTRIES_MAX
        .min(super::webhooks::DELIVERIES_MAX)
        .min(super::records::RECORDS_MAX);
    let mut parameters = json!({
        "path_merchant_id": path("merchant_id", Some("merchant"), id.clone(), MERCHANT),
        "path_connection_id": path("connection_id", Some("connection"), id.clone(), CONNECTION),
        "path_endpoint_id": path("endpoint_id", Some("endpoint"), id.clone(), ENDPOINT),
        "path_category": path("category", None, reference("Category"), "accounting"),
        "path_provider": path(
            "provider", None, json!({ "type": "string", "enum": providers }), "quickbooks",
        ),
        "path_link": path("link", Some("secret"), text.clone(), "placeholder"),
        "path_secret": path("secret", Some("secret"), text.clone(), "placeholder"),
        "path_tenant": path("tenant", Some("deployment"), text, "placeholder"),
        "query_merchant_id": {
            "name": "merchant_id", "in": "query", "required": true, "schema": id,
            "example": MERCHANT, "x-names": "merchant",
        },
        "query_limit": {
            "name": "limit", "in": "query", "required": false, "example": 20,
            "description": "How many come on one page.",
            "schema": { "type": "integer", "minimum": 1, "maximum": longest, "default": 50 },
        },
        "query_cursor": {
            "name": "cursor", "in": "query", "required": false,
            "description": "The `next_cursor` of the page before; without it the list begins.",
            "schema": { "type": "string" },
        },
    });
    for more in [
        records::parameters(),
        books::parameters(),
        webhooks::parameters(),
    ] {
        if let (Value::Object(all), Value::Object(more)) = (&mut parameters, more) {
            all.extend(more);
        }
    }
    parameters
}

fn event_example() -> Value {
    json!({
        "id": EVENT, "type": EventType::OrderCreated, "merchant_id": MERCHANT, "occurred_at": TIME,
        "data": {
            "id": "1001", "version": 1, "number": "1001", "currency": "USD", "placed_at": TIME,
            "customer": { "id": "c-1", "name": "Ada Byron", "email": "ada@example.org" },
            "lines": [{
                "sku": "LAMP-01", "name": "Desk lamp", "quantity": "2", "unit_price": "10.00",
                "total": { "amount": 2000, "currency": "USD" },
            }],
            "total": { "amount": 2000, "currency": "USD" },
        },
    })
}

/// The words that `all` are written as.
fn words<T: Serialize>(all: impl IntoIterator<Item = T>) -> Value {
    json!({ "type": "string", "enum": all.into_iter().collect::<Vec<T>>() })
}

fn nullable(schema: Value) -> Value {
    json!({ "oneOf": [schema, { "type": "null" }] })
}

fn text(min: usize, max: usize) -> Value {
    json!({ "type": "string", "minLength": min, "maxLength": max })
}

fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

fn merchant_id() -> Value {
    let schema = reference("Id");
    json!({ "allOf": [schema], "x-names": "merchant" })
}

/// An object of `members`, which are all required but for `optional`, and no others.
fn object(members: Value, optional: &[&str]) -> Value {
    let required: Vec<&String> = members
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .filter(|name| !optional.contains(&name.as_str()))
        .collect();
    json!({
        "type": "object", "required": required, "properties": members,
        "additionalProperties": false,
    })
}

/// The same for what is answered: there may be more members one day.
fn answer(members: Value, optional: &[&str]) -> Value {
    let mut schema = object(members, optional);
    if let Some(members) = schema.as_object_mut() {
        members.remove("additionalProperties");
    }
    schema
}

fn list(of: &str) -> Value {
    json!({ "type": "array", "items": reference(of) })
}

fn page(of: &str) -> Value {
    answer(
        json!({
            "data": list(of),
            "has_more": { "type": "boolean" },
            "next_cursor": { "type": ["string", "null"] },
            "prev_cursor": { "type": "null" },
        }),
        &[],
    )
}

fn schemas() -> Value {
    let mut all = Map::new();
    for part in [
        common(),
        merchant_schemas(),
        event_schemas(),
        record_schemas(),
    ]
    .into_iter()
    .chain([connection_schemas(), request_schemas()])
    .chain([records::schemas(), books::schemas()])
    .chain([webhooks::schemas(), webhooks::catalogue()])
    {
        if let Value::Object(part) = part {
            all.extend(part);
        }
    }
    Value::Object(all)
}

fn common() -> Value {
    let max = EXTERNAL_ID_BYTES_MAX;
    json!({
        "Id": { "type": "string", "pattern": format!("^[A-Za-z0-9._:-]{{1,{max}}}$") },
        "Category": words(Category::ALL),
        "EventType": words(EventType::ALL),
        "Currency": {
            "type": "string", "pattern": "^[A-Z]{3}$",
            "description": "ISO 4217; what has no minor unit is not taken.",
        },
        "Money": object(json!({
            "amount": {
                "type": "integer", "minimum": -AMOUNT_MAX, "maximum": AMOUNT_MAX,
                "description": "Whole minor units.",
            },
            "currency": reference("Currency"),
        }), &[]),
        "Rate": {
            "type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$",
            "description": "A decimal number, as a string.",
        },
        "Health": answer(json!({ "status": { "const": "ok" } }), &[]),
        "FieldError": answer(json!({
            "pointer": { "type": "string", "description": "RFC 6901, as a fragment." },
            "code": { "type": "string" },
            "detail": { "type": "string" },
        }), &[]),
        "Problem": answer(json!({
            "type": { "type": "string", "format": "uri-reference" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string" },
            "code": words(Code::ALL.map(Code::as_str)),
            "request_id": { "type": "string" },
            "retryable": { "type": "boolean" },
            "errors": list("FieldError"),
        }), &["errors"]),
    })
}

fn merchant_schemas() -> Value {
    let name = text(1, merchants::NAME_CHARACTERS_MAX);
    json!({
        "NewMerchant": object(json!({
            "id": merchant_id(), "name": name, "currency": reference("Currency"),
        }), &[]),
        "Merchant": answer(json!({
            "id": merchant_id(), "name": name, "currency": reference("Currency"),
            "created_at": time(),
        }), &[]),
    })
}

fn event_schemas() -> Value {
    let sent = EventType::ALL.into_iter().filter(|kind| !kind.is_ours());
    json!({
        "Event": object(json!({
            "id": { "allOf": [reference("Id")], "description": "Also the idempotency key." },
            "type": words(sent),
            "merchant_id": merchant_id(),
            "occurred_at": time(),
            "data": { "oneOf": [
                reference("Order"), reference("Payment"), reference("Refund"),
                reference("Payout"), reference("Product"), reference("InventoryLevel"),
                reference("LowStock"), reference("User"),
            ] },
        }), &[]),
        "Batch": object(json!({
            "events": {
                "type": "array", "items": reference("Event"), "minItems": 1,
                "maxItems": events::BATCH_EVENTS_MAX,
            },
        }), &[]),
        "EventOrBatch": { "oneOf": [reference("Event"), reference("Batch")] },
        "RecordRef": answer(json!({ "type": words(RecordKind::ALL), "id": { "type": "string" } }), &[]),
        "Accepted": answer(json!({
            "id": reference("Id"),
            "status": { "const": "accepted" },
            "record": reference("RecordRef"),
            "applied": {
                "type": "boolean",
                "description": "Whether it changed its record, or came too late to matter.",
            },
            "accepted_at": time(),
        }), &[]),
        "Refused": answer(json!({
            "id": { "type": ["string", "null"] },
            "status": { "const": "refused" },
            "problem": reference("Problem"),
        }), &[]),
        "BatchOutcome": answer(json!({
            "accepted": { "type": "integer" },
            "refused": { "type": "integer" },
            "data": {
                "type": "array",
                "items": { "oneOf": [reference("Accepted"), reference("Refused")] },
            },
        }), &[]),
    })
}

fn record_schemas() -> Value {
    let money = || reference("Money");
    let named = || object(json!({ "name": text(0, 200), "amount": money() }), &[]);
    let lines = json!({ "type": "array", "items": reference("Line"), "maxItems": LINES_MAX });
    json!({
        "Customer": object(json!({
            "id": reference("Id"), "name": text(1, 400),
            "email": { "type": ["string", "null"] }, "phone": { "type": ["string", "null"] },
        }), &["email", "phone"]),
        "Line": object(json!({
            "sku": text(1, 100), "name": text(0, 4000), "quantity": reference("Rate"),
            "unit_price": reference("Rate"), "total": money(), "taxable": { "type": "boolean" },
            "gift_card": {
                "type": "boolean", "default": false,
                "description": "A gift card is sold: what it is worth is owed, and it is never taxed.",
            },
        }), &["taxable", "gift_card"]),
        "NamedAmount": named(),
        "Tax": object(json!({
            "name": text(0, 200), "rate": reference("Rate"), "amount": money(),
        }), &[]),
        "Order": object(json!({
            "id": reference("Id"),
            "version": { "type": "integer", "minimum": 1 },
            "number": text(1, 64),
            "currency": reference("Currency"),
            "placed_at": time(),
            "channel": {
                "type": ["string", "null"], "pattern": "^[a-z0-9_-]{1,20}$",
                "description": "Where it was placed, such as `web` or `pos`; `shop` where it is absent. \
                    Daily summaries are made for each. What the first version says counts.",
            },
            "customer": nullable(reference("Customer")),
            "lines": { "allOf": [lines], "minItems": 1 },
            "discounts": list("NamedAmount"),
            "shipping": nullable(reference("NamedAmount")),
            "taxes": list("Tax"),
            "prices_include_tax": { "type": "boolean" },
            "tip": {
                "oneOf": [money(), { "type": "null" }],
                "description": "Part of the total, and never taxed.",
            },
            "total": {
                "allOf": [money()],
                "description": "What the order costs. It does not go down when money goes back: that is \
                    an `order.refunded` event. What came in beyond it is owed to the customer, and \
                    refunds pay that back first.",
            },
        }), &["channel", "customer", "discounts", "shipping", "taxes", "prices_include_tax", "tip"]),
        "Payment": object(json!({
            "id": reference("Id"), "order_id": reference("Id"),
            "outcome": words([PaymentOutcome::Succeeded, PaymentOutcome::Failed]),
            "amount": money(), "processed_at": time(),
            "method": {
                "allOf": [text(1, 64)],
                "description": "`gift_card` redeems a gift card: what was owed is less, and no money \
                    came in.",
            },
        }), &[]),
        "Refund": object(json!({
            "id": reference("Id"), "order_id": nullable(reference("Id")),
            "customer": nullable(reference("Customer")), "amount": money(), "lines": lines,
            "shipping": nullable(money()), "tax": nullable(money()), "tip": nullable(money()),
            "prices_include_tax": {
                "type": "boolean", "default": false,
                "description": "Whether the lines and the shipping hold the tax.",
            },
            "method": {
                "oneOf": [text(1, 64), { "type": "null" }],
                "description": "`gift_card` when it goes back to a gift card, and no money out.",
            },
            "reason": { "type": ["string", "null"] }, "refunded_at": time(),
        }), &["order_id", "customer", "lines", "shipping", "tax", "tip", "prices_include_tax", "method", "reason"]),
        "Payout": object(json!({
            "id": reference("Id"),
            "version": { "type": "integer", "minimum": 1 },
            "currency": reference("Currency"),
            "paid_at": time(),
            "processor": {
                "type": "string", "pattern": "^[A-Za-z0-9._-]{1,50}$",
                "description": "A word such as `stripe`.",
            },
            "charges": money(), "refunds": money(),
            "fees": {
                "allOf": [money()],
                "description": "What the processor kept. A fee that is given back is an adjustment.",
            },
            "adjustments": {
                "type": "array", "items": reference("Adjustment"), "maxItems": ADJUSTMENTS_MAX,
            },
            "amount": {
                "allOf": [money()],
                "description": "What reached the bank: charges less refunds and fees plus adjustments. \
                    Below zero what the processor took from it.",
            },
        }), &["adjustments"]),
        "Adjustment": object(json!({
            "name": text(1, 200),
            "amount": {
                "allOf": [money()],
                "description": "Above zero what the processor gives, below what it takes.",
            },
        }), &[]),
        "Product": object(json!({
            "id": reference("Id"),
            "version": { "type": "integer", "minimum": 1 },
            "name": text(1, goods::NAME_CHARACTERS_MAX),
            "description": nullable(text(0, goods::DESCRIPTION_CHARACTERS_MAX)),
            "active": { "type": "boolean", "default": true, "description": "Whether it is for sale." },
            "variants": {
                "type": "array", "items": reference("Variant"), "minItems": 1,
                "maxItems": goods::VARIANTS_MAX,
            },
        }), &["description", "active"]),
        "Variant": object(json!({
            "sku": text(1, 100),
            "name": nullable(text(1, goods::NAME_CHARACTERS_MAX)),
            "price": money(),
            "barcode": nullable(text(1, goods::BARCODE_CHARACTERS_MAX)),
            "taxable": { "type": "boolean", "default": true },
        }), &["name", "barcode", "taxable"]),
        "InventoryLevel": object(json!({
            "sku": text(1, 100), "location": text(1, 100),
            "level": {
                "type": "integer",
                "description": "Below zero what was sold and is not there.",
            },
            "at": {
                "allOf": [time()],
                "description": "A later level of the same goods at the same place replaces an earlier.",
            },
        }), &[]),
        "LowStock": object(json!({
            "sku": text(1, 100), "location": text(1, 100), "level": { "type": "integer" },
            "threshold": { "type": "integer" }, "at": time(),
        }), &[]),
        "User": object(json!({
            "id": reference("Id"), "email": { "type": ["string", "null"] }, "created_at": time(),
        }), &["email"]),
    })
}

fn connection_schemas() -> Value {
    let status = [
        Status::Pending,
        Status::Live,
        Status::Paused,
        Status::ReauthRequired,
        Status::Disconnected,
    ];
    let happened = [
        Happened::ConsentGiven,
        Happened::Connected,
        Happened::Reconnected,
        Happened::Imported,
        Happened::RefreshFailed,
        Happened::ReauthRequired,
        Happened::Recovered,
        Happened::Paused,
        Happened::Resumed,
        Happened::SettingsChanged,
        Happened::Disconnected,
        Happened::FullCompare,
    ];
    let account = || text(1, integrations::ACCOUNT_CHARACTERS_MAX);
    let accounts = Role::ALL.map(|role| (role.as_str().to_owned(), account()));
    let accounts: Map<String, Value> = accounts.into_iter().collect();
    let mut listed = page("Account");
    listed["properties"]["used"] = list("UsedAccount");
    let mut connections = page("Connection");
    connections["properties"]["providers"] = list("Offer");
    json!({
        "Confirmed": answer(json!({
            "connection": reference("Connection"),
            "continue_url": {
                "type": ["string", "null"], "format": "uri",
                "description": "Send the browser of the user here: if the consent was given in it, \
                    the connection is live and the browser comes back to the return address. Null \
                    when that is done.",
            },
        }), &[]),
        "Connection": answer(json!({
            "id": { "allOf": [reference("Id")], "x-names": "connection" },
            "merchant_id": merchant_id(),
            "provider": { "type": "string" },
            "category": reference("Category"),
            "status": words(status),
            "label": { "type": "string" },
            "tenant_id": { "type": "string" },
            "tenant_name": { "type": ["string", "null"] },
            "scopes": { "type": "array", "items": { "type": "string" } },
            "settings": reference("Settings"),
            "postings": {
                "type": "array",
                "items": answer(json!({
                    "posting": words(Posting::ALL),
                    "from": { "type": "string", "format": "date" },
                }), &[]),
                "description": "How records are posted from which day (UTC) on, the earliest first. Before \
                    the first, each by itself.",
            },
            "health": {
                "oneOf": [
                    { "type": "string", "enum": ["unknown", "healthy", "failing"] },
                    { "type": "null" },
                ],
                "description": "How the latest call to the provider went, be it for its API or for tokens. \
                    Null once the connection is disconnected.",
            },
            "last_success_at": nullable(time()),
            "last_failure": nullable(reference("Trouble")),
            "next_refresh_at": nullable(time()),
            "trouble": nullable(reference("Trouble")),
            "created_at": time(),
            "updated_at": time(),
        }), &[]),
        "Settings": object(json!({
            "label": {
                "oneOf": [text(1, integrations::LABEL_CHARACTERS_MAX), { "type": "null" }],
                "description": "A name for people, where a merchant has several connections.",
            },
            "records_from": {
                "oneOf": [time(), { "type": "null" }],
                "description": "Orders placed, refunds made and payouts paid before are not sent.",
            },
            "orders_as": {
                "oneOf": [
                    { "type": "string", "enum": ["sales_receipt", "invoice"] },
                    { "type": "null" },
                ],
                "description": "What an order becomes in the books. A sales receipt is posted when the \
                    order is paid in full; an invoice is posted at once, and each payment settles its \
                    part. QuickBooks knows both and posts receipts unless told otherwise; Xero knows \
                    invoices. What stands in the books already stays what it is.",
            },
            "conflicts": object(json!({
                "amounts": winner("Lines, amounts, taxes, dates, currency and customer. The shop \
                    wins unless told otherwise."),
                "words": winner("Numbers and notes of documents. The provider wins unless told \
                    otherwise."),
            }), &["amounts", "words"]),
            "accounts": {
                "type": "object", "additionalProperties": false,
                "properties": Value::Object(accounts),
                "description": "The account for each role, by its id, in Xero also by its code; without \
                    one the default is used, which `getAccounts` shows. It counts for what is posted from \
                    then on. In QuickBooks an item keeps the account that it has: `sales` is the one \
                    that items get which are made from then on.",
            },
            "guest_customer": {
                "oneOf": [text(1, integrations::GUEST_CHARACTERS_MAX), { "type": "null" }],
                "description": "The name of the customer that guests are booked on, `Guest` unless told \
                    otherwise. Another name counts for orders that are placed from then on.",
            },
            "posting": {
                "allOf": [words(Posting::ALL)],
                "description": "`each`: every order and refund is posted by itself. `daily`: those of one \
                    day (UTC), channel and currency in one, once the day is over. A change counts from \
                    the next day on, and what was posted stays as it is. In QuickBooks a day is a \
                    sales receipt, whatever `orders_as` says.",
            },
            "posting_from": {
                "oneOf": [{ "type": "string", "format": "date" }, { "type": "null" }],
                "description": "The first day (UTC) for which `posting` counts, the next one unless told \
                    otherwise. A day that has begun is taken as long as nothing was sent to the \
                    connection.",
            },
            "daily_customer": {
                "oneOf": [text(1, integrations::GUEST_CHARACTERS_MAX), { "type": "null" }],
                "description": "The name of the customer of daily summaries, `Daily sales` unless told \
                    otherwise. Another name counts for days that begin from then on.",
            },
        }), &[
            "label", "records_from", "orders_as", "conflicts", "accounts", "guest_customer", "posting",
            "posting_from", "daily_customer",
        ]),
        "Accounts": listed,
        "Account": answer(json!({
            "id": { "type": "string" },
            "code": { "type": ["string", "null"] },
            "name": { "type": "string" },
            "type": { "type": "string", "description": "The provider's word." },
            "active": { "type": "boolean" },
            "currency": { "type": ["string", "null"] },
            "roles": { "type": "array", "items": words(Role::ALL) },
        }), &[]),
        "UsedAccount": answer(json!({
            "role": words(Role::ALL),
            "account_id": { "type": ["string", "null"] },
            "chosen": {
                "type": "boolean",
                "description": "Whether the settings name it; otherwise it is the default.",
            },
            "problem": nullable(answer(
                json!({ "code": { "type": "string" }, "detail": { "type": "string" } }), &[],
            )),
        }), &[]),
        "Trouble": answer(json!({
            "code": { "type": "string" }, "detail": { "type": "string" }, "at": time(),
        }), &[]),
        "Offer": answer(json!({
            "provider": { "type": "string" }, "title": { "type": "string" },
            "category": reference("Category"), "connects_by": words(["oauth", "keys"]),
        }), &[]),
        "ConnectionList": connections,
        "ConnectLink": answer(json!({
            "id": reference("Id"), "url": { "type": "string", "format": "uri" },
            "expires_at": time(),
        }), &[]),
        "HistoryEntry": answer(json!({
            "id": { "type": "string", "format": "uuid" }, "at": time(), "what": words(happened),
            "detail": { "type": "string" },
        }), &[]),
        "HistoryPage": page("HistoryEntry"),
    })
}

/// Who wins when the shop and the provider say different things of some fields.
fn winner(fields: &str) -> Value {
    let mut winner = words(Winner::ALL);
    winner["description"] = json!(format!(
        "Who wins where a document that stands there was changed there by somebody else. {fields}"
    ));
    winner
}

fn request_schemas() -> Value {
    let secret = json!({ "type": "string", "writeOnly": true });
    let optional = json!({ "type": ["string", "null"], "writeOnly": true });
    json!({
        "ConnectRequest": object(json!({
            "merchant_id": merchant_id(), "return_url": { "type": "string", "format": "uri" },
        }), &[]),
        "ConfirmRequest": object(json!({
            "merchant_id": merchant_id(), "confirmation": secret,
        }), &[]),
        "PlainRequest": object(json!({ "merchant_id": merchant_id() }), &[]),
        "DisconnectRequest": object(json!({
            "merchant_id": merchant_id(),
            "force": {
                "type": "boolean", "default": false,
                "description": "Disconnects also when the provider cannot be told.",
            },
        }), &["force"]),
        "SettingsRequest": object(json!({
            "merchant_id": merchant_id(), "settings": reference("Settings"),
        }), &[]),
        "ImportRequest": object(json!({
            "merchant_id": merchant_id(),
            "tokens": object(json!({
                "access_token": optional.clone(),
                "refresh_token": optional,
                "keys": {
                    "type": "object", "additionalProperties": secret,
                    "description": "Keys, by the names of the provider's fields.",
                },
                "tenant_id": {
                    "type": ["string", "null"],
                    "description": "The account, needed for a provider that does not tell it. Where it is named, what was brought has to be of it.",
                },
            }), &["access_token", "refresh_token", "keys", "tenant_id"]),
        }), &[]),
    })
}
