//! The rules of consoles. No I/O.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::Rng;
use sha2::{Digest, Sha256};
use time::Duration;

/// How long a ticket may be used.
pub(super) const TICKET_LIFETIME: Duration = Duration::seconds(60);
/// A session of which its replica has said nothing for so long is over.
pub(super) const UNHEARD_AFTER: Duration = Duration::seconds(60);
/// Open at once, by whomever: of an instance, and by a principal.
pub(super) const MAX_OF_INSTANCE: i64 = 4;
pub(super) const MAX_OF_PRINCIPAL: i64 = 16;
/// Tickets of a principal that are not used yet.
pub(super) const MAX_TICKETS: i64 = 64;

/// The subprotocol that is spoken: bytes in binary messages, as noVNC and websockify have it.
pub(super) const BINARY: &str = "binary";
const TICKET_PREFIX: &str = "cumulo.ticket.";

/// A ticket, for as long as it takes to hand it over.
pub(super) struct Ticket(String);

impl Ticket {
    /// 256 random bits.
    pub(super) fn generate() -> Self {
        let mut secret = [0; 32];
        rand::rng().fill_bytes(&mut secret);
        Self(URL_SAFE_NO_PAD.encode(secret))
    }

    /// The ticket among the subprotocols that a client offers, if it also offers to speak in bytes.
    pub(super) fn offered(headers: &HeaderMap) -> Option<Self> {
        let lines = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let offered: Vec<_> = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(str::trim)
            .collect();
        let ticket = offered.iter().find_map(|one| one.strip_prefix(TICKET_PREFIX));
        ticket.filter(|_| offered.contains(&BINARY)).map(|ticket| Self(ticket.to_owned()))
    }

    /// What is stored of it: it is random, so a plain hash is enough.
    pub(super) fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// What a client has to offer.
    pub(super) fn subprotocols(&self) -> [String; 2] {
        [BINARY.to_owned(), format!("{TICKET_PREFIX}{}", self.0)]
    }
}

/// Why a session is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client closed it, or has gone.
    Closed,
    /// The host closed it: the guest has ended, or its display.
    HostEnded,
    CredentialEnded,
    RightLost,
    InstanceStopped,
    /// It has lasted as long as one may.
    TimeOver,
    /// The client did not answer, or did not take what was sent.
    ClientStuck,
    HostStuck,
    /// Whether the caller still may could not be found out.
    Unverified,
    /// The replica shuts down.
    Shutdown,
    /// Its replica has gone, and the row was found.
    Lost,
}

impl End {
    /// As the audit log and the metrics have it.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HostEnded => "host_ended",
            Self::CredentialEnded => "credential_ended",
            Self::RightLost => "right_lost",
            Self::InstanceStopped => "instance_stopped",
            Self::TimeOver => "time_over",
            Self::ClientStuck => "client_stuck",
            Self::HostStuck => "host_stuck",
            Self::Unverified => "unverified",
            Self::Shutdown => "shutdown",
            Self::Lost => "lost",
        }
    }

    /// The status code of the WebSocket's closing (RFC 6455, section 7.4); those from 4000 on are ours.
    pub(super) const fn code(self) -> u16 {
        match self {
            Self::Closed | Self::HostEnded => 1000,
            Self::Shutdown | Self::Lost => 1001,
            Self::Unverified | Self::HostStuck => 1011,
            Self::CredentialEnded => 4401,
            Self::RightLost => 4403,
            Self::TimeOver | Self::ClientStuck => 4408,
            Self::InstanceStopped => 4409,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(lines: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, line.parse().unwrap());
        }
        Ticket::offered(&headers).map(|ticket| ticket.0)
    }

    #[test]
    fn a_ticket_is_found_among_subprotocols() {
        let ticket = Ticket::generate();
        let lines = ticket.subprotocols();
        assert_eq!(offered(&[&lines.join(", ")]), Some(ticket.0.clone()));
        assert_eq!(offered(&[&lines[1], &lines[0]]), Some(ticket.0.clone()));
        for lines in [&[][..], &["binary"], &[&lines[1]], &["binary, ticket.x"]] {
            assert_eq!(offered(lines), None, "{lines:?}");
        }
        // RFC 6455 wants a token (RFC 9110, section 5.6.2).
        assert!(lines[1].bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
        assert_ne!(ticket.0, Ticket::generate().0);
    }
}
