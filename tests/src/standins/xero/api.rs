//! `/api.xro/2.0/`: who may ask, what is asked, and what is answered.

use axum::http::Method;
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::books::{Books, Mode, Saved, set};
use super::documents::{self, CREDIT_NOTE, Detail, INVOICE};
use super::filter::{self, Filter};
use super::schema::{self, Type};
use super::state::{Change, Fields, Kind, Organisation, Stored, text};
use super::wire::{self, Page};
use super::{bank, contacts, credit_notes, items, payments, settings, transfers};
use crate::standins::oauth::flow::Open;
use crate::standins::oauth::rules::Call;
use crate::standins::oauth::state::uuid;
use crate::standins::wire::{Reply, param, reply};

/// Longer addresses break before they reach the vendor (XeroAPI/Xero-OpenAPI#534: about 52 ids).
const LONGEST_ADDRESS: usize = 2_100;
const LONGEST_KEY: usize = 128;
/// How long an answer is given again to the same idempotency key.
const KEPT: i64 = 6 * 60 * 1000;

/// The scopes of which one is needed; the first is the granular one.
fn scopes(resource: &str) -> &'static [&'static str] {
    match resource {
        "Contacts" => &["accounting.contacts"],
        "Invoices" | "CreditNotes" => &["accounting.invoices", "accounting.transactions"],
        "Items" => &[
            "accounting.invoices",
            "accounting.settings",
            "accounting.transactions",
        ],
        "Payments" => &["accounting.payments", "accounting.transactions"],
        "BankTransactions" | "BankTransfers" => {
            &["accounting.banktransactions", "accounting.transactions"]
        }
        _ => &["accounting.settings"],
    }
}

/// Whether the token may do this. Reading needs no more than the scope that ends in `.read`.
pub fn may(open: &Open, method: &Method, resource: &str) -> bool {
    scopes(resource)
        .iter()
        .any(|scope| open.may(scope) || method == Method::GET && open.may(&format!("{scope}.read")))
}

fn schema_of(kind: Kind) -> &'static Type {
    match kind {
        Kind::Account => &schema::ACCOUNT,
        Kind::TaxRate => &schema::TAX_RATE,
        Kind::Currency => &schema::CURRENCY,
        Kind::Item => &schema::ITEM,
        Kind::Contact => &schema::CONTACT,
        Kind::Invoice => &schema::INVOICE,
        Kind::CreditNote => &schema::CREDIT_NOTE,
        Kind::Payment => &schema::PAYMENT,
        Kind::Allocation => &schema::ALLOCATION,
        Kind::BankTransaction => &schema::BANK_TRANSACTION,
        Kind::BankTransfer => &schema::BANK_TRANSFER,
    }
}

/// Reads one element as a caller or a bookkeeper sends it.
pub fn element(kind: Kind, sent: &Value) -> Result<(Fields, Vec<String>), String> {
    let mut wrong = Vec::new();
    let fields = schema::admit(schema_of(kind), sent, kind.plural(), &mut wrong)?;
    Ok((fields, wrong))
}

/// Keeps one element by the rules of its kind.
pub fn save(books: &mut Books<'_>, kind: Kind, sent: &Fields, mode: Mode) -> Saved {
    match kind {
        Kind::Account => settings::account(books, sent, mode),
        Kind::TaxRate => settings::tax_rate(books, sent, mode),
        Kind::Currency => settings::currency(books, sent),
        Kind::Item => items::save(books, sent, mode),
        Kind::Contact => contacts::save(books, sent, mode),
        Kind::Invoice => documents::save(books, &INVOICE, sent, mode),
        Kind::CreditNote => documents::save(books, &CREDIT_NOTE, sent, mode),
        Kind::BankTransaction => bank::save(books, sent, mode),
        Kind::BankTransfer => transfers::save(books, sent),
        Kind::Payment => match text(sent, "PaymentID") {
            Some(id) => payments::change(books, id, sent, books.app.is_none()),
            None => payments::create(books, sent),
        },
        Kind::Allocation => Err(vec!["Allocations belong to their credit note".into()]),
    }
}

