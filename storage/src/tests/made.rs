//! What was made and is lost is not made anew.

use super::volumes::{four_layers, holds_all_marks, paths, top};
use super::*;
use crate::Blame;

/// A pool whose record is beside it.
struct Host {
    _dir: TempDir,
    root: Utf8PathBuf,
    record: Utf8PathBuf,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let work = Utf8PathBuf::try_from(dir.path().canonicalize().unwrap()).unwrap();
        Self { root: work.join("pool"), record: work.join("record"), _dir: dir }
    }

    fn open(&self) -> Result<Pool, PoolError> {
        self.open_with(&[])
    }

    /// Of a host that has started these instances.
    fn open_with(&self, instances: &[InstanceId]) -> Result<Pool, PoolError> {
        let (record, instances) = (Some(self.record.clone()), instances.to_vec());
        Pool::open(&self.root, Options { record, instances, ..Options::new().unwrap() })
    }
}

fn assert_lost<T: std::fmt::Debug>(outcome: Result<T, PoolError>, number: u128) {
    let lost = outcome.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(id) if id == layer(number)), "{lost}");
    assert_eq!(lost.blame(), Blame::Chain);
}

#[tokio::test]
async fn a_lost_top_is_neither_made_anew_nor_left_out_of_a_copy() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let (all, away) = (paths(&fixture, &whole), fixture.path("away"));
    fs::rename(&all[3], &away).unwrap();
    // Merging it away changes nothing about that.
    let merging = VolumeSpec {
        layers: [&whole.layers[..], &[layer(5)]].concat(),
        merges: vec![layer(4)],
        ..whole.clone()
    };
    for volume in [&whole, &merging] {
        assert_lost(fixture.pool.ensure_volume(volume).await, 4);
        assert_lost(fixture.pool.merge_layers(volume).await, 4);
        assert_lost(fixture.pool.layers(volume).await, 4);
        assert_lost(fixture.pool.export(volume).await.map(drop), 4);
        let found = fixture.pool.look_at_volume(volume).await.unwrap();
        assert!(found.broken && !found.made);
    }
    assert!(!all[3].exists());
    // Nor when nothing at all is left.
    all[..3].iter().for_each(|path| fs::rename(path, path.with_extension("away")).unwrap());
    assert_lost(fixture.pool.ensure_volume(&whole).await, 1);
    assert_lost(fixture.pool.export(&whole).await.map(drop), 4);
    all[..3].iter().for_each(|path| fs::rename(path.with_extension("away"), path).unwrap());
    fs::rename(&away, &all[3]).unwrap();
    assert_eq!(fixture.pool.ensure_volume(&whole).await.unwrap(), Made::Before);
    assert!(holds_all_marks(&top(&fixture, &whole)));
    // One that was removed by order is not there, and not made anew either: the order was not taken back.
    fs::remove_file(&all[3]).unwrap();
    assert!(fixture.pool.has_any_layer(&[layer(4)]).await.unwrap());
    assert!(fixture.pool.remove_layers(&[layer(4)]).await.unwrap());
    assert!(!fixture.pool.has_any_layer(&[layer(4)]).await.unwrap());
    let refused = fixture.pool.ensure_volume(&whole).await.unwrap_err();
    assert!(matches!(refused, PoolError::RemovedLayer(id) if id == layer(4)), "{refused}");
    assert_eq!(refused.blame(), Blame::Deleted);
    assert!(!all[3].exists());
}

#[tokio::test]
async fn a_disk_that_was_deleted_does_not_come_back_empty() {
    let host = Host::new();
    let (pool, disk) = (host.open().unwrap(), volume(1, None, 1));
    pool.ensure_volume(&disk).await.unwrap();
    assert!(pool.remove_layers(&disk.layers).await.unwrap());
    assert!(!pool.has_any_layer(&disk.layers).await.unwrap());
    for _ in 0..2 {
        let refused = pool.ensure_volume(&disk).await.unwrap_err();
        assert!(matches!(refused, PoolError::RemovedLayer(_)), "{refused}");
        let found = pool.look_at_volume(&disk).await.unwrap();
        assert!(found.broken && !found.made);
    }
    // Deleting it again has nothing to do, and other disks are made as ever.
    assert!(!pool.remove_layers(&disk.layers).await.unwrap());
    pool.ensure_volume(&volume(2, None, 1)).await.unwrap();
    // It outlives the agent.
    drop(pool);
    let refused = host.open().unwrap().ensure_volume(&disk).await.unwrap_err();
    assert!(matches!(refused, PoolError::RemovedLayer(_)), "{refused}");
}

