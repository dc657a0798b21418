//! The rules of evaluation: effects, actions, resources and variables.

use std::sync::Arc;

use super::common::{INSTANCE, INSTANCES, SHOP, WEB, compile, decide, document, statement};
use policy::{Context, Deciding, Effect, Names, Policy, Request, Resource, evaluate};
use serde_json::{Value as Json, json};

fn request<'a>(action: &'a str, resource: Resource<'a>, context: &'a Context) -> Request<'a> {
    Request { action, resource, context }
}

/// Whether a document that allows what `fields` say allows this.
fn allows(fields: &Json, action: &str, resource: Resource<'_>, context: &Context) -> bool {
    let policy = [compile(&document(statement(fields)))];
    let request = request(action, resource, context);
    evaluate(&policy, &request).allowed
}

#[test]
fn nobody_allows_by_default() {
    let nothing = Context::default();
    let decision = evaluate::<Policy>(&[], &request("compute:GetInstance", INSTANCE, &nothing));
    assert_eq!(decision, policy::Decision::default());
    assert!(!decision.allowed);
}

#[test]
fn a_denial_names_every_statement_that_denies_and_wins() {
    let policies = [
        Arc::new(compile(&document(json!([
            statement(&json!({"Sid": "All", "Action": "*"})),
            statement(&json!({"Sid": "NotThis", "Effect": "Deny", "Action": "compute:Delete*"})),
        ])))),
        Arc::new(compile(&document(json!([
            statement(&json!({"Effect": "Deny", "Action": "storage:*"})),
            statement(
                &json!({"Effect": "Deny", "Action": "compute:*", "Resource": "crn:cumulo:*:shop:instance/web"})
            ),
            statement(&json!({"Sid": "AlsoAll", "Action": "*"})),
        ])))),
    ];
    let deciding = |policy, statement, sid: Option<&str>, effect| Deciding {
        policy,
        statement,
        sid: sid.map(str::to_owned),
        effect,
    };
    let nothing = Context::default();
    let decision = evaluate(&policies, &request("compute:DeleteInstance", INSTANCE, &nothing));
    assert!(!decision.allowed);
    let denials = [deciding(0, 1, Some("NotThis"), Effect::Deny), deciding(1, 1, None, Effect::Deny)];
    assert_eq!(decision.deciding, denials);

    let decision = evaluate(&policies, &request("iam:CreateUser", INSTANCE, &nothing));
    assert!(decision.allowed);
    let grants = [deciding(0, 0, Some("All"), Effect::Allow), deciding(1, 2, Some("AlsoAll"), Effect::Allow)];
    assert_eq!(decision.deciding, grants);
}

#[test]
fn statements_beyond_the_first_word_of_bits_count() {
    let mut statements = vec![statement(&json!({"Action": "storage:CreateVolume"})); 199];
    statements.push(statement(&json!({"Sid": "Last"})));
    let decision = decide(&document(Json::Array(statements)), &Context::default());
    assert!(decision.allowed);
    assert_eq!(decision.deciding.len(), 1);
    assert_eq!(decision.deciding[0].statement, 199);
}

#[test]
fn actions() {
    let delete = "compute:DeleteInstance";
    for (element, patterns, action, expected) in [
        ("Action", json!("*"), delete, true),
        ("Action", json!("compute:DeleteInstance"), delete, true),
        ("Action", json!("compute:deleteinstance"), delete, true),
        ("Action", json!("COMPUTE:Delete*"), delete, true),
        ("Action", json!("compute:*Instance"), delete, true),
        ("Action", json!("compute:?eleteInstance"), delete, true),
        ("Action", json!("compute:CreateInstance"), delete, false),
        ("Action", json!("storage:*"), delete, false),
        ("Action", json!(["storage:*", "compute:Delete*"]), delete, true),
        ("NotAction", json!("storage:*"), delete, true),
        ("NotAction", json!("*"), delete, false),
        ("NotAction", json!(["storage:*", "compute:delete*"]), delete, false),
    ] {
        let fields = json!({"Action": null, element: patterns});
        assert_eq!(allows(&fields, action, INSTANCE, &Context::default()), expected, "{fields} {action}");
    }
}

