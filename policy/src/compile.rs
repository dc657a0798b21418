//! A document, prepared for many decisions.

use std::collections::{BTreeSet, HashMap};

use crate::anticipate::Question;
use crate::condition::Condition;
use crate::context::{Context, Names, Place, Resource};
use crate::document::{ActionElement, Document, Effect, ResourceElement};
use crate::pattern::{Matched, Pattern, split_crn};
use crate::renaming::{Renaming, Shift};

/// A compiled policy.
#[derive(Debug)]
pub struct Policy {
    pub(crate) statements: Box<[Compiled]>,
    /// The statements that speak of each action.
    by_action: HashMap<&'static str, Box<[u32]>>,
}

#[derive(Debug)]
pub(crate) struct Compiled {
    pub sid: Option<String>,
    pub effect: Effect,
    resources: Resources,
    conditions: Box<[Condition]>,
}

#[derive(Debug)]
struct Resources {
    /// `NotResource`.
    inverted: bool,
    patterns: Box<[ResourcePattern]>,
}

#[derive(Debug)]
pub(crate) enum ResourcePattern {
    Any,
    Crn { service: Pattern, project: Pattern, target: Pattern },
}

/// How a statement stands to a request of which only action, type and project are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Always,
    Never,
    Sometimes,
}

impl AsRef<Self> for Policy {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Policy {
    /// Compiles a document for the actions that it was validated with.
    pub fn compile(document: &Document) -> Self {
        let mut by_action: HashMap<&'static str, Vec<u32>> = HashMap::new();
        for (number, statement) in (0..).zip(&document.statement) {
            let (inverted, texts) = match &statement.action {
                ActionElement::Action(texts) => (false, texts),
                ActionElement::NotAction(texts) => (true, texts),
            };
            let patterns: Vec<_> = texts.iter().map(|text| action_pattern(text)).collect();
            for action in document.actions {
                if inverted != patterns.iter().any(|pattern| action_matches(pattern, action)) {
                    by_action.entry(action).or_default().push(number);
                }
            }
        }
        Self {
            statements: document.statement.iter().map(Compiled::new).collect(),
            by_action: by_action.into_iter().map(|(action, numbers)| (action, numbers.into())).collect(),
        }
    }

    /// The statements that speak of an action, with their numbers.
    pub(crate) fn about(&self, action: &str) -> impl Iterator<Item = (usize, &Compiled)> {
        let numbers = self.by_action.get(action).map_or(&[][..], |numbers| numbers);
        numbers.iter().map(|number| (*number as usize, &self.statements[*number as usize]))
    }
}

/// Letters of actions count in either case, as in AWS.
pub(crate) fn action_pattern(text: &str) -> Pattern {
    Pattern::new(&text.to_ascii_lowercase(), true)
}

pub(crate) fn action_matches(pattern: &Pattern, action: &str) -> bool {
    pattern.matches(&action.to_ascii_lowercase(), &Context::default()) == Matched::Yes
}

impl Compiled {
    fn new(statement: &crate::document::Statement) -> Self {
        let (inverted, texts) = match &statement.resource {
            ResourceElement::Resource(texts) => (false, texts),
            ResourceElement::NotResource(texts) => (true, texts),
        };
        let conditions = statement.condition.iter().flat_map(|(operator, keys)| {
            keys.iter().filter_map(move |(key, texts)| Condition::new(operator, key, texts))
        });
        Self {
            sid: statement.sid.clone(),
            effect: statement.effect,
            resources: Resources {
                inverted,
                patterns: texts.iter().map(|text| ResourcePattern::new(text)).collect(),
            },
            conditions: conditions.collect(),
        }
    }

    pub(crate) fn applies(&self, prepared: &Prepared<'_>, context: &Context) -> bool {
        self.resources.match_all(prepared, context, self.effect)
            && self.conditions.iter().all(|condition| condition.holds(context))
    }

    pub(crate) fn reach(&self, service: &str, kind: &str, place: Place<'_>) -> Reach {
        match self.resources.reach(service, kind, place) {
            Reach::Always if !self.conditions.is_empty() => Reach::Sometimes,
            reach => reach,
        }
    }

    /// Which resources of the type the statement wins and loses when their project is renamed.
    pub(crate) fn shift(&self, service: &str, kind: &str, renaming: &Renaming<'_>) -> Shift {
        let patterns = self.resources.patterns.iter().map(|pattern| pattern.shift(service, kind, renaming));
        let shift = patterns.fold(Shift::default(), Shift::or);
        if self.resources.inverted { shift.inverted() } else { shift }
    }

    /// How the statement stands to every request that fills the gaps of the question.
    pub(crate) fn anticipate(&self, question: &Question<'_>) -> Reach {
        let mut reach = self.resources.anticipate(question, self.effect);
        for condition in &self.conditions {
            if !condition.keys().all(question.known) {
                reach = if reach == Reach::Never { Reach::Never } else { Reach::Sometimes };
            } else if !condition.holds(question.context) {
                return Reach::Never;
            }
        }
        reach
    }

    /// Adds the keys that the statement asks for when it is about this resource.
    pub(crate) fn add_asked<'a>(
        &'a self,
        prepared: &Prepared<'_>,
        context: &Context,
        keys: &mut BTreeSet<&'a str>,
    ) {
        keys.extend(self.resources.patterns.iter().flat_map(ResourcePattern::variables));
        if self.resources.match_all(prepared, context, self.effect) {
            keys.extend(self.conditions.iter().flat_map(Condition::keys));
        }
    }
}

