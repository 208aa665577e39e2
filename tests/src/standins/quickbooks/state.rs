//! What the stand-in remembers. Every change is a value, so that a journal can tell it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::hooks::Touch;
use super::money;
use super::seed::DEFAULT_REALM;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Client {
    pub client_id: String,
    pub client_secret: String,
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Turn the refresh token over at each refresh, not once in 24 hours.
    #[serde(default)]
    pub rotate_each_refresh: bool,
}

/// An authorization code. Times are seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Code {
    pub code: String,
    pub client_id: String,
    pub redirect_uri: String,
    pub realm: String,
    pub scope: String,
    pub issued: i64,
    /// The grant that came of it, once it was exchanged.
    pub grant: Option<u64>,
}

/// One consent of one company to one app.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Grant {
    pub id: u64,
    pub client_id: String,
    pub realm: String,
    pub scope: String,
    pub consented: i64,
    pub refresh_token: String,
    /// When this value of the refresh token was handed out first.
    pub rotated: i64,
    pub refreshed: i64,
    pub revoked: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Access {
    pub token: String,
    pub grant: u64,
    pub expires: i64,
}

/// How a company differs from the vendor's defaults in ways that no entity shows.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    pub realm: String,
    #[serde(default)]
    pub forbid_duplicate_doc_numbers: bool,
    #[serde(default)]
    pub case_sensitive_queries: bool,
    /// Percent that automated sales tax finds for every address.
    #[serde(default)]
    pub automated_tax_percent: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stored {
    pub status: u16,
    /// As it was sent, to the letter.
    pub body: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Reset {
        seed: u64,
    },
    Counter {
        value: u64,
    },
    Client(Client),
    Code(Code),
    Grant(Grant),
    Access(Access),
    Company(Settings),
    Entity {
        realm: String,
        entity: String,
        id: u64,
        value: Value,
    },
    Deleted {
        realm: String,
        entity: String,
        id: u64,
        at: String,
    },
    Answer {
        realm: String,
        request_id: String,
        stored: Stored,
    },
}

#[derive(Default)]
pub struct Company {
    pub settings: Option<Settings>,
    pub entities: BTreeMap<String, BTreeMap<u64, Value>>,
    pub deleted: BTreeMap<String, BTreeMap<u64, String>>,
    pub answers: HashMap<String, Stored>,
    /// Lower-case display name to owner, over customers, vendors and employees.
    pub names: HashMap<String, (String, u64)>,
    /// Lower-case fully qualified name to id, for each kind of list.
    pub lists: HashMap<(String, String), u64>,
    pub documents: HashMap<(String, String), BTreeSet<u64>>,
    /// Payments by the type and id of a document that they settle.
    payments: HashMap<(String, String), BTreeSet<u64>>,
    /// What each customer owes, by id.
    balances: HashMap<String, Decimal>,
    last_ids: HashMap<&'static str, u64>,
}

/// Names share one sequence of ids and so do transactions; every list has its own.
fn sequence(entity: &str) -> &'static str {
    match entity {
        "Customer" | "Vendor" | "Employee" => "names",
        "Item" => "items",
        "Account" => "accounts",
        "PaymentMethod" => "methods",
        "TaxCode" => "tax codes",
        "TaxRate" => "tax rates",
        "CompanyInfo" | "Preferences" => "the company",
        _ => "transactions",
    }
}

pub fn is_name(entity: &str) -> bool {
    matches!(entity, "Customer" | "Vendor" | "Employee")
}

/// What a document adds to its customer's balance.
fn owed(entity: &str, value: &Value) -> Decimal {
    let of = |field: &str| money::decimal(&value[field]).unwrap_or_default();
    match entity {
        "Invoice" => of("Balance"),
        "CreditMemo" => -of("Balance"),
        "Payment" => -of("UnappliedAmt"),
        _ => Decimal::ZERO,
    }
}

/// Types and ids of the documents that a payment settles.
fn settled<'a>(entity: &str, value: &'a Value) -> impl Iterator<Item = (String, String)> + use<'a> {
    let lines = (entity == "Payment").then(|| value["Line"].as_array());
    lines.flatten().into_iter().flatten().filter_map(|line| {
        let link = &line["LinkedTxn"][0];
        Some((
            text(link, "TxnType")?.to_owned(),
            text(link, "TxnId")?.to_owned(),
        ))
    })
}

pub fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

impl Company {
    pub fn get(&self, entity: &str, id: u64) -> Option<&Value> {
        self.entities.get(entity)?.get(&id)
    }

