//! Between the canonical model and Xero's bodies.
//!
//! Xero rounds the tax of each line and adds up; a `TaxAmount` at the line takes the place of what it
//! would reckon. So each line says its tax, spread to the last unit, and the total is the shop's.

use super::settings::Settings;
use super::taxes::{amounts, kind, stacked, taxed, untaxed};
use crate::model::event::fingerprint;
use crate::model::money::{Currency, Money};
use crate::model::order::{Line, Order, Refund};
use crate::model::payout::Payout;
use crate::model::people::Customer;
use crate::providers::accounting::{Dependency, DependencyKind, Document, Leg, References};
use crate::providers::accounts::{Role, Unnamed};
use crate::providers::taxed::{Taxed, base, tolerance};
use crate::providers::{Fault, provider};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Longest values that Xero takes, in characters (entity reference).
const CONTACT_NAME_MAX: usize = 255;
const CONTACT_NUMBER_MAX: usize = 50;
const ITEM_CODE_MAX: usize = 30;
const ITEM_NAME_MAX: usize = 50;
const DESCRIPTION_MAX: usize = 4000;
const DOCUMENT_NUMBER_MAX: usize = 255;
const PHONE_MAX: usize = 50;
/// Most decimals of an amount, and of a quantity or a unit price (with `unitdp=4`).
const AMOUNT_DECIMALS: u32 = 2;
const UNIT_DECIMALS: u32 = 4;
/// The contact of every guest. No id of the shop holds a `/`, so it is nobody else's.
const GUEST: &str = "Guest";
const GUEST_NUMBER: &str = "crossdock/guest";

pub(super) fn refused<T>(code: &str, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused {
        code: code.to_owned(),
        detail: detail.into(),
    })
}

/// One line with the amount that the books get, in the units of [`Unit`].
pub(super) struct Part {
    item: Option<String>,
    description: String,
    pub(super) amount: i64,
    /// Quantity and unit price, where their product is the amount to the last digit.
    priced: Option<(Decimal, Decimal)>,
    pub(super) taxed: Taxed,
    role: Role,
}

/// The smallest unit that both the currency and Xero know.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    currency: Currency,
    decimals: u32,
}

impl Unit {
    fn of(currency: Currency) -> Unit {
        let decimals = currency.exponent().min(AMOUNT_DECIMALS);
        Unit { currency, decimals }
    }

    /// Minor units of the currency in this unit. Xero keeps two decimals, so of three the last must be
    /// nothing.
    fn take(self, amount: i64) -> Result<i64, Fault> {
        let step = 10_i64.pow(self.currency.exponent() - self.decimals);
        if amount % step == 0 {
            return Ok(amount / step);
        }
        let money = Money::new(amount, self.currency);
        refused(
            "too_many_decimals",
            format!("Xero keeps two decimals, so it cannot hold {money}; post this by hand"),
        )
    }

    fn number(self, amount: i64) -> Value {
        number(Decimal::new(amount, self.decimals))
    }
}

/// A JSON number with exactly these digits, which a double holds.
fn number(decimal: Decimal) -> Value {
    serde_json::from_str(&decimal.normalize().to_string()).unwrap_or(Value::Null)
}

fn cut(text: &str, max: usize) -> String {
    text.chars().take(max).collect()
}

/// Words on one line, with nothing that Xero refuses in a name.
fn clean(text: &str, max: usize) -> String {
    let plain = |c: char| {
        if c.is_control() || matches!(c, '<' | '>') {
            ' '
        } else {
            c
        }
    };
    let replaced: String = text.chars().map(plain).collect();
    let words: Vec<&str> = replaced.split_whitespace().collect();
    cut(&words.join(" "), max).trim_end().to_owned()
}

/// `text` where it fits, else its beginning with a fingerprint of the whole.
fn short(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let print = cut(&fingerprint(&json!(text)), 16);
    format!("{}~{print}", cut(text, max - 17))
}

fn described(text: &str, otherwise: &str) -> String {
    let text = if text.trim().is_empty() {
        otherwise
    } else {
        text
    };
    cut(text, DESCRIPTION_MAX)
}

fn item_code(sku: &str) -> String {
    short(&clean(&sku.to_uppercase(), usize::MAX), ITEM_CODE_MAX)
}

