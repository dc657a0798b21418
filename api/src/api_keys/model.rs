//! Rules of API keys.

use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::types::CreateApiKey;
use crate::auth::PrincipalKind;
use crate::http::{ApiError, FieldError, validate_description};
use crate::policies::PolicyDocument;

/// Live keys of one principal.
pub(super) const MAX_KEYS: i64 = 20;

const SHORTEST: Duration = Duration::seconds(60);
const LONGEST: Duration = Duration::days(3650);
/// A person's key that was forgotten should not work for ever.
const DEFAULT_OF_USERS: Duration = Duration::days(90);

/// A request that keeps the rules.
#[derive(Debug)]
pub(super) struct NewApiKey {
    pub description: String,
    pub expires_at: Option<OffsetDateTime>,
    /// Canonical.
    pub policy: Option<Value>,
}

/// Checks a request for a key of such an owner.
///
/// # Errors
/// `validation_failed` with every wrong field, also those inside of the policy.
pub(super) fn check(
    new: CreateApiKey,
    owner: PrincipalKind,
    now: OffsetDateTime,
) -> Result<NewApiKey, ApiError> {
    let mut errors = Vec::new();
    validate_description(&new.description, &mut errors);
    let expires_at = expiry(&new, owner, now, &mut errors);
    let policy = new.policy.as_ref().and_then(|document| canonical(document, &mut errors));
    ApiError::reject(errors)?;
    Ok(NewApiKey { description: new.description, expires_at, policy })
}

fn expiry(
    new: &CreateApiKey,
    owner: PrincipalKind,
    now: OffsetDateTime,
    errors: &mut Vec<FieldError>,
) -> Option<OffsetDateTime> {
    let (pointer, lifetime) = match (new.expires_in_seconds, new.expires_at) {
        (None, None) => return (owner == PrincipalKind::User).then(|| now + DEFAULT_OF_USERS),
        (Some(seconds), None) => ("/expires_in_seconds", Duration::seconds(seconds)),
        (None, Some(at)) => ("/expires_at", at - now),
        (Some(_), Some(_)) => {
            errors.push(FieldError::new("/expires_at", "invalid", "not beside expires_in_seconds"));
            return None;
        }
    };
    if !(SHORTEST..=LONGEST).contains(&lifetime) {
        errors.push(FieldError::new(pointer, "out_of_range", "from a minute to ten years from now"));
        return None;
    }
    Some(now + lifetime)
}

fn canonical(document: &PolicyDocument, errors: &mut Vec<FieldError>) -> Option<Value> {
    document.check("/policy", errors).and_then(|document| serde_json::to_value(&document).ok())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-06-01 12:00 UTC);

    fn expires_at(new: CreateApiKey, owner: PrincipalKind) -> Option<OffsetDateTime> {
        check(new, owner, NOW).unwrap().expires_at
    }

    #[test]
    fn keys_of_people_expire_and_those_of_programs_need_not() {
        let user = expires_at(CreateApiKey::default(), PrincipalKind::User);
        assert_eq!(user, Some(datetime!(2026-08-30 12:00 UTC)));
        assert_eq!(expires_at(CreateApiKey::default(), PrincipalKind::ServiceAccount), None);
        let short = CreateApiKey { expires_in_seconds: Some(60), ..CreateApiKey::default() };
        assert_eq!(expires_at(short, PrincipalKind::ServiceAccount), Some(NOW + Duration::seconds(60)));
        let until = datetime!(2030-01-01 00:00 UTC);
        let dated = CreateApiKey { expires_at: Some(until), ..CreateApiKey::default() };
        assert_eq!(expires_at(dated, PrincipalKind::User), Some(until));
    }

    #[test]
    fn an_expiry_out_of_range_is_refused_at_its_field() {
        let seconds = |seconds| CreateApiKey { expires_in_seconds: Some(seconds), ..CreateApiKey::default() };
        let at = |at| CreateApiKey { expires_at: Some(at), ..CreateApiKey::default() };
        let both = CreateApiKey { expires_in_seconds: Some(60), ..at(datetime!(2030-01-01 00:00 UTC)) };
        for (new, pointer) in [
            (seconds(59), "/expires_in_seconds"),
            (seconds(-1), "/expires_in_seconds"),
            (seconds(315_360_001), "/expires_in_seconds"),
            (seconds(i64::MAX), "/expires_in_seconds"),
            (seconds(i64::MIN), "/expires_in_seconds"),
            (at(NOW), "/expires_at"),
            (at(datetime!(2037-01-01 00:00 UTC)), "/expires_at"),
            (at(datetime!(-9999-01-01 00:00 UTC)), "/expires_at"),
            (both, "/expires_at"),
        ] {
            let error = format!("{:?}", check(new, PrincipalKind::User, NOW).unwrap_err());
            assert!(error.contains(&format!("{pointer:?}")), "{error}");
        }
    }
}
