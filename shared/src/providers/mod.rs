//! The providers. Each is one folder: a [`Manifest`] as data, a [`Provider`] implementation for what
//! data cannot say about connecting, and one trait more for what the provider is used for. They only
//! build requests and read responses. Nothing here can send.

pub mod accounting;
pub mod accounts;
pub mod certificate;
pub mod changes;
pub mod hooks;
pub mod hubspot;
pub mod mailchimp;
pub mod paypal;
pub mod quickbooks;
pub mod salesforce;
pub mod sendgrid;
pub mod square;
pub mod square_loyalty;
pub mod stripe;
pub mod taxed;
pub mod voucherify;
pub mod xero;

#[cfg(test)]
mod tests;

use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::Limits;
use accounting::Accounting;
use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use url::{Host, Url};

/// What a provider is for. The words stand in the paths of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    Accounting,
    Crm,
    EmailMarketing,
    Payments,
    Loyalty,
}

impl Category {
    pub const ALL: [Category; 5] = [
        Category::Accounting,
        Category::Crm,
        Category::EmailMarketing,
        Category::Payments,
        Category::Loyalty,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Category::Accounting => "accounting",
            Category::Crm => "crm",
            Category::EmailMarketing => "email-marketing",
            Category::Payments => "payments",
            Category::Loyalty => "loyalty",
        }
    }

    /// The variable that switches the whole category on or off.
    pub const fn switch(self) -> &'static str {
        match self {
            Category::Accounting => "ENABLE_ACCOUNTING_SYNC",
            Category::Crm => "ENABLE_CRM_SYNC",
            Category::EmailMarketing => "ENABLE_EMAIL_MARKETING",
            Category::Payments => "ENABLE_ADDITIONAL_PAYMENTS",
            Category::Loyalty => "ENABLE_LOYALTY_INTEGRATION",
        }
    }

    pub fn parse(text: &str) -> Option<Category> {
        Category::ALL.into_iter().find(|c| c.as_str() == text)
    }
}

/// The addresses of one environment of a provider.
#[derive(Debug, Clone, Copy)]
pub struct Hosts {
    /// The consent page. Empty where keys are pasted instead.
    pub authorize: &'static str,
    pub token: &'static str,
    /// Where a grant is given back. Empty where that cannot be done.
    pub revoke: &'static str,
    pub api: &'static str,
}

/// A provider as data: what a table can say about it, with the source of each fact in its folder.
#[derive(Debug)]
pub struct Manifest {
    /// As it stands in paths, secrets and variables.
    pub name: &'static str,
    pub title: &'static str,
    pub category: Category,
    pub production: Hosts,
    pub sandbox: Hosts,
    /// What the platform itself needs to be known to the provider.
    pub credentials: &'static [Credential],
    pub consent: Consent,
    /// Domains on which the provider may place a tenant's API, where that is told at the connect, or a
    /// certificate by which it signs.
    pub api_domains: &'static [&'static str],
    /// Another provider of the registry that may use the same application, so that giving a grant
    /// back would take the other's along.
    pub shares_app_with: Option<&'static str>,
    /// How much it may be called.
    pub limits: Limits,
}

/// One member of the provider's secret and the variable from which it is set up.
#[derive(Debug)]
pub struct Credential {
    pub member: &'static str,
    pub variable: &'static str,
    pub required: bool,
}

/// How a merchant lets us in.
#[derive(Debug)]
pub enum Consent {
    /// OAuth 2 with an authorization code (RFC 6749 §4.1).
    Code(CodeFlow),
    /// Keys that the merchant pastes once.
    Keys(&'static [KeyField]),
}

/// What a table can say of a provider's OAuth.
#[derive(Debug)]
pub struct CodeFlow {
    pub scopes: &'static [&'static str],
    /// Whether the provider takes a PKCE challenge (RFC 7636, S256) beside the client's secret.
    pub pkce: bool,
    pub client_auth: ClientAuth,
    /// Further parameters of the consent page.
    pub authorize_extra: &'static [(&'static str, &'static str)],
    /// Parameters of the callback that are kept beside the tokens.
    pub callback_parameters: &'static [&'static str],
    /// Members of the token answer that are kept beside the tokens, each time anew.
    pub answer_members: &'static [&'static str],
    /// The `iss` of the callback (RFC 9207), where the provider publishes an issuer. Where one comes,
    /// it must be this.
    pub issuer: Option<&'static str>,
    pub access: AccessLife,
    pub refresh: Refresh,
    /// Whether an account can be taken out of a grant that lives on.
    pub account_can_leave: bool,
    /// Whether each consent leaves a grant of its own over there, which lives until it is given back.
    pub grants_add_up: bool,
}

