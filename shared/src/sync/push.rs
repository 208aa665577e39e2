//! Pushing one document to one provider so that a crash, a double or a late message at any point has
//! no second effect.
//!
//! The order is always: record the intent, seal the call, make it, store what came back. An intent names
//! the call that carries it, and a call's very bytes are kept under its name, which is also the
//! provider's idempotency key. So whoever finds an open intent first concludes it by sending the very
//! same call again: providers repeat their answers, and then it is known what stands there. Nobody
//! replaces an intent whose call may have been made.

use super::conflict::{Content, Gone};
use crate::model::event::RecordKind;
use crate::model::ids::RecordId;
use crate::model::money::Money;
use crate::model::notice::RecordRef;
use crate::model::order_record::Sequence;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most rounds of one push: conclude, create or update, and after a stale version re-read and update.
pub const PUSH_ROUNDS_MAX: usize = 6;

/// What a document is in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A sale with its payment in one.
    SalesReceipt,
    /// A sale that payments settle.
    Invoice,
    /// Money that settles an invoice.
    Payment,
    /// A refund with the money that goes back in one.
    RefundReceipt,
    /// A refund of which the money goes back by itself.
    CreditNote,
    /// The money of a credit note.
    RefundPayment,
    /// A payout with all that was kept of it in one.
    JournalEntry,
    /// The money of a payout, on its way from one account to another.
    BankTransfer,
    /// What was kept of a payout.
    BankTransaction,
}

impl Form {
    pub const ALL: [Form; 9] = [
        Form::SalesReceipt,
        Form::Invoice,
        Form::Payment,
        Form::RefundReceipt,
        Form::CreditNote,
        Form::RefundPayment,
        Form::JournalEntry,
        Form::BankTransfer,
        Form::BankTransaction,
    ];

    /// The kind of its rows in the ledger: one record has one row of each kind, whatever the form.
    pub const fn kind(self) -> RowKind {
        match self {
            Form::SalesReceipt | Form::Invoice => RowKind::Order,
            Form::Payment => RowKind::Payment,
            Form::RefundReceipt | Form::CreditNote => RowKind::Refund,
            Form::RefundPayment => RowKind::RefundPayment,
            Form::JournalEntry | Form::BankTransfer => RowKind::Payout,
            Form::BankTransaction => RowKind::PayoutFees,
        }
    }

    /// Whether what it shows may change in the shop: payments and refunds never do.
    pub const fn may_change(self) -> bool {
        match self {
            Form::SalesReceipt | Form::Invoice => true,
            Form::Payment | Form::RefundReceipt | Form::CreditNote | Form::RefundPayment => false,
            Form::JournalEntry | Form::BankTransfer | Form::BankTransaction => true,
        }
    }

    /// In words for people.
    pub const fn title(self) -> &'static str {
        match self {
            Form::SalesReceipt => "sales receipt",
            Form::Invoice => "invoice",
            Form::Payment => "payment",
            Form::RefundReceipt => "refund receipt",
            Form::CreditNote => "credit note",
            Form::RefundPayment => "payment of the credit note",
            Form::JournalEntry => "journal entry of the payout",
            Form::BankTransfer => "bank transfer of the payout",
            Form::BankTransaction => "bank transaction of the fees",
        }
    }
}

/// What a row of the ledger is about, in the words of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    Order,
    /// One payment of an order.
    Payment,
    Refund,
    /// The money of a refund, where that is a document of its own.
    RefundPayment,
    Payout,
    /// What a processor kept of a payout, where that is a document of its own.
    PayoutFees,
}

impl RowKind {
    /// In the order in which the ledger lists them.
    pub const ALL: [RowKind; 6] = [
        RowKind::Order,
        RowKind::Payment,
        RowKind::Refund,
        RowKind::RefundPayment,
        RowKind::Payout,
        RowKind::PayoutFees,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            RowKind::Order => "order",
            RowKind::Payment => "payment",
            RowKind::Refund => "refund",
            RowKind::RefundPayment => "refund_payment",
            RowKind::Payout => "payout",
            RowKind::PayoutFees => "payout_fees",
        }
    }

    /// As the mark of a document has it.
    pub const fn words(self) -> &'static str {
        match self {
            RowKind::RefundPayment => "refund payment",
            RowKind::PayoutFees => "payout fees",
            other => other.as_str(),
        }
    }
}

