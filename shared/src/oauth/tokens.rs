//! Tokens: fetched with a code, refreshed by one function at a time, stored before they are used.

use super::connection::{Connection, Lease, Status, Tokens, load};
use super::vault;
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http::{Authorization, Method, Request};
use crate::net::Limits;
use crate::providers::{Manifest, Site};
use crate::store::WriteError;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use oauth2::basic::{BasicClient, BasicErrorResponseType};
use oauth2::{
    AsyncHttpClient, AuthUrl, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, RedirectUrl, RefreshToken, RequestTokenError,
    TokenResponse, TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// An access token is renewed when less than this is left of it.
const MARGIN: TimeDelta = TimeDelta::minutes(2);
/// Longer than the outbound client's total time, so that a lease outlives its call.
const LEASE: TimeDelta = TimeDelta::seconds(45);
/// What is assumed when a provider does not say how long an access token lives.
const LIFE_DEFAULT: TimeDelta = TimeDelta::minutes(30);

/// The OAuth client of one provider, as its secret holds it.
#[derive(Deserialize)]
struct ClientSecrets {
    client_id: String,
    client_secret: SecretString,
}

/// Both tokens, as they are sealed.
#[derive(Serialize, Deserialize)]
struct Pair {
    access: String,
    refresh: Option<String>,
}

pub(super) type OAuthClient =
    BasicClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointSet>;

/// Where `manifest`'s provider is in this deployment.
pub fn site(ctx: &Ctx, manifest: &Manifest) -> Result<Site> {
    let environment = ctx.config.provider_environment(manifest.name)?;
    manifest.site(environment).ok_or_else(|| {
        Error::internal(format!(
            "{environment:?} is no environment of {}",
            manifest.title
        ))
    })
}

/// The OAuth client of a provider: id and secret from the vault, addresses from its manifest.
pub(super) async fn client(ctx: &Ctx, manifest: &Manifest) -> Result<OAuthClient> {
    let site = site(ctx, manifest)?;
    let secret = ctx
        .secrets
        .get(ctx.config.provider_secret(manifest.name)?)
        .await?;
    let secrets: ClientSecrets = serde_json::from_str(secret.expose_secret()).map_err(|_| {
        Error::new(
            Code::Internal,
            format!("{} is not set up on this platform", manifest.title),
        )
        .because(format!(
            "the secret of {} lacks client_id or client_secret",
            manifest.name
        ))
    })?;
    Ok(BasicClient::new(ClientId::new(secrets.client_id))
        .set_client_secret(ClientSecret::new(
            secrets.client_secret.expose_secret().to_owned(),
        ))
        .set_auth_uri(AuthUrl::from_url(site.authorize))
        .set_token_uri(TokenUrl::from_url(site.token)))
}

/// Carries requests of the `oauth2` crate through the one outbound client.
struct Carrier<'a>(&'a Ctx);

impl<'c> AsyncHttpClient<'c> for Carrier<'_> {
    type Error = Error;
    type Future = BoxFuture<'c, Result<HttpResponse>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let headers = request.headers().iter().map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            });
            let request = Request {
                method: Method::Post,
                url: request.uri().to_string().parse().map_err(Error::internal)?,
                headers: headers.collect(),
                authorization: Authorization::None,
                body: request.body().clone(),
            };
            let answer = self.0.net.send(request, Limits::PROVIDER).await?;
            let mut response = oauth2::http::Response::builder().status(answer.status);
            if let Some(content_type) = answer.header("content-type") {
                response = response.header("content-type", content_type);
            }
            response.body(answer.body).map_err(Error::internal)
        })
    }
}

type TokenError = RequestTokenError<Error, oauth2::basic::BasicErrorResponse>;

/// Whether the provider said that what we hold is no longer good.
fn is_invalid_grant(error: &TokenError) -> bool {
    matches!(error, RequestTokenError::ServerResponse(answer)
        if *answer.error() == BasicErrorResponseType::InvalidGrant)
}

fn token_error(manifest: &Manifest, error: TokenError) -> Error {
    let title = manifest.title;
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(answer) => {
            let said = answer.error().as_ref();
            Error::new(
                Code::UpstreamRefused,
                format!("{title} did not give tokens: {said}"),
            )
        }
        // The body of an answer that cannot be read may hold tokens, so it is not kept.
        RequestTokenError::Parse(..) | RequestTokenError::Other(_) => Error::new(
            Code::UpstreamFailed,
            format!("{title} sent no readable answer"),
        ),
    }
}

async fn seal(
    ctx: &Ctx,
    owner: &str,
    answer: &impl TokenResponse,
    old_refresh: Option<String>,
) -> Result<(Tokens, SecretString)> {
    let life = answer
        .expires_in()
        .and_then(|life| TimeDelta::from_std(life).ok());
    let access = answer.access_token().secret().clone();
    let refresh = answer
        .refresh_token()
        .map(|token| token.secret().clone())
        .or(old_refresh);
    let pair = Pair {
        access: access.clone(),
        refresh,
    };
    let text = serde_json::to_string(&pair).map_err(Error::internal)?;
    let sealed = vault::seal(ctx, owner, &SecretString::from(text)).await?;
    let access_expires_at = ctx.now() + life.unwrap_or(LIFE_DEFAULT);
    Ok((
        Tokens {
            sealed,
            access_expires_at,
        },
        SecretString::from(access),
    ))
}

