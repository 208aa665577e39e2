//! QuickBooks Online (Accounting API v3, minor version 75). `settings` holds what is read from a company,
//! `map` the bodies, `fault` the three shapes in which it says no.

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
    Grant, Hosts, Manifest, Provider, Refresh, Revocation, Site, Tenant,
};
use crate::model::http::{Authorization, Method, Request, Response};
use crate::sync::budget::{Limits, Scope, Window};
use crate::sync::conflict::Seen;
use crate::sync::push::{Form, Remote};
use chrono::TimeDelta;
use rust_decimal::Decimal;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use settings::Settings;
use url::Url;

/// Since August 2025 this version is used whatever is asked for
/// (<https://developer.intuit.com/app/developer/qbo/docs/learn/explore-the-quickbooks-online-api/minor-versions>).
const MINOR_VERSION: &str = "75";
/// Intuit recommends at most 30 (limits and throttles).
const BATCH_MAX: usize = 30;

/// <https://help.developer.intuit.com/s/article/Rate-limits-and-throttling>: for each company 500 calls
/// and 40 batches in a minute, 10 calls in a second. No limit of the application is told. Ten seats of
/// one call in a second are ten calls in any second, however the seconds are counted; at a fifth more
/// they make the 500 calls of a minute, and a call may be that much later to arrive than the one before.
const LIMITS: Limits = Limits {
    connection: Scope {
        windows: &[
            Window {
                calls: 500,
                span: TimeDelta::minutes(1),
                only: None,
                left: None,
            },
            Window {
                calls: 40,
                span: TimeDelta::minutes(1),
                only: Some("/batch"),
                left: None,
            },
        ],
        seats: Some(10),
        pace: Some(TimeDelta::milliseconds(1200)),
    },
    app: Scope::FREE,
    // No Retry-After is promised; the page says to wait for a minute.
    pause: TimeDelta::minutes(1),
    problem: None,
};

/// Addresses and scopes from Intuit's OAuth client (`intuit/oauth-jsclient`) and
/// <https://developer.intuit.com/app/developer/qbo/docs/develop/authentication-and-authorization>.
pub static MANIFEST: Manifest = Manifest {
    name: "quickbooks",
    title: "QuickBooks Online",
    category: Category::Accounting,
    production: Hosts {
        authorize: "https://appcenter.intuit.com/connect/oauth2",
        token: "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        revoke: "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        api: "https://quickbooks.api.intuit.com",
    },
    // The sandbox shares the OAuth hosts; only the API's host differs.
    sandbox: Hosts {
        authorize: "https://appcenter.intuit.com/connect/oauth2",
        token: "https://oauth.platform.intuit.com/oauth2/v1/tokens/bearer",
        revoke: "https://developer.api.intuit.com/v2/oauth2/tokens/revoke",
        api: "https://sandbox-quickbooks.api.intuit.com",
    },
    credentials: &[
        Credential {
            member: "client_id",
            variable: "QUICKBOOKS_CLIENT_ID",
            required: true,
        },
        Credential {
            member: "client_secret",
            variable: "QUICKBOOKS_CLIENT_SECRET",
            required: true,
        },
        // Without it, the provider's webhooks are refused.
        Credential {
            member: "webhook_verifier",
            variable: "QUICKBOOKS_WEBHOOK_VERIFIER",
            required: false,
        },
    ],
    consent: Consent::Code(CodeFlow {
        scopes: &["com.intuit.quickbooks.accounting"],
        // None of Intuit's own clients sends a challenge.
        pkce: false,
        client_auth: ClientAuth::Basic,
        authorize_extra: &[],
        callback_parameters: &["realmId"],
        account_can_leave: false,
        grants_add_up: false,
        answer_members: &[],
        issuer: Some("https://oauth.platform.intuit.com/op/v1"),
        access: AccessLife::Answered(TimeDelta::hours(1)),
        // The value changes about once a day; then the one before is dead at once.
        refresh: Refresh::Renewing {
            idle: Some(TimeDelta::days(100)),
            every: None,
            grace: None,
        },
    }),
    api_domains: &[],
    shares_app_with: None,
    limits: LIMITS,
};

pub struct QuickBooks;

/// Builds `/v3/company/{realm}/{path}?minorversion=75&…`.
fn url(tenant: &Tenant, path: &str, query: &[(&str, &str)]) -> Url {
    let mut url = tenant.api.clone();
    url.set_path(&format!("/v3/company/{}/{path}", tenant.id));
    url.query_pairs_mut()
        .clear()
        .extend_pairs(query)
        .append_pair("minorversion", MINOR_VERSION);
    url
}

