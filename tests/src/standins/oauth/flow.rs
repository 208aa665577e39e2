//! Consent and tokens, by the rules of whichever vendor is asked.

use axum::http::{HeaderValue, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::rules::{
    Call, ClientAuth, Declined, Issued, Kind, Lifetime, Minting, OAuth, Pkce, RedirectAtToken,
    Refusal, Rotation, Vendor,
};
use super::state::{Access, Account, Client, Code, Grant, Refresh, Store, uuid};
use crate::standins::wire::{Params, Reply, escape, json_reply, page, param, params, redirect};

/// An authorization request that stands.
struct Asked {
    client: Client,
    redirect: Url,
    /// As it was sent, to the letter.
    redirect_uri: String,
    scope: String,
    challenge: Option<String>,
    state: Option<String>,
}

fn sent<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    param(params, name).filter(|value| !value.is_empty())
}

fn asked(store: &Store, oauth: &OAuth, params: &Params) -> Result<Asked, Box<Reply>> {
    let refuse = |declined: Declined<'_>, back: Option<&Url>| {
        let (code, description) = (oauth.decline)(&declined);
        Box::new(match back.filter(|_| oauth.errors_go_back) {
            Some(back) => sent_back(
                back,
                &[("error", code), ("error_description", &description)],
                sent(params, "state"),
            ),
            None => refusal_page(&format!("{code}: {description}")),
        })
    };
    let client = sent(params, "client_id").and_then(|id| store.clients.get(id));
    let client = client.ok_or_else(|| refuse(Declined::Client, None))?;
    let given = match (sent(params, "redirect_uri"), client.redirect_uris.first()) {
        (Some(given), _) => given,
        (None, Some(first)) if oauth.redirect_optional => first,
        _ => return Err(refuse(Declined::Redirect(""), None)),
    };
    let known = &client.redirect_uris;
    let target = Url::parse(given)
        .ok()
        .filter(|_| known.is_empty() || known.iter().any(|one| one == given));
    let target = target.ok_or_else(|| refuse(Declined::Redirect(given), None))?;
    match sent(params, "response_type") {
        Some("code") => {}
        None if !oauth.response_type => {}
        _ => return Err(refuse(Declined::ResponseType, Some(&target))),
    }
    let scope = sent(params, "scope").or(oauth.scopes.default).unwrap_or("");
    let words: Vec<&str> = scope.split_whitespace().collect();
    let unknown = words.iter().find(|one| !(oauth.scopes.known)(one));
    if let Some(bad) = unknown.copied() {
        return Err(refuse(Declined::Scope(bad), Some(&target)));
    }
    if words.is_empty() && oauth.scopes.default.is_none() {
        return Err(refuse(Declined::Scope(""), Some(&target)));
    }
    let challenge = match (oauth.pkce, sent(params, "code_challenge")) {
        (Pkce::Ignored, _) | (Pkce::Optional, None) => None,
        (Pkce::Required, None) => return Err(refuse(Declined::ChallengeMissing, Some(&target))),
        (_, Some(challenge)) => {
            if sent(params, "code_challenge_method").is_some_and(|method| method != "S256") {
                return Err(refuse(Declined::ChallengeMethod, Some(&target)));
            }
            Some(challenge.to_owned())
        }
    };
    Ok(Asked {
        client: client.clone(),
        redirect: target,
        redirect_uri: given.to_owned(),
        scope: words.join(" "),
        challenge,
        state: param(params, "state").map(str::to_owned),
    })
}

fn refusal_page(text: &str) -> Reply {
    page(
        400,
        "Sorry, but this did not work",
        &format!("<p>{}</p>", escape(text)),
    )
}

fn sent_back(target: &Url, fields: &[(&str, &str)], state: Option<&str>) -> Reply {
    let mut target = target.clone();
    target
        .query_pairs_mut()
        .extend_pairs(fields)
        .extend_pairs(state.map(|state| ("state", state)));
    redirect(&target)
}

/// The page on which a person chooses an account and approves or denies.
pub fn consent(store: &Store, vendor: &Vendor, oauth: &OAuth, call: &Call<'_>) -> Reply {
    if let Err(refused) = asked(store, oauth, &call.query) {
        return *refused;
    }
    form(
        store,
        vendor,
        &format!("{}/decision", call.path),
        &call.query,
    )
}

