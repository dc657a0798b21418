//! Everything that the API can change is a resource, or there is a reason why not.

use client::Method;

use super::{Delete, Note, TABLE};
use crate::openapi;

/// Operations that change something and are no part of a resource, and why.
const WITHOUT: &[(&str, &[&str])] = &[
    (
        "an operator does that, once for the cloud",
        &[
            "create_address_pool",
            "update_address_pool",
            "delete_address_pool",
            "create_host_join_token",
            "update_host",
            "declare_host_dead",
            "readmit_host",
            "drain_host",
            "end_host_maintenance",
            "delete_host",
            "create_instance_type",
            "delete_instance_type",
            "update_placement_settings",
            "create_pool",
            "update_pool",
            "delete_pool",
            "update_quota_defaults",
            "rotate_signing_key",
        ],
    ),
    (
        "somebody signs in or out, or minds their own credentials",
        &[
            "begin_browser_session",
            "end_browser_session",
            "prolong_browser_session",
            "login",
            "logout",
            "refresh",
            "redeem_password_code",
            "change_user_password",
            "renew_user_recovery_codes",
            "reset_user_password",
            "revoke_user_sessions",
            "revoke_user_session",
            "enrol_user_totp",
            "remove_user_totp",
            "confirm_user_totp",
            "create_user_api_key",
            "revoke_user_api_key",
        ],
    ),
    ("it asks and changes nothing", &["simulate_cloud_policies", "simulate_policies", "plan_placements"]),
    (
        "it does something once, where Terraform describes what shall be",
        &[
            "cancel_operation",
            "act_on_instances",
            "confirm_resize",
            "force_detach_volume",
            "create_console",
            "migrate_instance",
            "move_instance",
            "pause_instance",
            "reboot_instance",
            "rebuild_instance",
            "rescue_instance",
            "resume_instance",
            "revert_resize",
            "start_instance",
            "stop_instance",
            "unrescue_instance",
            "restore_snapshot",
            "deprecate_image",
            "undeprecate_image",
            "publish_image",
            "unpublish_image",
        ],
    ),
    ("the image's `file` is sent in parts", &["upload_image", "delete_image_upload"]),
    ("each rule is a resource of its own", &["replace_security_group_rules"]),
];

#[test]
fn every_change_that_the_api_takes_is_a_resource_or_has_a_reason() {
    let of_uploads = ["create_image_upload", "append_to_image_upload", "finish_image_upload", "import_image"];
    let mut known: Vec<&str> = of_uploads.to_vec();
    for entry in TABLE {
        known.push(entry.create);
        known.extend(entry.update);
        let (Delete::Call(delete) | Delete::Unset(delete)) = entry.delete;
        known.push(delete);
        known.extend(entry.notes.iter().filter_map(|(_, note)| match note {
            Note::By(operation) => Some(*operation),
            _ => None,
        }));
    }
    let without = || WITHOUT.iter().flat_map(|(_, operations)| operations.iter().copied());
    let all: Vec<_> = openapi::all().collect();
    for (path, method, operation) in &all {
        let id = operation["operationId"].as_str().unwrap();
        let is_there = known.contains(&id) || without().any(|one| one == id);
        assert!(
            *method == Method::GET || is_there,
            "{method} {path}: give {id} a row in rows.rs, or a reason in covered.rs"
        );
    }
    for id in without() {
        assert!(!known.contains(&id), "{id} is a resource and has a reason why not");
        assert!(
            all.iter().any(|(.., operation)| operation["operationId"] == id),
            "{id} is no operation any more"
        );
    }
}
