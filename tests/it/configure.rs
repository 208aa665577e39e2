//! `local configure` against the running stack: what is written, and what never is.

use crate::world::World;
use crossdock::providers::{Consent, Manifest, PROVIDERS};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::Arc;
use tokio::process::Command;

/// The secrets of all providers, by name.
type Secrets = BTreeMap<&'static str, Value>;

pub async fn test(world: Arc<World>) {
    let before = secrets(&world).await;
    // A task of its own, so that the secrets are restored whatever comes of it: other tests need them.
    let outcome = tokio::spawn(everything(world.clone(), before.clone())).await;
    restore(&world, &before).await;
    assert_eq!(secrets(&world).await, before, "the secrets are restored");
    outcome.expect("what is configured");
}

async fn everything(world: Arc<World>, before: Secrets) {
    let mut good = BTreeMap::new();
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        good.insert(manifest.name, introduced(&world, manifest).await);
    }
    other_applications(&world, &good, &before).await;
    eprintln!("  another application is written only when that is wanted");
    good_file(&world, &good).await;
    eprintln!("  a good file is carried into every secret");
    restore(&world, &before).await;
    wrong_secrets(&world, &good, &before).await;
    missing_members(&world, &good, &before).await;
    spoilt_files(&world, &good, &before).await;
    eprintln!("  what is wrong, missing or unknown writes nothing");
    lender_alone(&world, &good, &before).await;
    one_of_two(&world, &good, &before).await;
    forced(&world, &good).await;
}

/// The value of `member` in an application that these tests alone use.
fn value(manifest: &Manifest, member: &str) -> String {
    match &manifest.consent {
        Consent::Code(_) => format!("configured-{}-{member}", manifest.name),
        Consent::Keys(_) => "SG.configured-key-00000.configured-secret-000000000000000".to_owned(),
    }
}

/// Makes an application known to the stand-in, and returns the lines that set it up.
async fn introduced(world: &World, manifest: &Manifest) -> Vec<(String, String)> {
    let url = world.stack.urls.provider(manifest.name);
    let (path, body) = match &manifest.consent {
        Consent::Code(_) => {
            let client = json!({
                "client_id": value(manifest, "client_id"),
                "client_secret": value(manifest, "client_secret"),
                "redirect_uris": [],
            });
            ("clients", client)
        }
        Consent::Keys(_) => ("keys", json!({ "key": value(manifest, "api_key") })),
    };
    // With the key of its webhooks a provider knows nobody.
    let mut members = manifest.credentials.iter().map(|one| one.member);
    if members.any(|member| !member.starts_with("webhook_")) {
        world.control(url, path, Some(body)).await;
    }
    let credentials = manifest.credentials.iter().map(|credential| {
        let value = value(manifest, credential.member);
        world.secret(&value);
        (credential.variable.to_owned(), value)
    });
    credentials
        .chain([(manifest.environment_variable(), url.to_owned())])
        .collect()
}

async fn secrets(world: &World) -> Secrets {
    let mut secrets = Secrets::new();
    for provider in PROVIDERS {
        let name = provider.manifest().name;
        let body = json!({ "SecretId": id(world, name) });
        let answer = world
            .aws("secretsmanager", "secretsmanager.GetSecretValue", body)
            .await;
        let text = answer["SecretString"].as_str().expect("a text");
        secrets.insert(name, serde_json::from_str(text).expect("JSON"));
    }
    secrets
}

fn id(world: &World, provider: &str) -> String {
    let prefix = world.stack.output("SecretProviderPrefix");
    format!("{}{provider}", prefix.expect("an output"))
}

async fn restore(world: &World, secrets: &Secrets) {
    for (name, value) in secrets {
        let body = json!({ "SecretId": id(world, name), "SecretString": value.to_string() });
        world
            .aws("secretsmanager", "secretsmanager.PutSecretValue", body)
            .await;
    }
}

/// Leaves of a provider's secret what a deployment makes.
async fn forget(world: &World, provider: &'static str) {
    restore(world, &Secrets::from([(provider, json!({}))])).await;
}

/// What `local configure` said of a file.
struct Said {
    ok: bool,
    text: String,
}

impl Said {
    /// The line of a provider.
    #[track_caller]
    fn of(&self, manifest: &Manifest) -> &str {
        let title = format!("{:<18} ", manifest.title);
        let mut lines = self.text.lines().filter(|line| line.starts_with(&title));
        let line = lines.next();
        let line = line.unwrap_or_else(|| panic!("no line of {} in {}", manifest.name, self.text));
        assert!(lines.next().is_none(), "{}", self.text);
        line
    }
}

