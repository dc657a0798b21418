//! What the renaming of a project means for whoever is bound by policies: they call projects by name.

use crate::compile::Policy;
use crate::context::{Context, Names};
use crate::document::Effect;
use crate::evaluate::Deciding;

/// A project that gets another name.
#[derive(Clone, Copy)]
pub struct Renaming<'a> {
    pub before: Names<'a>,
    pub after: Names<'a>,
    /// The keys that have these values in every request of whom the policies bind. A pattern with the variable of
    /// another key counts as one that may come and go.
    pub context: &'a Context,
}

/// Whether a statement may match more resources than before, and fewer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shift {
    pub wins: bool,
    pub loses: bool,
}

impl Shift {
    pub(crate) fn or(self, other: Self) -> Self {
        Self { wins: self.wins || other.wins, loses: self.loses || other.loses }
    }

    pub(crate) fn inverted(self) -> Self {
        Self { wins: self.loses, loses: self.wins }
    }
}

/// The statements about an action on this type of resource that may allow more or deny less under the new name.
/// When there are none, nothing is allowed under the new name that was denied under the old one.
pub fn loosened<P: AsRef<Policy>>(
    policies: &[P],
    action: &str,
    service: &str,
    kind: &str,
    renaming: &Renaming<'_>,
) -> Vec<Deciding> {
    let mut loosened = Vec::new();
    for (policy, compiled) in policies.iter().enumerate() {
        for (number, statement) in compiled.as_ref().about(action) {
            let shift = statement.shift(service, kind, renaming);
            let looser = match statement.effect {
                Effect::Allow => shift.wins,
                Effect::Deny => shift.loses,
            };
            if looser {
                let (sid, effect) = (statement.sid.clone(), statement.effect);
                loosened.push(Deciding { policy, statement: number, sid, effect });
            }
        }
    }
    loosened
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Document, Key, KeyType, Request, Resource, Vocabulary, evaluate};

    const VOCABULARY: Vocabulary = Vocabulary {
        actions: &["a:Get"],
        resources: &[("a", "thing"), ("a", "other"), ("b", "thing")],
        keys: &[key("k:Fixed"), key("k:Free")],
    };

    const fn key(name: &'static str) -> Key {
        Key { name, value: KeyType::String, multivalued: false }
    }

    fn policy(statements: &[Value]) -> Policy {
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        Policy::compile(&Document::parse(&document, &VOCABULARY).unwrap())
    }

    fn context(free: Option<&str>) -> Context {
        let mut context = Context::default();
        context.set("k:Fixed", "new");
        if let Some(free) = free {
            context.set("k:Free", free);
        }
        context
    }

    fn names(name: &str) -> Names<'_> {
        Names { name, id: Some("7") }
    }

    fn found(statements: &[Value]) -> Vec<usize> {
        let context = context(None);
        let renaming = Renaming { before: names("old"), after: names("new"), context: &context };
        let loosened = loosened(&[policy(statements)], "a:Get", "a", "thing", &renaming);
        loosened.iter().map(|one| one.statement).collect()
    }

    #[test]
    fn what_tells_the_names_apart_in_the_caller_s_favour_is_found() {
        for (project, allow, deny) in [
            ("*", false, false),
            ("?*", false, false),
            ("7", false, false),
            ("", false, false),
            ("third", false, false),
            ("new", true, false),
            ("old", false, true),
            ("n*", true, false),
            ("${k:Fixed}", true, false),
            ("${k:Free}", true, true),
        ] {
            let statement = |effect: &str, element: &str, service: &str| {
                let resource = format!("crn:cumulo:{service}:{project}:thing/x");
                json!({"Effect": effect, "Action": "*", element: resource})
            };
            let is_found =
                |effect, element, service| !found(&[statement(effect, element, service)]).is_empty();
            assert_eq!(is_found("Allow", "Resource", "a"), allow, "{project}");
            assert_eq!(is_found("Deny", "Resource", "a"), deny, "{project}");
            assert_eq!(is_found("Allow", "NotResource", "a"), deny, "not {project}");
            assert_eq!(is_found("Deny", "NotResource", "a"), allow, "not {project}");
            assert!(!is_found("Allow", "Resource", "b") && !is_found("Deny", "Resource", "b"), "{project}");
        }
    }

    fn statement() -> impl Strategy<Value = Value> {
        let project = prop::sample::select(vec!["*", "old", "new", "o*", "7", "${k:Fixed}", "${k:Free}"]);
        let target = prop::sample::select(vec!["thing/*", "thing/x", "*/x", "other/*"]);
        let resource = (project, target).prop_map(|(p, t)| format!("crn:cumulo:a:{p}:{t}"));
        let effect = prop::sample::select(vec!["Allow", "Deny"]);
        (effect, any::<bool>(), prop::collection::vec(resource, 1..3), any::<bool>()).prop_map(
            |(effect, not, resources, conditional)| {
                let element = if not { "NotResource" } else { "Resource" };
                let mut statement = json!({"Effect": effect, "Action": "*", element: resources});
                if conditional {
                    statement["Condition"] = json!({"StringEquals": {"k:Free": "old"}});
                }
                statement
            },
        )
    }

    proptest! {
        /// Nothing found, nothing gained: of no resource and in no request.
        #[test]
        fn what_is_not_found_gives_nothing(statements in prop::collection::vec(statement(), 1..4)) {
            if found(&statements).is_empty() {
                let policies = [policy(&statements)];
                for free in [None, Some("old"), Some("new")] {
                    let context = context(free);
                    for target in [None, Some("x"), Some("y")] {
                        let allowed = |project| {
                            let target = target.map(|name| Names { name, id: None });
                            let project = Some(names(project));
                            let resource = Resource { service: "a", project, kind: "thing", target };
                            evaluate(&policies, &Request { action: "a:Get", resource, context: &context }).allowed
                        };
                        prop_assert!(allowed("old") || !allowed("new"), "{target:?} {free:?}");
                    }
                }
            }
        }
    }
}
