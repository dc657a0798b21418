//! Renewing the certificate, at two thirds of its life, without anybody asking.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use protocol::agent::RenewRequest;
use rcgen::KeyPair;
use thiserror::Error;

use super::certificate::{check_is_for, request, unusable};
use super::join::replace_certificate;
use super::{Identity, IdentityError};
use crate::backoff::Backoff;
use crate::clock::SharedClock;
use crate::control_plane::ControlPlaneError;
use crate::control_plane::http::HttpControlPlane;
use crate::durable::off_thread;

/// Pauses after an attempt that failed.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3600));

/// At least so long after one that worked. By a clock that goes wrong, a new certificate is due at once.
const PAUSE: Duration = Duration::from_secs(600);

#[derive(Debug, Error)]
pub enum RenewError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the control plane gave no new certificate")]
    Refused(#[source] ControlPlaneError),
    #[error("the new certificate could not be stored")]
    Store(#[source] io::Error),
}

/// Keeps the identity valid. Runs until it is dropped.
pub async fn keep_valid(mut identity: Identity, control_plane: Arc<HttpControlPlane>, clock: SharedClock) {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    loop {
        match wait_until_due(&identity, &clock).await {
            Ok(()) => {}
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "this host's certificate is unreadable");
            }
        }
        match renew(&identity, &control_plane).await {
            Ok(renewed) => {
                backoff.reset();
                identity = renewed;
                tracing::info!("certificate renewed");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                let error = crate::chain(&error);
                if identity.has_run_out(clock.now()).unwrap_or_default() {
                    tracing::error!(%error, "this host's certificate has run out; let it in again: `cumulo host readmit`");
                } else {
                    tracing::error!(%error, "certificate not renewed");
                }
                tokio::time::sleep(backoff.next()).await;
            }
        }
    }
}

async fn wait_until_due(identity: &Identity, clock: &SharedClock) -> Result<(), IdentityError> {
    let due = identity.validity()?.renew_at();
    while clock.now() < due {
        clock.sleep_until(due).await;
    }
    Ok(())
}

/// Gets a certificate for the same key, stores it, and uses it from the next connection on.
pub async fn renew(identity: &Identity, control_plane: &HttpControlPlane) -> Result<Identity, RenewError> {
    let key = KeyPair::from_pem(&identity.key_pem).map_err(unusable("key"))?;
    let answer =
        control_plane.renew(&RenewRequest { csr_pem: request(&key)? }).await.map_err(RenewError::Refused)?;
    check_is_for(&answer.certificate_pem, &key)?;
    let renewed = Identity { certificate_pem: answer.certificate_pem, ..identity.clone() };
    control_plane.use_identity(&renewed)?;
    let (folder, certificate) = (renewed.folder.clone(), renewed.certificate_pem.clone());
    off_thread(move || replace_certificate(&folder, &certificate)).await.map_err(RenewError::Store)?;
    Ok(renewed)
}
