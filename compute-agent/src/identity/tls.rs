//! TLS of this agent: version 1.3, and no authority but the cluster's own.

use std::sync::Arc;
use std::time::Duration;

use protocol::Sha256;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::certificate::{parse_pem, unusable};
use super::pin::PinnedAuthority;
use super::{Endpoint, Identity, IdentityError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the longest long poll.
const READ_TIMEOUT: Duration = Duration::from_secs(45);
/// A connection whose other side has silently gone must not be used for long.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// For everything after joining: mutual TLS.
pub fn mutual(identity: &Identity) -> Result<ClientConfig, IdentityError> {
    let mut roots = RootCertStore::empty();
    roots.add(parse_pem(&identity.ca_pem)?).map_err(unusable("certificate authority"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(unusable("key"))?;
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable("TLS configuration"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![parse_pem(&identity.certificate_pem)?], key)
        .map_err(unusable("certificate"))
}

/// What this host has to show, and the authority that it goes by.
pub(crate) struct HostKey {
    pub authority: CertificateDer<'static>,
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

pub(crate) fn host_key(identity: &Identity) -> Result<HostKey, IdentityError> {
    Ok(HostKey {
        authority: parse_pem(&identity.ca_pem)?,
        certificate: parse_pem(&identity.certificate_pem)?,
        key: PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(unusable("key"))?,
    })
}

/// For joining: the authority is known by its digest alone.
pub fn pinned(authority: Sha256) -> Result<ClientConfig, IdentityError> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable("TLS configuration"))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority { sha256: authority, algorithms }))
        .with_no_client_auth())
}

/// A client that reaches one control plane and nothing else: no proxy, no redirect, no other name.
pub fn client(endpoint: &Endpoint, config: ClientConfig) -> Result<reqwest::Client, IdentityError> {
    builder(endpoint, config).read_timeout(READ_TIMEOUT).build().map_err(unusable("HTTP client"))
}

/// The same for requests whose bodies take their time: whoever sends one watches it.
pub fn sending_client(endpoint: &Endpoint, config: ClientConfig) -> Result<reqwest::Client, IdentityError> {
    builder(endpoint, config).build().map_err(unusable("HTTP client"))
}

/// The same for a connection that becomes something else than HTTP, and lives for hours: whether the other side is there
/// is asked often.
pub fn stream_client(endpoint: &Endpoint, config: ClientConfig) -> Result<reqwest::Client, IdentityError> {
    let builder = builder(endpoint, config).tcp_keepalive_interval(KEEPALIVE / 3).tcp_keepalive_retries(3);
    builder.build().map_err(unusable("HTTP client"))
}

fn builder(endpoint: &Endpoint, mut config: ClientConfig) -> reqwest::ClientBuilder {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .dns_resolver(Arc::new(endpoint.clone()))
        .no_proxy()
        .https_only(true)
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(KEEPALIVE)
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
