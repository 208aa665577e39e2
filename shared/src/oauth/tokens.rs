//! Tokens: fetched with a code, renewed by one function at a time, stored before they are used.
//!
//! The promises, and what keeps each:
//! - one renewal at a time over all functions: a lease in the connection's own item, taken by a
//!   conditional write. It has no clock: whoever would take over a lease watches it stand still for
//!   longer than any renewal takes, so that no jump of a clock lets two renew at once;
//! - no pair of tokens is dropped: whoever was given one stores it, also when he was overtaken
//!   meanwhile, unless a later generation is stored already;
//! - nothing that can fail stands between the provider's answer and the store: the data key is opened
//!   before the call;
//! - no loop: a refusal is final after the connection was read again and, where the provider grants
//!   a time of grace, the tokens before were tried once;
//! - one failure for all: whoever waited for a renewal that failed has failed with it, so that a
//!   provider in trouble is not asked once for every caller.

use super::connection::{
    Along, Connection, Decision, Happened, Lease, PATIENCE_LONG, Status, Tokens, Trouble, change,
    change_within, load, patience_for_tokens, store,
};
use super::setup::{
    Given, Rejected, Setup, TokenError, account_of, is_invalid_grant, token_error, token_limits,
};
use super::vault::{self, DataKey, Sealed};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::model::event::EventType;
use crate::model::ids::{ConnectionId, MerchantId};
use crate::net::Limits;
use crate::providers::{CodeFlow, Fault, Grant, Manifest, Refresh};
use crate::store::CALL_MAX;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::time::Duration;

/// An access token is renewed when less than this is left of it, or less than a quarter of its life.
pub(super) const MARGIN: TimeDelta = TimeDelta::minutes(2);
/// How long a lease has to stand still before somebody else takes it: longer than whoever holds it needs
/// with a table that answers. That is the answer to the write that took it, the call to the provider
/// ([`Limits::PROVIDER`]), and the storing of what that gave: tries that begin within [`PATIENCE_LONG`], of
/// which the last one reads and writes. A second call is made only where the tokens before still work, so
/// being overtaken then does no harm. Whoever could not store what he was given by then goes on trying,
/// since whoever overtakes him cannot write either.
const TAKEOVER: Duration = CALL_MAX
    .saturating_add(Limits::PROVIDER.total)
    .saturating_add(PATIENCE_LONG)
    .saturating_add(CALL_MAX.saturating_mul(2))
    .saturating_add(Duration::from_secs(2));
/// The first pause between two looks at a lease, and the longest.
const LOOK_FIRST: Duration = Duration::from_millis(100);
const LOOK_LAST: Duration = Duration::from_secs(1);
/// A renewal that failed is tried again by the schedule after this.
const RETRY: TimeDelta = TimeDelta::minutes(5);

/// What is kept of a grant, as it is sealed.
#[derive(Serialize, Deserialize)]
struct Held {
    access: String,
    refresh: Option<String>,
    #[serde(default)]
    keys: BTreeMap<String, String>,
    #[serde(default)]
    facts: BTreeMap<String, Value>,
}

impl Held {
    fn of(grant: &Grant) -> Held {
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        let keys = grant
            .keys
            .iter()
            .map(|(name, key)| (name.clone(), text(key)));
        Held {
            access: text(&grant.access),
            refresh: grant.refresh.as_ref().map(text),
            keys: keys.collect(),
            facts: grant.facts.clone(),
        }
    }

    fn grant(self) -> Grant {
        let keys = self.keys.into_iter();
        Grant {
            access: SecretString::from(self.access),
            refresh: self.refresh.map(SecretString::from),
            keys: keys
                .map(|(name, key)| (name, SecretString::from(key)))
                .collect(),
            facts: self.facts,
        }
    }
}

/// Seals a grant for its connection.
pub(super) fn seal(ctx: &Ctx, key: &DataKey, owner: &str, grant: &Grant) -> Result<Sealed> {
    let text = serde_json::to_string(&Held::of(grant)).map_err(Error::internal)?;
    vault::seal(ctx, key, owner, &SecretString::from(text))
}

