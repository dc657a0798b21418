//! What a question is about: an action, and the resource that it would be done to.

use policy::{Names, Resource};
use protocol::ProjectId;
use sqlx::PgConnection;

use super::store;
use crate::auth::{ActionInfo, Kind, ProjectRef, actions, is_decided_in_cloud};
use crate::http::{ApiError, ErrorCode, FieldError, Labels, Selector};

/// An action on a resource, looked up.
pub(super) struct Matter {
    pub action: &'static ActionInfo,
    project: Option<(ProjectRef, String)>,
    /// Name, and id of one that exists. `None`: all of the kind.
    target: Option<(String, Option<String>)>,
    /// `None` when they are not known, because there is no such resource or it is not one.
    pub labels: Option<Labels>,
}

/// Why there is no answer.
pub(super) enum Mistake {
    Input(FieldError),
    Failed(ApiError),
}

impl From<FieldError> for Mistake {
    fn from(error: FieldError) -> Self {
        Self::Input(error)
    }
}

impl From<sqlx::Error> for Mistake {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl From<ApiError> for Mistake {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl Mistake {
    pub(super) fn in_body(self) -> ApiError {
        match self {
            Self::Input(error) => ApiError::invalid(vec![error]),
            Self::Failed(error) => error,
        }
    }

    pub(super) fn in_query(self) -> ApiError {
        match self {
            Self::Input(error) => {
                let parameter = error.pointer.trim_start_matches('/');
                let named = if parameter.is_empty() { String::new() } else { format!("{parameter}: ") };
                ApiError::because(ErrorCode::InvalidQuery, format!("{named}{}", error.message))
            }
            Self::Failed(error) => error,
        }
    }
}

impl Matter {
    /// Looks up what `action` and `resource` name. With a scope, in that project and nowhere else.
    pub(super) async fn find(
        conn: &mut PgConnection,
        scope: Option<&ProjectRef>,
        (pointer, action): (&str, &str),
        resource: Option<&str>,
    ) -> Result<Self, Mistake> {
        let written = resource.map(Written::parse).transpose()?;
        let project = match (scope, written.as_ref().and_then(|written| written.project)) {
            (Some(scope), None) => Some(scope.clone()),
            (Some(scope), Some(named)) => Some(own(scope, named)?),
            (None, Some(named)) if !named.is_empty() => Some(other(conn, named).await?),
            (None, _) => None,
        };
        let action = find_action(pointer, action, project.is_some(), scope.is_some())?;
        if let Some(written) = &written {
            written.check_kind(action)?;
        }
        let name = written.and_then(|written| written.name);
        let mut matter = Self { action, project: None, target: None, labels: None };
        matter.target(conn, project.as_ref(), name).await?;
        matter.project = project.map(|project| (project.clone(), project.id.to_string()));
        Ok(matter)
    }

    /// The action on all resources of its kind; what is done to a project, is done to this one.
    pub(super) fn all(action: &'static ActionInfo, project: Option<&ProjectRef>) -> Self {
        let mut matter = Self { action, project: None, target: None, labels: None };
        if let (Kind::Project, Some(project)) = (action.kind, project) {
            matter.aim_at(project);
        }
        matter.project = project.map(|project| (project.clone(), project.id.to_string()));
        matter
    }

    async fn target(
        &mut self,
        conn: &mut PgConnection,
        project: Option<&ProjectRef>,
        name: Option<&str>,
    ) -> Result<(), Mistake> {
        if let (Kind::Project, Some(project)) = (self.action.kind, project) {
            if let Some(name) = name {
                own(project, name)?;
            }
            self.aim_at(project);
            return Ok(());
        }
        let Some(name) = name else { return Ok(()) };
        let Some(selector) = Selector::parse(name) else {
            return Err(
                FieldError::new("/resource", "invalid", format!("`{name}` is neither name nor id")).into()
            );
        };
        let project = project.map(|project| project.id);
        let identity = match self.action.makes {
            true => None,
            false => self.action.kind.identify(conn, project, Some(&selector), false).await?,
        };
        match identity {
            Some(identity) => {
                self.target = Some((identity.name, Some(identity.id.to_string())));
                self.labels = Some(identity.labels);
            }
            None => self.target = Some((name.to_owned(), None)),
        }
        Ok(())
    }

