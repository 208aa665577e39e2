//! `/api/v1/merchants`: the merchants of the commerce backend.

use super::auth::{self, Merchant};
use super::{Request, Response, path_id};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::ids::MerchantId;
use crate::model::money::Currency;
use crate::model::text::check_line;
use crate::store::{Condition, Write, WriteError, keys};
use futures::future::BoxFuture;
use serde::Deserialize;

/// Longest name of a merchant.
pub const NAME_CHARACTERS_MAX: usize = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewMerchant {
    id: MerchantId,
    name: String,
    currency: Currency,
}

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["api", "v1", "merchants"]) => register(ctx, request).await,
            ("GET", ["api", "v1", "merchants", id]) => {
                let platform = auth::platform(ctx, request).await?;
                Response::json(200, &platform.merchant(ctx, &path_id(id)?).await?)
            }
            _ => Err(request.unknown()),
        }
    })
}

/// 201 for a new merchant; 200 when the same is registered again.
async fn register(ctx: &Ctx, request: &Request) -> Result<Response> {
    let platform = auth::platform(ctx, request).await?;
    let new: NewMerchant = request.read()?;
    let mut faults = Vec::new();
    check_line(&mut faults, "/name", &new.name, 1, NAME_CHARACTERS_MAX);
    if !faults.is_empty() {
        return Err(Error::invalid(faults));
    }
    let merchant = Merchant {
        id: new.id,
        name: new.name,
        currency: new.currency,
        created_at: ctx.now(),
    };
    let write = Write::put(keys::merchant(&merchant.id), Condition::Absent, &merchant)?;
    match ctx.store.write(write).await {
        Ok(()) => Response::json(201, &merchant),
        Err(WriteError::Condition(_)) => {
            let held = platform.merchant(ctx, &merchant.id).await?;
            if held.name == merchant.name && held.currency == merchant.currency {
                return Response::json(200, &held);
            }
            Err(Error::new(
                Code::Conflict,
                format!(
                    "merchant {} is registered with another name or currency",
                    merchant.id
                ),
            ))
        }
        Err(error) => Err(error.into()),
    }
}
