//! What an instance needs.

use std::collections::BTreeMap;

use protocol::agent::Architecture;
use protocol::{HostId, PoolId};

use super::fleet::Size;
use super::groups::Group;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub architecture: Architecture,
    /// The disk is that of its volumes which are on no host yet.
    pub size: Size,
    /// The least of each that its image takes; advice never goes below.
    pub least: Size,
    /// How much of the disk is that of a new volume that it boots from; 0 when there is none.
    pub root_disk_gib: i32,
    /// The name of its type; advice is another one.
    pub type_name: String,
    pub needs: Needs,
    pub group: Option<Group>,
    /// The host that has data of its volumes already: no other one takes it.
    pub volumes_on: Option<HostId>,
    /// The shared pools that its other volumes are in: no host without them takes it.
    pub pools: Vec<PoolId>,
    /// It starts elsewhere when its host dies: no host without a guard for those pools takes it.
    pub needs_guard: bool,
    /// Hosts that it has left and that have not said yet that nothing of it is there: none of them takes it.
    pub leaving: Vec<HostId>,
    /// The host that it was on last: any other that takes it is better.
    pub left: Option<HostId>,
    /// Hosts that have its image in their cache, in the order of ids.
    pub image_on: Vec<HostId>,
}

impl Request {
    /// A new instance of a type that asks for nothing else.
    pub fn of_type(architecture: Architecture, type_name: &str, size: Size, needs: Needs) -> Self {
        Self {
            architecture,
            size,
            least: Size { vcpus: 1, memory_mib: 0, disk_gib: 1.min(size.disk_gib) },
            root_disk_gib: size.disk_gib,
            type_name: type_name.to_owned(),
            needs,
            group: None,
            volumes_on: None,
            pools: Vec::new(),
            needs_guard: false,
            leaving: Vec::new(),
            left: None,
            image_on: Vec::new(),
        }
    }
}

/// What the operator has tied to its type.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// What its guest has to have and not every host gives.
    pub features: Vec<String>,
    /// The host has each of these labels.
    pub host_labels: BTreeMap<String, String>,
    /// Taints of hosts that do not keep it away.
    pub tolerations: Vec<String>,
}
