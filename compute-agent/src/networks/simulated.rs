//! Networks that are never made, for the simulated hypervisor and for tests.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use protocol::agent::{HostNetwork, NetworkFault, NetworkSubject};

use super::{Found, HostNetworking, LookError, Outcome};

/// Accepts everything but what it is told to find faulty.
#[derive(Debug, Default)]
pub struct SimulatedNetworking {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<NetworkFault>,
    differences: Vec<Found>,
    converged: usize,
    looked: usize,
}

impl SimulatedNetworking {
    /// What cannot be made from now on.
    pub fn set_faults(&self, faults: Vec<NetworkFault>) {
        self.lock().faults = faults;
    }

    /// What a look finds from now on.
    pub fn set_differences(&self, differences: Vec<Found>) {
        self.lock().differences = differences;
    }

    /// How often it was looked at.
    pub fn looked(&self) -> usize {
        self.lock().looked
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

    async fn look(&self, _: &HostNetwork) -> Result<Vec<Found>, LookError> {
        let mut state = self.lock();
        state.looked += 1;
        Ok(state.differences.clone())
    }
}
