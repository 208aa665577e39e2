//! Wall clocks that are wrong, for processes that a [`Host`](super::host::Host) starts. Nothing of it is in the
//! program under test: a small library of C, compiled here, stands before libc's clock.
//!
//! *Weighed against* libfaketime: its package brings a library for one processor, and each process
//! that is killed leaves shared memory behind. What is needed of it is three functions.

use std::fs;
use std::path::PathBuf;

use tokio::process::Command;

use super::host::Host;
use super::{Stack, Trouble};

/// One wall clock, which any number of processes share.
pub struct Clock {
    library: PathBuf,
    /// Holds the seconds by which it is wrong.
    file: PathBuf,
}

impl Clock {
    /// A clock that is `seconds` ahead of the machine's, behind it if negative.
    ///
    /// # Errors
    /// Where there is no C compiler, or the stack's directory cannot be written.
    pub async fn new(stack: &Stack, name: &str, seconds: i64) -> Result<Self, Trouble> {
        let directory = &stack.config.directory;
        let clock = Self {
            library: directory.join("clock.so"),
            file: directory.join(format!("clock.{name}")),
        };
        if !clock.library.exists() {
            compile(stack, &clock.library).await?;
        }
        clock.set(seconds)?;
        Ok(clock)
    }

    /// Lets the clock jump: from now on it is `seconds` ahead of the machine's.
    pub fn set(&self, seconds: i64) -> Result<(), Trouble> {
        // Another file in its place, so that nobody reads half a number.
        let next = self.file.with_extension("next");
        let written = fs::write(&next, seconds.to_string());
        let moved = written.and_then(|()| fs::rename(&next, &self.file));
        moved.map_err(|error| Trouble::io(format!("Cannot write {}", self.file.display()), &error))
    }

    /// Gives this clock to the processes that `host` starts from now on.
    pub fn give(&self, host: &mut Host) {
        host.set("LD_PRELOAD", self.library.display().to_string());
        host.set("CROSSDOCK_CLOCK_FILE", self.file.display().to_string());
    }
}

async fn compile(stack: &Stack, library: &PathBuf) -> Result<(), Trouble> {
    let source = stack.config.root.join("tests/stack/clock.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"])
        .args([library, &source])
        .arg("-ldl")
        .status()
        .await;
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Trouble::new(
        format!("`cc` could not compile {}.", source.display()),
        "It is the C compiler (Debian's packages gcc and libc6-dev).",
    ))
}
