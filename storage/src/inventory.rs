//! What is in a pool, for whoever only wants to know: nothing is locked, made or cleared away.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{InstanceId, Sha256};

use crate::layout::{Layout, instance_of};
use crate::pool::exists;

/// What there is; none of it need be there a moment later when somebody works in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// Without links: as processes that have something of it open are seen to have it.
    pub root: Utf8PathBuf,
    pub images: BTreeSet<Sha256>,
    pub instances: BTreeMap<InstanceId, InstanceFiles>,
    /// Names beside the instances' that we would not have given.
    pub foreign: Vec<String>,
    /// Names of unfinished work.
    pub unfinished: Vec<String>,
}

/// The files of an instance whose folder is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceFiles {
    pub overlay: bool,
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
            let paths = layout.instance(id);
            instances
                .insert(id, InstanceFiles { overlay: exists(&paths.overlay)?, seed: exists(&paths.seed)? });
        }
        let digest = |name: &String| name.strip_suffix(".qcow2")?.parse().ok();
        let images = names(&layout.images())?.iter().filter_map(digest).collect();
        let unfinished = names(&layout.incoming())?;
        Ok(Self { root: layout.root().to_owned(), images, instances, foreign, unfinished })
    }
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
        for folder in
            ["instances/0190163d-8694-739b-aea5-966c26f8ad91", "instances/mine", "images", "incoming/4"]
        {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("instances/0190163d-8694-739b-aea5-966c26f8ad91/seed.img"), "").unwrap();
        let image = "ab".repeat(32);
        fs::write(root.join(format!("images/{image}.qcow2")), "").unwrap();
        let found = Inventory::of(root).unwrap();
        let id = "0190163d-8694-739b-aea5-966c26f8ad91".parse().unwrap();
        assert_eq!(found.instances, [(id, InstanceFiles { overlay: false, seed: true })].into());
        assert_eq!(found.images, [image.parse().unwrap()].into());
        assert_eq!((found.foreign, found.unfinished), (vec!["mine".to_owned()], vec!["4".to_owned()]));
        assert!(!root.join("lock").exists());
    }
}
