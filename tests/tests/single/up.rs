//! `make up`, `make up` again, `make down` and back, on a machine of the lab that has never seen Cumulo.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Machine, Machines, ProcessId};

const STATE: &str = "/var/lib/cumulo";

/// Runs `lab <verb>` as the Makefile does; returns what it printed.
fn lab(machine: &Machine, verb: &str) -> Result<String> {
    let output = machine
        .command(env!("CARGO_BIN_EXE_lab"))
        .arg(verb)
        .env("CUMULO_STATE_DIR", STATE)
        // A daemon that kept our pipe open would hold this test for ever.
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .output()?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "lab {verb}: {}\n{said}", output.status);
    Ok(said)
}

/// What runs on the machine, by name.
fn daemons(machine: &Machine) -> HashMap<String, ProcessId> {
    let name = |id: &ProcessId| std::fs::read_to_string(format!("/proc/{}/comm", id.pid)).unwrap_or_default();
    let wanted = ["cumulo-api", "cumulo-agent", "libvirtd", "virtlogd", "qemu-system-x86"];
    let running = machine.members().into_iter().map(|id| (name(&id).trim().to_owned(), id));
    running.filter(|(name, _)| wanted.iter().any(|wanted| name == wanted)).collect()
}

/// The lines of `lab env`, as a shell would take them.
fn environment(machine: &Machine) -> Result<HashMap<String, String>> {
    let lines = lab(machine, "env")?;
    let parse = |line: &str| {
        let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
        Some((name.to_owned(), value.trim_matches('\'').to_owned()))
    };
    lines.lines().map(|line| parse(line).with_context(|| format!("not an export: {line}"))).collect()
}

/// Signs in from the machine and asks about `hello`.
fn hello(machine: &Machine, what: &str, more: &[&str]) -> Result<String> {
    let env = environment(machine)?;
    let url = &env["CUMULO_URL"];
    let body = serde_json::json!({"username": env["CUMULO_USERNAME"], "password": env["CUMULO_PASSWORD"]});
    let login =
        machine.output("curl", &["-sS", "--json", &body.to_string(), &format!("{url}/v1/auth/login")])?;
    let login: serde_json::Value = serde_json::from_str(&login).context("the login answers no JSON")?;
    let token = login["access_token"].as_str().context("no access token")?;
    let path = format!("{url}/v1/projects/{}/instances/hello{what}", env["CUMULO_PROJECT"]);
    let authorization = format!("authorization: Bearer {token}");
    machine.output("curl", &[&["-sS", "-H", &authorization, &path], more].concat())
}

fn console(machine: &Machine) -> Result<String> {
    hello(machine, "/serial", &[])
}

/// After the end of the networks: a guest whose card is left might still run, and passes nothing.
fn rules_stay_as_long_as_cards(machine: &Machine) -> Result<()> {
    let agent = env!("CARGO_BIN_EXE_lab").replace("/lab", "/cumulo-agent");
    let state = format!("{STATE}/agent");
    let remove = || machine.output(&agent, &["remove-networks", "--state-dir", &state]);
    let tables = || machine.output("nft", &["list", "tables"]);
    ensure!(!tables()?.contains("cumulo"), "packet rules are left: {}", tables()?);
    machine.run("nft", &["add", "table", "bridge", "cumulo"])?;
    machine.run("ip", &["link", "add", "ct0123456789ab", "type", "veth", "peer", "name", "other"])?;
    let said = remove()?;
    ensure!(said.contains("are left (1)") && tables()?.contains("bridge cumulo"), "{said}{}", tables()?);
    machine.run("ip", &["link", "del", "ct0123456789ab"])?;
    let said = remove()?;
    ensure!(said.is_empty() && !tables()?.contains("cumulo"), "{said}{}", tables()?);
    Ok(())
}

