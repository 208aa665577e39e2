//! Between the canonical model and QuickBooks' bodies.
//!
//! A receipt's total is lines − discount + shipping + `TxnTaxDetail.TotalTax`. In a company of the
//! United States a given total tax is honoured and spread by QuickBooks, and a line only says
//! whether it is taxable (`TAX` or `NON`), so the shop's own tax is what the books show. Elsewhere it
//! names a tax code of the company: see `taxes`.

use super::settings::Settings;
use super::taxes;
use crate::model::allocate::allocate;
use crate::model::money::{Currency, Money};
use crate::model::order::{Line, Order, Payment, Refund, Tax};
use crate::model::payout::Payout;
use crate::model::people::Customer;
use crate::providers::Fault;
use crate::providers::accounting::{Dependency, DependencyKind, Document, Leg, References};
use crate::providers::accounts::{Role, Unnamed};
use crate::providers::taxed::Taxed;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Longest values that QuickBooks takes, in characters (entity reference).
const DISPLAY_NAME_MAX: usize = 500;
const ITEM_NAME_MAX: usize = 100;
const DESCRIPTION_MAX: usize = 4000;
const DOC_NUMBER_MAX: usize = 21;
const PHONE_MAX: usize = 30;
/// Decimals of an amount (the vendor's `Finance.xsd`: two places).
const AMOUNT_DECIMALS: u32 = 2;
/// The item that stands for shipping; QuickBooks makes it when shipping is switched on.
const SHIPPING_ITEM: &str = "SHIPPING_ITEM_ID";
/// The customer of every guest, and the item of a refund that names no goods.
const GUEST: &str = "Guest";
const REFUND_ITEM: &str = "REFUND";
const GUEST_MARK: &str = "Crossdock guests";
const DAILY_MARK: &str = "Crossdock daily sales";
/// Begins the key of an item that stands for an account. Names of goods are in upper case.
const ROLE_KEY: &str = "role/";

fn refused<T>(code: &str, detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Refused {
        code: code.to_owned(),
        detail: detail.into(),
    })
}

/// The parts that a sale and a refund share.
struct Parts<'a> {
    currency: Currency,
    customer: Option<&'a Customer>,
    lines: Vec<Part>,
    discount: i64,
    tax: i64,
    /// Whether the tax is part of the amounts above.
    included: bool,
    /// The rate of each tax with what it makes; of a refund, those of its order.
    taxes: Vec<(Decimal, i64)>,
    /// Of how many orders these are the sums.
    orders: u64,
}

/// What a line sells, which QuickBooks calls an item.
enum Thing {
    Goods(String),
    /// An item of ours that stands for an account: QuickBooks knows no other way to name one in a line.
    Of(Role),
}

/// One line with the amount that the books get.
struct Part {
    thing: Thing,
    name: String,
    amount: Money,
    /// Quantity and unit price, as the shop says them.
    counted: Option<(Decimal, Decimal)>,
    taxed: Taxed,
}

impl Part {
    /// Quantity and unit price, where their product is the amount to the last digit: QuickBooks refuses a
    /// line whose amount is not quantity × price (fault 6070), and rounds its own way, so both are named
    /// only where there is nothing to round.
    fn priced(&self) -> Option<(Decimal, Decimal)> {
        let (quantity, price) = self.counted?;
        let exact = quantity.checked_mul(price) == Some(self.amount.major());
        exact.then_some((quantity, price))
    }

    /// What people read; it says in words what the numbers cannot.
    fn described(&self) -> String {
        match self.counted.filter(|_| self.priced().is_none()) {
            Some((quantity, price)) => format!("{} ({quantity} × {price})", self.name),
            None => self.name.clone(),
        }
    }
}

fn part(line: &Line) -> Part {
    Part {
        thing: match line.gift_card {
            true => Thing::Of(Role::GiftCards),
            false => Thing::Goods(line.sku.clone()),
        },
        name: line.name.clone(),
        amount: line.total,
        counted: Some((line.quantity.normalize(), line.unit_price.normalize())),
        taxed: match (line.gift_card, line.taxable) {
            (true, _) => Taxed::Never,
            (_, true) => Taxed::Yes,
            (_, false) => Taxed::No,
        },
    }
}

