//! What the vendor has no address for: organisations as a test wants them, the books as they are,
//! a bookkeeper's hand in them, limits, and webhooks.

use axum::http::Request;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::books::{Books, Mode, set};
use super::documents::Detail;
use super::seed::{self, NewOrganisation};
use super::state::{Kind, text};
use super::webhooks::Subscription;
use super::{Xero, api, credit_notes};
use crate::standins::oauth::state::{Account, Store};
use crate::standins::wire::{Params, Reply, json_reply, param, params};

/// Why a control call is not carried out.
enum Refusal {
    Wrong(String),
    NoSuch(&'static str),
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self::Wrong(message)
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refusal::Wrong(error.to_string()))
}

/// Nothing, if the path is none of these.
pub fn serve(
    xero: &mut Xero,
    store: &mut Store,
    request: &Request<Vec<u8>>,
    path: &str,
    now: DateTime<Utc>,
) -> Option<Reply> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let body = request.body();
    let asked = params(request.uri().query().unwrap_or_default().as_bytes());
    let answer = match (request.method().as_str(), parts.as_slice()) {
        ("POST", ["organisations"]) => organisation(xero, store, body, now),
        ("GET", ["entities", plural]) => entities(xero, store, &asked, plural, now),
        ("POST", ["entities", plural]) => edit(xero, store, &asked, plural, body, now),
        ("DELETE", ["entities", plural, id]) => delete(xero, store, &asked, plural, id, now),
        ("POST", ["limits"]) => read(body).map(|limits| {
            xero.limits = limits;
            json!(xero.limits)
        }),
        ("GET", ["limits"]) => Ok(json!(xero.limits)),
        ("POST", ["webhooks"]) => read::<Subscription>(body).map(|new| {
            xero.webhooks.subscription = new;
            json!({"ok": true})
        }),
        ("GET", ["webhooks"]) => Ok(json!({
            "subscription": xero.webhooks.subscription,
            "deliveries": xero.webhooks.all(),
        })),
        ("POST", ["webhooks", "handshake"]) => {
            Ok(json!({"deliveries": xero.webhooks.handshake(now)}))
        }
        _ => return None,
    };
    Some(match answer {
        Ok(body) => json_reply(200, &body),
        Err(Refusal::Wrong(message)) => json_reply(400, &json!({"error": message})),
        Err(Refusal::NoSuch(what)) => json_reply(404, &json!({"error": format!("no such {what}")})),
    })
}

fn organisation(
    xero: &mut Xero,
    store: &mut Store,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Value, Refusal> {
    let new: NewOrganisation = read(body)?;
    if new.tenant.is_empty() {
        return Err(Refusal::Wrong("tenant is missing".to_owned()));
    }
    let account = match store.account(&new.tenant) {
        Some(account) => account.clone(),
        None => {
            let account = Account {
                id: new.tenant.clone(),
                name: new.name.clone().unwrap_or_else(|| new.tenant.clone()),
                user: new.user.clone().unwrap_or_else(|| "olive".to_owned()),
            };
            store.accounts.push(account.clone());
            account
        }
    };
    // A new one is opened as it is asked for, not as the default one first.
    let mut happened = Vec::new();
    let mut books = Books {
        state: &mut xero.state,
        tenant: &account.id,
        now,
        app: None,
        places: 4,
        happened: &mut happened,
    };
    let mut new = new;
    new.name = new.name.or(Some(account.name.clone()));
    seed::open(&mut books, &new)?;
    Ok(json!({"tenant": account.id}))
}

fn tenant(store: &Store, asked: &Params) -> Result<Account, Refusal> {
    let found = match param(asked, "tenant") {
        Some(id) => store.account(id),
        None => store.accounts.first(),
    };
    found.cloned().ok_or(Refusal::NoSuch("tenant"))
}

fn kind(plural: &str) -> Result<Kind, Refusal> {
    Kind::named(plural).ok_or(Refusal::NoSuch("entity"))
}

/// Everything of one kind, whole, also what is archived or deleted.
fn entities(
    xero: &mut Xero,
    store: &Store,
    asked: &Params,
    plural: &str,
    now: DateTime<Utc>,
) -> Result<Value, Refusal> {
    let kind = kind(plural)?;
    let account = tenant(store, asked)?;
    Ok(xero.with_books(&account, now, None, |books| {
        let organisation = books.organisation();
        let all = organisation.shelf(kind).all();
        all.map(|value| json!(api::render(organisation, kind, value, Detail::Whole)))
            .collect()
    }))
}

/// What a bookkeeper makes or changes in the vendor's own screens, by the same rules as an app's.
fn edit(
    xero: &mut Xero,
    store: &Store,
    asked: &Params,
    plural: &str,
    body: &[u8],
    now: DateTime<Utc>,
) -> Result<Value, Refusal> {
    let kind = kind(plural)?;
    let account = tenant(store, asked)?;
    let (fields, wrong) = api::element(kind, &read(body)?)?;
    if !wrong.is_empty() {
        return Err(Refusal::Wrong(wrong.join("; ")));
    }
    xero.with_books(&account, now, None, |books| {
        books.places = 4;
        let id = match (kind, text(&fields, "PaymentID"), fields.get("IsReconciled")) {
            // The one thing that only a bookkeeper does: matching a payment with the bank's list.
            (Kind::Payment, Some(id), Some(flag)) => {
                let mut value = books
                    .get(kind, id)
                    .cloned()
                    .ok_or(Refusal::NoSuch("payment"))?;
                set(&mut value, "IsReconciled", flag.clone());
                books.put(kind, value);
                id.to_owned()
            }
            _ => api::save(books, kind, &fields, Mode::Upsert).map_err(|wrong| wrong.join("; "))?,
        };
        let organisation = books.organisation();
        let value = organisation
            .shelf(kind)
            .get(&id)
            .ok_or(Refusal::NoSuch("entity"))?;
        Ok(json!(api::render(organisation, kind, value, Detail::Whole)))
    })
}

/// What a bookkeeper takes away. Nearly everything stays, with a status that says so.
fn delete(
    xero: &mut Xero,
    store: &Store,
    asked: &Params,
    plural: &str,
    id: &str,
    now: DateTime<Utc>,
) -> Result<Value, Refusal> {
    let kind = kind(plural)?;
    let account = tenant(store, asked)?;
    xero.with_books(&account, now, None, |books| {
        let value = api::named(books.organisation(), kind, id).cloned();
        let value = value.ok_or(Refusal::NoSuch("entity"))?;
        let id = text(&value, kind.id()).unwrap_or_default().to_owned();
        let status = match kind {
            Kind::Item => {
                books.remove(kind, &id);
                return Ok(json!({"ok": true}));
            }
            Kind::Allocation => {
                credit_notes::release(books, &id)?;
                return Ok(json!({"ok": true}));
            }
            Kind::Currency => return Err(Refusal::Wrong("a currency stays enabled".to_owned())),
            Kind::Account | Kind::Contact => "ARCHIVED",
            Kind::TaxRate | Kind::Payment | Kind::BankTransaction | Kind::BankTransfer => "DELETED",
            Kind::Invoice | Kind::CreditNote => match text(&value, "Status") {
                Some("DRAFT" | "SUBMITTED") => "DELETED",
                _ => "VOIDED",
            },
        };
        let field = if kind == Kind::Contact {
            "ContactStatus"
        } else {
            "Status"
        };
        let change = json!({kind.id(): id, field: status});
        let (fields, _) = api::element(kind, &change)?;
        api::save(books, kind, &fields, Mode::Upsert).map_err(|wrong| wrong.join("; "))?;
        Ok(json!({"ok": true}))
    })
}
