//! A control plane of a few lines: TLS 1.3 with its own authority, one JSON answer per request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use protocol::agent::{HeartbeatReply, JoinRequest, JoinResponse, JoinToken, RenewRequest, RenewResponse};
use protocol::{HostId, Sha256};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::Digest;
use time::macros::datetime;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use super::Endpoint;
use crate::identity::CONTROL_PLANE_NAME;

/// What is wrong with the server's certificate, if anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    Right,
    /// Sends the right authority along, but its certificate is another's.
    LeafOfAnotherAuthority,
    WrongName,
    Expired,
    /// The certificate is right; the body names another authority.
    AnswersAnotherAuthority,
    /// Who asks to be let in again is taken for somebody else.
    AnswersAnotherHost,
    /// Its answer to the first request does not arrive; the token is spent.
    LosesTheAnswer,
}

pub(super) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Shared {
    authority: CertifiedIssuer<'static, KeyPair>,
    other: CertifiedIssuer<'static, KeyPair>,
    trust: Trust,
    host_id: HostId,
    requests: AtomicUsize,
    client_certificate: Mutex<Option<CertificateDer<'static>>>,
    issued: Mutex<Vec<Certificate>>,
    joined_as: Mutex<Option<HostId>>,
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

impl Server {
    pub(super) async fn start(trust: Trust) -> Self {
        let shared = Arc::new(Shared {
            authority: authority(),
            other: authority(),
            trust,
            host_id: HostId::from(Uuid::now_v7()),
            requests: AtomicUsize::new(0),
            client_certificate: Mutex::default(),
            issued: Mutex::default(),
            joined_as: Mutex::default(),
        });
        let acceptor = TlsAcceptor::from(Arc::new(shared.tls()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us leaves during the handshake.
                tokio::spawn(Arc::clone(&serving).serve(acceptor.clone(), stream));
            }
        });
        Self { shared, address, task }
    }

    pub(super) async fn stop(self) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        format!("https://{}", self.address).parse().unwrap()
    }

    pub(super) fn token(&self) -> JoinToken {
        let digest = sha2::Sha256::digest(self.shared.authority.der());
        JoinToken { secret: [3; 32], ca_sha256: Sha256::from_bytes(digest.into()) }
    }

    pub(super) fn host_id(&self) -> HostId {
        self.shared.host_id
    }

    pub(super) fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// The host that the last one who joined said it was.
    pub(super) fn joined_as(&self) -> Option<HostId> {
        *self.shared.joined_as.lock().unwrap()
    }

    /// As PEM, if it is one of those that were issued.
    pub(super) fn last_client_certificate(&self) -> Option<String> {
        let presented = self.shared.client_certificate.lock().unwrap().clone()?;
        let issued = self.shared.issued.lock().unwrap();
        issued.iter().find(|certificate| *certificate.der() == presented).map(Certificate::pem)
    }
}

impl Shared {
    fn tls(&self) -> ServerConfig {
        let name = if self.trust == Trust::WrongName { "cloud.example" } else { CONTROL_PLANE_NAME };
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if self.trust == Trust::Expired {
            params.not_after = datetime!(2020-01-01 00:00 UTC);
        }
        let key = KeyPair::generate().unwrap();
        let issuer = if self.trust == Trust::LeafOfAnotherAuthority { &self.other } else { &self.authority };
        let leaf = params.signed_by(&key, issuer).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![leaf.der().clone(), self.authority.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap()
    }

    async fn serve(self: Arc<Self>, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let certificate = stream.get_ref().1.peer_certificates().map(|chain| chain[0].clone().into_owned());
        *self.client_certificate.lock().unwrap() = certificate.clone();
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let earlier = self.requests.fetch_add(1, Ordering::SeqCst);
        let length = head
            .lines()
            .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let path = head.split(' ').nth(1).unwrap();
        let (status, answer) = match self.trust {
            Trust::LosesTheAnswer if earlier == 0 => return,
            Trust::LosesTheAnswer => ("401 Unauthorized", r#"{"code":"invalid_credentials"}"#.to_owned()),
            _ => self.answer(path, &body, certificate.is_some()),
        };
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(response.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    fn answer(&self, path: &str, body: &[u8], is_known: bool) -> (&'static str, String) {
        match path {
            "/agent/v1/join" => {
                let request: JoinRequest = serde_json::from_slice(body).unwrap();
                assert!(request.token.parse::<JoinToken>().is_ok());
                let ca =
                    if self.trust == Trust::AnswersAnotherAuthority { &self.other } else { &self.authority };
                *self.joined_as.lock().unwrap() = request.host_id;
                let is_other = self.trust == Trust::AnswersAnotherHost && request.host_id.is_some();
                let answer = JoinResponse {
                    host_id: if is_other { HostId::from(Uuid::nil()) } else { self.host_id },
                    certificate_pem: self.issue(&request.csr_pem),
                    ca_pem: ca.pem(),
                };
                ("201 Created", serde_json::to_string(&answer).unwrap())
            }
            _ if !is_known => ("401 Unauthorized", r#"{"code":"unauthenticated"}"#.to_owned()),
            "/agent/v1/renew" => {
                let request: RenewRequest = serde_json::from_slice(body).unwrap();
                let answer = RenewResponse { certificate_pem: self.issue(&request.csr_pem) };
                ("200 OK", serde_json::to_string(&answer).unwrap())
            }
            "/agent/v1/heartbeat" if body.windows(10).any(|part| part == b"\"epoch\":0,") => {
                ("409 Conflict", r#"{"code":"stale_epoch","title":"stale"}"#.to_owned())
            }
            "/agent/v1/heartbeat" => (
                "200 OK",
                serde_json::to_string(&HeartbeatReply {
                    report_all: true,
                    protocol_version: protocol::agent::PROTOCOL_VERSION,
                })
                .unwrap(),
            ),
            _ => ("404 Not Found", r#"{"code":"not_found"}"#.to_owned()),
        }
    }

    fn issue(&self, csr_pem: &str) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        let serial = u64::try_from(self.issued.lock().unwrap().len()).unwrap();
        request.params.serial_number = Some(serial.into());
        request.params.not_before = datetime!(2020-01-01 00:00 UTC);
        request.params.not_after = datetime!(2100-01-01 00:00 UTC);
        let certificate = request.signed_by(&self.authority).unwrap();
        let pem = certificate.pem();
        self.issued.lock().unwrap().push(certificate);
        pem
    }
}
