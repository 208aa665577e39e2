//! What a company's accounts are for: the role that each plays for a shop, the default that is read from
//! the company, and what the merchant chose instead.

use super::Fault;
use super::accounting::Document;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What an account is used for. The words stand in the settings of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What goods are sold for.
    Sales,
    Shipping,
    Discounts,
    /// Where money is put that came in.
    Money,
    /// Where money is taken from that goes back.
    Refunds,
    /// What is owed to those who were tipped.
    Tips,
    /// What is owed to those who hold gift cards, and to those who paid more than their order costs.
    GiftCards,
    /// What payment processors keep.
    Fees,
    /// The bank account that payouts reach.
    Payouts,
}

impl Role {
    pub const ALL: [Role; 9] = [
        Role::Sales,
        Role::Shipping,
        Role::Discounts,
        Role::Money,
        Role::Refunds,
        Role::Tips,
        Role::GiftCards,
        Role::Fees,
        Role::Payouts,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Role::Sales => "sales",
            Role::Shipping => "shipping",
            Role::Discounts => "discounts",
            Role::Money => "money",
            Role::Refunds => "refunds",
            Role::Tips => "tips",
            Role::GiftCards => "gift_cards",
            Role::Fees => "fees",
            Role::Payouts => "payouts",
        }
    }

    /// In words for people.
    pub const fn title(self) -> &'static str {
        match self {
            Role::GiftCards => "gift cards",
            other => other.as_str(),
        }
    }
}

/// One account of a company.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerAccount {
    pub id: String,
    /// The number by which accountants know it, where it has one.
    pub code: Option<String>,
    pub name: String,
    /// The provider's word.
    pub kind: String,
    pub active: bool,
    /// Absent where it is in the company's own.
    pub currency: Option<String>,
    /// What it can be used for, going by its type.
    pub roles: BTreeSet<Role>,
}

/// The accounts of a company, and which of them are used unless the merchant chose others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Chart {
    pub accounts: Vec<LedgerAccount>,
    /// Ids of active accounts.
    pub defaults: BTreeMap<Role, String>,
    /// The company's own currency.
    #[serde(default)]
    pub currency: String,
    /// The provider's rule of what can be used for each role, in words.
    pub rules: BTreeMap<Role, String>,
}

/// Whom guests are booked on from some moment on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// `None` for the usual one.
    pub name: Option<String>,
    /// `None` from the beginning.
    pub from: Option<DateTime<Utc>>,
}

/// What a merchant chose.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choices {
    /// An account's id or code for each role.
    pub accounts: BTreeMap<Role, String>,
    /// The latest is the last.
    pub guests: Vec<Guest>,
    /// The same of daily summaries.
    #[serde(default)]
    pub daily: Vec<Guest>,
}

/// The customer of daily summaries, unless the merchant chose another.
const DAILY_SALES: &str = "Daily sales";

/// On whom is booked what names no customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed<'a> {
    /// `None` for the usual one.
    Guest(Option<&'a str>),
    /// Who stands for everybody in daily summaries.
    Daily(&'a str),
}

fn named_at(names: &[Guest], at: DateTime<Utc>) -> Option<&str> {
    let mut latest_first = names.iter().rev();
    let name = latest_first.find(|name| name.from.is_none_or(|from| from <= at));
    name?.name.as_deref()
}

impl Choices {
    /// The name that guests of that time are booked on; `None` for the usual one. It goes by the time of
    /// the order, so that a payment names the customer of its invoice whatever was chosen in between.
    pub fn guest(&self, at: DateTime<Utc>) -> Option<&str> {
        named_at(&self.guests, at)
    }

    /// On whom `document` is booked if it names no customer.
    pub fn unnamed(&self, document: &Document) -> Unnamed<'_> {
        let at = document.sold_at();
        match document.is_summary() {
            true => Unnamed::Daily(named_at(&self.daily, at).unwrap_or(DAILY_SALES)),
            false => Unnamed::Guest(self.guest(at)),
        }
    }
}

/// Why an account cannot be used, with a code.
#[derive(Debug, Clone, PartialEq)]
pub struct Unfit {
    pub code: &'static str,
    pub detail: String,
}

impl From<Unfit> for Fault {
    fn from(unfit: Unfit) -> Fault {
        Fault::Refused {
            code: unfit.code.to_owned(),
            detail: unfit.detail,
        }
    }
}

