//! What mends each kind of difference, and by whom.

use protocol::agent::DriftCode;

/// In words, for the operator.
pub(super) const fn repair(code: DriftCode) -> &'static str {
    match code {
        DriftCode::NetworkDeviceDiffers | DriftCode::PacketRulesDiffer | DriftCode::NetworkServiceDiffers => {
            "the agent repairs it by itself within a minute; when it is older, an operator has to: read the agent's log, and do \
             on the host what `detail` says"
        }
        DriftCode::PoolUnusable => {
            "an operator has to: mount the shared pool on the host again, at its path; the agent uses it within a minute"
        }
        DriftCode::GuardFaulty => {
            "an operator has to: see that `cumulo-agent guard` runs on the host and can write to its shared pools"
        }
        DriftCode::InstanceDiffers => {
            "the agent does it by itself, and tries again after a minute at most; when it is older, an operator has to: read \
             `state_detail` of the instance and the agent's log, and remove what is in the way"
        }
        DriftCode::InstanceStandsStill => {
            "an operator has to: make room in the pool, mend the disks, or resume a guest that somebody has suspended by hand, as \
             `detail` says; the guest then goes on by itself"
        }
        DriftCode::InstanceUnreadable => {
            "an operator has to: look at its domain with `virsh dumpxml` on the host and undo what was changed by hand; the agent \
             leaves it alone until then"
        }
        DriftCode::InstanceFileMissing => {
            "an operator has to: put the file back, or have the instance stopped and started, which makes again what can be made \
             again; what was in a disk comes from a snapshot"
        }
        DriftCode::InstanceDiskDiffers => {
            "an operator has to: compare the layers of the disk with those that the database names before the instance is \
             stopped; no agent touches them"
        }
        DriftCode::InstanceCardMissing => {
            "an operator has to: have the instance stopped and started; the agent makes the device with the guest"
        }
        DriftCode::UnknownGuest => {
            "an operator has to: find out whose guest it is, at once if the instance is on another host, and end it with `virsh \
             destroy` if it is nobody's; no agent touches it"
        }
        DriftCode::UnknownDomain => {
            "an operator has to: undefine the domain with `virsh undefine` if nobody needs it; no agent touches it"
        }
        DriftCode::UnknownFiles => {
            "an operator has to: keep what is needed of these files, stop the agent, move the others away, and start it again; no \
             agent touches them"
        }
        DriftCode::UnknownRecord => {
            "an operator has to: see that no guest of it runs on the host, then stop the agent and move the record out of its \
             state directory; it does no harm until then"
        }
        DriftCode::UnknownProcess => {
            "an operator has to: end the process that `detail` names, if it is nobody's"
        }
        DriftCode::ForeignFile => "an operator has to: move it out of the pool; no agent touches it",
        DriftCode::Unknown => "a later release of the control plane knows; read `detail`",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_repair_says_who_mends_it_and_the_guide_names_each_code() {
        let guide = include_str!("../../../docs/operations.md");
        for code in DriftCode::ALL {
            let repair = repair(code);
            assert!(
                repair.starts_with("the agent ") || repair.starts_with("an operator has to: "),
                "{repair}"
            );
            assert!(guide.contains(&format!("| `{}` |", code.as_str())), "{} is not told of", code.as_str());
        }
    }
}
