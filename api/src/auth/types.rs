//! The wire of signing in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoginRequest {
    #[schema(example = "admin", max_length = 63)]
    pub username: String,
    #[schema(max_length = 1024)]
    pub password: String,
    /// A code of the authenticator app, or a recovery code; for users with a second factor.
    #[schema(example = "123456")]
    pub otp: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedeemPasswordCode {
    #[schema(example = "ada", max_length = 63)]
    pub username: String,
    /// The one-time code of an invitation or a reset.
    pub code: String,
    /// At least 12 characters, at most 1024 bytes, and not the user's name.
    #[schema(min_length = 12, max_length = 1024)]
    pub new_password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    pub refresh_token: String,
}

/// What a sign-in in a browser gives, besides the cookies.
#[derive(Serialize, ToSchema)]
pub struct BrowserSession {
    /// Seconds until the session has to be prolonged.
    pub expires_in: i64,
    /// Whether the session is for choosing a new password only; see `POST /v1/auth/login`.
    pub password_change_required: bool,
}

/// What a sign-in gives.
#[derive(Serialize, ToSchema)]
pub struct TokenResponse {
    /// Send it as `Authorization: Bearer …`.
    pub access_token: String,
    /// Good for one use: it is exchanged for new tokens.
    pub refresh_token: String,
    /// Always `Bearer`.
    pub token_type: &'static str,
    /// Seconds for which the access token is valid.
    pub expires_in: i64,
    /// Whether the session is for choosing a new password only, since somebody else knows the present one. Until then
    /// it is good for `POST /v1/users/{user}/password`, `GET /v1/me` and signing out; every other call is refused with
    /// `password_change_required`.
    pub password_change_required: bool,
}
