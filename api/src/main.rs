//! The `cumulo-api` program.

use std::io::IsTerminal;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Cumulo's control plane.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the control plane.
    Serve(api::serve::Options),
    /// Print the OpenAPI document.
    Openapi,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(options) => serve(options),
        Command::Openapi => {
            println!("{}", api::http::openapi_document().to_pretty_json()?);
            Ok(())
        }
    }
}

#[tokio::main]
async fn serve(options: api::serve::Options) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone())?);
    api::serve::serve(options, shutdown).await
}

/// Cancels the token on SIGTERM or SIGINT. Ready when this returns.
fn on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}