    fn aim_at(&mut self, project: &ProjectRef) {
        self.target = Some((project.name.as_str().to_owned(), Some(project.id.to_string())));
        self.labels = Some(project.labels.clone());
    }

    pub(super) fn exists(&self) -> bool {
        self.target.as_ref().is_some_and(|(_, id)| id.is_some())
    }

    pub(super) fn project(&self) -> Option<&ProjectRef> {
        self.project.as_ref().map(|(project, _)| project)
    }

    /// The project whose attachments count besides those of the whole cloud.
    pub(super) fn place_of_attachments(&self) -> Option<ProjectId> {
        let project = self.project().filter(|_| !is_decided_in_cloud(self.action.name));
        project.map(|project| project.id)
    }

    pub(super) fn resource(&self) -> Resource<'_> {
        let project =
            self.project.as_ref().map(|(project, id)| Names { name: project.name.as_str(), id: Some(id) });
        let target = self.target.as_ref().map(|(name, id)| Names { name, id: id.as_deref() });
        Resource { service: self.action.kind.service(), project, kind: self.action.kind.as_str(), target }
    }
}

/// A resource as somebody wrote it.
struct Written<'a> {
    service: Option<&'a str>,
    project: Option<&'a str>,
    kind: &'a str,
    /// `None` for `*`.
    name: Option<&'a str>,
}

impl<'a> Written<'a> {
    fn parse(text: &'a str) -> Result<Self, FieldError> {
        let wrong = || {
            let message = "write crn:cumulo:<service>:<project>:<type>/<name or id>, or <type>/<name or id>";
            FieldError::new("/resource", "invalid", message)
        };
        let segments: Vec<&str> = text.splitn(5, ':').collect();
        let (service, project, rest) = match segments.as_slice() {
            &["crn", "cumulo", service, project, rest] => (Some(service), Some(project), rest),
            [rest] => (None, None, *rest),
            _ => return Err(wrong()),
        };
        let (kind, name) = rest.split_once('/').ok_or_else(wrong)?;
        Ok(Self { service, project, kind, name: (name != "*").then_some(name) })
    }

    fn check_kind(&self, action: &ActionInfo) -> Result<(), FieldError> {
        let (service, kind) = (action.kind.service(), action.kind.as_str());
        if self.kind == kind && self.service.is_none_or(|written| written == service) {
            return Ok(());
        }
        let message = format!("{} is done to a resource of {service} of type {kind}", action.name);
        Err(FieldError::new("/resource", "invalid", message))
    }
}

/// The project of the question, which is also the one that the resource names.
fn own(scope: &ProjectRef, named: &str) -> Result<ProjectRef, FieldError> {
    let same = scope.name.as_str() == named
        || Selector::parse(named).and_then(|named| named.id()) == Some(scope.id.as_uuid());
    if same {
        return Ok(scope.clone());
    }
    Err(FieldError::new("/resource", "invalid", "it is not of this project"))
}

async fn other(conn: &mut PgConnection, named: &str) -> Result<ProjectRef, Mistake> {
    let found = match Selector::parse(named) {
        Some(selector) => store::project(conn, &selector).await?,
        None => None,
    };
    found.ok_or_else(|| FieldError::new("/resource", "not_found", "there is no such project").into())
}

fn find_action(
    pointer: &str,
    name: &str,
    in_project: bool,
    fixed: bool,
) -> Result<&'static ActionInfo, FieldError> {
    let mut named = actions::ALL.iter().filter(|action| action.name == name).peekable();
    if named.peek().is_none() {
        let message = "there is no such action; they are written like compute:DeleteInstance";
        return Err(FieldError::new(pointer, "unknown_action", message));
    }
    named.find(|action| action.in_project == in_project).ok_or_else(|| {
        let message = match (in_project, fixed) {
            (true, true) => "it is done to the cloud as a whole: ask at /v1/policies",
            (true, false) => "it is done to the cloud as a whole: leave the project in the resource empty",
            (false, _) => {
                "it is done in a project: name it in the resource, crn:cumulo:<service>:<project>:<type>/*"
            }
        };
        FieldError::new(pointer, "invalid", message)
    })
}
