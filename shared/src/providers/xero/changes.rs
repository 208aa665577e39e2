//! What changed in an organisation: each kind is read by itself with `If-Modified-Since`
//! (<https://developer.xero.com/documentation/api/accounting/requests-and-responses#retrieving-modified-resources>),
//! and what was voided or deleted keeps standing there with that status.

use super::{answer, elements, fault, incomplete, place, remote, request};
use crate::model::http::{Method, Request, Response};
use crate::providers::accounting::DependencyKind;
use crate::providers::changes::{Changes, Next, Page, content, members};
use crate::providers::{Fault, Tenant};
use crate::sync::conflict::{Content, Gone, Seen, Shown, Standing};
use crate::sync::push::Form;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde_json::Value;

/// Kinds, in the words of the webhooks, with their addresses and the members that hold their ids.
const KINDS: [(&str, &str, &str); 7] = [
    ("invoice", "Invoices", "InvoiceID"),
    ("creditnote", "CreditNotes", "CreditNoteID"),
    ("payment", "Payments", "PaymentID"),
    ("contact", "Contacts", "ContactID"),
    ("item", "Items", "ItemID"),
    ("banktransaction", "BankTransactions", "BankTransactionID"),
    ("banktransfer", "BankTransfers", "BankTransferID"),
];
const STREAMS: [&str; 7] = [
    "invoice",
    "creditnote",
    "payment",
    "contact",
    "item",
    "banktransaction",
    "banktransfer",
];
/// Elements of one page; Xero takes up to 1,000.
const PAGE_MAX: usize = 200;
/// More ids make an address that is too long (XeroAPI/Xero-OpenAPI#534).
const IDS_MAX: usize = 40;

/// What moves the books. Which account, tax rate or tracking category a line goes to, an accountant
/// chooses as he likes.
const AMOUNTS: [&str; 8] = [
    "Date",
    "CurrencyCode",
    "LineAmountTypes",
    "Total",
    "TotalTax",
    "Contact.ContactID",
    "Amount",
    "SalesDetails.UnitPrice",
];
const WORDS: [&str; 9] = [
    "InvoiceNumber",
    "CreditNoteNumber",
    "Reference",
    "Name",
    "FirstName",
    "LastName",
    "EmailAddress",
    "ContactNumber",
    "Code",
];
/// Those of them that our own bodies of documents have.
const OWN_WORDS: [&str; 3] = ["InvoiceNumber", "CreditNoteNumber", "Reference"];

pub struct XeroChanges;

fn known(kind: &str) -> (&'static str, &'static str, &'static str) {
    let found = KINDS.iter().find(|(name, ..)| *name == kind);
    found.copied().unwrap_or(("", "", ""))
}

/// What stands there, for comparison with what stood there. `None` where a list shows no lines.
pub fn content_of(element: &Value, id: &str) -> Option<Content> {
    let mut amounts = members(element, &AMOUNTS);
    if matches!(id, "InvoiceID" | "CreditNoteID" | "BankTransactionID") {
        let lines = element["LineItems"]
            .as_array()
            .filter(|lines| !lines.is_empty())?;
        let paths = [
            "Description",
            "Quantity",
            "UnitAmount",
            "LineAmount",
            "TaxAmount",
            "DiscountRate",
            "DiscountAmount",
        ];
        amounts["LineItems"] = lines.iter().map(|line| members(line, &paths)).collect();
    }
    if id == "BankTransactionID" {
        // Whether it is spent or received.
        amounts["Type"] = element["Type"].clone();
    }
    Some(content(&amounts, &members(element, &WORDS)))
}

/// `/Date(1551399321043+0000)/`: milliseconds, always of UTC.
fn moment(value: &Value) -> Option<DateTime<Utc>> {
    let text = value.as_str()?.strip_prefix("/Date(")?;
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    DateTime::from_timestamp_millis(text[..end].parse().ok()?)
}

pub fn seen(kind: &'static str, element: &Value) -> Option<Seen> {
    let (_, _, id) = known(kind);
    let status = |name: &str| element[name].as_str().unwrap_or_default();
    let standing = match (status("Status"), status("ContactStatus")) {
        ("DELETED", _) => Standing::Gone(Gone::Deleted),
        ("VOIDED", _) => Standing::Gone(Gone::Voided),
        // Contacts are never deleted: what is archived is out of use.
        (_, "ARCHIVED" | "GDPRREQUEST") => Standing::Gone(Gone::Deleted),
        _ => Standing::Stands {
            remote: remote(element, id)?,
            words: members(element, &OWN_WORDS),
        },
    };
    let text = |name: &str| element[name].as_str().map(str::to_owned);
    let number = |name: &str| element[name].to_string().parse().ok();
    Some(Seen {
        kind,
        id: element[id].as_str()?.to_owned(),
        standing,
        at: moment(&element["UpdatedDateUTC"]),
        mark: element["Reference"].as_str().map(str::to_owned),
        shown: Shown {
            day: moment(&element["Date"]).map(|at| at.date_naive()),
            total: number("Total").or_else(|| number("Amount")),
            currency: text("CurrencyCode"),
            name: text("Name"),
            note: text("Reference"),
        },
    })
}

/// Whether a bank transaction is one of the two that Xero makes of a transfer. They carry its reference
/// (<https://developer.xero.com/documentation/api/accounting/banktransfers>).
pub fn is_end_of_transfer(element: &Value) -> bool {
    matches!(
        element["Type"].as_str(),
        Some("SPEND-TRANSFER" | "RECEIVE-TRANSFER")
    )
}