pub(super) async fn data_key(ctx: &Ctx, connection: &Connection) -> Result<DataKey> {
    let key = connection.key.as_ref().ok_or_else(|| reauth(connection))?;
    vault::unwrap(ctx, connection.vault_owner(), key).await
}

pub(super) fn open(key: &DataKey, owner: &str, sealed: &Sealed) -> Result<Grant> {
    let text = vault::open(key, owner, sealed)?;
    let held: Held = serde_json::from_str(text.expose_secret())
        .map_err(|_| Error::internal("a sealed grant cannot be read"))?;
    Ok(held.grant())
}

/// The grant that is in use.
pub(super) async fn grant(ctx: &Ctx, connection: &Connection) -> Result<Grant> {
    in_use(&data_key(ctx, connection).await?, connection)
}

/// The same, with the data key at hand.
fn in_use(key: &DataKey, connection: &Connection) -> Result<Grant> {
    let tokens = connection.tokens.as_ref();
    let tokens = tokens.ok_or_else(|| reauth(connection))?;
    open(key, connection.vault_owner(), &tokens.sealed)
}

fn reauth(connection: &Connection) -> Error {
    let detail = format!("{} has to be connected again", connection.provider);
    Error::new(Code::ConnectionReauthRequired, detail)
}

/// Which tokens will do.
#[derive(Clone, Copy)]
pub enum Need<'a> {
    /// Any that are good for a while.
    Good,
    /// Any but these, which the provider has just refused.
    Other(&'a SecretString),
    /// Any of a later generation than this.
    Newer(u64),
}

/// When tokens that were given just now are renewed: every half of their life, or of the time in which
/// an unused refresh token dies, at a phase of the connection's own.
pub(super) fn next_refresh(
    now: DateTime<Utc>,
    id: &ConnectionId,
    manifest: &Manifest,
    access_expires_at: Option<DateTime<Utc>>,
) -> Option<DateTime<Utc>> {
    let Refresh::Renewing { idle, every, .. } = manifest.code_flow()?.refresh else {
        return None;
    };
    let life = access_expires_at.map(|at| at - now);
    due(now, life, idle, every, phase(id))
}

/// The phase of a connection, in 65,536 steps.
fn phase(id: &ConnectionId) -> u16 {
    let hash = Sha256::digest(id.as_str());
    u16::from_be_bytes([hash[0], hash[1]])
}

/// The one moment of this phase between an eighth and five eighths of the time that counts. Because
/// the phase is kept, connections that all came due at once, after a provider was away for hours say,
/// are apart again with the very next renewal, and stay so.
fn due(
    now: DateTime<Utc>,
    life: Option<TimeDelta>,
    idle: Option<TimeDelta>,
    every: Option<TimeDelta>,
    phase: u16,
) -> Option<DateTime<Utc>> {
    // The latest moment is five eighths of the way, so advice is stretched.
    let every = every.map(|every| every * 8 / 5);
    let whole = [life, idle, every].into_iter().flatten().min()?;
    let earliest = now + whole / 8;
    let period = (whole / 2).num_milliseconds();
    if period <= 0 {
        return Some(earliest);
    }
    let offset = i128::from(period) * i128::from(phase) / 65_536;
    let ahead = (offset - i128::from(earliest.timestamp_millis())).rem_euclid(period.into());
    let ahead = i64::try_from(ahead).unwrap_or_default();
    Some(earliest + TimeDelta::milliseconds(ahead))
}

/// A grant of `connection` that is good for at least a while.
///
/// Only one function renews at a time; the others wait for it. A new pair is stored before it is used,
/// because a provider that rotates refresh tokens takes the old one back.
///
/// # Errors
/// [`Code::ConnectionReauthRequired`] when somebody has to connect again, and what the provider's
/// failure amounts to, be it ours or that of whom we waited for.
pub async fn access(
    ctx: &Ctx,
    setup: &Setup,
    merchant: &MerchantId,
    id: &ConnectionId,
    need: Need<'_>,
) -> Result<(Connection, Grant)> {
    access_within(ctx, Duration::MAX, setup, merchant, id, need).await
}

