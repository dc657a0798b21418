//! What can be decided before the resource is known.

use policy::{Decision, Names, Place, Policy, foresee};
use serde_json::{Value, json};

use super::common::{SHOP, compile, document, statement};

fn foreseen(statements: Value, project: Option<Names<'_>>) -> Option<Decision> {
    foresee(&[compile(&document(statements))], "compute:GetInstance", "compute", "instance", project)
}

#[test]
fn a_pattern_may_settle_it() {
    for (resource, expected) in [
        ("*", Some(true)),
        ("crn:cumulo:compute:shop:instance/*", Some(true)),
        ("crn:cumulo:compute:0190-shop:instance/**", Some(true)),
        ("crn:cumulo:*:*:*", Some(true)),
        ("crn:cumulo:compute:shop:i*e/*", Some(true)),
        ("crn:cumulo:compute:shop:i*e/*b", None),
        ("crn:cumulo:compute:shop:instance/web-*", None),
        ("crn:cumulo:compute:shop:instance/${cumulo:PrincipalName}", None),
        ("crn:cumulo:compute:shop:*/${cumulo:PrincipalName}*", None),
        ("crn:cumulo:compute:shop:*/web", None),
        ("crn:cumulo:compute:shop:key-pair/*", Some(false)),
        ("crn:cumulo:compute:lab:*", Some(false)),
        ("crn:cumulo:compute::*", Some(false)),
        ("crn:cumulo:storage:shop:*", Some(false)),
    ] {
        let allowed = |effect: &str, element: &str| {
            let mut statements =
                vec![statement(&json!({"Effect": effect, "Resource": null, element: resource}))];
            if effect == "Deny" {
                statements.push(statement(&json!({})));
            }
            foreseen(Value::Array(statements), Some(SHOP)).map(|decision| decision.allowed)
        };
        assert_eq!(allowed("Allow", "Resource"), expected, "{resource}");
        assert_eq!(allowed("Allow", "NotResource"), expected.map(|allowed| !allowed), "not {resource}");
        assert_eq!(allowed("Deny", "Resource"), expected.map(|denied| !denied), "deny {resource}");
    }
}

#[test]
fn nobody_allowing_settles_it() {
    assert_eq!(
        foreseen(json!([statement(&json!({"Action": "storage:*"}))]), Some(SHOP)),
        Some(Decision::default())
    );
    let nobody = foresee::<Policy>(&[], "compute:GetInstance", "compute", "instance", None);
    assert_eq!(nobody, Some(Decision::default()));
    // What may be denied is not allowed anyway.
    let denied =
        json!([statement(&json!({"Effect": "Deny", "Resource": "crn:cumulo:compute:shop:instance/db"}))]);
    assert_eq!(foreseen(denied, Some(SHOP)), Some(Decision::default()));
}

#[test]
fn conditions_leave_it_open() {
    let office = json!({"Condition": {"IpAddress": {"cumulo:SourceIp": "192.0.2.0/24"}}});
    let mut denying = office.clone();
    denying["Effect"] = "Deny".into();
    assert_eq!(foreseen(json!([statement(&office)]), Some(SHOP)), None);
    assert_eq!(foreseen(json!([statement(&denying), statement(&json!({}))]), Some(SHOP)), None);
    let decision =
        foreseen(json!([statement(&office), statement(&json!({"Sid": "All"}))]), Some(SHOP)).unwrap();
    assert!(decision.allowed);
    assert_eq!(decision.deciding.len(), 1);
    assert_eq!(decision.deciding[0].sid.as_deref(), Some("All"));
}

#[test]
fn the_cloud_as_a_whole_is_no_project() {
    let allowed = |resource: &str| {
        foreseen(json!([statement(&json!({"Resource": resource}))]), None).map(|decision| decision.allowed)
    };
    assert_eq!(allowed("crn:cumulo:compute::instance/*"), Some(true));
    assert_eq!(allowed("crn:cumulo:compute:*:instance/*"), Some(true));
    assert_eq!(allowed("crn:cumulo:compute:shop:instance/*"), Some(false));
}

#[test]
fn any_project_is_each_of_them() {
    let allowed = |statements: Value| {
        let policy = compile(&document(statements));
        foresee(&[policy], "compute:GetInstance", "compute", "instance", Place::AnyProject)
            .map(|decision| decision.allowed)
    };
    for (project, expected) in [
        ("*", Some(true)),
        ("?*", Some(true)),
        ("*?*", Some(true)),
        ("", Some(false)),
        ("??*", None),
        ("shop", None),
        ("s*", None),
        ("${cumulo:PrincipalName}", None),
    ] {
        let resource = format!("crn:cumulo:compute:{project}:instance/*");
        assert_eq!(allowed(json!([statement(&json!({"Resource": resource}))])), expected, "{project}");
        let denying =
            json!([statement(&json!({})), statement(&json!({"Effect": "Deny", "Resource": resource}))]);
        assert_eq!(allowed(denying), expected.map(|denied| !denied), "deny {project}");
    }
}
