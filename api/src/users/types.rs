//! The wire of users.

use protocol::{Name, PrincipalId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::not_null;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    pub name: Name,
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// At least 12 characters, at most 1024 bytes, and not the user's name. Without one, the answer holds a
    /// one-time code with which the user sets it.
    #[schema(min_length = 12, max_length = 1024)]
    pub password: Option<String>,
    /// Whether the user has to choose another password at the first sign-in before anything else: true unless given,
    /// since whoever makes the user knows this one. Goes with `password` only.
    pub password_change_required: Option<bool>,
}

/// A JSON Merge Patch (RFC 7396): absent fields stay as they are.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub name: Option<Name>,
    #[serde(default, deserialize_with = "not_null")]
    #[schema(max_length = 1000, nullable = false)]
    pub description: Option<String>,
    /// A disabled user cannot sign in, and every session of theirs has ended. Their API keys are refused until
    /// they are enabled again.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub disabled: Option<bool>,
    /// Whether the user has to choose another password before anything else, in the sessions that there are, too. API
    /// keys go on working. Nobody lifts it from themselves: choosing a new password does.
    #[serde(default, deserialize_with = "not_null")]
    #[schema(nullable = false)]
    pub password_change_required: Option<bool>,
}

/// A person.
#[derive(Debug, Serialize, ToSchema)]
pub struct User {
    pub id: PrincipalId,
    pub name: String,
    pub description: String,
    pub disabled: bool,
    /// Whether a password is set. Without one the user waits for their one-time code.
    pub has_password: bool,
    /// Whether the user has to choose another password before anything else, since somebody else knows the present one.
    pub password_change_required: bool,
    /// Whether a second factor is set up, so that every sign-in needs a code of it.
    pub has_second_factor: bool,
    /// Until when the one-time code can be used, if there is one.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub password_code_expires_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
}

/// A user who has just been made.
#[derive(Serialize, ToSchema)]
pub struct CreatedUser {
    #[serde(flatten)]
    pub user: User,
    /// Shown this once, also when the request is repeated. Hand it to the user, who sets a password with it
    /// within 72 hours (`POST /v1/auth/reset_password`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_code: Option<String>,
}

/// A one-time code in the place of a password.
#[derive(Serialize, ToSchema)]
pub struct PasswordReset {
    /// Shown this once, also when the request is repeated. Hand it to the user, who sets a password with it
    /// (`POST /v1/auth/reset_password`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_code: Option<String>,
    /// 72 hours from now.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePassword {
    pub current_password: String,
    /// At least 12 characters, at most 1024 bytes, and not the user's name.
    #[schema(min_length = 12, max_length = 1024)]
    pub new_password: String,
}

/// What an authenticator app needs. It counts for nothing until a first code has confirmed it.
#[derive(Serialize, ToSchema)]
pub struct TotpEnrolment {
    /// For typing: base32. Shown this once, also when the request is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// For a QR code. Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "otpauth://totp/Cumulo:ada?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Cumulo")]
    pub url: Option<String>,
}

/// A code that proves the second factor.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondFactorCode {
    /// Six digits of the authenticator app; where a second factor is set up already, a recovery code will do.
    #[schema(example = "123456")]
    pub code: String,
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveTotp {
    /// Needed for one's own: six digits of the authenticator app, or a recovery code.
    #[schema(example = "123456", nullable = false)]
    pub code: Option<String>,
}

/// For whoever loses the authenticator app.
#[derive(Serialize, ToSchema)]
pub struct RecoveryCodes {
    /// Ten codes; each can be used once in the place of a code of the app. Shown this once, also when the
    /// request is repeated.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recovery_codes: Vec<String>,
}

/// A place where a user is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub struct Session {
    pub id: Uuid,
    /// Whether it is the session that asks.
    pub current: bool,
    /// Where the sign-in came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_address: Option<String>,
    /// What the client said that it is, at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// When the second factor was shown, if it was.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub second_factor_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When its tokens were last renewed.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub refreshed_at: Option<OffsetDateTime>,
    /// When it ends, renewed or not.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
}
