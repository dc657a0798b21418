//! TLS between two hosts of a cloud: both have a certificate of its authority, and know which host they speak to.
//!
//! Certificates of hosts are those of clients, also on the side that accepts.

use std::io;
use std::sync::Arc;

use camino::Utf8Path;
use protocol::HostId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::identity::tls::{HostKey, host_key, provider};
use crate::identity::{Identity, IdentityError, host_named};

pub(super) struct Tls {
    client: TlsConnector,
    server: TlsAcceptor,
}

impl Tls {
    pub(super) fn of(state_dir: &Utf8Path) -> Result<Self, IdentityError> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| IdentityError::Unusable {
            what: "TLS configuration",
            source: error,
        };
        let HostKey { authority, certificate, key } = host_key(&Identity::load(state_dir)?)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority).map_err(|error| unusable(error.into()))?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let verifier = verifier.build().map_err(|error| unusable(error.into()))?;
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(error.into()))?
            .with_client_cert_verifier(Arc::clone(&verifier))
            .with_single_cert(vec![certificate.clone()], key.clone_key())
            .map_err(|error| unusable(error.into()))?;
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| unusable(error.into()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(HostVerifier(verifier)))
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|error| unusable(error.into()))?;
        Ok(Self { client: Arc::new(client).into(), server: Arc::new(server).into() })
    }

    pub(super) async fn connect(&self, stream: TcpStream, to: HostId) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(format!("{to}.host.cumulo.internal")).map_err(io::Error::other)?;
        let stream = self.client.connect(name, stream).await?;
        check(stream.get_ref().1.peer_certificates(), to)?;
        Ok(stream.into())
    }

    /// The other side has not said who it is before this is awaited.
    pub(super) fn accept(
        &self,
        stream: TcpStream,
        from: HostId,
    ) -> impl Future<Output = io::Result<TlsStream<TcpStream>>> + use<> {
        let accepting = self.server.accept(stream);
        async move {
            let stream = accepting.await?;
            check(stream.get_ref().1.peer_certificates(), from)?;
            Ok(stream.into())
        }
    }
}

/// INVARIANT: the memory of a guest goes to one host and comes from one, not to any that the authority knows.
fn check(certificates: Option<&[CertificateDer<'_>]>, expected: HostId) -> io::Result<()> {
    let named = certificates.and_then(<[_]>::first).and_then(host_named);
    if named == Some(expected) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other side is another host"))
    }
}

/// Accepts a host as the side that accepts connections; which host it has to be is looked at by [`check`].
#[derive(Debug)]
struct HostVerifier(Arc<dyn ClientCertVerifier>);

impl ServerCertVerifier for HostVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).map(|_| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
