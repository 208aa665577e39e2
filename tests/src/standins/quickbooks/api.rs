//! The accounting API under `/v3/company/{realmId}`.

use axum::http::{HeaderMap, Method};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::books::{Books, Options, entity_named, stamp_millis};
use super::fault::{Fault, gateway_json, gateway_xml, throttled};
use super::limits::{Limits, Traffic};
use super::oauth::{self, Refusal};
use super::query;
use super::state::{Change, State, Stored, Write};
use crate::standins::wire::{JSON, Params, Reply, json_reply, param, reply};

const BATCH_LIMIT: usize = 30;
const CDC_LIMIT: usize = 1000;

pub struct Call<'a> {
    pub method: &'a Method,
    /// What follows `/v3/company/`.
    pub path: &'a str,
    pub params: &'a Params,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub now: DateTime<Utc>,
}

pub fn serve(state: &mut State, limits: &Limits, traffic: &mut Traffic, call: &Call<'_>) -> Reply {
    let time = stamp_millis(call.now);
    let mut segments = call.path.split('/').filter(|segment| !segment.is_empty());
    let realm = segments.next().unwrap_or_default();
    let rest: Vec<&str> = segments.collect();
    let grant = match oauth::bearer(state, call.headers, call.now.timestamp()) {
        Ok(grant) => grant,
        Err(refusal) => return unauthorized(&refusal, &time),
    };
    if grant.realm != realm || !state.companies.contains_key(realm) {
        return gateway_json(
            403,
            "ApplicationAuthorizationFailed",
            "The application is not authorized for this company",
            "3100",
            "AUTHORIZATION",
            &time,
        );
    }
    let client = grant.client_id.clone();
    let batch = rest.first() == Some(&"batch");
    if !traffic.admit(limits, realm, &client, batch, call.now.timestamp_millis()) {
        return throttled(limits.retry_after, &time);
    }
    let request_id = param(call.params, "requestid")
        .filter(|_| *call.method == Method::POST && rest.first() != Some(&"query"));
    if let Some(id) = request_id {
        if id.is_empty() || id.chars().count() > 50 {
            let fault = Fault::new(
                "2130",
                "Invalid Request Id Format",
                format!("Invalid Request Id Format. Supplied value:{id}"),
            );
            return fault_reply(&fault, &time);
        }
        if let Some(stored) = state.companies[realm].answers.get(id) {
            return reply(stored.status, JSON, stored.body.clone());
        }
    }
    let mut books = Books {
        state,
        realm,
        now: call.now,
    };
    let (status, mut body) = match answer(&mut books, &rest, call) {
        Ok(body) => (200, body),
        Err(fault) => (400, Map::from_iter([("Fault".to_owned(), fault.body())])),
    };
    body.insert("time".to_owned(), json!(time));
    let body = Value::Object(body).to_string();
    if let Some(id) = request_id {
        state.record(Change::Answer {
            realm: realm.to_owned(),
            request_id: id.to_owned(),
            stored: Stored {
                status,
                body: body.clone(),
            },
        });
    }
    reply(status, JSON, body)
}

fn fault_reply(fault: &Fault, time: &str) -> Reply {
    json_reply(400, &json!({"Fault": fault.body(), "time": time}))
}

/// An expired or unknown token is answered in the gateway's JSON, a missing or a revoked one in
/// its XML, whatever the caller accepts: callers meet both.
fn unauthorized(refusal: &Refusal, time: &str) -> Reply {
    let name = "AuthenticationFailed";
    match refusal {
        Refusal::Missing => gateway_xml(
            401,
            "message=AuthenticationFailed; errorCode=003200; statusCode=401",
            "Missing Authorization header",
            "100",
            "AuthenticationFault",
            time,
        ),
        Refusal::Revoked => gateway_xml(
            401,
            "message=AuthenticationFailed; errorCode=003200; statusCode=401",
            "Token revoked",
            "3200",
            "AUTHENTICATION",
            time,
        ),
        Refusal::Malformed => gateway_json(
            401,
            name,
            "Malformed bearer token: too short or too long",
            "3200",
            "AUTHENTICATION",
            time,
        ),
        Refusal::Expired => {
            gateway_json(401, name, "Token expired", "3200", "AUTHENTICATION", time)
        }
    }
}

fn answer(
    books: &mut Books<'_>,
    path: &[&str],
    call: &Call<'_>,
) -> Result<Map<String, Value>, Fault> {
    let read = *call.method == Method::GET;
    match (path, read) {
        (["query"], read) => {
            let statement = if read {
                param(call.params, "query").unwrap_or_default().to_owned()
            } else {
                String::from_utf8_lossy(call.body).into_owned()
            };
            Ok(one("QueryResponse", query::run(books, &statement)?))
        }
        (["batch"], false) => batch(books, call.body),
        (["cdc"], true) => changes(books, call.params),
        (["preferences"], true) => Ok(one("Preferences", books.read("Preferences", "1")?)),
        ([name], false) => {
            let entity = known(name)?;
            let body = parse(call.body)?;
            let operation = param(call.params, "operation");
            let include = param(call.params, "include");
            Ok(one(
                entity,
                write(books, entity, operation, include, &body)?,
            ))
        }
        ([name, id], true) => {
            let entity = known(name)?;
            Ok(one(entity, books.read(entity, id)?))
        }
        _ => Err(Fault::unsupported(&path.join("/"))),
    }
}

fn one(name: &str, value: Value) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value)])
}

fn known(name: &str) -> Result<&'static str, Fault> {
    entity_named(name).ok_or_else(|| {
        Fault::new(
            "2000",
            "Invalid or unsupported object name",
            format!("Object Name:{name} is invalid or unsupported"),
        )
    })
}

