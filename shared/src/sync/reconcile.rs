//! Comparing the books with what the shop says, one day at a time: values in, differences out.

use super::push::{Form, Problem, Remote, RowKind, RowRef};
use crate::model::ids::RecordId;
use crate::model::money::Money;
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How far the push of a document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The provider was last given what we hold.
    Settled,
    /// The shop has a newer one, which nobody has pushed.
    Newer,
    /// It is on its way, or is tried again by itself.
    UnderWay,
    /// It was on its way, and nobody has touched it for long: its message was given up.
    Left,
    /// It is not given to the provider until somebody changes something.
    Parked(Problem),
}

/// A document that the books are to show.
#[derive(Debug, Clone, PartialEq)]
pub struct Ours {
    pub row: RowRef,
    /// The order that its record belongs to, if any.
    pub order_id: Option<RecordId>,
    pub form: Form,
    pub day: NaiveDate,
    pub total: Money,
    pub mark: String,
    /// What the ledger knows it by at the provider.
    pub remote: Option<Remote>,
    pub progress: Progress,
    /// How many records stand behind it, if it is of a daily summary.
    pub behind: Option<u64>,
}

/// A document that the books show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Theirs {
    pub form: Form,
    pub remote: Remote,
    /// The words in it by which we know ours.
    pub mark: Option<String>,
    pub day: NaiveDate,
    pub total: Decimal,
    pub currency: String,
}

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The books do not show it.
    Missing,
    /// The books show it twice.
    Doubled,
    /// Somebody changed it over there.
    ChangedThere,
    /// It changed here, and the books do not show that yet.
    ChangedHere,
    /// The books show something that is nothing of ours. That is no fault.
    NotOurs,
}

impl Class {
    pub const ALL: [Class; 5] = [
        Class::Missing,
        Class::Doubled,
        Class::ChangedThere,
        Class::ChangedHere,
        Class::NotOurs,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Class::Missing => "missing",
            Class::Doubled => "doubled",
            Class::ChangedThere => "changed_there",
            Class::ChangedHere => "changed_here",
            Class::NotOurs => "not_ours",
        }
    }
}

/// Where a difference stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided {
    /// It waits for somebody to decide.
    Open,
    /// It was sent, so that the books follow; the next reconciliation shows whether they did.
    Sent,
    /// Somebody lets it stand.
    Accepted,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    pub day: NaiveDate,
    pub currency: String,
    /// In major units.
    pub total: Decimal,
}

/// One difference, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is about, the same in every reconciliation.
    pub id: String,
    pub class: Class,
    pub day: NaiveDate,
    pub kind: RowKind,
    /// The row of the ledger; nothing for what is not ours.
    pub record: Option<RowRef>,
    #[serde(default)]
    pub order_id: Option<RecordId>,
    /// How many records stand behind it, if it is a daily summary.
    #[serde(default)]
    pub behind: Option<u64>,
    pub ours: Option<Side>,
    pub theirs: Option<Side>,
    pub remote: Option<Remote>,
    /// In words that the merchant understands.
    pub detail: String,
    pub decided: Decided,
    pub decided_at: Option<DateTime<Utc>>,
}

/// How many documents, and what they make, in major units.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    pub count: u64,
    pub total: Decimal,
}

impl Part {
    pub fn add(&mut self, total: Decimal) {
        self.count += 1;
        self.total += total;
    }
}

/// The documents of one day, currency and kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    pub day: NaiveDate,
    pub currency: String,
    pub kind: RowKind,
    pub ours: Part,
    /// Those of the books that are ours.
    pub theirs: Part,
    pub not_ours: Part,
    /// How many records stand behind those of ours that are daily summaries.
    #[serde(default)]
    pub behind: u64,
}

