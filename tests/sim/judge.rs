//! What must hold at rest: the provider's books and the ledger against what the shop sold.

use super::{Books, Run, alone, merchant, outbox_rows, whole};
use crate::shop::{Expected, GIFT_CARDS, Moved, PAYOUTS, Sum, TIPS, exponent};
use crossdock::oauth::connection::Posting;
use crossdock::store::{Store, keys};
use crossdock::sync::push::{Link, LinkState, Open, Standing};
use futures::FutureExt;
use rust_decimal::Decimal;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl Run {
    /// Compares the books with what was sold.
    pub fn check(&self) -> Result<(), String> {
        let expected = &self.shop.expected;
        let of = |entity: &str| alone(self.world.control("GET", &format!("entities/{entity}"), ""));
        let kinds = self.books.kinds(self.sold);
        let wanted = |kind: &str| match kind {
            "order" => &expected.sales,
            "payment" => &expected.payments,
            "payout" => &expected.payouts,
            "payout_fees" => &expected.payout_fees,
            // A credit note and the money of it are of one amount.
            _ => &expected.refunds,
        };
        let mut shown = BTreeMap::new();
        for entity in self.books.entities() {
            let mut all = of(entity);
            // Xero shows both ends of a transfer among the bank transactions.
            let end = |one: &Value| {
                let kind = one["Type"].as_str();
                kind.is_some_and(|kind| kind.ends_with("-TRANSFER"))
            };
            all.as_array_mut().unwrap().retain(|one| !end(one));
            let of_it = kinds.iter().filter(|kind| kind.entity == *entity);
            let mut seen = 0;
            for kind in of_it {
                let ours = |one: &&Value| {
                    let mark = one[kind.mark].as_str().unwrap_or_default();
                    mark.starts_with(&format!("Crossdock {} ", kind.words))
                };
                let own: Vec<Value> = all
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(ours)
                    .cloned()
                    .collect();
                seen += own.len();
                compare(kind, &own, wanted(kind.name))?;
                shown.insert(kind.name, (kind, own));
            }
            ensure(seen == all.as_array().unwrap().len(), || {
                format!("there is a {entity} of nobody: {all}")
            })?;
        }
        match self.books {
            Books::Xero => check_xero_lists(&of("Contacts"), &of("Items"), expected)?,
            _ => check_lists(&of("Customer"), &of("Item"), expected)?,
        }
        self.check_owed()?;
        self.check_moved()?;
        self.check_ledger(&shown)?;
        self.check_open()?;
        for event in &self.shop.events {
            let id = event["id"].as_str().unwrap();
            ensure(self.accepted.contains(id), || {
                format!("{id} was never accepted")
            })?;
            let seen = self.world.state().on_bus.contains(id);
            ensure(seen, || {
                format!("{id} was accepted and never reached the bus")
            })?;
        }
        ensure(outbox_rows(&self.world).is_empty(), || {
            "the outbox is not empty".to_owned()
        })
    }

    /// What points to rows of the ledger points to those that are open, to all of them, and says what
    /// they say. This holds at every moment, since both are written at once.
    pub fn check_open(&self) -> Result<(), String> {
        let changed = std::mem::take(&mut self.world.state().ledger_changed);
        if self.rows_unchecked || !changed {
            return Ok(());
        }
        let (merchant, id) = (merchant(), &self.connection);
        let list = |group| whole(&self.world, &group);
        let (mut troubled, mut waiting) = (BTreeMap::new(), BTreeMap::new());
        for item in list(keys::ledger(&merchant, id)) {
            if item.doc.get("settings").is_some() {
                continue;
            }
            let link: Link = item.read().map_err(|error| error.chain())?;
            let place = keys::place(&item.key).to_owned();
            ensure(
                link.state != LinkState::Parked || link.problem.is_some(),
                || format!("{place} is parked for no reason: {link:?}"),
            )?;
            if let Some(problem) = link.problem {
                troubled.insert(place.clone(), Some(problem.code));
            }
            if link.waiting.is_some() {
                waiting.insert(place, None);
            }
        }
        for (group, expected) in [
            (keys::troubled(&merchant, id), troubled),
            (keys::waiting(&merchant, id), waiting),
        ] {
            let mut found = BTreeMap::new();
            for item in list(group.clone()) {
                let open: Open = item.read().map_err(|error| error.chain())?;
                let place = keys::place(&item.key).to_owned();
                let row = crossdock::engine::ledger::row_at(&place).ok_or("this is no row")?;
                ensure(row.owner() == open.record, || {
                    format!("{place} is of {:?}", open.record)
                })?;
                found.insert(place, open.code);
            }
            ensure(found == expected, || {
                format!("{group:?} has {found:?}, and open are {expected:?}")
            })?;
        }
        Ok(())
    }

    /// What the books say is owed is what the shop owes.
    fn check_owed(&self) -> Result<(), String> {
        let all = |entity: &str| -> Vec<Value> {
            let all = alone(self.world.control("GET", &format!("entities/{entity}"), ""));
            all.as_array().unwrap().clone()
        };
        let expected = self.shop.expected.owed.iter();
        let expected = expected.filter(|(_, amount)| **amount != 0);
        let expected: BTreeMap<(String, String), Decimal> = expected
            .map(|((account, currency), amount)| {
                let key = ((*account).to_owned(), (*currency).to_owned());
                (key, Decimal::new(*amount, exponent(currency)))
            })
            .collect();
        let mut owed = match self.books {
            Books::Xero => owed_in_xero(&all),
            _ => owed_in_quickbooks(&all),
        };
        owed.retain(|_, amount| !amount.is_zero());
        ensure(owed == expected, || {
            format!("owed are {expected:?}, and the books say {owed:?}")
        })
    }

    /// What payouts put on accounts is what the shop says: what came through the processor is no longer
    /// where the money of customers lies.
    fn check_moved(&self) -> Result<(), String> {
        let all = |entity: &str| -> Vec<Value> {
            let all = alone(self.world.control("GET", &format!("entities/{entity}"), ""));
            all.as_array().unwrap().clone()
        };
        let expected = self.shop.expected.moved.iter();
        let expected = expected.filter(|(_, amount)| **amount != 0);
        let expected: BTreeMap<(Moved, String), Decimal> = expected
            .map(|((account, currency), amount)| {
                let key = (*account, (*currency).to_owned());
                (key, Decimal::new(*amount, exponent(currency)))
            })
            .collect();
        let mut moved = match self.books {
            Books::Xero => moved_in_xero(&all),
            _ => moved_in_quickbooks(&all),
        };
        moved.retain(|_, amount| !amount.is_zero());
        ensure(moved == expected, || {
            format!("payouts moved {expected:?}, and the books say {moved:?}")
        })
    }

    fn check_ledger(&self, shown: &BTreeMap<&str, (&Kind, Vec<Value>)>) -> Result<(), String> {
        let store = &self.world.memory;
        let link = |kind: &str, id: &str| -> Result<Link, String> {
            let key = keys::link(&merchant(), &self.connection, kind, id);
            let item = store.get(&key).now_or_never().unwrap().unwrap();
            let item = item.ok_or_else(|| format!("the ledger has no row of {kind} {id}"))?;
            item.read()
                .map_err(|error| format!("{kind} {id}: {}", error.chain()))
        };
        for (name, (kind, there)) in shown {
            for one in there {
                let mark = one[kind.mark].as_str().unwrap_or_default();
                let id = mark.rsplit(' ').next().unwrap_or_default();
                let link = link(name, &id.replace('/', "~"))?;
                let remote = link.remote.as_ref();
                let same = remote.is_some_and(|remote| {
                    one[kind.id].as_str() == Some(&remote.id)
                        && (kind.version.is_empty()
                            || one[kind.version].as_str() == Some(&remote.version))
                });
                ensure(same, || {
                    format!("{name} {id}: {link:?} is not that of {one}")
                })?;
            }
        }
        for sku in &self.shop.expected.skus {
            // Xero's refunds without goods name no item.
            if self.books != Books::Xero || sku != "REFUND" {
                link("item", sku)?;
            }
        }
        let group = keys::ledger(&merchant(), &self.connection);
        let items = whole(&self.world, &group);
        let mut rows = BTreeMap::new();
        for item in items
            .iter()
            .filter(|item| item.doc.get("settings").is_none())
        {
            let link: Link = item.read().map_err(|error| error.chain())?;
            rows.insert(keys::place(&item.key).to_owned(), (item, link));
        }
        for (place, (item, link)) in &rows {
            let kind = place.split('/').next().unwrap_or_default();
            let summary = link.summed.as_ref().map(|summed| {
                let row = rows.get(&format!("{kind}/{}", summed.id));
                row.map(|(_, link)| link)
            });
            let done = match summary {
                Some(summary) => link.standing_in(summary) == Standing::Synced,
                None => link.state == LinkState::Synced && link.waiting.is_none(),
            };
            ensure(done, || format!("{:?}: {link:?}", item.key))?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

type Owed = BTreeMap<(String, String), Decimal>;

fn number(value: &Value) -> Decimal {
    value.to_string().parse().unwrap()
}

/// What lines of QuickBooks' documents put on accounts of what is owed: a line goes to the account of its
/// item.
fn owed_in_quickbooks(all: &dyn Fn(&str) -> Vec<Value>) -> Owed {
    let mut owed = Owed::new();
    let items = all("Item");
    for (entity, sign) in [("SalesReceipt", 1), ("Invoice", 1), ("RefundReceipt", -1)] {
        for document in all(entity) {
            for line in document["Line"].as_array().unwrap() {
                let id = &line["SalesItemLineDetail"]["ItemRef"]["value"];
                let item = items.iter().find(|item| item["Id"] == *id);
                let account = item.and_then(|item| item["IncomeAccountRef"]["name"].as_str());
                let Some(account @ (TIPS | GIFT_CARDS)) = account else {
                    continue;
                };
                let key = (account.to_owned(), currency(&document).to_owned());
                *owed.entry(key).or_default() += number(&line["Amount"]) * Decimal::from(sign);
            }
        }
    }
    owed
}

/// The same in Xero, where payments lessen what is owed as well.
fn owed_in_xero(all: &dyn Fn(&str) -> Vec<Value>) -> Owed {
    let mut owed = Owed::new();
    let accounts = all("Accounts");
    let named = |field: &str, value: &Value| {
        let found = accounts.iter().find(|one| one[field] == *value)?;
        let name = found["Name"].as_str()?;
        matches!(name, TIPS | GIFT_CARDS).then(|| name.to_owned())
    };
    let mut currencies = BTreeMap::new();
    for (entity, id, sign) in [
        ("Invoices", "InvoiceID", 1),
        ("CreditNotes", "CreditNoteID", -1),
    ] {
        for document in all(entity) {
            let money = document["CurrencyCode"].as_str().unwrap().to_owned();
            for line in document["LineItems"].as_array().unwrap() {
                if let Some(name) = named("Code", &line["AccountCode"]) {
                    let amount = number(&line["LineAmount"]) * Decimal::from(sign);
                    *owed.entry((name, money.clone())).or_default() += amount;
                }
            }
            currencies.insert(document[id].as_str().unwrap().to_owned(), (money, sign));
        }
    }
    for payment in all("Payments") {
        let Some(name) = named("AccountID", &payment["Account"]["AccountID"]) else {
            continue;
        };
        let of = |object: &str, id: &str| payment[object][id].as_str().map(str::to_owned);
        let settled = of("Invoice", "InvoiceID").or_else(|| of("CreditNote", "CreditNoteID"));
        let (money, sign) = currencies[&settled.unwrap()].clone();
        let amount = number(&payment["Amount"]) * Decimal::from(sign);
        *owed.entry((name, money)).or_default() -= amount;
    }
    owed
}

type MovedOn = BTreeMap<(Moved, String), Decimal>;

/// What the lines of journal entries put on the accounts of payouts.
fn moved_in_quickbooks(all: &dyn Fn(&str) -> Vec<Value>) -> MovedOn {
    let mut moved = MovedOn::new();
    for entry in all("JournalEntry") {
        for line in entry["Line"].as_array().unwrap() {
            let detail = &line["JournalEntryLineDetail"];
            let on = |one: &&(Moved, &str, &str)| detail["AccountRef"]["name"] == one.1;
            let (account, ..) = PAYOUTS.iter().find(on).expect("an account of payouts");
            let sign = if detail["PostingType"] == "Debit" {
                1
            } else {
                -1
            };
            let key = (*account, currency(&entry).to_owned());
            *moved.entry(key).or_default() += number(&line["Amount"]) * Decimal::from(sign);
        }
    }
    moved
}

/// The same of bank transactions in Xero, those among them that are the ends of transfers.
fn moved_in_xero(all: &dyn Fn(&str) -> Vec<Value>) -> MovedOn {
    let mut moved = MovedOn::new();
    let accounts = all("Accounts");
    let named = |field: &str, value: &Value| {
        let name = accounts.iter().find(|one| one[field] == *value).unwrap()["Name"].clone();
        let found = PAYOUTS.iter().find(|one| name == one.2);
        found.expect("an account of payouts").0
    };
    for one in all("BankTransactions") {
        if one["Status"] != "AUTHORISED" {
            continue;
        }
        let currency = one["CurrencyCode"].as_str().unwrap().to_owned();
        let received = one["Type"].as_str().unwrap().starts_with("RECEIVE");
        let sign = Decimal::from(if received { 1 } else { -1 });
        let bank = named("AccountID", &one["BankAccount"]["AccountID"]);
        *moved.entry((bank, currency.clone())).or_default() += number(&one["Total"]) * sign;
        for line in one["LineItems"].as_array().unwrap() {
            let account = named("Code", &line["AccountCode"]);
            let amount = number(&line["LineAmount"]) * sign;
            *moved.entry((account, currency.clone())).or_default() -= amount;
        }
    }
    moved
}

fn currency(entity: &Value) -> &str {
    entity["CurrencyRef"]["value"].as_str().unwrap_or("USD")
}

fn debits(entry: &Value) -> Decimal {
    let lines = entry["Line"].as_array().unwrap().iter();
    let debits = lines.filter(|line| line["JournalEntryLineDetail"]["PostingType"] == "Debit");
    debits.map(|line| number(&line["Amount"])).sum()
}

/// Each of `expected` has exactly one document over its amount, and nothing else has any.
fn compare(kind: &Kind, there: &[Value], expected: &BTreeMap<String, Sum>) -> Result<(), String> {
    let (name, words) = (kind.name, kind.words);
    let mut left = expected.clone();
    let mut sum = Decimal::ZERO;
    for document in there {
        let note = document[kind.mark].as_str().unwrap_or_default();
        let id = note
            .strip_prefix(&format!("Crossdock {words} "))
            .unwrap_or_default();
        let Some((money, amount)) = left.remove(id) else {
            return Err(format!(
                "a second document of a {name}, or one of none: {document}"
            ));
        };
        let total = match kind.total {
            // It is not told of a journal entry: it is what the debits make.
            "" => debits(document),
            member => number(&document[member]),
        };
        let right = Decimal::new(amount, exponent(money));
        let given = match kind.currency {
            "" => money,
            "CurrencyRef" => currency(document),
            field => document[field].as_str().unwrap_or_default(),
        };
        ensure(given == money && total == right, || {
            format!("{name} {id} should be {right} {money} and is {document}")
        })?;
        sum += total;
    }
    ensure(left.is_empty(), || {
        format!("no document of {name} {left:?}")
    })?;
    let right = expected.values();
    let right: Decimal = right
        .map(|(money, amount)| Decimal::new(*amount, exponent(money)))
        .sum();
    ensure(sum == right, || {
        format!("{name}s make {sum} and not {right}")
    })
}

/// Where the documents of one kind of the ledger's rows stand.
struct Kind {
    name: &'static str,
    /// As the mark has it.
    words: &'static str,
    entity: &'static str,
    /// Members of the entity; empty where it has none.
    mark: &'static str,
    id: &'static str,
    version: &'static str,
    total: &'static str,
    currency: &'static str,
}

const fn in_quickbooks(name: &'static str, entity: &'static str) -> Kind {
    Kind {
        name,
        words: name,
        entity,
        mark: "PrivateNote",
        id: "Id",
        version: "SyncToken",
        total: "TotalAmt",
        currency: "CurrencyRef",
    }
}

const ENTRY: Kind = Kind {
    total: "",
    ..in_quickbooks("payout", "JournalEntry")
};
const RECEIPTS: &[Kind] = &[
    in_quickbooks("order", "SalesReceipt"),
    in_quickbooks("refund", "RefundReceipt"),
    ENTRY,
];
const INVOICES: &[Kind] = &[
    in_quickbooks("order", "Invoice"),
    in_quickbooks("payment", "Payment"),
    in_quickbooks("refund", "RefundReceipt"),
    ENTRY,
];

/// A payment changes the moment at which its document changed last, so that is no version to compare.
const fn in_xero(
    name: &'static str,
    words: &'static str,
    (entity, id): (&'static str, &'static str),
    (total, currency): (&'static str, &'static str),
) -> Kind {
    Kind {
        name,
        words,
        entity,
        mark: "Reference",
        id,
        version: "",
        total,
        currency,
    }
}

const INVOICE: (&str, &str) = ("Invoices", "InvoiceID");
const CREDIT_NOTE: (&str, &str) = ("CreditNotes", "CreditNoteID");
const PAYMENT: (&str, &str) = ("Payments", "PaymentID");
const TRANSFER: (&str, &str) = ("BankTransfers", "BankTransferID");
const TRANSACTION: (&str, &str) = ("BankTransactions", "BankTransactionID");
const XERO: &[Kind] = &[
    in_xero("order", "order", INVOICE, ("Total", "CurrencyCode")),
    in_xero("payment", "payment", PAYMENT, ("Amount", "")),
    in_xero("refund", "refund", CREDIT_NOTE, ("Total", "CurrencyCode")),
    in_xero("refund_payment", "refund payment", PAYMENT, ("Amount", "")),
    in_xero("payout", "payout", TRANSFER, ("Amount", "")),
    in_xero(
        "payout_fees",
        "payout fees",
        TRANSACTION,
        ("Total", "CurrencyCode"),
    ),
];

impl Books {
    /// A summary is a receipt, whatever orders by themselves are.
    fn kinds(self, sold: Posting) -> &'static [Kind] {
        match (self, sold) {
            (Books::Receipts, _) | (Books::Invoices, Posting::Daily) => RECEIPTS,
            (Books::Invoices, Posting::Each) => INVOICES,
            (Books::Xero, _) => XERO,
        }
    }

    /// Every kind of document that the books could hold.
    fn entities(self) -> &'static [&'static str] {
        match self {
            Books::Xero => &[
                "Invoices",
                "CreditNotes",
                "Payments",
                "BankTransactions",
                "BankTransfers",
            ],
            _ => &[
                "SalesReceipt",
                "RefundReceipt",
                "Invoice",
                "Payment",
                "CreditMemo",
                "JournalEntry",
            ],
        }
    }
}

fn check_xero_lists(contacts: &Value, items: &Value, expected: &Expected) -> Result<(), String> {
    let mut numbers = BTreeSet::new();
    for contact in contacts.as_array().unwrap() {
        // The processor, who has no number.
        if contact["Name"] == "Stripe" {
            ensure(!expected.payout_fees.is_empty(), || {
                "paid nothing".to_owned()
            })?;
            continue;
        }
        let number = contact["ContactNumber"].as_str().unwrap_or_default();
        ensure(numbers.insert(number), || {
            format!("a second contact: {contact}")
        })?;
    }
    for (mark, _) in &expected.customers {
        let number = match mark.strip_prefix("Crossdock customer ") {
            Some(number) => number,
            // Whoever has that name is meant, whatever his number.
            None if mark.contains("daily") => "",
            None => "crossdock/guest",
        };
        ensure(numbers.contains(number), || {
            format!("no contact for {mark}")
        })?;
    }
    let mut codes = BTreeSet::new();
    for item in items.as_array().unwrap() {
        let code = item["Code"].as_str().unwrap_or_default().to_uppercase();
        ensure(codes.insert(code), || format!("a second item: {item}"))?;
    }
    let goods = expected.skus.iter().filter(|sku| *sku != "REFUND");
    for sku in goods {
        ensure(codes.contains(sku), || format!("no item for {sku}"))?;
    }
    Ok(())
}

fn check_lists(customers: &Value, items: &Value, expected: &Expected) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for customer in customers.as_array().unwrap() {
        let mark = customer["Notes"].as_str().unwrap_or_default().to_owned();
        let one = (mark, currency(customer).to_owned());
        ensure(seen.insert(one), || {
            format!("a second customer: {customer}")
        })?;
    }
    for (mark, money) in &expected.customers {
        let one = (mark.clone(), (*money).to_owned());
        ensure(seen.contains(&one), || format!("no customer for {one:?}"))?;
    }
    let mut names = BTreeSet::new();
    for item in items.as_array().unwrap() {
        let name = item["Name"].as_str().unwrap_or_default().to_uppercase();
        ensure(names.insert(name), || format!("a second item: {item}"))?;
    }
    for sku in &expected.skus {
        ensure(names.contains(sku), || format!("no item for {sku}"))?;
    }
    Ok(())
}
