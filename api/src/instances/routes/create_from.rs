//! Making an instance from a snapshot of one.

use super::super::store::{self, System};
use super::super::types::CreateInstance;
use super::clone::{Inherited, Parts};
use crate::auth::actions;
use crate::http::{ApiError, ErrorCode, FieldError, Mutation, Selector};
use crate::instance_types::{self, InstanceTypeRow};
use crate::snapshots;
use crate::snapshots::store::using;
use crate::volumes::disks::{self, NewDisk, Wanted, WantedDisk};

type Change = Mutation<actions::CreateInstance>;

/// The disks that the snapshot holds, the system on the first of them, and the type: that of the body, or that of the
/// instance that the snapshot is of.
pub(super) async fn of_snapshot(
    change: Change,
    project: &str,
    new: &CreateInstance,
    snapshot: &str,
    given: Option<InstanceTypeRow>,
) -> Result<(Change, Parts), ApiError> {
    let (mut change, row) =
        snapshots::hold::<actions::RestoreSnapshot, _>(change, project, snapshot, "/snapshot").await?;
    let (Some(image), Some(firmware), Some(type_id)) =
        (row.image_id, row.firmware.clone(), row.instance_type_id)
    else {
        let message = "it is of a volume; make a volume from it, and boot from that";
        return Err(ApiError::invalid(vec![FieldError::new("/snapshot", "not_bootable", message)]));
    };
    let conn = change.conn();
    let instance_type = match (&new.instance_type, given) {
        (Some(_), None) => return Err(ApiError::invalid(vec![store::no_instance_type()])),
        (_, Some(given)) => given,
        (None, None) => {
            let found = instance_types::find(conn, &Selector::Id(type_id)).await?;
            found.ok_or_else(|| {
                let message = "the type of the snapshot is gone; name another one";
                ApiError::invalid(vec![FieldError::new("/instance_type", "not_found", message)])
            })?
        }
    };
    let (system, architecture) = store::system_with_architecture(conn, image).await?;
    if architecture != instance_type.architecture {
        let message = format!(
            "the snapshot's system is for {architecture}, the type for {}",
            instance_type.architecture
        );
        return Err(ApiError::invalid(vec![FieldError::new("/instance_type", "architecture", message)]));
    }
    if row.volumes.0.iter().all(|volume| volume.position != 0) {
        let detail = "the snapshot has no volume to boot from; make volumes from it instead";
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    let mut wanted = Vec::new();
    for volume in &row.volumes.0 {
        let sealed = using::sealed(conn, row.id, volume.position, None).await?;
        let is_root = volume.position == 0;
        wanted.push(Wanted {
            what: WantedDisk::New(NewDisk {
                name: None,
                of: Some(new.name.clone()),
                size_gib: sealed.size_gib,
                image: sealed.image,
                pool: None,
                below: Some(sealed),
                ask: !is_root,
            }),
            position: Some(volume.position),
            delete_with_instance: is_root && new.root_volume.delete_with_instance.unwrap_or(true),
            pointer: "/snapshot".to_owned(),
        });
    }
    let (change, prepared) = disks::prepare(change, project, wanted).await?;
    let system = System { firmware, ..system };
    Ok((change, Parts { disks: prepared, system, instance_type, inherited: Inherited::default() }))
}