fn part(line: &Line, unit: Unit) -> Result<Part, Fault> {
    let (quantity, price) = (line.quantity.normalize(), line.unit_price.normalize());
    // Xero rounds its own way, so both are named only where there is nothing to round.
    let exact = quantity.checked_mul(price) == Some(line.total.major())
        && quantity.scale().max(price.scale()) <= UNIT_DECIMALS;
    let name = if line.name.trim().is_empty() {
        &line.sku
    } else {
        &line.name
    };
    let description = match exact {
        true => name.clone(),
        false => format!("{name} ({quantity} × {price})"),
    };
    Ok(Part {
        // A gift card is no item: what it sells for is owed.
        item: (!line.gift_card).then(|| item_code(&line.sku)),
        description: described(&description, &line.sku),
        amount: unit.take(line.total.amount)?,
        priced: exact.then_some((quantity, price)),
        taxed: match (line.gift_card, line.taxable) {
            (true, _) => Taxed::Never,
            (_, true) => Taxed::Yes,
            (_, false) => Taxed::No,
        },
        role: if line.gift_card {
            Role::GiftCards
        } else {
            Role::Sales
        },
    })
}

fn single(description: &str, otherwise: &str, amount: i64, taxed: Taxed, role: Role) -> Part {
    Part {
        item: None,
        description: described(description, otherwise),
        amount,
        priced: None,
        taxed,
        role,
    }
}

/// A document's lines with their tax.
pub(super) struct Lines {
    pub(super) unit: Unit,
    /// `Exclusive`, `Inclusive` or `NoTax`.
    pub(super) types: &'static str,
    pub(super) parts: Vec<Part>,
    /// The tax type and the tax of each part.
    pub(super) taxes: Vec<(String, i64)>,
}

fn of_order(order: &Order, settings: &Settings) -> Result<Lines, Fault> {
    let sections = order.parts().map(|part| of_section(part, settings));
    Lines::together(sections.collect::<Result<_, _>>()?, settings)
}

/// The lines of an order, or of what in a daily summary is taxed alike.
fn of_section(order: &Order, settings: &Settings) -> Result<Lines, Fault> {
    let unit = Unit::of(order.currency);
    let mut parts = Vec::with_capacity(order.lines.len() + 2);
    for line in &order.lines {
        parts.push(part(line, unit)?);
    }
    for discount in &order.discounts {
        let amount = -unit.take(discount.amount.amount)?;
        parts.push(single(
            &discount.name,
            "Discount",
            amount,
            Taxed::AsDiscount,
            Role::Discounts,
        ));
    }
    if let Some(shipping) = &order.shipping {
        let amount = unit.take(shipping.amount.amount)?;
        parts.push(single(
            &shipping.name,
            "Shipping",
            amount,
            Taxed::AsShipping,
            Role::Shipping,
        ));
    }
    if let Some(tip) = order.tip.filter(|tip| tip.amount != 0) {
        let amount = unit.take(tip.amount)?;
        parts.push(single("", "Tip", amount, Taxed::Never, Role::Tips));
    }
    let taxes = order.taxes.iter().filter(|tax| tax.amount.amount != 0);
    let percentages: Vec<Decimal> = taxes.map(|tax| tax.rate.normalize()).collect();
    let tax = unit.take(order.tax_amount())?;
    let included = order.prices_include_tax;
    let asked = match percentages[..] {
        [] => None,
        [one] => Some(one),
        _ => Some(stacked(
            &parts,
            tax,
            included,
            &percentages,
            order.summed.unwrap_or(1),
        )?),
    };
    taxed(unit, parts, tax, included, asked, settings)
}

fn of_refund(refund: &Refund, order: Option<&Order>, settings: &Settings) -> Result<Lines, Fault> {
    let sections = refund.parts();
    let sections = sections.map(|part| of_refund_section(part, order, settings));
    Lines::together(sections.collect::<Result<_, _>>()?, settings)
}

