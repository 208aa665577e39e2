//! `docs/openapi.json` against the code and against itself. After a change of the API,
//! `CROSSDOCK_UPDATE=1 cargo test --workspace --test tidy openapi` writes it anew.

use crate::repository::{none, read, root};
use crossdock::api::{openapi, routes::ROUTES};
use crossdock::model::event::EventType;
use crossdock::model::notice::StoredEvent;
use crossdock::webhooks::{deliver, samples};
use serde_json::Value;
use std::collections::BTreeSet;

const PATH: &str = "docs/openapi.json";
/// What a value may name. `tests/it/manage.rs` tries each of the first three across merchants; a record is
/// named by its merchant and looked for at a connection, which is tried.
const NAMES: [&str; 6] = [
    "merchant",
    "connection",
    "endpoint",
    "record",
    "secret",
    "deployment",
];

fn committed() -> Value {
    serde_json::from_str(&read(PATH)).expect("the committed document is JSON")
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the variable belongs to this test alone"
)]
fn the_committed_document_is_what_the_code_says() {
    let text = serde_json::to_string_pretty(&openapi::document()).expect("JSON") + "\n";
    if std::env::var("CROSSDOCK_UPDATE").is_ok() {
        std::fs::write(root().join(PATH), &text).expect("it is written");
    }
    assert!(
        read(PATH) == text,
        "{PATH} is not what shared/src/api/openapi.rs says; write it anew with \
         CROSSDOCK_UPDATE=1 cargo test --workspace --test tidy openapi"
    );
}

/// Each operation with its method and path.
fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            found.push((method.to_uppercase(), path.clone(), operation));
        }
    }
    found
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let document = committed();
    let described: BTreeSet<String> = operations(&document)
        .iter()
        .map(|(method, path, _)| format!("{method} {path}"))
        .collect();
    let served: BTreeSet<String> = ROUTES
        .iter()
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described, served, "described (left) and served (right)");
}

#[test]
fn every_operation_says_what_it_takes_and_refuses() {
    let document = committed();
    let mut wrong = Vec::new();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let mut fault = |what: &str| wrong.push(format!("{method} {path}: {what}"));
        if !ids.insert(operation["operationId"].to_string()) {
            fault("its operationId stands twice");
        }
        let responses = operation["responses"].as_object().expect("responses");
        let secured = path.starts_with("/api/v1/") && path != "/api/v1/openapi.json";
        // The document's own security holds where an operation does not say otherwise.
        if secured != operation["security"].is_null() {
            fault("the key");
        }
        if secured && !(responses.contains_key("401") && responses.contains_key("500")) {
            fault("401 and 500 are missing");
        }
        if secured && method != "GET" && operation["requestBody"].is_null() {
            fault("its body");
        }
        for (status, response) in responses {
            let browser = operation["tags"][0] == "Browser";
            let refusal = status.starts_with(['4', '5']) && !browser;
            let problem = &response["content"]["application/problem+json"];
            if refusal == problem.is_null() {
                fault(&format!("{status} is no problem document"));
            }
        }
    }
    none("operations", wrong);
}

/// What a caller fills in either is one of a list, or says what it names, so that a new operation
/// with an id cannot slip past the tests that try ids of others.
#[test]
fn every_parameter_of_a_path_says_what_it_names() {
    let document = committed();
    let parameters = document["components"]["parameters"].as_object();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, parameter) in parameters.expect("parameters") {
        if parameter["in"] != "path" {
            continue;
        }
        seen += 1;
        let chosen = !parameter["schema"]["enum"].is_null()
            || parameter["schema"]["$ref"] == "#/components/schemas/Category";
        let named = parameter["x-names"]
            .as_str()
            .is_some_and(|names| NAMES.contains(&names));
        if chosen == named {
            wrong.push(name.clone());
        }
    }
    assert!(seen > 5, "only {seen} were read");
    none("parameters that say nothing", wrong);
}

/// The schema at `at` of the document, with all that it refers to.
fn validator(document: &Value, at: &str) -> jsonschema::Validator {
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/components/schemas/{at}"),
        "components": document["components"],
    });
    jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{at}: {error}"))
}

/// A webhook of each type is what the catalogue says of it, and is not what it says of another.
#[test]
fn what_endpoints_are_told_is_what_the_catalogue_says() {
    let document = committed();
    for kind in EventType::ALL {
        let (record, id, data) = samples::data(kind);
        let event: StoredEvent = serde_json::from_value(serde_json::json!({
            "id": "e-1", "type": kind, "merchant_id": "demo", "data": data, "fingerprint": "",
            "occurred_at": "2026-11-30T12:00:00Z", "accepted_at": "2026-11-30T12:00:00Z",
            "record": { "type": record, "id": id }, "applied": true,
            "place": { "key": "k", "n": 1, "previous_id": null },
        }))
        .expect("an event");
        let told = document["webhooks"][kind.as_str()]["post"]["requestBody"]["content"]
            ["application/json"]["schema"]["$ref"]
            .as_str()
            .expect("a reference");
        let schema = told.rsplit('/').next().expect("a last part");
        let validator = validator(&document, schema);
        for thin in [false, true] {
            let body = serde_json::from_slice(&deliver::body(&event, thin)).expect("JSON");
            let faults: Vec<String> = validator
                .iter_errors(&body)
                .map(|error| error.to_string())
                .collect();
            assert!(faults.is_empty(), "{schema}: {faults:?}");
            let mut other: Value = body;
            other["type"] = Value::from("another.type");
            assert!(!validator.is_valid(&other), "{schema} takes another type");
            other["type"] = Value::from(kind.as_str());
            if !thin {
                other["data"] = serde_json::json!({ "colour": "red" });
                assert!(!validator.is_valid(&other), "{schema} takes any data");
            }
        }
    }
}

#[test]
fn every_example_is_what_its_schema_says() {
    let document = committed();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (method, path, operation) in operations(&document) {
        let content = &operation["requestBody"]["content"]["application/json"];
        let Some(reference) = content["schema"]["$ref"].as_str() else {
            continue;
        };
        seen += 1;
        let schema = reference.rsplit('/').next().expect("a last part");
        for error in validator(&document, schema).iter_errors(&content["example"]) {
            wrong.push(format!("{method} {path}: {error}"));
        }
    }
    assert!(seen > 8, "only {seen} were read");
    none("examples", wrong);
    let problem = serde_json::json!({ "type": "/docs/errors#x", "status": 200 });
    assert!(!validator(&document, "Problem").is_valid(&problem));
}
