//! The program alone: which is run, how, and how it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use tempfile::TempDir;
use uuid::Uuid;

use super::options::{FenceOptions, Fencer, UnfitProgram};
use super::program::{Ended, FenceAction, Subject, run};

fn options(program: &Path) -> FenceOptions {
    FenceOptions {
        fence_command: Some(Utf8PathBuf::from_path_buf(program.into()).unwrap()),
        fence_after_seconds: 120,
        fence_timeout_seconds: 5,
    }
}

/// A program of this text.
fn written(folder: &TempDir, text: &str) -> std::path::PathBuf {
    let path = folder.path().join("fence");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn subject() -> Subject {
    let labels = [("bmc".to_owned(), "192.0.2.7".to_owned())].into();
    let address = Some("192.0.2.1".to_owned());
    Subject {
        id: Uuid::nil(),
        name: "host-1".into(),
        rack: None,
        zone: None,
        labels,
        address,
        last_seen_at: None,
    }
}

async fn ended(fencer: &Fencer) -> Ended {
    run(fencer, FenceAction::Off, &subject()).await
}

async fn fails(text: &str, limit: u64) -> String {
    let folder = TempDir::new().unwrap();
    let mut fencer = options(&written(&folder, text)).open().unwrap().unwrap();
    fencer.limit = Duration::from_secs(limit);
    match ended(&fencer).await {
        Ended::Badly(why) => why,
        Ended::Well(said) => panic!("it did not fail: {said}"),
    }
}

#[tokio::test]
async fn it_is_told_of_the_host_and_of_nothing_else() {
    let folder = TempDir::new().unwrap();
    let text = format!(
        "echo \"$@\" > {0}/said; env >> {0}/said; cat >> {0}/said; pwd >> {0}/said; echo fine",
        folder.path().display()
    );
    let fencer = options(&written(&folder, &text)).open().unwrap().unwrap();
    assert!(matches!(ended(&fencer).await, Ended::Well(said) if said == "fine"));
    let said = std::fs::read_to_string(folder.path().join("said")).unwrap();
    let (first, rest) = said.split_once('\n').unwrap();
    assert_eq!(first, "off 00000000-0000-0000-0000-000000000000 host-1");
    let line = rest.lines().find(|line| line.starts_with('{')).unwrap();
    let told: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&told["action"], &told["host"]["name"]), (&"off".into(), &"host-1".into()));
    assert_eq!(
        (&told["host"]["labels"]["bmc"], &told["host"]["address"]),
        (&"192.0.2.7".into(), &"192.0.2.1".into())
    );
    assert!(rest.ends_with("\n/\n"), "{rest}");
    // What the shell itself adds is not ours.
    let ours = rest.lines().filter(|line| !line.starts_with('{') && line.contains('='));
    let names: Vec<_> = ours.map(|line| line.split_once('=').unwrap().0).collect();
    assert!(
        names.iter().all(|name| ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(name)),
        "{names:?}"
    );
}

#[tokio::test]
async fn whatever_it_does_it_ends() {
    assert_eq!(fails("echo no such BMC >&2; exit 3", 5).await, "it ended with 3: no such BMC");
    assert_eq!(fails("kill -9 $$", 5).await, "it was ended by signal 9");
    let began = Instant::now();
    let hangs = fails("trap '' TERM; echo waiting; sleep 600 & sleep 600; exit 0", 1).await;
    assert_eq!(hangs, "it took longer than 1 s: waiting");
    let floods = fails("yes flood | head -c 20000000; echo last; exit 1", 60).await;
    assert!(floods.ends_with("last") && floods.len() < 400, "{floods}");
    assert!(began.elapsed() < Duration::from_secs(50));
}

