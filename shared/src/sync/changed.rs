//! What a provider's webhooks say has changed over there: ids, not contents. A row for each thing waits
//! until it is pulled; notices that come twice or in another order change nothing.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// What happened to a thing. What else a provider tells (voided, sent, merged into) is an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Created,
    Updated,
    Deleted,
}

/// One change as a webhook tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The account at the provider.
    pub tenant: String,
    /// The provider's word, in lower case: `invoice`, `customer`, `contact`.
    pub kind: String,
    pub id: String,
    pub operation: Operation,
    /// When it happened, where the provider says so.
    pub at: Option<DateTime<Utc>>,
    /// The provider's own id of the event, where it has one.
    pub event: Option<String>,
}

/// A thing of one connection that is to be pulled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub kind: String,
    pub id: String,
    pub operation: Operation,
    pub at: Option<DateTime<Utc>>,
    pub event: Option<String>,
    pub noted_at: DateTime<Utc>,
    /// That it carries our mark, or is ours, and a write of ours was open when it was seen: whose change
    /// it was can be told later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
}

impl Change {
    /// The row after this change. `None` leaves `held` as it is: the change came before, or something
    /// later is noted already.
    pub fn note(&self, held: Option<&Changed>, now: DateTime<Utc>) -> Option<Changed> {
        let changed = Changed {
            kind: self.kind.clone(),
            id: self.id.clone(),
            operation: self.operation,
            at: self.at,
            event: self.event.clone(),
            noted_at: now,
            held: held.is_some_and(|held| held.held),
        };
        let Some(held) = held else {
            return Some(changed);
        };
        let same = if self.event.is_some() {
            self.event == held.event
        } else {
            (self.operation, self.at) == (held.operation, held.at)
        };
        let earlier = matches!((self.at, held.at), (Some(at), Some(held)) if at < held);
        (!same && !earlier).then_some(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    fn change(operation: Operation, seconds: i64) -> Change {
        Change {
            tenant: "1".to_owned(),
            kind: "invoice".to_owned(),
            id: "7".to_owned(),
            operation,
            at: Some(at(seconds)),
            event: None,
        }
    }

    /// Whatever the order, and however often each comes, the last change is what stands.
    #[test]
    fn order_and_doubles_do_not_matter() {
        let all = [
            change(Operation::Created, 1),
            change(Operation::Updated, 2),
            change(Operation::Deleted, 3),
        ];
        for first in 0..3 {
            for second in 0..3 {
                for third in 0..3 {
                    let mut held: Option<Changed> = None;
                    for index in [first, second, third, 2, second, first] {
                        if let Some(row) = all[index].note(held.as_ref(), at(9)) {
                            held = Some(row);
                        }
                    }
                    let held = held.unwrap();
                    assert_eq!((held.operation, held.at), (Operation::Deleted, Some(at(3))));
                }
            }
        }
    }

    #[test]
    fn a_double_writes_nothing_and_a_second_change_of_one_moment_does() {
        let held = change(Operation::Created, 1).note(None, at(5)).unwrap();
        assert_eq!(change(Operation::Created, 1).note(Some(&held), at(6)), None);
        assert!(
            change(Operation::Updated, 1)
                .note(Some(&held), at(6))
                .is_some()
        );
        // With ids of events, the id decides.
        let named = |event: &str| Change {
            event: Some(event.to_owned()),
            ..change(Operation::Updated, 1)
        };
        let held = named("a").note(None, at(5)).unwrap();
        assert_eq!(named("a").note(Some(&held), at(6)), None);
        assert!(named("b").note(Some(&held), at(6)).is_some());
        // Where there is no time, nothing is thought to be late.
        let timeless = Change {
            at: None,
            ..named("c")
        };
        assert!(timeless.note(Some(&held), at(6)).is_some());
    }
}