/// The same for somebody who cannot wait as long as it takes to be sure that whoever renews is dead:
/// after `patience` it is [`Code::Busy`].
pub(super) async fn access_within(
    ctx: &Ctx,
    patience: Duration,
    setup: &Setup,
    merchant: &MerchantId,
    id: &ConnectionId,
    need: Need<'_>,
) -> Result<(Connection, Grant)> {
    access_of(ctx, patience, setup, merchant, id, need, false).await
}

/// The same for a connection whose tokens the provider refused: they may be good again, when it was the
/// platform that was refused, or the account comes back.
pub(super) async fn access_again(
    ctx: &Ctx,
    patience: Duration,
    setup: &Setup,
    merchant: &MerchantId,
    id: &ConnectionId,
    need: Need<'_>,
) -> Result<(Connection, Grant)> {
    access_of(ctx, patience, setup, merchant, id, need, true).await
}

async fn access_of(
    ctx: &Ctx,
    patience: Duration,
    setup: &Setup,
    merchant: &MerchantId,
    id: &ConnectionId,
    need: Need<'_>,
    ended: bool,
) -> Result<(Connection, Grant)> {
    let mut watched: Option<Watched> = None;
    let mut pause = LOOK_FIRST;
    loop {
        let (rev, connection) = load(ctx, merchant, id).await?;
        let again = ended && connection.status == Status::ReauthRequired;
        if !connection.status.holds_tokens() && !again {
            return Err(reauth(&connection));
        }
        let key = data_key(ctx, &connection).await?;
        let grant = in_use(&key, &connection)?;
        // Whoever waited takes what the other one was given, however short its life is: it is as good as
        // what he would be given himself.
        let waited = watched
            .as_ref()
            .is_some_and(|watched| watched.tokens != connection.tokens);
        let good = waited || is_good(ctx.now(), &connection);
        if good && is_needed(&connection, &grant, need) {
            return Ok((connection, grant));
        }
        let flow = setup.manifest().code_flow();
        let renewing = flow.filter(|flow| flow.refresh != Refresh::None);
        let Some(flow) = renewing.filter(|_| grant.refresh.is_some()) else {
            // There is nothing to renew with: what the provider refuses, it refuses for good.
            return Err(give_up(ctx, setup, &connection, &grant).await?);
        };
        let free = match (&connection.lease, &mut watched) {
            (None, Some(watched)) if watched.tokens == connection.tokens => {
                return Err(shared_failure(setup.manifest(), &connection));
            }
            (None, _) => true,
            (Some(lease), Some(watched)) if watched.fence == lease.fence => {
                watched.waited + Duration::from_millis(lease.watched) >= TAKEOVER
            }
            (Some(lease), watched) => {
                *watched = Some(Watched {
                    fence: lease.fence,
                    tokens: connection.tokens.clone(),
                    before: lease.watched,
                    waited: Duration::ZERO,
                });
                false
            }
        };
        if free {
            // Whoever has no time left to store what he is given leaves it to others.
            token_limits(ctx)?;
        }
        if free && let Some(fence) = take_lease(ctx, rev, &connection).await? {
            let renewal = Renewal {
                ctx,
                setup,
                flow,
                connection: &connection,
                key,
                fence,
            };
            return renewal.run(&grant).await;
        }
        if watched
            .as_ref()
            .is_some_and(|watched| watched.waited >= patience)
        {
            if let Some(watched) = watched.filter(|_| again) {
                note_watched(ctx, merchant, id, &watched).await?;
            }
            return Err(Error::new(
                Code::Busy,
                "the access is being renewed at this moment; send it again in a minute",
            ));
        }
        ctx.clock.sleep(pause).await;
        if let Some(watched) = &mut watched {
            watched.waited += pause;
        }
        pause = (pause * 2).min(LOOK_LAST);
    }
}

/// A lease that somebody else holds, as it was seen first.
struct Watched {
    fence: u64,
    tokens: Option<Tokens>,
    /// For how long others had seen it by then, in milliseconds.
    before: u64,
    waited: Duration,
}

