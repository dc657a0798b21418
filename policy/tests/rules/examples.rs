//! What the documentation shows is true: its examples are good documents and do what it says of them.

use std::net::IpAddr;

use policy::{Context, Decision, Names, Policy, Request, Resource, evaluate};
use serde_json::Value;

use super::common::{INSTANCE, INSTANCES, compile};

pub(super) const DOCUMENTATION: &str = include_str!("../../../docs/policies.md");

/// The documents of the page, in their order.
fn documents() -> Vec<Value> {
    let blocks = DOCUMENTATION.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents = blocks.filter(|block| block.contains("Version"));
    documents
        .map(|block| serde_json::from_str(block).unwrap_or_else(|error| panic!("{error}\n{block}")))
        .collect()
}

/// The example that has this `Sid`.
fn example(sid: &str) -> Policy {
    let quoted = format!("\"{sid}\"");
    let document = documents().into_iter().find(|document| document.to_string().contains(&quoted));
    compile(&document.unwrap_or_else(|| panic!("no example has {sid}")))
}

fn decide(policy: &Policy, action: &str, resource: Resource<'_>, context: &Context) -> Decision {
    evaluate(&[policy], &Request { action, resource, context })
}

/// The `Sid`s of the statements that decided.
fn deciding(decision: &Decision) -> Vec<&str> {
    decision.deciding.iter().filter_map(|one| one.sid.as_deref()).collect()
}

fn context(values: &[(&'static str, policy::Value)]) -> Context {
    let mut context = Context::default();
    for (key, value) in values {
        context.set(*key, value.clone());
    }
    context
}

const NEW: Resource<'static> = Resource { target: Some(Names { name: "web-9", id: None }), ..INSTANCE };
const DB: Resource<'static> = Resource { target: Some(Names { name: "db", id: None }), ..INSTANCE };

const ATTACHMENTS: Resource<'static> =
    Resource { service: "iam", kind: "attachment", target: None, ..INSTANCE };

#[test]
fn every_example_is_a_good_document() {
    let documents = documents();
    assert_eq!(documents.len(), 6);
    for document in documents {
        compile(&document);
    }
}

#[test]
fn the_developer_keeps_the_database_and_stays_in_the_office() {
    let policy = example("KeepDatabase");
    let from = |address: &str| context(&[("cumulo:SourceIp", address.parse::<IpAddr>().unwrap().into())]);
    let (office, home) = (from("192.0.2.7"), from("198.51.100.1"));
    let delete = "compute:DeleteInstance";
    assert!(decide(&policy, delete, INSTANCE, &office).allowed);
    assert_eq!(deciding(&decide(&policy, delete, DB, &office)), ["KeepDatabase"]);
    assert_eq!(deciding(&decide(&policy, delete, DB, &home)), ["KeepDatabase", "OfficeOnly"]);
    assert_eq!(deciding(&decide(&policy, "compute:ListInstances", INSTANCES, &home)), ["OfficeOnly"]);
    assert!(decide(&policy, "compute:StartInstance", DB, &office).allowed);
    assert_eq!(decide(&policy, "iam:AttachPolicy", ATTACHMENTS, &office), Decision::default());
    let elsewhere = Resource { project: Some(Names { name: "lab", id: None }), ..INSTANCE };
    assert_eq!(decide(&policy, delete, elsewhere, &office), Decision::default());
}

#[test]
fn deleting_needs_a_fresh_second_factor() {
    let policies = [example("EverythingButRights"), example("FreshSecondFactor")];
    let office = ("cumulo:SourceIp", "192.0.2.7".parse::<IpAddr>().unwrap().into());
    let decide = |action, values: &[(&'static str, policy::Value)]| {
        let context = context(&[values, std::slice::from_ref(&office)].concat());
        evaluate(&policies, &Request { action, resource: INSTANCE, context: &context })
    };
    let (present, age) = ("cumulo:MultiFactorAuthPresent", "cumulo:MultiFactorAuthAge");
    let delete = "compute:DeleteInstance";
    assert!(decide("compute:GetInstance", &[]).allowed);
    assert_eq!(deciding(&decide(delete, &[])), ["SecondFactor"]);
    assert_eq!(deciding(&decide(delete, &[(present, false.into())])), ["SecondFactor"]);
    assert_eq!(
        deciding(&decide(delete, &[(present, true.into()), (age, 3601.into())])),
        ["FreshSecondFactor"]
    );
    assert!(decide(delete, &[(present, true.into()), (age, 3600.into())]).allowed);
}

#[test]
fn no_large_instances() {
    let policy = example("AtMostFourVcpus");
    let create = |values: &[_]| {
        let decision = decide(&policy, "compute:CreateInstance", NEW, &context(values));
        deciding(&decision).join(" ")
    };
    let (vcpus, memory) = ("compute:Vcpus", "compute:MemoryMib");
    assert_eq!(create(&[(vcpus, 4.into()), (memory, 8192.into())]), "");
    assert_eq!(create(&[(vcpus, 5.into()), (memory, 8192.into())]), "AtMostFourVcpus");
    assert_eq!(create(&[(vcpus, 4.into()), (memory, 8193.into())]), "AtMostEightGib");
    assert_eq!(create(&[]), "");
}

#[test]
fn sizes_of_ones_own_within_bounds() {
    let policy = example("SizesOfOnesOwn");
    let (of_type, vcpus, memory) = ("compute:InstanceType", "compute:Vcpus", "compute:MemoryMib");
    let asks = |instance_type: &'static str, cpus: i64, mib: i64| {
        let context = context(&[(of_type, instance_type.into()), (vcpus, cpus.into()), (memory, mib.into())]);
        decide(&policy, "compute:UseCustomSize", NEW, &context).allowed
    };
    assert!(asks("small", 8, 16_384));
    assert!(!asks("small", 9, 16_384));
    assert!(!asks("small", 8, 16_385));
    assert!(!asks("large", 8, 16_384));
}

#[test]
fn rights_by_label() {
    let policy = example("OwnInstances");
    let (own, asked) = ("cumulo:ResourceLabel/team", "cumulo:RequestLabel/team");
    let decide = |action, resource, values: &[_]| decide(&policy, action, resource, &context(values)).allowed;
    assert!(decide("compute:DeleteInstance", INSTANCE, &[(own, "web".into())]));
    assert!(!decide("compute:DeleteInstance", INSTANCE, &[(own, "data".into())]));
    assert!(!decide("compute:DeleteInstance", INSTANCE, &[]));
    assert!(decide("compute:CreateInstance", NEW, &[(asked, "web".into())]));
    assert!(!decide("compute:CreateInstance", NEW, &[(asked, "data".into())]));
    assert!(!decide("compute:CreateInstance", NEW, &[]));
}
