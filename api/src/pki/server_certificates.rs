//! The control plane's own certificate, replaced before it runs out.
//!
//! Nothing is stored: each process makes its certificate when it starts and makes the next one during
//! the first handshake after two thirds of its life, which costs a fraction of a millisecond.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use super::{Ca, LEAF_LIFETIME, PkiError};

type Now = dyn Fn() -> OffsetDateTime + Send + Sync;

/// A certificate resolver for `rustls` that never runs out.
pub struct ServerCertificates {
    ca: Arc<Ca>,
    now: Arc<Now>,
    current: RwLock<Current>,
}

struct Current {
    certificate: Arc<CertifiedKey>,
    renew_at: OffsetDateTime,
}

impl ServerCertificates {
    /// Issues the first certificate; `now` tells the time whenever a client connects.
    pub fn new(
        ca: Arc<Ca>,
        now: impl Fn() -> OffsetDateTime + Send + Sync + 'static,
    ) -> Result<Self, PkiError> {
        let current = RwLock::new(Current::issue(&ca, now())?);
        Ok(Self { ca, now: Arc::new(now), current })
    }

    fn current(&self) -> Arc<CertifiedKey> {
        let now = (self.now)();
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if now < current.renew_at {
                return Arc::clone(&current.certificate);
            }
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if now >= current.renew_at {
            match Current::issue(&self.ca, now) {
                Ok(next) => *current = next,
                // The old one is good for another third of its life.
                Err(error) => tracing::error!(%error, "cannot renew the control plane's certificate"),
            }
        }
        Arc::clone(&current.certificate)
    }
}

impl Current {
    fn issue(ca: &Ca, now: OffsetDateTime) -> Result<Self, PkiError> {
        Ok(Self { certificate: ca.issue_server(now)?, renew_at: now + LEAF_LIFETIME * 2 / 3 })
    }
}

impl ResolvesServerCert for ServerCertificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl fmt::Debug for ServerCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificates").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use time::Duration;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_certificate_is_replaced_after_two_thirds_of_its_life_and_not_before() {
        let start = datetime!(2026-01-01 00:00 UTC);
        let pem = Ca::generate(start).unwrap();
        let ca = Arc::new(Ca::load(&pem.certificate, &pem.key).unwrap());
        let clock = Arc::new(Mutex::new(start));
        let hand = Arc::clone(&clock);
        let certificates = ServerCertificates::new(ca, move || *clock.lock().unwrap()).unwrap();
        let first = certificates.current().cert[0].clone();

        *hand.lock().unwrap() = start + Duration::days(20) - Duration::SECOND;
        assert_eq!(certificates.current().cert[0], first);

        *hand.lock().unwrap() = start + Duration::days(20);
        let second = certificates.current().cert[0].clone();
        assert_ne!(second, first);
        assert_eq!(certificates.current().cert[0], second);
    }
}
