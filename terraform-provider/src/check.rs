//! What the API would say to a plan: rights, quotas, room, and whatever else it checks.

use client::{Error, Problem};
use serde_json::Value as Json;

use crate::change::{removal, with_secrets};
use crate::cloud::{Cloud, body};
use crate::diagnose::{at, failure, text, warning};
use crate::openapi::Operation;
use crate::plan::{Plan, Private};
use crate::protocol::tfplugin6::Diagnostic;
use crate::resource::Resource;
use crate::value::{Object, Value};

impl Cloud {
    /// Asks with dry runs. What depends on something that is not there yet cannot be asked.
    pub async fn check(
        &self,
        resource: &Resource,
        plan: &Plan,
        config: &Object,
        prior: Option<&Object>,
        private: &Private,
    ) -> Vec<Diagnostic> {
        let mut told: Vec<_> = prior.and_then(|prior| restart(prior, &plan.planned)).into_iter().collect();
        let is_open = config.values().any(|value| !value.is_known());
        // Of a replacement Terraform asks again, as of something new.
        if !self.checks_plans || is_open || !plan.replaces.is_empty() {
            return told;
        }
        let values = with_secrets(resource, &plan.planned, config);
        let is_replaced = private.is_made && prior.is_none();
        let steps = match prior {
            Some(prior) => self.steps(resource, prior, &plan.planned),
            None => self.path(&resource.create, None, &values).map(|path| {
                vec![(path, &resource.create, body(resource, &resource.create, &values, |_| true))]
            }),
        };
        for (path, operation, body) in steps.unwrap_or_default() {
            told.extend(self.ask(resource, &path, operation, body, is_replaced).await);
        }
        told
    }

    pub async fn check_removal(&self, resource: &Resource, prior: &Object) -> Vec<Diagnostic> {
        let Ok(path) = self.path(&resource.delete, resource.entry.own, prior) else { return Vec::new() };
        if !self.checks_plans {
            return Vec::new();
        }
        let asked = self.call(&resource.delete, &path, Some(removal(resource, prior)), true).await;
        match asked.as_ref().map_err(|error| (error, error.downcast_ref())) {
            Err((error, Some(Error::Refused(problem)))) if problem.code == "forbidden" => {
                failure("This cannot be deleted", error, |_| false)
            }
            Err((_, Some(Error::Refused(problem)))) if problem.code == "wrong_state" => {
                vec![warning("This cannot be deleted as it is", text(problem))]
            }
            // What stands in the way may go before.
            _ => Vec::new(),
        }
    }

