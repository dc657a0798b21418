//! Handlers of the rules of security groups.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::load;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call, ErrorCode, MutationQuery, Path, Selector};
use crate::security_groups::model::MAX_RULES;
use crate::security_groups::store;
use crate::security_groups::types::{
    CreateSecurityGroupRule, ReplaceSecurityGroupRules, SecurityGroup, SecurityGroupRule,
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(add_security_group_rule, replace_security_group_rules))
        .routes(routes!(remove_security_group_rule))
}

/// The rules of a body, each with a pointer at it.
pub(super) fn pointed(rules: &[CreateSecurityGroupRule]) -> Vec<(String, &CreateSecurityGroupRule)> {
    rules.iter().enumerate().map(|(index, rule)| (format!("/rules/{index}"), rule)).collect()
}

/// Add a rule to a security group.
#[utoipa::path(post, path = "/v1/projects/{project}/security_groups/{security_group}/rules",
    tag = "security_groups", params(MutationQuery), request_body = CreateSecurityGroupRule, responses(
        (status = 201, body = SecurityGroupRule),
))]
async fn add_security_group_rule(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: CreateSecurityGroupRule = call.json()?;
    let mut errors = Vec::new();
    new.validate("", &mut errors);
    ApiError::reject(errors)?;
    let mut change = call.changing::<actions::AddSecurityGroupRule>(&app, (&project, &group)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, before) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&before);
    if before.rules.len() >= MAX_RULES {
        let detail = format!("the group has {MAX_RULES} rules, and no group has more; make another group");
        return Err(ApiError::because(ErrorCode::WrongState, detail));
    }
    row.generation += 1;
    row.updated_at = now;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    let added = store::rules::add(conn, allowed, row.id, &[(String::new(), &new)], &app.clock, now).await?;
    let added = added.first().ok_or_else(ApiError::not_found)?.to_wire()?;
    change.commit(StatusCode::CREATED, None, &added).await
}

/// Replace all rules of a security group at once. Needs `If-Match`, so that nobody's rule is overwritten unseen.
#[utoipa::path(put, path = "/v1/projects/{project}/security_groups/{security_group}/rules",
    tag = "security_groups",
    params(MutationQuery, ("If-Match" = String, Header, description = "The group's ETag, or `*`")),
    request_body = ReplaceSecurityGroupRules, responses(
        (status = 200, body = SecurityGroup),
))]
async fn replace_security_group_rules(
    State(app): State<App>,
    Path((project, group)): Path<(String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let new: ReplaceSecurityGroupRules = call.json()?;
    ApiError::reject(new.validate())?;
    let mut change = call.changing::<actions::ReplaceSecurityGroupRules>(&app, (&project, &group)).await?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, before) = load(conn, allowed).await?;
    change.require_if_match(row.version())?;
    change.note_before(&before);
    row.generation += 1;
    row.updated_at = now;
    let (conn, allowed) = change.parts();
    store::update(conn, allowed, &row).await?;
    store::rules::clear(conn, allowed, row.id).await?;
    let rules = store::rules::add(conn, allowed, row.id, &pointed(&new.rules), &app.clock, now).await?;
    let version = row.version();
    change.commit(StatusCode::OK, Some(version), &row.into_wire(&rules)?).await
}

/// Remove a rule from a security group. Connections that only this rule allowed end.
#[utoipa::path(delete, path = "/v1/projects/{project}/security_groups/{security_group}/rules/{rule}",
    tag = "security_groups", params(MutationQuery), responses(
        (status = 204),
))]
async fn remove_security_group_rule(
    State(app): State<App>,
    Path((project, group, rule)): Path<(String, String, String)>,
    call: Call,
) -> Result<Response, ApiError> {
    let mut change = call.changing::<actions::RemoveSecurityGroupRule>(&app, (&project, &group)).await?;
    let rule = Selector::parse(&rule).and_then(|rule| rule.id()).ok_or_else(ApiError::not_found)?;
    let now = change.now;
    let (conn, allowed) = change.parts();
    let (mut row, before) = load(conn, allowed).await?;
    change.check_if_match(row.version())?;
    change.note_before(&before);
    row.generation += 1;
    row.updated_at = now;
    let (conn, allowed) = change.parts();
    store::rules::remove(conn, allowed, row.id, rule).await?.ok_or_else(ApiError::not_found)?;
    store::update(conn, allowed, &row).await?;
    change.commit(StatusCode::NO_CONTENT, None, &json!(null)).await
}
