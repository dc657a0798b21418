//! What a host is told of security groups.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use protocol::agent::{PortRange, Remote, RuleProtocol, SecurityGroup, SecurityGroupRule};
use sqlx::PgConnection;
use uuid::Uuid;

use super::rules::{self, RuleRow, small};

/// The groups of some ports, each with its rules, and the members of groups at the other end.
#[derive(Debug)]
pub(crate) struct Groups {
    by_port: HashMap<Uuid, Vec<Uuid>>,
    rules: Vec<RuleRow>,
    members: HashMap<Uuid, Vec<IpAddr>>,
}

/// What [`Groups::told`] needs to know of these ports.
pub(crate) async fn of_ports(conn: &mut PgConnection, ports: &[Uuid]) -> Result<Groups, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT port_id, security_group_id FROM port_security_groups WHERE port_id = ANY($1)
         ORDER BY security_group_id",
        ports
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut by_port: HashMap<_, Vec<_>> = HashMap::new();
    for row in rows {
        by_port.entry(row.port_id).or_default().push(row.security_group_id);
    }
    let groups: Vec<_> = by_port.values().flatten().copied().collect::<BTreeSet<_>>().into_iter().collect();
    let rules = rules::of_groups(conn, &groups).await?;
    let remotes: BTreeSet<_> = rules.iter().filter_map(|rule| rule.remote_group_id).collect();
    let members = members(conn, &remotes.into_iter().collect::<Vec<_>>()).await?;
    Ok(Groups { by_port, rules, members })
}

impl Groups {
    /// The groups of a port, by id.
    pub(crate) fn of_port(&self, port: Uuid) -> &[Uuid] {
        self.by_port.get(&port).map(Vec::as_slice).unwrap_or_default()
    }

    /// What a host with these ports is told. Sorted, so that the same groups make the same document.
    pub(crate) fn told(&self, ports: &BTreeSet<Uuid>) -> Result<Vec<SecurityGroup>, sqlx::Error> {
        let groups = ports.iter().flat_map(|&port| self.of_port(port));
        let mut rules: BTreeMap<Uuid, Vec<SecurityGroupRule>> =
            groups.map(|&group| (group, Vec::new())).collect();
        let mut named = HashSet::new();
        for row in &self.rules {
            if let Some(of_group) = rules.get_mut(&row.security_group_id) {
                of_group.push(self.rule(row, &mut named)?);
            }
        }
        Ok(rules.into_iter().map(|(id, rules)| SecurityGroup { id: id.into(), rules }).collect())
    }

    /// Members are told with the first rule that names their group: hosts unite them.
    fn rule(&self, row: &RuleRow, named: &mut HashSet<Uuid>) -> Result<SecurityGroupRule, sqlx::Error> {
        let remote = match (row.remote_cidr, row.remote_group_id) {
            (Some(cidr), _) => Remote::Cidr { cidr },
            (None, Some(group)) => {
                let members = self.members.get(&group).filter(|_| named.insert(group));
                Remote::Group { group_id: group.into(), addresses: members.cloned().unwrap_or_default() }
            }
            (None, None) => return Err(sqlx::Error::Decode("a rule has no other end".into())),
        };
        Ok(SecurityGroupRule { direction: row.direction(), protocol: protocol(row)?, remote })
    }
}

/// The addresses of the cards in each of these groups. A port without an instance, or on its way out of one, is nobody's:
/// who makes one with an address does not let that address in.
async fn members(
    conn: &mut PgConnection,
    groups: &[Uuid],
) -> Result<HashMap<Uuid, Vec<IpAddr>>, sqlx::Error> {
    // Networks may have equal addresses; a rule needs each but once.
    let rows = sqlx::query!(
        r#"SELECT DISTINCT m.security_group_id, a.address AS "address: IpAddr"
           FROM port_security_groups m
           JOIN ports p ON p.id = m.port_id AND p.instance_id IS NOT NULL AND NOT p.detaching
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
