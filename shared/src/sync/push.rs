//! Pushing one record to one provider so that a crash, a double or a late message at any point has
//! no second effect.
//!
//! The order is always: record the intent, make the call with the provider's idempotency key, store
//! what came back. The key of a creation depends on the record alone, so however often and by
//! whomever it is tried, the provider sees one request. The key of an update also depends on the
//! provider's version that it replaces and on the content. Providers repeat a refusal as faithfully as
//! a success, so after a refusal, which had no effect, the next try has a new key.

use crate::model::ids::RecordId;
use crate::model::notice::RecordRef;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Most rounds of one push: create, then at most a repair, a re-read and an update.
pub const PUSH_ROUNDS_MAX: usize = 6;

/// What a record is at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub id: String,
    /// The provider's version, which an update must name.
    pub version: String,
    /// What people call it there, such as a document's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
}

/// A call that was about to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub request_id: String,
    /// The fingerprint of what the call would write.
    pub content: String,
    pub at: DateTime<Utc>,
}

/// Why a record does not stand at the provider as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: String,
    /// In words that the merchant understands.
    pub detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkState {
    /// A push is under way, or was interrupted and will be taken up again.
    #[default]
    Pending,
    /// The provider holds what we hold.
    Synced,
    /// The provider will not take it until somebody changes something; `problem` says what.
    Parked,
    /// It is older than what the merchant wants to have sent, so nothing of it is.
    LeftOut,
}

/// That a record met a connection which could not be used, and is pushed when it can be used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// The newest revision of the record that waits: whoever pushes an older one leaves it waiting.
    pub record_rev: u64,
    pub since: DateTime<Utc>,
}

/// Stands beside the ledger for a row of it that somebody has to come back to, with what it takes to
/// do so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    pub record: RecordRef,
    pub order_id: Option<RecordId>,
    /// The code of what is wrong; nothing for what only waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// One row of the ledger: what is known about one record at one provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub state: LinkState,
    pub remote: Option<Remote>,
    /// The fingerprint of what the provider holds; `None` when that is not certain.
    pub content: Option<String>,
    pub intent: Option<Intent>,
    /// The newest revision of our record that anybody set out to push. Whoever holds an older one
    /// leaves the rest to that other, or it would write the past over the present.
    #[serde(default)]
    pub record_rev: u64,
    /// How many calls the provider has answered with a refusal.
    #[serde(default)]
    pub refusals: u32,
    /// Why the last try did not bring the record there. A row that is parked has one; one that is
    /// pending has one when something failed, which it keeps until the record stands there.
    pub problem: Option<Problem>,
    /// How many tries in a row ended with a problem.
    #[serde(default)]
    pub attempts: u32,
    /// By when the queue brings the record again after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Since when the state is what it is. Absent from rows that are older than this member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// Stands beside the state, which says what is at the provider meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    pub updated_at: Option<DateTime<Utc>>,
}

/// How a record stands at a provider, in the words of the API: the state of its row, unless a newer
/// revision waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    Pending,
    Synced,
    Parked,
    LeftOut,
    Waiting,
}

impl Standing {
    pub const ALL: [Standing; 5] = [
        Standing::Pending,
        Standing::Synced,
        Standing::Parked,
        Standing::LeftOut,
        Standing::Waiting,
    ];
}

/// The next step of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The provider holds this content, or somebody with a newer record is at work.
    Done,
    Create {
        request_id: String,
    },
    Update {
        request_id: String,
        remote: Remote,
    },
}

impl Link {
    pub fn standing(&self) -> Standing {
        if self.waiting.is_some() {
            return Standing::Waiting;
        }
        match self.state {
            LinkState::Pending => Standing::Pending,
            LinkState::Synced => Standing::Synced,
            LinkState::Parked => Standing::Parked,
            LinkState::LeftOut => Standing::LeftOut,
        }
    }