/// A form that posts what came with the request, the account and the decision to `action`.
pub fn form(store: &Store, vendor: &Vendor, action: &str, hidden: &Params) -> Reply {
    let hidden: String = hidden
        .iter()
        .map(|(name, value)| {
            let (name, value) = (escape(name), escape(value));
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">\n")
        })
        .collect();
    let accounts: String = store
        .accounts
        .iter()
        .map(|account| {
            let (id, name) = (escape(&account.id), escape(&account.name));
            format!("<option value=\"{id}\">{name}</option>\n")
        })
        .collect();
    let body = format!(
        "<p>An app asks to use your account's data.</p>\n<form method=\"post\" action=\"{action}\">\n{hidden}<label>Account <select name=\"account\">\n{accounts}</select></label>\n<button type=\"submit\" name=\"decision\" value=\"approve\">Approve</button>\n<button type=\"submit\" name=\"decision\" value=\"deny\">Deny</button>\n</form>"
    );
    page(200, &format!("Connect {} (stand-in)", vendor.title), &body)
}

/// The account that a form chose, the first one if it chose none.
pub fn chosen(store: &Store, form: &Params) -> Result<Account, Box<Reply>> {
    let account = match param(form, "account") {
        Some(id) => store.account(id),
        None => store.accounts.first(),
    };
    account
        .cloned()
        .ok_or_else(|| Box::new(refusal_page("There is no such account.")))
}

pub fn decision(store: &mut Store, oauth: &OAuth, call: &Call<'_>) -> Reply {
    let form = params(call.body);
    let asked = match asked(store, oauth, &form) {
        Ok(asked) => asked,
        Err(refused) => return *refused,
    };
    let state = asked.state.as_deref();
    match param(&form, "decision") {
        Some("approve") => {}
        Some("deny") => {
            let mut fields = vec![("error", "access_denied")];
            fields.extend(oauth.denied.map(|text| ("error_description", text)));
            return sent_back(&asked.redirect, &fields, state);
        }
        _ => return refusal_page("Approve or deny?"),
    }
    let account = match chosen(store, &form) {
        Ok(account) => account,
        Err(refused) => return *refused,
    };
    let code = Code {
        client_id: asked.client.client_id.clone(),
        redirect_uri: asked.redirect_uri.clone(),
        account: account.id.clone(),
        scope: asked.scope.clone(),
        challenge: asked.challenge.clone(),
        issued: call.now,
        grant: None,
    };
    let secret = store.secret();
    let value = (oauth.mint)(&Minting {
        kind: Kind::Code,
        secret: &secret,
        client: &asked.client,
        account: &account,
        scope: &asked.scope,
        event: "",
        now: call.now,
        expires: Some(call.now + oauth.code_life),
    });
    let more = (oauth.callback)(&code);
    store.codes.insert(value.clone(), code);
    let mut fields = vec![("code", value.as_str())];
    fields.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
    sent_back(&asked.redirect, &fields, state)
}

/// The fields of a body, from a form or from the top of a JSON object.
pub fn fields(oauth: &OAuth, call: &Call<'_>) -> Params {
    if oauth.client_auth != ClientAuth::Json {
        return params(call.body);
    }
    let body: Value = serde_json::from_slice(call.body).unwrap_or_default();
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            Some(words.join(" "))
        }
        other => Some(other.to_string()),
    };
    body.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
        .collect()
}

fn basic(call: &Call<'_>) -> Option<(String, String)> {
    let decoded = STANDARD.decode(call.authorization("basic")?).ok()?;
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

/// The app that a token request comes from.
pub fn client(
    store: &Store,
    oauth: &OAuth,
    call: &Call<'_>,
    form: &Params,
) -> Result<Client, Refusal<'static>> {
    let of_form = || {
        let id = sent(form, "client_id")?.to_owned();
        Some((id, sent(form, "client_secret").map(str::to_owned)))
    };
    let of_header = || basic(call).map(|(id, secret)| (id, Some(secret)));
    let (id, secret) = match oauth.client_auth {
        ClientAuth::Form | ClientAuth::Json => of_form(),
        ClientAuth::BasicOrForm => of_header().or_else(of_form),
        ClientAuth::Secret => return by_secret(store, call, form),
    }
    .ok_or(Refusal::ClientMissing)?;
    let client = store.clients.get(&id).ok_or(Refusal::ClientUnknown)?;
    match secret {
        Some(secret) if secret == client.client_secret => Ok(client.clone()),
        None if oauth.client_auth == ClientAuth::Json && without_secret(store, form) => {
            Ok(client.clone())
        }
        None => Err(Refusal::Missing("client_secret")),
        Some(_) => Err(Refusal::SecretWrong),
    }
}

