//! SQL of the rules of security groups.

use std::collections::HashMap;

use ipnet::IpNet;
use protocol::agent::{Direction, RuleProtocol};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::auth::{Action, Allowed, InProject, actions};
use crate::clock::Clock;
use crate::http::{ApiError, ErrorCode, FieldError, Selector, violated_constraint};
use crate::security_groups::types::{CreateSecurityGroupRule, NamedProtocol, Protocol, SecurityGroupRule};

/// A rule's row; serialised for an insert, column by column.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RuleRow {
    pub id: Uuid,
    pub security_group_id: Uuid,
    pub direction: String,
    pub protocol: String,
    pub port_first: Option<i32>,
    pub port_last: Option<i32>,
    pub icmp_type: Option<i32>,
    pub icmp_code: Option<i32>,
    pub protocol_number: Option<i32>,
    pub remote_cidr: Option<IpNet>,
    pub remote_group_id: Option<Uuid>,
    pub description: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl RuleRow {
    /// A row that allows this; its other end is still to be said.
    pub(super) fn new(
        id: Uuid,
        group: Uuid,
        direction: Direction,
        protocol: RuleProtocol,
        now: OffsetDateTime,
    ) -> Self {
        let (name, ports, icmp, number) = match protocol {
            RuleProtocol::Any => ("any", None, (None, None), None),
            RuleProtocol::Tcp { ports } => ("tcp", Some(ports), (None, None), None),
            RuleProtocol::Udp { ports } => ("udp", Some(ports), (None, None), None),
            RuleProtocol::Icmp { icmp_type, icmp_code } => ("icmp", None, (icmp_type, icmp_code), None),
            RuleProtocol::Number { number } => ("number", None, (None, None), Some(number)),
        };
        Self {
            id,
            security_group_id: group,
            direction: match direction {
                Direction::Ingress => "ingress".to_owned(),
                Direction::Egress => "egress".to_owned(),
            },
            protocol: name.to_owned(),
            port_first: ports.map(|ports| ports.first.into()),
            port_last: ports.map(|ports| ports.last.into()),
            icmp_type: icmp.0.map(i32::from),
            icmp_code: icmp.1.map(i32::from),
            protocol_number: number.map(i32::from),
            remote_cidr: None,
            remote_group_id: None,
            description: String::new(),
            created_at: now,
        }
    }

    pub(super) fn direction(&self) -> Direction {
        if self.direction == "ingress" { Direction::Ingress } else { Direction::Egress }
    }

    pub(crate) fn to_wire(&self) -> Result<SecurityGroupRule, ApiError> {
        Ok(SecurityGroupRule {
            id: self.id.into(),
            direction: self.direction(),
            protocol: match self.protocol.as_str() {
                "tcp" => Protocol::Named(NamedProtocol::Tcp),
                "udp" => Protocol::Named(NamedProtocol::Udp),
                "icmp" => Protocol::Named(NamedProtocol::Icmp),
                "number" => Protocol::Number(small(self.protocol_number)?.unwrap_or_default()),
                _ => Protocol::Named(NamedProtocol::Any),
            },
            port_first: small(self.port_first)?,
            port_last: small(self.port_last)?,
            icmp_type: small(self.icmp_type)?,
            icmp_code: small(self.icmp_code)?,
            remote_cidr: self.remote_cidr,
            remote_group_id: self.remote_group_id.map(Into::into),
            description: self.description.clone(),
            created_at: self.created_at,
        })
    }

    /// Everything that tells one rule of a group from another.
    fn meaning(&self) -> impl Eq + std::hash::Hash + use<> {
        let Self { direction, protocol, remote_cidr, remote_group_id, .. } = self.clone();
        let numbers = [self.port_first, self.port_last, self.icmp_type, self.icmp_code, self.protocol_number];
        (direction, protocol, numbers, remote_cidr, remote_group_id)
    }
}

/// A number that the table's checks keep small.
pub(super) fn small<T: TryFrom<i32>>(number: Option<i32>) -> Result<Option<T>, sqlx::Error> {
    let narrowed = number.map(T::try_from).transpose();
    narrowed.map_err(|_| sqlx::Error::Decode("a number of a rule is out of its range".into()))
}

/// The rules of these groups, oldest first.
pub(crate) async fn of_groups(conn: &mut PgConnection, groups: &[Uuid]) -> Result<Vec<RuleRow>, sqlx::Error> {
    sqlx::query_as!(
        RuleRow,
        r#"SELECT id, security_group_id, direction, protocol, port_first, port_last, icmp_type, icmp_code,
                  protocol_number, remote_cidr AS "remote_cidr: IpNet", remote_group_id, description, created_at
           FROM security_group_rules WHERE security_group_id = ANY($1) ORDER BY id"#,
        groups
    )
    .fetch_all(conn)
    .await
}