pub fn render(organisation: &Organisation, kind: Kind, value: &Fields, detail: Detail) -> Fields {
    match kind {
        Kind::Account => settings::render_account(value),
        Kind::TaxRate | Kind::Currency => settings::render_undated(value),
        Kind::Item => items::render(value),
        Kind::Contact => contacts::render(organisation, value, detail == Detail::Summary),
        Kind::Invoice => documents::render(organisation, &INVOICE, value, detail),
        Kind::CreditNote => documents::render(organisation, &CREDIT_NOTE, value, detail),
        Kind::Payment => payments::render(organisation, value, detail == Detail::Whole),
        Kind::BankTransaction => bank::render(organisation, value, detail),
        Kind::BankTransfer => transfers::render(organisation, value),
        Kind::Allocation => match credit_notes::shown_allocation(organisation, value) {
            Value::Object(shown) => shown,
            _ => Fields::new(),
        },
    }
}

/// The entity of an id, or of whatever else its address may name it by.
pub fn named<'a>(organisation: &'a Organisation, kind: Kind, name: &str) -> Option<&'a Fields> {
    let shelf = organisation.shelf(kind);
    match kind {
        Kind::Invoice => documents::found(organisation, &INVOICE, name),
        Kind::CreditNote => documents::found(organisation, &CREDIT_NOTE, name),
        Kind::Contact => shelf
            .get(name)
            .or_else(|| shelf.with("ContactNumber", name).next()),
        Kind::Item => shelf.get(name).or_else(|| shelf.with("Code", name).next()),
        _ => shelf.get(name),
    }
}

/// Answers one request, once, whatever its idempotency key.
pub fn serve(books: &mut Books<'_>, call: &Call<'_>, path: &str) -> Reply {
    let key = call
        .header("idempotency-key")
        .filter(|_| call.method != Method::GET && call.method != Method::DELETE);
    let Some(key) = key else {
        return route(books, call, path);
    };
    if key.chars().count() > LONGEST_KEY {
        return wire::bad_key("The idempotency key must not be longer than 128 characters");
    }
    let (key, request) = identify(call, books.tenant, books.app.unwrap_or_default(), key);
    let now = books.now.timestamp_millis();
    let before = books.state.answers.get(&key);
    if let Some(before) = before.filter(|before| now < before.at + KEPT) {
        if before.request != request {
            return wire::bad_key("The idempotency key is used with a different request");
        }
        let kind = if before.content_type.contains("json") {
            crate::standins::wire::JSON
        } else {
            "text/html; charset=utf-8"
        };
        return reply(before.status, kind, before.body.as_bytes());
    }
    let answer = route(books, call, path);
    remember(books, key, request, &answer);
    answer
}

/// The app's key, and the digest of what was sent under it.
fn identify(call: &Call<'_>, tenant: &str, app: &str, key: &str) -> (String, String) {
    let mut digest = Sha256::new();
    let query = format!("{:?}", call.query);
    for part in [call.method.as_str(), call.path, &query, tenant] {
        digest.update(part);
        digest.update([0]);
    }
    digest.update(call.body);
    (format!("{app} {key}"), format!("{:x}", digest.finalize()))
}

fn remember(books: &mut Books<'_>, key: String, request: String, answer: &Reply) {
    let header = answer.headers().get("content-type");
    let stored = Stored {
        key,
        request,
        at: books.now.timestamp_millis(),
        status: answer.status().as_u16(),
        content_type: header
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        body: String::from_utf8_lossy(answer.body()).into_owned(),
    };
    books.state.record(Change::Answer(stored));
}

/// Remembers a failure inside the vendor under the key of its request: it is repeated as well.
pub fn remember_failure(books: &mut Books<'_>, call: &Call<'_>, answer: &Reply) {
    if let Some(key) = call.header("idempotency-key") {
        let (key, request) = identify(call, books.tenant, books.app.unwrap_or_default(), key);
        remember(books, key, request, answer);
    }
}

