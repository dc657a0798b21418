//! The router that a project begins with.

use protocol::{ProjectId, RouterId, SubnetId};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::interfaces;
use crate::clock::Clock;
use crate::http::{ApiError, Labels, Selector};

/// Makes the external router `default` of a new project, with an interface in this subnet of it.
pub(crate) async fn make(
    conn: &mut PgConnection,
    clock: &Clock,
    project: ProjectId,
    subnet: SubnetId,
    now: OffsetDateTime,
) -> Result<RouterId, ApiError> {
    let project = project.as_uuid();
    let row = super::insert(conn, project, clock.new_id(), "default", &Labels::new(), true, now).await?;
    let subnet = interfaces::subnet(conn, project, &Selector::Id(subnet.as_uuid())).await?;
    let subnet = subnet.ok_or_else(interfaces::subnet_not_found)?;
    interfaces::add(conn, row.id, clock.new_id(), &subnet, now).await?;
    Ok(row.id.into())
}
