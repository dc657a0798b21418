//! Volumes as disks of instances: made or taken when an instance asks for one, given back when it lets go.
//!
//! [`prepare`] finds what is named before the instance is written, [`attach`] puts it in.

use protocol::{HostId, InstanceId, LayerId, Name, VolumeId};
use serde::Deserialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::store::attachments::{self, Taken};
use super::store::{self, NewAttachment, NewVolume};
pub(crate) use super::types::validate_size;
use crate::auth::{self, Action, Allowed, Fact, InProject, actions, keys};
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode, FieldError, Labels, Mutation};
use crate::pools::{self, store::Named};
use crate::snapshot_schedules;
use crate::snapshots::store::taking::Sealed;

/// The most disks of an instance, the one it boots from included.
pub(crate) const MAX_DISKS: usize = 16;

const MAX_NAME_CHARS: usize = 63;
/// Of an id, in the name of a volume that was given none.
const DIGITS: usize = 12;

/// A further disk: a volume that is there, or a new one.
#[derive(Debug, Default, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedVolume {
    /// Name or id of a volume that is attached to nothing.
    pub volume: Option<String>,
    /// A new, empty volume of this size.
    #[schema(minimum = 1, maximum = 16384)]
    pub size_gib: Option<i32>,
    /// The new volume's name; `volume-` and some digits unless given.
    pub name: Option<Name>,
    /// Name or id of the shared pool that the new volume is in; on the disk of the instance's host unless given.
    pub pool: Option<String>,
    /// Whether it goes when the instance does.
    #[serde(default)]
    pub delete_with_instance: bool,
}

impl WantedVolume {
    /// `pointer` is where the disk stands in the body.
    pub(crate) fn validate(&self, pointer: &str, errors: &mut Vec<FieldError>) {
        if self.volume.is_some() == self.size_gib.is_some() {
            errors.push(FieldError::new(pointer, "invalid", "either a volume or the size of a new one"));
        }
        if self.volume.is_some() && self.name.is_some() {
            let message = "a volume has its name already";
            errors.push(FieldError::new(format!("{pointer}/name"), "invalid", message));
        }
        if self.volume.is_some() && self.pool.is_some() {
            let message = "a volume is where it is already";
            errors.push(FieldError::new(format!("{pointer}/pool"), "invalid", message));
        }
        if let Some(size) = self.size_gib {
            validate_size(size, &format!("{pointer}/size_gib"), errors);
        }
    }
}

/// A disk that is asked for.
pub(crate) struct Wanted<'a> {
    pub what: WantedDisk<'a>,
    pub position: Option<i32>,
    pub delete_with_instance: bool,
    /// Where it stands in the body.
    pub pointer: String,
}

pub(crate) enum WantedDisk<'a> {
    /// Name or id.
    Existing(&'a str),
    New(NewDisk),
}

#[derive(Clone)]
pub(crate) struct NewDisk {
    /// Made from the id unless given.
    pub name: Option<Name>,
    /// The instance whose name is part of the one that is made.
    pub of: Option<Name>,
    pub size_gib: i32,
    pub image: Option<Uuid>,
    /// What it begins with, if that is the data of another one.
    pub below: Option<Sealed>,
    /// Name or id of the shared pool that it is in.
    pub pool: Option<String>,
    /// Whether the caller needs the right to make volumes: not for what every instance has.
    pub ask: bool,
}

impl<'a> Wanted<'a> {
    /// The further disks of a new instance.
    pub(crate) fn further(wanted: &'a [WantedVolume]) -> impl Iterator<Item = Self> {
        wanted.iter().zip(0_i32..).map(|(one, index)| Self {
            what: match &one.volume {
                Some(volume) => WantedDisk::Existing(volume),
                None => WantedDisk::New(NewDisk {
                    name: one.name.clone(),
                    of: None,
                    size_gib: one.size_gib.unwrap_or_default(),
                    image: None,
                    below: None,
                    pool: one.pool.clone(),
                    ask: true,
                }),
            },
            position: Some(index + 1),
            delete_with_instance: one.delete_with_instance,
            pointer: format!("/volumes/{index}"),
        })
    }
}

/// Disks that can be put in.
pub(crate) struct Prepared {
    disks: Vec<Disk>,
}

struct Disk {
    source: Source,
    position: Option<i32>,
    delete_with_instance: bool,
    pointer: String,
}