/// A line without goods, unless it is over nothing.
fn plain(role: Role, name: &str, amount: i64, currency: Currency) -> Option<Part> {
    (amount != 0).then(|| Part {
        thing: Thing::Of(role),
        name: name.to_owned(),
        amount: Money::new(amount, currency),
        counted: None,
        taxed: match role {
            Role::Shipping => Taxed::AsShipping,
            _ => Taxed::Never,
        },
    })
}

/// The parts of an order, or of a section of a daily summary, of which gift cards pay `redeemed`. Intuit has them as a line below zero on the
/// item of the liability
/// (<https://quickbooks.intuit.com/learn-support/en-us/gift-card-payments/sell-and-redeem-gift-cards-or-certificates-in-quickbooks-online/00/190607>).
fn sale(order: &Order, redeemed: i64) -> Parts<'_> {
    let currency = order.currency;
    let lines = order.lines.iter().map(part);
    let more = [
        plain(Role::Shipping, "", order.shipping_amount(), currency),
        plain(Role::Tips, "Tip", order.tip_amount(), currency),
        plain(Role::GiftCards, "Gift card redeemed", -redeemed, currency),
    ];
    Parts {
        currency,
        customer: order.customer.as_ref(),
        lines: lines.chain(more.into_iter().flatten()).collect(),
        discount: order.discount_amount(),
        tax: order.tax_amount(),
        included: order.prices_include_tax,
        taxes: rates(&order.taxes),
        orders: order.summed.unwrap_or(1),
    }
}

/// The rates of `taxes` with what each makes.
fn rates(taxes: &[Tax]) -> Vec<(Decimal, i64)> {
    let taxes = taxes.iter().filter(|tax| tax.amount.amount != 0);
    taxes
        .map(|tax| (tax.rate.normalize(), tax.amount.amount))
        .collect()
}

/// The parts of a refund, or of a section of a daily summary, of which `owed` goes back to gift cards and
/// is owed again.
fn refund<'a>(refund: &'a Refund, order: Option<&'a Order>, owed: i64) -> Parts<'a> {
    let currency = refund.amount.currency;
    let amount = |money: Option<Money>| money.map_or(0, |money| money.amount);
    let (shipping, tax, tip) = (
        amount(refund.shipping),
        amount(refund.tax),
        amount(refund.tip),
    );
    let mut lines: Vec<Part> = refund.lines.iter().map(part).collect();
    let goods = refund.goods_amount();
    if lines.is_empty() && goods != 0 && refund.summed.is_none() {
        let name = refund.reason.clone().unwrap_or_else(|| "Refund".to_owned());
        lines.push(Part {
            thing: Thing::Goods(REFUND_ITEM.to_owned()),
            name,
            amount: Money::new(goods, currency),
            counted: None,
            taxed: match tax {
                0 => Taxed::No,
                _ => Taxed::Yes,
            },
        });
    }
    let more = [
        plain(Role::Shipping, "", shipping, currency),
        plain(Role::Tips, "Tip", tip, currency),
        plain(Role::GiftCards, "Back to a gift card", -owed, currency),
    ];
    lines.extend(more.into_iter().flatten());
    Parts {
        currency,
        customer: order.map_or(refund.customer.as_ref(), |order| order.customer.as_ref()),
        lines,
        discount: 0,
        tax,
        included: refund.prices_include_tax,
        taxes: match order {
            Some(order) => rates(&order.taxes),
            None => rates(&refund.taxes),
        },
        orders: refund.summed.unwrap_or(1),
    }
}

/// The parts of `document`, those together that are taxed alike; none of a payment and a payout. What
/// gift cards pay stands in the first.
fn sections<'a>(document: Document<'a>) -> Vec<Parts<'a>> {
    match document {
        Document::SalesReceipt(order, redeemed) | Document::Invoice(order, redeemed) => {
            let mut redeemed = Some(redeemed);
            let parts = order.parts();
            parts
                .map(|part| sale(part, redeemed.take().unwrap_or_default()))
                .collect()
        }
        Document::RefundReceipt(of, order)
        | Document::CreditNote(of, order)
        | Document::RefundPayment(of, order) => {
            // What goes back to a gift card is owed again, and no money goes out.
            let mut owed = Some(of.amount.amount - document.total().amount);
            let parts = of.parts();
            parts
                .map(|part| refund(part, order, owed.take().unwrap_or_default()))
                .collect()
        }
        Document::Payment { .. }
        | Document::JournalEntry(_)
        | Document::BankTransfer(_)
        | Document::BankTransaction(_) => Vec::new(),
    }
}

