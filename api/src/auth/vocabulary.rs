//! What policies may speak of: the actions, the kinds of resources, and the condition keys.

use std::sync::LazyLock;

use policy::{Key, KeyType, Vocabulary};

use super::action::actions;
use super::kind::Kind;

/// Condition keys, for [`super::caller`] to fill.
pub(crate) mod keys {
    pub const SOURCE_IP: &str = "cumulo:SourceIp";
    pub const CURRENT_TIME: &str = "cumulo:CurrentTime";
    pub const SECURE_TRANSPORT: &str = "cumulo:SecureTransport";
    pub const MULTI_FACTOR_AUTH_PRESENT: &str = "cumulo:MultiFactorAuthPresent";
    pub const MULTI_FACTOR_AUTH_AGE: &str = "cumulo:MultiFactorAuthAge";
    pub const PRINCIPAL_NAME: &str = "cumulo:PrincipalName";
    pub const PRINCIPAL_ID: &str = "cumulo:PrincipalId";
    pub const PRINCIPAL_TYPE: &str = "cumulo:PrincipalType";
    pub const CREDENTIAL_TYPE: &str = "cumulo:CredentialType";
    /// Followed by the label's key.
    pub const RESOURCE_LABEL: &str = "cumulo:ResourceLabel/";
    /// Followed by the label's key.
    pub const REQUEST_LABEL: &str = "cumulo:RequestLabel/";
    pub const LABEL_KEYS: &str = "cumulo:LabelKeys";
    pub const INSTANCE_TYPE: &str = "compute:InstanceType";
    pub const IMAGE: &str = "compute:Image";
    pub const IMAGE_ID: &str = "compute:ImageId";
    pub const IMAGE_PROJECT: &str = "compute:ImageProject";
    pub const VCPUS: &str = "compute:Vcpus";
    pub const MEMORY_MIB: &str = "compute:MemoryMib";
    pub const ROOT_DISK_GIB: &str = "compute:RootDiskGib";
    pub const ROOT_POOL: &str = "compute:RootPool";
    pub const POOL: &str = "volume:Pool";
}

const KEYS: &[Key] = &[
    one(keys::SOURCE_IP, KeyType::Ip),
    one(keys::CURRENT_TIME, KeyType::Date),
    one(keys::SECURE_TRANSPORT, KeyType::Bool),
    one(keys::MULTI_FACTOR_AUTH_PRESENT, KeyType::Bool),
    one(keys::MULTI_FACTOR_AUTH_AGE, KeyType::Numeric),
    one(keys::PRINCIPAL_NAME, KeyType::String),
    one(keys::PRINCIPAL_ID, KeyType::String),
    one(keys::PRINCIPAL_TYPE, KeyType::String),
    one(keys::CREDENTIAL_TYPE, KeyType::String),
    one(keys::RESOURCE_LABEL, KeyType::String),
    one(keys::REQUEST_LABEL, KeyType::String),
    Key { name: keys::LABEL_KEYS, value: KeyType::String, multivalued: true },
    one(keys::INSTANCE_TYPE, KeyType::String),
    one(keys::IMAGE, KeyType::String),
    one(keys::IMAGE_ID, KeyType::String),
    one(keys::IMAGE_PROJECT, KeyType::String),
    one(keys::VCPUS, KeyType::Numeric),
    one(keys::MEMORY_MIB, KeyType::Numeric),
    one(keys::ROOT_DISK_GIB, KeyType::Numeric),
    one(keys::ROOT_POOL, KeyType::String),
    one(keys::POOL, KeyType::String),
];

const fn one(name: &'static str, value: KeyType) -> Key {
    Key { name, value, multivalued: false }
}

/// Every action once, in order.
pub static ACTION_NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names: Vec<_> = actions::ALL.iter().map(|action| action.name).collect();
    names.sort_unstable();
    names.dedup();
    names
});

/// The vocabulary of this release.
pub fn vocabulary() -> Vocabulary {
    Vocabulary { actions: &ACTION_NAMES, resources: Kind::ALL, keys: KEYS }
}
