//! The demonstration: the commerce backend, the merchant's browser and the developer played over
//! HTTP against the running stack, and both sides' books compared at the end.
//!
//! Nothing here shares code with the functions. What it expects is computed from what it sent and
//! what was answered with "accepted"; what it finds is read back from the QuickBooks stand-in and
//! from the sample developer's receiver.

mod books;
mod browser;
mod client;
mod connections;
pub mod plan;
mod report;
pub mod retail;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::show as say;

/// What the demonstration tells, and to whom.
#[derive(Debug, Default)]
pub struct Options {
    /// A `.csv.gz` of invoices, instead of the samples of this repository.
    pub data: Option<PathBuf>,
    /// Only the first invoices of `data`, in the order of the file.
    pub limit: Option<usize>,
    /// The key of the commerce backend; the environment variable `PLATFORM_KEY` stands in for it.
    pub platform_key: Option<String>,
}

/// An error that ends the demonstration: it is shown to a person and to nobody else.
type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Tells the whole story. Succeeds only if everything that was accepted is in the merchant's books
/// to the penny, once, and every webhook arrived and verified.
pub async fn run(options: Options) -> ExitCode {
    match story::tell(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("\nThe demonstration stopped: {}", chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