    /// Decides the next step towards `content`, which is our record at revision `record_rev`.
    /// `identity` names the record and the connection.
    pub fn plan(&self, identity: &str, content: &str, record_rev: u64) -> Step {
        if self.record_rev > record_rev {
            return Step::Done;
        }
        let refusals = self.refusals.to_string();
        match &self.remote {
            None => Step::Create {
                request_id: request_id(&["create", identity, &refusals]),
            },
            // What is parked is written again: the provider may have made something else of the same
            // content, and whatever stood in the way may be gone.
            Some(_)
                if self.content.as_deref() == Some(content) && self.state != LinkState::Parked =>
            {
                Step::Done
            }
            Some(remote) => Step::Update {
                request_id: request_id(&["update", identity, &refusals, &remote.version, content]),
                remote: remote.clone(),
            },
        }
    }

    /// The link before the call of `step`, or `None` when all of it is already recorded.
    ///
    /// An intent to create is never replaced: the provider may have acted on it, and would then
    /// answer any later creation with what the first one wrote.
    pub fn intend(
        &self,
        step: &Step,
        content: &str,
        record_rev: u64,
        now: DateTime<Utc>,
    ) -> Option<Link> {
        let request_id = match step {
            Step::Done => return None,
            Step::Create { request_id } | Step::Update { request_id, .. } => request_id,
        };
        let recorded = self
            .intent
            .as_ref()
            .filter(|intent| intent.request_id == *request_id);
        if recorded.is_some() && self.record_rev >= record_rev {
            return None;
        }
        let intent = recorded.cloned().unwrap_or_else(|| Intent {
            request_id: request_id.clone(),
            content: content.to_owned(),
            at: now,
        });
        Some(Link {
            // From here on the provider may hold the one or the other, until it has answered.
            content: None,
            intent: Some(intent),
            record_rev,
            ..self.turned(LinkState::Pending, now)
        })
    }

    /// The same link in `state`, from `now` on unless it was in that state before.
    fn turned(&self, state: LinkState, now: DateTime<Utc>) -> Link {
        let before = self.since.filter(|_| self.state == state);
        Link {
            state,
            since: before.or(Some(now)),
            updated_at: Some(now),
            ..self.clone()
        }
    }

    /// The link after revision `record_rev` was found to stand at the provider already, or `None` when
    /// that is recorded. Without it a late worker with a revision in between would write the past.
    pub fn seen(&self, record_rev: u64, now: DateTime<Utc>) -> Option<Link> {
        let waiting = self.still_waiting(record_rev);
        // What was left out for a while and stands there unchanged is as good as sent.
        // So is what failed before it was found to stand there.
        let stands = self.content.is_some() && self.record_rev <= record_rev;
        let state = match self.state {
            LinkState::LeftOut | LinkState::Pending if stands => LinkState::Synced,
            state => state,
        };
        let known = (self.record_rev.max(record_rev), &waiting, state);
        (known != (self.record_rev, &self.waiting, self.state)).then(|| {
            let turned = Link {
                record_rev: known.0,
                waiting: waiting.clone(),
                ..self.turned(state, now)
            };
            match state {
                LinkState::Synced => turned.untroubled(),
                _ => turned,
            }
        })
    }

    /// The link of a record that meets a connection which cannot be used, or `None` when that is
    /// recorded. Nothing else changes: what was open stays open.
    pub fn wait(&self, record_rev: u64, now: DateTime<Utc>) -> Option<Link> {
        let held = self.waiting.as_ref();
        if held.is_some_and(|waiting| waiting.record_rev >= record_rev) {
            return None;
        }
        let waiting = Waiting {
            record_rev,
            since: held.map_or(now, |waiting| waiting.since),
        };
        Some(Link {
            waiting: Some(waiting),
            updated_at: Some(now),
            ..self.clone()
        })
    }

    /// The same link without what was wrong.
    fn untroubled(self) -> Link {
        Link {
            problem: None,
            attempts: 0,
            next_attempt_at: None,
            ..self
        }
    }

    /// What still waits after revision `record_rev` was dealt with.
    fn still_waiting(&self, record_rev: u64) -> Option<Waiting> {
        let waiting = self.waiting.as_ref();
        waiting.filter(|held| held.record_rev > record_rev).cloned()
    }