/// How the client proves itself to the token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic (RFC 6749 §2.3.1).
    Basic,
    /// `client_id` and `client_secret` in the form.
    Form,
    /// The same members in a JSON body.
    Json,
    /// The platform's secret key as a bearer token.
    Bearer,
}

/// How long an access token is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLife {
    /// As the answer says, else this long.
    Answered(TimeDelta),
    /// Until the merchant takes it back.
    Endless,
}

/// What refresh tokens do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresh {
    /// There are none, or none is needed.
    None,
    Renewing {
        /// A refresh token that is not used for so long dies.
        idle: Option<TimeDelta>,
        /// The vendor's advice: at least once in this time.
        every: Option<TimeDelta>,
        /// For so long the token before the newest still works, so that a lost answer does no harm.
        grace: Option<TimeDelta>,
    },
}

/// One field of the form in which a merchant pastes keys.
#[derive(Debug)]
pub struct KeyField {
    pub name: &'static str,
    pub label: &'static str,
    /// Where to find it, for people.
    pub hint: &'static str,
    /// The values to choose from; empty for free text.
    pub choices: &'static [&'static str],
    pub secret: bool,
}

/// Where one environment of a provider is.
#[derive(Debug, Clone)]
pub struct Site {
    pub authorize: Url,
    pub token: Url,
    pub revoke: Url,
    pub api: Url,
    /// The stand-in that serves everything, if this is one.
    stand_in: Option<Url>,
    domains: &'static [&'static str],
}

impl Site {
    /// Judges the address of a tenant's API that came with an answer, or of a certificate: it must be the provider's own,
    /// because tokens are sent there, or
    /// believed what it says.
    pub fn admits(&self, api: &Url) -> bool {
        if let Some(base) = &self.stand_in {
            return api.origin() == base.origin();
        }
        let host = api.host_str().unwrap_or_default();
        let within = |domain: &&str| {
            host == *domain
                || host
                    .strip_suffix(*domain)
                    .is_some_and(|rest| rest.ends_with('.'))
        };
        api.scheme() == "https" && api.port().is_none() && self.domains.iter().any(within)
    }

    /// The address of a part of the provider that has a host of its own, `path` included.
    pub fn at(&self, url: &str) -> Option<Url> {
        moved(url, self.stand_in.as_ref())
    }
}

/// Whether `url` can be a stand-in's: one on this machine. What stands elsewhere would be sent the
/// platform's secrets and merchants' tokens. And a misspelt word before a colon is a URL too.
fn is_stand_in(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    loopback && matches!(url.scheme(), "https" | "http")
}

/// `url`, or its path at the stand-in.
fn moved(url: &str, stand_in: Option<&Url>) -> Option<Url> {
    let Some(base) = stand_in else {
        return url.parse().ok();
    };
    let url: Url = url.parse().ok()?;
    let mut moved = base.clone();
    moved.set_path(url.path());
    moved.set_query(url.query());
    Some(moved)
}

impl Manifest {
    /// Finds the addresses of `environment`: `production`, `sandbox`, or the base URL of a stand-in
    /// on this machine, which serves every path of the vendor on one origin. `None` when it is none of
    /// these.
    pub fn site(&self, environment: &str) -> Option<Site> {
        let hosts = match environment {
            "sandbox" => &self.sandbox,
            _ => &self.production,
        };
        let stand_in: Option<Url> = match environment {
            "production" | "sandbox" => None,
            base => Some(base.parse().ok().filter(is_stand_in)?),
        };
        // What a provider lacks is never asked for; its API's address is as good as any.
        let or_api = |url: &'static str| if url.is_empty() { hosts.api } else { url };
        Some(Site {
            authorize: moved(or_api(hosts.authorize), stand_in.as_ref())?,
            token: moved(or_api(hosts.token), stand_in.as_ref())?,
            revoke: moved(or_api(hosts.revoke), stand_in.as_ref())?,
            api: moved(hosts.api, stand_in.as_ref())?,
            stand_in,
            domains: self.api_domains,
        })
    }

    /// The variable that says which environment is meant when the provider is set up.
    pub fn environment_variable(&self) -> String {
        format!("{}_ENVIRONMENT", self.name.to_uppercase())
    }

    /// The scopes that are asked for.
    pub fn scopes(&self) -> &'static [&'static str] {
        match &self.consent {
            Consent::Code(flow) => flow.scopes,
            Consent::Keys(_) => &[],
        }
    }

    /// The OAuth half, if the provider has one.
    pub fn code_flow(&self) -> Option<&CodeFlow> {
        match &self.consent {
            Consent::Code(flow) => Some(flow),
            Consent::Keys(_) => None,
        }
    }
}