/// What a look at two lists cannot tell alone.
#[derive(Debug, Clone, PartialEq)]
pub enum Suspect<'a> {
    /// The list of that day does not show it.
    Absent(&'a Ours),
    /// It shows something else.
    Differs(&'a Ours, &'a Theirs),
    /// It bears our mark and is not what we know under it.
    Stray(&'a Theirs, RowRef),
    NotOurs(&'a Theirs),
}

impl Ours {
    /// Whether the books show it as it is.
    pub fn agrees(&self, theirs: &Theirs) -> bool {
        (self.day, self.total.major(), self.total.currency.code())
            == (theirs.day, theirs.total, theirs.currency.as_str())
    }

    pub fn side(&self) -> Side {
        Side {
            day: self.day,
            currency: self.total.currency.code().to_owned(),
            total: self.total.major(),
        }
    }
}

impl Theirs {
    pub fn side(&self) -> Side {
        Side {
            day: self.day,
            currency: self.currency.clone(),
            total: self.total,
        }
    }

    /// The row of the ledger that its mark names. People may have written around it.
    pub fn marked(&self) -> Option<RowRef> {
        marked(self.form, self.mark.as_deref()?)
    }
}

/// Reads a mark, as `providers::accounting::Document::mark` writes it.
pub fn marked(form: Form, text: &str) -> Option<RowRef> {
    let kind = form.kind();
    let (_, rest) = text.split_once(&format!("Crossdock {} ", kind.words()))?;
    let id = rest.split_whitespace().next()?.replace('/', "~");
    Some(RowRef { kind, id })
}

/// The sums of a day by currency and kind, and what of both lists does not meet.
pub fn compare<'a>(
    day: NaiveDate,
    ours: &'a [Ours],
    theirs: &'a [Theirs],
) -> (Vec<Sum>, Vec<Suspect<'a>>) {
    let mut sums: BTreeMap<(String, RowKindOrder), Sum> = BTreeMap::new();
    fn of<'s>(
        sums: &'s mut BTreeMap<(String, RowKindOrder), Sum>,
        day: NaiveDate,
        currency: &str,
        kind: RowKind,
    ) -> &'s mut Sum {
        sums.entry((currency.to_owned(), RowKindOrder(kind)))
            .or_insert_with(|| Sum {
                day,
                currency: currency.to_owned(),
                kind,
                ours: Part::default(),
                theirs: Part::default(),
                not_ours: Part::default(),
                behind: 0,
            })
    }
    let mut suspects = Vec::new();
    let mut by_id: HashMap<(Form, &str), &Theirs> = HashMap::new();
    let mut by_row: BTreeMap<RowRef, Vec<&Theirs>> = BTreeMap::new();
    let mut own: BTreeSet<(RowKindOrder, &str)> = BTreeSet::new();
    for one in theirs {
        by_id.insert((one.form, &one.remote.id), one);
        if let Some(row) = one.marked() {
            by_row.entry(row).or_default().push(one);
        }
    }
    for one in ours {
        let (kind, currency) = (one.row.kind, one.total.currency.code());
        let sum = of(&mut sums, day, currency, kind);
        sum.ours.add(one.total.major());
        sum.behind += one.behind.unwrap_or_default();
        let found = match &one.remote {
            Some(remote) => by_id.get(&(one.form, remote.id.as_str())).copied(),
            // Made by a call of which nobody knows, or about to be known.
            None => by_row.get(&one.row).and_then(|all| all.first().copied()),
        };
        match found {
            Some(found) => {
                own.insert((RowKindOrder(kind), &found.remote.id));
                if !one.agrees(found) || one.remote.is_none() {
                    suspects.push(Suspect::Differs(one, found));
                }
            }
            None => suspects.push(Suspect::Absent(one)),
        }
    }
    for one in theirs {
        let kind = one.form.kind();
        let known = own.contains(&(RowKindOrder(kind), &one.remote.id));
        let marked = one.marked();
        let sum = of(&mut sums, day, &one.currency, kind);
        match (known, marked) {
            (true, _) => sum.theirs.add(one.total),
            (false, Some(row)) => {
                sum.theirs.add(one.total);
                suspects.push(Suspect::Stray(one, row));
            }
            (false, None) => {
                sum.not_ours.add(one.total);
                suspects.push(Suspect::NotOurs(one));
            }
        }
    }
    (sums.into_values().collect(), suspects)
}

/// Kinds in the order of the ledger's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowKindOrder(RowKind);

impl RowKindOrder {
    fn place(self) -> Option<usize> {
        RowKind::ALL.iter().position(|kind| *kind == self.0)
    }
}

