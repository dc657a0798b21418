//! Taking over what is there already.

use anyhow::{Result, ensure};

use crate::resource::Resource;
use crate::value::{Object, Value};

/// `PROJECT/PLACE/…/NAME`: what says which resource it is. The project of the provider may be left out.
pub fn state(resource: &Resource, id: &str, project: Option<&str>) -> Result<Object> {
    let parts = resource.import_parts();
    let mut given: Vec<&str> = id.split('/').collect();
    if given.len() + 1 == parts.len()
        && parts[0] == "project"
        && let Some(project) = project
    {
        given.insert(0, project);
    }
    let wanted = form(resource);
    ensure!(given.len() == parts.len() && !given.contains(&""), "'{id}' is not {wanted}");
    let mut state: Object = resource.attributes.iter().map(|one| (one.name.clone(), Value::Null)).collect();
    for (part, given) in parts.iter().zip(given) {
        state.insert((*part).to_owned(), Value::text(given));
    }
    Ok(state)
}

/// Like `PROJECT/NETWORK`, with names or ids.
pub fn form(resource: &Resource) -> String {
    let own = resource.entry.own.unwrap_or_default();
    let name = |part: &str| if part == "id" { own.to_uppercase() } else { part.to_uppercase() };
    resource.import_parts().into_iter().map(name).collect::<Vec<_>>().join("/")
}
