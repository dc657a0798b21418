//! The session that this agent has with the control plane, shared by those who need its epoch.

use protocol::agent::{Epoch, SessionOpened};
use tokio::sync::watch;

/// Opened by the feed, used by everybody, lost by whoever learns of it first.
#[derive(Debug)]
pub struct Session {
    current: watch::Sender<Option<Current>>,
    /// The newest version that the control plane has said to speak since.
    offered: watch::Sender<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Current {
    pub epoch: Epoch,
    pub heartbeat_seconds: u32,
    /// What is spoken in it.
    pub protocol_version: u32,
}

impl Default for Session {
    fn default() -> Self {
        Self { current: watch::Sender::new(None), offered: watch::Sender::new(0) }
    }
}

impl Session {
    pub fn opened(&self, opened: &SessionOpened) {
        let &SessionOpened { epoch, heartbeat_seconds, protocol_version, .. } = opened;
        let current = Current { epoch, heartbeat_seconds, protocol_version };
        self.offered.send_replace(protocol_version);
        self.current.send_replace(Some(current));
    }

    /// That epoch is no longer the newest.
    pub fn lost(&self, epoch: Epoch) {
        self.current.send_if_modified(|current| {
            let is_that = current.is_some_and(|current| current.epoch == epoch);
            if is_that {
                *current = None;
            }
            is_that
        });
    }

    /// The session, once there is one.
    pub async fn until_open(&self) -> Current {
        let mut receiver = self.current.subscribe();
        loop {
            if let Some(current) = *receiver.borrow_and_update() {
                return current;
            }
            // The sender lives in `self`, so the channel cannot be closed.
            let _ = receiver.changed().await;
        }
    }

    /// The control plane speaks this version, too.
    pub fn offered(&self, version: u32) {
        self.offered.send_if_modified(|known| std::mem::replace(known, version) != version);
    }

    /// Returns when the control plane has offered a newer version than this one.
    pub async fn until_offered_more(&self, version: u32) {
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.offered.subscribe().wait_for(|offered| *offered > version).await;
    }

    /// Returns when that epoch is not the session's any more.
    pub async fn until_lost(&self, epoch: Epoch) {
        let is_other = |current: &Option<Current>| current.is_none_or(|current| current.epoch != epoch);
        // The sender lives in `self`, so the channel cannot be closed.
        let _ = self.current.subscribe().wait_for(is_other).await;
    }
}
