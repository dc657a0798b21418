//! The decision: may this caller do this action on that resource, and which statements say so.
//!
//! A denial shows itself only to those who may see the resource; to everybody else the resource does not
//! exist, in the same words as for a name that was never given.

use policy::{Context, Effect, Names, Request, Resource};
use protocol::ProjectId;
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;
use uuid::Uuid;

use super::action::{Action, Fact, Place, What, actions};
use super::caller::{Caller, ProjectRef};
use super::kind::{Identity, Kind};
use super::proof::{Allowed, Proof};
use super::rights::Judgement;
use super::vocabulary::keys;
use crate::http::{ApiError, ErrorCode, Selector};

/// No project has this name: what is certain of it, is certain of every project that no policy singles out.
const NO_PROJECT: Names<'_> = Names { name: "-", id: None };

/// A statement that made a decision.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DecidingStatement {
    /// Absent for the policy of an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Uuid>,
    /// Name of the policy, where it is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// Counted from 0.
    pub statement: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// `Allow` or `Deny`.
    #[schema(example = "Deny")]
    pub effect: &'static str,
}

/// What was decided about what.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub action: &'static str,
    pub resource: String,
    pub resource_id: Option<Uuid>,
    pub project: Option<ProjectId>,
    pub deciding: Vec<DecidingStatement>,
}

/// Why a call was denied, for whoever may know.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Denial {
    #[schema(example = "compute:DeleteInstance")]
    pub action: String,
    #[schema(example = "crn:cumulo:compute:shop:instance/db")]
    pub resource: String,
    /// The statements that deny; empty when none allows.
    pub statements: Vec<DecidingStatement>,
}

/// A decision against the caller.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub error: ApiError,
    /// What to keep in the audit log; nothing when there was nothing to decide about.
    pub decided: Option<Box<Decided>>,
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self { error, decided: None }
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        ApiError::from(error).into()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// The outcome of an evaluation.
pub(super) struct Verdict {
    pub allowed: bool,
    pub deciding: Vec<DecidingStatement>,
}

/// What a decision is about, once the database has been asked.
pub(super) struct Subject<'a> {
    pub kind: Kind,
    pub project: Option<&'a ProjectRef>,
    pub what: What<'a>,
    pub identity: Option<&'a Identity>,
}

impl Caller {
    /// Decides whether the caller may do `A` at the place that the request names.
    ///
    /// With `lock`, a resource that exists is locked until the transaction ends, so that nobody renames or
    /// relabels it between the decision and the deed.
    ///
    /// # Errors
    /// `not_found` when there is no such project or resource, or when the caller may not know of it;
    /// `forbidden` with the deciding statements otherwise.
    pub(crate) async fn decide<A: Action>(
        &self,
        conn: &mut PgConnection,
        path: <A::On as Place>::Path<'_>,
        lock: bool,
    ) -> Result<Allowed<A>, Refusal> {
        let target = <A::On as Place>::target(path);
        if target.project.is_some() && self.project.is_none() {
            return Err(ApiError::not_found().into());
        }
        let project = self.project.as_ref().filter(|_| target.project.is_some());
        let selector = match target.what {
            What::Existing(segment) => Some(Selector::parse(segment).ok_or_else(ApiError::not_found)?),
            What::Collection | What::New(_) => None,
        };
        if !lock && let Some(verdict) = self.foresee(A::NAME, A::KIND, project).filter(|v| v.allowed) {
            let decided = self.decided(A::NAME, None, String::new(), project, verdict);
            return Ok(self.prove(project, selector, decided));
        }
        let itself = matches!(target.what, What::Collection) && A::KIND == Kind::Project && project.is_some();
        let identity = if itself || selector.is_some() {
            let id = project.map(|project| project.id);
            A::KIND.identify(conn, id, selector.as_ref(), lock).await?
        } else {
            None
        };
        if identity.is_none() && (itself || selector.is_some()) {
            return Err(ApiError::not_found().into());
        }
        let subject = Subject { kind: A::KIND, project, what: target.what, identity: identity.as_ref() };
        let verdict = self.judge(A::NAME, &subject);
        let allowed = verdict.allowed;
        let resource_id = identity.as_ref().map(|identity| identity.id);
        let decided = self.decided(A::NAME, resource_id, subject.resource_name(), project, verdict);
        if allowed {
            let target = resource_id.filter(|_| selector.is_some()).map(Selector::Id);
            return Ok(self.prove(project, target, decided));
        }
        let seen = self.sees(&subject);
        Err(Refusal { error: self.refuse(conn, seen, &decided).await?, decided: Some(Box::new(decided)) })
    }

