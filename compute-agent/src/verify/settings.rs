//! What the agent of this host was started with, kept so that others compare the host with the same.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

use anyhow::{Context, Result, bail};
use camino::{Utf8Path, Utf8PathBuf};
use ipnet::IpNet;
use networking::{links, packets};
use protocol::Name;
use serde::{Deserialize, Serialize};

use crate::durable::{self, Survive};

const FILE: &str = "settings.json";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// How libvirt is reached; absent when the hypervisor is simulated.
    pub libvirt_uri: Option<String>,
    pub underlay_address: Option<IpAddr>,
    pub external_interface: Option<String>,
    pub protected_networks: Vec<IpNet>,
    /// Where each shared pool is.
    #[serde(default)]
    pub shared_pools: BTreeMap<Name, Utf8PathBuf>,
}

impl Settings {
    /// Writes them down in the state folder.
    pub fn keep(&self, state_dir: &Utf8Path) -> io::Result<()> {
        durable::write(&state_dir.join(FILE), &serde_json::to_vec(self)?, Survive::Process)
    }

    /// Those of the last agent.
    pub(crate) fn read(state_dir: &Utf8Path) -> Result<Self> {
        let file = state_dir.join(FILE);
        match fs::read(&file) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).with_context(|| format!("{file} cannot be understood"))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("{state_dir} is of no agent that has run: name the --state-dir of one")
            }
            Err(error) => Err(error).with_context(|| format!("{file} cannot be read")),
        }
    }

    pub fn links(&self) -> links::Surroundings {
        links::Surroundings {
            underlay: self.underlay_address,
            external_interface: self.external_interface.clone(),
        }
    }

    pub fn packets(&self) -> packets::Surroundings {
        packets::Surroundings {
            underlay: self.underlay_address,
            protected: self.protected_networks.clone(),
            external: self.external_interface.clone(),
        }
    }
}
