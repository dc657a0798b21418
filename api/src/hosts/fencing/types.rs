//! What operators read of fencing.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FencingState {
    /// The program is at work.
    Running,
    /// It did not say that the host is off; it is called again at `next_at`.
    Failed,
    /// The host is not switched off, for the reason in `detail`.
    Held,
    /// It is off, so the program, and was declared dead by that.
    Off,
}

/// As `fencing_of()` of the database gives it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HostFencing {
    pub state: FencingState,
    /// Why it failed, with the end of what the program wrote, or why the host is not switched off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// How often the program was called since the host fell silent.
    pub attempts: i32,
    /// When it was called last.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub started_at: Option<OffsetDateTime>,
    /// When it is called again.
    #[serde(default, with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub next_at: Option<OffsetDateTime>,
}
