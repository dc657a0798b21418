//! A request after sign-in.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use protocol::RequestId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use sqlx::pool::PoolConnection;
use utoipa::IntoParams;

use super::body::{parse_json, read_bounded};
use super::etag::{ETag, Version};
use super::mutation::Mutation;
use super::problem::{ApiError, ErrorCode};
use crate::app::App;
use crate::auth::{Action, Allowed, Claims, Scope, authorize};

/// A request whose access token is genuine and whose body is read. What the caller may do is not decided
/// yet: that happens in [`Call::reading`] and [`Call::changing`].
pub struct Call {
    pub(super) claims: Claims,
    pub(super) request_id: RequestId,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// The query of every mutation.
#[derive(Debug, Default, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MutationQuery {
    /// Check everything, store nothing, and answer with the would-be resource.
    #[serde(default)]
    pub dry_run: bool,
    /// Wait for the work to end, for at most this many seconds.
    #[serde(default)]
    #[param(maximum = 300)]
    pub wait: u16,
}

/// A connection to read from, and the right to do so.
pub struct Reading<A: Action> {
    conn: PoolConnection<sqlx::Postgres>,
    allowed: Allowed<A>,
}

impl<A: Action> Reading<A> {
    /// The connection and the proof at once, for a store function.
    pub fn parts(&mut self) -> (&mut PgConnection, &Allowed<A>) {
        (&mut self.conn, &self.allowed)
    }
}

impl Call {
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// The body as JSON; see [`parse_json`].
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse_json(&self.headers, &self.body)
    }

    /// The query, unknown parameters refused.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse_query(&self.uri)
    }

    /// Proves that the caller may read.
    ///
    /// # Errors
    /// `not_found` when the scope does not exist or the caller may not know of it, `forbidden` otherwise.
    pub async fn reading<A: Action>(
        &self,
        app: &App,
        scope: <A::Scope as Scope>::Key<'_>,
    ) -> Result<Reading<A>, ApiError> {
        let mut conn = app.pool.acquire().await?;
        let allowed = authorize(&mut conn, app, &self.claims, scope).await?;
        Ok(Reading { conn, allowed })
    }

    /// Begins the one transaction of a change; see [`Mutation`].
    pub async fn changing<A: Action>(
        &self,
        app: &App,
        scope: <A::Scope as Scope>::Key<'_>,
    ) -> Result<Mutation<A>, ApiError> {
        Mutation::begin(self, app, scope).await
    }

    /// Answers a read: the body with its ETag, or 304 when the caller has it already.
    pub fn answer(&self, version: Version, body: &impl Serialize) -> Result<Response, ApiError> {
        let body = serde_json::to_vec(body).map_err(ApiError::internal)?;
        let etag = ETag::of(version, &body);
        let mut response = if etag.is_known(&self.headers) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, "application/json")], body).into_response()
        };
        if let Ok(tag) = HeaderValue::from_str(&etag.to_string()) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        Ok(response)
    }
}

/// Parses the query of a request.
pub(crate) fn parse_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    axum::extract::Query::try_from_uri(uri)
        .map(|axum::extract::Query(query)| query)
        .map_err(|error| ApiError::because(ErrorCode::InvalidQuery, error.body_text()))
}

impl FromRequest<App> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        // Nothing is read of a stranger's body.
        let claims = claims(&parts, app)?;
        let body = read_bounded(body).await?;
        Ok(Self {
            claims,
            request_id: request_id(&parts, app),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        })
    }
}

/// The genuine claims of the bearer token.
pub(crate) fn claims(parts: &Parts, app: &App) -> Result<Claims, ApiError> {
    let header = parts.headers.get(header::AUTHORIZATION).ok_or(ApiError::new(ErrorCode::Unauthenticated))?;
    let token = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| {
            ApiError::because(ErrorCode::Unauthenticated, "send `Authorization: Bearer <access token>`")
        })?;
    app.tokens.verify(token, app.clock.now())
}

pub(crate) fn request_id(parts: &Parts, app: &App) -> RequestId {
    parts.extensions.get().copied().unwrap_or_else(|| app.clock.new_id())
}
