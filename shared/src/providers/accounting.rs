//! What an accounting system is asked for: documents, and what they refer to.

use super::accounts::Role;
use super::changes::Changes;
use super::{Fault, Provider, Tenant, provider};
use crate::model::http::{Request, Response};
use crate::model::money::Money;
use crate::model::order::{Order, Payment, Refund};
use crate::model::order_record::OrderRecord;
use crate::model::payout::Payout;
use crate::sync::conflict::Seen;
use crate::sync::push::{Form, Remote, RowKind, RowRef};
use crate::sync::reconcile::Theirs;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use std::collections::HashMap;

/// What must stand at the provider before a document can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DependencyKind {
    Customer,
    Item,
}

impl DependencyKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            DependencyKind::Customer => "customer",
            DependencyKind::Item => "item",
        }
    }
}

/// One customer or item that documents refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    pub kind: DependencyKind,
    /// What the ledger knows it by, unique within its kind and connection.
    pub key: String,
    /// Names to try, in order: the next one is for when the one before belongs to something else.
    pub names: Vec<String>,
    /// The mark that shows that a thing at the provider is ours; absent when the name alone decides.
    pub mark: Option<String>,
    /// The provider's body, without its name.
    pub body: Value,
}

/// One thing that a look-up found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub name: String,
    pub remote: Remote,
    /// The mark that it carries.
    pub mark: Option<String>,
    /// Whether a document can name it; it takes up its name in any case.
    pub fits: bool,
}

