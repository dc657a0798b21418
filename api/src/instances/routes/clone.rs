//! Making an instance that is a clone of another one.

use uuid::Uuid;

use super::super::store::{self, System, cloning};
use super::super::types::CreateInstance;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, ErrorCode, FieldError, Mutation, Selector};
use crate::instance_types::InstanceTypeRow;
use crate::snapshots::store::cloning::seal;
use crate::volumes::disks::{self, NewDisk, Prepared, Wanted, WantedDisk};

type Change = Mutation<actions::CreateInstance>;

/// What a clone takes over beside its disks.
#[derive(Default)]
pub(super) struct Inherited {
    pub user_data: Option<Vec<u8>>,
    pub ssh_authorized_keys: Vec<String>,
    pub key_pairs: Vec<String>,
    /// Volumes of the source whose guest may still be writing, and the generation from which on it does not.
    pub waits_for: Vec<(Uuid, i64)>,
}

/// What an instance is made of.
pub(super) struct Parts {
    pub disks: Prepared,
    pub system: System,
    pub instance_type: InstanceTypeRow,
    pub inherited: Inherited,
}

/// The disks of the source as they are now, and the system on the first of them; the type is that of the body, or its own.
pub(super) async fn of_instance(
    app: &App,
    change: Change,
    project: &str,
    new: &CreateInstance,
    source: &str,
    given: Option<InstanceTypeRow>,
) -> Result<(Change, Parts), ApiError> {
    let wrong =
        |pointer: &str, code, message: &str| ApiError::invalid(vec![FieldError::new(pointer, code, message)]);
    let missing = || wrong("/source/instance", "not_found", "this project has no such instance");
    let selector = Selector::parse(source).ok_or_else(missing)?;
    let mut change = change.also::<actions::CloneInstance>((project, source), missing).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(missing)?;
    if !row.boots() {
        let detail = "the source has no volume to boot from; attach one to it first";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let instance_type = given.ok_or_else(|| ApiError::invalid(vec![store::no_instance_type()]))?;
    if row.architecture != instance_type.architecture {
        let message =
            format!("the source is for {}, the type for {}", row.architecture, instance_type.architecture);
        return Err(wrong("/instance_type", "architecture", &message));
    }
    let now = change.now;
    let project_id = change.allowed.project();
    let conn = change.conn();
    let seed = cloning::seed(conn, row.id).await?;
    let (copied, runs) = seal(conn, project_id, row.id, &app.clock, now).await?;
    let waits_for = copied.iter().filter(|_| runs).map(|one| (one.volume, one.spec_generation)).collect();
    let wanted = copied.into_iter().map(|one| {
        let is_root = one.position == 0;
        Wanted {
            what: WantedDisk::New(NewDisk {
                name: None,
                of: Some(new.name.clone()),
                size_gib: one.sealed.size_gib,
                image: one.sealed.image,
                below: Some(one.sealed),
                pool: None,
                ask: !is_root,
            }),
            position: Some(one.position),
            delete_with_instance: is_root && new.root_volume.delete_with_instance.unwrap_or(true),
            pointer: "/source".to_owned(),
        }
    });
    let (change, disks) = disks::prepare(change, project, wanted.collect()).await?;
    let system = System { image_id: row.image_id, image_name: row.image_name, firmware: row.firmware };
    let inherited = Inherited {
        user_data: seed.user_data,
        ssh_authorized_keys: seed.ssh_authorized_keys,
        key_pairs: row.key_pairs,
        waits_for,
    };
    Ok((change, Parts { disks, system, instance_type, inherited }))
}
