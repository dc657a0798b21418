//! Decisions about requests that are known in part: "what can they do", "who can do that".

use std::collections::BTreeSet;

use crate::compile::{Policy, Prepared, Reach};
use crate::context::{Context, Request, Resource};
use crate::document::Effect;
use crate::evaluate::Deciding;

/// A request with gaps.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    pub action: &'a str,
    /// Without a target: every resource of its type there, the collection included.
    pub resource: Resource<'a>,
    /// The values of the keys that are known.
    pub context: &'a Context,
    /// Whether a key is known. One that is known and has no value in the context is missing from the request.
    pub known: &'a dyn Fn(&str) -> bool,
}

/// The answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Whatever fills the gaps.
    Allowed,
    /// Whatever fills the gaps.
    Denied,
    /// It depends on what fills the gaps.
    Depends,
}

/// The answer, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    pub outlook: Outlook,
    /// The statements that decide in any case; when it depends, those that may.
    pub deciding: Vec<Deciding>,
}

/// Decides what can be decided of a request that is known in part.
pub fn anticipate<P: AsRef<Policy>>(policies: &[P], question: &Question<'_>) -> Forecast {
    let denying = Side::of(policies, question, Effect::Deny);
    if !denying.certain.is_empty() {
        return Forecast { outlook: Outlook::Denied, deciding: denying.certain };
    }
    let allowing = Side::of(policies, question, Effect::Allow);
    if allowing.certain.is_empty() && allowing.possible.is_empty() {
        return Forecast { outlook: Outlook::Denied, deciding: Vec::new() };
    }
    if denying.possible.is_empty() && !allowing.certain.is_empty() {
        return Forecast { outlook: Outlook::Allowed, deciding: allowing.certain };
    }
    let deciding = [denying.possible, allowing.certain, allowing.possible].concat();
    Forecast { outlook: Outlook::Depends, deciding }
}

/// The condition keys that a decision about this request asks for, whether the request has them or not.
pub fn asked_keys<'a, P: AsRef<Policy>>(policies: &'a [P], request: &Request<'_>) -> BTreeSet<&'a str> {
    let prepared = Prepared::new(&request.resource);
    let mut keys = BTreeSet::new();
    for policy in policies {
        for (_, statement) in policy.as_ref().about(request.action) {
            statement.add_asked(&prepared, request.context, &mut keys);
        }
    }
    keys
}

/// The statements of one effect.
#[derive(Default)]
struct Side {
    certain: Vec<Deciding>,
    possible: Vec<Deciding>,
}

impl Side {
    fn of<P: AsRef<Policy>>(policies: &[P], question: &Question<'_>, effect: Effect) -> Self {
        let mut side = Self::default();
        for (policy, compiled) in policies.iter().enumerate() {
            let about = compiled.as_ref().about(question.action);
            for (number, statement) in about.filter(|(_, statement)| statement.effect == effect) {
                let deciding = Deciding { policy, statement: number, sid: statement.sid.clone(), effect };
                match statement.anticipate(question) {
                    Reach::Always => side.certain.push(deciding),
                    Reach::Sometimes => side.possible.push(deciding),
                    Reach::Never => {}
                }
            }
        }
        side
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Document, Key, KeyType, Names, Vocabulary, evaluate, foresee};

    const VOCABULARY: Vocabulary = Vocabulary {
        actions: &["a:Get", "a:Delete"],
        resources: &[("a", "thing"), ("a", "other")],
        keys: &[key("k:One"), key("k:Two")],
    };

    const fn key(name: &'static str) -> Key {
        Key { name, value: KeyType::String, multivalued: false }
    }

    fn statement() -> impl Strategy<Value = Value> {
        let name = prop::sample::select(vec!["*", "x", "y*", "${k:One}"]);
        let resource = prop_oneof![
            Just("*".to_owned()),
            name.prop_map(|name| format!("crn:cumulo:a:shop:thing/{name}")),
            Just("crn:cumulo:a:*:*/x".to_owned()),
        ];
        let condition = (
            prop::sample::select(vec!["StringEquals", "StringNotEquals", "StringEqualsIfExists"]),
            prop::sample::select(vec!["k:One", "k:Two"]),
            prop::sample::select(vec!["x", "y", "${k:Two}"]),
        );
        let action = prop::sample::select(vec!["*", "a:Get", "a:Delete"]);
        let effect = prop::sample::select(vec!["Allow", "Deny"]);
        (effect, action, any::<bool>(), resource, prop::option::of(condition)).prop_map(
            |(effect, action, not, resource, condition)| {
                let resource_field = if not { "NotResource" } else { "Resource" };
                let mut statement = json!({"Effect": effect, "Action": action, resource_field: resource});
                if let Some((operator, key, value)) = condition {
                    statement["Condition"] = json!({operator: {key: value}});
                }
                statement
            },
        )
    }

