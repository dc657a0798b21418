//! The little that the agent reads in certificates, and the requests it makes for them.

use protocol::HostId;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::IdentityError;
use crate::host_storage::BoxError;

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: OffsetDateTime,
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// Two thirds of its life: enough is left to survive a control plane that is away for days.
    pub fn renew_at(self) -> OffsetDateTime {
        self.not_before + (self.not_after - self.not_before) * 2 / 3
    }
}

pub(super) fn unusable<E: Into<BoxError>>(what: &'static str) -> impl FnOnce(E) -> IdentityError {
    move |error| IdentityError::Unusable { what, source: error.into() }
}

pub(super) fn parse_pem(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unusable("certificate"))
}

pub(super) fn validity(certificate_pem: &str) -> Result<Validity, IdentityError> {
    let der = parse_pem(certificate_pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(unusable("certificate"))?;
    let validity = certificate.validity();
    Ok(Validity {
        not_before: validity.not_before.to_datetime(),
        not_after: validity.not_after.to_datetime(),
    })
}

/// The host that a certificate stands for, which the caller has verified: its one name, as the authority writes it.
pub(crate) fn host_named(certificate: &CertificateDer<'_>) -> Option<HostId> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??.value;
    let [GeneralName::DNSName(name)] = names.general_names.as_slice() else { return None };
    let host: HostId = name.strip_suffix(".host.cumulo.internal")?.parse().ok()?;
    (format!("{host}.host.cumulo.internal") == *name).then_some(host)
}

pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable("key"))
}

/// A PKCS#10 request, PEM. It names nobody: the control plane knows whom it certifies.
pub(super) fn request(key: &KeyPair) -> Result<String, IdentityError> {
    CertificateParams::default()
        .serialize_request(key)
        .and_then(|request| request.pem())
        .map_err(unusable("certificate request"))
}

/// Refuses a certificate that is for another key.
pub(super) fn check_is_for(certificate_pem: &str, key: &KeyPair) -> Result<(), IdentityError> {
    let der = parse_pem(certificate_pem)?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(unusable("certificate"))?;
    if certificate.public_key().raw == key.subject_public_key_info() {
        Ok(())
    } else {
        Err(unusable("certificate")("it is for another key"))
    }
}
