//! What can be made to fail, and what it was to do.

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