enum Source {
    Existing(Taken),
    New(NewDisk, Option<Named>),
}

impl Source {
    /// The shared pool that it is in.
    fn pool(&self) -> Option<&Named> {
        match self {
            Self::Existing(taken) => taken.pool.as_ref(),
            Self::New(_, pool) => pool.as_ref(),
        }
    }
}

impl Prepared {
    /// How many volumes will be made.
    pub(crate) fn made(&self) -> i64 {
        let made = self.disks.iter().filter(|disk| matches!(disk.source, Source::New(..))).count();
        i64::try_from(made).unwrap_or(i64::MAX)
    }

    /// The shared pools that they are in.
    fn pools(&self) -> impl Iterator<Item = &Named> {
        self.disks.iter().filter_map(|disk| disk.source.pool())
    }

    /// How large those are together.
    pub(crate) fn made_gib(&self) -> i64 {
        let size = |disk: &Disk| match &disk.source {
            Source::New(new, _) => i64::from(new.size_gib),
            Source::Existing(_) => 0,
        };
        self.disks.iter().map(size).sum()
    }

    /// The image from which the volume was made that it boots from, and for which architecture that is.
    ///
    /// # Errors
    /// `validation_failed` when that began empty.
    pub(crate) fn boot_image(&self) -> Result<(Uuid, &str), ApiError> {
        let root = self.disks.iter().find(|disk| disk.position == Some(0));
        match root.map(|disk| &disk.source) {
            Some(Source::Existing(Taken { image: Some((id, architecture)), .. })) => Ok((*id, architecture)),
            _ => {
                let pointer = root.map_or("", |disk| disk.pointer.as_str());
                let message = "it began empty; boot from a volume that was made from an image";
                let field = FieldError::new(format!("{pointer}/volume"), "not_bootable", message);
                Err(ApiError::invalid(vec![field]))
            }
        }
    }
}

/// Finds what the disks name, keeps it, and asks for the right to each.
pub(crate) async fn prepare<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    project: &str,
    wanted: Vec<Wanted<'_>>,
) -> Result<(Mutation<A>, Prepared), ApiError> {
    let named: Vec<_> = wanted
        .iter()
        .filter_map(|one| match one.what {
            WantedDisk::Existing(name) => Some((name, one.pointer.as_str())),
            WantedDisk::New(_) => None,
        })
        .collect();
    let (conn, allowed) = change.parts();
    let mut taken = attachments::take(conn, allowed, &named).await?.into_iter();
    let mut disks = Vec::new();
    for one in wanted {
        let Wanted { what, position, delete_with_instance, pointer } = one;
        let source = match what {
            WantedDisk::Existing(name) => {
                let missing = || attachments::no_volume(&pointer);
                change = change.also::<actions::LendVolume>((project, name), missing).await?;
                if delete_with_instance {
                    change = change.also::<actions::DeleteVolume>((project, name), missing).await?;
                }
                Source::Existing(taken.next().ok_or_else(|| attachments::no_volume(&pointer))?)
            }
            WantedDisk::New(new) => {
                let below = new.below.and_then(|below| below.pool).map(|pool| pool.to_string());
                let pool = match below.as_ref().or(new.pool.as_ref()) {
                    Some(pool) => {
                        let pointer = format!("{pointer}/pool");
                        Some(pools::store::named(change.conn(), pool, &pointer).await?)
                    }
                    None => None,
                };
                if new.ask {
                    let called = new.called(position.unwrap_or(1));
                    let named = auth::New::named(&called);
                    let facts: Vec<_> =
                        pool.iter().map(|pool| (keys::POOL, Fact::Text(&pool.name))).collect();
                    let place = auth::New { facts: &facts, ..named };
                    change =
                        change.also::<actions::CreateVolume>((project, place), ApiError::not_found).await?;
                }
                Source::New(new, pool)
            }
        };
        disks.push(Disk { source, position, delete_with_instance, pointer });
    }
    Ok((change, Prepared { disks }))
}

