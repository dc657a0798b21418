//! Joining: a one-time token becomes an identity.

use std::fs;
use std::io;

use camino::Utf8Path;
use protocol::agent::{EARLIEST_PROTOCOL_VERSION, JoinRequest, JoinResponse, JoinToken, PROTOCOL_VERSION};
use protocol::{HostId, Name};
use rcgen::KeyPair;
use thiserror::Error;

use super::certificate::{check_is_for, new_key, parse_pem, request, unusable};
use super::{CA, CERTIFICATE, CONTROL_PLANE, Endpoint, Identity, IdentityError, KEY, Membership, pin, tls};
use crate::clock::Clock;
use crate::control_plane::ControlPlaneError;
use crate::control_plane::http;
use crate::durable::{self, Survive};

/// What a join came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    Now(Membership),
    /// The same name at the same control plane: nothing was asked, the token is still unused.
    Already(Membership),
    /// Its certificate had run out: it has another one for the same key, and is the host that it was.
    Again(Membership),
}

#[derive(Debug, Error)]
pub enum JoinError {
    #[error(
        "this host has already joined {} as {}; remove {folder} to join anew",
        .membership.control_plane, .membership.name
    )]
    JoinedElsewhere { membership: Box<Membership>, folder: camino::Utf8PathBuf },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the control plane did not let this host join")]
    Refused(#[source] ControlPlaneError),
    /// Nobody knows whether the token is spent.
    #[error(
        "it is not known whether this host has joined: if `cumulo host list` has {name} as `joining`, remove it with \
         `cumulo host delete {name}` and join with a new token"
    )]
    Unanswered {
        name: Name,
        #[source]
        source: ControlPlaneError,
    },
    /// The token is spent, or the name is taken.
    #[error(
        "the control plane did not let this host join; if the answer to an earlier attempt was lost, `cumulo host list` has \
         {name} as `joining`: remove it with `cumulo host delete {name}` and join with a new token"
    )]
    Spent {
        name: Name,
        #[source]
        source: ControlPlaneError,
    },
    #[error("the control plane's certificate authority is not the one that the token names")]
    WrongAuthority,
    #[error("the control plane has answered for another host, {host}")]
    AnotherHost { host: HostId },
    #[error("the identity could not be stored in {folder}")]
    Store {
        folder: camino::Utf8PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Joins as `name`, and stores the identity in `state_dir`. A host whose certificate has run out is let in again.
pub async fn join(
    endpoint: &Endpoint,
    token: &JoinToken,
    state_dir: &Utf8Path,
    name: &Name,
    clock: &dyn Clock,
) -> Result<Joined, JoinError> {
    if let Some(identity) = already(endpoint, token, state_dir, name)? {
        return if identity.has_run_out(clock.now())? {
            again(token, identity).await
        } else {
            Ok(Joined::Already(identity.membership))
        };
    }
    let key = new_key()?;
    let answer = ask(endpoint, token, name, &key, None).await?.map_err(|error| refused(name, error))?;
    let membership =
        Membership { control_plane: endpoint.clone(), host_id: answer.host_id, name: name.clone() };
    let folder = Identity::folder_in(state_dir);
    store(&folder, &membership, &key.serialize_pem(), &answer)
        .map_err(|source| JoinError::Store { folder, source })?;
    Ok(Joined::Now(membership))
}

/// For the key that it has, so that nobody who has only the token becomes this host's agent here.
async fn again(token: &JoinToken, identity: Identity) -> Result<Joined, JoinError> {
    let Identity { folder, membership, key_pem, .. } = identity;
    let key = KeyPair::from_pem(&key_pem).map_err(unusable("key"))?;
    let Membership { control_plane, host_id, name } = &membership;
    let answer = ask(control_plane, token, name, &key, Some(*host_id)).await?.map_err(JoinError::Refused)?;
    if answer.host_id != *host_id {
        return Err(JoinError::AnotherHost { host: answer.host_id });
    }
    replace_certificate(&folder, &answer.certificate_pem)
        .map_err(|source| JoinError::Store { folder, source })?;
    Ok(Joined::Again(membership))
}

/// The control plane's answer for this key, if it is from the authority that the token names.
async fn ask(
    endpoint: &Endpoint,
    token: &JoinToken,
    name: &Name,
    key: &KeyPair,
    host_id: Option<HostId>,
) -> Result<Result<JoinResponse, ControlPlaneError>, JoinError> {
    let body = JoinRequest {
        protocol_version: PROTOCOL_VERSION,
        token: token.expose(),
        name: name.clone(),
        csr_pem: request(key)?,
        host_id,
    };
    let answer = match send(endpoint, token, body).await? {
        Ok(answer) => answer,
        Err(error) => return Ok(Err(error)),
    };
    if pin::digest(&parse_pem(&answer.ca_pem)?) != token.ca_sha256 {
        return Err(JoinError::WrongAuthority);
    }
    check_is_for(&answer.certificate_pem, key)?;
    Ok(Ok(answer))
}

/// In our version; in the one before with a control plane that has not been upgraded.
async fn send(
    endpoint: &Endpoint,
    token: &JoinToken,
    body: JoinRequest,
) -> Result<Result<JoinResponse, ControlPlaneError>, IdentityError> {
    let client = tls::client(endpoint, tls::pinned(token.ca_sha256)?)?;
    let url = endpoint.base_url();
    let answer = http::post(&client, &url, "join", "/agent/v1/join", &body).await;
    let Err(refused @ ControlPlaneError::UnsupportedProtocol { .. }) = answer else { return Ok(answer) };
    let body = JoinRequest { protocol_version: EARLIEST_PROTOCOL_VERSION, ..body };
    Ok(match http::post(&client, &url, "join", "/agent/v1/join", &body).await {
        Err(ControlPlaneError::UnsupportedProtocol { .. }) => Err(refused),
        answer => answer,
    })
}

fn refused(name: &Name, source: ControlPlaneError) -> JoinError {
    let name = name.clone();
    match &source {
        ControlPlaneError::Unreachable { .. } => JoinError::Unanswered { name, source },
        ControlPlaneError::Refused { code, .. }
            if ["invalid_credentials", "name_taken"].contains(&&**code) =>
        {
            JoinError::Spent { name, source }
        }
        _ => JoinError::Refused(source),
    }
}

fn already(
    endpoint: &Endpoint,
    token: &JoinToken,
    state_dir: &Utf8Path,
    name: &Name,
) -> Result<Option<Identity>, JoinError> {
    let identity = match Identity::load(state_dir) {
        Ok(identity) => identity,
        Err(IdentityError::NotJoined { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let is_same = identity.membership.control_plane == *endpoint
        && identity.membership.name == *name
        && pin::digest(&parse_pem(&identity.ca_pem)?) == token.ca_sha256;
    if is_same {
        Ok(Some(identity))
    } else {
        let Identity { membership, folder, .. } = identity;
        Err(JoinError::JoinedElsewhere { membership: Box::new(membership), folder })
    }
}

/// All or nothing: the folder gets its name when everything in it is on disk.
fn store(folder: &Utf8Path, membership: &Membership, key_pem: &str, answer: &JoinResponse) -> io::Result<()> {
    let unfinished = folder.with_extension("new");
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    durable::make_folder(&unfinished)?;
    durable::write_all(
        &unfinished,
        [
            (KEY, key_pem.as_bytes()),
            (CERTIFICATE, answer.certificate_pem.as_bytes()),
            (CA, answer.ca_pem.as_bytes()),
            (CONTROL_PLANE, &serde_json::to_vec_pretty(membership)?),
        ],
    )?;
    fs::rename(&unfinished, folder)?;
    folder.parent().map_or(Ok(()), durable::sync_folder)
}

/// Replaces the certificate, for the same key.
pub(super) fn replace_certificate(folder: &Utf8Path, certificate_pem: &str) -> io::Result<()> {
    durable::write(&folder.join(CERTIFICATE), certificate_pem.as_bytes(), Survive::PowerCut)
}
