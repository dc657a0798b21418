//! The policies that come with Cumulo. Their documents are files beside this one; a release that changes one
//! gives it a new version at its first start.

use policy::Document;
use protocol::PrincipalId;
use serde_json::Value;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::store;
use crate::auth::vocabulary;
use crate::http::ApiError;

/// A policy that nobody can change.
pub(crate) struct Managed {
    pub id: Uuid,
    pub name: &'static str,
    pub description: &'static str,
    text: &'static str,
}

macro_rules! managed {
    ($($number:literal $name:literal $description:literal)+) => {
        /// All of them. Their numbers never change.
        pub(crate) const ALL: &[Managed] = &[$(Managed {
            id: Uuid::from_u128(0x7000_8000_0000_0000_0000 | $number),
            name: $name,
            description: $description,
            text: include_str!(concat!("managed/", $name, ".json")),
        }),+];
    };
}

managed! {
    1 "administrator" "Everything, everywhere."
    2 "everyone" "What every signed-in principal may do: look after itself, see what the cloud offers, and find \
                  its projects. Attached to everyone at the first start."
    3 "project-owner" "Everything in a project but its quotas and publishing images, identity included."
    4 "power-user" "Everything in a project but identity, quotas and publishing images."
    5 "instance-operator" "See everything in a project, and start, stop, pause, resume and reboot its instances."
    6 "read-only" "See everything but the audit log, and change nothing."
    7 "auditor" "Read the audit log, the events and the policies, and nothing else."
    8 "require-second-factor" "Denies people everything but setting up their second factor until they have \
                               shown it. Attach it to a user, a group or everyone."
}

const ADMINISTRATOR: usize = 0;
const EVERYONE: usize = 1;

/// The id of the policy `administrator`.
pub(super) const fn administrator() -> Uuid {
    ALL[ADMINISTRATOR].id
}

impl Managed {
    /// The document, canonical.
    pub(crate) fn document(&self) -> Result<Value, ApiError> {
        let value: Value = serde_json::from_str(self.text).map_err(ApiError::internal)?;
        let document = Document::parse(&value, &vocabulary())
            .map_err(|findings| ApiError::internal(format!("managed policy {}: {findings:?}", self.name)))?;
        serde_json::to_value(&document).map_err(ApiError::internal)
    }
}

/// Brings the managed policies of the database up to those of this release.
pub(crate) async fn install(conn: &mut PgConnection, now: OffsetDateTime) -> Result<(), ApiError> {
    for (index, policy) in ALL.iter().enumerate() {
        let document = policy.document()?;
        let present = sqlx::query!(
            "SELECT o.default_version, v.document FROM policies o
             JOIN policy_versions v ON (v.policy_id, v.version) = (o.id, o.default_version) WHERE o.id = $1",
            policy.id
        )
        .fetch_optional(&mut *conn)
        .await?;
        match present {
            Some(present) if present.document == document => continue,
            Some(present) => renew(conn, policy, present.default_version + 1, &document, now).await?,
            None => {
                insert(conn, policy, &document, now).await?;
                if index == EVERYONE {
                    attach(conn, Uuid::from_u128(policy.id.as_u128() | (1 << 64)), policy.id, None, now)
                        .await?;
                }
            }
        }
    }
    Ok(())
}

/// Makes this principal an administrator of the cloud.
pub(crate) async fn make_administrator(
    conn: &mut PgConnection,
    id: Uuid,
    principal: PrincipalId,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    attach(conn, id, ALL[ADMINISTRATOR].id, Some(principal), now).await
}

async fn insert(
    conn: &mut PgConnection,
    policy: &Managed,
    document: &Value,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO policies (id, name, description, managed, default_version, generation, created_at, updated_at)
         VALUES ($1, $2, $3, true, 1, 1, $4, $4)",
        policy.id,
        policy.name,
        policy.description,
        now
    )
    .execute(&mut *conn)
    .await?;
    store::insert_version(conn, policy.id, 1, document, None, now).await
}

async fn renew(
    conn: &mut PgConnection,
    policy: &Managed,
    version: i32,
    document: &Value,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    store::insert_version(conn, policy.id, version, document, None, now).await?;
    sqlx::query!(
        "UPDATE policies SET default_version = $2, description = $3, generation = generation + 1, updated_at = $4
         WHERE id = $1",
        policy.id,
        version,
        policy.description,
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn attach(
    conn: &mut PgConnection,
    id: Uuid,
    policy: Uuid,
    principal: Option<PrincipalId>,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO policy_attachments (id, policy_id, principal_id, created_at) VALUES ($1, $2, $3, $4)
         ON CONFLICT DO NOTHING",
        id,
        policy,
        principal.map(PrincipalId::as_uuid),
        now
    )
    .execute(conn)
    .await?;
    Ok(())
}
