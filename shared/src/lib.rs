//! The common crate of Crossdock. Modules import leftwards only, in this order; a test reads the
//! `use` lines to prove it:
//!
//! `error` ← `model` ← `sync` ← `providers` ← `store` `secrets` `queue` `bus` `net` ← `config` ←
//! `ctx` ← `oauth` ← `webhooks` ← `engine` ← `portal` ← `api` ← `runtime`

pub mod api;
pub mod bus;
pub mod config;
pub mod ctx;
pub mod engine;
pub mod error;
pub mod model;
pub mod net;
pub mod oauth;
pub mod portal;
pub mod providers;
pub mod queue;
pub mod runtime;
pub mod secrets;
pub mod store;
pub mod sync;
pub mod webhooks;
