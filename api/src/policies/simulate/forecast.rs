//! Answers to questions with gaps.

use std::sync::Arc;

use policy::{Forecast, Outlook, Policy, Question};
use protocol::ProjectId;
use sqlx::PgConnection;
use uuid::Uuid;

use super::context::Facts;
use super::matter::{Matter, Mistake};
use super::store;
use super::types::{Candidate, Capabilities, Capability, Prospect};
use crate::app::App;
use crate::auth::{DecidingStatement, PolicyVersion, ProjectRef, actions, name_policies};
use crate::http::ApiError;
use crate::policies::attachments::Subject;

/// The policies that decide for somebody somewhere.
struct Attached {
    versions: Vec<PolicyVersion>,
    policies: Vec<Arc<Policy>>,
}

impl Attached {
    async fn find(
        conn: &mut PgConnection,
        app: &App,
        subject: Uuid,
        place: Option<ProjectId>,
    ) -> Result<Self, ApiError> {
        let versions = store::attached(conn, subject, place).await?;
        let policies = app.policies.get(conn, &versions).await?;
        Ok(Self { versions, policies })
    }
}

/// Everything that somebody can do in a project, or in the cloud as a whole.
pub(super) async fn what_can(
    conn: &mut PgConnection,
    app: &App,
    project: Option<&ProjectRef>,
    subject: Subject,
) -> Result<Capabilities, Mistake> {
    let id = subject.id.unwrap_or_default();
    let in_project = Attached::find(conn, app, id, project.map(|project| project.id)).await?;
    let in_cloud = Attached::find(conn, app, id, None).await?;
    let facts = Facts::of(&subject);
    let mut items = Vec::new();
    for action in actions::ALL.iter().filter(|action| action.in_project == project.is_some()) {
        let matter = Matter::all(action, project);
        let Attached { versions, policies } =
            if matter.place_of_attachments().is_some() { &in_project } else { &in_cloud };
        let forecast = anticipate(policies, &facts, &matter);
        items.push(Capability {
            action: action.name.to_owned(),
            resource: matter.resource().to_string(),
            prospect: prospect(forecast.outlook),
            statements: statements(conn, versions, &forecast).await?,
        });
    }
    items.sort_by(|a, b| a.action.cmp(&b.action));
    Ok(Capabilities { disabled: store::disabled(conn, id).await?, subject, items })
}

/// Those who can do it, for sure or perhaps, in the order of their ids, from `after` on; at most `limit`.
pub(super) async fn who_can(
    conn: &mut PgConnection,
    app: &App,
    matter: &Matter,
    mut after: Uuid,
    limit: usize,
) -> Result<Vec<Candidate>, Mistake> {
    let project = matter.place_of_attachments();
    let mut candidates = Vec::new();
    loop {
        let batch = store::holders(conn, project, after).await?;
        for holder in &batch {
            let versions = holder.versions();
            let policies = app.policies.get(conn, &versions).await?;
            let subject = holder.subject();
            let forecast = anticipate(&policies, &Facts::of(&subject), matter);
            if forecast.outlook == Outlook::Denied {
                continue;
            }
            let statements = statements(conn, &versions, &forecast).await?;
            candidates.push(Candidate { subject, prospect: prospect(forecast.outlook), statements });
            if candidates.len() == limit {
                return Ok(candidates);
            }
        }
        match batch.last() {
            Some(last) => after = last.id,
            None => return Ok(candidates),
        }
    }
}

fn anticipate(policies: &[Arc<Policy>], facts: &Facts, matter: &Matter) -> Forecast {
    let labels = matter.labels.as_ref();
    let context = facts.context(labels);
    let known = |key: &str| facts.knows(key, labels);
    let question = Question {
        action: matter.action.name,
        resource: matter.resource(),
        context: &context,
        known: &known,
    };
    policy::anticipate(policies, &question)
}

fn prospect(outlook: Outlook) -> Prospect {
    match outlook {
        Outlook::Allowed => Prospect::Allowed,
        Outlook::Denied => Prospect::Denied,
        Outlook::Depends => Prospect::Depends,
    }
}

async fn statements(
    conn: &mut PgConnection,
    versions: &[PolicyVersion],
    forecast: &Forecast,
) -> Result<Vec<DecidingStatement>, sqlx::Error> {
    let told = forecast.deciding.iter().map(|one| {
        let version = versions.get(one.policy);
        DecidingStatement {
            policy_id: version.map(|version| version.policy),
            version: version.map(|version| version.version),
            ..DecidingStatement::from(one)
        }
    });
    let mut statements: Vec<_> = told.collect();
    if !statements.is_empty() {
        name_policies(conn, &mut statements).await?;
    }
    Ok(statements)
}
