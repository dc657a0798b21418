//! Sending images that are made of disks.
//!
//! The order is repeated by the control plane until it knows that it was carried out, so nothing of it has to
//! survive this process. What is made for it goes with the attempt.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protocol::TransferId;
use protocol::agent::{ImageStatus, Sending, VolumeSpec};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::chain;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::host_storage::{ExportedDisk, HostStorage, HostStorageError};
use crate::session::Session;

/// Disks that are copied and sent at the same time: room is not promised twice, and guests come first.
const AT_ONCE: usize = 1;
/// Pauses between attempts to copy.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Pauses between attempts to send what is copied, and how many there are before it is dropped: while it is there it
/// takes room from the guests.
const SEND_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
const SENDS: u32 = 12;
/// How often the control plane is asked whether the copy is still wanted.
const STILL_WANTED: Duration = Duration::from_secs(5);

const NO_DATA: &str =
    "Nothing was ever written to the disk on its host. Use the image that it was made from.";
const NO_ROOM: &str = "The host has too little room for a copy of the disk.";
const NOT_COPIED: &str = "The host could not copy the disk yet.";
const NOT_SENT: &str = "The host could not send the copy of the disk.";

/// See the module.
pub struct Images {
    control_plane: Arc<dyn ControlPlane>,
    storage: Arc<dyn HostStorage>,
    session: Arc<Session>,
    stop: CancellationToken,
    turns: Semaphore,
    underway: Mutex<HashMap<TransferId, CancellationToken>>,
}

/// Why an attempt did not end with an image.
enum NotSent {
    /// It is sent, or nobody wants it any more.
    Over,
    /// Something for the control plane to know.
    Said(Sending),
    /// The control plane did not answer.
    Unheard(ControlPlaneError),
}

impl From<ControlPlaneError> for NotSent {
    fn from(error: ControlPlaneError) -> Self {
        if error.is_gone() { Self::Over } else { Self::Unheard(error) }
    }
}

impl From<HostStorageError> for NotSent {
    fn from(error: HostStorageError) -> Self {
        let detail = match &error {
            HostStorageError::Image(_) | HostStorageError::Deleted(_) => {
                return Self::Said(Sending::Failed { detail: NO_DATA.to_owned() });
            }
            HostStorageError::Full(_) => NO_ROOM,
            HostStorageError::Chain(_) | HostStorageError::Reach(_) => error.detail(),
            HostStorageError::Fetch(_) | HostStorageError::Pool(_) => NOT_COPIED,
        };
        tracing::warn!(error = %chain(&error), "a disk is not copied yet");
        Self::Said(Sending::Waiting { detail: detail.to_owned() })
    }
}

impl Images {
    /// What is under way ends when `stop` is cancelled.
    pub fn new(
        control_plane: Arc<dyn ControlPlane>,
        storage: Arc<dyn HostStorage>,
        session: Arc<Session>,
        stop: CancellationToken,
    ) -> Self {
        let (turns, underway) = (Semaphore::new(AT_ONCE), Mutex::default());
        Self { control_plane, storage, session, stop, turns, underway }
    }

    /// Copies the disk and sends it in the background, however long it takes.
    pub(super) fn begin(self: &Arc<Self>, order: TransferId, source: VolumeSpec) {
        let cancelled = {
            let mut underway = self.underway();
            if underway.contains_key(&order) {
                return;
            }
            underway.entry(order).or_insert_with(|| self.stop.child_token()).clone()
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            tokio::select! {
                () = this.carry_out(order, &source) => {}
                () = cancelled.cancelled() => {}
            }
            this.underway().remove(&order);
        });
    }

    /// Gives up whatever is not among these: all that there is to send.
    pub(super) fn keep_only(&self, orders: &HashSet<TransferId>) {
        for (order, cancelled) in &*self.underway() {
            if !orders.contains(order) {
                cancelled.cancel();
            }
        }
    }

    /// Returns when the image is sent or not wanted any more.
    async fn carry_out(&self, order: TransferId, source: &VolumeSpec) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let ended = match self.attempt(order, source).await {
                Err(NotSent::Said(said)) => self.say(order, said).await,
                other => other,
            };
            match ended {
                Ok(()) | Err(NotSent::Over) => return,
                Err(NotSent::Unheard(error)) => {
                    tracing::warn!(%order, error = %chain(&error), "an image is not sent yet");
                }
                Err(NotSent::Said(_)) => {}
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn attempt(&self, order: TransferId, source: &VolumeSpec) -> Result<(), NotSent> {
        let _turn = self.turns.acquire().await;
        self.tell(order, Sending::Converting).await?;
        let disk = tokio::select! {
            disk = self.storage.export(source) => disk?,
            () = self.until_unwanted(order) => return Err(NotSent::Over),
        };
        let mut backoff = Backoff::new(SEND_AGAIN.0, SEND_AGAIN.1);
        for _ in 1..SENDS {
            match self.send(order, disk.as_ref()).await {
                Err(NotSent::Unheard(error)) => {
                    tracing::warn!(%order, error = %chain(&error), "sending a copied disk again");
                }
                ended => return ended,
            }
            tokio::time::sleep(backoff.next()).await;
        }
        match self.send(order, disk.as_ref()).await {
            Err(NotSent::Unheard(_)) => Err(NotSent::Said(Sending::Waiting { detail: NOT_SENT.to_owned() })),
            ended => ended,
        }
    }

    async fn send(&self, order: TransferId, disk: &dyn ExportedDisk) -> Result<(), NotSent> {
        let bytes = disk.read().await?;
        let epoch = self.session.until_open().await.epoch;
        self.control_plane.send_image(order, epoch, disk.size_bytes(), bytes).await?;
        tracing::info!(%order, bytes = disk.size_bytes(), "image sent");
        Ok(())
    }

    async fn until_unwanted(&self, order: TransferId) {
        loop {
            tokio::time::sleep(STILL_WANTED).await;
            if let Err(NotSent::Over) = self.tell(order, Sending::Converting).await {
                return;
            }
        }
    }

    /// Tells it, and goes on unless that was the end.
    async fn say(&self, order: TransferId, said: Sending) -> Result<(), NotSent> {
        let last = matches!(said, Sending::Failed { .. });
        self.tell(order, said.clone()).await?;
        if last { Ok(()) } else { Err(NotSent::Said(said)) }
    }

    async fn tell(&self, order: TransferId, status: Sending) -> Result<(), NotSent> {
        let epoch = self.session.until_open().await.epoch;
        Ok(self.control_plane.image_status(order, &ImageStatus { epoch, status }).await?)
    }

    fn underway(&self) -> MutexGuard<'_, HashMap<TransferId, CancellationToken>> {
        self.underway.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
