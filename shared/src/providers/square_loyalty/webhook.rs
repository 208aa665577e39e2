//! Square Loyalty's webhooks are Square's, of a subscription of their own.

pub use crate::providers::square::webhook::Webhooks;
