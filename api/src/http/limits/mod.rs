//! What one request, one principal and one address may ask of us.
//!
//! - [`request`]: how large the head of a request may be, and how long its handler may take.
//! - [`rate`]: how often somebody may call. Whoever shows a good credential is counted as its owner, and anybody
//!   else, or who comes in order to sign in, by address ([`counted`]); hosts by their certificate ([`counted_agents`]). The counts are in memory: each replica has
//!   its own, and a restart forgets them. Passwords are guarded by more than this, see `auth/backoff`.
//!
//! Bodies are bounded where they are read (`http/body.rs`), connections in `net/`.

mod rate;
mod request;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

pub use self::rate::Ticks;
use self::rate::{Rate, Standing};
pub(super) use self::request::{HANDLER_PATIENCE, bounded};
use super::client::Client;
use super::problem::{ApiError, ErrorCode};
use crate::app::App;
use crate::auth::{Credential, Shown, cookies};
use crate::net::{Peer, neighbourhood};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Asked by machines that watch us, often and without signing in.
const UNCOUNTED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// They are learned again at their next use.
const MAX_OWNERS: usize = 10_000;

/// Options of `cumulo-api serve`. By default, as in tests, nothing is limited; the program's defaults are
/// those of the arguments.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct RateOptions {
    /// Requests a second of one user, service account or host; 0 for no limit.
    #[arg(long, env = "CUMULO_RATE_LIMIT", default_value_t = 100)]
    pub rate_limit: u32,
    /// How many of them may come at once.
    #[arg(long, env = "CUMULO_RATE_LIMIT_BURST", default_value_t = 200)]
    pub rate_limit_burst: u32,
    /// Requests a second of one address, or of one /64 of IPv6, without signing in or in order to sign in;
    /// 0 for no limit.
    #[arg(long, env = "CUMULO_ADDRESS_RATE_LIMIT", default_value_t = 50)]
    pub address_rate_limit: u32,
    /// How many of them may come at once.
    #[arg(long, env = "CUMULO_ADDRESS_RATE_LIMIT_BURST", default_value_t = 100)]
    pub address_rate_limit_burst: u32,
}

/// The counts of this replica.
pub struct Limits {
    /// Whose API keys these are, by hash: those that were good when they were last seen. One that is not
    /// here may be anybody's guess.
    owners: RwLock<HashMap<[u8; 32], Uuid>>,
    principals: Option<Rate<Uuid>>,
    addresses: Option<Rate<IpAddr>>,
}

impl Limits {
    pub(super) fn new(options: &RateOptions, ticks: &Ticks) -> Self {
        let RateOptions { rate_limit, rate_limit_burst, address_rate_limit, address_rate_limit_burst } =
            *options;
        Self {
            owners: RwLock::default(),
            principals: Rate::new("principal", rate_limit, rate_limit_burst, ticks),
            addresses: Rate::new("address", address_rate_limit, address_rate_limit_burst, ticks),
        }
    }

    /// Counts a request for the owner of this credential, or for its address when that is not known.
    ///
    /// # Errors
    /// `too_many_requests`, with the time to wait.
    fn count(&self, shown: Option<&Credential>, extensions: &Extensions) -> Result<(), ApiError> {
        let owner = shown.and_then(|credential| match credential {
            Credential::Session(claims) => Some(claims.principal_id.as_uuid()),
            Credential::ApiKey(hash) => self.owner(hash),
        });
        match owner {
            Some(owner) => check(self.principals.as_ref(), &owner, extensions),
            None => {
                let address = neighbourhood(Client::of(extensions).address);
                check(self.addresses.as_ref(), &address, extensions)
            }
        }
    }

    fn owner(&self, key: &[u8; 32]) -> Option<Uuid> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    /// Notes whose credential the database found it to be.
    pub(crate) fn learn_owner(&self, shown: &Credential, owner: Uuid) {
        let Credential::ApiKey(key) = shown else { return };
        if self.principals.is_some() && self.owner(key) != Some(owner) {
            self.owners.write().unwrap_or_else(PoisonError::into_inner).insert(*key, owner);
        }
    }

    /// Forgets whoever has not called for so long that it makes no difference.
    pub(crate) fn forget_idle(&self) {
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        if owners.len() > MAX_OWNERS {
            owners.clear();
        }
        drop(owners);
        if let Some(rate) = &self.principals {
            rate.forget_idle();
        }
        if let Some(rate) = &self.addresses {
            rate.forget_idle();
        }
    }
}

/// The same for agents: a host is counted by the certificate that it has proved to hold, and whoever has none, because it
/// wants to join, by address.
pub(crate) async fn counted_agents(State(app): State<App>, request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    let limits = &app.edge.limits;
    let host = extensions.get::<ConnectInfo<Peer>>().and_then(|ConnectInfo(peer)| peer.host);
    let counted = match host {
        Some(host) => check(limits.principals.as_ref(), &host.as_uuid(), extensions),
        None => {
            let address = neighbourhood(Client::of(extensions).address);
            check(limits.addresses.as_ref(), &address, extensions)
        }
    };
    match counted {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check<K>(rate: Option<&Rate<K>>, key: &K, extensions: &Extensions) -> Result<(), ApiError>
where
    K: std::hash::Hash + Eq + Clone,
{
    let Some(rate) = rate else { return Ok(()) };
    let (standing, checked) = match rate.check(key) {
        Ok(standing) => (standing, Ok(())),
        Err(standing) => {
            metrics::counter!("cumulo_requests_refused_total", "limit" => rate.name()).increment(1);
            let detail = format!("at most {} requests a second, {} at once", rate.per_second(), rate.burst());
            let refusal = ApiError::because(ErrorCode::TooManyRequests, detail);
            (standing, Err(refusal.retry_after(standing.reset)))
        }
    };
    if let Some(standings) = extensions.get::<Standings>() {
        standings.note(standing);
    }
    checked
}

/// Where a request stands with each limit that it was counted against, for the headers of its answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Standings(Arc<Mutex<Vec<Standing>>>);

impl Standings {
    fn note(&self, standing: Standing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(standing);
    }

    /// The fields of draft-ietf-httpapi-ratelimit-headers-10: lists with an item for each limit.
    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        let standings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut add = |name, item: fn(&Standing) -> String| {
            let items: Vec<_> = standings.iter().map(item).collect();
            if let (false, Ok(list)) = (items.is_empty(), HeaderValue::try_from(items.join(", "))) {
                headers.insert(name, list);
            }
        };
        add(RATE_LIMIT_POLICY, Standing::policy);
        add(RATE_LIMIT, Standing::left);
    }
}

/// Counts every request, whichever route it is for, before its handler: for whoever shows a good credential, and
/// otherwise for its address. So no header is a way around the count. What may bring a password counts for the
/// address in any case.
pub(super) async fn counted(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if UNCOUNTED.contains(&path) {
        return next.run(request).await;
    }
    let signs_in = path.starts_with("/v1/auth/");
    let mut good = None;
    let headers = request.headers();
    if !signs_in && (headers.contains_key(header::AUTHORIZATION) || cookies::has_session(headers)) {
        let shown = Shown::read(request.method(), headers, &app).await;
        good = shown.good();
        request.extensions_mut().insert(shown);
    }
    match app.edge.limits.count(good.as_ref(), request.extensions()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}
