//! A provider as it is set up here: the platform's credentials, the provider's addresses, and the calls
//! that fetch tokens and ask whose they are, carried between the words of RFC 6749 and a provider's own.

use super::connect::one_word;
use super::connection::{Connection, PATIENCE_LONG};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http::{Authorization, Method, Request};
use crate::net::Limits;
use crate::providers::{
    AccessLife, Account, ClientAuth, CodeFlow, Credentials, Fault, Grant, Manifest, Provider, Site,
    TENANT, json_answer,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::BoxFuture;
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse,
    BasicTokenIntrospectionResponse, BasicTokenType,
};
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, EndpointNotSet,
    EndpointSet, ExtraTokenFields, HttpRequest, HttpResponse, PkceCodeVerifier, RedirectUrl,
    RefreshToken, RequestTokenError, StandardRevocableToken, StandardTokenResponse, TokenResponse,
    TokenUrl,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// The platform's own credentials at a provider, as its secret holds them.
pub async fn credentials(ctx: &Ctx, manifest: &Manifest) -> Result<Credentials> {
    let secret = ctx
        .secrets
        .get(&ctx.config.provider_secret(manifest.name)?)
        .await?;
    let not_set_up = |why: String| {
        Error::new(
            Code::FeatureDisabled,
            format!(
                "{} is not set up on this platform; its operator sets it up with `make configure`",
                manifest.title
            ),
        )
        .because(why)
    };
    let credentials: Credentials = serde_json::from_str(secret.expose_secret())
        .map_err(|_| not_set_up(format!("the secret of {} is no object", manifest.name)))?;
    let required = manifest.credentials.iter().filter(|one| one.required);
    for credential in required {
        if credentials.get(credential.member).is_none() {
            let (name, member) = (manifest.name, credential.member);
            return Err(not_set_up(format!("the secret of {name} lacks {member}")));
        }
    }
    Ok(credentials)
}

/// Where a provider is, as its credentials say.
pub fn site(manifest: &Manifest, credentials: &Credentials) -> Result<Site> {
    let environment = &credentials.environment;
    manifest.site(environment).ok_or_else(|| {
        Error::internal(format!(
            "{environment:?} is no environment of {}",
            manifest.title
        ))
    })
}

/// No access token lives for so long: what says so is no answer to be believed.
const LIFE_SECONDS_MAX: f64 = 10.0 * 365.0 * 86_400.0;
/// Longest id and name of an account that are kept, in characters.
const ACCOUNT_ID_MAX: usize = 200;
const ACCOUNT_NAME_MAX: usize = 200;

/// Members of a token answer beside those of RFC 6749.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Beside {
    #[serde(flatten)]
    members: BTreeMap<String, Value>,
}

impl ExtraTokenFields for Beside {}

type Answer = StandardTokenResponse<Beside, BasicTokenType>;

pub(super) type OAuthClient = oauth2::Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The OAuth client of a provider: id and secret from its credentials, addresses from its manifest.
pub(super) fn client(flow: &CodeFlow, site: &Site, credentials: &Credentials) -> OAuthClient {
    let client = oauth2::Client::new(ClientId::new(credentials.text("client_id").to_owned()))
        .set_auth_uri(AuthUrl::from_url(site.authorize.clone()))
        .set_token_uri(TokenUrl::from_url(site.token.clone()));
    let secret = ClientSecret::new(credentials.text("client_secret").to_owned());
    match flow.client_auth {
        ClientAuth::Basic => client.set_client_secret(secret),
        ClientAuth::Form | ClientAuth::Json => client
            .set_client_secret(secret)
            .set_auth_type(AuthType::RequestBody),
        // The carrier adds it.
        ClientAuth::Bearer => client.set_auth_type(AuthType::RequestBody),
    }
}

/// A call for tokens that has less time than this is not begun: it may use up what it was made with.
const TOKENS_LEAST: Duration = Duration::from_secs(10);
/// Other calls are begun as long as they have this.
const CALL_LEAST: Duration = Duration::from_secs(1);
/// What is kept of the function's time for what follows a call: storing what it gave or found.
const AFTER_CALL: Duration = Duration::from_secs(3);

/// What a call for tokens may use up: what it gives has still to be stored.
///
/// # Errors
/// [`Code::Busy`] when there is too little time left for it.
pub(super) fn token_limits(ctx: &Ctx) -> Result<Limits> {
    ctx.within(Limits::PROVIDER, TOKENS_LEAST, PATIENCE_LONG)
}

