//! The serving loop: takes connections, runs each in a task, and ends them all in order.

use std::time::Duration;

use axum::Router;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Listener;
use super::connection::{self, Patience};

/// Requests that are under way when the service is told to stop may take this long. Long polls would take
/// half a minute; whoever polls asks again.
const GRACE: Duration = Duration::from_secs(3);

/// Serves the router to whoever connects, until the shutdown. Handlers find the other side of their
/// connection as `ConnectInfo<Peer>`.
pub async fn serve(listener: Listener, router: Router, shutdown: CancellationToken) {
    serve_with(listener, router, Patience::default(), shutdown).await;
}

pub(super) async fn serve_with(
    mut listener: Listener,
    router: Router,
    patience: Patience,
    shutdown: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                note_panic(&ended);
                continue;
            }
        };
        connections.spawn(connection::run(accepted, router.clone(), patience, shutdown.clone()));
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// Panics of handlers are answered; one outside of them is a defect of ours, and costs one connection.
fn note_panic(ended: &Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic");
    }
}
