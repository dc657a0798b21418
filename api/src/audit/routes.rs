//! Reading the audit log: pages, one record, and an export as JSON lines. Of a project for its members, of the
//! cloud for its operators.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::store::{self, Order};
use super::types::{AuditRecord, Filter};
use crate::app::App;
use crate::auth::{Action, Allowed, actions};
use crate::http::{ApiError, Call, Page, PageQuery, Path, Reading};

/// Records per query of an export.
const EXPORT_BATCH: i64 = 500;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_cloud_audit_records))
        .routes(routes!(export_cloud_audit_records))
        .routes(routes!(get_cloud_audit_record))
        .routes(routes!(list_audit_records))
        .routes(routes!(export_audit_records))
        .routes(routes!(get_audit_record))
}

/// List the audit records of the cloud and of all its projects, newest first.
#[utoipa::path(get, path = "/v1/audit_records", tag = "audit", params(Filter), responses(
    (status = 200, body = Page<AuditRecord>),
))]
async fn list_cloud_audit_records(
    State(app): State<App>,
    call: Call,
) -> Result<axum::Json<Page<AuditRecord>>, ApiError> {
    let filter = call.query::<Filter>()?.checked()?;
    list(call.reading::<actions::ListCloudAuditRecords>(&app, ()).await?, filter).await
}

/// List the audit records of a project, newest first.
#[utoipa::path(get, path = "/v1/projects/{project}/audit_records", tag = "audit", params(Filter), responses(
    (status = 200, body = Page<AuditRecord>),
))]
async fn list_audit_records(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<axum::Json<Page<AuditRecord>>, ApiError> {
    let filter = call.query::<Filter>()?.checked()?;
    list(call.reading::<actions::ListAuditRecords>(&app, &project).await?, filter).await
}

async fn list<A: Action>(
    mut reading: Reading<A>,
    filter: Filter,
) -> Result<axum::Json<Page<AuditRecord>>, ApiError> {
    let page = PageQuery::new(filter.limit, filter.cursor.clone());
    let beyond = Some(page.after()?).filter(|id| !id.is_nil());
    let (conn, allowed) = reading.parts();
    let items = store::list(conn, allowed, &filter, Order::NewestFirst, beyond, page.rows()).await?;
    Ok(axum::Json(page.page(items, |record| record.id)))
}

/// Get an audit record of the cloud or of any project.
#[utoipa::path(get, path = "/v1/audit_records/{audit_record}", tag = "audit", responses(
    (status = 200, body = AuditRecord),
))]
async fn get_cloud_audit_record(
    State(app): State<App>,
    Path(record): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    find(call.reading::<actions::GetCloudAuditRecord>(&app, &record).await?, &record).await
}

/// Get an audit record of a project.
#[utoipa::path(get, path = "/v1/projects/{project}/audit_records/{audit_record}", tag = "audit", responses(
    (status = 200, body = AuditRecord),
))]
async fn get_audit_record(
    State(app): State<App>,
    Path((project, record)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    find(call.reading::<actions::GetAuditRecord>(&app, (&project, &record)).await?, &record).await
}

async fn find<A: Action>(mut reading: Reading<A>, record: &str) -> Result<Response, ApiError> {
    let id = Uuid::try_parse(record).map_err(|_| ApiError::not_found())?;
    let (conn, allowed) = reading.parts();
    let record = store::find(conn, allowed, id).await?.ok_or_else(ApiError::not_found)?;
    Ok(axum::Json(record).into_response())
}

/// Export the audit records of the cloud and of all its projects as JSON lines, oldest first. `limit` and
/// `cursor` are ignored.
#[utoipa::path(get, path = "/v1/audit_records/export", tag = "audit", params(Filter), responses(
    (status = 200, body = String, content_type = "application/x-ndjson"),
))]
async fn export_cloud_audit_records(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let filter = call.query::<Filter>()?.checked()?;
    let mut reading = call.reading::<actions::ListCloudAuditRecords>(&app, ()).await?;
    let allowed = reading.parts().1.clone();
    drop(reading);
    Ok(export(app, allowed, filter))
}

/// Export the audit records of a project as JSON lines, oldest first. `limit` and `cursor` are ignored.
#[utoipa::path(get, path = "/v1/projects/{project}/audit_records/export", tag = "audit", params(Filter), responses(
    (status = 200, body = String, content_type = "application/x-ndjson"),
))]
async fn export_audit_records(
    State(app): State<App>,
    Path(project): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let filter = call.query::<Filter>()?.checked()?;
    let mut reading = call.reading::<actions::ListAuditRecords>(&app, &project).await?;
    let allowed = reading.parts().1.clone();
    drop(reading);
    Ok(export(app, allowed, filter))
}

/// A batch at a time, so that an export of any size takes little memory and holds no connection while the
/// reader is slow. A failure breaks the connection: a short export never looks like a whole one.
fn export<A: Action>(app: App, allowed: Allowed<A>, filter: Filter) -> Response {
    let batches = futures_util::stream::try_unfold(Some(Uuid::nil()), move |beyond| {
        let (app, allowed, filter) = (app.clone(), allowed.clone(), filter.clone());
        async move {
            let Some(beyond) = beyond else { return Ok(None) };
            let mut conn = app.pool.acquire().await?;
            let records =
                store::list(&mut conn, &allowed, &filter, Order::OldestFirst, Some(beyond), EXPORT_BATCH)
                    .await?;
            let next = records.last().map(|record| record.id);
            let lines = records.iter().filter_map(|record| serde_json::to_string(record).ok());
            let text: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
            Ok::<_, sqlx::Error>(Some((Bytes::from(text), next)))
        }
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(batches)).into_response()
}
