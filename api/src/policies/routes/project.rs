//! Handlers of the policies of a project.

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, Path};
use crate::policies::types::{CreatePolicy, ListPoliciesQuery, Policy, PolicyVersions, UpdatePolicy};

/// Write a policy of a project. It has no effect until it is attached.
#[utoipa::path(post, path = "/v1/projects/{project}/policies", tag = "policies", params(MutationQuery),
    request_body = CreatePolicy, responses(
        (status = 201, body = Policy),
))]
pub(super) async fn create_policy(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let new = super::parse_new(&call)?;
    super::create::<actions::CreatePolicy>(&app, &call, &new, (&project, New::named(new.name.as_str()))).await
}

/// List the policies that can be attached in a project: its own, and those of the cloud, among them the
/// managed ones that come with Cumulo.
#[utoipa::path(get, path = "/v1/projects/{project}/policies", tag = "policies", params(ListPoliciesQuery),
    responses(
        (status = 200, body = Page<Policy>),
))]
pub(super) async fn list_policies(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<Policy>>, ApiError> {
    super::list::<actions::ListPolicies>(&app, &call, &project).await
}

/// Get a policy of a project, or one of the cloud that can be attached there.
#[utoipa::path(get, path = "/v1/projects/{project}/policies/{policy}", tag = "policies", responses(
    (status = 200, body = Policy),
))]
pub(super) async fn get_policy(
    State(app): State<App>,
    Path((project, policy)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    super::get::<actions::GetPolicy>(&app, &call, (&project, &policy)).await
}

/// Change a policy of a project: write the next version of its document, go back to an earlier one, or change
/// its name or description.
#[utoipa::path(patch, path = "/v1/projects/{project}/policies/{policy}", tag = "policies",
    params(MutationQuery), request_body = UpdatePolicy, responses(
        (status = 200, body = Policy),
))]
pub(super) async fn update_policy(
    State(app): State<App>,
    Path((project, policy)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    super::update::<actions::UpdatePolicy>(&app, &call, (&project, &policy)).await
}

/// Delete a policy of a project that is attached to nobody any more.
#[utoipa::path(delete, path = "/v1/projects/{project}/policies/{policy}", tag = "policies",
    params(MutationQuery), responses(
        (status = 204),
))]
pub(super) async fn delete_policy(
    State(app): State<App>,
    Path((project, policy)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    super::delete::<actions::DeletePolicy>(&app, &call, (&project, &policy)).await
}

/// List the versions of a policy, the newest first.
#[utoipa::path(get, path = "/v1/projects/{project}/policies/{policy}/versions", tag = "policies", responses(
    (status = 200, body = PolicyVersions),
))]
pub(super) async fn list_policy_versions(
    State(app): State<App>,
    Path((project, policy)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    super::versions::<actions::GetPolicy>(&app, &call, (&project, &policy)).await
}
