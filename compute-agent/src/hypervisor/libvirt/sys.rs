//! The only unsafe code of the agent: what libvirt tells by callback, limits, snapshots and block jobs of
//! disks, lists of values, which the `virt` crate does not wrap, and descriptors that libvirt opens for us.
//!
//! libvirt calls back from the one thread that runs its event loop. Each callback owns a boxed sender, its
//! *opaque*; libvirt frees the box through [`release`] when the callback is deregistered and no longer
//! running, so a callback never sees freed memory and a session leaks nothing.
#![expect(
    unsafe_code,
    reason = "libvirt's callbacks and block jobs are reached through its C interface alone"
)]

pub(super) mod values;

use std::ffi::{CStr, CString, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::{ManuallyDrop, transmute};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use protocol::agent::IoLimits;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::sys;

use crate::hypervisor::Merge;

/// A silent libvirtd is given up after about this long (5 s, four times).
const KEEP_ALIVE_SECS: i32 = 5;
const KEEP_ALIVE_COUNT: u32 = 3;
/// Between two runs of an event loop that fails, so that it does not spin.
const EVENT_LOOP_PAUSE: Duration = Duration::from_millis(200);

/// What libvirt tells without being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signal {
    /// `virConnectDomainEventLifecycleCallback`: the numbers are libvirt's.
    Lifecycle { name: String, uuid: Uuid, event: u32, detail: u32 },
    /// The connection is dead, and every handle that came from it.
    Closed { reason: &'static str },
}

type Signals = UnboundedSender<Signal>;

/// An open connection that signals. Closes when dropped.
#[derive(Debug)]
pub(super) struct Session {
    connect: Connect,
    lifecycle: c_int,
    close_callback: bool,
}

impl Session {
    /// Connects. Blocks for as long as libvirtd takes, possibly for ever.
    pub(super) fn open(uri: &str, signals: &Signals) -> Result<Self, Error> {
        start_event_loop()?;
        let mut session = Self { connect: Connect::open(Some(uri))?, lifecycle: -1, close_callback: false };
        // From here on an early return drops the session, and that closes it.
        session.keep_alive()?;
        session.register_close(signals.clone())?;
        session.register_lifecycle(signals.clone())?;
        Ok(session)
    }

    pub(super) fn connect(&self) -> &Connect {
        &self.connect
    }

    fn keep_alive(&self) -> Result<(), Error> {
        unless_unsupported(self.connect.set_keep_alive(KEEP_ALIVE_SECS, KEEP_ALIVE_COUNT).map(drop))
    }

    fn register_close(&mut self, signals: Signals) -> Result<(), Error> {
        let opaque = Box::into_raw(Box::new(signals)).cast();
        // SAFETY: the connection is open. `opaque` is a boxed `Signals`, which is what `closed` and
        // `release` take it for; libvirt owns it from here if the call succeeds.
        let status = unsafe {
            sys::virConnectRegisterCloseCallback(self.connect.as_ptr(), Some(closed), opaque, Some(release))
        };
        if status == 0 {
            self.close_callback = true;
            return Ok(());
        }
        let error = Error::last_error();
        // SAFETY: a registration that failed has neither kept nor freed the box.
        unsafe { release(opaque) };
        unless_unsupported(Err(error))
    }

    fn register_lifecycle(&mut self, signals: Signals) -> Result<(), Error> {
        let opaque = Box::into_raw(Box::new(signals)).cast();
        // SAFETY: the connection is open; no domain means all domains. libvirt calls the function with the
        // signature of `LifecycleCallback` because the event id says so: the cast is the documented use
        // (VIR_DOMAIN_EVENT_CALLBACK). `opaque` as above.
        let id = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(transmute::<LifecycleCallback, GenericCallback>(lifecycle)),
                opaque,
                Some(release),
            )
        };
        if id < 0 {
            let error = Error::last_error();
            // SAFETY: a registration that failed has neither kept nor freed the box.
            unsafe { release(opaque) };
            return Err(error);
        }
        self.lifecycle = id;
        Ok(())
    }
}

