//! What this host sees of the leases of others. A thread per pool: one that hangs has nothing to say, and holds up nobody.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Slot;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use camino::Utf8PathBuf;
use protocol::agent::{LEASE_WRITE_SECONDS, MAX_SEEN_LEASES, SeenLease};
use protocol::{HostId, Name};

use super::clock::Moment;
use super::lease::{Place, Record};
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
        let read = machine.reach(&place.name).and_then(|()| place.read_all(MAX_SEEN_LEASES));
        let ended = machine.now();
        let Some(sights) = sights.upgrade() else { return };
        let fault = match read {
            Ok(records) => {
                let mut sights = sights.lock().unwrap_or_else(PoisonError::into_inner);
                let others = records.into_iter().filter(|record| record.host != own);
                see(&mut sights, &place.name, others, begun, ended);
                None
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
            tracing::warn!(pool = %place.name, error, "the leases of other hosts cannot be read");
        }
        _ => {}
    }
    *before = fault;
}

/// Takes in what one reading of a pool has found.
fn see(
    sights: &mut Sights,
    pool: &Name,
    records: impl Iterator<Item = Record>,
    begun: Moment,
    ended: Moment,
) {
    let mut gone: Vec<_> = sights.keys().filter(|(of, _)| of == pool).map(|(_, host)| *host).collect();
    for record in records {
        gone.retain(|host| *host != record.host);
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
    use super::*;
    use uuid::Uuid;

    fn record(host: u128, counter: u64) -> Record {
        Record { host: HostId::from_uuid(Uuid::from_u128(host)), pool: Uuid::nil(), counter }
    }

    #[test]
    fn a_lease_is_unchanged_for_as_long_as_it_was_read_and_not_longer() {
        let (mut sights, pool) = (Sights::new(), "fast".parse().unwrap());
        let mut read = |records: &[(u128, u64)], begun, ended, told_at| {
            let records = records.iter().map(|(host, counter)| record(*host, *counter));
            see(&mut sights, &pool, records, Moment(begun), Moment(ended));
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
    }

    #[test]
    fn the_latest_changes_are_told_of_very_many_leases() {
        let (mut sights, pool) = (Sights::new(), "fast".parse().unwrap());
        let all = |counters: &dyn Fn(u128) -> u64| -> Vec<Record> {
            (0..1_200).map(|host| record(host, counters(host))).collect()
        };
        see(&mut sights, &pool, all(&|_| 1).into_iter(), Moment(0), Moment(0));
        let moved = |host| if host >= 1_000 { 2 } else { 1 };
        see(&mut sights, &pool, all(&moved).into_iter(), Moment(5_000), Moment(5_000));
        let told = told(&sights, Moment(6_000));
        assert_eq!(told.len(), MAX_SEEN_LEASES);
        assert_eq!(told.iter().filter(|lease| lease.counter == 2).count(), 200);
    }
}
