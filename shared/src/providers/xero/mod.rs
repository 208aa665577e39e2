//! Xero. Facts from <https://developer.xero.com/documentation/guides/oauth2/auth-flow>, its FAQ, and
//! `xero-identity.yaml` and `xero_accounting.yaml` of Xero's OpenAPI description. `settings` holds what
//! is read from an organisation, `map` the bodies, `fault` the shapes in which it says no.

mod changes;
mod fault;
mod list;
mod map;
mod settings;
mod taxes;
#[cfg(test)]
mod tests;
mod webhook;

use super::accounting::{
    Accounting, Dependency, DependencyKind, Document, Found, Outcomes, References, Written,
};
use super::changes::Changes;
use super::hooks::Hooks;
use super::{
    AccessLife, Account, Category, ClientAuth, CodeFlow, Consent, Credential, Credentials, Fault,
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, Tenant, json_answer,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::{Limits, Scope, Window};
use crate::sync::conflict::Seen;
use crate::sync::push::{Form, Remote};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::TimeDelta;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use settings::Settings;
use url::Url;

const HOSTS: Hosts = Hosts {
    authorize: "https://login.xero.com/identity/connect/authorize",
    token: "https://identity.xero.com/connect/token",
    // Giving back the token would end every connection of that user with the app, so one connection
    // is deleted instead.
    revoke: "https://api.xero.com/connections",
    api: "https://api.xero.com",
};

/// <https://developer.xero.com/faq/limits>: for each organisation 60 calls in a minute, 5,000 in a day and
/// 5 at once; for the application 10,000 in a minute. The starter tier has 1,000 in a day, which the
/// header tells.
const LIMITS: Limits = Limits {
    connection: Scope {
        windows: &[
            Window {
                calls: 60,
                span: TimeDelta::minutes(1),
                only: None,
                left: Some("x-minlimit-remaining"),
            },
            Window {
                calls: 5000,
                span: TimeDelta::days(1),
                only: None,
                left: Some("x-daylimit-remaining"),
            },
        ],
        seats: Some(5),
        pace: None,
    },
    app: Scope {
        windows: &[Window {
            calls: 10_000,
            span: TimeDelta::minutes(1),
            only: None,
            left: Some("x-appminlimit-remaining"),
        }],
        seats: None,
        pace: None,
    },
    pause: TimeDelta::minutes(1),
    problem: Some("x-rate-limit-problem"),
};

pub static MANIFEST: Manifest = Manifest {
    name: "xero",
    title: "Xero",
    category: Category::Accounting,
    production: HOSTS,
    // There is no other host: the user chooses a demo company.
    sandbox: HOSTS,
    credentials: &[
        Credential {
            member: "client_id",
            variable: "XERO_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "XERO_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_key",
            variable: "XERO_WEBHOOK_KEY",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &[
            "offline_access",
            "accounting.contacts",
            "accounting.invoices",
            "accounting.payments",
            "accounting.banktransactions",
            "accounting.settings.read",
        ],
        // Made for apps without a secret. Beside one, clients in wide use send it too, Nango's among them
        // (<https://github.com/NangoHQ/nango>); whether it is then checked, Xero does not say.
        pkce: true,
        client_auth: ClientAuth::Basic,
        // One organisation for each consent, so that a connection is one organisation.
        authorize_extra: &[("acr_values", "bulk_connect:false")],
        callback_parameters: &[],
        account_can_leave: true,
        grants_add_up: false,
        answer_members: &[],
        issuer: Some("https://identity.xero.com"),
        access: AccessLife::Answered(TimeDelta::minutes(30)),
        refresh: Refresh::Renewing {
            idle: Some(TimeDelta::days(60)),
            every: None,
            grace: Some(TimeDelta::minutes(30)),
        },
    }),
    api_domains: &[],
    shares_app_with: None,
    limits: LIMITS,
};

/// Xero advises at most about 50 elements in a request.
const ELEMENTS_MAX: usize = 50;
/// A `where` that names more makes an address that is too long.
const WHERE_NAMES_MAX: usize = 20;
/// Xero remembers an answer for six minutes; what somebody sets out to send again within two of them
/// arrives in time, though his clock be a minute behind that of whoever sent it first.
const REPLAY_WINDOW: TimeDelta = TimeDelta::minutes(2);

pub struct Xero;

/// The claim of the access token that names this consent among all of this user.
fn consent_event(grant: &Grant) -> Option<String> {
    // The token came from Xero over TLS, so its signature need not be checked to read a claim.
    let claims = grant.access.expose_secret().split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
    Some(claims["authentication_event_id"].as_str()?.to_owned())
}

impl Provider for Xero {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn accounting(&self) -> Option<&'static dyn Accounting> {
        Some(&Xero)
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn account_requests(&self, site: &Site, grant: &Grant) -> Vec<Request> {
        let mut url = site.api.clone();
        url.set_path("/connections");
        // Xero names the newest consent of this person to an organisation, so the consent is asked for
        // only where it says which organisation is meant.
        if grant.fact(super::TENANT).is_empty()
            && let Some(event) = consent_event(grant)
        {
            url.query_pairs_mut().append_pair("authEventId", &event);
        }
        vec![Request::new(Method::Get, url).header("accept", "application/json")]
    }

    fn read_account(
        &self,
        _: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault> {
        let [answer] = answers else {
            return Err(super::incomplete(MANIFEST.title));
        };
        let body = json_answer(MANIFEST.title, answer)?;
        let wanted = grant.fact(super::TENANT);
        let mut organisations = body
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| wanted.is_empty() || one["tenantId"] == wanted.as_str());
        let refused = |code: &str, detail: &str| {
            Err(Fault::Refused {
                code: code.to_owned(),
                detail: detail.to_owned(),
            })
        };
        let Some(one) = organisations.next() else {
            return refused(
                super::NO_ACCOUNT,
                "Xero gave access to no organisation; choose one",
            );
        };
        if organisations.next().is_some() {
            return refused(
                "several_organisations",
                "Xero gave access to several organisations at once; connect them one by one",
            );
        }
        let text = |name: &str| Some(one[name].as_str()?.to_owned());
        Ok(Account {
            id: text("tenantId").ok_or_else(|| super::incomplete(MANIFEST.title))?,
            name: text("tenantName"),
            api: None,
            reference: text("id"),
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        // Xero takes the organisation away from the application, whoever consented.
        if revocation.shared {
            return None;
        }
        let reference = revocation.account.reference.as_ref()?;
        let mut url = revocation.site.revoke.clone();
        url.path_segments_mut().ok()?.push(reference);
        let authorization = Authorization::Bearer(revocation.grant.access.clone());
        Some(Request::new(Method::Delete, url).authorized(authorization))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Basic,
        ))
    }
}

fn incomplete() -> Fault {
    super::incomplete(MANIFEST.title)
}

fn url(tenant: &Tenant, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = tenant.api.clone();
    url.set_path(&format!("/api.xro/2.0/{path}"));
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

/// Whether Xero's document gives a parameter to what is at `path`: what it does not know it may refuse one
/// day.
fn takes(path: &str, parameter: &str) -> bool {
    let place = path.split('/').next().unwrap_or_default();
    match parameter {
        "unitdp" => matches!(
            place,
            "BankTransactions" | "CreditNotes" | "Invoices" | "Items"
        ),
        "includeArchived" => matches!(place, "Contacts" | "Invoices"),
        // Items come all at once.
        "page" | "pageSize" => place != "Items",
        "summarizeErrors" => place != "BankTransfers",
        _ => true,
    }
}

/// A request with those of the parameters in `query` that its place takes.
fn request(method: Method, tenant: &Tenant, path: &str, query: &[(&str, &str)]) -> Request {
    let known = query.iter().filter(|(name, _)| takes(path, name));
    let query: Vec<(&str, &str)> = known.copied().collect();
    Request::new(method, url(tenant, path, &query))
        .header("accept", "application/json")
        .header("xero-tenant-id", &tenant.id)
}

/// A request whose answer tells what became of each element.
fn write(method: Method, tenant: &Tenant, path: &str, id: &str, body: String) -> Request {
    let query = [("summarizeErrors", "false"), ("unitdp", "4")];
    request(method, tenant, path, &query)
        .header("idempotency-key", id)
        .body("application/json", body)
}

/// Parses a success, or tells the fault.
fn answer(response: &Response) -> Result<Value, Fault> {
    if !response.is_success() {
        return Err(fault::read(response));
    }
    serde_json::from_slice(&response.body).map_err(|_| incomplete())
}

/// The elements of an answer.
fn elements<'a>(body: &'a Value, name: &str) -> Result<&'a Vec<Value>, Fault> {
    body[name].as_array().ok_or_else(incomplete)
}