impl Changes for XeroChanges {
    fn streams(&self) -> &'static [&'static str] {
        &STREAMS
    }

    fn kind(&self, word: &str) -> Option<(&'static str, &'static str)> {
        let (kind, ..) = *KINDS.iter().find(|(kind, ..)| *kind == word)?;
        Some((kind, kind))
    }

    fn kind_of(&self, form: Form) -> &'static str {
        let (path, _) = place(form);
        let found = KINDS.iter().find(|(_, name, _)| *name == path);
        found.map_or("", |(kind, ..)| kind)
    }

    fn needs(&self, kind: &str) -> &'static [&'static str] {
        match kind {
            // It was not asked for before there were payouts.
            "banktransaction" | "banktransfer" => {
                &["accounting.banktransactions", "accounting.transactions"]
            }
            _ => &[],
        }
    }

    fn kind_of_dependency(&self, kind: DependencyKind) -> &'static str {
        match kind {
            DependencyKind::Customer => "contact",
            DependencyKind::Item => "item",
        }
    }

    fn look_back(&self) -> Option<TimeDelta> {
        None
    }

    fn changes(&self, tenant: &Tenant, stream: &str, since: DateTime<Utc>) -> Request {
        let (_, path, _) = known(stream);
        let size = PAGE_MAX.to_string();
        // Always the first page: whatever changes meanwhile moves to the end and is read there, while
        // pages that are counted would shift under the reader.
        let query = [
            ("page", "1"),
            ("pageSize", size.as_str()),
            ("order", "UpdatedDateUTC ASC"),
            ("includeArchived", "true"),
            ("unitdp", "4"),
        ];
        // Transfers have neither pages nor a time of their last change.
        let query = match stream {
            "banktransfer" => &[("includeDeleted", "true")][..],
            _ => &query,
        };
        // Whether a change of this very second is told differs from kind to kind, so one second less.
        let since = (since - TimeDelta::seconds(1)).format("%Y-%m-%dT%H:%M:%S");
        request(Method::Get, tenant, path, query).header("if-modified-since", since.to_string())
    }

    fn read_changes(
        &self,
        stream: &str,
        since: DateTime<Utc>,
        response: &Response,
    ) -> Result<Page, Fault> {
        // Xero may say that nothing changed in two ways.
        if response.status == 304 {
            return Ok(Page {
                seen: Vec::new(),
                next: Next::Until(since),
                clock: None,
            });
        }
        let (kind, path, _) = known(stream);
        let body = answer(response)?;
        let all = elements(&body, path)?;
        // Items and transfers come all at once.
        let full = all.len() >= PAGE_MAX && !matches!(stream, "item" | "banktransfer");
        let last = all.iter().filter_map(|one| moment(&one["UpdatedDateUTC"]));
        let last = last.max();
        let all = all.iter().filter(|one| !is_end_of_transfer(one));
        let all = all.map(|one| seen(kind, one).ok_or_else(incomplete));
        let all: Vec<Seen> = all.collect::<Result<_, Fault>>()?;
        let clock = moment(&body["DateTimeUTC"]);
        let next = match last {
            Some(last) if full => {
                let last = last.trunc_subsecs(0);
                if last > since {
                    Next::From(last)
                } else {
                    Next::TooMany
                }
            }
            _ => Next::Until(clock.or(last).unwrap_or(since)),
        };
        Ok(Page {
            seen: all,
            next,
            clock,
        })
    }

    fn read_max(&self, kind: &str) -> usize {
        match kind {
            "invoice" | "contact" => IDS_MAX,
            _ => 1,
        }
    }

    fn by_id(&self, tenant: &Tenant, kind: &str, ids: &[&str]) -> Request {
        let (_, path, _) = known(kind);
        if let ([id], true) = (ids, self.read_max(kind) == 1) {
            return self.one(tenant, kind, id);
        }
        let ids = ids.join(",");
        let query = [
            ("IDs", ids.as_str()),
            ("page", "1"),
            ("pageSize", "100"),
            ("includeArchived", "true"),
            ("unitdp", "4"),
        ];
        request(Method::Get, tenant, path, &query)
    }

    fn read_by_id(&self, kind: &'static str, response: &Response) -> Result<Vec<Seen>, Fault> {
        if self.read_max(kind) == 1 {
            return Ok(self.read_one(kind, response)?.into_iter().collect());
        }
        let (_, path, _) = known(kind);
        let body = answer(response)?;
        let found = elements(&body, path)?.iter();
        found
            .map(|one| seen(kind, one).ok_or_else(incomplete))
            .collect()
    }

    fn one(&self, tenant: &Tenant, kind: &str, id: &str) -> Request {
        let (_, path, _) = known(kind);
        let path = format!("{path}/{id}");
        request(Method::Get, tenant, &path, &[("unitdp", "4")])
    }

    fn read_one(&self, kind: &'static str, response: &Response) -> Result<Option<Seen>, Fault> {
        if fault::is_gone(response) {
            return Ok(None);
        }
        let (_, path, _) = known(kind);
        let body = answer(response)?;
        let one = elements(&body, path)?.first();
        one.and_then(|one| seen(kind, one))
            .ok_or_else(incomplete)
            .map(Some)
    }
}
