//! An nft that refuses, and one that hangs. What stands for it is mounted over the real one, for the test alone.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use networking::packets::{PacketsError, Surroundings};
use nix::mount::{MsFlags, mount};
use protocol::agent::*;

use crate::document::{self, V4, group, id, ingress, network, out, port};
use crate::world::{World, tcp};

const NFT: &str = "/usr/sbin/nft";
/// Logs what is asked of it, and refuses whatever has a line of `/run/refuse` in it.
const REFUSING: &str = "#!/bin/sh
echo \"$*\" >> /run/log
case \"$*\" in *'-f -'*) ;; *) exec /run/nft-real \"$@\" ;; esac
cat > /run/input
if grep -qf /run/refuse /run/input; then echo 'not with me' >&2; exit 1; fi
exec /run/nft-real \"$@\" < /run/input
";

fn mount_nft(script: &str) {
    if !fs::exists("/run/nft-real").unwrap() {
        fs::copy(NFT, "/run/nft-real").unwrap();
    }
    fs::write("/run/nft", script).unwrap();
    fs::set_permissions("/run/nft", fs::Permissions::from_mode(0o755)).unwrap();
    let none: Option<&str> = None;
    mount(Some("/run/nft"), NFT, none, MsFlags::MS_BIND, none).unwrap();
}

fn refuse(patterns: &[&str]) {
    fs::write("/run/refuse", patterns.iter().map(|pattern| format!("{pattern}\n")).collect::<String>())
        .unwrap();
}

fn runs() -> usize {
    fs::read_to_string("/run/log").unwrap().lines().filter(|line| line.contains("-f -")).count()
}

fn web(last: u16) -> SecurityGroup {
    group(1, [out(), vec![ingress(document::tcp(80, last), "0.0.0.0/0")]].concat())
}

/// Guests `a` and `b` in group 1.
fn world() -> (World, HostNetwork) {
    let world = World::new(Surroundings::default());
    refuse(&["nothing has this"]);
    mount_nft(REFUSING);
    let ports = vec![port(1, &["10.0.0.11"], &[1]), port(2, &["10.0.0.12"], &[1])];
    let want = HostNetwork {
        networks: vec![network(7, &[V4], ports)],
        security_groups: vec![web(80)],
        ..HostNetwork::default()
    };
    world.guard(&want);
    world.bridge(7);
    for (name, port) in ["a", "b"].into_iter().zip(&want.networks[0].ports) {
        world.guest(name, 7, port, &[]);
    }
    world.converge(&want);
    (world, want)
}

#[test]
fn what_nft_refuses_closes_its_own_ports_and_no_others() {
    let (world, mut want) = world();
    assert!(!tcp("a", "b", "10.0.0.12", 81));
    want.security_groups = vec![web(81), group(2, [out(), web(4242).rules].concat())];
    // One of a group that is refused, one that is refused itself, and two that are not.
    for (number, groups) in [(3, [2]), (4, [1]), (5, [1]), (6, [1])] {
        want.networks[0].ports.push(port(number, &[&format!("10.0.0.1{number}")], &groups));
    }
    for (name, port) in ["c", "d", "e"].into_iter().zip(&want.networks[0].ports[2..]) {
        world.guest(name, 7, port, &[]);
    }
    refuse(&["4242", "fa:16:3e:00:00:04"]);
    let outcome = world.try_converge(&want);
    let mut subjects: Vec<_> = outcome.faults.iter().map(|fault| fault.subject).collect();
    subjects.sort();
    let port = |number| NetworkSubject::Port(id(number));
    assert_eq!(subjects, [port(3), port(4), NetworkSubject::SecurityGroup(id(2))], "{:?}", outcome.faults);
    for fault in outcome.faults.iter().filter(|fault| fault.subject != port(3)) {
        assert!(fault.detail.contains("nft refuses its rules: not with me"), "{fault:?}");
    }
    assert!(tcp("a", "b", "10.0.0.12", 81), "what changed for others: {:?}", world.drops());
    assert!(tcp("e", "b", "10.0.0.12", 81) && tcp("b", "e", "10.0.0.15", 81));
    for (name, address) in [("c", "10.0.0.13"), ("d", "10.0.0.14")] {
        assert!(!tcp(name, "b", "10.0.0.12", 81));
        assert!(!tcp("b", name, address, 81));
    }
    // It is not asked again and again, until something changes.
    let before = runs();
    let again = world.try_converge(&want);
    assert_eq!((again.changed, again.faults, runs()), (false, outcome.faults, before));
    want.security_groups[1] = group(2, web(81).rules);
    let faults = world.try_converge(&want).faults;
    assert_eq!(faults.iter().map(|fault| fault.subject).collect::<Vec<_>>(), [port(4)]);
    assert!(tcp("b", "c", "10.0.0.13", 81), "{:?}", world.drops());
}

#[test]
fn rules_stay_as_they_were_when_nft_refuses_those_of_the_host_itself() {
    let (world, mut want) = world();
    want.peers = vec!["192.0.2.9".parse().unwrap()];
    refuse(&["192.0.2.9"]);
    let error = world.guard_error(&want);
    assert!(matches!(error, PacketsError::Refused { .. }), "{error}");
    assert!(tcp("a", "b", "10.0.0.12", 80), "{:?}", world.drops());
}

#[test]
fn an_nft_that_hangs_is_given_up() {
    let (world, want) = world();
    mount_nft("#!/bin/sh\nexec sleep 1000\n");
    // Time that nothing but it takes passes at once.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let error = runtime.block_on(world.packets.guard(&want)).unwrap_err();
    assert!(matches!(error, PacketsError::Hung { .. }), "{error}");
}
