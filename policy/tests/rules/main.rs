//! The rules of the language as tables: what a good document means.

mod common;
mod conditions;
mod evaluation;
mod examples;
mod foresight;
mod hostile;
mod worst;
