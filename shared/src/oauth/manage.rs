//! What a merchant does with a connection once it is there: pause, resume, set, disconnect.

use super::connection::{
    Along, Connection, Decision, Happened, Posting, Settings, Status, Trouble, change, load,
    note_health,
};
use super::give_back::{give_back, give_back_stale, remedy};
use super::hash;
use super::setup::{Rejected, Setup, account_of};
use super::tokens::{self, Need};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::model::event::EventType;
use crate::model::ids::{ConnectionId, MerchantId};
use crate::providers::Fault;
use crate::providers::accounting::accounting;
use crate::providers::accounts::Guest;
use crate::store::{Condition, Write, keys};
use crate::sync::push::RowKind;
use chrono::NaiveDate;
use std::time::Duration;

/// How long a caller of the API waits for somebody else's renewal: with the calls that follow it has to
/// be done within the time of one request.
pub(super) const PATIENCE: Duration = Duration::from_secs(6);

/// Most names that guests of one connection have had, and the customer of its daily summaries.
const GUESTS_MAX: usize = 50;
/// Most changes of how its records are posted.
const POSTINGS_MAX: usize = 100;

fn wrong_status(connection: &Connection, wanted: &str) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "this connection is {}; only {wanted}",
            connection.status.as_str()
        ),
    )
}

/// Stops sending to a live connection. Its tokens are kept alive, and what happens meanwhile is sent
/// once it is resumed. Pausing twice is pausing once.
pub async fn pause(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId) -> Result<Connection> {
    let (connection, ()) = change(ctx, merchant, id, |current| match current.status {
        Status::Paused => Ok(Decision::Leave(())),
        Status::Live => {
            current.paused = true;
            current.status = current.at_work();
            let along = Along::entry(
                Happened::Paused,
                "paused; nothing is sent until it is resumed",
            );
            Ok(Decision::Store(along, ()))
        }
        _ => Err(wrong_status(current, "a live one can be paused")),
    })
    .await?;
    Ok(connection)
}

/// Takes a paused connection up again.
pub async fn resume(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId) -> Result<Connection> {
    let (connection, ()) = change(ctx, merchant, id, |current| match current.status {
        Status::Live => Ok(Decision::Leave(())),
        Status::Paused => {
            current.paused = false;
            current.status = current.at_work();
            let along =
                Along::entry(Happened::Resumed, "resumed").event(EventType::ConnectionConnected);
            Ok(Decision::Store(along, ()))
        }
        _ => Err(wrong_status(current, "a paused one can be resumed")),
    })
    .await?;
    Ok(connection)
}

/// Asks the provider whether the access still works, with a real call, and returns the connection as it
/// is then: live and healthy, live and failing, or to be connected again. One that has to be connected
/// again is tried with the tokens that it had: where it was the platform that the provider refused, they
/// are good once that is put right.
pub async fn check(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId) -> Result<Connection> {
    let (_, connection) = load(ctx, merchant, id).await?;
    let ended = connection.status == Status::ReauthRequired && connection.tokens.is_some();
    if !connection.status.holds_tokens() && !ended {
        return Err(wrong_status(
            &connection,
            "one that is live, paused or to be connected again can be checked",
        ));
    }
    let setup = Setup::of(ctx, connection.provider()?).await?;
    give_back_stale(ctx, &setup, &connection).await?;
    let trouble = match asked(ctx, &setup, merchant, id).await {
        Ok(generation) => {
            tokens::settle(ctx, merchant, id, generation).await;
            None
        }
        // The connection itself says so by now.
        Err(error) if error.code() == Code::ConnectionReauthRequired => {
            return load(ctx, merchant, id)
                .await
                .map(|(_, connection)| connection);
        }
        Err(error) if matches!(error.code(), Code::UpstreamFailed | Code::UpstreamRefused) => {
            Some(Trouble {
                code: error.code().as_str().to_owned(),
                detail: error.detail().to_owned(),
                at: ctx.now(),
            })
        }
        Err(error) => return Err(error),
    };
    let (_, connection) = load(ctx, merchant, id).await?;
    note_health(ctx, &connection, trouble).await;
    Ok(connection)
}

/// Asks for the account, and once more with renewed tokens if those in use are refused; returns the
/// generation of the tokens that were taken.
async fn asked(ctx: &Ctx, setup: &Setup, merchant: &MerchantId, id: &ConnectionId) -> Result<u64> {
    let access = |need| tokens::access_again(ctx, PATIENCE, setup, merchant, id, need);
    let (connection, grant) = access(Need::Good).await?;
    let rejected = match account_of(ctx, setup, &connection, &grant).await {
        Ok(_) => {
            tokens::recover(ctx, setup, &connection).await?;
            return Ok(connection.generation());
        }
        Err(rejected) => rejected,
    };
    if !matches!(rejected, Rejected::Theirs(Fault::Unauthorized)) {
        if rejected.is_final() {
            return Err(tokens::give_up(ctx, setup, &connection, &grant).await?);
        }
        return Err(rejected.into_error(setup.manifest()));
    }
    let (connection, grant) = access(Need::Other(&grant.access)).await?;
    match account_of(ctx, setup, &connection, &grant).await {
        Ok(_) => {
            tokens::recover(ctx, setup, &connection).await?;
            Ok(connection.generation())
        }
        Err(rejected) => Err(rejected.into_error(setup.manifest())),
    }
}