/// A name that QuickBooks takes: no colon, tab or line break, no space at the ends, not too long.
fn clean(name: &str, max: usize) -> String {
    let replaced: String = name
        .chars()
        .map(|c| if c == ':' || c.is_control() { ' ' } else { c })
        .collect();
    let words: Vec<&str> = replaced.split_whitespace().collect();
    let cut: String = words.join(" ").chars().take(max).collect();
    cut.trim_end().to_owned()
}

fn item_name(sku: &str) -> String {
    // Names are equal without regard to case, so one spelling is used for all.
    let name = clean(&sku.to_uppercase(), ITEM_NAME_MAX);
    match name.is_empty() {
        true => sku.replace(':', "-").chars().take(ITEM_NAME_MAX).collect(),
        false => name,
    }
}

/// The name of an item where its own is taken by something that nobody sells: a category, say.
fn beside(name: &str) -> String {
    const SUFFIX: &str = " (shop)";
    let room = ITEM_NAME_MAX - SUFFIX.len();
    format!("{}{SUFFIX}", clean(name, room))
}

/// On whom `document` is booked that names no customer.
fn unnamed<'a>(document: &Document, settings: &'a Settings) -> Unnamed<'a> {
    settings.choices.unnamed(document)
}

fn customer_key(customer: Option<&Customer>, currency: Currency, unnamed: Unnamed) -> String {
    match (customer, unnamed) {
        // An id holds no `/`, so the key of guests is nobody else's.
        (Some(customer), _) => format!("id/{}/{currency}", customer.id),
        (None, Unnamed::Guest(None)) => format!("guest/{currency}"),
        (None, Unnamed::Guest(Some(name))) => format!("guest/{currency}/{name}"),
        (None, Unnamed::Daily(name)) => format!("daily/{currency}/{name}"),
    }
}

/// The key of an item that stands for an account; `None` for shipping, which QuickBooks has an item for
/// unless the merchant chose an account: that of QuickBooks goes to the company's own account of shipping,
/// and nothing in a line would make it go elsewhere.
fn role_key(role: Role, settings: &Settings) -> Result<Option<(String, &str)>, Fault> {
    let account = match role {
        Role::Shipping => match settings.chosen(role)? {
            Some(account) => account,
            None => return Ok(None),
        },
        _ => settings.account(role)?,
    };
    Ok(Some((
        format!("{ROLE_KEY}{}/{}", role.as_str(), account.id),
        &account.id,
    )))
}

/// Whether `currency` is another than the company's own, which keeps books in it.
fn known_currency(currency: Currency, settings: &Settings) -> Result<bool, Fault> {
    let foreign = currency.code() != settings.home_currency;
    if foreign && !settings.multicurrency {
        return refused(
            "currency_off",
            format!(
                "this is in {}, and QuickBooks keeps books in {} only; switch on multicurrency \
                 in QuickBooks (Account and settings, Advanced), then retry",
                currency, settings.home_currency
            ),
        );
    }
    Ok(foreign)
}

/// QuickBooks keeps two decimals, and would round what has three.
fn fits(document: Document, sections: &[Parts]) -> Result<(), Fault> {
    let currency = document.total().currency;
    let step = 10_i64.pow(currency.exponent().saturating_sub(AMOUNT_DECIMALS));
    let mut amounts = vec![document.total().amount];
    for parts in sections {
        amounts.extend([parts.tax, parts.discount]);
        amounts.extend(parts.lines.iter().map(|part| part.amount.amount));
    }
    match document {
        Document::Payment {
            payment, applied, ..
        } => amounts.extend([payment.amount.amount, applied]),
        Document::JournalEntry(payout) => amounts.extend(Leg::all(payout).map(|leg| leg.debit)),
        _ => {}
    }
    match amounts.into_iter().find(|amount| amount % step != 0) {
        None => Ok(()),
        Some(amount) => refused(
            "too_many_decimals",
            format!(
                "QuickBooks keeps two decimals, so it cannot hold {}; post this by hand",
                Money::new(amount, currency)
            ),
        ),
    }
}

