//! Actions, scopes, and the proof that a caller may do one in the other.

use protocol::{Name, ProjectId, UserId};

/// Something that a caller wants to do. Each action is a type, so that the proof for one is no proof for
/// another.
pub trait Action: Send + Sync + 'static {
    /// As policies name it: `service:Verb`.
    const NAME: &'static str;
    type Scope: Scope;
}

/// Where an action happens.
pub trait Scope: Clone + Send + Sync + 'static {
    /// How a request names the scope.
    type Key<'a>: Into<Option<&'a str>> + Copy + Send;
    /// What the database said of it, if it exists.
    fn found(project: Option<InProject>) -> Option<Self>;
}

/// One project.
#[derive(Debug, Clone)]
pub struct InProject {
    pub id: ProjectId,
    pub name: Name,
}

/// The cloud as a whole.
#[derive(Debug, Clone, Copy)]
pub struct Cloud;

impl Scope for InProject {
    type Key<'a> = &'a str;
    fn found(project: Option<InProject>) -> Option<Self> {
        project
    }
}

impl Scope for Cloud {
    type Key<'a> = Option<&'a str>;
    fn found(_: Option<InProject>) -> Option<Self> {
        Some(Self)
    }
}

/// The proof that this caller may do `A` here. Made by [`super::authorize`] alone.
#[derive(Debug)]
pub struct Allowed<A: Action> {
    principal: UserId,
    scope: A::Scope,
}

impl<A: Action> Clone for Allowed<A> {
    fn clone(&self) -> Self {
        Self { principal: self.principal, scope: self.scope.clone() }
    }
}

impl<A: Action> Allowed<A> {
    pub(super) fn new(principal: UserId, scope: A::Scope) -> Self {
        Self { principal, scope }
    }

    pub fn principal(&self) -> UserId {
        self.principal
    }
}

impl<A: Action<Scope = InProject>> Allowed<A> {
    /// The project to which everything this proof reaches belongs.
    pub fn project(&self) -> ProjectId {
        self.scope.id
    }

    pub fn project_name(&self) -> &Name {
        &self.scope.name
    }
}

macro_rules! actions {
    ($($scope:ident { $($(#[$doc:meta])* $name:ident = $text:literal,)+ })+) => {
        /// Every action there is.
        pub mod actions {
            use super::{Action, Cloud, InProject};
            $($(
                $(#[$doc])*
                #[derive(Debug, Clone, Copy)]
                pub struct $name;
                impl Action for $name {
                    const NAME: &'static str = $text;
                    type Scope = $scope;
                }
            )+)+

            /// Their names, in this order.
            pub const NAMES: &[&str] = &[$($($text),+),+];
        }
    };
}

actions! {
    Cloud {
        CreateProject = "project:CreateProject",
        ListProjects = "project:ListProjects",
        ListInstanceTypes = "compute:ListInstanceTypes",
        GetInstanceType = "compute:GetInstanceType",
        CreateInstanceType = "compute:CreateInstanceType",
        DeleteInstanceType = "compute:DeleteInstanceType",
        ListHosts = "host:ListHosts",
        GetHost = "host:GetHost",
        CreateHostJoinToken = "host:CreateHostJoinToken",
    }
    InProject {
        GetProject = "project:GetProject",
        UpdateProject = "project:UpdateProject",
        DeleteProject = "project:DeleteProject",
        ListImages = "image:ListImages",
        GetImage = "image:GetImage",
        CreateImage = "image:CreateImage",
        UploadImage = "image:UploadImage",
        DeleteImage = "image:DeleteImage",
        ListInstances = "compute:ListInstances",
        GetInstance = "compute:GetInstance",
        CreateInstance = "compute:CreateInstance",
        UpdateInstance = "compute:UpdateInstance",
        StartInstance = "compute:StartInstance",
        StopInstance = "compute:StopInstance",
        RebootInstance = "compute:RebootInstance",
        DeleteInstance = "compute:DeleteInstance",
        GetInstanceSerial = "compute:GetInstanceSerial",
        ListOperations = "operation:ListOperations",
        GetOperation = "operation:GetOperation",
    }
}
