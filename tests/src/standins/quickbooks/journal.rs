//! The journal that survives a kill.
//!
//! A request's changes are one line, written before its answer leaves. A line that a kill cut
//! short is a request that never happened: neither its entities nor its stored answer are there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;

use super::state::{Change, State};
use crate::standins::damaged;

pub struct Journal {
    file: File,
}

impl Journal {
    /// Reads what is there, rewrites it without its history, and opens it for more.
    pub fn open(folder: &Path) -> io::Result<(State, Self)> {
        fs::create_dir_all(folder)?;
        let path = folder.join("quickbooks.jsonl");
        let mut state = State::default();
        if path.exists() {
            read(&path, &mut state)?;
            let fresh = folder.join("quickbooks.jsonl.new");
            rewrite(&fresh, &state)?;
            fs::rename(&fresh, &path)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        state.journaled = true;
        Ok((state, Self { file }))
    }

    pub fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.file.write_all(line)
    }
}

fn read(path: &Path, state: &mut State) -> io::Result<()> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
        let changes: Vec<Change> =
            serde_json::from_slice(&line).map_err(|error| damaged(path, &error))?;
        changes.into_iter().for_each(|change| state.apply(change));
        line.clear();
    }
    Ok(())
}

fn rewrite(path: &Path, state: &State) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    if !state.companies.is_empty() {
        state.each(|change| {
            serde_json::to_writer(&mut file, &[change])?;
            file.write_all(b"\n")
        })?;
    }
    file.into_inner()?.sync_all()
}
