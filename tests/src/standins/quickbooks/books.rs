//! One company's books while a request is served: create, update, delete, void and read.

use chrono::{DateTime, FixedOffset, Utc};
use serde_json::{Map, Value, json};

use super::fault::Fault;
use super::state::{Change, Company, Settings, State, text};
use super::{entries, lists, names, payments, sales, schema};

/// Entities with their names as the vendor spells them; paths use the lower-case form.
const ENTITIES: [&str; 16] = [
    "Customer",
    "Vendor",
    "Employee",
    "Item",
    "Account",
    "PaymentMethod",
    "TaxCode",
    "TaxRate",
    "SalesReceipt",
    "RefundReceipt",
    "Invoice",
    "CreditMemo",
    "Payment",
    "JournalEntry",
    "CompanyInfo",
    "Preferences",
];

pub const TRANSACTIONS: [&str; 6] = [
    "SalesReceipt",
    "RefundReceipt",
    "Invoice",
    "CreditMemo",
    "Payment",
    "JournalEntry",
];

pub fn is_transaction(entity: &str) -> bool {
    TRANSACTIONS.contains(&entity)
}

pub fn entity_named(name: &str) -> Option<&'static str> {
    ENTITIES
        .into_iter()
        .find(|entity| entity.eq_ignore_ascii_case(name))
}

