//! Outbound webhooks: endpoints, fan-out of an event to the endpoints that want it, and delivery,
//! signed after the Standard Webhooks specification
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

mod asymmetric;
pub mod deliver;
pub mod endpoint;
pub mod fanout;
pub mod feed;
pub mod filter;
mod health;
mod order;
mod pace;
pub mod recover;
pub mod samples;
pub mod schedule;
pub mod stats;
