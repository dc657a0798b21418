//! Whose the files of disks are that several hosts reach.
//!
//! libvirt would give them to QEMU's user when a domain begins and back when it ends. A guest that has gone to another host
//! has them open there, and where the file system checks each write, as NFS does, it would lose its disk. So libvirt leaves
//! them alone (`xml/disks.rs`), and this gives them to QEMU's user, before QEMU opens them, for good.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};

use camino::{Utf8Path, Utf8PathBuf};
use virt::connect::Connect;

use super::{BoxError, xml};
use crate::hypervisor::{DomainDisk, HypervisorError, NewLayer};

/// The layers of these disks that other hosts reach.
pub(super) fn shared(disks: &[DomainDisk]) -> Vec<Utf8PathBuf> {
    disks.iter().filter(|disk| disk.shared).flat_map(|disk| &disk.layers).cloned().collect()
}

/// The same of new ones.
pub(super) fn shared_new(layers: &[NewLayer]) -> Vec<Utf8PathBuf> {
    layers.iter().filter(|new| new.shared).map(|new| new.layer.clone()).collect()
}

/// Gives these files to QEMU's user, unless they are its own.
pub(super) fn give(connect: &Connect, files: &[Utf8PathBuf]) -> Result<(), HypervisorError> {
    let attempted = "give the files of the disks to QEMU's user";
    give_to(|| Ok(xml::qemu_user(&connect.get_capabilities()?)?), files)
        .map_err(|error| super::refused(attempted, error))
}

/// Nobody is asked who that is when there is nothing to give.
fn give_to(
    user: impl FnOnce() -> Result<Option<(u32, u32)>, BoxError>,
    files: &[Utf8PathBuf],
) -> Result<(), BoxError> {
    if files.is_empty() {
        return Ok(());
    }
    let Some(user) = user()? else { return Ok(()) };
    for file in files {
        give_one(file, user).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// Never what a link leads to: others write into that folder, too.
fn give_one(file: &Utf8Path, (user, group): (u32, u32)) -> io::Result<()> {
    let found = fs::symlink_metadata(file)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if (found.uid(), found.gid()) == (user, group) {
        return Ok(());
    }
    lchown(file, Some(user), Some(group))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str) -> Utf8PathBuf {
        let path = Utf8PathBuf::from_path_buf(dir.path().join(name)).unwrap();
        fs::write(&path, "layer").unwrap();
        path
    }

    fn own(path: &Utf8Path) -> (u32, u32) {
        let found = fs::symlink_metadata(path).unwrap();
        (found.uid(), found.gid())
    }

    #[test]
    fn files_are_given_once_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (layer, other) = (file(&dir, "layer"), file(&dir, "other"));
        let to = if nix::unistd::geteuid().is_root() { (12345, 12346) } else { own(&layer) };
        let before = own(&other);
        for _ in 0..2 {
            give_to(|| Ok(Some(to)), std::slice::from_ref(&layer)).unwrap();
            assert_eq!((own(&layer), own(&other)), (to, before));
        }
        give_to(|| Ok(None), std::slice::from_ref(&other)).unwrap();
        give_to(|| panic!("nobody is asked"), &[]).unwrap();
        assert_eq!(own(&other), before);
    }

    #[test]
    fn what_is_no_file_is_refused_and_what_it_leads_to_stays_whose_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let target = file(&dir, "target");
        let (before, link) = (own(&target), target.with_file_name("link"));
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let folder = target.parent().unwrap().to_owned();
        for refused in [link, target.with_file_name("missing"), folder] {
            give_to(|| Ok(Some((12345, 12346))), &[refused]).unwrap_err();
        }
        assert_eq!(own(&target), before);
    }
}