/// Notes for how long a lease stood still at a connection that no schedule renews: otherwise nobody would
/// ever have watched it for long enough. If somebody noted the same time, it is not counted twice.
async fn note_watched(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    watched: &Watched,
) -> Result<()> {
    let waited = u64::try_from(watched.waited.as_millis()).unwrap_or(0);
    change(ctx, merchant, id, |current| {
        let lease = current.lease.as_mut();
        let same =
            |lease: &&mut Lease| (lease.fence, lease.watched) == (watched.fence, watched.before);
        let Some(lease) = lease.filter(same) else {
            return Ok(Decision::Leave(()));
        };
        lease.watched += waited;
        Ok(Decision::Store(Along::default(), ()))
    })
    .await?;
    Ok(())
}

/// The failure of the renewal that was waited for, as it was noted.
fn shared_failure(manifest: &Manifest, connection: &Connection) -> Error {
    match &connection.trouble {
        Some(trouble) if trouble.code == Code::UpstreamRefused.as_str() => {
            Error::new(Code::UpstreamRefused, trouble.detail.clone())
        }
        Some(trouble) => Error::new(Code::UpstreamFailed, trouble.detail.clone()),
        None => Error::new(
            Code::UpstreamFailed,
            format!("{} gave no tokens", manifest.title),
        ),
    }
}

/// Whether the access token has a while to live, as lives of such tokens go.
fn is_good(now: DateTime<Utc>, connection: &Connection) -> bool {
    let Some(tokens) = &connection.tokens else {
        return false;
    };
    let ends = tokens.access_expires_at;
    ends.is_none_or(|at| at - MARGIN.min((at - tokens.issued_at) / 4) > now)
}

fn is_needed(connection: &Connection, grant: &Grant, need: Need) -> bool {
    match need {
        Need::Good => true,
        Need::Other(refused) => refused.expose_secret() != grant.access.expose_secret(),
        Need::Newer(generation) => connection.generation() > generation,
    }
}

/// Takes the lease of `connection` if it stands as it was read; returns its fence.
async fn take_lease(ctx: &Ctx, rev: u64, connection: &Connection) -> Result<Option<u64>> {
    let fence = connection.fence + 1;
    let mut leased = Connection {
        fence,
        lease: Some(Lease { fence, watched: 0 }),
        ..connection.clone()
    };
    let before = Some((rev, connection));
    let taken = store(ctx, &mut leased, before, Along::default()).await?;
    Ok(taken.then_some(fence))
}

/// Gives up the lease, if it is still ours.
fn release(current: &mut Connection, fence: u64) {
    current.lease.take_if(|lease| lease.fence == fence);
}

/// One renewal by the holder of a lease.
struct Renewal<'a> {
    ctx: &'a Ctx,
    setup: &'a Setup,
    flow: &'a CodeFlow,
    /// As it was when the lease was taken.
    connection: &'a Connection,
    key: DataKey,
    fence: u64,
}

