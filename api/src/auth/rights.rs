//! The policies that decide for somebody, evaluated alike for a caller and for a simulation.

use std::sync::Arc;

use policy::{Decision, Names, Policy, Request};

use super::kind::Kind;

/// What somebody may do.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    pub policies: Arc<[Arc<Policy>]>,
    /// The policy of an API key: what it does not allow, nothing allows.
    pub boundary: Option<Arc<Policy>>,
}

/// The outcome of an evaluation.
pub(crate) struct Judgement {
    pub decision: Decision,
    /// What the boundary says, where there is one and the policies allow.
    pub narrowed: Option<Decision>,
}

impl Judgement {
    pub(crate) fn allowed(&self) -> bool {
        self.decision.allowed && self.narrowed.as_ref().is_none_or(|narrowed| narrowed.allowed)
    }
}

impl Rights {
    pub(crate) fn judge(&self, request: &Request<'_>) -> Judgement {
        let decision = policy::evaluate(&self.policies, request);
        let boundary = self.boundary.as_ref().filter(|_| decision.allowed);
        let narrowed = boundary.map(|boundary| policy::evaluate(std::slice::from_ref(boundary), request));
        Judgement { decision, narrowed }
    }

    /// The decision, when it is the same for every resource of the kind and every request.
    pub(super) fn foresee(&self, action: &str, kind: Kind, project: Option<Names<'_>>) -> Option<Judgement> {
        let ask = |policies: &[Arc<Policy>]| {
            policy::foresee(policies, action, kind.service(), kind.as_str(), project)
        };
        let decision = ask(&self.policies)?;
        let narrowed = match self.boundary.as_ref().filter(|_| decision.allowed) {
            Some(boundary) => Some(ask(std::slice::from_ref(boundary))?),
            None => None,
        };
        Some(Judgement { decision, narrowed })
    }
}
