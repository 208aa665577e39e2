//! What no file says.

use crate::repository::{File, code, files, none};

fn all() -> Vec<File> {
    let files = files(".");
    assert!(files.len() > 50, "the checkout was not read");
    files
}

/// Lines that hold one of `words`.
fn holding(files: &[File], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.lines() {
            for word in words.iter().filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number}: {word}", file.path));
            }
        }
    }
    found
}

// The words are written in two parts, so that these lists do not find themselves.

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    none(
        "work that is not done and not an issue",
        holding(&all(), &words),
    );
}

#[test]
fn no_test_is_left_out() {
    let words = [
        concat!("#[", "ignore"),
        concat!("pytest.mark", ".skip("),
        concat!("pytest.mark", ".xfail"),
    ];
    none("tests that never run", holding(&all(), &words));
}

#[test]
fn nothing_names_a_place_on_one_machine() {
    let words = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
    ];
    none("paths of one machine", holding(&all(), &words));
}

/// Where packages come from is a setting of the machine: a mirror's address would bind everybody
/// to it. `Cargo.lock` names the public index, as cargo writes it for every mirror.
#[test]
fn nothing_names_a_package_mirror() {
    let words = [
        concat!("artif", "actory"),
        concat!("--index", "-url"),
        concat!("--extra-index", "-url"),
        concat!("\"resol", "ved\": \"http"),
        concat!("pythonhosted", ".org"),
        concat!("registry.npmjs", ".org"),
        concat!("static.crates", ".io"),
        concat!("index.crates", ".io"),
    ];
    none("addresses of package registries", holding(&all(), &words));
}

#[test]
fn every_lint_exception_has_a_reason() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in all().iter().filter(|file| file.path.ends_with(".rs")) {
        for opening in ["#[allow(", "#![allow(", "#[expect(", "#![expect("] {
            // Only at the start of a line is it an attribute and not a text.
            for (at, _) in file.text.match_indices(opening) {
                let line = file.text[..at].rsplit('\n').next().unwrap_or_default();
                if !line.trim().is_empty() {
                    continue;
                }
                seen += 1;
                let end = file.text[at..]
                    .find(")]")
                    .map_or(file.text.len(), |end| at + end);
                if !file.text[at..end].contains("reason = \"") {
                    let number = file.text[..at].matches('\n').count() + 1;
                    wrong.push(format!("{}:{number}: {opening}…", file.path));
                }
            }
        }
    }
    assert!(seen > 0, "no exception was read");
    none("lint exceptions without a reason", wrong);
}

/// Every variable has a use besides its line in the list.
#[test]
fn every_variable_is_used() {
    let sources = files("shared/src");
    let used = |text: &str| {
        sources.iter().any(|file| {
            code(file)
                .iter()
                .any(|(_, line)| line.contains(text) && !line.contains("name: \""))
        })
    };
    // The one variable that is named after what it is for.
    let of_provider = |name: &str| {
        let provider = name
            .strip_prefix("QUEUE_SYNC_")
            .and_then(|name| name.strip_suffix("_URL"));
        provider.is_some_and(|provider| {
            crossdock::providers::provider(&provider.to_ascii_lowercase()).is_some()
        }) && used("\"QUEUE_SYNC_{}_URL\"")
    };
    let mut wrong = Vec::new();
    for (name, meaning) in crossdock::config::variables() {
        if meaning.is_empty() {
            wrong.push(format!("{name} has no meaning"));
        }
        if !used(&format!("\"{name}\"")) && !of_provider(&name) {
            wrong.push(name);
        }
    }
    none("variables that nothing reads", wrong);
}