#[tokio::test]
async fn a_pool_that_is_not_mounted_is_refused_and_nothing_is_made_in_its_place() {
    let host = Host::new();
    let pool = host.open().unwrap();
    pool.ensure_volume(&volume(1, None, 1)).await.unwrap();
    drop(pool);
    let away = host.root.with_extension("away");
    fs::rename(&host.root, &away).unwrap();
    assert!(matches!(host.open(), Err(PoolError::OtherPool)));
    assert!(!host.root.exists());
    fs::create_dir(&host.root).unwrap();
    assert!(matches!(host.open(), Err(PoolError::OtherPool)));
    assert_eq!(host.root.read_dir_utf8().unwrap().count(), 0);
    // Another host's.
    let other = Host::new();
    drop(other.open().unwrap());
    let marker = "cumulo-local-pool.json";
    fs::copy(other.root.join(marker), host.root.join(marker)).unwrap();
    assert!(matches!(host.open(), Err(PoolError::OtherPool)));
    // Its operator takes the loss: an empty pool is the host's, and the volume is still known to be lost.
    fs::remove_file(host.record.join("identity.json")).unwrap();
    let empty = host.open().unwrap();
    assert_lost(empty.ensure_volume(&volume(1, None, 1)).await, 1);
    empty.ensure_volume(&volume(2, None, 1)).await.unwrap();
}

#[tokio::test]
async fn a_pool_that_nobody_has_marked_is_known_by_the_instances_that_it_had() {
    let host = Host::new();
    let had: Vec<_> = [1, 2].map(|number| InstanceId::from_uuid(uuid::Uuid::from_u128(number))).to_vec();
    // As an earlier release leaves it: nothing says which pool it is.
    fs::create_dir_all(host.root.join("instances").join(had[1].to_string())).unwrap();
    let away = host.root.with_extension("away");
    fs::rename(&host.root, &away).unwrap();
    assert!(matches!(host.open_with(&had), Err(PoolError::OtherPool)));
    assert!(!host.root.exists() && !host.record.exists());
    fs::create_dir(&host.root).unwrap();
    assert!(matches!(host.open_with(&had), Err(PoolError::OtherPool)));
    assert_eq!(host.root.read_dir_utf8().unwrap().count(), 0);
    fs::remove_dir(&host.root).unwrap();
    fs::rename(&away, &host.root).unwrap();
    drop(host.open_with(&had).unwrap());
    // Marked from now on, whatever instances there are.
    fs::remove_dir_all(host.root.join("instances")).unwrap();
    drop(host.open_with(&had).unwrap());
    fs::rename(&host.root, &away).unwrap();
    assert!(matches!(host.open_with(&[]), Err(PoolError::OtherPool)));
}

#[tokio::test]
async fn a_pool_that_is_exchanged_while_it_is_open_is_noticed() {
    let host = Host::new();
    let pool = host.open().unwrap();
    pool.is_in_place().await.unwrap();
    let away = host.root.with_extension("away");
    fs::rename(&host.root, &away).unwrap();
    assert!(matches!(pool.is_in_place().await, Err(PoolError::OtherPool)));
    fs::create_dir(&host.root).unwrap();
    assert!(matches!(pool.is_in_place().await, Err(PoolError::OtherPool)));
    fs::remove_dir(&host.root).unwrap();
    fs::rename(&away, &host.root).unwrap();
    pool.is_in_place().await.unwrap();
}

#[tokio::test]
async fn a_pool_of_before_is_taken_over_with_its_layers() {
    let host = Host::new();
    let pool = host.open().unwrap();
    pool.ensure_volume(&volume(1, None, 1)).await.unwrap();
    drop(pool);
    // As an earlier release leaves it.
    fs::remove_file(host.root.join("cumulo-local-pool.json")).unwrap();
    fs::remove_dir_all(&host.record).unwrap();
    drop(host.open().unwrap());
    // A host that has lost its record takes a marked pool over, too.
    fs::remove_dir_all(&host.record).unwrap();
    for _ in 0..2 {
        let pool = host.open().unwrap();
        assert_eq!(pool.ensure_volume(&volume(1, None, 1)).await.unwrap(), Made::Before);
    }
    let pool = host.open().unwrap();
    fs::remove_file(pool.layer(layer(1))).unwrap();
    assert_lost(pool.ensure_volume(&volume(1, None, 1)).await, 1);
}
