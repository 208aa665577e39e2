//! What becomes of a change that was made at the provider: our own write that comes back, somebody's
//! edit, a deletion. It is decided from what the ledger knows, what is seen there, and what the merchant
//! set; whoever calls stores it.

use super::push::{Form, Link, LinkState, Problem, Remote};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How much later than the shop's change the provider's must be to be newer: less may be the difference
/// of two clocks.
pub const CLOCKS_APART_MAX: TimeDelta = TimeDelta::seconds(5);

/// Fields for which a conflict is decided together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fields {
    /// Lines, amounts, taxes, dates, currency, and whose the document is: what moves the books.
    Amounts,
    /// Numbers, notes and names: what people read.
    Words,
}

/// Who wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    /// What the shop says is written again.
    ShopWins,
    /// What the provider holds stays, and the shop does not write over it.
    ProviderWins,
    /// Whoever changed it last.
    NewestWins,
}

impl Winner {
    pub const ALL: [Winner; 3] = [Winner::ShopWins, Winner::ProviderWins, Winner::NewestWins];
}

/// Who wins, for each group of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conflicts {
    pub amounts: Winner,
    pub words: Winner,
}

impl Default for Conflicts {
    /// The shop knows what it sold; how people call it in the books is for those who keep them.
    fn default() -> Conflicts {
        Conflicts {
            amounts: Winner::ShopWins,
            words: Winner::ProviderWins,
        }
    }
}

impl Conflicts {
    /// Whether any decision needs to know when the shop changed its record.
    pub fn by_time(&self) -> bool {
        [self.amounts, self.words].contains(&Winner::NewestWins)
    }
}

/// The fingerprints of what a thing is at the provider, by group of fields. The provider reckons and adds
/// members of its own, so these are of its own words, and never of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub amounts: String,
    pub words: String,
}

/// How a thing went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    Deleted,
    /// It is still shown, and counts for nothing.
    Voided,
}

/// How a thing stands at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Stands {
        remote: Remote,
        /// The members of the group [`Fields::Words`] that our own bodies have too.
        words: Value,
    },
    Gone(Gone),
}

/// One thing as the provider shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The provider's kind, as its `changes.rs` names it.
    pub kind: &'static str,
    pub id: String,
    pub standing: Standing,
    /// When it changed last, by the provider's clock.
    pub at: Option<DateTime<Utc>>,
    /// The words by which we know a document of ours, if it carries any.
    pub mark: Option<String>,
    pub shown: Shown,
}

impl Seen {
    /// What is no longer there.
    pub fn deleted(kind: &'static str, id: &str) -> Seen {
        Seen {
            kind,
            id: id.to_owned(),
            standing: Standing::Gone(Gone::Deleted),
            at: None,
            mark: None,
            shown: Shown::default(),
        }
    }
}

/// What people see of a thing over there, as far as it has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    pub day: Option<NaiveDate>,
    /// In major units.
    pub total: Option<Decimal>,
    /// Absent where the company has one currency.
    pub currency: Option<String>,
    /// Of customers and items.
    pub name: Option<String>,
    /// Of documents, for people.
    pub note: Option<String>,
}

/// What a change was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Changed,
    Deleted,
    Voided,
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The shop's record is written again.
    ShopWins,
    /// What stands there is accepted.
    ProviderWins,
    /// Somebody has to decide.
    Parked,
}

/// A change that the platform is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub what: What,
    pub fields: Vec<Fields>,
    pub outcome: Outcome,
    /// The row after it.
    pub link: Link,
}

/// What is to be made of a thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is nothing of this row.
    Stranger,
    /// The row knows it already, or something newer.
    Known,
    /// A write of ours is open: until it is concluded, nobody can tell whose change this is.
    Open,
    /// Nothing of matter changed; the row is to hold the version.
    Noted(Box<Link>),
    Changed(Box<Change>),
}

