//! What a new instance has from the snapshot, the instance or the volume that its body names, before anything is decided.

use sqlx::PgConnection;

use super::super::store::heritage::{Heritage, of_instance, of_snapshot, of_volume};
use super::super::types::CreateInstance;
use crate::auth::{Action, Allowed, InProject, Place, actions};
use crate::http::{ApiError, Entry, ErrorCode, Mutation, Selector};

/// What it is made from, by name or id.
#[derive(Clone, Copy)]
enum Source<'a> {
    Snapshot(&'a str),
    Instance(&'a str),
    RootVolume(&'a str),
}

/// What it has from there, if the caller may use that.
pub(super) async fn foresee(
    entry: &mut Entry<'_>,
    project: &str,
    new: &CreateInstance,
) -> Result<Heritage, ApiError> {
    match Source::of(new) {
        Some(source @ Source::Snapshot(name)) => {
            foreseen::<actions::RestoreSnapshot>(entry, (project, name), source).await
        }
        Some(source @ Source::Instance(name)) => {
            foreseen::<actions::CloneInstance>(entry, (project, name), source).await
        }
        Some(source @ Source::RootVolume(name)) => {
            foreseen::<actions::LendVolume>(entry, (project, name), source).await
        }
        None => Ok(Heritage::default()),
    }
}

async fn foreseen<A: Action<On: InProject>>(
    entry: &mut Entry<'_>,
    path: <A::On as Place>::Path<'_>,
    source: Source<'_>,
) -> Result<Heritage, ApiError> {
    match entry.foresee::<A>(path).await? {
        Some(allowed) => Ok(source.heritage(entry.conn(), &allowed).await?),
        None => Ok(Heritage::default()),
    }
}

/// Refuses when it was decided on something else than what the instance is made from, which is locked by now.
///
/// # Errors
/// `busy`: that has changed a moment ago.
pub(super) async fn check(
    change: &mut Mutation<actions::CreateInstance>,
    new: &CreateInstance,
    foreseen: &Heritage,
) -> Result<(), ApiError> {
    let Some(source) = Source::of(new) else { return Ok(()) };
    let (conn, allowed) = change.parts();
    let found = source.heritage(conn, allowed).await?;
    if found == *foreseen { Ok(()) } else { Err(ApiError::new(ErrorCode::Busy).retry_after(1)) }
}

impl<'a> Source<'a> {
    fn of(new: &'a CreateInstance) -> Option<Self> {
        let snapshot = new.snapshot.as_deref().map(Self::Snapshot);
        let instance = || new.source.as_ref().map(|source| Self::Instance(&source.instance));
        let volume = || new.root_volume.volume.as_deref().map(Self::RootVolume);
        snapshot.or_else(instance).or_else(volume)
    }

    /// Empty when there is no such thing.
    async fn heritage<A: Action<On: InProject>>(
        self,
        conn: &mut PgConnection,
        allowed: &Allowed<A>,
    ) -> Result<Heritage, sqlx::Error> {
        let (Self::Snapshot(name) | Self::Instance(name) | Self::RootVolume(name)) = self;
        let Some(selector) = Selector::parse(name) else { return Ok(Heritage::default()) };
        match self {
            Self::Snapshot(_) => of_snapshot(conn, allowed, &selector).await,
            Self::Instance(_) => of_instance(conn, allowed, &selector).await,
            Self::RootVolume(_) => of_volume(conn, allowed, &selector).await,
        }
    }
}