impl Ord for RowKindOrder {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for RowKindOrder {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day() -> NaiveDate {
        NaiveDate::from_ymd_opt(2026, 1, 2).unwrap()
    }

    fn remote(id: &str) -> Remote {
        Remote {
            id: id.to_owned(),
            version: "0".to_owned(),
            number: None,
            content: None,
        }
    }

    fn ours(id: &str, amount: i64, known: Option<&str>) -> Ours {
        Ours {
            row: RowRef {
                kind: RowKind::Order,
                id: id.to_owned(),
            },
            order_id: None,
            form: Form::Invoice,
            day: day(),
            total: Money::new(amount, "USD".parse().unwrap()),
            mark: format!("Crossdock order {id}"),
            remote: known.map(remote),
            progress: Progress::Settled,
            behind: None,
        }
    }

    fn theirs(id: &str, mark: &str, amount: i64) -> Theirs {
        Theirs {
            form: Form::Invoice,
            remote: remote(id),
            mark: (!mark.is_empty()).then(|| mark.to_owned()),
            day: day(),
            total: Decimal::new(amount, 2),
            currency: "USD".to_owned(),
        }
    }

    #[test]
    fn what_meets_is_no_suspect_and_sums_stand_side_by_side() {
        let here = [ours("1", 100, Some("a")), ours("2", 250, Some("b"))];
        let there = [
            theirs("b", "note by hand", 250),
            theirs("a", "Crossdock order 1", 100),
        ];
        let (sums, suspects) = compare(day(), &here, &there);
        assert_eq!(suspects, []);
        let [sum] = sums.as_slice() else {
            panic!("{sums:?}")
        };
        assert_eq!(
            (sum.ours.count, sum.theirs.count, sum.not_ours.count),
            (2, 2, 0)
        );
        assert_eq!(sum.ours.total, sum.theirs.total);
    }

    #[test]
    fn each_kind_of_difference_is_suspected() {
        let here = [
            ours("1", 100, Some("a")),
            ours("2", 250, Some("b")),
            ours("3", 300, None),
        ];
        let there = [
            theirs("a", "Crossdock order 1", 101),
            theirs("a2", "Crossdock order 1 again", 100),
            theirs("z", "rent", 999),
        ];
        let (sums, suspects) = compare(day(), &here, &there);
        assert_eq!(
            suspects,
            [
                Suspect::Differs(&here[0], &there[0]),
                Suspect::Absent(&here[1]),
                Suspect::Absent(&here[2]),
                Suspect::Stray(&there[1], here[0].row.clone()),
                Suspect::NotOurs(&there[2]),
            ]
        );
        assert_eq!(sums[0].not_ours.total, Decimal::new(999, 2));
        assert_eq!(sums[0].theirs.count, 2);
    }

    /// Two amounts that change places leave every sum as it is, and are found all the same.
    #[test]
    fn a_swap_is_found_though_sums_agree() {
        let here = [ours("1", 100, Some("a")), ours("2", 200, Some("b"))];
        let there = [
            theirs("a", "Crossdock order 1", 200),
            theirs("b", "Crossdock order 2", 100),
        ];
        let (sums, suspects) = compare(day(), &here, &there);
        assert_eq!(sums[0].ours.total, sums[0].theirs.total);
        assert_eq!(suspects.len(), 2);
    }

    #[test]
    fn marks_are_read_as_they_are_written() {
        let row = |form, text| marked(form, text).map(|row| row.id);
        assert_eq!(
            row(Form::Payment, "Crossdock payment 1/p"),
            Some("1~p".into())
        );
        assert_eq!(
            row(Form::Invoice, "x Crossdock order 1 y"),
            Some("1".into())
        );
        assert_eq!(
            row(Form::RefundPayment, "Crossdock refund payment r"),
            Some("r".into())
        );
        assert_eq!(
            row(Form::JournalEntry, "Crossdock payout po"),
            Some("po".into())
        );
        assert_eq!(
            row(Form::BankTransaction, "Crossdock payout fees po"),
            Some("po".into())
        );
        assert_eq!(row(Form::Invoice, "Crossdock refund 1"), None);
        assert_eq!(row(Form::Invoice, "Crossdock order "), None);
    }
}
