//! Handlers of simulations and questions.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::forecast;
use super::matter::{Matter, Mistake};
use super::run::{Asker, Prepared};
use super::types::{
    Candidate, Capabilities, SimulatePolicies, Simulation, WhatCanQuery, WhoCanQuery, one_subject,
};
use crate::app::App;
use crate::auth::{Action, Place, actions};
use crate::http::{ApiError, Call, FieldError, Page, Path, Reading, Selector};
use crate::policies::attachments::store::{find_subject, no_subject};

type Answer<T> = Result<axum::Json<T>, ApiError>;

pub(in crate::policies) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(simulate_policies))
        .routes(routes!(simulate_cloud_policies))
        .routes(routes!(list_capabilities))
        .routes(routes!(list_cloud_capabilities))
        .routes(routes!(list_candidates))
        .routes(routes!(list_cloud_candidates))
}

/// Say how a request in a project would be decided, and by which statements, without making it: for a
/// principal, for policies that are stored nowhere, or for both together.
#[utoipa::path(post, path = "/v1/projects/{project}/policies:simulate", tag = "policies",
    request_body = SimulatePolicies, responses(
        (status = 200, body = Simulation),
))]
async fn simulate_policies(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Answer<Simulation> {
    simulate::<actions::SimulatePolicies>(&app, &call, &project).await
}

/// Say how any request in the cloud or in a project would be decided, and by which statements, without making
/// it: for a principal, for policies that are stored nowhere, or for both together.
#[utoipa::path(post, path = "/v1/policies:simulate", tag = "policies", request_body = SimulatePolicies,
    responses(
        (status = 200, body = Simulation),
))]
async fn simulate_cloud_policies(State(app): State<App>, call: Call) -> Answer<Simulation> {
    simulate::<actions::SimulateCloudPolicies>(&app, &call, ()).await
}

/// Say what somebody can do in a project: each action, with whether it is allowed in any case, in none, or
/// depends on the resource or on conditions.
#[utoipa::path(get, path = "/v1/projects/{project}/policies:what_can", tag = "policies", params(WhatCanQuery),
    responses(
        (status = 200, body = Capabilities),
))]
async fn list_capabilities(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Answer<Capabilities> {
    what_can::<actions::SimulatePolicies>(&app, &call, &project).await
}

/// Say what somebody can do in the cloud as a whole. What they can do in a project, the project says.
#[utoipa::path(get, path = "/v1/policies:what_can", tag = "policies", params(WhatCanQuery), responses(
    (status = 200, body = Capabilities),
))]
async fn list_cloud_capabilities(State(app): State<App>, call: Call) -> Answer<Capabilities> {
    what_can::<actions::SimulateCloudPolicies>(&app, &call, ()).await
}

/// Say who can do something to a resource of a project, for sure or under conditions: every enabled principal
/// to whom a policy gives the right there, directly, through a group or for the whole cloud.
#[utoipa::path(get, path = "/v1/projects/{project}/policies:who_can", tag = "policies", params(WhoCanQuery),
    responses(
        (status = 200, body = Page<Candidate>),
))]
async fn list_candidates(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Answer<Page<Candidate>> {
    who_can::<actions::SimulatePolicies>(&app, &call, &project).await
}

/// Say who can do something to a resource of the cloud or of any project, for sure or under conditions.
#[utoipa::path(get, path = "/v1/policies:who_can", tag = "policies", params(WhoCanQuery), responses(
    (status = 200, body = Page<Candidate>),
))]
async fn list_cloud_candidates(State(app): State<App>, call: Call) -> Answer<Page<Candidate>> {
    who_can::<actions::SimulateCloudPolicies>(&app, &call, ()).await
}

async fn simulate<A: Action>(app: &App, call: &Call, path: <A::On as Place>::Path<'_>) -> Answer<Simulation> {
    let asked: SimulatePolicies = call.json()?;
    let prepared = Prepared::new(asked).map_err(ApiError::invalid)?;
    let mut reading = call.reading::<A>(app, path).await?;
    let scope = reading.caller.project.clone();
    let asker = Asker { app, client: reading.caller.client, now: app.clock.now(), scope: scope.as_ref() };
    let (conn, _) = reading.parts();
    prepared.run(conn, &asker).await.map(axum::Json).map_err(Mistake::in_body)
}

async fn what_can<A: Action>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Answer<Capabilities> {
    let query: WhatCanQuery = call.query()?;
    let mut reading: Reading<A> = call.reading(app, path).await?;
    let project = reading.caller.project.clone();
    let (conn, _) = reading.parts();
    let named = one_subject(query.user.as_deref(), query.group.as_deref(), query.service_account.as_deref());
    let nobody = || FieldError::new("", "invalid", "name a user, a group or a service_account");
    let (kind, name) =
        named.and_then(|named| named.ok_or_else(nobody)).map_err(|error| Mistake::from(error).in_query())?;
    let subject = match Selector::parse(name) {
        Some(selector) => {
            find_subject(conn, project.as_ref().map(|project| project.id), kind, &selector).await?
        }
        None => None,
    };
    let subject = subject.ok_or_else(|| Mistake::from(no_subject(kind)).in_query())?;
    let answer = forecast::what_can(conn, app, project.as_ref(), subject).await;
    answer.map(axum::Json).map_err(Mistake::in_query)
}

async fn who_can<A: Action>(
    app: &App,
    call: &Call,
    path: <A::On as Place>::Path<'_>,
) -> Answer<Page<Candidate>> {
    let mut query: WhoCanQuery = call.query()?;
    let page = query.page().checked()?;
    let after = page.after()?;
    let mut reading: Reading<A> = call.reading(app, path).await?;
    let scope = reading.caller.project.clone();
    let (conn, _) = reading.parts();
    let action = ("/action", query.action.as_str());
    let found = Matter::find(conn, scope.as_ref(), action, query.resource.as_deref()).await;
    let matter = found.map_err(Mistake::in_query)?;
    let limit = usize::try_from(page.rows()).unwrap_or_default();
    let answer = forecast::who_can(conn, app, &matter, after, limit).await;
    let items = answer.map_err(Mistake::in_query)?;
    Ok(axum::Json(page.page(items, |candidate: &Candidate| candidate.subject.id.unwrap_or_default())))
}
