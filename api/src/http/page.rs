//! Lists in pages: `?limit=&cursor=` in, `{items, next_cursor}` out.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::labels::LabelSelector;
use super::problem::{ApiError, ErrorCode};

/// One page of a list, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Give this as `cursor` to get what follows; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// The query of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only the resource of this name.
    name: Option<String>,
}

/// The query of a list of resources with labels.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LabelledPageQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
    /// Only the resource of this name.
    name: Option<String>,
    /// Only resources with these labels: `tier=web,stage!=test,owner`.
    #[param(
        pattern = "^((!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63})(,(!?[A-Za-z0-9._/-]{1,63}|[A-Za-z0-9._/-]{1,63}!?=[A-Za-z0-9._/-]{0,63}))*)?$"
    )]
    label_selector: Option<String>,
}

impl LabelledPageQuery {
    /// For lists with filters of their own.
    pub(crate) fn new(
        limit: Option<u16>,
        cursor: Option<String>,
        name: Option<String>,
        label_selector: Option<String>,
    ) -> Self {
        Self { limit, cursor, name, label_selector }
    }

    /// Checks what serde cannot, and takes the labels apart.
    pub(crate) fn checked(self) -> Result<(PageQuery, LabelSelector), ApiError> {
        let labels = LabelSelector::parse(self.label_selector.as_deref().unwrap_or_default())?;
        let page = PageQuery { limit: self.limit, cursor: self.cursor, name: self.name }.checked()?;
        Ok((page, labels))
    }
}

/// The query of a list without filters.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PlainQuery {
    /// Items per page; 50 unless given.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u16>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{21}[AQgw]$")]
    cursor: Option<String>,
}

impl PlainQuery {
    pub(crate) fn checked(self) -> Result<PageQuery, ApiError> {
        PageQuery::new(self.limit, self.cursor).checked()
    }
}

impl PageQuery {
    /// For lists with filters of their own.
    pub(crate) fn new(limit: Option<u16>, cursor: Option<String>) -> Self {
        Self { limit, cursor, name: None }
    }

    /// The same, with the filter by name.
    pub(crate) fn named(self, name: Option<String>) -> Self {
        Self { name, ..self }
    }

    /// How many rows to read: one more than the page holds, to know whether another follows.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.page_len()) + 1
    }

    fn page_len(&self) -> u16 {
        self.limit.unwrap_or(50)
    }

    /// Rows begin after this id.
    pub(crate) fn after(&self) -> Result<Uuid, ApiError> {
        let Some(cursor) = &self.cursor else { return Ok(Uuid::nil()) };
        URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(|| {
            ApiError::because(
                ErrorCode::InvalidQuery,
                "cursor: give the `next_cursor` of the page before, or none for the first page",
            )
        })
    }

    /// An exact name, if asked for. A text that is no name matches nothing.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref().map(|name| name.parse::<protocol::Name>().map_or("", |_| name))
    }

    /// Checks what serde cannot.
    pub(crate) fn checked(self) -> Result<Self, ApiError> {
        match self.limit {
            Some(limit) if !(1..=500).contains(&limit) => {
                Err(ApiError::because(ErrorCode::InvalidQuery, "limit: from 1 to 500"))
            }
            _ => Ok(self),
        }
    }

    /// Makes the page of the rows that were read with [`PageQuery::rows`].
    pub(crate) fn page<T>(&self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Page<T> {
        let len = usize::from(self.page_len());
        let more = items.len() > len;
        items.truncate(len);
        let next_cursor =
            items.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(id(last).as_bytes()));
        Page { items, next_cursor }
    }
}
