//! What is in a pool, for whoever only wants to know: nothing is locked, made or cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, LayerId, Name, Sha256};

use crate::durable::exists;
use crate::layout::{Layout, instance_of};
use crate::shared::{self, Unusable};

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

/// Images and layers of a shared pool: those that are looked for, or those of them that are there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SharedInventory {
    pub images: BTreeSet<Sha256>,
    pub layers: BTreeSet<LayerId>,
}

impl SharedInventory {
    /// What there is of `sought` in the shared pool of this name at `root`. That of all other hosts is not looked at.
    ///
    /// # Errors
    /// When it cannot be used here, or cannot be read. Does not return while its file system hangs.
    pub fn of(name: &Name, root: &Utf8Path, sought: &Self) -> io::Result<Self> {
        let usable = || shared::read(name, root)?.map_err(io::Error::other);
        let identity = usable()?.identity;
        let layout = Layout::new(root.to_owned());
        let images = those(&sought.images, |image| layout.image(image))?;
        let layers = those(&sought.layers, |layer| layout.layer(layer))?;
        // Where a file system went away meanwhile, all seems to be lost.
        match usable()?.identity == identity {
            true => Ok(Self { images, layers }),
            false => Err(io::Error::other(Unusable::Exchanged)),
        }
    }
}

/// Those whose files are there.
fn those<T: Copy + Ord>(sought: &BTreeSet<T>, path: impl Fn(T) -> Utf8PathBuf) -> io::Result<BTreeSet<T>> {
    let mut there = BTreeSet::new();
    for one in sought {
        if exists(&path(*one))? {
            there.insert(*one);
        }
    }
    Ok(there)
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
