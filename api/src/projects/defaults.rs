//! What every project begins with.

use protocol::ProjectId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use crate::clock::Clock;
use crate::http::{ApiError, Labels};
use crate::networks::store::{NewNetwork, insert_default};
use crate::subnets::{NewSubnet, insert_planned, plan_default};
use crate::{routers, security_groups};

const NAME: &str = "default";
const DESCRIPTION: &str = "Made with the project; what an instance gets that asks for no network";
/// Each project has its own: networks of different projects never meet.
const CIDR: &str = "10.0.0.0/24";
const MTU: i32 = 1450;

/// Makes the network `default` with the subnet `default`, the router `default` that leads out of it, and the
/// security group `default`.
pub(super) async fn make(
    conn: &mut PgConnection,
    project: ProjectId,
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<(), ApiError> {
    let (labels, name) = (Labels::new(), NAME);
    let network = NewNetwork {
        id: clock.new_id(),
        project,
        name,
        description: DESCRIPTION,
        labels: &labels,
        mtu: MTU,
        is_default: true,
        now,
    };
    insert_default(conn, &network).await?;
    let plan = CIDR
        .parse()
        .ok()
        .and_then(plan_default)
        .ok_or_else(|| ApiError::internal("the default subnet cannot be planned"))?;
    let subnet = NewSubnet {
        id: clock.new_id(),
        project,
        network: network.id,
        name,
        labels: &labels,
        plan: &plan,
        dns_servers: &[],
        dhcp: true,
        now,
    };
    insert_planned(conn, &subnet).await?;
    routers::store::defaults::make(conn, clock, project, subnet.id, now).await?;
    security_groups::store::defaults::make(conn, clock, project, now).await?;
    Ok(())
}
