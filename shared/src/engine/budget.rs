//! The budgets at work: before each call to a provider, the right to make it; after each, what the
//! answer says about the calls to come. What is decided, `sync::budget` decides.
//!
//! A process reads and writes the row of a connection once for up to eight calls. Others see what it
//! took, and a pause that it was told of, with their own next request: at most three seconds later.

use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::http::{Request, Response};
use crate::oauth::connection::Connection;
use crate::providers::Manifest;
use crate::queue::Message;
use crate::store::{Condition, Key, Write, WriteError, keys};
use crate::sync::budget::{self, Ask, Held, Millis, Row, Scope};
use chrono::{DateTime, Utc};
use std::sync::PoisonError;
use std::time::Duration;

/// How long a function waits for calls, in all of one batch at one connection. What takes longer goes
/// back to the queue, so that the function is free for others.
pub(super) const PATIENCE: Millis = 2000;
/// The shortest time after which what works in the background asks again.
const BACKGROUND_WAIT_MIN: Millis = 2000;
/// How often a row is written again that another process has just written.
const RACE_ROUNDS_MAX: usize = 8;
/// Budgets that one process keeps in mind.
const HELD_MAX: usize = 1000;

/// Where the budgets of one connection stand.
pub(super) struct Budget<'a> {
    ctx: &'a Ctx,
    manifest: &'static Manifest,
    messages: usize,
    connection: Key,
    app: Key,
    /// Whether what is done gives way to everything else.
    background: bool,
}

/// There is nothing to take: until when, and the row that says so.
struct Full {
    until: Millis,
    condition: Condition,
    row: Row,
}

