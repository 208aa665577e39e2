//! What the stand-in tells an app by itself: signed bodies to the address that is registered for it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::state::{Fields, Kind, text};
use crate::standins::oauth::state::hex;

/// One change that is told.
#[derive(Clone, Debug)]
pub struct Happened {
    category: &'static str,
    kind: Kind,
    id: String,
    tenant: String,
    made: bool,
    at: DateTime<Utc>,
    /// Type and status, which credit notes alone tell.
    data: Option<(String, String)>,
}

impl Happened {
    /// Nothing, if changes of this kind are not told.
    pub fn of(
        kind: Kind,
        value: &Fields,
        tenant: &str,
        made: bool,
        at: DateTime<Utc>,
    ) -> Option<Self> {
        let category = match kind {
            Kind::Contact => "CONTACT",
            Kind::Invoice => "INVOICE",
            Kind::CreditNote => "CREDITNOTE",
            _ => return None,
        };
        let word = |name| text(value, name).unwrap_or_default().to_owned();
        Some(Self {
            category,
            kind,
            id: word(kind.id()),
            tenant: tenant.to_owned(),
            made,
            at,
            data: (kind == Kind::CreditNote).then(|| (word("Type"), word("Status"))),
        })
    }

    fn shown(&self) -> Value {
        let mut out = json!({
            "resourceUrl": format!("https://api.xero.com/api.xro/2.0/{}/{}", self.kind.plural(), self.id),
            "resourceId": self.id,
            "eventDateUtc": self.at.format("%Y-%m-%dT%H:%M:%S%.3f").to_string(),
            "eventType": if self.made { "CREATE" } else { "UPDATE" },
            "eventCategory": self.category,
            "tenantId": self.tenant,
            "tenantType": "ORGANISATION",
        });
        if let Some((kind, status)) = &self.data {
            out["data"] = json!({"Type": kind, "Status": status});
        }
        out
    }
}

/// Where bodies go, and how badly.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Subscription {
    pub url: String,
    pub key: String,
    /// `CONTACT`, `INVOICE`, `CREDITNOTE`; all, if none is named.
    pub categories: Vec<String>,
    /// Sends each body twice.
    pub duplicate: bool,
    /// Keeps bodies back until this is taken away again.
    pub paused: bool,
    /// Sends what is due in the opposite order.
    pub reverse: bool,
    /// Never sends what happens from now on.
    pub lose: bool,
}

/// One body on its way.
#[derive(Clone, Debug, Serialize)]
pub struct Delivery {
    pub id: u64,
    pub url: String,
    pub body: String,
    pub signature: String,
    /// What the address has to answer: 401 to a body that was signed wrongly on purpose.
    pub expected: u16,
    /// Every answer so far; none where there was no answer within five seconds.
    pub answers: Vec<Option<u16>>,
    pub done: bool,
    #[serde(skip)]
    due: DateTime<Utc>,
    #[serde(skip)]
    until: DateTime<Utc>,
    #[serde(skip)]
    under_way: bool,
}

#[derive(Default)]
pub struct Webhooks {
    pub subscription: Subscription,
    deliveries: Vec<Delivery>,
    sequence: u64,
}

/// `base64(HMAC-SHA256(body, key))`, with the key as the text that it is shown as.
pub fn sign(key: &str, body: &str) -> String {
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(body.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

impl Webhooks {
    /// Puts what one request changed into one body.
    pub fn note(&mut self, happened: &[Happened], now: DateTime<Utc>) {
        let wanted = &self.subscription;
        if wanted.url.is_empty() || wanted.lose {
            return;
        }
        let mut told: Vec<&Happened> = Vec::new();
        for one in happened {
            let category = one.category.to_owned();
            if !wanted.categories.is_empty() && !wanted.categories.contains(&category) {
                continue;
            }
            // What is made and changed at once is told once, as it ended.
            match told.iter_mut().find(|other| other.id == one.id) {
                Some(other) if !other.made => *other = one,
                Some(_) => {}
                None => told.push(one),
            }
        }
        if told.is_empty() {
            return;
        }
        let first = self.sequence + 1;
        self.sequence += told.len() as u64;
        let events: Vec<Value> = told.into_iter().map(Happened::shown).collect();
        let body = self.body(&events, first, self.sequence);
        let signature = sign(&self.subscription.key, &body);
        self.push(body.clone(), signature.clone(), 200, now);
        if self.subscription.duplicate {
            self.push(body, signature, 200, now);
        }
    }

    /// The vendor puts blanks after some of the colons, so that nobody can sign what was parsed.
    fn body(&self, events: &[Value], first: u64, last: u64) -> String {
        let events = Value::from(events);
        let entropy: String = hex(&format!("{first} {last} {}", self.deliveries.len()))
            .to_uppercase()
            .chars()
            .take(20)
            .collect();
        format!(
            "{{\"events\":{events},\"firstEventSequence\": {first},\"lastEventSequence\": {last}, \"entropy\": \"{entropy}\"}}"
        )
    }

    fn push(&mut self, body: String, signature: String, expected: u16, now: DateTime<Utc>) {
        self.deliveries.push(Delivery {
            id: self.deliveries.len() as u64 + 1,
            url: self.subscription.url.clone(),
            body,
            signature,
            expected,
            answers: Vec::new(),
            done: false,
            due: now,
            until: now + TimeDelta::hours(24),
            under_way: false,
        });
    }

    /// The intent to receive: of these bodies the address must accept those that are signed well and
    /// refuse the others.
    pub fn handshake(&mut self, now: DateTime<Utc>) -> Vec<u64> {
        let before = self.deliveries.len();
        for good in [true, false, true, false] {
            let body = self.body(&[], 0, 0);
            let key = &self.subscription.key;
            let key = if good { key.clone() } else { format!("{key}x") };
            let signature = sign(&key, &body);
            self.push(body, signature, if good { 200 } else { 401 }, now);
        }
        let made = self.deliveries[before..].iter();
        made.map(|delivery| delivery.id).collect()
    }

    pub fn all(&self) -> &[Delivery] {
        &self.deliveries
    }

    /// Takes those that have to be sent now.
    pub fn due(&mut self, now: DateTime<Utc>) -> Vec<Delivery> {
        if self.subscription.paused {
            return Vec::new();
        }
        let waiting = |one: &&mut Delivery| !one.done && !one.under_way && one.due <= now;
        let mut due: Vec<Delivery> = self
            .deliveries
            .iter_mut()
            .filter(waiting)
            .map(|one| {
                one.under_way = true;
                one.clone()
            })
            .collect();
        if self.subscription.reverse {
            due.reverse();
        }
        due
    }

    /// Notes what came of one: the status of an answer with an empty body, or nothing. It is sent
    /// again every 15 minutes for a day, unless it was a test of the handshake.
    pub fn told(&mut self, id: u64, answer: Option<u16>, now: DateTime<Utc>) {
        let Some(one) = self.deliveries.iter_mut().find(|one| one.id == id) else {
            return;
        };
        one.answers.push(answer);
        one.under_way = false;
        let handshake = one.body.starts_with("{\"events\":[]");
        one.done = handshake || answer == Some(one.expected) || now >= one.until;
        // The second attempt follows at once.
        let wait = if one.answers.len() < 2 { 0 } else { 15 };
        one.due = now + TimeDelta::minutes(wait);
    }
}
