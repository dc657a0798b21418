//! How a port fares. No I/O.

use protocol::agent::{NetworkFault, NetworkSubject};
use protocol::{NetworkId, PortId, SecurityGroupId};
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortStatus {
    /// Its host has made it; packets pass.
    Active,
    /// It is on no host, or its host has not made it yet.
    Pending,
    /// Its host cannot make it, and keeps trying; nothing passes.
    Fault,
    /// On its way out of its instance, whose guest may still have the card; nothing passes.
    Detaching,
}

/// What is known of a port and its host.
pub(super) struct Seen<'a> {
    pub port: PortId,
    pub network: NetworkId,
    pub security_groups: &'a [SecurityGroupId],
    pub attached: bool,
    pub detaching: bool,
    pub placed: bool,
    /// The revision in which it came to its host.
    pub came_at: Option<i64>,
    /// The newest revision that its host has been made to match.
    pub applied: Option<i64>,
    /// What its host could not make.
    pub faults: &'a [NetworkFault],
}

/// What a port waits for that is on its way out of its instance.
pub(super) const HELD: &str = "it waits until its guest has let go of it; stopping the instance takes it, and if the host \
     of that is lost, the operator has to declare that dead";

/// The status, and the reason in words.
pub(super) fn shown(seen: &Seen<'_>) -> (PortStatus, Option<String>) {
    let pending = |why: &str| (PortStatus::Pending, Some(why.to_owned()));
    if !seen.attached {
        return pending("it is attached to no instance");
    }
    if seen.detaching {
        return (PortStatus::Detaching, Some(HELD.to_owned()));
    }
    if !seen.placed {
        return pending("its instance has no host yet");
    }
    let made = seen.came_at.zip(seen.applied).is_some_and(|(came_at, applied)| came_at <= applied);
    if !made {
        return pending("its host has not made it yet");
    }
    match seen.faults.iter().find_map(|fault| sentence(seen, fault)) {
        Some(sentence) => (PortStatus::Fault, Some(sentence)),
        None => (PortStatus::Active, None),
    }
}

/// What a fault means to the owner of the port. The host's own words name devices and addresses of the operator's and
/// are for the operator to read.
fn sentence(seen: &Seen<'_>, fault: &NetworkFault) -> Option<String> {
    let what = match fault.subject {
        NetworkSubject::Port(id) if id == seen.port => "its host cannot make it",
        NetworkSubject::Network(id) if id == seen.network => "its host cannot make its network",
        NetworkSubject::SecurityGroup(id) if seen.security_groups.contains(&id) => {
            "its host cannot apply one of its security groups, and lets nothing pass"
        }
        NetworkSubject::Host => "its host cannot make its networks",
        _ => return None,
    };
    Some(format!("{what}; an operator can see why"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn fault(subject: NetworkSubject) -> NetworkFault {
        NetworkFault { subject, detail: "no".to_owned() }
    }

    #[test]
    fn a_port_is_what_its_host_says_of_it() {
        let id = |number| Uuid::from_u128(number);
        let groups = [id(3).into()];
        let seen = Seen {
            port: id(1).into(),
            network: id(2).into(),
            security_groups: &groups,
            attached: true,
            detaching: false,
            placed: true,
            came_at: Some(7),
            applied: Some(7),
            faults: &[],
        };
        assert_eq!(shown(&seen), (PortStatus::Active, None));
        assert_eq!(shown(&Seen { detaching: true, ..seen }).0, PortStatus::Detaching);
        for pending in [
            Seen { attached: false, ..seen },
            Seen { placed: false, ..seen },
            Seen { applied: Some(6), ..seen },
            Seen { applied: None, ..seen },
            Seen { came_at: None, ..seen },
        ] {
            assert_eq!(shown(&pending).0, PortStatus::Pending);
        }
        use NetworkSubject as S;
        for (subject, expected) in [
            (S::Port(id(1).into()), PortStatus::Fault),
            (S::Port(id(9).into()), PortStatus::Active),
            (S::Network(id(2).into()), PortStatus::Fault),
            (S::Network(id(9).into()), PortStatus::Active),
            (S::SecurityGroup(id(3).into()), PortStatus::Fault),
            (S::SecurityGroup(id(9).into()), PortStatus::Active),
            (S::Router(id(1).into()), PortStatus::Active),
        ] {
            let faults = [fault(subject)];
            assert_eq!(shown(&Seen { faults: &faults, ..seen }).0, expected, "{subject:?}");
        }
        let faults = [fault(S::Host)];
        let (status, detail) = shown(&Seen { faults: &faults, ..seen });
        assert_eq!(status, PortStatus::Fault);
        assert!(detail.unwrap().contains("operator"));
    }
}
