//! Sharing an image with other projects.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::ProjectId;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::store::{self, shares};
use super::super::types::ImageShare;
use super::lock;
use crate::app::App;
use crate::auth::{Action, InProject, actions};
use crate::http::{
    ApiError, Call, ErrorCode, Mutation, MutationQuery, NoFields, Page, Path, PlainQuery, Selector,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_image_shares)).routes(routes!(share_image, unshare_image))
}

/// List the other projects that may use an image.
#[utoipa::path(get, path = "/v1/projects/{project}/images/{image}/shares", tag = "images",
    params(PlainQuery), responses(
        (status = 200, body = Page<ImageShare>),
))]
async fn list_image_shares(
    State(app): State<App>,
    Path((project, image)): Path<(String, String)>,
    call: Call,
) -> Result<axum::Json<Page<ImageShare>>, ApiError> {
    let query = call.query::<PlainQuery>()?.checked()?;
    let after = query.after()?;
    let mut reading = call.reading::<actions::ListImageShares>(&app, (&project, &image)).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed, allowed.selector()).await?.ok_or_else(ApiError::not_found)?;
    let items = shares::list(conn, allowed, row.id, after, query.rows()).await?;
    Ok(axum::Json(query.page(items, |share: &ImageShare| share.project_id.as_uuid())))
}

/// Let another project use an image: named by its id, or by its name if you may get it. Again, it changes nothing.
#[utoipa::path(put, path = "/v1/projects/{project}/images/{image}/shares/{other}", tag = "images",
    params(MutationQuery), responses(
        (status = 200, body = ImageShare),
))]
async fn share_image(
    State(app): State<App>,
    Path((project, image, other)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    call.json::<NoFields>()?;
    let mut change = call.changing::<actions::ShareImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let other = find_partner(&app, &mut change, &other).await?;
    if other == change.allowed.project() {
        let detail = "an image can always be used in its own project; name another one";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let (conn, allowed) = change.parts();
    let share = shares::insert(conn, allowed, row.id, other, now).await?;
    change.commit(StatusCode::OK, None, &share).await
}

/// No longer let another project use an image. The instances that it has made from it stay.
#[utoipa::path(delete, path = "/v1/projects/{project}/images/{image}/shares/{other}", tag = "images",
    params(MutationQuery), responses(
        (status = 204),
))]
async fn unshare_image(
    State(app): State<App>,
    Path((project, image, other)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::UnshareImage>(&app, (&project, &image)).await?;
    let (row, now) = (lock(&mut change).await?, change.now);
    let other = find_partner(&app, &mut change, &other).await?;
    let (conn, allowed) = change.parts();
    let share = shares::delete(conn, allowed, row.id, other, now).await?.ok_or_else(unknown)?;
    change.note_before(&share);
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}

/// The project to share with. A name tells something only to those who may get the project of that name; an id
/// cannot be guessed.
async fn find_partner<A: Action<On: InProject>>(
    app: &App,
    change: &mut Mutation<A>,
    segment: &str,
) -> Result<ProjectId, ApiError> {
    let selector = Selector::parse(segment).ok_or_else(unknown)?;
    let caller = change.caller.clone();
    let (conn, allowed) = change.parts();
    let partner = shares::partner(conn, allowed, &selector).await?.ok_or_else(unknown)?;
    let known = match selector {
        Selector::Id(_) => true,
        Selector::Name(_) => caller.may_get(conn, app, &partner.project, &partner.policies).await?,
    };
    if known { Ok(partner.project.id) } else { Err(unknown()) }
}

fn unknown() -> ApiError {
    let detail = "there is no such project or share, or you may not get that project; name it by its id";
    ApiError::because(ErrorCode::NotFound, detail)
}