fn route(books: &mut Books<'_>, call: &Call<'_>, path: &str) -> Reply {
    let parts: Vec<&str> = path.split('/').collect();
    let method = call.method;
    let single = |books: &mut Books<'_>, name: &str, all: Vec<Value>| {
        let id = answer_id(books, call);
        wire::envelope(books.now, &id, name, all, None)
    };
    match (method, parts.as_slice()) {
        (&Method::GET, ["Organisation"]) => {
            let shown = settings::organisation(&books.settings(), books.tenant);
            single(books, "Organisations", vec![shown])
        }
        (&Method::GET, ["Organisation", "Actions"]) => {
            let shown = settings::actions(&books.settings());
            single(books, "Actions", shown)
        }
        (&Method::PUT, ["CreditNotes", name, "Allocations"]) => allocate(books, call, name),
        (&Method::DELETE, ["CreditNotes", name, "Allocations", id]) => {
            release(books, call, name, id)
        }
        (&Method::DELETE, ["Items", name]) => {
            let item = named(books.organisation(), Kind::Item, name);
            match item
                .and_then(|item| text(item, "ItemID"))
                .map(str::to_owned)
            {
                None => wire::not_found(),
                Some(id) => {
                    books.remove(Kind::Item, &id);
                    reply(204, "text/plain", "")
                }
            }
        }
        (_, [plural, rest @ ..]) => match (Kind::named(plural), method, rest) {
            (None | Some(Kind::Allocation), ..) => wire::not_found(),
            (Some(kind), &Method::GET, []) => list(books, call, kind),
            (Some(kind), &Method::GET, [name]) => one(books, call, kind, &decoded(name)),
            (Some(kind), &Method::PUT, []) => write(books, call, kind, Mode::Create, None),
            (Some(kind), &Method::POST, []) => write(books, call, kind, Mode::Upsert, None),
            (Some(kind), &Method::POST, [name]) => {
                let name = decoded(name);
                match named(books.organisation(), kind, &name) {
                    None => wire::not_found(),
                    Some(found) => {
                        let id = text(found, kind.id()).unwrap_or_default().to_owned();
                        write(books, call, kind, Mode::Upsert, Some(id))
                    }
                }
            }
            _ => wire::not_found(),
        },
        _ => wire::not_found(),
    }
}

fn decoded(part: &str) -> String {
    // A plus is a plus in a path.
    let pairs = format!("x={}", part.replace('+', "%2B"));
    let pairs = crate::standins::wire::params(pairs.as_bytes());
    param(&pairs, "x").unwrap_or_default().to_owned()
}

/// Names the answer. It is the same for the same request at the same time.
fn answer_id(books: &Books<'_>, call: &Call<'_>) -> String {
    let now = books.now.timestamp_millis();
    uuid(&format!(
        "{} {} {now} {:?}",
        call.method, call.path, call.query
    ))
}

fn one(books: &mut Books<'_>, call: &Call<'_>, kind: Kind, name: &str) -> Reply {
    let organisation = books.organisation();
    let Some(value) = named(organisation, kind, name) else {
        return wire::not_found();
    };
    let mut shown = render(organisation, kind, value, Detail::Whole);
    priced(&mut shown, books.places);
    let id = answer_id(books, call);
    wire::envelope(books.now, &id, kind.plural(), vec![json!(shown)], None)
}

/// Unit amounts have four decimals only where they are asked for.
fn priced(shown: &mut Fields, places: u32) {
    let lines = shown.get_mut("LineItems").and_then(Value::as_array_mut);
    for line in lines.into_iter().flatten() {
        if let Some(price) = crate::standins::money::decimal(&line["UnitAmount"]) {
            let price = price.round_dp_with_strategy(
                places,
                rust_decimal::RoundingStrategy::MidpointAwayFromZero,
            );
            line["UnitAmount"] = crate::standins::money::number(price);
        }
    }
}

