//! The chain of a volume in a running domain, compared with the one that is wanted. Pure.

use protocol::agent::{InstanceSpec, VolumeSpec};
use protocol::{LayerId, VolumeId};

use crate::hypervisor::{Domain, SeenVolume};

/// What is between the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Chain {
    /// Those that the domain lacks at its top, from the bottom to the top.
    pub missing: Vec<LayerId>,
    /// Those to merge that the domain does not have.
    pub merged: Vec<LayerId>,
    /// The lowest that is still to be merged, after the one below it.
    pub merge: Option<[LayerId; 2]>,
}

/// `None` when they are not the same chain: the domain lacks a layer below others, or has one that is not wanted.
fn compare(wanted: &VolumeSpec, seen: &SeenVolume) -> Option<Chain> {
    let mut chain = Chain::default();
    let mut rest = seen.layers.iter().peekable();
    rest.peek()?;
    for layer in &wanted.layers {
        if rest.next_if_eq(&layer).is_some() {
            continue;
        }
        match rest.peek() {
            _ if wanted.merges.contains(layer) => chain.merged.push(*layer),
            None => chain.missing.push(*layer),
            Some(_) => return None,
        }
    }
    let is_due = |three: &&[LayerId]| wanted.merges.contains(&three[1]);
    chain.merge = seen.layers.windows(3).find(is_due).map(|three| [three[0], three[1]]);
    rest.next().is_none().then_some(chain)
}

/// What is between the wanted chain and the domain's; nothing yet when the domain does not have the volume.
pub(super) fn chain_of(wanted: &VolumeSpec, domain: &Domain) -> Option<Chain> {
    domain.volume(wanted.id).map_or_else(|| Some(Chain::default()), |seen| compare(wanted, seen))
}

/// The volumes of which the domain has another chain than it shall.
pub(crate) fn broken(spec: &InstanceSpec, domain: &Domain) -> impl Iterator<Item = VolumeId> {
    let volumes = spec.disks.iter().map(|disk| &disk.volume);
    volumes.filter(|volume| chain_of(volume, domain).is_none()).map(|volume| volume.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::disk;
    use uuid::Uuid;

    fn layers(numbers: &[u128]) -> Vec<LayerId> {
        numbers.iter().map(|number| LayerId::from_uuid(Uuid::from_u128(*number))).collect()
    }

    fn compared(wanted: &[u128], merges: &[u128], seen: &[u128]) -> Option<Chain> {
        let volume = disk(Uuid::now_v7()).volume;
        let id = volume.id;
        let wanted = VolumeSpec { layers: layers(wanted), merges: layers(merges), ..volume };
        compare(&wanted, &SeenVolume { id, layers: layers(seen) })
    }

    fn chain(missing: &[u128], merged: &[u128], merge: Option<[u128; 2]>) -> Option<Chain> {
        let merge = merge.map(|two| two.map(|number| layers(&[number])[0]));
        Some(Chain { missing: layers(missing), merged: layers(merged), merge })
    }

    #[test]
    fn what_is_missing_is_told_from_what_is_broken() {
        for (wanted, merges, seen, expected) in [
            (&[1, 2][..], &[][..], &[1, 2][..], chain(&[], &[], None)),
            (&[1, 2, 3], &[], &[1], chain(&[2, 3], &[], None)),
            (&[1, 2, 3], &[2], &[1, 2, 3], chain(&[], &[], Some([1, 2]))),
            (&[1, 2, 3], &[2], &[1, 3], chain(&[], &[2], None)),
            // What is written to is not merged: first it gets another on top.
            (&[1, 2, 3], &[2], &[1, 2], chain(&[3], &[], None)),
            (&[1, 2, 3], &[2], &[1], chain(&[3], &[2], None)),
            (&[1, 2, 3, 4], &[2, 3], &[1, 2, 3, 4], chain(&[], &[], Some([1, 2]))),
            (&[1, 2, 3, 4], &[2, 3], &[1, 3, 4], chain(&[], &[2], Some([1, 3]))),
            (&[1, 2, 3, 4], &[2, 3], &[1, 4], chain(&[], &[2, 3], None)),
            (&[1, 2, 3], &[], &[1, 3], None),
            (&[1, 2, 3], &[], &[2, 3], None),
            (&[1, 3], &[], &[1, 2, 3], None),
            (&[1, 2], &[], &[1, 2, 3], None),
            (&[1, 2, 3], &[2], &[3], None),
            (&[1], &[], &[], None),
        ] {
            assert_eq!(compared(wanted, merges, seen), expected, "{wanted:?} {merges:?} {seen:?}");
        }
    }
}
