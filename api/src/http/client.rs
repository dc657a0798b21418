//! Who is at the other end of a request, seen through the proxies that the operator trusts.
//!
//! A proxy appends the address that it saw to `X-Forwarded-For`, so the header is true from the right, and
//! only as far as every machine on the way is one of ours: the first address that is not a trusted proxy's
//! is the client, and whatever stands left of it is what that client wrote.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::net::{Peer, TrustedProxies};
use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client of a request. The outermost layer puts one into the extensions of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// Canonical: never an IPv4 address in IPv6 clothes.
    pub address: IpAddr,
    /// Whether nobody on the client's network could read along: TLS, ours or that of a trusted proxy.
    pub secure_transport: bool,
}

impl Default for Client {
    /// A request without a connection, as in tests.
    fn default() -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::LOCALHOST), secure_transport: false }
    }
}

impl Client {
    /// The client that the outermost layer found.
    pub(crate) fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or_default()
    }

    /// Finds the client of a request that has just come in.
    pub(super) fn find(extensions: &Extensions, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let Some(ConnectInfo(peer)) = extensions.get::<ConnectInfo<Peer>>() else { return Self::default() };
        let address = peer.address.ip().to_canonical();
        if !trusted.contains(address) {
            return Self { address, secure_transport: peer.tls };
        }
        let secure_transport = forwarded_secure(headers).unwrap_or(peer.tls);
        Self { address: forwarded_for(address, headers, trusted), secure_transport }
    }
}

/// Walks from the trusted proxy that connected to the first address that is not one.
fn forwarded_for(connected: IpAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> IpAddr {
    let mut address = connected;
    for line in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for entry in line.as_bytes().rsplit(|byte| *byte == b',') {
            // What a proxy could not say properly vouches for nothing to its left.
            let Some(next) = parse_entry(entry) else { return address };
            address = next;
            if !trusted.contains(address) {
                return address;
            }
        }
    }
    address
}

/// An address; some proxies add the port.
fn parse_entry(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim();
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bracketed.unwrap_or(text).parse::<IpAddr>();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// What the proxies say of the way to them, if anything. Where several say something, all have to agree: a
/// proxy that appends would otherwise let the client speak for it.
fn forwarded_secure(headers: &HeaderMap) -> Option<bool> {
    let mut lines = headers.get_all(X_FORWARDED_PROTO).iter().peekable();
    lines.peek()?;
    let is_https = |entry: &[u8]| entry.trim_ascii().eq_ignore_ascii_case(b"https");
    Some(lines.all(|line| line.as_bytes().split(|byte| *byte == b',').all(is_https)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXIES: &str = "10.0.0.0/8, 192.0.2.7,2001:db8:1::/48";

    /// The address and the transport of a request from `peer` with these header lines.
    fn find(peer: &str, tls: bool, lines: &[(HeaderName, &str)]) -> (String, bool) {
        let mut extensions = Extensions::new();
        let address = SocketAddr::new(peer.parse().unwrap(), 1);
        extensions.insert(ConnectInfo(Peer { address, tls, host: None }));
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let client = Client::find(&extensions, &headers, &PROXIES.parse().unwrap());
        (client.address.to_string(), client.secure_transport)
    }

    fn address(peer: &str, lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| (X_FORWARDED_FOR, *line)).collect();
        find(peer, false, &lines).0
    }

    #[test]
    fn the_client_is_the_first_stranger_from_the_right() {
        for (peer, lines, expected) in [
            ("203.0.113.9", &[][..], "203.0.113.9"),
            // Nobody is believed who is not trusted.
            ("203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6,198.51.100.1 , 10.9.9.9"], "198.51.100.1"),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.1", "10.9.9.9, 192.0.2.7"], "198.51.100.1"),
            // All of them ours: the one farthest away.
            ("10.0.0.1", &["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
            // With ports, brackets and clothes.
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("2001:db8:1::5", &["[2001:db8:9::1]:443"], "2001:db8:9::1"),
            ("2001:db8:1::5", &["[2001:db8:9::1]"], "2001:db8:9::1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9"),
        ] {
            assert_eq!(address(peer, lines), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn nothing_is_believed_beyond_what_cannot_be_read() {
        for (line, expected) in [
            ("198.51.100.1, unknown", "10.0.0.1"),
            ("198.51.100.1, unknown, 10.5.5.5", "10.5.5.5"),
            ("198.51.100.1,", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("198.51.100.1, 10.0.0.999", "10.0.0.1"),
            ("198.51.100.1, \u{fc}", "10.0.0.1"),
            ("198.51.100.1, _hidden", "10.0.0.1"),
        ] {
            assert_eq!(address("10.0.0.1", &[line]), expected, "{line}");
        }
    }

    #[test]
    fn only_a_trusted_proxy_vouches_for_the_transport() {
        let secure = |peer, tls, values: &[&str]| {
            let lines: Vec<_> = values.iter().map(|value| (X_FORWARDED_PROTO, *value)).collect();
            find(peer, tls, &lines).1
        };
        assert!(secure("203.0.113.9", true, &[]));
        assert!(secure("203.0.113.9", true, &["http"]));
        assert!(!secure("203.0.113.9", false, &["https"]));
        assert!(secure("10.0.0.1", false, &["https"]));
        assert!(secure("10.0.0.1", false, &["HTTPS , https", "https"]));
        assert!(!secure("10.0.0.1", false, &["https, http"]));
        assert!(!secure("10.0.0.1", false, &["https", "http"]));
        assert!(!secure("10.0.0.1", true, &["http"]));
        assert!(!secure("10.0.0.1", true, &[""]));
        assert!(secure("10.0.0.1", true, &[]));
    }
}
