//! The variable segments of a path.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// Like axum's `Path`; a segment that is not even text names nothing, so the answer is 404.
pub(crate) struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = axum::extract::Path::from_request_parts(parts, state).await;
        segments.map(|axum::extract::Path(segments)| Self(segments)).map_err(|_| ApiError::not_found())
    }
}
