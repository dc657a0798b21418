//! Calls to the API about resources.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use client::{Client, Error, Method, Pages, Request};
use serde_json::{Map, Value as Json};

use crate::convert::{from_api, says, to_api};
use crate::openapi::Operation;
use crate::plan::Private;
use crate::resource::Resource;
use crate::schema::{Attribute, Type};
use crate::table::{Note, Read};
use crate::value::{Object, Value};

/// As whom, where, and in which project unless a resource says otherwise.
#[derive(Clone)]
pub struct Cloud {
    pub client: Client,
    pub project: Option<String>,
    pub checks_plans: bool,
}

impl Cloud {
    /// Where an operation is, with the values of a resource.
    pub fn path(&self, operation: &Operation, own: Option<&str>, values: &Object) -> Result<String> {
        let mut path = operation.path.to_owned();
        for parameter in operation.parameters() {
            let name = if own == Some(parameter) { "id" } else { parameter };
            let value = values.get(name).and_then(Value::as_text);
            let value = value.or(self.project.as_deref().filter(|_| name == "project"));
            let value = value.with_context(|| match name {
                "project" => {
                    "which project? Set `project` of the resource or of the provider, or CUMULO_PROJECT"
                        .to_owned()
                }
                _ => format!("`{name}` is not known"),
            })?;
            path = path.replace(&format!("{{{parameter}}}"), &client::segment(value));
        }
        Ok(path)
    }

    pub async fn call(
        &self,
        operation: &Operation,
        path: &str,
        body: Option<Json>,
        dry_run: bool,
    ) -> Result<Json> {
        let mut request = Request::new(operation.method.clone(), path);
        if !operation.body.is_empty() {
            request = request.json(body.unwrap_or_else(|| Json::Object(Map::new())));
        }
        if dry_run {
            request = request.query("dry_run", &true);
        }
        if operation.method == Method::PUT {
            request.headers.push((reqwest::header::IF_MATCH, reqwest::header::HeaderValue::from_static("*")));
        }
        Ok(self.client.send(&request).await?.body)
    }

    /// What the API shows of a resource; `None` when it is not there.
    pub async fn find(&self, resource: &Resource, values: &Object) -> Result<Option<Json>> {
        let path = self.path(&resource.read, resource.entry.own, values)?;
        let found = match resource.entry.read {
            Read::Get(_) => self.client.get(&path).await.map(Some),
            Read::Within(_, look) => self.client.get(&path).await.map(|answer| look(&answer, values)),
            Read::List(_, look) => {
                let mut pages = Pages::new(&self.client, &path, vec![("limit".to_owned(), "500".to_owned())]);
                loop {
                    match pages.next().await {
                        Ok(Some(items)) => {
                            if let Some(found) = items.iter().find_map(|item| look(item, values)) {
                                break Ok(Some(found));
                            }
                        }
                        Ok(None) => break Ok(None),
                        Err(error) => break Err(error),
                    }
                }
            }
        };
        match found {
            Err(Error::Refused(problem)) if problem.status == 404 => Ok(None),
            other => Ok(other?),
        }
    }

    /// Waits for the work that an answer names.
    pub async fn wait(&self, answer: &Json, values: &Object, limit: Duration) -> Result<()> {
        let Some(id) = client::operation_of(answer) else { return Ok(()) };
        let project = values
            .get("project")
            .and_then(Value::as_text)
            .or(self.project.as_deref())
            .context("no project")?;
        let project = client::segment(project);
        let waiting = self.client.wait(&project, id, |_| {});
        let Ok(operation) = tokio::time::timeout(limit, waiting).await else {
            bail!(
                "it has not ended within {} s and goes on in the cloud; `timeouts` says how long to wait",
                limit.as_secs()
            );
        };
        let operation = match operation {
            // With the resource its record may go.
            Err(Error::Refused(problem)) if problem.status == 404 => return Ok(()),
            other => other?,
        };
        Ok(operation.outcome()?)
    }
}