/// What another call may use up of `limits`.
///
/// # Errors
/// [`Code::Busy`] when there is too little time left for it.
pub(super) fn call_limits(ctx: &Ctx, limits: Limits) -> Result<Limits> {
    ctx.within(limits, CALL_LEAST, AFTER_CALL)
}

/// Carries requests of the `oauth2` crate through the one outbound client, and between the words of
/// RFC 6749 and a provider's own.
struct Carrier<'a> {
    ctx: &'a Ctx,
    provider: &'a dyn Provider,
    auth: ClientAuth,
    credentials: &'a Credentials,
}

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
            let mut outbound = Request {
                method: Method::Post,
                url: request.uri().to_string().parse().map_err(Error::internal)?,
                headers: headers.collect(),
                authorization: Authorization::None,
                body: request.body().clone(),
            };
            match self.auth {
                ClientAuth::Basic | ClientAuth::Form => {}
                ClientAuth::Bearer => {
                    let key = self.credentials.get("client_secret").cloned();
                    outbound.authorization = Authorization::Bearer(key.unwrap_or_default());
                }
                ClientAuth::Json => {
                    let members: BTreeMap<String, String> =
                        url::form_urlencoded::parse(&outbound.body)
                            .into_owned()
                            .collect();
                    outbound.headers.retain(|(name, _)| name != "content-type");
                    outbound = outbound.body("application/json", json!(members).to_string());
                }
            }
            let limits = token_limits(self.ctx)?;
            let answer = self.ctx.net.send(outbound, limits).await?;
            let manifest = self.provider.manifest();
            // Too many calls, or trouble over there: whatever word stands in it, nothing was decided.
            if matches!(answer.status, 429 | 500..)
                && let Err(fault) = json_answer(manifest.title, &answer)
            {
                return Err(Rejected::Theirs(fault).into_error(manifest));
            }
            let body = self.in_standard_words(answer.status, &answer.body);
            let mut response = oauth2::http::Response::builder().status(answer.status);
            if let Some(content_type) = answer.header("content-type") {
                response = response.header("content-type", content_type);
            }
            response
                .body(body.unwrap_or(answer.body))
                .map_err(Error::internal)
        })
    }
}

impl Carrier<'_> {
    /// A provider's answer as RFC 6749 would have it; `None` when it is no JSON object.
    fn in_standard_words(&self, status: u16, body: &[u8]) -> Option<Vec<u8>> {
        let mut answer: Value = serde_json::from_slice(body).ok()?;
        let members = answer.as_object_mut()?;
        if (200..300).contains(&status) {
            // Square says when instead of how long.
            if let Some(at) = members.get("expires_at").and_then(Value::as_str)
                && let Ok(at) = at.parse::<DateTime<Utc>>()
            {
                let seconds = (at - self.ctx.now()).num_seconds().max(0);
                members.insert("expires_in".to_owned(), json!(seconds));
            }
            tolerate(members);
        } else if !members.contains_key("error")
            && let Some(error) = self.provider.token_error(status, &answer)
        {
            return Some(json!({ "error": error }).to_string().into_bytes());
        }
        Some(answer.to_string().into_bytes())
    }
}