impl Chart {
    /// The chart within what an accounting system made of its company.
    pub fn of(settings: &Value) -> Chart {
        serde_json::from_value(settings["chart"].clone()).unwrap_or_default()
    }

    /// Names as the default of `role` the one account that `fits`. Of several none is taken: books that
    /// wait for a decision are better than wrong ones.
    pub fn default_only(&mut self, role: Role, fits: impl Fn(&LedgerAccount) -> bool) {
        if self.defaults.contains_key(&role) {
            return;
        }
        let usable = |one: &&LedgerAccount| one.active && one.roles.contains(&role) && fits(one);
        let mut fitting = self.accounts.iter().filter(usable);
        if let (Some(one), None) = (fitting.next(), fitting.next()) {
            self.defaults.insert(role, one.id.clone());
        }
    }

    fn by_id(&self, id: &str) -> Option<&LedgerAccount> {
        self.accounts.iter().find(|one| one.id == id)
    }

    /// The account that `text` names for `role`: by its id, else by its code. `company` is the system, in
    /// words.
    pub fn choose(&self, role: Role, text: &str, company: &str) -> Result<&LedgerAccount, Unfit> {
        let by_code = || {
            let mut accounts = self.accounts.iter();
            accounts.find(|one| one.code.as_deref() == Some(text))
        };
        let title = role.title();
        let Some(account) = self.by_id(text).or_else(by_code) else {
            return Err(Unfit {
                code: "unknown_account",
                detail: format!(
                    "{company} has no account {text}, which is chosen for {title}; choose another, \
                     then retry"
                ),
            });
        };
        let name = &account.name;
        if !account.active {
            return Err(Unfit {
                code: "inactive_account",
                detail: format!(
                    "{name}, which is chosen for {title}, is an inactive account in {company}; make it \
                     active there or choose another, then retry"
                ),
            });
        }
        if !account.roles.contains(&role) {
            let rule = self.rules.get(&role).map_or("another", String::as_str);
            return Err(Unfit {
                code: "wrong_account",
                detail: format!(
                    "{name} is an account of type {} in {company}; for {title} choose {rule}",
                    account.kind
                ),
            });
        }
        Ok(account)
    }

    /// The account that `choices` name for `role`, if they do.
    pub fn chosen(
        &self,
        role: Role,
        choices: &Choices,
        company: &str,
    ) -> Result<Option<&LedgerAccount>, Unfit> {
        // Money goes back from where it came, unless said otherwise.
        let accounts = &choices.accounts;
        let named = match role {
            Role::Refunds => accounts.get(&role).or_else(|| accounts.get(&Role::Money)),
            _ => accounts.get(&role),
        };
        named
            .map(|text| self.choose(role, text, company))
            .transpose()
    }

    /// The account that is used for `role`: the chosen one, else the default.
    pub fn used(
        &self,
        role: Role,
        choices: &Choices,
        company: &str,
    ) -> Result<&LedgerAccount, Unfit> {
        if let Some(chosen) = self.chosen(role, choices, company)? {
            return Ok(chosen);
        }
        let default = match role {
            Role::Payouts => {
                let clearing = self.used(Role::Money, choices, company)?;
                self.other_bank(clearing, &self.currency)
            }
            _ => self.defaults.get(&role).and_then(|id| self.by_id(id)),
        };
        self.or_none(default, role, company)
    }

    /// The account that payouts in `currency` reach: the chosen one, unless it holds another currency than
    /// that or the company's own; else the one beside `clearing`, where the money lies until then.
    pub fn payouts(
        &self,
        clearing: &LedgerAccount,
        currency: &str,
        choices: &Choices,
        company: &str,
    ) -> Result<&LedgerAccount, Unfit> {
        let holds = |account: &&LedgerAccount| {
            let own = self.currency_of(account);
            own == currency || own == self.currency
        };
        if let Some(chosen) = self.chosen(Role::Payouts, choices, company)?.filter(holds) {
            return Ok(chosen);
        }
        let default = self.other_bank(clearing, currency);
        self.or_none(default, Role::Payouts, company)
    }

    /// The currency that an account is in.
    pub fn currency_of<'a>(&'a self, account: &'a LedgerAccount) -> &'a str {
        account.currency.as_deref().unwrap_or(&self.currency)
    }

