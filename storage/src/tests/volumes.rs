//! Layers of volumes.

use std::os::unix::fs::MetadataExt;

use protocol::{GIB, MIB};

use super::*;
use crate::Blame;

pub(super) async fn cached(fixture: &Fixture) -> ImageSource {
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    fixture.cache(&path, &image).await.unwrap();
    image
}

pub(super) fn paths(fixture: &Fixture, volume: &VolumeSpec) -> Vec<Utf8PathBuf> {
    volume.layers.iter().map(|layer| fixture.pool.layer(*layer)).collect()
}

pub(super) fn top(fixture: &Fixture, volume: &VolumeSpec) -> Utf8PathBuf {
    paths(fixture, volume).pop().unwrap()
}

fn chain(numbers: &[u128]) -> Vec<LayerId> {
    numbers.iter().map(|number| layer(*number)).collect()
}

pub(super) fn io(path: &Utf8Path, command: &str) -> String {
    tool("qemu-io", &["-f", "qcow2", "-c", command, path.as_str()])
}

/// Whether the disk has this byte there.
pub(super) fn holds(path: &Utf8Path, byte: u8, place: &str) -> bool {
    !io(path, &format!("read -P {byte} {place}")).contains("verification failed")
}

#[tokio::test]
async fn a_volume_is_an_overlay_on_its_cached_image() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let volume = volume(1, Some(&image), 3);
    assert!(!fixture.pool.look_at_volume(&volume).await.unwrap().made);
    assert_eq!(fixture.pool.ensure_volume(&volume).await.unwrap(), Made::Now);
    let info = info(&top(&fixture, &volume));
    assert_eq!(info["virtual-size"], 3 * GIB);
    assert_eq!(info["cluster-size"], 131_072);
    assert_eq!(info["backing-filename"], fixture.pool.base(&image).as_str());
    assert_eq!(info["backing-filename-format"], "qcow2");
    assert_eq!(info["format-specific"]["data"]["extended-l2"], true);
    let found = fixture.pool.look_at_volume(&volume).await.unwrap();
    assert!(found.base && found.made);
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn a_volume_without_an_image_is_empty() {
    let fixture = Fixture::new();
    let volume = volume(1, None, 2);
    assert_eq!(fixture.pool.ensure_volume(&volume).await.unwrap(), Made::Now);
    let top = top(&fixture, &volume);
    let info = info(&top);
    assert_eq!((info["virtual-size"].clone(), info.get("backing-filename")), ((2 * GIB).into(), None));
    assert!(holds(&top, 0, "0 1M"), "nobody else's old data");
}

#[tokio::test]
async fn what_is_there_is_kept_and_only_grows() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let small = volume(1, Some(&image), 1);
    fixture.pool.ensure_volume(&small).await.unwrap();
    let top = top(&fixture, &small);
    io(&top, "write -P 9 0 4k");
    let before = fs::read(&top).unwrap();
    assert_eq!(fixture.pool.ensure_volume(&small).await.unwrap(), Made::Before);
    assert_eq!(fs::read(&top).unwrap(), before);

    let large = VolumeSpec { size_gib: SizeGib(5), ..small.clone() };
    assert!(!fixture.pool.look_at_volume(&large).await.unwrap().made);
    assert_eq!(fixture.pool.ensure_volume(&large).await.unwrap(), Made::Before);
    assert!(fixture.pool.look_at_volume(&large).await.unwrap().made);
    assert_eq!(info(&top)["virtual-size"], 5 * GIB);
    assert!(holds(&top, 9, "0 4k") && holds(&top, 0, "4G 64k"));
    fixture.pool.ensure_volume(&small).await.unwrap();
    assert_eq!(info(&top)["virtual-size"], 5 * GIB, "an older word shrinks nothing");
}

