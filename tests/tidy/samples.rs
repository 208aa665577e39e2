//! `events/<function>/<case>.json`: each is a sample to call a function with by hand, and is read here
//! as the function reads it.

use crate::repository::{File, files, none};
use crate::stack_template::{function_names, routes};
use aws_lambda_events::dynamodb;
use aws_lambda_events::eventbridge::EventBridgeEvent;
use aws_lambda_events::sqs::SqsEvent;
use crossdock::engine::pull::PullNotice;
use crossdock::engine::reconcile::ReconcileNotice;
use crossdock::engine::refresh::DueNotice;
use crossdock::engine::rotation::Rotation;
use crossdock::model::notice::{DeliveryNotice, HookNotice, Notice, RetryNotice};
use crossdock::store::dynamo::stream_document;
use lambda_http::request::RequestContext;
use lambda_http::{Body, RequestExt};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;

/// What a function takes.
enum Shape {
    Http,
    /// SQS messages, each an event of our bus around a notice.
    Notices,
    /// SQS messages, each a delivery to make.
    Deliveries,
    /// SQS messages, each a delivery to make again, or a page of those.
    Retries,
    /// SQS messages, each a tick of the schedule.
    Ticks,
    /// SQS messages, each about connections that are due.
    Due,
    /// SQS messages, each a day to compare.
    Days,
    /// SQS messages, each a webhook of a provider.
    Hooks,
    /// SQS messages, each about a connection of which changes are to be read.
    Pulls,
    /// SQS messages, each a step of a rotation.
    Rotations,
    /// Rows of the outbox's stream.
    Rows,
}

fn shape(function: &str) -> Option<Shape> {
    Some(match function {
        "webhook_fanout" => Shape::Notices,
        sync if sync.starts_with("sync_") => Shape::Notices,
        "webhook_deliver" | "webhook_slow" => Shape::Deliveries,
        "webhook_retry" => Shape::Retries,
        "outbox_sweep" | "refresh_plan" | "pull_plan" | "reconcile_plan" | "webhook_plan" => {
            Shape::Ticks
        }
        "reconcile_run" => Shape::Days,
        "refresh_run" => Shape::Due,
        "vault_rotate" => Shape::Rotations,
        "hooks_apply" => Shape::Hooks,
        "pull_run" => Shape::Pulls,
        "outbox_relay" => Shape::Rows,
        http if !routes(http).is_empty() => Shape::Http,
        _ => return None,
    })
}

fn samples() -> Vec<File> {
    files("events")
}

/// `events/api_events/batch.json` is a sample of `api_events`.
fn function(sample: &File) -> &str {
    sample.path.split('/').nth(1).unwrap_or_default()
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

fn http(function: &str, text: &str) -> Result<(), String> {
    let request = lambda_http::request::from_str(text).map_err(|error| error.to_string())?;
    let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
        return Err("this is not payload format 2.0 of an HTTP API".to_owned());
    };
    let route = context.route_key.clone().unwrap_or_default();
    // It stands twice, and the function reads only one.
    if parse::<Value>(text)?["routeKey"] != route {
        return Err(format!("{route} is not the route at the top"));
    }
    if !routes(function).contains(&route) {
        return Err(format!("{function} does not serve {route}"));
    }
    if let Some((method, pattern)) = route.split_once(' ') {
        let (path, parts) = (request.uri().path(), pattern.split('/'));
        let same = path.split('/').count() == parts.clone().count()
            && path
                .split('/')
                .zip(parts)
                .all(|(a, b)| b.starts_with('{') || a == b);
        if !same || request.method().as_str() != method {
            return Err(format!("{} {path} is not {route}", request.method()));
        }
    }
    let key = request.headers().get("authorization");
    if key.is_some_and(|key| key != "Bearer placeholder") {
        return Err("the key is to be `placeholder`, which is refused".to_owned());
    }
    let form = request.headers().get("content-type");
    let form = form.is_some_and(|kind| kind == "application/x-www-form-urlencoded");
    match request.body() {
        Body::Text(_) if form => Ok(()),
        Body::Text(body) => parse::<Value>(body).map(drop),
        _ => Ok(()),
    }
}

fn messages(text: &str, check: impl Fn(&str) -> Result<(), String>) -> Result<(), String> {
    let event: SqsEvent = parse(text)?;
    if event.records.is_empty() {
        return Err("no message".to_owned());
    }
    let mut ids = BTreeSet::new();
    for message in event.records {
        if !ids.insert(message.message_id.ok_or("a message without an id")?) {
            return Err("two messages with one id".to_owned());
        }
        check(&message.body.ok_or("a message without a body")?)?;
    }
    Ok(())
}

