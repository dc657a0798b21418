//! Leases in the files of a pool, and what the guard says of itself.

use std::fs;
use std::os::unix::fs::FileExt;

use camino::Utf8PathBuf;
use protocol::HostId;
use storage::Pool;
use uuid::Uuid;

use super::super::clock::Moment;
use super::super::entries::{self, Entry};
use super::super::lease::{FOLDER, Place};
use super::super::lock::{Lock, ProcessId};
use super::super::status::{self, Status, StatusFile};
use crate::samples::instance_id;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    // Not in memory: past the page cache there is nothing.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
    (dir, path)
}

fn host(n: u128) -> HostId {
    HostId::from_uuid(Uuid::from_u128(n))
}

#[test]
fn a_lease_is_written_where_a_pool_is_and_read_by_others() {
    let (_dir, root) = folder();
    let place = Place { name: "fast".parse().unwrap(), root: root.clone() };
    place.write(Uuid::nil(), host(1), 1).unwrap_err();
    assert_eq!(root.read_dir_utf8().unwrap().count(), 0, "what is no pool stays as it is");

    let identity = Pool::make_shared(&place.name, &root).unwrap();
    assert!(place.read(host(1)).unwrap().is_none());
    assert!(place.read_all(9).unwrap().records.is_empty());
    place.write(identity, host(1), 1).unwrap();
    place.write(identity, host(1), 2).unwrap();
    place.write(identity, host(2), 7).unwrap();
    let own = place.read(host(1)).unwrap().unwrap();
    assert_eq!((own.host, own.pool, own.counter), (host(1), identity, 2));
    let all = place.read_all(2).unwrap();
    assert!(!all.is_cut && all.unreadable.is_empty());
    let mut all: Vec<_> = all.records.into_iter().map(|it| (it.host, it.counter)).collect();
    all.sort_unstable();
    assert_eq!(all, [(host(1), 2), (host(2), 7)]);
    let cut = place.read_all(1).unwrap();
    assert_eq!((cut.records.len(), cut.is_cut), (1, true));
    place.write(identity, host(1), u64::MAX).unwrap();
    assert_eq!(fs::metadata(root.join(FOLDER).join(host(1).to_string())).unwrap().len(), 4096);

    let exchanged = place.write(Uuid::nil(), host(1), 9).unwrap_err();
    assert!(exchanged.to_string().contains("taken its place"), "{exchanged}");
    let other = Place { name: "slow".parse().unwrap(), root };
    other.write(identity, host(1), 3).unwrap_err();
    other.read_all(9).unwrap_err();
}

#[test]
fn what_is_no_lease_is_not_read_as_one() {
    let (_dir, root) = folder();
    let place = Place { name: "fast".parse().unwrap(), root: root.clone() };
    let identity = Pool::make_shared(&place.name, &root).unwrap();
    place.write(identity, host(1), 5).unwrap();
    let leases = root.join(FOLDER);
    let file = |n| leases.join(host(n).to_string());
    fs::copy(file(1), file(2)).unwrap();
    fs::write(file(3), "").unwrap();
    fs::write(file(4), vec![0xff; 10_000]).unwrap();
    fs::write(leases.join("notes"), "hello").unwrap();
    nix::unistd::mkfifo(file(5).as_std_path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert_eq!(place.read_all(99).unwrap().records.len(), 1, "the host of a lease is in it");

    // Of another pool that was copied here.
    let torn = fs::File::options().write(true).open(file(1)).unwrap();
    torn.write_all_at(b"x", 80).unwrap();
    assert!(place.read_all(99).unwrap().records.is_empty());
    assert!(place.read(host(1)).unwrap().is_none());
}

#[test]
fn one_whole_word_is_left_of_a_guard_that_is_killed_while_it_speaks() {
    let (_dir, root) = folder();
    assert_eq!(status::read(&root).unwrap(), None);
    let said = |at| Status { at: Moment(at), ..Status::new(Uuid::nil(), ProcessId::own().unwrap()) };
    let mut file = StatusFile::open(&root, None).unwrap();
    for at in 1..=5 {
        file.write(&said(at)).unwrap();
        let last = status::read(&root).unwrap().unwrap();
        assert_eq!(last.at, Moment(at));
        let mut next = StatusFile::open(&root, Some(&last)).unwrap();
        next.write(&said(100 + at)).unwrap();
        let last = status::read(&root).unwrap().unwrap();
        assert_eq!(last.at, Moment(100 + at));
        file = StatusFile::open(&root, Some(&last)).unwrap();
    }
    // The place of the newest word is overwritten in half.
    let newest = status::read(&root).unwrap().unwrap();
    let raw = fs::File::options().write(true).open(root.join("status")).unwrap();
    raw.write_all_at(b"????", newest.sequence % 2 * 256 * 1024).unwrap();
    let before = status::read(&root).unwrap().unwrap();
    assert_eq!(before.sequence, newest.sequence - 1);
}

#[test]
fn what_is_guarded_outlives_an_unreadable_file_and_goes_with_its_fencing() {
    let (_dir, root) = folder();
    let id = instance_id();
    entries::make(&root).unwrap();
    let entry = Entry { boot: 1, pools: [].into(), written: Moment(1) };
    entries::put(&root, id, &entry).unwrap();
    assert_eq!(entries::read(&root).unwrap(), [(id, Some(entry))]);
    fs::write(root.join(format!("{}.json", id)), "{").unwrap();
    assert_eq!(entries::read(&root).unwrap(), [(id, None)]);
    assert!(entries::fenced(&root, id).unwrap().is_none());
    entries::remove(&root, id).unwrap();
    entries::remove(&root, id).unwrap();
    assert!(entries::read(&root).unwrap().is_empty());
}

#[test]
fn there_is_one_guard() {
    let (_dir, root) = folder();
    let lock = Lock::take(&root).unwrap();
    let refused = Lock::take(&root).unwrap_err();
    assert!(refused.to_string().contains("another guard, process"), "{refused}");
    drop(lock);
    Lock::take(&root).unwrap();
}
