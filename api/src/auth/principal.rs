//! Somebody who acts, and by which credential.

use policy::Context;
use protocol::{PrincipalId, ProjectId};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::vocabulary::keys;

/// What kind of principal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// A person.
    User,
    /// A program.
    ServiceAccount,
}

impl PrincipalKind {
    /// As the database spells it.
    pub(super) fn read(text: &str) -> Self {
        if text == "user" { Self::User } else { Self::ServiceAccount }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::ServiceAccount => "service_account",
        }
    }
}

/// Somebody who acts.
#[derive(Debug, Clone)]
pub struct Principal {
    pub id: PrincipalId,
    pub kind: PrincipalKind,
    pub name: String,
    /// The project of a service account.
    pub home: Option<Home>,
}

/// A project to which a principal belongs.
#[derive(Debug, Clone)]
pub struct Home {
    pub id: ProjectId,
    pub name: String,
}

/// What policies call a principal: names of service accounts are unique in their project only, and no user may be
/// mistaken for one.
pub(crate) fn principal_name(home: Option<&str>, name: &str) -> String {
    home.map_or_else(|| name.to_owned(), |home| format!("{home}/{name}"))
}

impl Principal {
    /// The condition keys that are the same in every request of this principal.
    pub(super) fn context(&self) -> Context {
        let home = self.home.as_ref().map(|home| home.name.as_str());
        let mut context = Context::default();
        context.set(keys::PRINCIPAL_NAME, principal_name(home, &self.name));
        context.set(keys::PRINCIPAL_ID, self.id.to_string());
        context.set(keys::PRINCIPAL_TYPE, self.kind.as_str());
        context
    }
}

/// The credential that was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    pub kind: CredentialKind,
    pub id: Uuid,
}

/// What kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    Session,
    ApiKey,
}

impl CredentialKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::ApiKey => "api_key",
        }
    }
}