/// The first number in a version: a count at QuickBooks, milliseconds at Xero.
fn number(version: &str) -> Option<u64> {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// Whether a version that counts milliseconds is of more than an hour from now. Those that count changes
/// are far below.
fn is_to_come(version: u64, now: DateTime<Utc>) -> bool {
    let soon = (now + TimeDelta::hours(1)).timestamp_millis();
    u64::try_from(soon).is_ok_and(|soon| version > soon)
}

/// What `link`, of which the document is called `title` in words, makes of `seen`.
///
/// `there_is_newer` says who changed last, where the policy asks. What is `fixed` cannot be written
/// again.
pub fn judge(
    link: &Link,
    seen: &Seen,
    policy: &Conflicts,
    there_is_newer: bool,
    (fixed, title): (bool, &str),
    now: DateTime<Utc>,
) -> Verdict {
    if link.intent.is_some() {
        return Verdict::Open;
    }
    let Some(remote) = link.remote.as_ref().filter(|remote| remote.id == seen.id) else {
        return Verdict::Stranger;
    };
    if link.gone.is_some() {
        return Verdict::Known;
    }
    let (there, words) = match &seen.standing {
        Standing::Gone(gone) => return Verdict::Changed(Box::new(vanish(link, *gone, title, now))),
        Standing::Stands { remote, words } => (remote, words),
    };
    // A moment that is still to come was never a version.
    let held = number(&remote.version).filter(|held| !is_to_come(*held, now));
    let older = held.is_some_and(|held| number(&there.version) < Some(held));
    if there.version == remote.version || older {
        return Verdict::Known;
    }
    let noted = Link {
        remote: Some(there.clone()),
        updated_at: Some(now),
        ..link.clone()
    };
    let (Some(held), Some(content)) = (&remote.content, &there.content) else {
        // The first look at something that was adopted: what stands there is what we go by.
        return Verdict::Noted(Box::new(noted));
    };
    let mut fields = Vec::new();
    if held.amounts != content.amounts {
        fields.push(Fields::Amounts);
    }
    if held.words != content.words {
        fields.push(Fields::Words);
    }
    if fields.is_empty() {
        return Verdict::Noted(Box::new(noted));
    }
    // What the merchant wants to have left out, the shop no longer writes.
    let left_out = link.state == LinkState::LeftOut;
    let theirs = |winner: Winner| match winner {
        Winner::ShopWins => left_out,
        Winner::ProviderWins => true,
        Winner::NewestWins => there_is_newer,
    };
    let (amounts, wording) = (
        fields.contains(&Fields::Amounts),
        fields.contains(&Fields::Words),
    );
    let mut link = noted;
    if wording && policy.words == Winner::ProviderWins {
        link.kept = Some(words.clone());
    }
    let accepted = |link: Link, held_amounts: bool| Change {
        what: What::Changed,
        fields: fields.clone(),
        outcome: Outcome::ProviderWins,
        link: Link {
            amounts_kept: held_amounts || link.amounts_kept,
            ..link
        },
    };
    let change = if amounts && theirs(policy.amounts) {
        // A document is written whole, so its words stay with its amounts.
        accepted(link, policy.amounts == Winner::ProviderWins)
    } else if !amounts && theirs(policy.words) {
        accepted(link, false)
    } else if fixed {
        let problem = Problem {
            code: "changed_there".to_owned(),
            detail: format!(
                "somebody changed this {title} there, and it cannot be written again; compare the two \
                 and correct it there"
            ),
        };
        let rev = link.record_rev;
        Change {
            what: What::Changed,
            fields,
            outcome: Outcome::Parked,
            link: Link {
                content: None,
                ..link.park(problem, rev, now)
            },
        }
    } else {
        Change {
            what: What::Changed,
            fields,
            outcome: Outcome::ShopWins,
            link: link.reread(there.clone(), now),
        }
    };
    Verdict::Changed(Box::new(change))
}

/// The row of something that somebody took away: it is shown, and never made again by itself.
fn vanish(link: &Link, gone: Gone, title: &str, now: DateTime<Utc>) -> Change {
    let (what, code, word) = match gone {
        Gone::Deleted => (What::Deleted, "deleted_there", "deleted"),
        Gone::Voided => (What::Voided, "voided_there", "voided"),
    };
    let problem = Problem {
        code: code.to_owned(),
        detail: format!(
            "somebody {word} this {title} there, so it is not made again by itself; if that was a \
             mistake, reconcile its day and repair what is missing"
        ),
    };
    Change {
        what,
        fields: Vec::new(),
        outcome: Outcome::Parked,
        link: Link {
            gone: Some(gone),
            content: None,
            ..link.park(problem, link.record_rev, now)
        },
    }
}

/// Whether the provider's change is newer than the shop's: the shop's is from `shop_at`, if it has one
/// that is not at the provider yet, and the provider's clock is `skew` ahead of ours.
pub fn is_newer_there(
    there_at: Option<DateTime<Utc>>,
    shop_at: Option<DateTime<Utc>>,
    skew: TimeDelta,
) -> bool {
    match (there_at, shop_at) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(there), Some(shop)) => there - skew > shop + CLOCKS_APART_MAX,
    }
}

