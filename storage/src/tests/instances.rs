//! Removal and serial logs.

use std::os::unix::fs::symlink;

use proptest::prelude::*;
use protocol::MIB;

use super::*;
use crate::Blame;

#[tokio::test]
async fn instances_are_listed_and_removed_alone() {
    let fixture = Fixture::new();
    for number in [3, 1, 2] {
        fs::create_dir(fixture.pool.paths(instance(number)).dir).unwrap();
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
    fixture.assert_only(&[]);
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