    pub fn all<'a>(&'a self, entity: &str) -> impl Iterator<Item = (u64, &'a Value)> + use<'a> {
        self.entities
            .get(entity)
            .into_iter()
            .flatten()
            .map(|(id, value)| (*id, value))
    }

    /// The payments that settle a document.
    pub fn payments_of(&self, kind: &str, id: u64) -> impl Iterator<Item = (u64, &Value)> {
        self.payments
            .get(&(kind.to_owned(), id.to_string()))
            .into_iter()
            .flatten()
            .filter_map(|id| Some((*id, self.get("Payment", *id)?)))
    }

    pub fn balance(&self, customer: u64) -> Decimal {
        let balance = self.balances.get(&customer.to_string());
        balance.copied().unwrap_or_default()
    }

    pub fn next_id(&self, entity: &str) -> u64 {
        self.last_ids.get(sequence(entity)).copied().unwrap_or(0) + 1
    }

    fn forget(&mut self, entity: &str, id: u64) {
        let Some(old) = self
            .entities
            .get_mut(entity)
            .and_then(|all| all.remove(&id))
        else {
            return;
        };
        if let Some(name) = text(&old, "DisplayName") {
            self.names.remove(&name.to_lowercase());
        }
        if let Some(name) = text(&old, "FullyQualifiedName").or_else(|| text(&old, "Name")) {
            self.lists.remove(&(entity.to_owned(), name.to_lowercase()));
        }
        if let Some(number) = text(&old, "DocNumber")
            && let Some(ids) = self
                .documents
                .get_mut(&(entity.to_owned(), number.to_owned()))
        {
            ids.remove(&id);
        }
        for document in settled(entity, &old) {
            if let Some(ids) = self.payments.get_mut(&document) {
                ids.remove(&id);
            }
        }
        self.owe(entity, &old, Decimal::NEGATIVE_ONE);
    }

    fn owe(&mut self, entity: &str, value: &Value, sign: Decimal) {
        let amount = owed(entity, value);
        if let Some(customer) = text(&value["CustomerRef"], "value")
            && !amount.is_zero()
        {
            *self.balances.entry(customer.to_owned()).or_default() += sign * amount;
        }
    }

    /// Notes that an id is taken, so that no later entity gets it, not even after a deletion.
    fn give_out(&mut self, entity: &str, id: u64) {
        let last = self.last_ids.entry(sequence(entity)).or_insert(0);
        *last = (*last).max(id);
    }

    fn keep(&mut self, entity: &str, id: u64, value: Value) {
        self.forget(entity, id);
        if is_name(entity) {
            if let Some(name) = text(&value, "DisplayName") {
                self.names
                    .insert(name.to_lowercase(), (entity.to_owned(), id));
            }
        } else if let Some(name) =
            text(&value, "FullyQualifiedName").or_else(|| text(&value, "Name"))
        {
            self.lists
                .insert((entity.to_owned(), name.to_lowercase()), id);
        }
        if let Some(number) = text(&value, "DocNumber") {
            self.documents
                .entry((entity.to_owned(), number.to_owned()))
                .or_default()
                .insert(id);
        }
        for document in settled(entity, &value) {
            self.payments.entry(document).or_default().insert(id);
        }
        self.owe(entity, &value, Decimal::ONE);
        self.give_out(entity, id);
        self.entities
            .entry(entity.to_owned())
            .or_default()
            .insert(id, value);
    }

    fn each(&self, realm: &str, tell: &mut impl FnMut(Change) -> io::Result<()>) -> io::Result<()> {
        let realm = || realm.to_owned();
        if let Some(settings) = &self.settings {
            tell(Change::Company(settings.clone()))?;
        }
        for (entity, ids) in &self.deleted {
            for (id, at) in ids {
                tell(Change::Deleted {
                    realm: realm(),
                    entity: entity.clone(),
                    id: *id,
                    at: at.clone(),
                })?;
            }
        }
        for (entity, values) in &self.entities {
            for (id, value) in values {
                tell(Change::Entity {
                    realm: realm(),
                    entity: entity.clone(),
                    id: *id,
                    value: value.clone(),
                })?;
            }
        }
        for (request_id, stored) in &self.answers {
            tell(Change::Answer {
                realm: realm(),
                request_id: request_id.clone(),
                stored: stored.clone(),
            })?;
        }
        Ok(())
    }
}

#[derive(Default)]
pub struct State {
    pub seed: u64,
    pub counter: u64,
    pub clients: BTreeMap<String, Client>,
    pub codes: BTreeMap<String, Code>,
    pub grants: BTreeMap<u64, Grant>,
    pub access: BTreeMap<String, Access>,
    pub companies: BTreeMap<String, Company>,
    /// The latest bodies that were sent to be written, taken or not. Not kept across restarts.
    pub writes: VecDeque<Write>,
    /// What changed since the last webhook, if any are sent.
    pub touched: Option<Vec<Touch>>,
    /// Whether changes are noted for a journal at all.
    pub journaled: bool,
    pending: Vec<u8>,
}

