//! The files of the checkout.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that are built or installed, and belong to no repository.
const NOT_OURS: [&str; 8] = [
    ".git",
    ".local",
    ".aws-sam",
    ".pytest_cache",
    ".ruff_cache",
    "__pycache__",
    "node_modules",
    "target",
];

/// The top of the checkout.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// One text file: its path from the top, with `/`, and what it holds.
pub struct File {
    pub path: String,
    pub text: String,
}

impl File {
    /// The lines with their numbers, from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// Reads the file at `path`.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every text file under `folder`, by path. What is no UTF-8 is no text.
pub fn files(folder: &str) -> Vec<File> {
    let mut found = Vec::new();
    walk(&root().join(folder), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(folder: &Path, found: &mut Vec<File>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if NOT_OURS.iter().any(|other| name == *other) {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else if let Ok(text) = fs::read_to_string(&path) {
            let inside = path
                .strip_prefix(root())
                .expect("every file is below the top");
            let path = inside.to_string_lossy().replace('\\', "/");
            found.push(File { path, text });
        }
    }
}

/// The lines of Rust code that run in production: without comments, and without the item under
/// `#[cfg(test)]`. An item of several lines ends, as the formatter indents it, with a line that
/// closes it; any other ends with its first line.
pub fn code(file: &File) -> Vec<(usize, &str)> {
    let mut kept = Vec::new();
    let mut lines = file.lines();
    while let Some((number, line)) = lines.next() {
        let text = line.trim_start();
        if text.starts_with("//") {
            continue;
        }
        if text != "#[cfg(test)]" {
            kept.push((number, line));
            continue;
        }
        let close = format!("{}}}", &line[..line.len() - text.len()]);
        let mut item = lines
            .by_ref()
            .skip_while(|(_, line)| line.trim_start().starts_with(['#', '/']));
        let opens = item.next().is_some_and(|(_, line)| line.ends_with('{'));
        if opens {
            item.find(|(_, line)| *line == close);
        }
    }
    kept
}

/// Fails with everything that is wrong, one line each.
pub fn none(what: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}
