//! Consoles of running domains, as streams.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use nix::fcntl::OFlag;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use virt::connect::Connect;
use virt::domain::Domain as Handle;
use virt::stream::Stream;

use super::{refused, sys, xml};
use crate::consoles::picture::MAX_RAW_BYTES;
use crate::hypervisor::HypervisorError;

const PIECE_BYTES: usize = 64 << 10;
const OPEN_DISPLAY: &str = "open the display";
const OPEN_SERIAL: &str = "open the serial console";

/// A connection to the display, made by libvirt and known to nobody else.
pub(super) fn display(domain: &Handle) -> Result<std::os::unix::net::UnixStream, HypervisorError> {
    let failed = |error| refused(OPEN_DISPLAY, error);
    let found =
        xml::consoles(&domain.get_xml_desc(0).map_err(failed)?).map_err(|e| refused(OPEN_DISPLAY, e))?;
    if !found.has_display {
        return Err(HypervisorError::NoDisplay);
    }
    let stream = sys::open_display(domain).map_err(failed)?;
    stream.set_nonblocking(true).map_err(|error| refused(OPEN_DISPLAY, error))?;
    Ok(stream)
}

/// What the display shows.
pub(super) fn screenshot(connect: &Connect, domain: &Handle) -> Result<Vec<u8>, HypervisorError> {
    let attempted = "take a picture of the display";
    let failed = |error| refused(attempted, error);
    let found = xml::consoles(&domain.get_xml_desc(0).map_err(failed)?).map_err(|e| refused(attempted, e))?;
    if !found.has_display {
        return Err(HypervisorError::NoDisplay);
    }
    let stream = Stream::new(connect, 0).map_err(failed)?;
    domain.screenshot(&stream, 0, 0).map_err(failed)?;
    let (mut picture, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let count = stream.recv(&mut piece).map_err(failed)?;
        if count == 0 {
            break;
        }
        picture.extend_from_slice(piece.get(..count).unwrap_or_default());
        if picture.len() > MAX_RAW_BYTES {
            // What is left does not matter.
            let _ = stream.abort();
            return Err(refused(attempted, io::Error::other("the picture is too large")));
        }
    }
    stream.finish().map_err(failed)?;
    Ok(picture)
}

/// The terminal of the serial port. QEMU goes on to write its log beside.
pub(super) fn serial(domain: &Handle) -> Result<File, HypervisorError> {
    let failed = |error| refused(OPEN_SERIAL, error);
    let look = || {
        let found = xml::consoles(&domain.get_xml_desc(0).map_err(failed)?);
        let path = found.map_err(|error| refused(OPEN_SERIAL, error))?.serial;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the domain has no terminal");
        let path = path.filter(|path| path.starts_with("/dev/pts")).ok_or_else(missing);
        path.map_err(|error| refused(OPEN_SERIAL, error))
    };
    let path = look()?;
    let flags = OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let opened = File::options().read(true).write(true).custom_flags(flags.bits()).open(&path);
    let terminal = opened.map_err(|error| refused(OPEN_SERIAL, error))?;
    // INVARIANT: what was opened is this domain's. Its number is given to nobody else while QEMU holds the other end,
    // and QEMU still does.
    let is_still = look()? == path && domain.is_active().map_err(failed)?;
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the domain has ended");
    is_still.then_some(terminal).ok_or_else(|| refused(OPEN_SERIAL, gone()))
}

/// A terminal that is read and written without blocking.
pub(super) struct Terminal(AsyncFd<File>);

impl Terminal {
    pub(super) fn new(file: File) -> io::Result<Self> {
        sys::watched(file).map(Self)
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|terminal| terminal.get_ref().read(unfilled)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|terminal| terminal.get_ref().write(bytes)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
