//! Consoles of an instance: its serial port in this terminal, its display for a VNC viewer.

mod terminal;
mod vnc;

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgMatches, Command};
use client::{Message, Method, Request, WebSocket, segment};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc::Receiver;
use tokio::time::timeout;

use crate::contexts::Place;
use crate::output::harmless;

pub fn open() -> Command {
    Command::new("open")
        .about("Use the serial port of a running instance in this terminal")
        .after_help("Type ~. at the beginning of a line to leave, and ~~ for a tilde there.")
        .arg(instance())
}

pub fn vnc() -> Command {
    Command::new("vnc")
        .about("Offer the display of a running instance to one VNC viewer on this machine")
        .arg(instance())
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDRESS:PORT")
                .default_value("127.0.0.1:0")
                .help("Where the viewer connects; port 0 is one that is free"),
        )
}

fn instance() -> Arg {
    let complete = |word: &std::ffi::OsStr| crate::complete::names("instance", word);
    Arg::new("at:instance")
        .value_name("INSTANCE")
        .required(true)
        .help("Name or id")
        .add(clap_complete::ArgValueCompleter::new(complete))
}

pub async fn run_open(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let socket = connect(&place, matches, "serial").await?;
    terminal::attach(socket).await
}

pub async fn run_vnc(matches: &ArgMatches) -> Result<()> {
    let place = Place::find(matches)?;
    let viewer = vnc::wait_for_viewer(matches).await?;
    // The ticket is asked for when somebody is there: it is good for a minute.
    let socket = connect(&place, matches, "vnc").await?;
    vnc::serve(viewer, socket).await
}

async fn connect(place: &Place, matches: &ArgMatches, kind: &str) -> Result<WebSocket> {
    let instance = matches.get_one::<String>("at:instance").context("clap asks for it")?;
    let path = format!("/v1/projects/{}/instances/{}/consoles", segment(place.project()?), segment(instance));
    let console = Request::new(Method::POST, &path).json(json!({"kind": kind}));
    let console = place.client.send(&console).await?.body;
    let url = console["url"].as_str().context("the answer names no URL")?;
    let subprotocols: Vec<String> = serde_json::from_value(console["subprotocols"].clone())?;
    Ok(place.client.websocket(url, &subprotocols).await?)
}

/// Sends what is typed and writes what the guest says, until one side ends it; after the end of what is typed, until the
/// guest is silent for so long.
async fn relay(
    mut socket: WebSocket,
    mut typed: Receiver<Vec<u8>>,
    mut shown: impl AsyncWrite + Unpin,
    silence: Duration,
) -> Result<()> {
    loop {
        tokio::select! {
            message = socket.next() => {
                if take(message, &mut shown).await?.is_break() {
                    return Ok(());
                }
            }
            bytes = typed.recv() => match bytes {
                Some(bytes) => socket.send(Message::Binary(bytes.into())).await?,
                None => break,
            },
        }
    }
    while let Ok(message) = timeout(silence, socket.next()).await {
        if take(message, &mut shown).await?.is_break() {
            return Ok(());
        }
    }
    Ok(socket.close(None).await?)
}

async fn take(
    message: Option<Result<Message, client::WebSocketError>>,
    shown: &mut (impl AsyncWrite + Unpin),
) -> Result<ControlFlow<()>> {
    match message.context("the connection to the cloud is lost")?? {
        Message::Binary(bytes) => {
            shown.write_all(&bytes).await?;
            shown.flush().await?;
        }
        Message::Close(frame) => {
            let Some(frame) = frame.filter(|frame| u16::from(frame.code) != 1000) else {
                return Ok(ControlFlow::Break(()));
            };
            let reason = frame.reason.replace('_', " ");
            bail!("the console has ended: {} ({})", harmless(&reason), u16::from(frame.code));
        }
        _ => {}
    }
    Ok(ControlFlow::Continue(()))
}
