//! The display, for any VNC viewer: the RFB protocol as it is, over a port of this machine.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ArgMatches;
use client::WebSocket;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// One viewer, and no other: whoever reaches the port needs no password.
pub(super) async fn wait_for_viewer(matches: &ArgMatches) -> Result<TcpStream> {
    let address = matches.get_one::<String>("listen").context("it has a default")?;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr()?;
    eprintln!(
        "Connect a VNC viewer to {address}, for example: vncviewer {}::{}",
        address.ip(),
        address.port()
    );
    Ok(listener.accept().await?.0)
}

pub(super) async fn serve(viewer: TcpStream, socket: WebSocket) -> Result<()> {
    eprintln!("Connected. It ends with the viewer.");
    let (mut read, write) = viewer.into_split();
    let (sender, typed) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = read.read(&mut buffer).await {
            if sender.send(buffer[..count].to_vec()).await.is_err() {
                return;
            }
        }
    });
    let ended = super::relay(socket, typed, write, Duration::ZERO).await;
    reading.abort();
    ended
}
