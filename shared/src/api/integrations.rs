//! `/api/v1/integrations`: a merchant's connections to providers.

use super::{Request, Response, auth, path_id, whole_list};
use crate::ctx::Ctx;
use crate::error::{Error, Result};
use crate::model::ids::MerchantId;
use crate::oauth::connect;
use crate::oauth::connection::{self, Connection};
use crate::providers::accounting;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConnectRequest {
    merchant_id: MerchantId,
    return_url: Url,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmRequest {
    merchant_id: MerchantId,
    confirmation: SecretString,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        let platform = auth::platform(ctx, request).await?;
        let segments = request.segments();
        let ["api", "v1", "integrations", rest @ ..] = segments.as_slice() else {
            return Err(request.unknown());
        };
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                let merchant = platform.merchant(ctx, &request.merchant_id()?).await?;
                let connections = connection::list(ctx, &merchant.id).await?;
                let data = connections
                    .iter()
                    .map(|(_, connection)| view(connection))
                    .collect();
                Response::json(200, &whole_list(data))
            }
            ("POST", [category, provider, "connect"]) => {
                let known = accounting(provider)
                    .filter(|known| known.manifest().category.as_str() == *category);
                let known = known.ok_or_else(|| request.unknown())?;
                let body: ConnectRequest = request.read()?;
                let merchant = platform.merchant(ctx, &body.merchant_id).await?;
                let name = known.manifest().name;
                let link = connect::create_link(ctx, &merchant.id, name, body.return_url).await?;
                Response::json(201, &link)
            }
            ("GET", [category, id]) => {
                let merchant = platform.merchant(ctx, &request.merchant_id()?).await?;
                let (_, connection) = connection::load(ctx, &merchant.id, &path_id(id)?).await?;
                in_category(&connection, category)?;
                Response::json(200, &view(&connection))
            }
            ("POST", [category, id, "confirm"]) => {
                let body: ConfirmRequest = request.read()?;
                let merchant = platform.merchant(ctx, &body.merchant_id).await?;
                let id = path_id(id)?;
                let (_, connection) = connection::load(ctx, &merchant.id, &id).await?;
                in_category(&connection, category)?;
                let confirmation = body.confirmation.expose_secret();
                let connection = connect::confirm(ctx, &merchant.id, &id, confirmation).await?;
                Response::json(200, &view(&connection))
            }
            _ => Err(request.unknown()),
        }
    })
}

fn in_category(connection: &Connection, category: &str) -> Result<()> {
    if connection.category.as_str() == category {
        return Ok(());
    }
    Err(Error::not_found(format!("connection {}", connection.id)))
}

/// What is shown of a connection: everything but its secrets.
fn view(connection: &Connection) -> Value {
    json!({
        "id": connection.id,
        "merchant_id": connection.merchant_id,
        "provider": connection.provider,
        "category": connection.category,
        "status": connection.status,
        "tenant_id": connection.tenant_id,
        "tenant_name": connection.tenant_name,
        "scopes": connection.scopes,
        "created_at": connection.created_at,
        "updated_at": connection.updated_at,
    })
}
