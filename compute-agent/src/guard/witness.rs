//! What this host sees of the leases of others. A thread per pool: one that hangs has nothing to say, and holds up nobody.

use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::agent::{LEASE_WRITE_SECONDS, MAX_SEEN_LEASES, SeenLease};
use protocol::{HostId, Name};

use super::clock::Moment;
use super::lease::{FOLDER, MAX_FILES, Place, Readings};
use super::machine::{SharedMachine, ThisMachine};

const EVERY: Duration = Duration::from_secs(LEASE_WRITE_SECONDS as u64);
/// What was not read again for so long is not told.
const FRESH: Duration = Duration::from_secs(10);

/// A lease as it was read several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sight {
    counter: u64,
    /// When the reading had ended that first found this counter.
    first: Moment,
    /// When the reading had begun that last did. INVARIANT: in between the lease was not written, however long nobody
    /// looked: counters do not come back.
    last: Moment,
}

type Sights = BTreeMap<(Name, HostId), Sight>;

/// See the module. Its threads end with it.
pub struct Witness {
    sights: Arc<Mutex<Sights>>,
    machine: SharedMachine,
}

impl Witness {
    /// Looks into these pools from now on.
    pub fn start(host: HostId, pools: impl IntoIterator<Item = (Name, Utf8PathBuf)>) -> Self {
        Self::start_on(Arc::new(ThisMachine), host, pools)
    }

    pub(crate) fn start_on(
        machine: SharedMachine,
        host: HostId,
        pools: impl IntoIterator<Item = (Name, Utf8PathBuf)>,
    ) -> Self {
        let witness = Self { sights: Arc::default(), machine };
        for (name, root) in pools {
            let (sights, machine) = (Arc::downgrade(&witness.sights), Arc::clone(&witness.machine));
            let place = Place { name, root };
            let watch = move || watch(&place, host, &sights, &machine);
            if let Err(error) = thread::Builder::new().name("witness".to_owned()).spawn(watch) {
                tracing::error!(%error, "no thread that looks at the leases of a pool");
            }
        }
        witness
    }

    /// What was seen lately.
    pub fn told(&self) -> Vec<SeenLease> {
        told(&self.sights.lock().unwrap_or_else(PoisonError::into_inner), self.machine.now())
    }
}

fn watch(place: &Place, own: HostId, sights: &Weak<Mutex<Sights>>, machine: &SharedMachine) {
    let mut before = None;
    loop {
        let begun = machine.now();
        let read = machine.reach(&place.name).and_then(|()| place.read_all(MAX_FILES));
        let ended = machine.now();
        let Some(sights) = sights.upgrade() else { return };
        let fault = match read {
            Ok(readings) => {
                let mut sights = sights.lock().unwrap_or_else(PoisonError::into_inner);
                see(&mut sights, place, own, &readings, begun, ended);
                fault(&readings)
            }
            Err(error) => Some(error.to_string()),
        };
        drop(sights);
        say_once(place, &mut before, fault);
        thread::sleep(EVERY.saturating_sub(machine.now().since(begun)).max(Duration::from_secs(1)));
    }
}

fn say_once(place: &Place, before: &mut Option<String>, fault: Option<String>) {
    match &fault {
        Some(error) if *before != fault => {
            tracing::warn!(pool = %place.name, error, "leases of other hosts cannot be read");
        }
        _ => {}
    }
    *before = fault;
}

/// What is not known although the pool could be read.
fn fault(readings: &Readings) -> Option<String> {
    let Some((host, error)) = readings.unreadable.first() else {
        return readings.is_cut.then(|| {
            format!(
                "there are more than {MAX_FILES}: remove the files of hosts that are no more from `{FOLDER}`"
            )
        });
    };
    let others = readings.unreadable.len() - 1;
    Some(format!("that of host {host}, and {others} more: {error}"))
}

/// Takes in what one reading of a pool has found. Of a lease that could not be read is known what was known before: it is
/// told no more after a while.
fn see(sights: &mut Sights, place: &Place, own: HostId, readings: &Readings, begun: Moment, ended: Moment) {
    let pool = &place.name;
    let mut gone: BTreeSet<_> = sights.keys().filter(|(of, _)| of == pool).map(|(_, host)| *host).collect();
    for (host, _) in &readings.unreadable {
        gone.remove(host);
    }
    for record in readings.records.iter().filter(|record| record.host != own) {
        gone.remove(&record.host);
        let new = Sight { counter: record.counter, first: ended, last: ended };
        match sights.entry((pool.clone(), record.host)) {
            Slot::Occupied(mut known) if known.get().counter == record.counter => {
                let last = known.get().last.max(begun);
                known.get_mut().last = last;
            }
            Slot::Occupied(mut known) => _ = known.insert(new),
            Slot::Vacant(free) => _ = free.insert(new),
        }
    }
    for host in gone {
        sights.remove(&(pool.clone(), host));
    }
}

/// The latest changes come first, should there be too many.
fn told(sights: &Sights, now: Moment) -> Vec<SeenLease> {
    let fresh = sights.iter().filter(|(_, sight)| now.since(sight.last) <= FRESH);
    let mut told: Vec<_> = fresh
        .map(|((pool, host), sight)| SeenLease {
            pool: pool.clone(),
            host: *host,
            counter: sight.counter,
            unchanged_seconds: u32::try_from(sight.last.since(sight.first).as_secs()).unwrap_or(u32::MAX),
        })
        .collect();
    told.sort_by_key(|lease| lease.unchanged_seconds);
    told.truncate(MAX_SEEN_LEASES);
    told
}

