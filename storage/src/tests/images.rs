//! The parser against images that `qemu-img` made.

use std::fs::{self, File};

use protocol::image::{Format, InspectError, inspect};

use super::*;

fn look(path: &Utf8Path, format: Format) -> Result<u64, InspectError> {
    let mut file = File::open(path).unwrap();
    let length = file.metadata().unwrap().len();
    inspect(&mut file, format, length).map(|info| info.virtual_size_bytes)
}

fn code(path: &Utf8Path, format: Format) -> &'static str {
    look(path, format).map_or_else(|error| error.code(), |_| "accepted")
}

#[test]
fn what_qemu_makes_is_accepted() {
    let fixture = Fixture::new();
    let flavours: [&[&str]; 11] = [
        &[],
        &["-o", "compat=0.10"],
        &["-c"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-o", "extended_l2=on,cluster_size=128k"],
        &["-c", "-o", "extended_l2=on,cluster_size=16k"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=falloc,cluster_size=4k"],
        &["-o", "lazy_refcounts=on,refcount_bits=1"],
    ];
    for flavour in flavours {
        let path = fixture.qcow2("image.qcow2", flavour);
        assert_eq!(look(&path, Format::Qcow2).unwrap(), 4 << 20, "{flavour:?}");
        assert_eq!(code(&path, Format::Raw), "image_format_mismatch", "{flavour:?}");
    }
}

#[test]
fn an_odd_size_and_a_used_disk_are_accepted() {
    let fixture = Fixture::new();
    let path = fixture.path("used.qcow2");
    for options in ["cluster_size=64k", "extended_l2=on,cluster_size=128k", "compat=0.10"] {
        qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, path.as_str(), "10486272"]);
        let commands = ["write -P 1 0 512", "write -z 1M 1M", "discard 1M 64k", "write -P 2 10485760 512"];
        let arguments: Vec<&str> = commands.iter().flat_map(|command| ["-c", command]).collect();
        tool("qemu-io", &[&["-f", "qcow2"], &arguments[..], &[path.as_str()]].concat());
        assert_eq!(look(&path, Format::Qcow2).unwrap(), 10_486_272, "{options}");
    }
}

#[test]
fn images_that_lead_elsewhere_are_refused() {
    let fixture = Fixture::new();
    let base = fixture.qcow2("base.qcow2", &[]);
    let make = |name: &str, arguments: &[&str]| {
        let path = fixture.path(name);
        qemu_img(&[&["create", "-q", "-f", "qcow2"], arguments, &[path.as_str(), "4M"]].concat());
        path
    };
    let overlay = make("overlay.qcow2", &["-b", base.as_str(), "-F", "qcow2"]);
    assert_eq!(code(&overlay, Format::Qcow2), "qcow2_backing_file");
    let passwd = make("passwd.qcow2", &["-u", "-b", "/etc/passwd", "-F", "raw"]);
    assert_eq!(code(&passwd, Format::Qcow2), "qcow2_backing_file");
    let data_file = format!("data_file={},data_file_raw=on", fixture.path("data"));
    assert_eq!(code(&make("data.qcow2", &["-o", &data_file]), Format::Qcow2), "qcow2_data_file");
    let luks = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
    let secret = ["--object", "secret,id=key,data=abc", "-o", luks];
    assert_eq!(code(&make("luks.qcow2", &secret), Format::Qcow2), "qcow2_encrypted");
    let snapshot = fixture.qcow2("snapshot.qcow2", &[]);
    qemu_img(&["snapshot", "-c", "before", snapshot.as_str()]);
    assert_eq!(code(&snapshot, Format::Qcow2), "qcow2_internal_snapshots");
}

#[test]
fn other_formats_are_neither_raw_nor_qcow2() {
    let fixture = Fixture::new();
    let raw = fixture.raw("source.raw", 4);
    assert_eq!(code(&raw, Format::Qcow2), "image_format_mismatch");
    let formats =
        ["vmdk", "vhdx", "vdi", "vpc", "qed", "parallels", "qcow", "vmdk:monolithicFlat", "vpc:fixed"];
    for name in formats {
        let (format, subformat) = name.split_once(':').unwrap_or((name, ""));
        let path = fixture.path(&format!("image-{}", name.replace(':', "-")));
        let mut arguments = vec!["convert", "-f", "raw", "-O", format];
        let option = format!("subformat={subformat}");
        if !subformat.is_empty() {
            arguments.extend(["-o", &option]);
        }
        qemu_img(&[&arguments[..], &[raw.as_str(), path.as_str()]].concat());
        assert_eq!(code(&path, Format::Raw), "image_format_mismatch", "{name} as raw");
        let as_qcow2 = if name == "qcow" { "qcow2_version_unsupported" } else { "image_format_mismatch" };
        assert_eq!(code(&path, Format::Qcow2), as_qcow2, "{name} as qcow2");
    }
}

#[test]
fn truncated_uploads_are_refused() {
    let fixture = Fixture::new();
    for flavour in [&[][..], &["-c"], &["-o", "extended_l2=on,cluster_size=128k"]] {
        let whole = fs::read(fixture.qcow2("whole.qcow2", flavour)).unwrap();
        let path = fixture.path("cut.qcow2");
        for part in 1..8 {
            fs::write(&path, &whole[..whole.len() * part / 8]).unwrap();
            assert_eq!(code(&path, Format::Qcow2), "image_truncated", "{flavour:?}, {part}/8");
        }
    }
    let raw = fixture.path("cut.raw");
    fs::write(&raw, [7; 1000]).unwrap();
    assert_eq!(code(&raw, Format::Raw), "image_partial_sector");
}
