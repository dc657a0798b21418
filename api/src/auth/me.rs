//! Who am I: what the cloud knows of whoever asks. Like asking one's own name, it needs no permission.

use axum::extract::State;
use protocol::{GroupId, PrincipalId, ProjectId};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::principal::{CredentialKind, PrincipalKind};
use super::store::me as store;
use crate::app::App;
use crate::http::{ApiError, Call};

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_me))
}

/// Whoever sends the request.
#[derive(Debug, Serialize, ToSchema)]
pub struct Me {
    pub id: PrincipalId,
    pub kind: PrincipalKind,
    pub name: String,
    pub description: String,
    /// The project of a service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<MyProject>,
    pub credential: MyCredential,
    pub second_factor: MySecondFactor,
    /// Whether this session is for choosing a new password only: every other call is refused with
    /// `password_change_required` until that is done.
    pub password_change_required: bool,
    pub groups: Vec<MyGroup>,
    /// Every policy that decides for this principal somewhere, once for each way in which it does.
    pub policies: Vec<MyPolicy>,
}

/// What the request was signed with.
#[derive(Debug, Serialize, ToSchema)]
pub struct MyCredential {
    pub kind: CredentialKind,
    pub id: Uuid,
    /// Whether it is an API key with a policy of its own, which may forbid what the policies below allow.
    pub narrowed: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MySecondFactor {
    /// Whether one is set up, so that every sign-in needs it.
    pub set_up: bool,
    /// When it was shown in this session, if it was.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub shown_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MyProject {
    pub id: ProjectId,
    pub name: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MyGroup {
    pub id: GroupId,
    pub name: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct MyPolicy {
    pub id: Uuid,
    pub name: String,
    /// The project where it applies; absent when it applies in the whole cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<MyProject>,
    pub via: Via,
    /// The group that it is attached to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<MyGroup>,
}

/// To whom a policy is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// To the principal.
    Principal,
    Group,
    /// To everyone who is signed in.
    Everyone,
}

/// Tell who I am, how I have signed in, and which policies decide for me.
#[utoipa::path(get, path = "/v1/me", tag = "auth", responses(
    (status = 200, body = Me),
))]
async fn get_me(State(app): State<App>, call: Call) -> Result<axum::Json<Me>, ApiError> {
    let (mut conn, caller) = call.whoami(&app).await?;
    let id = caller.principal.id;
    let about = store::about(&mut conn, id).await?;
    let groups = store::groups(&mut conn, id).await?;
    let policies = store::policies(&mut conn, id).await?;
    Ok(axum::Json(Me {
        id,
        kind: caller.principal.kind,
        name: caller.principal.name,
        description: about.description,
        project: about.project,
        credential: MyCredential {
            kind: caller.credential.kind,
            id: caller.credential.id,
            narrowed: caller.rights.boundary.is_some(),
        },
        second_factor: MySecondFactor { set_up: about.second_factor, shown_at: caller.second_factor_at },
        password_change_required: caller.password_change_required,
        groups,
        policies,
    }))
}
