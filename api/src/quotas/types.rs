//! The wire of quotas.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::model::Resource;
use crate::http::FieldError;

/// The largest limit: what every JSON reader can hold.
const MAX_LIMIT: i64 = (1 << 53) - 1;
/// On the wire; in the database it is NULL.
const UNLIMITED: i64 = -1;

/// How much there may be; `None` is unlimited, which travels as -1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<i64>);

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.unwrap_or(UNLIMITED))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match i64::deserialize(deserializer)? {
            UNLIMITED => Ok(Self(None)),
            limit @ 0..=MAX_LIMIT => Ok(Self(Some(limit))),
            _ => Err(D::Error::custom("a number from 0, or -1 for unlimited")),
        }
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .description(Some("How much there may be; -1 is unlimited."))
            .minimum(Some(UNLIMITED))
            .maximum(Some(MAX_LIMIT))
            .into()
    }
}

impl ToSchema for Limit {}

/// What a project may have and has of one resource.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quota {
    pub resource: Resource,
    pub limit: Limit,
    /// How much there is. It may be above a limit that was lowered: nothing is taken away, only growth is
    /// refused.
    pub used: i64,
    pub source: QuotaSource,
}

/// Where a limit comes from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaSource {
    /// The operator's default for every project.
    Default,
    /// This project has one of its own.
    Project,
}

/// The quotas of a project.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quotas {
    /// Every resource that is limited.
    pub items: Vec<Quota>,
}

/// The operator's default for one resource.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaDefault {
    pub resource: Resource,
    pub limit: Limit,
}

/// What holds for every project that has no limits of its own.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaDefaults {
    /// Every resource that is limited.
    pub items: Vec<QuotaDefault>,
}

/// A JSON Merge Patch (RFC 7396) of a project's limits: `null` brings the default back.
#[derive(Debug, Deserialize)]
pub struct UpdateQuotas(BTreeMap<String, Option<Limit>>);

/// A JSON Merge Patch (RFC 7396) of the defaults.
#[derive(Debug, Deserialize)]
pub struct UpdateQuotaDefaults(BTreeMap<String, Option<Limit>>);

impl PartialSchema for UpdateQuotas {
    fn schema() -> RefOr<Schema> {
        let limit = SchemaType::from_iter([Type::Integer, Type::Null]);
        limits(&limit, "How much there may be; -1 is unlimited, `null` brings the default back.")
    }
}

impl PartialSchema for UpdateQuotaDefaults {
    fn schema() -> RefOr<Schema> {
        limits(&Type::Integer.into(), "How much there may be; -1 is unlimited.")
    }
}

impl ToSchema for UpdateQuotas {}
impl ToSchema for UpdateQuotaDefaults {}

/// An object with a limit for each resource, all of them optional.
fn limits(limit: &SchemaType, description: &str) -> RefOr<Schema> {
    let one = ObjectBuilder::new()
        .schema_type(limit.clone())
        .description(Some(description))
        .minimum(Some(UNLIMITED))
        .maximum(Some(MAX_LIMIT))
        .build();
    let object = Resource::ALL
        .iter()
        .fold(ObjectBuilder::new(), |object, resource| object.property(resource.as_str(), one.clone()));
    object
        .description(Some("A JSON Merge Patch (RFC 7396): resources that are absent stay as they are."))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)))
        .into()
}

impl UpdateQuotas {
    /// The limits to set, and with `None` those to remove.
    pub(super) fn checked(self) -> Result<BTreeMap<Resource, Option<Limit>>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let patch = known(self.0, &mut errors);
        if errors.is_empty() { Ok(patch) } else { Err(errors) }
    }
}

impl UpdateQuotaDefaults {
    /// The limits to set.
    pub(super) fn checked(self) -> Result<BTreeMap<Resource, Limit>, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut patch = BTreeMap::new();
        for (resource, limit) in known(self.0, &mut errors) {
            match limit {
                Some(limit) => drop(patch.insert(resource, limit)),
                None => {
                    let message = "a default cannot be removed; -1 is unlimited";
                    errors.push(FieldError::new(format!("/{}", resource.as_str()), "invalid", message));
                }
            }
        }
        if errors.is_empty() { Ok(patch) } else { Err(errors) }
    }
}

/// The patch with real resources; the others are errors at their field.
fn known(
    patch: BTreeMap<String, Option<Limit>>,
    errors: &mut Vec<FieldError>,
) -> BTreeMap<Resource, Option<Limit>> {
    let mut by_resource = BTreeMap::new();
    for (name, limit) in patch {
        match Resource::parse(&name) {
            Some(resource) => drop(by_resource.insert(resource, limit)),
            None => {
                let all: Vec<_> = Resource::ALL.iter().map(|resource| resource.as_str()).collect();
                let message = format!("no such resource; there are {}", all.join(", "));
                let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                errors.push(FieldError::new(pointer, "invalid", message));
            }
        }
    }
    by_resource
}

/// A limit that is in the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExceededLimit {
    pub resource: Resource,
    pub limit: i64,
    /// How much there is.
    pub used: i64,
    /// How much more the call asked for.
    pub asked: i64,
}

/// What a call would do to a quota.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaEffect {
    pub resource: Resource,
    pub limit: Limit,
    /// How much there is now.
    pub used: i64,
    /// How much there would be.
    pub after: i64,
}