/// Replaces the settings. Another name for guests counts for orders from now on; the first one counts from
/// the beginning, unless guests were booked before. Another way of posting counts from tomorrow on, or from
/// a day that is named: a later one, or any as long as nothing was sent to the connection.
pub async fn set(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    settings: Settings,
) -> Result<Connection> {
    let booked = match settings.guest_customer {
        Some(_) => guests_are_booked(ctx, merchant, id).await?,
        None => true,
    };
    let now = ctx.now();
    let today = now.date_naive();
    let posted = match settings.posting_from {
        Some(from) if from <= today => anything_is_posted(ctx, merchant, id).await?,
        _ => true,
    };
    let (connection, ()) = change(ctx, merchant, id, |current| {
        if current.status == Status::Disconnected {
            return Err(wrong_status(current, "one that is connected can be set"));
        }
        check_orders_as(current, &settings)?;
        check_posting(current, &settings)?;
        check_customers(current, &settings)?;
        if current.settings == settings {
            return Ok(Decision::Leave(()));
        }
        if current.settings.guest_customer != settings.guest_customer {
            if current.guests.len() >= GUESTS_MAX {
                let detail = "the name of guests was changed too often; keep the one that stands";
                return Err(invalid("/settings/guest_customer", "too_many", detail));
            }
            current.guests.push(Guest {
                name: settings.guest_customer.clone(),
                from: booked.then_some(now),
            });
        }
        if current.settings.daily_customer != settings.daily_customer {
            if current.daily_customers.len() >= GUESTS_MAX {
                let detail = "the customer of daily summaries was changed too often; keep the one that stands";
                return Err(invalid("/settings/daily_customer", "too_many", detail));
            }
            // Where nothing was ever summed, the name counts for all days.
            let summed = current.postings.iter().any(|posted| posted.posting == Posting::Daily);
            current.daily_customers.push(Guest {
                name: settings.daily_customer.clone(),
                from: summed.then_some(now),
            });
        }
        set_posting(current, &settings, today, posted)?;
        current.settings = settings.clone();
        let along = Along::entry(Happened::SettingsChanged, "settings were changed");
        Ok(Decision::Store(along, ()))
    })
    .await?;
    Ok(connection)
}

/// Whether the ledger knows a customer of guests. The keys of other customers begin with `id/`.
async fn guests_are_booked(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId) -> Result<bool> {
    let group = keys::ledger(merchant, id);
    let after = keys::after_row(&group, "customer/");
    let page = ctx.store.list(&group, Some(&after), 1).await?;
    let mut first = page.items.iter();
    Ok(first.any(|item| keys::place(&item.key).starts_with("customer/guest")))
}

