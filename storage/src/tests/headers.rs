//! Headers that whoever has taken a QEMU over, or another host of a shared pool, could write.

use std::os::unix::fs::FileExt;

use protocol::GIB;

use super::volumes::{cached, four_layers, holds_all_marks, merging, paths, top};
use super::*;
use crate::Blame;
use crate::header::Header;

/// The last byte of the incompatible features.
const FEATURES: u64 = 79;

/// Changes the bytes of a file at some places, and gives what they were.
fn patch(path: &Utf8Path, places: &[(u64, &[u8])]) -> Vec<(u64, Vec<u8>)> {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut before = Vec::new();
    for (at, bytes) in places {
        let mut was = vec![0; bytes.len()];
        file.read_exact_at(&mut was, *at).unwrap();
        file.write_all_at(bytes, *at).unwrap();
        before.push((*at, was));
    }
    before
}

fn undo(path: &Utf8Path, before: &[(u64, Vec<u8>)]) {
    let places: Vec<_> = before.iter().map(|(at, bytes)| (*at, bytes.as_slice())).collect();
    patch(path, &places);
}

fn features_of(path: &Utf8Path) -> u8 {
    fs::read(path).unwrap()[usize::try_from(FEATURES).unwrap()]
}

#[tokio::test]
async fn a_link_is_never_followed() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 1);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let (path, elsewhere) = (top(&fixture, &volume), fixture.path("elsewhere"));
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let larger = VolumeSpec { size_gib: SizeGib(2), ..volume.clone() };
    for refused in [
        fixture.pool.export(&volume).await.map(drop),
        fixture.pool.layers(&volume).await.map(drop),
        fixture.pool.ensure_volume(&larger).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, PoolError::UnsafeLayer(id, _) if *id == layer(1)), "{refused}");
    }
}

#[tokio::test]
async fn an_external_data_file_is_never_followed() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 1);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let (path, secret) = (top(&fixture, &volume), fixture.path("secret"));
    fs::remove_file(&path).unwrap();
    // What qemu-img itself makes of such a file, with the secret for its data.
    let options = format!("data_file={secret},data_file_raw=on");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &options, path.as_str(), "1G"]);
    fs::write(&secret, vec![0x5e; 1 << 20]).unwrap();
    let before = fs::read(&path).unwrap();
    let larger = VolumeSpec { size_gib: SizeGib(2), ..volume.clone() };
    for refused in [
        fixture.pool.export(&volume).await.map(drop),
        fixture.pool.layers(&volume).await.map(drop),
        fixture.pool.ensure_volume(&larger).await.map(drop),
        fixture.pool.merge_layers(&volume).await,
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, PoolError::UnsafeLayer(id, _) if *id == layer(1)), "{refused}");
        assert_eq!(refused.blame(), Blame::Chain);
    }
    assert!(fixture.pool.look_at_volume(&volume).await.unwrap().broken);
    assert!(fs::read(&path).unwrap() == before);
    assert!(fs::read(&secret).unwrap() == vec![0x5e; 1 << 20]);
}

#[tokio::test]
async fn no_layer_of_a_chain_nor_its_image_may_lead_out_of_itself() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let (mut files, volume) = (paths(&fixture, &whole), merging(&whole, &[2]));
    let image = fixture.pool.base(whole.image.as_ref().unwrap());
    files.push(image.clone());
    for path in &files {
        let before = patch(path, &[(FEATURES, &[features_of(path) | 4])]);
        for refused in [
            fixture.pool.merge_layers(&volume).await,
            fixture.pool.export(&whole).await.map(drop),
            fixture.pool.layers(&whole).await.map(drop),
        ] {
            assert!(matches!(refused, Err(PoolError::UnsafeLayer(..))), "{path}: {refused:?}");
        }
        undo(path, &before);
    }
    // An image stands on nothing.
    let secret = fixture.qcow2("secret.qcow2", &[]);
    let (at, length) = (40_000_u64, u32::try_from(secret.as_str().len()).unwrap());
    let named = [(8, &at.to_be_bytes()[..]), (16, &length.to_be_bytes()), (at, secret.as_str().as_bytes())];
    let before = patch(&image, &named);
    for refused in [fixture.pool.layers(&whole).await.map(drop), fixture.pool.export(&whole).await.map(drop)]
    {
        assert!(matches!(refused, Err(PoolError::BrokenChain(id)) if id == layer(1)), "{refused:?}");
    }
    undo(&image, &before);
    fixture.pool.merge_layers(&volume).await.unwrap();
    assert!(holds_all_marks(&top(&fixture, &whole)));
}

#[tokio::test]
async fn only_what_qemu_writes_for_us_is_let_pass() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let volume = volume(1, Some(&image), 1);
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let path = top(&fixture, &volume);
    assert_eq!(Header::read(&path).unwrap().size_bytes, GIB);
    let features = features_of(&path);
    let extensions = u64::from(u32::from_be_bytes(fs::read(&path).unwrap()[100..104].try_into().unwrap()));
    // A guest that was killed leaves it dirty, and one that writes leaves hints.
    for harmless in [(FEATURES, &[features | 1][..]), (95, &[1])] {
        let before = patch(&path, &[harmless]);
        Header::read(&path).unwrap();
        undo(&path, &before);
    }
    let head = |kind: u32, length: u32| [kind.to_be_bytes(), length.to_be_bytes()].concat();
    let (raw, data_file) = ([&head(0xe279_2aca, 3)[..], b"raw"].concat(), head(0x4441_5441, 8));
    for (what, at, bytes) in [
        ("magic", 0, &b"QFX"[..]),
        ("version", 7, &[4]),
        ("clusters", 23, &[60]),
        ("encryption", 35, &[1]),
        ("corrupt", FEATURES, &[features | 2]),
        ("a data file", FEATURES, &[features | 4]),
        ("an unknown feature", 72, &[0x80]),
        ("a raw data file", 95, &[2]),
        ("the header's length", 100, &[1]),
        ("a name beyond the first cluster", 8, &(1_u64 << 20).to_be_bytes()),
        ("a name in the header", 8, &16_u64.to_be_bytes()),
        ("a name of no place", 8, &0_u64.to_be_bytes()),
        ("a long name", 16, &2000_u32.to_be_bytes()),
        ("another format below", extensions, &raw),
        ("the name of a data file", extensions, &data_file),
    ] {
        let before = patch(&path, &[(at, bytes)]);
        let refused = Header::read(&path).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData, "{what}: {refused}");
        undo(&path, &before);
    }
    Header::read(&path).unwrap();
}
