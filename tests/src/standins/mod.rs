//! Provider stand-ins.

pub mod quickbooks;
