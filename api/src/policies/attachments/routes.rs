//! Handlers of attachments.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::store::{self, Filter, Row};
use super::types::{AttachPolicy, ListAttachmentsQuery, PolicyAttachment, Subject, SubjectKind};
use crate::app::App;
use crate::auth::{Action, OfResource, Place, actions};
use crate::http::{ApiError, Call, MutationQuery, Page, Path, Selector};
use crate::policies::either::{Attach, Detach, ListAttached};
use crate::policies::{administrators, managed};

pub(in crate::policies) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(attach_policy, list_policy_attachments))
        .routes(routes!(detach_policy))
        .routes(routes!(attach_cloud_policy, list_cloud_policy_attachments))
        .routes(routes!(detach_cloud_policy))
}

/// Attach a policy in a project: from the next request on, its statements count for whatever this user, group
/// or service account does there.
#[utoipa::path(post, path = "/v1/projects/{project}/policy_attachments", tag = "policies",
    params(MutationQuery), request_body = AttachPolicy, responses(
        (status = 201, body = PolicyAttachment),
))]
async fn attach_policy(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    attach::<actions::AttachPolicy>(&app, &call, &project).await
}

/// Attach a policy of the cloud to somebody for the whole cloud, all projects included.
#[utoipa::path(post, path = "/v1/policy_attachments", tag = "policies", params(MutationQuery),
    request_body = AttachPolicy, responses(
        (status = 201, body = PolicyAttachment),
))]
async fn attach_cloud_policy(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    attach::<actions::AttachCloudPolicy>(&app, &call, ()).await
}

/// List what is attached in a project. What is attached for the whole cloud counts there as well, and is in
/// the list of the cloud.
#[utoipa::path(get, path = "/v1/projects/{project}/policy_attachments", tag = "policies",
    params(ListAttachmentsQuery), responses(
        (status = 200, body = Page<PolicyAttachment>),
))]
async fn list_policy_attachments(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<PolicyAttachment>>, ApiError> {
    list::<actions::ListPolicyAttachments>(&app, &call, &project).await
}

/// List what is attached for the whole cloud.
#[utoipa::path(get, path = "/v1/policy_attachments", tag = "policies", params(ListAttachmentsQuery), responses(
    (status = 200, body = Page<PolicyAttachment>),
))]
async fn list_cloud_policy_attachments(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<PolicyAttachment>>, ApiError> {
    list::<actions::ListCloudPolicyAttachments>(&app, &call, ()).await
}

/// Detach a policy in a project. It counts no more from the next request on.
#[utoipa::path(delete, path = "/v1/projects/{project}/policy_attachments/{attachment}", tag = "policies",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn detach_policy(
    State(app): State<App>,
    Path((project, attachment)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    detach::<actions::DetachPolicy>(&app, &call, (&project, &attachment)).await
}

/// Detach a policy from somebody in the cloud. The last administrator stays one.
#[utoipa::path(delete, path = "/v1/policy_attachments/{attachment}", tag = "policies", params(MutationQuery),
    responses(
        (status = 204),
))]
async fn detach_cloud_policy(
    State(app): State<App>,
    Path(attachment): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    detach::<actions::DetachCloudPolicy>(&app, &call, &attachment).await
}

async fn attach<A: Attach>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Result<Response, ApiError> {
    let new: AttachPolicy = call.json()?;
    let in_project = <A::On as Place>::target(path).project.is_some();
    let (kind, name) = new.subject(in_project).map_err(|error| ApiError::invalid(vec![error]))?;
    let mut change = call.changing::<A>(app, path).await?;
    let (id, now) = (app.clock.new_id(), change.now);
    let (conn, allowed) = change.parts();
    let policy = store::find_attachable(conn, allowed, &new.policy).await?;
    let subject = match (kind, Selector::parse(name)) {
        (SubjectKind::Everyone, _) => Some(Subject { kind, id: None, name: None, home: None }),
        (_, None) => None,
        (_, Some(selector)) => store::find_subject(conn, allowed.project_or_cloud(), kind, &selector).await?,
    };
    let (policy, subject) = match (policy, subject.ok_or_else(|| store::no_subject(kind))) {
        (Ok(policy), Ok(subject)) => (policy, subject),
        (policy, subject) => {
            return Err(ApiError::invalid(policy.err().into_iter().chain(subject.err()).collect()));
        }
    };
    store::insert(conn, allowed, id, policy, &subject, now).await?;
    let row = store::find(conn, allowed, id.as_uuid()).await?.ok_or_else(ApiError::not_found)?;
    change.commit(StatusCode::CREATED, None, &row.into_wire()).await
}

async fn list<A: ListAttached>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Result<axum::Json<Page<PolicyAttachment>>, ApiError> {
    let mut query: ListAttachmentsQuery = call.query()?;
    let page = query.page().checked()?;
    let filter = Filter {
        after: page.after()?,
        user: selected(query.user),
        group: selected(query.group),
        service_account: selected(query.service_account),
        policy: selected(query.policy),
        rows: page.rows(),
    };
    let mut reading = call.reading::<A>(app, path).await?;
    let (conn, allowed) = reading.parts();
    let items = store::list(conn, allowed, &filter).await?.into_iter().map(Row::into_wire).collect();
    Ok(axum::Json(page.page(items, |attachment: &PolicyAttachment| attachment.id.as_uuid())))
}

/// A filter as text; what can be neither name nor id matches nothing.
fn selected(text: Option<String>) -> Option<String> {
    text.map(|text| match Selector::parse(&text) {
        Some(Selector::Id(id)) => id.to_string(),
        Some(Selector::Name(_)) => text,
        None => String::new(),
    })
}

async fn detach<A: Detach + Action<On: OfResource>>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<A>(app, path).await?;
    let (conn, allowed) = change.parts();
    let id = allowed.resource_id().ok_or_else(ApiError::not_found)?;
    let row = store::find(conn, allowed, id).await?.ok_or_else(ApiError::not_found)?;
    let of_administrators = allowed.project_or_cloud().is_none() && row.policy_id == managed::administrator();
    store::delete(conn, allowed, id).await?;
    change.note_before(&row.into_wire());
    if of_administrators {
        administrators::keep_one(change.conn()).await?;
    }
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
