//! Disk image headers, read without trusting them.
use serde::{Deserialize, Serialize};

/// The formats that are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Format {
    Qcow2,
    Raw,
}
