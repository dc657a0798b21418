//! Where things are. Every name is a digest or a UUID, never anything that a user chose.

use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{HostId, InstanceId, LayerId, Sha256};

use crate::made::MadeLayers;

/// The files of one instance, there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePaths {
    pub dir: Utf8PathBuf,
    pub seed: Utf8PathBuf,
    pub serial_log: Utf8PathBuf,
}

#[derive(Debug)]
pub(crate) struct Layout {
    root: Utf8PathBuf,
    made: MadeLayers,
    /// Whose unfinished work is meant where several hosts have theirs.
    host: Option<HostId>,
    works: AtomicU64,
}

impl Layout {
    /// `root` is absolute.
    pub(crate) fn new(root: Utf8PathBuf) -> Self {
        Self { made: MadeLayers::new(root.join("made")), root, host: None, works: AtomicU64::new(0) }
    }

    /// One whose layers are written down elsewhere.
    pub(crate) fn with_record(self, made: MadeLayers) -> Self {
        Self { made, ..self }
    }

    /// Of a pool that several hosts share, as this one works in it.
    pub(crate) fn of_host(root: Utf8PathBuf, host: HostId) -> Self {
        Self { host: Some(host), ..Self::new(root) }
    }

    pub(crate) fn root(&self) -> &Utf8Path {
        &self.root
    }

    pub(crate) fn made(&self) -> &MadeLayers {
        &self.made
    }

    pub(crate) fn lock(&self) -> Utf8PathBuf {
        self.work().join("lock")
    }

    /// Where each host has a directory, if several share the pool.
    pub(crate) fn hosts(&self) -> Utf8PathBuf {
        self.root.join("hosts")
    }

    /// The directory of one of those hosts.
    pub(crate) fn own(&self, host: HostId) -> Utf8PathBuf {
        self.hosts().join(host.to_string())
    }

    fn work(&self) -> Utf8PathBuf {
        self.host.map_or_else(|| self.root.clone(), |host| self.own(host))
    }

    pub(crate) fn images(&self) -> Utf8PathBuf {
        self.root.join("images")
    }

    pub(crate) fn image(&self, digest: Sha256) -> Utf8PathBuf {
        self.images().join(format!("{digest}.qcow2"))
    }

    pub(crate) fn instances(&self) -> Utf8PathBuf {
        self.root.join("instances")
    }

    pub(crate) fn layers(&self) -> Utf8PathBuf {
        self.root.join("layers")
    }

    pub(crate) fn layer(&self, id: LayerId) -> Utf8PathBuf {
        self.layers().join(format!("{id}.qcow2"))
    }

    /// The memory of a guest, under the id of its own that it has among the layers.
    pub(crate) fn memory(&self, id: LayerId) -> Utf8PathBuf {
        self.layers().join(format!("{id}.memory"))
    }

    /// Where releases before volumes had an instance's disk.
    pub(crate) fn former_root_disk(&self, id: InstanceId) -> Utf8PathBuf {
        self.instance(id).dir.join("root.qcow2")
    }

    pub(crate) fn incoming(&self) -> Utf8PathBuf {
        self.work().join("incoming")
    }

    /// A name in `incoming/` that nobody else has: the directory was empty when we began, and is ours alone.
    pub(crate) fn fresh(&self) -> Utf8PathBuf {
        self.incoming().join(self.works.fetch_add(1, Ordering::Relaxed).to_string())
    }

    pub(crate) fn instance(&self, id: InstanceId) -> InstancePaths {
        let dir = self.instances().join(id.to_string());
        InstancePaths { seed: dir.join("seed.img"), serial_log: dir.join("serial.log"), dir }
    }
}

/// The image whose file this is; `None` for a name that we would not have given.
pub(crate) fn image_of(path: &Utf8Path) -> Option<Sha256> {
    path.file_name()?.strip_suffix(".qcow2")?.parse().ok()
}

/// The instance that a directory belongs to; `None` for a name that we would not have given.
pub(crate) fn instance_of(name: &str) -> Option<InstanceId> {
    name.parse().ok().filter(|id: &InstanceId| id.to_string() == name)
}
