//! What the stand-in remembers. Every change is a value, so that a journal can tell it again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::standins::damaged;

pub type Fields = Map<String, Value>;

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Kind {
    Account,
    TaxRate,
    Currency,
    Item,
    Contact,
    Invoice,
    CreditNote,
    Payment,
    Allocation,
    BankTransaction,
    BankTransfer,
}

impl Kind {
    pub const ALL: [Self; 11] = [
        Self::Account,
        Self::TaxRate,
        Self::Currency,
        Self::Item,
        Self::Contact,
        Self::Invoice,
        Self::CreditNote,
        Self::Payment,
        Self::Allocation,
        Self::BankTransaction,
        Self::BankTransfer,
    ];

    /// As addresses and envelopes have it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Account => "Accounts",
            Self::TaxRate => "TaxRates",
            Self::Currency => "Currencies",
            Self::Item => "Items",
            Self::Contact => "Contacts",
            Self::Invoice => "Invoices",
            Self::CreditNote => "CreditNotes",
            Self::Payment => "Payments",
            Self::Allocation => "Allocations",
            Self::BankTransaction => "BankTransactions",
            Self::BankTransfer => "BankTransfers",
        }
    }

    pub fn named(plural: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == plural)
    }

    /// The field that holds its id.
    pub fn id(self) -> &'static str {
        match self {
            Self::Account => "AccountID",
            Self::TaxRate => "TaxType",
            Self::Currency => "Code",
            Self::Item => "ItemID",
            Self::Contact => "ContactID",
            Self::Invoice => "InvoiceID",
            Self::CreditNote => "CreditNoteID",
            Self::Payment => "PaymentID",
            Self::Allocation => "AllocationID",
            Self::BankTransaction => "BankTransactionID",
            Self::BankTransfer => "BankTransferID",
        }
    }

    /// The fields by which one is looked up, or counted for uniqueness. Case never matters.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Account | Self::Item => &["Code"],
            Self::TaxRate => &["Name"],
            Self::Currency | Self::BankTransfer => &[],
            Self::Contact => &["Name", "ContactNumber", "AccountNumber"],
            Self::Invoice => &["InvoiceNumber", "_contact"],
            Self::CreditNote => &["CreditNoteNumber", "_contact"],
            Self::Payment => &["_document"],
            Self::Allocation => &["_note", "_invoice"],
            Self::BankTransaction => &["_contact"],
        }
    }
}

pub fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

/// How an organisation is set up, beside its accounts, tax rates and currencies.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Settings {
    pub name: String,
    pub country: String,
    pub base_currency: String,
    pub period_lock_date: Option<NaiveDate>,
    pub end_of_year_lock_date: Option<NaiveDate>,
    pub created: i64,
    /// Whether it may approve sales invoices and use currencies other than its own.
    pub approves: bool,
    pub multicurrency: bool,
}

/// An answer that is given again to the same idempotency key.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stored {
    /// The app and its key.
    pub key: String,
    /// The digest of method, address, tenant and body.
    pub request: String,
    pub at: i64,
    pub status: u16,
    pub content_type: String,
    pub body: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    Reset,
    Counter {
        value: u64,
    },
    Organisation {
        tenant: String,
        settings: Settings,
    },
    Entity {
        tenant: String,
        kind: Kind,
        value: Fields,
    },
    Gone {
        tenant: String,
        kind: Kind,
        id: String,
    },
    Answer(Stored),
}

/// All entities of one kind, in the order in which they were made.
#[derive(Default)]
pub struct Shelf {
    values: BTreeMap<u64, Fields>,
    ids: HashMap<String, u64>,
    keys: HashMap<(&'static str, String), BTreeSet<u64>>,
    last: u64,
}

impl Shelf {
    pub fn get(&self, id: &str) -> Option<&Fields> {
        self.values.get(self.ids.get(&id.to_lowercase())?)
    }

    pub fn all(&self) -> impl DoubleEndedIterator<Item = &Fields> {
        self.values.values()
    }

    /// Those of which the key has this value.
    pub fn with<'a>(&'a self, key: &'static str, value: &str) -> impl Iterator<Item = &'a Fields> {
        self.keys
            .get(&(key, value.to_lowercase()))
            .into_iter()
            .flatten()
            .filter_map(|place| self.values.get(place))
    }

    fn forget(&mut self, kind: Kind, id: &str) -> Option<u64> {
        let place = self.ids.remove(&id.to_lowercase())?;
        let old = self.values.remove(&place)?;
        for key in kind.keys() {
            if let Some(value) = text(&old, key)
                && let Some(places) = self.keys.get_mut(&(*key, value.to_lowercase()))
            {
                places.remove(&place);
            }
        }
        Some(place)
    }

