//! The smallest changes with which an instance would be placed. Each was tried by placing it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::choose;
use super::explain::NearestMiss;
use super::filters::{Rejection, rejections};
use super::fleet::{Fleet, Size, TypeOption};
use super::groups::{Occupied, Strength};
use super::request::Request;

/// A change with which a host would take the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Remedy {
    #[serde(flatten)]
    pub kind: RemedyKind,
    /// In words.
    #[schema(example = "with 2 GiB less memory")]
    pub text: String,
}

/// What to change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum RemedyKind {
    /// Fewer vCPUs, nothing else.
    FewerVcpus { vcpus: i32 },
    /// Less memory, nothing else.
    LessMemory { memory_mib: i32 },
    /// Less disk, nothing else.
    LessDisk { disk_gib: i32 },
    /// Less of several.
    Smaller { size: Size },
    /// Another instance type.
    InstanceType { name: String },
    /// No placement group.
    WithoutGroup { name: String },
    /// `on_host_failure` is `wait`.
    WaitForHost,
}

/// Those that there are, the smallest first.
pub(super) fn find(fleet: &Fleet, request: &Request, nearest: Option<&NearestMiss>) -> Vec<Remedy> {
    let mut kinds: Vec<_> = less_of_one(fleet, request).collect();
    if kinds.is_empty() {
        kinds.extend(smaller(request, nearest));
    }
    kinds.extend(another_type(fleet, request));
    kinds.extend(without_group(request));
    kinds.extend(request.needs_guard.then_some(RemedyKind::WaitForHost));
    kinds.retain(|kind| choose(fleet, &changed(fleet, request, kind)).is_some());
    kinds.into_iter().map(|kind| Remedy { text: text(&kind, request), kind }).collect()
}

/// The request with this change.
pub(super) fn changed(fleet: &Fleet, request: &Request, kind: &RemedyKind) -> Request {
    let mut changed = request.clone();
    match kind {
        RemedyKind::FewerVcpus { vcpus } => changed.size.vcpus = *vcpus,
        RemedyKind::LessMemory { memory_mib } => changed.size.memory_mib = *memory_mib,
        RemedyKind::LessDisk { disk_gib } => changed.size.disk_gib = *disk_gib,
        RemedyKind::Smaller { size } => changed.size = *size,
        RemedyKind::WithoutGroup { .. } => changed.group = None,
        RemedyKind::WaitForHost => changed.needs_guard = false,
        RemedyKind::InstanceType { name } => {
            if let Some(option) = fleet.types.iter().find(|option| option.name == *name) {
                changed = of_type(request, option);
            }
        }
    }
    changed
}

fn of_type(request: &Request, option: &TypeOption) -> Request {
    let size = Size { vcpus: option.vcpus, memory_mib: option.memory_mib, ..request.size };
    Request { size, needs: option.needs.clone(), type_name: option.name.clone(), ..request.clone() }
}

/// For each resource: as much as a host has that lacks nothing else.
fn less_of_one<'a>(fleet: &'a Fleet, request: &'a Request) -> impl Iterator<Item = RemedyKind> + 'a {
    let occupied = Occupied::of(fleet, request);
    let most = move |filter: Rejection, free: fn(Size) -> i32| {
        let only = |rejection: &mut dyn Iterator<Item = Rejection>| {
            rejection.next() == Some(filter) && rejection.next().is_none()
        };
        let short = fleet.hosts().iter().filter(|host| only(&mut rejections(host, request, &occupied)));
        let enough = free(request.least).max(1);
        short.map(|host| free(host.free)).max().filter(|most| *most >= enough)
    };
    let memory = most(Rejection::Memory, |size| size.memory_mib);
    let vcpus = most(Rejection::Vcpus, |size| size.vcpus);
    let disk = most(Rejection::Disk, |size| size.disk_gib);
    [
        memory.map(|memory_mib| RemedyKind::LessMemory { memory_mib }),
        vcpus.map(|vcpus| RemedyKind::FewerVcpus { vcpus }),
        disk.map(|disk_gib| RemedyKind::LessDisk { disk_gib }),
    ]
    .into_iter()
    .flatten()
}

fn smaller(request: &Request, nearest: Option<&NearestMiss>) -> Option<RemedyKind> {
    let size = nearest?.would_fit;
    let one = Size { vcpus: 1, memory_mib: 1, disk_gib: 0 };
    (size.holds(request.least) && size.holds(one)).then_some(RemedyKind::Smaller { size })
}

/// The largest type that is smaller in some way and larger in none.
fn another_type(fleet: &Fleet, request: &Request) -> Option<RemedyKind> {
    let fits = |option: &&TypeOption| {
        option.architecture == request.architecture
            && option.name != request.type_name
            && (request.least.vcpus..=request.size.vcpus).contains(&option.vcpus)
            && (request.least.memory_mib..=request.size.memory_mib).contains(&option.memory_mib)
            && (request.root_disk_gib == 0
                || (least_root(request)..=request.root_disk_gib).contains(&option.root_disk_gib))
            && choose(fleet, &of_type(request, option)).is_some()
    };
    let size =
        |option: &&TypeOption| (option.memory_mib, option.vcpus, std::cmp::Reverse(option.name.clone()));
    let best = fleet.types.iter().filter(fits).max_by_key(size)?;
    Some(RemedyKind::InstanceType { name: best.name.clone() })
}

/// The least that its image takes.
const fn least_root(request: &Request) -> i32 {
    request.root_disk_gib - (request.size.disk_gib - request.least.disk_gib)
}

fn without_group(request: &Request) -> Option<RemedyKind> {
    let group = request.group.as_ref().filter(|group| group.rule.strength == Strength::Hard)?;
    Some(RemedyKind::WithoutGroup { name: group.name.clone() })
}

fn text(kind: &RemedyKind, request: &Request) -> String {
    let asked = request.size;
    match kind {
        RemedyKind::FewerVcpus { vcpus } => match asked.vcpus - vcpus {
            1 => "with 1 vCPU less".to_owned(),
            fewer => format!("with {fewer} vCPUs less"),
        },
        RemedyKind::LessMemory { memory_mib } => {
            format!("with {} less memory", mebibytes(asked.memory_mib - memory_mib))
        }
        RemedyKind::LessDisk { disk_gib } => format!("with {} GiB less disk", asked.disk_gib - disk_gib),
        RemedyKind::Smaller { size: Size { vcpus, memory_mib, disk_gib } } => {
            let noun = if *vcpus == 1 { "vCPU" } else { "vCPUs" };
            format!("with {vcpus} {noun}, {} of memory and {disk_gib} GiB of disk", mebibytes(*memory_mib))
        }
        RemedyKind::InstanceType { name } => format!("as type {name}"),
        RemedyKind::WithoutGroup { name } => format!("without group {name}"),
        RemedyKind::WaitForHost => "with on_host_failure set to wait".to_owned(),
    }
}

fn mebibytes(mib: i32) -> String {
    if mib >= 1024 && mib % 1024 == 0 { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}
