//! Every environment variable of the functions, once. `infra/template.yaml` sets exactly those that
//! a function uses; a test compares the two.

use crate::error::{Code, Error, Result};
use crate::providers::{Category, Manifest, PROVIDERS};
use crate::store::Table;
use std::collections::BTreeMap;

/// One environment variable.
struct Variable {
    name: &'static str,
    meaning: &'static str,
}

/// Switches webhooks to developers off.
const WEBHOOKS_SWITCH: &str = "ENABLE_WEBHOOKS";

/// Those that do not come with a provider.
const VARIABLES: &[Variable] = &[
    Variable {
        name: "PUBLIC_URL",
        meaning: "Base URL under which clients and browsers reach the API",
    },
    Variable {
        name: "RETURN_URLS",
        meaning: "Addresses, separated by commas, to which a merchant's browser may return",
    },
    Variable {
        name: "TABLE_RECORDS",
        meaning: "Name of the table of merchants, events and records",
    },
    Variable {
        name: "TABLE_OUTBOX",
        meaning: "Name of the table of events not yet on the bus",
    },
    Variable {
        name: "TABLE_CONNECTIONS",
        meaning: "Name of the table of connections and connect links",
    },
    Variable {
        name: "TABLE_LEDGER",
        meaning: "Name of the table of what stands at which provider",
    },
    Variable {
        name: "TABLE_WEBHOOKS",
        meaning: "Name of the table of endpoints and deliveries",
    },
    Variable {
        name: "BUS_NAME",
        meaning: "Name of the EventBridge bus",
    },
    Variable {
        name: "QUEUE_WEBHOOK_DELIVER_URL",
        meaning: "URL of the queue of deliveries to be made",
    },
    Variable {
        name: "QUEUE_WEBHOOK_RETRY_URL",
        meaning: "URL of the queue of deliveries to be made again",
    },
    Variable {
        name: "QUEUE_WEBHOOK_SLOW_URL",
        meaning: "URL of the queue of deliveries to endpoints that are slow",
    },
    Variable {
        name: "SECRET_PLATFORM",
        meaning: "Secret that holds the platform key",
    },
    Variable {
        name: "SECRET_VAULT",
        meaning: "Secret that holds the root key of the vault",
    },
    Variable {
        name: "SECRET_PROVIDER_PREFIX",
        meaning: "Name of each provider's secret, up to the provider's own name",
    },
    Variable {
        name: "QUEUE_REFRESH_URL",
        meaning: "URL of the queue of connections whose tokens are to be renewed",
    },
    Variable {
        name: "QUEUE_HOOKS_URL",
        meaning: "URL of the queue of webhooks that providers sent",
    },
    Variable {
        name: "QUEUE_PULL_URL",
        meaning: "URL of the queue of connections of which changes are to be read",
    },
    Variable {
        name: "QUEUE_VAULT_ROTATE_URL",
        meaning: "URL of the queue of the vault's root key rotation",
    },
    Variable {
        name: "QUEUE_RECONCILE_URL",
        meaning: "URL of the queue of days to be reconciled",
    },
    Variable {
        name: "ENABLE_ACCOUNTING_SYNC",
        meaning: "false switches accounting off; true, or nothing, leaves it on",
    },
    Variable {
        name: "ENABLE_CRM_SYNC",
        meaning: "false switches CRM off; true, or nothing, leaves it on",
    },
    Variable {
        name: "ENABLE_EMAIL_MARKETING",
        meaning: "false switches e-mail marketing off; true, or nothing, leaves it on",
    },
    Variable {
        name: "ENABLE_ADDITIONAL_PAYMENTS",
        meaning: "false switches the additional payment providers off; true, or nothing, leaves it on",
    },
    Variable {
        name: "ENABLE_LOYALTY_INTEGRATION",
        meaning: "false switches loyalty off; true, or nothing, leaves it on",
    },
    Variable {
        name: WEBHOOKS_SWITCH,
        meaning: "false switches webhooks to developers off; true, or nothing, leaves them on",
    },
    Variable {
        name: "NET_ALLOW_LOOPBACK",
        meaning: "true lets outbound calls reach loopback; only the local stack sets it",
    },
];

