//! The wire of consoles.

use protocol::ConsoleId;
use protocol::agent::ConsoleKind;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::instances::Reference;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateConsole {
    pub kind: ConsoleKind,
}

/// What opens a console, once.
#[derive(Debug, Serialize, ToSchema)]
pub struct Console {
    pub id: ConsoleId,
    pub kind: ConsoleKind,
    pub instance: Reference,
    /// Where to open a WebSocket. Holds no secret.
    #[schema(example = "wss://cloud.example/v1/consoles/0190a0a0-0000-7000-8000-000000000000")]
    pub url: String,
    /// Offer these as the WebSocket's subprotocols: `new WebSocket(url, subprotocols)`. The second one is the ticket,
    /// which works once. Absent in the answer to a repeated request: ask with another `Idempotency-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["binary", "cumulo.ticket.pWm8…"]))]
    pub subprotocols: Option<[String; 2]>,
    /// When the ticket does not open the console any more.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}
