//! The connect flow. Four proofs, because each alone leaves a hole:
//!
//! - `state`, signed and single use, ties the provider's answer to one start (RFC 6749 §10.12);
//! - a cookie ties the finish to the browser that started, so a callback cannot be planted;
//! - a confirmation, which the backend shows for a user of its own, ties the connection to that user's
//!   merchant;
//! - that user's browser, sent here with a fresh secret, has to be the one with the cookie: a link that
//!   somebody else opened, or an address with a confirmation that was passed on, ends in a connection that
//!   never leaves `pending`.
//!
//! What came with the browser proves nothing about the account: the provider is asked, with what the
//! consent gave, and an account belongs to one merchant.

use super::brought::Hold;
use super::connection::{
    Along, Browser, CONNECTIONS_MAX, Connection, Consent, Decision, Happened, Settings, Status,
    Tokens, change, list, load, store,
};
use super::give_back::{account_of, give_back_unused};
use super::setup::{self, Given, Setup, account};
use super::tokens;
use super::{hash, redirect_uri, tenant, vault};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::event::EventType;
use crate::model::ids::{ConnectionId, LinkId, MerchantId};
use crate::model::order_record::Sequence;
use crate::net::Guard;
use crate::providers::{self, Account, CodeFlow, Grant, KeyField, Manifest, Provider, provider};
use crate::store::{Condition, Key, Write, WriteError, keys};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use oauth2::{CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;
use subtle::ConstantTimeEq;
use url::{Origin, Url};

/// How long a link, and the consent that it leads to, can be used.
pub const LINK_LIFE: TimeDelta = TimeDelta::minutes(30);
/// Longest key that a merchant may paste, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 500;
/// How often a link is tried to be used up while somebody else holds its row.
const CONSUME_ROUNDS_MAX: u32 = 8;
/// How often it is looked again whose an account is.
const CLAIM_ROUNDS_MAX: u32 = 2;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Link {
    merchant_id: MerchantId,
    provider: String,
    return_url: Url,
    /// The connection that is to be repaired; a consent for another account is refused then.
    connection_id: Option<ConnectionId>,
    expires_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    link_hash: String,
    link: Link,
    cookie_hash: String,
}

/// Which merchant and connection a provider's account belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) merchant_id: MerchantId,
    pub(super) connection_id: ConnectionId,
}

/// Whose a provider's account is, if it was ever connected.
pub async fn owner(
    ctx: &Ctx,
    provider: &str,
    account: &str,
) -> Result<Option<(MerchantId, ConnectionId)>> {
    let item = ctx
        .store
        .get(&keys::account(provider, &hash(account)))
        .await?;
    let owner: Option<Owner> = item.map(|item| item.read()).transpose()?;
    Ok(owner.map(|owner| (owner.merchant_id, owner.connection_id)))
}

/// A link to be opened by the merchant's browser.
#[derive(Debug, Serialize)]
pub struct NewLink {
    pub id: LinkId,
    pub url: String,
    pub expires_at: DateTime<Utc>,
}

/// Where the browser goes next, and the cookie that it keeps.
pub struct Started {
    pub next: Next,
    pub cookie_name: String,
    pub cookie: String,
}

/// How the names of all cookies of a start begin. With the prefix `__Host-` a browser takes them from this
/// very host and over TLS alone, so no neighbouring host can plant one
/// (<https://www.rfc-editor.org/rfc/rfc6265bis>, section 4.1.3.2); over plain HTTP there is no such promise.
pub fn cookie_prefix(public_url: &str) -> &'static str {
    match public_url.starts_with("https:") {
        true => "__Host-crossdock_connect_",
        false => "crossdock_connect_",
    }
}

/// The name of the cookie that marks the browser which started with `state`. Each start has a cookie of
/// its own, so that a browser can connect several providers side by side.
pub fn cookie_name(public_url: &str, state: &str) -> String {
    let hash: String = hash(state).chars().take(16).collect();
    format!("{}{hash}", cookie_prefix(public_url))
}

/// The next stop of the merchant's browser.
pub enum Next {
    /// The provider's consent page.
    Consent(Url),
    /// A form of our own, for a provider without OAuth: posted to `action` with `state`.
    Form {
        manifest: &'static Manifest,
        fields: &'static [KeyField],
        action: String,
        state: String,
        /// Where the browser is sent on to after it.
        shop: Origin,
    },
}

fn random(ctx: &Ctx) -> String {
    BASE64.encode(ctx.random::<32>())
}

fn expired() -> Error {
    Error::new(
        Code::LinkExpired,
        "this link was used already or is older than 30 minutes; go back to the shop and start again",
    )
}

