//! What every store must do, as one list of cases. The tests run it over memory and over DynamoDB,
//! so that a condition means the same in the simulator as in the stack.

use super::{Condition, Group, Item, Key, Store, Write, WriteError, keys, list_all};
use crate::model::ids::{EventId, MerchantId};
use chrono::{DateTime, TimeDelta};
use serde_json::json;

/// Runs every case and panics at the first that fails. `run` names a merchant of its own, so that
/// the cases can run again over a table that keeps what they wrote.
pub async fn run(store: &dyn Store, run: &str) {
    let merchant: MerchantId = format!("cases-{run}")
        .parse()
        .expect("a run is named by an id");
    conditions(store, &merchant).await;
    transactions(store, &merchant).await;
    lists(store, &merchant).await;
    large_lists(store, &merchant).await;
    many(store, &merchant).await;
}

fn key(merchant: &MerchantId, name: &str) -> Key {
    keys::record(merchant, crate::model::event::RecordKind::Stock, name)
}

fn put(key: &Key, condition: Condition, value: i64) -> Write {
    Write::put(key.clone(), condition, &json!({ "value": value })).expect("JSON is serialisable")
}

async fn value(store: &dyn Store, key: &Key) -> Option<(u64, i64)> {
    let item: Option<Item> = store.get(key).await.expect("get");
    item.map(|item| {
        (
            item.rev,
            item.doc["value"].as_i64().expect("a number was stored"),
        )
    })
}

fn refused(result: Result<(), WriteError>) -> usize {
    match result {
        Err(WriteError::Condition(index)) => index,
        other => panic!("a failed condition was expected, not {other:?}"),
    }
}

async fn conditions(store: &dyn Store, merchant: &MerchantId) {
    let a = key(merchant, "a b#é/日本");
    assert_eq!(value(store, &a).await, None);
    assert_eq!(refused(store.write(put(&a, Condition::Rev(1), 0)).await), 0);
    assert_eq!(
        refused(store.write(put(&a, Condition::Present, 0)).await),
        0
    );
    store
        .write(put(&a, Condition::Absent, 1))
        .await
        .expect("absent holds");
    assert_eq!(value(store, &a).await, Some((1, 1)));
    assert_eq!(refused(store.write(put(&a, Condition::Absent, 2)).await), 0);
    store
        .write(put(&a, Condition::Rev(1), 3))
        .await
        .expect("the revision holds");
    assert_eq!(value(store, &a).await, Some((2, 3)));
    assert_eq!(refused(store.write(put(&a, Condition::Rev(1), 4)).await), 0);
    store
        .write(put(&a, Condition::Present, 5))
        .await
        .expect("present holds");
    store
        .write(put(&a, Condition::Any, 6))
        .await
        .expect("any holds");
    assert_eq!(value(store, &a).await, Some((4, 6)));
    let delete = |rev| Write::Delete {
        key: a.clone(),
        condition: Condition::Rev(rev),
    };
    assert_eq!(refused(store.write(delete(3)).await), 0);
    store.write(delete(4)).await.expect("the revision holds");
    assert_eq!(value(store, &a).await, None);
    let gone = Write::Delete {
        key: a.clone(),
        condition: Condition::Any,
    };
    store
        .write(gone)
        .await
        .expect("deleting nothing is no error");
}

