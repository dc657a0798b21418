//! The second factor of a user: a code of an authenticator app, or a recovery code in its place.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use super::backoff::delayed;
use super::store::second_factor as store;
use super::totp;
use crate::http::{ApiError, ErrorCode};

/// So many wrong codes in a row close the app's door for a while; recovery codes still open it. At this rate
/// half a million guesses take a dozen years.
const MAX_WRONG_CODES: i32 = 5;
const CLOSED_FOR: Duration = Duration::minutes(15);

/// What a new enrolment gives, once.
pub(crate) struct Enrolment {
    pub secret: String,
    pub url: String,
}

/// What became of a code that was shown, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was right, and is spent.
    Accepted,
    /// It was empty: no guess, and not counted as one.
    Missing,
    /// It was wrong or used before, or the user has no second factor.
    Wrong,
    /// There were too many wrong codes, so that those of the app are not looked at; and it was no recovery code.
    Closed { until: OffsetDateTime },
}

/// How to go on after [`Verdict::Wrong`].
pub(crate) const WRONG: &str = "the code is wrong or was used before: wait for the next one of your authenticator app, or use a recovery code";

/// Whether a sign-in of this user needs a second factor.
pub(super) async fn is_set_up(conn: &mut PgConnection, user: PrincipalId) -> Result<bool, ApiError> {
    Ok(store::is_enrolled(conn, user).await?)
}

/// Spends a code of the app or a recovery code, and counts a wrong one.
pub(crate) async fn check(
    conn: &mut PgConnection,
    user: PrincipalId,
    code: &str,
    now: OffsetDateTime,
) -> Result<Verdict, ApiError> {
    if code.trim().is_empty() {
        return Ok(Verdict::Missing);
    }
    let Some(app) = store::lock(conn, user).await?.filter(|app| app.confirmed) else {
        return Ok(Verdict::Wrong);
    };
    let closed_until = app.wrong_at.map(|at| at + CLOSED_FOR);
    let closed_until = closed_until.filter(|until| app.wrong_codes >= MAX_WRONG_CODES && now < *until);
    if closed_until.is_none()
        && let Some(step) = totp::step_of(&app.secret, code, now)?
        && step > app.last_step
    {
        store::accept_step(conn, user, step).await?;
        return Ok(Verdict::Accepted);
    }
    if store::spend_recovery_code(conn, user, totp::hash_recovery_code(code), now).await? {
        return Ok(Verdict::Accepted);
    }
    if let Some(until) = closed_until {
        return Ok(Verdict::Closed { until });
    }
    store::count_wrong_code(conn, user, now).await?;
    Ok(Verdict::Wrong)
}

/// `sign_in_delayed`: the answer to [`Verdict::Closed`].
pub(crate) fn closed(until: OffsetDateTime, now: OffsetDateTime) -> ApiError {
    let why = "too many wrong codes: use a recovery code now, or a code of your authenticator app";
    delayed(why, until, now)
}

/// Gives the user a new secret, which counts for nothing until a first code has confirmed it.
///
/// # Errors
/// `wrong_state` when the user has a second factor already.
pub(crate) async fn enrol(
    conn: &mut PgConnection,
    user: PrincipalId,
    name: &str,
    now: OffsetDateTime,
) -> Result<Enrolment, ApiError> {
    let secret = totp::new_secret();
    if !store::put_secret(conn, user, &secret, now).await? {
        return Err(ApiError::because(
            ErrorCode::WrongState,
            "a second factor is set up already; remove it first",
        ));
    }
    Ok(Enrolment { secret: totp::base32(&secret, name)?, url: totp::url(&secret, name)? })
}

/// Sets the second factor up with a first code of the app, and gives the recovery codes. `None` when the code
/// is wrong.
///
/// # Errors
/// `wrong_state` when nothing waits to be confirmed.
pub(crate) async fn confirm(
    conn: &mut PgConnection,
    user: PrincipalId,
    code: &str,
    now: OffsetDateTime,
) -> Result<Option<Vec<String>>, ApiError> {
    let Some(app) = store::lock(conn, user).await?.filter(|app| !app.confirmed) else {
        return Err(ApiError::because(
            ErrorCode::WrongState,
            "nothing waits to be confirmed; begin with a new secret",
        ));
    };
    let Some(step) = totp::step_of(&app.secret, code, now)? else { return Ok(None) };
    store::confirm(conn, user, step, now).await?;
    renew_recovery_codes(conn, user).await.map(Some)
}

/// New recovery codes; the old ones are worth nothing any more.
pub(crate) async fn renew_recovery_codes(
    conn: &mut PgConnection,
    user: PrincipalId,
) -> Result<Vec<String>, ApiError> {
    let codes = totp::new_recovery_codes();
    let hashes: Vec<Vec<u8>> = codes.iter().map(|code| totp::hash_recovery_code(code).to_vec()).collect();
    store::replace_recovery_codes(conn, user, &hashes).await?;
    Ok(codes)
}

/// Takes the second factor away; false when there was none. No session has shown one any more.
pub(crate) async fn remove(conn: &mut PgConnection, user: PrincipalId) -> Result<bool, ApiError> {
    Ok(store::remove(conn, user).await?)
}
