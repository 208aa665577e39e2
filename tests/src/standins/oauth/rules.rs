//! What differs between vendors, as data and as the few functions that data cannot replace.

use std::io;
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::state::{Access, Account, Client, Code, Grant, Store};
use crate::standins::wire::{Params, Reply, json_reply};

pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// One vendor.
pub struct Vendor {
    /// As the command line has it.
    pub name: &'static str,
    pub title: &'static str,
    /// Id, name and person of the accounts that are always there; the first is the one that a
    /// browser selects.
    pub accounts: &'static [(&'static str, &'static str, &'static str)],
    /// Nothing, where accounts give out keys only.
    pub oauth: Option<OAuth>,
    /// The key that the first account has made.
    pub key: Option<&'static str>,
    /// Everything beside consent and tokens. It is asked first, so it may also take over a call.
    pub route: fn(&mut Store, &Call<'_>) -> Option<Reply>,
    /// How the vendor words its own failures: 429 and 5xx.
    pub trouble: fn(u16) -> Reply,
    /// Opens the half of the vendor that holds its data, where there is one.
    pub api: Option<OpenApi>,
}

/// Takes the folder that keeps the data across restarts; in memory only without one.
pub type OpenApi = fn(Option<&Path>) -> io::Result<Box<dyn Api>>;

