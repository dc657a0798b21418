//! One verb for several instances.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::OperationId;
use sqlx::{Acquire, PgConnection};
use uuid::Uuid;

use super::super::deeds::{Behalf, delete, intend};
use super::super::store::{self, NewIntent, Row};
use super::super::types::{
    ActOnInstances, InstanceAction, InstanceActionError, InstanceActions, MAX_INSTANCES, OperationSummary,
    Reference, StopInstance,
};
use super::super::verbs::Verb;
use super::power::next_intent;
use crate::app::App;
use crate::auth::{Action, ProjectResource, actions};
use crate::hosts;
use crate::http::{ApiError, Call, FieldError, LabelSelector, Mutation, MutationQuery, Path, Selector};
use crate::operations::{OperationStatus, wait_for_end};
use crate::quotas;
use crate::volumes::store::ending;

type Change = Mutation<actions::ActOnInstances>;

/// Start, stop, reboot, pause, resume or delete several instances. The caller needs the right to do so to each of them, or
/// nothing happens; what one of them refuses because of its state is told in its result and keeps no other from it.
#[utoipa::path(post, path = "/v1/projects/{project}/instance_actions", tag = "instances",
    params(MutationQuery), request_body = ActOnInstances, responses(
        (status = 202, body = InstanceActions),
))]
pub(super) async fn act_on_instances(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: ActOnInstances = call.json()?;
    ApiError::reject(body.validate())?;
    let labels = LabelSelector::parse(body.label_selector.as_deref().unwrap_or_default())?;
    let change = call.changing::<actions::ActOnInstances>(&app, &project).await?;
    let asked = Asked { app: &app, call: &call, project: &project, body: &body, labels: &labels };
    match body.action {
        Verb::Start => asked.carry_out::<actions::StartInstance>(change).await,
        Verb::Stop => asked.carry_out::<actions::StopInstance>(change).await,
        Verb::Reboot => asked.carry_out::<actions::RebootInstance>(change).await,
        Verb::Pause => asked.carry_out::<actions::PauseInstance>(change).await,
        Verb::Resume => asked.carry_out::<actions::ResumeInstance>(change).await,
        Verb::Delete => asked.carry_out::<actions::DeleteInstance>(change).await,
    }
}

/// What is asked for.
struct Asked<'a> {
    app: &'a App,
    call: &'a Call,
    project: &'a str,
    body: &'a ActOnInstances,
    labels: &'a LabelSelector,
}

impl Asked<'_> {
    /// Does it to each, and answers.
    async fn carry_out<B: Action<On = ProjectResource>>(
        &self,
        mut change: Change,
    ) -> Result<Response, ApiError> {
        let Self { app, call, project, body, labels } = *self;
        let ids = match &body.instances {
            Some(named) => find_named::<B>(&mut change, project, named).await?,
            None => find_labelled::<B>(&mut change, project, labels).await?,
        };
        lock_what_goes_with(change.conn(), body.action, &ids).await?;
        let (stop, mut items) = (body.stop(), Vec::new());
        for id in ids {
            let id = id.to_string();
            let (next, item) = act::<B>(app, call, change, (project, &id), body.action, &stop).await?;
            change = next;
            items.extend(item);
        }
        answer(app, change, InstanceActions { items }).await
    }
}

/// Commits, and waits for all of them when the caller asked to.
async fn answer(app: &App, change: Change, mut answer: InstanceActions) -> Result<Response, ApiError> {
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let allowed = change.allowed.clone();
    let committed = change.commit(StatusCode::ACCEPTED, None, &answer).await?;
    if wait == 0 {
        return Ok(committed);
    }
    let until = Instant::now() + Duration::from_secs(wait.into());
    for operation in answer.items.iter_mut().filter_map(|item| item.operation.as_mut()) {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let left = u16::try_from(left).unwrap_or(wait);
        operation.status = wait_for_end(app, &allowed, operation.id, left).await?.status;
    }
    crate::http::untagged(StatusCode::OK, &answer)
}