#[tokio::test]
async fn a_layer_on_top_keeps_the_one_below() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let one = volume(1, Some(&image), 1);
    fixture.pool.ensure_volume(&one).await.unwrap();
    io(&top(&fixture, &one), "write -P 1 0 64k");
    let below = fs::read(top(&fixture, &one)).unwrap();

    let two = VolumeSpec { layers: vec![layer(1), layer(2)], size_gib: SizeGib(2), ..one.clone() };
    assert_eq!(fixture.pool.ensure_volume(&two).await.unwrap(), Made::Now);
    io(&top(&fixture, &two), "write -P 2 32k 64k");
    assert!(holds(&top(&fixture, &two), 1, "0 32k") && holds(&top(&fixture, &two), 2, "32k 64k"));
    assert_eq!(fs::read(top(&fixture, &one)).unwrap(), below);
    tool("qemu-img", &["check", "-q", top(&fixture, &two).as_str()]);
    // A chain of which nothing is there yet is made as a whole.
    let fresh = VolumeSpec { layers: vec![layer(7), layer(8)], ..volume(7, None, 1) };
    assert_eq!(fixture.pool.ensure_volume(&fresh).await.unwrap(), Made::Now);
    assert_eq!(info(&top(&fixture, &fresh))["backing-filename"], paths(&fixture, &fresh)[0].as_str());
}

/// A chain of four layers, each with a mark of its own and one over the mark of the layer below.
pub(super) async fn four_layers(fixture: &Fixture) -> VolumeSpec {
    let image = cached(fixture).await;
    let mut volume = VolumeSpec { layers: Vec::new(), ..volume(1, Some(&image), 1) };
    for number in 1..=4_u8 {
        volume.layers.push(layer(number.into()));
        fixture.pool.ensure_volume(&volume).await.unwrap();
        let at = u32::from(number) * 64;
        io(&top(fixture, &volume), &format!("write -P {number} {at}k 96k"));
    }
    volume
}

pub(super) fn holds_all_marks(path: &Utf8Path) -> bool {
    (1..=4_u8).all(|number| holds(path, number, &format!("{}k 64k", u32::from(number) * 64)))
        && holds(path, 4, "320k 32k")
}

/// The whole chain of four, of which these shall be merged.
pub(super) fn merging(whole: &VolumeSpec, merges: &[u128]) -> VolumeSpec {
    VolumeSpec { merges: chain(merges), ..whole.clone() }
}

async fn merged(fixture: &Fixture, volume: &VolumeSpec) -> Vec<LayerId> {
    fixture.pool.look_at_volume(volume).await.unwrap().merged
}

#[tokio::test]
async fn layers_in_the_middle_are_merged_when_that_is_asked_for() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let all = paths(&fixture, &whole);
    assert_eq!(fixture.pool.layers(&whole).await.unwrap(), all);
    for (merges, left) in [(&[2][..], &[0, 2, 3][..]), (&[2, 3], &[0, 3])] {
        let volume = merging(&whole, merges);
        assert_ne!(merged(&fixture, &volume).await, chain(merges));
        // It is read as before until that is done.
        assert!(fixture.pool.look_at_volume(&volume).await.unwrap().made && holds_all_marks(&all[3]));
        fixture.pool.ensure_volume(&volume).await.unwrap();
        assert_ne!(merged(&fixture, &volume).await, chain(merges), "making merges nothing");
        for _ in 0..2 {
            fixture.pool.merge_layers(&volume).await.unwrap();
            assert_eq!(merged(&fixture, &volume).await, chain(merges));
        }
        let left: Vec<_> = left.iter().map(|place: &usize| all[*place].clone()).collect();
        assert_eq!(fixture.pool.layers(&volume).await.unwrap(), left);
        assert!(holds_all_marks(&all[3]), "{merges:?}");
        left.iter().for_each(|path| drop(tool("qemu-img", &["check", "-q", path.as_str()])));
    }
    // What was merged is needed no more.
    let volume = merging(&whole, &[2, 3]);
    fixture.pool.remove_layers(&chain(&[2, 3])).await.unwrap();
    assert_eq!(merged(&fixture, &volume).await, chain(&[2, 3]));
    assert!(fixture.pool.look_at_volume(&volume).await.unwrap().made && holds_all_marks(&all[3]));
    assert_eq!(fixture.pool.ensure_volume(&volume).await.unwrap(), Made::Before);
}

