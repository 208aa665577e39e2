//! The store in DynamoDB. Each document is one item: `pk`, `sk`, `rev` (number), `doc` (JSON text)
//! and, where it may vanish, `expires_at` (Unix seconds, the table's TTL attribute).

use super::{
    Condition, Group, Item, Key, Page, Store, TRANSACTION_WRITES_MAX, Table, Write, WriteError,
    cursor,
};
use crate::error::{Code, Error, Result};
use async_trait::async_trait;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ConditionCheck, Delete, KeysAndAttributes, PutRequest, TransactWriteItem,
    Update, WriteRequest,
};
use std::collections::{BTreeMap, HashMap};

/// Most keys of one BatchGetItem.
const BATCH_GET_KEYS_MAX: usize = 100;
/// Most puts of one BatchWriteItem.
const BATCH_WRITE_PUTS_MAX: usize = 25;
/// How often what DynamoDB left over in a batch is sent again before the caller hears of it.
const BATCH_ROUNDS_MAX: usize = 8;

type Attributes = HashMap<String, AttributeValue>;

pub struct Dynamo {
    client: Client,
    names: BTreeMap<Table, String>,
}

impl Dynamo {
    /// `names` are those tables that the function may use.
    pub fn new(config: &aws_config::SdkConfig, names: BTreeMap<Table, String>) -> Self {
        Dynamo {
            client: Client::new(config),
            names,
        }
    }

    fn name(&self, table: Table) -> Result<&str> {
        self.names.get(&table).map(String::as_str).ok_or_else(|| {
            Error::new(Code::Internal, "the function is not set up for this")
                .because(format!("no name is configured for table {table:?}"))
        })
    }

    fn update(&self, write: Write) -> Result<TransactWriteItem> {
        let built = match write {
            Write::Put {
                key,
                condition,
                doc,
                expires_at,
            } => {
                let mut set = "SET doc = :doc, rev = if_not_exists(rev, :zero) + :one".to_owned();
                let mut update = Update::builder()
                    .expression_attribute_values(":doc", AttributeValue::S(doc.to_string()))
                    .expression_attribute_values(":zero", AttributeValue::N("0".to_owned()))
                    .expression_attribute_values(":one", AttributeValue::N("1".to_owned()));
                match expires_at {
                    Some(at) => {
                        set.push_str(", expires_at = :expires_at");
                        let at = AttributeValue::N(at.to_string());
                        update = update.expression_attribute_values(":expires_at", at);
                    }
                    None => set.push_str(" REMOVE expires_at"),
                }
                let (expression, rev) = expression(condition);
                if let Some(rev) = rev {
                    update = update.expression_attribute_values(":rev", rev);
                }
                let update = update
                    .table_name(self.name(key.table)?)
                    .set_key(Some(attributes(&key)))
                    .update_expression(set)
                    .set_condition_expression(expression)
                    .build();
                TransactWriteItem::builder().update(update.map_err(Error::internal)?)
            }
            Write::Delete { key, condition } => {
                let (expression, rev) = expression(condition);
                let mut delete = Delete::builder();
                if let Some(rev) = rev {
                    delete = delete.expression_attribute_values(":rev", rev);
                }
                let delete = delete
                    .table_name(self.name(key.table)?)
                    .set_key(Some(attributes(&key)))
                    .set_condition_expression(expression)
                    .build();
                TransactWriteItem::builder().delete(delete.map_err(Error::internal)?)
            }
            Write::Check { key, condition } => {
                let (expression, rev) = expression(condition);
                let mut check = ConditionCheck::builder();
                if let Some(rev) = rev {
                    check = check.expression_attribute_values(":rev", rev);
                }
                let check = check
                    .table_name(self.name(key.table)?)
                    .set_key(Some(attributes(&key)))
                    // A check without a condition would be no check.
                    .condition_expression(expression.unwrap_or_else(|| EXISTS.to_owned()))
                    .build();
                TransactWriteItem::builder().condition_check(check.map_err(Error::internal)?)
            }
        };
        Ok(built.build())
    }

