//! Kernel settings below `/proc/sys/net`.

use std::fs;
use std::io;
use std::path::Path;

use super::space::Mode;

const DIRECTORY: &str = "/proc/sys/net";

/// Paths below `/proc/sys/net` with their values, in the order in which they are written: what is said of `all`
/// overwrites what was said of one device.
pub(super) type Settings = Vec<(String, &'static str)>;

/// Writes those that differ, in the network namespace of the calling thread. Returns what was, or would be, done.
pub(super) fn apply(settings: &Settings, mode: Mode) -> io::Result<Vec<String>> {
    let mut changes = Vec::new();
    for (name, value) in settings {
        let path = Path::new(DIRECTORY).join(name);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match fs::read_to_string(&path) {
            Ok(found) if found.trim_end() == *value => (),
            Ok(_) => {
                if mode == Mode::Change {
                    fs::write(&path, value).map_err(failed)?;
                }
                changes.push(format!("set net/{name} to {value}"));
            }
            // A kernel without IPv6 has nothing to switch off.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6/") => (),
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(changes)
}

/// Neighbours that the kernel keeps for all namespaces together, fewest first: below the first number it forgets none,
/// above the second hardly any stays for longer than it is asked for, and above the last it takes no more.
const NEIGHBOURS: [(&str, u32); 3] = [("gc_thresh1", 8192), ("gc_thresh2", 65_536), ("gc_thresh3", 131_072)];

/// Makes room for the neighbours of all networks; what is larger already stays. Only the first namespace of a machine has
/// these settings.
pub(super) fn make_room_for_neighbours(mode: Mode) -> io::Result<Vec<String>> {
    raise(Path::new(DIRECTORY), mode)
}

/// What was raised, or would be, in words.
fn raise(directory: &Path, mode: Mode) -> io::Result<Vec<String>> {
    let mut changes = Vec::new();
    for family in ["ipv4", "ipv6"] {
        // The last first: none may be above the next one.
        for (name, least) in NEIGHBOURS.iter().rev() {
            let path = directory.join(family).join("neigh/default").join(name);
            let failed =
                |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            match fs::read_to_string(&path) {
                Ok(found) if found.trim_end().parse::<u32>().is_ok_and(|found| found >= *least) => (),
                Ok(_) => {
                    if mode == Mode::Change {
                        fs::write(&path, least.to_string()).map_err(failed)?;
                    }
                    changes.push(format!("raise {family} {name} to {least}"));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => (),
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(changes)
}

/// A port of a bridge: the host itself neither speaks nor listens there.
pub(super) fn port(device: &str) -> Settings {
    vec![(format!("ipv6/conf/{device}/disable_ipv6"), "1")]
}

/// A bridge that keeps neighbours but is no way into the host. IPv6 stays enabled: the kernel keeps no neighbours
/// of a device without it.
pub(super) fn bridge(device: &str) -> Settings {
    vec![
        (format!("ipv4/conf/{device}/forwarding"), "0"),
        (format!("ipv4/conf/{device}/rp_filter"), "1"),
        (format!("ipv4/conf/{device}/arp_ignore"), "8"),
        (format!("ipv6/conf/{device}/addr_gen_mode"), "1"),
        (format!("ipv6/conf/{device}/accept_ra"), "0"),
        (format!("ipv6/conf/{device}/forwarding"), "0"),
    ]
}

/// The host's end of a router's way out.
pub(super) fn uplink(device: &str) -> Settings {
    vec![
        (format!("ipv4/conf/{device}/forwarding"), "1"),
        (format!("ipv4/conf/{device}/rp_filter"), "1"),
        (format!("ipv4/conf/{device}/send_redirects"), "0"),
        (format!("ipv4/conf/{device}/accept_redirects"), "0"),
        (format!("ipv6/conf/{device}/disable_ipv6"), "1"),
    ]
}

/// A namespace that routes IPv6 and, if `ipv4`, IPv4. Its addresses are the same on every host, so nobody looks for
/// duplicates; ARP is answered only by the device that has the address, for several may stand in one network.
pub(super) fn namespace(ipv4: bool) -> Settings {
    let mut settings = vec![("ipv4/ip_forward".to_owned(), if ipv4 { "1" } else { "0" })];
    for scope in ["all", "default"] {
        for (name, value) in [
            ("rp_filter", "1"),
            ("arp_ignore", "1"),
            ("arp_announce", "2"),
            ("send_redirects", "0"),
            ("accept_redirects", "0"),
            ("accept_source_route", "0"),
        ] {
            settings.push((format!("ipv4/conf/{scope}/{name}"), value));
        }
        settings.push((format!("ipv6/conf/{scope}/forwarding"), "1"));
        settings.extend(inner(scope));
    }
    settings
}

/// A device in such a namespace.
pub(super) fn inner(device: &str) -> Settings {
    [("accept_ra", "0"), ("accept_dad", "0"), ("accept_redirects", "0")]
        .map(|(name, value)| (format!("ipv6/conf/{device}/{name}"), value))
        .into()
}

/// A device by which packets come in that a router is waiting for.
pub(super) fn external(device: &str) -> Settings {
    vec![(format!("ipv4/conf/{device}/forwarding"), "1")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_for_neighbours_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(raise(dir.path(), Mode::Change).unwrap(), Vec::<String>::new(), "not the first namespace");
        let settings = dir.path().join("ipv4/neigh/default");
        fs::create_dir_all(&settings).unwrap();
        for (name, found) in [("gc_thresh1", "128\n"), ("gc_thresh2", "512\n"), ("gc_thresh3", "1000000\n")] {
            fs::write(settings.join(name), found).unwrap();
        }
        assert_eq!(raise(dir.path(), Mode::Look).unwrap().len(), 2, "named, and not done");
        assert_eq!(raise(dir.path(), Mode::Change).unwrap().len(), 2);
        assert_eq!(raise(dir.path(), Mode::Change).unwrap(), Vec::<String>::new());
        let now = ["gc_thresh1", "gc_thresh2", "gc_thresh3"]
            .map(|name| fs::read_to_string(settings.join(name)).unwrap().trim_end().to_owned());
        assert_eq!(now, ["8192", "65536", "1000000"]);
    }
}
