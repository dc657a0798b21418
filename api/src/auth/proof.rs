//! The proof that a caller may do an action at a place. [`super::decision`] alone makes one.

use std::marker::PhantomData;
use std::sync::Arc;

use protocol::{Name, PrincipalId, ProjectId};
use uuid::Uuid;

use super::action::{Action, InProject, OfResource};
use super::caller::ProjectRef;
use super::deciding::Decided;
use super::principal::Principal;
use crate::http::Selector;

/// The proof that this caller may do `A` here. Made by [`super::Caller::decide`] alone.
#[derive(Debug)]
pub struct Allowed<A: Action> {
    proof: Arc<Proof>,
    action: PhantomData<fn() -> A>,
}

#[derive(Debug)]
pub(super) struct Proof {
    pub principal: Principal,
    pub project: Option<ProjectRef>,
    /// The resource, for an action on one that exists.
    pub target: Option<Selector>,
    pub decided: Decided,
}

impl<A: Action> Clone for Allowed<A> {
    fn clone(&self) -> Self {
        Self { proof: Arc::clone(&self.proof), action: PhantomData }
    }
}

impl<A: Action> Allowed<A> {
    pub(super) fn new(proof: Proof) -> Self {
        Self { proof: Arc::new(proof), action: PhantomData }
    }

    pub fn principal(&self) -> PrincipalId {
        self.proof.principal.id
    }

    /// What was decided, for the audit log.
    pub(crate) fn decided(&self) -> &Decided {
        &self.proof.decided
    }

    /// The project, if the action happens in one. For what exists in projects and in the cloud alike.
    pub fn project_or_cloud(&self) -> Option<ProjectId> {
        self.proof.project.as_ref().map(|project| project.id)
    }
}

#[expect(clippy::expect_used, reason = "`decide` gives every action in a project its project")]
impl<A: Action<On: InProject>> Allowed<A> {
    fn in_project(&self) -> &ProjectRef {
        self.proof.project.as_ref().expect("an action in a project has a project")
    }

    /// The project to which everything this proof reaches belongs.
    pub fn project(&self) -> ProjectId {
        self.in_project().id
    }

    pub fn project_name(&self) -> &Name {
        &self.in_project().name
    }
}

#[expect(clippy::expect_used, reason = "`decide` gives every action on a resource its resource")]
impl<A: Action<On: OfResource>> Allowed<A> {
    /// The resource that this proof reaches.
    pub fn selector(&self) -> &Selector {
        self.proof.target.as_ref().expect("an action on a resource has a resource")
    }

    /// Its id, known whenever it is about to be changed.
    pub(crate) fn resource_id(&self) -> Option<Uuid> {
        self.proof.decided.resource_id
    }
}
