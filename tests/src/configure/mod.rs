//! `local configure`: carries the platform's credentials at the providers from an environment file
//! into the secrets of a deployed stack, each checked with one call to its provider first. It serves
//! real accounts as well as the local stack.

mod file;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aws_config::{BehaviorVersion, Region};
use aws_sdk_cloudformation::config::Credentials as AwsKey;
use aws_sdk_cloudformation::error::ProvideErrorMetadata;
use crossdock::error::Error;
use crossdock::model::http::{Method, Request};
use crossdock::net::{Client, Limits, Net};
use crossdock::oauth::connection::Connection;
use crossdock::oauth::redirect_uri;
use crossdock::providers::{Credentials, Fault, Manifest, Provider};
use crossdock::secrets::{SECRET_AGE_MAX, Secrets, SecretsManager};
use crossdock::store::dynamo::Dynamo;
use crossdock::store::{Store, Table, keys};
use secrecy::{ExposeSecret, SecretString};

use crate::show;
use crate::stack::{Config, Trouble, aws};
use file::{Entry, Given};

/// What a person calls the local stack.
const LOCAL: &str = "local";
/// Rows of one page of the table of connections.
const PAGE_ROWS: usize = 500;

pub struct Options {
    pub file: PathBuf,
    /// The name of the deployed stack, or `local`.
    pub stack: String,
    /// Whether what a provider refuses, or cannot be asked about, is written in spite of that.
    pub force: bool,
}

/// A deployed stack, as far as its providers' secrets go.
struct Target {
    /// With account and region.
    arn: String,
    /// What the names of the secrets begin with.
    prefix: String,
    public_url: String,
    secrets: SecretsManager,
    /// The table of connections; `None` when nobody may say where it is.
    connections: Option<Dynamo>,
    net: Client,
}

impl Target {
    async fn of(stack: &str) -> Result<Self, Trouble> {
        let local = stack == LOCAL;
        let mut sdk = aws_config::defaults(BehaviorVersion::latest());
        if local {
            let key = AwsKey::new(
                aws::ACCESS_KEY,
                aws::ACCESS_KEY,
                None,
                None,
                "the local stack",
            );
            sdk = sdk
                .region(Region::new(aws::REGION))
                .credentials_provider(key)
                .endpoint_url(Config::from_environment()?.urls().aws);
        }
        let sdk = sdk.load().await;
        let name = if local { aws::STACK } else { stack };
        let stacks = aws_sdk_cloudformation::Client::new(&sdk);
        let table = stacks
            .describe_stack_resource()
            .stack_name(name)
            .logical_resource_id("TableConnections")
            .send()
            .await
            .ok();
        let table = table
            .and_then(|found| found.stack_resource_detail)
            .and_then(|detail| detail.physical_resource_id);
        let names = |table| BTreeMap::from([(Table::Connections, table)]);
        let connections = table.map(|table| Dynamo::new(&sdk, names(table)));
        let described = stacks
            .describe_stacks()
            .stack_name(name)
            .send()
            .await
            .map_err(|error| {
                // The service's own words say more than the layers of the client.
                let said = error.as_service_error().and_then(|error| error.message());
                let why = match said {
                    Some(said) => said.to_owned(),
                    None => Error::internal(error).chain(),
                };
                Trouble::new(
                    format!("The stack {name} cannot be read: {why}"),
                    if local {
                        "Start it with `make up`."
                    } else {
                        "Deploy it with `make deploy`; the AWS_* variables name account and region."
                    },
                )
            })?;
        let stack = described.stacks().first();
        let output = |wanted: &str| {
            let outputs = stack.map(|stack| stack.outputs()).unwrap_or_default();
            let mut outputs = outputs.iter();
            let found = outputs.find(|output| output.output_key() == Some(wanted));
            let value = found.and_then(|output| output.output_value());
            value.map(str::to_owned).ok_or_else(|| {
                Trouble::new(
                    format!("The stack {name} has no output {wanted}."),
                    "Deploy it again from this checkout.",
                )
            })
        };
        let arn = stack.and_then(|stack| stack.stack_id());
        Ok(Self {
            arn: arn.unwrap_or(name).to_owned(),
            prefix: output("SecretProviderPrefix")?,
            public_url: output("ApiUrl")?,
            secrets: SecretsManager::new(&sdk),
            connections,
            // Stand-ins listen there, and a real stack has none.
            net: Client::new(local).map_err(|error| Trouble::plain(error.to_string()))?,
        })
    }
}

