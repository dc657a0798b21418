//! Versions of the protocol, and what a peer of the version before is told.
//!
//! | version | has, beside all of the one before |
//! |---|---|
//! | 1 | everything else |
//! | 2 | disks that go to another host: [`DesiredBody::TakeDisks`], [`DesiredBody::GiveDisks`], [`MigrationState::Received`] and [`DISK_MOVES`], also under running guests: [`MigrationState::Mirroring`] and [`LIVE_DISKS`], and of guests that are guarded: [`GUARDED_MIGRATION`]; [`super::JoinRequest::host_id`]; [`DesiredBody::Unknown`]; the version in [`super::SessionOpened`] and [`super::HeartbeatReply`]; [`super::ObservedBatch::unknown_guests`], and for its sake [`super::InstanceSpec::project_id`] and [`super::Nic::addresses`] |
//!
//! A version is raised with the first change of a message after a release, and changes only add. A control plane reads all
//! that agents of both versions say, and tells an agent nothing that its version does not have; an agent does the same for a
//! control plane of the version before. `protocol/tests/recorded` holds both to it. Who speaks an older version, or a newer
//! one, is refused with `unsupported_protocol`.

use super::migration::{DISK_MOVES, GUARDED_MIGRATION, LIVE_DISKS};
use super::{DesiredBody, DesiredPage, Inventory, MigrationState, ObservedBatch, OpenSession};

/// The version that this build speaks.
pub const PROTOCOL_VERSION: u32 = 2;
/// The version before, which it speaks with peers that have not been upgraded.
pub const EARLIEST_PROTOCOL_VERSION: u32 = PROTOCOL_VERSION - 1;

/// What peers speak that do not say so.
pub(super) const fn unsaid() -> u32 {
    1
}

impl DesiredBody {
    /// The first version that has it.
    pub const fn since(&self) -> u32 {
        match self {
            Self::Instance(_)
            | Self::DeleteInstance { .. }
            | Self::RemoveLayers { .. }
            | Self::Network(_)
            | Self::SendSerialLog { .. }
            | Self::SendImage { .. } => 1,
            Self::TakeDisks { .. } | Self::GiveDisks { .. } => 2,
            // Never sent.
            Self::Unknown => u32::MAX,
        }
    }
}

impl DesiredPage {
    /// Without what an agent of that version does not know: it could read nothing of the page. Whoever orders such things has
    /// seen before that its host knows them, so this leaves nothing out unless an agent was put back to an earlier release.
    #[must_use]
    pub fn for_version(mut self, version: u32) -> Self {
        self.objects.retain(|object| object.body.since() <= version);
        for object in &mut self.objects {
            if version < 2
                && let DesiredBody::Instance(spec) = &mut object.body
            {
                spec.project_id = None;
                spec.nics.iter_mut().for_each(|nic| nic.addresses.clear());
            }
        }
        self
    }
}

impl MigrationState {
    /// The first version that has it.
    const fn since(&self) -> u32 {
        match self {
            Self::Ready { .. }
            | Self::Refused { .. }
            | Self::Transferring { .. }
            | Self::HandedOver
            | Self::Ended { .. } => 1,
            Self::Received | Self::Mirroring { .. } => 2,
        }
    }
}

impl ObservedBatch {
    /// Without what a control plane of that version does not know: it would refuse the whole batch.
    #[must_use]
    pub fn for_version(mut self, version: u32) -> Self {
        self.migrations.retain(|report| report.state.since() <= version);
        self.unknown_guests = self.unknown_guests.filter(|_| version >= 2);
        self
    }
}

impl OpenSession {
    /// As an agent says it that speaks this version from then on.
    #[must_use]
    pub fn for_version(self, version: u32) -> Self {
        Self { protocol_version: version, inventory: self.inventory.for_version(version), ..self }
    }
}

/// Features that tell of orders which a later version than the first one has.
const FEATURES_SINCE: [(&str, u32); 3] = [(DISK_MOVES, 2), (LIVE_DISKS, 2), (GUARDED_MIGRATION, 2)];

impl Inventory {
    /// Without features that speak of what that version does not have.
    #[must_use]
    pub fn for_version(mut self, version: u32) -> Self {
        self.features.retain(|feature| {
            FEATURES_SINCE.iter().all(|(name, since)| name != feature || *since <= version)
        });
        self
    }
}
