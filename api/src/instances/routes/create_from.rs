//! Making an instance from a snapshot of one.

use super::super::store::{self, System};
use super::super::types::CreateInstance;
use super::clone::{Inherited, Parts};
use crate::auth::actions;
use crate::http::{ApiError, ErrorCode, FieldError, Mutation};
use crate::instance_types::InstanceTypeRow;
use crate::snapshots;
use crate::snapshots::store::using;
use crate::volumes::disks::{self, NewDisk, Wanted, WantedDisk};

type Change = Mutation<actions::CreateInstance>;

/// The disks that the snapshot holds, and the system on the first of them; the type is that of the body, or that of the
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
    let (Some(image), Some(firmware)) = (row.image_id, row.firmware.clone()) else {
        let message = "it is of a volume; make a volume from it, and boot from that";
        return Err(ApiError::invalid(vec![FieldError::new("/snapshot", "not_bootable", message)]));
    };
    let conn = change.conn();
    let missing = || match &new.instance_type {
        Some(_) => store::no_instance_type(),
        None => {
            let message = "the type of the snapshot is gone; name another one";
            FieldError::new("/instance_type", "not_found", message)
        }
    };
    let instance_type = given.ok_or_else(|| ApiError::invalid(vec![missing()]))?;
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
