//! Who may know whom.

use crate::repository::{code, files, none, read};
use std::collections::BTreeSet;

/// The modules of the common crate, leftmost first, as its own doc comment lists them.
fn order() -> Vec<String> {
    let text = read("shared/src/lib.rs");
    let doc = text
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .collect::<Vec<_>>()
        .join("\n");
    let (_, list) = doc
        .split_once("\n\n")
        .expect("the order stands in the second paragraph");
    let names = list.split('`').skip(1).step_by(2);
    names.map(str::to_owned).collect()
}

/// The words of `line` that follow `crate::`: one, or several where a group is imported.
fn imported(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        let before = &line[..at];
        if before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '$')) {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(group) => group.split(',').collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.push(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    found
}

fn module(path: &str) -> &str {
    let inside = path.strip_prefix("shared/src/").unwrap_or(path);
    inside.split(['/', '.']).next().unwrap_or_default()
}

#[test]
fn the_order_names_every_module_once() {
    let text = read("shared/src/lib.rs");
    let declared: BTreeSet<String> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let order = order();
    assert_eq!(
        order.len(),
        declared.len(),
        "a module stands twice or not at all"
    );
    assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), declared);
}

#[test]
fn imports_go_left() {
    let order = order();
    let place = |name: &str| order.iter().position(|other| other == name);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files("shared/src") {
        let own = module(&file.path);
        let Some(own_place) = place(own) else {
            continue;
        };
        for (number, line) in code(&file) {
            for other in imported(line) {
                seen += 1;
                if place(&other).is_none_or(|other| other > own_place) {
                    wrong.push(format!("{}:{number}: {own} imports {other}", file.path));
                }
            }
        }
    }
    assert!(seen > 100, "only {seen} imports were read");
    none(
        "imports against the order of shared/src/lib.rs, which goes from left to right",
        wrong,
    );
}

/// Layers that compute and touch nothing, so that the simulator can run them as they are.
const PURE: [&str; 3] = ["model", "sync", "providers"];
const IMPURE: [&str; 12] = [
    "tokio",
    "reqwest",
    // But not `aws_lc_rs`, which computes.
    "aws_config",
    "aws_lambda_events",
    "aws_sdk_",
    "aws_smithy_",
    "lambda_",
    "SystemTime",
    "Instant::now",
    "Utc::now",
    "rand::",
    "std::env",
];

/// Whether `name` stands in `line` as the beginning of a word.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '.'))
    })
}

#[test]
fn pure_layers_touch_nothing() {
    let mut wrong = Vec::new();
    for file in files("shared/src") {
        if !PURE.contains(&module(&file.path)) {
            continue;
        }
        for (number, line) in code(&file) {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                wrong.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    none(
        "time, chance or the network in a layer that computes",
        wrong,
    );
}

#[test]
fn each_aws_service_is_known_in_one_place() {
    const PLACES: [&str; 4] = [
        "shared/src/store/dynamo.rs",
        "shared/src/queue.rs",
        "shared/src/bus.rs",
        "shared/src/secrets.rs",
    ];
    const CRATES: [&str; 4] = ["aws_sdk_", "aws_config", "aws_lambda_events", "lambda_"];
    let mut wrong = Vec::new();
    for file in files("shared/src") {
        let known = PLACES.contains(&file.path.as_str());
        if file.path.starts_with("shared/src/runtime/") {
            continue;
        }
        for (number, line) in code(&file) {
            for word in CRATES.iter().filter(|word| names(line, word)) {
                // A service's own module knows its SDK, but not Lambda.
                if !known || matches!(*word, "aws_lambda_events" | "lambda_") {
                    wrong.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    none(
        "AWS crates outside the modules that are made for them",
        wrong,
    );
}

#[test]
fn function_binaries_only_say_which_entry_they_are() {
    let mut wrong = Vec::new();
    let binaries = files("functions/src");
    assert!(!binaries.is_empty());
    for file in binaries {
        let docs = file
            .lines()
            .filter(|(_, line)| line.starts_with("//!"))
            .count();
        if docs != 1 {
            wrong.push(format!("{} has {docs} doc lines, not one", file.path));
        }
        if file.lines().count() > 30 {
            wrong.push(format!("{} has more than 30 lines", file.path));
        }
        for (number, line) in code(&file) {
            for word in ["match", "env", "if "] {
                if names(line, word) || line.contains(&format!("::{word}")) {
                    wrong.push(format!("{}:{number}: {word}", file.path));
                }
            }
        }
    }
    none("functions that think", wrong);
}

/// A provider that can be connected has a manifest; one that is synced has its settings, maps, lists and faults
/// beside, and one that sends us webhooks what reads them.
#[test]
fn every_provider_has_the_same_files() {
    let mut folders = std::collections::BTreeMap::<String, BTreeSet<String>>::new();
    for file in files("shared/src/providers") {
        let inside = file.path.trim_start_matches("shared/src/providers/");
        if let Some((provider, name)) = inside.split_once('/')
            && name != "tests.rs"
        {
            folders
                .entry(provider.to_owned())
                .or_default()
                .insert(name.to_owned());
        }
    }
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let (connected, synced): (BTreeSet<String>, BTreeSet<String>) = (
        set(&["mod.rs"]),
        set(&[
            "changes.rs",
            "fault.rs",
            "list.rs",
            "map.rs",
            "mod.rs",
            "settings.rs",
            "taxes.rs",
        ]),
    );
    let wrong = folders.iter().filter(|(name, found)| {
        let provider = crossdock::providers::provider(name);
        let hooks = provider.is_some_and(|provider| provider.hooks().is_some());
        let mut rest = (*found).clone();
        rest.remove("webhook.rs") != hooks || rest != connected && rest != synced
    });
    let wrong = wrong.map(|(provider, found)| format!("{provider} has {found:?}"));
    none("providers with other files", wrong.collect());
}
