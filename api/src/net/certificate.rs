//! The certificate of the public API: files of the operator's, read anew when they change.
//!
//! Whoever renews certificates replaces two files, not both at once, and knows nothing of us. So the files are
//! looked at every few seconds and on SIGHUP, and a pair that does not fit together, or that is half written,
//! changes nothing: connections go on getting the last good one, until the next look.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::tls::{TlsError, provider};

const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate resolver for `rustls` that follows two files.
#[derive(Debug)]
pub struct PublicCertificate {
    files: Files,
    current: RwLock<Arc<CertifiedKey>>,
    looks: Mutex<Looks>,
}

/// A certificate chain, leaf first, and its key, both PEM.
#[derive(Debug)]
struct Files {
    certificate: Utf8PathBuf,
    key: Utf8PathBuf,
}

/// What the files looked like.
#[derive(Debug)]
struct Looks {
    /// When the current pair was read.
    used: Stamp,
    /// When a pair was refused, and that was said.
    refused: Option<Stamp>,
}

/// Tells a file from what it was: device, inode, size and time of change; nothing when there is none.
type Stamp = [Option<(u64, u64, u64, i64, i64)>; 2];

/// What a look at the files led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Same,
    Changed,
    Refused,
    /// Refused for the same reason as before, of which enough has been said.
    StillRefused,
}

impl PublicCertificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub fn load(certificate: &Utf8Path, key: &Utf8Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        // Before reading: a change in between is then seen by the next look.
        let used = files.stamp();
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Self { files, current, looks: Mutex::new(Looks { used, refused: None }) })
    }

    /// Follows the files until the shutdown. SIGHUP is heeded from when this returns.
    pub fn watch(self: Arc<Self>, shutdown: CancellationToken) -> std::io::Result<impl Future<Output = ()>> {
        self.watch_every(LOOK_EVERY, shutdown)
    }

    pub(super) fn watch_every(
        self: Arc<Self>,
        every: Duration,
        shutdown: CancellationToken,
    ) -> std::io::Result<impl Future<Output = ()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                let asked = tokio::select! {
                    () = tokio::time::sleep(every) => false,
                    _ = hangup.recv() => true,
                    () = shutdown.cancelled() => return,
                };
                let this = Arc::clone(&self);
                if let Err(error) = tokio::task::spawn_blocking(move || this.look(asked)).await {
                    tracing::error!(%error, "looking at the certificate ended in a panic");
                }
            }
        })
    }

    /// Takes the files if they have changed and are good. Whoever asks gets them read, and is told, in any
    /// case.
    pub(super) fn look(&self, asked: bool) -> Look {
        let stamp = self.files.stamp();
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp == looks.used && !asked {
            return Look::Same;
        }
        match self.files.read() {
            Ok(pair) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
                *looks = Looks { used: stamp, refused: None };
                tracing::info!(certificate = %self.files.certificate, "read the certificate anew");
                Look::Changed
            }
            Err(_) if looks.refused == Some(stamp) && !asked => Look::StillRefused,
            Err(error) => {
                looks.refused = Some(stamp);
                let error = anyhow::Error::new(error);
                tracing::warn!("keeping the old certificate: {error:#}");
                Look::Refused
            }
        }
    }
}

impl Files {
    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
        })
    }

    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let Self { certificate, key } = self;
        let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect)
            .map_err(|source| TlsError::Certificate { path: certificate.clone(), source })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate { path: certificate.clone() });
        }
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TlsError::Key { path: key.clone(), source })?;
        Ok(CertifiedKey::from_der(chain, key, &provider())?)
    }
}

impl ResolvesServerCert for PublicCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}
