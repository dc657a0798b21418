//! The serial port in a terminal, whose keys go to the guest as they are.

use std::io::{IsTerminal as _, Read as _, Write as _, stdin, stdout};
use std::time::Duration;

use anyhow::Result;
use client::WebSocket;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// After the end of what a script has to say, the guest may still answer: until it is silent for so long.
const SILENCE: Duration = Duration::from_secs(3);
/// Soft reset; no alternate screen, no reports of the mouse, no bracketed paste; the cursor is seen.
const MODES_OFF: &[u8] =
    b"\x1b[!p\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l\x1b[?25h";
/// So many reads of the keyboard may wait for the cloud.
const WAITING: usize = 16;

/// # Errors
/// When the cloud ends it for another reason than the guest's end.
pub(super) async fn attach(socket: WebSocket) -> Result<()> {
    let is_terminal = stdin().is_terminal();
    if is_terminal {
        eprintln!("Connected. Press Enter if nothing shows; type ~. at the beginning of a line to leave.");
    }
    let raw = is_terminal.then(RawTerminal::begin).transpose()?;
    let (sender, typed) = mpsc::channel(WAITING);
    // Not one of the runtime's own, which it would wait for at its end.
    std::thread::spawn(move || read_keys(&sender, is_terminal));
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let ended = tokio::select! {
        ended = super::relay(socket, typed, tokio::io::stdout(), SILENCE) => ended,
        _ = terminated.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
    };
    drop(raw);
    if is_terminal {
        eprintln!("\nDisconnected.");
    }
    ended
}

fn read_keys(sender: &mpsc::Sender<Vec<u8>>, is_terminal: bool) {
    let (mut keys, mut buffer) = (Keys::default(), [0; 1024]);
    while let Ok(count @ 1..) = stdin().read(&mut buffer) {
        let bytes = if is_terminal { keys.take(&buffer[..count]) } else { Some(buffer[..count].to_vec()) };
        let Some(bytes) = bytes else { return };
        if sender.blocking_send(bytes).is_err() {
            return;
        }
    }
}

/// The terminal as it was, for afterwards.
struct RawTerminal(Termios);

impl RawTerminal {
    fn begin() -> nix::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing is left to be done about what fails here. What the guest has asked the terminal is not to be answered
        // into the user's shell, and its modes end with it.
        let _ = stdout().write_all(MODES_OFF).and_then(|()| stdout().flush());
        let _ = tcsetattr(stdin(), SetArg::TCSAFLUSH, &self.0);
    }
}

/// What was typed, in which a tilde at the beginning of a line is for us, as in ssh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Keys {
    #[default]
    LineBegins,
    Tilde,
    InLine,
}

impl Keys {
    /// What goes to the guest; nothing any more when the user leaves.
    fn take(&mut self, typed: &[u8]) -> Option<Vec<u8>> {
        let mut sent = Vec::with_capacity(typed.len() + 1);
        for &key in typed {
            match (*self, key) {
                (Self::LineBegins, b'~') => {
                    *self = Self::Tilde;
                    continue;
                }
                (Self::Tilde, b'.') => return None,
                (Self::Tilde, b'~') => {}
                (Self::Tilde, _) => sent.push(b'~'),
                _ => {}
            }
            sent.push(key);
            *self = if matches!(key, b'\r' | b'\n') { Self::LineBegins } else { Self::InLine };
        }
        Some(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tilde_at_the_beginning_of_a_line_is_ours() {
        let sent = |typed: &[&str]| -> Vec<_> {
            let mut keys = Keys::default();
            typed
                .iter()
                .map(|part| keys.take(part.as_bytes()).map(|sent| String::from_utf8(sent).unwrap()))
                .collect()
        };
        let some = |parts: &[&str]| -> Vec<_> { parts.iter().map(|part| Some((*part).to_owned())).collect() };
        assert_eq!(sent(&["ls ~.\r"]), some(&["ls ~.\r"]));
        assert_eq!(sent(&["~~x\r", "~", "/\r"]), some(&["~x\r", "", "~/\r"]));
        assert_eq!(sent(&["~."]), vec![None]);
        assert_eq!(sent(&["id\r~", "."]), vec![Some("id\r".to_owned()), None]);
    }
}
