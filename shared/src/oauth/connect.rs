//! The connect flow. Three proofs, because each alone leaves a hole:
//!
//! - `state`, single use, ties the provider's answer to one start (RFC 6749 §10.12);
//! - a cookie ties the finish to the browser that started, so a callback cannot be planted;
//! - a confirmation, which reaches the commerce backend only through that browser's session with
//!   it, ties the connection to a person whom the backend knows: a link sent to somebody else ends
//!   in a connection that never leaves `pending`.

use super::connection::{Connection, Consent, Status, list, load};
use super::{hash, redirect_uri, tenant, tokens};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::http::Authorization;
use crate::model::ids::{ConnectionId, LinkId, MerchantId};
use crate::net::{Guard, Limits};
use crate::providers::{Accounting, Manifest, Tenant, accounting};
use crate::store::{Condition, Key, Write, WriteError, keys};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{CsrfToken, RedirectUrl, Scope};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use subtle::ConstantTimeEq;
use url::Url;

/// How long a link, and the consent that it leads to, can be used.
const LINK_LIFE: TimeDelta = TimeDelta::minutes(30);
/// The cookie that marks the browser which started.
pub const COOKIE: &str = "crossdock_connect";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Link {
    merchant_id: MerchantId,
    provider: String,
    return_url: Url,
    expires_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    link_hash: String,
    link: Link,
    cookie_hash: String,
}

/// A link to be opened by the merchant's browser.
#[derive(Debug, Serialize)]
pub struct NewLink {
    pub id: LinkId,
    pub url: String,
    pub expires_at: DateTime<Utc>,
}

/// Where the browser goes next, and the cookie that it keeps.
#[derive(Debug)]
pub struct Started {
    pub authorize_url: Url,
    pub cookie: String,
}

fn secret(ctx: &Ctx) -> String {
    BASE64.encode(ctx.random::<32>())
}

fn expired() -> Error {
    Error::new(
        Code::LinkExpired,
        "this link was used already or is older than 30 minutes; go back to the shop and start again",
    )
}

fn provider(name: &str) -> Result<&'static dyn Accounting> {
    accounting(name)
        .ok_or_else(|| Error::new(Code::NotFound, format!("no provider is named {name}")))
}

fn redirect(ctx: &Ctx, manifest: &Manifest) -> Result<RedirectUrl> {
    let uri = redirect_uri(ctx.config.public_url()?, manifest.name);
    RedirectUrl::new(uri).map_err(Error::internal)
}

/// Makes a link that lets one browser connect `merchant` to the provider `name`.
pub async fn create_link(
    ctx: &Ctx,
    merchant: &MerchantId,
    name: &str,
    return_url: Url,
) -> Result<NewLink> {
    provider(name)?;
    // The confirmation travels to this address, so it must be as good as an address that we call.
    let fits = Guard::new(ctx.config.allow_loopback())
        .check_url(&return_url)
        .is_ok();
    if !fits || return_url.query().is_some() || return_url.fragment().is_some() {
        return Err(Error::invalid(vec![FieldError::new(
            "/return_url",
            "invalid_value",
            "return_url must be an https URL of a public host, without user, query or fragment",
        )]));
    }
    let secret = secret(ctx);
    let expires_at = ctx.now() + LINK_LIFE;
    let link = Link {
        merchant_id: merchant.clone(),
        provider: name.to_owned(),
        return_url,
        expires_at,
    };
    let write = Write::put(keys::connect_link(&hash(&secret)), Condition::Absent, &link)?
        .expiring(expires_at.timestamp());
    ctx.store.write(write).await?;
    let url = format!("{}/connect/{secret}", ctx.config.public_url()?);
    Ok(NewLink {
        id: LinkId::new(ctx.uuid()),
        url,
        expires_at,
    })
}

/// Opens a link: notes this browser and sends it to the provider. A link may be opened again (a mail
/// scanner may have opened it first) until one consent is finished.
pub async fn start(ctx: &Ctx, link_secret: &str) -> Result<Started> {
    let link_hash = hash(link_secret);
    let item = ctx
        .store
        .get(&keys::connect_link(&link_hash))
        .await?
        .ok_or_else(expired)?;
    let link: Link = item.read()?;
    if link.expires_at <= ctx.now() {
        return Err(expired());
    }
    let manifest = provider(&link.provider)?.manifest();
    let redirect = redirect(ctx, manifest)?;
    let client = tokens::client(ctx, manifest)
        .await?
        .set_redirect_uri(redirect);
    let (state, cookie) = (secret(ctx), secret(ctx));
    let expires_at = link.expires_at.timestamp();
    let document = State {
        link_hash,
        link,
        cookie_hash: hash(&cookie),
    };
    let key = keys::connect_state(&hash(&state));
    ctx.store
        .write(Write::put(key, Condition::Absent, &document)?.expiring(expires_at))
        .await?;
    let scopes = manifest
        .scopes
        .iter()
        .map(|scope| Scope::new((*scope).to_owned()));
    let (authorize_url, _) = client
        .authorize_url(|| CsrfToken::new(state))
        .add_scopes(scopes)
        .url();
    Ok(Started {
        authorize_url,
        cookie,
    })
}

/// What the provider sent back with the browser.
#[derive(Debug, Default)]
pub struct Callback {
    pub provider: String,
    pub tenant: String,
    pub state: Option<String>,
    pub code: Option<String>,
    pub error: Option<String>,
    pub tenant_id: Option<String>,
    pub cookie: Option<String>,
}

