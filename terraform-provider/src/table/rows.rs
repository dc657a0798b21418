//! The rows.

use super::Note::{
    By, Called, Chosen, Default, Extra, Follows, Hidden, Id, Kept, Once, Secret, ShownAs, Stable, WriteOnly,
};
use super::looks;
use super::{Delete, Entry, Note, Read};
use crate::value::Value;

const fn plain(
    name: &'static str,
    about: &'static str,
    [create, read, update, delete]: [&'static str; 4],
    own: &'static str,
    notes: &'static [(&'static str, Note)],
) -> Entry {
    Entry {
        name,
        about,
        create,
        read: Read::Get(read),
        update: Some(update),
        delete: Delete::Call(delete),
        own: Some(own),
        notes,
        slow: false,
    }
}

/// Something that connects two others, or belongs to one and has no page of its own.
const fn part(
    name: &'static str,
    about: &'static str,
    create: &'static str,
    read: Read,
    delete: &'static str,
    own: Option<&'static str>,
    notes: &'static [(&'static str, Note)],
) -> Entry {
    Entry { name, about, create, read, update: None, delete: Delete::Call(delete), own, notes, slow: false }
}

const fn slow(entry: Entry) -> Entry {
    Entry { slow: true, ..entry }
}

fn yes() -> Value {
    Value::Bool(true)
}

fn none() -> Value {
    Value::List(Vec::new())
}