/// One row of the ledger. A payment's id is that of its order, a `~` and its own: no id holds a `~`, and
/// payments of two orders may have one id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowRef {
    #[serde(rename = "type")]
    pub kind: RowKind,
    pub id: String,
}

impl RowRef {
    /// The row of a record itself.
    pub fn of(record: &RecordRef) -> RowRef {
        let kind = match record.kind {
            RecordKind::Refund => RowKind::Refund,
            RecordKind::Payout => RowKind::Payout,
            _ => RowKind::Order,
        };
        let id = record.id.clone();
        RowRef { kind, id }
    }

    /// The record that the row belongs to: who pushes that pushes the row.
    pub fn owner(&self) -> RecordRef {
        let (kind, id) = match self.kind {
            RowKind::Order => (RecordKind::Order, &self.id[..]),
            RowKind::Payment => {
                let order = self
                    .id
                    .split_once('~')
                    .map_or(&self.id[..], |parts| parts.0);
                (RecordKind::Order, order)
            }
            RowKind::Refund | RowKind::RefundPayment => (RecordKind::Refund, &self.id[..]),
            RowKind::Payout | RowKind::PayoutFees => (RecordKind::Payout, &self.id[..]),
        };
        let id = id.to_owned();
        RecordRef { kind, id }
    }
}

/// What a record is at the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    pub id: String,
    /// The provider's version, which an update must name.
    pub version: String,
    /// What people call it there, such as a document's number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// What stands there in this version, as the provider shows it; absent where it showed too little.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
}

/// A write that was about to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The call that carries it: its name in the ledger, and the provider's idempotency key.
    pub call: String,
    /// The fingerprint of what the call would write.
    pub content: String,
    /// That of what stands there as long as the call has no effect, where it is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    pub at: DateTime<Utc>,
}

/// One call that writes documents, as it was sealed: sent once or often, always to the letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub form: Form,
    /// Whether it changes what stands there.
    pub update: bool,
    /// The bytes of the request.
    pub body: String,
    /// What it writes, in the order of the request.
    pub items: Vec<CallItem>,
    pub sealed_at: DateTime<Utc>,
}

/// One document of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallItem {
    /// The id of its row in the ledger; the form tells the kind.
    pub id: String,
    /// The order that its record belongs to, if any.
    pub order_id: Option<RecordId>,
    /// What the provider must make of it.
    pub total: Money,
}

/// How long a call may still arrive after somebody was about to send it: a function lives for two
/// minutes, its last request may be on its way for one, and the clocks of two functions may differ by
/// one.
const ON_ITS_WAY_MAX: TimeDelta = TimeDelta::minutes(4);

/// What can be known of a call that was sealed a while ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// Sent again, it is answered as it was before.
    Again,
    /// It is too late to send it again, and too early to see what it did: it may still arrive.
    Wait,
    /// What it did stands there by now, or never will.
    Past,
}

impl Call {
    /// `window` is how long the same call is answered as before; `None` for ever.
    pub fn recall(&self, window: Option<TimeDelta>, now: DateTime<Utc>) -> Recall {
        let age = now - self.sealed_at;
        match window {
            Some(window) if age >= window + ON_ITS_WAY_MAX => Recall::Past,
            Some(window) if age >= window => Recall::Wait,
            _ => Recall::Again,
        }
    }
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

/// Where a record is posted that is not posted by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summed {
    /// The id of the summary.
    pub id: String,
    /// What of the record is in it, once it is. From then on the record is never posted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
}

