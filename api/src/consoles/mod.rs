//! Consoles of instances: the display and the serial port, by WebSocket, and pictures of the display.
//!
//! A caller who may `compute:OpenConsole` gets a ticket ([`routes`]), which opens one console once and within a minute
//! ([`connect`]). The replica at which that happens asks the instance's host to dial it, and where the two halves meet
//! ([`meeting`]) bytes flow both ways ([`session`]), until one side ends or the caller may not any more.
//! Which console is open is a row ([`store`]); when one begins and ends is in the audit log ([`records`]).

mod connect;
mod meeting;
mod model;
mod options;
mod reconcile;
mod records;
mod routes;
mod screenshot;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod types;

pub use meeting::Consoles;
pub use options::ConsoleOptions;
pub(crate) use reconcile::sweep;
pub(crate) use routes::router;
