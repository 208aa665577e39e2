//! Connections of tokens or keys that a merchant brings along from elsewhere.
//!
//! A refresh token may work once. So what it gave is stored before anything else is asked, under the hash
//! of the token that was brought: whatever fails afterwards, the same import goes on from there.

use super::connect::{self, KEY_BYTES_MAX, one_word};
use super::connection::{Connection, list};
use super::setup::{Given, Rejected, Setup, account};
use super::vault::{self, Sealed, WrappedKey};
use super::{hash, tokens};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::ids::MerchantId;
use crate::providers::{self, CodeFlow, Fault, Grant, Provider, Refresh};
use crate::store::{Condition, Key, Write, keys};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest token that a merchant may bring along, in bytes: some are signed documents with many claims.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How long what an import was given is kept for another try.
const KEPT: TimeDelta = TimeDelta::days(1);
/// By then a function that was at work on an import has ended.
const AT_WORK: TimeDelta = TimeDelta::seconds(60);
/// How often what was given is tried to be stored, with a pause between.
const STORE_ROUNDS_MAX: u32 = 8;
const STORE_PAUSE: Duration = Duration::from_millis(250);

/// One import under way, by the refresh token that was brought.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Brought {
    key: WrappedKey,
    /// What the provider gave; absent until it has answered.
    sealed: Option<Sealed>,
    access_expires_at: Option<DateTime<Utc>>,
    scopes: Option<Vec<String>>,
    begun_at: DateTime<Utc>,
}

/// Tokens or keys that a merchant brings along from elsewhere.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    #[serde(default)]
    pub access_token: Option<SecretString>,
    #[serde(default)]
    pub refresh_token: Option<SecretString>,
    /// Keys, by the names of the provider's fields.
    #[serde(default)]
    pub keys: BTreeMap<String, SecretString>,
    /// The account, for a provider that does not tell it: QuickBooks' `realmId`.
    #[serde(default)]
    pub tenant_id: Option<String>,
}

impl Import {
    /// Refuses what no provider can have given out, before any of it is used.
    fn check(&self) -> Result<()> {
        let text = |token: &Option<SecretString>| {
            let token = token.as_ref()?;
            Some(token.expose_secret().to_owned())
        };
        let members = [
            ("access_token", text(&self.access_token), TOKEN_BYTES_MAX),
            ("refresh_token", text(&self.refresh_token), TOKEN_BYTES_MAX),
            ("tenant_id", self.tenant_id.clone(), KEY_BYTES_MAX),
        ];
        let wrong = members.iter().filter(|(_, text, bytes_max)| {
            let text = text.as_deref();
            text.is_some_and(|text| !one_word(text, *bytes_max))
        });
        let faults: Vec<FieldError> = wrong
            .map(|(name, _, bytes_max)| {
                let detail =
                    format!("{name} has from 1 to {bytes_max} ASCII characters without blanks");
                FieldError::new(&format!("/tokens/{name}"), "invalid_value", detail)
            })
            .collect();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(faults)),
        }
    }
}

/// Makes a live connection of tokens that the backend vouches for. A refresh token is used at once:
/// where the provider rotates them, it is ours from then on, and whoever held it before is out.
pub async fn import(
    ctx: &Ctx,
    merchant: &MerchantId,
    provider: &'static dyn Provider,
    import: Import,
) -> Result<Connection> {
    let manifest = provider.manifest();
    ctx.config.enabled(manifest.category)?;
    let setup = Setup::of(ctx, provider).await?;
    import.check()?;
    // Whatever can be refused is refused before the refresh token is used.
    if connect::is_full(&list(ctx, merchant).await?) {
        return Err(connect::too_many());
    }
    let mut brought = None;
    let given = match &manifest.consent {
        providers::Consent::Keys(fields) => Given::keys(fields, &import.keys)?,
        providers::Consent::Code(flow) => {
            let grant = import.grant(provider, flow)?;
            match (&grant.refresh, flow.refresh != Refresh::None) {
                (Some(_), true) => {
                    let (key, given) = renewed(ctx, &setup, flow, merchant, grant).await?;
                    brought = Some(key);
                    given
                }
                (None, true) => {
                    let detail = "a refresh token is needed, or the connection would end soon";
                    return Err(missing("/tokens/refresh_token", detail));
                }
                (_, false) if grant.access.expose_secret().is_empty() => {
                    return Err(missing("/tokens/access_token", "an access token is needed"));
                }
                (_, false) => Given {
                    grant,
                    access_expires_at: None,
                    scopes: None,
                },
            }
        }
    };
    let account = account(ctx, &setup, &given.grant)
        .await
        .map_err(|rejected| rejected.into_error(manifest))?;
    let (connection, confirmation) =
        connect::place(ctx, &setup, merchant, None, account, given, None).await?;
    let confirmation_hash = hash(&confirmation);
    let connection =
        connect::bring_to_life(ctx, merchant, &connection.id, &confirmation_hash).await?;
    if let Some(key) = brought {
        // It goes away by itself as well.
        let condition = Condition::Any;
        if let Err(error) = ctx.store.write(Write::Delete { key, condition }).await {
            let error = Error::from(error);
            tracing::warn!(error = %error.chain(), "what an import was given is kept for a day");
        }
    }
    Ok(connection)
}