const IAM_USER: Resource<'static> =
    Resource { service: "iam", project: None, kind: "user", target: Some(WEB) };
const NAMELESS: Names<'static> = Names { name: "web-1", id: None };

#[test]
fn resources() {
    let volume = Resource { service: "storage", kind: "volume", ..INSTANCE };
    let elsewhere = Resource { project: Some(Names { name: "lab", id: Some("0190-lab") }), ..INSTANCE };
    let other = Resource { target: Some(NAMELESS), ..INSTANCE };
    for (pattern, resource, expected) in [
        ("*", INSTANCE, true),
        ("*", INSTANCES, true),
        ("*", IAM_USER, true),
        ("crn:cumulo:compute:shop:instance/web", INSTANCE, true),
        ("crn:cumulo:compute:shop:instance/0190-web", INSTANCE, true),
        ("crn:cumulo:compute:0190-shop:instance/0190-web", INSTANCE, true),
        ("crn:cumulo:compute:0190-*:instance/w?b", INSTANCE, true),
        ("crn:cumulo:compute:shop:instance/Web", INSTANCE, false),
        ("crn:cumulo:compute:shop:instance/db", INSTANCE, false),
        ("crn:cumulo:compute:sho:instance/web", INSTANCE, false),
        ("crn:cumulo:compute:sho?:instance/web", INSTANCE, true),
        ("crn:cumulo:compute:*:instance/web", INSTANCE, true),
        ("crn:cumulo:*:shop:instance/web", INSTANCE, true),
        ("crn:cumulo:storage:shop:volume/web", INSTANCE, false),
        ("crn:cumulo:storage:shop:volume/web", volume, true),
        ("crn:cumulo:*:shop:volume/web", volume, true),
        ("crn:cumulo:compute:shop:instance/web", elsewhere, false),
        ("crn:cumulo:compute:shop:*", elsewhere, false),
        ("crn:cumulo:compute:*:*", elsewhere, true),
        // A resource without id goes by its name alone.
        ("crn:cumulo:compute:shop:instance/web-*", other, true),
        ("crn:cumulo:compute:shop:instance/0190-*", other, false),
        // Wildcards reach across the slash, as they do in AWS.
        ("crn:cumulo:compute:shop:*", INSTANCE, true),
        ("crn:cumulo:compute:shop:*/web", INSTANCE, true),
        ("crn:cumulo:compute:shop:*/db", INSTANCE, false),
        ("crn:cumulo:compute:shop:i*/w*", INSTANCE, true),
        ("crn:cumulo:compute:shop:key*/web", INSTANCE, false),
        ("crn:cumulo:compute:shop:?nstance/0190-web", INSTANCE, true),
        // The collection goes by `*`, whatever names there are.
        ("crn:cumulo:compute:shop:instance/*", INSTANCES, true),
        ("crn:cumulo:compute:shop:*", INSTANCES, true),
        ("crn:cumulo:compute:shop:instance/?", INSTANCES, true),
        ("crn:cumulo:compute:shop:instance/${*}", INSTANCES, true),
        ("crn:cumulo:compute:shop:instance/${*}", INSTANCE, false),
        ("crn:cumulo:compute:shop:instance/web-*", INSTANCES, false),
        ("crn:cumulo:compute:shop:instance/web", INSTANCES, false),
        // The cloud as a whole has an empty segment.
        ("crn:cumulo:iam::user/web", IAM_USER, true),
        ("crn:cumulo:iam:*:user/web", IAM_USER, true),
        ("crn:cumulo:iam:?*:user/web", IAM_USER, false),
        ("crn:cumulo:iam:shop:user/web", IAM_USER, false),
        ("crn:cumulo:compute::instance/web", INSTANCE, false),
        ("crn:cumulo:compute::*", INSTANCE, false),
    ] {
        let allowed = |element: &str| {
            let fields = json!({"Resource": null, element: pattern});
            allows(&fields, "compute:GetInstance", resource, &Context::default())
        };
        assert_eq!(allowed("Resource"), expected, "{pattern} {resource}");
        assert_eq!(allowed("NotResource"), !expected, "not {pattern} {resource}");
    }
}

