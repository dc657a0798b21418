//! The wire of API keys.

use protocol::ApiKeyId;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::policies::PolicyDocument;

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub description: String,
    /// How long the key can be used, from 60 to 315360000 (ten years). Unless this or `expires_at` is given, a
    /// user's key can be used for 90 days, a service account's until it is revoked.
    #[schema(minimum = 60, maximum = 315_360_000)]
    pub expires_in_seconds: Option<i64>,
    /// The same as a point in time; give one of the two.
    #[serde(default, with = "time::serde::rfc3339::option")]
    pub expires_at: Option<OffsetDateTime>,
    /// A policy document that narrows what the key can do: both it and the policies of the owner have to allow
    /// an action.
    pub policy: Option<PolicyDocument>,
}

/// What is known of a key that has been made.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ApiKey {
    pub id: ApiKeyId,
    pub description: String,
    /// How the key begins, to tell it from others.
    #[schema(example = "cumulo_key_Zx3q")]
    pub hint: String,
    /// The policy that narrows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PolicyDocument>)]
    pub policy: Option<Value>,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Absent when it can be used until it is revoked.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<OffsetDateTime>,
    /// To within a few seconds.
    #[serde(with = "time::serde::rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<OffsetDateTime>,
}

/// A key that has just been made.
#[derive(Serialize, ToSchema)]
pub struct CreatedApiKey {
    #[serde(flatten)]
    pub api_key: ApiKey,
    /// Send it as `Authorization: Bearer …`. Shown this once, also when the request is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "cumulo_key_Zx3qJ0…")]
    pub key: Option<String>,
}