    /// The decision, when it is the same for every resource of the kind here.
    fn foresee(&self, action: &str, kind: Kind, project: Option<&ProjectRef>) -> Option<Verdict> {
        let id = project.map(|project| project.id.to_string());
        let names = project.zip(id.as_deref()).map(|(p, id)| Names { name: p.name.as_str(), id: Some(id) });
        self.rights.foresee(action, kind, names).map(|judgement| self.verdict(judgement))
    }

    pub(super) fn judge(&self, action: &str, subject: &Subject<'_>) -> Verdict {
        let mut context = self.context();
        subject.describe(&mut context);
        let ids = subject.ids();
        self.verdict(self.rights.judge(&Request {
            action,
            resource: subject.resource(&ids),
            context: &context,
        }))
    }

    fn verdict(&self, judgement: Judgement) -> Verdict {
        let allowed = judgement.allowed();
        let of_policies = judgement.decision.deciding.iter().map(|one| {
            let version = self.versions.get(one.policy);
            DecidingStatement {
                policy_id: version.map(|version| version.policy),
                version: version.map(|version| version.version),
                ..DecidingStatement::from(one)
            }
        });
        let narrowed = judgement.narrowed;
        let of_policies = of_policies.filter(|_| narrowed.as_ref().is_none_or(|narrowed| narrowed.allowed));
        let of_key = narrowed.iter().flat_map(|narrowed| &narrowed.deciding).map(DecidingStatement::from);
        Verdict { allowed, deciding: of_policies.chain(of_key).collect() }
    }

    /// Whether the caller may know that the subject exists.
    fn sees(&self, subject: &Subject<'_>) -> bool {
        match (subject.what, subject.project) {
            (What::Existing(_), _) => self.judge(subject.kind.seen_with(), subject).allowed,
            (_, None) => true,
            (_, Some(project)) => self.member || self.sees_project(project),
        }
    }

    fn sees_project(&self, project: &ProjectRef) -> bool {
        let identity = Identity {
            id: project.id.as_uuid(),
            name: project.name.as_str().to_owned(),
            labels: project.labels.clone(),
        };
        let itself = Subject {
            kind: Kind::Project,
            project: Some(project),
            what: What::Collection,
            identity: Some(&identity),
        };
        self.judge(<actions::GetProject as Action>::NAME, &itself).allowed
    }

    pub(super) fn decided(
        &self,
        action: &'static str,
        resource_id: Option<Uuid>,
        resource: String,
        project: Option<&ProjectRef>,
        verdict: Verdict,
    ) -> Decided {
        let project = project.map(|project| project.id);
        Decided { action, resource, resource_id, project, deciding: verdict.deciding }
    }

    fn prove<A: Action>(
        &self,
        project: Option<&ProjectRef>,
        target: Option<Selector>,
        decided: Decided,
    ) -> Allowed<A> {
        let everywhere = self.rights.foresee(Kind::Project.seen_with(), Kind::Project, Some(NO_PROJECT));
        Allowed::new(Proof {
            principal: self.principal.clone(),
            project: project.cloned(),
            target,
            sees_all_projects: everywhere.is_some_and(|judgement| judgement.allowed()),
            decided,
        })
    }

