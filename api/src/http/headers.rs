//! Headers that keep browsers from doing with our answers what nobody meant.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::client::Client;

/// An answer is data: nothing in it may be run, shown in a frame, or load anything.
const DATA: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// The pages of the API reference: what they load lies beside them. Swagger UI writes style attributes and has
/// its icons in `data:` addresses.
const REFERENCE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

/// A year, for this name alone: names below it may belong to somebody else.
const TLS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

const ALWAYS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// What an answer may be used for, decided by its request.
#[derive(Debug, Clone, Copy)]
pub(super) struct SecurityHeaders {
    reference: bool,
    secure_transport: bool,
}

impl SecurityHeaders {
    pub(super) fn new(path: &str, client: Client) -> Self {
        Self { reference: path.starts_with("/docs/"), secure_transport: client.secure_transport }
    }

    /// Adds them. A handler may have said something stricter or wider of what its page loads.
    pub(super) fn add(self, headers: &mut HeaderMap) {
        for (name, value) in ALWAYS {
            headers.insert(name, value);
        }
        let content = if self.reference { REFERENCE } else { DATA };
        headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(content);
        if self.secure_transport {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, TLS_ONLY);
        }
    }
}
