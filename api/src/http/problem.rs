//! Every error that leaves the API: RFC 9457 problem documents with stable codes.
//!
//! This is the only file that names HTTP statuses of errors. A handler returns [`ApiError`]; the outermost
//! layer ([`super::request`]) renders it, adds the request id and logs the cause once. Bodies of 5xx answers
//! carry no cause.

use std::borrow::Cow;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::postgres::PgDatabaseError;
use utoipa::ToSchema;

use crate::auth::Denial;
use crate::database::is_unavailable;
use crate::quotas::{self, ExceededLimit};
use crate::scheduler::Explanation;

macro_rules! error_codes {
    ($($name:ident $status:ident $code:literal $title:literal)+) => {
        /// Stable, machine-readable error codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorCode { $($name),+ }

        impl ErrorCode {
            /// Every code, for the documentation and its test.
            pub const ALL: &[ErrorCode] = &[$(Self::$name),+];

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status),+ }
            }

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code),+ }
            }

            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }
        }
    };
}

error_codes! {
    BadRequest BAD_REQUEST "bad_request" "The request could not be understood"
    InvalidJson BAD_REQUEST "invalid_json" "The body is not the JSON that was expected"
    InvalidQuery BAD_REQUEST "invalid_query" "A query parameter is wrong"
    InvalidHeader BAD_REQUEST "invalid_header" "A header is wrong"
    Unauthenticated UNAUTHORIZED "unauthenticated" "Sign in first"
    InvalidToken UNAUTHORIZED "invalid_token" "The access token is not valid"
    ExpiredToken UNAUTHORIZED "expired_token" "The access token has expired"
    InvalidCredentials UNAUTHORIZED "invalid_credentials" "User name or password is wrong"
    InvalidPasswordCode UNAUTHORIZED "invalid_password_code" "The code is wrong or has expired"
    SecondFactorRequired UNAUTHORIZED "second_factor_required" "The second factor is missing"
    InvalidTicket UNAUTHORIZED "invalid_ticket" "The console's ticket is not valid"
    InvalidSecondFactor UNAUTHORIZED "invalid_second_factor" "The second factor is wrong"
    HostRemoved UNAUTHORIZED "host_removed" "The host has been removed"
    Forbidden FORBIDDEN "forbidden" "Not allowed"
    PasswordChangeRequired FORBIDDEN "password_change_required" "Choose a new password first"
    CrossSiteRequest FORBIDDEN "cross_site_request" "Another web page asks for it"
    NotFound NOT_FOUND "not_found" "Not found"
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The path does not take this method"
    NameTaken CONFLICT "name_taken" "The name is taken"
    InUse CONFLICT "in_use" "Something still uses it"
    QuotaExceeded CONFLICT "quota_exceeded" "The project may not have so much"
    SubnetOverlaps CONFLICT "subnet_overlaps" "Another subnet has some of the addresses"
    SubnetExhausted CONFLICT "subnet_exhausted" "The subnet has no free address"
    AddressTaken CONFLICT "address_taken" "Something has this address already"
    RangeOverlaps CONFLICT "range_overlaps" "The range of addresses overlaps another"
    DuplicateRule CONFLICT "duplicate_rule" "The security group has this rule already"
    AddressPoolExhausted CONFLICT "address_pool_exhausted" "The address pool has no free address"
    WrongState CONFLICT "wrong_state" "Not possible in the present state"
    InsufficientCapacity CONFLICT "insufficient_capacity" "There is no room for it"
    ManagedPolicy CONFLICT "managed_policy" "The policy comes with Cumulo"
    AlreadyAttached CONFLICT "already_attached" "The policy is attached there already"
    LastAdministrator CONFLICT "last_administrator" "The cloud keeps an administrator"
    OffsetMismatch CONFLICT "offset_mismatch" "Other bytes are expected"
    StaleEpoch CONFLICT "stale_epoch" "A newer session of this host exists"
    RequestInFlight CONFLICT "request_in_flight" "The same request is being worked on"
    CursorExpired GONE "cursor_expired" "The events after this position are not kept any more"
    PreconditionFailed PRECONDITION_FAILED "precondition_failed" "The resource has changed"
    PreconditionRequired PRECONDITION_REQUIRED "precondition_required" "Say which version you have seen"
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "headers_too_large" "The headers are too large"
    PayloadTooLarge PAYLOAD_TOO_LARGE "payload_too_large" "The body is too large"
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The body has the wrong media type"
    RangeNotSatisfiable RANGE_NOT_SATISFIABLE "range_not_satisfiable" "The range is beyond the end"
    ValidationFailed UNPROCESSABLE_ENTITY "validation_failed" "Some fields are wrong"
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "idempotency_key_reused" "The Idempotency-Key belongs to another request"
    ChecksumMismatch UNPROCESSABLE_ENTITY "checksum_mismatch" "The content is not what was announced"
    ImageRefused UNPROCESSABLE_ENTITY "image_refused" "The image is not accepted"
    UnsupportedProtocol UNPROCESSABLE_ENTITY "unsupported_protocol" "The agent speaks another protocol version"
    TooManyRequests TOO_MANY_REQUESTS "too_many_requests" "Too many requests"
    SignInDelayed TOO_MANY_REQUESTS "sign_in_delayed" "Too many attempts have failed; wait"
    Internal INTERNAL_SERVER_ERROR "internal" "Something went wrong on our side"
    DatabaseUnavailable SERVICE_UNAVAILABLE "database_unavailable" "The database is not available"
    HostUnreachable SERVICE_UNAVAILABLE "host_unreachable" "The host does not answer"
    HostFailed SERVICE_UNAVAILABLE "host_failed" "The host could not do it"
    Busy SERVICE_UNAVAILABLE "busy" "Too much work at once"
    Timeout SERVICE_UNAVAILABLE "timeout" "The answer took too long"
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "The request took too long to arrive"
}

