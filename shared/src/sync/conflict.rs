//! What becomes of a change that was made at the provider: our own write that comes back, somebody's
//! edit, a deletion. It is decided from what the ledger knows, what is seen there, and what the merchant
//! set; whoever calls stores it.

use super::push::{Form, Link, LinkState, Problem, Remote};
use chrono::{DateTime, TimeDelta, Utc};
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
    let older = number(&there.version) < number(&remote.version);
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
             mistake, post it there by hand"
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
