//! The policies that the documentation shows: good documents in the vocabulary of this release, and the developer
//! of the first example is no owner.

use std::net::IpAddr;

use policy::{Context, Decision, Document, Names, Policy, Request, Resource, evaluate};
use serde_json::{Deserializer, Value};

use crate::auth::{ActionInfo, actions, keys, vocabulary};

const PAGES: &[(&str, &str)] = &[
    ("docs/policies.md", include_str!("../../../../docs/policies.md")),
    ("docs/team.md", include_str!("../../../../docs/team.md")),
];
const OFFICE: &str = "192.0.2.7";
const SHOP: Names<'static> = Names { name: "shop", id: None };

/// Every policy of a page, also those inside of commands.
fn policies(page: &str, text: &str) -> Vec<Value> {
    let starts = text.match_indices("\"Version\":").map(|(at, _)| text[..at].rfind('{').unwrap());
    let read = |at| match Deserializer::from_str(&text[at..]).into_iter::<Value>().next() {
        Some(Ok(value)) => value,
        other => panic!("{page}: {other:?}\n{}", &text[at..]),
    };
    starts.map(read).collect()
}

fn compile(page: &str, source: &Value) -> Policy {
    let document = Document::parse(source, &vocabulary());
    Policy::compile(&document.unwrap_or_else(|findings| panic!("{page}: {findings:#?}\n{source:#}")))
}

fn developer() -> Policy {
    let (page, text) = PAGES[0];
    let all = policies(page, text);
    let ours = all.iter().find(|policy| policy.to_string().contains("EverythingButRights"));
    compile(page, ours.expect("docs/policies.md has the developer"))
}

fn decide(policy: &Policy, action: &ActionInfo, name: Option<&str>, from: &str) -> Decision {
    let mut context = Context::default();
    context.set(keys::SOURCE_IP, from.parse::<IpAddr>().unwrap());
    let resource = Resource {
        service: action.kind.service(),
        project: action.in_project.then_some(SHOP),
        kind: action.kind.as_str(),
        target: name.map(|name| Names { name, id: None }),
    };
    evaluate(&[policy], &Request { action: action.name, resource, context: &context })
}

fn action(name: &str) -> &'static ActionInfo {
    let found = actions::ALL.iter().find(|action| action.name == name && action.in_project);
    found.unwrap_or_else(|| panic!("no action {name} in projects"))
}

#[test]
fn every_policy_of_the_documentation_is_good() {
    for (page, text) in PAGES {
        let found = policies(page, text);
        assert!(found.len() >= 2, "{page}: {}", found.len());
        for policy in &found {
            compile(page, policy);
        }
    }
}

#[test]
fn the_developer_works_from_the_office_and_keeps_the_database() {
    let policy = developer();
    let decide = |name: &str, instance, from| decide(&policy, action(name), Some(instance), from).allowed;
    for from in [OFFICE, "2001:db8:1::7"] {
        assert!(decide("compute:StartInstance", "db", from));
        assert!(decide("compute:CreateInstance", "web-2", from));
        assert!(decide("compute:DeleteInstance", "web", from));
        assert!(!decide("compute:DeleteInstance", "db", from));
    }
    for name in ["compute:StartInstance", "compute:GetInstance", "compute:DeleteInstance"] {
        assert!(!decide(name, "web", "198.51.100.7"), "{name} from a café");
    }
}

#[test]
fn the_developer_cannot_become_the_owner() {
    let policy = developer();
    assert!(!decide(&policy, action("iam:AttachPolicy"), None, OFFICE).allowed);
    for action in actions::ALL {
        let allowed = [None, Some("any")].map(|name| decide(&policy, action, name, OFFICE).allowed);
        let rights = action.name.starts_with("iam:")
            || action.name.starts_with("audit:")
            || action.name.starts_with("quota:Update")
            || ["project:UpdateProject", "project:DeleteProject"].contains(&action.name);
        let expected = action.in_project && !rights;
        assert_eq!(allowed, [expected; 2], "{}", action.name);
    }
}