fn parse(body: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(body).map_err(|error| {
        Fault::new(
            "2010",
            "Request has invalid or unsupported property",
            format!("Property Name:{error} specified is unsupported or invalid"),
        )
    })
}

fn write(
    books: &mut Books<'_>,
    entity: &'static str,
    operation: Option<&str>,
    include: Option<&str>,
    body: &Value,
) -> Result<Value, Fault> {
    books.state.remember_write(Write {
        realm: books.realm.to_owned(),
        entity: entity.to_owned(),
        body: body.clone(),
    });
    let options = Options {
        allow_duplicate_doc_number: include == Some("allowduplicatedocnum"),
    };
    match operation.unwrap_or_default() {
        "delete" => books.delete(entity, body),
        "void" => books.void(entity, body),
        "update" if include == Some("void") => books.void(entity, body),
        "" | "create" | "update" => books.save(entity, body, options),
        other => Err(Fault::unsupported(other)),
    }
}

fn batch(books: &mut Books<'_>, body: &[u8]) -> Result<Map<String, Value>, Fault> {
    let body = parse(body)?;
    let items = body["BatchItemRequest"]
        .as_array()
        .ok_or_else(|| Fault::missing("BatchItemRequest"))?;
    if items.len() > BATCH_LIMIT {
        return Err(Fault::new(
            "1040",
            "Batch size exceeds allowed limit",
            format!("The number of items in the batch exceeds the limit of {BATCH_LIMIT}"),
        ));
    }
    let answers = items
        .iter()
        .map(|item| {
            let mut answer = match batch_item(books, item) {
                Ok(answer) => answer,
                Err(fault) => one("Fault", fault.body()),
            };
            answer.insert("bId".to_owned(), item["bId"].clone());
            Value::Object(answer)
        })
        .collect();
    Ok(one("BatchItemResponse", Value::Array(answers)))
}

fn batch_item(books: &mut Books<'_>, item: &Value) -> Result<Map<String, Value>, Fault> {
    let fields = item.as_object().ok_or_else(|| Fault::missing("bId"))?;
    if let Some(statement) = item["Query"].as_str() {
        return Ok(one("QueryResponse", query::run(books, statement)?));
    }
    if item["bId"].as_str().is_none_or(str::is_empty) {
        return Err(Fault::missing("bId"));
    }
    let operation = item["operation"]
        .as_str()
        .ok_or_else(|| Fault::missing("operation"))?;
    let include = item["optionsData"].as_str();
    let (name, body) = fields
        .iter()
        .find(|(name, _)| !matches!(name.as_str(), "bId" | "operation" | "optionsData"))
        .ok_or_else(|| Fault::missing("IntuitObject"))?;
    let entity = known(name)?;
    let named = body["Id"].as_str().is_some();
    match operation {
        "create" if named => Err(Fault::new(
            "2600",
            "Invalid Request Conflict Element in Request",
            "An Id was given for an object that is to be created",
        )),
        "update" | "delete" | "void" if !named => Err(Fault::missing("Id")),
        _ => Ok(one(
            entity,
            write(books, entity, Some(operation), include, body)?,
        )),
    }
}

/// What changed since a moment: whole objects, and stubs of those that were deleted.
fn changes(books: &Books<'_>, params: &Params) -> Result<Map<String, Value>, Fault> {
    let named = param(params, "entities").ok_or_else(|| Fault::missing("entities"))?;
    let since = param(params, "changedSince").ok_or_else(|| Fault::missing("changedSince"))?;
    let since = moment(since).ok_or_else(|| {
        Fault::new(
            "2060",
            "Invalid Date Format",
            format!("Invalid Date Format : Supplied value:{since}"),
        )
    })?;
    if books.now - since > TimeDelta::days(30) {
        return Err(Fault::new(
            "2190",
            "Invalid Date Range",
            "changedSince cannot be more than 30 days ago",
        ));
    }
    let mut left = CDC_LIMIT;
    let mut answers = Vec::new();
    for name in named.split(',').map(str::trim) {
        let entity = known(name)?;
        let recent = |at: Option<&str>| at.and_then(moment).is_some_and(|at| at >= since);
        let changed = books
            .company()
            .all(entity)
            .map(|(_, value)| value)
            .filter(|value| recent(value["MetaData"]["LastUpdatedTime"].as_str()))
            .cloned();
        let deleted = books
            .company()
            .deleted
            .get(entity)
            .into_iter()
            .flatten()
            .filter(|(_, at)| recent(Some(at)))
            .map(|(id, at)| {
                json!({
                    "domain": "QBO",
                    "status": "Deleted",
                    "Id": id.to_string(),
                    "MetaData": {"LastUpdatedTime": at},
                })
            });
        let found: Vec<Value> = changed.chain(deleted).take(left).collect();
        left -= found.len();
        answers.push(if found.is_empty() {
            json!({})
        } else {
            let length = found.len();
            json!({entity: found, "startPosition": 1, "maxResults": length})
        });
    }
    Ok(one("CDCResponse", json!([{"QueryResponse": answers}])))
}

fn moment(text: &str) -> Option<DateTime<Utc>> {
    // A plus sign that was not escaped arrives as a blank.
    let text = text.replace(' ', "+");
    let whole = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text
    };
    DateTime::parse_from_rfc3339(&whole)
        .ok()
        .map(|at| at.with_timezone(&Utc))
        .or_else(|| {
            DateTime::parse_from_rfc3339(&format!("{whole}Z"))
                .ok()
                .map(|at| at.with_timezone(&Utc))
        })
}
