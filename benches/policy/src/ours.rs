//! The workload as Cumulo's policies: five documents of ten statements, as somebody in a few groups has them.

use anyhow::{Result, bail};
use policy::{Context, Document, Key, KeyType, Names, Policy, Vocabulary};
use serde_json::{Value, json};

use crate::workload::{ACTIONS, Condition, RESOURCES, Rule, Workload};

const VOCABULARY: Vocabulary = Vocabulary {
    actions: ACTIONS,
    resources: RESOURCES,
    keys: &[
        key("cumulo:SourceIp", KeyType::Ip),
        key("cumulo:CurrentTime", KeyType::Date),
        key("cumulo:SecureTransport", KeyType::Bool),
        key("cumulo:MultiFactorAuthPresent", KeyType::Bool),
        key("cumulo:PrincipalName", KeyType::String),
        key("cumulo:ResourceLabel/", KeyType::String),
        key("compute:Vcpus", KeyType::Numeric),
    ],
};

const PER_DOCUMENT: usize = 10;

const fn key(name: &'static str, value: KeyType) -> Key {
    Key { name, value, multivalued: false }
}

pub struct Ours {
    pub policies: Vec<Policy>,
    contexts: Vec<Context>,
}

impl Ours {
    pub fn new(workload: &Workload) -> Result<Self> {
        let policies = workload.rules.chunks(PER_DOCUMENT).map(compile).collect::<Result<_>>()?;
        let contexts = workload.requests.iter().map(|request| {
            let mut context = Context::default();
            context.set("cumulo:SourceIp", std::net::IpAddr::V4(request.source));
            context.set("cumulo:SecureTransport", true);
            context.set("cumulo:MultiFactorAuthPresent", request.second_factor);
            context.set("cumulo:PrincipalName", "alice");
            for (label, value) in &workload.resources[request.resource].labels {
                context.set(format!("cumulo:ResourceLabel/{label}"), *value);
            }
            if let Some(vcpus) = request.vcpus {
                context.set("compute:Vcpus", vcpus);
            }
            context
        });
        Ok(Self { policies, contexts: contexts.collect() })
    }

    /// The requests, ready to be asked.
    pub fn requests<'a>(&'a self, workload: &'a Workload) -> Vec<policy::Request<'a>> {
        let all = workload.requests.iter().zip(&self.contexts);
        let requests = all.map(|(request, context)| {
            let resource = &workload.resources[request.resource];
            let target =
                (resource.name != "*").then_some(Names { name: resource.name, id: Some(&resource.id) });
            let (service, kind) = resource.kind;
            let project = Some(Names { name: resource.project, id: None });
            let resource = policy::Resource { service, project, kind, target };
            policy::Request { action: request.action, resource, context }
        });
        requests.collect()
    }
}

/// The numbers of the rules that decided, in ascending order.
pub fn deciding(decision: &policy::Decision) -> Vec<usize> {
    decision.deciding.iter().map(|one| one.policy * PER_DOCUMENT + one.statement).collect()
}

fn compile(rules: &[Rule]) -> Result<Policy> {
    let statements: Vec<Value> = rules.iter().map(statement).collect();
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    match Document::parse(&document, &VOCABULARY) {
        Ok(document) => Ok(Policy::compile(&document)),
        Err(findings) => bail!("a faulty document: {findings:#?}"),
    }
}

fn statement(rule: &Rule) -> Value {
    let (service, kind) = rule.kind;
    let mut statement = json!({
        "Effect": if rule.deny { "Deny" } else { "Allow" },
        "Action": rule.actions,
        "Resource": format!("crn:cumulo:{service}:{}:{kind}/{}", rule.project, rule.name),
    });
    if let Some(condition) = rule.condition {
        statement["Condition"] = match condition {
            Condition::From(network) => json!({"IpAddress": {"cumulo:SourceIp": network}}),
            Condition::NotFrom(network) => json!({"NotIpAddress": {"cumulo:SourceIp": network}}),
            Condition::SecondFactor(present) => json!({"Bool": {"cumulo:MultiFactorAuthPresent": present}}),
            Condition::VcpusAbove(most) => json!({"NumericGreaterThan": {"compute:Vcpus": most}}),
            Condition::Label(label, value) => {
                json!({"StringEquals": {format!("cumulo:ResourceLabel/{label}"): value}})
            }
        };
    }
    statement
}
