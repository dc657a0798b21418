//! What belongs to a port beside its addresses: security groups and allowed address pairs.

use protocol::PortId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::super::types::AddressPair;
use crate::auth::{Action, Allowed, InProject};
use crate::http::{ApiError, FieldError, Selector, violated_constraint};

/// The ids of the groups that a body names; the project's default group, if there is one, when it names none.
pub(in super::super) async fn groups_named<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    wanted: Option<&[String]>,
    pointer: &str,
) -> Result<Vec<Uuid>, ApiError> {
    let Some(wanted) = wanted else {
        let ids = sqlx::query_scalar!(
            "SELECT id FROM security_groups WHERE project_id = $1 AND is_default FOR KEY SHARE",
            allowed.project().as_uuid()
        )
        .fetch_all(conn)
        .await?;
        return Ok(ids);
    };
    let rows = sqlx::query!(
        "SELECT id, name FROM security_groups
         WHERE project_id = $1 AND (name = ANY($2) OR id::text = ANY($2)) FOR KEY SHARE",
        allowed.project().as_uuid(),
        &Selector::texts(wanted)
    )
    .fetch_all(conn)
    .await?;
    let mut ids = Vec::new();
    let mut errors = Vec::new();
    for (index, name) in wanted.iter().enumerate() {
        let selector = Selector::parse(name);
        let found = selector.and_then(|selector| {
            rows.iter().find(|row| selector.id() == Some(row.id) || selector.name() == Some(&row.name))
        });
        match found {
            Some(row) if !ids.contains(&row.id) => ids.push(row.id),
            Some(_) => {}
            None => {
                let message = "this project has no such security group";
                errors.push(FieldError::new(format!("{pointer}/{index}"), "not_found", message));
            }
        }
    }
    ApiError::reject(errors)?;
    Ok(ids)
}

/// Puts the port into these groups and no others.
pub(in super::super) async fn set_groups(
    conn: &mut PgConnection,
    port: PortId,
    groups: &[Uuid],
    pointer: &str,
) -> Result<(), ApiError> {
    sqlx::query!(
        "DELETE FROM port_security_groups WHERE port_id = $1 AND security_group_id <> ALL($2)",
        port.as_uuid(),
        groups
    )
    .execute(&mut *conn)
    .await?;
    let inserted = sqlx::query!(
        "INSERT INTO port_security_groups (port_id, security_group_id) SELECT $1, id FROM unnest($2::uuid[]) id
         ON CONFLICT DO NOTHING",
        port.as_uuid(),
        groups
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        // Deleted since it was looked up.
        Some("port_security_groups_security_group_id_fkey") => {
            ApiError::invalid(vec![FieldError::new(pointer, "not_found", "one of them has been deleted")])
        }
        _ => error.into(),
    })
}

/// Gives the port these pairs and no others.
pub(in super::super) async fn set_pairs(
    conn: &mut PgConnection,
    port: PortId,
    pairs: &[AddressPair],
) -> Result<(), sqlx::Error> {
    let (cidrs, macs): (Vec<_>, Vec<_>) =
        pairs.iter().map(|pair| (pair.cidr.to_string(), pair.mac.map(|mac| mac.to_string()))).unzip();
    sqlx::query!("DELETE FROM port_allowed_address_pairs WHERE port_id = $1", port.as_uuid())
        .execute(&mut *conn)
        .await?;
    sqlx::query!(
        "INSERT INTO port_allowed_address_pairs (port_id, cidr, mac)
         SELECT $1, cidr::inet, mac::macaddr FROM unnest($2::text[], $3::text[]) p (cidr, mac)",
        port.as_uuid(),
        &cidrs,
        &macs as _
    )
    .execute(conn)
    .await?;
    Ok(())
}
