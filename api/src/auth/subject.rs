//! What a decision is about, as policies see it.

use policy::{Context, Names, Resource};

use super::action::{Fact, What};
use super::caller::ProjectRef;
use super::kind::{Identity, Kind};
use super::vocabulary::keys;

/// What a decision is about, once the database has been asked.
pub(super) struct Subject<'a> {
    pub kind: Kind,
    pub project: Option<&'a ProjectRef>,
    pub what: What<'a>,
    pub identity: Option<&'a Identity>,
}

/// Ids as text, for as long as an evaluation needs them.
pub(super) struct Ids {
    project: Option<String>,
    target: Option<String>,
}

impl Subject<'_> {
    pub(super) fn ids(&self) -> Ids {
        Ids {
            project: self.project.map(|project| project.id.to_string()),
            target: self.identity.map(|identity| identity.id.to_string()),
        }
    }

    pub(super) fn resource<'a>(&'a self, ids: &'a Ids) -> Resource<'a> {
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
    pub(super) fn describe(&self, context: &mut Context) {
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
                Fact::Id(id) => context.set(*key, id.to_string().as_str()),
                Fact::Number(number) => context.set(*key, *number),
            }
        }
    }
}