impl Link {
    /// `body` with the words that the provider's people chose, where those win.
    pub fn with_kept_words(&self, mut body: Value, policy: &Conflicts) -> Value {
        if policy.words == Winner::ProviderWins
            && let (Some(Value::Object(kept)), Some(members)) = (&self.kept, body.as_object_mut())
        {
            members.extend(kept.clone());
        }
        body
    }

    /// What is wrong when the shop's amounts may not be written over those of the provider.
    pub fn barred(&self, policy: &Conflicts, form: Form) -> Option<Problem> {
        let barred = self.amounts_kept && policy.amounts == Winner::ProviderWins;
        barred.then(|| Problem {
            code: "kept_as_there".to_owned(),
            detail: format!(
                "the shop changed what this {} is about after it was changed in the books, and by the \
                 settings of this connection the books win; correct it there, or let the shop win and \
                 retry",
                form.title()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::push::Goal;
    use serde_json::json;

    const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

    fn remote(version: &str, amounts: &str, words: &str) -> Remote {
        Remote {
            id: "7".to_owned(),
            version: version.to_owned(),
            number: None,
            content: Some(Content {
                amounts: amounts.to_owned(),
                words: words.to_owned(),
            }),
        }
    }

    fn goal(content: &str, record_rev: u64) -> Goal<'_> {
        Goal {
            form: Form::Invoice,
            content,
            record_rev,
            nothing: false,
        }
    }

    fn held() -> Link {
        let open = Link::default().intend("call", Form::Invoice, "ours", 1, NOW);
        open.settle(remote("3", "a", "w"), NOW)
    }

    fn seen(version: &str, amounts: &str, words: &str) -> Seen {
        Seen {
            kind: "invoice",
            id: "7".to_owned(),
            standing: Standing::Stands {
                remote: remote(version, amounts, words),
                words: json!({ "note": words }),
            },
            at: Some(NOW),
            mark: None,
            shown: Shown::default(),
        }
    }

    fn judged(link: &Link, seen: &Seen, policy: &Conflicts, newer: bool) -> Verdict {
        judge(link, seen, policy, newer, (false, "invoice"), NOW)
    }

    fn changed(verdict: Verdict) -> Change {
        match verdict {
            Verdict::Changed(change) => *change,
            other => panic!("{other:?}"),
        }
    }

    fn all(winner: Winner) -> Conflicts {
        Conflicts {
            amounts: winner,
            words: winner,
        }
    }

    #[test]
    fn our_own_write_is_known_and_so_is_what_came_before_it() {
        for winner in Winner::ALL {
            let policy = all(winner);
            let own = judged(&held(), &seen("3", "a", "w"), &policy, true);
            assert_eq!(own, Verdict::Known);
            let late = judged(&held(), &seen("2", "x", "y"), &policy, true);
            assert_eq!(late, Verdict::Known, "it was on its way while we wrote");
            let Verdict::Noted(link) = judged(&held(), &seen("10", "a", "w"), &policy, true) else {
                panic!("a payment was applied, say");
            };
            let same = Link {
                remote: held().remote,
                ..(*link).clone()
            };
            assert_eq!(same, held(), "only the version moves");
            assert_eq!(link.remote.unwrap().version, "10");
        }
    }

    #[test]
    fn versions_are_numbers_in_whatever_they_stand() {
        let link = |version: &str| Link {
            remote: Some(remote(version, "a", "w")),
            ..held()
        };
        let policy = all(Winner::ShopWins);
        for (before, after) in [("9", "10"), ("/Date(999)/", "/Date(1000+0000)/")] {
            let late = judged(&link(after), &seen(before, "x", "w"), &policy, true);
            assert_eq!(late, Verdict::Known, "{before} comes before {after}");
            changed(judged(&link(before), &seen(after, "x", "w"), &policy, true));
        }
        // One of a time that is still to come hides nothing that follows.
        let to_come = link("/Date(7258114800000+0000)/");
        changed(judged(
            &to_come,
            &seen("/Date(1000+0000)/", "x", "w"),
            &policy,
            true,
        ));
    }

    /// Every policy with every change: what is written, and what stays.
    #[test]
    fn each_group_is_decided_by_its_own_policy() {
        for amounts in Winner::ALL {
            for words in Winner::ALL {
                for (newer, change) in [false, true].into_iter().flat_map(|newer| {
                    [("x", "w"), ("a", "y"), ("x", "y")].map(|change| (newer, change))
                }) {
                    let policy = Conflicts { amounts, words };
                    let seen = seen("4", change.0, change.1);
                    let change_made = changed(judged(&held(), &seen, &policy, newer));
                    let theirs = |winner| match winner {
                        Winner::ShopWins => false,
                        Winner::ProviderWins => true,
                        Winner::NewestWins => newer,
                    };
                    let stays = match change {
                        ("a", _) => theirs(words),
                        _ => theirs(amounts),
                    };
                    let what = format!("{policy:?} {newer} {change:?}");
                    let link = &change_made.link;
                    let expected = if stays {
                        Outcome::ProviderWins
                    } else {
                        Outcome::ShopWins
                    };
                    assert_eq!(change_made.outcome, expected, "{what}");
                    assert_eq!(link.remote.as_ref().unwrap().version, "4", "{what}");
                    // The shop's own record did not change.
                    let step = link.plan(goal("ours", 1), false);
                    assert_eq!(step == super::super::push::Step::Done, stays, "{what}");
                    let body = json!({ "note": "ours", "total": 1 });
                    let body = link.with_kept_words(body, &policy);
                    let kept = change.1 == "y" && words == Winner::ProviderWins;
                    assert_eq!(body["note"] == "y", kept, "{what}: {body}");
                    assert_eq!(body["total"], 1);
                    let barred = link.barred(&policy, Form::Invoice).is_some();
                    let bars = change.0 == "x" && amounts == Winner::ProviderWins;
                    assert_eq!(barred, bars, "{what}");
                    // And then it is known.
                    assert_eq!(judged(link, &seen, &policy, newer), Verdict::Known);
                }
            }
        }
    }

    #[test]
    fn what_is_gone_is_told_once_and_never_written_again() {
        for gone in [Gone::Deleted, Gone::Voided] {
            let seen = Seen {
                standing: Standing::Gone(gone),
                ..seen("9", "a", "w")
            };
            let policy = Conflicts::default();
            let change = changed(judged(&held(), &seen, &policy, true));
            assert_eq!(change.outcome, Outcome::Parked);
            let link = change.link;
            assert_eq!(link.state, LinkState::Parked);
            for rev in 1..4 {
                let step = link.plan(goal("another", rev), false);
                assert_eq!(step, super::super::push::Step::Done);
                let after = link.seen(rev, NOW).unwrap_or_else(|| link.clone());
                assert_eq!(after.state, LinkState::Parked);
                assert_eq!(
                    link.fail(link.problem.clone().unwrap(), rev, NOW, NOW),
                    None
                );
            }
            assert_eq!(judged(&link, &seen, &policy, true), Verdict::Known);
        }
    }

    #[test]
    fn nothing_is_decided_while_a_write_is_open_or_of_another_thing() {
        let open = held().intend("next", Form::Invoice, "new", 2, NOW);
        let policy = Conflicts::default();
        let verdict = judged(&open, &seen("4", "x", "y"), &policy, true);
        assert_eq!(verdict, Verdict::Open);
        let other = Seen {
            id: "8".to_owned(),
            ..seen("4", "x", "y")
        };
        assert_eq!(judged(&held(), &other, &policy, true), Verdict::Stranger);
        assert_eq!(
            judged(&Link::default(), &other, &policy, true),
            Verdict::Stranger
        );
    }

    #[test]
    fn what_cannot_be_written_is_parked_and_what_is_left_out_is_left() {
        let policy = all(Winner::ShopWins);
        let seen = seen("4", "x", "w");
        let fixed = judge(&held(), &seen, &policy, true, (true, "payment"), NOW);
        let change = changed(fixed);
        assert_eq!(change.outcome, Outcome::Parked);
        let after = change.link.seen(2, NOW).unwrap();
        assert_eq!(after.state, LinkState::Parked, "a push does not hide it");
        let out = held().leave_out(2, NOW).unwrap();
        let change = changed(judged(&out, &seen, &policy, true));
        assert_eq!(change.outcome, Outcome::ProviderWins);
        assert_eq!(change.link.state, LinkState::LeftOut);
    }

    #[test]
    fn the_newest_is_found_in_spite_of_two_clocks() {
        let at = |seconds: i64| Some(NOW + TimeDelta::seconds(seconds));
        let skew = TimeDelta::seconds(100);
        assert!(
            is_newer_there(at(0), None, skew),
            "the shop has nothing new"
        );
        assert!(!is_newer_there(None, at(0), skew));
        for (there, shop, newer) in [
            (200, 0, true),
            (100, 0, false),
            (105, 0, false),
            (106, 0, true),
        ] {
            assert_eq!(
                is_newer_there(at(there), at(shop), skew),
                newer,
                "{there} {shop}"
            );
        }
    }
}