    /// The one bank account in `currency`, or else in the company's own, that is not `clearing`; none
    /// where two might be meant.
    fn other_bank(&self, clearing: &LedgerAccount, currency: &str) -> Option<&LedgerAccount> {
        let holding = |currency: &str| {
            let accounts = self.accounts.iter();
            let fits = |one: &&LedgerAccount| {
                let usable = one.active && one.roles.contains(&Role::Payouts);
                usable && one.id != clearing.id && self.currency_of(one) == currency
            };
            accounts.filter(fits).collect::<Vec<_>>()
        };
        let own = holding(currency);
        let found = match own.is_empty() {
            true => holding(&self.currency),
            false => own,
        };
        match found[..] {
            [one] => Some(one),
            _ => None,
        }
    }

    fn or_none<'a>(
        &self,
        account: Option<&'a LedgerAccount>,
        role: Role,
        company: &str,
    ) -> Result<&'a LedgerAccount, Unfit> {
        account.ok_or_else(|| {
            let (title, rule) = (role.title(), self.rules.get(&role));
            let lacks = match role {
                Role::Payouts => format!(
                    "{company} has no bank account beside that of money which payouts might reach, or \
                     more than one: choose one"
                ),
                _ => format!(
                    "there is no account for {title}: add {} in {company} or choose one",
                    rule.map_or("one", String::as_str)
                ),
            };
            Unfit {
                code: "no_account",
                detail: format!(
                    "{lacks} in the settings of the connection (accounts.{}), then retry",
                    role.as_str()
                ),
            }
        })
    }
}

/// Whether a word of `name` is one of `words`, which are in lower case.
pub fn says(name: &str, words: &[&str]) -> bool {
    let name = name.to_lowercase();
    let mut own = name.split(|c: char| !c.is_alphanumeric());
    own.any(|word| words.contains(&word))
}

/// Words by which people name an account for tips, and one for gift cards.
pub const TIPS: &[&str] = &["tip", "tips", "gratuity", "gratuities"];
pub const GIFT_CARDS: &[&str] = &[
    "gift",
    "gifts",
    "giftcard",
    "giftcards",
    "voucher",
    "vouchers",
];
/// Words by which people name an account for what payment processors keep: one of each has to be there.
const FEES: &[&str] = &["fee", "fees", "charge", "charges"];
const OF_PAYMENTS: &[&str] = &[
    "bank",
    "card",
    "cards",
    "merchant",
    "payment",
    "payments",
    "processing",
    "processor",
];