#[test]
fn several_resources_are_alternatives() {
    let either = json!(["crn:cumulo:compute:lab:*", "crn:cumulo:compute:shop:instance/web"]);
    let get = "compute:GetInstance";
    assert!(allows(&json!({"Resource": either}), get, INSTANCE, &Context::default()));
    assert!(!allows(&json!({"Resource": null, "NotResource": either}), get, INSTANCE, &Context::default()));
}

#[test]
fn variables() {
    let mut context = Context::default();
    context.set("cumulo:PrincipalName", "alice");
    context.set("cumulo:ResourceLabel/team", "a*");
    let resource = |part: &str| json!({"Resource": format!("crn:cumulo:compute:shop:instance/{part}")});
    for (part, expected) in [
        ("${cumulo:PrincipalName}-*", true),
        ("*${cumulo:PrincipalName}*", true),
        ("${cumulo:PrincipalName}", false),
        ("?${cumulo:PrincipalName}*", false),
        // A value is never a wildcard.
        ("${cumulo:ResourceLabel/team}", false),
        ("${cumulo:ResourceLabel/team}*", false),
        // A missing key matches nothing.
        ("${cumulo:PrincipalId}*", false),
        ("*${cumulo:PrincipalId}", false),
        ("${cumulo:ResourceLabel/other}alice-web", false),
        // Escaped characters are themselves.
        ("alice${*}", false),
        ("alice-we${?}", false),
        ("alice-web${$}", false),
    ] {
        let allowed = allows(&resource(part), "compute:GetInstance", called("alice-web"), &context);
        assert_eq!(allowed, expected, "{part}");
        let deny = document(json!([
            statement(&json!({"Resource": "*"})),
            statement(&json!({"Effect": "Deny", "Resource": resource(part)["Resource"]})),
        ]));
        let request = request("compute:GetInstance", called("alice-web"), &context);
        assert_eq!(evaluate(&[compile(&deny)], &request).allowed, !expected, "deny {part}");
    }
    // Nothing is allowed because a value is missing, but everything else is denied.
    let missing = |effect: &str| {
        let all = json!({"Effect": effect, "Resource": null, "NotResource": resource("${cumulo:PrincipalId}")["Resource"]});
        let policy =
            compile(&document(json!([statement(&json!({"Action": "compute:Get*"})), statement(&all)])));
        evaluate(&[policy], &request("compute:GetInstance", INSTANCE, &context)).deciding
    };
    assert_eq!(missing("Allow").iter().map(|one| one.statement).collect::<Vec<_>>(), [0]);
    assert_eq!(missing("Deny").iter().map(|one| one.statement).collect::<Vec<_>>(), [1]);
}

/// An instance of this name, without id.
fn called(name: &str) -> Resource<'_> {
    Resource { target: Some(Names { name, id: None }), ..INSTANCE }
}

#[test]
fn a_long_pattern_takes_no_longer_than_its_length() {
    let name = "a".repeat(50_000);
    let resource = called(&name);
    for tail in ["b", "${cumulo:PrincipalName}b", "?b"] {
        let pattern = format!("crn:cumulo:compute:shop:instance/{}{tail}", "a*".repeat(200));
        let fields = json!({"Resource": pattern});
        assert!(!allows(&fields, "compute:GetInstance", resource, &Context::default()));
    }
    let pattern = format!("crn:cumulo:compute:shop:instance/{}", "*a".repeat(200));
    assert!(allows(&json!({"Resource": pattern}), "compute:GetInstance", resource, &Context::default()));
}

#[test]
fn resources_are_shown_by_name() {
    for (resource, expected) in [
        (INSTANCE, "crn:cumulo:compute:shop:instance/web"),
        (INSTANCES, "crn:cumulo:compute:shop:instance/*"),
        (IAM_USER, "crn:cumulo:iam::user/web"),
        (Resource { project: Some(SHOP), ..IAM_USER }, "crn:cumulo:iam:shop:user/web"),
    ] {
        assert_eq!(resource.to_string(), expected);
    }
}