fn missing(path: &str, detail: &str) -> Error {
    Error::invalid(vec![FieldError::new(path, "missing_field", detail)])
}

impl Import {
    /// What was brought, as a grant.
    fn grant(self, provider: &dyn Provider, flow: &CodeFlow) -> Result<Grant> {
        let mut facts = BTreeMap::new();
        match &self.tenant_id {
            None if !flow.callback_parameters.is_empty() => {
                let detail = "the account's id is needed; this provider does not tell it";
                return Err(missing("/tokens/tenant_id", detail));
            }
            None => {}
            Some(id) if !provider.is_account_id(id) => {
                let title = provider.manifest().title;
                let detail = format!("this is no id of a {title} account");
                let fault = FieldError::new("/tokens/tenant_id", "invalid_value", detail);
                return Err(Error::invalid(vec![fault]));
            }
            Some(id) => {
                for name in flow.callback_parameters.iter().chain(&["tenant_id"]) {
                    facts.insert((*name).to_owned(), id.clone().into());
                }
            }
        }
        Ok(Grant {
            access: self.access_token.unwrap_or_default(),
            refresh: self.refresh_token,
            keys: BTreeMap::new(),
            facts,
        })
    }
}

/// Uses the refresh token of `grant`, or takes what it gave to an import before that did not end well.
/// Returns the row that keeps what was given.
async fn renewed(
    ctx: &Ctx,
    setup: &Setup,
    flow: &CodeFlow,
    merchant: &MerchantId,
    mut grant: Grant,
) -> Result<(Key, Given)> {
    let token = grant.refresh.as_ref();
    let token = hash(token.map_or("", |token| token.expose_secret()));
    let owner = format!("import/{token}");
    let row = keys::import(merchant, &token);
    let now = ctx.now();
    let (condition, key, wrapped) = match ctx.store.get(&row).await? {
        None => {
            // Whose account it is, an access token can tell before the refresh token is used; where
            // it cannot, the renewed one does.
            if !grant.access.expose_secret().is_empty()
                && let Ok(account) = account(ctx, setup, &grant).await
            {
                connect::claim(ctx, setup.manifest(), &account.id, merchant).await?;
            }
            let (key, wrapped) = vault::new_key(ctx, &owner).await?;
            (Condition::Absent, key, wrapped)
        }
        Some(item) => {
            let held: Brought = item.read()?;
            let key = vault::unwrap(ctx, &owner, &held.key).await?;
            if let Some(sealed) = &held.sealed {
                let mut kept = tokens::open(&key, &owner, sealed)?;
                kept.facts.extend(grant.facts);
                let rejected = account(ctx, setup, &kept).await.err();
                if !matches!(rejected, Some(Rejected::Theirs(Fault::Unauthorized))) {
                    let given = Given {
                        grant: kept,
                        access_expires_at: held.access_expires_at,
                        scopes: held.scopes,
                    };
                    return Ok((row, given));
                }
                // It has ended meanwhile, and its own refresh token is as good as the first was.
                grant = kept;
            } else if now - held.begun_at < AT_WORK {
                return Err(Error::new(
                    Code::Busy,
                    "these tokens are being imported at this moment; send it again in a minute",
                ));
            }
            (Condition::Rev(item.rev), key, held.key)
        }
    };
    let kept_until = (now + KEPT).timestamp();
    let mut held = Brought {
        key: wrapped,
        sealed: None,
        access_expires_at: None,
        scopes: None,
        begun_at: now,
    };
    if condition == Condition::Absent {
        let write = Write::put(row.clone(), condition, &held)?.expiring(kept_until);
        ctx.store.write(write).await?;
    }
    let given = match setup.renew_foreign(ctx, flow, &grant).await {
        Ok(given) => given,
        Err(error) => {
            if condition == Condition::Absent {
                let (key, condition) = (row, Condition::Any);
                ctx.store.write(Write::Delete { key, condition }).await?;
            }
            return Err(error);
        }
    };
    held.sealed = Some(tokens::seal(ctx, &key, &owner, &given.grant)?);
    held.access_expires_at = given.access_expires_at;
    held.scopes.clone_from(&given.scopes);
    let write = Write::put(row.clone(), Condition::Any, &held)?.expiring(kept_until);
    for _ in 0..STORE_ROUNDS_MAX {
        match ctx.store.write(write.clone()).await {
            Ok(()) => break,
            // Without this row the import can still succeed.
            Err(error) => {
                let error = Error::from(error);
                tracing::warn!(error = %error.chain(), "what an import was given is not stored yet");
                ctx.clock.sleep(STORE_PAUSE).await;
            }
        }
    }
    Ok((row, given))
}