    async fn ask(
        &self,
        resource: &Resource,
        path: &str,
        operation: &Operation,
        body: Json,
        is_replaced: bool,
    ) -> Vec<Diagnostic> {
        if !operation.has_dry_run {
            return Vec::new();
        }
        let error = match self.call(operation, path, Some(body), true).await {
            Ok(answer) => return no_room(&answer).into_iter().collect(),
            Err(error) => error,
        };
        let verdict = match error.downcast_ref() {
            Some(Error::Refused(problem)) => judge(problem, is_replaced),
            _ => Verdict::Warn,
        };
        match (verdict, error.downcast_ref()) {
            (Verdict::Ignore, _) => Vec::new(),
            (Verdict::Warn, Some(Error::Refused(problem))) => {
                vec![warning("The cloud would refuse this now", text(problem))]
            }
            (Verdict::Warn, _) => {
                vec![warning("The cloud did not say whether this can be", format!("{error:#}"))]
            }
            (Verdict::Refuse, _) => {
                failure("The cloud refuses this", &error, |name| resource.attribute(name).is_some())
            }
        }
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Ignore,
    Warn,
    Refuse,
}

/// What is refused now may be fine when its turn comes: what is missing is made before, what is in the way is deleted.
fn judge(problem: &Problem, is_replaced: bool) -> Verdict {
    let comes = |code: &str| matches!(code, "not_found" | "not_ready");
    match problem.code.as_str() {
        "not_found" => Verdict::Ignore,
        "validation_failed" if problem.errors.iter().any(|field| comes(&field.code)) => Verdict::Ignore,
        _ if is_replaced && problem.status == 409 => Verdict::Ignore,
        "forbidden" | "validation_failed" | "quota_exceeded" | "insufficient_capacity" => Verdict::Refuse,
        _ => Verdict::Warn,
    }
}

/// A size is changed by stopping and starting.
fn restart(prior: &Object, planned: &Object) -> Option<Diagnostic> {
    let of = |values: &'_ Object, name| values.get(name).and_then(Value::as_text).map(str::to_owned);
    let is_up = of(prior, "state").is_some_and(|state| state != "stopped");
    let shown = |values: &Object, name| match values.get(name)? {
        Value::Text(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let changed = ["instance_type", "vcpus", "memory_mib"].into_iter().find_map(|attribute| {
        let (before, after) = (shown(prior, attribute)?, shown(planned, attribute)?);
        (before != after).then_some((attribute, before, after))
    });
    let (attribute, before, after) = changed.filter(|_| is_up)?;
    let name = of(prior, "name").unwrap_or_default();
    let detail =
        format!("{name} is stopped and started, since its {attribute} changes from {before} to {after}.");
    Some(at(&format!("/{attribute}"), warning("This restarts the instance", detail)))
}

/// What the plan of a dry run says about hosts.
fn no_room(answer: &Json) -> Option<Diagnostic> {
    let placement = &answer["plan"];
    if placement["placeable"] != Json::Bool(false) {
        return None;
    }
    let summary = placement["placement"]["summary"].as_str().unwrap_or("no host takes it now");
    let remedies = placement["placement"]["remedies"].as_array().into_iter().flatten();
    let remedies: String =
        remedies.filter_map(|one| Some(format!("\n- {}", one["text"].as_str()?))).collect();
    Some(warning("No host would take this now; it would wait for one", format!("{summary}{remedies}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_of_size_tells_of_the_restart() {
        let instance = |size: &str, state: &str| {
            [("instance_type", size), ("state", state), ("name", "web")]
                .map(|(name, value)| (name.to_owned(), Value::text(value)))
                .into()
        };
        let told = restart(&instance("small", "running"), &instance("large", "running")).unwrap();
        assert!(told.detail.contains("from small to large"), "{}", told.detail);
        assert!(restart(&instance("small", "stopped"), &instance("large", "stopped")).is_none());
        assert!(restart(&instance("small", "running"), &instance("small", "running")).is_none());
        let with_memory = |memory_mib| {
            let mut instance: Object = instance("small", "running");
            instance.insert("memory_mib".to_owned(), memory_mib);
            instance
        };
        let told = restart(&with_memory(Value::Number(512.into())), &with_memory(Value::Number(768.into())))
            .unwrap();
        assert!(told.detail.contains("its memory_mib changes from 512 to 768"), "{}", told.detail);
        assert!(restart(&with_memory(Value::Number(512.into())), &with_memory(Value::Unknown)).is_none());
    }

    #[test]
    fn only_what_stays_wrong_stops_a_plan() {
        for (code, status, field, is_replaced, verdict) in [
            ("forbidden", 403, None, false, Verdict::Refuse),
            ("quota_exceeded", 409, None, false, Verdict::Refuse),
            ("quota_exceeded", 409, None, true, Verdict::Ignore),
            ("not_found", 404, None, false, Verdict::Ignore),
            ("validation_failed", 422, Some("not_found"), false, Verdict::Ignore),
            ("validation_failed", 422, Some("host_bits"), false, Verdict::Refuse),
            ("name_taken", 409, None, false, Verdict::Warn),
        ] {
            let errors: Vec<_> =
                field.iter().map(|code| json!({"code": code, "pointer": "/x", "message": ""})).collect();
            let problem =
                json!({"status": status, "code": code, "title": "", "request_id": "", "errors": errors});
            assert_eq!(judge(&serde_json::from_value(problem).unwrap(), is_replaced), verdict, "{code}");
        }
    }
}
