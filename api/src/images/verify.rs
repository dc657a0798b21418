//! Looks for what must never be of images and their bytes.

mod files;
mod rows;

use uuid::Uuid;

pub(crate) use files::verify_files;
pub(crate) use rows::verify_rows;

/// Something that must never be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken {
    /// Stable.
    pub code: String,
    pub id: Option<Uuid>,
    pub detail: String,
}