/// The lines of a refund, or of what in a daily summary is taxed alike.
fn of_refund_section(
    refund: &Refund,
    order: Option<&Order>,
    settings: &Settings,
) -> Result<Lines, Fault> {
    let unit = Unit::of(refund.amount.currency);
    let shipping = unit.take(refund.shipping.map_or(0, |money| money.amount))?;
    let tax = unit.take(refund.tax.map_or(0, |money| money.amount))?;
    let tip = unit.take(refund.tip.map_or(0, |money| money.amount))?;
    let mut parts = Vec::with_capacity(refund.lines.len() + 1);
    for line in &refund.lines {
        parts.push(part(line, unit)?);
    }
    let (goods, included) = (unit.take(refund.goods_amount())?, refund.prices_include_tax);
    if parts.is_empty() && goods != 0 && refund.summed.is_none() {
        let reason = refund.reason.as_deref().unwrap_or_default();
        let taxed = if tax != 0 { Taxed::Yes } else { Taxed::No };
        parts.push(single(reason, "Refund", goods, taxed, Role::Sales));
    }
    if shipping != 0 {
        let taxed = Taxed::AsShipping;
        parts.push(single("", "Shipping", shipping, taxed, Role::Shipping));
    }
    if tip != 0 {
        parts.push(single("", "Tip", tip, Taxed::Never, Role::Tips));
    }
    // What the order was taxed with, else the rate of the organisation that comes nearest.
    let taxes = order.map_or(&refund.taxes, |order| &order.taxes).iter();
    let taxes = taxes.filter(|tax| tax.amount.amount != 0);
    let told: Vec<Decimal> = taxes.map(|tax| tax.rate.normalize()).collect();
    let sum: Decimal = told.iter().sum();
    let candidates: Vec<Decimal> = match told.first() {
        // One rate may have been told more than once, of goods and of shipping say.
        Some(one) if told.iter().all(|rate| rate == one) => vec![*one, sum.normalize()],
        Some(_) => vec![sum.normalize()],
        None => settings.percentages().collect(),
    };
    let amounts = amounts(&parts);
    let off = |percent: &Decimal| base(&amounts, tax, included, *percent).1;
    let asked = candidates.into_iter().min_by_key(off);
    let within = tolerance(parts.len(), refund.summed.unwrap_or(1));
    let known = asked.filter(|percent| !sum.is_zero() || off(percent) <= within);
    if tax != 0 && known.is_none() {
        return refused(
            "no_tax_rate",
            "no sales tax rate of this organisation makes the tax of this refund; post it by hand",
        );
    }
    taxed(unit, parts, tax, included, known, settings)
}

impl Lines {
    /// The lines of one document whose parts are taxed otherwise. Where these differ in whether prices hold
    /// the tax, all go without.
    fn together(mut sections: Vec<Lines>, settings: &Settings) -> Result<Lines, Fault> {
        // What has no lines says nothing.
        sections.retain(|one| !one.parts.is_empty());
        let mut rest = sections.into_iter();
        let Some(mut whole) = rest.next() else {
            return refused("no_parts", "there is nothing to post of this document");
        };
        for mut lines in rest {
            if whole.types != lines.types {
                whole.exclude(settings)?;
                lines.exclude(settings)?;
            }
            whole.parts.append(&mut lines.parts);
            whole.taxes.append(&mut lines.taxes);
        }
        Ok(whole)
    }

    /// Takes the tax out of the amounts, and names one for each line.
    fn exclude(&mut self, settings: &Settings) -> Result<(), Fault> {
        match self.types {
            "Inclusive" => {
                for (part, (_, tax)) in self.parts.iter_mut().zip(&self.taxes) {
                    part.amount -= tax;
                    part.priced = part.priced.filter(|_| *tax == 0);
                }
            }
            "NoTax" => {
                let free = kind(Decimal::ZERO, settings)?;
                let free = self.parts.iter().map(|part| (untaxed(part, &free), 0));
                self.taxes = free.collect();
            }
            _ => {}
        }
        self.types = "Exclusive";
        Ok(())
    }

    /// What Xero makes of them.
    fn total(&self) -> i64 {
        let taxes: i64 = self.taxes.iter().map(|(_, tax)| tax).sum();
        let parts: i64 = self.parts.iter().map(|part| part.amount).sum();
        parts + if self.types == "Exclusive" { taxes } else { 0 }
    }

    fn body(&self, settings: &Settings) -> Result<Vec<Value>, Fault> {
        let body = |(index, part): (usize, &Part)| {
            let one = (Decimal::ONE, Decimal::new(part.amount, self.unit.decimals));
            let (quantity, price) = part.priced.unwrap_or(one);
            let mut line = json!({
                "Description": part.description,
                "Quantity": number(quantity),
                "UnitAmount": number(price),
                "AccountCode": settings.code(part.role)?,
            });
            if let Some(code) = &part.item {
                line["ItemCode"] = json!(code);
            }
            if let Some((kind, tax)) = self.taxes.get(index) {
                line["TaxType"] = json!(kind);
                line["TaxAmount"] = self.unit.number(*tax);
            }
            Ok(line)
        };
        self.parts.iter().enumerate().map(body).collect()
    }
}

