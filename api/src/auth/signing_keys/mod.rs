//! The keys that sign access tokens. The newest signs; those before it verify until every token of theirs has
//! expired, and are then deleted. So rotating signs nobody out, and whoever has stolen an old key is out
//! half an hour later.

mod routes;
pub(super) mod store;
#[cfg(test)]
mod tests;
mod types;

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

pub(crate) use routes::router;

use super::tokens::ACCESS_LIFETIME;
use crate::app::App;
use crate::clock::Clock;
use crate::http::ApiError;
use store::SigningKey;

/// A key may be needed for so long after another has taken over. Each replica signs with the key that is the
/// newest in the transaction that makes the token, so the lifetime of a token would do, but for clocks.
const VERIFIES_FOR: Duration = ACCESS_LIFETIME.saturating_mul(2);

/// A new Ed25519 key.
pub(super) fn generate(clock: &Clock) -> Result<SigningKey, ApiError> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(ApiError::internal)?;
    Ok(SigningKey {
        id: clock.new_id(),
        private_pkcs8: pair.serialize_der(),
        public_key: pair.public_key_raw().to_vec(),
    })
}

/// Deletes keys whose tokens have all expired, and learns what other replicas have changed.
pub(crate) async fn look_after(
    conn: &mut PgConnection,
    app: &App,
    now: OffsetDateTime,
) -> Result<(), sqlx::Error> {
    store::retire(conn, now - VERIFIES_FOR).await?;
    app.tokens.refresh(conn).await
}