/// The variable with the address of the queue of what is to be carried to `provider`.
fn sync_queue(provider: &str) -> String {
    format!("QUEUE_SYNC_{}_URL", provider.to_uppercase())
}

/// All variables by their names, each with its meaning; those that come with a provider are the last.
pub fn variables() -> impl Iterator<Item = (String, String)> {
    let of_providers = PROVIDERS.iter().filter_map(|provider| {
        let Manifest { name, title, .. } = provider.accounting()?.manifest();
        let meaning = format!("URL of the queue of what is to be carried to {title}");
        Some((sync_queue(name), meaning))
    });
    VARIABLES
        .iter()
        .map(|Variable { name, meaning }| ((*name).to_owned(), (*meaning).to_owned()))
        .chain(of_providers)
}

/// The configuration of one function: what its environment holds. What is absent is an error only
/// for the function that asks for it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    values: BTreeMap<String, String>,
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// When a switch says neither of its words: a category that somebody meant to switch off must not be
    /// on.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads variables"
    )]
    pub fn from_environment() -> Result<Config> {
        let read = |(name, _): (String, String)| {
            let value = std::env::var(&name).ok()?;
            Some((name, value))
        };
        let config = Config {
            values: variables().filter_map(read).collect(),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let switches = Category::ALL.map(Category::switch);
        for switch in switches.into_iter().chain([WEBHOOKS_SWITCH]) {
            let value = self.values.get(switch).map_or("true", String::as_str);
            if !matches!(value, "true" | "false") {
                return Err(Error::internal(format!(
                    "environment variable {switch} is {value:?}; it says true or false, or is not set"
                )));
            }
        }
        Ok(())
    }

    /// A configuration made by hand, for tests: names must be those of [`variables`].
    pub fn of(values: &[(&str, &str)]) -> Config {
        let values = values.iter().map(|(name, value)| {
            assert!(
                variables().any(|(known, _)| known == *name),
                "{name} is no variable"
            );
            ((*name).to_owned(), (*value).to_owned())
        });
        Config {
            values: values.collect(),
        }
    }

    fn need(&self, name: &str) -> Result<&str> {
        self.values
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                Error::new(Code::Internal, "the function is not set up for this")
                    .because(format!("environment variable {name} is not set"))
            })
    }

    /// Without a trailing slash.
    pub fn public_url(&self) -> Result<&str> {
        Ok(self.need("PUBLIC_URL")?.trim_end_matches('/'))
    }

    /// The registered return addresses.
    pub fn return_urls(&self) -> impl Iterator<Item = &str> {
        let urls = self.values.get("RETURN_URLS").map_or("", String::as_str);
        urls.split(',').map(str::trim).filter(|url| !url.is_empty())
    }

    pub fn bus_name(&self) -> Result<&str> {
        self.need("BUS_NAME")
    }

    pub fn webhook_deliver_queue(&self) -> Result<&str> {
        self.need("QUEUE_WEBHOOK_DELIVER_URL")
    }

    pub fn webhook_retry_queue(&self) -> Result<&str> {
        self.need("QUEUE_WEBHOOK_RETRY_URL")
    }

    pub fn webhook_slow_queue(&self) -> Result<&str> {
        self.need("QUEUE_WEBHOOK_SLOW_URL")
    }

    pub fn platform_secret(&self) -> Result<&str> {
        self.need("SECRET_PLATFORM")
    }

    pub fn vault_secret(&self) -> Result<&str> {
        self.need("SECRET_VAULT")
    }

    pub fn refresh_queue(&self) -> Result<&str> {
        self.need("QUEUE_REFRESH_URL")
    }

    /// The queue of what is to be carried to `provider`.
    pub fn sync_queue(&self, provider: &str) -> Result<&str> {
        self.need(&sync_queue(provider))
    }

    pub fn hooks_queue(&self) -> Result<&str> {
        self.need("QUEUE_HOOKS_URL")
    }

    pub fn pull_queue(&self) -> Result<&str> {
        self.need("QUEUE_PULL_URL")
    }

    pub fn reconcile_queue(&self) -> Result<&str> {
        self.need("QUEUE_RECONCILE_URL")
    }

    pub fn vault_queue(&self) -> Result<&str> {
        self.need("QUEUE_VAULT_ROTATE_URL")
    }

    /// The secret that holds the platform's credentials at `provider`.
    pub fn provider_secret(&self, provider: &str) -> Result<String> {
        let prefix = self.need("SECRET_PROVIDER_PREFIX")?;
        Ok(format!("{prefix}{provider}"))
    }

    /// Fails for a category that is switched off. What is not set is on.
    pub fn enabled(&self, category: Category) -> Result<()> {
        self.switched_on(category.switch(), category.as_str())
    }

    /// Fails where webhooks to developers are switched off.
    pub fn webhooks_enabled(&self) -> Result<()> {
        self.switched_on(WEBHOOKS_SWITCH, "webhooks")
    }

    fn switched_on(&self, switch: &str, what: &str) -> Result<()> {
        if self.values.get(switch).is_none_or(|value| value != "false") {
            return Ok(());
        }
        Err(Error::new(
            Code::FeatureDisabled,
            format!(
                "{what} is switched off on this platform; its operator switches it on with {switch}"
            ),
        ))
    }

    pub fn allow_loopback(&self) -> bool {
        self.values
            .get("NET_ALLOW_LOOPBACK")
            .is_some_and(|value| value == "true")
    }

    /// The names of the tables that this function knows.
    pub fn tables(&self) -> BTreeMap<Table, String> {
        let all = [
            (Table::Records, "TABLE_RECORDS"),
            (Table::Outbox, "TABLE_OUTBOX"),
            (Table::Connections, "TABLE_CONNECTIONS"),
            (Table::Ledger, "TABLE_LEDGER"),
            (Table::Webhooks, "TABLE_WEBHOOKS"),
        ];
        let known = |(table, name)| Some((table, self.values.get(name)?.clone()));
        all.into_iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = include_str!("../../docs/configuration.md");

    /// The rows of the table under `heading` are these and no others.
    #[track_caller]
    fn has_rows(heading: &str, rows: Vec<String>) {
        let (_, section) = DOCUMENTED.split_once(heading).unwrap();
        let section = section.split("\n## ").next().unwrap_or_default();
        let found = section.lines().filter(|line| line.starts_with("| "));
        // The first two are the head of the table.
        let found: Vec<&str> = found.skip(2).collect();
        assert_eq!(
            found, rows,
            "docs/configuration.md (left), the code (right)"
        );
    }

    #[test]
    fn every_variable_is_documented() {
        let rows = variables().map(|(name, meaning)| format!("| `{name}` | {meaning} |"));
        has_rows("## The functions' environment\n", rows.collect());
    }

    #[test]
    fn every_provider_is_documented() {
        let rows = PROVIDERS.iter().map(|provider| {
            let manifest = provider.manifest();
            let credentials = manifest.credentials.iter().map(|credential| {
                let optional = if credential.required {
                    ""
                } else {
                    ", optional"
                };
                format!(
                    "`{}` (`{}`{optional})",
                    credential.variable, credential.member
                )
            });
            let credentials = credentials.collect::<Vec<_>>().join(", ");
            format!(
                "| {} | `{}` | {} | `{}` |",
                manifest.title,
                manifest.name,
                if credentials.is_empty() {
                    "none"
                } else {
                    &credentials
                },
                manifest.environment_variable()
            )
        });
        has_rows("## Providers\n", rows.collect());
    }

    #[test]
    fn every_category_has_a_switch() {
        for category in Category::ALL {
            let switch = category.switch();
            assert!(variables().any(|(name, _)| name == switch));
            assert!(Config::of(&[]).enabled(category).is_ok());
            assert!(Config::of(&[]).check().is_ok());
            for word in ["true", "false"] {
                assert!(Config::of(&[(switch, word)]).check().is_ok());
            }
            for word in ["0", "no", "off", "", "False", " false"] {
                let refused = Config::of(&[(switch, word)]).check().unwrap_err();
                assert!(refused.chain().contains(switch), "{}", refused.chain());
            }
            assert!(Config::of(&[(switch, "true")]).enabled(category).is_ok());
            let off = Config::of(&[(switch, "false")]);
            assert!(off.enabled(category).is_err());
            let others = Category::ALL.into_iter().filter(|other| *other != category);
            assert!(others.map(|other| off.enabled(other)).all(|on| on.is_ok()));
        }
    }
}
