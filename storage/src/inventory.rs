//! What is in a pool, for whoever only wants to know: nothing is locked, made or cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, LayerId, Name, Sha256};

use crate::durable::exists;
use crate::layout::{Layout, instance_of};
use crate::shared;

/// What there is; none of it need be there a moment later when somebody works in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Without links: as processes that have something of it open are seen to have it.
    pub root: Utf8PathBuf,
    pub images: BTreeSet<Sha256>,
    /// Of volumes, attached here or to nothing.
    pub layers: BTreeSet<LayerId>,
    pub instances: BTreeMap<InstanceId, InstanceFiles>,
    /// Names beside the instances' that we would not have given.
    pub foreign: Vec<String>,
    /// Names of unfinished work.
    pub unfinished: Vec<String>,
}

/// The files of an instance whose folder is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceFiles {
    pub seed: bool,
}

impl Inventory {
    /// Looks at the pool at `root`.
    ///
    /// # Errors
    /// When there is no pool, or it cannot be read.
    pub fn of(root: &Utf8Path) -> io::Result<Self> {
        let layout = Layout::new(root.canonicalize_utf8()?);
        let (mut instances, mut foreign) = (BTreeMap::new(), Vec::new());
        for name in names(&layout.instances())? {
            let Some(id) = instance_of(&name) else {
                foreign.push(name);
                continue;
            };
            instances.insert(id, InstanceFiles { seed: exists(&layout.instance(id).seed)? });
        }
        let images = disks(&layout.images())?;
        let layers = disks(&layout.layers())?;
        let unfinished = names(&layout.incoming())?;
        Ok(Self { root: layout.root().to_owned(), images, layers, instances, foreign, unfinished })
    }
}

/// What is in a shared pool, of all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedInventory {
    pub images: BTreeSet<Sha256>,
    pub layers: BTreeSet<LayerId>,
}

impl SharedInventory {
    /// Looks at the shared pool of this name at `root`.
    ///
    /// # Errors
    /// When it cannot be used here, or cannot be read.
    pub fn of(name: &Name, root: &Utf8Path) -> io::Result<Self> {
        shared::read(name, root)?.map_err(io::Error::other)?;
        let layout = Layout::new(root.to_owned());
        let when_there = |dir: Utf8PathBuf| exists(&dir).map(|is_there| is_there.then_some(dir));
        // The first agent that comes makes them.
        let images = when_there(layout.images())?.map(|dir| disks(&dir)).transpose()?.unwrap_or_default();
        let layers = when_there(layout.layers())?.map(|dir| disks(&dir)).transpose()?.unwrap_or_default();
        Ok(Self { images, layers })
    }
}

/// What the qcow2 files of a directory are named after.
fn disks<T: FromStr + Ord>(dir: &Utf8Path) -> io::Result<BTreeSet<T>> {
    let parsed = |name: &String| name.strip_suffix(".qcow2")?.parse().ok();
    Ok(names(dir)?.iter().filter_map(parsed).collect())
}

fn names(dir: &Utf8Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_named_and_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        assert!(Inventory::of(root).is_err());
        for folder in [
            "instances/0190163d-8694-739b-aea5-966c26f8ad91",
            "instances/mine",
            "images",
            "layers",
            "incoming/4",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("instances/0190163d-8694-739b-aea5-966c26f8ad91/seed.img"), "").unwrap();
        let image = "ab".repeat(32);
        fs::write(root.join(format!("images/{image}.qcow2")), "").unwrap();
        let layer = "0190163d-8694-739b-aea5-966c26f8ad92";
        fs::write(root.join(format!("layers/{layer}.qcow2")), "").unwrap();
        let found = Inventory::of(root).unwrap();
        assert_eq!(found.layers, [layer.parse().unwrap()].into());
        let id = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        assert_eq!(found.instances, [(id, InstanceFiles { seed: true })].into());
        assert_eq!(found.images, [image.parse().unwrap()].into());
        assert_eq!((found.foreign, found.unfinished), (vec!["mine".to_owned()], vec!["4".to_owned()]));
        assert!(!root.join("lock").exists());
    }
}
