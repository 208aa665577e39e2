//! Calls to one connected company, with a token that is kept fresh.

use super::budget::{self, Budget};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http::{Request, Response};
use crate::net::Limits;
use crate::oauth::connection::{self, Connection, Trouble};
use crate::oauth::setup::Setup;
use crate::oauth::tokens::{self, Need};
use crate::providers::accounting::Accounting;
use crate::providers::{Fault, Grant, NO_ACCOUNT, Tenant};
use crate::store::{Condition, Key, Write, keys};
use crate::sync::budget::Millis;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Mutex;

/// How long the company's settings are used before they are read again.
const SETTINGS_AGE_MAX: TimeDelta = TimeDelta::hours(1);

#[derive(Serialize, Deserialize)]
struct HeldSettings {
    settings: Value,
    read_at: DateTime<Utc>,
}

fn settings_key(connection: &Connection) -> Key {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    keys::link(merchant, id, "settings", "company")
}

/// Lets the company's settings be read again before they are used again: what stood in the way may have
/// been put right there.
pub async fn forget_settings(ctx: &Ctx, connection: &Connection) -> Result<()> {
    let forgotten = HeldSettings {
        settings: Value::Null,
        read_at: DateTime::UNIX_EPOCH,
    };
    let write = Write::put(settings_key(connection), Condition::Any, &forgotten)?;
    Ok(ctx.store.write(write).await?)
}

