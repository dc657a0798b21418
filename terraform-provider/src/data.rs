//! Data sources: what is there, made by Terraform or not.

use std::collections::HashMap;

use anyhow::{Context as _, Result};

use crate::cloud::{self, Cloud};
use crate::convert::from_api;
use crate::import;
use crate::protocol::tfplugin6::Schema;
use crate::resource::{CATALOGUE, RESOURCES, Resource, Shown};
use crate::schema::{Attribute, Mode, Type, block};
use crate::table::Read;
use crate::value::{Object, Value};

pub fn schemas() -> HashMap<String, Schema> {
    let resources = RESOURCES.iter().map(|one| (one.entry.name, block(&attributes(one), one.entry.about)));
    let catalogue = CATALOGUE.iter().map(|one| (one.name, block(&catalogue(one), one.about)));
    resources.chain(catalogue).map(|(name, schema)| (format!("cumulo_{name}"), schema)).collect()
}

/// Those of a resource that the API shows. Which one it is can be said by `id`, or by `name` where it has one.
pub fn attributes(resource: &Resource) -> Vec<Attribute> {
    let parts = resource.import_parts();
    let has_name = is_named(resource);
    let attribute = |one: &Attribute| {
        let is_part = parts.contains(&one.name.as_str());
        let mode = match one.name.as_str() {
            "id" | "name" if has_name => Mode::OptionalComputed,
            "project" if is_part => Mode::OptionalComputed,
            _ if is_part => Mode::Required,
            _ => Mode::Computed,
        };
        (is_part || one.shown_as.is_some()).then(|| Attribute { mode, ty: shown(&one.ty), ..one.clone() })
    };
    resource.attributes.iter().filter_map(attribute).collect()
}

/// Whether its path takes a name as well as an id.
fn is_named(resource: &Resource) -> bool {
    matches!(resource.entry.read, Read::Get(_)) && resource.attribute("name").is_some()
}

pub fn catalogue(one: &Shown) -> Vec<Attribute> {
    let mode =
        |name: &str| if matches!(name, "id" | "name") { Mode::OptionalComputed } else { Mode::Computed };
    one.attributes.iter().map(|one| Attribute { mode: mode(&one.name), ..one.clone() }).collect()
}

/// Nothing within can be configured.
fn shown(ty: &Type) -> Type {
    match ty {
        Type::Object(inner) => Type::Object(
            inner
                .iter()
                .map(|one| Attribute { mode: Mode::Computed, ty: shown(&one.ty), ..one.clone() })
                .collect(),
        ),
        Type::List(item) => Type::List(Box::new(shown(item))),
        other => other.clone(),
    }
}

pub async fn read(cloud: &Cloud, type_name: &str, config: &Object) -> Result<Object> {
    let name = type_name.trim_start_matches("cumulo_");
    if let Some(one) = CATALOGUE.iter().find(|one| one.name == name) {
        let values = named(config)?;
        let parameter = one.read.parameters().next();
        let shown = cloud.client.get(&cloud.path(&one.read, parameter, &values)?).await?;
        let value = |one: &Attribute| from_api(&one.ty, &shown[&one.name]);
        return Ok(one.attributes.iter().map(|one| (one.name.clone(), value(one))).collect());
    }
    let resource = Resource::find(type_name).with_context(|| format!("there is no {type_name}"))?;
    let values = if is_named(resource) { named(config)? } else { config.clone() };
    let found = cloud.find(resource, &values).await?;
    let found = found.with_context(|| {
        format!("there is none, or you may not see it; it is named by {}", import::form(resource))
    })?;
    let mut state = cloud::refresh(resource, config, &found);
    if let (Some(Value::Null), Some(project)) = (state.get("project"), &cloud.project) {
        state.insert("project".to_owned(), Value::text(project));
    }
    let shown = attributes(resource);
    state.retain(|name, _| shown.iter().any(|one| one.name == *name));
    Ok(state)
}

/// With the name as the id, which paths take as well.
fn named(config: &Object) -> Result<Object> {
    let given =
        ["id", "name"].into_iter().find_map(|key| config.get(key).filter(|value| value.as_text().is_some()));
    let given = given.context("which one? Give `name` or `id`")?.clone();
    let mut values = config.clone();
    values.insert("id".to_owned(), given);
    Ok(values)
}
