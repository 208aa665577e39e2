//! The sync engine at work: it reads records and ledger, lets `sync` decide and a provider build the
//! requests, sends them, and stores what came of it.

pub mod budget;
mod dependencies;
pub mod hooks;
pub mod outbox;
pub mod push;
pub mod refresh;
pub mod rotation;
mod session;
mod waiting;
