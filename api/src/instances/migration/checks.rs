//! Whether a guest can go, and where to.

use protocol::agent::{
    CpuModel, DISK_MOVES, GUARDED_MIGRATION, GuestHardware, Inventory, LIVE_DISKS, LIVE_MIGRATION,
    ObservedState, OnHostFailure, Power,
};
use protocol::{HostId, InstanceId};
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::model::InstanceState;
use super::super::store::migrations::{self, HostFacts, InTheWay};
use super::super::store::{Row, disk_moves, placement};
use super::hosts::{Hosts, Read};
use crate::http::{ApiError, ErrorCode, FieldError, Selector};
use crate::scheduler::{Fleet, Occupied, Placement, Rejection, Request, detail, place, rejections};
use crate::volumes::store::attachments;

/// After so long it is worth trying again what passes by itself.
const SECONDS: u32 = 10;

pub(super) fn refused<T>(why: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, ApiError> {
    Err(ApiError::because(ErrorCode::WrongState, why))
}

/// The same of what passes by itself.
pub(super) fn not_now<T>(why: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, ApiError> {
    Err(ApiError::because(ErrorCode::WrongState, why).retry_after(SECONDS))
}

pub(super) fn no_room() -> ApiError {
    ApiError::because(ErrorCode::InsufficientCapacity, "the host has no room for it any more; try again")
}

/// What stands in the way of an instance, which is locked; gives the host that it runs on.
pub(in crate::instances) async fn refuse_now(
    conn: &mut PgConnection,
    row: &Row,
) -> Result<(HostId, GuestHardware), ApiError> {
    attachments::lock_all_shared(conn, row.id).await?;
    in_the_way(conn, row).await
}

/// What is in the way of an instance with which nothing is under way that neither kind of migration goes beside.
///
/// # Errors
/// With what is.
pub(super) async fn settled(conn: &mut PgConnection, id: Uuid) -> Result<InTheWay, ApiError> {
    if migrations::of_instance(conn, id).await?.is_some() {
        return not_now(
            "it is on its way to another host already; wait until that is over, or cancel the operation",
        );
    }
    if let Some(name) = attachments::merging(conn, id).await? {
        return not_now(format!(
            "its host is still merging layers of its volume {name}; try again when it is done"
        ));
    }
    let way = migrations::in_the_way(conn, id).await?;
    if way.restored {
        return not_now(
            "its host has told nothing of it since the cloud's database was restored; try again when it has",
        );
    }
    Ok(way)
}

/// The same; nothing has to be locked.
async fn in_the_way(conn: &mut PgConnection, row: &Row) -> Result<(HostId, GuestHardware), ApiError> {
    let Some(host) = row.host_id.map(HostId::from) else { return refused("it is on no host") };
    let state = super::super::verbs::state_of(row);
    let runs = row.observed().is_some_and(|seen| {
        seen.state == ObservedState::Running && seen.boot == row.boot && seen.paused.is_none()
    });
    if row.intent().power != Power::Running || state != InstanceState::Running || !runs {
        let why = "its guest does not run; one that is stopped is moved with `move`, one that stands still has to go on first";
        // It may be coming up.
        return if row.intent().power == Power::Running { not_now(why) } else { refused(why) };
    }
    let way = settled(conn, row.id).await?;
    if way.snapshot {
        return not_now("a snapshot of it is being taken; try again when it is there");
    }
    if way.devices_change {
        return not_now(
            "a volume or a network card of it comes, goes or changes just now; try again when that is done",
        );
    }
    if way.hard_group {
        return refused("the hard rule of its placement group could be broken while it is on two hosts");
    }
    if way.host_dead {
        return refused("its host was declared dead; move it instead");
    }
    if let Some(what) = disk_moves::bound_by(conn, row.id).await? {
        return refused(format!("its disks do not go to another host because of {what}"));
    }
    Ok((host, way.hardware.0))
}

/// The host that would take a guest as it runs, as far as can be told without a lock.
pub(in crate::instances) async fn destination(
    conn: &mut PgConnection,
    row: &Row,
    hosts: &Hosts,
) -> Result<HostId, ApiError> {
    let (source, hardware) = in_the_way(conn, row).await?;
    choose(conn, row, (source, &hardware), None, hosts).await
}

/// The destination: the host that is named, if it takes it, or the best one.
pub(in crate::instances) async fn choose(
    conn: &mut PgConnection,
    row: &Row,
    (source, hardware): (HostId, &GuestHardware),
    named: Option<&str>,
    hosts: &Hosts,
) -> Result<HostId, ApiError> {
    let hosts = hosts.read(conn).await?;
    let from = hosts.facts(source).and_then(|host| host.inventory.as_ref());
    let Some(from) = from else { return refused("its host has told nothing of itself yet") };
    let with_disks = disk_moves::gib(conn, row.id).await? > 0;
    if let Some(why) = unfit(from, with_disks) {
        return refused(format!("its own host cannot send it: {why}"));
    }
    let guarded = row.on_host_failure == OnHostFailure::Restart.as_str();
    let request = if with_disks {
        disk_moves::request(conn, row.id.into()).await?
    } else {
        placement::request(conn, InstanceId::from(row.id)).await?
    };
    let request = request.ok_or_else(ApiError::not_found)?;
    let why_not = |host: &HostFacts| {
        if host.id == source {
            return Some("it runs there");
        }
        host.inventory.as_ref().map_or(Some("it has told nothing of itself yet"), |to| {
            unfit(to, with_disks)
                .or_else(|| unguarded(to).filter(|_| guarded))
                .or_else(|| differs(from, to, &hardware.cpu_model))
        })
    };
    let none = if guarded {
        "no other host runs the same QEMU on a processor of the same kind, with an address for other hosts and an agent that takes \
         running guests that start elsewhere when their host fails"
    } else {
        "no other host runs the same QEMU on a processor of the same kind, with an address for other hosts and an agent that takes \
         running guests"
    };
    pick(hosts, &request, named, why_not, none)
}

/// The host that is named, if it takes it, or the best one, of those that `why_not` says nothing against.
pub(super) fn pick(
    hosts: &Read,
    request: &Request,
    named: Option<&str>,
    why_not: impl Fn(&HostFacts) -> Option<&'static str>,
    none: &'static str,
) -> Result<HostId, ApiError> {
    let fleet = &hosts.fleet;
    if let Some(named) = named {
        let selector = Selector::parse(named);
        let is_named = |host: &&HostFacts| {
            selector.as_ref().is_some_and(|selector| {
                selector.id() == Some(host.id.as_uuid()) || selector.name() == Some(host.name.as_str())
            })
        };
        let host = hosts.facts.iter().find(is_named).ok_or_else(|| {
            ApiError::invalid(vec![FieldError::new("/host", "not_found", "this cloud has no such host")])
        })?;
        let occupied = &Occupied::of(fleet, request);
        let filters = fleet.host(host.id).into_iter().flat_map(|one| {
            let why = move |reason| rejected(reason, detail(reason, one, request, occupied));
            rejections(one, request, occupied).map(why)
        });
        let misfit = why_not(host).map(|why| FieldError::new("/host", "unfit", why));
        let errors: Vec<_> = misfit.into_iter().chain(filters).collect();
        ApiError::reject(errors)?;
        return Ok(host.id);
    }
    let fit = |id: HostId| hosts.facts(id).is_some_and(|host| why_not(host).is_none());
    let candidates: Vec<_> = fleet.hosts().iter().filter(|one| fit(one.id)).cloned().collect();
    if candidates.is_empty() {
        return refused(none);
    }
    match place(&Fleet::new(candidates, fleet.weights, fleet.types.clone()), request) {
        Placement::Host(host) => Ok(host),
        Placement::Nowhere(explanation) => {
            let may_pass = explanation.rejections.iter().any(|one| one.reason.may_pass());
            let error = ApiError::no_room(explanation);
            Err(if may_pass { error.retry_after(SECONDS) } else { error })
        }
    }
}

/// A filter of placement that the named host fails, with the whole reason: who names a host knows hosts.
fn rejected(reason: Rejection, why: String) -> FieldError {
    let code = match reason {
        Rejection::PoolMissing => "pool_missing",
        Rejection::Leaving => "leaving",
        Rejection::NotReady => "not_ready",
        Rejection::NoGuard => "no_guard",
        Rejection::Cordoned => "cordoned",
        Rejection::Architecture => "architecture",
        Rejection::Features => "features",
        Rejection::HostLabels => "host_labels",
        Rejection::Tainted => "tainted",
        Rejection::Vcpus => "vcpus",
        Rejection::Memory => "memory",
        Rejection::Disk => "disk",
        Rejection::PoolLow => "pool_low",
        _ => "placement",
    };
    FieldError::new("/host", code, why)
}

/// Whether a host tells of that.
fn knows(host: &Inventory, wanted: &str) -> bool {
    host.features.iter().any(|feature| feature == wanted)
}

/// Why a host takes no running guest that starts elsewhere when its host fails.
fn unguarded(host: &Inventory) -> Option<&'static str> {
    (!knows(host, GUARDED_MIGRATION)).then_some(
        "its agent is of a release that takes no running guests that start elsewhere when their host fails, and has to be upgraded",
    )
}

/// Why a host takes part in no migration.
fn unfit(host: &Inventory, with_disks: bool) -> Option<&'static str> {
    if !knows(host, LIVE_MIGRATION) {
        Some(
            "its agent is of an earlier release, which does not know of migrations, and has to be upgraded; or it has no address for other hosts",
        )
    } else if with_disks && !(knows(host, DISK_MOVES) && knows(host, LIVE_DISKS)) {
        Some("its agent is of a release that sends and takes no running guests with disks on their host")
    } else if host.underlay_address.is_none() {
        Some("it has no address for other hosts; start its agent with --underlay-address")
    } else {
        None
    }
}