/// What of a record a summary holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The record's revision.
    pub record_rev: u64,
    /// The first revision of the summary that holds it.
    pub since: u64,
    /// Whether it was a refund that pays back what came in beyond its order: that hangs on the order, so
    /// it may change while the refund does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paid_back: bool,
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
    /// What the document is, once anybody has set out to write it: it stays what it is, though the
    /// merchant may want the next ones in another form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
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
    /// That somebody took it away at the provider: it is never made again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// How often it was made anew, after somebody took it away at the provider.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub made_anew: u32,
    /// The words that somebody chose for it at the provider, where those win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<Value>,
    /// That somebody changed its amounts at the provider, and those win.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub amounts_kept: bool,
    /// The daily summary in which the record is, or will be, posted: then it is not posted by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summed: Option<Summed>,
    /// The events that told of changes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Sequence>,
    pub updated_at: Option<DateTime<Utc>>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
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
    /// What became of this call has to be known first.
    Conclude(String),
    /// There is nothing to post.
    Nothing,
    Create,
    Update(Remote),
    /// What stands there is no longer right, and cannot be changed.
    Stuck,
}

/// What a record wants to have at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goal<'a> {
    pub form: Form,
    /// The fingerprint of the document.
    pub content: &'a str,
    /// The revision of the record.
    pub record_rev: u64,
    /// Whether nothing of it is to be posted.
    pub nothing: bool,
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

    /// How a record stands that is posted in a summary, of which `summary` is the row.
    pub fn standing_in(&self, summary: Option<&Link>) -> Standing {
        let own = self.standing();
        if self.summed.is_none() || matches!(own, Standing::Waiting | Standing::LeftOut) {
            return own;
        }
        let Some(summary) = summary else {
            return Standing::Pending;
        };
        match summary.standing() {
            Standing::Synced if self.is_within(summary.record_rev) => Standing::Synced,
            Standing::Synced => Standing::Pending,
            other => other,
        }
    }

    /// The row of the summary in which it is posted, as the row of a record of `kind`.
    pub fn summary(&self, kind: RowKind) -> Option<RowRef> {
        let id = self.summed.as_ref()?.id.clone();
        Some(RowRef { kind, id })
    }

    /// Whether the newest revision of the record that is known here is in revision `rev` of its summary.
    fn is_within(&self, rev: u64) -> bool {
        let held = self.summed.as_ref().and_then(|summed| summed.held);
        held.is_some_and(|held| held.record_rev >= self.record_rev && held.since <= rev)
    }

    /// Whether it is in a summary, and so never posted by itself any more.
    pub fn is_summed(&self) -> bool {
        let held = self.summed.as_ref().and_then(|summed| summed.held);
        held.is_some()
    }

    /// The link after revision `record_rev` of the record was found to belong into the summary of this id;
    /// `None` when that is recorded, and for what is posted by itself.
    pub fn sum_up(&self, id: &str, record_rev: u64, now: DateTime<Utc>) -> Option<Link> {
        if self.held_form().is_some() {
            return None;
        }
        let held = self.summed.as_ref().and_then(|summed| summed.held);
        let link = Link {
            record_rev: self.record_rev.max(record_rev),
            waiting: self.still_waiting(record_rev),
            summed: Some(Summed {
                id: id.to_owned(),
                held,
            }),
            ..self.turned(LinkState::Pending, now).untroubled()
        };
        let same = (self.record_rev, &self.waiting, &self.summed, self.state)
            == (link.record_rev, &link.waiting, &link.summed, link.state);
        (!same).then_some(link)
    }

    /// The link after this revision of the record, be it of what is paid back or not, was put into revision
    /// `rev` of the summary of this id, or taken out of it where it is not to be there; `None` when that is
    /// recorded.
    pub fn put_into(
        &self,
        id: &str,
        (record_rev, paid_back): (u64, bool),
        rev: Option<u64>,
        now: DateTime<Utc>,
    ) -> Option<Link> {
        let before = self.summed.as_ref().and_then(|summed| summed.held);
        let held = rev.map(|rev| match before {
            // It was there already.
            Some(held)
                if (held.record_rev, held.paid_back) == (record_rev, paid_back)
                    && held.since <= rev =>
            {
                held
            }
            _ => Held {
                record_rev,
                since: rev,
                paid_back,
            },
        });
        let known = self.sum_up(id, record_rev, now);
        if known.is_none() && (before == held || self.held_form().is_some()) {
            return None;
        }
        let link = known.unwrap_or_else(|| self.turned(LinkState::Pending, now));
        let summed = link.summed.map(|summed| Summed { held, ..summed });
        Some(Link { summed, ..link })
    }

    /// Decides the next step towards `goal`. What is `fixed` cannot be changed at the provider once it
    /// stands there.
    pub fn plan(&self, goal: Goal, fixed: bool) -> Step {
        if self.record_rev > goal.record_rev {
            return Step::Done;
        }
        if let Some(intent) = &self.intent {
            return Step::Conclude(intent.call.clone());
        }
        if self.is_summed() {
            return Step::Done;
        }
        let known = self.content.as_deref();
        match &self.remote {
            _ if self.gone.is_some() || known == Some(goal.content) => Step::Done,
            None if goal.nothing => Step::Nothing,
            None => Step::Create,
            Some(_) if goal.nothing => Step::Stuck,
            Some(_) if fixed => match known.is_some() && goal.form.may_change() {
                true => Step::Stuck,
                false => Step::Done,
            },
            Some(remote) => Step::Update(remote.clone()),
        }
    }

    /// The link of a document of which there is nothing to post.
    pub fn nothing(&self, goal: Goal, now: DateTime<Utc>) -> Link {
        Link {
            content: Some(goal.content.to_owned()),
            record_rev: goal.record_rev,
            waiting: self.still_waiting(goal.record_rev),
            ..self.turned(LinkState::Synced, now).untroubled()
        }
    }

    /// Whether it is known that there is nothing to post.
    pub fn is_nothing(&self) -> bool {
        self.remote.is_none() && self.content.is_some()
    }

    /// The form in which the document stands there, or may stand there.
    pub fn held_form(&self) -> Option<Form> {
        let held = self.remote.is_some() || self.intent.is_some();
        self.form.filter(|_| held)
    }

    /// The link before `call` writes `content` in the given form.
    pub fn intend(
        &self,
        call: &str,
        form: Form,
        content: &str,
        record_rev: u64,
        now: DateTime<Utc>,
    ) -> Link {
        let intent = Intent {
            call: call.to_owned(),
            content: content.to_owned(),
            before: self.content.clone(),
            at: now,
        };
        Link {
            form: Some(form),
            // From here on the provider may hold the one or the other, until it has answered.
            content: None,
            intent: Some(intent),
            record_rev,
            // What is posted by itself is in no summary.
            summed: None,
            ..self.turned(LinkState::Pending, now)
        }
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
        // What was left out, failed or was parked for a while and stands there as it should is as good
        // as sent.
        let stands = self.content.is_some() && self.record_rev <= record_rev;
        let state = match self.state {
            LinkState::LeftOut | LinkState::Pending | LinkState::Parked if stands => {
                LinkState::Synced
            }
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

    /// The link after the provider answered the call of the open intent with `remote`.
    ///
    /// Whoever has a newer record meanwhile finds that the content differs, and writes it.
    pub fn settle(&self, remote: Remote, now: DateTime<Utc>) -> Link {
        // A newer record may have been found wanting, or left out, while the call was open.
        let settled = match self.state {
            LinkState::Pending => self.turned(LinkState::Synced, now).untroubled(),
            state => self.turned(state, now),
        };
        Link {
            remote: Some(remote),
            content: self.intent.as_ref().map(|intent| intent.content.clone()),
            intent: None,
            amounts_kept: false,
            waiting: self.still_waiting(self.record_rev),
            ..settled
        }
    }

    /// The link after the provider took the document and made something else of it: what stands there
    /// is known and not what we meant, so the next try writes it again.
    pub fn differ(&self, remote: Remote, problem: Problem, now: DateTime<Utc>) -> Link {
        Link {
            content: None,
            ..self.settle(remote, now).park(problem, self.record_rev, now)
        }
    }

    /// The link after it turned out that nobody made the call of the open intent, or that the answer
    /// can no longer be had and what stands there is to be written again.
    pub fn forget(&self, now: DateTime<Utc>) -> Link {
        Link {
            intent: None,
            content: None,
            updated_at: Some(now),
            ..self.clone()
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

    /// The link after what stood at the provider was deleted or voided there, and is wanted anew.
    pub fn lose(&self, now: DateTime<Utc>) -> Link {
        Link {
            remote: None,
            content: None,
            intent: None,
            gone: None,
            // Among those words is the number of what is no longer there.
            kept: None,
            amounts_kept: false,
            made_anew: self.made_anew.saturating_add(1),
            ..self.turned(LinkState::Pending, now).untroubled()
        }
    }

    /// The same where it is not certain any more that anything stands there.
    pub fn doubt(self) -> Link {
        Link {
            content: None,
            ..self
        }
    }

    /// The link after the provider refused what the intent stands for: it had no effect, so what stood
    /// there stands there still. What was refused once goes in a call of its own from then on, so that it
    /// takes nothing else along.
    pub fn refuse(&self, now: DateTime<Utc>) -> Link {
        Link {
            refusals: self.refusals + 1,
            content: self.intent.as_ref().and_then(|open| open.before.clone()),
            ..self.forget(now)
        }
    }

    /// The link of a record that cannot be pushed for a reason that does not go away by itself. An
    /// intent stays: what became of its call is still open.
    pub fn park(&self, problem: Problem, record_rev: u64, now: DateTime<Utc>) -> Link {
        Link {
            problem: Some(problem),
            attempts: self.attempts.saturating_add(1),
            next_attempt_at: None,
            record_rev: self.record_rev.max(record_rev),
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
        (self.record_rev <= record_rev && !stands && self.gone.is_none()).then(|| Link {
            problem: Some(problem),
            attempts: self.attempts.saturating_add(1),
            next_attempt_at: Some(next),
            ..self.turned(LinkState::Pending, now)
        })
    }
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
            content: None,
        }
    }

    fn intended(link: &Link, call: &str, content: &str, rev: u64) -> Link {
        link.intend(call, Form::Invoice, content, rev, NOW)
    }

    fn goal(content: &str, record_rev: u64) -> Goal<'_> {
        Goal {
            form: Form::Invoice,
            content,
            record_rev,
            nothing: false,
        }
    }

    fn problem() -> Problem {
        Problem {
            code: "c".to_owned(),
            detail: "d".to_owned(),
        }
    }

    #[test]
    fn an_open_call_is_concluded_before_anything_else_is_written() {
        let link = Link::default();
        assert_eq!(link.plan(goal("old", 1), false), Step::Create);
        let open = intended(&link, "call", "old", 1);
        // The process dies here; the record changes; another process takes over.
        let conclude = Step::Conclude("call".to_owned());
        assert_eq!(open.plan(goal("old", 1), false), conclude);
        assert_eq!(open.plan(goal("new", 2), false), conclude);
        let parked = open.park(problem(), 2, NOW);
        assert_eq!(
            parked.plan(goal("new", 2), false),
            conclude,
            "it stays open"
        );
        let settled = open.settle(remote("0"), NOW);
        assert_eq!(settled.content.as_deref(), Some("old"));
        assert_eq!(
            settled.plan(goal("new", 2), false),
            Step::Update(remote("0"))
        );
        let payment = Goal {
            form: Form::Payment,
            ..goal("new", 2)
        };
        assert_eq!(settled.plan(payment, true), Step::Done, "it cannot change");
        let again = open.forget(NOW);
        assert_eq!(again.plan(goal("new", 2), false), Step::Create);
    }

    #[test]
    fn the_same_content_is_written_once() {
        let link = intended(&Link::default(), "call", "a", 1).settle(remote("0"), NOW);
        assert_eq!(link.state, LinkState::Synced);
        assert_eq!(link.plan(goal("a", 1), false), Step::Done);
        assert_eq!(link.plan(goal("a", 2), false), Step::Done);
    }

    #[test]
    fn the_past_is_not_written_over_the_present() {
        let link = intended(&Link::default(), "call", "new", 2).settle(remote("0"), NOW);
        assert_eq!(link.plan(goal("old", 1), false), Step::Done);
        assert_eq!(
            link.plan(goal("newest", 3), false),
            Step::Update(remote("0"))
        );
    }

    #[test]
    fn a_refusal_had_no_effect_and_is_remembered() {
        let open = intended(&Link::default(), "call", "a", 1);
        let refused = open.refuse(NOW).park(problem(), 1, NOW);
        assert_eq!((refused.refusals, &refused.intent), (1, &None));
        assert_eq!(refused.plan(goal("a", 1), false), Step::Create);
        assert_eq!(refused.held_form(), None, "it may take another form");
    }

    #[test]
    fn what_stood_there_before_a_refusal_stands_there_still() {
        let synced = intended(&Link::default(), "call", "a", 1).settle(remote("0"), NOW);
        let refused = intended(&synced, "next", "b", 2).refuse(NOW);
        let parked = refused.park(problem(), 2, NOW);
        assert_eq!(parked.plan(goal("b", 2), false), Step::Update(remote("0")));
        assert_eq!(
            parked.plan(goal("a", 3), false),
            Step::Done,
            "it was taken back"
        );
        assert_eq!(parked.seen(3, NOW).unwrap().state, LinkState::Synced);
    }

    #[test]
    fn what_stands_there_keeps_its_form() {
        let open = intended(&Link::default(), "call", "a", 1);
        assert_eq!(open.held_form(), Some(Form::Invoice));
        assert_eq!(
            open.settle(remote("0"), NOW).held_form(),
            Some(Form::Invoice)
        );
        for form in Form::ALL {
            let word = serde_json::to_value(form).unwrap();
            assert_eq!(serde_json::from_value::<Form>(word).unwrap(), form);
        }
    }

    #[test]
    fn what_was_parked_and_stands_there_after_all_is_synced() {
        let link = intended(&Link::default(), "call", "a", 1).settle(remote("0"), NOW);
        let parked = link.park(problem(), 2, NOW);
        assert_eq!(parked.seen(1, NOW), None, "the newer one is still parked");
        let seen = parked.seen(3, NOW).unwrap();
        assert_eq!((seen.state, seen.problem), (LinkState::Synced, None));
        // A newer record was found wanting while the call for an older one was open.
        let open = intended(&Link::default(), "call", "a", 1).park(problem(), 2, NOW);
        let settled = open.settle(remote("0"), NOW);
        assert_eq!(settled.state, LinkState::Parked);
        assert_eq!(settled.problem, Some(problem()));
    }

    #[test]
    fn a_document_of_another_total_is_parked_and_written_again() {
        let open = intended(&Link::default(), "call", "a", 1);
        let differs = open.differ(remote("0"), problem(), NOW);
        assert_eq!(differs.state, LinkState::Parked);
        assert_eq!(differs.plan(goal("a", 1), false), Step::Update(remote("0")));
    }

    #[test]
    fn what_waits_goes_on_where_it_stood() {
        let open = intended(&Link::default(), "call", "a", 1);
        let waiting = open.wait(2, NOW).unwrap();
        assert_eq!(waiting.intent, open.intent, "an open call stays open");
        assert_eq!(waiting.wait(2, NOW), None);
        assert_eq!(waiting.wait(1, NOW), None);
        // Somebody who had read the record before it changed is no reason to stop waiting.
        let settled = waiting.settle(remote("0"), NOW);
        assert_eq!(settled.waiting, waiting.waiting);
        let pushed = intended(&settled, "next", "b", 2);
        assert_eq!(pushed.settle(remote("1"), NOW).waiting, None);
        assert_eq!(pushed.park(problem(), 2, NOW).waiting, None);
        assert_eq!(settled.seen(2, NOW).unwrap().waiting, None);
    }

    #[test]
    fn nothing_is_posted_of_nothing() {
        let nothing = |content| Goal {
            nothing: true,
            ..goal(content, 1)
        };
        let link = Link::default();
        assert_eq!(link.plan(nothing("0"), false), Step::Nothing);
        let settled = link.nothing(nothing("0"), NOW);
        assert!(settled.is_nothing() && settled.state == LinkState::Synced);
        assert_eq!(settled.plan(goal("0", 1), false), Step::Done);
        // A later version has something to post after all.
        assert_eq!(settled.plan(goal("3", 2), false), Step::Create);
        let posted = intended(&settled, "call", "3", 2).settle(remote("0"), NOW);
        assert!(!posted.is_nothing());
        let none = Goal {
            record_rev: 3,
            ..nothing("0")
        };
        assert_eq!(posted.plan(none, false), Step::Stuck);
        // The provider refused it, so that nothing stands there still.
        let refused = intended(&settled, "call", "3", 2).refuse(NOW);
        assert!(refused.is_nothing());
        assert_eq!(refused.plan(goal("3", 2), false), Step::Create);
    }

    #[test]
    fn what_cannot_be_changed_and_is_no_longer_right_is_stuck() {
        let link = intended(&Link::default(), "call", "a", 1).settle(remote("0"), NOW);
        assert_eq!(link.plan(goal("a", 2), true), Step::Done);
        assert_eq!(link.plan(goal("b", 2), true), Step::Stuck);
        let parked = link.park(problem(), 2, NOW);
        assert_eq!(parked.plan(goal("b", 2), true), Step::Stuck);
        // It was taken back in the shop.
        assert_eq!(parked.plan(goal("a", 3), true), Step::Done);
        assert_eq!(parked.seen(3, NOW).unwrap().state, LinkState::Synced);
    }

    #[test]
    fn what_is_left_out_keeps_what_the_provider_holds() {
        let link = intended(&Link::default(), "call", "a", 1).settle(remote("0"), NOW);
        let out = link.leave_out(2, NOW).unwrap();
        assert_eq!(
            (out.state, &out.remote),
            (LinkState::LeftOut, &Some(remote("0")))
        );
        assert_eq!(out.leave_out(3, NOW), None);
        assert_eq!(out.plan(goal("a", 3), false), Step::Done);
        assert_eq!(out.seen(3, NOW).unwrap().state, LinkState::Synced);
    }

    #[test]
    fn what_fails_stays_open_until_it_stands_there() {
        let next = NOW + TimeDelta::seconds(1);
        let fail = |link: &Link, rev| link.fail(problem(), rev, next, NOW);
        let failed = fail(&Link::default(), 1).unwrap();
        let failed = fail(&failed, 1).unwrap();
        assert_eq!((failed.state, failed.attempts), (LinkState::Pending, 2));
        assert_eq!(failed.next_attempt_at, Some(next));
        let open = intended(&failed, "call", "a", 2);
        assert_eq!(open.problem, failed.problem, "it is not over yet");
        assert_eq!(
            fail(&open, 1),
            None,
            "somebody with a newer record is at work"
        );
        let synced = open.settle(remote("0"), NOW);
        let clean = |link: &Link| {
            assert_eq!(link.state, LinkState::Synced);
            assert_eq!((&link.problem, link.attempts), (&None, 0));
            assert_eq!(link.next_attempt_at, None);
        };
        clean(&synced);
        assert_eq!(fail(&synced, 2), None, "it stands there");
        // A newer revision fails before it is known to be the same over there.
        let failed = fail(&synced, 3).unwrap();
        assert_eq!(failed.plan(goal("a", 3), false), Step::Done);
        clean(&failed.seen(3, NOW).unwrap());
        assert_eq!(failed.plan(goal("b", 3), false), Step::Update(remote("0")));
    }

    #[test]
    fn a_state_has_the_time_of_its_beginning() {
        let at = |seconds| NOW + TimeDelta::seconds(seconds);
        let fail = |link: &Link, seconds| {
            let now = at(seconds);
            link.fail(problem(), 1, now, now).unwrap()
        };
        let failing = fail(&fail(&Link::default(), 1), 2);
        assert_eq!(failing.since, Some(at(1)));
        assert_eq!(failing.updated_at, Some(at(2)));
        let open = failing.intend("call", Form::Invoice, "a", 1, at(3));
        assert_eq!(open.since, Some(at(1)));
        let synced = open.settle(remote("0"), at(4));
        assert_eq!(synced.since, Some(at(4)));
        assert_eq!(synced.park(problem(), 1, at(5)).since, Some(at(5)));
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
    fn a_row_belongs_to_the_record_that_pushes_it() {
        for (kind, id, owner, of) in [
            (RowKind::Order, "1", RecordKind::Order, "1"),
            (RowKind::Payment, "1~p", RecordKind::Order, "1"),
            (RowKind::Refund, "r", RecordKind::Refund, "r"),
            (RowKind::RefundPayment, "r", RecordKind::Refund, "r"),
            (RowKind::Payout, "po", RecordKind::Payout, "po"),
            (RowKind::PayoutFees, "po", RecordKind::Payout, "po"),
        ] {
            let id = id.to_owned();
            let found = RowRef { kind, id }.owner();
            assert_eq!((found.kind, found.id.as_str()), (owner, of));
        }
    }

    #[test]
    fn a_call_is_forgotten_when_the_provider_forgets_it() {
        let call = Call {
            form: Form::Payment,
            update: false,
            body: String::new(),
            items: Vec::new(),
            sealed_at: NOW,
        };
        let window = Some(TimeDelta::minutes(3));
        for (seconds, recall) in [
            (0, Recall::Again),
            (179, Recall::Again),
            (180, Recall::Wait),
            (419, Recall::Wait),
            (420, Recall::Past),
        ] {
            let now = NOW + TimeDelta::seconds(seconds);
            assert_eq!(call.recall(window, now), recall, "{seconds}");
        }
        assert_eq!(call.recall(None, NOW + TimeDelta::days(400)), Recall::Again);
    }

    #[test]
    fn a_record_is_in_a_summary_or_posted_by_itself() {
        let link = Link::default();
        let noted = link.sum_up("daily", 1, NOW).unwrap();
        assert_eq!(
            noted.plan(goal("c", 1), false),
            Step::Create,
            "no summary has it"
        );
        assert_eq!(noted.sum_up("daily", 1, NOW), None, "it is recorded");
        let held = noted.put_into("daily", (1, false), Some(4), NOW).unwrap();
        assert_eq!(held.plan(goal("c", 1), false), Step::Done);
        assert_eq!(held.plan(goal("other", 2), false), Step::Done);
        assert_eq!(
            held.put_into("daily", (1, false), Some(5), NOW),
            None,
            "it is there"
        );
        let out = held.put_into("daily", (1, false), None, NOW).unwrap();
        assert!(!out.is_summed() && out.put_into("daily", (1, false), None, NOW).is_none());
        // Whoever set out to post it by itself was first.
        let open = intended(&noted, "call", "c", 1);
        for alone in [&open, &open.settle(remote("0"), NOW)] {
            assert_eq!(alone.sum_up("daily", 2, NOW), None);
            assert_eq!(alone.put_into("daily", (2, false), Some(1), NOW), None);
            assert_eq!(alone.standing_in(None), alone.standing());
        }
    }

    #[test]
    fn what_is_summed_stands_as_its_summary_does() {
        let summary = intended(&Link::default(), "call", "c", 4).settle(remote("0"), NOW);
        let noted = Link::default().sum_up("daily", 1, NOW).unwrap();
        let held = noted.put_into("daily", (1, false), Some(4), NOW).unwrap();
        assert_eq!(noted.standing_in(Some(&summary)), Standing::Pending);
        assert_eq!(held.standing_in(None), Standing::Pending);
        assert_eq!(held.standing_in(Some(&summary)), Standing::Synced);
        let newer = held.sum_up("daily", 2, NOW).unwrap();
        assert_eq!(newer.standing_in(Some(&summary)), Standing::Pending);
        let next = newer.put_into("daily", (2, false), Some(5), NOW).unwrap();
        assert_eq!(next.standing_in(Some(&summary)), Standing::Pending);
        // What was claimed for a revision that never came is claimed anew.
        let again = next.put_into("daily", (2, false), Some(4), NOW).unwrap();
        assert_eq!(again.standing_in(Some(&summary)), Standing::Synced);
        let parked = summary.park(problem(), 5, NOW);
        assert_eq!(held.standing_in(Some(&parked)), Standing::Parked);
        let waits = held.wait(3, NOW).unwrap();
        assert_eq!(waits.standing_in(Some(&summary)), Standing::Waiting);
        assert_eq!(waits.sum_up("daily", 3, NOW).unwrap().waiting, None);
    }
}
