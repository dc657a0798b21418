//! One directory, and two pools in it that know nothing of each other: two hosts.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use futures_util::stream;
use protocol::agent::ImageSource;
use protocol::image::Format;
use protocol::{HostId, Name};
use tempfile::TempDir;

use super::{layer, no_others, qemu_img, source, volume};
use crate::{Made, Options, Pool, PoolError, SharedInventory, SharedRoot, Unusable};

/// Two hosts with a directory between them.
struct Two {
    _dir: TempDir,
    work: Utf8PathBuf,
    root: Utf8PathBuf,
    locals: [Pool; 2],
    pools: [Pool; 2],
}

fn name() -> Name {
    "fast".parse().unwrap()
}

fn at(root: &Utf8Path, host: u128) -> SharedRoot {
    SharedRoot { name: name(), root: root.to_owned(), host: HostId::from_uuid(uuid::Uuid::from_u128(host)) }
}

impl Two {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let work = Utf8PathBuf::try_from(dir.path().canonicalize().unwrap()).unwrap();
        let root = work.join("shared");
        fs::create_dir(&root).unwrap();
        Pool::make_shared(&name(), &root).unwrap();
        let local = |host: &str| Pool::open(&work.join(host), Options::new().unwrap()).unwrap();
        let locals = [local("one"), local("two")];
        let pools = [locals[0].shared(at(&root, 1)), locals[1].shared(at(&root, 2))];
        let mut identities = Vec::new();
        for pool in &pools {
            identities.push(pool.usable().await.unwrap().unwrap().identity);
        }
        assert_eq!(identities[0], identities[1]);
        Self { _dir: dir, work, root, locals, pools }
    }

    /// A raw image of 4 MiB with text in it.
    fn image(&self) -> (Vec<u8>, ImageSource) {
        let path = self.work.join("image.raw");
        let mut disk = vec![0; 4 << 20];
        disk[..6].copy_from_slice(b"cumulo");
        fs::write(&path, &disk).unwrap();
        let image = source(&path, Format::Raw, 4 << 20);
        (disk, image)
    }
}

async fn cache(pool: &Pool, image: &ImageSource, bytes: Vec<u8>) -> Result<Made, PoolError> {
    let fetch = || async { Ok::<_, std::io::Error>(stream::iter([Ok::<_, std::io::Error>(bytes)])) };
    pool.ensure_base(image, &no_others, fetch).await
}