/// The platform's own credentials at one provider, and where that provider is: the members of one
/// secret.
#[derive(Debug, Clone, Deserialize)]
pub struct Credentials {
    /// `production`, `sandbox`, or the base URL of a stand-in on this machine.
    #[serde(default = "production")]
    pub environment: String,
    #[serde(flatten)]
    members: BTreeMap<String, SecretString>,
}

fn production() -> String {
    "production".to_owned()
}

impl Credentials {
    /// One member; `None` when it is absent or empty.
    pub fn get(&self, member: &str) -> Option<&SecretString> {
        self.members
            .get(member)
            .filter(|value| !value.expose_secret().is_empty())
    }

    /// A member that is no secret.
    pub fn text(&self, member: &str) -> &str {
        self.get(member).map_or("", |value| value.expose_secret())
    }
}

/// What a merchant's consent gave: tokens, or the keys that were pasted.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The access token, or the one key where there is only one.
    pub access: SecretString,
    pub refresh: Option<SecretString>,
    /// The keys that were pasted, by field.
    pub keys: BTreeMap<String, SecretString>,
    /// What came beside the tokens and is no secret: parameters of the callback and members of the
    /// token answer.
    pub facts: BTreeMap<String, Value>,
}

impl Grant {
    /// A fact as text; empty when it is absent.
    pub fn fact(&self, name: &str) -> String {
        match self.facts.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        }
    }

    /// A pasted key; empty when it is absent.
    pub fn key(&self, name: &str) -> SecretString {
        self.keys.get(name).cloned().unwrap_or_default()
    }
}

/// The account that a grant reaches, as a provider told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub id: String,
    pub name: Option<String>,
    /// Where its API is, if that differs from account to account.
    pub api: Option<Url>,
    /// What giving the grant back needs beside the tokens.
    pub reference: Option<String>,
}

/// A provider, as far as connecting goes: builds requests, reads responses.
pub trait Provider: Send + Sync {
    fn manifest(&self) -> &'static Manifest;

    /// What it is asked for as an accounting system, if it is one.
    fn accounting(&self) -> Option<&'static dyn Accounting> {
        None
    }

    /// Adds the proof that `grant` gives to a request of the provider's API.
    fn authorize(&self, request: Request, grant: &Grant) -> Request {
        Request {
            authorization: Authorization::Bearer(grant.access.clone()),
            ..request
        }
    }

    /// Whether `id` can be an account's, as far as its form tells.
    fn is_account_id(&self, id: &str) -> bool {
        let _ = id;
        true
    }

    /// The calls that tell which account `grant` reaches, and prove that it does: what came with a
    /// browser proves nothing. `authorize` is applied to each by the caller.
    fn account_requests(&self, site: &Site, grant: &Grant) -> Vec<Request>;

    /// Reads their answers, in the same order.
    fn read_account(
        &self,
        site: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault>;

    /// The word of RFC 6749 §5.2 for a refusal of the token endpoint that has another shape. A refusal of
    /// the number of calls, and trouble over there, say nothing about a grant: no word counts then.
    fn token_error(&self, status: u16, answer: &Value) -> Option<&'static str> {
        let _ = (status, answer);
        None
    }

    /// The call that gives the grant back, with its own proof. `None` where the provider has none:
    /// then only the merchant can take it back, over there.
    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        let _ = revocation;
        None
    }

    /// How the provider's webhooks are read. `None` for one that sends none, or none that we need.
    fn hooks(&self) -> Option<&'static dyn hooks::Hooks> {
        None
    }

    /// The call that shows whether `credentials` are known to the provider, without any merchant.
    /// `None` where the platform needs none.
    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request>;

    /// Judges the answer to it. Only a success, or a refusal of nothing but the grant that nobody has,
    /// proves that the provider knows the platform.
    fn read_credentials(&self, answer: &Response) -> Result<(), Fault> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let word = body["error"]
            .as_str()
            .or_else(|| self.token_error(answer.status, &body));
        judge_credentials(self.manifest().title, answer, word)
    }
}

/// Judges an answer to [`Provider::credentials_request`] of which the word of RFC 6749 §5.2, or the
/// provider's own, is known.
fn judge_credentials(title: &str, answer: &Response, word: Option<&str>) -> Result<(), Fault> {
    match (answer.status, word) {
        (429, _) => json_answer(title, answer).map(drop),
        (400..=499, Some("invalid_grant")) => Ok(()),
        (400..=499, Some(word)) => {
            // Whatever it says is shown to a person, so it is kept to the length of a word.
            let graphic = word.chars().filter(char::is_ascii_graphic);
            let code: String = graphic.take(64).collect();
            Err(Fault::Refused {
                detail: format!("{title} answered {code}"),
                code,
            })
        }
        _ => json_answer(title, answer).map(drop),
    }
}