/// A record of the shop that the books are to show.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// An order, with how a receipt shows it where that is otherwise.
    Order(&'a OrderRecord, Option<&'a Order>),
    /// Money that went back, with the order that it belongs to, if any, and how a receipt shows it where
    /// that is otherwise.
    Refund(&'a Refund, Option<&'a OrderRecord>, Option<&'a Refund>),
    Payout(&'a Payout),
}

/// One document in the books.
#[derive(Debug, Clone, Copy)]
pub enum Document<'a> {
    /// An order that is paid in full, of which so many minor units by gift cards, where that is shown here.
    SalesReceipt(&'a Order, i64),
    /// An order, and the same of it.
    Invoice(&'a Order, i64),
    /// Money that came in for an order, of which `applied` minor units settle its invoice: less than
    /// all of it where more came in than the order costs.
    Payment {
        payment: &'a Payment,
        order: &'a Order,
        applied: i64,
    },
    RefundReceipt(&'a Refund, Option<&'a Order>),
    CreditNote(&'a Refund, Option<&'a Order>),
    /// The money of a credit note.
    RefundPayment(&'a Refund, Option<&'a Order>),
    /// A payout with what was kept of it.
    JournalEntry(&'a Payout),
    /// What of a payout reached the bank, or was taken from it.
    BankTransfer(&'a Payout),
    /// What was kept of a payout.
    BankTransaction(&'a Payout),
}

impl Document<'_> {
    pub const fn form(&self) -> Form {
        match self {
            Document::SalesReceipt(..) => Form::SalesReceipt,
            Document::Invoice(..) => Form::Invoice,
            Document::Payment { .. } => Form::Payment,
            Document::RefundReceipt(..) => Form::RefundReceipt,
            Document::CreditNote(..) => Form::CreditNote,
            Document::RefundPayment(..) => Form::RefundPayment,
            Document::JournalEntry(..) => Form::JournalEntry,
            Document::BankTransfer(..) => Form::BankTransfer,
            Document::BankTransaction(..) => Form::BankTransaction,
        }
    }

    /// The id of its row in the ledger; the form tells the kind. A payment's own id need not be unique
    /// over all orders.
    pub fn id(&self) -> String {
        match self {
            Document::SalesReceipt(order, _) | Document::Invoice(order, _) => order.id.to_string(),
            Document::Payment { payment, order, .. } => format!("{}~{}", order.id, payment.id),
            Document::RefundReceipt(refund, _)
            | Document::CreditNote(refund, _)
            | Document::RefundPayment(refund, _) => refund.id.to_string(),
            Document::JournalEntry(payout)
            | Document::BankTransfer(payout)
            | Document::BankTransaction(payout) => payout.id.to_string(),
        }
    }

    /// The document that this one names by its id at the provider: its form and the id of its row.
    pub fn refers_to(&self) -> Option<(Form, String)> {
        match self {
            Document::Payment { order, .. } => Some((Form::Invoice, order.id.to_string())),
            Document::RefundPayment(refund, _) => Some((Form::CreditNote, refund.id.to_string())),
            _ => None,
        }
    }

    /// What the provider must make of it: where gift cards are shown on the document, what is paid with
    /// money.
    pub fn total(&self) -> Money {
        match self {
            Document::SalesReceipt(order, redeemed) | Document::Invoice(order, redeemed) => {
                Money::new(order.total.amount - redeemed, order.currency)
            }
            Document::Payment { payment, .. } => payment.amount,
            Document::RefundReceipt(refund, _) if refund.to_gift_card() => {
                Money::new(0, refund.amount.currency)
            }
            Document::RefundReceipt(refund, _)
            | Document::CreditNote(refund, _)
            | Document::RefundPayment(refund, _) => refund.amount,
            // What is put on accounts on the one side, and taken from accounts on the other.
            Document::JournalEntry(payout) => {
                let debits = Leg::all(payout).map(|leg| leg.debit.max(0));
                Money::new(debits.sum(), payout.currency)
            }
            Document::BankTransfer(payout) => {
                Money::new(payout.amount.amount.abs(), payout.currency)
            }
            Document::BankTransaction(payout) => Money::new(payout.kept().abs(), payout.currency),
        }
    }

    /// The order that it belongs to, as far as that is known.
    pub const fn order(&self) -> Option<&Order> {
        match self {
            Document::SalesReceipt(order, _)
            | Document::Invoice(order, _)
            | Document::Payment { order, .. } => Some(order),
            Document::RefundReceipt(_, order)
            | Document::CreditNote(_, order)
            | Document::RefundPayment(_, order) => *order,
            Document::JournalEntry(_)
            | Document::BankTransfer(_)
            | Document::BankTransaction(_) => None,
        }
    }

    /// Whether it is of a daily summary.
    pub const fn is_summary(&self) -> bool {
        self.behind().is_some()
    }

    /// How many records of the shop it sums, if it is of a daily summary.
    pub const fn behind(&self) -> Option<u64> {
        match self {
            Document::SalesReceipt(order, _)
            | Document::Invoice(order, _)
            | Document::Payment { order, .. } => order.summed,
            Document::RefundReceipt(refund, _)
            | Document::CreditNote(refund, _)
            | Document::RefundPayment(refund, _) => refund.summed,
            Document::JournalEntry(_)
            | Document::BankTransfer(_)
            | Document::BankTransaction(_) => None,
        }
    }

    /// When it was sold what this is about.
    pub fn sold_at(&self) -> DateTime<Utc> {
        self.order()
            .map_or_else(|| self.at(), |order| order.placed_at)
    }

    /// When it happened in the shop.
    pub fn at(&self) -> DateTime<Utc> {
        match self {
            Document::SalesReceipt(order, _) | Document::Invoice(order, _) => order.placed_at,
            Document::Payment { payment, .. } => payment.processed_at,
            Document::RefundReceipt(refund, _)
            | Document::CreditNote(refund, _)
            | Document::RefundPayment(refund, _) => refund.refunded_at,
            Document::JournalEntry(payout)
            | Document::BankTransfer(payout)
            | Document::BankTransaction(payout) => payout.paid_at,
        }
    }

    /// Whether it is of a payout and moves nothing.
    pub fn is_nothing(&self) -> bool {
        match self {
            Document::JournalEntry(_)
            | Document::BankTransfer(_)
            | Document::BankTransaction(_) => self.total().amount == 0,
            _ => false,
        }
    }

    /// The words by which people and we know it again at the provider.
    pub fn mark(&self) -> String {
        let what = self.form().kind().words();
        // People read it, and a path is plainer to them.
        format!("Crossdock {what} {}", self.id().replace('~', "/"))
    }
}

/// The row of the document that carries `mark`, if it is one of ours.
pub fn marked(mark: &str) -> Option<RowRef> {
    let words = mark.strip_prefix("Crossdock ")?;
    let (what, id) = words.rsplit_once(' ')?;
    let kind = RowKind::ALL.into_iter().find(|kind| kind.words() == what)?;
    let id = id.replace('/', "~");
    Some(RowRef { kind, id })
}

/// The documents that `subject` needs in the books at its present state, each after those that it
/// refers to.
///
/// `order_form` is what an order is to be in the books of `provider`. Where orders are
/// posted as receipts, a refund of an order waits until that order is paid and thus in the books: they
/// would show money going back that never came.
pub fn documents<'a>(
    subject: Subject<'a>,
    order_form: Form,
    provider: &dyn Accounting,
) -> Vec<Document<'a>> {
    match subject {
        Subject::Order(record, received) => match (&record.order, order_form) {
            (Some(order), Form::SalesReceipt) if record.is_paid() => {
                let redeemed = record.redeemed(order);
                vec![Document::SalesReceipt(received.unwrap_or(order), redeemed)]
            }
            (Some(order), Form::Invoice) => {
                let on_invoice = match provider.gift_cards_pay() {
                    true => 0,
                    false => record.redeemed(order),
                };
                let shown = |payment: &&Payment| provider.gift_cards_pay() || !payment.redeems();
                let payments = payments(record, order, order.total.amount - on_invoice, shown);
                std::iter::once(Document::Invoice(order, on_invoice))
                    .chain(payments)
                    .collect()
            }
            _ => Vec::new(),
        },
        Subject::Refund(_, Some(record), _)
            if order_form == Form::SalesReceipt && !record.is_paid() =>
        {
            Vec::new()
        }
        Subject::Refund(refund, record, paid_back) => {
            let refund = paid_back.unwrap_or(refund);
            let order = record.and_then(|record| record.order.as_ref());
            let document = |form: &Form| match form {
                Form::RefundReceipt => Some(Document::RefundReceipt(refund, order)),
                Form::CreditNote => Some(Document::CreditNote(refund, order)),
                Form::RefundPayment => Some(Document::RefundPayment(refund, order)),
                _ => None,
            };
            provider
                .refund_forms()
                .iter()
                .filter_map(document)
                .collect()
        }
        Subject::Payout(payout) => {
            let document = |form: &Form| match form {
                Form::JournalEntry => Some(Document::JournalEntry(payout)),
                Form::BankTransfer => Some(Document::BankTransfer(payout)),
                Form::BankTransaction => Some(Document::BankTransaction(payout)),
                _ => None,
            };
            provider
                .payout_forms()
                .iter()
                .filter_map(document)
                .collect()
        }
    }
}

/// What a payout moves on one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leg<'a> {
    pub role: Role,
    /// The name of an adjustment.
    pub name: Option<&'a str>,
    /// In minor units; below zero it is a credit.
    pub debit: i64,
}

impl<'a> Leg<'a> {
    /// All that a payout moves; together it is nothing. Adjustments stand on the account of fees, each by
    /// itself, so that whoever keeps the books can put one elsewhere.
    pub fn all(payout: &'a Payout) -> impl Iterator<Item = Leg<'a>> {
        let leg = |role: Role, name: Option<&'a str>, debit: i64| Leg { role, name, debit };
        let adjustments = payout.adjustments.iter();
        let adjustments =
            adjustments.map(move |one| leg(Role::Fees, Some(&one.name), -one.amount.amount));
        [
            leg(Role::Payouts, None, payout.amount.amount),
            leg(Role::Fees, None, payout.fees.amount),
        ]
        .into_iter()
        .chain(adjustments)
        .chain([
            leg(Role::Refunds, None, payout.refunds.amount),
            leg(Role::Money, None, -payout.charges.amount),
        ])
        .filter(|leg| leg.debit != 0)
    }
}

/// The payments of an order that came in and are `shown`, the earliest first, each applied as far as
/// `open` goes.
fn payments<'a>(
    record: &'a OrderRecord,
    order: &'a Order,
    mut open: i64,
    shown: impl Fn(&&'a Payment) -> bool,
) -> Vec<Document<'a>> {
    let mut payments: Vec<&Payment> = record.came().filter(shown).collect();
    payments.sort_by(|a, b| (a.processed_at, &a.id).cmp(&(b.processed_at, &b.id)));
    let apply = |payment: &'a Payment| {
        let applied = payment.amount.amount.min(open);
        open -= applied;
        Document::Payment {
            payment,
            order,
            applied,
        }
    };
    payments.into_iter().map(apply).collect()
}

