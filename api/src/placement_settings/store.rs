//! SQL of the settings.

use sqlx::PgConnection;

use super::types::PlacementSettings;
use crate::auth::{Allowed, actions};
use crate::http::Version;
use crate::scheduler::{Strategy, Weights};

/// The row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub generation: i64,
    pub strategy: String,
    pub image_weight: f64,
    pub load_weight: f64,
    pub vcpu_overcommit: f64,
    pub memory_overcommit: f64,
}

impl Row {
    pub(super) fn version(&self) -> Version {
        Version(self.generation)
    }

    pub(super) fn into_wire(self) -> PlacementSettings {
        PlacementSettings {
            strategy: Strategy::from_name(&self.strategy).unwrap_or_default(),
            image_weight: self.image_weight,
            load_weight: self.load_weight,
            vcpu_overcommit: self.vcpu_overcommit,
            memory_overcommit: self.memory_overcommit,
        }
    }
}

pub(super) async fn find(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::GetPlacementSettings>,
) -> Result<Row, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT generation, strategy, image_weight, load_weight, vcpu_overcommit, memory_overcommit
         FROM placement_settings"
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn lock(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdatePlacementSettings>,
) -> Result<Row, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT generation, strategy, image_weight, load_weight, vcpu_overcommit, memory_overcommit
         FROM placement_settings FOR UPDATE"
    )
    .fetch_one(conn)
    .await
}

pub(super) async fn update(
    conn: &mut PgConnection,
    _allowed: &Allowed<actions::UpdatePlacementSettings>,
    row: &Row,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE placement_settings SET generation = $1, strategy = $2, image_weight = $3, load_weight = $4,
                vcpu_overcommit = $5, memory_overcommit = $6",
        row.generation,
        row.strategy,
        row.image_weight,
        row.load_weight,
        row.vcpu_overcommit,
        row.memory_overcommit
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What hosts are ranked by.
pub(crate) async fn weights(conn: &mut PgConnection) -> Result<Weights, sqlx::Error> {
    let row = sqlx::query!("SELECT strategy, image_weight, load_weight FROM placement_settings")
        .fetch_one(conn)
        .await?;
    let strategy = Strategy::from_name(&row.strategy).unwrap_or_default();
    Ok(Weights { strategy, image: row.image_weight, load: row.load_weight })
}