impl Drop for Session {
    /// Closes on a thread of its own: deregistering asks libvirtd, which may hang.
    fn drop(&mut self) {
        // SAFETY: the pointer is this session's own reference, which nobody uses after the drop.
        let connect = unsafe { Connect::from_ptr(self.connect.as_ptr()) };
        let (lifecycle, close_callback) = (self.lifecycle, self.close_callback);
        let closer = thread::Builder::new().name("libvirt-close".to_owned());
        let spawned = closer.spawn(move || close(connect, lifecycle, close_callback));
        if let Err(error) = spawned {
            tracing::warn!(%error, "a libvirt connection could not be closed and is left open");
        }
    }
}

/// INVARIANT: callbacks go first, for each holds a reference that keeps the connection open.
fn close(mut connect: Connect, lifecycle: c_int, close_callback: bool) {
    // The results do not matter: on a dead connection the far side is gone already, and the near side,
    // which frees our boxes, is cleaned up in any case.
    if lifecycle >= 0 {
        // SAFETY: the connection is open and the id is one that it gave.
        unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), lifecycle) };
    }
    if close_callback {
        // SAFETY: the connection is open and the callback is the one that was registered.
        unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(closed)) };
    }
    if let Err(error) = connect.close() {
        tracing::debug!(%error, "closing a libvirt connection failed");
    }
}

/// Registers and runs libvirt's event loop, once per process, for as long as the process lives.
///
/// INVARIANT: before the first connection is opened, or that one never gets an event.
fn start_event_loop() -> Result<(), Error> {
    static STARTED: OnceLock<Result<(), Error>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // libvirt prints errors to standard error besides returning them.
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl()?;
            thread::spawn(run_event_loop);
            Ok(())
        })
        .clone()
}

fn run_event_loop() {
    loop {
        if let Err(error) = virt::event::event_run_default_impl() {
            tracing::warn!(%error, "libvirt's event loop failed");
            thread::sleep(EVENT_LOOP_PAUSE);
        }
    }
}

/// Drivers inside the process (`test:///`) know neither keep-alive nor a broken connection.
fn unless_unsupported(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.code() == ErrorNumber::NoSupport => Ok(()),
        result => result,
    }
}

type GenericCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the boxed `Signals` of the registration, alive until `release`.
    let signals = unsafe { &*opaque.cast::<Signals>() };
    // SAFETY: libvirt lends the domain for the duration of the call; it is not dropped here. Name and UUID
    // are read from the handle and ask nobody.
    let domain = ManuallyDrop::new(unsafe { Domain::from_ptr(domain) });
    if let (Ok(name), Ok(uuid), Ok(event), Ok(detail)) =
        (domain.get_name(), domain.get_uuid(), u32::try_from(event), u32::try_from(detail))
    {
        // Nobody listens any more while a session is being closed.
        let _ = signals.send(Signal::Lifecycle { name, uuid, event, detail });
    }
    0
}

unsafe extern "C" fn closed(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the boxed `Signals` of the registration, alive until `release`.
    let signals = unsafe { &*opaque.cast::<Signals>() };
    let reason = match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "libvirtd closed the connection",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "libvirtd does not answer",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "the connection was closed here",
        _ => "the connection failed",
    };
    let _ = signals.send(Signal::Closed { reason });
}

/// Frees the opaque of a callback.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` from a boxed `Signals`, and given back once.
    drop(unsafe { Box::from_raw(opaque.cast::<Signals>()) });
}

