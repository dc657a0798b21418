//! `make up` and `make down`: a cloud on this very machine, control plane and one host.
//!
//! Everything lives below one folder, `/var/lib/cumulo` unless `CUMULO_STATE_DIR` names another. `up.json`
//! there records what was started; [`up`] compares it with what runs and does only what is missing, so
//! running it again is quick and leaves healthy processes alone.
//!
//! Instances are the cloud's, not ours: [`down`] stops the running ones through the API and remembers them,
//! and the next [`up`] starts them again.

/// Prints a line. Nobody may read it any more, as behind `| head`: the work goes on all the same.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($text)*);
    }};
}

mod demo;
mod down;
mod env;
mod join;
mod libvirt;
mod port;
mod progress;
mod record;
mod service;
mod settings;
mod status;
mod steps;

use anyhow::{Context, Result, ensure};

pub use down::down;
pub use env::env;
pub use status::status;
pub use steps::up;

/// Runs one of the commands above to its end.
pub fn run(command: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "libvirt and the state folder belong to root: run this as root"
    );
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start the runtime")?.block_on(command())
}