/// Adds checked rules to a group; `at` points at the first of them in the body, or at the body.
pub(crate) async fn add<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    group: Uuid,
    rules: &[(String, &CreateSecurityGroupRule)],
    clock: &Clock,
    now: OffsetDateTime,
) -> Result<Vec<RuleRow>, ApiError> {
    let remotes = remote_groups(conn, allowed, rules).await?;
    let mut rows = Vec::with_capacity(rules.len());
    let mut seen = HashMap::new();
    for ((at, rule), remote) in rules.iter().zip(remotes) {
        let protocol = rule.protocol().map_err(|(_, message)| ApiError::internal(message))?;
        let mut row = RuleRow::new(clock.new_id(), group, rule.direction, protocol, now);
        row.remote_cidr = rule.remote_cidr;
        row.remote_group_id = remote;
        row.description.clone_from(&rule.description);
        if let Some(other) = seen.insert(row.meaning(), at) {
            let detail = format!("{other} and {at} are the same rule; leave one out");
            return Err(ApiError::because(ErrorCode::DuplicateRule, detail));
        }
        rows.push(row);
    }
    insert(conn, &rows).await?;
    Ok(rows)
}

/// The ids of the groups that the rules name, locked against deletion.
async fn remote_groups<A: Action<On: InProject>>(
    conn: &mut PgConnection,
    allowed: &Allowed<A>,
    rules: &[(String, &CreateSecurityGroupRule)],
) -> Result<Vec<Option<Uuid>>, ApiError> {
    let named: Vec<Option<Option<Selector>>> =
        rules.iter().map(|(_, rule)| rule.remote_group.as_deref().map(Selector::parse)).collect();
    let selectors = || named.iter().flatten().flatten();
    let ids: Vec<Uuid> = selectors().filter_map(Selector::id).collect();
    let names: Vec<String> = selectors().filter_map(|one| one.name().map(str::to_owned)).collect();
    let found = sqlx::query!(
        "SELECT id, name FROM security_groups WHERE project_id = $1 AND (id = ANY($2) OR name = ANY($3))
         ORDER BY id FOR KEY SHARE",
        allowed.project().as_uuid(),
        &ids,
        &names
    )
    .fetch_all(conn)
    .await?;
    let find = |selector: &Selector| {
        let same = |id: Uuid, name: &str| selector.id() == Some(id) || selector.name() == Some(name);
        found.iter().find(|row| same(row.id, &row.name)).map(|row| row.id)
    };
    let remotes: Vec<Option<Uuid>> =
        named.iter().map(|one| one.as_ref().and_then(Option::as_ref).and_then(find)).collect();
    let missing = rules.iter().zip(&named).zip(&remotes);
    let errors =
        missing.filter(|((_, named), found)| named.is_some() && found.is_none()).map(|(((at, _), _), _)| {
            FieldError::new(
                format!("{at}/remote_group"),
                "not_found",
                "the project has no such security group",
            )
        });
    ApiError::reject(errors.collect())?;
    Ok(remotes)
}

/// Inserts rows all at once.
pub(super) async fn insert(conn: &mut PgConnection, rows: &[RuleRow]) -> Result<(), ApiError> {
    let inserted = sqlx::query!(
        "INSERT INTO security_group_rules
             (id, security_group_id, direction, protocol, port_first, port_last, icmp_type, icmp_code,
              protocol_number, remote_cidr, remote_group_id, description, created_at)
         SELECT id, security_group_id, direction, protocol, port_first, port_last, icmp_type, icmp_code,
                protocol_number, remote_cidr, remote_group_id, description, created_at
         FROM jsonb_populate_recordset(NULL::security_group_rules, $1)",
        Json(rows) as _
    )
    .execute(conn)
    .await;
    inserted.map(drop).map_err(|error| match violated_constraint(&error) {
        Some("security_group_rules_unique") => ApiError::because(
            ErrorCode::DuplicateRule,
            "the group allows exactly this already; there is nothing to add",
        ),
        _ => error.into(),
    })
}

/// Removes one rule; `None` when the group has no such rule.
pub(crate) async fn remove(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::RemoveSecurityGroupRule>,
    group: Uuid,
    rule: Uuid,
) -> Result<Option<()>, sqlx::Error> {
    let removed = sqlx::query!(
        "DELETE FROM security_group_rules WHERE security_group_id = $1 AND id = $2",
        group,
        rule
    )
    .execute(conn)
    .await?;
    Ok((removed.rows_affected() > 0).then_some(()))
}

/// Removes all rules.
pub(crate) async fn clear(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::ReplaceSecurityGroupRules>,
    group: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query!("DELETE FROM security_group_rules WHERE security_group_id = $1", group)
        .execute(conn)
        .await?;
    Ok(())
}