async fn configure(world: &World, lines: &[(String, String)], options: &[&str]) -> Said {
    let config = &world.stack.config;
    let path = config.directory.join("tmp/providers.env");
    let lines = lines
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"));
    std::fs::write(&path, lines.collect::<String>()).expect("a file");
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(&config.program)
        .args(["configure", "--stack", "local", "--file"])
        .arg(&path)
        .args(options)
        .env("ADDRESS_AWS", config.addresses.aws.to_string())
        .output()
        .await
        .expect("the program runs");
    std::fs::remove_file(&path).expect("the file is ours");
    let text = [stdout, stderr].concat();
    let text = String::from_utf8(text).expect("text");
    for secret in [
        "SG.",
        "-client_secret",
        "-client_id",
        "wrong-word",
        "-access_token",
    ] {
        assert!(!text.contains(secret), "{secret} is shown: {text}");
    }
    Said {
        ok: status.success(),
        text,
    }
}

fn without(lines: &[(String, String)], name: &str) -> Vec<(String, String)> {
    let kept = lines.iter().filter(|(other, _)| other != name);
    kept.cloned().collect()
}

/// The tokens that are held belong to the application that is stored, so nobody replaces it by mistake.
async fn other_applications(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    let lines: Vec<_> = good.values().flatten().cloned().collect();
    let said = configure(world, &lines, &[]).await;
    assert!(!said.ok, "{}", said.text);
    let now = secrets(world).await;
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let mut credentials = manifest.credentials.iter();
        let has_application = credentials.any(|one| one.member == "client_id");
        let refused = said
            .of(manifest)
            .contains("would end: their tokens belong to");
        assert_eq!(refused, has_application, "{}", said.of(manifest));
        assert!(
            !said.of(manifest).contains("cannot be read"),
            "{}",
            said.text
        );
        let changed = now[manifest.name] != before[manifest.name];
        assert!(!(changed && has_application), "{}", manifest.name);
    }
    restore(world, before).await;
}

async fn good_file(world: &World, good: &BTreeMap<&'static str, Vec<(String, String)>>) {
    // Square Loyalty has no application of its own.
    forget(world, "square_loyalty").await;
    let lines = good.iter().filter(|(name, _)| **name != "square_loyalty");
    let lines: Vec<_> = lines.flat_map(|(_, lines)| lines.clone()).collect();
    // It is another application than the stack's own; the second time it is the same.
    let said = configure(world, &lines, &["--force"]).await;
    assert!(said.ok, "{}", said.text);
    let said = configure(world, &lines, &[]).await;
    assert!(said.ok, "{}", said.text);
    let now = secrets(world).await;
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let lender = match manifest.name {
            "square_loyalty" => PROVIDERS.iter().find(|one| one.manifest().name == "square"),
            _ => Some(provider),
        };
        let lender = lender.expect("a provider").manifest();
        let mut expected = json!({ "environment": world.stack.urls.provider(lender.name) });
        // What is lent is the application, not the key of webhooks.
        let own = lender.name == manifest.name;
        for credential in manifest
            .credentials
            .iter()
            .filter(|one| own || one.required)
        {
            expected[credential.member] = json!(value(lender, credential.member));
        }
        assert_eq!(now[manifest.name], expected, "{}", manifest.name);
        let line = said.of(manifest);
        assert!(line.contains(" ok "), "{line}");
        assert_eq!(
            line.contains("shares Square's"),
            lender.name != manifest.name,
            "{line}"
        );
        if manifest.code_flow().is_some() {
            let redirect = format!("{}/oauth/cb/{}/", world.stack.urls.api, manifest.name);
            assert!(line.contains(&redirect), "{line}");
        }
    }
}

/// The member that proves a platform, if a provider wants any.
fn proof(manifest: &Manifest) -> Option<&'static str> {
    let mut credentials = manifest.credentials.iter();
    let proof = credentials.find(|one| matches!(one.member, "client_secret" | "api_key"));
    proof.map(|credential| credential.variable)
}

async fn wrong_secrets(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    let mut seen = 0;
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let Some(variable) = proof(manifest) else {
            continue;
        };
        let mut lines = without(&good[manifest.name], variable);
        lines.push((variable.to_owned(), "wrong-word".to_owned()));
        // Square's own lines alone would set up its loyalty programme with the same wrong word.
        if manifest.name == "square" {
            lines.extend(good["square_loyalty"].clone());
        }
        let said = configure(world, &lines, &[]).await;
        assert!(!said.ok, "{}", said.text);
        assert!(said.of(manifest).contains("refused: "), "{}", said.text);
        let mut now = secrets(world).await;
        if manifest.name == "square" {
            now.insert("square_loyalty", before["square_loyalty"].clone());
            restore(world, before).await;
        }
        assert_eq!(now, *before, "{} writes nothing", manifest.name);
        seen += 1;
    }
    assert_eq!(
        seen,
        PROVIDERS.len() - 1,
        "all but Voucherify know the platform"
    );
    // Where nobody answers, nothing was checked, also of a provider that knows no platform.
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let mut lines = without(&good[manifest.name], &manifest.environment_variable());
        let required = |name: &str| {
            let mut credentials = manifest.credentials.iter();
            credentials.any(|one| one.variable == name && one.required)
        };
        lines.retain(|(name, _)| required(name));
        lines.push((
            manifest.environment_variable(),
            "http://localhost:1".to_owned(),
        ));
        let said = configure(world, &lines, &[]).await;
        assert!(
            !said.ok && said.of(manifest).contains("not checked: "),
            "{}",
            said.text
        );
    }
    assert_eq!(secrets(world).await, *before);
}

