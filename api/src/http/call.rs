//! A request after sign-in.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use protocol::RequestId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, Postgres};
use time::OffsetDateTime;
use utoipa::{IntoParams, PartialSchema};

use super::body::{parse_json, read_bounded, required_fields};
use super::client::Client;
use super::etag::{ETag, Version};
use super::mutation::{Entry, Mutation};
use super::problem::{ApiError, ErrorCode};
use super::words;
use crate::app::App;
use crate::auth::{Action, Allowed, Caller, Credential, Place, Refusal, credential};

/// A request whose credential has the right form and whose body is read. What the caller may do is not decided
/// yet: that happens in [`Call::reading`] and [`Call::changing`].
pub struct Call {
    pub(super) credential: Credential,
    pub(super) client: Client,
    pub(super) request_id: RequestId,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// What [`Call::json_with_secrets`] has struck from the body.
    pub(super) secrets: serde_json::Map<String, Value>,
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
    conn: PoolConnection<Postgres>,
    pub caller: Caller,
    allowed: Allowed<A>,
}

impl<A: Action> Reading<A> {
    /// The connection and the proof at once, for a store function.
    pub fn parts(&mut self) -> (&mut PgConnection, &Allowed<A>) {
        (&mut self.conn, &self.allowed)
    }

    /// The right to something further that the body names; `None` when there is no such thing or the caller may not.
    ///
    /// # Errors
    /// Only those of the database.
    pub(crate) async fn foresee<B: Action>(
        &mut self,
        path: <B::On as Place>::Path<'_>,
    ) -> Result<Option<Allowed<B>>, ApiError> {
        match self.caller.decide::<B>(&mut self.conn, path, false).await {
            Ok(allowed) => Ok(Some(allowed)),
            Err(Refusal { error, .. }) => match error.code() {
                Some(ErrorCode::NotFound | ErrorCode::Forbidden) => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// Gives the connection back.
    pub(crate) fn finish(self) -> Caller {
        self.caller
    }
}

impl Call {
    pub fn request_id(&self) -> RequestId {
        self.request_id
    }

    pub(crate) fn header(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.headers.get(name)
    }

    /// The name and port by which the caller reaches us, as the request says.
    pub(crate) fn authority(&self) -> Option<&str> {
        let of_uri = self.uri.authority().map(axum::http::uri::Authority::as_str);
        of_uri.or_else(|| self.headers.get(header::HOST)?.to_str().ok())
    }

    /// For a call that goes on for long.
    ///
    /// # Errors
    /// `expired_token` when its access token has expired since it began.
    pub(crate) fn check_unexpired(&self, now: OffsetDateTime) -> Result<(), ApiError> {
        match &self.credential {
            Credential::Session(claims) => claims.check_unexpired(now),
            Credential::ApiKey(_) => Ok(()),
        }
    }

    /// The body as JSON; see [`parse_json`].
    pub fn json<T: DeserializeOwned + PartialSchema>(&self) -> Result<T, ApiError> {
        parse_json(&self.headers, &self.body, required_fields::<T>)
    }

    /// The same for a body that holds secrets. Of an `Idempotency-Key`'s request a hash is stored, and a fast hash
    /// of a password must not be: they go into it under a key of ours.
    pub(crate) fn json_with_secrets<T: DeserializeOwned + PartialSchema>(
        &mut self,
        secrets: &[&str],
    ) -> Result<T, ApiError> {
        let parsed = self.json()?;
        let fields: serde_json::Map<String, Value> = parse_json(&self.headers, &self.body, Vec::new)?;
        let (struck, rest) = fields.into_iter().partition(|(name, _)| secrets.contains(&name.as_str()));
        let rest: serde_json::Map<String, Value> = rest;
        self.body = serde_json::to_vec(&rest).map_err(ApiError::internal)?.into();
        self.secrets = struck;
        Ok(parsed)
    }

    /// The query, unknown parameters refused.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse_query(&self.uri)
    }

    /// Proves that the caller may read.
    ///
    /// # Errors
    /// `not_found` when the place does not exist or the caller may not know of it, `forbidden` otherwise.
    pub async fn reading<A: Action>(
        &self,
        app: &App,
        path: <A::On as Place>::Path<'_>,
    ) -> Result<Reading<A>, ApiError> {
        let mut conn = app.pool.acquire().await?;
        let project = <A::On as Place>::target(path).project;
        let caller = Caller::enter(&mut conn, app, &self.credential, self.client, project).await?;
        let allowed = caller.decide(&mut conn, path, false).await?;
        Ok(Reading { conn, caller, allowed })
    }

    /// Looks the caller up, for what every signed-in principal may do.
    pub(crate) async fn whoami(&self, app: &App) -> Result<(PoolConnection<Postgres>, Caller), ApiError> {
        let mut conn = app.pool.acquire().await?;
        let caller = Caller::enter(&mut conn, app, &self.credential, self.client, None).await?;
        Ok((conn, caller))
    }

    /// Begins the one transaction of a change; see [`Mutation`].
    pub async fn changing<A: Action>(
        &self,
        app: &App,
        path: <A::On as Place>::Path<'_>,
    ) -> Result<Mutation<A>, ApiError> {
        self.entering(app, <A::On as Place>::target(path).project).await?.decide(path).await
    }

    /// Begins the transaction of a change about which something has to be looked up before it can be decided.
    pub(crate) async fn entering<'a>(
        &'a self,
        app: &App,
        project: Option<&str>,
    ) -> Result<Entry<'a>, ApiError> {
        Entry::begin(self, app, project).await
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
        .map_err(|error| ApiError::because(ErrorCode::InvalidQuery, words::plain_query(&error.body_text())))
}

impl FromRequest<App> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        // Nothing is read of a stranger's body.
        let credential = credential(&parts, app).await?;
        let body = read_bounded(body).await?;
        Ok(Self {
            credential,
            client: Client::of(&parts.extensions),
            request_id: request_id(&parts, app),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            secrets: serde_json::Map::new(),
        })
    }
}

pub(crate) fn request_id(parts: &Parts, app: &App) -> RequestId {
    parts.extensions.get().copied().unwrap_or_else(|| app.clock.new_id())
}
