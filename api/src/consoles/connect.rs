//! Opening a console with a ticket: the user's half.

use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use hyper::upgrade::Upgraded;
use protocol::agent::RefusalReason;
use protocol::{ConsoleId, TransferId};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::model::{BINARY, End, Ticket};
use super::records::{self, Passed};
use super::session::{self, Standing};
use super::store::{self, Console};
use crate::agents::transfers::{self, Ask, Wanted};
use crate::app::App;
use crate::auth::{Caller, credential};
use crate::hosts;
use crate::http::{ApiError, Client, ErrorCode, Path};
use crate::nudge::{self, Topic};

/// How long a host has to bring its half.
const HOST_PATIENCE: Duration = Duration::from_secs(15);
/// How long a client has to go on after the answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// The longest message of a client, in bytes; one is in memory at a time.
pub(super) const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Somebody with a ticket.
pub(super) struct Visitor {
    client: Client,
    headers: HeaderMap,
    parts: Parts,
}

impl FromRequestParts<App> for Visitor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        Ok(Self {
            client: Client::of(&parts.extensions),
            headers: parts.headers.clone(),
            parts: parts.clone(),
        })
    }
}

/// Open a console by WebSocket. No sign-in is shown: the ticket is one of the offered subprotocols, the other is
/// `binary`, which the answer chooses. Messages to the client are binary; what it sends may be binary or text.
#[utoipa::path(get, path = "/v1/consoles/{console}", tag = "instances", security(()), responses(
    (status = 101, description = "The console's bytes, both ways"),
    (status = 503, description = "`host_unreachable`, `host_failed`, `busy`"),
))]
pub(super) async fn open_console(
    State(app): State<App>,
    Path(id): Path<String>,
    visitor: Visitor,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let id: ConsoleId = id.parse().map_err(|_| ApiError::not_found())?;
    let upgrade = upgrade.map_err(|_| {
        ApiError::because(ErrorCode::BadRequest, "open it as a WebSocket (RFC 6455), over HTTP/1.1")
    })?;
    app.consoles.options().check_origin(&visitor.headers)?;
    let ticket = Ticket::offered(&visitor.headers).ok_or_else(|| {
        let detail = "offer both `subprotocols` that came with the console as Sec-WebSocket-Protocol";
        ApiError::because(ErrorCode::Unauthenticated, detail)
    })?;
    let room = app.consoles.room()?;
    let console = use_ticket(&app, id, &ticket, &visitor).await?;
    let (ready, answer) = oneshot::channel();
    let (socket_sender, socket) = oneshot::channel();
    // Goes on when the client does not, so that what is open is closed in order.
    app.consoles.run(live(app.clone(), console, visitor.client, room, ready, socket));
    answer.await.map_err(ApiError::internal)??;
    let upgrade = upgrade
        .protocols([BINARY])
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(2 * MAX_MESSAGE_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| drop(socket_sender.send(socket))))
}

/// Uses the ticket up, whatever comes of it.
async fn use_ticket(
    app: &App,
    id: ConsoleId,
    ticket: &Ticket,
    visitor: &Visitor,
) -> Result<Console, ApiError> {
    if !store::is_ticket(&mut *app.pool.acquire().await?, id, ticket.hash()).await? {
        return Err(invalid_ticket());
    }
    // A serial console whose replica has just died shall not be in the way.
    super::sweep(app).await?;
    let mut tx = app.begin().await?;
    let (address, now) = (visitor.client.address.to_canonical().to_string(), app.clock.now());
    let Some(console) = store::open(&mut tx, id, ticket.hash(), &address, now).await? else {
        return Err(invalid_ticket());
    };
    let checked = match check_owner(app, &mut tx, &console, visitor).await {
        Ok(()) => store::check_limits(&mut tx, &console).await,
        refused => refused,
    };
    if checked.is_err() {
        store::remove(&mut tx, id).await?;
    }
    tx.commit().await?;
    checked.map(|()| console)
}

fn invalid_ticket() -> ApiError {
    metrics::counter!("cumulo_console_tickets_refused_total").increment(1);
    let detail = "this ticket is unknown, has been used, or is older than a minute; ask for another one";
    ApiError::because(ErrorCode::InvalidTicket, detail)
}

/// A ticket suffices. Who shows more than that has to be its owner.
async fn check_owner(
    app: &App,
    conn: &mut sqlx::PgConnection,
    console: &Console,
    visitor: &Visitor,
) -> Result<(), ApiError> {
    if !visitor.headers.contains_key(header::AUTHORIZATION) {
        return Ok(());
    }
    let shown = credential(&visitor.parts, app).await?;
    let caller = Caller::enter(conn, app, &shown, visitor.client, None).await?;
    if caller.principal.id == console.principal {
        return Ok(());
    }
    Err(ApiError::because(
        ErrorCode::InvalidTicket,
        "this ticket is somebody else's; ask for one of your own",
    ))
}