impl Renewal<'_> {
    async fn run(&self, held: &Grant) -> Result<(Connection, Grant)> {
        match self.setup.refresh(self.ctx, self.flow, held).await {
            Ok(given) => self.keep(given).await,
            Err(error) if is_invalid_grant(&error) => self.refused().await,
            Err(error) => Err(self.failed(error).await?),
        }
    }

    /// Stores what was given. Whoever was overtaken meanwhile still stores it, unless others stand
    /// there by then: in that case it becomes the pair before.
    async fn keep(&self, given: Given) -> Result<(Connection, Grant)> {
        let ctx = self.ctx;
        let owner = self.connection.vault_owner();
        let sealed = seal(ctx, &self.key, owner, &given.grant)?;
        // An organisation may have moved, and its tokens must not be sent anywhere else.
        let api = given.grant.fact("instance_url").parse().ok();
        let api = api.filter(|api| self.setup.site.admits(api));
        let manifest = self.setup.manifest();
        let (now, id) = (ctx.now(), &self.connection.id);
        let next = next_refresh(now, id, manifest, given.access_expires_at);
        let ours = Tokens {
            sealed,
            generation: self.connection.generation() + 1,
            issued_at: ctx.now(),
            access_expires_at: given.access_expires_at,
        };
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let patience = patience_for_tokens(ctx, Duration::ZERO);
        let (stored, kept) = change_within(ctx, patience, merchant, id, |current| {
            release(current, self.fence);
            if current.tokens.as_ref() == Some(&ours) {
                // They were stored by a write whose answer was lost.
                return Ok(Decision::Leave(true));
            }
            if current.tokens != self.connection.tokens {
                // With another data key the connection was given up and connected anew: what the
                // consent before gave is of no more use then, and could not be opened.
                if in_use(&self.key, current).is_err() {
                    return Ok(Decision::Leave(false));
                }
                current.previous = Some(ours.clone());
                return Ok(Decision::Store(Along::default(), false));
            }
            if current.status == Status::Disconnected {
                return Ok(Decision::Leave(false));
            }
            current.previous = current.tokens.replace(ours.clone());
            current.next_refresh_at = next;
            current.trouble = None;
            if let Some(scopes) = &given.scopes {
                current.scopes.clone_from(scopes);
            }
            if let Some(api) = &api {
                current.api = Some(api.clone());
            }
            let mut along = Along::default();
            // Somebody was refused with the tokens before, while these were on their way. One that was
            // over before is live when its account has answered: see `recover`.
            let was_live = self.connection.status.holds_tokens();
            if current.status == Status::ReauthRequired && was_live {
                current.status = current.at_work();
                along = Along::entry(
                    Happened::Recovered,
                    "the provider gave new tokens after all",
                )
                .event(EventType::ConnectionConnected);
            }
            Ok(Decision::Store(along, true))
        })
        .await?;
        if kept {
            return Ok((stored, given.grant));
        }
        if !stored.status.holds_tokens() {
            return Err(reauth(&stored));
        }
        let grant = grant(ctx, &stored).await?;
        Ok((stored, grant))
    }

    /// Notes a failure that may pass, lets the schedule try again soon, and returns it.
    async fn failed(&self, error: TokenError) -> Result<Error> {
        let ctx = self.ctx;
        let error = token_error(self.setup.manifest(), error);
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        // A lease that stays has to be watched, by all who want the access, for most of a minute.
        let patience = patience_for_tokens(ctx, Duration::ZERO);
        change_within(ctx, patience, merchant, id, |current| {
            release(current, self.fence);
            if current.tokens != self.connection.tokens || !current.status.holds_tokens() {
                // Others stand there by now, and this says nothing about them.
                return Ok(Decision::Store(Along::default(), ()));
            }
            let now = ctx.now();
            let known = current
                .trouble
                .as_ref()
                .is_some_and(|t| t.code == error.code().as_str());
            current.trouble = Some(Trouble {
                code: error.code().as_str().to_owned(),
                detail: error.detail().to_owned(),
                at: now,
            });
            let soon = now + RETRY;
            current.next_refresh_at = current.next_refresh_at.map(|_| soon);
            // The same failure again and again is one entry.
            let along = if known {
                Along::default()
            } else {
                Along::entry(Happened::RefreshFailed, error.detail())
            };
            Ok(Decision::Store(along, ()))
        })
        .await?;
        Ok(error)
    }

    /// What follows `invalid_grant`: others may have been faster, the pair before may still be good,
    /// or somebody has to connect again.
    async fn refused(&self) -> Result<(Connection, Grant)> {
        let ctx = self.ctx;
        let (merchant, id) = (&self.connection.merchant_id, &self.connection.id);
        let (_, current) = load(ctx, merchant, id).await?;
        let same = current.tokens == self.connection.tokens;
        // Whether the time of grace is over is the provider's to say: by its clock, not by ours. One
        // try with the tokens before costs nothing where there is such a time at all.
        let grace = matches!(self.flow.refresh, Refresh::Renewing { grace: Some(_), .. });
        if let Some(previous) = current.previous.filter(|_| same && grace) {
            let old = open(&self.key, self.connection.vault_owner(), &previous.sealed)?;
            match self.setup.refresh(ctx, self.flow, &old).await {
                Ok(given) => return self.keep(given).await,
                Err(error) if is_invalid_grant(&error) => {}
                // It was not refused, so it may be good: the next try asks again.
                Err(error) => return Err(self.failed(error).await?),
            }
        }
        let detail = format!(
            "{} no longer takes our tokens; connect it again",
            self.setup.manifest().title
        );
        let (current, ended) = change_within(ctx, PATIENCE_LONG, merchant, id, |current| {
            release(current, self.fence);
            if current.tokens != self.connection.tokens || !current.status.holds_tokens() {
                return Ok(Decision::Store(Along::default(), false));
            }
            Ok(Decision::Store(end(ctx, current, &detail), true))
        })
        .await?;
        if ended || !current.status.holds_tokens() {
            return Err(reauth(&current));
        }
        let grant = grant(ctx, &current).await?;
        Ok((current, grant))
    }
}

