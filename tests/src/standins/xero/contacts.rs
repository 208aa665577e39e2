//! Contacts: whoever documents are made out to.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::books::{Books, Mode, Saved, amount, list, set};
use super::state::{Fields, Kind, Organisation, text};
use super::wire::shown;
use crate::standins::money;

const PERSONS: usize = 5;

/// What identifies a contact, so that sending it changes nothing.
const NAMES_IT: [&str; 3] = ["ContactID", "ContactNumber", "Name"];

fn active(contact: &Fields) -> bool {
    text(contact, "ContactStatus") == Some("ACTIVE")
}

/// A name as it is kept: without blanks at its ends, and never two in a row.
pub fn clean(name: &str) -> String {
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn by<'a>(books: &'a Books<'_>, key: &'static str, value: &str) -> Option<&'a Fields> {
    let mut found = books.shelf(Kind::Contact).with(key, value);
    found.find(|contact| active(contact))
}

/// The contact that an element means, if there is one: by id, by number, by name.
fn meant(books: &Books<'_>, sent: &Fields) -> Result<Option<Fields>, Vec<String>> {
    if let Some(id) = text(sent, "ContactID") {
        return match books.get(Kind::Contact, id) {
            Some(contact) => Ok(Some(contact.clone())),
            None => Err(vec![format!(
                "No contact was found with the ContactID {id}"
            )]),
        };
    }
    let number = text(sent, "ContactNumber").and_then(|one| by(books, "ContactNumber", one));
    let name = || text(sent, "Name").and_then(|name| by(books, "Name", &clean(name)));
    Ok(number.or_else(name).cloned())
}

/// Makes or changes one.
pub fn save(books: &mut Books<'_>, sent: &Fields, mode: Mode) -> Saved {
    let old = match mode {
        Mode::Upsert => meant(books, sent)?,
        Mode::Create => match text(sent, "ContactID") {
            Some(_) => return Err(vec!["A new contact must not have a ContactID".into()]),
            None => None,
        },
    };
    let (value, wrong) = merged(books, old.as_ref(), sent);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    Ok(keep(books, value))
}

fn keep(books: &mut Books<'_>, mut value: Fields) -> String {
    if !value.contains_key("ContactID") {
        set(&mut value, "ContactID", books.new_id());
    }
    let id = text(&value, "ContactID").unwrap_or_default().to_owned();
    books.put(Kind::Contact, value);
    id
}

/// What the contact would be, and what is wrong with that.
fn merged(books: &Books<'_>, old: Option<&Fields>, sent: &Fields) -> (Fields, Vec<String>) {
    let mut wrong = Vec::new();
    let mut value = old.cloned().unwrap_or_default();
    for (name, new) in sent {
        value.insert(name.clone(), new.clone());
    }
    if !value.contains_key("ContactStatus") {
        set(&mut value, "ContactStatus", "ACTIVE");
    }
    let name = clean(text(&value, "Name").unwrap_or_default());
    if name.is_empty() {
        wrong.push("The contact name cannot be empty".to_owned());
    }
    if name.contains(['<', '>']) {
        wrong.push("The contact name cannot contain the characters < or >".to_owned());
    }
    set(&mut value, "Name", name.as_str());
    if list(&value, "ContactPersons").is_some_and(|all| all.len() > PERSONS) {
        wrong.push(format!(
            "A contact can have at most {PERSONS} contact persons"
        ));
    }
    if let Some(currency) = text(&value, "DefaultCurrency")
        && !books.enabled(currency)
    {
        wrong.push(format!(
            "Organisation is not subscribed to currency {currency}"
        ));
    }
    if old.is_some_and(|old| !active(old)) && !active(&value) {
        wrong.push("An archived contact cannot be changed".to_owned());
    }
    if !active(&value) {
        return (value, wrong);
    }
    let id = text(&value, "ContactID");
    let taken = |key: &'static str, one: Option<&str>| {
        one.filter(|one| !one.is_empty())
            .and_then(|one| by(books, key, one))
            .is_some_and(|other| text(other, "ContactID") != id)
    };
    if taken("Name", Some(&name)) {
        wrong.push(format!("The contact name {name} is already assigned to another contact. The contact name must be unique across all active contacts."));
    }
    let number = text(&value, "ContactNumber");
    if taken("ContactNumber", number) {
        let number = number.unwrap_or_default();
        wrong.push(format!(
            "The contact number {number} is already assigned to another contact."
        ));
    }
    if taken("AccountNumber", text(&value, "AccountNumber")) {
        wrong.push(
            "The Account Number already exists. Please enter a different Account Number."
                .to_owned(),
        );
    }
    (value, wrong)
}

/// The contact of a document, to be kept once the document is known to be good.
pub struct Party {
    id: Option<String>,
    change: Option<Fields>,
}

