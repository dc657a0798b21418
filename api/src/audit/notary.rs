//! The notary: links committed records into the chain and signs the newest link.
//!
//! It works after the commit of the records, one notary at a time for all replicas, so that calls never wait
//! for one another. Until it has come by (moments later), a record is protected by the database alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use sqlx::PgConnection;
use uuid::Uuid;

use super::chain::{GENESIS, head_message, link};
use super::store;
use crate::app::App;

/// Links per transaction.
const BATCH: i64 = 500;

/// Links what waits. Idempotent; any replica may run it at any time.
pub(crate) async fn attest(app: &App) -> Result<(), sqlx::Error> {
    while attest_batch(app).await? == BATCH {}
    Ok(())
}

async fn attest_batch(app: &App) -> Result<i64, sqlx::Error> {
    let mut tx = app.begin().await?;
    if !store::become_notary(&mut tx).await? {
        return Ok(0);
    }
    let records = store::take_pending(&mut tx, BATCH).await?;
    if records.is_empty() {
        return Ok(0);
    }
    let (mut position, mut hash) = store::last_link(&mut tx).await?.unwrap_or((0, GENESIS));
    let mut links = Vec::with_capacity(records.len());
    for record in &records {
        position += 1;
        hash = link(&hash, position, record);
        links.push((position, record.id, hash));
    }
    store::insert_links(&mut tx, &links).await?;
    sign_head(&mut tx, app, position, &hash).await?;
    tx.commit().await?;
    Ok(i64::try_from(records.len()).unwrap_or(BATCH))
}

async fn sign_head(
    conn: &mut PgConnection,
    app: &App,
    position: i64,
    hash: &[u8; 32],
) -> Result<(), sqlx::Error> {
    let (key_id, private) = match store::signing_key(conn).await? {
        Some(key) => key,
        None => make_key(conn, app).await?,
    };
    let key = EncodingKey::from_ed_der(&private);
    let signature = jsonwebtoken::crypto::sign(&head_message(position, hash), &key, Algorithm::EdDSA)
        .ok()
        .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or_else(|| sqlx::Error::Protocol("the notary's key does not sign".to_owned()))?;
    store::insert_head(conn, position, hash, key_id, &signature, app.clock.now()).await
}

async fn make_key(conn: &mut PgConnection, app: &App) -> Result<(Uuid, Vec<u8>), sqlx::Error> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)
        .map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
    let id = app.clock.new_id();
    store::insert_key(conn, id, &pair.serialize_der(), pair.public_key_raw(), app.clock.now()).await?;
    Ok((id, pair.serialize_der()))
}