    /// The link of a record that the merchant does not want to have sent, or `None` when that is
    /// recorded. What the provider holds of it already stays there and stays known.
    pub fn leave_out(&self, record_rev: u64, now: DateTime<Utc>) -> Option<Link> {
        let waiting = self.still_waiting(record_rev);
        (self.state != LinkState::LeftOut || self.waiting != waiting).then(|| Link {
            waiting,
            ..self.turned(LinkState::LeftOut, now).untroubled()
        })
    }

    /// The link after the provider answered a call for `content` with `remote`.
    ///
    /// If the recorded intent was for other content, the answer may be a replay of that one: what
    /// the provider holds is then not certain, and the next round writes it.
    pub fn settle(&self, remote: Remote, content: &str, now: DateTime<Utc>) -> Link {
        let certain = self
            .intent
            .as_ref()
            .is_some_and(|intent| intent.content == content);
        let (state, waiting) = match certain {
            true => (LinkState::Synced, self.still_waiting(self.record_rev)),
            false => (LinkState::Pending, self.waiting.clone()),
        };
        Link {
            remote: Some(remote),
            content: certain.then(|| content.to_owned()),
            intent: None,
            waiting,
            ..self.turned(state, now).untroubled()
        }
    }

    /// The link after the provider said that it holds another version than the one we know.
    pub fn reread(&self, remote: Remote, now: DateTime<Utc>) -> Link {
        Link {
            remote: Some(remote),
            content: None,
            intent: None,
            ..self.turned(LinkState::Pending, now)
        }
    }

    /// The link after the provider refused the very call that the intent stands for: it had no effect,
    /// and the next try is a new request.
    pub fn refuse(&self, problem: Problem, now: DateTime<Utc>) -> Link {
        Link {
            intent: None,
            refusals: self.refusals + 1,
            ..self.park(problem, self.record_rev, now)
        }
    }

    /// The link of a record that cannot be pushed for a reason that does not go away by itself. An
    /// intent stays: what became of its call is still open.
    pub fn park(&self, problem: Problem, record_rev: u64, now: DateTime<Utc>) -> Link {
        Link {
            problem: Some(problem),
            attempts: self.attempts.saturating_add(1),
            next_attempt_at: None,
            waiting: self.still_waiting(record_rev),
            ..self.turned(LinkState::Parked, now)
        }
    }