/// Both layers under the merge are sealed, so that it may be repeated from wherever it was cut off.
#[tokio::test]
async fn a_merge_that_was_cut_off_is_repeated() {
    for cut_off in ["never begun", "killed", "done, not told"] {
        let fixture = Fixture::new();
        let whole = four_layers(&fixture).await;
        let (all, volume) = (paths(&fixture, &whole), merging(&whole, &[3]));
        let arguments = ["commit", "-q", "-d", "-f", "qcow2", "-b", all[1].as_str(), all[2].as_str()];
        match cut_off {
            "killed" => {
                io(&all[2], "write -P 3 1M 256M");
                let mut commit = Command::new("qemu-img").args(arguments).spawn().unwrap();
                tokio::time::sleep(Duration::from_millis(40)).await;
                commit.kill().unwrap();
                commit.wait().unwrap();
            }
            "done, not told" => drop(tool("qemu-img", &arguments)),
            _ => {}
        }
        assert_eq!(merged(&fixture, &volume).await, [], "{cut_off}");
        assert!(holds_all_marks(&all[3]), "{cut_off}");
        fixture.pool.merge_layers(&volume).await.unwrap();
        assert_eq!(merged(&fixture, &volume).await, chain(&[3]), "{cut_off}");
        fixture.pool.remove_layers(&chain(&[3])).await.unwrap();
        assert!(holds_all_marks(&all[3]), "{cut_off}");
        assert!(cut_off != "killed" || holds(&all[3], 3, "1M 256M"));
        [0, 1, 3].iter().for_each(|place| drop(tool("qemu-img", &["check", "-q", all[*place].as_str()])));
    }
}

#[tokio::test]
async fn a_merge_leaves_the_future_that_was_dropped_on_the_way() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let (all, volume) = (paths(&fixture, &whole), merging(&whole, &[2, 3]));
    for millis in 0..40 {
        let merge = fixture.pool.merge_layers(&volume);
        let _ = tokio::time::timeout(Duration::from_millis(millis), merge).await;
    }
    wait_for("nobody has a layer open", || !all.iter().any(|path| crate::volume::is_in_use(path).unwrap()))
        .await;
    assert!(holds_all_marks(&all[3]));
    fixture.pool.merge_layers(&volume).await.unwrap();
    assert_eq!(merged(&fixture, &volume).await, chain(&[2, 3]));
    fixture.pool.remove_layers(&chain(&[2, 3])).await.unwrap();
    assert!(holds_all_marks(&all[3]));
}

#[tokio::test]
async fn the_top_is_made_before_the_layer_under_it_is_merged() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let volume = VolumeSpec { layers: chain(&[1, 2, 3, 4, 5]), merges: chain(&[4]), ..whole };
    assert!(!fixture.pool.look_at_volume(&volume).await.unwrap().made);
    assert_eq!(fixture.pool.ensure_volume(&volume).await.unwrap(), Made::Now);
    assert_eq!(merged(&fixture, &volume).await, []);
    fixture.pool.merge_layers(&volume).await.unwrap();
    assert_eq!(merged(&fixture, &volume).await, chain(&[4]));
    fixture.pool.remove_layers(&chain(&[4])).await.unwrap();
    assert!(holds_all_marks(&top(&fixture, &volume)));
    // What was to be merged before it was made is never made.
    let fresh = VolumeSpec { layers: chain(&[7, 8, 9]), merges: chain(&[8]), ..self::volume(7, None, 1) };
    fixture.pool.ensure_volume(&fresh).await.unwrap();
    assert_eq!(merged(&fixture, &fresh).await, chain(&[8]));
    assert!(!fixture.pool.has_any_layer(&chain(&[8])).await.unwrap());
}