impl Target {
    /// The name of the secret of `provider`.
    fn secret(&self, provider: &str) -> String {
        format!("{}{provider}", self.prefix)
    }

    /// What is stored of `provider`, where it can be read.
    async fn held(&self, provider: &str) -> Result<Option<Credentials>, Error> {
        let text = self.secrets.get(&self.secret(provider)).await?;
        Ok(read(&text))
    }

    /// How many connections hold tokens of `provider`, in words.
    async fn connected(&self, provider: &str) -> String {
        let count = match &self.connections {
            Some(table) => count(table, provider).await.ok(),
            None => None,
        };
        match count {
            Some(1) => "one connection".to_owned(),
            Some(count) => format!("{count} connections"),
            None => "all connections (how many, cannot be read)".to_owned(),
        }
    }
}

/// How many connections in `table` hold tokens of `provider`.
async fn count(table: &dyn Store, provider: &str) -> Result<usize, Error> {
    let (mut count, mut after) = (0, None);
    loop {
        let page = table
            .scan(Table::Connections, after.as_deref(), PAGE_ROWS)
            .await?;
        let rows = page
            .items
            .iter()
            .filter(|item| keys::is_connection(&item.key));
        for row in rows {
            let connection: Connection = row.read()?;
            let held = connection.provider == provider && connection.tokens.is_some();
            count += usize::from(held);
        }
        after = page.next;
        if after.is_none() {
            return Ok(count);
        }
    }
}

/// What of `new` makes it another application than `old`, which tokens that were given to that one do not
/// work with; `None` where there was none before.
fn replaced(manifest: &Manifest, old: &Credentials, new: &Credentials) -> Option<String> {
    let mut own = manifest.credentials.iter();
    let id = own.find(|credential| credential.member == "client_id");
    let id = id.filter(|id| {
        let held = old.text(id.member);
        !held.is_empty() && held != new.text(id.member)
    });
    if let Some(id) = id {
        return Some(id.variable.to_owned());
    }
    let moved = old.environment != new.environment;
    let was_set_up = manifest
        .credentials
        .iter()
        .any(|one| old.get(one.member).is_some());
    (moved && was_set_up).then(|| manifest.environment_variable())
}

/// Whether `held` is an application of the borrower's own, and not one that is `lent` to it: that one has
/// the same id, in the same environment.
fn is_own(held: &Credentials, lent: &[&Credentials]) -> bool {
    let id = held.text("client_id");
    let mut lent = lent.iter();
    let shared =
        lent.any(|lent| lent.text("client_id") == id && lent.environment == held.environment);
    !id.is_empty() && !shared
}

/// Whether the file mentions only the lender of a provider that has an application of its own. What cannot
/// be read is none.
async fn keeps_its_own(target: &Target, entry: &Entry) -> bool {
    let Some(given) = entry.given.as_ref().filter(|given| !given.mentioned) else {
        return false;
    };
    let Some(lender) = given.borrowed else {
        return false;
    };
    let held = target.held(entry.provider.manifest().name).await;
    let Some(held) = held.ok().flatten() else {
        return false;
    };
    // That of the lender may be a new one, and this one was told before or is told now.
    let before = target.held(lender.name).await.ok().flatten();
    let lent = [before, read(&given.text())];
    is_own(&held, &lent.iter().flatten().collect::<Vec<_>>())
}

/// A provider's credentials as its secret holds them; what cannot be read is of no use to any connection.
fn read(text: &SecretString) -> Option<Credentials> {
    serde_json::from_str(text.expose_secret()).ok()
}

/// What became of one provider.
enum Outcome {
    /// The file does not mention it.
    Untouched,
    /// The file mentions the lender of its application alone, and it has one of its own.
    Own,
    Written,
    /// The check failed, and it was written in spite of that.
    Forced(String),
    Wrong(String),
}

