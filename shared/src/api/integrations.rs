//! `/api/v1/integrations`: a merchant's connections to providers.

use super::{Request, Response, auth, path_id, whole_list};
use crate::ctx::Ctx;
use crate::engine::accounts;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::ids::{ConnectionId, MerchantId};
use crate::model::text::{check_direction, check_line, check_time};
use crate::oauth::connection::{self, Connection, Entry, Health, Settings, Status};
use crate::oauth::{connect, import, manage};
use crate::providers::{Category, Manifest, Provider, provider};
use crate::store::{Item, keys};
use auth::{Merchant, Platform};
use chrono::NaiveTime;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// Most entries of one page of a history, and how many come when none is asked for.
pub const ENTRIES_MAX: usize = 200;
const ENTRIES_DEFAULT: usize = 50;
/// Longest label of a connection.
pub const LABEL_CHARACTERS_MAX: usize = 100;
/// Longest name of the customer that guests or daily summaries are booked on, and longest id or code of an
/// account.
pub const GUEST_CHARACTERS_MAX: usize = 100;
pub const ACCOUNT_CHARACTERS_MAX: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectRequest {
    merchant_id: MerchantId,
    return_url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmRequest {
    merchant_id: MerchantId,
    confirmation: SecretString,
}

/// A request that says no more than whose connection it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainRequest {
    merchant_id: MerchantId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DisconnectRequest {
    merchant_id: MerchantId,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsRequest {
    merchant_id: MerchantId,
    settings: Settings,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImportRequest {
    merchant_id: MerchantId,
    tokens: import::Import,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let call = Call::open(ctx, request).await?;
        let segments = request.segments();
        let ["api", "v1", "integrations", rest @ ..] = segments.as_slice() else {
            return Err(request.unknown());
        };
        match (request.method.as_str(), rest) {
            ("GET", []) => call.list(None).await,
            ("GET", [category]) => call.list(Some(call.category(category)?)).await,
            ("POST", [category, name, "connect"]) => call.connect(category, name).await,
            ("POST", [category, name, "import"]) => call.import(category, name).await,
            ("GET", [category, id]) => call.show(category, id).await,
            ("GET", [category, id, "history"]) => call.history(category, id).await,
            ("GET", [category, id, "accounts"]) => call.accounts(category, id).await,
            ("POST", [category, id, "confirm"]) => call.confirm(category, id).await,
            ("POST", [category, id, "reconnect"]) => call.reconnect(category, id).await,
            ("POST", [category, id, "check"]) => call.check(category, id).await,
            ("POST", [category, id, "pause"]) => call.pause(category, id).await,
            ("POST", [category, id, "resume"]) => call.resume(category, id).await,
            ("POST", [category, id, "disconnect"]) => call.disconnect(category, id).await,
            ("PUT", [category, id, "settings"]) => call.set(category, id).await,
            _ => Err(request.unknown()),
        }
    })
}

/// One authenticated request.
pub(super) struct Call<'a> {
    pub ctx: &'a Ctx,
    pub request: &'a Request,
    platform: Platform,
}