fn known(name: &str) -> Result<&'static dyn Provider> {
    provider(name).ok_or_else(|| Error::new(Code::NotFound, format!("no provider is named {name}")))
}

fn redirect(ctx: &Ctx, manifest: &Manifest) -> Result<RedirectUrl> {
    let uri = redirect_uri(ctx.config.public_url()?, manifest.name);
    RedirectUrl::new(uri).map_err(Error::internal)
}

/// The verifier of a consent (RFC 7636 §4.1). It is made of what only the browser that started and
/// the provider's answer hold together, so it is stored nowhere.
fn verifier(cookie: &str, state: &str) -> PkceCodeVerifier {
    let digest = Sha256::digest(format!("crossdock pkce v1:{cookie}:{state}").as_bytes());
    PkceCodeVerifier::new(BASE64.encode(digest))
}

/// Makes a link that lets one browser connect `merchant` to a provider, or repair `connection`.
pub async fn create_link(
    ctx: &Ctx,
    merchant: &MerchantId,
    manifest: &Manifest,
    return_url: String,
    connection: Option<&ConnectionId>,
) -> Result<NewLink> {
    ctx.config.enabled(manifest.category)?;
    setup::credentials(ctx, manifest).await?;
    let fault = |code, detail: &str| {
        Err(Error::invalid(vec![FieldError::new(
            "/return_url",
            code,
            detail,
        )]))
    };
    // The confirmation travels to this address, so it must be as good as an address that we call.
    let guard = Guard::new(ctx.config.allow_loopback());
    let parsed = return_url.parse::<Url>().ok();
    let parsed = parsed.filter(|url| {
        guard.check_url(url).is_ok() && url.query().is_none() && url.fragment().is_none()
    });
    let Some(parsed) = parsed else {
        return fault(
            "invalid_value",
            "return_url must be an https URL of a public host, without user, query or fragment",
        );
    };
    // To the letter as it came: an address has many spellings, and was registered in one.
    if !ctx.config.return_urls().any(|known| known == return_url) {
        return fault(
            "not_registered",
            "this address is not registered; the operator of this platform lists the shop's return \
             addresses in the parameter ReturnUrls",
        );
    }
    let secret = random(ctx);
    let expires_at = ctx.now() + LINK_LIFE;
    let link = Link {
        merchant_id: merchant.clone(),
        provider: manifest.name.to_owned(),
        return_url: parsed,
        connection_id: connection.cloned(),
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
    let provider = known(&link.provider)?;
    let manifest = provider.manifest();
    ctx.config.enabled(manifest.category)?;
    let setup = Setup::of(ctx, provider).await?;
    let (nonce, cookie) = (random(ctx), random(ctx));
    let state = format!("{nonce}.{}", vault::sign(ctx, &nonce).await?);
    let expires_at = link.expires_at.timestamp();
    let shop = link.return_url.origin();
    let document = State {
        link_hash,
        link,
        cookie_hash: hash(&cookie),
    };
    let key = keys::connect_state(&hash(&state));
    ctx.store
        .write(Write::put(key, Condition::Absent, &document)?.expiring(expires_at))
        .await?;
    let cookie_name = cookie_name(ctx.config.public_url()?, &state);
    let next = match &manifest.consent {
        providers::Consent::Code(flow) => {
            Next::Consent(consent_url(ctx, &setup, flow, &cookie, state)?)
        }
        providers::Consent::Keys(fields) => Next::Form {
            manifest,
            fields,
            action: redirect_uri(ctx.config.public_url()?, manifest.name),
            state,
            shop,
        },
    };
    Ok(Started {
        next,
        cookie_name,
        cookie,
    })
}

fn consent_url(
    ctx: &Ctx,
    setup: &Setup,
    flow: &CodeFlow,
    cookie: &str,
    state: String,
) -> Result<Url> {
    let client = setup::client(flow, &setup.site, &setup.credentials)
        .set_redirect_uri(redirect(ctx, setup.manifest())?);
    let verifier = verifier(cookie, &state);
    let scopes = flow.scopes.iter();
    let mut request = client
        .authorize_url(|| CsrfToken::new(state))
        .add_scopes(scopes.map(|scope| Scope::new((*scope).to_owned())));
    for (name, value) in flow.authorize_extra {
        request = request.add_extra_param(*name, *value);
    }
    if flow.pkce {
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        request = request.set_pkce_challenge(challenge);
    }
    Ok(request.url().0)
}

/// What came back with the browser, from the provider or from our own form.
#[derive(Debug, Default)]
pub struct Callback {
    pub provider: String,
    pub tenant: String,
    pub cookie: Option<String>,
    /// The parameters of the query, or the members of the form.
    pub parameters: BTreeMap<String, String>,
    /// Whether they are a form's, which no address bar or log has seen.
    pub posted: bool,
}

impl Callback {
    fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// What came of a consent.
pub struct Finished {
    /// Where the browser goes: the backend's return address, with the confirmation that makes the
    /// connection live.
    pub outcome: Result<Url>,
    /// Whether the start that it belongs to failed for good, so that its cookie is of no more use.
    pub is_over: bool,
}

/// Finishes a consent.
pub async fn finish(ctx: &Ctx, callback: Callback) -> Finished {
    let mut used_up = false;
    let outcome = try_finish(ctx, callback, &mut used_up).await;
    // Whoever comes second finds the start used up too, and is not the one whose cookie goes: the first
    // may still need it.
    let is_over = used_up && outcome.is_err();
    Finished { outcome, is_over }
}

/// Notes in `used_up` that this call has used up the start.
async fn try_finish(ctx: &Ctx, callback: Callback, used_up: &mut bool) -> Result<Url> {
    let provider = known(&callback.provider)?;
    let manifest = provider.manifest();
    let (state_key, state) = started(ctx, manifest, &callback).await?;
    ctx.config.enabled(manifest.category)?;
    if let Some(error) = callback.get("error") {
        consume(ctx, vec![state_key]).await?;
        *used_up = true;
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
    let setup = Setup::of(ctx, provider).await?;
    let once = vec![state_key, keys::connect_link(&state.link_hash)];
    let (account, given) = match &manifest.consent {
        providers::Consent::Code(flow) => {
            let code = callback.get("code").unwrap_or_default().to_owned();
            if code.is_empty() || callback.posted {
                return Err(Error::new(
                    Code::AuthorizationRefused,
                    format!(
                        "{} sent back neither a consent nor a refusal; nothing was connected, go back \
                         to the shop and start again",
                        manifest.title
                    ),
                ));
            }
            // From here on the link is used up, whatever comes: a code can be exchanged once.
            consume(ctx, once).await?;
            *used_up = true;
            exchanged(ctx, &setup, flow, &callback, code)
                .await
                .map_err(|error| advised(error, "go back to the shop and start again"))?
        }
        providers::Consent::Keys(fields) => {
            let again = "go back and send the form again";
            let given = pasted(fields, &callback).map_err(|error| match error.code() {
                Code::ValidationFailed => advised(error, again),
                _ => error,
            })?;
            // A key that was mistyped is no attack: the form may be sent again until one fits.
            let account = account(ctx, &setup, &given.grant).await;
            let account = account.map_err(|rejected| {
                let error = rejected.into_error(manifest);
                advised(error, again)
            })?;
            consume(ctx, once).await?;
            *used_up = true;
            (account, given)
        }
    };
    let link = state.link;
    let wanted = link.connection_id.as_ref();
    let browser = Browser {
        cookie_name: cookie_name(
            ctx.config.public_url()?,
            callback.get("state").unwrap_or_default(),
        ),
        cookie_hash: state.cookie_hash,
        return_url: link.return_url.clone(),
    };
    let merchant = &link.merchant_id;
    let browser = Some(browser);
    let unused = (given.grant.clone(), account.clone());
    let placed = place(ctx, &setup, merchant, wanted, account, given, browser).await;
    let (connection, confirmation) = match placed {
        Ok(placed) => placed,
        Err(error) => {
            give_back_unused(ctx, &setup, &unused.0, &unused.1).await;
            return Err(error);
        }
    };
    let mut url = link.return_url;
    url.query_pairs_mut()
        .append_pair("connection_id", connection.id.as_str())
        .append_pair("merchant_id", connection.merchant_id.as_str())
        .append_pair("provider", manifest.name)
        .append_pair("category", manifest.category.as_str())
        .append_pair("confirmation", &confirmation)
        .append_pair("status", "pending");
    Ok(url)
}

/// Finds the start that `callback` belongs to: the address must be the one that was sent out, the
/// browser the one that started, and the issuer, where one is named, the provider's own (RFC 9207).
async fn started(ctx: &Ctx, manifest: &Manifest, callback: &Callback) -> Result<(Key, State)> {
    let state = callback.get("state").unwrap_or_default();
    let (nonce, signature) = state.split_once('.').ok_or_else(expired)?;
    if !vault::is_signed(ctx, nonce, signature).await? {
        return Err(expired());
    }
    let key = keys::connect_state(&hash(state));
    let item = ctx.store.get(&key).await?.ok_or_else(expired)?;
    let state: State = item.read()?;
    let here = tenant(ctx.config.public_url()?);
    if state.link.provider != manifest.name || callback.tenant != here {
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
    let issuer = manifest.code_flow().and_then(|flow| flow.issuer);
    if callback
        .get("iss")
        .is_some_and(|given| Some(given) != issuer)
    {
        return Err(Error::new(
            Code::AuthorizationRefused,
            format!(
                "this answer is not from {}; nothing was connected, start again from the shop",
                manifest.title
            ),
        ));
    }
    Ok((key, state))
}

/// Exchanges a code and asks which account its tokens reach.
async fn exchanged(
    ctx: &Ctx,
    setup: &Setup,
    flow: &CodeFlow,
    callback: &Callback,
    code: String,
) -> Result<(Account, Given)> {
    let cookie = callback.cookie.as_deref().unwrap_or_default();
    let state = callback.get("state").unwrap_or_default();
    let verifier = flow.pkce.then(|| verifier(cookie, state));
    let redirect = redirect(ctx, setup.manifest())?;
    let mut given = setup.exchange(ctx, flow, redirect, code, verifier).await?;
    if flow.refresh != providers::Refresh::None && given.grant.refresh.is_none() {
        return Err(Error::new(
            Code::UpstreamRefused,
            format!(
                "{} gave no refresh token, so the connection would end soon",
                setup.manifest().title
            ),
        ));
    }
    for name in flow.callback_parameters {
        if let Some(value) = callback.get(name) {
            given.grant.facts.insert((*name).to_owned(), value.into());
        }
    }
    let account = account(ctx, setup, &given.grant).await;
    let account = account.map_err(|rejected| rejected.into_error(setup.manifest()))?;
    Ok((account, given))
}

/// A failure of the provider's, for a person who waits before a page: with what to do now.
fn advised(error: Error, advice: &str) -> Error {
    // What is our own is not shown.
    if error.code() == Code::Internal {
        return error;
    }
    let said = error.detail().trim_end_matches('.');
    let detail = format!("{said}; nothing was connected, {advice}");
    Error::new(error.code(), detail).because(error)
}

/// The keys that were pasted into our own form.
fn pasted(fields: &[KeyField], callback: &Callback) -> Result<Given> {
    let given = callback.parameters.iter();
    let given = given.map(|(name, value)| (name.clone(), SecretString::from(value.trim())));
    if !callback.posted {
        return Err(expired());
    }
    Given::keys(fields, &given.collect())
}

/// Whether `text` can stand in a header: what a key or a token is, and nothing that could end it.
pub(super) fn one_word(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Given {
    /// What pasted or imported keys amount to, each of them checked against its field.
    pub(super) fn keys(
        fields: &[KeyField],
        given: &BTreeMap<String, SecretString>,
    ) -> Result<Given> {
        let mut keys = BTreeMap::new();
        for field in fields {
            let value = given.get(field.name).cloned().unwrap_or_default();
            let text = value.expose_secret();
            let fits = one_word(text, KEY_BYTES_MAX)
                && (field.choices.is_empty() || field.choices.contains(&text));
            if !fits {
                let detail = format!("{} is missing or is not one. {}", field.label, field.hint);
                let path = format!("/tokens/keys/{}", field.name);
                return Err(Error::invalid(vec![FieldError::new(
                    &path,
                    "invalid_value",
                    detail,
                )]));
            }
            keys.insert(field.name.to_owned(), value);
        }
        Ok(Given {
            grant: Grant {
                access: SecretString::default(),
                refresh: None,
                keys,
                facts: BTreeMap::new(),
            },
            access_expires_at: None,
            scopes: None,
        })
    }
}

/// Deletes what may be used once; whoever comes second finds it gone. That somebody else holds a row at
/// this moment says nothing of that.
async fn consume(ctx: &Ctx, once: Vec<Key>) -> Result<()> {
    let delete = |key: &Key| Write::Delete {
        key: key.clone(),
        condition: Condition::Present,
    };
    for _ in 0..CONSUME_ROUNDS_MAX {
        match ctx.store.transact(once.iter().map(delete).collect()).await {
            Err(WriteError::Condition(_)) => return Err(expired()),
            Err(WriteError::Contended) => step_aside(ctx).await,
            other => return Ok(other?),
        }
    }
    Err(Error::new(
        Code::Busy,
        "this link is in use at this moment; load this page again, or go back to the shop and start again",
    ))
}

/// The row that says whose an account is, and the condition under which it may be written. An account
/// belongs to the merchant whose connection came to life first: otherwise a consent that was obtained
/// by a trick would show one merchant's books to another. A consent that waits holds nothing, or
/// nobody could connect while somebody else does not finish.
///
/// `connection` is the one that is to have it, where that is known: of one merchant's connections, too,
/// one alone lives with an account, or each order would be carried there twice.
pub(super) async fn claim(
    ctx: &Ctx,
    manifest: &Manifest,
    account: &str,
    merchant: &MerchantId,
    connection: Option<&ConnectionId>,
) -> Result<(Key, Condition)> {
    let key = keys::account(manifest.name, &hash(account));
    let Some(item) = ctx.store.get(&key).await? else {
        return Ok((key, Condition::Absent));
    };
    let owner: Owner = item.read()?;
    let claimed = Condition::Rev(item.rev);
    let own = owner.merchant_id == *merchant;
    if own && connection.is_none_or(|connection| *connection == owner.connection_id) {
        return Ok((key, claimed));
    }
    match load(ctx, &owner.merchant_id, &owner.connection_id).await {
        Err(error) if error.code() == Code::NotFound => Ok((key, claimed)),
        Err(error) => Err(error),
        Ok((_, connection)) => match connection.status {
            Status::Pending | Status::Disconnected => Ok((key, claimed)),
            Status::Live | Status::Paused | Status::ReauthRequired if own => Err(Error::new(
                Code::Conflict,
                format!(
                    "this {} account is connected already, as {}",
                    manifest.title, owner.connection_id
                ),
            )),
            Status::Live | Status::Paused | Status::ReauthRequired => Err(Error::new(
                Code::Conflict,
                format!(
                    "this {} account is connected to another shop; disconnect it there first",
                    manifest.title
                ),
            )),
        },
    }
}

/// Whether a merchant has as many connections as it may. Those that were given up are kept for their
/// history alone.
pub(super) fn is_full(all: &[(u64, Connection)]) -> bool {
    let used = all.iter();
    let used = used.filter(|(_, connection)| connection.status != Status::Disconnected);
    used.count() >= CONNECTIONS_MAX
}

pub(super) fn too_many() -> Error {
    Error::new(
        Code::Conflict,
        format!("a merchant has at most {CONNECTIONS_MAX} connections; disconnect one first"),
    )
}

/// Stores a consent with the connection that it is for, and returns that with the confirmation.
pub(super) async fn place(
    ctx: &Ctx,
    setup: &Setup,
    merchant: &MerchantId,
    wanted: Option<&ConnectionId>,
    account: Account,
    given: Given,
    browser: Option<Browser>,
) -> Result<(Connection, String)> {
    for _ in 0..CLAIM_ROUNDS_MAX {
        let (account, given) = (account.clone(), given.clone());
        let placed = try_place(
            ctx,
            setup.manifest(),
            merchant,
            wanted,
            account,
            given,
            browser.as_ref(),
        );
        if let Some(placed) = placed.await? {
            return Ok(placed);
        }
        step_aside(ctx).await;
    }
    Err(Error::new(
        Code::Busy,
        "this connection is being changed; go back to the shop and start again",
    ))
}

/// Waits for as long as chance says, so that two who were in each other's way do not meet again.
pub(super) async fn step_aside(ctx: &Ctx) {
    let part = u64::from(ctx.random::<1>()[0]);
    ctx.clock.sleep(Duration::from_millis(part)).await;
}

/// The connection of one account.
#[derive(Serialize, Deserialize)]
struct Placed {
    connection_id: ConnectionId,
}

/// The condition under which the row of an account may be written, and the merchant's connection with it.
async fn placed(
    ctx: &Ctx,
    merchant: &MerchantId,
    row: &Key,
) -> Result<(Condition, Option<(u64, Connection)>)> {
    let Some(item) = ctx.store.get(row).await? else {
        return Ok((Condition::Absent, None));
    };
    let placed: Placed = item.read()?;
    // A connection that nobody confirmed vanishes after a day, and its account is free again.
    let known = match load(ctx, merchant, &placed.connection_id).await {
        Err(error) if error.code() == Code::NotFound => None,
        loaded => Some(loaded?),
    };
    Ok((Condition::Rev(item.rev), known))
}

/// The connection that a merchant has with an account, if it has one.
pub(super) async fn held(
    ctx: &Ctx,
    manifest: &Manifest,
    merchant: &MerchantId,
    account: &str,
) -> Result<Option<Connection>> {
    let row = keys::placed(merchant, manifest.name, &hash(account));
    let (_, known) = placed(ctx, merchant, &row).await?;
    Ok(known.map(|(_, connection)| connection))
}

/// `None` when somebody else was faster.
async fn try_place(
    ctx: &Ctx,
    manifest: &Manifest,
    merchant: &MerchantId,
    wanted: Option<&ConnectionId>,
    account: Account,
    given: Given,
    browser: Option<&Browser>,
) -> Result<Option<(Connection, String)>> {
    claim(ctx, manifest, &account.id, merchant, None).await?;
    let row = keys::placed(merchant, manifest.name, &hash(&account.id));
    let (read, known) = placed(ctx, merchant, &row).await?;
    if let Some(wanted) = wanted
        && known.as_ref().is_none_or(|(_, found)| found.id != *wanted)
    {
        return Err(Error::new(
            Code::AuthorizationRefused,
            format!(
                "this consent is for another {} account than the one to be connected again; sign \
                 in there with the right one and start again from the shop",
                manifest.title
            ),
        ));
    }
    let mut along = match browser {
        Some(_) => Along::entry(
            Happened::ConsentGiven,
            "consent was given and waits for its confirmation",
        ),
        // Nobody consented, and nobody has to confirm.
        None => Along::default(),
    };
    let (rev, before) = match known {
        Some((rev, found)) => (Some(rev), found),
        None => {
            if is_full(&list(ctx, merchant).await?) {
                return Err(too_many());
            }
            let new = new_connection(ctx, merchant, manifest, &account);
            // Of two that come with one account at once the second finds the connection of the first.
            let placed = Placed {
                connection_id: new.id.clone(),
            };
            along.writes.push(Write::put(row, read, &placed)?);
            (None, new)
        }
    };
    let mut connection = before.clone();
    let confirmation = random(ctx);
    let consent = consent(
        ctx,
        &mut connection,
        manifest,
        account,
        given,
        &confirmation,
        browser.cloned(),
    )
    .await?;
    connection.consent = Some(consent);
    let before = rev.map(|rev| (rev, &before));
    let stored = store(ctx, &mut connection, before, along).await?;
    Ok(stored.then_some((connection, confirmation)))
}

fn new_connection(
    ctx: &Ctx,
    merchant: &MerchantId,
    manifest: &Manifest,
    account: &Account,
) -> Connection {
    let now = ctx.now();
    Connection {
        id: ConnectionId::new(ctx.uuid()),
        merchant_id: merchant.clone(),
        provider: manifest.name.to_owned(),
        category: manifest.category,
        status: Status::Pending,
        tenant_id: account.id.clone(),
        tenant_name: account.name.clone(),
        api: None,
        reference: None,
        scopes: Vec::new(),
        key: None,
        tokens: None,
        previous: None,
        consent: None,
        confirmed: None,
        paused: false,
        lease: None,
        fence: 0,
        next_refresh_at: None,
        trouble: None,
        settings: Settings::default(),
        guests: Vec::new(),
        daily_customers: Vec::new(),
        postings: Vec::new(),
        sequence: Sequence::default(),
        created_at: now,
        updated_at: now,
    }
}

/// Seals what was given with the connection's own key, which is made if there is none.
async fn consent(
    ctx: &Ctx,
    connection: &mut Connection,
    manifest: &Manifest,
    account: Account,
    given: Given,
    confirmation: &str,
    browser: Option<Browser>,
) -> Result<Consent> {
    let owner = connection.vault_owner().to_owned();
    let key = match &connection.key {
        Some(key) => vault::unwrap(ctx, &owner, key).await?,
        None => {
            let (key, wrapped) = vault::new_key(ctx, &owner).await?;
            connection.key = Some(wrapped);
            key
        }
    };
    let now = ctx.now();
    let asked = manifest.scopes().iter().map(|scope| (*scope).to_owned());
    Ok(Consent {
        sealed: tokens::seal(ctx, &key, &owner, &given.grant)?,
        issued_at: now,
        access_expires_at: given.access_expires_at,
        tenant_name: account.name,
        api: account.api,
        reference: account.reference,
        scopes: given.scopes.unwrap_or_else(|| asked.collect()),
        confirmation_hash: hash(confirmation),
        browser,
        expires_at: now + LINK_LIFE,
    })
}

/// Puts a consent into use.
fn adopt(ctx: &Ctx, current: &mut Connection, manifest: &Manifest, consent: Consent) {
    current.confirmed = Some(consent.confirmation_hash);
    current.tokens = Some(Tokens {
        sealed: consent.sealed,
        generation: current.generation() + 1,
        issued_at: consent.issued_at,
        access_expires_at: consent.access_expires_at,
    });
    current.previous = None;
    current.lease = None;
    current.tenant_name = consent.tenant_name;
    current.api = consent.api;
    current.reference = consent.reference;
    current.scopes = consent.scopes;
    current.status = current.at_work();
    current.trouble = None;
    current.next_refresh_at =
        tokens::next_refresh(ctx.now(), &current.id, manifest, consent.access_expires_at);
}

/// What a confirmation leads to.
pub struct Confirmed {
    pub connection: Connection,
    /// Where the backend sends its user's browser, which shows there that it is the one that gave the
    /// consent. `None` when the connection is live already.
    pub continue_url: Option<Url>,
}

/// A confirmation that its own browser has still to follow.
#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    merchant_id: MerchantId,
    connection_id: ConnectionId,
    confirmation_hash: String,
    browser: Browser,
    expires_at: DateTime<Utc>,
}

fn unknown_confirmation() -> Error {
    Error::invalid(vec![FieldError::new(
        "/confirmation",
        "invalid_value",
        "this confirmation is older than 30 minutes, was overtaken by a newer one, or is not of \
         this connection; connect again",
    )])
}

fn is_same(one: &str, other: &str) -> bool {
    one.as_bytes().ct_eq(other.as_bytes()).into()
}

impl Connection {
    /// The consent that `confirmation_hash` confirms, if it still waits.
    fn waiting(&self, confirmation_hash: &str, now: DateTime<Utc>) -> Option<&Consent> {
        let consent = self.consent.as_ref();
        consent.filter(|consent| {
            consent.expires_at > now && is_same(&consent.confirmation_hash, confirmation_hash)
        })
    }
}

/// The backend shows the confirmation that its own user brought back. That proves whose shop it is; the
/// browser in which the backend's user is signed in proves at `continue_url` that it also gave the
/// consent. Either alone could be somebody else's: an address that holds a confirmation can be passed
/// on, and so can a link. It may be called again, also when all is done.
pub async fn confirm(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    confirmation: &str,
) -> Result<Confirmed> {
    let (_, connection) = load(ctx, merchant, id).await?;
    ctx.config.enabled(connection.manifest()?.category)?;
    let given = hash(confirmation);
    let known = connection.confirmed.as_deref();
    if known.is_some_and(|confirmed| is_same(confirmed, &given)) {
        if connection.status == Status::Disconnected {
            return Err(Error::new(
                Code::Conflict,
                "this connection was disconnected after it was confirmed; ask for a new link to connect \
                 it again",
            ));
        }
        return Ok(Confirmed {
            connection,
            continue_url: None,
        });
    }
    let waiting = connection.waiting(&given, ctx.now());
    let browser = waiting.and_then(|consent| Some((consent.expires_at, consent.browser.clone()?)));
    let (expires_at, browser) = browser.ok_or_else(unknown_confirmation)?;
    let secret = random(ctx);
    let proof = Proof {
        merchant_id: merchant.clone(),
        connection_id: id.clone(),
        confirmation_hash: given,
        browser,
        expires_at,
    };
    let write = Write::put(
        keys::connect_proof(&hash(&secret)),
        Condition::Absent,
        &proof,
    )?;
    ctx.store
        .write(write.expiring(expires_at.timestamp()))
        .await?;
    let url = format!("{}/oauth/proof/{secret}", ctx.config.public_url()?);
    Ok(Confirmed {
        connection,
        continue_url: Some(url.parse().map_err(Error::internal)?),
    })
}

/// What a proof led to.
pub struct Proved {
    /// Where the browser goes: the backend's return address.
    pub url: Url,
    /// The cookie of the start, which is of no more use.
    pub cookie_name: String,
}

/// The backend's user comes with its browser. If that is the one that gave the consent, the connection
/// is live, and the browser goes back to the shop. It may come again, as long as it has the cookie.
pub async fn prove(ctx: &Ctx, secret: &str, cookies: &BTreeMap<String, String>) -> Result<Proved> {
    let item = ctx.store.get(&keys::connect_proof(&hash(secret))).await?;
    let proof: Proof = item.ok_or_else(expired)?.read()?;
    if proof.expires_at <= ctx.now() {
        return Err(expired());
    }
    let browser = &proof.browser;
    let cookie = cookies.get(&browser.cookie_name).map_or("", String::as_str);
    let (merchant, id, confirmed) = (
        &proof.merchant_id,
        &proof.connection_id,
        &proof.confirmation_hash,
    );
    if !is_same(&hash(cookie), &browser.cookie_hash) {
        let (_, connection) = load(ctx, merchant, id).await?;
        let used = connection.confirmed.as_deref();
        if cookie.is_empty() && used.is_some_and(|used| is_same(used, confirmed)) {
            return Err(Error::new(
                Code::LinkExpired,
                "this address was used already, and its connection was made; go back to the shop, which \
                 shows how it is now",
            ));
        }
        return Err(Error::new(
            Code::SessionMismatch,
            "the consent was given in another browser, so nothing was connected; go back to the \
             shop and start again in this one",
        ));
    }
    let lived = bring_to_life(ctx, merchant, id, confirmed, Source::Consent).await;
    let connection = lived.map_err(|error| match error.code() {
        // The person at this browser has no confirmation to look at.
        Code::ValidationFailed => Error::new(
            Code::ValidationFailed,
            "it was disconnected, or connected anew, since this consent was given, so this consent is no \
             longer needed; go back to the shop, which shows how it is now, and start again there if it \
             is not connected",
        )
        .because(error),
        _ => error,
    })?;
    let mut url = browser.return_url.clone();
    url.query_pairs_mut()
        .append_pair("connection_id", connection.id.as_str())
        .append_pair("merchant_id", connection.merchant_id.as_str())
        .append_pair("provider", &connection.provider)
        .append_pair("category", connection.category.as_str())
        .append_pair("status", connection.status.as_str());
    Ok(Proved {
        url,
        cookie_name: proof.browser.cookie_name,
    })
}

/// Where a connection's tokens come from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Consent,
    /// The token that was brought notes what became of it, where it can be used but once.
    Import(Option<&'a Hold>),
}

/// Puts the consent that `confirmation_hash` confirms into use, and notes at the token of an import,
/// where it came of one, what that became. Of two merchants that come with the same account the first one
/// wins.
pub(super) async fn bring_to_life(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    confirmation_hash: &str,
    source: Source<'_>,
) -> Result<Connection> {
    let mut rounds = 0;
    loop {
        let (_, connection) = load(ctx, merchant, id).await?;
        let manifest = connection.manifest()?;
        ctx.config.enabled(manifest.category)?;
        let (account, own) = (&connection.tenant_id, Some(id));
        let (key, claimed) = claim(ctx, manifest, account, merchant, own).await?;
        let owner = Owner {
            merchant_id: merchant.clone(),
            connection_id: id.clone(),
        };
        let became = match source {
            Source::Import(Some(hold)) => Some(hold.became(ctx, merchant, id).await?),
            Source::Import(None) | Source::Consent => None,
        };
        let mut replaced = None;
        let changed = change(ctx, merchant, id, |current| {
            let confirmed = current.confirmed.as_deref();
            if confirmed.is_some_and(|confirmed| is_same(confirmed, confirmation_hash)) {
                return Ok(Decision::Leave(true));
            }
            if current.waiting(confirmation_hash, ctx.now()).is_none() {
                return Ok(Decision::Leave(false));
            }
            let Some(consent) = current.consent.take() else {
                return Ok(Decision::Leave(false));
            };
            let again = current.tokens.is_some() || current.status != Status::Pending;
            replaced = current.tokens.is_some().then(|| current.clone());
            adopt(ctx, current, manifest, consent);
            let mut along = connected(current, manifest, source, again);
            let write = Write::put(key.clone(), claimed, &owner)?;
            along.writes.push(write);
            along.writes.extend(became.clone());
            Ok(Decision::Store(along, true))
        });
        match changed.await {
            Ok((connection, true)) => {
                if let Some(before) = replaced {
                    give_back_replaced(ctx, &before).await;
                }
                return Ok(connection);
            }
            Ok((_, false)) => return Err(unknown_confirmation()),
            // Perhaps it was the account's row that somebody else was writing.
            Err(error) if error.code() == Code::Busy && rounds < CLAIM_ROUNDS_MAX => rounds += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Gives back what `before` held, now that another consent has taken its place.
async fn give_back_replaced(ctx: &Ctx, before: &Connection) {
    let given_back = async {
        let setup = Setup::of(ctx, before.provider()?).await?;
        let grant = tokens::grant(ctx, before).await?;
        give_back_unused(ctx, &setup, &grant, &account_of(before)).await;
        Ok::<(), Error>(())
    };
    if let Err(error) = given_back.await {
        tracing::warn!(connection_id = %before.id, error = %error.chain(), "not given back");
    }
}

/// What goes along when a connection becomes live.
fn connected(
    connection: &Connection,
    manifest: &Manifest,
    source: Source<'_>,
    again: bool,
) -> Along {
    let (what, before) = match (source, &manifest.consent) {
        (Source::Import(_), providers::Consent::Code(_)) => {
            (Happened::Imported, "tokens were imported; ")
        }
        (Source::Import(_), providers::Consent::Keys(_)) => {
            (Happened::Imported, "keys were imported; ")
        }
        (Source::Consent, _) if again => (Happened::Reconnected, ""),
        (Source::Consent, _) => (Happened::Connected, ""),
    };
    let (label, title) = (connection.label(), manifest.title);
    Along::entry(what, format!("{before}{label} is connected to {title}"))
        .event(EventType::ConnectionConnected)
}
