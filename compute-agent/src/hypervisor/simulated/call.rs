//! What can be made to fail, and what it was to do; and what fails as it would with QEMU.

use std::io;

use protocol::InstanceId;
use rand::RngExt as _;

use super::{State, refused};
use crate::hypervisor::{DomainDisk, HypervisorError};

/// The calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    Create,
    PressPowerButton,
    Destroy,
    AttachCard,
    AttachDisk,
    TuneDisk,
    Snapshot,
    Restore,
    Thaw,
    Merge,
    Resume,
    CancelSending,
    Arrive,
    Mirror,
    WriteDisk,
    HoldDisk,
    FinishMirrors,
    EndMirrors,
}

impl Call {
    pub(super) const fn attempted(self) -> &'static str {
        match self {
            Self::Create => "start the domain",
            Self::PressPowerButton => "press the power button",
            Self::Destroy => "cut the power",
            Self::AttachCard => "plug the network card in",
            Self::AttachDisk => "plug the disk in",
            Self::CancelSending => "send the guest no further",
            Self::Mirror => "mirror the disks",
            Self::WriteDisk | Self::HoldDisk => "write to the disk of another host",
            Self::FinishMirrors => "send the rest of the guest",
            Self::EndMirrors => "end the mirrors of the disks",
            Self::Arrive => "say that the guest has come",
            Self::TuneDisk => "change the disk",
            Self::Snapshot => "take a snapshot",
            Self::Restore => "load the memory",
            Self::Thaw => "thaw the guest",
            Self::Merge => "merge layers",
            Self::Resume => "let the guest go on",
        }
    }
}

impl State {
    /// QEMU locks the files that it writes: two domains never have one volume.
    pub(super) fn refuse_shared(&self, id: InstanceId, disks: &[DomainDisk]) -> Result<(), HypervisorError> {
        let is_shared = |disk: &DomainDisk| {
            self.domains.values().any(|domain| domain.id != id && domain.volume(disk.volume).is_some())
        };
        if disks.iter().any(is_shared) {
            let source = io::Error::other("simulated: another domain has the volume");
            return Err(HypervisorError::Refused { attempted: "use the disk", source: Box::new(source) });
        }
        Ok(())
    }

    pub(super) fn fail_if_asked(&mut self, call: Call) -> Result<(), HypervisorError> {
        match self.failures.get_mut(&call) {
            Some(left) if *left > 0 => {
                *left -= 1;
                Err(refused(call, "simulated: refused on demand"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn fail_by_chance(&mut self) -> Result<(), HypervisorError> {
        let share = self.machine.failing_creates;
        if share > 0.0 && self.dice.random_bool(share.min(1.0)) {
            self.starts.refused += 1;
            return Err(refused(Call::Create, "simulated: refused by chance"));
        }
        Ok(())
    }
}
