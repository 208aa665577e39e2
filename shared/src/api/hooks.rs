//! `/hooks/{provider}/{tenant}`: webhooks of providers. Each is verified over the bytes that came, put
//! into a queue, and answered; what it means is found out later.

use super::{BODY_BYTES_MAX, Request, Response};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http;
use crate::model::notice::{HookNotice, HookReceipt, HookState};
use crate::net::Limits;
use crate::oauth::setup::{credentials, site};
use crate::oauth::tenant;
use crate::providers::certificate::Certificates;
use crate::providers::hooks::{Delivery, Hooks, Proof, Rule, Verdict, judge, keys};
use crate::providers::{Credentials, Manifest, provider};
use crate::store::{Condition, Write, keys as places};
use futures::future::BoxFuture;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use std::sync::PoisonError;
use std::time::Duration;
use url::Url;

/// What a certificate may take. A provider waits for its answer meanwhile, once for each certificate.
const CERTIFICATE: Limits = Limits {
    total: Duration::from_secs(3),
    body_bytes_max: 64 << 10,
    cut: false,
};
/// So many certificates are held: a provider has one, and another while it is replaced.
const CERTIFICATES_MAX: usize = 16;

pub fn handle<'a>(ctx: &'a Ctx, request: &'a Request) -> BoxFuture<'a, Result<Response>> {
    Box::pin(async move {
        match (request.method.as_str(), request.segments().as_slice()) {
            ("POST" | "GET", ["hooks", provider, tenant]) => {
                take(ctx, request, provider, tenant).await
            }
            _ => Err(request.unknown()),
        }
    })
}

async fn take(ctx: &Ctx, request: &Request, name: &str, of: &str) -> Result<Response> {
    let nowhere = || Error::new(Code::NotFound, "no webhooks are taken at this address");
    let known = provider(name).and_then(|provider| Some((provider, provider.hooks()?)));
    let (provider, hooks) = known.ok_or_else(nowhere)?;
    let base = ctx.config.public_url()?;
    let asked = request.method == "GET";
    // An address is one to the letter, since some providers sign it.
    let plain = request.query.is_empty() || hooks.rule() == Rule::Bearer;
    if tenant(base) != of || !plain || (asked && !hooks.probes()) {
        return Err(nowhere());
    }
    if request.body.len() > BODY_BYTES_MAX {
        return Err(too_large());
    }
    let url = format!("{base}/hooks/{name}/{of}");
    let delivery = Delivery {
        method: &request.method,
        url: &url,
        query: &request.query,
        headers: &request.headers,
        body: &request.body,
    };
    if !is_proven(ctx, provider.manifest(), hooks, &delivery).await? {
        if hooks.bare() {
            return Ok(empty(401));
        }
        let title = provider.manifest().title;
        return Err(Error::new(
            Code::SignatureRefused,
            format!("this is not signed as {title} signs, or was signed too long ago"),
        ));
    }
    if hooks.probes() && (asked || request.body.is_empty()) {
        return Ok(empty(200));
    }
    queue(ctx, request, name, hooks).await
}

/// Whether the delivery comes from the provider, and not from somebody who has seen an old one. What is
/// wrong is for the log: a stranger need not know it.
async fn is_proven(
    ctx: &Ctx,
    manifest: &Manifest,
    hooks: &dyn Hooks,
    delivery: &Delivery<'_>,
) -> Result<bool> {
    let provider = manifest.name;
    let credentials = match credentials(ctx, manifest).await {
        Ok(credentials) => Some(credentials),
        Err(error) if error.code() == Code::FeatureDisabled => None,
        Err(error) => return Err(error),
    };
    let member = credentials
        .as_ref()
        .and_then(|held| Some((held, held.get(hooks.key())?)));
    let Some((credentials, member)) = member else {
        tracing::error!(
            provider,
            "a webhook came, and the key of signatures is not set up"
        );
        return Ok(false);
    };
    let mut worst = Verdict::Wrong;
    for key in keys(member) {
        let Some(proof) = hooks.proof(delivery, key.expose_secret()) else {
            continue;
        };
        let certificates = certificates(ctx, manifest, credentials, hooks, &proof).await?;
        match judge(hooks, &proof, &key, certificates.as_ref(), ctx.now()) {
            Verdict::Good => return Ok(true),
            Verdict::Wrong => {}
            untimely => worst = untimely,
        }
    }
    match worst {
        Verdict::Untimely(seconds) => tracing::warn!(
            provider,
            seconds,
            "a webhook with a good signature of another time: an old one, or a clock is off"
        ),
        _ => tracing::warn!(provider, "a webhook with a wrong signature"),
    }
    Ok(false)
}