/// The address of a form, which is also the member of its body, and the member that holds an id.
const fn place(form: Form) -> (&'static str, &'static str) {
    match form {
        Form::SalesReceipt | Form::Invoice => ("Invoices", "InvoiceID"),
        Form::RefundReceipt | Form::CreditNote => ("CreditNotes", "CreditNoteID"),
        Form::Payment | Form::RefundPayment => ("Payments", "PaymentID"),
        Form::BankTransfer => ("BankTransfers", "BankTransferID"),
        Form::BankTransaction => ("BankTransactions", "BankTransactionID"),
        // It names no bank account; transfers and bank transactions are used instead.
        Form::JournalEntry => ("ManualJournals", "ManualJournalID"),
    }
}

const fn dependency_place(kind: DependencyKind) -> (&'static str, &'static str) {
    match kind {
        DependencyKind::Customer => ("Contacts", "ContactID"),
        DependencyKind::Item => ("Items", "ItemID"),
    }
}

/// The id of an element. Xero has no versions; the moment of the last change stands for one, and of a
/// transfer, which never changes, that at which it was made.
fn remote(element: &Value, id: &str) -> Option<Remote> {
    let text = |name: &str| element[name].as_str().map(str::to_owned);
    let number = match id {
        "InvoiceID" => text("InvoiceNumber"),
        "CreditNoteID" => text("CreditNoteNumber"),
        _ => None,
    };
    Some(Remote {
        id: text(id)?,
        version: text("UpdatedDateUTC")
            .or_else(|| text("CreatedDateUTC"))
            .unwrap_or_default(),
        number,
        content: changes::content_of(element, id),
    })
}

