//! A body, cut into pieces, of which each is stored by itself.

use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::{Stream, StreamExt};

/// A body that is read piece by piece. A sender that breaks off ends it; what has come is kept.
pub(super) struct Pieces<S> {
    body: S,
    rest: Bytes,
    ended: bool,
    /// The sender broke off.
    pub broken: bool,
}

impl<S, E> Pieces<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    pub(super) fn new(body: S) -> Self {
        Self { body, rest: Bytes::new(), ended: false, broken: false }
    }

    /// Waits for bytes, and tells whether there are more.
    pub(super) async fn more(&mut self) -> bool {
        while self.rest.is_empty() && !self.ended {
            match self.body.next().await {
                Some(Ok(chunk)) => self.rest = chunk,
                Some(Err(_)) => (self.ended, self.broken) = (true, true),
                None => self.ended = true,
            }
        }
        !self.rest.is_empty()
    }

    /// The next piece, of at most so many bytes.
    pub(super) fn piece(&mut self, limit: u64) -> impl Stream<Item = Result<Bytes, Infallible>> {
        futures_util::stream::unfold((self, limit), |(pieces, left)| async move {
            if left == 0 || !pieces.more().await {
                return None;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(pieces.rest.len());
            let chunk = pieces.rest.split_to(count);
            Some((Ok(chunk), (pieces, left - count as u64)))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use proptest::prelude::*;

    use super::*;

    async fn cut(chunks: &[Vec<u8>], limit: u64, broken: bool) -> (Vec<Vec<u8>>, bool) {
        let chunks = chunks.iter().cloned().map(Bytes::from).map(Ok);
        let end = broken.then_some(Err(()));
        let mut pieces = Pieces::new(futures_util::stream::iter(chunks.chain(end)));
        let mut cut = Vec::new();
        while pieces.more().await {
            let piece: Vec<Bytes> = pieces.piece(limit).try_collect().await.unwrap();
            cut.push(piece.concat());
        }
        (cut, pieces.broken)
    }

    proptest! {
        #[test]
        fn pieces_are_full_but_the_last_and_make_the_whole(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..9), 0..9),
            limit in 1_u64..20,
            broken: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (cut, was_broken) = runtime.block_on(cut(&chunks, limit, broken));
            prop_assert_eq!(cut.concat(), chunks.concat());
            prop_assert_eq!(was_broken, broken);
            prop_assert!(cut.iter().rev().skip(1).all(|piece| piece.len() as u64 == limit));
            prop_assert!(cut.iter().all(|piece| !piece.is_empty() && piece.len() as u64 <= limit));
        }
    }
}
