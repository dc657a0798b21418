//! Overlays, removal and serial logs.

use std::os::unix::fs::symlink;

use proptest::prelude::*;
use protocol::{GIB, MIB};

use super::*;
use crate::{Blame, Found};

async fn cached(fixture: &Fixture) -> ImageSource {
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    fixture.cache(&path, &image).await.unwrap();
    image
}

#[tokio::test]
async fn a_root_disk_is_an_overlay_on_the_cached_image() {
    let fixture = Fixture::new();
    let (image, id) = (cached(&fixture).await, instance(1));
    assert_eq!(fixture.pool.ensure_overlay(id, &disk(&image, 3)).await.unwrap(), Made::Now);
    let overlay = fixture.pool.paths(id).overlay;
    let info = info(&overlay);
    assert_eq!(info["virtual-size"], 3 * GIB);
    assert_eq!(info["cluster-size"], 131_072);
    assert_eq!(info["backing-filename"], fixture.pool.base(&image).as_str());
    assert_eq!(info["backing-filename-format"], "qcow2");
    assert_eq!(info["format-specific"]["data"]["extended-l2"], true);
    let found = fixture.pool.look(id, Some(&image)).await.unwrap();
    assert_eq!(found, Found { base: true, overlay: true, seed: false, any: true });
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn a_root_disk_that_is_there_is_never_touched() {
    let fixture = Fixture::new();
    let (image, id) = (cached(&fixture).await, instance(1));
    fixture.pool.ensure_overlay(id, &disk(&image, 1)).await.unwrap();
    let overlay = fixture.pool.paths(id).overlay;
    tool("qemu-io", &["-f", "qcow2", "-c", "write -P 9 0 4k", overlay.as_str()]);
    let before = fs::read(&overlay).unwrap();
    assert_eq!(fixture.pool.ensure_overlay(id, &disk(&image, 5)).await.unwrap(), Made::Before);
    assert_eq!(fs::read(&overlay).unwrap(), before);
}

#[tokio::test]
async fn racing_callers_make_one_root_disk() {
    let fixture = Fixture::new();
    let (image, id) = (cached(&fixture).await, instance(1));
    let root_disk = disk(&image, 1);
    let calls = (0..4).map(|_| fixture.pool.ensure_overlay(id, &root_disk));
    let made = futures_util::future::join_all(calls).await;
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(Made::Now))).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(Made::Before))).count(), 3, "{made:?}");
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn a_root_disk_needs_its_image_and_enough_room_for_it() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let missing = fixture.pool.ensure_overlay(instance(1), &disk(&image, 1)).await;
    assert!(matches!(missing, Err(PoolError::NoBase(digest)) if digest == image.sha256));
    let large = ImageSource { virtual_size_bytes: GIB + 512, ..image };
    let error = fixture.pool.ensure_overlay(instance(1), &disk(&large, 1)).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image);
    assert_eq!(error.to_string(), "a disk of 1 GiB cannot hold an image of 1073742336 bytes");
    assert_eq!(fixture.pool.instances().await.unwrap(), []);
}