/// Reads the `Contact` of a document. One that comes with more than its id is made or changed, and
/// then loses the contact persons that were not sent again.
pub fn party(books: &Books<'_>, sent: &Fields) -> Result<Party, Vec<String>> {
    let old = meant(books, sent)?;
    if let Some(old) = &old
        && !active(old)
    {
        let name = text(old, "Name").unwrap_or_default();
        return Err(vec![format!(
            "The contact '{name}' is archived and cannot be used"
        )]);
    }
    let id = old.as_ref().and_then(|old| text(old, "ContactID"));
    let id = id.map(str::to_owned);
    let says_more = sent.keys().any(|name| !NAMES_IT.contains(&name.as_str()))
        || text(sent, "ContactID").is_some() && text(sent, "Name").is_some();
    if old.is_some() && !says_more {
        return Ok(Party { id, change: None });
    }
    let mut sent = sent.clone();
    if old
        .as_ref()
        .is_some_and(|old| old.contains_key("ContactPersons"))
    {
        sent.entry("ContactPersons").or_insert_with(|| json!([]));
    }
    let (value, wrong) = merged(books, old.as_ref(), &sent);
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let same = old.as_ref() == Some(&value);
    Ok(Party {
        id,
        change: (!same).then_some(value),
    })
}

impl Party {
    pub fn keep(self, books: &mut Books<'_>) -> String {
        match (self.change, self.id) {
            (Some(value), _) => keep(books, value),
            (None, id) => id.unwrap_or_default(),
        }
    }
}

/// A contact as it stands in a document: whole where the document stands alone.
pub fn within(organisation: &Organisation, id: &str, whole: bool) -> Value {
    let Some(contact) = organisation.shelf(Kind::Contact).get(id) else {
        return Value::Null;
    };
    if whole {
        let mut out = base(contact);
        out.remove("_app");
        return Value::Object(out);
    }
    let mut out = json!({
        "ContactID": id,
        "Name": contact["Name"],
        "Addresses": [],
        "Phones": [],
        "ContactGroups": [],
        "ContactPersons": [],
        "HasValidationErrors": false,
    });
    if let Some(number) = contact.get("ContactNumber") {
        out["ContactNumber"] = number.clone();
    }
    out
}

/// An address or phone of every kind, also of those that were never said.
fn filled(sent: Option<&Vec<Value>>, key: &str, kinds: &[&str], empty: &[&str]) -> Value {
    let one = |kind: &str| {
        let given = sent
            .into_iter()
            .flatten()
            .find(|one| one[key].as_str() == Some(kind));
        let mut out = given.cloned().unwrap_or_else(|| json!({}));
        out[key] = json!(kind);
        for name in empty {
            if out[*name].is_null() {
                out[*name] = json!("");
            }
        }
        out
    };
    kinds.iter().map(|kind| one(kind)).collect()
}

fn base(contact: &Fields) -> Fields {
    let mut out = shown(contact);
    let addresses = filled(
        list(contact, "Addresses"),
        "AddressType",
        &["STREET", "POBOX"],
        &["City", "Region", "PostalCode", "Country"],
    );
    let phones = filled(
        list(contact, "Phones"),
        "PhoneType",
        &["DEFAULT", "DDI", "FAX", "MOBILE"],
        &["PhoneNumber", "PhoneAreaCode", "PhoneCountryCode"],
    );
    set(&mut out, "Addresses", addresses);
    set(&mut out, "Phones", phones);
    for (name, empty) in [
        ("EmailAddress", json!("")),
        ("BankAccountDetails", json!("")),
        ("ContactPersons", json!([])),
        ("ContactGroups", json!([])),
        ("SalesTrackingCategories", json!([])),
        ("PurchasesTrackingCategories", json!([])),
        ("HasAttachments", json!(false)),
        ("HasValidationErrors", json!(false)),
    ] {
        out.entry(name).or_insert(empty);
    }
    out
}

/// What is owed on documents of this contact. It changes without the contact's `UpdatedDateUTC`.
fn outstanding(organisation: &Organisation, id: &str, sale: bool) -> (bool, Decimal) {
    let (mut any, mut sum) = (false, Decimal::ZERO);
    for (kind, field, wanted) in [
        (Kind::Invoice, "AmountDue", ["ACCPAY", "ACCREC"]),
        (
            Kind::CreditNote,
            "RemainingCredit",
            ["ACCPAYCREDIT", "ACCRECCREDIT"],
        ),
    ] {
        for document in organisation.shelf(kind).with("_contact", id) {
            if text(document, "Type") != Some(wanted[usize::from(sale)]) {
                continue;
            }
            any = true;
            if text(document, "Status") == Some("AUTHORISED") {
                let open = amount(document, field).unwrap_or_default();
                sum += if kind == Kind::Invoice { open } else { -open };
            }
        }
    }
    (any, sum)
}

/// One as the contacts' own address shows it; `short` is what `summaryOnly` asks for.
pub fn render(organisation: &Organisation, contact: &Fields, short: bool) -> Fields {
    let mut out = base(contact);
    let id = text(contact, "ContactID").unwrap_or_default();
    let (customer, receivable) = outstanding(organisation, id, true);
    let (supplier, payable) = outstanding(organisation, id, false);
    set(&mut out, "IsCustomer", customer);
    set(&mut out, "IsSupplier", supplier);
    if short {
        for name in ["Addresses", "Phones", "ContactPersons", "ContactGroups"] {
            out.remove(name);
        }
    } else if customer || supplier {
        let of = |sum: Decimal| json!({"Outstanding": money::number(sum), "Overdue": 0.0});
        let balances =
            json!({"AccountsReceivable": of(receivable), "AccountsPayable": of(payable)});
        set(&mut out, "Balances", balances);
    }
    out
}