/// Whether this request belongs to the flow with a challenge, in which apps keep no secret.
fn without_secret(store: &Store, form: &Params) -> bool {
    match sent(form, "refresh_token").and_then(|token| store.refresh.get(token)) {
        Some(refresh) => store
            .grants
            .get(&refresh.grant)
            .is_some_and(|grant| grant.pkce),
        None => sent(form, "code_verifier").is_some(),
    }
}

/// Whose secret this is. Two apps with one secret are told apart by what they present.
fn by_secret(store: &Store, call: &Call<'_>, form: &Params) -> Result<Client, Refusal<'static>> {
    let user = basic(call).map(|(user, _)| user);
    let secret = call.authorization("bearer");
    let secret = secret
        .or(user.as_deref())
        .or_else(|| sent(form, "client_secret"))
        .ok_or(Refusal::ClientMissing)?;
    let of_code = sent(form, "code").and_then(|code| store.codes.get(code));
    let of_refresh = sent(form, "refresh_token")
        .and_then(|token| store.refresh.get(token))
        .and_then(|refresh| store.grants.get(&refresh.grant));
    let owner = of_code
        .map(|code| &code.client_id)
        .or(of_refresh.map(|grant| &grant.client_id));
    let holders: Vec<&Client> = store
        .clients
        .values()
        .filter(|client| client.client_secret == secret)
        .collect();
    holders
        .iter()
        .find(|client| Some(&client.client_id) == owner)
        .or(holders.first())
        .map(|client| (*client).clone())
        .ok_or(Refusal::SecretWrong)
}

pub fn tokens(store: &mut Store, oauth: &OAuth, call: &Call<'_>) -> Reply {
    let form = fields(oauth, call);
    let answered =
        client(store, oauth, call, &form).and_then(|client| match sent(&form, "grant_type") {
            Some("authorization_code") => exchange(store, oauth, call, &form, &client),
            Some("refresh_token") if oauth.refresh.is_some() => {
                refresh(store, oauth, call, &form, &client)
            }
            Some(other) => Err(Refusal::GrantTypeUnknown(other)),
            None => Err(Refusal::GrantTypeMissing),
        });
    answered.unwrap_or_else(|refusal| (oauth.refuse)(&refusal, call))
}

fn exchange<'a>(
    store: &mut Store,
    oauth: &OAuth,
    call: &Call<'_>,
    form: &'a Params,
    client: &Client,
) -> Result<Reply, Refusal<'a>> {
    let value = sent(form, "code").ok_or(Refusal::Missing("code"))?;
    let code = store.codes.get(value).cloned();
    let code = code.ok_or(Refusal::CodeUnknown(value))?;
    if let Some(grant) = code.grant {
        if oauth.code_reuse_revokes {
            store.revoke(|one| one.id == grant);
        }
        return Err(Refusal::CodeUsed(value));
    }
    if call.now >= code.issued + oauth.code_life {
        return Err(Refusal::CodeExpired(value));
    }
    if code.client_id != client.client_id {
        return Err(Refusal::CodeOfAnother);
    }
    match (oauth.redirect_at_token, sent(form, "redirect_uri")) {
        (RedirectAtToken::Ignored, _) | (RedirectAtToken::IfSent, None) => {}
        (RedirectAtToken::Required, None) => return Err(Refusal::Missing("redirect_uri")),
        (_, Some(redirect)) if redirect == code.redirect_uri => {}
        _ => return Err(Refusal::Redirect),
    }
    match (&code.challenge, sent(form, "code_verifier")) {
        (None, None) => {}
        (Some(_), None) => return Err(Refusal::VerifierMissing),
        (Some(challenge), Some(verifier))
            if *challenge == URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)) => {}
        // Whoever sends a verifier has asked with a challenge, so somebody took that away on its way
        // (RFC 9700 §2.1.1).
        (None, Some(_)) if oauth.pkce == Pkce::Ignored => {}
        (_, Some(_)) => return Err(Refusal::VerifierWrong),
    }
    let account = store.account(&code.account).cloned();
    let account = account.ok_or(Refusal::CodeUnknown(value))?;
    let scope = narrowed(&code.scope, sent(form, "scopes"))?;
    let grant = consented(store, oauth, client, &account, &scope, call.now);
    if code.challenge.is_some()
        && let Some(grant) = store.grants.get_mut(&grant)
    {
        grant.pkce = true;
    }
    if let Some(code) = store.codes.get_mut(value) {
        code.grant = Some(grant);
    }
    let short = param(form, "short_lived") == Some("true");
    issue(store, oauth, call, grant, &scope, short, None).ok_or(Refusal::CodeUnknown(value))
}

