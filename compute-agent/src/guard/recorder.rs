//! Writes down who is fenced, just before that, for the agent to read afterwards.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::InstanceId;
use std::io;

use super::entries::{self, Fenced};

/// How long a killing waits for its record. It is worth little beside a guest that runs on.
const PATIENCE: Duration = Duration::from_millis(500);

type Request = (InstanceId, Fenced, Sender<()>);

/// A thread of its own: the host's disk may hang, too.
#[derive(Debug)]
pub(super) struct Recorder(Sender<Request>);

impl Recorder {
    pub(super) fn start(folder: Utf8PathBuf) -> io::Result<Self> {
        let (sender, inbox) = channel();
        thread::Builder::new().name("record".to_owned()).spawn(move || run(&folder, &inbox))?;
        Ok(Self(sender))
    }

    /// Returns when they are all written down, or soon.
    pub(super) fn record(&self, fenced: Vec<(InstanceId, Fenced)>) {
        let (done, all_done) = channel();
        for (id, fenced) in fenced {
            // The thread ends with the process.
            let _ = self.0.send((id, fenced, done.clone()));
        }
        drop(done);
        let until = std::time::Instant::now() + PATIENCE;
        while all_done.recv_timeout(until.saturating_duration_since(std::time::Instant::now())).is_ok() {}
    }
}

fn run(folder: &Utf8PathBuf, inbox: &Receiver<Request>) {
    for (id, fenced, done) in inbox {
        if let Err(error) = entries::put_fenced(folder, id, &fenced) {
            tracing::warn!(instance = %id, %error, "that it is fenced could not be written down");
        }
        let _ = done.send(());
    }
}