/// The half of a vendor that holds its data. It is asked before consent and tokens are, and has no
/// clock and no socket of its own.
pub trait Api: Send {
    /// Nothing, if the address is none of its own.
    fn route(&mut self, store: &mut Store, call: &Call<'_>) -> Option<Reply>;

    /// The same for what follows `/_control`.
    fn control(
        &mut self,
        store: &mut Store,
        request: &Request<Vec<u8>>,
        path: &str,
        now: DateTime<Utc>,
    ) -> Option<Reply>;

    /// A request broke inside the vendor before it had an effect, and got this answer.
    fn failed(&mut self, store: &mut Store, call: &Call<'_>, answer: &Reply);

    /// How long a server holds the answer to a call to this address.
    fn latency(&self, path: &str) -> Duration;

    fn reset(&mut self);

    /// Writes what changed.
    fn settle(&mut self) -> io::Result<()>;

    /// Takes what the vendor has to send by itself now.
    fn due(&mut self, now: DateTime<Utc>) -> Vec<Message>;

    /// Tells what came of one of those: status and body of the answer, or that there was none.
    fn told(&mut self, id: u64, status: Option<u16>, body: &[u8], now: DateTime<Utc>);
}

/// A POST that a vendor makes by itself.
#[derive(Clone, Debug)]
pub struct Message {
    pub id: u64,
    pub url: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

pub struct OAuth {
    pub authorize: &'static [&'static str],
    pub token: &'static [&'static str],
    pub client_auth: ClientAuth,
    /// Whether `response_type=code` has to be said.
    pub response_type: bool,
    pub scopes: Scopes,
    /// Whether an authorization request may leave the redirect URI out, if the app has one.
    pub redirect_optional: bool,
    pub redirect_at_token: RedirectAtToken,
    /// Whether a bad request is told to the app, and not to the person on a page. What is wrong
    /// with the app or its redirect URI is never told to an address that came with the request.
    pub errors_go_back: bool,
    /// What comes back beside `error=access_denied`.
    pub denied: Option<&'static str>,
    pub code_life: i64,
    /// Whether a code that comes back takes the tokens with it that came of it.
    pub code_reuse_revokes: bool,
    pub pkce: Pkce,
    /// How long access tokens live; for ever without it.
    pub access_life: Option<i64>,
    /// Refresh tokens of the ordinary flow, if there are any.
    pub refresh: Option<Lifetime>,
    /// Refresh tokens of grants with a challenge, where they differ.
    pub refresh_pkce: Option<Lifetime>,
    /// The scopes of which one has to be granted for a refresh token to be given out.
    pub refresh_scopes: &'static [&'static str],
    /// How many live grants one person may give one app; the oldest goes.
    pub grants_max: Option<usize>,
    /// What the callback has beside `code` and `state`.
    pub callback: fn(&Code) -> Vec<(&'static str, String)>,
    pub mint: fn(&Minting<'_>) -> String,
    pub answer: fn(&Issued<'_>) -> Value,
    pub refuse: fn(&Refusal<'_>, &Call<'_>) -> Reply,
    /// The vendor's name and words for what is wrong with an authorization request.
    pub decline: fn(&Declined<'_>) -> (&'static str, String),
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum ClientAuth {
    /// Id and secret in the form.
    Form,
    /// In the header, as HTTP Basic, or in the form.
    BasicOrForm,
    /// The secret as a bearer or in the form; it says by itself whose it is.
    Secret,
    /// In a JSON body; the secret is left out in the flow with a challenge.
    Json,
}

pub struct Scopes {
    pub known: fn(&str) -> bool,
    /// What is granted if none is asked for; without it, one has to be.
    pub default: Option<&'static str>,
    /// What a connection has that is made over the control port without naming any.
    pub usual: &'static str,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum RedirectAtToken {
    Required,
    IfSent,
    Ignored,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Pkce {
    /// The parameters mean nothing here.
    Ignored,
    Optional,
    Required,
}

pub struct Lifetime {
    /// Dies when unused for so long.
    pub idle: Option<i64>,
    pub rotation: Rotation,
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Rotation {
    /// The same value for ever, and each answer has it again.
    Never,
    /// The same value for ever, and only the first answer has it.
    NeverRepeated,
    /// A new value each time; the one before works for `grace` seconds more. Reuse after that is
    /// refused, and may take the grant with it.
    Each { grace: i64, reuse_revokes: bool },
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Kind {
    Code,
    Access,
    Refresh,
}

/// What a code or token is made from.
pub struct Minting<'a> {
    pub kind: Kind,
    /// 43 characters of base64url.
    pub secret: &'a str,
    pub client: &'a Client,
    pub account: &'a Account,
    pub scope: &'a str,
    /// Names the consent; empty for a code.
    pub event: &'a str,
    pub now: i64,
    pub expires: Option<i64>,
}

/// What was given out, for the token answer.
pub struct Issued<'a> {
    pub client: &'a Client,
    pub account: &'a Account,
    pub grant: &'a Grant,
    pub access: &'a Access,
    pub access_token: &'a str,
    pub refresh_token: Option<&'a str>,
    /// When the refresh token dies if it is not used.
    pub refresh_expires: Option<i64>,
    pub now: i64,
    pub base: &'a str,
    /// The path that was asked: some vendors have several generations of it.
    pub path: &'a str,
}

impl Issued<'_> {
    /// Seconds that the access token has left.
    pub fn expires_in(&self) -> i64 {
        self.access.expires.map_or(0, |at| at - self.now)
    }
}

/// One request, read as far as all vendors read it alike.
pub struct Call<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub query: Params,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// Where the caller reached this vendor, without a slash at the end.
    pub base: String,
    pub now: i64,
    pub at: DateTime<Utc>,
}

impl Call<'_> {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What stands behind `kind` in the authorization header.
    pub fn authorization(&self, kind: &str) -> Option<&str> {
        let (given, rest) = self.header("authorization")?.split_once(' ')?;
        given.eq_ignore_ascii_case(kind).then(|| rest.trim())
    }
}

/// What is wrong with an authorization request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Declined<'a> {
    Client,
    Redirect(&'a str),
    ResponseType,
    Scope(&'a str),
    ChallengeMissing,
    ChallengeMethod,
}

/// Why the token endpoint gives out nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal<'a> {
    ClientMissing,
    ClientUnknown,
    SecretWrong,
    GrantTypeMissing,
    GrantTypeUnknown(&'a str),
    Missing(&'static str),
    CodeUnknown(&'a str),
    CodeUsed(&'a str),
    CodeExpired(&'a str),
    CodeOfAnother,
    Redirect,
    VerifierMissing,
    VerifierWrong,
    /// Unknown, another app's, or revoked.
    RefreshInvalid(&'a str),
    RefreshExpired,
    /// Superseded by another value.
    RefreshReused,
    Scope,
}

impl Refusal<'_> {
    /// Status and error code as RFC 6749 has them.
    pub fn standard(&self) -> (u16, &'static str) {
        match self {
            Self::ClientMissing | Self::ClientUnknown | Self::SecretWrong => {
                (401, "invalid_client")
            }
            Self::GrantTypeMissing | Self::Missing(_) => (400, "invalid_request"),
            Self::GrantTypeUnknown(_) => (400, "unsupported_grant_type"),
            Self::Scope => (400, "invalid_scope"),
            _ => (400, "invalid_grant"),
        }
    }
}

/// An OAuth error with or without words.
pub fn oauth_error(status: u16, code: &str, description: Option<&str>) -> Reply {
    let mut body = json!({"error": code});
    if let Some(description) = description {
        body["error_description"] = json!(description);
    }
    json_reply(status, &body)
}
