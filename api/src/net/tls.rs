//! The two TLS configurations of the control plane.
//!
//! The public API shows a certificate that its operator supplies. The agent API shows one of the cluster's
//! own authority and verifies the client certificates of hosts; it lets clients without one in as far as
//! joining, which a one-time token guards.

use std::sync::Arc;

use camino::Utf8PathBuf;
use rustls::pki_types::pem;
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;

use super::PublicCertificate;
use crate::pki::{Ca, ServerCertificates};

/// HTTP/2 where the client can, as browsers do: their streams of events then share one connection.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why TLS cannot be served.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("cannot read the certificate chain in {path}")]
    Certificate { path: Utf8PathBuf, source: pem::Error },
    #[error("there is no certificate in {path}")]
    NoCertificate { path: Utf8PathBuf },
    #[error("cannot read the private key in {path}")]
    Key { path: Utf8PathBuf, source: pem::Error },
    #[error("cannot use this certificate and key")]
    Config(#[from] rustls::Error),
    #[error("cannot verify client certificates against the cluster's authority")]
    Verifier(#[from] VerifierBuilderError),
}

/// For the public API: a certificate of the operator's.
pub fn public(certificate: Arc<PublicCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(finish(builder()?.with_no_client_auth().with_cert_resolver(certificate)))
}

/// For the agent API: our own certificate, and client certificates of our own authority or none.
pub fn agents(ca: &Ca, certificates: Arc<ServerCertificates>) -> Result<Arc<ServerConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
        .allow_unauthenticated()
        .build()?;
    Ok(finish(builder()?.with_client_cert_verifier(verifier).with_cert_resolver(certificates)))
}

fn builder() -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()
}

pub(super) fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn finish(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Arc::new(config)
}
