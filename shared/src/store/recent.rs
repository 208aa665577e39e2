//! What a process has read a moment ago, for readers to whom a moment makes no difference.

use super::{Item, Key};
use chrono::{DateTime, TimeDelta, Utc};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How old what was read may be.
pub const AGE_MAX: TimeDelta = TimeDelta::seconds(5);
/// Most documents that are held; they are small, and a process has little memory.
const ITEMS_MAX: usize = 1000;

/// Documents, each with the moment before it was read.
type Held = HashMap<Key, (DateTime<Utc>, Arc<Item>)>;

/// What one process holds.
#[derive(Default)]
pub struct Recent {
    held: Mutex<Held>,
}

/// A clock that was set back makes nothing younger.
fn is_recent(read_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
    (TimeDelta::zero()..AGE_MAX).contains(&(now - read_at))
}

impl Recent {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document at `key`, if it is held and was read less than [`AGE_MAX`] before `now`.
    pub fn get(&self, key: &Key, now: DateTime<Utc>) -> Option<Arc<Item>> {
        let held = self.held();
        let (_, item) = held
            .get(key)
            .filter(|(read_at, _)| is_recent(*read_at, now))?;
        Some(item.clone())
    }

    /// Holds a document, whose reading began at `read_at`.
    pub fn hold(&self, item: Arc<Item>, read_at: DateTime<Utc>) {
        let mut held = self.held();
        if held.len() >= ITEMS_MAX {
            held.retain(|_, (other, _)| is_recent(*other, read_at));
        }
        if held.len() < ITEMS_MAX {
            held.insert(item.key.clone(), (read_at, item));
        }
    }

    /// Lets go of a document, whoever changes it or knows better.
    pub fn forget(&self, key: &Key) {
        self.held().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys;
    use serde_json::json;

    fn item(number: usize) -> Arc<Item> {
        let merchant = format!("m_{number}").parse().unwrap();
        Arc::new(Item {
            key: keys::merchant(&merchant),
            rev: 1,
            doc: json!({}),
        })
    }

    #[test]
    fn what_is_held_is_young_few_and_let_go() {
        let (recent, now) = (Recent::default(), DateTime::UNIX_EPOCH);
        let one = item(0);
        recent.hold(one.clone(), now);
        let after = |millis| recent.get(&one.key, now + TimeDelta::milliseconds(millis));
        assert_eq!(after(4999), Some(one.clone()));
        assert_eq!(after(5000), None);
        assert_eq!(after(-1), None, "a clock that was set back");
        recent.forget(&one.key);
        assert_eq!(after(0), None);
        for number in 0..=ITEMS_MAX {
            recent.hold(item(number), now);
        }
        assert_eq!(recent.held().len(), ITEMS_MAX);
        recent.hold(one.clone(), now + AGE_MAX);
        assert_eq!(recent.held().len(), 1, "what is old makes room");
    }
}
