//! Networks that are never made, for the simulated hypervisor and for tests.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};

use super::{HostNetworking, Outcome};

/// Accepts everything but what it is told to find faulty.
#[derive(Debug, Default)]
pub struct SimulatedNetworking {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<NetworkFault>,
    converged: usize,
}

impl SimulatedNetworking {
    /// What cannot be made from now on.
    pub fn set_faults(&self, faults: Vec<NetworkFault>) {
        self.lock().faults = faults;
    }

    /// How often it was made to match.
    pub fn converged(&self) -> usize {
        self.lock().converged
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl HostNetworking for SimulatedNetworking {
    async fn converge(&self, _: &HostNetwork) -> Outcome {
        let mut state = self.lock();
        state.converged += 1;
        let unusable = |fault: &NetworkFault| match fault.subject {
            NetworkSubject::Network(id) => Some(id),
            _ => None,
        };
        Outcome { faults: state.faults.clone(), unusable: state.faults.iter().filter_map(unusable).collect() }
    }
}