    fn compile(statements: &[Value]) -> Policy {
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        Policy::compile(&Document::parse(&document, &VOCABULARY).unwrap())
    }

    const CHOICES: [Option<&str>; 3] = [None, Some("x"), Some("y")];

    fn context(one: Option<&str>, two: Option<&str>) -> Context {
        let mut context = Context::default();
        for (key, value) in [("k:One", one), ("k:Two", two)] {
            if let Some(value) = value {
                context.set(key, value);
            }
        }
        context
    }

    fn resource(target: Option<&str>) -> Resource<'_> {
        let project = Some(Names { name: "shop", id: None });
        let target = target.map(|name| Names { name, id: None });
        Resource { service: "a", project, kind: "thing", target }
    }

    proptest! {
        /// What is certain is so in every request that fills the gaps, and for the same reason.
        #[test]
        fn no_request_proves_an_outlook_wrong(
            statements in prop::collection::vec(statement(), 1..5),
            target in prop::sample::select(vec![None, Some("x"), Some("z")]),
            known in prop::sample::select(vec![None, Some("k:One"), Some("k:Two"), Some("")]),
            value in prop::sample::select(CHOICES.to_vec()),
        ) {
            let policies = [compile(&statements)];
            // `Some("")`: no key is known; `None`: both are, and missing.
            let is_known = |key: &str| known.is_none_or(|known| known == key);
            let fixed = |key| (known == Some(key)).then_some(value);
            let partial = context(fixed("k:One").flatten(), fixed("k:Two").flatten());
            let question =
                Question { action: "a:Get", resource: resource(target), context: &partial, known: &is_known };
            let forecast = anticipate(&policies, &question);
            let free = |key: &'static str| if is_known(key) { vec![fixed(key).flatten()] } else { CHOICES.to_vec() };
            let targets = if target.is_some() { vec![target] } else { vec![None, Some("x"), Some("ya"), Some("z")] };
            for (one, two, target) in free("k:One").into_iter()
                .flat_map(|one| free("k:Two").into_iter().map(move |two| (one, two)))
                .flat_map(|(one, two)| targets.iter().map(move |target| (one, two, *target)))
            {
                let full = context(one, two);
                let request = Request { action: "a:Get", resource: resource(target), context: &full };
                let decision = evaluate(&policies, &request);
                match forecast.outlook {
                    Outlook::Allowed => prop_assert!(decision.allowed),
                    Outlook::Denied => prop_assert!(!decision.allowed),
                    Outlook::Depends => {}
                }
                let told = |one: &Deciding| forecast.deciding.contains(one);
                match forecast.outlook {
                    Outlook::Depends => prop_assert!(decision.deciding.iter().all(told)),
                    _ => prop_assert!(forecast.deciding.iter().all(|one| decision.deciding.contains(one))),
                }
            }
        }

        /// With nothing known, it is what lists foresee.
        #[test]
        fn knowing_nothing_is_foreseeing(statements in prop::collection::vec(statement(), 1..5)) {
            let policies = [compile(&statements)];
            let context = Context::default();
            let question =
                Question { action: "a:Get", resource: resource(None), context: &context, known: &|_| false };
            let forecast = anticipate(&policies, &question);
            let foreseen = foresee(&policies, "a:Get", "a", "thing", resource(None).project);
            prop_assert_eq!(foreseen.as_ref().map(|decision| decision.allowed), match forecast.outlook {
                Outlook::Allowed => Some(true),
                Outlook::Denied => Some(false),
                Outlook::Depends => None,
            });
        }
    }

    #[test]
    fn keys_are_asked_for_by_statements_about_the_resource() {
        let by_name =
            json!({"Effect": "Allow", "Action": "*", "Resource": "crn:cumulo:a:shop:thing/${k:One}"});
        let condition = json!({"StringEquals": {"k:Two": "x"}});
        let about_x = json!({"Effect": "Deny", "Action": "*", "Resource": "crn:cumulo:a:shop:thing/x",
                             "Condition": condition});
        let context = Context::default();
        let asked = |statement: &Value, name| {
            let policies = [compile(std::slice::from_ref(statement))];
            let request = Request { action: "a:Get", resource: resource(Some(name)), context: &context };
            asked_keys(&policies, &request).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(asked(&by_name, "x"), ["k:One"]);
        assert_eq!(asked(&about_x, "x"), ["k:Two"]);
        assert_eq!(asked(&about_x, "y"), [""; 0]);
    }
}
