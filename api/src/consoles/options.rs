//! What the operator says about consoles.

use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, Uri, header, uri};

use crate::http::{ApiError, ErrorCode};

const DEFAULT_MAX_SECONDS: u32 = 8 * 3600;
const MAX_URL_CHARS: usize = 300;

/// Options of `cumulo-api serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ConsoleOptions {
    /// Where hosts reach the agent listener of this replica, https://HOST:PORT, so that they bring consoles to the
    /// replica that waits for them. Not needed when there is only one.
    #[arg(long, env = "CUMULO_AGENT_URL")]
    pub agent_url: Option<AgentUrl>,
    /// Web pages, as https://HOST[:PORT] and separated by commas, that may open consoles besides those of the API's
    /// own address.
    #[arg(long = "console-origin", env = "CUMULO_CONSOLE_ORIGINS", value_delimiter = ',')]
    pub console_origins: Vec<Origin>,
    /// The longest that a console stays open, in seconds.
    #[arg(long, env = "CUMULO_MAX_CONSOLE_SECONDS", default_value_t = DEFAULT_MAX_SECONDS)]
    pub max_console_seconds: u32,
    /// How often it is looked whether a caller still may.
    #[arg(skip = CHECK_EVERY)]
    pub check_every: Duration,
}

const CHECK_EVERY: Duration = Duration::from_secs(15);

impl Default for ConsoleOptions {
    fn default() -> Self {
        Self {
            agent_url: None,
            console_origins: Vec::new(),
            max_console_seconds: DEFAULT_MAX_SECONDS,
            check_every: CHECK_EVERY,
        }
    }
}

/// `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentUrl(String);

impl AgentUrl {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AgentUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = bare(text).filter(|(scheme, authority)| {
            scheme == "https" && authority.port().is_some() && text.len() <= MAX_URL_CHARS
        });
        url.map(|_| Self(text.trim_end_matches('/').to_owned())).ok_or("it looks like https://HOST:PORT")
    }
}

/// A web page's origin (RFC 6454): scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    /// Lower case, without the scheme's own port.
    authority: String,
}

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, authority) = bare(text)
            .filter(|(scheme, _)| scheme == "https" || scheme == "http")
            .ok_or("it looks like https://HOST")?;
        Ok(Self { authority: without_port(&scheme, authority.as_str()), scheme })
    }
}

/// Scheme and authority of a URL that has nothing else.
fn bare(text: &str) -> Option<(String, uri::Authority)> {
    let uri: Uri = text.parse().ok()?;
    let parts = uri.into_parts();
    let path_is_empty = parts.path_and_query.is_none_or(|path| path.as_str() == "/");
    let authority = parts.authority.filter(|authority| path_is_empty && !authority.as_str().contains('@'))?;
    Some((parts.scheme?.as_str().to_owned(), authority))
}

fn without_port(scheme: &str, authority: &str) -> String {
    let own = if scheme == "https" { ":443" } else { ":80" };
    authority.strip_suffix(own).unwrap_or(authority).to_ascii_lowercase()
}

impl ConsoleOptions {
    /// Refuses web pages of other origins than the API's own and those that the operator names. The ticket alone
    /// would keep them out, too: no browser adds it by itself.
    pub(super) fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut shown = headers.get_all(header::ORIGIN).iter();
        let Some(first) = shown.next() else { return Ok(()) };
        let origin: Option<Origin> = first.to_str().ok().and_then(|text| text.parse().ok());
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let is_good = |origin: &Origin| {
            let is_own = host.is_some_and(|host| without_port(&origin.scheme, host) == origin.authority);
            is_own || self.console_origins.contains(origin)
        };
        if shown.next().is_none() && origin.as_ref().is_some_and(is_good) {
            return Ok(());
        }
        let detail =
            "web pages of this origin may not open consoles; the operator can allow it with --console-origin";
        Err(ApiError::because(ErrorCode::Forbidden, detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_origins_are_refused() {
        let options = ConsoleOptions {
            console_origins: vec!["https://console.example".parse().unwrap()],
            ..ConsoleOptions::default()
        };
        let check = |origin: &str, host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            options.check_origin(&headers).is_ok()
        };
        for (origin, host) in [
            ("https://cloud.example", "cloud.example"),
            ("https://cloud.example:443", "Cloud.example"),
            ("https://cloud.example", "cloud.example:443"),
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("https://console.example", "cloud.example"),
        ] {
            assert!(check(origin, host), "{origin} on {host}");
        }
        for (origin, host) in [
            ("https://evil.example", "cloud.example"),
            ("http://console.example", "cloud.example"),
            ("https://cloud.example:8443", "cloud.example"),
            ("https://cloud.example@evil.example", "cloud.example"),
            ("https://cloud.example/path", "cloud.example"),
            ("null", "cloud.example"),
            ("", "cloud.example"),
        ] {
            assert!(!check(origin, host), "{origin} on {host}");
        }
        assert!(options.check_origin(&HeaderMap::new()).is_ok(), "no browser");
    }

    #[test]
    fn an_agent_url_is_a_host_and_a_port() {
        for good in ["https://10.0.0.1:8443", "https://[2001:db8::1]:8443/", "https://a.example:1"] {
            assert!(good.parse::<AgentUrl>().is_ok(), "{good}");
        }
        for bad in ["http://a:1", "https://a", "https://a:1/x", "https://u@a:1", "a:1", ""] {
            assert!(bad.parse::<AgentUrl>().is_err(), "{bad}");
        }
    }
}
