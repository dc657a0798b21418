//! Handlers of hosts.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use protocol::agent::JoinToken;
use protocol::{Name, Sha256};
use rand::Rng;
use sha2::Digest;
use time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::model::HostState;
use super::types::{
    CreateHostJoinToken, DeclareHostDead, Host, HostJoinToken, HostQuery, ReadmitHost, UpdateHost,
};
use super::{maintenance, removal, store, unknown_guests};
use crate::app::App;
use crate::auth::{Action, actions};
use crate::http::{
    ApiError, Call, ErrorCode, FieldError, Mutation, MutationQuery, Page, PageQuery, Path, merge_labels,
    validate_labels,
};
use crate::instances::store::placement;

const DEFAULT_TTL_SECONDS: u32 = 600;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create_host_join_token))
        .routes(routes!(readmit_host))
        .routes(routes!(list_hosts))
        .routes(routes!(get_host, update_host, removal::delete_host))
        .routes(routes!(declare_host_dead))
        .merge(maintenance::router())
        .merge(unknown_guests::router())
}

/// Make a one-time token with which one machine joins the cloud.
#[utoipa::path(post, path = "/v1/host_join_tokens", tag = "hosts", params(MutationQuery),
    request_body = CreateHostJoinToken, responses(
        (status = 201, body = HostJoinToken),
))]
async fn create_host_join_token(State(app): State<App>, call: Call) -> Result<Response, ApiError> {
    let new: CreateHostJoinToken = call.json()?;
    let ttl = checked_ttl(new.ttl_seconds)?;
    let change = call.changing::<actions::CreateHostJoinToken>(&app, ()).await?;
    give_token(&app, change, None, ttl).await
}

/// Let a host in again that was away until its certificate had run out: a one-time token with which the machine that has its
/// key, and no other, joins as the same host. It keeps what is on it. The key of a host that got its certificate from an earlier
/// release is not known: there the token is enough.
#[utoipa::path(post, path = "/v1/hosts/{host}/readmit", tag = "hosts", params(MutationQuery),
    request_body = ReadmitHost, responses(
        (status = 201, body = HostJoinToken),
))]
async fn readmit_host(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: ReadmitHost = call.json()?;
    let ttl = checked_ttl(body.ttl_seconds)?;
    let mut change = call.changing::<actions::ReadmitHost>(&app, &host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    if matches!(row.into_wire(now).state, HostState::Ready | HostState::Degraded) {
        let detail = "its agent is heard, so its certificate is valid, and is renewed by the agent";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    give_token(&app, change, Some(id), ttl).await
}

fn checked_ttl(seconds: Option<u32>) -> Result<Duration, ApiError> {
    let ttl = seconds.unwrap_or(DEFAULT_TTL_SECONDS);
    if (60..=3600).contains(&ttl) {
        return Ok(Duration::seconds(ttl.into()));
    }
    Err(ApiError::invalid(vec![FieldError::new("/ttl_seconds", "out_of_range", "from 60 to 3600")]))
}

/// For a new host, or to let that one in again.
async fn give_token<A: Action>(
    app: &App,
    mut change: Mutation<A>,
    readmitted: Option<Uuid>,
    ttl: Duration,
) -> Result<Response, ApiError> {
    let mut secret = [0; 32];
    rand::rng().fill_bytes(&mut secret);
    let token = JoinToken { secret, ca_sha256: app.ca.fingerprint() };
    let (id, now) = (app.clock.new_id(), change.now);
    let expires_at = now + ttl;
    let (conn, allowed) = change.parts();
    store::insert_join_token(conn, allowed, id, hash_secret(&token), readmitted, (now, expires_at)).await?;
    let answer = HostJoinToken { token: Some(token.expose()), expires_at };
    let recorded = HostJoinToken { token: None, expires_at };
    change.commit_secret(StatusCode::CREATED, &answer, &recorded).await
}

/// Join tokens are stored as hashes; they are random, so a plain hash is enough.
pub(crate) fn hash_secret(token: &JoinToken) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(token.secret).into())
}

/// List hosts.
#[utoipa::path(get, path = "/v1/hosts", tag = "hosts", params(HostQuery), responses(
    (status = 200, body = Page<Host>),
))]
async fn list_hosts(State(app): State<App>, call: Call) -> Result<axum::Json<Page<Host>>, ApiError> {
    let HostQuery { limit, cursor, name, state } = call.query()?;
    let query = PageQuery::new(limit, cursor).named(name).checked()?;
    let (after, now) = (query.after()?, app.clock.now());
    let mut reading = call.reading::<actions::ListHosts>(&app, ()).await?;
    let (conn, allowed) = reading.parts();
    let filter = store::Filter { after, name: query.name(), state, now, rows: query.rows() };
    let rows = store::list(conn, allowed, &filter).await?;
    let items = rows.into_iter().map(|row| row.into_wire(now)).collect();
    Ok(axum::Json(query.page(items, |host: &Host| host.id.as_uuid())))
}

