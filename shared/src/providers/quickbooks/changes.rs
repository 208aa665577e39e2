//! What changed in a company: Change Data Capture
//! (<https://developer.intuit.com/app/developer/qbo/docs/learn/explore-the-quickbooks-online-api/change-data-capture>)
//! tells whole objects of the last 30 days, at most 1,000 in an answer, and stubs of what was deleted.

use super::list::NOT_FOUND;
use super::{answer, form_entity, get, incomplete, query, quoted, remote, total};
use crate::model::http::{Request, Response};
use crate::providers::accounting::DependencyKind;
use crate::providers::changes::{Changes, Next, Page, content, members};
use crate::providers::{Fault, Tenant};
use crate::sync::conflict::{Content, Gone, Seen, Shown, Standing};
use crate::sync::push::Form;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};

/// Kinds, in the words of the webhooks, with the names of the entities.
const KINDS: [(&str, &str); 7] = [
    ("salesreceipt", "SalesReceipt"),
    ("invoice", "Invoice"),
    ("payment", "Payment"),
    ("refundreceipt", "RefundReceipt"),
    ("journalentry", "JournalEntry"),
    ("customer", "Customer"),
    ("item", "Item"),
];
/// The one request tells of all kinds.
const STREAM: &str = "changes";
/// A day less than Intuit's 30, for clocks and time zones.
const LOOK_BACK: TimeDelta = TimeDelta::days(29);
const OBJECTS_MAX: usize = 1000;
const IDS_MAX: usize = 100;

/// What moves the books. Which account or class a line goes to, an accountant chooses as he likes.
const AMOUNTS: [&str; 7] = [
    "TxnDate",
    "TotalAmt",
    "CurrencyRef.value",
    "CustomerRef.value",
    "TxnTaxDetail.TotalTax",
    "UnitPrice",
    "Active",
];
const WORDS: [&str; 11] = [
    "DocNumber",
    "PrivateNote",
    "CustomerMemo",
    "DisplayName",
    "GivenName",
    "FamilyName",
    "CompanyName",
    "PrimaryEmailAddr.Address",
    "Name",
    "Sku",
    "Notes",
];
/// Those of them that our own bodies of documents have.
const OWN_WORDS: [&str; 2] = ["DocNumber", "PrivateNote"];

pub struct QuickBooksChanges;

fn entity_of(kind: &str) -> &'static str {
    let found = KINDS.iter().find(|(name, _)| *name == kind);
    found.map_or("", |(_, entity)| entity)
}

/// What stands there, for comparison with what stood there.
pub fn content_of(entity: &Value) -> Content {
    let mut amounts = members(entity, &AMOUNTS);
    let lines = entity["Line"].as_array().into_iter().flatten();
    // QuickBooks makes the sum itself.
    let lines = lines.filter(|line| line["DetailType"] != "SubTotalLineDetail");
    let lines = lines.map(|line| {
        let paths = [
            "Amount",
            "Description",
            "SalesItemLineDetail.Qty",
            "SalesItemLineDetail.UnitPrice",
            "DiscountLineDetail.DiscountPercent",
            "JournalEntryLineDetail.PostingType",
        ];
        let mut line_members = members(line, &paths);
        let settled = line["LinkedTxn"].as_array().into_iter().flatten();
        let settled: Vec<&Value> = settled.map(|one| &one["TxnId"]).collect();
        line_members["settles"] = json!(settled);
        line_members
    });
    amounts["Line"] = lines.collect();
    content(&amounts, &members(entity, &WORDS))
}

/// The moment of the last change.
fn changed_at(entity: &Value) -> Option<DateTime<Utc>> {
    let text = entity["MetaData"]["LastUpdatedTime"].as_str()?;
    Some(DateTime::parse_from_rfc3339(text).ok()?.to_utc())
}

/// One object or stub.
pub fn seen(kind: &'static str, entity: &Value) -> Option<Seen> {
    let id = entity["Id"].as_str()?.to_owned();
    let note = entity["PrivateNote"].as_str();
    let text = |name: &str| entity[name].as_str().map(str::to_owned);
    let total = total(entity);
    // There is no flag: a void leaves nothing of the amounts and says so in the note.
    let voided = total.is_some_and(|total| total.is_zero())
        && note.is_some_and(|note| note.starts_with("Voided"));
    let standing = if entity["status"] == "Deleted" {
        Standing::Gone(Gone::Deleted)
    } else if voided {
        Standing::Gone(Gone::Voided)
    } else if matches!(kind, "customer" | "item") && entity["Active"] == false {
        // Lists are never deleted: what is made inactive is out of use.
        Standing::Gone(Gone::Deleted)
    } else {
        Standing::Stands {
            remote: remote(entity)?,
            words: members(entity, &OWN_WORDS),
        }
    };
    Some(Seen {
        kind,
        id,
        standing,
        at: changed_at(entity),
        mark: note.map(str::to_owned),
        shown: Shown {
            day: text("TxnDate").and_then(|day| day.parse().ok()),
            total,
            currency: entity["CurrencyRef"]["value"].as_str().map(str::to_owned),
            name: text("DisplayName").or_else(|| text("Name")),
            note: note.map(str::to_owned),
        },
    })
}

