//! `/hooks/{provider}/{tenant}`: webhooks of providers. Each is verified over the bytes that came, put
//! into a queue, and answered; what it means is found out later.

use super::{BODY_BYTES_MAX, Request, Response};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::notice::HookNotice;
use crate::oauth::setup::credentials;
use crate::oauth::tenant;
use crate::providers::hooks::is_signed;
use crate::providers::provider;
use futures::future::BoxFuture;

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST", ["hooks", provider, tenant]) => take(ctx, request, provider, tenant).await,
            _ => Err(request.unknown()),
        }
    })
}

async fn take(ctx: &Ctx, request: &Request, name: &str, of: &str) -> Result<Response> {
    let known = provider(name).and_then(|provider| Some((provider, provider.hooks()?)));
    let Some((provider, hooks)) = known.filter(|_| {
        ctx.config
            .public_url()
            .map(tenant)
            .is_ok_and(|own| own == of)
    }) else {
        return Err(Error::new(
            Code::NotFound,
            "no webhooks are taken at this address",
        ));
    };
    let key = match credentials(ctx, provider.manifest()).await {
        Ok(credentials) => credentials.get(hooks.key()).cloned(),
        Err(error) if error.code() == Code::FeatureDisabled => None,
        Err(error) => return Err(error),
    };
    let Some(key) = key else {
        tracing::error!(
            provider = name,
            "a webhook came, and the key of signatures is not set up"
        );
        return Ok(empty(401));
    };
    let signature = request
        .headers
        .get(hooks.header())
        .map_or("", String::as_str);
    if !is_signed(&key, &request.body, signature) {
        tracing::warn!(provider = name, "a webhook with a wrong signature");
        return Ok(empty(401));
    }
    let notice = HookNotice {
        provider: name.to_owned(),
        received_at: ctx.now(),
        body: String::from_utf8_lossy(&request.body).into_owned(),
    };
    let message = serde_json::to_string(&notice).map_err(Error::internal)?;
    // A queue takes no larger message.
    if message.len() > BODY_BYTES_MAX {
        return Err(Error::new(
            Code::PayloadTooLarge,
            "this webhook is too large",
        ));
    }
    ctx.queue
        .send(ctx.config.hooks_queue()?, vec![message])
        .await?;
    Ok(empty(200))
}

/// Xero takes an answer with a body for a failure.
fn empty(status: u16) -> Response {
    Response {
        status,
        headers: Vec::new(),
        body: String::new(),
    }
}
