//! Who this host is: a key, a certificate from the cluster's own authority, and where the control plane is.
//!
//! ```text
//! <state dir>/identity/  key.pem (0600)  certificate.pem  ca.pem  control-plane.json
//! ```
//! [`join`] makes the folder in one rename; [`renew`] replaces only the certificate, for the same key, so
//! that there is never a key without its certificate.

mod certificate;
mod endpoint;
pub mod join;
mod pin;
pub mod renew;
#[cfg(test)]
mod tests;
pub mod tls;

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use protocol::{HostId, Name};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;

pub use certificate::Validity;
pub(crate) use certificate::host_named;
pub use endpoint::{Endpoint, ParseEndpointError};

/// The name in the control plane's certificate, whatever its address is.
pub const CONTROL_PLANE_NAME: &str = "control-plane.cumulo.internal";

const KEY: &str = "key.pem";
const CERTIFICATE: &str = "certificate.pem";
const CA: &str = "ca.pem";
const CONTROL_PLANE: &str = "control-plane.json";

/// See the module.
#[derive(Clone)]
pub struct Identity {
    pub folder: Utf8PathBuf,
    pub membership: Membership,
    pub certificate_pem: String,
    pub ca_pem: String,
    key_pem: String,
}

/// What the host is called, and by whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    pub control_plane: Endpoint,
    pub host_id: HostId,
    pub name: Name,
}

#[derive(Debug, Error)]
pub enum IdentityError {
    #[error("this host has not joined a control plane: there is no identity in {folder}")]
    NotJoined { folder: Utf8PathBuf },
    #[error("the host's identity could not be read from {file}")]
    Unreadable {
        file: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the host's {what} cannot be used")]
    Unusable {
        what: &'static str,
        #[source]
        source: crate::host_storage::BoxError,
    },
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl Identity {
    /// Where the identity is kept.
    pub fn folder_in(state_dir: &Utf8Path) -> Utf8PathBuf {
        state_dir.join("identity")
    }

    pub fn load(state_dir: &Utf8Path) -> Result<Self, IdentityError> {
        let folder = Self::folder_in(state_dir);
        if !folder.exists() {
            return Err(IdentityError::NotJoined { folder });
        }
        let read = |name: &str| {
            let file = folder.join(name);
            fs::read_to_string(&file).map_err(|source| IdentityError::Unreadable { file, source })
        };
        let membership = serde_json::from_str(&read(CONTROL_PLANE)?).map_err(|error| {
            IdentityError::Unreadable { file: folder.join(CONTROL_PLANE), source: error.into() }
        })?;
        Ok(Self {
            membership,
            certificate_pem: read(CERTIFICATE)?,
            ca_pem: read(CA)?,
            key_pem: read(KEY)?,
            folder,
        })
    }

    /// When the certificate is valid.
    pub fn validity(&self) -> Result<Validity, IdentityError> {
        certificate::validity(&self.certificate_pem)
    }

    /// Whether only the operator can let this host in again.
    fn has_run_out(&self, now: OffsetDateTime) -> Result<bool, IdentityError> {
        Ok(self.validity()?.not_after <= now)
    }
}
