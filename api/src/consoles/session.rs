//! An open console: bytes between a WebSocket and a host, for as long as the caller may.
//!
//! Each direction reads a piece, writes it, and only then reads the next, so that whoever is slow slows down the other
//! side, and nothing piles up here. Who takes nothing at all for a while loses the console.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use protocol::HostId;
use sqlx::PgConnection;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{Instant, interval, timeout};

use super::model::End;
use super::records::Passed;
use super::store::{self, Console};
use crate::app::App;
use crate::auth::{Caller, Claims, Credential, CredentialKind, actions};
use crate::http::{ApiError, Client, ErrorCode, Selector};

/// The largest piece from the host, in bytes.
const PIECE_BYTES: usize = 16 << 10;
/// One side may take nothing for so long.
const STUCK: Duration = Duration::from_secs(30);
/// How often a client is asked whether it is there, and how long one may say nothing.
const PING: Duration = Duration::from_secs(15);
const SILENT: Duration = Duration::from_secs(45);
/// How long a session goes on while it cannot be found out whether its caller still may.
const UNVERIFIED: Duration = Duration::from_secs(45);
const GOODBYE: Duration = Duration::from_secs(5);

type Half = TokioIo<Upgraded>;

/// Where the console is of a caller who may open it.
pub(super) struct Standing {
    pub host: HostId,
}

/// Asks anew whether the owner of the ticket may have this console: credential, right and instance.
///
/// # Errors
/// `invalid_token`, `forbidden` or `not_found`, `wrong_state`, `host_unreachable`.
pub(super) async fn standing(
    app: &App,
    conn: &mut PgConnection,
    console: &Console,
    client: Client,
) -> Result<Standing, ApiError> {
    let credential = credential(conn, console).await?;
    let (project, instance) = (console.project.to_string(), console.instance.to_string());
    let caller = Caller::enter(conn, app, &credential, client, Some(&project)).await?;
    let allowed = caller.decide::<actions::OpenConsole>(conn, (&project, &instance), false).await?;
    let selector = Selector::Id(console.instance.as_uuid());
    let found = store::instance(conn, &allowed, &selector, app.clock.now()).await?;
    let host = found.ok_or_else(ApiError::not_found)?.host()?;
    Ok(Standing { host })
}

/// The credential by which the ticket was asked for.
async fn credential(conn: &mut PgConnection, console: &Console) -> Result<Credential, ApiError> {
    if console.credential_kind == CredentialKind::Session.as_str() {
        // The session counts, not the access token, which is renewed every few minutes.
        let (principal_id, session_id) = (console.principal, console.credential_id);
        return Ok(Credential::Session(Claims { principal_id, session_id, exp: i64::MAX }));
    }
    let hash = store::api_key_hash(conn, console.credential_id).await?;
    let hash = hash.and_then(|hash| hash.try_into().ok());
    hash.map(Credential::ApiKey).ok_or_else(|| ApiError::new(ErrorCode::InvalidToken))
}

/// Runs until one side ends, or has to.
pub(super) async fn run(
    app: &App,
    console: &Console,
    client: Client,
    socket: WebSocket,
    half: Upgraded,
) -> (End, Passed) {
    let (mut sink, source) = socket.split();
    let (from_host, to_host) = tokio::io::split(TokioIo::new(half));
    let counts = Counts::default();
    let limit = Duration::from_secs(app.consoles.max_seconds().into());
    let end = tokio::select! {
        end = to_guest(source, to_host, &counts) => end,
        end = from_guest(from_host, &mut sink, &counts) => end,
        end = watch(app, console, client) => end,
        () = tokio::time::sleep(limit) => End::TimeOver,
        () = app.shutdown.cancelled() => End::Shutdown,
    };
    // The host's half is dropped by now: its side ends whatever the client does.
    let frame = CloseFrame { code: end.code(), reason: end.as_str().into() };
    // Who has gone does not hear it.
    let _ = timeout(GOODBYE, sink.send(Message::Close(Some(frame)))).await;
    (end, counts.passed())
}

#[derive(Default)]
struct Counts {
    to_guest: AtomicU64,
    from_guest: AtomicU64,
}

impl Counts {
    fn passed(&self) -> Passed {
        Passed {
            to_guest_bytes: self.to_guest.load(Relaxed),
            from_guest_bytes: self.from_guest.load(Relaxed),
        }
    }

    fn count(counter: &AtomicU64, direction: &'static str, bytes: usize) {
        counter.fetch_add(bytes as u64, Relaxed);
        metrics::counter!("cumulo_console_bytes_total", "direction" => direction).increment(bytes as u64);
    }
}

async fn to_guest(mut source: SplitStream<WebSocket>, mut to_host: WriteHalf<Half>, counts: &Counts) -> End {
    loop {
        // A client answers pings by itself, so one that is there says something.
        let Ok(message) = timeout(SILENT, source.next()).await else { return End::ClientStuck };
        let bytes: Bytes = match message {
            Some(Ok(Message::Binary(bytes))) => bytes,
            Some(Ok(Message::Text(text))) => text.into(),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Close(_)) | Err(_)) | None => return End::Closed,
        };
        match timeout(STUCK, to_host.write_all(&bytes)).await {
            Ok(Ok(())) => Counts::count(&counts.to_guest, "to_guest", bytes.len()),
            Ok(Err(_)) => return End::HostEnded,
            Err(_) => return End::HostStuck,
        }
    }
}

async fn from_guest(
    mut from_host: ReadHalf<Half>,
    sink: &mut SplitSink<WebSocket, Message>,
    counts: &Counts,
) -> End {
    let mut piece = vec![0; PIECE_BYTES];
    let mut ping = interval(PING);
    loop {
        let message = tokio::select! {
            read = from_host.read(&mut piece) => match read {
                Ok(0) | Err(_) => return End::HostEnded,
                Ok(count) => {
                    Counts::count(&counts.from_guest, "from_guest", count);
                    Message::Binary(Bytes::copy_from_slice(piece.get(..count).unwrap_or_default()))
                }
            },
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(STUCK, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Closed,
            Err(_) => return End::ClientStuck,
        }
    }
}

/// Looks now and then whether the session may go on; returns when not.
async fn watch(app: &App, console: &Console, client: Client) -> End {
    let mut verified = Instant::now();
    loop {
        tokio::time::sleep(app.consoles.options().check_every).await;
        match look(app, console, client).await {
            Ok(true) => verified = Instant::now(),
            Ok(false) => return End::Lost,
            Err(error) => match error.code() {
                Some(ErrorCode::InvalidToken) => return End::CredentialEnded,
                Some(ErrorCode::Forbidden | ErrorCode::NotFound) => return End::RightLost,
                Some(ErrorCode::WrongState) => return End::InstanceStopped,
                // A host that is not heard of may well serve the console still.
                Some(ErrorCode::HostUnreachable) => verified = Instant::now(),
                _ if verified.elapsed() > UNVERIFIED => return End::Unverified,
                _ => {
                    tracing::info!(%error, console = %console.id, "whether its owner still may is not known");
                }
            },
        }
    }
}

/// False when the session was given up by another replica.
async fn look(app: &App, console: &Console, client: Client) -> Result<bool, ApiError> {
    let _turn = app.consoles.check_turn().await;
    let mut conn = app.pool.acquire().await?;
    if !store::hear(&mut conn, console.id, app.clock.now()).await? {
        return Ok(false);
    }
    standing(app, &mut conn, console, client).await.map(|_| true)
}