fn get(tenant: &Tenant, path: &str) -> Request {
    Request::new(Method::Get, url(tenant, path, &[])).header("accept", "application/json")
}

fn post(tenant: &Tenant, path: &str, query: &[(&str, &str)], body: &Value) -> Request {
    Request::new(Method::Post, url(tenant, path, query))
        .header("accept", "application/json")
        .body("application/json", body.to_string())
}

fn query(tenant: &Tenant, statement: &str) -> Request {
    Request::new(Method::Post, url(tenant, "query", &[]))
        .header("accept", "application/json")
        .body("application/text", statement)
}

/// A text within a statement, with its quotes escaped.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn entity(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Customer => "Customer",
        DependencyKind::Item => "Item",
    }
}

fn name_field(kind: DependencyKind) -> &'static str {
    match kind {
        DependencyKind::Customer => "DisplayName",
        DependencyKind::Item => "Name",
    }
}

fn form_entity(form: Form) -> &'static str {
    match form {
        Form::SalesReceipt => "SalesReceipt",
        Form::Invoice => "Invoice",
        Form::Payment => "Payment",
        Form::RefundReceipt => "RefundReceipt",
        Form::CreditNote => "CreditMemo",
        // Money that goes back for a credit memo; refund receipts are used instead.
        Form::RefundPayment => "Purchase",
        Form::JournalEntry => "JournalEntry",
        // Journal entries are used instead.
        Form::BankTransfer => "Transfer",
        Form::BankTransaction => "Deposit",
    }
}

/// The id, version and number of an entity in an answer.
fn remote(entity: &Value) -> Option<Remote> {
    Some(Remote {
        id: entity["Id"].as_str()?.to_owned(),
        version: entity["SyncToken"].as_str()?.to_owned(),
        number: entity["DocNumber"].as_str().map(str::to_owned),
        content: Some(changes::content_of(entity)),
    })
}

/// A document in an answer, with the total that it has there.
fn written(entity: &Value) -> Result<Written, Fault> {
    Ok(Written {
        remote: remote(entity).ok_or_else(incomplete)?,
        total: total(entity),
    })
}

/// The total of a document. That of a journal entry is not always told: it is what its debits make.
fn total(entity: &Value) -> Option<Decimal> {
    let lines = entity["Line"].as_array().into_iter().flatten();
    let mut posted = lines.filter(|line| line["DetailType"] == "JournalEntryLineDetail");
    let Some(first) = posted.next() else {
        return entity["TotalAmt"].to_string().parse().ok();
    };
    let debit = |line: &Value| match line["JournalEntryLineDetail"]["PostingType"].as_str() {
        Some("Debit") => line["Amount"].to_string().parse().ok(),
        _ => Some(Decimal::ZERO),
    };
    std::iter::once(first).chain(posted).map(debit).sum()
}

fn incomplete() -> Fault {
    Fault::Later {
        detail: "QuickBooks sent an answer that is not complete".to_owned(),
    }
}

/// Parses a success, or tells the fault. A fault may come with status 200.
fn answer(response: &Response) -> Result<Value, Fault> {
    let body: Option<Value> = serde_json::from_slice(&response.body).ok();
    let faulty = body
        .as_ref()
        .is_some_and(|b| b.get("Fault").is_some() || b.get("fault").is_some());
    if !response.is_success() || faulty {
        return Err(fault::read(response.status, &response.body));
    }
    body.ok_or_else(incomplete)
}

