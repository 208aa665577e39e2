//! What a person is told when something does not work: what happened, and what to do.

use std::fmt;

/// An error for the person at the terminal.
#[derive(Debug)]
pub struct Trouble {
    what: String,
    next: Option<String>,
}

impl Trouble {
    /// What happened, and what to do about it.
    pub fn new(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next: Some(next.into()),
        }
    }

    /// What happened, where it says by itself what to do.
    pub fn plain(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            next: None,
        }
    }

    /// A file or a process that could not be used.
    pub(crate) fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self::plain(format!("{what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.what)?;
        match &self.next {
            Some(next) => write!(formatter, "\n{next}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Trouble {}