/// Whether the ledger knows a document of the shop.
async fn anything_is_posted(ctx: &Ctx, merchant: &MerchantId, id: &ConnectionId) -> Result<bool> {
    let group = keys::ledger(merchant, id);
    for kind in RowKind::ALL {
        let prefix = format!("{}/", kind.as_str());
        let after = keys::after_row(&group, &prefix);
        let page = ctx.store.list(&group, Some(&after), 1).await?;
        let mut first = page.items.iter();
        if first.any(|item| keys::place(&item.key).starts_with(&prefix)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn invalid(place: &str, code: &'static str, detail: &str) -> Error {
    Error::invalid(vec![FieldError::new(place, code, detail)])
}

/// Refuses a way of posting where nothing is posted.
fn check_posting(current: &Connection, settings: &Settings) -> Result<()> {
    let usual = settings.posting == Posting::Each && settings.posting_from.is_none();
    if usual || accounting(&current.provider).is_some() {
        return Ok(());
    }
    let detail = format!("{} holds no orders; leave this out", current.provider);
    Err(invalid("/settings/posting", "not_offered", &detail))
}

/// Refuses customers to book on where nothing is booked.
fn check_customers(current: &Connection, settings: &Settings) -> Result<()> {
    let named = [
        ("/settings/guest_customer", &settings.guest_customer),
        ("/settings/daily_customer", &settings.daily_customer),
    ];
    let named = named.iter().find(|(_, name)| name.is_some());
    match named {
        Some((place, _)) if accounting(&current.provider).is_none() => {
            let detail = format!("{} holds no orders; leave this out", current.provider);
            Err(invalid(place, "not_offered", &detail))
        }
        _ => Ok(()),
    }
}

/// Lets another way of posting count from its day on. `posted` says whether anything of the shop was sent
/// to this connection, so that the days up to today have a way of their own.
fn set_posting(
    current: &mut Connection,
    settings: &Settings,
    today: NaiveDate,
    posted: bool,
) -> Result<()> {
    let held = (current.settings.posting, current.settings.posting_from);
    if held == (settings.posting, settings.posting_from) {
        return Ok(());
    }
    let tomorrow = today.succ_opt().unwrap_or(today);
    let from = match settings.posting_from {
        Some(from) if from > today || !posted => from,
        Some(_) => {
            let detail = "something was sent to this connection already, so no day up to today can be \
                          posted in another way; leave this out, and it counts from tomorrow on";
            return Err(invalid("/settings/posting_from", "already_posted", detail));
        }
        None => tomorrow,
    };
    if current.postings.len() >= POSTINGS_MAX {
        let detail = "the way of posting was changed too often; keep the one that stands";
        return Err(invalid("/settings/posting", "too_many", detail));
    }
    current.post(settings.posting, from);
    Ok(())
}

/// Refuses a form of orders that the provider's books do not have.
fn check_orders_as(current: &Connection, settings: &Settings) -> Result<()> {
    let offered = accounting(&current.provider).map_or(&[][..], |books| books.order_forms());
    let Some(asked) = settings.orders_as.filter(|form| !offered.contains(form)) else {
        return Ok(());
    };
    let title = asked.title();
    let titles: Vec<&str> = offered.iter().map(|form| form.title()).collect();
    let detail = match titles[..] {
        [] => format!("{} holds no orders; leave this out", current.provider),
        _ => format!(
            "an order in {} is a {}, and never a {title}",
            current.provider,
            titles.join(" or a ")
        ),
    };
    let fault = FieldError::new("/settings/orders_as", "not_offered", detail);
    Err(Error::invalid(vec![fault]))
}

/// Gives the access back at the provider, destroys the data key and with it all tokens, and keeps the
/// history and the ledger. A consent that waits for its confirmation goes the same way, whatever the
/// connection itself is. Where the provider still holds the access for good, or cannot be asked, nothing
/// changes, unless `force`.
pub async fn disconnect(
    ctx: &Ctx,
    merchant: &MerchantId,
    id: &ConnectionId,
    force: bool,
) -> Result<Connection> {
    let (_, connection) = load(ctx, merchant, id).await?;
    if connection.status == Status::Disconnected && connection.consent.is_none() {
        return Ok(connection);
    }
    let manifest = connection.manifest()?;
    let given_back = match give_back(ctx, &connection).await {
        Ok(words) => words,
        Err(error) if force => format!(
            "the access was not given back ({}); take it that it still stands at {}: {}",
            error.detail(),
            manifest.title,
            remedy(manifest)
        ),
        Err(error) => {
            return Err(Error::new(
                Code::UpstreamFailed,
                format!(
                    "{}; the connection stays as it is. Send it again, or with \"force\": true to \
                     disconnect without the provider, and then {}",
                    error.detail(),
                    remedy(manifest)
                ),
            )
            .because(error));
        }
    };
    let account = keys::account(&connection.provider, &hash(&connection.tenant_id));
    // It may be somebody else's by now, if this connection never came to life.
    let held = ctx.store.get(&account).await?;
    let held = held.filter(|item| item.doc["connection_id"] == connection.id.as_str());
    let (waited, confirmed) = (waiting(&connection), connection.confirmed.clone());
    let (connection, ()) = change(ctx, merchant, id, |current| {
        let consented = current.consent.is_some() && waiting(current) != waited;
        // What was put into use meanwhile may be the consent that waited, which was given back.
        let adopted = current.confirmed != confirmed && current.confirmed != waited;
        if consented || adopted {
            // Somebody consented meanwhile, and that was not given back.
            return Err(Error::new(
                Code::Busy,
                "somebody is connecting this just now; send it again",
            ));
        }
        if current.status == Status::Disconnected && current.consent.is_none() {
            return Ok(Decision::Leave(()));
        }
        let mut along = Along::entry(Happened::Disconnected, given_back.clone());
        if current.status != Status::Disconnected {
            along = along.event(EventType::ConnectionDisconnected);
        }
        current.status = Status::Disconnected;
        current.paused = false;
        current.key = None;
        current.tokens = None;
        current.previous = None;
        current.consent = None;
        current.lease = None;
        current.next_refresh_at = None;
        along.writes.extend(held.as_ref().map(|item| Write::Delete {
            key: account.clone(),
            condition: Condition::Rev(item.rev),
        }));
        Ok(Decision::Store(along, ()))
    })
    .await?;
    Ok(connection)
}

/// What tells one waiting consent from the next.
fn waiting(connection: &Connection) -> Option<String> {
    let consent = connection.consent.as_ref()?;
    Some(consent.confirmation_hash.clone())
}
