//! From a request to its answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Response, StatusCode};
use protocol::Vni;

use super::tokens::Tokens;
use super::tree::{Subject, below_version, read};
use crate::clock::SharedClock;
use crate::desired::{DesiredStore, Wanted};
use crate::networks::NetworkStore;

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// Set by a proxy, which has no business here.
const FORWARDED: &str = "x-forwarded-for";
const TTL_SECONDS: std::ops::RangeInclusive<u64> = 1..=21_600;

pub(super) type Answer = Response<Full<Bytes>>;

/// See the module.
pub struct Metadata {
    networks: Arc<NetworkStore>,
    desired: Arc<DesiredStore>,
    clock: SharedClock,
    tokens: Tokens,
}

/// A request as far as it matters.
pub(super) struct Question<'a> {
    /// The network that it came from.
    pub vni: Vni,
    pub source: IpAddr,
    pub method: &'a Method,
    pub path: &'a str,
    pub headers: &'a HeaderMap,
}

impl Metadata {
    pub fn new(networks: Arc<NetworkStore>, desired: Arc<DesiredStore>, clock: SharedClock) -> Self {
        Self { networks, desired, clock, tokens: Tokens::default() }
    }

    pub(super) fn answer(&self, question: &Question<'_>) -> Answer {
        let Some(stored) = self.networks.get() else { return empty(StatusCode::NOT_FOUND) };
        let document = &stored.networks;
        let found =
            document.networks.iter().find(|network| network.vni == question.vni).and_then(|network| {
                let asks = |port: &&protocol::agent::Port| {
                    port.addresses.iter().any(|address| address.address == question.source)
                };
                Some((network, network.ports.iter().find(asks)?))
            });
        let Some((network, port)) = found else { return empty(StatusCode::NOT_FOUND) };
        match *question.method {
            Method::PUT if below_version(question.path) == Some("api/token") => {
                self.token(port.id, question.headers)
            }
            Method::GET | Method::HEAD => {
                let token = question.headers.get(TOKEN).map(HeaderValue::as_bytes);
                if !token.is_some_and(|token| self.tokens.is_valid(token, port.id, self.clock.now())) {
                    return empty(StatusCode::UNAUTHORIZED);
                }
                let wanted = self.desired.get(port.instance_id);
                let Some(Wanted::Instance(spec)) = wanted.as_deref() else {
                    return empty(StatusCode::NOT_FOUND);
                };
                match read(&Subject { document, network, port, spec }, question.path) {
                    Some(found) => with_text(found),
                    None => empty(StatusCode::NOT_FOUND),
                }
            }
            _ => empty(StatusCode::METHOD_NOT_ALLOWED),
        }
    }

    fn token(&self, port: protocol::PortId, headers: &HeaderMap) -> Answer {
        if headers.contains_key(FORWARDED) {
            return empty(StatusCode::FORBIDDEN);
        }
        let seconds = headers.get(TTL).and_then(|value| value.to_str().ok()?.parse().ok());
        let Some(seconds) = seconds.filter(|seconds| TTL_SECONDS.contains(seconds)) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        let token = self.tokens.make(port, self.clock.now() + Duration::from_secs(seconds));
        let mut answer = with_text(token);
        answer.headers_mut().insert(TTL, HeaderValue::from(seconds));
        answer
    }
}

fn with_text(text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::from(text.into()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

pub(super) fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
