//! The security group that a project begins with.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use protocol::agent::{Direction, RuleProtocol};
use protocol::{ProjectId, SecurityGroupId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::rules::{self, RuleRow};
use crate::clock::Clock;
use crate::http::ApiError;

/// Makes the group `default` of a new project: its members reach each other and everybody else, and nobody else
/// reaches them.
pub(crate) async fn make(
    conn: &mut PgConnection,
    clock: &Clock,
    project: ProjectId,
    now: OffsetDateTime,
) -> Result<SecurityGroupId, ApiError> {
    let group: Uuid = clock.new_id();
    sqlx::query!(
        "INSERT INTO security_groups
             (id, project_id, name, description, labels, is_default, created_at, updated_at)
         VALUES ($1, $2, 'default', 'For ports that ask for no group', '{}', true, $3, $3)",
        group,
        project.as_uuid(),
        now
    )
    .execute(&mut *conn)
    .await?;
    let rule = |direction| RuleRow::new(clock.new_id(), group, direction, RuleProtocol::Any, now);
    let to = |cidr: IpNet| RuleRow { remote_cidr: Some(cidr), ..rule(Direction::Egress) };
    let rows = [
        RuleRow { remote_group_id: Some(group), ..rule(Direction::Ingress) },
        to(Ipv4Net::default().into()),
        to(Ipv6Net::default().into()),
    ];
    rules::insert(conn, &rows).await?;
    Ok(group.into())
}
