//! What is known of a host, so that its instances may start again.

use serde_json::{Value, json};

use crate::hosts::leases::Lapsed;

/// Why no guest of the instance runs on its host.
pub(super) enum Proof {
    Lease(Lapsed),
    /// Its host has reported it.
    Report,
    Operator,
    /// So the operator's program.
    SwitchedOff,
}

impl Proof {
    /// For its owner, who knows of no hosts.
    pub(super) fn in_words(&self) -> String {
        match self {
            Self::Lease(Lapsed { pool, witnesses, unchanged_seconds, .. }) => format!(
                "nothing is heard of its host, and {witnesses} other {} seen for {unchanged_seconds} seconds that it does \
                 not renew its lease in pool {pool}: no guest of it runs there any more",
                if *witnesses == 1 { "host has" } else { "hosts have" }
            ),
            Self::Report => {
                "its host could not renew its lease in a shared pool and has cut its power; it starts again"
                    .to_owned()
            }
            Self::Operator => "the operator has declared its host dead".to_owned(),
            Self::SwitchedOff => "nothing was heard of its host, which was switched off".to_owned(),
        }
    }

    pub(super) fn as_json(&self) -> Value {
        match self {
            Self::Lease(lapsed) => json!({"lapsed_lease": lapsed}),
            Self::Report => json!("reported_fenced"),
            Self::Operator => json!("declared_dead"),
            Self::SwitchedOff => json!("switched_off"),
        }
    }
}
