//! The accounts of a connected company: which there are, and which one is used for what.

use super::session::{Session, Stop};
use crate::ctx::Ctx;
use crate::error::{Code, Error, FieldError, Result};
use crate::oauth::connection::{Connection, Settings, Status};
use crate::providers::accounting::{Accounting, accounting};
use crate::providers::accounts::{Chart, Choices, LedgerAccount, Role, Unfit};

/// A company's accounts, as they are at this moment.
pub struct Accounts {
    pub chart: Chart,
    choices: Choices,
    company: &'static str,
}

/// What is used for one role.
pub struct Used<'a> {
    pub role: Role,
    pub account: Result<&'a LedgerAccount, Unfit>,
    pub chosen: bool,
}

/// Reads the accounts of the company that `connection` reaches.
pub async fn read(ctx: &Ctx, connection: &Connection) -> Result<Accounts> {
    let provider = books(connection)?;
    if !matches!(connection.status, Status::Live | Status::Paused) {
        return Err(Error::new(
            Code::Conflict,
            format!(
                "this connection is {}; accounts are read from one that is live or paused",
                connection.status.as_str()
            ),
        ));
    }
    let company = provider.manifest().title;
    let session = Session::new(ctx, provider, connection, 1, false).await?;
    let settings = session.read_settings().await.map_err(|stop| match stop {
        Stop::Ours(error) => error,
        stop => match stop.into_error() {
            Ok((_, detail)) => Error::new(Code::UpstreamRefused, detail),
            Err(error) => error,
        },
    })?;
    Ok(Accounts {
        chart: Chart::of(&settings),
        choices: connection.choices(),
        company,
    })
}

fn books(connection: &Connection) -> Result<&'static dyn Accounting> {
    accounting(&connection.provider).ok_or_else(|| {
        let detail = format!("{} keeps no accounts", connection.provider);
        Error::new(Code::NotFound, detail)
    })
}

impl Accounts {
    /// What is used for each role, and why nothing is where nothing is.
    pub fn used(&self) -> impl Iterator<Item = Used<'_>> {
        Role::ALL.into_iter().map(|role| Used {
            role,
            account: self.chart.used(role, &self.choices, self.company),
            chosen: self.choices.accounts.contains_key(&role),
        })
    }
}

/// What of the accounts that `settings` choose cannot be used. The company is asked only when the choice
/// differs from what stands.
pub async fn faults(
    ctx: &Ctx,
    connection: &Connection,
    settings: &Settings,
) -> Result<Vec<FieldError>> {
    let unchanged = settings.accounts == connection.settings.accounts;
    if unchanged || settings.accounts.is_empty() {
        return Ok(Vec::new());
    }
    if accounting(&connection.provider).is_none() {
        let detail = format!("{} keeps no accounts; leave this out", connection.provider);
        let fault = FieldError::new("/settings/accounts", "not_offered", detail);
        return Ok(vec![fault]);
    }
    let accounts = read(ctx, connection).await?;
    let choose = |(role, text): (&Role, &String)| {
        let unfit = accounts.chart.choose(*role, text, accounts.company).err()?;
        let place = format!("/settings/accounts/{}", role.as_str());
        Some(FieldError::new(&place, unfit.code, unfit.detail))
    };
    Ok(settings.accounts.iter().filter_map(choose).collect())
}
