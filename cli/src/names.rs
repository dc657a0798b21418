//! What an operation is called on the command line: nouns from its path, a verb from its id.
//!
//! `GET /v1/projects/{project}/security_groups/{security_group}/rules`, `list_security_group_rules`, becomes
//! `security-group rule list`.

use std::collections::BTreeSet;

use client::Method;
use serde_json::{Map, Value};

/// Nouns from the outer to the inner, singular. An operation of the whole cloud and one of a project may have one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub nouns: Vec<String>,
    pub verb: String,
}

/// The segments of paths that hold resources.
pub fn collections(paths: &Map<String, Value>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, methods) in paths {
        let segments: Vec<_> = segments(path).collect();
        for pair in segments.windows(2) {
            if !is_parameter(pair[0]) && is_parameter(pair[1]) {
                found.insert(pair[0].to_owned());
            }
        }
        let lists = methods["get"]["operationId"].as_str().is_some_and(|id| id.starts_with("list_"));
        if let Some(last) = segments.last().filter(|last| lists && !last.contains(':')) {
            found.insert((*last).to_owned());
        }
    }
    found
}

pub fn name(path: &str, method: &Method, id: &str, collections: &BTreeSet<String>) -> Named {
    let (path, query) = path.rsplit_once(':').unwrap_or((path, ""));
    let own = path.strip_prefix("/v1/projects/{project}/").unwrap_or(path);
    let segments: Vec<_> = segments(own).filter(|segment| *segment != "v1").collect();
    let mut nouns: Vec<_> =
        segments.iter().filter(|segment| collections.contains(**segment)).map(|one| singular(one)).collect();
    if nouns.is_empty() {
        nouns.push(match segments.as_slice() {
            ["auth", ..] => "auth".to_owned(),
            _ if path.starts_with("/v1/") => segments.last().map(|last| singular(last)).unwrap_or_default(),
            _ => "service".to_owned(),
        });
    }
    let verb = if query.is_empty() { verb(id, &nouns) } else { kebab(query) };
    let whole = *method == Method::DELETE
        && segments.last().is_some_and(|last| !is_parameter(last) && collections.contains(*last));
    let verb = if whole { verb + "-all" } else { verb };
    // "share list", "share add" and "share remove", not "share share".
    let verb = match nouns.last() {
        Some(noun) if verb == *noun => "add".to_owned(),
        Some(noun) if verb.strip_prefix("un") == Some(noun) => "remove".to_owned(),
        _ => verb,
    };
    // "image upload" is a command of its own making, and has none below it.
    if nouns == ["image", "upload"] {
        nouns = vec!["image-upload".to_owned()];
    }
    Named { nouns, verb }
}

/// The words of an id that its nouns do not say.
fn verb(id: &str, nouns: &[String]) -> String {
    let said: BTreeSet<_> = nouns.iter().flat_map(|noun| noun.split('-')).chain(["cloud"]).collect();
    let is_said = |word: &str| said.contains(word) || said.contains(singular(word).as_str());
    let words: Vec<_> = id
        .split('_')
        .enumerate()
        .filter(|(at, word)| *at == 0 || !is_said(word))
        .map(|(_, word)| word)
        .collect();
    match words.as_slice() {
        ["get", rest @ ..] if !rest.is_empty() => rest.join("-"),
        words => words.join("-"),
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn is_parameter(segment: &str) -> bool {
    segment.starts_with('{')
}

pub fn singular(plural: &str) -> String {
    let plural = kebab(plural);
    match plural.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => plural.strip_suffix('s').unwrap_or(&plural).to_owned(),
    }
}

pub fn kebab(name: &str) -> String {
    name.replace('_', "-")
}

#[cfg(test)]
mod tests {
    #[test]
    fn operations_are_called_what_people_would_call_them() {
        let of = |id: &str| {
            let all = crate::document::operations();
            let one = all.iter().find(|operation| operation.id == id).unwrap();
            format!("{} {}", one.named.nouns.join(" "), one.named.verb)
        };
        for (id, command) in [
            ("list_instances", "instance list"),
            ("create_instance", "instance create"),
            ("attach_port", "instance attach-port"),
            ("get_instance_serial", "instance serial"),
            ("add_security_group_rule", "security-group rule add"),
            ("replace_security_group_rules", "security-group rule replace"),
            ("attach_policy", "policy-attachment attach"),
            ("attach_cloud_policy", "policy-attachment attach"),
            ("simulate_cloud_policies", "policy simulate"),
            ("list_cloud_candidates", "policy who-can"),
            ("list_policy_versions", "policy version list"),
            ("add_group_member", "group member add"),
            ("create_user_api_key", "user api-key create"),
            ("revoke_user_session", "user session revoke"),
            ("revoke_user_sessions", "user session revoke-all"),
            ("change_user_password", "user change-password"),
            ("declare_host_dead", "host declare-dead"),
            ("list_host_unknown_guests", "host unknown-guest list"),
            ("get_quotas", "quota get"),
            ("update_quota_defaults", "quota-default update"),
            ("get_me", "me get"),
            ("get_health", "service health"),
            ("export_image", "image export"),
            ("list_image_uploads", "image-upload list"),
            ("share_image", "image share add"),
            ("unshare_image", "image share remove"),
            ("rotate_signing_key", "signing-key rotate"),
        ] {
            assert_eq!(of(id), command, "{id}");
        }
    }
}
