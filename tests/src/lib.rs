//! What stands around the functions on a developer's machine: the local stack, the provider
//! stand-ins, the demonstration, and what carries credentials into a stack's secrets.

use std::io::Write as _;

pub mod configure;
pub mod demo;
pub mod stack;
pub mod standins;

/// Prints a line for whoever reads, who may have gone, as `head` does: that ends the printing, and not the
/// work of which it tells.
pub fn show(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
