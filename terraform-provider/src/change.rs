//! Making, changing and deleting resources.

use std::time::Duration;

use anyhow::{Context as _, Result};
use client::{Error, Method};
use serde_json::{Value as Json, json};

use crate::cloud::{self, Cloud};
use crate::diagnose;
use crate::plan::Private;
use crate::protocol::tfplugin6::Diagnostic;
use crate::resource::Resource;
use crate::schema::Attribute;
use crate::table::Delete;
use crate::upload;
use crate::value::{Object, Value};

const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// What an apply has come to. A state with errors is one of something that is there and is not as it should be.
pub struct Outcome {
    pub state: Option<Object>,
    pub private: Option<Private>,
    pub diagnostics: Vec<Diagnostic>,
}

impl Cloud {
    pub async fn create(&self, resource: &Resource, planned: &Object, config: &Object) -> Outcome {
        let values = with_secrets(resource, planned, config);
        let made = match self.make(resource, &values).await {
            Ok(made) => made,
            Err(error) => return failed(resource, None, "create", &error),
        };
        // From here on it is there, whatever happens.
        let mut state = cloud::settle(resource, planned, &made, &made);
        let rest = self.complete(resource, &state, &values, &made).await;
        match (self.find(resource, &state).await, rest) {
            (Ok(Some(shown)), rest) => {
                state = cloud::settle(resource, planned, &shown, &made);
                let private = Some(cloud::private(resource, &shown));
                let diagnostics =
                    rest.err().map(|error| said(resource, "create", &error)).unwrap_or_default();
                Outcome { state: Some(known(state)), private, diagnostics }
            }
            // Whatever hides it, what was made is not to be lost.
            (Ok(None), Ok(())) => {
                let hidden = anyhow::anyhow!("it was made, and is not found again");
                failed(resource, Some(known(state)), "create", &hidden)
            }
            (Ok(None), Err(error)) => failed(resource, None, "create", &error),
            (Err(error), rest) => {
                failed(resource, Some(known(state)), "create", &rest.err().unwrap_or(error))
            }
        }
    }

    async fn make(&self, resource: &Resource, values: &Object) -> Result<Json> {
        let path = self.path(&resource.create, None, values)?;
        self.call(
            &resource.create,
            &path,
            Some(cloud::body(resource, &resource.create, values, |_| true)),
            false,
        )
        .await
    }

    /// What it takes beyond the first call.
    async fn complete(
        &self,
        resource: &Resource,
        state: &Object,
        values: &Object,
        made: &Json,
    ) -> Result<()> {
        let limit = patience(values, "create")?;
        self.wait(made, values, limit).await?;
        let text = |name: &str| values.get(name).and_then(Value::as_text);
        if resource.entry.name == "image" {
            let path = self.path(&resource.read, resource.entry.own, state)?;
            if let Some(file) = text("file") {
                let sent = upload::send(&self.client, &path, file).await?;
                self.wait(&sent, values, limit).await?;
            }
            if let Some(url) = text("url") {
                let import = format!("{path}/import");
                let request = client::Request::new(Method::POST, &import).json(json!({"url": url}));
                let sent = self.client.send(&request).await?.body;
                self.wait(&sent, values, limit).await?;
            }
        }
        let Some(update) = resource.update.as_ref().filter(|update| update.method == Method::PATCH) else {
            return Ok(());
        };
        let is_left = |one: &Attribute| {
            let value = values.get(&one.name);
            !resource.create.body.contains_key(one.name.as_str())
                && value.is_some()
                && value != one.default.as_ref()
        };
        let left = cloud::body(resource, update, values, is_left);
        if left.as_object().is_some_and(|left| !left.is_empty()) {
            let path = self.path(update, resource.entry.own, state)?;
            self.call(update, &path, Some(left), false).await?;
        }
        Ok(())
    }

    pub async fn update(&self, resource: &Resource, prior: &Object, planned: &Object) -> Outcome {
        let done = self.change(resource, prior, planned).await;
        let diagnostics = done.err().map(|error| said(resource, "update", &error)).unwrap_or_default();
        match self.find(resource, prior).await {
            Ok(Some(shown)) => {
                let private = Some(cloud::private(resource, &shown));
                let state = if diagnostics.is_empty() {
                    cloud::settle(resource, planned, &shown, &Json::Null)
                } else {
                    // As it is, so that the next plan shows what is left to do.
                    cloud::refresh(resource, prior, &shown)
                };
                Outcome { state: Some(known(state)), private, diagnostics }
            }
            Ok(None) => failed(
                resource,
                None,
                "update",
                &anyhow::anyhow!("it has gone; plan again to make a new one"),
            ),
            Err(error) if diagnostics.is_empty() => failed(resource, Some(prior.clone()), "update", &error),
            Err(_) => Outcome { state: Some(prior.clone()), private: None, diagnostics },
        }
    }