impl Call<'_> {
    /// Lets a request in that has the platform's key.
    pub(super) async fn open<'a>(ctx: &'a Ctx, request: &'a Request) -> Result<Call<'a>> {
        Ok(Call {
            ctx,
            request,
            platform: auth::platform(ctx, request).await?,
        })
    }

    /// The category of a path, unless it is switched off.
    fn category(&self, name: &str) -> Result<Category> {
        let category = any_category(name)?;
        self.ctx.config.enabled(category)?;
        Ok(category)
    }

    /// The provider of a path.
    fn provider(&self, category: &str, name: &str) -> Result<&'static dyn Provider> {
        let category = self.category(category)?;
        let found = provider(name).map(|found| (found, found.manifest().category));
        match found {
            Some((found, its)) if its == category => Ok(found),
            Some((_, its)) => Err(Error::new(
                Code::NotFound,
                format!(
                    "{name} is no provider of {}, but of {}",
                    category.as_str(),
                    its.as_str()
                ),
            )),
            None => Err(Error::new(
                Code::NotFound,
                "there is no such provider; GET /api/v1/integrations lists those there are",
            )),
        }
    }

    pub(super) async fn merchant(&self, id: &MerchantId) -> Result<Merchant> {
        self.platform.merchant(self.ctx, id).await
    }

    /// The merchant's own connection that stands at a path.
    async fn connection(
        &self,
        category: &str,
        id: &str,
        merchant: &MerchantId,
    ) -> Result<(MerchantId, ConnectionId)> {
        let connection = self.held(category, id, merchant).await?;
        Ok((connection.merchant_id, connection.id))
    }

    /// The same, whole.
    pub(super) async fn held(
        &self,
        category: &str,
        id: &str,
        merchant: &MerchantId,
    ) -> Result<Connection> {
        let category = self.category(category)?;
        self.connection_of(category, id, merchant).await
    }

    async fn connection_of(
        &self,
        category: Category,
        id: &str,
        merchant: &MerchantId,
    ) -> Result<Connection> {
        let merchant = self.merchant(merchant).await?;
        let id: ConnectionId = path_id(id)?;
        let (_, connection) = connection::load(self.ctx, &merchant.id, &id).await?;
        if connection.category != category {
            return Err(Error::not_found(format!("connection {id}")));
        }
        Ok(connection)
    }

    async fn list(&self, only: Option<Category>) -> Result<Response> {
        let merchant = self.merchant(&self.request.merchant_id()?).await?;
        let connections = connection::list(self.ctx, &merchant.id).await?;
        let wanted = |connection: &Connection| {
            only.is_none_or(|category| category == connection.category)
                && self.ctx.config.enabled(connection.category).is_ok()
        };
        let connections: Vec<Connection> = connections
            .into_iter()
            .map(|(_, connection)| connection)
            .filter(wanted)
            .collect();
        let data = views(self.ctx, &connections).await?;
        let mut body = whole_list(data);
        let offered = crate::providers::PROVIDERS.iter().map(|p| p.manifest());
        let offered = offered.filter(|manifest| {
            only.is_none_or(|category| category == manifest.category)
                && self.ctx.config.enabled(manifest.category).is_ok()
        });
        body["providers"] = offered.map(offer).collect();
        Response::json(200, &body)
    }

    async fn reply(&self, status: u16, connection: Connection) -> Result<Response> {
        Response::json(status, &self.shown(connection).await?)
    }

    async fn shown(&self, connection: Connection) -> Result<Value> {
        let mut views = views(self.ctx, std::slice::from_ref(&connection)).await?;
        Ok(views.remove(0))
    }

    async fn connect(&self, category: &str, name: &str) -> Result<Response> {
        let provider = self.provider(category, name)?;
        let body: ConnectRequest = self.request.read()?;
        let merchant = self.merchant(&body.merchant_id).await?;
        let manifest = provider.manifest();
        let link =
            connect::create_link(self.ctx, &merchant.id, manifest, body.return_url, None).await?;
        Ok(Response::json(201, &link)?.private())
    }

    async fn import(&self, category: &str, name: &str) -> Result<Response> {
        let provider = self.provider(category, name)?;
        let body: ImportRequest = self.request.read()?;
        let merchant = self.merchant(&body.merchant_id).await?;
        let connection = import::import(self.ctx, &merchant.id, provider, body.tokens).await?;
        self.reply(201, connection).await
    }

    async fn show(&self, category: &str, id: &str) -> Result<Response> {
        let merchant = self.request.merchant_id()?;
        let connection = self.held(category, id, &merchant).await?;
        self.reply(200, connection).await
    }

    async fn confirm(&self, category: &str, id: &str) -> Result<Response> {
        let body: ConfirmRequest = self.request.read()?;
        let (merchant, id) = self.connection(category, id, &body.merchant_id).await?;
        let confirmation = body.confirmation.expose_secret();
        let confirmed = connect::confirm(self.ctx, &merchant, &id, confirmation).await?;
        let body = json!({
            "connection": self.shown(confirmed.connection).await?,
            "continue_url": confirmed.continue_url,
        });
        Ok(Response::json(200, &body)?.header("cache-control", "no-store"))
    }

    async fn reconnect(&self, category: &str, id: &str) -> Result<Response> {
        let body: ConnectRequest = self.request.read()?;
        let (merchant, id) = self.connection(category, id, &body.merchant_id).await?;
        let (_, connection) = connection::load(self.ctx, &merchant, &id).await?;
        if connection.status == Status::Pending {
            return Err(Error::new(
                Code::Conflict,
                "this connection was never confirmed; make a new connect link instead",
            ));
        }
        let manifest = connection.manifest()?;
        let link =
            connect::create_link(self.ctx, &merchant, manifest, body.return_url, Some(&id)).await?;
        Ok(Response::json(201, &link)?.private())
    }

    async fn check(&self, category: &str, id: &str) -> Result<Response> {
        let body: PlainRequest = self.request.read()?;
        let (merchant, id) = self.connection(category, id, &body.merchant_id).await?;
        self.reply(200, manage::check(self.ctx, &merchant, &id).await?)
            .await
    }

    async fn pause(&self, category: &str, id: &str) -> Result<Response> {
        let body: PlainRequest = self.request.read()?;
        let (merchant, id) = self.connection(category, id, &body.merchant_id).await?;
        self.reply(200, manage::pause(self.ctx, &merchant, &id).await?)
            .await
    }

    async fn resume(&self, category: &str, id: &str) -> Result<Response> {
        let body: PlainRequest = self.request.read()?;
        let (merchant, id) = self.connection(category, id, &body.merchant_id).await?;
        self.reply(200, manage::resume(self.ctx, &merchant, &id).await?)
            .await
    }

    async fn disconnect(&self, category: &str, id: &str) -> Result<Response> {
        let body: DisconnectRequest = self.request.read()?;
        // Whoever switches a category off must still be able to give up what it holds.
        let category = any_category(category)?;
        let connection = self.connection_of(category, id, &body.merchant_id).await?;
        let (merchant, id) = (connection.merchant_id, connection.id);
        let connection = manage::disconnect(self.ctx, &merchant, &id, body.force).await?;
        self.reply(200, connection).await
    }

    async fn set(&self, category: &str, id: &str) -> Result<Response> {
        let body: SettingsRequest = self.request.read()?;
        let mut faults = Vec::new();
        if let Some(label) = &body.settings.label {
            let path = "/settings/label";
            check_line(&mut faults, path, label, 1, LABEL_CHARACTERS_MAX);
            check_direction(&mut faults, path, label);
        }
        if let Some(from) = body.settings.records_from {
            check_time(&mut faults, "/settings/records_from", from);
        }
        if let Some(guest) = &body.settings.guest_customer {
            let path = "/settings/guest_customer";
            check_line(&mut faults, path, guest, 1, GUEST_CHARACTERS_MAX);
            check_direction(&mut faults, path, guest);
        }
        if let Some(customer) = &body.settings.daily_customer {
            let path = "/settings/daily_customer";
            check_line(&mut faults, path, customer, 1, GUEST_CHARACTERS_MAX);
            check_direction(&mut faults, path, customer);
        }
        if let Some(from) = body.settings.posting_from {
            let path = "/settings/posting_from";
            check_time(&mut faults, path, from.and_time(NaiveTime::MIN).and_utc());
        }
        for (role, account) in &body.settings.accounts {
            let path = format!("/settings/accounts/{}", role.as_str());
            check_line(&mut faults, &path, account, 1, ACCOUNT_CHARACTERS_MAX);
        }
        if !faults.is_empty() {
            return Err(Error::invalid(faults));
        }
        let held = self.held(category, id, &body.merchant_id).await?;
        let faults = accounts::faults(self.ctx, &held, &body.settings).await?;
        if !faults.is_empty() {
            return Err(Error::invalid(faults));
        }
        let (merchant, id) = (held.merchant_id, held.id);
        let connection = manage::set(self.ctx, &merchant, &id, body.settings).await?;
        self.reply(200, connection).await
    }

    /// The company's accounts, and which one is used for what.
    async fn accounts(&self, category: &str, id: &str) -> Result<Response> {
        let merchant = self.request.merchant_id()?;
        let connection = self.held(category, id, &merchant).await?;
        let accounts = accounts::read(self.ctx, &connection).await?;
        let all = accounts.chart.accounts.iter().map(|one| {
            json!({
                "id": one.id, "code": one.code, "name": one.name, "type": one.kind,
                "active": one.active, "currency": one.currency, "roles": one.roles,
            })
        });
        let mut body = whole_list(all.collect());
        let used = accounts.used().map(|used| {
            let (account, trouble) = match &used.account {
                Ok(account) => (Some(&account.id), None),
                Err(unfit) => (
                    None,
                    Some(json!({ "code": unfit.code, "detail": unfit.detail })),
                ),
            };
            json!({
                "role": used.role, "account_id": account, "chosen": used.chosen, "problem": trouble,
            })
        });
        body["used"] = used.collect();
        Response::json(200, &body)
    }

    /// What happened to a connection, oldest first, a page at a time.
    async fn history(&self, category: &str, id: &str) -> Result<Response> {
        let merchant = self.request.merchant_id()?;
        let (merchant, id) = self.connection(category, id, &merchant).await?;
        let limit = self.request.limit(ENTRIES_DEFAULT, ENTRIES_MAX)?;
        let after = match self.request.query.get("cursor") {
            None => None,
            Some(text) if is_entry(text) => Some(keys::after_entry(&merchant, &id, text)),
            Some(_) => {
                let detail =
                    "a cursor is the next_cursor of the page before; leave it out to begin";
                return Err(Error::invalid(vec![FieldError::new(
                    "/cursor",
                    "invalid_cursor",
                    detail,
                )]));
            }
        };
        let group = keys::connection_history(&merchant, &id);
        let page = self.ctx.store.list(&group, after.as_deref(), limit).await?;
        let entries: Vec<Entry> = page.items.iter().map(Item::read).collect::<Result<_>>()?;
        let next = page.next.and(entries.last().map(|last| last.id.clone()));
        let body = json!({
            "data": entries, "has_more": next.is_some(), "next_cursor": next, "prev_cursor": null,
        });
        Response::json(200, &body)
    }
}

