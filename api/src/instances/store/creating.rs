//! SQL of instances that are made.

use protocol::agent::OnHostFailure;
use protocol::{InstanceId, OperationId, RequestId};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::name_taken;
use crate::auth::{Allowed, actions};
use crate::http::{ApiError, FieldError, Labels, violated_constraint};
use crate::instance_types::InstanceTypeRow;

/// What a new instance is made of.
pub(in crate::instances) struct New<'a> {
    pub id: InstanceId,
    pub name: &'a str,
    pub hostname: &'a str,
    pub description: &'a str,
    pub labels: &'a Labels,
    pub delete_protection: bool,
    pub on_host_failure: OnHostFailure,
    pub system: &'a System,
    pub instance_type: &'a InstanceTypeRow,
    pub placement_group: Option<Uuid>,
    pub user_data: Option<&'a [u8]>,
    pub ssh_authorized_keys: &'a [String],
    /// The names of the key pairs that some of those are from.
    pub key_pairs: &'a [String],
    pub stop_timeout_seconds: i32,
    pub operation_id: OperationId,
    pub request_id: RequestId,
    pub now: OffsetDateTime,
}

/// The operating system of an instance.
pub(in crate::instances) struct System {
    pub image_id: Uuid,
    /// As the image is called now.
    pub image_name: String,
    pub firmware: String,
}

/// The system of a volume that was made from the image, which may be deleted by now.
pub(in crate::instances) async fn system_of(
    conn: &mut PgConnection,
    image: Uuid,
) -> Result<System, sqlx::Error> {
    sqlx::query_as!(
        System,
        "SELECT id AS image_id, name AS image_name, firmware FROM images WHERE id = $1",
        image
    )
    .fetch_one(conn)
    .await
}

/// The same with the architecture that it is for.
pub(in crate::instances) async fn system_with_architecture(
    conn: &mut PgConnection,
    image: Uuid,
) -> Result<(System, String), sqlx::Error> {
    let architecture = sqlx::query_scalar!("SELECT architecture FROM images WHERE id = $1", image)
        .fetch_one(&mut *conn)
        .await?;
    Ok((system_of(conn, image).await?, architecture))
}

pub(in crate::instances) async fn insert(
    conn: &mut PgConnection,
    allowed: &Allowed<actions::CreateInstance>,
    new: New<'_>,
) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO instances
             (id, project_id, name, labels, generation, image_id, instance_type_id, architecture, vcpus,
              memory_mib, hostname, user_data, ssh_authorized_keys, power, boot, stop_mode,
              stop_timeout_seconds, operation_id, request_id, placement_due_at, created_at, updated_at,
              image_name, firmware, description, delete_protection, key_pairs, placement_group_id, on_host_failure)
         VALUES ($1, $2, $3, $4, 1, $5, $6, $7, $8, $9, $10, $11, $12, 'running', 1, 'graceful', $13, $14,
                 $15, $16, $16, $16, $17, $18, $19, $20, $21, $22, $23)",
        new.id.as_uuid(),
        allowed.project().as_uuid(),
        new.name,
        Json(new.labels) as _,
        new.system.image_id,
        new.instance_type.id,
        new.instance_type.architecture,
        new.instance_type.vcpus,
        new.instance_type.memory_mib,
        new.hostname,
        new.user_data,
        new.ssh_authorized_keys,
        new.stop_timeout_seconds,
        new.operation_id.as_uuid(),
        new.request_id.as_uuid(),
        new.now,
        new.system.image_name,
        new.system.firmware,
        new.description,
        new.delete_protection,
        new.key_pairs,
        new.placement_group,
        new.on_host_failure.as_str()
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        // Deleted since it was looked up.
        Some("instances_instance_type_id_fkey") => ApiError::invalid(vec![no_instance_type()]),
        Some("instances_of_a_group_of_the_project") => ApiError::invalid(vec![no_placement_group()]),
        _ => name_taken(error),
    })
}

/// The body names an image that is not there.
pub(in crate::instances) fn no_image() -> FieldError {
    FieldError::new("/image", "not_found", "this project has no such image")
}

/// The body names a placement group that is not there.
pub(in crate::instances) fn no_placement_group() -> FieldError {
    FieldError::new("/placement_group", "not_found", "this project has no such placement group")
}

/// The body names an instance type that is not there.
pub(in crate::instances) fn no_instance_type() -> FieldError {
    FieldError::new("/instance_type", "not_found", "there is no such instance type")
}