impl Resources {
    fn match_all(&self, prepared: &Prepared<'_>, context: &Context, effect: Effect) -> bool {
        let mut unknown = false;
        for pattern in &self.patterns {
            match pattern.matches(prepared, context) {
                Matched::Yes => return !self.inverted,
                Matched::No => {}
                Matched::Unknown => unknown = true,
            }
        }
        // A variable without a value must not widen anything: it keeps an inverted list from allowing.
        self.inverted && !(unknown && effect == Effect::Allow)
    }

    fn anticipate(&self, question: &Question<'_>, effect: Effect) -> Reach {
        let resource = &question.resource;
        if resource.target.is_none() {
            return self.reach(resource.service, resource.kind, resource.project.into());
        }
        let prepared = Prepared::new(resource);
        let (mut open, mut unknown) = (false, false);
        for pattern in &self.patterns {
            if !pattern.variables().all(question.known) {
                open = true;
                continue;
            }
            match pattern.matches(&prepared, question.context) {
                Matched::Yes => return if self.inverted { Reach::Never } else { Reach::Always },
                Matched::No => {}
                Matched::Unknown => unknown = true,
            }
        }
        match (self.inverted, open) {
            (true, _) if unknown && effect == Effect::Allow => Reach::Never,
            (_, true) => Reach::Sometimes,
            (true, false) => Reach::Always,
            (false, false) => Reach::Never,
        }
    }

    fn reach(&self, service: &str, kind: &str, place: Place<'_>) -> Reach {
        let mut reach = Reach::Never;
        for pattern in &self.patterns {
            match pattern.reach(service, kind, place) {
                Reach::Always => return if self.inverted { Reach::Never } else { Reach::Always },
                Reach::Never => {}
                Reach::Sometimes => reach = Reach::Sometimes,
            }
        }
        match (self.inverted, reach) {
            (true, Reach::Never) => Reach::Always,
            (_, reach) => reach,
        }
    }
}

/// A resource with the texts that patterns are matched against, made once a request.
pub(crate) struct Prepared<'a> {
    service: &'a str,
    project: Option<Names<'a>>,
    by_name: String,
    by_id: Option<String>,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(resource: &Resource<'a>) -> Self {
        let text = |target: &str| [resource.kind, "/", target].concat();
        Self {
            service: resource.service,
            project: resource.project,
            by_name: text(resource.target.map_or("*", |target| target.name)),
            by_id: resource.target.and_then(|target| target.id).map(text),
        }
    }
}

impl ResourcePattern {
    /// Of a text that has been validated.
    pub(crate) fn new(text: &str) -> Self {
        match split_crn(text) {
            Some([service, project, target]) => Self::Crn {
                service: Pattern::new(service, true),
                project: Pattern::new(project, true),
                target: Pattern::new(target, true),
            },
            None => Self::Any,
        }
    }

    /// The keys of the variables in it.
    fn variables(&self) -> impl Iterator<Item = &str> {
        let patterns = match self {
            Self::Any => [None; 3],
            Self::Crn { service, project, target } => [Some(service), Some(project), Some(target)],
        };
        patterns.into_iter().flatten().flat_map(Pattern::variables)
    }

    fn matches(&self, prepared: &Prepared<'_>, context: &Context) -> Matched {
        let Self::Crn { service, project, target } = self else { return Matched::Yes };
        if service.matches(prepared.service, context) != Matched::Yes {
            return Matched::No;
        }
        match matches_project(project, prepared.project, context) {
            Matched::Yes => {}
            other => return other,
        }
        match target.matches(&prepared.by_name, context) {
            Matched::No => {
                prepared.by_id.as_ref().map_or(Matched::No, |by_id| target.matches(by_id, context))
            }
            other => other,
        }
    }

    fn shift(&self, service: &str, kind: &str, renaming: &Renaming<'_>) -> Shift {
        let Self::Crn { service: s, project, target } = self else { return Shift::default() };
        if s.matches(service, renaming.context) != Matched::Yes
            || target.covers(&[kind, "/"].concat()) == Matched::No
        {
            return Shift::default();
        }
        let before = matches_project(project, Some(renaming.before), renaming.context);
        let after = matches_project(project, Some(renaming.after), renaming.context);
        Shift {
            wins: before != Matched::Yes && after != Matched::No,
            loses: before != Matched::No && after != Matched::Yes,
        }
    }

    fn reach(&self, service: &str, kind: &str, place: Place<'_>) -> Reach {
        let Self::Crn { service: s, project: p, target } = self else { return Reach::Always };
        let nothing = Context::default();
        if s.matches(service, &nothing) != Matched::Yes {
            return Reach::Never;
        }
        let project = match place {
            Place::Cloud => matches_project(p, None, &nothing),
            Place::Project(names) => matches_project(p, Some(names), &nothing),
            Place::AnyProject => p.matches_every_name(),
        };
        match project {
            Matched::Yes => {}
            Matched::No => return Reach::Never,
            Matched::Unknown => return Reach::Sometimes,
        }
        match target.covers(&[kind, "/"].concat()) {
            Matched::Yes => Reach::Always,
            Matched::No => Reach::Never,
            Matched::Unknown => Reach::Sometimes,
        }
    }
}

/// By name or by id; what belongs to no project matches the empty segment and `*`.
fn matches_project(pattern: &Pattern, project: Option<Names<'_>>, context: &Context) -> Matched {
    let Some(project) = project else { return pattern.matches("", context) };
    match pattern.matches(project.name, context) {
        Matched::No => project.id.map_or(Matched::No, |id| pattern.matches(id, context)),
        other => other,
    }
}
