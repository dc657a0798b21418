//! Root disks: qcow2 overlays on a cached image.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use protocol::InstanceId;
use protocol::agent::RootDisk;

use crate::durable::{PRIVATE_FILE, REACHABLE_DIR, Unfinished, blocking, make_dir};
use crate::{Made, Pool, PoolError, qemu_img};

/// First writes to clusters of 128 KiB with subclusters are many times faster than to plain ones: a 4 KiB
/// write copies nothing from the base.
const OPTIONS: &str = "extended_l2=on,cluster_size=131072";

impl Pool {
    /// Makes the root disk over its cached image. A disk that is there is never touched.
    pub async fn ensure_overlay(&self, id: InstanceId, disk: &RootDisk) -> Result<Made, PoolError> {
        let virtual_size_bytes = disk.image.virtual_size_bytes;
        if virtual_size_bytes > disk.size_gib.bytes() {
            return Err(PoolError::DiskTooSmall { size: disk.size_gib, virtual_size_bytes });
        }
        let found = self.look(id, Some(&disk.image)).await?;
        if found.overlay {
            return Ok(Made::Before);
        }
        if !found.base {
            return Err(PoolError::NoBase(disk.image.sha256));
        }
        let (paths, base) = (self.paths(id), self.base(&disk.image));
        let overlay = Unfinished::new(self.inner().layout.fresh());
        qemu_img::create(overlay.path(), OPTIONS, Some(&base), disk.size_gib.bytes()).await?;
        blocking("put the root disk in place", move || {
            fs::set_permissions(overlay.path(), Permissions::from_mode(PRIVATE_FILE))?;
            make_dir(&paths.dir, REACHABLE_DIR)?;
            overlay.publish_new(&paths.overlay)
        })
        .await
    }
}
