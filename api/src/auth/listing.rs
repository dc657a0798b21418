//! Which projects a list may name: those that the caller may get, and no other.

use policy::Place;
use sqlx::PgConnection;

use super::cache::PolicyVersion;
use super::caller::{Caller, ProjectRef};
use super::kind::Kind;
use super::rights::Rights;
use crate::app::App;
use crate::http::ApiError;

impl Caller {
    /// Whether there may be projects that the caller can get without having been given a policy there.
    pub(crate) fn may_get_any_project(&self) -> bool {
        let anywhere = self.rights.foresee(Kind::Project.seen_with(), Kind::Project, Place::AnyProject);
        anywhere.is_none_or(|judgement| judgement.allowed())
    }

    /// Whether the caller may get this project, where these policies decide for them.
    ///
    /// # Errors
    /// Those of [`super::PolicyCache::get`].
    pub(crate) async fn may_get(
        &self,
        conn: &mut PgConnection,
        app: &App,
        project: &ProjectRef,
        versions: &[PolicyVersion],
    ) -> Result<bool, ApiError> {
        let policies = app.policies.get(conn, versions).await?.into();
        let rights = Rights { policies, cloud_wide: 0, boundary: self.rights.boundary.clone() };
        Ok(self.may_get_with(&rights, project))
    }
}