    fn keep(&mut self, kind: Kind, value: Fields) {
        let Some(id) = text(&value, kind.id()).map(str::to_lowercase) else {
            return;
        };
        let place = self.forget(kind, &id).unwrap_or_else(|| {
            self.last += 1;
            self.last
        });
        for key in kind.keys() {
            if let Some(key_value) = text(&value, key) {
                let key = (*key, key_value.to_lowercase());
                self.keys.entry(key).or_default().insert(place);
            }
        }
        self.ids.insert(id, place);
        self.values.insert(place, value);
    }
}

#[derive(Default)]
pub struct Organisation {
    pub settings: Option<Settings>,
    shelves: HashMap<Kind, Shelf>,
}

impl Organisation {
    pub fn shelf(&self, kind: Kind) -> &Shelf {
        static EMPTY: std::sync::LazyLock<Shelf> = std::sync::LazyLock::new(Shelf::default);
        self.shelves.get(&kind).unwrap_or(&EMPTY)
    }
}

#[derive(Default)]
pub struct State {
    pub organisations: BTreeMap<String, Organisation>,
    pub answers: HashMap<String, Stored>,
    /// Grows with each id that is given out; ids are made of it, so runs repeat exactly.
    counter: u64,
    pending: Vec<u8>,
    journal: Option<File>,
}

impl State {
    /// Reads what an earlier process left in `folder`, rewrites it without its history, and opens it
    /// for more. A line that a kill cut short is a request that never happened.
    pub fn open(folder: Option<&Path>) -> io::Result<Self> {
        let mut state = Self::default();
        let Some(folder) = folder else {
            return Ok(state);
        };
        fs::create_dir_all(folder)?;
        let path = folder.join("xero.jsonl");
        if path.exists() {
            let mut file = BufReader::new(File::open(&path)?);
            let mut line = Vec::new();
            while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
                let changes: Vec<Change> =
                    serde_json::from_slice(&line).map_err(|error| damaged(&path, &error))?;
                changes.into_iter().for_each(|change| state.apply(change));
                line.clear();
            }
            let fresh = folder.join("xero.jsonl.new");
            let mut file = BufWriter::new(File::create(&fresh)?);
            state.each(|change| {
                serde_json::to_writer(&mut file, &[change])?;
                file.write_all(b"\n")
            })?;
            file.into_inner()?.sync_all()?;
            fs::rename(&fresh, &path)?;
        }
        state.journal = Some(OpenOptions::new().create(true).append(true).open(&path)?);
        Ok(state)
    }

    /// Writes the changes since the last call as one line.
    pub fn settle(&mut self) -> io::Result<()> {
        let mut line = std::mem::take(&mut self.pending);
        match &mut self.journal {
            Some(file) if !line.is_empty() => {
                line.extend_from_slice(b"]\n");
                file.write_all(&line)
            }
            _ => Ok(()),
        }
    }

    pub fn next(&mut self) -> u64 {
        let value = self.counter + 1;
        self.record(Change::Counter { value });
        value
    }

    /// Applies a change and notes it for the journal.
    pub fn record(&mut self, change: Change) {
        if self.journal.is_some() {
            self.pending
                .push(if self.pending.is_empty() { b'[' } else { b',' });
            // Strings, numbers and maps keyed by strings always have a JSON form.
            let _ = serde_json::to_writer(&mut self.pending, &change);
        }
        self.apply(change);
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Reset => {
                self.organisations.clear();
                self.answers.clear();
                self.counter = 0;
            }
            Change::Counter { value } => self.counter = value,
            Change::Organisation { tenant, settings } => {
                self.organisations.entry(tenant).or_default().settings = Some(settings);
            }
            Change::Entity {
                tenant,
                kind,
                value,
            } => {
                let organisation = self.organisations.entry(tenant).or_default();
                organisation
                    .shelves
                    .entry(kind)
                    .or_default()
                    .keep(kind, value);
            }
            Change::Gone { tenant, kind, id } => {
                let organisation = self.organisations.entry(tenant).or_default();
                let shelf = organisation.shelves.entry(kind).or_default();
                shelf.forget(kind, &id);
            }
            Change::Answer(stored) => {
                self.answers.insert(stored.key.clone(), stored);
            }
        }
    }

    /// Everything, as the changes that would make it again.
    fn each(&self, mut tell: impl FnMut(Change) -> io::Result<()>) -> io::Result<()> {
        tell(Change::Counter {
            value: self.counter,
        })?;
        for (tenant, organisation) in &self.organisations {
            let tenant = || tenant.clone();
            if let Some(settings) = organisation.settings.clone() {
                tell(Change::Organisation {
                    tenant: tenant(),
                    settings,
                })?;
            }
            for kind in Kind::ALL {
                for value in organisation.shelf(kind).all() {
                    tell(Change::Entity {
                        tenant: tenant(),
                        kind,
                        value: value.clone(),
                    })?;
                }
            }
        }
        let answers = self.answers.values().cloned().map(Change::Answer);
        answers.into_iter().try_for_each(tell)
    }
}