/// The scope that is asked for, as far as it is part of the scope that was granted.
fn narrowed(granted: &str, wanted: Option<&str>) -> Result<String, Refusal<'static>> {
    let Some(wanted) = wanted else {
        return Ok(granted.to_owned());
    };
    let granted: Vec<&str> = granted.split(' ').collect();
    // The one pair of scopes among all vendors of which the wider holds the narrower.
    let within = |one: &str| {
        granted.contains(&one) || (one == "read_only" && granted.contains(&"read_write"))
    };
    let words: Vec<&str> = wanted.split_whitespace().collect();
    match words.iter().all(|one| within(one)) {
        true => Ok(words.join(" ")),
        false => Err(Refusal::Scope),
    }
}

/// A new consent of an account to an app. The oldest of too many goes.
pub fn consented(
    store: &mut Store,
    oauth: &OAuth,
    client: &Client,
    account: &Account,
    scope: &str,
    now: i64,
) -> u64 {
    let id = store.next();
    let event = uuid(&store.secret());
    let grant = Grant {
        id,
        client_id: client.client_id.clone(),
        account: account.id.clone(),
        user: account.user.clone(),
        scope: scope.to_owned(),
        consented: now,
        event,
        pkce: false,
        revoked: false,
        detached: false,
    };
    store.grants.insert(id, grant);
    let live: Vec<u64> = store
        .grants
        .values()
        .filter(|one| !one.revoked && one.client_id == client.client_id && one.user == account.user)
        .map(|one| one.id)
        .collect();
    if let Some(most) = oauth.grants_max
        && live.len() > most
    {
        let oldest = &live[..live.len() - most];
        store.revoke(|one| oldest.contains(&one.id));
    }
    id
}

fn lifetime<'a>(oauth: &'a OAuth, grant: &Grant) -> Option<&'a Lifetime> {
    match &oauth.refresh_pkce {
        Some(other) if grant.pkce => Some(other),
        _ => oauth.refresh.as_ref(),
    }
}

fn refresh<'a>(
    store: &mut Store,
    oauth: &OAuth,
    call: &Call<'_>,
    form: &'a Params,
    client: &Client,
) -> Result<Reply, Refusal<'a>> {
    let value = sent(form, "refresh_token").ok_or(Refusal::Missing("refresh_token"))?;
    let invalid = Refusal::RefreshInvalid(value);
    let token = store.refresh.get(value).cloned().ok_or(invalid)?;
    *store.asked.entry(token.grant).or_default() += 1;
    let grant = store.grants.get(&token.grant).cloned().ok_or(invalid)?;
    if grant.client_id != client.client_id || grant.revoked || token.revoked {
        return Err(invalid);
    }
    let life = lifetime(oauth, &grant).ok_or(invalid)?;
    if let (
        Some(at),
        Rotation::Each {
            grace,
            reuse_revokes,
        },
    ) = (token.superseded, life.rotation)
        && call.now >= at + grace
    {
        if reuse_revokes {
            store.revoke(|one| one.id == grant.id);
        }
        return Err(Refusal::RefreshReused);
    }
    if life.idle.is_some_and(|idle| call.now >= token.used + idle) {
        return Err(Refusal::RefreshExpired);
    }
    let wanted = sent(form, "scope").or(sent(form, "scopes"));
    let scope = narrowed(&grant.scope, wanted)?;
    let short = param(form, "short_lived") == Some("true");
    issue(store, oauth, call, grant.id, &scope, short, Some(value)).ok_or(invalid)
}

