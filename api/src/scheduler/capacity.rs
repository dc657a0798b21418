//! How much more fits, and what the loss of hosts would do.

use protocol::HostId;

use super::filters::fits;
use super::fleet::Fleet;
use super::groups::Occupied;
use super::request::Request;
use super::{choose, joined};

/// More looks at hosts than this take longer than a caller waits: about two seconds.
pub const MOST_LOOKS: usize = 50_000_000;
/// A copy of the snapshot costs as much as so many decisions.
const COPY: usize = 20;

/// How many instances of this kind, which belong to no group, find room besides those that are there.
pub fn room_for(fleet: &Fleet, request: &Request) -> usize {
    let occupied = Occupied::default();
    let of_one = |free: i32, asked: i32| if asked > 0 { free / asked } else { i32::MAX };
    let fitting = fleet.hosts().iter().filter(|host| fits(host, request, &occupied));
    let rooms = fitting.map(|host| {
        let (free, asked) = (host.free, request.size);
        of_one(free.vcpus, asked.vcpus)
            .min(of_one(free.memory_mib, asked.memory_mib))
            .min(of_one(free.disk_gib, asked.disk_gib))
    });
    rooms.map(|room| usize::try_from(room).unwrap_or_default()).sum()
}

/// An instance that is on a host.
#[derive(Debug, Clone)]
pub struct Placed {
    pub host: HostId,
    /// What it would ask of another host.
    pub request: Request,
}

/// What the loss of hosts would do to some of their instances.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survival {
    /// So many of the fullest hosts may be lost at once, and every instance of them finds another one.
    pub failures: usize,
    /// Hosts of which the loss of one alone leaves instances without room, and how many.
    pub critical: Vec<(HostId, usize)>,
}

/// Tries it. `None` when there is too much to try.
pub fn survival(fleet: &Fleet, placed: &[Placed]) -> Option<Survival> {
    let mut hosts: Vec<_> = fleet.hosts().iter().collect();
    hosts.sort_by_key(|host| (std::cmp::Reverse(host.total.memory_mib - host.free.memory_mib), host.id));
    let hosts: Vec<_> = hosts.into_iter().map(|host| host.id).collect();
    let mut left = MOST_LOOKS;
    let mut critical = Vec::new();
    for host in &hosts {
        match homeless(fleet, placed, std::slice::from_ref(host), &mut left)? {
            0 => {}
            count => critical.push((*host, count)),
        }
    }
    let mut failures = 0;
    while failures < hosts.len() && homeless(fleet, placed, &hosts[..=failures], &mut left)? == 0 {
        failures += 1;
    }
    Some(Survival { failures, critical })
}

/// How many instances find no room when these hosts are lost.
fn homeless(fleet: &Fleet, placed: &[Placed], lost: &[HostId], left: &mut usize) -> Option<usize> {
    let mut requests: Vec<_> = placed.iter().filter(|one| lost.contains(&one.host)).cloned().collect();
    *left = left.checked_sub((requests.len() + COPY) * fleet.hosts().len())?;
    let mut fleet = fleet.clone();
    for host in lost {
        fleet.distrust(*host);
    }
    // The largest first: what is small fits between.
    requests.sort_by_key(|one| std::cmp::Reverse((one.request.size.memory_mib, one.request.size.vcpus)));
    for one in &mut requests {
        if let Some(group) = &mut one.request.group {
            group.members.retain(|member| !lost.contains(member));
        }
    }
    let mut homeless = 0;
    for index in 0..requests.len() {
        let (_, rest) = requests.split_at_mut(index);
        let Some((one, later)) = rest.split_first_mut() else { break };
        match choose(&fleet, &one.request) {
            Some(host) => {
                fleet.take(host, one.request.size);
                joined(&one.request, host, later.iter_mut().map(|other| &mut other.request));
            }
            None => homeless += 1,
        }
    }
    Some(homeless)
}