async fn missing_members(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        // Nothing that is missing can be forced.
        for options in [&[][..], &["--force"]] {
            for credential in manifest.credentials.iter().filter(|one| one.required) {
                let lines = without(&good[manifest.name], credential.variable);
                let said = configure(world, &lines, options).await;
                let missing = format!("missing {}", credential.variable);
                assert!(
                    !said.ok && said.of(manifest).contains(&missing),
                    "{}",
                    said.text
                );
            }
        }
    }
    assert_eq!(secrets(world).await, *before);
}

async fn spoilt_files(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    let rows = [
        (
            "XERO_ENVIROMENT",
            "sandbox",
            "XERO_ENVIROMENT is no variable; is XERO_ENVIRONMENT meant?",
        ),
        ("XERO_CLIENT_ID", "twice", "XERO_CLIENT_ID stands twice"),
        (
            "STRIPE_ENVIRONMENT",
            "wrong-word",
            "STRIPE_ENVIRONMENT is neither",
        ),
    ];
    for (name, value, fault) in rows {
        let mut lines = good["xero"].clone();
        lines.push((name.to_owned(), value.to_owned()));
        for options in [&[][..], &["--force"]] {
            let said = configure(world, &lines, options).await;
            assert!(!said.ok && said.text.contains(fault), "{}", said.text);
        }
    }
    let said = configure(world, &[], &[]).await;
    assert!(
        !said.ok && said.text.contains("names no provider"),
        "{}",
        said.text
    );
    assert_eq!(secrets(world).await, *before);
}

/// One provider that is wrong does not keep another from being set up, and tells in the exit code.
async fn one_of_two(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    // HubSpot was not set up before.
    let mut lines = without(&good["xero"], "XERO_CLIENT_SECRET");
    lines.extend(good["hubspot"].clone());
    forget(world, "hubspot").await;
    let said = configure(world, &lines, &[]).await;
    assert!(!said.ok, "{}", said.text);
    for provider in PROVIDERS {
        let manifest = provider.manifest();
        let word = match manifest.name {
            "xero" => "missing XERO_CLIENT_SECRET",
            "hubspot" => " ok ",
            _ => "not in the file",
        };
        assert!(said.of(manifest).contains(word), "{}", said.text);
    }
    let now = secrets(world).await;
    for (name, secret) in before {
        assert_eq!(now[name] != *secret, *name == "hubspot", "{name}");
    }
}

/// Square's lines alone say nothing of a loyalty programme that has an application of its own.
async fn lender_alone(
    world: &World,
    good: &BTreeMap<&'static str, Vec<(String, String)>>,
    before: &Secrets,
) {
    for options in [&[][..], &["--force"]] {
        let said = configure(world, &good["square"], options).await;
        for provider in PROVIDERS {
            let manifest = provider.manifest();
            let word = match (manifest.name, options) {
                ("square", []) => "would end: their tokens belong to",
                ("square", _) => "forced, though",
                ("square_loyalty", _) => "keeps the application of its own",
                _ => "not in the file;",
            };
            assert!(said.of(manifest).contains(word), "{}", said.text);
        }
        assert!(!said.text.contains("shares Square's"), "{}", said.text);
        let now = secrets(world).await;
        for (name, secret) in before {
            let written = *name == "square" && !options.is_empty();
            assert_eq!(now[name] != *secret, written, "{name}");
        }
    }
    restore(world, before).await;
}

async fn forced(world: &World, good: &BTreeMap<&'static str, Vec<(String, String)>>) {
    let mut lines = without(&good["xero"], "XERO_CLIENT_SECRET");
    lines.push(("XERO_CLIENT_SECRET".to_owned(), "wrong-word".to_owned()));
    let said = configure(world, &lines, &["--force"]).await;
    assert!(
        said.ok && said.text.contains("forced, though refused: "),
        "{}",
        said.text
    );
    assert_eq!(secrets(world).await["xero"]["client_secret"], "wrong-word");
}
