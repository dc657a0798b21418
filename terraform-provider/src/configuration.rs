//! What the provider itself is told.

use std::sync::LazyLock;

use serde_json::Value as Json;

use crate::schema::{Attribute, Mode, Type};

pub const ABOUT: &str = "Manages what is in the projects of a Cumulo cloud. Without a word it works in the cloud and the project of \
     the command line's current context.";

static ANY: LazyLock<Json> = LazyLock::new(|| serde_json::json!({}));

pub fn attributes() -> Vec<Attribute> {
    let one = |name, ty, help: &str| Attribute {
        mode: Mode::Optional,
        help: help.to_owned(),
        ..Attribute::new(name, ty, &ANY)
    };
    vec![
        one(
            "url",
            Type::Text,
            "Where the API is, like `https://cloud.example.org`. Otherwise `CUMULO_URL`, or that of the context.",
        ),
        Attribute {
            sensitive: true,
            ..one(
                "api_key",
                Type::Text,
                "The key of a service account or a user. Otherwise `CUMULO_API_KEY`, or the sign-in of the context.",
            )
        },
        one(
            "context",
            Type::Text,
            "A context of the command line, see `cumulo context list`. Otherwise `CUMULO_CONTEXT`, or the current one.",
        ),
        one(
            "project",
            Type::Text,
            "The project of resources that name none, by name or id. Otherwise `CUMULO_PROJECT`, or that of the context.",
        ),
        one(
            "check_plans",
            Type::Bool,
            "Whether the API is asked at `terraform plan` if it would do that: rights, quotas, room. `true` unless given.",
        ),
    ]
}
