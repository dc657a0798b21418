//! The workload in Cedar, as its authors would write it: scopes for what scopes can say, groups of actions
//! instead of wildcards, resources as entities in projects.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result};
use cedar_policy::{
    Authorizer, Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet,
    Request, Response, RestrictedExpression,
};

use crate::workload::{ACTIONS, Condition, PROJECTS, Resource, Rule, Workload, fits};

pub struct Cedar {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    pub requests: Vec<Request>,
}

impl Cedar {
    pub fn new(workload: &Workload) -> Result<Self> {
        let mut policies = PolicySet::new();
        for (index, rule) in workload.rules.iter().enumerate() {
            let text = policy(rule);
            let policy = Policy::parse(Some(PolicyId::new(index.to_string())), &text);
            policies.add(policy.with_context(|| format!("parse {text}"))?)?;
        }
        let requests = workload.requests.iter().map(|request| {
            let mut context = vec![
                ("source_ip".to_owned(), RestrictedExpression::new_ip(request.source.to_string())),
                ("secure_transport".to_owned(), RestrictedExpression::new_bool(true)),
                ("second_factor".to_owned(), RestrictedExpression::new_bool(request.second_factor)),
            ];
            context.extend(
                request.vcpus.map(|vcpus| ("vcpus".to_owned(), RestrictedExpression::new_long(vcpus))),
            );
            let resource = uid_of(&workload.resources[request.resource])?;
            let (principal, action) = (uid("User", "alice")?, uid("Action", request.action)?);
            Ok(Request::new(principal, action, resource, Context::from_pairs(context)?, None)?)
        });
        let requests = requests.collect::<Result<_>>()?;
        Ok(Self { authorizer: Authorizer::new(), policies, entities: entities(workload)?, requests })
    }

    pub fn decide(&self, request: &Request) -> Response {
        self.authorizer.is_authorized(request, &self.policies, &self.entities)
    }
}

/// The numbers of the rules that decided, in ascending order.
pub fn deciding(response: &Response) -> Result<Vec<usize>> {
    anyhow::ensure!(response.diagnostics().errors().next().is_none(), "a policy failed: {response:?}");
    let ids = response.diagnostics().reason().map(|id| id.to_string().parse());
    let mut numbers: Vec<usize> = ids.collect::<Result<_, _>>()?;
    numbers.sort_unstable();
    Ok(numbers)
}

fn uid(kind: &str, id: &str) -> Result<EntityUid> {
    Ok(EntityUid::from_type_name_and_id(kind.parse::<EntityTypeName>()?, EntityId::new(id)))
}

fn uid_of(resource: &Resource) -> Result<EntityUid> {
    uid(&type_name(resource.kind), &resource.id)
}

/// `Instance`, `KeyPair`.
fn type_name((_, kind): (&str, &str)) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    kind.split('-').map(capital).collect()
}

fn policy(rule: &Rule) -> String {
    let effect = if rule.deny { "forbid" } else { "permit" };
    let actions = match rule.actions.as_slice() {
        [one] if !one.ends_with('*') => format!("action == Action::{one:?}"),
        // A group is named like the wildcard that it stands for.
        [one] => format!("action in Action::{one:?}"),
        many => {
            let many: Vec<String> = many.iter().map(|action| format!("Action::{action:?}")).collect();
            format!("action in [{}]", many.join(", "))
        }
    };
    let resource = format!("resource is {} in Project::{:?}", type_name(rule.kind), rule.project);
    let mut when = Vec::new();
    match rule.name {
        "*" => {}
        name if name.ends_with('*') => when.push(format!("resource.name like {name:?}")),
        name => when.push(format!("resource.name == {name:?}")),
    }
    when.extend(rule.condition.map(|condition| match condition {
        Condition::From(network) => format!("context.source_ip.isInRange(ip({network:?}))"),
        Condition::NotFrom(network) => format!("!context.source_ip.isInRange(ip({network:?}))"),
        Condition::SecondFactor(present) => format!("context.second_factor == {present}"),
        Condition::VcpusAbove(most) => format!("context has vcpus && context.vcpus > {most}"),
        Condition::Label(label, value) => {
            format!("resource.labels has {label} && resource.labels.{label} == {value:?}")
        }
    }));
    let when = if when.is_empty() { String::new() } else { format!(" when {{ {} }}", when.join(" && ")) };
    format!("{effect}(principal, {actions}, {resource}){when};")
}

fn entities(workload: &Workload) -> Result<Entities> {
    let mut entities = vec![Entity::new_no_attrs(uid("User", "alice")?, HashSet::new())];
    for project in PROJECTS {
        entities.push(Entity::new_no_attrs(uid("Project", project)?, HashSet::new()));
    }
    let patterns = workload.rules.iter().flat_map(|rule| &rule.actions).copied();
    let groups: HashSet<&str> = patterns.filter(|pattern| pattern.ends_with('*')).collect();
    for group in &groups {
        entities.push(Entity::new_no_attrs(uid("Action", group)?, HashSet::new()));
    }
    for action in ACTIONS {
        let member = groups.iter().filter(|group| fits(group, action));
        let parents = member.map(|group| uid("Action", group)).collect::<Result<_>>()?;
        entities.push(Entity::new_no_attrs(uid("Action", action)?, parents));
    }
    for resource in &workload.resources {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        let labels = resource.labels.iter().map(|(label, value)| ((*label).to_owned(), text(value)));
        let attributes = HashMap::from([
            ("name".to_owned(), text(resource.name)),
            ("labels".to_owned(), RestrictedExpression::new_record(labels)?),
        ]);
        let parents = HashSet::from([uid("Project", resource.project)?]);
        entities.push(Entity::new(uid_of(resource)?, attributes, parents)?);
    }
    Ok(Entities::from_entities(entities, None)?)
}