/// Gives out an access token, and a refresh token where there is one to give. `presented` is the
/// refresh token that was used for it.
pub fn issue(
    store: &mut Store,
    oauth: &OAuth,
    call: &Call<'_>,
    grant: u64,
    scope: &str,
    short_lived: bool,
    presented: Option<&str>,
) -> Option<Reply> {
    let grant = store.grants.get(&grant)?.clone();
    let client = store.clients.get(&grant.client_id)?.clone();
    let account = store.account(&grant.account)?.clone();
    let life = oauth.access_life.map(|life| {
        if short_lived {
            life.min(24 * 3600)
        } else {
            life
        }
    });
    let access = Access {
        grant: grant.id,
        scope: scope.to_owned(),
        issued: call.now,
        expires: life.map(|life| call.now + life),
        short_lived,
        revoked: false,
    };
    let minted = |store: &mut Store, kind: Kind, expires: Option<i64>| {
        let secret = store.secret();
        (oauth.mint)(&Minting {
            kind,
            secret: &secret,
            client: &client,
            account: &account,
            scope,
            event: &grant.event,
            now: call.now,
            expires,
        })
    };
    let access_token = minted(store, Kind::Access, access.expires);
    store.access.insert(access_token.clone(), access.clone());

    let words: Vec<&str> = grant.scope.split(' ').collect();
    let wanted = oauth.refresh_scopes;
    let allowed = wanted.is_empty() || wanted.iter().any(|one| words.contains(one));
    let life = lifetime(oauth, &grant).filter(|_| allowed);
    let refresh_token = life.and_then(|life| {
        let turns = matches!(life.rotation, Rotation::Each { .. });
        let turns = turns && client.rotate.unwrap_or(true);
        match presented {
            Some(same) if !turns => {
                if let Some(token) = store.refresh.get_mut(same) {
                    token.used = call.now;
                }
                (life.rotation == Rotation::Never).then(|| same.to_owned())
            }
            _ => {
                if let Some(token) = presented.and_then(|value| store.refresh.get_mut(value)) {
                    // The grace of the value before counts from its first replacement.
                    token.superseded = token.superseded.or(Some(call.now));
                }
                let value = minted(store, Kind::Refresh, life.idle.map(|idle| call.now + idle));
                let token = Refresh {
                    grant: grant.id,
                    used: call.now,
                    superseded: None,
                    revoked: false,
                };
                store.refresh.insert(value.clone(), token);
                Some(value)
            }
        }
    });
    let body = (oauth.answer)(&Issued {
        client: &client,
        account: &account,
        grant: &grant,
        access: &access,
        access_token: &access_token,
        refresh_token: refresh_token.as_deref(),
        refresh_expires: life.and_then(|life| life.idle).map(|idle| call.now + idle),
        now: call.now,
        base: &call.base,
        path: call.path,
    });
    let mut sent = json_reply(200, &body);
    sent.headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(sent)
}

/// Why a token or key does not open a door.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dead {
    Missing,
    Unknown,
    /// When it died.
    Expired(i64),
    Revoked,
}

/// What a token or key opens.
pub struct Open {
    pub token: String,
    pub access: Access,
    pub grant: Grant,
    pub account: Account,
}

impl Open {
    pub fn may(&self, scope: &str) -> bool {
        self.access.scope.split(' ').any(|one| one == scope)
    }
}

pub fn open(store: &Store, token: Option<&str>, now: i64) -> Result<Open, Dead> {
    let token = token.ok_or(Dead::Missing)?;
    let access = store.access.get(token).ok_or(Dead::Unknown)?;
    let grant = store.grants.get(&access.grant).ok_or(Dead::Unknown)?;
    if access.revoked || grant.revoked {
        return Err(Dead::Revoked);
    }
    if let Some(at) = access.expires.filter(|at| now >= *at) {
        return Err(Dead::Expired(at));
    }
    let account = store.account(&grant.account).ok_or(Dead::Unknown)?;
    Ok(Open {
        token: token.to_owned(),
        access: access.clone(),
        grant: grant.clone(),
        account: account.clone(),
    })
}

/// What the bearer of a request opens.
pub fn bearer(store: &Store, call: &Call<'_>) -> Result<Open, Dead> {
    open(store, call.authorization("bearer"), call.now)
}
