//! SQL of instance types.

use protocol::InstanceTypeId;
use protocol::agent::{Architecture, CpuModel, GuestHardware, NESTED_VIRTUALIZATION};
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::types::{CreateInstanceType, InstanceType};
use crate::auth::{Allowed, actions};
use crate::http::{ApiError, ErrorCode, Labels, Selector, Version, violated_constraint};
use crate::scheduler::{Needs, Size, TypeOption};

/// An instance type's row.
#[derive(Debug, Clone)]
pub(crate) struct InstanceTypeRow {
    pub id: Uuid,
    pub name: String,
    pub architecture: String,
    pub vcpus: i32,
    pub memory_mib: i32,
    pub root_disk_gib: i32,
    pub host_labels: Json<Labels>,
    pub tolerations: Vec<String>,
    pub hardware: Json<GuestHardware>,
    pub generation: i64,
    pub created_at: OffsetDateTime,
}

impl InstanceTypeRow {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> InstanceType {
        InstanceType {
            id: self.id.into(),
            name: self.name,
            architecture: self.architecture,
            vcpus: self.vcpus,
            memory_mib: self.memory_mib,
            root_disk_gib: self.root_disk_gib,
            host_labels: self.host_labels.0,
            tolerations: self.tolerations,
            hardware: self.hardware.0,
            created_at: self.created_at,
        }
    }
}

pub(super) async fn insert(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::CreateInstanceType>,
    id: InstanceTypeId,
    new: &CreateInstanceType,
    now: OffsetDateTime,
) -> Result<InstanceTypeRow, ApiError> {
    let signed = |number: u32| i32::try_from(number).map_err(ApiError::internal);
    let tolerations: Vec<_> = new.tolerations.iter().map(|taint| taint.as_str().to_owned()).collect();
    let inserted = sqlx::query_as!(
        InstanceTypeRow,
        r#"INSERT INTO instance_types
             (id, name, architecture, vcpus, memory_mib, root_disk_gib, generation, created_at, updated_at, host_labels,
              tolerations, hardware)
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7, $8, $9, $10)
         RETURNING id, name, architecture, vcpus, memory_mib, root_disk_gib,
                   host_labels AS "host_labels: Json<Labels>", tolerations,
                   hardware AS "hardware: Json<GuestHardware>", generation, created_at"#,
        id.as_uuid(),
        new.name.as_str(),
        new.architecture.as_str(),
        signed(new.vcpus)?,
        signed(new.memory_mib.0)?,
        signed(new.root_disk_gib.0)?,
        now,
        Json(&new.host_labels) as _,
        &tolerations,
        Json(&new.hardware) as _
    )
    .fetch_one(conn)
    .await;
    inserted.map_err(|error| match violated_constraint(&error) {
        Some("instance_types_name_unique") => {
            ApiError::because(ErrorCode::NameTaken, "there is an instance type of this name already")
        }
        _ => error.into(),
    })
}

pub(super) async fn list(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ListInstanceTypes>,
    after: Uuid,
    name: Option<&str>,
    rows: i64,
) -> Result<Vec<InstanceTypeRow>, sqlx::Error> {
    sqlx::query_as!(
        InstanceTypeRow,
        r#"SELECT id, name, architecture, vcpus, memory_mib, root_disk_gib, host_labels AS "host_labels: Json<Labels>",
                tolerations, hardware AS "hardware: Json<GuestHardware>", generation, created_at
         FROM instance_types WHERE id > $1 AND ($2::text IS NULL OR name = $2) ORDER BY id LIMIT $3"#,
        after,
        name,
        rows
    )
    .fetch_all(conn)
    .await
}

/// Types belong to nobody and hold no secrets: looking one up needs no proof.
pub(crate) async fn find(
    conn: &mut PgConnection,
    selector: &Selector,
) -> Result<Option<InstanceTypeRow>, sqlx::Error> {
    sqlx::query_as!(
        InstanceTypeRow,
        r#"SELECT id, name, architecture, vcpus, memory_mib, root_disk_gib, host_labels AS "host_labels: Json<Labels>",
                tolerations, hardware AS "hardware: Json<GuestHardware>", generation, created_at
         FROM instance_types WHERE id = $1 OR name = $2"#,
        selector.id(),
        selector.name()
    )
    .fetch_optional(conn)
    .await
}

impl InstanceTypeRow {
    /// Of an instance with the root disk of the type.
    pub(crate) const fn size(&self) -> Size {
        Size { vcpus: self.vcpus, memory_mib: self.memory_mib, disk_gib: self.root_disk_gib }
    }

    /// What the operator has tied to it.
    pub(crate) fn needs(&self) -> Needs {
        Needs {
            features: features_of(&self.hardware.0),
            host_labels: self.host_labels.0.clone(),
            tolerations: self.tolerations.clone(),
        }
    }
}

/// What a host must give for this hardware, as [`crate::instances::store::placement`] names what hosts have.
pub(crate) fn features_of(hardware: &GuestHardware) -> Vec<String> {
    let mut features = Vec::new();
    if hardware.nested_virtualization {
        features.push(NESTED_VIRTUALIZATION.to_owned());
    }
    if let CpuModel::Named(name) = &hardware.cpu_model {
        features.push(feature_of_model(name));
    }
    features
}

/// The feature of hosts that have this processor model.
pub(crate) fn feature_of_model(name: &str) -> String {
    format!("cpu_model {name}")
}

/// All types, for the advice of placement.
pub(crate) async fn options(conn: &mut PgConnection) -> Result<Vec<TypeOption>, sqlx::Error> {
    let rows = sqlx::query_as!(
        InstanceTypeRow,
        r#"SELECT id, name, architecture, vcpus, memory_mib, root_disk_gib, host_labels AS "host_labels: Json<Labels>",
                tolerations, hardware AS "hardware: Json<GuestHardware>", generation, created_at
         FROM instance_types ORDER BY id"#
    )
    .fetch_all(conn)
    .await?;
    let option = |row: InstanceTypeRow| {
        Some(TypeOption {
            architecture: Architecture::from_name(&row.architecture)?,
            needs: row.needs(),
            name: row.name,
            vcpus: row.vcpus,
            memory_mib: row.memory_mib,
            root_disk_gib: row.root_disk_gib,
        })
    };
    Ok(rows.into_iter().filter_map(option).collect())
}

/// The names of up to three types of this architecture with at least this root disk and memory, smallest first.
pub(crate) async fn fitting(
    conn: &mut PgConnection,
    architecture: &str,
    root_disk_gib: i64,
    memory_mib: i32,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT name FROM instance_types
         WHERE architecture = $1 AND root_disk_gib >= $2::bigint AND memory_mib >= $3
         ORDER BY memory_mib, root_disk_gib, vcpus, name LIMIT 3",
        architecture,
        root_disk_gib,
        memory_mib
    )
    .fetch_all(conn)
    .await
}

pub(super) async fn delete(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::DeleteInstanceType>,
    id: Uuid,
) -> Result<(), ApiError> {
    let deleted = sqlx::query!("DELETE FROM instance_types WHERE id = $1", id).execute(conn).await;
    deleted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("instances_instance_type_id_fkey") => {
            ApiError::because(ErrorCode::InUse, "instances of this type exist; delete them first")
        }
        Some("instances_resized_from_type_id_fkey") => {
            let detail = "instances may still go back to this type; confirm their resizes first";
            ApiError::because(ErrorCode::InUse, detail)
        }
        _ => error.into(),
    })
}