/// The body of an operation, of those attributes that `takes` lets through. What is null says nothing.
pub fn body(
    resource: &Resource,
    operation: &Operation,
    values: &Object,
    takes: impl Fn(&Attribute) -> bool,
) -> Json {
    let of_body = |one: &&Attribute| operation.body.contains_key(one.name.as_str()) && takes(one);
    let entry = |one: &Attribute| {
        let value = values.get(&one.name).filter(|value| !value.is_null())?;
        Some((one.name.clone(), to_api(&one.ty, value)))
    };
    resource.attributes.iter().filter(of_body).filter_map(entry).collect::<Map<_, _>>().into()
}

/// What an update sends: what is another, and null for what is gone.
pub fn patch(
    resource: &Resource,
    operation: &Operation,
    before: &Object,
    after: &Object,
) -> Map<String, Json> {
    let mut patch = Map::new();
    for one in resource.attributes.iter().filter(|one| operation.body.contains_key(one.name.as_str())) {
        let by_another = resource.notes(&one.name).any(|note| matches!(note, Note::By(_)));
        let (old, new) =
            (before.get(&one.name).unwrap_or(&Value::Null), after.get(&one.name).unwrap_or(&Value::Null));
        if old == new || one.write_only || by_another {
            continue;
        }
        let mut value = to_api(&one.ty, new);
        if let (Type::Map(_), Value::Map(old), Json::Object(entries)) = (&one.ty, old, &mut value) {
            for gone in old.keys() {
                entries.entry(gone).or_insert(Json::Null);
            }
        }
        patch.insert(one.name.clone(), value);
    }
    patch
}

/// The state, from what the API shows. Values that say the same in other words stay as they are.
pub fn refresh(resource: &Resource, state: &Object, shown: &Json) -> Object {
    let places = resource.places();
    let value = |one: &Attribute| {
        let before = state.get(&one.name).cloned().unwrap_or(Value::Null);
        let Some(shown_as) = &one.shown_as else { return before };
        if one.name == "id" {
            // An import may have begun with a name.
            return from_api(&one.ty, &shown[shown_as]);
        }
        match shown.get(shown_as) {
            None if places.contains(&one.name.as_str()) => before,
            None => Value::Null,
            Some(json) if !before.is_null() && says(&one.ty, &before, json) => before,
            Some(json) => from_api(&one.ty, json),
        }
    };
    resource.attributes.iter().map(|one| (one.name.clone(), value(one))).collect()
}

/// The state after an apply: what was planned, and for the rest what the API shows.
pub fn settle(resource: &Resource, planned: &Object, shown: &Json, made: &Json) -> Object {
    let value = |one: &Attribute| match planned.get(&one.name) {
        Some(planned) if planned.is_known() => planned.clone(),
        _ => match &one.shown_as {
            Some(shown_as) => from_api(&one.ty, &shown[shown_as]),
            None => from_api(&one.ty, &made[&one.name]),
        },
    };
    resource.attributes.iter().map(|one| (one.name.clone(), value(one))).collect()
}

/// Id and name of a project, where one may see it.
pub async fn project_names(cloud: &Cloud, project: &str) -> Option<[String; 2]> {
    let shown = cloud.client.get(&format!("/v1/projects/{}", client::segment(project))).await.ok()?;
    Some([shown["id"].as_str()?.to_owned(), shown["name"].as_str()?.to_owned()])
}

/// What is kept beside the state: names and ids of what it refers to.
pub fn private(resource: &Resource, shown: &Json) -> Private {
    let name = |shown: &Json| Some([shown["id"].as_str()?.to_owned(), shown["name"].as_str()?.to_owned()]);
    let names = |one: &Attribute| {
        let shown = &shown[one.shown_as.as_ref()?];
        let names: Vec<_> = match &one.ty {
            Type::Text => name(shown).into_iter().collect(),
            Type::Set(_) => shown.as_array().into_iter().flatten().filter_map(name).collect(),
            _ => Vec::new(),
        };
        (!names.is_empty()).then(|| (one.name.clone(), names))
    };
    Private { is_made: true, names: resource.attributes.iter().filter_map(names).collect::<BTreeMap<_, _>>() }
}
