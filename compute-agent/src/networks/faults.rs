//! Which faults are reported when there are more than a report holds.

use std::collections::{HashMap, HashSet};

use protocol::agent::{MAX_NETWORK_FAULTS, NetworkFault, NetworkSubject};

/// Each fault once, and at most [`MAX_NETWORK_FAULTS`]: the first of each subject, then the second of each, and so on;
/// among equals what concerns more.
pub(super) fn fair(faults: Vec<NetworkFault>) -> Vec<NetworkFault> {
    let mut said = HashSet::new();
    let mut counts: HashMap<NetworkSubject, usize> = HashMap::new();
    let mut ranked = Vec::new();
    for fault in faults {
        if said.insert((fault.subject, fault.detail.clone())) {
            let count = counts.entry(fault.subject).or_default();
            ranked.push(((*count, breadth(fault.subject)), fault));
            *count += 1;
        }
    }
    if ranked.len() > MAX_NETWORK_FAULTS {
        ranked.sort_by_key(|(rank, _)| *rank);
        tracing::warn!(faults = ranked.len(), reported = MAX_NETWORK_FAULTS, "too many faults of networks");
    }
    ranked.into_iter().map(|(_, fault)| fault).take(MAX_NETWORK_FAULTS).collect()
}

/// Smaller for what concerns more.
const fn breadth(subject: NetworkSubject) -> u8 {
    match subject {
        NetworkSubject::Host => 0,
        NetworkSubject::Network(_) => 1,
        NetworkSubject::Router(_) => 2,
        NetworkSubject::SecurityGroup(_) => 3,
        NetworkSubject::Port(_) => 4,
    }
}

#[cfg(test)]
mod tests {
    use protocol::PortId;
    use uuid::Uuid;

    use super::*;

    fn fault(subject: NetworkSubject, number: u128) -> NetworkFault {
        NetworkFault { subject, detail: format!("fault {number}") }
    }

    fn port(number: u128) -> NetworkSubject {
        NetworkSubject::Port(PortId::from(Uuid::from_u128(number)))
    }

    #[test]
    fn each_fault_is_said_once_in_its_order() {
        let faults =
            [fault(port(1), 1), fault(port(2), 1), fault(port(1), 1), fault(NetworkSubject::Host, 1)];
        let expected = [&faults[0], &faults[1], &faults[3]].map(Clone::clone);
        assert_eq!(fair(faults.into()), expected);
    }

    #[test]
    fn one_subject_does_not_keep_others_out_of_a_report() {
        let many = (0..2000).map(|number| fault(port(1), number));
        let others = (2..100).flat_map(|subject| (0..3).map(move |number| fault(port(subject), number)));
        let reported = fair(many.chain(others).chain([fault(NetworkSubject::Host, 1)]).collect());
        assert_eq!(reported.len(), MAX_NETWORK_FAULTS);
        assert_eq!(reported[0].subject, NetworkSubject::Host);
        let of = |subject| reported.iter().filter(|fault| fault.subject == subject).count();
        assert!((2..100).all(|number| of(port(number)) == 3));
        assert_eq!(of(port(1)), MAX_NETWORK_FAULTS - 1 - 98 * 3);
    }

    #[test]
    fn what_concerns_more_comes_first_when_not_even_one_of_each_fits() {
        let ports = (0..2000).map(|number| fault(port(number), 1));
        let network = NetworkSubject::Network(Uuid::from_u128(1).into());
        let reported = fair(ports.chain([fault(network, 1)]).collect());
        assert_eq!(reported.len(), MAX_NETWORK_FAULTS);
        assert_eq!(reported[0].subject, network);
    }
}
