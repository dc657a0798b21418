//! A root shell in a fast guest, by its serial console: what a test does in a guest, and what comes of it.
//!
//! Networks cannot be the way in, since they are what is tested.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;

use crate::cloud::Instance;
use crate::host::Host;
use crate::machine::said_or_failed;

/// QEMU looks once a second whether somebody sits at the console.
const GREETING: Duration = Duration::from_secs(60);
/// A command that does not end by itself in this time fails.
const LIMIT: Duration = Duration::from_secs(60);
/// A guest's terminal takes no longer line.
const LONGEST_LINE: usize = 4000;

pub struct Shell {
    /// The instance's.
    pub name: String,
    terminal: File,
    said: Receiver<Vec<u8>>,
    heard: String,
    asked: usize,
}

/// What a command in a guest said on both outputs, and its status.
#[derive(Debug)]
pub struct Said {
    pub status: u8,
    pub text: String,
}

impl Shell {
    /// Sits down at the console of an instance that has said `cumulo-test: ready`.
    pub fn open(host: &Host, instance: &Instance) -> Result<Self> {
        let domain = format!("cumulo-{}", instance.id);
        let path = host.virsh.run(&["ttyconsole", &domain])?.trim().to_owned();
        let raw = Command::new("stty").args(["-F", &path, "raw", "-echo"]).output();
        said_or_failed(raw, || format!("stty of {path}"))?;
        let mut options = File::options();
        let terminal = options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path);
        let terminal = terminal.with_context(|| format!("open {path}"))?;
        let said = listen(terminal.try_clone()?)?;
        let mut shell = Self { name: instance.name.clone(), terminal, said, heard: String::new(), asked: 0 };
        shell.greet().with_context(|| format!("a shell in {}", instance.name))?;
        Ok(shell)
    }

    /// Presses Enter until there is a shell, and makes one of it that echoes nothing and reads lines.
    fn greet(&mut self) -> Result<()> {
        let serve = "stty -echo; echo begun-$((40 + 2)); while IFS= read -r line; do eval \"$line\"; done";
        let begun = Instant::now();
        loop {
            // The first line only wakes the console.
            writeln!(self.terminal, "\nexec sh -c '{serve}'")?;
            if self.wait("begun-42", Duration::from_secs(3))? {
                return Ok(());
            }
            ensure!(begun.elapsed() < GREETING, "nobody answers: {:?}", self.heard);
        }
    }

    /// Runs one line of shell; whatever its status, it comes back. Only a guest that does not answer is an error.
    pub fn run(&mut self, line: &str) -> Result<Said> {
        ensure!(!line.contains('\n') && line.len() < LONGEST_LINE, "not a line for a terminal: {line}");
        self.asked += 1;
        let (from, to) = (format!("<{}:", self.asked), format!(":{}>", self.asked));
        self.heard.clear();
        let quoted = line.replace('\'', r"'\''");
        // Computed, so that no echo of the question is taken for the answer.
        let question =
            format!("n={}; echo \"<$n:\"; eval '{quoted}' 2>&1; printf '\\n%s:%s>\\n' $? $n", self.asked);
        writeln!(self.terminal, "{question}")?;
        let answered = self.wait(&to, LIMIT)?;
        ensure!(answered, "{} does not come back from `{line}`: {:?}", self.name, self.heard);
        let heard = self.heard.replace('\r', "");
        let text = heard.split_once(&from).map_or(heard.as_str(), |(_, rest)| rest);
        let (text, _) = text.split_once(&to).context("the answer has no end")?;
        let (text, status) = text.rsplit_once('\n').context("the answer has no status")?;
        let status = status.parse().with_context(|| format!("the status of `{line}` is {status:?}"))?;
        Ok(Said { status, text: text.trim().to_owned() })
    }

    /// The output of a line that succeeds.
    pub fn output(&mut self, line: &str) -> Result<String> {
        let said = self.run(line)?;
        ensure!(said.status == 0, "{}: `{line}` ends with {}: {}", self.name, said.status, said.text);
        Ok(said.text)
    }

    /// A line that has to fail.
    pub fn fails(&mut self, line: &str) -> Result<()> {
        let said = self.run(line)?;
        ensure!(said.status != 0, "{}: `{line}` succeeds: {}", self.name, said.text);
        Ok(())
    }

    /// Whether the console said `text` within the time.
    fn wait(&mut self, text: &str, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        while !self.heard.contains(text) {
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.heard.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("the console of {} is gone", self.name),
            }
        }
        Ok(true)
    }
}

/// Takes what the console says at all times: a terminal that nobody reads holds up its guest.
fn listen(mut terminal: File) -> Result<Receiver<Vec<u8>>> {
    let (sender, said) = channel();
    std::thread::Builder::new().name("console".to_owned()).spawn(move || {
        let mut buffer = [0; 4096];
        // Ends with the guest.
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                return;
            }
        }
    })?;
    Ok(said)
}
