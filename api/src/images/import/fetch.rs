//! Fetching from a server that nobody trusts: checked addresses, bounded redirects, no patience.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, IF_RANGE, LOCATION, RANGE};
use reqwest::{Certificate, Client, Response, StatusCode, Url, redirect};

use super::certificate;
use super::guard::Guard;
use super::source::{self, shown};

const MAX_REDIRECTS: usize = 5;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DNS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing came. Never holds what the other side has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::images) struct FetchError {
    pub code: &'static str,
    pub detail: String,
    /// Another attempt may do better.
    pub again: bool,
}

impl FetchError {
    /// It is against the rules.
    pub(super) fn refused(detail: String) -> Self {
        Self { code: "import_refused", detail, again: false }
    }

    /// The other side does not show that it is who it should be.
    fn untrusted(detail: String) -> Self {
        Self { code: "source_certificate_invalid", detail, again: false }
    }

    /// The other side does not have it.
    pub(super) fn failed(detail: String) -> Self {
        Self { code: "import_failed", detail, again: false }
    }

    /// The other side did not do its part this time.
    pub(super) fn broken(detail: String) -> Self {
        Self { code: "import_failed", detail, again: true }
    }
}

/// Looks up a name.
pub(crate) type Resolver =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// The resolver of this machine.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// Where to go on, when an answer broke off.
#[derive(Debug, Clone)]
pub(super) struct Resume {
    pub offset: u64,
    /// Of the first answer: another one would be another file.
    pub etag: String,
}

/// Fetches for one import.
pub(super) struct Fetcher {
    pub guard: Guard,
    pub http: bool,
    pub silence: Duration,
    pub certificates: Vec<Certificate>,
    pub resolver: Resolver,
}

impl Fetcher {
    /// The head of the answer that has the bytes.
    ///
    /// # Errors
    /// With the reason, for people.
    pub(super) async fn open(&self, url: &Url, resume: Option<&Resume>) -> Result<Response, FetchError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask(&url, resume).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return judge(&url, response, resume);
            }
            let location = response.headers().get(LOCATION).map(|location| location.as_bytes());
            url = source::redirected(&url, location, self.http)?;
        }
        Err(FetchError::failed(format!(
            "more than {MAX_REDIRECTS} redirects, the last one by {}",
            shown(&url)
        )))
    }

    /// One request to one server, whose address has been checked and is not looked up again.
    async fn ask(&self, url: &Url, resume: Option<&Resume>) -> Result<Response, FetchError> {
        let client = self.client(self.addresses(url).await?)?;
        let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(Resume { offset, etag }) = resume {
            request = request.header(RANGE, format!("bytes={offset}-")).header(IF_RANGE, etag);
        }
        match tokio::time::timeout(self.silence, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(match certificate::fault(&error) {
                Some(fault) => FetchError::untrusted(format!("{} cannot be trusted: {fault}", shown(url))),
                None => FetchError::broken(format!("{} cannot be asked: {}", shown(url), cause(&error))),
            }),
            Err(_) => {
                let seconds = self.silence.as_secs();
                Err(FetchError::broken(format!("{} did not answer within {seconds} seconds", shown(url))))
            }
        }
    }

    /// The addresses that may be spoken to.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
        let origin = shown(url);
        let found = match (source::literal(url), url.host_str()) {
            (Some(address), _) => vec![address],
            (None, Some(name)) => {
                let looked_up = tokio::time::timeout(DNS_TIMEOUT, (self.resolver)(name.to_owned())).await;
                let found = looked_up.map_err(|_| "it took too long".to_owned());
                let found = found.and_then(|found| found.map_err(|error| error.to_string()));
                found.map_err(|why| {
                    FetchError::broken(format!("the name in {origin} cannot be looked up: {why}"))
                })?
            }
            (None, None) => Vec::new(),
        };
        let objections: Vec<_> = found.iter().map(|address| self.guard.objection(*address)).collect();
        let port = url.port_or_known_default().unwrap_or(443);
        let allowed = found.iter().zip(&objections).filter(|(_, objection)| objection.is_none());
        let allowed: Vec<_> = allowed.map(|(address, _)| SocketAddr::new(*address, port)).collect();
        match objections.iter().flatten().next() {
            _ if !allowed.is_empty() => Ok(allowed),
            Some(objection) => Err(FetchError::refused(format!(
                "{origin} is at an address that is {objection}; an operator can allow it with --import-networks"
            ))),
            None => Err(FetchError::broken(format!("the name in {origin} has no address"))),
        }
    }

    fn client(&self, addresses: Vec<SocketAddr>) -> Result<Client, FetchError> {
        Client::builder()
            .user_agent(concat!("cumulo/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .https_only(!self.http)
            .connect_timeout(CONNECT_TIMEOUT)
            .tls_certs_merge(self.certificates.clone())
            .dns_resolver(Pinned(addresses))
            .build()
            .map_err(|error| FetchError::broken(format!("cannot prepare a connection: {}", cause(&error))))
    }
}

/// Gives these addresses for every name: nothing is looked up behind our back.
struct Pinned(Vec<SocketAddr>);

impl Resolve for Pinned {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(self.0.clone().into_iter());
        Box::pin(std::future::ready(Ok(addresses)))
    }
}

/// Whether the answer has the bytes that were asked for, as they are.
fn judge(url: &Url, response: Response, resume: Option<&Resume>) -> Result<Response, FetchError> {
    let (origin, status) = (shown(url), response.status());
    let detail = format!("{origin} answered with status {}", status.as_u16());
    if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        return Err(FetchError::broken(detail));
    }
    if resume.is_some() && status == StatusCode::OK {
        return Err(FetchError::broken(format!("{origin} broke off and cannot go on where it stopped")));
    }
    let expected = if resume.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    if status != expected {
        return Err(FetchError::failed(detail));
    }
    if let Some(Resume { offset, .. }) = resume {
        let range = response.headers().get("content-range").and_then(|range| range.to_str().ok());
        if !range.is_some_and(|range| range.starts_with(&format!("bytes {offset}-"))) {
            return Err(FetchError::broken(format!("{origin} sent another range than it was asked for")));
        }
    }
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(FetchError::failed(
            format!("{origin} sends the file encoded; give a URL of the file as it is"),
        )),
        _ => Ok(response),
    }
}

/// The `ETag` of an answer, if it stands for these very bytes.
pub(super) fn strong_etag(response: &Response) -> Option<String> {
    let etag = response.headers().get(ETAG)?.to_str().ok()?;
    etag.starts_with('"').then(|| etag.to_owned())
}

/// The innermost reason, which says most and holds no URL.
pub(super) fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    if std::ptr::addr_eq(innermost, error) { "it did not work".to_owned() } else { innermost.to_string() }
}