/// The provider's ids of what a document refers to, by [`Dependency::kind`] and key.
pub type References = HashMap<(DependencyKind, String), String>;

/// A document that a provider took.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    pub remote: Remote,
    /// The total that the provider made of it, in major units.
    pub total: Option<Decimal>,
}

/// What became of each document of a call, in the order of the call.
pub type Outcomes = Vec<Result<Written, Fault>>;

/// An accounting system: builds requests, reads responses.
pub trait Accounting: Provider + ByDay {
    /// The forms that an order can take in these books; the first is the usual one.
    fn order_forms(&self) -> &'static [Form];

    /// The documents that make a refund.
    fn refund_forms(&self) -> &'static [Form];

    /// The documents that make a payout.
    fn payout_forms(&self) -> &'static [Form];

    /// Whether anything of `document` is to be posted.
    fn posts(&self, document: Document, settings: &Value) -> Result<bool, Fault> {
        let _ = settings;
        Ok(!document.is_nothing())
    }

    /// Whether a gift card pays an invoice as money does, with a payment of its own; elsewhere the invoice
    /// shows it as a line below zero.
    fn gift_cards_pay(&self) -> bool {
        false
    }

    /// Most dependencies of one look-up.
    fn find_max(&self) -> usize;

    /// Most creations of one call.
    fn create_max(&self) -> usize;

