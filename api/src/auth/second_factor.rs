//! The second factor of a user: a code of an authenticator app, or a recovery code in its place.

use protocol::PrincipalId;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

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

/// What became of the demand for a second factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// The user has none.
    None,
    Met,
    Missing,
    Wrong,
}

/// Asks for the second factor of a user who signs in.
pub(super) async fn demand(
    conn: &mut PgConnection,
    user: PrincipalId,
    code: Option<&str>,
    now: OffsetDateTime,
) -> Result<Demand, ApiError> {
    match (store::is_enrolled(conn, user).await?, code) {
        (false, _) => Ok(Demand::None),
        (true, None) => Ok(Demand::Missing),
        (true, Some(code)) if accept(conn, user, code, now).await? => Ok(Demand::Met),
        (true, Some(_)) => Ok(Demand::Wrong),
    }
}

/// Spends a code of the app or a recovery code. False when it is wrong or was used before, or when the user
/// has no second factor.
pub(crate) async fn accept(
    conn: &mut PgConnection,
    user: PrincipalId,
    code: &str,
    now: OffsetDateTime,
) -> Result<bool, ApiError> {
    let Some(app) = store::lock(conn, user).await?.filter(|app| app.confirmed) else { return Ok(false) };
    let closed = app.wrong_codes >= MAX_WRONG_CODES && app.wrong_at.is_some_and(|at| now < at + CLOSED_FOR);
    if !closed
        && let Some(step) = totp::step_of(&app.secret, code, now)?
        && step > app.last_step
    {
        store::accept_step(conn, user, step).await?;
        return Ok(true);
    }
    if store::spend_recovery_code(conn, user, totp::hash_recovery_code(code), now).await? {
        return Ok(true);
    }
    if !closed {
        store::count_wrong_code(conn, user, now).await?;
    }
    Ok(false)
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
