//! Counting files and rows of the image store against each other.

use std::collections::HashMap;

use futures_util::TryStreamExt;
use protocol::BlobId;
use sqlx::PgConnection;

use super::Broken;
use crate::images::blob_store::ImageStore;

/// Compares every file of the store with its row, and every row that must have a file with that. Works beside a
/// running control plane: what changes meanwhile is looked at twice.
pub(crate) async fn verify_files(conn: &mut PgConnection, store: &ImageStore) -> anyhow::Result<Vec<Broken>> {
    let mut broken = Vec::new();
    let mut files = HashMap::new();
    let mut listing = store.list();
    while let Some(file) = listing.try_next().await? {
        match file.id {
            Some(id) => drop(files.insert(id, file.size_bytes)),
            None => broken.push(Broken {
                code: "blob_unknown".to_owned(),
                id: None,
                detail: "the image store holds something that is no blob".to_owned(),
            }),
        }
    }
    // After the listing: the row comes first.
    let mut rows = rows(conn, None).await?;
    for (id, size) in &files {
        if !rows.contains_key(id) && !has_row(conn, *id).await? && store.size(*id).await?.is_some() {
            let detail = format!("a file of {size} bytes has no row");
            broken.push(Broken { code: "blob_without_row".to_owned(), id: Some(id.as_uuid()), detail });
        }
    }
    rows.retain(|_, size| size.is_some());
    for (id, expected) in rows {
        let expected = expected.unwrap_or_default().cast_unsigned();
        let found = match files.get(&id) {
            Some(size) => Some(*size),
            // Stored since the listing, maybe.
            None => store.size(id).await?,
        };
        match found {
            Some(size) if size == expected => {}
            Some(size) => broken.push(Broken {
                code: "blob_size_differs".to_owned(),
                id: Some(id.as_uuid()),
                detail: format!("its row says {expected} bytes, its file has {size}"),
            }),
            None if !wants_file(conn, id).await? => {}
            None => broken.push(Broken {
                code: "blob_without_file".to_owned(),
                id: Some(id.as_uuid()),
                detail: format!("a row of {expected} bytes has no file"),
            }),
        }
    }
    Ok(broken)
}

/// Blobs with the size of those that must have a file.
async fn rows(
    conn: &mut PgConnection,
    one: Option<BlobId>,
) -> Result<HashMap<BlobId, Option<i64>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, CASE WHEN state IN ('stored', 'part') THEN size_bytes END AS size_bytes FROM blobs
           WHERE $1::uuid IS NULL OR id = $1"#,
        one.map(BlobId::as_uuid)
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id.into(), row.size_bytes)).collect())
}

async fn has_row(conn: &mut PgConnection, id: BlobId) -> Result<bool, sqlx::Error> {
    Ok(!rows(conn, Some(id)).await?.is_empty())
}

/// Whether the row still wants a file.
async fn wants_file(conn: &mut PgConnection, id: BlobId) -> Result<bool, sqlx::Error> {
    Ok(rows(conn, Some(id)).await?.values().any(Option::is_some))
}
