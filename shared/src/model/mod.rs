//! The canonical commerce model: values in, values out. Nothing here reads a clock, draws a random
//! number or does I/O.

pub mod allocate;
pub mod channel;
pub mod event;
pub mod goods;
pub mod http;
pub mod ids;
pub mod money;
pub mod notice;
pub mod order;
pub mod order_record;
pub mod payout;
pub mod people;
pub mod summary;
pub mod text;
pub mod wire;