    /// The link after a try to push revision `record_rev` ended with a failure that may pass, and the
    /// queue brings it again by `next`; `None` when the record stands there all the same, or somebody
    /// with a newer one is at work.
    pub fn fail(
        &self,
        problem: Problem,
        record_rev: u64,
        next: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Option<Link> {
        let stands = self.state == LinkState::Synced && self.record_rev == record_rev;
        (self.record_rev <= record_rev && !stands).then(|| Link {
            problem: Some(problem),
            attempts: self.attempts.saturating_add(1),
            next_attempt_at: Some(next),
            ..self.turned(LinkState::Pending, now)
        })
    }
}

/// An idempotency key of 32 hexadecimal characters, which every provider here takes.
pub fn request_id(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn remote(version: &str) -> Remote {
        Remote {
            id: "7".to_owned(),
            version: version.to_owned(),
            number: None,
        }
    }

    #[test]
    fn a_creation_has_one_key_whatever_its_content() {
        let link = Link::default();
        assert_eq!(
            link.plan("con/order/1", "a", 1),
            link.plan("con/order/1", "b", 2)
        );
        assert_ne!(
            link.plan("con/order/1", "a", 1),
            link.plan("con/order/2", "a", 1)
        );
    }

    #[test]
    fn an_answer_to_an_older_intent_is_not_trusted() {
        let first = Link::default();
        let step = first.plan("r", "old", 1);
        let intended = first.intend(&step, "old", 1, NOW).unwrap();
        // The process dies here; the record changes; another process takes over.
        let step = intended.plan("r", "new", 2);
        let taken_over = intended.intend(&step, "new", 2, NOW).unwrap();
        assert_eq!(taken_over.intent, intended.intent, "the first intent stays");
        let settled = taken_over.settle(remote("0"), "new", NOW);
        assert_eq!(settled.content, None);
        assert!(matches!(settled.plan("r", "new", 2), Step::Update { .. }));
    }

    #[test]
    fn the_same_content_is_written_once() {
        let link = Link::default();
        let step = link.plan("r", "a", 1);
        let link = link
            .intend(&step, "a", 1, NOW)
            .unwrap()
            .settle(remote("0"), "a", NOW);
        assert_eq!(link.state, LinkState::Synced);
        assert_eq!(link.plan("r", "a", 1), Step::Done);
    }

    #[test]
    fn the_past_is_not_written_over_the_present() {
        let link = Link::default();
        let step = link.plan("r", "new", 2);
        let link = link
            .intend(&step, "new", 2, NOW)
            .unwrap()
            .settle(remote("0"), "new", NOW);
        assert_eq!(link.plan("r", "old", 1), Step::Done);
        assert!(matches!(link.plan("r", "newest", 3), Step::Update { .. }));
    }

    #[test]
    fn a_refused_call_is_followed_by_a_new_request() {
        let link = Link::default();
        let step = link.plan("r", "a", 1);
        let intended = link.intend(&step, "a", 1, NOW).unwrap();
        let problem = Problem {
            code: "c".to_owned(),
            detail: "d".to_owned(),
        };
        let parked = intended.park(problem.clone(), 1, NOW);
        assert_eq!(parked.plan("r", "a", 1), step, "an open call is repeated");
        let refused = intended.refuse(problem, NOW);
        assert_ne!(
            refused.plan("r", "a", 1),
            step,
            "a refusal would be repeated for ever"
        );
    }

    #[test]
    fn what_waits_goes_on_where_it_stood() {
        let link = Link::default();
        let step = link.plan("r", "a", 1);
        let open = link.intend(&step, "a", 1, NOW).unwrap();
        let waiting = open.wait(2, NOW).unwrap();
        assert_eq!(waiting.intent, open.intent, "an open call stays open");
        assert_eq!(waiting.wait(2, NOW), None);
        assert_eq!(waiting.wait(1, NOW), None);
        // Somebody who had read the record before it changed is no reason to stop waiting.
        let settled = waiting.settle(remote("0"), "a", NOW);
        assert_eq!(settled.waiting, waiting.waiting);
        let step = settled.plan("r", "b", 2);
        let pushed = settled.intend(&step, "b", 2, NOW).unwrap();
        assert_eq!(pushed.settle(remote("1"), "b", NOW).waiting, None);
        let problem = Problem {
            code: "c".to_owned(),
            detail: "d".to_owned(),
        };
        assert_eq!(pushed.park(problem, 2, NOW).waiting, None);
        assert_eq!(settled.seen(2, NOW).unwrap().waiting, None);
    }

    #[test]
    fn what_fails_stays_open_until_it_stands_there() {
        let problem = Problem {
            code: "c".to_owned(),
            detail: "d".to_owned(),
        };
        let next = NOW + chrono::TimeDelta::seconds(1);
        let fail = |link: &Link, rev| link.fail(problem.clone(), rev, next, NOW);
        let failed = fail(&Link::default(), 1).unwrap();
        let failed = fail(&failed, 1).unwrap();
        assert_eq!((failed.state, failed.attempts), (LinkState::Pending, 2));
        assert_eq!(failed.next_attempt_at, Some(next));
        let intended = |link: &Link, content: &str, rev| {
            let step = link.plan("r", content, rev);
            link.intend(&step, content, rev, NOW).unwrap()
        };
        let open = intended(&failed, "a", 2);
        assert_eq!(open.problem, failed.problem, "it is not over yet");
        assert_eq!(
            fail(&open, 1),
            None,
            "somebody with a newer record is at work"
        );
        let synced = open.settle(remote("0"), "a", NOW);
        let clean = |link: &Link| {
            assert_eq!(link.state, LinkState::Synced);
            assert_eq!((&link.problem, link.attempts), (&None, 0));
            assert_eq!(link.next_attempt_at, None);
        };
        clean(&synced);
        assert_eq!(fail(&synced, 2), None, "it stands there");
        // A newer revision fails before it is known to be the same over there.
        let failed = fail(&synced, 3).unwrap();
        assert_eq!(failed.plan("r", "a", 3), Step::Done);
        clean(&failed.seen(3, NOW).unwrap());
        assert!(matches!(failed.plan("r", "b", 3), Step::Update { .. }));
        // Parked, it is written again even where the content is the same.
        let parked = synced.park(problem.clone(), 2, NOW);
        assert!(matches!(parked.plan("r", "a", 2), Step::Update { .. }));
        assert_eq!(parked.attempts, 1);
        assert_eq!(fail(&parked, 2).unwrap().state, LinkState::Pending);
    }

    #[test]
    fn a_state_has_the_time_of_its_beginning() {
        let at = |seconds| NOW + chrono::TimeDelta::seconds(seconds);
        let problem = Problem {
            code: "c".to_owned(),
            detail: "d".to_owned(),
        };
        let fail = |link: &Link, seconds| {
            let now = at(seconds);
            link.fail(problem.clone(), 1, now, now).unwrap()
        };
        let failing = fail(&fail(&Link::default(), 1), 2);
        assert_eq!(failing.since, Some(at(1)));
        assert_eq!(failing.updated_at, Some(at(2)));
        let step = failing.plan("r", "a", 1);
        let open = failing.intend(&step, "a", 1, at(3)).unwrap();
        assert_eq!(open.since, Some(at(1)));
        let synced = open.settle(remote("0"), "a", at(4));
        assert_eq!(synced.since, Some(at(4)));
        assert_eq!(synced.park(problem, 1, at(5)).since, Some(at(5)));
    }

    #[test]
    fn rows_of_before_are_read() {
        let row = serde_json::json!({
            "state": "parked", "remote": { "id": "7", "version": "0" }, "content": null,
            "intent": null, "record_rev": 3, "refusals": 1,
            "problem": { "code": "c", "detail": "d" },
            "waiting": {
                "record": { "type": "order", "id": "1" }, "order_id": "1", "record_rev": 4,
                "since": "2026-01-01T00:00:00Z",
            },
            "updated_at": "2026-01-01T00:00:00Z",
        });
        let link: Link = serde_json::from_value(row).unwrap();
        assert_eq!(link.standing(), Standing::Waiting);
        assert_eq!(link.waiting.unwrap().record_rev, 4);
        assert_eq!((link.attempts, link.since), (0, None));
        assert_eq!(link.remote.unwrap().number, None);
    }

    #[test]
    fn what_is_left_out_keeps_what_the_provider_holds() {
        let link = Link::default();
        let step = link.plan("r", "a", 1);
        let link = link.intend(&step, "a", 1, NOW).unwrap();
        let link = link.settle(remote("0"), "a", NOW);
        let out = link.leave_out(2, NOW).unwrap();
        assert_eq!(
            (out.state, &out.remote),
            (LinkState::LeftOut, &Some(remote("0")))
        );
        assert_eq!(out.leave_out(3, NOW), None);
        assert_eq!(out.plan("r", "a", 3), Step::Done);
        assert_eq!(out.seen(3, NOW).unwrap().state, LinkState::Synced);
    }

    #[test]
    fn an_update_has_another_key_for_each_version_and_content() {
        let link = Link {
            remote: Some(remote("0")),
            ..Link::default()
        };
        let key = |link: &Link, content: &str| match link.plan("r", content, 1) {
            Step::Update { request_id, .. } => request_id,
            other => panic!("{other:?}"),
        };
        let reread = link.reread(remote("1"), NOW);
        assert_ne!(key(&link, "a"), key(&link, "b"));
        assert_ne!(key(&link, "a"), key(&reread, "a"));
    }
}
