//! Addresses that dnsmasq has promised to cards which do not have them any more. It keeps a promise for an hour, and gives
//! the address to nobody else meanwhile; a guest that was deleted never returns it. So those promises are taken out of its
//! file while it does not run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::{fs, io};

use super::render::{Files, LEASES, STATIONS};

/// The addresses in question, given what dnsmasq has read and what it is to read next.
pub(super) fn stale(folder: &Path, next: &Files) -> io::Result<Vec<IpAddr>> {
    let owners = Owners::of(folder, next)?;
    Ok(content(&folder.join(LEASES))?.lines().filter_map(|line| owners.stale(line)).collect())
}

/// Takes them out. INVARIANT: dnsmasq does not run, and the files of `next` are not written yet.
pub(super) fn forget(folder: &Path, next: &Files) -> io::Result<()> {
    let owners = Owners::of(folder, next)?;
    let file = folder.join(LEASES);
    let had = content(&file)?;
    let kept = had.lines().filter(|line| owners.stale(line).is_none());
    let kept = kept.fold(String::new(), |text, line| text + line + "\n");
    // In place: the file is dnsmasq's.
    if kept == had { Ok(()) } else { fs::write(file, kept) }
}

struct Owners {
    before: BTreeMap<IpAddr, String>,
    next: BTreeMap<IpAddr, String>,
}

impl Owners {
    fn of(folder: &Path, next: &Files) -> io::Result<Self> {
        Ok(Self { before: owners(&content(&folder.join(STATIONS))?), next: owners(&next.stations) })
    }

    /// A line is `expiry card address name id`; with IPv6, which knows no cards, it has a number instead.
    fn stale(&self, line: &str) -> Option<IpAddr> {
        let mut fields = line.split(' ').skip(1);
        let (card, address) = (fields.next()?, fields.next()?.parse().ok()?);
        let owner = self.next.get(&address);
        let is_right = match address {
            IpAddr::V4(_) => owner.is_some_and(|owner| owner == card),
            IpAddr::V6(_) => {
                owner.is_some() && self.before.get(&address).is_none_or(|before| Some(before) == owner)
            }
        };
        (!is_right).then_some(address)
    }
}

/// Which card has which address, by lines of `card,address,…`.
fn owners(stations: &str) -> BTreeMap<IpAddr, String> {
    let owner = |line: &str| {
        let mut fields = line.split(',');
        let (card, address) = (fields.next()?, fields.next()?);
        Some((address.trim_matches(['[', ']']).parse().ok()?, card.to_owned()))
    };
    stations.lines().filter_map(owner).collect()
}

/// Empty if there is no such file.
fn content(file: &Path) -> io::Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_holds_while_the_address_keeps_its_card() {
        let dir = tempfile::tempdir().unwrap();
        let leases = "1 02:00:00:00:00:01 10.7.0.10 a 01:02\n2 02:00:00:00:00:02 10.7.0.11 * *\n\
                      3 02:00:00:00:00:03 10.7.0.12 * *\nduid 00:01\n4 77 fd00::10 a 00:03\n5 78 fd00::11 * 00:04\n";
        fs::write(dir.path().join(LEASES), leases).unwrap();
        let before = "02:00:00:00:00:01,[fd00::10],a,3600\n02:00:00:00:00:02,[fd00::11],3600\n";
        fs::write(dir.path().join(STATIONS), before).unwrap();
        let stations = "02:00:00:00:00:01,10.7.0.10,a,3600\n02:00:00:00:00:04,10.7.0.11,b,3600\n\
                        02:00:00:00:00:01,[fd00::10],a,3600\n02:00:00:00:00:04,[fd00::11],3600\n";
        let next = Files { config: String::new(), names: String::new(), stations: stations.to_owned() };
        let expected =
            ["10.7.0.11", "10.7.0.12", "fd00::11"].map(|address| address.parse::<IpAddr>().unwrap());
        assert_eq!(stale(dir.path(), &next).unwrap(), expected);
        forget(dir.path(), &next).unwrap();
        let kept = "1 02:00:00:00:00:01 10.7.0.10 a 01:02\nduid 00:01\n4 77 fd00::10 a 00:03\n";
        assert_eq!(fs::read_to_string(dir.path().join(LEASES)).unwrap(), kept);
    }
}
