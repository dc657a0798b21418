//! Policies call resources by name and by label, and both can change: nobody renames or relabels their way into
//! a right, or out of a denial.

use policy::{Names, Renaming};
use sqlx::PgConnection;
use uuid::Uuid;

use super::action::{Action, ActionInfo, New, What, actions};
use super::caller::{Caller, ProjectRef};
use super::deciding::{DecidingStatement, Verdict};
use super::denial::Refusal;
use super::kind::{Identity, Kind};
use super::subject::Subject;
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
            return Err(self.refuse_change(A::NAME, &subject, verdict, |_, sentence| sentence));
        }
        if before.name != after.name {
            self.decide_renamed_oneself::<A>(&change)?;
        }
        if let Some((gained, verdict)) = self.gained(A::KIND, &change) {
            let subject = change.before(A::KIND);
            let with = "with this name and these labels you could do what you may not do now: ";
            let refusal =
                self.refuse_change(gained, &subject, verdict, |_, sentence| format!("{with}{sentence}"));
            return Err(refusal.attempting(A::NAME));
        }
        match (project, renamed.as_ref()) {
            (Some(old), Some(new)) if old.name != new.name => self.decide_renamed_project::<A>(old, new),
            _ => Ok(()),
        }
    }

    /// Policies may call principals by name, so nobody chooses their own.
    fn decide_renamed_oneself<A: Action>(&self, change: &Change<'_>) -> Result<(), Refusal> {
        let id = change.before.0.id;
        let sentence = if id == self.principal.id.as_uuid() {
            "nobody renames themselves, because policies may call them by name; ask somebody else who may do this"
        } else if self.principal.home.as_ref().is_some_and(|home| home.id.as_uuid() == id) {
            "no service account renames its own project, because policies call the account by both names; ask \
             somebody else who may do this"
        } else {
            return Ok(());
        };
        let verdict = Verdict { allowed: false, deciding: Vec::new(), denied_by_key: false };
        Err(self.refuse_change(A::NAME, &change.before(A::KIND), verdict, |_, _| sentence.to_owned()))
    }

    /// The name of a project is a part of the name of everything in it.
    fn decide_renamed_project<A: Action>(&self, old: &ProjectRef, new: &ProjectRef) -> Result<(), Refusal> {
        let (id, context) = (old.id.to_string(), self.principal.context());
        let (before, after) = (old.name.as_str(), new.name.as_str());
        let renaming = Renaming {
            before: Names { name: before, id: Some(&id) },
            after: Names { name: after, id: Some(&id) },
            context: &context,
        };
        let mut in_project = actions::ALL.iter().filter(|action| action.in_project);
        let loosened = in_project.find_map(|action| Some((action, self.rights.loosened(action, &renaming)?)));
        let Some((action, loosened)) = loosened else { return Ok(()) };
        let of_policies = loosened.of_policies.iter().map(|one| self.statement(one));
        let of_key = loosened.of_boundary.iter().map(DecidingStatement::from);
        let verdict =
            Verdict { allowed: false, deciding: of_policies.chain(of_key).collect(), denied_by_key: false };
        let subject =
            Subject { kind: action.kind, project: Some(old), what: What::Collection, identity: None };
        let refusal = self.refuse_change(action.name, &subject, verdict, |first, _| {
            let statement = first.map(DecidingStatement::name).unwrap_or_default();
            let name = action.name;
            format!(
                "under the name {after} you could do in this project what you may not do now: {statement}, tells \
                 {before} from {after} and is about {name}; ask somebody whom it does not bind, or let it call \
                 the project by its id"
            )
        });
        Err(refusal.attempting(A::NAME))
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

    /// A refusal in the words that `say` makes of the first statement and of the usual sentence.
    fn refuse_change(
        &self,
        action: &'static str,
        subject: &Subject<'_>,
        verdict: Verdict,
        say: impl FnOnce(Option<&DecidingStatement>, String) -> String,
    ) -> Refusal {
        let id = subject.identity.map(|identity| identity.id);
        let decided = self.decided(action, id, subject.resource_name(), subject.project, verdict);
        let sentence = say(decided.deciding.first(), self.sentence(&decided));
        Refusal::explained(decided, sentence)
    }
}

impl Refusal {
    /// What the audit log says was attempted.
    fn attempting(mut self, action: &'static str) -> Self {
        if let Some(decided) = &mut self.decided {
            decided.action = action;
        }
        self
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