/// One entity as a caller sent it.
#[derive(Clone, Serialize)]
pub struct Write {
    pub realm: String,
    pub entity: String,
    pub body: Value,
}

impl State {
    /// Applies a change and notes it for the journal.
    pub fn record(&mut self, change: Change) {
        if self.journaled {
            self.pending
                .push(if self.pending.is_empty() { b'[' } else { b',' });
            // Strings, numbers and maps keyed by strings always have a JSON form.
            let _ = serde_json::to_writer(&mut self.pending, &change);
        }
        self.touch(&change);
        self.apply(change);
    }

    fn touch(&mut self, change: &Change) {
        let (realm, entity, id, operation) = match change {
            Change::Entity {
                realm, entity, id, ..
            } => {
                let company = self.companies.get(realm);
                let known = company.and_then(|company| company.entities.get(entity));
                let known = known.is_some_and(|all| all.contains_key(id));
                (realm, entity, id, if known { "Update" } else { "Create" })
            }
            Change::Deleted {
                realm, entity, id, ..
            } => (realm, entity, id, "Delete"),
            _ => return,
        };
        if let Some(touched) = &mut self.touched {
            touched.push(Touch {
                realm: realm.clone(),
                entity: entity.clone(),
                id: *id,
                operation,
            });
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Reset { seed } => {
                let pending = std::mem::take(&mut self.pending);
                let journaled = self.journaled;
                *self = Self {
                    seed,
                    journaled,
                    pending,
                    ..Self::default()
                };
            }
            Change::Counter { value } => self.counter = value,
            Change::Client(client) => {
                self.clients.insert(client.client_id.clone(), client);
            }
            Change::Code(code) => {
                self.codes.insert(code.code.clone(), code);
            }
            Change::Grant(grant) => {
                self.grants.insert(grant.id, grant);
            }
            Change::Access(access) => {
                self.access.insert(access.token.clone(), access);
            }
            Change::Company(settings) => {
                let company = self.companies.entry(settings.realm.clone()).or_default();
                company.settings = Some(settings);
            }
            Change::Entity {
                realm,
                entity,
                id,
                value,
            } => {
                self.company_mut(&realm).keep(&entity, id, value);
            }
            Change::Deleted {
                realm,
                entity,
                id,
                at,
            } => {
                let company = self.company_mut(&realm);
                company.forget(&entity, id);
                company.give_out(&entity, id);
                company.deleted.entry(entity).or_default().insert(id, at);
            }
            Change::Answer {
                realm,
                request_id,
                stored,
            } => {
                self.company_mut(&realm).answers.insert(request_id, stored);
            }
        }
    }

    /// Realm and name of each company, in the order in which a consent page shows them: the one
    /// that is always there comes first, as the one that a browser selects.
    pub fn companies_by_choice(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut known: Vec<_> = self.companies.iter().collect();
        known.sort_by_key(|(realm, _)| *realm != DEFAULT_REALM);
        known.into_iter().map(|(realm, company)| {
            let name = company
                .get("CompanyInfo", 1)
                .and_then(|info| text(info, "CompanyName"));
            (realm.as_str(), name.unwrap_or(realm))
        })
    }

    fn company_mut(&mut self, realm: &str) -> &mut Company {
        self.companies.entry(realm.to_owned()).or_default()
    }

    /// A number never given before; ids and tokens are made of it, so runs repeat exactly.
    pub fn next(&mut self) -> u64 {
        let value = self.counter + 1;
        self.record(Change::Counter { value });
        value
    }

    pub fn remember_write(&mut self, write: Write) {
        const MOST: usize = 2_000;
        if self.writes.len() == MOST {
            self.writes.pop_front();
        }
        self.writes.push_back(write);
    }

    /// The changes since the last call as one line of the journal; nothing if there are none.
    pub fn take_line(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.pending);
        if !line.is_empty() {
            line.extend_from_slice(b"]\n");
        }
        line
    }

    /// Everything, as the changes that would make it again.
    pub fn each(&self, mut tell: impl FnMut(Change) -> io::Result<()>) -> io::Result<()> {
        tell(Change::Reset { seed: self.seed })?;
        tell(Change::Counter {
            value: self.counter,
        })?;
        let clients = self.clients.values().cloned().map(Change::Client);
        let codes = self.codes.values().cloned().map(Change::Code);
        let grants = self.grants.values().cloned().map(Change::Grant);
        let access = self.access.values().cloned().map(Change::Access);
        clients
            .chain(codes)
            .chain(grants)
            .chain(access)
            .try_for_each(&mut tell)?;
        self.companies
            .iter()
            .try_for_each(|(realm, company)| company.each(realm, &mut tell))
    }
}
