//! What a host is told of security groups.

use std::collections::HashMap;
use std::net::IpAddr;

use protocol::PortId;
use protocol::agent::{PortRange, Remote, RuleProtocol, SecurityGroup, SecurityGroupRule};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rules::{self, RuleRow, small};

/// The groups that these ports are in, each with its rules, and groups at the other end with the addresses of
/// their members. Sorted, so that the same groups make the same document.
pub(crate) async fn of_ports(
    conn: &mut PgConnection,
    ports: &[PortId],
) -> Result<Vec<SecurityGroup>, sqlx::Error> {
    let ports: Vec<Uuid> = ports.iter().map(|port| port.as_uuid()).collect();
    let groups = sqlx::query_scalar!(
        "SELECT DISTINCT security_group_id FROM port_security_groups WHERE port_id = ANY($1) ORDER BY 1",
        &ports
    )
    .fetch_all(&mut *conn)
    .await?;
    let rows = rules::of_groups(conn, &groups).await?;
    let remotes: Vec<Uuid> = rows.iter().filter_map(|rule| rule.remote_group_id).collect();
    let mut members = members(conn, &remotes).await?;
    let mut rules: HashMap<Uuid, Vec<SecurityGroupRule>> = HashMap::new();
    for row in &rows {
        rules.entry(row.security_group_id).or_default().push(rule(row, &mut members)?);
    }
    let group = |id: Uuid| SecurityGroup { id: id.into(), rules: rules.remove(&id).unwrap_or_default() };
    Ok(groups.into_iter().map(group).collect())
}

/// The addresses of the cards in each of these groups. A port without an instance is nobody's: who makes one with an
/// address does not let that address in.
async fn members(
    conn: &mut PgConnection,
    groups: &[Uuid],
) -> Result<HashMap<Uuid, Vec<IpAddr>>, sqlx::Error> {
    // Networks may have equal addresses; a rule needs each but once.
    let rows = sqlx::query!(
        r#"SELECT DISTINCT m.security_group_id, a.address AS "address: IpAddr"
           FROM port_security_groups m
           JOIN ports p ON p.id = m.port_id AND p.instance_id IS NOT NULL
           JOIN subnet_addresses a ON a.port_id = p.id
           WHERE m.security_group_id = ANY($1) ORDER BY m.security_group_id, a.address"#,
        groups
    )
    .fetch_all(conn)
    .await?;
    let mut members: HashMap<Uuid, Vec<IpAddr>> = HashMap::new();
    for row in rows {
        members.entry(row.security_group_id).or_default().push(row.address);
    }
    Ok(members)
}

fn rule(row: &RuleRow, members: &mut HashMap<Uuid, Vec<IpAddr>>) -> Result<SecurityGroupRule, sqlx::Error> {
    let remote = match (row.remote_cidr, row.remote_group_id) {
        (Some(cidr), _) => Remote::Cidr { cidr },
        (None, Some(group)) => Remote::Group {
            group_id: group.into(),
            // Once in a document, however many rules name the group: hosts unite them.
            addresses: members.remove(&group).unwrap_or_default(),
        },
        (None, None) => return Err(sqlx::Error::Decode("a rule has no other end".into())),
    };
    Ok(SecurityGroupRule { direction: row.direction(), protocol: protocol(row)?, remote })
}

fn protocol(row: &RuleRow) -> Result<RuleProtocol, sqlx::Error> {
    let ports = || -> Result<PortRange, sqlx::Error> {
        let first = small(row.port_first)?.unwrap_or(0);
        Ok(PortRange { first, last: small(row.port_last)?.unwrap_or(u16::MAX) })
    };
    Ok(match row.protocol.as_str() {
        "tcp" => RuleProtocol::Tcp { ports: ports()? },
        "udp" => RuleProtocol::Udp { ports: ports()? },
        "icmp" => RuleProtocol::Icmp { icmp_type: small(row.icmp_type)?, icmp_code: small(row.icmp_code)? },
        "number" => RuleProtocol::Number { number: small(row.protocol_number)?.unwrap_or_default() },
        _ => RuleProtocol::Any,
    })
}
