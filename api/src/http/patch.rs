//! JSON Merge Patch (RFC 7396): absent stays, `null` removes, objects merge.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::labels::Labels;

/// Labels in a JSON Merge Patch: those that are named change, `null` removes one.
pub type LabelsPatch = BTreeMap<String, Option<String>>;

/// The labels after the patch.
pub fn merge_labels(mut labels: Labels, patch: LabelsPatch) -> Labels {
    for (key, value) in patch {
        match value {
            Some(value) => labels.insert(key, value),
            None => labels.remove(&key),
        };
    }
    labels
}

/// A field of a JSON Merge Patch that cannot be removed: `null` is an error, not the same as absence.
pub(crate) fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A field of a JSON Merge Patch that can be removed: `Some(None)` is `null`, `None` is absence.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
