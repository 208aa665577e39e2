//! `/api/v1/webhooks`: a developer's endpoints.

use super::{Request, Response, auth, path_id, whole_list};
use crate::ctx::Ctx;
use crate::error::{Error, FieldError, Result};
use crate::model::event::EventType;
use crate::model::ids::{EndpointId, MerchantId};
use crate::store::keys;
use crate::webhooks::deliver::Delivery;
use crate::webhooks::endpoint::{self, Endpoint, Registration};
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

/// Most deliveries of one reply, and how many come when none is asked for.
pub const DELIVERIES_MAX: usize = 200;
const DELIVERIES_DEFAULT: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEndpoint {
    merchant_id: MerchantId,
    url: Url,
    event_types: Vec<String>,
    secret: Option<SecretString>,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let platform = auth::platform(ctx, request).await?;
        let segments = request.segments();
        let ["api", "v1", "webhooks", rest @ ..] = segments.as_slice() else {
            return Err(request.unknown());
        };
        match (request.method.as_str(), rest) {
            ("POST", ["register"]) => {
                let new: NewEndpoint = request.read()?;
                let merchant = platform.merchant(ctx, &new.merchant_id).await?;
                let (endpoint, secret) =
                    endpoint::register(ctx, &merchant.id, registration(new)?).await?;
                let mut body = view(&endpoint);
                body["secret"] = json!(secret.expose_secret());
                Ok(Response::json(201, &body)?.private())
            }
            ("GET", []) => {
                let merchant = platform.merchant(ctx, &request.merchant_id()?).await?;
                let endpoints = endpoint::list(ctx, &merchant.id).await?;
                Response::json(200, &whole_list(endpoints.iter().map(view).collect()))
            }
            ("GET", [id]) => {
                let merchant = platform.merchant(ctx, &request.merchant_id()?).await?;
                let endpoint = endpoint::load(ctx, &merchant.id, &path_id(id)?).await?;
                Response::json(200, &view(&endpoint))
            }
            ("GET", [id, "attempts"]) => {
                let merchant = platform.merchant(ctx, &request.merchant_id()?).await?;
                let endpoint = endpoint::load(ctx, &merchant.id, &path_id(id)?).await?;
                attempts(ctx, request, &merchant.id, &endpoint.id).await
            }
            _ => Err(request.unknown()),
        }
    })
}

fn registration(new: NewEndpoint) -> Result<Registration> {
    let mut faults = Vec::new();
    let mut event_types = std::collections::BTreeSet::new();
    for (index, name) in new.event_types.iter().enumerate() {
        match EventType::parse(name) {
            Some(kind) => {
                event_types.insert(kind);
            }
            None => faults.push(FieldError::new(
                &format!("/event_types/{index}"),
                "unknown_event_type",
                format!(
                    "this is not an event type; known are {}",
                    EventType::names()
                ),
            )),
        }
    }
    if !faults.is_empty() {
        return Err(Error::invalid(faults));
    }
    Ok(Registration {
        url: new.url,
        event_types,
        secret: new.secret,
    })
}

/// The deliveries of one endpoint with their attempts, a page at a time, by event id.
async fn attempts(
    ctx: &Ctx,
    request: &Request,
    merchant: &MerchantId,
    id: &EndpointId,
) -> Result<Response> {
    let limit = request.limit(DELIVERIES_DEFAULT, DELIVERIES_MAX)?;
    // The cursor is the last event id: it shows nothing of the table and reaches no other group.
    let after = match request.query.get("cursor").map(|text| text.parse()) {
        None => None,
        Some(Ok(event)) => Some(keys::after_delivery(merchant, id, &event)),
        Some(Err(_)) => {
            let detail = "a cursor is the next_cursor of the page before; leave it out to begin";
            return Err(Error::invalid(vec![FieldError::new(
                "/cursor",
                "invalid_cursor",
                detail,
            )]));
        }
    };
    let group = keys::deliveries(merchant, id);
    let page = ctx.store.list(&group, after.as_deref(), limit).await?;
    let deliveries: Vec<Delivery> = page
        .items
        .iter()
        .map(crate::store::Item::read)
        .collect::<Result<_>>()?;
    let next = page
        .next
        .and_then(|_| deliveries.last().map(|last| last.event_id.clone()));
    let has_more = next.is_some();
    let body = json!({
        "data": deliveries, "has_more": has_more, "next_cursor": next, "prev_cursor": null,
    });
    Response::json(200, &body)
}

/// What is shown of an endpoint: everything but its secret.
fn view(endpoint: &Endpoint) -> Value {
    json!({
        "id": endpoint.id,
        "merchant_id": endpoint.merchant_id,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "created_at": endpoint.created_at,
    })
}
