//! Layers that go from one pool to another.

use std::io::Read;

use protocol::agent::CopiedLayer;
use protocol::{MigrationId, Sha256, SizeGib};
use sha2::Digest;

use super::volumes::{cached, holds, io, top};
use super::*;
use crate::Users;

fn copied(volume: &VolumeSpec, index: usize) -> CopiedLayer {
    CopiedLayer {
        id: volume.layers[index],
        below: index.checked_sub(1).map(|below| volume.layers[below]),
        image: volume.image.clone().filter(|_| index == 0),
        fresh: false,
        size_gib: volume.size_gib,
    }
}

fn digest(bytes: &[u8]) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(bytes).into())
}

async fn bytes(fixture: &Fixture, layer: LayerId) -> Vec<u8> {
    let lent = fixture.pool.lend_layer(layer, Users::Nobody).await.unwrap().unwrap();
    let mut bytes = Vec::new();
    lent.open().await.unwrap().read_to_end(&mut bytes).unwrap();
    lent.is_unchanged().await.unwrap();
    assert_eq!(bytes.len() as u64, lent.size_bytes());
    bytes
}

fn by(number: u128) -> MigrationId {
    MigrationId::from_uuid(uuid::Uuid::from_u128(number))
}

async fn take(fixture: &Fixture, of: &CopiedLayer, bytes: &[u8], told: Sha256) -> Result<(), PoolError> {
    let mut new = fixture.pool.new_layer(of, bytes.len() as u64, &no_others).await?;
    for chunk in bytes.chunks(300_000) {
        new.write(of.id, chunk).await?;
    }
    fixture.pool.publish_layer(new, of, told, by(1)).await
}

#[tokio::test]
async fn a_chain_reads_the_same_in_a_pool_that_is_elsewhere() {
    let (from, to) = (Fixture::new(), Fixture::new());
    let image = cached(&from).await;
    let mut volume = volume(1, Some(&image), 1);
    from.pool.ensure_volume(&volume).await.unwrap();
    io(&top(&from, &volume), "write -P 7 0 300k");
    volume.layers.push(layer(9));
    from.pool.ensure_volume(&volume).await.unwrap();
    io(&top(&from, &volume), "write -P 8 1M 64k");
    io(&top(&from, &volume), "discard 8M 1M");

    for (index, layer) in volume.layers.iter().enumerate() {
        let (of, bytes) = (copied(&volume, index), bytes(&from, *layer).await);
        if index == 0 {
            let lacks = take(&to, &of, &bytes, digest(&bytes)).await.unwrap_err();
            assert!(matches!(lacks, PoolError::NoBase(_)), "{lacks}");
            assert_eq!(cached(&to).await.sha256, image.sha256);
        }
        assert!(!to.pool.has_layer(*layer).await.unwrap());
        take(&to, &of, &bytes, digest(&bytes)).await.unwrap();
        assert!(to.pool.has_layer(*layer).await.unwrap());
    }
    let found = to.pool.look_at_volume(&volume).await.unwrap();
    assert!(found.made && !found.broken, "{found:?}");
    let there = top(&to, &volume);
    assert!(holds(&there, 7, "0 300k") && holds(&there, 8, "1M 64k"));
    qemu_img(&["check", "-q", there.as_str()]);
    // It was made: when it is lost it is not made anew.
    std::fs::remove_file(&there).unwrap();
    let lost = to.pool.ensure_volume(&volume).await.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(_)), "{lost}");
}

#[tokio::test]
async fn what_was_never_made_is_not_lent_nor_is_what_a_guest_has() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 1);
    let layer = volume.layers[0];
    assert!(fixture.pool.lend_layer(layer, Users::Nobody).await.unwrap().is_none());
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let lent = fixture.pool.lend_layer(layer, Users::Nobody).await.unwrap().unwrap();
    io(&top(&fixture, &volume), "write -P 1 0 64k");
    let changed = lent.is_unchanged().await.unwrap_err();
    assert!(matches!(changed, PoolError::LayerInUse(_)), "{changed}");
    let path = top(&fixture, &volume);
    std::fs::rename(&path, path.with_extension("away")).unwrap();
    let lost = fixture.pool.lend_layer(layer, Users::Nobody).await.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(_)), "{lost}");
    // Removed by order is not never made: it would be made empty at the other host.
    fixture.pool.remove_layers(&[layer]).await.unwrap();
    let removed = fixture.pool.lend_layer(layer, Users::Nobody).await.unwrap_err();
    assert!(matches!(removed, PoolError::RemovedLayer(_)), "{removed}");
}