/// Why a guest that runs on one host would not go on running on the other.
fn differs(from: &Inventory, to: &Inventory, cpu: &CpuModel) -> Option<&'static str> {
    if from.hypervisor != to.hypervisor {
        Some("it runs another version of QEMU or libvirt")
    } else if from.acceleration != to.acceleration {
        Some("its guests run on hardware and the other's are emulated, or the other way round")
    } else if !matches!(cpu, CpuModel::Named(_)) && from.cpu_model != to.cpu_model {
        Some(
            "its processor is another one, and the guest has that of its host; a type with a named `cpu_model` goes between them",
        )
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use protocol::agent::{Acceleration, Architecture};
    use protocol::{MemoryMib, SizeGib};

    use super::*;

    fn host() -> Inventory {
        Inventory {
            cpus: 1,
            memory_mib: MemoryMib(1),
            disk_gib: SizeGib(1),
            cpu_model: "One".to_owned(),
            hypervisor: "QEMU 10".to_owned(),
            acceleration: Acceleration::Kvm,
            acceleration_detail: String::new(),
            architectures: vec![Architecture::X86_64],
            features: vec![LIVE_MIGRATION.to_owned()],
            cpu_models: Vec::new(),
            boot_id: uuid::Uuid::nil(),
            underlay_address: Some([192, 0, 2, 1].into()),
        }
    }

    #[test]
    fn a_guest_goes_where_its_machine_can_be_the_same() {
        let named = CpuModel::Named("EPYC".parse().unwrap());
        assert_eq!(differs(&host(), &host(), &CpuModel::HostPassthrough), None);
        let other_cpu = Inventory { cpu_model: "Other".to_owned(), ..host() };
        assert!(differs(&host(), &other_cpu, &CpuModel::HostPassthrough).is_some());
        assert!(differs(&host(), &other_cpu, &CpuModel::HostModel).is_some());
        assert_eq!(differs(&host(), &other_cpu, &named), None);
        let newer = Inventory { hypervisor: "QEMU 11".to_owned(), ..host() };
        assert!(differs(&host(), &newer, &named).is_some());
        let emulated = Inventory { acceleration: Acceleration::Tcg, ..host() };
        assert!(differs(&host(), &emulated, &named).is_some());
        assert!(unfit(&Inventory { features: Vec::new(), ..host() }, false).is_some());
        assert!(unfit(&Inventory { underlay_address: None, ..host() }, false).is_some());
        assert_eq!(unfit(&host(), false), None);
        assert!(unfit(&host(), true).is_some());
        let features = [LIVE_MIGRATION, DISK_MOVES, LIVE_DISKS].map(str::to_owned).to_vec();
        assert_eq!(unfit(&Inventory { features, ..host() }, true), None);
        assert!(unguarded(&host()).is_some());
        assert_eq!(unguarded(&Inventory { features: vec![GUARDED_MIGRATION.to_owned()], ..host() }), None);
    }
}