fn since(text: &str) -> Option<DateTime<Utc>> {
    let iso = NaiveDateTime::parse_from_str(text.trim_end_matches('Z'), "%Y-%m-%dT%H:%M:%S%.f");
    iso.map(|at| at.and_utc())
        .ok()
        .or_else(|| DateTime::parse_from_rfc3339(text).ok().map(Into::into))
        .or_else(|| DateTime::parse_from_rfc2822(text).ok().map(Into::into))
        .or_else(|| {
            let day = text.parse::<chrono::NaiveDate>().ok()?;
            Some(day.and_time(chrono::NaiveTime::MIN).and_utc())
        })
}

fn list(books: &mut Books<'_>, call: &Call<'_>, kind: Kind) -> Reply {
    let asked = |name: &str| param(&call.query, name).filter(|value| !value.is_empty());
    let flag = |name: &str| asked(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let length: usize = call
        .query
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if length > LONGEST_ADDRESS {
        return reply(414, "text/html", "<h2>Request URI Too Long</h2>");
    }
    let filter = match asked("where").map(Filter::read).transpose() {
        Ok(filter) => filter,
        Err(message) => return wire::bad_query(&message),
    };
    let words = |name: &str| -> Option<Vec<String>> {
        let all = asked(name)?.split(',');
        Some(all.map(|one| one.trim().to_lowercase()).collect())
    };
    let within = |wanted: &Option<Vec<String>>, value: Option<&str>| {
        let value = value.unwrap_or_default().to_lowercase();
        wanted.as_ref().is_none_or(|wanted| wanted.contains(&value))
    };
    let ids = words("IDs");
    let numbers = words("InvoiceNumbers");
    let statuses = words("Statuses");
    let of_contacts = words("ContactIDs");
    let search = asked("searchTerm").map(str::to_lowercase);
    let modified = call.header("if-modified-since").and_then(since);
    let mine = flag("createdByMyApp").then_some(books.app).flatten();
    let organisation = books.organisation();
    let paged = !matches!(
        kind,
        Kind::Item | Kind::Account | Kind::TaxRate | Kind::Currency | Kind::BankTransfer
    ) && (asked("page").is_some() || asked("pageSize").is_some());
    let detail = match (flag("summaryOnly"), paged) {
        (true, _) => Detail::Summary,
        (false, true) => Detail::Paged,
        (false, false) => Detail::Listed,
    };
    let changed = |value: &Fields| value["UpdatedDateUTC"].as_i64().unwrap_or_default();
    let hidden = |value: &Fields| match kind {
        // What is archived or deleted has to be asked for, unless a status is named.
        Kind::Contact => {
            text(value, "ContactStatus") == Some("ARCHIVED") && !flag("includeArchived")
        }
        Kind::BankTransfer => text(value, "Status") == Some("DELETED") && !flag("includeDeleted"),
        _ => false,
    };
    let mut found: Vec<&Fields> = organisation
        .shelf(kind)
        .all()
        .filter(|value| within(&ids, text(value, kind.id())))
        .filter(|value| within(&numbers, text(value, "InvoiceNumber")))
        .filter(|value| within(&statuses, text(value, "Status")))
        .filter(|value| within(&of_contacts, text(value, "_contact")))
        .filter(|value| modified.is_none_or(|since| changed(value) > since.timestamp_millis()))
        .filter(|value| mine.is_none() || text(value, "_app") == mine)
        .filter(|value| ids.is_some() || !hidden(value))
        .filter(|value| matches(value, search.as_deref()))
        .collect();
    // The vendor does not say in which order pages come. By the time of the last change is the hardest
    // for a caller: what changes meanwhile leaves its page for the last one.
    found.sort_by_key(|value| changed(value));
    let number = |name: &str| asked(name).map(str::parse::<usize>).transpose();
    let (Ok(page), Ok(size)) = (number("page"), number("pageSize")) else {
        return wire::bad_query("page and pageSize have to be numbers");
    };
    let (page, size) = (page.unwrap_or(1).max(1), size.unwrap_or(100));
    if !(1..=1000).contains(&size) {
        return wire::bad_query("pageSize has to be between 1 and 1000");
    }
    let shown = |value: &&Fields| render(organisation, kind, value, detail);
    let cut = |items: usize| match paged {
        true => ((page - 1) * size, size),
        false => (0, items),
    };
    // Only what is compared as it is shown has to be shown before the page is cut out.
    let (items, all): (usize, Vec<Fields>) = if filter.is_some() || asked("order").is_some() {
        let mut all: Vec<Fields> = found.iter().map(shown).collect();
        all.retain(|shown| filter.as_ref().is_none_or(|filter| filter.keeps(shown)));
        if let Some(wanted) = asked("order") {
            filter::order(&mut all, wanted);
        }
        let (skipped, taken) = cut(all.len());
        (
            all.len(),
            all.into_iter().skip(skipped).take(taken).collect(),
        )
    } else {
        let (skipped, taken) = cut(found.len());
        let all = found.iter().skip(skipped).take(taken).map(shown);
        (found.len(), all.collect())
    };
    let places = books.places;
    let all = all.into_iter().map(|mut shown| {
        priced(&mut shown, places);
        Value::Object(shown)
    });
    let page = paged.then_some(Page { page, size, items });
    let id = answer_id(books, call);
    wire::envelope(books.now, &id, kind.plural(), all.collect(), page)
}

/// Whether a search term is somewhere where searches look.
fn matches(value: &Fields, term: Option<&str>) -> bool {
    const LOOKED_AT: [&str; 8] = [
        "Name",
        "FirstName",
        "LastName",
        "EmailAddress",
        "ContactNumber",
        "CompanyNumber",
        "InvoiceNumber",
        "Reference",
    ];
    term.is_none_or(|term| {
        LOOKED_AT
            .iter()
            .any(|name| text(value, name).is_some_and(|one| one.to_lowercase().contains(term)))
    })
}

/// The elements of a body: a list under the plural name, or one element by itself.
fn elements(call: &Call<'_>, kind: Kind) -> Result<Vec<Value>, String> {
    let mut body: Value = serde_json::from_slice(call.body)
        .map_err(|error| format!("The body is not JSON: {error}"))?;
    match body.get_mut(kind.plural()).map(Value::take) {
        Some(Value::Array(all)) => Ok(all),
        Some(_) => Err(format!("{} has to be a list", kind.plural())),
        None if body.is_object() => Ok(vec![body]),
        None => match body {
            Value::Array(all) => Ok(all),
            _ => Err("An object is expected".into()),
        },
    }
}

fn write(
    books: &mut Books<'_>,
    call: &Call<'_>,
    kind: Kind,
    mode: Mode,
    id: Option<String>,
) -> Reply {
    let sent = match elements(call, kind) {
        Ok(sent) => sent,
        Err(message) => return wire::unreadable(&message),
    };
    let alone = matches!(kind, Kind::Account | Kind::TaxRate | Kind::Currency) || id.is_some();
    if sent.is_empty() || alone && sent.len() > 1 {
        return wire::unreadable("One element is expected");
    }
    let mut read = Vec::new();
    // A shape that cannot be read ends the request before anything is saved.
    for one in &sent {
        match element(kind, one) {
            Ok((mut fields, wrong)) => {
                if let Some(id) = &id {
                    set(&mut fields, kind.id(), id.as_str());
                }
                read.push((fields, wrong));
            }
            Err(message) => return wire::unreadable(&message),
        }
    }
    // The vendor's document has no such parameter where transfers are made, but where they are deleted.
    let knows = kind != Kind::BankTransfer || call.method == Method::POST;
    let separately = param(&call.query, "summarizeErrors")
        .is_some_and(|value| knows && value.eq_ignore_ascii_case("false"));
    let (mut all, mut bad) = (Vec::new(), Vec::new());
    for (fields, wrong) in read {
        let saved = match wrong.is_empty() {
            true => save(books, kind, &fields, mode),
            false => Err(wrong),
        };
        match saved {
            Ok(id) => {
                let organisation = books.organisation();
                let value = organisation.shelf(kind).get(&id);
                let mut shown = value
                    .map(|value| render(organisation, kind, value, Detail::Whole))
                    .unwrap_or_default();
                priced(&mut shown, books.places);
                match kind {
                    Kind::BankTransfer => set(&mut shown, "ValidationErrors", json!([])),
                    _ if separately => set(&mut shown, "StatusAttributeString", "OK"),
                    _ => {}
                }
                all.push(Value::Object(shown));
            }
            Err(wrong) => {
                let refused = refused(kind, &fields, &wrong);
                bad.push(refused.clone());
                all.push(refused);
            }
        }
    }
    if !bad.is_empty() && !separately {
        return wire::invalid(bad);
    }
    let id = answer_id(books, call);
    wire::envelope(books.now, &id, kind.plural(), all, None)
}

/// An element as it was sent, with what is wrong with it.
fn refused(kind: Kind, sent: &Fields, wrong: &[String]) -> Value {
    let mut out = wire::shown(sent);
    let flag = match kind {
        Kind::Invoice | Kind::CreditNote => Some("HasErrors"),
        Kind::Contact | Kind::Payment => Some("HasValidationErrors"),
        _ => None,
    };
    if let Some(flag) = flag {
        set(&mut out, flag, true);
    }
    let id = kind.id();
    if !out.contains_key(id) && id.ends_with("ID") {
        set(&mut out, id, "00000000-0000-0000-0000-000000000000");
    }
    if kind != Kind::BankTransfer {
        set(&mut out, "StatusAttributeString", "ERROR");
    }
    set(&mut out, "ValidationErrors", wire::messages(wrong));
    Value::Object(out)
}

fn allocate(books: &mut Books<'_>, call: &Call<'_>, note: &str) -> Reply {
    let Some(note) = credit_notes::known(books, note).map(str::to_owned) else {
        return wire::not_found();
    };
    let sent = match elements(call, Kind::Allocation) {
        Ok(sent) => sent,
        Err(message) => return wire::unreadable(&message),
    };
    let (mut all, mut bad) = (Vec::new(), Vec::new());
    for one in &sent {
        let (fields, wrong) = match element(Kind::Allocation, one) {
            Ok(read) => read,
            Err(message) => return wire::unreadable(&message),
        };
        let saved = match wrong.is_empty() {
            true => credit_notes::allocate(books, &note, &fields),
            false => Err(wrong),
        };
        match saved {
            Ok(id) => {
                let organisation = books.organisation();
                let value = organisation.shelf(Kind::Allocation).get(&id);
                all.extend(value.map(|one| credit_notes::shown_allocation(organisation, one)));
            }
            Err(wrong) => {
                let refused = refused(Kind::Allocation, &fields, &wrong);
                bad.push(refused.clone());
                all.push(refused);
            }
        }
    }
    let separately = param(&call.query, "summarizeErrors")
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    if !bad.is_empty() && !separately {
        return wire::invalid(bad);
    }
    let id = answer_id(books, call);
    wire::envelope(books.now, &id, "Allocations", all, None)
}

fn release(books: &mut Books<'_>, call: &Call<'_>, note: &str, id: &str) -> Reply {
    let note = credit_notes::known(books, note).map(str::to_owned);
    let allocation = books.get(Kind::Allocation, id);
    let belongs = allocation.is_some_and(|one| text(one, "_note") == note.as_deref());
    if !belongs {
        return wire::not_found();
    }
    if let Err(wrong) = credit_notes::release(books, id) {
        return wire::invalid(vec![json!({"ValidationErrors": wire::messages(&[wrong])})]);
    }
    let organisation = books.organisation();
    let value = organisation.shelf(Kind::Allocation).get(id);
    let shown = value.map(|one| credit_notes::shown_allocation(organisation, one));
    let _ = call;
    crate::standins::wire::json_reply(200, &json!(shown))
}