pub fn dependencies(document: Document, settings: &Settings) -> Result<Vec<Dependency>, Fault> {
    let sections = sections(document);
    let currency = document.total().currency;
    fits(document, &sections)?;
    let customer = match document {
        Document::JournalEntry(_) => return known_currency(currency, settings).map(|_| Vec::new()),
        Document::Payment { order, .. } => order.customer.as_ref(),
        _ => sections.first().and_then(|parts| parts.customer),
    };
    let foreign = known_currency(currency, settings)?;
    let unnamed = unnamed(&document, settings);
    let mut dependencies = vec![customer_dependency(customer, currency, foreign, unnamed)];
    if settings.multicurrency {
        dependencies[0].body["CurrencyRef"] = json!({ "value": currency.code() });
    }
    for part in sections.iter().flat_map(|parts| &parts.lines) {
        let Some(mut item) = item_dependency(part, settings)? else {
            continue;
        };
        // What a line of a summary says is said of one day.
        if let Some(goods) = item.body.as_object_mut().filter(|_| document.is_summary()) {
            goods.remove("Description");
        }
        let known = |other: &Dependency| other.kind == item.kind && other.key == item.key;
        if !dependencies.iter().any(known) {
            dependencies.push(item);
        }
    }
    Ok(dependencies)
}

fn item_dependency(part: &Part, settings: &Settings) -> Result<Option<Dependency>, Fault> {
    let kind = DependencyKind::Item;
    let role = match &part.thing {
        Thing::Goods(sku) => {
            let name = item_name(sku);
            let description: String = part.name.chars().take(DESCRIPTION_MAX).collect();
            let account = &settings.account(Role::Sales)?.id;
            return Ok(Some(Dependency {
                kind,
                key: name.clone(),
                names: vec![name.clone(), beside(&name)],
                mark: None,
                body: json!({
                    "Type": "NonInventory",
                    "Sku": name,
                    "Description": description,
                    "IncomeAccountRef": { "value": account },
                }),
            }));
        }
        Thing::Of(role) => *role,
    };
    let Some((key, account)) = role_key(role, settings)? else {
        return Ok(None);
    };
    let name = format!("Crossdock {}", role.title());
    Ok(Some(Dependency {
        kind,
        key,
        // Another account has another item, since what was posted on the one before stays there.
        names: vec![name.clone(), format!("{name} (account {account})")],
        mark: Some(account.to_owned()),
        body: json!({ "Type": "Service", "IncomeAccountRef": { "value": account } }),
    }))
}

/// What tells whether a found thing is ours: words in a customer's notes, and of an item the account that
/// it posts to.
pub fn mark(found: &Value, kind: DependencyKind) -> Option<String> {
    let mark = match kind {
        DependencyKind::Customer => &found["Notes"],
        DependencyKind::Item => &found["IncomeAccountRef"]["value"],
    };
    mark.as_str().map(str::to_owned)
}