/// The body of every error, `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct Problem {
    /// Always `about:blank`; the code tells problems apart.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// A stable, machine-readable code.
    #[schema(example = "validation_failed")]
    pub code: &'static str,
    /// The code in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened this time, and what to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Cow<'static, str>>,
    /// Quote this when you ask for help.
    pub request_id: String,
    /// Which fields are wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// With `forbidden`: what was denied, and by which statements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denial: Option<Denial>,
    /// Which limits of the project are in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<ExceededLimit>,
    /// Why no host takes the instance, and what would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Explanation>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) into the body.
    #[schema(example = "/memory_mib")]
    pub pointer: String,
    pub code: &'static str,
    pub message: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), code, message: message.into() }
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a call is not answered as it wished.
#[derive(Debug)]
pub struct ApiError(Box<Kind>);

#[derive(Debug)]
enum Kind {
    Problem(Failure),
    /// Not an error at all: the answer that this Idempotency-Key was given before.
    Replay(Response),
}

/// What the rendering layer needs to know of a failure.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: ErrorCode,
    pub detail: Option<Cow<'static, str>>,
    pub errors: Vec<FieldError>,
    pub denial: Option<Denial>,
    pub quota: Vec<ExceededLimit>,
    pub placement: Option<Explanation>,
    pub retry_after_secs: Option<u32>,
    pub cause: Option<Cause>,
}

impl Failure {
    pub(super) fn new(code: ErrorCode) -> Self {
        Self {
            code,
            detail: None,
            errors: Vec::new(),
            denial: None,
            quota: Vec::new(),
            placement: None,
            retry_after_secs: None,
            cause: None,
        }
    }
}

impl ApiError {
    /// A bare problem of this kind.
    pub fn new(code: ErrorCode) -> Self {
        Self(Box::new(Kind::Problem(Failure::new(code))))
    }

    /// A problem with a sentence of its own. Never a path, a host name or SQL.
    pub fn because(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut failure = Failure::new(code);
        failure.detail = Some(detail.into());
        Self(Box::new(Kind::Problem(failure)))
    }

    /// Nothing of this kind is there, or the caller may not know of it: one answer for both.
    pub fn not_found() -> Self {
        Self::new(ErrorCode::NotFound)
    }