/// Nothing is guessed: neither from what is missing nor from what is there besides.
#[tokio::test]
async fn a_chain_that_stands_otherwise_is_left_alone() {
    let fixture = Fixture::new();
    let (whole, other) = (four_layers(&fixture).await, volume(9, None, 1));
    fixture.pool.ensure_volume(&other).await.unwrap();
    let all = [paths(&fixture, &whole), paths(&fixture, &other)].concat();
    let contents = || -> Vec<_> { all.iter().map(|path| fs::read(path).unwrap()).collect() };
    let before = contents();
    let of =
        |layers: &[u128], merges: &[u128]| VolumeSpec { layers: chain(layers), ..merging(&whole, merges) };
    let strangers = VolumeSpec { image: None, ..of(&[9, 4], &[]) };
    let on_nothing = VolumeSpec { image: None, ..whole.clone() };
    for broken in [of(&[1, 2, 4], &[]), of(&[1, 4], &[]), strangers, on_nothing, of(&[1, 2, 9, 4], &[9])] {
        let found = fixture.pool.look_at_volume(&broken).await.unwrap();
        assert!(found.broken && !found.made && found.merged.is_empty(), "{broken:?}");
        for refused in [
            fixture.pool.ensure_volume(&broken).await.map(drop),
            fixture.pool.merge_layers(&broken).await,
            fixture.pool.layers(&broken).await.map(drop),
        ] {
            let refused = refused.unwrap_err();
            assert!(matches!(refused, PoolError::BrokenChain(_)), "{refused}");
            assert_eq!(refused.blame(), Blame::Chain);
        }
    }
    let over_another = fixture.pool.add_layer(&whole, layer(4), Some(layer(2))).await;
    assert!(matches!(over_another, Err(PoolError::BrokenChain(id)) if id == layer(4)), "{over_another:?}");
    assert!(contents() == before);
}

#[tokio::test]
async fn going_back_stands_on_the_layer_that_was_kept() {
    let fixture = Fixture::new();
    let whole = four_layers(&fixture).await;
    let back = VolumeSpec { layers: vec![layer(1), layer(2), layer(8)], ..whole.clone() };
    assert_eq!(fixture.pool.ensure_volume(&back).await.unwrap(), Made::Now);
    let top = top(&fixture, &back);
    assert!(holds(&top, 1, "64k 64k") && holds(&top, 2, "128k 96k") && holds(&top, 0, "256k 64k"));
}

#[tokio::test]
async fn a_lost_layer_is_not_made_anew() {
    let fixture = Fixture::new();
    let volume = VolumeSpec { layers: vec![layer(1), layer(2)], ..volume(1, None, 1) };
    fixture.pool.ensure_volume(&volume).await.unwrap();
    assert!(fixture.pool.remove_layers(&[layer(1)]).await.unwrap());
    let lost = fixture.pool.ensure_volume(&volume).await.unwrap_err();
    assert!(matches!(lost, PoolError::LostLayer(id) if id == layer(1)), "{lost}");
    assert_eq!(lost.blame(), Blame::Chain);
    assert!(fixture.pool.look_at_volume(&volume).await.unwrap().broken);
    assert!(!fixture.pool.has_any_layer(&[layer(1)]).await.unwrap());
}

#[tokio::test]
async fn racing_callers_make_one_volume() {
    let fixture = Fixture::new();
    let image = cached(&fixture).await;
    let volume = volume(1, Some(&image), 1);
    let calls = (0..4).map(|_| fixture.pool.ensure_volume(&volume));
    let made = futures_util::future::join_all(calls).await;
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(Made::Now))).count(), 1, "{made:?}");
    assert_eq!(made.iter().filter(|made| matches!(made, Ok(Made::Before))).count(), 3, "{made:?}");
    fixture.assert_only(&[&image]);
}