/// Sets up what the file mentions, one line for each provider, and returns whether all is well.
///
/// # Errors
/// When the file or the stack cannot be read.
pub async fn run(options: &Options) -> Result<bool, Trouble> {
    let text = fs::read_to_string(&options.file)
        .map_err(|error| Trouble::io(format!("Cannot read {}", options.file.display()), &error))?;
    let entries = match file::read(&text) {
        Ok(entries) => entries,
        Err(faults) => {
            for fault in faults {
                show(&format!("{}: {fault}", options.file.display()));
            }
            show("Nothing was written: the file has to be read whole to be understood.");
            return Ok(false);
        }
    };
    if entries.iter().all(|entry| entry.given.is_none()) {
        return Err(Trouble::new(
            format!("{} names no provider.", options.file.display()),
            "docs/configuration.md lists the variables of each.",
        ));
    }
    let target = Target::of(&options.stack).await?;
    show(&format!("Into the secrets of {}", target.arn));
    let mut wrong = false;
    // Before anything is written: what the lender holds tells who shares its application.
    let mut own = Vec::new();
    for entry in &entries {
        own.push(keeps_its_own(&target, entry).await);
    }
    for (entry, own) in entries.iter().zip(own) {
        let outcome = match own {
            true => Outcome::Own,
            false => set_up(&target, entry, options.force).await,
        };
        wrong |= matches!(outcome, Outcome::Wrong(_));
        show(&line(&target, entry, &outcome));
    }
    if wrong {
        show(
            "What is not ok was not written. FORCE=1 writes what is refused or cannot be checked, \
             and another application in place of the one that is stored.",
        );
    } else {
        let minutes = SECRET_AGE_MAX.as_secs() / 60;
        show(&format!(
            "The functions take up what was written within {minutes} minutes."
        ));
    }
    Ok(!wrong)
}

fn line(target: &Target, entry: &Entry, outcome: &Outcome) -> String {
    let manifest = entry.provider.manifest();
    let environment = entry.given.as_ref().map_or("-", |given| &given.environment);
    let word = match outcome {
        Outcome::Untouched => "not in the file;",
        Outcome::Own => "not in the file, keeps the application of its own;",
        Outcome::Written => "ok  ",
        Outcome::Forced(why) => &format!("forced, though {why};"),
        Outcome::Wrong(why) => &format!("{why};"),
    };
    let redirect = match manifest.code_flow() {
        Some(_) => format!(
            "redirect URI {}",
            redirect_uri(&target.public_url, manifest.name)
        ),
        None => "no redirect URI: merchants paste keys".to_owned(),
    };
    let mut line = format!("{:<18} {environment:<10} {word} {redirect}", manifest.title);
    let shares = !matches!(outcome, Outcome::Own);
    let lender = entry.given.as_ref().and_then(|given| given.borrowed);
    if let Some(lender) = lender.filter(|_| shares) {
        line += &format!(
            "; it shares {}'s application, which then has to take both redirect URIs",
            lender.title
        );
    }
    line
}

async fn set_up(target: &Target, entry: &Entry, force: bool) -> Outcome {
    let Some(given) = &entry.given else {
        return Outcome::Untouched;
    };
    if !given.missing.is_empty() {
        return Outcome::Wrong(format!("missing {}", given.missing.join(", ")));
    }
    let manifest = entry.provider.manifest();
    let name = target.secret(manifest.name);
    let checked = check(&target.net, entry.provider, given).await;
    let mut doubts: Vec<String> = checked.err().into_iter().collect();
    match target.held(manifest.name).await {
        Err(error) => doubts.push(format!("{name} cannot be read: {}", error.chain())),
        Ok(old) => {
            let variable = old
                .zip(read(&given.text()))
                .and_then(|(old, new)| replaced(manifest, &old, &new));
            if let Some(variable) = variable {
                doubts.push(format!(
                    "{variable} is another than what is stored, and {} of {} would end: their tokens \
                     belong to the application before, so each merchant would have to connect again",
                    target.connected(manifest.name).await,
                    manifest.title
                ));
            }
        }
    }
    let doubts = doubts.join("; ");
    if !doubts.is_empty() && !force {
        return Outcome::Wrong(doubts);
    }
    match target.secrets.put(&name, &given.text()).await {
        Err(error) => Outcome::Wrong(format!("{name} cannot be written: {}", error.chain())),
        Ok(()) if doubts.is_empty() => Outcome::Written,
        Ok(()) => Outcome::Forced(doubts),
    }
}

/// Asks the provider whether it knows these credentials; says why they are not good. Where the platform
/// has none, whatever its API answers shows that it is there.
async fn check(net: &Client, provider: &dyn Provider, given: &Given) -> Result<(), String> {
    let manifest = provider.manifest();
    let credentials: Credentials = serde_json::from_str(given.text().expose_secret())
        .map_err(|_| "refused: these credentials cannot be read back".to_owned())?;
    let site = manifest
        .site(&given.environment)
        .ok_or_else(|| format!("refused: {} is not known", manifest.environment_variable()))?;
    let asked = provider.credentials_request(&site, &credentials);
    let known = asked.is_some();
    let request = asked.unwrap_or_else(|| Request::new(Method::Get, site.api.clone()));
    let answer = net.send(request, Limits::PROVIDER).await;
    let answer = answer.map_err(|error| format!("not checked: {}", error.detail()))?;
    if !known {
        return Ok(());
    }
    provider
        .read_credentials(&answer)
        .map_err(|fault| verdict(manifest, fault))
}