/// Makes `current` a connection that somebody has to connect again.
fn end(ctx: &Ctx, current: &mut Connection, detail: &str) -> Along {
    tracing::warn!(
        merchant_id = %current.merchant_id, connection_id = %current.id,
        "the provider no longer takes the tokens"
    );
    current.status = Status::ReauthRequired;
    current.lease = None;
    current.next_refresh_at = None;
    current.trouble = Some(Trouble {
        code: "invalid_grant".to_owned(),
        detail: detail.to_owned(),
        at: ctx.now(),
    });
    Along::entry(Happened::ReauthRequired, detail).event(EventType::ConnectionReauthRequired)
}

/// Whether the account still belongs to the grant, where it can leave one that lives on. A renewal says
/// nothing of that.
///
/// # Errors
/// [`Code::ConnectionReauthRequired`] when it does not, which is noted.
pub async fn still_reaches(
    ctx: &Ctx,
    setup: &Setup,
    connection: &Connection,
    grant: &Grant,
) -> Result<()> {
    let flow = setup.manifest().code_flow();
    if !flow.is_some_and(|flow| flow.account_can_leave) {
        return Ok(());
    }
    match account_of(ctx, setup, connection, grant).await {
        Err(rejected) if rejected.is_final() => Err(give_up(ctx, setup, connection, grant).await?),
        // Whatever else it is shows at the next call that carries something.
        _ => Ok(()),
    }
}

/// What follows the refusal of a token that cannot be renewed, or of an account that a grant no longer
/// reaches. One refusal may be an accident of the provider's, so the account is asked for once more
/// before anybody is called to connect again. Returns what to tell.
pub async fn give_up(
    ctx: &Ctx,
    setup: &Setup,
    connection: &Connection,
    grant: &Grant,
) -> Result<Error> {
    let said = match account_of(ctx, setup, connection, grant).await {
        Ok(_) => {
            return Ok(Error::new(
                Code::UpstreamFailed,
                format!(
                    "{} refused a call with tokens that it takes elsewhere",
                    setup.manifest().title
                ),
            ));
        }
        Err(rejected) if rejected.is_final() => match rejected {
            Rejected::Theirs(Fault::Refused { detail, .. }) => Some(detail),
            _ => None,
        },
        Err(rejected) => return Ok(rejected.into_error(setup.manifest())),
    };
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let detail = said.unwrap_or_else(|| {
        format!(
            "{} no longer takes our access; connect it again",
            setup.manifest().title
        )
    });
    let (current, _) = change(ctx, merchant, id, |current| {
        if current.tokens != connection.tokens || !current.status.holds_tokens() {
            return Ok(Decision::Leave(()));
        }
        Ok(Decision::Store(end(ctx, current, &detail), ()))
    })
    .await?;
    Ok(reauth(&current))
}

/// Makes `connection` live again, whose tokens the provider has just taken after it had refused them.
pub(super) async fn recover(ctx: &Ctx, setup: &Setup, connection: &Connection) -> Result<()> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    change(ctx, merchant, id, |current| {
        if current.status != Status::ReauthRequired || current.tokens != connection.tokens {
            return Ok(Decision::Leave(()));
        }
        current.status = current.at_work();
        current.trouble = None;
        let ends = current.tokens.as_ref();
        let ends = ends.and_then(|tokens| tokens.access_expires_at);
        current.next_refresh_at = next_refresh(ctx.now(), id, setup.manifest(), ends);
        let along = Along::entry(Happened::Recovered, "the provider takes our tokens again")
            .event(EventType::ConnectionConnected);
        Ok(Decision::Store(along, ()))
    })
    .await?;
    Ok(())
}