/// Whether an account of this name is for what payment processors keep.
pub fn says_fees(name: &str) -> bool {
    says(name, FEES) && says(name, OF_PAYMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str, role: Role, active: bool) -> LedgerAccount {
        LedgerAccount {
            id: id.to_owned(),
            code: Some(format!("c{id}")),
            name: format!("Account {id}"),
            kind: "Liability".to_owned(),
            active,
            currency: None,
            roles: BTreeSet::from([role]),
        }
    }

    fn choices(role: Role, text: &str) -> Choices {
        Choices {
            accounts: BTreeMap::from([(role, text.to_owned())]),
            ..Choices::default()
        }
    }

    #[test]
    fn a_choice_comes_before_the_default_and_has_to_fit() {
        let chart = Chart {
            accounts: vec![
                account("1", Role::Tips, true),
                account("2", Role::Tips, true),
                account("3", Role::Tips, false),
                account("4", Role::Sales, true),
            ],
            defaults: BTreeMap::from([(Role::Tips, "1".to_owned())]),
            rules: BTreeMap::from([(Role::Tips, "a liability".to_owned())]),
            ..Chart::default()
        };
        let used = |choices: &Choices| {
            let used = chart.used(Role::Tips, choices, "Books");
            used.map(|one| one.id.as_str()).map_err(|unfit| unfit.code)
        };
        assert_eq!(used(&Choices::default()), Ok("1"));
        for (text, expected) in [
            ("2", Ok("2")),
            ("c2", Ok("2")),
            ("3", Err("inactive_account")),
            ("4", Err("wrong_account")),
            ("5", Err("unknown_account")),
        ] {
            assert_eq!(used(&choices(Role::Tips, text)), expected, "{text}");
        }
        let none = chart.used(Role::GiftCards, &Choices::default(), "Books");
        assert_eq!(none.unwrap_err().code, "no_account");
    }

    #[test]
    fn of_several_that_would_do_none_is_the_default() {
        let mut chart = Chart {
            accounts: vec![
                account("1", Role::Tips, false),
                account("2", Role::Tips, true),
            ],
            ..Chart::default()
        };
        let mut two = chart.clone();
        two.accounts.push(account("3", Role::Tips, true));
        two.default_only(Role::Tips, |_| true);
        assert_eq!(two.defaults.get(&Role::Tips), None);
        chart.default_only(Role::Tips, |_| true);
        assert_eq!(chart.defaults[&Role::Tips], "2", "the active one");
        assert!(says("Tips (staff)", TIPS) && !says("Tipsy bar", TIPS));
        for (name, fees) in [
            ("Bank Charges & Fees", true),
            ("Payment processing fees", true),
            ("Merchant account fees", true),
            ("Legal & professional fees", false),
            ("Payments to contractors", false),
        ] {
            assert_eq!(says_fees(name), fees, "{name}");
        }
    }

    #[test]
    fn payouts_reach_the_one_bank_account_beside_that_of_money() {
        let bank = |id: &str, currency: &str, active: bool| LedgerAccount {
            currency: (!currency.is_empty()).then(|| currency.to_owned()),
            roles: BTreeSet::from([Role::Money, Role::Payouts]),
            ..account(id, Role::Money, active)
        };
        let chart = Chart {
            accounts: vec![
                bank("1", "", true),
                bank("2", "USD", true),
                bank("3", "", false),
                bank("4", "EUR", true),
            ],
            defaults: BTreeMap::from([(Role::Money, "1".to_owned())]),
            currency: "USD".to_owned(),
            rules: BTreeMap::new(),
        };
        let reached = |chart: &Chart, currency: &str, choices: &Choices| {
            let clearing = chart.used(Role::Money, choices, "Books").unwrap();
            let reached = chart.payouts(clearing, currency, choices, "Books");
            reached
                .map(|one| one.id.clone())
                .map_err(|unfit| unfit.code)
        };
        let none = Choices::default();
        assert_eq!(reached(&chart, "USD", &none), Ok("2".to_owned()));
        assert_eq!(reached(&chart, "EUR", &none), Ok("4".to_owned()));
        assert_eq!(reached(&chart, "GBP", &none), Ok("2".to_owned()));
        assert_eq!(chart.used(Role::Payouts, &none, "Books").unwrap().id, "2");
        // The money lies on what would be the default.
        let money = choices(Role::Money, "2");
        assert_eq!(reached(&chart, "USD", &money), Ok("1".to_owned()));
        let same = choices(Role::Payouts, "1");
        assert_eq!(reached(&chart, "USD", &same), Ok("1".to_owned()));
        let euros = choices(Role::Payouts, "4");
        assert_eq!(reached(&chart, "USD", &euros), Ok("2".to_owned()));
        let mut two = chart.clone();
        two.accounts.push(bank("5", "USD", true));
        assert_eq!(reached(&two, "USD", &none), Err("no_account"));
    }

    #[test]
    fn refunds_come_from_where_the_money_went() {
        let mut money = account("1", Role::Money, true);
        money.roles.insert(Role::Refunds);
        let chart = Chart {
            accounts: vec![money, account("2", Role::Refunds, true)],
            defaults: BTreeMap::from([(Role::Refunds, "2".to_owned())]),
            ..Chart::default()
        };
        let used = |choices: &Choices| chart.used(Role::Refunds, choices, "").unwrap().id.clone();
        assert_eq!(used(&Choices::default()), "2");
        assert_eq!(used(&choices(Role::Money, "1")), "1");
        assert_eq!(used(&choices(Role::Refunds, "2")), "2");
    }

    #[test]
    fn a_guest_is_who_he_was_when_he_ordered() {
        let at = |text: &str| text.parse().unwrap();
        let guest = |name: &str, from: Option<&str>| Guest {
            name: Some(name.to_owned()),
            from: from.map(at),
        };
        let mut choices = Choices::default();
        assert_eq!(choices.guest(at("2026-01-01T00:00:00Z")), None);
        choices.guests.push(guest("Walk-in", None));
        choices
            .guests
            .push(guest("Web", Some("2026-02-01T00:00:00Z")));
        assert_eq!(choices.guest(at("2026-01-31T23:59:59Z")), Some("Walk-in"));
        assert_eq!(choices.guest(at("2026-02-01T00:00:00Z")), Some("Web"));
    }
}
