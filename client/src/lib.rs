//! Talks to the API of a Cumulo cloud, as any program may: signs in, repeats what got no answer, follows pages,
//! operations and events.
//!
//! Bodies are JSON values. What they look like says `openapi/cumulo.json`, which the command line reads, too.

mod contexts;
mod error;
mod events;
mod operations;
mod pages;
mod paths;
mod requests;
mod sessions;
mod uploads;
mod websocket;

pub use contexts::{Context, Contexts, Given, Place};
pub use error::{Denial, Error, ExceededLimit, FieldError, Problem, Result, Statement};
pub use events::{Event, EventStream};
pub use operations::{Failed, Operation, Step, operation_of};
pub use pages::Pages;
pub use paths::segment;
pub use requests::{Answer, Body, Client, Request};
pub use reqwest::Method;
pub use sessions::{Credential, Session, SessionFile, SignedIn, Tokens};
pub use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};
pub use uploads::digest;
pub use websocket::WebSocket;
