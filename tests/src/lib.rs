//! What stands around the functions on a developer's machine: the local stack, the provider
//! stand-ins and the demonstration.

pub mod demo;
pub mod stack;
pub mod standins;