    /// The requests that read how the company is set up.
    fn settings_requests(&self, tenant: &Tenant) -> Vec<Request>;

    /// Reads their answers, in the same order, into what the other functions take as `settings`.
    fn read_settings(&self, answers: &[Response]) -> Result<Value, Fault>;

    /// What `document` refers to.
    fn dependencies(&self, document: Document, settings: &Value) -> Result<Vec<Dependency>, Fault>;

    /// A look-up of things of one kind.
    fn find(&self, tenant: &Tenant, kind: DependencyKind, wanted: &[&Dependency]) -> Request;

    fn read_found(&self, kind: DependencyKind, answer: &Response) -> Result<Vec<Found>, Fault>;

    /// Whether two names are the same to the provider.
    fn same_name(&self, one: &str, other: &str) -> bool;

    /// Whether `found` is what `dependency` stands for. Where things carry marks, only ours is taken;
    /// where they do not, the name decides.
    fn is(&self, dependency: &Dependency, found: &Found) -> bool {
        let named = |name: &String| self.same_name(name, &found.name);
        let ours = dependency.mark.is_none() || dependency.mark == found.mark;
        found.fits && ours && dependency.names.iter().any(named)
    }

    /// One call that creates each dependency under the name beside it.
    fn create(&self, tenant: &Tenant, request_id: &str, wanted: &[(&Dependency, &str)]) -> Request;

