//! Images that the parser has to accept and that never end.

use std::os::unix::fs::FileExt;

use protocol::{GIB, MIB};

use super::*;
use crate::Blame;
use crate::sandbox::Limits;

/// The converter works on it for seconds. The pool asks for as much free space before it begins, and none of it is
/// used: zeros are not written.
const DISK: u64 = 8 * GIB;

/// 10 MiB that unpack to 8 GiB of zeros: every entry of the L2 table is the same compressed cluster.
fn bomb(fixture: &Fixture) -> (Utf8PathBuf, ImageSource) {
    let path = fixture.path("bomb.qcow2");
    let size = DISK.to_string();
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", path.as_str(), &size]);
    tool("qemu-io", &["-f", "qcow2", "-c", "write -c -P 0 0 2M", path.as_str()]);
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let l2_table = word(word(40)) & 0x00ff_ffff_ffff_fe00;
    let entry = word(l2_table);
    assert!(entry & (1 << 62) != 0, "a compressed cluster");
    let entries = entry.to_be_bytes().repeat((DISK / (2 * MIB)) as usize);
    file.write_all_at(&entries, l2_table).unwrap();
    (path.clone(), source(&path, Format::Qcow2, DISK))
}

fn limits(limits: Limits) -> Fixture {
    Fixture::with(Sandbox::with("nobody", limits).unwrap())
}

/// One second of processor time, however long it takes on a busy machine.
fn second() -> Limits {
    let cpu_base = Duration::from_secs(1);
    Limits { cpu_base, cpu_per_gib: Duration::ZERO, wall_factor: 120, ..Limits::default() }
}

/// Processes other than this one that have a file of the pool open.
fn users_of(root: &Utf8Path) -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let others = processes.filter(|process| {
        process.file_name().to_string_lossy().parse().is_ok_and(|pid: u32| pid != std::process::id())
    });
    let uses = |process: &fs::DirEntry| {
        let files = fs::read_dir(process.path().join("fd")).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| target.starts_with(root))
    };
    others.filter(uses).count()
}

#[tokio::test]
async fn processor_time_runs_out() {
    let fixture = limits(second());
    let (path, image) = bomb(&fixture);
    let error = fixture.cache(&path, &image).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image, "{error:?}");
    // SIGXCPU or, from a process that catches it, SIGKILL.
    let killed = |signal| format!("{error:?}").contains(&format!("Killed({signal})"));
    assert!(killed(24) || killed(9), "{error:?}");
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn the_clock_runs_out() {
    let fixture = limits(Limits { wall_factor: 0, ..second() });
    let (path, image) = bomb(&fixture);
    let error = fixture.cache(&path, &image).await.unwrap_err();
    assert_eq!(error.blame(), Blame::Image);
    assert!(format!("{error:?}").contains("TimedOut"), "{error:?}");
    wait_for("the converter's end", || users_of(&fixture.root) == 0).await;
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn memory_runs_out() {
    let fixture = limits(Limits { address_space_bytes: 16 * MIB, ..Limits::default() });
    let path = fixture.qcow2("upload.qcow2", &[]);
    let error = fixture.cache(&path, &source(&path, Format::Qcow2, 4 * MIB)).await.unwrap_err();
    assert!(format!("{error:?}").contains("Convert"), "{error:?}");
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn a_dropped_conversion_ends_the_converter() {
    let fixture = Fixture::new();
    let (path, image) = bomb(&fixture);
    {
        let mut caching = std::pin::pin!(fixture.cache(&path, &image));
        let running = wait_for("the converter", || users_of(&fixture.root) >= 2);
        tokio::select! {
            outcome = &mut caching => panic!("it ended by itself: {outcome:?}"),
            () = running => {}
        }
    }
    wait_for("the converter's end", || users_of(&fixture.root) == 0).await;
    fixture.assert_only(&[]);
}

#[tokio::test]
async fn the_converter_runs_confined() {
    let fixture = Fixture::new();
    let (path, image) = bomb(&fixture);
    let mut caching = std::pin::pin!(fixture.cache(&path, &image));
    let mut seen = None;
    let running = wait_for("the converter", || {
        seen = confined_status(&fixture.root);
        seen.is_some()
    });
    tokio::select! {
        outcome = &mut caching => panic!("it ended by itself: {outcome:?}"),
        () = running => {}
    }
    let Confined { status, limits, network, files } = seen.unwrap();
    let line = |text: &str, key: &str| {
        let found = text.lines().find(|line| line.starts_with(key)).unwrap();
        found[key.len()..].split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(line(&status, "NoNewPrivs:"), ["1"]);
    for capabilities in ["CapEff:", "CapPrm:", "CapInh:", "CapBnd:", "CapAmb:"] {
        assert_eq!(line(&status, capabilities), ["0000000000000000"], "{capabilities}");
    }
    if nix::unistd::Uid::effective().is_root() {
        assert_eq!(line(&status, "Uid:"), ["65534"; 4]);
        assert_eq!(line(&status, "Groups:"), Vec::<String>::new());
    }
    assert_eq!(line(&limits, "Max core file size")[0], "0");
    assert_eq!(line(&limits, "Max address space")[0], (2 * GIB).to_string());
    assert_ne!(network, fs::read_link("/proc/self/ns/net").unwrap());
    assert!(files.iter().all(|name| name != "tmp" && name != "var" && name != "home"), "{files:?}");
}

/// How a running qemu-img that uses the pool is confined.
struct Confined {
    status: String,
    limits: String,
    network: std::path::PathBuf,
    /// In its root directory.
    files: Vec<std::ffi::OsString>,
}

fn confined_status(root: &Utf8Path) -> Option<Confined> {
    fs::read_dir("/proc").unwrap().filter_map(Result::ok).map(|entry| entry.path()).find_map(|process| {
        let program = fs::read_link(process.join("exe")).ok()?;
        let output = fs::read_link(process.join("fd/1")).ok()?;
        if !program.ends_with("qemu-img") || !output.starts_with(root) {
            return None;
        }
        let status = fs::read_to_string(process.join("status")).ok()?;
        let limits = fs::read_to_string(process.join("limits")).ok()?;
        let network = fs::read_link(process.join("ns/net")).ok()?;
        let files =
            fs::read_dir(process.join("root")).ok()?.filter_map(|entry| Some(entry.ok()?.file_name()));
        Some(Confined { status, limits, network, files: files.collect() })
    })
}
