//! The cluster's own certificate authority.
//!
//! It is made once, when the control plane first starts, and vouches for two kinds of peers only: the
//! control plane (`control-plane.cumulo.internal`, server authentication) and the hosts
//! (`<host id>.host.cumulo.internal`, client authentication). A name constraint keeps it from ever
//! vouching for anything outside `cumulo.internal`, so trusting it costs nobody anything else.
//!
//! Agents do not know the authority in advance: a join token carries the [fingerprint](Ca::fingerprint),
//! and the control plane sends the authority's certificate along in its chain. Leaf certificates live
//! for [`LEAF_LIFETIME`] and are renewed at two thirds of it, agents' by themselves and the control
//! plane's by [`ServerCertificates`]. There is no revocation list: whoever removes a host refuses its id
//! on every request.
//!
//! Nothing here reads a clock, a file or the database.

mod csr;
pub mod peer;
mod server_certificates;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use protocol::{HostId, Sha256};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData,
    SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256 as Sha256Hasher};
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

pub use csr::key_digest;
pub use server_certificates::ServerCertificates;

/// The name in the control plane's certificate; agents verify it whatever address they dial.
pub const SERVER_NAME: &str = "control-plane.cumulo.internal";

/// Every name this authority may vouch for lies below this domain.
const DOMAIN: &str = "cumulo.internal";

/// How long a host's or the control plane's certificate is valid.
pub const LEAF_LIFETIME: Duration = Duration::days(30);

const CA_LIFETIME: Duration = Duration::days(3653);

/// Certificates begin this long before they are made, because no two clocks agree.
const CLOCK_SKEW: Duration = Duration::minutes(5);

/// What went wrong with a certificate or a key.
#[derive(Debug, Error)]
pub enum PkiError {
    #[error("cannot make a key pair")]
    Generate(#[source] rcgen::Error),
    #[error("cannot read the private key of the certificate authority")]
    LoadKey(#[source] rcgen::Error),
    #[error("cannot read the certificate of the certificate authority")]
    LoadCertificate(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the certificate and the private key of the certificate authority do not belong together")]
    KeyMismatch,
    #[error("cannot sign a certificate for {name}")]
    Sign { name: String, source: rcgen::Error },
    #[error("cannot use the new server certificate")]
    UseCertificate(#[source] rustls::Error),
    #[error("the certificate request is refused: {0}")]
    Request(&'static str),
}

/// A certificate authority as it is stored. The key never shows in `Debug`.
pub struct CaPem {
    pub certificate: String,
    pub key: Zeroizing<String>,
}

/// The cluster's certificate authority, ready to sign.
pub struct Ca {
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// What keys for other purposes are derived from.
    seed: Zeroizing<[u8; 32]>,
}

impl Ca {
    /// Makes a new authority, valid for ten years.
    pub fn generate(now: OffsetDateTime) -> Result<CaPem, PkiError> {
        let key = generate_key()?;
        let mut params = params("Cumulo cluster CA", now, CA_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName(DOMAIN.to_owned())],
            excluded_subtrees: Vec::new(),
        });
        let certificate = params
            .self_signed(&key)
            .map_err(|source| PkiError::Sign { name: "the certificate authority".to_owned(), source })?;
        Ok(CaPem { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
    }

    /// Reads an authority that [`Ca::generate`] made.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(PkiError::LoadKey)?;
        let certificate = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|error| PkiError::LoadCertificate(error.into()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| PkiError::LoadCertificate(error.into()))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(PkiError::KeyMismatch);
        }
        let seed = Zeroizing::new(Sha256Hasher::digest(key.serialize_der()).into());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| PkiError::LoadCertificate(error.into()))?;
        Ok(Self { certificate, certificate_pem: certificate_pem.to_owned(), issuer, seed })
    }

    /// The SHA-256 of the certificate's DER; what a join token pins.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::from_bytes(Sha256Hasher::digest(&self.certificate).into())
    }

    /// The authority's certificate; what peers verify each other against.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The same as PEM, as it is stored and handed to hosts.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// A key for another purpose, the same on every replica. It says nothing of the authority's own.
    pub fn derive_key(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let mut hash = Sha256Hasher::new_with_prefix(self.seed.as_slice());
        hash.update(purpose);
        Zeroizing::new(hash.finalize().into())
    }

    /// A certificate for a host, PEM. Of the request only the public key is used, once its signature
    /// has shown that the sender holds the private half; the names in it are ignored.
    pub fn issue_host(&self, host: HostId, csr_pem: &str, now: OffsetDateTime) -> Result<String, PkiError> {
        let public_key = csr::public_key(csr_pem)?;
        let params = leaf_params(peer::host_name(host), ExtendedKeyUsagePurpose::ClientAuth, now)?;
        Ok(self.sign(&params, &public_key)?.pem())
    }

    /// A fresh key and certificate for the control plane. The chain ends with the authority itself, so
    /// that an agent that joins can compare it with the fingerprint in its token.
    pub fn issue_server(&self, now: OffsetDateTime) -> Result<Arc<CertifiedKey>, PkiError> {
        let key = generate_key()?;
        let params = leaf_params(SERVER_NAME.to_owned(), ExtendedKeyUsagePurpose::ServerAuth, now)?;
        let leaf = self.sign(&params, &key)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let signing_key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(PkiError::UseCertificate)?;
        let chain = vec![leaf.der().clone(), self.certificate.clone()];
        Ok(Arc::new(CertifiedKey::new(chain, signing_key)))
    }

    fn sign(
        &self,
        params: &CertificateParams,
        public_key: &impl PublicKeyData,
    ) -> Result<rcgen::Certificate, PkiError> {
        params.signed_by(public_key, &self.issuer).map_err(|source| {
            let name = params.subject_alt_names.first().map(|name| format!("{name:?}")).unwrap_or_default();
            PkiError::Sign { name, source }
        })
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

fn generate_key() -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Generate)
}

fn leaf_params(
    name: String,
    usage: ExtendedKeyUsagePurpose,
    now: OffsetDateTime,
) -> Result<CertificateParams, PkiError> {
    let mut params = params(&name, now, LEAF_LIFETIME);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let dns_name = name.as_str().try_into().map_err(|source| PkiError::Sign { name, source })?;
    params.subject_alt_names = vec![rcgen::SanType::DnsName(dns_name)];
    Ok(params)
}

/// When a certificate ends that is issued now for a host or for the control plane.
pub fn leaf_ends_at(now: OffsetDateTime) -> OffsetDateTime {
    ends_at(now, LEAF_LIFETIME)
}

fn ends_at(now: OffsetDateTime, lifetime: Duration) -> OffsetDateTime {
    now - CLOCK_SKEW + lifetime
}

fn params(common_name: &str, now: OffsetDateTime, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = ends_at(now, lifetime);
    params.serial_number = Some(random_serial());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

/// 127 random bits: RFC 5280 wants a positive number of at most 20 bytes, without a leading zero byte.
fn random_serial() -> SerialNumber {
    let mut bytes: [u8; 16] = rand::random();
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    SerialNumber::from_slice(&bytes)
}
