//! Calls to one connected company, with a token that is kept fresh.

use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http::{Authorization, Request, Response};
use crate::net::Limits;
use crate::oauth::connection::Connection;
use crate::oauth::tokens;
use crate::providers::{Accounting, Fault, Tenant};
use crate::store::{Condition, Write, keys};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Mutex;

/// How long the company's settings are used before they are read again.
const SETTINGS_AGE_MAX: TimeDelta = TimeDelta::hours(1);

/// While another function renews the tokens, this one looks again a few times before the message
/// goes back to the queue.
const RENEWAL_WAITS_MAX: usize = 12;
const RENEWAL_WAIT: Duration = Duration::from_millis(250);

#[derive(Serialize, Deserialize)]
struct HeldSettings {
    settings: Value,
    read_at: DateTime<Utc>,
}

pub struct Session<'a> {
    pub ctx: &'a Ctx,
    pub provider: &'static dyn Accounting,
    pub connection: &'a Connection,
    pub tenant: Tenant,
    token: Mutex<Option<SecretString>>,
}

/// Why a push stopped: we failed and may try again, or the provider said no.
#[derive(Debug)]
pub enum Stop {
    Ours(Error),
    Theirs(Fault),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Ours(error)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Stop {
        Stop::Theirs(fault)
    }
}

impl<'a> Session<'a> {
    pub fn new(
        ctx: &'a Ctx,
        provider: &'static dyn Accounting,
        connection: &'a Connection,
    ) -> Result<Session<'a>> {
        let api = tokens::site(ctx, provider.manifest())?.api;
        let tenant = Tenant {
            api,
            id: connection.tenant_id.clone(),
        };
        Ok(Session {
            ctx,
            provider,
            connection,
            tenant,
            token: Mutex::new(None),
        })
    }

    async fn token(&self, refused: Option<&SecretString>) -> Result<SecretString> {
        let mut held = self.token.lock().await;
        if let (Some(token), None) = (held.as_ref(), refused) {
            return Ok(token.clone());
        }
        let manifest = self.provider.manifest();
        let mut tries = 0;
        loop {
            let token = tokens::access_token(self.ctx, manifest, self.connection, refused).await;
            match token {
                Err(error) if error.code() == Code::Busy && tries < RENEWAL_WAITS_MAX => {
                    tries += 1;
                    self.ctx.clock.sleep(RENEWAL_WAIT).await;
                }
                Err(error) => return Err(error),
                Ok(token) => {
                    *held = Some(token.clone());
                    return Ok(token);
                }
            }
        }
    }

    /// Sends `request` and lets `read` judge the answer. A refused token is renewed once.
    pub async fn call<T>(
        &self,
        request: Request,
        read: impl Fn(&Response) -> Result<T, Fault>,
    ) -> Result<(T, Response), Stop> {
        let mut refused = None;
        loop {
            let token = self.token(refused.as_ref()).await?;
            let mut request = request.clone();
            request.authorization = Authorization::Bearer(token.clone());
            let answer = self.ctx.net.send(request, Limits::PROVIDER).await?;
            match read(&answer) {
                Ok(value) => return Ok((value, answer)),
                Err(Fault::Unauthorized) if refused.is_none() => refused = Some(token),
                Err(fault) => return Err(Stop::Theirs(fault)),
            }
        }
    }

    /// How the company is set up, read at most once an hour.
    pub async fn settings(&self) -> Result<Value, Stop> {
        let connection = self.connection;
        let key = keys::link(
            &connection.merchant_id,
            &connection.id,
            "settings",
            "company",
        );
        let now = self.ctx.now();
        if let Some(item) = self.ctx.store.get(&key).await? {
            let held: HeldSettings = item.read()?;
            if now - held.read_at < SETTINGS_AGE_MAX {
                return Ok(held.settings);
            }
        }
        let mut answers = Vec::new();
        for request in self.provider.settings_requests(&self.tenant) {
            // Judged together below; here only a refused token matters.
            let check = |answer: &Response| match answer.status {
                401 => Err(Fault::Unauthorized),
                _ => Ok(()),
            };
            answers.push(self.call(request, check).await?.1);
        }
        let settings = self.provider.read_settings(&answers)?;
        let held = HeldSettings {
            settings,
            read_at: now,
        };
        self.ctx
            .store
            .write(Write::put(key, Condition::Any, &held)?)
            .await
            .map_err(Error::from)?;
        Ok(held.settings)
    }
}

impl Stop {
    /// What a queue makes of it: an error to retry, or the refusal to be shown in the ledger.
    pub fn into_error(self) -> Result<(String, String), Error> {
        match self {
            Stop::Ours(error) => Err(error),
            Stop::Theirs(Fault::Refused { code, detail }) => Ok((code, detail)),
            Stop::Theirs(Fault::Later { detail }) => Err(Error::new(Code::UpstreamFailed, detail)),
            Stop::Theirs(Fault::Unauthorized) => Err(Error::new(
                Code::UpstreamFailed,
                "the provider refused a fresh token",
            )),
            Stop::Theirs(Fault::Stale) => Err(Error::new(
                Code::UpstreamFailed,
                "it keeps changing at the provider",
            )),
            Stop::Theirs(Fault::NameTaken) => Ok((
                "name_taken".to_owned(),
                "the name belongs to something else at the provider; rename one of them".to_owned(),
            )),
        }
    }
}
