//! Guests that a host has and of which the control plane wants nothing: it does not know them, say, because its database was
//! restored from a backup that is older than they are.

use serde::{Deserialize, Serialize};

use crate::agent::{InstanceSpec, PortAddress};
use crate::{Generation, InstanceId, MacAddress, MemoryMib, Name, NetworkId, ProjectId, SizeGib, VolumeId};

/// The most guests of which a host tells; [`super::Heartbeat::quarantined`] counts the others, too.
pub const MAX_UNKNOWN_GUESTS: usize = 200;
/// The most volumes of one of them of which it tells, the most network cards, and the most addresses of a card.
pub const MAX_UNKNOWN_PARTS: usize = 32;
/// Guests beyond so many bytes are told of without their specification.
const MAX_SPECS_BYTES: usize = 512 * 1024;

/// A guest that is left alone, and counted in [`super::Heartbeat::quarantined`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownGuest {
    pub id: InstanceId,
    /// Whether it runs. Otherwise it is only defined, and nothing starts it.
    pub runs: bool,
    /// What the host was last told of it; absent when it has nothing of that any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<UnknownSpec>,
}

/// What of an [`InstanceSpec`] says whose guest it is and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownSpec {
    pub generation: Generation,
    pub hostname: Name,
    /// Absent when the control plane that told of it was of an earlier release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<ProjectId>,
    pub vcpus: u32,
    pub memory_mib: MemoryMib,
    /// The guest boots from the first.
    pub volumes: Vec<UnknownVolume>,
    pub cards: Vec<UnknownCard>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownVolume {
    pub id: VolumeId,
    pub size_gib: SizeGib,
    /// The shared pool that it is in; nothing is the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Name>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownCard {
    pub network_id: NetworkId,
    pub mac: MacAddress,
    /// Empty when the control plane that told of it was of an earlier release, too.
    pub addresses: Vec<PortAddress>,
}

impl UnknownSpec {
    /// As much of it as is told.
    pub fn of(spec: &InstanceSpec) -> Self {
        let volumes = spec.disks.iter().take(MAX_UNKNOWN_PARTS).map(|disk| UnknownVolume {
            id: disk.volume.id,
            size_gib: disk.volume.size_gib,
            pool: disk.volume.pool.clone(),
        });
        let cards = spec.nics.iter().take(MAX_UNKNOWN_PARTS).map(|nic| UnknownCard {
            network_id: nic.network_id,
            mac: nic.mac,
            addresses: nic.addresses.iter().take(MAX_UNKNOWN_PARTS).copied().collect(),
        });
        Self {
            generation: spec.generation,
            hostname: spec.hostname.clone(),
            project_id: spec.project_id,
            vcpus: spec.vcpus,
            memory_mib: spec.memory_mib,
            volumes: volumes.collect(),
            cards: cards.collect(),
        }
    }

    /// More bytes than it takes in a message.
    fn most_bytes(&self) -> usize {
        let addresses: usize = self.cards.iter().map(|card| card.addresses.len()).sum();
        400 + 200 * self.volumes.len() + 150 * self.cards.len() + 130 * addresses
    }
}

/// As many of them as are told, each with its specification as long as there is room.
pub fn told_of_unknown(guests: impl IntoIterator<Item = UnknownGuest>) -> Vec<UnknownGuest> {
    let mut guests: Vec<_> = guests.into_iter().collect();
    // Those that run first, and the same ones each time.
    guests.sort_by_key(|guest| (!guest.runs, guest.id));
    guests.truncate(MAX_UNKNOWN_GUESTS);
    let mut room = MAX_SPECS_BYTES;
    for guest in &mut guests {
        let Some(spec) = &guest.spec else { continue };
        match room.checked_sub(spec.most_bytes()) {
            Some(left) => room = left,
            None => guest.spec = None,
        }
    }
    guests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(number: u128, runs: bool, cards: usize) -> UnknownGuest {
        let address = PortAddress { subnet_id: uuid(1).into(), address: [10, 0, 0, 5].into() };
        let card = UnknownCard {
            network_id: uuid(2).into(),
            mac: "52:54:00:00:00:01".parse().unwrap(),
            addresses: vec![address; MAX_UNKNOWN_PARTS],
        };
        let spec = UnknownSpec {
            generation: Generation(1),
            hostname: "web".parse().unwrap(),
            project_id: None,
            vcpus: 1,
            memory_mib: MemoryMib(512),
            volumes: Vec::new(),
            cards: vec![card; cards],
        };
        UnknownGuest { id: uuid(number).into(), runs, spec: Some(spec) }
    }

    fn uuid(number: u128) -> uuid::Uuid {
        uuid::Uuid::from_u128(number)
    }

    #[test]
    fn what_is_told_is_bounded_and_begins_with_what_runs() {
        let told = told_of_unknown((0..300).rev().map(|number| guest(number, number >= 290, 0)));
        assert_eq!(told.len(), MAX_UNKNOWN_GUESTS);
        let ids: Vec<_> = told.iter().take(12).map(|guest| guest.id.as_uuid().as_u128()).collect();
        assert_eq!(ids, (290..300).chain(0..2).collect::<Vec<_>>());

        let told = told_of_unknown((0..200).map(|number| guest(number, true, MAX_UNKNOWN_PARTS)));
        assert_eq!(told.len(), 200, "of each there is a word");
        assert!(told[0].spec.is_some() && told[199].spec.is_none());
        assert!(serde_json::to_vec(&told).unwrap().len() < MAX_SPECS_BYTES + 200 * 100);
    }
}
