//! What a host is asked for while somebody waits: a console, or what is on its display.
//!
//! ```text
//! DesiredPage.requests: OpenConsole   the agent opens the console of the guest, and dials
//! GET  /agent/v1/consoles/{id}?epoch  with `Upgrade: cumulo-console` -> 101, then the console's bytes, both ways
//! DesiredPage.requests: Screenshot
//! POST /agent/v1/transfers/{id}?epoch bytes -> 204
//! POST /agent/v1/requests/{id}/refusal?epoch   Refusal -> 204   (or says why it does not)
//! ```
//!
//! A request is carried out once and not repeated: whoever waits for it asks again.

use serde::{Deserialize, Serialize};

use crate::agent::Epoch;
use crate::{ConsoleId, InstanceId, TransferId};

/// What the connection of a console's bytes is upgraded to.
pub const CONSOLE_PROTOCOL: &str = "cumulo-console";

/// The longest screenshot that an agent sends.
pub const MAX_SCREENSHOT_BYTES: usize = 1 << 20;
/// The widest and the highest display of which one is taken, in pixels.
pub const MAX_SCREEN_PIXELS: u32 = 4096;

/// Which console of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConsoleKind {
    /// The display with keyboard and mouse, by the RFB protocol (RFC 6143) without a password.
    Vnc,
    /// The first serial port: the bytes as they are.
    Serial,
}

impl ConsoleKind {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vnc => "vnc",
            Self::Serial => "serial",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Vnc, Self::Serial].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One thing that the control plane asks for. What an agent does not know, it passes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum HostRequest {
    OpenConsole {
        id: ConsoleId,
        instance_id: InstanceId,
        console: ConsoleKind,
        /// The control plane's replica at which the console is waited for, `https://HOST:PORT`; without it, the
        /// address that the agent always uses.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        dial: Option<String>,
        /// The agent ends it after this time by itself.
        max_seconds: u32,
    },
    /// Post what the display shows to `/agent/v1/transfers/{id}`: a PNG of at most so many bytes, made smaller when
    /// it has more.
    Screenshot { id: TransferId, instance_id: InstanceId, max_bytes: u32 },
    /// Of a later release.
    #[serde(other)]
    Unknown,
}

/// The query of what concerns one request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestQuery {
    pub epoch: Epoch,
}

/// Why a host does not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub reason: RefusalReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// No guest of the instance runs here.
    NotRunning,
    /// The guest was started without a display.
    NoDisplay,
    /// Somebody has it, or the host has too many of its kind.
    Busy,
    /// Something else, which the host's log tells.
    #[serde(other)]
    Failed,
}

impl RefusalReason {
    /// The wire form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not_running",
            Self::NoDisplay => "no_display",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }

    /// The reason of this name.
    pub fn from_name(name: &str) -> Self {
        let known = [Self::NotRunning, Self::NoDisplay, Self::Busy];
        known.into_iter().find(|reason| reason.as_str() == name).unwrap_or(Self::Failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_release_asks_for_is_passed_over() {
        let page = r#"{"revision":3,"complete":false,"objects":[],"requests":[{"request":"sing","song":1}]}"#;
        let page: crate::agent::DesiredPage = serde_json::from_str(page).unwrap();
        assert_eq!(page.requests, [HostRequest::Unknown]);
        let earlier = r#"{"revision":3,"complete":false,"objects":[]}"#;
        assert!(serde_json::from_str::<crate::agent::DesiredPage>(earlier).unwrap().requests.is_empty());
        let refusal: Refusal = serde_json::from_str(r#"{"reason":"tired"}"#).unwrap();
        assert_eq!(refusal.reason, RefusalReason::Failed);
    }
}