#[cfg(test)]
mod tests {
    use std::fs;

    use storage::Pool;
    use uuid::Uuid;

    use super::super::lease::Record;
    use super::super::sealed;
    use super::*;

    fn host(number: u128) -> HostId {
        HostId::from_uuid(Uuid::from_u128(number))
    }

    fn record(number: u128, counter: u64) -> Record {
        Record { host: host(number), pool: Uuid::nil(), counter }
    }

    #[test]
    fn a_lease_is_unchanged_for_as_long_as_it_was_read_and_not_longer() {
        let mut sights = Sights::new();
        let place = Place { name: "fast".parse().unwrap(), root: "/nonexistent".into() };
        let mut read = |records: &[(u128, u64)], begun, ended, told_at| {
            let records = records.iter().map(|(host, counter)| record(*host, *counter)).collect();
            let readings = Readings { records, ..Readings::default() };
            see(&mut sights, &place, host(9), &readings, Moment(begun), Moment(ended));
            let told = told(&sights, Moment(told_at)).into_iter();
            told.map(|lease| (lease.counter, lease.unchanged_seconds)).collect::<Vec<_>>()
        };
        assert_eq!(read(&[(1, 7)], 0, 1_000, 1_000), [(7, 0)]);
        assert_eq!(read(&[(1, 7)], 6_000, 9_000, 9_000), [(7, 5)]);
        // Nobody looks for long: nothing is said, and then that it was the same all the time.
        assert_eq!(read(&[(1, 7)], 6_000, 9_000, 17_000), []);
        assert_eq!(read(&[(1, 7)], 81_000, 82_000, 82_000), [(7, 80)]);
        assert_eq!(read(&[(1, 8)], 86_000, 87_000, 88_000), [(8, 0)]);
        // One that goes back is another one, too.
        assert_eq!(read(&[(1, 7), (2, 1)], 91_000, 92_000, 92_000), [(7, 0), (1, 0)]);
        assert_eq!(read(&[(2, 1)], 96_000, 97_000, 97_000), [(1, 4)]);
        assert_eq!(read(&[(9, 1)], 98_000, 99_000, 99_000), [], "its own");
    }

    /// A pool with many leases of hosts that are no more, and some of hosts that live.
    struct Leases {
        _dir: tempfile::TempDir,
        place: Place,
        pool: Uuid,
    }

    impl Leases {
        fn new() -> Self {
            let dir = tempfile::tempdir_in("/var/tmp").unwrap();
            let root = Utf8PathBuf::from_path_buf(dir.path().canonicalize().unwrap()).unwrap();
            let name = "fast".parse().unwrap();
            let pool = Pool::make_shared(&name, &root).unwrap();
            fs::create_dir(root.join(FOLDER)).unwrap();
            Self { _dir: dir, place: Place { name, root }, pool }
        }

        /// Without waiting for the disk each time.
        fn write(&self, number: u128, counter: u64) {
            let record = Record { pool: self.pool, ..record(number, counter) };
            fs::write(self.path(number), sealed::seal(&record, 4096).unwrap()).unwrap();
        }

        fn path(&self, number: u128) -> Utf8PathBuf {
            self.place.root.join(FOLDER).join(host(number).to_string())
        }

        fn see(&self, sights: &mut Sights, at: u64) -> Option<String> {
            let readings = self.place.read_all(MAX_FILES).unwrap();
            see(sights, &self.place, host(u128::MAX), &readings, Moment(at), Moment(at));
            fault(&readings)
        }
    }

    #[test]
    fn leases_of_hosts_that_are_no_more_crowd_out_none_that_lives() {
        let (leases, mut sights) = (Leases::new(), Sights::new());
        (0..1_200).for_each(|host| leases.write(host, 1));
        assert_eq!(leases.see(&mut sights, 0), None);
        (0..1_200).step_by(6).for_each(|host| leases.write(host, 2));
        assert_eq!(leases.see(&mut sights, 5_000), None);
        let told = told(&sights, Moment(6_000));
        assert_eq!(told.len(), MAX_SEEN_LEASES);
        let living = told.iter().filter(|lease| lease.counter == 2 && lease.unchanged_seconds == 0);
        assert_eq!(living.count(), 200);
    }

    #[test]
    fn a_lease_that_cannot_be_read_silences_no_other() {
        let (leases, mut sights) = (Leases::new(), Sights::new());
        (1..=3).for_each(|host| leases.write(host, 1));
        assert_eq!(leases.see(&mut sights, 0), None);
        let of = |sights: &Sights, at| -> Vec<_> {
            told(sights, Moment(at)).iter().map(|lease| (lease.host, lease.unchanged_seconds)).collect()
        };
        let away = leases.path(2).with_extension("away");
        fs::rename(leases.path(2), &away).unwrap();
        std::os::unix::fs::symlink(&away, leases.path(2)).unwrap();
        let fault = leases.see(&mut sights, 20_000).unwrap();
        assert!(fault.contains(&host(2).to_string()), "{fault}");
        assert_eq!(of(&sights, 20_000), [(host(1), 20), (host(3), 20)]);
        // It was the same all the time.
        fs::rename(&away, leases.path(2)).unwrap();
        assert_eq!(leases.see(&mut sights, 30_000), None);
        assert_eq!(of(&sights, 30_000), [(host(1), 30), (host(2), 30), (host(3), 30)]);
    }
}