fn verdict(manifest: &Manifest, fault: Fault) -> String {
    match fault {
        Fault::Later { detail } => format!("not checked: {detail}"),
        Fault::Refused { detail, .. } => format!("refused: {detail}"),
        Fault::Unauthorized | Fault::Stale | Fault::NameTaken => {
            format!(
                "refused: {} does not know these credentials",
                manifest.title
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossdock::providers::PROVIDERS;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[test]
    fn another_application_is_told_from_another_secret() {
        let credentials = |environment: &str, id: &str, secret: &str| -> Credentials {
            let text = serde_json::json!({
                "environment": environment, "client_id": id, "client_secret": secret,
            });
            serde_json::from_value(text).expect("credentials")
        };
        let held = credentials("production", "one", "old");
        let mut seen = 0;
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            let mut members = manifest.credentials.iter();
            let Some(id) = members.find(|one| one.member == "client_id") else {
                continue;
            };
            seen += 1;
            let judge = |new: &Credentials| replaced(manifest, &held, new);
            assert_eq!(judge(&credentials("production", "one", "new")), None);
            let other = judge(&credentials("production", "two", "new"));
            assert_eq!(other.as_deref(), Some(id.variable), "{}", manifest.name);
            let moved = judge(&credentials("sandbox", "one", "old"));
            assert_eq!(moved, Some(manifest.environment_variable()));
            // The deployment leaves an empty secret behind.
            let none = serde_json::from_str("{}").expect("credentials");
            assert_eq!(replaced(manifest, &none, &held), None, "{}", manifest.name);
        }
        assert!(seen > 7, "{seen}");
    }

    #[test]
    fn an_application_of_its_own_is_told_from_one_that_is_shared() {
        let credentials = |id: &str, environment: &str| -> Credentials {
            let text = serde_json::json!({ "environment": environment, "client_id": id });
            serde_json::from_value(text).expect("credentials")
        };
        let (before, given) = (
            credentials("one", "production"),
            credentials("two", "sandbox"),
        );
        let judge = |held: &Credentials| is_own(held, &[&before, &given]);
        for (id, environment, own) in [
            ("one", "production", false),
            // The lender's was replaced, and this was left behind or is so already.
            ("two", "sandbox", false),
            ("three", "production", true),
            ("one", "sandbox", true),
            // The deployment leaves an empty secret behind.
            ("", "production", false),
        ] {
            assert_eq!(
                judge(&credentials(id, environment)),
                own,
                "{id} {environment}"
            );
        }
    }

    #[tokio::test]
    async fn every_provider_is_called_before_anything_is_written() {
        let net = Client::new(true).expect("a client");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let there = format!("http://{}", listener.local_addr().expect("an address"));
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a call");
                let mut request = [0; 4096];
                let length = stream.read(&mut request).await.expect("a request");
                assert!(length > 0, "a real call");
                seen.fetch_add(1, Ordering::Relaxed);
                let answer =
                    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                stream.write_all(answer).await.expect("it is taken");
            }
        });
        let mut asked = Vec::new();
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            let required = manifest.credentials.iter().filter(|one| one.required);
            let mut text: String = required
                .map(|one| format!("{}=x\n", one.variable))
                .collect();
            text += &format!("{}={there}\n", manifest.environment_variable());
            let entries = file::read(&text).unwrap_or_default().into_iter();
            let given = entries.filter(|entry| entry.provider.manifest().name == manifest.name);
            let given = given
                .filter_map(|entry| entry.given)
                .next()
                .expect("it is named");
            let platform = manifest.credentials.iter().any(|one| one.required);
            let said = check(&net, *provider, &given).await;
            assert_eq!(said.is_err(), platform, "{}: {said:?}", manifest.name);
            asked.push((provider, given));
            assert_eq!(
                calls.load(Ordering::Relaxed),
                asked.len(),
                "{}",
                manifest.name
            );
        }
        // The task holds the port until it has ended.
        server.abort();
        server.await.expect_err("it was broken off");
        for (provider, given) in asked {
            let said = check(&net, *provider, &given)
                .await
                .expect_err("nobody is there");
            assert!(said.starts_with("not checked: "), "{said}");
        }
    }
}
