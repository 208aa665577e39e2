//! Giving a merchant's access back at the provider. What is told of it afterwards is what happened: a
//! refusal proves nothing by itself, since the provider may have refused the platform and not the grant,
//! so the grant itself is tried.

use super::connect::Owner;
use super::connection::{
    Along, Connection, Consent, Decision, Status, change, change_within, load, patience_for_tokens,
};
use super::manage::PATIENCE;
use super::setup::{self, Setup, account, is_invalid_grant, token_error};
use super::{hash, tokens};
use crate::ctx::Ctx;
use crate::error::{Code, Error, Result};
use crate::net::Limits;
use crate::providers::{
    self, Account, Fault, Grant, Manifest, Refresh, Revocation, json_answer, provider,
};
use crate::store::keys;
use std::time::Duration;

/// What is kept of the function's time for giving back what was renewed for that.
const REVOKING: Duration = Duration::from_secs(5);

/// Where a merchant takes the access back himself, in words.
pub(super) fn remedy(manifest: &Manifest) -> String {
    let title = manifest.title;
    match manifest.consent {
        providers::Consent::Code(_) => {
            format!("remove this platform in {title}, in its list of connected apps")
        }
        providers::Consent::Keys(_) => format!("delete the key in {title}, in its list of keys"),
    }
}

/// Gives back all that `connection` holds, a consent that waits included, and returns what came of it
/// in words.
///
/// # Errors
/// When some of it still stands, or nobody could tell.
pub(super) async fn give_back(ctx: &Ctx, connection: &Connection) -> Result<String> {
    let setup = Setup::of(ctx, connection.provider()?).await?;
    let shared = is_shared(ctx, &setup, connection).await?;
    let ended = ended(setup.manifest());
    let mut words: Vec<String> = Vec::new();
    if let Some(consent) = &connection.consent {
        let account = Account {
            id: connection.tenant_id.clone(),
            name: consent.tenant_name.clone(),
            api: consent.api.clone(),
            reference: consent.reference.clone(),
        };
        words.push(match waiting(ctx, &setup, connection, consent).await? {
            Some(grant) => revoke(ctx, &setup, &grant, &account, shared).await?,
            None => ended.clone(),
        });
    }
    if connection.tokens.is_some() {
        let account = account_of(connection);
        let grant = in_use(ctx, &setup, connection).await?;
        let said = revoke(ctx, &setup, &grant, &account, shared).await?;
        // Where one takes the other along, the first has said all.
        if words.is_empty() || said != ended && !words.contains(&said) {
            words.push(said);
        }
    }
    if words.is_empty() {
        words.push("there was no access to give back".to_owned());
    }
    Ok(words.join("; "))
}

fn ended(manifest: &Manifest) -> String {
    format!("{} had ended this access already", manifest.title)
}

/// Whether another connection lives on the same account's access, whoever's it is: one of this provider,
/// when this one never came to life, or one of the provider that may use the same application, if it
/// does.
async fn is_shared(ctx: &Ctx, setup: &Setup, connection: &Connection) -> Result<bool> {
    if lives_elsewhere(ctx, setup.manifest(), connection).await? {
        return Ok(true);
    }
    let Some(other) = setup.manifest().shares_app_with.and_then(provider) else {
        return Ok(false);
    };
    let other = other.manifest();
    let theirs = match setup::credentials(ctx, other).await {
        Ok(theirs) => theirs,
        // It is not set up here at all.
        Err(error) if error.code() == Code::FeatureDisabled => return Ok(false),
        Err(error) => return Err(error),
    };
    if theirs.text("client_id") != setup.credentials.text("client_id") {
        return Ok(false);
    }
    lives_elsewhere(ctx, other, connection).await
}