fn customer_dependency(
    customer: Option<&Customer>,
    currency: Currency,
    foreign: bool,
    unnamed: Unnamed,
) -> Dependency {
    // A customer has one currency for life, so there is one customer for each.
    let suffix = if foreign {
        format!(" ({currency})")
    } else {
        String::new()
    };
    let named = |name: &str| {
        let room = DISPLAY_NAME_MAX - suffix.chars().count();
        format!("{}{suffix}", clean(name, room))
    };
    let key = customer_key(customer, currency, unnamed);
    let Some(customer) = customer else {
        let usual = unnamed == Unnamed::Guest(None);
        let (name, mark) = match unnamed {
            Unnamed::Guest(name) => (name.unwrap_or(GUEST), GUEST_MARK),
            Unnamed::Daily(name) => (name, DAILY_MARK),
        };
        return Dependency {
            kind: DependencyKind::Customer,
            key,
            names: vec![named(name), named(&format!("{name} (shop)"))],
            // Whom the merchant names is meant, whoever made him.
            mark: usual.then(|| mark.to_owned()),
            body: json!({ "Notes": mark }),
        };
    };
    let mark = format!("Crossdock customer {}", customer.id);
    let mut body = json!({ "Notes": mark });
    if let Some(email) = &customer.email {
        body["PrimaryEmailAddr"] = json!({ "Address": email });
    }
    if let Some(phone) = &customer.phone {
        let phone: String = phone.chars().take(PHONE_MAX).collect();
        body["PrimaryPhone"] = json!({ "FreeFormNumber": phone });
    }
    let mut cut: String = customer.name.chars().take(DISPLAY_NAME_MAX / 2).collect();
    // Of a name such as `:` nothing is left that QuickBooks takes.
    if clean(&cut, DISPLAY_NAME_MAX).is_empty() {
        cut = customer.id.to_string();
    }
    Dependency {
        kind: DependencyKind::Customer,
        key,
        // The plain name first; if it belongs to somebody else, the shop's id tells them apart.
        names: vec![named(&cut), named(&format!("{cut} [{}]", customer.id))],
        mark: Some(mark),
        body,
    }
}

fn reference(references: &References, kind: DependencyKind, key: String) -> Result<Value, Fault> {
    match references.get(&(kind, key)) {
        Some(id) => Ok(json!({ "value": id })),
        None => Err(Fault::Later {
            detail: "a customer or item is not there yet".to_owned(),
        }),
    }
}

/// The body of `document`; `on` is the id of the invoice that a payment settles.
pub fn body(
    document: Document,
    references: &References,
    on: Option<&str>,
    settings: &Settings,
) -> Result<Value, Fault> {
    let total = document.total();
    if let Document::JournalEntry(payout) = document {
        return journal(document, payout, settings);
    }
    let (customer, mut body) = match document {
        Document::Payment {
            payment,
            order,
            applied,
        } => {
            let mut body = settlement(payment, applied, on);
            deposit(&mut body, settings, total)?;
            (order.customer.as_ref(), body)
        }
        _ => {
            let sections = sections(document);
            let customer = sections.first().and_then(|parts| parts.customer);
            let body = sales_form(document, sections, references, settings)?;
            (customer, body)
        }
    };
    let key = customer_key(customer, total.currency, unnamed(&document, settings));
    body["CustomerRef"] = reference(references, DependencyKind::Customer, key)?;
    sign(&mut body, document, settings);
    Ok(body)
}

/// What every document says of itself.
fn sign(body: &mut Value, document: Document, settings: &Settings) {
    body["TxnDate"] = json!(document.at().format("%Y-%m-%d").to_string());
    body["PrivateNote"] = json!(document.mark());
    if settings.multicurrency {
        body["CurrencyRef"] = json!({ "value": document.total().currency.code() });
    }
}

/// A payout with what was kept of it. Its amounts are never below zero: what is taken from an account is a
/// credit.
fn journal(document: Document, payout: &Payout, settings: &Settings) -> Result<Value, Fault> {
    let currency = payout.currency;
    let line = |leg: Leg| {
        let account = settings.payout_account(leg.role, currency)?;
        let amount = Money::new(leg.debit.abs(), currency);
        let what = leg.name.unwrap_or(match leg.role {
            Role::Money => "charges",
            Role::Refunds => "refunds",
            Role::Fees => "fees",
            _ => "payout",
        });
        Ok(json!({
            "DetailType": "JournalEntryLineDetail",
            "Amount": number(amount.major()),
            "Description": format!("{} {what}", payout.processor),
            "JournalEntryLineDetail": {
                "PostingType": if leg.debit > 0 { "Debit" } else { "Credit" },
                "AccountRef": { "value": account.id },
            },
        }))
    };
    let lines = Leg::all(payout).map(line);
    let lines: Vec<Value> = lines.collect::<Result<_, Fault>>()?;
    // The model's own checks make this true; books that are off by a cent must never be written.
    if Leg::all(payout).map(|leg| leg.debit).sum::<i64>() != 0 {
        return refused(
            "does_not_add_up",
            "the parts of this document do not make its total",
        );
    }
    let mut body = json!({ "DocNumber": doc_number(&document.id()), "Line": lines });
    sign(&mut body, document, settings);
    Ok(body)
}

