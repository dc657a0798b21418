//! One verb for several instances.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::OperationId;
use sqlx::{Acquire, PgConnection};

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
use crate::http::{ApiError, Call, FieldError, LabelSelector, Mutation, MutationQuery, Path, Selector};
use crate::operations::{OperationStatus, wait_for_end};

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
    let mut change = call.changing::<actions::ActOnInstances>(&app, &project).await?;
    let ids = match &body.instances {
        Some(named) => find_named(&mut change, named).await?,
        None => {
            let (conn, allowed) = change.parts();
            store::select(conn, allowed, &labels, MAX_INSTANCES).await?
        }
    };
    if ids.len() > MAX_INSTANCES {
        let message = format!("more than {MAX_INSTANCES} instances have these labels; narrow them");
        return Err(ApiError::invalid(vec![FieldError::new("/label_selector", "too_many", message)]));
    }
    let mut items = Vec::new();
    for id in ids {
        let id = id.to_string();
        let place = (project.as_str(), id.as_str());
        let stop = body.stop();
        let (next, item) = match body.action {
            Verb::Start => {
                act::<actions::StartInstance>(&app, &call, change, place, body.action, &stop).await
            }
            Verb::Stop => act::<actions::StopInstance>(&app, &call, change, place, body.action, &stop).await,
            Verb::Reboot => {
                act::<actions::RebootInstance>(&app, &call, change, place, body.action, &stop).await
            }
            Verb::Pause => {
                act::<actions::PauseInstance>(&app, &call, change, place, body.action, &stop).await
            }
            Verb::Resume => {
                act::<actions::ResumeInstance>(&app, &call, change, place, body.action, &stop).await
            }
            Verb::Delete => {
                act::<actions::DeleteInstance>(&app, &call, change, place, body.action, &stop).await
            }
        }?;
        change = next;
        items.extend(item);
    }
    let wait = if change.query.dry_run { 0 } else { change.query.wait };
    let allowed = change.allowed.clone();
    let mut answer = InstanceActions { items };
    let committed = change.commit(StatusCode::ACCEPTED, None, &answer).await?;
    if wait == 0 {
        return Ok(committed);
    }
    let until = Instant::now() + Duration::from_secs(wait.into());
    for operation in answer.items.iter_mut().filter_map(|item| item.operation.as_mut()) {
        let left = until.saturating_duration_since(Instant::now()).as_secs();
        let left = u16::try_from(left).unwrap_or(wait);
        operation.status = wait_for_end(&app, &allowed, operation.id, left).await?.status;
    }
    crate::http::untagged(StatusCode::OK, &answer)
}

/// The ids of instances by name or id, locked, in their order.
async fn find_named(change: &mut Change, named: &[String]) -> Result<Vec<uuid::Uuid>, ApiError> {
    let (mut ids, mut errors) = (BTreeSet::new(), Vec::new());
    let (conn, allowed) = change.parts();
    for (index, name) in named.iter().enumerate() {
        let found = match Selector::parse(name) {
            Some(selector) => store::find(conn, allowed, &selector).await?,
            None => None,
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
    store::guests::lock(conn, &ids).await?;
    Ok(ids)
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