#[tokio::test]
async fn a_volume_needs_its_image_and_enough_room_for_it() {
    let fixture = Fixture::new();
    let path = fixture.qcow2("upload.qcow2", &[]);
    let image = source(&path, Format::Qcow2, 4 * MIB);
    let missing = fixture.pool.ensure_volume(&volume(1, Some(&image), 1)).await;
    assert!(matches!(missing, Err(PoolError::NoBase(digest)) if digest == image.sha256));
    let large = ImageSource { virtual_size_bytes: GIB + 512, ..image };
    let error = fixture.pool.ensure_volume(&volume(1, Some(&large), 1)).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image);
    assert_eq!(error.to_string(), "a disk of 1 GiB cannot hold an image of 1073742336 bytes");
    assert!(!fixture.pool.has_any_layer(&[layer(1)]).await.unwrap());
}

#[tokio::test]
async fn layers_are_removed_alone() {
    let fixture = Fixture::new();
    for number in [1, 2, 3] {
        fixture.pool.ensure_volume(&volume(number, None, 1)).await.unwrap();
    }
    assert!(fixture.pool.remove_layers(&[layer(1), layer(3), layer(9)]).await.unwrap());
    assert!(!fixture.pool.remove_layers(&[layer(1), layer(3)]).await.unwrap());
    assert!(fixture.pool.has_any_layer(&[layer(1), layer(2)]).await.unwrap());
    assert!(!fixture.pool.has_any_layer(&[layer(1), layer(3)]).await.unwrap());
}

/// A QEMU that has the disk open for writing, and what it stands on for reading.
pub(super) fn open(path: &Utf8Path) -> std::process::Child {
    Command::new("qemu-io")
        .args(["-f", "qcow2", path.as_str()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// A QEMU that nobody knows of has the layer open: that of a domain that libvirt has lost sight of.
#[tokio::test]
async fn a_layer_that_is_open_is_not_removed() {
    let fixture = Fixture::new();
    let volume = VolumeSpec { layers: vec![layer(1), layer(2)], ..volume(1, None, 1) };
    fixture.pool.ensure_volume(&volume).await.unwrap();
    let path = top(&fixture, &volume);
    let mut holder = open(&path);
    let layers = paths(&fixture, &volume);
    let locked = || layers.iter().all(|layer| crate::volume::is_in_use(layer).unwrap());
    wait_for("the whole chain is open", locked).await;
    for layers in [&[layer(2)][..], &[layer(1)]] {
        let refused = fixture.pool.remove_layers(layers).await.unwrap_err();
        assert!(matches!(refused, PoolError::LayerInUse(id) if id == layers[0]), "{refused}");
    }
    assert!(fixture.pool.look_at_volume(&volume).await.unwrap().made);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(fixture.pool.remove_layers(&volume.layers).await.unwrap());
}

#[tokio::test]
async fn a_root_disk_of_before_is_found_as_a_layer() {
    let Fixture { _dir, root, pool, .. } = Fixture::new();
    let dir = pool.paths(instance(5)).dir;
    drop(pool);
    fs::create_dir(&dir).unwrap();
    tool("qemu-img", &["create", "-q", "-f", "qcow2", dir.join("root.qcow2").as_str(), "1G"]);
    for _ in 0..2 {
        let pool = Pool::open(&root, Options::new().unwrap()).unwrap();
        assert!(pool.look_at_volume(&volume(5, None, 1)).await.unwrap().made);
        assert_eq!(fs::metadata(pool.layer(layer(5))).unwrap().nlink(), 2);
    }
    let pool = Pool::open(&root, Options::new().unwrap()).unwrap();
    pool.remove_instance(instance(5)).await.unwrap();
    assert!(pool.look_at_volume(&volume(5, None, 1)).await.unwrap().made, "the volume outlives the instance");
}