/// Get a host.
#[utoipa::path(get, path = "/v1/hosts/{host}", tag = "hosts", responses(
    (status = 200, body = Host),
))]
async fn get_host(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut reading = call.reading::<actions::GetHost>(&app, &host).await?;
    let (conn, allowed) = reading.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    call.answer(row.version(), &row.into_wire(app.clock.now()))
}

/// State that nothing runs on a host any more that is not heard of. From then on its instances may be moved if all their
/// volumes are in shared pools, and their volumes in shared pools be detached; ports and volumes in shared pools that were
/// being detached there are free, and instances that were being deleted are gone if nothing else of them is there. It holds until the host is heard again.
#[utoipa::path(post, path = "/v1/hosts/{host}/declare_dead", tag = "hosts", params(MutationQuery),
    request_body = DeclareHostDead, responses(
        (status = 200, body = Host),
))]
async fn declare_host_dead(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let body: DeclareHostDead = call.json()?;
    if !body.no_guest_runs {
        let message = "only a host on which no guest runs is dead; cut its power first";
        return Err(ApiError::invalid(vec![FieldError::new("/no_guest_runs", "invalid", message)]));
    }
    let mut change = call.changing::<actions::DeclareHostDead>(&app, &host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    let id = row.id;
    let before = row.into_wire(now);
    change.note_before(&before);
    if matches!(before.state, HostState::Ready | HostState::Degraded) {
        let detail =
            "its agent is heard; stop the instances there, or cut its power and wait until it is unreachable";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let (conn, allowed) = change.parts();
    store::declare_dead(conn, allowed, id, now).await?;
    let row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(now)).await
}

/// Change where a host stands, what it is kept for, whether it takes new instances, how much of it is promised, and when
/// its pool counts as almost full.
#[utoipa::path(patch, path = "/v1/hosts/{host}", tag = "hosts", params(MutationQuery),
    request_body = UpdateHost, responses(
        (status = 200, body = Host),
))]
async fn update_host(
    State(app): State<App>,
    Path(host): Path<String>,
    call: Call,
) -> Result<Response, ApiError> {
    let patch: UpdateHost = call.json()?;
    ApiError::reject(patch.validate())?;
    let mut entry = call.entering(&app, None).await?;
    // Before the host: whoever places instances holds hosts and groups in an order of its own. Who may not do this waits for
    // nobody, and nobody for him.
    if (patch.rack.is_some() || patch.zone.is_some())
        && entry.foresee::<actions::UpdateHost>(&host).await?.is_some()
    {
        placement::take_turn(entry.conn()).await?;
    }
    let mut change = entry.decide::<actions::UpdateHost>(&host).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let mut row = store::find(conn, allowed).await?.ok_or_else(ApiError::not_found)?;
    change.check_if_match(row.version())?;
    change.note_before(&row.clone().into_wire(now));
    row.disk_overcommit = patch.disk_overcommit.unwrap_or(row.disk_overcommit);
    row.pool_low_percent = patch.pool_low_percent.unwrap_or(row.pool_low_percent);
    let keeps_cordoned = patch.cordoned == Some(true);
    take_in(&mut row, patch)?;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &mut row, now).await?;
    if keeps_cordoned {
        maintenance::store::keep_cordoned(conn, row.id).await?;
        row.maintenance.0.uncordons = row.maintenance.0.uncordons.map(|_| false);
    }
    // What waited for room may have found it.
    placement::retry_now(conn, now).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(now)).await
}

/// What the patch says of placement.
fn take_in(row: &mut store::Row, patch: UpdateHost) -> Result<(), ApiError> {
    let text = |name: Option<Name>| name.map(|name| name.as_str().to_owned());
    row.rack = patch.rack.map_or_else(|| row.rack.take(), text);
    row.zone = patch.zone.map_or_else(|| row.zone.take(), text);
    row.labels.0 = merge_labels(std::mem::take(&mut row.labels.0), patch.labels);
    if let Some(taints) = patch.taints {
        let taints: BTreeSet<_> = taints.iter().map(|taint| taint.as_str().to_owned()).collect();
        row.taints = taints.into_iter().collect();
    }
    row.cordoned = patch.cordoned.unwrap_or(row.cordoned);
    row.vcpu_overcommit = patch.vcpu_overcommit.unwrap_or(row.vcpu_overcommit);
    row.memory_overcommit = patch.memory_overcommit.unwrap_or(row.memory_overcommit);
    let mut errors = Vec::new();
    validate_labels(&row.labels.0, &mut errors);
    ApiError::reject(errors)
}
