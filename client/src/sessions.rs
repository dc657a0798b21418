//! Who one is to the API: an API key, or a sign-in whose tokens are kept in a file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{Error, Result};

/// An access token is exchanged so long before it ends.
const EARLY: Duration = Duration::seconds(30);

/// Neither is ever shown.
#[derive(Clone)]
pub enum Credential {
    ApiKey(String),
    Session(SessionFile),
}

/// What a sign-in answers.
#[derive(Deserialize)]
pub struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    expires_in: i64,
    /// Control planes that do not know it ask nobody for it.
    #[serde(default)]
    password_change_required: bool,
}

/// Who has just signed in.
pub struct SignedIn {
    pub session: Session,
    /// Nothing else is taken of the session before.
    pub password_change_required: bool,
}

/// What is kept of a sign-in.
#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    pub access_token: String,
    pub refresh_token: String,
    #[serde(with = "time::serde::rfc3339")]
    expires_at: OffsetDateTime,
}

impl Session {
    #[expect(clippy::disallowed_methods, reason = "a client has no other clock")]
    pub fn of(tokens: Tokens) -> Self {
        let Tokens { access_token, refresh_token, expires_in, .. } = tokens;
        Self {
            access_token,
            refresh_token,
            expires_at: OffsetDateTime::now_utc() + Duration::seconds(expires_in),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a client has no other clock")]
    pub(crate) fn is_fresh(&self) -> bool {
        OffsetDateTime::now_utc() + EARLY < self.expires_at
    }
}

impl From<Tokens> for SignedIn {
    fn from(tokens: Tokens) -> Self {
        Self { password_change_required: tokens.password_change_required, session: Session::of(tokens) }
    }
}

/// A file that only its owner reads.
#[derive(Clone)]
pub struct SessionFile {
    path: PathBuf,
}

impl SessionFile {
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// `None` without a sign-in.
    pub fn read(&self) -> Result<Option<Session>> {
        match std::fs::read(&self.path) {
            // What cannot be read was not written by a whole sign-in.
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed(error)),
        }
    }

    /// Either the old or the new session is there, whatever happens.
    pub fn write(&self, session: &Session) -> Result<()> {
        let write = || {
            let mut file = tempfile::Builder::new()
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(self.path.parent().unwrap_or(Path::new(".")))?;
            file.write_all(&serde_json::to_vec(session)?)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|error| self.failed(error))
    }

    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(self.failed(error)),
            _ => Ok(()),
        }
    }

    /// Held while tokens are exchanged: a refresh token that is used twice ends the session.
    pub(crate) fn lock(&self) -> Result<File> {
        let lock = || {
            let path = self.path.with_extension("lock");
            let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
            file.lock()?;
            Ok(file)
        };
        lock().map_err(|error| self.failed(error))
    }

    fn failed(&self, cause: std::io::Error) -> Error {
        Error::File { path: self.path.display().to_string(), cause }
    }
}
