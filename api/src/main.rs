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
    Serve(Box<api::serve::Options>),
    /// Let somebody in again when nobody can sign in any more: make a user an administrator, and print a
    /// one-time code with which they set a password.
    Recover(api::auth::recovery::Options),
    /// Look for what must never be: a touched audit log, a quota that does not add up. Works while the control plane
    /// runs. Ends with 1 if anything is found.
    Verify(api::verify::Options),
    /// Try the fence command before it is needed: call it with `status` for a host, as `serve` would with `off`, and print
    /// what it says. Switches nothing off.
    Fence(api::hosts::FenceTryOptions),
    /// Write a backup of the database, which is all that the control plane knows. Works while it runs. Images and what is
    /// outside the data directory are not in it.
    Backup(api::backup::BackupOptions),
    /// Put a backup in the place of the database, while no control plane runs. What was there is kept beside it, and untouched
    /// if the backup is not whole.
    Restore(api::backup::RestoreOptions),
    /// Say that the database was restored from a backup in another way than by `restore`, before the control plane is started
    /// on it: every host begins anew, and nothing is concluded from what was known of hosts when the backup was made.
    Restored(api::backup::RestoredOptions),
    /// Print the OpenAPI document.
    Openapi,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Serve(options) => serve(*options),
        Command::Recover(options) => recover(&options),
        Command::Verify(options) => verify(&options),
        Command::Fence(options) => fence(&options),
        Command::Backup(options) => backup(&options),
        Command::Restore(options) => restore(&options),
        Command::Restored(options) => restored(&options),
        Command::Openapi => {
            println!("{}", api::http::openapi_document().to_pretty_json()?);
            Ok(())
        }
    }
}

#[tokio::main]
async fn recover(options: &api::auth::recovery::Options) -> anyhow::Result<()> {
    log_to_stderr("warn");
    let recovered = api::auth::recovery::recover(options).await?;
    eprintln!(
        "{} is an administrator without a second factor now, and signed out everywhere.\n\
         These policies decide for them: {}. What one of them denies stays denied; --detach removes it.\n\
         Set a password within 72 hours: POST /v1/auth/reset_password with username, new_password and this code:",
        options.user,
        recovered.policies.join(", ")
    );
    println!("{}", recovered.code);
    Ok(())
}

#[tokio::main]
async fn backup(options: &api::backup::BackupOptions) -> anyhow::Result<()> {
    log_to_stderr("warn");
    if let Some(size) = api::backup::back_up(options, &interruptible()?).await? {
        println!("{}: {:.1} MiB", options.file, size as f64 / f64::from(1 << 20));
    }
    Ok(())
}

#[tokio::main]
async fn restore(options: &api::backup::RestoreOptions) -> anyhow::Result<()> {
    log_to_stderr("warn");
    let done = api::backup::restore(options, &interruptible()?).await?;
    if done.lost_rules {
        println!(
            "What was there had rights, limits or settings of its own (GRANT, ALTER DATABASE): give them anew."
        );
    }
    println!(
        "hosts that begin anew: {}; instances that are asked for anew: {}\n\
         What was there before is kept as the database {}: restore --undo puts it back. Start cumulo-api now.",
        done.restored.hosts, done.restored.instances, done.kept
    );
    Ok(())
}

#[tokio::main]
async fn restored(options: &api::backup::RestoredOptions) -> anyhow::Result<()> {
    log_to_stderr("warn");
    let done = api::backup::restored(options).await?;
    println!("hosts that begin anew: {}; instances that are asked for anew: {}", done.hosts, done.instances);
    Ok(())
}

#[tokio::main]
async fn fence(options: &api::hosts::FenceTryOptions) -> anyhow::Result<()> {
    log_to_stderr("warn");
    println!("{}", api::hosts::try_program(options).await?);
    Ok(())
}

#[tokio::main]
async fn verify(options: &api::verify::Options) -> anyhow::Result<()> {
    log_to_stderr("warn");
    let report = api::verify::run(options).await?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    if report.findings.is_empty() { Ok(()) } else { std::process::exit(1) }
}

fn log_to_stderr(level: &str) {
    // Whoever imports from a server with a bad certificate hears that; otherwise any tenant could fill the log with
    // errors, in the words of a certificate.
    let default = format!("{level},rustls_platform_verifier=off");
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

#[tokio::main]
async fn serve(options: api::serve::Options) -> anyhow::Result<()> {
    log_to_stderr("info");
    api::serve::serve(options, interruptible()?).await
}

/// A token that a signal cancels.
fn interruptible() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    tokio::spawn(on_signal(shutdown.clone())?);
    Ok(shutdown)
}

/// Cancels the token on SIGTERM or SIGINT. Ready when this returns.
fn on_signal(shutdown: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Heeded where there is a certificate to read anew; elsewhere it is no reason to die.
    drop(signal(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
    })
}
