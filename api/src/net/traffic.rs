//! What passes over a connection: enough to say what it is waiting for.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use futures_util::task::AtomicWaker;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Stream;
use super::slots::Slot;

/// What a connection waits for. The numbers tell one wait from the next of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The rest of a request's head.
    Head { answered: u64 },
    /// Another request.
    NextRequest { answered: u64 },
    /// Our own side.
    Handler,
    /// The client to read what we wrote.
    Reader { written: u64 },
    /// The client to notice that we are done.
    End,
}

/// Shared by a connection, its stream and its requests.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    http2: AtomicBool,
    /// Requests whose answers are not complete.
    under_way: AtomicU64,
    answered: AtomicU64,
    /// Bytes read, now and when the last answer was complete.
    read: AtomicU64,
    read_before: AtomicU64,
    written: AtomicU64,
    /// The client's receive window is full.
    blocked: AtomicBool,
    waker: AtomicWaker,
}

impl Traffic {
    /// Notes a request; it ends when the guard is dropped.
    pub(super) fn begin(self: &Arc<Self>, http2: bool) -> UnderWay {
        self.http2.store(http2, SeqCst);
        self.under_way.fetch_add(1, SeqCst);
        UnderWay(Arc::clone(self))
    }

    /// Wakes the connection when an answer is complete: those of HTTP/2 are written by tasks of their own.
    pub(super) fn wake_for_answers(&self, context: &Context<'_>) {
        self.waker.register(context.waker());
    }

    pub(super) fn waiting(&self, closing: bool) -> Waiting {
        let answered = self.answered.load(SeqCst);
        if self.blocked.load(SeqCst) {
            Waiting::Reader { written: self.written.load(SeqCst) }
        } else if self.under_way.load(SeqCst) > 0 {
            Waiting::Handler
        } else if closing {
            Waiting::End
        } else if answered == 0 || self.has_begun_to_ask() {
            Waiting::Head { answered }
        } else {
            Waiting::NextRequest { answered }
        }
    }

    /// Between requests HTTP/2 has things to say of its own, HTTP/1 has not.
    fn has_begun_to_ask(&self) -> bool {
        !self.http2.load(SeqCst) && self.read.load(SeqCst) > self.read_before.load(SeqCst)
    }
}

/// A request whose answer is not complete.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Traffic>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let traffic = &self.0;
        traffic.read_before.store(traffic.read.load(SeqCst), SeqCst);
        traffic.answered.fetch_add(1, SeqCst);
        traffic.under_way.fetch_sub(1, SeqCst);
        traffic.waker.wake();
    }
}

/// The body of an answer, which is complete when this is dropped.
pub(super) struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl Counted {
    pub(super) fn new(body: Body, under_way: UnderWay) -> Self {
        Self { body, _under_way: under_way }
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that tells what passes. It holds the connection's slot, since an upgrade takes it elsewhere.
pub(super) struct Watched {
    stream: Stream,
    traffic: Arc<Traffic>,
    _slot: Slot,
}

impl Watched {
    pub(super) fn new(stream: Stream, traffic: Arc<Traffic>, slot: Slot) -> Self {
        Self { stream, traffic, _slot: slot }
    }

    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        self.traffic.blocked.store(result.is_pending(), SeqCst);
        if let Poll::Ready(Ok(count)) = result {
            self.traffic.written.fetch_add(*count as u64, SeqCst);
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.traffic.read.fetch_add((buffer.filled().len() - before) as u64, SeqCst);
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note_write(&result);
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.traffic.blocked.store(result.is_pending(), SeqCst);
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