impl<'a> Budget<'a> {
    /// The budgets of `connection` for a function that has so many messages for it.
    pub fn new(
        ctx: &'a Ctx,
        manifest: &'static Manifest,
        connection: &Connection,
        messages: usize,
        background: bool,
    ) -> Budget<'a> {
        Budget {
            ctx,
            manifest,
            messages,
            connection: keys::budget(&connection.merchant_id, &connection.id),
            app: keys::app_budget(manifest.name),
            background,
        }
    }

    fn ask<'h>(&self, held: &'h Held, path: &'h str, now: Millis) -> Ask<'h> {
        Ask {
            background: self.background,
            ..held.ask(path, now)
        }
    }

    fn scopes(&self) -> [(&Key, &'static Scope); 2] {
        let limits = &self.manifest.limits;
        [
            (&self.connection, &limits.connection),
            (&self.app, &limits.app),
        ]
    }

    /// Returns when `request` may be sent. What is waited for is taken off `patience`; with an error
    /// that says when to come back if that is not enough.
    pub async fn take(&self, request: &Request, patience: &mut Millis) -> Result<()> {
        for (key, scope) in self.scopes() {
            if !scope.windows.is_empty() || scope.seats.is_some() {
                self.take_of(key, scope, request.url.path(), patience)
                    .await?;
            }
        }
        Ok(())
    }

    /// Fails as `take` would, without taking anything: so that what a function prepares for a call is
    /// not done for nothing.
    pub async fn open(&self) -> Result<()> {
        for (key, scope) in self.scopes() {
            let limited = !scope.windows.is_empty() || scope.seats.is_some();
            if !limited || self.held(key, |held, now| held.holds(held.time(now))) {
                continue;
            }
            let (condition, row) = self.load(key).await?;
            let full = self.held(key, |held, now| {
                let now = held.time(now);
                let ask = self.ask(held, "", now);
                let until = row.take(scope, &ask).err()?;
                (until - now > PATIENCE).then_some(until)
            });
            if let Some(until) = full {
                let full = Full {
                    until,
                    condition,
                    row,
                };
                return Err(self.send_away(key, scope, "", full).await?);
            }
        }
        Ok(())
    }

    /// Fails with the time to come again when the messages are few and are to gather first.
    pub async fn gather(&self) -> Result<()> {
        for (key, scope) in self.scopes() {
            if let Some(path) = scope.several() {
                self.begin(key, scope, path).await?;
            }
        }
        Ok(())
    }

    async fn begin(&self, key: &Key, scope: &Scope, path: &str) -> Result<()> {
        for _ in 0..RACE_ROUNDS_MAX {
            let (condition, row) = self.load(key).await?;
            let begun = self.held(key, |held, now| {
                row.begin(scope, &self.ask(held, path, held.time(now)), self.messages)
            });
            match begun {
                Ok(next) if next == row => return Ok(()),
                Ok(next) => {
                    if self.store(key, condition, &next).await? {
                        return Ok(());
                    }
                }
                Err((until, row)) => {
                    let full = Full {
                        until,
                        condition,
                        row,
                    };
                    return Err(self.send_away(key, scope, path, full).await?);
                }
            }
        }
        // So many others begin just now that there is company enough.
        Ok(())
    }

    /// Whether `count` things should go one by one although one call could carry them.
    pub async fn is_better_alone(&self, count: u32) -> Result<bool> {
        for (key, scope) in self.scopes() {
            let Some(path) = scope.several() else {
                continue;
            };
            let (_, row) = self.load(key).await?;
            let alone = self.held(key, |held, now| {
                row.is_better_alone(scope, &self.ask(held, path, held.time(now)), count)
            });
            if alone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn take_of(
        &self,
        key: &Key,
        scope: &Scope,
        path: &str,
        patience: &mut Millis,
    ) -> Result<()> {
        let special = scope.is_special(path);
        self.held(key, |held, now| held.ready(held.time(now)));
        loop {
            let begins = self.held(key, |held, now| {
                let now = held.time(now);
                let begins = if special { None } else { held.next(scope, now) };
                begins.map(|begins| begins - now)
            });
            if let Some(wait) = begins {
                self.sleep(wait).await;
                return Ok(());
            }
            match self.reserve(key, scope, path).await? {
                Ok(None) => {}
                Ok(Some(wait)) => {
                    self.sleep(wait).await;
                    return Ok(());
                }
                Err(full) => {
                    let until = full.until;
                    let wait = self.held(key, |held, now| until - held.time(now));
                    if wait > *patience {
                        return Err(self.send_away(key, scope, path, full).await?);
                    }
                    *patience -= wait.max(1);
                    self.sleep(wait.max(1)).await;
                }
            }
        }
    }

    /// Takes calls out of the row: for a special call how long it has to wait, else `None` and the
    /// calls are held. The inner error says that there are none.
    async fn reserve(
        &self,
        key: &Key,
        scope: &Scope,
        path: &str,
    ) -> Result<Result<Option<Millis>, Full>> {
        let special = scope.is_special(path);
        for _ in 0..RACE_ROUNDS_MAX {
            let (condition, row) = self.load(key).await?;
            let taken = self.held(key, |held, now| {
                row.take(scope, &self.ask(held, path, held.time(now)))
            });
            let (row, taken) = match taken {
                Ok(taken) => taken,
                Err(until) => {
                    return Ok(Err(Full {
                        until,
                        condition,
                        row,
                    }));
                }
            };
            if self.store(key, condition, &row).await? {
                return Ok(Ok(self.held(key, |held, now| {
                    let now = held.time(now);
                    if special {
                        return Some(held.begin(scope, &taken, now) - now);
                    }
                    held.keep(taken);
                    None
                })));
            }
        }
        Err(throttled(self.manifest, Duration::from_secs(1)))
    }

    /// Makes the error for a message that has to come again later, each batch after the one before.
    async fn send_away(&self, key: &Key, scope: &Scope, path: &str, full: Full) -> Result<Error> {
        if self.background {
            // It keeps no turn, and thus nobody waiting behind it.
            let wait = self.held(key, |held, now| full.until - held.time(now));
            let away = wait.clamp(BACKGROUND_WAIT_MIN, budget::AWAY_MAX);
            return Ok(throttled(self.manifest, millis(away)));
        }
        let (mut condition, mut row) = (full.condition, full.row);
        for _ in 0..RACE_ROUNDS_MAX {
            let (next, away) = self.held(key, |held, now| {
                row.send_away(scope, path, self.messages, held.time(now), full.until)
            });
            // Further than a message can be sent: then all go the same way, and nothing is written.
            if next == row || self.store(key, condition, &next).await? {
                return Ok(throttled(self.manifest, millis(away)));
            }
            (condition, row) = self.load(key).await?;
        }
        Ok(throttled(self.manifest, Duration::from_secs(1)))
    }

    /// Reads what an answer to a call that was sent at `sent` says about the calls to come. An error is
    /// for the message whose call was refused for its number.
    pub async fn learn(&self, answer: &Response, sent: DateTime<Utc>) -> Result<()> {
        let date = answer.header("date").and_then(|date| {
            let date = DateTime::parse_from_rfc2822(date).ok()?;
            Some(date.timestamp_millis())
        });
        for (key, scope) in self.scopes() {
            if scope.windows.is_empty() && scope.seats.is_none() {
                continue;
            }
            self.held(key, |held, now| {
                held.see_clock(date, sent.timestamp_millis(), now);
                let now = held.time(now);
                for (index, window) in scope.windows.iter().enumerate() {
                    let left = window.left.and_then(|name| answer.header(name));
                    if let Some(left) = left.and_then(|left| left.trim().parse().ok()) {
                        held.see_left(index, left, now);
                    }
                }
            });
        }
        let limits = &self.manifest.limits;
        let problem = limits.problem.and_then(|name| answer.header(name));
        let wait = answer
            .header("retry-after")
            .and_then(|wait| self.wait(wait));
        let Some(silence) = budget::silence(limits, answer.status, wait, problem) else {
            return Ok(());
        };
        let key = if silence.app {
            &self.app
        } else {
            &self.connection
        };
        self.pause(key, silence.lasts).await?;
        Err(throttled(self.manifest, millis(silence.lasts)))
    }

    /// `Retry-After` (RFC 9110 §10.2.3), in seconds or as a date.
    fn wait(&self, text: &str) -> Option<Millis> {
        if let Ok(seconds) = text.trim().parse::<u32>() {
            return Some(Millis::from(seconds) * 1000);
        }
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        let now = self.held(&self.connection, |held, now| held.time(now));
        Some((date.timestamp_millis() - now).max(0))
    }

    async fn pause(&self, key: &Key, lasts: Millis) -> Result<()> {
        let now = self.held(key, |held, now| {
            held.drop_calls();
            held.time(now)
        });
        for _ in 0..RACE_ROUNDS_MAX {
            let (condition, row) = self.load(key).await?;
            if self.store(key, condition, &row.pause(now, lasts)).await? {
                break;
            }
        }
        tracing::warn!(
            provider = self.manifest.name,
            milliseconds = lasts,
            "the provider wants silence"
        );
        Ok(())
    }

    /// Runs `act` on what this process holds, with the time of our clock.
    fn held<T>(&self, key: &Key, act: impl FnOnce(&mut Held, Millis) -> T) -> T {
        let now = self.ctx.now().timestamp_millis();
        let mut all = self
            .ctx
            .budgets
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if all.len() >= HELD_MAX && !all.contains_key(key) {
            all.retain(|_, held| held.began().is_some_and(|began| now - began < 60_000));
        }
        let fresh = || Held::new(self.ctx.uuid().simple().to_string());
        act(all.entry(key.clone()).or_insert_with(fresh), now)
    }

    async fn sleep(&self, wait: Millis) {
        if wait > 0 {
            self.ctx.clock.sleep(millis(wait)).await;
        }
    }

    async fn load(&self, key: &Key) -> Result<(Condition, Row)> {
        match self.ctx.store.get(key).await? {
            Some(item) => Ok((Condition::Rev(item.rev), item.read()?)),
            None => Ok((Condition::Absent, Row::default())),
        }
    }

    /// Whether nobody was faster.
    async fn store(&self, key: &Key, condition: Condition, row: &Row) -> Result<bool> {
        match self
            .ctx
            .store
            .write(Write::put(key.clone(), condition, row)?)
            .await
        {
            Ok(()) => Ok(true),
            Err(WriteError::Condition(_) | WriteError::Contended) => Ok(false),
            Err(WriteError::Failed(error)) => Err(error),
        }
    }
}

fn millis(wait: Millis) -> Duration {
    Duration::from_millis(wait.unsigned_abs())
}

fn throttled(manifest: &Manifest, wait: Duration) -> Error {
    let detail = format!(
        "{} takes no more calls for this connection for now; it goes on by itself",
        manifest.title
    );
    Error::new(Code::UpstreamFailed, detail).later(wait)
}

/// Sends each of `bodies` whose result says when to come back to the queue at `url` again, to be seen
/// then. Its result is then a success, since the queue has it; that it was seen is not counted against
/// it, as it would be if it were left to the queue.
pub async fn postpone(
    ctx: &Ctx,
    url: Result<&str>,
    bodies: &[String],
    results: Vec<Result<()>>,
) -> Vec<Result<()>> {
    let mut kept = Vec::with_capacity(results.len());
    let mut away = Vec::new();
    for (index, result) in results.iter().enumerate() {
        if let Err(error) = result
            && let Some(wait) = error.retry_after()
        {
            let seconds = wait.as_millis().div_ceil(1000);
            let most = budget::AWAY_MAX.unsigned_abs() / 1000;
            let delay_seconds = u16::try_from(u64::try_from(seconds).unwrap_or(most).min(most));
            away.push(Message {
                body: bodies[index].clone(),
                delay_seconds: delay_seconds.unwrap_or(u16::MAX),
                group: None,
            });
        }
    }
    if away.is_empty() {
        return results;
    }
    let count = away.len();
    let sent = match url {
        Ok(url) => ctx.queue.send_later(url, away).await,
        Err(error) => Err(error),
    };
    match &sent {
        Ok(()) => tracing::info!(count, "sent away until the provider takes calls again"),
        Err(error) => tracing::warn!(error = %error.chain(), "not sent away; the queue keeps them"),
    }
    for result in results {
        kept.push(match result {
            Err(error) if sent.is_ok() && error.retry_after().is_some() => Ok(()),
            result => result,
        });
    }
    kept
}
