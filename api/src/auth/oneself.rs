//! What only the user can do whom a call is about, whatever policies say: nobody sets up somebody else's second
//! factor, and no API key makes itself a key that outlives it.

use uuid::Uuid;

use super::action::{Action, OfResource};
use super::caller::Caller;
use super::principal::CredentialKind;
use crate::http::{ApiError, Mutation};

/// Whether the caller is the principal that the call is about.
pub(crate) fn is_oneself<A: Action<On: OfResource>>(change: &Mutation<A>) -> bool {
    change.allowed.resource_id() == Some(change.caller.principal.id.as_uuid())
}

/// The session of the caller, unless an API key was shown.
pub(crate) fn session_of(caller: &Caller) -> Option<Uuid> {
    (caller.credential.kind == CredentialKind::Session).then_some(caller.credential.id)
}

/// Goes on when the caller is the user whom the call is about, and signed in.
///
/// # Errors
/// `forbidden`; the refusal is recorded.
pub(crate) async fn require_oneself<A: Action<On: OfResource>>(
    change: Mutation<A>,
) -> Result<(Mutation<A>, Uuid), ApiError> {
    if !is_oneself(&change) {
        return Err(change.deny("nobody but the user can do this").await);
    }
    match session_of(&change.caller) {
        Some(session) => Ok((change, session)),
        None => Err(change.deny("sign in to do this: an API key is not enough").await),
    }
}
