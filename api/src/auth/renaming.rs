//! Policies call resources by name and by label, and both can change: nobody renames or relabels their way into
//! a right, or out of a denial.

use sqlx::PgConnection;
use uuid::Uuid;

use super::action::{Action, ActionInfo, New, What, actions};
use super::caller::{Caller, ProjectRef};
use super::decision::{Refusal, Subject, Verdict};
use super::kind::{Identity, Kind};
use crate::http::{ApiError, Labels, Selector};

/// A resource before the change and after it, each in its project.
struct Change<'a> {
    before: (&'a Identity, Option<&'a ProjectRef>),
    after: (&'a Identity, Option<&'a ProjectRef>),
}

impl Caller {
    /// Decides about a change of name or labels, before it is written: the action has to be allowed on the
    /// resource as it will be, too, and nothing may become possible to the caller that is not possible now.
    pub(crate) async fn decide_renamed<A: Action>(
        &self,
        conn: &mut PgConnection,
        id: Uuid,
        name: &str,
        labels: &Labels,
    ) -> Result<(), Refusal> {
        let project = self.project.as_ref();
        let itself = A::KIND == Kind::Project;
        let renamed = project.filter(|_| itself).cloned().map(|mut project| {
            project.name = name.parse().unwrap_or(project.name);
            project
        });
        let selector = (!itself).then_some(Selector::Id(id));
        let place = project.map(|project| project.id);
        let before = A::KIND.identify(conn, place, selector.as_ref(), false).await?;
        let before = before.ok_or_else(ApiError::not_found)?;
        let after = Identity { id, name: name.to_owned(), labels: labels.clone() };
        let change = Change { before: (&before, project), after: (&after, renamed.as_ref().or(project)) };

        let what = What::New(New { name, labels, facts: &[] });
        let subject = Subject { kind: A::KIND, project: change.after.1, what, identity: Some(&after) };
        let verdict = self.judge(A::NAME, &subject);
        if !verdict.allowed {
            return Err(self.refuse_renaming(conn, A::NAME, &subject, verdict, None).await?);
        }
        match self.gained(A::KIND, &change) {
            None => Ok(()),
            Some((action, verdict)) => {
                let subject = change.before(A::KIND);
                Err(self.refuse_renaming(conn, A::NAME, &subject, verdict, Some(action)).await?)
            }
        }
    }

    /// An action that is denied on the resource as it is and would be allowed on what becomes of it.
    fn gained(&self, kind: Kind, change: &Change<'_>) -> Option<(&'static str, Verdict)> {
        let in_project = change.before.1.is_some();
        let here =
            |action: &&ActionInfo| action.kind == kind && action.in_project == in_project && !action.makes;
        actions::ALL.iter().filter(here).find_map(|action| {
            let before = self.judge(action.name, &change.before(kind));
            let gained = !before.allowed && self.judge(action.name, &change.after(kind)).allowed;
            gained.then_some((action.name, before))
        })
    }

    async fn refuse_renaming(
        &self,
        conn: &mut PgConnection,
        attempted: &'static str,
        subject: &Subject<'_>,
        verdict: Verdict,
        gained: Option<&'static str>,
    ) -> Result<Refusal, sqlx::Error> {
        let denied = gained.unwrap_or(attempted);
        let id = subject.identity.map(|identity| identity.id);
        let mut decided = self.decided(denied, id, subject.resource_name(), subject.project, verdict);
        let mut error = self.refuse(conn, true, &decided).await?;
        if gained.is_some() {
            error = error.prefixed("with this name and these labels you could do what you may not do now: ");
        }
        decided.action = attempted;
        Ok(Refusal { error, decided: Some(Box::new(decided)) })
    }
}

impl Change<'_> {
    fn before(&self, kind: Kind) -> Subject<'_> {
        subject(kind, self.before)
    }

    fn after(&self, kind: Kind) -> Subject<'_> {
        subject(kind, self.after)
    }
}

fn subject<'a>(kind: Kind, (identity, project): (&'a Identity, Option<&'a ProjectRef>)) -> Subject<'a> {
    Subject { kind, project, what: What::Collection, identity: Some(identity) }
}