fn customer<'a>(document: Document<'a>) -> Option<&'a Customer> {
    match document {
        Document::SalesReceipt(order, _)
        | Document::Invoice(order, _)
        | Document::Payment { order, .. } => order.customer.as_ref(),
        Document::RefundReceipt(refund, order)
        | Document::CreditNote(refund, order)
        | Document::RefundPayment(refund, order) => {
            order.map_or(refund.customer.as_ref(), |order| order.customer.as_ref())
        }
        Document::JournalEntry(_) | Document::BankTransfer(_) | Document::BankTransaction(_) => {
            None
        }
    }
}

fn contact_key(customer: Option<&Customer>, unnamed: Unnamed) -> String {
    match (customer, unnamed) {
        (Some(customer), _) => format!("id/{}", customer.id),
        (None, Unnamed::Guest(None)) => "guest".to_owned(),
        (None, Unnamed::Guest(Some(name))) => format!("guest/{name}"),
        (None, Unnamed::Daily(name)) => format!("daily/{name}"),
    }
}

/// The contact of a payment processor: one of its name, whoever made it.
fn processor(payout: &Payout) -> Dependency {
    let known = provider(&payout.processor.to_lowercase());
    let name = known.map_or(&payout.processor[..], |known| known.manifest().title);
    Dependency {
        kind: DependencyKind::Customer,
        key: format!("processor/{}", name.to_lowercase()),
        names: vec![name.to_owned(), format!("{name} (fees)")],
        mark: None,
        body: json!({}),
    }
}

/// The contact and the items of an invoice or credit note, and the contact of fees. Payments and transfers
/// name none.
pub fn dependencies(document: Document, settings: &Settings) -> Result<Vec<Dependency>, Fault> {
    settings.check(document.total().currency)?;
    let lines: Vec<&Line> = match document {
        Document::Invoice(order, _) | Document::SalesReceipt(order, _) => {
            order.parts().flat_map(|part| &part.lines).collect()
        }
        Document::CreditNote(refund, _) | Document::RefundReceipt(refund, _) => {
            refund.parts().flat_map(|part| &part.lines).collect()
        }
        Document::BankTransaction(payout) if !document.is_nothing() => {
            return Ok(vec![processor(payout)]);
        }
        _ => return Ok(Vec::new()),
    };
    let unnamed = settings.choices.unnamed(&document);
    let mut dependencies = vec![contact(customer(document), unnamed)];
    for line in lines.into_iter().filter(|line| !line.gift_card) {
        let code = item_code(&line.sku);
        let known = |other: &Dependency| other.kind == DependencyKind::Item && other.key == code;
        if dependencies.iter().any(known) {
            continue;
        }
        // What a line of a summary says is said of one day.
        let name = match document.is_summary() {
            true => &line.sku,
            false => &line.name,
        };
        dependencies.push(Dependency {
            kind: DependencyKind::Item,
            key: code.clone(),
            names: vec![code.clone()],
            mark: None,
            body: json!({
                "Name": clean(&described(name, &line.sku), ITEM_NAME_MAX),
                "Description": described(name, &line.sku),
                "IsSold": true,
            }),
        });
    }
    Ok(dependencies)
}

/// A contact is known by its number, which is the shop's id of the customer; its name is for people.
fn contact(customer: Option<&Customer>, unnamed: Unnamed) -> Dependency {
    let key = contact_key(customer, unnamed);
    let Some(customer) = customer else {
        let usual = unnamed == Unnamed::Guest(None);
        let name = match unnamed {
            Unnamed::Guest(name) => name.unwrap_or(GUEST),
            Unnamed::Daily(name) => name,
        };
        let name = clean(name, CONTACT_NAME_MAX / 2);
        return Dependency {
            kind: DependencyKind::Customer,
            key,
            names: vec![name.clone(), format!("{name} (shop)")],
            // Whom the merchant names is meant, whoever made him.
            mark: usual.then(|| GUEST_NUMBER.to_owned()),
            body: json!({}),
        };
    };
    let mut body = json!({});
    if let Some(email) = &customer.email {
        body["EmailAddress"] = json!(email);
    }
    if let Some(phone) = &customer.phone {
        let phone = cut(phone, PHONE_MAX);
        body["Phones"] = json!([{ "PhoneType": "DEFAULT", "PhoneNumber": phone }]);
    }
    let name = clean(&customer.name, CONTACT_NAME_MAX / 2);
    let name = if name.is_empty() {
        customer.id.to_string()
    } else {
        name
    };
    let second = format!("{name} [{}]", customer.id);
    Dependency {
        kind: DependencyKind::Customer,
        key,
        // The plain name first; if it belongs to somebody else, the shop's id tells them apart.
        names: vec![name, cut(&second, CONTACT_NAME_MAX)],
        mark: Some(short(customer.id.as_str(), CONTACT_NUMBER_MAX)),
        body,
    }
}