#[tokio::test]
async fn instances_are_listed_and_removed_alone() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    for number in [3, 1, 2] {
        fixture.pool.ensure_overlay(instance(number), &disk(&image, 1)).await.unwrap();
    }
    let paths = fixture.pool.paths(instance(2));
    for name in ["serial.log", "serial.log.0", "serial.log.1"] {
        fs::write(paths.dir.join(name), name).unwrap();
    }
    fs::create_dir(fixture.root.join("instances/not-ours")).unwrap();
    assert_eq!(fixture.pool.instances().await.unwrap(), [1, 2, 3].map(instance));
    assert!(fixture.pool.remove_instance(instance(2)).await.unwrap());
    assert!(!fixture.pool.remove_instance(instance(2)).await.unwrap());
    assert_eq!(fixture.pool.instances().await.unwrap(), [1, 3].map(instance));
    assert!(fixture.pool.paths(instance(1)).overlay.exists());
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn removal_does_not_follow_links() {
    let fixture = Fixture::new();
    let outside = fixture.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), b"kept").unwrap();
    // A link inside the directory, to a file and to a directory; and a link in the directory's place.
    let inside = fixture.pool.paths(instance(1)).dir;
    fs::create_dir(&inside).unwrap();
    symlink(outside.join("precious"), inside.join("root.qcow2")).unwrap();
    symlink(&outside, inside.join("deeper")).unwrap();
    symlink(&outside, fixture.pool.paths(instance(2)).dir).unwrap();
    for number in [1, 2] {
        assert!(fixture.pool.remove_instance(instance(number)).await.unwrap());
    }
    assert_eq!(fixture.pool.instances().await.unwrap(), []);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"kept");
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn the_serial_log_is_read_across_a_rotation() {
    let fixture = Fixture::new();
    let (id, dir) = (instance(1), fixture.pool.paths(instance(1)).dir);
    let tail = |max| fixture.pool.serial_tail(id, max);
    assert_eq!(tail(100).await.unwrap(), b"");
    fs::create_dir(&dir).unwrap();
    assert_eq!(tail(100).await.unwrap(), b"");
    fs::write(dir.join("serial.log"), b"newest").unwrap();
    assert_eq!(tail(100).await.unwrap(), b"newest");
    fs::write(dir.join("serial.log.0"), b"older ").unwrap();
    fs::write(dir.join("serial.log.1"), b"oldest ").unwrap();
    assert_eq!(tail(100).await.unwrap(), b"oldest older newest");
    for (max, expected) in [(0, ""), (3, "est"), (6, "newest"), (8, "r newest"), (13, " older newest")] {
        assert_eq!(tail(max).await.unwrap(), expected.as_bytes());
    }
}

#[tokio::test]
async fn the_serial_log_is_a_plain_file_or_nothing() {
    let fixture = Fixture::new();
    let (id, paths) = (instance(1), fixture.pool.paths(instance(1)));
    fs::create_dir(&paths.dir).unwrap();
    symlink("/etc/passwd", &paths.serial_log).unwrap();
    fixture.pool.serial_tail(id, 100).await.unwrap_err();
    fs::remove_file(&paths.serial_log).unwrap();
    nix::unistd::mkfifo(paths.serial_log.as_std_path(), nix::sys::stat::Mode::S_IRUSR).unwrap();
    fixture.pool.serial_tail(id, 100).await.unwrap_err();
    fs::remove_dir_all(&paths.dir).unwrap();
    symlink("/etc", &paths.dir).unwrap();
    fixture.pool.serial_tail(id, 100).await.unwrap_err();
}

#[tokio::test]
async fn space_is_measured() {
    let space = Fixture::new().pool.space().await.unwrap();
    assert!(0 < space.free_bytes && space.free_bytes <= space.total_bytes, "{space:?}");
}

#[tokio::test]
async fn work_that_cannot_fit_is_not_begun() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = ImageSource { size_bytes: u64::MAX, ..source(&path, Format::Qcow2, 4 * MIB) };
    assert_eq!(fixture.cache(&path, &image).await.unwrap_err().blame(), Blame::Space);
    assert_eq!(fixture.fetches.load(Ordering::SeqCst), 0);
}

proptest! {
    #[test]
    fn only_names_that_we_give_are_instances(name in ".{0,40}", number in any::<u128>()) {
        let id = instance(number);
        prop_assert_eq!(crate::layout::instance_of(&id.to_string()), Some(id));
        prop_assert_eq!(crate::layout::instance_of(&id.to_string().to_uppercase()).is_some(), id.to_string() == id.to_string().to_uppercase());
        if let Some(found) = crate::layout::instance_of(&name) {
            prop_assert_eq!(found.to_string(), name);
        }
    }
}