/// Finishes a consent and returns where the browser goes: the backend's return address, with the
/// confirmation that makes the connection live.
pub async fn finish(ctx: &Ctx, callback: Callback) -> Result<Url> {
    let public_url = ctx.config.public_url()?;
    let accounting = provider(&callback.provider)?;
    let manifest = accounting.manifest();
    let state_key = keys::connect_state(&hash(callback.state.as_deref().unwrap_or_default()));
    let item = ctx.store.get(&state_key).await?.ok_or_else(expired)?;
    let state: State = item.read()?;
    // The address must be the one that was sent out, and the browser the one that started.
    if state.link.provider != manifest.name || callback.tenant != tenant(public_url) {
        return Err(expired());
    }
    let cookie_hash = hash(callback.cookie.as_deref().unwrap_or_default());
    if !bool::from(cookie_hash.as_bytes().ct_eq(state.cookie_hash.as_bytes())) {
        return Err(Error::new(
            Code::SessionMismatch,
            "the connection was started in another browser; open the link again in this one",
        ));
    }
    if state.link.expires_at <= ctx.now() {
        return Err(expired());
    }
    if let Some(error) = &callback.error {
        consume(ctx, vec![state_key]).await?;
        let said: String = error
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(64)
            .collect();
        return Err(Error::new(
            Code::AuthorizationRefused,
            format!(
                "{} was not connected ({said}); go back to the shop to try again",
                manifest.title
            ),
        ));
    }
    let (Some(code), Some(tenant_id)) = (callback.code, callback.tenant_id) else {
        return Err(Error::new(
            Code::AuthorizationRefused,
            format!(
                "{} sent back neither a consent nor a refusal",
                manifest.title
            ),
        ));
    };
    // From here on the link is used up, whatever comes: a code can be exchanged once.
    consume(ctx, vec![state_key, keys::connect_link(&state.link_hash)]).await?;
    let merchant = &state.link.merchant_id;
    let known = list(ctx, merchant)
        .await?
        .into_iter()
        .find(|(_, connection)| {
            connection.provider == manifest.name && connection.tenant_id == tenant_id
        });
    let now = ctx.now();
    let (rev, mut connection) = match known {
        Some((rev, connection)) => (Some(rev), connection),
        None => (
            None,
            Connection {
                id: ConnectionId::new(ctx.uuid()),
                merchant_id: merchant.clone(),
                provider: manifest.name.to_owned(),
                category: manifest.category,
                status: Status::Pending,
                tenant_id,
                tenant_name: None,
                scopes: manifest
                    .scopes
                    .iter()
                    .map(|scope| (*scope).to_owned())
                    .collect(),
                tokens: None,
                consent: None,
                lease: None,
                created_at: now,
                updated_at: now,
            },
        ),
    };
    let redirect = redirect(ctx, manifest)?;
    let owner = connection.vault_owner().to_owned();
    let (tokens, access) = tokens::exchange(ctx, manifest, &redirect, &owner, code).await?;
    let tenant = Tenant {
        api: tokens::site(ctx, manifest)?.api,
        id: connection.tenant_id.clone(),
    };
    connection.tenant_name = tenant_name(ctx, accounting, &tenant, access).await;
    let confirmation = secret(ctx);
    connection.consent = Some(Consent {
        tokens,
        confirmation_hash: hash(&confirmation),
        expires_at: now + LINK_LIFE,
    });
    connection.updated_at = now;
    ctx.store.write(connection.write(rev)?).await?;
    let mut url = state.link.return_url;
    url.query_pairs_mut()
        .append_pair("connection_id", connection.id.as_str())
        .append_pair("merchant_id", connection.merchant_id.as_str())
        .append_pair("confirmation", &confirmation)
        .append_pair("status", "pending");
    Ok(url)
}

/// Deletes what may be used once; whoever comes second finds it gone.
async fn consume(ctx: &Ctx, once: Vec<Key>) -> Result<()> {
    let delete = |key| Write::Delete {
        key,
        condition: Condition::Present,
    };
    match ctx
        .store
        .transact(once.into_iter().map(delete).collect())
        .await
    {
        Err(WriteError::Condition(_) | WriteError::Contended) => Err(expired()),
        other => Ok(other?),
    }
}

/// The company's name, for people. A connection without it works as well.
async fn tenant_name(
    ctx: &Ctx,
    accounting: &dyn Accounting,
    tenant: &Tenant,
    access: secrecy::SecretString,
) -> Option<String> {
    let mut answers = Vec::new();
    for mut request in accounting.settings_requests(tenant) {
        request.authorization = Authorization::Bearer(access.clone());
        answers.push(ctx.net.send(request, Limits::PROVIDER).await.ok()?);
    }
    let settings: Value = accounting.read_settings(&answers).ok()?;
    accounting.tenant_name(&settings)
}

/// Makes a connection live: the backend shows the confirmation that its own user brought back.
pub async fn confirm(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    confirmation: &str,
) -> Result<Connection> {
    let (rev, mut connection) = load(ctx, merchant, id).await?;
    let matches = connection.consent.as_ref().is_some_and(|consent| {
        let given = hash(confirmation);
        consent.expires_at > ctx.now()
            && bool::from(given.as_bytes().ct_eq(consent.confirmation_hash.as_bytes()))
    });
    let Some(consent) = connection.consent.take_if(|_| matches) else {
        return Err(Error::invalid(vec![FieldError::new(
            "/confirmation",
            "invalid_value",
            "this confirmation was used already, is older than 30 minutes, or is not of this \
             connection; connect again",
        )]));
    };
    connection.tokens = Some(consent.tokens);
    connection.status = Status::Live;
    connection.lease = None;
    connection.updated_at = ctx.now();
    ctx.store.write(connection.write(Some(rev))?).await?;
    Ok(connection)
}
