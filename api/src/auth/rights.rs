//! The policies that decide for somebody, evaluated alike for a caller and for a simulation.

use std::sync::Arc;

use policy::{Deciding, Decision, Place, Policy, Renaming, Request};

use super::action::ActionInfo;
use super::kind::Kind;
use super::powers::{changes_identity, is_decided_in_cloud};

/// What somebody may do.
#[derive(Debug, Clone)]
pub(crate) struct Rights {
    /// Those that are attached for the whole cloud come first.
    pub policies: Arc<[Arc<Policy>]>,
    /// How many are attached for the whole cloud.
    pub cloud_wide: usize,
    /// The policy of an API key: what it does not allow, nothing allows.
    pub boundary: Option<Arc<Policy>>,
}

/// The outcome of an evaluation.
pub(crate) struct Judgement {
    pub decision: Decision,
    /// What comes of the boundary, where there is one and the policies allow.
    pub narrowed: Option<Decision>,
}

impl Judgement {
    pub(crate) fn allowed(&self) -> bool {
        self.decision.allowed && !self.denied_by_boundary()
    }

    /// Whether the policies allow, and only the boundary does not.
    pub(crate) fn denied_by_boundary(&self) -> bool {
        self.narrowed.as_ref().is_some_and(|narrowed| !narrowed.allowed)
    }
}

/// What a renaming would loosen.
pub(super) struct Loosened {
    pub of_policies: Vec<Deciding>,
    pub of_boundary: Vec<Deciding>,
}

impl Rights {
    /// Only what is attached for the whole cloud, within the boundary.
    pub(super) fn in_cloud(&self) -> Self {
        let cloud_wide = self.policies.get(..self.cloud_wide).unwrap_or_default();
        Self { policies: cloud_wide.into(), cloud_wide: cloud_wide.len(), boundary: self.boundary.clone() }
    }

    pub(crate) fn judge(&self, request: &Request<'_>) -> Judgement {
        let decision = policy::evaluate(self.counting(request.action), request);
        let boundary = self.boundary.as_ref().filter(|_| decision.allowed);
        let narrowed = boundary.map(|boundary| match changes_identity(request.action) {
            true => Decision::default(),
            false => policy::evaluate(std::slice::from_ref(boundary), request),
        });
        Judgement { decision, narrowed }
    }

    /// The decision, when it is the same for every resource of the kind and every request.
    pub(super) fn foresee(&self, action: &str, kind: Kind, place: Place<'_>) -> Option<Judgement> {
        let ask = |policies: &[Arc<Policy>]| {
            policy::foresee(policies, action, kind.service(), kind.as_str(), place)
        };
        let decision = ask(self.counting(action))?;
        let narrowed = match self.boundary.as_ref().filter(|_| decision.allowed) {
            Some(_) if changes_identity(action) => Some(Decision::default()),
            Some(boundary) => Some(ask(std::slice::from_ref(boundary))?),
            None => None,
        };
        Some(Judgement { decision, narrowed })
    }

    /// What may give more of this action in a project once it is renamed; `None` when nothing can.
    pub(super) fn loosened(&self, action: &ActionInfo, renaming: &Renaming<'_>) -> Option<Loosened> {
        let before = self.foresee(action.name, action.kind, Place::Project(renaming.before));
        if before.is_some_and(|judgement| judgement.allowed()) {
            return None;
        }
        let (service, kind) = (action.kind.service(), action.kind.as_str());
        let ask = |policies: &[Arc<Policy>]| policy::loosened(policies, action.name, service, kind, renaming);
        let of_policies = ask(self.counting(action.name));
        let of_boundary =
            self.boundary.as_ref().map(|one| ask(std::slice::from_ref(one))).unwrap_or_default();
        let any = !of_policies.is_empty() || !of_boundary.is_empty();
        any.then_some(Loosened { of_policies, of_boundary })
    }

    /// The policies that count for an action.
    fn counting(&self, action: &str) -> &[Arc<Policy>] {
        let cloud_wide = self.policies.get(..self.cloud_wide).unwrap_or_default();
        if is_decided_in_cloud(action) { cloud_wide } else { &self.policies }
    }
}