/// A time as the vendor writes it: Pacific, to the second.
pub fn stamp(now: DateTime<Utc>) -> String {
    pacific(now).format("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

pub fn stamp_millis(now: DateTime<Utc>) -> String {
    pacific(now).format("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

fn pacific(now: DateTime<Utc>) -> DateTime<FixedOffset> {
    const EIGHT_HOURS: i32 = 8 * 60 * 60;
    FixedOffset::west_opt(EIGHT_HOURS)
        .map_or_else(|| now.fixed_offset(), |zone| now.with_timezone(&zone))
}

/// What a call says beside its body.
#[derive(Clone, Copy, Default)]
pub struct Options {
    pub allow_duplicate_doc_number: bool,
}

pub struct Books<'a> {
    pub state: &'a mut State,
    pub realm: &'a str,
    pub now: DateTime<Utc>,
}

impl Books<'_> {
    /// The gateway has checked that the company exists.
    pub fn company(&self) -> &Company {
        &self.state.companies[self.realm]
    }

    pub fn settings(&self) -> Settings {
        self.company().settings.clone().unwrap_or_else(|| Settings {
            realm: self.realm.to_owned(),
            forbid_duplicate_doc_numbers: false,
            case_sensitive_queries: false,
            automated_tax_percent: String::new(),
        })
    }

    pub fn put(&mut self, entity: &str, id: u64, value: Value) {
        self.state.record(Change::Entity {
            realm: self.realm.to_owned(),
            entity: entity.to_owned(),
            id,
            value,
        });
    }

    fn preference(&self, group: &str, name: &str) -> bool {
        self.company()
            .get("Preferences", 1)
            .and_then(|all| all[group][name].as_bool())
            .unwrap_or(false)
    }

    pub fn multicurrency(&self) -> bool {
        self.preference("CurrencyPrefs", "MultiCurrencyEnabled")
    }

    pub fn sales_tax(&self) -> bool {
        self.preference("TaxPrefs", "UsingSalesTax")
    }

    /// Whether the tax of a company in the United States is found by the addresses.
    pub fn automated_tax(&self) -> bool {
        self.preference("TaxPrefs", "PartnerTaxEnabled")
    }

    pub fn sales_form(&self, name: &str) -> bool {
        self.preference("SalesFormsPrefs", name)
    }

    pub fn home_currency(&self) -> String {
        self.company()
            .get("Preferences", 1)
            .and_then(|all| all["CurrencyPrefs"]["HomeCurrency"]["value"].as_str())
            .unwrap_or("USD")
            .to_owned()
    }

    pub fn in_us(&self) -> bool {
        self.company()
            .get("CompanyInfo", 1)
            .and_then(|info| text(info, "Country"))
            .is_none_or(|country| country == "US")
    }

    pub fn read(&self, entity: &str, id: &str) -> Result<Value, Fault> {
        // CompanyInfo is read by the company's id, though its own Id is 1.
        let id = if entity == "CompanyInfo" && id == self.realm {
            "1"
        } else {
            id
        };
        let number = numeric_id(id)?;
        self.company()
            .get(entity, number)
            .cloned()
            .ok_or_else(Fault::not_found)
    }

    /// A create without an Id in the body, an update with one.
    pub fn save(
        &mut self,
        entity: &'static str,
        body: &Value,
        options: Options,
    ) -> Result<Value, Fault> {
        if matches!(entity, "TaxCode" | "TaxRate") {
            return Err(Fault::unsupported("Create or update"));
        }
        let mut fields = schema::admit(entity, body)?;
        if fields.get("Id").is_some_and(|id| !id.is_null()) {
            let (id, current) = self.current(entity, &fields)?;
            let fields = merge(entity, &current, fields);
            self.finish(entity, id, fields, Some(current), options)
        } else {
            if matches!(entity, "CompanyInfo" | "Preferences") {
                return Err(Fault::missing("Id"));
            }
            fields.retain(|_, value| !value.is_null());
            let id = self.company().next_id(entity);
            self.finish(entity, id, fields, None, options)
        }
    }

    /// The entity that a body names, if the body holds its latest version.
    fn current(&self, entity: &str, fields: &Map<String, Value>) -> Result<(u64, Value), Fault> {
        let id = fields
            .get("Id")
            .and_then(Value::as_str)
            .ok_or_else(|| Fault::missing("Id"))?;
        let id = numeric_id(id)?;
        let current = self
            .company()
            .get(entity, id)
            .cloned()
            .ok_or_else(Fault::not_found)?;
        let token = fields
            .get("SyncToken")
            .and_then(Value::as_str)
            .ok_or_else(|| Fault::missing("SyncToken"))?;
        if text(&current, "SyncToken") != Some(token) {
            return Err(Fault::stale());
        }
        Ok((id, current))
    }

    fn finish(
        &mut self,
        entity: &'static str,
        id: u64,
        mut fields: Map<String, Value>,
        before: Option<Value>,
        options: Options,
    ) -> Result<Value, Fault> {
        for server_side in ["domain", "sparse", "status", "MetaData", "SyncToken", "Id"] {
            fields.remove(server_side);
        }
        match entity {
            "Customer" | "Vendor" | "Employee" => {
                names::name(self, entity, id, &mut fields, before.as_ref())?;
            }
            "Item" => lists::item(self, id, &mut fields, before.as_ref())?,
            "Account" => lists::account(self, id, &mut fields, before.as_ref())?,
            "PaymentMethod" => lists::payment_method(self, id, &mut fields, before.as_ref())?,
            "Payment" => payments::payment(self, &mut fields, before.as_ref())?,
            "JournalEntry" => entries::journal_entry(self, &mut fields)?,
            "SalesReceipt" | "RefundReceipt" | "Invoice" | "CreditMemo" => {
                sales::transaction(self, entity, id, &mut fields, before.as_ref(), options)?;
            }
            _ => {}
        }
        let mut value = Value::Object(fields);
        self.open(entity, &value)?;
        if let Some(before) = &before {
            self.open(entity, before)?;
        }
        self.seal(&mut value, id, before.as_ref());
        self.put(entity, id, value);
        payments::settle(self, entity, id, before.as_ref());
        self.read(entity, &id.to_string())
    }

    /// The fields that every entity has and no caller sets.
    /// Fails for a transaction of a day up to which the books are closed.
    fn open(&self, entity: &str, transaction: &Value) -> Result<(), Fault> {
        let preferences = self.company().get("Preferences", 1);
        let closed = preferences
            .and_then(|all| all["AccountingInfoPrefs"]["BookCloseDate"].as_str())
            .filter(|_| is_transaction(entity));
        // Days are written so that their text sorts as they do.
        match (closed, text(transaction, "TxnDate")) {
            (Some(closed), Some(day)) if day <= closed => Err(Fault::closed()),
            _ => Ok(()),
        }
    }

    fn seal(&self, value: &mut Value, id: u64, before: Option<&Value>) {
        let now = stamp(self.now);
        let created = before
            .and_then(|before| before["MetaData"]["CreateTime"].as_str())
            .unwrap_or(&now)
            .to_owned();
        let version = before
            .and_then(|before| text(before, "SyncToken"))
            .and_then(|token| token.parse::<u64>().ok())
            .map_or(0, |token| token + 1);
        value["domain"] = json!("QBO");
        value["sparse"] = json!(false);
        value["Id"] = json!(id.to_string());
        value["SyncToken"] = json!(version.to_string());
        value["MetaData"] = json!({"CreateTime": created, "LastUpdatedTime": now});
    }

    pub fn delete(&mut self, entity: &'static str, body: &Value) -> Result<Value, Fault> {
        if !is_transaction(entity) {
            return Err(Fault::unsupported("Delete"));
        }
        let fields = schema::admit(entity, body)?;
        let (id, before) = self.current(entity, &fields)?;
        self.open(entity, &before)?;
        payments::may_leave(self, entity, id)?;
        self.state.record(Change::Deleted {
            realm: self.realm.to_owned(),
            entity: entity.to_owned(),
            id,
            at: stamp(self.now),
        });
        payments::settle(self, entity, id, Some(&before));
        Ok(json!({"status": "Deleted", "domain": "QBO", "Id": id.to_string()}))
    }

    /// Keeps the document and takes its amounts away.
    pub fn void(&mut self, entity: &'static str, body: &Value) -> Result<Value, Fault> {
        if !matches!(
            entity,
            "Invoice" | "SalesReceipt" | "Payment" | "RefundReceipt" | "CreditMemo"
        ) {
            return Err(Fault::unsupported("Void"));
        }
        let fields = schema::admit(entity, body)?;
        let (id, before) = self.current(entity, &fields)?;
        self.open(entity, &before)?;
        payments::may_leave(self, entity, id)?;
        let mut value = before.clone();
        sales::void(&mut value, entity);
        self.seal(&mut value, id, Some(&before));
        self.put(entity, id, value);
        payments::settle(self, entity, id, Some(&before));
        self.read(entity, &id.to_string())
    }

    /// The referenced entity: 2500 if there is none, 610 if it was made inactive.
    pub fn referenced(&self, entity: &'static str, reference: &Value) -> Result<Value, Fault> {
        let what = match entity {
            "Account" => "Accounts",
            "Item" => "Items",
            "Customer" => "Names",
            other => other,
        };
        let id = text(reference, "value").unwrap_or_default();
        let found = id
            .parse::<u64>()
            .ok()
            .and_then(|id| self.company().get(entity, id))
            .ok_or_else(|| Fault::reference(what, id))?;
        if found["Active"] == json!(false) {
            return Err(Fault::not_found());
        }
        Ok(found.clone())
    }
}

fn numeric_id(id: &str) -> Result<u64, Fault> {
    id.parse().map_err(|_| {
        Fault::new(
            "2030",
            "Invalid ID",
            format!("Id should be a valid number. Supplied value:{id}"),
        )
        .at("Id")
    })
}

/// A sparse update keeps what it does not name; a full one clears it. What the service itself
/// computes is kept either way and computed again after.
fn merge(entity: &str, current: &Value, fields: Map<String, Value>) -> Map<String, Value> {
    let sparse = fields.get("sparse") == Some(&Value::Bool(true)) || entity == "Preferences";
    let mut merged = match current {
        Value::Object(current) => current.clone(),
        _ => Map::new(),
    };
    if !sparse {
        merged.retain(|name, _| computed(entity, name));
    }
    for (name, value) in fields {
        if value.is_null() {
            merged.remove(&name);
        } else if entity == "Preferences" && value.is_object() {
            // Preferences come in groups, and an update names only the switches that it turns.
            let group = merged.entry(name).or_insert_with(|| json!({}));
            if let (Value::Object(group), Value::Object(value)) = (group, value) {
                group.extend(value);
            }
        } else {
            merged.insert(name, value);
        }
    }
    merged
}

fn computed(entity: &str, name: &str) -> bool {
    match name {
        "Balance" | "FullyQualifiedName" | "Level" | "Active" => true,
        // A name keeps its currency for life, whatever an update leaves out.
        "CurrencyRef" => !is_transaction(entity),
        "LinkedTxn" => is_transaction(entity),
        "Classification" | "CurrentBalance" => entity == "Account",
        _ => false,
    }
}