fn incomplete(title: &str) -> Fault {
    Fault::Later {
        detail: format!("{title} sent an answer that is not complete"),
    }
}

/// A request to the token endpoint with a token that nobody has: a provider that knows the client
/// answers `invalid_grant`, one that does not answers otherwise.
fn unknown_refresh_token(site: &Site, credentials: &Credentials, auth: ClientAuth) -> Request {
    token_request(
        site,
        credentials,
        auth,
        &[("grant_type", "refresh_token"), ("refresh_token", "none")],
    )
}

/// The same where there are no refresh tokens. The redirect URI is one that a code could have, since a
/// request without any may be refused for that alone.
fn unknown_code(site: &Site, credentials: &Credentials) -> Request {
    let members = [
        ("grant_type", "authorization_code"),
        ("code", "none"),
        ("redirect_uri", "https://localhost/"),
    ];
    token_request(site, credentials, ClientAuth::Form, &members)
}

fn token_request(
    site: &Site,
    credentials: &Credentials,
    auth: ClientAuth,
    members: &[(&str, &str)],
) -> Request {
    let (id, secret) = (
        credentials.text("client_id"),
        credentials.text("client_secret"),
    );
    let request =
        Request::new(Method::Post, site.token.clone()).header("accept", "application/json");
    let mut members = members.to_vec();
    match auth {
        ClientAuth::Basic => {
            let authorization = Authorization::Basic {
                user: id.to_owned(),
                password: SecretString::from(secret),
            };
            request.authorized(authorization).form(&members)
        }
        ClientAuth::Bearer => request
            .authorized(Authorization::Bearer(SecretString::from(secret)))
            .form(&members),
        ClientAuth::Form => {
            members.extend([("client_id", id), ("client_secret", secret)]);
            request.form(&members)
        }
        ClientAuth::Json => {
            members.extend([("client_id", id), ("client_secret", secret)]);
            let body: BTreeMap<&str, &str> = members.into_iter().collect();
            request.body("application/json", json!(body).to_string())
        }
    }
}

/// What giving a grant back takes.
pub struct Revocation<'a> {
    pub site: &'a Site,
    pub credentials: &'a Credentials,
    pub grant: &'a Grant,
    pub account: &'a Account,
    /// Another connection lives on the same grant: only what is this connection's own may go.
    pub shared: bool,
}

/// Judges an answer to a call for the account: the JSON of a success, or why not.
pub fn json_answer(title: &str, answer: &Response) -> Result<Value, Fault> {
    let later = |detail: String| Fault::Later { detail };
    match answer.status {
        200..=299 => serde_json::from_slice(&answer.body)
            .map_err(|_| later(format!("{title} sent an answer that cannot be read"))),
        401 => Err(Fault::Unauthorized),
        429 => Err(later(format!("{title} takes no more requests for a while"))),
        400..=499 => Err(Fault::Refused {
            code: format!("status_{}", answer.status),
            detail: format!("{title} refused with status {}", answer.status),
        }),
        status => Err(later(format!("{title} answered with status {status}"))),
    }
}

/// The company that is connected, as the requests need it.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub api: Url,
    pub id: String,
}

/// Why a provider did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It may work later: throttling, maintenance, a broken answer.
    Later { detail: String },
    /// The access token is not accepted.
    Unauthorized,
    /// Somebody changed the thing since it was read.
    Stale,
    /// The name belongs to something else.
    NameTaken,
    /// It will not work until somebody changes something.
    Refused { code: String, detail: String },
}

/// The fact of a grant that says which of several accounts is meant, where a person told it.
pub const TENANT: &str = "tenant_id";

/// The code of a refusal which says that a grant is good, but reaches no account, or no longer.
pub const NO_ACCOUNT: &str = "no_account";

/// Every provider. Their order also is the order of the stand-ins' ports.
pub const PROVIDERS: &[&dyn Provider] = &[
    &quickbooks::QuickBooks,
    &xero::Xero,
    &salesforce::Salesforce,
    &hubspot::HubSpot,
    &mailchimp::Mailchimp,
    &sendgrid::SendGrid,
    &stripe::Stripe,
    &paypal::PayPal,
    &square::Square,
    &square_loyalty::SquareLoyalty,
    &voucherify::Voucherify,
];

/// Finds a provider by its name in paths.
pub fn provider(name: &str) -> Option<&'static dyn Provider> {
    PROVIDERS
        .iter()
        .copied()
        .find(|provider| provider.manifest().name == name)
}