pub struct Session<'a> {
    pub ctx: &'a Ctx,
    pub provider: &'static dyn Accounting,
    pub connection: &'a Connection,
    pub tenant: Tenant,
    setup: Setup,
    /// What calls are made with, and its generation.
    grant: Mutex<Option<(u64, Grant)>>,
    budget: Budget<'a>,
    /// How long this session may still wait for calls.
    patience: Mutex<Millis>,
    /// For how long it was sent away, once it was.
    away: OnceLock<Error>,
    /// Whether a success and a failure were noted, so that each is noted once.
    noted: [AtomicBool; 2],
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
    /// A session for so many messages. Fails at once, with the time to come again, when there are no
    /// calls left to make. What works in the `background` leaves a part of them to everything else.
    pub async fn new(
        ctx: &'a Ctx,
        provider: &'static dyn Accounting,
        connection: &'a Connection,
        messages: usize,
        background: bool,
    ) -> Result<Session<'a>> {
        let setup = Setup::of(ctx, provider).await?;
        let api = connection.api.as_ref().unwrap_or(&setup.site.api);
        let tenant = Tenant {
            api: api.clone(),
            id: connection.tenant_id.clone(),
        };
        let budget = Budget::new(ctx, provider.manifest(), connection, messages, background);
        budget.open().await?;
        Ok(Session {
            ctx,
            provider,
            connection,
            tenant,
            setup,
            grant: Mutex::new(None),
            budget,
            patience: Mutex::new(budget::PATIENCE),
            away: OnceLock::new(),
            noted: [AtomicBool::new(false), AtomicBool::new(false)],
        })
    }

    /// Fails with the time to come again when this session's messages are few and others are to come with
    /// them, since calls that carry several things are running out.
    pub async fn gather(&self) -> Result<()> {
        self.budget.gather().await
    }

    async fn grant(&self, refused: Option<&SecretString>) -> Result<(u64, Grant)> {
        let mut held = self.grant.lock().await;
        if let (Some(grant), None) = (held.as_ref(), refused) {
            return Ok(grant.clone());
        }
        let need = refused.map_or(Need::Good, Need::Other);
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let access = tokens::access(self.ctx, &self.setup, merchant, id, need);
        let (connection, grant) = access.await?;
        let given = (connection.generation(), grant);
        *held = Some(given.clone());
        Ok(given)
    }

    /// Waits until one more call may be made. Who was sent away once is not let in again: the messages
    /// behind are of the same connection, and the function is for others now.
    async fn admit(&self, request: &Request) -> Result<()> {
        self.ready()?;
        let mut patience = self.patience.lock().await;
        let admitted = self.budget.take(request, &mut patience).await;
        admitted.map_err(|error| self.send_away(error))
    }

    /// Fails when this session was sent away, so that nothing is begun that cannot be sent.
    pub fn ready(&self) -> Result<()> {
        self.away.get().map_or(Ok(()), |error| Err(error.again()))
    }

    /// How many of `count` things go in the next call, which can carry `most`: one, where a few are left
    /// and calls with several are used up that the provider counts apart.
    pub async fn together(&self, count: usize, most: usize) -> usize {
        let few = u32::try_from(count).unwrap_or(u32::MAX);
        if few < 2 || most < 2 {
            return most;
        }
        match self.budget.is_better_alone(few).await {
            Ok(true) => 1,
            Ok(false) => most,
            Err(error) => {
                tracing::warn!(error = %error.chain(), "it is not known which calls are left");
                most
            }
        }
    }

    fn send_away(&self, error: Error) -> Error {
        if error.retry_after().is_none() {
            return error;
        }
        self.away.get_or_init(|| error).again()
    }

    /// Sends `request` and lets `read` judge the answer. A refused token is renewed once. When the
    /// budget is used up, or the provider says so, the error tells when to come again.
    pub async fn call<T>(
        &self,
        request: Request,
        read: impl Fn(&Response) -> Result<T, Fault>,
    ) -> Result<(T, Response), Stop> {
        let mut refused = None;
        loop {
            let (generation, grant) = self.grant(refused.as_ref()).await?;
            let request = self.provider.authorize(request.clone(), &grant);
            self.admit(&request).await?;
            let sent = self.ctx.now();
            let answer = match self.ctx.net.send(request, Limits::PROVIDER).await {
                Ok(answer) => answer,
                Err(error) => {
                    self.note(Err(error.detail())).await;
                    return Err(Stop::Ours(error));
                }
            };
            if let Err(error) = self.budget.learn(&answer, sent).await {
                self.note(Err(error.detail())).await;
                return Err(Stop::Ours(self.send_away(error)));
            }
            match read(&answer) {
                Ok(value) => {
                    self.note(Ok(generation)).await;
                    return Ok((value, answer));
                }
                Err(Fault::Unauthorized) if refused.is_none() => refused = Some(grant.access),
                Err(Fault::Refused { code, .. }) if code == NO_ACCOUNT => {
                    return Err(self.give_up(&grant).await);
                }
                Err(fault) => {
                    match &fault {
                        Fault::Later { detail } => self.note(Err(detail)).await,
                        Fault::Unauthorized => self.note(Err("the access was refused")).await,
                        // A refusal of one document says nothing against the connection.
                        Fault::Stale | Fault::NameTaken | Fault::Refused { .. } => {}
                    }
                    return Err(Stop::Theirs(fault));
                }
            }
        }
    }

    /// Somebody took the account away from us over there: no record is to blame, and the connection stops.
    async fn give_up(&self, grant: &Grant) -> Stop {
        let given_up = tokens::give_up(self.ctx, &self.setup, self.connection, grant).await;
        match given_up {
            Ok(told) => {
                self.note(Err(told.detail())).await;
                Stop::Ours(told)
            }
            Err(error) => Stop::Ours(error),
        }
    }

    /// Notes that the provider refuses what no single record is to blame for.
    pub async fn note_refusal(&self, fault: &Fault) {
        if let Fault::Refused { code, detail } = fault {
            self.note(Err(&format!("{code}: {detail}"))).await;
        }
    }

    /// Notes the first success of this session, with the generation of the tokens that were taken, and the
    /// first failure.
    async fn note(&self, came: Result<u64, &str>) {
        if self.noted[usize::from(came.is_err())].swap(true, Ordering::Relaxed) {
            return;
        }
        if let Ok(generation) = came {
            let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
            tokens::settle(self.ctx, merchant, id, generation).await;
        }
        let trouble = came.err().map(|detail| Trouble {
            code: Code::UpstreamFailed.as_str().to_owned(),
            detail: detail.to_owned(),
            at: self.ctx.now(),
        });
        connection::note_health(self.ctx, self.connection, trouble).await;
    }

    /// How the company is set up, read at most once an hour, with what the merchant chose.
    pub async fn settings(&self) -> Result<Value, Stop> {
        let key = settings_key(self.connection);
        if let Some(item) = self.ctx.store.get(&key).await? {
            let held: HeldSettings = item.read()?;
            if self.ctx.now() - held.read_at < SETTINGS_AGE_MAX {
                return Ok(self.with_choices(held.settings));
            }
        }
        self.read_settings().await
    }

    fn with_choices(&self, mut settings: Value) -> Value {
        settings["choices"] = json!(self.connection.choices());
        settings
    }

    /// The same, read now.
    pub async fn read_settings(&self) -> Result<Value, Stop> {
        let (key, now) = (settings_key(self.connection), self.ctx.now());
        let mut answers = Vec::new();
        for request in self.provider.settings_requests(&self.tenant) {
            // Judged together below; here only a refused token matters.
            let check = |answer: &Response| match answer.status {
                401 => Err(Fault::Unauthorized),
                _ => Ok(()),
            };
            answers.push(self.call(request, check).await?.1);
        }
        let settings = match self.provider.read_settings(&answers) {
            Ok(settings) => settings,
            Err(Fault::Refused { code, .. }) if code == NO_ACCOUNT => {
                let (_, grant) = self.grant(None).await?;
                return Err(self.give_up(&grant).await);
            }
            Err(fault) => return Err(fault.into()),
        };
        let held = HeldSettings {
            settings,
            read_at: now,
        };
        self.ctx
            .store
            .write(Write::put(key, Condition::Any, &held)?)
            .await
            .map_err(Error::from)?;
        Ok(self.with_choices(held.settings))
    }
}

impl Stop {
    /// The same reason for another document of the same call.
    pub fn alike(&self) -> Stop {
        match self {
            Stop::Ours(error) => Stop::Ours(error.again()),
            Stop::Theirs(fault) => Stop::Theirs(fault.clone()),
        }
    }

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
