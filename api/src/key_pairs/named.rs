//! Key pairs that the body of another call names.

use super::store;
use crate::auth::{Action, InProject, actions};
use crate::http::{ApiError, FieldError, Mutation, Selector};

/// A key pair that an instance is made with.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub name: String,
    /// One line of an authorized_keys file.
    pub public_key: String,
}

/// Finds key pairs by name or id, and asks for `compute:GetKeyPair` on each. `pointer` is where the list stands in the
/// body.
///
/// # Errors
/// `validation_failed` when one is not there, `forbidden`.
pub(crate) async fn look_up<A: Action<On: InProject>>(
    mut change: Mutation<A>,
    project: &str,
    wanted: &[String],
    pointer: &str,
) -> Result<(Mutation<A>, Vec<Named>), ApiError> {
    let mut found: Vec<Named> = Vec::new();
    for (index, key_pair) in wanted.iter().enumerate() {
        let wrong = |code, message: &str| {
            ApiError::invalid(vec![FieldError::new(format!("{pointer}/{index}"), code, message)])
        };
        let missing = || wrong("not_found", "this project has no such key pair");
        let selector = Selector::parse(key_pair).ok_or_else(missing)?;
        change = change.also::<actions::GetKeyPair>((project, key_pair), missing).await?;
        let (conn, allowed) = change.parts();
        let row = store::find(conn, allowed, &selector).await?.ok_or_else(missing)?;
        if found.iter().any(|one| one.name == row.name) {
            return Err(wrong("duplicate", "a key pair is named once"));
        }
        found.push(Named { name: row.name, public_key: row.public_key });
    }
    Ok((change, found))
}