/// Names the account that money is put on, where the merchant chose one.
fn deposit(body: &mut Value, settings: &Settings, total: Money) -> Result<(), Fault> {
    if let Some(account) = settings.chosen_money(Role::Money, total.currency)? {
        body["DepositToAccountRef"] = json!({ "value": account.id });
    }
    Ok(())
}

/// A payment, applied to its invoice as far as that goes. What is more stays with the customer.
fn settlement(payment: &Payment, applied: i64, invoice: Option<&str>) -> Value {
    let money = |amount: i64| number(Money::new(amount, payment.amount.currency).major());
    let mut body = json!({
        "TotalAmt": money(payment.amount.amount),
        "PaymentRefNum": doc_number(payment.id.as_str()),
    });
    if applied != 0 {
        let link = json!([{ "TxnId": invoice, "TxnType": "Invoice" }]);
        body["Line"] = json!([{ "Amount": money(applied), "LinkedTxn": link }]);
    }
    body
}

/// The item of a line.
fn item(part: &Part, references: &References, settings: &Settings) -> Result<Value, Fault> {
    let key = match &part.thing {
        Thing::Goods(sku) => item_name(sku),
        Thing::Of(role) => match role_key(*role, settings)? {
            Some((key, _)) => key,
            None => return Ok(json!({ "value": SHIPPING_ITEM })),
        },
    };
    reference(references, DependencyKind::Item, key)
}

/// What a form says of its tax beside its amounts.
struct Said {
    /// `GlobalTaxCalculation`, which companies of the United States do not have.
    how: Option<&'static str>,
    /// The tax code of each line.
    codes: Vec<Option<String>>,
    /// What each line comes to with its tax, where the form shows that.
    gross: Vec<Option<i64>>,
    detail: Option<Value>,
}

/// Says the tax of all of a form, and takes it out of the amounts where it is included.
fn say_taxes(sections: &mut [Parts], settings: &Settings) -> Result<Said, Fault> {
    if let [alone] = sections {
        return say_tax(alone, settings, false);
    }
    let mut whole: Option<Said> = None;
    for parts in sections {
        let said = say_tax(parts, settings, true)?;
        whole = Some(match whole {
            None => said,
            Some(before) => before.and(said)?,
        });
    }
    whole.ok_or_else(|| Fault::Refused {
        code: "no_parts".to_owned(),
        detail: "there is nothing to post of this document".to_owned(),
    })
}

impl Said {
    /// What is said of two parts of one form.
    fn and(mut self, other: Said) -> Result<Said, Fault> {
        const NOT: &str = "NotApplicable";
        let nameless = |said: &Said| said.how == Some(NOT);
        if nameless(&self) != nameless(&other) {
            return taxes::no_free_code();
        }
        let group = |said: &Said| said.detail.as_ref().map(|it| it["TxnTaxCodeRef"].clone());
        if let (Some(one), Some(another)) = (group(&self), group(&other))
            && one != another
        {
            return taxes::several();
        }
        self.codes.extend(other.codes);
        self.gross.extend(other.gross);
        self.detail = match (self.detail, other.detail) {
            (Some(one), Some(another)) => Some(taxes::both(one, &another)),
            (one, another) => one.or(another),
        };
        Ok(self)
    }
}