    /// Wrong fields; the list must not be empty.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let mut failure = Failure::new(ErrorCode::ValidationFailed);
        failure.errors = errors;
        Self(Box::new(Kind::Problem(failure)))
    }

    /// A password or a code in this field is not the right one.
    pub(crate) fn wrong(pointer: &'static str, why: &'static str) -> Self {
        Self::invalid(vec![FieldError::new(pointer, "wrong", why)])
    }

    /// Says which fields of the body it is about.
    pub(crate) fn with_fields(mut self, errors: Vec<FieldError>) -> Self {
        if let Kind::Problem(failure) = &mut *self.0 {
            failure.errors = errors;
        }
        self
    }

    /// The call asked for more than the project may have.
    fn quota_exceeded(limits: Vec<ExceededLimit>) -> Self {
        let mut failure = Failure::new(ErrorCode::QuotaExceeded);
        failure.detail = Some(quotas::in_words(&limits));
        failure.quota = limits;
        Self(Box::new(Kind::Problem(failure)))
    }

    /// No host takes the instance.
    pub(crate) fn no_room(explanation: Explanation) -> Self {
        let mut failure = Failure::new(ErrorCode::InsufficientCapacity);
        failure.detail = Some(explanation.summary.clone().into());
        failure.placement = Some(explanation);
        Self(Box::new(Kind::Problem(failure)))
    }

    /// Goes on when no field is wrong.
    pub fn reject(errors: Vec<FieldError>) -> Result<(), Self> {
        if errors.is_empty() { Ok(()) } else { Err(Self::invalid(errors)) }
    }

    /// A defect or an outage on our side. The cause is logged, never shown.
    pub fn internal(cause: impl Into<Cause>) -> Self {
        Self::caused(ErrorCode::Internal, cause)
    }

    pub fn caused(code: ErrorCode, cause: impl Into<Cause>) -> Self {
        let mut failure = Failure::new(code);
        failure.cause = Some(cause.into());
        Self(Box::new(Kind::Problem(failure)))
    }

    pub(super) fn replay(response: Response) -> Self {
        Self(Box::new(Kind::Replay(response)))
    }

    /// Says which statements deny.
    pub(crate) fn explained(mut self, denial: Denial) -> Self {
        if let Kind::Problem(failure) = &mut *self.0 {
            failure.denial = Some(denial);
        }
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        if let Kind::Problem(failure) = &mut *self.0 {
            failure.retry_after_secs = Some(seconds);
        }
        self
    }

    /// Whether it may be otherwise soon without the caller's doing.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(&*self.0, Kind::Problem(failure) if failure.retry_after_secs.is_some())
    }

    /// The sentence of a refusal that is the caller's to act on; `None` for what is not.
    pub(crate) fn refusal(&self) -> Option<(ErrorCode, &str)> {
        match &*self.0 {
            Kind::Problem(failure) if failure.cause.is_none() && failure.code.status().is_client_error() => {
                Some((failure.code, failure.detail.as_deref().unwrap_or(failure.code.title())))
            }
            _ => None,
        }
    }

    /// The code, unless this is a replay.
    pub fn code(&self) -> Option<ErrorCode> {
        match &*self.0 {
            Kind::Problem(failure) => Some(failure.code),
            Kind::Replay(_) => None,
        }
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            Kind::Replay(_) => f.write_str("answered before"),
            Kind::Problem(failure) => match (&failure.cause, &failure.detail) {
                (Some(cause), _) => write!(f, "{}: {cause}", failure.code.as_str()),
                (None, Some(detail)) => write!(f, "{}: {detail}", failure.code.as_str()),
                (None, None) => f.write_str(failure.code.as_str()),
            },
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match *self.0 {
            Kind::Replay(response) => response,
            Kind::Problem(failure) => {
                let mut response = failure.code.status().into_response();
                response.extensions_mut().insert(std::sync::Arc::new(failure));
                response
            }
        }
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        if let Some(limits) = quotas::exceeded_limits(&error) {
            return Self::quota_exceeded(limits);
        }
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
        // 25006: a standby, in the middle of a failover.
        let unavailable = is_unavailable(&error) || matches!(error, sqlx::Error::Tls(_)) || code == "25006";
        // Serialization failures, deadlocks and lock time-outs are nobody's fault: try again.
        let busy = matches!(&*code, "40001" | "40P01" | "55P03" | "57014");
        // The project was deleted between the decision and the change.
        let projectless = violated_constraint(&error).is_some_and(|name| name.ends_with("_project_id_fkey"));
        if unavailable {
            Self::caused(ErrorCode::DatabaseUnavailable, error).retry_after(1)
        } else if projectless {
            Self::not_found()
        } else if violated_constraint(&error) == Some("instances_stay_as_they_are_on_their_way") {
            Self::because(
                ErrorCode::WrongState,
                "the instance is on its way to another host; wait until that is over, or cancel the operation",
            )
        } else if busy {
            Self::caused(ErrorCode::Busy, error).retry_after(1)
        } else {
            Self::internal(error)
        }
    }
}

/// The name of the constraint that an insert or update broke, if that is why it failed.
pub fn violated_constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::constraint)
}

/// What a trigger says of the refusal besides its name.
pub fn refusal_detail(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.detail()
}

#[cfg(test)]
mod tests {
    use super::ErrorCode;

    #[test]
    fn codes_are_unique_snake_case_errors() {
        let mut codes: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert!(code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }
}
