//! Bytes from one side to the other and back.
//!
//! A piece is read when the one before is written, so nothing piles up here. A guest stands still while its serial
//! port is not read, so a line that takes nothing is given up soon.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Stream;

const PIECE_BYTES: usize = 16 << 10;

/// How long each side may take nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub line: Duration,
    pub guest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { line: Duration::from_secs(10), guest: Duration::from_secs(30) }
    }
}

/// Carries until one side ends; tells why.
pub(super) async fn both_ways(console: Stream, line: Stream, patience: Patience) -> &'static str {
    let (from_guest, to_guest) = tokio::io::split(console);
    let (from_line, to_line) = tokio::io::split(line);
    tokio::select! {
        read_ended = one_way(from_guest, to_line, patience.line) => match read_ended {
            true => "the guest's side ended",
            false => "the control plane takes nothing any more",
        },
        read_ended = one_way(from_line, to_guest, patience.guest) => match read_ended {
            true => "the control plane's side ended",
            false => "the guest takes nothing any more",
        },
    }
}

/// Whether the side that is read has ended, and not the other one.
async fn one_way(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, stuck: Duration) -> bool {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else { return true };
        let write = async {
            to.write_all(piece.get(..count).unwrap_or_default()).await?;
            to.flush().await
        };
        if !matches!(tokio::time::timeout(stuck, write).await, Ok(Ok(()))) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn nothing_piles_up_and_a_line_that_takes_nothing_is_given_up() {
        let (mut guest, console) = tokio::io::duplex(1024);
        let (_user, line) = tokio::io::duplex(1024);
        let patience = Patience { line: 5 * SHORT, ..Patience::default() };
        let carrying = tokio::spawn(both_ways(Box::new(console), Box::new(line), patience));
        // The guest writes until nothing goes any more: what fits into the pipes and into one piece.
        let mut said = 0;
        while tokio::time::timeout(SHORT, guest.write_all(&[7; 256])).await.is_ok() {
            said += 256;
        }
        assert!(said <= 2 * 1024 + PIECE_BYTES, "{said}");
        assert_eq!(carrying.await.unwrap(), "the control plane takes nothing any more");
        assert!(guest.write_all(&[7; 4096]).await.is_err(), "the console is closed");
    }

    #[tokio::test]
    async fn each_side_ends_the_other() {
        for user_goes in [true, false] {
            let (mut guest, console) = tokio::io::duplex(64);
            let (mut user, line) = tokio::io::duplex(64);
            let carrying = tokio::spawn(both_ways(Box::new(console), Box::new(line), Patience::default()));
            user.write_all(b"ls\n").await.unwrap();
            let mut heard = [0; 3];
            guest.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"ls\n");
            guest.write_all(b"files").await.unwrap();
            let mut seen = [0; 5];
            user.read_exact(&mut seen).await.unwrap();
            assert_eq!(&seen, b"files");
            let (gone, mut left) = if user_goes { (user, guest) } else { (guest, user) };
            drop(gone);
            assert_eq!(left.read(&mut seen).await.unwrap(), 0);
            assert!(carrying.await.unwrap().contains("side ended"));
        }
    }
}
