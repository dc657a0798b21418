//! A way from the test's loopback to a port of a machine, without touching the network outside the lab.
//!
//! A socket belongs to the namespace of the thread that makes it, for life. One thread binds a port on the
//! test's own loopback, then enters the machine's network namespace, and from there on connects inside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::machine::Machine;

/// Forwards TCP connections for as long as it lives.
pub(crate) struct Gateway {
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Gateway {
    /// Forwards a free loopback port to `target` inside `machine`.
    pub(crate) fn open(machine: &Machine, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a loopback port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let namespace = std::fs::File::open(machine.network_namespace()).context("open the namespace")?;
        let (stop, stopped) = oneshot::channel();
        let (entered, has_entered) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("gateway".to_owned());
        thread.spawn(move || {
            let result = setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the namespace");
            let inside = result.is_ok();
            let _ = entered.send(result);
            if inside {
                forward(listener, target, stopped);
            }
        })?;
        has_entered.recv().context("start the gateway")??;
        Ok(Self { address, _stop: stop })
    }
}

/// Runs on the gateway's thread, and only there: a task on another thread would connect outside.
fn forward(listener: TcpListener, target: SocketAddr, stopped: oneshot::Receiver<()>) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_io().build() else { return };
    let accept = async move {
        let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
        while let Ok((mut outside, _)) = listener.accept().await {
            // When nobody listens inside, dropping the connection is the answer.
            tokio::spawn(async move {
                if let Ok(mut inside) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
                }
            });
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = accept => (),
            _ = stopped => (),
        }
    });
}