    /// Reads what became of each, in the order of the request.
    fn read_created(
        &self,
        wanted: &[(&Dependency, &str)],
        answer: &Response,
    ) -> Result<Vec<Result<Remote, Fault>>, Fault>;

    /// The provider's body of `document`. `on` is the provider's id of what it refers to.
    fn body(
        &self,
        document: Document,
        references: &References,
        on: Option<&str>,
        settings: &Value,
    ) -> Result<Value, Fault>;

    /// What of the `body` of `document` is worth an update when it changes: not which account was chosen, say, of which
    /// `references` are told.
    fn essence(&self, document: Document, body: &Value, references: &References) -> Value;

    /// Gives the `body` of a document that is made anew for the `times`th time another number, where the
    /// number of what was taken away is not free again.
    fn renumber(&self, form: Form, times: u32, body: &mut Value) {
        let _ = (form, times, body);
    }

    /// The code of a refusal which says that what a call names is not there, or no longer.
    fn missing(&self) -> &'static str;

    /// Whether documents of this form cannot be changed once they stand there.
    fn is_fixed(&self, form: Form) -> bool {
        let _ = form;
        false
    }

    /// Most documents of this form in one call.
    fn write_max(&self, form: Form) -> usize;

    /// The bytes of one call that creates documents of one form, or updates each at the remote beside it.
    fn write_body(&self, form: Form, documents: &[(Value, Option<Remote>)]) -> String;

    /// The call with `count` documents in its body. `id` is its idempotency key.
    fn write(
        &self,
        tenant: &Tenant,
        id: &str,
        form: Form,
        update: bool,
        count: usize,
        body: String,
    ) -> Request;

    /// Reads what became of each document, in the order of the request.
    fn read_written(&self, form: Form, count: usize, answer: &Response) -> Result<Outcomes, Fault>;

    /// How long the provider remembers its answer to a call; `None` when it is taken to be for ever.
    fn replay_window(&self) -> Option<TimeDelta> {
        None
    }

    /// The call that finds `document` by what people know it by. `None` where there is no such thing.
    fn find_document(&self, tenant: &Tenant, document: Document) -> Option<Request> {
        let _ = (tenant, document);
        None
    }

    /// Reads the answer: the one that is ours, if it stands there.
    fn read_found_document(
        &self,
        document: Document,
        answer: &Response,
    ) -> Result<Option<Remote>, Fault> {
        let _ = (document, answer);
        Ok(None)
    }

    /// The call that reads a document back.
    fn read(&self, tenant: &Tenant, form: Form, remote: &Remote) -> Request;

    /// Reads the answer.
    fn read_back(&self, form: Form, answer: &Response) -> Result<Seen, Fault>;

    /// What it says has changed.
    fn changes(&self) -> &'static dyn Changes;
}

/// One page of the documents of a day.
#[derive(Debug, Clone, PartialEq)]
pub struct DayPage {
    pub documents: Vec<Theirs>,
    /// Whether another page follows.
    pub more: bool,
}

/// Reading documents by the date that they bear in the books.
pub trait ByDay {
    /// The lists that show all documents which we may have written, each by a form that stands in it.
    fn forms(&self) -> &'static [Form];

    /// The call that reads a page of the documents of `day`; the first page is 0.
    fn list(&self, tenant: &Tenant, form: Form, day: NaiveDate, page: usize) -> Request;

    /// Reads the answer. What is void, deleted or a draft is not in the books and left out, where the
    /// provider says so.
    fn read_list(&self, form: Form, answer: &Response, settings: &Value) -> Result<DayPage, Fault>;

    /// Reads the answer to [`Accounting::read`]; `None` for what is no longer in the books.
    fn read_one(
        &self,
        form: Form,
        answer: &Response,
        settings: &Value,
    ) -> Result<Option<Theirs>, Fault>;
}

/// Finds an accounting system by its name in paths.
pub fn accounting(name: &str) -> Option<&'static dyn Accounting> {
    provider(name)?.accounting()
}
