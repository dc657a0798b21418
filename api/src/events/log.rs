//! Reading one log on behalf of a call, for as long as its caller may.

use uuid::Uuid;

use super::store;
use super::types::EventPage;
use crate::app::App;
use crate::auth::actions;
use crate::http::{ApiError, Call};

/// A log as a request names it.
#[derive(Debug, Clone)]
pub(super) enum Log {
    Cloud,
    /// By name or id.
    Project(String),
}

/// What a look at a log gave.
pub(super) struct Look {
    pub page: EventPage,
    pub log_id: Uuid,
    pub principal: Uuid,
}

impl Log {
    /// Decides anew whether the caller may read the log, and reads.
    ///
    /// # Errors
    /// Whatever would be the answer to a new request, also when the access token has expired meanwhile.
    pub(super) async fn look(
        &self,
        app: &App,
        call: &Call,
        after: Option<i64>,
        limit: i64,
    ) -> Result<Look, ApiError> {
        call.check_unexpired(app.clock.now())?;
        match self {
            Self::Cloud => {
                let mut reading = call.reading::<actions::ListCloudEvents>(app, ()).await?;
                let (conn, allowed) = reading.parts();
                let page = store::after(conn, allowed, after, limit).await?;
                let principal = allowed.principal().as_uuid();
                Ok(Look { page, log_id: store::log_of(allowed), principal })
            }
            Self::Project(project) => {
                let mut reading = call.reading::<actions::ListEvents>(app, project).await?;
                let (conn, allowed) = reading.parts();
                let page = store::after(conn, allowed, after, limit).await?;
                let principal = allowed.principal().as_uuid();
                Ok(Look { page, log_id: store::log_of(allowed), principal })
            }
        }
    }

    /// The same log by its id, whatever its project is called later.
    pub(super) fn pinned(self, log_id: Uuid) -> Self {
        match self {
            Self::Cloud => Self::Cloud,
            Self::Project(_) => Self::Project(log_id.to_string()),
        }
    }
}