/// Says the tax of `parts`, and takes it out of their amounts where it is included. What is one `of_several`
/// parts of a form goes without its tax, as there the others may.
fn say_tax(parts: &mut Parts, settings: &Settings, of_several: bool) -> Result<Said, Fault> {
    if parts.tax != 0 && !settings.sales_tax {
        // QuickBooks would drop the tax in silence, and the total would be wrong.
        return refused(
            "sales_tax_off",
            "this has sales tax, and sales tax is off in QuickBooks; set it up under Taxes, then retry",
        );
    }
    let count = parts.lines.len();
    if settings.country == "US" {
        let detail = match parts.tax {
            0 => None,
            tax => {
                let total = Money::new(tax, parts.currency);
                let mut detail = json!({ "TotalTax": number(total.major()) });
                if !settings.automated_tax {
                    let group = taxes::group(&tax_form(parts, of_several), &settings.taxes)?;
                    detail["TxnTaxCodeRef"] = json!({ "value": group });
                }
                Some(detail)
            }
        };
        // Tax that lies on shipping alone needs a line that bears it too.
        let bearing = match parts.tax {
            0 => vec![false; count],
            _ => taxes::bearing(&tax_form(parts, of_several)),
        };
        take_out(parts);
        let code = |bears: &bool| Some(if *bears { "TAX" } else { "NON" }.to_owned());
        return Ok(Said {
            how: None,
            codes: bearing.iter().take(count).map(code).collect(),
            gross: vec![None; count],
            detail,
        });
    }
    if !settings.sales_tax {
        return Ok(Said {
            how: None,
            codes: vec![None; count],
            gross: vec![None; count],
            detail: None,
        });
    }
    let form = tax_form(parts, of_several);
    let lines = form.lines.clone();
    let said = taxes::say(&form, &settings.taxes)?;
    for (part, net) in parts.lines.iter_mut().zip(&said.nets) {
        part.amount.amount = *net;
    }
    parts.discount = said.discount;
    let gross = |(_, amount): &(Taxed, i64)| (said.how == "TaxInclusive").then_some(*amount);
    Ok(Said {
        how: Some(said.how),
        gross: lines.iter().map(gross).collect(),
        codes: said.codes,
        detail: said.detail,
    })
}

/// `parts` as far as their tax is concerned.
fn tax_form<'p>(parts: &'p Parts<'_>, of_several: bool) -> taxes::Form<'p> {
    let lines = parts.lines.iter();
    taxes::Form {
        currency: parts.currency,
        lines: lines.map(|part| (part.taxed, part.amount.amount)).collect(),
        discount: parts.discount,
        tax: parts.tax,
        included: parts.included,
        taxes: &parts.taxes,
        of_several,
        orders: parts.orders,
    }
}

/// Where prices include tax, the books of the United States get them without: the tax is taken out of
/// what bears it in proportion, to the last unit.
fn take_out(parts: &mut Parts) {
    if !parts.included {
        return;
    }
    let bearing = taxes::bearing(&tax_form(parts, false));
    let weights = parts.lines.iter().zip(bearing);
    let weights = weights.map(|(part, bears)| if bears { part.amount.amount } else { 0 });
    let weights: Vec<i64> = weights.collect();
    for (part, tax) in parts.lines.iter_mut().zip(allocate(parts.tax, &weights)) {
        part.amount.amount -= tax;
    }
}

