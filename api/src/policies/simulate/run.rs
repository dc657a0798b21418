//! Runs a simulation.

use std::sync::Arc;

use policy::{Deciding, Policy, Request};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::context::Facts;
use super::matter::{Matter, Mistake};
use super::store;
use super::types::{
    MAX_ACTIONS, MAX_POLICIES, SimulatePolicies, SimulatedDecision, Simulation, SimulationResult, one_subject,
};
use crate::app::App;
use crate::auth::{CredentialKind, DecidingStatement, PolicyVersion, ProjectRef, Rights, name_policies};
use crate::http::{Client, FieldError, Selector, validate_labels};
use crate::policies::attachments::store::{find_subject, no_subject};
use crate::policies::attachments::{Subject, SubjectKind};
use crate::policies::document::PolicyDocument;

/// A simulation whose fields are fine.
pub(super) struct Prepared {
    subject: Option<(SubjectKind, String)>,
    unsaved: Vec<Arc<Policy>>,
    boundary: Option<Arc<Policy>>,
    asked: SimulatePolicies,
}

/// What it is evaluated with: stored policies first, then unsaved ones.
struct Setting {
    versions: Vec<PolicyVersion>,
    rights: Rights,
    facts: Facts,
}

/// Who asks, from where and when: what the request has in common with a real one.
pub(super) struct Asker<'a> {
    pub app: &'a App,
    pub client: Client,
    pub now: OffsetDateTime,
    /// The project that the simulation may not leave.
    pub scope: Option<&'a ProjectRef>,
}

impl Prepared {
    /// Checks what needs no database.
    pub(super) fn new(asked: SimulatePolicies) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let named = (asked.user.as_deref(), asked.group.as_deref(), asked.service_account.as_deref());
        let subject = one_subject(named.0, named.1, named.2).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let subject = subject.map(|(kind, name)| (kind, name.to_owned()));
        if subject.is_none() && asked.policies.is_empty() && errors.is_empty() {
            let message = "name a user, a group or a service_account, or give policies";
            errors.push(FieldError::new("", "invalid", message));
        }
        let actions = asked.action.each("/action").len();
        if !(1..=MAX_ACTIONS).contains(&actions) {
            errors.push(FieldError::new("/action", "too_many", format!("from 1 to {MAX_ACTIONS} actions")));
        }
        if asked.policies.len() > MAX_POLICIES {
            errors.push(FieldError::new("/policies", "too_many", format!("at most {MAX_POLICIES} policies")));
        }
        let mut compile = |document: &PolicyDocument, pointer: &str| {
            document.check(pointer, &mut errors).map(|document| Arc::new(Policy::compile(&document)))
        };
        let documents = asked.policies.iter().take(MAX_POLICIES).enumerate();
        let unsaved =
            documents.filter_map(|(index, one)| compile(one, &format!("/policies/{index}"))).collect();
        let boundary =
            asked.api_key_policy.as_ref().and_then(|document| compile(document, "/api_key_policy"));
        if let Some(labels) = &asked.resource_labels {
            let before = errors.len();
            validate_labels(labels, &mut errors);
            errors[before..].iter_mut().for_each(|error| error.pointer = "/resource_labels".to_owned());
        }
        Facts::default().give(&asked.context, &mut errors);
        if errors.is_empty() { Ok(Self { subject, unsaved, boundary, asked }) } else { Err(errors) }
    }

    pub(super) async fn run(
        &self,
        conn: &mut PgConnection,
        asker: &Asker<'_>,
    ) -> Result<Simulation, Mistake> {
        let subject = self.subject(conn, asker).await?;
        let mut results = Vec::new();
        for (pointer, action) in self.asked.action.each("/action") {
            let resource = self.asked.resource.as_deref();
            let mut matter = Matter::find(conn, asker.scope, (&pointer, action), resource).await?;
            if let Some(labels) = &self.asked.resource_labels {
                matter.labels = Some(labels.clone());
            }
            let setting = self.setting(conn, asker, subject.as_ref(), &matter).await?;
            let mut result = setting.evaluate(&matter);
            name_policies(conn, &mut result.statements).await?;
            results.push(result);
        }
        Ok(Simulation { results })
    }

    async fn subject(&self, conn: &mut PgConnection, asker: &Asker<'_>) -> Result<Option<Subject>, Mistake> {
        let Some((kind, name)) = &self.subject else { return Ok(None) };
        let scope = asker.scope.map(|project| project.id);
        let found = match Selector::parse(name) {
            Some(selector) => find_subject(conn, scope, *kind, &selector).await?,
            None => None,
        };
        Ok(Some(found.ok_or_else(|| no_subject(*kind))?))
    }

    async fn setting(
        &self,
        conn: &mut PgConnection,
        asker: &Asker<'_>,
        subject: Option<&Subject>,
        matter: &Matter,
    ) -> Result<Setting, Mistake> {
        let versions = match subject.and_then(|subject| subject.id) {
            Some(id) => store::attached(conn, id, matter.place_of_attachments()).await?,
            None => Vec::new(),
        };
        let mut policies = asker.app.policies.get(conn, &versions).await?;
        policies.extend(self.unsaved.iter().cloned());
        // What is asked in a project is asked of policies that would be attached there.
        let cloud_wide = if asker.scope.is_some() { versions.len() } else { policies.len() };
        let rights = Rights { policies: policies.into(), cloud_wide, boundary: self.boundary.clone() };
        let mut facts = Facts::default();
        facts.assume(asker.client, asker.now, self.credential(subject));
        if let Some(subject) = subject {
            facts.extend(Facts::of(subject));
        }
        facts.give(&self.asked.context, &mut Vec::new());
        Ok(Setting { versions, rights, facts })
    }

    /// By which credential the principal comes, unless the context says it.
    fn credential(&self, subject: Option<&Subject>) -> Option<CredentialKind> {
        match (&self.boundary, subject.map(|subject| subject.kind)) {
            (Some(_), _) | (None, Some(SubjectKind::ServiceAccount)) => Some(CredentialKind::ApiKey),
            (None, Some(_)) => Some(CredentialKind::Session),
            (None, None) => None,
        }
    }
}