impl Provider for QuickBooks {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn accounting(&self) -> Option<&'static dyn Accounting> {
        Some(&QuickBooks)
    }

    fn hooks(&self) -> Option<&'static dyn Hooks> {
        Some(&webhook::Webhooks)
    }

    fn is_account_id(&self, id: &str) -> bool {
        id.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn account_requests(&self, site: &Site, grant: &Grant) -> Vec<Request> {
        let tenant = Tenant {
            api: site.api.clone(),
            id: realm(grant),
        };
        vec![get(&tenant, &format!("companyinfo/{}", tenant.id))]
    }

    fn read_account(
        &self,
        _: &Site,
        grant: &Grant,
        answers: &[Response],
    ) -> Result<Account, Fault> {
        let [company] = answers else {
            return Err(incomplete());
        };
        let company = answer(company)?;
        Ok(Account {
            id: realm(grant),
            name: company["CompanyInfo"]["CompanyName"]
                .as_str()
                .map(str::to_owned),
            api: None,
            reference: None,
        })
    }

    fn revoke(&self, revocation: &Revocation) -> Option<Request> {
        // Intuit takes the whole connection of the company to the application away.
        if revocation.shared {
            return None;
        }
        let grant = revocation.grant;
        let token = grant.refresh.as_ref().unwrap_or(&grant.access);
        let authorization = Authorization::Basic {
            user: revocation.credentials.text("client_id").to_owned(),
            password: revocation.credentials.get("client_secret")?.clone(),
        };
        let body = json!({ "token": token.expose_secret() });
        let request = Request::new(Method::Post, revocation.site.revoke.clone())
            .header("accept", "application/json")
            .authorized(authorization);
        Some(request.body("application/json", body.to_string()))
    }

    fn credentials_request(&self, site: &Site, credentials: &Credentials) -> Option<Request> {
        Some(super::unknown_refresh_token(
            site,
            credentials,
            ClientAuth::Basic,
        ))
    }
}

/// The company of a grant: digits, or nothing, so that it cannot lead to another path.
fn realm(grant: &Grant) -> String {
    let realm = grant.fact("realmId");
    if realm.bytes().all(|byte| byte.is_ascii_digit()) {
        realm
    } else {
        String::new()
    }
}

