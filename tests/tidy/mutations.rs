//! The breaks of the engine that the simulation has to catch: each can still be made.

use super::repository::read;
use serde::Deserialize;
use std::collections::BTreeSet;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutation {
    name: String,
    breaks: String,
    file: String,
    find: String,
    broken: String,
    #[serde(default)]
    seen_by: Option<String>,
}

#[test]
fn every_break_can_still_be_made() {
    let text = read("tests/mutations/mutations.yaml");
    let all: Vec<Mutation> = serde_yaml_ng::from_str(&text).expect("a list of breaks");
    let mut names = BTreeSet::new();
    let mut wrong = Vec::new();
    for one in &all {
        let found = read(&one.file).matches(one.find.trim_end()).count();
        if found != 1 {
            wrong.push(format!(
                "{}: its text stands {found} times in {}",
                one.name, one.file
            ));
        }
        if let Some(test) = &one.seen_by {
            let (module, name) = test.rsplit_once("::").unwrap_or(("main", test));
            let text = read(&format!("tests/sim/{module}.rs"));
            if !text.contains(&format!("\nfn {name}()")) {
                wrong.push(format!("{}: there is no test {test}", one.name));
            }
        }
        if !names.insert(&one.name) || one.breaks.is_empty() || one.broken.is_empty() {
            wrong.push(format!("{}: twice, or without words", one.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(all.len() >= 15, "only {} breaks are left", all.len());
}
