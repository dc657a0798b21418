//! Copies of disks.

use std::process::Child;

use protocol::image::inspect;
use protocol::{GIB, MIB};

use super::volumes::{cached, four_layers, holds, holds_all_marks, io, merging, open, paths, top};
use super::*;
use crate::Blame;
use crate::volume::is_in_use;

fn unfinished(fixture: &Fixture) -> usize {
    fixture.root.join("incoming").read_dir_utf8().unwrap().count()
}

/// The only file in scratch.
fn scratch(fixture: &Fixture) -> Utf8PathBuf {
    let mut files = fixture.root.join("incoming").read_dir_utf8().unwrap();
    let file = files.next().unwrap().unwrap().into_path();
    assert!(files.next().is_none());
    file
}

fn end(mut holder: Child) {
    drop(holder.stdin.take());
    holder.wait().unwrap();
}

#[tokio::test]
async fn a_chain_becomes_one_file_that_needs_no_other() {
    let fixture = Fixture::new();
    let volume = four_layers(&fixture).await;
    let layers = || paths(&fixture, &volume).iter().map(|path| fs::read(path).unwrap()).collect::<Vec<_>>();
    let before = layers();
    // As large as its volume by now, though no guest has had it since.
    let grown = VolumeSpec { size_gib: SizeGib(3), ..volume.clone() };
    let export = fixture.pool.export(&grown).await.unwrap();
    let path = scratch(&fixture);
    let mut file = export.open().await.unwrap();
    assert_eq!(file.metadata().unwrap().len(), export.size_bytes());
    let seen = inspect(&mut file, Format::Qcow2, export.size_bytes()).unwrap();
    assert_eq!(seen.virtual_size_bytes, 3 * GIB);
    assert!(export.size_bytes() < 2 * MIB, "{} bytes for less than 5 MiB of data", export.size_bytes());
    let info = info(&path);
    assert_eq!(info.get("backing-filename"), None);
    assert_eq!(info["format-specific"]["data"]["compression-type"], "zstd");
    assert!(holds_all_marks(&path) && holds(&path, 0, "2G 64k"));
    let whole = top(&fixture, &volume);
    tool("qemu-img", &["compare", "-f", "qcow2", "-F", "qcow2", path.as_str(), whole.as_str()]);
    assert!(layers() == before, "layers are only read");
    drop(export);
    assert_eq!(unfinished(&fixture), 0);
}

#[tokio::test]
async fn merged_and_missing_layers_are_followed_by_what_is_there() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    // The order is older than the merge.
    let shorter = VolumeSpec { layers: vec![layer(1), layer(4)], ..whole.clone() };
    fixture.pool.merge_layers(&merging(&whole, &[2, 3])).await.unwrap();
    fixture.pool.remove_layers(&[layer(2), layer(3)]).await.unwrap();
    let export = fixture.pool.export(&whole).await.unwrap();
    assert!(holds_all_marks(&scratch(&fixture)));
    drop(export);
    // No guest has written since this layer was put on.
    let higher = VolumeSpec { layers: vec![layer(1), layer(4), layer(5)], ..whole.clone() };
    let export = fixture.pool.export(&higher).await.unwrap();
    assert!(holds_all_marks(&scratch(&fixture)));
    drop(export);

    let nothing = fixture.pool.export(&volume(8, None, 1)).await.unwrap_err();
    assert!(matches!(nothing, PoolError::NoData(_)), "{nothing}");
    assert_eq!(nothing.blame(), Blame::Image);
    fixture.pool.remove_layers(&[layer(1)]).await.unwrap();
    let lost = fixture.pool.export(&shorter).await.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(id) if id == layer(1)), "{lost}");
    assert_eq!(unfinished(&fixture), 0);
}

#[tokio::test]
async fn a_disk_that_somebody_writes_to_is_not_copied_and_one_that_is_read_is() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let below = volume(1, Some(&image), 1);
    let whole = VolumeSpec { layers: vec![layer(1), layer(2)], ..below.clone() };
    fixture.pool.ensure_volume(&below).await.unwrap();
    io(&top(&fixture, &below), "write -P 7 0 64k");
    fixture.pool.ensure_volume(&whole).await.unwrap();
    let guest = open(&top(&fixture, &whole));
    let layers = paths(&fixture, &whole);
    wait_for("the guest to have the chain", || layers.iter().all(|layer| is_in_use(layer).unwrap())).await;
    let refused = fixture.pool.export(&whole).await.unwrap_err();
    assert!(matches!(refused, PoolError::QemuImg { .. }), "{refused}");
    let export = fixture.pool.export(&below).await.unwrap();
    assert!(holds(&scratch(&fixture), 7, "0 64k"));
    end(guest);
    drop(export);
    assert_eq!(unfinished(&fixture), 0);
}

#[tokio::test]
async fn only_files_of_the_pool_are_opened() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 1);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let secret = fixture.qcow2("secret.qcow2", &[]);
    let path = top(&fixture, &volume);
    tool("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", secret.as_str(), path.as_str()]);
    let refused = fixture.pool.export(&volume).await.unwrap_err();
    assert!(matches!(refused, PoolError::BrokenChain(id) if id == layer(1)), "{refused}");
    // Those of the pool that are another volume's are not.
    let other = super::volume(2, None, 1);
    fixture.pool.ensure_volume(&other).await.unwrap();
    let stolen = top(&fixture, &other);
    tool("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", stolen.as_str(), path.as_str()]);
    let refused = fixture.pool.export(&volume).await.unwrap_err();
    assert!(matches!(refused, PoolError::BrokenChain(id) if id == layer(1)), "{refused}");
    // A chain that leads back to itself ends, too.
    tool("qemu-img", &["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", path.as_str(), path.as_str()]);
    assert!(fixture.pool.export(&volume).await.is_err());
    assert_eq!(unfinished(&fixture), 0);
}

#[tokio::test]
async fn what_might_not_fit_is_not_begun() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 16_384);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    // Sparse: a disk that is written full would be as long.
    fs::File::options().write(true).open(top(&fixture, &volume)).unwrap().set_len(9 << 40).unwrap();
    let full = fixture.pool.export(&volume).await.unwrap_err();
    assert_eq!(full.blame(), Blame::Space, "{full}");
    assert_eq!(unfinished(&fixture), 0);
}

#[tokio::test]
async fn a_copy_that_is_given_up_leaves_nothing() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 2);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    io(&top(&fixture, &volume), "write -P 5 0 1G");
    let (pool, whole) = (fixture.pool.clone(), volume.clone());
    let copying = tokio::spawn(async move { pool.export(&whole).await.map(drop) });
    let path = top(&fixture, &volume);
    wait_for("qemu-img to have the disk", || is_in_use(&path).unwrap()).await;
    copying.abort();
    assert!(copying.await.unwrap_err().is_cancelled());
    assert_eq!(unfinished(&fixture), 0);
    wait_for("qemu-img to let go", || !is_in_use(&path).unwrap()).await;
}
