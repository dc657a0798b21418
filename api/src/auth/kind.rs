//! Kinds of resources, as policies name them, and what a policy has to know of one: id, name, labels.

use protocol::ProjectId;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::http::{Labels, Selector};

/// A resource as policies see it.
#[derive(Debug, Clone)]
pub struct Identity {
    pub id: Uuid,
    pub name: String,
    pub labels: Labels,
}

/// A query that locks what it finds: so that nobody refers to it, unless it says another way.
macro_rules! locking {
    ($sql:literal) => {
        concat!($sql, " FOR UPDATE")
    };
    ($sql:literal, $lock:literal) => {
        concat!($sql, $lock)
    };
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $service:literal $text:literal, seen with $get:literal,
        $(locked with $lock:literal,)? $sql:literal;)+) => {
        /// What kind of thing an action is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $name),+ }

        impl Kind {
            /// Service and type, as a resource name spells them.
            pub const ALL: &[(&str, &str)] = &[$(($service, $text)),+];

            pub const fn service(self) -> &'static str {
                match self { $(Self::$name => $service),+ }
            }

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The action that shows such a resource: who may do it may also know why something else is
            /// denied.
            pub const fn seen_with(self) -> &'static str {
                match self { $(Self::$name => $get),+ }
            }

            /// Finds one by project ($1), id ($2) or name ($3), and locks it until the transaction ends when
            /// `lock` is set.
            const fn query(self, lock: bool) -> &'static str {
                match (self, lock) {
                    $((Self::$name, false) => $sql,
                      (Self::$name, true) => locking!($sql $(, $lock)?),)+
                }
            }
        }
    };
}

