//! The sync engine at work: it reads records and ledger, lets `sync` decide and a provider build the
//! requests, sends them, and stores what came of it.

pub mod accounts;
pub mod again;
pub mod backfill;
pub mod budget;
pub mod count;
pub mod daily;
mod dependencies;
pub mod hooks;
mod known;
pub mod ledger;
pub mod outbox;
pub mod pull;
pub mod push;
pub mod reconcile;
pub mod refresh;
pub mod resync;
pub mod rotation;
pub mod session;
mod two_ways;
mod waiting;
mod writes;
