//! What a document names: actions, resources and variables.

use super::{Check, did_you_mean, quoted};
use crate::compile::{ResourcePattern, action_matches, action_pattern};
use crate::context::Context;
use crate::pattern::{self, Matched, Pattern, has_char, split_crn, variables};
use crate::vocabulary::{KeyType, nearest};

impl Check<'_> {
    pub(super) fn action(&mut self, text: &str, at: &str) {
        if text == "*" {
            return;
        }
        let service = text.split_once(':').map(|(service, _)| service);
        if service.is_none_or(|service| service.is_empty() || service.contains(['*', '?']))
            || text.contains("${")
        {
            self.add(
                at,
                "invalid",
                "an action is * or service:Verb; the verb may have the wildcards * and ?",
            );
            return;
        }
        let pattern = action_pattern(text);
        if self.vocabulary.actions.iter().any(|action| action_matches(&pattern, action)) {
            return;
        }
        let hint = did_you_mean(text, self.vocabulary.actions.iter().copied());
        self.add(at, "unknown_action", format!("no action matches {}{hint}", quoted(text)));
    }

    pub(super) fn resource(&mut self, text: &str, at: &str) {
        self.spend(ResourcePattern::new(text).steps(), at);
        if text == "*" {
            return;
        }
        let Some([service, project, target]) = split_crn(text) else {
            let message = "a resource is * or crn:cumulo:<service>:<project>:<type>/<name or id>";
            self.add(at, "invalid", message);
            return;
        };
        let types =
            || self.vocabulary.resources.iter().filter(move |(known, _)| service == "*" || *known == service);
        if types().next().is_none() {
            let hint = did_you_mean(service, self.vocabulary.resources.iter().map(|(service, _)| *service));
            let message = format!(
                "no service is called {}{hint}; the service is a name or *, nothing between",
                quoted(service)
            );
            self.add(at, "unknown_service", message);
            return;
        }
        if !self.variables(project, at) || !self.variables(target, at) {
            return;
        }
        let has = |text, char| pattern::parse(text, true).is_ok_and(|parts| has_char(&parts, char));
        if has(project, '/') {
            self.add(at, "invalid", "the fourth part is the project's name or id, or empty for the cloud");
            return;
        }
        if target.ends_with('/') || has(target, ':') {
            let message = "after the slash comes a name or an id, without colons; * is all of them";
            self.add(at, "invalid", message);
            return;
        }
        // `*` alone is any type; otherwise the part before the slash has to be one.
        let kind = target.split_once('/').map(|(kind, _)| kind);
        let pattern = Pattern::new(kind.unwrap_or(target), true);
        let nothing = Context::default();
        let known = types().any(|(_, kind)| pattern.matches(kind, &nothing) == Matched::Yes);
        if (kind.is_none() && target != "*") || !known {
            let names: Vec<&str> = types().map(|(_, kind)| *kind).collect();
            let message = format!(
                "the last part is <type>/<name or id> or *; {service} has the types {}",
                names.join(", ")
            );
            self.add(at, "unknown_type", message);
        }
    }

    /// Whether the variables of a text are all known.
    pub(super) fn variables(&mut self, text: &str, at: &str) -> bool {
        let Ok(parts) = pattern::parse(text, true) else {
            self.add(at, "invalid_variable", "a variable is ${key}; this one is not closed");
            return false;
        };
        let mut known = true;
        for name in variables(&parts) {
            let message = match self.vocabulary.key(name).filter(|(_, proper)| *proper == name) {
                Some((key, _)) if key.value == KeyType::String && !key.multivalued => continue,
                Some(_) => "only a key that has one string for its value can be a variable".to_owned(),
                None => {
                    let hint = nearest(name, self.vocabulary.keys.iter().map(|key| key.name));
                    let hint = hint.map_or_else(String::new, |hint| format!("; did you mean ${{{hint}}}?"));
                    format!("there is no variable {}{hint}", quoted(&format!("${{{name}}}")))
                }
            };
            self.add(at, "unknown_variable", message);
            known = false;
        }
        known
    }
}