#[tokio::test]
async fn nothing_is_taken_but_what_was_to_come() {
    let (from, to) = (Fixture::new(), Fixture::new());
    let volume = volume(1, None, 1);
    from.pool.ensure_volume(&volume).await.unwrap();
    io(&top(&from, &volume), "write -P 7 0 1M");
    let (of, good) = (copied(&volume, 0), bytes(&from, volume.layers[0]).await);
    let why = |error: PoolError| match error {
        PoolError::NotTaken(_, why) => why,
        other => panic!("{other}"),
    };

    let other = take(&to, &of, &good, digest(b"other")).await.unwrap_err();
    assert!(why(other).contains("digest"));
    let mut short = to.pool.new_layer(&of, good.len() as u64, &no_others).await.unwrap();
    short.write(of.id, &good[1..]).await.unwrap();
    let short = to.pool.publish_layer(short, &of, digest(&good[1..]), by(1)).await.unwrap_err();
    assert!(why(short).contains("shorter"));
    let mut long = to.pool.new_layer(&of, 10, &no_others).await.unwrap();
    assert!(why(long.write(of.id, &good).await.unwrap_err()).contains("longer"));
    drop(long);
    let huge = to.pool.new_layer(&of, 2 << 30, &no_others).await.unwrap_err();
    assert!(why(huge).contains("larger"));
    let full = CopiedLayer { size_gib: SizeGib(u32::MAX), ..of.clone() };
    let full = to.pool.new_layer(&full, 1 << 60, &no_others).await.unwrap_err();
    assert!(matches!(full, PoolError::Full { .. }), "{full}");

    // A disk that is larger, one that stands on a file of the host, one with its data elsewhere, and none at all.
    let secret = from.raw("secret", 1);
    let made = |name: &str, arguments: &[&str]| {
        let path = from.path(name);
        let mut all = vec!["create", "-q", "-f", "qcow2"];
        all.extend(arguments);
        all.extend([path.as_str(), "512M"]);
        qemu_img(&all);
        std::fs::read(path).unwrap()
    };
    let grown = from.path("grown");
    qemu_img(&["create", "-q", "-f", "qcow2", grown.as_str(), "2G"]);
    let grown = std::fs::read(grown).unwrap();
    assert!(why(take(&to, &of, &grown, digest(&grown)).await.unwrap_err()).contains("see more"));
    let leads = made("leads", &["-u", "-b", secret.as_str(), "-F", "qcow2"]);
    assert!(why(take(&to, &of, &leads, digest(&leads)).await.unwrap_err()).contains("something else"));
    let outside = format!("data_file={}", from.path("data"));
    let outside = made("outside", &["-o", &outside]);
    for hostile in [&outside[..], b"no disk at all", &[]] {
        let refused = take(&to, &of, hostile, digest(hostile)).await.unwrap_err();
        assert!(matches!(refused, PoolError::UnsafeLayer(..)), "{refused}");
    }
    let above = CopiedLayer { below: Some(layer(77)), ..of.clone() };
    assert!(why(take(&to, &above, &good, digest(&good)).await.unwrap_err()).contains("something else"));

    assert!(!to.pool.has_layer(of.id).await.unwrap());
    assert_eq!(to.path("pool/incoming").read_dir_utf8().map_or(0, Iterator::count), 0);
    assert!(!to.pool.has_come(of.id, by(1)).await.unwrap());
    take(&to, &of, &good, digest(&good)).await.unwrap();
    assert!(to.pool.has_come(of.id, by(1)).await.unwrap());
    // What has the name stays, and is no other move's: it may be older than what the source has.
    assert!(why(take(&to, &of, &good, digest(&good)).await.unwrap_err()).contains("is there"));
    assert!(why(to.pool.has_come(of.id, by(2)).await.unwrap_err()).contains("is there"));
    assert!(
        why(from.pool.has_come(of.id, by(1)).await.unwrap_err()).contains("is there"),
        "it was made there"
    );
    assert!(holds(&top(&to, &volume), 7, "0 1M"));
}

#[tokio::test]
async fn what_a_guest_reads_from_is_lent_and_what_it_writes_to_is_not() {
    let fixture = Fixture::new();
    let volume = VolumeSpec { layers: vec![layer(1), layer(2)], ..volume(1, None, 1) };
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let mut guest = super::volumes::open(&top(&fixture, &volume));
    let below = fixture.pool.layer(layer(1));
    wait_for("the chain to be open", || crate::volume::is_in_use(&below).unwrap()).await;
    let refused = fixture.pool.lend_layer(layer(1), Users::Nobody).await.unwrap_err();
    assert!(matches!(refused, PoolError::LayerInUse(_)), "{refused}");
    let refused = fixture.pool.lend_layer(layer(2), Users::Readers).await.unwrap_err();
    assert!(matches!(refused, PoolError::LayerInUse(_)), "{refused}");
    let lent = fixture.pool.lend_layer(layer(1), Users::Readers).await.unwrap().unwrap();
    lent.is_unchanged().await.unwrap();
    guest.kill().unwrap();
    guest.wait().unwrap();
    lent.is_unchanged().await.unwrap();
}

#[tokio::test]
async fn what_a_guest_writes_to_is_made_empty_where_it_comes_to() {
    let (from, to) = (Fixture::new(), Fixture::new());
    let image = cached(&from).await;
    let mut volume = volume(1, Some(&image), 1);
    volume.layers.push(layer(9));
    from.pool.ensure_volume(&volume).await.unwrap();
    let fresh = CopiedLayer { fresh: true, ..copied(&volume, 1) };
    let early = to.pool.fresh_layer(&fresh, by(1)).await.unwrap_err();
    assert!(matches!(early, PoolError::NotTaken(..)), "{early}");
    cached(&to).await;
    let below = bytes(&from, volume.layers[0]).await;
    take(&to, &copied(&volume, 0), &below, digest(&below)).await.unwrap();
    to.pool.fresh_layer(&fresh, by(1)).await.unwrap();
    to.pool.fresh_layer(&fresh, by(1)).await.unwrap();
    // It is the volume that it is to be, and no file of another time.
    let found = to.pool.look_at_volume(&volume).await.unwrap();
    assert!(found.made && !found.broken, "{found:?}");
    let other = to.pool.fresh_layer(&fresh, by(2)).await.unwrap_err();
    assert!(matches!(other, PoolError::NotTaken(..)), "{other}");
}