/// The number under which people find a document; it is unique among those of its kind.
pub fn document_number(document: Document) -> String {
    match document {
        Document::SalesReceipt(order, _) | Document::Invoice(order, _) => {
            cut(&order.number, DOCUMENT_NUMBER_MAX)
        }
        _ => cut(&document.id(), DOCUMENT_NUMBER_MAX),
    }
}

/// The body of `document`; `on` is the id of the invoice or credit note that a payment settles.
pub fn body(
    document: Document,
    references: &References,
    on: Option<&str>,
    settings: &Settings,
) -> Result<Value, Fault> {
    let total = document.total();
    let unit = Unit::of(total.currency);
    let date = document.at().format("%Y-%m-%d").to_string();
    let (lines, mut body) = match document {
        Document::SalesReceipt(order, _) | Document::Invoice(order, _) => {
            let body = json!({ "Type": "ACCREC", "DueDate": date });
            (of_order(order, settings)?, body)
        }
        Document::CreditNote(refund, order) | Document::RefundReceipt(refund, order) => {
            let body = json!({ "Type": "ACCRECCREDIT" });
            (of_refund(refund, order, settings)?, body)
        }
        Document::Payment { .. } | Document::RefundPayment(..) => {
            let settled = match document {
                Document::Payment { .. } => ("Invoice", "InvoiceID"),
                _ => ("CreditNote", "CreditNoteID"),
            };
            return Ok(json!({
                settled.0: { settled.1: on },
                "Account": { "AccountID": paid_on(document, settings)? },
                "Date": date,
                "Amount": unit.number(unit.take(total.amount)?),
                "Reference": document.mark(),
            }));
        }
        Document::BankTransfer(payout) => return transfer(document, payout, settings),
        Document::BankTransaction(payout) => {
            return fees(document, payout, references, settings);
        }
        Document::JournalEntry(_) => {
            return refused("no_parts", "there is nothing to post of this document");
        }
    };
    // The model's own checks make this true; books that are off by a cent must never be written.
    if lines.total() != unit.take(total.amount)? {
        return refused(
            "does_not_add_up",
            "the parts of this document do not make its total",
        );
    }
    let unnamed = settings.choices.unnamed(&document);
    let key = contact_key(customer(document), unnamed);
    let key = (DependencyKind::Customer, key);
    let Some(contact) = references.get(&key) else {
        return Err(Fault::Later {
            detail: "a contact is not there yet".to_owned(),
        });
    };
    let number = match document {
        Document::Invoice(..) | Document::SalesReceipt(..) => "InvoiceNumber",
        _ => "CreditNoteNumber",
    };
    body[number] = json!(document_number(document));
    // Only its id, or Xero would change the contact.
    body["Contact"] = json!({ "ContactID": contact });
    body["Date"] = json!(date);
    body["Reference"] = json!(document.mark());
    body["CurrencyCode"] = json!(total.currency.code());
    body["LineAmountTypes"] = json!(lines.types);
    body["Status"] = json!("AUTHORISED");
    body["LineItems"] = json!(lines.body(settings)?);
    Ok(body)
}

