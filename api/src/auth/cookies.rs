//! A session in cookies that no script can read: what a browser has in place of tokens.
//!
//! ```text
//! __Host-cumulo_access    the access token; as old as that may get
//! __Host-cumulo_refresh   the refresh token; a day, and a day more whenever it is used
//! ```
//!
//! Browsers take a `__Host-` cookie only from a page of the same host and over TLS. Chromium and Firefox count
//! plain HTTP to this machine itself as safe, and nothing else is served without TLS.
//!
//! Cookies come along whoever made the browser ask, so they count only in a request that the browser says is one
//! of our own pages'.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use super::types::TokenResponse;
use crate::http::{ApiError, ErrorCode};

const ACCESS: &str = "__Host-cumulo_access";
const REFRESH: &str = "__Host-cumulo_refresh";
/// Seconds for which a browser that shows nobody any more could come back.
const REFRESH_MAX_AGE: i64 = 86_400;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The access token in the cookies of a request.
pub(super) fn access_token(headers: &HeaderMap) -> Option<&str> {
    find(headers, ACCESS)
}

/// The refresh token in the cookies of a request.
pub(super) fn refresh_token(headers: &HeaderMap) -> Option<&str> {
    find(headers, REFRESH)
}

/// Whether a request shows a session in cookies.
pub(crate) fn has_session(headers: &HeaderMap) -> bool {
    access_token(headers).is_some()
}

/// The headers that give these tokens to a browser.
///
/// # Errors
/// If a token could not stand in a header, which none of ours can bring about.
pub(super) fn set(tokens: &TokenResponse) -> Result<HeaderMap, ApiError> {
    cookies([
        (ACCESS, tokens.access_token.as_str(), tokens.expires_in),
        (REFRESH, tokens.refresh_token.as_str(), REFRESH_MAX_AGE),
    ])
}

/// The headers that take them away.
pub(super) fn clear() -> Result<HeaderMap, ApiError> {
    cookies([(ACCESS, "", 0), (REFRESH, "", 0)])
}

fn cookies(all: [(&str, &str, i64); 2]) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, value, max_age) in all {
        let cookie = format!("{name}={value}; Max-Age={max_age}; Path=/; Secure; HttpOnly; SameSite=Strict");
        headers.append(header::SET_COOKIE, HeaderValue::try_from(cookie).map_err(ApiError::internal)?);
    }
    Ok(headers)
}

/// A cookie that comes twice is none: one of the two is not ours.
fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) if !value.is_empty() => Some(value),
        _ => None,
    }
}

/// Proves that one of our own pages made the browser send this, or a person who typed an address to read.
/// Browsers say so in `Sec-Fetch-Site`; of those that do not, `Origin` has to name the host that is asked.
///
/// # Errors
/// `cross_site_request`.
pub(super) fn check_same_origin(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let own = match (text(&SEC_FETCH_SITE), text(&header::ORIGIN)) {
        (Some("same-origin"), _) => true,
        (Some("none"), _) => reads,
        (Some(_), _) => false,
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            host.is_some() && host == text(&header::HOST)
        }
        (None, None) => reads,
    };
    match own {
        true => Ok(()),
        false => Err(ApiError::because(
            ErrorCode::CrossSiteRequest,
            "a session in cookies serves the pages of this very address; programs send `Authorization: Bearer …`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_only_when_there_is_one() {
        let token = |line| access_token(&headers(&[("cookie", line)])).map(str::to_owned);
        assert_eq!(token("a=1; __Host-cumulo_access=x.y.z; b=2").as_deref(), Some("x.y.z"));
        assert_eq!(token("__Host-cumulo_access=x==").as_deref(), Some("x=="));
        for none in [
            "",
            "cumulo_access=x",
            "x__Host-cumulo_access=x",
            "__Host-cumulo_access=",
            "__host-cumulo_access=x",
        ] {
            assert_eq!(token(none), None, "{none}");
        }
        assert_eq!(token("__Host-cumulo_access=x; __Host-cumulo_access=y"), None);
        let twice = headers(&[("cookie", "__Host-cumulo_access=x"), ("cookie", "__Host-cumulo_access=x")]);
        assert_eq!(access_token(&twice), None);
    }

    #[test]
    fn only_a_page_of_the_same_origin_may_use_the_cookies() {
        let host = ("host", "cloud.example:8080");
        let site = |value| ("sec-fetch-site", value);
        let origin = |value| ("origin", value);
        for (method, lines, may) in [
            (Method::POST, vec![host, site("same-origin")], true),
            (Method::POST, vec![host, site("same-site")], false),
            (Method::POST, vec![host, site("cross-site")], false),
            (Method::POST, vec![host, site("none")], false),
            (Method::POST, vec![host, site("")], false),
            // What the browser itself says counts, not what a page might have a say in.
            (Method::POST, vec![host, site("cross-site"), origin("https://cloud.example:8080")], false),
            (Method::POST, vec![host, origin("https://cloud.example:8080")], true),
            (Method::DELETE, vec![host, origin("https://cloud.example")], false),
            (Method::PUT, vec![host, origin("https://evil.example")], false),
            (Method::POST, vec![host, origin("null")], false),
            (Method::POST, vec![host, origin("")], false),
            (Method::POST, vec![origin("https://cloud.example")], false),
            (Method::POST, vec![host], false),
            (Method::GET, vec![host], true),
            (Method::GET, vec![host, site("none")], true),
            (Method::GET, vec![host, site("same-origin")], true),
            (Method::GET, vec![host, site("cross-site")], false),
            (Method::GET, vec![host, site("same-site")], false),
            (Method::GET, vec![host, origin("https://evil.example")], false),
        ] {
            assert_eq!(check_same_origin(&method, &headers(&lines)).is_ok(), may, "{method} {lines:?}");
        }
    }
}
