//! Images of other formats that `qemu-img` made: the same disk comes out, or the refusal says why not.

use protocol::image::{ImageInfo, inspect};
use protocol::{KIB, MIB};

use super::*;
use crate::Blame;

/// Format, file name, and what the file is made with.
const FLAVOURS: &[(Format, &[&str])] = &[
    (Format::Vmdk, &[]),
    (Format::Vmdk, &["subformat=monolithicSparse,zeroed_grain=on"]),
    (Format::Vmdk, &["subformat=streamOptimized"]),
    (Format::Vmdk, &["adapter_type=lsilogic,hwversion=13"]),
    (Format::Vhdx, &[]),
    (Format::Vhdx, &["subformat=fixed"]),
    (Format::Vhdx, &["block_size=8M,log_size=2M"]),
    (Format::Vhdx, &["block_state_zero=off"]),
    (Format::Vdi, &[]),
    (Format::Vdi, &["static=on"]),
];

/// Every byte says where it is.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
}

/// A disk of a size that no format has units of, with data at its ends, across units, and holes between.
fn disk_with_holes() -> Vec<u8> {
    let size = 37 * MIB + 5 * KIB + 512;
    let mut disk = vec![0; size as usize];
    for (from, to) in [
        (0, 70 * KIB),
        (MIB - 512, MIB + 512),
        (8 * MIB - 4 * KIB, 9 * MIB),
        (20 * MIB + 512, 20 * MIB + 1024),
        (32 * MIB - 1, 33 * MIB),
        (size - 512, size),
    ] {
        (from..to).for_each(|at| disk[at as usize] = pattern(at));
    }
    disk
}

fn look(path: &Utf8Path, format: Format) -> Result<ImageInfo, &'static str> {
    let mut file = fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    inspect(&mut file, format, length).map_err(|error| error.code())
}

/// The whole disk in a qcow2 file.
fn contents(fixture: &Fixture, qcow2: &Utf8Path) -> Vec<u8> {
    let path = fixture.path("contents.raw");
    qemu_img(&["convert", "-f", "qcow2", "-O", "raw", qcow2.as_str(), path.as_str()]);
    fs::read(path).unwrap()
}

fn make(fixture: &Fixture, format: Format, options: &[&str], disk: &[u8]) -> Utf8PathBuf {
    let (raw, path) = (fixture.path("source.raw"), fixture.path(&format!("upload.{}", format.as_str())));
    fs::write(&raw, disk).unwrap();
    let mut arguments = vec!["convert", "-f", "raw", "-O", format.as_str()];
    options.iter().for_each(|option| arguments.extend(["-o", option]));
    arguments.extend([raw.as_str(), path.as_str()]);
    qemu_img(&arguments);
    path
}

#[tokio::test]
async fn the_same_disk_comes_out() {
    let fixture = Fixture::new();
    let disk = disk_with_holes();
    for (format, options) in FLAVOURS {
        let path = make(&fixture, *format, options, &disk);
        let info = look(&path, *format).unwrap_or_else(|code| panic!("{format:?} {options:?}: {code}"));
        // VHDX has whole MiB.
        assert!((disk.len() as u64..=38 * MIB).contains(&info.virtual_size_bytes), "{info:?}");
        let image = source(&path, *format, info.virtual_size_bytes);
        let made =
            fixture.cache(&path, &image).await.unwrap_or_else(|error| panic!("{options:?}: {error:?}"));
        assert_eq!(made, Made::Now);
        let base = fixture.pool.base(&image);
        let (mut expected, found) = (disk.clone(), contents(&fixture, &base));
        expected.resize(info.virtual_size_bytes as usize, 0);
        assert!(found == expected, "{format:?} {options:?}: another disk came out");
        qemu_img(&["check", "-q", "-f", "qcow2", base.as_str()]);
        let holes = fs::metadata(&base).unwrap().len();
        assert!(holes < 8 * MIB, "{format:?} {options:?}: {holes} bytes");
        for other in Format::ALL.into_iter().filter(|other| other != format) {
            assert_eq!(look(&path, other).unwrap_err(), "image_format_mismatch", "{format:?} as {other:?}");
        }
        fs::remove_file(&base).unwrap();
    }
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_used_disk_comes_out_too() {
    let fixture = Fixture::new();
    for format in [Format::Vmdk, Format::Vhdx, Format::Vdi] {
        let (name, path) = (format.as_str(), fixture.path("used"));
        qemu_img(&["create", "-q", "-f", name, path.as_str(), "64M"]);
        for command in ["write -P 1 0 64k", "write -P 2 33M 3M", "write -P 3 33M 512", "write -z 34M 64k"] {
            tool("qemu-io", &["-f", name, "-c", command, path.as_str()]);
        }
        let info = look(&path, format).unwrap_or_else(|code| panic!("{name}: {code}"));
        let image = source(&path, format, info.virtual_size_bytes);
        fixture.cache(&path, &image).await.unwrap();
        let base = fixture.pool.base(&image);
        qemu_img(&["compare", "-f", name, "-F", "qcow2", path.as_str(), base.as_str()]);
        let found = contents(&fixture, &base);
        let at = |offset: u64| found[offset as usize];
        assert_eq!((at(0), at(64 * KIB)), (1, 0), "{name}");
        assert_eq!(
            (at(33 * MIB), at(33 * MIB + 512), at(34 * MIB), at(36 * MIB - 1)),
            (3, 2, 0, 2),
            "{name}"
        );
        fs::remove_file(&base).unwrap();
    }
}

#[test]
fn disks_in_several_files_are_refused() {
    let fixture = Fixture::new();
    let raw = fixture.raw("source.raw", 4);
    let base = fixture.path("base.vmdk");
    qemu_img(&["convert", "-f", "raw", "-O", "vmdk", raw.as_str(), base.as_str()]);
    let overlay = fixture.path("overlay.vmdk");
    qemu_img(&["create", "-q", "-f", "vmdk", "-b", base.as_str(), "-F", "vmdk", overlay.as_str()]);
    assert_eq!(look(&overlay, Format::Vmdk).unwrap_err(), "vmdk_parent");
    for subformat in ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let path = fixture.path(&format!("{subformat}.vmdk"));
        let option = format!("subformat={subformat}");
        qemu_img(&["convert", "-f", "raw", "-O", "vmdk", "-o", &option, raw.as_str(), path.as_str()]);
        assert_eq!(look(&path, Format::Vmdk).unwrap_err(), "vmdk_descriptor_alone", "{subformat}");
    }
    // One of the files of such a disk has no descriptor.
    let part = fixture.path("twoGbMaxExtentSparse-s001.vmdk");
    assert_eq!(look(&part, Format::Vmdk).unwrap_err(), "vmdk_descriptor_invalid");
}

#[tokio::test]
async fn damage_inside_a_compressed_grain_is_the_images_fault() {
    let fixture = Fixture::new();
    let path = make(&fixture, Format::Vmdk, &["subformat=streamOptimized"], &disk_with_holes());
    let mut bytes = fs::read(&path).unwrap();
    let info = look(&path, Format::Vmdk).unwrap();
    // The first grain is at sector 128, behind its marker.
    bytes[65536 + 16..65536 + 60].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let image = source(&path, Format::Vmdk, info.virtual_size_bytes);
    let error = fixture.cache(&path, &image).await.unwrap_err();
    assert!(error.to_string().ends_with("could not be converted"), "{error:?}");
    assert_eq!(error.blame(), Blame::Image);
    fixture.assert_only(&[]);
}
