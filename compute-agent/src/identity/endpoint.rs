//! Where the control plane is.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;
use reqwest::dns::{Addrs, Name as DnsName, Resolve, Resolving};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::CONTROL_PLANE_NAME;

/// `https://HOST:PORT`. The host is looked up at each connection; the certificate has to be for
/// [`CONTROL_PLANE_NAME`] whatever it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    /// A DNS name or an address, IPv6 without brackets.
    host: String,
    port: u16,
}

/// A text is not an [`Endpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the control plane's address looks like https://HOST:PORT")]
pub struct ParseEndpointError;

impl Endpoint {
    /// The URL that requests are made for.
    pub fn base_url(&self) -> String {
        format!("https://{CONTROL_PLANE_NAME}:{}", self.port)
    }
}

impl FromStr for Endpoint {
    type Err = ParseEndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| ParseEndpointError)?;
        let is_bare = url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let host = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned());
        match (url.scheme(), host, url.port_or_known_default()) {
            ("https", Some(host), Some(port)) if is_bare => Ok(Self { host, port }),
            _ => Err(ParseEndpointError),
        }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = ParseEndpointError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "https://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "https://{}:{}", self.host, self.port)
        }
    }
}

/// Answers for [`CONTROL_PLANE_NAME`] alone.
impl Resolve for Endpoint {
    fn resolve(&self, name: DnsName) -> Resolving {
        let Self { host, port } = self.clone();
        Box::pin(async move {
            if name.as_str() != CONTROL_PLANE_NAME {
                return Err(format!("{} is not the control plane", name.as_str()).into());
            }
            let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_scheme_a_host_and_a_port_and_nothing_else() {
        for (text, printed) in [
            ("https://cloud.example:7443", "https://cloud.example:7443"),
            ("https://192.0.2.1:1/", "https://192.0.2.1:1"),
            ("https://[2001:db8::1]:7443", "https://[2001:db8::1]:7443"),
            ("https://cloud.example", "https://cloud.example:443"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), printed);
        }
        for bad in
            ["cloud.example:7443", "http://a:1", "https://a:1/v1", "https://u@a:1", "https://a:1?x", ""]
        {
            assert_eq!(bad.parse::<Endpoint>(), Err(ParseEndpointError), "{bad}");
        }
    }
}