impl Changes for QuickBooksChanges {
    fn streams(&self) -> &'static [&'static str] {
        &[STREAM]
    }

    fn kind(&self, word: &str) -> Option<(&'static str, &'static str)> {
        let found = KINDS.iter().find(|(name, _)| *name == word)?;
        Some((found.0, STREAM))
    }

    fn kind_of(&self, form: Form) -> &'static str {
        let entity = form_entity(form);
        let found = KINDS.iter().find(|(_, name)| *name == entity);
        found.map_or("", |(kind, _)| kind)
    }

    fn kind_of_dependency(&self, kind: DependencyKind) -> &'static str {
        match kind {
            DependencyKind::Customer => "customer",
            DependencyKind::Item => "item",
        }
    }

    fn look_back(&self) -> Option<TimeDelta> {
        Some(LOOK_BACK)
    }

    fn changes(&self, tenant: &Tenant, _: &str, since: DateTime<Utc>) -> Request {
        let entities = KINDS.map(|(_, entity)| entity).join(",");
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
        let mut request = get(tenant, "cdc");
        let mut pairs = request.url.query_pairs_mut();
        pairs.append_pair("entities", &entities);
        pairs.append_pair("changedSince", &since);
        drop(pairs);
        request
    }

    fn read_changes(
        &self,
        _: &str,
        since: DateTime<Utc>,
        response: &Response,
    ) -> Result<Page, Fault> {
        let body = answer(response)?;
        let answers = body["CDCResponse"].as_array().ok_or_else(incomplete)?;
        let mut all = Vec::new();
        for part in answers {
            let parts = part["QueryResponse"].as_array().ok_or_else(incomplete)?;
            for part in parts {
                for (kind, entity) in KINDS {
                    let found = part[entity].as_array().into_iter().flatten();
                    for one in found {
                        all.push(seen(kind, one).ok_or_else(incomplete)?);
                    }
                }
            }
        }
        let clock = body["time"].as_str().and_then(|time| {
            let time = DateTime::parse_from_rfc3339(time).ok()?;
            Some(time.to_utc())
        });
        // Without the provider's own time, the cursor stands at the last change.
        let last = all.iter().filter_map(|one| one.at).max();
        let next = match all.len() {
            OBJECTS_MAX.. => Next::TooMany,
            _ => Next::Until(clock.or(last).unwrap_or(since)),
        };
        Ok(Page {
            seen: all,
            next,
            clock,
        })
    }

    fn read_max(&self, _: &str) -> usize {
        IDS_MAX
    }

    fn by_id(&self, tenant: &Tenant, kind: &str, ids: &[&str]) -> Request {
        let ids: Vec<String> = ids.iter().map(|id| quoted(id)).collect();
        // What is inactive is left out unless it is asked for.
        let active = match kind {
            "customer" | "item" => " and Active in (true, false)",
            _ => "",
        };
        let (entity, ids) = (entity_of(kind), ids.join(", "));
        query(
            tenant,
            &format!("select * from {entity} where Id in ({ids}){active} maxresults 1000"),
        )
    }

    fn read_by_id(&self, kind: &'static str, response: &Response) -> Result<Vec<Seen>, Fault> {
        let body = answer(response)?;
        let found = &body["QueryResponse"];
        if !found.is_object() {
            return Err(incomplete());
        }
        let found = found[entity_of(kind)].as_array().into_iter().flatten();
        found
            .map(|one| seen(kind, one).ok_or_else(incomplete))
            .collect()
    }

    fn one(&self, tenant: &Tenant, kind: &str, id: &str) -> Request {
        get(tenant, &format!("{}/{id}", entity_of(kind).to_lowercase()))
    }

    fn read_one(&self, kind: &'static str, response: &Response) -> Result<Option<Seen>, Fault> {
        let body = match answer(response) {
            Err(Fault::Refused { code, .. }) if code == NOT_FOUND => return Ok(None),
            body => body?,
        };
        seen(kind, &body[entity_of(kind)])
            .ok_or_else(incomplete)
            .map(Some)
    }
}
