//! How resources are found that have no page of their own.

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::value::{Object, Value};

/// What is set for one project, without what it shares with the others.
pub fn quotas(answer: &Json, _: &Object) -> Option<Json> {
    let own = answer["items"].as_array()?.iter().filter(|one| one["source"] == "project");
    Some(
        own.filter_map(|one| Some((one["resource"].as_str()?.to_owned(), one["limit"].clone())))
            .collect::<Map<_, _>>()
            .into(),
    )
}

pub fn by_id(item: &Json, state: &Object) -> Option<Json> {
    (item["id"].as_str() == state["id"].as_text()).then(|| item.clone())
}

pub fn member(item: &Json, state: &Object) -> Option<Json> {
    let user = state["user"].as_text();
    let is_it = item["user_id"].as_str() == user || item["user_name"].as_str() == user;
    let mut found = item.clone();
    found["user"] = json!({"id": item["user_id"], "name": item["user_name"]});
    is_it.then_some(found)
}

pub fn share(item: &Json, state: &Object) -> Option<Json> {
    // The API names projects by their ids alone: `other` must be one.
    (item["project_id"].as_str() == state["other"].as_text()).then(|| item.clone())
}

pub fn attached(item: &Json, state: &Object) -> Option<Json> {
    let mut found = by_id(item, state)?;
    let subject = item["subject"].clone();
    let kind = subject["kind"].as_str()?.to_owned();
    found[kind.as_str()] = if kind == "everyone" { json!(true) } else { subject };
    Some(found)
}

pub fn rule(group: &Json, state: &Object) -> Option<Json> {
    let mut found = group["rules"].as_array()?.iter().find_map(|one| by_id(one, state))?;
    found["security_group"] = json!({"id": group["id"], "name": group["name"]});
    Some(found)
}

pub fn interface(router: &Json, state: &Object) -> Option<Json> {
    let mut found = router["interfaces"]
        .as_array()?
        .iter()
        .find(|one| one["subnet_id"].as_str() == state["subnet"].as_text())?
        .clone();
    found["router"] = json!({"id": router["id"], "name": router["name"]});
    found["subnet"] = found["subnet_id"].clone();
    Some(found)
}

pub fn attachment(volume: &Json, state: &Object) -> Option<Json> {
    let mut found = volume["attachment"].as_object()?.clone();
    found.insert("volume".to_owned(), json!({"id": volume["id"], "name": volume["name"]}));
    is_same(&found["instance"], state).then_some(found.into())
}

pub fn plugged(port: &Json, state: &Object) -> Option<Json> {
    let port_itself = json!({"id": port["id"], "name": port["name"]});
    is_same(&port["instance"], state).then(|| json!({"instance": port["instance"], "port": port_itself}))
}

/// Whether the instance is the one in the state.
fn is_same(instance: &Json, state: &Object) -> bool {
    let wanted = state["instance"].as_text();
    wanted.is_some() && [&instance["id"], &instance["name"]].iter().any(|one| one.as_str() == wanted)
}

/// An address that somebody has given to another port or instance is no longer this association, nor is it taken away
/// with it. Only ids can be compared: the API shows no names here.
pub fn association(floating: &Json, state: &Object) -> Option<Json> {
    floating["port_id"].as_str()?;
    let is_elsewhere =
        [("port", "port_id"), ("instance", "instance_id")].into_iter().any(|(wanted, shown)| {
            let wanted =
                state.get(wanted).and_then(Value::as_text).filter(|text| text.parse::<Uuid>().is_ok());
            wanted.is_some_and(|wanted| floating[shown].as_str() != Some(wanted))
        });
    (!is_elsewhere).then(|| {
        json!({
            "floating_ip": {"id": floating["id"], "name": floating["name"]}, "port": floating["port_id"],
            "instance": floating["instance_id"], "fixed_address": floating["fixed_address"],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_given_to_others_is_no_longer_associated() {
        let [web, other] = ["01a21bb3-a6e9-7181-9817-5343ebd3e133", "01a21bd2-fec7-75c1-96de-b89105e9e58a"];
        let shown = |port: Json| json!({"id": "f", "name": "www", "port_id": port, "instance_id": web});
        let state = |instance: &str| Object::from([("instance".to_owned(), Value::text(instance))]);
        assert!(association(&shown(other.into()), &state(web)).is_some());
        assert!(association(&shown(other.into()), &state("web")).is_some(), "a name says nothing");
        assert!(association(&shown(other.into()), &state(other)).is_none());
        assert!(association(&shown(Json::Null), &state(web)).is_none());
    }
}