    /// Reads `keys` in batches: `consistent` or for half the price.
    async fn read_many(&self, keys: &[Key], consistent: bool) -> Result<Vec<Option<Item>>> {
        let mut found: HashMap<Key, Item> = HashMap::new();
        for chunk in keys.chunks(BATCH_GET_KEYS_MAX) {
            let mut wanted: HashMap<String, KeysAndAttributes> = HashMap::new();
            let mut tables: HashMap<String, Table> = HashMap::new();
            let mut seen = std::collections::HashSet::new();
            let mut groups: HashMap<Table, Vec<Attributes>> = HashMap::new();
            for key in chunk.iter().filter(|key| seen.insert(*key)) {
                groups.entry(key.table).or_default().push(attributes(key));
            }
            for (table, group) in groups {
                let name = self.name(table)?.to_owned();
                let request = KeysAndAttributes::builder()
                    .set_keys(Some(group))
                    .consistent_read(consistent)
                    .build()
                    .map_err(Error::internal)?;
                wanted.insert(name.clone(), request);
                tables.insert(name, table);
            }
            let mut rounds = 0;
            while !wanted.is_empty() {
                rounds += 1;
                if rounds > BATCH_ROUNDS_MAX {
                    return Err(Error::internal(
                        "DynamoDB keeps leaving keys of a batch unread",
                    ));
                }
                let call = self.client.batch_get_item().set_request_items(Some(wanted));
                let answer = call.send().await.map_err(failed)?;
                for (name, items) in answer.responses.unwrap_or_default() {
                    let table = tables[&name];
                    for attributes in &items {
                        let item = item(table, attributes)?;
                        found.insert(item.key.clone(), item);
                    }
                }
                wanted = answer.unprocessed_keys.unwrap_or_default();
            }
        }
        Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
    }
}

const EXISTS: &str = "attribute_exists(pk)";

fn expression(condition: Condition) -> (Option<String>, Option<AttributeValue>) {
    match condition {
        Condition::Absent => (Some("attribute_not_exists(pk)".to_owned()), None),
        Condition::Present => (Some(EXISTS.to_owned()), None),
        Condition::Rev(rev) => (
            Some("rev = :rev".to_owned()),
            Some(AttributeValue::N(rev.to_string())),
        ),
        Condition::Any => (None, None),
    }
}

fn attributes(key: &Key) -> Attributes {
    HashMap::from([
        ("pk".to_owned(), AttributeValue::S(key.pk.clone())),
        ("sk".to_owned(), AttributeValue::S(key.sk.clone())),
    ])
}

/// Reads an item as this module writes it.
fn item(table: Table, attributes: &Attributes) -> Result<Item> {
    let text = |name: &str| attributes.get(name).and_then(|value| value.as_s().ok());
    let number = attributes.get("rev").and_then(|value| value.as_n().ok());
    let (Some(pk), Some(sk), Some(doc), Some(rev)) = (text("pk"), text("sk"), text("doc"), number)
    else {
        return Err(Error::internal("an item lacks pk, sk, rev or doc"));
    };
    Ok(Item {
        key: Key {
            table,
            pk: pk.clone(),
            sk: sk.clone(),
        },
        rev: rev.parse().map_err(Error::internal)?,
        doc: serde_json::from_str(doc).map_err(Error::internal)?,
    })
}

fn start(after: Option<&str>) -> Option<Attributes> {
    let (pk, sk) = after?.split_once('\n')?;
    Some(HashMap::from([
        ("pk".to_owned(), AttributeValue::S(pk.to_owned())),
        ("sk".to_owned(), AttributeValue::S(sk.to_owned())),
    ]))
}

fn page(table: Table, found: Option<Vec<Attributes>>, last: Option<Attributes>) -> Result<Page> {
    let items = found.unwrap_or_default();
    let items = items
        .iter()
        .map(|found| item(table, found))
        .collect::<Result<_>>()?;
    let text = |key: &Attributes, name: &str| key.get(name)?.as_s().ok().cloned();
    let next = last.and_then(|key| Some(cursor(&text(&key, "pk")?, &text(&key, "sk")?)));
    Ok(Page { items, next })
}

/// A call that DynamoDB did not carry out: throttling and the like may pass, so all are retryable.
fn failed<E>(error: SdkError<E>) -> Error
where
    E: std::error::Error + Send + Sync + 'static,
{
    Error::internal(error)
}

fn write_error(error: SdkError<TransactWriteItemsError>) -> WriteError {
    if let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
        error.as_service_error()
    {
        let reasons = cancelled.cancellation_reasons();
        let code = |code: &str| {
            reasons
                .iter()
                .position(|reason| reason.code() == Some(code))
        };
        if let Some(index) = code("ConditionalCheckFailed") {
            return WriteError::Condition(index);
        }
        if code("TransactionConflict").is_some() {
            return WriteError::Contended;
        }
    }
    if error.code() == Some("TransactionInProgressException") {
        return WriteError::Contended;
    }
    WriteError::Failed(failed(error))
}

