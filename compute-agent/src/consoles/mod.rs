//! Consoles and pictures of displays that somebody waits for. A console is opened here, brought to the control plane, and carried until one side ends.
//!
//! Nothing of a console is remembered. An agent that ends takes its consoles with it; guests do not notice.

mod carry;
pub(crate) mod picture;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::agent::{ConsoleKind, Epoch, HostRequest, MAX_SCREENSHOT_BYTES, Refusal, RefusalReason};
use protocol::{ConsoleId, InstanceId, TransferId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::carry::Patience;
use crate::control_plane::ControlPlane;
use crate::hypervisor::{Hypervisor, HypervisorError};

/// Open at once on this host.
const MAX_OPEN: usize = 64;
/// Each takes some memory while it is made.
const PICTURES_AT_ONCE: usize = 1;
/// Pictures that are made or wait for their turn; whoever asks for more hears that this host is busy.
const MAX_PICTURES: usize = 8;
/// As long as the control plane waits for one.
const PICTURE_PATIENCE: Duration = Duration::from_secs(15);
/// Ids of requests that are remembered, so that one that comes twice is carried out once.
const REMEMBERED: usize = 1024;

/// The bytes of a console, both ways.
pub type Stream = Box<dyn ReadWrite>;

/// Reads and writes, neither of which blocks.
pub trait ReadWrite: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ReadWrite for T {}

/// See the module.
pub struct Consoles {
    control_plane: Arc<dyn ControlPlane>,
    hypervisor: Arc<dyn Hypervisor>,
    stop: CancellationToken,
    room: Arc<Semaphore>,
    pictures: Semaphore,
    picture_room: Arc<Semaphore>,
    seen: Mutex<HashSet<TransferId>>,
    /// Instances whose serial console somebody has.
    serial: Arc<Mutex<HashSet<InstanceId>>>,
}

/// A console that is about to be opened.
#[derive(Debug, Clone)]
struct Wanted {
    id: ConsoleId,
    instance: InstanceId,
    kind: ConsoleKind,
    dial: Option<String>,
    longest: Duration,
    epoch: Epoch,
}

impl Consoles {
    pub fn new(
        control_plane: Arc<dyn ControlPlane>,
        hypervisor: Arc<dyn Hypervisor>,
        stop: CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(MAX_OPEN));
        let pictures = Semaphore::new(PICTURES_AT_ONCE);
        let picture_room = Arc::new(Semaphore::new(MAX_PICTURES));
        let (seen, serial) = (Mutex::default(), Arc::default());
        Self { control_plane, hypervisor, stop, room, pictures, picture_room, seen, serial }
    }

    /// Carries the request out in the background, if it is new.
    pub fn begin(self: &Arc<Self>, epoch: Epoch, request: &HostRequest) {
        let consoles = Arc::clone(self);
        match request {
            HostRequest::OpenConsole { id, instance_id, console, dial, max_seconds } => {
                let wanted = Wanted {
                    id: *id,
                    instance: *instance_id,
                    kind: *console,
                    dial: dial.clone(),
                    longest: Duration::from_secs((*max_seconds).into()),
                    epoch,
                };
                if self.is_new(wanted.request()) {
                    tokio::spawn(async move { consoles.serve(wanted).await });
                }
            }
            &HostRequest::Screenshot { id, instance_id, max_bytes } => {
                if self.is_new(id) {
                    let (room, asked_at) =
                        (Arc::clone(&self.picture_room).try_acquire_owned(), Instant::now());
                    tokio::spawn(async move {
                        let Ok(_room) = room else {
                            return consoles.refuse(id, epoch, RefusalReason::Busy).await;
                        };
                        // Never closed.
                        let _turn = consoles.pictures.acquire().await.ok();
                        if asked_at.elapsed() < PICTURE_PATIENCE {
                            consoles.send_picture(id, instance_id, max_bytes, epoch).await;
                        }
                    });
                }
            }
            HostRequest::Unknown => {}
        }
    }

    fn is_new(&self, id: TransferId) -> bool {
        let mut seen = lock(&self.seen);
        if seen.len() >= REMEMBERED {
            // Whatever waited for these has long gone.
            seen.clear();
        }
        seen.insert(id)
    }

    async fn send_picture(&self, id: TransferId, instance: InstanceId, max_bytes: u32, epoch: Epoch) {
        let max_bytes =
            usize::try_from(max_bytes).map_or(MAX_SCREENSHOT_BYTES, |max| max.min(MAX_SCREENSHOT_BYTES));
        let picture = match self.hypervisor.screenshot(instance).await {
            Ok(picture) => picture,
            Err(error) => return self.refuse(id, epoch, reason_of(instance, &error)).await,
        };
        let made = tokio::task::spawn_blocking(move || picture::fitting(&picture, max_bytes)).await;
        let sent = match made {
            Ok(Ok(png)) => self.control_plane.transfer(id, epoch, png).await,
            Ok(Err(error)) => {
                tracing::warn!(%instance, error = %crate::chain(&error), "no picture of the display");
                return self.refuse(id, epoch, RefusalReason::Failed).await;
            }
            Err(_panicked) => return self.refuse(id, epoch, RefusalReason::Failed).await,
        };
        match sent {
            Ok(()) => {}
            // Whoever asked has gone.
            Err(error) if error.is_gone() => {}
            Err(error) => tracing::warn!(%instance, error = %crate::chain(&error), "a picture was not sent"),
        }
    }

    async fn serve(&self, wanted: Wanted) {
        let Wanted { id, instance, kind, .. } = wanted;
        let (console, _held) = match self.open(&wanted).await {
            Ok(opened) => opened,
            Err(reason) => return self.refuse(wanted.request(), wanted.epoch, reason).await,
        };
        let line = match self.control_plane.bring_console(id, wanted.epoch, wanted.dial.as_deref()).await {
            Ok(line) => line,
            // Whoever waited has gone.
            Err(error) if error.is_gone() => {
                return tracing::info!(%id, %instance, error = %crate::chain(&error), "nobody took the console");
            }
            Err(error) => {
                tracing::warn!(%id, %instance, error = %crate::chain(&error), "the console could not be brought");
                return self.refuse(wanted.request(), wanted.epoch, RefusalReason::Failed).await;
            }
        };
        tracing::info!(%id, %instance, kind = kind.as_str(), "console open");
        let why = tokio::select! {
            why = carry::both_ways(console, line, Patience::default()) => why,
            () = tokio::time::sleep(wanted.longest) => "it has lasted as long as one may",
            () = self.stop.cancelled() => "the agent ends",
        };
        tracing::info!(%id, %instance, why, "console closed");
    }

    async fn open(&self, wanted: &Wanted) -> Result<(Stream, Held), RefusalReason> {
        let held = self.hold(wanted).ok_or(RefusalReason::Busy)?;
        let opened = self.hypervisor.open_console(wanted.instance, wanted.kind).await;
        opened.map(|console| (console, held)).map_err(|error| reason_of(wanted.instance, &error))
    }

    /// Two readers of one serial port would each get half of what it says.
    fn hold(&self, wanted: &Wanted) -> Option<Held> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        let serial = match wanted.kind {
            ConsoleKind::Vnc => None,
            ConsoleKind::Serial => {
                let new = lock(&self.serial).insert(wanted.instance);
                Some(new.then(|| (Arc::clone(&self.serial), wanted.instance))?)
            }
        };
        Some(Held { serial, _room: room })
    }

    async fn refuse(&self, request: TransferId, epoch: Epoch, reason: RefusalReason) {
        match self.control_plane.refuse(request, epoch, &Refusal { reason }).await {
            Ok(()) => {}
            Err(error) if error.is_gone() => {}
            Err(error) => {
                tracing::warn!(id = %request, error = %crate::chain(&error), "a refusal was not sent");
            }
        }
    }
}

impl Wanted {
    fn request(&self) -> TransferId {
        TransferId::from_uuid(self.id.as_uuid())
    }
}

fn reason_of(instance: InstanceId, error: &HypervisorError) -> RefusalReason {
    match error {
        HypervisorError::NotFound(_) => RefusalReason::NotRunning,
        HypervisorError::NoDisplay => RefusalReason::NoDisplay,
        error => {
            tracing::warn!(%instance, error = %crate::chain(error), "not shown");
            RefusalReason::Failed
        }
    }
}

/// Room for a console, until it is dropped.
struct Held {
    serial: Option<(Arc<Mutex<HashSet<InstanceId>>>, InstanceId)>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some((serial, instance)) = &self.serial {
            lock(serial).remove(instance);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