    pub(super) async fn refuse(
        &self,
        conn: &mut PgConnection,
        seen: bool,
        decided: &Decided,
    ) -> Result<ApiError, sqlx::Error> {
        if !seen {
            return Ok(ApiError::not_found());
        }
        let mut statements = decided.deciding.clone();
        name_policies(conn, &mut statements).await?;
        let sentence = self.sentence(decided, &statements);
        let denial =
            Denial { action: decided.action.to_owned(), resource: decided.resource.clone(), statements };
        Ok(ApiError::because(ErrorCode::Forbidden, sentence).explained(denial))
    }

    fn sentence(&self, decided: &Decided, statements: &[DecidingStatement]) -> String {
        let deed = format!("{} on {}", decided.action, decided.resource);
        let Some(first) = statements.first() else {
            let narrowed = self.rights.boundary.is_some();
            let suffix = if narrowed { ", or the policy of this API key does not" } else { "" };
            return format!("no policy that is attached to you allows {deed}{suffix}");
        };
        let statement = match &first.sid {
            Some(sid) => format!("statement {sid}"),
            None => format!("statement number {}", first.statement + 1),
        };
        match &first.policy {
            Some(policy) => format!("policy {policy}, {statement}, denies {deed}"),
            None => format!("the policy of this API key, {statement}, denies {deed}"),
        }
    }
}

/// Fills in the names of policies.
pub(crate) async fn name_policies(
    conn: &mut PgConnection,
    statements: &mut [DecidingStatement],
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = statements.iter().filter_map(|one| one.policy_id).collect();
    let names =
        sqlx::query!("SELECT id, name FROM policies WHERE id = ANY($1)", &ids).fetch_all(conn).await?;
    for statement in statements {
        if let Some(row) = names.iter().find(|row| Some(row.id) == statement.policy_id) {
            statement.policy = Some(row.name.clone());
        }
    }
    Ok(())
}

/// Nothing is known of the policy.
impl From<&policy::Deciding> for DecidingStatement {
    fn from(one: &policy::Deciding) -> Self {
        Self {
            policy_id: None,
            policy: None,
            version: None,
            statement: one.statement,
            sid: one.sid.clone(),
            effect: match one.effect {
                Effect::Allow => "Allow",
                Effect::Deny => "Deny",
            },
        }
    }
}

/// Ids as text, for as long as an evaluation needs them.
struct Ids {
    project: Option<String>,
    target: Option<String>,
}

impl Subject<'_> {
    fn ids(&self) -> Ids {
        Ids {
            project: self.project.map(|project| project.id.to_string()),
            target: self.identity.map(|identity| identity.id.to_string()),
        }
    }

    fn resource<'a>(&'a self, ids: &'a Ids) -> Resource<'a> {
        let target = match (self.identity, self.what) {
            (Some(identity), _) => Some(Names { name: &identity.name, id: ids.target.as_deref() }),
            (None, What::New(new)) => Some(Names { name: new.name, id: None }),
            (None, _) => None,
        };
        let project =
            self.project.map(|project| Names { name: project.name.as_str(), id: ids.project.as_deref() });
        Resource { service: self.kind.service(), project, kind: self.kind.as_str(), target }
    }

    pub(super) fn resource_name(&self) -> String {
        let ids = self.ids();
        self.resource(&ids).to_string()
    }

    /// Fills in the condition keys about the resource and the request.
    fn describe(&self, context: &mut Context) {
        if let Some(identity) = self.identity {
            for (key, value) in &identity.labels {
                context.set(format!("{}{key}", keys::RESOURCE_LABEL), value.as_str());
            }
        }
        let What::New(new) = self.what else { return };
        for (key, value) in new.labels {
            context.set(format!("{}{key}", keys::REQUEST_LABEL), value.as_str());
        }
        context.set_many(keys::LABEL_KEYS, new.labels.keys().map(|key| key.as_str().into()).collect());
        for (key, fact) in new.facts {
            match fact {
                Fact::Text(text) => context.set(*key, *text),
                Fact::Number(number) => context.set(*key, *number),
            }
        }
    }
}
