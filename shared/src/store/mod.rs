//! One small seam: conditional operations on keyed documents. DynamoDB implements it for the stack
//! and memory implements it for the simulator; the same cases run over both.

pub mod cases;
pub mod dynamo;
pub mod keys;
pub mod memory;
pub mod recent;

use crate::error::{Code, Error, Result};
use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// The tables of the stack. A function is granted only those that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Merchants, events and the records they are about.
    Records,
    /// Events that are accepted and not yet on the bus. Its stream feeds the relay.
    Outbox,
    /// Connections, their encrypted tokens, and connect links.
    Connections,
    /// What stands at which provider, per record and connection.
    Ledger,
    /// Webhook endpoints and deliveries.
    Webhooks,
}

/// Where a document stands. Only `keys` builds one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub(in crate::store) table: Table,
    pub(in crate::store) pk: String,
    pub(in crate::store) sk: String,
}

/// A group of documents with one partition key, in the order of their sort keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub(in crate::store) table: Table,
    pub(in crate::store) pk: String,
}

/// A stored document. `rev` starts at 1 and grows by one with every write.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub key: Key,
    pub rev: u64,
    pub doc: Value,
}

impl Item {
    /// Reads the document as a `T`. A document that we wrote and cannot read is our own defect.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(self.doc.clone()).map_err(Error::internal)
    }
}

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing stands at the key.
    Absent,
    /// What stands at the key has this revision.
    Rev(u64),
    /// Something stands at the key.
    Present,
    /// Whatever stands there is replaced.
    Any,
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Write {
    Put {
        key: Key,
        condition: Condition,
        doc: Value,
        expires_at: Option<i64>,
    },
    Delete {
        key: Key,
        condition: Condition,
    },
    Check {
        key: Key,
        condition: Condition,
    },
}

impl Write {
    /// Replaces or creates the document at `key` when `condition` holds.
    pub fn put(key: Key, condition: Condition, doc: &impl Serialize) -> Result<Write> {
        let doc = serde_json::to_value(doc).map_err(Error::internal)?;
        Ok(Write::Put {
            key,
            condition,
            doc,
            expires_at: None,
        })
    }

    /// Lets the document vanish at `at` (Unix seconds). DynamoDB may take days to remove it, so a
    /// reader that cares compares the time itself.
    pub fn expiring(mut self, at: i64) -> Write {
        if let Write::Put { expires_at, .. } = &mut self {
            *expires_at = Some(at);
        }
        self
    }

    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. } | Write::Delete { key, .. } | Write::Check { key, .. } => key,
        }
    }
}

/// Why a write did not happen.
#[derive(Debug)]
pub enum WriteError {
    /// The condition of the write at this index did not hold. Nothing was written.
    Condition(usize),
    /// Another transaction held one of the keys. Nothing was written; trying again is right.
    Contended,
    Failed(Error),
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Error {
        match error {
            WriteError::Condition(_) | WriteError::Contended => Error::new(
                Code::Busy,
                "the same record is being changed; send it again",
            ),
            WriteError::Failed(error) => error,
        }
    }
}

/// One page of a group.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    pub items: Vec<Item>,
    /// Pass it on to get the next page; `None` at the end.
    pub next: Option<String>,
}

/// Where a page ends: `\n` stands in no key, so the two parts can be told apart again.
fn cursor(pk: &str, sk: &str) -> String {
    format!("{pk}\n{sk}")
}

/// Reads up to `limit` documents of a group, over as many pages as it takes: DynamoDB ends a page
/// after 1 MB, however few documents that were.
pub async fn list_all(store: &dyn Store, group: &Group, limit: usize) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let mut after = None;
    while items.len() < limit {
        let page = store
            .list(group, after.as_deref(), limit - items.len())
            .await?;
        items.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(items)
}

/// Longest that one operation of the store takes, every attempt included, and longest of one attempt. The
/// clients of AWS are made with it ([`crate::runtime`]).
pub const CALL_MAX: Duration = Duration::from_secs(8);
pub const ATTEMPT_MAX: Duration = Duration::from_secs(4);

/// Most writes of one transaction, as DynamoDB allows.
pub const TRANSACTION_WRITES_MAX: usize = 100;

#[async_trait]
pub trait Store: Send + Sync {
    /// Reads one document, seeing every write that has finished.
    async fn get(&self, key: &Key) -> Result<Option<Item>>;

    /// Reads many documents, in the order of `keys`; `None` where nothing stands.
    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>>;

    /// The same of documents that never change, for half the price: what was written a moment ago may be
    /// missing.
    async fn get_many_settled(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        self.get_many(keys).await
    }

    /// Reads up to `limit` documents of a group in sort-key order, after the sort key `after`.
    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page>;

    /// Reads up to `limit` documents of a whole table, in no order. Only for tables that stay small.
    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page>;

    /// Does one write.
    async fn write(&self, write: Write) -> Result<(), WriteError>;

    /// Does all writes or none. At most [`TRANSACTION_WRITES_MAX`], each on another key.
    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError>;

    /// Does unconditional puts, in no order and not as one; on an error some may have happened.
    async fn put_many(&self, writes: Vec<Write>) -> Result<()>;
}