fn why(outcome: Result<Option<crate::Usable>, PoolError>) -> Unusable {
    match outcome {
        Err(PoolError::Unusable { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_one_host_made_the_other_one_uses_and_grows() {
    let two = Two::new().await;
    let (bytes, image) = two.image();
    assert_eq!(cache(&two.pools[0], &image, bytes.clone()).await.unwrap(), Made::Now);
    assert_eq!(cache(&two.pools[1], &image, bytes).await.unwrap(), Made::Before);
    let mut disk = volume(7, Some(&image), 1);
    assert_eq!(two.pools[0].ensure_volume(&disk).await.unwrap(), Made::Now);
    let path = two.pools[1].layer(layer(7));
    assert_eq!(path, two.root.join(format!("layers/{}.qcow2", layer(7))));
    let pattern = ["-f", "qcow2", "-c", "write -P 0x5a 1M 64k", path.as_str()];
    super::tool("qemu-io", &pattern);
    disk.size_gib.0 = 2;
    assert_eq!(two.pools[1].ensure_volume(&disk).await.unwrap(), Made::Before);
    for read in ["read -P 0x5a 1M 64k", "read -P 0x63 0 1"] {
        let said = super::tool("qemu-io", &["-f", "qcow2", "-c", read, path.as_str()]);
        assert!(!said.contains("verification failed"), "{said}");
    }
    let other = protocol::Sha256::from_bytes([1; 32]);
    let sought =
        SharedInventory { images: [image.sha256, other].into(), layers: [layer(7), layer(8)].into() };
    let there = SharedInventory::of(&name(), &two.root, &sought).unwrap();
    assert_eq!((there.layers, there.images), ([layer(7)].into(), [image.sha256].into()));
    let nothing = SharedInventory::of(&name(), &two.root, &SharedInventory::default()).unwrap();
    assert_eq!(nothing, SharedInventory::default());
    // Nothing of it is in anybody's own pool.
    for local in &two.locals {
        assert!(!local.has_any_layer(&[layer(7)]).await.unwrap());
    }
    // Each knows what the other one made.
    let away = two.work.join("away");
    fs::rename(&path, &away).unwrap();
    let lost = two.pools[1].ensure_volume(&disk).await.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(id) if id == layer(7)), "{lost}");
    fs::rename(&away, &path).unwrap();
    assert!(two.pools[1].remove_layers(&[layer(7)]).await.unwrap());
    assert!(!two.pools[0].remove_layers(&[layer(7)]).await.unwrap());
}

#[tokio::test]
async fn of_two_that_publish_at_once_one_has_made_it() {
    let two = Two::new().await;
    let (bytes, image) = two.image();
    let [one, other] = &two.pools;
    let (a, b) = tokio::join!(cache(one, &image, bytes.clone()), cache(other, &image, bytes));
    let made = [a.unwrap(), b.unwrap()];
    assert_eq!(made.iter().filter(|made| **made == Made::Now).count(), 1, "{made:?}");
    for number in 0..20 {
        let disk = volume(number, Some(&image), 1);
        let (a, b) = tokio::join!(one.ensure_volume(&disk), other.ensure_volume(&disk));
        let made = [a.unwrap(), b.unwrap()];
        assert_eq!(made.iter().filter(|made| **made == Made::Now).count(), 1, "{made:?}");
        qemu_img(&["check", "-q", "-f", "qcow2", one.layer(layer(number)).as_str()]);
    }
    for host in [1_u128, 2] {
        let incoming = two.root.join(format!("hosts/{}/incoming", uuid::Uuid::from_u128(host)));
        assert_eq!(incoming.read_dir_utf8().unwrap().count(), 0);
    }
}

#[tokio::test]
async fn an_agent_that_begins_anew_clears_away_its_own_unfinished_work_alone() {
    let Two { _dir, root, locals, pools, .. } = Two::new().await;
    let half = |host: u128| root.join(format!("hosts/{}/incoming/half", uuid::Uuid::from_u128(host)));
    for host in [1, 2] {
        fs::write(half(host), b"half").unwrap();
    }
    let again = locals[0].shared(at(&root, 1));
    assert_eq!(why(again.usable().await), Unusable::InUse);
    let [first, _second] = pools;
    drop(first);
    again.usable().await.unwrap();
    assert!(!half(1).exists() && half(2).exists());
}

#[tokio::test]
async fn a_directory_that_is_another_pool_or_none_is_refused_before_anything_is_made_in_it() {
    let two = Two::new().await;
    let elsewhere = two.work.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let empty = two.locals[0].shared(at(&elsewhere, 1));
    assert_eq!(why(empty.usable().await), Unusable::NoPool);
    assert_eq!(why(two.locals[0].shared(at(&two.work.join("missing"), 1)).usable().await), Unusable::NoPool);
    assert_eq!(elsewhere.read_dir_utf8().unwrap().count(), 0);

    let file = "cumulo-pool.json";
    fs::copy(two.root.join(file), elsewhere.join(file)).unwrap();
    assert_eq!(why(empty.usable().await), Unusable::OtherPath);
    let other = SharedRoot { name: "slow".parse().unwrap(), ..at(&two.root, 1) };
    assert_eq!(why(two.locals[0].shared(other).usable().await), Unusable::OtherName(name()));
    let link = two.work.join("link");
    std::os::unix::fs::symlink(&two.root, &link).unwrap();
    assert_eq!(why(two.locals[0].shared(at(&link, 1)).usable().await), Unusable::Link);
    assert!(Pool::make_shared(&name(), &two.root).is_err());

    // The file system goes away, and another one takes its place.
    let mounted = two.work.join("mounted");
    fs::rename(&two.root, &mounted).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::NoPool);
    fs::create_dir(&two.root).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::NoPool);
    Pool::make_shared(&name(), &two.root).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::Exchanged);
    fs::remove_dir_all(&two.root).unwrap();
    fs::rename(&mounted, &two.root).unwrap();
    two.pools[0].usable().await.unwrap();
}

#[tokio::test]
async fn a_part_of_it_that_is_another_directory_now_makes_it_unusable() {
    let two = Two::new().await;
    let (layers, aside) = (two.root.join("layers"), two.root.join("aside"));
    fs::rename(&layers, &aside).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::PartExchanged("layers"));
    fs::create_dir(&layers).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::PartExchanged("layers"));
    fs::remove_dir(&layers).unwrap();
    std::os::unix::fs::symlink(&aside, &layers).unwrap();
    assert_eq!(why(two.pools[0].usable().await), Unusable::PartExchanged("layers"));
    fs::remove_file(&layers).unwrap();
    fs::rename(&aside, &layers).unwrap();
    for pool in &two.pools {
        pool.usable().await.unwrap();
    }
}