/// The ids of instances by name or id, locked, in their order. One that the caller may not know of is one that is not there.
async fn find_named<B: Action<On = ProjectResource>>(
    change: &mut Change,
    project: &str,
    named: &[String],
) -> Result<Vec<Uuid>, ApiError> {
    let (mut ids, mut errors) = (BTreeSet::new(), Vec::new());
    for (index, name) in named.iter().enumerate() {
        let found = match Selector::parse(name) {
            Some(selector) if change.knows_of::<B>((project, name)).await? => {
                let (conn, allowed) = change.parts();
                store::find(conn, allowed, &selector).await?
            }
            _ => None,
        };
        match found {
            Some(row) => drop(ids.insert(row.id)),
            None => {
                let message = "this project has no such instance";
                errors.push(FieldError::new(format!("/instances/{index}"), "not_found", message));
            }
        }
    }
    ApiError::reject(errors)?;
    let ids: Vec<_> = ids.into_iter().collect();
    store::guests::lock(change.conn(), &ids).await?;
    Ok(ids)
}

/// The ids of those with these labels of which the caller may know, locked, in their order.
async fn find_labelled<B: Action<On = ProjectResource>>(
    change: &mut Change,
    project: &str,
    labels: &LabelSelector,
) -> Result<Vec<Uuid>, ApiError> {
    let (conn, allowed) = change.parts();
    let all = store::select(conn, allowed, labels, MAX_INSTANCES).await?;
    if all.len() > MAX_INSTANCES {
        let message = format!("more than {MAX_INSTANCES} instances have these labels; narrow them");
        return Err(ApiError::invalid(vec![FieldError::new("/label_selector", "too_many", message)]));
    }
    let mut ids = Vec::new();
    for id in all {
        if change.knows_of::<B>((project, &id.to_string())).await? {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// What is changed with the instances, which are locked, in the order of everybody: the hosts of all of them come last, and
/// in their own order.
async fn lock_what_goes_with(conn: &mut PgConnection, verb: Verb, ids: &[Uuid]) -> Result<(), sqlx::Error> {
    if verb == Verb::Delete {
        ending::lock(conn, ids).await?;
        quotas::store::lock_before_going(conn, ids, &[], &[]).await?;
    }
    hosts::store::hold_those_of(conn, ids).await
}

/// Does it to one of them; nothing when it is gone since.
async fn act<B: Action<On = ProjectResource>>(
    app: &App,
    call: &Call,
    change: Change,
    place: (&str, &str),
    verb: Verb,
    stop: &StopInstance,
) -> Result<(Change, Option<InstanceAction>), ApiError> {
    let (mut change, allowed) = change.also_proven::<B>(place, ApiError::not_found).await?;
    let conn = change.conn();
    let Some(row) = store::find(conn, &allowed, allowed.selector()).await? else { return Ok((change, None)) };
    let (before, now) = (row.clone().into_wire(change.now), change.now);
    let present = next_intent(app, call, &change, &row);
    let mut savepoint = change.conn().begin().await?;
    let done = match verb.next(&row, stop, present) {
        Ok(next) => carry_out(&mut savepoint, (&allowed).into(), verb, &row, &next).await,
        Err(refused) => Err(refused),
    };
    let (id, name) = (row.id, row.name);
    let instance = Reference { id, name };
    let operation = match done {
        Ok(operation) => operation,
        Err(error) => {
            let Some((code, detail)) = error.refusal() else { return Err(error) };
            let error = InstanceActionError { code: code.as_str(), detail: detail.to_owned() };
            savepoint.rollback().await?;
            return Ok((change, Some(InstanceAction { instance, operation: None, error: Some(error) })));
        }
    };
    savepoint.commit().await?;
    let after = store::find(change.conn(), &allowed, &Selector::Id(id)).await?;
    change.record(&allowed, &before, &after.map(|row| row.into_wire(now))).await?;
    Ok((change, Some(InstanceAction { instance, operation: Some(operation), error: None })))
}

async fn carry_out(
    conn: &mut PgConnection,
    behalf: Behalf,
    verb: Verb,
    row: &Row,
    next: &NewIntent,
) -> Result<OperationSummary, ApiError> {
    let summary = |id: OperationId, status| OperationSummary { id, kind: verb.kind().to_owned(), status };
    if verb != Verb::Delete {
        intend(conn, behalf, row, verb.kind(), next).await?;
        return Ok(summary(next.operation_id, OperationStatus::Running));
    }
    if row.deletion_requested_at.is_some() {
        // Asking twice is asking once.
        return Ok(summary(row.operation_id.into(), OperationStatus::from_text(&row.operation_status)));
    }
    Ok(match delete(conn, behalf, row, next).await? {
        super::super::deeds::Deleted::Requested => summary(next.operation_id, OperationStatus::Running),
        super::super::deeds::Deleted::Gone(_) => summary(next.operation_id, OperationStatus::Succeeded),
    })
}
