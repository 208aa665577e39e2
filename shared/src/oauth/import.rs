//! Connections of tokens or keys that a merchant brings along from elsewhere.
//!
//! What a refresh token gave, and what became of it, is kept by [`super::brought`].

use super::brought::{self, Hold, Taken};
use super::connect::{self, KEY_BYTES_MAX, Source, one_word};
use super::connection::{Connection, Status, list};
use super::hash;
use super::setup::{Given, Rejected, Setup, account};
use super::tokens;
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::ids::MerchantId;
use crate::providers::{self, CodeFlow, Fault, Grant, Manifest, Provider, Refresh, TENANT};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest token that a merchant may bring along, in bytes: some are signed documents with many claims.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// How often an import goes on when others come with the same account.
const ROUNDS_MAX: usize = 4;

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
    /// The account, for a provider that does not tell it: QuickBooks' `realmId`. Elsewhere it may be left
    /// out; where it is named, what was brought has to be that account's.
    #[serde(default)]
    pub tenant_id: Option<String>,
}

impl Import {
    /// Refuses what belongs to providers of another kind, or to none: whoever sends it means something by
    /// it, and would not hear that it was ignored.
    fn check_kind(&self, manifest: &Manifest) -> Result<()> {
        let title = manifest.title;
        let mut faults = Vec::new();
        match &manifest.consent {
            providers::Consent::Code(_) => {
                if !self.keys.is_empty() {
                    let detail = format!("{title} is connected by tokens; leave the keys out");
                    faults.push(FieldError::new("/tokens/keys", "not_offered", detail));
                }
            }
            providers::Consent::Keys(fields) => {
                let tokens = [
                    ("access_token", &self.access_token),
                    ("refresh_token", &self.refresh_token),
                ];
                let sent = tokens.iter().filter(|(_, token)| token.is_some());
                faults.extend(sent.map(|(name, _)| {
                    let detail = format!("{title} is connected by keys; leave this out");
                    FieldError::new(&format!("/tokens/{name}"), "not_offered", detail)
                }));
                let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
                let unknown = self
                    .keys
                    .keys()
                    .filter(|key| !known.contains(&key.as_str()));
                faults.extend(unknown.map(|key| {
                    let place = key.replace('~', "~0").replace('/', "~1");
                    let known = known.join(", ");
                    let detail = format!("{title} has no such key; it takes {known}");
                    FieldError::new(&format!("/tokens/keys/{place}"), "unknown_field", detail)
                }));
            }
        }
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Error::invalid(faults)),
        }
    }

    /// Refuses what no provider can have given out, before any of it is used.
    fn check(&self) -> Result<()> {
        let text = |token: &Option<SecretString>| {
            let token = token.as_ref()?;
            Some(token.expose_secret().to_owned())
        };
        let members = [
            ("access_token", text(&self.access_token), TOKEN_BYTES_MAX),
            ("refresh_token", text(&self.refresh_token), TOKEN_BYTES_MAX),
            (TENANT, self.tenant_id.clone(), KEY_BYTES_MAX),
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
    import.check_kind(manifest)?;
    import.check()?;
    let named = Named {
        manifest,
        account: import.tenant_id.clone(),
    };
    let flow = match &manifest.consent {
        providers::Consent::Keys(fields) => {
            let given = Given::keys(fields, &import.keys)?;
            return connect_with(ctx, &setup, merchant, &named, given, None).await;
        }
        providers::Consent::Code(flow) => flow,
    };
    let grant = import.grant(provider, flow)?;
    let token = match (&grant.refresh, flow.refresh != Refresh::None) {
        (Some(token), true) => hash(token.expose_secret()),
        (None, true) => {
            let detail = "a refresh token is needed, or the connection would end soon";
            return Err(missing("/tokens/refresh_token", detail));
        }
        (_, false) if grant.access.expose_secret().is_empty() => {
            return Err(missing("/tokens/access_token", "an access token is needed"));
        }
        (_, false) => {
            let given = Given {
                grant,
                access_expires_at: None,
                scopes: None,
            };
            return connect_with(ctx, &setup, merchant, &named, given, None).await;
        }
    };
    let mut hold = match brought::take(ctx, manifest, merchant, &token).await? {
        Taken::Held(hold) => hold,
        Taken::Became(connection) => {
            named.check(&connection.tenant_id)?;
            return Ok(*connection);
        }
    };
    let given = renewed(ctx, &setup, flow, merchant, &named, grant, &mut hold).await;
    let outcome = match given {
        Ok(given) => connect_with(ctx, &setup, merchant, &named, given, Some(&hold)).await,
        Err(error) => Err(error),
    };
    if outcome.is_err() {
        hold.let_go(ctx).await;
    }
    outcome
}

/// The account that an import names, if it names one.
struct Named {
    manifest: &'static Manifest,
    account: Option<String>,
}

impl Named {
    /// Refuses tokens or keys of another account than the one that was named.
    fn check(&self, account: &str) -> Result<()> {
        if self.account.as_deref().is_none_or(|named| named == account) {
            return Ok(());
        }
        let detail = format!(
            "what was brought is of the {} account {account}, and not of the one that is named; name \
             that one, or bring what belongs to the other",
            self.manifest.title
        );
        let fault = FieldError::new("/tokens/tenant_id", "invalid_value", detail);
        Err(Error::invalid(vec![fault]))
    }
}

/// Makes a live connection of what was given, under `hold` where it was given for a refresh token.
async fn connect_with(
    ctx: &Ctx,
    setup: &Setup,
    merchant: &MerchantId,
    named: &Named,
    given: Given,
    hold: Option<&Hold>,
) -> Result<Connection> {
    let account = account(ctx, setup, &given.grant)
        .await
        .map_err(|rejected| rejected.into_error(setup.manifest()))?;
    named.check(&account.id)?;
    if hold.is_none()
        && let Some(connection) = in_use(ctx, setup, merchant, &account.id, &given.grant).await?
    {
        return Ok(connection);
    }
    let source = Source::Import(hold);
    for _ in 0..ROUNDS_MAX {
        let (account, given) = (account.clone(), given.clone());
        let (connection, confirmation) =
            connect::place(ctx, setup, merchant, None, account, given, None).await?;
        let id = &connection.id;
        match connect::bring_to_life(ctx, merchant, id, &hash(&confirmation), source).await {
            // Somebody came with the same account in between.
            Err(error) if error.code() == Code::ValidationFailed => {
                connect::step_aside(ctx).await;
            }
            outcome => return outcome,
        }
    }
    let detail = "this account is being connected by others at this moment; send it again";
    Err(Error::new(Code::Busy, detail))
}

/// The connection that uses what was brought already, so that nothing is to be done.
async fn in_use(
    ctx: &Ctx,
    setup: &Setup,
    merchant: &MerchantId,
    account: &str,
    brought: &Grant,
) -> Result<Option<Connection>> {
    let held = connect::held(ctx, setup.manifest(), merchant, account).await?;
    let at_work = |one: &Connection| matches!(one.status, Status::Live | Status::Paused);
    let Some(connection) = held.filter(at_work) else {
        return Ok(None);
    };
    let used = tokens::grant(ctx, &connection).await?;
    Ok((secrets(&used) == secrets(brought)).then_some(connection))
}

/// All that is secret of a grant.
fn secrets(grant: &Grant) -> Vec<&str> {
    let keys = grant.keys.values();
    let all = [&grant.access]
        .into_iter()
        .chain(&grant.refresh)
        .chain(keys);
    all.map(ExposeSecret::expose_secret).collect()
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
                for name in flow.callback_parameters.iter().chain(&[TENANT]) {
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
async fn renewed(
    ctx: &Ctx,
    setup: &Setup,
    flow: &CodeFlow,
    merchant: &MerchantId,
    named: &Named,
    mut grant: Grant,
    hold: &mut Hold,
) -> Result<Given> {
    if let Some(mut given) = hold.given()? {
        // This import names the account, or leaves it out, for itself.
        given.grant.facts.remove(TENANT);
        given.grant.facts.extend(grant.facts);
        // One that no header can hold ended when it was given.
        let over = given
            .access_expires_at
            .is_some_and(|at| at - tokens::MARGIN <= ctx.now());
        let ended = over && given.grant.refresh.is_some();
        if !ended {
            let rejected = account(ctx, setup, &given.grant).await.err();
            if !matches!(rejected, Some(Rejected::Theirs(Fault::Unauthorized))) {
                return Ok(given);
            }
        }
        // It has ended meanwhile, and its own refresh token is as good as the first was.
        grant = given.grant;
    } else if hold.first && !grant.access.expose_secret().is_empty() {
        // Whose account it is, an access token can tell before the refresh token is used; where it
        // cannot, the renewed one does.
        match account(ctx, setup, &grant).await {
            Ok(account) => {
                named.check(&account.id)?;
                connect::claim(ctx, setup.manifest(), &account.id, merchant, None).await?;
            }
            Err(rejected) if rejected.reaches_none() => {
                return Err(rejected.into_error(setup.manifest()));
            }
            Err(_) => {}
        }
    }
    // Whatever can be refused is refused before the refresh token is used; whether it is for an account
    // that is connected already shows only afterwards.
    let all = list(ctx, merchant).await?;
    let of_provider = |(_, one): &(u64, Connection)| one.provider == setup.manifest().name;
    if connect::is_full(&all) && !all.iter().any(of_provider) {
        return Err(connect::too_many());
    }
    let given = setup.renew_foreign(ctx, flow, &grant).await?;
    hold.keep(ctx, &given).await?;
    Ok(given)
}