/// The certificates that a proof names, where a provider signs by one. They are kept as long as the
/// process lives, and judged anew each time.
async fn certificates(
    ctx: &Ctx,
    manifest: &Manifest,
    credentials: &Credentials,
    hooks: &dyn Hooks,
    proof: &Proof<'_>,
) -> Result<Option<Certificates>> {
    let Some(url) = &proof.certificate else {
        return Ok(None);
    };
    if !site(manifest, credentials)?.admits(url) {
        tracing::warn!(
            provider = manifest.name,
            host = url.host_str(),
            "a webhook names a certificate that is not the provider's"
        );
        return Ok(None);
    }
    let held = ctx
        .certificates
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(url)
        .cloned();
    if held.is_some() {
        return Ok(held);
    }
    let Some(read) = fetch(ctx, url).await? else {
        return Ok(None);
    };
    let read = hooks.certificates(&read, &credentials.environment);
    if let Some(read) = &read {
        let mut held = ctx
            .certificates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if held.len() >= CERTIFICATES_MAX {
            held.clear();
        }
        held.insert(url.clone(), read.clone());
    }
    Ok(read)
}

/// What stands at `url`. `None` when nothing does.
async fn fetch(ctx: &Ctx, url: &Url) -> Result<Option<Vec<u8>>> {
    let request = http::Request::new(http::Method::Get, url.clone());
    let answer = ctx.net.send(request, CERTIFICATE).await?;
    match answer.status {
        200 => Ok(Some(answer.body)),
        429 | 500.. => Err(Error::new(
            Code::UpstreamFailed,
            "the certificate of this signature cannot be had now; send it again",
        )),
        _ => Ok(None),
    }
}

/// Hands on what is new. What was handed on is noted after that, so that nothing is lost in between; two
/// copies that come at the same moment are both handed on, which does no harm.
async fn queue(
    ctx: &Ctx,
    request: &Request,
    provider: &str,
    hooks: &dyn Hooks,
) -> Result<Response> {
    let event = hooks.event(&request.body).map(|name| {
        let hash = Sha256::digest(name.as_bytes());
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    });
    let place = event
        .as_ref()
        .map(|event: &String| places::hook(provider, event));
    if let Some(place) = &place
        && ctx.store.get(place).await?.is_some()
    {
        tracing::info!(provider, "a webhook that came before");
        return Ok(empty(200));
    }
    let notice = HookNotice {
        provider: provider.to_owned(),
        received_at: ctx.now(),
        event,
        body: String::from_utf8_lossy(&request.body).into_owned(),
    };
    let message = serde_json::to_string(&notice).map_err(Error::internal)?;
    // A queue takes no larger message.
    if message.len() > BODY_BYTES_MAX {
        return Err(too_large());
    }
    ctx.queue
        .send(ctx.config.hooks_queue()?, vec![message])
        .await?;
    if let Some(place) = place {
        let receipt = HookReceipt {
            received_at: notice.received_at,
            state: HookState::Queued,
        };
        // The function that applies it may have been faster.
        let write = Write::put(place, Condition::Absent, &receipt)?.expiring(receipt.ends());
        if let Err(error) = ctx.store.write(write).await {
            tracing::warn!(provider, ?error, "a webhook will not be known again");
        }
    }
    Ok(empty(200))
}

fn too_large() -> Error {
    Error::new(Code::PayloadTooLarge, "this webhook is too large")
}

/// Xero takes an answer with a body for a failure.
fn empty(status: u16) -> Response {
    Response {
        status,
        headers: Vec::new(),
        body: String::new(),
    }
}
