//! Every request that the engine makes of Xero, held against the vendor's own OpenAPI document: the path,
//! the parameters, and of a body each member. (What goes to QuickBooks is held against Intuit's schema by
//! the stand-in itself.)
//!
//! The document is not part of this repository: `CROSSDOCK_SPECS` names the folder that holds `xero/`, which
//! is `../shared/specs` beside the checkout by default.

use crate::books::{compare_all, work};
use crate::run::{Books, Job, Run, alone, merchant};
use crate::shop::{Shop, Size};
use chrono::NaiveDate;
use crossdock::engine::pull::{self, PullNotice};
use crossdock::oauth::connection::Posting;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const BASE: &str = "/api.xro/2.0";

#[expect(
    clippy::disallowed_methods,
    reason = "it belongs to this test alone: where the vendor's documents are"
)]
fn document() -> Option<Value> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/specs");
    let folder = std::env::var("CROSSDOCK_SPECS").map_or(beside, PathBuf::from);
    let path = folder.join("xero/xero_accounting.yaml");
    let text = std::fs::read_to_string(path).ok()?;
    Some(serde_yaml_ng::from_str(&text).expect("the document is YAML"))
}

/// Lets each element hold what the document gives it, and nothing else.
fn strict(document: &mut Value) {
    let schemas = document["components"]["schemas"].as_object_mut().unwrap();
    for schema in schemas.values_mut() {
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            // What only the vendor sets is not sent.
            properties.retain(|_, property| property["readOnly"] != true);
            schema["additionalProperties"] = json!(false);
        }
    }
}

struct Document {
    value: Value,
}

impl Document {
    fn operation(&self, method: &str, path: &str) -> Option<(&Map<String, Value>, &Value)> {
        let asked: Vec<&str> = path.split('/').collect();
        let fits = |template: &str| {
            let parts: Vec<&str> = template.split('/').collect();
            let same = |(part, asked): (&&str, &&str)| part.starts_with('{') || part == asked;
            parts.len() == asked.len() && parts.iter().zip(&asked).all(same)
        };
        let paths = self.value["paths"].as_object()?.iter();
        let mut found = paths.filter(|(template, _)| fits(template));
        let (_, item) = found.find(|(_, item)| item.get(method).is_some())?;
        Some((item.as_object()?, &item[method]))
    }

    /// What is wrong with a request.
    fn problems(&self, request: &axum::http::Request<Vec<u8>>) -> Vec<String> {
        let method = request.method().as_str().to_lowercase();
        let path = request.uri().path().strip_prefix(BASE).unwrap_or_default();
        let Some((item, operation)) = self.operation(&method, path) else {
            return vec![format!("there is no {method} {path}")];
        };
        let mut problems = Vec::new();
        let known: BTreeSet<String> = [item.get("parameters"), operation.get("parameters")]
            .into_iter()
            .flatten()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(|parameter| {
                let named = parameter["$ref"].as_str().and_then(|place| {
                    let name = place.rsplit('/').next()?;
                    self.value["components"]["parameters"].get(name)
                });
                let parameter = named.unwrap_or(parameter);
                (parameter["in"] == "query")
                    .then(|| parameter["name"].as_str().map(str::to_owned))?
            })
            .collect();
        let query = request.uri().query().unwrap_or_default();
        for (name, _) in url::form_urlencoded::parse(query.as_bytes()) {
            if !known.contains(&*name) {
                problems.push(format!("{method} {path} has no parameter {name}"));
            }
        }
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        match (request.body().is_empty(), schema.is_null()) {
            (true, true) => {}
            (true, false) => problems.push(format!("{method} {path} wants a body")),
            (false, true) => problems.push(format!("{method} {path} takes no body")),
            (false, false) => {
                let mut root = schema.clone();
                root["components"] = self.value["components"].clone();
                let validator = jsonschema::validator_for(&root).expect("a schema");
                let body: Value = serde_json::from_slice(request.body()).expect("JSON");
                for error in validator.iter_errors(&body) {
                    let place = error.instance_path().to_string();
                    problems.push(format!("{method} {path} {place}: {error}: {body}"));
                }
            }
        }
        problems
    }
}

/// What the engine asks of Xero in stories of every kind.
fn requests() -> Vec<axum::http::Request<Vec<u8>>> {
    let mut all = Vec::new();
    let days = |run: &mut Run| {
        let day = |day| NaiveDate::from_ymd_opt(2026, 1, day).unwrap();
        compare_all(run, day(1), day(3));
    };
    for seed in 1..=12 {
        let mut run = Run::of(seed, Books::Xero, |dice| match seed % 4 {
            0 => Shop::paid_out(dice, Books::Xero),
            1 => Shop::with_channels(dice, Size::Large, Books::Xero, true),
            2 => Shop::changed_and_paid(dice),
            _ => Shop::sized(dice, Size::Large, Books::Xero),
        });
        run.world.state().requests = Some(Vec::new());
        if seed % 4 == 1 {
            run.post(Posting::Daily, Posting::Daily);
        }
        for index in std::mem::take(&mut run.unsent) {
            run.whole(Job::Accept(vec![index]));
            run.drain();
        }
        run.whole(Job::Plan);
        work(&mut run, None);
        days(&mut run);
        let connection = run.connection();
        let notice = PullNotice {
            merchant_id: merchant(),
            connection_id: connection.id,
            at: run.ctx.now(),
            noted: false,
        };
        alone(pull::run(&run.ctx, &notice)).unwrap();
        all.extend(run.world.state().requests.take().unwrap());
    }
    all.retain(|request| request.uri().path().starts_with(BASE));
    all
}

#[test]
fn every_request_is_one_of_xeros_document() {
    let Some(mut value) = document() else {
        println!(
            "Xero's OpenAPI document is not here (CROSSDOCK_SPECS), so no request was held against it"
        );
        return;
    };
    strict(&mut value);
    let document = Document { value };
    let (mut problems, mut kinds) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for request in requests() {
        let mut name = request
            .uri()
            .path()
            .split('/')
            .nth(3)
            .unwrap_or_default()
            .to_owned();
        name.insert_str(0, &format!("{} ", request.method()));
        *kinds.entry(name).or_default() += 1;
        problems.extend(document.problems(&request));
    }
    println!("requests by kind: {kinds:?}");
    assert_eq!(problems, BTreeSet::new());
    for kind in [
        "PUT Invoices",
        "POST Invoices",
        "PUT Payments",
        "PUT CreditNotes",
        "PUT Contacts",
        "PUT BankTransfers",
        "PUT BankTransactions",
        "GET Invoices",
        "GET Payments",
    ] {
        assert!(kinds.contains_key(kind), "no story makes {kind}: {kinds:?}");
    }
}