impl Setting {
    fn evaluate(&self, matter: &Matter) -> SimulationResult {
        let labels = matter.labels.as_ref();
        let context = self.facts.context(labels);
        let request = Request { action: matter.action.name, resource: matter.resource(), context: &context };
        let judgement = self.rights.judge(&request);
        let allowed = judgement.allowed();
        let denied_by_key = judgement.denied_by_boundary();
        let of_policies = judgement.decision.deciding.iter().filter(|_| !denied_by_key);
        let of_key = judgement.narrowed.iter().flat_map(|narrowed| &narrowed.deciding);
        let statements: Vec<_> = of_policies
            .map(|one| self.statement(one))
            .chain(of_key.map(|one| named(one, "/api_key_policy".to_owned())))
            .collect();
        let mut asked = policy::asked_keys(&self.rights.policies, &request);
        asked.extend(
            self.rights
                .boundary
                .as_ref()
                .map(|one| policy::asked_keys(std::slice::from_ref(one), &request))
                .into_iter()
                .flatten(),
        );
        SimulationResult {
            action: matter.action.name.to_owned(),
            resource: request.resource.to_string(),
            resource_exists: matter.exists(),
            decision: match (allowed, statements.is_empty()) {
                (true, _) => SimulatedDecision::Allowed,
                (false, false) => SimulatedDecision::ExplicitDeny,
                (false, true) => SimulatedDecision::ImplicitDeny,
            },
            denied_by_api_key_policy: denied_by_key,
            missing_context_keys: self.facts.missing(asked, labels),
            statements,
        }
    }

    fn statement(&self, one: &Deciding) -> DecidingStatement {
        match self.versions.get(one.policy) {
            Some(version) => DecidingStatement {
                policy_id: Some(version.policy),
                version: Some(version.version),
                ..DecidingStatement::from(one)
            },
            None => named(one, format!("/policies/{}", one.policy - self.versions.len())),
        }
    }
}

fn named(one: &Deciding, policy: String) -> DecidingStatement {
    DecidingStatement { policy: Some(policy), ..DecidingStatement::from(one) }
}
