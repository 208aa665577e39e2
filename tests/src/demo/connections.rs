//! Connections: each provider as a merchant connects it, and one that loses its access and is repaired.

use super::browser::Browser;
use super::client::Server;
use super::plan::MERCHANT;
use super::{Outcome, say};
use crate::stack::Urls;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use url::Url;

/// The provider whose grant is taken away and given again.
const REPAIRED: &str = "xero";
/// The event that tells of a lost access.
pub const REAUTH: &str = "connection.reauth_required";
/// What a merchant types where a provider has keys instead of a consent page: those of the stand-ins.
const KEYS: [(&str, &str); 3] = [
    (
        "api_key",
        "SG.standin-key-000000000.standin-secret-0000000000000000000000000000",
    ),
    ("app_id", "standin-app"),
    ("app_token", "standin-token"),
];
/// How long the event of a lost access may take to arrive.
const EVENT_MAX: Duration = Duration::from_secs(60);
const POLL_PAUSE: Duration = Duration::from_millis(500);

/// What the report says about connections.
#[derive(Debug, Default)]
pub struct Connected {
    /// Providers with a live connection, by name.
    pub live: Vec<String>,
    /// All providers that are offered.
    pub offered: usize,
    /// Whether the one that lost its access is live again, under the same id.
    pub repaired: bool,
    /// Whether the developer was told of the lost access.
    pub told: bool,
}

impl Connected {
    pub fn holds(&self) -> bool {
        self.live.len() == self.offered && self.repaired && self.told
    }
}

/// The merchant at work on its connections.
pub struct Connections<'a> {
    pub http: &'a reqwest::Client,
    pub api: &'a Server,
    pub receiver: &'a Server,
    pub urls: &'a Urls,
}