#[tokio::test]
async fn what_it_leaves_behind_is_ended_and_holds_nothing_up() {
    let folder = TempDir::new().unwrap();
    let text = format!("sleep 600 & echo $! > {}/child; exit 0", folder.path().display());
    let fencer = options(&written(&folder, &text)).open().unwrap().unwrap();
    let began = Instant::now();
    assert!(matches!(ended(&fencer).await, Ended::Well(_)));
    assert!(began.elapsed() < Duration::from_secs(20));
    let child = std::fs::read_to_string(folder.path().join("child")).unwrap();
    let status = format!("/proc/{}/stat", child.trim());
    let lives = || std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z "));
    let gone = async {
        while lives() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("what it started lives on");
}

/// The program with this title in the guide, with a machine instead of `ipmitool` and `curl`: it is on until it is told to be off.
fn of_the_guide(folder: &TempDir, title: &str) -> std::path::PathBuf {
    let guide = include_str!("../../../../docs/fencing.md");
    let chapter = guide.split("\n## ").find(|chapter| chapter.starts_with(title)).unwrap();
    let text = chapter.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let own = folder.path().display();
    std::fs::write(folder.path().join("bmc"), "host-2 192.0.2.9\nhost-1 192.0.2.7\n").unwrap();
    let machine = format!(
        "#!/bin/sh\necho \"$@\" >> {own}/asked\nstate=$(cat {own}/state)\ncase \"$*\" in\n\
        *'power off'*|*ForceOff*) echo Off > {own}/state ;;\n\
        *'power status'*) [ $state = On ] && echo 'Chassis Power is on' || echo 'Chassis Power is off' ;;\n\
        *) echo '{{\"Id\": \"1\", \"PowerState\": \"'$state'\", \"Name\": \"x\"}}' ;;\nesac\n"
    );
    for name in ["ipmitool", "curl"] {
        std::fs::write(folder.path().join(name), &machine).unwrap();
        std::fs::set_permissions(folder.path().join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = text
        .replace("/etc/cumulo/bmc\n", &format!("{own}/bmc\n"))
        .replace("/etc/cumulo/bmc)", &format!("{own}/bmc)"));
    written(folder, &format!("PATH={own}:$PATH\n{text}"))
}

#[tokio::test]
async fn the_programs_of_the_guide_switch_off_and_say_so_only_then() {
    for title in ["With IPMI", "With Redfish"] {
        let folder = TempDir::new().unwrap();
        let fencer = options(&of_the_guide(&folder, title)).open().unwrap().unwrap();
        let state = folder.path().join("state");
        std::fs::write(&state, "On\n").unwrap();
        let status = run(&fencer, FenceAction::Status, &subject()).await;
        assert!(
            matches!(&status, Ended::Well(said) if said.to_lowercase().ends_with("on")),
            "{title}: {status:?}"
        );
        assert_eq!(std::fs::read_to_string(&state).unwrap(), "On\n", "{title}");
        for _ in 0..2 {
            let off = ended(&fencer).await;
            assert!(matches!(off, Ended::Well(_)), "{title}: {off:?}");
            assert_eq!(std::fs::read_to_string(&state).unwrap(), "Off\n");
        }
        let asked = std::fs::read_to_string(folder.path().join("asked")).unwrap();
        assert!(asked.contains("192.0.2.7") && !asked.contains("192.0.2.9"), "{asked}");
        // A BMC that does not answer, and a machine that has none.
        std::fs::write(folder.path().join("ipmitool"), "#!/bin/sh\necho no route >&2\nexit 1\n").unwrap();
        std::fs::copy(folder.path().join("ipmitool"), folder.path().join("curl")).unwrap();
        let mute = ended(&fencer).await;
        assert!(matches!(&mute, Ended::Badly(why) if why.contains("no route")), "{title}: {mute:?}");
        std::fs::write(folder.path().join("bmc"), "").unwrap();
        assert!(matches!(ended(&fencer).await, Ended::Badly(why) if why.contains("no BMC of host-1")));
    }
}

#[test]
fn a_program_that_others_could_change_is_refused() {
    let folder = TempDir::new().unwrap();
    let program = written(&folder, "exit 0");
    let open = |path: &Path| options(path).open();
    assert!(open(&program).unwrap().is_some());
    assert!(matches!(open(Path::new("fence")), Err(UnfitProgram::Relative(_))));
    assert!(matches!(open(Path::new("")), Err(UnfitProgram::Relative(_))));
    assert!(matches!(open(&folder.path().join("none")), Err(UnfitProgram::Unseen(..))));
    assert!(matches!(open(folder.path()), Err(UnfitProgram::NoFile(_))));
    let mode =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(&program, 0o775);
    assert!(matches!(open(&program), Err(UnfitProgram::Writable(_))));
    mode(&program, 0o644);
    assert!(matches!(open(&program), Err(UnfitProgram::NotExecutable(_))));
    mode(&program, 0o755);
    mode(folder.path(), 0o777);
    assert!(
        matches!(open(&program), Err(UnfitProgram::Writable(path)) if path == folder.path().canonicalize().unwrap())
    );
    mode(folder.path(), 0o755);
    // A link is as good as what it names.
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&program, &link).unwrap();
    assert!(open(&link).unwrap().is_some());
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(&program, Some(12_345), None).unwrap();
        assert!(matches!(open(&link), Err(UnfitProgram::Foreign(_))));
    }
    assert!(FenceOptions { fence_command: None, ..options(&program) }.open().unwrap().is_none());
}