/// Leaves out what cannot be used of a success: a pair of tokens that was given must not be lost for a
/// member beside it.
fn tolerate(members: &mut serde_json::Map<String, Value>) {
    let seconds = match members.get("expires_in") {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse().ok(),
        _ => None,
    };
    // Mailchimp says 0 for a token that does not end.
    match seconds.filter(|seconds| (1.0..LIFE_SECONDS_MAX).contains(seconds)) {
        Some(seconds) => members.insert("expires_in".to_owned(), json!(seconds as u64)),
        None => members.remove("expires_in"),
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    for name in ["refresh_token", "scope", "token_type"] {
        if members.get(name).is_some_and(|value| !is_text(value)) {
            members.remove(name);
        }
    }
    members
        .entry("token_type")
        .or_insert_with(|| json!("bearer"));
}

pub(super) type TokenError = RequestTokenError<Error, BasicErrorResponse>;

/// Whether the provider said that what we hold is no longer good.
pub(super) fn is_invalid_grant(error: &TokenError) -> bool {
    matches!(error, RequestTokenError::ServerResponse(answer)
        if *answer.error() == BasicErrorResponseType::InvalidGrant)
}

pub(super) fn token_error(manifest: &Manifest, error: TokenError) -> Error {
    let title = manifest.title;
    match error {
        RequestTokenError::Request(error) => error,
        RequestTokenError::ServerResponse(answer) => {
            let said: String = answer.error().as_ref().chars().take(64).collect();
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

/// A grant that was just given, and what was told beside it.
#[derive(Clone)]
pub(super) struct Given {
    pub grant: Grant,
    pub access_expires_at: Option<DateTime<Utc>>,
    pub scopes: Option<Vec<String>>,
}

impl Given {
    /// What `answer` gave. Where it names no new refresh token, the old one stays; facts of the
    /// callback stay as well.
    fn read(ctx: &Ctx, flow: &CodeFlow, answer: &Answer, old: Option<&Grant>) -> Given {
        let mut facts = old.map(|old| old.facts.clone()).unwrap_or_default();
        for name in flow.answer_members {
            if let Some(value) = answer.extra_fields().members.get(*name) {
                facts.insert((*name).to_owned(), value.clone());
            }
        }
        let refresh = answer
            .refresh_token()
            .map(|token| SecretString::from(token.secret().as_str()));
        let life = answer
            .expires_in()
            .and_then(|life| TimeDelta::from_std(life).ok());
        let access = answer.access_token().secret().as_str();
        let life = match flow.access {
            // What no header can hold is of no use, but the refresh token beside it may be.
            AccessLife::Answered(_) if !one_word(access, usize::MAX) => Some(TimeDelta::zero()),
            AccessLife::Answered(default) => Some(life.unwrap_or(default)),
            AccessLife::Endless => None,
        };
        let scopes = answer.scopes().map(|scopes| {
            let scopes = scopes.iter().map(|scope| scope.to_string());
            scopes.filter(|scope| !scope.is_empty()).collect::<Vec<_>>()
        });
        Given {
            grant: Grant {
                access: SecretString::from(access),
                refresh: refresh.or_else(|| old.and_then(|old| old.refresh.clone())),
                keys: BTreeMap::new(),
                facts,
            },
            access_expires_at: life.map(|life| ctx.now() + life),
            scopes: scopes.filter(|scopes| !scopes.is_empty()),
        }
    }
}

/// A provider as it is set up here: what every call to it needs.
pub struct Setup {
    pub provider: &'static dyn Provider,
    pub credentials: Credentials,
    pub site: Site,
}

impl Setup {
    pub async fn of(ctx: &Ctx, provider: &'static dyn Provider) -> Result<Setup> {
        let credentials = credentials(ctx, provider.manifest()).await?;
        let site = site(provider.manifest(), &credentials)?;
        Ok(Setup {
            provider,
            credentials,
            site,
        })
    }

    pub fn manifest(&self) -> &'static Manifest {
        self.provider.manifest()
    }

    fn carrier<'a>(&'a self, ctx: &'a Ctx, flow: &CodeFlow) -> Carrier<'a> {
        Carrier {
            ctx,
            provider: self.provider,
            auth: flow.client_auth,
            credentials: &self.credentials,
        }
    }

    /// Exchanges an authorization code.
    pub(super) async fn exchange(
        &self,
        ctx: &Ctx,
        flow: &CodeFlow,
        redirect: RedirectUrl,
        code: String,
        verifier: Option<PkceCodeVerifier>,
    ) -> Result<Given> {
        let client = client(flow, &self.site, &self.credentials).set_redirect_uri(redirect);
        let mut request = client.exchange_code(AuthorizationCode::new(code));
        if let Some(verifier) = verifier {
            request = request.set_pkce_verifier(verifier);
        }
        let answer = request.request_async(&self.carrier(ctx, flow)).await;
        let answer = answer.map_err(|error| token_error(self.manifest(), error))?;
        Ok(Given::read(ctx, flow, &answer, None))
    }

    pub(super) async fn refresh(
        &self,
        ctx: &Ctx,
        flow: &CodeFlow,
        old: &Grant,
    ) -> Result<Given, TokenError> {
        let token = old
            .refresh
            .as_ref()
            .map_or("", |token| token.expose_secret());
        let answer = client(flow, &self.site, &self.credentials)
            .exchange_refresh_token(&RefreshToken::new(token.to_owned()))
            .request_async(&self.carrier(ctx, flow))
            .await?;
        Ok(Given::read(ctx, flow, &answer, Some(old)))
    }

    /// Renews a grant that no connection holds yet.
    pub(super) async fn renew_foreign(
        &self,
        ctx: &Ctx,
        flow: &CodeFlow,
        grant: &Grant,
    ) -> Result<Given> {
        let given = self.refresh(ctx, flow, grant).await;
        given.map_err(|error| token_error(self.manifest(), error))
    }
}

/// Why an account was not shown: we failed, or the provider said no.
pub(super) enum Rejected {
    Ours(Error),
    Theirs(Fault),
}

impl Rejected {
    /// Whether no later call will be answered otherwise: the tokens are dead, or the account is gone
    /// from them.
    pub fn is_final(&self) -> bool {
        matches!(self, Rejected::Theirs(Fault::Unauthorized)) || self.reaches_none()
    }

    /// Whether the tokens are good, but reach no account, or not the one that was named.
    pub fn reaches_none(&self) -> bool {
        matches!(self, Rejected::Theirs(Fault::Refused { code, .. })
            if code == crate::providers::NO_ACCOUNT)
    }

    pub fn into_error(self, manifest: &Manifest) -> Error {
        let title = manifest.title;
        match self {
            Rejected::Ours(error) => error,
            Rejected::Theirs(Fault::Later { detail }) => Error::new(Code::UpstreamFailed, detail),
            Rejected::Theirs(Fault::Refused { detail, .. }) => {
                Error::new(Code::UpstreamRefused, detail)
            }
            Rejected::Theirs(_) => Error::new(
                Code::UpstreamRefused,
                format!("{title} does not take this; check what was entered, or consent again"),
            ),
        }
    }
}

/// A name as it can be shown: in one line, not too long, and with nothing in it that turns the text
/// around it (Unicode's bidirectional controls).
fn shown(name: &str) -> Option<String> {
    let turns = |c: &char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let plain: String = name
        .chars()
        .filter(|c| !turns(c))
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(ACCOUNT_NAME_MAX)
        .collect();
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}

/// Asks the provider whether `grant` reaches the account of `connection`, by whichever of the consents
/// to it that the provider counts together.
pub(super) async fn account_of(
    ctx: &Ctx,
    setup: &Setup,
    connection: &Connection,
    grant: &Grant,
) -> Result<Account, Rejected> {
    let mut grant = grant.clone();
    let tenant = Value::String(connection.tenant_id.clone());
    grant.facts.insert(TENANT.to_owned(), tenant);
    account(ctx, setup, &grant).await
}

/// Asks the provider which account `grant` reaches.
pub(super) async fn account(ctx: &Ctx, setup: &Setup, grant: &Grant) -> Result<Account, Rejected> {
    let mut answers = Vec::new();
    for request in setup.provider.account_requests(&setup.site, grant) {
        let request = setup.provider.authorize(request, grant);
        let limits = call_limits(ctx, Limits::ACCOUNT).map_err(Rejected::Ours)?;
        let answer = ctx.net.send(request, limits).await;
        answers.push(answer.map_err(Rejected::Ours)?);
    }
    let mut account = setup
        .provider
        .read_account(&setup.site, grant, &answers)
        .map_err(Rejected::Theirs)?;
    account.name = account.name.as_deref().and_then(shown);
    let admitted = account
        .api
        .as_ref()
        .is_none_or(|api| setup.site.admits(api));
    let ids = 1..=ACCOUNT_ID_MAX;
    if !ids.contains(&account.id.chars().count()) || !admitted {
        let title = setup.manifest().title;
        return Err(Rejected::Ours(Error::new(
            Code::UpstreamRefused,
            format!("{title} named an account that cannot be one"),
        )));
    }
    Ok(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_cannot_be_used_costs_no_pair() {
        let cases = [
            (json!({ "expires_in": "3600" }), Some(3600)),
            (json!({ "expires_in": 3600.0 }), Some(3600)),
            (json!({ "expires_in": 3600 }), Some(3600)),
            (json!({ "expires_in": 0 }), None),
            (json!({ "expires_in": -1 }), None),
            (json!({ "expires_in": 1_000_000_000_000_000_u64 }), None),
            (json!({ "expires_in": "soon" }), None),
            (
                json!({ "expires_in": null, "refresh_token": "", "scope": [1], "token_type": 7 }),
                None,
            ),
        ];
        for (answer, life) in cases {
            let mut members = answer.as_object().unwrap().clone();
            members.insert("access_token".to_owned(), json!("a"));
            tolerate(&mut members);
            let read: Answer = serde_json::from_value(Value::Object(members)).expect("an answer");
            let seconds = read.expires_in().map(|life| life.as_secs());
            assert_eq!(seconds, life, "{answer}");
            assert!(read.refresh_token().is_none());
        }
    }

    #[test]
    fn a_name_is_shown_in_one_short_line() {
        assert_eq!(shown("Demo\nShop\u{202e}").as_deref(), Some("Demo Shop"));
        assert_eq!(shown(" \u{0} "), None);
        assert_eq!(shown(&"x".repeat(400_000)).unwrap().len(), ACCOUNT_NAME_MAX);
    }
}
