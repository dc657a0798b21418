use std::process::Command;
use std::time::Instant;

use super::guest::{Accelerator, Outcome, run};
use super::*;

const QEMU: &str = "/usr/bin/qemu-system-x86_64";

#[test]
fn the_boot_sector_is_its_source_assembled() {
    let folder = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/hypervisor/probe/boot_sector.S");
    let (object, binary) = (folder.path().join("o"), folder.path().join("bin"));
    let assembled = Command::new("as").arg("--64").arg("-o").arg(&object).arg(source).status().unwrap();
    assert!(assembled.success());
    let linked = Command::new("ld")
        .args(["-m", "elf_x86_64", "-Ttext", "0x7c00", "--oformat", "binary", "-o"])
        .args([&binary, &object])
        .status()
        .unwrap();
    assert!(linked.success());
    assert_eq!(std::fs::read(&binary).unwrap(), include_bytes!("boot_sector.bin"));
}

#[tokio::test]
async fn the_guest_runs_emulated() {
    assert_eq!(run(QEMU.into(), Accelerator::Tcg, EMULATION_LIMIT).await, Outcome::Ran);
}

#[tokio::test]
async fn a_guest_that_does_not_end_is_killed_in_time() {
    let started = Instant::now();
    let outcome = run("/usr/bin/yes".into(), Accelerator::Tcg, Duration::ZERO).await;
    assert!(matches!(outcome, Outcome::Failed { .. } | Outcome::TimedOut(_)), "{outcome:?}");
    let limit = Duration::from_millis(20);
    // Too short for any firmware.
    assert_eq!(run(QEMU.into(), Accelerator::Tcg, limit).await, Outcome::TimedOut(limit));
    assert!(started.elapsed() < KILLED_WITHIN, "{:?}", started.elapsed());
}

const KILLED_WITHIN: Duration = Duration::from_secs(4);

#[tokio::test]
async fn what_qemu_complains_about_is_told() {
    let missing = run("/no/such/qemu".into(), Accelerator::Kvm, HARDWARE_LIMIT).await;
    assert!(matches!(missing, Outcome::NotStarted(_)), "{missing:?}");
    let other = run("/usr/bin/cat".into(), Accelerator::Kvm, HARDWARE_LIMIT).await;
    assert!(
        matches!(&other, Outcome::Failed { status, complaint } if status == "status 1" && !complaint.is_empty())
    );
}

#[tokio::test]
async fn the_verdict_agrees_with_what_ran() {
    let verdict = acceleration(QEMU.into()).await.unwrap();
    let on_hardware = run(QEMU.into(), Accelerator::Kvm, HARDWARE_LIMIT).await;
    assert_eq!(
        verdict.acceleration == Acceleration::Kvm,
        on_hardware == Outcome::Ran,
        "{verdict:?} {on_hardware:?}"
    );
}

#[tokio::test]
async fn without_an_emulator_nothing_is_claimed() {
    let error = acceleration("/no/such/qemu".into()).await.unwrap_err();
    assert!(error.to_string().contains("/no/such/qemu"), "{error}");
}