#[test]
fn up_is_quick_the_second_time_and_down_keeps_the_data() -> Result<()> {
    let machines = Machines::start(1)?;
    let machine = machines.host(1)?;

    let said = lab(&machine, "up")?;
    ensure!(said.contains("http://127.0.0.1:8080") && said.contains("eval \"$(make -s env)\""), "{said}");
    ensure!(console(&machine)?.contains("cumulo-test: ready"), "the guest is not ready");
    let first = daemons(&machine);
    ensure!(first.len() == 5, "running: {first:?}");

    let started = Instant::now();
    lab(&machine, "up")?;
    ensure!(started.elapsed() < Duration::from_secs(15), "the second time took {:?}", started.elapsed());
    ensure!(daemons(&machine) == first, "something was restarted: {first:?}, now {:?}", daemons(&machine));

    lab(&machine, "down")?;
    ensure!(machine.members().is_empty(), "still running: {:?}", machine.members());
    ensure!(lab(&machine, "env").is_err(), "env knows a cloud that does not run");
    rules_stay_as_long_as_cards(&machine)?;

    lab(&machine, "up")?;
    let console = console(&machine)?;
    ensure!(console.contains("cumulo-test: boot=2"), "hello did not keep its disk:\n{console}");

    // Whoever stops it means it, whether or not it has come to that.
    hello(&machine, "/stop", &["--json", r#"{"force": true}"#])?;
    for _ in 0..2 {
        let said = lab(&machine, "up")?;
        ensure!(said.contains("is stop") && said.contains("and is left alone"), "{said}");
    }
    machines.finish()
}

/// Once the machine knows the way to `hello`, its group still lets nobody in.
const CLOSED: &str = r#"
for _ in $(seq 50); do ip route | grep -q "^$IP " && break; sleep 0.2; done
ip route | grep "^$IP " >&2
if curl -s --connect-timeout 2 "http://$IP/"; then exit 9; fi
"#;

/// The commands that `up` proposes, run as they stand there; returns what they said.
fn try_next(machine: &Machine, welcome: &str) -> Result<String> {
    let (_, proposed) = welcome.split_once("Try next:").context("nothing is proposed")?;
    let commands = proposed.lines().filter_map(|line| line.strip_prefix("  "));
    // The first line asks the Makefile for what is here asked for already.
    let commands = commands.filter(|line| !line.starts_with("eval "));
    let checked = commands.map(|line| {
        let opens = line.contains("/rules\"");
        if opens { format!("{CLOSED}{line}") } else { line.to_owned() }
    });
    let commands: Vec<_> = checked.collect();
    ensure!(commands.iter().any(|command| command.starts_with(CLOSED)), "no rule is proposed:\n{welcome}");
    let script = format!("set -eux\n{}\n{}", lab(machine, "env")?, commands.join("\n"));
    machine.output("bash", &["-c", &script])
}

#[test]
fn hello_answers_at_a_floating_ip() -> Result<()> {
    let machines = Machines::start(1)?;
    let machine = machines.host(1)?;
    let welcome = lab(&machine, "up")?;
    let unreachable = machine.run("curl", &["-s", "--connect-timeout", "2", "http://203.0.113.1/"]);
    ensure!(unreachable.is_err(), "something answers already");

    let said = try_next(&machine, &welcome)?;
    ensure!(said.ends_with("This is hello.\n"), "{said}");

    lab(&machine, "down")?;
    ensure!(machine.members().is_empty(), "still running: {:?}", machine.members());
    lab(&machine, "up")?;
    let again =
        machine.output("curl", &["-s", "--retry", "9", "--retry-all-errors", "http://203.0.113.1/"])?;
    ensure!(again == "This is hello.\n", "after a night: {again}");
    machines.finish()
}

#[test]
fn up_names_the_owner_of_a_port_that_is_taken() -> Result<()> {
    let machines = Machines::start(1)?;
    let machine = machines.host(1)?;
    let mut squatter = machine.command("python3");
    squatter.args(["-m", "http.server", "--bind", "127.0.0.1", "8080"]);
    let squatter = squatter.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let refused = loop {
        let refused = lab(&machine, "up").err().context("up took a port that is taken")?;
        // python3 may need a moment before it listens.
        if format!("{refused}").contains("is taken") {
            break format!("{refused}");
        }
    };
    ensure!(refused.contains(&format!("(pid {})", squatter.id())), "{refused}");
    ensure!(refused.contains("CUMULO_LISTEN="), "{refused}");
    machines.finish()
}

#[test]
fn what_nobody_reads_any_more_stops_nothing() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let mut status = std::process::Command::new(env!("CARGO_BIN_EXE_lab"));
    status.arg("status").env("CUMULO_STATE_DIR", "/nowhere").stdout(writer).stderr(Stdio::piped());
    let output = status.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}
