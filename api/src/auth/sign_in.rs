//! Proving to be a user: by a password and, where there is one, a second factor; or by a one-time code.
//!
//! ```text
//! Trial::begin                    may somebody try now? if so, it counts as a failure
//! by_password, by_code            who is it?              no: the failure is in the audit log
//! with_second_factor              is it really?           no: the same
//! Proof::accept                   it was none; in the audit log; COMMIT
//! ```

use protocol::{Name, PrincipalId};
use sqlx::{PgConnection, Postgres, Transaction};
use time::OffsetDateTime;

use super::backoff::{self, Admission, Attempt, Turn};
use super::second_factor::{self, Verdict};
use super::store;
use super::visit::{Claim, Visit};
use crate::app::App;
use crate::audit::Outcome;
use crate::http::{ApiError, ErrorCode};

/// An attempt of a visitor that may go on.
pub(super) struct Trial<'a> {
    app: &'a App,
    visit: &'a Visit,
    claim: Claim<'a>,
    attempt: Attempt,
    /// The next attempt begins when this one has ended.
    turn: Turn<'a>,
}

/// A visitor who is this user for as long as the transaction lasts.
pub(super) struct Proof<'a> {
    trial: Trial<'a>,
    tx: Transaction<'static, Postgres>,
    pub user: PrincipalId,
    pub now: OffsetDateTime,
}

impl<'a> Trial<'a> {
    /// Lets somebody try to be this user in order to do this. A name that does not exist is treated alike.
    ///
    /// # Errors
    /// `sign_in_delayed`, in the audit log the first time in each wait.
    pub(super) async fn begin(
        app: &'a App,
        visit: &'a Visit,
        action: &'static str,
        username: &'a str,
    ) -> Result<Self, ApiError> {
        // A text that PostgreSQL would refuse names nobody.
        let name = username.parse::<Name>().map_or("", |_| username);
        let claim = Claim { action, user: None, name };
        let turn = app.sign_ins.take(username, visit.client.address).await;
        let now = app.clock.now();
        let mut tx = app.begin().await?;
        match backoff::admit(&mut tx, username, visit.client.address, now).await? {
            Admission::Open(attempt) => {
                tx.commit().await?;
                Ok(Self { app, visit, claim, attempt, turn })
            }
            Admission::Delayed(delay) if delay.first => {
                Err(visit.fail(tx, app, claim, delay.refusal(now)).await)
            }
            Admission::Delayed(delay) => Err(delay.refusal(now)),
        }
    }

    /// The user, by the password. An unknown name and a wrong password take as long and look the same.
    ///
    /// # Errors
    /// `invalid_credentials`.
    pub(super) async fn by_password(mut self, password: String) -> Result<Proof<'a>, ApiError> {
        let user = store::passwords::find(&mut *self.app.pool.acquire().await?, self.claim.name).await?;
        self.claim.user = user.as_ref().map(|user| user.id);
        // No transaction waits for the hash, so the password is looked at again afterwards.
        let hash = user.as_ref().map(|user| user.password_hash.clone());
        let genuine = self.app.passwords.verify(password, hash).await?;
        let mut tx = self.app.begin().await?;
        if let Some(user) = user.filter(|_| genuine)
            && store::passwords::still_holds(&mut tx, &user).await?
        {
            return Ok(self.proved(tx, user.id));
        }
        Err(self.fail(tx, ApiError::new(ErrorCode::InvalidCredentials)).await)
    }

    /// The user, by the one-time code, which is then spent.
    ///
    /// # Errors
    /// `invalid_password_code`, whatever is wrong: the name, the code, or its age.
    pub(super) async fn by_code(mut self, code: &str) -> Result<Proof<'a>, ApiError> {
        let mut tx = self.app.begin().await?;
        let now = self.app.clock.now();
        if let Some(user) = store::passwords::spend_code(&mut tx, self.claim.name, code, now).await? {
            self.claim.user = Some(user);
            return Ok(self.proved(tx, user));
        }
        let refusal = ApiError::because(
            ErrorCode::InvalidPasswordCode,
            "check user name and code, or ask an administrator for a new code",
        );
        Err(self.fail(tx, refusal).await)
    }

    fn proved(self, tx: Transaction<'static, Postgres>, user: PrincipalId) -> Proof<'a> {
        let now = self.app.clock.now();
        Proof { trial: self, tx, user, now }
    }

    async fn fail(self, tx: Transaction<'_, Postgres>, refusal: ApiError) -> ApiError {
        self.visit.fail(tx, self.app, self.claim, refusal).await
    }
}

impl Proof<'_> {
    /// Asks for the second factor; says when it was shown, `None` for a user who has none.
    ///
    /// # Errors
    /// `second_factor_required`, `invalid_second_factor`, or `sign_in_delayed` after too many wrong codes.
    pub(super) async fn with_second_factor(
        mut self,
        otp: Option<&str>,
    ) -> Result<(Self, Option<OffsetDateTime>), ApiError> {
        let now = self.now;
        if !second_factor::is_set_up(&mut self.tx, self.user).await? {
            return Ok((self, None));
        }
        let verdict = second_factor::check(&mut self.tx, self.user, otp.unwrap_or_default(), now).await?;
        let Self { trial, mut tx, .. } = match verdict {
            Verdict::Accepted => return Ok((self, Some(now))),
            _ => self,
        };
        let refusal = match verdict {
            Verdict::Closed { until } => second_factor::closed(until, now),
            Verdict::Missing => ApiError::because(
                ErrorCode::SecondFactorRequired,
                "sign in again, with the code of your authenticator app or a recovery code as `otp`",
            ),
            _ => ApiError::because(ErrorCode::InvalidSecondFactor, second_factor::WRONG),
        };
        let Trial { app, visit, claim, attempt, turn: _turn } = trial;
        if verdict == Verdict::Missing {
            // Nothing was guessed.
            attempt.take_back(&mut tx, now).await?;
        }
        Err(visit.fail(tx, app, claim, refusal).await)
    }

    /// For what the user came for.
    pub(super) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    /// Ends the visit: it was the right user.
    pub(super) async fn accept(mut self) -> Result<(), ApiError> {
        let Trial { app, visit, claim, attempt, turn: _turn } = self.trial;
        attempt.succeeded(&mut self.tx, self.now).await?;
        visit.record(&mut self.tx, app, Outcome::Allowed, claim).await?;
        Ok(self.tx.commit().await?)
    }
}
