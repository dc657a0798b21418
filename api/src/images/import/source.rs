//! URLs that images come from.

use std::net::IpAddr;

use reqwest::Url;

use super::fetch::FetchError;

const MAX_URL_LENGTH: usize = 2048;

/// Checks what can be checked without asking anybody.
///
/// # Errors
/// What is wrong with it, for people.
pub(super) fn check_url(text: &str, http: bool) -> Result<Url, String> {
    if text.len() > MAX_URL_LENGTH {
        return Err(format!("a URL has at most {MAX_URL_LENGTH} characters"));
    }
    let url = Url::parse(text).map_err(|error| format!("this is no URL: {error}"))?;
    check(&url, http)?;
    Ok(url)
}

/// The same for one that a server has redirected to.
pub(super) fn check(url: &Url, http: bool) -> Result<(), String> {
    match url.scheme() {
        "https" => {}
        "http" if http => {}
        "http" => return Err("plain HTTP is not allowed here; use https".to_owned()),
        _ => return Err("only https is allowed".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("leave user and password out; nothing is imported with credentials".to_owned());
    }
    if url.host_str().is_none() || url.port_or_known_default() == Some(0) {
        return Err("a host is missing".to_owned());
    }
    Ok(())
}

/// The address, when the URL has one instead of a name.
pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_matches(['[', ']']).parse().ok()
}

/// Scheme, host and port: what of a URL may be shown. The rest may hold a secret.
pub(super) fn shown(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Where a redirect leads to.
pub(super) fn redirected(from: &Url, location: Option<&[u8]>, http: bool) -> Result<Url, FetchError> {
    let origin = shown(from);
    let location = location.and_then(|location| std::str::from_utf8(location).ok());
    let to = location
        .filter(|location| location.len() <= MAX_URL_LENGTH)
        .and_then(|location| from.join(location).ok());
    let to = to.ok_or_else(|| FetchError::failed(format!("{origin} redirects to no URL")))?;
    check(&to, http)
        .map_err(|why| FetchError::refused(format!("{origin} redirects to {}: {why}", shown(&to))))?;
    Ok(to)
}