/// Limits what a running domain may ask of the disk at that place; nothing is no limit.
pub(super) fn set_io_limits(domain: &Domain, target: &str, limits: IoLimits) -> Result<(), Error> {
    let target = CString::new(target).unwrap_or_default();
    let mut parameters = Parameters { first: ptr::null_mut(), used: 0, room: 0 };
    // To libvirt, zero is no limit.
    parameters.add(sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_BYTES_SEC, limits.bytes_per_second.unwrap_or(0))?;
    parameters.add(sys::VIR_DOMAIN_BLOCK_IOTUNE_TOTAL_IOPS_SEC, limits.iops.unwrap_or(0))?;
    let flags = sys::VIR_DOMAIN_AFFECT_LIVE;
    // SAFETY: the domain's handle and the name are alive during the call, which only reads them and as many
    // parameters as were added.
    let status = unsafe {
        sys::virDomainSetBlockIoTune(
            domain.as_ptr(),
            target.as_ptr(),
            parameters.first,
            parameters.used,
            flags,
        )
    };
    if status == 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// Takes the snapshot that the XML describes: of all its disks or of none, kept by nobody but us. With the memory that it
/// names, the guest goes on while that is written.
pub(super) fn snapshot(domain: &Domain, xml: &str, has_memory: bool) -> Result<(), Error> {
    let xml = CString::new(xml).unwrap_or_default();
    let how = match has_memory {
        true => sys::VIR_DOMAIN_SNAPSHOT_CREATE_LIVE,
        false => sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY,
    };
    let flags = how
        | sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
        | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        | sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA;
    // SAFETY: the domain's handle and the text are alive during the call. What it returns is ours to free.
    unsafe {
        let snapshot = sys::virDomainSnapshotCreateXML(domain.as_ptr(), xml.as_ptr(), flags);
        if snapshot.is_null() {
            return Err(Error::last_error());
        }
        sys::virDomainSnapshotFree(snapshot);
    }
    Ok(())
}

/// Ends what takes long in a domain, such as saving its memory; nothing of it is left.
pub(super) fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain's handle is alive during the call.
    let status = unsafe { sys::virDomainAbortJob(domain.as_ptr()) };
    if status == 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// Whether there is a job on the disk at that place. Waits until nothing else changes the domain.
pub(super) fn has_block_job(domain: &Domain, target: &str) -> Result<bool, Error> {
    let target = CString::new(target).unwrap_or_default();
    let mut info = sys::virDomainBlockJobInfo { type_: 0, bandwidth: 0, cur: 0, end: 0 };
    // SAFETY: the domain's handle, the name and `info` are alive during the call.
    match unsafe { sys::virDomainGetBlockJobInfo(domain.as_ptr(), target.as_ptr(), &mut info, 0) } {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::last_error()),
    }
}

/// Gives a command to the QEMU of a domain, with a file of ours. QEMU gets a descriptor of its own.
pub(super) fn monitor_command_with_file(
    domain: &Domain,
    command: &str,
    file: BorrowedFd<'_>,
) -> Result<String, Error> {
    let command = CString::new(command).unwrap_or_default();
    let mut file = file.as_raw_fd();
    let mut answer = ptr::null_mut();
    // SAFETY: the domain's handle, the command and the one descriptor are alive during the call, which reads them. We want no
    // files back, so the places for them may be null; `answer` is a string that is ours if the call succeeds.
    let status = unsafe {
        sys::virDomainQemuMonitorCommandWithFiles(
            domain.as_ptr(),
            command.as_ptr(),
            1,
            &mut file,
            ptr::null_mut(),
            ptr::null_mut(),
            &mut answer,
            0,
        )
    };
    if status < 0 || answer.is_null() {
        return Err(Error::last_error());
    }
    // SAFETY: libvirt has made a string that ends with a NUL, and gives it to us to free.
    let text = unsafe { CStr::from_ptr(answer) }.to_string_lossy().into_owned();
    // SAFETY: it came from malloc, and nobody has it any more.
    unsafe { nix::libc::free(answer.cast()) };
    Ok(text)
}

