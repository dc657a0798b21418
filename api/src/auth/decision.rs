//! The decision: may this caller do this action on that resource, and which statements say so.
//!
//! A denial shows itself only to those who may see the resource; to everybody else the resource does not
//! exist, in the same words as for a name that was never given.

use policy::{Names, Place as Where, Request};
use sqlx::PgConnection;
use uuid::Uuid;

use super::action::{Action, Place, What, actions};
use super::caller::{Caller, ProjectRef};
use super::deciding::{Decided, DecidingStatement, Verdict};
use super::denial::Refusal;
use super::kind::{Identity, Kind};
use super::proof::{Allowed, Proof};
use super::rights::{Judgement, Rights};
use super::subject::Subject;
use crate::http::{ApiError, Selector};

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
        if self.password_change_required && A::NAME != <actions::ChangeUserPassword as Action>::NAME {
            return Err(self.restricted(A::NAME, A::KIND, target));
        }
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
        if !self.sees(&subject) {
            return Err(Refusal::unseen(decided));
        }
        let sentence = self.sentence(&decided);
        Err(Refusal::explained(decided, sentence))
    }

    /// The decision, when it is the same for every resource of the kind here.
    fn foresee(&self, action: &str, kind: Kind, project: Option<&ProjectRef>) -> Option<Verdict> {
        let id = project.map(|project| project.id.to_string());
        let names = project.zip(id.as_deref()).map(|(p, id)| Names { name: p.name.as_str(), id: Some(id) });
        self.rights.foresee(action, kind, Where::from(names)).map(|judgement| self.verdict(&judgement))
    }

    pub(super) fn judge(&self, action: &str, subject: &Subject<'_>) -> Verdict {
        self.verdict(&self.judgement(&self.rights, action, subject))
    }

    /// The outcome if the caller had these rights.
    fn judgement(&self, rights: &Rights, action: &str, subject: &Subject<'_>) -> Judgement {
        let mut context = self.context();
        subject.describe(&mut context);
        let ids = subject.ids();
        rights.judge(&Request { action, resource: subject.resource(&ids), context: &context })
    }

    fn verdict(&self, judgement: &Judgement) -> Verdict {
        let (allowed, denied_by_key) = (judgement.allowed(), judgement.denied_by_boundary());
        let of_policies = judgement.decision.deciding.iter().filter(|_| !denied_by_key);
        let of_key = judgement.narrowed.iter().flat_map(|narrowed| &narrowed.deciding);
        let deciding = of_policies.map(|one| self.statement(one)).chain(of_key.map(DecidingStatement::from));
        Verdict { allowed, deciding: deciding.collect(), denied_by_key }
    }

    /// A statement of one of the caller's policies, with what is known of the policy.
    pub(super) fn statement(&self, one: &policy::Deciding) -> DecidingStatement {
        let applied = self.applied.get(one.policy);
        DecidingStatement {
            policy_id: applied.map(|applied| applied.version.policy),
            policy: applied.map(|applied| applied.name.clone()),
            version: applied.map(|applied| applied.version.version),
            ..DecidingStatement::from(one)
        }
    }

    /// Whether the caller may list the hosts of the cloud, and so be told on which of them something is. What is attached
    /// in a project is of no account.
    pub(crate) fn knows_hosts(&self) -> bool {
        let hosts = Subject { kind: Kind::Host, project: None, what: What::Collection, identity: None };
        let action = <actions::ListHosts as Action>::NAME;
        self.judgement(&self.rights.in_cloud(), action, &hosts).allowed()
    }

    /// Whether the caller may know that the subject exists.
    fn sees(&self, subject: &Subject<'_>) -> bool {
        match (subject.what, subject.project) {
            (What::Existing(_), _) => self.judge(subject.kind.seen_with(), subject).allowed,
            (_, None) => true,
            (_, Some(project)) => self.member || self.may_get_with(&self.rights, project),
        }
    }

    /// Whether the caller may get this project, if they had these rights.
    pub(super) fn may_get_with(&self, rights: &Rights, project: &ProjectRef) -> bool {
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
        self.judgement(rights, <actions::GetProject as Action>::NAME, &itself).allowed()
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
        let Verdict { deciding, denied_by_key, .. } = verdict;
        let password_change_required = false;
        Decided { action, resource, resource_id, project, deciding, denied_by_key, password_change_required }
    }

    fn prove<A: Action>(
        &self,
        project: Option<&ProjectRef>,
        target: Option<Selector>,
        decided: Decided,
    ) -> Allowed<A> {
        Allowed::new(Proof { principal: self.principal.clone(), project: project.cloned(), target, decided })
    }
}
