//! Compiled policies. A version never changes once it is written, so what is here is never old.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use policy::{Document, Policy};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::vocabulary::vocabulary;
use crate::http::{ApiError, ErrorCode};

/// More than any cloud has in use; beyond it the cache begins anew.
const MAX_COMPILED: usize = 20_000;

/// One version of one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PolicyVersion {
    pub policy: Uuid,
    pub version: i32,
}

/// What this replica has compiled.
#[derive(Clone, Default)]
pub struct PolicyCache(Arc<RwLock<HashMap<PolicyVersion, Arc<Policy>>>>);

impl PolicyCache {
    /// The compiled form of each, in the order given.
    ///
    /// # Errors
    /// When a stored document is not one: a defect, and then nothing is decided. `busy` when a version was
    /// dropped since it was read that it counts.
    pub(crate) async fn get(
        &self,
        conn: &mut PgConnection,
        wanted: &[PolicyVersion],
    ) -> Result<Vec<Arc<Policy>>, ApiError> {
        let mut all = Vec::with_capacity(wanted.len());
        for one in wanted {
            let policy = match self.known(one) {
                Some(policy) => policy,
                None => self.keep(*one, compile(&load(conn, *one).await?)?),
            };
            all.push(policy);
        }
        Ok(all)
    }

    fn known(&self, one: &PolicyVersion) -> Option<Arc<Policy>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(one).cloned()
    }

    fn keep(&self, one: PolicyVersion, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() > MAX_COMPILED {
            known.clear();
        }
        known.insert(one, Arc::clone(&policy));
        policy
    }
}

async fn load(conn: &mut PgConnection, one: PolicyVersion) -> Result<Value, ApiError> {
    let document = sqlx::query_scalar!(
        "SELECT document FROM policy_versions WHERE policy_id = $1 AND version = $2",
        one.policy,
        one.version
    )
    .fetch_optional(conn)
    .await?;
    document.ok_or_else(|| ApiError::caused(ErrorCode::Busy, "a policy was deleted meanwhile").retry_after(1))
}

/// Compiles a stored document.
pub(super) fn compile(document: &Value) -> Result<Policy, ApiError> {
    let document = Document::parse_stored(document, &vocabulary()).map_err(|findings| {
        ApiError::internal(format!("a stored policy is not valid any more: {:?}", findings.first()))
    })?;
    Ok(Policy::compile(&document))
}