/// Starts to merge one layer, on which another stands, into the one below.
pub(super) fn block_commit(domain: &Domain, target: &str, merge: &Merge) -> Result<(), Error> {
    let name = |text: &str| CString::new(text).unwrap_or_default();
    let (target, base, top) = (name(target), name(merge.into.as_str()), name(merge.from.as_str()));
    // SAFETY: the domain's handle and the names are alive during the call, which only reads them.
    let status = unsafe {
        sys::virDomainBlockCommit(domain.as_ptr(), target.as_ptr(), base.as_ptr(), top.as_ptr(), 0, 0)
    };
    if status == 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// Ends the job on the disk at that place; the chain stays as it is.
pub(super) fn cancel_block_job(domain: &Domain, target: &str) -> Result<(), Error> {
    let target = CString::new(target).unwrap_or_default();
    // SAFETY: the domain's handle and the name are alive during the call.
    let status = unsafe { sys::virDomainBlockJobAbort(domain.as_ptr(), target.as_ptr(), 0) };
    if status == 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// A new connection to the domain's display, without a password: whoever has it is allowed in.
pub(super) fn open_display(domain: &Domain) -> Result<UnixStream, Error> {
    let descriptor = domain.open_graphics_fd(0, sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)?;
    // SAFETY: libvirt has opened it for us alone and keeps no copy; it is one end of a pair of unix sockets.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor as c_int) };
    Ok(UnixStream::from(owned))
}

/// The file, with word of when it can be read and written.
pub(super) fn watched(file: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: the file is owned by what is returned, keeps its descriptor for as long as it lives, and nobody else can
    // close that.
    let registered =
        unsafe { AsyncFd::register_with_interest(file, Interest::READABLE | Interest::WRITABLE) };
    registered.map_err(io::Error::from)
}

/// How long libvirt waits for an answer of the guest's agent, once it has said that it is there.
pub(super) fn set_agent_patience(domain: &Domain, seconds: u16) -> Result<(), Error> {
    // SAFETY: the domain's handle is alive during the call.
    let status = unsafe { sys::virDomainAgentSetResponseTimeout(domain.as_ptr(), seconds.into(), 0) };
    if status == 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// Lets the guest's agent freeze all file systems.
pub(super) fn freeze(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain's handle is alive during the call; no names mean all file systems.
    let frozen = unsafe { sys::virDomainFSFreeze(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    if frozen >= 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// Lets the guest's agent thaw all file systems.
pub(super) fn thaw(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain's handle is alive during the call; no names mean all file systems.
    let thawed = unsafe { sys::virDomainFSThaw(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    if thawed >= 0 { Ok(()) } else { Err(Error::last_error()) }
}

/// What is wrong with a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskError {
    NoSpace,
    Other,
}

/// What is wrong with the disks of a running domain; nothing of those with which all is well.
pub(super) fn disk_errors(domain: &Domain) -> Result<Vec<DiskError>, Error> {
    // SAFETY: the domain's handle is alive; without room for answers libvirt says how many there may be.
    let most = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), ptr::null_mut(), 0, 0) };
    let most = u32::try_from(most).map_err(|_| Error::last_error())?;
    let nothing = sys::virDomainDiskError { disk: ptr::null_mut(), error: 0 };
    let mut found = vec![nothing; most as usize];
    // SAFETY: the domain's handle and the room for `most` answers are alive during the call.
    let count = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), found.as_mut_ptr(), most, 0) };
    let count = usize::try_from(count).map_err(|_| Error::last_error())?;
    let errors = found.iter().take(count).map(|one| {
        // SAFETY: libvirt has allocated the name with malloc and leaves it to us; it is freed once.
        unsafe { nix::libc::free(one.disk.cast()) };
        let is_full = one.error.unsigned_abs() == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE;
        if is_full { DiskError::NoSpace } else { DiskError::Other }
    });
    Ok(errors.collect())
}

/// libvirt's list of named numbers.
struct Parameters {
    first: sys::virTypedParameterPtr,
    used: c_int,
    room: c_int,
}

impl Parameters {
    fn add(&mut self, name: &CStr, value: u64) -> Result<(), Error> {
        // SAFETY: the three fields are what libvirt made of them in earlier calls, or an empty list.
        let status = unsafe {
            sys::virTypedParamsAddULLong(
                &mut self.first,
                &mut self.used,
                &mut self.room,
                name.as_ptr(),
                value,
            )
        };
        if status == 0 { Ok(()) } else { Err(Error::last_error()) }
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        // SAFETY: a list that libvirt has allocated, or none; it is freed once.
        unsafe { sys::virTypedParamsFree(self.first, self.used) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    /// `test:///default` has one running domain of its own, and its state is shared by the process.
    #[tokio::test]
    async fn signals_what_happens_to_a_domain_and_frees_the_sender_when_closed() {
        let (signals, mut received) = unbounded_channel();
        let session = Session::open("test:///default", &signals).unwrap();
        let domain = Domain::lookup_by_name(session.connect(), "test").unwrap();
        domain.suspend().unwrap();
        let expected = Signal::Lifecycle {
            name: "test".to_owned(),
            uuid: domain.get_uuid().unwrap(),
            event: sys::VIR_DOMAIN_EVENT_SUSPENDED,
            detail: sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED,
        };
        assert_eq!(received.recv().await, Some(expected));
        domain.resume().unwrap();

        drop((domain, signals));
        assert_eq!(received.sender_strong_count(), 2);
        drop(session);
        // The driver inside the process takes a close callback and forgets it, box and all: that one stays.
        let freed = async {
            while received.sender_strong_count() > 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), freed).await.expect("the lifecycle sender is freed");
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let (signals, _received) = unbounded_channel();
        let error = Session::open("qemu:///system?socket=/no/such/socket", &signals).unwrap_err();
        assert!(error.to_string().contains("/no/such/socket"), "{error}");
    }
}