/// Whether another connection at `manifest`'s provider holds the account of `connection`.
async fn lives_elsewhere(ctx: &Ctx, manifest: &Manifest, connection: &Connection) -> Result<bool> {
    let key = keys::account(manifest.name, &hash(&connection.tenant_id));
    let Some(item) = ctx.store.get(&key).await? else {
        return Ok(false);
    };
    let owner: Owner = item.read()?;
    if owner.connection_id == connection.id {
        return Ok(false);
    }
    match load(ctx, &owner.merchant_id, &owner.connection_id).await {
        Ok((_, one)) => Ok(one.status != Status::Disconnected),
        Err(error) if error.code() == Code::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The grant in use. A dead token gives nothing back at some providers, so a good one is made of it
/// where that can be done.
async fn in_use(ctx: &Ctx, setup: &Setup, connection: &Connection) -> Result<Grant> {
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    match tokens::access_within(ctx, PATIENCE, setup, merchant, id, tokens::Need::Good).await {
        Ok((_, grant)) => Ok(grant),
        Err(error) if error.code() == Code::ConnectionReauthRequired => {
            tokens::grant(ctx, connection).await
        }
        Err(error) => Err(error),
    }
}

/// The grant of a consent that waits, renewed if its access token has ended meanwhile; `None` when the
/// provider no longer takes it.
async fn waiting(
    ctx: &Ctx,
    setup: &Setup,
    connection: &Connection,
    consent: &Consent,
) -> Result<Option<Grant>> {
    let key = tokens::data_key(ctx, connection).await?;
    let owner = connection.vault_owner();
    let grant = tokens::open(&key, owner, &consent.sealed)?;
    let over = consent
        .access_expires_at
        .is_some_and(|at| at - tokens::MARGIN <= ctx.now());
    let flow = setup.manifest().code_flow();
    let renewing = flow.filter(|flow| flow.refresh != Refresh::None);
    let Some(flow) = renewing.filter(|_| over && grant.refresh.is_some()) else {
        return Ok(Some(grant));
    };
    let given = match setup.refresh(ctx, flow, &grant).await {
        Ok(given) => given,
        Err(error) if is_invalid_grant(&error) => return Ok(None),
        Err(error) => return Err(token_error(setup.manifest(), error)),
    };
    // Stored before it is used: if giving it back fails, the next try needs it.
    let renewed = Consent {
        sealed: tokens::seal(ctx, &key, owner, &given.grant)?,
        issued_at: ctx.now(),
        access_expires_at: given.access_expires_at,
        ..consent.clone()
    };
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    let patience = patience_for_tokens(ctx, REVOKING);
    change_within(ctx, patience, merchant, id, |current| {
        if current.consent.as_ref() != Some(consent) {
            return Ok(Decision::Leave(()));
        }
        current.consent = Some(renewed.clone());
        Ok(Decision::Store(Along::default(), ()))
    })
    .await?;
    Ok(Some(given.grant))
}

/// Gives one grant back, and says what the provider made of it.
async fn revoke(
    ctx: &Ctx,
    setup: &Setup,
    grant: &Grant,
    account_held: &Account,
    shared: bool,
) -> Result<String> {
    let manifest = setup.manifest();
    let title = manifest.title;
    let revocation = Revocation {
        site: &setup.site,
        credentials: &setup.credentials,
        grant,
        account: account_held,
        shared,
    };
    let Some(request) = setup.provider.revoke(&revocation) else {
        let alone = Revocation {
            shared: false,
            ..revocation
        };
        if shared && setup.provider.revoke(&alone).is_some() {
            return Ok(format!(
                "{title} would end another connection of the same account along with it, so the \
                 access was left as it is there, and our tokens of it were destroyed"
            ));
        }
        return Ok(format!(
            "{title} has no way to give access back, so it still stands there: {}",
            remedy(manifest)
        ));
    };
    let limits = setup::call_limits(ctx, Limits::PROVIDER)?;
    let answer = ctx.net.send(request, limits).await?;
    let said = match answer.status {
        // Empty answers are as good as any.
        200..=299 if shared => {
            return Ok(format!(
                "the access was given back at {title}; what another connection has of the same \
                 application stays"
            ));
        }
        200..=299 => return Ok(format!("the access was given back at {title}")),
        401 => format!("{title} refused with status 401"),
        _ => match json_answer(title, &answer) {
            Err(Fault::Later { detail } | Fault::Refused { detail, .. }) => detail,
            _ => format!("{title} answered with status {}", answer.status),
        },
    };
    let failed = |more: String| Err(Error::new(Code::UpstreamFailed, format!("{said}, {more}")));
    match account(ctx, setup, grant).await {
        Err(rejected) if rejected.is_final() => Ok(ended(manifest)),
        Ok(_) => failed("and the access still stands there".to_owned()),
        Err(rejected) => failed(format!(
            "and whether the access still stands there is not known ({})",
            rejected.into_error(manifest).detail()
        )),
    }
}

/// Gives back a grant that nothing here uses any more, where each consent leaves one of its own: one that
/// another consent replaced, or that was refused here. Nobody waits for it, so what fails is only told to
/// the log; the merchant sees such grants in the provider's list of connected apps.
pub(super) async fn give_back_unused(
    ctx: &Ctx,
    setup: &Setup,
    grant: &Grant,
    account_held: &Account,
) {
    let flow = setup.manifest().code_flow();
    if !flow.is_some_and(|flow| flow.grants_add_up) {
        return;
    }
    // Others may live on the same account.
    let shared = true;
    match revoke(ctx, setup, grant, account_held, shared).await {
        Ok(words) => tracing::info!(provider = setup.manifest().name, "unused: {words}"),
        Err(error) => {
            tracing::warn!(
                provider = setup.manifest().name, error = %error.chain(),
                "a grant that is not used stays at the provider"
            );
        }
    }
}

/// Gives back and drops the consent that waits at `connection`, when nobody can confirm it any more. A
/// pending connection consists of it, and goes away as a whole.
pub async fn give_back_stale(ctx: &Ctx, setup: &Setup, connection: &Connection) -> Result<()> {
    let Some(consent) = &connection.consent else {
        return Ok(());
    };
    if connection.status == Status::Pending || !connection.has_stale_consent(ctx.now()) {
        return Ok(());
    }
    let opened = tokens::data_key(ctx, connection).await;
    let grant =
        opened.and_then(|key| tokens::open(&key, connection.vault_owner(), &consent.sealed));
    match grant {
        Ok(grant) => give_back_unused(ctx, setup, &grant, &account_of(connection)).await,
        Err(error) => {
            tracing::warn!(connection_id = %connection.id, error = %error.chain(), "not given back");
        }
    }
    let (merchant, id) = (&connection.merchant_id, &connection.id);
    change(ctx, merchant, id, |current| {
        if current.consent.as_ref() != Some(consent) {
            return Ok(Decision::Leave(()));
        }
        current.consent = None;
        Ok(Decision::Store(Along::default(), ()))
    })
    .await?;
    Ok(())
}

/// The account of `connection`, as giving back needs it.
pub(super) fn account_of(connection: &Connection) -> Account {
    Account {
        id: connection.tenant_id.clone(),
        name: connection.tenant_name.clone(),
        api: connection.api.clone(),
        reference: connection.reference.clone(),
    }
}
