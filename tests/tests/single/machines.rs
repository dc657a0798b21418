//! The lab's machines: apart from each other and from their surroundings, and never left behind.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use camino::{Utf8Path, Utf8PathBuf};
use lab::{Machine, Machines, ProcessId};

/// Something that would run for ever on a machine.
fn start_sleeper(machine: &Machine) -> Result<ProcessId> {
    let child = machine.command("sleep").arg("infinity").stdout(Stdio::null()).spawn()?;
    ProcessId::of(child.id().cast_signed()).context("sleep ended at once")
}

#[test]
fn machines_reach_each_other_and_have_folders_of_their_own() -> Result<()> {
    let machines = Machines::start(2)?;
    let (control, first, second) = (machines.control()?, machines.host(1)?, machines.host(2)?);
    // Ports answer over the underlay without any service: a refused connection came from the other side.
    for (from, to) in
        [(&first, "192.0.2.1"), (&first, "192.0.2.12"), (&second, "192.0.2.11"), (&control, "192.0.2.12")]
    {
        let route = from.output("ip", &["route", "get", to])?;
        ensure!(route.contains("uplink"), "{} reaches {to} by {route}", from.name);
        let refused =
            from.run("curl", &["--silent", "--show-error", "--max-time", "5", &format!("http://{to}:9/")]);
        let reason = format!("{:#}", refused.err().context("something listens on port 9")?);
        ensure!(reason.contains("refused") || reason.contains("Couldn't connect"), "{reason}");
    }
    ensure!(first.output("hostname", &[])?.trim() == "h1");
    first.run("touch", &["/run/only-here"])?;
    ensure!(first.outside("/run/only-here").exists());
    ensure!(second.run("test", &["-e", "/run/only-here"]).is_err(), "h2 sees the file of h1");
    let devices = first.output("ls", &["/sys/class/net"])?;
    ensure!(devices.split_whitespace().all(|device| device != "eth0"), "{devices}");
    machines.finish()
}

#[test]
fn finishing_ends_what_runs_and_removes_what_was_written() -> Result<()> {
    let machines = Machines::start(1)?;
    let host = machines.host(1)?;
    let sleeper = start_sleeper(&host)?;
    // A grandchild in a session of its own, as daemons are.
    let mut daemon = host.command("setsid");
    daemon.args(["--fork", "sleep", "infinity"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let members = host.members();
    ensure!(members.len() == 2 && members.contains(&sleeper), "{members:?}");
    let dir = machines.dir().to_owned();
    machines.finish()?;
    ensure!(members.iter().all(|member| !member.is_alive()), "something still runs");
    ensure!(!dir.exists(), "{dir} is still there");
    Ok(())
}

/// A keeper as a test starts it.
fn start_keeper(dir: &Utf8Path) -> Result<Child> {
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["keeper", "--dir", dir.as_str(), "--hosts", "1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    BufReader::new(keeper.stdout.as_mut().context("no standard output")?).read_line(&mut said)?;
    ensure!(said == "ready\n" && dir.exists(), "the keeper says {said:?}");
    Ok(keeper)
}

fn own_dir(name: &str) -> Utf8PathBuf {
    Utf8PathBuf::from("/var/tmp/cumulo-lab").join(format!("{name}-{}", std::process::id()))
}

#[test]
fn a_test_that_is_killed_leaves_nothing() -> Result<()> {
    let dir = own_dir("killed");
    let mut keeper = start_keeper(&dir)?;
    // Closing the keeper's standard input is all that a killed test does.
    drop(keeper.stdin.take());
    let id = ProcessId::of(keeper.id().cast_signed());
    ensure!(id.is_none_or(|id| id.wait_gone(Duration::from_secs(20))), "the keeper does not end");
    keeper.wait()?;
    ensure!(!dir.exists(), "{dir} is still there");
    Ok(())
}

#[test]
fn a_keeper_that_is_killed_is_made_up_for_by_lab_clean() -> Result<()> {
    let dir = own_dir("abandoned");
    let mut keeper = start_keeper(&dir)?;
    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("lab.json"))?)?;
    let holders: Vec<ProcessId> = record["machines"]
        .as_array()
        .context("no machines in the record")?
        .iter()
        .map(|machine| Ok(serde_json::from_value(machine["holder"].clone())?))
        .collect::<Result<_>>()?;
    ensure!(holders.len() == 3 && holders.iter().all(|holder| holder.is_alive()), "{holders:?}");
    keeper.kill()?;
    keeper.wait()?;
    let cleaned = Command::new(env!("CARGO_BIN_EXE_lab")).arg("clean").output()?;
    ensure!(cleaned.status.success(), "{}", String::from_utf8_lossy(&cleaned.stderr));
    ensure!(holders.iter().all(|holder| !holder.is_alive()), "machines are still held: {holders:?}");
    ensure!(!dir.exists(), "{dir} is still there");
    Ok(())
}