/// The money of a payout, from where it lay to the bank; the other way round where the processor took it
/// from there.
fn transfer(document: Document, payout: &Payout, settings: &Settings) -> Result<Value, Fault> {
    let (currency, amount) = (payout.currency, document.total().amount);
    let (clearing, bank) = (settings.clearing(currency)?, settings.payouts(currency)?);
    let refunds = settings.money_account(Role::Refunds, currency)?;
    if payout.refunds.amount != 0 && refunds != clearing.id {
        return refused(
            "two_accounts",
            format!(
                "the processor took refunds out of this payout, and the books take them from another \
                 account than {}, where its charges lie: choose one account for both in the settings of \
                 the connection (accounts.money, accounts.refunds), or post it by hand",
                clearing.name
            ),
        );
    }
    let (from, to) = match payout.amount.amount < 0 {
        false => (clearing, bank),
        true => (bank, clearing),
    };
    let unit = Unit::of(currency);
    Ok(json!({
        "FromBankAccount": { "AccountID": from.id },
        "ToBankAccount": { "AccountID": to.id },
        "Amount": unit.number(unit.take(amount)?),
        "Date": document.at().format("%Y-%m-%d").to_string(),
        "Reference": document.mark(),
    }))
}

/// What a processor kept, spent from where the money lies; received there where it gave more than it kept.
fn fees(
    document: Document,
    payout: &Payout,
    references: &References,
    settings: &Settings,
) -> Result<Value, Fault> {
    let (currency, unit) = (payout.currency, Unit::of(payout.currency));
    let kind = match payout.kept() < 0 {
        false => "SPEND",
        true => "RECEIVE",
    };
    let account = settings.code(Role::Fees)?;
    let line = |leg: Leg| {
        let amount = match kind {
            "SPEND" => leg.debit,
            _ => -leg.debit,
        };
        Ok(json!({
            "Description": format!("{} {}", payout.processor, leg.name.unwrap_or("fees")),
            "Quantity": number(Decimal::ONE),
            "UnitAmount": unit.number(unit.take(amount)?),
            "AccountCode": account,
        }))
    };
    let of_fees = Leg::all(payout).filter(|leg| leg.role == Role::Fees);
    let lines: Vec<Value> = of_fees.map(line).collect::<Result<_, Fault>>()?;
    let key = (DependencyKind::Customer, processor(payout).key);
    let Some(contact) = references.get(&key) else {
        return Err(Fault::Later {
            detail: "a contact is not there yet".to_owned(),
        });
    };
    Ok(json!({
        "Type": kind,
        "BankAccount": { "AccountID": settings.clearing(currency)?.id },
        "Contact": { "ContactID": contact },
        "Date": document.at().format("%Y-%m-%d").to_string(),
        "Reference": document.mark(),
        // What tax a fee bears is told by the processor's invoice, and not by its payout.
        "LineAmountTypes": "NoTax",
        "LineItems": lines,
    }))
}

/// Whether anything of `document` is to be posted: no money moves where it is in the bank at once.
pub fn posts(document: Document, settings: &Settings) -> Result<bool, Fault> {
    match document {
        _ if document.is_nothing() => Ok(false),
        Document::BankTransfer(payout) => {
            let (currency, clearing) = (payout.currency, settings.clearing(payout.currency)?);
            Ok(settings.payouts(currency)?.id != clearing.id)
        }
        _ => Ok(true),
    }
}

/// The account of a payment: money lies on one, and a gift card lessens or grows what is owed.
fn paid_on<'a>(document: Document, settings: &'a Settings) -> Result<&'a str, Fault> {
    let role = match document {
        Document::Payment { payment, .. } if payment.redeems() => Role::GiftCards,
        Document::RefundPayment(refund, _) if refund.to_gift_card() => Role::GiftCards,
        Document::RefundPayment(..) => Role::Refunds,
        _ => Role::Money,
    };
    match role {
        Role::GiftCards => Ok(&settings.account(role)?.id),
        _ => settings.money_account(role, document.total().currency),
    }
}

/// What of a body is worth an update: not which account or tax type was chosen among those that fit.
/// Invoices that are paid cannot be changed, and no accountant wants last year's sales to move because
/// there is a new account.
pub fn essence(document: Document, body: &Value) -> Value {
    let mut body = body.clone();
    if let Document::BankTransfer(payout) = document {
        // Which way the money goes, whatever the accounts are.
        body["Reversed"] = json!(payout.amount.amount < 0);
    }
    if let Some(members) = body.as_object_mut() {
        for name in ["Account", "BankAccount", "FromBankAccount", "ToBankAccount"] {
            members.remove(name);
        }
    }
    for line in body["LineItems"].as_array_mut().into_iter().flatten() {
        if let Some(line) = line.as_object_mut() {
            line.remove("AccountCode");
            line.remove("TaxType");
        }
    }
    body
}
