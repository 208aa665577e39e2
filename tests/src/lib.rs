//! What stands around the functions on a developer's machine: the local stack, the provider
//! stand-ins, the demonstration, and what carries credentials into a stack's secrets.

pub mod configure;
pub mod demo;
pub mod stack;
pub mod standins;