/// Notes that the provider took the tokens of `generation`: if they are those in use, the ones before are
/// of no more use. A success with older ones says nothing about newer ones.
pub async fn settle(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId, generation: u64) {
    let settled = change(ctx, merchant, id, |current| {
        if current.generation() != generation || current.previous.is_none() {
            return Ok(Decision::Leave(()));
        }
        current.previous = None;
        Ok(Decision::Store(Along::default(), ()))
    });
    // They are in nobody's way: the next success tries again.
    if let Err(error) = settled.await {
        tracing::warn!(connection_id = %id, error = %error.chain(), "not settled");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::AccessLife;
    use crate::providers::PROVIDERS;
    use proptest::prelude::*;

    fn start() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    proptest! {
        #[test]
        fn tokens_are_renewed_in_the_middle_of_their_life(
            life in proptest::option::of(0_i64..10_000_000),
            idle in proptest::option::of(0_i64..10_000_000),
            every in proptest::option::of(0_i64..10_000_000),
            later in 0_i64..10_000_000_000,
            phase: u16,
        ) {
            let time = |seconds: Option<i64>| seconds.map(TimeDelta::seconds);
            let (life, idle, every) = (time(life), time(idle), time(every));
            let now = start() + TimeDelta::milliseconds(later);
            let due = due(now, life, idle, every, phase);
            let wholes = [life, idle, every.map(|every| every * 8 / 5)];
            let Some(whole) = wholes.into_iter().flatten().min() else {
                prop_assert_eq!(due, None);
                return Ok(());
            };
            let after = due.unwrap() - now;
            prop_assert!(whole / 8 <= after && after <= whole * 5 / 8, "{} of {}", after, whole);
            // Advice is a bound, not a hint.
            prop_assert!(every.is_none_or(|every| after <= every));
        }

        #[test]
        fn a_connection_keeps_its_phase(life in 1_i64..10_000_000, late in 0_i64..1000, phase: u16) {
            let life = TimeDelta::seconds(life);
            let next = |now| due(now, Some(life), None, None, phase).unwrap();
            let first = next(start());
            // However late a renewal is, as long as the next earliest moment is not beyond the next turn.
            let life = life.num_milliseconds();
            let late = TimeDelta::milliseconds(life * 3 / 8 * late / 1000);
            prop_assert_eq!(next(first + late), first + TimeDelta::milliseconds(life / 2));
        }
    }

    #[test]
    fn phases_are_spread() {
        let mut tenths = [0; 10];
        for number in 0..1000_u128 {
            let id = ConnectionId::new(uuid::Uuid::from_u128(number));
            tenths[usize::from(phase(&id)) * 10 / 65_536] += 1;
        }
        assert!(
            tenths.iter().all(|count| (70..130).contains(count)),
            "{tenths:?}"
        );
    }

    /// A provider whose tokens are renewed leaves time for at least one more try before they end.
    #[test]
    fn every_provider_leaves_time_for_another_try() {
        let mut seen = 0;
        for manifest in PROVIDERS.iter().map(|provider| provider.manifest()) {
            let Some(flow) = manifest.code_flow() else {
                continue;
            };
            let Refresh::Renewing { idle, every, .. } = flow.refresh else {
                continue;
            };
            let life = match flow.access {
                AccessLife::Answered(life) => Some(life),
                AccessLife::Endless => None,
            };
            seen += 1;
            let phases = (0..=u16::MAX).step_by(64);
            let moments = phases.map(|phase| due(start(), life, idle, every, phase).unwrap());
            let latest = moments.max().expect(manifest.name) - start();
            for whole in [life, idle].into_iter().flatten() {
                assert!(latest + RETRY + MARGIN < whole, "{}", manifest.name);
            }
        }
        assert!(seen > 4);
    }
}
