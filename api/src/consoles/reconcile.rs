//! What replicas leave behind that died.

use super::model::End;
use super::{records, store};
use crate::app::App;

/// Removes tickets that nobody used, and ends sessions whose replica has gone.
pub(crate) async fn sweep(app: &App) -> Result<(), sqlx::Error> {
    let mut tx = app.begin().await?;
    for console in store::take_over(&mut tx, app.clock.now()).await? {
        records::end(&mut tx, app, &console, End::Lost, None).await?;
    }
    tx.commit().await
}
