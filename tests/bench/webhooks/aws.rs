//! The part of AWS that the functions of webhooks use, in memory: a table over DynamoDB's JSON protocol,
//! sending to SQS, one secret. It understands the expressions of `store::dynamo` and no others, and keeps
//! their conditions.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// A table's name, a partition key and a sort key.
type Place = (String, String, String);
type Attributes = Map<String, Value>;

pub struct Aws {
    rows: Mutex<BTreeMap<Place, Attributes>>,
    calls: Mutex<BTreeMap<String, usize>>,
    /// Where each message goes that is sent: the queue's URL and the body.
    sent: UnboundedSender<(String, String)>,
}

pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn place(table: &Value, key: &Value) -> Place {
    (text(table), text(&key["pk"]["S"]), text(&key["sk"]["S"]))
}

fn revision(row: Option<&Attributes>) -> u64 {
    let held = row.and_then(|row| row["rev"]["N"].as_str());
    held.and_then(|held| held.parse().ok()).unwrap_or(0)
}

impl Aws {
    pub fn new(sent: UnboundedSender<(String, String)>) -> Arc<Aws> {
        Arc::new(Aws {
            rows: Mutex::default(),
            calls: Mutex::default(),
            sent,
        })
    }

    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/", post(answer))
            .with_state(self.clone())
    }

    /// The calls since this was asked last, by name.
    pub fn calls(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut hold(&self.calls))
    }

    fn holds(row: Option<&Attributes>, write: &Value) -> bool {
        match write["ConditionExpression"].as_str() {
            None => true,
            Some("attribute_not_exists(pk)") => row.is_none(),
            Some("attribute_exists(pk)") => row.is_some(),
            Some("rev = :rev") => {
                let wanted = &write["ExpressionAttributeValues"][":rev"]["N"];
                row.is_some_and(|row| row["rev"]["N"] == *wanted)
            }
            Some(other) => panic!("no condition is {other:?}"),
        }
    }

    fn put(rows: &mut BTreeMap<Place, Attributes>, write: &Value) {
        let at = place(&write["TableName"], &write["Key"]);
        let values = &write["ExpressionAttributeValues"];
        let rev = revision(rows.get(&at)) + 1;
        let mut row = Map::new();
        row.insert("pk".to_owned(), write["Key"]["pk"].clone());
        row.insert("sk".to_owned(), write["Key"]["sk"].clone());
        row.insert("rev".to_owned(), json!({ "N": rev.to_string() }));
        row.insert("doc".to_owned(), values[":doc"].clone());
        if let Some(at) = values.get(":expires_at") {
            row.insert("expires_at".to_owned(), at.clone());
        }
        rows.insert(at, row);
    }

    fn perform(&self, target: &str, asked: &Value) -> Result<Value, &'static str> {
        let mut rows = hold(&self.rows);
        let (_, name) = target.split_once('.').unwrap_or_default();
        match name {
            "GetItem" => {
                let row = rows.get(&place(&asked["TableName"], &asked["Key"]));
                Ok(row.map_or(json!({}), |row| json!({ "Item": row })))
            }
            "BatchGetItem" => {
                let mut found = Map::new();
                for (table, wanted) in asked["RequestItems"].as_object().into_iter().flatten() {
                    let keys = wanted["Keys"].as_array().into_iter().flatten();
                    let table_name = json!(table);
                    let items: Vec<&Attributes> = keys
                        .filter_map(|key| rows.get(&place(&table_name, key)))
                        .collect();
                    found.insert(table.clone(), json!(items));
                }
                Ok(json!({ "Responses": found, "UnprocessedKeys": {} }))
            }
            "Query" => {
                let (table, pk) = (
                    text(&asked["TableName"]),
                    text(&asked["ExpressionAttributeValues"][":pk"]["S"]),
                );
                let first = (table, pk, String::new());
                let items: Vec<&Attributes> = rows
                    .range(first.clone()..)
                    .take_while(|(at, _)| (&at.0, &at.1) == (&first.0, &first.1))
                    .map(|(_, row)| row)
                    .collect();
                Ok(json!({ "Items": items, "Count": items.len() }))
            }
            "UpdateItem" => {
                let row = rows.get(&place(&asked["TableName"], &asked["Key"]));
                if !Aws::holds(row, asked) {
                    return Err("ConditionalCheckFailedException");
                }
                Aws::put(&mut rows, asked);
                Ok(json!({}))
            }
            "SendMessageBatch" => {
                let queue = text(&asked["QueueUrl"]);
                let entries = asked["Entries"].as_array().into_iter().flatten();
                let mut taken = Vec::new();
                for entry in entries {
                    let _ = self.sent.send((queue.clone(), text(&entry["MessageBody"])));
                    let id = &entry["Id"];
                    taken.push(json!({ "Id": id, "MessageId": id, "MD5OfMessageBody": "" }));
                }
                Ok(json!({ "Successful": taken, "Failed": [] }))
            }
            "GetSecretValue" => {
                let ring = r#"{"current":"1","1":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}"#;
                Ok(json!({ "Name": asked["SecretId"], "SecretString": ring }))
            }
            other => panic!("{other} is no call of these functions"),
        }
    }
}

async fn answer(State(aws): State<Arc<Aws>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers.get("x-amz-target");
    let target = target.and_then(|target| target.to_str().ok());
    let target = target.unwrap_or_default();
    *hold(&aws.calls).entry(target.to_owned()).or_default() += 1;
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let json = [("content-type", "application/x-amz-json-1.0")];
    match aws.perform(target, &asked) {
        Ok(answer) => (json, answer.to_string()).into_response(),
        Err(code) => {
            let fault = json!({
                "__type": format!("com.amazonaws.dynamodb.v20120810#{code}"),
                "message": "The conditional request failed",
            });
            (StatusCode::BAD_REQUEST, json, fault.to_string()).into_response()
        }
    }
}
