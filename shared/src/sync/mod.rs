//! The sync engine's decisions, without I/O: given what stands here and what is known to stand
//! there, what is the next step?

pub mod budget;
pub mod changed;
pub mod conflict;
pub mod delivery;
pub mod push;
pub mod reconcile;