    async fn change(&self, resource: &Resource, prior: &Object, planned: &Object) -> Result<()> {
        let limit = patience(planned, "update")?;
        for (path, operation, body) in self.steps(resource, prior, planned)? {
            let answer = self.call(operation, &path, Some(body), false).await?;
            self.wait(&answer, prior, limit).await?;
        }
        Ok(())
    }

    /// The calls that make a change, with their bodies.
    pub fn steps<'a>(
        &self,
        resource: &'a Resource,
        prior: &Object,
        planned: &Object,
    ) -> Result<Vec<(String, &'a crate::openapi::Operation, Json)>> {
        let mut steps = Vec::new();
        if let Some(update) = &resource.update {
            let patch = cloud::patch(resource, update, prior, planned);
            if !patch.is_empty() {
                steps.push((self.path(update, resource.entry.own, prior)?, update, patch.into()));
            }
        }
        if let Some(resize) = &resource.resize {
            let mut body =
                cloud::body(resource, resize, planned, |one| resource.is_resized(one, prior, planned));
            if let Some(fields) = body.as_object_mut().filter(|fields| !fields.is_empty()) {
                fields.extend([
                    ("reboot".to_owned(), true.into()),
                    ("confirm_after_seconds".to_owned(), 0.into()),
                ]);
                steps.push((self.path(resize, resource.entry.own, prior)?, resize, body));
            }
        }
        Ok(steps)
    }

    pub async fn delete(&self, resource: &Resource, prior: &Object) -> Vec<Diagnostic> {
        match self.remove(resource, prior).await {
            Ok(()) => Vec::new(),
            Err(error) => said(resource, "delete", &error),
        }
    }

    async fn remove(&self, resource: &Resource, prior: &Object) -> Result<()> {
        let path = self.path(&resource.delete, resource.entry.own, prior)?;
        match self.call(&resource.delete, &path, Some(removal(resource, prior)), false).await {
            Ok(answer) => self.wait(&answer, prior, patience(prior, "delete")?).await,
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Refused(problem)) if problem.status == 404 => Ok(()),
                // The answer may be what got lost.
                _ => match self.find(resource, prior).await {
                    Ok(None) => Ok(()),
                    _ => Err(error),
                },
            },
        }
    }
}

pub fn removal(resource: &Resource, prior: &Object) -> Json {
    match resource.entry.delete {
        Delete::Call(_) => cloud::body(resource, &resource.delete, prior, |_| true),
        Delete::Unset(_) => {
            resource.delete.body.keys().map(|name| ((*name).to_owned(), Json::Null)).collect()
        }
    }
}

/// What Terraform keeps nowhere is in the configuration alone.
pub fn with_secrets(resource: &Resource, planned: &Object, config: &Object) -> Object {
    let mut values = planned.clone();
    for one in resource.attributes.iter().filter(|one| one.write_only) {
        values.insert(one.name.clone(), config.get(&one.name).cloned().unwrap_or(Value::Null));
    }
    values.into_iter().map(|(name, value)| (name, value.known())).collect()
}

fn known(state: Object) -> Object {
    state.into_iter().map(|(name, value)| (name, value.known())).collect()
}

fn said(resource: &Resource, verb: &str, error: &anyhow::Error) -> Vec<Diagnostic> {
    let summary = format!("Cannot {verb} this {}", resource.entry.name.replace('_', " "));
    diagnose::failure(&summary, error, |name| resource.attribute(name).is_some())
}

fn failed(resource: &Resource, state: Option<Object>, verb: &str, error: &anyhow::Error) -> Outcome {
    Outcome { state, private: None, diagnostics: said(resource, verb, error) }
}

fn patience(values: &Object, of: &str) -> Result<Duration> {
    match values.get("timeouts") {
        Some(Value::Map(timeouts)) => match timeouts.get(of).and_then(Value::as_text) {
            Some(text) => duration(text)
                .with_context(|| format!("timeouts.{of}: '{text}' is no duration like 90s, 30m or 1h30m")),
            None => Ok(PATIENCE),
        },
        _ => Ok(PATIENCE),
    }
}

/// Like `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut seconds, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
        let unit = match rest.as_bytes()[end] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            _ => return None,
        };
        seconds = seconds.checked_add(rest[..end].parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = &rest[end + 1..];
    }
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in
            [("90s", Some(90)), ("1h30m", Some(5400)), ("", None), ("5", None), ("1d", None), ("m", None)]
        {
            assert_eq!(duration(text).map(|it| it.as_secs()), seconds, "{text}");
        }
    }
}