/// The life of a console whose ticket was used.
async fn live(
    app: App,
    mut console: Console,
    client: Client,
    room: OwnedSemaphorePermit,
    ready: oneshot::Sender<Result<(), ApiError>>,
    socket: oneshot::Receiver<WebSocket>,
) {
    let met = match meet(&app, &console, client).await {
        Ok(half) => begin(&app, &mut console).await.map(|()| half),
        Err(error) => Err(error),
    };
    let half = match met {
        Ok(half) => half,
        Err(error) => {
            forget(&app, console.id).await;
            // Nobody waits for the reason when the client has gone.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let open = OpenGauge::new(console.kind.as_str());
    let (mut end, mut passed) = (End::Closed, Passed::default());
    if ready.send(Ok(())).is_ok()
        && let Ok(Ok(socket)) = tokio::time::timeout(CLIENT_PATIENCE, socket).await
    {
        (end, passed) = session::run(&app, &console, client, socket, half).await;
    }
    drop((open, room));
    metrics::counter!("cumulo_consoles_ended_total", "reason" => end.as_str()).increment(1);
    if let Err(error) = note_end(&app, &console, end, passed).await {
        tracing::warn!(%error, console = %console.id, "the end of a console is noted later, by the sweeper");
    }
}

/// Asks the host for its half, and waits for it.
async fn meet(app: &App, console: &Console, client: Client) -> Result<Upgraded, ApiError> {
    let mut tx = app.begin().await?;
    let Standing { host } = session::standing(app, &mut tx, console, client).await?;
    let mut place = app.consoles.expect(console.id, host);
    let request = TransferId::from(console.id.as_uuid());
    let mut waiter = app.nudges.subscribe(Topic::Transfer(request));
    let dial = app.consoles.options().agent_url.as_ref().map(|url| url.as_str());
    let wanted = Wanted {
        id: request,
        host,
        instance: console.instance,
        principal: console.principal,
        ask: Ask::Console { kind: console.kind, dial },
        revision: hosts::store::bump_revision(&mut tx, host).await?,
        now: app.clock.now(),
    };
    transfers::ask(&mut tx, &wanted).await?;
    nudge::send(&mut tx, Topic::Host(host)).await?;
    tx.commit().await?;
    let until = Instant::now() + HOST_PATIENCE;
    loop {
        tokio::select! {
            half = &mut place.half => {
                transfers::forget(&mut *app.pool.acquire().await?, request).await?;
                return half.map_err(ApiError::internal);
            }
            () = waiter.nudged(Duration::from_secs(1).min(until.saturating_duration_since(Instant::now()))) => {}
        }
        let refusal = transfers::take_refusal(&mut *app.pool.acquire().await?, request).await?;
        if let Some(reason) = refusal {
            return Err(refused(reason));
        }
        if until <= Instant::now() {
            transfers::forget(&mut *app.pool.acquire().await?, request).await?;
            let detail = "its host does not open the console; the instance may well be running. An agent of an \
                          earlier release cannot";
            return Err(ApiError::because(ErrorCode::HostUnreachable, detail).retry_after(5));
        }
    }
}

pub(super) fn refused(reason: RefusalReason) -> ApiError {
    let (code, detail) = match reason {
        RefusalReason::NotRunning => (ErrorCode::WrongState, "no guest of it runs; start it first"),
        RefusalReason::NoDisplay => {
            (ErrorCode::WrongState, "it was started by an earlier release, without a display; reboot it once")
        }
        RefusalReason::Busy => (
            ErrorCode::InUse,
            "its host serves as many of this kind at once as it can; close one, or try again",
        ),
        RefusalReason::Failed => (ErrorCode::HostFailed, "its host could not; the log of its agent says why"),
    };
    ApiError::because(code, detail)
}

async fn begin(app: &App, console: &mut Console) -> Result<(), ApiError> {
    let mut tx = app.begin().await?;
    let now = app.clock.now();
    if !store::begin(&mut tx, console.id, now).await? {
        return Err(ApiError::because(ErrorCode::Timeout, "it took too long; ask for another console"));
    }
    console.began_at = Some(now);
    records::begin(&mut tx, app, console).await?;
    Ok(tx.commit().await?)
}

async fn note_end(app: &App, console: &Console, end: End, passed: Passed) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    if store::remove(&mut tx, console.id).await? {
        records::end(&mut tx, app, console, end, Some(passed)).await?;
    }
    tx.commit().await
}

/// Removes a console that nothing came of; if that fails, the sweeper does it.
async fn forget(app: &App, id: ConsoleId) {
    let removed = async { store::remove(&mut *app.pool.acquire().await?, id).await };
    if let Err(error) = removed.await {
        tracing::info!(%error, console = %id, "a console that was not opened is removed later");
    }
}

/// Counts among the open ones until it is dropped.
struct OpenGauge(metrics::Gauge);

impl OpenGauge {
    fn new(kind: &'static str) -> Self {
        metrics::counter!("cumulo_consoles_opened_total", "kind" => kind).increment(1);
        let gauge = metrics::gauge!("cumulo_consoles_open", "kind" => kind);
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for OpenGauge {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