pub const TABLE: &[Entry] = &[
    plain(
        "project",
        "A project: what belongs together, with its quotas and rights.",
        ["create_project", "get_project", "update_project", "delete_project"],
        "project",
        &[],
    ),
    Entry {
        update: Some("update_quotas"),
        delete: Delete::Unset("update_quotas"),
        ..part(
            "quota",
            "The limits of one project. Those left out are the cloud's; -1 is no limit.",
            "update_quotas",
            Read::Within("get_quotas", looks::quotas),
            "",
            None,
            &[],
        )
    },
    plain(
        "user",
        "A user of the cloud.",
        ["create_user", "get_user", "update_user", "delete_user"],
        "user",
        &[
            ("password", WriteOnly),
            ("password_code", Once),
            ("has_password", Hidden),
            ("has_second_factor", Hidden),
            ("password_code_expires_at", Hidden),
        ],
    ),
    plain(
        "group",
        "Users with the same rights.",
        ["create_group", "get_group", "update_group", "delete_group"],
        "group",
        &[],
    ),
    part(
        "group_member",
        "A user in a group.",
        "add_group_member",
        Read::List("list_group_members", looks::member),
        "remove_group_member",
        None,
        &[],
    ),
    plain(
        "service_account",
        "A program that works in a project.",
        ["create_service_account", "get_service_account", "update_service_account", "delete_service_account"],
        "service_account",
        &[],
    ),
    part(
        "service_account_key",
        "A key of a service account.",
        "create_api_key",
        Read::List("list_api_keys", looks::by_id),
        "revoke_api_key",
        Some("api_key"),
        KEY,
    ),
    plain(
        "policy",
        "Rights in one project, as a document that names actions and resources.",
        ["create_policy", "get_policy", "update_policy", "delete_policy"],
        "policy",
        &[("default_version", Hidden)],
    ),
    part(
        "policy_attachment",
        "Gives a user, a group, a service account or everyone the rights of a policy in one project.",
        "attach_policy",
        Read::List("list_policy_attachments", looks::attached),
        "detach_policy",
        Some("attachment"),
        SUBJECT,
    ),
    plain(
        "cloud_policy",
        "Rights in the whole cloud.",
        ["create_cloud_policy", "get_cloud_policy", "update_cloud_policy", "delete_cloud_policy"],
        "policy",
        &[("default_version", Hidden)],
    ),
    part(
        "cloud_policy_attachment",
        "Gives a user, a group, a service account or everyone the rights of a policy in the whole cloud.",
        "attach_cloud_policy",
        Read::List("list_cloud_policy_attachments", looks::attached),
        "detach_cloud_policy",
        Some("attachment"),
        SUBJECT,
    ),
    plain(
        "key_pair",
        "A public key for SSH. Without one the cloud makes a pair, and shows the private key once.",
        ["create_key_pair", "get_key_pair", "update_key_pair", "delete_key_pair"],
        "key_pair",
        &[("private_key", Once), ("private_key_detail", Hidden)],
    ),
    slow(plain(
        "image",
        "What disks are made of: from a file here, an address, or something in the cloud.",
        ["create_image", "get_image", "update_image", "delete_image"],
        "image",
        &[
            ("operation_id", Hidden),
            ("failure", Hidden),
            ("project", Called("owner")),
            ("file", Extra("A file on this machine that is sent. Another path makes another image.")),
            (
                "url",
                Extra(
                    "An address (HTTP or HTTPS) that the cloud imports the image from. Another one makes another image.",
                ),
            ),
        ],
    )),
    part(
        "image_share",
        "Lets another project use an image.",
        "share_image",
        Read::List("list_image_shares", looks::share),
        "unshare_image",
        None,
        &[("project_id", Hidden), ("other", Id)],
    ),
    slow(plain(
        "volume",
        "A disk that outlives its instance.",
        ["create_volume", "get_volume", "update_volume", "delete_volume"],
        "volume",
        &[
            ("operation", Hidden),
            ("attachment", Hidden),
            ("delete_with_instance", Hidden),
            ("serial", Stable),
            ("state_detail", Hidden),
        ],
    )),
    Entry {
        update: Some("update_volume"),
        ..slow(part(
            "volume_attachment",
            "A volume in an instance.",
            "attach_volume",
            Read::Within("get_volume", looks::attachment),
            "detach_volume",
            None,
            &[("root", Kept)],
        ))
    },
    slow(plain(
        "snapshot",
        "What a volume, or all volumes of an instance, held at one moment.",
        ["create_snapshot", "get_snapshot", "update_snapshot", "delete_snapshot"],
        "snapshot",
        &[("operation", Hidden), ("volume", Kept), ("failure", Hidden), ("state_detail", Hidden)],
    )),
    plain(
        "snapshot_schedule",
        "Takes snapshots regularly, and keeps the newest.",
        [
            "create_snapshot_schedule",
            "get_snapshot_schedule",
            "update_snapshot_schedule",
            "delete_snapshot_schedule",
        ],
        "schedule",
        &[("last_run", Hidden)],
    ),
    plain(
        "network",
        "A private network.",
        ["create_network", "get_network", "update_network", "delete_network"],
        "network",
        &[("vni", Stable), ("is_default", Stable)],
    ),
    plain(
        "subnet",
        "A range of addresses in a network.",
        ["create_subnet", "get_subnet", "update_subnet", "delete_subnet"],
        "subnet",
        &[("dhcp", Default(yes))],
    ),
    plain(
        "router",
        "Connects subnets with each other and, if `external`, with the world.",
        ["create_router", "get_router", "update_router", "delete_router"],
        "router",
        &[("interfaces", Hidden), ("routes", Default(none))],
    ),
    part(
        "router_interface",
        "A subnet on a router.",
        "add_router_interface",
        Read::Within("get_router", looks::interface),
        "remove_router_interface",
        None,
        &[("subnet", Id)],
    ),
    plain(
        "port",
        "A network card, with its addresses.",
        ["create_port", "get_port", "update_port", "delete_port"],
        "port",
        &[
            ("addresses", Called("fixed_addresses")),
            ("addresses", Kept),
            ("instance", Hidden),
            ("owned_by_instance", Hidden),
            ("status", Hidden),
            ("status_detail", Hidden),
            ("fixed_addresses", Stable),
            ("dns_name", Stable),
            ("security_groups", Chosen),
        ],
    ),
    slow(part(
        "port_attachment",
        "A port in an instance.",
        "attach_port",
        Read::Within("get_port", looks::plugged),
        "detach_port",
        None,
        &[("network", Hidden), ("address", Hidden), ("security_groups", Hidden)],
    )),
    plain(
        "floating_ip",
        "A public address.",
        ["create_floating_ip", "get_floating_ip", "update_floating_ip", "delete_floating_ip"],
        "floating_ip",
        &[
            ("address_pool", ShownAs("address_pool_id")),
            ("address_pool_id", Hidden),
            ("port_id", Hidden),
            ("instance_id", Hidden),
            ("fixed_address", Hidden),
        ],
    ),
    part(
        "floating_ip_association",
        "A public address on a port, or on the first port of an instance.",
        "associate_floating_ip",
        Read::Within("get_floating_ip", looks::association),
        "disassociate_floating_ip",
        None,
        &[],
    ),
    plain(
        "security_group",
        "Rules for what may reach a port and leave it. They are `cumulo_security_group_rule`s.",
        ["create_security_group", "get_security_group", "update_security_group", "delete_security_group"],
        "security_group",
        &[("rules", Hidden), ("is_default", Stable)],
    ),
    part(
        "security_group_rule",
        "A rule of a security group.",
        "add_security_group_rule",
        Read::Within("get_security_group", looks::rule),
        "remove_security_group_rule",
        Some("rule"),
        &[("remote_group", ShownAs("remote_group_id")), ("remote_group_id", Hidden)],
    ),
    plain(
        "placement_group",
        "Instances that belong on one host, or must not share one.",
        ["create_placement_group", "get_placement_group", "update_placement_group", "delete_placement_group"],
        "placement_group",
        &[("instances", Hidden)],
    ),
    slow(plain(
        "instance",
        "A virtual machine.",
        ["create_instance", "get_instance", "update_instance", "delete_instance"],
        "instance",
        &[
            ("operation", Hidden),
            ("placement", Hidden),
            ("plan", Hidden),
            ("resize", Hidden),
            ("volumes", Called("attached_volumes")),
            ("volumes", Kept),
            ("networks", Kept),
            ("key_pairs", Kept),
            ("user_data", Secret),
            ("user_data_base64", Secret),
            ("root_volume", Kept),
            ("root_disk_gib", Chosen),
            ("instance_type", By("resize_instance")),
            ("vcpus", By("resize_instance")),
            ("vcpus", Follows("instance_type")),
            ("memory_mib", By("resize_instance")),
            ("memory_mib", Follows("instance_type")),
            ("architecture", Stable),
            ("firmware", Stable),
            ("nics", Stable),
            ("host", Hidden),
            ("state_detail", Hidden),
            ("state_reason", Hidden),
        ],
    )),
];

const KEY: &[(&str, Note)] = &[("key", Once), ("last_used_at", Hidden), ("expires_in_seconds", Kept)];

const SUBJECT: &[(&str, Note)] = &[("subject", Hidden), ("created_by", Hidden)];

/// What only data sources show: an operator makes it.
pub const SHOWN: &[(&str, &str, &str, &str)] = &[
    ("instance_type", "A size of instances.", "get_instance_type", "instance_type"),
    ("address_pool", "Public addresses that floating IPs come from.", "get_address_pool", "address_pool"),
    ("pool", "A place where volumes are.", "get_pool", "pool"),
];
