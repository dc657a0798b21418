//! A request before sign-in: where it came from, and its line in the audit log.

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use protocol::{PrincipalId, RequestId};
use serde_json::{Value, json};
use sqlx::{PgConnection, Postgres, Transaction};

use super::store::Origin;
use crate::app::App;
use crate::audit::{self, Actor, Deed, Outcome};
use crate::http::{ApiError, Client, request_id};

const MAX_USER_AGENT_CHARS: usize = 200;

/// What is known of somebody who has not signed in.
pub(super) struct Visit {
    pub client: Client,
    pub request_id: RequestId,
    user_agent: Option<String>,
}

/// What a visitor claims: to be the user of this name, in order to do this.
#[derive(Clone, Copy)]
pub(super) struct Claim<'a> {
    pub action: &'static str,
    pub user: Option<PrincipalId>,
    pub name: &'a str,
}

impl FromRequestParts<App> for Visit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let user_agent = parts.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Self {
            client: Client::of(&parts.extensions),
            request_id: request_id(parts, app),
            user_agent: user_agent.map(|text| text.chars().take(MAX_USER_AGENT_CHARS).collect()),
        })
    }
}

impl Visit {
    pub(super) fn origin(&self) -> Origin<'_> {
        Origin { address: self.client.address, user_agent: self.user_agent.as_deref() }
    }

    /// Ends the visit of somebody who did not prove who they are: the record says why, the answer too. What the
    /// transaction holds so far, like the count of wrong codes, stays. Guessing is slowed down before it comes to
    /// this, by [`super::backoff`].
    pub(super) async fn fail(
        &self,
        mut tx: Transaction<'_, Postgres>,
        app: &App,
        claim: Claim<'_>,
        refusal: ApiError,
    ) -> ApiError {
        let why = refusal.code().map(|code| json!({"code": code.as_str()}));
        let written = self.write(&mut tx, app, Outcome::Failed, claim, why).await;
        let committed = match written {
            Ok(()) => tx.commit().await,
            Err(failed) => Err(failed),
        };
        committed.map_or_else(ApiError::from, |()| refusal)
    }

    /// Writes down what this visitor did, or failed to do, as the user of this name.
    pub(super) async fn record(
        &self,
        conn: &mut PgConnection,
        app: &App,
        outcome: Outcome,
        claim: Claim<'_>,
    ) -> Result<(), sqlx::Error> {
        self.write(conn, app, outcome, claim, None).await
    }

    async fn write(
        &self,
        conn: &mut PgConnection,
        app: &App,
        outcome: Outcome,
        claim: Claim<'_>,
        after: Option<Value>,
    ) -> Result<(), sqlx::Error> {
        let Claim { action, user, name } = claim;
        let actor = Actor {
            id: user,
            name,
            credential_kind: "password",
            credential_id: None,
            source: self.client.address,
        };
        let deed = Deed {
            action,
            resource: format!("crn:cumulo:iam::user/{name}"),
            resource_id: user.map(PrincipalId::as_uuid),
            after,
            ..Deed::default()
        };
        audit::write(conn, app, &actor, self.request_id, outcome, deed).await
    }
}