/// Exchanges an authorization code. Returns the sealed pair, and the access token for a first call.
pub(super) async fn exchange(
    ctx: &Ctx,
    manifest: &Manifest,
    redirect: &RedirectUrl,
    owner: &str,
    code: String,
) -> Result<(Tokens, SecretString)> {
    let client = client(ctx, manifest)
        .await?
        .set_redirect_uri(redirect.clone());
    let answer = client
        .exchange_code(AuthorizationCode::new(code))
        .request_async(&Carrier(ctx))
        .await
        .map_err(|error| token_error(manifest, error))?;
    seal(ctx, owner, &answer, None).await
}

async fn pair(ctx: &Ctx, connection: &Connection) -> Result<Pair> {
    let tokens = connection
        .tokens
        .as_ref()
        .ok_or_else(|| reauth(connection))?;
    let text = vault::open(ctx, connection.vault_owner(), &tokens.sealed).await?;
    serde_json::from_str(text.expose_secret())
        .map_err(|_| Error::internal("a sealed pair of tokens cannot be read"))
}

fn reauth(connection: &Connection) -> Error {
    let detail = format!("{} has to be connected again", connection.provider);
    Error::new(Code::ConnectionReauthRequired, detail)
}

/// An access token that is good for at least a while. `refused` is one that the provider has just
/// refused: it is not given out again.
///
/// Only one function refreshes at a time (a lease in the connection's own item); the others hear
/// `busy` and come back. The new pair is stored before it is used, because a provider that rotates
/// refresh tokens takes the old one back.
pub async fn access_token(
    ctx: &Ctx,
    manifest: &Manifest,
    connection: &Connection,
    refused: Option<&SecretString>,
) -> Result<SecretString> {
    let (rev, mut current) = load(ctx, &connection.merchant_id, &connection.id).await?;
    if current.status != Status::Live {
        return Err(reauth(&current));
    }
    let held = pair(ctx, &current).await?;
    let now = ctx.now();
    let fresh = current
        .tokens
        .as_ref()
        .is_some_and(|t| t.access_expires_at - MARGIN > now);
    let was_refused = refused.is_some_and(|token| token.expose_secret() == held.access);
    if fresh && !was_refused {
        return Ok(SecretString::from(held.access));
    }
    let Some(refresh) = held.refresh.clone() else {
        return Err(reauth(&current));
    };
    if current
        .lease
        .as_ref()
        .is_some_and(|lease| lease.until > now)
    {
        return Err(Error::new(Code::Busy, "the tokens are being renewed"));
    }
    let owner = ctx.uuid().to_string();
    current.lease = Some(Lease {
        owner,
        until: now + LEASE,
    });
    match ctx.store.write(current.write(Some(rev))?).await {
        Ok(()) => {}
        Err(WriteError::Condition(_) | WriteError::Contended) => {
            return Err(Error::new(Code::Busy, "the tokens are being renewed"));
        }
        Err(WriteError::Failed(error)) => return Err(error),
    }
    renew(ctx, manifest, current, rev + 1, refresh, now).await
}

async fn renew(
    ctx: &Ctx,
    manifest: &Manifest,
    mut current: Connection,
    rev: u64,
    refresh: String,
    now: DateTime<Utc>,
) -> Result<SecretString> {
    let client = client(ctx, manifest).await?;
    let token = RefreshToken::new(refresh.clone());
    let answer = client
        .exchange_refresh_token(&token)
        .request_async(&Carrier(ctx))
        .await;
    current.lease = None;
    current.updated_at = now;
    match answer {
        Ok(answer) => {
            let owner = current.vault_owner().to_owned();
            let (tokens, access) = seal(ctx, &owner, &answer, Some(refresh)).await?;
            current.tokens = Some(tokens);
            // The lease keeps everybody else away, so a refused write is a lost lease: the tokens
            // that were just given may be the only good ones, so the newest write wins.
            ctx.store.write(current.write(Some(rev))?).await?;
            Ok(access)
        }
        Err(error) if is_invalid_grant(&error) => {
            tracing::warn!(
                merchant_id = %current.merchant_id, connection_id = %current.id,
                "the provider no longer takes the refresh token"
            );
            current.status = Status::ReauthRequired;
            ctx.store.write(current.write(Some(rev))?).await?;
            Err(reauth(&current))
        }
        Err(error) => {
            // Give the lease back, so that the next try need not wait for its end.
            ctx.store.write(current.write(Some(rev))?).await?;
            Err(token_error(manifest, error))
        }
    }
}
