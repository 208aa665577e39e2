//! `/api/v1/webhooks`: a developer's endpoints, what was delivered to them, and what is sent again.

use super::{Request, Response, auth, path_id, whole_list};
use crate::ctx::Ctx;
use crate::error::{Error, FieldError, Result};
use crate::model::event::EventType;
use crate::model::ids::{EventId, MerchantId};
use crate::model::notice::StoredEvent;
use crate::store::{Item, keys};
use crate::webhooks::deliver::{self, Delivery, DeliveryState};
use crate::webhooks::endpoint::{self, Endpoint, Log, Ordering, Payload, Wish};
use crate::webhooks::fanout::{self, KeptBack};
use crate::webhooks::filter::Filter;
use crate::webhooks::{feed, recover, samples, stats};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use url::Url;

/// Most deliveries of one reply, and how many come when none is asked for.
pub const DELIVERIES_MAX: usize = 200;
const DELIVERIES_DEFAULT: usize = 50;
/// How long the old secret goes on beside a new one, if nobody says otherwise.
const OVERLAP_DAYS_DEFAULT: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEndpoint {
    merchant_id: MerchantId,
    url: Url,
    event_types: Vec<String>,
    description: Option<String>,
    payload: Option<Payload>,
    filter: Option<String>,
    ordering: Option<Ordering>,
    log: Option<Log>,
    rate_limit: Option<u32>,
    headers: Option<BTreeMap<String, SecretString>>,
    secret: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangedEndpoint {
    merchant_id: MerchantId,
    url: Option<Url>,
    event_types: Option<Vec<String>>,
    description: Option<String>,
    payload: Option<Payload>,
    filter: Option<String>,
    ordering: Option<Ordering>,
    log: Option<Log>,
    rate_limit: Option<u32>,
    headers: Option<BTreeMap<String, SecretString>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfMerchant {
    merchant_id: MerchantId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSecret {
    merchant_id: MerchantId,
    secret: Option<SecretString>,
    overlap_days: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfType {
    merchant_id: MerchantId,
    event_type: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfEvent {
    merchant_id: MerchantId,
    event_id: EventId,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DryRun {
    merchant_id: MerchantId,
    event_id: EventId,
    filter: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    merchant_id: MerchantId,
    since: DateTime<Utc>,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let segments = request.segments();
        if let [".well-known", "webhooks", merchant, id, "jwks.json"] = segments.as_slice() {
            return public_keys(ctx, request, merchant, id).await;
        }
        let platform = auth::platform(ctx, request).await?;
        ctx.config.webhooks_enabled()?;
        let ["api", "v1", "webhooks", rest @ ..] = segments.as_slice() else {
            return Err(request.unknown());
        };
        let call = Call {
            ctx,
            request,
            platform,
        };
        match (request.method.as_str(), rest) {
            ("POST", ["register"]) => call.register().await,
            ("GET", []) => call.list().await,
            ("GET", [id]) => Response::json(200, &view(ctx, &call.read(id).await?)),
            ("PATCH", [id]) => call.update(id).await,
            ("DELETE", [id]) => call.delete(id).await,
            ("POST", [id, "enable"]) => call.enable(id).await,
            ("POST", [id, "disable"]) => call.disable(id).await,
            ("POST", [id, "rotate-secret"]) => call.rotate(id).await,
            ("POST", [id, "test"]) => call.test(id).await,
            ("POST", [id, "dry-run"]) => call.dry_run(id).await,
            ("GET", [id, "attempts"]) => call.attempts(id).await,
            ("GET", [id, "stats"]) => {
                let stats = stats::count(ctx, &call.read(id).await?).await?;
                Response::json(200, &json!(stats))
            }
            ("GET", [id, "feed"]) => call.feed(id).await,
            ("POST", [id, "resend"]) => call.resend(id).await,
            ("POST", [id, "recover"]) => call.recover(id).await,
            ("GET", [id, "recover"]) => {
                let recovery = recover::load(ctx, &call.read(id).await?).await?;
                Response::json(200, &progress(&recovery))
            }
            _ => Err(request.unknown()),
        }
    })
}

/// The keys with which anybody can verify what an endpoint is sent.
async fn public_keys(ctx: &Ctx, request: &Request, merchant: &str, id: &str) -> Result<Response> {
    let merchant: MerchantId = merchant.parse().map_err(|_| request.unknown())?;
    let (_, endpoint) = endpoint::load(ctx, &merchant, &path_id(id)?).await?;
    Response::json(200, &endpoint.public_keys(ctx.now()))
}

struct Call<'a> {
    ctx: &'a Ctx,
    request: &'a Request,
    platform: auth::Platform,
}

impl Call<'_> {
    /// The endpoint that a request names in its path, of the merchant that it names in its query.
    async fn read(&self, id: &str) -> Result<Endpoint> {
        self.load(&self.request.merchant_id()?, id).await
    }

    async fn load(&self, merchant: &MerchantId, id: &str) -> Result<Endpoint> {
        let merchant = self.platform.merchant(self.ctx, merchant).await?;
        let (_, endpoint) = endpoint::load(self.ctx, &merchant.id, &path_id(id)?).await?;
        Ok(endpoint)
    }

    async fn register(&self) -> Result<Response> {
        let new: NewEndpoint = self.request.read()?;
        let merchant = self.platform.merchant(self.ctx, &new.merchant_id).await?;
        let wish = Wish {
            url: Some(new.url),
            event_types: Some(event_types(&new.event_types)?),
            description: new.description,
            payload: new.payload,
            filter: new.filter,
            ordering: new.ordering,
            log: new.log,
            rate_limit: new.rate_limit,
            headers: new.headers,
        };
        let made = endpoint::register(self.ctx, &merchant.id, wish, new.secret).await?;
        self.with_secret(201, &made.0, &made.1)
    }

    fn with_secret(
        &self,
        status: u16,
        endpoint: &Endpoint,
        secret: &SecretString,
    ) -> Result<Response> {
        let mut body = view(self.ctx, endpoint);
        body["secret"] = json!(secret.expose_secret());
        Ok(Response::json(status, &body)?.private())
    }

    async fn list(&self) -> Result<Response> {
        let merchant = self.request.merchant_id()?;
        let merchant = self.platform.merchant(self.ctx, &merchant).await?;
        let endpoints = endpoint::list(self.ctx, &merchant.id).await?;
        let views = endpoints.iter().map(|one| view(self.ctx, one)).collect();
        Response::json(200, &whole_list(views))
    }

    async fn update(&self, id: &str) -> Result<Response> {
        let changed: ChangedEndpoint = self.request.read()?;
        let held = self.load(&changed.merchant_id, id).await?;
        let types = changed.event_types.as_deref().map(event_types);
        let wish = Wish {
            url: changed.url,
            event_types: types.transpose()?,
            description: changed.description,
            payload: changed.payload,
            filter: changed.filter,
            ordering: changed.ordering,
            log: changed.log,
            rate_limit: changed.rate_limit,
            headers: changed.headers,
        };
        let changed = endpoint::update(self.ctx, &held.merchant_id, &held.id, wish).await?;
        Response::json(200, &view(self.ctx, &changed))
    }

    async fn delete(&self, id: &str) -> Result<Response> {
        let of: OfMerchant = self.request.read()?;
        let endpoint = self.load(&of.merchant_id, id).await?;
        endpoint::delete(self.ctx, &endpoint.merchant_id, &endpoint.id).await?;
        Response::json(200, &json!({ "id": endpoint.id, "deleted": true }))
    }

    async fn enable(&self, id: &str) -> Result<Response> {
        let of: OfMerchant = self.request.read()?;
        let held = self.load(&of.merchant_id, id).await?;
        let enabled = endpoint::enable(self.ctx, &held.merchant_id, &held.id).await?;
        Response::json(200, &view(self.ctx, &enabled))
    }

    async fn disable(&self, id: &str) -> Result<Response> {
        let of: OfMerchant = self.request.read()?;
        let held = self.load(&of.merchant_id, id).await?;
        let disabled = endpoint::disable(self.ctx, &held.merchant_id, &held.id).await?;
        Response::json(200, &view(self.ctx, &disabled))
    }

    async fn rotate(&self, id: &str) -> Result<Response> {
        let new: NewSecret = self.request.read()?;
        let held = self.load(&new.merchant_id, id).await?;
        let days = new.overlap_days.unwrap_or(OVERLAP_DAYS_DEFAULT);
        let (merchant, id) = (&held.merchant_id, &held.id);
        let rotated = endpoint::rotate_secret(self.ctx, merchant, id, new.secret, days).await?;
        self.with_secret(200, &rotated.0, &rotated.1)
    }

    /// Sends a sample. What the receiver answers stands among the attempts, as of any delivery.
    async fn test(&self, id: &str) -> Result<Response> {
        let wanted: OfType = self.request.read()?;
        let endpoint = self.load(&wanted.merchant_id, id).await?;
        let kind =
            event_type(&wanted.event_type).map_err(|detail| unknown_type("/event_type", detail))?;
        recover::check_on(&endpoint)?;
        let notice = samples::store(self.ctx, &endpoint, kind).await?;
        let delivery = recover::resend(self.ctx, &endpoint, &notice.event_id).await?;
        Response::json(202, &json!(delivery))
    }

    /// What an endpoint would get of an event, to the byte but for the time of signing, and whether it
    /// gets it at all, with its own filter or another.
    async fn dry_run(&self, id: &str) -> Result<Response> {
        let of: DryRun = self.request.read()?;
        let endpoint = self.load(&of.merchant_id, id).await?;
        let event = self
            .ctx
            .store
            .get(&keys::event(&endpoint.merchant_id, &of.event_id))
            .await?;
        let event: StoredEvent = event
            .ok_or_else(|| Error::not_found(format!("event {}", of.event_id)))?
            .read()?;
        let filter = of.filter.as_ref().or(endpoint.filter.as_ref());
        let filter = filter.map(|text| {
            let refused =
                |detail| Error::invalid(vec![FieldError::new("/filter", "invalid_value", detail)]);
            Filter::parse(text).map_err(refused)
        });
        let kept_back = fanout::kept_back(&endpoint, &event, filter.transpose()?.as_ref());
        let kept_back: Vec<&str> = kept_back.into_iter().map(KeptBack::as_str).collect();
        let request = deliver::request(self.ctx, &endpoint, &event, 1).await?;
        // Headers of the developer's own may be secrets.
        let own = |name: &String| endpoint.header_names.contains(name);
        let headers: BTreeMap<String, String> = request
            .headers
            .into_iter()
            .map(|(name, value)| {
                let value = if own(&name) { "…".to_owned() } else { value };
                (name, value)
            })
            .collect();
        let body = json!({
            "delivered": kept_back.is_empty(),
            "kept_back_by": kept_back,
            "url": endpoint.url,
            "headers": headers,
            "body": String::from_utf8_lossy(&request.body),
        });
        Ok(Response::json(200, &body)?.private())
    }

    /// What is told to an endpoint, to be read instead of awaited; what was read before is taken.
    async fn feed(&self, id: &str) -> Result<Response> {
        let endpoint = self.read(id).await?;
        let limit = self.request.limit(DELIVERIES_DEFAULT, DELIVERIES_MAX)?;
        let after = self.request.query.get("after").map(String::as_str);
        let page = feed::read(self.ctx, &endpoint, after, limit).await?;
        let body = json!({
            "data": page.events,
            "has_more": page.has_more,
            "next_cursor": page.next,
            "prev_cursor": null,
        });
        Response::json(200, &body)
    }

    async fn resend(&self, id: &str) -> Result<Response> {
        let of: OfEvent = self.request.read()?;
        let endpoint = self.load(&of.merchant_id, id).await?;
        let delivery = recover::resend(self.ctx, &endpoint, &of.event_id).await?;
        Response::json(202, &json!(delivery))
    }

    async fn recover(&self, id: &str) -> Result<Response> {
        let of: Since = self.request.read()?;
        let endpoint = self.load(&of.merchant_id, id).await?;
        let recovery = recover::begin(self.ctx, &endpoint, of.since).await?;
        Response::json(202, &progress(&recovery))
    }

    /// The deliveries of one endpoint with their attempts, a page at a time, in the order in which their
    /// events were accepted.
    async fn attempts(&self, id: &str) -> Result<Response> {
        let endpoint = self.read(id).await?;
        let (merchant, id) = (&endpoint.merchant_id, &endpoint.id);
        let limit = self.request.limit(DELIVERIES_DEFAULT, DELIVERIES_MAX)?;
        let state = self
            .request
            .query
            .get("delivery_state")
            .map(|text| state(text));
        let state = state.transpose()?;
        let after = match self.request.query.get("cursor") {
            None => None,
            Some(cursor) => {
                let (at, event) = place(cursor)?;
                Some(keys::after_delivery(merchant, id, at, &event))
            }
        };
        let group = keys::deliveries(merchant, id);
        let page = self.ctx.store.list(&group, after.as_deref(), limit).await?;
        let deliveries: Vec<Delivery> = page.items.iter().map(Item::read).collect::<Result<_>>()?;
        let next = page.next.and_then(|_| deliveries.last().map(cursor));
        let shown = deliveries
            .into_iter()
            .filter(|delivery| state.is_none_or(|state| delivery.state == state));
        let body = json!({
            "data": shown.collect::<Vec<_>>(),
            "has_more": next.is_some(),
            "next_cursor": next,
            "prev_cursor": null,
        });
        Response::json(200, &body)
    }
}

/// Where a list goes on after `delivery`: it shows nothing of the table and reaches no other group.
fn cursor(delivery: &Delivery) -> String {
    let at = delivery.accepted_at.timestamp_millis();
    format!("{at}_{}", delivery.event_id)
}

fn place(cursor: &str) -> Result<(DateTime<Utc>, EventId)> {
    let place = || {
        let (at, event) = cursor.split_once('_')?;
        let at = DateTime::from_timestamp_millis(at.parse().ok()?)?;
        Some((at, event.parse().ok()?))
    };
    place().ok_or_else(|| {
        let detail = "a cursor is the next_cursor of the page before; leave it out to begin";
        Error::invalid(vec![FieldError::new("/cursor", "invalid_cursor", detail)])
    })
}

fn state(text: &str) -> Result<DeliveryState> {
    let found = DeliveryState::ALL
        .into_iter()
        .find(|state| state.as_str() == text);
    found.ok_or_else(|| {
        let known = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
        let detail = format!("there is no such state; known are {known}");
        Error::invalid(vec![FieldError::new(
            "/delivery_state",
            "invalid_value",
            detail,
        )])
    })
}

fn event_type(name: &str) -> Result<EventType, String> {
    EventType::parse(name).ok_or_else(|| {
        format!(
            "this is not an event type; known are {}",
            EventType::names()
        )
    })
}

fn unknown_type(path: &str, detail: String) -> Error {
    Error::invalid(vec![FieldError::new(path, "unknown_event_type", detail)])
}

fn event_types(names: &[String]) -> Result<BTreeSet<EventType>> {
    let mut faults = Vec::new();
    let mut types = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        match event_type(name) {
            Ok(kind) => {
                types.insert(kind);
            }
            Err(detail) => faults.push(FieldError::new(
                &format!("/event_types/{index}"),
                "unknown_event_type",
                detail,
            )),
        }
    }
    match faults.is_empty() {
        true => Ok(types),
        false => Err(Error::invalid(faults)),
    }
}

/// What is shown of an endpoint: everything but its secrets.
fn view(ctx: &Ctx, endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.id,
        "merchant_id": endpoint.merchant_id,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "description": endpoint.description,
        "payload": endpoint.payload,
        "filter": endpoint.filter,
        "ordering": endpoint.ordering,
        "log": endpoint.log,
        "rate_limit": endpoint.rate_limit,
        "header_names": endpoint.header_names,
        "jwks_path": format!(
            "/.well-known/webhooks/{}/{}/jwks.json",
            endpoint.merchant_id, endpoint.id
        ),
        "older_secrets_until": endpoint.older_secrets_until(ctx.now()),
        "disabled": endpoint.off,
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    })
}

fn progress(recovery: &recover::Recovery) -> Value {
    json!({
        "state": recovery.state,
        "since": recovery.since,
        "until": recovery.until,
        "looked_at": recovery.looked_at,
        "sent_again": recovery.sent_again,
        "started_at": recovery.started_at,
        "updated_at": recovery.updated_at,
    })
}