kinds! {
    Project = "project" "project", seen with "project:GetProject",
        "SELECT id, name, labels FROM projects WHERE id = $1 AND $2::uuid IS NULL AND $3::text IS NULL";
    Instance = "compute" "instance", seen with "compute:GetInstance",
        "SELECT id, name, labels FROM instances WHERE project_id = $1 AND (id = $2 OR name = $3)";
    PlacementGroup = "compute" "placement_group", seen with "compute:GetPlacementGroup",
        "SELECT id, name, labels FROM placement_groups WHERE project_id = $1 AND (id = $2 OR name = $3)";
    InstanceType = "compute" "instance_type", seen with "compute:GetInstanceType",
        "SELECT id, name, NULL::jsonb FROM instance_types WHERE $1::uuid IS NULL AND (id = $2 OR name = $3)";
    KeyPair = "compute" "key_pair", seen with "compute:GetKeyPair",
        "SELECT id, name, labels FROM key_pairs WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Image = "image" "image", seen with "image:GetImage",
        "SELECT id, name, labels FROM images WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Volume = "volume" "volume", seen with "volume:GetVolume",
        "SELECT id, name, labels FROM volumes WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Snapshot = "volume" "snapshot", seen with "volume:GetSnapshot",
        "SELECT id, name, labels FROM snapshots WHERE project_id = $1 AND (id = $2 OR name = $3)";
    SnapshotSchedule = "volume" "snapshot_schedule", seen with "volume:GetSnapshotSchedule",
        "SELECT id, name, labels FROM snapshot_schedules WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Pool = "pool" "pool", seen with "pool:GetPool",
        "SELECT id, name, NULL::jsonb FROM pools WHERE $1::uuid IS NULL AND (id = $2 OR name = $3)";
    Network = "network" "network", seen with "network:GetNetwork",
        "SELECT id, name, labels FROM networks WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Subnet = "network" "subnet", seen with "network:GetSubnet",
        "SELECT id, name, labels FROM subnets WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Port = "network" "port", seen with "network:GetPort",
        "SELECT id, name, labels FROM ports WHERE project_id = $1 AND (id = $2 OR name = $3)";
    Router = "network" "router", seen with "network:GetRouter",
        "SELECT id, name, labels FROM routers WHERE project_id = $1 AND (id = $2 OR name = $3)";
    /// Locked last, since one goes with its port: by its own store.
    FloatingIp = "network" "floating_ip", seen with "network:GetFloatingIp", locked with "",
        "SELECT id, name, labels FROM floating_ips WHERE project_id = $1 AND (id = $2 OR name = $3)";
    /// Two whose rules name each other may be changed at once.
    SecurityGroup = "network" "security_group", seen with "network:GetSecurityGroup",
        locked with " FOR NO KEY UPDATE",
        "SELECT id, name, labels FROM security_groups WHERE project_id = $1 AND (id = $2 OR name = $3)";
    AddressPool = "network" "address_pool", seen with "network:GetAddressPool",
        "SELECT id, name, NULL::jsonb FROM address_pools WHERE $1::uuid IS NULL AND (id = $2 OR name = $3)";
    /// Has no name; its id stands for it.
    Operation = "operation" "operation", seen with "operation:GetOperation",
        "SELECT id, id::text, NULL::jsonb FROM operations WHERE project_id = $1 AND id = $2 AND $3::text IS NULL";
    Host = "host" "host", seen with "host:GetHost",
        "SELECT id, name, NULL::jsonb FROM hosts WHERE $1::uuid IS NULL AND (id = $2 OR name = $3)";
    User = "iam" "user", seen with "iam:GetUser",
        "SELECT id, name, NULL::jsonb FROM principals \
         WHERE kind = 'user' AND $1::uuid IS NULL AND (id = $2 OR name = $3)";
    Group = "iam" "group", seen with "iam:GetGroup",
        "SELECT id, name, NULL::jsonb FROM groups WHERE $1::uuid IS NULL AND (id = $2 OR name = $3)";
    ServiceAccount = "iam" "service_account", seen with "iam:GetServiceAccount",
        "SELECT id, name, NULL::jsonb FROM principals \
         WHERE kind = 'service_account' AND project_id = $1 AND (id = $2 OR name = $3)";
    /// A project sees those of the cloud, too, after its own; they can be attached there.
    Policy = "iam" "policy", seen with "iam:GetPolicy",
        "SELECT id, name, NULL::jsonb FROM policies \
         WHERE (project_id = $1 OR project_id IS NULL) AND (id = $2 OR name = $3) \
         ORDER BY project_id NULLS LAST LIMIT 1";
    /// What a policy applies to, in a project or in the cloud.
    Attachment = "iam" "attachment", seen with "iam:ListPolicyAttachments",
        "SELECT id, id::text, NULL::jsonb FROM policy_attachments \
         WHERE project_id IS NOT DISTINCT FROM $1 AND id = $2 AND $3::text IS NULL";
    SigningKey = "iam" "signing_key", seen with "iam:ListSigningKeys",
        "SELECT id, id::text, NULL::jsonb FROM signing_keys WHERE $1::uuid IS NULL AND id = $2 AND $3::text IS NULL";
    /// A limit of a project, by the resource that it limits.
    Quota = "quota" "quota", seen with "quota:GetQuotas",
        "SELECT project_id, resource, NULL::jsonb FROM project_quotas \
         WHERE project_id = $1 AND $2::uuid IS NULL AND resource = $3";
    /// Named by its position in the log of a project or of the cloud.
    Event = "event" "event", seen with "event:ListEvents",
        "SELECT log_id, position::text, NULL::jsonb FROM events \
         WHERE log_id = coalesce($1, '00000000-0000-0000-0000-000000000000') AND $2::uuid IS NULL \
           AND position::text = $3";
    /// The cloud's own records and those of its projects are all seen from the cloud.
    AuditRecord = "audit" "record", seen with "audit:GetRecord",
        "SELECT id, id::text, NULL::jsonb FROM audit_records \
         WHERE ($1::uuid IS NULL OR project_id = $1) AND id = $2 AND $3::text IS NULL";
}

impl Kind {
    /// The resource that a path segment names, if there is one.
    pub(crate) async fn identify(
        self,
        conn: &mut PgConnection,
        project: Option<ProjectId>,
        selector: Option<&Selector>,
        lock: bool,
    ) -> Result<Option<Identity>, sqlx::Error> {
        // The table differs from kind to kind, so the query is no `query!`; a test runs each of them.
        let row: Option<(Uuid, String, Option<Json<Labels>>)> = sqlx::query_as(self.query(lock))
            .bind(project.map(ProjectId::as_uuid))
            .bind(selector.and_then(Selector::id))
            .bind(selector.and_then(Selector::name))
            .fetch_optional(conn)
            .await?;
        Ok(row.map(|(id, name, labels)| {
            let labels = labels.map(|labels| labels.0).unwrap_or_default();
            Identity { id, name, labels }
        }))
    }
}