fn notice(body: &str) -> Result<(), String> {
    let event: EventBridgeEvent<Notice> = parse(body)?;
    if event.source != crossdock::bus::SOURCE {
        return Err(format!("{} is not our source", event.source));
    }
    if event.detail_type != event.detail.kind.as_str() {
        return Err(format!("{} is not the type inside", event.detail_type));
    }
    Ok(())
}

fn tick(body: &str) -> Result<(), String> {
    let event: EventBridgeEvent<Value> = parse(body)?;
    if event.source != "aws.events" {
        return Err(format!("{} is no schedule", event.source));
    }
    Ok(())
}

fn rows(text: &str) -> Result<(), String> {
    let event: dynamodb::Event = parse(text)?;
    if event.records.is_empty() {
        return Err("no record".to_owned());
    }
    // The function reads the raw JSON, so the sample is judged as such too.
    let raw: Value = parse(text)?;
    for record in raw["Records"].as_array().into_iter().flatten() {
        let document = stream_document(&record["dynamodb"]["NewImage"]);
        let document = document.ok_or("a row without a document")?;
        serde_json::from_value::<Notice>(document).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn check(sample: &File) -> Result<(), String> {
    let (function, text) = (function(sample), sample.text.as_str());
    match shape(function) {
        None => Err(format!("no function is named {function}")),
        Some(Shape::Http) => http(function, text),
        Some(Shape::Notices) => messages(text, notice),
        Some(Shape::Deliveries) => messages(text, |body| parse::<DeliveryNotice>(body).map(drop)),
        Some(Shape::Retries) => messages(text, |body| parse::<RetryNotice>(body).map(drop)),
        Some(Shape::Ticks) => messages(text, tick),
        Some(Shape::Due) => messages(text, |body| parse::<DueNotice>(body).map(drop)),
        Some(Shape::Rotations) => messages(text, |body| parse::<Rotation>(body).map(drop)),
        Some(Shape::Days) => messages(text, |body| parse::<ReconcileNotice>(body).map(drop)),
        Some(Shape::Hooks) => messages(text, |body| parse::<HookNotice>(body).map(drop)),
        Some(Shape::Pulls) => messages(text, |body| parse::<PullNotice>(body).map(drop)),
        Some(Shape::Rows) => rows(text),
    }
}

#[test]
fn every_function_has_a_sample() {
    let samples = samples();
    let sampled: BTreeSet<&str> = samples.iter().map(function).collect();
    let missing = function_names()
        .into_iter()
        .filter(|name| !sampled.contains(name))
        .map(str::to_owned);
    none("functions without a sample", missing.collect());
}

#[test]
fn every_sample_is_what_its_function_takes() {
    let mut wrong = Vec::new();
    for sample in samples() {
        let named = sample.path.split('/').count() == 3 && sample.path.ends_with(".json");
        if !named {
            wrong.push(format!("{} is not <function>/<case>.json", sample.path));
        } else if let Err(error) = check(&sample) {
            wrong.push(format!("{}: {error}", sample.path));
        }
    }
    none("samples", wrong);
}

/// A word that could open something: long and of mixed kinds, or with a beginning that names a key.
fn is_secret(word: &str) -> bool {
    const BEGINNINGS: [&str; 7] = ["whsec_", "AKIA", "ASIA", "eyJ", "sk_", "ghp_", "xox"];
    let mixed = word.bytes().any(|b| b.is_ascii_digit())
        && word.bytes().any(|b| b.is_ascii_lowercase())
        && word.bytes().any(|b| b.is_ascii_uppercase());
    BEGINNINGS
        .iter()
        .any(|beginning| word.starts_with(beginning))
        || word.len() >= 24 && mixed
        || word.len() >= 40
}

#[test]
fn no_sample_holds_a_secret() {
    let mut wrong = Vec::new();
    for sample in samples() {
        for (number, line) in sample.lines() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"_+/=".contains(c));
            // Paths have slashes as base64 has, but short parts.
            let secret = words
                .filter(|word| is_secret(word))
                .any(|word| word.split('/').any(is_secret) || !word.contains('/'));
            if secret {
                wrong.push(format!("{}:{number}", sample.path));
            }
        }
    }
    none("values that look like secrets", wrong);
    assert!(is_secret(concat!(
        "whsec_",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    )));
    assert!(is_secret("q8Zk3vN0tXw7Rb2LmYc5UfHd1JsGpEa9"));
    assert!(!is_secret("crossdock"));
}
