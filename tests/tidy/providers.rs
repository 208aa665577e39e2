//! The registry of providers against everything that has to name each of them.

use crate::repository::{files, none, read, root};
use crate::stack_template::{camel, grants, provider_secrets, resources, template, text};
use crossdock::providers::PROVIDERS;
use std::collections::BTreeSet;

fn registered() -> Vec<&'static str> {
    let manifests = PROVIDERS.iter().map(|provider| provider.manifest());
    manifests.map(|manifest| manifest.name).collect()
}

#[test]
fn every_folder_is_a_provider_of_the_registry() {
    let paths = files("shared/src/providers");
    let folders = paths.iter().filter_map(|file| {
        let inside = file.path.strip_prefix("shared/src/providers/")?;
        Some(inside.split_once('/')?.0)
    });
    let folders: BTreeSet<&str> = folders.collect();
    let registered: BTreeSet<&str> = registered().into_iter().collect();
    assert_eq!(folders, registered, "folders (left) and PROVIDERS (right)");
}

/// Their order is that of the ports, so that a new one moves no other.
#[test]
fn every_provider_has_a_stand_in_at_the_same_place() {
    let stand_ins: Vec<&str> = local::standins::names().collect();
    assert_eq!(
        stand_ins,
        registered(),
        "stand-ins (left), PROVIDERS (right)"
    );
}

#[test]
fn every_provider_has_a_secret() {
    const NAME: &str = "crossdock-${Environment}-provider-";
    let template = template();
    let secrets = resources(&template, "AWS::SecretsManager::Secret");
    let mut wrong = Vec::new();
    for name in registered() {
        let Some(secret) = secrets.get(&format!("Secret{}", camel(name))) else {
            wrong.push(format!("{name} has no secret"));
            continue;
        };
        if text(&secret["Name"]) != format!("{NAME}{name}") {
            wrong.push(format!("the secret of {name} is {}", text(&secret["Name"])));
        }
        // A deployment must not write over what was configured.
        if text(&secret["SecretString"]) != "{}" || !secret["GenerateSecretString"].is_null() {
            wrong.push(format!("the secret of {name} is not made empty"));
        }
    }
    let named = secrets.values().map(|secret| text(&secret["Name"]));
    let named = named.filter(|name| name.starts_with(NAME)).count();
    if named != PROVIDERS.len() {
        wrong.push(format!("{named} secrets of {} providers", PROVIDERS.len()));
    }
    none("secrets of providers", wrong);
    assert_eq!(
        text(&template["Outputs"]["SecretProviderPrefix"]["Value"]),
        NAME
    );
}

/// The functions that deal with whichever provider a connection belongs to.
#[test]
fn functions_of_every_provider_may_read_every_secret() {
    let template = template();
    for function in [
        "oauth_start",
        "oauth_callback",
        "api_integrations",
        "refresh_run",
    ] {
        let granted = grants(&template, function).into_iter();
        let granted = granted.filter(|(action, secret)| {
            let own = ["SecretPlatform", "SecretVault"].contains(&secret.as_str());
            action == "secretsmanager:GetSecretValue" && !own
        });
        let granted: BTreeSet<String> = granted.map(|(_, secret)| secret).collect();
        let wanted: BTreeSet<String> = provider_secrets(function).into_iter().collect();
        assert_eq!(wanted.len(), PROVIDERS.len());
        assert_eq!(
            granted, wanted,
            "{function}: granted (left), PROVIDERS (right)"
        );
    }
}

#[test]
fn every_parameter_of_the_template_is_documented() {
    let documented = read("docs/configuration.md");
    let template = template();
    let parameters = template["Parameters"].as_mapping().expect("parameters");
    let mut wrong = Vec::new();
    for (name, parameter) in parameters {
        let default = match text(&parameter["Default"]).as_str() {
            "" => "empty".to_owned(),
            value => format!("`{value}`"),
        };
        let meaning = text(&parameter["Description"]);
        let row = format!("| `{}` | {default} | {meaning} |", text(name));
        if !documented.contains(&row) {
            wrong.push(row);
        }
    }
    none("rows that docs/configuration.md lacks", wrong);
}

/// The steps for a new provider name files and tests that there are.
#[test]
fn every_step_for_a_new_provider_can_be_taken() {
    let steps = read("docs/adding-a-provider.md");
    let quoted: Vec<&str> = steps.split('`').skip(1).step_by(2).collect();
    let suite = read("shared/src/providers/tests.rs");
    let (mut tests, mut paths, mut wrong) = (0, 0, Vec::new());
    for word in quoted {
        if let Some((module, test)) = word.strip_prefix("tidy ").and_then(|w| w.split_once("::")) {
            tests += 1;
            if !read(&format!("tests/tidy/{module}.rs")).contains(&format!("fn {test}(")) {
                wrong.push(word.to_owned());
            }
        } else if let Some(test) = word.strip_prefix("config::tests::") {
            tests += 1;
            if !read("shared/src/config.rs").contains(&format!("fn {test}(")) {
                wrong.push(word.to_owned());
            }
        } else if word.starts_with("every_provider_") {
            tests += 1;
            if !suite.contains(&format!("fn {word}(")) {
                wrong.push(word.to_owned());
            }
        } else if let Some(test) = word.strip_prefix("it ") {
            tests += 1;
            if !root().join(format!("tests/it/{test}.rs")).exists() {
                wrong.push(word.to_owned());
            }
        } else if ["shared/", "tests/", "infra/", "docs/"]
            .iter()
            .any(|top| word.starts_with(top))
        {
            paths += 1;
            // One provider stands for the new one.
            if !root().join(word.replace("<name>", "xero")).exists() {
                wrong.push(word.to_owned());
            }
        }
    }
    assert!(tests > 10 && paths > 8, "{tests} tests and {paths} paths");
    none(
        "tests and files that docs/adding-a-provider.md makes up",
        wrong,
    );
}