fn written(element: &Value, id: &str) -> Result<Written, Fault> {
    if let Some(fault) = fault::of_element(element) {
        return Err(fault);
    }
    let total = match id {
        "PaymentID" | "BankTransferID" => &element["Amount"],
        _ => &element["Total"],
    };
    Ok(Written {
        remote: remote(element, id).ok_or_else(incomplete)?,
        total: total.to_string().parse().ok(),
    })
}

/// Whether a document has `number`, or one that followed it when it was made anew. A copy that somebody
/// made there bears our mark too. Payments have no numbers.
fn numbered(element: &Value, path: &str, number: &str) -> bool {
    let member = match path {
        "Invoices" => "InvoiceNumber",
        "CreditNotes" => "CreditNoteNumber",
        _ => return true,
    };
    let own = element[member].as_str();
    let rest = own.and_then(|own| own.strip_prefix(number));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// `field` is one of `values`, in the language of `where`.
fn one_of<'a>(field: &str, values: impl Iterator<Item = &'a str>) -> String {
    let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
    let tests = values.map(|value| format!("{field}==\"{}\"", quoted(value)));
    tests.collect::<Vec<_>>().join(" OR ")
}

impl Accounting for Xero {
    fn missing(&self) -> &'static str {
        fault::NOT_FOUND
    }

    fn order_forms(&self) -> &'static [Form] {
        &[Form::Invoice]
    }

    fn refund_forms(&self) -> &'static [Form] {
        &[Form::CreditNote, Form::RefundPayment]
    }

    fn payout_forms(&self) -> &'static [Form] {
        &[Form::BankTransfer, Form::BankTransaction]
    }

    fn posts(&self, document: Document, settings: &Value) -> Result<bool, Fault> {
        map::posts(document, &Settings::of(settings)?)
    }

    fn gift_cards_pay(&self) -> bool {
        true
    }

    fn find_max(&self) -> usize {
        WHERE_NAMES_MAX
    }

    fn create_max(&self) -> usize {
        ELEMENTS_MAX
    }

    fn settings_requests(&self, tenant: &Tenant) -> Vec<Request> {
        ["Organisation", "Accounts", "TaxRates", "Currencies"]
            .map(|path| request(Method::Get, tenant, path, &[]))
            .into()
    }

    fn read_settings(&self, answers: &[Response]) -> Result<Value, Fault> {
        let [organisation, accounts, rates, currencies] = answers else {
            return Err(incomplete());
        };
        let (organisation, accounts) = (answer(organisation)?, answer(accounts)?);
        let (rates, currencies) = (answer(rates)?, answer(currencies)?);
        let settings = Settings::read(&organisation, &accounts, &rates, &currencies)?;
        serde_json::to_value(settings).map_err(|_| incomplete())
    }

    fn dependencies(&self, document: Document, settings: &Value) -> Result<Vec<Dependency>, Fault> {
        map::dependencies(document, &Settings::of(settings)?)
    }

    fn find(&self, tenant: &Tenant, kind: DependencyKind, wanted: &[&Dependency]) -> Request {
        let (path, _) = dependency_place(kind);
        match kind {
            DependencyKind::Customer => {
                let marks = wanted.iter().filter_map(|one| one.mark.as_deref());
                let named = wanted.iter().filter(|one| one.mark.is_none());
                let names = named.flat_map(|one| &one.names).map(String::as_str);
                let filter = [one_of("ContactNumber", marks), one_of("Name", names)];
                let filter = filter.into_iter().filter(|part| !part.is_empty());
                let filter = filter.collect::<Vec<_>>().join(" OR ");
                // One that was archived is not made a second time; Xero says so when it is used.
                let query = [
                    ("where", &filter[..]),
                    ("includeArchived", "true"),
                    ("page", "1"),
                    ("pageSize", "100"),
                ];
                request(Method::Get, tenant, path, &query)
            }
            DependencyKind::Item => {
                let names = wanted.iter().flat_map(|one| &one.names);
                let filter = one_of("Code", names.map(String::as_str));
                request(Method::Get, tenant, path, &[("where", &filter[..])])
            }
        }
    }

    fn read_found(&self, kind: DependencyKind, response: &Response) -> Result<Vec<Found>, Fault> {
        let body = answer(response)?;
        let (path, id) = dependency_place(kind);
        let name = match kind {
            DependencyKind::Customer => "Name",
            DependencyKind::Item => "Code",
        };
        let found = elements(&body, path)?.iter().map(|element| {
            Some(Found {
                name: element[name].as_str()?.to_owned(),
                remote: remote(element, id)?,
                mark: element["ContactNumber"].as_str().map(str::to_owned),
                fits: true,
            })
        });
        found.map(|found| found.ok_or_else(incomplete)).collect()
    }

    fn same_name(&self, one: &str, other: &str) -> bool {
        one.to_lowercase() == other.to_lowercase()
    }

    fn is(&self, dependency: &Dependency, found: &Found) -> bool {
        match dependency.kind {
            // Whatever people made of the name meanwhile.
            DependencyKind::Customer if dependency.mark.is_some() => dependency.mark == found.mark,
            DependencyKind::Customer => {
                let named = |name: &String| self.same_name(name, &found.name);
                dependency.names.iter().any(named)
            }
            DependencyKind::Item => self.same_name(&dependency.key, &found.name),
        }
    }

    fn create(&self, tenant: &Tenant, request_id: &str, wanted: &[(&Dependency, &str)]) -> Request {
        let kind = wanted
            .first()
            .map_or(DependencyKind::Item, |(one, _)| one.kind);
        let (path, _) = dependency_place(kind);
        let body = |(dependency, name): &(&Dependency, &str)| {
            let mut body = dependency.body.clone();
            match kind {
                DependencyKind::Customer => {
                    body["Name"] = json!(name);
                    if let Some(mark) = &dependency.mark {
                        body["ContactNumber"] = json!(mark);
                    }
                }
                DependencyKind::Item => body["Code"] = json!(name),
            }
            body
        };
        let bodies: Vec<Value> = wanted.iter().map(body).collect();
        // Never POST, which would change whatever has that name.
        write(
            Method::Put,
            tenant,
            path,
            request_id,
            json!({ path: bodies }).to_string(),
        )
    }

    fn read_created(
        &self,
        wanted: &[(&Dependency, &str)],
        response: &Response,
    ) -> Result<Vec<Result<Remote, Fault>>, Fault> {
        let kind = wanted
            .first()
            .map_or(DependencyKind::Item, |(one, _)| one.kind);
        let (path, id) = dependency_place(kind);
        let body = answer(response)?;
        let made = elements(&body, path)?;
        if made.len() != wanted.len() {
            return Err(incomplete());
        }
        let outcome = |element: &Value| match fault::of_element(element) {
            Some(fault) => Err(fault),
            None => remote(element, id).ok_or_else(incomplete),
        };
        Ok(made.iter().map(outcome).collect())
    }

    fn body(
        &self,
        document: Document,
        references: &References,
        on: Option<&str>,
        settings: &Value,
    ) -> Result<Value, Fault> {
        map::body(document, references, on, &Settings::of(settings)?)
    }

    fn essence(&self, document: Document, body: &Value, _: &References) -> Value {
        map::essence(document, body)
    }

    fn renumber(&self, _: Form, times: u32, body: &mut Value) {
        // A void invoice keeps its number, and nobody can change it any more.
        for member in ["InvoiceNumber", "CreditNoteNumber"] {
            if let Some(number) = body[member].as_str() {
                let number = format!("{number}-{}", times.saturating_add(1));
                body[member] = json!(number);
            }
        }
    }

    fn is_fixed(&self, form: Form) -> bool {
        // A payment or a transfer can only be deleted.
        matches!(
            form,
            Form::Payment | Form::RefundPayment | Form::BankTransfer
        )
    }

    fn write_max(&self, form: Form) -> usize {
        match form {
            // Of several that are made it is not told which ones were, where one is refused: Xero's
            // document has `summarizeErrors` where transfers are deleted alone.
            Form::BankTransfer => 1,
            _ => ELEMENTS_MAX,
        }
    }

    fn write_body(&self, form: Form, documents: &[(Value, Option<Remote>)]) -> String {
        let (path, id) = place(form);
        let whole = |(body, remote): &(Value, Option<Remote>)| {
            let mut body = body.clone();
            if let Some(remote) = remote {
                // Lines without their ids take the place of those that stand there.
                body[id] = json!(remote.id);
            }
            body
        };
        let bodies: Vec<Value> = documents.iter().map(whole).collect();
        json!({ path: bodies }).to_string()
    }

    fn write(
        &self,
        tenant: &Tenant,
        id: &str,
        form: Form,
        update: bool,
        _count: usize,
        body: String,
    ) -> Request {
        // PUT makes and never overwrites; POST changes what it names.
        let method = if update { Method::Post } else { Method::Put };
        write(method, tenant, place(form).0, id, body)
    }

    fn read_written(
        &self,
        form: Form,
        count: usize,
        response: &Response,
    ) -> Result<Outcomes, Fault> {
        let (path, id) = place(form);
        let body = answer(response)?;
        let made = elements(&body, path)?;
        if made.len() != count {
            return Err(incomplete());
        }
        Ok(made.iter().map(|element| written(element, id)).collect())
    }

    fn replay_window(&self) -> Option<TimeDelta> {
        Some(REPLAY_WINDOW)
    }

    fn find_document(&self, tenant: &Tenant, document: Document) -> Option<Request> {
        let (path, _) = place(document.form());
        // By its mark, since what is made anew has another number.
        let filter = one_of("Reference", [&document.mark()[..]].into_iter());
        Some(request(
            Method::Get,
            tenant,
            path,
            &[("where", &filter[..])],
        ))
    }

    fn read_found_document(
        &self,
        document: Document,
        response: &Response,
    ) -> Result<Option<Remote>, Fault> {
        let (path, id) = place(document.form());
        let body = answer(response)?;
        let mark = document.mark();
        let number = map::document_number(document);
        let ours = elements(&body, path)?.iter().find(|one| {
            let gone = matches!(one["Status"].as_str(), Some("DELETED" | "VOIDED"));
            let marked = one["Reference"] == mark.as_str();
            marked && !gone && numbered(one, path, &number)
        });
        ours.map(|one| remote(one, id).ok_or_else(incomplete))
            .transpose()
    }

    fn read(&self, tenant: &Tenant, form: Form, remote: &Remote) -> Request {
        let path = format!("{}/{}", place(form).0, remote.id);
        request(Method::Get, tenant, &path, &[("unitdp", "4")])
    }

    fn read_back(&self, form: Form, response: &Response) -> Result<Seen, Fault> {
        let kind = self.changes().kind_of(form);
        let body = answer(response)?;
        let element = elements(&body, place(form).0)?.first();
        element
            .and_then(|one| changes::seen(kind, one))
            .ok_or_else(incomplete)
    }

    fn changes(&self) -> &'static dyn Changes {
        &changes::XeroChanges
    }
}