impl Connections<'_> {
    async fn all(&self) -> Outcome<Value> {
        let path = format!("/api/v1/integrations?merchant_id={MERCHANT}");
        self.api
            .get(&path)
            .await?
            .success("the list of connections")
    }

    async fn of(&self, provider: &str) -> Outcome<Option<Value>> {
        let all = self.all().await?;
        let mut found = all["data"].as_array().into_iter().flatten();
        Ok(found.find(|one| one["provider"] == provider).cloned())
    }

    /// Connects a provider unless it is connected already; says whether it had to.
    pub async fn connect(&self, provider: &Value, talks: bool) -> Outcome<(Value, bool)> {
        let name = text(provider, "provider")?;
        if let Some(connection) = self.of(name).await?
            && connection["status"] == "live"
        {
            return Ok((connection, false));
        }
        let category = text(provider, "category")?;
        let path = format!("/api/v1/integrations/{category}/{name}/connect");
        self.consent(&path, talks).await?;
        let connection = self.of(name).await?;
        let connection = connection.filter(|connection| connection["status"] == "live");
        let connection = connection
            .ok_or_else(|| format!("{name} is confirmed and its connection still not live"))?;
        Ok((connection, true))
    }

    /// Asks for a link at `path`, walks it as the merchant's browser does, and confirms what that
    /// browser brought back, as the backend does.
    async fn consent(&self, path: &str, talks: bool) -> Outcome<()> {
        let return_url = format!("{}/connected", self.urls.receiver);
        let wish = json!({ "merchant_id": MERCHANT, "return_url": return_url });
        let link = self.api.post(path, &wish).await?;
        let link = link.success("the connect link")?;
        let tell = |line: &str| {
            if talks {
                say(line);
            }
        };
        tell("  a connect link, opened in the merchant's browser:");
        let mut browser = Browser::new(self.http.clone(), talks);
        let mut page = browser.open(text(&link, "url")?.parse()?).await?;
        if !page.url.as_str().starts_with(&return_url) {
            tell("    the consent page is approved");
            page = browser.approve(&page, &KEYS).await?;
        }
        if page.status != 200 || !page.url.as_str().starts_with(&return_url) {
            let what = page.body.chars().take(300).collect::<String>();
            return Err(format!("the connect flow ended with {}: {what}", page.status).into());
        }
        let (connection, category) = (
            query(&page.url, "connection_id")?,
            query(&page.url, "category")?,
        );
        let confirmation = query(&page.url, "confirmation")?;
        let confirm = json!({ "merchant_id": MERCHANT, "confirmation": confirmation });
        let path = format!("/api/v1/integrations/{category}/{connection}/confirm");
        let confirmed = self.api.post(&path, &confirm).await?;
        let confirmed = confirmed.success("the confirmation")?;
        tell(
            "  confirmed by the backend for its own user, whose browser shows that it is the same:",
        );
        let page = browser
            .open(text(&confirmed, "continue_url")?.parse()?)
            .await?;
        if query(&page.url, "status")? != "live" {
            return Err(format!("the browser was sent to {}", page.url).into());
        }
        Ok(())
    }

    /// Connects everything that is offered.
    pub async fn connect_all(&self) -> Outcome<()> {
        let all = self.all().await?;
        for provider in all["providers"].as_array().into_iter().flatten() {
            let (connection, fresh) = self.connect(provider, false).await?;
            let how = match (fresh, provider["connects_by"].as_str()) {
                (false, _) => "connected already",
                (true, Some("keys")) => "keys were entered and checked",
                (true, _) => "consent was given and confirmed",
            };
            let title = text(provider, "title")?;
            say(&format!(
                "  {title:<20}{how}: {}",
                text(&connection, "label")?
            ));
        }
        Ok(())
    }

    /// Lets the merchant take the access away at the provider, and give it again here.
    pub async fn repair(&self) -> Outcome<()> {
        let missing = || format!("{REPAIRED} is not connected");
        let before = self.of(REPAIRED).await?.ok_or_else(missing)?;
        let (id, category) = (text(&before, "id")?, text(&before, "category")?);
        let base = format!("/api/v1/integrations/{category}/{id}");
        if self.was_reconnected(&base).await? {
            say(&format!("  {REPAIRED} was repaired already"));
            return Ok(());
        }
        let provider = Server::new(self.http, self.urls.provider(REPAIRED), None);
        let taken = json!({ "account": before["tenant_id"] });
        provider
            .post("/_control/revoke", &taken)
            .await?
            .success("taking the access away")?;
        say(&format!("  the merchant removes the app at {REPAIRED}"));
        let body = json!({ "merchant_id": MERCHANT });
        let checked = self.api.post(&format!("{base}/check"), &body).await?;
        let checked = checked.success("the check")?;
        if checked["status"] != "reauth_required" {
            let status = &checked["status"];
            return Err(format!("without its access the connection is {status}").into());
        }
        let why = checked["trouble"]["detail"].as_str().unwrap_or_default();
        say(&format!("  a check finds out: {why}"));
        self.consent(&format!("{base}/reconnect"), false).await?;
        let after = self.of(REPAIRED).await?.ok_or_else(missing)?;
        if after["id"] != before["id"] || after["status"] != "live" {
            return Err(format!("{id} was not repaired").into());
        }
        say(&format!("  connected again: {id} is live"));
        Ok(())
    }

    async fn was_reconnected(&self, base: &str) -> Outcome<bool> {
        let path = format!("{base}/history?merchant_id={MERCHANT}&limit=200");
        let history = self.api.get(&path).await?.success("the history")?;
        let mut entries = history["data"].as_array().into_iter().flatten();
        Ok(entries.any(|entry| entry["what"] == "reconnected"))
    }

    /// Reads back what the report says.
    pub async fn read(&self) -> Outcome<Connected> {
        let all = self.all().await?;
        let list = |name: &str| all[name].as_array().cloned().unwrap_or_default();
        let live = list("data")
            .into_iter()
            .filter(|one| one["status"] == "live");
        let live = live.filter_map(|one| Some(one["provider"].as_str()?.to_owned()));
        let repaired = self.of(REPAIRED).await?;
        let repaired = match &repaired {
            Some(one) => {
                let (id, category) = (text(one, "id")?, text(one, "category")?);
                let base = format!("/api/v1/integrations/{category}/{id}");
                one["status"] == "live" && self.was_reconnected(&base).await?
            }
            None => false,
        };
        Ok(Connected {
            live: live.collect(),
            offered: list("providers").len(),
            repaired,
            told: self.was_told().await?,
        })
    }

    /// Waits until the developer's endpoint has heard of the lost access.
    async fn was_told(&self) -> Outcome<bool> {
        let began = Instant::now();
        loop {
            let received = self.receiver.get("/_control/received").await?;
            let received = received.success("the receiver")?;
            if received["by_type"][REAUTH].as_u64().is_some_and(|n| n > 0) {
                return Ok(true);
            }
            if began.elapsed() > EVENT_MAX {
                return Ok(false);
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> Outcome<&'a str> {
    value[field]
        .as_str()
        .ok_or_else(|| format!("the answer has no {field}").into())
}

fn query(url: &Url, name: &str) -> Outcome<String> {
    let found = url
        .query_pairs()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned());
    found.ok_or_else(|| format!("the return page was opened without {name}").into())
}
