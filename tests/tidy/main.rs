//! Rules that this repository keeps, as tests: what a reviewer would have to remember is read from
//! the sources instead.

mod layers;
mod mutations;
mod openapi;
mod providers;
mod repository;
mod samples;
mod stack_template;
mod words;