/// Whether `text` is the id of an entry, in the one form in which such ids are written: by another the
/// list would go on at another place.
pub(super) fn is_entry(text: &str) -> bool {
    let id = text.parse::<uuid::Uuid>();
    id.is_ok_and(|id| id.to_string() == text)
}

/// The category of a path, be it switched off or not.
fn any_category(name: &str) -> Result<Category> {
    Category::parse(name).ok_or_else(|| {
        let known = Category::ALL.map(Category::as_str).join(", ");
        Error::new(
            Code::NotFound,
            format!("there is no such category; known are {known}"),
        )
    })
}

/// What is offered to a merchant.
fn offer(manifest: &'static Manifest) -> Value {
    json!({
        "provider": manifest.name,
        "title": manifest.title,
        "category": manifest.category,
        "connects_by": if manifest.code_flow().is_some() { "oauth" } else { "keys" },
    })
}

async fn views(ctx: &Ctx, connections: &[Connection]) -> Result<Vec<Value>> {
    let of = |one: &Connection| keys::connection_health(&one.merchant_id, &one.id);
    let healths: Vec<_> = connections.iter().map(of).collect();
    let healths = ctx.store.get_many(&healths).await?;
    let mut views = Vec::new();
    for (connection, health) in connections.iter().zip(healths) {
        let health: Health = health
            .map(|item| item.read())
            .transpose()?
            .unwrap_or_default();
        views.push(view(connection, &health.with(connection)));
    }
    Ok(views)
}

/// What is shown of a connection: everything but its secrets.
fn view(connection: &Connection, health: &Health) -> Value {
    json!({
        "id": connection.id,
        "merchant_id": connection.merchant_id,
        "provider": connection.provider,
        "category": connection.category,
        "status": connection.status,
        "label": connection.label(),
        "tenant_id": connection.tenant_id,
        "tenant_name": connection.tenant_name,
        "scopes": connection.scopes,
        "settings": connection.settings,
        "postings": connection.postings,
        // What was given up is not called.
        "health": (connection.status != Status::Disconnected).then(|| health.word()),
        "last_success_at": health.last_success_at,
        "last_failure": health.last_failure,
        "next_refresh_at": connection.next_refresh_at,
        "trouble": connection.trouble,
        "created_at": connection.created_at,
        "updated_at": connection.updated_at,
    })
}
