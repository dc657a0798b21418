//! A snapshot that another call makes something of.

use super::store::{self, Row};
use crate::auth::{Action, InProject, ProjectResource};
use crate::http::{ApiError, FieldError, Mutation, Selector};

/// Locks the snapshot that a body names, and asks for the right `B` on it; refused unless it has content.
/// `pointer` is where its name stands in the body.
pub(crate) async fn hold<B: Action<On = ProjectResource>, A: Action<On: InProject>>(
    change: Mutation<A>,
    project: &str,
    snapshot: &str,
    pointer: &str,
) -> Result<(Mutation<A>, Row), ApiError> {
    let missing = || {
        let message = "this project has no such snapshot";
        ApiError::invalid(vec![FieldError::new(pointer, "not_found", message)])
    };
    let selector = Selector::parse(snapshot).ok_or_else(missing)?;
    let mut change = change.also::<B>((project, snapshot), missing).await?;
    let (conn, allowed) = change.parts();
    let row = store::find(conn, allowed, &selector).await?.ok_or_else(missing)?;
    row.check_available()?;
    Ok((change, row))
}
