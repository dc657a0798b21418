//! Handlers of the policies of the cloud.

use axum::extract::State;
use axum::response::Response;

use crate::app::App;
use crate::auth::{New, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, Path};
use crate::policies::types::{CreatePolicy, ListPoliciesQuery, Policy, PolicyVersions, UpdatePolicy};

/// Write a policy of the cloud, for the cloud as a whole and for all projects. It has no effect until it is
/// attached.
#[utoipa::path(post, path = "/v1/policies", tag = "policies", params(MutationQuery),
    request_body = CreatePolicy, responses(
        (status = 201, body = Policy),
))]
pub(super) async fn create_cloud_policy(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new = super::parse_new(&call)?;
    super::create::<actions::CreateCloudPolicy>(&app, &call, &new, New::named(new.name.as_str())).await
}

/// List the policies of the cloud.
#[utoipa::path(get, path = "/v1/policies", tag = "policies", params(ListPoliciesQuery), responses(
    (status = 200, body = Page<Policy>),
))]
pub(super) async fn list_cloud_policies(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<Policy>>, ApiError> {
    super::list::<actions::ListCloudPolicies>(&app, &call, ()).await
}

/// Get a policy of the cloud.
#[utoipa::path(get, path = "/v1/policies/{policy}", tag = "policies", responses(
    (status = 200, body = Policy),
))]
pub(super) async fn get_cloud_policy(
    State(app): State<App>,
    Path(policy): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    super::get::<actions::GetCloudPolicy>(&app, &call, &policy).await
}

/// Change a policy of the cloud: write the next version of its document, go back to an earlier one, or change
/// its name or description. Managed policies cannot be changed.
#[utoipa::path(patch, path = "/v1/policies/{policy}", tag = "policies", params(MutationQuery),
    request_body = UpdatePolicy, responses(
        (status = 200, body = Policy),
))]
pub(super) async fn update_cloud_policy(
    State(app): State<App>,
    Path(policy): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    super::update::<actions::UpdateCloudPolicy>(&app, &call, &policy).await
}

/// Delete a policy of the cloud that is attached to nobody any more.
#[utoipa::path(delete, path = "/v1/policies/{policy}", tag = "policies", params(MutationQuery), responses(
    (status = 204),
))]
pub(super) async fn delete_cloud_policy(
    State(app): State<App>,
    Path(policy): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    super::delete::<actions::DeleteCloudPolicy>(&app, &call, &policy).await
}

/// List the versions of a policy of the cloud, the newest first.
#[utoipa::path(get, path = "/v1/policies/{policy}/versions", tag = "policies", responses(
    (status = 200, body = PolicyVersions),
))]
pub(super) async fn list_cloud_policy_versions(
    State(app): State<App>,
    Path(policy): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    super::versions::<actions::GetCloudPolicy>(&app, &call, &policy).await
}