#[async_trait]
impl Store for Dynamo {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let call = self
            .client
            .get_item()
            .table_name(self.name(key.table)?)
            .set_key(Some(attributes(key)))
            .consistent_read(true);
        let answer = call.send().await.map_err(failed)?;
        answer
            .item()
            .map(|found| item(key.table, found))
            .transpose()
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.read_many(keys, true).await
    }

    async fn get_many_settled(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.read_many(keys, false).await
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        let call = self
            .client
            .query()
            .table_name(self.name(group.table)?)
            .key_condition_expression("pk = :pk")
            .expression_attribute_values(":pk", AttributeValue::S(group.pk.clone()))
            .set_exclusive_start_key(start(after))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .consistent_read(true);
        let answer = call.send().await.map_err(failed)?;
        page(group.table, answer.items, answer.last_evaluated_key)
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        let call = self
            .client
            .scan()
            .table_name(self.name(table)?)
            .set_exclusive_start_key(start(after))
            .limit(i32::try_from(limit).unwrap_or(i32::MAX))
            .consistent_read(true);
        let answer = call.send().await.map_err(failed)?;
        page(table, answer.items, answer.last_evaluated_key)
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        // A single write costs half of a transaction of one, and fails in the same words.
        let item = self.update(write).map_err(WriteError::Failed)?;
        if let Some(update) = item.update {
            let call = self
                .client
                .update_item()
                .table_name(update.table_name)
                .set_key(Some(update.key))
                .update_expression(update.update_expression)
                .set_condition_expression(update.condition_expression)
                .set_expression_attribute_values(update.expression_attribute_values);
            return call.send().await.map(|_| ()).map_err(single_error);
        }
        if let Some(delete) = item.delete {
            let call = self
                .client
                .delete_item()
                .table_name(delete.table_name)
                .set_key(Some(delete.key))
                .set_condition_expression(delete.condition_expression)
                .set_expression_attribute_values(delete.expression_attribute_values);
            return call.send().await.map(|_| ()).map_err(single_error);
        }
        Err(WriteError::Failed(Error::internal(
            "a check alone writes nothing",
        )))
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        assert!(
            writes.len() <= TRANSACTION_WRITES_MAX,
            "a transaction is bounded by its caller"
        );
        let items: Result<Vec<_>> = writes.into_iter().map(|write| self.update(write)).collect();
        let items = items.map_err(WriteError::Failed)?;
        let call = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items));
        call.send().await.map(|_| ()).map_err(write_error)
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        for chunk in writes.chunks(BATCH_WRITE_PUTS_MAX) {
            let mut requests: HashMap<String, Vec<WriteRequest>> = HashMap::new();
            for write in chunk {
                let Write::Put {
                    key,
                    condition: Condition::Any,
                    doc,
                    expires_at,
                } = write
                else {
                    return Err(Error::internal("only unconditional puts go in bulk"));
                };
                let mut attributes = attributes(key);
                attributes.insert("doc".to_owned(), AttributeValue::S(doc.to_string()));
                attributes.insert("rev".to_owned(), AttributeValue::N("1".to_owned()));
                if let Some(at) = expires_at {
                    attributes.insert("expires_at".to_owned(), AttributeValue::N(at.to_string()));
                }
                let put = PutRequest::builder().set_item(Some(attributes)).build();
                let put = put.map_err(Error::internal)?;
                let request = WriteRequest::builder().put_request(put).build();
                requests
                    .entry(self.name(key.table)?.to_owned())
                    .or_default()
                    .push(request);
            }
            let mut rounds = 0;
            while !requests.is_empty() {
                rounds += 1;
                if rounds > BATCH_ROUNDS_MAX {
                    return Err(Error::internal(
                        "DynamoDB keeps leaving puts of a batch undone",
                    ));
                }
                let call = self
                    .client
                    .batch_write_item()
                    .set_request_items(Some(requests));
                let answer = call.send().await.map_err(failed)?;
                requests = answer.unprocessed_items.unwrap_or_default();
            }
        }
        Ok(())
    }
}

fn single_error<E>(error: SdkError<E>) -> WriteError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match error.code() {
        Some("ConditionalCheckFailedException") => WriteError::Condition(0),
        Some("TransactionConflictException") => WriteError::Contended,
        _ => WriteError::Failed(failed(error)),
    }
}

/// The document in a stream record's new image, or nothing when the record holds none.
pub fn stream_document(image: &serde_json::Value) -> Option<serde_json::Value> {
    serde_json::from_str(image.get("doc")?.get("S")?.as_str()?).ok()
}
