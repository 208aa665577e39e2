//! The store in memory, for the simulator: the same conditions, no durability.

use super::{Condition, Group, Item, Key, Page, Store, Table, Write, WriteError, cursor};
use crate::error::{Error, Result};
use async_trait::async_trait;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A page ends once it holds so much, as DynamoDB's does.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// A table space of its own, empty at first.
#[derive(Debug, Default)]
pub struct Memory {
    items: Mutex<BTreeMap<Key, (u64, Value)>>,
}

/// A copy goes its own way from then on.
impl Clone for Memory {
    fn clone(&self) -> Memory {
        Memory {
            items: Mutex::new(self.items().clone()),
        }
    }
}

impl Memory {
    fn items(&self) -> MutexGuard<'_, BTreeMap<Key, (u64, Value)>> {
        // A panic of one caller leaves whole documents behind, never half of one.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page<'a>(found: impl Iterator<Item = (&'a Key, &'a (u64, Value))>, limit: usize) -> Page {
        let mut found = found.peekable();
        let (mut items, mut bytes): (Vec<Item>, usize) = (Vec::new(), 0);
        while items.len() < limit
            && bytes < PAGE_BYTES_MAX
            && let Some((key, (rev, doc))) = found.next()
        {
            bytes += size(doc);
            items.push(Item {
                key: key.clone(),
                rev: *rev,
                doc: doc.clone(),
            });
        }
        let next = items
            .last()
            .filter(|_| found.peek().is_some())
            .map(|item| cursor(&item.key.pk, &item.key.sk));
        Page { items, next }
    }
}

/// About how many bytes a document takes as JSON. To write it out would cost more than the page.
fn size(doc: &Value) -> usize {
    match doc {
        Value::Null | Value::Bool(_) | Value::Number(_) => 6,
        Value::String(text) => text.len() + 3,
        Value::Array(values) => values.iter().map(size).sum::<usize>() + 2,
        Value::Object(members) => {
            let sizes = members
                .iter()
                .map(|(name, value)| name.len() + 3 + size(value));
            sizes.sum::<usize>() + 2
        }
    }
}

fn holds(found: Option<&(u64, Value)>, condition: Condition) -> bool {
    match condition {
        Condition::Absent => found.is_none(),
        Condition::Rev(rev) => found.is_some_and(|(held, _)| *held == rev),
        Condition::Present => found.is_some(),
        Condition::Any => true,
    }
}

#[async_trait]
impl Store for Memory {
    async fn get(&self, key: &Key) -> Result<Option<Item>> {
        let items = self.items();
        Ok(items.get(key).map(|(rev, doc)| Item {
            key: key.clone(),
            rev: *rev,
            doc: doc.clone(),
        }))
    }

    async fn get_many(&self, keys: &[Key]) -> Result<Vec<Option<Item>>> {
        let items = self.items();
        let found = |key: &Key| {
            let (rev, doc) = items.get(key)?;
            Some(Item {
                key: key.clone(),
                rev: *rev,
                doc: doc.clone(),
            })
        };
        Ok(keys.iter().map(found).collect())
    }

    async fn list(&self, group: &Group, after: Option<&str>, limit: usize) -> Result<Page> {
        let items = self.items();
        let after = after
            .and_then(|cursor| cursor.split_once('\n'))
            .map(|(_, sk)| sk);
        if after == Some("") {
            return Err(Error::internal("DynamoDB takes no key that is empty"));
        }
        let first = Key {
            table: group.table,
            pk: group.pk.clone(),
            sk: after.unwrap_or_default().to_owned(),
        };
        let found = items
            .range(first..)
            .take_while(|(key, _)| key.table == group.table && key.pk == group.pk)
            .filter(|(key, _)| after.is_none_or(|after| key.sk.as_str() > after));
        Ok(Memory::page(found, limit))
    }

    async fn scan(&self, table: Table, after: Option<&str>, limit: usize) -> Result<Page> {
        let items = self.items();
        let after = after.and_then(|cursor| cursor.split_once('\n'));
        let found = items.iter().filter(|(key, _)| {
            key.table == table
                && after.is_none_or(|after| (key.pk.as_str(), key.sk.as_str()) > after)
        });
        Ok(Memory::page(found, limit))
    }

    async fn write(&self, write: Write) -> Result<(), WriteError> {
        self.transact(vec![write]).await
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<(), WriteError> {
        let mut items = self.items();
        for (index, write) in writes.iter().enumerate() {
            let (Write::Put { key, condition, .. }
            | Write::Delete { key, condition }
            | Write::Check { key, condition }) = write;
            if !holds(items.get(key), *condition) {
                return Err(WriteError::Condition(index));
            }
        }
        for write in writes {
            match write {
                Write::Put { key, doc, .. } => {
                    let rev = items.get(&key).map_or(0, |(rev, _)| *rev) + 1;
                    items.insert(key, (rev, doc));
                }
                Write::Delete { key, .. } => {
                    items.remove(&key);
                }
                Write::Check { .. } => {}
            }
        }
        Ok(())
    }

    async fn put_many(&self, writes: Vec<Write>) -> Result<()> {
        Ok(self.transact(writes).await?)
    }
}

#[cfg(test)]
mod tests {
    use crate::store::Store;

    #[tokio::test]
    async fn memory_passes_the_cases_of_a_store() {
        crate::store::cases::run(&super::Memory::default(), "memory").await;
    }

    #[tokio::test]
    async fn a_page_ends_after_a_megabyte() {
        let memory = super::Memory::default();
        let group = crate::store::cases::large(&memory, &"m".parse().unwrap()).await;
        let page = memory.list(&group, None, 100).await.unwrap();
        assert_eq!((page.items.len(), page.next.is_some()), (4, true));
    }
}