impl Accounting for QuickBooks {
    fn missing(&self) -> &'static str {
        list::NOT_FOUND
    }

    fn order_forms(&self) -> &'static [Form] {
        &[Form::SalesReceipt, Form::Invoice]
    }

    fn refund_forms(&self) -> &'static [Form] {
        &[Form::RefundReceipt]
    }

    fn payout_forms(&self) -> &'static [Form] {
        &[Form::JournalEntry]
    }

    fn find_max(&self) -> usize {
        // The statement goes in the body, so only its readability bounds it.
        100
    }

    fn create_max(&self) -> usize {
        BATCH_MAX
    }

    fn settings_requests(&self, tenant: &Tenant) -> Vec<Request> {
        vec![
            get(tenant, &format!("companyinfo/{}", tenant.id)),
            get(tenant, "preferences"),
            query(
                tenant,
                "select * from Account where Active in (true, false) maxresults 1000",
            ),
            query(tenant, "select * from TaxCode maxresults 1000"),
            query(tenant, "select * from TaxRate maxresults 1000"),
        ]
    }

    fn read_settings(&self, answers: &[Response]) -> Result<Value, Fault> {
        let [company, preferences, accounts, codes, rates] = answers else {
            return Err(incomplete());
        };
        let (company, preferences) = (answer(company)?, answer(preferences)?);
        let (codes, rates) = (answer(codes)?, answer(rates)?);
        settings::read(&company, &preferences, &answer(accounts)?, &codes, &rates)
    }

    fn dependencies(&self, document: Document, settings: &Value) -> Result<Vec<Dependency>, Fault> {
        map::dependencies(document, &Settings::of(settings)?)
    }

    fn find(&self, tenant: &Tenant, kind: DependencyKind, wanted: &[&Dependency]) -> Request {
        let (entity, field) = (entity(kind), name_field(kind));
        let names = wanted.iter().flat_map(|dependency| &dependency.names);
        let names: Vec<String> = names.map(|name| quoted(name)).collect();
        let names = names.join(", ");
        query(
            tenant,
            &format!("select * from {entity} where {field} in ({names}) maxresults 1000"),
        )
    }

    fn read_found(&self, kind: DependencyKind, response: &Response) -> Result<Vec<Found>, Fault> {
        let body = answer(response)?;
        let entities = body["QueryResponse"][entity(kind)]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = entities.iter().map(|entity| {
            Some(Found {
                name: entity[name_field(kind)].as_str()?.to_owned(),
                remote: remote(entity)?,
                mark: map::mark(entity, kind),
                // A category and a bundle have names as items do, and are none that is sold by itself.
                fits: !matches!(entity["Type"].as_str(), Some("Category" | "Group")),
            })
        });
        found.map(|found| found.ok_or_else(incomplete)).collect()
    }

    fn same_name(&self, one: &str, other: &str) -> bool {
        one.to_lowercase() == other.to_lowercase()
    }

    fn create(&self, tenant: &Tenant, request_id: &str, wanted: &[(&Dependency, &str)]) -> Request {
        let whole = |(dependency, name): &(&Dependency, &str)| {
            let mut body = dependency.body.clone();
            body[name_field(dependency.kind)] = json!(name);
            body
        };
        if let [one] = wanted {
            let path = entity(one.0.kind).to_lowercase();
            return post(tenant, &path, &[("requestid", request_id)], &whole(one));
        }
        let items = wanted.iter().enumerate().map(|(index, one)| {
            json!({
                "bId": index.to_string(),
                "operation": "create",
                entity(one.0.kind): whole(one),
            })
        });
        let body = json!({ "BatchItemRequest": items.collect::<Vec<_>>() });
        post(tenant, "batch", &[("requestid", request_id)], &body)
    }

    fn read_created(
        &self,
        wanted: &[(&Dependency, &str)],
        response: &Response,
    ) -> Result<Vec<Result<Remote, Fault>>, Fault> {
        let body = answer(response)?;
        if let [(dependency, _)] = wanted {
            return Ok(vec![Ok(
                remote(&body[entity(dependency.kind)]).ok_or_else(incomplete)?
            )]);
        }
        let items = body["BatchItemResponse"]
            .as_array()
            .ok_or_else(incomplete)?;
        let outcome = |(index, (dependency, _)): (usize, &(&Dependency, &str))| {
            let index = index.to_string();
            let item = items.iter().find(|item| item["bId"] == index.as_str());
            let item = item.ok_or_else(incomplete)?;
            if item.get("Fault").is_some() {
                return Err(fault::from_json(item));
            }
            remote(&item[entity(dependency.kind)]).ok_or_else(incomplete)
        };
        Ok(wanted.iter().enumerate().map(outcome).collect())
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

    fn essence(&self, _: Document, body: &Value, references: &References) -> Value {
        map::essence(body, references)
    }

    fn write_max(&self, _: Form) -> usize {
        BATCH_MAX
    }

    fn write_body(&self, form: Form, documents: &[(Value, Option<Remote>)]) -> String {
        let entity = form_entity(form);
        let whole = |(body, remote): &(Value, Option<Remote>)| {
            let mut body = body.clone();
            if let Some(remote) = remote {
                // A full update: what is not named is cleared, so it becomes what we hold.
                body["Id"] = json!(remote.id);
                body["SyncToken"] = json!(remote.version);
            }
            body
        };
        // One alone needs no batch, of which Intuit takes fewer in a minute than of other calls.
        if let [one] = documents {
            return whole(one).to_string();
        }
        let items = documents.iter().enumerate().map(|(index, document)| {
            let operation = if document.1.is_some() {
                "update"
            } else {
                "create"
            };
            json!({ "bId": index.to_string(), "operation": operation, entity: whole(document) })
        });
        json!({ "BatchItemRequest": items.collect::<Vec<_>>() }).to_string()
    }

    fn write(
        &self,
        tenant: &Tenant,
        id: &str,
        form: Form,
        _update: bool,
        count: usize,
        body: String,
    ) -> Request {
        let path = match count {
            1 => form_entity(form).to_lowercase(),
            _ => "batch".to_owned(),
        };
        Request::new(Method::Post, url(tenant, &path, &[("requestid", id)]))
            .header("accept", "application/json")
            .body("application/json", body)
    }

    fn read_written(
        &self,
        form: Form,
        count: usize,
        response: &Response,
    ) -> Result<Outcomes, Fault> {
        let body = answer(response)?;
        let entity = form_entity(form);
        if count == 1 {
            return Ok(vec![Ok(written(&body[entity])?)]);
        }
        let items = body["BatchItemResponse"]
            .as_array()
            .ok_or_else(incomplete)?;
        let outcome = |index: usize| {
            let index = index.to_string();
            let item = items.iter().find(|item| item["bId"] == index.as_str());
            let item = item.ok_or_else(incomplete)?;
            if item.get("Fault").is_some() {
                return Ok(Err(fault::from_json(item)));
            }
            written(&item[entity]).map(Ok)
        };
        (0..count).map(outcome).collect()
    }

    fn read(&self, tenant: &Tenant, form: Form, remote: &Remote) -> Request {
        let path = format!("{}/{}", form_entity(form).to_lowercase(), remote.id);
        get(tenant, &path)
    }

    fn read_back(&self, form: Form, response: &Response) -> Result<Seen, Fault> {
        let kind = self.changes().kind_of(form);
        changes::seen(kind, &answer(response)?[form_entity(form)]).ok_or_else(incomplete)
    }

    fn changes(&self) -> &'static dyn Changes {
        &changes::QuickBooksChanges
    }
}