async fn transactions(store: &dyn Store, merchant: &MerchantId) {
    let (a, b) = (key(merchant, "ta"), key(merchant, "tb"));
    let both = |condition| vec![put(&a, Condition::Absent, 1), put(&b, condition, 1)];
    assert_eq!(refused(store.transact(both(Condition::Present)).await), 1);
    assert_eq!(
        value(store, &a).await,
        None,
        "a refused transaction writes nothing"
    );
    store
        .transact(both(Condition::Absent))
        .await
        .expect("both are absent");
    assert_eq!(value(store, &b).await, Some((1, 1)));
    let check = Write::Check {
        key: a.clone(),
        condition: Condition::Rev(7),
    };
    let writes = vec![check, put(&b, Condition::Any, 9)];
    assert_eq!(refused(store.transact(writes).await), 0);
    assert_eq!(
        value(store, &b).await,
        Some((1, 1)),
        "a failed check writes nothing"
    );
    let check = Write::Check {
        key: a.clone(),
        condition: Condition::Rev(1),
    };
    let delete = Write::Delete {
        key: b.clone(),
        condition: Condition::Present,
    };
    store
        .transact(vec![check, delete])
        .await
        .expect("both hold");
    assert_eq!(value(store, &b).await, None);
}

async fn lists(store: &dyn Store, merchant: &MerchantId) {
    let endpoint = crate::model::ids::EndpointId::new(uuid::Uuid::nil());
    let group = keys::deliveries(merchant, &endpoint);
    for n in [3, 1, 5, 2, 4] {
        // By the time of acceptance, whatever the ids say.
        let event: EventId = format!("e{}", 9 - n).parse().expect("an id");
        let accepted_at = DateTime::UNIX_EPOCH + TimeDelta::seconds(n * n * n);
        let write = put(
            &keys::delivery(merchant, &endpoint, accepted_at, &event),
            Condition::Any,
            n,
        );
        store.write(write).await.expect("any holds");
    }
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = store.list(&group, after.as_deref(), 2).await.expect("list");
        assert!(page.items.len() <= 2);
        seen.extend(
            page.items
                .iter()
                .map(|item| item.doc["value"].as_i64().expect("a number")),
        );
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5], "a list is in order and whole");
}

/// Writes seven documents that do not fit into one page together, and returns their group.
pub(in crate::store) async fn large(store: &dyn Store, merchant: &MerchantId) -> Group {
    let text = "x".repeat(300_000);
    for n in 0..7_u128 {
        let endpoint = crate::model::ids::EndpointId::new(uuid::Uuid::from_u128(n));
        let key = keys::endpoint(merchant, &endpoint);
        let write = Write::put(
            key,
            Condition::Any,
            &json!({ "value": n as u64, "text": text }),
        );
        let write = write.expect("JSON is serialisable");
        store.write(write).await.expect("any holds");
    }
    keys::endpoints(merchant)
}

async fn large_lists(store: &dyn Store, merchant: &MerchantId) {
    let group = large(store, merchant).await;
    for (limit, expected) in [(100, 7), (7, 7), (6, 6)] {
        let items = list_all(store, &group, limit).await.expect("list");
        let seen = items.iter().map(|item| item.doc["value"].as_u64());
        let all: Vec<_> = (0..expected).map(Some).collect();
        assert_eq!(
            seen.collect::<Vec<_>>(),
            all,
            "large documents are all listed"
        );
    }
}

async fn many(store: &dyn Store, merchant: &MerchantId) {
    let key = |n: i64| key(merchant, &format!("many-{n}"));
    let writes = (0..130).map(|n| put(&key(n), Condition::Any, n)).collect();
    store
        .put_many(writes)
        .await
        .expect("more than one batch is split");
    let keys: Vec<Key> = (0..140).rev().map(key).collect();
    let found = store.get_many(&keys).await.expect("get many");
    assert_eq!(found.len(), 140);
    for (item, n) in found.iter().zip((0..140).rev()) {
        let value = item
            .as_ref()
            .map(|item| item.doc["value"].as_i64().expect("a number"));
        assert_eq!(
            value,
            (n < 130).then_some(n),
            "answers stand in the order of the keys"
        );
    }
    let settled = store.get_many_settled(&keys).await.expect("get settled");
    assert_eq!(settled.len(), 140);
    for (item, settled) in found.iter().zip(settled) {
        assert!(
            settled.is_none() || *item == settled,
            "missing, or the same"
        );
    }
}
