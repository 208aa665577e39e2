//! The providers. Each is one folder: a [`Manifest`] as data, and a [`Accounting`] implementation
//! that only builds requests and reads responses. Nothing here can send.

pub mod quickbooks;

use crate::model::http::{Request, Response};
use crate::model::order::{Order, Refund};
use crate::sync::push::Remote;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use url::Url;

/// What a provider is for. The words stand in the paths of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Category {
    Accounting,
}

impl Category {
    pub const fn as_str(self) -> &'static str {
        match self {
            Category::Accounting => "accounting",
        }
    }
}

/// The addresses of one environment of a provider.
#[derive(Debug, Clone, Copy)]
pub struct Hosts {
    pub authorize: &'static str,
    pub token: &'static str,
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
    pub scopes: &'static [&'static str],
    /// Whether the provider takes a PKCE challenge (RFC 7636).
    pub pkce: bool,
    /// The callback parameter that names the tenant.
    pub tenant_parameter: &'static str,
    /// Most names of one look-up.
    pub find_names_max: usize,
    /// Most creations of one call.
    pub create_batch_max: usize,
}

/// Where one environment of a provider is.
#[derive(Debug, Clone)]
pub struct Site {
    pub authorize: Url,
    pub token: Url,
    pub api: Url,
}

impl Manifest {
    /// Finds the addresses of `environment`: `production`, `sandbox`, or the base URL of a stand-in,
    /// which serves every path of the vendor on one origin. `None` when it is none of these.
    pub fn site(&self, environment: &str) -> Option<Site> {
        let hosts = match environment {
            "sandbox" => &self.sandbox,
            _ => &self.production,
        };
        let mut site = Site {
            authorize: hosts.authorize.parse().ok()?,
            token: hosts.token.parse().ok()?,
            api: hosts.api.parse().ok()?,
        };
        if !matches!(environment, "production" | "sandbox") {
            let base: Url = environment.parse().ok()?;
            for url in [&mut site.authorize, &mut site.token, &mut site.api] {
                let mut moved = base.clone();
                moved.set_path(url.path());
                *url = moved;
            }
        }
        Some(site)
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

/// What must stand at the provider before a document can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DependencyKind {
    Customer,
    Item,
}

impl DependencyKind {
    pub const fn as_str(self) -> &'static str {
        match self {
            DependencyKind::Customer => "customer",
            DependencyKind::Item => "item",
        }
    }
}

/// One customer or item that documents refer to.
#[derive(Debug, Clone, PartialEq)]
pub struct Dependency {
    pub kind: DependencyKind,
    /// What the ledger knows it by, unique within its kind and connection.
    pub key: String,
    /// Names to try, in order: the next one is for when the one before belongs to something else.
    pub names: Vec<String>,
    /// The mark that shows that a thing at the provider is ours; absent when the name alone decides.
    pub mark: Option<String>,
    /// The provider's body, without its name.
    pub body: Value,
}

/// One thing that a look-up found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub name: String,
    pub remote: Remote,
    /// The mark that it carries.
    pub mark: Option<String>,
}

/// What is pushed to an accounting system.
#[derive(Debug, Clone, Copy)]
pub enum Document<'a> {
    /// An order that is paid in full.
    Sale(&'a Order),
    /// Money that went back, with the order that it belongs to, if any.
    Refund(&'a Refund, Option<&'a Order>),
}

/// The provider's ids of what a document refers to, by [`Dependency::kind`] and key.
pub type References = HashMap<(DependencyKind, String), String>;

/// An accounting system: builds requests, reads responses.
pub trait Accounting: Send + Sync {
    fn manifest(&self) -> &'static Manifest;

    /// The requests that read how the company is set up.
    fn settings_requests(&self, tenant: &Tenant) -> Vec<Request>;

    /// Reads their answers, in the same order, into what the other functions take as `settings`.
    fn read_settings(&self, answers: &[Response]) -> Result<Value, Fault>;

    /// The company's name within `settings`.
    fn tenant_name(&self, settings: &Value) -> Option<String>;

    /// What `document` refers to.
    fn dependencies(&self, document: Document, settings: &Value) -> Result<Vec<Dependency>, Fault>;

    /// A look-up of things of one kind by name.
    fn find(&self, tenant: &Tenant, kind: DependencyKind, names: &[String]) -> Request;

    fn read_found(&self, kind: DependencyKind, answer: &Response) -> Result<Vec<Found>, Fault>;

    /// Whether two names are the same to the provider.
    fn same_name(&self, one: &str, other: &str) -> bool;

    /// One call that creates each dependency under the name beside it.
    fn create(&self, tenant: &Tenant, request_id: &str, wanted: &[(&Dependency, &str)]) -> Request;

    /// Reads what became of each, in the order of the request.
    fn read_created(
        &self,
        wanted: &[(&Dependency, &str)],
        answer: &Response,
    ) -> Result<Vec<Result<Remote, Fault>>, Fault>;

    /// The provider's body of `document`.
    fn body(
        &self,
        document: Document,
        references: &References,
        settings: &Value,
    ) -> Result<Value, Fault>;

    /// The call that writes `body`: a creation, or an update of `remote`.
    fn write(
        &self,
        tenant: &Tenant,
        document: Document,
        body: &Value,
        remote: Option<&Remote>,
        request_id: &str,
    ) -> Request;

    fn read_written(&self, document: Document, answer: &Response) -> Result<Remote, Fault>;

    /// What is wrong with what the provider made of `document`, though it took it: a total that
    /// differs, say.
    fn written_fault(&self, document: Document, answer: &Response) -> Option<Fault>;

    /// The call that reads `document` back.
    fn read(&self, tenant: &Tenant, document: Document, remote: &Remote) -> Request;
}

/// Every accounting system, in the order of the registry.
pub const ACCOUNTING: &[&dyn Accounting] = &[&quickbooks::QuickBooks];

/// Finds a provider by its name in paths.
pub fn accounting(name: &str) -> Option<&'static dyn Accounting> {
    ACCOUNTING
        .iter()
        .copied()
        .find(|provider| provider.manifest().name == name)
}