/// Puts the disks in, where they are wanted or behind those that the instance has. The instance is locked.
pub(crate) async fn attach<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    prepared: &Prepared,
    instance: InstanceId,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<Vec<Uuid>, ApiError> {
    let place = attachments::place_of(conn, instance).await?;
    let mut home = place.home();
    let mut free = place.free_positions().into_iter();
    let mut attached = Vec::new();
    let pools: Vec<_> = prepared.pools().map(|pool| pool.id).collect();
    pools::store::lock(conn, &pools).await?;
    if let Some(host) = place.host {
        refuse_unreachable(conn, prepared, host).await?;
    }
    for disk in &prepared.disks {
        let position = disk.position.or_else(|| free.next()).ok_or_else(|| {
            ApiError::because(ErrorCode::WrongState, "an instance has at most 16 volumes; detach one")
        })?;
        let at = NewAttachment { instance, position, delete_with_instance: disk.delete_with_instance };
        let volume = match &disk.source {
            Source::Existing(taken) => {
                if home.is_some() && taken.host_id.is_some() && home != taken.host_id {
                    return Err(elsewhere(&taken.name));
                }
                home = home.or(taken.host_id);
                attachments::plug(conn, taken.id, at, now).await?;
                taken.id
            }
            Source::New(new, pool) => {
                let host = new.below.and_then(|below| below.host).map(HostId::as_uuid);
                if home.is_some() && host.is_some() && home != host {
                    return Err(elsewhere(new.name.as_ref().map_or("of the snapshot", Name::as_str)));
                }
                home = home.or(host);
                let pool = pool.as_ref().map(|pool| pool.id);
                make(conn, allowed, new, pool, at, clock, now).await?
            }
        };
        attached.push(volume);
    }
    snapshot_schedules::refuse_overfull(conn, &attached).await?;
    if let Some(host) = place.host {
        attachments::place(conn, instance, host).await.map_err(store::broken)?;
    }
    Ok(attached)
}

async fn make<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    new: &NewDisk,
    pool: Option<Uuid>,
    at: NewAttachment,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<Uuid, ApiError> {
    let (id, layer): (VolumeId, LayerId) = (clock.new_id(), clock.new_id());
    let name = match &new.name {
        Some(name) => name.as_str().to_owned(),
        None => new.own_name(id, at.position),
    };
    let volume = NewVolume {
        id,
        layer,
        below: new.below,
        name: &name,
        description: "",
        labels: &Labels::new(),
        size_gib: new.size_gib,
        image: new.image,
        pool,
        delete_protection: false,
        iops_limit: None,
        bytes_per_second_limit: None,
        attachment: Some(at),
        now,
    };
    store::insert(conn, allowed, &volume).await?;
    Ok(id.as_uuid())
}

impl NewDisk {
    /// How it is called, but for the digits of one that was given no name.
    fn called(&self, position: i32) -> String {
        if let Some(name) = &self.name {
            return name.as_str().to_owned();
        }
        let Some(of) = &self.of else {
            let what = match position {
                ..0 => "rescue",
                0 => "root",
                _ => "volume",
            };
            return what.to_owned();
        };
        let what = if position == 0 { "root".to_owned() } else { format!("disk-{position}") };
        let room = MAX_NAME_CHARS - what.len() - DIGITS - 2;
        let of = of.as_str();
        format!("{}-{what}", of.get(..room).unwrap_or(of).trim_end_matches('-'))
    }

    /// The name of a volume that was made with its instance: what it is, and the random part of its id.
    fn own_name(&self, id: VolumeId, position: i32) -> String {
        let digits = id.as_uuid().simple().to_string();
        format!("{}-{}", self.called(position), &digits[digits.len() - DIGITS..])
    }
}

/// The host that has the instance needs the pools of what it is given.
async fn refuse_unreachable(
    conn: &mut PgConnection,
    prepared: &Prepared,
    host: Uuid,
) -> Result<(), ApiError> {
    for pool in prepared.pools() {
        if !pools::store::is_on(conn, pool.id, host).await? {
            let detail = format!(
                "the host of the instance does not have the pool {}; use an instance on one that has it",
                pool.name
            );
            return Err(ApiError::because(ErrorCode::WrongState, detail));
        }
    }
    Ok(())
}

fn elsewhere(name: &str) -> ApiError {
    let detail = format!(
        "the data of the volume {name} is on another host than that of the instance or of its other volumes, and \
         volumes do not move; use an instance that is made with this volume"
    );
    ApiError::because(ErrorCode::WrongState, detail)
}

/// The body names an image that is not there.
pub(crate) fn no_image(pointer: &str) -> FieldError {
    FieldError::new(pointer, "not_found", "this project has no such image")
}
