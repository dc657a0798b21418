//! What a new instance has from the snapshot or the instance that its body names, before anything is decided.

use super::super::store::heritage::{Heritage, of_instance, of_snapshot};
use super::super::types::CreateInstance;
use crate::auth::actions;
use crate::http::{ApiError, Entry, ErrorCode, Mutation, Selector};

/// What it has from there, if the caller may use that.
pub(super) async fn foresee(
    entry: &mut Entry<'_>,
    project: &str,
    new: &CreateInstance,
) -> Result<Heritage, ApiError> {
    let none = Heritage::default();
    let Some((source, selector)) = source(new) else { return Ok(none) };
    if new.snapshot.is_some() {
        let Some(allowed) = entry.foresee::<actions::RestoreSnapshot>((project, source)).await? else {
            return Ok(none);
        };
        Ok(of_snapshot(entry.conn(), &allowed, &selector).await?)
    } else {
        let Some(allowed) = entry.foresee::<actions::CloneInstance>((project, source)).await? else {
            return Ok(none);
        };
        Ok(of_instance(entry.conn(), &allowed, &selector).await?)
    }
}

/// Refuses when it was decided on something else than what the instance is made from, which is locked by now.
///
/// # Errors
/// `busy`: that has changed a moment ago.
pub(super) async fn check(
    change: &mut Mutation<actions::CreateInstance>,
    new: &CreateInstance,
    foreseen: &Heritage,
) -> Result<(), ApiError> {
    let Some((_, selector)) = source(new) else { return Ok(()) };
    let (conn, allowed) = change.parts();
    let found = match new.snapshot {
        Some(_) => of_snapshot(conn, allowed, &selector).await?,
        None => of_instance(conn, allowed, &selector).await?,
    };
    if found == *foreseen { Ok(()) } else { Err(ApiError::new(ErrorCode::Busy).retry_after(1)) }
}

fn source(new: &CreateInstance) -> Option<(&str, Selector)> {
    let source = new.snapshot.as_deref().or(new.source.as_ref().map(|source| source.instance.as_str()))?;
    Some((source, Selector::parse(source)?))
}