/// A receipt, an invoice or a refund receipt.
fn sales_form(
    document: Document,
    mut sections: Vec<Parts>,
    references: &References,
    settings: &Settings,
) -> Result<Value, Fault> {
    let said = say_taxes(&mut sections, settings)?;
    let total = document.total();
    let money = |amount: i64| number(Money::new(amount, total.currency).major());
    let mut lines = Vec::new();
    let all = sections.iter().flat_map(|parts| &parts.lines);
    for (index, part) in all.clone().enumerate() {
        let mut detail = json!({ "ItemRef": item(part, references, settings)? });
        if let Some(Some(code)) = said.codes.get(index) {
            detail["TaxCodeRef"] = json!({ "value": code });
        }
        if let Some(Some(gross)) = said.gross.get(index) {
            detail["TaxInclusiveAmt"] = money(*gross);
        }
        if let Some((quantity, price)) = part.priced() {
            detail["Qty"] = number(quantity);
            detail["UnitPrice"] = number(price);
        }
        let mut line = json!({
            "DetailType": "SalesItemLineDetail",
            "Amount": money(part.amount.amount),
            "SalesItemLineDetail": detail,
        });
        let described = part.described();
        let unnamed = described.is_empty() && matches!(part.thing, Thing::Of(_));
        if !unnamed {
            let described: String = described.chars().take(DESCRIPTION_MAX).collect();
            line["Description"] = json!(described);
        }
        lines.push(line);
    }
    let discount: i64 = sections.iter().map(|parts| parts.discount).sum();
    if discount != 0 {
        let mut detail = json!({ "PercentBased": false });
        if let Some(account) = settings.chosen(Role::Discounts)? {
            detail["DiscountAccountRef"] = json!({ "value": account.id });
        }
        lines.push(json!({
            "DetailType": "DiscountLineDetail",
            "Amount": money(discount),
            "DiscountLineDetail": detail,
        }));
    }
    let number_text = match document {
        Document::SalesReceipt(order, _) | Document::Invoice(order, _) => order.number.clone(),
        _ => document.id(),
    };
    let mut body = json!({ "DocNumber": doc_number(&number_text), "Line": lines });
    if let Some(how) = said.how {
        body["GlobalTaxCalculation"] = json!(how);
    }
    if let Some(detail) = said.detail {
        body["TxnTaxDetail"] = detail;
        if settings.country == "US" {
            // Without it, what QuickBooks thinks is due on shipping comes on top of the tax that is given.
            body["ShippingTaxIncludedInTotalTax"] = json!(true);
        }
    }
    match document {
        Document::SalesReceipt(..) => deposit(&mut body, settings, total)?,
        Document::RefundReceipt(..) => {
            let account = settings.refund_account(total.currency)?;
            body["DepositToAccountRef"] = json!({ "value": account.id });
        }
        _ => {}
    }
    let tax: i64 = sections.iter().map(|parts| parts.tax).sum();
    let amounts = all.map(|part| part.amount.amount);
    // The model's own checks make this true; books that are off by a cent must never be written.
    if amounts.sum::<i64>() - discount + tax != total.amount {
        return refused(
            "does_not_add_up",
            "the parts of this document do not make its total",
        );
    }
    Ok(body)
}

/// What of a body is worth an update: not which account was chosen. Last year's books do not move because
/// a merchant chooses anew.
pub fn essence(body: &Value, references: &References) -> Value {
    let of_role = |id: &Value| {
        let mut items = references.iter();
        let known = items.find(|((kind, key), known)| {
            *kind == DependencyKind::Item && key.starts_with(ROLE_KEY) && id == known.as_str()
        });
        let role = known.and_then(|((_, key), _)| key.split('/').nth(1));
        role.or_else(|| (id == SHIPPING_ITEM).then_some(Role::Shipping.as_str()))
    };
    let mut body = body.clone();
    if let Some(members) = body.as_object_mut() {
        members.remove("DepositToAccountRef");
    }
    // A tax code is chosen here among those that have the rate, as an account is among those that fit.
    let regional = body.get("GlobalTaxCalculation").is_some();
    let taxes = body.pointer_mut("/TxnTaxDetail/TaxLine");
    for line in taxes.and_then(Value::as_array_mut).into_iter().flatten() {
        line["TaxLineDetail"]["TaxRateRef"] = Value::Null;
    }
    let lines = body.get_mut("Line").and_then(Value::as_array_mut);
    for line in lines.into_iter().flatten() {
        let posted = line.get_mut("JournalEntryLineDetail");
        if let Some(posted) = posted.and_then(Value::as_object_mut) {
            posted.remove("AccountRef");
        }
        let discount = line.get_mut("DiscountLineDetail");
        if let Some(discount) = discount.and_then(Value::as_object_mut) {
            discount.remove("DiscountAccountRef");
        }
        let Some(sold) = line.get_mut("SalesItemLineDetail") else {
            continue;
        };
        if let Some(sold) = sold.as_object_mut().filter(|_| regional) {
            sold.remove("TaxCodeRef");
        }
        if let Some(role) = of_role(&sold["ItemRef"]["value"]) {
            sold["ItemRef"] = json!({ "value": role });
        }
    }
    body
}

/// The end of a number tells documents apart better than its beginning.
fn doc_number(text: &str) -> String {
    let skip = text.chars().count().saturating_sub(DOC_NUMBER_MAX);
    text.chars().skip(skip).collect()
}

/// A JSON number with exactly these digits. QuickBooks holds 15 of them, as a double does.
pub fn number(decimal: Decimal) -> Value {
    let text = decimal.normalize().to_string();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
